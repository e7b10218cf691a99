//! Time for which a session without packets lives.
//!
//! A session's state names its [`LifetimeClass`]; [`Lifetimes`] maps each class to a duration. A
//! [`LifetimeTable`] holds the global lifetimes and a profile for each override. The profile is
//! selected once, when the session is created; from then on a lookup is two array reads.
//!
//! # Which override applies
//! Exactly one profile applies to a session: the most specific override that matches it, compared
//! by
//!
//! 1. the longest address prefix that holds an end of the session (at equal length, the responder
//!    comes before the initiator);
//! 2. the rule that admitted the session before none;
//! 3. the narrowest port range that holds the initiator's destination port;
//! 4. a zone before none;
//! 5. a protocol before none.
//!
//! Settings that the override omits come from the global lifetimes, never from a less specific
//! override.
use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::flow::Zone;
use crate::policy::RuleId;
use crate::policy::address::AddressMap;
pub use crate::track::LifetimeClass;

/// The shortest lifetime that can be set.
pub const MIN_LIFETIME: Duration = Duration::from_millis(1);

/// Maximum lifetime: 30 days, six times the Linux value for an established connection, and less
/// than 2^32 ms.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The largest number of overrides: a session stores its profile in one byte, and profile 0 is the
/// global one.
pub const MAX_OVERRIDES: usize = 254;

/// A lifetime for each class, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    millis: [u32; LifetimeClass::COUNT],
    /// The set classes, each as the bit of its number.
    set: u32,
}

const _: () = assert!(LifetimeClass::COUNT <= u32::BITS as usize);

impl Lifetimes {
    /// Returns the lifetime of a class.
    pub fn of(&self, class: LifetimeClass) -> Duration {
        Duration::from_millis(u64::from(self.millis(class)))
    }

    /// Returns the lifetime of a class in milliseconds.
    pub fn millis(&self, class: LifetimeClass) -> u32 {
        self.millis.get(class as usize).copied().unwrap_or_default()
    }

    /// Returns the lifetimes with `changes` applied, including the classes that follow changed
    /// ones; see [`LifetimeClass::follows`].
    #[must_use]
    pub fn with(mut self, changes: &LifetimeSet) -> Self {
        for (class, lifetime) in changes.iter() {
            let millis = u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX);
            self.put(class, millis);
            self.set |= 1 << class as u32;
        }
        for class in LifetimeClass::ALL {
            if let Some(leader) = self.leader(class) {
                self.put(class, self.millis(leader));
            }
        }
        self
    }

    /// Returns the class that gives an unset class its lifetime, if another class that is set does.
    #[must_use]
    pub fn leader(&self, class: LifetimeClass) -> Option<LifetimeClass> {
        let is_set = |class: LifetimeClass| self.set & 1 << class as u32 != 0;
        class
            .follows()
            .filter(|leader| !is_set(class) && is_set(*leader))
    }

    fn put(&mut self, class: LifetimeClass, lifetime: u32) {
        if let Some(millis) = self.millis.get_mut(class as usize) {
            *millis = lifetime;
        }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            millis: LifetimeClass::ALL.map(|class| class.default_millis()),
            set: 0,
        }
    }
}

/// Lifetimes that were set; all others stay unchanged.
///
/// ```
/// use std::time::Duration;
/// use portcullis::config::{LifetimeClass, LifetimeSet, Lifetimes};
///
/// let set = LifetimeSet::default().with(LifetimeClass::TcpEstablished, Duration::from_secs(7200));
/// let lifetimes = Lifetimes::default().with(&set);
/// assert_eq!(lifetimes.millis(LifetimeClass::TcpEstablished), 7_200_000);
/// assert_eq!(lifetimes.of(LifetimeClass::Icmp), Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LifetimeSet([Option<Duration>; LifetimeClass::COUNT]);

impl LifetimeSet {
    /// Returns the lifetime of a class, if it was set.
    pub fn of(&self, class: LifetimeClass) -> Option<Duration> {
        self.0.get(class as usize).copied().flatten()
    }

    /// Returns the set with the lifetime of one more class.
    #[must_use]
    pub fn with(mut self, class: LifetimeClass, lifetime: Duration) -> Self {
        if let Some(slot) = self.0.get_mut(class as usize) {
            *slot = Some(lifetime);
        }
        self
    }

    /// Returns the classes that were set, with their lifetimes.
    pub fn iter(&self) -> impl Iterator<Item = (LifetimeClass, Duration)> + '_ {
        LifetimeClass::ALL
            .into_iter()
            .zip(self.0)
            .filter_map(|(class, lifetime)| Some((class, lifetime?)))
    }
}

/// Selector of the sessions of an override. An empty list or `None` leaves that field open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OverrideMatch {
    pub(crate) protocol: Option<u8>,
    /// First and last destination port.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Prefixes, one of which holds either end.
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) zone: Option<Zone>,
    pub(crate) rule: Option<RuleId>,
}

/// Lifetimes of the sessions that match.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    pub(crate) matcher: OverrideMatch,
    pub(crate) lifetimes: LifetimeSet,
}

