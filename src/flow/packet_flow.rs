//! The flow of a packet.

use core::net::{IpAddr, SocketAddr};

use super::Zone;
use super::key::{
    End, FlowKey, KIND_GRE_CALL, KIND_GRE_KEY, KIND_ICMP_MESSAGE, TAG_KIND_SHIFT, TAG_V6, Variant,
    words,
};
use crate::packet::plain::{Addresses, Plain};
use crate::packet::{
    GreKey, IcmpKind, Ip, IpVersion, PROTOCOL_GRE, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Parsed, Quoted,
    QuotedTransport, Transport,
};

/// A packet's canonical key and the end that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Equal for both directions.
    pub key: FlowKey,
    /// The end that the packet came from.
    pub source: End,
}

/// Address and port of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// An IPv4 address is in its v4-mapped form.
    pub(super) address: u128,
    pub(super) port: u16,
}

/// Fields of an IP header that become part of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) zone: Zone,
    pub(super) v6: bool,
    pub(super) protocol: u8,
    pub(super) src: u128,
    pub(super) dst: u128,
}

/// Fields of an ICMP message that become part of a key.
#[derive(Debug, Clone, Copy)]
struct IcmpFields {
    /// Code of the kind of query, or [`KIND_ICMP_MESSAGE`].
    kind: u8,
    /// The identifier of a query, or the type of another message.
    id: u16,
    /// Whether the message is a query or another message, and not a reply.
    request: bool,
}

impl IcmpFields {
    #[inline]
    fn query(kind: IcmpKind, id: u16, request: bool) -> Self {
        Self {
            kind: kind_code(kind),
            id,
            request,
        }
    }

    #[inline]
    fn message(kind: u8) -> Self {
        Self {
            kind: KIND_ICMP_MESSAGE,
            id: u16::from(kind),
            request: true,
        }
    }
}

impl Header {
    #[inline]
    fn of(zone: Zone, ip: &Ip) -> Self {
        Self {
            zone,
            v6: matches!(ip.version, IpVersion::V6),
            protocol: ip.protocol,
            src: ip.src,
            dst: ip.dst,
        }
    }

    #[inline]
    fn of_quoted(zone: Zone, quoted: &Quoted) -> Self {
        Self {
            zone,
            v6: matches!(quoted.version, IpVersion::V6),
            protocol: quoted.protocol,
            src: quoted.src,
            dst: quoted.dst,
        }
    }

    /// Returns the flow between two ports of the addresses.
    #[inline]
    pub(super) fn with_ports(self, src_port: u16, dst_port: u16) -> Flow {
        let from = Endpoint {
            address: self.src,
            port: src_port,
        };
        let to = Endpoint {
            address: self.dst,
            port: dst_port,
        };
        let (low, high, source) = if (from.address, from.port) <= (to.address, to.port) {
            (from, to, End::Low)
        } else {
            (to, from, End::High)
        };
        Flow {
            key: FlowKey {
                addresses: [words(low.address), words(high.address)],
                ports: [low.port, high.port],
                zone: self.zone.0,
                protocol: self.protocol,
                tag: u8::from(self.v6) * TAG_V6,
            },
            source,
        }
    }

    /// Returns the flow of an ICMP query or message.
    fn with_icmp(self, icmp: IcmpFields) -> Flow {
        let mut flow = self.with_ports(icmp.id, icmp.id);
        if self.src == self.dst {
            // A host that queries itself: only the type distinguishes the two directions.
            flow.source = if icmp.request { End::Low } else { End::High };
        }
        let asker = if icmp.request {
            flow.source
        } else {
            flow.source.opposite()
        };
        flow.key = flow.key.with_icmp(icmp.kind, asker);
        flow
    }
}

