//! Parts outside the packet path: health, metrics, console, session log, control socket, signals,
//! and the sessions that are saved at the end.
//!
//! [`Operations::start`] acquires everything that another program may hold, before the workers bind
//! the port that they share. [`Operations::restore`] comes when nothing can fail any more but their
//! threads, and before those, so that workers find the restored sessions. [`Operations::is_over`]
//! reports the end of the drain time. [`Operations::finish`] comes after the workers' end, so that
//! the saved sessions are complete. Every part has a thread of its own, and none waits for another
//! one.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use portcullis::{Config, ConfigError, RestoreOptions, Restored, Saved};
use signal_hook::iterator::Handle;

use super::appliance::Appliance;
use super::checkpoint::CheckpointWriter;
use super::data_path::DataPath;
use super::event_queue::SessionEvent;
use super::health;
use super::http::{self, HttpListener, HttpRequest, Page, SourceFilter};
use super::log::{self, Interim, LogCounters, SessionLog};
use super::metrics::{AllListenerCounters, Metrics};
use super::observe::hub;
use super::settings::{Listen, Settings};
use super::store::{HandOver, StoreThreads};
use super::{census, console, control, saved, signals};
use crate::output::notice;

/// Longest time that a thread may take to end before it is abandoned.
const GRACE: Duration = Duration::from_secs(2);
/// Longest time for saving the sessions while a worker hangs and perhaps holds a lock.
const SAVE_GRACE: Duration = Duration::from_secs(30);

