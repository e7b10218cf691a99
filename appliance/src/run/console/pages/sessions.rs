//! Sessions with a search, and one session with its explanation.

use maud::{Markup, html};

use super::parts::{Content, Head, Table, age, count, rate, status};
use crate::figures::{amount, span};
use crate::run::console::facts::{Facts, List};
use crate::run::console::route::Route;
use crate::run::protocol::SortKey;
use crate::run::view::ListedSession;

/// Words of a filter with examples of their values.
const WORDS: [&str; 12] = [
    "address 10.0.0.1",
    "src 10.0.0.0/8",
    "dst 192.0.2.1",
    "port 8000-8999",
    "protocol tcp",
    "state ESTABLISHED",
    "zone blue",
    "rule web",
    "min-age 5m",
    "min-idle 30s",
    "min-bytes 1000000",
    "id 4294967298",
];

/// Returns the page of sessions.
pub(super) fn page(facts: &mut Facts<'_>, filter: &str, sort: SortKey) -> Content {
    let state = facts.status();
    let list = facts.sessions(filter, sort);
    let route = Route::Sessions {
        filter: filter.to_owned(),
        sort,
    };
    Content {
        title: "Sessions".to_owned(),
        fixed: html! {
            details.help {
                summary { "Words of the filter" }
                p {
                    "A session matches all of them; the search field is reached by "
                    kbd { "/" } "."
                }
                ul { @for word in WORDS { li { code { (word) } } } }
            }
        },
        part: html! {
            (status(&state))
            @match list {
                Ok(list) => (table(&list, filter, &route, sort)),
                Err(error) => {
                    section.card #rows {
                        p.error role="alert" { "The filter is not valid: " (error) }
                    }
                },
            }
        },
    }
}

fn table(list: &List<ListedSession>, filter: &str, route: &Route, sort: SortKey) -> Markup {
    let heads = [
        Head::text("initiator"),
        Head::text("responder"),
        Head::text("protocol").minor(),
        Head::text("state"),
        Head::text("rule"),
        Head::text("zone"),
        Head::sorted("bytes/s", route, SortKey::Rate, sort),
        Head::sorted("packets/s", route, SortKey::PacketRate, sort).minor(),
        Head::sorted("bytes", route, SortKey::Bytes, sort),
        Head::sorted("packets", route, SortKey::Packets, sort),
        Head::sorted("age", route, SortKey::Age, sort),
        Head::number("left"),
        Head::number("number").minor(),
    ];
    let rows = html! {
        @for listed in &list.rows {
            @let view = &listed.session;
            tr {
                th.flow scope="row" {
                    a href=(Route::Session(listed.id).address()) {
                        (view.flow.initiator().in_list())
                    }
                }
                td.flow { (view.flow.responder().in_list()) }
                td.minor { (view.flow.protocol.to_string()) }
                td { (view.state) @for mark in marks(listed) { " " span.mark { (mark) } } }
                td { (view.rule) }
                td { (view.flow.zone) }
                td.n { (rate(listed.rate.map(|rate| rate.bytes))) }
                td.n.minor { (rate(listed.rate.map(|rate| rate.packets))) }
                td.n { (amount(view.bytes() as f64)) }
                td.n { (amount(view.packets() as f64)) }
                td.n { (age(view.start)) }
                td.n { (span(listed.left)) }
                td.n.minor { (listed.id) }
            }
        }
    };
    let shown = list.rows.len() as u64;
    let selected = match (filter.is_empty(), list.count) {
        (true, 1) => " session",
        (true, _) => " sessions",
        (false, 1) => " session matches the filter",
        (false, _) => " sessions match the filter",
    };
    let mut note = format!("{}{selected}", count(list.count));
    if list.count > shown {
        let by = sort.name();
        note.push_str(&format!(
            "; the first {} by {by}, and {} more",
            count(shown),
            count(list.count - shown)
        ));
    }
    if let Some(text) = &list.note {
        note.push_str(&format!("; {text}"));
    }
    let caption = match filter {
        "" => "Sessions".to_owned(),
        filter => format!("Sessions: {filter}"),
    };
    let table = Table {
        id: "rows",
        caption: &caption,
        heads: &heads,
        note: Some(&note),
    };
    table.with(&rows, list.rows.is_empty())
}

fn marks(listed: &ListedSession) -> impl Iterator<Item = &'static str> {
    let view = &listed.session;
    [
        (!listed.assured, "unassured"),
        (view.adopted, "adopted"),
        (view.resumed, "resumed"),
        (view.bypassed, "bypassed"),
        (view.parent.is_some(), "announced"),
    ]
    .into_iter()
    .filter_map(|(is, mark)| is.then_some(mark))
}

/// Returns the page of one session.
pub(super) fn explained(facts: &mut Facts<'_>, id: u64) -> Content {
    let state = facts.status();
    let lines = facts.session(id);
    Content {
        title: format!("Session {id}"),
        fixed: html! {},
        part: html! {
            (status(&state))
            section.card #session {
                @match lines {
                    Ok(lines) => (explanation(&lines)),
                    Err(error) => p.error role="alert" { (error) ": it has ended, or never was" },
                }
            }
        },
    }
}

/// Returns the lines of an explanation, each with its subject apart.
fn explanation(lines: &[String]) -> Markup {
    html! {
        dl.explain {
            @for line in lines {
                @let (subject, rest) = subject(line);
                div { dt { (subject) } dd { (rest) } }
            }
        }
    }
}

/// Splits a line after its subject: at a colon near its beginning, or else after the first word.
fn subject(line: &str) -> (&str, &str) {
    match line.split_once(": ") {
        Some((subject, rest)) if subject.len() <= 32 && !subject.contains([',', ';']) => {
            (subject, rest)
        }
        _ => line.split_once(' ').unwrap_or((line, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_after_its_subject_and_nothing_is_lost() {
        let rows = [
            (
                "session 7: zone blue, tcp a -> b",
                "session 7",
                "zone blue, tcp a -> b",
            ),
            (
                "state OPEN, assured; history ShA",
                "state",
                "OPEN, assured; history ShA",
            ),
            (
                "original: 3 packets; reply: 2",
                "original",
                "3 packets; reply: 2",
            ),
            ("opened 3 s ago; uid: 5", "opened", "3 s ago; uid: 5"),
            ("alone", "alone", ""),
        ];
        for (line, wanted, rest) in rows {
            assert_eq!(subject(line), (wanted, rest));
        }
        let page = explanation(&["rule <script>: <b>".to_owned()]).into_string();
        assert!(
            page.contains("<dt>rule &lt;script&gt;</dt><dd>&lt;b&gt;</dd>"),
            "{page}"
        );
    }
}
