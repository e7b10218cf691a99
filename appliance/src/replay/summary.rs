//! What a replay found, for people and as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table, TableComponent};
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
pub(crate) struct Summary {
    frames: u64,
    /// First to last frame, in seconds.
    seconds: f64,
    wire_bytes: u64,
    verdicts: BTreeMap<&'static str, u64>,
    classes: BTreeMap<&'static str, u64>,
    drops: BTreeMap<&'static str, u64>,
    /// The first [`FIRST_FRAMES`] frames of each drop reason.
    first_frames: BTreeMap<&'static str, Vec<u64>>,
    skips: BTreeMap<&'static str, u64>,
    /// Packets whose header left their length to the frame (segmentation offload).
    without_length: u64,
    /// Frames whose time is before that of the frame before them.
    time_backwards: Option<Backwards>,
    /// Answers that the capture stores before their questions.
    answers_first: Option<AnswersFirst>,
    /// Fragments that were held until the first one of their datagram came, or their time was over.
    fragments_held: u64,
    sessions: u64,
    sessions_open: u64,
    /// Protocol, then state.
    sessions_by_state: BTreeMap<String, BTreeMap<Cow<'static, str>, u64>>,
    sessions_by_end: BTreeMap<&'static str, u64>,
    rules: Vec<RuleHits>,
    talkers: Vec<Talker>,
    /// RSTs that the engine has made of its own accord.
    resets_sent: u64,
    resets_unsent: BTreeMap<&'static str, u64>,
    sessions_adopted: u64,
    sessions_bypassed: u64,
    /// Findings of the helper of FTP.
    pub(crate) ftp: FtpSummary,
    /// What was seen of paths whose other half does not pass here.
    asymmetry: Vec<HalfRow>,
    #[serde(skip)]
    collecting: Talkers,
    #[serde(skip)]
    span: Option<(Duration, Duration)>,
}

#[derive(Debug, Serialize)]
struct RuleHits {
    name: String,
    hits: u64,
    /// Packets of its sessions, in both directions.
    packets: u64,
    /// IP bytes of its sessions, in both directions.
    bytes: u64,
    /// Time of the rule's last decision about a new session, in seconds since the Unix epoch.
    last_match: Option<f64>,
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

    /// Counts a packet whose header left its length to the frame.
    pub(crate) fn without_length(&mut self) {
        self.without_length += 1;
    }

    /// Takes over what is odd about the order of the capture.
    pub(super) fn note(&mut self, notes: Notes) {
        self.time_backwards = notes.backwards;
        self.answers_first = notes.answers_first;
    }

    /// Counts what became of a frame in the end.
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
        self.ftp.events = events.map(|(event, count)| (event.name(), *count)).collect();
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
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .unwrap_or_default()
    }
}

impl Summary {
    /// The first frames of a drop reason, as the table shows them.
    fn first_frames_of(&self, reason: &str) -> String {
        let frames = self.first_frames.get(reason).map_or(&[][..], Vec::as_slice);
        let frames: Vec<_> = frames.iter().map(u64::to_string).collect();
        frames.join(", ")
    }

    /// Writes what is odd about the capture.
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.without_length > 0 {
            let packets = self.without_length;
            writeln!(
                f,
                "{packets} packets state no length (segmentation offload at the sender): they have \
                 that of their frame"
            )?;
        }
        if let Some(note) = &self.time_backwards {
            writeln!(
                f,
                "note: time runs backwards in {} frames, first in frame {}, by up to {} s",
                note.frames, note.first_frame, note.seconds
            )?;
        }
        if let Some(note) = &self.answers_first {
            writeln!(
                f,
                "note: {} answers are stored before their questions, the first in frame {}, its \
                 question in frame {}: sort the capture by time (reordercap), or merge it again",
                note.answers, note.answer_frame, note.question_frame
            )?;
        }
        Ok(())
    }
}

