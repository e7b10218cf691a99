//! `[geneve]`: the tunnel in front of the engine.
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

use super::declare::Table;
use super::error::{ConfigError, ConfigErrorCause};
use super::path::key_segment;
use super::validate::{Checked, Errors};
use super::{Config, DEFAULT_ZONE};
use crate::geneve::{EndpointId, MetadataField, Provider};
use ipnet::IpNet;

crate::config_section! {
    /// `[geneve]`: the tunnel.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GeneveConfig = "geneve" {
        /// The provider of the load balancer in front, whose metadata the header has.
        provider: Provider {
            default: Provider::default(), "the balancer this engine is for";
            restart: true;
        }
        /// The IPv4 addresses at whose UDP port 6081 datagrams are received.
        listen: Vec<Ipv4Addr> {
            default: vec![Ipv4Addr::UNSPECIFIED], "every address of this host";
            bounds: 1..=Self::MAX_LISTEN;
            restart: true;
        }
        /// The prefixes from which tunneled packets are accepted: the subnets of the load balancer.
        /// An empty list accepts them from anywhere.
        sources: Vec<IpNet> {
            default: Self::default_sources(), "RFC 1918, RFC 6598";
            limit: "IPv4";
        }
        /// The name of a zone, or of a group of zones, by endpoint id in hexadecimal, such as
        /// `0x74a11ad96ec49886`.
        endpoints: BTreeMap<String, String> {
            default: BTreeMap::new(), "all endpoints are in one zone";
        }
        /// Handling of packets of other endpoints: `refuse`, or the name of their zone.
        unknown_endpoints: Option<String> {
            default: None, "`refuse` where `endpoints` names any, else the zone `default`";
        }
        /// The number of endpoints that counters tell apart, at least as many as `endpoints` has,
        /// and half as many beside that are not named; further ones are counted together. An
        /// endpoint that a reload no longer names keeps its place.
        max_endpoints: u32 {
            default: 1_024, "48 KiB of counters for each worker";
            bounds: 1..=Self::MAX_ENDS;
            unit: "endpoints";
            restart: true;
        }
        /// The number of tunnel endpoints that are remembered: peer, local address, and header but
        /// for the cookie. One endpoint has a quarter of them at most, and so have all together
        /// that `endpoints` does not name, if it names any. Beyond this number packets pass, but
        /// the appliance can send none of its own, such as a RST at the end of a session. A tunnel
        /// endpoint without packets for ten minutes is evicted; of more than 32,767, none is.
        max_tunnel_ends: u32 {
            default: 4_095, "1 MiB";
            bounds: 1..=Self::MAX_ENDS;
            unit: "tunnel endpoints";
            restart: true;
        }
        /// The metadata that a header must have.
        required: Option<Vec<MetadataField>> {
            default: None, "what the provider always sends";
        }
        /// The longest inner packet that is returned; the sender of a larger one gets an ICMP
        /// error.
        inner_mtu: u32 {
            default: 8_500, "GWLB's";
            bounds: 1_280..=Self::MAX_INNER_MTU;
            unit: "bytes";
        }
        /// The largest MSS that a TCP SYN over IPv4 may announce; over IPv6 it is 20 less, since
        /// the header is longer by that. 0 leaves every SYN as it is.
        mss_clamp: u32 {
            default: 0, "allowed packets leave untouched";
            bounds: 64..=65_495;
            or_zero: true;
            unit: "bytes";
        }
    }
}

impl GeneveConfig {
    /// The largest number of addresses in `listen`.
    pub const MAX_LISTEN: usize = 64;
    /// The largest `max_endpoints` and `max_tunnel_ends`.
    pub const MAX_ENDS: u32 = 65_535;
    /// The largest `inner_mtu`: an IPv4 packet without the 68 bytes of tunnel headers.
    pub const MAX_INNER_MTU: u32 = 65_535 - 68;
    /// The default sources: RFC 1918 and RFC 6598, which the subnets of load balancers use.
    pub const DEFAULT_SOURCES: [&'static str; 4] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
    ];
    /// The `unknown_endpoints` that refuses their packets.
    pub const REFUSE: &'static str = "refuse";

    /// Returns the name of the zone of unnamed endpoints; `None` if they are refused.
    #[must_use]
    pub fn unknown_zone(&self) -> Option<&str> {
        match self.unknown_endpoints.as_deref() {
            Some(Self::REFUSE) => None,
            Some(zone) => Some(zone),
            None if self.endpoints.is_empty() => Some(DEFAULT_ZONE),
            None => None,
        }
    }

    fn default_sources() -> Vec<IpNet> {
        let sources = Self::DEFAULT_SOURCES.into_iter();
        sources.filter_map(|prefix| prefix.parse().ok()).collect()
    }

