//! Validation of discovery on a link: neighbor and router discovery (RFC 4861), and multicast
//! listener discovery (RFC 2710, RFC 3810).
//!
//! Discovery passes without a session, so that a link works under any policy. Packets that pass
//! without the policy must be narrow: each message is checked against the rules of its type for
//! both receivers and senders, and no data may follow it. Otherwise a message could carry data past
//! the policy.

use super::{Ip, Malformed, Parsed, Transport, ipv6};

/// Multicast listener query (RFC 2710 3.1, RFC 3810 5.1).
const LISTENER_QUERY: u8 = 130;
/// Multicast listener report of version 1 (RFC 2710 3.1).
const LISTENER_REPORT: u8 = 131;
/// Multicast listener done (RFC 2710 3.1).
const LISTENER_DONE: u8 = 132;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Redirect (RFC 4861 4.5).
pub(crate) const REDIRECT: u8 = 137;
/// Multicast listener report of version 2 (RFC 3810 5.2).
const LISTENER_REPORT_V2: u8 = 143;

/// The unspecified address, `::`.
const UNSPECIFIED: u128 = 0;
/// All nodes of the link, `ff02::1`.
const ALL_NODES: u128 = 0xff02 << 112 | 1;
/// All routers of the link, `ff02::2`.
const ALL_ROUTERS: u128 = 0xff02 << 112 | 2;
/// All routers of the link that support MLDv2, `ff02::16`.
const ALL_MLDV2_ROUTERS: u128 = 0xff02 << 112 | 0x16;
/// The solicited-node multicast prefix, `ff02::1:ff00:0/104`.
const SOLICITED_NODE: u128 = 0xff02 << 112 | 0x1_ff00_0000;

/// Bytes of a router solicitation without options (RFC 4861 4.1); also of a listener report of
/// version 2 without records.
const SHORT: usize = 8;
/// Bytes of a router advertisement without options (RFC 4861 4.2).
const ADVERTISEMENT: usize = 16;
/// Bytes of a neighbor solicitation or advertisement without options; also of a listener message of
/// version 1.
const WITH_ADDRESS: usize = 24;
/// Bytes of a listener query of version 2 without sources (RFC 3810 5.1).
const QUERY_V2: usize = 28;
/// Bytes of a redirect without options (RFC 4861 4.5).
const REDIRECT_LEN: usize = 40;
/// The longest redirect with its IP header (RFC 4861 4.6.3).
const MAX_REDIRECT: u32 = 1280;
/// Bytes of a record in a listener report without its sources (RFC 3810 5.2).
const RECORD: usize = 20;
/// Bytes of an address.
const ADDRESS: usize = 16;

/// The source link-layer address option (RFC 4861 4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
/// Limit on the bytes of options in a message that its type does not define. Receivers ignore such
/// options (RFC 4861 4.6). The limit leaves room for later standards, but none for a covert
/// channel.
const MAX_FOREIGN: usize = 32;
/// Limit on the bytes after the packet: the rest of its frame, which must not carry a covert
/// channel either. No message is so short that Ethernet pads it.
const MAX_PADDING: usize = 32;

/// Reason for which a discovery message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryFault {
    /// The hop limit is not that of the type, so the message has left its link.
    OffLink,
    /// The type does not allow the contents.
    Malformed(Malformed),
}

impl From<Malformed> for DiscoveryFault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Returns whether an ICMPv6 type belongs to discovery on a link: 130 to 137, and 143.
pub(super) const fn is_discovery(icmp_type: u8) -> bool {
    matches!(icmp_type, LISTENER_QUERY..=REDIRECT | LISTENER_REPORT_V2)
}

