//! Random fragments of many sources and zones against a reference model: waits for a first
//! fragment, evictions, and the verdict on each.

use std::time::{Duration, Instant};

use crate::support::packets::{Ends, udp};
use crate::support::seal::sealed;
use portcullis::HeldPackets;
use portcullis::HoldId;
use portcullis::{Config, Discard, DropReason, Engine, Packet, SessionId, Sink, Verdict, Zone};
use proptest::prelude::*;

/// Maximum wait for a first fragment.
const HOLD: Duration = Duration::from_secs(1);
/// Lifetime of a datagram from its first fragment on.
const LIFETIME: Duration = Duration::from_secs(5);
/// Number of expired datagrams of one kind that a new one clears away.
const CLEARED: usize = 8;
/// Datagrams that one call of `Engine::expire` clears away.
const BATCH: usize = 16;
/// Fragments of each datagram, of 16 bytes of payload each.
const PARTS: u8 = 3;
/// The host whose packets the policy denies.
const DENIED: u8 = 3;

/// Names a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    zone: u16,
    host: u8,
    id: u8,
}

impl Key {
    fn is_of_source(&self, other: &Self) -> bool {
        (self.zone, self.host) == (other.zone, other.host)
    }

    fn ends(&self) -> Ends {
        Ends {
            src: self.host,
            dst: 9,
            ..Ends::v4(4000 + u16::from(self.id), 53)
        }
    }

    /// One fragment of the datagram.
    fn part(&self, part: u8) -> Vec<u8> {
        let whole = udp(self.ends(), &[7; 16 * PARTS as usize - 8]);
        let start = 16 * usize::from(part);
        let mut packet = whole[..20].to_vec();
        packet.extend(&whole[20 + start..36 + start]);
        packet[2..4].copy_from_slice(&36u16.to_be_bytes());
        packet[4..6].copy_from_slice(&u16::from(self.id).to_be_bytes());
        let more = if part + 1 < PARTS { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&((2 * u16::from(part)) | more).to_be_bytes());
        sealed(packet)
    }
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    key: Key,
    part: u8,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Whether the caller can hold the fragment.
    Comes(Fragment, bool),
    Advance(Duration),
    Expire,
}

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    held: usize,
    held_per_source: usize,
    sessions_per_source: usize,
}

/// A datagram without its first fragment.
#[derive(Debug)]
struct Waiting {
    key: Key,
    id: HoldId,
    deadline: Duration,
    parts: Vec<u8>,
}

/// A datagram whose first fragment has passed or was refused.
#[derive(Debug)]
struct Decided {
    key: Key,
    deadline: Duration,
    /// The parts that have passed.
    passed: [bool; PARTS as usize],
    session: Option<SessionId>,
}

/// Numbers of events in a run.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    held: u64,
    released: u64,
    evicted: u64,
    timed_out: u64,
    unheld: u64,
    refused: u64,
    limited: u64,
    expired: u64,
    complete: u64,
}

#[derive(Default)]
struct Released(Vec<HoldId>);

impl Sink for Released {
    fn released(&mut self, id: HoldId) {
        self.0.push(id);
    }
}

struct Run {
    bounds: Bounds,
    engine: Engine,
    shelf: HeldPackets<Fragment>,
    base: Instant,
    now: Duration,
    /// Each oldest first.
    waiting: Vec<Waiting>,
    admitted: Vec<Decided>,
    refused: Vec<Decided>,
    held: u64,
    tally: Tally,
}

/// Forgets the oldest expired datagrams, at most `budget`.
fn clear<T>(items: &mut Vec<T>, budget: usize, is_over: impl Fn(&T) -> bool) {
    let over = items
        .iter()
        .take(budget)
        .take_while(|item| is_over(item))
        .count();
    items.drain(..over);
}

fn position<T>(items: &[T], key: Key, of: impl Fn(&T) -> Key) -> Option<usize> {
    items.iter().position(|item| of(item) == key)
}

/// Sessions of a source before a fragment arrives.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// The session of the fragment's datagram exists.
    is_known: bool,
    others: usize,
}

