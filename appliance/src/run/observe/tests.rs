//! Taps, queues and filters together, without threads.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use parking_lot::Mutex;
use portcullis::geneve::front::{Answer, Datagram, DecidedPacket, Decision, NotSent, Refusal};
use portcullis::geneve::{InnerProtocol, encode};
use portcullis::policy::PortRange;
use portcullis::{Class, DropReason, Tracked, TunnelRef, Verdict, Zone};
use proptest::prelude::*;

use super::super::event_queue::{EventQueue, SessionEvent};
use super::super::settings::{LogFormat, LogSettings};
use super::event::{Observed, PacketEvent, PacketReason};
use super::filter::{Condition, Facts, Filter};
use super::hub::distribute;
use super::kind::Kind;
use super::ring::Ring;
use super::switch::{MAX_OBSERVERS, Observers, Sent, Subscription};
use super::tap::{Tap, TapState};

const PERIOD: Duration = Duration::from_millis(100);

fn tracked(tolerated: Option<DropReason>) -> Tracked {
    Tracked {
        class: Class::Invalid,
        direction: None,
        session: None,
        tolerated,
        late: None,
    }
}

fn udp(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source, [198, 51, 100, 1], 64)
        .udp(port, 53)
        .write(&mut packet, b"data")
        .unwrap();
    packet
}

fn datagram(payload: &[u8]) -> Datagram<'_> {
    Datagram {
        source: Ipv4Addr::new(10, 0, 0, 1),
        source_port: 60_001,
        destination: Ipv4Addr::new(10, 0, 0, 2),
        destination_port: 6081,
        payload,
    }
}

fn decision(verdict: Verdict, packet: &[u8]) -> Decision<'_> {
    let answer = match verdict {
        Verdict::Forward(_) => Answer::Return,
        Verdict::Drop(reason, _) => Answer::Nothing(NotSent::Dropped(reason)),
        _ => Answer::Nothing(NotSent::Held),
    };
    Decision {
        answer,
        verdict: Some(verdict),
        packet: Some(DecidedPacket {
            bytes: packet,
            zone: Zone(1),
            tunnel: TunnelRef::NONE,
        }),
        is_too_large: false,
    }
}

/// Stream without a hub: the test takes the events from the queue itself.
struct Bench {
    observers: Observers,
    queue: Receiver<Sent>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let observers = Observers::default();
        let queue = observers.take_receiver().unwrap();
        Self {
            observers,
            queue,
            now: Instant::now(),
        }
    }

    fn tap(&self) -> Tap<'_> {
        Tap::new(&self.observers, self.now)
    }

    fn taken(&self) -> Vec<Sent> {
        self.queue.try_iter().collect()
    }
}

fn drop_udp(tap: &mut Tap<'_>, reason: DropReason, source: [u8; 4], port: u16) {
    let packet = udp(source, port);
    let verdict = Verdict::Drop(reason, tracked(None));
    tap.packet(&datagram(&[]), &decision(verdict, &packet));
}

fn reasons(sent: &[Sent]) -> Vec<&'static str> {
    let facts = sent.iter().map(|sent| Facts::of(&sent.event));
    facts.filter_map(|facts| facts.reason).collect()
}

fn subscription(filter: Filter, rate: u32) -> Subscription {
    Subscription {
        filter,
        refilter: Arc::new(|| None),
        rate,
        explain: false,
        follow: true,
    }
}

/// Returns the wish of a client of traces.
fn explaining(mut filter: Filter) -> Subscription {
    filter.add_packets();
    Subscription {
        explain: true,
        ..subscription(filter, 1_000)
    }
}

/// Lets a tap decide on a trace of a packet, reports the packet as forwarded if it is not traced,
/// and returns whether it is.
fn explain_udp(tap: &mut Tap<'_>, source: [u8; 4]) -> bool {
    let packet = udp(source, 7);
    let mut payload = vec![0; 8];
    assert_eq!(
        encode(InnerProtocol::Ipv4, 0, &[], &mut payload),
        Some(payload.len())
    );
    payload.extend(&packet);
    let is_traced = tap.traces(&datagram(&payload));
    if !is_traced {
        let forward = decision(Verdict::Forward(tracked(None)), &packet);
        tap.packet(&datagram(&payload), &forward);
    }
    is_traced
}

