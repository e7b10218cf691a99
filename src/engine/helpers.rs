//! Control sessions and their announcements: the engine's side of [`crate::ftp`].
//!
//! A helper's state of a control session is stored beside the table, under the session's
//! identifier. The segments are read under the shard's lock, both directions in the order of their
//! verdicts. Other sessions cost one comparison of their port.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::Engine;
use super::control_shares::{ControlShares, Holding};
use super::ftp_settings::{FtpSettings, Parent};
use super::query::opening_query_of;
use super::settings::Settings;
use crate::config::OnReload;
use crate::flow::{Direction, Zone};
use crate::ftp::expectations::{Call, ExpectationLimits, ExpectationTable};
use crate::ftp::helper::{Ftp, SavedControl};
use crate::ftp::urgent::Urgent;
use crate::ftp::{Control, EventCounts, Expectation, HelperEvent, SessionEnds};
use crate::limits::Prefixes;
use crate::packet::{PROTOCOL_TCP, SeqNum};
use crate::policy::{NewSession, RuleId};
use crate::session::{SessionId, Slot};
use crate::track::tcp::State;

/// Parts of the table of control sessions, each with its own lock.
const BUCKETS: usize = 64;

/// Maximum number of control sessions that are inspected at the same time.
///
/// Each direction of a control session keeps at most a line of [`max_line`] and [`reorder_bytes`]
/// after a hole; the queue of commands is extra.
///
/// [`max_line`]: crate::ftp::helper::Settings::max_line
/// [`reorder_bytes`]: crate::ftp::helper::Settings::reorder_bytes
const MAX_CONTROLS: u32 = 65_536;

/// State of some control sessions.
pub(super) type ControlBucket = Mutex<HashMap<SessionId, ControlSession>>;

/// State of a control session.
#[derive(Debug)]
pub(super) struct ControlSession {
    pub(super) control: Control<Ftp>,
    /// Slot of the control session, and its memory when last measured.
    pub(super) holding: Holding,
    /// Sequence number from which all data of a direction are dropped, original first.
    pub(super) stopped: [Option<SeqNum>; 2],
    /// Urgent bytes that have not arrived yet, original first.
    pub(super) urgent: [Urgent; 2],
    /// Unreadable segments since the last readable one.
    pub(super) unread: u8,
}

/// Origin of an announced session.
#[derive(Debug, Clone, Copy)]
struct Child {
    /// Session that announced this one, if it is or was here.
    parent: Option<Parent>,
    ends: SessionEnds,
}

/// An announced session that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnnouncedSession {
    /// Session that announced this one, if it is here and not on another appliance.
    pub(super) parent: Option<Parent>,
    pub(super) rule: RuleId,
    expectation: Expectation,
}

/// All state of helpers.
#[derive(Debug)]
pub(super) struct Helpers {
    controls: Box<[ControlBucket]>,
    /// Slots and memory of control sessions.
    pub(super) shares: ControlShares,
    /// Control sessions by their ends, for their announcements.
    parents: DashMap<SessionEnds, Parent, ahash::RandomState>,
    /// Announced sessions that have begun, with the sessions that announced them.
    children: DashMap<SessionId, Child, ahash::RandomState>,
    children_len: AtomicUsize,
    /// Number of live children of each session that has any.
    families: DashMap<SessionId, u32, ahash::RandomState>,
    pub(super) expectations: ExpectationTable,
    pub(super) counts: EventCounts,
}

/// Returns both ends of a TCP session.
pub(super) fn ends_of(slot: &Slot) -> SessionEnds {
    let (initiator, key) = (slot.initiator(), &slot.key);
    let end = |end| SocketAddr::new(key.address(end), key.port(end));
    SessionEnds::new(key.zone(), end(initiator), end(initiator.opposite()))
}

/// Returns a new session as an announcement names it; `None` if none can.
fn call_of(query: &NewSession) -> Option<Call> {
    let mapped = |address: IpAddr| address.is_ipv6() && address.to_canonical().is_ipv4();
    if mapped(query.src) || mapped(query.dst) {
        return None;
    }
    Some(Call {
        zone: query.zone,
        protocol: query.protocol,
        source: SocketAddr::new(query.src, query.src_port?),
        destination: SocketAddr::new(query.dst, query.dst_port?),
    })
}

