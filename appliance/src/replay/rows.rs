//! The JSON lines of a replay: one per frame, one per session.

use std::collections::HashMap;

use portcullis::policy::CompiledPolicy;
use portcullis::{EndReason, SessionId, SessionRecord, Verdict};
use serde::Serialize;

use super::clock::CaptureClock;
use crate::session_view::{SessionNames, SessionView};

/// Numbers of sessions in the rows: their order of opening, from 1.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<SessionId, u64>,
    last: u64,
    /// Ended sessions, which the verdict on the packet that ended them may still name.
    ended: Vec<SessionId>,
}

impl Names {
    pub(crate) fn open(&mut self, id: SessionId) {
        self.last += 1;
        self.numbers.insert(id, self.last);
    }

    pub(crate) fn end(&mut self, id: SessionId) {
        self.ended.push(id);
    }

    pub(crate) fn forget_ended(&mut self) {
        for id in self.ended.drain(..) {
            self.numbers.remove(&id);
        }
    }

    pub(crate) fn of(&self, id: SessionId) -> Option<u64> {
        self.numbers.get(&id).copied()
    }
}

/// Verdict on a frame.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct VerdictRow {
    /// The frame, from 1.
    pub(crate) n: u64,
    /// `forward`, `drop`, `reject`, or `skip` for a frame without an IP packet. `hold` for a
    /// fragment that arrived before the first one of its datagram: a later row has its verdict.
    pub(crate) verdict: &'static str,
    pub(crate) class: Option<&'static str>,
    pub(crate) direction: Option<&'static str>,
    /// Reason for which the packet was not forwarded, or for which the frame has no IP packet.
    pub(crate) reason: Option<&'static str>,
    pub(crate) session: Option<u64>,
    /// Delay in seconds after the end of the session, and the reason of that end, for a late
    /// packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) late: Option<(f64, &'static str)>,
}

impl VerdictRow {
    pub(crate) fn new(n: u64, verdict: &Verdict, names: &Names) -> Self {
        let tracked = verdict.tracked();
        Self {
            n,
            verdict: verdict.name(),
            class: Some(tracked.class.name()),
            direction: tracked.direction.map(portcullis::Direction::name),
            reason: verdict.reason().map(portcullis::DropReason::name),
            session: tracked.session.and_then(|id| names.of(id)),
            late: tracked
                .late
                .map(|late| (late.ago().as_secs_f64(), late.reason.name())),
        }
    }

    /// Returns the verdict as text, for a comment on the packet.
    pub(crate) fn comment(&self) -> String {
        let parts = [Some(self.verdict), self.reason, self.class, self.direction];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        format!("{}; frame {} of the capture", parts.join(", "), self.n)
    }

    pub(crate) const fn skip(n: u64, reason: &'static str) -> Self {
        Self {
            n,
            verdict: "skip",
            class: None,
            direction: None,
            reason: Some(reason),
            session: None,
            late: None,
        }
    }
}

/// Session at its end, or at the end of the capture.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SessionRow {
    pub(crate) id: Option<u64>,
    #[serde(flatten)]
    pub(crate) session: SessionView<u16>,
    /// `null` for a session that is still open at the end of the capture.
    pub(crate) end_reason: Option<&'static str>,
}

impl SessionRow {
    pub(crate) fn new(
        session: &SessionRecord,
        end: Option<EndReason>,
        names: &Names,
        clock: &CaptureClock,
        policy: &CompiledPolicy,
    ) -> Self {
        let view_names = SessionNames {
            zone: session.zone.0,
            rule: policy.rule_name(session.rule).to_owned(),
            parent: session.parent.and_then(|id| names.of(id)),
        };
        Self {
            id: names.of(session.id),
            session: SessionView::new(session, view_names, |moment| clock.seconds(moment)),
            end_reason: end.map(EndReason::name),
        }
    }
}
