//! The stream of one client: exact filter, rate and rows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use portcullis::policy::CompiledPolicy;

use super::super::appliance::Appliance;
use super::event::Observed;
use super::filter::{Facts, Filter};
use super::ring::Past;
use super::row::{EventRow, LeftOutCause, Renderer};
use super::shares::Shares;
use super::spec::{Names, StreamSpec};
use super::switch::{LeftOut, Subscribed, Subscription};

/// Events per second, unless a client asks for another number.
const RATE: u32 = 1000;
/// Explained decisions per second, unless a client asks for another number.
const EXPLAIN_RATE: u32 = 10;
/// Largest number of events per second.
const MAX_RATE: u32 = 20_000;
/// Period of the rate, and of the rows that report what was left out.
const SECOND: Duration = Duration::from_secs(1);
/// Interval at which the stream checks whether the appliance ends.
const LOOK: Duration = Duration::from_millis(100);

/// Line to a client.
pub(crate) enum Line {
    /// An event.
    Event(Box<EventRow>),
    /// Line without an event: writing it shows whether the client is still connected.
    Pulse,
}

/// Reason for which a stream ends.
#[derive(Debug)]
pub(crate) enum StreamEnd {
    /// The request is invalid, or there is no room for the client.
    Refused(String),
    /// All events that were asked for are written, or the appliance ends.
    Done(u64),
    /// The client has gone.
    Gone(io::Error),
}

/// Writes a client's stream until the client goes or the appliance ends; without `follow`, until
/// the past events are written.
pub(crate) fn run(
    spec: &StreamSpec,
    appliance: &Appliance,
    put: &mut dyn FnMut(Line) -> io::Result<()>,
) -> StreamEnd {
    let shared = &appliance.data_path.shared;
    let policy = shared.engine.policy();
    let names = Names {
        zones: &appliance.zones,
        policy: &policy,
    };
    let filter = match spec.filter(&names) {
        Ok(filter) => filter,
        Err(error) => return StreamEnd::Refused(error),
    };
    let usual = if spec.explain { EXPLAIN_RATE } else { RATE };
    let rate = spec.rate.unwrap_or(usual).clamp(1, MAX_RATE);
    let refilter = {
        let (spec, zones) = (spec.clone(), Arc::clone(&appliance.zones));
        let data_path = Arc::clone(&appliance.data_path);
        move || {
            let names = Names {
                zones: &zones,
                policy: &data_path.shared.engine.policy(),
            };
            spec.filter(&names).ok()
        }
    };
    let subscription = Subscription {
        filter: filter.clone(),
        refilter: Arc::new(refilter),
        rate,
        explain: spec.explain,
        follow: spec.follow,
    };
    let Some(subscribed) = shared.observers.subscribe(subscription) else {
        return StreamEnd::Refused("too many clients observe already".to_owned());
    };
    // A reload that has come between has not changed this filter.
    shared.observers.follow_reload();
    let policy = shared.engine.policy();
    let names = Names {
        zones: &appliance.zones,
        policy: &policy,
    };
    let filter = spec.filter(&names).unwrap_or(filter);
    let mut stream = Stream {
        spec,
        appliance,
        policy,
        filter: Arc::new(filter),
        epoch: 0,
        shares: Shares::new(rate),
        rate_left_out: 0,
        session_gone: 0,
        written: 0,
        put,
    };
    match stream.write(subscribed) {
        Ok(()) => StreamEnd::Done(stream.written),
        Err(error) => StreamEnd::Gone(error),
    }
}

struct Stream<'s> {
    spec: &'s StreamSpec,
    appliance: &'s Appliance,
    policy: Arc<CompiledPolicy>,
    filter: Arc<Filter>,
    /// Number of changes of the wishes that the filter is of.
    epoch: u64,
    shares: Shares,
    /// Events of this second that were beyond the rate.
    rate_left_out: u64,
    /// Events of this second whose session had gone before the filter was evaluated.
    session_gone: u64,
    written: u64,
    put: &'s mut dyn FnMut(Line) -> io::Result<()>,
}

