//! Control sessions and what they announce: the engine's side of [`crate::alg`].
//!
//! What a helper keeps of a control session lies beside the table, under the session's name. It is read under the
//! shard's lock: both directions in the order in which their segments were judged. Other sessions pay for a comparison of
//! their port.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::control_shares::{ControlShares, Holding};
use super::ftp_settings::{FtpSettings, Parent};
use super::query::opening_query_of;
use super::settings::Settings;
use crate::alg::expectations::{Call, ExpectationLimits, ExpectationTable};
use crate::alg::ftp::Ftp;
use crate::alg::urgent::Urgent;
use crate::alg::{Control, EventCounts, Expectation, HelperEvent, SessionEnds};
use crate::config::OnReload;
use crate::flow::{Direction, Zone};
use crate::limits::Prefixes;
use crate::packet::{PROTOCOL_TCP, SeqNum};
use crate::policy::{NewSession, RuleId};
use crate::session::{SessionId, Slot};
use crate::snapshot::SavedControl;
use crate::track::tcp::State;

/// Parts of the table of control sessions, with a lock each.
const PARTS: usize = 64;

/// Control sessions that are listened to at once. Each direction of one keeps a line of [`max_line`] and [`reorder_bytes`]
/// ahead of a hole at most, and there is the queue of commands.
///
/// [`max_line`]: crate::alg::ftp::Settings::max_line
/// [`reorder_bytes`]: crate::alg::ftp::Settings::reorder_bytes
const MAX_CONTROLS: u32 = 65_536;

/// What is kept of some control sessions.
pub(super) type Part = Mutex<HashMap<SessionId, Listening>>;

/// What is kept of a control session.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) control: Control<Ftp>,
    /// Its place, and the memory that it was last found to take.
    pub(super) holding: Holding,
    /// From which number on nothing of a direction passes any more, original first.
    pub(super) stopped: [Option<SeqNum>; 2],
    /// The urgent bytes that have not come yet, original first.
    pub(super) urgent: [Urgent; 2],
    /// Segments that could not be read since the last one that was.
    pub(super) unread: u8,
}

/// Where an announced session comes from.
#[derive(Debug, Clone, Copy)]
struct Child {
    /// The session that has announced it, if that is here, or was.
    parent: Option<SessionId>,
    ends: SessionEnds,
}

/// What was announced, and has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    /// The session that has announced it, if that is here and not on another appliance.
    pub(super) session: Option<SessionId>,
    pub(super) rule: RuleId,
    expectation: Expectation,
}

/// Everything that helpers keep.
#[derive(Debug)]
pub(super) struct Helpers {
    controls: Box<[Part]>,
    /// Their places and their memory.
    pub(super) shares: ControlShares,
    /// Control sessions by their ends, for what they announce.
    parents: DashMap<SessionEnds, Parent, ahash::RandomState>,
    /// Announced sessions that have come, with the sessions that announced them.
    children: DashMap<SessionId, Child, ahash::RandomState>,
    children_len: AtomicUsize,
    /// How many live children a session has, where it has any.
    families: DashMap<SessionId, u32, ahash::RandomState>,
    pub(super) expectations: ExpectationTable,
    pub(super) counts: EventCounts,
}

/// Both ends of a TCP session.
pub(super) fn ends_of(slot: &Slot) -> SessionEnds {
    let (initiator, key) = (slot.initiator(), &slot.key);
    let end = |end| SocketAddr::new(key.address(end), key.port(end));
    SessionEnds::new(key.zone(), end(initiator), end(initiator.opposite()))
}

impl Helpers {
    pub(super) fn new(prefixes: Prefixes, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(d, a, b, c);
        Self {
            controls: (0..PARTS).map(|_| Mutex::default()).collect(),
            shares: ControlShares::new(MAX_CONTROLS, prefixes, &hasher),
            parents: DashMap::with_hasher(hasher.clone()),
            children: DashMap::with_hasher(hasher.clone()),
            families: DashMap::with_hasher(hasher),
            children_len: AtomicUsize::new(0),
            expectations: ExpectationTable::new(ExpectationLimits::default(), seed).counted_by(prefixes),
            counts: EventCounts::default(),
        }
    }

