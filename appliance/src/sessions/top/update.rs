//! Changes of the view by keys and answers, without a terminal.

use super::input::{Editor, Key};
use super::look::Look;
use super::state::{App, Detail, Mode, Target};
use crate::run::protocol::{GroupKey, SortKey};

/// Rows of a page, whatever the size of the terminal.
const PAGE: usize = 10;

/// Groupings in the order in which `g` shows them.
const GROUPS: [Option<GroupKey>; 6] = [
    None,
    Some(GroupKey::Source),
    Some(GroupKey::Destination),
    Some(GroupKey::Port),
    Some(GroupKey::Rule),
    Some(GroupKey::Zone),
];

/// Cause of a change.
#[derive(Debug)]
pub(super) enum Input {
    Key(Key),
    Look(Box<Look>),
    /// Explanation of a session.
    Explained {
        id: u64,
        lines: Vec<String>,
    },
    /// Outcome of the end of a session.
    Ended {
        id: u64,
        count: u64,
    },
    /// The appliance refuses, or does not answer.
    Failed(String),
}

/// Work for the caller of [`update`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Ask for the explanation of a session.
    Explain(u64),
    /// End a session.
    End(u64),
    Quit,
}

/// Changes the view.
pub(super) fn update(app: &mut App, input: Input) -> Effect {
    match input {
        Input::Key(Key::Control('c')) => return Effect::Quit,
        Input::Key(key) => {
            app.message = None;
            return press(app, key);
        }
        Input::Look(look) => app.accept(*look),
        Input::Explained { id, lines } => {
            if let Mode::Detail(detail) = &mut app.mode
                && detail.target.id == id
            {
                detail.lines = Some(lines);
            }
        }
        Input::Ended { id, count } => {
            app.is_due = true;
            match count {
                0 => app.fail(format!("session {id} had ended before")),
                _ => app.say(format!("session {id} is ended")),
            }
        }
        Input::Failed(error) => {
            if matches!(app.mode, Mode::Detail(Detail { lines: None, .. })) {
                app.mode = Mode::List;
            }
            app.fail(error);
        }
    }
    Effect::None
}

fn press(app: &mut App, key: Key) -> Effect {
    match std::mem::replace(&mut app.mode, Mode::List) {
        Mode::List => list(app, key),
        // Every key closes the help.
        Mode::Help => Effect::None,
        Mode::Filter(editor) => {
            edit_filter(app, editor, key);
            Effect::None
        }
        Mode::Detail(detail) => in_detail(app, detail, key),
        Mode::Confirm(target) => match key {
            Key::Character('y' | 'Y') => {
                app.say(format!("session {} is being ended", target.id));
                Effect::End(target.id)
            }
            _ => {
                app.say(format!("session {} goes on", target.id));
                Effect::None
            }
        },
    }
}

fn list(app: &mut App, key: Key) -> Effect {
    let cursor = app.cursor();
    match key {
        Key::Character('q') | Key::Escape => return Effect::Quit,
        Key::Up => app.move_to(cursor.saturating_sub(1)),
        Key::Down => app.move_to(cursor.saturating_add(1)),
        Key::PageUp => app.move_to(cursor.saturating_sub(PAGE)),
        Key::PageDown => app.move_to(cursor.saturating_add(PAGE)),
        Key::Home => app.move_to(0),
        Key::End => app.move_to(usize::MAX),
        Key::Character('r') => app.set_sort(SortKey::Rate),
        Key::Character('p') => app.set_sort(SortKey::PacketRate),
        Key::Character('b') => app.set_sort(SortKey::Bytes),
        Key::Character('c') => app.set_sort(SortKey::Packets),
        Key::Character('a') => app.set_sort(SortKey::Age),
        Key::Character('n') if app.group.is_some() => app.set_sort(SortKey::Sessions),
        Key::Character('n') => app.fail("only groups are sorted by their number of sessions"),
        Key::Character('g') => app.set_group(next_group(app.group)),
        Key::Character(digit @ '0'..='5') => {
            let group = digit.to_digit(10).and_then(|n| GROUPS.get(n as usize));
            app.set_group(group.copied().flatten());
        }
        Key::Character('/' | 'f') => app.mode = Mode::Filter(Editor::new(&app.filter_line)),
        Key::Character(' ') => {
            app.is_paused = !app.is_paused;
            app.is_due = !app.is_paused;
        }
        Key::Character('?' | 'h') | Key::Help => app.mode = Mode::Help,
        Key::Enter | Key::Character('i') => return open(app),
        Key::Character('k') | Key::Delete => confirm(app),
        _ => {}
    }
    Effect::None
}

