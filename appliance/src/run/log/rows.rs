//! What a line of the session log looks like: an object of JSON, or a VPC flow log record of version 2, as AWS documents them.

use std::net::IpAddr;
use std::time::Instant;

use portcullis::event::Traffic;
use portcullis::policy::{Action, Protocol};
use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};
use serde::Serialize;

use super::super::data_path::TunnelView;
use super::super::event_queue::SessionEvent;
use super::super::settings::{LogFormat, LogSettings};
use super::super::view::{SessionView, Viewer, WallClock};

/// The first line of a file of VPC flow log records, its end included.
pub(super) const VPC_HEADER: &[u8] =
    b"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
bytes start end action log-status\n";

/// Hands the lines of an event to `put`, without their ends.
///
/// # Errors
/// It cannot be said in JSON.
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
                SessionEvent::Denied(denied) => serde_json::to_string(&DeniedRow::new(denied, viewer)),
                SessionEvent::Limited(reached) => serde_json::to_string(&LimitRow::new(reached, viewer)),
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
            // It has passed, and has records at its end.
            SessionEvent::Denied(denied) if denied.action == Action::Audit => {}
            SessionEvent::Denied(denied) => {
                put(&FlowRecord::of_denied(denied).line(settings, &viewer.clock));
            }
        },
    }
    Ok(())
}

/// A session that has been opened or has ended.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    end_reason: Option<&'static str>,
    #[serde(flatten)]
    session: SessionView,
}

impl Row {
    fn line(
        event: &'static str,
        reason: Option<EndReason>,
        session: SessionView,
    ) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Self {
            event,
            end_reason: reason.map(EndReason::name),
            session,
        })
    }
}

/// A session that the policy did not admit, or has admitted for audit. What it has in common with
/// [`SessionView`] has the same name.
#[derive(Debug, Serialize)]
struct DeniedRow<'a> {
    event: &'static str,
    action: &'static str,
    zone: String,
    proto: String,
    src: IpAddr,
    sport: Option<u16>,
    dst: IpAddr,
    dport: Option<u16>,
    orig_pkts: u32,
    orig_bytes: u32,
    start: f64,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnels: Option<[Option<TunnelView>; 2]>,
}

impl<'a> DeniedRow<'a> {
    fn new(denied: &DeniedSession, viewer: &Viewer<'a>) -> Self {
        let port = |port| viewer.port(denied.protocol, port);
        Self {
            event: match denied.action {
                Action::Audit => "audited",
                _ => "denied",
            },
            action: denied.action.name(),
            zone: viewer.zones.name(denied.zone),
            proto: Protocol(denied.protocol).to_string(),
            src: denied.src,
            sport: port(denied.src_port),
            dst: denied.dst,
            dport: port(denied.dst_port),
            orig_pkts: 1,
            orig_bytes: denied.bytes,
            start: viewer.clock.seconds(denied.at),
            rule: viewer.policy.rule_name(denied.rule),
            tunnels: viewer.tunnel(denied.tunnel).map(|tunnel| [Some(tunnel), None]),
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

/// A VPC flow log record: what went from one end to the other.
#[derive(Debug)]
struct FlowRecord {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    protocol: u8,
    traffic: Traffic,
    start: Instant,
    end: Instant,
    action: &'static str,
}

impl FlowRecord {
    /// One for each direction that has sent anything.
    fn of_session(session: &SessionRecord) -> impl Iterator<Item = Self> {
        let (from, to) = ((session.src, session.src_port), (session.dst, session.dst_port));
        let (protocol, start, end) = (session.protocol, session.start, session.last);
        [(from, to, session.original), (to, from, session.reply)]
            .into_iter()
            .filter(|(_, _, traffic)| traffic.packets > 0)
            .map(move |(from, to, traffic)| Self {
                from,
                to,
                protocol,
                traffic,
                start,
                end,
                action: "ACCEPT",
            })
    }

    fn of_denied(denied: &DeniedSession) -> Self {
        Self {
            from: (denied.src, denied.src_port),
            to: (denied.dst, denied.dst_port),
            protocol: denied.protocol,
            traffic: Traffic {
                packets: 1,
                bytes: u64::from(denied.bytes),
            },
            start: denied.at,
            end: denied.at,
            action: "REJECT",
        }
    }

    /// Ports are 0 where the protocol has none, and for ICMP.
    fn line(&self, settings: &LogSettings, clock: &WallClock) -> String {
        let has_ports = Protocol(self.protocol).has_ports();
        let port = |port| if has_ports { port } else { 0 };
        let (account, interface) = (&settings.account_id, &settings.interface_id);
        let Traffic { packets, bytes } = self.traffic;
        let (start, end) = (clock.at(self.start).as_secs(), clock.at(self.end).as_secs());
        format!(
            "2 {account} {interface} {} {} {} {} {} {packets} {bytes} {start} {end} {} OK",
            self.from.0,
            self.to.0,
            port(self.from.1),
            port(self.to.1),
            self.protocol,
            self.action
        )
    }
}
