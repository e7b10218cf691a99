//! Parts of all pages: the frame, the state of the appliance, tables and numbers.

use maud::{DOCTYPE, Markup, html};

use crate::figures::{amount, span};
use crate::run::console::facts::Status;
use crate::run::console::route::Route;
use crate::run::protocol::SortKey;

/// Page without its frame.
pub(in crate::run::console) struct Content {
    pub(super) title: String,
    /// Part that a refresh replaces.
    pub(super) part: Markup,
    /// Part that stays, above the other one.
    pub(super) fixed: Markup,
}

impl Content {
    /// Returns the text of the part that a refresh replaces.
    pub(in crate::run::console) fn part(&self) -> String {
        self.part.0.clone()
    }
}

/// Pages of the navigation.
fn navigation() -> [(Route, &'static str); 7] {
    let filter = String::new();
    let sort = SortKey::Rate;
    [
        (Route::Overview, "Overview"),
        (Route::Talkers(sort), "Talkers"),
        (Route::Zones(sort), "Zones"),
        (Route::Rules, "Rules"),
        (Route::Sessions { filter, sort }, "Sessions"),
        (Route::Asymmetry, "Asymmetry"),
        (Route::Health, "Health"),
    ]
}

/// Returns a page in its frame.
pub(in crate::run::console) fn frame(route: &Route, content: &Content) -> Markup {
    let filter = match route {
        Route::Sessions { filter, .. } => filter.as_str(),
        _ => "",
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (content.title) " \u{b7} portcullis" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/console.css";
                script src="/console.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.brand href="/" { "portcullis" }
                    nav aria-label="Pages" {
                        @for (each, name) in navigation() {
                            @let current = (each.path() == route.path()).then_some("page");
                            a href=(each.path()) aria-current=[current] { (name) }
                        }
                    }
                    form role="search" action="/sessions" {
                        label.hidden for="q" { "Filter of sessions" }
                        input #q name="q" type="search" value=(filter) maxlength="1000"
                            placeholder="src 10.0.0.0/8 port 443" autocomplete="off"
                            autocapitalize="none" spellcheck="false"
                            aria-keyshortcuts="/";
                        button { "Search" }
                    }
                }
                main #main tabindex="-1" {
                    h1 { (content.title) }
                    (content.fixed)
                    div #live { (content.part) }
                }
                footer {
                    span #refresh role="status" { a href=(route.address()) { "Refresh" } }
                    button #pause type="button" hidden { "Pause" }
                }
            }
        }
    }
}

/// Returns the state of the appliance.
pub(super) fn status(status: &Status) -> Markup {
    let tone = match status.verdict.as_str() {
        "healthy" => "good",
        "unhealthy" => "bad",
        _ => "warn",
    };
    html! {
        section #status aria-label="State" {
            p.strip {
                a.badge.(tone) href="/health" { (status.verdict) }
                span {
                    b { (count(status.sessions)) } " of " (count(status.max_sessions)) " sessions"
                }
                span { "up " (span(status.uptime)) }
                time { (status.time) }
            }
            @if !status.lines.is_empty() {
                ul.notes.(tone) {
                    @for line in &status.lines { li { (line) } }
                }
            }
        }
    }
}

/// Returns a whole number with separators of thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a rate in few letters; a dash if it is not known.
pub(super) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "\u{2013}".to_owned(), amount)
}

/// Returns the time since a moment in seconds since the Unix epoch.
pub(super) fn age(start: f64) -> String {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::SystemTime::UNIX_EPOCH);
    span(now.map_or(0.0, |now| now.as_secs_f64()) - start)
}

/// Returns a bar of a share between 0 and 1.
pub(super) fn bar(share: f64) -> Markup {
    let share = if share.is_nan() {
        0.0
    } else {
        share.clamp(0.0, 1.0)
    };
    let width = format!("{:.1}", share * 100.0);
    html! {
        svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="4" {}
            rect.fill width=(width) height="4" {}
        }
    }
}

/// Order that the title of a column leads to.
struct Order {
    address: String,
    is_current: bool,
}

/// Head of a column.
pub(super) struct Head {
    title: &'static str,
    is_number: bool,
    /// Whether a narrow screen goes without the column, whose cells have the class `minor`.
    is_minor: bool,
    order: Option<Order>,
}

impl Head {
    /// Column of texts.
    pub(super) const fn text(title: &'static str) -> Self {
        Self {
            title,
            is_number: false,
            is_minor: false,
            order: None,
        }
    }

    /// Column of numbers.
    pub(super) fn number(title: &'static str) -> Self {
        Self {
            is_number: true,
            ..Self::text(title)
        }
    }

    /// Column of numbers by which the rows of a page can be sorted.
    pub(super) fn sorted(title: &'static str, route: &Route, by: SortKey, now: SortKey) -> Self {
        Self {
            order: Some(Order {
                address: route.sorted(by).address(),
                is_current: by == now,
            }),
            ..Self::number(title)
        }
    }

    /// The column, hidden on a narrow screen.
    pub(super) fn minor(self) -> Self {
        Self {
            is_minor: true,
            ..self
        }
    }

    fn cell(&self) -> Markup {
        let is_current = self.order.as_ref().is_some_and(|order| order.is_current);
        html! {
            th.n[self.is_number].minor[self.is_minor] scope="col"
                aria-sort=[is_current.then_some("descending")] {
                @match &self.order {
                    Some(order) => a href=(order.address) { (self.title) },
                    None => (self.title),
                }
            }
        }
    }
}

/// Table with a caption.
pub(super) struct Table<'a> {
    /// Name of the section in the page.
    pub(super) id: &'a str,
    pub(super) caption: &'a str,
    pub(super) heads: &'a [Head],
    /// Note below the table, if there is one.
    pub(super) note: Option<&'a str>,
}

impl Table<'_> {
    /// Returns the table with its rows; `is_empty` says that there are none.
    pub(super) fn with(&self, rows: &Markup, is_empty: bool) -> Markup {
        html! {
            section.card #(self.id) {
                div.scroll #{ (self.id) "-rows" } tabindex="0" role="region"
                    aria-label=(self.caption) {
                    table {
                        caption { (self.caption) }
                        thead { tr { @for head in self.heads { (head.cell()) } } }
                        tbody { (rows) }
                    }
                }
                @if is_empty { p.note { "Nothing yet." } }
                @if let Some(note) = self.note { p.note { (note) } }
            }
        }
    }
}

/// Returns a table of names with their counts.
pub(super) fn counts(id: &str, caption: &str, counts: &[(String, u64)]) -> Markup {
    let heads = [Head::text("name"), Head::number("count")];
    let table = Table {
        id,
        caption,
        heads: &heads,
        note: None,
    };
    let rows = html! {
        @for (name, number) in counts {
            tr { th scope="row" { (name) } td.n { (count(*number)) } }
        }
    };
    table.with(&rows, counts.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn a_bar_never_leaves_its_track() {
        for (share, width) in [
            (-1.0, "0.0"),
            (0.5, "50.0"),
            (9.0, "100.0"),
            (f64::NAN, "0.0"),
        ] {
            let bar = bar(share).into_string();
            assert!(bar.contains(&format!("width=\"{width}\"")), "{bar}");
        }
    }
}
