//! Zeek's `conn.log`, as a table with tabs and as JSON.
//!
//! Names, types and order are those of Zeek's record `Conn::Info`. The columns after `ip_proto` are
//! additions, as scripts of Zeek add them: `community_id` is the one of Zeek's own script.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use portcullis::policy::Protocol;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::facts::Facts;

/// Value of a column.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unset,
    Text(String),
    Count(u64),
    /// Seconds with microseconds.
    Time(Duration),
}

/// Column of the table.
struct Column {
    name: &'static str,
    kind: &'static str,
    value: fn(&Facts<'_>) -> Value,
}

const fn column(name: &'static str, kind: &'static str, value: fn(&Facts<'_>) -> Value) -> Column {
    Column { name, kind, value }
}

const COLUMNS: [Column; 28] = [
    column("ts", "time", |facts| Value::Time(facts.start)),
    column("uid", "string", |facts| text(facts.uid())),
    column("id.orig_h", "addr", |facts| {
        Value::Text(facts.flow.initiator().address.to_string())
    }),
    column("id.orig_p", "port", |facts| {
        Value::Count(originator(facts).into())
    }),
    column("id.resp_h", "addr", |facts| {
        Value::Text(facts.flow.responder().address.to_string())
    }),
    column("id.resp_p", "port", |facts| {
        Value::Count(responder(facts).into())
    }),
    column("proto", "enum", |facts| {
        Value::Text(protocol(facts).to_owned())
    }),
    // Payload is not inspected.
    column("service", "string", |_| Value::Unset),
    column("duration", "interval", |facts| match facts.session {
        Some(_) => Value::Time(facts.duration()),
        None => Value::Unset,
    }),
    // Bytes of payload are not counted.
    column("orig_bytes", "count", |_| Value::Unset),
    column("resp_bytes", "count", |_| Value::Unset),
    column("conn_state", "string", |facts| {
        text(facts.conn_state().map(str::to_owned))
    }),
    column("local_orig", "bool", |_| Value::Unset),
    column("local_resp", "bool", |_| Value::Unset),
    column("missed_bytes", "count", |_| Value::Count(0)),
    column("history", "string", |facts| text(facts.history())),
    column("orig_pkts", "count", |facts| {
        Value::Count(facts.original.packets.into())
    }),
    column("orig_ip_bytes", "count", |facts| {
        Value::Count(facts.original.bytes)
    }),
    column("resp_pkts", "count", |facts| {
        Value::Count(facts.reply.packets.into())
    }),
    column("resp_ip_bytes", "count", |facts| {
        Value::Count(facts.reply.bytes)
    }),
    // Zeek names tunnels here; the session that announced this one is none.
    column("tunnel_parents", "set[string]", |_| Value::Unset),
    column("ip_proto", "count", |facts| {
        Value::Count(facts.flow.protocol.0.into())
    }),
    column("community_id", "string", |facts| {
        text(facts.flow.community_id())
    }),
    column("action", "string", |facts| {
        Value::Text(facts.action().to_owned())
    }),
    column("rule", "string", |facts| {
        text(facts.rule.map(str::to_owned))
    }),
    column("zone", "string", |facts| text(facts.flow.zone.clone())),
    column("reason", "string", |facts| {
        text(facts.reason().map(str::to_owned))
    }),
    column("parent_uid", "string", |facts| {
        text(facts.parent_uid().map(|uid| uid.to_string()))
    }),
];

fn text(text: Option<String>) -> Value {
    text.map_or(Value::Unset, Value::Text)
}

/// Returns the originator's port; the type for ICMP, and 0 where the protocol has no ports.
fn originator(facts: &Facts<'_>) -> u16 {
    let icmp = facts.flow.icmp_type.map(u16::from);
    icmp.or(facts.flow.initiator().port).unwrap_or(0)
}

/// Returns the responder's port; the code for ICMP, and 0 where the protocol has no ports. The code
/// of a session counts as 0.
fn responder(facts: &Facts<'_>) -> u16 {
    match facts.flow.icmp_type {
        Some(_) => facts.flow.icmp_code.unwrap_or(0).into(),
        None => facts.flow.responder().port.unwrap_or(0),
    }
}

fn protocol(facts: &Facts<'_>) -> &'static str {
    match facts.flow.protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::ICMP | Protocol::ICMPV6 => "icmp",
        _ => "unknown_transport",
    }
}

/// Beginning of the header's line that has the time of opening.
pub(super) const OPENED: &str = "#open";

/// Returns the lines at the beginning of a file that is opened at a time.
pub(super) fn header(opened: SystemTime) -> String {
    let opened = humantime::format_rfc3339_seconds(opened).to_string();
    let opened: String = opened
        .chars()
        .filter(|letter| *letter != 'Z')
        .map(|letter| if letter.is_ascii_digit() { letter } else { '-' })
        .collect();
    let list = |of: fn(&Column) -> &'static str| COLUMNS.each_ref().map(of).join("\t");
    format!(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n\
         #path\tconn\n{OPENED}\t{opened}\n#fields\t{}\n#types\t{}\n",
        list(|column| column.name),
        list(|column| column.kind)
    )
}

/// Returns the row of the table.
pub(super) fn line(facts: &Facts<'_>) -> String {
    let mut line = String::with_capacity(256);
    for (place, column) in COLUMNS.iter().enumerate() {
        if place > 0 {
            line.push('\t');
        }
        // Writing to a string does not fail.
        let _ = match (column.value)(facts) {
            Value::Unset => line.write_str("-"),
            Value::Text(text) => put_escaped(&text, &mut line),
            Value::Count(count) => write!(line, "{count}"),
            Value::Time(time) => write!(line, "{}.{:06}", time.as_secs(), time.subsec_micros()),
        };
    }
    line
}

/// Appends a text. Bytes that separate columns or lines, and a text that means an unset or empty
/// value, are escaped as Zeek does it.
fn put_escaped(text: &str, line: &mut String) -> fmt::Result {
    let means_nothing = matches!(text, "-" | "(empty)");
    for (place, letter) in text.chars().enumerate() {
        match letter {
            '\\' => line.write_str("\\\\")?,
            _ if letter.is_ascii_control() || means_nothing && place == 0 => {
                write!(line, "\\x{:02x}", u32::from(letter))?;
            }
            _ => line.write_char(letter)?,
        }
    }
    Ok(())
}

/// Returns the row as an object of JSON, without the columns that are not set.
///
/// # Errors
/// Returns an error if the row cannot be written as JSON.
pub(super) fn json(facts: &Facts<'_>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Row(facts))
}

struct Row<'f>(&'f Facts<'f>);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for column in &COLUMNS {
            match (column.value)(self.0) {
                Value::Unset => {}
                Value::Text(text) => map.serialize_entry(column.name, &text)?,
                Value::Count(count) => map.serialize_entry(column.name, &count)?,
                Value::Time(time) => {
                    let seconds = time.as_micros() as f64 / 1e6;
                    map.serialize_entry(column.name, &seconds)?;
                }
            }
        }
        map.end()
    }
}
