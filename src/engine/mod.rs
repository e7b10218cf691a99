//! The engine: one packet in, one verdict out, and the passage of time.

mod admission;
mod answer;
mod asking;
mod batch;
mod budget;
mod candidate;
mod census;
mod challenge;
mod control;
mod control_segments;
mod control_shares;
mod deletion;
mod effects;
mod ended;
mod enforcement;
mod expiry;
mod faults;
mod foresight;
mod fragments;
mod ftp_settings;
mod gauges;
mod held;
mod helpers;
mod hint_memory;
mod history_events;
mod icmp;
mod inspect;
mod invariants;
mod judgment;
mod live;
mod log_gate;
mod matched;
mod memo;
mod nothing;
mod on_path;
mod one_way;
mod other_zones;
mod pair;
mod path;
mod path_evidence;
mod plan;
mod query;
mod question_budget;
mod question_ring;
mod question_shares;
mod questions;
mod rate;
mod recent;
mod record;
mod reload;
mod replies;
mod resets;
#[cfg(feature = "snapshot")]
mod restore;
#[cfg(feature = "snapshot")]
mod resume;
mod rule_use;
mod screen;
mod settings;
mod short_way;
#[cfg(feature = "snapshot")]
mod snapshot;
mod store_answers;
#[cfg(feature = "snapshot")]
mod sweep;
mod zone_hints;
mod zone_names;

use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::screen::{NewestScreen, Screen};
use self::settings::Settings;
use crate::asymmetry::{Asymmetry, AsymmetryReport};
use crate::config::{Compiled, Config, ConfigError, Fixed};
use crate::event::{Discard, Sink};
use crate::explain::Step;
use crate::flow::Zone;
use crate::fragment::{Datagrams, HoldId};
use crate::limits::{Accounts, Notices};
use crate::outbox::Outbox;
use crate::policy::CompiledPolicy;
use crate::reserve::NoMemory;
use crate::session::{
    Graveyard, HEADROOM, Kept, Micros, Origin, PathTable, SLICE, SessionRecord, Table, TunnelRef,
};
use crate::stats::Counters;
use crate::verdict::{DropReason, Verdict};

pub use deletion::SessionFilter;
pub use expiry::Expiry;
pub use held::HeldPackets;
pub(crate) use hint_memory::{hint_bytes, known_source_bytes};
pub use inspect::SessionDetail;
pub use log_gate::{LogFault, LogGate, LogScope};
pub use reload::Reload;
pub use rule_use::{RuleTraffic, RuleUse};
pub use store_answers::Answer;
pub(crate) use store_answers::question_bytes;

/// An IP packet as received: its bytes, the time of arrival and its zone.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    now: Instant,
    zone: Zone,
    offloaded: bool,
    tunneled: bool,
    tunnel: TunnelRef,
    /// Bits of `tunnel` that identify the sender's flow.
    flow_bits: u64,
    /// Settings for parsing the packet and judging its IP header.
    screen: Screen,
    /// The packet is dropped if it would open a session.
    sheddable: bool,
    can_hold: bool,
}

impl<'a> Packet<'a> {
    /// Returns a packet of the default zone.
    ///
    /// `bytes` begins with the IP header; any bytes after the IP length are padding. `now` is the
    /// moment of arrival; several threads may pass slightly different clocks.
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

    /// Returns the packet with its zone set to `zone`.
    #[must_use]
    pub const fn zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// Returns the packet with verification of its checksums disabled if `offloaded` is set;
    /// checksums are verified by default.
    ///
    /// Set this for packets whose checksums an interface has not computed yet, such as those that
    /// this host sends, and for packets that a capture has truncated.
    #[must_use]
    pub const fn offloaded(self, offloaded: bool) -> Self {
        Self { offloaded, ..self }
    }

    /// Returns the packet marked as received from a layer-3 tunnel, where link-local traffic is not
    /// valid, unless [`EngineConfig::attachment`] says otherwise.
    ///
    /// [`FrontEnd`](crate::geneve::front::FrontEnd) sets this mark.
    ///
    /// [`EngineConfig::attachment`]: crate::config::EngineConfig::attachment
    #[must_use]
    pub const fn tunneled(self, tunneled: bool) -> Self {
        Self { tunneled, ..self }
    }

    /// Returns the packet with a reference to the tunnel that it arrived in.
    ///
    /// The engine keeps the newest reference of each direction of a session. It returns that
    /// reference with the packets that it creates, if [`EngineConfig::tunnel_references`] is set.
    ///
    /// [`EngineConfig::tunnel_references`]: crate::config::EngineConfig::tunnel_references
    #[must_use]
    pub const fn tunnel(self, tunnel: TunnelRef) -> Self {
        Self { tunnel, ..self }
    }

