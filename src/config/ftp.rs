//! `[ftp]`: the helper of FTP.
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::values;
use crate::alg::ftp::{ActiveOpening, CONTROL_PORT, Settings};

/// `[ftp]`: which sessions are control sessions of FTP, and what they may announce.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtpConfig {
    /// The ports of servers; none turns the helper off.
    pub ports: Vec<u16>,
    /// The lowest port that may be announced.
    pub port_floor: u16,
    /// How long an announced session may take to come, 1 s to [`Self::MAX_LIFETIME`].
    #[serde(deserialize_with = "values::scalar")]
    pub lifetime: Duration,
    /// Prefixes of addresses at which data are expected, besides the server's own, if a 227
    /// announces them: those of other hosts. The public address of a server behind NAT need not be
    /// listed.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub passive_addresses: Vec<IpNet>,
    /// Prefixes of addresses that PORT and EPRT may announce in place of the client's own: the
    /// public addresses of clients behind NAT. Data are expected at the client's own.
    #[serde(deserialize_with = "values::list_or_empty")]
    pub active_addresses: Vec<IpNet>,
    /// After how many refused PORT and EPRT a session is not listened to any more; 0 is never.
    pub max_refused: u16,
    /// The port that a server must call from in active mode: 20 by RFC 959; 0, the default, is any.
    pub active_source_port: u16,
    /// Moment from which the data session of PORT and EPRT may come: at the client's command, or
    /// only once the server has agreed to it. The latter is stricter, and breaks with servers that
    /// connect first.
    pub active_opening: ActiveOpening,
    /// The longest line that is read, its end included, in bytes: [`Self::MAX_LINE`]. Servers that
    /// split a longer line into several commands need their own bound here. Longer lines announce
    /// nothing; where a refused announcement ends its session, so do they.
    pub max_line: u32,
    /// Number of bytes of each direction of a control session that are kept ahead of a missing
    /// segment:
    /// [`Self::REORDER_BYTES`]. Where a refused announcement ends its session, this is also how
    /// much may be in flight: more for long listings on long paths, less for less memory.
    pub reorder_bytes: u32,
    /// Number of commands that may wait for their replies, 1 to [`Self::MAX_PIPELINED`]: for
    /// clients that send many at once. Beyond it, no reply announces anything until the client
    /// waits for one.
    pub max_pipelined: u32,
    /// What becomes of a packet with an announcement that is refused. A rule can say otherwise.
    pub refused: RefusedAnnouncement,
    /// How many bytes all control sessions together may take, from [`Self::MIN_MEMORY`]. With
    /// several zones each has a part for certain, and one source leaves some to others. Beyond its
    /// share a control session gives up what waits for missing segments, and one that is new, or
    /// takes too much still, is not listened to.
    pub max_memory: u32,
}

/// What becomes of a packet with an announcement that is refused: of a foreign address, a low port, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RefusedAnnouncement {
    /// The text passes, and nothing is opened.
    #[default]
    Pass,
    /// It is dropped, and its control session ends, with a RST to both ends. So does a session
    /// whose data the helper cannot read whole and in their place, such as lines over
    /// [`FtpConfig::max_line`]; TLS that is not agreed on by AUTH and 234 does not pass either.
    Drop,
}

impl RefusedAnnouncement {
    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// What a rule says of the control sessions that it admits; `[ftp]` holds where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtpHandling {
    /// See [`FtpConfig::ports`]; an empty list turns the helper off.
    pub ports: Option<Vec<u16>>,
    /// See [`FtpConfig::refused`].
    pub refused: Option<RefusedAnnouncement>,
}

impl FtpHandling {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said, as keys with their values.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("ports", self.ports.as_ref().map(|ports| format!("{ports:?}"))),
            (
                "refused",
                self.refused.map(|refused| format!("\"{}\"", refused.name())),
            ),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

impl FtpConfig {
    /// The longest `lifetime`.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

    /// The least `max_memory`: a few control sessions.
    pub const MIN_MEMORY: u32 = 1 << 16;

    /// Bounds of `max_line`.
    pub const MAX_LINE: RangeInclusive<u32> = 128..=65_536;

    /// Bounds of `reorder_bytes`: at least two full segments, at most a window of 1 MiB.
    pub const REORDER_BYTES: RangeInclusive<u32> = 4_096..=1 << 20;

    /// The most that `max_pipelined` may be.
    pub const MAX_PIPELINED: u32 = 1_024;

    /// The sizes, with their keys, values and bounds.
    pub(super) fn sizes(&self) -> [(&'static str, u32, RangeInclusive<u32>); 4] {
        [
            ("ftp.max_line", self.max_line, Self::MAX_LINE),
            ("ftp.reorder_bytes", self.reorder_bytes, Self::REORDER_BYTES),
            ("ftp.max_pipelined", self.max_pipelined, 1..=Self::MAX_PIPELINED),
            ("ftp.max_memory", self.max_memory, Self::MIN_MEMORY..=u32::MAX),
        ]
    }

    /// The settings of the helper.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            port_floor: self.port_floor,
            lifetime: self.lifetime,
            passive_addresses: self.passive_addresses.clone(),
            active_addresses: self.active_addresses.clone(),
            max_refused: self.max_refused,
            active_source_port: (self.active_source_port != 0).then_some(self.active_source_port),
            active_opening: self.active_opening,
            max_line: self.max_line as usize,
            reorder_bytes: self.reorder_bytes as usize,
            max_pipelined: self.max_pipelined as usize,
            ..Settings::default()
        }
    }
}

impl Default for FtpConfig {
    fn default() -> Self {
        let Settings {
            port_floor,
            lifetime,
            max_refused,
            active_opening,
            max_line,
            reorder_bytes,
            max_pipelined,
            ..
        } = Settings::default();
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Self {
            ports: vec![CONTROL_PORT],
            port_floor,
            lifetime,
            passive_addresses: Vec::new(),
            active_addresses: Vec::new(),
            max_refused,
            active_source_port: 0,
            active_opening,
            max_line: number(max_line),
            reorder_bytes: number(reorder_bytes),
            max_pipelined: number(max_pipelined),
            refused: RefusedAnnouncement::default(),
            max_memory: 64 << 20,
        }
    }
}
