//! Bounds on questions and on packets that wait for answers.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{ACK, Ends, Head, SYN, tcp, udp};
use crate::support::proptest_config;
use crate::support::scene::segment;
use crate::support::seal::sealed;
use crate::support::site::{EPOCH, Inbox, Site, Store};
use portcullis::{
    Answer, Answered, Config, Engine, HeldPackets, HoldId, Outbox, Packet, Question, QuestionKind,
    Sink, Unasked, Verdict, Zone,
};
use proptest::prelude::*;

const ALLOW: &str = "[policy]\ndefault = \"allow\"\n";

fn stray(port: u16) -> Vec<u8> {
    segment(Ends::v4(port, 80), ACK, 101, 501, b"0123456789")
}

/// Returns a segment without a session from any source.
fn stray_from(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = stray(port);
    bytes[12..16].copy_from_slice(&source);
    sealed(bytes)
}

fn site(continuity: &str) -> Site {
    Site::of(&format!(
        "{ALLOW}[continuity]\nenabled = true\n{continuity}"
    ))
}

#[test]
fn packets_of_one_flow_are_bounded() {
    let mut site = site("max_held_per_flow = 3\n");
    for _ in 0..3 {
        assert_eq!(site.take(&stray(1)), ["hold"]);
    }
    assert_eq!(site.take(&stray(1)), ["tcp_no_session"]);
    assert_eq!(site.stats().unasked_for(Unasked::HeldPerFlow), 1);
    assert_eq!(site.take(&stray(2)), ["hold"], "another flow");
    assert_eq!(site.ask(&Store::default()).len(), 2);
    assert_eq!(site.ready(), ["tcp_no_session"; 4]);
    assert_eq!((site.stats().held, site.stats().held_bytes), (0, 0));
}

#[test]
fn bytes_of_one_flow_are_bounded() {
    let mut site = site("max_held_bytes_per_flow = 65535\n");
    let large = |n: u8| segment(Ends::v4(1, 80), ACK, 101, 501, &[n; 30_000]);
    assert_eq!(site.take(&large(1)), ["hold"]);
    assert_eq!(site.take(&large(2)), ["hold"]);
    assert_eq!(site.take(&large(3)), ["tcp_no_session"]);
    assert_eq!(site.take(&stray(1)), ["hold"], "a small one fits");
    assert_eq!(site.stats().unasked_for(Unasked::HeldPerFlow), 1);
    assert_eq!(site.stats().held_bytes, 2 * 30_040 + 50);
}

#[test]
fn packets_and_bytes_of_all_flows_are_bounded() {
    let mut packets = site("max_held = 2\n");
    let mut bytes = site("max_held_bytes = 65535\n");
    // A source of its own for each flow.
    let source = |port: u16| [192, 0, 2, port as u8];
    let stray = |port| stray_from(source(port), port);
    let large = |port| {
        let mut bytes = segment(Ends::v4(port, 80), ACK, 101, 501, &[0; 30_000]);
        bytes[12..16].copy_from_slice(&source(port));
        sealed(bytes)
    };
    for port in [1, 2] {
        assert_eq!(packets.take(&stray(port)), ["hold"]);
        assert_eq!(bytes.take(&large(port)), ["hold"]);
    }
    // Neither a new question nor another packet of an open one.
    for port in [3, 1] {
        assert_eq!(packets.take(&stray(port)), ["tcp_no_session"]);
        assert_eq!(bytes.take(&large(port)), ["tcp_no_session"]);
    }
    for mut site in [packets, bytes] {
        assert_eq!(site.stats().unasked_for(Unasked::Held), 2);
        assert_eq!(site.stats().asked_for(QuestionKind::Session), 2);
        assert_eq!(site.ask(&Store::default()).len(), 2);
        assert_eq!(site.ready(), ["tcp_no_session"; 2]);
        assert_eq!(site.take(&stray(4)), ["hold"], "there is room again");
    }
}

