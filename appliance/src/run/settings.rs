//! What the appliance itself reads of the configuration file: `[health]`, `[metrics]`, `[log]`, and of `[run]` what is not
//! the engine's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use portcullis::config::{Document, GeneveConfig};
use portcullis::{Config, ConfigError};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Where `portcullis sessions` finds a running appliance, unless said otherwise.
pub(crate) const DEFAULT_CONTROL: &str = "/run/portcullis/control.sock";

/// The appliance's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Of `[run]`: the end, and the control socket.
    pub(crate) run: RunSettings,
    /// `[health]`.
    pub(crate) health: HealthSettings,
    /// `[metrics]`.
    pub(crate) metrics: MetricsSettings,
    /// `[log]`.
    pub(crate) log: LogSettings,
}

impl Settings {
    /// The sections and keys that are the appliance's.
    const KEYS: [&'static str; 8] = [
        "run.drain",
        "run.sessions_file",
        "run.checkpoint",
        "run.max_saved_age",
        "run.control",
        "health",
        "metrics",
        "log",
    ];

    /// Takes the appliance's settings out of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn take(document: &mut Document<'_>) -> Result<Self, ConfigError> {
        let settings: Self = document.take(&Self::KEYS)?;
        if settings.run.checkpoint.0.is_some() && settings.run.sessions_file.is_none() {
            return Err(document.refused(
                "run.checkpoint",
                "checkpoints are saved beside `run.sessions_file`, which is not set",
            ));
        }
        Ok(settings)
    }

    /// The own keys of the section in which the engine has found the key at this path to be unknown.
    pub(crate) fn keys_beside(path: &str) -> impl Iterator<Item = &'static str> {
        let section = path.rsplit_once('.').map(|(section, _)| section.to_owned());
        Self::KEYS
            .into_iter()
            .filter_map(move |key| match (&section, key.rsplit_once('.')) {
                (None, None) => Some(key),
                (Some(wanted), Some((section, key))) if section == wanted => Some(key),
                _ => None,
            })
    }

    /// Replaces every value that only a start can change with the value of `running`, the settings
    /// in force, and returns the keys whose values differed.
    pub(crate) fn keep_running(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        // Where the default is written out, nothing differs.
        if self.run.control_path() != running.run.control_path() {
            kept.push("run.control");
        }
        self.run.control.clone_from(&running.run.control);
        macro_rules! keep {
            ($($section:ident.$key:ident),+ $(,)?) => {
                $(if self.$section.$key != running.$section.$key {
                    self.$section.$key.clone_from(&running.$section.$key);
                    kept.push(concat!(stringify!($section), ".", stringify!($key)));
                })+
            };
        }
        keep!(
            health.listen,
            health.tcp_listen,
            metrics.listen,
            log.output,
            log.format,
            log.sessions,
            log.opened,
            log.denied,
            log.rotate_bytes,
            log.keep,
            log.queue,
            log.account_id,
            log.interface_id,
        );
        kept
    }

    /// Every value in force, a line each, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_deref().map_or("\"off\"".to_owned(), quoted);
        let span = |duration: Duration| format!("\"{}\"", humantime::format_duration(duration));
        let listen = |listen: Listen| format!("\"{listen}\"");
        vec![
            format!("run.drain = {}", span(self.run.drain)),
            format!("run.sessions_file = {}", path(&self.run.sessions_file)),
            format!(
                "run.checkpoint = {}",
                self.run.checkpoint.0.map_or("\"off\"".to_owned(), span)
            ),
            format!("run.max_saved_age = {}", span(self.run.max_saved_age)),
            format!("run.control = {}", path(&self.run.control_path())),
            format!("health.listen = {}", listen(self.health.listen)),
            format!("health.tcp_listen = {}", listen(self.health.tcp_listen)),
            format!("health.full_table = {}", self.health.full_table),
            format!("health.stall = {}", span(self.health.stall)),
            format!("health.failed_reload = \"{}\"", self.health.failed_reload.name()),
            format!("health.sources = {}", prefixes(&self.health.sources)),
            format!("metrics.listen = {}", listen(self.metrics.listen)),
            format!("log.output = {}", quoted(&self.log.output)),
            format!("log.format = \"{}\"", self.log.format.name()),
            format!("log.sessions = \"{}\"", self.log.sessions.name()),
            format!("log.opened = {}", self.log.opened),
            format!("log.denied = \"{}\"", self.log.denied.name()),
            format!("log.rotate_bytes = {}", self.log.rotate_bytes),
            format!("log.keep = {}", self.log.keep),
            format!("log.queue = {}", self.log.queue),
            format!("log.account_id = \"{}\"", self.log.account_id),
            format!("log.interface_id = \"{}\"", self.log.interface_id),
        ]
    }
}

