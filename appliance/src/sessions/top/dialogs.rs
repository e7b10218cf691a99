//! Dialogs on top of the list: the help, a session in detail, and the confirmation of its end.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::state::{Detail, Target};
use super::theme::Theme;

/// Keys with their effects.
const HELP: [(&str, &str); 19] = [
    ("r", "sort by bytes per second"),
    ("p", "sort by packets per second"),
    ("b", "sort by bytes in all"),
    ("c", "sort by packets in all"),
    ("a", "sort by age, the oldest first"),
    ("n", "sort groups by their number of sessions"),
    ("g", "next grouping"),
    ("0", "list sessions, without a grouping"),
    ("1 2", "group by source, by destination"),
    ("3 4 5", "group by port, by rule, by zone"),
    (
        "/ f",
        "edit the filter, in the words of `portcullis sessions`",
    ),
    ("space", "pause and go on"),
    (
        "enter i",
        "show a session in detail, or the sessions of a group",
    ),
    ("k", "end a session, after a confirmation"),
    ("arrows", "move; PageUp, PageDown, Home and End too"),
    ("? h F1", "this help"),
    ("q Esc", "quit"),
    ("", ""),
    (
        "",
        "Rates are per second, since the look before. Any key goes on.",
    ),
];

/// Widest dialog.
const MAX_WIDTH: u16 = 110;

/// Shows the keys.
pub(super) fn help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let lines = HELP.map(|(keys, effect)| format!("{keys:<8} {effect}"));
    let lines = lines.map(Line::from).to_vec();
    dialog(frame, area, theme, Dialog::new("help", lines));
}

/// Shows a session in detail.
pub(super) fn detail(frame: &mut Frame<'_>, area: Rect, theme: Theme, detail: &Detail) {
    let lines = match &detail.lines {
        Some(lines) => lines.iter().cloned().map(Line::from).collect(),
        None => vec![Line::from("asking the appliance")],
    };
    let dialog_of = Dialog {
        scroll: detail.scroll,
        foot: "esc close  i again  k kill  arrows scroll",
        ..Dialog::new(&detail.target.flow, lines)
    };
    dialog(frame, area, theme, dialog_of);
}

/// Asks whether a session is to end.
pub(super) fn confirm(frame: &mut Frame<'_>, area: Rect, theme: Theme, target: &Target) {
    let lines = vec![
        Line::from(target.flow.clone()),
        Line::from(format!("session {}", target.id)),
        Line::from(""),
        Line::styled("Both ends of a TCP session get a RST.", theme.label()),
        Line::styled("y ends the session, any other key does not", theme.bad()),
    ];
    dialog(frame, area, theme, Dialog::new("end this session?", lines));
}

/// Framed text in the middle of the terminal.
struct Dialog<'a> {
    title: &'a str,
    lines: Vec<Line<'a>>,
    /// First line that is shown.
    scroll: u16,
    /// Line in the lower edge.
    foot: &'a str,
}

impl<'a> Dialog<'a> {
    const fn new(title: &'a str, lines: Vec<Line<'a>>) -> Self {
        Self {
            title,
            lines,
            scroll: 0,
            foot: "",
        }
    }
}

fn dialog(frame: &mut Frame<'_>, area: Rect, theme: Theme, dialog: Dialog<'_>) {
    let widths = dialog.lines.iter().map(Line::width);
    let widest = widths.chain([dialog.title.len(), dialog.foot.len()]).max();
    let widest = u16::try_from(widest.unwrap_or(0)).unwrap_or(u16::MAX);
    let width = widest.saturating_add(4).min(MAX_WIDTH).min(area.width);
    let inner = usize::from(width.saturating_sub(4).max(1));
    let heights = dialog
        .lines
        .iter()
        .map(|line| 1 + line.width().saturating_sub(1) / inner);
    let lines = u16::try_from(heights.sum::<usize>()).unwrap_or(u16::MAX);
    let text = Paragraph::new(dialog.lines)
        .wrap(Wrap { trim: false })
        .scroll((dialog.scroll, 0));
    let height = lines.saturating_add(2).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let block = Block::bordered()
        .title(format!(" {} ", dialog.title))
        .title_bottom(match dialog.foot {
            "" => Line::default(),
            foot => Line::from(format!(" {foot} ")),
        })
        .border_style(theme.value())
        .padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(text.block(block), place);
}
