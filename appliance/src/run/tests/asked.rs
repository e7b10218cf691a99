//! The control socket, asked by its client.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::run::protocol::{FilterSpec, GroupKey, ListingRequest, Reply, Request, SortKey};
use crate::sessions::client::Client;

use super::*;

fn ask(appliance: &TestAppliance, request: &Request) -> Result<Vec<Reply>, String> {
    let mut client = Client::connect(&appliance.control()).unwrap();
    client.ask(request).map_err(|error| error.to_string())
}

fn listing(filter: FilterSpec, limit: Option<usize>) -> Request {
    Request::Sessions(ListingRequest {
        filter,
        limit,
        ..ListingRequest::default()
    })
}

fn list(appliance: &TestAppliance, filter: FilterSpec, limit: Option<usize>) -> Vec<String> {
    let replies = ask(appliance, &listing(filter, limit)).unwrap();
    let mut found: Vec<_> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Session(view) => Some(format!(
                "{} {}",
                view.session.flow.protocol,
                view.session.flow.initiator().address
            )),
            _ => None,
        })
        .collect();
    if limit.is_none() {
        found.sort();
    }
    found
}

fn text(replies: &[Reply]) -> String {
    let text = |reply: &Reply| match reply {
        Reply::Line(text) => Some(format!("{text}\n")),
        Reply::Done { text, .. } => text.clone(),
        _ => None,
    };
    replies.iter().filter_map(text).collect()
}

fn some_sessions() -> TestAppliance {
    let appliance = TestAppliance::start("");
    appliance.connection(1, 1_000);
    appliance.connection(2, 2_000);
    appliance.query(3, 1);
    assert!(appliance.packet(&syn(4, 4_000, 80), 0).is_forward());
    appliance
}

#[test]
fn sessions_are_listed_by_every_filter() {
    let appliance = some_sessions();
    let nothing = FilterSpec::default;
    let [one, two, three, four] = [
        "tcp 10.0.0.1",
        "tcp 10.0.0.2",
        "udp 10.0.0.3",
        "tcp 10.0.0.4",
    ];
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let rows: Vec<(FilterSpec, Vec<&str>)> = vec![
        (nothing(), vec![one, two, four, three]),
        (
            FilterSpec {
                address: words(&["10.0.0.2"]),
                ..nothing()
            },
            vec![two],
        ),
        (
            FilterSpec {
                address: words(&["192.0.2.0/24"]),
                ..nothing()
            },
            vec![one, two, four, three],
        ),
        (
            FilterSpec {
                src: words(&["192.0.2.0/24"]),
                ..nothing()
            },
            vec![],
        ),
        (
            FilterSpec {
                src: words(&["10.0.0.1", "10.0.0.4/31"]),
                ..nothing()
            },
            vec![one, four],
        ),
        (
            FilterSpec {
                dst: words(&["192.0.2.1"]),
                port: words(&["53"]),
                ..nothing()
            },
            vec![three],
        ),
        (
            FilterSpec {
                port: words(&["900-1999"]),
                ..nothing()
            },
            vec![one],
        ),
        (
            FilterSpec {
                protocol: Some("udp".to_owned()),
                ..nothing()
            },
            vec![three],
        ),
        (
            FilterSpec {
                state: Some("established".to_owned()),
                ..nothing()
            },
            vec![one, two],
        ),
        (
            FilterSpec {
                zone: Some("blue".to_owned()),
                ..nothing()
            },
            vec![three],
        ),
        (
            FilterSpec {
                zone: Some("0".to_owned()),
                ..nothing()
            },
            vec![one, two, four],
        ),
        (
            FilterSpec {
                rule: Some("dns".to_owned()),
                ..nothing()
            },
            vec![three],
        ),
        (
            FilterSpec {
                min_age_ms: Some(3_600_000),
                ..nothing()
            },
            vec![],
        ),
        (
            FilterSpec {
                min_bytes: Some(100),
                ..nothing()
            },
            vec![one, two],
        ),
    ];
    for (filter, wanted) in rows {
        assert_eq!(list(&appliance, filter.clone(), None), wanted, "{filter:?}");
    }
    assert_eq!(list(&appliance, nothing(), Some(2)).len(), 2);
    let unknown = FilterSpec {
        state: Some("NOPE".to_owned()),
        ..nothing()
    };
    for request in [
        listing(unknown.clone(), None),
        Request::Delete {
            filter: unknown,
            all: false,
        },
    ] {
        let error = ask(&appliance, &request).unwrap_err();
        assert!(
            error.starts_with("there is no state `NOPE`: the states are CLOSE, CLOSED, ")
                && ["ESTABLISHED", "COOKIE_WAIT", "PARTOPEN", "UNREPLIED"]
                    .iter()
                    .all(|name| error.contains(name)),
            "{error}"
        );
    }
    for wrong in [
        FilterSpec {
            address: words(&["10.0.0.300"]),
            ..nothing()
        },
        FilterSpec {
            zone: Some("red".to_owned()),
            ..nothing()
        },
        FilterSpec {
            rule: Some("none".to_owned()),
            ..nothing()
        },
        FilterSpec {
            id: vec![0],
            ..nothing()
        },
    ] {
        assert!(ask(&appliance, &listing(wrong, None)).is_err());
    }
    appliance.finish();
}

