//! One control session: both streams and the helper that reads them.

use crate::flow::Direction;
use crate::packet::SeqNum;

use super::stream::{Fit, Piece, Stream, Trouble};
use super::{Helper, HelperSink, Limits, Plain};

/// The parts of a TCP segment that a helper reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the first byte of the payload, after the SYN if the segment has one.
    pub seq: SeqNum,
    /// The acknowledgment number, if the flag is set.
    pub ack: Option<SeqNum>,
    /// Payload, without the padding after the IP length.
    pub payload: &'a [u8],
    /// Whether the stream ends after the payload.
    pub fin: bool,
}

/// State that is kept for a control session.
///
/// Callers use [`Control::begins`] for both SYNs, then [`Control::segment`] for every segment that
/// the tracker found valid. These include pure acknowledgments, which show the holes that will
/// never be filled. A stream without [`Control::begins`] is adopted midstream.
#[derive(Debug)]
pub struct Control<H> {
    original: Stream,
    reply: Stream,
    helper: H,
}

impl<H: Helper> Control<H> {
    /// Creates a control session without any history.
    pub fn new(helper: H) -> Self {
        Self {
            original: Stream::default(),
            reply: Stream::default(),
            helper,
        }
    }

    /// Records a SYN; `first` is the number of the first byte after it
    /// ([`first_byte`](super::first_byte)). The method may be called again, with another number,
    /// until payload arrives.
    pub fn begins(&mut self, from: Direction, first: SeqNum) {
        self.parts(from).0.begins(first);
    }

    /// Processes a segment. Segments of both directions must be given in their order of arrival,
    /// since an acknowledgment that overtakes the acknowledged data looks like a loss.
    pub fn segment(&mut self, from: Direction, segment: &Segment<'_>, sink: &mut dyn HelperSink) {
        for from in Direction::BOTH {
            self.parts(from).0.guard(false);
        }
        self.read(from, segment, sink);
    }

    /// Reads a segment of a session in which no byte may pass unread. A segment that does not fit
    /// changes nothing, see [`Stream::fit`]. The caller decides whether bytes pass that the helper
    /// no longer reads.
    ///
    /// [`Stream::fit`]: super::stream::Stream::fit
    pub fn guarded_segment(
        &mut self,
        from: Direction,
        segment: &Segment<'_>,
        sink: &mut dyn HelperSink,
    ) -> Fit {
        for from in Direction::BOTH {
            let (stream, helper) = self.parts(from);
            if stream.guard(true) {
                helper.trouble(from, Trouble::MidStream, sink);
            }
        }
        // Encrypted bytes are not lines. The helper tracks them to their end.
        let is_plain = !self.helper.is_opaque() && !self.helper.is_encrypted_from(from);
        if is_plain && !segment.payload.is_empty() {
            let limits = self.limits(from);
            let fit = self.stream(from).fit(segment.seq, segment.payload, &limits);
            if fit != Fit::Fits {
                return fit;
            }
        }
        self.read(from, segment, sink);
        Fit::Fits
    }

    /// Returns the bounds for assembling the lines of a direction.
    #[must_use]
    pub fn limits(&self, from: Direction) -> Limits {
        self.helper.limits(from)
    }

    fn read(&mut self, from: Direction, segment: &Segment<'_>, sink: &mut dyn HelperSink) {
        let mut segment = *segment;
        match self.helper.plain(&segment, from, sink) {
            Plain::All => {}
            Plain::From(first) => self.parts(from).0.begins(first),
            Plain::Nothing => (segment.payload, segment.fin) = (&[], false),
        }
        if self.helper.is_opaque() {
            return;
        }
        if let Some(ack) = segment.ack {
            self.feed(from.opposite(), sink, |stream, limits, out| {
                stream.acknowledged(ack, limits, out);
            });
        }
        if segment.fin {
            let end = segment
                .seq
                .add(u32::try_from(segment.payload.len()).unwrap_or(u32::MAX));
            self.parts(from).0.ends(end);
        }
        if !segment.payload.is_empty() {
            self.feed(from, sink, |stream, limits, out| {
                stream.segment(segment.seq, segment.payload, limits, out);
            });
        }
        if self.helper.is_opaque() {
            self.helper.stopped_reading(self.original.next());
            // The rest of the segment.
            let _ = self.helper.plain(&segment, from, sink);
            self.original = Stream::default();
            self.reply = Stream::default();
        }
    }

    /// Returns the bytes that the session takes, this structure included.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.original.heap_bytes()
            + self.reply.heap_bytes()
            + self.helper.heap_bytes()
    }

    /// Discards the bytes that wait for missing ones, to free their memory. Data that is not
    /// retransmitted becomes a gap.
    pub fn shed(&mut self) {
        self.original.shed();
        self.reply.shed();
    }

    /// Returns the next sequence numbers of both streams, original first, if a line begins at each.
    #[must_use]
    pub fn line_starts(&self) -> Option<[SeqNum; 2]> {
        Some([self.original.line_start()?, self.reply.line_start()?])
    }

    /// Returns the stream of a direction.
    #[must_use]
    pub const fn stream(&self, from: Direction) -> &Stream {
        match from {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// Returns the helper.
    pub const fn helper(&self) -> &H {
        &self.helper
    }

    /// Returns the helper, for changes of its settings.
    pub const fn helper_mut(&mut self) -> &mut H {
        &mut self.helper
    }

    fn parts(&mut self, from: Direction) -> (&mut Stream, &mut H) {
        match from {
            Direction::Original => (&mut self.original, &mut self.helper),
            Direction::Reply => (&mut self.reply, &mut self.helper),
        }
    }

    fn feed(
        &mut self,
        from: Direction,
        sink: &mut dyn HelperSink,
        work: impl FnOnce(&mut Stream, &Limits, &mut dyn FnMut(Piece<'_>)),
    ) {
        let limits = self.limits(from);
        let (stream, helper) = self.parts(from);
        work(stream, &limits, &mut |piece| match piece {
            Piece::Line(line) => helper.line(from, line, sink),
            Piece::Rest(line) => helper.rest(from, line, sink),
            Piece::Trouble(trouble) => helper.trouble(from, trouble, sink),
        });
    }
}
