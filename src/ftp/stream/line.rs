//! Lines of a stream and their ends.

use super::Limits;
use crate::packet::SeqNum;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes. Of a line that is too long, the first [`Limits::line`].
    pub bytes: &'a [u8],
    /// Whether the line is complete.
    pub whole: bool,
    /// Whether a line feed alone has ended it.
    pub bare_lf: bool,
    /// The number of the byte after its end.
    pub next: SeqNum,
}

/// Splits `bytes` at `at`; the second part is empty if `at` is beyond the end.
pub(super) fn cut(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

/// Returns the position after the end of the first line.
pub(super) fn line_end(bytes: &[u8], after_cr: bool, bare_lf: bool) -> Option<usize> {
    let mut previous = if after_cr { b'\r' } else { 0 };
    for (place, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' && (bare_lf || previous == b'\r') {
            return Some(place + 1);
        }
        previous = *byte;
    }
    None
}

/// End of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineEnd {
    /// None of its bytes was omitted.
    pub(super) whole: bool,
    pub(super) bare_lf: bool,
    pub(super) next: SeqNum,
}

/// Returns a line of these bytes, without its end.
pub(super) fn line_of<'b>(bytes: &'b [u8], end: LineEnd, limits: &Limits) -> Line<'b> {
    let LineEnd {
        whole,
        bare_lf,
        next,
    } = end;
    let whole = whole && bytes.len() <= limits.line;
    let bytes = if whole {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        line.strip_suffix(b"\r").unwrap_or(line)
    } else {
        cut(bytes, limits.line).0
    };
    Line {
        bytes,
        whole,
        bare_lf,
        next,
    }
}
