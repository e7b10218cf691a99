//! The table row by row, and stories of associations.

use super::*;
use crate::track::LifetimeClass;
use Direction::{Original, Reply};

/// The tags chosen by the initiator and the responder: each is in the other end's packets.
const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0001;

fn chunks(tag: u32, chunks: SctpChunks) -> SctpPacket {
    SctpPacket {
        tag,
        initiate_tag: 0,
        chunks,
        reflected: false,
    }
}

fn init(initiate_tag: u32) -> SctpPacket {
    SctpPacket {
        initiate_tag,
        ..chunks(0, SctpChunks::INIT)
    }
}

fn init_ack(tag: u32, initiate_tag: u32) -> SctpPacket {
    SctpPacket {
        initiate_tag,
        ..chunks(tag, SctpChunks::INIT_ACK)
    }
}

fn reflected(tag: u32, kind: SctpChunks) -> SctpPacket {
    SctpPacket {
        reflected: true,
        ..chunks(tag, kind)
    }
}

const DATA: SctpChunks = SctpChunks::DATA;
const ECHO: SctpChunks = SctpChunks::COOKIE_ECHO;
const COOKIE_ACK: SctpChunks = SctpChunks::COOKIE_ACK;
const ABORT: SctpChunks = SctpChunks::ABORT;
const SHUTDOWN: SctpChunks = SctpChunks::SHUTDOWN;
const SHUTDOWN_ACK: SctpChunks = SctpChunks::SHUTDOWN_ACK;
const COMPLETE: SctpChunks = SctpChunks::SHUTDOWN_COMPLETE;

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
fn send(track: &mut Track, direction: Direction, packet: SctpPacket) -> Seen {
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
            assert_eq!(assured, track.state() == State::Established);
            Is(track.state())
        }
        Outcome::Accept { lifetime: None, .. } => {
            assert_eq!(track.state(), before.state());
            Passed(track.state())
        }
        other => {
            assert_eq!(*track, before, "nothing has changed");
            match other {
                Outcome::End => Refused,
                Outcome::Reopen => Reopened,
                Outcome::Invalid(fault) => Dropped(fault),
                Outcome::Accept { .. } => unreachable!(),
            }
        }
    }
}

#[track_caller]
fn tell(track: &mut Track, story: &[(Direction, SctpPacket, Seen)]) {
    for (line, (direction, packet, expected)) in story.iter().enumerate() {
        assert_eq!(
            send(track, *direction, *packet),
            *expected,
            "line {line}: {packet:?}"
        );
    }
}

fn opened() -> Track {
    Track::open(&init(A)).unwrap()
}

fn in_state(state: State) -> Track {
    let mut track = opened();
    let life = [
        (Reply, init_ack(A, B)),
        (Original, chunks(B, ECHO)),
        (Reply, chunks(A, COOKIE_ACK)),
        (Original, chunks(B, SHUTDOWN)),
        (Reply, chunks(A, SHUTDOWN_ACK)),
        (Original, chunks(B, COMPLETE)),
    ];
    let steps = match state {
        State::ShutdownRecd => 3,
        State::InitSent
        | State::CookieWait
        | State::CookieEchoed
        | State::Established
        | State::ShutdownSent => state as usize,
        State::ShutdownAckSent => 5,
        State::Closed => 6,
    };
    for (direction, packet) in &life[..steps] {
        assert!(matches!(send(&mut track, *direction, *packet), Is(_)));
    }
    if state == State::ShutdownRecd {
        assert_eq!(send(&mut track, Reply, chunks(A, SHUTDOWN)), Is(state));
    }
    assert_eq!(track.state(), state);
    track
}

