//! The engine: one packet in, one verdict out, and time that passes.

mod admission;
mod answer;
mod batch;
mod budget;
mod candidate;
mod census;
mod challenge;
mod checks;
mod control_shares;
mod deletion;
mod effects;
mod elsewhere;
mod ended;
mod evidence;
mod expiry;
mod faults;
mod fragments;
mod ftp_settings;
mod halves;
mod held;
mod helpers;
mod icmp;
mod inspect;
mod letters;
mod listening;
mod memo;
mod on_path;
mod pair;
mod path;
mod query;
mod rate;
mod record;
mod reload;
mod replies;
mod resets;
mod rule_use;
mod screen;
mod settings;
mod snapshot;
mod zone_hints;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::screen::{NewestScreen, Screen};
use self::settings::Settings;
use crate::alg::Expectation;
use crate::asymmetry::{Asymmetry, AsymmetryReport};
use crate::config::{Compiled, Config, ConfigError, Fixed};
use crate::event::{Discard, Sink};
use crate::explain::Step;
use crate::flow::Zone;
use crate::fragment::{Datagrams, HoldId};
use crate::limits::{Accounts, Notices, Standing, Tally};
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::reserve::NoMemory;
use crate::session::{
    Graveyard, HEADROOM, Micros, Origin, PathTable, SLICE, SessionRecord, Table, TunnelRef,
};
use crate::stats::{Counters, Openings, Stats};
use crate::track::EvictionClass;
use crate::verdict::{DropReason, Verdict};

pub use deletion::SessionFilter;
pub use expiry::Expiry;
pub use held::HeldPackets;
pub use inspect::SessionDetail;
pub use reload::Reload;
pub use rule_use::{RuleTraffic, RuleUse};

