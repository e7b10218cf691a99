//! The window: which sequence and acknowledgment numbers fit a connection, seen from the middle.
//!
//! The method is Guido van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2001) with
//! the refinements of Linux conntrack. For each end, the tracker keeps the numbers that it has sent
//! and allowed ([`Peer`]). A segment from *sender* to *receiver* with the numbers `seq`, `end`
//! (`seq` plus its length), `ack` and `sack` (the highest edge of its SACK blocks, or `ack`) must
//! satisfy four bounds:
//!
//! - **I** `seq <= sender.max_end`: no byte past the receiver's limit.
//! - **II**  `end >= sender.end - receiver.max_window`: not older than a window before the sent
//!   data.
//! - **III** `sack <= receiver.end`: nothing is acknowledged that was never sent.
//! - **IV**  `sack >= receiver.end - max(sender.max_window, 66000)`: no acknowledgment older than a
//!   window.
//!
//! I and III are strict: a segment that breaks one is invalid. A segment that breaks II or IV is
//! old: the receiver discards it and answers, and a sender whose ACK was lost needs that answer. So
//! the segment passes and carries no new information. The exception is the first ACK of an end: one
//! below IV acknowledges data that was never sent, and is invalid.

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

use crate::packet::{Segment, SeqNum, TcpFlags};

/// Minimum distance by which an acknowledgment may be old (bound IV), in bytes; the value of Linux.
pub const MIN_ACK_WINDOW: u32 = 66_000;

/// Numbers that one end of a connection has sent and allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
#[repr(C)]
pub struct Peer {
    /// The end of the furthest sent segment: the next new byte.
    pub end: SeqNum,
    /// The furthest byte that the other end has allowed, plus one.
    pub max_end: SeqNum,
    /// The largest offered window, scaled; 0 before the first segment.
    pub max_window: u32,
    /// The highest sent acknowledgment number: the exact sequence number that the end expects next.
    /// Before the first one ([`PeerFlags::MAX_ACK_KNOWN`] is clear), the least possible one: the
    /// number after the SYN flag of the other end.
    pub max_ack: SeqNum,
}

/// Options of a peer's SYN, and its later behavior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerFlags(pub(super) u8);

impl PeerFlags {
    /// The peer's SYN carried a window scale.
    pub const WINDOW_SCALE: Self = Self(0x01);
    /// The peer's SYN permitted SACK.
    pub const SACK_PERMITTED: Self = Self(0x02);
    /// The peer was the first to send a FIN.
    pub const CLOSE_INITIATOR: Self = Self(0x04);
    /// The peer has sent data that the other end has not acknowledged yet.
    pub const DATA_UNACKNOWLEDGED: Self = Self(0x08);
    /// The peer has sent an acknowledgment number.
    pub const MAX_ACK_KNOWN: Self = Self(0x10);

    /// The bits that belong to an end; the rest of the byte belongs to the connection.
    pub(super) const MASK: u8 = 0x1f;

    /// Returns whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// One end while a segment is judged: its numbers, its flags and its scale, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// The numbers.
    pub peer: Peer,
    /// The flags.
    pub flags: PeerFlags,
    /// The shift of its window, 0 to 14.
    pub scale: u8,
}

/// The four bounds of the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// I: `seq <= sender.max_end`.
    SeqUpper,
    /// II: `end >= sender.end - receiver.max_window`.
    SeqLower,
    /// III: `sack <= receiver.end`.
    AckUpper,
    /// IV: `sack >= receiver.end - max(sender.max_window, 66000)`.
    AckLower,
}

impl Bound {
    /// Returns the inequality as text.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::SeqUpper => "I: seq <= the last byte that the receiver allows",
            Self::SeqLower => "II: end >= the oldest byte still in the receiver's window",
            Self::AckUpper => "III: (s)ack <= the last byte that the receiver has sent",
            Self::AckLower => "IV: (s)ack >= the oldest acknowledgment that may still arrive",
        }
    }
}

/// Check of one bound: the packet's number, the limit, and whether the bound held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundCheck {
    /// The inequality.
    pub bound: Bound,
    /// The packet's number.
    pub value: SeqNum,
    /// The limit of the comparison.
    pub limit: SeqNum,
    /// Whether it held.
    pub holds: bool,
}

/// Result of the window check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowVerdict {
    /// The segment fits; the two sides were updated.
    Fits,
    /// The segment passes, but carries no new information: it is too old (II, IV), or slightly
    /// exceeds the window (I).
    Passes(Bound),
    /// The segment breaks bound I or III.
    Breaks(Bound),
}

/// Returns the length that a segment takes in sequence space: its data, plus one each for SYN and
/// FIN.
#[must_use]
pub fn sequence_len(segment: &Segment) -> u32 {
    segment
        .payload_len
        .wrapping_add(u32::from(segment.flags.contains(TcpFlags::SYN)))
        .wrapping_add(u32::from(segment.flags.contains(TcpFlags::FIN)))
}