#[test]
fn the_table_is_this_page() {
    // INIT_SENT, COOKIE_WAIT, COOKIE_ECHOED, ESTABLISHED, SHUTDOWN_SENT, SHUTDOWN_RECD,
    // SHUTDOWN_ACK_SENT, CLOSED.
    const PAGE: [(&str, &str, &str); 18] = [
        ("original", "INIT", "= = = = = = = new"),
        ("original", "INIT ACK", "CW = = - - - - -"),
        ("original", "COOKIE ECHO", "- CE CE = = = = -"),
        ("original", "COOKIE ACK", "- - ES ES = = = -"),
        ("original", "other", "- - CE ES SS SR SA ="),
        ("original", "SHUTDOWN", "- - = SS SS SR SA ="),
        ("original", "SHUTDOWN ACK", "- - = - SA SA SA ="),
        ("original", "SHUTDOWN COMPLETE", "- - - - - - CL ="),
        ("original", "ABORT", "CL CL CL CL CL CL CL ="),
        ("reply", "INIT", "= = = = = = = new"),
        ("reply", "INIT ACK", "CW = = - - - - -"),
        ("reply", "COOKIE ECHO", "- CE CE = = = = -"),
        ("reply", "COOKIE ACK", "- - ES ES = = = -"),
        ("reply", "other", "- - CE ES SS SR SA ="),
        ("reply", "SHUTDOWN", "- - = SR SS SR SA ="),
        ("reply", "SHUTDOWN ACK", "- - = - SA SA SA ="),
        ("reply", "SHUTDOWN COMPLETE", "- - - - - - CL ="),
        ("reply", "ABORT", "end CL CL CL CL CL CL ="),
    ];
    let short = |cell| match cell {
        Cell::To(state) => match state {
            State::InitSent => "IS",
            State::CookieWait => "CW",
            State::CookieEchoed => "CE",
            State::Established => "ES",
            State::ShutdownSent => "SS",
            State::ShutdownRecd => "SR",
            State::ShutdownAckSent => "SA",
            State::Closed => "CL",
        },
        Cell::Ignore => "=",
        Cell::End => "end",
        Cell::Reopen => "new",
        Cell::Invalid => "-",
    };
    let mut rows = PAGE.iter();
    for direction in Direction::BOTH {
        for event in Event::ALL {
            let cells = State::ALL.map(|state| short(transition(direction, event, state)));
            let row = (direction.name(), event.name(), cells.join(" "));
            let (direction, event, cells) = *rows.next().unwrap();
            assert_eq!(row, (direction, event, cells.to_owned()));
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
        assert!(state.lifetime().name().starts_with("sctp."));
        classes.push(state.lifetime());
    }
    classes.dedup();
    assert_eq!(classes.len(), State::ALL.len());
}

#[test]
fn only_an_init_opens() {
    for packet in [
        init_ack(A, B),
        chunks(A, ECHO),
        chunks(A, DATA),
        chunks(A, SctpChunks::HEARTBEAT),
        chunks(A, ABORT),
    ] {
        assert_eq!(Track::open(&packet), None);
    }
    assert_eq!(opened().state(), State::InitSent);
}

#[test]
fn an_association_is_set_up_used_and_shut_down() {
    tell(
        &mut opened(),
        &[
            (Reply, init_ack(A, B), Is(State::CookieWait)),
            (Original, chunks(B, ECHO.and(DATA)), Is(State::CookieEchoed)),
            (
                Reply,
                chunks(A, COOKIE_ACK.and(SctpChunks::SACK)),
                Is(State::Established),
            ),
            (Original, chunks(B, DATA), Is(State::Established)),
            (
                Reply,
                chunks(A, SctpChunks::HEARTBEAT),
                Is(State::Established),
            ),
            (
                Original,
                chunks(B, SctpChunks::HEARTBEAT_ACK),
                Is(State::Established),
            ),
            (
                Reply,
                chunks(A, SHUTDOWN.and(SctpChunks::SACK)),
                Is(State::ShutdownRecd),
            ),
            (Reply, chunks(A, SctpChunks::SACK), Is(State::ShutdownRecd)),
            (
                Original,
                chunks(B, SHUTDOWN_ACK),
                Is(State::ShutdownAckSent),
            ),
            (Reply, chunks(A, COMPLETE), Is(State::Closed)),
            // The SHUTDOWN COMPLETE was lost after the firewall.
            (Original, chunks(B, SHUTDOWN_ACK), Passed(State::Closed)),
            (Reply, reflected(B, COMPLETE), Passed(State::Closed)),
            (Original, init(A + 1), Reopened),
            (Reply, init(B + 1), Reopened),
        ],
    );
}

#[test]
fn both_ends_may_shut_down_at_once() {
    tell(
        &mut in_state(State::Established),
        &[
            (Original, chunks(B, SHUTDOWN), Is(State::ShutdownSent)),
            (Reply, chunks(A, SHUTDOWN), Is(State::ShutdownSent)),
            (
                Original,
                chunks(B, SHUTDOWN_ACK),
                Is(State::ShutdownAckSent),
            ),
            (Reply, chunks(A, SHUTDOWN_ACK), Is(State::ShutdownAckSent)),
            (Original, chunks(B, COMPLETE), Is(State::Closed)),
        ],
    );
}

#[test]
fn a_packet_of_another_tag_is_dropped_in_every_state() {
    for state in State::ALL {
        for direction in Direction::BOTH {
            let kinds = [
                DATA,
                ECHO,
                COOKIE_ACK,
                ABORT,
                SHUTDOWN,
                SHUTDOWN_ACK,
                COMPLETE,
                SctpChunks::HEARTBEAT,
            ];
            // The correct tag of the other direction, not reflected, is wrong too.
            let other = if direction == Original { A } else { B };
            for (kind, tag) in kinds
                .into_iter()
                .flat_map(|kind| [(kind, 77), (kind, other)])
            {
                let seen = send(&mut in_state(state), direction, chunks(tag, kind));
                assert!(
                    matches!(seen, Dropped(_)),
                    "{state:?} {direction} {kind}: {seen:?}"
                );
                if state != State::InitSent {
                    assert_eq!(seen, Dropped(Fault::Tag), "{state:?} {direction} {kind}");
                }
            }
            let seen = send(&mut in_state(state), direction, init_ack(77, 78));
            assert_eq!(seen, Dropped(Fault::Tag));
        }
    }
}

#[test]
fn the_t_bit_asks_for_the_other_ends_tag_and_for_it_alone() {
    let kinds = [
        (State::Established, ABORT),
        (State::ShutdownAckSent, COMPLETE),
    ];
    for (state, kind) in kinds {
        for (direction, own, other) in [(Original, B, A), (Reply, A, B)] {
            let judge = |packet| send(&mut in_state(state), direction, packet);
            assert_eq!(judge(chunks(own, kind)), Is(State::Closed));
            assert_eq!(judge(reflected(other, kind)), Is(State::Closed));
            assert_eq!(judge(reflected(own, kind)), Dropped(Fault::Tag));
            assert_eq!(judge(chunks(other, kind)), Dropped(Fault::Tag));
        }
    }
}

#[test]
fn an_abort_that_is_the_only_answer_refuses() {
    assert_eq!(send(&mut opened(), Reply, chunks(A, ABORT)), Refused);
    assert_eq!(
        send(&mut opened(), Reply, chunks(A + 1, ABORT)),
        Dropped(Fault::Tag)
    );
    let mut track = in_state(State::CookieWait);
    assert_eq!(send(&mut track, Reply, chunks(A, ABORT)), Is(State::Closed));
    assert!(track.is_aborted());
    assert!(!in_state(State::Closed).is_aborted());
}

#[test]
fn a_repeated_init_changes_and_refreshes_nothing() {
    let mut track = opened();
    let before = track;
    assert_eq!(send(&mut track, Original, init(A)), Passed(State::InitSent));
    assert_eq!(track, before);
}

#[test]
fn a_stale_init_ack_is_dropped_once_the_association_is_up() {
    let up = [
        State::Established,
        State::ShutdownSent,
        State::ShutdownRecd,
        State::ShutdownAckSent,
        State::Closed,
    ];
    for (state, tag) in up
        .into_iter()
        .flat_map(|state| [(state, B), (state, B + 1)])
    {
        let stale = send(&mut in_state(state), Reply, init_ack(A, tag));
        assert_eq!(stale, Dropped(Fault::State), "{state:?}");
        // The answer to an INIT that has just passed is not stale.
        let mut track = in_state(state);
        if state != State::Closed {
            assert_eq!(send(&mut track, Original, init(A + 9)), Passed(state));
            assert_eq!(send(&mut track, Reply, init_ack(A + 9, tag)), Passed(state));
            assert_eq!(
                send(&mut track, Reply, init_ack(A, tag)),
                Dropped(Fault::State)
            );
        }
    }
}

#[test]
fn either_of_two_init_acks_may_be_the_one_that_arrived() {
    for tag in [B, B + 1] {
        tell(
            &mut opened(),
            &[
                (Reply, init_ack(A, B), Is(State::CookieWait)),
                (Original, init(A), Passed(State::CookieWait)),
                (Reply, init_ack(A, B + 1), Passed(State::CookieWait)),
                (Original, chunks(tag, ECHO), Is(State::CookieEchoed)),
                (Reply, chunks(A, COOKIE_ACK), Is(State::Established)),
                (Original, chunks(tag, DATA), Is(State::Established)),
                (
                    Original,
                    chunks(B + (B + 1 - tag), DATA),
                    Dropped(Fault::Tag),
                ),
            ],
        );
    }
}

#[test]
fn a_restart_takes_over_with_its_cookie_ack_and_not_before() {
    let (a, b) = (A + 9, B + 9);
    for state in [
        State::Established,
        State::ShutdownSent,
        State::ShutdownRecd,
        State::ShutdownAckSent,
    ] {
        tell(
            &mut in_state(state),
            &[
                (Original, init(a), Passed(state)),
                (Original, chunks(B, SctpChunks::SACK), Is(state)),
                (Reply, init_ack(a, b), Passed(state)),
                (Reply, chunks(a, COOKIE_ACK), Dropped(Fault::Tag)),
                (Original, chunks(b, DATA), Dropped(Fault::Tag)),
                (Original, chunks(b, ECHO.and(DATA)), Passed(state)),
                (Reply, chunks(A, SctpChunks::SACK), Is(state)),
                (Reply, chunks(a, COOKIE_ACK), Is(State::Established)),
                (Reply, chunks(A, DATA), Dropped(Fault::Tag)),
                (Original, chunks(B, ABORT), Dropped(Fault::Tag)),
                (Original, chunks(b, DATA), Is(State::Established)),
            ],
        );
    }
}

#[test]
fn the_responder_may_restart_too() {
    let (a, b) = (A + 9, B + 9);
    tell(
        &mut in_state(State::Established),
        &[
            (Reply, init(b), Passed(State::Established)),
            (Original, init_ack(b, a), Passed(State::Established)),
            (Reply, chunks(a, ECHO), Passed(State::Established)),
            (Original, chunks(b, COOKIE_ACK), Is(State::Established)),
            (Reply, chunks(a, DATA), Is(State::Established)),
        ],
    );
}

#[test]
fn a_forged_init_leaves_the_association_as_it_is() {
    for direction in Direction::BOTH {
        tell(
            &mut in_state(State::Established),
            &[
                (direction, init(77), Passed(State::Established)),
                (Original, chunks(B, DATA), Is(State::Established)),
                (Reply, chunks(A, DATA), Is(State::Established)),
                // The answer to it proves nothing about the association.
                (
                    direction.opposite(),
                    chunks(77, ABORT),
                    Passed(State::Established),
                ),
                (Original, chunks(B, SHUTDOWN), Is(State::ShutdownSent)),
            ],
        );
    }
}

#[test]
fn two_inits_may_collide() {
    // RFC 9260 5.2.1: each answers with the tag of its own INIT.
    tell(
        &mut opened(),
        &[
            (Reply, init(B), Passed(State::InitSent)),
            (Original, init_ack(B, A), Is(State::CookieWait)),
            (Reply, init_ack(A, B), Passed(State::CookieWait)),
            (Reply, chunks(A, ECHO), Is(State::CookieEchoed)),
            (Original, chunks(B, ECHO), Is(State::CookieEchoed)),
            (Original, chunks(B, COOKIE_ACK), Is(State::Established)),
            (Reply, chunks(A, COOKIE_ACK), Is(State::Established)),
            (Original, chunks(B, DATA), Is(State::Established)),
            (Reply, chunks(A, DATA), Is(State::Established)),
        ],
    );
}

#[test]
fn of_two_handshakes_that_collide_one_is_enough() {
    // The first INIT was lost after the firewall.
    tell(
        &mut opened(),
        &[
            (Reply, init(B), Passed(State::InitSent)),
            (Original, init_ack(B, A), Is(State::CookieWait)),
            (Reply, chunks(A, ECHO), Is(State::CookieEchoed)),
            (Reply, chunks(A, COOKIE_ACK), Dropped(Fault::State)),
            (Original, chunks(B, COOKIE_ACK), Is(State::Established)),
            (Reply, chunks(A, DATA), Is(State::Established)),
            (Original, chunks(B, DATA), Is(State::Established)),
        ],
    );
}

#[test]
fn a_cookie_ack_answers_a_cookie_echo() {
    let mut track = in_state(State::CookieEchoed);
    assert_eq!(
        send(&mut track, Original, chunks(B, COOKIE_ACK)),
        Dropped(Fault::State)
    );
    assert_eq!(
        send(&mut track, Original, chunks(B, ECHO)),
        Is(State::CookieEchoed)
    );
    assert_eq!(
        send(&mut track, Reply, chunks(A, COOKIE_ACK)),
        Is(State::Established)
    );
}

#[test]
fn no_data_passes_before_the_cookie() {
    let states = [State::InitSent, State::CookieWait];
    for (state, direction, tag) in states
        .into_iter()
        .flat_map(|s| [(s, Original, B), (s, Reply, A)])
    {
        assert_eq!(
            send(&mut in_state(state), direction, chunks(tag, DATA)),
            Dropped(Fault::State)
        );
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn packet() -> impl Strategy<Value = (Direction, SctpPacket)> {
        let tag = prop::sample::select(vec![A, B, A + 1, B + 1]);
        let kind = prop::sample::select(vec![
            SctpChunks::INIT,
            SctpChunks::INIT_ACK,
            ECHO,
            COOKIE_ACK,
            DATA,
            ABORT,
            SHUTDOWN,
            SHUTDOWN_ACK,
            COMPLETE,
            ECHO.and(DATA),
            COOKIE_ACK.and(DATA),
            DATA.and(SHUTDOWN),
        ]);
        let direction = prop::sample::select(vec![Original, Reply]);
        (direction, kind, tag.clone(), tag, any::<bool>()).prop_map(
            |(direction, kind, tag, own, t)| {
                let opens = kind.any(SctpChunks::INIT);
                let packet = SctpPacket {
                    tag: if opens { 0 } else { tag },
                    initiate_tag: if opens || kind.any(SctpChunks::INIT_ACK) {
                        own
                    } else {
                        0
                    },
                    chunks: kind,
                    reflected: t && kind.any(ABORT.and(COMPLETE)),
                };
                (direction, packet)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_packets_leave_a_track_that_fits_its_slot(
            packets in prop::collection::vec(packet(), 0..60)
        ) {
            let mut track = opened();
            for (direction, packet) in packets {
                let _ = send(&mut track, direction, packet);
            }
        }

        #[test]
        fn whoever_knows_no_tag_neither_moves_nor_refreshes_an_association(
            packets in prop::collection::vec(packet(), 0..60)
        ) {
            let mut track = in_state(State::Established);
            for (direction, mut packet) in packets {
                if packet.tag != 0 {
                    packet.tag ^= 0x1000_0000;
                }
                // An attacker does not receive the answers, so no INIT ACK has the correct tag.
                let seen = send(&mut track, direction, packet);
                let is_meant = matches!(seen, Passed(State::Established) | Dropped(Fault::Tag));
                prop_assert!(is_meant, "{seen:?}");
            }
            prop_assert_eq!(send(&mut track, Original, chunks(B, DATA)), Is(State::Established));
        }
    }
}
