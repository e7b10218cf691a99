//! Reads the modules of a crate and the references between them, and finds references that point
//! up.
//!
//! A crate is a list of floors, the lowest first. A module belongs to the floor whose name is the
//! longest prefix of its path, and may name its own floor and those below. Items that a module
//! re-exports from another one count as items of the other module. A module may always name the
//! items that its enclosing modules declare: the files of `engine` extend the `Engine` of
//! `engine/mod.rs`. Tests are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A source file of a crate.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path relative to the folder of the sources, such as `engine/path.rs`.
    pub(crate) path: String,
    /// Text of the file.
    pub(crate) text: String,
}

/// Reads all source files below a folder, in order, without those of tests.
pub(crate) fn read(folder: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder of sources") {
            let path = entry.expect("an entry of the folder").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                if name != "tests" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let relative = path.strip_prefix(folder).expect("a path below the folder");
                sources.push(Source {
                    path: relative.to_string_lossy().into_owned(),
                    text: fs::read_to_string(&path).expect("a readable source"),
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// An arrow from a module to a module that it names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    /// Path of the naming module, such as `engine::path`.
    pub(crate) from: String,
    /// Path of the module that declares the named item.
    pub(crate) to: String,
    /// File of the naming module.
    pub(crate) file: String,
    /// Line of the name.
    pub(crate) line: usize,
}

/// Returns all arrows between modules, except for those to the modules that enclose the naming one.
pub(crate) fn arrows(sources: &[Source]) -> Vec<Arrow> {
    let files: Vec<File> = sources.iter().map(File::new).collect();
    let crate_map = CrateMap::new(&files);
    let mut arrows = Vec::new();
    for file in &files {
        for reference in &file.references {
            let Some(path) = crate_map.absolute(&file.module, &reference.path) else {
                continue;
            };
            let to = crate_map.home(&path, 0);
            if !is_within(&file.module, &to) {
                arrows.push(Arrow {
                    from: file.module.clone(),
                    to,
                    file: file.path.clone(),
                    line: reference.line,
                });
            }
        }
    }
    arrows.sort();
    arrows.dedup();
    arrows
}

/// Returns a line for each arrow that points to a higher floor, for each module without a floor,
/// and for each floor without a module.
pub(crate) fn faults(sources: &[Source], floors: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let modules: BTreeSet<String> = sources
        .iter()
        .map(|source| module_of(&source.path))
        .collect();
    for floor in floors {
        if !modules.contains(*floor) {
            faults.push(format!("no module has the floor `{floor}`"));
        }
    }
    let floor_of = |module: &str| {
        let around = floors
            .iter()
            .enumerate()
            .filter(|(_, floor)| is_within(module, floor));
        around.max_by_key(|(_, floor)| floor.len())
    };
    for module in modules.iter().filter(|module| !module.is_empty()) {
        if floor_of(module).is_none() {
            faults.push(format!("`{module}` has no floor"));
        }
    }
    for Arrow {
        from,
        to,
        file,
        line,
    } in arrows(sources)
    {
        if let (Some((own, _)), Some((other, floor))) = (floor_of(&from), floor_of(&to))
            && other > own
        {
            faults.push(format!(
                "{file}:{line}: `{from}` names `{to}`, which is above it (`{floor}`)"
            ));
        }
    }
    faults
}

/// Returns a line for each arrow that is part of a cycle of modules.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let arrows = arrows(sources);
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Arrow { from, to, .. } in &arrows {
        // A module names its own parts as a whole, and they do not name it.
        if !is_within(to, from) {
            named.entry(from).or_default().insert(to);
        }
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module) {
                next.extend(named.get(module).into_iter().flatten());
            }
        }
        false
    };
    let in_circles = arrows
        .iter()
        .filter(|arrow| !is_within(&arrow.to, &arrow.from) && reaches(&arrow.to, &arrow.from));
    let line =
        |Arrow {
             from,
             to,
             file,
             line,
         }: &Arrow| format!("{file}:{line}: `{from}` names `{to}` in a circle");
    in_circles.map(line).collect()
}

/// Returns whether a module is another one or inside it. The crate encloses every module.
fn is_within(module: &str, around: &str) -> bool {
    let rest = module.strip_prefix(around);
    around.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the path of the module in a file; the empty path for the root of the crate.
fn module_of(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => String::new(),
        path => path.replace('/', "::"),
    }
}

fn join(module: &str, name: &str) -> String {
    match module {
        "" => name.to_owned(),
        module => format!("{module}::{name}"),
    }
}

/// A path that a file names.
#[derive(Debug)]
struct Reference {
    path: Vec<String>,
    line: usize,
}

/// The paths of a file.
#[derive(Debug)]
struct File {
    path: String,
    module: String,
    references: Vec<Reference>,
    /// Names that the module exports, with their paths.
    exports: Vec<(String, Vec<String>)>,
}

impl File {
    fn new(source: &Source) -> Self {
        let mut code = without_tests(&without_text(&source.text));
        let mut file = Self {
            path: source.path.clone(),
            module: module_of(&source.path),
            references: Vec::new(),
            exports: Vec::new(),
        };
        while let Some(start) = find_word(&code, "use") {
            let end = code[start..]
                .find(';')
                .map_or(code.len(), |end| start + end);
            let line = line_at(&code, start);
            let mut leaves = Vec::new();
            flatten(&code[start + 3..end], &[], &mut leaves);
            let before = code[..start].trim_end();
            let is_export = before.ends_with("pub")
                || before.ends_with("pub(crate)")
                || before.ends_with("pub(super)");
            for (path, alias) in leaves {
                if is_export && let Some(name) = alias.or_else(|| path.last().cloned()) {
                    file.exports.push((name, path.clone()));
                }
                file.references.push(Reference { path, line });
            }
            blank(&mut code, start, end);
        }
        file.references.extend(paths_in(&code));
        file
    }
}

