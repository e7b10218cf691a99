//! Rules with their decisions.

use maud::{Markup, html};

use super::parts::{Content, Head, Table, age, bar, count, status};
use crate::figures::amount;
use crate::run::console::facts::Facts;
use crate::run::console::route::Route;
use crate::run::protocol::RuleView;

/// Most rows.
const MAX_ROWS: usize = 1_000;

/// Returns the page.
pub(super) fn page(facts: &mut Facts<'_>) -> Content {
    let state = facts.status();
    let rules = facts.rules();
    Content {
        title: "Rules".to_owned(),
        fixed: html! {},
        part: html! { (status(&state)) (table(&rules)) },
    }
}

fn table(rules: &[RuleView]) -> Markup {
    let heads = [
        Head::number("#"),
        Head::text("rule"),
        Head::text("action"),
        Head::text("state"),
        Head::number("decided"),
        Head::text("share"),
        Head::number("sessions"),
        Head::number("packets"),
        Head::number("bytes"),
        Head::number("last match"),
        Head::text("comment"),
    ];
    // The default action is the last row, and is shown even if rules are left out.
    let (default, named) = match rules.split_last() {
        Some((default, named)) => (Some(default), named),
        None => (None, rules),
    };
    let shown = named.iter().take(MAX_ROWS).chain(default);
    let most = rules.iter().map(|rule| rule.hits).max().unwrap_or(0);
    let rows = html! {
        @for (number, rule) in shown.enumerate() {
            tr.off[rule.state != "active"] {
                td.n { @if number < named.len() { (number + 1) } }
                th scope="row" {
                    a href=(Route::sessions_of("rule", &rule.name).address()) { (rule.name) }
                 }
                td { span.action.(tone(&rule.action)) { (rule.action) } }
                td { (state(rule)) }
                td.n { (count(rule.hits)) }
                td.wide { (bar(rule.hits as f64 / most as f64)) }
                td.n { (count(rule.sessions)) }
                td.n { (amount(rule.packets as f64)) }
                td.n { (amount(rule.bytes as f64)) }
                td.n { (rule.last_match.map_or_else(|| "never".to_owned(), age)) }
                td.text { (rule.comment) }
            }
        }
    };
    let more = named.len().saturating_sub(MAX_ROWS);
    let note =
        (more > 0).then(|| format!("{} more: `portcullis sessions rules`", count(more as u64)));
    let table = Table {
        id: "rules",
        caption: "Rules in their order, and the default action",
        heads: &heads,
        note: note.as_deref(),
    };
    table.with(&rows, rules.is_empty())
}

fn tone(action: &str) -> &'static str {
    if action == "allow" { "good" } else { "bad" }
}

fn state(rule: &RuleView) -> String {
    match (&rule.expires, rule.state.as_str()) {
        (Some(at), "active") => format!("until {at}"),
        (_, state) => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> RuleView {
        RuleView {
            name: name.to_owned(),
            action: "allow".to_owned(),
            state: "active".to_owned(),
            expires: None,
            comment: "<img src=x onerror=alert(1)>".to_owned(),
            hits: 12_345,
            last_match: None,
            sessions: 1,
            packets: 2,
            bytes: 3,
        }
    }

    #[test]
    fn names_and_comments_are_text() {
        let page = table(&[rule("<script>"), rule("default")]).into_string();
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
        assert!(
            page.contains("&lt;script&gt;") && page.contains("12,345"),
            "{page}"
        );
    }

    #[test]
    fn the_rows_are_bounded_and_have_the_default_action() {
        let mut rules = vec![rule("r"); 1_500];
        rules.push(rule("default"));
        let page = table(&rules).into_string();
        assert_eq!(page.matches("<tr").count(), 1 + MAX_ROWS + 1);
        assert!(
            page.contains("rule+default") && page.contains("500 more"),
            "{page}"
        );
    }
}
