//! Health, workers, reloads and the store.

use maud::{Markup, html};

use super::parts::{Content, Head, Table, count, counts, status};
use crate::figures::{amount, span};
use crate::run::console::facts::{Facts, Status, WorkerFacts};
use crate::run::protocol::StatsView;
use crate::run::store::StoreView;

/// Returns the page.
pub(super) fn page(facts: &mut Facts<'_>) -> Content {
    let (state, stats, store) = (facts.status(), facts.stats(), facts.store());
    let workers = facts.workers();
    Content {
        title: "Health".to_owned(),
        fixed: html! {},
        part: html! {
            (status(&state))
            div.columns {
                (verdict(&state, &stats))
                @if let Some(store) = &store { (connections(store)) }
                @else { section.card #store {
                    h2 { "Store" }
                    p { "There is no store: sessions are known to this appliance alone." }
                } }
            }
            (worker_table(&workers))
            @if let Some(store) = &store {
                div.columns {
                    (counts("store-events", "Records and connections", &store.events))
                    (counts("store-questions", "Questions", &store.questions))
                    (counts("store-answers", "Answers", &store.answers))
                    (counts("store-unasked", "Packets without a question", &store.unasked))
                }
            }
        },
    }
}

fn verdict(state: &Status, stats: &StatsView) -> Markup {
    html! {
        section.card #verdict {
            h2 { "Verdict" }
            dl.explain {
                div { dt { "health" } dd { (state.verdict) } }
                @for line in &state.lines { div { dt { "cause" } dd { (line) } } }
                div {
                    dt { "reloads" }
                    dd {
                        (count(stats.reloads_applied)) " applied, "
                        (count(stats.reloads_refused)) " refused"
                    }
                }
                div {
                    dt { "RSTs" }
                    dd {
                        (count(stats.resets_sent)) " made"
                        @for (reason, unsent) in &stats.resets_unsent {
                            ", " (count(*unsent)) " not sent: " (reason)
                        }
                    }
                }
                div {
                    dt { "challenges" }
                    dd {
                        @if stats.challenging_zones.is_empty() { "no zone is challenged" }
                        @else { "unknown sources of " (stats.challenging_zones.join(", ")) }
                        "; " (count(stats.known_sources)) " known sources"
                    }
                }
                div {
                    dt { "helpers" }
                    dd {
                        (count(stats.control_sessions)) " control sessions, "
                        (count(stats.expectations)) " announced sessions, "
                        (count(stats.tombstones)) " tombstones"
                    }
                }
            }
        }
    }
}

fn worker_table(workers: &[WorkerFacts]) -> Markup {
    let heads = [
        Head::number("worker"),
        Head::number("received/s"),
        Head::number("received"),
        Head::number("returned"),
        Head::number("own"),
        Head::number("queue overflow"),
        Head::number("not sent"),
        Head::number("last turn"),
    ];
    let rows = html! {
        @for (number, worker) in workers.iter().enumerate() {
            tr {
                th.n scope="row" { (number) }
                td.n { (amount(worker.rate)) }
                td.n { (count(worker.received)) }
                td.n { (count(worker.returned)) }
                td.n { (count(worker.made)) }
                td.n { (count(worker.overflow)) }
                td.n { (count(worker.unsent)) }
                td.n { (worker.turned) " ms ago" }
            }
        }
    };
    let table = Table {
        id: "workers",
        caption: "Workers: datagrams",
        heads: &heads,
        note: None,
    };
    table.with(&rows, workers.is_empty())
}

fn connections(store: &StoreView) -> Markup {
    html! {
        section.card #store {
            h2 { "Store" }
            dl.explain {
                @for link in &store.connections {
                    div {
                        dt { (link.name) }
                        dd {
                            span.action.(if link.is_up { "good" } else { "bad" }) {
                                (if link.is_up { "up" } else { "down" })
                            }
                            " for " (span(link.since))
                            @if let Some(error) = &link.error { ": " (error) }
                        }
                    }
                }
                @for trouble in &store.troubles { div { dt { "trouble" } dd { (trouble) } } }
                div { dt { "waiting" } dd { (count(store.waiting)) " records" } }
                div { dt { "written" } dd { (amount(store.written_bytes as f64)) " bytes" } }
                div {
                    dt { "answered" }
                    dd {
                        "after " (count(store.answer_us)) " \u{b5}s, longest "
                        (count(store.longest_answer_us)) " \u{b5}s; "
                        (count(store.timed_out)) " timed out"
                    }
                }
                div { dt { "held" } dd { (count(store.packets_held)) " packets" } }
            }
        }
    }
}
