//! `[geneve]`: the tunnel in front of the engine, and whose packets come out of it. `[run]`: the threads of the appliance.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::effective::Values;
use super::error::{ConfigError, ConfigErrorCause};
use super::keys::key_segment;
use super::running::{FixedKey, OF_GENEVE, OF_RUN};
use super::values::{self, quoted, quoted_list};
use super::{Config, DEFAULT_ZONE};
use crate::geneve::metadata::{EndpointId, MetadataField, Provider};

/// `[geneve]`: the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneveConfig {
    /// Whose load balancer is in front.
    pub provider: Provider,
    /// The IPv4 addresses at whose UDP port 6081 datagrams are received, 1 to [`Self::MAX_LISTEN`].
    #[serde(deserialize_with = "values::list_or_empty")]
    pub listen: Vec<Ipv4Addr>,
    /// The prefixes from which tunnelled packets are taken; none takes them from anywhere.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub sources: Vec<IpNet>,
    /// `[geneve.endpoints]`: the name of a zone, or of a group of zones, by endpoint id ([`parse_endpoint`]).
    pub endpoints: BTreeMap<String, String>,
    /// What becomes of packets of other endpoints: `refuse`, or the name of their zone. `None` refuses them where
    /// `endpoints` names any, and else puts all of them into the zone `default`.
    pub unknown_endpoints: Option<String>,
    /// How many endpoints are told apart in counters, 1 to [`Self::MAX_ENDS`] and as many as `endpoints` has at least, and half as
    /// many beside that nobody has named; what comes beyond is counted together. One that a reload names no more keeps its
    /// place.
    pub max_endpoints: u32,
    /// How many tunnel ends are remembered, 1 to [`Self::MAX_ENDS`]: peer, local address, and header but for the cookie.
    /// One endpoint has a quarter of them at most, and so have all together that `endpoints` does not name, if it names any.
    /// Beyond, packets pass, but none can be made for them: no RST at the end of a session. An end by which nothing has come
    /// for ten minutes makes room; of more than 32,767, none does.
    pub max_tunnel_ends: u32,
    /// What metadata a header must have; `None` for what the provider always sends
    /// ([`Provider::required`](crate::geneve::Provider::required)).
    pub required: Option<Vec<MetadataField>>,
    /// The longest inner packet that is returned, in bytes: 1280 to 65,467.
    pub inner_mtu: u32,
    /// The largest MSS that a TCP SYN over IPv4 may announce, 64 to 65,495; over IPv6 it is 20 less, since the header is
    /// longer by that. 0 leaves all as they are.
    pub mss_clamp: u32,
}

impl GeneveConfig {
    /// The most addresses of `listen`.
    pub const MAX_LISTEN: usize = 64;
    /// The largest `max_endpoints` and `max_tunnel_ends`.
    pub const MAX_ENDS: u32 = 65_535;
    /// The longest `inner_mtu`: an IPv4 packet with 68 bytes of tunnel around it.
    pub const MAX_INNER_MTU: u32 = 65_535 - 68;
    /// Sources unless said otherwise: RFC 1918 and RFC 6598, where the subnets of load balancers are.
    pub const DEFAULT_SOURCES: [&'static str; 4] =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];
    /// The `unknown_endpoints` that lets no packet in.
    pub const REFUSE: &'static str = "refuse";

    /// The name of the zone of endpoints that nobody has named; `None` refuses them.
    #[must_use]
    pub fn unknown_zone(&self) -> Option<&str> {
        match self.unknown_endpoints.as_deref() {
            Some(Self::REFUSE) => None,
            Some(zone) => Some(zone),
            None if self.endpoints.is_empty() => Some(DEFAULT_ZONE),
            None => None,
        }
    }

    /// A key that only a start can change, and that is not the same in `other`.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let differs = |each: &&FixedKey<Self>| (each.differs)(self, other);
        OF_GENEVE.iter().find(differs).map(|each| each.key)
    }

