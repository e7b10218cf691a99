//! Fragments that arrive before the first one of their datagram: held, and decided after it.

use std::time::{Duration, Instant};

use crate::support::packets::{Ends, udp};
use crate::support::seal::sealed;
use crate::support::tunnel::{ALLOW, Appliance, Kept, Label, datagram, green, sent};
use portcullis::HeldPackets;
use portcullis::HoldId;
use portcullis::geneve::front::{Answer, NotSent, Queued, Scratch};
use portcullis::{Config, Discard, DropReason, Engine, Event, Outbox, Packet, Sink, Verdict, Zone};
use proptest::prelude::*;

const ENDS: Ends = Ends::v4(4000, 53);

/// Bytes `start..end` of a packet's payload as a fragment of datagram `id`.
fn cut(whole: &[u8], id: u16, start: usize, end: usize) -> Vec<u8> {
    let mut packet = whole[..20].to_vec();
    packet.extend(&whole[20 + start..20 + end]);
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let more = if 20 + end < whole.len() { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&((start as u16 / 8) | more).to_be_bytes());
    sealed(packet)
}

/// A datagram of three fragments in their order.
fn parts(id: u16) -> [Vec<u8>; 3] {
    let whole = udp(ENDS, &[7; 2_000]);
    [(0, 800), (800, 1_600), (1_600, 2_008)].map(|(start, end)| cut(&whole, id, start, end))
}

/// A caller that holds packets.
struct Holder {
    engine: Engine,
    held: HeldPackets<Vec<u8>>,
    now: Instant,
}

#[derive(Default)]
struct Released(Vec<HoldId>);

impl Sink for Released {
    fn released(&mut self, id: HoldId) {
        self.0.push(id);
    }
}

impl Holder {
    fn new(text: &str) -> Self {
        let text = format!("{text}\n[policy]\ndefault = \"allow\"");
        let config = Config::from_toml(&text, "t.toml").unwrap();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            held: HeldPackets::new(&config.fragments),
            now: Instant::now(),
        }
    }

    /// Submits a packet, and then all released ones. Returns the verdicts, that on the packet
    /// first.
    fn take(&self, bytes: &[u8]) -> Vec<Verdict> {
        let mut released = Released::default();
        let packet = Packet::new(bytes, self.now).can_hold(true);
        let verdict = self.engine.process_with(packet, &mut released);
        if let Verdict::Hold(id, _) = verdict {
            assert!(
                self.held
                    .put(&self.engine, id, bytes.to_vec(), self.now)
                    .is_none()
            );
        }
        let ready: Vec<_> = released
            .0
            .drain(..)
            .flat_map(|id| self.held.take(id))
            .collect();
        let ready = ready
            .into_iter()
            .chain(std::iter::from_fn(|| self.held.next(self.now)));
        let decided = ready.map(|bytes| self.engine.verdict_only(Packet::new(&bytes, self.now)));
        let verdicts = [verdict].into_iter().chain(decided).collect();
        self.engine.check_invariants().unwrap();
        verdicts
    }

    fn names(&self, bytes: &[u8]) -> Vec<&'static str> {
        let name = |verdict: &Verdict| match verdict {
            Verdict::Drop(reason, _) => reason.name(),
            other => other.name(),
        };
        self.take(bytes).iter().map(name).collect()
    }
}

#[test]
fn any_order_of_fragments_passes_whole_and_each_is_counted_once() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let holder = Holder::new("");
        let parts = parts(1);
        let mut verdicts = Vec::new();
        for place in order {
            verdicts.extend(holder.take(&parts[place]));
        }
        let forwarded = verdicts
            .iter()
            .filter(|verdict| verdict.is_forward())
            .count();
        assert_eq!(forwarded, 3, "{order:?}: {verdicts:?}");
        let held = order.iter().position(|place| *place == 0).unwrap();
        assert_eq!(verdicts.len(), 3 + held, "the others are held");
        let stats = holder.engine.stats();
        assert_eq!((stats.forwarded_total(), stats.dropped_total()), (3, 0));
        assert_eq!(
            (stats.fragments_held, stats.fragments_waiting),
            (held as u64, 0)
        );
        assert_eq!((holder.held.len(), holder.engine.datagrams()), (0, 0));
        holder
            .engine
            .for_each_session(|session| assert_eq!(session.original.packets, 3));
    }
}

