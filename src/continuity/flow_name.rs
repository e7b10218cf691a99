//! The key of a conversation in a store.

use core::fmt;

use crate::flow::{End, FlowKey};

/// The most bytes of a name: the length and the bytes of the zone's name, protocol, tag, two
/// addresses and two ports.
const MAX: usize = 1 + MAX_ZONE_NAME + 2 + 2 * 16 + 2 * 2;

/// The longest name of a zone.
pub(super) const MAX_ZONE_NAME: usize = 64;

/// The key of a conversation in a store: the same bytes for both directions and in every engine.
///
/// The bytes contain the name of the zone, not its number, the protocol, both ends in canonical
/// order, and what else distinguishes conversations of the two ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowName {
    key: FlowKey,
    len: u8,
    bytes: [u8; MAX],
}

impl FlowName {
    /// Returns the name of a conversation. At most 64 bytes of the zone's name count.
    #[must_use]
    pub fn new(key: &FlowKey, zone: &str) -> Self {
        let mut name = Self {
            key: *key,
            len: 0,
            bytes: [0; MAX],
        };
        let zone = zone.as_bytes();
        let zone = zone.get(..MAX_ZONE_NAME).unwrap_or(zone);
        name.push(&[zone.len() as u8]);
        name.push(zone);
        name.push(&[key.protocol(), key.tag()]);
        for end in [End::Low, End::High] {
            let address = key.address_number(end);
            if key.is_ipv6() {
                name.push(&address.to_be_bytes());
            } else {
                name.push(&(address as u32).to_be_bytes());
            }
        }
        for port in key.raw_ports() {
            name.push(&port.to_be_bytes());
        }
        name
    }

    fn push(&mut self, more: &[u8]) {
        let len = usize::from(self.len);
        if let Some(place) = self.bytes.get_mut(len..len + more.len()) {
            place.copy_from_slice(more);
            self.len += more.len() as u8;
        }
    }

    /// Returns the bytes, at most 103.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Returns the key of the conversation in the engine that has made the name.
    #[must_use]
    pub const fn key(&self) -> &FlowKey {
        &self.key
    }
}

impl fmt::Debug for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowName({})", self.key)
    }
}
