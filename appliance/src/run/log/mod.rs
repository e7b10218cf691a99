//! The session log: a thread that writes a line for each session that has ended, behind a bounded queue.
//!
//! Workers put events into the queue and never wait. A disk that is full or slow, or a reader of standard output that does
//! not read, costs lines, which are counted: those that found the queue full by the sender, those that could not be written
//! here.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use portcullis::{EndReason, SessionRecord};
use serde::Serialize;

use super::plane::Plane;
use super::settings::{LogFormat, LogSettings, Logged};
use super::shared::SessionEvent;
use super::view::{SessionView, Viewer, WallClock, ZoneNames};

/// How long an event may lie in the buffer before it is written, with nothing behind it.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a writer that fails is left alone.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many lines the buffer is written whatever comes.
const LINES: usize = 256;

/// Lines written, and lines that could not be.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl LogCounters {
    /// Lines written, and lines lost since they could not be written.
    pub(crate) fn values(&self) -> (u64, u64) {
        (
            self.written.load(Ordering::Relaxed),
            self.dropped.load(Ordering::Relaxed),
        )
    }
}

/// What the log's thread needs.
pub(crate) struct SessionLog {
    pub(crate) settings: LogSettings,
    pub(crate) plane: Arc<Plane>,
    pub(crate) zones: Arc<ZoneNames>,
    pub(crate) counters: Arc<LogCounters>,
}

/// Opens the output that the settings name.
///
/// # Errors
/// The directory of the file cannot be made, or the file not be written.
pub(crate) fn open(settings: &LogSettings) -> io::Result<Box<dyn Write + Send>> {
    if settings.output.as_os_str() == "stdout" {
        return Ok(Box::new(io::stdout()));
    }
    let path = std::path::absolute(&settings.output)?;
    if path.file_name().is_none() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    // Found out here, where it is an error: the rotation takes both for granted.
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)?;
    let limit = usize::try_from(settings.rotate_bytes).unwrap_or(usize::MAX);
    Ok(Box::new(FileRotate::new(
        path,
        AppendCount::new(usize::from(settings.keep)),
        // A file ends behind the line that exceeds the limit: no line is torn.
        ContentLimit::BytesSurpassed(limit),
        Compression::None,
        None,
    )))
}

impl SessionLog {
    /// Writes what comes until all senders are gone or `stop` is set, then what is left in the queue.
    ///
    /// # Errors
    /// There can be no thread.
    pub(crate) fn start(
        self,
        events: Receiver<SessionEvent>,
        output: Box<dyn Write + Send>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("session-log".to_owned())
            .spawn(move || self.run(&events, output, &stop))
    }

    fn run(&self, events: &Receiver<SessionEvent>, output: Box<dyn Write + Send>, stop: &AtomicBool) {
        let mut lines = Lines {
            output,
            buffer: Vec::with_capacity(64 << 10),
            count: 0,
            torn: false,
            counters: &self.counters,
        };
        if self.settings.format == LogFormat::AwsVpcFlowV2 {
            lines.put(vpc::HEADER);
        }
        loop {
            match events.recv_timeout(PATIENCE) {
                Ok(event) => self.write(&event, &mut lines),
                Err(RecvTimeoutError::Timeout) => {
                    lines.flush();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        lines.flush();
    }

    fn write(&self, event: &SessionEvent, lines: &mut Lines<'_>) {
        let policy = self.plane.shared.engine.policy();
        let (record, reason): (&SessionRecord, Option<EndReason>) = match event {
            SessionEvent::Opened(_) if !self.settings.opened => return,
            SessionEvent::Opened(record) => (record, None),
            SessionEvent::Ended(record, reason) => (record, Some(*reason)),
        };
        if self.settings.sessions == Logged::Marked && !policy.logs(record.rule) {
            return;
        }
        let viewer = Viewer {
            plane: &self.plane,
            zones: &self.zones,
            policy: &policy,
            clock: WallClock::now(),
            now: Instant::now(),
        };
        match self.settings.format {
            LogFormat::Json => {
                let row = Row {
                    event: if reason.is_some() { "ended" } else { "opened" },
                    end_reason: reason.map(EndReason::name),
                    session: viewer.view(record),
                };
                if let Ok(line) = serde_json::to_string(&row) {
                    lines.put(&line);
                }
            }
            LogFormat::AwsVpcFlowV2 => {
                if reason.is_some() {
                    for line in vpc::lines(&self.settings, record, &viewer.clock) {
                        lines.put(&line);
                    }
                }
            }
        }
    }
}

/// A line of JSON.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    end_reason: Option<&'static str>,
    #[serde(flatten)]
    session: SessionView,
}

/// Whole lines on their way to an output that may fail.
struct Lines<'a> {
    output: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    count: usize,
    /// The last write has failed, perhaps in the middle of a line.
    torn: bool,
    counters: &'a LogCounters,
}

impl Lines<'_> {
    fn put(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.count += 1;
        if self.count >= LINES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let count = self.count as u64;
        match self.write_out() {
            Ok(()) => {
                self.torn = false;
                self.counters.written.fetch_add(count, Ordering::Relaxed);
            }
            Err(_) => {
                self.torn = true;
                self.counters.dropped.fetch_add(count, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        }
        self.buffer.clear();
        self.count = 0;
    }
}

impl Lines<'_> {
    fn write_out(&mut self) -> io::Result<()> {
        if self.torn {
            self.output.write_all(b"\n")?;
        }
        self.output.write_all(&self.buffer)?;
        self.output.flush()
    }
}

/// VPC flow log records of version 2, as AWS documents them.
mod vpc {
    use portcullis::{SessionRecord, event::Traffic};

    use super::{LogSettings, WallClock};

    pub(super) const HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
                                     bytes start end action log-status";

    /// A line for each direction that has sent anything. Ports are 0 where the protocol has none, and for ICMP.
    pub(super) fn lines(
        settings: &LogSettings,
        session: &SessionRecord,
        clock: &WallClock,
    ) -> impl Iterator<Item = String> {
        let has_ports = portcullis::policy::Protocol(session.protocol).has_ports();
        let port = |port| if has_ports { port } else { 0 };
        let source = (session.src, port(session.src_port));
        let destination = (session.dst, port(session.dst_port));
        let (start, end) = (
            clock.at(session.start).as_secs(),
            clock.at(session.last).as_secs(),
        );
        let (account, interface) = (settings.account_id.clone(), settings.interface_id.clone());
        let protocol = session.protocol;
        let line = move |(from, to, traffic): ((std::net::IpAddr, u16), (std::net::IpAddr, u16), Traffic)| {
            format!(
                "2 {account} {interface} {} {} {} {} {protocol} {} {} {start} {end} ACCEPT OK",
                from.0, to.0, from.1, to.1, traffic.packets, traffic.bytes
            )
        };
        [
            (source, destination, session.original),
            (destination, source, session.reply),
        ]
        .into_iter()
        .filter(|(_, _, traffic)| traffic.packets > 0)
        .map(line)
    }
}
