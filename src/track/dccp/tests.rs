//! The table row by row, and stories of connections.

use super::*;
use crate::track::LifetimeClass;
use DccpType::{Ack, Close, CloseReq, Data, DataAck, Request, Reset, Response, Sync, SyncAck};
use Direction::{Original, Reply};

/// The first numbers of client and server; the client's wraps soon.
const C: u64 = MASK - 1;
const S: u64 = 500;

fn of(kind: DccpType, seq: u64, ack: Option<u64>) -> DccpPacket {
    DccpPacket {
        kind,
        seq: Some(seq & MASK),
        ack: ack.map(|ack| ack & MASK),
        payload_len: 0,
    }
}

/// Outcome for a packet, and the state after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Believed.
    Is(State),
    /// Passed, the state stays.
    Passed(State),
    Refused,
    Reopened,
    Dropped(Fault),
}
use Seen::{Dropped, Is, Passed, Refused, Reopened};

#[track_caller]
fn send(track: &mut Track, direction: Direction, packet: DccpPacket) -> Seen {
    let before = *track;
    // State in a slot between two packets.
    *track = Track::from_words(track.to_words());
    assert_eq!(*track, before);
    match track.packet(direction, &packet) {
        Outcome::Accept {
            lifetime: Some(lifetime),
            assured,
        } => {
            assert_eq!(lifetime, track.state().lifetime());
            assert_eq!(
                assured,
                track.state().eviction_class() == crate::track::EvictionClass::Assured
            );
            Is(track.state())
        }
        Outcome::Accept { lifetime: None, .. } => {
            assert_eq!(track.state(), before.state());
            Passed(track.state())
        }
        other => match other {
            Outcome::End => Refused,
            Outcome::Reopen => Reopened,
            Outcome::Invalid(fault) => {
                assert_eq!(*track, before, "nothing has changed");
                Dropped(fault)
            }
            Outcome::Accept { .. } => unreachable!(),
        },
    }
}

#[track_caller]
fn tell(track: &mut Track, story: &[(Direction, DccpPacket, Seen)]) {
    for (line, (direction, packet, expected)) in story.iter().enumerate() {
        assert_eq!(
            send(track, *direction, *packet),
            *expected,
            "line {line}: {packet:?}"
        );
    }
}

fn opened() -> Track {
    Track::open(&of(Request, C, None)).unwrap()
}

/// A connection in a state: the client has sent up to `C + 1`, the server up to `S`.
fn in_state(state: State) -> Track {
    let mut track = opened();
    let life = [
        (Reply, of(Response, S, Some(C))),
        (Original, of(Ack, C + 1, Some(S))),
        (Reply, of(DataAck, S + 1, Some(C + 1))),
        (Reply, of(CloseReq, S + 2, Some(C + 1))),
        (Original, of(Close, C + 2, Some(S + 2))),
        (Reply, of(Reset, S + 3, Some(C + 2))),
    ];
    for (direction, packet) in &life[..state as usize] {
        assert!(matches!(send(&mut track, *direction, *packet), Is(_)));
    }
    assert_eq!(track.state(), state);
    track
}

