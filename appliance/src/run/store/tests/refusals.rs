//! Commands that a store refuses, threads that fail, and records that a store loses.

use super::server::Server;
use super::*;

/// Runs a command of the server, given as words.
fn run(server: &Server, words: &[&str]) -> redis::Value {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    server.command(&command)
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_thread_that_fails_begins_again_and_loses_nothing_but_its_batch() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let two = Threads::start(&server.url(), 2);
    one.put(7, 0, "before");
    one.await_count(Counted::Written, 1);
    one.questions
        .send(Ask {
            tag: FAILS,
            kind: Kind::Session,
            key: one.key(FAILS),
            take: false,
        })
        .unwrap();
    one.await_count(Counted::ThreadFailed, 1);
    assert_eq!(one.await_answer(7), record(1, 0, "before"));
    two.put(FAILS, 1, "of two");
    two.await_count(Counted::Written, 1);
    let connected = one.count(Counted::Connected);
    one.put(FAILS, 0, "superseded: its thread fails");
    one.await_count(Counted::ThreadFailed, 2);
    assert_eq!(one.state.waiting(), 0, "the batch is over");
    // The connection is made anew.
    wait_for("the thread", || one.count(Counted::Connected) > connected);
    wait_for("each record is due again", || one.state.take_incomplete());
    one.put(8, 0, "after");
    one.await_count(Counted::Written, 2);
    let shown = one.state.troubles.current(Instant::now());
    assert!(
        shown.iter().any(|line| line.starts_with("store-write: ")),
        "{shown:?}"
    );
}

#[test]
fn a_command_without_permission_is_counted_and_breaks_nothing() {
    let user = [
        "--user",
        "firewall",
        "on",
        ">right",
        "~portcullis:*",
        "-@all",
        "+ping",
        "+script|load",
        "+getrange",
        "+set",
        "+evalsha",
    ];
    let Some(server) = Server::start(&user) else {
        return;
    };
    let access = Access {
        user: Some("firewall".to_owned()),
        password: Some("right".to_owned()),
        ..Access::default()
    };
    let one = Threads::with(&server.url(), 1, access, 64);
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.await_answer(7), record(1, 0, "record"));
    // `DEL`, which the user may not run.
    let key = one.key(9);
    one.changes.push(Change::Announce {
        key: key.clone(),
        value: one.envelope.seal(Kind::Session, &key, 0, b"data"),
        ttl: Duration::from_secs(60),
        since: Instant::now(),
    });
    one.changes.push(Change::Withdraw { key });
    one.delete(7, 0);
    one.put(8, 0, "record");
    one.await_count(Counted::Written, 3);
    assert_eq!(one.count(Counted::DeletionsLost), 1);
    assert!(one.count(Counted::RefusedPermission) >= 2);
    assert_eq!(one.count(Counted::Failed), 0);
    let shown = one.state.troubles.current(Instant::now());
    assert!(
        shown.iter().any(|line| line.starts_with("writes: ")),
        "{shown:?}"
    );
}

#[test]
fn records_that_a_store_refuses_since_it_cannot_save_are_lost_and_deletions_wait() {
    // No file can be made in this directory, so the save fails.
    let options = ["--dir", "/proc", "--save", "3600 1"];
    let Some(server) = Server::start(&options) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    run(&server, &["BGSAVE"]);
    let has_failed = || {
        let info = run(&server, &["INFO", "persistence"]);
        let info: String = redis::from_redis_value(info).unwrap();
        info.contains("rdb_last_bgsave_status:err")
    };
    wait_for("the failed save", has_failed);
    for session in 0..3 {
        one.put(session, 0, "record");
    }
    // Neither the deletion nor a look for sessions that have moved is a record of a session.
    one.delete(7, 0);
    wait_for("an empty queue", || one.state.waiting() == 0);
    wait_for("the outage", || !one.state.state(LinkName::Writes).is_up());
    assert_eq!(one.state.lost(), 3);
    assert!(one.count(Counted::RefusedWrite) >= 1);
    assert_eq!(one.count(Counted::Written), 1);
    // The store refuses `PING` to whoever connects now, but takes reads.
    let two = Threads::start(&server.url(), 2);
    assert_eq!(two.await_answer(7), record(1, 0, "record"));
    assert!(!two.state.state(LinkName::Writes).is_up());
    run(
        &server,
        &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"],
    );
    one.await_count(Counted::Deleted, 1);
    assert_eq!(one.count(Counted::DeletionsLost), 0);
    assert!(one.state.take_incomplete(), "the records are due again");
}

#[test]
fn a_list_of_another_type_costs_its_own_change_alone() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let key = one.envelope.moved_key(Owner([9; 16]));
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("text");
    server.command(&set);
    let value = one.envelope.seal(Kind::Moved, &key, 2, b"record");
    one.changes.push(Change::Notify { key, value });
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.count(Counted::Foreign), 1);
    assert_eq!(one.count(Counted::Notified), 0);
    assert_eq!(one.count(Counted::Failed), 0);
}

#[test]
fn a_replica_is_no_store_until_it_is_a_primary() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(7, 0, "before");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.await_answer(7), record(1, 0, "before"));
    let connected = one.count(Counted::Connected);
    // Its primary does not exist. The data stay.
    run(&server, &["REPLICAOF", "127.0.0.1", "1"]);
    wait_for("the outage", || !one.state.state(LinkName::Writes).is_up());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(one.count(Counted::Connected), connected, "it does not flap");
    assert!(!one.state.state(LinkName::Writes).is_up());
    run(&server, &["REPLICAOF", "NO", "ONE"]);
    wait_for("the end of the outage", || one.state.take_incomplete());
    wait_for("an answer", || one.ask(7) == record(1, 0, "before"));
}

#[test]
fn deletions_wait_for_the_end_of_an_outage() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    for session in 0..40 {
        one.put(session, 0, "record");
    }
    one.await_count(Counted::Written, 40);
    run(&server, &["REPLICAOF", "127.0.0.1", "1"]);
    for session in 0..40 {
        one.delete(session, 0);
    }
    wait_for("an empty queue", || one.state.waiting() == 0);
    assert_eq!(one.count(Counted::Deleted), 0);
    run(&server, &["REPLICAOF", "NO", "ONE"]);
    one.await_count(Counted::Deleted, 40);
    assert_eq!(one.count(Counted::DeletionsLost), 0);
    assert_eq!(one.await_answer(7), Found::Nothing);
}

#[test]
fn a_store_that_is_emptied_is_noticed_without_an_outage() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    assert!(!one.state.take_incomplete());
    run(&server, &["FLUSHALL"]);
    one.await_count(Counted::RecordsMissing, 1);
    assert!(one.state.take_incomplete());
    assert_eq!(one.count(Counted::Failed), 0);
    // The mark is there again: once is enough.
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(one.count(Counted::RecordsMissing), 1);
}
