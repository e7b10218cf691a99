//! Facts of a packet: what a filter compares and a row shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::SessionRecord;
use portcullis::event::IcmpTypeCode;
use portcullis::packet::{Checksums, TcpFlags, Transport, parse};
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
    /// Type and code of an ICMP message.
    pub(crate) icmp: Option<IcmpTypeCode>,
}

impl Flow {
    /// Reads a whole packet. A malformed one may still have addresses.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let Ok(parsed) = parse(bytes, Checksums::Trust) else {
            return Self::of_malformed(bytes);
        };
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
        }
    }

    #[test]
    fn a_long_packet_is_cut_and_its_length_is_kept() {
        let snap = Snap::of(&[7; 9000]);
        assert_eq!((snap.bytes().len(), snap.wire_len), (SNAP, 9000));
        assert_eq!(Snap::of(&[7; 3]).bytes(), [7; 3]);
    }
}
