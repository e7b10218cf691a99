//! `portcullis check FILE`: validates a configuration and prints the values in force.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use portcullis::Config;
use portcullis::Memory;
use portcullis::config::{ConfigErrors, EffectiveValue, effective_toml};

use crate::config_file::{self, STANDARD_INPUT};
use crate::memory;
use crate::output;
use crate::run::settings::{self, Settings};
use crate::run::xdp;

mod json;
mod snippet;

use self::json::CheckRow;

/// The arguments of `portcullis check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The configuration file (TOML), or `-` for standard input
    file: PathBuf,
    /// Print errors, warnings and values as one JSON object
    #[arg(long)]
    json: bool,
    /// Print only values that differ from their defaults
    #[arg(long)]
    changed: bool,
}

/// Reason for which a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// The file cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The path as given.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The file has errors, which were printed.
    #[error("{name}: {}", errors_text(*count, *may_have_more))]
    Invalid {
        /// The path as given.
        name: String,
        /// The number of errors that were printed.
        count: usize,
        /// Whether there may be others.
        may_have_more: bool,
    },
    /// The result could not be printed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

fn errors_text(count: usize, may_have_more: bool) -> String {
    match count {
        _ if may_have_more => format!("the first {count} errors; there may be more"),
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    }
}

/// A valid configuration, and everything that is printed of it.
struct Report {
    config: Config,
    values: Vec<EffectiveValue>,
    memory: Memory,
    /// The number of compiled rules.
    rules: usize,
    warnings: Vec<String>,
    /// The path of packets on this machine, unless it is the default one.
    io: Option<String>,
}

impl Report {
    /// Reads, validates and compiles a configuration.
    fn new(text: &str, name: &str, folder: Option<&Path>) -> Result<Self, ConfigErrors> {
        let (mut config, settings) = config_file::parse(text, name)?;
        config_file::complete(&mut config, folder)?;
        let compiled = config.compile()?;
        let memory = compiled.memory();
        let mut warnings = warnings(&config, &settings, &memory);
        let io = match xdp::open::preview(&config.geneve.listen, &settings.run) {
            Some(Ok(line)) => Some(line),
            Some(Err(why)) => {
                warnings.push(format!(
                    "run.io: AF_XDP cannot be used on this machine: {why}"
                ));
                None
            }
            None => None,
        };
        Ok(Self {
            values: values(&config, &settings),
            warnings,
            io,
            rules: compiled.policy.len(),
            config,
            memory,
        })
    }

    /// Prints the values as TOML, and the rest as comments.
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(effective_toml(&self.values).as_bytes())?;
        for (name, set) in &self.config.address_sets {
            if let Some(loaded) = set.loaded() {
                writeln!(
                    out,
                    "# set: {} prefixes in the file of @{name}",
                    loaded.len()
                )?;
            }
        }
        for line in memory::lines(&self.memory) {
            writeln!(out, "{line}")?;
        }
        if let Some(io) = &self.io {
            writeln!(out, "# io: {io}")?;
        }
        if self.rules > 1 {
            writeln!(
                out,
                "# rules: {}; those that one earlier rule covers are reported, and not those that \
                 only \
                 several cover together",
                self.rules
            )?;
        }
        out.flush()
    }
}

fn values(config: &Config, settings: &Settings) -> Vec<EffectiveValue> {
    let mut values = config.effective();
    values.extend(settings.effective(config));
    values
}

fn warnings(config: &Config, settings: &Settings, memory: &Memory) -> Vec<String> {
    let mut warnings = settings::warnings(config, settings);
    warnings.extend(memory::warning(memory));
    warnings
}

/// Validates a configuration file and prints every value in force with its origin and the memory
/// that the tables take, then the warnings. Of an invalid file it prints all errors.
///
/// # Errors
/// The file cannot be read or has errors.
pub(crate) fn run(args: &CheckArgs) -> Result<(), CheckError> {
    let is_standard_input = args.file == Path::new(STANDARD_INPUT);
    let name = match is_standard_input {
        true => "standard input".to_owned(),
        false => args.file.display().to_string(),
    };
    let text = match config_file::text(&args.file) {
        Ok(text) => text,
        Err(source) => {
            if args.json {
                let mut out = io::stdout().lock();
                put(&mut out, &CheckRow::unreadable(&name, &source))?;
                out.flush()?;
            }
            return Err(CheckError::Read { name, source });
        }
    };
    let folder = match is_standard_input {
        true => Some(Path::new(".")),
        false => args.file.parent(),
    };
    let mut report = Report::new(&text, &name, folder);
    if let (Ok(report), true) = (&mut report, args.changed) {
        report.values.retain(|value| !value.is_default);
    }
    let mut out = io::stdout().lock();
    if args.json {
        put(&mut out, &CheckRow::new(&name, &report))?;
        out.flush()?;
    }
    match report {
        Ok(report) => {
            if !args.json {
                report.print(&mut out)?;
                for warning in &report.warnings {
                    writeln!(io::stderr(), "warning: {warning}")?;
                }
            }
            Ok(())
        }
        Err(errors) => {
            if !args.json {
                let is_colored = output::is_colored(&io::stderr());
                for error in &errors {
                    writeln!(
                        io::stderr(),
                        "{}\n",
                        snippet::render(error, &text, is_colored)
                    )?;
                }
            }
            let count = errors.iter().count();
            let may_have_more = errors.may_have_more();
            Err(CheckError::Invalid {
                name,
                count,
                may_have_more,
            })
        }
    }
}

/// Writes a result as a line of JSON.
fn put(out: &mut impl Write, row: &CheckRow<'_>) -> io::Result<()> {
    let text = serde_json::to_string(row).map_err(io::Error::from)?;
    writeln!(out, "{text}")
}

#[cfg(test)]
mod tests;
