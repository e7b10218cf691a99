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
const IPV4_FRAGMENT: u32 = 0x3fff;
/// Words of a TCP header without options, in its "data offset".
const TCP_WORDS: u32 = (TCP_HEADER_LEN / 4) as u32;
/// Words of a TCP header whose only option is timestamps.
const TCP_WORDS_WITH_TIMESTAMPS: u32 = 8;
/// Bytes of a TCP header whose only option is timestamps.
const TCP_HEADER_LEN_WITH_TIMESTAMPS: usize = 4 * TCP_WORDS_WITH_TIMESTAMPS as usize;
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

/// The headers of a packet in the usual form. Its addresses differ and are in ranges without
/// special ones, and it has a time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) addresses: Addresses,
    pub(crate) protocol: u8,
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
        if bytes.first() != Some(&IPV4_WITHOUT_OPTIONS) {
            return Self::read_ipv6(bytes, checksums);
        }
        let network = Network::ipv4(bytes)?;
        match network.protocol {
            PROTOCOL_TCP => network.tcp(bytes, checksums),
            PROTOCOL_UDP => network.udp(bytes, checksums),
            _ => None,
        }
    }

    /// Returns whether a packet has an IPv4 header without options, and is TCP.
    #[inline(always)]
    pub(crate) fn is_tcp_ipv4(bytes: &[u8]) -> bool {
        matches!(
            bytes,
            &[
                IPV4_WITHOUT_OPTIONS,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                PROTOCOL_TCP,
                ..
            ]
        )
    }

    /// Reads a packet for which [`Plain::is_tcp_ipv4`] holds.
    #[inline(always)]
    pub(crate) fn read_tcp_ipv4(bytes: &[u8], checksums: Checksums) -> Option<Self> {
        Network::ipv4(bytes)?.tcp(bytes, checksums)
    }

    /// Reads an IPv6 packet. Apart, so that each version has code without branches of the other.
    #[inline(never)]
    fn read_ipv6(bytes: &[u8], checksums: Checksums) -> Option<Self> {
        let network = Network::ipv6(bytes)?;
        match network.protocol {
            PROTOCOL_TCP => network.tcp(bytes, checksums),
            PROTOCOL_UDP => network.udp(bytes, checksums),
            _ => None,
        }
    }
}

/// Returns the first `N` words of a header.
#[inline(always)]
fn words<const N: usize>(header: &[u8]) -> Option<[u32; N]> {
    let (words, _) = header.as_chunks();
    let words: &[[u8; 4]; N] = words.first_chunk()?;
    Some(words.map(u32::from_be_bytes))
}

/// The IP header of a packet, and the bytes after it.
#[derive(Clone, Copy)]
struct Network<'a> {
    addresses: Addresses,
    protocol: u8,
    /// Bytes of the IP header, and of the packet without padding.
    header_len: usize,
    total_len: usize,
    /// The bytes after the IP header: the payload, and any padding.
    rest: &'a [u8],
}

impl<'a> Network<'a> {
    /// Reads an IPv4 header without options.
    #[inline(always)]
    fn ipv4(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<IPV4_HEADER_LEN>()?;
        let [first, second, third, src, dst] = words(header)?;
        let total_len = (first & 0xffff) as usize;
        if second & IPV4_FRAGMENT != 0 || total_len > bytes.len() {
            return None;
        }
        let are_ordinary = ipv4::is_ordinary(src) & ipv4::is_ordinary(dst);
        let has_ttl = third >> 24 != 0;
        if !are_ordinary || src == dst || !has_ttl {
            return None;
        }
        Some(Self {
            addresses: Addresses::V4 { src, dst },
            protocol: (third >> 16) as u8,
            header_len: IPV4_HEADER_LEN,
            total_len,
            rest,
        })
    }

