//! Summary of a replay.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use portcullis::Engine;
use serde::Serialize;

use super::clock::CaptureClock;
use super::halves::HalfRow;
use super::helper::FtpSummary;
use super::notes::{AnswersFirst, Backwards, Notes};
use super::rows::{SessionRow, VerdictRow};
use super::talkers::{Talker, Talkers};
use crate::capture::Frame;

/// Number of frames that the summary names for each drop reason.
const FIRST_FRAMES: usize = 3;

/// The summary of a replay.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Summary {
    pub(super) frames: u64,
    /// First to last frame, in seconds.
    pub(super) seconds: f64,
    pub(super) wire_bytes: u64,
    pub(super) verdicts: BTreeMap<&'static str, u64>,
    pub(super) classes: BTreeMap<&'static str, u64>,
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// The first [`FIRST_FRAMES`] frames of each drop reason.
    pub(super) first_frames: BTreeMap<&'static str, Vec<u64>>,
    pub(super) skips: BTreeMap<&'static str, u64>,
    /// Packets whose header states no length (segmentation offload).
    pub(super) without_length: u64,
    /// Frames whose time is before that of the frame before them.
    pub(super) time_backwards: Option<Backwards>,
    /// Answers that the capture stores before their questions.
    pub(super) answers_first: Option<AnswersFirst>,
    /// Fragments that were held until the first one of their datagram arrived, or their time
    /// expired.
    pub(super) fragments_held: u64,
    pub(super) sessions: u64,
    pub(super) sessions_open: u64,
    /// Protocol, then state.
    pub(super) sessions_by_state: BTreeMap<String, BTreeMap<Cow<'static, str>, u64>>,
    pub(super) sessions_by_end: BTreeMap<&'static str, u64>,
    pub(super) rules: Vec<RuleHits>,
    pub(super) talkers: Vec<Talker>,
    /// RSTs that the engine has created unprompted.
    pub(super) resets_sent: u64,
    pub(super) resets_unsent: BTreeMap<&'static str, u64>,
    pub(super) sessions_adopted: u64,
    pub(super) sessions_bypassed: u64,
    /// Findings of the FTP helper.
    pub(crate) ftp: FtpSummary,
    /// Paths with a missing direction.
    pub(super) asymmetry: Vec<HalfRow>,
    #[serde(skip)]
    collecting: Talkers,
    #[serde(skip)]
    span: Option<(Duration, Duration)>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RuleHits {
    pub(super) name: String,
    pub(super) hits: u64,
    /// Packets of the rule's sessions, in both directions.
    pub(super) packets: u64,
    /// IP bytes of the rule's sessions, in both directions.
    pub(super) bytes: u64,
    /// Time of the rule's last decision about a new session, in seconds since the Unix epoch.
    pub(super) last_match: Option<f64>,
}

impl Summary {
    pub(crate) fn frame(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        self.wire_bytes += u64::from(frame.wire_len);
        let (first, last) = self.span.unwrap_or((frame.time, frame.time));
        self.span = Some((first.min(frame.time), last.max(frame.time)));
    }

    /// Counts a fragment that is decided later.
    pub(crate) fn held(&mut self) {
        self.fragments_held += 1;
    }

    /// Counts a packet whose header states no length.
    pub(crate) fn without_length(&mut self) {
        self.without_length += 1;
    }

    /// Adds the anomalies of the capture's order.
    pub(super) fn note(&mut self, notes: Notes) {
        self.time_backwards = notes.backwards;
        self.answers_first = notes.answers_first;
    }

    /// Counts the final verdict on a frame.
    pub(crate) fn verdict(&mut self, row: &VerdictRow) {
        *self.verdicts.entry(row.verdict).or_default() += 1;
        if let Some(class) = row.class {
            *self.classes.entry(class).or_default() += 1;
        }
        if let Some(reason) = row.reason {
            let reasons = if row.verdict == "skip" {
                &mut self.skips
            } else {
                let frames = self.first_frames.entry(reason).or_default();
                if frames.len() < FIRST_FRAMES {
                    frames.push(row.n);
                }
                &mut self.drops
            };
            *reasons.entry(reason).or_default() += 1;
        }
    }

    pub(crate) fn session(&mut self, row: &SessionRow) {
        self.sessions += 1;
        *self
            .sessions_by_state
            .entry(row.session.flow.protocol.to_string())
            .or_default()
            .entry(row.session.state.clone())
            .or_default() += 1;
        match row.end_reason {
            Some(reason) => *self.sessions_by_end.entry(reason).or_default() += 1,
            None => self.sessions_open += 1,
        }
        self.ftp.session(row);
        self.collecting.add(row);
    }

    pub(crate) fn finish(&mut self, engine: &Engine, clock: &CaptureClock) {
        let stats = engine.stats();
        self.resets_sent = stats.resets_sent;
        self.resets_unsent = stats
            .resets_unsent
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name(), *count))
            .collect();
        let events = stats.helper_events.iter().filter(|(_, count)| *count > 0);
        self.ftp.events = events
            .map(|(event, count)| (event.name(), *count))
            .collect();
        self.sessions_adopted = stats.sessions_adopted;
        self.sessions_bypassed = stats.sessions_bypassed;
        self.asymmetry = HalfRow::all(&engine.asymmetry(), clock);
        self.talkers = std::mem::take(&mut self.collecting).into_vec();
        let rules = engine.rules_with_live().into_iter();
        self.rules = rules
            .map(|rule| RuleHits {
                packets: rule.ended.packets + rule.live.packets,
                bytes: rule.ended.bytes + rule.live.bytes,
                last_match: rule.last_match.map(|last| clock.seconds(last)),
                name: rule.name,
                hits: rule.hits,
            })
            .collect();
        if let Some((first, last)) = self.span {
            self.seconds = last.saturating_sub(first).as_secs_f64();
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self)
            .map(|text| text + "\n")
            .unwrap_or_default()
    }
}
