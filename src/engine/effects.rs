//! Effects of a packet that are applied once its shard's lock is released.

use super::path_evidence::PathEvidence;
use super::question_ring::Asking;
use super::settings::Settings;
use crate::event::{DeniedSession, HelperNote, LimitReached, Sink};
use crate::flow::Direction;
use crate::fragment::HoldId;
use crate::policy::{Action, RuleId};
use crate::session::{Ended, Mark, SessionId, SessionRecord, ShardId};
use crate::verdict::{DropReason, Tracked, Verdict};

/// Effects of a packet that are applied once the lock is released.
#[derive(Default)]
pub(super) struct Effects {
    /// The packet is a TCP segment whose data count: the segment was forwarded, and its end moved
    /// the window.
    pub(super) believed: bool,
    /// The session that the packet opened.
    pub(super) opened: Option<SessionRecord>,
    pub(super) any_opened: bool,
    /// Marks of the opened session.
    pub(super) marks: &'static [Mark],
    /// The session continues here although one direction is missing.
    pub(super) bypassed: bool,
    /// Evidence that the other direction takes another path.
    pub(super) evidence: Option<PathEvidence>,
    /// Session and direction of the sender to which the verdict reports the end of the session: the
    /// sink need not send a RST to that sender.
    pub(super) answered: Option<(SessionId, Direction)>,
    /// The packet matches nothing in its zone: its session may be in another zone.
    pub(super) is_elsewhere: bool,
    /// If no other zone has the session, the packet is judged again in its own zone.
    pub(super) then_own_zone: bool,
    /// The verdict of this zone's policy is final, regardless of other zones.
    pub(super) stands: bool,
    /// Sessions that ended: one that a reload revokes, one whose ports were reused or that was
    /// found expired, and one that was evicted. A packet that is judged again after a search in
    /// other zones can end one more.
    pub(super) ended: [Option<(ShardId, Ended)>; 4],
    /// Whether any session has ended.
    any_ended: bool,
    /// Further sessions that ended, of a GRE address pair whose sessions a reload revokes. Only
    /// these allocate.
    pub(super) more_ended: Vec<(ShardId, Ended)>,
    /// Reason of a failed check that only counts, and the rule of the session.
    pub(super) tolerated: Option<(DropReason, RuleId)>,
    /// The limit that the packet's session would exceed, if it is to be reported.
    pub(super) limited: Option<LimitReached>,
    /// The session that the packet would have opened, if the verdict is that of the policy.
    pub(super) denied: Option<DeniedSession>,
    /// Findings of a helper in the packet. Empty and not allocated, except for control sessions.
    pub(super) helped: Vec<HelperNote>,
    /// Held fragments that are to be submitted again.
    pub(super) released: Option<HoldId>,
    /// The question that the packet has caused.
    pub(super) question: Option<OpenQuestion>,
}

/// A question that is to be reported, and its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenQuestion {
    pub(super) id: HoldId,
    pub(super) asking: Asking,
}

impl Effects {
    pub(super) fn end(&mut self, shard: ShardId, ended: Ended) {
        self.any_ended = true;
        if let Some(place) = self.ended.iter_mut().find(|place| place.is_none()) {
            *place = Some((shard, ended));
        } else {
            self.more_ended.push((shard, ended));
        }
    }

    /// Returns whether a session has ended.
    pub(super) const fn has_ended(&self) -> bool {
        self.any_ended
    }

    pub(super) const fn search_other_zones(&mut self, settings: &Settings) {
        self.is_elsewhere = settings.zone_hints.has_others();
    }

    /// Returns the verdict on a packet that has failed a check: it is dropped, or counted where the
    /// check only counts.
    pub(super) fn failed(
        &mut self,
        settings: &Settings,
        reason: DropReason,
        tracked: Tracked,
        rule: RuleId,
    ) -> Verdict {
        if !settings.enforcement.only_counts(reason) {
            return Verdict::Drop(reason, tracked);
        }
        self.tolerated = Some((reason, rule));
        Verdict::Forward(Tracked {
            tolerated: Some(reason),
            ..tracked
        })
    }

    /// Reports events to a sink, in the order in which they occurred.
    #[inline(always)]
    pub(super) fn report<S: Sink>(&self, verdict: &Verdict, sink: &mut S) {
        if let Some(record) = &self.opened {
            sink.session_opened(record);
        }
        for note in &self.helped {
            sink.helper_event(note);
        }
        if let Some(reached) = &self.limited {
            sink.limit_reached(reached);
        }
        if S::LISTENS
            && let Some(denied) = &self.denied
        {
            match verdict {
                Verdict::Drop(DropReason::PolicyDeny | DropReason::PolicyReject, _)
                | Verdict::Reject(DropReason::PolicyDeny | DropReason::PolicyReject, ..) => {
                    sink.session_denied(denied);
                }
                Verdict::Forward(_) if denied.action == Action::Audit => {
                    sink.session_audited(denied)
                }
                _ => {}
            }
        }
        if let Some(id) = self.released {
            sink.released(id);
        }
    }
}
