//! Text form of the summary of a replay.

use std::collections::BTreeSet;
use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table, TableComponent};
use portcullis::DropReason;

use super::summary::Summary;

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
        self.write_verdicts(f)?;
        self.write_notes(f)?;
        if self.fragments_held > 0 {
            let held = self.fragments_held;
            writeln!(
                f,
                "{held} fragments held, since they arrived before the first one of their datagram"
            )?;
        }
        self.write_drops(f)?;
        self.write_sessions(f)?;
        if self.resets_sent > 0 || !self.resets_unsent.is_empty() {
            let unsent: u64 = self.resets_unsent.values().sum();
            let sent = self.resets_sent;
            writeln!(
                f,
                "{sent} RSTs sent at the end of sessions and for late packets, {unsent} not sent"
            )?;
        }
        self.write_ftp(f)?;
        if self.sessions_adopted + self.sessions_bypassed > 0 {
            writeln!(
                f,
                "{} sessions adopted midstream, {} bypassed since one direction is missing",
                self.sessions_adopted, self.sessions_bypassed
            )?;
        }
        self.write_asymmetry(f)?;
        self.write_rules(f)
    }
}

impl Summary {
    /// Returns the first frames of a drop reason, as the table shows them.
    fn first_frames_of(&self, reason: &str) -> String {
        let frames = self.first_frames.get(reason).map_or(&[][..], Vec::as_slice);
        let frames: Vec<_> = frames.iter().map(u64::to_string).collect();
        frames.join(", ")
    }

    /// Writes the verdicts, the classes of forwarded packets, and the reasons of skipped frames.
    fn write_verdicts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            verdicts.add_row([
                format!("  not IP: {reason}"),
                packets.to_string(),
                String::new(),
            ]);
        }
        writeln!(f, "{verdicts}")
    }

    /// Writes anomalies of the capture.
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.without_length > 0 {
            let packets = self.without_length;
            writeln!(
                f,
                "{packets} packets state no length (segmentation offload at the sender): the \
                 frame's length is used"
            )?;
        }
        if let Some(note) = &self.time_backwards {
            writeln!(
                f,
                "note: time runs backward in {} frames, first in frame {}, by up to {} s",
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

    /// Writes the reasons of dropped packets.
    fn write_drops(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.drops.is_empty() {
            return Ok(());
        }
        let head = ["dropped because", "packets", "first frames", "which means"];
        let mut drops = table(head, &[1]);
        for (reason, packets) in &self.drops {
            let meaning = DropReason::all()
                .find(|each| each.name() == *reason)
                .map_or("", DropReason::describe);
            drops.add_row([
                reason.to_string(),
                packets.to_string(),
                self.first_frames_of(reason),
                meaning.trim().to_owned(),
            ]);
        }
        writeln!(f, "{drops}")
    }

    /// Writes the sessions by state and by end, and those with the most traffic.
    fn write_sessions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sessions == 0 {
            return Ok(());
        }
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
        self.write_talkers(f)
    }

    /// Writes the sessions with the most traffic.
    fn write_talkers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        writeln!(f, "{talkers}")
    }

    /// Writes the control sessions of FTP.
    fn write_ftp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ftp.is_empty() {
            return Ok(());
        }
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
        writeln!(f, "{controls}")
    }

    /// Writes the paths with a missing direction.
    fn write_asymmetry(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.asymmetry.is_empty() {
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
        let causes: BTreeSet<_> = self
            .asymmetry
            .iter()
            .map(|row| (row.evidence, row.likely))
            .collect();
        for (evidence, likely) in causes {
            writeln!(f, "{evidence}: {likely}")?;
        }
        Ok(())
    }

    /// Writes the decisions and the traffic of each rule, if there are rules.
    fn write_rules(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.len() <= 1 {
            return Ok(());
        }
        let mut rules = table(["rule", "sessions decided", "packets", "bytes"], &[1, 2, 3]);
        for rule in &self.rules {
            let numbers = [rule.hits, rule.packets, rule.bytes].map(|number| number.to_string());
            let [hits, packets, bytes] = numbers;
            rules.add_row([rule.name.clone(), hits, packets, bytes]);
        }
        writeln!(f, "{rules}")
    }
}
