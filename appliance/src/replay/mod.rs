//! `portcullis replay CAPTURE`: every packet of a capture through the engine, in the capture's own time.

mod clock;
mod halves;
mod judge;
mod rows;
mod summary;
mod talkers;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use portcullis::config::ChallengeMode;
use portcullis::fragment::HoldId;
use portcullis::packet::Checksums;
use portcullis::{Config, ConfigError, EndReason, Engine, Reset, SessionRecord, Sink};

use crate::capture::{
    CaptureError, CaptureReader, CaptureWriter, Frame, NotInside, Padded, decapsulate, ip_packet, pad_cut,
};
use crate::config_file::{self, ConfigFileError};
use clock::CaptureClock;
use judge::{Candidate, Judge};
use rows::{Names, SessionRow};
use summary::Summary;

/// The hash seed of a replay: the same capture gives the same result every time.
const SEED: [u64; 4] = [0; 4];

/// Sessions that `expire` looks at in one call.
const EXPIRY_BUDGET: usize = 4_096;

/// A progress bar appears for captures above this size, in bytes.
const PROGRESS_FROM: u64 = 8 << 20;

/// The arguments of `portcullis replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The capture: pcap or pcapng; `-` for standard input
    capture: PathBuf,
    /// The configuration; without it: allow new sessions, strict TCP, default lifetimes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Verify checksums, also require them of UDP over IPv6, or trust them as a capture taken at a
    /// sender needs it [default: as the configuration says, or trust]
    #[arg(long, value_enum)]
    checksums: Option<ChecksumsArg>,
    /// Write a JSON line for every frame
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
    /// Write a JSON line for every session, those still open at the end included
    #[arg(long, value_name = "FILE")]
    sessions: Option<PathBuf>,
    /// Write what was forwarded, and the packets that the engine made, to a pcap
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Explain the decision on frame N step by step, instead of the summary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    explain: Option<u64>,
    /// Decide the packets inside GENEVE (UDP port 6081) instead of those around them
    #[arg(long)]
    decapsulate: bool,
    /// Take frames that end before their IP length as cut by the capture, even if it calls them whole
    #[arg(long)]
    pad_short: bool,
    /// Let no time pass: sessions end by their packets alone
    #[arg(long)]
    no_lifetimes: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChecksumsArg {
    Verify,
    Require,
    Trust,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The capture cannot be read to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The configuration file cannot be used.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The configuration does not compile.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A result cannot be written.
    #[error("{name}: {source}")]
    Output {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A result would be written over the capture, or two results into one file.
    #[error("{0} and {1} are one file")]
    SameFile(String, String),
    /// `--explain` names a frame that is not there.
    #[error("--explain {asked}: the capture has only {frames} frames")]
    NoSuchFrame {
        /// The frame asked for.
        asked: u64,
        /// Frames in the capture.
        frames: u64,
    },
}

impl ReplayError {
    /// 2 for a capture that is broken or truncated, 1 for everything else.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Capture(CaptureError::Io { .. } | CaptureError::Read { .. }) => 1,
            Self::Capture(_) => 2,
            _ => 1,
        }
    }
}

/// A file of JSON lines, or nothing.
struct Lines {
    name: String,
    out: Option<BufWriter<File>>,
}

impl Lines {
    fn create(path: Option<&Path>) -> Result<Self, ReplayError> {
        let name = path.map(|path| path.display().to_string()).unwrap_or_default();
        let out = match path {
            Some(path) => {
                let file = File::create(path).map_err(|source| ReplayError::Output {
                    name: name.clone(),
                    source,
                })?;
                Some(BufWriter::new(file))
            }
            None => None,
        };
        Ok(Self { name, out })
    }

    fn row(&mut self, row: &impl serde::Serialize) -> Result<(), ReplayError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        serde_json::to_writer(&mut *out, row)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(|source| ReplayError::Output {
                name: self.name.clone(),
                source,
            })
    }

    fn finish(mut self) -> Result<(), ReplayError> {
        match &mut self.out {
            Some(out) => out.flush().map_err(|source| ReplayError::Output {
                name: self.name,
                source,
            }),
            None => Ok(()),
        }
    }
}

/// Collects sessions as they open and end.
struct Collector<'a> {
    names: Names,
    clock: CaptureClock,
    engine: &'a Engine,
    lines: Lines,
    summary: &'a mut Summary,
    /// RSTs that the engine has made of its own accord since the last frame.
    resets: Vec<Reset>,
    /// Fragments that are to be decided now.
    released: Vec<HoldId>,
    failed: Option<ReplayError>,
}

impl Collector<'_> {
    fn session(&mut self, session: &SessionRecord, end: Option<EndReason>) {
        let row = SessionRow::new(session, end, &self.names, &self.clock, &self.engine.policy());
        self.summary.session(&row);
        if let Err(error) = self.lines.row(&row) {
            self.failed.get_or_insert(error);
        }
    }
}

impl Sink for Collector<'_> {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.names.open(session.id);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.session(session, Some(reason));
        self.names.end(session.id);
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }

    fn released(&mut self, id: HoldId) {
        self.released.push(id);
    }
}

