//! Stories of TCP Fast Open (RFC 7413), with the situations of packetdrill's scripts for clients: a
//! SYN with data that is refused, answered in part or late, and a server that sends before the
//! handshake is complete.

use super::story::tell;

const COOKIE_REQUEST: &str = "> S 0 win 65535 sackok wscale 8          | SYN_SENT, opened
                      < SA 0 ack 1 win 5840 sackok wscale 6    | SYN_RECV
                      > A 1 ack 1 win 256                      | ESTABLISHED, assured
                      > FA 1 ack 1 win 256                     | FIN_WAIT, until tcp.unacknowledged
                      < FA 1 ack 2 win 92                      | LAST_ACK, until tcp.unacknowledged
                      > A 2 ack 2 win 256                      | TIME_WAIT";

const SYN_WITH_DATA: &str = "> S 0+1420 win 65535 sackok wscale 8   | SYN_SENT, opened";

#[test]
fn the_request_of_a_cookie_is_an_ordinary_connection() {
    tell("cookie request", COOKIE_REQUEST);
}

/// The scripts whose names end in `errno`, and `poll`.
#[test]
fn a_refusal_of_a_syn_with_data_passes_whatever_it_acknowledges() {
    for (name, ack) in [("the SYN", 1), ("some data", 700), ("all data", 1421)] {
        tell(
            name,
            &format!(
                "{SYN_WITH_DATA}
                 < RA =0 ack {ack} win 0    | gone"
            ),
        );
        tell(
            "refused after the repetition without data",
            &format!(
                "{SYN_WITH_DATA}
                 > S 0 win 65535 sackok wscale 8   | SYN_SENT, kept
                 < RA =0 ack {ack} win 0           | gone"
            ),
        );
    }
    for (name, ack) in [("less than the SYN", 0), ("more than the data", 1422)] {
        tell(
            name,
            &format!(
                "{SYN_WITH_DATA}
                 < RA =0 ack {ack} win 0    | SYN_SENT, invalid (III)"
            ),
        );
    }
    tell(
        "an ordinary SYN is refused",
        "> S 0 win 65535 sackok wscale 8   | SYN_SENT, opened
         < RA =0 ack 1 win 0               | gone",
    );
    for (name, seq) in [("right after the SYN", 1), ("after its data", 1421)] {
        tell(
            name,
            &format!(
                "{SYN_WITH_DATA}
                 > R {seq} win 0    | gone"
            ),
        );
    }
}

#[test]
fn a_reset_after_the_handshake_closes() {
    tell(
        "SYN with data, SYN-ACK, ACK, RST",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 1421 win 5840 wscale 6   | SYN_RECV
             > A 1421 ack 1 win 256              | ESTABLISHED, assured
             < RA 1 ack 1421 win 0               | CLOSE"
        ),
    );
    tell(
        "before the third ACK",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 1421 win 5840 wscale 6   | SYN_RECV
             < RA 1 ack 1421 win 0               | CLOSE"
        ),
    );
    tell(
        "after data that nobody has acknowledged",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 1421 win 5840 wscale 6   | SYN_RECV
             < A 1+1000 ack 1421 win 92          | SYN_RECV, until tcp.unacknowledged
             < R 1001 win 0                      | CLOSE"
        ),
    );
}

#[test]
fn a_syn_with_data_that_nobody_answers_is_repeated_without() {
    tell(
        "timeout, then a server that acknowledges the SYN alone",
        &format!(
            "{SYN_WITH_DATA}
             > S 0 win 65535 sackok wscale 8           | SYN_SENT, kept
             < SA 0 ack 1 win 5840 sackok wscale 6     | SYN_RECV
             > PA 1+1420 ack 1 win 256                 | ESTABLISHED, assured
             < PA 1+1400 ack 1421 win 257              | ESTABLISHED, until tcp.unacknowledged
             > A 1421 ack 1401 win 256                 | ESTABLISHED"
        ),
    );
    tell(
        "timeout, and nothing else",
        &format!(
            "{SYN_WITH_DATA}
             > S 0 win 65535 sackok wscale 8           | SYN_SENT, kept
             > S 0 win 65535 sackok wscale 8           | SYN_SENT, kept"
        ),
    );
}

#[test]
fn a_server_may_acknowledge_a_part_of_the_data() {
    tell(
        "100 of 1420 bytes",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 101 win 65535 sackok wscale 6        | SYN_RECV
             > PA 101+1320 ack 1 win 256                     | ESTABLISHED, assured
             > PA 1421+2000 ack 1 win 256                    | ESTABLISHED, until tcp.unacknowledged
             < A 1 ack 101 win 257 sack 1101:3421            | ESTABLISHED, until tcp.unacknowledged
             > A 101+1000 ack 1 win 256                      | ESTABLISHED, until tcp.unacknowledged
             < A 1 ack 3421 win 257                          | ESTABLISHED"
        ),
    );
    tell(
        "100,000 bytes more than was sent",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 101421 win 5840 sackok wscale 6    | SYN_SENT, invalid (III)
             < SA 0 ack 1421 win 5840 sackok wscale 6      | SYN_RECV"
        ),
    );
}

