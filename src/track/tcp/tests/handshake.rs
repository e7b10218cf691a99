//! Stories of handshakes under attack: the correct answer to any SYN that has passed completes
//! them.

use super::story::{tell, tell_from};

#[test]
fn the_syn_ack_selects_the_syn_that_it_acknowledges() {
    for other in [
        -1_i64,
        1,
        -1_000,
        1_000,
        -70_000,
        70_000,
        -1_000_000_000,
        1_000_000_000,
    ] {
        tell(
            "it answers the later SYN",
            &format!(
                "> S 0                    | SYN_SENT, opened
                 > S {other}              | SYN_SENT, kept
                 < SA 0 ack {ack}         | SYN_RECV
                 > A {ack} ack 1          | ESTABLISHED, assured
                 > PA {ack}+10 ack 1      | ESTABLISHED, until tcp.unacknowledged
                 < A 1 ack {end}          | ESTABLISHED",
                ack = other + 1,
                end = other + 11,
            ),
        );
        tell(
            "it answers the first SYN, and the later one is a forgery",
            &format!(
                "> S 0                | SYN_SENT, opened
                 > S {other}          | SYN_SENT, kept
                 < SA 0 ack 1         | SYN_RECV
                 > A 1 ack 1          | ESTABLISHED, assured
                 > PA 1+10 ack 1      | ESTABLISHED, until tcp.unacknowledged
                 < A 1 ack 11         | ESTABLISHED"
            ),
        );
        tell(
            "repetitions of both",
            &format!(
                "> S 0                    | SYN_SENT, opened
                 > S {other}              | SYN_SENT, kept
                 > S 0                    | SYN_SENT, kept
                 > S {other}              | SYN_SENT, kept
                 > S 0                    | SYN_SENT, kept
                 < SA 0 ack {ack}         | SYN_RECV
                 > A {ack} ack 1          | ESTABLISHED, assured",
                ack = other + 1,
            ),
        );
    }
}

#[test]
fn the_first_syn_and_the_latest_other_one_are_kept() {
    tell(
        "three attempts, the last one succeeds",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         > S -9000            | SYN_SENT, kept
         < SA 0 ack -8999     | SYN_RECV
         > A -8999 ack 1      | ESTABLISHED, assured",
    );
    tell(
        "many forgeries, the first SYN is the true one",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         > S -9000            | SYN_SENT, kept
         > S 123456789        | SYN_SENT, kept
         < SA 0 ack 5001      | SYN_SENT, invalid (III)
         < SA 0 ack 1         | SYN_RECV
         > A 1 ack 1          | ESTABLISHED, assured",
    );
}

#[test]
fn the_options_are_those_of_the_syn_that_was_answered() {
    for (ack, scales) in [(1, (3, 5)), (90_001, (0, 0))] {
        let story = tell_from(
            "one SYN offers a window scale, the other none",
            (700, 4_000_000_000),
            &format!(
                "> S 0 wscale 3            | SYN_SENT, opened
                 > S 90000                 | SYN_SENT, kept
                 < SA 0 ack {ack} wscale 5 | SYN_RECV
                 > A {ack} ack 1           | ESTABLISHED, assured"
            ),
        );
        let track = story.track();
        let found = crate::flow::Direction::BOTH.map(|direction| track.side(direction).scale);
        assert_eq!((found[0], found[1]), scales, "SYN-ACK of {ack}");
    }
    let story = tell_from(
        "the repetition leaves the window scale out, and that SYN is answered",
        (700, 4_000_000_000),
        "> S 0 wscale 8   | SYN_SENT, opened
         > S 0            | SYN_SENT, kept
         < SA 0 ack 1     | SYN_RECV
         > A 1 ack 1      | ESTABLISHED, assured",
    );
    let track = story.track();
    assert_eq!(
        crate::flow::Direction::BOTH.map(|direction| track.side(direction).scale),
        [0, 0]
    );
}

