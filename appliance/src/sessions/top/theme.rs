//! Colors and other marks of the view.

use std::io;

use ratatui::style::{Color, Modifier, Style};

use crate::output;

/// Styles of the view. Without colors, bold and reversed text remain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Theme {
    has_colors: bool,
}

impl Theme {
    pub(super) const fn new(has_colors: bool) -> Self {
        Self { has_colors }
    }

    /// Returns the theme that the options and the environment ask for.
    pub(super) fn of_environment() -> Self {
        Self::new(output::is_colored(&io::stdout()))
    }

    const fn colored(self, color: Color) -> Style {
        if self.has_colors {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    pub(super) const fn good(self) -> Style {
        self.colored(Color::Green)
    }

    pub(super) const fn bad(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Style of the names of values.
    pub(super) const fn label(self) -> Style {
        self.colored(Color::DarkGray)
    }

    pub(super) const fn value(self) -> Style {
        self.colored(Color::Cyan)
    }

    pub(super) const fn head(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Style of the title of the column by which rows are sorted.
    pub(super) const fn sorted(self) -> Style {
        self.head().add_modifier(Modifier::BOLD)
    }

    pub(super) const fn selected(self) -> Style {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        if self.has_colors {
            style.fg(Color::Yellow)
        } else {
            style
        }
    }
}
