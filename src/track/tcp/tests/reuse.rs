//! Stories of reused ports, and of connections that an end or the firewall has forgotten.

use crate::flow::Direction;
use crate::packet::SeqNum;
use crate::track::tcp::PeerFlags;

use super::story::{tell, tell_from};

const ESTABLISHED: &str = "> S 0         | SYN_SENT, opened
                           < SA 0 ack 1  | SYN_RECV
                           > A 1 ack 1   | ESTABLISHED, assured";

#[test]
fn a_syn_on_a_live_session_is_remembered_until_its_answer() {
    let initial = (u32::MAX - 60_000, 0x7fff_ffff - 60_000);
    let story = tell_from(
        "the initiator has restarted, and the responder agrees",
        initial,
        &format!(
            "{ESTABLISHED}
             > S 60000 win 2000 wscale 3 sackok         | ESTABLISHED, passed (out of step)
             < SA 60000 ack 60001 win 3000 wscale 2     | SYN_RECV, resynced
             > A 60001 ack 60001 win 4000               | ESTABLISHED
             > PA 60001+3000 ack 60001 win 4000         | ESTABLISHED, until tcp.unacknowledged
             < A 60001 ack 63001 win 5000               | ESTABLISHED"
        ),
    );
    let track = story.track();
    let (initiator, responder) = (
        track.side(Direction::Original),
        track.side(Direction::Reply),
    );
    assert_eq!((initiator.scale, responder.scale), (3, 2));
    assert!(initiator.flags.contains(PeerFlags::SACK_PERMITTED));
    assert!(!responder.flags.contains(PeerFlags::SACK_PERMITTED));
    assert_eq!(initiator.peer.end, SeqNum(initial.0).add(63_001));
    assert_eq!(initiator.peer.max_end, initiator.peer.end.add(5_000 << 2));
    assert_eq!(
        responder.peer.max_end,
        SeqNum(initial.1).add(60_001).add(4_000 << 3)
    );
}

#[test]
fn a_simultaneous_open_that_was_given_up_is_resynced_like_any_other_session() {
    for (name, syn_ack) in [
        ("the initiator's SYN-ACK had passed", "> SA 0 ack 1"),
        ("the responder's SYN-ACK had passed", "< SA 0 ack 1"),
    ] {
        tell(
            name,
            &format!(
                "> S 0                   | SYN_SENT, opened
                 < S 0                   | SYN_SENT2
                 {syn_ack}               | SYN_RECV
                 > S 50000               | SYN_RECV, passed (out of step)
                 < SA 70000 ack 50001    | SYN_RECV, resynced
                 > A 50001 ack 70001     | ESTABLISHED, assured"
            ),
        );
    }
    tell(
        "a SYN-ACK of other numbers that answers nothing new replaces none",
        "> S 0                   | SYN_SENT, opened
         < S 0                   | SYN_SENT2
         > SA 0 ack 1            | SYN_RECV
         < SA 70000 ack 1        | SYN_RECV, passed (out of step)
         < SA 2147490000 ack 1   | SYN_RECV, passed (out of step)
         < SA 4294900000 ack 1   | SYN_RECV, passed (out of step)
         < SA 0 ack 1            | SYN_RECV
         < A 1 ack 1             | ESTABLISHED, assured",
    );
    tell(
        "the same SYN again is no new one",
        "> S 0           | SYN_SENT, opened
         < S 0           | SYN_SENT2
         > SA 0 ack 1    | SYN_RECV
         > S 0           | SYN_RECV, passed (out of step)
         < SA 0 ack 1    | SYN_RECV
         < A 1 ack 1     | ESTABLISHED, assured",
    );
}

#[test]
fn a_stale_syn_ack_does_not_resync() {
    for (name, syn_ack) in [
        ("of the session that lives", "< SA 0 ack 1"),
        ("one below the SYN", "< SA 70000 ack 50000"),
        ("one above the SYN", "< SA 70000 ack 50002"),
    ] {
        tell(
            name,
            &format!(
                "{ESTABLISHED}
                 > S 50000               | ESTABLISHED, passed (out of step)
                 {syn_ack}               | ESTABLISHED, passed (out of step)
                 > PA 1+10 ack 1         | ESTABLISHED, until tcp.unacknowledged
                 > S 50000               | ESTABLISHED, passed (out of step)
                 < SA 70000 ack 50001    | SYN_RECV, resynced
                 > A 50001 ack 70001     | ESTABLISHED"
            ),
        );
    }
    tell(
        "without a SYN before it there is nothing to answer",
        &format!(
            "{ESTABLISHED}
             < SA 70000 ack 1        | ESTABLISHED, passed (out of step)
             > A 1 ack 1             | ESTABLISHED
             < PA 1+10 ack 1         | ESTABLISHED, until tcp.unacknowledged"
        ),
    );
}

