//! Conditions on a session's service: its protocol, ports and type of ICMP message.

use super::NewSession;
use super::field::{IcmpType, PortRange, Protocol, RuleField};

/// Protocols, ports and ICMP types of a part of a rule. An empty list leaves that field open.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceMatch {
    pub(crate) protocol: Vec<Protocol>,
    pub(crate) source_ports: Vec<PortRange>,
    pub(crate) destination_ports: Vec<PortRange>,
    pub(crate) icmp_types: Vec<IcmpType>,
}

impl ServiceMatch {
    /// Returns whether the service of a session matches.
    pub(super) fn matches(&self, q: &NewSession) -> bool {
        let fields = ServiceFields {
            protocol: &self.protocol,
            source_ports: &self.source_ports,
            destination_ports: &self.destination_ports,
            icmp_types: &self.icmp_types,
        };
        fields.mismatch(q).is_none()
    }
}

/// The lists of a [`ServiceMatch`] or of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServiceFields<'a> {
    pub(super) protocol: &'a [Protocol],
    pub(super) source_ports: &'a [PortRange],
    pub(super) destination_ports: &'a [PortRange],
    pub(super) icmp_types: &'a [IcmpType],
}

impl ServiceFields<'_> {
    /// Returns the first field that keeps the session from matching.
    pub(super) fn mismatch(&self, q: &NewSession) -> Option<RuleField> {
        let ports = |ranges: &[PortRange], port: Option<u16>| {
            ranges.is_empty()
                || port.is_some_and(|port| ranges.iter().any(|range| range.contains(port)))
        };
        if !(self.protocol.is_empty() || self.protocol.contains(&Protocol(q.protocol))) {
            Some(RuleField::Protocol)
        } else if !ports(self.source_ports, q.src_port) {
            Some(RuleField::SourcePorts)
        } else if !ports(self.destination_ports, q.dst_port) {
            Some(RuleField::DestinationPorts)
        } else if !self.icmp_matches(q) {
            Some(RuleField::IcmpTypes)
        } else {
            None
        }
    }

    /// Returns whether a session's message has one of the types and codes; `true` if there are
    /// none.
    fn icmp_matches(&self, q: &NewSession) -> bool {
        let is_meant = |(kind, code): (u8, u8)| {
            self.icmp_types.iter().any(|own| {
                own.of(Protocol(q.protocol)) == Some(kind)
                    && own.code().is_none_or(|own| own == code)
            })
        };
        let of_protocol = || self.protocol.contains(&Protocol(q.protocol));
        self.icmp_types.is_empty() || of_protocol() && q.icmp.is_some_and(is_meant)
    }
}
