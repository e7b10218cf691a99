//! A session's memory: two cache lines for the fields that every packet needs, and a quarter of one
//! for rarely used fields.

use super::EndReason;
use crate::flow::{Direction, End, FlowKey, PerDirection};
use crate::limits::Counts;
use crate::packet::{
    PROTOCOL_AH, PROTOCOL_DCCP, PROTOCOL_ESP, PROTOCOL_GRE, PROTOCOL_SCTP, PROTOCOL_TCP,
};
use crate::session::history::{History, Letter};
use crate::session::time::Micros;
use crate::track::datagram::{self, Family};
use crate::track::tcp::{State, Track};
use crate::track::{EvictionClass, Lifetime, dccp, sctp};

/// No slot.
pub(crate) const NIL: u32 = u32::MAX;

/// The fields of a session that every packet reads and writes: 128 bytes. The first cache line
/// finds, times and links the session; the second tracks and counts it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) key: FlowKey,
    /// The tick at which the session has ended.
    pub(crate) deadline: u32,
    /// Number of times that this slot was taken: distinguishes sessions of one slot.
    pub(crate) generation: u32,
    last: U48,
    flags: u8,
    /// Lifetime profile of the session.
    pub(crate) profile: u8,
    pub(crate) links: Links,
    /// TCP's state. Other protocols have their state in the same field: [`Slot::sctp`],
    /// [`Slot::dccp`] and [`Slot::tunnel_id`]; protocols without a handshake have theirs in
    /// [`Slot::plain_state`].
    pub(crate) track: Track,
    packets: PerDirection<u32>,
    bytes: PerDirection<U48>,
}

const _: () = assert!(size_of::<Slot>() == 128);

/// A place in a list of the wheel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Links {
    /// The next slot, or the list that this slot is the last of ([`super::wheel`]).
    pub(crate) next: u32,
    /// The previous slot, or the list that this slot is the first of.
    pub(crate) previous: u32,
}

/// The fields that are needed when a session begins, ends or is shown: 16 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Cold {
    /// The history in the lower seven bytes, [`Mark`]s in the highest.
    packed: u64,
    start: U48,
    /// The rule that admitted the session.
    pub(crate) rule: u16,
}

const _: () = assert!(size_of::<Cold>() == 16);

/// Rare properties of sessions that few packets need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// The session was adopted midstream.
    Adopted = 0x01,
    /// The session continues one that had ended.
    Resumed = 0x02,
    /// The session's path was found to be asymmetric, and its packets are allowed nevertheless.
    Bypassed = 0x04,
    /// A reload has brought a policy that would not admit the session, and `policy.on_reload` keeps
    /// it.
    NoLongerAdmitted = 0x08,
    /// Some packets of the session were not tracked: it was restored from a record, or packets were
    /// allowed but not trusted. Not saved.
    Stale = 0x10,
    /// The session is counted by its destination. Not saved.
    CountedByDestination = 0x20,
    /// The session is counted by its source and destination under its rule. Not saved.
    CountedByRule = 0x40,
}

/// Position of the marks.
const MARKS_SHIFT: u32 = 56;

/// Protocols that keep their state in TCP's field.
pub(crate) const PROTOCOLS_WITH_TRACKS: [u8; 5] = [
    PROTOCOL_SCTP,
    PROTOCOL_DCCP,
    PROTOCOL_GRE,
    PROTOCOL_ESP,
    PROTOCOL_AH,
];

const HIGH_INITIATES: u8 = 0x01;
const SEEN_REPLY: u8 = 0x02;
const ASSURED: u8 = 0x04;
/// Two bits. For TCP: the history has the letter of a pure ACK, original and reply. For other
/// protocols: [`crate::track::datagram::State`].
const PLAIN_STATE_SHIFT: u8 = 3;
const ACK_NOTED: u8 = 1 << PLAIN_STATE_SHIFT;
/// Two bits: the history has the letter of data, original and reply.
const DATA_NOTED: u8 = 0x20;
const IN_USE: u8 = 0x80;

/// A number of 48 bits. Its two parts are read and written with one instruction each.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct U48 {
    low: [u8; 4],
    high: [u8; 2],
}

impl U48 {
    /// Returns the lower 48 bits of a number.
    #[inline(always)]
    const fn of(number: u64) -> Self {
        Self {
            low: (number as u32).to_le_bytes(),
            high: ((number >> 32) as u16).to_le_bytes(),
        }
    }

