//! Suspicion, listing and retraction.
use super::*;
use crate::session::testing;

struct Scene {
    asymmetry: Asymmetry,
    config: AsymmetryConfig,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        let config = AsymmetryConfig {
            packets: 4,
            ..AsymmetryConfig::default()
        };
        Self {
            asymmetry: Asymmetry::new([1, 2, 3, 4]).unwrap(),
            config,
            start: Instant::now(),
        }
    }

    /// A packet that proves what its kind does, and acknowledges one more each millisecond.
    fn see(&self, flow: u32, source: End, evidence: Evidence, opposite: Option<u32>, after: u64) {
        let sign = match evidence {
            Evidence::SynAckWithoutSyn | Evidence::AckWithoutSynAck => Sign::Proof,
            _ => Sign::Acknowledges {
                ack: SeqNum(after as u32),
                first_hand: evidence == Evidence::UnseenDataAcknowledged,
            },
        };
        self.see_sign((flow, source), evidence, sign, opposite, after);
    }

    fn see_sign(
        &self,
        (flow, source): (u32, End),
        evidence: Evidence,
        sign: Sign,
        opposite: Option<u32>,
        after: u64,
    ) {
        let sighting = Sighting {
            key: testing::key(flow),
            source,
            evidence: Some(evidence),
            sign,
            opposite,
            other_zone: None,
            at: self.start + Duration::from_millis(after),
        };
        self.asymmetry.see(&sighting, &self.config);
    }

    fn lines(&self) -> Vec<(Evidence, u64, u64)> {
        let lines = self.asymmetry.report().lines;
        lines
            .iter()
            .map(|line| (line.evidence, line.flows, line.packets))
            .collect()
    }
}

#[test]
fn one_direction_alone_is_listed_after_enough_packets() {
    let scene = Scene::new();
    for packet in 0..3 {
        scene.see(1, End::Low, Evidence::BeginningUnseen, None, 400 * packet);
    }
    assert_eq!(scene.lines(), []);
    scene.see(1, End::Low, Evidence::BeginningUnseen, None, 1200);
    assert_eq!(scene.lines(), [(Evidence::OneDirectionOnly, 1, 4)]);
    scene.see(1, End::Low, Evidence::BeginningUnseen, None, 1201);
    assert_eq!(scene.lines(), [(Evidence::OneDirectionOnly, 1, 5)]);
    let line = scene.asymmetry.report().lines[0];
    assert_eq!(
        (line.first, line.last),
        (scene.start, scene.start + Duration::from_millis(1201))
    );
    assert_eq!(line.missing(), Some((line.to, line.from)));
    assert_eq!(line.cause(), Cause::RoutingAsymmetry);
}

#[test]
fn a_window_full_of_packets_before_the_first_answer_is_no_asymmetry() {
    let scene = Scene::new();
    for packet in 0..100 {
        scene.see(1, End::Low, Evidence::OneDirectionOnly, Some(0), packet);
    }
    scene.see(1, End::High, Evidence::OneDirectionOnly, Some(100), 100);
    assert_eq!(scene.lines(), []);
}

#[test]
fn one_direction_alone_is_listed_after_enough_time() {
    let scene = Scene::new();
    scene.see(1, End::High, Evidence::SynAckWithoutSyn, None, 0);
    scene.see(1, End::High, Evidence::SynAckWithoutSyn, None, 9_999);
    assert_eq!(scene.lines(), []);
    scene.see(1, End::High, Evidence::SynAckWithoutSyn, None, 10_000);
    assert_eq!(scene.lines(), [(Evidence::SynAckWithoutSyn, 1, 3)]);
}

#[test]
fn both_directions_without_a_beginning_are_no_asymmetry() {
    let scene = Scene::new();
    scene.see(1, End::Low, Evidence::BeginningUnseen, None, 0);
    for packet in 0..20 {
        let source = if packet % 2 == 0 { End::High } else { End::Low };
        scene.see(1, source, Evidence::BeginningUnseen, None, packet);
    }
    let lines = scene.lines();
    assert!(
        lines
            .iter()
            .all(|(evidence, ..)| *evidence == Evidence::BeginningUnseen),
        "{lines:?}"
    );
    assert!(
        scene
            .asymmetry
            .report()
            .lines
            .iter()
            .all(|line| line.missing().is_none())
    );
    assert_eq!(
        lines.iter().map(|line| line.1).sum::<u64>(),
        1,
        "one flow: {lines:?}"
    );
}

