//! Answers as text: a line for each, in columns of fixed width, so that a million sessions need no
//! memory.

use std::time::{Duration, SystemTime};

pub(super) use crate::figures::{amount, span};
use crate::run::protocol::{Reply, RuleView, StatsView};
use crate::run::store::StoreView;
use crate::run::view::ListedSession;

/// The head of a list of sessions.
pub(super) const HEAD: &str = "        number  proto  state         initiator                      \
                               responder                      \
                               zone           packets     bytes    age   left  rule";

/// Returns the text of a reply, the n-th of its answer; empty if it needs no line.
pub(super) fn line(reply: &Reply, n: usize, is_list: bool) -> String {
    let first = |head: &str, line: String| {
        if n == 0 {
            format!("{head}\n{line}")
        } else {
            line
        }
    };
    match reply {
        Reply::Session(view) => first(HEAD, session(view, now())),
        Reply::Group(view) => view.name.clone(),
        Reply::WouldEnd {
            reason,
            session: view,
        } => first(
            &format!("{HEAD}  ends by"),
            format!("{}  {reason}", session(view, now())),
        ),
        Reply::Line(text) | Reply::Error(text) => text.clone(),
        // Only an observer asks for these.
        Reply::Event(_) | Reply::Pulse => String::new(),
        Reply::Expectation(expectation) => {
            let left = Duration::from_secs(expectation.lifetime.as_secs());
            format!(
                "{expectation}, {} left, announced by {} -> {}",
                humantime::format_duration(left),
                expectation.parent.initiator,
                expectation.parent.responder
            )
        }
        Reply::Asymmetry(line) => {
            let zone = line.other_zone.as_ref().map_or_else(
                || line.zone.clone(),
                |other| format!("{}, {other}", line.zone),
            );
            format!("zone {zone}: {}; last {} ago", line.text, span(line.last))
        }
        Reply::Stats(view) => stats(view),
        Reply::Store(view) => store(view),
        Reply::Rule(view) => first(RULES_HEAD, rule(view, now())),
        Reply::Done {
            text: Some(text), ..
        } => text.clone(),
        Reply::Done { count, .. } if is_list => format!("{count} sessions"),
        Reply::Done { count: 0, .. } => "nothing".to_owned(),
        Reply::Done { .. } => String::new(),
    }
}

/// The head of a list of rules.
const RULES_HEAD: &str = "rule                      action  state     decided  sessions    \
                          packets         bytes  last match  comment";

/// Returns a rule in columns.
fn rule(view: &RuleView, now: f64) -> String {
    let last = view.last_match.map_or_else(
        || "never".to_owned(),
        |last| format!("{} ago", span(now - last)),
    );
    let state = match (&view.expires, view.state.as_str()) {
        (Some(at), "active") => format!("until {at}"),
        (_, state) => state.to_owned(),
    };
    let line = format!(
        "{:<25} {:<7} {state:<8} {:>8} {:>9} {:>10} {:>13}  {last:<10}  {}",
        view.name, view.action, view.hits, view.sessions, view.packets, view.bytes, view.comment
    );
    line.trim_end().to_owned()
}

/// Returns the current time in seconds since the Unix epoch.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64())
}

/// Returns a session in columns.
pub(super) fn session(listed: &ListedSession, now: f64) -> String {
    let view = &listed.session;
    let marks: String = [
        (!listed.assured, " unassured"),
        (view.adopted, " adopted"),
        (view.resumed, " resumed"),
        (view.bypassed, " bypassed"),
    ]
    .iter()
    .filter(|(is, _)| *is)
    .map(|(_, mark)| *mark)
    .collect();
    let parent = view
        .parent
        .map_or(String::new(), |parent| format!(" child of {parent}"));
    format!(
        "{:>14}  {:<5}  {:<12}  {:<29}  {:<29}  {:<10}  {:>10}  {:>8}  {:>5}  {:>5}  \
         {}{marks}{parent}",
        listed.id,
        view.flow.protocol.to_string(),
        view.state,
        view.flow.initiator().in_list(),
        view.flow.responder().in_list(),
        view.flow.zone,
        view.packets(),
        amount(view.bytes() as f64),
        span(now - view.start),
        span(listed.left),
        view.rule,
    )
}

fn store(view: &StoreView) -> String {
    let mut lines: Vec<String> = view
        .connections
        .iter()
        .map(|link| {
            let state = if link.is_up { "up" } else { "down" };
            let why = link.error.iter().map(|error| format!(": {error}"));
            let why: String = why.collect();
            let label = format!("connection {}", link.name);
            format!("{label:<22}{state} for {}{why}", span(link.since))
        })
        .collect();
    lines.extend(view.troubles.iter().map(|text| format!("trouble {text}")));
    lines.extend([
        format!("owner                 {}", view.owner),
        format!("records waiting       {}", view.waiting),
        format!("bytes written         {}", view.written_bytes),
        format!(
            "answered after        {} us, longest {} us",
            view.answer_us, view.longest_answer_us
        ),
        format!("packets held          {}", view.packets_held),
        format!("questions timed out   {}", view.timed_out),
    ]);
    for (name, counts) in [
        ("records, questions and connections", &view.events),
        ("questions", &view.questions),
        ("answers", &view.answers),
        ("packets without a question", &view.unasked),
    ] {
        push_counts(&mut lines, name, counts);
    }
    lines.join("\n")
}

