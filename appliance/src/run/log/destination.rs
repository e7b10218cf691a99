//! Destinations of the session log.

use std::io;
use std::path::Path;

use super::super::settings::{LogOutput, LogSettings};
use super::batch::{Batch, Written};
use super::counters::LogCounters;
use super::formats::Formatter;
use super::ipfix::Exporter;
use super::output::{self, Output};
use super::syslog::Syslog;

/// Open destination.
pub(crate) enum Destination {
    /// A file, device, pipe or standard output.
    File(Output),
    /// A receiver of syslog messages.
    Syslog(Box<Syslog>),
    /// A collector of IPFIX.
    Ipfix(Exporter),
}

/// Opens the destination of the settings. A receiver need not be there yet.
///
/// # Errors
/// Returns an error if the file cannot be written, the certificates for TLS cannot be read, or the
/// system refuses a socket.
pub(crate) fn open(settings: &LogSettings) -> io::Result<Destination> {
    let header = Formatter::new(settings).header();
    Ok(match &settings.output {
        LogOutput::Off => {
            Destination::File(output::open(Path::new("/dev/null"), settings, header)?)
        }
        LogOutput::Stdout => Destination::File(output::open_stdout(header)?),
        LogOutput::File(path) => Destination::File(output::open(path, settings, header)?),
        LogOutput::Syslog { transport, address } => {
            Destination::Syslog(Box::new(Syslog::new(*transport, address, settings)?))
        }
        LogOutput::Ipfix(address) => Destination::Ipfix(Exporter::new(address)),
    })
}

impl Destination {
    /// Returns the bytes that end an item.
    pub(super) const fn item_end(&self) -> &'static [u8] {
        match self {
            Self::File(_) => b"\n",
            Self::Syslog(_) | Self::Ipfix(_) => b"",
        }
    }

    /// Writes items, and counts those that it wrote or dropped. A line of which a part was written
    /// is counted by a later call.
    pub(super) fn write(&mut self, batch: &Batch, counters: &LogCounters) -> Written {
        match self {
            Self::File(output) => output.write(batch.bytes(), counters),
            Self::Syslog(_) | Self::Ipfix(_) if batch.len() == 0 => Written {
                items: 0,
                result: Ok(()),
            },
            Self::Syslog(syslog) => syslog.write(batch, counters),
            Self::Ipfix(exporter) => exporter.write(batch, counters),
        }
    }

    /// Opens what is not open, without anything to write.
    ///
    /// # Errors
    /// Returns an error if nothing could be written now.
    pub(super) fn probe(&mut self, counters: &LogCounters) -> io::Result<()> {
        let nothing = Batch::default();
        let written = match self {
            Self::File(output) => output.write(nothing.bytes(), counters),
            Self::Syslog(syslog) => syslog.write(&nothing, counters),
            Self::Ipfix(exporter) => exporter.write(&nothing, counters),
        };
        written.result
    }

    /// Returns whether a part of a line was written.
    pub(super) fn has_begun(&self) -> bool {
        match self {
            Self::File(output) => output.has_begun(),
            Self::Syslog(_) | Self::Ipfix(_) => false,
        }
    }

    /// Gives up the unwritten rest of a line.
    pub(super) fn give_up(&mut self, counters: &LogCounters) {
        if let Self::File(output) = self {
            output.give_up(counters);
        }
    }
}
