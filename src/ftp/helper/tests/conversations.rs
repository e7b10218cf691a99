use std::time::Duration;

use super::*;

#[test]
fn active_mode_opens_from_the_server_to_the_client() {
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,9,19,136\r\n");
    let expected = Expectation {
        parent: v4(),
        source: v4().responder.ip(),
        source_port: None,
        destination: "10.0.0.9:5000".parse().unwrap(),
        protocol: 6,
        direction: Direction::Reply,
        lifetime: Duration::from_secs(300),
    };
    assert_eq!(
        talk.record.open,
        [expected],
        "servers connect before they answer"
    );
    talk.server("200 ok\r\n").client("RETR x\r\n");
    assert_eq!(talk.record.open, [expected]);
    talk.client("eprt |1|10.0.0.9|5001|\r\n");
    assert_eq!(
        talk.open(),
        ["192.0.2.1 -> 10.0.0.9:5001"],
        "the new one replaces the old one"
    );
    assert_eq!(talk.events(), ["expectation_withdrawn"]);
}

#[test]
fn passive_mode_opens_from_the_client_to_the_server() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n");
    assert_eq!(talk.open(), [""; 0]);
    talk.server("227 Entering Passive Mode (192,0,2,1,19,136).\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
    assert_eq!(talk.record.open[0].direction, Direction::Original);
    talk.client("EPSV\r\n")
        .server("229 Extended (|||5001|)\r\n");
    talk.client("EPSV 1\r\n")
        .server("229 Extended (|||5002|)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5002"]);
    assert_eq!(talk.events(), ["expectation_withdrawn"; 2]);
}

#[test]
fn ipv6_sessions_use_the_extended_commands() {
    let mut talk = Talk::with(Settings::default(), v6());
    talk.client("EPRT |2|2001:DB8:0::9|5000|\r\n")
        .server("200 ok\r\n");
    talk.client("EPSV 2\r\n").server("229 (|||5001|)\r\n");
    assert_eq!(
        talk.open(),
        [
            "2001:db8::1 -> [2001:db8::9]:5000",
            "2001:db8::9 -> [2001:db8::1]:5001"
        ]
    );
    talk.record = Record::default();
    talk.client("EPSV 1\r\n").server("229 (|||5001|)\r\n");
    talk.client("EPRT |3|2001:db8::9|5000|\r\n")
        .server("522 no\r\n");
    talk.client("EPSV x\r\n").server("501 no\r\n");
    talk.refuses(&[
        "eprt_unsupported_family",
        "eprt_unsupported_family",
        "malformed_command",
    ]);
}

#[test]
fn a_mapped_address_is_the_clients_ipv4_address() {
    let mut talk = Talk::new();
    talk.client("EPRT |2|::ffff:10.0.0.9|5000|\r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5000"]);
}

#[test]
fn a_refused_announcement_is_withdrawn() {
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,9,19,136\r\n")
        .server("500 Illegal PORT command.\r\n");
    assert_eq!(
        (talk.open().len(), talk.events()),
        (0, vec!["expectation_withdrawn"])
    );
    talk.client("PORT 10,0,0,9,19,136\r\nPORT 10,0,0,9,19,137\r\n");
    talk.server("500 no\r\n200 ok\r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5001"]);
}

#[test]
fn active_mode_can_wait_for_the_servers_answer() {
    let settings = Settings {
        active_opening: ActiveOpening::Reply,
        active_source_port: Some(20),
        ..Settings::default()
    };
    let mut talk = Talk::with(settings, v4());
    talk.client("PORT 10,0,0,9,19,136\r\nRETR x\r\n");
    assert_eq!(talk.open(), [""; 0]);
    talk.server("200 PORT command successful.\r\n150 here\r\n226 done\r\n");
    assert_eq!(talk.record.open[0].source_port, Some(20));
    talk.client("PORT 10,0,0,9,19,137\r\n").server("500 no\r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5000"]);
}

#[test]
fn pipelined_commands_have_their_replies_in_order() {
    let mut talk = Talk::new();
    talk.client("NOOP\r\nPASV\r\nRETR x\r\nEPSV\r\nPWD\r\n");
    talk.server("200 ok\r\n227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
    talk.server("150 here\r\n226 done\r\n229 (|||5001|)\r\n257 \"/\"\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5001"]);
    assert_eq!(talk.events(), ["expectation_withdrawn"]);
}

