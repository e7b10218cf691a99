//! What stands around the packet path, put together: health, metrics, session log, control socket, signals, and the sessions
//! that are saved at the end.
//!
//! [`Operations::start`] comes before the workers, so that they find restored sessions; [`Operations::is_over`] tells
//! when the drain time is over; [`Operations::finish`] comes behind the workers' end, so that what is saved misses nothing. Every part has a
//! thread of its own, and none of them waits for another one.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis::{Config, ConfigError};
use signal_hook::iterator::Handle;

use super::drain::Ending;
use super::health::{self, Health};
use super::http::{self, Page};
use super::log::{self, LogCounters, SessionLog};
use super::metrics::Metrics;
use super::plane::Plane;
use super::settings::{Listen, Settings};
use super::shared::SessionEvent;
use super::view::ZoneNames;
use super::{control, saved, signals};
use crate::{complain, config_file};

/// How long a thread may take to end before it is left behind.
const GRACE: Duration = Duration::from_secs(2);

/// Why the appliance cannot be operated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    /// The configuration does not compile.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part of it cannot start.
    #[error("{key}: {what}: {source}")]
    Part {
        /// The key that it is set by.
        key: &'static str,
        /// What could not be had.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn part(key: &'static str, what: impl ToString) -> impl FnOnce(io::Error) -> OperateError {
    let what = what.to_string();
    move |source| OperateError::Part { key, what, source }
}

/// What all parts look at.
pub(crate) struct Plant {
    pub(crate) plane: Arc<Plane>,
    pub(crate) health: Arc<Health>,
    pub(crate) zones: Arc<ZoneNames>,
    pub(crate) started: Instant,
    settings: Mutex<Settings>,
    file: Option<PathBuf>,
    ending: Ending,
}

impl Plant {
    /// A configuration as this appliance would run it.
    pub(crate) fn adapted(&self, config: Config) -> Config {
        self.plane.adapt(config)
    }

    /// Asks for the end.
    pub(crate) fn end(&self) {
        self.health.drain();
        self.plane.drain();
        let drain = self.settings.lock().run.drain;
        let left = self.ending.ask(drain, Instant::now());
        complain(&format!(
            "asked to end: serving for another {}",
            humantime::format_duration(left)
        ));
    }

    /// Reads the configuration file again; what was done, in words. A file that is refused makes the appliance unhealthy, and
    /// the old configuration goes on.
    ///
    /// # Errors
    /// Why it was refused.
    pub(crate) fn reload(&self) -> Result<String, String> {
        let Some(file) = &self.file else {
            return Err("started without a configuration file: there is nothing to reload".to_owned());
        };
        self.reload_from(file).inspect_err(|error| {
            self.health.reload_failed(error.clone());
        })
    }

    fn reload_from(&self, file: &Path) -> Result<String, String> {
        // One at a time, from the file to the end.
        let mut in_force = self.settings.lock();
        let (config, settings) = config_file::load_all(file).map_err(|error| error.to_string())?;
        if let Some(key) = settings.differs(&in_force) {
            return Err(format!("{}: {key}: only a start can change this", file.display()));
        }
        let done = self
            .plane
            .reload(config.clone(), Instant::now())
            .map_err(|error| error.to_string())?;
        self.zones.replace(&config);
        self.health.reloaded(settings.health.clone());
        *in_force = settings;
        Ok(format!(
            "{} sessions judged anew, {} ended by the policy, {} by their lifetime, {} kept against the policy",
            done.judged, done.revoked, done.expired, done.kept
        ))
    }
}

/// What is needed to start.
pub(crate) struct Start {
    pub(crate) plane: Arc<Plane>,
    /// The configuration in force.
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    /// The file that both come from.
    pub(crate) file: Option<PathBuf>,
    /// The receiving end of the queue of the session log; nothing is sent if the log is off.
    pub(crate) events: Receiver<SessionEvent>,
}

/// Where the parts are found, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Addresses {
    /// Checks by HTTP.
    pub(crate) health: Option<SocketAddr>,
    /// Checks by TCP.
    pub(crate) health_tcp: Option<SocketAddr>,
    /// Metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

/// The running parts.
pub(crate) struct Operations {
    plant: Arc<Plant>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    signals: Handle,
    pub(crate) addresses: Addresses,
}

