//! Stories of resets that close, pass, or are invalid.

use super::story::{tell, tell_from};

/// The initiator expects 1001 next and has a window of 1000, so it accepts numbers up to 2001.
const RECEIVED_A_THOUSAND: &str = "> S 0              | SYN_SENT, opened
                                   < SA 0 ack 1       | SYN_RECV
                                   > A 1 ack 1        | ESTABLISHED, assured
                                   < PA 1+1000 ack 1  | ESTABLISHED, until tcp.unacknowledged
                                   > A 1 ack 1001     | ESTABLISHED";

#[test]
fn a_reset_is_judged_by_its_number() {
    for (name, reset, fate) in [
        ("exact", "< R 1001 win 0", "CLOSE"),
        ("exact, with ACK", "< RA 1001 ack 1", "CLOSE"),
        (
            "one below",
            "< R 1000 win 0",
            "ESTABLISHED, invalid (old RST)",
        ),
        (
            "far below",
            "< R -99999 win 0",
            "ESTABLISHED, invalid (old RST)",
        ),
        ("one above", "< R 1002 win 0", "ESTABLISHED, passed (RST)"),
        (
            "within the window",
            "< R 1500 win 0",
            "ESTABLISHED, passed (RST)",
        ),
        (
            "the window's last number",
            "< R 2001 win 0",
            "ESTABLISHED, passed (RST)",
        ),
        (
            "a window above the window",
            "< R 3001 win 0",
            "ESTABLISHED, invalid (I)",
        ),
        (
            "far above the window",
            "< R 1000000 win 0",
            "ESTABLISHED, invalid (I)",
        ),
        (
            "exact, but acknowledges what was never sent",
            "< RA 1001 ack 2",
            "ESTABLISHED, invalid (III)",
        ),
        ("the other direction, exact", "> R 1 win 0", "CLOSE"),
        (
            "the other direction, below",
            "> R 0 win 0",
            "ESTABLISHED, invalid (old RST)",
        ),
        (
            "the other direction, above",
            "> R 2 win 0",
            "ESTABLISHED, passed (RST)",
        ),
    ] {
        tell(name, &format!("{RECEIVED_A_THOUSAND}\n{reset} | {fate}"));
    }
}

#[test]
fn a_challenged_reset_leaves_the_connection_alive() {
    tell(
        "not exact, challenge ACK, exact",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < R 1500 win 0  | ESTABLISHED, passed (RST)
             > A 1 ack 1001  | ESTABLISHED
             < R 1001 win 0  | CLOSE"
        ),
    );
    tell(
        "a forgery: the connection goes on",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < R 1500 win 0        | ESTABLISHED, passed (RST)
             > A 1 ack 1001        | ESTABLISHED   # the challenge
             < PA 1001+600 ack 1   | ESTABLISHED, until tcp.unacknowledged
             > A 1 ack 1601        | ESTABLISHED
             > PA 1+10 ack 1601    | ESTABLISHED, until tcp.unacknowledged
             < A 1601 ack 11       | ESTABLISHED"
        ),
    );
}

#[test]
fn four_bad_resets_are_invalid_and_the_exact_one_closes() {
    tell(
        "out of window resets",
        "> S 0 win 65535 sackok wscale 8     | SYN_SENT, opened
         < SA 0 ack 1 win 65535              | SYN_RECV
         > A 1 ack 1 win 65535               | ESTABLISHED, assured
         < A 1+1000 ack 1 win 65535          | ESTABLISHED, until tcp.unacknowledged
         < A 1001+1000 ack 1 win 65535       | ESTABLISHED, until tcp.unacknowledged
         < A 2001+1000 ack 1 win 65535       | ESTABLISHED, until tcp.unacknowledged
         > A 1 ack 1001 win 65535            | ESTABLISHED, until tcp.unacknowledged
         > A 1 ack 2001 win 65535            | ESTABLISHED, until tcp.unacknowledged
         > A 1 ack 3001 win 65535            | ESTABLISHED
         < R 0 win 0                         | ESTABLISHED, invalid (old RST)
         < R 1000000 win 0                   | ESTABLISHED, invalid (I)
         < R 42 win 0                        | ESTABLISHED, invalid (old RST)
         > PA 1+1000 ack 3001 win 65535      | ESTABLISHED, until tcp.unacknowledged
         < A 3001 ack 1001 win 65535         | ESTABLISHED
         < RA 3000 ack 1001 win 0            | ESTABLISHED, invalid (old RST)
         < RA 3001 ack 1001 win 0            | CLOSE",
    );
}

#[test]
fn a_reset_right_behind_its_own_data_closes() {
    tell(
        "data and RST in one train, the data not acknowledged yet",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < PA 1001+19 ack 1  | ESTABLISHED, until tcp.unacknowledged
             < RA 1020 ack 1     | CLOSE"
        ),
    );
    tell(
        "without the flag ACK, and after an ACK of the same number",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < PA 1001+19 ack 1  | ESTABLISHED, until tcp.unacknowledged
             < A 1020 ack 1      | ESTABLISHED, until tcp.unacknowledged
             < R 1020 win 0      | CLOSE"
        ),
    );
    tell(
        "after a FIN",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < FA 1001+19 ack 1  | FIN_WAIT, until tcp.unacknowledged
             < R 1021 win 0      | CLOSE"
        ),
    );
    for ahead in ["PA 1500+19", "FA 1500+18", "A 1519"] {
        let state = if ahead.starts_with('F') {
            "FIN_WAIT"
        } else {
            "ESTABLISHED"
        };
        tell(
            "ahead of a hole",
            &format!(
                "{RECEIVED_A_THOUSAND}
                 < {ahead} ack 1   | {state}, until tcp.unacknowledged
                 < R 1519 win 0    | {state}, passed (RST)"
            ),
        );
    }
    tell(
        "the other end has spoken since",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < PA 1001+19 ack 1    | ESTABLISHED, until tcp.unacknowledged
             > PA 1+10 ack 1001    | ESTABLISHED, until tcp.unacknowledged
             < RA 1020 ack 11      | ESTABLISHED, passed (RST)"
        ),
    );
}

