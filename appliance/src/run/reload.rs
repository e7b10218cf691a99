//! Reloads of the configuration file: which values apply, and which wait for a restart.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use portcullis::{Config, EndReason, SessionRecord};

use super::MAX_WARNINGS;
use super::appliance::Appliance;
use super::saved;
use super::settings::{Settings, default_warnings};
use crate::config_file;
use crate::output::notice;

/// A configuration that can be applied.
struct Prepared {
    config: Config,
    settings: Settings,
    waiting: Vec<&'static str>,
}

/// Effect of a reload.
pub(crate) struct Preview {
    /// Sessions that would end, with the reason.
    pub(crate) would_end: Vec<(SessionRecord, EndReason)>,
    waiting: Vec<&'static str>,
}

impl Preview {
    /// Returns the effect of a reload on `sessions`, as text.
    pub(crate) fn text(&self, sessions: usize) -> String {
        let text = format!("{} of {sessions} sessions would end", self.would_end.len());
        with_waiting(text, &self.waiting)
    }
}

/// Adds the keys that wait for a restart, if there are any.
fn with_waiting(text: String, waiting: &[&str]) -> String {
    if waiting.is_empty() {
        return text;
    }
    format!(
        "{text}; these keys wait for a restart: {}",
        waiting.join(", ")
    )
}

impl Appliance {
    /// Reads the configuration file again, and logs the outcome. Returns the outcome as text. If
    /// the file is rejected, the old configuration stays in force as a whole.
    ///
    /// # Errors
    /// Returns the reason for which the file was rejected.
    pub(crate) fn reload(&self) -> Result<String, String> {
        self.manager.begin_reload();
        let outcome = self.reload_in_turn();
        match &outcome {
            Ok(done) => {
                notice(&format!("reload: {done}"));
                let warnings = default_warnings(&self.data_path.shared.config.read());
                let left_out = warnings.len().saturating_sub(MAX_WARNINGS);
                if left_out > 0 {
                    notice(&format!(
                        "{left_out} warnings are left out here: `portcullis check` prints all"
                    ));
                }
                for warning in warnings.into_iter().skip(left_out) {
                    notice(&format!("warning: {warning}"));
                }
            }
            Err(error) => notice(&format!(
                "warning: reload refused, the old configuration stays in force: {error}"
            )),
        }
        match &outcome {
            Ok(done) => self.manager.end_reload(done),
            Err(error) => self.manager.end_reload(&format!("refused: {error}")),
        }
        outcome
    }

    /// Applies the running configuration again if a rule has expired since: its sessions are
    /// evaluated by the other rules. No file is read. Returns the outcome as text; `None` if
    /// nothing was done.
    pub(crate) fn expire_rules(&self, now: SystemTime) -> Option<Result<String, String>> {
        let _one_at_a_time = self.newest.lock();
        let mut config = {
            let running = self.data_path.shared.config.read();
            if running.next_expiry().is_none_or(|at| at > now) {
                return None;
            }
            running.clone()
        };
        config.policy.as_of = Some(now);
        let outcome = self.data_path.reload(config, Instant::now());
        self.data_path.shared.observers.follow_reload();
        let outcome = outcome.map_err(|error| error.to_string());
        let outcome = outcome.map(|done| {
            let (judged, ended) = (done.judged, done.revoked);
            format!(
                "a rule has expired: {judged} sessions re-evaluated, {ended} ended by the policy"
            )
        });
        match &outcome {
            Ok(done) => notice(done),
            Err(error) => notice(&format!("warning: an expired rule stays in force: {error}")),
        }
        Some(outcome)
    }

    /// Returns the time to wait for the next rule to expire; at most a few seconds, since the
    /// system's clock may be set meanwhile.
    pub(crate) fn until_next_expiry(&self, now: SystemTime) -> Duration {
        const MOST: Duration = Duration::from_secs(5);
        let next = self.data_path.shared.config.read().next_expiry();
        next.map_or(MOST, |at| {
            at.duration_since(now).unwrap_or_default().min(MOST)
        })
    }

