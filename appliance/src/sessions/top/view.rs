//! The view: totals, sparklines, the list, and the line at the bottom.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, SparklineBar, Table, TableState};

use super::super::table::{amount, span};
use super::columns::{self, GAP, Placed, fit};
use super::dialogs;
use super::look::{Rows, Totals};
use super::state::{App, Mode};
use super::theme::Theme;
use crate::run::protocol::GroupKey;

/// Keys in the line at the bottom.
const KEYS: &str =
    "? help  q quit  r p b c a sort  g group  / filter  space pause  i detail  k kill";

/// Lines above the list.
const HEAD_LINES: u16 = 5;
/// Columns of a sparkline's label and value.
const LABEL: u16 = 22;

/// Rate whose samples are drawn.
struct Graph {
    name: &'static str,
    of: fn(&Totals) -> f64,
    style: Style,
}

/// Draws the view; `now` is in seconds since the Unix epoch.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: Theme, now: f64) {
    let area = frame.area();
    // The list matters most: on a low terminal, the lines above it go first.
    let head_lines = HEAD_LINES.min(area.height.saturating_sub(4));
    let [head, list, foot] = Layout::vertical([
        Constraint::Length(head_lines),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, app, theme);
    draw_list(frame, list, app, theme, now);
    draw_foot(frame, foot, app, theme);
    match &app.mode {
        Mode::List | Mode::Filter(_) => {}
        Mode::Help => dialogs::help(frame, area, theme),
        Mode::Detail(detail) => dialogs::detail(frame, area, theme, detail),
        Mode::Confirm(target) => dialogs::confirm(frame, area, theme, target),
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let lines = Layout::vertical([Constraint::Length(1); HEAD_LINES as usize]).split(area);
    let mut lines = lines.iter().copied();
    let mut next = || lines.next().unwrap_or_default().intersection(area);
    draw_first_line(frame, next(), app, theme);
    let rate = |of: fn(&Totals) -> f64| {
        let rate = app.totals.as_ref().map(of);
        rate.map_or_else(|| "-".to_owned(), amount)
    };
    let stats = app.look.as_ref().map(|look| &look.stats);
    let sessions = stats.map_or_else(String::new, |stats| {
        format!("{} of {}", stats.sessions, stats.max_sessions)
    });
    let line = Line::from(vec![
        Span::styled("sessions ", theme.label()),
        Span::styled(sessions, theme.value()),
        Span::styled("   new ", theme.label()),
        Span::styled(format!("{}/s", rate(|totals| totals.opened)), theme.value()),
        Span::styled("   forwarded ", theme.label()),
        Span::styled(
            format!("{} bytes/s", rate(|totals| totals.bytes)),
            theme.value(),
        ),
    ]);
    frame.render_widget(line, next());
    let drops = if app.totals.is_some_and(|totals| totals.dropped > 0.0) {
        theme.bad()
    } else {
        theme.value()
    };
    for graph in [
        Graph {
            name: "packets",
            of: |totals| totals.forwarded,
            style: theme.value(),
        },
        Graph {
            name: "drops",
            of: |totals| totals.dropped,
            style: drops,
        },
    ] {
        let text = format!("{:<8} {:>8}/s ", graph.name, rate(graph.of));
        let [label, bars] =
            Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(next());
        frame.render_widget(Line::styled(text, graph.style), label);
        draw_bars(frame, bars, app, &graph);
    }
    draw_filter(frame, next(), app, theme);
}

fn draw_first_line(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let mut left = vec![Span::styled("portcullis ", Style::new().bold())];
    if let Some(look) = &app.look {
        let health = if look.stats.unhealthy.is_empty() {
            Span::styled("healthy", theme.good())
        } else {
            let reasons = look.stats.unhealthy.join("; ");
            Span::styled(format!("UNHEALTHY: {reasons}"), theme.bad())
        };
        left.push(health);
        left.push(Span::raw(format!(", up for {}", span(look.stats.uptime))));
    } else {
        left.push(Span::raw("no answer yet"));
    }
    let mut right = vec![
        Span::styled("sort ", theme.label()),
        Span::styled(app.sort.name(), theme.value()),
        Span::styled("  group ", theme.label()),
        Span::styled(app.group.map_or("none", GroupKey::name), theme.value()),
    ];
    if app.is_paused {
        right.push(Span::styled("  PAUSED", theme.bad()));
    }
    let right = Line::from(right).alignment(Alignment::Right);
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX);
    let [first, second] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
    frame.render_widget(Line::from(left), first);
    frame.render_widget(right, second);
}