#[test]
fn an_old_reset_closes_nothing_even_right_behind_an_old_segment() {
    tell(
        "a repeated segment, then a RST of its number",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < A 1+500 ack 1     | ESTABLISHED
             < R 501 win 0       | ESTABLISHED, invalid (old RST)"
        ),
    );
}

#[test]
fn a_reset_right_behind_a_segment_ahead_of_a_hole_closes_nothing() {
    tell(
        "an ACK whose number lies in the window, and a RST of the same number",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < PA 1001+500 ack 1  | ESTABLISHED, until tcp.unacknowledged
             < A 1200 ack 1       | ESTABLISHED, until tcp.unacknowledged
             < R 1200 win 0       | ESTABLISHED, passed (RST)"
        ),
    );
    tell(
        "ahead of all data",
        &format!(
            "{RECEIVED_A_THOUSAND}
             < A 1500 ack 1          | ESTABLISHED, until tcp.unacknowledged
             < R 1500 win 0          | ESTABLISHED, passed (RST)
             < RA 1500 ack 1 win 0   | ESTABLISHED, passed (RST)"
        ),
    );
}

/// An acknowledgment number of 0 in a RST is an ordinary number, for any initial number.
#[test]
fn a_zero_acknowledgment_is_not_perfect() {
    for (name, initial, fate) in [
        ("0 lies far behind", 1_000_000, "ESTABLISHED, passed (RST)"),
        (
            "0 lies ahead of all that was sent",
            u32::MAX - 10_000,
            "ESTABLISHED, invalid (III)",
        ),
        (
            "0 lies within the acknowledgments that may still arrive",
            65_000,
            "CLOSE",
        ),
        ("0 is what was sent last, by chance", u32::MAX, "CLOSE"),
    ] {
        tell_from(
            name,
            (initial, 77),
            &format!("{RECEIVED_A_THOUSAND}\n< RA 1001 ack =0 win 0 | {fate}"),
        );
        tell_from(
            "without the flag the number means nothing",
            (initial, 77),
            &format!("{RECEIVED_A_THOUSAND}\n< R 1001 ack =0 win 0 | CLOSE"),
        );
    }
}

#[test]
fn a_refused_connection_ends_at_once() {
    for (name, reset, fate) in [
        ("refused", "< RA =0 ack 1 win 0", "gone"),
        (
            "refused, by a number of its own",
            "< RA 4711 ack 1 win 0",
            "gone",
        ),
        (
            "an answer to something else",
            "< RA =0 ack 3 win 0",
            "SYN_SENT, invalid (III)",
        ),
        ("taken back by the initiator", "> R 1 win 0", "gone"),
        ("beyond the SYN", "> R 2 win 0", "SYN_SENT, invalid (I)"),
    ] {
        tell(name, &format!("> S 0 | SYN_SENT, opened\n{reset} | {fate}"));
    }
}

#[test]
fn only_an_exact_reset_in_the_handshake_closes() {
    let begin = "> S 0 | SYN_SENT, opened
                 < SA 0 ack 1 | SYN_RECV";
    for (name, reset, fate) in [
        ("of the responder", "< RA 1 ack 1", "CLOSE"),
        ("of the initiator", "> R 1", "CLOSE"),
        (
            "of the initiator, old",
            "> R -1",
            "SYN_RECV, invalid (old RST)",
        ),
        ("of the initiator, ahead", "> R 2", "SYN_RECV, passed (RST)"),
        (
            "of the responder, ahead",
            "< R 900",
            "SYN_RECV, passed (RST)",
        ),
        (
            "of the responder, far ahead",
            "< R 90000",
            "SYN_RECV, invalid (I)",
        ),
        (
            "of the responder, number 0 and the right acknowledgment",
            "< RA =0 ack 1",
            "SYN_RECV, passed (RST)",
        ),
        (
            "a refusal: who waits for the SYN-ACK takes it",
            "< RA 90000 ack 1",
            "SYN_RECV, passed (RST)",
        ),
    ] {
        tell(name, &format!("{begin}\n{reset} | {fate}"));
    }
}

/// Once a connection is closed, its numbers may be outdated: no stray reset of it is invalid.
#[test]
fn a_closed_connection_lets_any_reset_pass() {
    tell(
        "FIN, ACK, a RST for unread data, and a late RST of the other end",
        "> S 0 win 65535 sackok wscale 8     | SYN_SENT, opened
         < SA 0 ack 1 win 65535              | SYN_RECV
         > A 1 ack 1 win 65535               | ESTABLISHED, assured
         < A 1+3000 ack 1 win 65535          | ESTABLISHED, until tcp.unacknowledged
         > A 1 ack 3001 win 65535            | ESTABLISHED
         > PA 1+1000 ack 3001 win 65535      | ESTABLISHED, until tcp.unacknowledged
         < FA 3001 ack 1001 win 65535        | FIN_WAIT, until tcp.unacknowledged
         > A 1001 ack 3002 win 65535         | CLOSE_WAIT
         > RA 1001 ack 3002 win 0            | CLOSE
         < R 2001 win 0                      | CLOSE, passed (RST)
         < R -70000 win 0                    | CLOSE, passed (RST)",
    );
}
