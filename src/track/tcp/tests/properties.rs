//! Properties of the tracker for any segments.

use proptest::prelude::*;

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags, TcpOptions};
use crate::track::tcp::{Outcome, PassReason, PeerFlags, State, Step, window};

use super::{ACK, Done, FIN, RST, SYN, Session, bare};

/// A number relative to an initial sequence number: mostly a fitting one, seldom an arbitrary one.
fn any_offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 0u32..4,
        4 => 0u32..3_000,
        2 => (0u32..70_000).prop_map(u32::wrapping_neg),
        1 => 0u32..200_000,
        1 => any::<u32>(),
    ]
}

#[derive(Debug, Clone)]
struct Any {
    direction: Direction,
    segment: Segment,
    /// Numbers count from the ends' initial ones; otherwise they are as on the wire.
    relative: bool,
}

prop_compose! {
    fn any_segment()(
        direction in prop::sample::select(&Direction::BOTH[..]),
        flags in prop::sample::select(vec![
            SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK,
            SYN | TcpFlags::URG, ACK | TcpFlags::PSH, ACK | TcpFlags::URG,
        ]),
        seq in any_offset(),
        ack in any_offset(),
        window in prop_oneof![Just(0u16), 1u16..2_000, any::<u16>()],
        payload_len in prop_oneof![3 => Just(0u32), 2 => 1u32..1_500, 1 => 0u32..65_536],
        window_scale in prop::option::of(0u8..=14),
        sack_permitted in any::<bool>(),
        sack in prop::collection::vec((any_offset(), any_offset()), 0..3),
        relative in prop::bool::weighted(0.95),
    ) -> Any {
        // A SYN has nothing to acknowledge selectively.
        let blocks = if flags.contains(SYN) { Vec::new() } else { sack };
        let sack = blocks.into_iter().map(|(left, right)| (SeqNum(left), SeqNum(right))).collect();
        Any {
            direction,
            segment: Segment {
                window,
                payload_len,
                options: TcpOptions { window_scale, sack_permitted, sack, ..TcpOptions::default() },
                ..bare(flags, SeqNum(seq), SeqNum(ack))
            },
            relative,
        }
    }
}

impl Any {
    fn from(&self, [original, reply]: [u32; 2]) -> Segment {
        if !self.relative {
            return self.segment;
        }
        let (own, other) = match self.direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        let mut segment = self.segment;
        segment.seq = segment.seq.add(own);
        segment.ack = segment.ack.add(other);
        segment.options.sack = segment
            .options
            .sack
            .iter()
            .map(|(left, right)| (left.add(other), right.add(other)))
            .collect();
        segment
    }
}

fn any_initial() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0u32..3,
        (u32::MAX - 3_000)..=u32::MAX,
        0x7fff_f000u32..0x8000_0010,
    ]
}

/// A session after the handshake, or before its first segment.
fn begin(established: bool, [original, reply]: [u32; 2]) -> Session {
    let mut session = Session::NONE;
    if established {
        let (o, r) = (SeqNum(original), SeqNum(reply));
        for (direction, segment) in [
            (Direction::Original, bare(SYN, o, SeqNum(0))),
            (Direction::Reply, bare(SYN | ACK, r, o.add(1))),
            (Direction::Original, bare(ACK, o.add(1), r.add(1))),
        ] {
            let window = 2_000;
            session.pass(direction, &Segment { window, ..segment }, |_| {});
        }
    }
    session
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_invalid_segment_changes_nothing_and_no_state_goes_back_to_the_handshake(
        initial in [any_initial(), any_initial()],
        established in any::<bool>(),
        segments in prop::collection::vec(any_segment(), 1..40),
    ) {
        let mut session = begin(established, initial);
        for any in segments {
            let segment = any.from(initial);
            let before = session;
            let mut resynced = false;
            let done = session.pass(any.direction, &segment, |step| {
                if let Step::Note(note) = step {
                    resynced |= note.contains("synchronized with both ends");
                }
            });
            let (Some(track_before), Done::Judged(outcome)) = (before.track, done) else {
                prop_assert!(before.track.is_none());
                prop_assert_eq!(done == Done::Opened, session.track.is_some());
                continue;
            };
            match outcome {
                Outcome::Invalid(fault) => {
                    prop_assert_eq!(session.track, before.track, "{:?} of {:?}", fault, segment);
                }
                Outcome::Pass(reason) => {
                    let state = session.track.map(|track| track.state());
                    prop_assert_eq!(state, Some(track_before.state()), "{:?}", reason);
                }
                Outcome::Accept { assured, .. } => {
                    let state = session.track.unwrap().state();
                    if track_before.state() as u8 >= State::Established as u8 && !resynced {
                        prop_assert!(
                            state as u8 >= State::Established as u8,
                            "back to {state:?} by {segment:?}"
                        );
                    }
                    if resynced {
                        prop_assert_eq!(state, State::SynRecv);
                    }
                    if assured && !before.known.assured {
                        prop_assert_eq!(state, State::Established);
                        prop_assert!(before.known.seen_reply || any.direction == Direction::Reply);
                    }
                }
                Outcome::Reopen => {
                    prop_assert!(matches!(track_before.state(), State::TimeWait | State::Close));
                    prop_assert!(segment.flags.contains(SYN) && !segment.flags.contains(ACK));
                }
                Outcome::AcceptAndEnd => {
                    prop_assert!(segment.flags.contains(RST) && !before.known.seen_reply);
                }
            }
        }
    }

    /// A reset closes a live connection only with the number that its receiver expects next, or
    /// directly after the last data of its own sender. The number that a receiver expects is
    /// unknown before its first ACK (simultaneous open).
    #[test]
    fn an_established_connection_is_closed_by_an_exact_reset_alone(
        initial in [any_initial(), any_initial()],
        segments in prop::collection::vec(any_segment(), 1..40),
    ) {
        let mut session = begin(true, initial);
        let mut last: Option<(Direction, TcpFlags, SeqNum)> = None;
        for any in segments {
            let segment = any.from(initial);
            let before = session;
            let done = session.pass(any.direction, &segment, |_| {});
            let (Some(track_before), Some(track)) = (before.track, session.track) else {
                break;
            };
            let was_open = track_before.state() == State::Established;
            let closed = was_open && track.state() == State::Close;
            let receiver = track_before.side(any.direction.opposite());
            if closed && receiver.flags.contains(PeerFlags::MAX_ACK_KNOWN) {
                let expected = receiver.peer.max_ack;
                let own_end = matches!(
                    last,
                    Some((direction, flags, end))
                        if direction == any.direction && flags.contains(ACK) && end == segment.seq
                );
                prop_assert!(segment.flags.contains(RST));
                prop_assert!(
                    segment.seq == expected || own_end,
                    "{segment:?} expected {expected:?}"
                );
            }
            let is_outside = matches!(
                done,
                Done::Judged(
                    Outcome::Invalid(_) | Outcome::Pass(PassReason::Window(_) | PassReason::Rst)
                )
            );
            if !is_outside {
                let end = segment.seq.add(window::sequence_len(&segment));
                last = Some((any.direction, segment.flags, end));
            }
        }
    }
}
