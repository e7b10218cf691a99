//! Fragments: the first one of a datagram is decided, later ones follow it, and each malformation
//! has a name.
//!
//! Fragments that arrive before the first are in `held_fragments.rs`.

use std::time::{Duration, Instant};

use crate::support::seal::sealed;
use etherparse::PacketBuilder;
use portcullis::explain::Step;
use portcullis::packet::Malformed;
use portcullis::{Class, Config, Direction, Discard, DropReason, Engine, Packet, Verdict, Zone};

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];
const CLIENT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SERVER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// A position in a datagram's payload, and whether more follows.
type Place = (usize, usize, bool);

fn fix_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = packet[..20]
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The bytes `start..end` of the payload of an IPv4 packet without options, as a fragment.
fn cut4(whole: &[u8], id: u16, (start, end, more): Place) -> Vec<u8> {
    let mut packet = whole[..20].to_vec();
    packet.extend(&whole[20 + start..20 + end]);
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let field = (start as u16 / 8) | if more { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    fix_checksum(&mut packet);
    packet
}

/// Returns a fragment of an IPv6 packet without extension headers.
fn cut6(whole: &[u8], id: u32, (start, end, more): Place) -> Vec<u8> {
    let mut packet = whole[..40].to_vec();
    packet[4..6].copy_from_slice(&((8 + end - start) as u16).to_be_bytes());
    packet[6] = 44;
    packet.extend([whole[6], 0]);
    packet.extend((start as u16 | u16::from(more)).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(&whole[40 + start..40 + end]);
    packet
}

fn cut(whole: &[u8], id: u16, place: Place) -> Vec<u8> {
    if whole[0] >> 4 == 4 {
        cut4(whole, id, place)
    } else {
        cut6(whole, u32::from(id), place)
    }
}

/// All of a packet in fragments of `size` bytes, in order.
fn split(whole: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let header = if whole[0] >> 4 == 4 { 20 } else { 40 };
    let payload = whole.len() - header;
    (0..payload)
        .step_by(size)
        .map(|start| {
            let end = (start + size).min(payload);
            cut(whole, id, (start, end, end < payload))
        })
        .collect()
}

fn udp(client: bool, port: u16, payload: usize) -> Vec<u8> {
    let (from, to, source, destination) = if client {
        (CLIENT, SERVER, 4000, port)
    } else {
        (SERVER, CLIENT, port, 4000)
    };
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv4(from, to, 64).udp(source, destination);
    builder.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

fn udp6(payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv6(CLIENT6, SERVER6, 64).udp(4000, 53);
    builder.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

fn ping(request: bool, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = if request {
        PacketBuilder::ipv4(CLIENT, SERVER, 64).icmpv4_echo_request(5, 1)
    } else {
        PacketBuilder::ipv4(SERVER, CLIENT, 64).icmpv4_echo_reply(5, 1)
    };
    builder.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

fn tcp(client: bool, seq: u32, ack: u32, flags: &str, payload: usize) -> Vec<u8> {
    let (from, to, source, destination) = if client {
        (CLIENT, SERVER, 4000, 80)
    } else {
        (SERVER, CLIENT, 80, 4000)
    };
    let mut step = PacketBuilder::ipv4(from, to, 64).tcp(source, destination, seq, 8_000);
    if flags.contains('S') {
        step = step.syn();
    }
    if flags.contains('A') {
        step = step.ack(ack);
    }
    if flags.contains('F') {
        step = step.fin();
    }
    if flags.contains('R') {
        step = step.rst();
    }
    let mut bytes = Vec::new();
    step.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

struct Bench {
    engine: Engine,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with("[policy]\ndefault = \"allow\"")
    }

    fn with(toml: &str) -> Self {
        let config = Config::from_toml(toml, "test.toml").unwrap();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            now: Instant::now(),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn process(&self, bytes: &[u8]) -> Verdict {
        let verdict = self.engine.verdict_only(Packet::new(bytes, self.now));
        self.engine.check_invariants().unwrap();
        verdict
    }

    #[track_caller]
    fn passes(&self, bytes: &[u8]) -> (Class, Option<Direction>) {
        match self.process(bytes) {
            Verdict::Forward(tracked) => (tracked.class, tracked.direction),
            other => panic!("{other:?}"),
        }
    }

    /// The packet is dropped for this reason, which is counted.
    #[track_caller]
    fn drops(&self, bytes: &[u8], reason: DropReason) {
        let before = self.engine.stats().dropped_by(reason);
        let verdict = self.process(bytes);
        assert_eq!(verdict.reason(), Some(reason), "{verdict:?}");
        assert_eq!(self.engine.stats().dropped_by(reason), before + 1);
    }

    /// The handshake; the client's next byte is 101, the server's 501.
    fn connect(&self) {
        for packet in [
            tcp(true, 100, 0, "S", 0),
            tcp(false, 500, 101, "SA", 0),
            tcp(true, 101, 501, "A", 0),
        ] {
            self.passes(&packet);
        }
    }
}

const NEW: (Class, Option<Direction>) = (Class::New, Some(Direction::Original));
const THERE: (Class, Option<Direction>) = (Class::Established, Some(Direction::Original));
const BACK: (Class, Option<Direction>) = (Class::Established, Some(Direction::Reply));

#[test]
fn all_fragments_of_a_datagram_have_its_class_direction_and_session() {
    for whole in [udp(true, 53, 3_000), udp6(3_000), ping(true, 3_000)] {
        let bench = Bench::new();
        let parts = split(&whole, 9, 1_200);
        assert_eq!(parts.len(), 3);
        let verdicts: Vec<_> = parts.iter().map(|part| bench.process(part)).collect();
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
        assert!(verdicts[0].is_forward() && verdicts[0].tracked().session.is_some());
        assert_eq!(verdicts[0].tracked().class, Class::New);
        let mut sessions = 0;
        bench.engine.for_each_session(|session| {
            sessions += 1;
            assert_eq!(session.original.packets, 3);
            let bytes: usize = parts.iter().map(Vec::len).sum();
            assert_eq!(session.original.bytes, bytes as u64);
        });
        assert_eq!(sessions, 1);
    }
}

#[test]
fn a_fragmented_answer_is_established_and_travels_back() {
    let bench = Bench::new();
    for part in split(&ping(true, 3_000), 1, 1_480) {
        assert_eq!(bench.passes(&part), NEW);
    }
    for part in split(&ping(false, 3_000), 1, 1_480) {
        assert_eq!(bench.passes(&part), BACK);
    }
}

#[test]
fn a_datagram_is_forgotten_at_once_when_nothing_of_it_is_missing() {
    let bench = Bench::new();
    let parts = split(&udp(true, 53, 3_000), 1, 1_480);
    for (part, left) in parts.iter().zip([1, 1, 0]) {
        bench.passes(part);
        assert_eq!(bench.engine.datagrams(), left);
    }
    bench.drops(&parts[1], DropReason::FragmentBeforeFirst);
    // The last one may arrive before one in the middle.
    for (place, left) in [(0, 1), (2, 1), (1, 0)] {
        bench.passes(&parts[place]);
        assert_eq!(bench.engine.datagrams(), left);
    }
}

#[test]
fn a_later_fragment_before_the_first_is_dropped_where_nobody_can_hold_it() {
    let bench = Bench::new();
    let parts = split(&udp(true, 53, 2_000), 1, 1_480);
    bench.drops(&parts[1], DropReason::FragmentBeforeFirst);
    assert_eq!((bench.engine.datagrams(), bench.engine.sessions()), (0, 0));
    bench.passes(&parts[0]);
    bench.passes(&parts[1]);
}

#[test]
fn datagrams_differ_by_zone_address_identification_and_for_ipv4_by_protocol() {
    let bench = Bench::new();
    let whole = udp(true, 53, 2_000);
    bench.passes(&cut(&whole, 1, (0, 800, true)));
    let later = (800, 1_600, true);
    bench.drops(&cut(&whole, 2, later), DropReason::FragmentBeforeFirst);
    bench.drops(
        &cut(&ping(true, 2_000), 1, later),
        DropReason::FragmentBeforeFirst,
    );
    bench.drops(
        &cut(&udp(false, 53, 2_000), 1, later),
        DropReason::FragmentBeforeFirst,
    );
    let part = cut(&whole, 1, later);
    let elsewhere = bench
        .engine
        .verdict_only(Packet::new(&part, bench.now).zone(Zone(3)));
    assert_eq!(elsewhere.reason(), Some(DropReason::FragmentBeforeFirst));
    bench.passes(&part);
    // IPv6: the later fragments may name another header.
    let whole = udp6(2_000);
    bench.passes(&cut(&whole, 1, (0, 800, true)));
    let mut part = cut(&whole, 1, later);
    part[40] = 60;
    bench.passes(&part);
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let bench = Bench::new();
    let whole = udp6(100);
    assert_eq!(bench.passes(&cut6(&whole, 1, (0, 108, false))), NEW);
    assert_eq!(bench.engine.datagrams(), 0);
}

#[test]
fn a_tiny_first_fragment_is_refused_and_so_is_its_datagram() {
    for (whole, first) in [
        (tcp(true, 100, 0, "S", 500), 8),
        (tcp(true, 100, 0, "S", 500), 16),
        // The options continue after 24 bytes.
        (
            {
                let mut bytes = tcp(true, 100, 0, "S", 500);
                bytes[32] = 0x80;
                bytes
            },
            24,
        ),
    ] {
        let bench = Bench::new();
        let tiny = DropReason::Malformed(Malformed::FragmentTiny);
        bench.drops(&cut(&whole, 1, (0, first, true)), tiny);
        bench.drops(
            &cut(&whole, 1, (24, 520, false)),
            DropReason::FragmentOfDropped,
        );
        assert_eq!(bench.engine.sessions(), 0);
    }
}

#[test]
fn a_tcp_fragment_inside_the_header_is_refused_whatever_came_before() {
    let bench = Bench::new();
    let whole = tcp(true, 100, 0, "S", 500);
    bench.passes(&cut(&whole, 1, (0, 24, true)));
    let inside = DropReason::Malformed(Malformed::FragmentInsideTcpHeader);
    bench.drops(&cut(&whole, 1, (8, 24, true)), inside);
    bench.drops(&cut(&whole, 2, (16, 24, true)), inside);
}

#[test]
fn an_overlap_ends_the_datagram() {
    for whole in [udp(true, 53, 2_000), udp6(2_000)] {
        let bench = Bench::new();
        bench.passes(&cut(&whole, 1, (0, 800, true)));
        bench.drops(
            &cut(&whole, 1, (792, 1_600, true)),
            DropReason::FragmentOverlap,
        );
        bench.drops(
            &cut(&whole, 1, (800, 1_600, true)),
            DropReason::FragmentOfDropped,
        );
        // A longer first fragment overlaps as well.
        bench.passes(&cut(&whole, 2, (0, 800, true)));
        bench.drops(&cut(&whole, 2, (0, 808, true)), DropReason::FragmentOverlap);
    }
}

#[test]
fn a_duplicate_is_dropped_and_its_datagram_goes_on() {
    let bench = Bench::new();
    let whole = udp(true, 53, 2_000);
    let first = cut(&whole, 1, (0, 800, true));
    bench.passes(&first);
    bench.drops(&first, DropReason::FragmentDuplicate);
    bench.passes(&cut(&whole, 1, (800, 1_600, true)));
    bench.drops(
        &cut(&whole, 1, (400, 1_200, true)),
        DropReason::FragmentDuplicate,
    );
    bench.passes(&cut(&whole, 1, (1_600, 2_008, false)));
    bench.engine.for_each_session(|session| {
        assert_eq!(
            session.original.packets, 3,
            "what was dropped is not counted"
        );
    });
}

#[test]
fn a_datagram_has_one_end() {
    let whole = udp(true, 53, 3_000);
    for places in [
        // Past the end; another end; an end before bytes that have passed.
        [(1_600, 2_400, false), (2_400, 2_408, true)],
        [(1_600, 2_400, false), (800, 1_600, false)],
        [(1_600, 2_400, true), (800, 1_600, false)],
    ] {
        let bench = Bench::new();
        bench.passes(&cut(&whole, 1, (0, 800, true)));
        bench.passes(&cut(&whole, 1, places[0]));
        bench.drops(&cut(&whole, 1, places[1]), DropReason::FragmentBeyondEnd);
        bench.drops(
            &cut(&whole, 1, (808, 1_600, true)),
            DropReason::FragmentOfDropped,
        );
    }
}

/// A later fragment of 3 bytes that ends at `end`, without the headers that its first one has.
fn last_at(v6: bool, end: usize) -> Vec<u8> {
    let start = (end - 3) / 8 * 8;
    let whole = if v6 {
        udp6(65_000)
    } else {
        udp(true, 53, 65_000)
    };
    // No payload reaches that far: the position is written over a fragment of the correct length.
    let mut packet = cut(&whole, 7, (0, end - start, false));
    if v6 {
        packet[42..44].copy_from_slice(&(start as u16).to_be_bytes());
    } else {
        packet[6..8].copy_from_slice(&(start as u16 / 8).to_be_bytes());
        fix_checksum(&mut packet);
    }
    packet
}

/// The first fragment of a datagram, with 8 bytes of headers that later ones need not have: IPv4
/// options, or an IPv6 destination options header before the fragment header.
fn first_with_headers(v6: bool) -> Vec<u8> {
    if v6 {
        let mut packet = cut(&udp6(1_000), 7, (0, 800, true));
        packet.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0]);
        packet[6] = 60;
        let len = packet.len() as u16 - 40;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        return packet;
    }
    let mut packet = cut(&udp(true, 53, 1_000), 7, (0, 800, true));
    packet.splice(20..20, [7, 7, 4, 0, 0, 0, 0, 0]);
    packet[0] = 0x47;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    sealed(packet)
}

#[test]
fn the_headers_of_the_first_fragment_count_for_the_length_of_the_whole() {
    let part = |v6, place| {
        let whole = if v6 {
            udp6(2_000)
        } else {
            udp(true, 53, 2_000)
        };
        cut(&whole, 7, place)
    };
    for (v6, most) in [(false, 65_535 - 20), (true, 65_535)] {
        // Without such headers the datagram may have any length that its length field can express.
        let bench = Bench::new();
        bench.passes(&part(v6, (0, 800, true)));
        bench.passes(&last_at(v6, most));
        let bench = Bench::new();
        bench.passes(&first_with_headers(v6));
        bench.passes(&last_at(v6, most - 8));
        for end in [most - 7, most] {
            let bench = Bench::new();
            bench.passes(&first_with_headers(v6));
            let beyond = DropReason::Malformed(Malformed::FragmentBeyond65535);
            bench.drops(&last_at(v6, end), beyond);
            bench.drops(&part(v6, (800, 1_600, true)), DropReason::FragmentOfDropped);
        }
    }
}

#[test]
fn too_many_fragments_and_too_many_gaps_end_the_datagram() {
    let whole = udp(true, 53, 3_000);
    let bench = Bench::new();
    let parts = split(&whole, 1, 8);
    for part in &parts[..128] {
        bench.passes(part);
    }
    bench.drops(&parts[128], DropReason::FragmentTooMany);
    bench.drops(&parts[129], DropReason::FragmentOfDropped);
    let bench = Bench::new();
    for n in 0..16 {
        bench.passes(&parts[2 * n]);
    }
    bench.drops(&parts[32], DropReason::FragmentTooMany);
    bench.drops(&parts[33], DropReason::FragmentOfDropped);
}

#[test]
fn later_fragments_of_a_denied_datagram_are_denied() {
    let bench = Bench::with("[policy]\ndefault = \"deny\"");
    let parts = split(&udp(true, 53, 3_000), 1, 1_480);
    bench.drops(&parts[0], DropReason::PolicyDeny);
    for part in &parts[1..] {
        bench.drops(part, DropReason::FragmentOfDropped);
        assert_eq!(bench.process(part).tracked().class, Class::New);
    }
    // A TCP segment that does not fit.
    let bench = Bench::new();
    let parts = split(&tcp(true, 101, 501, "A", 2_000), 1, 1_480);
    bench.drops(&parts[0], DropReason::TcpNoSession);
    bench.drops(&parts[1], DropReason::FragmentOfDropped);
}

#[test]
fn a_rejected_first_fragment_earns_the_reply_of_its_datagram() {
    let bench = Bench::with("[policy]\ndefault = \"reject\"");
    for (whole, protocol) in [
        (tcp(true, 100, 0, "S", 2_000), 6),
        (udp(true, 53, 2_000), 1),
    ] {
        let parts = split(&whole, 1, 1_480);
        let Verdict::Reject(DropReason::PolicyReject, reply, _) = bench.process(&parts[0]) else {
            panic!("not rejected");
        };
        let mut out = [0; portcullis::event::MAX_REPLY];
        let reply = portcullis::event::write_reply_unbudgeted(reply, &parts[0], &mut out).unwrap();
        assert_eq!(reply[9], protocol);
        bench.drops(&parts[1], DropReason::FragmentOfDropped);
    }
}

#[test]
fn a_datagram_has_thirty_seconds_and_expires_without_a_call() {
    let mut bench = Bench::new();
    let whole = udp(true, 53, 3_000);
    let parts = split(&whole, 1, 1_480);
    bench.passes(&parts[0]);
    bench.wait(29);
    bench.passes(&parts[1]);
    bench.wait(1);
    bench.drops(&parts[2], DropReason::FragmentExpired);
    assert_eq!(bench.engine.datagrams(), 0);
    // The identification is free again, also for a first fragment that arrives before the remains
    // are cleared.
    bench.passes(&parts[0]);
    bench.wait(30);
    bench.passes(&parts[0]);
    assert_eq!(bench.engine.datagrams(), 1);
    bench.wait(30);
    bench.engine.expire_with(bench.now, 64, &mut Discard);
    assert_eq!(bench.engine.datagrams(), 0);
}

#[test]
fn a_new_datagram_always_has_a_place_and_the_oldest_of_the_greediest_gives_it() {
    let bench = Bench::with(
        "[fragments]\nmax_datagrams = 8\nmax_per_source = 6\n[policy]\ndefault = \"allow\"",
    );
    let first = |client, id| cut(&udp(client, 53, 2_000), id, (0, 800, true));
    let last = |client, id| cut(&udp(client, 53, 2_000), id, (800, 2_008, false));
    for id in 0..7 {
        bench.passes(&first(true, id));
    }
    bench.drops(&last(true, 0), DropReason::FragmentSourceLimit);
    for id in 0..3 {
        bench.passes(&first(false, id));
    }
    assert_eq!(bench.engine.datagrams(), 8);
    bench.drops(&last(true, 1), DropReason::FragmentTableFull);
    assert_eq!(bench.engine.stats().datagrams_given_up, 2);
    // All others are unchanged.
    for id in 2..7 {
        bench.passes(&last(true, id));
    }
    for id in 0..3 {
        bench.passes(&last(false, id));
    }
    assert_eq!(bench.engine.datagrams(), 0);
}

#[test]
fn a_flood_of_one_zone_or_of_one_prefix_leaves_the_datagrams_of_others() {
    let bench = Bench::with(
        "[fragments]\nmax_datagrams = 64\nmax_per_source = 8\n[limits]\nipv6_prefix = 64\n\
         [policy]\ndefault = \"allow\"",
    );
    let engine = &bench.engine;
    let in_zone =
        |packet: &[u8], zone| engine.verdict_only(Packet::new(packet, bench.now).zone(Zone(zone)));
    let (whole, whole6) = (udp(true, 53, 2_000), udp6(2_000));
    for id in 0..4 {
        assert!(in_zone(&cut(&whole, id, (0, 800, true)), 2).is_forward());
        assert!(in_zone(&cut(&whole6, id, (0, 800, true)), 1).is_forward());
    }
    // Another zone, from many sources, and another prefix of the same zone, from each of its
    // addresses.
    for n in 0..2_000u16 {
        let mut flood = udp(true, 53, 2_000);
        flood[13] = 1;
        flood[14..16].copy_from_slice(&n.to_be_bytes());
        assert!(in_zone(&cut(&flood, n, (0, 800, true)), 3).is_forward());
        let mut flood = udp6(2_000);
        flood[15] = 9;
        flood[22..24].copy_from_slice(&n.to_be_bytes());
        assert!(in_zone(&cut(&flood, n, (0, 800, true)), 1).is_forward());
        if n % 64 == 0 {
            engine.check_invariants().unwrap();
        }
    }
    for id in 0..4 {
        assert!(in_zone(&cut(&whole, id, (800, 2_008, false)), 2).is_forward());
        assert!(in_zone(&cut(&whole6, id, (800, 2_008, false)), 1).is_forward());
    }
}

#[test]
fn refused_datagrams_take_no_place_of_admitted_ones() {
    let bench = Bench::with(
        "[fragments]\nmax_datagrams = 4\n[policy]\ndefault = \"deny\"\n[[policy.rule]]\n\
         name = \"dns\"\n\
         action = \"allow\"\nprotocol = \"udp\"\ndestination_ports = 53",
    );
    for id in 0..4 {
        bench.passes(&cut(&udp(true, 53, 2_000), id, (0, 800, true)));
    }
    for id in 10..200 {
        bench.drops(
            &cut(&udp(true, 54, 2_000), id, (0, 800, true)),
            DropReason::PolicyDeny,
        );
    }
    for id in 0..4 {
        bench.passes(&cut(&udp(true, 53, 2_000), id, (800, 2_008, false)));
    }
}

#[test]
fn fragmented_bytes_may_be_acknowledged_and_not_a_byte_more() {
    let bench = Bench::new();
    bench.connect();
    let parts = split(&tcp(true, 101, 501, "A", 2_000), 1, 800);
    assert_eq!(bench.passes(&parts[0]), THERE);
    // 780 bytes have passed.
    bench.drops(&tcp(false, 501, 2_101, "A", 0), DropReason::TcpAckOfUnseen);
    assert_eq!(bench.passes(&parts[1]), THERE);
    assert_eq!(bench.passes(&parts[2]), THERE);
    bench.drops(&tcp(false, 501, 2_102, "A", 0), DropReason::TcpAckOfUnseen);
    assert_eq!(bench.passes(&tcp(false, 501, 2_101, "A", 0)), BACK);
    assert_eq!(bench.passes(&tcp(true, 2_101, 501, "A", 10)), THERE);
}

#[test]
fn the_syn_and_fin_of_a_fragmented_segment_are_counted_once() {
    let bench = Bench::new();
    for part in split(&tcp(true, 100, 0, "S", 1_000), 1, 400) {
        assert_eq!(bench.passes(&part), NEW);
    }
    bench.drops(&tcp(false, 500, 1_102, "SA", 0), DropReason::TcpAckOfUnseen);
    bench.passes(&tcp(false, 500, 1_101, "SA", 0));
    bench.passes(&tcp(true, 1_101, 501, "A", 0));
    for part in split(&tcp(true, 1_101, 501, "FA", 1_000), 2, 400) {
        assert_eq!(bench.passes(&part), THERE);
    }
    bench.drops(&tcp(false, 501, 2_103, "A", 0), DropReason::TcpAckOfUnseen);
    assert_eq!(bench.passes(&tcp(false, 501, 2_102, "FA", 0)), BACK);
    assert_eq!(bench.passes(&tcp(true, 2_102, 502, "A", 0)), THERE);
}

#[test]
fn a_repeated_segment_may_come_in_fragments_of_another_datagram() {
    let bench = Bench::new();
    bench.connect();
    for id in 1..4 {
        for part in split(&tcp(true, 101, 501, "A", 2_000), id, 800) {
            assert_eq!(bench.passes(&part), THERE);
        }
    }
    bench.drops(&tcp(false, 501, 2_102, "A", 0), DropReason::TcpAckOfUnseen);
    bench.passes(&tcp(false, 501, 2_101, "A", 0));
}

#[test]
fn later_fragments_refresh_nothing_and_outlive_their_session() {
    let mut bench = Bench::with(
        "[lifetimes]\nudp.unreplied = \"5s\"\nudp.replied = \"5s\"\n[policy]\ndefault = \"allow\"",
    );
    let parts = split(&udp(true, 53, 3_000), 1, 1_480);
    bench.passes(&parts[0]);
    bench.wait(4);
    bench.passes(&parts[1]);
    bench.wait(2);
    bench.engine.expire_with(bench.now, 64, &mut Discard);
    assert_eq!(bench.engine.sessions(), 0, "the first fragment was 6 s ago");
    // The datagram was admitted, and the receiver has the rest.
    assert_eq!(bench.passes(&parts[2]), NEW);
    assert_eq!(bench.engine.sessions(), 0);
}

#[test]
fn a_reset_session_is_not_counted_for_and_its_successor_is_not_taken_for_it() {
    let bench = Bench::new();
    bench.passes(&tcp(true, 100, 0, "S", 0));
    bench.passes(&tcp(false, 0, 101, "RA", 0));
    assert_eq!(bench.engine.sessions(), 0);
    // A fragmented SYN, refused between its fragments, and another one on its ports.
    let parts = split(&tcp(true, 7_000, 0, "S", 1_000), 3, 800);
    bench.passes(&parts[0]);
    bench.passes(&tcp(false, 0, 7_781, "RA", 0));
    bench.passes(&tcp(true, 6_500, 0, "S", 0));
    bench.passes(&parts[1]);
    bench.drops(&tcp(false, 500, 8_001, "SA", 0), DropReason::TcpAckOfUnseen);
    bench
        .engine
        .for_each_session(|session| assert_eq!(session.original.packets, 1));
}

#[test]
fn discovery_in_fragments_is_dropped() {
    let bench = Bench::new();
    let mut whole = Vec::new();
    let builder = PacketBuilder::ipv6(CLIENT6, SERVER6, 255).icmpv6_raw(135, 0, [0; 4]);
    builder.write(&mut whole, &[0; 64]).unwrap();
    bench.drops(
        &cut(&whole, 1, (0, 40, true)),
        DropReason::DiscoveryFragmented,
    );
    bench.drops(
        &cut(&whole, 1, (40, 72, false)),
        DropReason::FragmentOfDropped,
    );
}

#[test]
fn a_fragmented_icmp_error_is_related() {
    let bench = Bench::new();
    let query = udp(true, 53, 1_000);
    bench.passes(&query);
    let mut error = Vec::new();
    let builder = PacketBuilder::ipv4(SERVER, CLIENT, 64).icmpv4_raw(3, 3, [0; 4]);
    builder.write(&mut error, &query[..500]).unwrap();
    for part in split(&error, 1, 304) {
        assert_eq!(
            bench.passes(&part),
            (Class::Related, Some(Direction::Reply))
        );
    }
    // An error that quotes a later fragment names no session.
    let quoted = cut(&query, 1, (800, 1_008, false));
    let mut error = Vec::new();
    let builder = PacketBuilder::ipv4(SERVER, CLIENT, 64).icmpv4_raw(3, 3, [0; 4]);
    builder.write(&mut error, &quoted).unwrap();
    bench.drops(&error, DropReason::IcmpErrorNoSession);
}

#[test]
fn the_tracer_names_the_datagram_and_why() {
    let bench = Bench::new();
    let whole = udp(true, 53, 2_000);
    let explain = |bytes: &[u8]| {
        let (_, steps) = bench
            .engine
            .explain(Packet::new(bytes, bench.now), &mut Discard);
        steps
            .iter()
            .map(Step::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let first = explain(&cut(&whole, 0x2a, (0, 800, true)));
    assert!(
        first.contains(
            "datagram 0x2a 10.0.0.1 -> 10.0.0.2 protocol 17 zone 0: the first fragment decides"
        ),
        "{first}"
    );
    assert!(
        first.contains("UDP 4000 -> 53") && first.contains("opened"),
        "{first}"
    );
    let later = explain(&cut(&whole, 0x2a, (800, 2_008, false)));
    assert!(
        later.contains("the decision on the first one applies") && later.contains("complete"),
        "{later}"
    );
    let stray = explain(&cut(&whole, 0x2b, (800, 2_008, false)));
    assert!(
        stray.contains("datagram 0x2b") && stray.contains("unknown: a later fragment"),
        "{stray}"
    );
}

#[test]
fn fragments_allocate_nothing() {
    let mut bench = Bench::with(
        "[fragments]\nmax_datagrams = 256\nmax_per_source = 32\n[policy]\ndefault = \"allow\"",
    );
    let _ = bench.process(&[]);
    let packets: Vec<Vec<u8>> = (0..2_000u16)
        .flat_map(|id| {
            let mut whole = udp(true, 53, 2_000);
            whole[15] = (id % 50) as u8;
            let mut parts = split(&whole, id, 800);
            if id % 3 == 0 {
                parts.pop();
            }
            parts
        })
        .collect();
    let info = allocation_counter::measure(|| {
        for packet in &packets {
            bench.now += Duration::from_millis(50);
            let _ = bench.engine.verdict_only(Packet::new(packet, bench.now));
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    bench.engine.check_invariants().unwrap();
    assert!(bench.engine.datagrams() > 50);
    // Neither do held fragments, and those that are evicted for them.
    let later: Vec<Vec<u8>> = (0..3_000u16)
        .map(|id| {
            let mut whole = udp(true, 53, 2_000);
            whole[15] = 10 + (id % 50) as u8;
            cut(&whole, 10_000 + id, (800, 1_600, true))
        })
        .collect();
    let info = allocation_counter::measure(|| {
        for packet in &later {
            let packet = Packet::new(packet, bench.now).can_hold(true);
            assert!(matches!(
                bench.engine.verdict_only(packet),
                Verdict::Hold(..)
            ));
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    bench.engine.check_invariants().unwrap();
}
