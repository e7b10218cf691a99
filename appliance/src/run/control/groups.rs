//! Sums of the traffic of sessions by source, destination, port, rule or zone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis::policy::{Protocol, RuleId};
use portcullis::{SessionRecord, Zone};

use super::ranking::Rank;
use crate::run::protocol::{GroupKey, GroupView, SortKey};
use crate::run::rates::Moved;
use crate::run::view::Viewer;

/// Most groups at once. Beyond them, the lower half of the order is joined into one.
const MAX_GROUPS: usize = 1 << 16;
/// Name of the sum of the groups that found no room.
const OTHER: &str = "other";

/// Common property of the sessions of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum GroupName {
    Address(IpAddr),
    /// Port of the responder; `None` for protocols without ports.
    Port(Protocol, Option<u16>),
    Rule(RuleId),
    Zone(Zone),
}

impl GroupName {
    fn of(session: &SessionRecord, key: GroupKey) -> Self {
        match key {
            GroupKey::Source => Self::Address(session.src),
            GroupKey::Destination => Self::Address(session.dst),
            GroupKey::Port => {
                let protocol = Protocol(session.protocol);
                let port = protocol.has_ports().then_some(session.dst_port);
                Self::Port(protocol, port)
            }
            GroupKey::Rule => Self::Rule(session.rule),
            GroupKey::Zone => Self::Zone(session.zone),
        }
    }

    fn show(self, viewer: &Viewer<'_>) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Port(protocol, Some(port)) => format!("{protocol}/{port}"),
            Self::Port(protocol, None) => protocol.to_string(),
            Self::Rule(rule) => viewer.policy.rule_name(rule).to_owned(),
            Self::Zone(zone) => viewer.zones.name(zone),
        }
    }
}

/// Sum of the sessions of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Total {
    sessions: u64,
    packets: u64,
    bytes: u64,
    moved: Moved,
    /// Start of the oldest session.
    oldest: Instant,
    /// Whether the group came after others were joined: `other` may have sessions of it.
    is_partial: bool,
}

impl Total {
    fn of(session: &SessionRecord, moved: Option<Moved>) -> Self {
        let packets = [session.original.packets, session.reply.packets];
        Self {
            sessions: 1,
            packets: packets.map(u64::from).iter().sum(),
            bytes: session.original.bytes.saturating_add(session.reply.bytes),
            moved: moved.unwrap_or_default(),
            oldest: session.start,
            is_partial: false,
        }
    }

    fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.moved.packets = self.moved.packets.saturating_add(other.moved.packets);
        self.moved.bytes = self.moved.bytes.saturating_add(other.moved.bytes);
        self.oldest = self.oldest.min(other.oldest);
    }

    /// Returns the position in an order.
    pub(super) fn rank(&self, sort: SortKey, now: Instant) -> Rank {
        let value = match sort {
            SortKey::Rate => self.moved.bytes,
            SortKey::PacketRate => self.moved.packets,
            SortKey::Bytes => self.bytes,
            SortKey::Packets => self.packets,
            SortKey::Age => micros(now.saturating_duration_since(self.oldest)),
            SortKey::Sessions => self.sessions,
        };
        Rank {
            value,
            bytes: self.bytes,
        }
    }
}

/// Returns a time in whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Groups of sessions.
pub(super) struct Groups {
    key: GroupKey,
    sort: SortKey,
    now: Instant,
    limit: usize,
    totals: HashMap<GroupName, Total>,
    /// Sum of groups that found no room.
    other: Option<Total>,
    /// Number of the groups that found no room. A group that has come again counts again.
    joined: u64,
}

/// Group with its name in words.
pub(super) struct Group {
    name: String,
    pub(super) total: Total,
    /// Whether it is the sum of groups that found no room.
    is_joined: bool,
}

impl Groups {
    pub(super) fn new(key: GroupKey, sort: SortKey, now: Instant) -> Self {
        Self {
            key,
            sort,
            now,
            limit: MAX_GROUPS,
            totals: HashMap::new(),
            other: None,
            joined: 0,
        }
    }

    /// Adds a session to its group.
    pub(super) fn add(&mut self, session: &SessionRecord, moved: Option<Moved>) {
        let name = GroupName::of(session, self.key);
        self.add_total(name, Total::of(session, moved));
    }

    fn add_total(&mut self, name: GroupName, total: Total) {
        if let Some(sum) = self.totals.get_mut(&name) {
            sum.add(&total);
            return;
        }
        if self.totals.len() >= self.limit {
            self.join_lower_half();
        }
        let is_partial = self.joined > 0;
        self.totals.insert(
            name,
            Total {
                is_partial,
                ..total
            },
        );
    }

