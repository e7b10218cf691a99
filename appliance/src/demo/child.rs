//! Programs that the demo has started, and the end of each with its owner.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::error::{DemoError, system};
use super::stop::Stop;

/// Longest time of a program that only sets something up.
const SHORT: Duration = Duration::from_secs(10);
/// Lines of a program's messages in an error.
const TAIL: usize = 8;

/// A running program. It ends with the value.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    child: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a program. Its messages go to a file `NAME.log` in the folder.
    ///
    /// # Errors
    /// Returns an error if the file or the process cannot be created.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        folder: &Path,
    ) -> Result<Self, DemoError> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(system(log.display().to_string()))?;
        command.stderr(file);
        let child = command
            .spawn()
            .map_err(system(format!("start of {name}")))?;
        Ok(Self { name, child, log })
    }

    /// Returns the standard output, if it is a pipe that was not taken before.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Returns the exit status of an ended program.
    ///
    /// # Errors
    /// Returns an error if the system does not know the process.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, DemoError> {
        let ended = self.child.try_wait();
        ended.map_err(system(format!("state of {}", self.name)))
    }

    /// Fails if the program has ended.
    ///
    /// # Errors
    /// Returns an error with the last messages of an ended program.
    pub(crate) fn check(&mut self) -> Result<(), DemoError> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(DemoError::Program {
                what: format!("{} has ended", self.name),
                status: status.to_string(),
                tail: self.tail(),
            }),
        }
    }

    /// Returns the last messages, each on a line of its own after a line break.
    pub(crate) fn tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only for a process that has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that ends soon.
///
/// # Errors
/// Returns an error with the messages of a program that fails, and one for a program that does not
/// end. Returns [`DemoError::Interrupted`] after a signal.
pub(crate) fn run(
    name: &'static str,
    command: &mut Command,
    folder: &Path,
    stop: &Stop,
) -> Result<(), DemoError> {
    let mut child = Child::start(name, command.stdout(Stdio::null()), folder)?;
    match stop.wait_for(SHORT, || child.ended())? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(DemoError::Program {
            what: words(command),
            status: status.to_string(),
            tail: child.tail(),
        }),
        None => Err(DemoError::Late {
            what: words(command),
            seconds: SHORT.as_secs(),
            tail: child.tail(),
        }),
    }
}

/// Returns a command of the launcher as an operator would type it.
fn words(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.skip_while(|word| word != "--").skip(1).collect();
    words.join(" ")
}

/// Returns the last lines of a text, each after a line break.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(TAIL).collect();
    lines
        .into_iter()
        .rev()
        .map(|line| format!("\n  {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_the_last_lines_in_their_order() {
        assert_eq!(tail(""), "");
        assert_eq!(tail("one\ntwo\n"), "\n  one\n  two");
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(tail(&many).lines().last(), Some("  99"));
        assert_eq!(tail(&many).lines().count(), 1 + TAIL);
    }

    #[test]
    fn a_failed_program_is_named_with_its_messages() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such device >&2; exit 3", "--", "ip", "link"]);
        let error = run("ip", &mut command, folder.path(), &Stop::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ip link: exit status: 3\n  no such device"
        );
    }

    #[test]
    fn a_program_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            Child::start("sleep", Command::new("sleep").arg("600"), folder.path()).unwrap();
        child.check().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.child.id()));
        assert!(process.exists());
        drop(child);
        assert!(!process.exists());
    }
}