/// Asks for rows on an open connection, which keeps the counts for rates.
fn rows(client: &mut Client, request: ListingRequest) -> Vec<Reply> {
    let mut replies = client.ask(&Request::Sessions(request)).unwrap();
    assert!(matches!(replies.pop(), Some(Reply::Done { .. })));
    replies
}

#[test]
fn the_session_with_the_highest_rate_comes_first_and_has_it() {
    let appliance = some_sessions();
    let mut client = Client::connect(&appliance.control()).unwrap();
    let request = |sort| ListingRequest {
        sort: Some(sort),
        limit: Some(3),
        ..ListingRequest::default()
    };
    let sessions = |replies: Vec<Reply>| {
        let sessions = replies.into_iter().filter_map(|reply| match reply {
            Reply::Session(view) => Some(*view),
            _ => None,
        });
        sessions.collect::<Vec<_>>()
    };
    let first = sessions(rows(&mut client, request(SortKey::Rate)));
    assert!(first.iter().all(|row| row.rate.is_none()), "{first:?}");
    // The appliance measures over half a second at least.
    thread::sleep(Duration::from_millis(600));
    appliance.query(3, 1);
    let by_rate = sessions(rows(&mut client, request(SortKey::Rate)));
    assert_eq!(by_rate.len(), 3);
    let top = by_rate.first().unwrap();
    assert_eq!(top.session.rule, "dns");
    let rate = top.rate.unwrap();
    assert!(rate.packets > 0.0, "{rate:?}");
    assert_eq!((rate.bytes / rate.packets).round(), 35.0, "{rate:?}");
    let others = by_rate.iter().skip(1).map(|row| row.rate.unwrap());
    assert!(others.into_iter().all(|rate| rate.bytes == 0.0));
    let by_bytes = sessions(rows(&mut client, request(SortKey::Bytes)));
    let bytes: Vec<_> = by_bytes.iter().map(|row| row.session.bytes()).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
    let by_age = sessions(rows(&mut client, request(SortKey::Age)));
    assert!(by_age.is_sorted_by(|a, b| a.session.start <= b.session.start));
    let refused = client.ask(&Request::Sessions(request(SortKey::Sessions)));
    assert!(refused.unwrap_err().to_string().contains("order of groups"));
    appliance.finish();
}

#[test]
fn sessions_are_grouped_by_every_property() {
    let appliance = some_sessions();
    let mut client = Client::connect(&appliance.control()).unwrap();
    for (group, wanted) in [
        (
            GroupKey::Source,
            "10.0.0.1 1, 10.0.0.2 1, 10.0.0.3 1, 10.0.0.4 1",
        ),
        (GroupKey::Destination, "192.0.2.1 4"),
        (GroupKey::Port, "tcp/80 3, udp/53 1"),
        (GroupKey::Rule, "dns 1, web 3"),
        (GroupKey::Zone, "blue 1, default 3"),
    ] {
        let request = ListingRequest {
            group: Some(group),
            sort: Some(SortKey::Sessions),
            ..ListingRequest::default()
        };
        let replies = rows(&mut client, request);
        let counts: Vec<_> = replies
            .iter()
            .filter_map(|reply| match reply {
                Reply::Group(view) => Some((view.name.as_str(), view.sessions)),
                _ => None,
            })
            .collect();
        assert!(counts.is_sorted_by(|a, b| a.1 >= b.1), "{counts:?}");
        let mut names: Vec<_> = counts
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        names.sort();
        assert_eq!(names.join(", "), wanted);
    }
    let request = ListingRequest {
        group: Some(GroupKey::Rule),
        filter: FilterSpec {
            protocol: Some("udp".to_owned()),
            ..FilterSpec::default()
        },
        ..ListingRequest::default()
    };
    let groups = rows(&mut client, request);
    let [Reply::Group(dns)] = groups.as_slice() else {
        panic!("{groups:?}");
    };
    assert_eq!((dns.name.as_str(), dns.packets, dns.bytes), ("dns", 1, 35));
    appliance.finish();
}