#[test]
fn an_accusation_is_taken_back_when_the_other_direction_comes() {
    let scene = Scene::new();
    for packet in 0..8 {
        scene.see(1, End::Low, Evidence::BeginningUnseen, None, 200 * packet);
        scene.see(
            2,
            End::Low,
            Evidence::AckWithoutSynAck,
            Some(0),
            200 * packet,
        );
    }
    assert_eq!(
        scene.lines(),
        [
            (Evidence::AckWithoutSynAck, 1, 8),
            (Evidence::OneDirectionOnly, 1, 8)
        ]
    );
    scene.see(1, End::High, Evidence::BeginningUnseen, None, 1_600);
    let cleared = Sighting {
        key: testing::key(2),
        source: End::High,
        evidence: None,
        sign: Sign::Nothing,
        opposite: None,
        other_zone: None,
        at: scene.start,
    };
    scene.asymmetry.see(&cleared, &scene.config);
    assert_eq!(scene.lines(), [(Evidence::BeginningUnseen, 1, 1)]);
}

#[test]
fn a_session_whose_other_direction_comes_is_no_suspect() {
    let scene = Scene::new();
    for packet in 0..50 {
        let opposite = Some(packet as u32);
        scene.see(
            1,
            End::Low,
            Evidence::UnseenDataAcknowledged,
            opposite,
            packet,
        );
    }
    assert_eq!(scene.lines(), []);
    for packet in [50, 51, 52, 1_052] {
        scene.see(
            1,
            End::Low,
            Evidence::UnseenDataAcknowledged,
            Some(50),
            packet,
        );
    }
    assert_eq!(scene.lines(), [(Evidence::UnseenDataAcknowledged, 1, 4)]);
}

/// Acknowledgments of a conversation, at milliseconds, and the line that they make.
fn acknowledged(
    evidence: Evidence,
    first_hand: bool,
    acks: &[(u64, u32)],
) -> Vec<(Evidence, u64, u64)> {
    let scene = Scene::new();
    for (after, ack) in acks {
        let sign = Sign::Acknowledges {
            ack: SeqNum(*ack),
            first_hand,
        };
        scene.see_sign((1, End::Low), evidence, sign, Some(0), *after);
    }
    scene.lines()
}

#[test]
fn only_an_acknowledgment_that_advances_is_proof() {
    use Evidence::{BeginningUnseen, OneDirectionOnly, UnseenDataAcknowledged};
    // A segment that is repeated until its sender gives up.
    let repeated: Vec<_> = (0..60).map(|second| (second * 1_000, 500)).collect();
    // An older segment that was overtaken.
    let reordered = [
        (0, 500),
        (1, 400),
        (2_000, 450),
        (20_000, 500),
        (20_001, 500),
    ];
    // Segments that were in flight when the flow moved here.
    let mut on_its_way: Vec<_> = (0..20).map(|n| (n * 40, 500 + n as u32)).collect();
    on_its_way.extend((0..20).map(|second| (1_000 + second * 1_000, 519)));
    for evidence in [BeginningUnseen, OneDirectionOnly, UnseenDataAcknowledged] {
        for first_hand in [true, false] {
            assert_eq!(acknowledged(evidence, first_hand, &repeated), []);
            assert_eq!(acknowledged(evidence, first_hand, &reordered), []);
        }
        assert_eq!(acknowledged(evidence, false, &on_its_way), []);
    }
    // If all of a connection has passed here, nothing else is in flight.
    let lines = acknowledged(UnseenDataAcknowledged, true, &on_its_way);
    assert_eq!(lines, [(UnseenDataAcknowledged, 1, 40)]);
    // After a round trip the acknowledgment counts in any case; the sequence space wraps.
    let goes_on = [(0, u32::MAX), (10, u32::MAX), (1_500, 3), (1_501, 3)];
    let lines = acknowledged(BeginningUnseen, false, &goes_on);
    assert_eq!(lines, [(OneDirectionOnly, 1, 4)]);
}