#[test]
fn sixty_datagrams_whose_sender_emits_the_last_fragment_first_all_pass() {
    let holder = Holder::new("");
    for id in 0..60 {
        let [first, middle, last] = parts(id);
        assert_eq!(holder.names(&last), ["hold"]);
        assert_eq!(holder.names(&middle), ["hold"]);
        assert_eq!(holder.names(&first), ["forward", "forward", "forward"]);
    }
}

#[test]
fn held_fragments_are_released_in_their_order_and_judged_like_later_ones() {
    let whole = udp(ENDS, &[7; 2_000]);
    let holder = Holder::new("");
    let first = cut(&whole, 1, 0, 800);
    for held in [
        cut(&whole, 1, 1_600, 2_008),
        cut(&whole, 1, 1_600, 2_008),
        cut(&whole, 1, 1_592, 1_608),
        cut(&whole, 1, 800, 1_600),
    ] {
        assert_eq!(holder.names(&held), ["hold"]);
    }
    assert_eq!(
        holder.names(&first),
        [
            "forward",
            "forward",
            "fragment_duplicate",
            "fragment_overlap",
            "fragment_of_dropped"
        ]
    );
}

#[test]
fn a_first_fragment_that_is_refused_takes_those_that_waited_with_it() {
    let config = Config::from_toml("[policy]\ndefault = \"deny\"", "t.toml").unwrap();
    let holder = Holder {
        engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
        ..Holder::new("")
    };
    let [first, middle, last] = parts(1);
    assert_eq!(holder.names(&last), ["hold"]);
    assert_eq!(holder.names(&middle), ["hold"]);
    assert_eq!(
        holder.names(&first),
        ["policy_deny", "fragment_of_dropped", "fragment_of_dropped"]
    );
    assert_eq!(holder.engine.stats().dropped_total(), 3);
}

#[test]
fn without_a_first_fragment_they_are_dropped_after_a_second_once() {
    let mut holder = Holder::new("");
    let [first, middle, last] = parts(1);
    assert_eq!(holder.names(&last), ["hold"]);
    holder.now += Duration::from_millis(999);
    assert_eq!(holder.names(&middle), ["hold"]);
    holder.now += Duration::from_millis(1);
    // This needs no packet, only a query.
    let unrelated = udp(Ends::v4(4001, 54), b"");
    assert_eq!(
        holder.names(&unrelated),
        ["forward", "fragment_before_first", "fragment_before_first"]
    );
    let stats = holder.engine.stats();
    assert_eq!(stats.dropped_by(DropReason::FragmentBeforeFirst), 2);
    assert_eq!(stats.fragments_waiting, 0, "and none waits any more");
    // The datagram may begin again.
    assert_eq!(holder.names(&last), ["hold"]);
    assert_eq!(holder.names(&middle), ["hold"]);
    assert_eq!(holder.names(&first), ["forward"; 3]);
}

#[test]
fn no_event_in_an_outbox_displaces_a_release() {
    let engine = Engine::with_seed(&Config::allow_all(), [1, 2, 3, 4]).unwrap();
    let (now, mut outbox) = (Instant::now(), Outbox::with_limits(1, 2));
    for n in 0..5 {
        let query = udp(Ends::v4(2_000 + n, 53), b"question");
        assert!(
            engine
                .process(&Packet::new(&query, now), &mut outbox)
                .is_forward()
        );
    }
    assert_eq!((outbox.len(), outbox.lost().events), (2, 3));
    let [first, second, _] = parts(7);
    let held = engine.process(&Packet::new(&second, now).can_hold(true), &mut outbox);
    assert!(matches!(held, Verdict::Hold(..)), "{held:?}");
    assert!(
        engine
            .process(&Packet::new(&first, now), &mut outbox)
            .is_forward()
    );
    assert!(matches!(outbox.drain().last(), Some(Event::Released(_))));
}

