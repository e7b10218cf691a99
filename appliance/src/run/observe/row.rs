//! Rows of the stream: events with names in place of numbers.

use std::fmt::Write as _;
use std::net::IpAddr;

use portcullis::{LimitReached, SessionId, SessionUid};
use serde::{Deserialize, Serialize};

use super::super::data_path::TunnelView;
use super::super::view::{ListedSession, Viewer};
use super::event::{Observed, PacketEvent, PacketReply};
use super::filter::{Facts, verdict_of};

/// Event of the stream. Fields that an event does not have are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub(crate) struct EventRow {
    /// Kind of the event.
    pub(crate) event: String,
    /// Seconds since the Unix epoch.
    pub(crate) time: f64,
    /// `forward`, `drop`, `reject`, `refuse` or `hold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<String>,
    /// Stable name of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Zone of the packet or the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// Name of the protocol, or its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proto: Option<String>,
    /// Source of the packet, or initiator of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src: Option<IpAddr>,
    /// Port of `src`, or the identifier of an ICMP query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sport: Option<u16>,
    /// Destination of the packet, or responder of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dst: Option<IpAddr>,
    /// Port of `dst`, or the identifier of an ICMP query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dport: Option<u16>,
    /// Community ID of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) community_id: Option<String>,
    /// Flags of a TCP segment, such as `SA`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flags: Option<String>,
    /// Bytes of the packet, padding included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u32>,
    /// Relation of the packet to the sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// Direction of the packet in its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direction: Option<String>,
    /// Number of the session in this run of the appliance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<u64>,
    /// Identifier of the session, as the session log and the listing have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// Rule that has decided, or that has admitted the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// Action of the rule that has decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<String>,
    /// Reply to the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<String>,
    /// Whether the reply was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replied: Option<bool>,
    /// Seconds since the session of a late packet has ended, and the reason of that end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) late: Option<(f64, String)>,
    /// Tunnel of the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<TunnelView>,
    /// Load balancer's address, where the tunnel is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Details as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// Number of events that were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
    /// Session that has opened or ended, as the listing shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<Box<ListedSession>>,
    /// Steps of the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<String>,
    /// Beginning of the packet, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packet: Option<String>,
}

/// Cause for which events are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOutCause {
    /// The client's rate, or the share of a reason in it.
    Rate,
    /// A queue was full.
    Queue,
    /// The memory of past events has not received them, whether they match or not.
    Past,
    /// The session had gone before a filter that depends on it was evaluated.
    SessionGone,
    /// Forwarded packets were not compared with the filter of a client of traces.
    Unexamined,
}

impl EventRow {
    /// Name of the event that reports what was left out.
    pub(crate) const LEFT_OUT: &'static str = "left_out";

    /// Returns the row that reports what was left out.
    pub(crate) fn left_out(cause: LeftOutCause, count: u64, time: f64) -> Self {
        let cause = match cause {
            LeftOutCause::Rate => "rate",
            LeftOutCause::Queue => "queue",
            LeftOutCause::Past => "past",
            LeftOutCause::SessionGone => "session_gone",
            LeftOutCause::Unexamined => "unexamined",
        };
        Self {
            event: Self::LEFT_OUT.to_owned(),
            time,
            reason: Some(cause.to_owned()),
            count: Some(count),
            ..Self::default()
        }
    }
}

/// Renders events.
pub(crate) struct Renderer<'v> {
    pub(crate) viewer: Viewer<'v>,
    /// Bytes of each packet in its row; `None` for none.
    pub(crate) snap: Option<usize>,
    /// Whether rows have the steps of traced decisions.
    pub(crate) explains: bool,
}

