//! Options of the IPv4 header, and the kinds of a packet's IPv6 extension headers.

use std::ops::BitOr;

use super::Malformed;

/// End of the options list (RFC 791, section 3.1).
const END: u8 = 0;
/// No operation: one byte of padding.
const NO_OPERATION: u8 = 1;
/// Record route.
const RECORD_ROUTE: u8 = 7;
/// Internet timestamp.
const TIMESTAMP: u8 = 68;
/// Loose source and record route.
const LOOSE_SOURCE_ROUTE: u8 = 131;
/// Strict source and record route.
const STRICT_SOURCE_ROUTE: u8 = 137;
/// Router alert (RFC 2113).
const ROUTER_ALERT: u8 = 148;

/// The first byte to which a pointer may refer: earlier bytes are the option's own header.
const FIRST_ROUTE: u8 = 4;
/// The first byte to which the pointer of a timestamp option may refer.
const FIRST_TIMESTAMP: u8 = 5;
/// Bytes of an address or of a timestamp.
const ENTRY_LEN: usize = 4;

/// The kinds of options in an IP header: IPv4 options, and IPv6 extension headers that carry
/// options or a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct IpOptions(u8);

impl IpOptions {
    /// No option at all: an IPv4 header of 20 bytes, or an IPv6 header without such extensions.
    pub const NONE: Self = Self(0);
    /// IPv4 options of any kind, padding included.
    pub const IPV4: Self = Self(1);
    /// An IPv6 hop-by-hop options header.
    pub const HOP_BY_HOP: Self = Self(1 << 1);
    /// An IPv6 destination options header.
    pub const DESTINATION: Self = Self(1 << 2);
    /// An IPv6 routing header of any type.
    pub const ROUTING: Self = Self(1 << 3);
    /// A source route: an IPv4 LSRR or SSRR option with any pointer, or an IPv6 routing header with
    /// segments left.
    pub const SOURCE_ROUTE: Self = Self(1 << 4);

    /// Returns whether the packet has no options.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether all kinds of `other` are present.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for IpOptions {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Walks the options of an IPv4 header, which follow its 20 fixed bytes.
///
/// The bounds of lengths and pointers are those of Linux (`ip_options_compile`).
#[cold]
pub(super) fn walk_ipv4(mut options: &[u8]) -> Result<IpOptions, Malformed> {
    let mut found = IpOptions::IPV4;
    loop {
        let (kind, len) = match *options {
            [] | [END, ..] => return Ok(found),
            [NO_OPERATION, ref rest @ ..] => {
                options = rest;
                continue;
            }
            [_] => return Err(Malformed::Ipv4Option),
            [kind, len, ..] => (kind, usize::from(len)),
        };
        let option = options.get(..len).filter(|option| option.len() >= 2);
        let (Some(option), Some(rest)) = (option, options.get(len..)) else {
            return Err(Malformed::Ipv4Option);
        };
        let is_valid = match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
                // RFC 791 allows one source route.
                if found.contains(IpOptions::SOURCE_ROUTE) {
                    return Err(Malformed::Ipv4Option);
                }
                found = found | IpOptions::SOURCE_ROUTE;
                // The pointer of an exhausted route is after the option's end.
                option.get(2).is_some_and(|pointer| *pointer >= FIRST_ROUTE)
            }
            RECORD_ROUTE => has_room(option, FIRST_ROUTE, ENTRY_LEN),
            TIMESTAMP => option.get(3).is_some_and(|flags| {
                // With flags 1 and 3, an address precedes each timestamp.
                let with_address = flags & 0x0f != 0;
                let entry = ENTRY_LEN << u8::from(with_address);
                has_room(option, FIRST_TIMESTAMP, entry)
            }),
            ROUTER_ALERT => option.len() >= ENTRY_LEN,
            _ => true,
        };
        if !is_valid {
            return Err(Malformed::Ipv4Option);
        }
        options = rest;
    }
}

/// Returns whether the pointer of an option that routers fill in refers to a position with room for
/// one entry, or indicates that the option is full.
fn has_room(option: &[u8], first: u8, entry: usize) -> bool {
    option.get(2).is_some_and(|pointer| {
        let place = usize::from(*pointer);
        // Pointers count from 1.
        *pointer >= first && (place > option.len() || place + entry - 1 <= option.len())
    })
}
