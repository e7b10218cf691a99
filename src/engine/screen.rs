//! Checks of the IP header that need neither a session nor a lock.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Packet;
use crate::config::{Attachment, Checksums, IpConfig, Permission};
use crate::packet::{
    self, Ip, IpOptions, IpVersion, PROTOCOL_DCCP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
    Parsed, Transport,
};
use crate::policy::handling::OptionsMode;
use crate::verdict::DropReason;

/// The IP protocol number of IGMP.
const PROTOCOL_IGMP: u8 = 2;

/// Settings of one configuration for judging IP headers, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen(u8);

impl Screen {
    const TRUST: u8 = 1;
    const REQUIRE: u8 = 1 << 1;
    const MARTIANS: u8 = 1 << 2;
    const SOURCE_ROUTES: u8 = 1 << 3;
    const STRICT_OPTIONS: u8 = 1 << 4;
    const LINK: u8 = 1 << 5;
    const TUNNEL: u8 = 1 << 6;

    /// The screen of a packet before any settings are read.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(checksums: Checksums, attachment: Attachment, ip: &IpConfig) -> Self {
        let bits = [
            (Self::TRUST, checksums == Checksums::Trust),
            (Self::REQUIRE, checksums == Checksums::Require),
            (Self::MARTIANS, ip.martians == Permission::Drop),
            (Self::SOURCE_ROUTES, ip.source_routes == Permission::Drop),
            (Self::STRICT_OPTIONS, ip.options == OptionsMode::Strict),
            (Self::LINK, attachment == Attachment::Link),
            (Self::TUNNEL, attachment == Attachment::Tunnel),
        ];
        let set = bits.into_iter().filter(|(_, is_set)| *is_set);
        Self(set.fold(0, |all, (bit, _)| all | bit))
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Returns the mode of checksum verification.
    pub(super) const fn checksums(self) -> Checksums {
        if self.has(Self::TRUST) {
            Checksums::Trust
        } else if self.has(Self::REQUIRE) {
            Checksums::Require
        } else {
            Checksums::Verify
        }
    }

    /// Returns the mode of checksum verification for a packet. The checksums of an `offloaded`
    /// packet are not filled in yet.
    #[inline]
    pub(super) const fn checksums_of(self, offloaded: bool) -> Checksums {
        if offloaded {
            Checksums::Trust
        } else {
            self.checksums()
        }
    }

    /// Returns whether a packet arrived from a tunnel; `tunneled` is the packet's own mark.
    pub(super) const fn is_tunnel(self, tunneled: bool) -> bool {
        let attachment = if self.has(Self::LINK) {
            Attachment::Link
        } else if self.has(Self::TUNNEL) {
            Attachment::Tunnel
        } else {
            Attachment::Auto
        };
        attachment.is_tunnel(tunneled)
    }

    /// Returns the reason to drop a packet regardless of its session, if there is one. Link-local
    /// addresses are invalid in a tunnel; `tunneled` is the packet's own mark.
    #[inline]
    pub(super) fn check(self, parsed: &Parsed, tunneled: bool) -> Option<DropReason> {
        let ip = &parsed.ip;
        if !ip.options.is_empty()
            && let Some(reason) = self.check_options(parsed)
        {
            return Some(reason);
        }
        if !self.has(Self::MARTIANS) || ip.is_ordinary() {
            return None;
        }
        martian(parsed, self.is_tunnel(tunneled))
    }

    /// Judges a packet without a session of its own that was parsed under an older screen.
    #[cold]
    #[inline(never)]
    pub(super) fn check_anew(self, packet: &Packet<'_>, parsed: &Parsed) -> Option<DropReason> {
        // A forwarded first fragment has no bytes here, and no checksum that could be verified.
        let has_checksums = !packet.offloaded && !packet.bytes.is_empty();
        if has_checksums
            && self.checksums() != packet.screen.checksums()
            && let Err(malformed) = packet::parse(packet.bytes, self.checksums())
        {
            return Some(DropReason::Malformed(malformed));
        }
        self.check(parsed, packet.tunneled)
    }

    #[cold]
    fn check_options(self, parsed: &Parsed) -> Option<DropReason> {
        let options = parsed.ip.options;
        if self.has(Self::SOURCE_ROUTES) && options.contains(IpOptions::SOURCE_ROUTE) {
            return Some(DropReason::SourceRoute);
        }
        // Packets of sessions follow the session's rule, and fragments follow their first one once
        // it is decided. Listener discovery must have a router alert (RFC 2710, section 3; RFC
        // 3810, section 5).
        let by_rule = match parsed.transport {
            Transport::Discovery { .. } => options == IpOptions::HOP_BY_HOP,
            Transport::IcmpError(_) => false,
            _ => true,
        };
        (self.has(Self::STRICT_OPTIONS) && !by_rule).then_some(DropReason::IpOptions)
    }
}

/// The screen of the newest settings, for work that needs no shard lock.
#[derive(Debug)]
pub(super) struct NewestScreen(AtomicU8);

impl NewestScreen {
    pub(super) const fn new(screen: Screen) -> Self {
        Self(AtomicU8::new(screen.0))
    }

