//! Cases in which Linux is too permissive, and the behavior here.

use super::story::{tell, tell_from};

const ESTABLISHED: &str = "> S 0         | SYN_SENT, opened
                           < SA 0 ack 1  | SYN_RECV
                           > A 1 ack 1   | ESTABLISHED, assured";

#[test]
fn an_invalid_answer_to_a_remembered_syn_changes_nothing() {
    tell(
        "SYN-ACK with a SACK block beyond the SYN",
        &format!(
            "{ESTABLISHED}
             > S 500 sackok                    | ESTABLISHED, passed (out of step)
             < SA 700 ack 501 sack 502:600     | ESTABLISHED, invalid (III)
             > PA 1+10 ack 1                   | ESTABLISHED, until tcp.unacknowledged"
        ),
    );
}

#[test]
fn a_refusal_must_acknowledge_the_syn_exactly() {
    tell(
        "one too many",
        "> S 0 | SYN_SENT, opened\n< RA =0 ack 2 win 0 | SYN_SENT, invalid (III)",
    );
}

#[test]
fn a_reset_above_the_window_is_invalid() {
    tell_from(
        "one above",
        (500, 9_000),
        &format!("{ESTABLISHED}\n< R 1002 win 0 | ESTABLISHED, invalid (I)"),
    );
}

#[test]
fn a_simultaneous_open_is_forgotten_when_a_new_handshake_begins() {
    tell(
        "the responder's ACK completes no handshake that the initiator has not",
        "> S 0           | SYN_SENT, opened
         < S 0           | SYN_SENT2
         > SA 0 ack 1    | SYN_RECV
         < SA 0 ack 1    | SYN_RECV
         < A 1 ack 1     | ESTABLISHED, assured
         > S 500         | ESTABLISHED, passed (out of step)
         < SA 700 ack 501 | SYN_RECV, resynced
         < A 701 ack 501 | SYN_RECV",
    );
}

#[test]
fn a_stale_syn_ack_does_not_hide_the_right_one() {
    tell(
        "SYN, stale SYN-ACK, right SYN-ACK",
        &format!(
            "{ESTABLISHED}
             > S 50000               | ESTABLISHED, passed (out of step)
             < SA 0 ack 1            | ESTABLISHED, passed (out of step)
             < SA 70000 ack 50001    | SYN_RECV, resynced"
        ),
    );
}

#[test]
fn a_passed_syn_does_not_make_an_inexact_reset_close() {
    tell(
        "forged SYN, forged RST",
        &format!(
            "{ESTABLISHED}
             < PA 1+500 ack 1  | ESTABLISHED, until tcp.unacknowledged
             > A 1 ack 501     | ESTABLISHED
             > S 50000         | ESTABLISHED, passed (out of step)
             < R 900 win 0     | ESTABLISHED, passed (RST)"
        ),
    );
}
