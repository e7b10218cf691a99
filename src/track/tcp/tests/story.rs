//! Stories: a connection, line by line.
//!
//! ```text
//! > PA 1+1000 ack 1 win 500 | ESTABLISHED, until tcp.unacknowledged
//! ```
//!
//! A line is a direction (`>` original, `<` reply), flags (letters of S F R P A), a sequence number
//! with, after `+`, the bytes of data, then any of `ack N`, `win N` (on the wire, 1000 if not
//! given), `wscale N`, `sackok`, `sack LEFT:RIGHT`, and after the bar the expected result. Numbers
//! are relative: those of the original direction to the initiator's initial sequence number, those
//! of the reply direction to the responder's; so a SYN has number 0 and data begins at 1. `=N` is a
//! number as on the wire. `#` begins a remark.
//!
//! The expectation is the state after the segment, then special results, in this order:
//! - `opened`, `reopened`: it has begun a session, the first one or one in place of another that
//!   had ended;
//! - `assured`: the session becomes assured;
//! - `kept`: accepted, but the lifetime is not refreshed;
//! - `until CLASS`: accepted, the lifetime cut to that of CLASS;
//! - `resynced`: it answers a SYN that was passed, and the tracked state was replaced;
//! - `passed (I|II|III|IV)`, `passed (out of step)`, `passed (challenge)`, `passed (RST)`: passed
//!   without effect;
//! - `invalid (...)`: invalid, with the fault.
//!
//! `gone` in place of a state: the session has ended with this segment. `none`: there is no
//! session.

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags};
use crate::track::tcp::{Bound, Cell, Fault, Outcome, PassReason, Step, Track};

use super::{Done, Session, bare};

/// Pairs of initial sequence numbers for each story: far from any border, and such that the first
/// bytes of either end cross 2^31 and 2^32.
const INITIAL: [(u32, u32); 5] = [
    (1_000_000, 2_000_000_000),
    (u32::MAX, u32::MAX - 1),
    (u32::MAX - 2_500, 0x7fff_ffff),
    (0x7fff_ffff - 1_200, u32::MAX - 700),
    (0, 0),
];

/// A connection in the making: its session and its initial sequence numbers.
pub(super) struct Story {
    name: &'static str,
    initial: (u32, u32),
    pub(super) session: Session,
    line: usize,
}

/// Runs a story with every pair of initial sequence numbers.
#[track_caller]
pub(super) fn tell(name: &'static str, lines: &str) {
    for initial in INITIAL {
        tell_from(name, initial, lines);
    }
}

/// Runs a story from these initial sequence numbers, and returns its end.
#[track_caller]
pub(super) fn tell_from(name: &'static str, initial: (u32, u32), lines: &str) -> Story {
    let mut story = Story {
        name,
        initial,
        session: Session::NONE,
        line: 0,
    };
    story.goes_on(lines);
    story
}

impl Story {
    /// Tells more lines.
    #[track_caller]
    pub(super) fn goes_on(&mut self, lines: &str) {
        for line in lines.lines() {
            let line = line.split('#').next().unwrap().trim();
            if line.is_empty() {
                continue;
            }
            self.line += 1;
            let (told, expected) = line.split_once('|').expect("a line has an expectation");
            let (direction, segment) = self.parse(told);
            let happened = self.pass(direction, &segment);
            assert_eq!(
                happened,
                expected.trim(),
                "{}, line {}: `{line}` from {:?}\nnow {:#?}",
                self.name,
                self.line,
                self.initial,
                self.session
            );
        }
    }

    fn parse(&self, told: &str) -> (Direction, Segment) {
        let mut words = told.split_whitespace();
        let mut word = || words.next();
        let (direction, own, other) = match word().unwrap() {
            ">" => (Direction::Original, self.initial.0, self.initial.1),
            "<" => (Direction::Reply, self.initial.1, self.initial.0),
            other => panic!("{other:?} is no direction"),
        };
        let flags = word()
            .unwrap()
            .chars()
            .map(|letter| match letter {
                'S' => TcpFlags::SYN,
                'F' => TcpFlags::FIN,
                'R' => TcpFlags::RST,
                'P' => TcpFlags::PSH,
                'A' => TcpFlags::ACK,
                other => panic!("{other:?} is no flag"),
            })
            .fold(TcpFlags::default(), |all, flag| all | flag);
        let (seq, len) = match word().unwrap().split_once('+') {
            Some((seq, len)) => (seq, len.parse().unwrap()),
            None => (told.split_whitespace().nth(2).unwrap(), 0),
        };
        let mut segment = Segment {
            payload_len: len,
            window: 1_000,
            ..bare(flags, number(seq, own), SeqNum(0))
        };
        let mut sack = Vec::new();
        while let Some(key) = word() {
            match key {
                "ack" => segment.ack = number(word().unwrap(), other),
                "win" => segment.window = word().unwrap().parse().unwrap(),
                "wscale" => segment.options.window_scale = Some(word().unwrap().parse().unwrap()),
                "sackok" => segment.options.sack_permitted = true,
                "sack" => {
                    let (left, right) = word().unwrap().split_once(':').unwrap();
                    sack.push((number(left, other), number(right, other)));
                }
                unknown => panic!("{unknown:?} is no part of a segment"),
            }
        }
        segment.options.sack = sack.into_iter().collect();
        (direction, segment)
    }

