//! The IPv6 header and its extension headers.

use etherparse::{IpNumber, Ipv6HeaderSlice};

use super::{Fragment, Ip, IpOptions, IpVersion, Malformed, Network};

/// Bytes of the IPv6 header (RFC 8200, section 3).
pub(super) const HEADER_LEN: usize = 40;

/// Bytes of the fragment header (RFC 8200, section 4.5).
pub(super) const FRAGMENT_HEADER_LEN: usize = 8;

/// Limit on extension headers. RFC 8200, section 4.1, lists six, one of them twice; the limit
/// leaves room for an unknown one.
const MAX_EXTENSIONS: usize = 8;

/// Parses the header of an IPv6 packet and its extension headers; bytes after the payload length
/// are padding.
#[inline]
pub(super) fn parse(bytes: &[u8]) -> Result<Network<'_>, Malformed> {
    let Ok(header) = Ipv6HeaderSlice::from_slice(bytes) else {
        return Err(Malformed::Ipv6HeaderTruncated);
    };
    let payload_len = usize::from(header.payload_length());
    let total_len = HEADER_LEN + payload_len;
    if payload_len == 0 && header.next_header() != IpNumber::IPV6_NO_NEXT_HEADER {
        return Err(Malformed::Ipv6PayloadLengthZero);
    }
    let Some(payload) = bytes.get(HEADER_LEN..total_len) else {
        return Err(Malformed::Ipv6PayloadLengthBeyondPacket);
    };
    let src = u128::from_be_bytes(header.source());
    if !is_unicast(src) {
        return Err(Malformed::SourceAddressNotUnicast);
    }
    let chain = walk(header.next_header(), payload)?;
    let header_len = HEADER_LEN + chain.len;
    let fragment = match chain.fragment {
        Some(fragment) => Some(Fragment::new(
            fragment.id,
            fragment.offset,
            fragment.more,
            payload.len() - fragment.end,
            // The payload length of the whole packet counts the extension headers before the
            // fragment header.
            u32::from(u16::MAX) - (fragment.end - FRAGMENT_HEADER_LEN) as u32,
            header_len,
        )?),
        None => None,
    };
    Ok(Network {
        ip: Ip {
            version: IpVersion::V6,
            src,
            dst: u128::from_be_bytes(header.destination()),
            protocol: chain.protocol.0,
            ttl: header.hop_limit(),
            options: chain.options,
            header_len: header_len as u16,
            total_len: total_len as u32,
        },
        payload: payload.get(chain.len..).unwrap_or_default(),
        fragment,
        // The destination address is not yet the final one.
        rerouted: chain.options.contains(IpOptions::SOURCE_ROUTE),
    })
}

/// Returns whether an address is not multicast: not of ff00::/8 (RFC 4291, section 2.7).
#[inline]
pub(super) const fn is_unicast(address: u128) -> bool {
    address >> 120 != 0xff
}

/// Returns whether an address is global unicast, 2000::/3 (RFC 4291, section 2.4).
#[inline(always)]
pub(super) const fn is_ordinary(address: u128) -> bool {
    address >> 125 == 1
}

/// End of a chain of extension headers.
pub(super) struct Chain {
    /// First protocol that is not a walked extension header; for a fragment other than the first,
    /// the protocol that its fragment header states.
    pub(super) protocol: IpNumber,
    /// Bytes of extension headers before the header of `protocol`.
    pub(super) len: usize,
    /// The fragment header, unless the fragment is atomic, that is, the whole packet (RFC 6946).
    pub(super) fragment: Option<ChainFragment>,
    /// Options or routes that the walked extension headers carry.
    pub(super) options: IpOptions,
}

/// A fragment header in a chain.
pub(super) struct ChainFragment {
    pub(super) id: u32,
    /// Bytes.
    pub(super) offset: u16,
    pub(super) more: bool,
    /// Bytes of extension headers up to and including this one.
    end: usize,
}

/// Walks the extension headers at the start of an IPv6 payload, of which the first has the number
/// `first`.
///
/// ESP and the authentication header end the walk like a transport protocol. Mobility (135), HIP
/// (139) and Shim6 (140) also end it; a policy treats each as a protocol of its own, and the data
/// that they protect or set up is not read. The fragment header of a fragment other than the first
/// ends the walk too, since no header follows.
#[inline]
pub(super) fn walk(first: IpNumber, payload: &[u8]) -> Result<Chain, Malformed> {
    let mut chain = Chain {
        protocol: first,
        len: 0,
        fragment: None,
        options: IpOptions::NONE,
    };
    match first {
        IpNumber::TCP | IpNumber::UDP | IpNumber::IPV6_ICMP => {}
        _ => walk_extensions(&mut chain, payload)?,
    }
    Ok(chain)
}

fn walk_extensions(chain: &mut Chain, payload: &[u8]) -> Result<(), Malformed> {
    let mut rest = payload;
    let mut fragmented = false;
    for walked in 0.. {
        match chain.protocol {
            IpNumber::IPV6_HEADER_HOP_BY_HOP if walked > 0 => {
                return Err(Malformed::Ipv6HopByHopNotFirst);
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER if fragmented => {
                return Err(Malformed::Ipv6FragmentHeaderRepeated);
            }
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {}
            _ => break,
        }
        if walked == MAX_EXTENSIONS {
            return Err(Malformed::Ipv6ExtensionChainTooLong);
        }
        let &[next, units, a, b, c, d, e, f, ..] = rest else {
            return Err(Malformed::Ipv6ExtensionTruncated);
        };
        let mut len = 8 * (usize::from(units) + 1);
        let mut last = false;
        let mut found = IpOptions::NONE;
        match chain.protocol {
            IpNumber::IPV6_ROUTE_HEADER => {
                let (routing_type, segments_left) = (a, b);
                if routing_type == 0 && segments_left > 0 {
                    return Err(Malformed::Ipv6RoutingHeaderType0);
                }
                found = IpOptions::ROUTING;
                if segments_left > 0 {
                    found = found | IpOptions::SOURCE_ROUTE;
                }
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                fragmented = true;
                // The byte that holds the length in other headers is reserved.
                len = FRAGMENT_HEADER_LEN;
                let field = u16::from_be_bytes([a, b]);
                // The upper 13 bits count units of 8 bytes, so masking the lower three bits gives
                // bytes.
                let (offset, more) = (field & !7, field & 1 != 0);
                last = offset != 0;
                if more || offset != 0 {
                    chain.fragment = Some(ChainFragment {
                        id: u32::from_be_bytes([c, d, e, f]),
                        offset,
                        more,
                        end: chain.len + len,
                    });
                }
            }
            IpNumber::IPV6_HEADER_HOP_BY_HOP => found = IpOptions::HOP_BY_HOP,
            IpNumber::IPV6_DESTINATION_OPTIONS => found = IpOptions::DESTINATION,
            _ => {}
        }
        let Some(after) = rest.get(len..) else {
            return Err(Malformed::Ipv6ExtensionTruncated);
        };
        rest = after;
        chain.len += len;
        chain.options = chain.options | found;
        chain.protocol = IpNumber(next);
        if last {
            break;
        }
    }
    Ok(())
}
