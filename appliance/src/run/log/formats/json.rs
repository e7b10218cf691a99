//! The log's own objects of JSON.

use std::net::IpAddr;

use portcullis::policy::Action;
use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};
use serde::Serialize;

use super::super::super::data_path::TunnelView;
use super::super::super::event_queue::SessionEvent;
use super::super::super::view::{ListedSession, Viewer};
use super::dropped::{DroppedRow, reason_of_action};
use crate::five_tuple::FiveTuple;

/// Version of the objects: it grows when a field is removed, renamed or changes its meaning.
pub(super) const SCHEMA: u32 = 1;

/// Returns the object of an event.
///
/// # Errors
/// Returns an error if the event cannot be written as JSON.
pub(super) fn line(
    host: &str,
    viewer: &Viewer<'_>,
    event: &SessionEvent,
) -> Result<String, serde_json::Error> {
    let now = viewer.clock.seconds(viewer.now);
    let line = |event, event_time| Head {
        schema: SCHEMA,
        event,
        event_time,
        host,
    };
    match event {
        SessionEvent::Opened(session) => {
            let start = viewer.clock.seconds(session.start);
            line("opened", start).with(SessionRow::new(session, None, viewer))
        }
        SessionEvent::Updated(session, _) => {
            line("update", now).with(SessionRow::new(session, None, viewer))
        }
        SessionEvent::Ended(session, reason) => {
            line("ended", now).with(SessionRow::new(session, Some(*reason), viewer))
        }
        SessionEvent::Denied(denied) => {
            let name = match denied.action {
                Action::Audit => "audited",
                _ => "denied",
            };
            let row = DeniedRow::new(denied, viewer);
            line(name, row.start).with(row)
        }
        SessionEvent::Dropped(packet) => {
            let at = viewer.clock.seconds(packet.at);
            line(packet.kind.name(), at).with(DroppedRow::new(packet, viewer))
        }
        SessionEvent::Limited(reached) => {
            let row = LimitRow::new(reached, viewer);
            line("limit", row.start).with(row)
        }
    }
}

/// Fields of every line.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Head<'a> {
    /// Version of the object.
    schema: u32,
    event: &'static str,
    /// Time of the event in seconds since the Unix epoch: of the first packet for `opened`, of the
    /// packet for `denied`, `audited`, `dropped`, `rejected`, `refused` and `limit`, of the counts
    /// for `update`, and of the line for `ended`.
    event_time: f64,
    /// Name of the appliance.
    host: &'a str,
}

impl Head<'_> {
    fn with(self, row: impl Serialize) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Line { head: self, row })
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Line<'a, R> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(flatten)]
    row: R,
}

/// A session that has opened, goes on, or has ended.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct SessionRow {
    /// `null` while the session lives.
    end_reason: Option<&'static str>,
    #[serde(flatten)]
    session: ListedSession,
}

impl SessionRow {
    fn new(session: &SessionRecord, reason: Option<EndReason>, viewer: &Viewer<'_>) -> Self {
        Self {
            end_reason: reason.map(EndReason::name),
            session: viewer.view(session),
        }
    }
}

/// Row of a session that the policy denied, or admitted for audit. Fields in common with a
/// [`SessionView`](crate::session_view::SessionView) have equal names.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DeniedRow<'a> {
    action: &'static str,
    /// Stable name of the reason.
    reason: Option<&'static str>,
    #[serde(flatten)]
    flow: FiveTuple,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
    orig_pkts: u32,
    orig_ip_bytes: u32,
    start: f64,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnels: Option<[Option<TunnelView>; 2]>,
}

impl<'a> DeniedRow<'a> {
    fn new(denied: &DeniedSession, viewer: &Viewer<'a>) -> Self {
        let flow = FiveTuple::of_denied(denied, viewer.zones.name(denied.zone));
        Self {
            action: denied.action.name(),
            reason: reason_of_action(denied.action),
            community_id: flow.community_id(),
            flow,
            orig_pkts: 1,
            orig_ip_bytes: denied.bytes,
            start: viewer.clock.seconds(denied.at),
            rule: viewer.policy.rule_name(denied.rule),
            tunnels: viewer
                .tunnel(denied.tunnel)
                .map(|tunnel| [Some(tunnel), None]),
        }
    }
}

/// A limit that a new session would have exceeded.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LimitRow<'a> {
    limit: &'static str,
    scope: &'static str,
    value: u32,
    count: u32,
    zone: String,
    src: IpAddr,
    dst: IpAddr,
    start: f64,
    rule: &'a str,
}

impl<'a> LimitRow<'a> {
    fn new(reached: &LimitReached, viewer: &Viewer<'a>) -> Self {
        Self {
            limit: reached.exceeded.limit.name(),
            scope: reached.exceeded.scope.name(),
            value: reached.exceeded.value,
            count: reached.exceeded.count,
            zone: viewer.zones.name(reached.zone),
            src: reached.src,
            dst: reached.dst,
            start: viewer.clock.seconds(reached.at),
            rule: viewer.policy.rule_name(reached.rule),
        }
    }
}

/// Any line of the log, for its schema.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema alone is used")]
#[allow(
    clippy::large_enum_variant,
    reason = "the type describes lines for their schema, and has no values"
)]
pub(super) enum AnyLine<'a> {
    Session(Line<'a, SessionRow>),
    Decided(Line<'a, DeniedRow<'a>>),
    Dropped(Line<'a, DroppedRow<'a>>),
    Limit(Line<'a, LimitRow<'a>>),
}