/// Reason why a part cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    /// The configuration does not compile.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part of the appliance cannot start.
    #[error("{key}: {what}: {source}")]
    Start {
        /// Configuration key of the part.
        key: &'static str,
        /// Description of the part.
        what: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Error of the file of saved sessions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsFileError {
    /// The sessions cannot be restored, and starting without them would lose them or bring them
    /// back later.
    #[error("run.sessions_file: {path}: {source}")]
    Restore {
        /// The file.
        path: String,
        /// Reason of the failure.
        source: saved::RestoreFileError,
    },
    /// The sessions are lost.
    #[error("run.sessions_file: {path}: the sessions are not saved: {source}")]
    Save {
        /// The file.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
}

fn part(key: &'static str, what: impl ToString) -> impl FnOnce(io::Error) -> OperateError {
    let what = what.to_string();
    move |source| OperateError::Start { key, what, source }
}

/// Input of [`Operations::start`].
pub(crate) struct Start {
    pub(crate) data_path: Arc<DataPath>,
    /// The configuration in force.
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    /// The file that both come from.
    pub(crate) file: Option<PathBuf>,
    /// The receiving end of the queue of the session log; nothing is sent if the log is off.
    pub(crate) events: Receiver<SessionEvent>,
    /// The threads of the store, if there is one.
    pub(crate) store: Option<StoreThreads>,
}

/// Addresses of the parts, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Addresses {
    /// Checks by HTTP.
    pub(crate) health: Option<SocketAddr>,
    /// Checks by TCP.
    pub(crate) health_tcp: Option<SocketAddr>,
    /// Metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// Web console.
    pub(crate) console: Option<SocketAddr>,
}

/// Threads that end with `stop`, and the signals that one of them takes; all end when this is
/// dropped.
struct Parts {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    signals: Option<Handle>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(signals) = &self.signals {
            signals.close();
        }
        let until = Instant::now() + GRACE;
        for thread in self.threads.drain(..) {
            // A thread that hangs in an output without a reader is abandoned.
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// The running parts.
pub(crate) struct Operations {
    appliance: Arc<Appliance>,
    pub(crate) addresses: Addresses,
    control: Option<PathBuf>,
    /// Hand-over of all sessions to the store at the end, if there is one.
    hand_over: Option<Arc<HandOver>>,
    /// Whether the file of saved sessions was renamed, since they are restored.
    has_taken: AtomicBool,
    /// Held for its end.
    _parts: Parts,
}

impl Operations {
    /// Starts every part that the settings ask for.
    ///
    /// # Errors
    /// A part that is asked for cannot start, or sessions cannot be saved. The parts that have
    /// started end again.
    pub(crate) fn start(start: Start) -> Result<Self, OperateError> {
        let Start {
            data_path,
            config,
            settings,
            file,
            events,
            store,
        } = start;
        let appliance = Arc::new(Appliance::new(data_path, &config, settings.clone(), file)?);
        let mut parts = Parts {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            signals: None,
        };
        // From here on, an early end is an orderly one.
        watchers(&appliance, &mut parts)?;
        let control = control_socket(&appliance, &settings, &mut parts)?;
        let counters = Arc::new(LogCounters::default());
        let addresses = listeners(&appliance, &settings, Arc::clone(&counters), &mut parts)?;
        if let Some(path) = &settings.run.sessions_file {
            let place = format!("{}: no sessions can be saved there", path.display());
            saved::check(path).map_err(part("run.sessions_file", place))?;
        }
        let writer = {
            let appliance = Arc::clone(&appliance);
            CheckpointWriter {
                data_path: Arc::clone(&appliance.data_path),
                checkpoints: Arc::clone(&appliance.checkpoints),
                settings: move || appliance.settings.lock().run.clone(),
            }
        };
        let checkpoints = writer.start(Arc::clone(&parts.stop));
        parts
            .threads
            .push(checkpoints.map_err(part("run.checkpoint", "a thread"))?);
        if settings.log.is_on() {
            let output =
                log::open(&settings.log).map_err(part("log.output", settings.log.output.text()))?;
            if let Some(interim) = Interim::new(&settings.log, &appliance.data_path) {
                let thread = interim.start(Arc::clone(&parts.stop));
                parts.threads.push(thread.map_err(part("log", "a thread"))?);
            }
            let log = SessionLog {
                settings: settings.log.clone(),
                data_path: Arc::clone(&appliance.data_path),
                zones: Arc::clone(&appliance.zones),
                counters,
            };
            let thread = log.start(events, output, Arc::clone(&parts.stop));
            parts.threads.push(thread.map_err(part("log", "a thread"))?);
        }
        let hand_over = match store {
            Some(store) => {
                let hand_over = Arc::default();
                let threads = store.start(&appliance.data_path, &hand_over, &parts.stop);
                let threads = threads.map_err(part("store", "a thread"))?;
                parts.threads.extend(threads);
                Some(hand_over)
            }
            None => None,
        };
        Ok(Self {
            appliance,
            addresses,
            control,
            hand_over,
            has_taken: AtomicBool::new(false),
            _parts: parts,
        })
    }

    /// Restores the sessions that the last end has saved, and renames their file. After a crash,
    /// restores those of the last checkpoint, which stays until the next one. A file that cannot be
    /// used is not an error: a message reports it, and the start continues.
    ///
    /// # Errors
    /// The file of an end cannot be renamed: a later start would restore it again.
    pub(crate) fn restore(&self) -> Result<(), SessionsFileError> {
        let run = self.appliance.settings.lock().run.clone();
        let Some(path) = run.sessions_file else {
            return Ok(());
        };
        let engine = &self.appliance.data_path.shared.engine;
        // Another run has other numbers for its tunnels.
        let options = RestoreOptions {
            max_age: Some(run.max_saved_age),
            ..RestoreOptions::default()
        };
        match saved::restore(engine, &path, options) {
            Ok(None) => {}
            Ok(Some(done)) => {
                self.has_taken.store(true, Ordering::Relaxed);
                saved::remove_checkpoint(&path);
                notice(&format!("{}: {}", path.display(), restored(&done)));
                return Ok(());
            }
            Err(source @ saved::RestoreFileError::NotTaken(_)) => {
                return Err(SessionsFileError::Restore {
                    path: path.display().to_string(),
                    source,
                });
            }
            Err(error) => notice(&format!("{}: no session restored: {error}", path.display())),
        }
        if run.checkpoint.0.is_none() {
            return Ok(());
        }
        let options = RestoreOptions {
            moved_on: true,
            ..options
        };
        match saved::restore_checkpoint(engine, &path, options) {
            Ok(None) => {}
            Ok(Some(done)) => notice(&format!(
                "{}: from the checkpoint: {}",
                path.display(),
                restored(&done)
            )),
            Err(error) => notice(&format!(
                "{}: no session restored from its checkpoint: {error}",
                path.display()
            )),
        }
        Ok(())
    }

    /// Puts the file of restored sessions back, since the start has failed after
    /// [`Operations::restore`].
    pub(crate) fn put_back(&self) {
        if let Some(path) = self.sessions_file()
            && self.has_taken.load(Ordering::Relaxed)
            && let Err(error) = saved::put_back(&path)
        {
            notice(&format!("{}: cannot be put back: {error}", path.display()));
        }
    }

    fn sessions_file(&self) -> Option<PathBuf> {
        self.appliance.settings.lock().run.sessions_file.clone()
    }

    /// Returns the shared parts.
    #[cfg(test)]
    pub(crate) fn appliance(&self) -> &Appliance {
        &self.appliance
    }

    /// Asks for the end, as SIGTERM does.
    #[cfg(test)]
    pub(crate) fn end(&self) {
        self.appliance.end();
    }

    /// Reports the addresses of the parts, and those that are off.
    pub(crate) fn announce(&self) {
        let address = |address: Option<SocketAddr>| match address {
            Some(address) => format!("at {address}"),
            None => "off".to_owned(),
        };
        let path = |path: &Option<PathBuf>| match path {
            Some(path) => format!("at {}", path.display()),
            None => "off".to_owned(),
        };
        let settings = self.appliance.settings.lock().clone();
        let log = settings.log.is_on();
        let log = log.then(|| settings.log.output.text().into());
        let parts = [
            ("health by HTTP", address(self.addresses.health)),
            ("health by TCP", address(self.addresses.health_tcp)),
            ("metrics", address(self.addresses.metrics)),
            ("console", address(self.addresses.console)),
            ("control", path(&self.control)),
            ("session log", path(&log)),
            ("saved sessions", path(&settings.run.sessions_file)),
        ]
        .map(|(name, place)| format!("{name} {place}"));
        notice(&parts.join("; "));
    }

    /// Returns whether the end was requested and the drain time is over, so that the workers must
    /// end now.
    pub(crate) fn is_over(&self) -> bool {
        self.appliance.ending.has_come(Instant::now())
    }

    /// Saves the sessions if that was asked for, and ends all parts. The workers have ended before;
    /// if one hangs, saving must not.
    ///
    /// # Errors
    /// The sessions are not saved.
    pub(crate) fn finish(self, hangs: bool) -> Result<(), SessionsFileError> {
        self.appliance.checkpoints.end();
        // A worker that hangs may hold a lock that the sweep waits for.
        if let Some(hand_over) = self.hand_over.as_ref().filter(|_| !hangs) {
            notice(&format!("store: {}", hand_over.run()));
        }
        let Some(path) = self.sessions_file() else {
            return Ok(());
        };
        let saved = if hangs {
            self.save_in_time(&path)
        } else {
            saved::save(&self.appliance.data_path.shared.engine, &path)
        };
        match saved {
            Ok(saved) => {
                saved::remove_checkpoint(&path);
                notice(&format!(
                    "{} sessions saved in {} ({} bytes)",
                    saved.sessions,
                    path.display(),
                    saved.bytes
                ));
                Ok(())
            }
            Err(source) => Err(SessionsFileError::Save {
                path: path.display().to_string(),
                source,
            }),
        }
    }

    fn save_in_time(&self, path: &Path) -> io::Result<Saved> {
        let (sender, result) = sync_channel(1);
        let (data_path, path) = (Arc::clone(&self.appliance.data_path), path.to_owned());
        let save = move || {
            let _ = sender.send(saved::save(&data_path.shared.engine, &path));
        };
        thread::Builder::new().name("save".to_owned()).spawn(save)?;
        result.recv_timeout(SAVE_GRACE).unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a worker that hangs seems to hold some of them",
            ))
        })
    }
}

