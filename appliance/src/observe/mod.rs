//! `portcullis observe`: prints the stream of events of a running appliance, or writes its packets
//! to a capture.

mod args;
mod error;
mod packets;
mod text;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use self::args::ObserveArgs;
pub(crate) use self::error::ObserveError;
use self::packets::Packets;
use self::text::Printer;
use crate::output::{self, notice};
use crate::run::observe::row::EventRow;
use crate::run::protocol::{Reply, Request};
use crate::sessions::SessionsError;
use crate::sessions::client::Client;

/// Destination of the events.
enum Output {
    Json(io::Stdout),
    Text(Printer, io::Stdout),
    Capture(Packets),
}

impl Output {
    fn of(args: &ObserveArgs) -> Result<Self, ObserveError> {
        let out = io::stdout();
        if let Some(path) = &args.write {
            return Ok(Self::Capture(Packets::create(path)?));
        }
        if args.json {
            return Ok(Self::Json(out));
        }
        let is_colored = output::is_colored(&out);
        Ok(Self::Text(Printer { is_colored }, out))
    }

    fn put(&mut self, row: &EventRow) -> Result<(), ObserveError> {
        match self {
            Self::Json(out) => {
                let line = serde_json::to_string(row)
                    .map_err(|error| SessionsError::Answer(error.to_string()))?;
                writeln!(out, "{line}").map_err(ObserveError::Output)
            }
            Self::Text(printer, out) => {
                writeln!(out, "{}", printer.line(row)).map_err(ObserveError::Output)
            }
            Self::Capture(packets) if row.event == EventRow::LEFT_OUT => {
                notice(&text::details(row));
                packets.flush()
            }
            Self::Capture(packets) => packets.write(row),
        }
    }

    fn flush(&mut self) -> Result<(), ObserveError> {
        match self {
            Self::Json(out) | Self::Text(_, out) => out.flush().map_err(ObserveError::Output),
            Self::Capture(packets) => packets.flush(),
        }
    }
}

/// Prints the stream until it ends, or a signal ends it.
///
/// # Errors
/// The appliance cannot be asked, or refuses; or the output cannot be written.
pub(crate) fn run(args: &ObserveArgs) -> Result<(), ObserveError> {
    let mut output = Output::of(args)?;
    // A capture is complete after a signal: the appliance writes at least once a second.
    let stop = Arc::new(AtomicBool::new(false));
    if matches!(output, Output::Capture(_)) {
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(ObserveError::Start)?;
        }
    }
    let done = follow(args, &mut output, &stop);
    let flushed = output.flush();
    if let Output::Capture(packets) = &output {
        notice(&format!("{} packets written", packets.written));
    }
    match done.and(flushed) {
        // The reader has closed the pipe.
        Err(ObserveError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn follow(args: &ObserveArgs, output: &mut Output, stop: &AtomicBool) -> Result<(), ObserveError> {
    let mut client = Client::connect(&args.control)?;
    client.send(&Request::Observe(args.spec()))?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        match client.receive()? {
            Reply::Event(row) => {
                output.put(&row)?;
                count += u64::from(row.event != EventRow::LEFT_OUT);
                if args.count.is_some_and(|most| count >= most) {
                    return Ok(());
                }
            }
            Reply::Pulse => output.flush()?,
            Reply::Error(error) => return Err(SessionsError::Refused(error).into()),
            Reply::Done { .. } => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}