impl Stream<'_> {
    fn write(&mut self, mut subscribed: Subscribed<'_>) -> io::Result<()> {
        let past = std::mem::take(&mut subscribed.past);
        self.past(&past)?;
        drop(past);
        if !self.spec.follow {
            return self.report(&subscribed);
        }
        let shared = &self.appliance.data_path.shared;
        let mut second_ends = Instant::now() + SECOND;
        while !shared.stop.load(Ordering::Relaxed) {
            match subscribed.events.recv_timeout(LOOK) {
                Ok(event) => {
                    self.follow_reload(&subscribed);
                    self.live(&event)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= second_ends {
                second_ends = now + SECOND;
                self.end_second(&subscribed)?;
            }
        }
        self.report(&subscribed)
    }

    /// Writes the newest of the past events that match, the oldest first, and how many events are
    /// missing since the oldest of them.
    fn past(&mut self, past: &[Past]) -> io::Result<()> {
        let Some(last) = self.spec.last else {
            return Ok(());
        };
        let matching = past.iter().rev().filter_map(|each| {
            let row = self.resolve(&each.event)?;
            Some((row, each.missing))
        });
        let rows: Vec<_> = matching.take(last).collect();
        // Fewer rows than asked for: the whole memory was searched.
        let missing = match rows.len() < last {
            true => past.first().map(|each| each.missing),
            false => rows.last().map(|(_, missing)| *missing),
        };
        // Each look at the past finds these events again: they are not of the counter.
        let gone = std::mem::take(&mut self.session_gone);
        for (row, _) in rows.into_iter().rev() {
            self.put_row(row)?;
        }
        self.put_left_out(&[
            (LeftOutCause::Past, missing.unwrap_or(0)),
            (LeftOutCause::SessionGone, gone),
        ])
    }

    fn live(&mut self, event: &Observed) -> io::Result<()> {
        if self.spec.explain && event.steps().is_none() {
            return Ok(());
        }
        let Some(row) = self.resolve(event) else {
            return Ok(());
        };
        if self.shares.take(event.class()) {
            self.put_row(row)
        } else {
            self.rate_left_out += 1;
            Ok(())
        }
    }

    /// Returns the row of an event that matches the filter. Counts an event whose session has gone
    /// before the filter could be evaluated.
    fn resolve(&mut self, event: &Observed) -> Option<Box<EventRow>> {
        let now = Instant::now();
        let facts = Facts::of(event);
        if !self.filter.matches(&facts) {
            return None;
        }
        if self.filter.needs_session(&facts) {
            self.session_gone += 1;
            return None;
        }
        let renderer = Renderer {
            viewer: self.appliance.viewer(&self.policy, now),
            snap: self.spec.snap,
            explains: self.spec.explain,
        };
        Some(Box::new(renderer.row(event, &facts)))
    }

    fn put_row(&mut self, row: Box<EventRow>) -> io::Result<()> {
        self.written += 1;
        let delivered = &self.appliance.data_path.shared.observers.counters.delivered;
        delivered.fetch_add(1, Ordering::Relaxed);
        (self.put)(Line::Event(row))
    }

    /// Begins a new second, and reports what was left out.
    fn end_second(&mut self, subscribed: &Subscribed<'_>) -> io::Result<()> {
        self.report(subscribed)?;
        self.shares.renew();
        (self.put)(Line::Pulse)
    }

    /// Reports what was left out since the last report.
    fn report(&mut self, subscribed: &Subscribed<'_>) -> io::Result<()> {
        let counters = &self.appliance.data_path.shared.observers.counters;
        let own = std::mem::take(&mut self.rate_left_out);
        counters.client_rate.fetch_add(own, Ordering::Relaxed);
        let gone = std::mem::take(&mut self.session_gone);
        counters.session_gone.fetch_add(gone, Ordering::Relaxed);
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let LeftOut {
            rate,
            queue,
            unexamined,
        } = &*subscribed.left_out;
        self.put_left_out(&[
            (LeftOutCause::Rate, own + take(rate)),
            (LeftOutCause::Queue, take(queue)),
            (LeftOutCause::SessionGone, gone),
            (LeftOutCause::Unexamined, take(unexamined)),
        ])
    }

    /// Writes a row for each cause by which events were left out.
    fn put_left_out(&mut self, counts: &[(LeftOutCause, u64)]) -> io::Result<()> {
        let now = Instant::now();
        let viewer = self.appliance.viewer(&self.policy, now);
        let time = viewer.clock.seconds(now);
        for (cause, count) in counts.iter().filter(|(_, count)| *count > 0) {
            let row = EventRow::left_out(*cause, *count, time);
            (self.put)(Line::Event(Box::new(row)))?;
        }
        Ok(())
    }

    /// Takes over the filter and the names of a reload, or of another change of the wishes.
    fn follow_reload(&mut self, subscribed: &Subscribed<'_>) {
        let epoch = subscribed.epoch();
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.policy = self.appliance.data_path.shared.engine.policy();
        if let Some(filter) = subscribed.filter() {
            self.filter = filter;
        }
    }
}
