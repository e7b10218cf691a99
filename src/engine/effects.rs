//! Effects of a packet that follow once its shard's lock is released.

use super::evidence::Seen;
use super::settings::Settings;
use crate::event::{DeniedSession, HelperNote, LimitReached};
use crate::flow::Direction;
use crate::fragment::HoldId;
use crate::policy::RuleId;
use crate::session::{Ended, Mark, SessionId, SessionRecord};
use crate::verdict::{DropReason, Tracked, Verdict};

/// What happens once the lock is released.
#[derive(Default)]
pub(super) struct After {
    /// The packet is a TCP segment whose data counts: it passed and its window believes its end.
    pub(super) believed: bool,
    /// The session that the packet opened.
    pub(super) opened: Option<SessionRecord>,
    pub(super) any_opened: bool,
    /// What marks that one.
    pub(super) marks: &'static [Mark],
    /// A session goes on from here although half of it is missing.
    pub(super) bypassed: bool,
    /// What tells of a path whose other half does not pass here.
    pub(super) seen: Option<Seen>,
    /// The session whose end this packet is told by its verdict: the sink need not tell its sender as well.
    pub(super) answered: Option<(SessionId, Direction)>,
    /// The packet fits nothing in its zone: its session may be in another one.
    pub(super) elsewhere: bool,
    /// If it is not, the packet is judged again here.
    pub(super) then_here: bool,
    /// Wherever it is, the verdict of this zone's policy stands.
    pub(super) stands: bool,
    /// Sessions that ended: one that a reload revokes, one whose ports were reused or that was
    /// found expired, and one that made room. A packet that is judged again after a search in other
    /// zones can end one more.
    pub(super) ended: [Option<(usize, Ended)>; 4],
    /// Still more, of a GRE address pair whose sessions a reload revokes. Only they allocate.
    pub(super) more_ended: Vec<(usize, Ended)>,
    /// What a check has let pass, and the rule of the session.
    pub(super) tolerated: Option<(DropReason, RuleId)>,
    /// The limit that the packet's session would exceed, if that is to be reported.
    pub(super) limited: Option<LimitReached>,
    /// The session that the packet would have opened, if the verdict is that of the policy.
    pub(super) denied: Option<DeniedSession>,
    /// Findings of a helper in the packet. Empty, and not on the heap, but for control sessions.
    pub(super) helped: Vec<HelperNote>,
    /// Held fragments that are to be handed in again.
    pub(super) released: Option<HoldId>,
}

impl After {
    pub(super) fn end(&mut self, shard: usize, ended: Ended) {
        if let Some(place) = self.ended.iter_mut().find(|place| place.is_none()) {
            *place = Some((shard, ended));
        } else {
            self.more_ended.push((shard, ended));
        }
    }

    pub(super) const fn look_elsewhere(&mut self, settings: &Settings) {
        self.elsewhere = settings.elsewhere.has_others();
    }

    /// What becomes of a packet that has failed a check: dropped, or counted where the check is told to.
    pub(super) fn failed(
        &mut self,
        settings: &Settings,
        reason: DropReason,
        tracked: Tracked,
        rule: RuleId,
    ) -> Verdict {
        if !settings.checks.only_counts(reason) {
            return Verdict::Drop(reason, tracked);
        }
        self.tolerated = Some((reason, rule));
        Verdict::Forward(Tracked {
            tolerated: Some(reason),
            ..tracked
        })
    }
}