impl Helpers {
    pub(super) fn new(prefixes: Prefixes, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(d, a, b, c);
        Self {
            controls: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            shares: ControlShares::new(MAX_CONTROLS, prefixes, &hasher),
            parents: DashMap::with_hasher(hasher.clone()),
            children: DashMap::with_hasher(hasher.clone()),
            families: DashMap::with_hasher(hasher),
            children_len: AtomicUsize::new(0),
            expectations: ExpectationTable::new(ExpectationLimits::default(), seed)
                .counted_by(prefixes),
            counts: EventCounts::default(),
        }
    }

    /// Sets the shares of zones according to new settings.
    pub(super) fn set_shares(&self, zones: &[Zone], settings: &FtpSettings) {
        self.shares.set(zones, settings.max_memory);
        self.expectations.set_zones(zones);
    }

    pub(super) fn bucket(&self, id: SessionId) -> Option<&ControlBucket> {
        self.controls.get(id.number() as usize % BUCKETS)
    }

    /// Begins to inspect a session.
    pub(super) fn begin_inspection(
        &self,
        bucket: &mut HashMap<SessionId, ControlSession>,
        slot: &Slot,
        own: Parent,
        control: Control<Ftp>,
    ) {
        let (initiator, key) = (slot.initiator(), &slot.key);
        let mapped = |end| key.is_ipv6() && key.address(end).to_canonical().is_ipv4();
        if mapped(initiator) || mapped(initiator.opposite()) {
            // The identifiers of ends have one form for IPv4 and IPv4-mapped addresses; the latter
            // are invalid on the wire.
            return;
        }
        let Some(holding) = self.shares.claim(slot, control.memory()) else {
            self.counts.count(HelperEvent::NotInspected);
            return;
        };
        let ends = ends_of(slot);
        let inspected = ControlSession {
            control,
            holding,
            stopped: [None; 2],
            urgent: [Urgent::default(); 2],
            unread: 0,
        };
        if let Some(earlier) = bucket.insert(own.session, inspected) {
            self.shares.release(earlier.holding);
        }
        if self.parents.insert(ends, own).is_some() {
            // Announcements of an earlier session on these ports are withdrawn.
            self.expectations.withdraw(&ends);
        }
    }

    /// Returns whether a control session has announced a new session here.
    pub(super) fn is_announced(&self, query: &NewSession, now: Instant) -> bool {
        call_of(query).is_some_and(|call| self.expectations.find(&call, now).is_some())
    }

    /// Returns the announcement of a new session and consumes it.
    ///
    /// The policy is evaluated for the session that announced it, which may be on another
    /// appliance, or one that a reload is about to end.
    pub(super) fn announced(
        &self,
        query: &NewSession,
        settings: &Settings,
        now: Instant,
    ) -> Option<AnnouncedSession> {
        if self.expectations.is_empty() {
            return None;
        }
        let call = call_of(query)?;
        let parent = self.expectations.find(&call, now)?.parent;
        let own = self.parents.get(&parent).map(|parent| *parent);
        let decision = settings.policy.look_up(&opening_query_of(&parent));
        let rule = match (decision.action.admits(), own) {
            (true, _) => decision.rule,
            // `policy.on_reload` keeps the session across a reload.
            (_, Some(parent)) if settings.on_reload == OnReload::Keep => parent.rule,
            _ => return None,
        };
        if !settings.ftp.is_port(Some(parent.responder.port()), rule) {
            return None;
        }
        let expectation = self.expectations.take(&call, now)?;
        Some(AnnouncedSession {
            parent: own,
            rule,
            expectation,
        })
    }

    /// Restores the announcement of a session that could not be opened, unless the announcement was
    /// withdrawn in the meantime.
    pub(super) fn give_back(&self, announced: &AnnouncedSession, now: Instant) {
        let expectation = &announced.expectation;
        let Some(parent) = announced.parent.map(|parent| parent.session) else {
            if !self.parents.contains_key(&expectation.parent) {
                let _ = self.expectations.insert(expectation, now);
            }
            return;
        };
        // The lock under which the parent withdraws the announcement.
        let bucket = self.bucket(parent).map(|bucket| bucket.lock());
        let inspected = bucket.as_ref().and_then(|bucket| bucket.get(&parent));
        if inspected
            .is_some_and(|inspected| inspected.control.helper().still_announces(expectation))
        {
            let _ = self.expectations.insert(expectation, now);
        }
    }

