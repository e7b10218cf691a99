//! Lifetimes of classes, and the override that applies to a session.

use super::*;

fn over(matcher: OverrideMatch, lifetimes: LifetimeSet) -> Override {
    Override { matcher, lifetimes }
}

fn subject(zone: Zone, src: IpAddr, dst: IpAddr, protocol: u8, dst_port: Option<u16>) -> Subject {
    Subject {
        zone,
        src,
        dst,
        protocol,
        dst_port,
        rule: RuleId::DEFAULT,
    }
}

#[test]
fn classes_are_numbered_in_the_order_of_all() {
    for (number, class) in LifetimeClass::ALL.into_iter().enumerate() {
        assert_eq!(class as usize, number);
    }
    assert!(LifetimeClass::TcpRetransmitted.is_tcp());
    assert!(!LifetimeClass::UdpUnreplied.is_tcp());
}

#[test]
fn defaults_are_those_of_the_table() {
    let seconds: Vec<u64> = LifetimeClass::ALL
        .into_iter()
        .map(|class| Lifetimes::default().of(class).as_secs())
        .collect();
    assert_eq!(
        seconds,
        [
            30, 60, 340, 340, 340, 30, 120, 10, 300, 300, 30, 30, 110, 110, 30, 60, 110, 10, 30,
            30, 110, 30, 30, 30, 10, 30, 60, 110, 110, 64, 64, 110
        ],
        "in the order of LifetimeClass::ALL"
    );
}

