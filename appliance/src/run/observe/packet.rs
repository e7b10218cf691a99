//! Facts of a packet: what a filter compares and a row shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::SessionRecord;
use portcullis::event::IcmpTypeCode;
use portcullis::packet::{Checksums, TcpFlags, Transport, parse, parse_first_fragment};
use portcullis::policy::Protocol;

use crate::five_tuple::{Endpoint, FiveTuple};

/// Bytes of a packet that an event keeps.
pub(crate) const SNAP: usize = 512;

/// Addresses, protocol and ports of a packet, or of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Protocol; `None` where an event has addresses alone.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Ports, or the identifier of an ICMP query.
    pub(crate) ports: Option<[u16; 2]>,
    /// Flags of a TCP segment.
    pub(crate) flags: Option<TcpFlags>,
    /// Type and code of an ICMP message; `None` for a later fragment, or if they cannot be read.
    pub(crate) icmp: Option<IcmpTypeCode>,
}

impl Flow {
    /// Reads a packet or a fragment. A malformed one may still have addresses, and a first fragment
    /// has the transport header.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let Ok(fragment) = parse(bytes, Checksums::Trust) else {
            return Self::of_malformed(bytes);
        };
        let transport_offset = match fragment.transport {
            Transport::Fragment(fragment) => fragment.transport_offset,
            _ => fragment.ip.header_len,
        };
        let parsed = parse_first_fragment(bytes, &fragment).unwrap_or(fragment);
        let (ports, flags) = match parsed.transport {
            Transport::Tcp {
                src_port,
                dst_port,
                segment,
            } => (Some([src_port, dst_port]), Some(segment.flags)),
            Transport::Udp {
                src_port, dst_port, ..
            }
            | Transport::Sctp {
                src_port, dst_port, ..
            }
            | Transport::Dccp {
                src_port, dst_port, ..
            } => (Some([src_port, dst_port]), None),
            Transport::IcmpQuery(query) => (Some([query.id, query.id]), None),
            _ => (None, None),
        };
        let icmp = |kind, code| Some(IcmpTypeCode { kind, code });
        let icmp = match parsed.transport {
            Transport::IcmpQuery(query) => icmp(query.icmp_type, query.code),
            Transport::IcmpError(error) => icmp(error.icmp_type, error.code),
            Transport::IcmpOther { kind, code } => icmp(kind, code),
            // The second byte of the message.
            Transport::Discovery { kind } => {
                let code = bytes.get(usize::from(transport_offset) + 1);
                code.and_then(|code| icmp(kind, *code))
            }
            _ => None,
        };
        Some(Self {
            protocol: Some(Protocol(parsed.ip.protocol)),
            src: parsed.ip.source(),
            dst: parsed.ip.destination(),
            ports,
            flags,
            icmp,
        })
    }

    /// Returns the flow of a session, in its original direction.
    pub(crate) fn of_session(record: &SessionRecord) -> Self {
        let protocol = Protocol(record.protocol);
        let is_icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
        Self {
            protocol: Some(protocol),
            src: record.src,
            dst: record.dst,
            ports: (is_icmp || protocol.has_ports()).then_some([record.src_port, record.dst_port]),
            flags: None,
            icmp: None,
        }
    }

    /// Returns the five-tuple in a zone; `None` if the protocol is unknown.
    pub(crate) fn five_tuple<Z>(&self, zone: Z) -> Option<FiveTuple<Z>> {
        let [from, to] = self.ports.map_or([None, None], |ports| ports.map(Some));
        let end = |address, port| Endpoint { address, port };
        let ends = [end(self.src, from), end(self.dst, to)];
        Some(FiveTuple::of_packet(zone, self.protocol?, ends, self.icmp))
    }

    /// Returns whether a packet has a flow.
    pub(crate) fn is_readable(bytes: &[u8]) -> bool {
        // A valid packet has the fixed part of the header too.
        Self::of_malformed(bytes).is_some()
    }

    /// Reads the fixed part of an IP header, whatever follows.
    fn of_malformed(bytes: &[u8]) -> Option<Self> {
        let (protocol, src, dst): (u8, IpAddr, IpAddr) = match bytes.first()? >> 4 {
            4 => (
                *bytes.get(9)?,
                Ipv4Addr::from(*bytes.get(12..)?.first_chunk::<4>()?).into(),
                Ipv4Addr::from(*bytes.get(16..)?.first_chunk::<4>()?).into(),
            ),
            6 => (
                *bytes.get(6)?,
                Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?).into(),
                Ipv6Addr::from(*bytes.get(24..)?.first_chunk::<16>()?).into(),
            ),
            _ => return None,
        };
        Some(Self {
            protocol: Some(Protocol(protocol)),
            src,
            dst,
            ports: None,
            flags: None,
            icmp: None,
        })
    }
}

