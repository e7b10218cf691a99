//! Texts of messages: on one line, of bounded length, and names that are alike.
use std::borrow::Cow;
use std::fmt;

/// The largest number of characters of a value or name in a message.
const MAX_SHOWN: usize = 100;
/// The largest number of names that a message lists.
const MAX_KNOWN: usize = 20;
/// The largest number of bytes of a message about one error, without the last character.
const MAX_MESSAGE: usize = 4_096;
/// The largest number of bytes of a name that is compared with others.
const MAX_COMPARED: usize = 64;

/// Returns a value or name as messages show it: on one line, without control characters, and at
/// most 100 characters of it.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    let is_long = text.len() > MAX_SHOWN && text.chars().nth(MAX_SHOWN).is_some();
    if !is_long && !text.chars().any(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        match is_escaped(c) {
            true => shown.extend(c.escape_debug()),
            false => shown.push(c),
        }
    }
    if is_long {
        shown.push_str("...");
    }
    Cow::Owned(shown)
}

/// Returns whether a character is not printed as it is. Quotes and backslashes are.
fn is_escaped(c: char) -> bool {
    !matches!(c, '"' | '\'' | '\\') && c.escape_debug().len() > 1
}

/// Returns names as messages list them, with the number of those that are left out; `count` is the
/// number of all names.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>, count: usize) -> String {
    let names: Vec<_> = names.take(MAX_KNOWN).map(shown).collect();
    let list = names.join(", ");
    match count.saturating_sub(names.len()) {
        0 => list,
        more => format!("{list}, ... and {more} more"),
    }
}

/// Writes a message as one line of bounded length.
struct Line<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    /// The number of bytes that may follow.
    left: usize,
}

/// A message that is displayed on one line: control characters are escaped, and at most 4096 bytes
/// of it are shown.
pub(super) struct OneLine<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, left) = (f, MAX_MESSAGE);
        fmt::Write::write_fmt(&mut Line { to, left }, format_args!("{}", self.0))
    }
}

impl fmt::Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                return Ok(());
            }
            match is_escaped(c) {
                true => write!(self.to, "{}", c.escape_debug())?,
                false => self.to.write_char(c)?,
            }
            self.left = self.left.saturating_sub(c.len_utf8());
            if self.left == 0 {
                self.to.write_str("...")?;
            }
        }
        Ok(())
    }
}

/// Returns the name that is most like another one, if one is. Nothing is like a name of more than
/// 64 bytes.
pub(super) fn similar<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let known: Vec<&str> = known.into_iter().collect();
    let letters = name.chars().count();
    let begins = |other: &&&str| letters >= 3 && other.starts_with(name);
    if let Some(longer) = known.iter().find(begins) {
        return Some((*longer).to_owned());
    }
    let scored = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(name, other), *other));
    let (distance, best) = scored.min()?;
    // At most a third of the letters may differ.
    (distance <= letters.max(best.chars().count()).div_ceil(3)).then(|| best.to_owned())
}
