//! Facts of an event that the formats of other programs have in common.

use std::time::{Duration, SystemTime};

use portcullis::event::Traffic;
use portcullis::policy::Action;
use portcullis::{DeniedSession, EndReason, SessionRecord, SessionUid};

use super::super::super::event_queue::SessionEvent;
use super::super::super::view::Viewer;
use crate::five_tuple::FiveTuple;

/// Outcome of a session or of the packet that would have opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The session has opened.
    Opened,
    /// The session goes on.
    Updated,
    /// The session has ended.
    Ended(EndReason),
    /// The policy has decided by this action: a packet was denied, rejected or audited.
    Decided(Action),
}

/// Facts of a session, or of a packet that the policy did not admit.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) outcome: Outcome,
    pub(super) flow: FiveTuple,
    /// `None` for a packet.
    pub(super) session: Option<&'a SessionRecord>,
    pub(super) original: Traffic,
    pub(super) reply: Traffic,
    /// Time of the first packet, since the Unix epoch.
    pub(super) start: Duration,
    /// Time of the last packet.
    pub(super) last: Duration,
    pub(super) rule: &'a str,
}

impl<'a> Facts<'a> {
    /// Returns the facts of an event; `None` for an event that is not of a session.
    pub(super) fn new(event: &'a SessionEvent, viewer: &Viewer<'a>) -> Option<Self> {
        Some(match event {
            SessionEvent::Opened(session) => Self::of_session(session, Outcome::Opened, viewer),
            SessionEvent::Updated(session, _) => {
                Self::of_session(session, Outcome::Updated, viewer)
            }
            SessionEvent::Ended(session, reason) => {
                Self::of_session(session, Outcome::Ended(*reason), viewer)
            }
            SessionEvent::Denied(denied) => Self::of_denied(denied, viewer),
            SessionEvent::Limited(_) => return None,
        })
    }

    fn of_session(session: &'a SessionRecord, outcome: Outcome, viewer: &Viewer<'a>) -> Self {
        Self {
            outcome,
            flow: FiveTuple::of_session(session, viewer.zones.name(session.zone)),
            session: Some(session),
            original: session.original,
            reply: session.reply,
            start: viewer.clock.at(session.start),
            last: viewer.clock.at(session.last),
            rule: viewer.policy.rule_name(session.rule),
        }
    }

    fn of_denied(denied: &DeniedSession, viewer: &Viewer<'a>) -> Self {
        let at = viewer.clock.at(denied.at);
        Self {
            outcome: Outcome::Decided(denied.action),
            flow: FiveTuple::of_denied(denied, viewer.zones.name(denied.zone)),
            session: None,
            original: Traffic {
                packets: 1,
                bytes: u64::from(denied.bytes),
            },
            reply: Traffic::default(),
            start: at,
            last: at,
            rule: viewer.policy.rule_name(denied.rule),
        }
    }

    /// Returns whether no other event follows that has the counts of the session.
    pub(super) const fn is_final(&self) -> bool {
        !matches!(self.outcome, Outcome::Opened | Outcome::Updated)
    }

    /// Returns the name of the action of the policy: `allow` for a session.
    pub(super) fn action(&self) -> &'static str {
        match self.outcome {
            Outcome::Decided(action) => action.name(),
            _ => "allow",
        }
    }

    /// Returns the session's identifier.
    pub(super) fn uid(&self) -> Option<String> {
        self.session.map(|session| session.uid.to_string())
    }

    /// Returns the identifier of the session that announced this one.
    pub(super) fn parent_uid(&self) -> Option<SessionUid> {
        self.session?.parent_uid
    }

    /// Returns Zeek's history letters; `None` if there are none.
    pub(super) fn history(&self) -> Option<String> {
        let letters = self.session?.history.to_string();
        (!letters.is_empty()).then_some(letters)
    }

    /// Returns Zeek's connection state.
    pub(super) fn conn_state(&self) -> Option<&'static str> {
        self.session.map(SessionRecord::conn_state)
    }

    /// Returns the time from the first packet to the last.
    pub(super) fn duration(&self) -> Duration {
        self.last.saturating_sub(self.start)
    }
}

/// Returns a time since the Unix epoch in the form of RFC 3339, in UTC, with microseconds.
pub(super) fn rfc3339(time: Duration) -> String {
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + time).to_string()
}
