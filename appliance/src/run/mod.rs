//! `portcullis run`: the appliance. GENEVE in, decided, GENEVE out.
//!
//! Worker threads share the port, the engine and the front end ([`shared`]); each turns for itself ([`worker`]) on its own
//! sockets ([`socket`]). Nothing else is on the packet path.

mod shared;
mod socket;
mod worker;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use portcullis::config::GeneveConfig;
use portcullis::policy::Action;
use portcullis::{Config, ConfigError};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::shared::{Count, SendFault, Shared, WorkerStats};
use self::socket::SocketError;
use self::worker::Worker;
use crate::config_file::{self, ConfigFileError};

/// How often the main thread looks whether the end has come.
const PATIENCE: Duration = Duration::from_millis(50);

/// The arguments of `portcullis run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The configuration file (TOML); without one, safe defaults hold, and every new session is denied
    file: Option<PathBuf>,
    /// Worker threads, in place of `run.workers`
    #[arg(long, value_name = "COUNT")]
    workers: Option<u32>,
    /// An IPv4 address at whose port 6081 to listen, in place of `geneve.listen`; may be given again
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Ipv4Addr>,
}

/// Why the appliance did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The file is wrong or cannot be read.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket could not be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A worker cannot receive any more.
    #[error("worker {0} cannot receive: {1}")]
    Worker(usize, io::Error),
    /// A worker has panicked.
    #[error("worker {0} has ended in disorder")]
    Panic(usize),
    /// The system refuses a thread or a signal handler.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the appliance until a signal ends it.
///
/// # Errors
/// What kept it from starting, or ended it.
pub(crate) fn run(args: &RunArgs) -> Result<(), RunError> {
    let config = configuration(args)?;
    let shared = Arc::new(Shared::new(config, None)?);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&shared.stop))?;
    }
    // All sockets first: either every worker works, or none.
    let workers = (0..shared.workers.len())
        .map(|number| Worker::new(number, &shared))
        .collect::<Result<Vec<_>, _>>()?;
    announce(&shared, args.file.is_none());
    let threads = start(workers, &shared)?;
    while !shared.stop.load(Ordering::Relaxed) && threads.iter().all(|thread| !thread.is_finished()) {
        thread::sleep(PATIENCE);
    }
    shared.stop.store(true, Ordering::Relaxed);
    let result = finish(threads);
    say(&farewell(&shared).to_string());
    result
}

/// What the appliance has done, as one object.
fn farewell(shared: &Shared) -> Value {
    let (front, engine) = (shared.front.stats(), shared.engine.stats());
    let counted = |counts: Vec<(&'static str, u64)>| -> Value {
        let some = counts.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(name, count)| (name.to_owned(), Value::from(count)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let workers = |of: fn(&WorkerStats) -> &Count| -> Vec<u64> {
        shared.workers.iter().map(|worker| of(worker).value()).collect()
    };
    let faults = SendFault::ALL.map(|fault| {
        let of_fault = |worker: &WorkerStats| worker.send_faults.get(fault as usize).map_or(0, Count::value);
        (fault.name(), shared.workers.iter().map(of_fault).sum())
    });
    let refused = front
        .refused
        .iter()
        .map(|(refusal, count)| (refusal.name(), *count));
    let dropped = engine
        .dropped
        .iter()
        .map(|(reason, count)| (reason.name(), *count));
    json!({
        "received": front.received,
        "outcomes": front.outcomes(),
        "returned": front.returned,
        "rewritten": front.rewritten,
        "replied": front.replied,
        "told_too_big": front.told_too_big,
        "resets": front.resets,
        "refused": counted(refused.collect()),
        "dropped": counted(dropped.collect()),
        "unsent": counted(faults.to_vec()),
        "endpoints": front.endpoints.len() - 1,
        "tunnel_ends": front.tunnel_ends,
        "sessions_opened": engine.sessions_opened,
        "workers_received": workers(|worker| &worker.received),
        "workers_returned": workers(|worker| &worker.returned),
        "workers_made": workers(|worker| &worker.made),
    })
}

/// The configuration of the file and the arguments, or the safe defaults.
fn configuration(args: &RunArgs) -> Result<Config, RunError> {
    let mut config = match &args.file {
        Some(file) => config_file::load(file)?,
        None => {
            let mut config = Config::default();
            config.policy.default = Action::Deny;
            config
        }
    };
    if let Some(workers) = args.workers {
        config.run.workers = workers;
    }
    if !args.listen.is_empty() {
        config.geneve.listen.clone_from(&args.listen);
    }
    config.validate()?;
    Ok(config)
}

/// Starts the workers' threads, each on a processor of its own if asked.
fn start(workers: Vec<Worker>, shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let pin = shared.config.read().run.pin;
    let processors: Vec<usize> = match sched_getaffinity(Pid::from_raw(0)) {
        Ok(allowed) if pin => (0..CpuSet::count())
            .filter(|number| allowed.is_set(*number).unwrap_or(false))
            .collect(),
        _ => Vec::new(),
    };
    let mut threads = Vec::with_capacity(workers.len());
    for (number, worker) in workers.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        let processor = processors.iter().cycle().nth(number).copied();
        let body = move || {
            if let Some(processor) = processor {
                pin_to(processor);
            }
            worker.run(&shared)
        };
        threads.push(
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(body)?,
        );
    }
    Ok(threads)
}

/// Binds the calling thread to a processor. Where that fails, it runs unbound, and says so.
fn pin_to(processor: usize) {
    let mut only = CpuSet::new();
    let bound = only
        .set(processor)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    if let Err(error) = bound {
        say(&format!(
            "a worker is not bound to processor {processor}: {error}"
        ));
    }
}

/// Waits for the workers.
fn finish(threads: Vec<JoinHandle<io::Result<()>>>) -> Result<(), RunError> {
    let mut result = Ok(());
    for (number, thread) in threads.into_iter().enumerate() {
        let outcome = match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(RunError::Worker(number, error)),
            Err(_) => Err(RunError::Panic(number)),
        };
        result = result.and(outcome);
    }
    result
}

/// Says what is in force, so that nobody has to guess.
fn announce(shared: &Shared, without_file: bool) {
    let config = shared.config.read();
    if without_file {
        say("no configuration file: safe defaults hold, and every new session is denied (policy.default)");
        for value in config.effective() {
            let told = ["policy.", "geneve.", "run.", "table."];
            if told.iter().any(|section| value.key.starts_with(section)) {
                say(&value.to_string());
            }
        }
    }
    for warning in config.warnings() {
        say(&format!("warning: {warning}"));
    }
    let listen: Vec<String> = config.geneve.listen.iter().map(ToString::to_string).collect();
    let unknown = config.geneve.unknown_zone().unwrap_or(GeneveConfig::REFUSE);
    say(&format!(
        "listening at {} port {} with {} workers; {} endpoints named, others: {unknown}",
        listen.join(", "),
        portcullis::geneve::PORT,
        shared.workers.len(),
        config.geneve.endpoints.len(),
    ));
}

/// Tells whoever reads the standard error.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "portcullis: {what}");
}
