//! Priority of threads: packets come first.
//!
//! An appliance has a worker for each processor, so that every other thread takes time from one.
//! The thread that serves observers has a lower priority, whatever the system gives the process.
//!
//! A thread that walks the table or sends packets keeps the priority of the workers: it holds locks
//! that workers need. With a lower priority, the system would stop it for tens of milliseconds with
//! such a lock. The thread that asks the store keeps it, too: packets are held for its answers.

use rustix::process::nice;

/// Steps of niceness by which a thread stands behind the workers: of a processor that both want, it
/// gets about a tenth.
const STEPS: i32 = 10;

/// Lets the workers run before the current thread, for its whole life. Of the locks of the packet
/// path, the thread may take those for the copy of a session, and for a report of asymmetric paths.
pub(super) fn stand_behind_workers() {
    // Linux takes the niceness of the thread, and everybody may raise it. A filter of system calls
    // may refuse: then the thread runs beside the workers, as it would without this.
    let _ = nice(STEPS);
}
