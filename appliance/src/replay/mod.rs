//! `portcullis replay CAPTURE`: passes every packet of a capture through the engine, in the
//! capture's own time.

mod clock;
mod collector;
mod columns;
mod error;
mod explain;
mod halves;
mod helper;
mod judge;
mod lines;
mod notes;
mod report;
mod rows;
mod summary;
mod talkers;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use portcullis::config::ChallengeMode;
use portcullis::packet::{Checksums, parse};
use portcullis::{Config, Engine};

use crate::capture::{
    CaptureError, CaptureReader, CaptureWriter, Frame, NotInside, Padded, decapsulate,
    has_no_length, ip_packet, pad_cut, stated_len, with_length,
};
use crate::config_file;
use crate::output;
use clock::CaptureClock;
use collector::Collector;
pub(crate) use error::ReplayError;
use explain::ExplainTarget;
use judge::{Candidate, Judge};
use lines::Lines;
use notes::Notes;
use report::Report;
use rows::Names;
use summary::Summary;

/// The hash seed of a replay: the same capture gives the same result every time.
const SEED: [u64; 4] = [0; 4];

/// Number of sessions that one call of `expire` visits.
const EXPIRY_BUDGET: usize = 4_096;

/// A progress bar appears for captures above this size, in bytes.
const PROGRESS_FROM: u64 = 8 << 20;

/// The arguments of `portcullis replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The capture: pcap or pcapng, plain or compressed with gzip or zstd; `-` for standard input
    capture: PathBuf,
    /// The configuration; without it: allow new sessions, strict TCP, default lifetimes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Verify checksums, also require them for UDP over IPv6, or trust them, as needed for a
    /// capture taken at a sender [default: as in the configuration, or trust]
    #[arg(long, value_enum)]
    checksums: Option<ChecksumsArg>,
    /// Write a JSON line for every frame; `-`, here and below, is standard output, and the summary
    /// then goes to standard error
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Write a JSON line for every session, those still open at the end included
    #[arg(long, value_name = "FILE")]
    sessions: Option<PathBuf>,
    /// Write forwarded packets, and those that the engine created, to a pcap file; or every packet,
    /// with the verdict and its reason as a comment, if FILE ends in .pcapng
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Explain a decision step by step, instead of the summary: on frame N, on the first packet
    /// that was not forwarded (`first-drop`), or on the first one for a drop reason
    #[arg(long, value_name = "N|first-drop|REASON")]
    explain: Option<ExplainTarget>,
    /// Decide the packets inside GENEVE (UDP port 6081) instead of the outer packets
    #[arg(long)]
    decapsulate: bool,
    /// Treat frames that end before their IP length as truncated by the capture, even if it does
    /// not mark them so
    #[arg(long)]
    pad_short: bool,
    /// Stop the clock: sessions end by their packets alone
    #[arg(long)]
    no_lifetimes: bool,
    /// Print the summary, or the explanation, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChecksumsArg {
    Verify,
    Require,
    Trust,
}

/// Decides every packet of a capture.
///
/// # Errors
/// See [`ReplayError`]. A broken or truncated capture is decided as far as it can be read, and the
/// summary is printed, before the error is returned.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), ReplayError> {
    let config = configuration(args)?;
    refuse_same_files(args)?;
    let engine = Engine::with_seed(&config, SEED)?;
    let mut reader = CaptureReader::open(&args.capture)?;
    let mut judge = Judge::new(&engine, &config, Lines::create(args.verdicts.as_deref())?);
    judge.written = args
        .write
        .as_deref()
        .map(CaptureWriter::create)
        .transpose()?;
    judge.explain(args.explain);
    let mut summary = Summary::default();
    let mut collector = Collector {
        names: Names::default(),
        clock: CaptureClock::new(!args.no_lifetimes),
        engine: &engine,
        frame: 0,
        lines: Lines::create(args.sessions.as_deref())?,
        summary: &mut summary,
        resets: Vec::new(),
        released: Vec::new(),
        notes: Notes::default(),
        failed: None,
    };
    let read = decide_all(args, &mut reader, &mut judge, &mut collector)?;
    engine.for_each_session(|session| collector.session(session, None));
    let Collector {
        lines,
        failed,
        clock,
        notes,
        ..
    } = collector;
    if let Some(error) = failed {
        return Err(error);
    }
    lines.finish()?;
    let explained = judge.finish()?;
    summary.note(notes);
    summary.finish(&engine, &clock);
    let text = match (&explained, args.json) {
        (Some(text), false) => text.clone(),
        (Some(text), true) => explain::json(text),
        (None, true) => summary.to_json(),
        (None, false) => report(args, &summary),
    };
    if args.explain.is_none() || explained.is_some() {
        print(args, &text)?;
    }
    match (read.broken, args.explain) {
        (Some(error), _) => Err(error.into()),
        (None, Some(ExplainTarget::Frame(asked))) if explained.is_none() => {
            let frames = read.frames;
            Err(ReplayError::NoSuchFrame { asked, frames })
        }
        (None, Some(asked)) if explained.is_none() => Err(ReplayError::NoSuchDrop(asked)),
        (None, _) => Ok(()),
    }
}

