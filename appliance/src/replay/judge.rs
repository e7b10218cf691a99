//! The decision on each frame, and on frames that are decided after they arrived.

use std::time::{Duration, Instant};

use portcullis::HeldPackets;
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::explain::Step;
use portcullis::{Engine, Packet, Verdict};

use super::collector::Collector;
use super::error::ReplayError;
use super::explain::ExplainTarget;
use super::lines::Lines;
use super::rows::VerdictRow;
use crate::capture::{CaptureError, CaptureWriter, stated_len};

/// The packet of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'b> {
    pub(super) number: u64,
    pub(super) time: Duration,
    /// The packet at its length on the wire.
    pub(super) bytes: &'b [u8],
    /// Number of bytes that are missing in the capture.
    pub(super) padded: usize,
    /// Whether the packet comes from a layer-3 tunnel.
    pub(super) tunneled: bool,
    /// Whether the packet's header states no length, so that checksums are not computed yet.
    pub(super) unsegmented: bool,
}

/// A fragment that arrived before the first one of its datagram.
#[derive(Debug)]
struct Held {
    number: u64,
    time: Duration,
    bytes: Vec<u8>,
    padded: usize,
    tunneled: bool,
    unsegmented: bool,
}

impl Held {
    fn of(candidate: &Candidate<'_>) -> Self {
        Self {
            number: candidate.number,
            time: candidate.time,
            bytes: candidate.bytes.to_vec(),
            padded: candidate.padded,
            tunneled: candidate.tunneled,
            unsegmented: candidate.unsegmented,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            number: self.number,
            time: self.time,
            bytes: &self.bytes,
            padded: self.padded,
            tunneled: self.tunneled,
            unsegmented: self.unsegmented,
        }
    }
}

/// Decides frames and writes the verdicts.
pub(super) struct Judge<'e> {
    engine: &'e Engine,
    held: HeldPackets<Held>,
    verdicts: Lines,
    pub(super) written: Option<CaptureWriter>,
    /// The decision to explain.
    target: Option<ExplainTarget>,
    /// Explanation of the decision.
    explained: Option<String>,
    /// Whether the explanation is complete.
    pub(super) is_explained: bool,
}

impl<'e> Judge<'e> {
    pub(super) fn new(engine: &'e Engine, held: &portcullis::Config, verdicts: Lines) -> Self {
        Self {
            engine,
            held: HeldPackets::new(&held.fragments),
            verdicts,
            written: None,
            target: None,
            explained: None,
            is_explained: false,
        }
    }

    pub(super) const fn explain(&mut self, target: Option<ExplainTarget>) {
        self.target = target;
    }

    /// Flushes the results. Returns the explanation, if any.
    ///
    /// # Errors
    /// Returns an error if a result cannot be written.
    pub(super) fn finish(self) -> Result<Option<String>, ReplayError> {
        self.verdicts.finish()?;
        if let Some(written) = self.written {
            written.finish()?;
        }
        Ok(self.explained)
    }

