//! The reference page of the configuration.
use super::{Key, Table, Value, Visit};

/// A section of the reference page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionReference {
    /// The path of the table, such as `policy.rule[]` or `limits.zones.NAME`.
    pub path: String,
    /// The meaning of the section.
    pub about: String,
    /// The keys of the section, in order.
    pub keys: Vec<KeyReference>,
}

/// A key of the reference page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyReference {
    /// The name in its table.
    pub name: String,
    /// Type of the value.
    pub kind: String,
    /// The unit; empty if there is none.
    pub unit: String,
    /// The default as TOML; empty if there is none.
    pub default: String,
    /// The reason for the default.
    pub why: String,
    /// The bounds in words; empty if there are none.
    pub bounds: String,
    /// Whether only a start can change the value.
    pub is_restart: bool,
    /// Whether the key must be written.
    pub is_required: bool,
    /// The meaning of the key.
    pub doc: String,
    /// The path of the section that contains the key.
    pub section: String,
}

/// Returns the sections of a table: its own, and those of nested tables.
#[must_use]
pub fn sections<T: Table>(path: &str) -> Vec<SectionReference> {
    let mut sections = Vec::new();
    table::<T>(path, "", &mut sections);
    sections.retain(|section| !section.keys.is_empty());
    sections
}

fn table<T: Table>(path: &str, about: &str, sections: &mut Vec<SectionReference>) {
    let about = match T::ABOUT {
        [] => about.to_owned(),
        lines => text(lines),
    };
    sections.push(SectionReference {
        path: path.to_owned(),
        about,
        keys: Vec::new(),
    });
    let table = T::default();
    table.visit(&table, &mut Describer { path, sections });
}

/// Adds a table that is nested in another one; `suffix` is appended to its path.
pub fn nested<T: Table>(row: KeyReference, suffix: &str, sections: &mut Vec<SectionReference>) {
    let path = format!("{}{suffix}", below(&row.section, &row.name));
    table::<T>(&path, &row.doc, sections);
}

/// Adds a table of values by name.
pub(super) fn named<V: Value>(row: KeyReference, sections: &mut Vec<SectionReference>) {
    let mut entry = row.clone();
    let path = below(&row.section, &row.name);
    entry.section = path.clone();
    entry.name = "NAME".to_owned();
    let mut inner = vec![SectionReference {
        path: path.clone(),
        about: row.doc.clone(),
        keys: Vec::new(),
    }];
    V::describe(entry, &mut inner);
    sections.append(&mut inner);
}

/// Adds a key to the section that it belongs to.
pub(in crate::config) fn push_row(row: KeyReference, sections: &mut [SectionReference]) {
    let own = sections
        .iter_mut()
        .rev()
        .find(|section| section.path == row.section);
    if let Some(section) = own {
        section.keys.push(row);
    }
}

fn below(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// Joins the lines of a doc comment, and replaces links by their text.
pub(in crate::config) fn text(lines: &[&str]) -> String {
    let joined = lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    let mut plain = String::new();
    let mut rest = joined.trim();
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((label, after)) = link.split_once(']') else {
            plain.push('[');
            rest = link;
            continue;
        };
        let is_link = after.starts_with('(') || label.starts_with('`');
        let is_name = before.ends_with('`') || before.ends_with('[');
        if !is_link || is_name {
            plain.push_str(&format!("[{label}]"));
            rest = after;
            continue;
        }
        plain.push_str(label);
        rest = match after.strip_prefix('(') {
            Some(target) => target.split_once(')').map_or("", |(_, rest)| rest),
            None => after,
        };
    }
    plain.push_str(rest);
    plain
}

/// Describes the keys of a table.
struct Describer<'a> {
    path: &'a str,
    sections: &'a mut Vec<SectionReference>,
}

impl Visit for Describer<'_> {
    fn key<T: Value>(&mut self, key: &Key<T>, value: &T, _: &T) {
        let row = KeyReference {
            name: key.name.to_owned(),
            kind: T::kind(),
            unit: key.unit.to_owned(),
            default: if key.is_required {
                String::new()
            } else {
                value.toml()
            },
            why: key.why.to_owned(),
            bounds: key.bounds_text(),
            is_restart: key.is_restart || key.is_kept_apart,
            is_required: key.is_required,
            doc: text(key.doc),
            section: self.path.to_owned(),
        };
        T::describe(row, self.sections);
    }
}
