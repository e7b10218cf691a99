//! The sections of the configuration file that are the appliance's own: `[run]`, `[health]`,
//! `[metrics]`, `[console]`, `[log]` and `[store]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use portcullis::Config;
use portcullis::config::declare::{Table, print};
use portcullis::config::{Asymmetric, Document, EffectiveValue, GeneveConfig};

mod console;
mod flow_field;
mod log_output;
mod store;
mod values;

#[cfg(test)]
pub(crate) mod page;
#[cfg(test)]
mod tests;

pub(crate) use self::console::ConsoleSettings;
pub(crate) use self::flow_field::FlowField;
pub(crate) use self::log_output::{LogOutput, SyslogTransport};
pub(crate) use self::store::StoreSettings;
pub(crate) use self::values::{
    ControlPath, FailedReload, Interval, Io, Listen, LogFormat, Logged, LoggedDenied, StoredRules,
};

/// The control socket of a running appliance, where `portcullis sessions` connects by default.
pub(crate) const DEFAULT_CONTROL: &str = "/run/portcullis/control.sock";

/// The appliance's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// `[run]`.
    pub(crate) run: RunSettings,
    /// `[health]`.
    pub(crate) health: HealthSettings,
    /// `[metrics]`.
    pub(crate) metrics: MetricsSettings,
    /// `[console]`.
    pub(crate) console: ConsoleSettings,
    /// `[log]`.
    pub(crate) log: LogSettings,
    /// `[store]`.
    pub(crate) store: StoreSettings,
}

impl Settings {
    /// Takes the appliance's settings out of a file. The document keeps their errors.
    pub(crate) fn take(document: &mut Document<'_>) -> Self {
        let settings = Self {
            run: document.section("run"),
            health: document.section("health"),
            metrics: document.section("metrics"),
            console: document.section("console"),
            log: document.section("log"),
            store: document.section("store"),
        };
        settings.console.check(document);
        settings.store.check(document);
        if settings.run.checkpoint.0.is_some() && settings.run.sessions_file.is_none() {
            let why = "checkpoints are saved beside `run.sessions_file`, which is not set";
            document.refuse("run.checkpoint", &["run.sessions_file"], why);
        }
        settings.run.check(document);
        settings.log.check(document);
        settings
    }

    /// Replaces every value that only a start can change with the value of `running`, the settings
    /// in force, and returns the keys whose values differed.
    pub(crate) fn keep_running(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        self.run.keep(&running.run, &mut kept);
        self.health.keep(&running.health, &mut kept);
        self.metrics.keep(&running.metrics, &mut kept);
        self.console.keep(&running.console, &mut kept);
        self.log.keep(&running.log, &mut kept);
        self.store.keep(&running.store, &mut kept);
        kept
    }

    /// Returns every value in force with its origin; `config` is of the same file.
    pub(crate) fn effective(&self, config: &Config) -> Vec<EffectiveValue> {
        let provenance = &config.provenance;
        let mut values = print::values("run", &self.run, provenance);
        values.extend(print::values("health", &self.health, provenance));
        values.extend(print::values("metrics", &self.metrics, provenance));
        values.extend(print::values("console", &self.console, provenance));
        values.extend(print::values("log", &self.log, provenance));
        values.extend(print::values("store", &self.store, provenance));
        values
    }

    /// Returns the sections of the reference page.
    #[cfg(test)]
    pub(crate) fn reference() -> Vec<portcullis::config::SectionReference> {
        use portcullis::config::declare::reference;

        let mut sections = reference::sections::<RunSettings>("run");
        sections.extend(reference::sections::<HealthSettings>("health"));
        sections.extend(reference::sections::<MetricsSettings>("metrics"));
        sections.extend(reference::sections::<ConsoleSettings>("console"));
        sections.extend(reference::sections::<LogSettings>("log"));
        sections.extend(reference::sections::<StoreSettings>("store"));
        sections
    }
}

