//! `portcullis run`: the appliance. It receives GENEVE, decides the packets, and returns GENEVE.
//!
//! Worker threads share the port, the engine and the front end ([`shared`]). Each turns for itself
//! ([`worker`]) on its own sockets ([`inlet`], [`outlet`]). Nothing else is on the packet path.
//! [`operations`] starts the parts around it.

mod appliance;
mod audit;
mod census;
mod checkpoint;
mod clients;
mod console;
mod control;
mod counters;
mod data_path;
mod drain;
mod event_queue;
mod event_sink;
mod exposition;
pub(crate) mod filter_args;
mod health;
mod http;
mod inlet;
mod instance;
mod limits;
mod log;
mod metrics;
pub(crate) mod observe;
mod operations;
mod outlet;
mod overflow;
mod overrides;
mod priority;
mod process;
pub(crate) mod protocol;
pub(crate) mod rates;
mod reload;
mod reloads;
mod saved;
mod sends;
mod service;
pub(crate) mod settings;
mod shared;
mod sharing;
mod signals;
mod socket;
pub(crate) mod store;
mod streak;
mod supervise;
#[cfg(test)]
mod tests;
pub(crate) mod view;
mod watch;
mod worker;
mod worker_stats;
pub(crate) mod xdp;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use portcullis::config::GeneveConfig;
use portcullis::{Config, ConfigError};
use portcullis_xdp::Refused;
use serde_json::{Value, json};

use self::counters::{Count, SendFault};
use self::data_path::DataPath;
use self::event_queue::EventQueue;
use self::instance::{Instance, Taken};
use self::operations::{OperateError, Operations, SessionsFileError, Start};
use self::overrides::Overrides;
use self::settings::{RunSettings, Settings};
use self::shared::Shared;
use self::socket::SocketError;
use self::store::{StoreError, StoreHandle};
use self::worker::Worker;
use self::worker_stats::WorkerStats;
use self::xdp::open::OpenError;
use self::xdp::state::XdpState;
use crate::config_file::{self, ConfigFileError};
use crate::memory;
use crate::output::notice;

/// Interval at which the main thread checks whether the end has come.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longest time that workers may take to end. A healthy one takes at most [`socket::PATIENCE`] and
/// the time to send a batch.
const GRACE: Duration = Duration::from_secs(5);

/// The arguments of `portcullis run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The configuration file (TOML); without one, safe defaults hold, and every new session is
    /// denied
    file: Option<PathBuf>,
    /// Worker threads, in place of `run.workers`
    #[arg(long, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=i64::from(RunSettings::MAX_WORKERS)))]
    workers: Option<u32>,
    /// An IPv4 address at whose port 6081 to listen, in place of `geneve.listen`; may be given
    /// again
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Ipv4Addr>,
}

