//! Events as lines of text.

use std::time::{Duration, SystemTime};

use crossterm::style::{Color, Stylize};

use crate::run::observe::row::EventRow;

/// Printer of lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    /// Whether lines are for a terminal.
    pub(super) is_colored: bool,
}

impl Printer {
    /// Returns the line of an event, without its end. The steps of a traced decision follow in
    /// lines of their own.
    pub(super) fn line(&self, row: &EventRow) -> String {
        let event = format!("{:<9}", row.event);
        let event = match color(row) {
            Some(color) if self.is_colored => event.with(color).to_string(),
            _ => event,
        };
        let mut line = format!(
            "{} {event} {:<24} {:<10} {:<5} {:<47}",
            time_of_day(row.time),
            row.reason.as_deref().unwrap_or("-"),
            row.zone.as_deref().unwrap_or("-"),
            row.proto.as_deref().unwrap_or("-"),
            ends(row),
        );
        let details = details(row);
        if !details.is_empty() {
            line.push(' ');
            line.push_str(&details);
        }
        line.truncate(line.trim_end().len());
        for (number, step) in (1..).zip(&row.steps) {
            line.push_str(&format!("\n{number:4}  {step}"));
        }
        line
    }
}

/// Returns the color of an event by its consequence for the traffic.
fn color(row: &EventRow) -> Option<Color> {
    match row.event.as_str() {
        "dropped" | "denied" | "rejected" | "refused" => Some(Color::Red),
        "opened" | "forwarded" => Some(Color::Green),
        "audited" | "tolerated" | "limit" | "asymmetry" | "held" => Some(Color::Yellow),
        EventRow::LEFT_OUT => Some(Color::Magenta),
        _ => None,
    }
}

/// Returns the time of day in UTC, to a microsecond.
fn time_of_day(seconds: f64) -> String {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    let text = time.map(|time| humantime::format_rfc3339_micros(time).to_string());
    // The date is of no use in a stream; the time of day follows it.
    let text = text.as_deref().and_then(|text| text.get(11..26));
    text.unwrap_or("-").to_owned()
}

/// Returns both ends.
fn ends(row: &EventRow) -> String {
    let end = |address: Option<std::net::IpAddr>, port: Option<u16>| match (address, port) {
        (None, _) => "-".to_owned(),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    };
    if row.src.is_none() && row.dst.is_none() {
        return "-".to_owned();
    }
    format!("{} -> {}", end(row.src, row.sport), end(row.dst, row.dport))
}

/// Returns what else there is to say of an event.
pub(super) fn details(row: &EventRow) -> String {
    let mut parts = Vec::new();
    if row.event == EventRow::LEFT_OUT {
        let count = grouped(row.count.unwrap_or_default());
        return match row.reason.as_deref() {
            Some("queue") => format!("{count} events left out: a queue was full"),
            Some("past") => format!("{count} events of that time were not kept, or were lost"),
            Some("unexamined") => {
                format!("{count} forwarded packets were not compared with the filter")
            }
            Some("session_gone") => format!("{count} events left out: their sessions had gone"),
            _ => format!("{count} events left out: rate"),
        };
    }
    if let Some(rule) = &row.rule {
        parts.push(format!("rule {rule}"));
    }
    match (row.session, &row.uid) {
        (Some(session), Some(uid)) => parts.push(format!("session {session} ({uid})")),
        (Some(session), None) => parts.push(format!("session {session}")),
        (None, _) => {}
    }
    if let Some(flags) = &row.flags {
        parts.push(format!("flags {flags}"));
    }
    if let Some(bytes) = row.bytes {
        parts.push(format!("{bytes} bytes"));
    }
    if let Some(reply) = &row.reply {
        let withheld = if row.replied == Some(false) {
            " withheld"
        } else {
            ""
        };
        parts.push(format!("reply {reply}{withheld}"));
    }
    if let Some((ago, reason)) = &row.late {
        parts.push(format!("{ago:.1} s after the end ({reason})"));
    }
    if let Some(record) = &row.record {
        let session = &record.session;
        parts.push(format!(
            "{} packets, {} bytes, history {}",
            session.packets(),
            session.bytes(),
            session.history
        ));
    }
    if let Some(peer) = &row.peer {
        parts.push(format!("from {peer}"));
    }
    // The description of a drop reason is in the reference; other texts are the event itself.
    if row.verdict.is_none()
        && let Some(text) = &row.text
    {
        parts.push(text.clone());
    }
    parts.join(", ")
}

/// Returns a number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped() -> EventRow {
        EventRow {
            event: "dropped".to_owned(),
            time: 1_700_000_000.25,
            verdict: Some("drop".to_owned()),
            reason: Some("tcp_no_session".to_owned()),
            zone: Some("blue".to_owned()),
            proto: Some("tcp".to_owned()),
            src: Some([10, 0, 0, 1].into()),
            sport: Some(1234),
            dst: Some([10, 0, 0, 2].into()),
            dport: Some(80),
            flags: Some("A".to_owned()),
            bytes: Some(52),
            text: Some("Only in the reference.".to_owned()),
            ..EventRow::default()
        }
    }

    #[test]
    fn a_line_is_aligned_and_names_the_reason() {
        let printer = Printer { is_colored: false };
        assert_eq!(
            printer.line(&dropped()),
            concat!(
                "22:13:20.250000 dropped   tcp_no_session           blue       tcp   ",
                "10.0.0.1:1234 -> 10.0.0.2:80                    flags A, 52 bytes"
            )
        );
        let explained = EventRow {
            steps: vec!["first".to_owned(), "second".to_owned()],
            ..dropped()
        };
        let text = printer.line(&explained);
        assert!(text.ends_with("\n   1  first\n   2  second"), "{text}");
    }

    #[test]
    fn what_was_left_out_is_said_in_the_stream() {
        let row = EventRow {
            event: EventRow::LEFT_OUT.to_owned(),
            reason: Some("rate".to_owned()),
            count: Some(1_234_567),
            ..EventRow::default()
        };
        let line = Printer { is_colored: false }.line(&row);
        assert!(line.ends_with("1,234,567 events left out: rate"), "{line}");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345")] {
            assert_eq!(grouped(number), text);
        }
    }
}
