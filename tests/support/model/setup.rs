//! The parameters of a run: sizes, lifetimes, and one of a few policies, restated as plain data
//! that the model searches from front to back.

use std::time::Duration;

use portcullis::Engine;
use portcullis::config::{
    ChallengeMode, Config, LatePacket, LifetimeOverride, Midstream, OnReload, Permission,
    ResetsConfig, RuleConfig, TableConfig, TcpHandling, TombstonesConfig,
};
use portcullis::config::{LifetimeSet, Lifetimes};
use portcullis::policy::{Action, PortRange, Protocol};

use super::limits::Limits;
use super::session::Tuple;

/// The name of zone 1.
const TENANT: &str = "tenant";

/// The sizes and lifetimes of a run, and the settings that a reload changes.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) max_sessions: u32,
    pub(crate) shards: u32,
    pub(crate) tombstones: TombstonesConfig,
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
}

/// Settings that a reload changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Global lifetimes.
    pub(crate) global: LifetimeSet,
    /// Lifetimes of UDP sessions to port 53, of TCP sessions to port 80, and of all others in zone
    /// 1.
    pub(crate) overrides: [LifetimeSet; 3],
    /// Index in [`POLICIES`].
    pub(crate) policy: usize,
    pub(crate) on_reload: OnReload,
    pub(crate) tcp: Handling,
    /// Handling of martians: a packet with identical source and destination addresses is one.
    pub(crate) martians: Permission,
    /// Handling of TCP in zone 1.
    pub(crate) tenant: TcpHandling,
    /// Unknown sources of zone 1 are challenged.
    pub(crate) challenged: bool,
    pub(crate) limits: Limits,
}

/// Handling of TCP where neither rule nor zone specifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handling {
    pub(crate) timeout_reset: bool,
    pub(crate) late: LatePacket,
    pub(crate) midstream: Midstream,
}

impl Default for Handling {
    fn default() -> Self {
        Self {
            timeout_reset: true,
            late: LatePacket::Reset,
            midstream: Midstream::Drop,
        }
    }
}

impl Handling {
    fn under(self, first: TcpHandling) -> Self {
        Self {
            timeout_reset: first.timeout_reset.unwrap_or(self.timeout_reset),
            late: first.late.unwrap_or(self.late),
            midstream: first.midstream.unwrap_or(self.midstream),
        }
    }
}

/// A rule; a field that is `None` matches any value.
pub(crate) struct Rule {
    name: &'static str,
    action: Action,
    protocols: &'static [u8],
    port: Option<u16>,
    zone: Option<u16>,
    tcp: TcpHandling,
}

const SILENT: TcpHandling = TcpHandling {
    mode: None,
    timeout_reset: None,
    late: None,
    midstream: None,
    asymmetric: None,
};

const fn rule(name: &'static str, action: Action, protocols: &'static [u8], port: u16) -> Rule {
    Rule {
        name,
        action,
        protocols,
        port: if port == 0 { None } else { Some(port) },
        zone: None,
        tcp: SILENT,
    }
}

/// Policies, each with the action for sessions that no rule matches.
pub(crate) const POLICIES: [(Action, &[Rule]); 5] = [
    (Action::Allow, &[]),
    (Action::Allow, &[rule("no-web", Action::Deny, &[6], 80)]),
    (
        Action::Deny,
        &[
            rule("dns", Action::Audit, &[17], 53),
            Rule {
                tcp: TcpHandling {
                    timeout_reset: Some(false),
                    late: Some(LatePacket::Drop),
                    ..SILENT
                },
                ..rule("web", Action::Allow, &[6], 80)
            },
            Rule {
                zone: Some(1),
                ..rule("tenant", Action::Allow, &[], 0)
            },
        ],
    ),
    (
        Action::Allow,
        &[
            Rule {
                tcp: TcpHandling {
                    late: Some(LatePacket::Readmit),
                    ..SILENT
                },
                ..rule("tls", Action::Allow, &[6], 443)
            },
            Rule {
                zone: Some(1),
                ..rule("closed", Action::Reject, &[], 0)
            },
        ],
    ),
    (
        Action::Allow,
        &[
            rule("no-ping", Action::Deny, &[1, 58], 0),
            Rule {
                tcp: TcpHandling {
                    late: Some(LatePacket::Readmit),
                    midstream: Some(Midstream::Adopt),
                    ..SILENT
                },
                ..rule("web", Action::Allow, &[6], 80)
            },
        ],
    ),
];

/// The name of the decision where no rule matches.
pub(crate) const DEFAULT_RULE: &str = "default";