/// Lifetime of a class in a profile, by the settings of the global lifetimes and the override, in
/// seconds.
#[test]
fn a_class_that_is_not_set_follows_its_leader_where_that_is_set() {
    use LifetimeClass::{TcpCloseWait, TcpEstablished, TcpFinWait, UdpExchange, UdpReplied};
    let set = |pairs: &[(LifetimeClass, u64)]| {
        pairs
            .iter()
            .fold(LifetimeSet::default(), |set, (class, seconds)| {
                set.with(*class, Duration::from_secs(*seconds))
            })
    };
    type Pairs<'a> = &'a [(LifetimeClass, u64)];
    let rows: [(Pairs<'_>, Pairs<'_>, Pairs<'_>); 8] = [
        (
            &[],
            &[],
            &[(TcpFinWait, 340), (TcpCloseWait, 340), (UdpExchange, 30)],
        ),
        (
            &[(TcpEstablished, 3600)],
            &[],
            &[(TcpFinWait, 3600), (TcpCloseWait, 3600)],
        ),
        (
            &[],
            &[(TcpEstablished, 3600)],
            &[(TcpFinWait, 3600), (TcpCloseWait, 3600)],
        ),
        (
            &[(TcpFinWait, 60)],
            &[(TcpEstablished, 3600)],
            &[(TcpFinWait, 60), (TcpCloseWait, 3600)],
        ),
        (
            &[(TcpEstablished, 3600)],
            &[(TcpCloseWait, 50)],
            &[(TcpFinWait, 3600), (TcpCloseWait, 50)],
        ),
        (
            &[],
            &[(UdpReplied, 10)],
            &[(UdpReplied, 10), (UdpExchange, 10)],
        ),
        (
            &[(UdpReplied, 60)],
            &[],
            &[(UdpReplied, 60), (UdpExchange, 60)],
        ),
        (
            &[(UdpExchange, 5)],
            &[(UdpReplied, 60)],
            &[(UdpExchange, 5)],
        ),
    ];
    for (global, own, expected) in rows {
        let global_lifetimes = Lifetimes::default().with(&set(global));
        let table = LifetimeTable::new(
            global_lifetimes,
            &[over(OverrideMatch::default(), set(own))],
        );
        for (class, seconds) in expected {
            let lifetime = table.profile(1).of(*class);
            assert_eq!(
                lifetime.as_secs(),
                *seconds,
                "{class:?}: {global:?}, {own:?}"
            );
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Overrides that all match a TCP session from 10.1.1.1 to 10.2.2.2 port 443 in zone 7, and the one
/// that applies.
#[test]
fn the_most_specific_override_wins() {
    let any = OverrideMatch::default();
    let protocol = OverrideMatch {
        protocol: Some(6),
        ..any.clone()
    };
    let zone = OverrideMatch {
        zone: Some(Zone(7)),
        ..any.clone()
    };
    let zone_protocol = OverrideMatch {
        zone: Some(Zone(7)),
        ..protocol.clone()
    };
    let wide_port = OverrideMatch {
        ports: vec![(1, 1023)],
        ..protocol.clone()
    };
    let wide_port_zone = OverrideMatch {
        zone: Some(Zone(7)),
        ..wide_port.clone()
    };
    let port = OverrideMatch {
        ports: vec![(8080, 8080), (443, 443)],
        ..protocol.clone()
    };
    let src8 = OverrideMatch {
        addresses: vec![net("10.0.0.0/8")],
        ..any.clone()
    };
    let src16 = OverrideMatch {
        addresses: vec![net("10.1.0.0/16")],
        ..any.clone()
    };
    let dst16 = OverrideMatch {
        addresses: vec![net("10.2.0.0/16")],
        ..any.clone()
    };
    let src24 = OverrideMatch {
        addresses: vec![net("192.0.2.0/24"), net("10.1.1.0/24")],
        ..any.clone()
    };
    let src16_port = OverrideMatch {
        ports: vec![(443, 443)],
        protocol: Some(6),
        ..src16.clone()
    };
    let dst8_port = OverrideMatch {
        ports: vec![(443, 443)],
        protocol: Some(6),
        ..src8.clone()
    };
    let rows = [
        ("a protocol before none", &any, &protocol),
        ("a zone before a protocol", &protocol, &zone),
        ("a zone and a protocol before a zone", &zone, &zone_protocol),
        ("a port range before a zone", &zone_protocol, &wide_port),
        (
            "a zone decides between equal ranges",
            &wide_port,
            &wide_port_zone,
        ),
        ("a narrower range before a zone", &wide_port_zone, &port),
        ("an address before a port", &port, &src8),
        ("a longer prefix of the destination", &src8, &dst16),
        ("a longer prefix of the source", &src8, &src16),
        ("the destination at equal length", &src16, &dst16),
        (
            "the destination at equal length, whatever the ports",
            &src16_port,
            &dst16,
        ),
        ("the longest prefix, whichever end it holds", &dst16, &src24),
        ("a longer prefix before a port", &dst8_port, &src16),
        ("a port decides between equal prefixes", &src8, &dst8_port),
    ];
    for (claim, loser, winner) in rows {
        for swapped in [false, true] {
            let pair = if swapped {
                [winner, loser]
            } else {
                [loser, winner]
            };
            let overrides = pair.map(|matcher| over(matcher.clone(), LifetimeSet::default()));
            let table = LifetimeTable::new(Lifetimes::default(), &overrides);
            let (src, dst) = ("10.1.1.1".parse().unwrap(), "10.2.2.2".parse().unwrap());
            let profile = table.select(&subject(Zone(7), src, dst, 6, Some(443)));
            assert_eq!(profile, if swapped { 1 } else { 2 }, "{claim}");
        }
    }
}

#[test]
fn an_override_that_does_not_match_leaves_the_global_lifetimes() {
    let matcher = OverrideMatch {
        protocol: Some(17),
        ports: vec![(53, 53)],
        addresses: vec![net("2001:db8::/32")],
        zone: Some(Zone(1)),
        rule: None,
    };
    let table = LifetimeTable::new(
        Lifetimes::default(),
        &[over(matcher, LifetimeSet::default())],
    );
    let inside: IpAddr = "2001:db8::1".parse().unwrap();
    let outside: IpAddr = "2001:db9::1".parse().unwrap();
    assert_eq!(
        table.select(&subject(Zone(1), inside, outside, 17, Some(53))),
        1
    );
    assert_eq!(
        table.select(&subject(Zone(1), outside, inside, 17, Some(53))),
        1
    );
    assert_eq!(
        table.select(&subject(Zone(1), outside, outside, 17, Some(53))),
        0,
        "address"
    );
    assert_eq!(
        table.select(&subject(Zone(2), inside, outside, 17, Some(53))),
        0,
        "zone"
    );
    assert_eq!(
        table.select(&subject(Zone(1), inside, outside, 6, Some(53))),
        0,
        "protocol"
    );
    assert_eq!(
        table.select(&subject(Zone(1), inside, outside, 17, Some(54))),
        0,
        "port"
    );
    assert_eq!(
        table.select(&subject(Zone(1), inside, outside, 17, None)),
        0,
        "no port"
    );
}

#[test]
fn a_longer_prefix_that_fails_elsewhere_falls_back_to_a_shorter_one() {
    let wide = OverrideMatch {
        addresses: vec![net("10.0.0.0/8")],
        ..OverrideMatch::default()
    };
    let narrow = OverrideMatch {
        addresses: vec![net("10.2.0.0/16")],
        protocol: Some(17),
        ..OverrideMatch::default()
    };
    let set = LifetimeSet::default();
    let table = LifetimeTable::new(Lifetimes::default(), &[over(wide, set), over(narrow, set)]);
    let (src, dst) = ("192.0.2.1".parse().unwrap(), "10.2.2.2".parse().unwrap());
    assert_eq!(table.select(&subject(Zone(0), src, dst, 6, Some(80))), 1);
    assert_eq!(table.select(&subject(Zone(0), src, dst, 17, Some(80))), 2);
}

#[test]
fn what_an_override_leaves_unset_is_global() {
    let global = Lifetimes::default()
        .with(&LifetimeSet::default().with(LifetimeClass::Icmp, Duration::from_secs(5)));
    let set = LifetimeSet::default().with(LifetimeClass::TcpEstablished, Duration::from_secs(7200));
    let table = LifetimeTable::new(global, &[over(OverrideMatch::default(), set)]);
    assert_eq!(table.profiles(), 2);
    assert_eq!(
        table.profile(1).millis(LifetimeClass::TcpEstablished),
        7_200_000
    );
    assert_eq!(table.profile(1).millis(LifetimeClass::Icmp), 5_000);
    assert_eq!(
        table.profile(0).millis(LifetimeClass::TcpEstablished),
        340_000
    );
    assert_eq!(table.profile(200), table.profile(0), "an unknown profile");
}
