//! Output of the session log: a file that is rotated, or another writable path.
//!
//! Every failure is an error of the current call, and the next call tries again: it reopens the
//! file, or continues a rotation. A line counts as written once all of it was passed to the system.
//! A line that was partly written is completed before anything else is written.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::super::settings::LogSettings;
use super::batch::Written;
use super::counters::LogCounters;
use super::formats::Header;
use crate::output::notice;

/// Opens a file.
///
/// A regular file, or one that does not exist yet, is rotated; immediately, if its beginning is not
/// that of the format: the settings have changed. Everything else is written to in
/// place: standard output, devices, pipes, and links with any target.
///
/// # Errors
/// Returns an error if the directory of the file cannot be created, or the file cannot be written.
pub(super) fn open(path: &Path, settings: &LogSettings, header: Header) -> io::Result<Output> {
    let path = std::path::absolute(path)?;
    if path.file_name().is_none() {
        return Err(io::Error::other(format!(
            "{} is not a file",
            path.display()
        )));
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => Output::straight(open_straight(&path)?, header),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => {
            let mut output = Output::new(None, header);
            output.rotation = Some(Rotation {
                path,
                limit: settings.rotate_bytes,
                keep: u32::from(settings.keep),
            });
            output.reopen()?;
            if !output.continues()? {
                output.set_aside();
            }
            Ok(output)
        }
    }
}

/// Opens standard output.
///
/// # Errors
/// Returns an error if the system refuses another descriptor.
pub(super) fn open_stdout(header: Header) -> io::Result<Output> {
    let copy = io::stdout().as_fd().try_clone_to_owned()?;
    Output::straight(File::from(copy), header)
}

/// Opens a path that is not rotated.
fn open_straight(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    File::options()
        // Opening a pipe without a reader would block; opening it for both ends does not.
        .read(is_pipe)
        .append(true)
        .create(!is_pipe)
        .open(path)
}

/// An open output, or one that is to be opened.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` after a failure to open the file that is rotated.
    file: Option<File>,
    /// `None` if the output is not rotated.
    rotation: Option<Rotation>,
    /// The beginning of each file.
    header: Header,
    /// Rest of the header, to be written before any line.
    header_left: Vec<u8>,
    /// Rest of a line that was partly written.
    line_left: Vec<u8>,
    /// The file's length in bytes.
    len: u64,
}

impl Output {
    fn new(file: Option<File>, header: Header) -> Self {
        Self {
            file,
            rotation: None,
            header_left: header.bytes(),
            header,
            line_left: Vec::new(),
            len: 0,
        }
    }

    /// Returns an output that is not rotated.
    pub(super) fn straight(file: File, header: Header) -> io::Result<Self> {
        let found = file.metadata()?;
        let goes_on = found.is_file() && found.len() > 0;
        let mut output = Self::new(Some(file), header);
        if goes_on {
            output.header_left.clear();
        }
        Ok(output)
    }

    /// Writes whole lines, and counts those that were written. A partly written line is counted by
    /// the call that writes the rest or gives it up.
    pub(super) fn write(&mut self, lines: &[u8], counters: &LogCounters) -> Written {
        let mut left = lines;
        self.look_after(counters);
        let result = self.write_all(&mut left, counters);
        let begun = lines.len().saturating_sub(left.len());
        let begun = lines.get(..begun).unwrap_or_default();
        Written {
            items: usize::try_from(count_lines(begun)).unwrap_or(usize::MAX),
            result,
        }
    }

    /// Returns whether a part of a line was written.
    pub(super) fn has_begun(&self) -> bool {
        !self.line_left.is_empty()
    }

    /// Gives up the unwritten rest of a line.
    pub(super) fn give_up(&mut self, counters: &LogCounters) {
        if !self.line_left.is_empty() {
            counters.add_dropped(1);
            self.line_left.clear();
        }
    }

    fn write_all(&mut self, left: &mut &[u8], counters: &LogCounters) -> io::Result<()> {
        loop {
            if self.file.is_none() {
                self.reopen()?;
            }
            self.complete(counters)?;
            if left.is_empty() {
                return Ok(());
            }
            match self.room(left) {
                Some(room) => self.put(left, room, counters)?,
                None => self.rotate()?,
            }
        }
    }

