//! One direction of a TCP stream, assembled into lines.
//!
//! The input is segments as they arrive: split anywhere, retransmitted, overlapping, out of order
//! or missing. The output is lines, each once, complete and in order.
//!
//! Bytes after a hole are kept, within a [window](Limits::window) and a number of
//! [ranges](Limits::ranges). A hole that the receiver has acknowledged will no longer be filled: it
//! is a [`Trouble::Gap`], and later bytes count from the beginning of the next line. If bytes
//! arrive twice, the first copy is kept. If the second copy differs, the copy that the receiver
//! accepted is unknown. Then the line that holds them does not count, and a line end among them is
//! ignored. Such a conflict is detected as long as the bytes are kept: while they wait for a hole
//! to be filled, or belong to an unfinished line.
//!
//! A [guarded](Stream::guard) stream checks in advance whether it can read a complete segment
//! ([`Stream::fit`]), so that an unreadable segment need not pass. Bytes that were read are kept
//! until the receiver has acknowledged them: a retransmission must be identical, since the receiver
//! may not have received the first copy. A guarded stream that is adopted midstream returns the
//! [rest](Piece::Rest) of the line in which it begins, so that the passing bytes can be checked.
//!
//! Lines are found independently of segments: the start of a segment does not start a line. This is
//! the only defense against replies that an attacker makes to begin a segment (CERT VU#328867) and
//! against requests made to look like commands (NAT slipstreaming).

mod kept;
mod line;

pub use self::line::Line;
use self::line::{LineEnd, cut, line_end, line_of};
use crate::packet::SeqNum;

#[cfg(test)]
mod tests;

/// Limits for the assembly of the lines of one direction, and for its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest line, its end included, in bytes.
    pub line: usize,
    /// Distance after a hole up to which bytes are kept, in bytes; also the size of their buffer.
    pub window: usize,
    /// Number of separate ranges of bytes that are kept after holes.
    pub ranges: usize,
    /// Whether a line feed without a carriage return ends a line. A carriage return alone never
    /// does.
    pub bare_lf: bool,
}

/// Fault of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Bytes are missing, and with them the lines that they belong to.
    Gap,
    /// The stream's beginning is unknown: its first line is missing.
    MidStream,
    /// Retransmitted bytes differ; the lines to which they belong will be missing.
    Conflict,
    /// A segment was not kept: too far ahead, or too many holes before it. The segment is missing
    /// if it is not retransmitted.
    Overflow,
}

/// Output of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line.
    Line(Line<'a>),
    /// The rest of a line whose beginning was not read. Only guarded streams return it.
    Rest(Line<'a>),
    /// A fault of the stream.
    Trouble(Trouble),
}

/// Whether a guarded stream can read a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The segment can be read, now or once the hole before it is filled.
    Fits,
    /// The segment may differ from the one that passed in its place.
    Differs,
    /// The stream has no room until data is acknowledged or a hole is filled.
    NoRoom,
    /// The segment begins before the first known byte, and nothing shows that it has arrived.
    BeforeStart,
}

/// The capacity of buffers grows by multiples of this number of bytes.
const GRAIN: usize = 64;

/// Bytes that wait for those before them: from `start` to before `end`, counted from the next byte
/// in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: usize,
    end: usize,
}

/// One direction of a control session.
#[derive(Debug, Default)]
pub struct Stream {
    /// The next byte in order; `None` before the first.
    next: Option<SeqNum>,
    /// Number after the last byte of the stream, once a FIN has passed.
    end: Option<SeqNum>,
    /// Start and end of the bytes that arrived twice with different values.
    suspect: Option<(SeqNum, SeqNum)>,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Bytes that wait for earlier ones, from `next` on; only those within `ranges` are valid.
    buffer: Vec<u8>,
    /// Sorted, apart from each other, none at 0.
    ranges: Vec<Range>,
    /// Bytes in order have been read.
    begun: bool,
    /// The bytes in order belong to a line that does not count.
    skipping: bool,
    /// `line` is full and the line has not ended.
    too_long: bool,
    /// The last byte in order was a carriage return.
    after_cr: bool,
    /// Bytes that were read are kept in `sent`.
    guarded: bool,
    /// The bytes right before `next`; those from `sent_from` on are not acknowledged.
    sent: Vec<u8>,
    /// See `sent`.
    sent_from: usize,
    /// First byte of a guarded stream that was adopted midstream, until it is acknowledged.
    floor: Option<SeqNum>,
}

/// Makes room for more bytes.
fn reserve(bytes: &mut Vec<u8>, more: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        bytes.reserve_exact(needed.next_multiple_of(GRAIN) - bytes.len());
    }
}

impl Stream {
    /// Sets the beginning of the stream; ignored once payload has arrived.
    pub fn begins(&mut self, first: SeqNum) {
        if !self.begun && self.ranges.is_empty() {
            self.next = Some(first);
        }
    }

    /// Returns the number of the next byte, if a line begins there and no later bytes wait.
    #[must_use]
    pub fn line_start(&self) -> Option<SeqNum> {
        let between =
            self.line.is_empty() && self.ranges.is_empty() && !self.skipping && !self.too_long;
        self.next.filter(|_| between && self.suspect.is_none())
    }

    /// Sets the end of the stream: the number after its last byte, where the FIN is.
    pub fn ends(&mut self, end: SeqNum) {
        self.end = Some(end);
    }

    /// Sets whether only segments that [fit](Stream::fit) pass. Returns whether a line that is too
    /// long is discarded: it has passed unguarded, and does not count against later lines.
    pub fn guard(&mut self, on: bool) -> bool {
        if on == self.guarded {
            return false;
        }
        self.guarded = on;
        let gives_up = on && core::mem::take(&mut self.too_long);
        self.skipping |= gives_up;
        if !on {
            self.forget_sent();
            self.floor = None;
        }
        if self.skipping {
            self.line = Vec::new();
        }
        gives_up
    }

