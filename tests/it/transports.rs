//! SCTP, DCCP, UDP-Lite, GRE, ESP and AH through the whole engine.

use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{Ends, chunk, dccp, init, other, sctp, unreachable};
use crate::support::seal::sealed;
use portcullis::config::Config;
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::snapshot::RestoreOptions;
use portcullis::{
    Class, Direction, DropReason, EndReason, Engine, Packet, Reply, SessionRecord, Sink, Verdict,
};

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
        while self.engine.expire_with(self.now, 100, &mut self.log).more {}
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
            // A chunk that is lost after the firewall is retransmitted.
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
fn an_init_that_the_policy_rejects_is_answered_by_an_abort_with_its_tag() {
    for ends in [V4, V6] {
        let mut wire = Wire::new("[policy]\ndefault = \"reject\"");
        let opening = sctp(ends, 0, &init(1, A));
        let verdict = wire.send(&opening);
        let Verdict::Reject(DropReason::PolicyReject, reply @ Reply::SctpAbort, _) = verdict else {
            panic!("{verdict:?}");
        };
        let mut buffer = [0; MAX_REPLY];
        let answer = write_reply_unbudgeted(reply, &opening, &mut buffer).unwrap();
        let expected = sctp(ends.back(), A, &chunk(6, 0, &[]));
        // The IP header has flags and a checksum of its own.
        let transport = if ends.v6 { 40 } else { 20 };
        assert_eq!(answer[transport..], expected[transport..]);
        assert_eq!(answer.len(), expected.len());
        // An association would treat this answer as a refusal.
        let mut open = Wire::open();
        open.passes(&opening);
        open.passes(answer);
        assert_eq!(open.log.ended[0].1, EndReason::Refused);
        // Only an INIT is answered.
        let data = sctp(ends, B, &chunk(0, 3, &[0; 16]));
        let verdict = wire.send(&data);
        assert!(
            matches!(verdict, Verdict::Drop(DropReason::SctpNoSession, _)),
            "{verdict:?}"
        );
        assert_eq!(
            write_reply_unbudgeted(Reply::SctpAbort, &data, &mut [0; MAX_REPLY]),
            None
        );
    }
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
        "[[policy.rule]]\nname = \"signaling\"\naction = \"allow\"\n\
         protocol = [\"sctp\", \"dccp\", \"udplite\"]\n\
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
    let answered = wire
        .sessions()
        .iter()
        .any(|session| session.state == "EXCHANGE");
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

/// A policy under which host 1 may open any session, and host 2 none.
const OUT: &str = "[[policy.rule]]\nname = \"out\"\naction = \"allow\"\nsource = \"10.0.0.1\"";

/// A GRE packet with a key, or without one.
fn gre(ends: Ends, key: Option<u32>) -> Vec<u8> {
    match key {
        Some(key) => other(
            ends,
            47,
            &[&[0x20, 0, 8, 0][..], &key.to_be_bytes()].concat(),
        ),
        None => other(ends, 47, &[0, 0, 8, 0]),
    }
}

#[track_caller]
fn is_answer(verdict: &Verdict) {
    assert!(verdict.is_forward(), "{verdict:?}");
    let tracked = verdict.tracked();
    assert_eq!(
        (tracked.class, tracked.direction),
        (Class::Established, Some(Direction::Reply))
    );
}

/// The keys of each session in both directions, and the packets of its responder.
fn keys(wire: &Wire) -> Vec<([Option<u32>; 2], u64)> {
    let sessions = wire.sessions();
    let mut keys: Vec<_> = sessions
        .iter()
        .map(|s| (s.tunnel, s.reply.packets.into()))
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_directions_of_a_gre_tunnel_may_have_different_keys() {
    for (there, back) in [
        (Some(2), Some(1)),
        (Some(7), None),
        (None, Some(7)),
        (Some(0), None),
    ] {
        let mut wire = Wire::new(OUT);
        let answer = gre(V4.back(), back);
        let verdict = wire.send(&answer);
        assert_eq!(
            verdict.reason(),
            Some(DropReason::PolicyDeny),
            "nobody has asked"
        );
        for _ in 0..3 {
            wire.passes(&gre(V4, there));
            is_answer(&wire.send(&answer));
        }
        assert_eq!(keys(&wire), [([there, back], 3)]);
        assert_eq!(wire.state(), "REPLIED");
        // Packets of other addresses, and the call of a PPTP client, do not count as answers.
        let stranger = Ends {
            src: 3,
            ..V4.back()
        };
        let call = other(V4.back(), 47, &[0x20, 1, 0x88, 0x0b, 0, 0, 0, 7]);
        for foreign in [gre(stranger, there), gre(stranger, back), call] {
            assert_eq!(wire.send(&foreign).reason(), Some(DropReason::PolicyDeny));
        }
    }
}

#[test]
fn a_gre_answer_prefers_its_own_key_and_then_the_session_that_it_has_answered_before() {
    let mut wire = Wire::new(OUT);
    for (there, back) in [(1, 11), (2, 12), (3, 13)] {
        wire.passes(&gre(V4, Some(there)));
        is_answer(&wire.send(&gre(V4.back(), Some(back))));
    }
    for back in [13, 11, 12, 2, 11] {
        is_answer(&wire.send(&gre(V4.back(), Some(back))));
    }
    let session = |there, back| [Some(there), Some(back)];
    let expected = [
        (session(1, 11), 3),
        (session(2, 12), 3),
        (session(3, 13), 2),
    ];
    assert_eq!(keys(&wire), expected);
}

#[test]
fn the_flow_identifiers_of_nvgre_open_a_bounded_number_of_sessions() {
    let mut wire = Wire::new(OUT);
    for flow in 0..=255_u32 {
        wire.passes(&gre(V4, Some(0x0017_7100 | flow)));
        is_answer(&wire.send(&gre(V4.back(), Some(0x0017_7100 | ((flow * 31) & 0xff)))));
    }
    assert_eq!(wire.sessions().len(), 16);
    // Sessions of one pair do not count for another.
    let others = Ends { dst: 3, ..V4 };
    wire.passes(&gre(others, Some(7)));
    is_answer(&wire.send(&gre(others.back(), Some(8))));
    assert_eq!(wire.sessions().len(), 17);
}

#[test]
fn a_gre_session_of_a_pair_outlives_the_others_and_none_is_left_when_all_are_over() {
    let mut wire = Wire::new(OUT);
    wire.passes(&gre(V4, Some(1)));
    wire.passes(&gre(V4, Some(2)));
    let lifetime = wire.sessions()[0].expires - wire.now;
    wire.now += lifetime / 2;
    wire.passes(&gre(V4, Some(1)));
    wire.now += lifetime / 2 + Duration::from_secs(1);
    // The second session has expired, whether or not it was removed.
    is_answer(&wire.send(&gre(V4.back(), Some(9))));
    wire.wait(0);
    assert_eq!(keys(&wire), [([Some(1), Some(9)], 1)]);
    wire.wait(3600);
    let verdict = wire.send(&gre(V4.back(), Some(9)));
    assert_eq!(verdict.reason(), Some(DropReason::PolicyDeny));
}

#[test]
fn a_reload_judges_the_gre_session_that_an_answer_of_another_key_belongs_to() {
    let mut wire = Wire::new(OUT);
    wire.passes(&gre(V4, Some(1)));
    is_answer(&wire.send(&gre(V4.back(), Some(2))));
    let closed = Config::from_toml("[policy]\ndefault = \"deny\"", "test.toml").unwrap();
    wire.engine
        .reload(&closed, wire.now, &mut wire.log)
        .unwrap();
    let verdict = wire.send(&gre(V4.back(), Some(2)));
    assert_eq!(verdict.reason(), Some(DropReason::PolicyDeny));
    assert_eq!(wire.log.ended.len(), 1);
}

/// Sends a packet when a reload ends the first session.
struct During<'a> {
    engine: &'a Engine,
    packet: Packet<'a>,
    verdict: Option<Verdict>,
    log: Log,
}

impl Sink for During<'_> {
    fn session_ended(&mut self, _: &SessionRecord, _: EndReason) {
        if self.verdict.is_none() {
            self.verdict = Some(self.engine.process_with(self.packet, &mut self.log));
        }
    }
}

