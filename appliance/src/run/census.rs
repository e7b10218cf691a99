//! Sessions by zone, protocol and state, counted in the background while metrics are read.
//!
//! A count walks the whole table, in slices that hold a shard's lock for microseconds. A separate
//! thread counts: no scrape or health check waits, and nothing is counted unless metrics are read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::policy::Protocol;
use portcullis::{SessionCount, Zone};

use super::shared::Shared;

/// Minimum time between two counts.
const INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two counts, in durations of the last one: at most a twentieth of a
/// processor is spent.
const REST: u32 = 20;
/// Time for which sessions are counted after the last scrape.
const ASKED: Duration = Duration::from_secs(120);
/// Interval at which the thread checks for work.
const LOOK: Duration = Duration::from_millis(100);
/// Zones with series of their own; the sessions of others are counted together.
const MAX_ZONES: usize = 64;
/// Protocols with series of their own.
const PROTOCOLS: [u8; 10] = [1, 6, 17, 33, 47, 50, 51, 58, 132, 136];

/// Labels of a series: zone, protocol and state. The zone is `None` above the bound, and the
/// protocol if it is rare.
pub(super) type Kind = (Option<Zone>, Option<u8>, &'static str);

/// Last count, and the time of the last scrape.
#[derive(Debug, Default)]
struct State {
    /// All kinds that were ever counted, so that no series disappears.
    counts: BTreeMap<Kind, u64>,
    zones: BTreeSet<Zone>,
    /// End of the last count, and its duration.
    last: Option<(Instant, Duration)>,
    asked: Option<Instant>,
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        let since = |moment| now.saturating_duration_since(moment);
        let is_asked = self.asked.is_some_and(|asked| since(asked) < ASKED);
        let has_rested = self
            .last
            .is_none_or(|(end, took)| since(end) >= INTERVAL.max(took.saturating_mul(REST)));
        is_asked && has_rested
    }

    fn take(&mut self, sessions: &[SessionCount]) {
        for count in self.counts.values_mut() {
            *count = 0;
        }
        for count in sessions {
            if self.zones.len() < MAX_ZONES {
                self.zones.insert(count.zone);
            }
            let zone = self.zones.contains(&count.zone).then_some(count.zone);
            let protocol = PROTOCOLS
                .contains(&count.protocol)
                .then_some(count.protocol);
            *self
                .counts
                .entry((zone, protocol, count.state))
                .or_default() += count.sessions;
        }
    }
}

/// Sessions at the last count.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    /// The number of sessions of each kind that ever occurred.
    pub(super) sessions: Vec<(Kind, u64)>,
    /// Age of the last count, if there was one.
    pub(super) age: Option<Duration>,
}

/// Counts sessions in the background.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<State>);

impl Census {
    /// Returns the last count, and requests further counts. Never blocks.
    pub(super) fn read(&self, now: Instant) -> Counted {
        let mut state = self.0.lock();
        state.asked = Some(now);
        Counted {
            sessions: state
                .counts
                .iter()
                .map(|(kind, count)| (*kind, *count))
                .collect(),
            age: state
                .last
                .map(|(end, _)| now.saturating_duration_since(end)),
        }
    }

    /// Counts, if a count is due.
    fn turn(&self, shared: &Shared) {
        let begin = Instant::now();
        if !self.0.lock().is_due(begin) {
            return;
        }
        let sessions = shared.engine.count_sessions();
        let end = Instant::now();
        let mut state = self.0.lock();
        state.take(&sessions);
        state.last = Some((end, end.saturating_duration_since(begin)));
    }
}

/// Returns the label of a protocol.
pub(super) fn protocol_label(protocol: Option<u8>) -> String {
    protocol.map_or_else(|| "other".to_owned(), |number| Protocol(number).to_string())
}

/// Starts the thread that counts; it ends with `stop`.
///
/// # Errors
/// Returns an error if the system refuses a thread.
pub(super) fn start(
    census: Arc<Census>,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        while !stop.load(Ordering::Relaxed) {
            census.turn(&shared);
            thread::sleep(LOOK);
        }
    };
    thread::Builder::new().name("census".to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use portcullis::{Config, Engine, Packet};

    use super::*;

    #[test]
    fn sessions_are_counted_while_somebody_asks_and_not_too_often() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut state = State::default();
        assert!(!state.is_due(now), "nobody has asked");
        state.asked = Some(now);
        assert!(state.is_due(now));
        state.last = Some((now, second / 10));
        assert!(!state.is_due(now + 9 * second));
        assert!(state.is_due(now + 10 * second));
        assert!(!state.is_due(now + 120 * second), "nobody asks any more");
        // A table that takes long to count is counted less often.
        state.last = Some((now, 2 * second));
        assert!(!state.is_due(now + 39 * second));
        assert!(state.is_due(now + 40 * second));
    }

    /// Counts of one UDP session in each of these zones, and one of a rare protocol in the first.
    fn sessions(zones: std::ops::Range<u16>) -> Vec<SessionCount> {
        let mut config = Config::default();
        config.policy.default = portcullis::policy::Action::Allow;
        let engine = Engine::new(&config).unwrap();
        let now = Instant::now();
        let mut udp = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64)
            .udp(1, 2)
            .write(&mut udp, b"x")
            .unwrap();
        let mut rare = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64)
            .write(&mut rare, etherparse::IpNumber(253), b"x")
            .unwrap();
        let first = Packet::new(&rare, now).zone(Zone(zones.start));
        assert!(engine.verdict_only(first).is_forward());
        for zone in zones {
            assert!(
                engine
                    .verdict_only(Packet::new(&udp, now).zone(Zone(zone)))
                    .is_forward()
            );
        }
        engine.count_sessions()
    }

    #[test]
    fn series_are_bounded_and_stay() {
        let mut state = State::default();
        state.take(&sessions(0..70));
        let of = |state: &State, zone, protocol| {
            let found = state
                .counts
                .iter()
                .filter(|((z, p, _), _)| (*z, *p) == (zone, protocol));
            found.map(|(_, count)| *count).collect::<Vec<_>>()
        };
        assert_eq!(of(&state, Some(Zone(63)), Some(17)), [1]);
        assert_eq!(of(&state, None, Some(17)), [6], "zones 64 to 69");
        assert_eq!(of(&state, Some(Zone(0)), None), [1]);
        assert_eq!(state.counts.values().sum::<u64>(), 71);
        state.take(&sessions(68..69));
        assert_eq!(of(&state, Some(Zone(63)), Some(17)), [0]);
        assert_eq!(state.counts.values().sum::<u64>(), 2);
    }
}