#[test]
fn what_moved_away_and_came_back_has_to_prove_it_again() {
    let twice = [
        (0, 500),
        (1_000, 500),
        (12_000, 900),
        (12_500, 950),
        (22_500, 950),
    ];
    assert_eq!(acknowledged(Evidence::BeginningUnseen, false, &twice), []);
}

#[test]
fn what_proves_nothing_is_never_listed() {
    let scene = Scene::new();
    for second in 0..60 {
        for evidence in [Evidence::SynAckWithoutSyn, Evidence::OneDirectionOnly] {
            let flow = evidence as u32;
            scene.see_sign(
                (flow, End::Low),
                evidence,
                Sign::Nothing,
                None,
                1_000 * second,
            );
        }
    }
    assert_eq!(scene.lines(), []);
    // The conversation is still remembered: packets after one that was allowed continue to pass.
    let key = testing::key(Evidence::SynAckWithoutSyn as u32);
    let at = scene.start + Duration::from_secs(60);
    let suspected = scene.asymmetry.suspected(&key, End::Low, at);
    assert_eq!(suspected, Some(Direction::Reply));
}

#[test]
fn lines_are_by_prefix_and_bounded() {
    let mut scene = Scene::new();
    for flow in 0..100 {
        scene.see(flow, End::Low, Evidence::AfterEnd, None, 0);
    }
    assert_eq!(scene.lines(), [(Evidence::AfterEnd, 100, 100)]);
    scene.config.max_entries = 1;
    scene.asymmetry.set_shares(&scene.config, &[]);
    scene.see(7, End::High, Evidence::AfterEnd, None, 0);
    assert_eq!(scene.asymmetry.report().unlisted, 1);
    scene.asymmetry.clear();
    assert_eq!(scene.asymmetry.report().lines, []);
    scene.see(7, End::High, Evidence::AfterEnd, None, 0);
    assert_eq!(scene.lines().len(), 1);
}

#[test]
fn lines_of_one_zone_leave_those_of_another() {
    let mut scene = Scene::new();
    scene.config.max_entries = 8;
    scene.config.prefix_v4 = 32;
    scene
        .asymmetry
        .set_shares(&scene.config, &[Zone(1), Zone(2)]);
    let see = |zone: u16, flow: u32| {
        let sighting = Sighting {
            key: testing::key_in(Zone(zone), flow),
            source: End::Low,
            evidence: Some(Evidence::AfterEnd),
            sign: Sign::Nothing,
            opposite: None,
            other_zone: None,
            at: scene.start,
        };
        scene.asymmetry.see(&sighting, &scene.config);
    };
    let lines = |zone| {
        let lines = scene.asymmetry.report().lines;
        lines.iter().filter(|line| line.zone == Zone(zone)).count()
    };
    (0..100).for_each(|flow| see(1, flow));
    (0..100).for_each(|flow| see(2, flow));
    assert_eq!([lines(1), lines(2)], [6, 2]);
    scene.asymmetry.clear();
    (0..100).for_each(|flow| see(2, flow));
    assert_eq!([lines(1), lines(2)], [0, 6]);
}

#[test]
fn a_flood_of_single_packets_does_not_push_a_suspect_out() {
    let scene = Scene::new();
    scene.see(1, End::Low, Evidence::SynAckWithoutSyn, None, 0);
    scene.see(1, End::Low, Evidence::SynAckWithoutSyn, None, 1);
    for flow in 2..100_000 {
        scene.see(flow, End::Low, Evidence::BeginningUnseen, None, 2);
    }
    scene.see(1, End::Low, Evidence::SynAckWithoutSyn, None, 3);
    scene.see(1, End::Low, Evidence::SynAckWithoutSyn, None, 4);
    assert_eq!(scene.lines(), [(Evidence::SynAckWithoutSyn, 1, 4)]);
    assert!(scene.asymmetry.report().unnoticed > 0);
}
