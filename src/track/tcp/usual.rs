//! The usual segment of an established connection, judged in place.
//!
//! [`Track::usual`] handles an ordinary ACK of an established connection within its window like
//! [`Track::segment`], but unpacks nothing and skips decisions that such a segment cannot need.
//! Every other segment is left to the full check, with no change. Its test compares all fields with
//! those that [`Track::segment`] sets.

use super::judgment::digest_of;
use super::window::{MIN_ACK_WINDOW, PeerFlags};
use super::{Event, LIBERAL, MARK_IN_ORDER, RETRANSMISSIONS_SHIFT, State, Track, UNSEEN};
use crate::flow::Direction;
use crate::packet::SeqNum;
use crate::packet::plain::Ack;

/// The count of repetitions, in `flags[1]`; here, both flags are one number.
const RETRANSMISSIONS: u16 = 0x0300 << RETRANSMISSIONS_SHIFT;
/// The largest acknowledgment of the end whose flags are in the lower byte is known.
const MAX_ACK_KNOWN: u16 = PeerFlags::MAX_ACK_KNOWN.0 as u16;
/// Data of the end whose flags are in the lower byte wait for an acknowledgment.
const UNACKNOWLEDGED: u16 = PeerFlags::DATA_UNACKNOWLEDGED.0 as u16;
/// The state, and whether numbers outside the window pass: in `position` and `flags[0]`, the fourth
/// and second byte of their word.
const STATE_AND_TRACKING: u32 = 0x0f << 24 | ((LIBERAL | UNSEEN) as u32) << 8;

impl Track {
    /// Judges a segment of a connection whose responder has been seen. Returns whether data waits
    /// for an acknowledgment, which caps the lifetime of the connection, if the segment is
    /// accepted; `None` if the segment is not usual.
    ///
    /// The direction of a segment, its data and its progress follow no pattern, so nothing branches
    /// on them. Not inlined: the values fill all registers, and those of the caller would be moved
    /// in between.
    #[expect(clippy::indexing_slicing, reason = "a direction is 0 or 1")]
    #[inline(never)]
    pub(crate) fn usual(&mut self, direction: Direction, segment: &Ack) -> Option<bool> {
        let [original_flags, reply_flags] = self.flags;
        let small = u32::from_le_bytes([self.scales, original_flags, reply_flags, self.position]);
        if small & STATE_AND_TRACKING != u32::from(State::Established as u8) << 24 {
            return None;
        }
        let reply = u32::from(direction == Direction::Reply);
        let tx = self.peers[reply as usize];
        let rx = self.peers[reply as usize ^ 1];
        let (seq, ack, len) = (segment.seq, segment.ack, u32::from(segment.payload_len));
        let end = seq.add(len);
        let is_newer = end.after(tx.end);
        // The four bounds, data that are not repeated, and what must be known for them.
        let fits = !seq.after(tx.max_end)
            & !end.before(tx.end.sub(rx.max_window))
            & !ack.after(rx.end)
            & !ack.before(rx.end.sub(tx.max_window.max(MIN_ACK_WINDOW)));
        if !fits {
            return None;
        }
        // The flags of the sender are in the lower byte.
        let flags = ((small >> 8) as u16).rotate_left(8 * reply);
        let are_known = (flags & MAX_ACK_KNOWN != 0)
            & (tx.max_window != 0)
            & (rx.max_window != 0)
            & (segment.window != 0)
            & (is_newer | (len == 0));
        if !are_known {
            return None;
        }
        let in_order = !seq.after(tx.end);
        let mark = digest_of(seq, ack) | (u16::from(in_order) * MARK_IN_ORDER);
        let position = State::Established as u8 | (Event::Ack as u8) << 4 | (reply as u8) << 7;
        let last = Last::of(end, segment.window, mark);
        if (Last::of(self.last_end, self.last_window, self.last_mark) == last)
            & (self.position == position)
        {
            return None;
        }
        self.last_end = end;
        self.last_window = segment.window;
        self.last_mark = mark;
        self.position = position;
        let window = u32::from(segment.window) << (small >> (4 * reply) & 0x0f);
        let sender = &mut self.peers[reply as usize];
        sender.max_window = tx.max_window.max(window);
        sender.end = if is_newer { end } else { tx.end };
        sender.max_ack = if ack.after(tx.max_ack) {
            ack
        } else {
            tx.max_ack
        };
        let receiver = &mut self.peers[reply as usize ^ 1];
        let beyond = end.distance_from(tx.max_end);
        let is_beyond = end.after(tx.max_end);
        receiver.max_window = rx
            .max_window
            .wrapping_add(if is_beyond { beyond } else { 0 });
        let allowed = ack.add(window);
        receiver.max_end = if allowed.before(rx.max_end) {
            rx.max_end
        } else {
            allowed
        };
        // The sender's data wait for an acknowledgment, and the receiver's no longer.
        let waits = if is_newer { UNACKNOWLEDGED } else { 0 };
        let is_over = if ack == rx.end {
            UNACKNOWLEDGED << 8
        } else {
            0
        };
        let flags = (flags | waits) & !is_over;
        let both = flags.rotate_right(8 * reply) & !RETRANSMISSIONS;
        self.flags = both.to_le_bytes();
        Some(flags & (UNACKNOWLEDGED | UNACKNOWLEDGED << 8) != 0)
    }
}

