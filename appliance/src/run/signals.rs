//! SIGTERM and SIGINT end the appliance after its drain time, a second one at once; SIGHUP reads the configuration file again.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::operations::Plant;

/// Takes the signals from here on, on a thread that ends when the handle is closed.
///
/// # Errors
/// The system does not let us.
pub(crate) fn start(plant: Arc<Plant>) -> io::Result<(Handle, JoinHandle<()>)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let handle = signals.handle();
    let take = move || {
        for signal in signals.forever() {
            if signal != SIGHUP {
                plant.end();
                continue;
            }
            match plant.reload() {
                Ok(done) => crate::complain(&format!("reload: {done}")),
                Err(error) => {
                    crate::complain(&format!("reload refused, the old configuration goes on: {error}"))
                }
            }
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(take)?;
    Ok((handle, thread))
}
