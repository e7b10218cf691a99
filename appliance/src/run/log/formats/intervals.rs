//! Traffic of sessions since their last flow log record, where live sessions have records too.

use std::collections::HashMap;
use std::time::Duration;

use portcullis::event::Traffic;
use portcullis::session::history::Letter;
use portcullis::{Direction, SessionId, SessionRecord};

use super::facts::{Facts, Outcome};

/// Traffic that a session's records report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) original: Traffic,
    pub(super) reply: Traffic,
    /// Time since the Unix epoch from which the traffic counts.
    pub(super) start: Duration,
    /// TCP's flags of each direction that an earlier record has, original first.
    pub(super) flags_before: [u8; 2],
}

/// State of a session at its last record.
#[derive(Debug, Clone, Copy)]
struct Reported {
    original: Traffic,
    reply: Traffic,
    at: Duration,
    flags: [u8; 2],
}

/// Sessions that live on after a record. Their number is bounded by that of the sessions.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    reported: HashMap<SessionId, Reported>,
}

/// State of the table of sessions at the time of a record.
pub(super) struct Moment<'m> {
    /// Time of the counts, since the Unix epoch.
    pub(super) at: Duration,
    /// The largest number of sessions.
    pub(super) max_sessions: usize,
    /// Returns whether a session lives.
    pub(super) is_live: &'m dyn Fn(SessionId) -> bool,
}

impl Part {
    /// Returns all traffic of a session, or the packet that was denied.
    pub(super) const fn whole(facts: &Facts<'_>) -> Self {
        Self {
            original: facts.original,
            reply: facts.reply,
            start: facts.start,
            flags_before: [0; 2],
        }
    }

    /// Returns the traffic since a record.
    fn since(facts: &Facts<'_>, reported: &Reported) -> Self {
        let left = |now: Traffic, before: Traffic| Traffic {
            packets: now.packets.saturating_sub(before.packets),
            bytes: now.bytes.saturating_sub(before.bytes),
        };
        Self {
            original: left(facts.original, reported.original),
            reply: left(facts.reply, reported.reply),
            start: reported.at,
            flags_before: reported.flags,
        }
    }
}

impl Intervals {
    /// Returns the traffic to report for an event; `None` if a later event reports it.
    pub(super) fn take(&mut self, facts: &Facts<'_>, moment: &Moment<'_>) -> Option<Part> {
        let Some(session) = facts.session else {
            return Some(Part::whole(facts));
        };
        let part = |reported: Option<&Reported>| {
            reported.map_or(Part::whole(facts), |reported| Part::since(facts, reported))
        };
        match facts.outcome {
            Outcome::Ended(_) => Some(part(self.reported.remove(&session.id).as_ref())),
            Outcome::Updated => {
                let before = self.reported.get(&session.id).copied();
                if before.is_none() && !self.may_begin(session.id, moment) {
                    return None;
                }
                let now = Reported {
                    original: facts.original,
                    reply: facts.reply,
                    at: moment.at,
                    flags: Direction::BOTH.map(|direction| flags(session, direction)),
                };
                self.reported.insert(session.id, now);
                Some(part(before.as_ref()))
            }
            Outcome::Opened | Outcome::Decided(_) | Outcome::Dropped(_) => None,
        }
    }

    /// Returns whether a session may have a record before its end: it lives, so that its end comes
    /// later, and there is room.
    fn may_begin(&mut self, id: SessionId, moment: &Moment<'_>) -> bool {
        if self.reported.len() >= moment.max_sessions {
            // The ends of some sessions were lost.
            self.reported.retain(|id, _| (moment.is_live)(*id));
        }
        self.reported.len() < moment.max_sessions && (moment.is_live)(id)
    }
}

/// Returns TCP's flags of a direction as AWS counts them: FIN 1, SYN 2, RST 4, SYN-ACK 18.
pub(super) fn flags(session: &SessionRecord, direction: Direction) -> u8 {
    let of_direction = session
        .history
        .letters()
        .filter(|(_, from)| *from == direction);
    of_direction.fold(0, |flags, (letter, _)| {
        flags
            | match letter {
                Letter::Fin => 1,
                Letter::Syn => 2,
                Letter::Reset => 4,
                Letter::Handshake => 18,
                _ => 0,
            }
    })
}
