//! Application helpers for protocols that announce further sessions, and the announced sessions.
//!
//! A helper reads the two byte streams of a control session and announces the data sessions that
//! will follow. The module uses no sockets, no locks of sessions and no clock:
//!
//! | part | purpose |
//! |---|---|
//! | [`stream`] | turns the segments of a direction into whole lines, each once and in order |
//! | [`urgent`] | checks that urgent data leave the lines as they were read |
//! | [`Control`] | state of one control session: two streams and a [`Helper`] |
//! | [`helper`] | the helper of FTP |
//! | [`expectations`] | the announced sessions that have not begun yet |
//!
//! A helper reports to a [`HelperSink`]: an [`Expectation`] that opens, one that is withdrawn, and
//! a [`HelperEvent`] for everything that may be counted or logged.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

use crate::flow::{Direction, Flow, FlowKey, Zone};
use crate::packet::{Ip, IpVersion, PROTOCOL_TCP, Parsed, SeqNum, Transport};

mod control;
pub mod expectations;
pub mod helper;
pub mod stream;
pub mod urgent;

pub use control::{Control, Segment};
pub use stream::{Fit, Limits, Line, Trouble};

/// Initiator and responder of a TCP session, by its first packet. Addresses are canonical (an
/// IPv4-mapped IPv6 address is the IPv4 address) if they were made with [`SessionEnds::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct SessionEnds {
    /// The zone.
    #[cfg_attr(feature = "snapshot", serde(with = "ZoneNumber"))]
    pub zone: Zone,
    /// Address of the host that sent the first packet: an FTP client.
    pub initiator: SocketAddr,
    /// Address of the responder: an FTP server.
    pub responder: SocketAddr,
}

impl SessionEnds {
    /// Returns the ends of a session with canonical addresses.
    #[must_use]
    pub fn new(zone: Zone, initiator: SocketAddr, responder: SocketAddr) -> Self {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Self {
            zone,
            initiator: canonical(initiator),
            responder: canonical(responder),
        }
    }

    /// Returns the end that sends in a direction.
    #[must_use]
    pub const fn sender(&self, direction: Direction) -> SocketAddr {
        match direction {
            Direction::Original => self.initiator,
            Direction::Reply => self.responder,
        }
    }

    /// Returns the canonical key of the session.
    #[must_use]
    pub fn key(&self) -> Option<FlowKey> {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let version = match self.initiator.ip() {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        };
        let parsed = Parsed {
            ip: Ip {
                version,
                src: number(self.initiator.ip()),
                dst: number(self.responder.ip()),
                protocol: PROTOCOL_TCP,
                ttl: 0,
                options: crate::packet::IpOptions::NONE,
                header_len: 0,
                total_len: 0,
            },
            transport: Transport::Udp {
                src_port: self.initiator.port(),
                dst_port: self.responder.port(),
                payload_len: 0,
            },
        };
        Flow::of(self.zone, &parsed).map(|flow| flow.key)
    }
}

/// A [`Zone`] as a number, for records.
#[cfg(feature = "snapshot")]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Zone")]
struct ZoneNumber(u16);

/// Durations in records: whole milliseconds.
#[cfg(feature = "snapshot")]
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Directions in records: by name.
#[cfg(feature = "snapshot")]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Direction", rename_all = "lowercase")]
enum DirectionName {
    Original,
    Reply,
}

/// A session that a control session has announced: the one TCP connection that it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct Expectation {
    /// The control session that announced it; its zone is the zone of the expected session.
    pub parent: SessionEnds,
    /// The address of the initiator.
    pub source: IpAddr,
    /// The port of the initiator; `None` for any.
    pub source_port: Option<u16>,
    /// The address and port of the responder.
    pub destination: SocketAddr,
    /// The IP protocol number: 6, TCP.
    pub protocol: u8,
    /// The end of the parent that initiates. [`Direction::Original`]: its initiator (FTP passive:
    /// client to server); [`Direction::Reply`]: its responder (FTP active: server to client).
    #[cfg_attr(feature = "snapshot", serde(with = "DirectionName"))]
    pub direction: Direction,
    /// Remaining lifetime. In an exported record, the rest of it, in milliseconds.
    #[cfg_attr(feature = "snapshot", serde(with = "milliseconds"))]
    pub lifetime: Duration,
}

