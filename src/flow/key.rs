//! The canonical key of a conversation.

use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Zone;
use crate::packet::{
    GreKey, IcmpKind, IpVersion, PROTOCOL_GRE, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Parsed, Quoted,
    QuotedTransport, Transport,
};

/// One of the two places of a canonical key. `Low` holds the numerically smaller (address, port).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end with the smaller (address, port).
    Low,
    /// The end with the greater one.
    High,
}

impl End {
    /// The other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// A packet's canonical key and the end that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Equal for both directions.
    pub key: FlowKey,
    /// The end that the packet came from.
    pub source: End,
}

/// Zone, protocol and the two ordered ends; 40 bytes, IPv6 included.
///
/// What stands in the ports depends on the protocol: TCP, UDP, UDP-Lite, SCTP and DCCP have their ports, an ICMP
/// query has its identifier in both, all other protocols have 0. An ICMP query's key also holds its kind (echo,
/// timestamp, …) and which end asks, so that two hosts that ping each other with one identifier have two sessions.
/// An ICMP message of another type has its type in place of the kind ([`FlowKey::icmp_message`]). It has no answer, so
/// messages of the other end are another session.
///
/// GRE of version 0 has its key ([`FlowKey::gre_key`]). The directions of a tunnel may have
/// different keys (RFC 2890 does not say that they are equal), so all keys of an address pair have
/// the same hash: a packet without a session of its own key is matched by its addresses alone
/// ([`FlowKey::is_of_pair`]).
///
/// PPTP's call ID is not in the key, since each direction has another and only the control
/// connection pairs them: version 1 is one session between two hosts. ESP and AH are told apart by
/// their addresses alone, for the same reason.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    addresses: [[u64; 2]; 2],
    ports: [u16; 2],
    zone: u16,
    protocol: u8,
    tag: u8,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

/// `tag`: the packet is IPv6.
const TAG_V6: u8 = 1;
/// `tag`: of an ICMP query, the high end asks; of another ICMP message, the high end sends.
const TAG_HIGH_ASKS: u8 = 2;
/// `tag`: where the ICMP query's kind starts, 0 for none; three bits.
const TAG_KIND_SHIFT: u32 = 2;
/// In place of an ICMP query's kind: GRE with a key, which stands where others have their ports.
const KIND_GRE_KEY: u8 = 6;
/// In place of an ICMP query's kind: GRE of version 1.
const KIND_GRE_CALL: u8 = 7;

/// In place of an ICMP query's kind: a message of another type, which stands where others have their ports.
const KIND_ICMP_MESSAGE: u8 = 7;

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

const fn words(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// What tells conversations of the same ends apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Variant {
    /// Nothing.
    Plain,
    /// The kind of an ICMP query: echo 1, timestamp 2, information 3, address mask 4, node information 5,
    /// extended echo 6.
    IcmpQuery(u8),
    /// GRE of version 0 with a key.
    GreKey(u32),
    /// GRE of version 1.
    GreCall,
    /// ICMP messages of one type and one direction that neither ask nor answer.
    IcmpMessage(u8),
}