    /// Returns the packet with a mask of the bits of its [`TunnelRef`] that identify a flow: a load
    /// balancer's flow cookie.
    ///
    /// A SYN on a live session is the first packet of a new flow if its bits differ from those of
    /// the last packet in its direction. It opens a new session in place of the old one, if the
    /// policy admits it. With 0, the default, the bits are ignored.
    #[must_use]
    pub const fn flow_bits(self, flow_bits: u64) -> Self {
        Self { flow_bits, ..self }
    }

    /// Returns the packet marked as subject to shedding under overload: if it would open a session,
    /// it is dropped ([`DropReason::Overload`]) before the policy is evaluated.
    ///
    /// Packets of sessions, ICMP errors, later fragments and announced sessions are decided as
    /// always. SYNs are also decided as always unless SYNs are the flood. While its zone is
    /// challenged (`[syn_challenge]`), only SYNs of known sources are allowed; in a zone that is
    /// never challenged, none are.
    #[must_use]
    pub const fn sheddable(self, sheddable: bool) -> Self {
        Self { sheddable, ..self }
    }

    /// Returns the packet marked as one that the caller can hold and submit again.
    ///
    /// A fragment that arrives before the first one of its datagram then gets [`Verdict::Hold`]
    /// instead of being dropped. So does a packet whose session another engine may have had, if
    /// `continuity.enabled` is set ([`Sink::question`]). Without this mark, no packet gets that
    /// verdict.
    #[must_use]
    pub const fn can_hold(self, can_hold: bool) -> Self {
        Self { can_hold, ..self }
    }

    /// Returns the moment of the packet's arrival.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Returns the packet's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A stateful session firewall engine.
///
/// The engine is shared by reference: every method takes `&self`, and threads that handle different
/// sessions rarely contend. The engine reads no clock and does no I/O; `now` comes with each packet
/// and each call.
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
    /// The number of the engine in the identifiers of its sessions.
    number: u64,
    /// Each shard has the settings in force for it; these are the newest, for work that needs no
    /// shard lock.
    table: Table<Settings>,
    settings: RwLock<Arc<Settings>>,
    /// The counts of sessions by zone.
    accounts: Arc<Accounts>,
    /// Times at which reached limits were last reported.
    notices: Notices,
    screen: NewestScreen,
    /// State that no reload changes.
    fixed: Fixed,
    reloading: Mutex<()>,
    /// Hasher for settings that are stored by hash.
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
    /// Budget of RSTs to both ends of a session that ends.
    resets_at_end: budget::Budget,
    /// Budget of RSTs to late packets.
    late_resets: budget::Budget,
    /// Budget of replies to rejected packets.
    answers: budget::Budget,
    challenges: challenge::Challenges,
    asymmetry: Asymmetry,
    /// Open questions to the store that engines share, if there is one.
    questions: Option<questions::Questions>,
    log_gate: LogGate,
    cut: one_way::CutHandshakes,
    /// Time until which connections are adopted midstream regardless of the settings, in
    /// microseconds.
    adopts_until: AtomicU64,
    /// No packet takes the short way: for tests that compare it with the full one.
    full_way_only: bool,
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Engine>();
};

