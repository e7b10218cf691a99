//! Measures the lengths and parameters of sources, and finds those beyond the bounds of the house.
//!
//! The sources are parsed, so that neither layout nor macros mislead; the bodies of macros are not
//! read. Items for tests (`#[cfg(test)]`, `#[test]`) count for the length of lines alone.

use std::fs;
use std::path::Path;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// Longest file in lines, without its tests.
const MAX_FILE: usize = 600;
/// Longest function in lines, from its `fn` to its last brace.
const MAX_FUNCTION: usize = 80;
/// Most parameters of a function, without `self`.
const MAX_PARAMETERS: usize = 6;
/// Longest line in characters.
const MAX_COLUMNS: usize = 100;

/// Returns a line for each fault in the Rust files below a folder.
pub(crate) fn faults_below(folder: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder of sources") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(folder).expect("a path below the folder");
                let text = fs::read_to_string(&path).expect("a readable source");
                faults.extend(faults_of(&relative.to_string_lossy(), &text));
                files += 1;
            }
        }
    }
    assert!(files > 0, "{} has no sources", folder.display());
    faults.sort();
    faults
}

/// Returns a line for each fault of a source. A file of tests is measured by its lines alone.
pub(crate) fn faults_of(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, columns) in (1..).zip(text.lines().map(|line| line.chars().count())) {
        if columns > MAX_COLUMNS {
            faults.push(format!("{path}:{line}: {columns} columns"));
        }
    }
    let is_test = |part: &str| part == "tests" || part == "tests.rs";
    if path.split('/').any(is_test) {
        return faults;
    }
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => {
            faults.push(format!("{path}: {error}"));
            return faults;
        }
    };
    let mut measure = Measure {
        path,
        test_lines: 0,
        faults,
    };
    measure.visit_file(&file);
    let lines = text.lines().count() - measure.test_lines;
    if lines > MAX_FILE {
        measure
            .faults
            .push(format!("{path}: {lines} lines without tests"));
    }
    measure.faults
}

struct Measure<'a> {
    path: &'a str,
    /// Lines of items for tests.
    test_lines: usize,
    faults: Vec<String>,
}

impl Measure<'_> {
    fn function(&mut self, signature: &syn::Signature, end: Option<proc_macro2::Span>) {
        let (path, name) = (self.path, &signature.ident);
        let first = signature.fn_token.span.start().line;
        let mut fault = |what: String| {
            self.faults
                .push(format!("{path}:{first}: `{name}` has {what}"));
        };
        let lines = end.map_or(0, |end| end.end().line + 1 - first);
        if lines > MAX_FUNCTION {
            fault(format!("{lines} lines"));
        }
        let parameters = signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Receiver(_) => None,
            syn::FnArg::Typed(parameter) => Some(&*parameter.ty),
        });
        let count = parameters.clone().count();
        if count > MAX_PARAMETERS {
            fault(format!("{count} parameters"));
        }
        if parameters.clone().any(is_tuple) {
            fault("a tuple as parameter".to_owned());
        }
    }
}

/// Returns whether a type is a tuple, or a reference to one.
fn is_tuple(ty: &syn::Type) -> bool {
    match ty {
        syn::Type::Tuple(tuple) => !tuple.elems.is_empty(),
        syn::Type::Reference(reference) => is_tuple(&reference.elem),
        syn::Type::Paren(paren) => is_tuple(&paren.elem),
        _ => false,
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg_test = attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"));
        is_cfg_test || attribute.path().is_ident("test")
    })
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Measure<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_for_tests(attributes_of(item)) {
            let span = item.span();
            self.test_lines += span.end().line + 1 - span.start().line;
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, Some(item.block.span()));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&item.sig, Some(item.block.span()));
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let body = item.default.as_ref();
        self.function(&item.sig, body.map(|block| block.span()));
        visit::visit_trait_item_fn(self, item);
    }
}
