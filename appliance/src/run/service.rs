//! Messages to the service manager that has started the appliance, as `sd_notify(3)` describes
//! them: readiness, reloads, the end, a line of status, and signs of life for its watchdog.
//!
//! The socket never blocks a thread for longer than [`PATIENCE`]. Without `NOTIFY_SOCKET` in the
//! environment, nothing is sent.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, io, process};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use super::health::{Health, Unhealthy};
use super::shared::Shared;
use crate::output::notice;

/// Longest time that a message may wait for room in the manager's queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before another attempt to send.
const RETRY: Duration = Duration::from_millis(10);
/// Interval at which the state is read, at most; a shorter watchdog needs a shorter one.
const STEP: Duration = Duration::from_millis(100);
/// Interval at which figures of the status change.
const FIGURES: Duration = Duration::from_secs(10);
/// Longest status, in characters.
const MAX_STATUS: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Packets are not served yet.
    Starting,
    Serving,
    /// The end was requested.
    Stopping,
}

/// The service manager, or nothing if none has started the appliance.
pub(crate) struct ServiceManager {
    socket: Option<NotifySocket>,
    /// Interval in which the manager expects a sign of life.
    watchdog: Option<Duration>,
    phase: Mutex<Phase>,
    /// Outcome of the last reload, which stays in the status.
    reload: Mutex<Option<String>>,
}

/// The manager's socket and its address.
struct NotifySocket {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Whether a failure was reported.
    has_failed: AtomicBool,
}

/// State of the appliance as the manager sees it.
struct ServiceState {
    /// Whether every worker has begun.
    has_begun: bool,
    /// Whether a worker makes no progress.
    is_stalled: bool,
    /// Reasons why the appliance is unhealthy, by name.
    reasons: Vec<&'static str>,
    sessions: usize,
}

/// Status that was reported last.
struct Reported {
    at: Instant,
    state: ServiceState,
    reload: Option<String>,
}

impl ServiceManager {
    /// Returns the manager that the environment names: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` if it
    /// is meant for this process.
    pub(crate) fn of_environment() -> Self {
        let number = |name: &str| -> Option<u64> { env::var(name).ok()?.parse().ok() };
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        Self::new(
            env::var_os("NOTIFY_SOCKET"),
            watchdog.map(Duration::from_micros),
        )
    }

    fn new(address: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let socket = address.and_then(|name| match NotifySocket::open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let name = name.display();
                notice(&format!("warning: NOTIFY_SOCKET: {name}: {error}"));
                None
            }
        });
        Self {
            socket,
            watchdog,
            phase: Mutex::new(Phase::Starting),
            reload: Mutex::new(None),
        }
    }

    /// Reports that a reload has begun, if the appliance serves.
    pub(crate) fn begin_reload(&self) {
        let phase = self.phase.lock();
        if *phase == Phase::Serving {
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()));
        }
    }

    /// Reports that a reload is over, with its outcome.
    pub(crate) fn end_reload(&self, outcome: &str) {
        let phase = self.phase.lock();
        let text = format!("reload: {outcome}");
        // Before the message: the thread that follows the state adds the health to it.
        *self.reload.lock() = Some(text.clone());
        if *phase == Phase::Serving {
            self.send(&format!("READY=1\n{}", status(&text)));
        }
    }

    /// Reports that the appliance is about to end.
    pub(crate) fn stop(&self, text: &str) {
        let mut phase = self.phase.lock();
        *phase = Phase::Stopping;
        self.send(&format!("STOPPING=1\n{}", status(text)));
    }

    /// Reports that packets are served. Returns whether that is settled.
    fn serve(&self, line: &str) -> bool {
        let mut phase = self.phase.lock();
        if *phase == Phase::Starting && self.send(&format!("READY=1\n{}", status(line))) {
            *phase = Phase::Serving;
        }
        *phase != Phase::Starting
    }

    /// Sends a message. Returns whether the manager has taken it; the first failure is reported.
    fn send(&self, message: &str) -> bool {
        self.socket
            .as_ref()
            .is_none_or(|socket| socket.send(message))
    }

    /// Starts the thread that reports readiness, status and signs of life; `None` if no manager has
    /// started the appliance. The thread ends with `stop`.
    ///
    /// # Errors
    /// Returns an error if the system refuses a thread.
    pub(crate) fn start(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        health: &Arc<Health>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Option<JoinHandle<()>>> {
        if self.socket.is_none() {
            return Ok(None);
        }
        let (manager, shared, health) = (Arc::clone(self), Arc::clone(shared), Arc::clone(health));
        let follow = move || manager.follow(|| ServiceState::of(&shared, &health), &stop);
        let thread = thread::Builder::new().name("service".to_owned());
        thread.spawn(follow).map(Some)
    }

    /// Reports the state until `stop` is set. A worker that makes no progress silences the signs of
    /// life, so that the manager restarts the appliance.
    fn follow(&self, state: impl Fn() -> ServiceState, stop: &AtomicBool) {
        let step = self.watchdog.map_or(STEP, |time| STEP.min(time / 4));
        let (mut fed, mut reported) = (None::<Instant>, None::<Reported>);
        while !stop.load(Ordering::Relaxed) {
            let (state, now) = (state(), Instant::now());
            let is_due = |time: Duration| fed.is_none_or(|at| now.duration_since(at) >= time / 3);
            if self.watchdog.is_some_and(is_due) && state.has_begun && !state.is_stalled {
                // A sign that was not sent is due again at once.
                if self.send("WATCHDOG=1") {
                    fed = Some(now);
                }
            }
            let reload = self.reload.lock().clone();
            let line = state.line(reload.as_deref());
            if state.has_begun && self.serve(&line) {
                let is_news = reported.as_ref().is_some_and(|last| {
                    let is_old = now.duration_since(last.at) >= FIGURES;
                    last.reload != reload
                        || last.state.reasons != state.reasons
                        || is_old && last.state.sessions != state.sessions
                });
                if is_news {
                    self.send(&status(&line));
                }
                if is_news || reported.is_none() {
                    let at = now;
                    reported = Some(Reported { at, state, reload });
                }
            }
            thread::sleep(step);
        }
    }
}

