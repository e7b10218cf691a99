//! A model of one end of a TCP connection: just enough of RFC 9293, 5961 and 7323 to be plausible.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::segment::{ACK, FIN, Options, PSH, RST, SYN, Segment, before};

/// Options that an end offers in its SYN, and its behavior.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Maximum segment size; 0 for none.
    pub mss: u16,
    /// Window scale; above 14 means 14 to the other end.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// Sends an unassigned option.
    pub unknown: bool,
    /// Initial bytes of buffer: the window that the end offers.
    pub buffer: u32,
    /// Shrinks a window that it has offered, which RFC 9293 3.8.6 advises against.
    pub shrinks: bool,
    /// Maximum payload that the end sends, in bytes.
    pub largest: u16,
}

/// Phase of an end. The FINs distinguish the states after ESTABLISHED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No connection.
    #[default]
    Closed,
    /// Takes connections.
    Listen,
    /// The end has sent its SYN.
    SynSent,
    /// Both ends have sent a SYN.
    SynReceived,
    /// ESTABLISHED and all later states.
    Open,
    /// Both FINs are acknowledged, and this end closed first.
    TimeWait,
}

/// One end of a connection.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Phase of the end.
    pub phase: Phase,
    /// Offer of the end.
    pub offer: Offer,
    /// The oldest byte that is not acknowledged.
    pub una: u32,
    /// The next byte that the end will send.
    pub nxt: u32,
    /// Window of the other end, in bytes from `una`.
    pub peer_window: u32,
    /// The next byte that the end expects.
    pub rcv_nxt: u32,
    /// The right edge of the offered window.
    pub promised: u32,
    peer_shift: u8,
    shift: u8,
    buffer: u32,
    sack: bool,
    timestamps: bool,
    clock: u32,
    echo: u32,
    held: Vec<(u32, u32)>,
    fin: Option<u32>,
    peer_fin: bool,
    first_to_close: bool,
}

