//! Classes of session states that share a lifetime.

use std::time::Duration;

/// The state of a session as far as its lifetime goes.
///
/// | Class | Key | Default | Source |
/// |---|---|---|---|
/// | `TcpSynSent` | `tcp.syn_sent` | 30 s | pf `tcp.opening`, ASA embryonic; Linux 120 s |
/// | `TcpSynRecv` | `tcp.syn_recv` | 60 s | Linux |
/// | `TcpEstablished` | `tcp.established` | 340 s | below GWLB's default TCP idle of 350 s |
/// | `TcpFinWait` | `tcp.fin_wait` | as `tcp.established` | open one way; Linux 120 s |
/// | `TcpCloseWait` | `tcp.close_wait` | as `tcp.established` | open one way; Linux 60 s |
/// | `TcpLastAck` | `tcp.last_ack` | 30 s | Linux |
/// | `TcpTimeWait` | `tcp.time_wait` | 120 s | Linux |
/// | `TcpClose` | `tcp.close` | 10 s | Linux |
/// | `TcpUnacknowledged` | `tcp.unacknowledged` | 300 s | Linux |
/// | `TcpRetransmitted` | `tcp.retransmitted` | 300 s | Linux |
/// | `UdpUnreplied` | `udp.unreplied` | 30 s | Linux |
/// | `UdpExchange` | `udp.exchange` | 30 s, or `udp.replied` if set | Linux, where it is `udp` |
/// | `UdpReplied` | `udp.replied` | 110 s | RFC 4787 REQ-5 has 2 min, GWLB's idle: below it |
/// | `UdpStream` | `udp.stream` | 110 s | below GWLB's 120 s for all but TCP; Linux 120 s |
/// | `Icmp` | `icmp` | 30 s | Linux |
/// | `OtherUnreplied` | `other.unreplied` | 60 s | pf; Linux has 600 s, above GWLB's 120 s |
/// | `OtherReplied` | `other.replied` | 110 s | below GWLB's 120 s |
/// | `SctpInitSent` | `sctp.init_sent` | 10 s | Linux, where it is `closed` |
/// | `SctpCookieWait` | `sctp.cookie_wait` | 30 s | 4 retransmits from 3 s; Linux 3 s |
/// | `SctpCookieEchoed` | `sctp.cookie_echoed` | 30 s | 4 retransmits from 3 s; Linux 3 s |
/// | `SctpEstablished` | `sctp.established` | 110 s | Linux has 210 s, above GWLB's 120 s |
/// | `SctpShutdownSent` | `sctp.shutdown_sent` | 30 s | 4 retransmits from 3 s; Linux 3 s |
/// | `SctpShutdownRecd` | `sctp.shutdown_recd` | 30 s | 4 retransmits from 3 s; Linux 3 s |
/// | `SctpShutdownAckSent` | `sctp.shutdown_ack_sent` | 30 s | 4 retransmits from 3 s; Linux 3 s |
/// | `SctpClosed` | `sctp.closed` | 10 s | Linux |
/// | `DccpRequest` | `dccp.request` | 30 s | as `tcp.syn_sent`; Linux has 240 s |
/// | `DccpRespond` | `dccp.respond` | 60 s | as `tcp.syn_recv`; Linux has 480 s |
/// | `DccpPartOpen` | `dccp.partopen` | 110 s | Linux has 480 s, above GWLB's 120 s |
/// | `DccpOpen` | `dccp.open` | 110 s | Linux has 12 h, above GWLB's 120 s |
/// | `DccpCloseReq` | `dccp.closereq` | 64 s | Linux |
/// | `DccpClosing` | `dccp.closing` | 64 s | Linux |
/// | `DccpTimeWait` | `dccp.timewait` | 110 s | below GWLB's 120 s; Linux 240 s (RFC 4340: 2 MSL) |
///
/// # Classes that follow another
/// A class that is not set follows another one that is: `tcp.fin_wait` and `tcp.close_wait` follow
/// `tcp.established`, and `udp.exchange` follows `udp.replied`. This applies to an override too,
/// for classes that neither the override nor the global lifetimes set. See
/// [`LifetimeClass::follows`].
///
/// # Half-closed connections
/// A connection of which one end has sent its FIN is open in the other direction, and may be silent
/// for as long as any other: a client that has sent its request shuts down its half and waits
/// (RFC 9293 3.6). RFC 5382 REQ-5 has at least 4 minutes for it.
///
/// # UDP
/// RFC 4787 REQ-5 requires at least 2 minutes for a mapping that is in use. A question with its one
/// answer, and whatever is asked of a server's port 53 within two seconds (REQ-5 a), is over with
/// the answer: such exchanges have a class of their own, so that a flood of DNS queries does not
/// fill the table.
///
/// # Established connections behind GWLB
/// RFC 5382 REQ-5 requires a NAT to keep an established connection for at least 2 h 4 min, and
/// Linux keeps it for 5 days. Neither is possible behind a Gateway Load Balancer: it removes a flow
/// after its own idle timer (350 s unless configured otherwise), and drops later packets. A session
/// that outlives that timer only fills the table, and its RST would have no flow to travel in. So
/// the default lies just below it. Raise both together, or set `gwlb.enabled = false` where no such
/// balancer is in the path. RFC 4787 REQ-5 (UDP, 2 min) is capped in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LifetimeClass {
    /// The initiator's SYN was seen, no answer yet.
    TcpSynSent,
    /// The SYN was answered by a SYN-ACK.
    TcpSynRecv,
    /// The handshake has ended.
    TcpEstablished,
    /// One end has sent its FIN.
    TcpFinWait,
    /// The first FIN was acknowledged.
    TcpCloseWait,
    /// Each end has sent a FIN; the last one is not acknowledged.
    TcpLastAck,
    /// The FINs of both ends were acknowledged.
    TcpTimeWait,
    /// A RST closed the connection.
    TcpClose,
    /// An established connection of which data stays unacknowledged.
    TcpUnacknowledged,
    /// A connection on which the same segment was sent three times.
    TcpRetransmitted,
    /// Datagrams one way only.
    UdpUnreplied,
    /// One datagram each way, or a few between a client and a DNS server: an exchange that is over.
    UdpExchange,
    /// Datagrams both ways, more than one exchange.
    UdpReplied,
    /// Datagrams both ways for a while: a stream.
    UdpStream,
    /// An ICMP or ICMPv6 query.
    Icmp,
    /// Packets of any other protocol, one way only.
    OtherUnreplied,
    /// Packets of any other protocol, both ways.
    OtherReplied,
    /// The initiator's INIT was seen, no answer yet.
    SctpInitSent,
    /// The INIT was answered by an INIT ACK.
    SctpCookieWait,
    /// The initiator has sent its COOKIE ECHO.
    SctpCookieEchoed,
    /// The association is up.
    SctpEstablished,
    /// The initiator has sent SHUTDOWN.
    SctpShutdownSent,
    /// The responder has sent SHUTDOWN.
    SctpShutdownRecd,
    /// The SHUTDOWN was answered by a SHUTDOWN ACK.
    SctpShutdownAckSent,
    /// A SHUTDOWN COMPLETE or an ABORT ended the association.
    SctpClosed,
    /// The client's Request was seen, no answer yet.
    DccpRequest,
    /// The Request was answered by a Response.
    DccpRespond,
    /// The client has acknowledged the Response.
    DccpPartOpen,
    /// The connection is open.
    DccpOpen,
    /// The server has asked the client to close.
    DccpCloseReq,
    /// One end has sent a Close.
    DccpClosing,
    /// A Reset ended the connection.
    DccpTimeWait,
}

