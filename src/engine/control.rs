//! The gate of control sessions: decides which of their segments are forwarded.
//!
//! A segment reaches the gate after it was judged in its session, or after it has opened a session
//! midstream. A segment that is judged again without a missing half reaches the gate twice, but
//! [`Helpers`](super::helpers::Helpers) read it once.

use super::Engine;
use super::candidate::Candidate;
use super::control_segments::{ControlSegment, Ruling};
use super::effects::Effects;
use super::ftp_settings::Parent;
use super::live::Live;
use super::matched::{Judged, Matched, Passage, Reading};
use crate::event::HelperNote;
use crate::explain::{Step, Trace};
use crate::flow::Direction;
use crate::ftp::helper::SavedControl;
use crate::packet::Transport;
use crate::session::EndReason;
use crate::track::tcp::Track;
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// A judged segment of a session that may be a control session.
pub(super) struct Gated<'a, 'p> {
    pub(super) matched: &'a Matched<'a, 'p>,
    /// Tracker of the session before the segment.
    pub(super) track: Track,
    pub(super) judged: Judged,
}

impl Engine {
    /// Decides whether a judged segment is forwarded, and hands its data to the helper if they are
    /// valid.
    #[cold]
    #[inline(never)]
    pub(super) fn gate<T: Trace>(
        &self,
        live: &mut Live<'_>,
        gated: Gated<'_, '_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Judged {
        let Gated {
            matched,
            track,
            judged,
        } = gated;
        match &judged {
            Judged::Passes(passage) => {
                let ruling = self.rule_on(live, matched, passage, &mut effects.helped, trace);
                if ruling == Ruling::Passes {
                    return judged;
                }
                effects.believed = false;
                if ruling == Ruling::Drops {
                    // The state is restored, as if the segment had not arrived.
                    live.hot_mut().track = track;
                }
                live.rearm(live.hot().deadline, matched.before);
                if ruling == Ruling::Stops {
                    let ended = live.end(EndReason::FtpRefused);
                    let now = matched.candidate.now;
                    self.ended_here(live.shard_id, &ended, now, effects, trace);
                }
                refused(matched)
            }
            // An invalid segment that is allowed because its check only counts.
            Judged::Ruled(verdict)
                if verdict.is_forward()
                    && verdict.tracked().class == Class::Invalid
                    && !self.may_pass_unread(live, matched) =>
            {
                effects.tolerated = None;
                refused(matched)
            }
            Judged::Ruled(_) | Judged::Reopens => judged,
        }
    }

    /// Rules on a segment that its session allows.
    fn rule_on<T: Trace>(
        &self,
        live: &Live<'_>,
        matched: &Matched<'_, '_>,
        passage: &Passage,
        notes: &mut Vec<HelperNote>,
        trace: &mut T,
    ) -> Ruling {
        match passage.reading {
            Reading::Exempt => Ruling::Passes,
            Reading::Unread if self.may_pass_unread(live, matched) => Ruling::Passes,
            Reading::Unread => Ruling::Drops,
            Reading::Whole => {
                let Some(received) = control_segment(matched.candidate, matched.direction) else {
                    return Ruling::Passes;
                };
                self.inspect_control(live, &received, notes, trace)
            }
        }
    }

    /// Hands a segment of a control session to its helper.
    fn inspect_control<T: Trace>(
        &self,
        live: &Live<'_>,
        received: &ControlSegment<'_>,
        notes: &mut Vec<HelperNote>,
        trace: &mut T,
    ) -> Ruling {
        let settings = &live.settings.ftp;
        let ruling = self
            .helpers
            .control(settings, live.hot(), self.own(live), received, notes);
        for note in notes.iter() {
            trace.step(|| Step::Helper(Box::new(*note)));
        }
        ruling
    }

    /// Returns whether a segment of a control session may be forwarded unread.
    fn may_pass_unread(&self, live: &Live<'_>, matched: &Matched<'_, '_>) -> bool {
        let Some(received) = control_segment(matched.candidate, matched.direction) else {
            return true;
        };
        let settings = &live.settings.ftp;
        self.helpers
            .may_pass_unread(settings, live.hot(), self.own(live), &received)
    }

    /// Continues a control session that begins midstream, and reads the segment that opened it.
    /// Returns whether the segment is forwarded.
    pub(super) fn gate_adopted<T: Trace>(
        &self,
        live: &Live<'_>,
        candidate: &Candidate<'_>,
        direction: Direction,
        effects: &mut Effects,
        trace: &mut T,
    ) -> bool {
        let settings = &live.settings.ftp;
        let own = self.own(live);
        if !settings.is_control(live.hot(), own.rule) {
            return true;
        }
        self.helpers
            .resume_inspection(settings, live.hot(), own, SavedControl::default());
        // A session that is stopped ends with the next data of its sender, which are dropped.
        control_segment(candidate, direction).is_none_or(|received| {
            self.inspect_control(live, &received, &mut effects.helped, trace) == Ruling::Passes
        })
    }

    /// Returns the identifiers and the rule of a session.
    fn own(&self, live: &Live<'_>) -> Parent {
        let origin = live.shard.slab.origin(live.slot);
        self.control_session(live.id(), origin, live.rule())
    }
}

/// Returns the verdict on a segment that the gate drops.
const fn refused(matched: &Matched<'_, '_>) -> Judged {
    Judged::Ruled(ftp_refused(matched.tracked))
}

/// Returns the verdict on a packet of a session that a refused announcement stops.
pub(super) const fn ftp_refused(tracked: Tracked) -> Verdict {
    let refused = Tracked {
        class: Class::Invalid,
        ..tracked
    };
    Verdict::Drop(DropReason::FtpRefused, refused)
}

/// Returns a segment as a helper reads it.
fn control_segment<'a>(
    candidate: &Candidate<'a>,
    direction: Direction,
) -> Option<ControlSegment<'a>> {
    let Transport::Tcp { segment, .. } = &candidate.parsed.transport else {
        return None;
    };
    Some(ControlSegment {
        direction,
        segment,
        payload: candidate.payload(),
        now: candidate.instant,
    })
}
