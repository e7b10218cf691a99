//! Rules, and the plain comparison of one rule with one session.

use std::fmt;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::NewSession;
use super::blocks::hold_all;
use super::field::{IcmpType, PortRange, Protocol, RuleField, merged};
use super::handling::{OptionsMode, TcpHandling};
use super::origin::RuleOrigin;
use super::service::ServiceFields;
use crate::flow::Zone;
use crate::limits::LimitSet;

/// Action for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The session is created and its packets are forwarded.
    Allow,
    /// The packet is dropped silently.
    Deny,
    /// The packet is dropped and answered: with a RST for TCP, with an ICMP error otherwise.
    Reject,
    /// The session is created as with [`Self::Allow`], and its first packet is counted and reported
    /// as one that [`Self::Deny`] would drop.
    Audit,
}

impl Action {
    /// Returns the name in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
            Self::Audit => "audit",
        }
    }

    /// Returns whether the action creates sessions and forwards their packets.
    #[must_use]
    pub const fn admits(self) -> bool {
        matches!(self, Self::Allow | Self::Audit)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Side of the initiator. An initiator is inside if the policy's `inside` prefixes contain its
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RuleDirection {
    /// The initiator is inside.
    Outbound,
    /// The initiator is not inside.
    Inbound,
    /// Either.
    #[default]
    Any,
}

impl RuleDirection {
    /// Returns the name in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Any => "any",
        }
    }
}

/// Rule, or one of several parts of a rule, with zones and sets resolved. An empty list leaves that
/// field open. The parts of a rule are adjacent and differ only in their match.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) zones: Vec<Zone>,
    pub(crate) source: Vec<IpNet>,
    pub(crate) destination: Vec<IpNet>,
    pub(crate) protocol: Vec<Protocol>,
    pub(crate) source_ports: Vec<PortRange>,
    pub(crate) destination_ports: Vec<PortRange>,
    pub(crate) icmp_types: Vec<IcmpType>,
    pub(crate) direction: RuleDirection,
    pub(crate) log: bool,
    pub(crate) resilient: bool,
    pub(crate) tcp: TcpHandling,
    pub(crate) ip_options: Option<OptionsMode>,
    pub(crate) limits: LimitSet,
    /// The names that the lists were written with, for explanations.
    pub(crate) origin: Option<Arc<RuleOrigin>>,
}

impl Rule {
    /// Returns the protocols, types and codes of ICMP of the rule's `icmp_types`; no code means any
    /// code.
    pub(super) fn icmp_messages(&self) -> impl Iterator<Item = (Protocol, u8, Option<u8>)> + '_ {
        self.protocol.iter().flat_map(move |protocol| {
            let of_protocol =
                move |kind: &IcmpType| Some((*protocol, kind.of(*protocol)?, kind.code()));
            self.icmp_types.iter().filter_map(of_protocol)
        })
    }

    /// Returns the conditions of the rule on a session's service.
    const fn service(&self) -> ServiceFields<'_> {
        ServiceFields {
            protocol: self.protocol.as_slice(),
            source_ports: self.source_ports.as_slice(),
            destination_ports: self.destination_ports.as_slice(),
            icmp_types: self.icmp_types.as_slice(),
        }
    }

    /// Returns the bytes of the rule and its lists.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.name.capacity()
            + size_of_val(&*self.zones)
            + size_of_val(&*self.source)
            + size_of_val(&*self.destination)
            + size_of_val(&*self.protocol)
            + size_of_val(&*self.source_ports)
            + size_of_val(&*self.destination_ports)
            + size_of_val(&*self.icmp_types)
    }

    /// Returns the first field that keeps the session from matching.
    pub(super) fn mismatch(&self, q: &NewSession, inside: bool) -> Option<RuleField> {
        let within = |nets: &[IpNet], address| {
            nets.is_empty() || nets.iter().any(|net| net.contains(address))
        };
        let direction = match self.direction {
            RuleDirection::Any => true,
            RuleDirection::Outbound => inside,
            RuleDirection::Inbound => !inside,
        };
        if !(self.zones.is_empty() || self.zones.contains(&q.zone)) {
            Some(RuleField::Zones)
        } else if !within(&self.source, &q.src) {
            Some(RuleField::Source)
        } else if !within(&self.destination, &q.dst) {
            Some(RuleField::Destination)
        } else if let Some(field) = self.service().mismatch(q) {
            Some(field)
        } else if !direction {
            Some(RuleField::Direction)
        } else {
            None
        }
    }

    /// Returns whether this rule matches every session that the other rule matches. `false` may
    /// also mean that a field-by-field comparison cannot determine it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        fn list<T: PartialEq>(outer: &[T], inner: &[T]) -> bool {
            outer.is_empty() || (!inner.is_empty() && inner.iter().all(|item| outer.contains(item)))
        }
        fn nets(outer: &[IpNet], inner: &[IpNet]) -> bool {
            if outer.is_empty() {
                return true;
            }
            // Lists may be long, and few comparisons reach an address that is in both.
            let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
            let inner = if inner.is_empty() { &everything } else { inner };
            hold_all(outer, inner)
        }
        fn ports(outer: &[PortRange], inner: &[PortRange]) -> bool {
            let outer_merged = merged(outer);
            let held = |range: &PortRange| {
                outer_merged
                    .iter()
                    .any(|own| own.first <= range.first && range.last <= own.last)
            };
            outer.is_empty() || (!inner.is_empty() && inner.iter().all(held))
        }
        let icmp = || {
            let has = |(protocol, kind, code): (Protocol, u8, Option<u8>)| {
                self.protocol.contains(&protocol)
                    && self.icmp_types.iter().any(|own| {
                        own.of(protocol) == Some(kind)
                            && (own.code().is_none() || own.code() == code)
                    })
            };
            !other.icmp_types.is_empty() && other.icmp_messages().all(has)
        };
        list(&self.zones, &other.zones)
            && list(&self.protocol, &other.protocol)
            && ports(&self.source_ports, &other.source_ports)
            && ports(&self.destination_ports, &other.destination_ports)
            && (self.icmp_types.is_empty() || icmp())
            && (self.direction == RuleDirection::Any || self.direction == other.direction)
            && nets(&self.source, &other.source)
            && nets(&self.destination, &other.destination)
    }
}
