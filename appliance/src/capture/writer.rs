//! Writing a capture.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use super::error::CaptureError;
use super::limits::{LINKTYPE_RAW, MAX_PACKET};
use super::pcapng_writer;
use crate::output;

/// Magic number of a pcap whose timestamps are in nanoseconds (draft-ietf-opsawg-pcap, section 4).
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// pcap's version, major and minor (draft-ietf-opsawg-pcap, section 4).
const VERSION: (u16, u16) = (2, 4);

/// The format of a written capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pcap,
    /// A pcapng, with a comment on each packet.
    Pcapng,
}

/// Writes IP packets to a capture: little endian, nanoseconds, link type 101 (raw IP). A path that
/// ends in `.pcapng` selects pcapng, whose packets have comments; any other path selects pcap.
///
/// Writes are buffered. Only [`CaptureWriter::finish`] reports whether all of them reached the
/// file.
#[must_use = "a capture is whole only after `finish`"]
pub(crate) struct CaptureWriter {
    name: String,
    form: Form,
    out: BufWriter<Box<dyn Write>>,
}

impl CaptureWriter {
    /// Creates the file, or empties it, and writes the file header. The path `-` means standard
    /// output.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if the file cannot be created or written.
    pub(crate) fn create(path: &Path) -> Result<Self, CaptureError> {
        let is_pcapng = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"));
        Self::create_as(path, if is_pcapng { Form::Pcapng } else { Form::Pcap })
    }

    /// Creates a pcapng, whatever its name.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if the file cannot be created or written.
    pub(crate) fn create_pcapng(path: &Path) -> Result<Self, CaptureError> {
        Self::create_as(path, Form::Pcapng)
    }

    fn create_as(path: &Path, form: Form) -> Result<Self, CaptureError> {
        let name = output::name(path);
        let out = output::create(path).map_err(|source| CaptureError::Io {
            name: name.clone(),
            source,
        })?;
        let mut writer = Self {
            name,
            form,
            out: BufWriter::new(out),
        };
        writer.header().map_err(|source| writer.error(source))?;
        Ok(writer)
    }

    /// Returns whether packets keep their comments.
    pub(crate) fn keeps_comments(&self) -> bool {
        self.form == Form::Pcapng
    }

    /// Appends a packet captured at `time` since the Unix epoch, with `wire_len` bytes on the wire:
    /// more than `packet` has if it was truncated.
    ///
    /// A pcap counts seconds in 32 bits: a time after February 2106 is written as the last second
    /// that fits. A pcap has no comments.
    ///
    /// # Errors
    /// Returns [`CaptureError::Io`] if the file cannot be written, or if the packet is longer than
    /// [`MAX_PACKET`]. Such a packet is omitted from a pcap, and truncated in a pcapng.
    pub(crate) fn write(
        &mut self,
        time: Duration,
        ip_bytes: &[u8],
        wire_len: usize,
        comment: &str,
    ) -> Result<(), CaptureError> {
        self.record(time, ip_bytes, wire_len, comment)
            .map_err(|source| self.error(source))
    }

    /// Flushes the buffer.
    ///
    /// # Errors
    /// Returns [`CaptureError::Io`] if the file cannot be written, as on a full disk.
    pub(crate) fn finish(mut self) -> Result<(), CaptureError> {
        self.flush()
    }

    /// Flushes the buffer; the capture goes on.
    ///
    /// # Errors
    /// Returns [`CaptureError::Io`] if the file cannot be written, as on a full disk.
    pub(crate) fn flush(&mut self) -> Result<(), CaptureError> {
        self.out.flush().map_err(|source| self.error(source))
    }

    fn header(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        if self.form == Form::Pcapng {
            return pcapng_writer::header(out);
        }
        out.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        out.write_all(&VERSION.0.to_le_bytes())?;
        out.write_all(&VERSION.1.to_le_bytes())?;
        out.write_all(&[0; 8])?; // time zone correction and accuracy, which every writer leaves 0
        out.write_all(&(MAX_PACKET as u32).to_le_bytes())?;
        out.write_all(&LINKTYPE_RAW.to_le_bytes())
    }

    fn record(
        &mut self,
        time: Duration,
        ip_bytes: &[u8],
        wire_len: usize,
        comment: &str,
    ) -> io::Result<()> {
        // A packet that was not forwarded may exceed the maximum length, and is truncated.
        let ip_bytes = match self.form {
            Form::Pcapng => ip_bytes.get(..MAX_PACKET).unwrap_or(ip_bytes),
            Form::Pcap => ip_bytes,
        };
        let length = u32::try_from(ip_bytes.len())
            .ok()
            .filter(|_| ip_bytes.len() <= MAX_PACKET);
        let Some(length) = length else {
            let what = format!(
                "a packet of {} bytes; a capture takes {MAX_PACKET}",
                ip_bytes.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let wire_len = u32::try_from(wire_len).unwrap_or(u32::MAX).max(length);
        if self.form == Form::Pcapng {
            return pcapng_writer::packet(&mut self.out, time, ip_bytes, wire_len, comment);
        }
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        for field in [seconds, time.subsec_nanos(), length, wire_len] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(ip_bytes)
    }

    fn error(&self, source: io::Error) -> CaptureError {
        CaptureError::Io {
            name: self.name.clone(),
            source,
        }
    }
}
