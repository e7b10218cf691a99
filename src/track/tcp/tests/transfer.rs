//! Stories of data: losses, repetitions, probes and windows.

use super::story::{tell, tell_from};

const HANDSHAKE: &str = "> S 0 sackok         | SYN_SENT, opened
                         < SA 0 ack 1 sackok  | SYN_RECV
                         > A 1 ack 1          | ESTABLISHED, assured";

#[track_caller]
fn tell_established(name: &'static str, lines: &str) {
    tell(name, &format!("{HANDSHAKE}\n{lines}"));
}

#[test]
fn lost_data_comes_again() {
    tell_established(
        "the second of three segments is lost behind us",
        "> PA 1+300 ack 1                | ESTABLISHED, until tcp.unacknowledged
         > PA 301+300 ack 1              | ESTABLISHED, until tcp.unacknowledged
         > PA 601+300 ack 1              | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 301                   | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 301 sack 601:901      | ESTABLISHED, until tcp.unacknowledged
         > PA 301+300 ack 1              | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 901                   | ESTABLISHED",
    );
    tell_established(
        "the second of three segments is lost before us",
        "> PA 1+300 ack 1                | ESTABLISHED, until tcp.unacknowledged
         > PA 601+300 ack 1              | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 301 sack 601:901      | ESTABLISHED, until tcp.unacknowledged
         > PA 301+300 ack 1              | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 901                   | ESTABLISHED",
    );
    tell_established(
        "the ACK is lost behind us: the data comes again, and the ACK again",
        "> PA 1+300 ack 1                | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 301                   | ESTABLISHED
         > PA 1+300 ack 1                | ESTABLISHED
         < A 1 ack 301                   | ESTABLISHED",
    );
}

/// A client whose ACK was lost retransmits data that is more than a window old. If the data were
/// dropped, the ACK would never be repeated, and the connection would stall.
#[test]
fn data_that_was_acknowledged_long_ago_passes() {
    for initial in [(1, 1), (u32::MAX - 30_000, 0x7fff_fff0)] {
        let mut story = tell_from(
            "an acknowledged segment comes again, 46 segments later",
            initial,
            "> S 0 win 32792          | SYN_SENT, opened
             < SA 0 ack 1 win 65535   | SYN_RECV
             > A 1 ack 1 win 65535    | ESTABLISHED, assured",
        );
        for number in 0..46 {
            let seq = 1 + number * 1460;
            story.goes_on(&format!(
                "> PA {seq}+1460 ack 1 win 257   | ESTABLISHED, until tcp.unacknowledged
                 < A 1 ack {} win 65535          | ESTABLISHED",
                seq + 1460
            ));
        }
        story.goes_on(
            "> PA 1+1460 ack 1 win 257     | ESTABLISHED, passed (II)
             < A 1 ack 67161 win 65535     | ESTABLISHED
             > PA 67161+1460 ack 1 win 257 | ESTABLISHED, until tcp.unacknowledged",
        );
    }
}

#[test]
fn a_segment_that_comes_four_times_cuts_the_lifetime() {
    tell_established(
        "data that nobody answers",
        "> PA 1+300 ack 1   | ESTABLISHED, until tcp.unacknowledged
         > PA 1+300 ack 1   | ESTABLISHED, until tcp.unacknowledged
         > PA 1+300 ack 1   | ESTABLISHED, until tcp.unacknowledged
         > PA 1+300 ack 1   | ESTABLISHED, until tcp.retransmitted
         > PA 1+300 ack 1   | ESTABLISHED, until tcp.retransmitted
         < A 1 ack 301      | ESTABLISHED",
    );
    for (name, other) in [
        ("another length", "> PA 1+301 ack 1"),
        ("another number", "> PA 2+299 ack 1"),
        ("another acknowledgment", "> PA 1+300 ack 0"),
        ("another window", "> PA 1+300 ack 1 win 999"),
    ] {
        tell_established(
            name,
            &format!(
                "> PA 1+300 ack 1  | ESTABLISHED, until tcp.unacknowledged
                 > PA 1+300 ack 1  | ESTABLISHED, until tcp.unacknowledged
                 > PA 1+300 ack 1  | ESTABLISHED, until tcp.unacknowledged
                 {other}           | ESTABLISHED, until tcp.unacknowledged
                 > PA 1+300 ack 1  | ESTABLISHED, until tcp.unacknowledged"
            ),
        );
    }
}