#[test]
fn a_forged_pair_of_syn_and_syn_ack_leaves_room_for_the_true_syn_ack() {
    tell(
        "forged SYN, forged SYN-ACK, then the true SYN-ACK",
        "> S 0                    | SYN_SENT, opened
         > S 50000                | SYN_SENT, kept
         < SA 70000 ack 50001     | SYN_RECV
         < SA 0 ack 1             | SYN_RECV, resynced
         > A 1 ack 1              | ESTABLISHED, assured",
    );
}

#[test]
fn a_syn_of_the_responder_does_not_break_its_syn_ack() {
    for forged in [-1_i64, 1, 70_000, -70_000, 1_000_000_000, -1_000_000_000] {
        tell(
            "a forged SYN makes it look like a simultaneous open",
            &format!(
                "> S 0 wscale 7           | SYN_SENT, opened
                 < S {forged}             | SYN_SENT2
                 < SA 0 ack 1 wscale 7    | SYN_RECV
                 > A 1 ack 1              | ESTABLISHED, assured
                 < PA 1+10 ack 1          | ESTABLISHED, until tcp.unacknowledged
                 > A 1 ack 11             | ESTABLISHED"
            ),
        );
        let story = tell_from(
            "the window scales survive it",
            (1, 2_000_000_000),
            &format!(
                "> S 0 wscale 7           | SYN_SENT, opened
                 < S {forged}             | SYN_SENT2
                 < SA 0 ack 1 wscale 6    | SYN_RECV"
            ),
        );
        let track = story.track();
        let scales = crate::flow::Direction::BOTH.map(|direction| track.side(direction).scale);
        assert_eq!(scales, [7, 6]);
        tell(
            "with a forged SYN of each end",
            &format!(
                "> S 0                    | SYN_SENT, opened
                 > S 4711                 | SYN_SENT, kept
                 < S {forged}             | SYN_SENT2
                 < SA 0 ack 1             | SYN_RECV
                 > A 1 ack 1              | ESTABLISHED, assured"
            ),
        );
    }
    tell(
        "such a handshake is not completed by the responder",
        "> S 0            | SYN_SENT, opened
         < S 900          | SYN_SENT2
         < SA 0 ack 1     | SYN_RECV
         < A 1 ack 1      | SYN_RECV
         > A 1 ack 1      | ESTABLISHED, assured",
    );
}

/// In a simultaneous open as well, a SYN may come more than once.
#[test]
fn a_repeated_syn_of_a_simultaneous_open_takes_nothing_back() {
    for repeated in ["> S 0 wscale 7", "< S 0 wscale 7"] {
        let begin = format!(
            "> S 0 wscale 7           | SYN_SENT, opened
             < S 0 wscale 7           | SYN_SENT2
             {repeated}               | SYN_SENT2{}",
            if repeated.starts_with('>') {
                ", kept"
            } else {
                ""
            }
        );
        tell(
            "the initiator's SYN-ACK and an ACK of the responder that has sent its own",
            &format!(
                "{begin}
                 > SA 0 ack 1 wscale 7    | SYN_RECV
                 < SA 0 ack 1 wscale 7    | SYN_RECV
                 < A 1 ack 1              | ESTABLISHED, assured"
            ),
        );
        tell(
            "a SYN-ACK that acknowledges no SYN",
            &format!(
                "{begin}
                 > SA 0 ack 0 wscale 7    | SYN_SENT2, invalid (III)
                 < SA 0 ack 0 wscale 7    | SYN_SENT2, invalid (III)"
            ),
        );
    }
}

/// The third ACK opens the session to data: a sender without the SYN-ACK must guess its number.
#[test]
fn the_third_ack_acknowledges_at_least_the_syn_ack_and_at_most_what_was_sent() {
    for (name, ack, fate) in [
        ("the SYN-ACK itself", 0, "SYN_RECV, invalid (III)"),
        ("a byte less", -1, "SYN_RECV, invalid (III)"),
        ("far less", -65_000, "SYN_RECV, invalid (III)"),
        ("farther", -1_000_000_000, "SYN_RECV, invalid (III)"),
        ("the SYN alone", 1, "ESTABLISHED, assured"),
        ("some of its data", 20, "ESTABLISHED, assured"),
        ("all of its data", 51, "ESTABLISHED, assured"),
        ("more", 52, "SYN_RECV, invalid (III)"),
    ] {
        for flags in ["A", "FA"] {
            let fate = match (flags, fate) {
                ("FA", "ESTABLISHED, assured") => "FIN_WAIT, until tcp.unacknowledged",
                _ => fate,
            };
            tell(
                name,
                &format!(
                    "> S 0                 | SYN_SENT, opened
                     < SA 0+50 ack 1       | SYN_RECV
                     > {flags} 1 ack {ack} | {fate}"
                ),
            );
        }
    }
}

