//! Five-tuple of a session as every row and line shows it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portcullis::policy::Protocol;
use portcullis::{DeniedSession, SessionRecord};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Zone, protocol and endpoints of a session. As JSON: `zone`, `proto`, `src`, `sport`, `dst` and
/// `dport`.
///
/// `Z` is the zone's name, or its number where names are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FiveTuple<Z = String> {
    pub(crate) zone: Z,
    /// Name of the protocol, or its number.
    #[serde(
        rename = "proto",
        serialize_with = "name_of",
        deserialize_with = "protocol_of"
    )]
    pub(crate) protocol: Protocol,
    src: IpAddr,
    sport: Option<u16>,
    dst: IpAddr,
    dport: Option<u16>,
}

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
        Self {
            zone,
            protocol,
            src: session.src,
            sport: port_or_identifier(protocol, session.src_port),
            dst: session.dst,
            dport: port_or_identifier(protocol, session.dst_port),
        }
    }

    /// Returns the five-tuple of a denied session in a zone.
    pub(crate) fn of_denied(denied: &DeniedSession, zone: Z) -> Self {
        let protocol = Protocol(denied.protocol);
        Self {
            zone,
            protocol,
            src: denied.src,
            sport: port_or_identifier(protocol, denied.src_port),
            dst: denied.dst,
            dport: port_or_identifier(protocol, denied.dst_port),
        }
    }

    /// Returns the endpoint that sent the first packet.
    pub(crate) const fn initiator(&self) -> Endpoint {
        Endpoint {
            address: self.src,
            port: self.sport,
        }
    }

    /// Returns the endpoint that received the first packet.
    pub(crate) const fn responder(&self) -> Endpoint {
        Endpoint {
            address: self.dst,
            port: self.dport,
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

/// Returns the port of a session, or the identifier of an ICMP query; `None` where the protocol has
/// neither.
fn port_or_identifier(protocol: Protocol, number: u16) -> Option<u16> {
    let is_icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
    (is_icmp || protocol.has_ports()).then_some(number)
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
        FiveTuple {
            zone: "blue".to_owned(),
            protocol: Protocol(protocol),
            src: address.parse().unwrap(),
            sport: port_or_identifier(Protocol(protocol), 1_000),
            dst: address.parse().unwrap(),
            dport: port_or_identifier(Protocol(protocol), 80),
        }
    }

    #[test]
    fn protocols_with_ports_and_icmp_have_numbers() {
        for number in 0..=u8::MAX {
            let expected = matches!(number, 1 | 6 | 17 | 33 | 58 | 132 | 136);
            let found = port_or_identifier(Protocol(number), 7);
            assert_eq!(found, expected.then_some(7), "protocol {number}");
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
