//! The transition table as a page of text, `transitions.txt`: a change of behavior is a change of
//! that page.

use std::fmt::Write;

use crate::flow::Direction;
use crate::packet::{Segment, TcpFlags};
use crate::track::tcp::{Cell, Event, Outcome, PassReason, State, transition};

use super::story::tell_from;
use super::{ACK, Done, FIN, RST, SYN, Session, bare};

const EVENTS: [(Event, TcpFlags); 6] = [
    (Event::Syn, SYN),
    (Event::SynAck, TcpFlags(SYN.0 | ACK.0)),
    (Event::Fin, TcpFlags(FIN.0 | ACK.0)),
    (Event::Ack, ACK),
    (Event::Rst, TcpFlags(RST.0 | ACK.0)),
    (Event::None, TcpFlags(0)),
];

const HEAD: &str = "\
TCP transitions: state x kind of segment x direction

Each row is a kind of segment, each column the state that it finds. A test compares this page with
the code.

1. What the table says, before any number is looked at.
   STATE    the state after the segment, if the window agrees
   ignore   passes, the state stays; it is remembered, and the right answer puts us in step
   reopen   opens a new connection if this one was closed by a FIN or by a RST of the same end; else
            as `ignore`
   -        invalid
";

const SECOND_HEAD: &str = "
2. What becomes of a segment without data whose numbers are those that its receiver expects.
   The states were reached by: SYN; SYN of the responder (SYN_SENT2) or SYN-ACK (SYN_RECV); ACK;
   FIN of the initiator; its ACK; FIN of the responder; its ACK. CLOSE was reached by a RST of the
   initiator in ESTABLISHED.
   STATE    accepted, the state after it
   passed   passed, nothing believed
   reopened it opened a new connection
   ended    accepted, and the session is gone
   -        invalid
";

/// Returns a session in each state of [`State::ALL`].
fn session_in(state: State) -> Session {
    const LIFE: [&str; 7] = [
        "< SA 0 ack 1 | SYN_RECV",
        "> A 1 ack 1  | ESTABLISHED, assured",
        "> FA 1 ack 1 | FIN_WAIT, until tcp.unacknowledged",
        "< A 1 ack 2  | CLOSE_WAIT",
        "< FA 1 ack 2 | LAST_ACK, until tcp.unacknowledged",
        "> A 2 ack 2  | TIME_WAIT",
        "",
    ];
    let life = |lines: usize| LIFE[..lines].join("\n");
    let rest = match state {
        State::SynSent => String::new(),
        State::SynSent2 => "< S 0 | SYN_SENT2".to_owned(),
        State::Close => life(2) + "\n> R 1 | CLOSE",
        other => life(other as usize - 1),
    };
    let story = tell_from(
        "the way to a state",
        (500, 90_000),
        &format!("> S 0 | SYN_SENT, opened\n{rest}"),
    );
    assert_eq!(story.track().state(), state);
    story.session
}

fn outcome_of(direction: Direction, flags: TcpFlags, state: State) -> &'static str {
    let mut session = session_in(state);
    let track = session.track.unwrap();
    let sender = track.side(direction).peer;
    let receiver = track.side(direction.opposite()).peer;
    // An end that has sent a SYN answers the other one with the same number.
    let repeats = state == State::SynSent2 && flags == TcpFlags(SYN.0 | ACK.0);
    let seq = sender.end.sub(u32::from(repeats));
    let segment = Segment {
        window: 1_000,
        ..bare(flags, seq, receiver.end)
    };
    match session.pass(direction, &segment, |_| {}) {
        Done::Judged(Outcome::Accept { .. }) => session.track.unwrap().state().name(),
        Done::Judged(Outcome::Pass(
            PassReason::OutOfStep | PassReason::ChallengeAck | PassReason::Rst,
        )) => "passed",
        Done::Judged(Outcome::Pass(PassReason::Window(bound))) => {
            panic!("{bound:?} of perfect numbers")
        }
        Done::Judged(Outcome::Reopen) => "reopened",
        Done::Judged(Outcome::AcceptAndEnd) => "ended",
        Done::Judged(Outcome::Invalid(_)) => "-",
        other => panic!("{other:?}"),
    }
}

fn cell_of(direction: Direction, event: Event, state: State) -> &'static str {
    match transition(direction, event, state) {
        Cell::To(next) => next.name(),
        Cell::Ignore => "ignore",
        Cell::Reopen => "reopen",
        Cell::Invalid => "-",
    }
}

fn grid(page: &mut String, cell: impl Fn(Direction, Event, TcpFlags, State) -> &'static str) {
    for direction in Direction::BOTH {
        write!(page, "\n{:9}", direction.name()).unwrap();
        for state in State::ALL {
            write!(page, "{:12}", state.name()).unwrap();
        }
        for (event, flags) in EVENTS {
            page.truncate(page.trim_end().len());
            write!(page, "\n{:9}", event.name()).unwrap();
            for state in State::ALL {
                write!(page, "{:12}", cell(direction, event, flags, state)).unwrap();
            }
        }
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
}

#[test]
fn the_page_of_transitions_is_what_the_code_does() {
    let mut page = HEAD.to_owned();
    grid(&mut page, |direction, event, _, state| {
        cell_of(direction, event, state)
    });
    page += SECOND_HEAD;
    grid(&mut page, |direction, _, flags, state| {
        outcome_of(direction, flags, state)
    });
    assert!(
        page == include_str!("../transitions.txt"),
        "if this is meant, it is the new transitions.txt:\n{page}"
    );
}
