//! Events of the Elastic Common Schema, version 8.11.

use portcullis::policy::{Action, Protocol};
use serde_json::{Map, Value, json};

use super::facts::{Facts, Outcome, rfc3339};
use crate::five_tuple::Endpoint;

/// Version of the schema.
const VERSION: &str = "8.11.0";

/// Returns the document of an event.
pub(super) fn event(facts: &Facts<'_>, host: &str) -> Value {
    let mut document = json!({
        "@timestamp": rfc3339(facts.last),
        "ecs": {"version": VERSION},
        "event": event_fields(facts),
        "source": end(facts.flow.initiator(), facts),
        "destination": end(facts.flow.responder(), facts),
        "network": network(facts),
        "observer": {
            "hostname": host,
            "vendor": "portcullis",
            "product": "portcullis",
            "type": "firewall",
        },
        "portcullis": own(facts),
    });
    if let (Some(rule), Some(document)) = (facts.rule, document.as_object_mut()) {
        document.insert("rule".to_owned(), json!({"name": rule}));
    }
    let traffic = [("source", facts.original), ("destination", facts.reply)];
    for (end, traffic) in traffic {
        if let Some(end) = document.get_mut(end).and_then(Value::as_object_mut) {
            end.insert("packets".to_owned(), json!(traffic.packets));
            end.insert("bytes".to_owned(), json!(traffic.bytes));
        }
    }
    document
}

fn event_fields(facts: &Facts<'_>) -> Value {
    let (action, kind, verdict) = match facts.outcome {
        Outcome::Opened => ("opened", "start", "allowed"),
        Outcome::Updated => ("update", "info", "allowed"),
        Outcome::Ended(_) => ("ended", "end", "allowed"),
        Outcome::Decided(Action::Audit) => ("audited", "info", "allowed"),
        Outcome::Decided(_) => ("denied", "info", "denied"),
        Outcome::Dropped(packet) => (packet.kind.name(), "info", "denied"),
    };
    let mut event = json!({
        "kind": "event",
        "category": ["network"],
        "type": ["connection", kind, verdict],
        "action": action,
        "module": "portcullis",
        "dataset": "portcullis.log",
        "start": rfc3339(facts.start),
        "duration": u64::try_from(facts.duration().as_nanos()).unwrap_or(u64::MAX),
    });
    let mut set = |name: &str, value: Value| {
        if let Some(event) = event.as_object_mut() {
            event.insert(name.to_owned(), value);
        }
    };
    if facts.is_final() {
        set("end", json!(rfc3339(facts.last)));
    }
    let ended = match facts.outcome {
        Outcome::Ended(reason) => Some(reason.name()),
        _ => None,
    };
    if let Some(reason) = ended.or(facts.reason()) {
        set("reason", json!(reason));
    }
    if let Some(uid) = facts.uid() {
        set("id", json!(uid));
    }
    event
}

fn end(end: Endpoint, facts: &Facts<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("ip".to_owned(), json!(end.address));
    fields.insert("address".to_owned(), json!(end.address));
    if let Some(port) = end.port.filter(|_| facts.flow.icmp_type.is_none()) {
        fields.insert("port".to_owned(), json!(port));
    }
    Value::Object(fields)
}

fn network(facts: &Facts<'_>) -> Value {
    let version = match facts.flow.initiator().address.is_ipv4() {
        true => "ipv4",
        false => "ipv6",
    };
    let transport = match facts.flow.protocol {
        Protocol::ICMPV6 => "ipv6-icmp".to_owned(),
        protocol => protocol.to_string(),
    };
    let packets = u64::from(facts.original.packets) + u64::from(facts.reply.packets);
    let mut network = json!({
        "type": version,
        "transport": transport,
        "iana_number": facts.flow.protocol.0.to_string(),
        "packets": packets,
        "bytes": facts.original.bytes.saturating_add(facts.reply.bytes),
    });
    if let (Some(id), Some(network)) = (facts.flow.community_id(), network.as_object_mut()) {
        network.insert("community_id".to_owned(), json!(id));
    }
    network
}

/// Returns the facts that the schema has no field for.
fn own(facts: &Facts<'_>) -> Value {
    let mut own = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            own.insert(name.to_owned(), value);
        }
    };
    set("zone", facts.flow.zone.clone().map(Value::from));
    set("action", Some(json!(facts.action())));
    set("direction", facts.packet_direction().map(Value::from));
    set("state", facts.session.map(|session| json!(session.state)));
    set(
        "parent_uid",
        facts.parent_uid().map(|uid| json!(uid.to_string())),
    );
    set("history", facts.history().map(Value::from));
    set("conn_state", facts.conn_state().map(Value::from));
    set("icmp_type", facts.flow.icmp_type.map(Value::from));
    set("icmp_code", facts.flow.icmp_code.map(Value::from));
    set("icmp_id", facts.flow.icmp_id.map(Value::from));
    Value::Object(own)
}