/// The fields of the last segment in one word, as they lie in memory.
#[derive(PartialEq)]
struct Last(u64);

impl Last {
    #[inline(always)]
    fn of(end: SeqNum, window: u16, mark: u16) -> Self {
        Self(u64::from(end.0) | u64::from(window) << 32 | u64::from(mark) << 48)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::packet::{Segment, TcpFlags, TcpOptions};
    use crate::track::tcp::{Known, Outcome, Peer};
    use crate::track::{Lifetime, LifetimeClass};

    /// Numbers that are near each other, near the limits of the bounds, or anywhere.
    fn near() -> impl Strategy<Value = u32> {
        prop_oneof![
            8 => 0u32..4,
            8 => (0u32..6).prop_map(|n| 1_000 + n),
            4 => (0u32..4).prop_map(|n| MIN_ACK_WINDOW + n - 2),
            4 => (0u32..4).prop_map(|n| n.wrapping_sub(2)),
            2 => 0u32..200_000,
            1 => any::<u32>(),
        ]
    }

    prop_compose! {
        fn peer(base: u32)(
            end in near(), max_end in near(), max_window in near(), max_ack in near(),
        ) -> Peer {
            Peer {
                end: SeqNum(base.wrapping_add(end)),
                max_end: SeqNum(base.wrapping_add(max_end)),
                max_window,
                max_ack: SeqNum(base.wrapping_add(max_ack)),
            }
        }
    }

    /// Tracks of every state, and the number that theirs are near: nearly all are
    /// established, and most are strict.
    fn track() -> impl Strategy<Value = (u32, Track)> {
        let base = prop_oneof![Just(0u32), Just(u32::MAX - 1_000), Just(0x7fff_ff00)];
        let track = base.prop_flat_map(|base| {
            let position = prop_oneof![
                6 => Just(0x33u8), 6 => Just(0xb3), 2 => Just(0x23), 1 => any::<u8>(),
            ];
            let last = (near(), prop_oneof![0u16..4, any::<u16>()], any::<u16>());
            let flags = prop_oneof![
                6 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| [a & 0x9f | 0x10, b | 0x10]),
                1 => any::<[u8; 2]>(),
            ];
            (
                peer(base),
                peer(base),
                last,
                0u8..15,
                0u8..15,
                flags,
                position,
            )
                .prop_map(
                    move |(original, reply, last, low, high, flags, position)| {
                        let track = Track {
                            peers: [original, reply],
                            last_end: SeqNum(base.wrapping_add(last.0)),
                            last_window: last.1,
                            last_mark: last.2,
                            scales: low | high << 4,
                            flags,
                            position,
                        };
                        (base, track)
                    },
                )
        });
        track.prop_filter("a state that can be restored", |(_, track)| {
            track.is_sound()
        })
    }

