//! Warnings about settings that are allowed but probably unintended.
use std::collections::{HashMap, HashSet};

use super::declare::duration;
use super::error::{Warning, WarningKind};
use super::sets::set_key;
use super::{Attachment, CheckMode, Config, RuleConfig, Zones, expiry};
use crate::lifetime::{LifetimeClass, LifetimeSet, Lifetimes};
use crate::packet::{IpVersion, may_open};
use crate::policy::{IcmpType, Protocol};
use crate::verdict::DropReason;

impl Config {
    /// Returns warnings about settings that are allowed but probably unintended, in the order of
    /// the keys.
    ///
    /// They concern lifetimes that are not below the load balancer's idle timer, redirects that are
    /// only counted in a tunnel, and ICMP types that no rule can match. They also concern empty
    /// sets, rules that have expired, and rules that an earlier rule covers.
    ///
    /// Rules are compared only in a configuration that compiles, and each with single earlier
    /// rules: a rule that several earlier rules cover together is not found. If too many rules
    /// overlap, the comparison stops, with a warning that names the rule.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.gwlb.enabled {
            let lifetimes = Lifetimes::default().with(&self.lifetimes.set);
            // There is one warning for each lifetime that can be chosen, and none for those that
            // follow it.
            let follows = |class: LifetimeClass| {
                let unset = self.lifetimes.set.of(class).is_none();
                let leader = class.follows().map(|leader| lifetimes.of(leader));
                unset && leader == Some(lifetimes.of(class))
            };
            let all = LifetimeClass::ALL
                .into_iter()
                .filter(|class| !follows(*class))
                .fold(LifetimeSet::default(), |all, class| {
                    all.with(class, lifetimes.of(class))
                });
            self.warn_lifetimes("lifetimes", &all, &mut warnings);
            for (place, each) in self.lifetimes.overrides.iter().enumerate() {
                self.warn_lifetimes(
                    &format!("lifetimes.override[{place}]"),
                    &each.set,
                    &mut warnings,
                );
            }
        }
        let redirects = DropReason::IcmpRedirect.name();
        if self.checks.get(redirects) == Some(&CheckMode::Count)
            && self.engine.attachment == Attachment::Tunnel
        {
            warnings.push(Warning {
                location: self.provenance.locate(&format!("checks.{redirects}")),
                kind: WarningKind::RedirectsInTunnel,
            });
        }
        for (place, rule) in self.policy.rules.iter().enumerate() {
            let types: Vec<_> = rule
                .icmp_types
                .iter()
                .filter(|icmp_type| never_asks(rule, **icmp_type))
                .map(ToString::to_string)
                .collect();
            if !types.is_empty() {
                warnings.push(Warning {
                    location: self
                        .provenance
                        .locate(&format!("policy.rule[{place}].icmp_types")),
                    kind: WarningKind::IcmpTypesNeverAsk {
                        types: types.join(", "),
                    },
                });
            }
        }
        self.warn_sets(&mut warnings);
        if self.validate().is_ok() {
            self.warn_shadowed(&mut warnings);
        }
        warnings
    }

    fn warn_lifetimes(&self, prefix: &str, set: &LifetimeSet, warnings: &mut Vec<Warning>) {
        for (class, lifetime) in set.iter() {
            let (timer, idle) = match class {
                // The connection has ended, and does not need its flow.
                LifetimeClass::TcpLastAck
                | LifetimeClass::TcpTimeWait
                | LifetimeClass::TcpClose => continue,
                class if class.is_tcp() => ("gwlb.tcp_idle", self.gwlb.tcp_idle),
                _ => ("gwlb.other_idle", self.gwlb.other_idle),
            };
            if lifetime >= idle {
                warnings.push(Warning {
                    location: self
                        .provenance
                        .locate(&format!("{prefix}.{}", class.name())),
                    kind: WarningKind::NotBelowGwlb {
                        lifetime: duration(lifetime),
                        timer,
                        idle: duration(idle),
                    },
                });
            }
        }
    }

    fn warn_sets(&self, warnings: &mut Vec<Warning>) {
        for (name, set) in &self.address_sets {
            if set.addresses.is_empty() && set.loaded().is_some_and(<[_]>::is_empty) {
                warnings.push(Warning {
                    location: self.provenance.locate(&set_key("address_sets", name)),
                    kind: WarningKind::EmptySet { set: name.clone() },
                });
            }
        }
        for (place, rule) in self.policy.rules.iter().enumerate() {
            if let Some(expires) = rule.expires
                && self.policy.has_expired(rule)
            {
                warnings.push(Warning {
                    location: self
                        .provenance
                        .locate(&format!("policy.rule[{place}].expires")),
                    kind: WarningKind::Expired {
                        rule: rule.name.clone(),
                        since: expiry::written(expires),
                    },
                });
            }
        }
    }

    fn warn_shadowed(&self, warnings: &mut Vec<Warning>) {
        let Ok(policy) = self.compile_policy(&Zones::new(&self.zones, &self.zone_groups)) else {
            return;
        };
        let rules = self.policy.rules.iter().enumerate();
        let places: HashMap<&str, usize> = rules
            .map(|(place, rule)| (rule.name.as_str(), place))
            .collect();
        let compiled: HashSet<&str> = policy.numbered().map(|(_, name)| name).collect();
        for (place, rule) in self.policy.rules.iter().enumerate() {
            if self.policy.is_in_force(rule) && !compiled.contains(rule.name.as_str()) {
                warnings.push(Warning {
                    location: self.provenance.locate(&format!("policy.rule[{place}]")),
                    kind: WarningKind::NeverMatches {
                        rule: rule.name.clone(),
                    },
                });
            }
        }
        let shadows = policy.shadowed();
        for (rule, by) in shadows.pairs {
            let name = policy.rule_name(rule);
            let place = places.get(name).copied().unwrap_or_default();
            warnings.push(Warning {
                location: self.provenance.locate(&format!("policy.rule[{place}]")),
                kind: WarningKind::Shadowed {
                    rule: name.to_owned(),
                    by: policy.rule_name(by).to_owned(),
                },
            });
        }
        if let Some(from) = shadows.given_up_at {
            let place = places
                .get(policy.rule_name(from))
                .copied()
                .unwrap_or_default();
            warnings.push(Warning {
                location: self.provenance.locate(&format!("policy.rule[{place}]")),
                kind: WarningKind::ShadowsUnknown {
                    from: policy.rule_name(from).to_owned(),
                },
            });
        }
    }
}

/// Returns whether no message of a type opens a session, in any of the rule's protocols.
fn never_asks(rule: &RuleConfig, icmp_type: IcmpType) -> bool {
    let asks = |protocol: &Protocol| {
        let version = match *protocol {
            Protocol::ICMP => IpVersion::V4,
            _ => IpVersion::V6,
        };
        icmp_type
            .of(*protocol)
            .is_some_and(|number| may_open(version, number))
    };
    !rule.protocol.iter().any(asks)
}
