//! Queries to the policy: a packet, a session or a control session as rules match it.

use crate::explain::{Step, Trace};
use crate::flow::{Direction, End, FlowKey, Zone};
use crate::ftp::SessionEnds;
use crate::packet::{IpVersion, PROTOCOL_TCP, Parsed, Transport};
use crate::policy::{CompiledPolicy, NewSession, Protocol};
use crate::session::Slot;

/// Returns the policy query for a packet that travels in a direction of its session.
pub(super) fn new_session(zone: Zone, parsed: &Parsed, direction: Direction) -> NewSession {
    let (src_port, dst_port, icmp) = match &parsed.transport {
        Transport::Tcp {
            src_port, dst_port, ..
        }
        | Transport::Udp {
            src_port, dst_port, ..
        }
        | Transport::Sctp {
            src_port, dst_port, ..
        }
        | Transport::Dccp {
            src_port, dst_port, ..
        } => (Some(*src_port), Some(*dst_port), None),
        Transport::IcmpQuery(query) => (None, None, Some((query.icmp_type, query.code))),
        Transport::IcmpOther { kind, code } => (None, None, Some((*kind, *code))),
        _ => (None, None, None),
    };
    let (from, to) = (parsed.ip.source(), parsed.ip.destination());
    let ((src, src_port), (dst, dst_port)) = match direction {
        Direction::Original => ((from, src_port), (to, dst_port)),
        Direction::Reply => ((to, dst_port), (from, src_port)),
    };
    NewSession {
        zone,
        src,
        dst,
        protocol: parsed.ip.protocol,
        src_port,
        dst_port,
        icmp,
    }
}

/// Returns the policy query by which a control session was admitted.
pub(super) fn opening_query_of(ends: &SessionEnds) -> NewSession {
    NewSession {
        zone: ends.zone,
        src: ends.initiator.ip(),
        dst: ends.responder.ip(),
        protocol: PROTOCOL_TCP,
        src_port: Some(ends.initiator.port()),
        dst_port: Some(ends.responder.port()),
        icmp: None,
    }
}

/// Returns the policy query by which a session was admitted.
pub(super) fn opening_query(slot: &Slot) -> NewSession {
    query_between(&slot.key, slot.initiator())
}

/// Returns the policy query for a conversation that an end would begin.
pub(super) fn query_between(key: &FlowKey, initiator: End) -> NewSession {
    let has_ports = Protocol(key.protocol()).has_ports();
    let port = |end| has_ports.then(|| key.port(end));
    let version = if key.is_ipv6() {
        IpVersion::V6
    } else {
        IpVersion::V4
    };
    NewSession {
        zone: key.zone(),
        src: key.address(initiator),
        dst: key.address(initiator.opposite()),
        protocol: key.protocol(),
        src_port: port(initiator),
        dst_port: port(initiator.opposite()),
        icmp: key
            .icmp_kind()
            .map(|kind| kind.request_type(version))
            .or(key.icmp_message())
            .map(|icmp_type| (icmp_type, 0)),
    }
}

pub(super) fn trace_policy<T: Trace>(policy: &CompiledPolicy, query: &NewSession, trace: &mut T) {
    let explanation = policy.explain(query);
    for rule in &explanation.considered {
        trace.step(|| match rule.mismatch {
            Some(field) => {
                let sets = in_brackets(&rule.sets);
                Step::Policy(format!(
                    "rule {}: {} does not match{sets}",
                    rule.name,
                    field.name()
                ))
            }
            None => Step::Policy(format!(
                "rule {} matches{}",
                rule.name,
                in_brackets(&rule.sets)
            )),
        });
    }
    trace.step(|| {
        let decision = explanation.decision;
        Step::Policy(format!(
            "{} by {}",
            decision.action.name(),
            policy.rule_name(decision.rule)
        ))
    });
}

/// Returns the named sets that contain a session's addresses or service, to append to the report of
/// a rule.
fn in_brackets(sets: &str) -> String {
    if sets.is_empty() {
        return String::new();
    }
    format!(" ({sets})")
}