    /// Returns the number of bytes of whole lines that fit into this file; `None` if no line fits.
    /// A line that is longer than the bound gets a file of its own.
    fn room(&self, lines: &[u8]) -> Option<usize> {
        let Some(rotation) = &self.rotation else {
            return Some(lines.len());
        };
        let room = usize::try_from(rotation.limit.saturating_sub(self.len)).unwrap_or(usize::MAX);
        let within = lines.get(..room).unwrap_or(lines);
        match within.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => Some(end + 1),
            None if self.len > self.header.bytes().len() as u64 => None,
            None => Some(first_line(lines)),
        }
    }

    /// Writes what was begun.
    fn complete(&mut self, counters: &LogCounters) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(ErrorKind::NotFound.into());
        };
        let (done, result) = send(file, &self.header_left);
        self.len += done as u64;
        self.header_left.drain(..done);
        result?;
        if self.line_left.is_empty() {
            return Ok(());
        }
        let (done, result) = send(file, &self.line_left);
        self.len += done as u64;
        self.line_left.drain(..done);
        result?;
        counters.add_written(1);
        Ok(())
    }

    /// Writes the first `len` bytes of `left`, whole lines, and removes lines that were written or
    /// begun.
    fn put(&mut self, left: &mut &[u8], len: usize, counters: &LogCounters) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(ErrorKind::NotFound.into());
        };
        let (done, result) = send(file, left.get(..len).unwrap_or(left));
        self.len += done as u64;
        let (written, unwritten) = left.split_at_checked(done).unwrap_or((left, &[]));
        counters.add_written(count_lines(written));
        *left = unwritten;
        if written.last().is_some_and(|last| *last != b'\n') {
            let (begun, others) = unwritten
                .split_at_checked(first_line(unwritten))
                .unwrap_or((unwritten, &[]));
            self.line_left.extend_from_slice(begun);
            *left = others;
        }
        result
    }

    /// Detects changes of the file by other programs: a moved or removed file must be reopened, and
    /// a file may have been emptied.
    fn look_after(&mut self, counters: &LogCounters) {
        let (Some(rotation), Some(file)) = (&self.rotation, &self.file) else {
            return;
        };
        let name = |found: &Metadata| (found.dev(), found.ino());
        let own = file.metadata();
        let gone = match (&own, fs::symlink_metadata(&rotation.path)) {
            (Ok(own), Ok(there)) => name(own) != name(&there),
            (_, Err(error)) => error.kind() == ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        };
        let len = own.map_or(self.len, |own| own.len());
        if gone {
            self.file = None;
            self.give_up(counters);
        } else if len < self.len {
            self.give_up(counters);
            self.header_left = match len {
                0 => self.header.bytes(),
                _ => Vec::new(),
            };
        }
        self.len = len;
    }

    /// Renames a file that begins as none of the format, and opens a new one. Without a right to do
    /// so, the log goes on in the file.
    fn set_aside(&mut self) {
        let Some(rotation) = &self.rotation else {
            return;
        };
        let aside = Rotation {
            // A file that may be of another program is never deleted.
            keep: rotation.keep.max(1),
            path: rotation.path.clone(),
            ..*rotation
        };
        let (path, done) = (rotation.path.display().to_string(), aside.shift());
        if let Err(error) = done.and_then(|()| self.reopen()) {
            notice(&format!(
                "warning: the log goes on in {path}, which begins in another format: {error}"
            ));
        }
    }

    /// Begins a new file.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if let Some(rotation) = &self.rotation {
            rotation.shift()?;
        }
        self.reopen()
    }

    /// Returns whether the file is empty, or begins as a file of the format does.
    fn continues(&self) -> io::Result<bool> {
        let Some(file) = self.file.as_ref().filter(|_| self.len > 0) else {
            return Ok(true);
        };
        let mut start = Vec::new();
        file.take(self.header.compared_len() as u64)
            .read_to_end(&mut start)?;
        Ok(self.header.begins(&start))
    }

    /// Opens the file that is rotated, at its end.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(rotation) = &self.rotation else {
            return Ok(());
        };
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            // A replacement of the file cannot redirect the output or block the opening.
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(&rotation.path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other(format!(
                "{} is no longer a regular file",
                rotation.path.display()
            )));
        }
        let mut last = [b'\n'];
        if let Some(before_last) = found.len().checked_sub(1) {
            file.read_exact_at(&mut last, before_last)?;
            // A line that an earlier run did not complete ends here.
            self.header_left = match last {
                [b'\n'] => Vec::new(),
                _ => b"\n".to_vec(),
            };
        } else {
            self.header_left = self.header.bytes();
        }
        self.len = found.len();
        self.file = Some(file);
        Ok(())
    }
}

/// Bound of a file's size, and the files that are kept.
#[derive(Debug)]
struct Rotation {
    path: PathBuf,
    /// No file is longer, except a file of a single line.
    limit: u64,
    /// Number of old files to keep; the newest has the number 1.
    keep: u32,
}

impl Rotation {
    fn old(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// Makes way for a new file. Old files move up to the first free number, so that an interrupted
    /// rotation can be repeated.
    fn shift(&self) -> io::Result<()> {
        if self.keep == 0 {
            return unless_missing(fs::remove_file(&self.path));
        }
        let is_taken = |number: &u32| fs::symlink_metadata(self.old(*number)).is_ok();
        let taken = (1..self.keep).take_while(is_taken).count();
        for number in (1..self.keep).take(taken).rev() {
            unless_missing(fs::rename(self.old(number), self.old(number + 1)))?;
        }
        unless_missing(fs::rename(&self.path, self.old(1)))?;
        // More files may have been kept before.
        let mut beyond = self.keep + 1;
        while fs::remove_file(self.old(beyond)).is_ok() {
            beyond += 1;
        }
        Ok(())
    }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes, and returns the number of written bytes and the error that stopped the others.
fn send(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
            Ok(sent) => done += sent,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Returns the length of the first line, its end included.
fn first_line(lines: &[u8]) -> usize {
    let end = lines.iter().position(|byte| *byte == b'\n');
    end.map_or(lines.len(), |end| end + 1)
}
