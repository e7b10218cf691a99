//! Text form of the summary of a replay.

use std::collections::BTreeSet;
use std::fmt;

use portcullis::DropReason;

use super::columns::{Columns, write_sentence};
use super::summary::Summary;

/// The summary as text of a width.
pub(super) struct Report<'a> {
    pub(super) summary: &'a Summary,
    /// Columns of the output.
    pub(super) width: usize,
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", part as f64 * 100.0 / whole as f64)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{} frames, {} bytes on the wire, {:.3} s; {} sessions, {} of them open at the end",
            self.summary.frames,
            self.summary.wire_bytes,
            self.summary.seconds,
            self.summary.sessions,
            self.summary.sessions_open
        );
        self.sentence(f, &text)?;
        self.write_verdicts(f)?;
        self.write_notes(f)?;
        if self.summary.fragments_held > 0 {
            let held = self.summary.fragments_held;
            let text = format!(
                "{held} fragments held, since they arrived before the first one of their \
                 datagram"
            );
            self.sentence(f, &text)?;
        }
        self.write_drops(f)?;
        self.write_sessions(f)?;
        if self.summary.resets_sent > 0 || !self.summary.resets_unsent.is_empty() {
            let unsent: u64 = self.summary.resets_unsent.values().sum();
            let sent = self.summary.resets_sent;
            let text = format!(
                "{sent} RSTs sent at the end of sessions and for late packets, {unsent} not \
                 sent"
            );
            self.sentence(f, &text)?;
        }
        self.write_ftp(f)?;
        if self.summary.sessions_adopted + self.summary.sessions_bypassed > 0 {
            let text = format!(
                "{} sessions adopted midstream, {} bypassed since one direction is missing",
                self.summary.sessions_adopted, self.summary.sessions_bypassed
            );
            self.sentence(f, &text)?;
        }
        self.write_asymmetry(f)?;
        self.write_rules(f)
    }
}

