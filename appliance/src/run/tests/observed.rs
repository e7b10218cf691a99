//! The stream of events over the control socket.

use portcullis::SessionFilter;
use portcullis::geneve::front::{Answer, Datagram, Decision, NotSent, Queued, Refusal, Scratch};
use portcullis::geneve::{InnerProtocol, TunnelOption, encode};

use super::*;
use crate::run::observe::row::EventRow;
use crate::run::observe::spec::{ConditionSpec, Field, StreamSpec};
use crate::run::protocol::{Reply, Request};
use crate::sessions::client::Client;

const FIELD: Duration = Duration::from_secs(10);

fn condition(field: Field, value: &str, not: bool) -> ConditionSpec {
    ConditionSpec {
        field,
        value: value.to_owned(),
        not,
    }
}

/// A connected client that observes.
struct Observing(Client);

impl Observing {
    /// Connects, and waits until the workers take its wishes.
    fn start(appliance: &TestAppliance, spec: StreamSpec) -> Self {
        let before = appliance.metric("portcullis_observe_clients");
        let mut client = Client::connect(&appliance.control()).unwrap();
        client.send(&Request::Observe(spec)).unwrap();
        wait_for("a client", || {
            appliance.metric("portcullis_observe_clients") > before
        });
        Self(client)
    }

