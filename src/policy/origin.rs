//! The named sets in the source of a rule. Only explanations read them.
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::NewSession;
use super::service::ServiceMatch;

/// A named set of addresses.
#[derive(Debug, Clone)]
pub(crate) struct NamedAddresses {
    /// The name, without its `@`.
    pub(crate) name: String,
    /// The prefixes, shared by all rules that name the set.
    pub(crate) prefixes: Arc<[IpNet]>,
}

/// A named set of services.
#[derive(Debug, Clone)]
pub(crate) struct NamedServices {
    /// The name, without its `@`.
    pub(crate) name: String,
    /// The services, merged like the parts of a rule.
    pub(crate) parts: Arc<[ServiceMatch]>,
}

/// The named sets of a rule, by the key that refers to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleOrigin {
    pub(crate) source: Vec<NamedAddresses>,
    pub(crate) destination: Vec<NamedAddresses>,
    pub(crate) not_source: Vec<NamedAddresses>,
    pub(crate) not_destination: Vec<NamedAddresses>,
    pub(crate) services: Vec<NamedServices>,
}

impl RuleOrigin {
    /// Returns whether the rule names no set.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            source,
            destination,
            not_source,
            not_destination,
            services,
        } = self;
        services.is_empty()
            && [source, destination, not_source, not_destination]
                .iter()
                .all(|sets| sets.is_empty())
    }

    /// Returns the sets that hold an address or the service of a session, as text.
    pub(super) fn holding(&self, q: &NewSession) -> String {
        let mut text = String::new();
        let mut note = |key: &str, name: &str| {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{key} in @{name}");
        };
        let addresses = [
            ("source", &self.source, q.src),
            ("destination", &self.destination, q.dst),
            ("not.source", &self.not_source, q.src),
            ("not.destination", &self.not_destination, q.dst),
        ];
        for (key, sets, address) in addresses {
            for set in sets.iter().filter(|set| holds(&set.prefixes, address)) {
                note(key, &set.name);
            }
        }
        for set in &self.services {
            if set.parts.iter().any(|part| part.matches(q)) {
                note("service", &set.name);
            }
        }
        text
    }
}

fn holds(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}
