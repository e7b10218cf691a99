//! The canonical key of a conversation.

use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

use super::Zone;
use crate::packet::{IcmpKind, PROTOCOL_GRE, PROTOCOL_ICMP, PROTOCOL_ICMPV6};

/// One of the two ends of a canonical key. `Low` holds the numerically smaller (address, port).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end with the smaller (address, port).
    Low,
    /// The end with the greater one.
    High,
}

impl End {
    /// Returns the other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Zone, protocol and the two ordered ends; 40 bytes, IPv6 included.
///
/// The meaning of the ports depends on the protocol: TCP, UDP, UDP-Lite, SCTP and DCCP have their
/// ports, an ICMP query has its identifier in both, and all other protocols have 0. An ICMP query's
/// key also holds its kind (echo, timestamp, …) and the end that sends the query, so two hosts that
/// ping each other with one identifier have two sessions. An ICMP message of another type has its
/// type in place of the kind ([`FlowKey::icmp_message`]). Such a message has no answer, so messages
/// of the other end are another session.
///
/// GRE of version 0 has its key ([`FlowKey::gre_key`]). The directions of a tunnel may have
/// different keys (RFC 2890 does not require equal keys), so all keys of an address pair have the
/// same hash. A packet without a session of its own key is matched by its addresses alone
/// ([`FlowKey::is_of_pair`]).
///
/// PPTP's call ID is not in the key, since each direction has its own and only the control
/// connection pairs them. GRE of version 1 is therefore one session between two hosts. ESP and AH
/// are distinguished by their addresses alone, for the same reason.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FlowKey {
    pub(super) addresses: [[u64; 2]; 2],
    pub(super) ports: [u16; 2],
    pub(super) zone: u16,
    pub(super) protocol: u8,
    pub(super) tag: u8,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

/// `tag`: the packet is IPv6.
pub(super) const TAG_V6: u8 = 1;
/// `tag`: the high end sends the ICMP query, or the other ICMP message.
const TAG_HIGH_ASKS: u8 = 2;
/// `tag`: where the ICMP query's kind starts, 0 for none; three bits.
pub(super) const TAG_KIND_SHIFT: u32 = 2;
/// In place of an ICMP query's kind: GRE with a key, which is stored in place of the ports.
pub(super) const KIND_GRE_KEY: u8 = 6;
/// In place of an ICMP query's kind: GRE of version 1.
pub(super) const KIND_GRE_CALL: u8 = 7;

/// In place of an ICMP query's kind: a message of another type, which is stored in place of the
/// ports.
pub(super) const KIND_ICMP_MESSAGE: u8 = 7;

pub(super) const fn words(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// Distinction between conversations of the same two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub enum Variant {
    /// No further distinction.
    Plain,
    /// The kind of an ICMP query: echo 1, timestamp 2, information 3, address mask 4, node
    /// information 5, extended echo 6.
    IcmpQuery(u8),
    /// GRE of version 0 with a key.
    GreKey(u32),
    /// GRE of version 1.
    GreCall,
    /// ICMP messages of one type and one direction that are neither queries nor replies.
    IcmpMessage(u8),
}

impl FlowKey {
    /// Returns the zone.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        Zone(self.zone)
    }

    /// Returns the key of the conversation in another zone.
    #[must_use]
    pub(crate) const fn in_zone(self, zone: Zone) -> Self {
        Self {
            zone: zone.0,
            ..self
        }
    }

    /// Returns the IP protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Returns whether the conversation is IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.tag & TAG_V6 != 0
    }

    /// Returns the address of an end.
    #[must_use]
    pub fn address(&self, end: End) -> IpAddr {
        let number = self.address_number(end);
        if self.is_ipv6() {
            IpAddr::V6(Ipv6Addr::from_bits(number))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(number as u32))
        }
    }

    /// Returns the address of an end as a number; an IPv4 address is in its v4-mapped form.
    #[must_use]
    pub const fn address_number(&self, end: End) -> u128 {
        let [low, high] = self.addresses;
        let [upper, lower] = match end {
            End::Low => low,
            End::High => high,
        };
        (upper as u128) << 64 | lower as u128
    }

    /// Returns the port of an end; the identifier of an ICMP query; 0 for protocols without either.
    #[must_use]
    pub const fn port(&self, end: End) -> u16 {
        let [low, high] = self.ports;
        match end {
            _ if self.protocol == PROTOCOL_GRE || self.icmp_message().is_some() => 0,
            End::Low => low,
            End::High => high,
        }
    }

    /// Returns the bits that distinguish conversations beside the ends: the IP version, and an ICMP
    /// message's kind and sender.
    pub(crate) const fn tag(&self) -> u8 {
        self.tag
    }

    /// Returns the ports as the key has them, of the low end first, whatever they mean.
    pub(crate) const fn raw_ports(&self) -> [u16; 2] {
        self.ports
    }

    /// Returns the kind of an ICMP query, by its code in the key.
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

    /// Returns the type of ICMP messages that are neither queries nor replies.
    #[must_use]
    pub const fn icmp_message(&self) -> Option<u8> {
        let is_icmp = matches!(self.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6);
        if !is_icmp || self.tag >> TAG_KIND_SHIFT != KIND_ICMP_MESSAGE {
            return None;
        }
        let [kind, _] = self.ports;
        Some(kind as u8)
    }

    /// Returns the part of the key that distinguishes the conversation from others between its
    /// ends.
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

    /// Returns the key with the kind of an ICMP message, and the end that sends the query or
    /// message.
    pub(super) const fn with_icmp(mut self, kind: u8, asker: End) -> Self {
        self.tag |= kind << TAG_KIND_SHIFT;
        if matches!(asker, End::High) {
            self.tag |= TAG_HIGH_ASKS;
        }
        self
    }

    /// Returns the GRE key of a tunnel of version 0, if it has one.
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

