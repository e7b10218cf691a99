//! Every value in force, and where it comes from.
use std::fmt;

use super::sets::set_key;
use super::values::{duration, quoted, quoted_list};
use super::{
    AddressSet, AsymmetryConfig, CheckMode, Config, DEFAULT_ZONE, FragmentsConfig, FtpConfig, GwlbConfig,
    LifetimeOverride, OnReload, PolicyConfig, ResetsConfig, RuleConfig, SynChallengeConfig, TableConfig,
    TcpConfig, TcpHandling, TombstonesConfig, expiry,
};
use crate::lifetime::{LifetimeClass, LifetimeSet, Lifetimes};
use crate::policy::RuleDirection;
use crate::verdict::DropReason;

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The path of the key, such as `lifetimes.tcp.established`; places in lists count from 0.
    pub key: String,
    /// The value as it is written in TOML; of an override or a rule, the keys that it sets.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl fmt::Display for EffectiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.key, self.value, self.origin)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default {
        /// Why the default is what it is, in one clause.
        source: &'static str,
    },
    /// Nobody set it, and it has the value of another key, which was set.
    Follows {
        /// The other key, below `lifetimes`.
        key: &'static str,
    },
    /// It was set.
    File {
        /// The line, counted from 1; `None` if it was set in code.
        line: Option<usize>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { source } => write!(f, "default: {source}"),
            Self::Follows { key } => write!(f, "as {key}"),
            Self::File { line: Some(line) } => write!(f, "line {line}"),
            Self::File { line: None } => f.write_str("set in code"),
        }
    }
}

/// Collects the values of one configuration.
pub(super) struct Values<'a> {
    config: &'a Config,
    values: Vec<EffectiveValue>,
}

impl Values<'_> {
    /// Adds a value; `source` explains the default.
    pub(super) fn setting(
        &mut self,
        key: impl Into<String>,
        value: String,
        default: &str,
        source: &'static str,
    ) {
        let key = key.into();
        let origin = match self.config.provenance.line(&key) {
            Some(line) => Origin::File { line: Some(line) },
            None if value == default => Origin::Default { source },
            None => Origin::File { line: None },
        };
        self.values.push(EffectiveValue { key, value, origin });
    }

    /// Adds the lifetime of a class.
    fn lifetime(&mut self, class: LifetimeClass, lifetimes: &Lifetimes) {
        let key = format!("lifetimes.{}", class.name());
        let value = quoted(duration(lifetimes.of(class)));
        if let Some(leader) = lifetimes.leader(class) {
            let origin = Origin::Follows { key: leader.name() };
            self.values.push(EffectiveValue { key, value, origin });
            return;
        }
        let default = quoted(duration(class.default_lifetime()));
        self.setting(key, value, &default, class.default_source());
    }

    /// Adds a value that has no default.
    pub(super) fn entry(&mut self, key: String, value: String) {
        let origin = Origin::File {
            line: self.config.provenance.line(&key),
        };
        self.values.push(EffectiveValue { key, value, origin });
    }
}

impl Config {
    /// Every value in force with its origin: all settings, zones, lifetimes, overrides and, in order, rules.
    ///
    /// ```
    /// use portcullis::config::Config;
    ///
    /// let config = Config::from_toml("[gwlb]\ntcp_idle = 400", "portcullis.toml")?;
    /// let values: Vec<String> = config.effective().iter().map(ToString::to_string).collect();
    /// assert!(values.contains(&"gwlb.tcp_idle = \"6m 40s\"  # line 2".to_owned()));
    /// assert!(values.contains(&"lifetimes.icmp = \"30s\"  # default: Linux".to_owned()));
    /// # Ok::<(), portcullis::config::ConfigError>(())
    /// ```
    pub fn effective(&self) -> Vec<EffectiveValue> {
        let mut values = Values {
            config: self,
            values: Vec::new(),
        };
        self.effective_settings(&mut values);
        let lifetimes = Lifetimes::default().with(&self.lifetimes.set);
        for class in LifetimeClass::ALL {
            values.lifetime(class, &lifetimes);
        }
        for (place, each) in self.lifetimes.overrides.iter().enumerate() {
            values.entry(format!("lifetimes.override[{place}]"), override_line(each));
        }
        self.effective_policy(&mut values);
        values.values
    }