#[test]
fn what_is_deleted_is_gone_and_everything_must_be_said_twice() {
    let appliance = some_sessions();
    let all = |all| Request::Delete {
        filter: FilterSpec::default(),
        all,
    };
    assert!(
        ask(&appliance, &all(false))
            .unwrap_err()
            .contains("every session")
    );
    let filter = FilterSpec {
        src: vec!["10.0.0.1".to_owned()],
        ..FilterSpec::default()
    };
    let done = ask(&appliance, &Request::Delete { filter, all: false }).unwrap();
    assert_eq!(text(&done), "1 sessions ended");
    let [_, _, ack] = handshake(1, 1_000);
    let reason = appliance.packet(&ack, 0).reason();
    assert_eq!(
        reason.map(|reason| reason.name()),
        Some("tcp_after_deletion")
    );
    assert_eq!(
        text(&ask(&appliance, &all(true)).unwrap()),
        "3 sessions ended"
    );
    assert_eq!(appliance.shared.engine.sessions(), 0);
    appliance.finish();
}

#[test]
fn a_live_session_is_explained() {
    let appliance = some_sessions();
    let mut ids = Vec::new();
    appliance.shared.engine.for_each_session(|session| {
        if session.src_port == 1_000 {
            ids.push(session.id.number());
        }
    });
    let told = text(&ask(&appliance, &Request::Explain { id: ids[0] }).unwrap());
    for wanted in [
        "zone default, tcp 10.0.0.1#1000 -> 192.0.2.1#80",
        "state ESTABLISHED, assured; history ShA, conn_state S1",
        "original: 2 packets, 80 bytes; reply: 1 packets, 40 bytes",
        "lifetime 340.0 s (tcp.established, global)",
        "admitted by rule `web`",
        "original end: sent up to 1001, may send up to 9193",
        "reply end: sent up to 5001",
        "original direction: no tunnel is known",
    ] {
        assert!(told.contains(wanted), "no `{wanted}` in\n{told}");
    }
    assert!(ask(&appliance, &Request::Explain { id: 99 }).is_err());
    appliance.finish();
}

#[test]
fn a_preview_says_which_sessions_a_reload_would_end_and_ends_none() {
    let appliance = some_sessions();
    let text_of = |more: &str| TestAppliance::text(&appliance.directory, more);
    let preview = |text: String| Request::Preview {
        name: "new.toml".to_owned(),
        text,
    };
    let without_web = text_of("").replace("[80]", "[81]");
    let replies = ask(&appliance, &preview(without_web)).unwrap();
    let would_end = replies
        .iter()
        .filter(|reply| matches!(reply, Reply::WouldEnd { .. }));
    assert_eq!(would_end.count(), 3);
    assert!(text(&replies).ends_with("3 of 4 sessions would end"));
    assert_eq!(appliance.shared.engine.sessions(), 4);
    let error = ask(&appliance, &preview("\n[policy]\ndefault = 1".to_owned())).unwrap_err();
    assert!(error.starts_with("new.toml:3: policy.default: "), "{error}");
    let several: String = (0..90).map(|n| format!("x{n} = 1\n")).collect();
    let error = ask(&appliance, &preview(several)).unwrap_err();
    assert!(
        error.starts_with("new.toml:1: x0: ") && error.lines().count() == 1,
        "{error}"
    );
    assert!(error.contains("89 more errors"), "{error}");
    let replies = ask(&appliance, &preview(text_of("table.max_sessions = 7\n"))).unwrap();
    assert_eq!(
        text(&replies),
        "0 of 4 sessions would end; these keys wait for a restart: table.max_sessions"
    );
    appliance.finish();
}