/// Modules of a crate, and their exports.
struct CrateMap<'a> {
    modules: BTreeSet<&'a str>,
    exports: BTreeMap<(&'a str, &'a str), &'a [String]>,
}

impl<'a> CrateMap<'a> {
    fn new(files: &'a [File]) -> Self {
        let exports = files.iter().flat_map(|file| {
            let of_file = |(name, path): &'a (String, Vec<String>)| {
                ((file.module.as_str(), name.as_str()), path.as_slice())
            };
            file.exports.iter().map(of_file)
        });
        Self {
            modules: files.iter().map(|file| file.module.as_str()).collect(),
            exports: exports.collect(),
        }
    }

    /// Returns a path from the root of the crate; `None` for a path of another crate.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut at: Vec<String> = match module {
            "" => Vec::new(),
            module => module.split("::").map(str::to_owned).collect(),
        };
        let first = path.first()?;
        let rest = match first.as_str() {
            "crate" => {
                at.clear();
                &path[1..]
            }
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                at.truncate(at.len().checked_sub(ups)?);
                &path[ups..]
            }
            name if self.modules.contains(join(module, name).as_str()) => path,
            _ => return None,
        };
        at.extend_from_slice(rest);
        Some(at)
    }

    /// Returns the module that declares an item.
    fn home(&self, path: &[String], depth: usize) -> String {
        let mut module = String::new();
        for (place, name) in path.iter().enumerate() {
            let inner = join(&module, name);
            if self.modules.contains(inner.as_str()) {
                module = inner;
                continue;
            }
            let export = self.exports.get(&(module.as_str(), name.as_str()));
            if let Some(mut target) = export.and_then(|target| self.absolute(&module, target))
                && depth < 8
            {
                target.extend_from_slice(&path[place + 1..]);
                return self.home(&target, depth + 1);
            }
            break;
        }
        module
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_at(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Overwrites part of a text with blanks and keeps its line breaks.
fn blank(text: &mut String, from: usize, to: usize) {
    let blanks: String = text[from..to]
        .bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect();
    text.replace_range(from..to, &blanks);
}

fn find_word(code: &str, word: &str) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut from = 0;
    while let Some(found) = code[from..].find(word) {
        let (start, end) = (from + found, from + found + word.len());
        let begins = start == 0 || !is_name(bytes[start - 1]);
        if begins && bytes.get(end).is_some_and(u8::is_ascii_whitespace) {
            return Some(start);
        }
        from = end;
    }
    None
}

/// Splits the tree of a `use` into its paths, each with the name that `as` gives it.
fn flatten(tree: &str, around: &[String], leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = around.to_vec();
        path.extend(segments(tree[..open].trim_end_matches("::")));
        let inner = tree[open + 1..].trim_end_matches(['}', ' ', '\n']);
        let (mut depth, mut start) = (0, 0);
        for (at, byte) in inner.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b',' if depth == 0 => {
                    flatten(&inner[start..at], &path, leaves);
                    start = at + 1;
                }
                _ => {}
            }
        }
        flatten(&inner[start..], &path, leaves);
    } else if !tree.is_empty() {
        let (tree, alias) = match tree.split_once(" as ") {
            Some((tree, alias)) => (tree, Some(alias.trim().to_owned())),
            None => (tree, None),
        };
        let mut path = around.to_vec();
        path.extend(segments(tree));
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        leaves.push((path, alias));
    }
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    path.split("::")
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// Returns the paths in expressions and types that begin with `crate`, `super` or `self`.
fn paths_in(code: &str) -> Vec<Reference> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
            let is_visibility = code[..at].ends_with("in ");
            if is_name(before) || before == b':' || is_visibility {
                continue;
            }
            let end = code[at..]
                .bytes()
                .position(|byte| !is_name(byte) && byte != b':');
            let path = &code[at..end.map_or(code.len(), |end| at + end)];
            found.push(Reference {
                path: segments(path).collect(),
                line: line_at(code, at),
            });
        }
    }
    found
}

/// Returns a source with blanks in place of comments, strings and characters.
fn without_text(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = text.to_owned();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(text) = rest.strip_prefix("r\"") {
            text.find('"').map_or(rest.len(), |end| end + 3)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |_| {
                rest[3..].find("\"#").map_or(rest.len(), |end| end + 5)
            })
        } else if rest.starts_with('"') {
            end_of_quote(bytes, at, b'"') - at
        } else if rest.starts_with("'\\")
            || bytes.get(at + 2) == Some(&b'\'') && rest.starts_with('\'')
        {
            end_of_quote(bytes, at, b'\'') - at
        } else {
            0
        };
        if end > 0 {
            blank(&mut code, at, at + end);
            at += end;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    code
}

fn end_of_quote(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Returns code with blanks in place of items that are compiled only for tests.
fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut code = code.to_owned();
    while let Some(start) = code.find(TEST) {
        let bytes = code.as_bytes();
        let (mut depth, mut end) = (0, start + TEST.len());
        while let Some(byte) = bytes.get(end) {
            end += 1;
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(byte, b'}' | b';') {
                break;
            }
        }
        blank(&mut code, start, end);
    }
    code
}