#[test]
fn a_forged_syn_does_no_harm() {
    tell(
        "the responder answers it with a challenge ACK and goes on",
        &format!(
            "{ESTABLISHED}
             > PA 1+100 ack 1     | ESTABLISHED, until tcp.unacknowledged
             < A 1 ack 101        | ESTABLISHED
             > S 123456           | ESTABLISHED, passed (out of step)
             < A 1 ack 101        | ESTABLISHED
             > PA 101+10 ack 1    | ESTABLISHED, until tcp.unacknowledged
             < PA 1+900 ack 111   | ESTABLISHED, until tcp.unacknowledged
             > A 111 ack 901      | ESTABLISHED"
        ),
    );
}

#[test]
fn a_challenged_syn_resets_the_session_and_opens_a_new_one() {
    tell(
        "SYN in ESTABLISHED, challenge ACK, RST, new handshake",
        "> S 0 win 32792 wscale 7             | SYN_SENT, opened
         < SA 0 ack 1 wscale 8                | SYN_RECV
         > A 1 ack 1 win 257                  | ESTABLISHED, assured
         > PA 1+100 ack 1 win 257             | ESTABLISHED, until tcp.unacknowledged
         < A 1 ack 101 win 256                | ESTABLISHED
         > S 2000 win 32792 wscale 7          | ESTABLISHED, passed (out of step)
         < A 1 ack 101 win 256                | ESTABLISHED
         > RA 101 ack 1 win 257               | CLOSE
         > S 2000 win 32792 wscale 0          | SYN_SENT, reopened
         < SA 90000 ack 2001                  | SYN_RECV
         > A 2001 ack 90001                   | ESTABLISHED, assured",
    );
}

#[test]
fn a_half_open_responder_challenges_the_first_syn() {
    tell(
        "SYN, challenge ACK of an old incarnation, RST, SYN, SYN-ACK",
        "> S 0 win 65535 sackok wscale 8              | SYN_SENT, opened
         < A 145824453 ack 643160523 win 240          | SYN_SENT, passed (out of step)
         > R 643160523 win 0                          | SYN_SENT, passed (RST)
         > S 0 win 65535 sackok wscale 8              | SYN_SENT, kept
         < SA 0 ack 1 win 250 wscale 0                | SYN_RECV
         > A 1 ack 1 win 256                          | ESTABLISHED, assured",
    );
    tell(
        "a RST that the challenge does not explain",
        "> S 0                                        | SYN_SENT, opened
         < A 145824453 ack 643160523                  | SYN_SENT, passed (out of step)
         > R 643160522 win 0                          | SYN_SENT, invalid (I)
         > S 0                                        | SYN_SENT, kept
         < SA 0 ack 1                                 | SYN_RECV",
    );
}

#[test]
fn a_challenge_of_the_source_passes_and_so_does_its_answer() {
    tell(
        "SYN, SYN-ACK with a cookie, RST, SYN, SYN-ACK",
        "> S 0+9 win 65535 sackok wscale 8            | SYN_SENT, opened
         < SA 7 ack 3000000000 win 0                  | SYN_SENT, passed (out of step)
         > R 3000000000 win 0                         | SYN_SENT, passed (RST)
         > S 0 win 65535 sackok wscale 8              | SYN_SENT, kept
         < SA 0 ack 1 win 250 wscale 0                | SYN_RECV
         > A 1 ack 1 win 256                          | ESTABLISHED, assured",
    );
    tell(
        "a cookie is no more than a bare SYN-ACK of a number before the SYN",
        "> S 0 win 65535                              | SYN_SENT, opened
         < SA 7 ack 3000000000 win 1                  | SYN_SENT, invalid (III)
         < SA 7+1 ack 3000000000 win 0                | SYN_SENT, invalid (III)
         < SA 7 ack 2 win 0                           | SYN_SENT, invalid (III)
         < SA 7 ack 0 win 0                           | SYN_SENT, passed (out of step)
         > R 3000000000 win 0                         | SYN_SENT, invalid (old RST)
         < SA 0 ack 1 win 0                           | SYN_RECV",
    );
}