/// Validates a discovery message in `bytes`, the packet from which `parsed` was made. Any other
/// packet is valid.
///
/// # Errors Why the message may not pass.
pub fn validate_discovery(bytes: &[u8], parsed: &Parsed) -> Result<(), DiscoveryFault> {
    let Transport::Discovery { kind } = parsed.transport else {
        return Ok(());
    };
    let ip = &parsed.ip;
    let header_len = usize::from(ip.header_len);
    let body = bytes
        .get(header_len..ip.total_len as usize)
        .unwrap_or_default();
    let extensions = bytes.get(ipv6::HEADER_LEN..header_len).unwrap_or_default();
    let is_listener = matches!(kind, LISTENER_QUERY..=LISTENER_DONE | LISTENER_REPORT_V2);
    if ip.ttl != if is_listener { 1 } else { 255 } {
        return Err(DiscoveryFault::OffLink);
    }
    if !may_send(kind, ip.src) {
        return Err(Malformed::DiscoverySource.into());
    }
    if is_listener {
        if !is_router_alert(bytes.get(6).copied(), extensions) {
            return Err(Malformed::DiscoveryHeaders.into());
        }
    } else if !extensions.is_empty() {
        return Err(Malformed::DiscoveryHeaders.into());
    }
    if bytes.len() > ip.total_len as usize + MAX_PADDING {
        return Err(Malformed::DiscoveryLength.into());
    }
    let &[_, code, ..] = body else {
        return Err(Malformed::DiscoveryLength.into());
    };
    if code != 0 {
        return Err(Malformed::DiscoveryFields.into());
    }
    let checked = match kind {
        LISTENER_QUERY => listener_query(ip, body),
        LISTENER_REPORT | LISTENER_DONE => listener_v1(kind, ip, body),
        LISTENER_REPORT_V2 => listener_report(ip, body),
        _ => neighbor(kind, ip, body),
    };
    checked.map_err(DiscoveryFault::Malformed)
}

/// Returns whether an address may be the source of a message (RFC 4861 4.1 to 4.5, RFC 3810 5.1.14
/// and 5.2.13, RFC 3590 4). A multicast address is never a valid source.
const fn may_send(kind: u8, source: u128) -> bool {
    match kind {
        LISTENER_QUERY | ROUTER_ADVERTISEMENT | REDIRECT => is_link_local(source),
        LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_V2 => {
            is_link_local(source) || source == UNSPECIFIED
        }
        NEIGHBOR_ADVERTISEMENT => source != UNSPECIFIED,
        _ => true,
    }
}

/// Returns whether the extension headers are a hop-by-hop header with the router alert for listener
/// discovery (RFC 2711 2.1) and nothing but padding beside it. RFC 3810 6.2 and 7.6 discard
/// messages without the option.
fn is_router_alert(next_header: Option<u8>, extensions: &[u8]) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ALERT: [u8; 4] = [5, 2, 0, 0];
    const PAD_2: [u8; 2] = [1, 0];
    const PAD_1_TWICE: [u8; 2] = [0, 0];
    let &[_, 0, a, b, c, d, e, f] = extensions else {
        return false;
    };
    let is_padding = |bytes| bytes == PAD_2 || bytes == PAD_1_TWICE;
    let before = is_padding([a, b]) && [c, d, e, f] == ALERT;
    let behind = [a, b, c, d] == ALERT && is_padding([e, f]);
    next_header == Some(HOP_BY_HOP) && (before || behind)
}

/// Validates a message of RFC 4861.
fn neighbor(kind: u8, ip: &Ip, body: &[u8]) -> Result<(), Malformed> {
    let fixed_len = match kind {
        ROUTER_SOLICITATION => SHORT,
        ROUTER_ADVERTISEMENT => ADVERTISEMENT,
        REDIRECT => REDIRECT_LEN,
        _ => WITH_ADDRESS,
    };
    let Some((fixed, options)) = body.split_at_checked(fixed_len) else {
        return Err(Malformed::DiscoveryLength);
    };
    let to_group = is_multicast(ip.dst);
    let to_link = !to_group || is_link_scoped(ip.dst);
    let target = address_at(fixed, 8).unwrap_or_default();
    let is_right = match kind {
        NEIGHBOR_SOLICITATION => {
            let to_solicited = ip.dst == SOLICITED_NODE | target & 0xff_ffff;
            is_unicast(target) && (to_solicited || !to_group && ip.src != UNSPECIFIED)
        }
        NEIGHBOR_ADVERTISEMENT => {
            let solicited = fixed.get(4).is_some_and(|flags| flags & 0x40 != 0);
            is_unicast(target) && to_link && !(to_group && solicited)
        }
        REDIRECT => {
            let destination = address_at(fixed, 24).unwrap_or_default();
            let to_router = is_link_local(target) || target == destination;
            is_unicast(destination) && to_router && !to_group && ip.total_len <= MAX_REDIRECT
        }
        _ => to_link,
    };
    if !is_right {
        return Err(Malformed::DiscoveryFields);
    }
    neighbor_options(kind, ip.src == UNSPECIFIED, options)
}