/// An IP packet as it came in: its bytes, when, and in which zone.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    now: Instant,
    zone: Zone,
    offloaded: bool,
    tunneled: bool,
    tunnel: TunnelRef,
    /// What of `tunnel` names a flow of whoever has sent it.
    flow_bits: u64,
    /// The settings by which it is parsed and its IP header judged.
    screen: Screen,
    /// It is dropped if it would open a session.
    sheddable: bool,
    can_hold: bool,
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
            tunneled: false,
            tunnel: TunnelRef::NONE,
            flow_bits: 0,
            screen: Screen::NONE,
            sheddable: false,
            can_hold: false,
        }
    }

    /// The same packet in a zone.
    #[must_use]
    pub const fn zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The same packet with checksums that are not verified. By default they are: say so of packets whose checksums an
    /// interface has not computed yet, such as those that this host sends, and of packets that a capture has cut.
    #[must_use]
    pub const fn offloaded(self, offloaded: bool) -> Self {
        Self { offloaded, ..self }
    }

    /// The same packet as one of a layer-3 tunnel, where nothing of a link belongs, unless [`EngineConfig::attachment`]
    /// says otherwise. [`FrontEnd`](crate::geneve::front::FrontEnd) sets it.
    ///
    /// [`EngineConfig::attachment`]: crate::config::EngineConfig::attachment
    #[must_use]
    pub const fn tunneled(self, tunneled: bool) -> Self {
        Self { tunneled, ..self }
    }

    /// The same packet with a note of what it came in: the engine keeps the newest of each direction of a session, and
    /// hands it out with the packets that it makes, if [`EngineConfig::tunnel_references`] is set.
    ///
    /// [`EngineConfig::tunnel_references`]: crate::config::EngineConfig::tunnel_references
    #[must_use]
    pub const fn tunnel(self, tunnel: TunnelRef) -> Self {
        Self { tunnel, ..self }
    }

    /// The same packet with a mask of the bits of its [`TunnelRef`] that name a flow: a load balancer's flow cookie. A SYN on a
    /// live session, whose bits differ from those of the last packet of its direction, is the first of a new flow: it
    /// opens a new session in place of that one, if the policy admits it. With 0, the default, nothing follows from them.
    #[must_use]
    pub const fn flow_bits(self, flow_bits: u64) -> Self {
        Self { flow_bits, ..self }
    }

    /// The same packet under overload: one that would open a session is dropped
    /// ([`DropReason::Overload`]) before the policy is asked. Packets of sessions, ICMP errors,
    /// later fragments, and what a control session has announced are decided as always. So is a
    /// SYN, unless SYNs are the flood: while its zone is challenged (`[syn_challenge]`), only those
    /// of known sources pass, and in a zone that never is, none.
    #[must_use]
    pub const fn sheddable(self, sheddable: bool) -> Self {
        Self { sheddable, ..self }
    }

    /// Returns the packet as one of a caller that can hold it and pass it again. A fragment that
    /// comes before the first one of its datagram then gets [`Verdict::Hold`] instead of being
    /// dropped; see [`fragment`](crate::fragment).
    #[must_use]
    pub const fn can_hold(self, can_hold: bool) -> Self {
        Self { can_hold, ..self }
    }

    /// The moment of its arrival.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    pub(crate) const fn zone_of(&self) -> Zone {
        self.zone
    }

    pub(crate) const fn tunnel_of(&self) -> TunnelRef {
        self.tunnel
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
/// use portcullis::{Config, Engine, Outbox, Packet, Verdict};
///
/// let engine = Engine::new(&Config::default())?;
/// let bytes = [0u8; 20]; // an IP packet from the wire
/// let mut outbox = Outbox::new();
/// match engine.process(&Packet::new(&bytes, Instant::now()), &mut outbox) {
///     Verdict::Forward(_) => { /* send it on */ }
///     verdict => println!("dropped: {}", verdict.reason().expect("not forwarded").describe()),
/// }
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    /// Each shard has the settings that hold for it; these are the newest, for what is done without a shard's lock.
    table: Table<Settings>,
    settings: RwLock<Arc<Settings>>,
    /// The counts of sessions by zone.
    accounts: Arc<Accounts>,
    /// When reached limits were reported.
    notices: Notices,
    screen: NewestScreen,
    /// What no reload changes.
    fixed: Fixed,
    reloading: Mutex<()>,
    /// For what settings keep by a hash.
    hasher: ahash::RandomState,
    datagrams: Datagrams,
    counters: Counters,
    origin: Origin,
    helpers: helpers::Helpers,
    /// Traffic and last match of each rule.
    rule_counters: rule_use::RuleCounters,
    graveyard: Graveyard,
    /// Ends of sessions of protocols without tombstones.
    ended: ended::EndedSessions,
    /// Further paths of SCTP associations.
    paths: PathTable,
    /// For RSTs to both ends of a session that ends.
    resets_at_end: budget::Budget,
    /// For RSTs to late packets.
    late_resets: budget::Budget,
    /// For answers to packets that are refused.
    answers: budget::Budget,
    challenges: challenge::Challenges,
    asymmetry: Asymmetry,
    cut: halves::CutHandshakes,
    /// Until when connections are adopted in their middle whatever the settings say, in microseconds.
    adopts_until: AtomicU64,
}

/// The most bytes that hints about sessions of other zones, about handshakes that were cut, about
/// ended sessions, and about further paths of SCTP associations take.
pub(crate) fn hint_bytes(max_sessions: usize, zones: usize) -> usize {
    zone_hints::Elsewhere::bytes(max_sessions, zones)
        + halves::CutHandshakes::bytes(max_sessions)
        + ended::EndedSessions::bytes(max_sessions)
}

/// Returns the bytes of the table of sources that have answered or completed a handshake.
pub(crate) fn known_source_bytes(max: usize) -> usize {
    challenge::known_source_bytes(max)
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Engine>();
};