    fn effective_settings(&self, values: &mut Values<'_>) {
        let checksums = quoted(self.engine.checksums.name());
        values.setting(
            "engine.checksums",
            checksums,
            "\"verify\"",
            "in a tunnel nobody else does",
        );
        values.setting(
            "engine.attachment",
            quoted(self.engine.attachment.name()),
            "\"auto\"",
            "a tunnel behind the GENEVE front end, else a link",
        );
        values.setting(
            "engine.tunnel_references",
            self.engine.tunnel_references.to_string(),
            "false",
            "only a tunnel front end needs them",
        );
        let sessions = self.table.max_sessions.to_string();
        let default = TableConfig::DEFAULT_SESSIONS.to_string();
        values.setting("table.max_sessions", sessions, &default, "2^20");
        let shards = self.table.shards_in_force().to_string();
        let default = TableConfig {
            shards: None,
            ..self.table
        }
        .shards_in_force()
        .to_string();
        values.setting(
            "table.shards",
            shards,
            &default,
            "64, or fewer to have 1024 sessions in each",
        );
        values.setting(
            "table.adaptive_start",
            self.table.adaptive_start.to_string(),
            &TableConfig::DEFAULT_ADAPTIVE_START.to_string(),
            "pf",
        );
        values.setting(
            "table.adaptive_end",
            self.table.adaptive_end.to_string(),
            &TableConfig::DEFAULT_ADAPTIVE_END.to_string(),
            "pf",
        );

        self.effective_limits(values);
        self.effective_fragments(values);
        values.setting("zones.default", "0".to_owned(), "0", "always there");
        for (name, id) in self.zones.iter().filter(|(name, _)| *name != DEFAULT_ZONE) {
            values.entry(
                format!("zones.{}", super::keys::key_segment(name)),
                id.to_string(),
            );
        }

        for (group, zones) in &self.zone_groups {
            let key = format!("zone_groups.{}", super::keys::key_segment(group));
            values.entry(key, quoted_list(zones));
        }
        for (name, set) in &self.address_sets {
            values.entry(set_key("address_sets", name), address_set_value(set));
        }
        for (name, services) in &self.service_sets {
            values.entry(set_key("service_sets", name), quoted_list(services));
        }
        let default = GwlbConfig::default();
        let enabled = self.gwlb.enabled.to_string();
        values.setting(
            "gwlb.enabled",
            enabled,
            &default.enabled.to_string(),
            "the balancer this engine is for",
        );
        let idle = quoted(duration(self.gwlb.tcp_idle));
        values.setting(
            "gwlb.tcp_idle",
            idle,
            &quoted(duration(default.tcp_idle)),
            "GWLB's default",
        );
        let idle = quoted(duration(self.gwlb.other_idle));
        values.setting(
            "gwlb.other_idle",
            idle,
            &quoted(duration(default.other_idle)),
            "GWLB's fixed value",
        );
        self.effective_geneve(values);
        let mode = quoted(self.tcp.mode.name());
        values.setting(
            "tcp.mode",
            mode,
            "\"strict\"",
            "Linux with tcp_loose=0, tcp_be_liberal=0",
        );
        self.effective_endings(values);
        self.effective_challenge(values);
        for (zone, handling) in &self.tcp.zones {
            let key = format!("tcp.zones.{}", super::keys::key_segment(zone));
            values.entry(key, handling_value(handling));
        }
        let split = quoted(self.tcp.split_handshake.name());
        values.setting(
            "tcp.split_handshake",
            split,
            "\"drop\"",
            "an evasion, no stack does it",
        );
        self.effective_ip(values);
        let redirects = quoted(self.icmp.redirects.name());
        values.setting(
            "icmp.redirects",
            redirects,
            "\"drop\"",
            "they belong on a host's own link",
        );
        let default = FtpConfig::default();
        values.setting(
            "ftp.ports",
            format!("{:?}", self.ftp.ports),
            &format!("{:?}", default.ports),
            "RFC 959",
        );
        values.setting(
            "ftp.port_floor",
            self.ftp.port_floor.to_string(),
            &default.port_floor.to_string(),
            "RFC 2577, section 3",
        );
        values.setting(
            "ftp.lifetime",
            quoted(duration(self.ftp.lifetime)),
            &quoted(duration(default.lifetime)),
            "Linux; servers with slow storage call a minute after RETR",
        );
        values.setting(
            "ftp.passive_addresses",
            quoted_list(&self.ftp.passive_addresses),
            "[]",
            "data go to the server that announces them",
        );
        values.setting(
            "ftp.active_addresses",
            quoted_list(&self.ftp.active_addresses),
            "[]",
            "a client announces its own address",
        );
        values.setting(
            "ftp.max_refused",
            self.ftp.max_refused.to_string(),
            &default.max_refused.to_string(),
            "a page in a browser can guess addresses",
        );
        values.setting(
            "ftp.active_source_port",
            self.ftp.active_source_port.to_string(),
            &default.active_source_port.to_string(),
            "any: servers without privileges cannot call from port 20",
        );
        values.setting(
            "ftp.active_opening",
            quoted(self.ftp.active_opening.name()),
            &quoted(default.active_opening.name()),
            "there are servers that connect before they answer",
        );
        values.setting(
            "ftp.max_line",
            self.ftp.max_line.to_string(),
            &default.max_line.to_string(),
            "a path of 4096 bytes whose every byte is a quote",
        );
        values.setting(
            "ftp.reorder_bytes",
            self.ftp.reorder_bytes.to_string(),
            &default.reorder_bytes.to_string(),
            "a window without a scale",
        );
        values.setting(
            "ftp.max_pipelined",
            self.ftp.max_pipelined.to_string(),
            &default.max_pipelined.to_string(),
            "most clients send one at a time",
        );
        values.setting(
            "ftp.refused",
            quoted(self.ftp.refused.name()),
            &quoted(default.refused.name()),
            "nothing is opened, and the server answers for itself",
        );
        values.setting(
            "ftp.max_memory",
            self.ftp.max_memory.to_string(),
            &default.max_memory.to_string(),
            "64 MiB",
        );
        for check in DropReason::CHECKS {
            let mode = match self.checks.get(check.name()) {
                Some(CheckMode::Count) => "count",
                _ => "drop",
            };
            values.setting(
                format!("checks.{}", check.name()),
                quoted(mode),
                "\"drop\"",
                "a check drops",
            );
        }
    }

