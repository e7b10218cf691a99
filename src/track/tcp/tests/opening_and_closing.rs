//! Stories of the beginning and end of connections.

use crate::flow::Direction;
use crate::track::tcp::State;

use super::story::{tell, tell_from};

#[test]
fn an_ordinary_connection_opens_and_closes() {
    tell(
        "ordinary connection",
        "> S 0                | SYN_SENT, opened
         < SA 0 ack 1         | SYN_RECV
         > A 1 ack 1          | ESTABLISHED, assured
         > PA 1+100 ack 1     | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 101        | ESTABLISHED
         < PA 1+800 ack 101   | ESTABLISHED, until tcp.unacknowledged
         > A 101 ack 801      | ESTABLISHED
         > FA 101 ack 801     | FIN_WAIT, until tcp.unacknowledged
         < A 801 ack 102      | CLOSE_WAIT
         < FA 801 ack 102     | LAST_ACK, until tcp.unacknowledged
         > A 102 ack 802      | TIME_WAIT",
    );
}

#[test]
fn the_responder_may_close_first() {
    tell(
        "closed by the responder, the second FIN carries the ACK of the first",
        "> S 0                | SYN_SENT, opened
         < SA 0 ack 1         | SYN_RECV
         > A 1 ack 1          | ESTABLISHED, assured
         < FA 1+500 ack 1     | FIN_WAIT, until tcp.unacknowledged
         > FA 1 ack 502       | LAST_ACK, until tcp.unacknowledged
         < A 502 ack 2        | TIME_WAIT
         > FA 1 ack 502       | TIME_WAIT     # the last ACK was lost behind us
         < A 502 ack 2        | TIME_WAIT",
    );
}

#[test]
fn a_simultaneous_open_establishes_a_connection() {
    let begin = "> S 0 | SYN_SENT, opened
                 < S 0 | SYN_SENT2";
    for (name, rest) in [
        (
            "both SYN-ACKs, then data of the initiator",
            "> SA 0 ack 1     | SYN_RECV
             < SA 0 ack 1     | SYN_RECV
             > PA 1+10 ack 1  | ESTABLISHED, assured, until tcp.unacknowledged",
        ),
        (
            "both SYN-ACKs, then an ACK of the responder",
            "< SA 0 ack 1     | SYN_RECV
             > SA 0 ack 1     | SYN_RECV
             < A 1 ack 1      | ESTABLISHED, assured",
        ),
        (
            "SYNs again before the SYN-ACKs",
            "> S 0            | SYN_SENT2, kept
             < S 0            | SYN_SENT2
             > SA 0 ack 1     | SYN_RECV
             < SA 0 ack 1     | SYN_RECV
             < A 1 ack 1      | ESTABLISHED, assured",
        ),
        (
            "a split handshake: no SYN-ACK of the responder",
            "> SA 0 ack 1     | SYN_RECV
             < A 1 ack 1      | SYN_RECV, invalid (split handshake)",
        ),
    ] {
        tell(name, &format!("{begin}\n{rest}"));
    }
}

#[test]
fn a_simultaneous_close_leads_to_time_wait() {
    tell(
        "both FINs cross",
        "> S 0           | SYN_SENT, opened
         < SA 0 ack 1    | SYN_RECV
         > A 1 ack 1     | ESTABLISHED, assured
         > FA 1 ack 1    | FIN_WAIT, until tcp.unacknowledged
         < FA 1 ack 1    | LAST_ACK, until tcp.unacknowledged
         > A 2 ack 2     | TIME_WAIT, until tcp.unacknowledged
         < A 2 ack 2     | TIME_WAIT",
    );
}