    /// The metadata that a header must have.
    #[must_use]
    pub fn required_in_force(&self) -> &[MetadataField] {
        self.required
            .as_deref()
            .unwrap_or_else(|| self.provider.required())
    }
}

impl Default for GeneveConfig {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            listen: vec![Ipv4Addr::UNSPECIFIED],
            sources: Self::DEFAULT_SOURCES
                .into_iter()
                .filter_map(|prefix| prefix.parse().ok())
                .collect(),
            endpoints: BTreeMap::new(),
            unknown_endpoints: None,
            max_endpoints: 1_024,
            max_tunnel_ends: 4_095,
            required: None,
            inner_mtu: 8_500,
            mss_clamp: 0,
        }
    }
}

/// `[run]`: the threads of the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// How many threads receive, decide and send, at most [`Self::MAX_WORKERS`]; 0 for one for each processor.
    pub workers: u32,
    /// Is each of them bound to a processor?
    pub pin: bool,
    /// What each worker's receive queue is asked to hold, in bytes, 64 KiB to 1 GiB.
    pub receive_queue: u32,
    /// For how long a worker under load rests behind a small batch, so that the next one is larger, at most
    /// [`Self::MAX_COALESCE`]: what network interfaces call interrupt moderation. Packets wait no longer than that and what
    /// the system's timers add, some 50 us. 0 for never.
    #[serde(deserialize_with = "values::scalar")]
    pub coalesce: Duration,
    /// How long a datagram may have waited in the receive queue when a worker takes it: older ones
    /// are refused ([`Refusal::QueueDelay`]). From a quarter of it on, a packet that would open a
    /// session is dropped ([`DropReason::Overload`]), so that packets of sessions come first; a SYN
    /// is not, unless SYNs are the flood. 0 for no bound, else 1 ms to [`Self::MAX_QUEUE_DELAY`].
    ///
    /// [`Refusal::QueueDelay`]: crate::geneve::front::Refusal::QueueDelay
    /// [`DropReason::Overload`]: crate::DropReason::Overload
    #[serde(deserialize_with = "values::scalar")]
    pub queue_delay: Duration,
}

impl RunConfig {
    /// The largest `workers`.
    pub const MAX_WORKERS: u32 = 256;
    /// The longest `coalesce`.
    pub const MAX_COALESCE: Duration = Duration::from_millis(1);
    /// The longest `queue_delay`.
    pub const MAX_QUEUE_DELAY: Duration = Duration::from_secs(10);
    /// The shortest `queue_delay` that is not 0: what a scheduler may add to any wait is not
    /// overload.
    const MIN_QUEUE_DELAY: Duration = Duration::from_millis(1);
    const RECEIVE_QUEUE: (u32, u32) = (64 << 10, 1 << 30);
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            pin: false,
            receive_queue: 32 << 20,
            coalesce: Duration::from_micros(50),
            queue_delay: Duration::from_millis(10),
        }
    }
}

/// Reads an endpoint id as the configuration file has it: hexadecimal, with `0x` in front, 8 bytes at most.
#[must_use]
pub fn parse_endpoint(text: &str) -> Option<EndpointId> {
    let digits = text.strip_prefix("0x")?;
    if !(1..=16).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(EndpointId)
}

type Checked = Result<(), ConfigError>;

