//! The keys of a parsed file: their lines and their bytes.
use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Children, KeyTree, Node, Provenance, item};
use crate::config::path::key_segment;

impl Provenance {
    /// Returns the provenance of a document that was parsed from `text`.
    pub(in crate::config) fn new(file: &str, text: &str, table: &DeTable<'_>) -> Self {
        Self {
            file: Some(file.into()),
            keys: KeyTree::new(text, table),
        }
    }
}

impl KeyTree {
    fn new(text: &str, table: &DeTable<'_>) -> Self {
        let mut builder = TreeBuilder {
            lines: Lines::new(text),
            places: HashMap::new(),
            tree: Self::default(),
        };
        builder.tree.root = builder.keys(table);
        builder.tree
    }
}

/// Returns the bytes of a value, or of the longest prefix of its path that the table has.
pub(in crate::config) fn span_of(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (mut at, mut rest) = (Some(At::Table(table)), path);
    let mut span = None;
    while let (Some(place), false) = (at, rest.is_empty()) {
        let Some((value, key, after)) = place.step(rest) else {
            break;
        };
        (at, rest) = (At::of(value), after);
        // The value of a table with a header of its own has no span; its key has one.
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        span = Some(if is_table { key } else { value.span() });
    }
    span
}

/// A table or a list.
#[derive(Clone, Copy)]
enum At<'a, 'd> {
    Table(&'a DeTable<'d>),
    List(&'a [Spanned<DeValue<'d>>]),
}

impl<'a, 'd> At<'a, 'd> {
    fn of(value: &'a Spanned<DeValue<'d>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::Table(table)),
            DeValue::Array(items) => Some(Self::List(items)),
            _ => None,
        }
    }

    /// Follows the first part of a path. Returns the value, the bytes of its key, and the rest of
    /// the path.
    fn step<'p>(self, path: &'p str) -> Option<(&'a Spanned<DeValue<'d>>, Range<usize>, &'p str)> {
        match self {
            Self::Table(table) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let (name, rest) = match path.strip_prefix('"') {
                    Some(quoted) => quoted.match_indices('"').find_map(|(end, _)| {
                        let (name, rest) = (quoted.get(..end)?, quoted.get(end + 1..)?);
                        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((name, rest))
                    })?,
                    None => path.split_at(path.find(['.', '[']).unwrap_or(path.len())),
                };
                let (key, value) = table.get_key_value(name)?;
                Some((value, key.span(), rest))
            }
            Self::List(items) => {
                let (place, rest) = item(path)?;
                let value = items.get(place)?;
                Some((value, value.span(), rest))
            }
        }
    }
}

/// Offsets of the line ends of a text.
#[derive(Debug)]
pub(in crate::config) struct Lines(Vec<usize>);

impl Lines {
    pub(in crate::config) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(offset, _)| offset).collect())
    }

    /// Returns the column of an offset, counted from 1 in characters.
    pub(in crate::config) fn column(&self, text: &str, offset: usize) -> usize {
        let before = self.line(offset).checked_sub(2);
        let start = before
            .and_then(|line| self.0.get(line))
            .map_or(0, |end| end + 1);
        1 + text
            .get(start..offset)
            .map_or(0, |text| text.chars().count())
    }

    /// Returns the line of an offset, counted from 1.
    pub(in crate::config) fn line(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

/// Builds a [`KeyTree`].
struct TreeBuilder {
    lines: Lines,
    /// Indices of names in the tree.
    places: HashMap<String, u32>,
    tree: KeyTree,
}

impl TreeBuilder {
    fn keys(&mut self, table: &DeTable<'_>) -> Children {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_unstable_by(|(one, _), (other, _)| one.get_ref().cmp(other.get_ref()));
        let first = self.tree.nodes.len();
        for (key, _) in &entries {
            let (name, line) = (self.place(key.get_ref()), self.line(key.span()));
            self.tree.nodes.push(Node {
                name,
                line,
                children: Children::None,
            });
        }
        self.fill(first, entries.iter().map(|(_, value)| *value));
        Children::Keys {
            first: first as u32,
            count: entries.len() as u32,
        }
    }

    fn items(&mut self, items: &[Spanned<DeValue<'_>>]) -> Children {
        let line = items.first().map_or(0, |item| self.line(item.span()));
        let is_single = |item: &Spanned<DeValue<'_>>| {
            !matches!(item.get_ref(), DeValue::Table(_) | DeValue::Array(_))
                && self.line(item.span()) == line
        };
        let count = items.len() as u32;
        if items.iter().all(is_single) {
            return Children::OneLine { line, count };
        }
        let first = self.tree.nodes.len();
        for item in items {
            let line = self.line(item.span());
            self.tree.nodes.push(Node {
                line,
                ..Node::default()
            });
        }
        self.fill(first, items.iter());
        Children::Items {
            first: first as u32,
            count,
        }
    }

    /// Adds the contents of the nodes from `first` on.
    fn fill<'a, 'v: 'a>(
        &mut self,
        first: usize,
        values: impl Iterator<Item = &'a Spanned<DeValue<'v>>>,
    ) {
        for (place, value) in (first..).zip(values) {
            let children = match value.get_ref() {
                DeValue::Table(table) => self.keys(table),
                DeValue::Array(items) => self.items(items),
                _ => continue,
            };
            if let Some(node) = self.tree.nodes.get_mut(place) {
                node.children = children;
            }
        }
    }

    fn place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.tree.names.len() as u32;
        self.tree.names.push(name.into());
        self.places.insert(name.to_owned(), place);
        place
    }

    fn line(&self, span: Range<usize>) -> u32 {
        u32::try_from(self.lines.line(span.start)).unwrap_or(u32::MAX)
    }
}

/// Returns the path of the key that has the span, else of the innermost value that contains the
/// span.
pub(in crate::config) fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let mut search = SpanSearch {
        span: span.clone(),
        path: String::new(),
        key: None,
        innermost: None,
    };
    search.table(table);
    search.key.or(search.innermost.map(|(_, path)| path))
}

/// Searches a document for a span.
struct SpanSearch {
    span: Range<usize>,
    /// The path of the current value.
    path: String,
    /// The first key or item that has the span.
    key: Option<String>,
    /// The length and the path of the shortest value that contains the span.
    innermost: Option<(usize, String)>,
}

impl SpanSearch {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let above = self.path.len();
            if above > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key_segment(key.get_ref()));
            self.at(key.span(), value);
            self.path.truncate(above);
        }
    }

    fn at(&mut self, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        if self.key.is_none() && key == self.span {
            self.key = Some(self.path.clone());
        }
        match value.get_ref() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    let above = self.path.len();
                    self.path.push_str(&format!("[{place}]"));
                    self.at(item.span(), item);
                    self.path.truncate(above);
                }
            }
            _ => {}
        }
        let own = value.span();
        let holds = own.start <= self.span.start && self.span.end <= own.end;
        if holds
            && self
                .innermost
                .as_ref()
                .is_none_or(|(len, _)| own.len() < *len)
        {
            self.innermost = Some((own.len(), self.path.clone()));
        }
    }
}
