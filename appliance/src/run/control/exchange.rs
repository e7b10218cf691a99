//! Request, with the client that waits for the answer.

use std::io;
use std::time::Instant;

use crate::run::appliance::Appliance;
use crate::run::protocol::Reply;

/// Request that is being answered.
pub(super) struct Exchange<'a> {
    pub(super) appliance: &'a Appliance,
    /// Time of the request.
    pub(super) now: Instant,
    writer: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
}

impl<'a> Exchange<'a> {
    /// Begins an answer at the current time. `writer` sends a line to the client.
    pub(super) fn new(
        appliance: &'a Appliance,
        writer: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
    ) -> Self {
        Self {
            appliance,
            now: Instant::now(),
            writer,
        }
    }

    /// Writes a line of the answer.
    ///
    /// # Errors
    /// Returns an error if the client does not read.
    pub(super) fn put(&mut self, reply: &Reply) -> io::Result<()> {
        (self.writer)(reply)
    }
}

/// Returns the last line of an answer.
pub(super) fn done(count: usize, text: Option<String>) -> Reply {
    Reply::Done {
        count: count as u64,
        text,
    }
}