    /// Joins the lower half of the order into one group.
    fn join_lower_half(&mut self) {
        let (sort, now) = (self.sort, self.now);
        let mut ranks: Vec<_> = self
            .totals
            .values()
            .map(|sum| sum.rank(sort, now))
            .collect();
        let middle = ranks.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, bound, _) = ranks.select_nth_unstable(middle);
        let bound = *bound;
        // Of groups with the rank in the middle, as many are joined as make the half.
        let mut left = middle;
        let mut joined = Vec::with_capacity(middle);
        for is_below in [true, false] {
            for (name, sum) in &self.totals {
                let rank = sum.rank(sort, now);
                let fits = if is_below {
                    rank < bound
                } else {
                    rank == bound
                };
                if fits && left > 0 {
                    left -= 1;
                    joined.push(*name);
                }
            }
        }
        for name in joined {
            let Some(sum) = self.totals.remove(&name) else {
                continue;
            };
            self.joined += 1;
            match &mut self.other {
                Some(other) => other.add(&sum),
                None => self.other = Some(sum),
            }
        }
    }

    /// Returns the number of groups, and of those joined into one.
    pub(super) fn counts(&self) -> (usize, u64) {
        (
            self.totals.len() + usize::from(self.other.is_some()),
            self.joined,
        )
    }

    /// Returns all groups with their names.
    pub(super) fn into_groups(self, viewer: &Viewer<'_>) -> impl Iterator<Item = Group> {
        let other = self.other.map(|total| Group {
            name: OTHER.to_owned(),
            total,
            is_joined: true,
        });
        let totals = self.totals.into_iter();
        totals
            .map(|(name, total)| Group {
                name: name.show(viewer),
                total,
                is_joined: false,
            })
            .chain(other)
    }
}

impl Group {
    /// Returns the group as a row; `over` is the time that its rate covers.
    pub(super) fn view(self, over: Option<Duration>, start: impl Fn(Instant) -> f64) -> GroupView {
        let Self {
            name,
            total,
            is_joined,
        } = self;
        GroupView {
            name,
            sessions: total.sessions,
            packets: total.packets,
            bytes: total.bytes,
            start: start(total.oldest),
            joined: is_joined,
            partial: total.is_partial,
            rate: over.map(|over| total.moved.rate(over)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_groups_are_kept_and_nothing_is_lost() {
        let now = Instant::now();
        let mut groups = Groups::new(GroupKey::Zone, SortKey::Rate, now);
        groups.limit = 8;
        for round in 0..3 {
            for zone in 0..500_u16 {
                // Two zones have most of the traffic.
                let bytes = if zone % 250 == 7 { 1_000 } else { 1 };
                let total = Total {
                    sessions: 1,
                    packets: 2,
                    bytes,
                    moved: Moved { packets: 1, bytes },
                    oldest: now,
                    is_partial: false,
                };
                groups.add_total(GroupName::Zone(Zone(zone)), total);
                assert!(groups.totals.len() <= 8, "round {round}");
            }
        }
        for zone in [7, 257] {
            let total = groups.totals.get(&GroupName::Zone(Zone(zone)));
            assert_eq!(total.map(|total| total.moved.bytes), Some(3_000));
        }
        let all = groups.totals.values().chain(&groups.other);
        let sums = all.fold((0, 0), |(sessions, bytes), total| {
            (sessions + total.sessions, bytes + total.bytes)
        });
        assert_eq!(sums, (1_500, 2 * 3 * 1_000 + 498 * 3));
        assert!(groups.joined > 0);
    }

    #[test]
    fn a_group_that_may_lack_sessions_is_marked() {
        let now = Instant::now();
        let mut groups = Groups::new(GroupKey::Zone, SortKey::Rate, now);
        groups.limit = 4;
        let total = |bytes| Total {
            sessions: 1,
            packets: 1,
            bytes,
            moved: Moved { packets: 1, bytes },
            oldest: now,
            is_partial: false,
        };
        for zone in 0..4 {
            groups.add_total(GroupName::Zone(Zone(zone)), total(100 + u64::from(zone)));
        }
        // The fifth group makes room by joining two; one of those comes again.
        for zone in [4, 0] {
            groups.add_total(GroupName::Zone(Zone(zone)), total(1_000));
        }
        let is_partial = |zone| groups.totals.get(&GroupName::Zone(Zone(zone)));
        assert_eq!(is_partial(0).map(|total| total.is_partial), Some(true));
        assert_eq!(is_partial(3).map(|total| total.is_partial), Some(false));
    }
}