impl Side {
    /// Returns a side after its SYN or SYN-ACK.
    #[must_use]
    pub fn from_syn(segment: &Segment) -> Self {
        let end = segment.seq.add(sequence_len(segment));
        let mut side = Self {
            // The window of a SYN is never scaled (RFC 7323 2.2).
            peer: Peer {
                end,
                max_end: end,
                max_window: u32::from(segment.window).max(1),
                max_ack: SeqNum(0),
            },
            flags: PeerFlags::default(),
            scale: 0,
        };
        if let Some(scale) = segment.options.window_scale {
            side.scale = scale;
            side.flags.set(PeerFlags::WINDOW_SCALE);
        }
        if segment.options.sack_permitted {
            side.flags.set(PeerFlags::SACK_PERMITTED);
        }
        side
    }
}

impl Side {
    /// Returns an end after its SYN or SYN-ACK. The window of the other end's SYN is an offer: a
    /// Fast Open server sends data before any other acknowledgment comes (RFC 7413 4.2.2).
    fn answering(segment: &Segment, least_ack: SeqNum, offered: u32) -> Self {
        let mut side = Self::from_syn(segment);
        side.peer.max_ack = least_ack;
        let allowed = segment.seq.add(1).add(offered);
        if allowed.after(side.peer.max_end) {
            side.peer.max_end = allowed;
        }
        side
    }
}

/// Records more data of a segment that has passed: its end moves from `from` to `to`, since a later
/// IP fragment of it has arrived. The effect on both sides is that of one segment of that length.
pub fn extend(sender: &mut Side, receiver: &mut Side, from: SeqNum, to: SeqNum) {
    if receiver.peer.max_window == 0 {
        // Like in a SYN: the other end has not allowed anything yet.
        if to.after(sender.peer.max_end) {
            sender.peer.max_end = to;
        }
    } else if to.after(sender.peer.max_end) {
        let counted = if from.after(sender.peer.max_end) {
            from
        } else {
            sender.peer.max_end
        };
        receiver.peer.max_window = receiver
            .peer
            .max_window
            .saturating_add(to.distance_from(counted));
    }
    if to.after(sender.peer.end) {
        sender.peer.end = to;
        sender.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
    }
}

/// Stage of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// No SYN-ACK has passed yet: the SYN of an end has no more weight than its SYN-ACK, whose
    /// acknowledgment proves that its sender has received the other end's SYN.
    pub opening: bool,
    /// The connection is tracked from its SYN, so [`Peer::max_ack`] is meaningful from the start.
    pub followed: bool,
}

/// Checks a segment against the four bounds and updates both sides if the segment fits.
///
/// A segment whose verdict is [`WindowVerdict::Breaks`] changes nothing. One that only passes may
/// still move the end of the sender's data, since the receiver may accept them. Every check is
/// reported to `seen`.
pub fn check(
    sender: &mut Side,
    receiver: &mut Side,
    segment: &Segment,
    stage: Stage,
    seen: impl FnMut(BoundCheck),
) -> WindowVerdict {
    let mut sides = Sides {
        tx: *sender,
        rx: *receiver,
    };
    let mut numbers = Numbers::of(segment, sides.rx.flags);
    // The first acknowledgment of a peer covers at least the SYN of the other peer.
    let is_first_ack = stage.followed
        && numbers.has_ack
        && !numbers.is_rst
        && !sides.tx.flags.contains(PeerFlags::MAX_ACK_KNOWN);
    let least_ack = is_first_ack.then_some(sides.tx.peer.max_ack);
    let opening = sides.begin(segment, &numbers, stage);
    if opening == Opening::NothingToCompare {
        (*sender, *receiver) = (sides.tx, sides.rx);
        return WindowVerdict::Fits;
    }
    if !numbers.has_ack {
        // Without the flag, the acknowledgment number is meaningless (RFC 9293 3.1). The bounds
        // treat it as exact.
        numbers.ack = sides.rx.peer.end;
        numbers.sack = numbers.ack;
    }
    let holds = sides.compare(&numbers, least_ack, seen);
    if !holds.seq_upper {
        if !sides.may_overshoot(&numbers, holds) {
            return WindowVerdict::Breaks(Bound::SeqUpper);
        }
        sides.tx.peer.end = numbers.end;
        sides.tx.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
        (*sender, *receiver) = (sides.tx, sides.rx);
        return WindowVerdict::Passes(Bound::SeqUpper);
    }
    if !holds.ack_upper {
        return WindowVerdict::Breaks(Bound::AckUpper);
    }
    if !holds.seq_lower {
        return WindowVerdict::Passes(Bound::SeqLower);
    }
    if !holds.ack_lower {
        if is_first_ack {
            // This acknowledgment is not old: it covers data that was never sent
            // (RFC 9293 3.10.7.3 and 3.10.7.4).
            return WindowVerdict::Breaks(Bound::AckLower);
        }
        if sides.has_usable_data(&numbers) {
            sender.peer.end = numbers.end;
            sender.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
        }
        return WindowVerdict::Passes(Bound::AckLower);
    }
    // A RST carries no information about data or windows.
    if !numbers.is_rst {
        sides.update(segment, &numbers);
        (*sender, *receiver) = (sides.tx, sides.rx);
    }
    WindowVerdict::Fits
}

