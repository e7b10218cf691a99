//! Settings of the tunnel, prepared for lookups.
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

use crate::config::{Config, GeneveConfig, Zones, parse_endpoint};
use crate::flow::Zone;
use crate::geneve::EndpointId;

#[derive(Debug)]
pub(super) struct Settings {
    /// The configuration from which they are derived.
    pub(super) config: GeneveConfig,
    /// A number that is unique among all settings of this process, in any front end.
    pub(super) epoch: u64,
    /// The longest inner packet that is returned, in bytes.
    pub(super) inner_mtu: u16,
    /// The largest MSS over IPv4.
    pub(super) mss: Option<u16>,
    endpoints: HashMap<EndpointId, Zone, ahash::RandomState>,
    unknown: Option<Zone>,
}

impl Settings {
    /// Returns the settings of a validated configuration.
    pub(super) fn new(config: &Config) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let zones = Zones::new(&config.zones, &config.zone_groups);
        let geneve = &config.geneve;
        let named = geneve
            .endpoints
            .iter()
            .filter_map(|(id, zone)| Some((parse_endpoint(id)?, zones.zone(zone)?)));
        let mut endpoints = HashMap::with_hasher(random_state());
        endpoints.extend(named);
        Self {
            epoch: NEXT.fetch_add(1, Ordering::Relaxed),
            inner_mtu: u16::try_from(geneve.inner_mtu).unwrap_or(u16::MAX),
            mss: u16::try_from(geneve.mss_clamp).ok().filter(|mss| *mss != 0),
            endpoints,
            unknown: geneve.unknown_zone().and_then(|zone| zones.zone(zone)),
            config: geneve.clone(),
        }
    }

    /// Returns whether tunneled packets are accepted from an address.
    pub(super) fn allows(&self, source: Ipv4Addr) -> bool {
        let holds =
            |prefix: &IpNet| matches!(prefix, IpNet::V4(prefix) if prefix.contains(&source));
        self.config.sources.is_empty() || self.config.sources.iter().any(holds)
    }

    /// Returns whether the appliance listens at an address.
    pub(super) fn is_ours(&self, source: Ipv4Addr) -> bool {
        !source.is_unspecified() && self.config.listen.contains(&source)
    }

    /// Returns the zone of an endpoint; `None` if the endpoint is refused.
    pub(super) fn zone(&self, endpoint: Option<EndpointId>) -> Option<Zone> {
        endpoint
            .and_then(|endpoint| self.endpoints.get(&endpoint).copied())
            .or(self.unknown)
    }
}

/// Returns a hash that the senders of endpoint IDs cannot predict.
pub(super) fn random_state() -> ahash::RandomState {
    use std::hash::BuildHasher;
    let random = std::hash::RandomState::new();
    let [a, b, c, d] = [0u8, 1, 2, 3].map(|n| random.hash_one(n));
    ahash::RandomState::with_seeds(a, b, c, d)
}