#[test]
fn the_table_is_this_page() {
    // REQUEST, RESPOND, PARTOPEN, OPEN, CLOSEREQ, CLOSING, TIMEWAIT.
    const PAGE: [(&str, &str, &str); 20] = [
        ("original", "Request", "= = = = = = new"),
        ("original", "Response", "- - - - - - -"),
        ("original", "Data", "- - - OP CR CG -"),
        ("original", "Ack", "- PO PO OP CR CG -"),
        ("original", "DataAck", "- PO PO OP CR CG -"),
        ("original", "CloseReq", "- - - - - - -"),
        ("original", "Close", "- CG CG CG CG CG -"),
        ("original", "Reset", "= TW TW TW TW TW ="),
        ("original", "Sync", "- = PO OP CR CG ="),
        ("original", "SyncAck", "- = PO OP CR CG ="),
        ("reply", "Request", "- - = = = = new"),
        ("reply", "Response", "RS RS = = = = -"),
        ("reply", "Data", "- - OP OP CR CG -"),
        ("reply", "Ack", "- - OP OP CR CG -"),
        ("reply", "DataAck", "- - OP OP CR CG -"),
        ("reply", "CloseReq", "- - CR CR CR = -"),
        ("reply", "Close", "- - CG CG CG CG -"),
        ("reply", "Reset", "end TW TW TW TW TW ="),
        ("reply", "Sync", "- = OP OP CR CG ="),
        ("reply", "SyncAck", "- = OP OP CR CG ="),
    ];
    let short = |cell| match cell {
        Cell::To(state) => match state {
            State::Request => "RQ",
            State::Respond => "RS",
            State::PartOpen => "PO",
            State::Open => "OP",
            State::CloseReq => "CR",
            State::Closing => "CG",
            State::TimeWait => "TW",
        },
        Cell::Ignore => "=",
        Cell::End => "end",
        Cell::Reopen => "new",
        Cell::Invalid => "-",
    };
    let mut rows = PAGE.iter();
    for direction in Direction::BOTH {
        for kind in DccpType::ALL {
            let cells = State::ALL.map(|state| short(transition(direction, kind, state)));
            let row = (direction.name(), kind.name(), cells.join(" "));
            let (direction, kind, cells) = *rows.next().unwrap();
            assert_eq!(row, (direction, kind, cells.to_owned()));
        }
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn every_state_survives_the_slot_and_has_a_lifetime_of_its_own() {
    let mut classes: Vec<LifetimeClass> = Vec::new();
    for state in State::ALL {
        assert_eq!(State::from_bits(state as u8), state);
        let track = in_state(state);
        assert_eq!(Track::from_words(track.to_words()), track);
        assert!(state.lifetime().name().starts_with("dccp."));
        classes.push(state.lifetime());
    }
    classes.dedup();
    assert_eq!(classes.len(), State::ALL.len());
}

#[test]
fn only_a_request_opens() {
    for kind in DccpType::ALL {
        assert_eq!(
            Track::open(&of(kind, C, Some(0))).is_some(),
            kind == Request,
            "{kind:?}"
        );
    }
}

#[test]
fn a_connection_opens_talks_and_closes() {
    let mut track = opened();
    tell(
        &mut track,
        &[
            (Original, of(Request, C + 1, None), Passed(State::Request)),
            (Reply, of(Response, S, Some(C)), Is(State::Respond)),
            (Reply, of(Response, S + 1, Some(C + 1)), Is(State::Respond)),
            (Original, of(DataAck, C + 2, Some(S)), Is(State::PartOpen)),
            (Original, of(Ack, C + 3, Some(S)), Is(State::PartOpen)),
            (Reply, of(Response, S, Some(C + 1)), Passed(State::PartOpen)),
            (Reply, of(Ack, S + 2, Some(C + 3)), Is(State::Open)),
            (Original, of(Data, C + 4, None), Is(State::Open)),
            (Original, of(Sync, C + 5, Some(7)), Is(State::Open)),
            (Reply, of(SyncAck, S + 3, Some(C + 5)), Is(State::Open)),
            (Reply, of(CloseReq, S + 4, Some(C + 5)), Is(State::CloseReq)),
            (Original, of(Close, C + 6, Some(S + 4)), Is(State::Closing)),
            (Reply, of(Reset, S + 5, Some(C + 6)), Is(State::TimeWait)),
            (Reply, of(Data, S + 6, None), Dropped(Fault::State)),
            (Original, of(Request, 9, None), Reopened),
            (Reply, of(Request, 9, None), Reopened),
        ],
    );
    assert!(!track.is_aborted());
}

#[test]
fn a_reset_that_answers_no_close_aborts() {
    for (direction, packet) in [
        (Original, of(Reset, 0, Some(S))),
        (Reply, of(Reset, 0, Some(C + 1))),
    ] {
        let mut track = in_state(State::Open);
        assert_eq!(send(&mut track, direction, packet), Is(State::TimeWait));
        assert!(track.is_aborted());
    }
}

#[test]
fn a_reset_that_is_the_only_answer_refuses() {
    assert_eq!(send(&mut opened(), Reply, of(Reset, 0, Some(C))), Refused);
    assert_eq!(
        send(&mut opened(), Reply, of(Reset, 0, Some(C + 1))),
        Dropped(Fault::Ack)
    );
    assert_eq!(
        send(&mut opened(), Original, of(Reset, C + 1, Some(0))),
        Passed(State::Request)
    );
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    // The client has sent C to C + 1, the server S to S + 1.
    for kind in [Ack, DataAck, Close, Reset] {
        for (direction, first, last) in [(Original, S, S + 1), (Reply, C, C + 1)] {
            let judge = |ack| {
                send(
                    &mut in_state(State::Open),
                    direction,
                    of(kind, 1, Some(ack)),
                )
            };
            for good in [first, last] {
                assert!(matches!(judge(good), Is(_)), "{kind:?} {direction} {good}");
            }
            for bad in [first - 1, last + 1, first + (1 << 40)] {
                assert_eq!(
                    judge(bad),
                    Dropped(Fault::Ack),
                    "{kind:?} {direction} {bad}"
                );
            }
        }
    }
    let response = of(Response, S, Some(C + 1));
    assert_eq!(send(&mut opened(), Reply, response), Dropped(Fault::Ack));
}

#[test]
fn a_guessed_number_extends_no_acknowledgment() {
    let mut track = in_state(State::Open);
    let leap = S + 1 + MAX_ADVANCE;
    tell(
        &mut track,
        &[
            (Reply, of(Data, leap + 1, None), Is(State::Open)),
            (Original, of(Reset, 1, Some(leap + 1)), Dropped(Fault::Ack)),
            (Reply, of(Data, leap, None), Is(State::Open)),
            (Original, of(Ack, C + 2, Some(leap)), Is(State::Open)),
        ],
    );
}

#[test]
fn short_numbers_are_taken_as_they_come() {
    let short = DccpPacket {
        kind: Ack,
        seq: None,
        ack: None,
        payload_len: 0,
    };
    assert_eq!(
        send(&mut in_state(State::Open), Original, short),
        Is(State::Open)
    );
}

#[test]
fn the_server_never_becomes_the_client_of_a_live_connection() {
    assert_eq!(
        send(&mut in_state(State::Respond), Reply, of(Request, S, None)),
        Dropped(Fault::State)
    );
    let mut track = in_state(State::Open);
    let before = track;
    assert_eq!(
        send(&mut track, Reply, of(Request, S + 5, None)),
        Passed(State::Open)
    );
    assert_eq!(
        send(&mut track, Original, of(Request, C + 5, None)),
        Passed(State::Open)
    );
    assert_eq!(track, before);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_packets_leave_a_track_that_fits_its_slot(
            packets in prop::collection::vec(
                (any::<bool>(), 0usize..10, any::<u64>(), prop::option::of(any::<u64>())), 0..60)
        ) {
            let mut track = opened();
            for (reply, kind, seq, ack) in packets {
                let direction = if reply { Reply } else { Original };
                let kind = DccpType::ALL[kind];
                let seq = if seq & 3 == 0 { seq >> 16 } else { C.wrapping_add(seq & 0xff) };
                let _ = send(&mut track, direction, of(kind, seq, ack.map(|ack| S + (ack & 3))));
            }
        }
    }
}
