//! FTP in practice: healthy sessions that deviate from one reply for each command.

use super::*;

const FIRST: &str = "227 Entering Passive Mode (192,0,2,1,156,66)\r\n";
const SECOND: &str = "227 Entering Passive Mode (192,0,2,1,156,67)\r\n";

/// Lines of the client (C) and the server (S), each set of which must finally open port 40003.
const OPENING: [(&str, &[(char, &str)]); 27] = [
    (
        "an empty line without an answer",
        &[('C', "\r\n"), ('C', "PASV\r\n"), ('S', SECOND)],
    ),
    (
        "an empty line with an answer",
        &[
            ('C', "\r\n"),
            ('S', "500 what?\r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "an empty line with a late answer",
        &[
            ('C', "\r\n"),
            ('C', "PASV\r\n"),
            ('S', "500 what?\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "many empty lines and blanks",
        &[
            ('C', "\r\n \r\n\r\n\n  \n\r\n"),
            ('C', "NOOP\r\n"),
            ('S', "200 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR without a reply",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "ABOR\r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR with the reply of the transfer alone",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "ABOR\r\n"),
            ('S', "226 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR with two replies",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "ABOR\r\n"),
            ('S', "426 \r\n226 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR with three replies",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "ABOR\r\n"),
            ('S', "426 \r\n226 \r\n225 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR without a transfer",
        &[
            ('C', "ABOR\r\n"),
            ('S', "225 none\r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "the second reply to ABOR comes late",
        &[
            ('C', "RETR x\r\n"),
            ('C', "ABOR\r\n"),
            ('S', "426 \r\n"),
            ('C', "PASV\r\n"),
            ('S', "226 \r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "both replies to ABOR come late",
        &[
            ('C', "RETR x\r\n"),
            ('C', "ABOR\r\n"),
            ('C', "PASV\r\n"),
            ('S', "426 \r\n225 \r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "ABOR that the server does not know",
        &[
            ('C', "ABOR\r\n"),
            ('C', "PASV\r\n"),
            ('S', "502 no\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "TYPE after ABOR with one reply",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "ABOR\r\n"),
            ('S', "426 \r\n"),
            ('C', "TYPE I\r\n"),
            ('S', "200 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "two replies before PASV",
        &[
            ('C', "CWD x\r\n"),
            ('S', "200 \r\n"),
            ('S', "250 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "the second reply after PASV",
        &[
            ('C', "CWD x\r\n"),
            ('S', "200 \r\n"),
            ('C', "PASV\r\n"),
            ('S', "250 \r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "a stray reply after the 227",
        &[
            ('C', "PASV\r\n"),
            ('S', FIRST),
            ('S', "200 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "NOOP that is not answered during a transfer",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "NOOP\r\n"),
            ('C', "NOOP\r\n"),
            ('S', "226 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "NOOP that is answered after a transfer",
        &[
            ('C', "RETR x\r\n"),
            ('S', "150 \r\n"),
            ('C', "NOOP\r\n"),
            ('C', "NOOP\r\n"),
            ('S', "226 \r\n200 \r\n"),
            ('C', "PASV\r\n"),
            ('S', "200 \r\n"),
            ('S', SECOND),
        ],
    ),
    (
        "150 before the 227",
        &[('C', "PASV\r\n"), ('S', "150 soon\r\n"), ('S', SECOND)],
    ),
    (
        "PASV twice",
        &[('C', "PASV\r\nPASV\r\n"), ('S', FIRST), ('S', SECOND)],
    ),
    (
        "a 227 in answer to EPSV",
        &[('C', "EPSV\r\n"), ('S', SECOND)],
    ),
    (
        "a 229 in answer to PASV",
        &[('C', "PASV\r\n"), ('S', "229 (|||40003|)\r\n")],
    ),
    (
        "EPSV without a reply, then PASV",
        &[
            ('C', "EPSV\r\nPASV\r\n"),
            ('S', SECOND),
            ('C', "NOOP\r\n"),
            ('S', "200 \r\n"),
        ],
    ),
    (
        "a multi-line 227 with its address in the last line",
        &[('C', "PASV\r\n"), ('S', "227-listening\r\n"), ('S', SECOND)],
    ),
    (
        "a multi-line 227 with its address in the first line",
        &[
            ('C', "PASV\r\n"),
            ('S', "227-Passive (192,0,2,1,156,67)\r\n227 End\r\n"),
        ],
    ),
    (
        "a multi-line 229 with its port in the middle",
        &[
            ('C', "EPSV\r\n"),
            ('S', "229-Passive\r\n (|||40003|)\r\n229 End\r\n"),
        ],
    ),
    (
        "EPSV ALL ends with REIN",
        &[
            ('C', "EPSV ALL\r\n"),
            ('S', "200 \r\n"),
            ('C', "REIN\r\n"),
            ('S', "120 wait\r\n220 \r\n"),
            ('C', "PASV\r\n"),
            ('S', SECOND),
        ],
    ),
];

#[test]
fn a_deviation_of_healthy_sessions_costs_no_announcement() {
    for (what, lines) in OPENING {
        let mut talk = Talk::new();
        for (from, line) in lines {
            match from {
                'C' => talk.client(line),
                _ => talk.server(line),
            };
        }
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40003"], "{what}");
        let refusals = talk.record.events.iter().filter(|event| event.is_refusal());
        assert_eq!(refusals.count(), 0, "{what}");
        // And the next transfer as well.
        talk.client("PASV\r\n").server(FIRST);
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"], "{what}");
    }
}

#[test]
fn telnet_signals_are_skipped_though_their_urgent_byte_is_missing() {
    let signals: [&[u8]; 4] = [
        b"\xff\xf4\xff\xf2",
        b"\xff\xf4\xf2",
        b"\xf2",
        b"\xff\xfb\x06",
    ];
    for signal in signals {
        let mut talk = Talk::new();
        talk.client("PORT 10,0,0,9,19,136\r\n").server("200 \r\n");
        talk.client([signal, b"ABOR\r\n"].concat());
        assert_eq!(talk.open(), [""; 0], "{signal:?}");
        talk.server("225 \r\n")
            .client([signal, b"PASV\r\n"].concat());
        talk.server([signal, SECOND.as_bytes()].concat());
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40003"], "{signal:?}");
    }
}

#[test]
fn a_late_reply_does_not_withdraw_active_mode() {
    let mut talk = Talk::new();
    talk.client("RETR x\r\n")
        .server("150 \r\n")
        .client("ABOR\r\n")
        .server("226 \r\n");
    talk.client("PORT 10,0,0,9,19,136\r\n").server("200 \r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5000"]);
    // A refusal still does.
    talk.client("PORT 10,0,0,9,19,137\r\n").server("500 \r\n");
    assert_eq!(talk.open(), [""; 0]);
}

#[test]
fn a_227_that_announces_nothing_answers_the_command_that_waits() {
    let mut talk = Talk::new();
    talk.client("QUIT\r\n").server("227 Logout.\r\n");
    talk.refuses(&[]);
    assert!(talk.control.helper().is_at_rest());
    talk.client("PASV\r\n").server("227 Logout.\r\n");
    talk.refuses(&["malformed_reply"]);
}

#[test]
fn stray_replies_are_counted() {
    let mut talk = Talk::new();
    talk.server("220 again\r\n")
        .client("NOOP\r\n")
        .server("200 \r\n200 \r\n");
    talk.refuses(&["stray_reply"; 2]);
}

#[test]
fn a_227_announces_the_server_whatever_unicast_address_it_names() {
    for address in ["203,0,113,7", "0,0,0,0", "127,0,0,1", "10,0,0,9"] {
        let mut talk = Talk::new();
        talk.client("PASV\r\n")
            .server(format!("227 ({address},156,66)\r\n"));
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"], "{address}");
        assert_eq!(talk.events(), ["foreign_address_ignored"]);
    }
    for address in ["224,0,0,1", "255,255,255,255", "0,0,0,7", "240,0,0,1"] {
        let mut talk = Talk::new();
        talk.client("PASV\r\n")
            .server(format!("227 ({address},156,66)\r\n"));
        talk.refuses(&["bounce_refused"]);
    }
    let mut talk = Talk::with(Settings::default(), v6());
    talk.client("EPSV\r\n")
        .server("227 (203,0,113,7,156,66)\r\n");
    assert_eq!(talk.open(), ["2001:db8::9 -> [2001:db8::1]:40002"]);
}

#[test]
fn a_listed_public_address_of_a_client_stands_for_its_own() {
    let settings = Settings {
        active_addresses: vec!["203.0.113.0/24".parse().unwrap()],
        ..Settings::default()
    };
    for line in [
        "PORT 203,0,113,5,19,136\r\n",
        "EPRT |1|203.0.113.5|5000|\r\n",
    ] {
        let mut talk = Talk::with(settings.clone(), v4());
        talk.client(line);
        assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5000"]);
        let mut talk = Talk::new();
        talk.client(line);
        talk.refuses(&["bounce_refused"]);
    }
}

#[test]
fn a_server_whose_lines_end_with_a_line_feed_is_understood() {
    let greeted = |greeting: &str| {
        let mut talk = Talk::unbegun(Settings::default(), v4());
        for (from, next) in Direction::BOTH.into_iter().zip(talk.next) {
            talk.control.begins(from, next);
        }
        talk.server(greeting);
        talk
    };
    for greeting in ["220 ready\n", "220-a\n220-b\n220 ready\n"] {
        let mut talk = greeted(greeting);
        for port in [66, 67] {
            talk.client("TYPE I\r\n").server("200 ok\n");
            talk.client("PASV\r\n")
                .server(format!("227-x\n227 (192,0,2,1,156,{port})\n"));
            assert_eq!(
                talk.open(),
                [format!("10.0.0.9 -> 192.0.2.1:{}", 39_936 + port)]
            );
        }
    }
    // Only texts that come from files, and the 227.
    let mut talk = greeted("220-a\n220-b\n220 ready\r\n");
    talk.client("USER a\r\n").server("331 \r\n");
    talk.client("PASS b\r\n").server("230-a\n230-b\n230 in\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,156,66)\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"]);
    assert_eq!(talk.events(), [""; 0]);
    // Text after a line feed there announces nothing.
    talk.client("PASV\r\n").server("227 (192,0,2,1,156,67)\r\n");
    assert_eq!(talk.events(), ["malformed_reply"]);
}

#[test]
fn a_line_feed_that_the_server_may_echo_ends_no_multi_line_reply() {
    let mut talk = Talk::new();
    talk.client("STAT x\n213 End\r\nPASV\r\n");
    talk.server("213-Status of x\n213 End\r\n227 (192,0,2,1,19,136)\r\n213 End\r\n");
    talk.refuses(&[]);
}