#[test]
fn a_half_closed_connection_carries_data_without_a_limit() {
    for initial in [(5, 7), (u32::MAX - 3, u32::MAX - 250_000)] {
        let mut story = tell_from(
            "request, FIN, long answer",
            initial,
            "> S 0           | SYN_SENT, opened
             < SA 0 ack 1    | SYN_RECV
             > FA 1+9 ack 1  | FIN_WAIT, until tcp.unacknowledged
             < A 1 ack 11    | CLOSE_WAIT",
        );
        let mut next = 1;
        for _ in 0..500 {
            story.goes_on(&format!(
                "< A {next}+1000 ack 11  | CLOSE_WAIT, until tcp.unacknowledged
                 > A 11 ack {}           | CLOSE_WAIT",
                next + 1000
            ));
            next += 1000;
        }
        story.goes_on(&format!(
            "< FA {next} ack 11  | LAST_ACK, until tcp.unacknowledged
             > A 11 ack {}       | TIME_WAIT",
            next + 1
        ));
    }
}

#[test]
fn a_repeated_handshake_keeps_its_state() {
    tell(
        "every segment of the handshake comes twice",
        "> S 0            | SYN_SENT, opened
         > S 0            | SYN_SENT, kept
         < SA 0 ack 1     | SYN_RECV
         < SA 0 ack 1     | SYN_RECV, passed (out of step)
         > A 1 ack 1      | ESTABLISHED, assured
         < SA 0 ack 1     | ESTABLISHED, passed (out of step)
         > A 1 ack 1      | ESTABLISHED",
    );
    tell(
        "the SYN-ACK is lost behind us",
        "> S 0            | SYN_SENT, opened
         < SA 0 ack 1     | SYN_RECV
         > S 0            | SYN_RECV, passed (out of step)
         < SA 0 ack 1     | SYN_RECV, resynced
         > A 1 ack 1      | ESTABLISHED, assured",
    );
}

#[test]
fn a_newer_syn_replaces_one_that_nobody_answered() {
    tell(
        "the initiator tries again with another number",
        "> S 0 win 500 wscale 3          | SYN_SENT, opened
         > S 90000 win 900 wscale 2      | SYN_SENT, kept
         < SA 0 ack 90001 win 700 wscale 1 | SYN_RECV
         > A 90001 ack 1                 | ESTABLISHED, assured",
    );
}

#[test]
fn what_does_not_begin_with_a_syn_has_no_session() {
    for line in [
        "> A 1 ack 1 | none",
        "> SA 0 ack 1 | none",
        "> FA 1 ack 1 | none",
        "> PA 1+10 ack 1 | none",
        "> R 1 | none",
        "< S 0 | none",
    ] {
        tell("no session", line);
    }
}

#[test]
fn a_kind_that_does_not_fit_the_state_is_invalid() {
    for (name, lines) in [
        (
            "before the SYN-ACK the initiator has nothing to say but SYN and RST",
            "> S 0           | SYN_SENT, opened
             > SA 0 ack 1    | SYN_SENT, invalid (state)
             > A 1 ack 1     | SYN_SENT, invalid (state)
             > PA 1+5 ack 1  | SYN_SENT, invalid (state)
             > FA 1 ack 1    | SYN_SENT, invalid (state)
             < FA 1 ack 1    | SYN_SENT, invalid (state)
             < SA 0 ack 1    | SYN_RECV",
        ),
        (
            "a split handshake: the responder answers with a SYN of its own after the SYN-ACK",
            "> S 0           | SYN_SENT, opened
             < SA 0 ack 1    | SYN_RECV
             < S 0           | SYN_RECV, invalid (state)
             > A 1 ack 1     | ESTABLISHED, assured",
        ),
        (
            "a live connection",
            "> S 0           | SYN_SENT, opened
             < SA 0 ack 1    | SYN_RECV
             > A 1 ack 1     | ESTABLISHED, assured
             < S 500         | ESTABLISHED, invalid (state)
             > SA 0 ack 1    | ESTABLISHED, invalid (state)
             > A 1 ack 1     | ESTABLISHED",
        ),
    ] {
        tell(name, lines);
    }
}