    #[inline(always)]
    const fn get(self) -> u64 {
        u32::from_le_bytes(self.low) as u64 | (u16::from_le_bytes(self.high) as u64) << 32
    }
}

impl Slot {
    /// Returns a slot that was never used.
    pub(crate) fn new(key: FlowKey) -> Self {
        Self {
            key,
            deadline: 0,
            generation: 0,
            last: U48::of(0),
            flags: 0,
            profile: 0,
            links: Links {
                next: NIL,
                previous: NIL,
            },
            track: Track::default(),
            packets: PerDirection::default(),
            bytes: PerDirection::default(),
        }
    }

    /// Takes the slot for a new session.
    pub(crate) fn occupy(&mut self, key: FlowKey, initiator: End, now: Micros, profile: u8) {
        *self = Self {
            generation: self.generation.wrapping_add(1).max(1),
            profile,
            flags: IN_USE
                | if initiator == End::High {
                    HIGH_INITIATES
                } else {
                    0
                },
            last: U48::of(now.0),
            ..Self::new(key)
        };
    }

    /// Returns the flags that are saved with a session: all but those that belong to its place
    /// here.
    pub(crate) const fn saved_flags(&self) -> u8 {
        self.flags & !(HIGH_INITIATES | IN_USE)
    }

    /// Sets the saved fields of a session.
    pub(crate) fn restore(&mut self, flags: u8, packets: [u32; 2], bytes: [u64; 2]) {
        self.flags = self.flags & (HIGH_INITIATES | IN_USE) | flags & !(HIGH_INITIATES | IN_USE);
        self.packets = PerDirection(packets);
        self.bytes = PerDirection(bytes.map(|bytes| U48::of(bytes.min(Micros::MAX.0))));
    }

    /// Copies a saved session into the slot that was taken for it.
    pub(crate) fn take_over(&mut self, saved: &Self) {
        *self = Self {
            generation: self.generation,
            profile: self.profile,
            links: self.links,
            ..*saved
        };
    }

    pub(crate) fn vacate(&mut self) {
        self.flags = 0;
    }

    pub(crate) const fn in_use(&self) -> bool {
        self.flags & IN_USE != 0
    }

    pub(crate) const fn initiator(&self) -> End {
        if self.flags & HIGH_INITIATES == 0 {
            End::Low
        } else {
            End::High
        }
    }

    pub(crate) fn direction_of(&self, source: End) -> Direction {
        if source == self.initiator() {
            Direction::Original
        } else {
            Direction::Reply
        }
    }

    pub(crate) const fn seen_reply(&self) -> bool {
        self.flags & SEEN_REPLY != 0
    }

    pub(crate) const fn set_seen_reply(&mut self) {
        self.flags |= SEEN_REPLY;
    }

    pub(crate) const fn assured(&self) -> bool {
        self.flags & ASSURED != 0
    }

    pub(crate) const fn set_assured(&mut self) {
        self.flags |= ASSURED;
    }

    /// Returns whether a TCP session has been answered and is assured, and its history has the
    /// letter of a segment with or without data.
    #[inline(always)]
    pub(crate) const fn may_continue(&self, has_data: bool, direction: Direction) -> bool {
        let first = if has_data { DATA_NOTED } else { ACK_NOTED };
        let wanted = first << direction as u8 | SEEN_REPLY | ASSURED;
        self.flags & wanted == wanted
    }

    pub(crate) const fn plain_state(&self) -> u8 {
        self.flags >> PLAIN_STATE_SHIFT & 3
    }

    pub(crate) const fn set_plain_state(&mut self, state: u8) {
        self.flags = self.flags & !(3 << PLAIN_STATE_SHIFT) | (state & 3) << PLAIN_STATE_SHIFT;
    }

    /// Returns the state of an SCTP association.
    pub(crate) const fn sctp(&self) -> sctp::Track {
        let [a, b, c, d, e, ..] = self.track.words();
        sctp::Track::from_words([a, b, c, d, e])
    }

    pub(crate) const fn set_sctp(&mut self, track: sctp::Track) {
        let [a, b, c, d, e] = track.to_words();
        self.track = Track::from_words([a, b, c, d, e, 0, 0, 0]);
    }

