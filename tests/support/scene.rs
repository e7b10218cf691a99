//! An engine with a virtual clock, for scenario tests.

use std::time::{Duration, Instant};

use portcullis::policy::Action;
use portcullis::{
    Config, DropReason, EndReason, Engine, Packet, Reload, Reset, SessionRecord, Sink, Tracked,
    TunnelRef, Unsent, Verdict, Zone,
};

use super::packets::{ACK, Ends, Head, SYN, tcp, udp};

/// Events that the sink received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) ended: Vec<(SessionRecord, EndReason)>,
    pub(crate) resets: Vec<Reset>,
}

impl Sink for Received {
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((*session, reason));
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }
}

/// An engine and the current time.
pub(crate) struct Scene {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) zone: Zone,
    pub(crate) tunnel: TunnelRef,
}

/// Returns a configuration that allows all sessions except those that its rules refuse.
pub(crate) fn config(toml: &str) -> Config {
    let mut config = Config::from_toml(toml, "test.toml").unwrap();
    if !toml.contains("default =") {
        config.policy.default = Action::Allow;
    }
    config
}

impl Scene {
    pub(crate) fn new(toml: &str) -> Self {
        Self {
            engine: Engine::with_seed(&config(toml), [1, 2, 3, 4]).unwrap(),
            now: Instant::now(),
            zone: Zone::DEFAULT,
            tunnel: TunnelRef::NONE,
        }
    }

    pub(crate) fn decide(&self, bytes: &[u8]) -> Verdict {
        let packet = Packet::new(bytes, self.now).zone(self.zone);
        self.engine.verdict_only(packet.tunnel(self.tunnel))
    }

    /// Sends a TCP segment with the window 1000.
    pub(crate) fn tcp(&self, ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Verdict {
        self.decide(&segment(ends, flags, seq, ack, payload))
    }

    /// Sends a TCP segment that must be forwarded.
    #[track_caller]
    pub(crate) fn pass(
        &self,
        ends: Ends,
        flags: u8,
        seq: u32,
        ack: u32,
        payload: &[u8],
    ) -> Tracked {
        let verdict = self.tcp(ends, flags, seq, ack, payload);
        assert!(verdict.is_forward(), "{verdict:?}");
        *verdict.tracked()
    }

    pub(crate) fn udp(&self, ends: Ends) -> Verdict {
        self.decide(&udp(ends, b"datagram"))
    }

    /// Runs a handshake. The next bytes are 101 from the initiator and 501 from the responder; each
    /// may send 1000.
    #[track_caller]
    pub(crate) fn handshake(&self, ends: Ends) {
        self.pass(ends, SYN, 100, 0, b"");
        self.pass(ends.back(), SYN | ACK, 500, 101, b"");
        self.pass(ends, ACK, 101, 501, b"");
    }

    /// Advances time, and ends the sessions that have expired by then.
    pub(crate) fn wait(&mut self, seconds: u64) -> Received {
        self.now += Duration::from_secs(seconds);
        let mut received = Received::default();
        while self.engine.expire_with(self.now, 100, &mut received).more {}
        received
    }

    pub(crate) fn reload(&self, toml: &str) -> (Reload, Received) {
        let mut received = Received::default();
        let done = self
            .engine
            .reload(&config(toml), self.now, &mut received)
            .unwrap();
        (done, received)
    }

    pub(crate) fn records(&self) -> Vec<SessionRecord> {
        let mut records = Vec::new();
        self.engine.for_each_session(|record| records.push(*record));
        records
    }

    /// Returns the record of the only session.
    #[track_caller]
    pub(crate) fn record(&self) -> SessionRecord {
        let records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0]
    }

    pub(crate) fn unsent(&self, reason: Unsent) -> u64 {
        let stats = self.engine.stats();
        let found = stats.resets_unsent.iter().find(|(each, _)| *each == reason);
        found.unwrap().1
    }
}

pub(crate) fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    tcp(ends, head, &[], payload)
}

#[track_caller]
pub(crate) fn dropped_for(verdict: &Verdict, reason: DropReason) {
    assert!(
        matches!(verdict, Verdict::Drop(each, _) if *each == reason),
        "{verdict:?} is no silent drop for {reason}"
    );
}