/// Adds a group of counts, if it has any.
fn push_counts(lines: &mut Vec<String>, name: &str, counts: &[(String, u64)]) {
    if !counts.is_empty() {
        lines.push(format!("{name}:"));
        let counts = counts.iter();
        lines.extend(counts.map(|(name, count)| format!("  {name:<34} {count}")));
    }
}

fn stats(view: &StatsView) -> String {
    let mut lines = vec![
        format!("up for                {}", span(view.uptime)),
        format!(
            "health                {}",
            if view.unhealthy.is_empty() {
                "healthy".to_owned()
            } else {
                view.unhealthy.join("; ")
            }
        ),
        format!(
            "reloads               {} applied, {} refused",
            view.reloads_applied, view.reloads_refused
        ),
        format!(
            "sessions              {} of {}",
            view.sessions, view.max_sessions
        ),
        format!("  opened              {}", view.sessions_opened),
        format!(
            "  adopted             {}, of these resumed {}; bypassed {}",
            view.sessions_adopted, view.sessions_resumed, view.sessions_bypassed
        ),
        format!("datagrams received    {}", view.received_datagrams),
        format!("datagrams sent        {}", view.sent_datagrams),
        format!("forwarded bytes       {}", view.forwarded_bytes),
        format!("rejected packets      {}", view.rejected),
        format!("RSTs sent             {}", view.resets_sent),
        format!("tombstones            {}", view.tombstones),
        format!("known sources         {}", view.known_sources),
        format!(
            "challenged zones      {}",
            if view.challenging_zones.is_empty() {
                "none".to_owned()
            } else {
                view.challenging_zones.join(", ")
            }
        ),
        format!("control sessions      {}", view.control_sessions),
        format!("expectations          {}", view.expectations),
        format!("workers               {}", view.workers),
    ];
    let failed = view.failed_reload.iter();
    lines.extend(failed.map(|error| format!("last reload refused   {error}")));
    if !view.waiting_for_restart.is_empty() {
        let keys = view.waiting_for_restart.join(", ");
        lines.push(format!("wait for a restart    {keys}"));
    }
    let groups: [(&str, &Vec<(String, u64)>); 10] = [
        ("sessions by worth", &view.sessions_by_worth),
        ("sessions ended", &view.sessions_ended),
        ("packets forwarded", &view.forwarded),
        ("packets dropped", &view.dropped),
        ("datagrams refused", &view.refused),
        ("packets tolerated", &view.tolerated),
        ("new sessions by rule", &view.rules),
        ("RSTs not sent", &view.resets_unsent),
        ("helper events", &view.helper_events),
        ("SYN challenges", &view.challenge_events),
    ];
    for (name, counts) in groups {
        push_counts(&mut lines, name, counts);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_line() {
        let view = RuleView {
            name: "web".to_owned(),
            action: "allow".to_owned(),
            state: "active".to_owned(),
            expires: None,
            comment: "ticket 7".to_owned(),
            hits: 12,
            last_match: Some(100.0),
            sessions: 3,
            packets: 400,
            bytes: 50_000,
        };
        let words = |view: &RuleView| {
            let line = rule(view, 190.0);
            line.split_whitespace()
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let ago = span(90.0);
        assert_eq!(
            words(&view),
            format!("web allow active 12 3 400 50000 {ago} ago ticket 7")
        );
        let expired = RuleView {
            state: "expired".to_owned(),
            expires: Some("2027-01-31T00:00:00Z".to_owned()),
            last_match: None,
            comment: String::new(),
            ..view.clone()
        };
        assert_eq!(words(&expired), "web allow expired 12 3 400 50000 never");
        let expires = RuleView {
            expires: expired.expires,
            ..view
        };
        assert!(words(&expires).contains(" until 2027-01-31T00:00:00Z "));
    }

    #[test]
    fn what_a_reload_has_left_is_shown() {
        let mut view = StatsView::default();
        let text = stats(&view);
        assert!(
            !text.contains("last reload") && !text.contains("restart"),
            "{text}"
        );
        view.failed_reload = Some("a.toml:1: no".to_owned());
        view.waiting_for_restart = vec!["log.output".to_owned(), "run.workers".to_owned()];
        view.reloads_refused = 1;
        let text = stats(&view);
        for line in [
            "reloads               0 applied, 1 refused",
            "last reload refused   a.toml:1: no",
            "wait for a restart    log.output, run.workers",
        ] {
            assert!(
                text.lines().any(|each| each == line),
                "no `{line}` in {text}"
            );
        }
    }
}
