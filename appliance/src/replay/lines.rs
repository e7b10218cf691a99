//! Results of a replay as JSON lines.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::error::ReplayError;
use crate::output;

/// File of JSON lines; writes nothing without a path.
pub(super) struct Lines {
    name: String,
    out: Option<BufWriter<Box<dyn Write>>>,
}

impl Lines {
    /// Creates the file, if a path is given.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub(super) fn create(path: Option<&Path>) -> Result<Self, ReplayError> {
        let name = path.map(output::name).unwrap_or_default();
        let out = match path.map(output::create).transpose() {
            Ok(out) => out.map(BufWriter::new),
            Err(source) => return Err(ReplayError::Output { name, source }),
        };
        Ok(Self { name, out })
    }

    /// Writes a row as a line.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn row(&mut self, row: &impl serde::Serialize) -> Result<(), ReplayError> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        serde_json::to_writer(&mut *out, row)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|source| ReplayError::Output {
                name: self.name.clone(),
                source,
            })
    }

    /// Flushes the buffer.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn finish(mut self) -> Result<(), ReplayError> {
        match &mut self.out {
            Some(out) => out.flush().map_err(|source| ReplayError::Output {
                name: self.name,
                source,
            }),
            None => Ok(()),
        }
    }
}
