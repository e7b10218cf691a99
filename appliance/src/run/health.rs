//! Health of the appliance, and the port that TCP checks probe.
//!
//! A verdict takes no lock of the packet path: a check disturbs no worker, and gets an answer even
//! if a worker hangs with a lock held.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::{Mutex, RwLock};
use portcullis::LogFault;
use socket2::SockRef;

use super::data_path::DataPath;
use super::http::{self, HttpListener, Page};
use super::reloads::Reloads;
use super::settings::{FailedReload, HealthSettings};
use super::watch::{self, Failing, Judgment, Reading, Refusals, Watch};

/// Interval at which the port for TCP checks follows the verdict.
const FOLLOW: Duration = Duration::from_millis(100);

/// Reason why the appliance is unhealthy. Its text holds the stable name and figures, nothing else,
/// since any host may be able to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    /// The appliance is about to end.
    Draining,
    /// A worker does not turn.
    StalledWorker(Duration),
    /// The counters are not read, so that other reasons are unknown.
    StalledWatch(Duration),
    /// Nearly no send of a worker succeeds.
    SendFailing(Failing),
    /// A worker cannot receive.
    ReceiveFailing(Failing),
    /// The system does not report to a worker which address datagrams were sent to, so that the
    /// worker refuses them.
    DestinationUnknown(Failing),
    /// Sessions that no new one can evict fill the table.
    TableFull {
        /// Number of such sessions.
        sessions: usize,
        /// The table's bound.
        max: usize,
        /// The setting, in percent.
        percent: u8,
    },
    /// New sessions find no room, at any fill.
    SessionsRefused(Refusals),
    /// No new session is admitted, since the session log cannot be written.
    LogUnavailable(Duration),
    /// The configuration file was rejected, and the settings make this a reason.
    FailedReload,
}

impl Unhealthy {
    /// All stable names, in alphabetical order.
    pub(crate) const NAMES: [&'static str; 9] = [
        "destination_unknown",
        "draining",
        "failed_reload",
        "log_unavailable",
        "receive_failing",
        "send_failing",
        "stalled_watch",
        "stalled_worker",
        "table_full",
    ];

    /// Returns the stable name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::StalledWorker(_) => "stalled_worker",
            Self::StalledWatch(_) => "stalled_watch",
            Self::SendFailing(_) => "send_failing",
            Self::ReceiveFailing(_) => "receive_failing",
            Self::DestinationUnknown(_) => "destination_unknown",
            Self::TableFull { .. } | Self::SessionsRefused(_) => "table_full",
            Self::LogUnavailable(_) => "log_unavailable",
            Self::FailedReload => "failed_reload",
        }
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::Draining => f.write_str("the appliance is about to end"),
            Self::StalledWorker(time) => {
                write!(f, "a worker has not turned for {} ms", time.as_millis())
            }
            Self::StalledWatch(time) => {
                write!(f, "the counters were not read for {} ms", time.as_millis())
            }
            Self::SendFailing(Failing { workers, failures }) => {
                write!(
                    f,
                    "{workers} workers cannot send, {failures} datagrams not sent"
                )
            }
            Self::ReceiveFailing(Failing { workers, failures }) => {
                write!(
                    f,
                    "{workers} workers cannot receive, {failures} calls failed"
                )
            }
            Self::DestinationUnknown(Failing { workers, failures }) => {
                write!(
                    f,
                    "{workers} workers cannot answer, {failures} datagrams without our address"
                )
            }
            Self::TableFull {
                sessions,
                max,
                percent,
            } => write!(
                f,
                "{sessions} assured of {max} sessions are {percent} % or more"
            ),
            Self::SessionsRefused(Refusals { refused, opened }) => {
                write!(f, "{refused} new sessions refused in 5 s, {opened} opened")
            }
            Self::LogUnavailable(time) => write!(
                f,
                "no new session for {} ms: the session log cannot be written",
                time.as_millis()
            ),
            Self::FailedReload => f.write_str("the configuration file was refused"),
        }
    }
}

/// Health of the appliance.
pub(crate) struct Health {
    data_path: Arc<DataPath>,
    reloads: Arc<Reloads>,
    settings: RwLock<HealthSettings>,
    draining: AtomicBool,
    judgment: Mutex<Judgment>,
}

impl Health {
    pub(crate) fn new(
        data_path: Arc<DataPath>,
        reloads: Arc<Reloads>,
        settings: HealthSettings,
    ) -> Self {
        Self {
            data_path,
            reloads,
            settings: RwLock::new(settings),
            draining: AtomicBool::new(false),
            judgment: Mutex::new(Judgment::none(Instant::now())),
        }
    }

    /// Returns all reasons for which the appliance is unhealthy now; none if it is healthy.
    pub(crate) fn verdict(&self, now: Instant) -> Vec<Unhealthy> {
        let settings = self.settings.read();
        let judgment = *self.judgment.lock();
        let shared = &self.data_path.shared;
        let mut found = Vec::new();
        // Once a worker has ended, all end.
        if self.draining.load(Ordering::Relaxed) || shared.stop.load(Ordering::Relaxed) {
            found.push(Unhealthy::Draining);
        }
        // The ports are bound before the workers start: until then the appliance is unhealthy.
        let stall = shared.longest_stall(now);
        if stall > settings.stall || !shared.has_begun() {
            found.push(Unhealthy::StalledWorker(stall));
        }
        let unread = now.saturating_duration_since(judgment.at);
        if unread > settings.stall.max(watch::PERSISTS) {
            found.push(Unhealthy::StalledWatch(unread));
        }
        found.extend(judgment.sending.map(Unhealthy::SendFailing));
        found.extend(judgment.receiving.map(Unhealthy::ReceiveFailing));
        found.extend(judgment.addressing.map(Unhealthy::DestinationUnknown));
        let has_writer = !shared.engine.log_gate().has(LogFault::NoWriter);
        found.extend(Self::closed_log_of(&judgment, has_writer, &settings));
        found.extend(Self::full_table_of(
            &judgment,
            shared.engine.max_sessions(),
            &settings,
        ));
        if settings.failed_reload == FailedReload::Unhealthy && self.reloads.has_failed() {
            found.push(Unhealthy::FailedReload);
        }
        found
    }