impl End {
    /// Creates an end without a connection.
    #[must_use]
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            ..Self::default()
        }
    }

    fn reset_to(&mut self, phase: Phase, iss: u32) {
        *self = Self {
            phase,
            una: iss,
            nxt: iss,
            buffer: self.offer.buffer,
            clock: self.clock,
            ..Self::new(self.offer.clone())
        };
    }

    /// Opens a connection with this initial sequence number.
    pub fn connect(&mut self, iss: u32) -> Segment {
        self.reset_to(Phase::SynSent, iss);
        self.nxt = iss.wrapping_add(1);
        self.syn(iss, SYN)
    }

    /// Waits for a connection; `iss` is the end's initial sequence number.
    pub fn listen(&mut self, iss: u32) {
        self.reset_to(Phase::Listen, iss);
    }

    /// Returns whether the end will do nothing unprompted.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Closed | Phase::Listen | Phase::TimeWait)
    }

    fn syn(&mut self, seq: u32, flags: u8) -> Segment {
        let answers = flags & ACK != 0;
        let window = self.offer.buffer.min(65_535);
        self.promised = self.rcv_nxt.wrapping_add(window);
        let offer = &self.offer;
        Segment {
            seq,
            ack: if answers { self.rcv_nxt } else { 0 },
            flags,
            window: window as u16,
            options: Options {
                mss: (offer.mss > 0).then_some(offer.mss),
                window_scale: offer
                    .window_scale
                    .filter(|_| !answers || self.peer_shift != u8::MAX),
                sack_permitted: offer.sack && (!answers || self.sack),
                timestamps: (offer.timestamps && (!answers || self.timestamps))
                    .then_some((self.clock, self.echo)),
                sack: Vec::new(),
                unknown: offer.unknown,
            },
            ..Segment::default()
        }
    }

    /// Returns a segment of a synchronized connection, with the current acknowledgment and window.
    pub fn segment(&mut self, flags: u8, seq: u32, len: u16) -> Segment {
        let left = self.promised.wrapping_sub(self.rcv_nxt);
        let room = if self.offer.shrinks || (left as i32) < 0 {
            self.buffer
        } else {
            self.buffer.max(left)
        };
        let window = (room >> self.shift).min(65_535);
        self.promised = self.rcv_nxt.wrapping_add(window << self.shift);
        self.clock = self.clock.wrapping_add(1);
        Segment {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: window as u16,
            len,
            options: Options {
                timestamps: self.timestamps.then_some((self.clock, self.echo)),
                sack: if self.sack {
                    self.held.iter().rev().copied().collect()
                } else {
                    Vec::new()
                },
                ..Options::default()
            },
            wrong_offset: None,
        }
    }

    fn acknowledgment(&mut self) -> Segment {
        self.segment(ACK, self.nxt, 0)
    }

    /// Returns a segment that the end sends unprompted, if any. `closing` is the probability that
    /// it has no more data to send.
    pub fn act(&mut self, dice: &mut ChaCha8Rng, closing: f64) -> Option<Segment> {
        match self.phase {
            Phase::Closed | Phase::Listen | Phase::TimeWait => None,
            Phase::SynSent => {
                if dice.random_bool(0.03) {
                    self.phase = Phase::Closed;
                    return None;
                }
                Some(self.syn(self.una, SYN))
            }
            Phase::SynReceived => Some(self.syn(self.una, SYN | ACK)),
            Phase::Open => match dice.random_range(0..100) {
                0..55 => self.data(dice, closing),
                55..68 => self.retransmission(dice),
                68..74 => Some(self.acknowledgment()),
                74..84 => {
                    let full = self.offer.buffer.max(1);
                    self.buffer = match dice.random_range(0..4) {
                        0 => 0,
                        1 => dice.random_range(0..full),
                        _ => full,
                    };
                    Some(self.acknowledgment())
                }
                84..89 => self.keepalive(dice),
                89..91 => self.zero_window_probe(),
                91 if dice.random_bool(0.2) => {
                    let flags = if dice.random_bool(0.7) {
                        RST | ACK
                    } else {
                        RST
                    };
                    let mut reset = self.segment(flags, self.nxt, 0);
                    if flags == RST {
                        reset.ack = 0;
                    }
                    self.phase = Phase::Closed;
                    Some(reset)
                }
                _ => None,
            },
        }
    }

    fn data(&mut self, dice: &mut ChaCha8Rng, closing: f64) -> Option<Segment> {
        if self.fin.is_some() {
            return None;
        }
        let closes = dice.random_bool(closing);
        let usable = self
            .una
            .wrapping_add(self.peer_window)
            .wrapping_sub(self.nxt) as i32;
        let room = u16::try_from(usable.max(0))
            .unwrap_or(u16::MAX)
            .min(self.offer.largest);
        let len = match dice.random_range(0..10) {
            _ if room == 0 => 0,
            0 => 1.min(room),
            1..4 => room.min(self.offer.mss.max(536)),
            4 => room,
            _ => dice.random_range(1..=room.min(1460)),
        };
        if len == 0 && !closes {
            return None;
        }
        let seq = self.nxt;
        self.nxt = self.nxt.wrapping_add(u32::from(len));
        let mut flags = ACK | if dice.random_bool(0.4) { PSH } else { 0 };
        if closes {
            flags |= FIN;
            self.fin = Some(self.nxt);
            self.nxt = self.nxt.wrapping_add(1);
            self.first_to_close = !self.peer_fin;
        }
        Some(self.segment(flags, seq, len))
    }

    /// Retransmits something that is not acknowledged.
    fn retransmission(&mut self, dice: &mut ChaCha8Rng) -> Option<Segment> {
        let outstanding = self.nxt.wrapping_sub(self.una);
        if outstanding == 0 || outstanding > 1 << 30 {
            return None;
        }
        let start = if dice.random_bool(0.7) {
            0
        } else {
            dice.random_range(0..outstanding)
        };
        let seq = self.una.wrapping_add(start);
        let before_fin = self.fin.unwrap_or(self.nxt).wrapping_sub(seq);
        let longest = u16::try_from(before_fin)
            .unwrap_or(u16::MAX)
            .min(self.offer.largest.max(1));
        let len = if longest == 0 {
            0
        } else {
            dice.random_range(1..=longest)
        };
        let with_fin = self.fin == Some(seq.wrapping_add(u32::from(len)));
        Some(self.segment(if with_fin { FIN | ACK } else { ACK }, seq, len))
    }

    /// RFC 9293 3.8.4: below the acknowledged numbers, with or without a byte of garbage.
    fn keepalive(&mut self, dice: &mut ChaCha8Rng) -> Option<Segment> {
        let idle = self.una == self.nxt && self.fin.is_none();
        idle.then(|| {
            self.segment(
                ACK,
                self.nxt.wrapping_sub(1),
                u16::from(dice.random_bool(0.5)),
            )
        })
    }

    /// RFC 9293 3.8.6.1: a byte of new data into a closed window.
    fn zero_window_probe(&mut self) -> Option<Segment> {
        if self.peer_window != 0 || self.fin.is_some() || self.una != self.nxt {
            return None;
        }
        let seq = self.nxt;
        self.nxt = self.nxt.wrapping_add(1);
        Some(self.segment(ACK, seq, 1))
    }

    /// Receives a segment and returns the end's answer.
    pub fn receive(&mut self, segment: &Segment, dice: &mut ChaCha8Rng) -> Option<Segment> {
        if segment.wrong_offset.is_some() {
            return None;
        }
        match self.phase {
            Phase::Closed => refuse(segment),
            Phase::Listen if segment.has(RST) => None,
            Phase::Listen if segment.has(ACK) => refuse(segment),
            Phase::Listen => {
                if !segment.has(SYN) || segment.has(FIN) {
                    return None;
                }
                let iss = self.una;
                self.take_syn(segment);
                self.nxt = iss.wrapping_add(1);
                self.phase = Phase::SynReceived;
                Some(self.syn(iss, SYN | ACK))
            }
            Phase::SynSent => self.receive_in_syn_sent(segment),
            Phase::SynReceived | Phase::Open | Phase::TimeWait => {
                self.receive_synchronized(segment, dice)
            }
        }
    }

    fn take_syn(&mut self, segment: &Segment) {
        self.rcv_nxt = segment.seq.wrapping_add(1);
        self.peer_window = u32::from(segment.window);
        self.sack = self.offer.sack && segment.options.sack_permitted;
        self.timestamps = self.offer.timestamps && segment.options.timestamps.is_some();
        match (self.offer.window_scale, segment.options.window_scale) {
            (Some(mine), Some(other)) => {
                self.shift = mine.min(14);
                self.peer_shift = other.min(14);
            }
            // No window scale in the answer to a SYN without one.
            (_, None) => self.peer_shift = u8::MAX,
            _ => {}
        }
    }

    fn receive_in_syn_sent(&mut self, segment: &Segment) -> Option<Segment> {
        let acknowledges = segment.has(ACK) && segment.ack == self.nxt;
        if segment.has(ACK) && !acknowledges {
            return refuse(segment);
        }
        if segment.has(RST) {
            if acknowledges {
                self.phase = Phase::Closed;
            }
            return None;
        }
        if !segment.has(SYN) {
            return None;
        }
        self.take_syn(segment);
        if acknowledges {
            self.una = self.nxt;
            self.open();
            Some(self.acknowledgment())
        } else {
            self.phase = Phase::SynReceived;
            Some(self.syn(self.una, SYN | ACK))
        }
    }

    fn open(&mut self) {
        self.phase = Phase::Open;
        if self.peer_shift == u8::MAX {
            self.peer_shift = 0;
        }
    }

    fn receive_synchronized(
        &mut self,
        segment: &Segment,
        dice: &mut ChaCha8Rng,
    ) -> Option<Segment> {
        if self.phase == Phase::TimeWait
            && segment.has(SYN)
            && segment.flags & (ACK | RST | FIN) == 0
            && before(self.rcv_nxt, segment.seq)
        {
            // RFC 1122 4.2.2.13: a new connection out of TIME_WAIT.
            self.listen(self.nxt.wrapping_add(dice.random_range(66_000..1_000_000)));
            return self.receive(segment, dice);
        }
        if segment.has(RST) {
            return self.receive_reset(segment);
        }
        let own_syn_again = segment.has(SYN) && segment.seq.wrapping_add(1) == self.rcv_nxt;
        if self.phase == Phase::SynReceived && own_syn_again {
            if segment.has(ACK) && segment.ack == self.nxt {
                // The SYN-ACK of a simultaneous open.
                self.una = self.nxt;
                self.open();
                return Some(self.acknowledgment());
            }
            return Some(self.syn(self.una, SYN | ACK));
        }
        let window = self.promised.wrapping_sub(self.rcv_nxt).max(1);
        let first = segment.seq.wrapping_sub(self.rcv_nxt);
        let last = segment.end().wrapping_sub(1).wrapping_sub(self.rcv_nxt);
        let fits =
            first < window || (segment.span() > 0 && last < window) || segment.seq == self.rcv_nxt;
        if !fits || segment.has(SYN) {
            // Old, early, or a SYN: a (challenge) ACK.
            return Some(self.acknowledgment());
        }
        if !segment.has(ACK) {
            return None;
        }
        if before(self.nxt, segment.ack) || before(segment.ack, self.una.wrapping_sub(1 << 30)) {
            return match self.phase {
                Phase::SynReceived => refuse(segment),
                _ => Some(self.acknowledgment()),
            };
        }
        if self.phase == Phase::SynReceived {
            if segment.ack != self.nxt {
                return refuse(segment);
            }
            self.open();
        }
        if before(self.una, segment.ack) {
            self.una = segment.ack;
        }
        if segment.ack == self.una {
            self.peer_window = u32::from(segment.window) << self.peer_shift.min(14);
        }
        if let Some((value, _)) = segment.options.timestamps {
            self.echo = value;
        }
        self.receive_data(segment, dice)
    }

    fn receive_reset(&mut self, segment: &Segment) -> Option<Segment> {
        let window = self.promised.wrapping_sub(self.rcv_nxt);
        if segment.seq == self.rcv_nxt {
            self.phase = Phase::Closed;
            None
        } else if segment.seq.wrapping_sub(self.rcv_nxt) < window {
            // RFC 5961 3.2: a challenge.
            Some(self.acknowledgment())
        } else {
            None
        }
    }

    fn receive_data(&mut self, segment: &Segment, dice: &mut ChaCha8Rng) -> Option<Segment> {
        let before_ = self.rcv_nxt;
        let data_end = segment.seq.wrapping_add(u32::from(segment.len));
        if segment.len > 0 && !self.peer_fin {
            if !before(self.rcv_nxt, segment.seq) {
                if before(self.rcv_nxt, data_end) {
                    self.rcv_nxt = data_end;
                }
            } else {
                self.hold(segment.seq, data_end);
            }
            self.unhold();
        }
        if segment.has(FIN) && !self.peer_fin && data_end == self.rcv_nxt {
            self.peer_fin = true;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
        let moved = self.rcv_nxt != before_;
        if self.fin.is_some() && self.una == self.nxt && self.peer_fin && self.phase == Phase::Open
        {
            self.phase = if self.first_to_close {
                Phase::TimeWait
            } else {
                Phase::Closed
            };
        }
        let wanted = segment.has(FIN) || (segment.len > 0 && (!moved || dice.random_bool(0.6)));
        wanted.then(|| self.acknowledgment())
    }

    fn hold(&mut self, left: u32, right: u32) {
        let (mut left, mut right) = (left, right);
        self.held.retain(|(l, r)| {
            let apart = before(*r, left) || before(right, *l);
            if !apart {
                if before(*l, left) {
                    left = *l;
                }
                if before(right, *r) {
                    right = *r;
                }
            }
            apart
        });
        self.held.push((left, right));
        if self.held.len() > 6 {
            self.held.remove(0);
        }
    }

    fn unhold(&mut self) {
        while let Some(at) = self
            .held
            .iter()
            .position(|(left, _)| !before(self.rcv_nxt, *left))
        {
            let (_, right) = self.held.swap_remove(at);
            if before(self.rcv_nxt, right) {
                self.rcv_nxt = right;
            }
        }
    }
}

