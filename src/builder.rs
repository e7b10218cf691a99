//! Policies and engines built in code, without a configuration file.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::config::{AddressTerm, Config, ConfigError, PolicyConfig, RuleConfig};
use crate::engine::Engine;
use crate::policy::{Action, PortRange, Protocol};

/// Ordered rules and a default action, built in code.
///
/// The first rule that matches a new session decides; if none matches, the default action does.
/// [`EngineBuilder::build`] validates the rules like those of a file. A file has more keys; see
/// [`PolicyConfig`] for all of them.
///
/// ```
/// use portcullis::policy::Protocol;
/// use portcullis::{Engine, Policy, Rule};
///
/// let office: ipnet::IpNet = "10.0.0.0/8".parse()?;
/// let policy = Policy::deny_by_default()
///     .rule(Rule::allow("web").protocol(Protocol::TCP).from(office).ports([80..=80, 443..=443]))
///     .rule(Rule::allow("names").protocol(Protocol::UDP).ports([53..=53]));
/// let engine = Engine::builder().policy(policy).build()?;
/// assert_eq!(engine.policy().len(), 2);
///
/// let reversed = Policy::deny_by_default()
///     .rule(Rule::allow("web").protocol(Protocol::TCP).ports([443..=80]));
/// let error = Engine::builder().policy(reversed).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "policy.rule[0].destination_ports[0]: 443-80 is reversed: write 80-443"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Policy(PolicyConfig);

impl Policy {
    /// Returns a policy without rules that drops every new session.
    pub fn deny_by_default() -> Self {
        Self::by_default(Action::Deny)
    }

    /// Returns a policy without rules that rejects every new session: its initiator gets a RST or
    /// an ICMP error, within the budget of `[resets]`.
    pub fn reject_by_default() -> Self {
        Self::by_default(Action::Reject)
    }

    /// Returns a policy without rules that allows every new session.
    pub fn allow_by_default() -> Self {
        Self::by_default(Action::Allow)
    }

    fn by_default(default: Action) -> Self {
        Self(PolicyConfig {
            default,
            ..PolicyConfig::default()
        })
    }

    /// Adds a rule after the existing ones.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.0.rules.push(rule.0);
        self
    }
}

impl From<Policy> for PolicyConfig {
    fn from(policy: Policy) -> Self {
        policy.0
    }
}

/// Rule of a [`Policy`]. A new rule matches every session; each method narrows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rule(RuleConfig);

impl Rule {
    /// Returns a rule that allows the sessions that match it.
    pub fn allow(name: impl Into<String>) -> Self {
        Self(RuleConfig::new(name, Action::Allow))
    }

    /// Returns a rule that drops the sessions that match it.
    pub fn deny(name: impl Into<String>) -> Self {
        Self(RuleConfig::new(name, Action::Deny))
    }

    /// Returns a rule that drops the sessions that match it and answers their initiators.
    pub fn reject(name: impl Into<String>) -> Self {
        Self(RuleConfig::new(name, Action::Reject))
    }

    /// Returns a rule that allows the sessions that match it and reports each as one that
    /// [`Rule::deny`] would have dropped.
    pub fn audit(name: impl Into<String>) -> Self {
        Self(RuleConfig::new(name, Action::Audit))
    }

    /// Matches sessions of this protocol. Further calls add protocols.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.0.protocol.push(protocol);
        self
    }

    /// Matches sessions whose initiator is in this prefix. Further calls add prefixes.
    pub fn from(mut self, prefix: impl Into<IpNet>) -> Self {
        self.0.source.push(AddressTerm::Prefix(prefix.into()));
        self
    }

    /// Matches sessions whose responder is in this prefix. Further calls add prefixes.
    pub fn to(mut self, prefix: impl Into<IpNet>) -> Self {
        self.0.destination.push(AddressTerm::Prefix(prefix.into()));
        self
    }

    /// Matches sessions to one of these ports of the responder. The rule needs protocols with
    /// ports.
    pub fn ports(mut self, ports: impl IntoIterator<Item = impl Into<PortRange>>) -> Self {
        let ports = ports.into_iter().map(Into::into);
        self.0.destination_ports.extend(ports);
        self
    }

    /// Matches sessions of the zone of this name. Further calls add zones.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.0.zones.push(name.into());
        self
    }

    /// Marks the sessions that this rule decides for logging.
    pub const fn logged(mut self) -> Self {
        self.0.log = true;
        self
    }
}

impl From<Rule> for RuleConfig {
    fn from(rule: Rule) -> Self {
        rule.0
    }
}

impl From<RangeInclusive<u16>> for PortRange {
    fn from(range: RangeInclusive<u16>) -> Self {
        let (first, last) = range.into_inner();
        Self { first, last }
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self::single(port)
    }
}

/// Settings of an [`Engine`] that is built in code ([`Engine::builder`]), or from a configuration
/// ([`Engine::builder_from`]). Everything that is not set has the default of an empty file: every
/// session is denied.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct EngineBuilder {
    config: Config,
    seed: Option<[u64; 4]>,
}

impl EngineBuilder {
    /// Sets the policy.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.config.policy = policy.into();
        self
    }

    /// Sets the name of a zone, for rules.
    pub fn zone(mut self, name: impl Into<String>, number: u16) -> Self {
        self.config.zones.insert(name.into(), number);
        self
    }

    /// Sets the size of the session table.
    pub const fn max_sessions(mut self, max_sessions: u32) -> Self {
        self.config.table.max_sessions = max_sessions;
        self
    }

    /// Stores the [`TunnelRef`](crate::TunnelRef)s of packets in their sessions, for
    /// [`Transmit::egress`](crate::Transmit::egress). This takes 16 bytes for each session.
    pub const fn tunnel_references(mut self) -> Self {
        self.config.engine.tunnel_references = true;
        self
    }

    /// Fixes the hash seed, for reproducible tests; see [`Engine::with_seed`].
    pub const fn seed(mut self, seed: [u64; 4]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Validates all settings, reserves the memory and returns the engine.
    ///
    /// # Errors
    /// Returns the first error of the configuration, or names the table that could not be
    /// allocated.
    pub fn build(self) -> Result<Engine, ConfigError> {
        match self.seed {
            Some(seed) => Engine::with_seed(&self.config, seed),
            None => Engine::new(&self.config),
        }
    }
}

impl Engine {
    /// Returns the settings of an engine that is built in code.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Returns a builder whose settings are those of a configuration, to be changed by its methods.
    ///
    /// ```
    /// use portcullis::{Config, Engine};
    ///
    /// let config = Config::from_toml("[table]\nmax_sessions = 1000", "portcullis.toml")?;
    /// let engine = Engine::builder_from(config).tunnel_references().build()?;
    /// assert_eq!(engine.max_sessions(), 1000);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn builder_from(config: Config) -> EngineBuilder {
        EngineBuilder { config, seed: None }
    }
}
