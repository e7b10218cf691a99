//! Findings of the FTP helper in a replay, as the summary shows them.

use std::collections::BTreeMap;

use portcullis::event::HelperEvent;
use portcullis::event::HelperNote;
use serde::Serialize;

use super::rows::SessionRow;

/// Maximum number of control sessions that are shown individually; all are counted.
const SHOWN_SESSIONS: usize = 50;

/// Maximum number of events of a control session that are shown individually; all are counted.
const SHOWN_EVENTS: usize = 20;

/// Findings of the helper in all control sessions.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FtpSummary {
    /// Data sessions that were announced.
    announced: u64,
    /// Announced sessions that were opened.
    opened: u64,
    /// Control sessions that are no longer read.
    opaque: u64,
    /// Announcements that were refused or could not be read, by reason.
    refused: BTreeMap<&'static str, u64>,
    /// Every event of the helper, by name.
    pub(crate) events: BTreeMap<&'static str, u64>,
    /// The first control sessions with any event.
    sessions: Vec<ControlRow>,
}

/// A control session.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ControlRow {
    /// The number of the session in the rows of sessions.
    id: u64,
    client: String,
    server: String,
    announced: u64,
    opened: u64,
    refused: BTreeMap<&'static str, u64>,
    /// The frame after which the session is no longer read.
    opaque_since: Option<u64>,
    events: Vec<EventRow>,
}

/// An event and the frame that caused it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct EventRow {
    frame: u64,
    event: &'static str,
    direction: &'static str,
    /// The data session that was announced, refused for lack of room, or withdrawn.
    about: Option<String>,
}

impl FtpSummary {
    /// Adds the findings in a frame; `session` is the number of the control session.
    pub(crate) fn note(&mut self, frame: u64, session: Option<u64>, note: &HelperNote) {
        let name = note.event.name();
        let is_announced = note.event == HelperEvent::ExpectationOpened;
        let is_refused = note.event.is_refusal()
            || note.event.is_unread()
            || note.event == HelperEvent::ExpectationRefused;
        let is_opaque = matches!(
            note.event,
            HelperEvent::Tls | HelperEvent::NotFtp | HelperEvent::TooManyRefused
        );
        self.announced += u64::from(is_announced);
        self.opaque += u64::from(is_opaque);
        if is_refused {
            *self.refused.entry(name).or_default() += 1;
        }
        let Some(row) = session.and_then(|id| self.row(id)) else {
            return;
        };
        row.announced += u64::from(is_announced);
        if is_refused {
            *row.refused.entry(name).or_default() += 1;
        }
        if is_opaque {
            row.opaque_since.get_or_insert(frame);
        }
        if row.events.len() < SHOWN_EVENTS {
            row.events.push(EventRow {
                frame,
                event: name,
                direction: note.from.name(),
                about: note.expectation.as_ref().map(ToString::to_string),
            });
        }
    }

    /// Adds a session that has ended, or is open at the end.
    pub(crate) fn session(&mut self, row: &SessionRow) {
        if let Some(parent) = row.session.parent {
            self.opened += 1;
            if let Some(own) = self.sessions.iter_mut().find(|own| own.id == parent) {
                own.opened += 1;
            }
        }
        if let Some(own) = self.sessions.iter_mut().find(|own| row.id == Some(own.id)) {
            own.client = row.session.flow.initiator().to_string();
            own.server = row.session.flow.responder().to_string();
        }
    }

    fn row(&mut self, id: u64) -> Option<&mut ControlRow> {
        let known = self.sessions.iter().position(|row| row.id == id);
        if known.is_none() && self.sessions.len() < SHOWN_SESSIONS {
            self.sessions.push(ControlRow {
                id,
                client: String::new(),
                server: String::new(),
                announced: 0,
                opened: 0,
                refused: BTreeMap::new(),
                opaque_since: None,
                events: Vec::new(),
            });
            return self.sessions.last_mut();
        }
        self.sessions.get_mut(known?)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Returns the sentence above the table.
    pub(crate) fn headline(&self) -> String {
        format!(
            "FTP: {} data sessions announced, {} opened, {} lines refused or not read, {} control \
             sessions encrypted",
            self.announced,
            self.opened,
            self.refused.values().sum::<u64>(),
            self.opaque
        )
    }

    /// Returns the lines of the table: control session, announced, opened, refused and why, opaque
    /// since.
    pub(crate) fn lines(&self) -> impl Iterator<Item = [String; 5]> + '_ {
        self.sessions.iter().map(|row| {
            let refused: Vec<_> = row
                .refused
                .iter()
                .map(|(reason, count)| {
                    let frame = row.events.iter().find(|each| each.event == *reason);
                    let frame = frame.map(|each| format!(" from frame {}", each.frame));
                    format!("{count} {reason}{}", frame.unwrap_or_default())
                })
                .collect();
            [
                format!("{} -> {}", row.client, row.server),
                row.announced.to_string(),
                row.opened.to_string(),
                refused.join(", "),
                row.opaque_since
                    .map(|frame| format!("frame {frame}"))
                    .unwrap_or_default(),
            ]
        })
    }
}
