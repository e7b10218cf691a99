//! A bounded number of slots, shared fairly between source addresses.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Returns the source to which a slot is counted: an IPv4 address, or an IPv6 prefix of 64 bits,
/// since a host can use all addresses of one.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address => address,
    }
}

/// Holders of slots in the order of their arrival.
#[derive(Debug)]
pub(super) struct Sharing<T> {
    max: usize,
    holders: VecDeque<(IpAddr, T)>,
    /// Number of slots of each source; never 0.
    counts: HashMap<IpAddr, usize>,
}

impl<T> Sharing<T> {
    /// Returns `max` free places.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            holders: VecDeque::with_capacity(max + 1),
            counts: HashMap::with_capacity(max + 1),
        }
    }

    /// Gives a slot to a new holder. If none is left, returns the oldest holder of the source that
    /// has the most, including the new one; among several such sources, the oldest of all their
    /// holders.
    pub(super) fn admit(&mut self, address: IpAddr, holder: T) -> Option<T> {
        let newcomer = source(address);
        self.holders.push_back((newcomer, holder));
        *self.counts.entry(newcomer).or_insert(0) += 1;
        if self.holders.len() <= self.max {
            return None;
        }
        let most = self.counts.values().copied().max()?;
        let place = self
            .holders
            .iter()
            .position(|(of, _)| self.counts.get(of) == Some(&most))?;
        let (of, evicted) = self.holders.remove(place)?;
        release(&mut self.counts, of);
        Some(evicted)
    }

    /// Takes back the slots of holders for which `holds` is false.
    pub(super) fn retain(&mut self, holds: impl Fn(&T) -> bool) {
        let counts = &mut self.counts;
        self.holders.retain(|(of, holder)| {
            let stays = holds(holder);
            if !stays {
                release(counts, *of);
            }
            stays
        });
    }
}

fn release(counts: &mut HashMap<IpAddr, usize>, of: IpAddr) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(sharing: &mut Sharing<u32>, address: &str, holder: u32) -> Option<u32> {
        let evicted = sharing.admit(address.parse().unwrap(), holder);
        assert!(sharing.holders.len() <= sharing.max);
        assert_eq!(
            sharing.counts.values().sum::<usize>(),
            sharing.holders.len()
        );
        evicted
    }

    #[test]
    fn the_source_with_the_most_loses_its_oldest() {
        let mut sharing = Sharing::new(4);
        for holder in 0..4 {
            assert_eq!(admit(&mut sharing, "10.0.0.1", holder), None);
        }
        assert_eq!(admit(&mut sharing, "10.0.0.2", 100), Some(0));
        assert_eq!(
            admit(&mut sharing, "10.0.0.1", 4),
            Some(1),
            "the newcomer counts"
        );
        assert_eq!(admit(&mut sharing, "10.0.0.2", 101), Some(2));
        assert_eq!(
            admit(&mut sharing, "10.0.0.2", 102),
            Some(100),
            "3 of 5 are its own"
        );
        for holder in 5..50 {
            assert_eq!(admit(&mut sharing, "10.0.0.1", holder), Some(holder - 2));
        }
    }

    #[test]
    fn among_equals_the_oldest_goes() {
        let mut sharing = Sharing::new(3);
        for (holder, address) in ["10.0.0.1", "10.0.0.2", "10.0.0.3"].iter().enumerate() {
            assert_eq!(admit(&mut sharing, address, holder as u32), None);
        }
        assert_eq!(admit(&mut sharing, "10.0.0.4", 3), Some(0));
    }

    #[test]
    fn a_place_that_is_given_back_counts_no_more() {
        let mut sharing = Sharing::new(2);
        admit(&mut sharing, "10.0.0.1", 1);
        admit(&mut sharing, "10.0.0.1", 2);
        sharing.retain(|holder| *holder != 1);
        assert_eq!(sharing.counts.values().sum::<usize>(), 1);
        assert_eq!(admit(&mut sharing, "10.0.0.2", 3), None);
        sharing.retain(|_| false);
        assert!(sharing.counts.is_empty());
    }

    #[test]
    fn a_host_is_one_source_by_all_addresses_of_its_prefix_and_by_both_forms_of_one() {
        let mut sharing = Sharing::new(3);
        admit(&mut sharing, "2001:db8::1", 1);
        admit(&mut sharing, "10.0.0.1", 2);
        admit(&mut sharing, "2001:db8::2", 3);
        assert_eq!(admit(&mut sharing, "::ffff:10.0.0.2", 4), Some(1));
        assert_eq!(admit(&mut sharing, "::ffff:10.0.0.1", 5), Some(2));
    }
}
