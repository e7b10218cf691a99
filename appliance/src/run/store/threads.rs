//! The three threads of the store in a running appliance.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use portcullis::continuity::{Claim, FlowName, StoreWhen, SweepTime};

use super::answers::Answers;
use super::asker::{Asker, Told};
use super::hand_over::HandOver;
use super::handle::{Asked, StoreThreads};
use super::retry::Retries;
use super::supervisor::supervise;
use super::sweeper::Sweeper;
use super::writer::Writer;
use crate::run::data_path::DataPath;
use crate::run::settings::{StoreSettings, StoredRules};

/// Body of a thread: its second argument says whether it begins again after a failure.
type Body = Box<dyn FnMut(&AtomicBool, bool) + Send>;

impl StoreThreads {
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
        let mut writer = Writer::new(
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
        let mut asker = Asker::new(
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
        let run = |name: &'static str, mut body: Body| {
            let (stop, state) = (Arc::clone(stop), Arc::clone(&store.state));
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || {
                supervise(name, &state, &stop, |is_again| body(&stop, is_again));
            })
        };
        let write = move |stop: &AtomicBool, is_again| {
            if is_again {
                writer.recover();
            }
            writer.run(stop);
        };
        let ask = move |stop: &AtomicBool, is_again| {
            if is_again {
                asker.recover();
            }
            asker.run(stop);
        };
        Ok(vec![
            run("store-write", Box::new(write))?,
            run("store-ask", Box::new(ask))?,
            run("store-sweep", Box::new(move |stop, _| sweeper.run(stop)))?,
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
        resilient: settings.rules == StoredRules::Resilient,
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
