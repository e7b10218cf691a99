//! The decision on each frame, and the frames that are decided later than they came.

use std::time::{Duration, Instant};

use portcullis::explain::Step;
use portcullis::fragment::HeldPackets;
use portcullis::reset::{MAX_REPLY, write_reply};
use portcullis::{Engine, Packet, Verdict};

use super::rows::VerdictRow;
use super::{Collector, Lines, ReplayError};
use crate::capture::{CaptureError, CaptureWriter};

/// The packet of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'b> {
    pub(super) number: u64,
    pub(super) time: Duration,
    /// The packet at its length on the wire.
    pub(super) bytes: &'b [u8],
    /// Number of bytes that the capture lacks.
    pub(super) padded: usize,
    /// Whether the packet comes from a layer-3 tunnel.
    pub(super) tunneled: bool,
}

/// A fragment that came before the first one of its datagram.
#[derive(Debug)]
struct Held {
    number: u64,
    time: Duration,
    bytes: Vec<u8>,
    padded: usize,
    tunneled: bool,
}

impl Held {
    fn of(candidate: &Candidate<'_>) -> Self {
        Self {
            number: candidate.number,
            time: candidate.time,
            bytes: candidate.bytes.to_vec(),
            padded: candidate.padded,
            tunneled: candidate.tunneled,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            number: self.number,
            time: self.time,
            bytes: &self.bytes,
            padded: self.padded,
            tunneled: self.tunneled,
        }
    }
}

/// Decides frames and writes the verdicts.
pub(super) struct Judge<'e> {
    engine: &'e Engine,
    held: HeldPackets<Held>,
    pub(super) verdicts: Lines,
    pub(super) written: Option<CaptureWriter>,
    /// The frame to explain.
    wanted: Option<u64>,
    /// Explanation of the frame.
    pub(super) explained: Option<String>,
    /// Nothing more will be said of it.
    pub(super) is_explained: bool,
}

impl<'e> Judge<'e> {
    pub(super) fn new(engine: &'e Engine, held: &portcullis::Config, verdicts: Lines) -> Self {
        Self {
            engine,
            held: HeldPackets::new(&held.fragments),
            verdicts,
            written: None,
            wanted: None,
            explained: None,
            is_explained: false,
        }
    }

    pub(super) const fn wants(&mut self, frame: Option<u64>) {
        self.wanted = frame;
    }

    /// Writes what becomes of a frame without a packet.
    pub(super) fn skip(
        &mut self,
        number: u64,
        reason: &'static str,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        if self.wanted == Some(number) {
            self.explained = Some(format!("no IP packet: {reason}\n"));
            self.is_explained = true;
        }
        let row = VerdictRow::skip(number, reason);
        collector.summary.verdict(&row);
        self.verdicts.row(&row)
    }

    /// Decides a packet that has come, and after it those that have waited for it.
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
        // What is decided here holds nothing, and so releases nothing.
        for id in core::mem::take(&mut collector.released) {
            for held in self.held.take(id) {
                self.judge(&held.candidate(), now, false, collector)?;
            }
        }
        Ok(())
    }

    /// Decides the fragments that have waited for too long.
    pub(super) fn overdue(&mut self, now: Instant, collector: &mut Collector<'_>) -> Result<(), ReplayError> {
        while let Some(held) = self.held.next(now) {
            self.judge(&held.candidate(), now, false, collector)?;
        }
        Ok(())
    }

    /// Decides the fragments that still wait at the end of the capture.
    pub(super) fn end(&mut self, now: Instant, collector: &mut Collector<'_>) -> Result<(), ReplayError> {
        self.held.release_all();
        self.overdue(now, collector)
    }

    fn judge(
        &mut self,
        candidate: &Candidate<'_>,
        now: Instant,
        can_hold: bool,
        collector: &mut Collector<'_>,
    ) -> Result<(), ReplayError> {
        let packet = Packet::new(candidate.bytes, now)
            .offloaded(candidate.padded > 0)
            .tunneled(candidate.tunneled)
            .can_hold(can_hold);
        let verdict = if self.wanted == Some(candidate.number) {
            let (verdict, steps) = self.engine.explain(packet, collector);
            let session = verdict.tracked().session.and_then(|id| collector.names.of(id));
            let text = describe(candidate, session, &steps);
            self.explained.get_or_insert_default().push_str(&text);
            self.is_explained = !matches!(verdict, Verdict::Hold(..));
            verdict
        } else {
            self.engine.process_with(packet, collector)
        };
        let row = VerdictRow::new(candidate.number, &verdict, &collector.names);
        self.verdicts.row(&row)?;
        if let Verdict::Hold(id, _) = verdict {
            collector.summary.held();
            return match self.held.put(self.engine, id, Held::of(candidate), now) {
                None => Ok(()),
                Some(_) => self.judge(candidate, now, false, collector),
            };
        }
        collector.summary.verdict(&row);
        if let Some(written) = &mut self.written {
            write_out(written, &verdict, candidate)?;
        }
        collector.names.forget_ended();
        self.resets(candidate.time, collector)
    }

    /// Writes the RSTs that the engine has made of its own accord.
    fn resets(&mut self, time: Duration, collector: &mut Collector<'_>) -> Result<(), ReplayError> {
        for reset in collector.resets.drain(..) {
            if let Some(written) = &mut self.written {
                written.write(time, reset.bytes(), reset.bytes().len())?;
            }
        }
        Ok(())
    }
}

/// Writes a forwarded packet without its padding, or the reply to a rejected one.
fn write_out(
    written: &mut CaptureWriter,
    verdict: &Verdict,
    candidate: &Candidate<'_>,
) -> Result<(), CaptureError> {
    let packet = candidate.bytes;
    match verdict {
        Verdict::Forward(_) => {
            let captured = packet.get(..packet.len() - candidate.padded).unwrap_or(packet);
            let wire_len = super::ip_len(packet).unwrap_or(packet.len());
            let captured = captured.get(..wire_len).unwrap_or(captured);
            written.write(candidate.time, captured, wire_len)
        }
        Verdict::Reject(_, reply, _) => {
            let mut buffer = [0; MAX_REPLY];
            match write_reply(*reply, packet, &mut buffer) {
                Some(reply) => written.write(candidate.time, reply, reply.len()),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
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
            "   -  the capture has cut {} bytes: they stand as zeros, checksums are trusted",
            candidate.padded
        );
    }
    if let Some(session) = session {
        let _ = writeln!(text, "   -  its session is number {session} of this replay");
    }
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(text, "{number:4}  {step}");
    }
    text
}