    fn next(&mut self) -> EventRow {
        let until = Instant::now() + FIELD;
        loop {
            match self.0.receive().unwrap() {
                Reply::Event(row) => return *row,
                Reply::Pulse => assert!(Instant::now() < until, "no event comes"),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn follow(filter: Vec<ConditionSpec>) -> StreamSpec {
    StreamSpec {
        filter,
        follow: true,
        ..StreamSpec::default()
    }
}

fn past(appliance: &TestAppliance, spec: StreamSpec) -> Result<Vec<EventRow>, String> {
    let mut client = Client::connect(&appliance.control()).unwrap();
    let replies = client.ask(&Request::Observe(spec));
    let replies = replies.map_err(|error| error.to_string())?;
    let row = |reply| match reply {
        Reply::Event(row) => Some(*row),
        _ => None,
    };
    Ok(replies.into_iter().filter_map(row).collect())
}

/// Lets a packet in a tunnel through the front end, as a worker does.
fn through_the_front(appliance: &TestAppliance, inner: &[u8]) {
    let shared = &appliance.shared;
    let options = [TunnelOption {
        class: 0x0108,
        kind: 1,
        data: &[7; 8],
    }];
    let mut payload = vec![0; 20];
    assert_eq!(
        encode(InnerProtocol::Ipv4, 0, &options, &mut payload),
        Some(20)
    );
    payload.extend(inner);
    let datagram = Datagram {
        source: [10, 1, 0, 1].into(),
        source_port: 60_001,
        destination: [10, 1, 0, 2].into(),
        destination_port: 6081,
        payload: &payload,
    };
    let mut scratch = Scratch::new(&shared.front);
    shared.front.handle_queued_batch(
        &shared.engine,
        [Queued::from(datagram)],
        Instant::now(),
        &mut scratch,
        &mut EventSink::new(shared),
        |_, datagram, decision, sink| sink.tap.packet(datagram, &decision),
    );
}

const GWLB: &str = "[geneve]\nsources = \"10.1.0.0/16\"\nrequired = []\n";

#[test]
fn a_client_receives_what_its_filter_selects_and_nothing_else() {
    let appliance = TestAppliance::start("");
    let filter = vec![
        condition(Field::Event, "opened", false),
        condition(Field::Port, "53", true),
    ];
    let mut client = Observing::start(&appliance, follow(filter));
    appliance.query(3, 1);
    appliance.connection(1, 1_000);
    let row = client.next();
    assert_eq!((row.event.as_str(), row.dport), ("opened", Some(80)));
    assert_eq!(row.rule.as_deref(), Some("web"));
    let record = row.record.unwrap();
    assert_eq!(Some(record.id), row.session);
    assert_eq!(record.session.rule, "web");
    drop(client);
    wait_for("the end of the client", || {
        appliance.metric("portcullis_observe_clients") == 0.0
    });
    appliance.finish();
}

#[test]
fn a_denied_packet_has_its_rule_and_its_bytes() {
    let appliance = TestAppliance::start(GWLB);
    let spec = StreamSpec {
        snap: Some(20),
        ..follow(vec![condition(Field::Reason, "policy_deny", false)])
    };
    let mut client = Observing::start(&appliance, spec);
    let packet = syn(9, 5_000, 23);
    through_the_front(&appliance, &packet);
    let row = client.next();
    assert_eq!((row.event.as_str(), row.dport), ("denied", Some(23)));
    assert_eq!(row.verdict.as_deref(), Some("drop"));
    assert_eq!(row.rule.as_deref(), Some("default"));
    assert_eq!(row.action.as_deref(), Some("deny"));
    assert_eq!(row.bytes, Some(packet.len() as u32));
    let bytes = crate::run::observe::row::unhex(&row.packet.unwrap()).unwrap();
    assert_eq!(bytes, packet[..20]);
    drop(client);
    appliance.finish();
}

#[test]
fn past_events_are_kept_without_a_client_and_are_bounded_by_the_request() {
    let appliance = TestAppliance::start("");
    for host in 1..=5 {
        appliance.connection(host, 1_000);
    }
    wait_for("the past", || {
        appliance.metric("portcullis_observe_events_total{to=\"kept\"}") >= 5.0
    });
    let of = |last| StreamSpec {
        last: Some(last),
        ..StreamSpec::default()
    };
    let rows = past(&appliance, of(100)).unwrap();
    let hosts = |rows: &[EventRow]| -> Vec<String> {
        let sources = rows.iter().filter_map(|row| row.src);
        sources.map(|source| source.to_string()).collect()
    };
    assert_eq!(hosts(&rows).len(), 5);
    let newest = past(&appliance, of(2)).unwrap();
    assert_eq!(hosts(&newest), ["10.0.0.4", "10.0.0.5"]);
    let one = StreamSpec {
        filter: vec![condition(Field::Src, "10.0.0.2", false)],
        ..of(100)
    };
    assert_eq!(hosts(&past(&appliance, one).unwrap()), ["10.0.0.2"]);
    appliance.finish();
}

#[test]
fn a_filter_that_names_nothing_is_refused_with_the_reason() {
    let appliance = TestAppliance::start("");
    for (field, value, wanted) in [
        (Field::Zone, "red", "no zone `red`"),
        (Field::Rule, "nobody", "no rule `nobody`"),
        (Field::Reason, "bad_luck", "no reason `bad_luck`"),
        (Field::Verdict, "accept", "choose from"),
        (Field::Event, "opening", "choose from"),
        (Field::Address, "10.0.0.0/33", "not an address"),
        (Field::Session, "0", "neither the number nor the uid"),
        (Field::Session, "8c1f-", "neither the number nor the uid"),
    ] {
        let error = past(&appliance, follow(vec![condition(field, value, false)])).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    let many = vec![condition(Field::Port, "80", false); 65];
    let error = past(&appliance, follow(many)).unwrap_err();
    assert!(error.contains("at most 64"), "{error}");
    appliance.finish();
}

#[test]
fn a_filter_by_rule_follows_a_reload() {
    let appliance = TestAppliance::start("");
    let filter = vec![
        condition(Field::Rule, "web", false),
        condition(Field::Event, "opened", false),
    ];
    let mut client = Observing::start(&appliance, follow(filter));
    appliance.connection(1, 1_000);
    assert_eq!(client.next().sport, Some(1_000));
    let mut orders = Client::connect(&appliance.control()).unwrap();
    orders.ask(&Request::Reload).unwrap();
    appliance.query(2, 0);
    appliance.connection(2, 2_000);
    assert_eq!(client.next().sport, Some(2_000));
    drop(client);
    appliance.finish();
}

#[test]
fn a_filter_by_zone_is_right_from_the_first_packet_after_a_reload() {
    let appliance = TestAppliance::start("");
    let filter = vec![
        condition(Field::Zone, "blue", false),
        condition(Field::Event, "opened", false),
    ];
    let mut client = Observing::start(&appliance, follow(filter));
    let file = appliance.file();
    for (turn, [blue, red]) in [[2, 1], [1, 2], [3, 1]].into_iter().enumerate() {
        let text = TestAppliance::text(&appliance.directory, "");
        let text = text.replace("blue = 1\n", &format!("blue = {blue}\nred = {red}\n"));
        std::fs::write(&file, text).unwrap();
        let mut orders = Client::connect(&appliance.control()).unwrap();
        orders.ask(&Request::Reload).unwrap();
        let host = turn as u8 * 2 + 1;
        appliance.query(host, red);
        appliance.query(host + 1, blue);
        let row = client.next();
        assert_eq!(row.src.unwrap().to_string(), format!("10.0.0.{}", host + 1));
        assert_eq!(row.zone.as_deref(), Some("blue"));
    }
    drop(client);
    appliance.finish();
}

#[test]
fn a_rule_that_a_reload_adds_has_its_name_in_events() {
    let appliance = TestAppliance::start("");
    let filter = vec![condition(Field::Event, "opened", false)];
    let mut client = Observing::start(&appliance, follow(filter));
    let first = "[[policy.rule]]\nname = \"first\"\naction = \"allow\"\n\
                 destination_ports = [53]\nprotocol = \"udp\"\n";
    for (turn, (more, rule)) in [(first, "first"), ("", "dns")].into_iter().enumerate() {
        appliance.rewrite(more);
        let mut orders = Client::connect(&appliance.control()).unwrap();
        orders.ask(&Request::Reload).unwrap();
        appliance.query(turn as u8 + 1, 0);
        assert_eq!(client.next().rule.as_deref(), Some(rule));
    }
    drop(client);
    appliance.finish();
}

#[test]
fn a_filter_by_rule_finds_resets_and_counts_packets_of_sessions_that_have_gone() {
    let appliance = TestAppliance::start(GWLB);
    let shared = &appliance.shared;
    appliance.connection(1, 1_000);
    let filter = vec![
        condition(Field::Rule, "web", false),
        condition(Field::Event, "reset", false),
        condition(Field::Event, "rejected", false),
    ];
    let mut client = Observing::start(&appliance, follow(filter));
    let mut sink = EventSink::new(shared);
    let all = SessionFilter::default();
    assert_eq!(
        shared.engine.end_sessions(&all, Instant::now(), &mut sink),
        1
    );
    let EventSink { resets, tap, .. } = &mut sink;
    assert_eq!(resets.len(), 2);
    for reset in resets {
        tap.reset(reset, true);
        let row = client.next();
        assert_eq!(
            (row.event.as_str(), row.rule.as_deref()),
            ("reset", Some("web"))
        );
    }
    drop(sink);
    let [.., late] = handshake(1, 1_000);
    through_the_front(&appliance, &late);
    let row = client.next();
    assert_eq!(row.event, EventRow::LEFT_OUT);
    assert_eq!(
        (row.reason.as_deref(), row.count),
        (Some("session_gone"), Some(1))
    );
    drop(client);
    appliance.finish();
}

/// Reports a refused datagram in a call beside the packet path.
fn report_refused(data_path: &DataPath, refusal: Refusal) {
    let decision = Decision {
        answer: Answer::Nothing(NotSent::Refused(refusal)),
        verdict: None,
        packet: None,
        is_too_large: false,
    };
    let datagram = Datagram {
        source: [10, 1, 0, 1].into(),
        source_port: 60_001,
        destination: [10, 1, 0, 2].into(),
        destination_port: 6081,
        payload: b"no GENEVE",
    };
    data_path.with_sink(|sink| sink.tap.packet(&datagram, &decision));
}

#[test]
fn calls_beside_the_packet_path_share_one_budget_of_the_past() {
    let appliance = TestAppliance::start("");
    let shared = &appliance.shared;
    let data_path = DataPath::silent(Arc::clone(shared), Overrides::default());
    let begin = Instant::now();
    for _ in 0..1_000 {
        report_refused(&data_path, Refusal::Ethernet);
    }
    // One reason has half of the 32 events of each period of 100 ms that was begun.
    let periods = begin.elapsed().as_millis() as u64 / 100 + 2;
    let left_out = shared.observers.counts().ring_share;
    assert!(left_out + 16 * periods >= 1_000, "{left_out}, {periods}");
    appliance.finish();
}

#[test]
fn a_dropped_packet_has_one_identifier_in_the_stream_and_in_the_log() {
    let more = format!("log.output = \"DIR/log\"\nlog.drops = 16\n{GWLB}");
    let appliance = TestAppliance::start(&more);
    let filter = vec![
        condition(Field::Event, "opened", false),
        condition(Field::Event, "dropped", false),
    ];
    let mut client = Observing::start(&appliance, follow(filter));
    appliance.connection(1, 1_000);
    let opened = client.next();
    let mut beyond = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64)
        .tcp(1_000, 80, 99_000_000, 8_192)
        .ack(501)
        .write(&mut beyond, b"early")
        .unwrap();
    through_the_front(&appliance, &beyond);
    let dropped = client.next();
    assert_eq!(dropped.reason.as_deref(), Some("tcp_seq_above_window"));
    assert_eq!(dropped.uid, Some(opened.record.unwrap().session.uid));
    assert_eq!(dropped.rule.as_deref(), Some("web"));
    drop(client);
    let uid = dropped.uid.clone().unwrap();
    let of_session = StreamSpec {
        filter: vec![condition(Field::Session, &uid, false)],
        last: Some(10),
        ..StreamSpec::default()
    };
    let found = past(&appliance, of_session).unwrap();
    let found: Vec<&str> = found.iter().map(|row| row.event.as_str()).collect();
    assert_eq!(found, ["opened", "dropped"], "the filter by the identifier");
    let directory = appliance.finish();
    let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let [line] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["event"], "dropped");
    assert_eq!(line["uid"].as_str(), dropped.uid.as_deref());
    assert_eq!(line["session"].as_u64(), dropped.session);
    assert_eq!(line["reason"].as_str(), dropped.reason.as_deref());
    assert_eq!(line["bytes"].as_u64(), dropped.bytes.map(u64::from));
    assert_eq!(line["rule"].as_str(), dropped.rule.as_deref());
    assert_eq!(
        line["community_id"].as_str(),
        dropped.community_id.as_deref()
    );
    assert!(line["community_id"].is_string());
}

#[test]
fn a_flood_leaves_lines_for_other_reasons_and_what_has_none_is_counted() {
    let more = format!("log.output = \"DIR/log\"\nlog.drops = 16\n{GWLB}");
    let appliance = TestAppliance::start(&more);
    let data_path = DataPath::silent(Arc::clone(&appliance.shared), Overrides::default());
    let refusals = std::iter::repeat_n(Refusal::Ethernet, 1_000).chain([Refusal::Endpoint]);
    let begin = Instant::now();
    for refusal in refusals {
        report_refused(&data_path, refusal);
    }
    // One reason has half of the 16 packets of each second that was begun.
    let seconds = begin.elapsed().as_secs() + 2;
    let left_out = appliance.shared.lost_events().drops_left_out;
    let directory = appliance.finish();
    let text = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let of = |reason: &str| text.matches(&format!("\"reason\":\"{reason}\"")).count() as u64;
    assert!((1..=8 * seconds).contains(&of("inner_ethernet")), "{text}");
    assert_eq!(of("endpoint_refused"), 1, "{text}");
    assert_eq!(of("inner_ethernet") + left_out, 1_000);
}