/// Draws the newest samples, the newest one at the right edge.
fn draw_bars(frame: &mut Frame<'_>, area: Rect, app: &App, graph: &Graph) {
    let width = usize::from(area.width);
    let skipped = app.samples.len().saturating_sub(width);
    let empty = width.saturating_sub(app.samples.len());
    let shown = app.samples.iter().skip(skipped);
    let values = shown.map(|totals| Some((graph.of)(totals) as u64));
    let bars = std::iter::repeat_n(None, empty).chain(values);
    let bars = Sparkline::default()
        .data(bars.map(SparklineBar::from))
        .absent_value_symbol(" ")
        .style(graph.style);
    frame.render_widget(bars, area);
}

fn draw_filter(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let label = Span::styled("filter ", theme.label());
    match &app.mode {
        Mode::Filter(editor) => {
            let before = format!("filter {}", editor.before());
            let cursor = u16::try_from(Line::from(before).width()).unwrap_or(u16::MAX);
            // A long line is scrolled so that its cursor is shown.
            let scrolled = cursor.saturating_sub(area.width.saturating_sub(1));
            let line = Line::from(vec![label, Span::raw(editor.text())]);
            frame.render_widget(Paragraph::new(line).scroll((0, scrolled)), area);
            if !area.is_empty() {
                frame.set_cursor_position(Position {
                    x: area.x + cursor - scrolled,
                    y: area.y,
                });
            }
        }
        _ if app.filter_line.is_empty() => {
            frame.render_widget(Line::from(vec![label, Span::raw("none")]), area);
        }
        _ => {
            let text = Span::styled(app.filter_line.clone(), theme.value());
            frame.render_widget(Line::from(vec![label, text]), area);
        }
    }
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme, now: f64) {
    let Some(look) = &app.look else { return };
    let width = area.width;
    let (columns, rows): (Vec<Placed>, Vec<Vec<String>>) = match &look.rows {
        Rows::Sessions(rows) => {
            let longest = rows.iter().take(usize::from(area.height)).map(|row| {
                let flow = &row.session.flow;
                let ends = [flow.initiator(), flow.responder()];
                ends.map(|end| end.in_list().len()).into_iter().max()
            });
            let columns = columns::of_sessions(width, longest.max().flatten().unwrap_or(0));
            let texts = |row| {
                let texts = columns.iter().map(|each| each.column.of_session(row, now));
                texts.collect()
            };
            let rows = rows.iter().map(texts).collect();
            (columns, rows)
        }
        Rows::Groups(rows) => {
            let longest = rows.iter().map(|row| row.name.chars().count()).max();
            let columns = columns::of_groups(width, longest.unwrap_or(0));
            let texts = |row| {
                let texts = columns.iter().map(|each| each.column.of_group(row, now));
                texts.collect()
            };
            let rows = rows.iter().map(texts).collect();
            (columns, rows)
        }
    };
    let head = columns.iter().map(|placed| {
        let is_sorted = placed.column.is_sorted_by(app.sort);
        let style = if is_sorted {
            theme.sorted()
        } else {
            theme.head()
        };
        cell(placed, placed.column.title()).style(style)
    });
    let head = Row::new(head).style(theme.head());
    let rows = rows.into_iter().map(|texts| {
        let cells = columns.iter().zip(texts);
        Row::new(cells.map(|(placed, text)| cell(placed, &text)))
    });
    let widths = columns
        .iter()
        .map(|placed| Constraint::Length(placed.width));
    let table = Table::new(rows, widths)
        .header(head)
        .column_spacing(GAP)
        .row_highlight_style(theme.selected());
    let mut state = TableState::new().with_selected((app.rows() > 0).then_some(app.cursor()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn cell<'a>(placed: &Placed, text: &str) -> Cell<'a> {
    let line = Line::from(fit(text, placed.width));
    Cell::from(if placed.column.is_number() {
        line.alignment(Alignment::Right)
    } else {
        line
    })
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App, theme: Theme) {
    let note = app.look.as_ref().and_then(|look| look.note.as_deref());
    let line = match (&app.message, &app.mode, note) {
        (Some(message), ..) if message.is_error => Line::styled(message.text.clone(), theme.bad()),
        (Some(message), ..) => Line::styled(message.text.clone(), theme.good()),
        (None, Mode::Filter(_), _) => Line::styled(
            "words of `portcullis sessions`, as in: src 10.0.0.0/8 port 443   enter, escape",
            theme.label(),
        ),
        (None, _, Some(note)) => Line::styled(note.to_owned(), theme.label()),
        (None, _, None) => Line::styled(KEYS, theme.label()),
    };
    frame.render_widget(line, area);
}