#[test]
fn orders_and_reports_are_answered() {
    let appliance = some_sessions();
    assert_eq!(text(&ask(&appliance, &Request::Health).unwrap()), "healthy");
    assert!(
        text(&ask(&appliance, &Request::Reload).unwrap()).starts_with("4 sessions re-evaluated")
    );
    assert_eq!(ask(&appliance, &Request::Expectations).unwrap().len(), 1);
    assert_eq!(
        ask(&appliance, &Request::Asymmetry { clear: true })
            .unwrap()
            .len(),
        1
    );
    let [_, _, ack] = handshake(9, 9_000);
    assert!(!appliance.packet(&ack, 0).is_forward());
    ask(&appliance, &Request::Adopt { seconds: 60 }).unwrap();
    assert!(
        appliance.packet(&ack, 0).is_forward(),
        "adopted in its middle"
    );
    let replies = ask(&appliance, &Request::Stats).unwrap();
    let Some(Reply::Stats(stats)) = replies.first() else {
        panic!("{replies:?}");
    };
    assert_eq!(
        (
            stats.sessions,
            stats.sessions_opened,
            stats.sessions_adopted
        ),
        (5, 5, 1)
    );
    assert!(
        stats.dropped.contains(&("tcp_no_session".to_owned(), 1)),
        "{:?}",
        stats.dropped
    );
    assert!(
        stats.rules.contains(&("web".to_owned(), 4)),
        "{:?}",
        stats.rules
    );
    appliance.finish();
}

#[test]
fn an_announced_session_is_listed() {
    let appliance = TestAppliance::start("policy.default = \"allow\"\n");
    for packet in ftp_announcement() {
        assert!(appliance.packet(&packet, 0).is_forward());
    }
    let replies = ask(&appliance, &Request::Expectations).unwrap();
    let Some(Reply::Expectation(expectation)) = replies.first() else {
        panic!("{replies:?}");
    };
    assert_eq!(expectation.destination.to_string(), "192.0.2.1:4660");
    let other = TestAppliance::start("");
    let request = Request::Import {
        expectations: vec![*expectation],
    };
    let told = text(&ask(&other, &request).unwrap());
    assert_eq!(told, "1 of 1 expectations taken over");
    assert_eq!(ask(&other, &Request::Expectations).unwrap().len(), 2);
    other.finish();
    appliance.finish();
}

/// A control session of FTP that announces port 4660 of the server.
fn ftp_announcement() -> Vec<Vec<u8>> {
    let (mut client, mut server) = (1_000, 5_000);
    let mut packets = Vec::new();
    let mut put = |from_client: bool, syn: bool, ack: bool, payload: &[u8]| {
        let (src, dst, ports) = if from_client {
            ([10, 0, 0, 1], [192, 0, 2, 1], (7_000, 21))
        } else {
            ([192, 0, 2, 1], [10, 0, 0, 1], (21, 7_000))
        };
        let (seq, acked) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        let mut step = PacketBuilder::ipv4(src, dst, 64).tcp(ports.0, ports.1, seq, 8_192);
        if syn {
            step = step.syn();
        }
        if ack {
            step = step.ack(acked);
        }
        let mut packet = Vec::new();
        step.write(&mut packet, payload).unwrap();
        packets.push(packet);
        let sent = payload.len() as u32 + u32::from(syn);
        if from_client {
            client += sent
        } else {
            server += sent
        }
    };
    put(true, true, false, b"");
    put(false, true, true, b"");
    put(true, false, true, b"");
    put(false, false, true, b"220 ready\r\n");
    put(true, false, true, b"PASV\r\n");
    put(
        false,
        false,
        true,
        b"227 Entering Passive Mode (192,0,2,1,18,52).\r\n",
    );
    packets
}

