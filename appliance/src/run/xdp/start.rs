//! Start of AF_XDP beside the sockets of the workers, as `run.io` asks.

use std::sync::atomic::{Ordering, fence};

use super::open::{Choice, OpenError};
use crate::output::notice;
use crate::run::settings::Io;
use crate::run::shared::Shared;
use crate::run::worker::Worker;

/// Opens AF_XDP if `run.io` asks for it, and gives its rings to the workers. Says which path
/// packets take, and why.
///
/// # Errors
/// AF_XDP cannot be used, and `run.io` allows nothing else.
pub(in crate::run) fn start(shared: &Shared, workers: &mut [Worker]) -> Result<(), OpenError> {
    // A signal may have come during the start.
    let drains = || shared.draining.load(Ordering::Relaxed) || shared.stop.load(Ordering::Relaxed);
    if shared.run.io == Io::Socket || drains() {
        return Ok(());
    }
    let listen = shared.config.read().geneve.listen.clone();
    let choice = Choice::new(&listen, &shared.run.interfaces);
    match choice.and_then(Choice::open) {
        Ok(opened) => {
            for line in &opened.lines {
                notice(line);
            }
            let count = workers.len().max(1);
            for (number, queue) in opened.queues.into_iter().enumerate() {
                if let Some(worker) = workers.get_mut(number % count) {
                    worker.add(queue);
                }
            }
            // Only the start sets it.
            let _ = shared.xdp.set(opened.state);
            fence(Ordering::SeqCst);
            if drains() {
                shared.leave_xdp();
            }
            Ok(())
        }
        Err(error) if shared.run.io == Io::Auto => {
            notice(&format!("packets take the socket path: {error}"));
            Ok(())
        }
        Err(error) => Err(error),
    }
}
