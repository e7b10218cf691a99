//! TCP tracking: the bounds of the window one by one, connections told as stories, the whole
//! transition table as a page of text, and properties that hold whatever passes.

mod bounds;
mod conversation;
mod fast_open;
mod handshake;
mod opening_and_closing;
mod properties;
mod resets;
mod resume;
mod reuse;
mod story;
mod strictness;
mod table;
mod transfer;

use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags, TcpOptions};

use super::{Known, Outcome, PassReason, Step, Track};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags::FIN;
const RST: TcpFlags = TcpFlags::RST;

/// A segment without data, window and options.
fn bare(flags: TcpFlags, seq: SeqNum, ack: SeqNum) -> Segment {
    Segment {
        seq,
        ack,
        flags,
        window: 0,
        payload_len: 0,
        urgent: 0,
        options: TcpOptions::default(),
    }
}

/// A session as its owner keeps it: the track while there is one, and what is known beside it.
#[derive(Debug, Clone, Copy)]
struct Session {
    track: Option<Track>,
    known: Known,
}

/// Action that the owner of a session has taken for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// The segment is the first SYN of a new session.
    Opened,
    /// There is no session.
    NoSession,
    /// The session's track has judged it.
    Judged(Outcome),
}

impl Session {
    const NONE: Self = Self {
        track: None,
        known: Known {
            seen_reply: false,
            assured: false,
            split_handshake: false,
        },
    };

    /// Hands a segment over. A reopened session starts afresh with it, an ended one is gone.
    fn pass(&mut self, direction: Direction, segment: &Segment, step: impl FnMut(Step)) -> Done {
        let Some(track) = self.track.as_mut() else {
            self.track = match direction {
                Direction::Original => Track::open(segment),
                Direction::Reply => None,
            };
            return if self.track.is_some() {
                Done::Opened
            } else {
                Done::NoSession
            };
        };
        let outcome = track.segment(direction, segment, self.known, step);
        match outcome {
            Outcome::Accept { assured, .. } => {
                self.known.assured |= assured;
                self.known.seen_reply |= direction == Direction::Reply;
            }
            Outcome::Pass(PassReason::Rst) => {}
            Outcome::Pass(_) => self.known.seen_reply |= direction == Direction::Reply,
            Outcome::AcceptAndEnd => *self = Self::NONE,
            Outcome::Reopen => {
                // The end that sends this SYN is the new session's initiator.
                *self = Self {
                    track: Track::open(segment),
                    ..Self::NONE
                };
            }
            Outcome::Invalid(_) => {}
        }
        Done::Judged(outcome)
    }
}
