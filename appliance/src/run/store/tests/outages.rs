//! Stores that are killed, frozen, full, slow, or no stores at all.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use super::server::Server;
use super::*;

#[test]
fn a_killed_store_costs_records_and_no_memory_and_is_found_again() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(1, 0, "before");
    one.await_count(Counted::Written, 1);
    assert!(!one.state.take_incomplete());
    server.kill();
    assert_eq!(one.ask(1), Found::NoStore);
    for session in 0..10_000 {
        one.put(session, 0, "lost");
    }
    assert!(one.state.waiting() <= 65, "{}", one.state.waiting());
    let until = Instant::now() + PATIENCE;
    while one.state.waiting() > 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let lost = one.count(Counted::QueueFull) + one.count(Counted::Unreachable);
    assert_eq!(lost, 10_000);
    assert_eq!(one.state.lost(), 10_000);
    assert!(!one.state.take_incomplete(), "it is not there");
    server.run();
    assert_eq!(one.await_answer(1), Found::Nothing, "it is empty");
    // The next records may still find the pause before another attempt.
    let until = Instant::now() + PATIENCE;
    while !one.state.take_incomplete() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    one.put(2, 0, "after");
    one.await_count(Counted::Written, 2);
    assert_eq!(one.ask(2), record(1, 0, "after"));
}

#[test]
fn a_frozen_store_is_given_up_and_found_again() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(1, 0, "before");
    one.await_count(Counted::Written, 1);
    server.signal(Signal::SIGSTOP);
    assert_eq!(one.ask(1), Found::NoStore);
    one.put(2, 0, "lost");
    one.await_count(Counted::Unreachable, 1);
    server.signal(Signal::SIGCONT);
    assert_eq!(one.await_answer(1), record(1, 0, "before"));
}

#[test]
fn a_full_store_is_counted_and_is_no_broken_connection() {
    let options = ["--maxmemory", "1", "--maxmemory-policy", "noeviction"];
    let Some(server) = Server::start(&options) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(1, 0, "record");
    one.await_count(Counted::StoreFull, 1);
    assert_eq!(one.state.lost(), 1);
    assert_eq!(one.await_answer(1), Found::Nothing);
    assert!(one.state.take_incomplete());
    let mut more = redis::cmd("CONFIG");
    more.arg("SET").arg("maxmemory").arg(0);
    server.command(&more);
    one.put(1, 0, "record");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.count(Counted::Failed), 0);
}

/// Answers each client with these bytes after each of its messages. A script is loaded as a store
/// does, so that what follows is reached.
fn impostor(answer: &'static [u8], delay: Duration) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let url = format!("unix://{}", path.display());
    // It ends with the tests.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    std::thread::sleep(delay);
                    let loaded = hash_of_script(&buffer[..len]);
                    if stream
                        .write_all(loaded.as_deref().unwrap_or(answer))
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    (directory, url)
}

/// Returns the answer to a command that loads a script.
fn hash_of_script(command: &[u8]) -> Option<Vec<u8>> {
    let (_, script) = std::str::from_utf8(command).ok()?.split_once("LOAD\r\n$")?;
    let (_, script) = script.split_once("\r\n")?;
    let hash = redis::Script::new(script.strip_suffix("\r\n")?)
        .get_hash()
        .to_owned();
    Some(format!("${}\r\n{hash}\r\n", hash.len()).into_bytes())
}

#[test]
fn garbage_and_slow_answers_break_the_connection_and_nothing_else() {
    for (answer, delay) in [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
            Duration::ZERO,
        ),
        (b"\xff\xfe\x00".as_slice(), Duration::ZERO),
        (b"*1000000000\r\n".as_slice(), Duration::ZERO),
        (b"-NOPERM no\r\n".as_slice(), Duration::ZERO),
        (b"+PONG\r\n".as_slice(), Duration::from_secs(3)),
    ] {
        let (_directory, url) = impostor(answer, delay);
        let one = Threads::start(&url, 1);
        let begun = Instant::now();
        for session in 0..3 {
            assert_eq!(one.ask(session), Found::NoStore);
        }
        // Three answers of 100 ms each at most, and the pauses do not count.
        assert!(begun.elapsed() < PATIENCE);
        one.put(1, 0, "lost");
        one.await_count(Counted::Unreachable, 1);
        assert!(one.count(Counted::Failed) > 0);
        assert_eq!(one.count(Counted::Written), 0);
    }
}

#[test]
fn answers_of_the_wrong_kind_are_no_records() {
    let (_directory, url) = impostor(b"+PONG\r\n", Duration::ZERO);
    let one = Threads::start(&url, 1);
    assert_eq!(one.await_answer(1), Found::Nothing);
    assert_eq!(one.count(Counted::Foreign), 1);
}