    /// Takes over what new settings say of shares.
    pub(super) fn set_shares(&self, zones: &[Zone], settings: &FtpSettings) {
        self.shares.set(zones, settings.max_memory);
        self.expectations.set_zones(zones);
    }

    pub(super) fn part(&self, id: SessionId) -> Option<&Part> {
        self.controls.get(id.number() as usize % PARTS)
    }

    /// Begins to listen to a session.
    pub(super) fn listen(
        &self,
        part: &mut HashMap<SessionId, Listening>,
        slot: &Slot,
        own: Parent,
        control: Control<Ftp>,
    ) {
        let (initiator, key) = (slot.initiator(), &slot.key);
        let mapped = |end| key.is_ipv6() && key.address(end).to_canonical().is_ipv4();
        if mapped(initiator) || mapped(initiator.opposite()) {
            // Names of ends have one form for IPv4 and IPv4-mapped addresses; the latter do not belong on the wire.
            return;
        }
        let Some(holding) = self.shares.claim(slot, control.memory()) else {
            self.counts.count(HelperEvent::NotHeard);
            return;
        };
        let ends = ends_of(slot);
        let listening = Listening {
            control,
            holding,
            stopped: [None; 2],
            urgent: [Urgent::default(); 2],
            unread: 0,
        };
        if let Some(former) = part.insert(own.session, listening) {
            self.shares.release(former.holding);
        }
        if self.parents.insert(ends, own).is_some() {
            // A session on the same ports before this one: what it has announced does not come any more.
            self.expectations.withdraw(&ends);
        }
    }

    /// What has announced a new session; the announcement is used up. The policy is asked of the session that has announced
    /// it, which may be on another appliance, or one that a reload is about to end.
    pub(super) fn announced(
        &self,
        query: &NewSession,
        settings: &Settings,
        now: Instant,
    ) -> Option<Announced> {
        if self.expectations.is_empty() {
            return None;
        }
        let mapped = |address: core::net::IpAddr| address.is_ipv6() && address.to_canonical().is_ipv4();
        if mapped(query.src) || mapped(query.dst) {
            return None;
        }
        let call = Call {
            zone: query.zone,
            protocol: query.protocol,
            source: SocketAddr::new(query.src, query.src_port?),
            destination: SocketAddr::new(query.dst, query.dst_port?),
        };
        let parent = self.expectations.find(&call, now)?.parent;
        let own = self.parents.get(&parent).map(|parent| *parent);
        let decision = settings.policy.look_up(&opening_query_of(&parent));
        let rule = match (decision.action.admits(), own) {
            (true, _) => decision.rule,
            // A reload was told to keep it.
            (_, Some(parent)) if settings.on_reload == OnReload::Keep => parent.rule,
            _ => return None,
        };
        if !settings.ftp.is_port(Some(parent.responder.port()), rule) {
            return None;
        }
        let expectation = self.expectations.take(&call, now)?;
        Some(Announced {
            session: own.map(|parent| parent.session),
            rule,
            expectation,
        })
    }

    /// What was announced could not be opened: it may come again, unless it was withdrawn meanwhile.
    pub(super) fn give_back(&self, announced: &Announced, now: Instant) {
        let expectation = &announced.expectation;
        let Some(parent) = announced.session else {
            if !self.parents.contains_key(&expectation.parent) {
                let _ = self.expectations.insert(expectation, now);
            }
            return;
        };
        // Under the lock that its parent withdraws it under.
        let part = self.part(parent).map(|part| part.lock());
        let listening = part.as_ref().and_then(|part| part.get(&parent));
        if listening.is_some_and(|listening| listening.control.helper().stands_by(expectation)) {
            let _ = self.expectations.insert(expectation, now);
        }
    }