impl core::fmt::Display for Expectation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "zone {}, {} ", self.parent.zone, self.source)?;
        match self.source_port {
            Some(port) => write!(f, "port {port}")?,
            None => f.write_str("any port")?,
        }
        write!(f, " -> {}", self.destination)
    }
}

macro_rules! helper_events {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Event of a helper; each has a counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum HelperEvent {
            $($(#[$doc])* $variant,)*
        }

        impl HelperEvent {
            /// All events.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Returns the stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

helper_events! {
    /// An expectation was opened.
    ExpectationOpened => "expectation_opened",
    /// An expectation was withdrawn before its session opened: another announcement took its place,
    /// the server refused the command, or the client ended the transfer or the login (ABOR, REIN,
    /// QUIT, USER).
    ExpectationWithdrawn => "expectation_withdrawn",
    /// The table had no room for an expectation, or its source holds its share.
    ExpectationRefused => "expectation_refused",
    /// An announced address is not that of the end that announces it: FTP bounce (RFC 2577, section
    /// 3).
    BounceRefused => "bounce_refused",
    /// An announced port is below the floor (RFC 2577, section 3).
    PortBelowFloor => "port_below_floor",
    /// A number of an announcement exceeds 255 or, as a port, 65535; or the port is 0.
    NumberOutOfRange => "number_out_of_range",
    /// A command came from the server, or a reply from the client.
    WrongDirection => "wrong_direction",
    /// An announcing reply that answers no waiting command.
    UnsolicitedReply => "unsolicited_reply",
    /// A late or repeated reply, which announces nothing and answers no waiting command. It is
    /// ignored.
    StrayReply => "stray_reply",
    /// A 227 announces another address than the server has here, such as its public one. The
    /// session is expected at the server's own address.
    ForeignAddressIgnored => "foreign_address_ignored",
    /// An announcement before the server's greeting, 220.
    NotGreeted => "not_greeted",
    /// The client has sent an HTTP request, as a browser can be made to do (NAT slipstreaming). The
    /// session is no longer inspected.
    NotFtp => "not_ftp",
    /// So many announcements of the client were refused that the client appears to guess. The
    /// session is no longer inspected.
    TooManyRefused => "too_many_refused",
    /// An announcing command that cannot be read.
    MalformedCommand => "malformed_command",
    /// An announcing reply that cannot be read, or announces more than one address; or whose line
    /// follows a line feed alone, where the server's lines end otherwise.
    MalformedReply => "malformed_reply",
    /// EPRT or EPSV for a network protocol other than the session's (RFC 2428, section 2).
    EprtUnsupportedFamily => "eprt_unsupported_family",
    /// A client's line that servers may read differently: no verb, or one with a blank, a control
    /// character or TELNET in it; a carriage return within the line; where no byte may pass unread,
    /// a TLS record that was not negotiated.
    UnreadableCommand => "unreadable_command",
    /// LPRT or LPSV (RFC 1639), which are obsolete.
    LprtRefused => "lprt_refused",
    /// PORT, EPRT or PASV after EPSV ALL (RFC 2428, section 4).
    EpsvAllViolation => "epsv_all_violation",
    /// The control session is encrypted from here on; the helper stops reading.
    Tls => "tls",
    /// The control session is plain text again (CCC, RFC 4217); the helper resumes reading.
    PlainAgain => "plain_again",
    /// A line exceeds the longest length; its content does not count.
    LineTooLong => "line_too_long",
    /// Bytes have passed unread: nothing counts until the next line begins.
    Gap => "gap",
    /// The session was adopted midstream: nothing counts until the next line begins.
    MidStream => "mid_stream",
    /// A retransmission has other bytes than the first transmission: neither counts.
    ConflictingRetransmission => "conflicting_retransmission",
    /// A segment lies too far ahead to be kept, or there are too many holes before it.
    ReorderOverflow => "reorder_overflow",
    /// More commands wait for their replies than are stored.
    PipelineFull => "pipeline_full",
    /// There are more control sessions than are inspected, of all or of this source, or they take
    /// too much memory; this one announces nothing.
    NotInspected => "not_heard",
    /// An expectation of another appliance or of a save that no helper would have announced here.
    ImportRefused => "import_refused",
}

impl HelperEvent {
    /// Returns whether an announcement, or a possible one, is refused.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::BounceRefused
                | Self::PortBelowFloor
                | Self::NumberOutOfRange
                | Self::WrongDirection
                | Self::UnsolicitedReply
                | Self::NotGreeted
                | Self::NotFtp
                | Self::MalformedCommand
                | Self::MalformedReply
                | Self::EprtUnsupportedFamily
                | Self::UnreadableCommand
                | Self::LprtRefused
                | Self::EpsvAllViolation
        )
    }

    /// Returns whether bytes of the stream cannot be read, or not as their receiver reads them.
    #[must_use]
    pub const fn is_unread(self) -> bool {
        matches!(
            self,
            Self::LineTooLong
                | Self::Gap
                | Self::MidStream
                | Self::ConflictingRetransmission
                | Self::ReorderOverflow
        )
    }
}

impl core::fmt::Display for HelperEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Receiver of a helper's findings. The methods are called in the middle of a segment and should be
/// quick.
pub trait HelperSink {
    /// Records an event. `from` is the direction of the line or segment that caused the event.
    fn event(&mut self, event: HelperEvent, from: Direction);

    /// Opens an expectation. Returns whether there was room for the expectation.
    fn expect(&mut self, expectation: &Expectation) -> bool;

    /// Withdraws an expectation that [`HelperSink::expect`] took. Returns whether the expectation
    /// still existed.
    fn withdraw(&mut self, expectation: &Expectation) -> bool;
}

/// Part of a segment that is plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// The whole segment.
    All,
    /// The data from this number on, which begins a line.
    From(SeqNum),
    /// No part of the segment.
    Nothing,
}

/// Helper for a text protocol. A helper gets each line of either direction once and in order, and
/// is notified of missing lines.
pub trait Helper {
    /// Returns the limits for the lines of a direction.
    fn limits(&self, from: Direction) -> Limits;

    /// Processes a line.
    fn line(&mut self, from: Direction, line: Line<'_>, sink: &mut dyn HelperSink);

    /// Processes the rest of a line whose beginning passed before the session was read. Called only
    /// where no byte may pass unread: an event that is a refusal stops the line.
    fn rest(&mut self, from: Direction, line: Line<'_>, sink: &mut dyn HelperSink) {
        let _ = (from, line, sink);
    }

    /// Reports missing lines of a direction, or faults of its segments.
    fn trouble(&mut self, from: Direction, trouble: Trouble, sink: &mut dyn HelperSink);

    /// Returns whether the helper has stopped reading. It then gets no lines until
    /// [`Helper::plain`] finds plain text.
    fn is_opaque(&self) -> bool;

    /// Called after the helper has stopped reading. `next` is the position at which the client's
    /// stream continues.
    fn stopped_reading(&mut self, next: Option<SeqNum>) {
        let _ = next;
    }

    /// Returns whether a direction is still encrypted, though the helper reads the other one.
    fn is_encrypted_from(&self, from: Direction) -> bool {
        let _ = from;
        false
    }

    /// Returns the part of a segment that is plain text.
    fn plain(
        &mut self,
        segment: &Segment<'_>,
        from: Direction,
        sink: &mut dyn HelperSink,
    ) -> Plain {
        let _ = (segment, from, sink);
        if self.is_opaque() {
            Plain::Nothing
        } else {
            Plain::All
        }
    }

    /// Returns the bytes that the helper holds on the heap.
    fn heap_bytes(&self) -> usize;
}

/// Number of occurrences of each [`HelperEvent`].
#[derive(Debug, Default)]
pub struct EventCounts([AtomicU64; HelperEvent::ALL.len()]);

impl EventCounts {
    /// Counts an event.
    pub fn count(&self, event: HelperEvent) {
        if let Some(counter) = self.0.get(event as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of occurrences of an event.
    #[must_use]
    pub fn of(&self, event: HelperEvent) -> u64 {
        self.0
            .get(event as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Returns all events with their numbers of occurrences.
    pub fn all(&self) -> impl Iterator<Item = (HelperEvent, u64)> + '_ {
        HelperEvent::ALL
            .into_iter()
            .map(|event| (event, self.of(event)))
    }
}

/// Returns the number of the first byte of a direction's stream, right after the SYN (RFC 9293,
/// section 3.4).
#[must_use]
pub const fn first_byte(isn: SeqNum) -> SeqNum {
    isn.add(1)
}

#[cfg(test)]
mod tests;