impl FlowKey {
    /// Returns the fields beside the addresses as one number, in the order of their places: reading
    /// it is one load.
    #[inline]
    const fn numbers(&self) -> u64 {
        let [low, high] = self.ports;
        low as u64
            | (high as u64) << 16
            | (self.zone as u64) << 32
            | (self.protocol as u64) << 48
            | (self.tag as u64) << 56
    }
}

impl PartialEq for FlowKey {
    /// Compares all words without a branch: the key that a search finds is nearly always the right
    /// one.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let [[a, b], [c, d]] = self.addresses;
        let [[e, f], [g, h]] = other.addresses;
        let differs = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (self.numbers() ^ other.numbers());
        differs == 0
    }
}

impl Eq for FlowKey {}

impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [[a, b], [c, d]] = self.addresses;
        let ([low, high], tag) = if self.is_keyed_gre() {
            ([0; 2], self.tag & TAG_V6)
        } else {
            (self.ports, self.tag)
        };
        let (low, high) = (u64::from(low), u64::from(high));
        let (zone, kind) = (self.zone, u16::from_le_bytes([self.protocol, tag]));
        let (zone, kind) = (u64::from(zone) << 48, u64::from(kind) << 48);
        if self.is_ipv6() {
            state.write_u64(a);
            state.write_u64(b);
            state.write_u64(c);
            state.write_u64(d);
            state.write_u64(low | high << 16 | zone | kind >> 16);
        } else {
            // An IPv4 address is entirely in the low half of its low word; the rest is the same for
            // all IPv4 addresses. So an end, and what else is in the key, fill two words.
            state.write_u64((b << 16 | low) ^ zone);
            state.write_u64((d << 16 | high) ^ kind);
        }
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

    /// Returns a key with one bit of its words flipped: four of addresses, then the numbers.
    fn flipped(key: FlowKey, bit: usize) -> FlowKey {
        let mut other = key;
        let mask = 1 << (bit % 64);
        match bit / 64 {
            word @ 0..4 => other.addresses[word / 2][word % 2] ^= mask,
            _ => match bit % 64 {
                place @ 0..16 => other.ports[0] ^= 1 << place,
                place @ 16..32 => other.ports[1] ^= 1 << (place - 16),
                place @ 32..48 => other.zone ^= 1 << (place - 32),
                place @ 48..56 => other.protocol ^= 1 << (place - 48),
                place => other.tag ^= 1 << (place - 56),
            },
        }
        other
    }

    #[test]
    fn each_bit_of_a_key_counts_for_equality_and_hash() {
        let key = FlowKey {
            addresses: [[0x2001_0db8_0000_0001, 7], [0x2001_0db8_0000_0002, 9]],
            ports: [443, 50_000],
            zone: 3,
            protocol: 6,
            tag: TAG_V6,
        };
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        assert_eq!(key, flipped(flipped(key, 70), 70));
        for bit in 0..320 {
            let other = flipped(key, bit);
            assert_ne!(key, other, "bit {bit}");
            // Without the bit of its tag the key is one of IPv4, whose upper halves are constant.
            assert_ne!(
                hasher.hash_one(key),
                hasher.hash_one(other),
                "hash of bit {bit}"
            );
        }
    }

    #[test]
    fn each_bit_of_an_ipv4_key_counts_for_the_hash() {
        let key = FlowKey {
            addresses: [[0, 0xffff_0a00_0001], [0, 0xffff_0a00_0002]],
            ports: [443, 50_000],
            zone: 3,
            protocol: 6,
            tag: 0,
        };
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        // Of an address, the bits of an IPv4 address.
        let varying = (64..96).chain(192..224).chain(256..320);
        for bit in varying {
            let other = flipped(key, bit);
            if other.is_ipv6() {
                assert!(bit >= 312, "bit {bit}");
                continue;
            }
            assert_ne!(
                hasher.hash_one(key),
                hasher.hash_one(other),
                "hash of bit {bit}"
            );
        }
    }

    /// Addresses and ports that follow each other fill all parts of a table.
    #[test]
    fn hashes_of_neighboring_ipv4_keys_are_spread() {
        const PARTS: usize = 256;
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut shards = [0; PARTS];
        let mut places = [0; PARTS];
        for n in 0..65_536_u64 {
            let key = FlowKey {
                addresses: [[0, 0xffff_0a00_0000 | n >> 8], [0, 0xffff_0a01_0000]],
                ports: [1_024 + (n & 0xff) as u16, 443],
                zone: 0,
                protocol: 6,
                tag: 0,
            };
            let hash = hasher.hash_one(key);
            shards[hash as usize % PARTS] += 1;
            places[(hash >> 32) as usize % PARTS] += 1;
        }
        for counts in [shards, places] {
            // 256 are expected, with a deviation of 16.
            assert!(
                counts.iter().all(|count| (160..352).contains(count)),
                "{counts:?}"
            );
        }
    }
}