/// Rule of a message type for one option.
#[derive(Clone, Copy)]
struct OptionRule {
    /// Minimum length, in units of 8 bytes.
    min: u8,
    /// The greatest length.
    max: u8,
    /// Whether the option may occur more than once.
    repeats: bool,
}

impl OptionRule {
    const fn once(min: u8, max: u8) -> Option<Self> {
        Some(Self {
            min,
            max,
            repeats: false,
        })
    }

    const fn many(min: u8, max: u8) -> Option<Self> {
        Some(Self {
            min,
            max,
            repeats: true,
        })
    }

    /// Returns the rule for an option in a message, or `None` if the message's type does not define
    /// the option. The options of secure neighbor discovery (RFC 3971) are not defined here, except
    /// its nonce, which duplicate address detection uses (RFC 7527).
    const fn of(kind: u8, option: u8) -> Option<Self> {
        match (kind, option) {
            // Link-layer addresses: 6 bytes of Ethernet, 8 of IEEE 802.15.4, 20 of InfiniBand (RFC
            // 4391 9.3).
            (
                ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT | NEIGHBOR_SOLICITATION,
                SOURCE_LINK_LAYER_ADDRESS,
            )
            | (NEIGHBOR_ADVERTISEMENT | REDIRECT, 2) => Self::once(1, 3),
            // Redirected header, bounded by the length of its message.
            (REDIRECT, 4) => Self::once(1, u8::MAX),
            // Nonce.
            (ROUTER_SOLICITATION..=NEIGHBOR_ADVERTISEMENT, 14) => Self::once(1, 4),
            // Address registration (RFC 8505 4.1).
            (NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT, 33) => Self::once(2, 5),
            // 6LoWPAN capability indication (RFC 7400 3.3).
            (ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT, 36) => Self::once(1, 1),
            (ROUTER_ADVERTISEMENT, _) => Self::of_advertisement(option),
            _ => None,
        }
    }

    /// Returns the rule for an option of router advertisements only.
    const fn of_advertisement(option: u8) -> Option<Self> {
        match option {
            // Prefix information.
            3 => Self::many(4, 4),
            // MTU; advertisement interval and home agent (RFC 6275 7.3, 7.4); more flags (RFC 5175
            // 4).
            5 | 7 | 8 | 26 => Self::once(1, 1),
            // Route information (RFC 4191 2.3).
            24 => Self::many(1, 3),
            // Recursive DNS servers and search list (RFC 8106 5).
            25 => Self::many(3, u8::MAX),
            31 => Self::many(2, u8::MAX),
            // 6LoWPAN context and border router (RFC 6775 4.2, 4.3).
            34 => Self::many(2, 3),
            35 => Self::many(3, 3),
            // Captive portal (RFC 8910 2.3).
            37 => Self::once(1, u8::MAX),
            // NAT64 prefix (RFC 8781 4).
            38 => Self::many(2, 2),
            _ => None,
        }
    }
}

/// Validates the options of a message of RFC 4861.
fn neighbor_options(kind: u8, from_unspecified: bool, options: &[u8]) -> Result<(), Malformed> {
    let mut rest = options;
    let mut seen = 0u64;
    let mut foreign = 0;
    while let &[option, units, ..] = rest {
        let len = usize::from(units) * 8;
        let Some(after) = rest.get(len..).filter(|_| len > 0) else {
            return Err(Malformed::DiscoveryOptions);
        };
        if option == SOURCE_LINK_LAYER_ADDRESS && from_unspecified {
            return Err(Malformed::DiscoveryOptions);
        }
        match OptionRule::of(kind, option) {
            Some(rule) => {
                // No option with a rule has a number above 63.
                let bit = 1u64 << (option & 63);
                if !(rule.min..=rule.max).contains(&units) || !rule.repeats && seen & bit != 0 {
                    return Err(Malformed::DiscoveryOptions);
                }
                seen |= bit;
            }
            None => foreign += len,
        }
        rest = after;
    }
    if rest.is_empty() && foreign <= MAX_FOREIGN {
        Ok(())
    } else {
        Err(Malformed::DiscoveryOptions)
    }
}