#[test]
fn a_syn_ack_of_an_older_connection_is_invalid() {
    tell(
        "old SYN-ACK, SYN again, right SYN-ACK",
        "> S 0 win 65535 sackok wscale 8                 | SYN_SENT, opened
    < SA 145824453 ack 643160523 win 240 wscale 0   | SYN_SENT, invalid (III)
    > S 0 win 65535 sackok wscale 8                 | SYN_SENT, kept
    < SA 145758918 ack 1 win 250 wscale 0           | SYN_RECV
    > PA 1+1 ack 145758919 win 256                  | ESTABLISHED, assured, until tcp.unacknowledged
    < A 145758919 ack 2                             | ESTABLISHED",
    );
}

/// The initiator receives the refusal. An attacker that can forge a SYN can also forge its refusal,
/// so a live connection continues.
#[test]
fn a_refusal_of_a_passed_syn_passes_and_proves_nothing() {
    tell(
        "the RST acknowledges the SYN that was passed",
        &format!(
            "{ESTABLISHED}
             > S 50000                  | ESTABLISHED, passed (out of step)
             < RA =0 ack 50001 win 0    | ESTABLISHED, passed (RST)
             > PA 1+10 ack 1            | ESTABLISHED, until tcp.unacknowledged"
        ),
    );
    tell(
        "nor before the handshake is complete",
        "> S 0                   | SYN_SENT, opened
         < SA 0 ack 1            | SYN_RECV
         > S 50000               | SYN_RECV, passed (out of step)
         < RA =0 ack 50001 win 0 | SYN_RECV, passed (RST)
         > A 1 ack 1             | ESTABLISHED, assured",
    );
}

/// In LAST_ACK an ACK would end the connection; the answer to a SYN is not that ACK (RFC 5961 4.2).
#[test]
fn a_challenge_ack_in_last_ack_is_not_the_last_ack() {
    tell(
        "SYN in LAST_ACK",
        &format!(
            "{ESTABLISHED}
             > FA 1 ack 1      | FIN_WAIT, until tcp.unacknowledged
             < FA 1 ack 2      | LAST_ACK, until tcp.unacknowledged
             > S 50000         | LAST_ACK, passed (out of step)
             < A 2 ack 2       | LAST_ACK, passed (challenge)
             > A 2 ack 2       | TIME_WAIT"
        ),
    );
    tell(
        "SYN in LAST_ACK, and the responder agrees to a new connection",
        &format!(
            "{ESTABLISHED}
             > FA 1 ack 1            | FIN_WAIT, until tcp.unacknowledged
             < FA 1 ack 2            | LAST_ACK, until tcp.unacknowledged
             > S 50000               | LAST_ACK, passed (out of step)
             < SA 70000 ack 50001    | SYN_RECV, resynced
             > A 50001 ack 70001     | ESTABLISHED"
        ),
    );
}

#[test]
fn time_wait_is_left_by_a_syn_of_either_end() {
    for syn in ["> S 50000", "< S 50000"] {
        tell(
            syn,
            &format!(
                "{ESTABLISHED}
                 > FA 1 ack 1    | FIN_WAIT, until tcp.unacknowledged
                 < FA 1 ack 2    | LAST_ACK, until tcp.unacknowledged
                 > A 2 ack 2     | TIME_WAIT
                 {syn}           | SYN_SENT, reopened"
            ),
        );
    }
    tell(
        "the new connection in full",
        &format!(
            "{ESTABLISHED}
             > FA 1 ack 1            | FIN_WAIT, until tcp.unacknowledged
             < FA 1 ack 2            | LAST_ACK, until tcp.unacknowledged
             > A 2 ack 2             | TIME_WAIT
             > S 50000 win 500       | SYN_SENT, reopened
             < SA 70000 ack 50001    | SYN_RECV
             > A 50001 ack 70001     | ESTABLISHED, assured"
        ),
    );
}

#[test]
fn a_closed_session_opens_again_for_the_end_that_closed_it() {
    for (name, lines) in [
        (
            "closed by the initiator's RST",
            "> R 1        | CLOSE
             > S 50000    | SYN_SENT, reopened",
        ),
        (
            "closed by a FIN, then a RST of the responder",
            "> FA 1 ack 1   | FIN_WAIT, until tcp.unacknowledged
             < RA 1 ack 2   | CLOSE
             > S 50000      | SYN_SENT, reopened",
        ),
        (
            "closed by the responder's RST: its SYN-ACK must confirm",
            "< R 1                 | CLOSE
             > S 50000             | CLOSE, passed (out of step)
             < SA 70000 ack 50001  | SYN_RECV, resynced
             > A 50001 ack 70001   | ESTABLISHED",
        ),
        (
            "the responder opens nothing",
            "< R 1       | CLOSE
             < S 50000   | CLOSE, invalid (state)",
        ),
    ] {
        tell(name, &format!("{ESTABLISHED}\n{lines}"));
    }
}
