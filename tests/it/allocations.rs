//! The packet path does not allocate, for new or existing sessions, dropped packets or expiry.

use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use portcullis::config::ChallengeMode;
use portcullis::event::write_reply_unbudgeted;
use portcullis::geneve::front::{Answer, Datagram, FrontEnd, Scratch};
use portcullis::policy::Protocol;
use portcullis::{Config, Discard, Engine, Outbox, Packet, Policy, Reply, Rule, Verdict};

fn tcp(client: bool, seq: u32, ack: u32, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if client {
        ([10, 0, 0, 1], [10, 0, 0, 2])
    } else {
        ([10, 0, 0, 2], [10, 0, 0, 1])
    };
    let (source, destination) = if client { (4000, 80) } else { (80, 4000) };
    let mut step = PacketBuilder::ipv4(from, to, 64).tcp(source, destination, seq, 60_000);
    if flags.contains('S') {
        step = step.syn();
    }
    if flags.contains('A') {
        step = step.ack(ack);
    }
    if flags.contains('F') {
        step = step.fin();
    }
    let mut bytes = Vec::new();
    step.write(&mut bytes, payload).expect("a vector takes it");
    bytes
}

fn udp(n: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Many sources: a single one gets only its share of a small table.
    let source = [10, 0, 0, (n % 50) as u8 + 3];
    let builder = PacketBuilder::ipv4(source, [10, 0, 0, 2], 64).udp(n, 53);
    builder
        .write(&mut bytes, &[0; 16])
        .expect("a vector takes it");
    bytes
}

/// Sink that receives all events and stores none.
struct Listener;

impl portcullis::Sink for Listener {}

#[test]
fn the_packet_path_allocates_nothing() {
    let mut config = Config::allow_all();
    config.table.max_sessions = 64;
    let engine = Engine::new(&config).expect("the default configuration");
    let start = Instant::now();
    let story = [
        tcp(true, 100, 0, "S", b""),
        tcp(false, 500, 101, "SA", b""),
        tcp(true, 101, 501, "A", b""),
        tcp(true, 101, 501, "A", b"GET"),
        tcp(false, 501, 104, "A", b"200"),
        tcp(false, 501, 999_999, "A", b"never sent"),
        tcp(true, 104, 504, "FA", b""),
        tcp(false, 504, 105, "FA", b""),
        tcp(true, 105, 505, "A", b""),
        vec![0; 7],
    ];
    // More sessions than the table holds: evictions are part of the path.
    let many: Vec<_> = (1..200).map(udp).collect();
    let mut verdicts = Vec::with_capacity(many.len());
    // The first use of a thread's counters is not part of the path.
    let _ = engine.verdict_only(Packet::new(&[], start));
    // A new line of the report of asymmetric paths is not part of it either: this conversation
    // creates the line, from the same prefixes.
    let late = Instant::now();
    let before = late
        .checked_sub(Duration::from_secs(1_000))
        .expect("a long time");
    for bytes in &story[..3] {
        let _ = engine.verdict_only(Packet::new(bytes, before));
    }
    while engine.expire_with(late, 8, &mut Listener).more {}
    let _ = engine.verdict_only(Packet::new(&story[3], late));
    let start = start + Duration::from_secs(1);
    let info = allocation_counter::measure(|| {
        for (n, bytes) in (0..).zip(&story) {
            let _ = engine.verdict_only(Packet::new(bytes, start + Duration::from_millis(n)));
        }
        let (one_by_one, batch) = many.split_at(100);
        for bytes in one_by_one {
            let _ = engine.verdict_only(Packet::new(bytes, start + Duration::from_secs(1)));
        }
        let mut packets = [Packet::new(&[], start + Duration::from_secs(1)); 99];
        for (packet, bytes) in packets.iter_mut().zip(batch) {
            *packet = Packet::new(bytes, start + Duration::from_secs(1));
        }
        engine.verdicts_only(&packets, &mut verdicts);
        while engine
            .expire_with(start + Duration::from_secs(3_600), 8, &mut Discard)
            .more
        {}
        // A connection that expires, and packets after its end.
        let again = start + Duration::from_secs(3_700);
        for bytes in &story[..3] {
            let _ = engine.verdict_only(Packet::new(bytes, again));
        }
        let over = again + Duration::from_secs(400);
        while engine.expire_with(over, 8, &mut Listener).more {}
        let _ = engine.verdict_only(Packet::new(&story[3], over));
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    let stats = engine.stats();
    assert_eq!(stats.sessions_opened, 202);
    assert_eq!(
        (
            stats.resets_sent,
            stats.dropped_by(portcullis::DropReason::TcpAfterTimeout)
        ),
        (6, 2)
    );
    assert!(
        stats.dropped_total() >= 3 && stats.sessions == 0,
        "{stats:?}"
    );
}

#[test]
fn a_session_that_the_policy_denies_is_told_of_without_allocation() {
    struct Denied(u32);
    impl portcullis::Sink for Denied {
        fn session_denied(&mut self, denied: &portcullis::DeniedSession) {
            self.0 += denied.bytes;
        }
    }
    let mut config = Config::allow_all();
    config.policy.default = portcullis::policy::Action::Deny;
    let engine = Engine::new(&config).expect("a configuration");
    let now = Instant::now();
    let packets: Vec<_> = (1..100).map(udp).collect();
    let _ = engine.verdict_only(Packet::new(&[], now));
    let mut told = Denied(0);
    let info = allocation_counter::measure(|| {
        for bytes in &packets {
            let _ = engine.process_with(Packet::new(bytes, now), &mut told);
        }
    });
    assert_eq!((info.count_total, told.0), (0, 99 * 44));
}

#[test]
fn an_outbox_that_has_grown_allocates_nothing() {
    let web = Rule::allow("web").protocol(Protocol::TCP).ports([80]);
    let builder = Engine::builder().policy(Policy::reject_by_default().rule(web));
    let engine = builder.max_sessions(64).build().expect("a configuration");
    let rejected: Vec<_> = (1..100).map(udp).collect();
    let syn = tcp(true, 100, 0, "S", b"");
    let mut outbox = Outbox::new();
    let mut entries = Vec::with_capacity(2);
    let mut round = |now| {
        for bytes in rejected.iter().chain([&syn]) {
            let _ = engine.process(&Packet::new(bytes, now), &mut outbox);
        }
        engine.expire(now + Duration::from_secs(400), &mut outbox);
        entries.push(outbox.drain().count());
    };
    let start = Instant::now();
    round(start);
    let info = allocation_counter::measure(|| round(start + Duration::from_secs(500)));
    assert_eq!(info.count_total, 0, "{info:?}");
    // A reply and an event for each rejected packet; a session that opens and ends.
    assert_eq!(entries, [2 * 99 + 2; 2]);
}

#[test]
fn a_challenge_and_its_answer_allocate_nothing() {
    let mut config = Config::allow_all();
    config.syn_challenge.mode = ChallengeMode::Always;
    let engine = Engine::new(&config).expect("a configuration");
    let now = Instant::now();
    let syn = tcp(true, 100, 0, "S", b"");
    let _ = engine.verdict_only(Packet::new(&[], now));
    let info = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            let _ = engine.verdict_only(Packet::new(&syn, now));
        }
        let verdict = engine.verdict_only(Packet::new(&syn, now));
        let Verdict::Reject(_, reply @ Reply::Challenge(cookie), _) = verdict else {
            return;
        };
        let (mut challenge, mut rst) = ([0; 40], [0; 40]);
        let challenge = write_reply_unbudgeted(reply, &syn, &mut challenge).expect("it fits");
        let rst = write_reply_unbudgeted(Reply::TcpResetAt(cookie), challenge, &mut rst)
            .expect("it fits");
        let _ = engine.verdict_only(Packet::new(rst, now));
        let _ = engine.verdict_only(Packet::new(&syn, now));
    });
    let stats = engine.stats();
    assert_eq!(
        (info.count_total, stats.sessions, stats.known_sources),
        (0, 1, 1)
    );
}

