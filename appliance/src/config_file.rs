//! The configuration file, from disk: the engine's sections and the appliance's own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use portcullis::config::{ConfigErrorCause, Document};
use portcullis::{Config, ConfigError};

use crate::run::settings::Settings;

/// The longest file, in bytes: 65,000 rules of 100 prefixes are 109 MiB.
const MAX_FILE: u64 = 128 << 20;

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// It could not be read.
    #[error("{name}: {source}")]
    Read {
        /// The path as given.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It could be read but says something wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads and validates a configuration file, for what needs the engine alone.
///
/// # Errors
/// The file cannot be read, is too long or not UTF-8, or says something wrong; the message names the file, the line and
/// the key.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigFileError> {
    load_all(path).map(|(config, _)| config)
}

/// Reads and validates a configuration file: the engine's configuration and the appliance's settings. A pipe will do.
///
/// # Errors
/// As those of [`load`].
pub(crate) fn load_all(path: &Path) -> Result<(Config, Settings), ConfigFileError> {
    read_and_parse(path, || File::open(path))
}

/// The same for an appliance that runs: nothing but a regular file, since anything else may have no end, or no beginning.
///
/// # Errors
/// As those of [`load`].
pub(crate) fn load_again(path: &Path) -> Result<(Config, Settings), ConfigFileError> {
    read_and_parse(path, || {
        regular(
            path,
            "this is no regular file, and only a start reads anything else",
        )
    })
}

/// Opens a regular file. `otherwise` says what is wrong with anything else.
fn regular(path: &Path, otherwise: &str) -> io::Result<File> {
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, otherwise))
}

/// Adds what a configuration file cannot hold: the prefixes of sets with files, whose paths are
/// relative to `folder`, and the moment as of which rules expire.
///
/// # Errors
/// A file that cannot be read, is too long, or has a wrong line. Without a folder, a relative path.
pub(crate) fn complete(config: &mut Config, folder: Option<&Path>) -> Result<(), ConfigError> {
    config.policy.as_of = Some(SystemTime::now());
    config.load_sets(|path| {
        let path = match folder {
            Some(folder) => folder.join(path),
            None if Path::new(path).is_absolute() => path.into(),
            None => return Err("a relative path, and there is no configuration file".to_owned()),
        };
        regular(&path, "this is no regular file")
            .and_then(|file| read(file, "set of addresses"))
            .map_err(|error| error.to_string())
    })
}

fn read_and_parse(
    path: &Path,
    open: impl FnOnce() -> io::Result<File>,
) -> Result<(Config, Settings), ConfigFileError> {
    let name = path.display().to_string();
    match open().and_then(|file| read(file, "configuration file")) {
        Ok(text) => {
            let (mut config, settings) = parse(&text, &name)?;
            complete(&mut config, path.parent())?;
            Ok((config, settings))
        }
        Err(source) => Err(ConfigFileError::Read { name, source }),
    }
}

fn read(file: File, what: &str) -> io::Result<String> {
    let mut text = String::new();
    if file.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("this is longer than {} MiB, and no {what}", MAX_FILE >> 20),
        ));
    }
    Ok(text)
}

/// The same from text; `name` is for messages.
///
/// # Errors
/// What the text says wrong.
pub(crate) fn parse(text: &str, name: &str) -> Result<(Config, Settings), ConfigError> {
    let mut document = Document::parse(text, name)?;
    let settings = Settings::take(&mut document)?;
    Ok((document.config().map_err(with_own_keys)?, settings))
}

/// Adds the appliance's own keys to those that the engine expects in the place of an unknown one.
fn with_own_keys(mut error: ConfigError) -> ConfigError {
    let key = &error.location.key;
    if let ConfigErrorCause::Syntax(text) = &mut error.cause
        && text.starts_with("unknown field `")
        && text.contains("expected")
    {
        for own in Settings::keys_beside(key) {
            text.push_str(&format!(", `{own}`"));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "f").unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_keys_of_both_readers() {
        let top = error("nonsense = 1");
        assert!(
            top.starts_with("f:1: nonsense: unknown field `nonsense`, expected one of `engine`"),
            "{top}"
        );
        assert!(top.ends_with(", `health`, `metrics`, `log`"), "{top}");
        let run = error("[run]\nnonsense = 1");
        assert!(
            run.contains("`workers`")
                && run.ends_with(", `drain`, `sessions_file`, `checkpoint`, `max_saved_age`, `control`"),
            "{run}"
        );
        let table = error("[table]\nnonsense = 1");
        assert!(
            !table.contains("`health`") && !table.contains("`drain`"),
            "{table}"
        );
    }

    #[test]
    fn a_running_appliance_reads_regular_files_alone_and_never_waits_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            let error = load_again(path).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(load_again(&file).is_ok());
    }

    #[test]
    fn the_file_of_a_set_is_beside_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portcullis.toml");
        let set = "[address_sets]\nfeed = { file = \"feeds/a.txt\" }\n";
        std::fs::write(&path, set).unwrap();
        let missing = load_again(&path).unwrap_err().to_string();
        assert!(
            missing.contains("portcullis.toml:2: address_sets.feed.file: feeds/a.txt: No such file"),
            "{missing}"
        );
        std::fs::create_dir(directory.path().join("feeds")).unwrap();
        let feed = directory.path().join("feeds/a.txt");
        std::fs::write(&feed, "192.0.2.0/24 # one\n").unwrap();
        let (config, _) = load_again(&path).unwrap();
        let loaded = |config: &Config| config.address_sets["feed"].loaded().unwrap().len();
        assert_eq!(loaded(&config), 1);
        assert!(config.policy.as_of.is_some(), "rules expire as of now");
        std::fs::write(&feed, "192.0.2.0/24\n\n198.51.100.0/24\n").unwrap();
        assert_eq!(loaded(&load_again(&path).unwrap().0), 2, "read again");
        std::fs::write(&feed, "192.0.2.0/24\nnonsense\n").unwrap();
        let wrong = load_again(&path).unwrap_err().to_string();
        assert!(wrong.starts_with("feeds/a.txt:2: address_sets.feed: "), "{wrong}");
        for path in ["/dev/zero", directory.path().to_str().unwrap()] {
            let (mut config, _) = parse(&set.replace("feeds/a.txt", path), "f").unwrap();
            let error = complete(&mut config, None).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
        let (mut config, _) = parse(set, "f").unwrap();
        let error = complete(&mut config, None).unwrap_err().to_string();
        assert!(
            error.contains("a relative path, and there is no configuration file"),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        let error = load_all(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(
            error.starts_with("/dev/zero: this is longer than 128 MiB"),
            "{error}"
        );
    }
}
