//! New sessions while the log of the engine's user cannot be written.

use crate::support::packets::{ACK, Ends, RST, SYN, echo, udp};
use crate::support::scene::Scene;
use portcullis::{Class, DropReason, LogFault, LogScope, Verdict};

const V4: Ends = Ends::v4(4000, 80);

#[track_caller]
fn refused(verdict: &Verdict) {
    assert_eq!(
        verdict.reason(),
        Some(DropReason::LogUnavailable),
        "{verdict:?}"
    );
    assert_eq!(verdict.tracked().class, Class::New);
}

#[test]
fn a_closed_gate_drops_what_would_open_a_session_and_nothing_else() {
    let scene = Scene::new("");
    scene.pass(V4, SYN, 100, 0, b"");
    scene.pass(V4.back(), SYN | ACK, 500, 101, b"");
    scene.engine.log_gate().report(LogFault::WriterFails);
    scene.pass(V4, ACK, 101, 501, b"");
    scene.pass(V4, ACK, 101, 501, b"request");
    let newcomers = [
        udp(V4, b"question"),
        udp(Ends::v6(4000, 53), b"question"),
        echo(V4, true),
    ];
    for packet in &newcomers {
        refused(&scene.decide(packet));
    }
    refused(&scene.tcp(Ends::v4(4001, 80), SYN, 100, 0, b""));
    let stats = scene.engine.stats();
    assert_eq!(stats.dropped_by(DropReason::LogUnavailable), 4);
    assert_eq!(scene.engine.sessions(), 1);
    scene.pass(V4, RST, 108, 0, b"");
    scene.engine.log_gate().clear(LogFault::WriterFails);
    for packet in &newcomers {
        assert!(scene.decide(packet).is_forward());
    }
    scene.engine.check_invariants().unwrap();
}

#[test]
fn what_the_policy_denies_is_dropped_for_that_reason() {
    let scene = Scene::new("policy.default = \"deny\"");
    scene.engine.log_gate().report(LogFault::QueueFull);
    let verdict = scene.decide(&udp(V4, b"question"));
    assert_eq!(verdict.reason(), Some(DropReason::PolicyDeny));
}

#[test]
fn sessions_that_need_no_log_are_admitted_if_only_those_of_marked_rules_need_it() {
    let scene = Scene::new(
        "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"udp\"\n\
         destination_ports = 80\nlog = true\n",
    );
    let gate = scene.engine.log_gate();
    gate.set_scope(LogScope::Marked);
    gate.report(LogFault::QueueFull);
    refused(&scene.decide(&udp(V4, b"question")));
    assert!(
        scene
            .decide(&udp(Ends::v4(4000, 53), b"question"))
            .is_forward()
    );
    gate.set_scope(LogScope::All);
    refused(&scene.decide(&udp(Ends::v4(4001, 53), b"question")));
}

#[test]
fn audited_sessions_need_the_log_where_it_has_lines_of_them() {
    let scene = Scene::new(
        "[[policy.rule]]\nname = \"watched\"\naction = \"audit\"\nprotocol = \"udp\"\n\
         destination_ports = 80\n",
    );
    let gate = scene.engine.log_gate();
    gate.report(LogFault::QueueFull);
    for (scope, audited) in [
        (LogScope::MarkedAndAudited, Some(DropReason::LogUnavailable)),
        (LogScope::Marked, None),
    ] {
        gate.set_scope(scope);
        let reasons = [80, 53].map(|port| {
            let packet = udp(Ends::v4(4000, port), b"question");
            scene.decide(&packet).reason()
        });
        assert_eq!(reasons, [audited, None], "{scope:?}");
    }
}