    fn effective_endings(&self, values: &mut Values<'_>) {
        let (tcp, default) = (&self.tcp, TcpConfig::default());
        let resets = (self.resets, ResetsConfig::default());
        let tombstones = (self.tombstones, TombstonesConfig::default());
        let asymmetry = (self.asymmetry, AsymmetryConfig::default());
        let count = |(ours, default): (u32, u32)| (ours.to_string(), default.to_string());
        let time = |(ours, default)| (quoted(duration(ours)), quoted(duration(default)));
        let name = |(ours, default): (&str, &str)| (quoted(ours), quoted(default));
        let settings = [
            (
                "tcp.timeout_reset",
                (tcp.timeout_reset.to_string(), default.timeout_reset.to_string()),
                "both ends shall know",
            ),
            (
                "tcp.late",
                name((tcp.late.name(), default.late.name())),
                "the end shall know",
            ),
            (
                "tcp.midstream",
                name((tcp.midstream.name(), default.midstream.name())),
                "a connection begins with its SYN",
            ),
            (
                "tcp.asymmetric",
                name((tcp.asymmetric.name(), default.asymmetric.name())),
                "half a conversation cannot be judged",
            ),
            (
                "tcp.failover",
                time((tcp.failover, default.failover)),
                "nothing is adopted unasked",
            ),
            (
                "resets.per_destination",
                count((resets.0.per_destination, resets.1.per_destination)),
                "a server whose sessions end together",
            ),
            (
                "resets.overall",
                count((resets.0.overall, resets.1.overall)),
                "a few per cent of a core",
            ),
            (
                "tombstones.max",
                count((tombstones.0.max, tombstones.1.max)),
                "8 MiB",
            ),
            (
                "tombstones.lifetime",
                time((tombstones.0.lifetime, tombstones.1.lifetime)),
                "longer than keepalives of 5 minutes",
            ),
            (
                "asymmetry.packets",
                count((asymmetry.0.packets, asymmetry.1.packets)),
                "more than an initial window",
            ),
            (
                "asymmetry.time",
                time((asymmetry.0.time, asymmetry.1.time)),
                "longer than a few retransmissions",
            ),
            (
                "asymmetry.max_entries",
                count((asymmetry.0.max_entries, asymmetry.1.max_entries)),
                "1 MiB",
            ),
            (
                "asymmetry.searched_zones",
                count((asymmetry.0.searched_zones, asymmetry.1.searched_zones)),
                "a few microseconds",
            ),
            (
                "asymmetry.searches",
                count((asymmetry.0.searches, asymmetry.1.searches)),
                "a few per cent of a core",
            ),
            (
                "asymmetry.prefix_v4",
                count((asymmetry.0.prefix_v4.into(), asymmetry.1.prefix_v4.into())),
                "a common subnet",
            ),
            (
                "asymmetry.prefix_v6",
                count((asymmetry.0.prefix_v6.into(), asymmetry.1.prefix_v6.into())),
                "a subnet (RFC 4291 2.5.4)",
            ),
        ];
        for (key, (value, default), source) in settings {
            values.setting(key, value, &default, source);
        }
    }

