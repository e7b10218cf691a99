//! `portcullis simulate`: runs the simulator with this package's reader of captures.

use std::path::Path;

use portcullis_simulator::{CaptureError, Captures, SimulateArgs, SimulateError};

use crate::capture::{CaptureReader, decapsulate, ip_packet, pad_cut};

/// Captures that the appliance can read.
struct CaptureFiles;

impl Captures for CaptureFiles {
    fn for_each_packet(
        &self,
        path: &Path,
        inside: bool,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), CaptureError> {
        let mut scratch = Vec::new();
        let mut reader = CaptureReader::open(path)?;
        while let Some(frame) = reader.next()? {
            let Ok(ip) = ip_packet(frame.link, frame.bytes) else {
                continue;
            };
            let whole = pad_cut(ip.bytes, frame.cut(), &mut scratch);
            let packet = match inside.then(|| decapsulate(whole.bytes)) {
                None | Some(Ok(None)) => whole.bytes,
                Some(Ok(Some(inner))) => inner.bytes,
                Some(Err(_)) => continue,
            };
            if !each(packet) {
                break;
            }
        }
        Ok(())
    }
}

/// Runs the simulator and prints its report on standard output.
///
/// # Errors
/// Returns the errors of [`portcullis_simulator::run`].
pub(crate) fn run(args: &SimulateArgs) -> Result<(), SimulateError> {
    portcullis_simulator::run(args, &CaptureFiles)
}
