//! Is the appliance fit for packets? And the port that says so to checks by TCP.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use parking_lot::{Mutex, RwLock};

use super::http::Page;
use super::plane::Plane;
use super::settings::HealthSettings;

/// How often the port for checks by TCP follows the verdict.
const FOLLOW: Duration = Duration::from_millis(100);

/// Why the appliance is not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unhealthy {
    /// It is about to end.
    Draining,
    /// A worker does not turn.
    Stalled(Duration),
    /// The session table is too full.
    TableFull {
        /// Sessions now.
        sessions: usize,
        /// The table's bound.
        max: usize,
        /// The setting, in percent.
        percent: u8,
    },
    /// The configuration file was refused, and what is in force is not what it says.
    FailedReload(String),
}

impl Unhealthy {
    /// The stable name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Stalled(_) => "stalled_worker",
            Self::TableFull { .. } => "table_full",
            Self::FailedReload(_) => "failed_reload",
        }
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::Draining => f.write_str("the appliance is about to end"),
            Self::Stalled(time) => write!(f, "a worker has not turned for {} ms", time.as_millis()),
            Self::TableFull {
                sessions,
                max,
                percent,
            } => write!(f, "{sessions} of {max} sessions are {percent} % or more"),
            Self::FailedReload(error) => f.write_str(error),
        }
    }
}

/// What health is judged by.
pub(crate) struct Health {
    plane: Arc<Plane>,
    settings: RwLock<HealthSettings>,
    draining: AtomicBool,
    failed_reload: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn new(plane: Arc<Plane>, settings: HealthSettings) -> Self {
        Self {
            plane,
            settings: RwLock::new(settings),
            draining: AtomicBool::new(false),
            failed_reload: Mutex::new(None),
        }
    }

    /// Everything that makes the appliance unfit at this moment; nothing if it is healthy.
    pub(crate) fn verdict(&self, now: Instant) -> Vec<Unhealthy> {
        let settings = self.settings.read();
        let mut found = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            found.push(Unhealthy::Draining);
        }
        // Its ports are bound before the workers are there: until then it is not fit.
        let stall = self.plane.shared.longest_stall(now);
        if stall > settings.stall || !self.plane.shared.has_begun() {
            found.push(Unhealthy::Stalled(stall));
        }
        let engine = &self.plane.shared.engine;
        let (sessions, max) = (engine.sessions(), engine.max_sessions());
        let percent = settings.full_table;
        if percent != 0 && sessions.saturating_mul(100) >= max.saturating_mul(usize::from(percent)) {
            found.push(Unhealthy::TableFull {
                sessions,
                max,
                percent,
            });
        }
        if let Some(error) = &*self.failed_reload.lock() {
            found.push(Unhealthy::FailedReload(error.clone()));
        }
        found
    }

    /// The end is near.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A reload has succeeded, with these settings.
    pub(crate) fn reloaded(&self, settings: HealthSettings) {
        *self.settings.write() = settings;
        *self.failed_reload.lock() = None;
    }

    /// A reload was refused: unhealthy until one succeeds.
    pub(crate) fn reload_failed(&self, error: String) {
        *self.failed_reload.lock() = Some(error);
    }

    /// The answer to a check by HTTP: a line for each reason.
    pub(crate) fn page(&self, now: Instant) -> Page {
        let reasons = self.verdict(now);
        if reasons.is_empty() {
            return Page::text(200, "healthy\n".to_owned());
        }
        let lines = reasons.iter().map(|reason| format!("{reason}\n")).collect();
        Page::text(503, lines)
    }
}

/// Keeps a port open while the appliance is healthy, and closed while it is not: what a check by TCP looks at. Returns the
/// address, and a thread that ends with `stop`.
///
/// # Errors
/// The address cannot be listened at.
pub(crate) fn follow_with_port(
    address: SocketAddr,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let open = |address| -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listener = open(address)?;
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    let follow = move || {
        while !stop.load(Ordering::Relaxed) {
            if health.verdict(Instant::now()).is_empty() {
                // A port that cannot be opened again is tried again at the next turn.
                listener = listener.take().or_else(|| open(address).ok());
            } else {
                listener = None;
            }
            if let Some(listener) = &listener {
                // That the connection was made is the answer.
                while let Ok((connection, _)) = listener.accept() {
                    drop(connection);
                }
            }
            thread::sleep(FOLLOW);
        }
    };
    let thread = thread::Builder::new()
        .name("health-tcp".to_owned())
        .spawn(follow)?;
    Ok((address, thread))
}
