//! Sets of addresses as sorted ranges: union, intersection, difference, and back to prefixes.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// A range of addresses of one IP version, as numbers; both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: u128,
    last: u128,
}

/// A set of addresses of both IP versions: ranges that neither touch nor overlap, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AddressRanges {
    v4: Vec<Span>,
    v6: Vec<Span>,
}

impl AddressRanges {
    /// Returns the set of the addresses that the prefixes hold.
    pub(crate) fn of(prefixes: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            let span = Span {
                first: number(prefix.network()),
                last: number(prefix.broadcast()),
            };
            match prefix {
                IpNet::V4(_) => v4.push(span),
                IpNet::V6(_) => v6.push(span),
            }
        }
        Self {
            v4: joined(v4),
            v6: joined(v6),
        }
    }

    /// Returns the set of all addresses.
    pub(crate) fn everything() -> Self {
        let all = |last| vec![Span { first: 0, last }];
        Self {
            v4: all(u32::MAX.into()),
            v6: all(u128::MAX),
        }
    }

    /// Returns whether the set holds no address.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns the addresses that are in both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self {
            v4: common(&self.v4, &other.v4),
            v6: common(&self.v6, &other.v6),
        }
    }

    /// Returns the addresses of this set that are not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self {
            v4: common(&self.v4, &gaps(&other.v4, u32::MAX.into())),
            v6: common(&self.v6, &gaps(&other.v6, u128::MAX)),
        }
    }

    /// Returns whether every address of `other` is in this set.
    #[cfg(test)]
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let held = |own: &[Span], inner: &[Span]| {
            inner.iter().all(|span| {
                let after = own.partition_point(|each| each.first <= span.first);
                let before = after.checked_sub(1).and_then(|place| own.get(place));
                before.is_some_and(|each| span.last <= each.last)
            })
        };
        held(&self.v4, &other.v4) && held(&self.v6, &other.v6)
    }

    /// Returns the fewest prefixes that hold the same addresses; `None` if these are more than
    /// `most`.
    pub(crate) fn prefixes(&self, most: usize) -> Option<Vec<IpNet>> {
        let v4 = self.v4.iter().flat_map(|span| {
            let (first, last) = (
                Ipv4Addr::from(span.first as u32),
                Ipv4Addr::from(span.last as u32),
            );
            Ipv4Subnets::new(first, last, 0).map(IpNet::V4)
        });
        let v6 = self.v6.iter().flat_map(|span| {
            let (first, last) = (Ipv6Addr::from(span.first), Ipv6Addr::from(span.last));
            Ipv6Subnets::new(first, last, 0).map(IpNet::V6)
        });
        let prefixes: Vec<_> = v4.chain(v6).take(most.saturating_add(1)).collect();
        (prefixes.len() <= most).then_some(prefixes)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Sorts ranges, and joins those that touch or overlap.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(span.last)
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// Returns the ranges between those given, from 0 to `end`.
fn gaps(spans: &[Span], end: u128) -> Vec<Span> {
    let mut gaps = Vec::with_capacity(spans.len() + 1);
    let mut next = Some(0);
    for span in spans {
        if let Some(first) = next
            && let Some(last) = span.first.checked_sub(1)
            && first <= last
        {
            gaps.push(Span { first, last });
        }
        next = span.last.checked_add(1).filter(|next| *next <= end);
    }
    gaps.extend(next.map(|first| Span { first, last: end }));
    gaps
}

fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    let mut common = Vec::new();
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        let (first, last) = (a.first.max(b.first), a.last.min(b.last));
        if first <= last {
            common.push(Span { first, last });
        }
        if a.last < b.last {
            ones.next();
        } else {
            others.next();
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(prefixes: &[&str]) -> AddressRanges {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|each| each.parse().unwrap()).collect();
        AddressRanges::of(&prefixes)
    }

    fn shown(ranges: &AddressRanges) -> Vec<String> {
        let prefixes = ranges.prefixes(1_000).unwrap();
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_difference_is_the_fewest_prefixes_that_are_left() {
        let left = ranges(&["10.0.0.0/8"]).without(&ranges(&["10.64.0.0/10", "192.0.2.0/24"]));
        assert_eq!(shown(&left), ["10.0.0.0/10", "10.128.0.0/9"]);
        let v6 = ranges(&["2001:db8::/32"]).without(&ranges(&["2001:db8::/33"]));
        assert_eq!(shown(&v6), ["2001:db8:8000::/33"]);
        let all = AddressRanges::everything();
        assert_eq!(shown(&all), ["0.0.0.0/0", "::/0"]);
        assert!(all.without(&all).is_empty());
        let edges = all.without(&ranges(&["0.0.0.0/1", "255.255.255.255/32", "::/0"]));
        assert_eq!(edges.prefixes(100).unwrap().len(), 31);
        assert_eq!(edges.prefixes(30), None);
    }

    #[test]
    fn two_halves_cover_the_whole() {
        let halves = ranges(&["10.0.0.0/9", "10.128.0.0/9"]);
        assert!(halves.covers(&ranges(&["10.0.0.0/8"])));
        assert!(!halves.covers(&ranges(&["10.0.0.0/8", "::1/128"])));
        assert!(!halves.covers(&ranges(&["0.0.0.0/0"])));
        assert!(halves.covers(&ranges(&[])));
    }

    proptest! {
        #[test]
        fn an_address_is_where_the_prefixes_say(
            one in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..6),
            other in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..6),
            asked in any::<u32>(),
        ) {
            let nets = |list: &[(u32, u8)]| -> Vec<IpNet> {
                list.iter()
                    // A few high bits, so that prefixes often hold the address of the lookup.
                    .map(|(bits, len)| {
                        let address = Ipv4Addr::from(bits & 0xe000_0003);
                        IpNet::new(address.into(), *len).unwrap().trunc()
                    })
                    .collect()
            };
            let (one, other) = (nets(&one), nets(&other));
            let asked = IpAddr::from(Ipv4Addr::from(asked & 0xe000_0003));
            let within = |list: &[IpNet]| list.iter().any(|net| net.contains(&asked));
            let (first, second) = (AddressRanges::of(&one), AddressRanges::of(&other));
            let left = first.without(&second).prefixes(10_000).unwrap();
            prop_assert_eq!(within(&left), within(&one) && !within(&other));
            let both = first.intersection(&second).prefixes(10_000).unwrap();
            prop_assert_eq!(within(&both), within(&one) && within(&other));
            prop_assert!(first.covers(&first.intersection(&second)));
        }
    }
}