impl FlowKey {
    /// Returns the key of a conversation by its initiator and responder, and the initiator's end.
    ///
    /// # Errors
    /// Returns a description of the fault if no conversation can have such a key.
    pub(crate) fn between(
        zone: Zone,
        protocol: u8,
        initiator: SocketAddr,
        responder: SocketAddr,
        variant: Variant,
    ) -> Result<(Self, End), &'static str> {
        let number = |end: SocketAddr| match end.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        if initiator.is_ipv4() != responder.is_ipv4() {
            return Err("its ends are of two versions of IP");
        }
        let v6 = initiator.is_ipv6();
        let header = Header {
            zone,
            v6,
            protocol,
            src: number(initiator),
            dst: number(responder),
        };
        let flow = header.with_ports(initiator.port(), responder.port());
        let (mut key, source) = (flow.key, flow.source);
        // TCP, UDP, DCCP, SCTP and UDP-Lite.
        let has_ports = matches!(protocol, 6 | 17 | 33 | 132 | 136);
        let is_icmp = protocol == if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
        match variant {
            Variant::Plain if has_ports => {}
            Variant::Plain
                if !matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) && key.ports == [0; 2] => {}
            Variant::IcmpQuery(kind @ 1..=6) if is_icmp && initiator.port() == responder.port() => {
                key = key.with_icmp(kind, source);
            }
            Variant::IcmpMessage(kind) if is_icmp && key.ports == [0; 2] => {
                key.ports = [u16::from(kind); 2];
                key = key.with_icmp(KIND_ICMP_MESSAGE, source);
            }
            Variant::GreKey(gre) if protocol == PROTOCOL_GRE && key.ports == [0; 2] => {
                key = flow.with_gre(GreKey::Key(gre)).key;
            }
            Variant::GreCall if protocol == PROTOCOL_GRE && key.ports == [0; 2] => {
                key = flow.with_gre(GreKey::CallId(0)).key;
            }
            _ => return Err("its ports or its kind are those of another protocol"),
        }
        Ok((key, source))
    }
}

impl Flow {
    /// Returns the flow of a parsed packet, or `None` if the packet belongs to no session of its
    /// own: an ICMP error, a fragment or neighbor discovery.
    #[inline]
    #[must_use]
    pub(crate) fn of(zone: Zone, parsed: &Parsed) -> Option<Self> {
        let header = Header::of(zone, &parsed.ip);
        match &parsed.transport {
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
            } => Some(header.with_ports(*src_port, *dst_port)),
            Transport::Gre { key, .. } => Some(header.with_ports(0, 0).with_gre(*key)),
            Transport::IcmpQuery(query) => {
                let icmp = IcmpFields::query(query.kind, query.id, query.request);
                Some(header.with_icmp(icmp))
            }
            Transport::Esp { .. } | Transport::Ah { .. } | Transport::Other => {
                Some(header.with_ports(0, 0))
            }
            // An error of an unassigned type.
            Transport::IcmpOther { kind: ..=127, .. } if header.v6 => None,
            Transport::IcmpOther { kind, .. } => Some(header.with_icmp(IcmpFields::message(*kind))),
            Transport::IcmpError(_) | Transport::Discovery { .. } | Transport::Fragment(_) => None,
        }
    }

    /// Returns the flow of a packet in the usual form: that of [`Flow::of`].
    #[inline(always)]
    pub(crate) fn of_plain(zone: Zone, plain: &Plain) -> Self {
        let (src_port, dst_port) = (plain.src_port, plain.dst_port);
        match plain.addresses {
            // A branch on which end is lower would be unpredictable, so the ends are ordered
            // without one.
            Addresses::V4 { src, dst } => {
                let from = u64::from(src) << 16 | u64::from(src_port);
                let to = u64::from(dst) << 16 | u64::from(dst_port);
                let (low, high) = (from.min(to), from.max(to));
                let address = |end: u64| words(0xffff_0000_0000 | u128::from(end >> 16));
                Self {
                    key: FlowKey {
                        addresses: [address(low), address(high)],
                        ports: [low as u16, high as u16],
                        zone: zone.0,
                        protocol: plain.protocol,
                        tag: 0,
                    },
                    source: if from <= to { End::Low } else { End::High },
                }
            }
            Addresses::V6 { src, dst } => Header {
                zone,
                v6: true,
                protocol: plain.protocol,
                src,
                dst,
            }
            .with_ports(src_port, dst_port),
        }
    }

    /// Returns the flow of the packet that an ICMP error quotes, or `None` if the quote identifies
    /// no flow. `source` is the sender of the quoted packet.
    #[must_use]
    pub(crate) fn of_quoted(zone: Zone, quoted: &Quoted) -> Option<Self> {
        let header = Header::of_quoted(zone, quoted);
        match quoted.transport {
            QuotedTransport::Ports { src, dst, .. } => Some(header.with_ports(src, dst)),
            QuotedTransport::IcmpQuery { kind, id, request } => {
                Some(header.with_icmp(IcmpFields::query(kind, id, request)))
            }
            QuotedTransport::IcmpOther { kind } => {
                Some(header.with_icmp(IcmpFields::message(kind)))
            }
            QuotedTransport::Gre(Some(key)) => Some(header.with_ports(0, 0).with_gre(key)),
            // The key is unknown, so only the address pair identifies the flow.
            QuotedTransport::Other | QuotedTransport::Gre(None) => Some(header.with_ports(0, 0)),
            QuotedTransport::IcmpError | QuotedTransport::Fragment => None,
        }
    }

    /// Stores the key of GRE in the place of the ports. The order is the same in both directions,
    /// because the key belongs to neither end.
    #[inline]
    pub(super) fn with_gre(mut self, key: GreKey) -> Self {
        match key {
            GreKey::None => {}
            GreKey::Key(key) => {
                self.key.ports = [(key >> 16) as u16, key as u16];
                self.key.tag |= KIND_GRE_KEY << TAG_KIND_SHIFT;
            }
            GreKey::CallId(_) => self.key.tag |= KIND_GRE_CALL << TAG_KIND_SHIFT,
        }
        self
    }
}

