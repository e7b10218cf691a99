//! Columns of the list, and which of them a width has room for.

use super::super::table::{amount, span};
use crate::run::protocol::{GroupView, SortKey};
use crate::run::view::ListedSession;

/// Narrowest column of an endpoint.
const MIN_ENDPOINT: u16 = 15;
/// Widest column of an endpoint: an IPv6 address with a port.
const MAX_ENDPOINT: u16 = 45;
/// Widest column of a name that has all the room that is left.
const MAX_NAME: u16 = 60;
/// Columns between two columns.
pub(super) const GAP: u16 = 1;

/// Property of a session or group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Rate,
    PacketRate,
    Sessions,
    Protocol,
    Initiator,
    Responder,
    Group,
    State,
    Age,
    Left,
    Bytes,
    Packets,
    Zone,
    Rule,
    Number,
}

/// Column with its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) column: Column,
    pub(super) width: u16,
}

/// Columns of sessions: from left to right, with the order in which they get room.
const OF_SESSIONS: [(Column, u8); 13] = [
    (Column::Rate, 0),
    (Column::PacketRate, 3),
    (Column::Protocol, 4),
    (Column::Initiator, 1),
    (Column::Responder, 2),
    (Column::State, 7),
    (Column::Age, 5),
    (Column::Left, 12),
    (Column::Bytes, 6),
    (Column::Packets, 9),
    (Column::Zone, 10),
    (Column::Rule, 8),
    (Column::Number, 11),
];

/// Columns of groups, likewise.
const OF_GROUPS: [(Column, u8); 7] = [
    (Column::Rate, 0),
    (Column::PacketRate, 2),
    (Column::Sessions, 3),
    (Column::Group, 1),
    (Column::Age, 6),
    (Column::Bytes, 4),
    (Column::Packets, 5),
];

impl Column {
    /// Returns the title.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Rate => "bytes/s",
            Self::PacketRate => "pkts/s",
            Self::Sessions => "sessions",
            Self::Protocol => "proto",
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::Group => "group",
            Self::State => "state",
            Self::Age => "age",
            Self::Left => "left",
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Zone => "zone",
            Self::Rule => "rule",
            Self::Number => "number",
        }
    }

    /// Returns whether texts stand at the right edge.
    pub(super) const fn is_number(self) -> bool {
        matches!(
            self,
            Self::Rate
                | Self::PacketRate
                | Self::Sessions
                | Self::Age
                | Self::Left
                | Self::Bytes
                | Self::Packets
                | Self::Number
        )
    }

    /// Returns whether the rows are in the order of this column.
    pub(super) const fn is_sorted_by(self, sort: SortKey) -> bool {
        matches!(
            (self, sort),
            (Self::Rate, SortKey::Rate)
                | (Self::PacketRate, SortKey::PacketRate)
                | (Self::Bytes, SortKey::Bytes)
                | (Self::Packets, SortKey::Packets)
                | (Self::Age, SortKey::Age)
                | (Self::Sessions, SortKey::Sessions)
        )
    }

    /// Returns the least and the largest width.
    const fn widths(self) -> [u16; 2] {
        match self {
            Self::Rate | Self::PacketRate => [7, 7],
            Self::Sessions | Self::Packets => [8, 8],
            Self::Protocol => [5, 5],
            Self::Initiator | Self::Responder => [MIN_ENDPOINT, MAX_ENDPOINT],
            Self::Group => [8, MAX_NAME],
            Self::State => [11, 11],
            Self::Age | Self::Left => [5, 5],
            Self::Bytes => [6, 6],
            Self::Zone => [10, 10],
            Self::Rule => [12, 30],
            Self::Number => [14, 14],
        }
    }

    /// Returns the text for a session; `now` is in seconds since the Unix epoch.
    pub(super) fn of_session(self, row: &ListedSession, now: f64) -> String {
        let view = &row.session;
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), amount);
        match self {
            Self::Rate => rate(row.rate.map(|rate| rate.bytes)),
            Self::PacketRate => rate(row.rate.map(|rate| rate.packets)),
            Self::Protocol => view.flow.protocol.to_string(),
            Self::Initiator => view.flow.initiator().in_list(),
            Self::Responder => view.flow.responder().in_list(),
            Self::State => view.state.to_string(),
            Self::Age => span(now - view.start),
            Self::Left => span(row.left),
            Self::Bytes => amount(view.bytes() as f64),
            Self::Packets => amount(view.packets() as f64),
            Self::Zone => view.flow.zone.clone(),
            Self::Rule => view.rule.clone(),
            Self::Number => row.id.to_string(),
            Self::Sessions | Self::Group => String::new(),
        }
    }

    /// Returns the text for a group; `now` is in seconds since the Unix epoch.
    pub(super) fn of_group(self, row: &GroupView, now: f64) -> String {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), amount);
        match self {
            Self::Rate => rate(row.rate.map(|rate| rate.bytes)),
            Self::PacketRate => rate(row.rate.map(|rate| rate.packets)),
            Self::Sessions => row.sessions.to_string(),
            Self::Group => row.name.clone(),
            Self::Age => span(now - row.start),
            Self::Bytes => amount(row.bytes as f64),
            Self::Packets => amount(row.packets as f64),
            _ => String::new(),
        }
    }
}

