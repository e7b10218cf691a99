//! The four bounds of the window, each at its limit, one below and one above, with the limit itself
//! placed where 32 bits wrap or change their sign.

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpOptions};
use crate::track::Lifetime;
use crate::track::tcp::window::MIN_ACK_WINDOW;
use crate::track::tcp::{Bound, BoundCheck, Fault, Outcome, PassReason, State, Step, Track};

use super::{ACK, Done, SYN, Session, bare};

/// Positions of the limits.
const PLACES: [u32; 9] = [
    0,
    1,
    u32::MAX,
    u32::MAX - 1,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    65_999,
    0x4000_0000,
];

/// Window scales of the initiator's and the responder's SYN, and the resulting scales.
type Scales = ([Option<u8>; 2], [u8; 2]);
const SCALES: [Scales; 5] = [
    ([None, None], [0, 0]),
    ([Some(7), Some(7)], [7, 7]),
    ([Some(3), Some(0)], [3, 0]),
    ([Some(14), Some(14)], [14, 14]),
    ([Some(5), None], [0, 0]),
];

/// The window field of every segment after the handshake.
const WINDOW: u16 = 2_000;
/// Bytes that each end has sent, all acknowledged; with the SYN, its next number is 1001.
const SENT: u32 = 1_000;

/// An established connection on which both ends have sent [`SENT`] bytes.
struct Fixture {
    session: Session,
    sender: Direction,
    /// Window of sender and receiver, scaled.
    windows: [u32; 2],
    /// Next number of sender and receiver.
    next: [SeqNum; 2],
}

impl Fixture {
    /// `initial`: the initial sequence numbers of sender and receiver.
    fn new(sender: Direction, initial: [u32; 2], (offered, shifts): Scales, sack: bool) -> Self {
        let of_sender = |pair: [u32; 2]| match sender {
            Direction::Original => pair,
            Direction::Reply => [pair[1], pair[0]],
        };
        let [original, reply] = of_sender(initial).map(SeqNum);
        let [o_syn, r_syn] = offered.map(|window_scale| TcpOptions {
            window_scale,
            sack_permitted: sack,
            ..TcpOptions::default()
        });
        let (o, r) = (Direction::Original, Direction::Reply);
        let ack = |seq, ack| Segment {
            window: WINDOW,
            ..bare(ACK, seq, ack)
        };
        let data = |seq, number| Segment {
            payload_len: SENT,
            ..ack(seq, number)
        };
        let (o1, r1) = (original.add(1), reply.add(1));
        let (o2, r2) = (o1.add(SENT), r1.add(SENT));
        let mut session = Session::NONE;
        for (direction, segment) in [
            (
                o,
                Segment {
                    window: WINDOW,
                    options: o_syn,
                    ..bare(SYN, original, SeqNum(0))
                },
            ),
            (
                r,
                Segment {
                    window: WINDOW,
                    options: r_syn,
                    ..bare(SYN | ACK, reply, o1)
                },
            ),
            (o, ack(o1, r1)),
            (r, ack(r1, o1)),
            (o, data(o1, r1)),
            (r, data(r1, o2)),
            (o, ack(o2, r2)),
        ] {
            let done = session.pass(direction, &segment, |_| {});
            assert!(
                matches!(done, Done::Opened | Done::Judged(Outcome::Accept { .. })),
                "{done:?}"
            );
        }
        Self {
            session,
            sender,
            windows: of_sender(shifts.map(|shift| u32::from(WINDOW) << shift)),
            next: of_sender([o2.0, r2.0]).map(SeqNum),
        }
    }

    fn track(&self) -> Track {
        self.session.track.unwrap()
    }

