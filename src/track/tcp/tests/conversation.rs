//! Two model endpoints that talk through a track: whatever two honest ends say is
//! accepted, segment for segment, as long as nothing is overtaken by more than a window.

use proptest::prelude::*;

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags, TcpOptions};
use crate::track::tcp::window::MIN_ACK_WINDOW;
use crate::track::tcp::{Outcome, State};

use super::{ACK, Done, FIN, RST, SYN, Session, bare};

/// One end. Numbers are positions in its stream that never wrap: 0 is the SYN, 1 the first byte.
#[derive(Debug)]
pub(super) struct End {
    initial: SeqNum,
    /// The other end's.
    other_initial: SeqNum,
    /// Shift of the windows that it sends, and of those that it gets.
    shifts: [u8; 2],
    sack: bool,
    pub(super) next: u64,
    pub(super) unacknowledged: u64,
    /// Number of bytes that the other end allows.
    pub(super) allowed: u64,
    /// A byte that was sent as a probe cannot become a FIN.
    probed: u64,
    fin_sent: bool,
    /// Data that was received in order, and data beyond it, sorted, with gaps.
    pub(super) received: u64,
    beyond: Vec<(u64, u64)>,
    /// Number of bytes that the other end may send; never reduced.
    pub(super) offered: u64,
}

/// A segment on its way, with the positions that its receiver reads.
#[derive(Debug, Clone)]
pub(super) struct Flying {
    pub(super) segment: Segment,
    from: u64,
    ack: u64,
}

impl Flying {
    /// The position behind its data and its FIN.
    fn end(&self) -> u64 {
        let fin = u64::from(self.segment.flags.contains(FIN));
        self.from + u64::from(self.segment.payload_len) + fin
    }
}

impl End {
    fn new(
        initial: u32,
        other_initial: u32,
        shifts: [u8; 2],
        sack: bool,
        windows: [u16; 2],
    ) -> Self {
        let [own, other] = windows.map(u64::from);
        Self {
            initial: SeqNum(initial),
            other_initial: SeqNum(other_initial),
            shifts,
            sack,
            next: 1,
            unacknowledged: 1,
            allowed: 1 + other,
            probed: 0,
            fin_sent: false,
            received: 1,
            beyond: Vec::new(),
            offered: 1 + own,
        }
    }

    /// A segment from `from` on; `wish` is the window that the end would like to offer, in wire
    /// units.
    pub(super) fn segment(&mut self, flags: TcpFlags, from: u64, len: u64, wish: u16) -> Flying {
        let unit = 1 << self.shifts[0];
        let least = (self.offered - self.received).div_ceil(unit);
        let window = u16::try_from(least)
            .expect("an offer is never larger than a window")
            .max(wish);
        self.offered = self.received + u64::from(window) * unit;
        let sack = match self.beyond.last() {
            Some(&(left, right)) if self.sack => {
                let position = |at: u64| self.other_initial.add(at as u32);
                [(position(left), position(right))].into_iter().collect()
            }
            _ => Default::default(),
        };
        let segment = Segment {
            window,
            payload_len: u32::try_from(len).unwrap(),
            options: TcpOptions {
                sack,
                ..TcpOptions::default()
            },
            ..bare(
                flags,
                self.initial.add(from as u32),
                self.other_initial.add(self.received as u32),
            )
        };
        Flying {
            segment,
            from,
            ack: self.received,
        }
    }

    fn send(&mut self, len: u64, wish: u16) -> Option<Flying> {
        let len = len.min(self.allowed.saturating_sub(self.next)).min(60_000);
        if self.fin_sent || len == 0 {
            return None;
        }
        let from = self.next;
        self.next += len;
        Some(self.segment(ACK, from, len, wish))
    }

    fn fin(&mut self, wish: u16) -> Option<Flying> {
        if self.fin_sent || self.allowed <= self.next || self.probed > self.next {
            return None;
        }
        self.fin_sent = true;
        let from = self.next;
        self.next += 1;
        Some(self.segment(FIN | ACK, from, 0, wish))
    }

    /// A byte beyond a full window.
    fn probe(&mut self, wish: u16) -> Option<Flying> {
        if self.fin_sent || self.allowed != self.next {
            return None;
        }
        self.probed = self.next + 1;
        Some(self.segment(ACK, self.next, 1, wish))
    }

    fn keepalive(&mut self, len: u64, wish: u16) -> Option<Flying> {
        let idle = self.unacknowledged == self.next && self.probed <= self.next && !self.fin_sent;
        idle.then(|| self.segment(ACK, self.next - 1, len, wish))
    }

    /// Data that was not acknowledged yet, as far as this end knows.
    fn repeat(&mut self, len: u64, wish: u16) -> Option<Flying> {
        let sent = self.next - u64::from(self.fin_sent);
        let len = len
            .min(sent.saturating_sub(self.unacknowledged))
            .min(60_000);
        (len > 0).then(|| self.segment(ACK, self.unacknowledged, len, wish))
    }