    /// Returns the metadata that a header must have.
    #[must_use]
    pub fn required_in_force(&self) -> &[MetadataField] {
        self.required
            .as_deref()
            .unwrap_or_else(|| self.provider.required())
    }
}

/// Parses an endpoint id as written in the configuration file: hexadecimal, prefixed with `0x`, 8
/// bytes at most.
#[must_use]
pub fn parse_endpoint(text: &str) -> Option<EndpointId> {
    let digits = text.strip_prefix("0x")?;
    if !(1..=16).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(EndpointId)
}

impl Config {
    pub(super) fn check_geneve(&self, errors: &mut Errors) {
        errors.check(self.check_listen());
        errors.check(self.check_tunnel_sources());
        errors.check(self.check_endpoints());
        let geneve = &self.geneve;
        if let Some(zone) = &geneve.unknown_endpoints
            && zone != GeneveConfig::REFUSE
        {
            errors.check(self.check_zone("geneve.unknown_endpoints", zone));
        }
        if geneve.provider == Provider::Gcp
            && geneve.required_in_force().contains(&MetadataField::Cookie)
        {
            errors.add(self.error("geneve.required", ConfigErrorCause::NoCookie("gcp")));
        }
    }

    fn check_listen(&self) -> Checked {
        let mut earlier = HashSet::new();
        for (place, address) in self.geneve.listen.iter().enumerate() {
            if earlier.contains(address) || earlier.contains(&Ipv4Addr::UNSPECIFIED) {
                let key = format!("geneve.listen[{place}]");
                return Err(self.error(&key, ConfigErrorCause::ListensAlready(*address)));
            }
            earlier.insert(*address);
        }
        Ok(())
    }