    /// Returns the outcome for the segment, and the check of the bound.
    fn judge(&self, segment: &Segment, bound: Bound) -> (Outcome, BoundCheck, Track) {
        let mut session = self.session;
        let mut found = None;
        let done = session.pass(self.sender, segment, |step| match step {
            Step::Bound(check) if check.bound == bound => found = Some(check),
            _ => {}
        });
        let Done::Judged(outcome) = done else {
            panic!("{done:?}");
        };
        (outcome, found.unwrap(), session.track.unwrap())
    }
}

/// A segment whose number for a bound is the limit plus `offset`.
type Probe = fn(fixture: &Fixture, limit: SeqNum, offset: i32) -> Segment;

/// The limit of a bound, counted from the initial number that moves it: that of the sender for I
/// and II, that of the receiver for III and IV. Windows: sender, receiver.
fn limit_from_initial(bound: Bound, [sender_window, receiver_window]: [u32; 2]) -> u32 {
    let next = 1 + SENT;
    match bound {
        Bound::SeqUpper => next + receiver_window,
        Bound::SeqLower => next.wrapping_sub(receiver_window),
        Bound::AckUpper => next,
        Bound::AckLower => next.wrapping_sub(sender_window.max(MIN_ACK_WINDOW)),
    }
}

fn at(limit: SeqNum, offset: i32) -> SeqNum {
    limit.add(offset as u32)
}

fn probe(seq: SeqNum, ack: SeqNum) -> Segment {
    Segment {
        window: WINDOW,
        ..bare(ACK, seq, ack)
    }
}

fn with_sack(segment: Segment, right: SeqNum) -> Segment {
    Segment {
        options: TcpOptions {
            sack: [(right.sub(10), right)].into_iter().collect(),
            ..TcpOptions::default()
        },
        ..segment
    }
}

const FITS: Option<Outcome> = None;
const ABOVE: Option<Outcome> = Some(Outcome::Pass(PassReason::Window(Bound::SeqUpper)));
const OLD_DATA: Option<Outcome> = Some(Outcome::Pass(PassReason::Window(Bound::SeqLower)));
const UNSEEN: Option<Outcome> = Some(Outcome::Invalid(Fault::AckOfUnseen));
const OLD_ACK: Option<Outcome> = Some(Outcome::Pass(PassReason::Window(Bound::AckLower)));

