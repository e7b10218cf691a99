//! The three threads of the store in a running appliance.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use portcullis::continuity::{Claim, FlowName, StoreWhen, SweepTime};

use super::answers::Answers;
use super::asker::{Asker, Told};
use super::handle::{Asked, Queues, StoreHandle};
use super::link::Servers;
use super::retry::Retries;
use super::sweeper::Sweeper;
use super::writer::Writer;
use crate::run::data_path::DataPath;
use crate::run::settings::StoreSettings;

/// Longest time to hand the sessions over at the end.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Threads of the store before their start.
pub(crate) struct StoreThreads {
    servers: Arc<Servers>,
    queues: Queues,
    settings: StoreSettings,
}

/// Hand-over of all sessions at the end.
#[derive(Debug, Default)]
pub(crate) struct HandOver {
    pub(super) asked: AtomicBool,
    pub(super) done: AtomicBool,
    /// Sessions that the store has not taken.
    pub(super) lost: AtomicU64,
}

impl HandOver {
    /// Hands all sessions over: each is written once more. Returns the outcome in words.
    pub(crate) fn run(&self) -> String {
        self.asked.store(true, Ordering::Relaxed);
        let until = Instant::now() + HAND_OVER;
        while !self.done.load(Ordering::Acquire) {
            if Instant::now() >= until {
                return format!(
                    "warning: not all sessions are handed over within {} s",
                    HAND_OVER.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        match self.lost.load(Ordering::Relaxed) {
            0 => "all sessions are handed over".to_owned(),
            lost => format!("warning: {lost} sessions could not be handed over"),
        }
    }
}

impl StoreThreads {
    pub(super) fn new(servers: Servers, queues: Queues, settings: StoreSettings) -> Self {
        Self {
            servers: Arc::new(servers),
            queues,
            settings,
        }
    }

    /// Starts the threads, which end with `stop`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        self,
        data_path: &Arc<DataPath>,
        hand_over: &Arc<HandOver>,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let Some(store) = &data_path.shared.store else {
            return Ok(Vec::new());
        };
        let Self {
            servers,
            queues,
            settings,
        } = self;
        let retries = Arc::new(Retries::default());
        let writer = Writer::new(
            Arc::clone(&servers),
            Arc::clone(&store.envelope),
            Arc::clone(&store.state),
            queues.changes,
            settings.pipeline,
            disown(Arc::clone(data_path)),
        );
        let answers = Answers {
            data_path: Arc::clone(data_path),
            retries: Arc::clone(&retries),
        };
        let asker = Asker::new(
            servers,
            Arc::clone(&store.envelope),
            Arc::clone(&store.state),
            queues.questions,
            move |told: &mut Told<Asked>| answers.take(told),
        );
        let sweeper = Sweeper {
            data_path: Arc::clone(data_path),
            ended: queues.ended,
            retries,
            hand_over: Arc::clone(hand_over),
            when: when(&settings),
        };
        let run = |name: &str, body: Box<dyn FnOnce(&AtomicBool) + Send>| {
            let stop = Arc::clone(stop);
            let name = format!("store-{name}");
            thread::Builder::new().name(name).spawn(move || body(&stop))
        };
        Ok(vec![
            run("write", Box::new(move |stop| writer.run(stop)))?,
            run("ask", Box::new(move |stop| asker.run(stop)))?,
            run("sweep", Box::new(move |stop| sweeper.run(stop)))?,
        ])
    }
}

/// Returns the sessions that the settings ask to store.
fn when(settings: &StoreSettings) -> StoreWhen {
    let protocols = settings.protocols.iter();
    StoreWhen {
        min_age: settings.min_age,
        refresh_interval: settings.refresh,
        refresh_bytes: settings.refresh_bytes,
        protocols: protocols.map(|protocol| protocol.0).collect(),
        ..StoreWhen::default()
    }
}

/// Returns a function that ends the session that another appliance owns: of two that took it over
/// from one record, the one that has written first.
fn disown(data_path: Arc<DataPath>) -> impl FnMut(FlowName, Claim) + Send + 'static {
    move |flow, mut claim| {
        claim.epoch = claim.epoch.saturating_add(1);
        let time = SweepTime {
            now: Instant::now(),
            at: SystemTime::now(),
        };
        let engine = &data_path.shared.engine;
        data_path.with_sink(|sink| engine.disown(&flow, &claim, time, sink));
    }
}

/// Returns the store of a data path whose threads run.
pub(super) fn store_of(data_path: &DataPath) -> Option<&StoreHandle> {
    data_path.shared.store.as_ref()
}
