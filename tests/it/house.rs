use std::path::Path;

use self::floors::{Source, circles, faults, read};
use self::measures::{faults_below, faults_of};

#[path = "../support/floors.rs"]
mod floors;
#[path = "../support/measures.rs"]
mod measures;

/// The floors of the library, the lowest first.
const FLOORS: &[&str] = &[
    "atomic",
    "stripe",
    "reasons",
    "packet",
    "flow",
    "continuity::flow_name",
    "reserve",
    "session::time",
    "session::id",
    "session::end",
    "fragment::id",
    "verdict",
    "track",
    "policy::id",
    "limits",
    "policy",
    "lifetime",
    "session",
    "ftp",
    "reset",
    "question",
    "event",
    "outbox",
    "snapshot",
    "geneve",
    "config",
    "continuity",
    "fragment",
    "asymmetry",
    "stats",
    "explain",
    // The engine's files: tools, settings, values that a packet carries along, and its steps.
    "engine::rate",
    "engine::memo",
    "engine::budget",
    "engine::census",
    "engine::enforcement",
    "engine::screen",
    "engine::faults",
    "engine::answer",
    "engine::history_events",
    "engine::ended",
    "engine::control_shares",
    "engine::zone_hints",
    "engine::ftp_settings",
    "engine::challenge::sources",
    "engine::challenge::zones",
    "engine::settings",
    "engine::recent",
    "engine::nothing",
    "engine::question_shares",
    "engine::question_budget",
    "engine::question_ring",
    "engine::questions",
    "engine::query",
    "engine::path_evidence",
    "engine::effects",
    "engine::candidate",
    "engine::matched",
    "engine::log_gate",
    "engine::live",
    "engine::record",
    "engine::challenge",
    "engine::helpers",
    "engine::control_segments",
    "engine::pair",
    "engine::one_way",
    "engine::other_zones",
    "engine::resets",
    "engine::asking",
    "engine::control",
    "engine::judgment",
    "engine::plan",
    "engine::admission",
    "engine::short_way",
    "engine::path",
    "engine::hint_memory",
    "engine",
    "builder",
    "memory",
    "geneve::front",
    "gateway",
];

fn library() -> Vec<Source> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    let source = |(path, text): &(&str, &str)| Source {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    };
    files.iter().map(source).collect()
}

