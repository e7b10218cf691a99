//! Questions that are asked once more after a moment: the appliance of a control session writes an
//! announcement while the client that has read it connects already.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::asker::Ask;
use super::handle::{Asked, StoreHandle};

/// Time after which a question is asked again; packets are held for longer.
const AFTER: Duration = Duration::from_millis(3);
/// Most questions that wait.
const MAX: usize = 1_024;

/// Questions that are asked once more.
#[derive(Debug, Default)]
pub(super) struct Retries(Mutex<Vec<(Instant, Ask<Asked>)>>);

impl Retries {
    /// Puts a question in line. Returns false if there is no room.
    pub(super) fn add(&self, ask: Ask<Asked>, now: Instant) -> bool {
        let mut waiting = self.0.lock();
        let has_room = waiting.len() < MAX;
        if has_room {
            waiting.push((now + AFTER, ask));
        }
        has_room
    }

    /// Asks the questions whose time has come.
    pub(super) fn send(&self, store: &StoreHandle, now: Instant) {
        let mut waiting = self.0.lock();
        let due = waiting.iter().take_while(|(at, _)| *at <= now).count();
        for (_, ask) in waiting.drain(..due) {
            store.send(ask);
        }
    }
}