/// Outcome of a restore, in words.
fn restored(done: &Restored) -> String {
    format!(
        "{} sessions restored, saved {} ago, {} had expired, {} are no longer admitted, {} found \
         no room",
        done.sessions,
        humantime::format_duration(Duration::from_secs(done.age.as_secs())),
        done.expired,
        done.refused,
        done.no_room
    )
}

/// Starts the threads that take signals, judge the health, report to the service manager and serve
/// observers.
fn watchers(appliance: &Arc<Appliance>, parts: &mut Parts) -> Result<(), OperateError> {
    let (signals, threads) = signals::start(appliance).map_err(part("run", "signals"))?;
    parts.signals = Some(signals);
    parts.threads.extend(threads);
    let (data_path, health) = (&appliance.data_path, &appliance.health);
    let watch = health::watch_counters(Arc::clone(health), Arc::clone(&parts.stop));
    parts
        .threads
        .push(watch.map_err(part("health", "a thread"))?);
    let manager = &appliance.manager;
    let service = manager.start(&data_path.shared, health, Arc::clone(&parts.stop));
    parts
        .threads
        .extend(service.map_err(part("run", "a thread"))?);
    let hub = hub::start(Arc::clone(data_path), Arc::clone(&parts.stop));
    parts.threads.push(hub.map_err(part("run", "a thread"))?);
    Ok(())
}

/// Starts all listeners for HTTP and for checks by TCP, and returns their addresses.
fn listeners(
    appliance: &Arc<Appliance>,
    settings: &Settings,
    log: Arc<LogCounters>,
    parts: &mut Parts,
) -> Result<Addresses, OperateError> {
    let counters = AllListenerCounters::default();
    Ok(Addresses {
        console: web_console(appliance, settings, &counters, parts)?,
        ..pages(appliance, settings, log, &counters, parts)?
    })
}

