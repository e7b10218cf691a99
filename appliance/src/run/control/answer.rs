//! Answers to the requests of the control socket.

use std::io;
use std::time::Duration;

use portcullis::SessionId;
use portcullis::event::Expectation;

use super::exchange::{Exchange, done};
use super::explain::explain;
use super::listing::sessions;
use super::readings::{asymmetry, notes, rules, stats};
use crate::run::observe::spec::StreamSpec;
use crate::run::observe::stream::{self, Line, StreamEnd};
use crate::run::protocol::{FilterSpec, Reply, Request};
use crate::run::store::{LinkName, LinkState, StoreView};

/// Writes all lines of an answer but the last, which it returns.
///
/// # Errors
/// The client does not read.
pub(super) fn answer(request: Request, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    match request {
        Request::Sessions(request) => sessions(&request, exchange),
        Request::Delete { filter, all } => Ok(delete(&filter, all, exchange)),
        Request::Explain { id } => explained(id, exchange),
        Request::Expectations => expectations(exchange),
        Request::Import { expectations } => Ok(import(&expectations, exchange)),
        Request::Asymmetry { clear } => paths(clear, exchange),
        Request::Stats => {
            let view = stats(exchange.appliance, exchange.now);
            exchange.put(&Reply::Stats(Box::new(view)))?;
            Ok(done(1, None))
        }
        Request::Rules => {
            let rules = rules(exchange.appliance);
            let count = rules.len();
            for rule in rules {
                exchange.put(&Reply::Rule(Box::new(rule)))?;
            }
            Ok(done(count, None))
        }
        Request::Preview { name, text } => preview(&name, &text, exchange),
        Request::Adopt { seconds } => {
            let engine = &exchange.appliance.data_path.shared.engine;
            engine.adopt_for(Duration::from_secs(seconds), exchange.now);
            let text = format!("connections are adopted in their middle for {seconds} s");
            Ok(done(1, Some(text)))
        }
        Request::Reload => Ok(match exchange.appliance.reload() {
            Ok(text) => done(1, Some(text)),
            Err(error) => Reply::Error(error),
        }),
        Request::Health => health(exchange),
        Request::Store => store(exchange),
        Request::Observe(spec) => observe(&spec, exchange),
    }
}

/// Writes the stream of events.
fn observe(spec: &StreamSpec, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let appliance = exchange.appliance;
    let end = stream::run(spec, appliance, &mut |line| {
        exchange.put(&match line {
            Line::Event(row) => Reply::Event(row),
            Line::Pulse => Reply::Pulse,
        })
    });
    match end {
        StreamEnd::Refused(error) => Ok(Reply::Error(error)),
        StreamEnd::Done(count) => Ok(Reply::Done { count, text: None }),
        StreamEnd::Gone(error) => Err(error),
    }
}

/// Writes the state of the store.
fn store(exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let shared = &exchange.appliance.data_path.shared;
    let Some(store) = &shared.store else {
        return Ok(Reply::Error(
            "there is no store: `store.url` is not set".to_owned(),
        ));
    };
    let view = StoreView::of(store, &shared.engine.stats(), exchange.now);
    exchange.put(&Reply::Store(Box::new(view)))?;
    Ok(done(1, None))
}

/// Ends the sessions that a filter selects.
fn delete(filter: &FilterSpec, all: bool, exchange: &Exchange<'_>) -> Reply {
    let appliance = exchange.appliance;
    let policy = appliance.data_path.shared.engine.policy();
    match filter.read(&appliance.zones, &policy) {
        Err(error) => Reply::Error(error),
        Ok(filter) if filter.is_everything() && !all => {
            Reply::Error("this would end every session: add `all` to confirm".to_owned())
        }
        Ok(filter) => {
            let count = appliance.data_path.end_sessions(&filter, exchange.now);
            done(count, Some(format!("{count} sessions ended")))
        }
    }
}