impl Flow {
    /// The flow of a parsed packet, or `None` where the packet belongs to no session of its own: an ICMP error,
    /// a fragment, discovery.
    #[inline]
    #[must_use]
    pub fn of(zone: Zone, parsed: &Parsed) -> Option<Self> {
        let ip = &parsed.ip;
        let v6 = matches!(ip.version, IpVersion::V6);
        let ends =
            |src_port, dst_port| Self::between(zone, v6, ip.protocol, (ip.src, src_port), (ip.dst, dst_port));
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
            } => Some(ends(*src_port, *dst_port)),
            Transport::Gre { key, .. } => Some(ends(0, 0).with_gre(*key)),
            Transport::IcmpQuery(query) => Some(Self::icmp_query(
                zone,
                v6,
                ip.protocol,
                ip.src,
                ip.dst,
                kind_code(query.kind),
                query.id,
                query.request,
            )),
            Transport::Esp { .. } | Transport::Ah { .. } | Transport::Other => Some(ends(0, 0)),
            // An error of a type that nobody has assigned.
            Transport::IcmpOther { kind: ..=127, .. } if v6 => None,
            Transport::IcmpOther { kind, .. } => Some(Self::icmp_query(
                zone,
                v6,
                ip.protocol,
                ip.src,
                ip.dst,
                KIND_ICMP_MESSAGE,
                u16::from(*kind),
                true,
            )),
            Transport::IcmpError(_) | Transport::Discovery { .. } | Transport::Fragment(_) => None,
        }
    }

    /// The flow of the packet that an ICMP error quotes; `source` is the quoted packet's sender. `None` where
    /// the quote names no flow.
    #[must_use]
    pub fn of_quoted(zone: Zone, quoted: &Quoted) -> Option<Self> {
        let v6 = matches!(quoted.version, IpVersion::V6);
        match quoted.transport {
            QuotedTransport::Ports { src, dst, .. } => Some(Self::between(
                zone,
                v6,
                quoted.protocol,
                (quoted.src, src),
                (quoted.dst, dst),
            )),
            QuotedTransport::IcmpQuery { kind, id, request } => Some(Self::icmp_query(
                zone,
                v6,
                quoted.protocol,
                quoted.src,
                quoted.dst,
                kind_code(kind),
                id,
                request,
            )),
            QuotedTransport::IcmpOther { kind } => Some(Self::icmp_query(
                zone,
                v6,
                quoted.protocol,
                quoted.src,
                quoted.dst,
                KIND_ICMP_MESSAGE,
                u16::from(kind),
                true,
            )),
            QuotedTransport::Other | QuotedTransport::Gre(_) => {
                let flow = Self::between(zone, v6, quoted.protocol, (quoted.src, 0), (quoted.dst, 0));
                Some(match quoted.transport {
                    QuotedTransport::Gre(Some(key)) => flow.with_gre(key),
                    // The address pair is all that an unknown key leaves.
                    _ => flow,
                })
            }
            QuotedTransport::IcmpError | QuotedTransport::Fragment => None,
        }
    }

    #[inline]
    fn between(zone: Zone, v6: bool, protocol: u8, from: (u128, u16), to: (u128, u16)) -> Self {
        let (low, high, source) = if from <= to {
            (from, to, End::Low)
        } else {
            (to, from, End::High)
        };
        Self {
            key: FlowKey {
                addresses: [words(low.0), words(high.0)],
                ports: [low.1, high.1],
                zone: zone.0,
                protocol,
                tag: u8::from(v6) * TAG_V6,
            },
            source,
        }
    }

    /// Puts the key of GRE where others have their ports; in the same order whichever end sends, since it belongs to
    /// neither.
    #[inline]
    fn with_gre(mut self, key: GreKey) -> Self {
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

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one packet, used in two places of this file"
    )]
    fn icmp_query(
        zone: Zone,
        v6: bool,
        protocol: u8,
        src: u128,
        dst: u128,
        kind: u8,
        id: u16,
        request: bool,
    ) -> Self {
        let mut flow = Self::between(zone, v6, protocol, (src, id), (dst, id));
        if src == dst {
            // A host that asks itself: only the type tells the two directions apart.
            flow.source = if request { End::Low } else { End::High };
        }
        let asker = if request {
            flow.source
        } else {
            flow.source.opposite()
        };
        flow.key = flow.key.with_icmp(kind, asker);
        flow
    }
}