/// Decides every packet of a capture.
///
/// # Errors
/// See [`ReplayError`]. A capture that is broken or cut is decided as far as it can be read, and the summary
/// is printed, before the error is returned.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), ReplayError> {
    let mut config = match &args.config {
        Some(path) => config_file::load(path)?,
        None => Config::default(),
    };
    match args.checksums {
        Some(ChecksumsArg::Verify) => config.engine.checksums = Checksums::Verify,
        Some(ChecksumsArg::Require) => config.engine.checksums = Checksums::Require,
        Some(ChecksumsArg::Trust) => config.engine.checksums = Checksums::Trust,
        // Where a capture was taken, an interface may not yet have computed them.
        None if config.provenance.line("engine.checksums").is_none() => {
            config.engine.checksums = Checksums::Trust;
        }
        None => {}
    }
    refuse_same_files(args)?;
    // The hosts of a capture cannot answer a challenge.
    config.syn_challenge.mode = ChallengeMode::Off;
    config.syn_challenge.zones.clear();
    let engine = Engine::with_seed(&config, SEED)?;
    let mut reader = CaptureReader::open(&args.capture)?;
    let mut judge = Judge::new(&engine, &config, Lines::create(args.verdicts.as_deref())?);
    judge.written = args.write.as_deref().map(CaptureWriter::create).transpose()?;
    judge.wants(args.explain);
    let progress = progress_bar(&reader);
    let mut summary = Summary::default();
    let mut collector = Collector {
        names: Names::default(),
        clock: CaptureClock::new(!args.no_lifetimes),
        engine: &engine,
        lines: Lines::create(args.sessions.as_deref())?,
        summary: &mut summary,
        resets: Vec::new(),
        released: Vec::new(),
        failed: None,
    };
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
        if engine.next_expiry().is_some_and(|due| due <= now) {
            while engine.expire(now, EXPIRY_BUDGET, &mut collector).more {}
            collector.names.forget_ended();
        }
        last = Some(now);
        judge.overdue(now, &mut collector)?;
        collector.summary.frame(&frame);
        match packet_of(args, &frame, &mut scratch) {
            Err(reason) => judge.skip(frame.number, reason, &mut collector)?,
            Ok((whole, tunneled)) => {
                let candidate = Candidate {
                    number: frame.number,
                    time: frame.time,
                    bytes: whole.bytes,
                    padded: whole.padded,
                    tunneled,
                };
                judge.decide(&candidate, now, &mut collector)?;
            }
        }
        let only_explain = args.verdicts.is_none() && args.sessions.is_none() && args.write.is_none();
        if judge.is_explained && only_explain {
            break None;
        }
    };
    if let Some(now) = last {
        judge.end(now, &mut collector)?;
    }
    progress.finish_and_clear();
    engine.for_each_session(|session| collector.session(session, None));
    let Collector {
        lines, failed, clock, ..
    } = collector;
    if let Some(error) = failed {
        return Err(error);
    }
    lines.finish()?;
    let Judge {
        verdicts,
        written,
        explained,
        ..
    } = judge;
    verdicts.finish()?;
    if let Some(written) = written {
        written.finish()?;
    }
    summary.finish(&engine, &clock);
    let text = match (&explained, args.json) {
        (Some(text), _) => text.clone(),
        (None, true) => summary.to_json(),
        (None, false) => summary.to_string(),
    };
    if args.explain.is_none() || explained.is_some() {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| ReplayError::Output {
                name: "standard output".into(),
                source,
            })?;
    }
    match (broken, args.explain) {
        (Some(error), _) => Err(error.into()),
        (None, Some(asked)) if explained.is_none() => Err(ReplayError::NoSuchFrame { asked, frames }),
        (None, _) => Ok(()),
    }
}

/// The packet of a frame that is to be decided, at its length on the wire, and whether it comes from a layer-3
/// tunnel; or the name of what the frame is instead.
fn packet_of<'b>(
    args: &ReplayArgs,
    frame: &Frame<'b>,
    scratch: &'b mut Vec<u8>,
) -> Result<(Padded<'b>, bool), &'static str> {
    let ip = ip_packet(frame.link, frame.bytes).map_err(|not_ip| not_ip.name())?;
    let short = match ip_len(ip.bytes) {
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

/// Opening a result empties it: none may be the capture, or another result.
fn refuse_same_files(args: &ReplayArgs) -> Result<(), ReplayError> {
    let files: Vec<_> = [Some(&args.capture), args.config.as_ref()]
        .into_iter()
        .chain([
            args.verdicts.as_ref(),
            args.sessions.as_ref(),
            args.write.as_ref(),
        ])
        .collect();
    for (at, output) in files.iter().enumerate().skip(2) {
        let Some(output) = output else { continue };
        for other in files.iter().take(at).flatten() {
            // Two names of a file that is not there yet, or one that cannot be told: the names decide.
            let same = same_file::is_same_file(output, other).unwrap_or(output == other);
            // Devices such as /dev/null take anything.
            let is_device = std::fs::metadata(output).is_ok_and(|data| !data.is_file());
            if same && !is_device {
                return Err(ReplayError::SameFile(
                    output.display().to_string(),
                    other.display().to_string(),
                ));
            }
        }
    }
    Ok(())
}

/// A bar for long captures; none where nobody looks.
fn progress_bar(reader: &CaptureReader) -> ProgressBar {
    match reader.total_len() {
        Some(total) if total >= PROGRESS_FROM && io::stderr().is_terminal() => {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} left") {
                bar.set_style(style);
            }
            bar
        }
        _ => ProgressBar::hidden(),
    }
}

/// The length that the IP header states.
fn ip_len(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => Some(usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?))),
        6 => Some(40 + usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?))),
        _ => None,
    }
}
