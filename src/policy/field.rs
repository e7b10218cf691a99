//! Values of a rule's fields: protocols, ports and types of ICMP messages.

use std::fmt;
use std::str::FromStr;

/// IP protocol number of ICMP.
const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
const ICMPV6: u8 = 58;

/// An IP protocol number. A protocol with a name is parsed from and printed as that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(ICMP);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(ICMPV6);

    /// Names of protocol numbers, from the IANA registry.
    const NAMES: [(&'static str, u8); 19] = [
        ("icmp", ICMP),
        ("igmp", 2),
        ("ipip", 4),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("ipv6", 41),
        ("rsvp", 46),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", ICMPV6),
        ("eigrp", 88),
        ("ospf", 89),
        ("pim", 103),
        ("vrrp", 112),
        ("l2tp", 115),
        ("sctp", 132),
        ("udplite", 136),
    ];

    /// Returns whether rules compare ports of this protocol: TCP, UDP, DCCP, SCTP or UDP-Lite.
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, number)| Self(*number))
            .or_else(|| text.parse().ok().map(Self))
            .ok_or_else(|| {
                let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                format!(
                    "`{text}` is not a protocol: a number from 0 to 255 or one of {}",
                    names.join(", ")
                )
            })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A range of ports, both ends included. A reversed range holds no port, and the configuration
/// rejects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// Returns a range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Returns whether the range contains the port.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>();
        let range = match text.split_once('-') {
            Some((first, last)) => port(first).and_then(|first| {
                Ok(Self {
                    first,
                    last: port(last)?,
                })
            }),
            None => port(text).map(Self::single),
        };
        range.map_err(|_| {
            format!("`{text}` is not a port (0 to 65535) or a range of ports such as `8000-8999`")
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Type of ICMP or ICMPv6 message: a number, or a name of a number in one or both protocols. A code
/// after a slash, as in `echo-request/0`, excludes messages of other codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpType {
    name: Option<&'static str>,
    v4: Option<u8>,
    v6: Option<u8>,
    code: Option<u8>,
}

impl IcmpType {
    /// Names of types: in ICMP, in ICMPv6; from the IANA registries.
    const NAMES: [(&'static str, Option<u8>, Option<u8>); 21] = [
        ("echo-reply", Some(0), Some(129)),
        ("destination-unreachable", Some(3), Some(1)),
        ("source-quench", Some(4), None),
        ("redirect", Some(5), Some(137)),
        ("echo-request", Some(8), Some(128)),
        ("router-advertisement", Some(9), Some(134)),
        ("router-solicitation", Some(10), Some(133)),
        ("time-exceeded", Some(11), Some(3)),
        ("parameter-problem", Some(12), Some(4)),
        ("timestamp-request", Some(13), None),
        ("timestamp-reply", Some(14), None),
        ("information-request", Some(15), None),
        ("information-reply", Some(16), None),
        ("address-mask-request", Some(17), None),
        ("address-mask-reply", Some(18), None),
        ("packet-too-big", None, Some(2)),
        ("neighbor-solicitation", None, Some(135)),
        ("neighbor-advertisement", None, Some(136)),
        ("node-information-query", None, Some(139)),
        ("extended-echo-request", Some(42), Some(160)),
        ("extended-echo-reply", Some(43), Some(161)),
    ];

    /// Returns the names of types.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().map(|(name, _, _)| *name)
    }

    /// Returns the type of this number in ICMP and in ICMPv6.
    pub const fn number(number: u8) -> Self {
        Self {
            name: None,
            v4: Some(number),
            v6: Some(number),
            code: None,
        }
    }

    /// Returns the type restricted to one code.
    #[must_use]
    pub const fn with_code(self, code: u8) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// Returns the code that messages must have; `None` for any.
    #[must_use]
    pub const fn code(self) -> Option<u8> {
        self.code
    }

    /// Returns the type's number in a protocol, or `None` if the protocol has no such type.
    pub const fn of(self, protocol: Protocol) -> Option<u8> {
        match protocol {
            Protocol::ICMP => self.v4,
            Protocol::ICMPV6 => self.v6,
            _ => None,
        }
    }
}

impl FromStr for IcmpType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((kind, code)) = text.split_once('/') {
            let kind: Self = kind.parse()?;
            let code = code.parse::<u8>();
            return code
                .map(|code| kind.with_code(code))
                .map_err(|_| format!("`{text}` has no ICMP code from 0 to 255 after its slash"));
        }
        Self::NAMES
            .iter()
            .find(|(name, _, _)| *name == text)
            .map(|(name, v4, v6)| Self {
                name: Some(name),
                v4: *v4,
                v6: *v6,
                code: None,
            })
            .or_else(|| text.parse().ok().map(Self::number))
            .ok_or_else(|| {
                let names: Vec<&str> = Self::names().collect();
                format!(
                    "`{text}` is not an ICMP type: a number from 0 to 255 or one of {}",
                    names.join(", ")
                )
            })
    }
}

impl fmt::Display for IcmpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name, self.v4.or(self.v6)) {
            (Some(name), _) => f.write_str(name)?,
            (None, Some(number)) => write!(f, "{number}")?,
            (None, None) => {}
        }
        match self.code {
            Some(code) => write!(f, "/{code}"),
            None => Ok(()),
        }
    }
}

/// A part of a rule that is compared with a session, in the order of comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleField {
    /// The zone.
    Zones,
    /// The initiator's address.
    Source,
    /// The responder's address.
    Destination,
    /// The IP protocol.
    Protocol,
    /// The initiator's port.
    SourcePorts,
    /// The responder's port.
    DestinationPorts,
    /// The type of the ICMP message.
    IcmpTypes,
    /// Whether the initiator is inside.
    Direction,
}

impl RuleField {
    /// Returns the key in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zones => "zones",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Protocol => "protocol",
            Self::SourcePorts => "source_ports",
            Self::DestinationPorts => "destination_ports",
            Self::IcmpTypes => "icmp_types",
            Self::Direction => "direction",
        }
    }
}

impl fmt::Display for RuleField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the ranges sorted, with adjacent or overlapping ranges merged and reversed ones omitted.
pub(crate) fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ranges
        .iter()
        .copied()
        .filter(|range| range.first <= range.last)
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last)
            }
            _ => merged.push(range),
        }
    }
    merged
}
