//! Sessions in a file, from one run of the appliance to the next: saved at its end, or while it
//! runs as a checkpoint ([`super::checkpoint`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use portcullis::{Engine, RestoreError, RestoreOptions, Restored, Saved};

/// Maximum size of a file that is read: 2^28 sessions do not fit, but more than any machine saves
/// do.
const MAX_FILE: u64 = 64 << 30;

/// The ending of a file that is being written.
const NEW: &str = ".new";
/// The ending of a file whose sessions were restored.
const RESTORED: &str = ".restored";
/// The ending of a file that a start did not restore and that is now older than a checkpoint.
const REFUSED: &str = ".refused";
/// The ending of a checkpoint.
const CHECKPOINT: &str = ".checkpoint";

/// Reason for which sessions cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The path is not a regular file, or the file is larger than any saved file.
    #[error("not a file of saved sessions")]
    NotAFile,
    /// The file does not hold saved sessions.
    #[error("{0}")]
    Refused(#[from] RestoreError),
    /// The sessions are restored, but the file cannot be renamed.
    #[error("the file cannot be renamed, and a later start would restore it again: {0}")]
    NotTaken(io::Error),
}

/// Checks that sessions can be saved in a file.
///
/// # Errors
/// Returns an error if the directory is missing or not writable, or the path is not a regular file.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => return Err(io::Error::other("not a regular file")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let temporary = beside(path, NEW);
    let _ = fs::remove_file(&temporary);
    create(&temporary)?;
    fs::remove_file(&temporary)
}

/// Creates a file for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Saves all sessions of an engine, and replaces the file. The file is complete at any time, and
/// only its owner can read it. The sessions are written as they are read, without a complete copy
/// in memory.
///
/// # Errors
/// Returns an error if the file cannot be written; its old contents remain.
pub(crate) fn save(engine: &Engine, path: &Path) -> io::Result<Saved> {
    let temporary = beside(path, NEW);
    let saved = write(engine, &temporary, &AtomicBool::new(false))?;
    replace(&temporary, path)?;
    Ok(saved)
}

/// Writes all sessions to a new file, until it is complete or `stop` is set. An incomplete file is
/// removed.
///
/// # Errors
/// Returns an error if the file cannot be written, or `stop` is set.
pub(super) fn write(engine: &Engine, temporary: &Path, stop: &AtomicBool) -> io::Result<Saved> {
    // An interrupted save may have left a file.
    let _ = fs::remove_file(temporary);
    let write = || {
        let mut out = Stoppable {
            file: create(temporary)?,
            stop,
        };
        let saved = engine.save_to(Instant::now(), SystemTime::now(), &mut out)?;
        out.file.sync_all()?;
        Ok(saved)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })
}

/// Replaces a file by a complete one. If that fails, the new file is removed.
///
/// # Errors
/// Returns an error if the file cannot be renamed, or its directory cannot be written.
pub(super) fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// A file that is written until a flag is set.
struct Stoppable<'s> {
    file: File,
    stop: &'s AtomicBool,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the appliance ends"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the checkpoint of a file of saved sessions, and the file to which it is written first.
pub(super) fn checkpoint_of(path: &Path) -> [PathBuf; 2] {
    let checkpoint = beside(path, CHECKPOINT);
    let temporary = beside(&checkpoint, NEW);
    [checkpoint, temporary]
}

/// Restores the sessions of a checkpoint, if it exists. The checkpoint stays until the next one
/// replaces it: a start that fails early must not lose it.
///
/// # Errors
/// Returns the reason for which the file cannot be used. Nothing has been restored then.
pub(crate) fn restore_checkpoint(
    engine: &Engine,
    path: &Path,
    options: RestoreOptions,
) -> Result<Option<Restored>, RestoreFileError> {
    let [checkpoint, _] = checkpoint_of(path);
    read(engine, &checkpoint, options)
}

