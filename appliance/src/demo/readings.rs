//! Requests to the demo's appliance over its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::DemoError;
use super::stop::Stop;
use crate::run::protocol::{FilterSpec, ListingRequest, Reply, Request, StatsView};
use crate::run::view::ListedSession;
use crate::sessions::SessionsError;
use crate::sessions::client::Client;

/// Longest time until sent packets are counted.
const SETTLED: Duration = Duration::from_secs(15);

/// The way to the appliance's control socket.
#[derive(Debug)]
pub(crate) struct Readings {
    control: PathBuf,
}

impl Readings {
    /// Returns a way to this control socket, which need not exist yet.
    pub(crate) const fn new(control: PathBuf) -> Self {
        Self { control }
    }

    /// Returns the path of the control socket.
    pub(crate) fn control(&self) -> &Path {
        &self.control
    }

    /// Returns whether the appliance answers and serves packets.
    pub(crate) fn is_healthy(&self) -> bool {
        self.stats().is_ok_and(|stats| stats.unhealthy.is_empty())
    }

    /// Returns all counters.
    ///
    /// # Errors
    /// Returns an error if the appliance does not answer.
    pub(crate) fn stats(&self) -> Result<StatsView, DemoError> {
        let replies = self.ask(&Request::Stats)?;
        let stats = replies.into_iter().find_map(|reply| match reply {
            Reply::Stats(stats) => Some(*stats),
            _ => None,
        });
        let missing = || SessionsError::Answer("no counters".to_owned());
        Ok(stats.ok_or_else(missing)?)
    }

    /// Returns the sessions that a filter selects.
    ///
    /// # Errors
    /// Returns an error if the appliance does not answer.
    pub(crate) fn sessions(&self, filter: FilterSpec) -> Result<Vec<ListedSession>, DemoError> {
        let listing = ListingRequest {
            filter,
            ..ListingRequest::default()
        };
        let replies = self.ask(&Request::Sessions(listing))?;
        let sessions = replies.into_iter().filter_map(|reply| match reply {
            Reply::Session(session) => Some(*session),
            _ => None,
        });
        Ok(sessions.collect())
    }

    fn ask(&self, request: &Request) -> Result<Vec<Reply>, DemoError> {
        Ok(Client::connect(&self.control)?.ask(request)?)
    }

    /// Returns the number of packets that were dropped for these reasons since `before`. Waits
    /// until it has come to `expected`, for a bounded time.
    ///
    /// # Errors
    /// Returns an error if the appliance does not answer, and [`DemoError::Interrupted`] after a
    /// signal.
    pub(crate) fn dropped_since(
        &self,
        before: &StatsView,
        reasons: &[&str],
        expected: u64,
        stop: &Stop,
    ) -> Result<u64, DemoError> {
        let dropped = || -> Result<u64, DemoError> {
            let now = dropped(&self.stats()?, reasons);
            Ok(now.saturating_sub(dropped(before, reasons)))
        };
        let found = stop.wait_for(SETTLED, || {
            let count = dropped()?;
            Ok((count >= expected).then_some(count))
        })?;
        found.map_or_else(dropped, Ok)
    }
}

/// Returns the number of packets that were dropped for these reasons.
fn dropped(stats: &StatsView, reasons: &[&str]) -> u64 {
    let counts = stats.dropped.iter();
    let counts = counts.filter(|(name, _)| reasons.contains(&name.as_str()));
    counts.map(|(_, count)| count).sum()
}
