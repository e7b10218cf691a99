//! The window: which sequence and acknowledgment numbers fit a connection, seen from the middle.
//!
//! The method is Guido van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2001) with the
//! refinements of Linux conntrack. Of each end we keep what it has sent and what it has allowed ([`Peer`]).
//! A segment from *sender* to *receiver* with the numbers `seq`, `end` (`seq` plus its length), `ack` and
//! `sack` (the highest edge of its SACK blocks, or `ack`) must hold four bounds:
//!
//! - **I**   `seq <= sender.max_end`: no byte beyond what the receiver has allowed.
//! - **II**  `end >= sender.end - receiver.max_window`: not older than a window behind what was sent.
//! - **III** `sack <= receiver.end`: nothing is acknowledged that was never sent.
//! - **IV**  `sack >= receiver.end - max(sender.max_window, 66000)`: no acknowledgment older than a window.
//!
//! I and III guard the ends: what breaks them is invalid. What breaks II or IV is old: the receiver discards
//! it and answers, and that answer is what a sender needs whose ACK was lost. So it passes and changes nothing.

use serde::{Deserialize, Serialize};

use crate::packet::{Segment, SeqNum, TcpFlags};

/// The least distance that an acknowledgment may lie behind (bound IV), in bytes; the value of Linux.
pub const MIN_ACK_WINDOW: u32 = 66_000;

/// What one end of a connection has sent and allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Peer {
    /// The end of the furthest segment that it has sent: its next new byte.
    pub end: SeqNum,
    /// The furthest byte that the other end has allowed it to send, plus one.
    pub max_end: SeqNum,
    /// The largest window that it has offered, scaled; 0 while it has sent nothing.
    pub max_window: u32,
    /// The highest acknowledgment number that it has sent: the exact sequence number that it expects
    /// next. Before it has sent one ([`PeerFlags::MAX_ACK_KNOWN`] is clear), the least that it can
    /// send: the number after the SYN flag of the other end.
    pub max_ack: SeqNum,
}

/// What an end said in its SYN, and what it has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerFlags(pub(super) u8);

impl PeerFlags {
    /// Its SYN carried a window scale.
    pub const WINDOW_SCALE: Self = Self(0x01);
    /// Its SYN permitted SACK.
    pub const SACK_PERMITTED: Self = Self(0x02);
    /// It was the first to send a FIN.
    pub const CLOSE_INITIATOR: Self = Self(0x04);
    /// It has sent data that the other end has not acknowledged yet.
    pub const DATA_UNACKNOWLEDGED: Self = Self(0x08);
    /// It has sent an acknowledgment number.
    pub const MAX_ACK_KNOWN: Self = Self(0x10);

    /// The bits that belong to an end; the rest of the byte belongs to the connection.
    pub(super) const MASK: u8 = 0x1f;

    /// Whether all of `other` are set.
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

/// The four bounds of the module's head.
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
    /// The inequality in words.
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

/// A bound as it was checked: what the packet carried, what was the limit, and whether it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundCheck {
    /// Which inequality.
    pub bound: Bound,
    /// The packet's number.
    pub value: SeqNum,
    /// The number that it was compared with.
    pub limit: SeqNum,
    /// Whether it held.
    pub holds: bool,
}

/// What the window says of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowVerdict {
    /// It fits; the two sides were brought up to date.
    Fits,
    /// It passes, but says nothing new: too old (II, IV), or a little more than the receiver allowed.
    Passes(Bound),
    /// It breaks bound I or III.
    Breaks(Bound),
}

/// The length that a segment takes in sequence space: its data, plus one each for SYN and FIN.
#[must_use]
pub fn sequence_len(segment: &Segment) -> u32 {
    segment
        .payload_len
        .wrapping_add(u32::from(segment.flags.contains(TcpFlags::SYN)))
        .wrapping_add(u32::from(segment.flags.contains(TcpFlags::FIN)))
}