fn filter(conditions: impl IntoIterator<Item = (Condition, bool)>) -> Filter {
    let mut filter = Filter::everything();
    for (condition, is_negated) in conditions {
        filter.add(condition, is_negated);
    }
    filter.settle();
    filter
}

fn prefix(text: &str) -> ipnet::IpNet {
    let address = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse().or(address).unwrap()
}

fn address(text: &str) -> Condition {
    Condition::Address(prefix(text))
}

#[test]
fn without_observers_a_flood_costs_a_share_and_hides_no_other_reason() {
    let bench = Bench::new();
    let mut tap = bench.tap();
    for _ in 0..10_000 {
        drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    }
    drop_udp(&mut tap, DropReason::TtlZero, [192, 0, 2, 2], 7);
    let first = bench.taken();
    assert_eq!(first.len(), 17, "half of 32, and the other reason");
    assert_eq!(reasons(&first).last(), Some(&"ttl_zero"));
    assert!(first.iter().all(|sent| sent.to.has_ring()));
    // The next period has a budget of its own, and what was left out is counted.
    tap.refresh(bench.now + PERIOD);
    drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    assert_eq!(bench.taken().len(), 1);
    assert_eq!(bench.observers.counts().ring_share, 10_000 - 16);
}

#[test]
fn short_lived_taps_share_the_budgets_of_a_period() {
    let bench = Bench::new();
    let homes = &[Mutex::new(Some(TapState::new(bench.now)))];
    let _client = bench
        .observers
        .subscribe(subscription(Filter::everything(), 400))
        .unwrap();
    let count = |sent: &[Sent], is_counted: fn(&Sent) -> bool| {
        let counted = sent.iter().filter(|sent| is_counted(sent));
        counted.count()
    };
    for _ in 0..1_000 {
        let mut tap = Tap::borrowed(&bench.observers, homes, bench.now);
        drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    }
    let sent = bench.taken();
    assert_eq!(count(&sent, |sent| sent.to.has_ring()), 16);
    assert_eq!(count(&sent, |sent| sent.to.has(0)), 20);
    assert_eq!(bench.observers.counts().ring_share, 1_000 - 16);
    // While a tap has the budgets, another one leaves all out, and counts it.
    let now = bench.now + PERIOD;
    let mut first = Tap::borrowed(&bench.observers, homes, now);
    let mut second = Tap::borrowed(&bench.observers, homes, now);
    drop_udp(&mut second, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    drop(second);
    assert!(bench.taken().is_empty());
    assert_eq!(bench.observers.counts().ring_share, 1_000 - 16 + 1);
    drop_udp(&mut first, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    assert_eq!(bench.taken().len(), 1, "the next period has a budget");
    drop(first);
    assert!(homes[0].lock().is_some());
}

#[test]
fn a_flood_leaves_a_slow_client_the_first_event_of_another_reason() {
    let bench = Bench::new();
    let _client = bench
        .observers
        .subscribe(subscription(Filter::everything(), 10))
        .unwrap();
    let mut tap = bench.tap();
    for _ in 0..1_000 {
        drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    }
    drop_udp(&mut tap, DropReason::TtlZero, [192, 0, 2, 2], 7);
    let sent = bench.taken();
    let rare = sent.last().unwrap();
    assert_eq!(Facts::of(&rare.event).reason, Some("ttl_zero"));
    assert!(rare.to.has(0));
}

#[test]
fn forwarded_packets_are_no_events_unless_a_client_asks() {
    let bench = Bench::new();
    let mut tap = bench.tap();
    let packet = udp([192, 0, 2, 1], 7);
    let forward = decision(Verdict::Forward(tracked(None)), &packet);
    tap.packet(&datagram(&[]), &forward);
    assert!(bench.taken().is_empty());
    let tolerated = Verdict::Forward(tracked(Some(DropReason::TcpState)));
    tap.packet(&datagram(&[]), &decision(tolerated, &packet));
    let audited = Verdict::Forward(tracked(Some(DropReason::PolicyDeny)));
    tap.packet(&datagram(&[]), &decision(audited, &packet));
    let kinds: Vec<_> = bench.taken().iter().map(|sent| sent.event.kind()).collect();
    assert_eq!(kinds, [Kind::Tolerated, Kind::Audited]);
    let wanted = filter([(Condition::Verdict("forward"), false)]);
    let _client = bench
        .observers
        .subscribe(subscription(wanted, 100))
        .unwrap();
    tap.refresh(bench.now);
    tap.packet(&datagram(&[]), &forward);
    let sent = bench.taken();
    assert_eq!(sent.len(), 1);
    assert!(!sent[0].to.has_ring() && sent[0].to.has(0));
}

#[test]
fn a_narrow_filter_is_applied_before_the_share() {
    let bench = Bench::new();
    let narrow = filter([(address("192.0.2.9"), false)]);
    let client = bench
        .observers
        .subscribe(subscription(narrow, 1000))
        .unwrap();
    let mut tap = bench.tap();
    for _ in 0..10_000 {
        drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
    }
    drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 9], 7);
    let to_client = bench.taken().iter().filter(|sent| sent.to.has(0)).count();
    assert_eq!(
        to_client, 1,
        "the flood has used nothing of the client's rate"
    );
    for _ in 0..10_000 {
        drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 9], 7);
    }
    tap.refresh(bench.now + PERIOD);
    let left_out = client.left_out.rate.load(Ordering::Relaxed);
    // Half of the 100 events of a period, of which one was used.
    assert_eq!(left_out, 10_000 - 49, "only what matches is left out");
    assert_eq!(bench.observers.counts().client_rate, left_out);
}