#[test]
fn no_method_holds_a_packet_that_the_caller_has_not_marked() {
    let engine = Engine::with_seed(&Config::allow_all(), [1, 2, 3, 4]).unwrap();
    let now = Instant::now();
    let [_, middle, _] = parts(1);
    let packet = Packet::new(&middle, now);
    let (mut outbox, mut batch) = (Outbox::new(), Vec::new());
    let mut verdicts = vec![
        engine.process(&packet, &mut outbox),
        engine.process_with(packet, &mut Discard),
        engine.verdict_only(packet),
        engine.explain(packet, &mut Discard).0,
    ];
    engine.process_batch(&[packet; 32], &mut outbox, &mut batch);
    verdicts.append(&mut batch);
    engine.verdicts_only(&[packet; 32], &mut batch);
    verdicts.append(&mut batch);
    assert_eq!(verdicts.len(), 4 + 2 * 32);
    for verdict in &verdicts {
        assert_eq!(verdict.name(), "drop");
        assert_eq!(verdict.reason(), Some(DropReason::FragmentBeforeFirst));
    }
    assert_eq!(engine.stats().fragments_waiting, 0);
    // The mark alone makes the difference.
    let marked = engine.process(&packet.can_hold(true), &mut outbox);
    assert_eq!(marked.name(), "hold");
    assert_eq!(engine.stats().fragments_waiting, 1);
}

#[test]
fn a_first_fragment_that_comes_twice_releases_once() {
    let holder = Holder::new("");
    let [first, middle, last] = parts(1);
    assert_eq!(holder.names(&last), ["hold"]);
    assert_eq!(holder.names(&first), ["forward", "forward"]);
    assert_eq!(holder.names(&first), ["fragment_duplicate"]);
    assert_eq!(holder.names(&middle), ["forward"]);
}

#[test]
fn a_datagram_that_is_over_keeps_no_newer_one_with_its_number_from_waiting() {
    for default in ["allow", "deny"] {
        let text = format!("[policy]\ndefault = \"{default}\"");
        let config = Config::from_toml(&text, "t.toml").unwrap();
        let mut holder = Holder {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            ..Holder::new("")
        };
        let [first, middle, last] = parts(1);
        let _ = holder.take(&first);
        holder.now += Duration::from_secs(31);
        assert_eq!(holder.names(&last), ["hold"], "{default}");
        assert_eq!(holder.names(&middle), ["hold"], "{default}");
        assert_eq!(holder.take(&first).len(), 3, "{default}");
    }
}

#[test]
fn nothing_is_held_where_the_configuration_says_so() {
    let holder = Holder::new("[fragments]\nhold = \"0s\"");
    assert_eq!(holder.names(&parts(1)[1]), ["fragment_before_first"]);
    assert_eq!(holder.engine.stats().fragments_held, 0);
}

#[test]
fn those_that_lose_their_places_are_dropped_at_once() {
    let holder = Holder::new("[fragments]\nmax_held_per_source = 2");
    let [first, middle, last] = parts(1);
    assert_eq!(holder.names(&last), ["hold"]);
    assert_eq!(holder.names(&parts(2)[1]), ["hold"]);
    assert_eq!(
        holder.names(&parts(3)[1]),
        ["hold", "fragment_before_first"]
    );
    assert_eq!(holder.names(&middle), ["hold", "fragment_before_first"]);
    assert_eq!(holder.names(&first), ["forward", "forward"]);
    assert_eq!(holder.engine.stats().fragments_waiting, 1);
}

#[test]
fn a_flood_in_one_zone_takes_no_place_of_another() {
    let holder = Holder::new("[fragments]\nmax_held = 64\nmax_held_per_source = 16");
    let [first, middle, last] = parts(1);
    for held in [&last, &middle] {
        assert_eq!(holder.names(held), ["hold"]);
    }
    for n in 0..5_000u16 {
        let mut flood = parts(2)[1].clone();
        flood[13] = 1;
        flood[14..16].copy_from_slice(&n.to_be_bytes());
        let flood = sealed(flood);
        let packet = Packet::new(&flood, holder.now).zone(Zone(7)).can_hold(true);
        assert!(
            matches!(holder.engine.verdict_only(packet), Verdict::Hold(..)),
            "{n}"
        );
    }
    holder.engine.check_invariants().unwrap();
    assert_eq!(holder.engine.stats().fragments_waiting, 64);
    assert_eq!(holder.names(&first), ["forward"; 3]);
}