    fn effective_challenge(&self, values: &mut Values<'_>) {
        let (ours, default) = (&self.syn_challenge, SynChallengeConfig::default());
        values.setting(
            "syn_challenge.mode",
            quoted(ours.mode.name()),
            &quoted(default.mode.name()),
            "new clients wait only while there is a flood",
        );
        for (zone, mode) in &ours.zones {
            let key = format!("syn_challenge.zones.{}", super::keys::key_segment(zone));
            values.entry(key, quoted(mode.name()));
        }
        let counts = [
            (
                "syn_challenge.start",
                (ours.start, default.start),
                "percent; far above healthy zones, far below a full table",
            ),
            (
                "syn_challenge.end",
                (ours.end, default.end),
                "percent; half of the start, as pf's adaptive SYN cookies have it",
            ),
            (
                "syn_challenge.max_sources",
                (ours.max_sources, default.max_sources),
                "512 KiB",
            ),
            (
                "syn_challenge.per_second",
                (ours.per_second, default.per_second),
                "above what an appliance can receive: the flood is most of the SYNs",
            ),
        ];
        for (key, (value, default), source) in counts {
            values.setting(key, value.to_string(), &default.to_string(), source);
        }
        values.setting(
            "syn_challenge.lifetime",
            quoted(duration(ours.lifetime)),
            &quoted(duration(default.lifetime)),
            "clients that come back are not challenged again",
        );
    }

    fn effective_fragments(&self, values: &mut Values<'_>) {
        let default = FragmentsConfig::default();
        values.setting(
            "fragments.max_datagrams",
            self.fragments.max_datagrams.to_string(),
            &default.max_datagrams.to_string(),
            "twice what Linux' ipfrag_high_thresh holds",
        );
        values.setting(
            "fragments.max_per_source",
            self.fragments.max_per_source.to_string(),
            &default.max_per_source.to_string(),
            "a sixteenth of the default of all",
        );
        values.setting(
            "fragments.lifetime",
            quoted(duration(self.fragments.lifetime)),
            &quoted(duration(default.lifetime)),
            "Linux' ipfrag_time",
        );
        values.setting(
            "fragments.hold",
            quoted(duration(self.fragments.hold)),
            &quoted(duration(default.hold)),
            "a first fragment that is late comes within milliseconds",
        );
        values.setting(
            "fragments.max_held",
            self.fragments.max_held.to_string(),
            &default.max_held.to_string(),
            "some 1.5 MiB of full Ethernet frames",
        );
        values.setting(
            "fragments.max_held_per_source",
            self.fragments.max_held_per_source.to_string(),
            &default.max_held_per_source.to_string(),
            "one datagram in as many fragments as may be",
        );
    }

    fn effective_policy(&self, values: &mut Values<'_>) {
        let default = quoted(self.policy.default);
        let unset = quoted(PolicyConfig::default().default);
        let source = "everything that no rule allows is denied";
        values.setting("policy.default", default, &unset, source);
        for (zone, action) in &self.policy.zones {
            let key = format!("policy.zones.{}", super::keys::key_segment(zone));
            values.entry(key, quoted(action));
        }
        let on_reload = quoted(self.policy.on_reload.name());
        let unset = quoted(OnReload::default().name());
        values.setting("policy.on_reload", on_reload, &unset, "what is denied is denied");
        let inside = quoted_list(&self.policy.inside);
        let unset = quoted_list(&PolicyConfig::DEFAULT_INSIDE);
        values.setting("policy.inside", inside, &unset, "RFC 1918, RFC 6598, RFC 4193");
        for (place, rule) in self.policy.rules.iter().enumerate() {
            values.entry(format!("policy.rule[{place}]"), rule_line(rule));
        }
    }
}