    /// Returns the state of a DCCP connection.
    pub(crate) const fn dccp(&self) -> dccp::Track {
        dccp::Track::from_words(self.track.words())
    }

    pub(crate) const fn set_dccp(&mut self, track: dccp::Track) {
        self.track = Track::from_words(track.to_words());
    }

    /// Returns the tunnel identifier in the first packet of a direction. Not for a protocol that
    /// keeps a state in this field.
    pub(crate) const fn tunnel_id(&self, direction: Direction) -> Option<u32> {
        let [original, reply, known, ..] = self.track.words();
        if known & 1 << direction as u8 == 0 {
            return None;
        }
        Some(match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        })
    }

    /// Notes the identifier of a tunnel at its first appearance in a direction.
    pub(crate) const fn note_tunnel_id(&mut self, direction: Direction, id: u32) {
        let [mut original, mut reply, known, ..] = self.track.words();
        if known & 1 << direction as u8 != 0 {
            return;
        }
        match direction {
            Direction::Original => original = id,
            Direction::Reply => reply = id,
        }
        self.track =
            Track::from_words([original, reply, known | 1 << direction as u8, 0, 0, 0, 0, 0]);
    }

    /// Returns the name of the session's state.
    pub(crate) const fn state_name(&self) -> &'static str {
        match self.key.protocol() {
            PROTOCOL_TCP => self.track.state().name(),
            PROTOCOL_SCTP => self.sctp().state().name(),
            PROTOCOL_DCCP => self.dccp().state().name(),
            _ => datagram::State::from_bits(self.plain_state()).name(),
        }
    }

    /// Returns the number of the session's state among the states of its protocol.
    pub(crate) const fn state_number(&self) -> u8 {
        match self.key.protocol() {
            PROTOCOL_TCP => self.track.state() as u8,
            PROTOCOL_SCTP => self.sctp().state() as u8,
            PROTOCOL_DCCP => self.dccp().state() as u8,
            _ => self.plain_state(),
        }
    }

    /// Returns the lifetime of the session after its last packet that counted.
    pub(crate) fn lifetime(&self) -> Lifetime {
        match self.key.protocol() {
            PROTOCOL_TCP => self.track.lifetime(self.seen_reply()),
            PROTOCOL_SCTP => Lifetime::of(self.sctp().state().lifetime()),
            PROTOCOL_DCCP => Lifetime::of(self.dccp().state().lifetime()),
            protocol => datagram::lifetime(
                Family::of(protocol),
                datagram::State::from_bits(self.plain_state()),
            ),
        }
    }

    /// Returns the eviction class of the session, which is also the list of the wheel that contains
    /// it.
    pub(crate) fn eviction_class(&self) -> EvictionClass {
        match self.key.protocol() {
            PROTOCOL_TCP => match self.track.state().eviction_class() {
                // Adopted midstream, and not answered yet.
                EvictionClass::Assured if !self.assured() => EvictionClass::Embryonic,
                class => class,
            },
            PROTOCOL_SCTP => self.sctp().state().eviction_class(),
            PROTOCOL_DCCP => self.dccp().state().eviction_class(),
            _ => datagram::eviction_class(datagram::State::from_bits(self.plain_state())),
        }
    }

    /// Returns whether a new session may take the place of this one in a full table.
    pub(crate) fn is_evictable(&self, now: Micros) -> bool {
        let idle = now.since(self.last());
        match self.eviction_class() {
            EvictionClass::Embryonic => true,
            EvictionClass::Closing => {
                let is_half_closed = self.key.protocol() == PROTOCOL_TCP
                    && matches!(self.track.state(), State::FinWait | State::CloseWait);
                !is_half_closed || idle >= EvictionClass::HALF_CLOSED_GRACE
            }
            EvictionClass::Datagram => {
                let is_stream = self.plain_state() == datagram::State::Stream as u8;
                !is_stream || idle >= EvictionClass::STREAM_GRACE
            }
            EvictionClass::Assured => false,
        }
    }

    /// Returns the reason for the session's end when its lifetime has passed.
    pub(crate) fn end_of_life(&self) -> EndReason {
        let (over, aborted) = match self.key.protocol() {
            PROTOCOL_TCP => match self.track.state() {
                State::TimeWait => (true, false),
                State::Close => (true, true),
                _ => (false, false),
            },
            PROTOCOL_SCTP => {
                let track = self.sctp();
                (track.state() == sctp::State::Closed, track.is_aborted())
            }
            PROTOCOL_DCCP => {
                let track = self.dccp();
                (track.state() == dccp::State::TimeWait, track.is_aborted())
            }
            _ => (false, false),
        };
        match (over, aborted) {
            (false, _) => EndReason::Timeout,
            (true, false) => EndReason::Closed,
            (true, true) => EndReason::Reset,
        }
    }

    /// Returns whether the history has a letter, as far as this cache line shows. The two letters
    /// of nearly every packet are noted here, so that the cold part is rarely read.
    pub(crate) const fn letter_noted(&self, letter: Letter, direction: Direction) -> bool {
        match letter {
            Letter::Data => self.flags & DATA_NOTED << direction as u8 != 0,
            Letter::Ack => self.flags & ACK_NOTED << direction as u8 != 0,
            _ => false,
        }
    }

    pub(crate) const fn note_letter(&mut self, letter: Letter, direction: Direction) {
        match letter {
            Letter::Data => self.flags |= DATA_NOTED << direction as u8,
            // Only TCP has pure ACKs: the bits are free.
            Letter::Ack => self.flags |= ACK_NOTED << direction as u8,
            _ => {}
        }
    }

    pub(crate) fn last(&self) -> Micros {
        Micros(self.last.get())
    }

    /// Threads may pass slightly different clocks: time never runs backwards in a slot.
    pub(crate) fn touch(&mut self, now: Micros) {
        if now > self.last() {
            self.last = U48::of(now.0);
        }
    }

    /// Counts a packet of `bytes` IP bytes. Packets saturate at 2^32 - 1, bytes at 2^48 - 1
    /// (281 TB).
    #[inline]
    pub(crate) fn count(&mut self, direction: Direction, bytes: u32) {
        let (packets, total) = (&mut self.packets[direction], &mut self.bytes[direction]);
        *packets = packets.saturating_add(1);
        *total = U48::of((total.get() + u64::from(bytes)).min(Micros::MAX.0));
    }

    /// Notes a packet of `bytes` IP bytes that extends the session's life to `deadline`, unless it
    /// lives longer already.
    #[inline(always)]
    pub(crate) fn note_packet(
        &mut self,
        direction: Direction,
        bytes: u32,
        now: Micros,
        deadline: u32,
    ) {
        self.deadline = self.deadline.max(deadline);
        self.count(direction, bytes);
        self.touch(now);
    }

    /// Returns the packets and IP bytes of a direction.
    pub(crate) fn traffic(&self, direction: Direction) -> (u32, u64) {
        (self.packets[direction], self.bytes[direction].get())
    }
}