/// Numbers of one segment that the bounds compare.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    seq: SeqNum,
    /// `seq` plus the length in sequence space.
    end: SeqNum,
    ack: SeqNum,
    /// Highest edge of the SACK blocks, or `ack`.
    sack: SeqNum,
    has_ack: bool,
    is_syn: bool,
    is_rst: bool,
}

impl Numbers {
    /// Reads the numbers of a segment; SACK blocks count if the receiver has permitted them.
    #[inline(always)]
    fn of(segment: &Segment, receiver: PeerFlags) -> Self {
        let flags = segment.flags;
        let has_ack = flags.contains(TcpFlags::ACK);
        let ack = segment.ack;
        let mut sack = ack;
        if has_ack && receiver.contains(PeerFlags::SACK_PERMITTED) {
            let blocks = segment.options.sack.iter();
            // The left edge precedes the right edge, so it is the higher one only in an invalid
            // block.
            for edge in blocks.flat_map(|(left, right)| [left, right]) {
                if edge.after(sack) {
                    sack = edge;
                }
            }
        }
        Self {
            seq: segment.seq,
            end: segment.seq.add(sequence_len(segment)),
            ack,
            sack,
            has_ack,
            is_syn: flags.contains(TcpFlags::SYN),
            is_rst: flags.contains(TcpFlags::RST),
        }
    }
}

/// Result of [`Sides::begin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// The bounds apply to the segment.
    Compare,
    /// The segment is a SYN without an acknowledgment: no bound applies.
    NothingToCompare,
}

/// Bounds that hold for a segment.
#[derive(Debug, Clone, Copy)]
struct Holds {
    seq_upper: bool,
    seq_lower: bool,
    ack_upper: bool,
    ack_lower: bool,
}

/// Sides of a connection while a segment is checked. The caller stores them if the segment counts.
///
/// The methods are inlined into [`check`], which runs once for every TCP segment.
#[derive(Debug, Clone, Copy)]
struct Sides {
    /// The sender of the segment.
    tx: Side,
    /// The receiver of the segment.
    rx: Side,
}

impl Sides {
    /// Initializes the sides from a SYN, or from the first segment of a sender whose history is
    /// unknown.
    #[inline(always)]
    fn begin(&mut self, segment: &Segment, numbers: &Numbers, stage: Stage) -> Opening {
        let (tx, rx) = (&mut self.tx, &mut self.rx);
        let is_first = tx.peer.max_window == 0;
        if numbers.is_syn && (is_first || stage.opening) {
            // A retransmission of the sender's SYN, possibly without the data of the first copy.
            let repeats = !is_first && segment.seq.add(1) == rx.peer.max_ack;
            let sent = tx.peer.end;
            *tx = Side::answering(segment, tx.peer.max_ack, rx.peer.max_window);
            if repeats && sent.after(tx.peer.end) {
                tx.peer.end = sent;
                if sent.after(tx.peer.max_end) {
                    tx.peer.max_end = sent;
                }
            }
            if !rx.flags.contains(PeerFlags::MAX_ACK_KNOWN) {
                rx.peer.max_ack = segment.seq.add(1);
            }
            if !numbers.has_ack {
                // Simultaneous open: a SYN alone has nothing to compare with.
                return Opening::NothingToCompare;
            }
        } else if is_first {
            // The sender's history is unknown: trust the numbers of this segment.
            let window = (u32::from(segment.window) << tx.scale).max(1);
            tx.peer.end = numbers.end;
            tx.peer.max_window = window;
            tx.peer.max_end = numbers.end.add(window);
            if rx.peer.max_window == 0 {
                rx.peer.end = numbers.sack;
                rx.peer.max_end = numbers.sack;
            } else if numbers.sack == rx.peer.end.add(1) {
                // The answer to a keepalive that did not pass here.
                rx.peer.end = numbers.sack;
            }
        }
        let both_scale = tx.flags.contains(PeerFlags::WINDOW_SCALE)
            && rx.flags.contains(PeerFlags::WINDOW_SCALE);
        if numbers.is_syn && numbers.has_ack && !both_scale {
            // RFC 7323 1.3: the scale applies only if both SYNs carried it.
            tx.scale = 0;
            rx.scale = 0;
        }
        Opening::Compare
    }