fn prefixes(prefixes: &[IpNet]) -> String {
    let quoted: Vec<_> = prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn quoted(path: impl AsRef<Path>) -> String {
    format!("{:?}", path.as_ref())
}

/// Of `[run]`: the end, saved sessions, and the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunSettings {
    /// For how long packets are served after SIGTERM, while health says 503: at most an hour. Three probes of a load balancer
    /// at their default interval of 10 s, and a little more.
    #[serde(deserialize_with = "drain")]
    pub(crate) drain: Duration,
    /// Where sessions are saved at the end and restored from at the start; not at all if it is missing.
    pub(crate) sessions_file: Option<PathBuf>,
    /// Interval at which sessions are saved beside `sessions_file` while packets flow, for a start
    /// after a crash: `off`, or 1 s to a day.
    pub(crate) checkpoint: Interval,
    /// The age from which on saved sessions are not restored: 1 s to 30 d. Lifetimes go on while
    /// the appliance is away, so an hour leaves few but those of settings with long ones.
    #[serde(deserialize_with = "max_saved_age")]
    pub(crate) max_saved_age: Duration,
    /// The path of the control socket, or `off`; [`DEFAULT_CONTROL`] if it is missing.
    pub(crate) control: Option<PathBuf>,
}

impl RunSettings {
    /// The path of the control socket, if there shall be one.
    pub(crate) fn control_path(&self) -> Option<PathBuf> {
        match &self.control {
            Some(path) if path.as_os_str() == "off" => None,
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(DEFAULT_CONTROL)),
        }
    }
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(35),
            sessions_file: None,
            checkpoint: Interval(None),
            max_saved_age: Duration::from_secs(3_600),
            control: None,
        }
    }
}

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthSettings {
    /// Where HTTP checks are answered, with 200 or 503.
    pub(crate) listen: Listen,
    /// Where TCP checks are answered: the port is open while the appliance is healthy.
    pub(crate) tcp_listen: Listen,
    /// From which fill of the session table on the appliance is unhealthy, in percent: 1 to 100, 0
    /// for never. Only sessions that no new one can evict count. New sessions that find no room
    /// are a reason at any fill, if they are a tenth of all.
    #[serde(deserialize_with = "percent")]
    pub(crate) full_table: u8,
    /// For how long a worker may be still: 100 ms to 5 min.
    #[serde(deserialize_with = "stall")]
    pub(crate) stall: Duration,
    /// What a refused configuration file means.
    pub(crate) failed_reload: FailedReload,
    /// Who may connect to both listeners: addresses and prefixes; empty for everybody. If `/metrics`
    /// is at the same address, it is behind the same list.
    #[serde(deserialize_with = "sources")]
    pub(crate) sources: Vec<IpNet>,
}

impl HealthSettings {
    /// Whether a source address may connect.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.sources.is_empty() || self.sources.iter().any(|prefix| prefix.contains(&address))
    }
}

/// What a refused configuration file means to health, while the old configuration stays in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailedReload {
    /// Nothing: the appliance is as fit as before. A metric and the log show it.
    #[default]
    Ignore,
    /// The appliance is unhealthy until a file is taken over.
    Unhealthy,
}

impl FailedReload {
    const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            listen: Listen(Some(SocketAddr::from(([0, 0, 0, 0], 8080)))),
            tcp_listen: Listen(None),
            full_table: 98,
            stall: Duration::from_secs(2),
            failed_reload: FailedReload::default(),
            sources: Vec::new(),
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSettings {
    /// Where `/metrics` is. If it is the address of `health.listen`, one listener answers both.
    pub(crate) listen: Listen,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: Listen(Some(SocketAddr::from(([127, 0, 0, 1], 9681)))),
        }
    }
}