const fn kind_code(kind: IcmpKind) -> u8 {
    match kind {
        IcmpKind::Echo => 1,
        IcmpKind::Timestamp => 2,
        IcmpKind::Information => 3,
        IcmpKind::AddressMask => 4,
        IcmpKind::NodeInformation => 5,
        IcmpKind::ExtendedEcho => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::plain::Usual;

    fn v4(a: u8) -> u128 {
        0xffff_0a00_0000 | u128::from(a)
    }

    fn header(zone: u16, v6: bool, protocol: u8, src: u128, dst: u128) -> Header {
        Header {
            zone: Zone(zone),
            v6,
            protocol,
            src,
            dst,
        }
    }

    #[test]
    fn both_directions_make_one_key() {
        let there = header(3, false, 6, v4(1), v4(2)).with_ports(4000, 80);
        let back = header(3, false, 6, v4(2), v4(1)).with_ports(80, 4000);
        assert_eq!(there.key, back.key);
        assert_eq!(there.source, back.source.opposite());
        assert_eq!(there.key.address(End::Low).to_string(), "10.0.0.1");
        assert_eq!(there.key.port(End::High), 80);
    }

    #[test]
    fn ports_order_two_sockets_of_one_address() {
        let there = header(0, false, 6, v4(1), v4(1)).with_ports(9, 8);
        let back = header(0, false, 6, v4(1), v4(1)).with_ports(8, 9);
        assert_eq!(there.key, back.key);
        assert_eq!((there.source, back.source), (End::High, End::Low));
    }

    #[test]
    fn zone_protocol_and_version_keep_flows_apart() {
        let base = header(0, false, 6, v4(1), v4(2)).with_ports(1, 2).key;
        assert_ne!(base, header(1, false, 6, v4(1), v4(2)).with_ports(1, 2).key);
        assert_ne!(
            base,
            header(0, false, 17, v4(1), v4(2)).with_ports(1, 2).key
        );
        assert_ne!(base, header(0, true, 6, v4(1), v4(2)).with_ports(1, 2).key);
    }

    #[test]
    fn both_directions_of_a_gre_key_are_one_flow_and_another_key_is_another() {
        let gre = |src, dst, key| {
            header(0, false, 47, src, dst)
                .with_ports(0, 0)
                .with_gre(key)
        };
        let there = gre(v4(1), v4(2), GreKey::Key(0x0001_0002));
        let back = gre(v4(2), v4(1), GreKey::Key(0x0001_0002));
        assert_eq!(there.key, back.key);
        assert_eq!(there.source, back.source.opposite());
        assert_eq!(there.key.gre_key(), Some(0x0001_0002));
        assert_eq!(
            (there.key.port(End::Low), there.key.port(End::High)),
            (0, 0)
        );
        let keys = [
            GreKey::None,
            GreKey::Key(0),
            GreKey::Key(0x0002_0001),
            GreKey::CallId(1),
        ];
        for (place, key) in keys.into_iter().enumerate() {
            let flow = gre(v4(1), v4(2), key);
            assert_ne!(flow.key, there.key);
            for other in keys.into_iter().skip(place + 1) {
                assert_ne!(flow.key, gre(v4(1), v4(2), other).key, "{key:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_call_ids_of_both_directions_of_pptp_are_one_flow() {
        let gre = |src, dst, id| {
            header(0, false, 47, src, dst)
                .with_ports(0, 0)
                .with_gre(GreKey::CallId(id))
        };
        assert_eq!(gre(v4(1), v4(2), 7).key, gre(v4(2), v4(1), 9).key);
    }

    #[test]
    fn two_hosts_that_ping_each_other_with_one_identifier_have_two_sessions() {
        let q = |src, dst, request| {
            header(0, false, 1, src, dst).with_icmp(IcmpFields::query(IcmpKind::Echo, 8, request))
        };
        let (asks, answer) = (q(v4(1), v4(2), true), q(v4(2), v4(1), false));
        assert_eq!(asks.key, answer.key);
        assert_ne!(asks.key, q(v4(2), v4(1), true).key);
    }

    #[test]
    fn a_host_that_pings_itself_has_one_session_and_two_directions() {
        let q = |request| {
            header(0, false, 1, v4(1), v4(1)).with_icmp(IcmpFields::query(
                IcmpKind::Echo,
                8,
                request,
            ))
        };
        assert_eq!(q(true).key, q(false).key);
        assert_eq!(q(true).source, q(false).source.opposite());
    }

    proptest::proptest! {
        /// Few addresses and ports, so that equal ones are frequent.
        #[test]
        fn a_packet_in_the_usual_form_has_the_flow_that_its_headers_have(
            v6: bool,
            hosts in proptest::prelude::prop_oneof![
                proptest::prelude::any::<[u128; 2]>(),
                proptest::array::uniform2(0u128..3),
            ],
            src_port in 0u16..3,
            dst_port in 0u16..3,
            protocol in proptest::prelude::prop_oneof![
                proptest::prelude::Just(6u8),
                proptest::prelude::Just(17),
            ],
        ) {
            let [src, dst] = hosts;
            let (addresses, src, dst) = if v6 {
                (Addresses::V6 { src, dst }, src, dst)
            } else {
                let [src, dst] = [src as u32, dst as u32];
                let mapped = |address| 0xffff_0000_0000 | u128::from(address);
                (Addresses::V4 { src, dst }, mapped(src), mapped(dst))
            };
            let plain = Plain {
                addresses,
                protocol,
                total_len: 40,
                src_port,
                dst_port,
                usual: Usual::Udp,
            };
            let expected = header(7, v6, protocol, src, dst).with_ports(src_port, dst_port);
            proptest::prop_assert_eq!(Flow::of_plain(Zone(7), &plain), expected);
        }
    }
}
