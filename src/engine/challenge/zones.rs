//! Conditions and rates of challenges by zone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::sources::ZonePlace;
use crate::config::{ChallengeMode, Compiled, SynChallengeConfig};
use crate::engine::rate::Rate;
use crate::flow::Zone;
use crate::session::Micros;

/// Time after the last challenge of a zone during which a RST may return its cookie, in seconds.
const ANSWERED: u32 = 72;

/// Minimum number of half-open sessions at which challenges begin. A few clients of a server that
/// is down are not a flood, even if the zone's part of the table is small.
const LEAST_START: u32 = 64;

/// State of a zone that packets change.
#[derive(Debug, Default)]
struct State {
    /// The zone's half-open sessions have reached the start threshold, and have not dropped below
    /// the end threshold since.
    is_flooded: AtomicBool,
    /// The time of the last challenge in seconds, counted from 1; 0 for none.
    last: AtomicU32,
    /// The zone's own part of the budget.
    rate: Rate,
}

/// State of all zones, and the part of the budget that they share.
#[derive(Debug)]
struct States {
    zones: Box<[State]>,
    shared: Rate,
}

/// Numbers of half-open sessions of a zone at which challenges begin and below which they end.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    start: u32,
    end: u32,
}

impl Threshold {
    /// Returns the threshold of a zone with `places` slots.
    fn new(config: &SynChallengeConfig, places: u64) -> Self {
        let share = |percent: u32| (places * u64::from(percent) / 100) as u32;
        let start = share(config.start).max(LEAST_START);
        Self {
            start,
            end: share(config.end).clamp(1, start),
        }
    }
}

/// Settings of challenges.
#[derive(Debug)]
pub(in crate::engine) struct ChallengeSettings {
    /// Each zone once, in order.
    zones: Box<[Zone]>,
    mode: ChallengeMode,
    /// Zones with a mode of their own, in order.
    modes: Box<[(Zone, ChallengeMode)]>,
    /// Thresholds at which challenges begin and end, in the order of `zones`.
    thresholds: Box<[Threshold]>,
    /// Time for which a source is known, in seconds.
    pub(super) lifetime: u32,
    /// Challenges per second that are reserved for each zone.
    own_rate: u32,
    /// Challenges per second that all zones share.
    shared_rate: u32,
    states: Arc<States>,
}

impl ChallengeSettings {
    /// Returns settings that keep the state of the same zones in `previous`.
    pub(in crate::engine) fn new(compiled: &Compiled, previous: Option<&Self>) -> Self {
        let config = &compiled.syn_challenge;
        let zones: Box<[Zone]> = compiled.zones.distinct().collect();
        let mut modes: Vec<_> = config
            .zones
            .iter()
            .filter_map(|(name, mode)| Some((compiled.zones.zone(name)?, *mode)))
            .collect();
        modes.sort_by_key(|(zone, _)| *zone);
        // If several names denote one zone, the first counts, as for `tcp.zones`.
        modes.dedup_by_key(|(zone, _)| *zone);
        let count = zones.len().max(1);
        let part = u64::from(compiled.fixed.max_sessions) / count as u64;
        let thresholds = zones.iter().map(|zone| {
            // A zone that is limited to fewer sessions than its part is full before that.
            let most = compiled.limits.of_zone(*zone).max_sessions;
            Threshold::new(config, most.map_or(part, |most| part.min(most.into())))
        });
        let kept = previous
            .filter(|previous| previous.zones == zones)
            .map(|previous| Arc::clone(&previous.states));
        let states = kept.unwrap_or_else(|| {
            Arc::new(States {
                zones: zones.iter().map(|_| State::default()).collect(),
                shared: Rate::default(),
            })
        });
        Self {
            mode: config.mode,
            modes: modes.into(),
            thresholds: thresholds.collect(),
            lifetime: u32::try_from(config.lifetime.as_secs()).unwrap_or(u32::MAX),
            own_rate: own_rate(config, count),
            shared_rate: config.per_second.div_ceil(2),
            zones,
            states,
        }
    }

    fn mode(&self, zone: Zone) -> ChallengeMode {
        let own = self.modes.binary_search_by_key(&zone, |(each, _)| *each);
        let own = own.ok().and_then(|place| self.modes.get(place));
        own.map_or(self.mode, |(_, mode)| *mode)
    }

    /// Returns whether sources of a zone may be challenged at any time.
    pub(super) fn is_on(&self, zone: Zone) -> bool {
        self.mode(zone) != ChallengeMode::Off
    }

    /// Returns the index of a zone. A zone that the configuration does not name shares the index of
    /// another zone.
    pub(super) fn place(&self, zone: Zone) -> ZonePlace {
        let count = self.zones.len().max(1);
        let index = self.zones.binary_search(&zone);
        ZonePlace {
            index: index.unwrap_or(usize::from(zone.0) % count),
            count,
        }
    }

    fn state(&self, zone: Zone) -> Option<&State> {
        self.states.zones.get(self.place(zone).index)
    }

    fn state_and_threshold(&self, zone: Zone) -> Option<(&State, Threshold)> {
        let index = self.place(zone).index;
        Some((self.states.zones.get(index)?, *self.thresholds.get(index)?))
    }

    /// Returns whether unknown sources of a zone are challenged now, given the number of its
    /// half-open sessions.
    pub(super) fn is_challenging(&self, zone: Zone, half_open: impl FnOnce() -> u32) -> bool {
        match self.mode(zone) {
            ChallengeMode::Off => false,
            ChallengeMode::Always => true,
            ChallengeMode::Auto => {
                self.state_and_threshold(zone)
                    .is_some_and(|(state, threshold)| {
                        let was_flooded = state.is_flooded.load(Ordering::Relaxed);
                        let bound = if was_flooded {
                            threshold.end
                        } else {
                            threshold.start
                        };
                        let is_flooded = half_open() >= bound;
                        if is_flooded != was_flooded {
                            state.is_flooded.store(is_flooded, Ordering::Relaxed);
                        }
                        is_flooded
                    })
            }
        }
    }

    /// Takes a challenge from the budget, if it allows one: from the zone's own part first.
    pub(super) fn take(&self, zone: Zone, now: Micros) -> bool {
        let Some(state) = self.state(zone) else {
            return false;
        };
        let taken =
            state.rate.take(now, self.own_rate) || self.states.shared.take(now, self.shared_rate);
        let second = second(now);
        if taken && state.last.load(Ordering::Relaxed) != second {
            state.last.store(second, Ordering::Relaxed);
        }
        taken
    }

    /// Returns whether a RST of a zone may return a cookie: a challenge was sent recently.
    pub(super) fn may_be_answered(&self, zone: Zone, now: Micros) -> bool {
        let last = |state: &State| state.last.load(Ordering::Relaxed);
        let last = self.state(zone).map_or(0, last);
        last != 0 && second(now).saturating_sub(last) <= ANSWERED
    }

    /// Returns each zone of the configuration.
    pub(super) fn zones(&self) -> impl Iterator<Item = Zone> {
        self.zones.iter().copied()
    }
}

/// Returns each zone's part of one half of the budget.
fn own_rate(config: &SynChallengeConfig, zones: usize) -> u32 {
    config.per_second / 2 / u32::try_from(zones).unwrap_or(u32::MAX)
}

const fn second(now: Micros) -> u32 {
    (now.0 / 1_000_000) as u32 + 1
}
