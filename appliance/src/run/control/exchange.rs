//! Request, with the client that waits for the answer.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use portcullis::SessionRecord;

use crate::run::appliance::Appliance;
use crate::run::protocol::Reply;
use crate::run::rates::{Look, Moved, RateMemory};

/// Request that is being answered.
pub(super) struct Exchange<'a> {
    pub(super) appliance: &'a Appliance,
    /// Time of the request.
    pub(super) now: Instant,
    /// Memory of rates, which a client holds from its first request for rates on.
    rates: &'a mut Option<Arc<RateMemory>>,
    writer: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
}

impl<'a> Exchange<'a> {
    /// Begins an answer at the current time. `writer` sends a line to the client.
    pub(super) fn new(
        appliance: &'a Appliance,
        rates: &'a mut Option<Arc<RateMemory>>,
        writer: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
    ) -> Self {
        Self {
            appliance,
            now: Instant::now(),
            rates,
            writer,
        }
    }

    /// Calls `each` with every session and its traffic since an earlier look, if that is known.
    pub(super) fn measure(&mut self, each: impl FnMut(&SessionRecord, Option<Moved>)) -> Look {
        let appliance = self.appliance;
        let rates = self.rates.get_or_insert_with(|| appliance.rates.hold());
        rates.walk(&appliance.data_path.shared.engine, each)
    }

    /// Writes a line of the answer.
    ///
    /// # Errors
    /// Returns an error if the client does not read.
    pub(super) fn put(&mut self, reply: &Reply) -> io::Result<()> {
        (self.writer)(reply)
    }
}

/// Answer to a request of another part of the appliance.
pub(in crate::run) struct Answer {
    pub(in crate::run) rows: Vec<Reply>,
    /// Last line: `Done` or `Error`.
    pub(in crate::run) last: Reply,
}

impl Answer {
    /// Returns the answer that `write` sends to its writer. An error is its last line.
    pub(super) fn of(
        write: impl FnOnce(&mut dyn FnMut(&Reply) -> io::Result<()>) -> io::Result<Reply>,
    ) -> Self {
        let mut rows = Vec::new();
        let last = write(&mut |reply| {
            rows.push(reply.clone());
            Ok(())
        });
        Self {
            last: last.unwrap_or_else(|error| Reply::Error(error.to_string())),
            rows,
        }
    }
}

/// Returns the last line of an answer.
pub(super) fn done(count: usize, text: Option<String>) -> Reply {
    Reply::Done {
        count: count as u64,
        text,
    }
}