impl Engine {
    /// An engine with a configuration and a fresh random hash seed.
    ///
    /// # Errors
    /// What is wrong with the configuration, or a table for which the system does not give the memory.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        // The standard library keys its own maps from the operating system's randomness.
        let random = RandomState::new();
        Self::with_seed(config, [0u8, 1, 2, 3].map(|n| random.hash_one(n)))
    }

    /// An engine whose hash seed is given: the same packets land in the same shards every time. For tests and
    /// measurements; an attacker who knows the seed can make flows collide.
    ///
    /// # Errors
    /// As those of [`Engine::new`].
    pub fn with_seed(config: &Config, seed: [u64; 4]) -> Result<Self, ConfigError> {
        let compiled = config.compile()?;
        let memory = compiled.memory();
        Self::build(compiled, seed).map_err(|lack| memory.error(config, lack))
    }

    /// Reserves the memory of all tables and makes an engine of them.
    fn build(compiled: Compiled, seed: [u64; 4]) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(b, c, d, a);
        let fixed = compiled.fixed.clone();
        let (fragments, tombstones) = (fixed.fragments, fixed.tombstones);
        let sources = fixed.known_sources;
        let max_sessions = fixed.max_sessions as usize;
        let cut = halves::CutHandshakes::new(max_sessions)?;
        let paths = PathTable::new(max_sessions, fixed.prefixes, &hasher);
        let accounts = Accounts::new(max_sessions, fixed.prefixes, hasher.clone())?;
        let accounts = Arc::new(accounts);
        let settings = Arc::new(Settings::new(compiled, hasher.clone(), &accounts, None)?);
        accounts.guarantee(&settings.zones, &settings.limits);
        let engine = Self {
            table: Table::new(
                &accounts,
                fixed.shards as usize,
                fixed.tunnel_references,
                &settings,
                seed,
            )?,
            screen: NewestScreen::new(settings.screen),
            settings: RwLock::new(Arc::clone(&settings)),
            accounts,
            notices: Notices::new(hasher.clone())?,
            fixed,
            reloading: Mutex::new(()),
            hasher: hasher.clone(),
            datagrams: Datagrams::new(&fragments, seed)?,
            counters: Counters::new(),
            origin: Origin::default(),
            helpers: helpers::Helpers::new(settings.limits.prefixes, seed),
            rule_counters: rule_use::RuleCounters::default(),
            graveyard: Graveyard::new(tombstones.max as usize, tombstones.lifetime, seed)?,
            ended: ended::EndedSessions::new(max_sessions)?,
            paths,
            resets_at_end: budget::Budget::new(hasher.clone())?,
            late_resets: budget::Budget::new(hasher.clone())?,
            answers: budget::Budget::new(hasher.clone())?,
            challenges: challenge::Challenges::new(sources as usize, hasher, seed)?,
            asymmetry: Asymmetry::new(seed)?,
            cut,
            adopts_until: AtomicU64::new(0),
        };
        engine.set_shares(&settings);
        engine.reserve_rules(&settings);
        Ok(engine)
    }

    /// Allocates the counters of all rules of new settings.
    fn reserve_rules(&self, settings: &Settings) {
        let rules = settings.policy.numbered().map(|(rule, _)| rule);
        self.rule_counters.reserve(rules);
    }

    /// Divides what all zones share by new settings.
    fn set_shares(&self, settings: &Settings) {
        self.helpers.set_shares(&settings.zones, &settings.ftp);
        self.graveyard.set_zones(&settings.zones);
        self.paths.set_zones(&settings.zones);
        self.asymmetry.set_shares(&settings.asymmetry, &settings.zones);
    }

    /// Decides a packet. Never fails, never panics, and allocates nothing, but for what a helper keeps of a control session
    /// and of the sessions that it announces, for a new line of [`Engine::asymmetry`], and for the
    /// addresses that ends of an SCTP association announce.
    ///
    /// 1. Parse and validate once. A bad packet is a verdict with a reason, and so is one whose IP header says what no
    ///    packet on its way may say: a source route, a martian address, a TTL of 0 (`[ip]`).
    /// 2. A fragment: find its datagram, **under the lock of one part of that table, which is released at once**. The
    ///    first fragment has the transport header: it goes through the steps that follow, and what is decided of it
    ///    is kept. A later one follows that decision; it is counted in the session and moves the end of a TCP segment,
    ///    under the shard's lock, and skips all other steps. One that comes before the first is dropped, or the caller
    ///    holds it ([`Packet::can_hold`]). (An IPv6 atomic fragment is a whole packet.)
    /// 3. An ICMP error: find the session of the packet that it quotes; it is `related` to that one. Neighbor
    ///    and multicast listener discovery pass untracked on a link, if they are valid; in a tunnel they are dropped.
    /// 4. Look the session up by its canonical key: one key, one hash, one shard. **The shard's lock is taken
    ///    here** and held to the end of step 6; it is the only one, but for what helpers keep.
    /// 5. Miss: only a packet that may open a session (for TCP a SYN, for ICMP anything but a reply) asks the policy;
    ///    only one that the policy admits, and that exceeds no limit, makes a session. A full table makes room
    ///    first, or refuses. **The leaf locks of counted prefixes are taken here**, each for a few instructions.
    ///    Under flood, a SYN of an unknown source is answered by a challenge instead (`[syn_challenge]`).
    ///    A session that a control session has announced is admitted by the rule of that one.
    /// 6. Hit: the protocol's state machine judges the packet. An invalid packet changes nothing, the time of
    ///    the last packet included; only where both ends of an assured TCP session have sent an invalid FIN or RST
    ///    is its lifetime cut. A check that only counts (`[checks]`) lets the packet pass instead.
    ///    A helper reads what a control session says, behind a lock of that session's part of its table.
    /// 7. The lock is released; counters and events.
    ///
    /// `outbox` receives the reply to a rejected packet, the session that the packet opens, or would
    /// open if the policy admitted it, and those that end on the way: evicted, reused, refused, or
    /// found expired. Drain it after each packet or batch.
    pub fn process(&self, packet: &Packet<'_>, outbox: &mut Outbox) -> Verdict {
        let verdict = self.decide(*packet, outbox, &mut ());
        if let Verdict::Reject(..) = verdict {
            self.queue_reply(packet, &verdict, outbox);
        }
        verdict
    }

    /// Decides a packet like [`Engine::process`] and discards the reply, all events and all RSTs:
    /// for measurements and tests.
    pub fn verdict_only(&self, packet: Packet<'_>) -> Verdict {
        self.process_with(packet, &mut Discard)
    }

    /// Decides a packet like [`Engine::process`], for callers that want no queue. `sink` receives
    /// the events and RSTs; the reply to a rejected packet comes from [`Engine::write_reply`].
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
        let settings = self.settings();
        stats.challenging_zones = self.challenging_zones(&settings);
        stats.known_sources = self.known_sources(&settings);
        stats.tombstones = self.graveyard.len();
        let datagrams = self.datagrams.gauges();
        stats.fragments_waiting = datagrams.held;
        stats.datagrams_given_up = datagrams.given_up;
        stats.helper_events = self.helpers.events();
        stats.control_sessions = self.helpers.controls();
        stats.control_memory = self.helpers.memory();
        stats.expectations = self.helpers.expectations().len();
        let mut by_worth = [0; EvictionClass::ALL.len()];
        for shard in 0..self.table.shards() {
            let held = self.table.lock(shard);
            for (count, worth) in by_worth.iter_mut().zip(EvictionClass::ALL) {
                *count += held.shard.count(worth);
            }
        }
        stats.sessions_by_worth = EvictionClass::ALL.into_iter().zip(by_worth).collect();
        stats
    }

    /// What was let pass although a check failed, with the rule of its session: because the check only counts,
    /// or because the session is tracked liberally. Also the packets that [`Action::Audit`] has
    /// admitted, with
    /// [`DropReason::PolicyDeny`].
    ///
    /// [`Action::Audit`]: crate::policy::Action::Audit
    #[must_use]
    pub fn tolerated(&self) -> Vec<(DropReason, String, u64)> {
        let settings = self.settings();
        let name = |(reason, rule, count)| (reason, settings.policy.rule_name(rule).to_owned(), count);
        settings.checks.tolerated().into_iter().map(name).collect()
    }

    /// What was seen of paths whose other half does not pass here.
    #[must_use]
    pub fn asymmetry(&self) -> AsymmetryReport {
        self.asymmetry.report()
    }

    /// What control sessions have announced and what has not come yet, each with what is left of its lifetime: for a look,
    /// or for another appliance to which a load balancer may hand the announced session.
    #[must_use]
    pub fn export_expectations(&self, now: Instant) -> Vec<Expectation> {
        self.helpers.expectations().export(now)
    }

    /// Takes over what control sessions on another appliance have announced; how many there was room for. What no helper would
    /// have announced by the settings of this engine is refused and counted
    /// ([`HelperEvent::ImportRefused`](crate::alg::HelperEvent::ImportRefused)), and nothing waits longer than here. The
    /// announced session is admitted if this engine's policy admits the control session, under that rule; it has no parent here.
    pub fn import_expectations(&self, expectations: &[Expectation], now: Instant) -> usize {
        self.helpers.import(&self.settings().ftp, expectations, now)
    }

    /// Forgets what [`Engine::asymmetry`] reports.
    pub fn clear_asymmetry(&self) {
        self.asymmetry.clear();
    }

    /// Adopts connections in their middle for a while from `now` on, where the policy admits them: a load balancer has just
    /// handed over live flows. Zero ends it. See also [`TcpConfig::failover`](crate::config::TcpConfig::failover).
    pub fn adopt_for(&self, time: Duration, now: Instant) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let until = self.origin.micros(now).0.saturating_add(time);
        self.adopts_until.store(until, Ordering::Relaxed);
    }

    fn is_failing_over(&self, settings: &Settings, now: Micros) -> bool {
        now.0 < HEADROOM.as_micros() as u64 + settings.failover_us
            || now.0 < self.adopts_until.load(Ordering::Relaxed)
    }

    /// The newest settings, for what is done without a shard's lock.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    /// How many sessions there can be.
    #[must_use]
    pub const fn max_sessions(&self) -> usize {
        self.fixed.max_sessions as usize
    }

    /// Returns how many sessions a full table keeps: connections that both ends have agreed on. A
    /// packet that opens a session may evict any other, if that is idle for long enough. Takes no
    /// lock.
    #[must_use]
    pub fn assured_sessions(&self) -> usize {
        self.accounts.assured()
    }

    /// Returns the counters of new sessions. Takes no lock.
    #[must_use]
    pub fn openings(&self) -> Openings {
        Openings {
            opened: self.counters.sessions_opened(),
            refused: self.counters.dropped(DropReason::TableFull),
        }
    }

    /// How many fragmented datagrams are followed: their first fragment has come, and something is missing.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.datagrams.gauges().datagrams
    }

    /// Whether packets with the verdict [`Verdict::Hold`] still wait for their first fragment. If
    /// not, they are to be handed in again; [`HeldPackets`](HeldPackets) asks for
    /// that.
    #[must_use]
    pub fn holds(&self, id: HoldId) -> bool {
        self.datagrams.holds(id)
    }

    /// The policy with its hit counters, as the last reload has left it.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.settings.read().policy)
    }

    /// Calls `each` with every session, in slices of a few dozen: their records are copied under
    /// the lock of their shard, and no lock is held while `each` sees them.
    ///
    /// A session that lives during the whole walk is seen exactly once. One that comes or goes
    /// meanwhile is seen once or missed; no session is seen twice. Each record is true of one
    /// moment, and different records of different moments.
    pub fn for_each_session(&self, mut each: impl FnMut(&SessionRecord)) {
        let mut records = Vec::with_capacity(SLICE as usize);
        for number in 0..self.table.shards() {
            let mut walk = self.table.walk(number);
            while walk.next(|held, slots| {
                let shard = &held.shard;
                let sessions = shard.sessions_in(slots);
                records.extend(sessions.filter_map(|slot| self.record_of(shard, number, slot)));
            }) {
                records.iter().for_each(&mut each);
                records.clear();
            }
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
        let mut tally = Tally::default();
        let mut first = u32::MAX;
        for number in 0..self.table.shards() {
            let held = self.table.lock(number);
            let shard = &held.shard;
            shard
                .check_invariants()
                .map_err(|what| format!("shard {number}: {what}"))?;
            sessions += shard.len();
            for each in shard.sessions() {
                let slot = shard.slab.hot(each);
                let standing = Standing::of(slot.key.protocol(), slot.eviction_class());
                let (subject, counts) = shard.slab.counted(each);
                tally.add(&self.accounts, subject, counts, standing);
            }
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
        self.accounts.check_invariants(&tally)
    }
}
