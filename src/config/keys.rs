//! The lines of keys in a configuration file.
use super::error::Location;

#[cfg(feature = "toml")]
mod parsed;

#[cfg(feature = "toml")]
pub(super) use self::parsed::{Lines, key_at, span_of};

/// The source of a configuration: the file's name and the line of each key; empty for one built in
/// code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    file: Option<Box<str>>,
    keys: KeyTree,
}

impl Provenance {
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

#[cfg(test)]
#[cfg(feature = "toml")]
mod tests {
    use toml::de::DeTable;

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