impl NotifySocket {
    /// Opens a socket to a path, or to a name in the abstract namespace, which begins with `@`.
    fn open(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            has_failed: AtomicBool::new(false),
        })
    }

    fn send(&self, message: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
            match sent.map_err(|error| (error.kind(), error)) {
                Ok(_) => return true,
                Err((io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted, _))
                    if Instant::now() < until =>
                {
                    thread::sleep(RETRY);
                }
                Err((_, error)) => {
                    if !self.has_failed.swap(true, Ordering::Relaxed) {
                        notice(&format!(
                            "warning: the service manager takes no messages: {error}"
                        ));
                    }
                    return false;
                }
            }
        }
    }
}

impl ServiceState {
    fn of(shared: &Shared, health: &Health) -> Self {
        let verdict = health.verdict(Instant::now());
        let is_stalled = |reason: &Unhealthy| matches!(reason, Unhealthy::StalledWorker(_));
        // At the end workers have ended, and the sessions are saved.
        let is_over = shared.stop.load(Ordering::Relaxed);
        Self {
            has_begun: shared.has_begun(),
            is_stalled: !is_over && verdict.iter().any(is_stalled),
            reasons: verdict.iter().map(Unhealthy::name).collect(),
            sessions: shared.engine.sessions(),
        }
    }

    /// Returns the status in one line, with the outcome of the last reload.
    fn line(&self, reload: Option<&str>) -> String {
        let health = if self.reasons.is_empty() {
            "healthy".to_owned()
        } else {
            format!("unhealthy: {}", self.reasons.join(", "))
        };
        let reload = reload.map_or_else(String::new, |reload| format!("; {reload}"));
        format!("{health}; {} sessions{reload}", self.sessions)
    }
}

/// Returns the field of a status: one line of bounded length.
fn status(text: &str) -> String {
    let line = text.chars().take(MAX_STATUS);
    let line = line.map(|c| if c.is_control() { ' ' } else { c });
    format!("STATUS={}", line.collect::<String>())
}

