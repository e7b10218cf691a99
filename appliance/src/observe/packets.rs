//! Packets of events as a capture, each with a comment on its decision.

use std::path::Path;
use std::time::Duration;

use super::error::ObserveError;
use crate::capture::CaptureWriter;
use crate::run::observe::row::{EventRow, unhex};

/// Capture of observed packets.
pub(super) struct Packets {
    writer: CaptureWriter,
    pub(super) written: u64,
}

impl Packets {
    /// Creates the capture.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, or its format has no comments.
    pub(super) fn create(path: &Path) -> Result<Self, ObserveError> {
        let is_standard = crate::output::is_standard(path);
        let is_pcapng = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"));
        if !is_standard && !is_pcapng {
            return Err(ObserveError::Format(path.display().to_string()));
        }
        let writer = CaptureWriter::create_pcapng(path)?;
        Ok(Self { writer, written: 0 })
    }

    /// Appends the packet of an event, if it has one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&mut self, row: &EventRow) -> Result<(), ObserveError> {
        let Some(bytes) = row.packet.as_deref().and_then(unhex) else {
            return Ok(());
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let wire_len = row.bytes.map_or(bytes.len(), |bytes| bytes as usize);
        let time = Duration::try_from_secs_f64(row.time).unwrap_or_default();
        self.writer.write(time, &bytes, wire_len, &comment(row))?;
        self.written += 1;
        Ok(())
    }

    /// Writes everything that is buffered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn flush(&mut self) -> Result<(), ObserveError> {
        Ok(self.writer.flush()?)
    }
}

/// Returns the comment on a packet: `name=value` pairs, and the description of the reason.
fn comment(row: &EventRow) -> String {
    let number = row.session.map(|session| session.to_string());
    let time = format!("{:.6}", row.time);
    let replied = row
        .replied
        .map(|replied| if replied { "yes" } else { "no" });
    let fields = [
        ("event", Some(row.event.as_str())),
        ("verdict", row.verdict.as_deref()),
        ("reason", row.reason.as_deref()),
        ("rule", row.rule.as_deref()),
        ("zone", row.zone.as_deref()),
        ("session", number.as_deref()),
        ("uid", row.uid.as_deref()),
        ("direction", row.direction.as_deref()),
        ("class", row.class.as_deref()),
        ("reply", row.reply.as_deref()),
        ("replied", replied),
        ("time", Some(time.as_str())),
    ];
    let fields = fields
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    let mut comment = fields.collect::<Vec<_>>().join(" ");
    for line in row.text.iter().chain(&row.steps) {
        comment.push('\n');
        comment.push_str(line);
    }
    comment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::CaptureReader;

    #[test]
    fn packets_come_back_with_their_times_and_lengths() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("drops.pcapng");
        let mut packets = Packets::create(&path).unwrap();
        let row = EventRow {
            event: "dropped".to_owned(),
            time: 1_700_000_000.5,
            verdict: Some("drop".to_owned()),
            reason: Some("tcp_state".to_owned()),
            rule: Some("web".to_owned()),
            zone: Some("blue".to_owned()),
            session: Some(7),
            uid: Some("8c1f03a2b4d5e6f7-7".to_owned()),
            bytes: Some(1500),
            packet: Some("4500ff".to_owned()),
            text: Some("Why.".to_owned()),
            ..EventRow::default()
        };
        packets.write(&row).unwrap();
        packets.write(&EventRow::default()).unwrap();
        packets.flush().unwrap();
        assert_eq!(
            packets.written, 1,
            "an event without a packet is not written"
        );
        assert_eq!(
            comment(&row),
            "event=dropped verdict=drop reason=tcp_state rule=web zone=blue session=7 \
             uid=8c1f03a2b4d5e6f7-7 time=1700000000.500000\nWhy."
        );
        let mut reader = CaptureReader::open(&path).unwrap();
        let frame = reader.next().unwrap().unwrap();
        assert_eq!(frame.bytes, [0x45, 0, 0xff]);
        assert_eq!(frame.time, Duration::from_millis(1_700_000_000_500));
        assert_eq!(frame.cut(), 1497);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn a_comment_states_whether_the_reply_was_sent() {
        for (replied, expected) in [(true, "yes"), (false, "no")] {
            let row = EventRow {
                event: "denied".to_owned(),
                reply: Some("tcp_reset".to_owned()),
                replied: Some(replied),
                ..EventRow::default()
            };
            let expected = format!("event=denied reply=tcp_reset replied={expected} time=0.000000");
            assert_eq!(comment(&row), expected);
        }
    }

    #[test]
    fn a_format_without_comments_is_refused() {
        let error = Packets::create(Path::new("/tmp/drops.pcap")).err().unwrap();
        assert!(error.to_string().contains(".pcapng"), "{error}");
    }
}