#[test]
fn a_gre_answer_during_a_reload_passes_in_no_session_of_its_pair_that_the_reload_revokes() {
    let table = "[table]\nmax_sessions = 1024\nshards = 1\n";
    let mut wire = Wire::new(&format!("{table}{OUT}"));
    // More sessions than the reload judges before it reports the first one.
    for host in 10..=209 {
        wire.passes(&gre(Ends { dst: host, ..V4 }, None));
    }
    for key in 0..16 {
        wire.passes(&gre(V4, Some(key)));
    }
    let answer = gre(V4.back(), Some(99));
    let mut during = During {
        engine: &wire.engine,
        packet: Packet::new(&answer, wire.now),
        verdict: None,
        log: Log::default(),
    };
    let closed = format!("{table}[policy]\ndefault = \"deny\"\non_reload = \"end\"");
    let closed = Config::from_toml(&closed, "test.toml").unwrap();
    let done = wire.engine.reload(&closed, wire.now, &mut during).unwrap();
    assert_eq!(
        during.verdict.unwrap().reason(),
        Some(DropReason::PolicyDeny)
    );
    let ended = &during.log.ended;
    assert_eq!(ended.len(), 16, "each of them is reported");
    assert!(
        ended
            .iter()
            .all(|(_, reason)| *reason == EndReason::Revoked)
    );
    assert_eq!(done.revoked, 216);
}

