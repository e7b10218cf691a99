//! Records: who may replace and delete them, and what is not one.

use std::time::SystemTime;

use super::server::Server;
use super::*;

#[test]
fn a_record_is_found_until_its_owner_deletes_it() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    assert_eq!(one.await_answer(7), Found::Nothing);
    one.put(7, 0, "first");
    one.put(7, 0, "second");
    one.await_count(Counted::Written, 2);
    assert_eq!(one.ask(7), record(1, 0, "second"));
    let mut left = redis::cmd("PTTL");
    left.arg(one.key(7));
    let redis::Value::Int(left) = server.command(&left) else {
        panic!("no time to live");
    };
    assert!((1..=60_000).contains(&left), "{left}");
    one.delete(7, 0);
    one.await_count(Counted::Deleted, 1);
    assert_eq!(one.ask(7), Found::Nothing);
}

#[test]
fn the_owner_of_a_higher_epoch_keeps_its_record() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (one, two) = (
        Threads::start(&server.url(), 1),
        Threads::start(&server.url(), 2),
    );
    one.put(7, 0, "of one");
    one.await_count(Counted::Written, 1);
    // Equal epochs: the first one stays.
    two.put(7, 0, "of two");
    assert_eq!(two.moved.recv_timeout(PATIENCE).unwrap(), (7, 0));
    // A take-over.
    two.put(7, 1, "taken over");
    two.await_count(Counted::Written, 1);
    one.put(7, 0, "late");
    assert_eq!(one.moved.recv_timeout(PATIENCE).unwrap(), (7, 1));
    one.delete(7, 0);
    // Order is kept: what follows is answered after the deletion.
    one.put(8, 0, "other");
    one.await_count(Counted::Written, 2);
    assert_eq!(one.count(Counted::Deleted), 0);
    assert_eq!(one.await_answer(7), record(2, 1, "taken over"));
    assert_eq!(one.count(Counted::Superseded), 1);
}

#[test]
fn epochs_are_numbers_and_not_text() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (one, two) = (
        Threads::start(&server.url(), 1),
        Threads::start(&server.url(), 2),
    );
    for (count, epoch) in [9, 10, 255, 256, 65_536, 1 << 40].into_iter().enumerate() {
        let threads = if count % 2 == 0 { &one } else { &two };
        threads.put(7, epoch, "newer");
        threads.await_count(Counted::Written, count as u64 / 2 + 1);
    }
    one.put(7, 65_536, "older");
    assert_eq!(one.moved.recv_timeout(PATIENCE).unwrap(), (7, 1 << 40));
}

/// Returns a claim to a connection that began at a time in seconds.
fn claim(epoch: u64, began: u64) -> Claim {
    Claim {
        epoch,
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + began),
        adopted: false,
    }
}

#[test]
fn the_record_of_an_earlier_connection_gives_way_whatever_its_epoch_and_owner() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (one, two) = (
        Threads::start(&server.url(), 1),
        Threads::start(&server.url(), 2),
    );
    let mut written = 0;
    for (session, owner, epoch) in [(1, &one, 5), (2, &one, 0), (3, &two, 5)] {
        owner.put_claim(session, &claim(epoch, 100), "earlier");
        // The answer comes after the record is written.
        let number = if session == 3 { 2 } else { 1 };
        let seen = record_of(number, claim(epoch, 100), "earlier");
        let until = Instant::now() + PATIENCE;
        while owner.ask(session) != seen {
            assert!(Instant::now() < until);
        }
        two.put_claim(session, &claim(0, 106), "later");
        written += if session == 3 { 2 } else { 1 };
        two.await_count(Counted::Written, written);
        assert_eq!(two.ask(session), record_of(2, claim(0, 106), "later"));
    }
    assert!(two.moved.try_recv().is_err());
    assert_eq!(two.count(Counted::Superseded), 0);
    // The appliance with the earlier connection learns of the later one, whatever its epoch.
    one.put_claim(1, &claim(6, 100), "earlier");
    assert_eq!(one.moved.recv_timeout(PATIENCE).unwrap(), (1, 0));
    assert_eq!(one.ask(1), record_of(2, claim(0, 106), "later"));
    assert_eq!(one.count(Counted::Superseded), 1);
}

