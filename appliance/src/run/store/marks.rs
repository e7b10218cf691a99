//! Marks of this appliance in the store, which show whether the store was emptied.
//!
//! A store that restarts breaks the connection; one that is emptied by a command does not, and an
//! idle session would have no record until it moves. So the appliance looks for its mark once a
//! second. A cluster has several marks, since each primary can be emptied alone.

use std::time::{Duration, Instant};

use redis::Cmd;

use super::connecting::Connecting;
use super::envelope::{Envelope, Kind};
use super::link::Reply;
use super::state::{Counted, StoreState};
use crate::output::notice;

/// Interval at which the marks are looked for. An idle connection that is broken is noticed, too.
const INTERVAL: Duration = Duration::from_secs(1);
/// Marks in a cluster: of eight primaries, each has one with a probability of 98%.
const IN_CLUSTER: u8 = 32;
/// Time to live of a mark in milliseconds, a day: records that expire earlier give way before it.
const TTL_MS: u32 = 86_400_000;

/// Marks of this appliance.
pub(super) struct Marks {
    /// Commands that read each mark and set it again.
    commands: Vec<Cmd>,
    checked: Option<Instant>,
    are_set: bool,
}

impl Marks {
    pub(super) fn new(envelope: &Envelope, is_cluster: bool) -> Self {
        let count = if is_cluster { IN_CLUSTER } else { 1 };
        let mut commands = Vec::with_capacity(2 * usize::from(count));
        for number in 0..count {
            let mut name = envelope.owner().0.to_vec();
            name.push(number);
            let key = envelope.key(Kind::Mark, &name);
            let mut read = redis::cmd("GETRANGE");
            read.arg(&key).arg(0).arg(0);
            let mut set = redis::cmd("SET");
            set.arg(&key).arg("1").arg("PX").arg(TTL_MS);
            commands.extend([read, set]);
        }
        Self {
            commands,
            checked: None,
            are_set: false,
        }
    }

    /// Looks for the marks, if it is time to. If one is missing that was set, the store lacks
    /// records.
    pub(super) fn check(&mut self, connecting: &mut Connecting, state: &StoreState) {
        if self.checked.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        self.checked = Some(Instant::now());
        let Some(replies) = connecting.send(&self.commands) else {
            return;
        };
        let mut pairs = replies.chunks_exact(2);
        let are_there = pairs.all(|pair| {
            let read = pair.first();
            read.is_some_and(|read| !matches!(read, Reply::Bytes(bytes) if bytes.is_empty()))
        });
        if self.are_set && !are_there {
            state.counters.add(Counted::RecordsMissing);
            state.lacks_records();
            notice("warning: store: it has lost records; each session is written again");
        }
        let mut pairs = replies.chunks_exact(2);
        self.are_set = pairs.all(|pair| pair.last() == Some(&Reply::Number(1)));
    }
}
