//! List of sessions as replies of the control socket.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;

use portcullis::SessionRecord;

use super::exchange::Exchange;
use crate::run::protocol::{FilterSpec, Reply};

/// Maximum number of sessions of a limited answer.
const MAX_LIMIT: usize = 10_000;

/// Session, ordered by its bytes: in a heap, the one with the fewest is on top.
struct ByBytes(SessionRecord);

impl ByBytes {
    const fn bytes(&self) -> u64 {
        self.0.original.bytes.saturating_add(self.0.reply.bytes)
    }
}

impl PartialEq for ByBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for ByBytes {}

impl PartialOrd for ByBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        other.bytes().cmp(&self.bytes())
    }
}

/// Writes the sessions that a filter selects; with a limit, those with the most bytes.
///
/// # Errors
/// Returns an error if the client does not read.
pub(super) fn sessions(
    filter: &FilterSpec,
    limit: Option<usize>,
    exchange: &mut Exchange<'_>,
) -> io::Result<Reply> {
    let (appliance, now) = (exchange.appliance, exchange.now);
    let engine = &appliance.data_path.shared.engine;
    let policy = engine.policy();
    let filter = match filter.read(&appliance.zones, &policy) {
        Ok(filter) => filter,
        Err(error) => return Ok(Reply::Error(error)),
    };
    let viewer = appliance.viewer(&policy, now);
    let mut count = 0;
    let mut largest = BinaryHeap::new();
    let mut failed = None;
    engine.for_each_session(|session| {
        if failed.is_some() || session.expires <= now || !filter.matches(session, now) {
            return;
        }
        count += 1;
        match limit {
            None => {
                let reply = Reply::Session(Box::new(viewer.view(session)));
                failed = exchange.put(&reply).err();
            }
            Some(limit) => {
                largest.push(ByBytes(*session));
                if largest.len() > limit.min(MAX_LIMIT) {
                    largest.pop();
                }
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    for ByBytes(session) in largest.into_sorted_vec() {
        exchange.put(&Reply::Session(Box::new(viewer.view(&session))))?;
    }
    Ok(Reply::Done { count, text: None })
}