#[test]
fn a_syn_ack_acknowledges_at_least_the_syn_and_at_most_its_data() {
    for (name, ack, fate) in [
        ("less than the SYN", 0, "SYN_SENT, invalid (III)"),
        ("far less", -65_000, "SYN_SENT, invalid (III)"),
        ("farther", -1_000_000_000, "SYN_SENT, invalid (III)"),
        ("the SYN", 1, "SYN_RECV"),
        ("some of its data", 60, "SYN_RECV"),
        ("all of its data", 101, "SYN_RECV"),
        ("more", 102, "SYN_SENT, invalid (III)"),
        ("far more", 100_101, "SYN_SENT, invalid (III)"),
    ] {
        tell(
            name,
            &format!(
                "> S 0+100           | SYN_SENT, opened
                 < SA 0 ack {ack}    | {fate}"
            ),
        );
        tell(
            "after the SYN was repeated without its data",
            &format!(
                "> S 0+100           | SYN_SENT, opened
                 > S 0               | SYN_SENT, kept
                 < SA 0 ack {ack}    | {fate}"
            ),
        );
    }
    tell(
        "an initiator sends one only to answer a SYN",
        "> S 0               | SYN_SENT, opened
         < SA 0 ack 1        | SYN_RECV
         > SA 90000 ack -500 | SYN_RECV, invalid (I)
         > SA 500 ack -500   | SYN_RECV, invalid (III)
         > A 1 ack 1         | ESTABLISHED, assured",
    );
}

#[test]
fn a_reset_ends_the_handshake_of_the_syn_that_it_answers() {
    tell(
        "a refusal of the later SYN leaves the first one",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         < RA =0 ack 5001     | SYN_SENT, passed (RST)
         < SA 0 ack 5001      | SYN_SENT, invalid (III)
         < SA 0 ack 1         | SYN_RECV",
    );
    tell(
        "a refusal of the first SYN leaves the later one",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         < RA =0 ack 1        | SYN_SENT, kept
         < SA 0 ack 1         | SYN_SENT, invalid (III)
         < SA 0 ack 5001      | SYN_RECV
         > A 5001 ack 1       | ESTABLISHED, assured",
    );
    tell(
        "both are refused",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         < RA =0 ack 1        | SYN_SENT, kept
         < RA =0 ack 5001     | CLOSE",
    );
    tell(
        "an old duplicate is answered, and the initiator says so (RFC 9293 3.5, figure 8)",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept       # the old duplicate
         < SA 70000 ack 5001  | SYN_RECV
         > R 5001             | SYN_SENT, kept
         < SA 0 ack 1         | SYN_RECV
         > A 1 ack 1          | ESTABLISHED, assured",
    );
}

/// The receiver answers an unexpected ACK with a RST of its number and continues to wait (RFC 9293
/// 3.10.7.3).
#[test]
fn a_forged_ack_in_syn_sent_earns_a_reset_that_ends_nothing() {
    tell(
        "ACK of a random number, the initiator's RST, then the true SYN-ACK",
        "> S 0                | SYN_SENT, opened
         < A 777 ack 999      | SYN_SENT, passed (out of step)
         > R 999              | SYN_SENT, passed (RST)
         > R 998              | SYN_SENT, invalid (I)
         < SA 0 ack 1         | SYN_RECV
         > A 1 ack 1          | ESTABLISHED, assured",
    );
    tell(
        "the later SYN stays remembered",
        "> S 0                | SYN_SENT, opened
         > S 5000             | SYN_SENT, kept
         < A 777 ack 999      | SYN_SENT, passed (out of step)
         < SA 0 ack 5001      | SYN_RECV",
    );
}
