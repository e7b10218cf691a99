//! What is suspected, listed and taken back.
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
            asymmetry: Asymmetry::new([1, 2, 3, 4]),
            config,
            start: Instant::now(),
        }
    }

    fn see(&self, flow: u32, source: End, evidence: Evidence, opposite: Option<u32>, after: u64) {
        let sighting = Sighting {
            key: testing::key(flow),
            source,
            evidence: Some(evidence),
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
        scene.see(2, End::Low, Evidence::AckWithoutSynAck, Some(0), 200 * packet);
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
        scene.see(1, End::Low, Evidence::UnseenDataAcknowledged, opposite, packet);
    }
    assert_eq!(scene.lines(), []);
    for packet in 50..54 {
        scene.see(1, End::Low, Evidence::UnseenDataAcknowledged, Some(50), packet);
    }
    assert_eq!(scene.lines(), [(Evidence::UnseenDataAcknowledged, 1, 4)]);
}

#[test]
fn lines_are_by_prefix_and_bounded() {
    let mut scene = Scene::new();
    for flow in 0..100 {
        scene.see(flow, End::Low, Evidence::AfterEnd, None, 0);
    }
    assert_eq!(scene.lines(), [(Evidence::AfterEnd, 100, 100)]);
    scene.config.max_entries = 1;
    scene.see(7, End::High, Evidence::AfterEnd, None, 0);
    assert_eq!(scene.asymmetry.report().unlisted, 1);
    scene.asymmetry.clear();
    assert_eq!(scene.asymmetry.report().lines, []);
    scene.see(7, End::High, Evidence::AfterEnd, None, 0);
    assert_eq!(scene.lines().len(), 1);
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
