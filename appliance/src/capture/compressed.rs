//! Compressed captures: gzip (RFC 1952) and Zstandard (RFC 8878).
//!
//! A stream is decompressed as it is read. The decompressed file is never held in memory: the
//! memory is that of the formats' windows, 32 KiB and at most [`MAX_WINDOW`], regardless of how far
//! a file expands. If a Zstandard frame is truncated, the decoder withholds up to one window of its
//! data.

use std::io::{self, BufReader, Cursor, ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window of a Zstandard frame: 128 MiB, above which `zstd` also needs `--long`.
const MAX_WINDOW: u64 = 128 << 20;

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstandard,
}

impl Compression {
    /// Recognizes a compression format by the first bytes of a file.
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Some(Self::Zstandard)
            }
            _ => None,
        }
    }
}

/// A source of bytes that a reader can own.
pub(super) type Source = Box<dyn Read + Send>;

/// Returns the decompressed contents of `source`, and the compression. An uncompressed source is
/// returned unchanged.
///
/// # Errors
/// Returns an error if the source cannot be read.
pub(super) fn decompressed(mut source: Source) -> io::Result<(Source, Option<Compression>)> {
    let mut head = Vec::with_capacity(4);
    source.by_ref().take(4).read_to_end(&mut head)?;
    let compression = Compression::of(&head);
    let whole = Cursor::new(head).chain(source);
    let source: Source = match compression {
        None => Box::new(whole),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(whole)),
        Some(Compression::Zstandard) => Box::new(Zstandard::new(whole)),
    };
    Ok((source, compression))
}

/// Reader that records whether its source has ended.
struct Watched<R> {
    source: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(room)?;
        self.ended |= count == 0 && !room.is_empty();
        Ok(count)
    }
}

/// Decompresses the frames of a Zstandard stream one after the other.
struct Zstandard<R> {
    source: Watched<BufReader<R>>,
    decoder: FrameDecoder,
    /// Whether the decoder is inside a frame.
    in_frame: bool,
}

impl<R: Read> Zstandard<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self {
            source: Watched {
                source: BufReader::new(source),
                ended: false,
            },
            decoder,
            in_frame: false,
        }
    }

    /// Begins the next frame, after any skippable frames. Returns `false` at the end of the source.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            let mut first = [0];
            if self.source.read(&mut first)? == 0 {
                return Ok(false);
            }
            match self.decoder.reset(first.as_slice().chain(&mut self.source)) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped =
                        io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Checks a completely decompressed frame.
    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let stated = self.decoder.get_checksum_from_data();
        if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the checksum of a frame is wrong",
            ));
        }
        Ok(())
    }

    fn failed(&self, error: FrameDecoderError) -> io::Error {
        let kind = if self.source.ended {
            ErrorKind::UnexpectedEof
        } else {
            ErrorKind::InvalidData
        };
        io::Error::new(kind, error)
    }
}

impl<R: Read> Read for Zstandard<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            let count = self.decoder.read(room)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.is_finished() {
                self.end()?;
                continue;
            }
            let one = BlockDecodingStrategy::UptoBlocks(1);
            if let Err(error) = self.decoder.decode_blocks(&mut self.source, one) {
                return Err(self.failed(error));
            }
        }
    }
}