impl LifetimeClass {
    /// The number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 32] = [
        Self::TcpSynSent,
        Self::TcpSynRecv,
        Self::TcpEstablished,
        Self::TcpFinWait,
        Self::TcpCloseWait,
        Self::TcpLastAck,
        Self::TcpTimeWait,
        Self::TcpClose,
        Self::TcpUnacknowledged,
        Self::TcpRetransmitted,
        Self::UdpUnreplied,
        Self::UdpExchange,
        Self::UdpReplied,
        Self::UdpStream,
        Self::Icmp,
        Self::OtherUnreplied,
        Self::OtherReplied,
        Self::SctpInitSent,
        Self::SctpCookieWait,
        Self::SctpCookieEchoed,
        Self::SctpEstablished,
        Self::SctpShutdownSent,
        Self::SctpShutdownRecd,
        Self::SctpShutdownAckSent,
        Self::SctpClosed,
        Self::DccpRequest,
        Self::DccpRespond,
        Self::DccpPartOpen,
        Self::DccpOpen,
        Self::DccpCloseReq,
        Self::DccpClosing,
        Self::DccpTimeWait,
    ];

    /// Returns the key below `[lifetimes]` in the configuration file, such as `tcp.syn_sent`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns the default lifetime.
    pub const fn default_lifetime(self) -> Duration {
        Duration::from_millis(self.row().1 as u64)
    }

    /// Returns the default lifetime in milliseconds.
    pub(crate) const fn default_millis(self) -> u32 {
        self.row().1
    }

    /// Returns the source of the default, in one clause.
    pub const fn default_source(self) -> &'static str {
        self.row().2
    }

    /// Returns the class that determines the lifetime of this one if that class is set and this one
    /// is not.
    #[must_use]
    pub const fn follows(self) -> Option<Self> {
        match self {
            Self::TcpFinWait | Self::TcpCloseWait => Some(Self::TcpEstablished),
            Self::UdpExchange => Some(Self::UdpReplied),
            _ => None,
        }
    }

    /// Returns whether this is a class of TCP connections.
    pub const fn is_tcp(self) -> bool {
        (self as u8) < (Self::UdpUnreplied as u8)
    }

    /// Returns whether sessions of this class may be without an answer yet.
    pub(crate) const fn may_be_unanswered(self) -> bool {
        matches!(
            self,
            Self::TcpSynSent
                | Self::TcpSynRecv
                | Self::UdpUnreplied
                | Self::Icmp
                | Self::OtherUnreplied
                | Self::SctpInitSent
                | Self::SctpCookieWait
                | Self::SctpCookieEchoed
                | Self::DccpRequest
                | Self::DccpRespond
        )
    }

    /// Returns the key, the default in milliseconds and the source of the default.
    const fn row(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::TcpSynSent => ("tcp.syn_sent", 30_000, "pf tcp.opening, ASA embryonic"),
            Self::TcpSynRecv => ("tcp.syn_recv", 60_000, "Linux"),
            Self::TcpEstablished => (
                "tcp.established",
                340_000,
                "below GWLB's default TCP idle of 350 s",
            ),
            Self::TcpFinWait => ("tcp.fin_wait", 340_000, "as tcp.established"),
            Self::TcpCloseWait => ("tcp.close_wait", 340_000, "as tcp.established"),
            Self::TcpLastAck => ("tcp.last_ack", 30_000, "Linux"),
            Self::TcpTimeWait => ("tcp.time_wait", 120_000, "Linux"),
            Self::TcpClose => ("tcp.close", 10_000, "Linux"),
            Self::TcpUnacknowledged => ("tcp.unacknowledged", 300_000, "Linux"),
            Self::TcpRetransmitted => ("tcp.retransmitted", 300_000, "Linux"),
            Self::UdpUnreplied => ("udp.unreplied", 30_000, "Linux"),
            Self::UdpExchange => ("udp.exchange", 30_000, "Linux; udp.replied if that is set"),
            Self::UdpReplied => (
                "udp.replied",
                110_000,
                "RFC 4787's 2 min, below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::UdpStream => (
                "udp.stream",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::Icmp => ("icmp", 30_000, "Linux"),
            Self::OtherUnreplied => ("other.unreplied", 60_000, "pf"),
            Self::OtherReplied => (
                "other.replied",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::SctpInitSent => ("sctp.init_sent", 10_000, "Linux, where it is closed"),
            Self::SctpCookieWait => ("sctp.cookie_wait", 30_000, SCTP_RETRANSMITS),
            Self::SctpCookieEchoed => ("sctp.cookie_echoed", 30_000, SCTP_RETRANSMITS),
            Self::SctpEstablished => (
                "sctp.established",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::SctpShutdownSent => ("sctp.shutdown_sent", 30_000, SCTP_RETRANSMITS),
            Self::SctpShutdownRecd => ("sctp.shutdown_recd", 30_000, SCTP_RETRANSMITS),
            Self::SctpShutdownAckSent => ("sctp.shutdown_ack_sent", 30_000, SCTP_RETRANSMITS),
            Self::SctpClosed => ("sctp.closed", 10_000, "Linux"),
            Self::DccpRequest => ("dccp.request", 30_000, "as tcp.syn_sent"),
            Self::DccpRespond => ("dccp.respond", 60_000, "as tcp.syn_recv"),
            Self::DccpPartOpen => (
                "dccp.partopen",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::DccpOpen => (
                "dccp.open",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
            Self::DccpCloseReq => ("dccp.closereq", 64_000, "Linux"),
            Self::DccpClosing => ("dccp.closing", 64_000, "Linux"),
            Self::DccpTimeWait => (
                "dccp.timewait",
                110_000,
                "below GWLB's idle of 120 s for all that is not TCP",
            ),
        }
    }
}

/// Source of the defaults of SCTP associations that begin or end.
const SCTP_RETRANSMITS: &str = "four retransmissions from RTO.Initial 3 s on (RFC 4960 15)";