/// Reason why the appliance did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The file is invalid or cannot be read.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// AF_XDP cannot be used.
    #[error("run.io = \"af_xdp\": {0}")]
    Xdp(#[from] OpenError),
    /// A part outside the packet path cannot start.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// A worker cannot receive any more.
    #[error("worker {0} cannot receive: {1}")]
    Worker(usize, io::Error),
    /// A worker has panicked.
    #[error("worker {0} has panicked")]
    Panic(usize),
    /// A worker does not end.
    #[error(
        "worker {0} hangs: it has not ended within {n} s, and is abandoned",
        n = GRACE.as_secs()
    )]
    Hangs(usize),
    /// Another appliance is there.
    #[error(transparent)]
    Taken(#[from] Taken),
    /// Sessions cannot be restored, or not be saved.
    #[error(transparent)]
    Sessions(#[from] SessionsFileError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refuses a thread or a signal handler.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the appliance until a signal ends it.
///
/// # Errors
/// The appliance did not start, or an error has ended it.
pub(crate) fn run(args: &RunArgs) -> Result<(), RunError> {
    let overrides = Overrides {
        workers: args.workers,
        listen: args.listen.clone(),
    };
    let (config, settings) = configuration(args, &overrides)?;
    if let Some(warning) = memory::warning(&config.compile()?.memory()) {
        notice(&format!("warning: {warning}"));
    }
    let (sender, events) = sync_channel(settings.log.queue);
    let queue = settings
        .log
        .is_on()
        .then(|| EventQueue::new(sender, &settings.log));
    let (store, store_threads) = match settings.store.is_on() {
        true => {
            let (store, threads) = StoreHandle::new(&settings.store)?;
            (Some(store), Some(threads))
        }
        false => (None, None),
    };
    let shared = Shared::new(config.clone(), settings.run.clone(), queue)?.with_store(store);
    let shared = Arc::new(shared);
    announce(&shared, &settings, args.file.is_none());
    if let Some(warning) = limits::raise_open_files(shared.workers.len(), &config.geneve.listen) {
        notice(&format!("warning: {warning}"));
    }
    // Resources that another program may hold come before the port that workers share: a start that
    // fails takes no packet from a running appliance.
    let data_path = Arc::new(DataPath::new(Arc::clone(&shared), overrides)?);
    let _instance = Instance::claim(&config.geneve.listen)?;
    let asked = settings.run.receive_queue as usize;
    let operations = Operations::start(Start {
        data_path,
        config,
        settings,
        file: args.file.clone(),
        events,
        store: store_threads,
    })?;
    // All sockets first: either every worker works, or none.
    let mut workers = (0..shared.workers.len())
        .map(|number| Worker::new(number, &shared))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(granted) = workers.first().and_then(|worker| worker.short_queue(asked)) {
        notice(&format!(
            "warning: the system grants {granted} bytes of run.receive_queue = {asked}: raise \
             net.core.rmem_max, or grant CAP_NET_ADMIN"
        ));
    }
    if let Err(error) = overflow::KernelDrops::read() {
        notice(&format!(
            "warning: portcullis_worker_receive_overflow_datagrams will not count: \
             /proc/self/net/udp: {error}"
        ));
    }
    operations.restore()?;
    xdp::start::start(&shared, &mut workers).inspect_err(|_| operations.put_back())?;
    let threads = start(workers, &shared).inspect_err(|_| operations.put_back())?;
    operations.announce();
    listening(&shared);
    while !operations.is_over() && threads.iter().all(|thread| !thread.is_finished()) {
        thread::sleep(PATIENCE);
    }
    shared.stop();
    let ended = finish(threads, GRACE);
    let hangs = matches!(ended, Err(RunError::Hangs(_)));
    let saved = operations.finish(hangs);
    // Counting would wait for the locks of a worker that hangs.
    if !hangs {
        notice(&farewell(&shared).to_string());
    }
    match (ended, saved) {
        (Err(ended), Err(saved)) => {
            notice(&saved.to_string());
            Err(ended)
        }
        (ended, saved) => ended.and(saved.map_err(RunError::from)),
    }
}

/// Returns the final counters as one JSON object.
fn farewell(shared: &Shared) -> Value {
    let (front, engine) = (shared.front.stats(), shared.engine.stats());
    let counted = |counts: Vec<(&'static str, u64)>| -> Value {
        let some = counts.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(name, count)| (name.to_owned(), Value::from(count)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let workers = |of: fn(&WorkerStats) -> &Count| -> Vec<u64> {
        shared
            .workers
            .iter()
            .map(|worker| of(worker).value())
            .collect()
    };
    let overflow: Vec<u64> = shared
        .workers
        .iter()
        .map(|worker| worker.receive_overflow.value())
        .collect();
    let faults = SendFault::ALL.map(|fault| {
        let of_fault = |worker: &WorkerStats| {
            worker
                .send_faults
                .get(fault as usize)
                .map_or(0, Count::value)
        };
        (fault.name(), shared.workers.iter().map(of_fault).sum())
    });
    let frames = Refused::ALL.map(|reason| {
        let workers = shared.workers.iter();
        let counts = workers.filter_map(|worker| worker.refused_frames.get(reason as usize));
        (reason.name(), counts.map(Count::value).sum())
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
        "waiting": front.waiting,
        "returned": front.returned,
        "rewritten": front.rewritten,
        "replied": front.replied,
        "told_too_big": front.told_too_big,
        "resets": front.resets,
        "refused": counted(refused.collect()),
        "dropped": counted(dropped.collect()),
        "unsent": counted(faults.to_vec()),
        "refused_frames": counted(frames.to_vec()),
        "lost_frames": shared.xdp.get().map_or(0, XdpState::dropped),
        "workers_receive_overflow": overflow,
        "endpoints": front.endpoints.len() - 1,
        "tunnel_ends": front.tunnel_ends,
        "sessions_opened": engine.sessions_opened,
        "workers_received": workers(|worker| &worker.received),
        "workers_returned": workers(|worker| &worker.returned),
        "workers_made": workers(|worker| &worker.made),
    })
}

/// Returns the configuration of the file and the arguments, or the safe defaults.
fn configuration(args: &RunArgs, overrides: &Overrides) -> Result<(Config, Settings), RunError> {
    let (mut config, mut settings) = match &args.file {
        Some(file) => config_file::load_all(file)?,
        None => (Config::default(), Settings::default()),
    };
    overrides.apply(&mut config);
    overrides.apply_own(&mut settings);
    config.validate()?;
    Ok((config, settings))
}

/// Starts the workers' threads, each on a processor of its own if asked.
fn start(
    workers: Vec<Worker>,
    shared: &Arc<Shared>,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let pin = shared.run.pin;
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

/// Binds the calling thread to a processor. If that fails, the thread runs unbound, and a message
/// says so.
fn pin_to(processor: usize) {
    let mut only = CpuSet::new();
    let bound = only
        .set(processor)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    if let Err(error) = bound {
        notice(&format!(
            "a worker is not bound to processor {processor}: {error}"
        ));
    }
}

/// Waits for the workers, for a bounded time. A hanging worker takes precedence over other errors.
fn finish(threads: Vec<JoinHandle<io::Result<()>>>, grace: Duration) -> Result<(), RunError> {
    let until = Instant::now() + grace;
    let mut result = Ok(());
    for (number, thread) in threads.into_iter().enumerate() {
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            result = match result {
                Err(RunError::Hangs(_)) => result,
                _ => Err(RunError::Hangs(number)),
            };
            continue;
        }
        let outcome = match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(RunError::Worker(number, error)),
            Err(_) => Err(RunError::Panic(number)),
        };
        result = result.and(outcome);
    }
    result
}

/// The largest number of warnings about the configuration at the start.
pub(crate) const MAX_WARNINGS: usize = 100;

/// Reports the configuration in force, and its warnings.
fn announce(shared: &Shared, settings: &Settings, without_file: bool) {
    let config = shared.config.read();
    for line in announcement(&config, settings, without_file) {
        notice(&line);
    }
}

/// Returns the lines about a configuration at the start.
fn announcement(config: &Config, settings: &Settings, without_file: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if without_file {
        lines.push(
            "no configuration file: safe defaults hold, and every new session is denied \
             (policy.default)"
                .to_owned(),
        );
        let is_shown = |key: &str| {
            let mut shown = ["policy.", "geneve.", "table."].into_iter();
            shown.any(|section| key.starts_with(section))
        };
        let values = config.effective().into_iter();
        let values = values.filter(|value| is_shown(&value.key));
        let values = values.chain(settings.effective(config));
        lines.extend(values.map(|value| value.to_string()));
    }
    // That of `policy.default` and that of the sources come last: these two are never left out.
    let warnings = settings::warnings(config, settings);
    let left_out = warnings.len().saturating_sub(MAX_WARNINGS);
    if left_out > 0 {
        lines.push(format!(
            "{left_out} warnings are left out here: `portcullis check` prints all"
        ));
    }
    let warnings = warnings.into_iter().skip(left_out);
    lines.extend(warnings.map(|warning| format!("warning: {warning}")));
    lines
}

/// Reports that the appliance accepts packets now.
fn listening(shared: &Shared) {
    let config = shared.config.read();
    let listen: Vec<String> = config
        .geneve
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    let unknown = config.geneve.unknown_zone().unwrap_or(GeneveConfig::REFUSE);
    notice(&format!(
        "listening at {} port {} with {} workers; {} endpoints named, others: {unknown}",
        listen.join(", "),
        portcullis::geneve::PORT,
        shared.workers.len(),
        config.geneve.endpoints.len(),
    ));
}

#[cfg(test)]
mod announcements {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let (config, settings) = crate::config_file::parse(text, "f").unwrap();
        announcement(&config, &settings, false)
    }

    #[test]
    fn a_policy_that_allows_by_default_is_warned_of_at_the_start() {
        let narrow = "geneve.sources = \"10.1.0.0/24\"\n";
        assert_eq!(lines(narrow), [""; 0]);
        let allowing = lines(&format!("{narrow}policy.default = \"allow\""));
        assert_eq!(
            allowing,
            [
                "warning: policy.default is \"allow\": sessions that no rule names pass; \"deny\" \
                 drops them"
            ]
        );
    }

    #[test]
    fn the_warnings_at_the_start_are_bounded_and_keep_that_of_the_default() {
        let rule = |n: usize| format!("[[policy.rule]]\nname = \"r{n}\"\naction = \"deny\"\n");
        let rules: String = (0..200).map(rule).collect();
        let zone = |n: usize| format!("z{n} = {}\n", n + 1);
        let zones: String = (0..150).map(zone).collect();
        let allowing = |n: usize| format!("policy.zones.z{n} = \"allow\"\n");
        let allowing: String = (0..150).map(allowing).collect();
        let lines = lines(&format!(
            "policy.default = \"allow\"\n{allowing}[zones]\n{zones}{rules}"
        ));
        assert_eq!(lines.len(), MAX_WARNINGS + 1);
        assert!(
            lines[0].starts_with("251 warnings are left out"),
            "{}",
            lines[0]
        );
        let is_default = |line: &String| line.starts_with("warning: policy.default is \"allow\"");
        assert!(lines.iter().any(is_default), "{lines:?}");
    }
}

#[cfg(test)]
mod ends {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_worker_that_hangs_is_left_behind() {
        let (release, hold) = channel::<()>();
        let hangs = thread::spawn(move || {
            let _ = hold.recv();
            Ok(())
        });
        let fails = thread::spawn(|| Err(io::ErrorKind::Other.into()));
        let begin = Instant::now();
        let result = finish(
            vec![fails, hangs, thread::spawn(|| Ok(()))],
            Duration::from_millis(50),
        );
        assert!(begin.elapsed() < Duration::from_secs(2));
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("worker 1 hangs"), "{error}");
        drop(release);
        assert!(finish(vec![thread::spawn(|| Ok(()))], GRACE).is_ok());
    }
}
