//! Settings of the FTP helper.

use core::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::flow::Direction;
use crate::ftp::stream::Limits;
use crate::ftp::{Expectation, SessionEnds};
use crate::packet::PROTOCOL_TCP;
use crate::policy::address::AddressMap;

/// Moment at which the expectation of PORT and EPRT opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActiveOpening {
    /// After the client's command was read, as in Linux. The server's refusal withdraws it. The
    /// default, because there are servers (pyftpdlib) that connect as soon as they have read the
    /// command and answer 200 when they are connected: waiting for the answer would drop their SYN,
    /// and the answer would not come.
    #[default]
    Command,
    /// After the server has answered 2xx. Stricter; for servers known to connect only at the
    /// transfer command.
    Reply,
}

impl ActiveOpening {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Reply => "reply",
        }
    }
}

/// The settings of the helper of FTP. All sizes hold for each control session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The longest line, its end included, in bytes: 8192 by default. RFC 959 names no limit; paths
    /// have 4096 bytes on Linux, and a reply doubles the quotes in one (RFC 959, appendix II). A
    /// longer command or reply announces nothing.
    pub max_line: usize,
    /// Number of bytes that are kept for each direction ahead of a hole, and, where no byte may
    /// pass unread, until they are acknowledged: 65,536 by default, the most that a window without
    /// a scale has in flight.
    pub reorder_bytes: usize,
    /// Number of separate ranges of bytes that are kept ahead of holes, for each direction: 16 by
    /// default.
    pub reorder_ranges: usize,
    /// Number of commands that can wait for their replies: 32 by default. Most clients send one at
    /// a time.
    pub max_pipelined: usize,
    /// The lowest port that may be announced: 1024 by default (RFC 2577, section 3).
    pub port_floor: u16,
    /// Time that an expectation waits for its session: 300 s by default, as in Linux. Passive
    /// clients connect at once, but servers call as late as they have the file: 60 s after RETR is
    /// common.
    pub lifetime: Duration,
    /// Addresses to which the data go if a 227 announces them, besides the server's own: those of
    /// other hosts that serve the data. None by default. A server's public address need not be
    /// listed: whatever unicast address a 227 announces, the server's own is expected.
    pub passive_addresses: Vec<IpNet>,
    /// Addresses that PORT and EPRT may announce in place of the client's own, such as the public
    /// addresses of clients behind NAT; the session is expected at the client's own address. None
    /// by default.
    pub active_addresses: Vec<IpNet>,
    /// Number of refused PORT and EPRT after which a session is not inspected any more: 4 by
    /// default, 0 for never. A page in a browser can send many, to guess the browser's address.
    pub max_refused: u16,
    /// The port that a server must call from in active mode. `None`, any port, by default: RFC 959
    /// (section 3.2) says 20, but servers without privileges cannot.
    pub active_source_port: Option<u16>,
    /// Moment at which the expectation of PORT and EPRT opens: at the command by default.
    pub active_opening: ActiveOpening,
    /// Whether a line feed alone ends a client's line. On by default: clients send it, and servers
    /// accept it.
    pub client_bare_lf: bool,
    /// Whether a line that follows a line feed alone may announce something. No by default, unless
    /// the server has ended its greeting so: a server that echoes a line feed back would let its
    /// client write replies (CERT VU#328867).
    pub server_bare_lf: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_line: 8192,
            reorder_bytes: 65_536,
            reorder_ranges: 16,
            max_pipelined: 32,
            port_floor: 1024,
            lifetime: Duration::from_secs(300),
            passive_addresses: Vec::new(),
            active_addresses: Vec::new(),
            max_refused: 4,
            active_source_port: None,
            active_opening: ActiveOpening::Command,
            client_bare_lf: true,
            server_bare_lf: false,
        }
    }
}

/// Settings prepared for use, and shared by all sessions that were opened under them.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) settings: Settings,
    passive_addresses: AddressMap<()>,
    active_addresses: AddressMap<()>,
}

impl Rules {
    /// Prepares settings for use.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let map = |prefixes: &[IpNet]| {
            let mut map = AddressMap::new();
            for prefix in prefixes {
                *map.at(*prefix) = ();
            }
            map
        };
        Self {
            passive_addresses: map(&settings.passive_addresses),
            active_addresses: map(&settings.active_addresses),
            settings,
        }
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn limits(&self, from: Direction) -> Limits {
        Limits {
            line: self.settings.max_line,
            window: self.settings.reorder_bytes,
            ranges: self.settings.reorder_ranges,
            bare_lf: match from {
                Direction::Original => self.settings.client_bare_lf,
                // The helper decides whether such a line counts.
                Direction::Reply => true,
            },
        }
    }

    /// Returns whether the helper could have announced an expectation, under these settings, in a
    /// session with the ends of its parent.
    #[must_use]
    pub fn could_announce(&self, expectation: &Expectation) -> bool {
        let Expectation {
            parent, direction, ..
        } = expectation;
        let is_canonical =
            SessionEnds::new(parent.zone, parent.initiator, parent.responder) == *parent;
        let called = expectation.destination.ip();
        let listed = *direction == Direction::Original && self.allows_passive(called);
        let port = expectation.destination.port();
        let source_port = match direction {
            Direction::Original => None,
            Direction::Reply => self.settings.active_source_port,
        };
        is_canonical
            && expectation.protocol == PROTOCOL_TCP
            && expectation.source == parent.sender(*direction).ip()
            && (called == parent.sender(direction.opposite()).ip() || listed)
            && port >= self.settings.port_floor.max(1)
            && source_port.is_none_or(|port| expectation.source_port == Some(port))
    }

    pub(super) fn allows_active(&self, address: IpAddr) -> bool {
        self.active_addresses.longest_match(address).is_some()
    }

    pub(super) fn allows_passive(&self, address: IpAddr) -> bool {
        self.passive_addresses.longest_match(address).is_some()
    }
}
