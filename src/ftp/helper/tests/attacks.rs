use super::*;

#[test]
fn a_client_may_not_announce_another_host() {
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,10,19,136\r\n")
        .server("200 ok\r\n");
    talk.client("EPRT |1|10.0.0.10|5000|\r\n")
        .server("200 ok\r\n");
    talk.client("EPRT |2|2001:db8::9|5000|\r\n")
        .server("200 ok\r\n");
    talk.refuses(&["bounce_refused"; 3]);
}

#[test]
fn another_host_that_a_server_announces_is_expected_only_if_it_is_listed() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n")
        .server("227 (192,168,1,5,19,136)\r\n");
    assert_eq!(
        talk.open(),
        ["10.0.0.9 -> 192.0.2.1:5000"],
        "its own address"
    );
    let settings = Settings {
        passive_addresses: vec!["192.168.1.0/24".parse().unwrap()],
        ..Settings::default()
    };
    let mut talk = Talk::with(settings, v4());
    talk.client("PASV\r\n")
        .server("227 (192,168,1,5,19,136)\r\n");
    assert_eq!(
        talk.open(),
        ["10.0.0.9 -> 192.0.2.1:5000", "10.0.0.9 -> 192.168.1.5:5000"]
    );
    talk.client("ABOR\r\n");
    assert_eq!(talk.open(), [""; 0]);
    talk.events();
    talk.record = Record::default();
    talk.client("PORT 192,168,1,5,19,136\r\n");
    talk.refuses(&["bounce_refused"]);
}

#[test]
fn low_ports_are_refused() {
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,9,3,255\r\n").server("200 ok\r\n");
    talk.client("EPRT |1|10.0.0.9|22|\r\n").server("200 ok\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,0,25)\r\n");
    talk.client("EPSV\r\n").server("229 (|||1023|)\r\n");
    talk.refuses(&["port_below_floor"; 4]);
    talk.client("PORT 10,0,0,9,4,0\r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:1024"]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let settings = Settings {
        max_refused: 0,
        ..Settings::default()
    };
    let mut talk = Talk::with(settings, v4());
    talk.client("PORT 10,0,0,265,19,136\r\n")
        .server("200 ok\r\n");
    talk.client("PORT 10,0,0,9,275,136\r\n")
        .server("200 ok\r\n");
    talk.client("PORT 10,0,0,9,0,0\r\n").server("200 ok\r\n");
    talk.client("EPRT |1|10.0.0.9|70536|\r\n")
        .server("200 ok\r\n");
    talk.client("PASV\r\n")
        .server("227 (192,0,2,257,19,136)\r\n");
    talk.client("EPSV\r\n").server("229 (|||70000|)\r\n");
    talk.client("EPSV\r\n").server("229 (|||0|)\r\n");
    talk.refuses(&["number_out_of_range"; 7]);
}