impl Cold {
    pub(crate) fn new(start: Micros, rule: u16) -> Self {
        Self {
            packed: 0,
            start: U48::of(start.0),
            rule,
        }
    }

    pub(crate) const fn history(&self) -> History {
        History::from_bits(self.packed & ((1 << MARKS_SHIFT) - 1))
    }

    pub(crate) const fn set_history(&mut self, history: History) {
        self.packed = self.packed & !((1 << MARKS_SHIFT) - 1) | history.bits();
    }

    /// Returns the bits of the history and of the marks, as they are saved.
    pub(crate) const fn parts(&self) -> (u64, u8) {
        let unsaved =
            Mark::Stale as u8 | Mark::CountedByDestination as u8 | Mark::CountedByRule as u8;
        let marks = (self.packed >> MARKS_SHIFT) as u8 & !unsaved;
        (self.history().bits(), marks)
    }

    pub(crate) const fn set_parts(&mut self, history: u64, marks: u8) {
        self.packed = history & ((1 << MARKS_SHIFT) - 1) | (marks as u64) << MARKS_SHIFT;
    }

    pub(crate) const fn has(&self, mark: Mark) -> bool {
        self.packed >> MARKS_SHIFT & mark as u64 != 0
    }

    /// Sets a mark if `on` is set; otherwise leaves it unchanged.
    pub(crate) const fn set_if(&mut self, mark: Mark, on: bool) {
        if on {
            self.set(mark, true);
        }
    }

    pub(crate) const fn set(&mut self, mark: Mark, on: bool) {
        let bit = (mark as u64) << MARKS_SHIFT;
        if on {
            self.packed |= bit;
        } else {
            self.packed &= !bit;
        }
    }