#[test]
fn the_epoch_decides_if_the_connections_may_be_the_same() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (one, two) = (
        Threads::start(&server.url(), 1),
        Threads::start(&server.url(), 2),
    );
    one.put_claim(7, &claim(1, 100), "moved");
    one.await_count(Counted::Written, 1);
    // The clocks of two hosts differ by that much.
    two.put_claim(7, &claim(0, 105), "late");
    assert_eq!(two.moved.recv_timeout(PATIENCE).unwrap(), (7, 1));
    let adopted = Claim {
        adopted: true,
        ..claim(0, 200)
    };
    two.put_claim(7, &adopted, "adopted");
    assert_eq!(two.moved.recv_timeout(PATIENCE).unwrap(), (7, 1));
    // The other way round, a record is no later one because it was adopted later.
    two.put_claim(8, &adopted, "adopted");
    two.await_count(Counted::Written, 1);
    one.put_claim(8, &claim(1, 100), "moved");
    one.await_count(Counted::Written, 2);
    assert_eq!(one.ask(8), record_of(1, claim(1, 100), "moved"));
}

#[test]
fn values_of_others_are_counted_and_give_way() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let forger = Envelope::new("test", b"another secret", Owner([9; 16]));
    let forged = forger.seal(Kind::Session, &one.key(1), 1 << 50, b"forged");
    for (session, value) in [
        (1, forged),
        (2, b"garbage".to_vec()),
        (3, vec![b'P'; 1 << 20]),
    ] {
        let mut garbage = redis::cmd("SET");
        garbage.arg(one.key(session)).arg(value);
        server.command(&garbage);
    }
    let mut list = redis::cmd("RPUSH");
    list.arg(one.key(4)).arg("element");
    server.command(&list);
    assert_eq!(one.await_answer(1), Found::Nothing);
    assert_eq!(one.count(Counted::WrongMac), 1);
    for session in 2..=4 {
        assert_eq!(one.ask(session), Found::Nothing);
    }
    assert_eq!(one.count(Counted::Foreign), 3);
    // No session ends because of them, and each is replaced.
    for session in 1..=4 {
        one.put(session, 0, "true");
    }
    one.await_count(Counted::Written, 4);
    for session in 1..=4 {
        assert_eq!(one.ask(session), record(1, 0, "true"), "{session}");
    }
    assert_eq!(
        one.count(Counted::Foreign),
        6,
        "counted when they are replaced, too"
    );
    assert_eq!(one.state.lost(), 0, "each is written");
    assert_eq!(one.count(Counted::Superseded), 0);
    assert!(one.moved.try_recv().is_err());
    assert_eq!(one.count(Counted::Failed), 0);
}

#[test]
fn a_value_of_a_later_version_is_counted_and_stays() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let mut later = one.envelope.seal(Kind::Session, &one.key(7), 1, b"record");
    later[2] += 1;
    run(&server, &[b"SET", &one.key(7), &later, b"EX", b"600"]);
    one.put(7, 5, "earlier version");
    one.await_count(Counted::Foreign, 1);
    assert_eq!(one.state.lost(), 1);
    one.delete(7, 5);
    // The answer comes after the deletion.
    one.put(8, 0, "other");
    one.await_count(Counted::Written, 1);
    assert_eq!(one.count(Counted::Deleted), 0);
    let stays = run(&server, &[b"GET", &one.key(7)]);
    assert_eq!(stays, redis::Value::BulkString(later));
    // It is no missing value: another appliance has written it.
    assert_eq!(one.ask(7), Found::OtherVersion);
    assert_eq!(one.count(Counted::Foreign), 2);
}

#[test]
fn a_value_of_a_later_version_without_a_time_to_live_is_foreign() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let forever: [&[&[u8]]; 2] = [&[], &[b"EX", b"99999999"]];
    for (session, lasting) in (7..).zip(forever) {
        let key = one.key(session);
        let mut set: Vec<&[u8]> = vec![b"SET", &key, b"PC\x03"];
        set.extend(lasting);
        run(&server, &set);
        one.put(session, 5, "record");
    }
    one.await_count(Counted::Written, 2);
    assert_eq!(one.count(Counted::Foreign), 2);
    assert_eq!(one.ask(8), record(1, 5, "record"));
}

