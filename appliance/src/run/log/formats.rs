//! Formats of the session log: each makes the items of an event, which the output writes.

mod dropped;
mod ecs;
mod eve;
mod facts;
mod intervals;
pub(super) mod ipfix;
mod json;
#[cfg(test)]
mod tests;
mod vpc;
mod zeek;

use std::time::SystemTime;

use super::super::event_queue::SessionEvent;
use super::super::settings::{FlowField, LogFormat, LogOutput, LogSettings};
use super::super::view::Viewer;
use facts::Facts;
use intervals::{Intervals, Moment};

/// Renders events in the format of the settings.
#[derive(Debug)]
pub(super) struct Formatter {
    settings: LogSettings,
    /// Name of this appliance.
    host: String,
    /// Fields of flow log records.
    fields: Vec<FlowField>,
    /// Sessions that have flow log records and live on.
    intervals: Intervals,
}

/// The beginning of each file of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Header {
    /// None: lines are objects of JSON.
    Nothing,
    /// A line.
    Line(String),
    /// The lines of Zeek's files, with the time of opening.
    Zeek,
}

impl Header {
    /// Returns the beginning of a file that is opened now. The length is always the same.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Line(line) => format!("{line}\n").into_bytes(),
            Self::Zeek => zeek::header(SystemTime::now()).into_bytes(),
        }
    }

    /// Returns how many bytes of a file [`begins`](Self::begins) compares.
    pub(super) fn compared_len(&self) -> usize {
        self.bytes().len().max(1)
    }

    /// Returns whether `start`, the first bytes of a file, begins a file of the format, at any time
    /// of opening. A format without a header has objects of JSON.
    pub(super) fn begins(&self, start: &[u8]) -> bool {
        fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
            let lines = bytes.split(|byte| *byte == b'\n');
            lines.filter(|line| !line.starts_with(zeek::OPENED.as_bytes()))
        }
        match self {
            Self::Nothing => start.first() == Some(&b'{'),
            Self::Line(_) | Self::Zeek => lines(start).eq(lines(&self.bytes())),
        }
    }
}

impl Formatter {
    /// Returns the formatter of the settings.
    pub(super) fn new(settings: &LogSettings) -> Self {
        Self {
            host: settings.host(),
            fields: FlowField::list(&settings.fields).unwrap_or_default(),
            intervals: Intervals::default(),
            settings: settings.clone(),
        }
    }

    /// Returns the beginning of each file.
    pub(super) fn header(&self) -> Header {
        match self.settings.format {
            LogFormat::Zeek => Header::Zeek,
            LogFormat::AwsVpcFlow => Header::Line(vpc::header(&self.fields)),
            LogFormat::Json | LogFormat::ZeekJson | LogFormat::Eve | LogFormat::Ecs => {
                Header::Nothing
            }
        }
    }

    /// Passes the lines or records of an event to `put`, without their ends. A format may have none
    /// for an event.
    ///
    /// # Errors
    /// Returns an error if the event cannot be written as JSON.
    pub(super) fn put(
        &mut self,
        viewer: &Viewer<'_>,
        event: &SessionEvent,
        mut put_item: impl FnMut(&[u8]),
    ) -> Result<(), serde_json::Error> {
        let mut put = |line: &str| put_item(line.as_bytes());
        let format = self.settings.format;
        if matches!(self.settings.output, LogOutput::Ipfix(_)) {
            if let Some(facts) = Facts::new(event, viewer) {
                ipfix::records(&facts).for_each(|record| put_item(&record));
            }
            return Ok(());
        }
        if format == LogFormat::Json {
            put(&json::line(&self.host, viewer, event)?);
            return Ok(());
        }
        let Some(facts) = Facts::new(event, viewer) else {
            return Ok(());
        };
        match format {
            LogFormat::Json => {}
            LogFormat::Zeek => {
                if facts.is_final() {
                    put(&zeek::line(&facts));
                }
            }
            LogFormat::ZeekJson => {
                if facts.is_final() {
                    put(&zeek::json(&facts)?);
                }
            }
            LogFormat::Eve => {
                if facts.is_final() {
                    put(&eve::record(&facts, &self.host).to_string());
                }
            }
            LogFormat::Ecs => put(&ecs::event(&facts, &self.host).to_string()),
            LogFormat::AwsVpcFlow => {
                let engine = &viewer.data_path.shared.engine;
                let moment = Moment {
                    at: viewer.clock.at(viewer.now),
                    max_sessions: engine.max_sessions(),
                    is_live: &|id| engine.inspect(id, viewer.now).is_some(),
                };
                let part = self.intervals.take(&facts, &moment);
                let records = part.into_iter().flat_map(|part| vpc::records(&facts, part));
                for record in records {
                    put(&record.line(&self.fields, &self.settings));
                }
            }
        }
        Ok(())
    }
}