#[test]
fn open_questions_are_bounded_and_answered_ones_make_room() {
    let mut site = site("max_questions = 3\n");
    let stray = |port: u16| stray_from([192, 0, 2, port as u8], port);
    for port in 1..=3 {
        assert_eq!(site.take(&stray(port)), ["hold"]);
    }
    assert_eq!(site.take(&stray(4)), ["tcp_no_session"]);
    assert_eq!(site.stats().unasked_for(Unasked::Questions), 1);
    // The oldest place is the next one.
    let newest = site.inbox.questions.pop_back().unwrap();
    site.answer(newest.id, &Answer::Nothing);
    assert_eq!(site.ready(), ["tcp_no_session"]);
    assert_eq!(site.take(&stray(4)), ["tcp_no_session"]);
    let oldest = site.inbox.questions.pop_front().unwrap();
    site.answer(oldest.id, &Answer::Nothing);
    assert_eq!(site.ready(), ["tcp_no_session"]);
    assert_eq!(site.take(&stray(4)), ["hold"]);
    // Its place is taken: an answer to the old question is unknown.
    assert_eq!(site.answer(oldest.id, &Answer::Nothing), Answered::Unknown);
    assert_eq!(site.stats().open, 2);
    // Time makes room as well.
    site.wait(10);
    assert_eq!(site.ready(), ["tcp_no_session"; 2]);
    for port in 5..=7 {
        assert_eq!(site.take(&stray(port)), ["hold"]);
    }
}

#[test]
fn one_source_leaves_places_to_others() {
    for bound in [
        "max_held = 8\n",
        "max_questions = 8\n",
        "max_held_bytes = 65535\n",
    ] {
        let mut site = site(bound);
        let large = |source: [u8; 4], port: u16| {
            let mut bytes = segment(Ends::v4(port, 80), ACK, 101, 501, &[0; 8_000]);
            bytes[12..16].copy_from_slice(&source);
            sealed(bytes)
        };
        let mut held = |source: [u8; 4]| {
            let taken = (1..=20).filter(|port| site.take(&large(source, *port)) == ["hold"]);
            taken.count()
        };
        let (flood, other) = (held([192, 0, 2, 1]), held([192, 0, 2, 2]));
        assert_eq!((flood, other), (4, 2), "{bound}");
        assert_eq!(site.stats().unasked_for(Unasked::Share), 16 + 18, "{bound}");
        assert_eq!(site.stats().held, 6);
        assert_eq!(site.ask(&Store::default()).len(), 6);
        site.ready();
        let stats = site.stats();
        assert_eq!((stats.held, stats.held_bytes, stats.open), (0, 0, 0));
    }
}

#[test]
fn one_zone_leaves_places_to_others() {
    let mut site = Site::of(&format!(
        "{ALLOW}[zones]\nred = 1\nblue = 2\n[continuity]\nenabled = true\nmax_held = 16\n"
    ));
    let mut held = |zone, source: u8| {
        site.zone = Zone(zone);
        let stray = |port| stray_from([192, 0, 2, source], port);
        (1..=20)
            .filter(|port| site.take(&stray(*port)) == ["hold"])
            .count()
    };
    // Of 16 packets, each zone is sure of 4 or fewer. Many sources flood one zone.
    let flood: usize = (1..=50).map(|source| held(1, source)).sum();
    assert!((8..=12).contains(&flood), "{flood}");
    assert!(held(2, 1) >= 1, "a place of the other zone");
}

#[test]
fn a_flood_of_stray_segments_asks_within_the_budget() {
    let mut site = site("questions = 1000\nquestions_per_source = 100\nmax_questions = 32768\n");
    let mut asked = 0;
    // 200,000 segments a second, each of a flow of its own, of a thousand sources.
    for n in 0..200_000_u32 {
        if n % 200 == 0 {
            site.wait(1);
            site.ready();
            asked += site.ask(&Store::default()).len();
            site.ready();
        }
        let [_, _, upper, lower] = (n % 1_000).to_be_bytes();
        let bytes = stray_from([10, 1, upper, lower], (n / 1_000) as u16 + 1);
        let packet = Packet::new(&bytes, site.now).can_hold(true);
        let verdict = site.engine.process_with(packet, &mut site.inbox);
        if let Verdict::Hold(id, _) = verdict {
            assert!(site.held.put(&site.engine, id, bytes, site.now).is_none());
        }
    }
    site.wait(1);
    asked += site.ask(&Store::default()).len();
    site.ready();
    // A second's worth of the half for all sources at once, and another one within the second.
    assert!((950..=1_000).contains(&asked), "{asked}");
    let stats = site.stats();
    assert_eq!(stats.asked_for(QuestionKind::Session), asked as u64);
    let refused = stats.unasked_for(Unasked::OverallBudget);
    assert!(refused > 190_000, "{stats:?}");
    assert_eq!((stats.held, stats.open), (0, 0));
    site.engine.check_invariants().unwrap();
}