portcullis::config_section! {
    /// `[run]`: the threads of the appliance, its end, saved sessions, and the control socket.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct RunSettings = "run" {
        /// The number of threads that receive, decide and send; 0 is one for each processor.
        workers: u32 {
            default: 0, "one for each processor";
            bounds: 0..=RunSettings::MAX_WORKERS;
            unit: "threads";
            restart: true;
        }
        /// Whether each of them is bound to a processor.
        pin: bool {
            default: false, "the scheduler balances load";
            restart: true;
        }
        /// The path of packets: through the system's sockets, or past them with AF_XDP, which
        /// costs less for each packet ([AF_XDP](XDP.md)). `auto` uses sockets where AF_XDP cannot
        /// be used, and says why; `af_xdp` does not start there.
        io: Io {
            default: Io::default(), "AF_XDP needs more capabilities, and interrupts some drivers";
            restart: true;
        }
        /// The network interfaces of AF_XDP.
        interfaces: Vec<String> {
            default: Vec::new(),
                "those with an address of `geneve.listen`; of 0.0.0.0, the only Ethernet interface";
            limit: "at most 16 names of 1 to 15 characters";
            restart: true;
        }
        /// The size of the receive queue that each worker asks the system for.
        receive_queue: u32 {
            default: 32 << 20, "some 10 ms at 3 GB/s";
            bounds: 64 << 10..=1 << 30;
            unit: "bytes";
            restart: true;
        }
        /// The time that a worker under load rests after a small batch, so that the next one is
        /// larger: network interfaces call this interrupt moderation. Packets wait no longer than
        /// that and what the system's timers add, some 50 us. 0 is never.
        coalesce: Duration {
            default: Duration::from_micros(50), "as network interfaces do";
            bounds: Duration::ZERO..=Duration::from_millis(1);
            restart: true;
        }
        /// The longest time that a datagram may have waited in the receive queue when a worker
        /// reads it: older ones are refused (`queue_delay`). From a quarter of this time, a packet
        /// that would open a session is dropped (`overload`), so that packets of sessions come
        /// first. A SYN is not dropped, unless SYNs are the flood. 0 is no bound. AF_XDP refuses
        /// no datagram for its age, since its frames have no time of arrival: a ring of at most
        /// 2,048 frames bounds their wait.
        queue_delay: Duration {
            default: Duration::from_millis(10), "late packets help nobody";
            bounds: Duration::from_millis(1)..=Duration::from_secs(10);
            or_zero: true;
            restart: true;
        }
        /// The time for which packets are served after SIGTERM, while health checks get 503.
        drain: Duration {
            default: Duration::from_secs(35),
                "three probes at a balancer's 10 s, and a little more";
            bounds: Duration::ZERO..=Duration::from_secs(3_600);
        }
        /// The file in which sessions are saved at the end, and from which a start restores them.
        sessions_file: Option<PathBuf> {
            default: None, "sessions are not saved";
        }
        /// The interval at which sessions are saved beside `sessions_file` while packets flow, for
        /// a start after a crash; or `off`.
        checkpoint: Interval {
            default: Interval(None), "needs `sessions_file`";
            bounds: Duration::from_secs(1)..=Duration::from_secs(86_400);
        }
        /// The age from which saved sessions are not restored. Lifetimes continue while the
        /// appliance is down, so an hour leaves few except those of settings with long ones.
        max_saved_age: Duration {
            default: Duration::from_secs(3_600), "few lifetimes are longer";
            bounds: Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
        }
        /// The path of the control socket, or `off`.
        control: ControlPath {
            default: ControlPath::default(), "where `portcullis sessions` connects";
            restart: true;
        }
    }
}

impl RunSettings {
    /// The largest number of workers.
    pub(crate) const MAX_WORKERS: u32 = 256;
    /// The largest number of interfaces.
    const MAX_INTERFACES: usize = 16;

    /// Returns the path of the control socket, if there is one.
    pub(crate) fn control_path(&self) -> Option<PathBuf> {
        self.control.path.clone()
    }