impl Side {
    /// A side as its SYN or SYN-ACK leaves it.
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
    /// An end as its SYN or SYN-ACK leaves it. The window of the other end's SYN is an offer: a Fast Open
    /// server sends data before any other acknowledgment comes (RFC 7413 4.2.2).
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

/// Takes note of more data of a segment that has passed: its end moves from `from` to `to`, since a later IP fragment
/// of it has come. What one segment of that length would have done to both sides is done, no more.
pub fn extend(sender: &mut Side, receiver: &mut Side, from: SeqNum, to: SeqNum) {
    if receiver.peer.max_window == 0 {
        // As in a SYN: the other end has not allowed anything yet.
        if to.after(sender.peer.max_end) {
            sender.peer.max_end = to;
        }
    } else if to.after(sender.peer.max_end) {
        let counted = if from.after(sender.peer.max_end) {
            from
        } else {
            sender.peer.max_end
        };
        receiver.peer.max_window = receiver.peer.max_window.saturating_add(to.distance_from(counted));
    }
    if to.after(sender.peer.end) {
        sender.peer.end = to;
        sender.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
    }
}

/// What the state of the connection says of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// No SYN-ACK has passed yet: the SYN of an end is worth no more than its SYN-ACK, which proves by its
    /// acknowledgment that its sender has seen the other one's SYN.
    pub opening: bool,
    /// The connection was followed from its SYN, so [`Peer::max_ack`] means something from the start.
    pub followed: bool,
}