impl Run {
    fn new(bounds: Bounds) -> Self {
        let Bounds {
            held,
            held_per_source,
            sessions_per_source,
        } = bounds;
        let text = format!(
            "zones.green = 1
             table.max_sessions = 256
             table.shards = 1
             tombstones.max = 16
             syn_challenge.max_sources = 64
             fragments.max_datagrams = 256
             fragments.max_per_source = 64
             fragments.lifetime = \"5s\"
             fragments.max_held = {held}
             fragments.max_held_per_source = {held_per_source}
             limits.max_per_source = {sessions_per_source}
             [policy]
             default = \"allow\"
             [[policy.rule]]
             name = \"no\"
             action = \"deny\"
             source = \"10.0.0.{DENIED}\""
        );
        let config = Config::from_toml(&text, "t.toml").unwrap();
        let (engine, base) = (
            Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            Instant::now(),
        );
        engine.expire_with(base, 0, &mut Discard);
        Self {
            bounds,
            engine,
            shelf: HeldPackets::new(&config.fragments),
            base,
            now: Duration::ZERO,
            waiting: Vec::new(),
            admitted: Vec::new(),
            refused: Vec::new(),
            held: 0,
            tally: Tally::default(),
        }
    }

    fn instant(&self) -> Instant {
        self.base + self.now
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Comes(fragment, can_hold) => self.comes(fragment, can_hold),
            Op::Advance(by) => self.now += by,
            Op::Expire => {
                self.engine.expire_with(self.instant(), 1_000, &mut Discard);
                self.clear(BATCH);
            }
        }
        self.hand_in_again();
        self.compare();
    }

    /// Forgets expired datagrams, at most `budget` of each kind.
    fn clear(&mut self, budget: usize) {
        let now = self.now;
        clear(&mut self.admitted, budget, |datagram| {
            datagram.deadline <= now
        });
        clear(&mut self.refused, budget, |datagram| {
            datagram.deadline <= now
        });
        clear(&mut self.waiting, budget, |datagram| {
            datagram.deadline <= now
        });
    }

    /// Submits fragments whose wait has ended.
    fn hand_in_again(&mut self) {
        while let Some(fragment) = self.shelf.next(self.instant()) {
            self.tally.timed_out += 1;
            self.comes(fragment, false);
        }
    }

    /// Submits a fragment, and then those that it releases.
    fn comes(&mut self, fragment: Fragment, can_hold: bool) {
        let bytes = fragment.key.part(fragment.part);
        let sessions = self.sessions_before(&fragment.key);
        let mut sink = Released::default();
        let packet = Packet::new(&bytes, self.instant())
            .zone(Zone(fragment.key.zone))
            .can_hold(can_hold);
        let verdict = self.engine.process_with(packet, &mut sink);
        if let Verdict::Hold(id, _) = verdict {
            let refused = self.shelf.put(&self.engine, id, fragment, self.instant());
            assert!(
                refused.is_none(),
                "there is room for whatever the engine holds"
            );
        }
        let expected = if fragment.part == 0 {
            self.first(&fragment.key, sessions, verdict, &mut sink.0)
        } else {
            self.later(fragment, can_hold, verdict, &mut sink.0)
        };
        let reason = match verdict {
            Verdict::Hold(..) => None,
            other => other.reason(),
        };
        assert_eq!(reason, expected, "{fragment:?}: {verdict:?}");
        assert!(sink.0.is_empty(), "released without need: {:?}", sink.0);
    }

    /// Returns the sessions of a datagram's source.
    fn sessions_before(&self, key: &Key) -> Before {
        let mut before = Before::default();
        let ends = key.ends();
        self.engine.for_each_session(|session| {
            let host = session.src.to_string();
            if session.zone != Zone(key.zone) || host != format!("10.0.0.{}", key.host) {
                return;
            }
            if session.src_port == ends.src_port {
                before.is_known = session.expires > self.instant();
            } else {
                before.others += 1;
            }
        });
        before
    }

    /// Reason for which a first fragment is dropped; `None` if it passes.
    fn first(
        &mut self,
        key: &Key,
        before: Before,
        verdict: Verdict,
        released: &mut Vec<HoldId>,
    ) -> Option<DropReason> {
        let now = self.now;
        if let Some(place) = position(&self.admitted, *key, |datagram| datagram.key) {
            if self.admitted[place].deadline > now {
                return Some(DropReason::FragmentDuplicate);
            }
            self.admitted.remove(place);
        } else if let Some(place) = position(&self.refused, *key, |datagram| datagram.key) {
            if self.refused[place].deadline > now {
                return Some(DropReason::FragmentOfDropped);
            }
            self.refused.remove(place);
        }
        let reason = if before.is_known {
            None
        } else if key.host == DENIED {
            Some(DropReason::PolicyDeny)
        } else if before.others >= self.bounds.sessions_per_source {
            self.tally.limited += 1;
            Some(DropReason::LimitSource)
        } else {
            None
        };
        self.clear(CLEARED);
        let decided = Decided {
            key: *key,
            deadline: now + LIFETIME,
            passed: [true, false, false],
            session: verdict.tracked().session,
        };
        match reason {
            None => self.admitted.push(decided),
            Some(_) => self.refused.push(decided),
        }
        if let Some(place) = position(&self.waiting, *key, |datagram| datagram.key) {
            let waiting = self.waiting.remove(place);
            assert_eq!(std::mem::take(released), [waiting.id]);
            let taken = self.shelf.take(waiting.id);
            let parts: Vec<u8> = taken.iter().map(|fragment| fragment.part).collect();
            assert_eq!(parts, waiting.parts, "all that were held, in their order");
            for fragment in taken {
                self.tally.released += 1;
                self.comes(fragment, false);
            }
        }
        reason
    }

    /// Reason for which a later fragment is dropped; `None` if it passes or is held.
    fn later(
        &mut self,
        fragment: Fragment,
        can_hold: bool,
        verdict: Verdict,
        released: &mut Vec<HoldId>,
    ) -> Option<DropReason> {
        let (key, now) = (fragment.key, self.now);
        let mut otherwise = DropReason::FragmentBeforeFirst;
        if let Some(place) = position(&self.admitted, key, |datagram| datagram.key) {
            let datagram = &mut self.admitted[place];
            if datagram.deadline > now {
                let part = &mut datagram.passed[usize::from(fragment.part)];
                if std::mem::replace(part, true) {
                    return Some(DropReason::FragmentDuplicate);
                }
                assert_eq!(verdict.tracked().session, datagram.session);
                if datagram.passed == [true; PARTS as usize] {
                    self.admitted.remove(place);
                    self.tally.complete += 1;
                }
                return None;
            }
            self.admitted.remove(place);
            otherwise = DropReason::FragmentExpired;
        } else if let Some(place) = position(&self.refused, key, |datagram| datagram.key) {
            if self.refused[place].deadline > now {
                self.tally.refused += 1;
                return Some(DropReason::FragmentOfDropped);
            }
            self.refused.remove(place);
            otherwise = DropReason::FragmentExpired;
        }
        if self.held(fragment, can_hold, verdict, released) {
            return None;
        }
        self.tally.expired += u64::from(otherwise == DropReason::FragmentExpired);
        Some(otherwise)
    }

    /// Returns whether a fragment waits for its first one.
    fn held(
        &mut self,
        fragment: Fragment,
        can_hold: bool,
        verdict: Verdict,
        released: &mut Vec<HoldId>,
    ) -> bool {
        self.clear(CLEARED);
        if !can_hold {
            return false;
        }
        let key = fragment.key;
        let victims = self.victims(&key);
        if !victims.is_empty() {
            if !matches!(verdict, Verdict::Hold(..)) {
                assert!(
                    victims.contains(&key),
                    "{key:?} makes no room for itself: {victims:?}"
                );
                self.tally.unheld += 1;
                return false;
            }
            let victim = std::mem::take(released);
            let place = self
                .waiting
                .iter()
                .position(|waiting| victim == [waiting.id]);
            let victim = self.waiting.remove(place.expect("one gives up its places"));
            assert!(
                victims.contains(&victim.key),
                "{victim:?} for {key:?}: {victims:?}"
            );
            self.tally.evicted += 1;
            // They are submitted again immediately, after this fragment.
            for fragment in self.shelf.take(victim.id) {
                self.comes(fragment, false);
            }
        }
        let Verdict::Hold(id, _) = verdict else {
            panic!("{fragment:?} is not held: {verdict:?}");
        };
        self.tally.held += 1;
        self.held += 1;
        match position(&self.waiting, key, |waiting| waiting.key) {
            Some(place) => {
                assert_eq!(self.waiting[place].id, id, "one name for all of a datagram");
                self.waiting[place].parts.push(fragment.part);
            }
            None => self.waiting.push(Waiting {
                key,
                id,
                deadline: self.now + HOLD,
                parts: vec![fragment.part],
            }),
        }
        true
    }

    /// Returns the number of waiting fragments of such a datagram.
    fn places(&self, is: impl Fn(&Key) -> bool) -> usize {
        let such = self.waiting.iter().filter(|waiting| is(&waiting.key));
        such.map(|waiting| waiting.parts.len()).sum()
    }

    fn oldest(&self, is: impl Fn(&Key) -> bool) -> Option<Key> {
        self.waiting.iter().map(|waiting| waiting.key).find(is)
    }

    /// Returns the datagrams of which one must be evicted for one more fragment; more than one if
    /// zones or sources have equal amounts.
    fn victims(&self, newcomer: &Key) -> Vec<Key> {
        let own_places = self.places(|key| key.is_of_source(newcomer));
        if own_places >= self.bounds.held_per_source {
            let own = self.oldest(|key| key.is_of_source(newcomer));
            return own.into_iter().collect();
        }
        if self.places(|_| true) < self.bounds.held {
            return Vec::new();
        }
        let of_zone = |zone: u16| self.places(|key| key.zone == zone);
        let most = of_zone(0).max(of_zone(1));
        let is_own = of_zone(newcomer.zone) == most;
        let zone = if is_own {
            newcomer.zone
        } else {
            1 - newcomer.zone
        };
        let hosts: Vec<u8> = (1..=DENIED).collect();
        let of_host = |host: u8| self.places(|key| (key.zone, key.host) == (zone, host));
        let heaviest = hosts.iter().map(|host| of_host(*host)).max().unwrap_or(0);
        if heaviest <= (self.bounds.held_per_source / 8).max(1) {
            return self.oldest(|key| key.zone == zone).into_iter().collect();
        }
        if is_own && own_places == heaviest {
            let own = self.oldest(|key| key.is_of_source(newcomer));
            return own.into_iter().collect();
        }
        hosts
            .into_iter()
            .filter(|host| of_host(*host) == heaviest)
            .filter_map(|host| self.oldest(|key| (key.zone, key.host) == (zone, host)))
            .collect()
    }

    /// Compares the gauges, and checks the bounds.
    fn compare(&self) {
        let stats = self.engine.stats();
        let waiting = self.places(|_| true);
        assert_eq!(stats.fragments_waiting, waiting);
        assert_eq!(stats.fragments_held, self.held);
        assert_eq!(self.engine.datagrams(), self.admitted.len());
        assert!(waiting <= self.bounds.held);
        for waiting in &self.waiting {
            let of_source = self.places(|key| key.is_of_source(&waiting.key));
            assert!(of_source <= self.bounds.held_per_source);
            assert!(waiting.deadline <= self.now + HOLD);
        }
        self.engine.check_invariants().unwrap();
    }

    /// Advances the time until nothing waits any more.
    fn finish(&mut self) {
        self.step(Op::Advance(HOLD));
        assert!(
            self.shelf.is_empty(),
            "each fragment that was held is handed in again"
        );
        self.step(Op::Advance(LIFETIME));
        for _ in 0..20 {
            self.step(Op::Expire);
        }
        assert_eq!(
            (self.waiting.len(), self.admitted.len(), self.refused.len()),
            (0, 0, 0)
        );
        assert_eq!(self.engine.stats().datagrams_given_up, 0);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let key = (0u16..2, 1..=DENIED, 0u8..4).prop_map(|(zone, host, id)| Key { zone, host, id });
    let part = prop_oneof![1 => Just(0u8), 3 => 1..PARTS];
    let millis = prop_oneof![4 => 1u64..300, 2 => 300u64..1_200, 2 => 1_200u64..40_000];
    prop_oneof![
        12 => (key, part, prop::bool::weighted(0.8))
            .prop_map(|(key, part, can_hold)| Op::Comes(Fragment { key, part }, can_hold)),
        2 => millis.prop_map(|millis| Op::Advance(Duration::from_millis(millis))),
        1 => Just(Op::Expire),
    ]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    // At most the number that is cleared away in one call.
    (1..=CLEARED, 1usize..6, 1usize..5).prop_map(|(held, held_per_source, sessions_per_source)| {
        Bounds {
            held,
            held_per_source,
            sessions_per_source,
        }
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..100)
}

proptest! {
    #![proptest_config(crate::support::proptest_config())]

    #[test]
    fn fragments_wait_pass_and_are_dropped_as_the_model_says(bounds in bounds(), ops in ops()) {
        let mut run = Run::new(bounds);
        ops.into_iter().for_each(|op| run.step(op));
        run.finish();
    }
}

/// The operations reach every case; otherwise the property would prove little.
#[test]
fn the_random_fragments_meet_every_bound() {
    let runs = crate::support::tallies(&(bounds(), ops()), |(bounds, ops)| {
        let mut run = Run::new(bounds);
        ops.into_iter().for_each(|op| run.step(op));
        run.tally
    });
    let sum = |of: fn(&Tally) -> u64| runs.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("held", sum(|tally| tally.held)),
        ("released", sum(|tally| tally.released)),
        ("evicted", sum(|tally| tally.evicted)),
        ("timed out", sum(|tally| tally.timed_out)),
        ("without a place", sum(|tally| tally.unheld)),
        // A fragment seldom arrives between the expiry of its datagram and its removal.
        (
            "refused or expired",
            sum(|tally| tally.refused + tally.expired),
        ),
        ("limited", sum(|tally| tally.limited)),
        ("complete", sum(|tally| tally.complete)),
    ] {
        assert!(count >= 50, "{what}: {count}");
    }
}