#[test]
fn a_restore_gives_a_gre_pair_no_more_sessions_than_its_packets_could_open() {
    let mut other = Wire::new(OUT);
    let at = SystemTime::now();
    let now = other.now;
    let done = [0, 100].map(|first| {
        let mut wire = Wire::new(OUT);
        wire.now = now;
        for key in first..first + 10 {
            wire.passes(&gre(V4, Some(key)));
        }
        let saved = wire.engine.save(now, at);
        let options = RestoreOptions::default();
        let done = other.engine.restore(&saved, now, at, options).unwrap();
        (done.sessions, done.no_room)
    });
    assert_eq!(done, [(10, 0), (6, 4)]);
    is_answer(&other.send(&gre(V4.back(), Some(3))));
    other.passes(&gre(V4, Some(500)));
    assert_eq!(other.sessions().len(), 16);
}

#[test]
fn later_fragments_of_a_gre_answer_are_counted_in_the_session_of_the_pair() {
    let mut wire = Wire::new(OUT);
    wire.passes(&gre(V4, Some(1)));
    let payload = [&[0x20, 0, 8, 0, 0, 0, 0, 2][..], &[0; 16]].concat();
    let fragment = |bytes: &[u8], at: u8, more: u8| {
        let mut packet = other(V4.back(), 47, bytes);
        packet[4..8].copy_from_slice(&[0, 9, more, at]);
        sealed(packet)
    };
    is_answer(&wire.send(&fragment(&payload, 0, 0x20)));
    wire.passes(&fragment(&[0; 8], 3, 0));
    assert_eq!(keys(&wire), [([Some(1), Some(2)], 2)]);
}

#[test]
fn explain_shows_the_keys_of_a_gre_session() {
    let mut wire = Wire::new(OUT);
    wire.passes(&gre(V4, Some(2)));
    wire.passes(&gre(V4.back(), Some(1)));
    let answer = gre(V4.back(), Some(1));
    let (_, steps) = wire
        .engine
        .explain(Packet::new(&answer, wire.now), &mut wire.log);
    let text: String = steps.iter().map(|step| format!("{step}\n")).collect();
    for part in [
        "GRE key 0x1 ",
        ", key 0x2 there, 0x1 back",
        "regardless of its GRE key",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn an_icmp_error_about_gre_is_related_to_the_session_of_the_key_if_it_quotes_one() {
    // A checksum, and after it a key that 8 bytes of quote do not reach.
    let with_checksum = other(V4, 47, &[0xa0, 0, 8, 0, 0x57, 0xf6, 0, 0, 0, 0, 0, 9]);
    let answer = gre(V4.back(), Some(5));
    let mut wire = Wire::new(OUT);
    for packet in [&with_checksum, &answer] {
        let error = unreachable(false, if packet == &answer { 2 } else { 1 }, &packet[..28]);
        assert_eq!(
            wire.send(&error).reason(),
            Some(DropReason::IcmpErrorNoSession)
        );
    }
    wire.passes(&with_checksum);
    is_answer(&wire.send(&answer));
    for (to, packet) in [(1, &with_checksum), (1, &gre(V4, Some(9))), (2, &answer)] {
        let verdict = wire.send(&unreachable(false, to, &packet[..28]));
        assert_eq!(verdict.tracked().class, Class::Related, "{verdict:?}");
    }
    for key in [Some(77), Some(5), None] {
        let foreign = unreachable(
            false,
            1,
            &gre(V4, key)[..24 + 4 * usize::from(key.is_some())],
        );
        let reason = wire.send(&foreign).reason();
        assert_eq!(reason, Some(DropReason::IcmpErrorNoSession), "{key:?}");
    }
    let not_to_sender = unreachable(false, 2, &with_checksum[..28]);
    assert_eq!(
        wire.send(&not_to_sender).reason(),
        Some(DropReason::IcmpErrorNotToSender)
    );
}

#[test]
fn the_checks_of_sctp_and_dccp_can_be_set_to_count() {
    let mut wire = Wire::new(
        "[policy]\ndefault = \"allow\"\n[checks]\nsctp_tag = \"count\"\n\
         dccp_ack_of_unseen = \"count\"",
    );
    for bytes in association(V4) {
        wire.passes(&bytes);
    }
    let before = wire.sessions();
    let forged = sctp(V4, 0xdead_beef, &chunk(0, 3, &[0; 16]));
    let verdict = wire.send(&forged);
    assert!(verdict.is_forward());
    assert_eq!(verdict.tracked().tolerated, Some(DropReason::SctpTag));
    assert_eq!(
        wire.sessions(),
        before,
        "what a check lets pass changes nothing"
    );
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
