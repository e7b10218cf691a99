//! Bytes that a stream keeps: those after a hole, and those that are not acknowledged.

use super::line::cut;
use super::{Fit, GRAIN, Limits, Piece, Range, Stream, Trouble, reserve};
use crate::packet::SeqNum;

/// Returns whether bytes from `seq` on, which lie before `next`, differ from the kept bytes right
/// before `next`.
fn contradicts(kept: &[u8], seq: SeqNum, next: SeqNum, past: &[u8]) -> bool {
    let begin = next.sub(kept.len() as u32);
    let (kept, past) = if seq.before(begin) {
        (
            kept,
            past.get(begin.distance_from(seq) as usize..)
                .unwrap_or_default(),
        )
    } else {
        (
            kept.get(seq.distance_from(begin) as usize..)
                .unwrap_or_default(),
            past,
        )
    };
    kept.iter().zip(past).any(|(first, second)| first != second)
}

impl Stream {
    /// Returns whether a segment can be read completely, now or once the hole before it is filled:
    /// retransmitted bytes are identical to the first copy, and there is room for the new ones.
    #[must_use]
    pub fn fit(&self, seq: SeqNum, payload: &[u8], limits: &Limits) -> Fit {
        let Some(next) = self.next else {
            return Fit::Fits;
        };
        if self.too_long {
            return Fit::Differs;
        }
        if self.floor.is_some_and(|floor| seq.before(floor)) {
            return Fit::BeforeStart;
        }
        let (offset, past, fresh) = if seq.before(next) {
            let (past, fresh) = cut(payload, next.distance_from(seq) as usize);
            (0, past, fresh)
        } else {
            (seq.distance_from(next) as usize, &[][..], payload)
        };
        let sent = self.unacknowledged();
        if self.contradicts_line(seq, next, past) || contradicts(sent, seq, next, past) {
            return Fit::Differs;
        }
        if fresh.is_empty() || offset == 0 && self.ranges.is_empty() && sent.is_empty() {
            return Fit::Fits;
        }
        let end = offset.saturating_add(fresh.len());
        if end.saturating_add(sent.len()) > limits.window {
            return Fit::NoRoom;
        }
        let apart = |range: &&Range| range.end < offset || range.start > end;
        if offset > 0 && self.ranges.iter().filter(apart).count() >= limits.ranges {
            return Fit::NoRoom;
        }
        let is_same = self.ranges.iter().all(|range| {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            from >= to || self.buffer.get(from..to) == fresh.get(from - offset..to - offset)
        });
        if is_same { Fit::Fits } else { Fit::Differs }
    }

    /// Returns the maximum number of bytes by which a segment makes the stream grow.
    #[must_use]
    pub fn growth(&self, seq: SeqNum, len: usize, limits: &Limits) -> usize {
        let ahead = match self.next {
            Some(next) if seq.after(next) => {
                let end = (seq.distance_from(next) as usize).saturating_add(len);
                let ranges =
                    limits.ranges.saturating_add(1).next_power_of_two() * size_of::<Range>();
                end.min(limits.window)
                    .saturating_sub(self.buffer.capacity())
                    + ranges
            }
            // Waiting bytes may be read with the segment.
            _ => 2 * self.buffer.len(),
        };
        // The line, and the bytes that are kept until they are acknowledged.
        ahead + 2 * len + 3 * GRAIN
    }

    /// Returns a kept byte: not acknowledged yet, or waiting for bytes before it.
    #[must_use]
    pub fn byte(&self, seq: SeqNum) -> Option<u8> {
        let next = self.next?;
        if seq.before(next) {
            let sent = self.unacknowledged();
            let place = sent.len().checked_sub(next.distance_from(seq) as usize)?;
            return sent.get(place).copied();
        }
        let place = seq.distance_from(next) as usize;
        let waits = self
            .ranges
            .iter()
            .any(|range| (range.start..range.end).contains(&place));
        if waits {
            self.buffer.get(place).copied()
        } else {
            None
        }
    }