/// The beginning of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Snap {
    kept: u16,
    /// Bytes of the whole packet.
    pub(crate) wire_len: u32,
    bytes: [u8; SNAP],
}

impl Snap {
    /// Copies the beginning of a packet.
    pub(crate) fn of(packet: &[u8]) -> Self {
        let kept = packet.len().min(SNAP);
        let mut bytes = [0; SNAP];
        if let (Some(to), Some(from)) = (bytes.get_mut(..kept), packet.get(..kept)) {
            to.copy_from_slice(from);
        }
        Self {
            kept: kept as u16,
            wire_len: u32::try_from(packet.len()).unwrap_or(u32::MAX),
            bytes,
        }
    }

    /// Returns the bytes that were kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.kept)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Snap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snap({} of {} bytes)", self.kept, self.wire_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_packet_keeps_its_addresses() {
        // IPv4 with a total length that the packet does not have.
        let mut packet = [0u8; 20];
        packet[0] = 0x45;
        packet[2] = 0xff;
        packet[9] = 6;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
        let flow = Flow::of(&packet).unwrap();
        assert_eq!(flow.src.to_string(), "10.0.0.1");
        assert_eq!(flow.dst.to_string(), "10.0.0.2");
        assert_eq!((flow.protocol, flow.ports), (Some(Protocol::TCP), None));
        for len in 0..20 {
            assert_eq!(Flow::of(&packet[..len]), None, "{len}");
            assert!(!Flow::is_readable(&packet[..len]), "{len}");
        }
    }

    fn icmpv6(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let ends = [[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2];
        let message = etherparse::Icmpv6Type::Unknown {
            type_u8: kind,
            code_u8: code,
            bytes5to8: [0; 4],
        };
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv6(ends[0], ends[1], 255)
            .icmpv6(message)
            .write(&mut packet, rest)
            .unwrap();
        packet
    }

    fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let message = etherparse::Icmpv4Type::Unknown {
            type_u8: kind,
            code_u8: code,
            bytes5to8: [0; 4],
        };
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4(message)
            .write(&mut packet, rest)
            .unwrap();
        packet
    }

    #[test]
    fn each_icmp_message_has_its_type_and_code() {
        for (packet, kind, code) in [
            // Router advertisement and an unassigned type of IPv4.
            (icmp(9, 16, &[]), 9, 16),
            (icmp(44, 3, &[]), 44, 3),
            // Router advertisement, redirect, and an unassigned type of IPv6.
            (icmpv6(134, 0, &[0; 8]), 134, 0),
            (icmpv6(137, 7, &[0; 32]), 137, 7),
            (icmpv6(200, 5, &[]), 200, 5),
        ] {
            assert!(Flow::is_readable(&packet));
            let flow = Flow::of(&packet).unwrap();
            assert_eq!(flow.icmp, Some(IcmpTypeCode { kind, code }), "{packet:?}");
            assert_eq!(flow.ports, None);
        }
    }

    #[test]
    fn a_first_fragment_has_ports_and_a_later_one_has_none() {
        let mut first = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1_000, 53)
            .write(&mut first, &[0; 16])
            .unwrap();
        first[6] |= 0x20;
        assert_eq!(Flow::of(&first).unwrap().ports, Some([1_000, 53]));
        first[7] = 8;
        assert_eq!(Flow::of(&first).unwrap().ports, None);
        let mut message = icmp(9, 3, &[0; 8]);
        message[6] |= 0x20;
        let seen = Flow::of(&message).unwrap().icmp;
        assert_eq!(seen, Some(IcmpTypeCode { kind: 9, code: 3 }));
    }

    #[test]
    fn icmp_that_cannot_be_read_has_no_community_id() {
        let id = |packet: &[u8]| Flow::of(packet)?.five_tuple(())?.community_id();
        let whole = icmp(9, 0, &[0; 8]);
        assert!(id(&whole).is_some());
        // Truncated after the IP header, and a fragment that is not the first.
        for len in 20..24 {
            assert_eq!(id(&whole[..len]), None, "{len}");
        }
        let mut fragment = whole;
        fragment[7] = 1;
        assert_eq!(id(&fragment), None);
        let truncated = &icmpv6(134, 0, &[0; 8])[..41];
        assert!(Flow::of(truncated).is_some());
        assert_eq!(id(truncated), None);
    }

    #[test]
    fn a_long_packet_is_cut_and_its_length_is_kept() {
        let snap = Snap::of(&[7; 9000]);
        assert_eq!((snap.bytes().len(), snap.wire_len), (SNAP, 9000));
        assert_eq!(Snap::of(&[7; 3]).bytes(), [7; 3]);
    }
}