    fn receive(&mut self, flying: &Flying) {
        self.unacknowledged = self.unacknowledged.max(flying.ack);
        self.next = self.next.max(flying.ack);
        let window = u64::from(flying.segment.window) << self.shifts[1];
        self.allowed = self.allowed.max(flying.ack + window);
        let left = flying.from.max(self.received);
        let right = flying.end().min(self.offered);
        if left < right {
            self.beyond.push((left, right));
            self.beyond.sort_unstable();
        }
        while let Some(&(left, right)) = self.beyond.first() {
            if left > self.received {
                break;
            }
            self.received = self.received.max(right);
            self.beyond.remove(0);
        }
    }
}

/// Next action of an end or of the network.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Send(u16),
    Acknowledge,
    Fin,
    Probe,
    /// With a byte, or without.
    Keepalive(bool),
    Repeat(u16),
    /// A segment of this end comes to the track; not the first, if it was overtaken by so many.
    Arrive(u8),
    /// A segment comes from the track to this end.
    Deliver(u8),
}

pub(super) fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => any::<u16>().prop_map(Act::Send),
        4 => (1u16..2_000).prop_map(Act::Send),
        6 => Just(Act::Acknowledge),
        1 => Just(Act::Probe),
        1 => any::<bool>().prop_map(Act::Keepalive),
        2 => any::<u16>().prop_map(Act::Repeat),
        14 => (0u8..6).prop_map(Act::Arrive),
        14 => (0u8..6).prop_map(Act::Deliver),
    ]
}

pub(super) fn any_wish() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), 1u16..3_000, any::<u16>(), Just(u16::MAX)]
}

#[derive(Debug, Clone)]
pub(super) struct Opening {
    initial: [u32; 2],
    pub(super) scales: [Option<u8>; 2],
    sack: [bool; 2],
    windows: [u16; 2],
}

prop_compose! {
    pub(super) fn any_opening()(
        initial in [any_initial(), any_initial()],
        scales in [prop::option::of(0u8..=14), prop::option::of(0u8..=14)],
        sack in any::<[bool; 2]>(),
        windows in [any_wish(), any_wish()],
    ) -> Opening {
        Opening { initial, scales, sack, windows }
    }
}

fn any_initial() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (u32::MAX - 200_000)..=u32::MAX,
        0x7fff_0000u32..0x8000_0001,
    ]
}

/// The two ends, the track between them, and what is on the way to the track and from it.
pub(super) struct Network {
    pub(super) session: Session,
    pub(super) ends: [End; 2],
    pub(super) to_track: [Vec<Flying>; 2],
    pub(super) from_track: [Vec<Flying>; 2],
    /// The network keeps the order of segments.
    in_order: bool,
    /// The track was resumed from a record: old segments pass without more.
    pub(super) has_moved: bool,
}

impl Network {
    /// After the handshake.
    pub(super) fn new(opening: &Opening, in_order: bool) -> Self {
        let Opening {
            initial: [original, reply],
            scales,
            sack,
            windows,
        } = *opening;
        let shifts = match scales {
            [Some(original), Some(reply)] => [original, reply],
            _ => [0, 0],
        };
        let both = sack == [true, true];
        let [o, r] = [0, 1].map(|end| TcpOptions {
            window_scale: scales[end],
            sack_permitted: sack[end],
            ..TcpOptions::default()
        });
        let mut session = Session::NONE;
        let syn = Segment {
            window: windows[0],
            options: o,
            ..bare(SYN, SeqNum(original), SeqNum(0))
        };
        let syn_ack = Segment {
            window: windows[1],
            options: r,
            ..bare(SYN | ACK, SeqNum(reply), SeqNum(original).add(1))
        };
        assert_eq!(
            session.pass(Direction::Original, &syn, |_| {}),
            Done::Opened
        );
        let done = session.pass(Direction::Reply, &syn_ack, |_| {});
        assert!(
            matches!(done, Done::Judged(Outcome::Accept { .. })),
            "{done:?}"
        );
        let mut network = Self {
            session,
            ends: [
                End::new(original, reply, shifts, both, windows),
                End::new(
                    reply,
                    original,
                    [shifts[1], shifts[0]],
                    both,
                    [windows[1], windows[0]],
                ),
            ],
            to_track: [Vec::new(), Vec::new()],
            from_track: [Vec::new(), Vec::new()],
            in_order,
            has_moved: false,
        };
        network.act(0, Act::Acknowledge, windows[0]);
        network.drain();
        assert_eq!(network.state(), State::Established);
        network
    }

    pub(super) fn state(&self) -> State {
        self.session.track.unwrap().state()
    }

    pub(super) fn act(&mut self, number: usize, act: Act, wish: u16) {
        let end = &mut self.ends[number];
        let made = match act {
            Act::Send(len) => end.send(u64::from(len), wish),
            Act::Acknowledge => Some(end.segment(ACK, end.next, 0, wish)),
            Act::Fin => end.fin(wish),
            Act::Probe => end.probe(wish),
            Act::Keepalive(byte) => end.keepalive(u64::from(byte), wish),
            Act::Repeat(len) => end.repeat(u64::from(len), wish),
            Act::Arrive(overtaken_by) => {
                self.arrive(number, overtaken_by);
                None
            }
            Act::Deliver(overtaken_by) => {
                if let Some(flying) = take(
                    &mut self.from_track[1 - number],
                    overtaken_by,
                    self.in_order,
                ) {
                    self.ends[number].receive(&flying);
                }
                None
            }
        };
        self.to_track[number].extend(made);
    }

