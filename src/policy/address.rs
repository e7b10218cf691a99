//! A longest-prefix map over both IP versions.
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Values by prefix, in a trie for each IP version. A lookup allocates nothing.
#[derive(Debug, Clone)]
pub(crate) struct AddressMap<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> AddressMap<T> {
    pub(crate) fn new() -> Self {
        Self {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
        }
    }

    /// Returns the value at exactly this prefix (host bits are ignored), inserting it if it is
    /// missing.
    pub(crate) fn at(&mut self, prefix: IpNet) -> &mut T
    where
        T: Default,
    {
        match prefix {
            IpNet::V4(net) => self.v4.entry(net.trunc()).or_default(),
            IpNet::V6(net) => self.v6.entry(net.trunc()).or_default(),
        }
    }

    /// Returns the value at the longest prefix that holds the address.
    pub(crate) fn longest_match(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => self
                .v4
                .get_lpm(&Ipv4Net::from(address))
                .map(|(_, value)| value),
            IpAddr::V6(address) => self
                .v6
                .get_lpm(&Ipv6Net::from(address))
                .map(|(_, value)| value),
        }
    }

    /// Returns a map of the prefixes, each with a value made from its own value and those of all
    /// prefixes that cover it, shortest first. A single longest match then yields everything that
    /// applies to an address.
    pub(crate) fn inherit<U>(
        &self,
        mut value: impl FnMut(&mut dyn Iterator<Item = &T>) -> U,
    ) -> AddressMap<U> {
        let mut inherited = AddressMap::new();
        for prefix in self.v4.keys() {
            inherited
                .v4
                .insert(prefix, value(&mut self.v4.cover_values(&prefix)));
        }
        for prefix in self.v6.keys() {
            inherited
                .v6
                .insert(prefix, value(&mut self.v6.cover_values(&prefix)));
        }
        inherited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_inherits_from_all_that_cover_it() {
        let mut map: AddressMap<Vec<u8>> = AddressMap::new();
        map.at("10.0.0.0/8".parse().unwrap()).push(1);
        map.at("10.1.0.0/16".parse().unwrap()).push(2);
        map.at("0.0.0.0/0".parse().unwrap()).push(3);
        map.at("::/0".parse().unwrap()).push(4);
        let map = map.inherit(|values| values.flatten().copied().collect::<Vec<u8>>());
        let at = |address: &str| map.longest_match(address.parse().unwrap()).cloned();
        assert_eq!(at("10.1.2.3"), Some(vec![3, 1, 2]));
        assert_eq!(at("10.2.2.3"), Some(vec![3, 1]));
        assert_eq!(at("192.0.2.1"), Some(vec![3]));
        assert_eq!(at("2001:db8::1"), Some(vec![4]));
    }
}