impl FlowKey {
    /// The zone.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        Zone(self.zone)
    }

    /// The same conversation in another zone.
    #[must_use]
    pub(crate) const fn in_zone(self, zone: Zone) -> Self {
        Self { zone: zone.0, ..self }
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether the conversation is IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.tag & TAG_V6 != 0
    }

    /// The address of an end.
    #[must_use]
    pub fn address(&self, end: End) -> IpAddr {
        let number = self.address_number(end);
        if self.is_ipv6() {
            IpAddr::V6(Ipv6Addr::from_bits(number))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(number as u32))
        }
    }

    /// The address of an end as a number; an IPv4 address is in its v4-mapped form.
    #[must_use]
    pub const fn address_number(&self, end: End) -> u128 {
        let [low, high] = self.addresses;
        let [upper, lower] = match end {
            End::Low => low,
            End::High => high,
        };
        (upper as u128) << 64 | lower as u128
    }

    /// The port of an end; the identifier of an ICMP query; 0 for protocols without either.
    #[must_use]
    pub const fn port(&self, end: End) -> u16 {
        let [low, high] = self.ports;
        match end {
            _ if self.protocol == PROTOCOL_GRE || self.icmp_message().is_some() => 0,
            End::Low => low,
            End::High => high,
        }
    }

    /// What an ICMP query asks for, by its code in the key.
    pub(crate) const fn icmp_kind(&self) -> Option<IcmpKind> {
        if !matches!(self.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) {
            return None;
        }
        Some(match self.tag >> TAG_KIND_SHIFT {
            1 => IcmpKind::Echo,
            2 => IcmpKind::Timestamp,
            3 => IcmpKind::Information,
            4 => IcmpKind::AddressMask,
            5 => IcmpKind::NodeInformation,
            6 => IcmpKind::ExtendedEcho,
            _ => return None,
        })
    }

    /// The type of ICMP messages that neither ask nor answer.
    #[must_use]
    pub const fn icmp_message(&self) -> Option<u8> {
        let is_icmp = matches!(self.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6);
        if !is_icmp || self.tag >> TAG_KIND_SHIFT != KIND_ICMP_MESSAGE {
            return None;
        }
        let [kind, _] = self.ports;
        Some(kind as u8)
    }

    /// What tells the conversation apart from others of its ends.
    pub(crate) const fn variant(&self) -> Variant {
        match (self.protocol, self.tag >> TAG_KIND_SHIFT) {
            (PROTOCOL_GRE, KIND_GRE_KEY) => {
                let [upper, lower] = self.ports;
                Variant::GreKey((upper as u32) << 16 | lower as u32)
            }
            (PROTOCOL_GRE, KIND_GRE_CALL) => Variant::GreCall,
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, KIND_ICMP_MESSAGE) => {
                let [kind, _] = self.ports;
                Variant::IcmpMessage(kind as u8)
            }
            (PROTOCOL_ICMP | PROTOCOL_ICMPV6, kind) => Variant::IcmpQuery(kind),
            _ => Variant::Plain,
        }
    }

    /// The key of a conversation by its initiator and responder, and the initiator's place in it.
    ///
    /// # Errors
    /// What no conversation can be.
    pub(crate) fn between(
        zone: Zone,
        protocol: u8,
        (initiator, responder): (SocketAddr, SocketAddr),
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
        let (from, to) = (
            (number(initiator), initiator.port()),
            (number(responder), responder.port()),
        );
        let flow = Flow::between(zone, v6, protocol, from, to);
        let (mut key, source) = (flow.key, flow.source);
        // TCP, UDP, DCCP, SCTP and UDP-Lite.
        let has_ports = matches!(protocol, 6 | 17 | 33 | 132 | 136);
        let is_icmp = protocol == if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
        match variant {
            Variant::Plain if has_ports => {}
            Variant::Plain if !matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) && key.ports == [0; 2] => {
            }
            Variant::IcmpQuery(kind @ 1..=6) if is_icmp && from.1 == to.1 => {
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

    /// The key with what an ICMP message is, and the end that asks or sends.
    const fn with_icmp(mut self, kind: u8, asker: End) -> Self {
        self.tag |= kind << TAG_KIND_SHIFT;
        if matches!(asker, End::High) {
            self.tag |= TAG_HIGH_ASKS;
        }
        self
    }

    /// The key of a GRE tunnel of version 0 that has one.
    #[must_use]
    pub const fn gre_key(&self) -> Option<u32> {
        if self.protocol != PROTOCOL_GRE || self.tag >> TAG_KIND_SHIFT != KIND_GRE_KEY {
            return None;
        }
        let [upper, lower] = self.ports;
        Some((upper as u32) << 16 | lower as u32)
    }

    /// Returns whether the conversation is GRE of version 0, with a key or without.
    #[inline]
    #[must_use]
    pub const fn is_keyed_gre(&self) -> bool {
        self.protocol == PROTOCOL_GRE && self.tag >> TAG_KIND_SHIFT != KIND_GRE_CALL
    }

    /// Returns whether both are GRE of version 0 between the same addresses of one zone, whatever
    /// their keys.
    #[must_use]
    pub fn is_of_pair(&self, other: &Self) -> bool {
        self.is_keyed_gre()
            && other.is_keyed_gre()
            && self.zone == other.zone
            && self.addresses == other.addresses
            && self.is_ipv6() == other.is_ipv6()
    }
}

impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [[a, b], [c, d]] = self.addresses;
        let ([low, high], tag) = if self.is_keyed_gre() {
            ([0; 2], self.tag & TAG_V6)
        } else {
            (self.ports, self.tag)
        };
        if self.is_ipv6() {
            state.write_u64(a);
            state.write_u64(b);
            state.write_u64(c);
            state.write_u64(d);
        } else {
            // All of an IPv4 address stands in the low half; the rest is the same in each of them.
            state.write_u64((b << 32) | (d & 0xffff_ffff));
        }
        state.write_u64(
            u64::from(low) << 48
                | u64::from(high) << 32
                | u64::from(self.zone) << 16
                | u64::from(self.protocol) << 8
                | u64::from(tag),
        );
    }
}