    /// Returns whether the line that has not ended is too long already.
    #[must_use]
    pub const fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// Returns the next byte in order.
    #[must_use]
    pub const fn next(&self) -> Option<SeqNum> {
        self.next
    }

    /// Processes a segment's payload, whose first byte has the number `seq`.
    pub fn segment(
        &mut self,
        seq: SeqNum,
        payload: &[u8],
        limits: &Limits,
        out: &mut dyn FnMut(Piece<'_>),
    ) {
        if payload.is_empty() {
            return;
        }
        let next = match self.next {
            Some(next) => next,
            None => {
                self.next = Some(seq);
                self.skipping = true;
                self.floor = self.guarded.then_some(seq);
                out(Piece::Trouble(Trouble::MidStream));
                seq
            }
        };
        let (mut offset, mut bytes) = if seq.before(next) {
            let (past, fresh) = cut(payload, next.distance_from(seq) as usize);
            if self.contradicts_line(seq, next, past) {
                out(Piece::Trouble(Trouble::Conflict));
                self.lose_line(out);
            }
            (0, fresh)
        } else {
            (seq.distance_from(next) as usize, payload)
        };
        if offset == 0 && self.ranges.is_empty() {
            self.read(bytes, limits, out);
            return;
        }
        while !bytes.is_empty() {
            let (part, rest) = cut(bytes, limits.window.saturating_sub(offset));
            if part.is_empty() || !self.store(offset, part, limits, out) {
                out(Piece::Trouble(Trouble::Overflow));
                return;
            }
            let moved = self.drain(limits, out);
            if moved == 0 && !rest.is_empty() {
                out(Piece::Trouble(Trouble::Overflow));
                return;
            }
            offset = (offset + part.len()).saturating_sub(moved);
            bytes = rest;
        }
    }

    /// Records that the receiver has all bytes before `ack`: missing bytes before it stay missing.
    pub fn acknowledged(&mut self, ack: SeqNum, limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) {
        let ack = match self.end {
            Some(end) if ack.after(end) => end,
            _ => ack,
        };
        self.floor = self.floor.filter(|floor| ack.before(*floor));
        self.drop_acknowledged(ack);
        while let Some(next) = self.next
            && ack.after(next)
        {
            let behind = ack.distance_from(next) as usize;
            let missing = self
                .ranges
                .first()
                .map_or(behind, |range| range.start.min(behind))
                .max(1);
            self.begun = true;
            self.next = Some(next.add(missing as u32));
            self.shift(missing);
            self.lose_line(out);
            self.drain(limits, out);
        }
    }

    /// Discards the line so far, and marks the rest of it to be skipped.
    fn lose_line(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        if !self.skipping {
            out(Piece::Trouble(Trouble::Gap));
        }
        self.skipping = true;
        self.too_long = false;
        self.after_cr = false;
        self.line = Vec::new();
    }

    /// Reads bytes in order, separating those that arrived twice.
    fn read(&mut self, mut bytes: &[u8], limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let Some(next) = self.next else { return };
            let (doubtful, run) = match self.suspect {
                Some((_, end)) if !end.after(next) => {
                    self.suspect = None;
                    continue;
                }
                Some((start, _)) if start.after(next) => {
                    (false, start.distance_from(next) as usize)
                }
                Some((_, end)) => (true, end.distance_from(next) as usize),
                None => (false, bytes.len()),
            };
            let (part, rest) = cut(bytes, run);
            self.begun = true;
            self.next = Some(next.add(part.len() as u32));
            if self.guarded {
                reserve(&mut self.sent, part.len());
                self.sent.extend_from_slice(part);
            }
            if doubtful {
                self.lose_line(out);
            } else {
                self.lines(part, limits, out);
            }
            bytes = rest;
        }
    }

    fn lines(&mut self, mut bytes: &[u8], limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) {
        while let Some(end) = line_end(bytes, self.after_cr, limits.bare_lf) {
            let (head, rest) = cut(bytes, end);
            let after_cr = core::mem::take(&mut self.after_cr);
            bytes = rest;
            let mut end = LineEnd {
                whole: true,
                bare_lf: !(head.ends_with(b"\r\n") || after_cr && head == b"\n"),
                // All bytes that are read here lie before `next`.
                next: self
                    .next
                    .map_or(SeqNum(0), |next| next.sub(rest.len() as u32)),
            };
            if self.skipping {
                self.skipping = false;
                if self.guarded {
                    self.keep(head, limits);
                    end.whole = !core::mem::take(&mut self.too_long);
                    let line = core::mem::take(&mut self.line);
                    out(Piece::Rest(line_of(&line, end, limits)));
                }
            } else if self.line.is_empty() {
                out(Piece::Line(line_of(head, end, limits)));
            } else {
                self.keep(head, limits);
                end.whole = !core::mem::take(&mut self.too_long);
                let line = core::mem::take(&mut self.line);
                out(Piece::Line(line_of(&line, end, limits)));
            }
        }
        if let Some(last) = bytes.last() {
            self.after_cr = *last == b'\r';
            if !self.skipping {
                self.keep(bytes, limits);
            } else if self.guarded {
                self.keep(bytes, limits);
                // The excess of such a line passes, because it cannot complete an announcement.
                self.too_long = false;
            }
        }
    }

    fn keep(&mut self, bytes: &[u8], limits: &Limits) {
        let room = limits.line.saturating_sub(self.line.len());
        let (fits, over) = cut(bytes, room);
        reserve(&mut self.line, fits.len());
        self.line.extend_from_slice(fits);
        self.too_long |= !over.is_empty();
    }
}
