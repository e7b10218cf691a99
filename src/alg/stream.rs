//! One direction of a TCP stream, put together to lines.
//!
//! Segments go in as they come: cut anywhere, sent again, overlapping, out of order or missing. Lines come out, each
//! once, whole and in order.
//!
//! What lies ahead of a hole is kept, within a [window](Limits::window) and a number of [ranges](Limits::ranges). A
//! hole that the receiver has acknowledged will not be filled any more: it is a [`Trouble::Gap`], and what follows it
//! counts from the next line's beginning on. Of bytes that come twice the first copy stays; if the second one differs,
//! nobody here knows which one the receiver took. Then the line that holds them does not count, and a line's end among
//! them is none. This is seen as long as the bytes are kept: while they wait behind a hole, or belong to a line that
//! has not ended.
//!
//! A stream that is [guarded](Stream::guard) knows of each segment beforehand whether it can read it whole
//! ([`Stream::fit`]), so that one that it cannot read need not pass. What was read is kept until
//! the receiver has acknowledged it: who sends it again must send the same, since the receiver may
//! not have got the first copy. A guarded stream that is taken up in its middle hands out the
//! [rest](Piece::Rest) of the line that it begins in, so that somebody can look at what passes.
//!
//! A line that starts in the middle of a segment and one that starts a segment are the same thing, and what starts a
//! segment but not a line is no line. That is all the defence there is against replies that an attacker makes to begin
//! a segment (CERT VU#328867) and against requests made to look like commands (NAT slipstreaming).

mod kept;
mod line;

pub use self::line::Line;
use self::line::{LineEnd, cut, line_end, line_of};
use crate::packet::SeqNum;

#[cfg(test)]
mod tests;

/// How the lines of one direction are put together, and in how much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest line, its end included, in bytes.
    pub line: usize,
    /// How far ahead of a hole bytes are kept, in bytes; also the size of the memory they take.
    pub window: usize,
    /// How many separate ranges of bytes are kept ahead of holes.
    pub ranges: usize,
    /// Does a line feed without a carriage return end a line? A carriage return alone never does.
    pub bare_lf: bool,
}

/// What can be wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Bytes are missing, and with them the lines that they belong to.
    Gap,
    /// The stream's beginning was not seen: its first line is missing.
    MidStream,
    /// Bytes came again and were others; the lines that they belong to will be missing.
    Conflict,
    /// A segment was not kept: too far ahead, or too many holes before it. It is missing if it is not sent again.
    Overflow,
}

/// What comes out of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A line.
    Line(Line<'a>),
    /// The rest of a line whose beginning was not read. Only a guarded stream has it.
    Rest(Line<'a>),
    /// Something is wrong.
    Trouble(Trouble),
}

/// Whether a guarded stream can read a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The segment can be read, now or once the hole before it is filled.
    Fits,
    /// The segment may be other than what passed in its place.
    Differs,
    /// There is no room until something is acknowledged, or a hole is filled.
    NoRoom,
    /// The segment begins before the first byte that was seen, and nothing shows that it has come.
    BeforeStart,
}

/// The capacity of buffers grows by a multiple of so many bytes.
const GRAIN: usize = 64;

/// Bytes that wait for those before them: from `start` to before `end`, counted from the next byte in order.
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
    /// Behind the last byte of the stream, once a FIN was seen.
    end: Option<SeqNum>,
    /// Where the first and behind the last byte are that came twice with different values.
    suspect: Option<(SeqNum, SeqNum)>,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// What waits for bytes before it, starting at `next`; only what is in `ranges` has a meaning.
    buffer: Vec<u8>,
    /// Sorted, apart from each other, none at 0.
    ranges: Vec<Range>,
    /// Bytes in order have been read.
    begun: bool,
    /// What comes belongs to a line that does not count.
    skipping: bool,
    /// `line` is full and the line has not ended.
    too_long: bool,
    /// The last byte in order was a carriage return.
    after_cr: bool,
    /// What was read is kept in `sent`.
    guarded: bool,
    /// The bytes right before `next`; those from `sent_from` on are not acknowledged.
    sent: Vec<u8>,
    /// See `sent`.
    sent_from: usize,
    /// First byte of a guarded stream that was taken up in its middle, until it is acknowledged.
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
    /// Says where the stream begins; ignored once payload has come.
    pub fn begins(&mut self, first: SeqNum) {
        if !self.begun && self.ranges.is_empty() {
            self.next = Some(first);
        }
    }

    /// The number of the next byte, if a line begins there and nothing waits behind it.
    #[must_use]
    pub fn line_start(&self) -> Option<SeqNum> {
        let between = self.line.is_empty() && self.ranges.is_empty() && !self.skipping && !self.too_long;
        self.next.filter(|_| between && self.suspect.is_none())
    }

    /// Says where the stream ends: behind its last byte, where the FIN is.
    pub fn ends(&mut self, end: SeqNum) {
        self.end = Some(end);
    }

    /// Sets whether nothing passes but what [fits](Stream::fit). Returns whether a line that is too
    /// long is given up: it has passed unguarded, and does not count against what follows.
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

    /// Whether the line that has not ended is too long already.
    #[must_use]
    pub const fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// The next byte in order.
    #[must_use]
    pub const fn next(&self) -> Option<SeqNum> {
        self.next
    }

    /// Takes a segment's payload, whose first byte has the number `seq`.
    pub fn segment(&mut self, seq: SeqNum, payload: &[u8], limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) {
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

    /// The receiver has all bytes before `ack`: what is missing before it stays missing.
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

    /// What has come of the line is void, and the rest of it will be.
    fn lose_line(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        if !self.skipping {
            out(Piece::Trouble(Trouble::Gap));
        }
        self.skipping = true;
        self.too_long = false;
        self.after_cr = false;
        self.line = Vec::new();
    }

    /// Reads bytes in order, those apart that came twice.
    fn read(&mut self, mut bytes: &[u8], limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let Some(next) = self.next else { return };
            let (doubtful, run) = match self.suspect {
                Some((_, end)) if !end.after(next) => {
                    self.suspect = None;
                    continue;
                }
                Some((start, _)) if start.after(next) => (false, start.distance_from(next) as usize),
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
                next: self.next.map_or(SeqNum(0), |next| next.sub(rest.len() as u32)),
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
                // What is too long of such a line passes: it ends no announcement.
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
