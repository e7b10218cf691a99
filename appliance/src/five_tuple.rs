//! Five-tuple of a session as every row and line shows it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portcullis::event::IcmpTypeCode;
use portcullis::policy::Protocol;
use portcullis::session::Variant;
use portcullis::{DeniedSession, SessionRecord};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Zone, protocol and endpoints of a session. As JSON: `zone`, `proto`, `src`, `sport`, `dst` and
/// `dport`; for ICMP also `icmp_type`, `icmp_code` and `icmp_id`, and no ports.
///
/// `Z` is the zone's name, or its number where names are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FiveTuple<Z = String> {
    pub(crate) zone: Z,
    /// Name of the protocol, or its number.
    #[serde(
        rename = "proto",
        serialize_with = "name_of",
        deserialize_with = "protocol_of"
    )]
    #[cfg_attr(test, schemars(with = "String"))]
    pub(crate) protocol: Protocol,
    src: IpAddr,
    sport: Option<u16>,
    dst: IpAddr,
    dport: Option<u16>,
    /// Type of the initiator's ICMP messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<u8>,
    /// Code of the packet, of a denied session alone: the messages of a session may differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_code: Option<u8>,
    /// Identifier of an ICMP query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_id: Option<u16>,
}

/// Hop-by-hop options, routing header, fragment header and destination options.
const EXTENSION_HEADERS: [u8; 4] = [0, 43, 44, 60];

/// Address of a session with its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// Port, or the identifier of an ICMP query; `None` where the protocol has neither.
    pub(crate) port: Option<u16>,
}

impl<Z> FiveTuple<Z> {
    /// Returns the five-tuple of a session in a zone.
    pub(crate) fn of_session(session: &SessionRecord, zone: Z) -> Self {
        let protocol = Protocol(session.protocol);
        let port = |number| protocol.has_ports().then_some(number);
        let is_query = matches!(session.variant, Variant::IcmpQuery(_));
        Self {
            zone,
            protocol,
            src: session.src,
            sport: port(session.src_port),
            dst: session.dst,
            dport: port(session.dst_port),
            icmp_type: session.icmp_type(),
            icmp_code: None,
            icmp_id: is_query.then_some(session.src_port),
        }
    }

    /// Returns the five-tuple of a denied session in a zone.
    pub(crate) fn of_denied(denied: &DeniedSession, zone: Z) -> Self {
        let protocol = Protocol(denied.protocol);
        let port = |number| protocol.has_ports().then_some(number);
        let is_query = matches!(denied.variant, Variant::IcmpQuery(_));
        Self {
            zone,
            protocol,
            src: denied.src,
            sport: port(denied.src_port),
            dst: denied.dst,
            dport: port(denied.dst_port),
            icmp_type: denied.icmp.map(|icmp| icmp.kind),
            icmp_code: denied.icmp.map(|icmp| icmp.code),
            icmp_id: is_query.then_some(denied.src_port),
        }
    }

    /// Returns the five-tuple of a packet from one endpoint to another.
    pub(crate) fn of_packet(
        zone: Z,
        protocol: Protocol,
        ends: [Endpoint; 2],
        icmp: Option<IcmpTypeCode>,
    ) -> Self {
        let [from, to] = ends;
        let port = |end: Endpoint| end.port.filter(|_| protocol.has_ports());
        Self {
            zone,
            protocol,
            src: from.address,
            sport: port(from),
            dst: to.address,
            dport: port(to),
            icmp_type: icmp.map(|icmp| icmp.kind),
            icmp_code: icmp.map(|icmp| icmp.code),
            icmp_id: icmp.and(from.port),
        }
    }

    /// Returns the Community ID of the session (version 1, seed 0), which other monitors compute
    /// for it too. `None` where a part of it is not known: the code of an ICMP session that is not
    /// a query; the ports, or type and code, of a fragment or of a malformed packet; the protocol
    /// after IPv6 extension headers that were not read.
    pub(crate) fn community_id(&self) -> Option<String> {
        let (first, second) = match (self.icmp_type, self.icmp_code) {
            (None, _) if self.protocol.has_ports() => (Some(self.sport?), Some(self.dport?)),
            // Without them, the ID would be that of an echo.
            (None, _) if matches!(self.protocol, Protocol::ICMP | Protocol::ICMPV6) => return None,
            (None, _) if self.src.is_ipv6() && EXTENSION_HEADERS.contains(&self.protocol.0) => {
                return None;
            }
            (None, _) => (None, None),
            // The specification takes the type of the reply in place of the code.
            (Some(kind), _) if self.icmp_id.is_some() => (Some(kind.into()), Some(0)),
            (Some(kind), code) => (Some(kind.into()), Some(code?.into())),
        };
        let protocol = self.protocol.0;
        community_id::calculate_community_id(
            0,
            self.src,
            self.dst,
            first,
            second,
            protocol,
            Default::default(),
        )
        .ok()
    }