#[test]
fn commands_before_the_greeting_wait_for_it() {
    let mut talk = Talk::unbegun(Settings::default(), v4());
    for (from, next) in Direction::BOTH.into_iter().zip(talk.next) {
        talk.control.begins(from, next);
    }
    talk.client("USER a\r\nPASS b\r\nPASV\r\n");
    talk.server("120 soon\r\n220-hello\r\n227 (192,0,2,1,1,1)\r\n220 ready\r\n331 x\r\n230 y\r\n");
    talk.refuses(&[]);
    talk.server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
}

#[test]
fn abor_rein_quit_and_user_withdraw() {
    for command in ["ABOR\r\n", "REIN\r\n", "QUIT\r\n", "USER b\r\n", "abor\r\n"] {
        let mut talk = Talk::new();
        talk.client("PORT 10,0,0,9,19,136\r\n").server("200 ok\r\n");
        talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
        assert_eq!(talk.open().len(), 2);
        talk.client(command);
        assert_eq!(
            (talk.open().len(), talk.events()),
            (0, vec!["expectation_withdrawn"; 2])
        );
    }
    let mut talk = Talk::new();
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.client(b"\xff\xf4\xff\xf2ABOR\r\n");
    assert_eq!(
        talk.open().len(),
        0,
        "TELNET commands before ABOR are skipped"
    );
    // Only the transfer was answered.
    talk.server("226 closed\r\n");
    talk.client(b"RETR x\r\n\xff\xf4")
        .client(b"\xff\xf2ABOR\r\n")
        .server("426 closed\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,137)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5001"]);
}

#[test]
fn a_421_withdraws() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.server("421 Timeout.\r\n");
    assert_eq!(
        (talk.open().len(), talk.events()),
        (0, vec!["expectation_withdrawn"])
    );
}

#[test]
fn after_epsv_all_nothing_but_epsv_announces() {
    let mut talk = Talk::new();
    talk.client("EPSV ALL\r\n").server("200 ok\r\n");
    talk.client("PORT 10,0,0,9,19,136\r\n").server("501 no\r\n");
    talk.client("EPRT |1|10.0.0.9|5000|\r\n")
        .server("501 no\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["epsv_all_violation"; 3]);
    talk.client("EPSV\r\n").server("229 (|||5000|)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
}

#[test]
fn epsv_all_that_the_server_refuses_bars_nothing() {
    let mut talk = Talk::new();
    talk.client("epsv all\r\nPASV\r\n")
        .server("501 no\r\n227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["epsv_all_violation"]);
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open().len(), 1);
}

#[test]
fn the_helper_steps_aside_when_the_session_is_encrypted() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.client("AUTH TLS\r\n");
    assert!(!talk.control.helper().is_opaque());
    talk.server("234 Proceed.\r\n");
    assert_eq!(talk.events(), ["expectation_withdrawn", "tls"]);
    assert!(talk.control.helper().is_opaque());
    talk.client("PORT 10,0,0,9,19,136\r\n");
    assert_eq!((talk.open().len(), talk.events().len()), (0, 0));
    for (command, reply, opaque) in [
        ("AUTH TLS\r\n", "534 no\r\n", false),
        ("AUTH SSL\r\n", "234 ok\r\n", true),
        ("AUTH GSSAPI\r\nADAT x\r\n", "334 go on\r\n235 ok\r\n", true),
        ("NOOP\r\n", "234 ok\r\n", false),
        ("\x16\x03\x01\r\n", "", true),
    ] {
        let mut talk = Talk::new();
        talk.client(command).server(reply);
        assert_eq!(talk.control.helper().is_opaque(), opaque, "{command}");
    }
}

#[test]
fn a_session_taken_up_in_the_middle_is_understood_after_an_exchange() {
    let mut talk = Talk::unbegun(Settings::default(), v4());
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["mid_stream"; 2]);
    talk.client("NOOP\r\n").server("200 ok\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
    let mut talk = Talk::unbegun(Settings::default(), v4());
    talk.client("NOOP\r\nPORT 10,0,0,9,19,136\r\n");
    talk.refuses(&["mid_stream", "not_greeted"]);
    talk.server("200 ok\r\n200 ok\r\n");
    talk.client("PORT 10,0,0,9,19,136\r\n");
    assert_eq!(
        talk.open(),
        ["192.0.2.1 -> 10.0.0.9:5000"],
        "it needs no reply"
    );
}

#[test]
fn after_a_gap_commands_and_replies_are_paired_again() {
    let mut talk = Talk::new();
    talk.client("NOOP\r\n").lost(Direction::Reply, 8);
    talk.client("STAT\r\n");
    talk.server("211-x\r\n211 y\r\n");
    assert_eq!(talk.events(), ["gap"]);
    talk.client("NOOP\r\n").server("200 ok\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5000"]);
}

