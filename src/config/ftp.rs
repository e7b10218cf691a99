//! `[ftp]`: settings of the FTP helper.
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::ftp::helper::{ActiveOpening, CONTROL_PORT, Settings};

crate::config_section! {
    /// `[ftp]`: which sessions are control sessions of FTP, and what they may announce.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FtpConfig = "ftp" {
        /// The ports of servers; an empty list turns the helper off.
        ports: Vec<u16> {
            default: vec![CONTROL_PORT], "RFC 959";
        }
        /// The lowest port that may be announced.
        port_floor: u16 {
            default: Settings::default().port_floor, "RFC 2577, section 3";
        }
        /// The time within which an announced session must open.
        lifetime: Duration {
            default: Settings::default().lifetime,
                "Linux; servers with slow storage call a minute after RETR";
            bounds: Duration::from_secs(1)..=Self::MAX_LIFETIME;
        }
        /// Prefixes of addresses at which data are expected, besides the server's own, if a 227
        /// announces them: those of other hosts. The public address of a server behind NAT need not
        /// be listed.
        passive_addresses: Vec<IpNet> {
            default: Vec::new(), "data go to the server that announces them";
        }
        /// Prefixes of addresses that PORT and EPRT may announce in place of the client's own: the
        /// public addresses of clients behind NAT. Data are expected at the client's own.
        active_addresses: Vec<IpNet> {
            default: Vec::new(), "a client announces its own address";
        }
        /// The number of refused PORT and EPRT after which a session announces nothing more; 0 is
        /// no limit.
        max_refused: u16 {
            default: Settings::default().max_refused, "a page in a browser can guess addresses";
            unit: "commands";
        }
        /// The port that a server must call from in active mode: 20 by RFC 959; 0 is any.
        active_source_port: u16 {
            default: 0, "any: servers without privileges cannot call from port 20";
        }
        /// The moment from which the data session of PORT and EPRT may come: at the client's
        /// command, or only once the server has agreed to it. The latter is stricter, and breaks
        /// with servers that connect first.
        active_opening: ActiveOpening {
            default: Settings::default().active_opening,
                "there are servers that connect before they answer";
        }
        /// The longest line that is read, its end included. Servers that split a longer line into
        /// several commands need their own bound here. Longer lines announce nothing; where a
        /// refused announcement ends its session, so do they.
        max_line: u32 {
            default: size(Settings::default().max_line),
                "a path of 4096 bytes whose every byte is a quote";
            bounds: Self::MAX_LINE;
            unit: "bytes";
        }
        /// The number of bytes of each direction of a control session that are kept ahead of a
        /// missing segment. Where a refused announcement ends its session, this is also how much
        /// may be in flight: more for long listings on long paths, less for less memory.
        reorder_bytes: u32 {
            default: size(Settings::default().reorder_bytes), "a window without a scale";
            bounds: Self::REORDER_BYTES;
            unit: "bytes";
        }
        /// The number of commands that may wait for their replies, for clients that send many at
        /// once. Beyond it, no reply announces anything until the client waits for one.
        max_pipelined: u32 {
            default: size(Settings::default().max_pipelined), "most clients send one at a time";
            bounds: 1..=Self::MAX_PIPELINED;
            unit: "commands";
        }
        /// Handling of a packet with an announcement that is refused: `pass` opens nothing, `drop`
        /// ends the control session. A rule can say otherwise.
        refused: RefusedAnnouncement {
            default: RefusedAnnouncement::default(),
                "nothing is opened, and the server answers for itself";
        }
        /// The memory of all control sessions together. With several zones each has a part for
        /// certain, and one source leaves some to others. Beyond its share a control session gives
        /// up what waits for missing segments. One that is new, or still takes too much, is not
        /// inspected.
        max_memory: u32 {
            default: 64 << 20, "64 MiB";
            bounds: Self::MIN_MEMORY..=u32::MAX;
            unit: "bytes";
        }
    }
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Handling of a packet with an announcement that is refused, such as one of a foreign address or a
/// low port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RefusedAnnouncement {
    /// The packet is forwarded, and nothing is opened.
    #[default]
    Pass,
    /// The packet is dropped, and its control session ends, with a RST to both ends.
    ///
    /// The same applies to a session whose data the helper cannot read completely and in order,
    /// such as lines over [`FtpConfig::max_line`]. TLS that was not negotiated by AUTH and 234 is
    /// not allowed either.
    Drop,
}

impl RefusedAnnouncement {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

crate::config_section! {
    /// Handling of the control sessions that a rule admits; `[ftp]` applies to missing keys.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FtpHandling = "" {
        /// The ports of servers; an empty list turns the helper off.
        ports: Option<Vec<u16>> { default: None, "`ftp.ports`"; }
        /// Handling of a packet with an announcement that is refused.
        refused: Option<RefusedAnnouncement> { default: None, "`ftp.refused`"; }
    }
}

impl FtpHandling {
    /// Returns whether no key is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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

    /// The largest `max_pipelined`.
    pub const MAX_PIPELINED: u32 = 1_024;

    /// Returns the settings of the helper.
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

crate::config_table_values!(FtpConfig, FtpHandling);
crate::config_choices!(RefusedAnnouncement [Pass, Drop], ActiveOpening [Command, Reply]);
