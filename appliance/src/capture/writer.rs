//! Writing a capture.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use super::error::CaptureError;

/// The longest packet that is written, and the snap length that the file declares: 262,144 bytes, above which libpcap
/// refuses a record (`MAXIMUM_SNAPLEN`).
pub(crate) const MAX_PACKET: usize = 262_144;

/// Magic number of a pcap whose timestamps are in nanoseconds (draft-ietf-opsawg-pcap, section 4).
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// pcap's version, major and minor (draft-ietf-opsawg-pcap, section 4).
const VERSION: (u16, u16) = (2, 4);
/// `LINKTYPE_RAW`: a record begins with the IP header.
const LINKTYPE_RAW: u32 = 101;

/// Writes IP packets to a pcap file: little endian, nanoseconds, link type 101 (raw IP).
///
/// Writes are buffered. Only [`CaptureWriter::finish`] says that all of them reached the file.
#[must_use = "a capture is whole only after `finish`"]
pub(crate) struct CaptureWriter {
    name: String,
    out: BufWriter<File>,
}

impl CaptureWriter {
    /// Creates the file, or empties it, and writes the file header.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if the file cannot be created or written.
    pub(crate) fn create(path: &Path) -> Result<Self, CaptureError> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|source| CaptureError::Io {
            name: name.clone(),
            source,
        })?;
        let mut writer = Self {
            name,
            out: BufWriter::new(file),
        };
        writer.header().map_err(|source| writer.error(source))?;
        Ok(writer)
    }

    /// Appends a packet seen at `time` since the Unix epoch, whose length on the wire was `wire_len`: more than
    /// the bytes where it was cut.
    ///
    /// The format counts seconds in 32 bits: a time after February 2106 is written as the last second that fits.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if the file cannot be written, or if the packet is longer than [`MAX_PACKET`]; such a
    /// packet leaves no trace in the file.
    pub(crate) fn write(
        &mut self,
        time: Duration,
        ip_bytes: &[u8],
        wire_len: usize,
    ) -> Result<(), CaptureError> {
        self.record(time, ip_bytes, wire_len)
            .map_err(|source| self.error(source))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`CaptureError::Io`] if the file does not take it, as on a full disk.
    pub(crate) fn finish(mut self) -> Result<(), CaptureError> {
        self.out.flush().map_err(|source| self.error(source))
    }

    fn header(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        out.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        out.write_all(&VERSION.0.to_le_bytes())?;
        out.write_all(&VERSION.1.to_le_bytes())?;
        out.write_all(&[0; 8])?; // time zone correction and accuracy, which every writer leaves 0
        out.write_all(&(MAX_PACKET as u32).to_le_bytes())?;
        out.write_all(&LINKTYPE_RAW.to_le_bytes())
    }

    fn record(&mut self, time: Duration, ip_bytes: &[u8], wire_len: usize) -> io::Result<()> {
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
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let wire_len = u32::try_from(wire_len).unwrap_or(u32::MAX).max(length);
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