/// Returns the system's monotonic time in microseconds.
fn monotonic_usec() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| Duration::from(time).as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A manager, the socket where its messages arrive, and the directory of that socket.
    fn managed(watchdog: Option<Duration>) -> (ServiceManager, UnixDatagram, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let manager = ServiceManager::new(Some(path.into_os_string()), watchdog);
        (manager, socket, directory)
    }

    fn message(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn state(has_begun: bool, reasons: &[&'static str]) -> ServiceState {
        ServiceState {
            has_begun,
            is_stalled: reasons.contains(&"stalled_worker"),
            reasons: reasons.to_vec(),
            sessions: 7,
        }
    }

    /// Follows the states one after another, the last one twice, without a pause that matters.
    fn follow(manager: &ServiceManager, states: Vec<ServiceState>) {
        let stop = AtomicBool::new(false);
        let left = Mutex::new(states);
        let next = || {
            let mut left = left.lock();
            let next = left.remove(0);
            stop.store(left.is_empty(), Ordering::Relaxed);
            next
        };
        manager.follow(next, &stop);
    }

    #[test]
    fn nothing_is_ready_before_every_worker_has_begun() {
        let (manager, socket, _directory) = managed(None);
        manager.begin_reload();
        manager.end_reload("done");
        let states = vec![state(false, &["stalled_worker"]), state(true, &[])];
        follow(&manager, states);
        let ready = "READY=1\nSTATUS=healthy; 7 sessions; reload: done";
        assert_eq!(message(&socket), ready);
    }

    #[test]
    fn a_reload_and_the_end_are_reported_in_their_order() {
        let (manager, socket, _directory) = managed(None);
        follow(&manager, vec![state(true, &[])]);
        manager.begin_reload();
        manager.end_reload("refused:\nline 3");
        manager.stop("draining");
        manager.begin_reload();
        manager.end_reload("done");
        manager.send("END");
        assert!(message(&socket).starts_with("READY=1\n"));
        let reloading = message(&socket);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let usec: u64 = usec.unwrap().parse().unwrap();
        assert!(usec > 0 && usec <= monotonic_usec());
        assert_eq!(message(&socket), "READY=1\nSTATUS=reload: refused: line 3");
        assert_eq!(message(&socket), "STOPPING=1\nSTATUS=draining");
        assert_eq!(message(&socket), "END", "no reload is reported at the end");
    }

    #[test]
    fn the_outcome_of_the_last_reload_joins_the_health_and_stays() {
        let (manager, socket, _directory) = managed(None);
        let stop = AtomicBool::new(false);
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let next = || match turn.fetch_add(1, Ordering::Relaxed) {
            0 => state(true, &[]),
            1 => {
                manager.begin_reload();
                manager.end_reload("refused: line 3");
                state(true, &[])
            }
            _ => {
                stop.store(true, Ordering::Relaxed);
                state(true, &["table_full"])
            }
        };
        manager.follow(next, &stop);
        let messages: Vec<_> = (0..5).map(|_| message(&socket)).collect();
        assert_eq!(messages[0], "READY=1\nSTATUS=healthy; 7 sessions");
        assert_eq!(
            messages[2..],
            [
                "READY=1\nSTATUS=reload: refused: line 3",
                "STATUS=healthy; 7 sessions; reload: refused: line 3",
                "STATUS=unhealthy: table_full; 7 sessions; reload: refused: line 3",
            ]
        );
    }

    #[test]
    fn a_sign_of_life_that_was_not_sent_does_not_count() {
        let (manager, socket, directory) = managed(Some(Duration::from_secs(3600)));
        let path = directory.path().join("notify");
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        let bound = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let next = || {
            // The manager is back for the second turn.
            if turn.fetch_add(1, Ordering::Relaxed) == 1 {
                *bound.lock() = Some(UnixDatagram::bind(&path).unwrap());
                stop.store(true, Ordering::Relaxed);
            }
            state(true, &[])
        };
        manager.follow(next, &stop);
        let socket = bound.into_inner().unwrap();
        assert_eq!(message(&socket), "WATCHDOG=1");
    }

    #[test]
    fn a_worker_that_stalls_silences_the_watchdog() {
        let (manager, socket, _directory) = managed(Some(Duration::from_micros(1)));
        let stalled = || state(true, &["stalled_worker"]);
        let states = vec![state(true, &[]), stalled(), stalled(), state(true, &[])];
        follow(&manager, states);
        manager.send("END");
        let messages: Vec<_> = std::iter::repeat_with(|| message(&socket))
            .take_while(|message| message != "END")
            .collect();
        assert_eq!(
            messages,
            [
                "WATCHDOG=1",
                "READY=1\nSTATUS=healthy; 7 sessions",
                "STATUS=unhealthy: stalled_worker; 7 sessions",
                "WATCHDOG=1",
                "STATUS=healthy; 7 sessions",
            ]
        );
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_a_socket() {
        let name = format!("portcullis-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::new(Some(format!("@{name}").into()), None);
        manager.stop("draining");
        assert_eq!(message(&socket), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn a_manager_that_is_gone_is_reported_and_not_fatal() {
        let manager = ServiceManager::new(Some("/nonexistent/notify".into()), None);
        assert!(!manager.serve("healthy"), "it is tried again");
        manager.stop("draining");
        assert!(manager.socket.unwrap().has_failed.into_inner());
    }
}