    /// Reads an IPv6 header.
    #[inline(always)]
    fn ipv6(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<IPV6_HEADER_LEN>()?;
        let &[first, _, _, _, l0, l1, protocol, ttl, ref ends @ ..] = header;
        let payload_len = usize::from(u16::from_be_bytes([l0, l1]));
        if first >> 4 != 6 || payload_len == 0 || payload_len > rest.len() {
            return None;
        }
        let src = u128::from_be_bytes(*ends.first_chunk()?);
        let dst = u128::from_be_bytes(*ends.last_chunk()?);
        if !ipv6::is_ordinary(src) || !ipv6::is_ordinary(dst) || src == dst || ttl == 0 {
            return None;
        }
        Some(Self {
            addresses: Addresses::V6 { src, dst },
            protocol,
            header_len: IPV6_HEADER_LEN,
            total_len: IPV6_HEADER_LEN + payload_len,
            rest,
        })
    }

    /// Reads a TCP header. `bytes` is the whole packet.
    #[inline(always)]
    fn tcp(self, bytes: &[u8], checksums: Checksums) -> Option<Plain> {
        let (fixed, options) = self.rest.split_first_chunk::<TCP_HEADER_LEN>()?;
        let [ports, seq, ack, fourth, _] = words(fixed)?;
        if (fourth >> 16) as u8 & KIND != TcpFlags::ACK.0 {
            return None;
        }
        let header_len = match fourth >> 28 {
            TCP_WORDS_WITH_TIMESTAMPS => {
                if options.first_chunk() != Some(&TIMESTAMPS) {
                    return None;
                }
                TCP_HEADER_LEN_WITH_TIMESTAMPS
            }
            TCP_WORDS => TCP_HEADER_LEN,
            _ => return None,
        };
        let payload_len = self.total_len.checked_sub(self.header_len + header_len)?;
        if checksums.are_verified() && !are_valid(bytes, checksums) {
            return None;
        }
        Some(Plain {
            addresses: self.addresses,
            protocol: PROTOCOL_TCP,
            total_len: self.total_len as u32,
            src_port: (ports >> 16) as u16,
            dst_port: ports as u16,
            usual: Usual::Tcp(Ack {
                seq: SeqNum(seq),
                ack: SeqNum(ack),
                window: fourth as u16,
                payload_len: payload_len as u16,
            }),
        })
    }

    /// Reads a UDP header. `bytes` is the whole packet.
    #[inline(always)]
    fn udp(self, bytes: &[u8], checksums: Checksums) -> Option<Plain> {
        let [ports, second] = words(self.rest)?;
        let len = (second >> 16) as usize;
        let fits = self.header_len + len <= self.total_len;
        if len < usize::from(UDP_HEADER_LEN) || !fits {
            return None;
        }
        if checksums.are_verified() && !are_valid(bytes, checksums) {
            return None;
        }
        Some(Plain {
            addresses: self.addresses,
            protocol: PROTOCOL_UDP,
            total_len: self.total_len as u32,
            src_port: (ports >> 16) as u16,
            dst_port: ports as u16,
            usual: Usual::Udp,
        })
    }
}

/// Returns whether the checksums of a packet in the usual form are correct.
#[inline(never)]
fn are_valid(bytes: &[u8], checksums: Checksums) -> bool {
    let network = match bytes.first_chunk::<IPV4_HEADER_LEN>() {
        Some(header) if bytes.first() == Some(&IPV4_WITHOUT_OPTIONS) => {
            if !checksum::ipv4_header_is_valid(header) {
                return false;
            }
            Network::ipv4(bytes)
        }
        _ => Network::ipv6(bytes),
    };
    let Some(network) = network else { return false };
    let payload = bytes.get(network.header_len..network.total_len);
    let mut payload = payload.unwrap_or_default();
    if network.protocol == PROTOCOL_UDP {
        let &[_, _, _, _, l0, l1, c0, c1, ..] = payload else {
            return false;
        };
        if [c0, c1] == [0, 0] {
            // There is no checksum.
            let is_ipv4 = matches!(network.addresses, Addresses::V4 { .. });
            return is_ipv4 || checksums == Checksums::Verify;
        }
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        payload = payload.get(..len).unwrap_or_default();
    }
    match network.addresses {
        Addresses::V4 { src, dst } => {
            checksum::ipv4_transport_is_valid([src, dst], network.protocol, payload)
        }
        Addresses::V6 { src, dst } => {
            checksum::ipv6_transport_is_valid([src, dst], network.protocol, payload)
        }
    }
}