/// Two threads, one with first fragments and one with later ones: in any order, each packet is
/// decided once, and none is dropped.
#[test]
fn a_first_fragment_on_another_thread_finds_every_held_one() {
    const ROUNDS: u16 = 2_000;
    let holder = Holder::new("");
    let held = HeldPackets::<Vec<u8>>::new(&Config::default().fragments);
    let decided = std::sync::atomic::AtomicU64::new(0);
    let barrier = std::sync::Barrier::new(2);
    let work = |of: usize| {
        for id in 0..ROUNDS {
            let packet = parts(id)[of].clone();
            barrier.wait();
            let mut released = Released::default();
            let engine = &holder.engine;
            match engine.process_with(
                Packet::new(&packet, holder.now).can_hold(true),
                &mut released,
            ) {
                Verdict::Forward(_) => {
                    decided.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Verdict::Hold(id, _) => assert!(held.put(engine, id, packet, holder.now).is_none()),
                other => panic!("{other:?}"),
            }
            let ready: Vec<_> = released.0.drain(..).flat_map(|id| held.take(id)).collect();
            for packet in ready
                .into_iter()
                .chain(std::iter::from_fn(|| held.next(holder.now)))
            {
                assert!(
                    engine
                        .verdict_only(Packet::new(&packet, holder.now))
                        .is_forward()
                );
                decided.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(0));
        scope.spawn(|| work(1));
    });
    assert_eq!(decided.into_inner(), 2 * u64::from(ROUNDS));
    assert_eq!(
        (held.len(), holder.engine.stats().fragments_waiting),
        (0, 0)
    );
    holder.engine.check_invariants().unwrap();
}

#[test]
fn the_front_end_returns_held_datagrams_in_their_own_headers_after_the_first() {
    let mut appliance = Appliance::new(ALLOW);
    let [first, middle, last] = parts(1);
    // Fragments without ports may arrive with another cookie, from another port.
    let labels = [Label::blue(1, 1), Label::blue(2, 2), Label::blue(3, 3)];
    assert_eq!(
        appliance.take(labels[2], &last),
        Kept::Nothing(NotSent::Held)
    );
    assert_eq!(
        appliance.take(labels[1], &middle),
        Kept::Nothing(NotSent::Held)
    );
    assert_eq!(appliance.released(), []);
    let stats = appliance.stats();
    assert_eq!((stats.held, stats.waiting, stats.outcomes()), (2, 2, 0));
    assert_eq!(appliance.take(labels[0], &first), Kept::Return);
    let released = appliance.released();
    assert_eq!(released.len(), 2);
    assert_eq!(sent(&released[0], labels[2]), last);
    assert_eq!(sent(&released[1], labels[1]), middle);
    let stats = appliance.stats();
    assert_eq!((stats.held, stats.waiting, stats.returned), (2, 0, 3));
}

#[test]
fn a_batch_holds_and_releases_like_single_datagrams() {
    let mut appliance = Appliance::new(ALLOW);
    let label = Label::blue(1, 1);
    let payloads: Vec<_> = (0..20)
        .flat_map(|id| {
            let [first, middle, last] = parts(id);
            [last, middle, first]
        })
        .map(|inner| label.around(&inner))
        .collect();
    let mut answers = Vec::new();
    let Appliance {
        front,
        engine,
        scratch,
        now,
        told,
        ..
    } = &mut appliance;
    let datagrams = payloads.iter().map(|payload| datagram(1, payload));
    front.handle_batch(engine, datagrams, *now, scratch, told, |_, _, answer| {
        answers.push(Kept::of(answer));
    });
    let returned = answers
        .iter()
        .filter(|answer| **answer == Kept::Return)
        .count();
    assert_eq!((answers.len(), returned), (60, 20));
    let released = appliance.released();
    assert_eq!(released.len(), 40);
    assert!(released.iter().all(|kept| matches!(kept, Kept::Send(..))));
    assert_eq!(appliance.stats().returned, 60);
}

#[test]
fn a_reload_that_refuses_the_endpoint_meanwhile_counts_for_held_ones() {
    const BOTH: &str = "[zones]\ngreen = 2\n[geneve]\nunknown_endpoints = \"green\"\n\
                        [policy]\ndefault = \"allow\"";
    let mut appliance = Appliance::new(BOTH);
    let [_, middle, _] = parts(1);
    assert_eq!(
        appliance.take(green(1, 1), &middle),
        Kept::Nothing(NotSent::Held)
    );
    appliance.reload(
        "[zones]\ngreen = 2\n[geneve]\nunknown_endpoints = \"refuse\"\n[policy]\n\
         default = \"allow\"",
    );
    appliance.now += Duration::from_secs(1);
    let released = appliance.released();
    assert!(
        matches!(released[..], [Kept::Nothing(NotSent::Refused(_))]),
        "{released:?}"
    );
    assert_eq!(appliance.stats().waiting, 0);
}

#[test]
fn held_datagrams_that_nobody_asks_for_stay_bounded() {
    let text = "[fragments]\nmax_held = 8\n[policy]\ndefault = \"allow\"";
    let mut appliance = Appliance::new(text);
    let mut nothing = 0;
    for id in 0..200 {
        appliance.now += Duration::from_millis(300);
        match appliance.take(Label::blue(1, 1), &parts(id)[1]) {
            Kept::Nothing(NotSent::Held) => {}
            Kept::Nothing(NotSent::Dropped(DropReason::FragmentBeforeFirst)) => nothing += 1,
            other => panic!("{other:?}"),
        }
        assert!(appliance.stats().waiting <= 16);
    }
    assert!(nothing > 100, "{nothing}");
    let dropped = Kept::Nothing(NotSent::Dropped(DropReason::FragmentBeforeFirst));
    appliance.now += Duration::from_secs(2);
    let released = appliance.released();
    assert!(released.len() >= 8 && released.iter().all(|kept| *kept == dropped));
    let stats = appliance.stats();
    assert_eq!((stats.waiting, stats.dropped), (0, 200));
}

#[test]
fn released_datagrams_that_nobody_asks_for_stay_bounded() {
    let text = "[fragments]\nmax_held = 8\n[policy]\ndefault = \"allow\"";
    let mut appliance = Appliance::new(text);
    let label = Label::blue(1, 1);
    let mut later = Vec::new();
    for id in 0..200 {
        let [first, middle, _] = parts(id);
        later.push(appliance.take(label, &middle));
        assert_eq!(appliance.take(label, &first), Kept::Return);
    }
    let dropped = Kept::Nothing(NotSent::Dropped(DropReason::FragmentBeforeFirst));
    let held = later
        .iter()
        .filter(|kept| **kept == Kept::Nothing(NotSent::Held));
    assert_eq!(held.count(), 32);
    assert!(later[32..].iter().all(|kept| *kept == dropped));
    assert_eq!(appliance.stats().waiting, 32);
    // None of them is lost.
    let released = appliance.released();
    assert_eq!(released.len(), 32);
    assert!(released.iter().all(|kept| matches!(kept, Kept::Send(..))));
    assert_eq!(
        (appliance.stats().waiting, appliance.stats().returned),
        (0, 232)
    );
}

#[test]
fn a_fragment_that_could_never_be_returned_is_not_held() {
    let mut appliance = Appliance::new("[geneve]\ninner_mtu = 1280\n[policy]\ndefault = \"allow\"");
    let whole = udp(ENDS, &[7; 4_000]);
    let long = cut(&whole, 1, 800, 2_400);
    let dropped = Kept::Nothing(NotSent::Dropped(DropReason::FragmentBeforeFirst));
    assert_eq!(appliance.take(Label::blue(1, 1), &long), dropped);
}

/// Threads share the front end: a first fragment on one, a later one on the other.
#[test]
fn workers_find_what_another_one_holds() {
    let appliance = Appliance::new(ALLOW);
    let (front, engine, now) = (&appliance.front, &appliance.engine, appliance.now);
    let (mut one, mut other) = (Scratch::new(front), Scratch::new(front));
    let [first, middle, _] = parts(1).map(|inner| Label::blue(1, 1).around(&inner));
    let (later, decisive) = (datagram(1, &middle), datagram(1, &first));
    let answer = front.handle(engine, &later, now, &mut one, &mut Discard);
    assert_eq!(answer, Answer::Nothing(NotSent::Held));
    let answer = front.handle(engine, &decisive, now, &mut other, &mut Discard);
    assert_eq!(answer, Answer::Return);
    // The thread that sent the first fragment sends those that waited for it.
    assert!(
        front
            .next_released(engine, now, &mut one, &mut Discard)
            .is_none()
    );
    let answer = front.next_released(engine, now, &mut other, &mut Discard);
    assert!(matches!(answer, Some(Answer::Send(sent)) if sent.payload == middle));
}

/// An operation on fragments.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A part of a datagram arrives, from one of several sources, in a zone.
    Part {
        source: u8,
        id: u16,
        part: usize,
        green: bool,
    },
    /// A thread does not take its released fragments.
    Deaf(bool),
    /// Time passes, in milliseconds.
    Advance(u64),
    /// The engine is otherwise idle.
    Expire,
    Reload {
        allow: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let part = (0u8..3, 0u16..4, 0usize..4, any::<bool>());
    prop_oneof![
        20 => part.prop_map(|(source, id, part, green)| Step::Part { source, id, part, green }),
        1 => prop::bool::weighted(0.3).prop_map(Step::Deaf),
        3 => prop_oneof![0u64..400, Just(1_000), Just(40_000)].prop_map(Step::Advance),
        1 => Just(Step::Expire),
        1 => any::<bool>().prop_map(|allow| Step::Reload { allow }),
    ]
}

/// Accounts of the random fragments that went in and came out.
struct Books {
    appliance: Appliance,
    deaf: bool,
    /// Number of times that each packet arrived with a label, minus the times that it left.
    inside: std::collections::HashMap<(u64, Vec<u8>), u64>,
}

impl Books {
    fn text(allow: bool) -> String {
        let action = if allow { "allow" } else { "deny" };
        format!(
            "[zones]\ngreen = 2\n[geneve]\nunknown_endpoints = \"green\"\n\
             [fragments]\nmax_datagrams = 4\nmax_per_source = 3\nmax_held = 5\n\
             max_held_per_source = 3\n[policy]\ndefault = \"{action}\""
        )
    }

    fn leaves(&mut self, label: Label, packet: &[u8]) {
        let count = self.inside.get_mut(&(label.endpoint, packet.to_vec()));
        let count = count.unwrap_or_else(|| panic!("never came by {label:?}"));
        *count = count.checked_sub(1).expect("left more often than it came");
    }

    fn ask(&mut self) {
        for kept in self.appliance.released() {
            if let Kept::Send(_, payload) = &kept {
                let (header, inner) = payload.split_at(40);
                let labels = [Label::blue(1, 1), green(1, 1)];
                let label = labels
                    .into_iter()
                    .find(|label| label.header(false) == header);
                let label = label.expect("a header that came");
                assert_eq!(sent(&kept, label), inner);
                self.leaves(label, inner);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Part {
                source,
                id,
                part,
                green: is_green,
            } => {
                let whole = udp(
                    Ends {
                        src: source + 1,
                        ..ENDS
                    },
                    &[source; 2_000],
                );
                // The last one overlaps the others.
                let bounds = [(0, 800), (800, 1_600), (1_600, 2_008), (792, 1_608)];
                let packet = cut(&whole, id, bounds[part].0, bounds[part].1);
                let label = if is_green {
                    green(1, 1)
                } else {
                    Label::blue(1, 1)
                };
                *self
                    .inside
                    .entry((label.endpoint, packet.clone()))
                    .or_default() += 1;
                if self.appliance.take(label, &packet) == Kept::Return {
                    self.leaves(label, &packet);
                }
            }
            Step::Deaf(deaf) => self.deaf = deaf,
            Step::Advance(millis) => self.appliance.now += Duration::from_millis(millis),
            Step::Expire => {
                let Appliance {
                    engine, now, told, ..
                } = &mut self.appliance;
                engine.expire_with(*now, 64, told);
            }
            Step::Reload { allow } => self.appliance.reload(&Self::text(allow)),
        }
        if !self.deaf {
            self.ask();
        }
        self.check();
    }

    /// Each datagram is decided once, or waits, and the number that waits is bounded.
    fn check(&self) {
        let engine = self.appliance.engine.stats();
        let front = self.appliance.stats();
        let decided = engine.forwarded_total() + engine.dropped_total();
        assert_eq!(front.received, decided + front.waiting);
        // A fragment for which the front end has no room is decided immediately.
        assert!(engine.fragments_held >= front.held);
        assert!(engine.fragments_waiting <= 5 && self.appliance.engine.datagrams() <= 4);
        assert!(front.waiting <= 2 * 10 + 3, "{}", front.waiting);
        self.appliance.engine.check_invariants().unwrap();
    }
}

proptest! {
    // Every step checks the whole engine.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_fragments_are_each_decided_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut books = Books {
            appliance: Appliance::new(&Books::text(true)),
            deaf: false,
            inside: std::collections::HashMap::new(),
        };
        for step in steps {
            books.take(step);
        }
        // At the end nothing waits, in the engine or the front end.
        books.take(Step::Deaf(false));
        books.take(Step::Advance(1_000));
        books.take(Step::Expire);
        let waits = (
            books.appliance.stats().waiting,
            books.appliance.engine.stats().fragments_waiting,
        );
        prop_assert_eq!(waits, (0, 0));
    }
}

