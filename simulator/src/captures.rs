//! Captures as a source of packets.

use std::error::Error;
use std::path::Path;

use super::flow::Side;
use super::sender::Sender;

/// Error of a capture that cannot be read.
pub type CaptureError = Box<dyn Error + Send + Sync>;

/// Reads captures for the simulator, which itself has no file formats.
pub trait Captures {
    /// Calls `each` with every IP packet of a capture, in order, until it returns false.
    ///
    /// With `decapsulate`, packets inside GENEVE replace the ones around them. Frames without an IP
    /// packet are skipped.
    ///
    /// # Errors
    /// Returns an error if the capture cannot be read to its end; `each` has been called for the
    /// readable packets.
    fn for_each_packet(
        &self,
        path: &Path,
        decapsulate: bool,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), CaptureError>;
}

/// One capture, sent a number of times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Playback<'a> {
    /// Path of the capture.
    pub(super) path: &'a Path,
    /// Number of times that the capture is sent.
    pub(super) loops: u64,
    /// Whether packets inside GENEVE are sent instead of the ones around them.
    pub(super) decapsulate: bool,
}

impl Playback<'_> {
    /// Sends the IP packets in their order. Each packet waits for those before it in the other
    /// direction of its flow (see [`super::turns`]).
    ///
    /// Every loop repeats the connections, from their previous ports. All packets enter at the
    /// client's side, since a capture has no sides.
    ///
    /// # Errors
    /// Returns an error if the capture cannot be read to its end; the readable packets have been
    /// sent.
    pub(super) fn send(
        &self,
        captures: &dyn Captures,
        sender: &mut Sender<'_>,
    ) -> Result<(), CaptureError> {
        for _ in 0..self.loops {
            let mut over = false;
            captures.for_each_packet(self.path, self.decapsulate, &mut |packet| {
                over = !sender.send_in_turn(0, Side::Client, packet);
                !over
            })?;
            if over {
                return Ok(());
            }
        }
        sender.send_kept(0, Side::Client);
        Ok(())
    }
}