/// Opens a TCP session from a port, after which [`stray`] is its next segment.
fn connect(site: &mut Site, port: u16) {
    let ends = Ends::v4(port, 80);
    for bytes in [
        segment(ends, SYN, 100, 0, b""),
        segment(ends.back(), SYN | ACK, 500, 101, b""),
        segment(ends, ACK, 101, 501, b""),
    ] {
        assert_eq!(site.take(&bytes), ["forward"]);
    }
}

#[test]
fn questions_that_find_a_session_cost_a_quarter_and_have_half_the_rate() {
    let (mut old, mut store) = (site(""), Store::default());
    for port in 1..=200 {
        connect(&mut old, port);
    }
    old.save(&mut store);
    let mut new = site("questions = 40\nquestions_per_source = 40\n");
    assert_eq!(new.take_with(&store, &stray(1)), ["hold", "forward"]);
    // A flood from other sources takes the half for all.
    let flood = (0..200).filter(|n| {
        let names = new.take_with(&store, &stray_from([192, 0, 2, *n], 7));
        names[0] == "hold"
    });
    assert_eq!(flood.count(), 19);
    let refused = new.stats().unasked_for(Unasked::OverallBudget);
    // Both ends of the session that has moved are known. Each question waits for its answer while
    // another one is asked.
    let mut moved = 1;
    for port in (2..=200).step_by(2) {
        let answer = segment(Ends::v4(port + 1, 80).back(), ACK, 501, 101, b"answer");
        let held = [stray(port), answer].map(|bytes| new.take(&bytes) == ["hold"]);
        new.ask(&store);
        moved += new
            .ready()
            .iter()
            .filter(|name| **name == "forward")
            .count();
        if held != [true; 2] {
            break;
        }
    }
    assert!((75..=81).contains(&moved), "four times twenty: {moved}");
    assert_eq!(new.stats().answered_by(Answered::Resumed), moved as u64);
    assert!(new.stats().unasked_for(Unasked::OverallBudget) > refused);
}

#[test]
fn answers_that_change_nothing_are_not_given_back() {
    let (mut old, mut store) = (site(""), Store::default());
    connect(&mut old, 1);
    old.save(&mut store);
    let mut new = site("questions = 4\nnothing_for = \"10ms\"\n");
    assert_eq!(new.take_with(&store, &stray(1)), ["hold", "forward"]);
    new.save(&mut store);
    new.wait(1_100);
    // Far from the numbers of a session that has been idle.
    let wild = segment(Ends::v4(1, 80), ACK, 0x7000_0000, 501, b"wild");
    let each = (0..20).filter(|_| {
        new.wait(11);
        new.take_with(&store, &wild)[0] == "hold"
    });
    assert_eq!(each.count(), 4);
    assert_eq!(new.stats().answered_by(Answered::Present), 4);
}

#[test]
fn packets_that_need_no_question_are_not_counted_although_the_rate_is_used_up() {
    let mut site = site("questions = 0\n");
    connect(&mut site, 1);
    assert_eq!(site.take(&udp(Ends::v4(1, 53), b"query")), ["forward"]);
    assert_eq!(site.stats().unasked_for(Unasked::OverallBudget), 0);
    assert_eq!(site.take(&stray(2)), ["tcp_no_session"]);
    assert_eq!(site.stats().unasked_for(Unasked::OverallBudget), 1);
}

#[test]
fn packets_join_an_open_question_although_the_rate_is_used_up() {
    let mut site = site("questions = 1\n");
    assert_eq!(site.take(&stray(1)), ["hold"]);
    assert_eq!(site.take(&stray(2)), ["tcp_no_session"]);
    assert_eq!(site.stats().unasked_for(Unasked::OverallBudget), 1);
    assert_eq!(site.take(&stray(1)), ["hold"]);
    assert_eq!(site.ask(&Store::default()).len(), 1);
    assert_eq!(site.ready(), ["tcp_no_session"; 2]);
}

