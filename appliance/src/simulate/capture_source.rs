//! The packets of a capture.

use std::path::Path;

use super::flow::Side;
use super::sender::Sender;
use crate::capture::{CaptureError, CaptureReader, decapsulate, ip_packet, pad_cut};

/// Sends the IP packets of a capture in their order, `loops` times; a packet waits for those of its flow's other direction before
/// it (see [`super::turns`]). A loop brings the same connections again, from the same ports, each behind the one before. What is
/// no IP, or cannot be taken out of its tunnel with `inside`, is left out. A packet's side is of no meaning here.
///
/// # Errors
/// The capture cannot be read to its end; what could be read has been sent.
pub(super) fn run(
    sender: &mut Sender<'_>,
    path: &Path,
    loops: u64,
    inside: bool,
) -> Result<(), CaptureError> {
    let mut scratch = Vec::new();
    for _ in 0..loops {
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
            if !sender.send_in_turn(0, Side::Client, packet) {
                return Ok(());
            }
        }
    }
    sender.send_kept(0, Side::Client);
    Ok(())
}