/// The window of the client's SYN is an offer (RFC 7413 4.2.2).
#[test]
fn a_server_sends_before_the_third_ack() {
    tell(
        "data in the SYN-ACK and after it, then an ordinary end",
        &format!(
            "{SYN_WITH_DATA}
      < SA 0+1400 ack 1421 win 5840 sackok wscale 6 | SYN_RECV
      < A 1401+1400 ack 1421 win 257                | SYN_RECV, until tcp.unacknowledged
      < PA 2801+200 ack 1421 win 257                | SYN_RECV, until tcp.unacknowledged
      > A 1421 ack 1401 win 256                     | ESTABLISHED, assured, until tcp.unacknowledged
      > A 1421 ack 2801 win 256                     | ESTABLISHED, until tcp.unacknowledged
      > A 1421 ack 3001 win 256                     | ESTABLISHED
      > FA 1421 ack 3001 win 256                    | FIN_WAIT, until tcp.unacknowledged
      < FA 3001 ack 1422 win 257                    | LAST_ACK, until tcp.unacknowledged
      > A 1422 ack 3002 win 256                     | TIME_WAIT"
        ),
    );
    tell(
        "data and FIN",
        &format!(
            "{SYN_WITH_DATA}
             < SA 0 ack 1421 win 5840 sackok wscale 6   | SYN_RECV
             < A 1+1448 ack 1421 win 257                | SYN_RECV, until tcp.unacknowledged
             < A 1449+1448 ack 1421 win 257             | SYN_RECV, until tcp.unacknowledged
             < FA 2897+500 ack 1421 win 257             | FIN_WAIT, until tcp.unacknowledged
             > A 1421 ack 1 win 256                     | CLOSE_WAIT, until tcp.unacknowledged
             > A 1421 ack 3398 win 256                  | CLOSE_WAIT
             > FA 1421 ack 3398 win 256                 | LAST_ACK, until tcp.unacknowledged
             < A 3398 ack 1422 win 257                  | TIME_WAIT"
        ),
    );
    tell(
        "the SYN-ACK is lost behind us: the client repeats its SYN",
        &format!(
            "{SYN_WITH_DATA}
      < SA 0+1400 ack 1421 win 5840 sackok wscale 6 | SYN_RECV
      < A 1401+1400 ack 1421 win 257                | SYN_RECV, until tcp.unacknowledged
      > S 0 win 65535 sackok wscale 8               | SYN_RECV, passed (out of step)
      < SA 0+1400 ack 1421 win 5840 sackok wscale 6 | SYN_RECV, passed (out of step)
      > A 1421 ack 1401 win 256                     | ESTABLISHED, assured, until tcp.unacknowledged
      < A 1401+1400 ack 1421 win 257                | ESTABLISHED, until tcp.unacknowledged
      > A 1421 ack 2801 win 256                     | ESTABLISHED"
        ),
    );
    tell(
        "the SYN-ACK is lost before us: the data pass unseen",
        &format!(
            "{SYN_WITH_DATA}
             < A 1401+1400 ack 1421 win 257                  | SYN_SENT, passed (out of step)
             > S 0 win 65535 sackok wscale 8                 | SYN_SENT, kept
             < SA 0+1400 ack 1421 win 5840 sackok wscale 6   | SYN_RECV
             > A 1421 ack 1401 win 256                       | ESTABLISHED, assured"
        ),
    );
}

#[test]
fn two_syns_with_data_cross() {
    tell(
        "simultaneous Fast Open: each end takes the SYN alone, and the data come again",
        "> S 0+1000 win 65535 sackok wscale 8        | SYN_SENT, opened
         < S 0+500 win 14600 sackok wscale 6         | SYN_SENT2
         > SA 0 ack 1 win 65535 sackok wscale 8      | SYN_RECV
         < SA 0 ack 1001 win 14600 sackok wscale 6   | SYN_RECV
         < PA 1+500 ack 1000 win 257                 | ESTABLISHED, assured
         > A 1001 ack 501 win 256                    | ESTABLISHED
         > FA 1001 ack 501 win 256                   | FIN_WAIT, until tcp.unacknowledged
         < FA 501 ack 1002 win 257                   | LAST_ACK, until tcp.unacknowledged
         > A 1002 ack 502 win 256                    | TIME_WAIT",
    );
}
