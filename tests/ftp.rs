//! FTP through the whole engine: what a control session announces is admitted, and nothing else.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "a part of the support is used")]

mod support;

use std::time::{Duration, Instant};

use portcullis::alg::HelperEvent;
use portcullis::{Class, Config, Direction, DropReason, Engine, Packet, SessionRecord, Verdict};
use support::packets::{ACK, Ends, FIN, Head, RST, SYN, tcp};

const ONLY_21: &str =
    "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\ndestination_ports = 21\n";

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 30_000,
    };
    tcp(ends, head, &[], payload)
}

/// A control connection from host 1 to host 2, port 21.
struct Control {
    engine: Engine,
    now: Instant,
    ends: Ends,
    /// What the client and the server send next.
    next: [u32; 2],
}

impl Control {
    fn new(toml: &str, v6: bool) -> Self {
        let config = Config::from_toml(toml, "test.toml").expect("a configuration");
        let ends = if v6 {
            Ends::v6(4000, 21)
        } else {
            Ends::v4(4000, 21)
        };
        let mut control = Self {
            engine: Engine::with_seed(&config, [1; 4]).expect("an engine"),
            now: Instant::now(),
            ends,
            next: [101, 501],
        };
        control.passes(&segment(ends, SYN, 100, 0, b""));
        control.passes(&segment(ends.back(), SYN | ACK, 500, 101, b""));
        control.passes(&segment(ends, ACK, 101, 501, b""));
        control.server("220 ready\r\n");
        control
    }

    fn decide(&self, bytes: &[u8]) -> Verdict {
        self.engine.process(Packet::new(bytes, self.now))
    }

    #[track_caller]
    fn passes(&mut self, bytes: &[u8]) {
        let verdict = self.decide(bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
    }

    #[track_caller]
    fn client(&mut self, line: &str) {
        let bytes = segment(self.ends, ACK, self.next[0], self.next[1], line.as_bytes());
        self.next[0] += line.len() as u32;
        self.passes(&bytes);
    }

    #[track_caller]
    fn server(&mut self, line: &str) {
        let bytes = segment(self.ends.back(), ACK, self.next[1], self.next[0], line.as_bytes());
        self.next[1] += line.len() as u32;
        self.passes(&bytes);
    }

    fn syn(&self, src: u8, src_port: u16, dst: u8, dst_port: u16) -> Verdict {
        let ends = Ends {
            v6: self.ends.v6,
            src,
            src_port,
            dst,
            dst_port,
        };
        self.decide(&segment(ends, SYN, 9_000, 0, b""))
    }

    fn session(&self, port: u16) -> SessionRecord {
        let mut found = None;
        self.engine.for_each_session(|session| {
            if session.dst_port == port {
                found = Some(*session);
            }
        });
        found.expect("a session")
    }

    fn event(&self, event: HelperEvent) -> u64 {
        let stats = self.engine.stats();
        let found = stats.helper_events.iter().find(|(each, _)| *each == event);
        found.expect("every event is counted").1
    }
}

#[test]
fn passive_data_is_related_once_and_nothing_else_is_opened() {
    for v6 in [false, true] {
        let mut control = Control::new(ONLY_21, v6);
        if v6 {
            control.client("EPSV\r\n");
            control.server("229 Entering Extended Passive Mode (|||50000|)\r\n");
        } else {
            control.client("PASV\r\n");
            control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        }
        for (src, dst, port) in [(1, 2, 50_001), (3, 2, 50_000), (2, 1, 50_000)] {
            assert_eq!(
                control.syn(src, 40_000, dst, port).reason(),
                Some(DropReason::PolicyDeny),
                "{src} -> {dst}:{port}"
            );
        }
        let data = control.syn(1, 40_000, 2, 50_000);
        assert!(data.is_forward());
        let tracked = data.tracked();
        assert_eq!(
            (tracked.class, tracked.direction),
            (Class::Related, Some(Direction::Original))
        );
        let again = control.syn(1, 40_000, 2, 50_000);
        assert_eq!(again.tracked().class, Class::Related, "its own retransmission");
        let session = control.session(50_000);
        assert_eq!(session.parent, Some(control.session(21).id));
        assert_eq!(session.rule, control.session(21).rule);
        assert_eq!(
            control.syn(1, 40_001, 2, 50_000).reason(),
            Some(DropReason::PolicyDeny),
            "an announcement is for one session"
        );
        assert_eq!(control.engine.stats().expectations, 0);
    }
}

#[test]
fn active_data_comes_from_the_server() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    control.server("200 fine\r\n");
    assert_eq!(
        control.syn(3, 20, 1, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
    let data = control.syn(2, 20, 1, 50_000);
    assert_eq!(data.tracked().class, Class::Related);
    let session = control.session(50_000);
    assert_eq!(session.parent, Some(control.session(21).id));
}

#[test]
fn an_announcement_in_pieces_out_of_order_counts_like_a_whole_one() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    let (ends, [client, server]) = (control.ends.back(), control.next);
    let line = b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n";
    control.passes(&segment(ends, ACK, server + 20, client, &line[20..]));
    assert_eq!(control.engine.stats().expectations, 0);
    control.passes(&segment(ends, ACK, server, client, &line[..20]));
    assert_eq!(control.engine.stats().expectations, 1);
}

#[test]
fn forged_announcements_open_nothing_and_are_counted() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,9,195,80\r\n");
    control.client("PORT 10,0,0,1,0,22\r\n");
    control.client("PORT 10,0,0,1,195,300\r\n");
    control.client("227 Entering Passive Mode (10,0,0,1,195,80)\r\n");
    control.server("PORT 10,0,0,2,195,80\r\n");
    assert_eq!(control.engine.stats().expectations, 0);
    for event in [
        HelperEvent::BounceRefused,
        HelperEvent::PortBelowFloor,
        HelperEvent::NumberOutOfRange,
        HelperEvent::WrongDirection,
    ] {
        assert!(control.event(event) > 0, "{event}");
    }
}