    /// Adds what is wrong with the names of interfaces to the document.
    fn check(&self, document: &mut Document<'_>) {
        // The kernel's rules (`dev_valid_name`); at most 15 bytes.
        let is_name = |name: &String| {
            let fits = |c: char| !c.is_whitespace() && c != '/' && c != ':';
            (1..=15).contains(&name.len())
                && name.chars().all(fits)
                && !matches!(name.as_str(), "." | "..")
        };
        if let Some(name) = self.interfaces.iter().find(|name| !is_name(name)) {
            let why = format!("{name:?} is not the name of a network interface");
            document.refuse("run.interfaces", &[], &why);
        }
        if self.interfaces.len() > Self::MAX_INTERFACES {
            let why = format!("{} names are more than 16", self.interfaces.len());
            document.refuse("run.interfaces", &[], &why);
        }
    }
}

portcullis::config_section! {
    /// `[health]`: the answers to health checks of the load balancer.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct HealthSettings = "health" {
        /// The address where HTTP checks are answered, with 200 or 503; or `off`.
        listen: Listen {
            default: Listen(Some(SocketAddr::from(([0, 0, 0, 0], 8080)))), "every address";
            restart: true;
        }
        /// The address where TCP checks are answered: the port is open while the appliance is
        /// healthy; or `off`.
        tcp_listen: Listen {
            default: Listen(None), "one kind of check is enough";
            restart: true;
        }
        /// The share of the session table from which the appliance is unhealthy; 0 is never. Only
        /// sessions that no new one can evict count. At any share, the appliance is unhealthy if a
        /// tenth of all new sessions find no room.
        full_table: u8 {
            default: 98, "a full table refuses sessions";
            bounds: 0..=100;
            unit: "percent";
        }
        /// The time without progress of a worker from which the appliance is unhealthy.
        stall: Duration {
            default: Duration::from_secs(2), "far above any wait of a healthy worker";
            bounds: Duration::from_millis(100)..=Duration::from_secs(300);
        }
        /// The effect of a refused configuration file on health, while the running configuration
        /// stays in force: `unhealthy` lasts until a file is accepted.
        failed_reload: FailedReload {
            default: FailedReload::default(), "the appliance works as before";
        }
        /// Whether the appliance is unhealthy while `log.fail_closed` keeps new sessions out. The
        /// outage of a receiver that all appliances share makes all unhealthy: `false` leaves flows
        /// where they are.
        log_unavailable: bool {
            default: true, "another appliance may have a log that works";
        }
        /// Addresses and prefixes that may connect to both listeners; an empty list is every
        /// address. If `/metrics` is at the same address, the list applies to it too.
        sources: Vec<IpNet> {
            default: Vec::new(), "every address";
        }
    }
}

impl HealthSettings {
    /// Returns whether a source address may connect.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.sources.is_empty() || self.sources.iter().any(|prefix| prefix.contains(&address))
    }
}

portcullis::config_section! {
    /// `[metrics]`: the page for Prometheus.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct MetricsSettings = "metrics" {
        /// The address of `/metrics`, or `off`. If it is that of `health.listen`, one listener
        /// answers both.
        listen: Listen {
            default: Listen(Some(SocketAddr::from(([127, 0, 0, 1], 9681)))), "this host alone";
            restart: true;
        }
    }
}

