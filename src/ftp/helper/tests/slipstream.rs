//! NAT slipstreaming: a page makes its browser send text that resembles commands.

use super::*;

/// A session of which nothing was sent.
fn silent() -> Talk {
    let mut talk = Talk::unbegun(Settings::default(), v4());
    for (from, next) in Direction::BOTH.into_iter().zip(talk.next) {
        talk.control.begins(from, next);
    }
    talk
}

const POST: &str =
    "POST / HTTP/1.1\r\nHost: evil.example:2121\r\nContent-Length: 70000\r\n\r\nx\r\n";

#[test]
fn a_request_of_http_ends_inspection() {
    let requests = [
        POST,
        "GET / HTTP/1.1\r\n",
        "put /x HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
        "REPORT /x HTTP/1.1\r\n",
        "USER / HTTP/1.1\r\n",
        "NOOP x HTTP/1.1\r\nHost: evil.example:21\r\n",
        // STUN, whose attributes a page may choose (RFC 8489).
        "\0\u{3}\u{10}\u{2}!\u{12}xyz\r\n",
    ];
    for request in requests {
        for greeted in [false, true] {
            let mut talk = silent();
            if greeted {
                talk.server("220 ready\r\n");
            }
            talk.client(request);
            assert!(talk.control.helper().is_opaque(), "{request}");
            talk.client("PORT 10,0,0,9,19,136\r\nPASV\r\n");
            talk.server("220 ready\r\n227 (192,0,2,1,19,136)\r\n");
            talk.client("PORT 10,0,0,9,19,136\r\n");
            talk.refuses(&["not_ftp"]);
        }
    }
    // In the middle of a session as well, and announcements are withdrawn.
    let mut talk = Talk::new();
    talk.client("PORT 10,0,0,9,19,136\r\n").client(POST);
    assert_eq!(talk.events(), ["expectation_withdrawn", "not_ftp"]);
    assert_eq!(talk.open(), [""; 0]);
}

#[test]
fn commands_of_ftp_are_no_request_of_http() {
    let mut talk = Talk::new();
    for line in [
        "OPTS UTF8 ON\r\n",
        "DELE x\r\n",
        "HELP\r\n",
        "RETR a HTTP/1.1\r\n",
        "SITE GET\r\n",
    ] {
        talk.client(line).server("200 ok\r\n");
    }
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    assert_eq!(talk.open().len(), 1);
}

#[test]
fn nothing_opens_before_the_greeting() {
    let mut talk = silent();
    talk.client("PORT 10,0,0,9,19,136\r\n");
    talk.client("EPRT |1|10.0.0.9|5000|\r\n");
    talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
    talk.refuses(&["not_greeted"; 3]);
    // No other reply is a greeting.
    let mut talk = silent();
    talk.server("200 ok\r\n")
        .client("EPSV\r\n")
        .server("229 (|||5000|)\r\n");
    talk.refuses(&["not_greeted"]);
    talk.server("220 ready\r\n")
        .client("EPSV\r\n")
        .server("229 (|||5000|)\r\n");
    assert_eq!(talk.open().len(), 1);
}

#[test]
fn a_client_that_guesses_is_not_listened_to_any_more() {
    let mut talk = Talk::new();
    let mut body = String::from("x\r\n");
    for guess in (0..250).rev() {
        body += &format!("PORT 10,0,0,{guess},12,234\r\n");
    }
    for part in body.as_bytes().chunks(1400) {
        talk.client(part);
    }
    talk.refuses(&[
        "bounce_refused",
        "bounce_refused",
        "bounce_refused",
        "bounce_refused",
        "too_many_refused",
    ]);
    // As many as the setting allows, regardless of their faults and of the lines in between.
    for (max_refused, opens) in [(1, 0), (2, 0), (3, 0), (4, 1), (0, 1)] {
        let settings = Settings {
            max_refused,
            ..Settings::default()
        };
        let mut talk = Talk::with(settings, v4());
        for line in [
            "PORT 10,0,0,9,0,22\r\n",
            "EPRT x\r\n",
            "PORT 10,0,0,7,9,9\r\n",
        ] {
            talk.client(line).server("500 no\r\n");
            talk.client("PASV\r\n").server("227 (192,0,2,1,19,136)\r\n");
        }
        talk.client("ABOR\r\n").client("PORT 10,0,0,9,19,137\r\n");
        assert_eq!(talk.open().len(), opens, "{max_refused}");
    }
}