/// Starts the console, if there is one, and returns its address.
fn web_console(
    appliance: &Arc<Appliance>,
    settings: &Settings,
    counters: &AllListenerCounters,
    parts: &mut Parts,
) -> Result<Option<SocketAddr>, OperateError> {
    let Listen(Some(address)) = settings.console.listen else {
        return Ok(None);
    };
    let anybody: SourceFilter = Arc::new(|_| true);
    let started = console::start(
        appliance,
        &settings.console,
        HttpListener::new(address, &anybody, &counters.console),
        Arc::clone(&counters.console_requests),
        &parts.stop,
    );
    let started = started.map_err(|fault| part(fault.key, fault.what)(fault.source))?;
    parts.threads.extend(started.threads);
    Ok(Some(started.address))
}

/// Starts the listeners of health and metrics, and returns their addresses.
fn pages(
    appliance: &Arc<Appliance>,
    settings: &Settings,
    log: Arc<LogCounters>,
    listeners: &AllListenerCounters,
    parts: &mut Parts,
) -> Result<Addresses, OperateError> {
    let Parts { stop, threads, .. } = parts;
    let mut addresses = Addresses::default();
    let metrics = Arc::new(Metrics {
        data_path: Arc::clone(&appliance.data_path),
        health: Arc::clone(&appliance.health),
        reloads: Arc::clone(&appliance.reloads),
        listeners: listeners.clone(),
        log,
        started: appliance.started,
        started_at: SystemTime::now(),
        checkpoints: Arc::clone(&appliance.checkpoints),
        census: Arc::default(),
        zones: Arc::clone(&appliance.zones),
    });
    let (Listen(for_health), Listen(for_metrics)) =
        (settings.health.listen, settings.metrics.listen);
    let is_shared = for_health == for_metrics;
    if for_metrics.is_some() {
        let (census, shared) = (
            Arc::clone(&metrics.census),
            Arc::clone(&appliance.data_path.shared),
        );
        let thread = census::start(census, shared, Arc::clone(stop));
        threads.push(thread.map_err(part("metrics", "a thread"))?);
    }
    let probers: SourceFilter = {
        let health = Arc::clone(&appliance.health);
        Arc::new(move |address| health.allows(address))
    };
    if let Some(address) = for_health {
        let health = Arc::clone(&appliance.health);
        let metrics = is_shared.then(|| Arc::clone(&metrics));
        let handler = move |request: HttpRequest<'_>| match &metrics {
            Some(metrics) if request.path == "/metrics" => {
                metrics.page(request.accept, Instant::now())
            }
            _ => health.page(Instant::now()),
        };
        let listener = HttpListener::new(address, &probers, &listeners.health);
        let (address, thread) =
            http::serve("health", listener, Arc::new(handler), Arc::clone(stop))
                .map_err(part("health.listen", address))?;
        addresses.health = Some(address);
        addresses.metrics = is_shared.then_some(address);
        threads.push(thread);
    }
    if let (Some(address), false) = (for_metrics, is_shared) {
        let handler = move |request: HttpRequest<'_>| match request.path {
            "/metrics" => metrics.page(request.accept, Instant::now()),
            _ => Page::text(404, "/metrics\n".to_owned()),
        };
        let anybody: SourceFilter = Arc::new(|_| true);
        let listener = HttpListener::new(address, &anybody, &listeners.metrics);
        let (address, thread) =
            http::serve("metrics", listener, Arc::new(handler), Arc::clone(stop))
                .map_err(part("metrics.listen", address))?;
        addresses.metrics = Some(address);
        threads.push(thread);
    }
    if let Listen(Some(address)) = settings.health.tcp_listen {
        let health = Arc::clone(&appliance.health);
        let listener = HttpListener::new(address, &probers, &listeners.health_tcp);
        let (address, thread) = health::follow_with_port(listener, health, Arc::clone(stop))
            .map_err(part("health.tcp_listen", address))?;
        addresses.health_tcp = Some(address);
        threads.push(thread);
    }
    Ok(addresses)
}

/// Starts the control socket. Returns its path, if there is one.
fn control_socket(
    appliance: &Arc<Appliance>,
    settings: &Settings,
    parts: &mut Parts,
) -> Result<Option<PathBuf>, OperateError> {
    let Some(path) = settings.run.control_path() else {
        return Ok(None);
    };
    let is_asked_for = settings.run.control.is_asked_for;
    let made = if is_asked_for {
        Ok(())
    } else {
        control::make_directory(&path)
    };
    match made.and_then(|()| control::serve(&path, Arc::clone(appliance), Arc::clone(&parts.stop)))
    {
        Ok(thread) => {
            parts.threads.push(thread);
            Ok(Some(path))
        }
        Err(source) if is_asked_for => Err(part("run.control", path.display())(source)),
        // The default path is not requested explicitly.
        Err(error) => {
            notice(&format!(
                "no control socket: {}: {error}; `run.control` names another place",
                path.display()
            ));
            Ok(None)
        }
    }
}
