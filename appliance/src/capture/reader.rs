//! Reading a capture of either format.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::compressed::decompressed;
use super::error::{CaptureError, Fault};
use super::link::LinkType;
use super::pcap::Pcap;
use super::pcapng::{self, Pcapng};
use super::window::Window;

/// A frame of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Number of the frame in the file, from 1.
    pub(crate) number: u64,
    /// Time since the Unix epoch, to the nanosecond.
    ///
    /// The time is taken from the file unchecked, and saturates: times may run backward, and may be
    /// anything up to [`Duration::MAX`]. Use saturating differences, and never add a time to an
    /// `Instant` unchecked. A pcapng simple packet has no time of its own and gets that of the
    /// frame before it.
    pub(crate) time: Duration,
    /// Link type: the header at the start of `bytes`.
    pub(crate) link: LinkType,
    /// The captured bytes.
    pub(crate) bytes: &'a [u8],
    /// The frame's length on the wire, in bytes; never less than `bytes.len()`.
    pub(crate) wire_len: u32,
    /// The interface: its number within the pcapng section, from 0. Always 0 in a pcap.
    pub(crate) interface: u32,
}

impl Frame<'_> {
    /// Returns the number of bytes at the frame's end that were not captured.
    pub(crate) fn cut(&self) -> usize {
        (self.wire_len as usize).saturating_sub(self.bytes.len())
    }
}

enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// Reader of the frames of a pcap or pcapng capture, in file order.
///
/// Reads pcap of the versions 2.0 to 2.4 in both byte orders with microseconds or nanoseconds, and
/// pcapng with any number of sections, in either byte order, and interfaces. Both may be compressed
/// with gzip or Zstandard. A pcap's time zone correction, which all writers set to 0, is ignored.
pub(crate) struct CaptureReader {
    name: String,
    total_len: Option<u64>,
    window: Window,
    format: Format,
    frames: u64,
    ended: bool,
}

impl CaptureReader {
    /// Opens the capture at `path`, or standard input if `path` is `-`, and reads the file header.
    ///
    /// # Errors
    /// Returns [`CaptureError::Io`] if the file cannot be opened, [`CaptureError::NotACapture`] if
    /// it does not begin like a capture, and the errors of [`CaptureReader::next`] for its header.
    pub(crate) fn open(path: &Path) -> Result<Self, CaptureError> {
        if path.as_os_str() == "-" {
            return Self::new("standard input".to_owned(), Box::new(io::stdin()), None);
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| CaptureError::Io {
            name: name.clone(),
            source,
        })?;
        let total_len = file
            .metadata()
            .ok()
            .filter(|about| about.is_file())
            .map(|about| about.len());
        Self::new(name, Box::new(file), total_len)
    }

    /// Returns a reader of `source`; errors refer to it as `name`.
    pub(super) fn new(
        name: String,
        source: Box<dyn Read + Send>,
        total_len: Option<u64>,
    ) -> Result<Self, CaptureError> {
        let (source, compression) = match decompressed(source) {
            Ok(opened) => opened,
            Err(source) => return Err(Fault::Read { offset: 0, source }.of(&name)),
        };
        let (name, total_len) = match compression {
            // Offsets are those of the decompressed stream, and its length is not known.
            Some(_) => (format!("{name}, decompressed"), None),
            None => (name, total_len),
        };
        let mut window = Window::new(source);
        match detect(&mut window) {
            Ok(format) => Ok(Self {
                name,
                total_len,
                window,
                format,
                frames: 0,
                ended: false,
            }),
            Err(fault) => Err(fault.of(&name)),
        }
    }

    /// Returns the next frame; `None` at the end of the capture.
    ///
    /// # Errors
    /// Returns [`CaptureError::Truncated`], [`CaptureError::Broken`] or [`CaptureError::Read`]
    /// once. The reader cannot find the next record after a broken one, so every later call returns
    /// `None`.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        let located = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.window),
            Format::Pcapng(pcapng) => pcapng.next(&mut self.window),
        };
        let located = match located {
            Ok(Some(located)) => located,
            Ok(None) => {
                self.ended = true;
                return Ok(None);
            }
            Err(fault) => {
                self.ended = true;
                return Err(fault.of(&self.name));
            }
        };
        self.frames += 1;
        let bytes = self.window.kept(located.data);
        Ok(Some(Frame {
            number: self.frames,
            time: located.time,
            link: located.link,
            bytes,
            wire_len: located
                .wire_len
                .max(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            interface: located.interface,
        }))
    }

    /// Returns the number of bytes consumed so far, after decompression: everything up to and
    /// including the last returned frame.
    pub(crate) fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// Returns the capture's length in bytes, if it is a regular file that is not compressed.
    pub(crate) fn total_len(&self) -> Option<u64> {
        self.total_len
    }

    /// Returns the size of the reader's buffer in bytes.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
        self.window.capacity()
    }
}

/// Detects the format by the first four bytes, and reads the file header.
fn detect(window: &mut Window) -> Result<Format, Fault> {
    window.fill(4)?;
    match window.bytes() {
        [] => Err(Fault::truncated(0, "the file is empty")),
        bytes if bytes.starts_with(&pcapng::SECTION_HEADER_BYTES) => {
            Pcapng::open(window).map(Format::Pcapng)
        }
        bytes if bytes.len() >= 4 => Pcap::open(window).map(Format::Pcap),
        bytes => Err(Fault::truncated(
            0,
            format!(
                "a file header begins with 4 bytes, {} are there",
                bytes.len()
            ),
        )),
    }
}
