//! Signals: SIGTERM and SIGINT end the appliance after its drain time, a second one immediately;
//! SIGHUP reloads the configuration file. The thread that reloads also takes rules out of force
//! when they expire.
//!
//! Reading a file may block, so a thread of its own reads them: the thread that takes the signals
//! never waits.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::appliance::Appliance;
use crate::output::notice;

/// Delay before another attempt to take an expired rule out of force.
const RETRY: Duration = Duration::from_secs(60);

/// Handles the signals from now on, on threads that end when the handle is closed.
///
/// # Errors
/// Returns an error if the system refuses a signal handler or a thread.
pub(crate) fn start(appliance: &Arc<Appliance>) -> io::Result<(Handle, [JoinHandle<()>; 2])> {
    // One reload in progress and one that waits: the waiting one reads every later change of the
    // file.
    let (ask, asked) = sync_channel(1);
    let reloader = {
        let appliance = Arc::clone(appliance);
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || reload(&appliance, &asked))?
    };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    let appliance = Arc::clone(appliance);
    let take = move || {
        for signal in signals.forever() {
            if signal != SIGHUP {
                appliance.end();
            } else if ask.try_send(()).is_err() {
                notice("reload: one is in progress, and another one is waiting already");
            }
        }
    };
    let taker = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(take)?;
    Ok((handle, [taker, reloader]))
}

fn reload(appliance: &Appliance, asked: &Receiver<()>) {
    let mut wait = appliance.until_next_expiry(SystemTime::now());
    loop {
        // The appliance logs the outcome.
        match asked.recv_timeout(wait) {
            Ok(()) => drop(appliance.reload()),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(Err(_)) = appliance.expire_rules(SystemTime::now()) {
                    // The cause will not disappear immediately.
                    wait = RETRY;
                    continue;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        wait = appliance.until_next_expiry(SystemTime::now());
    }
}