#[test]
fn traces_and_looks_of_a_period_are_bounded_and_the_rest_is_counted() {
    let bench = Bench::new();
    let narrow = filter([(address("192.0.2.9"), false)]);
    let client = bench.observers.subscribe(explaining(narrow)).unwrap();
    let mut tap = bench.tap();
    let traced = (0..25).filter(|_| explain_udp(&mut tap, [192, 0, 2, 9]));
    assert_eq!(traced.count(), 20);
    for _ in 0..10_000 {
        assert!(!explain_udp(&mut tap, [192, 0, 2, 1]));
    }
    assert!(!explain_udp(&mut tap, [192, 0, 2, 9]), "no look is left");
    tap.refresh(bench.now + PERIOD);
    assert!(explain_udp(&mut tap, [192, 0, 2, 9]));
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(value(&client.left_out.rate), 5);
    let unexamined = 25 + 10_000 + 1 - 2_000;
    assert_eq!(value(&client.left_out.unexamined), unexamined);
    assert_eq!(bench.observers.counts().unexamined, unexamined);
    assert!(bench.taken().is_empty(), "only traces are events");
}

#[test]
fn a_wide_client_of_traces_leaves_those_of_a_narrow_one() {
    let bench = Bench::new();
    let wide = filter([(Condition::Address("192.0.2.0/24".parse().unwrap()), false)]);
    let narrow = filter([(address("192.0.2.9"), false)]);
    let clients = [wide, narrow].map(|filter| bench.observers.subscribe(explaining(filter)));
    assert!(clients.iter().all(Option::is_some));
    let mut tap = bench.tap();
    let traced = (0..100).filter(|_| explain_udp(&mut tap, [192, 0, 2, 1]));
    assert_eq!(traced.count(), 20);
    let traced = (0..100).filter(|_| explain_udp(&mut tap, [192, 0, 2, 9]));
    assert_eq!(traced.count(), 20, "those of the narrow one");
}

#[test]
fn a_full_queue_loses_events_and_counts_them_for_their_clients() {
    let bench = Bench::new();
    let elsewhere = filter([(address("203.0.113.1"), false)]);
    let clients = [Filter::everything(), elsewhere].map(|filter| {
        let client = bench.observers.subscribe(subscription(filter, 20_000));
        client.unwrap()
    });
    let mut sent = 0;
    for turn in 0..5u32 {
        let mut tap = Tap::new(&bench.observers, bench.now + PERIOD * turn);
        for _ in 0..2_000 {
            drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
        }
        sent += 1_000;
    }
    let taken = bench.taken().len() as u64;
    let counts = bench.observers.counts();
    assert_eq!(taken, 1024);
    assert_eq!(counts.hub_queue, sent - taken);
    let lost = clients.map(|client| client.left_out.queue.load(Ordering::Relaxed));
    assert_eq!(lost, [sent - taken, 0]);
}

