//! Explanation of a session as lines of text.

use std::time::{Duration, Instant};

use portcullis::{SessionDetail, SessionRecord};

use crate::five_tuple::FiveTuple;
use crate::run::appliance::Appliance;
use crate::run::data_path::TunnelView;
use crate::run::view::ListedSession;

/// Returns everything about a session, line by line.
pub(super) fn explain(detail: &SessionDetail, appliance: &Appliance, now: Instant) -> Vec<String> {
    let policy = appliance.data_path.shared.engine.policy();
    let listed = appliance.viewer(&policy, now).view(&detail.record);
    let mut lines = summary(&listed, &detail.record, now);
    lines.extend(lifetime_and_rule(detail, &listed.session.rule));
    lines.extend(windows(detail));
    lines.extend(marks(detail, &listed));
    lines.extend(parent(detail.parent.as_ref(), listed.session.parent));
    for (name, direction) in ["original", "reply"].iter().zip(&listed.tunnels) {
        lines.push(tunnel(name, direction.as_ref()));
    }
    lines
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Returns the five-tuple, the state, the traffic and the age.
fn summary(listed: &ListedSession, record: &SessionRecord, now: Instant) -> Vec<String> {
    let view = &listed.session;
    vec![
        format!(
            "session {}: zone {}, {} {} -> {}",
            listed.id,
            view.flow.zone,
            view.flow.protocol,
            view.flow.initiator().in_list(),
            view.flow.responder().in_list()
        ),
        format!(
            "state {}{}; history {}, conn_state {}",
            view.state,
            if listed.assured { ", assured" } else { "" },
            view.history,
            view.conn_state
        ),
        format!(
            "original: {} packets, {} bytes; reply: {} packets, {} bytes",
            view.orig_pkts, view.orig_bytes, view.reply_pkts, view.reply_bytes
        ),
        format!(
            "opened {} ago, last packet {} ago; uid {}",
            seconds(now.saturating_duration_since(record.start)),
            seconds(now.saturating_duration_since(record.last)),
            view.uid
        ),
    ]
}

fn lifetime_and_rule(detail: &SessionDetail, rule: &str) -> [String; 2] {
    let cap = detail.lifetime.cap;
    let cap = cap.map_or(String::new(), |cap| format!(", at most {}", cap.name()));
    let profile = match detail.profile {
        0 => "global".to_owned(),
        n => format!("lifetimes.override[{}]", n - 1),
    };
    let rule = match rule {
        "default" => rule.to_owned(),
        rule => format!("rule `{rule}`"),
    };
    let evictable = if detail.evictable {
        "; a full table may evict it"
    } else {
        ""
    };
    [
        format!(
            "lifetime {} ({}{cap}, {profile}); {} left",
            seconds(detail.lifetime_length),
            detail.lifetime.class.name(),
            seconds(detail.left)
        ),
        format!("admitted by {rule}{evictable}"),
    ]
}

/// Returns the bounds of the TCP windows; no lines for other protocols.
fn windows(detail: &SessionDetail) -> impl Iterator<Item = String> {
    let sides = ["original", "reply"]
        .iter()
        .zip(detail.sides.iter().flatten());
    sides.map(|(name, side)| {
        format!(
            "{name} end: sent up to {}, may send up to {}, largest window {} (scale {}), expects \
             {}",
            side.peer.end, side.peer.max_end, side.peer.max_window, side.scale, side.peer.max_ack
        )
    })
}

/// Returns the exceptions that apply to the session.
fn marks(detail: &SessionDetail, listed: &ListedSession) -> impl Iterator<Item = String> + use<> {
    let view = &listed.session;
    [
        (
            detail.liberal,
            "tracked liberally: segments outside the window pass",
        ),
        (view.adopted, "adopted midstream"),
        (view.resumed, "continues a session that had ended"),
        (view.bypassed, "bypassed: half of the connection is missing"),
        (
            detail.has_children,
            "has live announced sessions, and lives as long as they do",
        ),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, text)| text.to_owned())
}

/// Returns the session that announced this one, if there is one.
fn parent(parent: Option<&SessionRecord>, number: Option<u64>) -> Option<String> {
    match (parent, number) {
        (Some(parent), _) => {
            let flow = FiveTuple::of_session(parent, ());
            Some(format!(
                "announced by session {}: {} -> {}",
                parent.id.number(),
                flow.initiator().in_list(),
                flow.responder().in_list()
            ))
        }
        (None, Some(number)) => Some(format!("announced by session {number}, which has ended")),
        (None, None) => None,
    }
}

/// Returns the tunnel of a direction.
fn tunnel(name: &str, tunnel: Option<&TunnelView>) -> String {
    let unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    match tunnel {
        Some(tunnel) => format!(
            "{name} direction: endpoint {}, attachment {}, cookie {}, from {} port {}",
            unknown(&tunnel.endpoint),
            unknown(&tunnel.attachment),
            unknown(&tunnel.cookie),
            tunnel.peer,
            tunnel.port
        ),
        None => format!("{name} direction: no tunnel is known"),
    }
}
