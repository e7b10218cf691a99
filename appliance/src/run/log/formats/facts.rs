//! Facts of an event that the formats of other programs have in common.

use std::time::{Duration, SystemTime};

use portcullis::event::Traffic;
use portcullis::policy::Action;
use portcullis::{DeniedSession, Direction, EndReason, SessionRecord, SessionUid};

use super::super::super::event_queue::SessionEvent;
use super::super::super::observe::dropped::DroppedPacket;
use super::super::super::observe::event::PacketReason;
use super::super::super::view::Viewer;
use super::dropped::{SessionOfPacket, reason_of_action, verdict};
use crate::five_tuple::FiveTuple;

/// Outcome of a session or of the packet that would have opened it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// The session has opened.
    Opened,
    /// The session goes on.
    Updated,
    /// The session has ended.
    Ended(EndReason),
    /// The policy has decided by this action: a packet was denied, rejected or audited.
    Decided(Action),
    /// The packet was not forwarded, for another reason than the policy.
    Dropped(DroppedPacket),
}

/// Facts of a session, or of a packet that was not forwarded or was admitted for audit.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) outcome: Outcome,
    pub(super) flow: FiveTuple<Option<String>>,
    /// `None` for a packet.
    pub(super) session: Option<&'a SessionRecord>,
    /// Identifier of the session, or of that of a packet.
    pub(super) uid: Option<SessionUid>,
    pub(super) original: Traffic,
    pub(super) reply: Traffic,
    /// Time of the first packet, since the Unix epoch.
    pub(super) start: Duration,
    /// Time of the last packet.
    pub(super) last: Duration,
    /// Rule that has decided, or that has admitted the session; `None` for other packets.
    pub(super) rule: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// Returns the facts of an event; `None` for an event that has no five-tuple: a limit, or a
    /// datagram without a readable packet.
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
            SessionEvent::Dropped(packet) => Self::of_dropped(packet, viewer)?,
            SessionEvent::Limited(_) => return None,
        })
    }

    fn of_session(session: &'a SessionRecord, outcome: Outcome, viewer: &Viewer<'a>) -> Self {
        Self {
            outcome,
            flow: FiveTuple::of_session(session, Some(viewer.zones.name(session.zone))),
            session: Some(session),
            uid: Some(session.uid),
            original: session.original,
            reply: session.reply,
            start: viewer.clock.at(session.start),
            last: viewer.clock.at(session.last),
            rule: Some(viewer.policy.rule_name(session.rule)),
        }
    }

    fn of_denied(denied: &DeniedSession, viewer: &Viewer<'a>) -> Self {
        let at = viewer.clock.at(denied.at);
        Self {
            outcome: Outcome::Decided(denied.action),
            flow: FiveTuple::of_denied(denied, Some(viewer.zones.name(denied.zone))),
            session: None,
            uid: None,
            original: Traffic {
                packets: 1,
                bytes: u64::from(denied.bytes),
            },
            reply: Traffic::default(),
            start: at,
            last: at,
            rule: Some(viewer.policy.rule_name(denied.rule)),
        }
    }

    fn of_dropped(packet: &DroppedPacket, viewer: &Viewer<'a>) -> Option<Self> {
        let at = viewer.clock.at(packet.at);
        let zone = packet.zone.map(|zone| viewer.zones.name(zone));
        let session = SessionOfPacket::find(packet, viewer);
        Some(Self {
            outcome: Outcome::Dropped(*packet),
            flow: packet.flow?.five_tuple(zone)?,
            session: None,
            uid: session.uid,
            original: Traffic {
                packets: 1,
                bytes: u64::from(packet.bytes),
            },
            reply: Traffic::default(),
            start: at,
            last: at,
            rule: session.rule,
        })
    }

    /// Returns whether no other event follows that has the counts of the session.
    pub(super) const fn is_final(&self) -> bool {
        !matches!(self.outcome, Outcome::Opened | Outcome::Updated)
    }

    /// Returns the name of the action of the policy, `allow` for a session; for another packet,
    /// that of its verdict.
    pub(super) fn action(&self) -> &'static str {
        match self.outcome {
            Outcome::Decided(action) => action.name(),
            Outcome::Dropped(packet) => verdict(packet.kind),
            _ => "allow",
        }
    }

    /// Returns the reason for which a packet was not forwarded, or was admitted for audit.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Decided(action) => reason_of_action(action),
            Outcome::Dropped(packet) => Some(packet.reason.name()),
            _ => None,
        }
    }

    /// Returns the reason of a packet that was not forwarded for another reason than the policy.
    pub(super) const fn dropped_for(&self) -> Option<PacketReason> {
        match self.outcome {
            Outcome::Dropped(packet) => Some(packet.reason),
            _ => None,
        }
    }

    /// Returns the direction of traffic that is `direction` of the five-tuple; `None` for a dropped
    /// packet whose direction is not known.
    pub(super) fn direction(&self, direction: Direction) -> Option<Direction> {
        match self.outcome {
            Outcome::Dropped(packet) => packet.tracked.and_then(|tracked| tracked.direction),
            _ => Some(direction),
        }
    }

    /// Returns the name of the direction of a dropped packet in its session, if it is known: the
    /// five-tuple is that of the packet, and so the reverse of the session's in replies.
    pub(super) fn packet_direction(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Dropped(_) => self.direction(Direction::Original).map(Direction::name),
            _ => None,
        }
    }

    /// Returns the session's identifier.
    pub(super) fn uid(&self) -> Option<String> {
        self.uid.map(|uid| uid.to_string())
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