/// Writes everything about a session.
fn explained(id: u64, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let engine = &exchange.appliance.data_path.shared.engine;
    let detail = SessionId::from_number(id).and_then(|id| engine.inspect(id, exchange.now));
    let Some(detail) = detail else {
        return Ok(Reply::Error(format!("there is no session {id}")));
    };
    let lines = explain(&detail, exchange.appliance, exchange.now);
    let count = lines.len();
    for line in lines {
        exchange.put(&Reply::Line(line))?;
    }
    Ok(done(count, None))
}

/// Writes the announced sessions that have not come yet.
fn expectations(exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let engine = &exchange.appliance.data_path.shared.engine;
    let expectations = engine.export_expectations(exchange.now);
    for expectation in &expectations {
        exchange.put(&Reply::Expectation(*expectation))?;
    }
    Ok(done(expectations.len(), None))
}

/// Takes over the announced sessions of another appliance.
fn import(expectations: &[Expectation], exchange: &Exchange<'_>) -> Reply {
    let engine = &exchange.appliance.data_path.shared.engine;
    let taken = engine.import_expectations(expectations, exchange.now);
    let text = format!("{taken} of {} expectations taken over", expectations.len());
    done(taken, Some(text))
}

/// Writes the report of asymmetric paths, and clears it if asked.
fn paths(clear: bool, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let appliance = exchange.appliance;
    let engine = &appliance.data_path.shared.engine;
    let report = engine.asymmetry();
    for line in &report.lines {
        let view = asymmetry(line, appliance, exchange.now);
        exchange.put(&Reply::Asymmetry(view))?;
    }
    if clear {
        engine.clear_asymmetry();
    }
    let lost = report.unlisted + report.unnoticed;
    let lost = (lost != 0).then(|| format!("{lost} packets found no room in the report"));
    Ok(done(report.lines.len(), lost))
}

/// Writes the sessions that a reload of a configuration would end.
fn preview(name: &str, text: &str, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let appliance = exchange.appliance;
    let preview = match appliance.preview(name, text, exchange.now) {
        Ok(preview) => preview,
        Err(error) => return Ok(Reply::Error(error)),
    };
    let engine = &appliance.data_path.shared.engine;
    let policy = engine.policy();
    let viewer = appliance.viewer(&policy, exchange.now);
    for (session, reason) in &preview.would_end {
        exchange.put(&Reply::WouldEnd {
            reason: reason.name().to_owned(),
            session: Box::new(viewer.view(session)),
        })?;
    }
    let text = preview.text(engine.sessions());
    Ok(done(preview.would_end.len(), Some(text)))
}

/// Writes the reasons why the appliance is unhealthy, and notes on the last reload.
fn health(exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let appliance = exchange.appliance;
    let reasons = appliance.health.verdict(exchange.now);
    for reason in &reasons {
        exchange.put(&Reply::Line(reason.to_string()))?;
    }
    for line in notes(&appliance.reloads.state()) {
        exchange.put(&Reply::Line(line))?;
    }
    let outages = outages(exchange);
    let text = match (reasons.is_empty(), outages.is_empty()) {
        (true, true) => "healthy",
        (true, false) => "healthy, degraded",
        (false, _) => "unhealthy",
    };
    for line in outages {
        exchange.put(&Reply::Line(line))?;
    }
    Ok(done(reasons.len(), Some(text.to_owned())))
}

/// Returns a line for each connection to the store that is down, and for the trouble of the last
/// seconds. The appliance is not unhealthy because of it: packets flow as without a store.
fn outages(exchange: &Exchange<'_>) -> Vec<String> {
    let Some(store) = &exchange.appliance.data_path.shared.store else {
        return Vec::new();
    };
    let down = LinkName::ALL
        .iter()
        .filter_map(|name| match store.state.state(*name) {
            LinkState::Up(_) => None,
            LinkState::Down(_, error) => {
                let why = error.map_or_else(String::new, |error| format!(": {error}"));
                Some(format!("degraded: store: {}{why}", name.name()))
            }
        });
    let troubles = store.state.troubles.current(exchange.now).into_iter();
    down.chain(troubles.map(|text| format!("degraded: store: {text}")))
        .collect()
}