/// `[log]`: the session log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// `off`, `stdout`, or the path of a file.
    pub(crate) output: PathBuf,
    /// How a line is written.
    pub(crate) format: LogFormat,
    /// Which sessions are logged.
    pub(crate) sessions: Logged,
    /// Is a session's beginning logged too? Only in JSON.
    pub(crate) opened: bool,
    /// Which sessions that the policy denies or rejects are logged, by their first packet.
    pub(crate) denied: LoggedDenied,
    /// How many bytes a file may have before a new one is begun, 4 KiB to 1 TiB; only of a regular file.
    #[serde(deserialize_with = "rotate_bytes")]
    pub(crate) rotate_bytes: u64,
    /// How many old files are kept.
    pub(crate) keep: u16,
    /// How many events may wait for the writer, 16 to 2^22, denied sessions in half of the places at most; what comes beyond is
    /// counted and lost.
    #[serde(deserialize_with = "queue")]
    pub(crate) queue: usize,
    /// The account that lines in AWS' format name: 1 to 64 letters, digits and `-_.:`.
    #[serde(deserialize_with = "log_field")]
    pub(crate) account_id: String,
    /// The network interface that lines in AWS' format name: as `account_id`.
    #[serde(deserialize_with = "log_field")]
    pub(crate) interface_id: String,
}

impl LogSettings {
    /// Whether there is a log.
    pub(crate) fn is_on(&self) -> bool {
        self.output.as_os_str() != "off"
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            output: PathBuf::from("off"),
            format: LogFormat::default(),
            sessions: Logged::default(),
            opened: false,
            denied: LoggedDenied::default(),
            rotate_bytes: 100 << 20,
            keep: 5,
            queue: 65_536,
            account_id: "-".to_owned(),
            interface_id: "-".to_owned(),
        }
    }
}

/// How a line of the session log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// An object of JSON.
    #[default]
    Json,
    /// A VPC flow log record of version 2, one for each direction that has sent.
    AwsVpcFlowV2,
}

impl LogFormat {
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::AwsVpcFlowV2 => "aws_vpc_flow_v2",
        }
    }
}

/// Which sessions are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Logged {
    /// All.
    #[default]
    All,
    /// Those of rules with `log = true`.
    Marked,
}

impl Logged {
    const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Marked => "marked",
        }
    }
}

/// Which sessions that the policy does not admit are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoggedDenied {
    /// None.
    None,
    /// Those of rules with `log = true`.
    #[default]
    Marked,
    /// All, those of the default action included.
    All,
}

impl LoggedDenied {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Marked => "marked",
            Self::All => "all",
        }
    }
}

/// An address to listen at, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no address with a port such as \"0.0.0.0:8080\", nor \"off\""
            ))
        })
    }
}

/// An interval, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = DurationValue::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected a duration such as \"30s\", or \"off\""))?;
        if matches!(&value, DurationValue::Text(text) if text == "off") {
            return Ok(Self(None));
        }
        value
            .within((1_000, 86_400_000))
            .map(|interval| Self(Some(interval)))
    }
}

/// A duration as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum DurationValue {
    Seconds(u64),
    Text(String),
}

impl DurationValue {
    /// Returns the duration, which must be within bounds in milliseconds.
    fn within<E: Error>(self, (low, high): (u64, u64)) -> Result<Duration, E> {
        let duration = match self {
            Self::Seconds(seconds) => Duration::from_secs(seconds),
            Self::Text(text) => humantime::parse_duration(&text)
                .map_err(|error| E::custom(format!("`{text}` is no duration: {error}")))?,
        };
        let (low, high) = (Duration::from_millis(low), Duration::from_millis(high));
        if (low..=high).contains(&duration) {
            return Ok(duration);
        }
        let [value, low, high] = [duration, low, high].map(humantime::format_duration);
        Err(E::custom(format!("{value} is out of bounds: {low} to {high}")))
    }
}

fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    (low, high): (u64, u64),
) -> Result<Duration, D::Error> {
    match DurationValue::deserialize(deserializer) {
        Ok(value) => value.within((low, high)),
        Err(_) => Err(D::Error::custom(
            "expected a duration such as \"30s\", or whole seconds",
        )),
    }
}

fn drain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer, (0, 3_600_000))
}

fn stall<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer, (100, 300_000))
}

fn max_saved_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer, (1_000, 30 * 86_400_000))
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, (low, high): (u64, u64)) -> Result<u64, D::Error> {
    let value = u64::deserialize(deserializer)?;
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(D::Error::custom(format!(
        "{value} is out of bounds: {low} to {high}"
    )))
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    within(deserializer, (0, 100)).map(|value| u8::try_from(value).unwrap_or(100))
}

/// One address or prefix, or a list of them.
fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        One(String),
        Many(Vec<String>),
    }
    let texts = match Value::deserialize(deserializer) {
        Ok(Value::One(text)) => vec![text],
        Ok(Value::Many(texts)) => texts,
        Err(_) => {
            return Err(D::Error::custom(
                "expected a list of addresses or prefixes such as \"10.0.0.0/24\"",
            ));
        }
    };
    let prefix = |text: &String| {
        let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is not an address or a prefix such as \"10.0.0.0/24\""
            ))
        })
    };
    texts.iter().map(prefix).collect()
}