/// The keys that an override sets, as an inline table.
fn override_line(each: &LifetimeOverride) -> String {
    let mut keys = Vec::new();
    if let Some(protocol) = each.protocol {
        keys.push(format!("protocol = {}", quoted(protocol)));
    }
    push_list(&mut keys, "ports", &each.ports);
    push_list(&mut keys, "address", &each.address);
    if let Some(zone) = &each.zone {
        keys.push(format!("zone = {}", quoted(zone)));
    }
    if let Some(rule) = &each.rule {
        keys.push(format!("rule = {}", quoted(rule)));
    }
    push_lifetimes(&mut keys, &each.set);
    inline(&keys)
}

/// A set as a list, or as an inline table where it has a file.
fn address_set_value(set: &AddressSet) -> String {
    let addresses = quoted_list(&set.addresses);
    let Some(file) = &set.file else {
        return addresses;
    };
    let file = format!("file = {}", quoted(file));
    if set.addresses.is_empty() {
        return inline(&[file]);
    }
    inline(&[format!("addresses = {addresses}"), file])
}

/// The keys that a rule sets, as an inline table.
fn rule_line(rule: &RuleConfig) -> String {
    let mut keys = vec![
        format!("name = {}", quoted(&rule.name)),
        format!("action = {}", quoted(rule.action)),
    ];
    if !rule.enabled {
        keys.push("enabled = false".to_owned());
    }
    if !rule.comment.is_empty() {
        let text = rule.comment.replace('\\', "\\\\").replace('"', "\\\"");
        keys.push(format!("comment = {}", quoted(text)));
    }
    if let Some(expires) = rule.expires {
        keys.push(format!("expires = {}", expiry::written(expires)));
    }
    push_list(&mut keys, "zones", &rule.zones);
    push_list(&mut keys, "source", &rule.source);
    push_list(&mut keys, "destination", &rule.destination);
    push_list(&mut keys, "destination_zones", &rule.destination_zones);
    push_list(&mut keys, "services", &rule.services);
    push_list(&mut keys, "protocol", &rule.protocol);
    push_list(&mut keys, "source_ports", &rule.source_ports);
    push_list(&mut keys, "destination_ports", &rule.destination_ports);
    push_list(&mut keys, "icmp_types", &rule.icmp_types);
    push_list(&mut keys, "not.source", &rule.not.source);
    push_list(&mut keys, "not.destination", &rule.not.destination);
    push_list(&mut keys, "not.protocol", &rule.not.protocol);
    push_list(&mut keys, "not.source_ports", &rule.not.source_ports);
    push_list(&mut keys, "not.destination_ports", &rule.not.destination_ports);
    if rule.direction != RuleDirection::Any {
        keys.push(format!("direction = {}", quoted(rule.direction.name())));
    }
    if rule.log {
        keys.push("log = true".to_owned());
    }
    if !rule.tcp.is_empty() {
        keys.push(format!("tcp = {}", handling_value(&rule.tcp)));
    }
    if let Some(options) = rule.ip_options {
        keys.push(format!("ip_options = {}", quoted(options.name())));
    }
    if !rule.limits.is_empty() {
        let said: Vec<_> = rule
            .limits
            .keys()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        keys.push(format!("limits = {}", inline(&said)));
    }
    if !rule.ftp.is_empty() {
        let said: Vec<_> = rule
            .ftp
            .keys()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        keys.push(format!("ftp = {}", inline(&said)));
    }
    inline(&keys)
}

/// A mode alone where nothing else is said, else an inline table.
fn handling_value(handling: &TcpHandling) -> String {
    let keys: Vec<_> = handling.keys().collect();
    match keys.as_slice() {
        [("mode", mode)] => mode.clone(),
        keys => {
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect();
            inline(&keys)
        }
    }
}

fn push_list<T: fmt::Display>(keys: &mut Vec<String>, name: &str, list: &[T]) {
    if !list.is_empty() {
        keys.push(format!("{name} = {}", quoted_list(list)));
    }
}

fn push_lifetimes(keys: &mut Vec<String>, set: &LifetimeSet) {
    keys.extend(
        set.iter()
            .map(|(class, lifetime)| format!("{} = {}", class.name(), quoted(duration(lifetime)))),
    );
}

pub(super) fn inline(keys: &[String]) -> String {
    if keys.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", keys.join(", "))
    }
}
