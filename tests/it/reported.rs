//! Side effects that `tcp.asymmetric = "report"` and `tcp.midstream = "reject"` must not have.

use crate::support::packets::{ACK, Ends, FIN, SYN};
use crate::support::scene::Scene;
use portcullis::{Verdict, Zone};
use std::time::Duration;

const RULES: &str = "[zones]\na = 1\nb = 2\n[tcp]\nasymmetric = \"report\"\n[policy]\n\
                     default = \"deny\"\n\
  [[policy.rule]]\nname = \"in-a\"\naction = \"allow\"\nprotocol = \"tcp\"\nzones = \"a\"\n\
  source = \"10.0.0.1\"\n\
  [[policy.rule]]\nname = \"out-b\"\naction = \"allow\"\nprotocol = \"tcp\"\nzones = \"b\"\n\
  source = \"10.0.0.2\"\n";
const ENDS: Ends = Ends::v4(4000, 80);
#[test]
fn a_flood_of_rejected_middles_leaves_the_resets_of_sessions_their_budget() {
    let mut s =
        Scene::new("[tcp]\nmidstream = \"reject\"\n[resets]\nper_destination = 10\noverall = 10");
    s.handshake(ENDS);
    s.now += Duration::from_secs(345);
    for port in 0..10u16 {
        let e = Ends {
            src: 77,
            dst: 99,
            ..Ends::v4(9000 + port, 80)
        };
        let e = Ends {
            src: 77 + port as u8,
            ..e
        };
        assert!(matches!(s.tcp(e, ACK, 1, 1, b""), Verdict::Reject(..)));
    }
    let heard = s.wait(0);
    assert_eq!(heard.ended.len(), 1);
    assert_eq!(
        heard.resets.len(),
        2,
        "ARCHITECTURE: no flood of refused packets silences the RSTs of sessions that end"
    );
}

#[test]
fn numbers_that_do_not_fit_the_session_of_the_other_zone_do_not_pass_in_report_mode() {
    // begun in zone 1, by 10.0.0.1; zone 2 lets only 10.0.0.2 open.
    let mut s = Scene::new(RULES);
    s.zone = Zone(1);
    s.handshake(ENDS);
    s.zone = Zone(2);
    // before: does not fit
    assert!(
        !s.tcp(ENDS, ACK, 0x7000_0000, 0x6000_0000, b"forged")
            .is_forward()
    );
    // one that fits tells of the other zone
    assert!(s.tcp(ENDS, ACK, 101, 501, b"").is_forward());
    let v = s.tcp(ENDS, ACK, 0x7000_0000, 0x6000_0000, b"forged");
    assert!(
        !v.is_forward(),
        "the initiator's packet passes by the rule for the other direction: {v:?}"
    );
}

#[test]
fn a_reply_that_does_not_fit_the_session_of_the_other_zone_does_not_pass_in_report_mode() {
    let mut s = Scene::new("[zones]\na = 1\nb = 2\n[tcp]\nasymmetric = \"report\"\n");
    s.zone = Zone(1);
    s.handshake(ENDS);
    s.zone = Zone(2);
    assert!(
        !s.tcp(ENDS.back(), ACK, 0x7000_0000, 0x6000_0000, b"forged")
            .is_forward()
    );
    assert!(s.tcp(ENDS.back(), ACK, 501, 101, b"").is_forward());
    let v = s.tcp(ENDS.back(), ACK, 0x7000_0000, 0x6000_0000, b"forged");
    assert!(!v.is_forward(), "{v:?}");
}

#[test]
fn a_denied_packet_does_not_pass_after_the_other_zones_session_ends() {
    let mut s = Scene::new(RULES);
    s.zone = Zone(1);
    s.handshake(ENDS);
    s.zone = Zone(2);
    assert!(s.tcp(ENDS, ACK, 101, 501, b"").is_forward());
    s.wait(86_400);
    assert_eq!(s.engine.sessions(), 0);
    let v = s.tcp(ENDS, ACK, 1, 2, b"a day later");
    assert!(!v.is_forward(), "{v:?}");
}

#[test]
fn a_suspect_of_long_ago_lets_nothing_pass() {
    let mut s = Scene::new("[tcp]\nasymmetric = \"report\"\n");
    s.pass(ENDS, SYN, 100, 0, b"");
    assert!(s.tcp(ENDS, ACK, 101, 501, b"").is_forward());
    s.wait(30 * 86_400);
    let v = s.tcp(ENDS, ACK, 0x7000_0000, 9, b"a month later");
    assert!(!v.is_forward(), "{v:?}");
}

#[test]
fn a_conversation_that_was_seen_whole_since_is_no_suspect() {
    let mut s = Scene::new("[tcp]\nasymmetric = \"report\"\n");
    assert!(s.tcp(ENDS.back(), SYN | ACK, 500, 101, b"").is_forward());
    s.wait(60);
    s.handshake(ENDS);
    s.pass(ENDS, FIN | ACK, 101, 501, b"");
    s.pass(ENDS.back(), FIN | ACK, 501, 102, b"");
    s.pass(ENDS, ACK, 102, 502, b"");
    s.wait(600);
    assert_eq!(s.engine.sessions(), 0);
    let v = s.tcp(ENDS.back(), ACK, 0x7000_0000, 9, b"forged");
    assert!(!v.is_forward(), "{v:?}");
}

#[test]
fn clearing_the_report_cuts_no_connection() {
    let s = Scene::new("[tcp]\nasymmetric = \"report\"\n");
    s.pass(ENDS, SYN, 100, 0, b"");
    assert!(s.tcp(ENDS, ACK, 101, 501, b"").is_forward());
    assert!(s.tcp(ENDS, ACK, 101, 501, &[0; 900]).is_forward());
    assert!(
        s.tcp(ENDS, ACK, 101 + (2 << 20), 501, b"far on")
            .is_forward()
    );
    s.engine.clear_asymmetry();
    let v = s.tcp(ENDS, ACK, 101 + (2 << 20), 501, b"far on");
    assert!(v.is_forward(), "{v:?}");
}