#[test]
fn an_expectation_that_the_table_refuses_is_counted() {
    struct Full(Vec<HelperEvent>);
    impl HelperSink for Full {
        fn event(&mut self, event: HelperEvent, _: Direction) {
            self.0.push(event);
        }
        fn expect(&mut self, _: &Expectation) -> bool {
            false
        }
        fn withdraw(&mut self, _: &Expectation) -> bool {
            unreachable!("nothing was opened")
        }
    }
    let mut talk = Talk::new();
    let mut full = Full(Vec::new());
    for (from, payload) in [
        (Direction::Original, "PORT 10,0,0,9,19,136\r\n"),
        (Direction::Reply, "500 no\r\n"),
    ] {
        let segment = Segment {
            seq: talk.next[from as usize],
            ack: None,
            payload: payload.as_bytes(),
            fin: false,
        };
        talk.control.segment(from, &segment, &mut full);
    }
    assert_eq!(full.0, [HelperEvent::ExpectationRefused]);
}

#[test]
fn the_table_has_what_a_conversation_opens() {
    use crate::ftp::EventCounts;
    use crate::ftp::expectations::{Call, ExpectationLimits, ExpectationTable, TableSink};
    let (table, counts, now) = (
        ExpectationTable::new(ExpectationLimits::default(), [1; 4]),
        EventCounts::default(),
        std::time::Instant::now(),
    );
    let mut talk = Talk::new();
    let segment = Segment {
        seq: talk.next[0],
        ack: None,
        payload: b"PORT 10,0,0,9,19,136\r\n",
        fin: false,
    };
    let mut sink = TableSink {
        table: &table,
        counts: &counts,
        now,
    };
    talk.control
        .segment(Direction::Original, &segment, &mut sink);
    assert_eq!(counts.of(HelperEvent::ExpectationOpened), 1);
    let call = Call {
        zone: Zone(0),
        protocol: 6,
        source: "192.0.2.1:20".parse().unwrap(),
        destination: "10.0.0.9:5000".parse().unwrap(),
    };
    assert_eq!(table.take(&call, now).map(|found| found.parent), Some(v4()));
    assert!(table.is_empty());
}

#[test]
fn a_reply_that_its_command_cannot_have_costs_nothing() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n")
        .server("226 sent twice\r\n227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open().len(), 1);
    let mut talk = Talk::new();
    talk.client("PASV\r\n").server("99 no code\r\n");
    talk.client("NOOP\r\n").server("200 ok\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open().len(), 1);
}

#[test]
fn whole_lines_of_a_conversation_allocate_nothing() {
    let mut talk = Talk::new();
    talk.client("NOOP\r\n").server("200 ok\r\n");
    let allocated = allocation_counter::measure(|| {
        for _ in 0..100 {
            talk.client("NOOP\r\n").server("200 ok\r\n");
            talk.client("RETR x\r\n").server("150 here\r\n226 done\r\n");
        }
    });
    assert_eq!(allocated.count_total, 0);
    assert_eq!(talk.events(), [""; 0]);
    assert!(
        size_of::<Control<Ftp>>() <= 512,
        "{}",
        size_of::<Control<Ftp>>()
    );
}

#[test]
fn a_session_stands_by_what_was_not_withdrawn_since() {
    let announce = |talk: &mut Talk| {
        talk.client("PASV\r\n").server("227 (192,0,2,1,195,80)\r\n");
        *talk.record.open.last().unwrap()
    };
    let mut talk = Talk::new();
    let first = announce(&mut talk);
    assert!(talk.control.helper().still_announces(&first));
    talk.client("ABOR\r\n");
    assert!(
        !talk.control.helper().still_announces(&first),
        "the client has"
    );
    let mut talk = Talk::new();
    let first = announce(&mut talk);
    talk.control.helper_mut().forget_announced();
    assert!(
        !talk.control.helper().still_announces(&first),
        "somebody else has"
    );
}
