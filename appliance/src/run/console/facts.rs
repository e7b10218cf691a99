//! Facts of the appliance for the pages, as the control socket shows them.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use portcullis::config::parse_endpoint;

use super::samples::{Rates, Samples};
use crate::run::appliance::Appliance;
use crate::run::control::{Answer, ask, ask_for_groups};
use crate::run::counters::Count;
use crate::run::filter_args::FilterArgs;
use crate::run::protocol::{
    AsymmetryView, FilterSpec, GroupKey, GroupView, ListingRequest, Reply, Request, RuleView,
    SortKey, StatsView,
};
use crate::run::rates::RateMemory;
use crate::run::store::StoreView;
use crate::run::view::ListedSession;

/// Rows of a list of sessions.
pub(super) const SESSION_ROWS: usize = 100;
/// Rows of a list of groups.
pub(super) const GROUP_ROWS: usize = 25;
/// Rows of the list of asymmetric paths.
const PATH_ROWS: usize = 200;

/// Appliance that the pages ask.
pub(super) struct Facts<'a> {
    pub(super) appliance: &'a Appliance,
    pub(super) samples: &'a Samples,
    /// Memory of rates, which is held while pages are read.
    pub(super) rates: &'a mut Option<Arc<RateMemory>>,
    pub(super) now: Instant,
}

/// State of the appliance at the top of each page.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    /// `healthy`, `healthy, degraded`, or `unhealthy`.
    pub(super) verdict: String,
    /// Reasons of the verdict, and notes.
    pub(super) lines: Vec<String>,
    pub(super) sessions: u64,
    pub(super) max_sessions: u64,
    /// Seconds.
    pub(super) uptime: f64,
    /// Time in UTC.
    pub(super) time: String,
}

/// Rows of a list, of which there may be more.
#[derive(Debug, Clone)]
pub(super) struct List<T> {
    pub(super) rows: Vec<T>,
    /// Number of rows without a bound.
    pub(super) count: u64,
    pub(super) note: Option<String>,
}

/// Worker and its counters.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerFacts {
    /// Datagrams received in a second.
    pub(super) rate: f64,
    pub(super) received: u64,
    pub(super) returned: u64,
    pub(super) made: u64,
    /// Datagrams that found the receive queue full.
    pub(super) overflow: u64,
    /// Datagrams that the system did not accept.
    pub(super) unsent: u64,
    /// Milliseconds since its last turn.
    pub(super) turned: u128,
}

/// Endpoint of a load balancer, and its traffic.
#[derive(Debug, Clone, Default)]
pub(super) struct EndpointFacts {
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
}