/// CERT VU#328867: the server's error text contains text that resembles a reply.
#[test]
fn a_227_that_the_server_echoes_is_no_reply() {
    let mut talk = Talk::new();
    talk.client("XXXX 227 (192,0,2,1,19,136)\r\n")
        .server("500 'XXXX 227 (192,0,2,1,19,136)': unknown\r\n");
    talk.client("PASV\r\n")
        .server("500 PASV 227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&[]);
}

/// CERT VU#328867: the client's small window or partial acknowledgments make the server begin a
/// segment with it.
#[test]
fn a_227_that_begins_a_segment_begins_no_line() {
    let mut talk = Talk::new();
    talk.client("PASV\r\nXX227 (192,0,2,1,19,136)\r\n");
    talk.server("500 'XX").server("227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&[]);
    // The beginning is retransmitted, in other pieces.
    let mut talk = Talk::new();
    talk.client("PASV\r\n").server("500 Invalid: '");
    let begin = talk.next[1].sub(14);
    talk.segment(Direction::Reply, begin, None, b"500 Inv");
    talk.segment(
        Direction::Reply,
        talk.next[1],
        None,
        b"227 (192,0,2,1,19,136)\r\n",
    );
    talk.refuses(&[]);
}

#[test]
fn a_227_behind_a_lost_beginning_is_no_reply() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n").lost(Direction::Reply, 14);
    talk.server("227 (192,0,2,1,19,136)\r\n").client("NOOP\r\n");
    talk.refuses(&["gap"]);
}

/// A server that treats a line feed alone as text, and echoes it.
#[test]
fn an_echoed_line_feed_begins_no_reply() {
    let mut talk = Talk::new();
    talk.client("PASV\nPASV\n227 (192,0,2,1,19,136)\r\n")
        .server("500 'PASV\nPASV\n227 (192,0,2,1,19,136)' not understood\r\n");
    talk.refuses(&["wrong_direction"]);
}

/// CERT VU#288905: lines of a multi-line reply that are not padded.
#[test]
fn a_227_within_a_multi_line_reply_is_no_reply() {
    let mut talk = Talk::new();
    talk.client("STAT x\r\nPASV\r\n").server(
        "213-Status\r\n227 (192,0,2,1,19,136)\r\n 227 (192,0,2,1,19,136)\r\n227-x\r\n\
         213-227 (192,0,2,1,19,136)\r\n",
    );
    talk.refuses(&[]);
    talk.server("213 End\r\n227 (192,0,2,1,19,137)\r\n");
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:5001"]);
}

/// NAT slipstreaming: a request whose body is cut so that a segment begins with a command.
#[test]
fn a_port_that_begins_a_segment_begins_no_line() {
    let mut talk = Talk::new();
    talk.client("POST / HTTP/1.1 aaaaaaaaaaaaaaa")
        .client("PORT 10,0,0,9,19,136\r\n");
    talk.refuses(&["not_ftp"]);
    let mut talk = Talk::new();
    talk.client("STOR aaaaaaaaaaaaaaaaaaaaaaaaa")
        .client("PORT 10,0,0,9,19,136\r\n");
    talk.refuses(&[]);
    let mut talk = Talk::new();
    talk.client("x".repeat(9_000))
        .client("PORT 10,0,0,9,19,136\r\n");
    talk.refuses(&["line_too_long"]);
    let mut talk = Talk::new();
    talk.lost(Direction::Original, 100)
        .client("PORT 10,0,0,9,19,136\r\n")
        .server("500 ?\r\n");
    talk.refuses(&["gap"]);
}

#[test]
fn a_command_counts_when_its_line_has_ended() {
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,9,19,13");
    talk.refuses(&[]);
    talk.client("6");
    talk.refuses(&[]);
    talk.client("\r\n");
    assert_eq!(talk.open(), ["192.0.2.1 -> 10.0.0.9:5000"]);
}

#[test]
fn replies_of_a_client_and_commands_of_a_server_open_nothing() {
    let mut talk = Talk::new();
    talk.client("PASV\r\n227 (192,0,2,1,19,136)\r\n229 (|||5000|)\r\n");
    talk.server("PORT 10,0,0,9,19,136\r\nEPRT |1|10.0.0.9|5000|\r\n");
    talk.refuses(&["wrong_direction"; 4]);
}

#[test]
fn a_reply_that_nobody_asked_for_opens_nothing() {
    let mut talk = Talk::new();
    talk.server("227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["unsolicited_reply"]);
    for command in ["NOOP\r\n", "PORT 10,0,0,9,1,1\r\n", "QUIT\r\n"] {
        talk.client(command).server("229 (|||5000|)\r\n");
    }
    talk.refuses(&[
        "unsolicited_reply",
        "port_below_floor",
        "unsolicited_reply",
        "unsolicited_reply",
    ]);
    let mut talk = Talk::new();
    talk.client("PASV\r\n")
        .server("421 bye\r\n227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["unsolicited_reply"]);
}

#[test]
fn a_command_sent_again_as_another_opens_nothing() {
    let mut talk = Talk::new();
    let begin = talk.next[0];
    talk.client("PORT 10,0,0,9,19,1");
    talk.segment(Direction::Original, begin, None, b"PORT 10,0,0,9,99,1");
    talk.client("36\r\n").server("200 ok\r\n");
    talk.refuses(&["conflicting_retransmission", "gap"]);
}

#[test]
fn long_lines_announce_nothing() {
    let mut talk = Talk::new();
    let pad = " ".repeat(9_000);
    talk.client(format!("PORT 10,0,0,9,19,136{pad}\r\n"))
        .server("200 ok\r\n");
    talk.client("PASV\r\n")
        .server(format!("227 (192,0,2,1,19,136){pad}\r\n"));
    talk.refuses(&["line_too_long"; 2]);
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open().len(), 1, "a long line is one line");
}

#[test]
fn thousands_of_announcements_have_one_expectation_and_bounded_memory() {
    let mut talk = Talk::new();
    for n in 0..10_000_u32 {
        talk.client(format!("PORT 10,0,0,9,{},{}\r\n", 4 + n % 250, n % 256));
        assert!(talk.record.open.len() <= 1);
        assert!(talk.control.memory() < 2048, "{}", talk.control.memory());
    }
    assert!(talk.events().contains(&"pipeline_full"));
    let mut talk = Talk::new();
    for n in 0..10_000_u32 {
        let seq = talk.next[0].add(1 + n * 37 % 100_000);
        talk.segment(Direction::Original, seq, None, &[b'P'; 64]);
        talk.segment(
            Direction::Reply,
            talk.next[1].add(2 + n % 9000),
            None,
            b"227",
        );
        assert!(talk.control.memory() < 140_000, "{}", talk.control.memory());
    }
    talk.control.shed();
    assert!(talk.control.memory() < 1024);
}

#[test]
fn lprt_and_lpsv_are_refused() {
    let mut talk = Talk::new();
    talk.client("LPRT 4,4,10,0,0,9,2,19,136\r\n")
        .server("200 ok\r\n");
    talk.client("LPSV\r\n")
        .server("228 (4,4,192,0,2,1,2,19,136)\r\n");
    talk.refuses(&["lprt_refused"; 2]);
}
