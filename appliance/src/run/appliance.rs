//! Parts of a running appliance that its threads share outside the packet path.
//!
//! Locks: `newest`, then `settings`; a file is read while neither is held. `settings` is held only
//! briefly.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;
use portcullis::policy::CompiledPolicy;
use portcullis::{Config, ConfigError};

use super::checkpoint::Checkpoints;
use super::data_path::DataPath;
use super::drain::Ending;
use super::health::Health;
use super::rates::SharedRates;
use super::reloads::Reloads;
use super::service::ServiceManager;
use super::settings::Settings;
use super::view::{Viewer, WallClock, ZoneNames};
use crate::output::notice;

/// Parts of a running appliance that its threads share.
pub(crate) struct Appliance {
    pub(crate) data_path: Arc<DataPath>,
    pub(crate) health: Arc<Health>,
    pub(crate) zones: Arc<ZoneNames>,
    pub(crate) started: Instant,
    pub(super) settings: Mutex<Settings>,
    /// Outcomes of reloads.
    pub(crate) reloads: Arc<Reloads>,
    /// Rates of sessions, for clients of the control socket.
    pub(crate) rates: SharedRates,
    /// The service manager that has started the appliance.
    pub(crate) manager: Arc<ServiceManager>,
    /// Outcomes of checkpoints.
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Number of reloads that have begun; the count numbers them.
    pub(super) begun: AtomicU64,
    /// Number of the newest reload that has read its file. Held while a reload is carried out.
    pub(super) newest: Mutex<u64>,
    /// Configuration file, if the appliance was started with one.
    pub(super) file: Option<PathBuf>,
    pub(super) ending: Ending,
}

impl Appliance {
    /// Puts the parts together. `config` and `settings` are in force; both come from `file`.
    ///
    /// # Errors
    /// Returns an error if the configuration does not compile.
    pub(super) fn new(
        data_path: Arc<DataPath>,
        config: &Config,
        settings: Settings,
        file: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let reloads = Arc::new(Reloads::default());
        let health = Health::new(
            Arc::clone(&data_path),
            Arc::clone(&reloads),
            settings.health.clone(),
        );
        Ok(Self {
            zones: Arc::new(ZoneNames::new(config)?),
            health: Arc::new(health),
            started: Instant::now(),
            settings: Mutex::new(settings),
            reloads,
            rates: SharedRates::default(),
            manager: Arc::new(ServiceManager::of_environment()),
            checkpoints: Arc::default(),
            begun: AtomicU64::new(0),
            newest: Mutex::new(0),
            ending: Ending::default(),
            data_path,
            file,
        })
    }

    /// Begins a clean end: health checks fail, and packets are served for the drain time.
    pub(crate) fn end(&self) {
        self.health.drain();
        self.data_path.drain();
        let drain = self.settings.lock().run.drain;
        let left = self.ending.ask(drain, Instant::now());
        let text = format!(
            "ending: serving for another {}",
            humantime::format_duration(left)
        );
        notice(&text);
        self.manager.stop(&text);
    }

    /// Returns a viewer that shows sessions under the names of a policy.
    pub(crate) fn viewer<'a>(&'a self, policy: &'a CompiledPolicy, now: Instant) -> Viewer<'a> {
        Viewer {
            data_path: &self.data_path,
            zones: &self.zones,
            policy,
            clock: WallClock::now(),
            now,
        }
    }
}
