//! SCTP, DCCP, UDP-Lite, GRE, ESP and AH through the whole engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::time::{Duration, Instant};

use portcullis::config::Config;
use portcullis::{Class, Direction, DropReason, EndReason, Engine, Packet, SessionRecord, Sink, Verdict};
use support::packets::{Ends, chunk, dccp, init, other, sctp, unreachable};
use support::seal::sealed;

const V4: Ends = Ends::v4(4000, 2905);
const V6: Ends = Ends::v6(4000, 2905);

/// The tags that the initiator and the responder have chosen.
const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0001;

#[derive(Default)]
struct Log {
    ended: Vec<(SessionRecord, EndReason)>,
}

impl Sink for Log {
    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((*session, reason));
    }
}

struct Wire {
    engine: Engine,
    now: Instant,
    log: Log,
}

impl Wire {
    fn new(toml: &str) -> Self {
        let config = Config::from_toml(toml, "test.toml").unwrap();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            now: Instant::now(),
            log: Log::default(),
        }
    }

    fn open() -> Self {
        Self::new("[policy]\ndefault = \"allow\"")
    }

    fn send(&mut self, bytes: &[u8]) -> Verdict {
        let packet = Packet::new(bytes, self.now);
        let (verdict, steps) = self.engine.explain(packet, &mut self.log);
        assert!(steps.iter().all(|step| !step.to_string().is_empty()));
        self.engine.check_invariants().unwrap();
        verdict
    }

    #[track_caller]
    fn passes(&mut self, bytes: &[u8]) {
        let verdict = self.send(bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
    }

    fn sessions(&self) -> Vec<SessionRecord> {
        let mut records = Vec::new();
        self.engine.for_each_session(|record| records.push(*record));
        records
    }

    fn state(&self) -> &'static str {
        let sessions = self.sessions();
        assert_eq!(sessions.len(), 1);
        sessions[0].state
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        while self.engine.expire(self.now, 100, &mut self.log).more {}
    }
}

fn association(ends: Ends) -> Vec<Vec<u8>> {
    vec![
        sctp(ends, 0, &init(1, A)),
        sctp(ends.back(), A, &init(2, B)),
        sctp(ends, B, &chunk(10, 0, &[7; 8])),
        sctp(ends.back(), A, &chunk(11, 0, &[])),
    ]
}