impl Facts<'_> {
    fn ask(&mut self, request: Request) -> Answer {
        ask(request, self.appliance, self.rates)
    }

    /// Returns the state of the appliance.
    pub(super) fn status(&mut self) -> Status {
        let answer = self.ask(Request::Health);
        let lines = answer.rows.into_iter().filter_map(|row| match row {
            Reply::Line(text) => Some(text),
            _ => None,
        });
        let engine = &self.appliance.data_path.shared.engine;
        let uptime = self.now.saturating_duration_since(self.appliance.started);
        Status {
            verdict: match answer.last {
                Reply::Done {
                    text: Some(text), ..
                }
                | Reply::Error(text) => text,
                _ => String::new(),
            },
            lines: lines.collect(),
            sessions: engine.sessions() as u64,
            max_sessions: engine.max_sessions() as u64,
            uptime: uptime.as_secs_f64(),
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }

    /// Returns counters and gauges.
    pub(super) fn stats(&mut self) -> StatsView {
        let rows = self.ask(Request::Stats).rows;
        let stats = rows.into_iter().find_map(|row| match row {
            Reply::Stats(stats) => Some(*stats),
            _ => None,
        });
        stats.unwrap_or_default()
    }

    /// Returns the rates of the last minutes.
    pub(super) fn history(&self) -> Rates {
        self.samples.rates(self.now)
    }

    /// Returns the first groups of sessions by each key in an order, from one walk of the table.
    pub(super) fn groups<const N: usize>(
        &mut self,
        keys: [GroupKey; N],
        sort: SortKey,
    ) -> [List<GroupView>; N] {
        let answers = ask_for_groups(keys, sort, GROUP_ROWS, self.appliance, self.rates);
        answers.map(|answer| {
            let list = list(answer, |row| match row {
                Reply::Group(group) => Some(*group),
                _ => None,
            });
            // Groups of all sessions are never refused.
            list.unwrap_or_else(|error| List {
                rows: Vec::new(),
                count: 0,
                note: Some(error),
            })
        })
    }

    /// Returns the first sessions that a filter line selects.
    ///
    /// # Errors
    /// Returns a sentence about the fault of the filter.
    pub(super) fn sessions(
        &mut self,
        filter: &str,
        sort: SortKey,
    ) -> Result<List<ListedSession>, String> {
        let request = ListingRequest {
            filter: FilterSpec::from(&FilterArgs::from_line(filter)?),
            limit: Some(SESSION_ROWS),
            sort: Some(sort),
            ..ListingRequest::default()
        };
        let answer = self.ask(Request::Sessions(request));
        list(answer, |row| match row {
            Reply::Session(session) => Some(*session),
            _ => None,
        })
    }

    /// Returns everything about a session, line by line.
    ///
    /// # Errors
    /// Returns a sentence if the session is not there.
    pub(super) fn session(&mut self, id: u64) -> Result<Vec<String>, String> {
        let answer = self.ask(Request::Explain { id });
        let list = list(answer, |row| match row {
            Reply::Line(line) => Some(line),
            _ => None,
        });
        list.map(|list| list.rows)
    }

    /// Returns the rules and the default action.
    pub(super) fn rules(&mut self) -> Vec<RuleView> {
        let rows = self.ask(Request::Rules).rows.into_iter();
        let rules = rows.filter_map(|row| match row {
            Reply::Rule(rule) => Some(*rule),
            _ => None,
        });
        rules.collect()
    }

    /// Returns the report of asymmetric paths.
    pub(super) fn asymmetry(&mut self) -> List<AsymmetryView> {
        let answer = self.ask(Request::Asymmetry { clear: false });
        let list = list(answer, |row| match row {
            Reply::Asymmetry(line) => Some(line),
            _ => None,
        });
        let mut list = list.unwrap_or_else(|error| List {
            rows: Vec::new(),
            count: 0,
            note: Some(error),
        });
        list.rows.truncate(PATH_ROWS);
        list
    }

    /// Returns the state of the store, if there is one.
    pub(super) fn store(&mut self) -> Option<StoreView> {
        let rows = self.ask(Request::Store).rows.into_iter();
        let mut stores = rows.filter_map(|row| match row {
            Reply::Store(store) => Some(*store),
            _ => None,
        });
        stores.next()
    }

    /// Returns the workers.
    pub(super) fn workers(&self) -> Vec<WorkerFacts> {
        let shared = &self.appliance.data_path.shared;
        let rates = self.history().received;
        let since_start = self.now.saturating_duration_since(shared.started);
        let workers = shared.workers.iter().enumerate();
        workers
            .map(|(number, worker)| WorkerFacts {
                rate: rates.get(number).copied().unwrap_or_default(),
                received: worker.received.value(),
                returned: worker.returned.value(),
                made: worker.made.value(),
                overflow: worker.receive_overflow.value(),
                unsent: worker.send_faults.iter().map(Count::value).sum(),
                turned: since_start.saturating_sub(worker.last_turn()).as_millis(),
            })
            .collect()
    }

    /// Returns the endpoints of load balancers that have sent.
    pub(super) fn endpoints(&self) -> Vec<EndpointFacts> {
        let shared = &self.appliance.data_path.shared;
        let endpoints = shared.front.stats().endpoints;
        let config = shared.config.read();
        let unknown = config.geneve.unknown_zone().unwrap_or_default();
        let endpoints = endpoints.into_iter().filter(|each| each.received > 0);
        endpoints
            .map(|each| {
                let named = config.geneve.endpoints.iter();
                let zone = each.id.map(|id| {
                    let mut of_id = named.filter(|(text, _)| parse_endpoint(text) == Some(id));
                    of_id.next().map_or(unknown, |(_, zone)| zone.as_str())
                });
                let name = each
                    .id
                    .map_or_else(|| "other".to_owned(), |id| id.to_string());
                EndpointFacts {
                    name,
                    zone: zone.unwrap_or_default().to_owned(),
                    received: each.received,
                    received_bytes: each.received_bytes,
                    sent: each.sent,
                    sent_bytes: each.sent_bytes,
                }
            })
            .collect()
    }
}

/// Returns the rows of an answer, their number without a bound, and a note.
fn list<T>(answer: Answer, row: impl Fn(Reply) -> Option<T>) -> Result<List<T>, String> {
    match answer.last {
        Reply::Done { count, text } => Ok(List {
            rows: answer.rows.into_iter().filter_map(row).collect(),
            count,
            note: text,
        }),
        Reply::Error(error) => Err(error),
        _ => Err("the answer is incomplete".to_owned()),
    }
}