    prop_compose! {
        fn segments()(
            seq in near(), ack in near(), len in prop_oneof![Just(0u16), 1u16..4, any::<u16>()],
            window in prop_oneof![0u16..4, any::<u16>()],
        ) -> Ack {
            Ack {
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                window,
                payload_len: len,
            }
        }
    }

    fn full(ack: &Ack) -> Segment {
        Segment {
            seq: ack.seq,
            ack: ack.ack,
            flags: TcpFlags::ACK,
            window: ack.window,
            payload_len: u32::from(ack.payload_len),
            urgent: 0,
            options: TcpOptions::default(),
        }
    }

    /// Compares one segment, and returns whether the short way has taken it.
    fn compare(track: Track, direction: Direction, ack: &Ack) -> bool {
        let known = Known {
            seen_reply: true,
            assured: true,
            split_handshake: false,
        };
        let (mut short, mut long) = (track, track);
        let Some(waits) = short.usual(direction, ack) else {
            assert_eq!(short, track, "a segment that is left changes nothing");
            return false;
        };
        let outcome = long.segment(direction, &full(ack), known, |_| {});
        let lifetime = Lifetime {
            class: LifetimeClass::TcpEstablished,
            cap: waits.then_some(LifetimeClass::TcpUnacknowledged),
        };
        let expected = Outcome::Accept {
            lifetime: Some(lifetime),
            assured: true,
            tolerated: None,
        };
        assert_eq!(outcome, expected, "{track:?} {direction} {ack:?}");
        assert_eq!(short, long, "{track:?} {direction} {ack:?}");
        true
    }

    #[test]
    fn a_segment_has_the_effect_that_the_full_judgment_has() {
        let inputs = (track(), any::<bool>(), segments());
        let taken = std::cell::Cell::new(0);
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 50_000,
            ..ProptestConfig::default()
        });
        let result = runner.run(&inputs, |((base, track), reply, segment)| {
            let direction = if reply {
                Direction::Reply
            } else {
                Direction::Original
            };
            let segment = Ack {
                seq: segment.seq.add(base),
                ack: segment.ack.add(base),
                ..segment
            };
            taken.set(taken.get() + u32::from(compare(track, direction, &segment)));
            Ok(())
        });
        result.expect("both judgments agree");
        assert!(taken.get() > 1_000, "{} took the short way", taken.get());
    }

    /// Two ends that take turns sending data, so that the comparison above covers something.
    #[test]
    fn a_plain_transfer_takes_the_short_way_throughout() {
        let syn = |flags, seq, ack| Segment {
            seq: SeqNum(seq),
            flags,
            ..full(&Ack {
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                window: 60_000,
                payload_len: 0,
            })
        };
        let mut track = Track::open(&syn(TcpFlags::SYN, 0, 0)).expect("a SYN");
        let known = Known {
            seen_reply: false,
            assured: false,
            split_handshake: false,
        };
        let answer = syn(TcpFlags::SYN | TcpFlags::ACK, 0, 1);
        let _ = track.segment(Direction::Reply, &answer, known, |_| {});
        let last = syn(TcpFlags::ACK, 1, 1);
        let _ = track.segment(Direction::Original, &last, known, |_| {});
        // The first acknowledgment of the responder after its SYN-ACK is usual as well.
        let mut sent = [SeqNum(1); 2];
        for turn in 0..1_000u32 {
            let direction = Direction::BOTH[(turn % 2) as usize];
            let [own, other] = match direction {
                Direction::Original => [0, 1],
                Direction::Reply => [1, 0],
            };
            let ack = Ack {
                seq: sent[own],
                ack: sent[other],
                window: 60_000,
                payload_len: 1 + (turn % 1_400) as u16,
            };
            assert!(compare(track, direction, &ack), "turn {turn}");
            let _ = track.usual(direction, &ack);
            sent[own] = sent[own].add(u32::from(ack.payload_len));
        }
    }
}