portcullis::config_section! {
    /// `[log]`: the session log.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct LogSettings = "log" {
        /// `off`, `stdout`, the path of a file, or a receiver: `syslog+udp://host:port`,
        /// `syslog+tcp://host:port`, `syslog+tls://host:port` or `ipfix://host:port`.
        output: LogOutput {
            default: LogOutput::Off, "metrics count sessions";
            restart: true;
        }
        /// The format of a line; `ipfix://` has its own. See [the session log](LOG.md).
        format: LogFormat {
            default: LogFormat::default(), "it has every field";
            restart: true;
        }
        /// The name of this appliance in lines: letters, digits and `-_.:`.
        host: Option<String> {
            default: None, "the name of the host";
            limit: "1 to 64 characters";
            restart: true;
        }
        /// The file of certificates (PEM) that sign that of a `syslog+tls` receiver.
        ca: Option<PathBuf> {
            default: None, "those of the system";
            restart: true;
        }
        /// The sessions that are logged: all, or those of rules with `log = true`.
        sessions: Logged {
            default: Logged::default(), "a log without gaps";
            restart: true;
        }
        /// Whether the beginning of a session is logged too; only in the formats `json` and `ecs`.
        opened: bool {
            default: false, "the end has every field of the beginning";
            restart: true;
        }
        /// The interval at which a live session has another line, so that long sessions are seen
        /// before they end; or `off`. Only in the formats `json`, `ecs` and `aws_vpc_flow`, whose
        /// lines have the traffic since the one before: its aggregation interval.
        interim: Interval {
            default: Interval(None), "most sessions are short";
            bounds: Duration::from_secs(1)..=Duration::from_secs(86_400);
            restart: true;
        }
        /// The denied and rejected sessions that are logged, by their first packet: `marked` are
        /// those of rules with `log = true`, `all` includes those of the default action.
        denied: LoggedDenied {
            default: LoggedDenied::default(), "a scan would fill the log";
            restart: true;
        }
        /// The packets that all workers together may log in a second because they were dropped,
        /// rejected or refused for another reason than the policy; 0 is none. A flood of one
        /// reason gets half. Outside this number, each worker logs the first packet of each reason.
        /// Further packets are counted. See [the session log](LOG.md).
        drops: u32 {
            default: 0, "the metrics count drops by reason, and `portcullis observe` shows them";
            bounds: 16..=1_000;
            unit: "packets a second";
            or_zero: true;
            restart: true;
        }
        /// The size at which a new file is begun; only of a regular file.
        rotate_bytes: u64 {
            default: 100 << 20, "100 MiB";
            bounds: 4 << 10..=1 << 40;
            unit: "bytes";
            restart: true;
        }
        /// The number of old files that are kept.
        keep: u16 {
            default: 5, "half a gigabyte with the file in use";
            unit: "files";
            restart: true;
        }
        /// The number of events that may wait for the writer, denied sessions in a quarter of the
        /// slots at most; further ones are counted and lost.
        queue: usize {
            default: 65_536, "a slow disk for a second";
            bounds: 16..=1 << 22;
            unit: "events";
            restart: true;
        }
        /// Whether no new session is admitted (`log_unavailable`) while the log cannot be written,
        /// for those who must not forward what they cannot log. Sessions that exist go on. See [the
        /// session log](LOG.md#fail-closed) for what a receiver over UDP means.
        fail_closed: bool {
            default: false, "traffic matters more than its log";
            restart: true;
        }
        /// The fields of the AWS format, as AWS writes a custom format: those of versions 2 to 5.
        fields: String {
            default: FlowField::VERSION_2.to_owned(), "AWS's default";
            restart: true;
        }
        /// The account in lines of the AWS format: letters, digits and `-_.:`.
        account_id: String {
            default: "-".to_owned(), "unknown";
            limit: "1 to 64 characters";
            restart: true;
        }
        /// The network interface in lines of the AWS format: as `account_id`.
        interface_id: String {
            default: "-".to_owned(), "unknown";
            limit: "1 to 64 characters";
            restart: true;
        }
    }
}

impl LogSettings {
    /// Returns whether there is a log.
    pub(crate) fn is_on(&self) -> bool {
        self.output != LogOutput::Off
    }

    /// Returns the interval of the lines of a live session, if there are any.
    pub(crate) fn interim(&self) -> Option<Duration> {
        self.interim.0.filter(|_| self.format.has_interim())
    }

    /// Returns whether packets whose addresses cannot be read have lines.
    pub(crate) const fn records_unreadable(&self) -> bool {
        matches!(self.format, LogFormat::Json) && !matches!(self.output, LogOutput::Ipfix(_))
    }

    /// Returns the name of this appliance in lines.
    pub(crate) fn host(&self) -> String {
        self.host.clone().unwrap_or_else(|| {
            let name = nix::unistd::gethostname().ok();
            let name = name.and_then(|name| name.into_string().ok());
            name.filter(|name| values::is_log_field(name))
                .unwrap_or_else(|| "-".to_owned())
        })
    }