    /// Returns the closed log, if the settings make it a reason. A log without a writer always is
    /// one: only a restart of this appliance helps.
    fn closed_log_of(
        judgment: &Judgment,
        has_writer: bool,
        settings: &HealthSettings,
    ) -> Option<Unhealthy> {
        let counts = settings.log_unavailable || !has_writer;
        let closed = judgment.log_closed.filter(|_| counts);
        closed.map(Unhealthy::LogUnavailable)
    }

    fn full_table_of(
        judgment: &Judgment,
        max: usize,
        settings: &HealthSettings,
    ) -> Option<Unhealthy> {
        let percent = settings.full_table;
        let sessions = judgment.assured.unwrap_or(0);
        if watch::is_filled(sessions, max, percent) {
            return Some(Unhealthy::TableFull {
                sessions,
                max,
                percent,
            });
        }
        let refusals = judgment.refusals.filter(|_| percent != 0);
        refusals.map(Unhealthy::SessionsRefused)
    }

    /// Returns the setting of the table's fill, in percent.
    pub(crate) fn full_table(&self) -> u8 {
        self.settings.read().full_table
    }

    /// Takes over an evaluation of the counters.
    pub(crate) fn judged(&self, judgment: Judgment) {
        *self.judgment.lock() = judgment;
    }

    /// Marks the appliance as draining.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Takes over the settings of a reload.
    pub(crate) fn reloaded(&self, settings: HealthSettings) {
        *self.settings.write() = settings;
    }

    /// Returns whether a source may send checks.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.settings.read().allows(address)
    }

    /// Returns the answer to a check by HTTP: a line for each reason.
    pub(crate) fn page(&self, now: Instant) -> Page {
        let reasons = self.verdict(now);
        if reasons.is_empty() {
            return Page::text(200, "healthy\n".to_owned());
        }
        let lines = reasons.iter().map(|reason| format!("{reason}\n")).collect();
        Page::text(503, lines)
    }
}

/// Starts the thread that reads the counters every [`watch::INTERVAL`] and evaluates them. The
/// thread ends with `stop`.
///
/// # Errors
/// Returns an error if the system refuses a thread.
pub(crate) fn watch_counters(
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let mut watch = Watch::default();
    let follow = move || {
        while !stop.load(Ordering::Relaxed) {
            let reading = Reading::take(&health.data_path.shared, health.full_table());
            health.judged(watch.judge(&reading, Instant::now()));
            thread::sleep(watch::INTERVAL);
        }
    };
    thread::Builder::new()
        .name("health-watch".to_owned())
        .spawn(follow)
}

/// Keeps a port for TCP checks open while the appliance is healthy, and closed while it is not.
/// Returns the address, and a thread that ends with `stop`.
///
/// The system completes a connection before its source can be checked, so a disallowed source finds
/// the port open, and gets a RST.
///
/// # Errors
/// Returns an error if the address is not available.
pub(crate) fn follow_with_port(
    listener: HttpListener,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let socket = http::listen(listener.address)?;
    let address = socket.local_addr()?;
    let mut socket = Some(socket);
    let follow = move || {
        while !stop.load(Ordering::Relaxed) {
            if health.verdict(Instant::now()).is_empty() {
                // A port that cannot be reopened is retried at the next turn.
                socket = socket.take().or_else(|| http::listen(address).ok());
            } else {
                socket = None;
            }
            match &socket {
                Some(socket) => accept_for(FOLLOW, socket, &listener),
                None => thread::sleep(FOLLOW),
            }
        }
    };
    let thread = thread::Builder::new()
        .name("health-tcp".to_owned())
        .spawn(follow)?;
    Ok((address, thread))
}

/// Accepts connections for a time. The completed connection is the answer.
fn accept_for(time: Duration, socket: &TcpListener, listener: &HttpListener) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match socket.accept() {
            Ok((connection, from)) => {
                if !(listener.is_allowed)(from.ip()) {
                    listener.counters.refuse();
                    http::refuse(SockRef::from(&connection));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                if poll(&mut polled, patience).is_err() {
                    thread::sleep(left);
                }
            }
            // No descriptor is left, or the client is gone.
            Err(_) => thread::sleep(left.min(FOLLOW / 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_log_is_a_reason_unless_the_settings_say_otherwise_and_a_writer_lives() {
        let mut judgment = Judgment::none(Instant::now());
        let mut settings = HealthSettings::default();
        assert_eq!(Health::closed_log_of(&judgment, true, &settings), None);
        let time = Duration::from_secs(2);
        judgment.log_closed = Some(time);
        let reason = Some(Unhealthy::LogUnavailable(time));
        assert_eq!(Health::closed_log_of(&judgment, true, &settings), reason);
        settings.log_unavailable = false;
        assert_eq!(Health::closed_log_of(&judgment, true, &settings), None);
        assert_eq!(Health::closed_log_of(&judgment, false, &settings), reason);
    }
}