/// Returns the configuration that the arguments select, adapted to a capture.
fn configuration(args: &ReplayArgs) -> Result<Config, ReplayError> {
    let mut config = match &args.config {
        Some(path) => config_file::load(path)?,
        None => Config::allow_all(),
    };
    match args.checksums {
        Some(ChecksumsArg::Verify) => config.engine.checksums = Checksums::Verify,
        Some(ChecksumsArg::Require) => config.engine.checksums = Checksums::Require,
        Some(ChecksumsArg::Trust) => config.engine.checksums = Checksums::Trust,
        // At a sender, the interface may not have computed checksums before the capture.
        None if config.provenance.line("engine.checksums").is_none() => {
            config.engine.checksums = Checksums::Trust;
        }
        None => {}
    }
    // The hosts of a capture cannot answer a challenge.
    config.syn_challenge.mode = ChallengeMode::Off;
    config.syn_challenge.zones.clear();
    Ok(config)
}

/// Part of a capture that was read.
struct ReadFrames {
    /// Number of the last frame.
    frames: u64,
    /// Error that ended the capture early.
    broken: Option<CaptureError>,
}

/// Decides all frames, or those up to the explained decision if no other result is requested.
fn decide_all(
    args: &ReplayArgs,
    reader: &mut CaptureReader,
    judge: &mut Judge<'_>,
    collector: &mut Collector<'_>,
) -> Result<ReadFrames, ReplayError> {
    let only_explain = args.outputs().next().is_none();
    let progress = progress_bar(reader);
    let mut scratch = Vec::new();
    let (mut frames, mut last) = (0, None);
    let broken = loop {
        progress.set_position(reader.offset());
        let frame = match reader.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        frames = frame.number;
        let now = collector.clock.instant(frame.time);
        let engine = collector.engine;
        if engine.next_expiry().is_some_and(|due| due <= now) {
            while engine.expire_with(now, EXPIRY_BUDGET, collector).more {}
            collector.names.forget_ended();
        }
        last = Some(now);
        judge.overdue(now, collector)?;
        collector.summary.frame(&frame);
        collector.notes.frame(frame.number, frame.time);
        decide(args, &frame, &mut scratch, judge, collector)?;
        if judge.is_explained && only_explain {
            break None;
        }
    };
    if let Some(now) = last {
        judge.end(now, collector)?;
    }
    progress.finish_and_clear();
    Ok(ReadFrames { frames, broken })
}

/// Returns the summary as text, as wide as the terminal of its output.
fn report(args: &ReplayArgs, summary: &Summary) -> String {
    let is_taken = args.outputs().any(output::is_standard);
    let width = match is_taken {
        true => output::width(&io::stderr()),
        false => output::width(&io::stdout()),
    };
    Report { summary, width }.to_string()
}

/// Prints the summary or explanation: on standard error if a result goes to standard output.
fn print(args: &ReplayArgs, text: &str) -> Result<(), ReplayError> {
    let is_taken = args.outputs().any(output::is_standard);
    let (name, written) = if is_taken {
        (
            "standard error",
            io::stderr().lock().write_all(text.as_bytes()),
        )
    } else {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        ("standard output", written)
    };
    written.map_err(|source| ReplayError::Output {
        name: name.into(),
        source,
    })
}