    fn arrive(&mut self, number: usize, overtaken_by: u8) {
        if let Some(flying) = take(&mut self.to_track[number], overtaken_by, self.in_order) {
            self.judge(number, flying);
        }
    }

    /// Hands a segment to the track, after those that may not be overtaken by it: what is reordered
    /// by more than a window is old for a receiver as well.
    fn judge(&mut self, number: usize, flying: Flying) {
        while let Some((number, older)) = self.take_older_than_a_window(number, &flying) {
            self.judge(number, older);
        }
        let before = self.session;
        let direction = Direction::BOTH[number];
        let done = self.session.pass(direction, &flying.segment, |_| {});
        let may_be_late = self.has_moved && matches!(done, Done::Judged(Outcome::Pass(_)));
        assert!(
            may_be_late || matches!(done, Done::Judged(Outcome::Accept { .. })),
            "{direction}: {:?}\n{done:?}\n{before:#?}",
            flying.segment
        );
        self.from_track[number].push(flying);
    }

    /// A segment on its way to the track that will be below bound II or IV when `flying` of an end
    /// has passed.
    fn take_older_than_a_window(
        &mut self,
        number: usize,
        flying: &Flying,
    ) -> Option<(usize, Flying)> {
        let track = self.session.track.unwrap();
        let window = track.side(Direction::BOTH[1 - number]).peer.max_window;
        let own = |older: &Flying| flying.end().saturating_sub(older.end()) > u64::from(window);
        let other = |older: &Flying| {
            flying.end().saturating_sub(older.ack) > u64::from(window.max(MIN_ACK_WINDOW))
        };
        if let Some(at) = self.to_track[number].iter().position(own) {
            return Some((number, self.to_track[number].remove(at)));
        }
        let at = self.to_track[1 - number].iter().position(other)?;
        Some((1 - number, self.to_track[1 - number].remove(at)))
    }

    /// Brings everything to its end.
    pub(super) fn drain(&mut self) {
        for number in [0, 1] {
            while !self.to_track[number].is_empty() {
                self.arrive(number, 0);
            }
            while !self.from_track[number].is_empty() {
                self.act(1 - number, Act::Deliver(0), 0);
            }
        }
    }
}

fn take(queue: &mut Vec<Flying>, overtaken_by: u8, in_order: bool) -> Option<Flying> {
    let at = if in_order {
        0
    } else {
        usize::from(overtaken_by)
    };
    let last = queue.len().checked_sub(1)?;
    Some(queue.remove(at.min(last)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_honest_conversation_is_accepted(
        opening in any_opening(),
        acts in prop::collection::vec((0usize..2, any_act(), any_wish()), 1..250),
        in_order in any::<bool>(),
        closer in 0usize..2,
        by_reset in any::<bool>(),
    ) {
        let mut network = Network::new(&opening, in_order);
        for (number, act, wish) in acts {
            network.act(number, act, wish);
        }
        network.drain();
        prop_assert_eq!(network.state(), State::Established);
        // Open windows, a byte each way (a probe's byte is data now), and all of it acknowledged.
        for act in [Act::Acknowledge, Act::Send(1), Act::Acknowledge] {
            for number in [closer, 1 - closer] {
                network.act(number, act, u16::MAX);
                network.drain();
            }
        }
        if by_reset {
            // In order, and all received: the exact number, which closes.
            for end in 0..2 {
                let missing = network.ends[end].next - network.ends[1 - end].received;
                prop_assert_eq!(missing, 0, "the network loses nothing");
            }
            let end = &mut network.ends[closer];
            let reset = end.segment(RST | ACK, end.next, 0, 0).segment;
            network.session.pass(Direction::BOTH[closer], &reset, |_| {});
            prop_assert_eq!(network.state(), State::Close);
        } else {
            for (number, state) in [(closer, State::CloseWait), (1 - closer, State::TimeWait)] {
                network.act(number, Act::Fin, u16::MAX);
                network.drain();
                network.act(1 - number, Act::Acknowledge, u16::MAX);
                network.drain();
                prop_assert_eq!(network.state(), state);
            }
        }
    }

    /// FINs and data cross in any order.
    #[test]
    fn an_honest_end_of_a_conversation_is_accepted(
        opening in any_opening(),
        acts in prop::collection::vec(
            (0usize..2, prop_oneof![20 => any_act(), 1 => Just(Act::Fin)], any_wish()),
            1..250,
        ),
        in_order in any::<bool>(),
    ) {
        let mut network = Network::new(&opening, in_order);
        for (number, act, wish) in acts {
            network.act(number, act, wish);
        }
        network.drain();
        prop_assert!(network.state() as u8 >= State::Established as u8);
    }
}