#[test]
fn a_session_of_another_zone_is_found_although_the_rate_is_used_up() {
    for rate in [0, 5_000] {
        let mut site = Site::of(&format!(
            "{ALLOW}[zones]\nblue = 1\ngreen = 2\n\
             [continuity]\nenabled = true\nquestions = {rate}\n"
        ));
        site.zone = Zone(1);
        connect(&mut site, 1);
        site.zone = Zone(2);
        assert_eq!(site.take(&stray(1)), ["other_zone"], "{rate}");
    }
}

#[test]
fn one_source_leaves_questions_to_others() {
    let mut site = site("questions = 1000\nquestions_per_source = 100\n");
    let ask = |site: &mut Site, source, port| {
        let names = site.take(&stray_from(source, port));
        site.ask(&Store::default());
        site.ready();
        names[0] == "hold"
    };
    let of_one = (1..=500).filter(|port| ask(&mut site, [10, 0, 0, 9], *port));
    assert_eq!(of_one.count(), 100);
    assert_eq!(site.stats().unasked_for(Unasked::SourceBudget), 400);
    assert!(ask(&mut site, [10, 0, 0, 8], 1));
}

#[test]
fn one_zone_leaves_questions_to_others() {
    let mut site = Site::of(&format!(
        "{ALLOW}[zones]\nblue = 1\ngreen = 2\n[continuity]\nenabled = true\nquestions = 400\n"
    ));
    let ask = |site: &mut Site, zone, n: u16| {
        site.zone = Zone(zone);
        let [upper, lower] = n.to_be_bytes();
        let names = site.take(&stray_from([10, 1, upper, lower], 7));
        site.ask(&Store::default());
        site.ready();
        names[0] == "hold"
    };
    let blue = (0..1_000).filter(|n| ask(&mut site, 1, *n)).count();
    assert_eq!(
        blue, 150,
        "of the half for all sources: its guarantee of 50, and the common 100"
    );
    let green = (0..1_000).filter(|n| ask(&mut site, 2, *n)).count();
    assert_eq!(green, 50);
}

#[test]
fn flows_of_which_the_store_has_nothing_are_remembered_within_a_bound() {
    // One place: a newer flow replaces an older one.
    let mut site = site("max_nothing = 1\n");
    let empty = Store::default();
    assert_eq!(
        site.take_with(&empty, &stray(1)),
        ["hold", "tcp_no_session"]
    );
    assert_eq!(site.take(&stray(1)), ["tcp_no_session"]);
    assert_eq!(
        site.take_with(&empty, &stray(2)),
        ["hold", "tcp_no_session"]
    );
    assert_eq!(
        site.take_with(&empty, &stray(1)),
        ["hold", "tcp_no_session"]
    );
}

#[test]
fn an_announcement_is_asked_for_again_when_its_syn_is_repeated() {
    let toml = "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                destination_ports = 21\n";
    let mut site = Site::new(toml);
    let syn = segment(Ends::v4(40_000, 50_000), SYN, 9_000, 0, b"");
    let empty = Store::default();
    assert_eq!(site.take_with(&empty, &syn), ["hold", "policy_deny"]);
    site.wait(400);
    assert_eq!(site.take(&syn), ["policy_deny"]);
    site.wait(600);
    assert_eq!(site.take(&syn), ["hold"]);
}