fn table<const N: usize>(head: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(head);
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::TopBorder,
        TableComponent::TopBorderIntersections,
        TableComponent::TopLeftCorner,
        TableComponent::TopRightCorner,
    ] {
        table.remove_style(line);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", part as f64 * 100.0 / whole as f64)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} frames, {} bytes on the wire, {:.3} s; {} sessions, {} of them open at the end",
            self.frames, self.wire_bytes, self.seconds, self.sessions, self.sessions_open
        )?;

        let mut verdicts = table(["verdict", "packets", "share"], &[1, 2]);
        for (verdict, packets) in &self.verdicts {
            verdicts.add_row([
                verdict.to_string(),
                packets.to_string(),
                percent(*packets, self.frames),
            ]);
        }
        for (class, packets) in &self.classes {
            verdicts.add_row([
                format!("  class {class}"),
                packets.to_string(),
                percent(*packets, self.frames),
            ]);
        }
        for (reason, packets) in &self.skips {
            verdicts.add_row([format!("  not IP: {reason}"), packets.to_string(), String::new()]);
        }
        writeln!(f, "{verdicts}")?;

        self.write_notes(f)?;
        if self.fragments_held > 0 {
            let held = self.fragments_held;
            writeln!(
                f,
                "{held} fragments held, since they came before the first one of their datagram"
            )?;
        }
        if !self.drops.is_empty() {
            let head = ["dropped because", "packets", "first frames", "which means"];
            let mut drops = table(head, &[1]);
            for (reason, packets) in &self.drops {
                let meaning = portcullis::DropReason::all()
                    .find(|each| each.name() == *reason)
                    .map_or("", portcullis::DropReason::describe);
                drops.add_row([
                    reason.to_string(),
                    packets.to_string(),
                    self.first_frames_of(reason),
                    meaning.trim().to_owned(),
                ]);
            }
            writeln!(f, "{drops}")?;
        }

        if self.sessions > 0 {
            let mut sessions = table(["protocol", "state", "sessions"], &[2]);
            for (protocol, states) in &self.sessions_by_state {
                for (state, count) in states {
                    sessions.add_row([protocol.clone(), state.to_string(), count.to_string()]);
                }
            }
            for (reason, count) in &self.sessions_by_end {
                sessions.add_row([String::new(), format!("ended: {reason}"), count.to_string()]);
            }
            writeln!(f, "{sessions}")?;

            let mut talkers = table(
                [
                    "longest talkers",
                    "bytes",
                    "packets",
                    "seconds",
                    "state",
                    "history",
                ],
                &[1, 2, 3],
            );
            for talker in &self.talkers {
                talkers.add_row([
                    format!("{} {} -> {}", talker.proto, talker.initiator, talker.responder),
                    talker.bytes.to_string(),
                    talker.packets.to_string(),
                    format!("{:.3}", talker.duration),
                    format!("{} ({})", talker.state, talker.conn_state),
                    talker.history.clone(),
                ]);
            }
            writeln!(f, "{talkers}")?;
        }

        if self.resets_sent > 0 || !self.resets_unsent.is_empty() {
            let unsent: u64 = self.resets_unsent.values().sum();
            let sent = self.resets_sent;
            writeln!(
                f,
                "{sent} RSTs made at the end of sessions and for late packets, {unsent} not made"
            )?;
        }
        if !self.ftp.is_empty() {
            writeln!(f, "{}", self.ftp.headline())?;
            let head = [
                "control session",
                "announced",
                "opened",
                "refused",
                "encrypted since",
            ];
            let mut controls = table(head, &[1, 2]);
            for line in self.ftp.lines() {
                controls.add_row(line);
            }
            writeln!(f, "{controls}")?;
        }
        if self.sessions_adopted + self.sessions_bypassed > 0 {
            writeln!(
                f,
                "{} sessions adopted in their middle, {} bypassed since half of them is missing",
                self.sessions_adopted, self.sessions_bypassed
            )?;
        }
        if !self.asymmetry.is_empty() {
            let head = [
                "paths seen in part",
                "flows",
                "packets",
                "seconds",
                "evidence",
                "missing",
            ];
            let mut halves = table(head, &[1, 2, 3]);
            for row in &self.asymmetry {
                let zones = match row.other_zone {
                    Some(other) => format!(" (zone {}, session in zone {other})", row.zone),
                    None if row.zone != 0 => format!(" (zone {})", row.zone),
                    None => String::new(),
                };
                halves.add_row([
                    format!("{} -> {}{zones}", row.from, row.to),
                    row.flows.to_string(),
                    row.packets.to_string(),
                    format!("{:.1}", row.last - row.first),
                    row.evidence.to_owned(),
                    row.missing
                        .as_ref()
                        .map(|(from, to)| format!("{from} -> {to}"))
                        .unwrap_or_default(),
                ]);
            }
            writeln!(f, "{halves}")?;
            let causes: std::collections::BTreeSet<_> = self
                .asymmetry
                .iter()
                .map(|row| (row.evidence, row.likely))
                .collect();
            for (evidence, likely) in causes {
                writeln!(f, "{evidence}: {likely}")?;
            }
        }

        if self.rules.len() > 1 {
            let mut rules = table(["rule", "sessions decided", "packets", "bytes"], &[1, 2, 3]);
            for rule in &self.rules {
                let numbers = [rule.hits, rule.packets, rule.bytes].map(|number| number.to_string());
                let [hits, packets, bytes] = numbers;
                rules.add_row([rule.name.clone(), hits, packets, bytes]);
            }
            writeln!(f, "{rules}")?;
        }
        Ok(())
    }
}