    /// Returns the entries that the session is counted in.
    pub(crate) const fn counts(&self) -> Counts {
        Counts {
            destination: self.has(Mark::CountedByDestination),
            of_rule: self.has(Mark::CountedByRule),
        }
    }

    /// Records the entries that the session is counted in.
    pub(crate) const fn set_counts(&mut self, counts: Counts) {
        self.set(Mark::CountedByDestination, counts.destination);
        self.set(Mark::CountedByRule, counts.of_rule);
    }

    pub(crate) fn start(&self) -> Micros {
        Micros(self.start.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_takes_two_cache_lines_and_a_quarter() {
        assert_eq!(size_of::<Slot>(), 128);
        assert_eq!(align_of::<Slot>(), 64);
        assert_eq!(size_of::<Cold>(), 16);
        assert_eq!(
            std::mem::offset_of!(Slot, track),
            64,
            "tracking starts the second line"
        );
    }

    #[test]
    fn counters_saturate_and_time_does_not_run_backwards() {
        let key = crate::session::testing::key(1);
        let mut slot = Slot::new(key);
        slot.occupy(key, End::High, Micros(500), 0);
        slot.touch(Micros(400));
        assert_eq!(slot.last(), Micros(500));
        slot.bytes = PerDirection([U48::of(Micros::MAX.0 - 1); 2]);
        slot.packets = PerDirection([u32::MAX; 2]);
        slot.count(Direction::Reply, 1500);
        assert_eq!(slot.traffic(Direction::Reply), (u32::MAX, Micros::MAX.0));
        assert_eq!(slot.initiator(), End::High);
    }

    #[test]
    fn a_number_of_48_bits_reads_back() {
        for bit in 0..48 {
            for number in [1 << bit, (1 << bit) - 1, Micros::MAX.0 >> bit] {
                assert_eq!(U48::of(number).get(), number);
            }
        }
        assert_eq!(U48::of(u64::MAX).get(), Micros::MAX.0);
    }

    #[test]
    fn a_segment_continues_a_session_with_all_its_flags_only() {
        let key = crate::session::testing::key(1);
        for direction in Direction::BOTH {
            for (letter, has_data) in [(Letter::Data, true), (Letter::Ack, false)] {
                let mut slot = Slot::new(key);
                slot.set_seen_reply();
                slot.set_assured();
                assert!(!slot.may_continue(has_data, direction));
                slot.note_letter(letter, direction);
                assert!(slot.may_continue(has_data, direction));
                assert!(!slot.may_continue(!has_data, direction));
                assert!(!slot.may_continue(has_data, direction.opposite()));
                for flag in [SEEN_REPLY, ASSURED] {
                    slot.flags ^= flag;
                    assert!(!slot.may_continue(has_data, direction));
                    slot.flags ^= flag;
                }
            }
        }
    }

    #[test]
    fn what_stands_in_the_place_of_tcp_reads_back() {
        let key = crate::session::testing::key(1);
        let mut slot = Slot::new(key);
        assert_eq!(slot.tunnel_id(Direction::Original), None);
        slot.note_tunnel_id(Direction::Reply, 0);
        slot.note_tunnel_id(Direction::Reply, 9);
        slot.note_tunnel_id(Direction::Original, u32::MAX);
        assert_eq!(
            slot.tunnel_id(Direction::Reply),
            Some(0),
            "the first counts"
        );
        assert_eq!(slot.tunnel_id(Direction::Original), Some(u32::MAX));
    }

    #[test]
    fn the_flag_fields_do_not_touch_each_other() {
        let key = crate::session::testing::key(1);
        let mut slot = Slot::new(key);
        slot.occupy(key, End::Low, Micros(0), 7);
        for state in 0..4 {
            slot.set_plain_state(state);
            assert_eq!(slot.plain_state(), state);
            assert!(slot.in_use() && !slot.seen_reply() && !slot.assured());
        }
        slot.set_plain_state(0);
        slot.note_letter(Letter::Data, Direction::Reply);
        assert!(slot.letter_noted(Letter::Data, Direction::Reply));
        assert!(!slot.letter_noted(Letter::Data, Direction::Original));
        assert!(!slot.letter_noted(Letter::Ack, Direction::Reply));
        assert_eq!(slot.plain_state(), 0);
    }
}