#[test]
fn a_client_that_does_not_read_loses_only_its_own_events() {
    let bench = Bench::new();
    let slow = bench
        .observers
        .subscribe(subscription(Filter::everything(), 20_000))
        .unwrap();
    let other = bench
        .observers
        .subscribe(subscription(Filter::everything(), 20_000))
        .unwrap();
    let mut tap = bench.tap();
    let mut received = 0;
    for turn in 0..4u32 {
        tap.refresh(bench.now + PERIOD * turn);
        for _ in 0..1_000 {
            drop_udp(&mut tap, DropReason::TcpNoSession, [192, 0, 2, 1], 7);
        }
        for sent in bench.taken() {
            bench.observers.pass_on(sent);
        }
        received += other.events.try_iter().count();
    }
    assert_eq!(received, 4_000);
    assert_eq!(slow.events.try_iter().count(), 2_048);
    assert_eq!(slow.left_out.queue.load(Ordering::Relaxed), 4_000 - 2_048);
    assert_eq!(other.left_out.queue.load(Ordering::Relaxed), 0);
}

#[test]
fn the_number_of_clients_is_bounded_and_slots_are_reused() {
    let bench = Bench::new();
    let subscribe = || {
        bench
            .observers
            .subscribe(subscription(Filter::everything(), 10))
    };
    let mut clients: Vec<_> = (0..MAX_OBSERVERS).map(|_| subscribe().unwrap()).collect();
    assert!(subscribe().is_none());
    clients.remove(3);
    clients.push(subscribe().unwrap());
    assert_eq!(bench.observers.counts().clients, MAX_OBSERVERS);
    drop(clients);
    assert_eq!(bench.observers.counts().clients, 0);
    assert!(bench.observers.wishes().is_empty());
}

/// Returns a queue of the session log that records dropped packets, and its receiving end.
fn log_queue(settings: &LogSettings) -> (EventQueue, Receiver<SessionEvent>) {
    let (sender, events) = sync_channel(settings.queue);
    (EventQueue::new(sender, settings), events)
}

#[test]
fn the_log_has_each_reason_of_many_floods_and_the_workers_divide_the_rest() {
    let bench = Bench::new();
    let settings = LogSettings {
        drops: 32,
        ..LogSettings::default()
    };
    let (queue, events) = log_queue(&settings);
    let is_of_policy =
        |reason: &DropReason| [DropReason::PolicyDeny, DropReason::PolicyReject].contains(reason);
    let reasons: Vec<_> = DropReason::TRACKING
        .iter()
        .copied()
        .filter(|reason| !is_of_policy(reason))
        .collect();
    let floods = 12;
    let mut tap = bench.tap().with_log(Some(&queue), 2);
    for reason in reasons.iter().take(floods) {
        for _ in 0..100 {
            drop_udp(&mut tap, *reason, [192, 0, 2, 1], 7);
        }
    }
    drop(tap);
    let mut lines = [0; DropReason::COUNT];
    for event in events.try_iter() {
        let SessionEvent::Dropped(packet) = event else {
            panic!("{event:?}");
        };
        let PacketReason::Engine(reason) = packet.reason else {
            panic!("{packet:?}");
        };
        lines[reason.index()] += 1;
    }
    let lines: Vec<u64> = reasons.iter().map(|reason| lines[reason.index()]).collect();
    assert_eq!(lines[..3], [9, 5, 3]);
    assert!(lines[..floods].iter().all(|lines| *lines >= 1), "{lines:?}");
    let total: u64 = lines.iter().sum();
    assert_eq!(total, 16 + floods as u64);
    assert_eq!(queue.lost().drops_left_out, 100 * floods as u64 - total);
}

