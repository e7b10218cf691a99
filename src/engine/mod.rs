//! The engine: one packet in, one verdict out, and time that passes.

mod checks;
mod expiry;
mod fragments;
mod helpers;
mod icmp;
mod letters;
mod path;
mod record;

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::config::{Config, ConfigError};
use crate::event::{SessionRecord, Sink};
use crate::explain::Step;
use crate::flow::Zone;
use crate::fragment::Datagrams;
use crate::lifetime::LifetimeTable;
use crate::packet::Checksums;
use crate::policy::Policy;
use crate::session::{Origin, Table};
use crate::stats::{Counters, Stats};
use crate::track::Worth;
use crate::verdict::{DropReason, Verdict};

pub use expiry::Expiry;

/// An IP packet as it came in: its bytes, when, and in which zone.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    now: Instant,
    zone: Zone,
    offloaded: bool,
}

impl<'a> Packet<'a> {
    /// A packet of the default zone. `bytes` begins with the IP header; what lies behind the IP length is
    /// padding. `now` is the moment of its arrival; several threads may pass slightly different clocks.
    #[must_use]
    pub const fn new(bytes: &'a [u8], now: Instant) -> Self {
        Self {
            bytes,
            now,
            zone: Zone::DEFAULT,
            offloaded: false,
        }
    }

    /// The same packet in a zone.
    #[must_use]
    pub const fn zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The same packet with checksums that are not verified even where the configuration says so: an interface
    /// that computes them has not done so yet, or a capture has cut the packet.
    #[must_use]
    pub const fn offloaded(self, offloaded: bool) -> Self {
        Self { offloaded, ..self }
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A stateful session firewall engine.
///
/// Shared by reference: every method takes `&self`, and threads that handle different sessions rarely meet.
/// The engine reads no clock and does no I/O; `now` comes with each packet and each call.
///
/// ```
/// use std::time::Instant;
/// use portcullis::{Config, Engine, Packet, Verdict};
///
/// let engine = Engine::new(&Config::default())?;
/// let bytes = [0u8; 20]; // an IP packet from the wire
/// match engine.process(Packet::new(&bytes, Instant::now())) {
///     Verdict::Forward(_) => { /* send it on */ }
///     verdict => println!("dropped: {}", verdict.reason().expect("not forwarded").describe()),
/// }
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    table: Table,
    datagrams: Datagrams,
    policy: Policy,
    lifetimes: LifetimeTable,
    checksums: Checksums,
    counters: Counters,
    origin: Origin,
    checks: checks::Checks,
    helpers: helpers::Helpers,
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Engine>();
};

impl Engine {
    /// An engine with a configuration and a fresh random hash seed.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        // The standard library keys its own maps from the operating system's randomness.
        let random = RandomState::new();
        Self::with_seed(config, [0u8, 1, 2, 3].map(|n| random.hash_one(n)))
    }

