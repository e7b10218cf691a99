//! `portcullis init`: writes a commented configuration for a common scenario.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::output;

/// The arguments of `portcullis init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The scenario
    #[arg(value_enum, required_unless_present = "list")]
    scenario: Option<Scenario>,
    /// List the scenarios
    #[arg(long, conflicts_with_all = ["scenario", "output", "force"])]
    list: bool,
    /// The file to create [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    force: bool,
}

/// A common use of the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Sessions between the tiers of an application, such as between VPCs
    EastWest,
    /// Hosts that may browse (ports 80 and 443), resolve names and set their clocks
    Egress,
    /// FTP servers, whose announced data connections are allowed one by one
    FtpServers,
    /// The rules of geneve-proxy's example configuration
    GeneveProxy,
}

impl Scenario {
    /// Returns the configuration.
    const fn text(self) -> &'static str {
        match self {
            Self::EastWest => include_str!("../samples/east-west.toml"),
            Self::Egress => include_str!("../samples/egress.toml"),
            Self::FtpServers => include_str!("../samples/ftp-servers.toml"),
            Self::GeneveProxy => include_str!("../samples/geneve-proxy.toml"),
        }
    }
}

/// Reason for which no configuration was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// The file is there already.
    #[error("{0} exists and stays as it is: name another file, or replace it with --force")]
    Exists(String),
    /// The file cannot be written.
    #[error("{name}: {source}")]
    Write {
        /// The file, or standard output.
        name: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Writes the configuration, or the list of scenarios.
///
/// # Errors
/// Returns an error if the file exists and `--force` is missing, or if it cannot be written.
pub(crate) fn run(args: &InitArgs) -> Result<(), InitError> {
    let standard = Path::new("-");
    let (path, text) = match (args.scenario, &args.output) {
        (None, _) => (standard, list()),
        (Some(scenario), output) => {
            let path = output.as_deref().unwrap_or(standard);
            (path, scenario.text().to_owned())
        }
    };
    let written = open(path, args.force).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.flush()
    });
    match written {
        Ok(()) if output::is_standard(path) => Ok(()),
        Ok(()) => {
            let name = path.display();
            output::notice(&format!(
                "{name} is written: change what its comments name, then `portcullis check {name}`"
            ));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(InitError::Exists(output::name(path)))
        }
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(InitError::Write {
            name: output::name(path),
            source,
        }),
    }
}

/// Opens a new file; with `force` also an existing one, which is emptied. `-` is standard output.
fn open(path: &Path, force: bool) -> io::Result<Box<dyn Write>> {
    if force || output::is_standard(path) {
        return output::create(path);
    }
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    Ok(Box::new(file))
}

/// Returns a line for each scenario.
fn list() -> String {
    let values = Scenario::value_variants().iter();
    let values = values.filter_map(ValueEnum::to_possible_value);
    let lines = values.map(|value| {
        let help = value.get_help().map(ToString::to_string);
        format!("{:<14}{}\n", value.get_name(), help.unwrap_or_default())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        init: InitArgs,
    }

    fn args(line: &str) -> InitArgs {
        Cli::try_parse_from(line.split(' ')).unwrap().init
    }

    #[test]
    fn every_scenario_is_listed_with_its_purpose() {
        let list = list();
        assert_eq!(list.lines().count(), Scenario::value_variants().len());
        for name in ["east-west ", "egress ", "ftp-servers ", "geneve-proxy "] {
            let line = list.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.len() > 30 && line.len() <= 100, "{line}");
        }
    }

    #[test]
    fn a_file_is_replaced_only_with_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.toml");
        let line = format!("init egress -o {}", path.display());
        run(&args(&line)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), Scenario::Egress.text());
        fs::write(&path, "mine").unwrap();
        let error = run(&args(&line)).unwrap_err().to_string();
        assert!(error.contains("exists and stays as it is"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        run(&args(&format!("{line} --force"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), Scenario::Egress.text());
        let missing = format!("init egress -o {}/missing/file", folder.path().display());
        let error = run(&args(&missing)).unwrap_err().to_string();
        assert!(error.contains("missing/file: No such file"), "{error}");
    }

    #[test]
    fn senseless_arguments_are_refused() {
        for line in [
            "init",
            "init --list egress",
            "init nonsense",
            "init egress --force",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