    /// Writes the row of a frame without a packet.
    pub(super) fn skip(
        &mut self,
        number: u64,
        reason: &'static str,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        if self.target == Some(ExplainTarget::Frame(number)) {
            self.explained = Some(format!("no IP packet: {reason}\n"));
            self.is_explained = true;
        }
        let row = VerdictRow::skip(number, reason);
        collector.summary.verdict(&row);
        self.verdicts.row(&row)
    }

    /// Decides a packet that has arrived, and then the packets that waited for it.
    pub(super) fn decide(
        &mut self,
        candidate: &Candidate<'_>,
        now: Instant,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        self.judge(candidate, now, true, collector)?;
        self.released(now, collector)
    }

    /// Decides the fragments that were released.
    fn released(&mut self, now: Instant, collector: &mut Collector<'_>) -> Result<(), ReplayError> {
        // Fragments decided here are not held again, and release no others.
        for id in core::mem::take(&mut collector.released) {
            for held in self.held.take(id) {
                self.judge(&held.candidate(), now, false, collector)?;
            }
        }
        Ok(())
    }

    /// Decides the fragments that have waited too long.
    pub(super) fn overdue(
        &mut self,
        now: Instant,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        while let Some(held) = self.held.next(now) {
            self.judge(&held.candidate(), now, false, collector)?;
        }
        Ok(())
    }

    /// Decides the fragments that still wait at the end of the capture.
    pub(super) fn end(
        &mut self,
        now: Instant,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        self.held.release_all();
        self.overdue(now, collector)
    }

    /// Decides the segments that an interface makes of a frame. The frame's verdict is that on the
    /// first segment that is not forwarded, or else on the last one.
    pub(super) fn decide_segments(
        &mut self,
        segments: &[Candidate<'_>],
        now: Instant,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        let mut decided: Option<VerdictRow> = None;
        for segment in segments {
            let (verdict, row) = self.process(segment, now, false, collector);
            self.write(&verdict, segment, &row)?;
            if decided.as_ref().is_none_or(|row| row.verdict == "forward") {
                decided = Some(row);
            }
            collector.names.forget_ended();
            self.resets(segment.time, collector)?;
        }
        if let Some(row) = decided {
            self.verdicts.row(&row)?;
            collector.summary.verdict(&row);
        }
        Ok(())
    }

    fn judge(
        &mut self,
        candidate: &Candidate<'_>,
        now: Instant,
        can_hold: bool,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        let (verdict, row) = self.process(candidate, now, can_hold, collector);
        self.verdicts.row(&row)?;
        if let Verdict::Hold(id, _) = verdict {
            collector.summary.held();
            return match self.held.put(self.engine, id, Held::of(candidate), now) {
                None => Ok(()),
                Some(_) => self.judge(candidate, now, false, collector),
            };
        }
        collector.summary.verdict(&row);
        self.write(&verdict, candidate, &row)?;
        collector.names.forget_ended();
        self.resets(candidate.time, collector)
    }

    /// Decides a packet, and stores the explanation if it was requested.
    fn process(
        &mut self,
        candidate: &Candidate<'_>,
        now: Instant,
        can_hold: bool,
        collector: &mut Collector<'_>,
    ) -> (Verdict, VerdictRow) {
        collector.frame = candidate.number;
        let packet = Packet::new(candidate.bytes, now)
            .offloaded(candidate.padded > 0 || candidate.unsegmented)
            .tunneled(candidate.tunneled)
            .can_hold(can_hold);
        let target = self.target.filter(|target| match target {
            ExplainTarget::Frame(_) => target.may_be(candidate.number),
            _ => !self.is_explained,
        });
        let verdict = match target {
            None => self.engine.process_with(packet, collector),
            Some(target) => {
                let (verdict, steps) = self.engine.explain(packet, collector);
                if target.is(&verdict) {
                    let session = verdict
                        .tracked()
                        .session
                        .and_then(|id| collector.names.of(id));
                    let text = describe(candidate, session, &steps);
                    self.explained.get_or_insert_default().push_str(&text);
                    self.is_explained = !matches!(verdict, Verdict::Hold(..));
                }
                verdict
            }
        };
        collector
            .notes
            .packet(candidate.number, candidate.time, candidate.bytes, &verdict);
        let row = VerdictRow::new(candidate.number, &verdict, &collector.names);
        (verdict, row)
    }

    /// Writes the packet to the capture of results, if there is one.
    fn write(
        &mut self,
        verdict: &Verdict,
        candidate: &Candidate<'_>,
        row: &VerdictRow,
    ) -> Result<(), CaptureError> {
        match &mut self.written {
            Some(written) => write_out(written, verdict, candidate, row),
            None => Ok(()),
        }
    }

    /// Writes the RSTs that the engine has created unprompted.
    fn resets(&mut self, time: Duration, collector: &mut Collector<'_>) -> Result<(), ReplayError> {
        for reset in collector.resets.drain(..) {
            if let Some(written) = &mut self.written {
                written.write(time, reset.bytes(), reset.bytes().len(), MADE_RESET)?;
            }
        }
        Ok(())
    }
}

/// The comments on packets that the engine has created.
const MADE_RESET: &str = "created: a RST for a session that has ended";
const MADE_REPLY: &str = "created: the answer to the rejected packet";

/// Writes a forwarded packet without its padding, and the reply to a rejected one. If packets keep
/// comments, those that are not forwarded are written too.
fn write_out(
    written: &mut CaptureWriter,
    verdict: &Verdict,
    candidate: &Candidate<'_>,
    row: &VerdictRow,
) -> Result<(), CaptureError> {
    let packet = candidate.bytes;
    let has_comment = written.keeps_comments();
    if verdict.is_forward() || has_comment {
        let comment = if has_comment {
            row.comment()
        } else {
            String::new()
        };
        let captured = packet
            .get(..packet.len() - candidate.padded)
            .unwrap_or(packet);
        let stated = stated_len(packet).filter(|_| verdict.is_forward());
        let wire_len = stated.unwrap_or(packet.len());
        let captured = captured.get(..wire_len).unwrap_or(captured);
        written.write(candidate.time, captured, wire_len, &comment)?;
    }
    if let Verdict::Reject(_, reply, _) = verdict {
        let mut buffer = [0; MAX_REPLY];
        if let Some(reply) = write_reply_unbudgeted(*reply, packet, &mut buffer) {
            written.write(candidate.time, reply, reply.len(), MADE_REPLY)?;
        }
    }
    Ok(())
}

fn describe(candidate: &Candidate<'_>, session: Option<u64>, steps: &[Step]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let time = candidate.time;
    let _ = writeln!(
        text,
        "frame {} at {}.{:09} s",
        candidate.number,
        time.as_secs(),
        time.subsec_nanos()
    );
    if candidate.padded > 0 {
        let _ = writeln!(
            text,
            "   -  the capture has truncated {} bytes: they are read as zeros, and checksums are \
             trusted",
            candidate.padded
        );
    }
    if candidate.unsegmented {
        let _ = writeln!(
            text,
            "   -  the header states no length (segmentation offload): the frame's length is used, \
             and checksums are trusted"
        );
    }
    if let Some(session) = session {
        let _ = writeln!(text, "   -  the session is number {session} of this replay");
    }
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(text, "{number:4}  {step}");
    }
    text
}