#[test]
fn datagrams_without_addresses_use_no_share_of_a_log_that_has_no_lines_of_them() {
    let refused = Decision {
        answer: Answer::Nothing(NotSent::Refused(Refusal::Ethernet)),
        verdict: None,
        packet: None,
        is_too_large: false,
    };
    for (format, lines) in [(LogFormat::Json, 9), (LogFormat::Ecs, 0)] {
        let bench = Bench::new();
        let settings = LogSettings {
            drops: 16,
            format,
            ..LogSettings::default()
        };
        let (queue, events) = log_queue(&settings);
        let mut tap = bench.tap().with_log(Some(&queue), 1);
        for _ in 0..100 {
            tap.packet(&datagram(b"no GENEVE"), &refused);
        }
        drop_udp(&mut tap, DropReason::TtlZero, [192, 0, 2, 1], 7);
        drop(tap);
        assert_eq!(events.try_iter().count(), lines + 1, "{format:?}");
        let unwritten = if lines > 0 { 100 - lines as u64 } else { 0 };
        assert_eq!(queue.lost().drops_left_out, unwritten, "{format:?}");
    }
}

#[test]
fn a_distributor_that_fails_begins_again_with_its_receiver_and_is_counted() {
    let bench = Bench::new();
    for port in 1..=3 {
        drop_udp(&mut bench.tap(), DropReason::TtlZero, [192, 0, 2, 1], port);
    }
    let mut received = Vec::new();
    let stop = AtomicBool::new(false);
    distribute(&bench.observers, &bench.queue, &stop, |events| {
        received.push(events.try_iter().take(2).count());
        assert!(received.len() > 1, "the first call fails");
    });
    assert_eq!(received, [2, 1]);
    assert_eq!(bench.observers.counts().failures, 1);
}

/// Returns the filter of a wish for events of a port.
fn port_filter(port: &str) -> Filter {
    filter([(Condition::Port(port.parse().unwrap()), false)])
}

