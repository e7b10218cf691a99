//! Suricata's EVE: `flow` records of sessions, `drop` records of packets that were not forwarded,
//! and `alert` records of those that were admitted for audit.

use portcullis::policy::{Action, Protocol};
use portcullis::session::history::Letter;
use portcullis::{EndReason, SessionRecord, SessionUid};
use serde_json::{Map, Value, json};

use super::super::super::observe::event::PacketReason;
use super::facts::{Facts, Outcome, rfc3339};

/// Returns the record of an event.
pub(super) fn record(facts: &Facts<'_>, host: &str) -> Value {
    let (from, to) = (facts.flow.initiator(), facts.flow.responder());
    let mut record = Map::new();
    let mut set = |name: &str, value: Value| record.insert(name.to_owned(), value);
    set("timestamp", json!(timestamp(facts)));
    set("host", json!(host));
    set("src_ip", json!(from.address));
    set("dest_ip", json!(to.address));
    if facts.flow.icmp_type.is_none()
        && let (Some(from), Some(to)) = (from.port, to.port)
    {
        set("src_port", json!(from));
        set("dest_port", json!(to));
    }
    set("proto", json!(protocol(facts.flow.protocol)));
    if let Some(kind) = facts.flow.icmp_type {
        set("icmp_type", json!(kind));
    }
    if let Some(code) = facts.flow.icmp_code {
        set("icmp_code", json!(code));
    }
    if let Some(id) = facts.flow.community_id() {
        set("community_id", json!(id));
    }
    if let Some(uid) = facts.uid {
        set("flow_id", json!(flow_id(uid)));
    }
    match facts.session {
        Some(session) => {
            set("event_type", json!("flow"));
            if let Some(parent) = session.parent_uid {
                set("parent_id", json!(flow_id(parent)));
            }
            set("flow", flow(facts, session));
            if facts.flow.protocol == Protocol::TCP {
                set("tcp", tcp(session));
            }
        }
        None => {
            let is_audited = matches!(facts.outcome, Outcome::Decided(Action::Audit));
            let kind = if is_audited { "alert" } else { "drop" };
            set("event_type", json!(kind));
            if matches!(facts.outcome, Outcome::Decided(_)) {
                set("alert", alert(facts, is_audited));
            }
            if !is_audited {
                let reason = facts.dropped_for().map_or("rules", PacketReason::name);
                let len = facts.original.bytes;
                set("drop", json!({"len": len, "reason": reason}));
            }
        }
    }
    set("portcullis", own(facts));
    Value::Object(record)
}

/// Returns the time of the record, in Suricata's form.
fn timestamp(facts: &Facts<'_>) -> String {
    suricata_time(rfc3339(facts.last))
}

fn suricata_time(rfc3339: String) -> String {
    rfc3339.replace('Z', "+0000")
}

/// Returns the name of a protocol in Suricata; three digits for one without a name.
fn protocol(protocol: Protocol) -> String {
    let name = match protocol.0 {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "IPv6-ICMP",
        132 => "SCTP",
        number => return format!("{number:03}"),
    };
    name.to_owned()
}

/// Returns a number that stands for a session: 53 bits, which every reader of JSON keeps.
pub(super) fn flow_id(uid: SessionUid) -> u64 {
    // The finalizer of SplitMix64 spreads the few bits in which sessions of one engine differ.
    let mut id = uid.engine() ^ uid.session().number();
    id = (id ^ id >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ id >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (id ^ id >> 31) >> 11
}

fn flow(facts: &Facts<'_>, session: &SessionRecord) -> Value {
    let reason = match facts.outcome {
        Outcome::Ended(EndReason::Reused) => "tcp_reuse",
        Outcome::Ended(
            EndReason::Evicted
            | EndReason::Revoked
            | EndReason::Deleted
            | EndReason::FtpRefused
            | EndReason::Moved,
        ) => "forced",
        _ => "timeout",
    };
    let is_closed = matches!(
        facts.outcome,
        Outcome::Ended(EndReason::Closed | EndReason::Reset | EndReason::Refused)
    );
    let state = match () {
        () if is_closed => "closed",
        () if session.assured || session.reply.packets > 0 => "established",
        () => "new",
    };
    json!({
        "pkts_toserver": facts.original.packets,
        "pkts_toclient": facts.reply.packets,
        "bytes_toserver": facts.original.bytes,
        "bytes_toclient": facts.reply.bytes,
        "start": suricata_time(rfc3339(facts.start)),
        "end": suricata_time(rfc3339(facts.last)),
        "age": facts.duration().as_secs(),
        "state": state,
        "reason": reason,
        "alerted": false,
    })
}

/// Returns the flags that the session's history has letters for.
fn tcp(session: &SessionRecord) -> Value {
    let has = |letters: &[Letter]| {
        let mut all = session.history.letters();
        all.any(|(letter, _)| letters.contains(&letter))
    };
    json!({
        "syn": has(&[Letter::Syn, Letter::Handshake]),
        "ack": has(&[Letter::Handshake, Letter::Ack, Letter::Data]),
        "fin": has(&[Letter::Fin]),
        "rst": has(&[Letter::Reset]),
    })
}

fn alert(facts: &Facts<'_>, is_audited: bool) -> Value {
    json!({
        "action": if is_audited { "allowed" } else { "blocked" },
        "gid": 1,
        "signature_id": 0,
        "rev": 0,
        "signature": format!("portcullis {} {}", facts.action(), facts.rule.unwrap_or_default()),
        "category": "",
        "severity": 3,
    })
}

/// Returns the facts that Suricata has no name for.
fn own(facts: &Facts<'_>) -> Value {
    let end_reason = match facts.outcome {
        Outcome::Ended(reason) => Some(reason.name()),
        _ => None,
    };
    let mut own = json!({
        "uid": facts.uid(),
        "zone": facts.flow.zone,
        "rule": facts.rule,
        "action": facts.action(),
        "reason": facts.reason(),
        "end_reason": end_reason,
        "history": facts.history(),
        "conn_state": facts.conn_state(),
    });
    if let (Some(uid), Some(own)) = (facts.parent_uid(), own.as_object_mut()) {
        own.insert("parent_uid".to_owned(), json!(uid.to_string()));
    }
    if let (Some(direction), Some(own)) = (facts.packet_direction(), own.as_object_mut()) {
        own.insert("direction".to_owned(), json!(direction));
    }
    own
}