    /// Adds what is wrong with the section to the document.
    fn check(&self, document: &mut Document<'_>) {
        for (key, text) in [
            ("log.account_id", Some(&self.account_id)),
            ("log.interface_id", Some(&self.interface_id)),
            ("log.host", self.host.as_ref()),
        ] {
            if let Some(text) = text.filter(|text| !values::is_log_field(text)) {
                let why = format!("{text:?} is not 1 to 64 letters, digits and `-_.:`");
                document.refuse(key, &[], &why);
            }
        }
        if matches!(self.output, LogOutput::Ipfix(_)) && self.format != LogFormat::default() {
            let why = "an `ipfix://` output has a format of its own";
            document.refuse("log.format", &["log.output"], why);
        }
        if self.fail_closed && !self.is_on() {
            let why = "without a `log.output`, no session would ever be admitted";
            document.refuse("log.fail_closed", &["log.output"], why);
        }
        if let Err(why) = FlowField::list(&self.fields) {
            document.refuse("log.fields", &[], &why);
        }
    }
}

/// Returns all warnings about a configuration, except for those about memory.
pub(crate) fn warnings(config: &Config, settings: &Settings) -> Vec<String> {
    let mut warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    warnings.extend(stored_rules_warning(config, &settings.store));
    warnings.extend(default_warnings(config));
    warnings.extend(sources_warning(config));
    if settings.log.fail_closed {
        warnings.extend(fail_closed_warnings(config).into_iter().flatten());
    }
    warnings
}

/// Returns warnings about settings that weaken `log.fail_closed`.
fn fail_closed_warnings(config: &Config) -> [Option<String>; 2] {
    let has_no_limit = config.limits.new_per_second_per_source.is_none();
    let rules = config.policy.rules.iter().map(|rule| &rule.tcp);
    let reports = config.tcp.asymmetric == Asymmetric::Report
        || rules
            .chain(config.tcp.zones.values())
            .any(|tcp| tcp.asymmetric == Some(Asymmetric::Report));
    [
        has_no_limit.then(|| {
            "log.fail_closed is set, and limits.new_per_second_per_source is not: one source can \
             fill the queue of the log, and new sessions of all others are refused"
                .to_owned()
        }),
        reports.then(|| {
            "log.fail_closed is set, and tcp.asymmetric is \"report\" for some packets: they are \
             forwarded without a session, and so without a line in the log"
                .to_owned()
        }),
    ]
}

/// Returns a warning if the store has the sessions of resilient rules, and no rule is one.
fn stored_rules_warning(config: &Config, store: &StoreSettings) -> Option<String> {
    let is_empty = store.is_on()
        && store.rules == StoredRules::Resilient
        && !config.policy.rules.iter().any(|rule| rule.resilient);
    is_empty.then(|| {
        "store.rules is \"resilient\" and no rule has `resilient = true`: no session is stored"
            .to_owned()
    })
}

/// Returns a warning if `geneve.sources` is not narrowed down to the subnets of the load balancer.
fn sources_warning(config: &Config) -> Option<String> {
    let who = if config.geneve.sources.is_empty() {
        "empty: whoever reaches the appliance"
    } else if config.geneve.sources == GeneveConfig::default().sources {
        "the default, all of RFC 1918 and RFC 6598: whoever can send from there"
    } else {
        return None;
    };
    Some(format!(
        "geneve.sources is {who} can have packets reflected; in production, name the subnets of \
         the \
         load balancer"
    ))
}

/// Returns a warning for each default action that allows sessions that no rule names.
pub(crate) fn default_warnings(config: &Config) -> Vec<String> {
    let zones = config.policy.zones.iter();
    let zones = zones.map(|(zone, action)| (format!("policy.zones.{zone}"), *action));
    zones
        .chain(std::iter::once((
            "policy.default".to_owned(),
            config.policy.default,
        )))
        .filter(|(_, action)| action.admits())
        .map(|(key, action)| {
            format!("{key} is \"{action}\": sessions that no rule names pass; \"deny\" drops them")
        })
        .collect()
}
