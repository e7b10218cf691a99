//! What is allowed but hardly meant.
use super::error::{Warning, WarningKind};
use super::{Config, Zones, values};
use crate::lifetime::{LifetimeClass, LifetimeSet};

impl Config {
    /// What is allowed but hardly meant, in the order of the keys: lifetimes that are not below the load balancer's
    /// idle timer, and rules that an earlier rule covers. Rules are compared only in a configuration that
    /// compiles.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.gwlb.enabled {
            let all = LifetimeClass::ALL
                .into_iter()
                .fold(LifetimeSet::default(), |all, class| {
                    let lifetime = self.lifetimes.set.of(class).unwrap_or(class.default_lifetime());
                    all.with(class, lifetime)
                });
            self.warn_lifetimes("lifetimes", &all, &mut warnings);
            for (place, each) in self.lifetimes.overrides.iter().enumerate() {
                self.warn_lifetimes(&format!("lifetimes.override[{place}]"), &each.set, &mut warnings);
            }
        }
        if self.validate().is_ok() {
            self.warn_shadowed(&mut warnings);
        }
        warnings
    }

    fn warn_lifetimes(&self, prefix: &str, set: &LifetimeSet, warnings: &mut Vec<Warning>) {
        for (class, lifetime) in set.iter() {
            let (timer, idle) = match class {
                // The connection is over: nobody misses its flow.
                LifetimeClass::TcpLastAck | LifetimeClass::TcpTimeWait | LifetimeClass::TcpClose => continue,
                class if class.is_tcp() => ("gwlb.tcp_idle", self.gwlb.tcp_idle),
                _ => ("gwlb.other_idle", self.gwlb.other_idle),
            };
            if lifetime >= idle {
                warnings.push(Warning {
                    location: self.provenance.locate(&format!("{prefix}.{}", class.name())),
                    kind: WarningKind::NotBelowGwlb {
                        lifetime: values::duration(lifetime),
                        timer,
                        idle: values::duration(idle),
                    },
                });
            }
        }
    }

    fn warn_shadowed(&self, warnings: &mut Vec<Warning>) {
        let Ok(policy) = self.compile_policy(&Zones::new(&self.zones, &self.zone_groups)) else {
            return;
        };
        for (rule, by) in policy.shadowed() {
            warnings.push(Warning {
                location: self.provenance.locate(&format!("policy.rule[{}]", rule.0)),
                kind: WarningKind::Shadowed {
                    rule: policy.rule_name(rule).to_owned(),
                    by: policy.rule_name(by).to_owned(),
                },
            });
        }
    }
}