#[test]
fn a_reload_changes_the_filters_whose_names_are_found() {
    let bench = Bench::new();
    let now = Arc::new(Mutex::new(None));
    let subscribe = |port, refilter| {
        let subscription = Subscription {
            refilter,
            ..subscription(port_filter(port), 100)
        };
        bench.observers.subscribe(subscription).unwrap()
    };
    let found = {
        let now = Arc::clone(&now);
        subscribe("1", Arc::new(move || now.lock().clone()))
    };
    let gone = subscribe("2", Arc::new(|| None));
    let filters = || [&found, &gone].map(|client| (*client.filter().unwrap()).clone());
    let before = found.epoch();
    bench.observers.follow_reload();
    assert_eq!(filters(), [port_filter("1"), port_filter("2")]);
    *now.lock() = Some(port_filter("7"));
    bench.observers.follow_reload();
    assert_eq!(filters(), [port_filter("7"), port_filter("2")]);
    assert!(found.epoch() > before, "the taps take the filter over");
    let mut tap = bench.tap();
    for port in [1, 7] {
        drop_udp(&mut tap, DropReason::TtlZero, [192, 0, 2, 1], port);
    }
    let to_found = |sent: &Sent| sent.to.has(0);
    assert_eq!(
        bench.taken().iter().map(to_found).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_reload_gives_a_slot_no_filter_of_the_client_before() {
    let bench = Arc::new(Observers::default());
    let (started, is_started) = std::sync::mpsc::channel();
    let (proceed, may_proceed) = std::sync::mpsc::channel();
    let (started, may_proceed) = (Mutex::new(started), Mutex::new(may_proceed));
    let refilter = move || {
        started.lock().send(()).unwrap();
        may_proceed.lock().recv().ok();
        Some(port_filter("7"))
    };
    let first = Subscription {
        refilter: Arc::new(refilter),
        ..subscription(port_filter("1"), 100)
    };
    let first = bench.subscribe(first).unwrap();
    let reload = {
        let bench = Arc::clone(&bench);
        std::thread::spawn(move || bench.follow_reload())
    };
    is_started.recv().unwrap();
    // Clients come and go while a filter searches names.
    drop(first);
    let second = bench
        .subscribe(subscription(port_filter("2"), 100))
        .unwrap();
    proceed.send(()).unwrap();
    reload.join().unwrap();
    assert_eq!(*second.filter().unwrap(), port_filter("2"));
}

#[test]
fn a_refused_datagram_has_its_reason_and_its_peer() {
    let bench = Bench::new();
    let mut tap = bench.tap();
    let refused = Decision {
        answer: Answer::Nothing(NotSent::Refused(Refusal::Ethernet)),
        verdict: None,
        packet: None,
        is_too_large: false,
    };
    tap.packet(&datagram(b"no GENEVE"), &refused);
    let sent = bench.taken();
    let Observed::Packet(PacketEvent {
        kind, peer, flow, ..
    }) = &sent[0].event
    else {
        panic!("{sent:?}");
    };
    assert_eq!((*kind, *peer), (Kind::Refused, Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(*flow, None);
    assert_eq!(reasons(&sent), ["inner_ethernet"]);
}

/// Returns an event of a dropped UDP packet.
fn event(reason: DropReason, source: [u8; 4], port: u16) -> Observed {
    let bench = Bench::new();
    drop_udp(&mut bench.tap(), reason, source, port);
    bench.taken().remove(0).event
}

#[test]
fn conditions_of_one_field_are_alternatives_and_negated_ones_exclude() {
    let event = event(DropReason::TtlZero, [192, 0, 2, 1], 4000);
    let facts = Facts::of(&event);
    let port = |text: &str| Condition::Port(text.parse::<PortRange>().unwrap());
    let reason = |text: &str| Condition::Reason(text.to_owned());
    for (conditions, expected) in [
        (vec![], true),
        (vec![(address("192.0.2.0/24"), false)], true),
        (vec![(address("192.0.2.0/24"), true)], false),
        (vec![(address("10.0.0.0/8"), false)], false),
        (vec![(address("10.0.0.0/8"), true)], true),
        (
            vec![(address("10.0.0.1"), false), (address("192.0.2.1"), false)],
            true,
        ),
        (
            vec![(address("192.0.2.1"), false), (port("80"), false)],
            false,
        ),
        (
            vec![(address("192.0.2.1"), false), (port("4000-4001"), false)],
            true,
        ),
        (vec![(port("4000"), true)], false),
        (vec![(port("53"), false), (reason("ttl_zero"), true)], false),
        (
            vec![(reason("ttl_zero"), false), (reason("tcp_state"), false)],
            true,
        ),
        (vec![(Condition::Verdict("drop"), false)], true),
        (vec![(Condition::Verdict("drop"), true)], false),
        (vec![(Condition::Event(Kind::Dropped), false)], true),
        (vec![(Condition::Event(Kind::Opened), false)], false),
        (vec![(Condition::Zone(Zone(1)), false)], true),
        (vec![(Condition::Zone(Zone(1)), true)], false),
        (
            vec![(Condition::Source(prefix("198.51.100.1")), false)],
            false,
        ),
        (
            vec![(Condition::Destination(prefix("198.51.100.1")), false)],
            true,
        ),
    ] {
        let text = format!("{conditions:?}");
        assert_eq!(filter(conditions).matches(&facts), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn a_negated_condition_selects_the_rest(source in any::<[u8; 4]>(), prefix in 0u8..=32) {
        let event = event(DropReason::TtlZero, source, 9);
        let facts = Facts::of(&event);
        let net = ipnet::Ipv4Net::new([192, 0, 2, 0].into(), prefix).unwrap();
        let condition = || Condition::Source(net.into());
        let plain = filter([(condition(), false)]).matches(&facts);
        let negated = filter([(condition(), true)]).matches(&facts);
        prop_assert_eq!(plain, net.contains(&Ipv4Addr::from(source)));
        prop_assert_ne!(plain, negated);
    }

    #[test]
    fn a_full_ring_keeps_the_newest_of_each_reason(floods in 1usize..400, room in 2usize..60) {
        let mut ring = Ring::new(room);
        let rare = Arc::new(event(DropReason::TtlZero, [192, 0, 2, 1], 1));
        let common = Arc::new(event(DropReason::TcpNoSession, [192, 0, 2, 1], 1));
        ring.push(Arc::clone(&rare), 3);
        for missed in 0..floods {
            ring.push(Arc::clone(&common), 4 + missed as u64);
        }
        let (held, missed) = (room.min(floods + 1), 9 + floods as u64);
        let events = ring.events(missed);
        prop_assert_eq!(events.len(), held);
        prop_assert!(Arc::ptr_eq(&events[0].event, &rare), "the oldest, and still there");
        let displaced = (floods + 1 - held) as u64;
        prop_assert_eq!(events[0].missing, displaced + missed - 3);
        // None after the newest one is displaced; 6 have not reached the ring since.
        prop_assert_eq!(events[held - 1].missing, 6);
        prop_assert_eq!(ring.received(), floods as u64 + 1);
    }
}