/// Judges a segment by the four bounds and, where it fits, brings both sides up to date. Nothing is changed
/// where it breaks one. Each check is reported to `seen`.
pub fn check(
    sender: &mut Side,
    receiver: &mut Side,
    segment: &Segment,
    stage: Stage,
    mut seen: impl FnMut(BoundCheck),
) -> WindowVerdict {
    let (mut tx, mut rx) = (*sender, *receiver);
    let flags = segment.flags;
    let syn = flags.contains(TcpFlags::SYN);
    let has_ack = flags.contains(TcpFlags::ACK);
    let len = sequence_len(segment);
    let seq = segment.seq;
    let end = seq.add(len);
    let mut ack = segment.ack;
    let mut sack = ack;
    if has_ack && rx.flags.contains(PeerFlags::SACK_PERMITTED) {
        // A block's left edge lies before its right one, so it counts only where the block means nothing.
        for edge in segment
            .options
            .sack
            .iter()
            .flat_map(|(left, right)| [left, right])
        {
            if edge.after(sack) {
                sack = edge;
            }
        }
    }

    let first_of_sender = tx.peer.max_window == 0;
    let is_rst = flags.contains(TcpFlags::RST);
    // An end that has acknowledged nothing yet acknowledges at least the SYN of the other one.
    let first_ack = stage.followed && has_ack && !is_rst && !tx.flags.contains(PeerFlags::MAX_ACK_KNOWN);
    let least_ack = first_ack.then_some(tx.peer.max_ack);
    if syn && (first_of_sender || stage.opening) {
        // A repetition of its own SYN, perhaps without the data that this one carried.
        let repeats = !first_of_sender && segment.seq.add(1) == rx.peer.max_ack;
        let sent = tx.peer.end;
        tx = Side::answering(segment, tx.peer.max_ack, rx.peer.max_window);
        if repeats && sent.after(tx.peer.end) {
            tx.peer.end = sent;
            if sent.after(tx.peer.max_end) {
                tx.peer.max_end = sent;
            }
        }
        if !rx.flags.contains(PeerFlags::MAX_ACK_KNOWN) {
            rx.peer.max_ack = segment.seq.add(1);
        }
        if !has_ack {
            // Simultaneous open: a SYN alone has nothing to compare with.
            (*sender, *receiver) = (tx, rx);
            return WindowVerdict::Fits;
        }
    } else if first_of_sender {
        // The sender's history never passed here: take the segment's word for it.
        let window = (u32::from(segment.window) << tx.scale).max(1);
        tx.peer.end = end;
        tx.peer.max_window = window;
        tx.peer.max_end = end.add(window);
        if rx.peer.max_window == 0 {
            rx.peer.end = sack;
            rx.peer.max_end = sack;
        } else if sack == rx.peer.end.add(1) {
            // The answer to a keepalive that we did not see.
            rx.peer.end = sack;
        }
    }
    if syn
        && has_ack
        && !(tx.flags.contains(PeerFlags::WINDOW_SCALE) && rx.flags.contains(PeerFlags::WINDOW_SCALE))
    {
        // RFC 7323 1.3: the scale counts only if both SYNs carried it.
        tx.scale = 0;
        rx.scale = 0;
    }

    if !has_ack {
        // The acknowledgment number means nothing without the flag (RFC 9293 3.1): as if it were perfect.
        ack = rx.peer.end;
        sack = ack;
    }

    // I
    let upper = tx.peer.max_end;
    let i = !seq.after(upper);
    seen(BoundCheck {
        bound: Bound::SeqUpper,
        value: seq,
        limit: upper,
        holds: i,
    });
    // II
    let oldest = tx.peer.end.sub(rx.peer.max_window);
    let ii = rx.peer.max_window == 0 || !end.before(oldest);
    seen(BoundCheck {
        bound: Bound::SeqLower,
        value: end,
        limit: oldest,
        holds: ii,
    });
    // III
    // The acknowledgment itself too: an edge may lie so far from it that both sides of the circle are behind the other.
    let highest = if ack.after(rx.peer.end) { ack } else { sack };
    let iii = !highest.after(rx.peer.end);
    seen(BoundCheck {
        bound: Bound::AckUpper,
        value: highest,
        limit: rx.peer.end,
        holds: iii,
    });
    // IV
    let ack_window = tx.peer.max_window.max(MIN_ACK_WINDOW);
    let (latest, oldest_ack) = match least_ack {
        Some(least) => (ack, least),
        None => (sack, rx.peer.end.sub(ack_window)),
    };
    let iv = !latest.before(oldest_ack);
    seen(BoundCheck {
        bound: Bound::AckLower,
        value: latest,
        limit: oldest_ack,
        holds: iv,
    });

    if !i && !is_rst && !syn {
        // A sender that overshoots the offered window by less than a window: the receiver may take it, and if
        // it does, its ACK must not look like one for data never sent.
        let overshot = end.distance_from(tx.peer.max_end).wrapping_add(1);
        if ii && iii && iv && rx.peer.max_window != 0 && overshot <= rx.peer.max_window {
            tx.peer.end = end;
            tx.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
            (*sender, *receiver) = (tx, rx);
            return WindowVerdict::Passes(Bound::SeqUpper);
        }
    }
    if !i {
        return WindowVerdict::Breaks(Bound::SeqUpper);
    }
    if !iii {
        return WindowVerdict::Breaks(Bound::AckUpper);
    }
    if !ii {
        return WindowVerdict::Passes(Bound::SeqLower);
    }
    if !iv && first_ack {
        // Not old: nobody has ever sent what it acknowledges (RFC 9293 3.10.7.3 and 3.10.7.4).
        return WindowVerdict::Breaks(Bound::AckLower);
    }
    if !iv {
        // Its acknowledgment is old, its data need not be: the receiver will acknowledge them. Beyond
        // two windows it discards them as well (RFC 5961 5.2), as it does those of a blind forger.
        let is_near = rx.peer.end.distance_from(sack) / 2 <= ack_window;
        if is_near && !is_rst && end.after(tx.peer.end) {
            sender.peer.end = end;
            sender.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
        }
        return WindowVerdict::Passes(Bound::AckLower);
    }

    if is_rst {
        // A RST says nothing of data or windows.
        return WindowVerdict::Fits;
    }
    let window = u32::from(segment.window) << if syn { 0 } else { tx.scale };
    // What the sender has said of itself.
    tx.peer.max_window = tx
        .peer
        .max_window
        .max(window.wrapping_add(sack.distance_from(ack)));
    if end.after(tx.peer.end) {
        tx.peer.end = end;
        tx.flags.set(PeerFlags::DATA_UNACKNOWLEDGED);
    }
    if has_ack && (!tx.flags.contains(PeerFlags::MAX_ACK_KNOWN) || ack.after(tx.peer.max_ack)) {
        tx.peer.max_ack = ack;
        tx.flags.set(PeerFlags::MAX_ACK_KNOWN);
    }
    // What it allows the receiver.
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
    (*sender, *receiver) = (tx, rx);
    WindowVerdict::Fits
}
