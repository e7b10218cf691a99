//! `portcullis sessions top`: the busiest sessions, or groups of them, again and again.
//!
//! The appliance sorts and groups all of its sessions ([`crate::run::rates`]). On a terminal,
//! [`screen`] draws the state ([`state`], changed by [`update`]) with [`view`]; elsewhere, each
//! look is a few [`lines`].

mod args;
mod asker;
mod columns;
mod dialogs;
mod input;
mod lines;
mod look;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod theme;
mod update;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

pub(super) use self::args::TopArgs;
use self::look::Look;
use super::client::Client;
use super::error::SessionsError;

/// Returns whether the view can be shown: keys are read from a terminal, and it is drawn on one.
pub(super) fn has_terminal() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// Shows the view on the terminal. `path` is the control socket.
///
/// # Errors
/// Returns an error if the first look is refused, or the terminal cannot be used.
pub(super) fn show(client: Client, path: &Path, args: &TopArgs) -> Result<(), SessionsError> {
    screen::show(client, path, args)
}

/// Writes each look as lines of text or as a line of JSON.
///
/// # Errors
/// Returns an error if the appliance refuses or no longer answers, or the output is gone.
pub(super) fn write(
    client: &mut Client,
    args: &TopArgs,
    json: bool,
    out: &mut impl Write,
) -> Result<(), SessionsError> {
    let mut before: Option<Look> = None;
    let mut looks = 0;
    loop {
        let look = Look::ask(client, args.request())?;
        let lines = if json {
            vec![lines::json(&look)?]
        } else {
            lines::text(&look, before.as_ref())
        };
        for line in lines {
            writeln!(out, "{line}").map_err(SessionsError::Output)?;
        }
        out.flush().map_err(SessionsError::Output)?;
        before = Some(look);
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}