    /// Takes over what was announced elsewhere, as far as it could have been announced here; how many there was room for.
    pub(super) fn import(&self, settings: &FtpSettings, expectations: &[Expectation], now: Instant) -> usize {
        let longest = settings.rules.settings().lifetime;
        let sound = |expectation: &&Expectation| {
            let sound = settings.candidates.contains(&expectation.parent.responder.port())
                && settings.rules.could_announce(expectation);
            if !sound {
                self.counts.count(HelperEvent::ImportRefused);
            }
            sound
        };
        let bounded = |expectation: &Expectation| Expectation {
            lifetime: expectation.lifetime.min(longest),
            ..*expectation
        };
        let expectations: Vec<_> = expectations.iter().filter(sound).map(bounded).collect();
        self.expectations.import(&expectations, now)
    }

    /// An announced session was opened. The caller holds the lock of its shard.
    pub(super) fn adopted(&self, child: SessionId, announced: &Announced) {
        self.belongs(child, announced.session, announced.expectation.parent);
    }

    /// Notes where a session comes from. The caller holds the lock of its shard, so that it cannot end meanwhile.
    pub(super) fn belongs(&self, child: SessionId, parent: Option<SessionId>, ends: SessionEnds) {
        // What was announced announces nothing itself, so that nobody is kept alive by his own children's children.
        let parent = parent.filter(|parent| *parent != child && !self.children.contains_key(parent));
        if self.children.insert(child, Child { parent, ends }).is_none() {
            self.children_len.fetch_add(1, Ordering::Relaxed);
            if let Some(parent) = parent {
                *self.families.entry(parent).or_insert(0) += 1;
            }
        }
    }

    /// The sessions that have live children.
    pub(super) fn families(&self) -> HashSet<SessionId> {
        self.families.iter().map(|family| *family.key()).collect()
    }

    /// Whether a session has children that live: they keep it alive.
    #[inline]
    pub(super) fn has_children(&self, id: SessionId) -> bool {
        self.children_len.load(Ordering::Relaxed) != 0 && self.families.contains_key(&id)
    }

    /// Whether a session was announced by another.
    pub(super) fn is_child(&self, id: SessionId) -> bool {
        self.children_len.load(Ordering::Relaxed) != 0 && self.children.contains_key(&id)
    }

    /// The session that has announced this one, if it is here, or was.
    pub(super) fn parent_of(&self, child: SessionId) -> Option<SessionId> {
        if self.children_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.children.get(&child)?.parent
    }

    /// The ends of the session that has announced this one, wherever that is.
    pub(super) fn ends_of_parent(&self, child: SessionId) -> Option<SessionEnds> {
        if self.children_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.children.get(&child).map(|child| child.ends)
    }

    /// A session has ended: nothing is kept of it, and what it has announced does not come any more.
    pub(super) fn ended(&self, id: SessionId, slot: &Slot) {
        if self.children_len.load(Ordering::Relaxed) != 0
            && let Some((_, child)) = self.children.remove(&id)
        {
            self.children_len.fetch_sub(1, Ordering::Relaxed);
            if let Some(parent) = child.parent {
                self.families.remove_if_mut(&parent, |_, children| {
                    *children -= 1;
                    *children == 0
                });
            }
        }
        if slot.key.protocol() != PROTOCOL_TCP || self.controls() == 0 {
            return;
        }
        self.stop_listening(id, slot);
    }

    /// What another engine needs to go on with a control session.
    pub(super) fn whereabouts(&self, id: SessionId) -> Option<SavedControl> {
        if self.controls() == 0 {
            return None;
        }
        let part = self.part(id)?.lock();
        let Listening { control, stopped, .. } = part.get(&id)?;
        Some(SavedControl {
            lines: control
                .line_starts()
                .map(|numbers| numbers.map(|number| number.0)),
            at_rest: control.helper().is_at_rest(),
            // Neither is read any more, here or after a restart.
            encrypted: control.helper().is_encrypted() || control.helper().is_silenced(),
            bare_lf: control.helper().has_bare_lf(),
            progress: control.helper().progress(),
            stopped: stopped.map(|from| from.map(|number| number.0)),
        })
    }

