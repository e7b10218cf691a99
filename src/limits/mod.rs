//! Limits on the sessions of a zone, a rule or a source, and the counts that they apply to.
//!
//! Every shard counts its sessions here as they begin, change and end, under its own lock. Counts
//! are atomic, or under leaf locks that are held for a few instructions, so that a packet takes no
//! other shard's lock to read them.
//!
//! Beside the limits of the configuration, one always applies ([`Limit::SourceShare`]): a source
//! that has more sessions than there are places left for others gets no new one. So one source has
//! at most half of the table, `n` sources together leave at least `1 / (n + 1)` of it, and an idle
//! table is open to any source. (It is the dynamic threshold of shared-memory switches: Choudhury
//! and Hahne, 1998.)

mod accounts;
mod adaptive;
mod admission;
pub(crate) mod by_zone;
mod counted;
mod notices;
mod prefix;
mod set;
pub(crate) mod share;
pub(crate) mod sources;
mod standing;
mod tally;

pub(crate) use self::accounts::{Accounts, Departures};
pub(crate) use self::adaptive::Adaptive;
pub(crate) use self::admission::{Admitted, Counts, Request, SourceHash, Subject};
pub(crate) use self::notices::Notices;
pub(crate) use self::prefix::Prefixes;
pub use self::set::LimitSet;
pub(crate) use self::standing::Standing;
pub(crate) use self::tally::Tally;
use crate::flow::Zone;
use crate::verdict::DropReason;

/// Returns the bytes that the counts of an engine take, for a table of a size.
#[must_use]
pub(crate) const fn counts_bytes(max_sessions: usize) -> usize {
    Accounts::BYTES + counted::CountedTable::bytes(max_sessions)
}

/// A limit that a new session can exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Limit {
    /// Sessions of a zone, or of a rule.
    Sessions,
    /// Sessions of a source.
    PerSource,
    /// Sessions to a destination.
    PerDestination,
    /// Half-open TCP sessions of a source.
    HalfOpenPerSource,
    /// New sessions per second of a source.
    RatePerSource,
    /// Sessions of a source that has more of them than there are places left for others.
    SourceShare,
    /// Sessions of a zone beyond its guarantee, while all other places hold sessions of a higher
    /// eviction class, or are guaranteed to other zones.
    ZoneShare,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::PerSource,
        Self::PerDestination,
        Self::HalfOpenPerSource,
        Self::RatePerSource,
        Self::SourceShare,
        Self::ZoneShare,
    ];

    /// Returns the stable name: that of the setting, where there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "max_sessions",
            Self::PerSource => "max_per_source",
            Self::PerDestination => "max_per_destination",
            Self::HalfOpenPerSource => "max_half_open_per_source",
            Self::RatePerSource => "new_per_second_per_source",
            Self::SourceShare => "source_share",
            Self::ZoneShare => "zone_share",
        }
    }

    /// Returns the reason of packets that are dropped or rejected by the limit.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Sessions => DropReason::LimitSessions,
            Self::PerSource => DropReason::LimitSource,
            Self::PerDestination => DropReason::LimitDestination,
            Self::HalfOpenPerSource => DropReason::LimitHalfOpen,
            Self::RatePerSource => DropReason::LimitRate,
            Self::SourceShare => DropReason::LimitSourceShare,
            Self::ZoneShare => DropReason::LimitZoneShare,
        }
    }
}

/// Scope of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LimitScope {
    /// `[limits]`, or nowhere.
    #[default]
    All,
    /// `[limits.zones]`.
    Zone,
    /// The rule that allows the session.
    Rule,
}

impl LimitScope {
    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Zone => "zone",
            Self::Rule => "rule",
        }
    }

    /// Returns words for people.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::All => "all zones",
            Self::Zone => "the zone",
            Self::Rule => "the rule",
        }
    }
}

/// A limit that a new session would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exceeded {
    /// The limit.
    pub limit: Limit,
    /// The scope in which it is set.
    pub scope: LimitScope,
    /// Value of the limit; for [`Limit::SourceShare`], the places that are left for others; for
    /// [`Limit::ZoneShare`], the sessions that are guaranteed to the zone.
    pub value: u32,
    /// The count: sessions, half-open sessions, or new sessions per second.
    pub count: u32,
}

/// Action on a packet whose session would exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LimitAction {
    /// Drops the packet.
    #[default]
    Drop,
    /// Answers with a RST or an ICMP error, as far as the budgets of `[resets]` go.
    Reject,
}

impl LimitAction {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// Bounds that apply to a session; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    pub(crate) max_sessions: Option<u32>,
    pub(crate) max_per_source: Option<u32>,
    pub(crate) max_per_destination: Option<u32>,
    pub(crate) max_half_open_per_source: Option<u32>,
    pub(crate) new_per_second_per_source: Option<u32>,
    pub(crate) action: LimitAction,
    /// Scope in which the bounds are set.
    pub(crate) scope: LimitScope,
}

impl Bounds {
    /// Returns whether any bound is by source or destination.
    pub(crate) const fn has_entries(&self) -> bool {
        let Self {
            max_sessions: _,
            max_per_source,
            max_per_destination,
            max_half_open_per_source,
            new_per_second_per_source,
            action: _,
            scope: _,
        } = self;
        max_per_source.is_some()
            | max_per_destination.is_some()
            | max_half_open_per_source.is_some()
            | new_per_second_per_source.is_some()
    }
}

/// The limits of one configuration; those of rules are with the rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    /// The prefixes by which sources and destinations are counted.
    pub(crate) prefixes: Prefixes,
    /// Bounds of zones without own ones.
    pub(crate) all: Bounds,
    /// Bounds of other zones, ordered by zone.
    pub(crate) zones: Box<[(Zone, Bounds)]>,
}

impl Limits {
    /// Returns the bounds for sessions of a zone.
    #[inline]
    pub(crate) fn of_zone(&self, zone: Zone) -> &Bounds {
        let place = self.zones.binary_search_by_key(&zone, |(each, _)| *each);
        let of_zone = place.ok().and_then(|place| self.zones.get(place));
        of_zone.map_or(&self.all, |(_, bounds)| bounds)
    }

    /// Returns the entries that a session of a zone and a rule is counted in.
    pub(crate) fn counts(&self, zone: Zone, of_rule: Bounds) -> Counts {
        Counts {
            destination: self.of_zone(zone).max_per_destination.is_some(),
            of_rule: of_rule.has_entries(),
        }
    }
}
