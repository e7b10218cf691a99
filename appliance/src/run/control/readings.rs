//! Counters, rules and asymmetric paths as replies of the control socket.

use std::collections::HashMap;
use std::time::Instant;

use portcullis::AsymmetryLine;
use portcullis::Stats;
use portcullis::policy::Action;

use crate::run::appliance::Appliance;
use crate::run::protocol::{AsymmetryView, RuleView, StatsView};
use crate::run::reloads::ReloadState;
use crate::run::view::WallClock;

/// Returns a line of the report of asymmetric paths.
pub(super) fn asymmetry(
    line: &AsymmetryLine,
    appliance: &Appliance,
    now: Instant,
) -> AsymmetryView {
    let ago = |moment| now.saturating_duration_since(moment).as_secs_f64();
    AsymmetryView {
        zone: appliance.zones.name(line.zone),
        other_zone: line.other_zone.map(|zone| appliance.zones.name(zone)),
        from: line.from.to_string(),
        to: line.to.to_string(),
        evidence: line.evidence.name().to_owned(),
        cause: line.cause().name().to_owned(),
        flows: line.flows,
        packets: line.packets,
        first: ago(line.first),
        last: ago(line.last),
        text: line.to_string(),
    }
}

/// Returns notes on the last reload: the reason of a refusal, and the keys that wait for a restart.
pub(in crate::run) fn notes(state: &ReloadState) -> Vec<String> {
    let failed = state
        .failed
        .iter()
        .map(|error| format!("the last reload was refused: {error}"));
    let waiting = state
        .waiting
        .iter()
        .map(|key| format!("{key} waits for a restart"));
    failed.chain(waiting).collect()
}

/// Returns the counts that are not 0, with their names.
fn named<N: AsRef<str>>(counts: impl IntoIterator<Item = (N, u64)>) -> Vec<(String, u64)> {
    counts
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| (name.as_ref().to_owned(), count))
        .collect()
}

/// Returns the reasons for which health checks are refused.
fn unhealthy(appliance: &Appliance, now: Instant) -> Vec<String> {
    let reasons = appliance.health.verdict(now);
    reasons.iter().map(ToString::to_string).collect()
}

/// Returns counters and gauges.
pub(super) fn stats(appliance: &Appliance, now: Instant) -> StatsView {
    let engine = &appliance.data_path.shared.engine;
    let of: Stats = engine.stats();
    let front = appliance.data_path.shared.front.stats();
    let reloads = appliance.reloads.state();
    let tolerated = engine.tolerated();
    let tolerated = tolerated
        .iter()
        .map(|(reason, rule, count)| (format!("{reason} by {rule}"), *count));
    StatsView {
        uptime: now
            .saturating_duration_since(appliance.started)
            .as_secs_f64(),
        sessions: of.sessions as u64,
        max_sessions: of.max_sessions as u64,
        sessions_by_worth: named(
            of.sessions_by_worth
                .iter()
                .map(|(class, n)| (class.name(), *n as u64)),
        ),
        sessions_opened: of.sessions_opened,
        sessions_ended: named(
            of.sessions_ended
                .iter()
                .map(|(reason, n)| (reason.name(), *n)),
        ),
        sessions_adopted: of.sessions_adopted,
        sessions_resumed: of.sessions_resumed,
        sessions_bypassed: of.sessions_bypassed,
        forwarded: named(of.forwarded.iter().map(|(class, n)| (class.name(), *n))),
        forwarded_bytes: of.forwarded_bytes,
        dropped: named(of.dropped.iter().map(|(reason, n)| (reason.name(), *n))),
        rejected: of.rejected,
        tolerated: named(tolerated),
        rules: named(engine.policy().hits()),
        resets_sent: of.resets_sent,
        resets_unsent: named(
            of.resets_unsent
                .iter()
                .map(|(reason, n)| (reason.name(), *n)),
        ),
        helper_events: named(of.helper_events.iter().map(|(event, n)| (event.name(), *n))),
        challenge_events: named(
            of.challenge_events
                .iter()
                .map(|(event, n)| (event.name(), *n)),
        ),
        challenging_zones: of
            .challenging_zones
            .iter()
            .map(|zone| appliance.zones.name(*zone))
            .collect(),
        known_sources: of.known_sources as u64,
        tombstones: of.tombstones as u64,
        control_sessions: of.control_sessions as u64,
        expectations: of.expectations as u64,
        refused: named(
            front
                .refused
                .iter()
                .map(|(refusal, n)| (refusal.name(), *n)),
        ),
        received_datagrams: front.received,
        sent_datagrams: front.returned
            + front.rewritten
            + front.replied
            + front.told_too_big
            + front.resets,
        workers: appliance.data_path.shared.workers.len() as u64,
        unhealthy: unhealthy(appliance, now),
        reloads_applied: appliance.reloads.applied(),
        reloads_refused: appliance.reloads.refused(),
        failed_reload: reloads.failed,
        waiting_for_restart: reloads.waiting.into_iter().map(ToOwned::to_owned).collect(),
    }
}

/// Returns the rules of the running configuration, in order, and the default action.
pub(super) fn rules(appliance: &Appliance) -> Vec<RuleView> {
    let uses = appliance.data_path.shared.engine.rules_with_live();
    let uses: HashMap<_, _> = uses.iter().map(|rule| (rule.name.as_str(), rule)).collect();
    let clock = WallClock::now();
    let view = |name: &str, action: Action| {
        let of = uses.get(name);
        let traffic = of.map(|of| (of.live.sessions, of.live, of.ended));
        let (sessions, live, ended) = traffic.unwrap_or_default();
        RuleView {
            name: name.to_owned(),
            action: action.name().to_owned(),
            state: if of.is_some() { "active" } else { "empty" }.to_owned(),
            expires: None,
            comment: String::new(),
            hits: of.map_or(0, |of| of.hits),
            last_match: of
                .and_then(|of| of.last_match)
                .map(|last| clock.seconds(last)),
            sessions,
            packets: live.packets + ended.packets,
            bytes: live.bytes + ended.bytes,
        }
    };
    let config = appliance.data_path.shared.config.read();
    let policy = &config.policy;
    let mut views: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| {
            let mut view = view(&rule.name, rule.action);
            if !policy.is_in_force(rule) {
                let state = if rule.enabled { "expired" } else { "disabled" };
                state.clone_into(&mut view.state);
            }
            view.expires = rule
                .expires
                .map(|at| humantime::format_rfc3339_seconds(at).to_string());
            view.comment.clone_from(&rule.comment);
            view
        })
        .collect();
    views.push(view("default", policy.default));
    views
}