#[test]
fn an_announcement_of_a_later_version_stays_for_those_who_can_read_it() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let key = one.envelope.key(Kind::Expectation, &7_u32.to_be_bytes());
    let mut later = one.envelope.seal(Kind::Expectation, &key, 0, b"data");
    later[2] += 1;
    run(&server, &[b"SET", &key, &later, b"EX", b"600"]);
    one.await_answer(1);
    let found = one.ask_for(7, Kind::Expectation, true);
    assert_eq!(found, Found::Nothing);
    assert_eq!(one.count(Counted::Foreign), 1);
    let stays = run(&server, &[b"GET", &key]);
    assert_eq!(stays, redis::Value::BulkString(later));
}

#[test]
fn an_announced_session_is_found_once() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let announce = |session: u32| {
        let key = one.envelope.key(Kind::Expectation, &session.to_be_bytes());
        let value = one.envelope.seal(Kind::Expectation, &key, 0, b"data");
        one.changes.push(Change::Announce {
            key: key.clone(),
            value,
            ttl: TTL,
            since: Instant::now(),
        });
        key
    };
    let remaining = announce(7);
    let withdrawn = announce(8);
    one.changes.push(Change::Withdraw { key: withdrawn });
    one.await_count(Counted::Deleted, 1);
    // Another appliance cannot withdraw this announcement; its changes are made in order.
    let two = Threads::start(&server.url(), 2);
    two.changes.push(Change::Withdraw { key: remaining });
    two.put(9, 0, "record");
    two.await_count(Counted::Written, 1);
    assert_eq!(two.count(Counted::Deleted), 0);
    assert_eq!(
        one.ask_for(7, Kind::Expectation, true),
        record(1, 0, "data")
    );
    for session in [7, 8] {
        assert_eq!(
            one.ask_for(session, Kind::Expectation, true),
            Found::Nothing
        );
    }
}

#[test]
fn a_former_owner_is_told_of_sessions_that_have_moved() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (one, two) = (
        Threads::start(&server.url(), 1),
        Threads::start(&server.url(), 2),
    );
    let key = two.envelope.moved_key(Owner([1; 16]));
    for (epoch, secret) in [(3, "secret"), (4, "another secret")] {
        let sealer = Envelope::new("test", secret.as_bytes(), Owner([2; 16]));
        two.changes.push(Change::Notify {
            value: sealer.seal(Kind::Moved, &key, epoch, b"record"),
            key: key.clone(),
        });
    }
    let taken = one.taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(taken, (3, b"record".to_vec()));
    one.await_count(Counted::WrongMac, 1);
    assert!(one.taken.try_recv().is_err() && two.taken.try_recv().is_err());
}

/// Runs a command of the server, named by its words.
fn run(server: &Server, words: &[&[u8]]) -> redis::Value {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    server.command(&command)
}

#[test]
fn long_values_and_values_of_another_type_are_taken_away_unread() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    let announced = |session: u32| one.envelope.key(Kind::Expectation, &session.to_be_bytes());
    let long = vec![b'P'; 1 << 20];
    run(&server, &[b"SET", &announced(1), &long]);
    run(&server, &[b"RPUSH", &announced(2), b"element"]);
    assert_eq!(one.await_answer(9), Found::Nothing);
    for session in [1, 2] {
        let found = one.ask_for(session, Kind::Expectation, true);
        assert_eq!(found, Found::Nothing, "{session}");
        let exists = run(&server, &[b"EXISTS", &announced(session)]);
        assert_eq!(exists, redis::Value::Int(0), "{session}");
    }
    assert_eq!(one.count(Counted::Foreign), 2);
    let list = one.envelope.moved_key(Owner([1; 16]));
    let value = one.envelope.seal(Kind::Moved, &list, 2, b"record");
    run(&server, &[b"RPUSH", &list, &long, &value]);
    let taken = one.taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(taken, (2, b"record".to_vec()));
    one.await_count(Counted::Foreign, 3);
    run(&server, &[b"SET", &list, b"no list"]);
    one.await_count(Counted::Foreign, 4);
    run(&server, &[b"RPUSH", &list, &value]);
    one.taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(one.count(Counted::Failed), 0);
}

