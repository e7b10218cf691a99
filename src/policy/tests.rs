//! Decisions, explanations and the comparison with a linear search.
use proptest::prelude::*;

use super::compiled::{Effort, Tables};
use super::*;

fn rule(name: &str) -> Rule {
    Rule {
        name: name.to_owned(),
        action: Action::Allow,
        zones: vec![],
        source: vec![],
        destination: vec![],
        protocol: vec![],
        source_ports: vec![],
        destination_ports: vec![],
        icmp_types: vec![],
        direction: RuleDirection::Any,
        log: false,
        resilient: false,
        tcp: TcpHandling::default(),
        ip_options: None,
        limits: crate::limits::LimitSet::default(),
        origin: None,
    }
}

fn inside() -> Vec<IpNet> {
    vec!["10.0.0.0/8".parse().unwrap(), "fc00::/7".parse().unwrap()]
}

/// Rules with their names: adjacent rules with one name are parts of one rule.
fn named(mut rules: Vec<Rule>) -> Vec<Rule> {
    for (number, rule) in rules.iter_mut().enumerate() {
        rule.name = format!("rule-{number}");
    }
    rules
}

fn policy(rules: Vec<Rule>) -> CompiledPolicy {
    CompiledPolicy::new(rules, &inside(), Action::Deny).unwrap()
}

