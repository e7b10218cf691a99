//! Keys that a reload cannot change, whose running values stay in force.

use super::declare::Table;
use super::{Config, TableConfig, Zones};
use crate::Zone;

/// Keeps the running groups unless a name would then denote other zones. A rule for one zone would
/// otherwise apply to a whole group, or the reverse.
fn keep_groups(to: &mut Config, from: &Config) {
    let asked = Zones::new(&to.zones, &to.zone_groups);
    let kept = Zones::new(&to.zones, &from.zone_groups);
    let means_the_same = |name: &str| {
        let (Some(asked_zone), Some(kept_zone)) = (asked.zone(name), kept.zone(name)) else {
            // Validation reports that there is no such zone.
            return true;
        };
        let numbered = to.zones.values().map(|number| Zone(*number));
        numbered
            .chain([Zone::DEFAULT])
            .all(|zone| (asked.group_of(zone) == asked_zone) == (kept.group_of(zone) == kept_zone))
    };
    let rules = to.policy.rules.iter();
    let of_rules = rules.flat_map(|rule| rule.zones.iter().chain(&rule.destination_zones));
    let of_rules = of_rules.chain(to.policy.zones.keys());
    let of_lifetimes = to
        .lifetimes
        .overrides
        .iter()
        .filter_map(|each| each.zone.as_ref());
    let of_zones = to.tcp.zones.keys().chain(to.syn_challenge.zones.keys());
    let of_limits = to.limits.zones.keys();
    let mut names = of_rules
        .chain(of_lifetimes)
        .chain(of_zones)
        .chain(of_limits);
    if names.all(|name| means_the_same(name)) {
        to.zone_groups.clone_from(&from.zone_groups);
    }
}