#[test]
fn a_keepalive_and_its_answer_refresh_the_session() {
    for (name, keepalive) in [
        ("without data", "> A 100 ack 1"),
        ("with one byte", "> A 100+1 ack 1"),
    ] {
        tell_established(
            name,
            &format!(
                "> PA 1+100 ack 1  | ESTABLISHED, until tcp.unacknowledged
                 < A 1 ack 101     | ESTABLISHED
                 {keepalive}       | ESTABLISHED
                 < A 1 ack 101     | ESTABLISHED
                 {keepalive}       | ESTABLISHED
                 < A 1 ack 101     | ESTABLISHED
                 {keepalive}       | ESTABLISHED
                 < A 1 ack 101     | ESTABLISHED
                 {keepalive}       | ESTABLISHED
                 < A 1 ack 101     | ESTABLISHED
                 < A 0 ack 101     | ESTABLISHED
                 > A 101 ack 1     | ESTABLISHED"
            ),
        );
    }
    tell_established(
        "keepalives that nobody answers keep nothing alive",
        "> A 0 ack 1  | ESTABLISHED
         > A 0 ack 1  | ESTABLISHED
         > A 0 ack 1  | ESTABLISHED
         > A 0 ack 1  | ESTABLISHED, until tcp.retransmitted",
    );
}

#[test]
fn a_closed_window_admits_a_probe_and_opens_again() {
    tell_established(
        "one byte beyond a window of zero",
        "> PA 1+1000 ack 1          | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 1001 win 0       | ESTABLISHED, until tcp.retransmitted
         > A 1001+1 ack 1           | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 1001 win 0       | ESTABLISHED, until tcp.unacknowledged
         > A 1001+1 ack 1           | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 1002 win 500     | ESTABLISHED
         > PA 1002+500 ack 1        | ESTABLISHED, until tcp.unacknowledged",
    );
}

#[test]
fn an_overshot_window_does_not_make_its_acknowledgment_invalid() {
    tell_established(
        "a sender that has misread the window",
        "> PA 1+1000 ack 1     | ESTABLISHED, until tcp.unacknowledged
         > PA 1002+300 ack 1   | ESTABLISHED, passed (I)
         < A 1 ack 1302        | ESTABLISHED
         > PA 1302+10 ack 1    | ESTABLISHED, until tcp.unacknowledged",
    );
    tell_established(
        "by more than a window",
        "> PA 1+1000 ack 1       | ESTABLISHED, until tcp.unacknowledged
         > PA 1002+1000 ack 1    | ESTABLISHED, invalid (I)
         < A 1 ack 2002          | ESTABLISHED, invalid (III)
         < A 1 ack 1001          | ESTABLISHED",
    );
}

#[test]
fn a_window_that_shrinks_takes_nothing_back() {
    tell_established(
        "what was offered once may be in flight",
        "> PA 1+100 ack 1          | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 101 win 2000    | ESTABLISHED
         < A 1 ack 101 win 10      | ESTABLISHED
         > PA 101+1400 ack 1       | ESTABLISHED, until tcp.unacknowledged
         > PA 1501+600 ack 1       | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 2101 win 2000   | ESTABLISHED",
    );
}

#[test]
fn selective_acknowledgments_count_where_they_were_permitted() {
    let data = "> PA 1+300 ack 1   | ESTABLISHED, until tcp.unacknowledged
                > PA 301+300 ack 1 | ESTABLISHED, until tcp.unacknowledged";
    for (name, syn, fate) in [
        (
            "permitted by the sender of the data",
            "sackok",
            "invalid (III)",
        ),
        (
            "not permitted: no more than padding",
            "",
            "until tcp.unacknowledged",
        ),
    ] {
        tell(
            name,
            &format!(
                "> S 0 {syn}                             | SYN_SENT, opened
                 < SA 0 ack 1                            | SYN_RECV
                 > A 1 ack 1                             | ESTABLISHED, assured
                 {data}
                 < A 1 ack 1 sack 301:601                | ESTABLISHED, until tcp.unacknowledged
                 < A 1 ack 1 sack 301:602 win 999        | ESTABLISHED, {fate}
                 < A 1 ack 1 sack 301:401 sack 501:9000 win 998  | ESTABLISHED, {fate}
                 < A 1 ack 1 sack 501:9000 sack 301:401 win 997  | ESTABLISHED, {fate}
                 < A 1 ack 601                           | ESTABLISHED"
            ),
        );
    }
}

#[test]
fn data_never_sent_cannot_be_acknowledged() {
    tell_established(
        "one byte too many",
        "> PA 1+300 ack 1    | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 302       | ESTABLISHED, invalid (III)
         < PA 1+10 ack 302   | ESTABLISHED, invalid (III)
         < FA 1 ack 302      | ESTABLISHED, invalid (III)
         > A 301 ack 2       | ESTABLISHED, invalid (III)
         < A 1 ack 301       | ESTABLISHED",
    );
}