#[test]
fn fragments_wait_for_their_first_one_and_that_one_for_the_answer() {
    let toml = "[[policy.rule]]\nname = \"from-1\"\naction = \"allow\"\nsource = \"10.0.0.1/32\"\n";
    let ends = Ends::v4(4000, 53);
    let (mut old, mut store) = (Site::new(toml), Store::default());
    assert_eq!(old.take(&udp(ends, b"query")), ["forward"]);
    assert_eq!(old.take(&udp(ends.back(), b"reply")), ["forward"]);
    old.save(&mut store);
    let whole = udp(ends.back(), &[7; 1_600]);
    let cut = |start: usize, end: usize, more: u16| {
        let mut part = whole[..20].to_vec();
        part.extend(&whole[20 + start..20 + end]);
        let len = (20 + end - start) as u16;
        part[2..4].copy_from_slice(&len.to_be_bytes());
        part[4..6].copy_from_slice(&9u16.to_be_bytes());
        part[6..8].copy_from_slice(&((start as u16 / 8) | more).to_be_bytes());
        sealed(part)
    };
    let (first, last) = (cut(0, 800, 0x2000), cut(800, 1_608, 0));
    for order in [[&first, &last], [&last, &first]] {
        let mut new = Site::new(toml);
        for part in order {
            assert_eq!(new.take(part), ["hold"]);
        }
        assert_eq!(new.ask(&store), [Answered::Resumed]);
        let mut names = new.ready();
        names.extend(new.ready());
        assert_eq!(names, ["forward", "forward"]);
        assert_eq!((new.held.len(), new.engine.datagrams()), (0, 0));
        // Without a record, both are dropped.
        let mut new = Site::new(toml);
        for part in order {
            assert_eq!(new.take(part), ["hold"]);
        }
        new.ask(&Store::default());
        let mut names = new.ready();
        names.extend(new.ready());
        assert_eq!(names, ["policy_deny", "fragment_of_dropped"]);
    }
}

#[test]
fn an_outbox_keeps_questions_beside_other_events() {
    let site = site("");
    let mut outbox = Outbox::with_limits(4, 2);
    for port in 1..=3 {
        let bytes = stray(port);
        let packet = Packet::new(&bytes, site.now).can_hold(true);
        assert_eq!(site.engine.process(&packet, &mut outbox).name(), "hold");
    }
    assert_eq!((outbox.len(), outbox.lost().events), (2, 1));
    let questions = outbox
        .drain()
        .filter(|event| matches!(event, portcullis::Event::Question(_)));
    assert_eq!(questions.count(), 2);
}

/// The flows of the property test.
const FLOWS: RangeInclusive<u16> = 1..=6;

/// A packet of the property test: its flow, and its number in the flow.
type Numbered = (u16, u32);

/// Step of the property test.
#[derive(Debug, Clone)]
enum Step {
    /// A packet of a flow comes.
    Packet(u16),
    /// A question is answered: the newest or the oldest, with a record or without, once or twice.
    Answer {
        newest: bool,
        record: bool,
        twice: bool,
    },
    /// Milliseconds pass.
    Time(u64),
    /// The caller looks for packets that are ready.
    Poll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => FLOWS.prop_map(Step::Packet),
        3 => any::<(bool, bool, bool)>().prop_map(|(newest, record, twice)| Step::Answer {
            newest,
            record,
            twice,
        }),
        1 => (0..15u64).prop_map(Step::Time),
        2 => Just(Step::Poll),
    ];
    proptest::collection::vec(step, 1..200)
}

/// Returns a store with a session of each flow of the property test.
fn all_flows() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let (mut site, mut store) = (Site::new(ALLOW), Store::default());
        for flow in FLOWS {
            let ends = Ends::v4(flow, 80);
            site.take(&segment(ends, SYN, 100, 0, b""));
            site.take(&segment(ends.back(), SYN | ACK, 500, 101, b""));
            site.take(&segment(ends, ACK, 101, 501, b""));
        }
        site.save(&mut store);
        store
    })
}

/// A caller that notes in which order packets come out.
struct Orderly {
    engine: Engine,
    held: HeldPackets<Numbered>,
    inbox: Inbox,
    now: Instant,
    sent: HashMap<u16, u32>,
    put: HashMap<u16, Vec<u32>>,
    out: HashMap<u16, Vec<u32>>,
}

impl Orderly {
    fn new() -> Self {
        let toml = format!(
            "{ALLOW}[table]\nmax_sessions = 64\n[tombstones]\nmax = 64\n\
             [continuity]\nenabled = true\nmax_nothing = 64\nmax_questions = 4\nmax_held = 20\n\
             max_held_per_flow = 6\nnothing_for = \"10ms\"\n"
        );
        let config = Config::from_toml(&toml, "test.toml").unwrap();
        Self {
            engine: Engine::with_seed(&config, [1, 2, 3, 4]).unwrap(),
            held: HeldPackets::with_config(&config),
            inbox: Inbox::default(),
            now: Instant::now(),
            sent: HashMap::new(),
            put: HashMap::new(),
            out: HashMap::new(),
        }
    }