/// Returns the answer of a closed port (RFC 9293 3.10.7.1).
fn refuse(segment: &Segment) -> Option<Segment> {
    if segment.has(RST) {
        return None;
    }
    Some(if segment.has(ACK) {
        Segment {
            seq: segment.ack,
            flags: RST,
            ..Segment::default()
        }
    } else {
        Segment {
            ack: segment.end(),
            flags: RST | ACK,
            ..Segment::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn two_ends_shake_hands_talk_and_close() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let offer = Offer {
            mss: 1460,
            buffer: 65_535,
            largest: 1460,
            window_scale: Some(7),
            sack: true,
            ..Offer::default()
        };
        let mut ends = [End::new(offer.clone()), End::new(offer)];
        ends[1].listen(u32::MAX);
        let mut wire = vec![(1usize, ends[0].connect(u32::MAX - 3))];
        for round in 0..2000 {
            while let Some((to, segment)) = wire.pop() {
                if let Some(answer) = ends[to].receive(&segment, &mut dice) {
                    wire.push((1 - to, answer));
                }
            }
            let from = round % 2;
            let closing = if round < 100 { 0.0 } else { 0.1 };
            let abort = ends[from].phase;
            if let Some(segment) = ends[from].act(&mut dice, closing) {
                if segment.has(RST) {
                    ends[from].phase = abort;
                    continue;
                }
                wire.push((1 - from, segment));
            }
        }
        assert!(ends.iter().all(End::is_quiet), "{ends:?}");
    }
}