    /// Returns the endpoint that sent the first packet.
    pub(crate) fn initiator(&self) -> Endpoint {
        Endpoint {
            address: self.src,
            port: self.sport.or(self.icmp_id),
        }
    }

    /// Returns the endpoint that received the first packet.
    pub(crate) fn responder(&self) -> Endpoint {
        Endpoint {
            address: self.dst,
            port: self.dport.or(self.icmp_id),
        }
    }
}

impl Endpoint {
    /// Returns the form used in lists, such as `10.0.0.1#80`, which needs no brackets for IPv6.
    pub(crate) fn in_list(self) -> String {
        match self.port {
            Some(port) => format!("{}#{port}", self.address),
            None => self.address.to_string(),
        }
    }
}

impl fmt::Display for Endpoint {
    /// Writes the form used for socket addresses, such as `10.0.0.1:80` and `[2001:db8::1]:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

fn name_of<S: Serializer>(protocol: &Protocol, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(protocol)
}

fn protocol_of<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Protocol, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(protocol: u8, address: &str) -> FiveTuple {
        let port = |number| Protocol(protocol).has_ports().then_some(number);
        FiveTuple {
            zone: "blue".to_owned(),
            protocol: Protocol(protocol),
            src: address.parse().unwrap(),
            sport: port(1_000),
            dst: address.parse().unwrap(),
            dport: port(80),
            icmp_type: None,
            icmp_code: None,
            icmp_id: None,
        }
    }

    /// The vectors are those of the specification's reference implementation.
    #[test]
    fn community_ids_are_those_of_the_specification() {
        let flow = |protocol, src: &str, dst: &str| FiveTuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ..between(protocol, "10.0.0.1")
        };
        let with_ports = |protocol, sport, dport| FiveTuple {
            sport: Some(sport),
            dport: Some(dport),
            ..flow(protocol, "128.232.110.120", "66.35.250.204")
        };
        let tcp = with_ports(6, 34_855, 80);
        assert_eq!(
            tcp.community_id().unwrap(),
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
        );
        let back = FiveTuple {
            sport: tcp.dport,
            dport: tcp.sport,
            ..flow(6, "66.35.250.204", "128.232.110.120")
        };
        assert_eq!(back.community_id(), tcp.community_id());
        let udp = FiveTuple {
            sport: Some(54_585),
            dport: Some(53),
            ..flow(17, "192.168.1.52", "8.8.8.8")
        };
        assert_eq!(
            udp.community_id().unwrap(),
            "1:d/FP5EW3wiY1vCndhwleRRKHowQ="
        );
        let echo = FiveTuple {
            icmp_type: Some(8),
            icmp_id: Some(7),
            ..flow(1, "192.168.0.89", "192.168.0.1")
        };
        assert_eq!(
            echo.community_id().unwrap(),
            "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="
        );
        let unknown_code = FiveTuple {
            icmp_id: None,
            ..echo
        };
        assert_eq!(unknown_code.community_id(), None);
        assert!(flow(47, "10.0.0.1", "10.0.0.2").community_id().is_some());
        for protocol in [1, 58, 0, 43, 44, 60] {
            let unknown = flow(protocol, "2001:db8::1", "2001:db8::2");
            assert_eq!(unknown.community_id(), None, "{protocol}");
        }
    }

    #[test]
    fn endpoints_have_one_form_for_lists_and_one_for_people() {
        for (protocol, address, in_list, shown) in [
            (6, "10.0.0.1", "10.0.0.1#80", "10.0.0.1:80"),
            (6, "2001:db8::1", "2001:db8::1#80", "[2001:db8::1]:80"),
            (47, "10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ] {
            let responder = between(protocol, address).responder();
            assert_eq!(responder.in_list(), in_list);
            assert_eq!(responder.to_string(), shown);
        }
    }

    #[test]
    fn the_names_of_json_stay_and_are_read_back() {
        for protocol in 0..=u8::MAX {
            let flow = between(protocol, "10.0.0.1");
            let text = serde_json::to_string(&flow).unwrap();
            assert_eq!(serde_json::from_str::<FiveTuple>(&text).unwrap(), flow);
        }
        assert_eq!(
            serde_json::to_string(&between(6, "10.0.0.1")).unwrap(),
            concat!(
                r#"{"zone":"blue","proto":"tcp","src":"10.0.0.1","sport":1000,"#,
                r#""dst":"10.0.0.1","dport":80}"#
            )
        );
    }
}
