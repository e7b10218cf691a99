//! Sessions that the policy denies, as a sink receives them.

use std::time::Duration;

use crate::support::packets::{ACK, Ends, SYN, echo, udp};
use crate::support::scene::{Scene, segment};
use portcullis::policy::{Action, RuleId};
use portcullis::{DeniedSession, DropReason, Engine, Packet, Sink, TunnelRef, Verdict, Zone};

const POLICY: &str = r#"
policy.default = "deny"

[[policy.rule]]
name = "web"
action = "allow"
protocol = "tcp"
destination_ports = [80]

[[policy.rule]]
name = "dns"
action = "reject"
protocol = "udp"
destination_ports = [53]
log = true

[zones]
east = 1
west = 2
"#;

/// Sink that calls the engine from each event, during which the engine holds no lock.
struct Told<'e> {
    engine: &'e Engine,
    denied: Vec<DeniedSession>,
}

impl Sink for Told<'_> {
    fn session_denied(&mut self, denied: &DeniedSession) {
        let _ = self.engine.stats();
        let _ = self
            .engine
            .verdict_only(Packet::new(&udp(Ends::v4(9, 9), b""), denied.at));
        self.denied.push(*denied);
    }
}

fn told(scene: &Scene, bytes: &[u8]) -> (Verdict, Vec<DeniedSession>) {
    let mut told = Told {
        engine: &scene.engine,
        denied: Vec::new(),
    };
    let packet = Packet::new(bytes, scene.now)
        .zone(Zone(1))
        .tunnel(TunnelRef(7));
    let verdict = scene.engine.process_with(packet, &mut told);
    (verdict, told.denied)
}

fn reason(verdict: &Verdict) -> Option<DropReason> {
    match verdict {
        Verdict::Drop(reason, _) | Verdict::Reject(reason, ..) => Some(*reason),
        _ => None,
    }
}

#[test]
fn the_packet_that_would_have_opened_a_session_is_told_with_the_rule_that_denies_it() {
    let scene = Scene::new(POLICY);
    let ends = Ends::v4(4000, 23);
    let syn = segment(ends, SYN, 1, 0, b"");
    for _ in 0..2 {
        let (verdict, denied) = told(&scene, &syn);
        assert_eq!(reason(&verdict), Some(DropReason::PolicyDeny));
        assert_eq!(denied.len(), 1, "each packet");
        let denied = denied[0];
        assert_eq!((denied.zone, denied.protocol), (Zone(1), 6));
        assert_eq!(
            (denied.src.to_string(), denied.src_port),
            ("10.0.0.1".to_owned(), 4000)
        );
        assert_eq!(
            (denied.dst.to_string(), denied.dst_port),
            ("10.0.0.2".to_owned(), 23)
        );
        assert_eq!(denied.bytes as usize, syn.len());
        assert_eq!(
            (denied.rule, denied.action),
            (RuleId::DEFAULT, Action::Deny)
        );
        assert!(!denied.log);
        assert_eq!((denied.at, denied.tunnel), (scene.now, TunnelRef(7)));
    }
    // From the higher to the lower address.
    let back = Ends::v6(53, 53).back();
    let (verdict, denied) = told(&scene, &udp(back, b"query"));
    assert_eq!(reason(&verdict), Some(DropReason::PolicyReject));
    let denied = denied[0];
    assert_eq!(scene.engine.policy().rule_name(denied.rule), "dns");
    assert_eq!(
        (denied.action, denied.log, denied.bytes),
        (Action::Reject, true, 53)
    );
    assert_eq!(
        (denied.src.to_string(), denied.dst.to_string()),
        ("2001:db8::2".into(), "2001:db8::1".into())
    );
    let (_, denied) = told(&scene, &echo(Ends::v4(77, 77), true));
    assert_eq!((denied[0].protocol, denied[0].src_port), (1, 77));
}

#[test]
fn packets_that_open_nothing_are_not_reported_as_denied() {
    let scene = Scene::new(POLICY);
    let ends = Ends::v4(4000, 23);
    for (bytes, wanted) in [
        (segment(Ends::v4(4000, 80), SYN, 1, 0, b""), None),
        (
            segment(ends, ACK, 1, 1, b""),
            Some(DropReason::TcpNoSession),
        ),
        (
            segment(ends, SYN | ACK, 1, 1, b""),
            Some(DropReason::TcpSynAckWithoutSyn),
        ),
        (echo(ends, false), Some(DropReason::IcmpReplyNoSession)),
    ] {
        let (verdict, denied) = told(&scene, &bytes);
        assert_eq!((reason(&verdict), denied), (wanted, Vec::new()));
    }
}

#[test]
fn a_late_packet_that_the_policy_does_not_readmit_is_of_the_middle_of_a_connection() {
    let mut scene = Scene::new(&format!(
        "tcp.late = \"readmit\"\npolicy.on_reload = \"keep\"{POLICY}"
    ));
    scene.zone = Zone(1);
    scene.handshake(Ends::v4(4000, 80));
    scene.wait(1_000_000);
    let denying = POLICY.replace("[80]", "[81]");
    scene.reload(&format!(
        "tcp.late = \"readmit\"\npolicy.on_reload = \"keep\"{denying}"
    ));
    scene.now += Duration::from_secs(1);
    let (verdict, denied) = told(&scene, &segment(Ends::v4(4000, 80), ACK, 101, 501, b""));
    assert_eq!(
        (reason(&verdict), denied),
        (Some(DropReason::PolicyDeny), Vec::new())
    );
}

#[test]
fn a_fragmented_datagram_is_told_of_by_its_first_fragment() {
    let scene = Scene::new(POLICY);
    let whole = udp(Ends::v4(4000, 99), &[7; 60]);
    let fragment = |from: usize, to: usize, more: bool| {
        let mut bytes = [&whole[..20], &whole[20 + from..20 + to]].concat();
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let flags = (from / 8) as u16 | if more { 0x2000 } else { 0 };
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[10..12].fill(0);
        let sum: u32 = bytes[..20]
            .chunks(2)
            .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let (verdict, denied) = told(&scene, &fragment(0, 32, true));
    assert_eq!(reason(&verdict), Some(DropReason::PolicyDeny));
    assert_eq!(
        (denied.len(), denied[0].bytes, denied[0].dst_port),
        (1, 52, 99)
    );
    let (verdict, denied) = told(&scene, &fragment(32, 68, false));
    assert_eq!(
        (reason(&verdict), denied),
        (Some(DropReason::FragmentOfDropped), Vec::new())
    );
}
