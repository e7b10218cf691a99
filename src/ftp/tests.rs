use super::*;
use crate::flow::End;

fn ends() -> SessionEnds {
    SessionEnds::new(
        Zone(3),
        "[::ffff:10.0.0.9]:40000".parse().unwrap(),
        "192.0.2.1:21".parse().unwrap(),
    )
}

#[test]
fn event_names_are_stable_names_and_each_is_its_own() {
    let mut names: Vec<_> = HelperEvent::ALL.map(HelperEvent::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), HelperEvent::ALL.len());
    assert!(names.iter().all(|name| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }));
    for (place, event) in HelperEvent::ALL.into_iter().enumerate() {
        assert_eq!(event as usize, place);
    }
}

#[test]
fn a_count_belongs_to_its_event() {
    let counts = EventCounts::default();
    counts.count(HelperEvent::Tls);
    counts.count(HelperEvent::Tls);
    assert_eq!(counts.of(HelperEvent::Tls), 2);
    assert_eq!(counts.all().map(|(_, count)| count).sum::<u64>(), 2);
}

#[test]
fn the_ends_of_a_session_name_its_key() {
    let key = ends().key().unwrap();
    assert_eq!(
        (key.zone(), key.protocol(), key.is_ipv6()),
        (Zone(3), 6, false)
    );
    assert_eq!(key.address(End::Low).to_string(), "10.0.0.9");
    assert_eq!((key.port(End::Low), key.port(End::High)), (40000, 21));
    let v6 = SessionEnds::new(
        Zone(0),
        "[2001:db8::2]:5".parse().unwrap(),
        "[2001:db8::1]:21".parse().unwrap(),
    );
    let key = v6.key().unwrap();
    assert!(key.is_ipv6());
    assert_eq!(key.port(End::High), 5);
}

#[test]
fn a_record_is_the_expectation_again() {
    let expectation = Expectation {
        parent: ends(),
        source: ends().responder.ip(),
        source_port: Some(20),
        destination: "10.0.0.9:5000".parse().unwrap(),
        protocol: PROTOCOL_TCP,
        direction: Direction::Reply,
        lifetime: Duration::from_millis(1500),
    };
    let record = toml::to_string(&expectation).unwrap();
    assert!(
        record.contains("lifetime = 1500") && record.contains("direction = \"reply\""),
        "{record}"
    );
    assert_eq!(toml::from_str::<Expectation>(&record).unwrap(), expectation);
    assert_eq!(
        expectation.to_string(),
        "zone 3, 192.0.2.1 port 20 -> 10.0.0.9:5000"
    );
}