fn next_group(group: Option<GroupKey>) -> Option<GroupKey> {
    let position = GROUPS.iter().position(|each| *each == group);
    let next = position.map_or(0, |position| (position + 1) % GROUPS.len());
    GROUPS.get(next).copied().flatten()
}

/// Opens a session, or the sessions of a group.
fn open(app: &mut App) -> Effect {
    if let Some(target) = app.target() {
        let id = target.id;
        app.mode = Mode::Detail(Detail {
            target,
            lines: None,
            scroll: 0,
        });
        return Effect::Explain(id);
    }
    let words = match (app.group, app.group_name()) {
        (Some(group), Some(name)) => words_of(group, name),
        _ => return Effect::None,
    };
    let line = format!("{} {words}", app.filter_line);
    match app.set_filter(line.trim()) {
        Ok(()) => app.set_group(None),
        Err(error) => app.fail(error),
    }
    Effect::None
}

/// Returns the words of a filter that selects the sessions of a group.
fn words_of(group: GroupKey, name: &str) -> String {
    let quoted = shlex::try_quote(name).unwrap_or_default();
    match group {
        GroupKey::Source => format!("src {quoted}"),
        GroupKey::Destination => format!("dst {quoted}"),
        GroupKey::Rule => format!("rule {quoted}"),
        GroupKey::Zone => format!("zone {quoted}"),
        GroupKey::Port => match name.split_once('/') {
            Some((protocol, port)) => format!("protocol {protocol} port {port}"),
            None => format!("protocol {quoted}"),
        },
    }
}

/// Asks whether the session at the cursor is to end.
fn confirm(app: &mut App) {
    match app.target() {
        Some(target) => app.mode = Mode::Confirm(target),
        None if app.group.is_some() => {
            app.fail("only sessions can be ended: Enter lists those of the group");
        }
        None => {}
    }
}

fn edit_filter(app: &mut App, mut editor: Editor, key: Key) {
    match key {
        Key::Escape => {}
        Key::Enter => {
            if let Err(error) = app.set_filter(&editor.text()) {
                app.fail(error);
                app.mode = Mode::Filter(editor);
            }
        }
        key => {
            editor.edit(key);
            app.mode = Mode::Filter(editor);
        }
    }
}

fn in_detail(app: &mut App, mut detail: Detail, key: Key) -> Effect {
    let lines = detail.lines.as_ref().map_or(0, Vec::len);
    let last = u16::try_from(lines.saturating_sub(1)).unwrap_or(u16::MAX);
    match key {
        Key::Escape | Key::Enter | Key::Character('q') => return Effect::None,
        Key::Character('k') | Key::Delete => {
            let Detail { target, .. } = detail;
            app.mode = Mode::Confirm(target);
            return Effect::None;
        }
        Key::Character('i') => {
            let Target { id, .. } = detail.target;
            app.mode = Mode::Detail(detail);
            return Effect::Explain(id);
        }
        Key::Up => detail.scroll = detail.scroll.saturating_sub(1),
        Key::Down => detail.scroll = detail.scroll.saturating_add(1).min(last),
        Key::PageUp => detail.scroll = detail.scroll.saturating_sub(PAGE as u16),
        Key::PageDown => detail.scroll = detail.scroll.saturating_add(PAGE as u16).min(last),
        Key::Home => detail.scroll = 0,
        Key::End => detail.scroll = last,
        _ => {}
    }
    app.mode = Mode::Detail(detail);
    Effect::None
}
