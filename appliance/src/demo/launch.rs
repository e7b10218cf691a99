//! Programs in namespaces. Each ends with the demo, also if SIGKILL ends that.
//!
//! The demo starts itself as a launcher. The launcher asks the system for SIGKILL at the end of its
//! parent, enters the namespace, and becomes the program.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use clap::Args;
use nix::sched::{CloneFlags, setns};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::error::{DemoError, system};
use super::namespace::Namespace;

/// Variables by which programs would use a proxy, which no namespace reaches.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
];

/// Folders of programs for administrators, which the list of a user may lack.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Arguments of the launcher.
#[derive(Debug, Clone, Args)]
pub(crate) struct LaunchArgs {
    /// The process with which the program ends
    #[arg(long)]
    parent: u32,
    /// The network namespace of the program
    #[arg(long)]
    namespace: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program.
///
/// # Errors
/// Returns an error if the system refuses a step, or the parent has already ended.
pub(crate) fn launch(args: &LaunchArgs) -> Result<(), DemoError> {
    let become_program = || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if parent_id() != args.parent {
            return Err(io::Error::other("the demo has ended"));
        }
        setns(File::open(&args.namespace)?, CloneFlags::CLONE_NEWNET)?;
        match args.command.split_first() {
            Some((program, rest)) => Err(Command::new(program).args(rest).exec()),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    };
    let program = args.command.first().map(OsString::as_os_str);
    let program = program.unwrap_or_default().display();
    become_program().map_err(system(format!("{program} cannot start")))
}

/// Returns a command that runs a program in a namespace. The command must be started by a thread
/// that lives for as long as the program, since the end of that thread ends it.
///
/// # Errors
/// Returns an error if the path of the demo's own program is not known.
pub(crate) fn inside(
    namespace: &Namespace,
    program: impl AsRef<OsStr>,
) -> Result<Command, DemoError> {
    let mut command = own()?;
    command
        .args(["demo", "launch", "--parent"])
        .arg(process::id().to_string())
        .arg("--namespace")
        .arg(namespace.path())
        .arg("--")
        .arg(program);
    if let Ok(path) = std::env::join_paths(folders()) {
        command.env("PATH", path);
    }
    for proxy in PROXIES {
        command.env_remove(proxy);
    }
    Ok(command)
}

/// Returns a command that runs this program, without standard input. A Ctrl-C of the terminal does
/// not reach it.
///
/// # Errors
/// Returns an error if the path of the program is not known.
pub(crate) fn own() -> Result<Command, DemoError> {
    let mut command = Command::new(program()?);
    command.process_group(0).stdin(Stdio::null());
    Ok(command)
}

/// Returns the path of this program.
///
/// # Errors
/// Returns an error if the system does not know the path.
pub(crate) fn program() -> Result<PathBuf, DemoError> {
    std::env::current_exe().map_err(system("the path of this program"))
}

/// Returns the folders in which programs are searched.
pub(crate) fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    folders.chain(FOLDERS.map(PathBuf::from)).collect()
}