impl Operations {
    /// Restores saved sessions, and starts every part that the settings ask for.
    ///
    /// # Errors
    /// A part that is asked for cannot start. Saved sessions that are refused are no error: it is said, and the start goes on.
    pub(crate) fn start(start: Start) -> Result<Self, OperateError> {
        let Start {
            plane,
            config,
            settings,
            file,
            events,
        } = start;
        let health = Arc::new(Health::new(Arc::clone(&plane), settings.health.clone()));
        let plant = Arc::new(Plant {
            zones: Arc::new(ZoneNames::new(&config)?),
            started: Instant::now(),
            settings: Mutex::new(settings.clone()),
            ending: Ending::default(),
            health,
            plane,
            file,
        });
        if let Some(path) = &settings.run.sessions_file {
            restore(&plant, path);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let counters = Arc::new(LogCounters::default());
        if settings.log.is_on() {
            let output =
                log::open(&settings.log).map_err(part("log.output", settings.log.output.display()))?;
            let log = SessionLog {
                settings: settings.log.clone(),
                plane: Arc::clone(&plant.plane),
                zones: Arc::clone(&plant.zones),
                counters: Arc::clone(&counters),
            };
            let thread = log.start(events, output, Arc::clone(&stop));
            threads.push(thread.map_err(part("log", "a thread"))?);
        }
        let addresses = pages(&plant, &settings, counters, &stop, &mut threads)?;
        control_socket(&plant, &settings, &stop, &mut threads)?;
        let (signals, thread) = signals::start(Arc::clone(&plant)).map_err(part("run", "signals"))?;
        threads.push(thread);
        Ok(Self {
            plant,
            stop,
            threads,
            signals,
            addresses,
        })
    }

    /// What all parts look at.
    #[cfg(test)]
    pub(crate) fn plant(&self) -> &Plant {
        &self.plant
    }

    /// Asks for the end, as SIGTERM does.
    #[cfg(test)]
    pub(crate) fn end(&self) {
        self.plant.end();
    }

    /// Says where the parts are found.
    pub(crate) fn announce(&self) {
        let Addresses {
            health,
            health_tcp,
            metrics,
        } = self.addresses;
        let parts = [
            ("health by HTTP", health),
            ("health by TCP", health_tcp),
            ("metrics", metrics),
        ];
        for (name, address) in parts {
            if let Some(address) = address {
                complain(&format!("{name} at {address}"));
            }
        }
    }

    /// Whether somebody has asked for the end and the drain time is over: the workers are to end now.
    pub(crate) fn is_over(&self) -> bool {
        self.plant.ending.has_come(Instant::now())
    }

    /// Saves the sessions if that was asked for, and ends all parts. The workers have ended before.
    pub(crate) fn finish(self) {
        let file = self.plant.settings.lock().run.sessions_file.clone();
        if let Some(path) = file {
            let engine = &self.plant.plane.shared.engine;
            match saved::save(engine, &path) {
                Ok(bytes) => complain(&format!(
                    "{} sessions saved in {} ({bytes} bytes)",
                    engine.sessions(),
                    path.display()
                )),
                Err(error) => complain(&format!("sessions not saved: {}: {error}", path.display())),
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        self.signals.close();
        let until = Instant::now() + GRACE;
        for thread in self.threads {
            // One that hangs in an output that nobody reads is left behind.
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn restore(plant: &Plant, path: &Path) {
    match saved::restore(&plant.plane.shared.engine, path) {
        Ok(None) => {}
        Ok(Some(done)) => complain(&format!(
            "{}: {} sessions restored, {} had expired, {} are not admitted any more, {} found no room",
            path.display(),
            done.sessions,
            done.expired,
            done.refused,
            done.no_room
        )),
        Err(error) => complain(&format!("{}: no session restored: {error}", path.display())),
    }
}

/// The listeners of health and metrics.
fn pages(
    plant: &Arc<Plant>,
    settings: &Settings,
    log: Arc<LogCounters>,
    stop: &Arc<AtomicBool>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<Addresses, OperateError> {
    let mut addresses = Addresses::default();
    let metrics = Arc::new(Metrics {
        plane: Arc::clone(&plant.plane),
        health: Arc::clone(&plant.health),
        log,
        started: plant.started,
    });
    let (Listen(for_health), Listen(for_metrics)) = (settings.health.listen, settings.metrics.listen);
    let is_shared = for_health == for_metrics;
    if let Some(address) = for_health {
        let health = Arc::clone(&plant.health);
        let metrics = is_shared.then(|| Arc::clone(&metrics));
        let handler = move |path: &str| match &metrics {
            Some(metrics) if path == "/metrics" => metrics.page(Instant::now()),
            _ => health.page(Instant::now()),
        };
        let (address, thread) = http::serve("health", address, Arc::new(handler), Arc::clone(stop))
            .map_err(part("health.listen", address))?;
        addresses.health = Some(address);
        addresses.metrics = is_shared.then_some(address);
        threads.push(thread);
    }
    if let (Some(address), false) = (for_metrics, is_shared) {
        let handler = move |path: &str| match path {
            "/metrics" => metrics.page(Instant::now()),
            _ => Page::text(404, "/metrics\n".to_owned()),
        };
        let (address, thread) = http::serve("metrics", address, Arc::new(handler), Arc::clone(stop))
            .map_err(part("metrics.listen", address))?;
        addresses.metrics = Some(address);
        threads.push(thread);
    }
    if let Listen(Some(address)) = settings.health.tcp_listen {
        let health = Arc::clone(&plant.health);
        let (address, thread) = health::follow_with_port(address, health, Arc::clone(stop))
            .map_err(part("health.tcp_listen", address))?;
        addresses.health_tcp = Some(address);
        threads.push(thread);
    }
    Ok(addresses)
}

fn control_socket(
    plant: &Arc<Plant>,
    settings: &Settings,
    stop: &Arc<AtomicBool>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), OperateError> {
    let Some(path) = settings.run.control_path() else {
        return Ok(());
    };
    match control::serve(&path, Arc::clone(plant), Arc::clone(stop)) {
        Ok(thread) => threads.push(thread),
        Err(source) if settings.run.control.is_some() => {
            return Err(part("run.control", path.display())(source));
        }
        // Nobody has asked for it by name.
        Err(error) => complain(&format!("no control socket: {}: {error}", path.display())),
    }
    Ok(())
}