    #[inline]
    pub(super) fn get(&self) -> Screen {
        Screen(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, screen: Screen) {
        self.0.store(screen.0, Ordering::Relaxed);
    }
}

/// Returns the reason for which an address or the time to live is invalid for a packet in transit
/// (RFC 1812, section 5.3.7; RFC 6890; RFC 4291, section 2).
#[cold]
fn martian(parsed: &Parsed, tunnel: bool) -> Option<DropReason> {
    let ip = &parsed.ip;
    if ip.ttl == 0 {
        return Some(DropReason::TtlZero);
    }
    let is_discovery = matches!(parsed.transport, Transport::Discovery { .. });
    let found = match ip.version {
        IpVersion::V4 => martian_ipv4(ip, tunnel),
        // A host without an address may send discovery (RFC 4862, section 5.4). Discovery is
        // dropped in a tunnel; on a link its addresses may be link-local.
        IpVersion::V6 if is_discovery && ip.src == 0 && ip.dst >> 120 == 0xff => None,
        IpVersion::V6 => martian_ipv6(ip, tunnel && !is_discovery),
    };
    match found {
        Some(Odd::Loopback) => None,
        Some(Odd::Martian(reason)) => Some(reason),
        None if ip.src == ip.dst => Some(DropReason::AddressLand),
        None => None,
    }
}

/// Anomaly in a packet's addresses.
enum Odd {
    /// The packet belongs to a loopback interface: both addresses are loopback addresses.
    Loopback,
    Martian(DropReason),
}

/// Returns whether a protocol connects two hosts, never a group.
const fn is_connection(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_SCTP | PROTOCOL_DCCP)
}

fn martian_ipv4(ip: &Ip, tunnel: bool) -> Option<Odd> {
    let (src, dst) = (ip.src as u32, ip.dst as u32);
    let is_loopback = |address: u32| address >> 24 == 127;
    // 224.0.0.0/4 (RFC 5771); as a source it is malformed.
    let to_group = dst >> 28 == 0xe;
    let to_all = dst == u32::MAX;
    let reason = match () {
        () if is_loopback(src) || is_loopback(dst) => {
            if is_loopback(src) && is_loopback(dst) && !tunnel {
                return Some(Odd::Loopback);
            }
            DropReason::AddressLoopback
        }
        // 240.0.0.0/4 is reserved (RFC 1112, section 4), except for its last address.
        () if src >> 28 == 0xf || (dst >> 28 == 0xf && !to_all) => DropReason::AddressReserved,
        () if (to_group || to_all) && is_connection(ip.protocol) => {
            DropReason::ConnectionToMulticast
        }
        () if dst == 0 => DropReason::AddressUnspecified,
        () if src == 0 => {
            // A host that has no address yet requests one (RFC 2131, section 4.1), and IGMP works
            // without one (RFC 3376, section 4.2.13; RFC 4541, section 2.1.1).
            let asks = (to_all && ip.protocol == PROTOCOL_UDP)
                || (to_group && ip.protocol == PROTOCOL_IGMP);
            if asks && !tunnel {
                return None;
            }
            DropReason::AddressUnspecified
        }
        // The rest of 0.0.0.0/8, "this network" (RFC 6890).
        () if src >> 24 == 0 || dst >> 24 == 0 => DropReason::AddressReserved,
        () if to_all && tunnel => DropReason::AddressReserved,
        // 224.0.0.0/24 is valid only on its link (RFC 5771, section 4).
        () if dst >> 8 == 0xe0_0000 && tunnel => DropReason::AddressLinkLocal,
        () => return None,
    };
    Some(Odd::Martian(reason))
}

fn martian_ipv6(ip: &Ip, tunnel: bool) -> Option<Odd> {
    const LOOPBACK: u128 = 1;
    let ends = [ip.src, ip.dst];
    if ends.contains(&LOOPBACK) {
        if ends == [LOOPBACK; 2] && !tunnel {
            return Some(Odd::Loopback);
        }
        return Some(Odd::Martian(DropReason::AddressLoopback));
    }
    if ends.contains(&0) {
        return Some(Odd::Martian(DropReason::AddressUnspecified));
    }
    // ::ffff:0:0/96, and the deprecated ::/96 (RFC 4291, section 2.5.5).
    let embeds_ipv4 = |address: &u128| matches!(address >> 32, 0 | 0xffff);
    if ends.iter().any(embeds_ipv4) {
        return Some(Odd::Martian(DropReason::AddressMapped));
    }
    let to_group = ip.dst >> 120 == 0xff;
    if to_group && is_connection(ip.protocol) {
        return Some(Odd::Martian(DropReason::ConnectionToMulticast));
    }
    // fe80::/10 (RFC 4291, section 2.5.6), and interface-local or link-local groups (section 2.7).
    let is_link_local = |address: &u128| address >> 118 == 0x3fa;
    let to_link = to_group && matches!(ip.dst >> 112 & 0xf, 0..=2);
    if tunnel && (ends.iter().any(is_link_local) || to_link) {
        return Some(Odd::Martian(DropReason::AddressLinkLocal));
    }
    None
}