impl core::fmt::Display for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "zone {}, protocol {}, {}#{} <> {}#{}",
            self.zone,
            self.protocol,
            self.address(End::Low),
            self.port(End::Low),
            self.address(End::High),
            self.port(End::High),
        )?;
        match self.gre_key() {
            Some(key) => write!(f, ", GRE key {key:#x}"),
            None => Ok(()),
        }
    }
}

impl core::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FlowKey({self}, tag {:#04x})", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(a: u8) -> u128 {
        0xffff_0a00_0000 | u128::from(a)
    }

    #[test]
    fn both_directions_make_one_key() {
        let there = Flow::between(Zone(3), false, 6, (v4(1), 4000), (v4(2), 80));
        let back = Flow::between(Zone(3), false, 6, (v4(2), 80), (v4(1), 4000));
        assert_eq!(there.key, back.key);
        assert_eq!(there.source, back.source.opposite());
        assert_eq!(there.key.address(End::Low).to_string(), "10.0.0.1");
        assert_eq!(there.key.port(End::High), 80);
    }

    #[test]
    fn ports_order_two_sockets_of_one_address() {
        let there = Flow::between(Zone(0), false, 6, (v4(1), 9), (v4(1), 8));
        let back = Flow::between(Zone(0), false, 6, (v4(1), 8), (v4(1), 9));
        assert_eq!(there.key, back.key);
        assert_eq!((there.source, back.source), (End::High, End::Low));
    }

    #[test]
    fn zone_protocol_and_version_keep_flows_apart() {
        let base = Flow::between(Zone(0), false, 6, (v4(1), 1), (v4(2), 2)).key;
        assert_ne!(base, Flow::between(Zone(1), false, 6, (v4(1), 1), (v4(2), 2)).key);
        assert_ne!(
            base,
            Flow::between(Zone(0), false, 17, (v4(1), 1), (v4(2), 2)).key
        );
        assert_ne!(base, Flow::between(Zone(0), true, 6, (v4(1), 1), (v4(2), 2)).key);
    }

    #[test]
    fn both_directions_of_a_gre_key_are_one_flow_and_another_key_is_another() {
        let gre = |src, dst, key| Flow::between(Zone(0), false, 47, (src, 0), (dst, 0)).with_gre(key);
        let there = gre(v4(1), v4(2), GreKey::Key(0x0001_0002));
        let back = gre(v4(2), v4(1), GreKey::Key(0x0001_0002));
        assert_eq!(there.key, back.key);
        assert_eq!(there.source, back.source.opposite());
        assert_eq!(there.key.gre_key(), Some(0x0001_0002));
        assert_eq!((there.key.port(End::Low), there.key.port(End::High)), (0, 0));
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
        let gre =
            |src, dst, id| Flow::between(Zone(0), false, 47, (src, 0), (dst, 0)).with_gre(GreKey::CallId(id));
        assert_eq!(gre(v4(1), v4(2), 7).key, gre(v4(2), v4(1), 9).key);
    }

    #[test]
    fn two_hosts_that_ping_each_other_with_one_identifier_have_two_sessions() {
        let q = |src, dst, request| {
            Flow::icmp_query(Zone(0), false, 1, src, dst, kind_code(IcmpKind::Echo), 8, request)
        };
        let (asks, answer) = (q(v4(1), v4(2), true), q(v4(2), v4(1), false));
        assert_eq!(asks.key, answer.key);
        assert_ne!(asks.key, q(v4(2), v4(1), true).key);
    }

    #[test]
    fn a_host_that_pings_itself_has_one_session_and_two_directions() {
        let q = |request| {
            Flow::icmp_query(
                Zone(0),
                false,
                1,
                v4(1),
                v4(1),
                kind_code(IcmpKind::Echo),
                8,
                request,
            )
        };
        assert_eq!(q(true).key, q(false).key);
        assert_eq!(q(true).source, q(false).source.opposite());
    }
}
