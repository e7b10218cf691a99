//! Limits on sessions of sources and destinations.

use portcullis::config::LimitsConfig;
use portcullis::session::EvictionClass;
use portcullis::{DropReason, SessionId};

use super::Run;
use super::challenge::Source;
use super::session::{Session, Tuple};

/// `[limits]`; each is at least 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) per_source: Option<u32>,
    pub(crate) per_destination: Option<u32>,
    pub(crate) half_open: Option<u32>,
    pub(crate) rate: Option<u32>,
}

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

impl Limits {
    pub(super) fn config(self) -> LimitsConfig {
        LimitsConfig {
            max_per_source: self.per_source,
            max_per_destination: self.per_destination,
            max_half_open_per_source: self.half_open,
            new_per_second_per_source: self.rate,
            ..LimitsConfig::default()
        }
    }
}

/// Returns whether a session is a TCP connection whose handshake is not complete.
fn is_half_open(session: &Session) -> bool {
    session.initiator.protocol == 6 && session.eviction_class() == EvictionClass::Embryonic
}

impl Run {
    /// Returns the limit that a new session would exceed. The session `replaces` ends if no limit
    /// is exceeded.
    pub(super) fn limited(
        &mut self,
        initiator: &Tuple,
        replaces: Option<SessionId>,
    ) -> Option<DropReason> {
        let limits = self.setup.settings.limits;
        let [source, destination] = [Source::of(initiator), Source::of(&initiator.back())];
        let count = |meant: &dyn Fn(&Session) -> bool| {
            let others = self
                .sessions
                .iter()
                .filter(|each| Some(each.id) != replaces);
            others.filter(|each| meant(each)).count()
        };
        let exceeds =
            |count: usize, most: Option<u32>| most.is_some_and(|most| count >= most as usize);
        let of_source = |each: &Session| Source::of(&each.initiator) == source;
        if exceeds(count(&of_source), limits.per_source) {
            return Some(DropReason::LimitSource);
        }
        let half_open = count(&|each| of_source(each) && is_half_open(each));
        if initiator.protocol == 6 && exceeds(half_open, limits.half_open) {
            return Some(DropReason::LimitHalfOpen);
        }
        let to =
            count(&|each| each.by_destination && Source::of(&each.initiator.back()) == destination);
        if limits
            .rate
            .is_some_and(|rate| !self.is_on_time(source, rate))
        {
            return Some(DropReason::LimitRate);
        }
        // A session that is refused here has already counted in the rate.
        exceeds(to, limits.per_destination).then_some(DropReason::LimitDestination)
    }

    /// Takes one new session from the rate of its source, and returns whether the rate allows it.
    fn is_on_time(&mut self, source: Source, rate: u32) -> bool {
        let now = (self.now - self.shown).as_micros() as u64 * 1_000;
        let paces = &mut self.sources.paces;
        let place = paces.iter().position(|(known, _)| *known == source);
        let place = place.unwrap_or_else(|| {
            paces.push((source, 0));
            paces.len() - 1
        });
        let due = paces[place].1.max(now) + SECOND / u64::from(rate);
        let is_on_time = due <= now + SECOND;
        if is_on_time {
            paces[place].1 = due;
        }
        is_on_time
    }
}