    fn packet(&mut self, flow: u16) {
        let sent = self.sent.entry(flow).or_default();
        *sent += 1;
        let head = Head {
            flags: ACK,
            seq: 101,
            ack: 501,
            window: 1_000,
        };
        let bytes = tcp(Ends::v4(flow, 80), head, &[], b"");
        let packet = Packet::new(&bytes, self.now).can_hold(true);
        if let Verdict::Hold(id, _) = self.engine.process_with(packet, &mut self.inbox) {
            assert!(
                self.held
                    .put(&self.engine, id, (flow, *sent), self.now)
                    .is_none()
            );
            self.put.entry(flow).or_default().push(*sent);
        }
    }

    fn answer(&mut self, question: &Question, record: bool) {
        let nothing = Store::default();
        let store = if record { all_flows() } else { &nothing };
        let answer = store.ask(&self.engine, question);
        let at = SystemTime::UNIX_EPOCH + EPOCH;
        self.engine
            .answer(question.id, &answer, self.now, at, &mut self.inbox);
    }

    /// Takes the packets that are ready. Each must be the next one of its flow.
    fn poll(&mut self) {
        let released: Vec<HoldId> = self.inbox.released.drain(..).collect();
        let mut ready: Vec<Numbered> = released.iter().flat_map(|id| self.held.take(*id)).collect();
        ready.extend(std::iter::from_fn(|| self.held.next(self.now)));
        for (flow, number) in ready {
            self.out.entry(flow).or_default().push(number);
        }
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Packet(flow) => self.packet(*flow),
                Step::Answer {
                    newest,
                    record,
                    twice,
                } => {
                    let questions = &mut self.inbox.questions;
                    let question = if *newest {
                        questions.pop_back()
                    } else {
                        questions.pop_front()
                    };
                    if let Some(question) = question {
                        self.answer(&question, *record);
                        if *twice {
                            self.answer(&question, !record);
                        }
                    }
                }
                Step::Time(millis) => self.now += Duration::from_millis(*millis),
                Step::Poll => {}
            }
            // As callers are told: after each packet, and every few milliseconds without one.
            self.poll();
            self.engine.check_invariants().unwrap();
        }
        self.now += Duration::from_secs(1);
        self.poll();
        self.engine.expire_with(self.now, 100, &mut self.inbox);
        let stats = self.engine.stats().questions;
        assert_eq!((stats.held, stats.held_bytes, stats.open), (0, 0, 0));
        assert!(self.held.is_empty());
        assert_eq!(
            self.out, self.put,
            "each packet comes out once and in order"
        );
    }
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn every_held_packet_comes_out_once_and_in_order(steps in steps()) {
        Orderly::new().run(&steps);
    }
}

/// Answers each question during the call that asks it.
struct AtOnce<'a> {
    engine: &'a Engine,
    now: Instant,
    released: Vec<HoldId>,
}

impl Sink for AtOnce<'_> {
    fn question(&mut self, question: &Question) {
        let mut inbox = Inbox::default();
        let at = SystemTime::UNIX_EPOCH;
        let effect = self
            .engine
            .answer(question.id, &Answer::Nothing, self.now, at, &mut inbox);
        assert_eq!(effect, Answered::Nothing);
        self.released.extend(inbox.released);
    }
}

#[test]
fn an_answer_before_the_packet_is_put_aside_makes_it_ready_at_once() {
    let site = site("");
    let bytes = stray(1);
    let mut sink = AtOnce {
        engine: &site.engine,
        now: site.now,
        released: Vec::new(),
    };
    let packet = Packet::new(&bytes, site.now).can_hold(true);
    let Verdict::Hold(id, _) = site.engine.process_with(packet, &mut sink) else {
        panic!("it is held")
    };
    // The caller does what it was told before it puts the packet aside.
    assert_eq!(sink.released, [id]);
    assert!(site.held.take(id).is_empty());
    assert!(
        site.held
            .put(&site.engine, id, bytes.clone(), site.now)
            .is_none()
    );
    assert_eq!(site.held.next(site.now), Some(bytes));
}
