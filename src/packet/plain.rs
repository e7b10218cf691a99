//! Compact parser for nearly all packets: unfragmented TCP and UDP directly after an IP header
//! without options or extension headers.
//!
//! [`Plain::read`] accepts a packet only if [`parse`](super::parse) does, and returns the same
//! values. It serves the short way of the engine. Every other packet is left to the full parser,
//! which also reports why a packet is malformed.

use super::checksum;
use super::ipv6::HEADER_LEN as IPV6_HEADER_LEN;
use super::tcp::MIN_HEADER_LEN as TCP_HEADER_LEN;
use super::udp::HEADER_LEN as UDP_HEADER_LEN;
use super::{Checksums, PROTOCOL_TCP, PROTOCOL_UDP, SeqNum, TcpFlags, ipv4, ipv6};

/// First byte of an IPv4 header without options.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// Bytes of an IPv4 header without options.
const IPV4_HEADER_LEN: usize = 20;
/// "More fragments" and the fragment offset: not 0 in a fragment.
const IPV4_FRAGMENT: u16 = 0x3fff;
/// Bytes of a TCP header whose only option is timestamps.
const TCP_HEADER_LEN_WITH_TIMESTAMPS: usize = 32;
/// NOP, NOP, and the kind and the length of timestamps (RFC 7323, appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
/// The flags that determine the kind of a segment.
const KIND: u8 =
    TcpFlags::FIN.0 | TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::ACK.0 | TcpFlags::URG.0;

/// Addresses of a packet, by its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4 { src: u32, dst: u32 },
    V6 { src: u128, dst: u128 },
}

/// The headers of a packet in the usual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) addresses: Addresses,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// Bytes of the packet without padding: see [`Ip::total_len`](super::Ip::total_len).
    pub(crate) total_len: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) usual: Usual,
}

/// A transport header in the usual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usual {
    Tcp(Ack),
    Udp,
}

/// A segment with an ACK, none of the other flags that matter, and no options but timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    /// Window as on the wire.
    pub(crate) window: u16,
    pub(crate) payload_len: u16,
}

impl Plain {
    /// Reads a packet. Returns `None` if the packet is unusual or malformed.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8], checksums: Checksums) -> Option<Self> {
        match bytes.first() {
            Some(&IPV4_WITHOUT_OPTIONS) => read_ipv4(bytes, checksums),
            Some(first) if first >> 4 == 6 => read_ipv6(bytes, checksums),
            _ => None,
        }
    }
}

/// The IP header of a packet, and the bytes after it.
#[derive(Clone, Copy)]
struct Network<'a> {
    addresses: Addresses,
    protocol: u8,
    ttl: u8,
    total_len: u32,
    payload: &'a [u8],
    checksums: Checksums,
}

