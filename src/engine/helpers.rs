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
use super::reload::opening_query_of;
use super::settings::Settings;
use crate::alg::expectations::{Call, ExpectationLimits, ExpectationTable, TableSink};
use crate::alg::ftp::{Ftp, Rules};
use crate::alg::{
    Control, EventCounts, Expectation, Helper, HelperEvent, HelperSink, Segment as Heard, SessionEnds,
    first_byte,
};
use crate::config::{FtpConfig, FtpHandling, OnReload, RefusedAnnouncement};
use crate::flow::{Direction, Zone};
use crate::limits::Prefixes;
use crate::packet::{PROTOCOL_TCP, Parsed, Segment, SeqNum, TcpFlags, Transport};
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

/// The first number of TELNET's commands; 255 begins them (RFC 854).
const TELNET_COMMANDS: u8 = 240;

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
    max_memory: u32,
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
            max_memory: config.max_memory,
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
        slot.key.protocol() == PROTOCOL_TCP && self.is_port(Some(port), rule)
    }

    /// Whether the first segment of a session must not pass, since it has data that nobody reads: those of a SYN.
    pub(super) fn bars_opening(
        &self,
        query: &NewSession,
        rule: RuleId,
        parsed: &Parsed,
        is_whole: bool,
    ) -> bool {
        let Transport::Tcp { segment, .. } = &parsed.transport else {
            return false;
        };
        let brings = segment.payload_len > 0 || !is_whole;
        brings
            && segment.flags.contains(TcpFlags::SYN)
            && self.stops(rule)
            && self.is_port(query.dst_port, rule)
    }

    /// Whether a port is one of control sessions by a rule.
    fn is_port(&self, port: Option<u16>, rule: RuleId) -> bool {
        let ports = self.handling(rule).and_then(|handling| handling.ports.as_deref());
        port.is_some_and(|port| ports.unwrap_or(&self.ports).contains(&port))
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
    /// Its place, and the memory that it was last found to take.
    holding: Holding,
    /// From which number on nothing of a direction passes any more, original first.
    stopped: [Option<SeqNum>; 2],
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
    shares: ControlShares,
    /// Control sessions by their ends, for what they announce.
    parents: DashMap<SessionEnds, Parent, ahash::RandomState>,
    /// Announced sessions that have come, with the sessions that announced them.
    children: DashMap<SessionId, Child, ahash::RandomState>,
    children_len: AtomicUsize,
    /// How many live children a session has, where it has any.
    families: DashMap<SessionId, u32, ahash::RandomState>,
    expectations: ExpectationTable,
    counts: EventCounts,
}

/// Keeps expectations and counts, and notes what stops whom.
struct Attentive<'a> {
    table: TableSink<'a>,
    /// What is refused or not read stops its sender.
    stops: bool,
    /// Who is stopped, original first.
    refused: [bool; 2],
}