#[test]
fn a_long_list_of_moved_sessions_is_read_whole_while_questions_come() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    assert_eq!(one.await_answer(9), Found::Nothing);
    let list = one.envelope.moved_key(Owner([1; 16]));
    let value = one.envelope.seal(Kind::Moved, &list, 2, b"record");
    let mut push = vec![b"RPUSH".as_slice(), &list];
    push.extend(std::iter::repeat_n(value.as_slice(), 600));
    run(&server, &push);
    let until = Instant::now() + PATIENCE;
    let mut taken = 0;
    // The next question is asked as soon as one is answered: the queue is never idle for long.
    while taken < 600 {
        assert!(Instant::now() < until, "{taken} of 600");
        assert_eq!(one.ask(9), Found::Nothing);
        taken += one.taken.try_iter().count();
    }
    assert_eq!(taken, 600);
}

#[test]
fn a_user_needs_the_right_password() {
    let user = [
        "--user",
        "firewall",
        "on",
        ">right",
        "~portcullis:*",
        "+@all",
    ];
    let Some(server) = Server::start(&user) else {
        return;
    };
    let access = |password: &str| Access {
        user: Some("firewall".to_owned()),
        password: Some(password.to_owned()),
        ..Access::default()
    };
    let one = Threads::with(&server.url(), 1, access("right"), 64);
    one.put(7, 0, "record");
    one.delete(7, 1);
    one.await_count(Counted::Deleted, 1);
    let key = one.envelope.moved_key(Owner([1; 16]));
    let value = one.envelope.seal(Kind::Moved, &key, 2, b"record");
    one.changes.push(Change::Notify { key, value });
    one.taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!(one.await_answer(7), Found::Nothing);
    assert_eq!(one.ask_for(7, Kind::Expectation, true), Found::Nothing);
    assert_eq!(one.count(Counted::Failed), 0);
    let wrong = Threads::with(&server.url(), 2, access("wrong"), 64);
    assert_eq!(wrong.ask(7), Found::NoStore);
    assert_eq!(wrong.count(Counted::Connected), 0);
}

#[test]
fn a_script_that_the_store_has_forgotten_is_loaded_again() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let one = Threads::start(&server.url(), 1);
    one.put(7, 0, "record");
    one.await_count(Counted::Written, 1);
    let mut flush = redis::cmd("SCRIPT");
    flush.arg("FLUSH");
    server.command(&flush);
    one.put(8, 0, "record");
    one.await_count(Counted::Written, 2);
    assert_eq!(one.count(Counted::Failed), 0);
}

#[test]
fn a_cluster_keeps_records_by_key() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    // The port of the cluster's own protocol is 10,000 higher unless it is named.
    let (text, bus) = (port.to_string(), port.wrapping_sub(1).to_string());
    let options = [
        "--port",
        &text,
        "--bind",
        "127.0.0.1",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
    ];
    let Some(server) = Server::start(&options) else {
        return;
    };
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("ADDSLOTSRANGE").arg(0).arg(16_383);
    server.command(&slots);
    let address = Address {
        urls: vec![format!("redis://127.0.0.1:{port}")],
        is_cluster: true,
    };
    let one = Threads::at(&address, 1, Access::default(), 64);
    assert_eq!(one.await_answer(0), Found::Nothing);
    for session in 0..40 {
        one.put(session, 0, "record");
    }
    // One that is of another type must not spoil the pipeline.
    let mut list = redis::cmd("RPUSH");
    list.arg(one.key(41)).arg("element");
    server.command(&list);
    assert_eq!(one.ask(41), Found::Nothing);
    one.await_count(Counted::Written, 40);
    for session in 0..40 {
        assert_eq!(one.ask(session), record(1, 0, "record"));
    }
}