#[test]
fn a_datagram_of_a_known_tunnel_end_allocates_nothing() {
    let mut config = FrontEnd::adapt(Config::allow_all());
    config.table.max_sessions = 64;
    config.geneve.mss_clamp = 1_000;
    let engine = Engine::new(&config).expect("the default configuration");
    let front = FrontEnd::new(&config).expect("the default configuration");
    let mut scratch = Scratch::new(&front);
    let now = Instant::now();
    let header = |cookie: u8| {
        let mut header = vec![5, 0, 8, 0, 0, 0, 0, 0, 1, 8, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        header.extend([1, 8, 3, 1, 0, 0, 0, cookie]);
        header
    };
    let mut handle = |cookie: u8, inner: &[u8]| {
        let payload = [header(cookie), inner.to_vec()].concat();
        let datagram = Datagram {
            source: [10, 0, 0, 1].into(),
            source_port: 60_001,
            destination: [10, 0, 0, 2].into(),
            destination_port: 6081,
            payload: &payload,
        };
        let mut returned = false;
        let info = allocation_counter::measure(|| {
            let answer = front.handle(&engine, &datagram, now, &mut scratch, &mut Discard);
            returned = answer == Answer::Return;
        });
        (info.count_total, returned)
    };
    // The first packet of a tunnel end is remembered.
    assert!(handle(0, &udp(1)).0 > 0);
    for n in 0..200 {
        assert_eq!(handle(n as u8, &udp(n)), (0, true));
    }
    assert_eq!(handle(1, &tcp(true, 100, 0, "S", b"")), (0, true));
    assert_eq!(handle(2, &tcp(true, 100, 0, "S", b"")), (0, true));
    assert_eq!(handle(3, &[0x45; 30]), (0, false));
    assert_eq!(handle(4, b""), (0, false));
}