impl Engine {
    /// Returns an engine with the given configuration and a fresh random hash seed.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or if memory for a table cannot be
    /// allocated.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        // The standard library keys its own maps from the operating system's randomness.
        let random = RandomState::new();
        let [number, seed @ ..] = [0u8, 1, 2, 3, 4].map(|n| random.hash_one(n));
        Self::with_number(config, number, seed)
    }

    /// Returns an engine with the given hash seed: a packet lands in the same shard every time, and
    /// the engine's number in [`SessionUid`](crate::SessionUid) is the same every time.
    ///
    /// This constructor is for tests and measurements; an attacker who knows the seed can make
    /// flows collide.
    ///
    /// # Errors
    /// See [`Engine::new`].
    pub fn with_seed(config: &Config, seed: [u64; 4]) -> Result<Self, ConfigError> {
        // The number is shown in logs: it must not be a part of a secret seed.
        let [a, b, c, d] = seed;
        let number = ahash::RandomState::with_seeds(c, d, a, b).hash_one(0u8);
        Self::with_number(config, number, seed)
    }

    fn with_number(config: &Config, number: u64, seed: [u64; 4]) -> Result<Self, ConfigError> {
        let compiled = config.compile()?;
        let memory = compiled.memory();
        Self::build(compiled, number, seed).map_err(|lack| memory.error(config, lack))
    }

    /// Reserves the memory of all tables and builds an engine from them.
    fn build(compiled: Compiled, number: u64, seed: [u64; 4]) -> Result<Self, NoMemory> {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(b, c, d, a);
        let fixed = compiled.fixed.clone();
        let (fragments, tombstones) = (fixed.fragments, fixed.tombstones);
        let sources = fixed.known_sources;
        let max_sessions = fixed.max_sessions as usize;
        let cut = one_way::CutHandshakes::new(max_sessions)?;
        let paths = PathTable::new(max_sessions, fixed.prefixes, &hasher);
        let questions = match fixed.continuity {
            true => Some(questions::Questions::new(&fixed.questions, &hasher)?),
            false => None,
        };
        let accounts = Accounts::new(max_sessions, fixed.prefixes, hasher.clone())?;
        let accounts = Arc::new(accounts);
        let settings = Arc::new(Settings::new(compiled, hasher.clone(), &accounts, None)?);
        accounts.guarantee(&settings.zones, &settings.limits);
        let engine = Self {
            number,
            table: Table::new(
                &accounts,
                fixed.shards as usize,
                Kept {
                    tunnels: fixed.tunnel_references,
                    stored: fixed.continuity,
                },
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
            questions,
            log_gate: LogGate::default(),
            cut,
            adopts_until: AtomicU64::new(0),
            full_way_only: false,
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

    /// Divides shared resources among the zones according to new settings.
    fn set_shares(&self, settings: &Settings) {
        self.helpers.set_shares(&settings.zones, &settings.ftp);
        self.graveyard.set_zones(&settings.zones);
        self.paths.set_zones(&settings.zones);
        self.asymmetry
            .set_shares(&settings.asymmetry, &settings.zones);
    }

    /// Decides a packet. Never fails and never panics.
    ///
    /// Allocates only for state that a helper keeps of a control session and of the sessions that
    /// it announces, for a new line of [`Engine::asymmetry`], and for the addresses that ends of an
    /// SCTP association announce.
    ///
    /// 1. The packet is parsed and validated once. An invalid packet gets a verdict with a reason.
    ///    So does a packet whose IP header is not valid in transit: a source route, a martian
    ///    address, a TTL of 0 (`[ip]`).
    /// 2. A fragment's datagram is looked up, **under the lock of one part of that table, which is
    ///    released at once**. The first fragment has the transport header: it goes through the
    ///    following steps, and its verdict is stored. A later fragment gets that verdict; under the
    ///    shard's lock, it is counted in the session and moves the end of a TCP segment, and all
    ///    other steps are skipped. A fragment that arrives before the first one is dropped, or held
    ///    by the caller ([`Packet::can_hold`]). (An IPv6 atomic fragment is a whole packet.)
    /// 3. An ICMP error is `related` to the session of the packet that it quotes. Valid neighbor
    ///    and multicast listener discovery is forwarded untracked on a link and dropped in a
    ///    tunnel.
    /// 4. The session is looked up by its canonical key: one key, one hash, one shard. **The
    ///    shard's lock is taken here** and held to the end of step 6. Helpers have locks of their
    ///    own; no other lock is taken.
    /// 5. On a miss, a packet that another engine's session could explain is held until a question
    ///    is answered, if `continuity.enabled` is set ([`Sink::question`]); **the leaf lock of the
    ///    open questions is taken here**. Otherwise, only a packet that may open a session (for TCP
    ///    a SYN, for ICMP anything but a reply) is checked against the policy. A session is opened
    ///    only if the policy admits it, [`Engine::log_gate`] is open, and no limit is exceeded. A
    ///    full table first evicts a session, or refuses the new one.
    ///    **The leaf locks of counted prefixes are taken here**, each for a few instructions.
    ///    During a flood, a SYN of an unknown source is answered by a challenge instead
    ///    (`[syn_challenge]`). A session that a control session has announced is admitted by the
    ///    control session's rule.
    /// 6. On a hit, the protocol's state machine judges the packet. An invalid packet changes
    ///    neither the state of the session nor its lifetime nor the time of its last packet; that
    ///    includes invalid FINs and RSTs. A check that only counts (`[checks]`) allows the packet
    ///    instead. A helper reads the data of a control session, under a lock of that session's
    ///    part of its table.
    /// 7. The lock is released. Counters and events are updated.
    ///
    /// `outbox` receives the reply to a rejected packet and the session that the packet opens, or
    /// would open if the policy admitted it. It also receives sessions that end in the process:
    /// evicted, reused, refused or found expired. Drain it after each packet or batch.
    pub fn process(&self, packet: &Packet<'_>, outbox: &mut Outbox) -> Verdict {
        let verdict = self.decide(*packet, outbox, &mut ());
        if let Verdict::Reject(..) = verdict {
            self.reply_into(outbox, packet, &verdict);
        }
        verdict
    }

    /// Decides a packet like [`Engine::process`] and discards the reply, all events and all RSTs:
    /// for measurements and tests.
    pub fn verdict_only(&self, packet: Packet<'_>) -> Verdict {
        self.process_with(packet, &mut Discard)
    }

    /// Decides a packet like [`Engine::process`], for callers that need no queue. `sink` receives
    /// the events and RSTs; the reply to a rejected packet comes from [`Engine::write_reply`].
    pub fn process_with<S: Sink>(&self, packet: Packet<'_>, sink: &mut S) -> Verdict {
        self.decide(packet, sink, &mut ())
    }

    /// Decides a packet like [`Engine::process_with`], with all effects, and returns the steps of
    /// the decision. Allocates; meant for diagnosing single packets.
    pub fn explain<S: Sink>(&self, packet: Packet<'_>, sink: &mut S) -> (Verdict, Vec<Step>) {
        let mut steps = Vec::new();
        let verdict = self.decide(packet, sink, &mut steps);
        steps.push(Step::Verdict(verdict));
        (verdict, steps)
    }

    /// Returns the tolerated packets: those allowed although a check failed, with the rule of their
    /// session.
    ///
    /// A failed check is tolerated because the check only counts, or because the session is tracked
    /// liberally. The result includes the packets that [`Action::Audit`] has admitted, with
    /// [`DropReason::PolicyDeny`].
    ///
    /// [`Action::Audit`]: crate::policy::Action::Audit
    #[must_use]
    pub fn tolerated(&self) -> Vec<(DropReason, String, u64)> {
        let settings = self.settings();
        let name =
            |(reason, rule, count)| (reason, settings.policy.rule_name(rule).to_owned(), count);
        settings
            .enforcement
            .tolerated()
            .into_iter()
            .map(name)
            .collect()
    }

    /// Returns the report of asymmetric paths: conversations of which one half does not pass here.
    #[must_use]
    pub fn asymmetry(&self) -> AsymmetryReport {
        self.asymmetry.report()
    }

    /// Clears the report that [`Engine::asymmetry`] returns.
    pub fn clear_asymmetry(&self) {
        self.asymmetry.clear();
    }

    /// Adopts connections midstream for `time` from `now` on, where the policy admits them.
    ///
    /// Call this when a load balancer has just handed over live flows. A time of zero ends the
    /// adoption. See also [`TcpConfig::failover`](crate::config::TcpConfig::failover).
    pub fn adopt_for(&self, time: Duration, now: Instant) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let until = self.origin.micros(now).0.saturating_add(time);
        self.adopts_until.store(until, Ordering::Relaxed);
    }

    /// Returns the gate that keeps new sessions out while their log cannot be written.
    #[must_use]
    pub const fn log_gate(&self) -> &LogGate {
        &self.log_gate
    }

    fn is_failing_over(&self, settings: &Settings, now: Micros) -> bool {
        now.0 < HEADROOM.as_micros() as u64 + settings.failover_us
            || now.0 < self.adopts_until.load(Ordering::Relaxed)
    }

    /// Returns the newest settings, for work that needs no shard lock.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Returns whether packets with the verdict [`Verdict::Hold`] still wait for their first
    /// fragment, or for an answer.
    ///
    /// If not, submit them again; [`HeldPackets`](HeldPackets) does this check.
    #[must_use]
    pub fn holds(&self, id: HoldId) -> bool {
        if id.is_question() {
            let questions = self.questions.as_ref();
            return questions.is_some_and(|questions| questions.holds(id));
        }
        self.datagrams.holds(id)
    }

    /// Returns the policy of the last reload, with its hit counters.
    #[must_use]
    pub fn policy(&self) -> Arc<CompiledPolicy> {
        Arc::clone(&self.settings.read().policy)
    }

    /// Calls `each` with every session, in slices of a few sessions: their records are copied
    /// under the lock of their shard, and no lock is held while `each` runs.
    ///
    /// A session that lives during the whole walk is visited exactly once. A session that begins or
    /// ends during the walk is visited at most once. Each record is consistent at one moment;
    /// different records are of different moments.
    pub fn for_each_session(&self, mut each: impl FnMut(&SessionRecord)) {
        let _all_visited = self.try_each_session(|session| -> ControlFlow<()> {
            each(session);
            ControlFlow::Continue(())
        });
    }

    /// Calls `each` with every session, as [`Engine::for_each_session`] does, until it breaks.
    /// Returns the value of the break.
    pub fn try_each_session<B>(
        &self,
        mut each: impl FnMut(&SessionRecord) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut records = Vec::with_capacity(SLICE as usize);
        for shard_id in self.table.shard_ids() {
            let mut walk = self.table.walk(shard_id);
            while walk.next(|held, slots| {
                let shard = &held.shard;
                let sessions = shard.sessions_in(slots);
                records.extend(sessions.filter_map(|slot| self.record_of(shard, shard_id, slot)));
            }) {
                records.iter().try_for_each(&mut each)?;
                records.clear();
            }
        }
        ControlFlow::Continue(())
    }
}