impl Config {
    /// Replaces every value that only a start can change with the value of `running`, the
    /// configuration in force, and returns the keys whose values differed. These wait for a
    /// restart; [`Engine::reload`](crate::Engine::reload) accepts the rest.
    ///
    /// The kept values may not fit the others: a rule may name a zone group that is not running
    /// yet. [`Config::validate`], or the reload, reports that. Zone groups are not kept if a rule
    /// would then apply to other zones than the configuration says; the reload rejects them.
    pub fn keep_running(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let shards_asked = self.table.shards;
        let in_force = running.table.shards_in_force();
        Table::keep(self, running, &mut kept);
        // The default number of shards follows from the number of sessions, which is kept. It is
        // not a key that waits for a restart.
        let asked = TableConfig {
            shards: shards_asked,
            ..self.table.clone()
        };
        if asked.shards_in_force() == in_force {
            kept.retain(|key| *key != "table.shards");
        }
        let same_groups = |one: &Self, other: &Self| {
            let zones = |config: &Self| Zones::new(&config.zones, &config.zone_groups);
            zones(one).same_groups(&zones(other))
        };
        if !same_groups(self, running) {
            keep_groups(self, running);
            // Groups that could not be kept are left to the reload, which rejects them.
            if same_groups(self, running) {
                kept.push("zone_groups");
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{Discard, Engine};

    fn parse(text: &str) -> Config {
        Config::from_toml(text, "t.toml").unwrap()
    }

    #[test]
    fn a_key_that_needs_a_start_keeps_its_running_value_and_is_named() {
        let running = parse("[zones]\na = 1\nb = 2");
        for (text, key) in [
            ("[table]\nmax_sessions = 77", "table.max_sessions"),
            ("[table]\nshards = 2", "table.shards"),
            ("[limits]\nipv4_prefix = 24", "limits.ipv4_prefix"),
            ("[limits]\nipv6_prefix = 56", "limits.ipv6_prefix"),
            ("[fragments]\nmax_datagrams = 7", "fragments.max_datagrams"),
            ("[tombstones]\nmax = 7", "tombstones.max"),
            (
                "[syn_challenge]\nmax_sources = 7",
                "syn_challenge.max_sources",
            ),
            (
                "[engine]\ntunnel_references = true",
                "engine.tunnel_references",
            ),
            ("[continuity]\nenabled = true", "continuity.enabled"),
            ("[zone_groups]\nab = [\"a\", \"b\"]", "zone_groups"),
            ("[geneve]\nprovider = \"tencent\"", "geneve.provider"),
            ("[geneve]\nlisten = \"10.0.0.1\"", "geneve.listen"),
            ("[geneve]\nmax_endpoints = 7", "geneve.max_endpoints"),
            ("[geneve]\nmax_tunnel_ends = 7", "geneve.max_tunnel_ends"),
        ] {
            let mut config = parse(&format!("[zones]\na = 1\nb = 2\n{text}"));
            config.policy.on_reload = crate::config::OnReload::Keep;
            assert_eq!(config.keep_running(&running), [key], "{text}");
            assert_eq!(config.keep_running(&running), [""; 0], "{text}");
            assert_eq!(
                config.policy.on_reload,
                crate::config::OnReload::Keep,
                "the rest is new"
            );
            assert_eq!(config.check_tunnel(&running.geneve), Ok(()), "{text}");
            let engine = Engine::with_seed(&running, [1; 4]).unwrap();
            assert!(
                engine.reload(&config, Instant::now(), &mut Discard).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn kept_values_that_do_not_fit_the_rest_are_an_error_of_the_reload() {
        let running = parse("[zones]\na = 1\nb = 2");
        let group = "[zones]\na = 1\nb = 2\n[zone_groups]\nab = [\"a\", \"b\"]\n";
        let rule = "[[policy.rule]]\nname = \"r\"\naction = \"allow\"\nzones = [\"ab\"]";
        let mut config = parse(&format!("{group}{rule}"));
        assert_eq!(config.keep_running(&running), ["zone_groups"]);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("policy.rule[0].zones"), "{error}");
    }

    #[test]
    fn groups_are_not_kept_where_a_name_would_stand_for_other_zones() {
        let zones = "[zones]\na = 1\nb = 2\nc = 3\n";
        let group = "[zone_groups]\nab = [\"a\", \"b\"]\n";
        let larger = "[zone_groups]\nab = [\"a\", \"b\", \"c\"]\n";
        let rule = |zone: &str| {
            format!("[[policy.rule]]\nname = \"r\"\naction = \"allow\"\nzones = [\"{zone}\"]\n")
        };
        let default = "[zone_groups]\nx = [\"default\", \"b\"]\n";
        let lifetime = "[[lifetimes.override]]\nzone = \"a\"\nudp.unreplied = \"9s\"\n";
        let handling = "[tcp.zones]\na = { asymmetric = \"bypass\" }\n";
        let challenge = "[syn_challenge.zones]\na = \"always\"\n";
        let renumbered = "[zones]\na = 4\nb = 2\nc = 3\n";
        for (running, new, is_kept) in [
            ([zones, group, ""], [zones, "", ""], true),
            ([zones, group, ""], [zones, "", &rule("c")], true),
            ([zones, group, ""], [zones, "", &rule("a")], false),
            ([zones, group, ""], [zones, "", lifetime], false),
            ([zones, group, ""], [zones, "", handling], false),
            ([zones, group, ""], [zones, "", challenge], false),
            ([zones, "", ""], [zones, group, &rule("a")], false),
            ([zones, group, ""], [zones, larger, &rule("ab")], false),
            ([zones, group, ""], [zones, larger, &rule("c")], false),
            ([zones, "", ""], [zones, default, &rule("b")], false),
            ([zones, group, ""], [renumbered, group, ""], false),
        ] {
            let running = parse(&running.concat());
            let mut config = parse(&new.concat());
            let kept = config.keep_running(&running);
            let engine = Engine::with_seed(&running, [1; 4]).unwrap();
            let done = engine.reload(&config, Instant::now(), &mut Discard);
            if is_kept {
                assert_eq!(kept, ["zone_groups"], "{new:?}");
                assert!(done.is_ok(), "{new:?}");
            } else {
                assert_eq!(kept, [""; 0], "{new:?}");
                let error = done.unwrap_err().to_string();
                assert!(
                    error.contains("zone_groups: only a start can change"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn the_shards_that_follow_from_the_size_do_not_wait_on_their_own() {
        let running = parse("[table]\nmax_sessions = 1_000");
        let mut config = parse("[table]\nmax_sessions = 1_000_000");
        assert_ne!(
            config.table.shards_in_force(),
            running.table.shards_in_force()
        );
        assert_eq!(config.keep_running(&running), ["table.max_sessions"]);
        assert_eq!(
            config.table.shards_in_force(),
            running.table.shards_in_force()
        );
    }
}