fn session() -> NewSession {
    NewSession {
        zone: Zone(0),
        src: "10.1.1.1".parse().unwrap(),
        dst: "192.0.2.1".parse().unwrap(),
        protocol: 6,
        src_port: Some(40_000),
        dst_port: Some(443),
        icmp: None,
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let deny = Rule {
        action: Action::Reject,
        log: true,
        ..rule("first")
    };
    let policy = policy(vec![deny, rule("second")]);
    let decision = policy.decide(&session());
    assert_eq!(
        decision,
        Decision {
            action: Action::Reject,
            rule: RuleId(0),
            log: true
        }
    );
    assert_eq!(
        policy.hits().collect::<Vec<_>>(),
        [("first", 1), ("second", 0), ("default", 0)]
    );
}

#[test]
fn without_a_match_the_default_decides() {
    let policy = policy(vec![Rule {
        protocol: vec![Protocol::UDP],
        ..rule("udp")
    }]);
    let decision = policy.decide(&session());
    assert_eq!(
        decision,
        Decision {
            action: Action::Deny,
            rule: RuleId::DEFAULT,
            log: false
        }
    );
    assert_eq!(policy.rule_name(decision.rule), "default");
    assert_eq!(
        policy.hits().collect::<Vec<_>>(),
        [("udp", 0), ("default", 1)]
    );
    assert_eq!(policy.len(), 1);
    assert!(!policy.is_empty());
}

#[test]
fn a_policy_without_rules_is_its_default() {
    let policy = policy(vec![]);
    assert!(policy.is_empty());
    assert_eq!(policy.decide(&session()).rule, RuleId::DEFAULT);
}

#[test]
fn a_session_without_ports_matches_no_port() {
    let every_port = vec![PortRange {
        first: 0,
        last: 65535,
    }];
    let policy = policy(vec![Rule {
        destination_ports: every_port,
        ..rule("ports")
    }]);
    assert_eq!(policy.decide(&session()).rule, RuleId(0));
    assert_eq!(
        policy
            .decide(&NewSession {
                dst_port: None,
                ..session()
            })
            .rule,
        RuleId::DEFAULT
    );
}

#[test]
fn an_icmp_name_is_another_number_in_icmpv6() {
    let ping = Rule {
        protocol: vec![Protocol::ICMP, Protocol::ICMPV6],
        icmp_types: vec!["echo-request".parse().unwrap()],
        ..rule("ping")
    };
    let policy = policy(vec![ping]);
    let rows = [
        (1, 8, true),
        (1, 128, false),
        (58, 128, true),
        (58, 8, false),
        (6, 8, false),
    ];
    for (protocol, kind, matches) in rows {
        let q = NewSession {
            protocol,
            icmp: Some((kind, 0)),
            ..session()
        };
        assert_eq!(
            policy.decide(&q).rule == RuleId(0),
            matches,
            "protocol {protocol} type {kind}"
        );
    }
}

#[test]
fn direction_is_that_of_the_initiator() {
    let outbound = Rule {
        direction: RuleDirection::Outbound,
        ..rule("outbound")
    };
    let inbound = Rule {
        direction: RuleDirection::Inbound,
        ..rule("inbound")
    };
    let policy = policy(vec![outbound, inbound]);
    let name = |src: &str| {
        policy.rule_name(
            policy
                .decide(&NewSession {
                    src: src.parse().unwrap(),
                    ..session()
                })
                .rule,
        )
    };
    assert_eq!(name("10.1.1.1"), "outbound");
    assert_eq!(name("192.0.2.9"), "inbound");
    assert_eq!(name("fd00::1"), "outbound");
    assert_eq!(name("2001:db8::1"), "inbound");
}

#[test]
fn an_explanation_names_the_first_field_that_differs() {
    let none = || vec!["198.51.100.0/24".parse().unwrap()];
    let ports = || vec![PortRange::single(1)];
    let rules = vec![
        Rule {
            zones: vec![Zone(3)],
            source: none(),
            ..rule("zones")
        },
        Rule {
            source: none(),
            destination: none(),
            ..rule("source")
        },
        Rule {
            destination: none(),
            ..rule("destination")
        },
        Rule {
            protocol: vec![Protocol::UDP],
            destination_ports: ports(),
            ..rule("protocol")
        },
        Rule {
            protocol: vec![Protocol::TCP],
            source_ports: ports(),
            ..rule("source_ports")
        },
        Rule {
            protocol: vec![Protocol::TCP],
            destination_ports: ports(),
            ..rule("destination_ports")
        },
        Rule {
            icmp_types: vec![IcmpType::number(8)],
            ..rule("icmp_types")
        },
        Rule {
            direction: RuleDirection::Inbound,
            ..rule("direction")
        },
        rule("match"),
        rule("never"),
    ];
    let policy = policy(rules);
    let explanation = policy.explain(&session());
    assert!(explanation.inside);
    assert_eq!(explanation.decision.rule, RuleId(8));
    let (last, before) = explanation.considered.split_last().unwrap();
    assert_eq!((last.name, last.mismatch), ("match", None));
    for considered in before {
        assert_eq!(considered.mismatch.unwrap().name(), considered.name);
    }
    assert_eq!(
        policy.hits().map(|(_, hits)| hits).sum::<u64>(),
        0,
        "an explanation is no hit"
    );
}

#[test]
fn more_rules_than_a_word_holds_keep_their_order() {
    let rules = (0..MAX_RULES)
        .map(|number| {
            let [.., high, low] = number.to_be_bytes();
            let net = format!("10.{high}.{low}.0/24");
            Rule {
                destination: vec![net.parse().unwrap()],
                ..rule(&format!("r{number}"))
            }
        })
        .collect();
    let policy = policy(rules);
    for number in [0_usize, 63, 64, 6_400, 64_999] {
        let [.., high, low] = number.to_be_bytes();
        let q = NewSession {
            dst: [10, high, low, 7].into(),
            ..session()
        };
        assert_eq!(usize::from(policy.decide(&q).rule.0), number);
    }
}

#[test]
fn a_rule_that_an_earlier_one_covers_is_shadowed() {
    let wide = Rule {
        source: vec!["10.0.0.0/8".parse().unwrap()],
        destination_ports: vec![
            PortRange {
                first: 1,
                last: 500,
            },
            PortRange {
                first: 501,
                last: 1023,
            },
        ],
        protocol: vec![Protocol::TCP, Protocol::UDP],
        ..rule("wide")
    };
    let narrow = Rule {
        source: vec![
            "10.1.0.0/16".parse().unwrap(),
            "10.9.0.0/16".parse().unwrap(),
        ],
        destination_ports: vec![PortRange {
            first: 400,
            last: 600,
        }],
        protocol: vec![Protocol::TCP],
        direction: RuleDirection::Inbound,
        ..rule("narrow")
    };
    let cases: Vec<(&str, Rule, bool)> = vec![
        ("narrower in every field", narrow.clone(), true),
        (
            "a source outside",
            Rule {
                source: vec!["11.0.0.0/8".parse().unwrap()],
                ..narrow.clone()
            },
            false,
        ),
        (
            "any source",
            Rule {
                source: vec![],
                ..narrow.clone()
            },
            false,
        ),
        (
            "any protocol",
            Rule {
                protocol: vec![],
                ..narrow.clone()
            },
            false,
        ),
        (
            "any port",
            Rule {
                destination_ports: vec![],
                ..narrow.clone()
            },
            false,
        ),
        (
            "a port outside",
            Rule {
                destination_ports: vec![PortRange {
                    first: 1000,
                    last: 1024,
                }],
                ..narrow.clone()
            },
            false,
        ),
        (
            "a zone",
            Rule {
                zones: vec![Zone(4)],
                ..narrow
            },
            true,
        ),
    ];
    for (claim, later, shadowed) in cases {
        let policy = policy(vec![rule_udp_only(), wide.clone(), later]);
        let found = policy.shadowed().pairs;
        let expected = if shadowed {
            vec![(RuleId(2), RuleId(1))]
        } else {
            vec![]
        };
        assert_eq!(found, expected, "{claim}");
    }
}

fn rule_udp_only() -> Rule {
    Rule {
        protocol: vec![Protocol::UDP],
        zones: vec![Zone(9)],
        ..rule("udp")
    }
}

#[test]
fn a_rule_for_both_ip_versions_is_covered_by_both_default_routes() {
    let both = Rule {
        source: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        ..rule("both")
    };
    assert_eq!(
        policy(vec![both.clone(), rule("any")])
            .shadowed()
            .pairs
            .len(),
        1
    );
    let one = Rule {
        source: vec!["0.0.0.0/0".parse().unwrap()],
        ..rule("one")
    };
    assert_eq!(policy(vec![one, rule("any")]).shadowed().pairs.len(), 0);
}

#[test]
fn a_search_for_shadows_that_takes_too_long_says_where_it_was_given_up() {
    let rules: Vec<Rule> = (0..1_000)
        .map(|number| {
            let twice = PortRange::single(number / 2);
            Rule {
                source_ports: vec![twice],
                ..rule(&number.to_string())
            }
        })
        .collect();
    let policy = policy(rules);
    let all = policy.shadowed();
    assert_eq!((all.pairs.len(), all.given_up_at), (500, None));
    let some = policy.shadowed_within(2_000);
    let place = some.given_up_at.expect("too few steps");
    let before = all.pairs.iter().filter(|(rule, _)| *rule < place);
    assert!(
        some.pairs.iter().eq(before) && !some.pairs.is_empty(),
        "{some:?}"
    );
}

#[test]
fn values_beyond_the_bound_are_refused() {
    // Two hosts, a zone, a protocol and the blocks 1, 2-3 and 4 of the ports.
    let rules = [Rule {
        source: vec![net(0, 32), net(1, 32), net(1, 32)],
        zones: vec![Zone(1)],
        destination_ports: vec![PortRange { first: 1, last: 4 }],
        ..web(0)
    }];
    assert!(Tables::within(&rules, 7).is_some());
    assert!(Tables::within(&rules, 6).is_none());
}

/// A rule of a large policy, from its number.
type MakeRule = fn(u32) -> Rule;

/// Large policies by shape.
const SHAPES: [(&str, MakeRule); 6] = [
    ("distinct", |number| Rule {
        destination: vec![net(number << 8, 24)],
        ..web(number)
    }),
    ("alternating", |number| {
        let (wide, host) = (vec![net(0, 8)], vec![net(number, 32)]);
        let (source, destination) = if number.is_multiple_of(2) {
            (wide, host)
        } else {
            (host, wide)
        };
        Rule {
            source,
            destination,
            ..web(number)
        }
    }),
    ("prefixes", |number| Rule {
        source: (0..10)
            .map(|place| net((number * 10 + place) * 2, 32))
            .collect(),
        ..web(number)
    }),
    ("ports", |number| Rule {
        source: vec![net(0, 8)],
        destination: vec![net(0, 9)],
        destination_ports: vec![PortRange::single((number % 30_000) as u16)],
        ..web(number)
    }),
    ("grid", |number| Rule {
        source: vec![net((number * 40_503 % 65_536 / 256) << 8, 24)],
        destination: vec![net((number * 40_503 % 256) << 8, 24)],
        ..web(number)
    }),
    ("ranges", |number| Rule {
        destination_ports: vec![PortRange {
            first: 1 + (number % 30_000) as u16,
            last: 65_534 - (number * 7 % 30_000) as u16,
        }],
        zones: vec![Zone((number % 7) as u16)],
        ..web(number)
    }),
];

/// A prefix in 10.0.0.0/8.
fn net(host: u32, length: u8) -> IpNet {
    IpNet::new(IpAddr::from((10 << 24 | host).to_be_bytes()), length).unwrap()
}

fn web(number: u32) -> Rule {
    Rule {
        protocol: vec![Protocol::TCP],
        destination_ports: vec![PortRange::single(443)],
        ..rule(&number.to_string())
    }
}

/// A session that the rule matches, unless an earlier rule does.
fn session_of(rule: &Rule) -> NewSession {
    let address = |nets: &[IpNet]| nets.last().map_or(session().dst, IpNet::addr);
    NewSession {
        zone: rule.zones.first().copied().unwrap_or_default(),
        src: address(&rule.source),
        dst: address(&rule.destination),
        dst_port: rule.destination_ports.first().map(|range| range.first),
        ..session()
    }
}

#[test]
fn tables_grow_with_the_policy_and_no_faster() {
    for (shape, rule) in SHAPES {
        let bytes = |count: u32| {
            Tables::new(&(0..count).map(rule).collect::<Vec<_>>())
                .unwrap()
                .bytes()
        };
        let (some, all) = (bytes(16_000), bytes(64_000));
        assert!(all <= some * 4 + some / 2, "{shape}: {some} and {all}");
        // A rule of 10 prefixes has 12 values; a range of ports has up to 30.
        let per_rule = all / 64_000;
        assert!(
            per_rule <= if shape == "prefixes" { 400 } else { 120 },
            "{shape}: {per_rule}"
        );
    }
}

#[test]
fn a_large_policy_is_searched_in_few_words_and_as_a_linear_search_does() {
    for (shape, rule) in SHAPES {
        let rules: Vec<Rule> = (0..65_000).map(rule).collect();
        let policy = policy(rules.clone());
        for number in (0..65_000).step_by(1_601) {
            let mut q = session_of(&rules[number]);
            for port in [q.dst_port, Some(0)] {
                q.dst_port = port;
                let mut effort = Effort::default();
                let found = policy.tables.first_match_with(&q, true, &mut effort);
                assert_eq!(
                    found.map_or(RuleId::DEFAULT, RuleId),
                    oracle(&rules, &q),
                    "{shape} {number}"
                );
                let few = match shape {
                    // Whole vectors of four fields.
                    "ranges" => 4 * 2 * 1_016,
                    // 256 rules of a source or a destination, in two clusters.
                    "grid" => 12,
                    _ => 4,
                };
                assert!(effort.words <= few, "{shape} {number}: {effort:?}");
            }
        }
    }
}

#[test]
fn the_worst_policy_costs_two_words_for_each_rule_and_field() {
    // Prefixes of every length around one address, and no rule for its zone.
    let rules: Vec<Rule> = (0..65_000_u32)
        .map(|number| Rule {
            source: vec![net(0, (number * 7 % 25 + 8) as u8).trunc()],
            destination: vec![net(0, (number * 11 % 25 + 8) as u8).trunc()],
            destination_ports: vec![PortRange {
                first: 0,
                last: ((1_u32 << (number * 13 % 16)) - 1) as u16,
            }],
            zones: vec![Zone((number % 2) as u16)],
            ..web(number)
        })
        .collect();
    let policy = policy(rules);
    let q = NewSession {
        zone: Zone(9),
        src: net(0, 32).addr(),
        dst: net(0, 32).addr(),
        dst_port: Some(0),
        ..session()
    };
    let mut effort = Effort::default();
    assert_eq!(policy.tables.first_match_with(&q, true, &mut effort), None);
    assert!(
        (5_000..=65_000 * 2 * 5).contains(&effort.words),
        "{effort:?}"
    );
    assert_eq!(policy.decide(&q).rule, RuleId::DEFAULT);
}

/// First match by comparing each rule, written without the code under test.
fn oracle(rules: &[Rule], q: &NewSession) -> RuleId {
    let is_inside = inside().iter().any(|net| net.contains(&q.src));
    for (number, rule) in rules.iter().enumerate() {
        let mut matches = true;
        matches &= rule.zones.is_empty() || rule.zones.contains(&q.zone);
        matches &= rule.source.is_empty() || rule.source.iter().any(|net| net.contains(&q.src));
        matches &=
            rule.destination.is_empty() || rule.destination.iter().any(|net| net.contains(&q.dst));
        matches &=
            rule.protocol.is_empty() || rule.protocol.iter().any(|number| number.0 == q.protocol);
        for (ranges, port) in [
            (&rule.source_ports, q.src_port),
            (&rule.destination_ports, q.dst_port),
        ] {
            matches &= ranges.is_empty()
                || port
                    .is_some_and(|port| ranges.iter().any(|r| (r.first..=r.last).contains(&port)));
        }
        matches &= rule.icmp_types.is_empty()
            || q.icmp.is_some_and(|(kind, code)| {
                let is_meant = |own: &IcmpType| {
                    own.of(Protocol(q.protocol)) == Some(kind)
                        && own.code().is_none_or(|own| own == code)
                };
                rule.protocol.contains(&Protocol(q.protocol))
                    && rule.icmp_types.iter().any(is_meant)
            });
        matches &= match rule.direction {
            RuleDirection::Any => true,
            RuleDirection::Outbound => is_inside,
            RuleDirection::Inbound => !is_inside,
        };
        if matches {
            return RuleId(u16::try_from(number).unwrap());
        }
    }
    RuleId::DEFAULT
}

/// Few distinct addresses, so that prefixes nest and sessions hit them.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let octet = || prop_oneof![Just(0_u8), Just(1), Just(10), Just(128), Just(255)];
    prop_oneof![
        (octet(), octet(), octet(), octet()).prop_map(|(a, b, c, d)| IpAddr::from([a, b, c, d])),
        (
            prop_oneof![Just(0xfd00_u16), Just(0x2001)],
            0..3_u16,
            0..3_u16
        )
            .prop_map(|(a, b, c)| IpAddr::from([a, b, 0, 0, 0, 0, 0, c])),
    ]
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any_address(), 0..=128_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv4() {
            length % 33
        } else {
            length
        };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn any_port() -> impl Strategy<Value = u16> {
    prop_oneof![0..12_u16, Just(65_534), Just(65_535)]
}

fn any_range() -> impl Strategy<Value = PortRange> {
    (any_port(), any_port()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    })
}