#[test]
fn the_socket_is_its_owners_alone_and_survives_nonsense() {
    let appliance = some_sessions();
    let mode = std::fs::metadata(appliance.control())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(appliance.control()).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
    for nonsense in [
        "",
        "{}",
        "{\"command\":\"conquer\"}",
        "{\"command\":\"stats\",\"extra\":1}x",
    ] {
        stream
            .write_all(format!("{nonsense}\n").as_bytes())
            .unwrap();
        let reply = replies.next().unwrap().unwrap();
        assert!(
            reply.starts_with("{\"error\":\"invalid request: "),
            "{reply}"
        );
    }
    stream
        .write_all(b"\xff\xfe\n{\"command\":\"\xff\"}\n")
        .unwrap();
    for _ in 0..2 {
        let reply = replies.next().unwrap().unwrap();
        assert!(
            reply.starts_with("{\"error\":\"invalid request: "),
            "{reply}"
        );
    }
    // Idle clients do not block others, and a new client evicts the oldest of them.
    let silent: Vec<_> = (0..64)
        .map(|_| UnixStream::connect(appliance.control()).unwrap())
        .collect();
    for _ in 0..32 {
        wait_for("an answer", || ask(&appliance, &Request::Health).is_ok());
    }
    // A client with a request outlasts those without one.
    stream.write_all(b"{\"command\":\"health\"}\n").unwrap();
    let reply = replies.next().unwrap().unwrap();
    assert!(reply.starts_with("{\"done\""), "{reply}");
    drop((silent, stream, replies));
    let control = appliance.control();
    let directory = appliance.finish();
    assert!(!control.exists());
    drop(directory);
}

#[test]
fn the_command_prints_tables_and_json() {
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: crate::sessions::SessionsArgs,
    }
    let appliance = some_sessions();
    let control = appliance.control();
    let run = |arguments: &[&str]| {
        let mut all = vec!["sessions", "--control", control.to_str().unwrap()];
        all.extend(arguments);
        let cli = Cli::try_parse_from(all).unwrap();
        let mut out = Vec::new();
        let mut client = Client::connect(&control).unwrap();
        crate::sessions::ask(&cli.args, &mut client, &mut out)
            .map(|()| String::from_utf8(out).unwrap())
            .map_err(|error| error.to_string())
    };
    let table = run(&["--protocol", "tcp"]).unwrap();
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.contains("10.0.0.1#1000") && table.ends_with("3 sessions\n"),
        "{table}"
    );
    let json = run(&["--json", "--zone", "blue"]).unwrap();
    assert!(
        json.starts_with("{\"id\":") && json.lines().count() == 1,
        "{json}"
    );
    assert!(
        run(&["stats"])
            .unwrap()
            .contains("sessions              4 of ")
    );
    let top = run(&["top", "--count", "2", "--interval", "1"]).unwrap();
    assert_eq!(
        top.matches("the 4 of 4 with the most bytes").count(),
        2,
        "{top}"
    );
    let top = run(&[
        "--json",
        "top",
        "--count",
        "2",
        "--interval",
        "1",
        "--protocol",
        "tcp",
    ])
    .unwrap();
    let rows: Vec<serde_json::Value> = top
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[1]["found"], &rows[1]["stats"]["sessions"]),
        (&3.into(), &4.into())
    );
    assert_eq!(rows[1]["sessions"].as_array().unwrap().len(), 3);
    // A filter for lists does not silently select no session to end.
    for misplaced in [
        &["--src", "10.0.0.1", "delete", "--all"][..],
        &["--limit", "1", "delete", "--all"],
        &["--min-age", "5m", "top"],
    ] {
        let error = run(misplaced).unwrap_err();
        assert!(error.contains("has no effect"), "{error}");
    }
    assert_eq!(appliance.shared.engine.sessions(), 4);
    for both in [["--src", "10.0.0.1"], ["--id", "7"], ["--min-bytes", "0"]] {
        let all = ["sessions", "delete", "--all", both[0], both[1]];
        assert!(Cli::try_parse_from(all).is_err(), "{both:?}");
    }
    assert!(
        Cli::try_parse_from(["sessions", "--json", "delete", "--all", "--control", "x"]).is_ok()
    );
    assert_eq!(
        run(&["delete", "--src", "10.0.0.2"]).unwrap(),
        "1 sessions ended\n"
    );
    assert!(run(&["delete"]).is_err());
    assert_eq!(run(&["asymmetry"]).unwrap(), "nothing\n");
    assert!(
        run(&["preview", "/nonexistent"])
            .unwrap_err()
            .starts_with("/nonexistent: ")
    );
    appliance.finish();
}

#[test]
fn a_missing_directory_of_the_socket_is_made_for_its_owner() {
    use crate::run::control::make_directory;

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("portcullis").join("control.sock");
    make_directory(&socket).unwrap();
    make_directory(&socket).unwrap();
    let mode = std::fs::metadata(socket.parent().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let deep = directory.path().join("a/b/control.sock");
    let error = make_directory(&deep).unwrap_err().to_string();
    assert!(
        error.contains("a/b is missing and cannot be made"),
        "{error}"
    );
}
