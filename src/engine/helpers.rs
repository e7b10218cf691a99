//! Control sessions and what they announce: the engine's side of [`crate::alg`].
//!
//! What a helper keeps of a control session lies beside the table, under the session's name. It is read under the
//! shard's lock: both directions in the order in which their segments were judged. Other sessions pay for a comparison of
//! their port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::alg::expectations::{Call, ExpectationLimits, ExpectationTable, TableSink};
use crate::alg::ftp::{Ftp, Rules};
use crate::alg::{
    Control, EventCounts, Expectation, HelperEvent, HelperSink, Segment as Heard, SessionEnds, first_byte,
};
use crate::config::{FtpConfig, FtpHandling, RefusedAnnouncement};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_TCP, Segment, SeqNum, TcpFlags};
use crate::policy::{Action, NewSession, Policy, RuleId};
use crate::session::{SessionId, Slot};

/// Parts of the table of control sessions, with a lock each.
const PARTS: usize = 64;

/// Control sessions that are listened to at once. Each direction of one keeps a line of [`max_line`] and [`reorder_bytes`]
/// ahead of a hole at most, and there is the queue of commands.
///
/// [`max_line`]: crate::alg::ftp::Settings::max_line
/// [`reorder_bytes`]: crate::alg::ftp::Settings::reorder_bytes
const MAX_CONTROLS: usize = 65_536;

/// The session that an announced one belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent {
    pub(super) session: SessionId,
    pub(super) rule: RuleId,
}

/// What is kept of some control sessions.
type Part = Mutex<HashMap<SessionId, Listening>>;

/// What a configuration says of control sessions.
#[derive(Debug)]
pub(super) struct FtpSettings {
    /// Each port that is one of a control session by some rule.
    candidates: Box<[u16]>,
    ports: Box<[u16]>,
    refused: RefusedAnnouncement,
    /// What rules say otherwise, in the order of their numbers.
    by_rule: Box<[(RuleId, FtpHandling)]>,
    rules: Arc<Rules>,
    max_memory: usize,
}

impl FtpSettings {
    pub(super) fn new(config: &FtpConfig, by_rule: &[(RuleId, FtpHandling)]) -> Self {
        let of_rules = by_rule
            .iter()
            .flat_map(|(_, handling)| handling.ports.iter().flatten());
        let mut candidates: Vec<u16> = config.ports.iter().chain(of_rules).copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let mut by_rule = by_rule.to_vec();
        by_rule.sort_unstable_by_key(|(rule, _)| *rule);
        Self {
            candidates: candidates.into(),
            ports: config.ports.clone().into(),
            refused: config.refused,
            by_rule: by_rule.into(),
            rules: Arc::new(Rules::new(config.settings())),
            max_memory: config.max_memory as usize,
        }
    }

    /// Whether this may be a control session: a TCP session to a port that is one of some rule.
    #[inline]
    pub(super) fn may_be_control(&self, slot: &Slot) -> bool {
        slot.key.protocol() == PROTOCOL_TCP
            && self
                .candidates
                .contains(&slot.key.port(slot.initiator().opposite()))
    }

    /// Whether it is one by the rule that has admitted it.
    pub(super) fn is_control(&self, slot: &Slot, rule: RuleId) -> bool {
        let port = slot.key.port(slot.initiator().opposite());
        let ports = self.handling(rule).and_then(|handling| handling.ports.as_deref());
        slot.key.protocol() == PROTOCOL_TCP && ports.unwrap_or(&self.ports).contains(&port)
    }

    fn handling(&self, rule: RuleId) -> Option<&FtpHandling> {
        let place = self.by_rule.binary_search_by_key(&rule, |(rule, _)| *rule).ok()?;
        self.by_rule.get(place).map(|(_, handling)| handling)
    }

    fn stops(&self, rule: RuleId) -> bool {
        let of_rule = self.handling(rule).and_then(|handling| handling.refused);
        of_rule.unwrap_or(self.refused) == RefusedAnnouncement::Drop
    }
}

/// What is kept of a control session.
#[derive(Debug)]
struct Listening {
    control: Control<Ftp>,
    /// Bytes that it was last found to take.
    memory: usize,
    /// From which number on nothing of a direction passes any more, original first.
    stopped: [Option<SeqNum>; 2],
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
    /// Control sessions that are listened to.
    live: AtomicUsize,
    /// Bytes that these take.
    memory: AtomicUsize,
    /// Control sessions by their ends, for what they announce.
    parents: DashMap<SessionEnds, Parent, ahash::RandomState>,
    /// Announced sessions that have come, with the sessions that announced them.
    children: DashMap<SessionId, SessionId, ahash::RandomState>,
    children_len: AtomicUsize,
    /// How many live children a session has, where it has any.
    families: DashMap<SessionId, u32, ahash::RandomState>,
    expectations: ExpectationTable,
    counts: EventCounts,
}

/// Keeps expectations and counts, and notes whether anything was refused.
struct Attentive<'a> {
    table: TableSink<'a>,
    refused: bool,
}

