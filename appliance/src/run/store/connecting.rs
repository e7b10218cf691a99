//! Keeps a connection to the store: connects with pauses that grow, and reports changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::Cmd;

use super::backoff::Backoff;
use super::envelope::{Envelope, Kind};
use super::link::{Link, LinkError, Reply, Servers, Times};
use super::scripts::StoreScript;
use super::state::{LinkName, StoreState};
use crate::output::notice;

/// Commands of a new connection.
pub(super) struct Commands {
    pub(super) scripts: Vec<StoreScript>,
    pub(super) trial: Cmd,
}

impl Commands {
    /// Returns the commands for scripts; the trial deletes a key that never exists.
    pub(super) fn new(scripts: Vec<StoreScript>, envelope: &Envelope) -> Self {
        let mut trial = redis::cmd("DEL");
        trial.arg(envelope.key(Kind::Mark, b""));
        Self { scripts, trial }
    }
}

/// Connection that is made again when it breaks.
pub(super) struct Connecting {
    name: LinkName,
    servers: Arc<Servers>,
    state: Arc<StoreState>,
    /// Longest time for an answer.
    patience: Duration,
    scripts: Vec<StoreScript>,
    /// Command that shows whether a new connection is of use: it writes, and changes nothing.
    trial: Cmd,
    link: Option<Link>,
    backoff: Backoff,
    next: Instant,
}

impl Connecting {
    pub(super) fn new(
        name: LinkName,
        servers: Arc<Servers>,
        state: Arc<StoreState>,
        patience: Duration,
        commands: Commands,
    ) -> Self {
        // Any number will do that differs from one start to the next.
        let seed = std::process::id();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = u64::from(seed) ^ now.map_or(1, |now| now.as_nanos() as u64);
        Self {
            name,
            servers,
            state,
            patience,
            scripts: commands.scripts,
            trial: commands.trial,
            link: None,
            backoff: Backoff::new(seed),
            next: Instant::now(),
        }
    }

    /// Connects, if there is no connection and the pause is over. Returns whether there is one.
    pub(super) fn is_ready(&mut self) -> bool {
        if self.link.is_some() {
            return true;
        }
        if Instant::now() < self.next {
            return false;
        }
        let connect = || {
            let mut link = self.servers.connect(self.patience)?;
            link.load(&self.scripts)?;
            // A replica, for one, takes everything but writes: then this is no connection.
            let trial = std::slice::from_ref(&self.trial);
            let replies = link.send(trial, &self.scripts, Times::Twice)?;
            let refused = replies.first().and_then(Reply::refused_writes);
            // Of a cluster, the trial reaches one primary; another one may take writes.
            let is_whole = self.name == LinkName::Writes && !self.servers.is_cluster();
            match refused.filter(|_| is_whole) {
                Some(why) => Err(LinkError::of_refused_writes(why)),
                None => Ok(link),
            }
        };
        match connect() {
            Ok(link) => {
                self.link = Some(link);
                if let Some(down) = self.state.is_up(self.name, Instant::now()) {
                    let down = humantime::format_duration(Duration::from_millis(
                        u64::try_from(down.as_millis()).unwrap_or(u64::MAX),
                    ));
                    notice(&format!(
                        "store: {} connected again after {down}",
                        self.name.name()
                    ));
                } else {
                    notice(&format!("store: {} connected", self.name.name()));
                }
                true
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    /// Waits for a part of the pause before the next attempt to connect.
    pub(super) fn rest(&self, stop: &AtomicBool) {
        if !stop.load(Ordering::Relaxed) {
            let left = self.next.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// Sends commands; `None` if there is no connection, or it breaks.
    pub(super) fn send(&mut self, commands: &[Cmd]) -> Option<Vec<Reply>> {
        self.send_times(commands, Times::Twice)
    }

    /// Sends commands that are never carried out twice.
    pub(super) fn send_once(&mut self, commands: &[Cmd]) -> Option<Vec<Reply>> {
        self.send_times(commands, Times::Once)
    }

    fn send_times(&mut self, commands: &[Cmd], times: Times) -> Option<Vec<Reply>> {
        let link = self.link.as_mut()?;
        match link.send(commands, &self.scripts, times) {
            Ok(replies) => {
                self.backoff.reset();
                let refused = replies.iter().find_map(|reply| match reply {
                    Reply::Refused(refused) => Some(&refused.why),
                    _ => None,
                });
                if let Some(why) = refused {
                    self.note_refused(why);
                }
                Some(replies)
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Notes that the store refuses commands: their connection stays.
    fn note_refused(&self, why: &str) {
        let name = self.name.name();
        if self.state.troubles.note(name, why, Instant::now()) {
            notice(&format!(
                "warning: store: {name}: the store refuses commands: {why}"
            ));
        }
    }

    /// Returns whether the store is a cluster, of which one primary may refuse what others take.
    pub(super) fn is_cluster(&self) -> bool {
        self.servers.is_cluster()
    }

    /// Gives the connection up, since the store takes no writes. What the caller keeps is written
    /// once it does.
    pub(super) fn give_up_writes(&mut self, why: &str) {
        self.fail(LinkError::of_refused_writes(why));
    }

    /// Gives the connection up, since its thread has failed amid an exchange.
    pub(super) fn give_up(&mut self) {
        self.fail(LinkError::of_failed_thread());
    }

    fn fail(&mut self, error: LinkError) {
        self.link = None;
        let pause = self.backoff.pause();
        self.next = Instant::now() + pause;
        let text = error.to_string();
        // An outage is reported once, not at every attempt.
        if self.state.is_down(self.name, Instant::now(), error) {
            notice(&format!("warning: store: {}: {text}", self.name.name()));
        }
    }
}
