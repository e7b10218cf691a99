//! Paths of which only one direction passes here.

use maud::{Markup, html};

use super::parts::{Content, Head, Table, count, status};
use crate::figures::span;
use crate::run::console::facts::{Facts, List};
use crate::run::protocol::AsymmetryView;

/// Returns the page.
pub(super) fn page(facts: &mut Facts<'_>) -> Content {
    let state = facts.status();
    let paths = facts.asymmetry();
    Content {
        title: "Asymmetry".to_owned(),
        fixed: html! {},
        part: html! { (status(&state)) (table(&paths)) },
    }
}

fn table(list: &List<AsymmetryView>) -> Markup {
    let heads = [
        Head::text("from"),
        Head::text("to"),
        Head::text("zone"),
        Head::text("cause"),
        Head::number("flows"),
        Head::number("packets"),
        Head::number("first seen"),
        Head::number("last seen"),
        Head::text("explanation"),
    ];
    let rows = html! {
        @for path in &list.rows {
            tr {
                th.flow scope="row" { (path.from) }
                td.flow { (path.to) }
                td { (path.zone) @if let Some(other) = &path.other_zone { ", " (other) } }
                td { (path.cause) }
                td.n { (count(path.flows)) }
                td.n { (count(path.packets)) }
                td.n { (span(path.first)) }
                td.n { (span(path.last)) }
                td.text { (path.text) }
            }
        }
    };
    let more = list.count.saturating_sub(list.rows.len() as u64);
    let more = (more > 0).then(|| format!("{} more: `portcullis sessions asymmetry`", count(more)));
    let note: Vec<_> = more.into_iter().chain(list.note.clone()).collect();
    let note = note.join("; ");
    let table = Table {
        id: "paths",
        caption: "Conversations of which one direction is missing",
        heads: &heads,
        note: (!note.is_empty()).then_some(&note),
    };
    table.with(&rows, list.rows.is_empty())
}