impl HelperSink for Attentive<'_> {
    fn event(&mut self, event: HelperEvent, from: Direction) {
        self.refused |= event.is_refusal();
        self.table.event(event, from);
    }

    fn expect(&mut self, expectation: &Expectation) -> bool {
        self.table.expect(expectation)
    }

    fn withdraw(&mut self, expectation: &Expectation) -> bool {
        self.table.withdraw(expectation)
    }
}

/// Both ends of a TCP session.
fn ends_of(slot: &Slot) -> SessionEnds {
    let (initiator, key) = (slot.initiator(), &slot.key);
    let end = |end| SocketAddr::new(key.address(end), key.port(end));
    SessionEnds::new(key.zone(), end(initiator), end(initiator.opposite()))
}

impl Helpers {
    pub(super) fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(d, a, b, c);
        Self {
            controls: (0..PARTS).map(|_| Mutex::default()).collect(),
            live: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            parents: DashMap::with_hasher(hasher.clone()),
            children: DashMap::with_hasher(hasher.clone()),
            families: DashMap::with_hasher(hasher),
            children_len: AtomicUsize::new(0),
            expectations: ExpectationTable::new(ExpectationLimits::default(), seed),
            counts: EventCounts::default(),
        }
    }

    fn part(&self, id: SessionId) -> Option<&Part> {
        self.controls.get(id.number() as usize % PARTS)
    }

    /// A segment of a control session was found right; whether it may pass. Listening begins with the SYN-ACK, so that
    /// nobody but a server that answers takes a place. What was announced does not announce anything itself.
    #[cold]
    #[inline(never)]
    pub(super) fn control(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        direction: Direction,
        (segment, payload): (&Segment, &[u8]),
        now: Instant,
    ) -> bool {
        let Some(part) = self.part(own.session) else {
            return true;
        };
        let mut part = part.lock();
        let has = |flag| segment.flags.contains(flag);
        if has(TcpFlags::SYN) && has(TcpFlags::ACK) && direction == Direction::Reply {
            let known = part.contains_key(&own.session);
            if !known && self.parent_of(own.session).is_none() && settings.is_control(slot, own.rule) {
                let mut control = Control::new(Ftp::new(Arc::clone(&settings.rules), ends_of(slot)));
                control.begins(Direction::Original, segment.ack);
                self.listen(&mut part, settings, slot, own, control);
            }
        }
        let Some(listening) = part.get_mut(&own.session) else {
            return true;
        };
        let control = &mut listening.control;
        if has(TcpFlags::RST) {
            self.expectations.withdraw(control.helper().session());
            return true;
        }
        // The data of a SYN may be discarded by its receiver, and then come again: it is not read.
        let (seq, payload) = if has(TcpFlags::SYN) {
            let first = first_byte(segment.seq);
            control.begins(direction, first);
            (first, &[][..])
        } else {
            (segment.seq, payload)
        };
        let end = seq.add(payload.len() as u32);
        let [original, reply] = &mut listening.stopped;
        let stopped = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        if stopped.is_some_and(|from| end.after(from)) {
            return false;
        }
        let heard = Heard {
            seq,
            ack: has(TcpFlags::ACK).then_some(SeqNum(segment.ack.0)),
            payload,
            fin: has(TcpFlags::FIN),
        };
        let mut sink = Attentive {
            table: TableSink {
                table: &self.expectations,
                counts: &self.counts,
                now,
            },
            refused: false,
        };
        control.segment(direction, &heard, &mut sink);
        let passes = !(sink.refused && settings.stops(own.rule));
        if !passes {
            *stopped = Some(seq);
            self.expectations.withdraw(control.helper().session());
        }
        self.account(listening, settings.max_memory);
        passes
    }

    /// Brings the memory that a control session takes up to date, and sheds what it can do without where all take too much.
    fn account(&self, listening: &mut Listening, max_memory: usize) {
        let mut memory = listening.control.memory();
        let others = self
            .memory
            .load(Ordering::Relaxed)
            .saturating_sub(listening.memory);
        if others + memory > max_memory {
            listening.control.shed();
            memory = listening.control.memory();
        }
        self.memory.fetch_add(memory, Ordering::Relaxed);
        self.memory.fetch_sub(listening.memory, Ordering::Relaxed);
        listening.memory = memory;
    }

    /// Begins to listen to a session.
    fn listen(
        &self,
        part: &mut HashMap<SessionId, Listening>,
        settings: &FtpSettings,
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
        let is_full = self.memory.load(Ordering::Relaxed) + control.memory() > settings.max_memory;
        if self.live.fetch_add(1, Ordering::Relaxed) >= MAX_CONTROLS || is_full {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.counts.count(HelperEvent::NotHeard);
            return;
        }
        let ends = ends_of(slot);
        let memory = control.memory();
        self.memory.fetch_add(memory, Ordering::Relaxed);
        let listening = Listening {
            control,
            memory,
            stopped: [None; 2],
        };
        part.insert(own.session, listening);
        if self.parents.insert(ends, own).is_some() {
            // A session on the same ports before this one: what it has announced does not come any more.
            self.expectations.withdraw(&ends);
        }
    }

    /// What has announced a new session; the announcement is used up. One of another appliance is as good as the policy
    /// says of the session that has announced it there.
    pub(super) fn announced(&self, query: &NewSession, policy: &Policy, now: Instant) -> Option<Announced> {
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
        let (session, rule) = match own {
            Some(parent) => (Some(parent.session), parent.rule),
            None => {
                let decision = policy.look_up(&NewSession {
                    src: parent.initiator.ip(),
                    src_port: Some(parent.initiator.port()),
                    dst: parent.responder.ip(),
                    dst_port: Some(parent.responder.port()),
                    ..*query
                });
                if decision.action != Action::Allow {
                    return None;
                }
                (None, decision.rule)
            }
        };
        let expectation = self.expectations.take(&call, now)?;
        Some(Announced {
            session,
            rule,
            expectation,
        })
    }

    /// What was announced could not be opened: it may come again.
    pub(super) fn give_back(&self, announced: &Announced, now: Instant) {
        let _ = self.expectations.insert(&announced.expectation, now);
    }

    /// An announced session was opened.
    pub(super) fn adopted(&self, child: SessionId, parent: SessionId) {
        if self.children.insert(child, parent).is_none() {
            self.children_len.fetch_add(1, Ordering::Relaxed);
            *self.families.entry(parent).or_insert(0) += 1;
        }
    }

    /// Whether a session has children that live: they keep it alive.
    #[inline]
    pub(super) fn has_children(&self, id: SessionId) -> bool {
        self.children_len.load(Ordering::Relaxed) != 0 && self.families.contains_key(&id)
    }

    /// The session that has announced this one.
    pub(super) fn parent_of(&self, child: SessionId) -> Option<SessionId> {
        if self.children_len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.children.get(&child).map(|parent| *parent)
    }

    /// A session has ended: nothing is kept of it, and what it has announced does not come any more.
    pub(super) fn ended(&self, id: SessionId, slot: &Slot) {
        if self.children_len.load(Ordering::Relaxed) != 0
            && let Some((_, parent)) = self.children.remove(&id)
        {
            self.children_len.fetch_sub(1, Ordering::Relaxed);
            self.families.remove_if_mut(&parent, |_, children| {
                *children -= 1;
                *children == 0
            });
        }
        if slot.key.protocol() != PROTOCOL_TCP || self.controls() == 0 {
            return;
        }
        let removed = self.part(id).and_then(|part| part.lock().remove(&id));
        if let Some(listening) = removed {
            self.memory.fetch_sub(listening.memory, Ordering::Relaxed);
            self.live.fetch_sub(1, Ordering::Relaxed);
            let ends = ends_of(slot);
            // The ports may have been taken by a new session meanwhile.
            if self
                .parents
                .remove_if(&ends, |_, parent| parent.session == id)
                .is_some()
            {
                self.expectations.withdraw(&ends);
            }
        }
    }

    /// Where both streams of a control session go on, if nothing in it is half said.
    pub(super) fn at_rest(&self, id: SessionId) -> Option<[SeqNum; 2]> {
        if self.controls() == 0 {
            return None;
        }
        let part = self.part(id)?.lock();
        let control = &part.get(&id)?.control;
        control.helper().is_at_rest().then(|| control.line_starts())?
    }

    /// Goes on to listen to a control session that another engine has listened to: from where its streams are, or from their
    /// next lines on.
    pub(super) fn go_on(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        at_rest: Option<[SeqNum; 2]>,
    ) {
        let Some(part) = self.part(own.session) else {
            return;
        };
        let (rules, ends) = (Arc::clone(&settings.rules), ends_of(slot));
        let control = match at_rest {
            Some([client, server]) => {
                let mut control = Control::new(Ftp::at_rest(rules, ends));
                control.begins(Direction::Original, client);
                control.begins(Direction::Reply, server);
                control
            }
            None => Control::new(Ftp::new(rules, ends)),
        };
        self.listen(&mut part.lock(), settings, slot, own, control);
    }

    /// The ends of the session that has announced this one, while that is listened to.
    pub(super) fn ends_of_parent(&self, child: SessionId) -> Option<SessionEnds> {
        let parent = self.parent_of(child)?;
        let part = self.part(parent)?.lock();
        part.get(&parent)
            .map(|listening| *listening.control.helper().session())
    }

    /// A control session is under another rule from now on, and so is what it announces; with other rules of its helper.
    pub(super) fn under_rule(&self, own: Parent, slot: &Slot, settings: &FtpSettings) {
        if self.controls() == 0 {
            return;
        }
        if let Some(mut parent) = self.parents.get_mut(&ends_of(slot)) {
            parent.rule = own.rule;
        }
        let mut part = self.part(own.session).map(|part| part.lock());
        if let Some(listening) = part.as_mut().and_then(|part| part.get_mut(&own.session)) {
            listening
                .control
                .helper_mut()
                .set_rules(Arc::clone(&settings.rules));
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
        self.memory.load(Ordering::Relaxed)
    }

    /// Control sessions that are listened to.
    pub(super) fn controls(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}
