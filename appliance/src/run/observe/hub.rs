//! Thread between the workers and the clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::data_path::DataPath;
use super::super::supervise::supervise;
use super::asymmetry::Evidence;
use super::event::SessionFacts;
use super::switch::{Observers, Sent};
use crate::run::priority::stand_behind_workers;

/// Interval at which the thread checks whether it must end.
const LOOK: Duration = Duration::from_millis(100);
/// Interval between two readings of the report of asymmetric paths.
const REPORT: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when `stop` is set, and begins again if it fails.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn start(data_path: Arc<DataPath>, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("observe".to_owned())
        .spawn(move || {
            stand_behind_workers();
            let observers = &data_path.shared.observers;
            let Some(events) = observers.take_receiver() else {
                return;
            };
            distribute(observers, &events, &stop, |events| {
                run(&data_path, events, &stop);
            });
        })
}

/// Calls `run` with the receiver until it returns; again, after a failure that is counted.
pub(super) fn distribute(
    observers: &Observers,
    events: &Receiver<Sent>,
    stop: &AtomicBool,
    mut run: impl FnMut(&Receiver<Sent>),
) {
    let failed = || observers.count_failure();
    supervise("observe", stop, failed, |_| run(events));
}

fn run(data_path: &DataPath, events: &Receiver<Sent>, stop: &AtomicBool) {
    let shared = &data_path.shared;
    let mut evidence = Evidence::default();
    let mut next_report = Instant::now() + REPORT;
    while !stop.load(Ordering::Relaxed) {
        match events.recv_timeout(LOOK) {
            Ok(mut sent) => {
                sent.event.look_up(|id| {
                    let detail = shared.engine.inspect(id, Instant::now())?;
                    Some(SessionFacts::of(&detail.record))
                });
                shared.observers.pass_on(sent);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if now >= next_report {
            next_report = now + REPORT;
            for sent in evidence.news(&shared.engine.asymmetry(), now) {
                shared.observers.pass_on(sent);
            }
        }
    }
}
