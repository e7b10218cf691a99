//! The configuration file, from disk: the engine's sections and the appliance's own.

use std::path::Path;

use portcullis::config::Document;
use portcullis::{Config, ConfigError};

use crate::run::settings::Settings;

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// It could not be read.
    #[error("{name}: {source}")]
    Read {
        /// The path as given.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It could be read but says something wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads and validates a configuration file, for what needs the engine alone.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or says something wrong; the message names the file, the line and
/// the key.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigFileError> {
    load_all(path).map(|(config, _)| config)
}

/// Reads and validates a configuration file: the engine's configuration and the appliance's settings.
///
/// # Errors
/// As those of [`load`].
pub(crate) fn load_all(path: &Path) -> Result<(Config, Settings), ConfigFileError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
        name: name.clone(),
        source,
    })?;
    Ok(parse(&text, &name)?)
}

/// The same from text; `name` is for messages.
///
/// # Errors
/// What the text says wrong.
pub(crate) fn parse(text: &str, name: &str) -> Result<(Config, Settings), ConfigError> {
    let mut document = Document::parse(text, name)?;
    let settings = Settings::take(&mut document)?;
    Ok((document.config()?, settings))
}