impl Renderer<'_> {
    /// Returns the row of an event with these facts.
    pub(crate) fn row(&self, event: &Observed, facts: &Facts) -> EventRow {
        let seconds = |moment| self.viewer.clock.seconds(moment);
        let flow = facts.known_flow();
        let row = EventRow {
            event: event.kind().name().to_owned(),
            reason: facts.reason.map(str::to_owned),
            zone: facts.zone.map(|zone| self.viewer.zones.name(zone)),
            proto: flow
                .and_then(|flow| flow.protocol)
                .map(|proto| proto.to_string()),
            src: flow.map(|flow| flow.src),
            sport: flow.and_then(|flow| flow.ports).map(|[port, _]| port),
            dst: flow.map(|flow| flow.dst),
            dport: flow.and_then(|flow| flow.ports).map(|[_, port]| port),
            session: facts.session.map(SessionId::number),
            uid: facts.uid.as_ref().map(SessionUid::to_string),
            rule: facts.known_rule().map(|rule| {
                let name = self.viewer.policy.rule_name(rule);
                name.to_owned()
            }),
            ..EventRow::default()
        };
        match event {
            Observed::Opened(session) => EventRow {
                time: seconds(session.start),
                record: Some(Box::new(self.viewer.view(session))),
                ..row
            },
            Observed::Ended(event) => EventRow {
                time: seconds(event.at),
                record: Some(Box::new(self.viewer.view(&event.record))),
                ..row
            },
            Observed::Packet(packet) => EventRow {
                time: seconds(packet.at),
                ..self.packet(packet, row)
            },
            Observed::Reset(event) => EventRow {
                time: seconds(event.at),
                direction: Some(event.reset.direction.name().to_owned()),
                reply: Some("tcp_reset".to_owned()),
                replied: Some(event.is_sent),
                bytes: Some(event.reset.bytes().len() as u32),
                packet: self.snap.map(|snap| hex(event.reset.bytes(), snap)),
                ..row
            },
            Observed::Limit(reached) => EventRow {
                time: seconds(reached.at),
                text: Some(self.limit(reached)),
                ..row
            },
            Observed::Helper(event) => EventRow {
                time: seconds(event.note.at),
                direction: Some(event.note.from.name().to_owned()),
                text: event.note.expectation.map(|expected| expected.to_string()),
                ..row
            },
            Observed::Asymmetry(event) => EventRow {
                time: seconds(event.at),
                count: Some(event.line.packets),
                text: Some(event.line.to_string()),
                ..row
            },
        }
    }

    fn packet(&self, packet: &PacketEvent, row: EventRow) -> EventRow {
        let tracked = packet.tracked;
        let reply = packet.reply.map(|reply| match reply {
            PacketReply::Sent(kind) => (kind, true),
            PacketReply::Withheld(kind) => (kind, false),
        });
        let tunnel = self.viewer.tunnel(packet.tunnel);
        EventRow {
            verdict: verdict_of(packet.kind, packet.reason).map(str::to_owned),
            community_id: packet
                .flow
                .and_then(|flow| flow.five_tuple(())?.community_id()),
            flags: packet
                .flow
                .and_then(|flow| flow.flags)
                .map(|flags| flags.to_string()),
            bytes: Some(packet.snap.wire_len).filter(|len| *len > 0),
            class: tracked.map(|tracked| tracked.class.name().to_owned()),
            direction: tracked
                .and_then(|tracked| tracked.direction)
                .map(|direction| direction.name().to_owned()),
            action: packet.decided.map(|(_, action)| action.name().to_owned()),
            reply: reply.map(|(kind, _)| kind.name().to_owned()),
            replied: reply.map(|(_, is_sent)| is_sent),
            late: tracked
                .and_then(|tracked| tracked.late)
                .map(|late| (late.ago().as_secs_f64(), late.reason.name().to_owned())),
            peer: tunnel.is_none().then(|| packet.peer.to_string()),
            tunnel,
            text: packet.reason.map(|reason| reason.describe().to_owned()),
            steps: packet
                .steps
                .iter()
                .filter(|_| self.explains)
                .flatten()
                .map(ToString::to_string)
                .collect(),
            packet: self.snap.map(|snap| hex(packet.snap.bytes(), snap)),
            ..row
        }
    }

    fn limit(&self, reached: &LimitReached) -> String {
        let exceeded = reached.exceeded;
        format!(
            "{} of {}: {} of at most {}",
            exceeded.limit.name(),
            exceeded.scope.name(),
            exceeded.count,
            exceeded.value
        )
    }
}

/// Returns the beginning of a packet in hexadecimal.
fn hex(bytes: &[u8], snap: usize) -> String {
    let bytes = bytes.get(..snap).unwrap_or(bytes);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns the bytes of a packet in hexadecimal; `None` if the text is invalid.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |digit: &u8| (*digit as char).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
            _ => None,
        })
        .collect()
}