impl HelperSink for Attentive<'_> {
    fn event(&mut self, event: HelperEvent, from: Direction) {
        let [original, reply] = &mut self.refused;
        let refused = match from {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        *refused |= self.stops && (event.is_refusal() || event.is_unread());
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

/// Whether a segment brings data to its receiver, or something that changes what it reads.
fn carries(segment: &Segment, payload: Option<&[u8]>) -> bool {
    let is_reset = segment.flags.contains(TcpFlags::RST);
    !is_reset && (payload.is_none() || segment.payload_len > 0 || segment.flags.contains(TcpFlags::URG))
}

/// Whether urgent data are nothing but TELNET commands, as clients send them before ABOR (RFC 959, section 4.1.3). Which byte
/// a receiver takes out of the stream as the urgent one is its own business: of these none is missed.
fn is_synch(segment: &Segment, payload: &[u8]) -> bool {
    let urgent = u32::from(segment.urgent);
    let commands = payload.iter().all(|byte| *byte >= TELNET_COMMANDS);
    commands && (1..=segment.payload_len).contains(&urgent)
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

    fn part(&self, id: SessionId) -> Option<&Part> {
        self.controls.get(id.number() as usize % PARTS)
    }

    /// A segment of a control session was found right; whether it may pass. Listening begins with the SYN-ACK, so that
    /// nobody but a server that answers takes a place. What was announced does not announce anything itself.
    ///
    /// Where a refused announcement stops its sender, nothing passes that is not read whole and in its place. What cannot be
    /// read at all is dropped and changes nothing here. A segment ahead of a hole passes, but only if it is kept: once the
    /// hole is filled, it is read as well, and if there is anything to refuse in it, what would have filled the hole is
    /// dropped, so that the refused line is never whole at its receiver. What was read and is not acknowledged is kept too:
    /// the receiver may not have got it (too short a time to live, an old timestamp), and must not get anything else instead.
    #[cold]
    #[inline(never)]
    pub(super) fn control(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        direction: Direction,
        (segment, payload): (&Segment, Option<&[u8]>),
        now: Instant,
    ) -> bool {
        let Some(part) = self.part(own.session) else {
            return true;
        };
        let stops = settings.stops(own.rule);
        let mut part = part.lock();
        let has = |flag| segment.flags.contains(flag);
        if has(TcpFlags::SYN) && has(TcpFlags::ACK) && direction == Direction::Reply {
            let known = part.contains_key(&own.session);
            if !known && !self.is_child(own.session) && settings.is_control(slot, own.rule) {
                let mut control = Control::new(Ftp::new(Arc::clone(&settings.rules), ends_of(slot)));
                control.begins(Direction::Original, segment.ack);
                self.listen(&mut part, slot, own, control);
            }
        }
        let Some(listening) = part.get_mut(&own.session) else {
            return !(stops && carries(segment, payload) && self.is_watched(settings, slot, own));
        };
        if has(TcpFlags::RST) {
            if slot.track.state() == State::Close {
                // One that its receiver will challenge has closed nothing.
                self.withdraw_all(listening);
            }
            return true;
        }
        // The data of a SYN may be discarded by its receiver, and then come again: it is not read.
        let seq = if has(TcpFlags::SYN) {
            first_byte(segment.seq)
        } else {
            segment.seq
        };
        let end = seq.add(segment.payload_len);
        let [original, reply] = listening.stopped;
        let stopped = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        if stopped.is_some_and(|from| payload.is_none() || end.after(from)) {
            return false;
        }
        if stops && !self.can_be_read(listening, (segment, payload)) {
            return false;
        }
        let is_whole = payload.is_some();
        let payload = payload.filter(|_| !has(TcpFlags::SYN)).unwrap_or_default();
        let control = &mut listening.control;
        if has(TcpFlags::SYN) {
            control.begins(direction, seq);
        }
        let heard = Heard {
            seq,
            ack: has(TcpFlags::ACK).then_some(SeqNum(segment.ack.0)),
            payload,
            fin: has(TcpFlags::FIN) && is_whole,
        };
        let mut sink = Attentive {
            table: TableSink {
                table: &self.expectations,
                counts: &self.counts,
                now,
            },
            stops,
            refused: [false; 2],
        };
        control.helper_mut().set_guarded(stops);
        let mut passes = true;
        if stops {
            let opposite = control.stream(direction.opposite()).next();
            if !control.guarded_segment(direction, &heard, &mut sink) {
                self.shares.fit(&mut listening.holding, control.memory());
                return false;
            }
            let [original, reply] = sink.refused;
            let (own, peer) = match direction {
                Direction::Original => (original, reply),
                Direction::Reply => (reply, original),
            };
            passes = !own && !control.stream(direction).is_too_long();
            let stop = if passes { None } else { Some(seq) };
            // Found by what this segment acknowledges: the other end has said it, from where it was not read.
            let stop_peer = if peer { opposite } else { None };
            let (from_original, from_reply) = match direction {
                Direction::Original => (stop, stop_peer),
                Direction::Reply => (stop_peer, stop),
            };
            let [original, reply] = &mut listening.stopped;
            *original = original.or(from_original);
            *reply = reply.or(from_reply);
            if !passes || peer {
                self.withdraw_all(listening);
            }
        } else {
            control.segment(direction, &heard, &mut sink);
        }
        if !matches!(
            slot.track.state(),
            State::SynSent | State::SynSent2 | State::SynRecv | State::Established
        ) {
            // An end has said its last word: no data will follow.
            self.withdraw_all(listening);
        }
        if !self.account(listening, stops)
            && let Some(listening) = part.remove(&own.session)
        {
            self.counts.count(HelperEvent::NotHeard);
            self.dismiss(listening, own.session, slot);
        }
        passes
    }

    /// Whether a segment may pass of which nobody reads the data: its numbers are wrong and it is let pass nevertheless.
    #[cold]
    #[inline(never)]
    pub(super) fn may_pass_unread(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        (segment, payload): (&Segment, Option<&[u8]>),
    ) -> bool {
        if !settings.stops(own.rule) || !carries(segment, payload) {
            return true;
        }
        let Some(part) = self.part(own.session) else {
            return true;
        };
        match part.lock().get(&own.session) {
            Some(listening) => listening.control.helper().is_encrypted(),
            None => !self.is_watched(settings, slot, own),
        }
    }

    /// Whether the data of a segment are at hand, in order and no surprise to a line's reader, and there is memory for them.
    fn can_be_read(&self, listening: &mut Listening, (segment, payload): (&Segment, Option<&[u8]>)) -> bool {
        let helper = listening.control.helper();
        if helper.is_opaque() {
            return helper.is_encrypted() || !carries(segment, payload);
        }
        let Some(payload) = payload.filter(|payload| payload.len() as u64 == u64::from(segment.payload_len))
        else {
            return false;
        };
        if segment.flags.contains(TcpFlags::URG) && !is_synch(segment, payload) {
            return false;
        }
        // The most that its buffers grow by.
        let memory = payload.len().saturating_mul(2);
        payload.is_empty()
            || !segment.flags.contains(TcpFlags::SYN) && self.shares.extend(&mut listening.holding, memory)
    }

    /// Whether a session is one that should be listened to.
    fn is_watched(&self, settings: &FtpSettings, slot: &Slot, own: Parent) -> bool {
        settings.is_control(slot, own.rule) && self.parent_of(own.session).is_none()
    }

    /// Nothing that a control session has announced comes any more.
    fn withdraw_all(&self, listening: &mut Listening) {
        let helper = listening.control.helper_mut();
        helper.forget_announced();
        self.expectations.withdraw(helper.session());
    }

    /// Brings the memory that a control session takes up to date. One that takes more than its
    /// share sheds what waits for missing segments; `false` if that is not enough. One that nothing
    /// may pass unread sheds nothing: what waits there has passed.
    fn account(&self, listening: &mut Listening, stops: bool) -> bool {
        let Listening { control, holding, .. } = listening;
        if self.shares.fit(holding, control.memory()) || stops {
            return true;
        }
        control.shed();
        self.shares.fit(holding, control.memory())
    }

    /// Begins to listen to a session.
    fn listen(
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
            encrypted: control.helper().is_encrypted(),
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
        let helper = match saved.lines {
            _ if saved.encrypted => Ftp::encrypted(rules, ends),
            Some(_) if saved.at_rest => Ftp::at_rest(rules, ends),
            Some(_) => Ftp::unpaired(rules, ends),
            None => Ftp::new(rules, ends),
        };
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
    fn dismiss(&self, listening: Listening, id: SessionId, slot: &Slot) {
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

    /// A control session is under another rule from now on, and so is what it announces; with other rules of its helper.
    pub(super) fn under_rule(&self, own: Parent, slot: &Slot, settings: &FtpSettings) {
        if self.controls() == 0 {
            return;
        }
        if !settings.is_control(slot, own.rule) {
            self.stop_listening(own.session, slot);
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
        self.shares.memory()
    }

    /// Control sessions that are listened to.
    pub(super) fn controls(&self) -> usize {
        self.shares.controls()
    }
}