    fn reload_in_turn(&self) -> Result<String, String> {
        let Some(file) = &self.file else {
            return Err(
                "started without a configuration file: there is nothing to reload".to_owned(),
            );
        };
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // A file system may block here for any time.
        let read = config_file::load_again(file).map_err(|error| error.to_string());
        let mut newest = self.newest.lock();
        if *newest > number {
            return Err(
                "another reload, which was asked for later, has come first: its result counts"
                    .to_owned(),
            );
        }
        *newest = number;
        read.and_then(|(config, settings)| {
            let prepared = self.prepare(&file.display().to_string(), config, settings)?;
            self.apply(prepared)
        })
        .inspect_err(|error| self.reloads.refuse(error))
    }

    /// Returns the effect of a reload of a file with this text. Nothing changes. `name` is for
    /// messages. Files of sets are read here, relative to the appliance's own configuration file.
    ///
    /// # Errors
    /// Returns the reason for which the file would be rejected.
    pub(crate) fn preview(&self, name: &str, text: &str, now: Instant) -> Result<Preview, String> {
        let (mut config, settings) =
            config_file::parse(text, name).map_err(|errors| config_file::summary(&errors))?;
        let folder = self.file.as_deref().and_then(Path::parent);
        config_file::complete(&mut config, folder).map_err(|error| error.to_string())?;
        let Prepared {
            config, waiting, ..
        } = self.prepare(name, config, settings)?;
        let engine = &self.data_path.shared.engine;
        let would_end = engine
            .preview(&config, now)
            .map_err(|error| error.to_string())?;
        Ok(Preview { would_end, waiting })
    }

    /// Keeps the running value of everything that only a start can change, and checks the result.
    fn prepare(&self, name: &str, config: Config, settings: Settings) -> Result<Prepared, String> {
        let mut config = self.data_path.adapt(config);
        let mut waiting = config.keep_running(&self.data_path.shared.config.read());
        // The file itself is valid, but the kept values may not fit it.
        config.validate().map_err(|error| {
            with_waiting(
                format!("{error}, as long as running values are kept"),
                &waiting,
            )
        })?;
        let mut settings = settings;
        self.data_path.adapt_settings(&mut settings);
        let in_force = self.settings.lock().clone();
        waiting.extend(settings.keep_running(&in_force));
        check_sessions_file(name, &settings, &in_force)?;
        Ok(Prepared {
            config,
            settings,
            waiting,
        })
    }

    /// Applies a configuration. One at a time: `newest` is held.
    fn apply(&self, prepared: Prepared) -> Result<String, String> {
        let Prepared {
            config,
            settings,
            waiting,
        } = prepared;
        // Compiled first, so that names and filters follow the data path without delay.
        let zones = config.compile().map_err(|error| error.to_string())?.zones;
        let done = self
            .data_path
            .reload(config, Instant::now())
            .map_err(|error| error.to_string())?;
        self.zones.replace(zones);
        self.data_path.shared.observers.follow_reload();
        self.health.reloaded(settings.health.clone());
        *self.settings.lock() = settings;
        self.reloads.apply(waiting.clone());
        let text = format!(
            "{} sessions re-evaluated, {} ended by the policy, {} by their lifetime, {} kept \
             against the policy",
            done.judged, done.revoked, done.expired, done.kept
        );
        Ok(with_waiting(text, &waiting))
    }
}

/// Checks that sessions can be saved in a new file.
fn check_sessions_file(name: &str, settings: &Settings, in_force: &Settings) -> Result<(), String> {
    match &settings.run.sessions_file {
        Some(path) if settings.run.sessions_file != in_force.run.sessions_file => {
            check_path(name, path)
        }
        _ => Ok(()),
    }
}

fn check_path(name: &str, path: &Path) -> Result<(), String> {
    saved::check(path)
        .map_err(|error| format!("{name}: run.sessions_file: {}: {error}", path.display()))
}