#[inline(always)]
fn read_ipv4(bytes: &[u8], checksums: Checksums) -> Option<Plain> {
    let header = bytes.first_chunk::<IPV4_HEADER_LEN>()?;
    let &[
        _,
        _,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        ttl,
        protocol,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = header;
    let total_len = u16::from_be_bytes([l0, l1]);
    let payload = bytes.get(IPV4_HEADER_LEN..usize::from(total_len))?;
    let src = u32::from_be_bytes([s0, s1, s2, s3]);
    if u16::from_be_bytes([f0, f1]) & IPV4_FRAGMENT != 0 || !ipv4::is_unicast(src) {
        return None;
    }
    let dst = u32::from_be_bytes([d0, d1, d2, d3]);
    let plain = Network {
        addresses: Addresses::V4 { src, dst },
        protocol,
        ttl,
        total_len: u32::from(total_len),
        payload,
        checksums,
    }
    .transport()?;
    let is_valid = !checksums.are_verified() || checksum::ipv4_header_is_valid(header);
    is_valid.then_some(plain)
}

#[inline(always)]
fn read_ipv6(bytes: &[u8], checksums: Checksums) -> Option<Plain> {
    let header = bytes.first_chunk::<IPV6_HEADER_LEN>()?;
    let &[_, _, _, _, l0, l1, protocol, ttl, ref addresses @ ..] = header;
    let (src, dst) = addresses.split_at(16);
    let src = u128::from_be_bytes(*src.first_chunk()?);
    let dst = u128::from_be_bytes(*dst.first_chunk()?);
    let payload_len = usize::from(u16::from_be_bytes([l0, l1]));
    let total_len = IPV6_HEADER_LEN + payload_len;
    let payload = bytes.get(IPV6_HEADER_LEN..total_len)?;
    if payload_len == 0 || !ipv6::is_unicast(src) {
        return None;
    }
    Network {
        addresses: Addresses::V6 { src, dst },
        protocol,
        ttl,
        total_len: total_len as u32,
        payload,
        checksums,
    }
    .transport()
}

impl Network<'_> {
    #[inline(always)]
    fn transport(self) -> Option<Plain> {
        let usual = match self.protocol {
            PROTOCOL_TCP => self.tcp()?,
            PROTOCOL_UDP => self.udp()?,
            _ => return None,
        };
        let &[s0, s1, d0, d1, ..] = self.payload else {
            return None;
        };
        Some(Plain {
            addresses: self.addresses,
            protocol: self.protocol,
            ttl: self.ttl,
            total_len: self.total_len,
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            usual,
        })
    }

    #[inline(always)]
    fn tcp(&self) -> Option<Usual> {
        let (fixed, rest) = self.payload.split_first_chunk::<TCP_HEADER_LEN>()?;
        let &[
            _,
            _,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            a0,
            a1,
            a2,
            a3,
            offset,
            flags,
            w0,
            w1,
            ..,
        ] = fixed;
        if flags & KIND != TcpFlags::ACK.0 {
            return None;
        }
        let data_len = match 4 * usize::from(offset >> 4) {
            TCP_HEADER_LEN => rest.len(),
            TCP_HEADER_LEN_WITH_TIMESTAMPS => {
                const LEN: usize = TCP_HEADER_LEN_WITH_TIMESTAMPS - TCP_HEADER_LEN;
                let (options, data) = rest.split_first_chunk::<LEN>()?;
                if options.first_chunk() != Some(&TIMESTAMPS) {
                    return None;
                }
                data.len()
            }
            _ => return None,
        };
        if self.checksums.are_verified() && !self.is_valid(self.payload) {
            return None;
        }
        Some(Usual::Tcp(Ack {
            seq: SeqNum(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: SeqNum(u32::from_be_bytes([a0, a1, a2, a3])),
            window: u16::from_be_bytes([w0, w1]),
            payload_len: data_len as u16,
        }))
    }

    #[inline(always)]
    fn udp(&self) -> Option<Usual> {
        let &[_, _, _, _, l0, l1, c0, c1, ..] = self.payload else {
            return None;
        };
        let len = u16::from_be_bytes([l0, l1]);
        if len < UDP_HEADER_LEN {
            return None;
        }
        let datagram = self.payload.get(..usize::from(len))?;
        let is_right = if !self.checksums.are_verified() {
            true
        } else if [c0, c1] == [0, 0] {
            // There is no checksum.
            matches!(self.addresses, Addresses::V4 { .. }) || self.checksums == Checksums::Verify
        } else {
            self.is_valid(datagram)
        };
        if !is_right {
            return None;
        }
        Some(Usual::Udp)
    }

    /// Returns whether the checksum of a segment or datagram is correct.
    fn is_valid(&self, bytes: &[u8]) -> bool {
        match self.addresses {
            Addresses::V4 { src, dst } => {
                checksum::ipv4_transport_is_valid([src, dst], self.protocol, bytes)
            }
            Addresses::V6 { src, dst } => {
                checksum::ipv6_transport_is_valid([src, dst], self.protocol, bytes)
            }
        }
    }
}