#[test]
fn what_the_tracker_drops_announces_nothing() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    let far = segment(
        control.ends.back(),
        ACK,
        control.next[1].wrapping_add(1 << 30),
        control.next[0],
        b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n",
    );
    assert!(!control.decide(&far).is_forward());
    assert_eq!(control.engine.stats().expectations, 0);
}

#[test]
fn an_announcement_ends_with_its_time_and_with_its_session() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    control.now += Duration::from_secs(31);
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
    let _ = control.engine.expire(control.now, 100, &mut ());
    assert_eq!(control.engine.stats().expectations, 0);

    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert_eq!(control.engine.stats().expectations, 1);
    let reset = segment(control.ends.back(), RST, control.next[1], 0, b"");
    control.passes(&reset);
    control.now += Duration::from_secs(20);
    while control.engine.expire(control.now, 100, &mut ()).more {}
    let stats = control.engine.stats();
    assert_eq!(
        (stats.sessions, stats.control_sessions, stats.expectations),
        (0, 0, 0)
    );
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
}

#[test]
fn without_a_port_nobody_listens() {
    let mut control = Control::new(&format!("[ftp]\nports = []\n{ONLY_21}"), false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let stats = control.engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (0, 0));
    let fin = segment(control.ends, FIN | ACK, control.next[0], control.next[1], b"");
    control.passes(&fin);
}

#[test]
fn a_syn_alone_is_not_listened_to_and_its_data_announce_nothing() {
    let config = Config::from_toml(ONLY_21, "test.toml").unwrap();
    let engine = Engine::with_seed(&config, [1; 4]).unwrap();
    let now = Instant::now();
    let syn = segment(Ends::v4(4000, 21), SYN, 100, 0, b"PORT 10,0,0,1,195,80\r\n");
    assert!(engine.process(Packet::new(&syn, now)).is_forward());
    assert_eq!(engine.stats().control_sessions, 0);
    let answer = segment(Ends::v4(4000, 21).back(), SYN | ACK, 500, 123, b"");
    assert!(engine.process(Packet::new(&answer, now)).is_forward());
    let stats = engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (1, 0));
}

#[test]
fn a_reset_withdraws_what_was_announced() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    assert_eq!(control.engine.stats().expectations, 1);
    let reset = segment(control.ends, RST, control.next[0], 0, b"");
    control.passes(&reset);
    assert_eq!(control.engine.stats().expectations, 0);
    assert_eq!(
        control.syn(2, 20, 1, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
}

#[test]
fn a_new_session_on_the_same_ports_inherits_no_announcement() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    let [client, server] = control.next;
    let ends = control.ends;
    control.passes(&segment(ends, FIN | ACK, client, server, b""));
    control.passes(&segment(ends.back(), FIN | ACK, server, client + 1, b""));
    control.passes(&segment(ends, ACK, client + 1, server + 1, b""));
    control.passes(&segment(ends, SYN, client + 100_000, 0, b""));
    control.passes(&segment(ends.back(), SYN | ACK, 7_000, client + 100_001, b""));
    let stats = control.engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (1, 0));
}

#[test]
fn what_was_announced_announces_nothing_itself() {
    let rules = format!("[ftp]\nports = [21, 2121]\n{ONLY_21}");
    let mut control = Control::new(&rules, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,8,73)\r\n");
    let data = Ends::v4(40_000, 2_121);
    control.passes(&segment(data, SYN, 100, 0, b""));
    control.passes(&segment(data.back(), SYN | ACK, 500, 101, b""));
    assert_eq!(control.engine.stats().control_sessions, 1);
}
