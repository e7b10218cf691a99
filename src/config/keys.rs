//! Which line of the file each key is on.
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Location;

/// Where a configuration comes from: the file's name and the line of each key; nothing for one built in code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    file: Option<String>,
    lines: BTreeMap<String, usize>,
}

impl Provenance {
    /// Was the configuration read from a file?
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// The line of a key, counted from 1, if the file has the key.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// The place of a key. For a key that the file does not have, the line is that of what it belongs to.
    pub(super) fn locate(&self, key: &str) -> Location {
        // A list of one may be written without brackets.
        let single = key
            .strip_suffix("[0]")
            .filter(|list| !self.lines.contains_key(key) && self.lines.contains_key(*list));
        let key = single.unwrap_or(key);
        let mut at = key;
        let line = loop {
            if let Some(line) = self.line(at) {
                break Some(line);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = at.get(..end).unwrap_or_default(),
                None => break None,
            }
        };
        Location {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
        }
    }

    /// A key with its line, as one error names another place: `policy.rule[0] (line 7)`.
    pub(super) fn mention(&self, key: &str) -> String {
        match self.line(key) {
            Some(line) => format!("{key} (line {line})"),
            None => key.to_owned(),
        }
    }
}

/// A name as a part of a path: in quotes if TOML wants them.
pub(super) fn key_segment(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// The spans of all keys of a document.
#[derive(Debug)]
pub(super) struct KeyIndex<'a> {
    text: &'a str,
    keys: Vec<(String, Range<usize>)>,
    values: Vec<(String, Range<usize>)>,
}

impl<'a> KeyIndex<'a> {
    /// What the parser makes of a document, errors or not.
    pub(super) fn new(text: &'a str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        let mut index = Self {
            text,
            keys: Vec::new(),
            values: Vec::new(),
        };
        index.table("", table.get_ref());
        index
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key_segment(key.get_ref());
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}.{name}")
            };
            self.keys.push((path.clone(), key.span()));
            self.value(path, value);
        }
    }

    fn value(&mut self, path: String, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(&path, table),
            DeValue::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    let path = format!("{path}[{place}]");
                    self.keys.push((path.clone(), item.span()));
                    self.value(path, item);
                }
            }
            _ => {}
        }
        self.values.push((path, value.span()));
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The place of a span that the parser complains about: the key that it is, else the innermost value that
    /// holds it.
    pub(super) fn locate(&self, file: &str, span: Option<Range<usize>>) -> Location {
        let mut location = Location {
            file: Some(file.to_owned()),
            ..Location::default()
        };
        let Some(span) = span else {
            return location;
        };
        location.line = Some(self.line(span.start));
        let holds = |own: &Range<usize>| own.start <= span.start && span.end <= own.end;
        let key = self.keys.iter().find(|(_, own)| *own == span);
        let innermost = || {
            self.values
                .iter()
                .filter(|(_, own)| holds(own))
                .min_by_key(|(_, own)| own.len())
        };
        if let Some((path, _)) = key.or_else(innermost) {
            location.key.clone_from(path);
        }
        location
    }

    pub(super) fn provenance(&self, file: &str) -> Provenance {
        let lines = self
            .keys
            .iter()
            .map(|(path, span)| (path.clone(), self.line(span.start)))
            .collect();
        Provenance {
            file: Some(file.to_owned()),
            lines,
        }
    }
}