impl Settings {
    /// Returns the policy's action for a session that begins with this tuple, and the rule that
    /// decides.
    pub(crate) fn decide(&self, tuple: &Tuple) -> (Action, &'static str) {
        let (default, rules) = POLICIES[self.policy];
        let matches = |rule: &&Rule| {
            (rule.protocols.is_empty() || rule.protocols.contains(&tuple.protocol))
                && rule.port.is_none_or(|port| port == tuple.dst.1)
                && rule.zone.is_none_or(|zone| zone == tuple.zone)
        };
        let found = rules.iter().find(matches);
        found.map_or((default, DEFAULT_RULE), |rule| (rule.action, rule.name))
    }

    /// Returns whether a rule of this name is in the policy.
    pub(crate) fn has_rule(&self, name: &str) -> bool {
        POLICIES[self.policy].1.iter().any(|rule| rule.name == name)
    }

    /// Returns the handling of TCP: the rule's takes precedence over the zone's, the zone's over
    /// the global one.
    pub(crate) fn handling(&self, name: &str, zone: u16) -> Handling {
        let of_zone = if zone == 1 {
            self.tcp.under(self.tenant)
        } else {
            self.tcp
        };
        let rule = POLICIES[self.policy]
            .1
            .iter()
            .find(|rule| rule.name == name);
        rule.map_or(of_zone, |rule| of_zone.under(rule.tcp))
    }

    /// Returns the lifetimes of a session: a narrower port range takes precedence over a zone, and
    /// a value that an override leaves unset is global.
    pub(crate) fn lifetimes(&self, tuple: &Tuple) -> Lifetimes {
        let global = Lifetimes::default().with(&self.global);
        let [dns, web, zone] = &self.overrides;
        match (tuple.protocol, tuple.dst.1) {
            (17, 53) => global.with(dns),
            (6, 80) => global.with(web),
            _ if tuple.zone == 1 => global.with(zone),
            _ => global,
        }
    }
}

impl Setup {
    /// Returns a setup with default lifetimes, no overrides, and everything allowed.
    pub(crate) fn plain(max_sessions: u32, shards: u32) -> Self {
        Self {
            max_sessions,
            shards,
            tombstones: TombstonesConfig {
                max: 200,
                lifetime: Duration::from_secs(600),
            },
            seed: 1,
            settings: Settings {
                global: LifetimeSet::default(),
                overrides: [LifetimeSet::default(); 3],
                policy: 0,
                on_reload: OnReload::End,
                tcp: Handling::default(),
                martians: Permission::Allow,
                tenant: SILENT,
                challenged: false,
                limits: Limits::default(),
            },
        }
    }

    pub(crate) fn config(&self) -> Config {
        let settings = &self.settings;
        let [dns, web, zone] = settings.overrides;
        let ports = |protocol, port, set| LifetimeOverride {
            protocol: Some(protocol),
            ports: vec![PortRange::single(port)],
            set,
            ..LifetimeOverride::default()
        };
        let mut config = Config {
            table: TableConfig {
                max_sessions: self.max_sessions,
                shards: Some(self.shards),
                // Lifetimes do not depend on how full the table is.
                adaptive_start: 0,
                adaptive_end: 0,
            },
            zones: [("default".to_owned(), 0), (TENANT.to_owned(), 1)].into(),
            tombstones: self.tombstones,
            // The rates are so high that no budget is exhausted.
            resets: ResetsConfig {
                per_destination: ResetsConfig::MAX_RATE,
                overall: ResetsConfig::MAX_RATE,
            },
            ..Config::default()
        };
        config.lifetimes.set = settings.global;
        config.lifetimes.overrides = vec![
            ports(Protocol::UDP, 53, dns),
            ports(Protocol::TCP, 80, web),
            LifetimeOverride {
                zone: Some(TENANT.to_owned()),
                set: zone,
                ..LifetimeOverride::default()
            },
        ];
        let (default, rules) = POLICIES[settings.policy];
        config.policy.default = default;
        config.policy.on_reload = settings.on_reload;
        config.policy.rules = rules.iter().map(Rule::config).collect();
        config.limits = settings.limits.config();
        config.tcp.timeout_reset = settings.tcp.timeout_reset;
        config.tcp.late = settings.tcp.late;
        config.ip.martians = settings.martians;
        config.tcp.midstream = settings.tcp.midstream;
        config.tcp.zones = [(TENANT.to_owned(), settings.tenant)].into();
        if settings.challenged {
            config.syn_challenge.zones = [(TENANT.to_owned(), ChallengeMode::Always)].into();
        }
        config
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::with_seed(&self.config(), [self.seed, 2, 3, 4]).unwrap()
    }
}

impl Rule {
    fn config(&self) -> RuleConfig {
        RuleConfig {
            zones: self.zone.iter().map(|_| TENANT.to_owned()).collect(),
            protocol: self
                .protocols
                .iter()
                .map(|number| Protocol(*number))
                .collect(),
            destination_ports: self.port.map(PortRange::single).into_iter().collect(),
            tcp: self.tcp,
            ..RuleConfig::new(self.name, self.action)
        }
    }
}
