//! Destinations of a command's results and messages: files, standard output and standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use terminal_size::{Width, terminal_size_of};

/// Width of text in columns if its destination is not a terminal.
const DEFAULT_WIDTH: usize = 80;

/// Sets whether output is colored, for every command. With `auto` the destination and the
/// environment decide (`NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM`).
pub(crate) fn set_color(choice: clap::ColorChoice) {
    let choice = match choice {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    };
    choice.write_global();
    if choice == ColorChoice::Always {
        crossterm::style::force_color_output(true);
    }
}

/// Returns whether output to a stream is colored.
pub(crate) fn is_colored<S: RawStream>(stream: &S) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Returns the width of text for a stream in columns: that of its terminal, else of `COLUMNS`, else
/// 80.
pub(crate) fn width<S: AsFd>(stream: &S) -> usize {
    let terminal = terminal_size_of(stream).map(|(Width(width), _)| usize::from(width));
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let width = terminal.or_else(columns).filter(|width| *width > 0);
    width.unwrap_or(DEFAULT_WIDTH)
}

/// Returns whether a path means standard output: `-`.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the name of a path in messages.
pub(crate) fn name(path: &Path) -> String {
    if is_standard(path) {
        "standard output".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Creates the file, or empties it, unless the path means standard output.
///
/// # Errors
/// Returns an error if the file cannot be created.
pub(crate) fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    if is_standard(path) {
        Ok(Box::new(io::stdout()))
    } else {
        Ok(Box::new(File::create(path)?))
    }
}

/// Writes text to standard output. A reader that has closed its end is not an error.
///
/// # Errors
/// Returns an error if the text cannot be written.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a message for the operator to standard error. A failed write is ignored.
pub(crate) fn notice(message: &str) {
    let _ = writeln!(io::stderr(), "portcullis: {message}");
}