/// Decides the packet of a frame, or counts the frame by its kind if it has none.
fn decide(
    args: &ReplayArgs,
    frame: &Frame<'_>,
    scratch: &mut Vec<u8>,
    judge: &mut Judge<'_>,
    collector: &mut Collector<'_>,
) -> Result<(), ReplayError> {
    let now = collector.clock.instant(frame.time);
    let (whole, tunneled) = match packet_of(args, frame, scratch) {
        Ok(found) => found,
        Err(reason) => return judge.skip(frame.number, reason, collector),
    };
    let candidate = Candidate {
        number: frame.number,
        time: frame.time,
        bytes: whole.bytes,
        padded: whole.padded,
        tunneled,
        unsegmented: false,
    };
    if !has_no_length(whole.bytes) {
        return judge.decide(&candidate, now, collector);
    }
    let made = with_length(whole.bytes);
    if made.is_empty() {
        return judge.decide(&candidate, now, collector);
    }
    collector.summary.without_length();
    // The missing bytes are at the end, possibly of several segments.
    let mut lacking = whole.padded;
    let of_segment = |bytes| {
        let payload =
            parse(bytes, Checksums::Trust).map_or(0, |parsed| parsed.payload(bytes).len());
        let padded = lacking.min(payload);
        lacking -= padded;
        Candidate {
            bytes,
            padded,
            unsegmented: true,
            ..candidate
        }
    };
    let mut segments: Vec<_> = made
        .iter()
        .map(Vec::as_slice)
        .rev()
        .map(of_segment)
        .collect();
    segments.reverse();
    match segments.as_slice() {
        [one] => judge.decide(one, now, collector),
        several => judge.decide_segments(several, now, collector),
    }
}

/// Returns the packet of a frame at its length on the wire, and whether it comes from a layer-3
/// tunnel; for other frames the name of their kind.
fn packet_of<'b>(
    args: &ReplayArgs,
    frame: &Frame<'b>,
    scratch: &'b mut Vec<u8>,
) -> Result<(Padded<'b>, bool), &'static str> {
    let ip = ip_packet(frame.link, frame.bytes).map_err(|not_ip| not_ip.name())?;
    let short = match stated_len(ip.bytes) {
        Some(stated) if args.pad_short => stated.saturating_sub(ip.bytes.len()),
        _ => 0,
    };
    let whole = pad_cut(ip.bytes, frame.cut().max(short), scratch);
    if args.decapsulate
        && let Some(inside) = decapsulate(whole.bytes).map_err(NotInside::name)?
    {
        let bytes = inside.bytes;
        return Ok((Padded { bytes, ..whole }, inside.is_layer_3));
    }
    Ok((whole, false))
}

impl ReplayArgs {
    /// Returns the files to which results are written.
    fn outputs(&self) -> impl Iterator<Item = &Path> {
        [&self.verdicts, &self.sessions, &self.write]
            .into_iter()
            .filter_map(|output| output.as_deref())
    }
}

/// Rejects results that are the capture, the configuration, or another result, since opening a
/// result empties the file.
fn refuse_same_files(args: &ReplayArgs) -> Result<(), ReplayError> {
    let mut before: Vec<&Path> = args.config.as_deref().into_iter().collect();
    if !output::is_standard(&args.capture) {
        before.push(&args.capture);
    }
    for output in args.outputs() {
        let is_standard = output::is_standard(output);
        // Devices such as /dev/null accept any number of results.
        let is_device = !is_standard && std::fs::metadata(output).is_ok_and(|data| !data.is_file());
        for other in &before {
            // Files that do not exist yet, or cannot be examined, are compared by name.
            let same = if is_standard {
                output == *other
            } else {
                same_file::is_same_file(output, other).unwrap_or(output == *other)
            };
            if same && !is_device {
                return Err(ReplayError::SameFile(
                    output::name(output),
                    output::name(other),
                ));
            }
        }
        before.push(output);
    }
    Ok(())
}

/// Returns a progress bar for long captures; a hidden one unless standard error is a terminal.
fn progress_bar(reader: &CaptureReader) -> ProgressBar {
    match reader.total_len() {
        Some(total) if total >= PROGRESS_FROM && io::stderr().is_terminal() => {
            let bar = ProgressBar::new(total);
            if let Ok(style) =
                ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} left")
            {
                bar.set_style(style);
            }
            bar
        }
        _ => ProgressBar::hidden(),
    }
}

#[cfg(test)]
mod schemas {
    use super::rows::{SessionRow, VerdictRow};
    use super::summary::Summary;
    use crate::schema;

    #[test]
    fn the_schemas_are_up_to_date_with_the_objects_like_every_page() {
        schema::check::<Summary>("replay_summary");
        schema::check::<VerdictRow>("replay_verdict");
        schema::check::<SessionRow>("replay_session");
    }
}
