//! The lines of keys in a configuration file.
use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Location;
use super::path::push_segment;

/// The source of a configuration: the file's name and the line of each key; empty for one built in
/// code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    file: Option<Box<str>>,
    keys: KeyTree,
}

impl Provenance {
    /// Returns the provenance of a document that was parsed from `text`.
    pub(super) fn new(file: &str, text: &str, table: &DeTable<'_>) -> Self {
        Self {
            file: Some(file.into()),
            keys: KeyTree::new(text, table),
        }
    }

    /// Returns whether the configuration was read from a file.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the line of a key, counted from 1, if the file has the key.
    pub fn line(&self, key: &str) -> Option<usize> {
        let found = self.keys.find(key);
        found.line.filter(|_| found.is_whole)
    }

    /// Returns the location of a key. For a key that the file does not have, the line is that of
    /// its nearest parent.
    pub(super) fn locate(&self, key: &str) -> Location {
        let mut found = self.keys.find(key);
        let mut key = key;
        // A list of one may be written without brackets.
        if let Some(list) = key.strip_suffix("[0]").filter(|_| !found.is_whole) {
            let whole = self.keys.find(list);
            if whole.is_whole {
                (found, key) = (whole, list);
            }
        }
        Location {
            file: self.file.clone(),
            line: found.line,
            key: key.to_owned(),
            ..Location::default()
        }
    }

    /// Returns a key with its line, for an error that refers to another location: `policy.rule[0]
    /// (line 7)`.
    pub(super) fn mention(&self, key: &str) -> String {
        match self.line(key) {
            Some(line) => format!("{key} (line {line})"),
            None => key.to_owned(),
        }
    }
}

/// Returns the bytes of a value, or of the longest prefix of its path that the table has.
pub(super) fn span_of(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
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
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(offset, _)| offset).collect())
    }

    /// Returns the column of an offset, counted from 1 in characters. A byte order mark at the
    /// beginning does not count.
    pub(super) fn column(&self, text: &str, offset: usize) -> usize {
        let before = self.line(offset).checked_sub(2);
        let start = before
            .and_then(|line| self.0.get(line))
            .map_or(0, |end| end + 1);
        let before = text.get(start..offset).unwrap_or_default();
        let before = match start {
            0 => before.strip_prefix('\u{feff}').unwrap_or(before),
            _ => before,
        };
        1 + before.chars().count()
    }

    /// Returns the line of an offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

/// The line of each key of a document. Keys of one table, and items of one list, are adjacent. A
/// look-up takes one search by name or index for each part of the path, and a key takes one
/// [`Node`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct KeyTree {
    /// Each name once; `Node::name` is an index into this list.
    names: Vec<Box<str>>,
    nodes: Vec<Node>,
    root: Children,
}

/// A key of a table or an item of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// Index of the key's name; unused for an item.
    name: u32,
    line: u32,
    children: Children,
}

/// Contents of a key or an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Children {
    /// A single value.
    #[default]
    None,
    /// A table: its keys, ordered by name.
    Keys { first: u32, count: u32 },
    /// A list.
    Items { first: u32, count: u32 },
    /// A list of single values that are all on one line, as most lists are: they need no nodes.
    OneLine { line: u32, count: u32 },
}

/// Part of a path that exists.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// The line of the longest part of the path that the file has.
    line: Option<usize>,
    /// Whether that part is the whole path.
    is_whole: bool,
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

    fn find(&self, path: &str) -> Found {
        let (mut at, mut rest) = (self.root, path);
        let mut line = None;
        while !rest.is_empty() {
            let Some(step) = self.step(at, rest) else {
                return Found {
                    line,
                    is_whole: false,
                };
            };
            line = Some(step.line as usize);
            (at, rest) = (step.children, step.rest);
        }
        Found {
            line,
            is_whole: line.is_some(),
        }
    }

    /// Follows the first part of a path.
    fn step<'p>(&self, at: Children, path: &'p str) -> Option<Step<'p>> {
        let of_node = |node: &Node, rest| Step {
            line: node.line,
            children: node.children,
            rest,
        };
        match at {
            Children::None => None,
            Children::Keys { first, count } => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let keys = self.nodes(first, count);
                let named = |name: &str| {
                    let place = keys
                        .binary_search_by(|node| self.name(node).cmp(name))
                        .ok()?;
                    keys.get(place)
                };
                if let Some(quoted) = path.strip_prefix('"') {
                    // The name itself may contain quotes and dots.
                    return quoted.match_indices('"').find_map(|(end, _)| {
                        let (name, rest) = (quoted.get(..end)?, quoted.get(end + 1..)?);
                        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                        Some(of_node(named(name).filter(|_| ends)?, rest))
                    });
                }
                let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
                Some(of_node(named(name)?, rest))
            }
            Children::Items { first, count } => {
                let (place, rest) = item(path)?;
                let node = self.nodes(first, count).get(place)?;
                Some(of_node(node, rest))
            }
            Children::OneLine { line, count } => {
                let (place, rest) = item(path)?;
                let children = Children::None;
                (place < count as usize).then_some(Step {
                    line,
                    children,
                    rest,
                })
            }
        }
    }

    fn nodes(&self, first: u32, count: u32) -> &[Node] {
        let first = first as usize;
        self.nodes
            .get(first..first + count as usize)
            .unwrap_or_default()
    }

    fn name(&self, node: &Node) -> &str {
        self.names.get(node.name as usize).map_or("", |name| name)
    }
}