fn any_protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(47)]
}

fn any_icmp_type() -> impl Strategy<Value = IcmpType> {
    prop_oneof![
        Just("echo-request".parse::<IcmpType>().unwrap()),
        Just("packet-too-big".parse().unwrap()),
        (0..9_u8).prop_map(IcmpType::number),
        (0..9_u8, 0..2_u8).prop_map(|(kind, code)| IcmpType::number(kind).with_code(code)),
        (0..2_u8).prop_map(|code| "echo-request".parse::<IcmpType>().unwrap().with_code(code)),
    ]
}

/// Mostly empty, otherwise up to three values.
fn list<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(0_usize), 2 => 1..4_usize].prop_flat_map({
        let value = value.boxed();
        move |length| proptest::collection::vec(value.clone(), length)
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let direction = prop_oneof![
        Just(RuleDirection::Any),
        Just(RuleDirection::Inbound),
        Just(RuleDirection::Outbound)
    ];
    let ports = || list(any_range());
    (
        list((0..3_u16).prop_map(Zone)),
        (list(any_net()), list(any_net())),
        list(any_protocol().prop_map(Protocol)),
        (ports(), ports()),
        list(any_icmp_type()),
        direction,
    )
        .prop_map(
            |(zones, (source, destination), protocol, ports, icmp_types, direction)| Rule {
                zones,
                source,
                destination,
                protocol,
                source_ports: ports.0,
                destination_ports: ports.1,
                icmp_types,
                direction,
                ..rule("any")
            },
        )
}

fn any_session() -> impl Strategy<Value = NewSession> {
    let port = || proptest::option::weighted(0.8, any_port());
    let kind = prop_oneof![0..9_u8, Just(128)];
    (
        (0..4_u16).prop_map(Zone),
        any_address(),
        any_address(),
        any_protocol(),
        port(),
        port(),
        proptest::option::of((kind, 0..2_u8)),
    )
        .prop_map(
            |(zone, src, dst, protocol, src_port, dst_port, icmp)| NewSession {
                zone,
                src,
                dst,
                protocol,
                src_port,
                dst_port,
                icmp,
            },
        )
}

/// The decision by comparison of whole vectors, which otherwise only large policies use.
fn by_whole_vectors(policy: &CompiledPolicy, q: &NewSession) -> RuleId {
    let mut effort = Effort { few: 0, words: 0 };
    let found = policy
        .tables
        .first_match_with(q, policy.is_inside(q.src), &mut effort);
    found.map_or(RuleId::DEFAULT, RuleId)
}

proptest! {
    #[test]
    fn a_decision_is_that_of_a_linear_search(
        rules in proptest::collection::vec(any_rule(), 0..200),
        sessions in proptest::collection::vec(any_session(), 1..40),
    ) {
        let policy = policy(named(rules.clone()));
        for q in sessions {
            let expected = oracle(&rules, &q);
            prop_assert_eq!(policy.decide(&q).rule, expected);
            prop_assert_eq!(by_whole_vectors(&policy, &q), expected);
            prop_assert_eq!(policy.explain(&q).decision.rule, expected);
        }
    }

    #[test]
    fn the_parts_of_a_rule_decide_by_its_name(
        rules in proptest::collection::vec(any_rule(), 0..100),
        lengths in proptest::collection::vec(1..4_usize, 100),
        sessions in proptest::collection::vec(any_session(), 1..40),
    ) {
        let mut rules = rules;
        let groups = lengths.iter().enumerate().flat_map(|(group, length)| vec![group; *length]);
        for (rule, group) in rules.iter_mut().zip(groups) {
            rule.name = format!("rule-{group}");
        }
        let policy = policy(rules.clone());
        for q in sessions {
            let rule = policy.decide(&q).rule;
            prop_assert_eq!(policy.explain(&q).decision.rule, rule);
            match oracle(&rules, &q) {
                RuleId::DEFAULT => prop_assert_eq!(rule, RuleId::DEFAULT),
                RuleId(place) => {
                    prop_assert_eq!(policy.rule_name(rule), &rules[usize::from(place)].name)
                }
            }
        }
    }

    #[test]
    fn shadows_are_those_of_a_comparison_of_all_pairs(
        rules in proptest::collection::vec(any_rule(), 0..60),
    ) {
        // The configuration rejects ICMP types of other protocols than the rule's.
        let valid = |rule: &Rule| {
            rule.icmp_types.is_empty() || rule.icmp_messages().next().is_some()
        };
        let rules: Vec<Rule> = rules.into_iter().filter(valid).collect();
        let policy = policy(named(rules.clone()));
        let number = |place: usize| RuleId(u16::try_from(place).unwrap());
        let first_cover = |place: usize| {
            let found = rules[..place].iter().position(|earlier| earlier.covers(&rules[place]));
            found.map(|earlier| (number(place), number(earlier)))
        };
        let pairs: Vec<_> = (0..rules.len()).filter_map(first_cover).collect();
        prop_assert_eq!(policy.shadowed(), Shadows { pairs, given_up_at: None });
    }

    #[test]
    fn a_shadowed_rule_never_decides(
        rules in proptest::collection::vec(any_rule(), 0..40),
        sessions in proptest::collection::vec(any_session(), 1..40),
    ) {
        let policy = policy(named(rules));
        let shadowed: Vec<RuleId> = policy.shadowed().pairs.iter().map(|(rule, _)| *rule).collect();
        for q in sessions {
            prop_assert!(!shadowed.contains(&policy.decide(&q).rule));
        }
    }
}
