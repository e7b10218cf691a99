//! The folder of a demo: configuration, control socket and messages of its programs.
//!
//! A second process removes the folder if the demo itself cannot, because SIGKILL ends it. A folder
//! of which even that fails is removed by the next demo.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::thread;
use std::time::Duration;

use super::error::{DemoError, system};
use super::launch;

/// Name of the folders before the number of the demo's process.
const PREFIX: &str = "portcullis-demo-";
/// Pause between attempts to remove a folder in which a dying program may still create a file.
const PAUSE: Duration = Duration::from_millis(50);
/// Number of those attempts.
const ATTEMPTS: usize = 20;

/// The folder of a running demo.
#[derive(Debug)]
pub(crate) struct Workspace {
    folder: PathBuf,
    guard: process::Child,
}

impl Workspace {
    /// Creates the folder, and removes those of demos that no longer run.
    ///
    /// # Errors
    /// Returns an error if the folder, or the process that guards it, cannot be created.
    pub(crate) fn new() -> Result<Self, DemoError> {
        // Only root writes there, and its paths are short enough for a socket.
        let base = Path::new("/run");
        remove_stale(base);
        let folder = base.join(format!("{PREFIX}{}", process::id()));
        let what = folder.display().to_string();
        let created = DirBuilder::new().mode(0o700).create(&folder);
        created.map_err(system(what))?;
        let mut command = launch::own()?;
        command.args(["demo", "guard"]).arg(&folder);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(guard) => Ok(Self { folder, guard }),
            Err(source) => {
                let _ = fs::remove_dir(&folder);
                Err(system("guard of the demo's folder")(source))
            }
        }
    }

    /// Returns the path of the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The guard repeats a removal that fails here, and ends when its input does.
        let _ = fs::remove_dir_all(&self.folder);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Waits for the end of the demo and removes its folder if the demo has not.
///
/// # Errors
/// Returns an error if the folder is not a demo's, or cannot be removed.
pub(crate) fn guard(folder: &Path) -> Result<(), DemoError> {
    let name = folder.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(|name| name.starts_with(PREFIX)) {
        let source = io::Error::other("this is not the folder of a demo");
        return Err(system(folder.display().to_string())(source));
    }
    // The other end of the pipe is open for as long as the demo lives.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let mut removed = Ok(());
    for _ in 0..ATTEMPTS {
        if !folder.exists() {
            return Ok(());
        }
        removed = fs::remove_dir_all(folder);
        thread::sleep(PAUSE);
    }
    removed.map_err(system(folder.display().to_string()))
}

/// Removes the folders of demos whose processes have ended. A folder with the number of this
/// process is of an ended one too, since the demo creates its own only afterwards.
fn remove_stale(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        let is_alive = Path::new("/proc").join(number.to_string()).exists();
        if number == process::id() || !is_alive {
            // The next demo tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_ended_demos_are_removed_and_no_others() {
        let base = tempfile::tempdir().unwrap();
        // The system numbers no process above 2^22.
        let stale = base.path().join(format!("{PREFIX}4294967295"));
        let reused = base.path().join(format!("{PREFIX}{}", process::id()));
        let live = base.path().join(format!("{PREFIX}1"));
        let foreign = base.path().join("portcullis-demo-notes");
        for folder in [&stale, &reused, &live, &foreign] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "text").unwrap();
        }
        remove_stale(base.path());
        assert!(!stale.exists() && !reused.exists());
        assert!(live.exists() && foreign.exists());
    }

    #[test]
    fn the_guard_refuses_folders_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let error = guard(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("this is not the folder of a demo"),
            "{error}"
        );
        assert!(folder.path().exists());
    }
}