    /// Returns whether an announcement of another appliance could have been made here.
    pub(super) fn could_import(&self, settings: &FtpSettings, expectation: &Expectation) -> bool {
        settings
            .candidates
            .contains(&expectation.parent.responder.port())
            && settings.rules.could_announce(expectation)
    }

    /// Imports announcements of another appliance that could have been made here; returns the
    /// number for which there was room.
    pub(super) fn import(
        &self,
        settings: &FtpSettings,
        expectations: &[Expectation],
        now: Instant,
    ) -> usize {
        let longest = settings.rules.settings().lifetime;
        let sound = |expectation: &&Expectation| {
            let sound = self.could_import(settings, expectation);
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

    /// Notes that an announced session was opened. The caller holds the lock of its shard.
    pub(super) fn note_announced(&self, child: SessionId, announced: &AnnouncedSession) {
        self.note_parent(child, announced.parent, announced.expectation.parent);
    }

    /// Notes the parent of a session. The caller holds the lock of the session's shard, so that the
    /// session cannot end in the meantime.
    pub(super) fn note_parent(&self, child: SessionId, parent: Option<Parent>, ends: SessionEnds) {
        // An announced session announces nothing itself, so that no session is kept alive by the
        // children of its children.
        let parent = parent.filter(|parent| {
            parent.session != child && !self.children.contains_key(&parent.session)
        });
        if self
            .children
            .insert(child, Child { parent, ends })
            .is_none()
        {
            self.children_len.fetch_add(1, Ordering::Relaxed);
            if let Some(parent) = parent {
                *self.families.entry(parent.session).or_insert(0) += 1;
            }
        }
    }

    /// Returns the sessions that have live children.
    pub(super) fn families(&self) -> HashSet<SessionId> {
        self.families.iter().map(|family| *family.key()).collect()
    }

    /// Returns whether a session has live children, which keep it alive.
    #[inline]
    pub(super) fn has_children(&self, id: SessionId) -> bool {
        self.children_len.load(Ordering::Relaxed) != 0 && self.families.contains_key(&id)
    }

    /// Returns whether a session was announced by another.
    pub(super) fn is_child(&self, id: SessionId) -> bool {
        self.children_len.load(Ordering::Relaxed) != 0 && self.children.contains_key(&id)
    }

    /// Returns the session that announced `child`, if it is or was here.
    pub(super) fn parent_of(&self, child: SessionId) -> Option<Parent> {
        if self.children_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.children.get(&child)?.parent
    }

    /// Returns the ends of the session that announced `child`, regardless of where that session is.
    pub(super) fn ends_of_parent(&self, child: SessionId) -> Option<SessionEnds> {
        if self.children_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.children.get(&child).map(|child| child.ends)
    }

    /// Removes the state of an ended session, and withdraws its announcements.
    pub(super) fn ended(&self, id: SessionId, slot: &Slot) {
        if self.children_len.load(Ordering::Relaxed) != 0
            && let Some((_, child)) = self.children.remove(&id)
        {
            self.children_len.fetch_sub(1, Ordering::Relaxed);
            if let Some(parent) = child.parent {
                self.families.remove_if_mut(&parent.session, |_, children| {
                    *children -= 1;
                    *children == 0
                });
            }
        }
        if slot.key.protocol() != PROTOCOL_TCP || self.controls() == 0 {
            return;
        }
        self.stop_inspecting(id, slot);
    }

    /// Returns the data that another engine needs to continue a control session.
    #[cfg(feature = "snapshot")]
    pub(super) fn saved_control(&self, id: SessionId) -> Option<SavedControl> {
        if self.controls() == 0 {
            return None;
        }
        let bucket = self.bucket(id)?.lock();
        let ControlSession {
            control, stopped, ..
        } = bucket.get(&id)?;
        Some(SavedControl {
            lines: control
                .line_starts()
                .map(|numbers| numbers.map(|number| number.0)),
            at_rest: control.helper().is_at_rest(),
            // Neither kind of session is read any more, here or after a restart.
            encrypted: control.helper().is_encrypted() || control.helper().is_silenced(),
            bare_lf: control.helper().has_bare_lf(),
            progress: control.helper().progress(),
            stopped: stopped.map(|from| from.map(|number| number.0)),
        })
    }

    /// Continues to inspect a control session, whether or not another engine has inspected it: from
    /// the saved positions of its streams, or from their next lines on.
    pub(super) fn resume_inspection(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        saved: SavedControl,
    ) {
        let Some(bucket) = self.bucket(own.session) else {
            return;
        };
        let (rules, ends) = (Arc::clone(&settings.rules), ends_of(slot));
        let mut helper = match (saved.lines, &saved.progress) {
            _ if saved.encrypted => Ftp::encrypted(rules, ends),
            (Some(_), Some(progress)) => Ftp::resumed(rules, ends, progress),
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
        let mut bucket = bucket.lock();
        self.begin_inspection(&mut bucket, slot, own, control);
        if let Some(inspected) = bucket.get_mut(&own.session) {
            inspected.stopped = saved.stopped.map(|from| from.map(SeqNum));
        }
    }

    /// Removes the state of a session that is no longer a control session, and withdraws its
    /// announcements.
    fn stop_inspecting(&self, id: SessionId, slot: &Slot) {
        let removed = self.bucket(id).and_then(|bucket| bucket.lock().remove(&id));
        if let Some(inspected) = removed {
            self.dismiss(inspected, id, slot);
        }
    }

    /// Releases the resources of a session that is no longer inspected.
    pub(super) fn dismiss(&self, inspected: ControlSession, id: SessionId, slot: &Slot) {
        self.shares.release(inspected.holding);
        let ends = ends_of(slot);
        // A new session may use the ports by now.
        let own = self
            .parents
            .remove_if(&ends, |_, parent| parent.session == id)
            .is_some();
        if own {
            self.expectations.withdraw(&ends);
        }
    }

    /// Puts a session under a rule of new settings, which may be a different one.
    ///
    /// A control session under these settings is inspected, from here on if it was not before, and
    /// its announcements come under the rule too. A session that is not a control session is no
    /// longer inspected.
    pub(super) fn under_rule(&self, own: Parent, slot: &Slot, settings: &FtpSettings) {
        if !settings.is_control(slot, own.rule) {
            if self.controls() != 0 {
                self.stop_inspecting(own.session, slot);
            }
            return;
        }
        if let Some(mut parent) = self.parents.get_mut(&ends_of(slot)) {
            parent.rule = own.rule;
        }
        let Some(bucket) = self.bucket(own.session) else {
            return;
        };
        {
            let mut bucket = bucket.lock();
            if let Some(inspected) = bucket.get_mut(&own.session) {
                let rules = Arc::clone(&settings.rules);
                inspected.control.helper_mut().set_rules(rules);
                return;
            }
        }
        // Inspection begins with a SYN-ACK that has not arrived yet.
        let is_answered = !matches!(slot.track.state(), State::SynSent | State::SynSent2);
        if is_answered && !self.is_child(own.session) {
            self.resume_inspection(settings, slot, own, SavedControl::default());
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

    /// Returns the bytes that control sessions take.
    pub(super) fn memory(&self) -> usize {
        self.shares.memory()
    }

    /// Returns the number of control sessions that are inspected.
    pub(super) fn controls(&self) -> usize {
        self.shares.controls()
    }
}

impl Engine {
    /// Returns the announced sessions that have not begun yet, each with its remaining lifetime.
    ///
    /// The result is for inspection, or for another appliance to which a load balancer may route
    /// the announced session.
    #[must_use]
    pub fn export_expectations(&self, now: Instant) -> Vec<Expectation> {
        self.helpers.expectations().export(now)
    }

    /// Imports expectations that control sessions have announced on another appliance, and returns
    /// the number for which there was room.
    ///
    /// An expectation that no helper would announce under this engine's settings is refused and
    /// counted ([`HelperEvent::ImportRefused`](crate::ftp::HelperEvent::ImportRefused)). No
    /// expectation waits longer than it would here. The announced session is admitted if this
    /// engine's policy admits the control session, under that rule; it has no parent here.
    pub fn import_expectations(&self, expectations: &[Expectation], now: Instant) -> usize {
        self.helpers.import(&self.settings().ftp, expectations, now)
    }
}