#[test]
fn an_sctp_association_lives_as_long_as_its_state() {
    for ends in [V4, V6] {
        let mut wire = Wire::open();
        let states = ["INIT_SENT", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED"];
        for (bytes, state) in association(ends).iter().zip(states) {
            wire.passes(bytes);
            assert_eq!(wire.state(), state);
        }
        let session = wire.sessions()[0];
        assert!(session.assured);
        assert_eq!((session.src_port, session.dst_port), (4000, 2905));
        assert_eq!(session.expires.duration_since(wire.now).as_secs(), 110);
        wire.wait(100);
        wire.passes(&sctp(ends, B, &chunk(0, 3, &[0; 16])));
        wire.passes(&sctp(ends, B, &chunk(7, 0, &[0; 4])));
        wire.passes(&sctp(ends.back(), A, &chunk(8, 0, &[])));
        assert_eq!(wire.state(), "SHUTDOWN_ACK_SENT");
        wire.passes(&sctp(ends, B, &chunk(14, 0, &[])));
        assert_eq!(wire.state(), "CLOSED");
        wire.wait(11);
        assert_eq!(wire.log.ended.len(), 1);
        assert_eq!(wire.log.ended[0].1, EndReason::Closed);
    }
}

/// RTO.Initial is 3 s (RFC 4960 15, and the default of Linux), and doubles.
#[test]
fn chunks_of_an_sctp_handshake_and_shutdown_are_retransmitted() {
    let cookie = sctp(V4, B, &chunk(10, 0, &[7; 8]));
    let shutdown = sctp(V4, B, &chunk(7, 0, &[0; 4]));
    let shutdown_ack = sctp(V4.back(), A, &chunk(8, 0, &[]));
    for (steps, last, state) in [
        (2, vec![], "COOKIE_WAIT"),
        (2, vec![&cookie], "COOKIE_ECHOED"),
        (4, vec![&shutdown], "SHUTDOWN_SENT"),
        (4, vec![&shutdown, &shutdown_ack], "SHUTDOWN_ACK_SENT"),
    ] {
        let mut wire = Wire::open();
        let begun = association(V4);
        let packets: Vec<_> = begun.iter().take(steps).chain(last).collect();
        for bytes in &packets {
            wire.passes(bytes);
        }
        assert_eq!(wire.state(), state);
        for wait in [3, 6, 12, 24] {
            wire.wait(wait);
            // What was lost behind the firewall comes again.
            let again = match state {
                "COOKIE_WAIT" => &cookie,
                _ => packets.last().unwrap(),
            };
            wire.passes(again);
        }
        assert_eq!(wire.log.ended.len(), 0, "{state}");
    }
}

#[test]
fn an_sctp_abort_resets_and_a_refused_init_is_gone_at_once() {
    let mut wire = Wire::open();
    for bytes in association(V4) {
        wire.passes(&bytes);
    }
    wire.passes(&sctp(V4.back(), B, &chunk(6, 1, &[])));
    wire.wait(11);
    assert_eq!(wire.log.ended[0].1, EndReason::Reset);
    wire.passes(&sctp(V4, 0, &init(1, A)));
    wire.passes(&sctp(V4.back(), A, &chunk(6, 0, &[])));
    assert_eq!(wire.sessions().len(), 0);
    assert_eq!(wire.log.ended[1].1, EndReason::Refused);
}

#[test]
fn an_init_opens_a_new_session_on_the_ports_of_a_closed_one_and_only_there() {
    let mut wire = Wire::open();
    for bytes in association(V4) {
        wire.passes(&bytes);
    }
    wire.passes(&sctp(V4, 0, &init(1, A + 5)));
    assert_eq!(wire.state(), "ESTABLISHED");
    wire.passes(&sctp(V4.back(), A, &chunk(6, 0, &[])));
    wire.passes(&sctp(V4.back(), 0, &init(1, A + 6)));
    assert_eq!(wire.state(), "INIT_SENT");
    assert_eq!(wire.sessions()[0].src_port, 2905, "the other end opens");
    assert_eq!(wire.log.ended[0].1, EndReason::Reused);
}

#[test]
fn an_icmp_error_about_an_sctp_packet_is_related() {
    let mut wire = Wire::open();
    let opening = sctp(V4, 0, &init(1, A));
    wire.passes(&opening);
    let verdict = wire.send(&unreachable(false, 1, &opening[..28]));
    assert_eq!(verdict.tracked().class, Class::Related);
}

#[test]
fn a_dccp_connection_lives_as_long_as_its_state() {
    for ends in [V4, V6] {
        let mut wire = Wire::open();
        let story = [
            (ends, 0, 1, 0, "REQUEST"),
            (ends.back(), 1, 500, 1, "RESPOND"),
            (ends, 3, 2, 500, "PARTOPEN"),
            (ends.back(), 4, 501, 2, "OPEN"),
            (ends, 2, 3, 0, "OPEN"),
            (ends.back(), 5, 502, 3, "CLOSEREQ"),
            (ends, 6, 4, 502, "CLOSING"),
            (ends.back(), 7, 503, 4, "TIMEWAIT"),
        ];
        for (ends, kind, seq, ack, state) in story {
            wire.passes(&dccp(ends, kind, seq, ack));
            assert_eq!(wire.state(), state);
        }
        wire.wait(111);
        assert_eq!(wire.log.ended[0].1, EndReason::Closed);
    }
}

#[test]
fn rules_compare_the_ports_of_sctp_dccp_and_udp_lite() {
    let mut wire = Wire::new(
        "[[policy.rule]]\nname = \"signalling\"\naction = \"allow\"\nprotocol = [\"sctp\", \"dccp\", \"udplite\"]\n\
         destination_ports = 2905",
    );
    let closed = Ends::v4(4000, 2906);
    let lite = |ends: Ends| {
        let [a, b] = ends.src_port.to_be_bytes();
        let [c, d] = ends.dst_port.to_be_bytes();
        sealed(other(ends, 136, &[a, b, c, d, 0, 0, 0, 0, 1]))
    };
    for (good, bad) in [
        (sctp(V4, 0, &init(1, A)), sctp(closed, 0, &init(1, A))),
        (dccp(V4, 0, 1, 0), dccp(closed, 0, 1, 0)),
        (lite(V4), lite(closed)),
    ] {
        wire.passes(&good);
        assert_eq!(wire.send(&bad).reason(), Some(DropReason::PolicyDeny));
    }
    let verdict = wire.send(&lite(V4.back()));
    assert_eq!(verdict.tracked().direction, Some(Direction::Reply));
    let answered = wire.sessions().iter().any(|session| session.state == "EXCHANGE");
    assert!(answered);
}

#[test]
fn each_gre_key_is_a_session_and_tunnels_remember_what_each_direction_calls_them() {
    let gre = |ends, key: u8| other(ends, 47, &[0x20, 0, 8, 0, 0, 0, 0, key]);
    let call = |ends, id: u8| other(ends, 47, &[0x20, 1, 0x88, 0x0b, 0, 0, 0, id]);
    let esp = |ends, spi: u8| other(ends, 50, &[0, 0, 1, spi, 0, 0, 0, 1]);
    let mut wire = Wire::open();
    for bytes in [
        gre(V4, 1),
        gre(V4.back(), 1),
        gre(V4, 2),
        other(V4, 47, &[0, 0, 8, 0]),
        call(V4, 7),
        call(V4.back(), 8),
        call(V4, 9),
        esp(V4, 3),
        esp(V4.back(), 4),
        esp(V4, 5),
    ] {
        wire.passes(&bytes);
    }
    let mut found: Vec<_> = wire
        .sessions()
        .iter()
        .map(|session| {
            assert_eq!((session.src_port, session.dst_port), (0, 0));
            (session.protocol, session.tunnel, session.reply.packets)
        })
        .collect();
    found.sort();
    let expected = [
        (47, [None, None], 0),
        (47, [Some(1), Some(1)], 1),
        (47, [Some(2), None], 0),
        (47, [Some(7), Some(8)], 1),
        (50, [Some(0x103), Some(0x104)], 1),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_checks_of_sctp_and_dccp_can_be_set_to_count() {
    let mut wire = Wire::new(
        "[policy]\ndefault = \"allow\"\n[checks]\nsctp_tag = \"count\"\ndccp_ack_of_unseen = \"count\"",
    );
    for bytes in association(V4) {
        wire.passes(&bytes);
    }
    let before = wire.sessions();
    let forged = sctp(V4, 0xdead_beef, &chunk(0, 3, &[0; 16]));
    let verdict = wire.send(&forged);
    assert!(verdict.is_forward());
    assert_eq!(verdict.tracked().tolerated, Some(DropReason::SctpTag));
    assert_eq!(wire.sessions(), before, "what a check lets pass changes nothing");
    assert_eq!(
        wire.engine.tolerated(),
        [(DropReason::SctpTag, "default".to_owned(), 1)]
    );
    let answer_without_a_question = sctp(V4, B, &chunk(14, 0, &[]));
    assert_eq!(
        wire.send(&answer_without_a_question).reason(),
        Some(DropReason::SctpState)
    );
}
