//! The memory of an engine, and errors if there is too little.

use std::process::Command;

use allocation_counter::measure;
use portcullis::config::ConfigErrorCause;
use portcullis::{Config, Engine};

fn config(toml: &str) -> Config {
    Config::from_toml(toml, "test.toml").unwrap()
}

#[test]
fn the_announced_memory_is_what_an_engine_allocates() {
    for toml in [
        "",
        "[table]\nmax_sessions = 300000\nshards = 1\n",
        "[table]\nmax_sessions = 300000\nshards = 64\n[engine]\ntunnel_references = true\n",
        "[table]\nmax_sessions = 65536\n[tombstones]\nmax = 500000\n",
        "[table]\nmax_sessions = 65536\n[fragments]\nmax_datagrams = 100000\n",
        "[zones]\nblue = 1\n[table]\nmax_sessions = 1000000\n[tcp]\nasymmetric = \"report\"\n",
        "[table]\nmax_sessions = 65536\n[continuity]\nenabled = true\nmax_nothing = 1000000\n",
    ] {
        let config = config(toml);
        let said = config.compile().unwrap().memory().reserved();
        let mut engine = None;
        let taken = measure(|| engine = Some(Engine::with_seed(&config, [1, 2, 3, 4]).unwrap()));
        let taken = u64::try_from(taken.bytes_current).unwrap();
        // The counters and all other memory that does not depend on the sizes take less than 1 MiB.
        assert!(
            said <= taken + taken / 50,
            "{toml}: said {said}, taken {taken}"
        );
        assert!(
            taken <= said + said / 50 + (1 << 20),
            "{toml}: said {said}, taken {taken}"
        );
        drop(engine);
    }
}

#[test]
fn each_part_grows_with_its_key() {
    let part = |toml: &str, name: &str| {
        let memory = config(toml).compile().unwrap().memory();
        let found = memory.parts().iter().find(|part| part.name == name);
        found.unwrap().bytes
    };
    let cases = [
        (
            "sessions",
            "table.max_sessions = 65536",
            "table.max_sessions = 131072",
        ),
        (
            "tombstones",
            "tombstones.max = 1000",
            "tombstones.max = 2000",
        ),
        (
            "fragments",
            "fragments.max_datagrams = 1000",
            "fragments.max_datagrams = 4000",
        ),
        ("tunnel references", "", "engine.tunnel_references = true"),
        (
            "control sessions",
            "ftp.max_memory = 1048576",
            "ftp.max_memory = 2097152",
        ),
        ("questions", "", "continuity.enabled = true"),
        (
            "packets held for questions",
            "",
            "continuity.enabled = true",
        ),
        ("hints", "", "zones.blue = 1"),
        (
            "policy",
            "",
            "policy.rule = [{ name = \"any\", action = \"allow\" }]",
        ),
    ];
    for (name, less, more) in cases {
        assert!(part(less, name) < part(more, name), "{name}");
    }
}

/// Set in a separate process with a small address space.
const LITTLE: &str = "PORTCULLIS_TEST_WITH_LITTLE_MEMORY";

#[test]
fn a_table_for_which_there_is_no_memory_is_an_error_that_names_its_key() {
    if std::env::var_os(LITTLE).is_none() {
        // In KiB, sufficient for the test itself.
        let limited = "ulimit -v 2000000 && exec \"$0\" --exact \
                       memory::a_table_for_which_there_is_no_memory_is_an_error_that_names_its_key";
        let output = Command::new("sh")
            .args(["-c", limited])
            .arg(std::env::current_exe().unwrap())
            .env(LITTLE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains(" 1 passed;"),
            "{}: {said}",
            output.status
        );
        return;
    }
    let cases = [
        (
            "table.max_sessions = 30000000",
            "table.max_sessions",
            "sessions",
        ),
        ("tombstones.max = 16000000", "tombstones.max", "tombstones"),
        // Each fits alone, and all do not fit together.
        (
            "table.max_sessions = 8000000\ntombstones.max = 10000000",
            "tombstones.max",
            "tombstones",
        ),
    ];
    for (toml, key, name) in cases {
        let engine = Engine::with_seed(&config(toml), [1, 2, 3, 4]);
        // Avoids printing a whole engine on failure.
        let error = engine.map(|_| ()).unwrap_err();
        assert_eq!(error.location.key, key, "{error}");
        let ConfigErrorCause::NoMemory { part, bytes } = &error.cause else {
            panic!("{error}");
        };
        assert!(*part == name && *bytes > 1 << 29, "{error}");
    }
    assert!(Engine::with_seed(&config(""), [1, 2, 3, 4]).is_ok());
}