impl Report<'_> {
    fn sentence(&self, f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
        write_sentence(f, text, self.width)
    }

    /// Returns the first frames of a drop reason, as the table shows them.
    fn first_frames_of(&self, reason: &str) -> String {
        let frames = self
            .summary
            .first_frames
            .get(reason)
            .map_or(&[][..], Vec::as_slice);
        let frames: Vec<_> = frames.iter().map(u64::to_string).collect();
        frames.join(", ")
    }

    /// Writes the verdicts, the classes of forwarded packets, and the reasons of skipped frames.
    fn write_verdicts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut verdicts = Columns::new(["verdict", "packets", "share"], &[1, 2]);
        for (verdict, packets) in &self.summary.verdicts {
            verdicts.add([
                verdict.to_string(),
                packets.to_string(),
                percent(*packets, self.summary.frames),
            ]);
        }
        for (class, packets) in &self.summary.classes {
            verdicts.add([
                format!("  class {class}"),
                packets.to_string(),
                percent(*packets, self.summary.frames),
            ]);
        }
        for (reason, packets) in &self.summary.skips {
            verdicts.add([
                format!("  not IP: {reason}"),
                packets.to_string(),
                String::new(),
            ]);
        }
        verdicts.write_noted(f, self.width)
    }

    /// Writes anomalies of the capture.
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.without_length > 0 {
            let packets = self.summary.without_length;
            let text = format!(
                "{packets} packets state no length (segmentation offload at the sender): the \
                 frame's length is used"
            );
            self.sentence(f, &text)?;
        }
        if let Some(note) = &self.summary.time_backwards {
            let text = format!(
                "note: time runs backward in {} frames, first in frame {}, by up to {} s",
                note.frames, note.first_frame, note.seconds
            );
            self.sentence(f, &text)?;
        }
        if let Some(note) = &self.summary.answers_first {
            let text = format!(
                "note: {} answers are stored before their questions, the first in frame {}, its \
                 question in frame {}: sort the capture by time (reordercap), or merge it again",
                note.answers, note.answer_frame, note.question_frame
            );
            self.sentence(f, &text)?;
        }
        Ok(())
    }

    /// Writes the reasons of dropped packets. Below a table without room for their meaning, a
    /// sentence explains each.
    fn write_drops(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.drops.is_empty() {
            return Ok(());
        }
        let head = ["dropped because", "packets", "first frames", "which means"];
        let mut drops = Columns::new(head, &[1]).optional(&[3]);
        let mut meanings = Vec::new();
        for (reason, packets) in &self.summary.drops {
            let meaning = DropReason::all()
                .find(|each| each.name() == *reason)
                .map_or("", DropReason::describe);
            meanings.push(format!("  {reason}: {}", meaning.trim()));
            drops.add([
                reason.to_string(),
                packets.to_string(),
                self.first_frames_of(reason),
                meaning.trim().to_owned(),
            ]);
        }
        if !drops.write(f, self.width)?.is_empty() {
            for meaning in meanings {
                self.sentence(f, &meaning)?;
            }
        }
        Ok(())
    }

    /// Writes the sessions by state and by end, and those with the most traffic.
    fn write_sessions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.sessions == 0 {
            return Ok(());
        }
        let mut sessions = Columns::new(["protocol", "state", "sessions"], &[2]);
        for (protocol, states) in &self.summary.sessions_by_state {
            for (state, count) in states {
                sessions.add([protocol.clone(), state.to_string(), count.to_string()]);
            }
        }
        for (reason, count) in &self.summary.sessions_by_end {
            sessions.add([String::new(), format!("ended: {reason}"), count.to_string()]);
        }
        sessions.write_noted(f, self.width)?;
        self.write_talkers(f)
    }

    /// Writes the sessions with the most traffic.
    fn write_talkers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut talkers = Columns::new(
            [
                "top talkers",
                "bytes",
                "packets",
                "seconds",
                "state",
                "history",
            ],
            &[1, 2, 3],
        )
        .optional(&[5, 3, 4]);
        for talker in &self.summary.talkers {
            talkers.add([
                format!(
                    "{} {} -> {}",
                    talker.proto, talker.initiator, talker.responder
                ),
                talker.bytes.to_string(),
                talker.packets.to_string(),
                format!("{:.3}", talker.duration),
                format!("{} ({})", talker.state, talker.conn_state),
                talker.history.clone(),
            ]);
        }
        talkers.write_noted(f, self.width)
    }

    /// Writes the control sessions of FTP.
    fn write_ftp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.ftp.is_empty() {
            return Ok(());
        }
        self.sentence(f, &self.summary.ftp.headline())?;
        let head = [
            "control session",
            "announced",
            "opened",
            "refused",
            "encrypted since",
        ];
        let mut controls = Columns::new(head, &[1, 2]).optional(&[4, 3]);
        for line in self.summary.ftp.lines() {
            controls.add(line);
        }
        controls.write_noted(f, self.width)
    }

    /// Writes the paths with a missing direction.
    fn write_asymmetry(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.asymmetry.is_empty() {
            return Ok(());
        }
        let head = [
            "one-way paths",
            "flows",
            "packets",
            "seconds",
            "evidence",
            "missing",
        ];
        let mut halves = Columns::new(head, &[1, 2, 3]).optional(&[5, 3]);
        for row in &self.summary.asymmetry {
            let zones = match row.other_zone {
                Some(other) => format!(" (zone {}, session in zone {other})", row.zone),
                None if row.zone != 0 => format!(" (zone {})", row.zone),
                None => String::new(),
            };
            halves.add([
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
        halves.write_noted(f, self.width)?;
        let causes: BTreeSet<_> = self
            .summary
            .asymmetry
            .iter()
            .map(|row| (row.evidence, row.likely))
            .collect();
        for (evidence, likely) in causes {
            let text = format!("{evidence}: {likely}");
            self.sentence(f, &text)?;
        }
        Ok(())
    }

    /// Writes the decisions and the traffic of each rule, if there are rules.
    fn write_rules(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.summary.rules.len() <= 1 {
            return Ok(());
        }
        let mut rules = Columns::new(["rule", "sessions decided", "packets", "bytes"], &[1, 2, 3]);
        for rule in &self.summary.rules {
            let numbers = [rule.hits, rule.packets, rule.bytes].map(|number| number.to_string());
            let [hits, packets, bytes] = numbers;
            rules.add([rule.name.clone(), hits, packets, bytes]);
        }
        rules.write_noted(f, self.width)
    }
}
