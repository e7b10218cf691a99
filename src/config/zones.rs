//! Zones and groups of zones, by name.
use std::collections::{BTreeMap, BTreeSet};

use super::DEFAULT_ZONE;
use crate::flow::Zone;

/// The zones by name, which always include `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    names: BTreeMap<String, Zone>,
    /// Members of groups, each with the zone that represents its group; ordered by the member.
    members: Box<[(Zone, Zone)]>,
    /// The zones that `[zones]` names, in order; those of a group count as one.
    named: Box<[Zone]>,
}

impl Zones {
    /// Returns the zones of a configuration. The zone that represents a group is its member with
    /// the smallest number.
    pub(crate) fn new(
        numbers: &BTreeMap<String, u16>,
        groups: &BTreeMap<String, Vec<String>>,
    ) -> Self {
        let zones = numbers.iter().map(|(name, id)| (name.clone(), Zone(*id)));
        let mut names: BTreeMap<_, _> = zones
            .chain([(DEFAULT_ZONE.to_owned(), Zone::DEFAULT)])
            .collect();
        let mut members = Vec::new();
        for (group, zones) in groups {
            let zones: Vec<_> = zones
                .iter()
                .filter_map(|name| names.get(name))
                .copied()
                .collect();
            let Some(first) = zones.iter().min().copied() else {
                continue;
            };
            names.insert(group.clone(), first);
            members.extend(zones.into_iter().map(|zone| (zone, first)));
        }
        members.sort_unstable();
        for zone in names.values_mut() {
            let place = members.binary_search_by_key(zone, |(member, _)| *member);
            if let Some((_, first)) = place.ok().and_then(|place| members.get(place)) {
                *zone = *first;
            }
        }
        let mut zones = Self {
            names,
            members: members.into(),
            named: Box::default(),
        };
        let named = numbers.values().map(|id| zones.group_of(Zone(*id)));
        let named: BTreeSet<_> = named.collect();
        zones.named = named.into_iter().collect();
        zones
    }

    /// Returns the zone that represents a zone: the first of its group, or the zone itself.
    #[inline]
    #[must_use]
    pub fn group_of(&self, zone: Zone) -> Zone {
        if self.members.is_empty() {
            return zone;
        }
        match self
            .members
            .binary_search_by_key(&zone, |(member, _)| *member)
        {
            Ok(place) => self.members.get(place).map_or(zone, |(_, first)| *first),
            Err(_) => zone,
        }
    }

    /// Returns each zone once; those of a group count as one.
    pub fn distinct(&self) -> impl Iterator<Item = Zone> {
        let zones: BTreeSet<_> = self.names.values().copied().collect();
        zones.into_iter()
    }

    /// Returns the zones that have a guaranteed share of bounded resources, in order: those that
    /// `[zones]` names. The default zone has a share only if it is named there, since most
    /// configurations with zones leave it unused.
    pub(crate) fn named(&self) -> &[Zone] {
        &self.named
    }

    /// Returns whether the same zones are grouped in the same way.
    #[must_use]
    pub(crate) fn same_groups(&self, other: &Self) -> bool {
        self.members == other.members
    }

    /// Returns the zone of a name.
    pub fn zone(&self, name: &str) -> Option<Zone> {
        self.names.get(name).copied()
    }

    /// Returns the name of a zone, after a search through all names.
    pub fn name(&self, zone: Zone) -> Option<&str> {
        self.iter()
            .find(|(_, own)| *own == zone)
            .map(|(name, _)| name)
    }

    /// Returns all names with their zones, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Zone)> {
        self.names.iter().map(|(name, zone)| (name.as_str(), *zone))
    }
}
