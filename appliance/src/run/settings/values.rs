//! Types of the appliance's settings.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use portcullis::config::declare::{Scalar, Wrong};

use super::DEFAULT_CONTROL;

/// The word that switches a part off.
pub(super) const OFF: &str = "off";

/// Effect of a refused configuration file on health, while the running configuration stays in
/// force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FailedReload {
    /// None: the appliance works as before. A metric and the log show the refusal.
    #[default]
    Ignore,
    /// The appliance is unhealthy until a file is accepted.
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

/// Path of packets between the network interface and the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Io {
    /// AF_XDP where it can be used, else sockets.
    Auto,
    /// Sockets.
    #[default]
    Socket,
    /// AF_XDP; a start fails where it cannot be used.
    AfXdp,
}

impl Io {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Socket => "socket",
            Self::AfXdp => "af_xdp",
        }
    }
}

/// Format of a line of the session log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    /// An object of JSON.
    #[default]
    Json,
    /// Rows of Zeek's `conn.log`.
    Zeek,
    /// Rows of Zeek's `conn.log` as objects of JSON.
    ZeekJson,
    /// Records of Suricata's EVE.
    Eve,
    /// Documents of the Elastic Common Schema.
    Ecs,
    /// VPC flow log records, one for each direction that has sent.
    AwsVpcFlow,
}

impl LogFormat {
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Zeek => "zeek",
            Self::ZeekJson => "zeek_json",
            Self::Eve => "eve",
            Self::Ecs => "ecs",
            Self::AwsVpcFlow => "aws_vpc_flow",
        }
    }

    /// Returns whether the format has lines for the beginning of a session.
    pub(crate) const fn has_opened(self) -> bool {
        matches!(self, Self::Json | Self::Ecs)
    }

    /// Returns whether the format has lines for a session that lives on.
    pub(crate) const fn has_interim(self) -> bool {
        matches!(self, Self::Json | Self::Ecs | Self::AwsVpcFlow)
    }
}

/// Rules whose sessions are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum StoredRules {
    /// All rules.
    #[default]
    All,
    /// Rules with `resilient = true`.
    Resilient,
}

impl StoredRules {
    const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Resilient => "resilient",
        }
    }
}

/// Sessions that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Logged {
    /// All sessions.
    #[default]
    All,
    /// Sessions of rules with `log = true`.
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

/// Sessions that are logged although the policy does not admit them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LoggedDenied {
    /// None.
    None,
    /// Sessions of rules with `log = true`.
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

portcullis::config_choices! {
    FailedReload [Ignore, Unhealthy],
    Io [Auto, Socket, AfXdp],
    LogFormat [Json, Zeek, ZeekJson, Eve, Ecs, AwsVpcFlow],
    StoredRules [All, Resilient],
    Logged [All, Marked],
    LoggedDenied [None, Marked, All],
}

/// An address to listen at, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str(OFF),
        }
    }
}

impl Scalar for Listen {
    type Bound = ();

    const EXPECTED: &'static str = "an address with a port such as \"0.0.0.0:8080\", or \"off\"";

    fn kind() -> String {
        "address with a port, or `\"off\"`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text == OFF {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| {
                let why = format!(
                    "`{text}` is not an address with a port such as \"0.0.0.0:8080\", nor \"off\""
                );
                why.into()
            })
    }

    fn written(&self) -> String {
        format!("\"{self}\"")
    }
}

/// An interval, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

impl Scalar for Interval {
    type Bound = Duration;

    const EXPECTED: &'static str = "a duration such as \"30s\", or \"off\"";

    fn kind() -> String {
        "duration, or `\"off\"`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        match text {
            OFF => Ok(Self(None)),
            _ => Duration::from_text(text).map(|interval| Self(Some(interval))),
        }
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        Duration::from_integer(number).map(|interval| Self(Some(interval)))
    }

    fn written(&self) -> String {
        self.0
            .map_or_else(|| format!("\"{OFF}\""), |interval| interval.written())
    }

    fn measured(&self) -> Option<Duration> {
        self.0
    }
}

/// The path of the control socket, or `off`.
#[derive(Debug, Clone, Eq)]
pub(crate) struct ControlPath {
    pub(super) path: Option<PathBuf>,
    /// Whether the file has the key. A socket that it asks for must be there.
    pub(crate) is_asked_for: bool,
}

impl Default for ControlPath {
    fn default() -> Self {
        Self {
            path: Some(DEFAULT_CONTROL.into()),
            is_asked_for: false,
        }
    }
}

/// Compares the paths in force: a default that is written out equals one that is not.
impl PartialEq for ControlPath {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Scalar for ControlPath {
    type Bound = ();

    const EXPECTED: &'static str = "a path, or \"off\"";

    fn kind() -> String {
        "path, or `\"off\"`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(Self {
            path: (text != OFF).then(|| text.into()),
            is_asked_for: true,
        })
    }

    fn written(&self) -> String {
        self.path.clone().unwrap_or_else(|| OFF.into()).written()
    }
}

/// A secret, which is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secret(pub(crate) Option<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "hidden" } else { "none" })
    }
}

impl Scalar for Secret {
    type Bound = ();

    const EXPECTED: &'static str = "a string";

    fn kind() -> String {
        "string, which is not shown".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        Ok(Self(Some(text.to_owned())))
    }

    fn written(&self) -> String {
        let text = if self.0.is_some() { "\"(hidden)\"" } else { "" };
        text.to_owned()
    }
}

/// Returns whether a text can be a field of a line whose fields are separated by spaces.
pub(super) fn is_log_field(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}