    /// Returns the bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.line.capacity()
            + self.buffer.capacity()
            + self.sent.capacity()
            + self.ranges.capacity() * size_of::<Range>()
    }

    /// Discards the bytes that wait for missing ones.
    pub fn shed(&mut self) {
        self.buffer = Vec::new();
        self.ranges = Vec::new();
    }

    /// Returns the bytes right before `next` that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> &[u8] {
        self.sent.get(self.sent_from..).unwrap_or_default()
    }

    pub(super) fn forget_sent(&mut self) {
        self.sent = Vec::new();
        self.sent_from = 0;
    }

    /// Discards the sent bytes before `ack`. They are moved once half of them is free.
    pub(super) fn drop_acknowledged(&mut self, ack: SeqNum) {
        let Some(next) = self.next.filter(|_| !self.sent.is_empty()) else {
            return;
        };
        let missing = if ack.before(next) {
            next.distance_from(ack) as usize
        } else {
            0
        };
        self.sent_from = self.sent_from.max(self.sent.len().saturating_sub(missing));
        let kept = self.sent.len() - self.sent_from;
        if kept == 0 {
            self.forget_sent();
        } else if self.sent_from >= kept {
            self.sent.drain(..self.sent_from);
            self.sent_from = 0;
            self.sent.shrink_to(kept.next_multiple_of(GRAIN));
        }
    }

    /// Returns whether bytes that lie before `next` differ from the kept part of the unfinished
    /// line.
    pub(super) fn contradicts_line(&self, seq: SeqNum, next: SeqNum, past: &[u8]) -> bool {
        if self.skipping || self.too_long {
            return false;
        }
        contradicts(&self.line, seq, next, past)
    }

    /// Keeps bytes after a hole. Returns `false` if there are too many holes.
    pub(super) fn store(
        &mut self,
        offset: usize,
        bytes: &[u8],
        limits: &Limits,
        out: &mut dyn FnMut(Piece<'_>),
    ) -> bool {
        let end = offset + bytes.len();
        let apart = |range: &Range| range.end < offset || range.start > end;
        if offset > 0 && self.ranges.iter().filter(|range| apart(range)).count() >= limits.ranges {
            return false;
        }
        if self.buffer.len() < end {
            let more = end - self.buffer.len();
            reserve(&mut self.buffer, more);
            self.buffer.resize(end, 0);
        }
        let mut known = self
            .ranges
            .iter()
            .skip_while(|range| range.end <= offset)
            .peekable();
        let mut differs: Option<(usize, usize)> = None;
        let places = self.buffer.iter_mut().enumerate().skip(offset);
        for ((place, old), new) in places.zip(bytes) {
            while known.next_if(|range| range.end <= place).is_some() {}
            if known.peek().is_none_or(|range| range.start > place) {
                *old = *new;
            } else if *old != *new {
                differs = Some((differs.map_or(place, |(first, _)| first), place + 1));
            }
        }
        if let (Some((first, behind)), Some(next)) = (differs, self.next) {
            self.doubt(next.add(first as u32), next.add(behind as u32));
            out(Piece::Trouble(Trouble::Conflict));
        }
        let mut merged = Range { start: offset, end };
        self.ranges.retain(|range| {
            if !apart(range) {
                merged.start = merged.start.min(range.start);
                merged.end = merged.end.max(range.end);
            }
            apart(range)
        });
        let place = self
            .ranges
            .partition_point(|range| range.start < merged.start);
        self.ranges.insert(place, merged);
        true
    }

    pub(super) fn doubt(&mut self, start: SeqNum, end: SeqNum) {
        self.suspect = Some(match self.suspect {
            Some((first, last)) => (
                if start.before(first) { start } else { first },
                if end.after(last) { end } else { last },
            ),
            None => (start, end),
        });
    }

    /// Reads the waiting bytes that are next in order, and returns their number.
    pub(super) fn drain(&mut self, limits: &Limits, out: &mut dyn FnMut(Piece<'_>)) -> usize {
        let ready = match self.ranges.first() {
            Some(range) if range.start == 0 => range.end,
            _ => return 0,
        };
        let buffer = core::mem::take(&mut self.buffer);
        self.read(cut(&buffer, ready).0, limits, out);
        self.buffer = buffer;
        self.shift(ready);
        ready
    }

    /// Moves the kept ranges after `next` has advanced by a number of bytes.
    pub(super) fn shift(&mut self, by: usize) {
        self.ranges.retain_mut(|range| {
            range.start = range.start.saturating_sub(by);
            range.end = range.end.saturating_sub(by);
            range.end > 0
        });
        if self.ranges.is_empty() {
            self.shed();
        } else {
            self.buffer.drain(..by.min(self.buffer.len()));
        }
    }
}