    /// Passes the segment and returns the result.
    fn pass(&mut self, direction: Direction, segment: &Segment) -> String {
        let before = self.session;
        let mut resynced = false;
        let done = self.session.pass(direction, segment, |step| {
            if let Step::Note(note) = step {
                resynced |= note.contains("synchronized with both ends");
            }
        });
        let state = |session: &Session| session.track.map_or("none", |track| track.state().name());
        let mut happened = match done {
            Done::NoSession => return "none".to_owned(),
            Done::Judged(Outcome::AcceptAndEnd) => return "gone".to_owned(),
            Done::Opened | Done::Judged(_) => state(&self.session).to_owned(),
        };
        match done {
            Done::Opened => happened += ", opened",
            Done::Judged(Outcome::Reopen) => happened += ", reopened",
            Done::Judged(Outcome::Accept {
                lifetime,
                assured,
                tolerated,
            }) => {
                if assured && !before.known.assured {
                    happened += ", assured";
                }
                if let Some(fault) = tolerated {
                    happened += &format!(", tolerated ({fault:?})");
                }
                match lifetime {
                    None => happened += ", kept",
                    Some(lifetime) => {
                        let track = self.session.track.unwrap();
                        assert_eq!(
                            lifetime.class,
                            track.state().lifetime(),
                            "the lifetime is the state's"
                        );
                        if let Some(cap) = lifetime.cap {
                            happened += ", until ";
                            happened += cap.name();
                        }
                    }
                }
                if resynced {
                    happened += ", resynced";
                }
            }
            Done::Judged(Outcome::Pass(reason)) => {
                assert_eq!(
                    state(&self.session),
                    state(&before),
                    "what passes leaves the state"
                );
                happened += match reason {
                    PassReason::OutOfStep => ", passed (out of step)",
                    PassReason::ChallengeAck => ", passed (challenge)",
                    PassReason::Rst => {
                        assert_eq!(
                            self.session.known, before.known,
                            "a RST that is not taken proves nothing"
                        );
                        ", passed (RST)"
                    }
                    PassReason::Window(Bound::SeqUpper) => ", passed (I)",
                    PassReason::Window(Bound::SeqLower) => ", passed (II)",
                    PassReason::Window(Bound::AckUpper) => ", passed (III)",
                    PassReason::Window(Bound::AckLower) => ", passed (IV)",
                };
            }
            Done::Judged(Outcome::Invalid(fault)) => {
                assert_eq!(
                    self.session.track, before.track,
                    "what is invalid changes nothing"
                );
                happened += match fault {
                    Fault::SplitHandshake => ", invalid (split handshake)",
                    Fault::State => ", invalid (state)",
                    Fault::SeqAboveWindow => ", invalid (I)",
                    Fault::AckOfUnseen => ", invalid (III)",
                    Fault::RstBelowWindow => ", invalid (old RST)",
                };
            }
            Done::NoSession | Done::Judged(Outcome::AcceptAndEnd) => {}
        }
        happened
    }

    /// The track at this point of the story.
    pub(super) fn track(&self) -> Track {
        self.session.track.expect("a session at this point")
    }
}

fn number(word: &str, base: u32) -> SeqNum {
    match word.strip_prefix('=') {
        Some(absolute) => SeqNum(absolute.parse().unwrap()),
        None => {
            let relative: i64 = word.parse().unwrap();
            SeqNum(base).add(relative as u32)
        }
    }
}

/// The table must agree that what a story calls a resync begins in a cell that ignores.
#[test]
fn only_ignored_cells_resync() {
    use crate::track::tcp::{Event, State, transition};
    for state in State::ALL.into_iter().skip(2) {
        assert_eq!(
            transition(Direction::Reply, Event::SynAck, state),
            Cell::Ignore
        );
        assert_ne!(
            transition(Direction::Original, Event::SynAck, state),
            Cell::Ignore
        );
    }
}