/// A part of a path that the file has, and the rest of the path.
struct Step<'p> {
    line: u32,
    children: Children,
    rest: &'p str,
}

/// Splits `[7].name` into 7 and `.name`.
fn item(path: &str) -> Option<(usize, &str)> {
    let (place, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((place.parse().ok()?, rest))
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
pub(super) fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let mut search = SpanSearch {
        span,
        path: Vec::new(),
        key: None,
        innermost: None,
    };
    search.table(table);
    let innermost = search.innermost.map(|(_, path)| path);
    search.key.or(innermost).map(|path| path_of(&path))
}

/// A part of a path.
#[derive(Clone, Copy)]
enum Segment<'t> {
    Key(&'t str),
    Item(usize),
}

/// Returns the text of a path.
fn path_of(path: &[Segment<'_>]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(name) => push_segment(&mut text, name),
            Segment::Item(place) => text.push_str(&format!("[{place}]")),
        }
    }
    text
}

/// Searches a document for a span. The search visits every value, so it builds no text.
struct SpanSearch<'s, 't> {
    span: &'s Range<usize>,
    /// The path of the current value.
    path: Vec<Segment<'t>>,
    /// The first key or item that has the span.
    key: Option<Vec<Segment<'t>>>,
    /// The length and the path of the shortest value that contains the span.
    innermost: Option<(usize, Vec<Segment<'t>>)>,
}

impl<'t> SpanSearch<'_, 't> {
    fn table(&mut self, table: &'t DeTable<'_>) {
        for (key, value) in table {
            self.path.push(Segment::Key(key.get_ref()));
            self.at(key.span(), value);
            self.path.pop();
        }
    }

    fn at(&mut self, key: Range<usize>, value: &'t Spanned<DeValue<'_>>) {
        if self.key.is_none() && key == *self.span {
            self.key = Some(self.path.clone());
        }
        match value.get_ref() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.path.push(Segment::Item(place));
                    self.at(item.span(), item);
                    self.path.pop();
                }
            }
            _ => {}
        }
        let own = value.span();
        let holds = own.start <= self.span.start && self.span.end <= own.end;
        let best = self.innermost.as_ref().map(|(length, _)| *length);
        if holds && best.is_none_or(|best| own.len() < best) {
            self.innermost = Some((own.len(), self.path.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "inside = [\"a\", \"b\"]\nwide = [\n  1,\n  2,\n]\nlone = 1\n\
        [zones]\n\"a.b\" = 1\n\"c\\\"d\" = 2\n[[policy.rule]]\nname = \"x\"\n\
        [[policy.rule]]\nname = \"y\"\nlimits = { a = 1 }\n";

    fn provenance() -> Provenance {
        Provenance::new("f", TEXT, DeTable::parse(TEXT).unwrap().get_ref())
    }

    #[test]
    fn a_path_is_found_with_its_line_and_others_are_not() {
        let provenance = provenance();
        let rows = [
            ("inside", Some(1)),
            ("inside[1]", Some(1)),
            ("inside[2]", None),
            ("wide[0]", Some(3)),
            ("wide[1]", Some(4)),
            ("wide[1][0]", None),
            ("lone", Some(6)),
            ("lone.more", None),
            ("zones.\"a.b\"", Some(8)),
            ("zones.\"c\"d\"", Some(9)),
            ("zones.a", None),
            ("policy.rule[0]", Some(10)),
            ("policy.rule[1].name", Some(13)),
            ("policy.rule[1].limits.a", Some(14)),
            ("policy.rule[2]", None),
            ("policy.rule[x]", None),
            ("policy.rule[0", None),
            ("", None),
        ];
        for (path, line) in rows {
            assert_eq!(provenance.line(path), line, "{path}");
        }
    }

    #[test]
    fn a_missing_key_has_the_line_of_its_parent() {
        let provenance = provenance();
        let rows = [
            ("lone[0]", "lone", Some(6)),
            ("inside[0]", "inside[0]", Some(1)),
            (
                "policy.rule[1].source[0]",
                "policy.rule[1].source[0]",
                Some(12),
            ),
            ("nonsense.key", "nonsense.key", None),
        ];
        for (path, key, line) in rows {
            let location = provenance.locate(path);
            assert_eq!(
                (location.key.as_str(), location.line),
                (key, line),
                "{path}"
            );
        }
    }

    #[test]
    fn a_rule_takes_a_node_for_each_key_and_none_for_a_list_on_one_line() {
        let nodes = |rules: usize| {
            let rule = "[[policy.rule]]\nname = \"x\"\nsource = [\"10.0.0.0/8\", \"10.0.0.1\"]\n";
            let text = rule.repeat(rules);
            Provenance::new("f", &text, DeTable::parse(&text).unwrap().get_ref())
                .keys
                .nodes
                .len()
        };
        // `policy` and `policy.rule`, then the rule, its name and its sources.
        assert_eq!((nodes(1), nodes(1_000)), (2 + 3, 2 + 3_000));
    }
}
