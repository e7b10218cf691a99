//! Values of command-line arguments that replace those of the configuration file.

use std::net::Ipv4Addr;

use portcullis::Config;

/// Values that replace those of the file, at the start and at every reload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(super) workers: Option<u32>,
    pub(super) listen: Vec<Ipv4Addr>,
}

impl Overrides {
    /// Replaces the values of a configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(workers) = self.workers {
            config.run.workers = workers;
        }
        if !self.listen.is_empty() {
            config.geneve.listen.clone_from(&self.listen);
        }
    }
}