/// Returns the columns of sessions that a width has room for, from left to right. `endpoint` is
/// the length of the longest endpoint that is to be shown whole.
pub(super) fn of_sessions(width: u16, endpoint: usize) -> Vec<Placed> {
    place(&OF_SESSIONS, width, endpoint)
}

/// Returns the columns of groups that a width has room for, from left to right. `name` is the
/// length of the longest name.
pub(super) fn of_groups(width: u16, name: usize) -> Vec<Placed> {
    place(&OF_GROUPS, width, name)
}

fn place(columns: &[(Column, u8)], width: u16, longest: usize) -> Vec<Placed> {
    let longest = u16::try_from(longest).unwrap_or(u16::MAX);
    let wanted = |column: Column| {
        let [least, most] = column.widths();
        match column {
            Column::Initiator | Column::Responder | Column::Group => longest.clamp(least, most),
            _ => least,
        }
    };
    let mut order = columns.to_vec();
    order.sort_by_key(|(_, turn)| *turn);
    // The first columns of the order have room whatever their width; endpoints and names are
    // shown whole before further columns come.
    let needed = if columns.len() == OF_SESSIONS.len() {
        5
    } else {
        2
    };
    let mut placed: Vec<Placed> = Vec::with_capacity(columns.len());
    let mut left = width;
    for (n, (column, _)) in order.iter().enumerate() {
        let [least, _] = column.widths();
        let own = if n < needed { least } else { wanted(*column) };
        let gap = if placed.is_empty() { 0 } else { GAP };
        if own + gap <= left {
            left -= own + gap;
            let column = *column;
            placed.push(Placed { column, width: own });
        }
        if n + 1 == needed {
            left = grow(&mut placed, left, wanted);
        }
    }
    grow(&mut placed, left, |column| column.widths()[1]);
    let position = |column: Column| columns.iter().position(|(each, _)| *each == column);
    placed.sort_by_key(|placed| position(placed.column));
    placed
}

/// Widens columns by turns up to their bounds. Returns the room that is left.
fn grow(placed: &mut [Placed], mut left: u16, bound: impl Fn(Column) -> u16) -> u16 {
    let mut has_grown = true;
    while left > 0 && has_grown {
        has_grown = false;
        for each in &mut *placed {
            if left > 0 && each.width < bound(each.column) {
                each.width += 1;
                left -= 1;
                has_grown = true;
            }
        }
    }
    left
}

/// Returns a text that fits a width: its middle is left out if it is longer.
pub(super) fn fit(text: &str, width: u16) -> String {
    let (width, length) = (usize::from(width), text.chars().count());
    if length <= width {
        return text.to_owned();
    }
    let Some(shown) = width.checked_sub(1) else {
        return String::new();
    };
    let tail = shown / 2;
    let head = text.chars().take(shown - tail);
    let end = text.chars().skip(length - tail);
    head.chain(['\u{2026}']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(placed: &[Placed]) -> Vec<&'static str> {
        placed.iter().map(|placed| placed.column.title()).collect()
    }

    fn total(placed: &[Placed]) -> usize {
        let widths: usize = placed.iter().map(|placed| usize::from(placed.width)).sum();
        widths + placed.len().saturating_sub(1) * usize::from(GAP)
    }

    #[test]
    fn more_width_shows_more_columns() {
        let columns = |width, endpoint| names(&of_sessions(width, endpoint)).join(" ");
        let rows = [
            (80, 21, "bytes/s pkts/s proto initiator responder age bytes"),
            (80, 45, "bytes/s pkts/s proto initiator responder"),
            (50, 21, "bytes/s pkts/s initiator responder"),
            (24, 21, "bytes/s initiator"),
            (
                200,
                21,
                "bytes/s pkts/s proto initiator responder state age left bytes packets zone rule \
                 number",
            ),
        ];
        for (width, endpoint, wanted) in rows {
            assert_eq!(columns(width, endpoint), wanted, "{width} {endpoint}");
        }
        assert_eq!(names(&of_groups(20, 9)).join(" "), "bytes/s group");
    }

    #[test]
    fn no_width_is_exceeded_and_endpoints_use_what_is_left() {
        for width in 0..300 {
            for longest in [0, 10, 21, 45, 1_000] {
                for placed in [of_sessions(width, longest), of_groups(width, longest)] {
                    assert!(total(&placed) <= usize::from(width), "{width} {longest}");
                }
            }
        }
        let placed = of_sessions(200, 45);
        let endpoint = placed
            .iter()
            .find(|placed| placed.column == Column::Initiator);
        assert_eq!(endpoint.map(|placed| placed.width), Some(45));
    }

    #[test]
    fn a_text_without_room_loses_its_middle() {
        let rows = [
            ("2001:db8::1#443", 15, "2001:db8::1#443"),
            ("2001:db8::1#443", 10, "2001:\u{2026}#443"),
            ("2001:db8::1#443", 1, "\u{2026}"),
            ("2001:db8::1#443", 0, ""),
        ];
        for (text, width, wanted) in rows {
            assert_eq!(fit(text, width), wanted);
        }
    }
}