/// A row: name, bound, whether SACK is needed, the segment, and the expectation below, at and above
/// the limit.
type Row = (&'static str, Bound, bool, Probe, [Option<Outcome>; 3]);

const ROWS: [Row; 10] = [
    (
        "I: a bare ACK by its number",
        Bound::SeqUpper,
        false,
        |fixture, limit, offset| probe(at(limit, offset), fixture.next[1]),
        [FITS, FITS, ABOVE],
    ),
    (
        "I: data by its first byte",
        Bound::SeqUpper,
        false,
        |fixture, limit, offset| Segment {
            payload_len: 500,
            ..probe(at(limit, offset), fixture.next[1])
        },
        [FITS, FITS, ABOVE],
    ),
    (
        "II: a bare ACK by its number",
        Bound::SeqLower,
        false,
        |fixture, limit, offset| probe(at(limit, offset), fixture.next[1]),
        [OLD_DATA, FITS, FITS],
    ),
    (
        "II: data by its end",
        Bound::SeqLower,
        false,
        |fixture, limit, offset| Segment {
            payload_len: 700,
            ..probe(at(limit, offset).sub(700), fixture.next[1])
        },
        [OLD_DATA, FITS, FITS],
    ),
    (
        "III: the acknowledgment number",
        Bound::AckUpper,
        false,
        |fixture, limit, offset| probe(fixture.next[0], at(limit, offset)),
        [FITS, FITS, UNSEEN],
    ),
    (
        "III: the right edge of a SACK block",
        Bound::AckUpper,
        true,
        |fixture, limit, offset| {
            let segment = probe(fixture.next[0], limit.sub(600));
            with_sack(segment, at(limit, offset))
        },
        [FITS, FITS, UNSEEN],
    ),
    (
        "III: the left edge of a SACK block",
        Bound::AckUpper,
        true,
        |fixture, limit, offset| Segment {
            options: TcpOptions {
                sack: [(at(limit, offset), limit.sub(700))].into_iter().collect(),
                ..TcpOptions::default()
            },
            ..probe(fixture.next[0], limit.sub(600))
        },
        [FITS, FITS, UNSEEN],
    ),
    (
        "IV: the acknowledgment number",
        Bound::AckLower,
        false,
        |fixture, limit, offset| probe(fixture.next[0], at(limit, offset)),
        [OLD_ACK, FITS, FITS],
    ),
    (
        "IV: the right edge of a SACK block",
        Bound::AckLower,
        true,
        |fixture, limit, offset| {
            let segment = probe(fixture.next[0], limit.sub(600));
            with_sack(segment, at(limit, offset))
        },
        [OLD_ACK, FITS, FITS],
    ),
    (
        "IV: a SACK block below the acknowledgment number does not count",
        Bound::AckLower,
        true,
        |fixture, limit, offset| {
            let segment = probe(fixture.next[0], at(limit, offset));
            with_sack(segment, limit.sub(600))
        },
        [OLD_ACK, FITS, FITS],
    ),
];

#[test]
fn each_bound_holds_up_to_its_limit_and_no_further() {
    for (name, bound, needs_sack, make, expected) in ROWS {
        for scales in SCALES {
            for sack in [false, true] {
                if needs_sack && !sack {
                    continue;
                }
                for sender in Direction::BOTH {
                    for place in PLACES {
                        let windows = Fixture::new(sender, [0, 0], scales, sack).windows;
                        let moving = place.wrapping_sub(limit_from_initial(bound, windows));
                        let initial = match bound {
                            Bound::SeqUpper | Bound::SeqLower => [moving, 1_234_567_890],
                            Bound::AckUpper | Bound::AckLower => [3_456_789_012, moving],
                        };
                        let fixture = Fixture::new(sender, initial, scales, sack);
                        for (offset, expected) in [-1, 0, 1].into_iter().zip(expected) {
                            let segment = make(&fixture, SeqNum(place), offset);
                            let (outcome, check, after) = fixture.judge(&segment, bound);
                            let case = format!(
                                "{name}; limit at {place}, offset {offset}, {sender}, scales \
                                 {scales:?}, sack {sack}"
                            );
                            assert_eq!(check.limit, SeqNum(place), "{case}");
                            assert_eq!(check.value, at(SeqNum(place), offset), "{case}");
                            assert_eq!(check.holds, expected.is_none(), "{case}");
                            match expected {
                                Some(expected) => assert_eq!(outcome, expected, "{case}"),
                                None => assert!(
                                    matches!(
                                        outcome,
                                        Outcome::Accept {
                                            lifetime: Some(Lifetime { .. }),
                                            ..
                                        }
                                    ),
                                    "{case}: {outcome:?}"
                                ),
                            }
                            // Old and invalid segments change no numbers; only an overshoot moves
                            // the sender's end.
                            if expected.is_some() && expected != ABOVE {
                                assert_eq!(after, fixture.track(), "{case}");
                            }
                            assert_eq!(after.state(), State::Established, "{case}");
                        }
                    }
                }
            }
        }
    }
}

/// A SACK block is ignored if the other end has not permitted SACK.
#[test]
fn unpermitted_sack_blocks_move_neither_acknowledgment_bound() {
    for sender in Direction::BOTH {
        for place in PLACES {
            let fixture = Fixture::new(sender, [7, place], SCALES[0], false);
            let [next, ack] = fixture.next;
            let beyond = with_sack(probe(next, ack), ack.add(1));
            let (outcome, check, _) = fixture.judge(&beyond, Bound::AckUpper);
            assert!(check.holds, "{outcome:?}");
            let old = ack.sub(MIN_ACK_WINDOW + 1);
            let hidden = with_sack(probe(next, old), ack);
            let (outcome, check, _) = fixture.judge(&hidden, Bound::AckLower);
            assert_eq!((Some(outcome), check.value), (OLD_ACK, old));
        }
    }
}

/// An acknowledgment of data that was never sent lies after both edges of an honest block, if it is
/// far enough away.
#[test]
fn sack_blocks_do_not_hide_an_acknowledgment_on_the_other_side_of_the_circle() {
    for sender in Direction::BOTH {
        for place in PLACES {
            let fixture = Fixture::new(sender, [7, place], SCALES[0], true);
            let [next, sent] = fixture.next;
            let mut far = probe(next, sent.add(0x7fff_ffff));
            far.options.sack = [(sent.sub(732), sent)].into_iter().collect();
            let (outcome, check, track) = fixture.judge(&far, Bound::AckUpper);
            assert_eq!(outcome, Outcome::Invalid(Fault::AckOfUnseen), "{check:?}");
            assert_eq!(track, fixture.track());
        }
    }
}

/// A sender may overshoot the offered window by less than a window, if the rest of the segment is
/// correct.
#[test]
fn an_overshoot_passes_up_to_a_window() {
    let beyond = Some(Outcome::Invalid(Fault::SeqAboveWindow));
    for scales in SCALES {
        for sender in Direction::BOTH {
            for place in PLACES {
                let windows = Fixture::new(sender, [0, 0], scales, false).windows;
                let limit = limit_from_initial(Bound::SeqUpper, windows);
                let fixture = Fixture::new(sender, [place.wrapping_sub(limit), 99], scales, false);
                let [window, receiver_window] = fixture.windows;
                let end = SeqNum(place).add(receiver_window);
                let perfect = fixture.next[1];
                let oldest = perfect.sub(window.max(MIN_ACK_WINDOW));
                for (name, end, len, ack, expected) in [
                    ("one byte short of a window", end.sub(1), 0, perfect, ABOVE),
                    ("a window", end, 0, perfect, beyond),
                    ("data, one byte short", end.sub(1), 300, perfect, ABOVE),
                    ("data, a window", end, 300, perfect, beyond),
                    ("the oldest acknowledgment", end.sub(1), 300, oldest, ABOVE),
                    (
                        "too old an acknowledgment",
                        end.sub(1),
                        300,
                        oldest.sub(1),
                        beyond,
                    ),
                    (
                        "acknowledges too much",
                        end.sub(1),
                        300,
                        perfect.add(1),
                        beyond,
                    ),
                ] {
                    let segment = Segment {
                        payload_len: len,
                        ..probe(end.sub(len), ack)
                    };
                    let (outcome, check, after) = fixture.judge(&segment, Bound::SeqUpper);
                    let case = format!("{name}; limit at {place}, {sender}, scales {scales:?}");
                    assert_eq!((check.limit, check.holds), (SeqNum(place), false), "{case}");
                    assert_eq!(Some(outcome), expected, "{case}");
                    if expected == ABOVE {
                        assert_eq!(after.side(sender).peer.end, end, "{case}");
                    } else {
                        assert_eq!(after, fixture.track(), "{case}");
                    }
                }
            }
        }
    }
}

/// Without the flag ACK, the acknowledgment number is ignored.
#[test]
fn an_acknowledgment_number_without_its_flag_is_not_checked() {
    for place in PLACES {
        let fixture = Fixture::new(Direction::Reply, [42, place], SCALES[0], true);
        let reset = with_sack(
            bare(super::RST, fixture.next[0], fixture.next[1].add(5_000)),
            fixture.next[1].add(9_000),
        );
        for bound in [Bound::AckUpper, Bound::AckLower] {
            let (outcome, check, _) = fixture.judge(&reset, bound);
            assert!(check.holds && check.value == fixture.next[1], "{check:?}");
            assert!(matches!(outcome, Outcome::Accept { .. }), "{outcome:?}");
        }
    }
}
