//! Lines of the session log: objects of JSON, or VPC flow log records of version 2, as AWS
//! documents them.

use std::net::IpAddr;
use std::time::Instant;

use portcullis::event::Traffic;
use portcullis::policy::{Action, Protocol};
use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};
use serde::Serialize;

use super::super::data_path::TunnelView;
use super::super::event_queue::SessionEvent;
use super::super::settings::{LogFormat, LogSettings};
use super::super::view::{ListedSession, Viewer, WallClock};
use crate::five_tuple::{Endpoint, FiveTuple};

/// The first line of a file of VPC flow log records, its end included.
pub(super) const VPC_HEADER: &[u8] =
    b"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
bytes start end action log-status\n";

/// Passes the lines of an event to `put`, without their ends.
///
/// # Errors
/// Returns an error if the event cannot be written as JSON.
pub(super) fn put(
    settings: &LogSettings,
    viewer: &Viewer<'_>,
    event: &SessionEvent,
    mut put: impl FnMut(&str),
) -> Result<(), serde_json::Error> {
    match settings.format {
        LogFormat::Json => {
            let line = match event {
                SessionEvent::Opened(session) => Row::line("opened", None, viewer.view(session)),
                SessionEvent::Ended(session, reason) => {
                    Row::line("ended", Some(*reason), viewer.view(session))
                }
                SessionEvent::Denied(denied) => {
                    serde_json::to_string(&DeniedRow::new(denied, viewer))
                }
                SessionEvent::Limited(reached) => {
                    serde_json::to_string(&LimitRow::new(reached, viewer))
                }
            };
            put(&line?);
        }
        LogFormat::AwsVpcFlowV2 => match event {
            SessionEvent::Opened(_) | SessionEvent::Limited(_) => {}
            SessionEvent::Ended(session, _) => {
                for record in FlowRecord::of_session(session) {
                    put(&record.line(settings, &viewer.clock));
                }
            }
            // An audited session has passed, and gets its records at its end.
            SessionEvent::Denied(denied) if denied.action == Action::Audit => {}
            SessionEvent::Denied(denied) => {
                put(&FlowRecord::of_denied(denied).line(settings, &viewer.clock));
            }
        },
    }
    Ok(())
}

/// A session that has opened or ended.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    end_reason: Option<&'static str>,
    #[serde(flatten)]
    session: ListedSession,
}

impl Row {
    fn line(
        event: &'static str,
        reason: Option<EndReason>,
        session: ListedSession,
    ) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Self {
            event,
            end_reason: reason.map(EndReason::name),
            session,
        })
    }
}

/// Row of a session that the policy denied, or admitted for audit. Fields in common with a
/// [`SessionView`](crate::session_view::SessionView) have equal names.
#[derive(Debug, Serialize)]
struct DeniedRow<'a> {
    event: &'static str,
    action: &'static str,
    #[serde(flatten)]
    flow: FiveTuple,
    orig_pkts: u32,
    orig_bytes: u32,
    start: f64,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnels: Option<[Option<TunnelView>; 2]>,
}

impl<'a> DeniedRow<'a> {
    fn new(denied: &DeniedSession, viewer: &Viewer<'a>) -> Self {
        Self {
            event: match denied.action {
                Action::Audit => "audited",
                _ => "denied",
            },
            action: denied.action.name(),
            flow: FiveTuple::of_denied(denied, viewer.zones.name(denied.zone)),
            orig_pkts: 1,
            orig_bytes: denied.bytes,
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
struct LimitRow<'a> {
    event: &'static str,
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
            event: "limit",
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

/// VPC flow log record: traffic from one endpoint to the other.
#[derive(Debug)]
struct FlowRecord {
    from: Endpoint,
    to: Endpoint,
    protocol: Protocol,
    traffic: Traffic,
    start: Instant,
    end: Instant,
    action: &'static str,
}

impl FlowRecord {
    /// Returns a record for each direction that has sent anything.
    fn of_session(session: &SessionRecord) -> impl Iterator<Item = Self> {
        let flow = FiveTuple::of_session(session, ());
        let (from, to) = (flow.initiator(), flow.responder());
        let record = |from, to, traffic| Self {
            from,
            to,
            protocol: flow.protocol,
            traffic,
            start: session.start,
            end: session.last,
            action: "ACCEPT",
        };
        [
            record(from, to, session.original),
            record(to, from, session.reply),
        ]
        .into_iter()
        .filter(|record| record.traffic.packets > 0)
    }

    fn of_denied(denied: &DeniedSession) -> Self {
        let flow = FiveTuple::of_denied(denied, ());
        Self {
            from: flow.initiator(),
            to: flow.responder(),
            protocol: flow.protocol,
            traffic: Traffic {
                packets: 1,
                bytes: u64::from(denied.bytes),
            },
            start: denied.at,
            end: denied.at,
            action: "REJECT",
        }
    }

    /// Returns the line of the record. Ports are 0 where the protocol has none, and for ICMP.
    fn line(&self, settings: &LogSettings, clock: &WallClock) -> String {
        let has_ports = self.protocol.has_ports();
        let port = |end: Endpoint| end.port.filter(|_| has_ports).unwrap_or(0);
        let (account, interface) = (&settings.account_id, &settings.interface_id);
        let Traffic { packets, bytes } = self.traffic;
        let (start, end) = (clock.at(self.start).as_secs(), clock.at(self.end).as_secs());
        format!(
            "2 {account} {interface} {} {} {} {} {} {packets} {bytes} {start} {end} {} OK",
            self.from.address,
            self.to.address,
            port(self.from),
            port(self.to),
            self.protocol.0,
            self.action
        )
    }
}