impl Config {
    pub(super) fn check_geneve(&self) -> Checked {
        let geneve = &self.geneve;
        if geneve.listen.is_empty() || geneve.listen.len() > GeneveConfig::MAX_LISTEN {
            let bounds = format!("1 to {} addresses", GeneveConfig::MAX_LISTEN);
            let count = format!("a list of {}", geneve.listen.len());
            return Err(self.out_of_bounds("geneve.listen", count, bounds));
        }
        for (place, address) in geneve.listen.iter().enumerate() {
            let earlier = geneve.listen.get(..place).unwrap_or_default();
            if earlier.contains(address) || (place > 0 && earlier.iter().any(Ipv4Addr::is_unspecified)) {
                let key = format!("geneve.listen[{place}]");
                return Err(self.error(&key, ConfigErrorCause::ListensAlready(*address)));
            }
        }
        self.check_prefixes("geneve.sources", &geneve.sources)?;
        for (place, prefix) in geneve.sources.iter().enumerate() {
            if let IpNet::V6(_) = prefix {
                let key = format!("geneve.sources[{place}]");
                return Err(self.error(&key, ConfigErrorCause::OuterIpv6(*prefix)));
            }
        }
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
        if geneve.endpoints.len() > geneve.max_endpoints as usize {
            let bounds = format!(
                "at least {}, as many as geneve.endpoints has",
                geneve.endpoints.len()
            );
            return Err(self.out_of_bounds("geneve.max_endpoints", geneve.max_endpoints, bounds));
        }
        if let Some(zone) = &geneve.unknown_endpoints
            && zone != GeneveConfig::REFUSE
        {
            self.check_zone("geneve.unknown_endpoints", zone)?;
        }
        for (key, value, (low, high)) in [
            (
                "geneve.max_endpoints",
                geneve.max_endpoints,
                (1, GeneveConfig::MAX_ENDS),
            ),
            (
                "geneve.max_tunnel_ends",
                geneve.max_tunnel_ends,
                (1, GeneveConfig::MAX_ENDS),
            ),
            (
                "geneve.inner_mtu",
                geneve.inner_mtu,
                (1_280, GeneveConfig::MAX_INNER_MTU),
            ),
            ("run.workers", self.run.workers, (0, RunConfig::MAX_WORKERS)),
            (
                "run.receive_queue",
                self.run.receive_queue,
                RunConfig::RECEIVE_QUEUE,
            ),
        ] {
            if !(low..=high).contains(&value) {
                return Err(self.out_of_bounds(key, value, format!("{low} to {high}")));
            }
        }
        let coalesce = (Duration::ZERO, RunConfig::MAX_COALESCE);
        self.check_duration("run.coalesce", self.run.coalesce, coalesce)?;
        if !self.run.queue_delay.is_zero() {
            let bounds = (RunConfig::MIN_QUEUE_DELAY, RunConfig::MAX_QUEUE_DELAY);
            self.check_duration("run.queue_delay", self.run.queue_delay, bounds)?;
        }
        if geneve.mss_clamp != 0 && !(64..=65_495).contains(&geneve.mss_clamp) {
            let bounds = "0, or 64 to 65495";
            return Err(self.out_of_bounds("geneve.mss_clamp", geneve.mss_clamp, bounds));
        }
        if geneve.provider == Provider::Gcp && geneve.required_in_force().contains(&MetadataField::Cookie) {
            return Err(self.error("geneve.required", ConfigErrorCause::NoCookie("gcp")));
        }
        Ok(())
    }

    /// Whether a running appliance with the configuration `in_force` can take this one over without a start.
    ///
    /// # Errors
    /// The first key of `[geneve]` or `[run]` that only a start can change.
    pub fn check_running(&self, in_force: &Self) -> Result<(), ConfigError> {
        let differs = |each: &&FixedKey<RunConfig>| (each.differs)(&self.run, &in_force.run);
        let run = || OF_RUN.iter().find(differs).map(|each| each.key);
        match self.geneve.differs(&in_force.geneve).or_else(run) {
            Some(key) => Err(self.error(key, ConfigErrorCause::NotReloadable)),
            None => Ok(()),
        }
    }

    /// The same for `[geneve]` alone.
    pub(crate) fn check_tunnel(&self, in_force: &GeneveConfig) -> Result<(), ConfigError> {
        match self.geneve.differs(in_force) {
            Some(key) => Err(self.error(key, ConfigErrorCause::NotReloadable)),
            None => Ok(()),
        }
    }