    /// Goes on to listen to a control session that another engine has listened to, or none: from where its streams are, or
    /// from their next lines on.
    pub(super) fn go_on(&self, settings: &FtpSettings, slot: &Slot, own: Parent, saved: SavedControl) {
        let Some(part) = self.part(own.session) else {
            return;
        };
        let (rules, ends) = (Arc::clone(&settings.rules), ends_of(slot));
        let mut helper = match (saved.lines, &saved.progress) {
            _ if saved.encrypted => Ftp::encrypted(rules, ends),
            (Some(_), Some(progress)) => Ftp::going_on(rules, ends, progress),
            (Some(_), None) if saved.at_rest => Ftp::at_rest(rules, ends),
            (Some(_), None) => Ftp::unpaired(rules, ends),
            (None, _) => Ftp::new(rules, ends),
        };
        helper.set_bare_lf(saved.bare_lf);
        let mut control = Control::new(helper);
        if let Some([client, server]) = saved.lines {
            control.begins(Direction::Original, SeqNum(client));
            control.begins(Direction::Reply, SeqNum(server));
        }
        let mut part = part.lock();
        self.listen(&mut part, slot, own, control);
        if let Some(listening) = part.get_mut(&own.session) {
            listening.stopped = saved.stopped.map(|from| from.map(SeqNum));
        }
    }

    /// A session is no control session any more: nothing is kept of it, and what it has announced does not come.
    fn stop_listening(&self, id: SessionId, slot: &Slot) {
        let removed = self.part(id).and_then(|part| part.lock().remove(&id));
        if let Some(listening) = removed {
            self.dismiss(listening, id, slot);
        }
    }

    /// Gives back what a session held that is listened to no more.
    pub(super) fn dismiss(&self, listening: Listening, id: SessionId, slot: &Slot) {
        self.shares.release(listening.holding);
        let ends = ends_of(slot);
        // The ports may have been taken by a new session meanwhile.
        let own = self
            .parents
            .remove_if(&ends, |_, parent| parent.session == id)
            .is_some();
        if own {
            self.expectations.withdraw(&ends);
        }
    }

    /// A session is under a rule, perhaps another one, of new settings from now on. One that is a
    /// control session by them is listened to, from here on if it was not before; what it announces
    /// is under the rule too. One that is none is not listened to any more.
    pub(super) fn under_rule(&self, own: Parent, slot: &Slot, settings: &FtpSettings) {
        if !settings.is_control(slot, own.rule) {
            if self.controls() != 0 {
                self.stop_listening(own.session, slot);
            }
            return;
        }
        if let Some(mut parent) = self.parents.get_mut(&ends_of(slot)) {
            parent.rule = own.rule;
        }
        let Some(part) = self.part(own.session) else {
            return;
        };
        {
            let mut part = part.lock();
            if let Some(listening) = part.get_mut(&own.session) {
                let rules = Arc::clone(&settings.rules);
                listening.control.helper_mut().set_rules(rules);
                return;
            }
        }
        // Listening begins with a SYN-ACK that is yet to come.
        let is_answered = !matches!(slot.track.state(), State::SynSent | State::SynSent2);
        if is_answered && !self.is_child(own.session) {
            self.go_on(settings, slot, own, SavedControl::default());
        }
    }

    pub(super) fn expire(&self, now: Instant, budget: usize) {
        self.expectations.expire(now, budget);
    }

    pub(super) fn expectations(&self) -> &ExpectationTable {
        &self.expectations
    }

    pub(super) fn events(&self) -> Vec<(HelperEvent, u64)> {
        self.counts.all().collect()
    }

    /// Bytes that control sessions take.
    pub(super) fn memory(&self) -> usize {
        self.shares.memory()
    }

    /// Control sessions that are listened to.
    pub(super) fn controls(&self) -> usize {
        self.shares.controls()
    }
}