    /// Compares the numbers with the four bounds and reports each comparison to `seen`.
    #[inline(always)]
    fn compare(
        &self,
        numbers: &Numbers,
        least_ack: Option<SeqNum>,
        mut seen: impl FnMut(BoundCheck),
    ) -> Holds {
        let Numbers {
            seq,
            end,
            ack,
            sack,
            ..
        } = *numbers;
        let (tx, rx) = (&self.tx.peer, &self.rx.peer);
        let mut report = |bound, value, limit, holds| {
            seen(BoundCheck {
                bound,
                value,
                limit,
                holds,
            });
            holds
        };
        // I
        let seq_upper = report(Bound::SeqUpper, seq, tx.max_end, !seq.after(tx.max_end));
        // II
        let oldest = tx.end.sub(rx.max_window);
        let is_recent = rx.max_window == 0 || !end.before(oldest);
        let seq_lower = report(Bound::SeqLower, end, oldest, is_recent);
        // III
        // The acknowledgment is compared as well: an edge may lie so far away that each number is
        // before the other one on the circle of sequence numbers.
        let highest = if ack.after(rx.end) { ack } else { sack };
        let ack_upper = report(Bound::AckUpper, highest, rx.end, !highest.after(rx.end));
        // IV
        let (latest, oldest_ack) = match least_ack {
            Some(least) => (ack, least),
            None => (sack, rx.end.sub(self.ack_window())),
        };
        let ack_lower = report(
            Bound::AckLower,
            latest,
            oldest_ack,
            !latest.before(oldest_ack),
        );
        Holds {
            seq_upper,
            seq_lower,
            ack_upper,
            ack_lower,
        }
    }

    /// Returns the distance by which an acknowledgment may be old (bound IV), in bytes.
    #[inline(always)]
    fn ack_window(&self) -> u32 {
        self.tx.peer.max_window.max(MIN_ACK_WINDOW)
    }

    /// Returns whether a segment that breaks only bound I exceeds the offered window by less than
    /// a window.
    ///
    /// The receiver may accept such data. If so, its ACK must not look like one for data that was
    /// never sent.
    #[inline(always)]
    fn may_overshoot(&self, numbers: &Numbers, holds: Holds) -> bool {
        let overshot = numbers
            .end
            .distance_from(self.tx.peer.max_end)
            .wrapping_add(1);
        !numbers.is_rst
            && !numbers.is_syn
            && holds.seq_lower
            && holds.ack_upper
            && holds.ack_lower
            && self.rx.peer.max_window != 0
            && overshot <= self.rx.peer.max_window
    }

    /// Returns whether a segment with an old acknowledgment carries data that the receiver
    /// acknowledges.
    ///
    /// More than two windows away, the receiver discards the data as well (RFC 5961 5.2), like
    /// those of a blind attacker.
    #[inline(always)]
    fn has_usable_data(&self, numbers: &Numbers) -> bool {
        let is_near = self.rx.peer.end.distance_from(numbers.sack) / 2 <= self.ack_window();
        is_near && !numbers.is_rst && numbers.end.after(self.tx.peer.end)
    }

    /// Updates both sides by a segment within all bounds.
    #[inline(always)]
    fn update(&mut self, segment: &Segment, numbers: &Numbers) {
        let Numbers { end, ack, sack, .. } = *numbers;
        let (tx, rx) = (&mut self.tx, &mut self.rx);
        let window = u32::from(segment.window) << if numbers.is_syn { 0 } else { tx.scale };
        // The sender's own numbers.
        tx.peer.max_window = tx
            .peer
            .max_window
            .max(window.wrapping_add(sack.distance_from(ack)));
        if end.after(tx.peer.end) {
            tx.peer.end = end;
            tx.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
        }
        let is_new_ack = !tx.flags.contains(PeerFlags::MAX_ACK_KNOWN) || ack.after(tx.peer.max_ack);
        if numbers.has_ack && is_new_ack {
            tx.peer.max_ack = ack;
            tx.flags.set(PeerFlags::MAX_ACK_KNOWN);
        }
        // The window that the sender allows the receiver.
        if rx.peer.max_window != 0 && end.after(tx.peer.max_end) {
            rx.peer.max_window = rx
                .peer
                .max_window
                .wrapping_add(end.distance_from(tx.peer.max_end));
        }
        let allowed = sack.add(window);
        if !allowed.before(rx.peer.max_end) {
            // A closed window still admits the one byte of a probe (RFC 9293 3.8.6.1).
            rx.peer.max_end = allowed.add(u32::from(window == 0));
        }
        if ack == rx.peer.end {
            rx.flags.clear(PeerFlags::DATA_UNACKNOWLEDGED);
        }
    }
}