/// Validates a listener query: of version 1 if it has 24 bytes, of version 2 from 28 on (RFC 3810
/// 8.1).
fn listener_query(ip: &Ip, body: &[u8]) -> Result<(), Malformed> {
    let group = address_at(body, 8).ok_or(Malformed::DiscoveryLength)?;
    let sources = if body.len() == WITH_ADDRESS {
        &[]
    } else {
        body.get(QUERY_V2..).ok_or(Malformed::DiscoveryLength)?
    };
    // A query of version 1 has no source count.
    if sources.len() != number_at(body, QUERY_V2 - 2).unwrap_or_default() * ADDRESS {
        return Err(Malformed::DiscoveryLength);
    }
    let is_right = if group == UNSPECIFIED {
        (ip.dst == ALL_NODES || !is_multicast(ip.dst)) && sources.is_empty()
    } else {
        is_multicast(group) && (ip.dst == group || !is_multicast(ip.dst)) && are_unicast(sources)
    };
    if is_right {
        Ok(())
    } else {
        Err(Malformed::DiscoveryFields)
    }
}

/// Validates a listener report or done message of version 1.
fn listener_v1(kind: u8, ip: &Ip, body: &[u8]) -> Result<(), Malformed> {
    if body.len() != WITH_ADDRESS {
        return Err(Malformed::DiscoveryLength);
    }
    let group = address_at(body, 8).unwrap_or_default();
    let to = if kind == LISTENER_REPORT {
        group
    } else {
        ALL_ROUTERS
    };
    if is_multicast(group) && ip.dst == to {
        Ok(())
    } else {
        Err(Malformed::DiscoveryFields)
    }
}

/// Validates a listener report of version 2. No record may have auxiliary data, as none is defined
/// (RFC 3810 5.2.10).
fn listener_report(ip: &Ip, body: &[u8]) -> Result<(), Malformed> {
    let mut rest = body.get(SHORT..).ok_or(Malformed::DiscoveryLength)?;
    if ip.dst != ALL_MLDV2_ROUTERS {
        return Err(Malformed::DiscoveryFields);
    }
    for _ in 0..number_at(body, SHORT - 2).unwrap_or_default() {
        let &[kind, auxiliary, ..] = rest else {
            return Err(Malformed::DiscoveryLength);
        };
        let group = address_at(rest, RECORD - ADDRESS).ok_or(Malformed::DiscoveryLength)?;
        let end = RECORD + number_at(rest, 2).unwrap_or_default() * ADDRESS;
        let sources = rest.get(RECORD..end).ok_or(Malformed::DiscoveryLength)?;
        let is_known = matches!(kind, 1..=6) && auxiliary == 0;
        if !is_known || !is_multicast(group) || !are_unicast(sources) {
            return Err(Malformed::DiscoveryFields);
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Malformed::DiscoveryLength)
    }
}

/// Returns the address at an offset.
fn address_at(bytes: &[u8], offset: usize) -> Option<u128> {
    let address = bytes.get(offset..)?.first_chunk::<ADDRESS>()?;
    Some(u128::from_be_bytes(*address))
}

/// Returns the 16-bit number at an offset.
fn number_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let number = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(usize::from(u16::from_be_bytes(*number)))
}

/// Returns whether a list contains only addresses of single hosts.
fn are_unicast(addresses: &[u8]) -> bool {
    addresses
        .chunks_exact(ADDRESS)
        .all(|address| address_at(address, 0).is_some_and(is_unicast))
}

/// Returns whether an address is in fe80::/10.
const fn is_link_local(address: u128) -> bool {
    address >> 118 == 0xfe80 >> 6
}

/// Returns whether an address is in ff00::/8.
const fn is_multicast(address: u128) -> bool {
    address >> 120 == 0xff
}

/// Returns whether a multicast address has link-local scope (RFC 4291 2.7).
const fn is_link_scoped(group: u128) -> bool {
    group >> 112 & 0xff0f == 0xff02
}

/// Returns whether an address may belong to a single host.
const fn is_unicast(address: u128) -> bool {
    address != UNSPECIFIED && !is_multicast(address)
}