    fn check_tunnel_sources(&self) -> Checked {
        let sources = &self.geneve.sources;
        self.check_prefixes("geneve.sources", sources)?;
        for (place, prefix) in sources.iter().enumerate() {
            if let IpNet::V6(_) = prefix {
                let key = format!("geneve.sources[{place}]");
                return Err(self.error(&key, ConfigErrorCause::OuterIpv6(*prefix)));
            }
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Checked {
        let geneve = &self.geneve;
        let mut taken = BTreeMap::new();
        for (id, zone) in &geneve.endpoints {
            let key = format!("geneve.endpoints.{}", key_segment(id));
            let Some(endpoint) = parse_endpoint(id) else {
                return Err(self.error(&key, ConfigErrorCause::BadEndpoint(id.clone())));
            };
            if let Some(first) = taken.insert(endpoint, id) {
                return Err(self.error(&key, ConfigErrorCause::DuplicateEndpoint(first.clone())));
            }
            self.check_zone(&key, zone)?;
        }
        let named = geneve.endpoints.len();
        if geneve.max_endpoints > 0 && named > geneve.max_endpoints as usize {
            let bounds = format!("at least {named}, as many as geneve.endpoints has");
            return Err(self.out_of_bounds("geneve.max_endpoints", geneve.max_endpoints, bounds));
        }
        Ok(())
    }

    /// Checks that sessions store references to their tunnels.
    pub(crate) fn check_tunnel_references(&self) -> Result<(), ConfigError> {
        if self.engine.tunnel_references {
            return Ok(());
        }
        Err(ConfigError {
            location: self.provenance.locate("engine.tunnel_references"),
            cause: ConfigErrorCause::Syntax(
                "the front end needs `true`, to send RSTs in the tunnels of sessions".to_owned(),
            ),
        })
    }

    /// Checks that a running front end with the configuration `in_force` can take over this one
    /// without a restart.
    ///
    /// # Errors
    /// Returns the first changed key of `[geneve]` that only a start can change.
    pub(crate) fn check_tunnel(&self, in_force: &GeneveConfig) -> Result<(), ConfigError> {
        let mut changed = Vec::new();
        Table::keep(&mut self.geneve.clone(), in_force, &mut changed);
        match changed.first() {
            Some(key) => Err(self.error(key, ConfigErrorCause::NotReloadable)),
            None => Ok(()),
        }
    }
}

crate::config_table_values!(GeneveConfig);
crate::config_choices!(Provider [Gwlb, Gcp, Tencent], MetadataField [Endpoint, Attachment, Cookie]);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::from_toml(text, "t.toml").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_error_names_the_key_and_its_bounds() {
        let rows = [
            (
                "[geneve]\nlisten = []",
                "t.toml:2: geneve.listen: a list of 0 is out of bounds: 1 to 64 entries",
            ),
            (
                "[geneve]\nlisten = \"::1\"",
                "t.toml:2: geneve.listen: `::1` is not an IPv4 address",
            ),
            (
                "[geneve]\nlisten = [\"10.0.0.1\", \"10.0.0.1\"]",
                "t.toml:2: geneve.listen[1]: 10.0.0.1 is listed already, or covered by 0.0.0.0",
            ),
            (
                "[geneve]\nlisten = [\"0.0.0.0\", \"10.0.0.1\"]",
                "t.toml:2: geneve.listen[1]: 10.0.0.1 is listed already, or covered by 0.0.0.0",
            ),
            (
                "[geneve]\nsources = [\"10.0.0.0/8\", \"fd00::/8\"]",
                "t.toml:2: geneve.sources[1]: fd00::/8 is not an IPv4 prefix, and tunnels are IPv4",
            ),
            (
                "[geneve]\nsources = \"10.0.0.1/8\"",
                "t.toml:2: geneve.sources: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
            ),
            (
                "[geneve.endpoints]\n\"0x12345678901234567\" = \"default\"",
                "t.toml:2: geneve.endpoints.0x12345678901234567: `0x12345678901234567` is not an \
                 endpoint id: 1 to 16 hexadecimal \
                 digits after `0x`",
            ),
            (
                "[geneve.endpoints]\nvpce = \"default\"",
                "t.toml:2: geneve.endpoints.vpce: `vpce` is not an endpoint id: 1 to 16 \
                 hexadecimal digits after `0x`",
            ),
            (
                "[geneve.endpoints]\n0x1 = \"default\"\n0x01 = \"default\"",
                "t.toml:2: geneve.endpoints.0x1: the endpoint is named already, as `0x01`",
            ),
            (
                "[geneve.endpoints]\n0x1 = \"blue\"",
                "t.toml:2: geneve.endpoints.0x1: there is no zone `blue`: the zones are default",
            ),
            (
                "[geneve]\nunknown_endpoints = \"blue\"",
                "t.toml:2: geneve.unknown_endpoints: there is no zone `blue`: the zones are \
                 default",
            ),
            (
                "[geneve]\nmax_endpoints = 0",
                "t.toml:2: geneve.max_endpoints: 0 is out of bounds: 1 to 65535",
            ),
            (
                "[geneve]\nmax_endpoints = 1\n[geneve.endpoints]\n0x1 = \"default\"\n\
                 0x2 = \"default\"",
                "t.toml:2: geneve.max_endpoints: 1 is out of bounds: at least 2, as many as \
                 geneve.endpoints has",
            ),
            (
                "[geneve]\nmax_tunnel_ends = 65536",
                "t.toml:2: geneve.max_tunnel_ends: 65536 is out of bounds: 1 to 65535",
            ),
            (
                "[geneve]\ninner_mtu = 1279",
                "t.toml:2: geneve.inner_mtu: 1279 is out of bounds: 1280 to 65467",
            ),
            (
                "[geneve]\nmss_clamp = 63",
                "t.toml:2: geneve.mss_clamp: 63 is out of bounds: 0 or 64 to 65495",
            ),
            (
                "[geneve]\nprovider = \"azure\"",
                "t.toml:2: geneve.provider: unknown value `azure`: expected one of `gwlb`, `gcp`, \
                 `tencent`",
            ),
            (
                "[geneve]\nprovider = \"gcp\"\nrequired = [\"cookie\"]",
                "t.toml:3: geneve.required: `cookie` cannot be required: packets of `gcp` have \
                 none",
            ),
        ];
        for (text, message) in rows {
            let error = Config::from_toml(text, "t.toml").map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    #[test]
    fn endpoints_that_are_not_named_are_refused_once_some_are() {
        assert_eq!(parse("").geneve.unknown_zone(), Some("default"));
        let named = "[zones]\nblue = 1\n[geneve.endpoints]\n0x74a11ad96ec49886 = \"blue\"";
        assert_eq!(parse(named).geneve.unknown_zone(), None);
        let both = "[zones]\nblue = 1\n[geneve]\nunknown_endpoints = \"blue\"\n\
                    endpoints.0x1 = \"default\"";
        assert_eq!(parse(both).geneve.unknown_zone(), Some("blue"));
        let refused = "[geneve]\nunknown_endpoints = \"refuse\"";
        assert_eq!(parse(refused).geneve.unknown_zone(), None);
    }

    #[test]
    fn keys_of_threads_and_sockets_need_a_start() {
        let running = parse("");
        let change = |text: &str| {
            parse(text)
                .check_tunnel(&running.geneve)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            change(
                "[geneve]\ninner_mtu = 1500\nmss_clamp = 1400\nsources = []\n[geneve.endpoints]\n\
                 0x1 = \"default\""
            ),
            Ok(())
        );
        for (text, key) in [
            ("[geneve]\nprovider = \"tencent\"", "geneve.provider"),
            ("[geneve]\nlisten = \"10.0.0.1\"", "geneve.listen"),
            ("[geneve]\nmax_endpoints = 7", "geneve.max_endpoints"),
        ] {
            assert_eq!(
                change(text),
                Err(format!("t.toml:2: {key}: only a start can change this"))
            );
        }
    }
}