/// The part of an override that is compared once the address is found, for one port range.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Bits of the address prefix under which the candidate is filed; 0 without an address.
    prefix_len: u8,
    ports: Option<(u16, u16)>,
    zone: Option<Zone>,
    rule: Option<RuleId>,
    protocol: Option<u8>,
    profile: u8,
}

/// Session that overrides are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The session's zone.
    pub zone: Zone,
    /// The initiator.
    pub src: IpAddr,
    /// The responder.
    pub dst: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// The responder's port; `None` for a protocol without ports.
    pub dst_port: Option<u16>,
    /// The rule that admitted the session.
    pub rule: RuleId,
}

impl Candidate {
    fn matches(&self, subject: &Subject) -> bool {
        let in_range = |(first, last)| {
            subject
                .dst_port
                .is_some_and(|port| (first..=last).contains(&port))
        };
        self.zone.is_none_or(|own| own == subject.zone)
            && self.rule.is_none_or(|own| own == subject.rule)
            && self.protocol.is_none_or(|own| own == subject.protocol)
            && self.ports.is_none_or(in_range)
    }

    /// Sorts the most specific first.
    fn rank(&self) -> (Reverse<u8>, bool, u32, bool, bool) {
        let width = self.ports.map_or(u32::MAX, |(first, last)| {
            u32::from(last.saturating_sub(first))
        });
        (
            Reverse(self.prefix_len),
            self.rule.is_none(),
            width,
            self.zone.is_none(),
            self.protocol.is_none(),
        )
    }
}

/// The global lifetimes and the profiles of the overrides.
#[derive(Debug, Clone)]
pub struct LifetimeTable {
    global: Lifetimes,
    /// Profile `n + 1` is at `n`.
    profiles: Vec<Lifetimes>,
    /// Candidates of each prefix and of the prefixes that cover it, most specific first.
    by_address: AddressMap<Vec<Candidate>>,
    /// Candidates without an address, most specific first.
    elsewhere: Vec<Candidate>,
}

impl LifetimeTable {
    /// Creates a table without overrides.
    pub fn global(global: Lifetimes) -> Self {
        Self {
            global,
            profiles: Vec::new(),
            by_address: AddressMap::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Overrides above [`MAX_OVERRIDES`] are ignored; the configuration has rejected them already.
    pub(crate) fn new(global: Lifetimes, overrides: &[Override]) -> Self {
        let mut table = Self::global(global);
        let mut filed: AddressMap<Vec<Candidate>> = AddressMap::new();
        for (each, profile) in overrides.iter().take(MAX_OVERRIDES).zip(1_u8..) {
            let Override { matcher, lifetimes } = each;
            table.profiles.push(global.with(lifetimes));
            let ranges: Vec<Option<(u16, u16)>> = match matcher.ports.as_slice() {
                [] => vec![None],
                ports => ports.iter().copied().map(Some).collect(),
            };
            for ports in ranges {
                let candidate = Candidate {
                    prefix_len: 0,
                    ports,
                    zone: matcher.zone,
                    rule: matcher.rule,
                    protocol: matcher.protocol,
                    profile,
                };
                for prefix in &matcher.addresses {
                    let prefix_len = prefix.prefix_len();
                    filed.at(*prefix).push(Candidate {
                        prefix_len,
                        ..candidate
                    });
                }
                if matcher.addresses.is_empty() {
                    table.elsewhere.push(candidate);
                }
            }
        }
        table.elsewhere.sort_by_key(Candidate::rank);
        table.by_address = filed.inherit(|candidates| {
            let mut candidates: Vec<Candidate> = candidates.flatten().copied().collect();
            candidates.sort_by_key(Candidate::rank);
            candidates
        });
        table
    }

    /// Selects the profile of a session: 0 for the global lifetimes, otherwise the number of the
    /// applicable override, counted from 1.
    pub fn select(&self, subject: &Subject) -> u8 {
        if self.profiles.is_empty() {
            return 0;
        }
        let best = |candidates: &[Candidate]| {
            candidates
                .iter()
                .find(|candidate| candidate.matches(subject))
                .copied()
        };
        let at = |address| {
            self.by_address
                .longest_match(address)
                .and_then(|found| best(found))
        };
        let chosen = match (at(subject.dst), at(subject.src)) {
            (Some(by_dst), Some(by_src)) if by_src.prefix_len > by_dst.prefix_len => Some(by_src),
            (Some(by_dst), _) => Some(by_dst),
            (None, by_src) => by_src,
        };
        chosen
            .or_else(|| best(&self.elsewhere))
            .map_or(0, |candidate| candidate.profile)
    }

    /// Returns the lifetimes of a profile; those of an unknown profile are the global ones.
    pub fn profile(&self, profile: u8) -> &Lifetimes {
        usize::from(profile)
            .checked_sub(1)
            .and_then(|index| self.profiles.get(index))
            .unwrap_or(&self.global)
    }

    /// Returns the number of profiles, the global one included.
    pub fn profiles(&self) -> usize {
        self.profiles.len() + 1
    }
}

impl Default for LifetimeTable {
    fn default() -> Self {
        Self::global(Lifetimes::default())
    }
}

#[cfg(test)]
mod tests;