#[test]
fn no_module_names_a_higher_floor() {
    let faults = faults(&library(), FLOORS);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_modules_name_each_other_in_a_circle() {
    let circles = circles(&library());
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn an_arrow_up_is_found_wherever_it_stands() {
    let roof = ("roof.rs", "pub struct Tile;");
    let cellars = [
        "use crate::roof::Tile;",
        "use crate::{\n    flow,\n    roof::{self},\n};",
        "use super::roof::Tile;",
        "fn f(_: &crate::roof::Tile) {}",
        "use crate::Tile;",
        "/* use */ fn f() -> char { '\"' }\npub(crate) use crate::roof as tiles;",
    ];
    for cellar in cellars {
        let files = [
            ("lib.rs", "pub use roof::Tile;"),
            ("cellar.rs", cellar),
            roof,
        ];
        let found = faults(&sources(&files), &["cellar", "roof"]);
        assert_eq!(found.len(), 1, "{cellar}: {found:?}");
        assert!(found[0].starts_with("cellar.rs:"), "{found:?}");
        assert!(found[0].contains("`cellar` names `roof`"), "{found:?}");
    }
}

#[test]
fn the_line_of_an_arrow_up_is_named() {
    let files = [
        ("cellar.rs", "//! A cellar.\n\nuse crate::roof::Tile;\n"),
        ("roof.rs", ""),
    ];
    let found = faults(&sources(&files), &["cellar", "roof"]);
    assert_eq!(
        found,
        ["cellar.rs:3: `cellar` names `roof`, which is above it (`roof`)"]
    );
}

#[test]
fn arrows_down_and_names_in_comments_texts_and_tests_are_no_faults() {
    let cellar = "
        // use crate::roof::Tile;
        const TEXT: &str = \"crate::roof\";
        pub(in crate::roof) struct Beam;
        use std::roof::Tile;
        #[cfg(test)]
        mod tests {
            use crate::roof::Tile;
        }
    ";
    let roof = "use crate::cellar::Beam; pub struct Tile;";
    let files = [("cellar.rs", cellar), ("roof.rs", roof)];
    assert_eq!(
        faults(&sources(&files), &["cellar", "roof"]),
        Vec::<String>::new()
    );
}

#[test]
fn an_item_stands_on_the_floor_of_the_file_that_declares_it() {
    let files = [
        (
            "shared/mod.rs",
            "mod id;\npub use id::Id;\nuse crate::user::User;",
        ),
        ("shared/id.rs", "pub struct Id;"),
        ("user.rs", "use crate::shared::Id;\npub struct User;"),
    ];
    let floors = ["shared::id", "user", "shared"];
    assert_eq!(faults(&sources(&files), &floors), Vec::<String>::new());
    let swapped = ["shared::id", "shared", "user"];
    let found = faults(&sources(&files), &swapped);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("shared/mod.rs:3:"), "{found:?}");
}

#[test]
fn files_may_name_what_the_module_around_them_declares() {
    let files = [
        (
            "engine/mod.rs",
            "mod path;\nuse self::path::Step;\npub struct Engine(Step);",
        ),
        ("engine/path.rs", "use super::Engine;\npub struct Step;"),
    ];
    assert_eq!(circles(&sources(&files)), Vec::<String>::new());
    let floors = ["engine::path", "engine"];
    assert_eq!(faults(&sources(&files), &floors), Vec::<String>::new());
}

#[test]
fn a_circle_is_found_however_long_it_is() {
    let files = [
        ("a.rs", "use crate::b::B;"),
        ("b/mod.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
        ("d.rs", "use crate::a::A;"),
    ];
    let found = circles(&sources(&files));
    let expected = [
        "a.rs:1: `a` names `b` in a circle",
        "b/mod.rs:1: `b` names `c` in a circle",
        "c.rs:1: `c` names `a` in a circle",
    ];
    assert_eq!(found, expected);
}

#[test]
fn modules_and_floors_must_fit() {
    let files = [("lib.rs", ""), ("cellar.rs", ""), ("attic.rs", "")];
    let found = faults(&sources(&files), &["cellar", "roof"]);
    assert_eq!(
        found,
        ["no module has the floor `roof`", "`attic` has no floor"]
    );
}

/// Returns a function with a body of this many lines, its first and last line included.
fn function_of(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    ();\n".repeat(lines - 2))
}

#[test]
fn the_sources_keep_their_bounds() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "benches", "examples"] {
        let mut faults = faults_below(&package.join(folder));
        if folder != "src" {
            // Tests and examples are measured by their lines alone.
            faults.retain(|fault| fault.ends_with(" columns"));
        }
        assert!(faults.is_empty(), "{folder}:\n{}", faults.join("\n"));
    }
}

#[test]
fn each_measure_beyond_its_bound_is_found() {
    let long_line = format!("// {}\n", "x".repeat(98));
    let long_file = "const A: u8 = 0;\n".repeat(601);
    let seven = "impl A { fn many(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {} }";
    let cases = [
        (long_line.as_str(), "a.rs:1: 101 columns"),
        (&long_file, "a.rs: 601 lines without tests"),
        (&function_of(81), "a.rs:1: `long` has 81 lines"),
        (seven, "a.rs:1: `many` has 7 parameters"),
        (
            "fn f(a: u8, b: (u8, u8)) {}",
            "a.rs:1: `f` has a tuple as parameter",
        ),
        (
            "\ntrait T { fn f(b: &mut (u8, u8)); }",
            "a.rs:2: `f` has a tuple as parameter",
        ),
        (
            "mod m { fn f() { fn g((a, b): (u8, u8)) {} } }",
            "a.rs:1: `g` has a tuple as parameter",
        ),
        ("fn f(", "a.rs: cannot parse string into token stream"),
    ];
    for (text, expected) in cases {
        assert_eq!(faults_of("a.rs", text), [expected], "{text}");
    }
}

#[test]
fn measures_at_their_bounds_are_no_faults() {
    let file = "const A: u8 = 0;\n".repeat(600);
    let line = format!("// {}\n", "\u{e9}".repeat(97));
    let six = "impl A { fn six(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {} }";
    let none = "fn f(a: (), b: &mut (impl A + B), c: [(u8, u8); 2]) -> (u8, u8) {}";
    for text in [&file, &line, &function_of(80), six, none] {
        assert_eq!(faults_of("a.rs", text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn tests_are_measured_by_their_lines_alone() {
    let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function_of(700));
    assert_eq!(faults_of("a.rs", &test), Vec::<String>::new());
    assert_eq!(
        faults_of("a/tests/b.rs", &function_of(700)),
        Vec::<String>::new()
    );
    let long_line = format!("// {}\n", "x".repeat(98));
    assert_eq!(
        faults_of("a/tests.rs", &long_line),
        ["a/tests.rs:1: 101 columns"]
    );
}
