//! The configuration file, from disk.

use std::path::Path;

use portcullis::{Config, ConfigError};

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

/// Reads and validates a configuration file.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or says something wrong; the message names the file, the line and
/// the key.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigFileError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
        name: name.clone(),
        source,
    })?;
    Ok(Config::from_toml(&text, &name)?)
}