#[test]
fn data_in_a_syn_are_tracked_if_the_responder_accepts_them() {
    tell(
        "accepted by the responder, which answers at once within the SYN's window",
        "> S 0+100 win 1000     | SYN_SENT, opened
         < SA 0 ack 101         | SYN_RECV
         < PA 1+500 ack 101     | SYN_RECV, until tcp.unacknowledged
         < PA 501+500 ack 101   | SYN_RECV, until tcp.unacknowledged
         < PA 1001+500 ack 101  | SYN_RECV, until tcp.unacknowledged
         < PA 1501+500 ack 101  | SYN_RECV, passed (I)
         > A 101 ack 1001       | ESTABLISHED, assured, until tcp.unacknowledged
         > PA 101+10 ack 1501   | ESTABLISHED, until tcp.unacknowledged",
    );
    tell(
        "not taken by the responder: it comes again",
        "> S 0+100              | SYN_SENT, opened
         < SA 0 ack 1           | SYN_RECV
         > PA 1+100 ack 1       | ESTABLISHED, assured
         < A 1 ack 101          | ESTABLISHED",
    );
    tell(
        "more acknowledged than was in it",
        "> S 0+100              | SYN_SENT, opened
         < SA 0 ack 102         | SYN_SENT, invalid (III)
         < SA 0 ack 101         | SYN_RECV",
    );
    tell(
        "data in the SYN-ACK too",
        "> S 0+100              | SYN_SENT, opened
         < SA 0+50 ack 101      | SYN_RECV
         > A 101 ack 52         | SYN_RECV, invalid (III)
         > A 101 ack 51         | ESTABLISHED, assured",
    );
}

#[test]
fn a_window_scale_counts_only_if_both_ends_offer_one() {
    for (name, syn, syn_ack, scales, far) in [
        (
            "both",
            "wscale 2",
            "wscale 3",
            (2, 3),
            "ESTABLISHED, until tcp.unacknowledged",
        ),
        (
            "both, zero is an offer",
            "wscale 2",
            "wscale 0",
            (2, 0),
            "ESTABLISHED, until tcp.unacknowledged",
        ),
        (
            "initiator",
            "wscale 2",
            "",
            (0, 0),
            "ESTABLISHED, invalid (I)",
        ),
        (
            "responder",
            "",
            "wscale 3",
            (0, 0),
            "ESTABLISHED, invalid (I)",
        ),
        ("neither", "", "", (0, 0), "ESTABLISHED, invalid (I)"),
    ] {
        // The initiator's last window, 1000, reaches to 1001, or to 4001 with its scale.
        let story = tell_from(
            name,
            (u32::MAX - 2_000, u32::MAX - 2_000),
            &format!(
                "> S 0 {syn}             | SYN_SENT, opened
                 < SA 0 ack 1 {syn_ack}  | SYN_RECV
                 > A 1 ack 1 win 1000    | ESTABLISHED, assured
                 < A 3001+1 ack 1        | {far}"
            ),
        );
        let track = story.track();
        let found = (
            track.side(Direction::Original).scale,
            track.side(Direction::Reply).scale,
        );
        assert_eq!(found, scales, "{name}");
    }
}

#[test]
fn the_windows_of_the_handshake_are_never_scaled() {
    let story = tell_from(
        "scale 8 both, window 1000 in SYN and SYN-ACK",
        (40, 90),
        "> S 0 win 1000 wscale 8         | SYN_SENT, opened
         < SA 0 ack 1 win 1000 wscale 8  | SYN_RECV",
    );
    let track = story.track();
    assert_eq!(track.state(), State::SynRecv);
    let initiator = track.side(Direction::Original).peer;
    let responder = track.side(Direction::Reply).peer;
    assert_eq!((initiator.max_window, responder.max_window), (1000, 1000));
    assert_eq!(
        initiator.max_end.0,
        40 + 1 + 1000,
        "as far as the SYN-ACK's window"
    );
}