#[test]
fn a_decision_has_the_packet_the_zone_and_the_verdict_also_when_it_was_held() {
    let mut appliance = Appliance::new(ALLOW);
    let label = green(1, 1);
    let [_, middle, _] = parts(1);
    let payload = label.around(&middle);
    let Appliance {
        front,
        engine,
        scratch,
        now,
        told,
        ..
    } = &mut appliance;
    let mut seen = Vec::new();
    let queued = [Queued::from(datagram(1, &payload))];
    front.handle_queued_batch(engine, queued, *now, scratch, told, |_, _, decision, _| {
        let packet = decision.packet.unwrap();
        assert_eq!((packet.bytes, packet.zone), (&middle[..], Zone::DEFAULT));
        assert!(!decision.is_forwarded() && !decision.is_too_large);
        seen.push(decision.verdict.unwrap().name());
    });
    assert_eq!(seen, ["hold"]);
    let later = *now + Duration::from_secs(1);
    let released = front.decide_released(engine, later, scratch, told).unwrap();
    assert_eq!(released.datagram.payload, payload);
    let decision = released.decision;
    let reason = DropReason::FragmentBeforeFirst;
    assert_eq!(decision.verdict.unwrap().reason(), Some(reason));
    assert_eq!(decision.answer, Answer::Nothing(NotSent::Dropped(reason)));
    let packet = decision.packet.unwrap();
    assert_eq!((packet.bytes, packet.zone), (&middle[..], Zone::DEFAULT));
}

#[test]
fn an_explained_datagram_is_decided_once_and_has_its_steps() {
    let mut appliance = Appliance::new(ALLOW);
    let payload = green(1, 1).around(&udp(ENDS, b"query"));
    let Appliance {
        front,
        engine,
        scratch,
        now,
        told,
        ..
    } = &mut appliance;
    let queued = Queued::from(datagram(1, &payload));
    let (decision, steps) = front.explain(engine, &queued, *now, scratch, told);
    assert_eq!(decision.answer, Answer::Return);
    assert!(decision.is_forwarded());
    assert!(steps.len() > 3, "{steps:?}");
    assert_eq!(engine.stats().sessions_opened, 1);
    assert_eq!(appliance.stats().returned, 1);
}