/// Gives a file that the start did not restore the ending `.refused`, so that no later start
/// prefers it to a newer checkpoint.
///
/// # Errors
/// Returns an error if the file exists and cannot be renamed.
pub(crate) fn set_aside(path: &Path) -> io::Result<()> {
    match fs::rename(path, beside(path, REFUSED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a checkpoint that newer sessions have replaced.
pub(crate) fn remove_checkpoint(path: &Path) {
    for file in checkpoint_of(path) {
        let _ = fs::remove_file(file);
    }
}

fn read(
    engine: &Engine,
    path: &Path,
    options: RestoreOptions,
) -> Result<Option<Restored>, RestoreFileError> {
    let about = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => about?,
    };
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(RestoreFileError::NotAFile);
    }
    let mut stream = BufReader::with_capacity(64 << 10, File::open(path)?);
    let restored = engine.restore_from(&mut stream, Instant::now(), SystemTime::now(), options)?;
    Ok(Some(restored))
}

/// Restores the sessions of a file, if it exists, and gives it the ending `.restored`, so that no
/// later start restores them again.
///
/// # Errors
/// Returns the reason for which the file cannot be used. The file stays then, and nothing has been
/// restored except with [`RestoreFileError::NotTaken`].
pub(crate) fn restore(
    engine: &Engine,
    path: &Path,
    options: RestoreOptions,
) -> Result<Option<Restored>, RestoreFileError> {
    let restored = read(engine, path, options)?;
    if restored.is_some() {
        fs::rename(path, beside(path, RESTORED)).map_err(RestoreFileError::NotTaken)?;
    }
    Ok(restored)
}

/// Renames the file back that [`restore`] has renamed, since the start has failed.
///
/// # Errors
/// Returns an error if the file cannot be renamed.
pub(crate) fn put_back(path: &Path) -> io::Result<()> {
    fs::rename(beside(path, RESTORED), path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use portcullis::Config;

    use super::*;

    fn engine() -> Engine {
        Engine::new(&Config::allow_all()).unwrap()
    }

    fn take(path: &Path) -> Result<Option<Restored>, RestoreFileError> {
        restore(&engine(), path, RestoreOptions::default())
    }

    #[test]
    fn a_torn_or_foreign_file_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        save(&engine(), &path).unwrap();
        let whole = fs::read(&path).unwrap();
        for bytes in [&whole[..whole.len() - 1], b"something else".as_slice(), b""] {
            fs::write(&path, bytes).unwrap();
            let error = take(&path).unwrap_err();
            assert!(matches!(error, RestoreFileError::Refused(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        let error = take(directory.path()).unwrap_err();
        assert!(matches!(error, RestoreFileError::NotAFile), "{error}");
    }

    #[test]
    fn the_file_is_its_owners_alone_and_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        fs::write(
            directory.path().join("sessions.new"),
            "what a crash has left",
        )
        .unwrap();
        save(&engine(), &path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(take(&path).unwrap().is_some());
        assert!(take(&path).unwrap().is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_older_than_a_checkpoint_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        set_aside(&path).unwrap();
        fs::write(&path, "of a version that this one does not know").unwrap();
        set_aside(&path).unwrap();
        assert!(!path.exists());
        assert!(directory.path().join("sessions.refused").exists());
    }

    #[test]
    fn a_start_that_fails_puts_the_file_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        save(&engine(), &path).unwrap();
        let saved = fs::read(&path).unwrap();
        take(&path).unwrap();
        put_back(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), saved);
    }

    #[test]
    fn a_file_that_cannot_be_taken_away_is_no_file_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        save(&engine(), &path).unwrap();
        // No file is renamed over a directory.
        fs::create_dir(beside(&path, RESTORED)).unwrap();
        let error = take(&path).unwrap_err();
        assert!(matches!(error, RestoreFileError::NotTaken(_)), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn where_nothing_can_be_saved_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        fs::write(beside(&path, NEW), "what a crash has left").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        save(&engine(), &path).unwrap();
        let saved = fs::read(&path).unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), saved);
        assert!(check(directory.path()).is_err(), "a directory");
        assert!(check(&directory.path().join("missing").join("sessions")).is_err());
        // Not even root can write there.
        assert!(check(Path::new("/proc/sessions")).is_err());
    }

    #[test]
    fn a_save_that_fails_leaves_the_older_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing").join("sessions");
        assert!(save(&engine(), &path).is_err());
    }

    #[test]
    fn a_save_that_is_stopped_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let [_, temporary] = checkpoint_of(&directory.path().join("sessions"));
        fs::write(&temporary, "what a crash has left").unwrap();
        let error = write(&engine(), &temporary, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(error.to_string(), "the appliance ends");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