    pub(super) fn effective_geneve(&self, values: &mut Values<'_>) {
        let (geneve, default) = (&self.geneve, GeneveConfig::default());
        values.setting(
            "geneve.provider",
            quoted(geneve.provider.name()),
            &quoted(default.provider.name()),
            "the balancer this engine is for",
        );
        values.setting(
            "geneve.listen",
            quoted_list(&geneve.listen),
            &quoted_list(&default.listen),
            "every address of this host",
        );
        values.setting(
            "geneve.sources",
            quoted_list(&geneve.sources),
            &quoted_list(&default.sources),
            "RFC 1918, RFC 6598",
        );
        let (unset, source) = if geneve.endpoints.is_empty() {
            (quoted(DEFAULT_ZONE), "no endpoint is named")
        } else {
            (
                quoted(GeneveConfig::REFUSE),
                "the endpoints that may send are named",
            )
        };
        let unknown = quoted(geneve.unknown_zone().unwrap_or(GeneveConfig::REFUSE));
        values.setting("geneve.unknown_endpoints", unknown, &unset, source);
        for (id, zone) in &geneve.endpoints {
            values.entry(format!("geneve.endpoints.{}", key_segment(id)), quoted(zone));
        }
        values.setting(
            "geneve.max_endpoints",
            geneve.max_endpoints.to_string(),
            &default.max_endpoints.to_string(),
            "48 KiB of counters for each worker",
        );
        values.setting(
            "geneve.max_tunnel_ends",
            geneve.max_tunnel_ends.to_string(),
            &default.max_tunnel_ends.to_string(),
            "1 MiB",
        );
        let names = |fields: &[MetadataField]| {
            quoted_list(&fields.iter().map(|field| field.name()).collect::<Vec<_>>())
        };
        values.setting(
            "geneve.required",
            names(geneve.required_in_force()),
            &names(geneve.provider.required()),
            "what the provider always sends",
        );
        values.setting(
            "geneve.inner_mtu",
            geneve.inner_mtu.to_string(),
            &default.inner_mtu.to_string(),
            "GWLB's",
        );
        values.setting(
            "geneve.mss_clamp",
            geneve.mss_clamp.to_string(),
            &default.mss_clamp.to_string(),
            "allowed packets leave untouched",
        );
        let default = RunConfig::default();
        values.setting(
            "run.workers",
            self.run.workers.to_string(),
            &default.workers.to_string(),
            "one for each processor",
        );
        values.setting(
            "run.pin",
            self.run.pin.to_string(),
            &default.pin.to_string(),
            "the scheduler knows better",
        );
        values.setting(
            "run.receive_queue",
            self.run.receive_queue.to_string(),
            &default.receive_queue.to_string(),
            "some 10 ms at 3 GB/s",
        );
        values.setting(
            "run.coalesce",
            quoted(humantime::format_duration(self.run.coalesce).to_string()),
            &quoted(humantime::format_duration(default.coalesce).to_string()),
            "as network interfaces do",
        );
        values.setting(
            "run.queue_delay",
            quoted(humantime::format_duration(self.run.queue_delay).to_string()),
            &quoted(humantime::format_duration(default.queue_delay).to_string()),
            "late packets help nobody",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::from_toml(text, "t.toml").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_error_names_the_key_and_what_it_may_be() {
        let rows = [
            (
                "[geneve]\nlisten = []",
                "t.toml:2: geneve.listen: a list of 0 is out of bounds: 1 to 64 addresses",
            ),
            (
                "[geneve]\nlisten = \"::1\"",
                "t.toml:2: geneve.listen: `::1` is no IPv4 address",
            ),
            (
                "[geneve]\nlisten = [\"10.0.0.1\", \"10.0.0.1\"]",
                "t.toml:2: geneve.listen[1]: 10.0.0.1 is listened at already",
            ),
            (
                "[geneve]\nlisten = [\"0.0.0.0\", \"10.0.0.1\"]",
                "t.toml:2: geneve.listen[1]: 10.0.0.1 is listened at already",
            ),
            (
                "[geneve]\nsources = [\"10.0.0.0/8\", \"fd00::/8\"]",
                "t.toml:2: geneve.sources[1]: fd00::/8 is no IPv4 prefix, and tunnels are IPv4",
            ),
            (
                "[geneve]\nsources = \"10.0.0.1/8\"",
                "t.toml:2: geneve.sources: 10.0.0.1/8 has host bits set: the network is 10.0.0.0/8",
            ),
            (
                "[geneve.endpoints]\n\"0x12345678901234567\" = \"default\"",
                "t.toml:2: geneve.endpoints.0x12345678901234567: `0x12345678901234567` is no endpoint id: 1 to 16 hexadecimal \
                 digits behind `0x`",
            ),
            (
                "[geneve.endpoints]\nvpce = \"default\"",
                "t.toml:2: geneve.endpoints.vpce: `vpce` is no endpoint id: 1 to 16 hexadecimal digits behind `0x`",
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
                "t.toml:2: geneve.unknown_endpoints: there is no zone `blue`: the zones are default",
            ),
            (
                "[geneve]\nmax_endpoints = 0",
                "t.toml:2: geneve.max_endpoints: 0 is out of bounds: 1 to 65535",
            ),
            (
                "[geneve]\nmax_endpoints = 1\n[geneve.endpoints]\n0x1 = \"default\"\n0x2 = \"default\"",
                "t.toml:2: geneve.max_endpoints: 1 is out of bounds: at least 2, as many as geneve.endpoints has",
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
                "t.toml:2: geneve.mss_clamp: 63 is out of bounds: 0, or 64 to 65495",
            ),
            (
                "[geneve]\nprovider = \"azure\"",
                "t.toml:2: geneve.provider: unknown variant `azure`, expected one of `gwlb`, `gcp`, `tencent`",
            ),
            (
                "[geneve]\nprovider = \"gcp\"\nrequired = [\"cookie\"]",
                "t.toml:3: geneve.required: `cookie` cannot be required: packets of `gcp` have none",
            ),
            (
                "[run]\nworkers = 257",
                "t.toml:2: run.workers: 257 is out of bounds: 0 to 256",
            ),
            (
                "[run]\nreceive_queue = 1",
                "t.toml:2: run.receive_queue: 1 is out of bounds: 65536 to 1073741824",
            ),
            (
                "[run]\ncoalesce = \"2ms\"",
                "t.toml:2: run.coalesce: 2ms is out of bounds: 0s to 1ms",
            ),
            (
                "[run]\nqueue_delay = \"100us\"",
                "t.toml:2: run.queue_delay: 100us is out of bounds: 1ms to 10s",
            ),
            (
                "[run]\nqueue_delay = \"11s\"",
                "t.toml:2: run.queue_delay: 11s is out of bounds: 1ms to 10s",
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
        let both = "[zones]\nblue = 1\n[geneve]\nunknown_endpoints = \"blue\"\nendpoints.0x1 = \"default\"";
        assert_eq!(parse(both).geneve.unknown_zone(), Some("blue"));
        let refused = "[geneve]\nunknown_endpoints = \"refuse\"";
        assert_eq!(parse(refused).geneve.unknown_zone(), None);
    }

    #[test]
    fn what_threads_and_sockets_are_made_of_needs_a_start() {
        let running = parse("");
        let change = |text: &str| {
            parse(text)
                .check_running(&running)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            change(
                "[geneve]\ninner_mtu = 1500\nmss_clamp = 1400\nsources = []\n[geneve.endpoints]\n0x1 = \"default\""
            ),
            Ok(())
        );
        for (text, key) in [
            ("[geneve]\nprovider = \"tencent\"", "geneve.provider"),
            ("[geneve]\nlisten = \"10.0.0.1\"", "geneve.listen"),
            ("[geneve]\nmax_endpoints = 7", "geneve.max_endpoints"),
            ("[run]\nworkers = 2", "run.workers"),
            ("[run]\npin = true", "run.pin"),
            ("[run]\nqueue_delay = 0", "run.queue_delay"),
        ] {
            assert_eq!(
                change(text),
                Err(format!("t.toml:2: {key}: only a start can change this"))
            );
        }
    }
}
