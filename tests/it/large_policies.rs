//! Policies of the largest size: reading them, their memory, and the rule that decides.

use std::fmt::Write;
use std::net::IpAddr;

use allocation_counter::measure;
use portcullis::Config;
use portcullis::Zone;
use portcullis::policy::{CompiledPolicy, NewSession};

/// The shapes of `.ci/policies`.
const SHAPES: [Shape; 3] = [Shape::Distinct, Shape::Alternating, Shape::Hundred];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Each rule has a destination of its own, a /24.
    Distinct,
    /// One rule from a /8 to a host, the next from a host to the /8.
    Alternating,
    /// Each rule has 100 sources of its own.
    Hundred,
}

fn address(number: u32) -> IpAddr {
    (10 << 24 | number).to_be_bytes().into()
}

impl Shape {
    fn text(self, rules: u32) -> String {
        let mut text = String::new();
        for number in 0..rules {
            write!(
                text,
                "[[policy.rule]]\nname = \"r{number}\"\naction = \"allow\"\nprotocol = \"tcp\"\n"
            )
            .unwrap();
            let (source, destination) = self.lists(number);
            for (key, list) in [("source", source), ("destination", destination)] {
                if !list.is_empty() {
                    writeln!(text, "{key} = [{list}]").unwrap();
                }
            }
            text.push_str("destination_ports = [443]\n\n");
        }
        text
    }

    fn lists(self, number: u32) -> (String, String) {
        let host = format!("\"{}\"", address(number));
        let wide = "\"10.0.0.0/8\"".to_owned();
        match self {
            Self::Distinct => (String::new(), format!("\"{}/24\"", address(number << 8))),
            Self::Alternating if number.is_multiple_of(2) => (wide, host),
            Self::Alternating => (host, wide),
            Self::Hundred => {
                let sources = (0..100).map(|place| address((number * 100 + place) * 2));
                let sources: Vec<String> = sources.map(|source| format!("\"{source}\"")).collect();
                (sources.join(", "), String::new())
            }
        }
    }

    /// A session that this rule alone matches.
    fn session(self, number: u32) -> NewSession {
        let outside = IpAddr::from([192, 0, 2, 1]);
        let other = address(0x00ff_ffff);
        let (src, dst) = match self {
            Self::Distinct => (outside, address(number << 8 | 77)),
            Self::Alternating if number.is_multiple_of(2) => (other, address(number)),
            Self::Alternating => (address(number), other),
            Self::Hundred => (address((number * 100 + 99) * 2), outside),
        };
        NewSession {
            zone: Zone::DEFAULT,
            src,
            dst,
            protocol: 6,
            src_port: Some(40_000),
            dst_port: Some(443),
            icmp: None,
        }
    }

    /// A number of rules that a test can read quickly.
    fn most(self) -> u32 {
        match self {
            Self::Distinct | Self::Alternating => 65_000,
            Self::Hundred => 6_500,
        }
    }
}

fn read(text: &str) -> Config {
    Config::from_toml(text, "large.toml").unwrap()
}

fn policy_bytes(config: &Config) -> u64 {
    let memory = config.compile().unwrap().memory();
    let part = memory.parts().iter().find(|part| part.name == "policy");
    part.unwrap().bytes
}

fn decided_by(policy: &CompiledPolicy, session: &NewSession) -> String {
    policy.rule_name(policy.look_up(session).rule).to_owned()
}

#[test]
fn the_largest_policies_compile_and_each_rule_decides_its_own_sessions() {
    for shape in SHAPES {
        let config = read(&shape.text(shape.most()));
        assert_eq!(config.warnings(), [], "{shape:?}");
        let policy = config.compile().unwrap().policy;
        for number in (0..shape.most()).step_by(331).chain([shape.most() - 1]) {
            let session = shape.session(number);
            assert_eq!(
                decided_by(&policy, &session),
                format!("r{number}"),
                "{shape:?}"
            );
            let other_port = NewSession {
                dst_port: Some(80),
                ..session
            };
            assert_eq!(
                decided_by(&policy, &other_port),
                "default",
                "{shape:?} {number}"
            );
        }
    }
}

#[test]
fn four_times_the_rules_take_four_times_the_memory_and_the_allocations() {
    for shape in SHAPES {
        let costs = |rules: u32| {
            let text = shape.text(rules);
            let mut config = None;
            let reading = measure(|| config = Some(read(&text)));
            let config = config.unwrap();
            let checking = measure(|| assert_eq!(config.warnings(), []));
            [
                reading.count_total,
                reading.bytes_max,
                checking.count_total,
                checking.bytes_max,
                policy_bytes(&config),
            ]
        };
        let (some, all) = (costs(shape.most() / 8), costs(shape.most() / 2));
        for (some, all) in some.into_iter().zip(all) {
            assert!(all <= some * 9 / 2, "{shape:?}: {some} and {all}");
        }
    }
}

#[test]
fn a_rule_takes_less_than_a_kilobyte_and_a_prefix_less_than_80_bytes() {
    for shape in SHAPES {
        let rules = u64::from(shape.most());
        let bytes = policy_bytes(&read(&shape.text(shape.most())));
        let prefixes = if shape == Shape::Hundred {
            rules * 100
        } else {
            0
        };
        assert!(
            bytes <= rules * 1_000 + prefixes * 80,
            "{shape:?}: {} bytes a rule",
            bytes / rules
        );
    }
}

#[test]
fn an_error_at_the_end_of_a_large_policy_names_its_line() {
    let mut text = Shape::Distinct.text(65_000);
    let lines = text.lines().count();
    text.push_str("[[policy.rule]]\nname = \"last\"\naction = \"permit\"\n");
    let error = Config::from_toml(&text, "large.toml").unwrap_err();
    assert_eq!(error.location.line, Some(lines + 3));
    assert_eq!(error.location.key, "policy.rule[65000].action");
}

#[test]
fn rules_that_all_say_the_same_are_all_but_one_shadowed() {
    let rule = |number: u32| format!("[[policy.rule]]\nname = \"r{number}\"\naction = \"allow\"\n");
    let text: String = (0..20_000).map(rule).collect();
    let warnings = read(&text).warnings();
    assert_eq!(warnings.len(), 19_999);
    let last = warnings.last().unwrap().to_string();
    assert!(
        last.ends_with("rule `r19999` never matches: `r0` covers it"),
        "{last}"
    );
}