    /// An engine whose hash seed is given: the same packets land in the same shards every time. For tests and
    /// measurements; an attacker who knows the seed can make flows collide.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn with_seed(config: &Config, seed: [u64; 4]) -> Result<Self, ConfigError> {
        let compiled = config.compile()?;
        let [a, b, c, d] = seed;
        let checks = checks::Checks::new(&compiled, ahash::RandomState::with_seeds(b, c, d, a));
        Ok(Self {
            table: Table::new(compiled.max_sessions as usize, compiled.shards as usize, seed),
            datagrams: Datagrams::new(&compiled.fragments, seed),
            policy: compiled.policy,
            lifetimes: compiled.lifetimes,
            checksums: compiled.checksums,
            counters: Counters::new(),
            origin: Origin::default(),
            checks,
            helpers: helpers::Helpers::new(&compiled.ftp, seed),
        })
    }

    /// Decides a packet. Never fails, never panics, and allocates nothing, but for what a helper keeps of a control session
    /// and of the sessions that it announces.
    ///
    /// 1. Parse and validate once. A bad packet is a verdict with a reason.
    /// 2. A fragment: find its datagram, **under the lock of one part of that table, which is released at once**. The
    ///    first fragment has the transport header: it goes through the steps that follow, and what is decided of it
    ///    is kept. A later one follows that decision; it is counted in the session and moves the end of a TCP segment,
    ///    under the shard's lock, and skips all other steps. No fragment is held back. (An IPv6 atomic fragment is a
    ///    whole packet.)
    /// 3. An ICMP error: find the session of the packet that it quotes; it is `related` to that one. Neighbour
    ///    and multicast listener discovery pass untracked.
    /// 4. Look the session up by its canonical key: one key, one hash, one shard. **The shard's lock is taken
    ///    here** and held to the end of step 6; it is the only one, but for what helpers keep.
    /// 5. Miss: only a packet that may open a session (for TCP a SYN, for ICMP a query) asks the policy; only
    ///    one that the policy admits makes a session. A full table makes room first, or refuses.
    ///    A session that a control session has announced is admitted by the rule of that one.
    /// 6. Hit: the protocol's state machine judges the packet. An invalid packet changes nothing, the time of
    ///    the last packet included; only where both ends of an assured TCP session have sent an invalid FIN or RST
    ///    is its lifetime cut. A check that only counts (`[checks]`) lets the packet pass instead.
    ///    A helper reads what a control session says, behind a lock of that session's part of its table.
    /// 7. The lock is released; counters and events.
    ///
    /// Sessions that open or end on the way are not reported: see [`Engine::process_with`].
    pub fn process(&self, packet: Packet<'_>) -> Verdict {
        self.process_with(packet, &mut ())
    }

    /// Decides a packet like [`Engine::process`], and tells `sink` of the session that it opens and of those
    /// that end on the way: evicted, reused, refused, or found expired.
    pub fn process_with<S: Sink>(&self, packet: Packet<'_>, sink: &mut S) -> Verdict {
        self.decide(packet, sink, &mut ())
    }

    /// Decides a packet like [`Engine::process_with`], with all effects, and says how the decision came about.
    /// Allocates: this is for people who look at one packet.
    pub fn explain<S: Sink>(&self, packet: Packet<'_>, sink: &mut S) -> (Verdict, Vec<Step>) {
        let mut steps = Vec::new();
        let verdict = self.decide(packet, sink, &mut steps);
        steps.push(Step::Verdict(verdict));
        (verdict, steps)
    }

    /// The counters and gauges. Takes each shard's lock for a moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.counters.snapshot();
        stats.sessions = self.table.len();
        stats.max_sessions = self.table.max_sessions();
        stats.helper_events = self.helpers.events();
        stats.control_sessions = self.helpers.controls();
        stats.expectations = self.helpers.expectations().len();
        let mut by_worth = [0; Worth::ALL.len()];
        for shard in 0..self.table.shards() {
            let shard = self.table.lock(shard);
            for (count, worth) in by_worth.iter_mut().zip(Worth::ALL) {
                *count += shard.count(worth);
            }
        }
        stats.sessions_by_worth = Worth::ALL.into_iter().zip(by_worth).collect();
        stats
    }

    /// What was let pass although a check failed, with the rule of its session: because the check only counts,
    /// or because the session is tracked liberally.
    #[must_use]
    pub fn tolerated(&self) -> Vec<(DropReason, &str, u64)> {
        let name = |(reason, rule, count)| (reason, self.policy.rule_name(rule), count);
        self.checks.tolerated().into_iter().map(name).collect()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    /// How many fragmented datagrams are followed: their first fragment has come, and something is missing.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// The policy with its hit counters.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Calls `each` with every session, one shard after the other. Each shard's records are copied before
    /// `each` sees them, so no lock is held meanwhile; sessions that come or go during the walk may be missed.
    pub fn for_each_session(&self, mut each: impl FnMut(&SessionRecord)) {
        for number in 0..self.table.shards() {
            let records: Vec<_> = {
                let shard = self.table.lock(number);
                shard
                    .sessions()
                    .filter_map(|slot| self.record_of(&shard, number, slot))
                    .collect()
            };
            records.iter().for_each(&mut each);
        }
    }

    /// Whether the table's structures tell one story; for property tests and fuzzing.
    ///
    /// # Errors
    /// What does not fit, in words.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        self.datagrams.check_invariants()?;
        let mut sessions = 0;
        let mut first = u32::MAX;
        for number in 0..self.table.shards() {
            let shard = self.table.lock(number);
            shard
                .check_invariants()
                .map_err(|what| format!("shard {number}: {what}"))?;
            sessions += shard.len();
            let hint = self.table.next_tick_of(number).unwrap_or(u32::MAX);
            let due = shard.sessions().map(|slot| shard.slab.hot(slot).deadline).min();
            if due.is_some_and(|tick| tick < hint) {
                return Err(format!("shard {number}: due at {due:?}, announced {hint}"));
            }
            first = first.min(hint);
        }
        if sessions != self.table.len() || sessions > self.table.max_sessions() {
            return Err(format!(
                "{sessions} sessions, counted {}, bound {}",
                self.table.len(),
                self.table.max_sessions()
            ));
        }
        Ok(())
    }
}
