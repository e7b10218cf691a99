//! Refreshing view of the sessions with the most traffic since the last update.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, event, execute, queue, style, terminal};

use super::client::Client;
use super::error::SessionsError;
use super::table::{HEAD, amount, session, span};
use crate::run::protocol::{Reply, Request, StatsView};
use crate::run::view::ListedSession;

/// Terminal in raw mode; restored when the value is dropped.
struct Screen;

impl Screen {
    fn new(out: &mut impl Write) -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // An error cannot be reported here.
        let _ = execute!(io::stderr(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// State of an update.
#[derive(Debug, Default)]
struct Look {
    at: Option<Instant>,
    bytes: HashMap<u64, u64>,
    stats: StatsView,
}

/// Update as a line of JSON.
#[derive(serde::Serialize)]
struct Row<'a> {
    found: u64,
    sessions: &'a [ListedSession],
    stats: &'a StatsView,
}

/// Shows the view until `count` updates are done or `q` is pressed; with `json`, writes a line for
/// each update instead.
pub(super) fn run(
    client: &mut Client,
    request: &Request,
    interval: Duration,
    count: Option<u64>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), SessionsError> {
    let is_screen = !json && io::stdout().is_terminal() && io::stdin().is_terminal();
    let screen = is_screen
        .then(|| Screen::new(out))
        .transpose()
        .map_err(SessionsError::Output)?;
    let mut last = Look::default();
    let mut looks = 0;
    loop {
        let (lines, look) = look(client, request, &last, json)?;
        last = look;
        show(out, &lines, screen.is_some()).map_err(SessionsError::Output)?;
        looks += 1;
        if count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        if screen.is_some() {
            if wants_to_leave(interval).map_err(SessionsError::Output)? {
                return Ok(());
            }
        } else {
            std::thread::sleep(interval);
        }
    }
}

fn look(
    client: &mut Client,
    request: &Request,
    last: &Look,
    json: bool,
) -> Result<(Vec<String>, Look), SessionsError> {
    let mut sessions = Vec::new();
    let mut found = 0;
    for reply in client.ask(request)? {
        match reply {
            Reply::Session(view) => sessions.push(*view),
            Reply::Done { count, .. } => found = count,
            _ => {}
        }
    }
    let stats = client
        .ask(&Request::Stats)?
        .into_iter()
        .find_map(|reply| match reply {
            Reply::Stats(stats) => Some(*stats),
            _ => None,
        });
    let look = Look {
        at: Some(Instant::now()),
        bytes: sessions
            .iter()
            .map(|view| (view.id, view.session.bytes()))
            .collect(),
        stats: stats.unwrap_or_default(),
    };
    let lines = if json {
        let row = Row {
            found,
            sessions: &sessions,
            stats: &look.stats,
        };
        vec![
            serde_json::to_string(&row)
                .map_err(|error| SessionsError::Answer(error.to_string()))?,
        ]
    } else {
        lines(&sessions, found, &look, last)
    };
    Ok((lines, look))
}

/// Returns the sum of the counts of a group.
fn total<'c, N: 'c>(counts: impl IntoIterator<Item = &'c (N, u64)>) -> u64 {
    counts.into_iter().map(|(_, count)| count).sum()
}

fn lines(sessions: &[ListedSession], found: u64, look: &Look, last: &Look) -> Vec<String> {
    let stats = &look.stats;
    let seconds = match (look.at, last.at) {
        (Some(at), Some(before)) => Some(
            at.saturating_duration_since(before)
                .as_secs_f64()
                .max(0.001),
        ),
        _ => None,
    };
    let rate = |now: u64, before: u64| match seconds {
        Some(seconds) => amount(now.saturating_sub(before) as f64 / seconds),
        None => "-".to_owned(),
    };
    let health = if stats.unhealthy.is_empty() {
        "healthy"
    } else {
        "UNHEALTHY"
    };
    let mut lines = vec![
        format!(
            "{health}, up for {}: {} of {} sessions, {}/s new, {} packets/s forwarded, {} \
             dropped/s, {} bytes/s",
            span(stats.uptime),
            stats.sessions,
            stats.max_sessions,
            rate(stats.sessions_opened, last.stats.sessions_opened),
            rate(total(&stats.forwarded), total(&last.stats.forwarded)),
            rate(total(&stats.dropped), total(&last.stats.dropped)),
            rate(stats.forwarded_bytes, last.stats.forwarded_bytes),
        ),
        format!(
            "the {} of {found} with the most bytes, busiest first",
            sessions.len()
        ),
        format!("{:>8}  {HEAD}", "bytes/s"),
    ];
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |now| now.as_secs_f64());
    let moved = |view: &ListedSession| {
        // All bytes of a session that is new since the last update are counted.
        view.session
            .bytes()
            .saturating_sub(last.bytes.get(&view.id).copied().unwrap_or(0))
    };
    let mut order: Vec<&ListedSession> = sessions.iter().collect();
    order.sort_by_key(|view| std::cmp::Reverse((moved(view), view.session.bytes())));
    lines.extend(order.into_iter().map(|view| {
        let rate = seconds.map_or("-".to_owned(), |seconds| {
            amount(moved(view) as f64 / seconds)
        });
        format!("{rate:>8}  {}", session(view, now))
    }));
    lines
}

fn show(out: &mut impl Write, lines: &[String], is_screen: bool) -> io::Result<()> {
    if !is_screen {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        return out.flush();
    }
    let (columns, rows) = terminal::size()?;
    queue!(out, cursor::MoveTo(0, 0))?;
    for line in lines.iter().take(usize::from(rows)) {
        let shown: String = line.chars().take(usize::from(columns)).collect();
        queue!(
            out,
            style::Print(shown),
            terminal::Clear(terminal::ClearType::UntilNewLine),
            cursor::MoveToNextLine(1)
        )?;
    }
    queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    out.flush()
}

/// Waits for the next update. Returns whether `q`, Escape or Control-C was pressed meanwhile.
fn wants_to_leave(interval: Duration) -> io::Result<bool> {
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !event::poll(left)? {
            return Ok(false);
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let is_interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
}
