//! An engine without enough memory is an error, regardless of the table that does not fit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::alloc::System;
use std::collections::BTreeSet;
use std::process::{Command, Output};

use cap::Cap;
use portcullis::config::ConfigErrorCause;
use portcullis::{Config, Engine};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that a separate process may take for an engine.
const BYTES: &str = "PORTCULLIS_TEST_BYTES_OF_AN_ENGINE";

/// A smaller allocation is not a table: if it fails, the standard library ends the process.
const TABLE: usize = 64 << 10;

/// One more step of memory for each process, small enough to end in every table.
const STEP: usize = 60 << 10;

const CONFIG: &str = "
    zones.blue = 1
    table.max_sessions = 16384
    engine.tunnel_references = true
    tombstones.max = 10000
    fragments.max_datagrams = 2000
    tcp.asymmetric = \"report\"
";

/// Outcome of the start of an engine.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Started,
    /// The part of the memory that the error names.
    Error(String),
    /// Ended by a failed allocation of this many bytes.
    Aborted(usize),
}

/// Starts an engine in a process with limited memory.
fn start_within(bytes: usize) -> End {
    let name = "a_table_for_which_there_is_no_memory_is_never_an_abort";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(BYTES, bytes.to_string())
        .output()
        .unwrap();
    let Output { status, stderr, .. } = output;
    let said = String::from_utf8(stderr).unwrap();
    let after = |start: &str| Some(said.split_once(start)?.1);
    if status.success() {
        End::Started
    } else if let Some(part) = after("no memory for: ") {
        End::Error(part.trim().to_owned())
    } else {
        let size =
            after("memory allocation of ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        End::Aborted(size.unwrap_or_else(|| panic!("{status}: {said}")))
    }
}

/// Starts an engine, and ends this process with the result.
fn start(bytes: usize) -> ! {
    let config = Config::from_toml(CONFIG, "test.toml").unwrap();
    MEMORY.set_limit(MEMORY.allocated() + bytes).unwrap();
    let engine = Engine::with_seed(&config, [1, 2, 3, 4]);
    MEMORY.set_limit(usize::MAX).unwrap();
    let Err(error) = engine else {
        std::process::exit(0);
    };
    match error.cause {
        ConfigErrorCause::NoMemory { part, .. } => eprintln!("no memory for: {part}"),
        other => panic!("{other}"),
    }
    std::process::exit(1);
}

#[test]
fn a_table_for_which_there_is_no_memory_is_never_an_abort() {
    if let Some(bytes) = std::env::var(BYTES)
        .ok()
        .and_then(|bytes| bytes.parse().ok())
    {
        start(bytes);
    }
    let reserved = Config::from_toml(CONFIG, "test.toml").unwrap();
    let reserved = reserved.compile().unwrap().memory().reserved() as usize;
    let mut parts = BTreeSet::new();
    let mut bytes = 1 << 20;
    loop {
        match start_within(bytes) {
            End::Started => break,
            End::Error(part) => drop(parts.insert(part)),
            End::Aborted(size) => {
                assert!(size < TABLE, "a table of {size} bytes, of {bytes} in all")
            }
        }
        bytes += STEP;
        assert!(bytes < 2 * reserved, "still not enough: {bytes}");
    }
    let expected = [
        "counted prefixes",
        "fragments",
        "hints",
        "known sources",
        "rates",
        "sessions",
        "suspects",
        "tombstones",
        "tunnel references",
    ];
    assert_eq!(
        parts.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}
