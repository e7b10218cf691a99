//! Overview: rates and drops of the last minutes, and the table.

use maud::{Markup, PreEscaped, html};

use super::parts::{Content, Head, Table, bar, count, counts, status};
use crate::figures::amount;
use crate::run::console::chart::{self, MAX_SERIES};
use crate::run::console::facts::Facts;
use crate::run::console::samples::{Point, Rates, newest};
use crate::run::protocol::StatsView;

/// Series of a chart with its name.
struct Series<'a> {
    name: &'a str,
    points: &'a [Point],
}

/// Chart with a title and a unit.
struct Chart<'a> {
    id: &'a str,
    title: &'a str,
    series: &'a [Series<'a>],
}

impl Chart<'_> {
    fn markup(&self) -> Markup {
        let points: Vec<&[Point]> = self.series.iter().map(|series| series.points).collect();
        let names = self
            .series
            .iter()
            .map(|series| format!("{} {}", series.name, amount(newest(series.points))));
        let names: Vec<_> = names.collect();
        let label = format!(
            "{}, the last 15 minutes; now: {}",
            self.title,
            names.join(", ")
        );
        html! {
            section.card #(self.id) {
                figure {
                    figcaption {
                        h2 { (self.title) }
                        ul.legend {
                            @for (n, series) in self.series.iter().enumerate() {
                                li.{ "s" (n + 1) } {
                                    (series.name) " " b { (amount(newest(series.points))) }
                                }
                            }
                        }
                    }
                    div role="img" aria-label=(label) { (PreEscaped(chart::svg(&points))) }
                }
            }
        }
    }
}

/// Returns the page.
pub(super) fn page(facts: &mut Facts<'_>) -> Content {
    let (state, stats, rates) = (facts.status(), facts.stats(), facts.history());
    Content {
        title: "Overview".to_owned(),
        fixed: html! {},
        part: html! {
            (status(&state))
            (charts(&stats, &rates))
            div.columns {
                (drops(&stats, &rates))
                div {
                    (counts("forwarded", "Forwarded packets by class", &stats.forwarded))
                    (counts("refused", "Refused datagrams by reason", &stats.refused))
                }
                (counts("ended", "Ended sessions by reason", &stats.sessions_ended))
            }
        },
    }
}

fn charts(stats: &StatsView, rates: &Rates) -> Markup {
    let packets = [
        Series {
            name: "forwarded",
            points: &rates.forwarded,
        },
        Series {
            name: "dropped",
            points: &rates.dropped,
        },
    ];
    let one = |name, points| [Series { name, points }];
    let mut reasons: Vec<_> = rates
        .reasons
        .iter()
        .map(|drops| Series {
            name: drops.reason.name(),
            points: &drops.points,
        })
        .collect();
    reasons.truncate(MAX_SERIES);
    html! {
        div.charts {
            (Chart { id: "packets", title: "Packets/s", series: &packets }.markup())
            (Chart { id: "bits", title: "Bits/s", series: &one("forwarded", &rates.bits) }.markup())
            (Chart { id: "opened", title: "New sessions/s", series: &one("opened", &rates.opened) }
                .markup())
            (Chart { id: "sessions", title: "Sessions", series: &one("now", &rates.sessions) }
                .markup())
            (Chart { id: "reasons", title: "Drops/s by reason", series: &reasons }.markup())
            (table(stats))
        }
    }
}

/// Returns the drops by reason.
fn drops(stats: &StatsView, rates: &Rates) -> Markup {
    let heads = [
        Head::text("reason"),
        Head::number("now/s"),
        Head::number("15 min"),
        Head::number("in all"),
    ];
    let table = Table {
        id: "drops",
        caption: "Dropped packets by reason",
        heads: &heads,
        note: None,
    };
    // Reasons of the last minutes come first, and then those with the most packets.
    let mut rows: Vec<_> = stats
        .dropped
        .iter()
        .map(|(name, all)| {
            let recent = rates
                .reasons
                .iter()
                .find(|drops| drops.reason.name() == name);
            let now = recent.map_or(0.0, |drops| newest(&drops.points));
            (recent.map_or(0, |drops| drops.recent), *all, name, now)
        })
        .collect();
    rows.sort_by_key(|(recent, all, ..)| std::cmp::Reverse([*recent, *all]));
    let body = html! {
        @for (recent, all, name, now) in &rows {
            tr {
                th scope="row" { (name) }
                td.n { (amount(*now)) }
                td.n { (count(*recent)) }
                td.n { (count(*all)) }
            }
        }
    };
    table.with(&body, rows.is_empty())
}

/// Returns the use of the session table.
fn table(stats: &StatsView) -> Markup {
    let heads = [
        Head::text("sessions"),
        Head::number("count"),
        Head::text("share"),
    ];
    let of_table = |sessions: u64| sessions as f64 / stats.max_sessions.max(1) as f64;
    let row = |name: &str, sessions: u64| {
        html! {
            tr {
                th scope="row" { (name) }
                td.n { (count(sessions)) }
                td.wide { (bar(of_table(sessions))) }
            }
        }
    };
    let rows = html! {
        (row("all", stats.sessions))
        @for (class, sessions) in &stats.sessions_by_worth { (row(class, *sessions)) }
    };
    let note = format!(
        "{:.1} % of {}; {} opened, {} adopted, {} bypassed since the start",
        100.0 * of_table(stats.sessions),
        count(stats.max_sessions),
        count(stats.sessions_opened),
        count(stats.sessions_adopted),
        count(stats.sessions_bypassed)
    );
    let table = Table {
        id: "table",
        caption: "Session table",
        heads: &heads,
        note: Some(&note),
    };
    table.with(&rows, false)
}
