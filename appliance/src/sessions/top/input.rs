//! Keys of the terminal as commands, and the editor of a line.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Longest line that can be edited, in characters.
const MAX_LINE: usize = 500;

/// Key, as the list and the editor read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Character(char),
    /// Control with a letter.
    Control(char),
    Enter,
    Escape,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Help,
}

impl Key {
    /// Returns the key of an event; `None` for keys without a meaning here.
    pub(super) fn of(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        let is_control = event.modifiers.contains(KeyModifiers::CONTROL);
        Some(match event.code {
            KeyCode::Char(letter) if is_control => Self::Control(letter.to_ascii_lowercase()),
            KeyCode::Char(letter) => Self::Character(letter),
            KeyCode::Enter => Self::Enter,
            KeyCode::Esc => Self::Escape,
            KeyCode::Backspace => Self::Backspace,
            KeyCode::Delete => Self::Delete,
            KeyCode::Up => Self::Up,
            KeyCode::Down => Self::Down,
            KeyCode::Left => Self::Left,
            KeyCode::Right => Self::Right,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home => Self::Home,
            KeyCode::End => Self::End,
            KeyCode::F(1) => Self::Help,
            _ => return None,
        })
    }
}

/// Line that is being edited, with a cursor between its characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Editor {
    before: Vec<char>,
    after: Vec<char>,
}

impl Editor {
    /// Begins with a text, and the cursor at its end.
    pub(super) fn new(text: &str) -> Self {
        Self {
            before: text.chars().take(MAX_LINE).collect(),
            after: Vec::new(),
        }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> String {
        self.before.iter().chain(&self.after).collect()
    }

    /// Returns the text before the cursor.
    pub(super) fn before(&self) -> String {
        self.before.iter().collect()
    }

    /// Edits the line. Keys that edit nothing are ignored.
    pub(super) fn edit(&mut self, key: Key) {
        match key {
            Key::Character(letter) if self.before.len() + self.after.len() < MAX_LINE => {
                self.before.push(letter);
            }
            Key::Backspace => {
                self.before.pop();
            }
            Key::Delete if !self.after.is_empty() => {
                self.after.remove(0);
            }
            Key::Left => self.after.splice(0..0, self.before.pop()).for_each(drop),
            Key::Right if !self.after.is_empty() => self.before.push(self.after.remove(0)),
            Key::Home | Key::Control('a') => {
                self.before.append(&mut self.after);
                std::mem::swap(&mut self.before, &mut self.after);
            }
            Key::End | Key::Control('e') => self.before.append(&mut self.after),
            Key::Control('u') => self.before.clear(),
            Key::Control('k') => self.after.clear(),
            Key::Control('w') => {
                while self
                    .before
                    .pop_if(|letter| letter.is_whitespace())
                    .is_some()
                {}
                while self
                    .before
                    .pop_if(|letter| !letter.is_whitespace())
                    .is_some()
                {}
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_meaning_are_ignored() {
        let press = |code, modifiers| Key::of(KeyEvent::new(code, modifiers));
        assert_eq!(
            press(KeyCode::Char('C'), KeyModifiers::CONTROL),
            Some(Key::Control('c'))
        );
        assert_eq!(
            press(KeyCode::Char('G'), KeyModifiers::SHIFT),
            Some(Key::Character('G'))
        );
        assert_eq!(press(KeyCode::F(1), KeyModifiers::NONE), Some(Key::Help));
        assert_eq!(press(KeyCode::Insert, KeyModifiers::NONE), None);
        let mut release = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        assert_eq!(Key::of(release), None);
    }

    #[test]
    fn a_line_is_edited_at_its_cursor() {
        let mut editor = Editor::new("src 10.0.0.1");
        for key in [
            Key::Left,
            Key::Backspace,
            Key::Character('9'),
            Key::Home,
            Key::Character('-'),
            Key::Delete,
            Key::Right,
        ] {
            editor.edit(key);
        }
        assert_eq!(
            (editor.before().as_str(), editor.text().as_str()),
            ("-r", "-rc 10.0.091")
        );
        editor.edit(Key::End);
        editor.edit(Key::Control('w'));
        assert_eq!(editor.text(), "-rc ");
        editor.edit(Key::Control('u'));
        assert_eq!(editor.text(), "");
    }

    #[test]
    fn a_line_has_a_bound() {
        let mut editor = Editor::new(&"x".repeat(MAX_LINE - 1));
        for _ in 0..3 {
            editor.edit(Key::Character('y'));
        }
        assert_eq!(editor.text().len(), MAX_LINE);
    }
}
