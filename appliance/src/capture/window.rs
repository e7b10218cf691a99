//! The part of the file that is in memory.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use super::error::Fault;

/// Maximum length of a record or block with its header: 16 MiB, libpcap's own limit for a pcapng
/// block.
pub(crate) const MAX_BLOCK: usize = 16 << 20;

/// The buffer's initial size, which stays unless a record is larger.
const FIRST_CAPACITY: usize = 256 << 10;

/// A sliding window over a stream of bytes, which grows on demand up to [`MAX_BLOCK`].
///
/// The window grows with the bytes that arrive, not with declared lengths: a short file cannot make
/// it large.
pub(super) struct Window {
    source: Box<dyn Read + Send>,
    /// `memory[start..end]` holds the bytes that have been read and not consumed.
    memory: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes consumed, which is the file offset of `start`.
    consumed: u64,
}

impl Window {
    /// Returns an empty window at the start of `source`.
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self {
            source,
            memory: vec![0; FIRST_CAPACITY],
            start: 0,
            end: 0,
            consumed: 0,
        }
    }

    /// Returns the bytes that have been read and not consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Returns the file offset of the window's first byte.
    pub(super) fn offset(&self) -> u64 {
        self.consumed
    }

    /// Reads until the window holds `need` bytes, which is not more than [`MAX_BLOCK`].
    ///
    /// Returns `false` if the stream ended first; the window then holds the remaining bytes.
    pub(super) fn fill(&mut self, need: usize) -> Result<bool, Fault> {
        while self.end - self.start < need {
            if self.end == self.memory.len() && !self.make_room() {
                return Ok(false);
            }
            let room = self.memory.get_mut(self.end..).unwrap_or_default();
            match self.source.read(room) {
                Ok(0) => return Ok(false),
                Ok(count) => self.end = self.memory.len().min(self.end + count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        Ok(true)
    }

    /// Returns the meaning of a failed read. Only a decompressor reports a stream as truncated or
    /// invalid; a file of the system never does.
    fn failed(&self, source: io::Error) -> Fault {
        let offset = self.consumed;
        match source.kind() {
            ErrorKind::UnexpectedEof => {
                Fault::truncated(offset, "the compressed stream ends early")
            }
            ErrorKind::InvalidData | ErrorKind::InvalidInput => Fault::broken(
                offset,
                format!("the compressed stream is invalid: {source}"),
            ),
            _ => Fault::Read { offset, source },
        }
    }

    /// Moves the window past its first `count` bytes. Returns the range of these bytes in memory,
    /// which [`Window::kept`] can read until the next [`Window::fill`].
    pub(super) fn consume(&mut self, count: usize) -> Range<usize> {
        let begin = self.start;
        let count = count.min(self.end - self.start);
        self.start += count;
        self.consumed = self.consumed.saturating_add(count as u64);
        begin..self.start
    }

    /// Returns the bytes of a range that [`Window::consume`] returned.
    pub(super) fn kept(&self, range: Range<usize>) -> &[u8] {
        self.memory.get(range).unwrap_or_default()
    }

    /// Makes room after `end`; returns `false` if the buffer is full and has its largest size.
    fn make_room(&mut self) -> bool {
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            return true;
        }
        let larger = self.memory.len().saturating_mul(2).min(MAX_BLOCK);
        let grows = larger > self.memory.len();
        self.memory.resize(larger, 0);
        grows
    }

    /// Returns the buffer's size in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.memory.len()
    }
}