fn rotate_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, (4 << 10, 1 << 40))
}

fn queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    within(deserializer, (16, 1 << 22)).map(|value| usize::try_from(value).unwrap_or(usize::MAX))
}

/// A field of a line whose fields are separated by spaces.
fn log_field<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text);
    }
    Err(D::Error::custom(format!(
        "{text:?} is not 1 to 64 letters, digits and `-_.:`"
    )))
}

/// What is to be said of `[geneve]` to whoever operates an appliance: that nobody has narrowed down whose tunnels are taken.
pub(crate) fn sources_warning(config: &Config) -> Option<String> {
    let who = if config.geneve.sources.is_empty() {
        "empty: whoever reaches the appliance"
    } else if config.geneve.sources == GeneveConfig::default().sources {
        "the default, all of RFC 1918 and RFC 6598: whoever can send from there"
    } else {
        return None;
    };
    Some(format!(
        "geneve.sources is {who} can have packets reflected; in production, name the subnets of the load balancer"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let mut document = Document::parse(text, "f").map_err(|error| error.to_string())?;
        Settings::take(&mut document).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_has_its_default() {
        assert_eq!(read("[table]\nmax_sessions = 9"), Ok(Settings::default()));
        let some = read("[health]\nlisten = \"off\"\n[run]\ndrain = \"5s\"\ncontrol = \"off\"").unwrap();
        assert_eq!(some.health.listen, Listen(None));
        assert_eq!(
            (some.run.drain, some.run.control_path()),
            (Duration::from_secs(5), None)
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, wanted) in [
            (
                "\n[health]\nlisten = \"80\"",
                "f:3: health.listen: `80` is no address",
            ),
            (
                "[health]\nfull_table = 101",
                "f:2: health.full_table: 101 is out of bounds: 0 to 100",
            ),
            (
                "[health]\nstall = \"1ms\"",
                "f:2: health.stall: 1ms is out of bounds: 100ms to 5m",
            ),
            (
                "[health]\nfailed_reload = \"maybe\"",
                "f:2: health.failed_reload: unknown variant `maybe`, expected `ignore` or `unhealthy`",
            ),
            (
                "[health]\nsources = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
                "f:2: health.sources: `10.0.0.0/33` is not an address or a prefix",
            ),
            (
                "[health]\nsources = 7",
                "f:2: health.sources: expected a list of addresses or prefixes",
            ),
            ("[run]\ndrain = \"soon\"", "f:2: run.drain: `soon` is no duration"),
            (
                "[run]\nsessions_file = \"s\"\ncheckpoint = \"10ms\"",
                "f:3: run.checkpoint: 10ms is out of bounds: 1s to 1day",
            ),
            (
                "[run]\nsessions_file = \"s\"\ncheckpoint = \"often\"",
                "f:3: run.checkpoint: `often` is no duration",
            ),
            (
                "[run]\nsessions_file = \"s\"\ncheckpoint = true",
                "f:3: run.checkpoint: expected a duration such as \"30s\", or \"off\"",
            ),
            (
                "[run]\n\ncheckpoint = \"10s\"",
                "f:3: run.checkpoint: checkpoints are saved beside `run.sessions_file`, which is not set",
            ),
            (
                "[run]\nmax_saved_age = 0",
                "f:2: run.max_saved_age: 0s is out of bounds: 1s to 30days",
            ),
            (
                "[log]\nformat = \"xml\"",
                "f:2: log.format: unknown variant `xml`",
            ),
            (
                "[log]\ndenied = \"some\"",
                "f:2: log.denied: unknown variant `some`, expected one of `none`, `marked`, `all`",
            ),
            ("[log]\nfile = \"x\"", "f:2: log.file: unknown field `file`"),
            (
                "[log]\naccount_id = \"1 2\"",
                "f:2: log.account_id: \"1 2\" is not 1 to 64 letters, digits",
            ),
            ("[log]\ninterface_id = \"\"", "f:2: log.interface_id: \"\" is not"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn every_setting_is_told() {
        let lines = read("[log]\naccount_id = \"123456789012\"").unwrap().lines();
        for wanted in ["log.account_id = \"123456789012\"", "log.interface_id = \"-\""] {
            assert!(lines.iter().any(|line| line == wanted), "no {wanted}");
        }
    }

    #[test]
    fn checkpoints_are_off_or_have_an_interval() {
        let told = |text: &str| {
            let lines = read(text).unwrap().lines();
            let line = lines.into_iter().find(|line| line.starts_with("run.checkpoint"));
            line.unwrap()
        };
        assert_eq!(told(""), "run.checkpoint = \"off\"");
        assert_eq!(told("run.checkpoint = \"off\""), "run.checkpoint = \"off\"");
        for (value, wanted) in [("\"30s\"", "30s"), ("90", "1m 30s")] {
            let text = format!("[run]\nsessions_file = \"s\"\ncheckpoint = {value}");
            assert_eq!(told(&text), format!("run.checkpoint = \"{wanted}\""));
        }
    }

    #[test]
    fn sources_that_nobody_has_narrowed_down_are_a_warning() {
        let warning = |text: &str| {
            let config = Document::parse(text, "f").unwrap().config().unwrap();
            sources_warning(&config)
        };
        assert!(warning("").unwrap().contains("is the default"));
        assert!(warning("geneve.sources = []").unwrap().contains("is empty"));
        assert_eq!(warning("geneve.sources = \"10.1.0.0/24\""), None);
    }

    #[test]
    fn what_only_a_start_can_change_keeps_its_running_value_and_is_named() {
        fn of(text: &str) -> Settings {
            read(text).unwrap()
        }
        let default = Settings::default();
        let mut settings = of("[health]\nstall = 9\nsources = \"10.0.0.1\"\n[run]\ndrain = 1");
        let new = settings.clone();
        assert_eq!(settings.keep_running(&default), [""; 0]);
        assert_eq!(settings, new);
        for (text, key) in [
            ("run.control = \"off\"", "run.control"),
            ("health.listen = \"off\"", "health.listen"),
            ("health.tcp_listen = \"10.0.0.1:1\"", "health.tcp_listen"),
            ("metrics.listen = \"off\"", "metrics.listen"),
            ("log.output = \"stdout\"", "log.output"),
            ("log.format = \"aws_vpc_flow_v2\"", "log.format"),
            ("log.sessions = \"marked\"", "log.sessions"),
            ("log.opened = true", "log.opened"),
            ("log.denied = \"all\"", "log.denied"),
            ("log.rotate_bytes = 5_000", "log.rotate_bytes"),
            ("log.keep = 9", "log.keep"),
            ("log.queue = 16", "log.queue"),
            ("log.account_id = \"1\"", "log.account_id"),
            ("log.interface_id = \"1\"", "log.interface_id"),
        ] {
            let text = format!("{text}\nhealth.stall = 9");
            let mut settings = of(&text);
            assert_eq!(settings.keep_running(&default), [key]);
            let rest = of("health.stall = 9");
            assert_eq!(
                settings, rest,
                "{key}: its value is the running one, the rest is new"
            );
        }
        let text = format!("run.control = \"{DEFAULT_CONTROL}\"");
        let mut written = of(&text);
        assert_eq!(
            written.keep_running(&default),
            [""; 0],
            "the default, written out"
        );
    }

    #[test]
    fn sources_are_addresses_and_prefixes_and_an_empty_list_is_everybody() {
        let settings = read("health.sources = [\"10.1.0.0/16\", \"2001:db8::1\"]").unwrap();
        let allows = |address: &str| settings.health.allows(address.parse().unwrap());
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(allows(address), "{address}");
        }
        for address in ["10.2.0.1", "::ffff:10.2.0.1", "2001:db8::2"] {
            assert!(!allows(address), "{address}");
        }
        assert!(Settings::default().health.allows([192, 0, 2, 1].into()));
        let line = "health.sources = [\"10.1.0.0/16\", \"2001:db8::1/128\"]";
        assert!(
            settings.lines().iter().any(|each| each == line),
            "{:?}",
            settings.lines()
        );
    }

    #[test]
    fn denied_sessions_of_marked_rules_are_logged_unless_said_otherwise() {
        let said = |text| {
            let settings = read(text).unwrap();
            let line = settings
                .lines()
                .into_iter()
                .find(|line| line.starts_with("log.denied"));
            (settings.log.denied, line.unwrap())
        };
        for (text, wanted, line) in [
            ("", LoggedDenied::Marked, "log.denied = \"marked\""),
            (
                "log.denied = \"none\"",
                LoggedDenied::None,
                "log.denied = \"none\"",
            ),
            ("log.denied = \"all\"", LoggedDenied::All, "log.denied = \"all\""),
        ] {
            assert_eq!(said(text), (wanted, line.to_owned()));
        }
    }
}
