//! Programs in a namespace: started, bounded in time, and cleaned up at their end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::namespace::{Interrupt, Namespace};

/// A temporary folder, removed with its contents.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates the folder, which every user may enter.
    ///
    /// # Errors
    /// Returns an error if the folder exists or cannot be created.
    pub fn create(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// A running program, the first of its own process group; dropping it ends the group.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program inside a namespace. Both its outputs go to the file `log`, which is
    /// overwritten.
    ///
    /// # Errors
    /// Returns an error if the program is missing.
    pub fn start(
        namespace: &Namespace,
        log: PathBuf,
        arguments: &[impl AsRef<OsStr> + Sync],
        input: Option<&Path>,
    ) -> Result<Self> {
        let (program, rest) = arguments.split_first().context("a program")?;
        let name = program.as_ref().to_string_lossy().into_owned();
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command
            .args(rest)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            )
            .env("HOME", log.parent().unwrap_or(Path::new("/nonexistent")))
            .env("LC_ALL", "C")
            .process_group(0)
            .stdout(output.try_clone()?)
            .stderr(output)
            .stdin(match input {
                Some(file) => Stdio::from(File::open(file)?),
                None => Stdio::null(),
            });
        let child =
            namespace.inside(|| command.spawn().with_context(|| format!("start {name}")))?;
        Ok(Self { name, child, log })
    }

    /// Waits until the program ends, for a limited time. If it fails or takes longer, the error
    /// contains its output.
    ///
    /// # Errors
    /// Returns an error if the program failed or took too long, or the process was requested to
    /// end.
    pub fn finish(mut self, patience: Duration, interrupt: &Interrupt) -> Result<()> {
        let status = self.wait(patience, interrupt)?;
        if !status.success() {
            bail!("{}: {status}\n{}", self.name, self.said());
        }
        Ok(())
    }

    /// Waits for the end of the program, regardless of its exit code, for at most `patience`.
    ///
    /// # Errors
    /// Returns an error if the program took too long, or the process was requested to end.
    pub fn wait(&mut self, patience: Duration, interrupt: &Interrupt) -> Result<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            interrupt.check()?;
            if Instant::now() > end {
                bail!("{} does not end:\n{}", self.name, self.said());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the program and to all programs that it has started.
    ///
    /// # Errors
    /// Returns an error if the program has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let group = Pid::from_child(&self.child);
        kill_process_group(group, signal).with_context(|| format!("signal to {}", self.name))
    }

    /// Returns the output of the program.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| error.to_string(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The group of a program that has ended and has started no other does not exist any more.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}
