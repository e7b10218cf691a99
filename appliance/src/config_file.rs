//! The configuration file, from disk: the engine's sections and the appliance's own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use portcullis::config::{ConfigErrors, Document};
use portcullis::{Config, ConfigError};

use crate::run::settings::Settings;

/// The path that means standard input.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Maximum size of a file, in bytes: 65,000 rules of 100 prefixes are 109 MiB.
const MAX_FILE: u64 = 128 << 20;

/// Reason for which a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    /// The file could not be read.
    #[error("{name}: {source}")]
    Read {
        /// The path as given.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The file was read and has errors.
    #[error("{}", summary(.0))]
    Config(ConfigErrors),
}

impl From<ConfigErrors> for ConfigFileError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl From<ConfigError> for ConfigFileError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.into())
    }
}

/// Returns errors on one line: the first, and the number of others.
pub(crate) fn summary(errors: &ConfigErrors) -> String {
    let others = errors.iter().count().saturating_sub(1);
    let first = errors
        .iter()
        .next()
        .map(ToString::to_string)
        .unwrap_or_default();
    match others {
        _ if errors.may_have_more() => {
            let count = others + 1;
            format!(
                "{first}; and {others} or more others: `portcullis check` prints the first {count} \
                 errors"
            )
        }
        0 => first,
        1 => format!("{first}; and another error: `portcullis check` prints both"),
        _ => format!("{first}; and {others} more errors: `portcullis check` prints all"),
    }
}

/// Reads and validates a configuration file, and returns the engine's configuration.
///
/// # Errors
/// Returns an error if the file cannot be read, is too long or not UTF-8, or has errors. The
/// message names the file, and the line and key of the first error.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigFileError> {
    load_all(path).map(|(config, _)| config)
}

/// Reads and validates a configuration file: the engine's configuration and the appliance's
/// settings. The file may be a pipe.
///
/// # Errors
/// Errors of [`load`].
pub(crate) fn load_all(path: &Path) -> Result<(Config, Settings), ConfigFileError> {
    read_and_parse(path, || File::open(path))
}

/// Reads a configuration file like [`load_all`], for a running appliance. The file must be a
/// regular file, since reading any other may not end.
///
/// # Errors
/// Errors of [`load`].
pub(crate) fn load_again(path: &Path) -> Result<(Config, Settings), ConfigFileError> {
    read_and_parse(path, || {
        regular(
            path,
            "this is not a regular file, and only a start reads anything else",
        )
    })
}

/// Opens a regular file. `otherwise` is the error for any other file.
///
/// # Errors
/// Returns an error if the file cannot be opened or is no regular file.
pub(crate) fn regular(path: &Path, otherwise: &str) -> io::Result<File> {
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

/// Adds values from outside the configuration file: the prefixes of sets with files, whose paths
/// are relative to `folder`, and the time as of which rules expire.
///
/// # Errors
/// Returns an error if a file cannot be read, is too long or has an invalid line, or if a path is
/// relative and there is no folder.
pub(crate) fn complete(config: &mut Config, folder: Option<&Path>) -> Result<(), ConfigError> {
    config.policy.as_of = Some(SystemTime::now());
    config.load_sets(|path| {
        let path = match folder {
            Some(folder) => folder.join(path),
            None if Path::new(path).is_absolute() => path.into(),
            None => return Err("a relative path, and there is no configuration file".to_owned()),
        };
        regular(&path, "this is not a regular file")
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

/// Reads the text of a configuration file, or of standard input.
///
/// # Errors
/// Returns an error if the text cannot be read, is too long or not UTF-8.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    if path == Path::new(STANDARD_INPUT) {
        return read(io::stdin().lock(), "configuration file");
    }
    File::open(path).and_then(|file| read(file, "configuration file"))
}

fn read(file: impl Read, what: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "this is longer than {} MiB, the bound of a {what}",
                MAX_FILE >> 20
            ),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(valid);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        let why = format!("line {line} is not UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Reads and validates the text of a configuration file; `name` is for messages.
///
/// # Errors
/// Returns all errors of the text.
pub(crate) fn parse(text: &str, name: &str) -> Result<(Config, Settings), ConfigErrors> {
    let mut document = Document::parse(text, name)?;
    let settings = Settings::take(&mut document);
    let mut config = document.finish()?;
    // The engine keeps what of each session is in the store.
    config.continuity.enabled |= settings.store.is_on();
    Ok((config, settings))
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
            top.starts_with("f:1: nonsense: unknown key `nonsense`: expected one of `engine`"),
            "{top}"
        );
        assert!(
            top.ends_with("`run`, `health`, `metrics`, `console`, `log`, `store`"),
            "{top}"
        );
        let run = error("[run]\nworker = 1");
        assert!(run.contains("did you mean `workers`?"), "{run}");
        let both = error("[healt]\nlisten = \"off\"\n[run]\npin = 3");
        assert!(
            both.contains("f:1: healt: unknown key `healt`: did you mean `health`?"),
            "{both}"
        );
        assert!(both.contains("\nf:4: run.pin: "), "{both}");
        let table = error("[table]\nnonsense = 1");
        assert!(
            !table.contains("`health`") && !table.contains("`drain`"),
            "{table}"
        );
    }

    #[test]
    fn a_summary_is_one_line_whatever_the_number_of_errors() {
        let of = |text: &str| summary(&parse(text, "f").unwrap_err());
        assert_eq!(of("[run]\npin = 3").lines().count(), 1);
        let two = of("[run]\npin = 3\nworkers = 999");
        assert!(
            two.ends_with("; and another error: `portcullis check` prints both"),
            "{two}"
        );
        let three = of("[run]\npin = 3\nworkers = 999\ndrain = \"2h\"");
        let many = of(&(0..200).map(|n| format!("x{n} = 1\n")).collect::<String>());
        assert!(
            many.ends_with(
                "; and 99 or more others: `portcullis check` prints the first 100 errors"
            ),
            "{many}"
        );
        let forged = of("[run]\npin = \"\"\"a\nportcullis: forged \\u001b[31m line\"\"\"");
        assert!(!forged.contains(char::is_control), "{forged:?}");
        assert!(
            forged.contains("string `a\\nportcullis: forged \\u{1b}[31m line`"),
            "{forged:?}"
        );
        assert!(
            three.ends_with("; and 2 more errors: `portcullis check` prints all"),
            "{three}"
        );
    }

    #[test]
    fn a_running_appliance_reads_regular_files_alone_and_never_waits_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            let error = load_again(path).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
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
            missing
                .contains("portcullis.toml:2: address_sets.feed.file: feeds/a.txt: No such file"),
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
        assert!(
            wrong.starts_with("feeds/a.txt:2: address_sets.feed: "),
            "{wrong}"
        );
        for path in ["/dev/zero", directory.path().to_str().unwrap()] {
            let (mut config, _) = parse(&set.replace("feeds/a.txt", path), "f").unwrap();
            let error = complete(&mut config, None).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
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
