//! The helper of FTP (RFC 959, RFC 1123, RFC 2428, RFC 4217).
//!
//! A client announces with PORT and EPRT the address to which the server is to connect. A server
//! announces in its 227 and 229, the replies to PASV and EPSV, the address to which the client is
//! to connect. An announced address becomes an [`Expectation`] if
//!
//! 1. it is in a complete line in the order of the stream, and comes from the end that may send it;
//! 2. the server has greeted with 220;
//! 3. a reply answers a PASV or EPSV, in either form. Preliminary replies and lines within a
//!    multi-line reply of another code do not count as replies, padded or not (CERT VU#288905);
//! 4. no octet exceeds 255 and no port 65535, and the port is not below the floor;
//! 5. the address may be announced.
//!
//! The session is expected at the announcing end's own address, which is that of its packets (RFC
//! 2577: bounce). Servers behind NAT announce their public address, so a 227 may announce any
//! unicast address. PORT and EPRT may announce the client's own address and those that the
//! [`Settings`] list. A listed address of a 227 is expected as well, and one announcement admits
//! one session.
//!
//! One announcement for each of the two modes may wait at a time; the next one replaces it. ABOR,
//! REIN, QUIT and USER withdraw them. EPSV ALL bars PORT, EPRT and PASV until REIN. With AUTH
//! answered by 234, with ADAT answered by 235 or with a TLS record in place of a command the helper
//! stops reading. After a 234 it tracks the records of TLS, and reads plain text after them (CCC).
//! Records that arrive out of order may hide the position of plain text.
//!
//! An HTTP request, or too many refused announcements of the client, ends inspection permanently: a
//! page in a browser can send both (NAT slipstreaming).
//!
//! A session may be [guarded](Ftp::set_guarded), if none of its bytes may pass unread: then the
//! helper stops reading only for a 234 that answers AUTH. A TLS record that was not negotiated is a
//! refused line. After ADAT, which does not end plain commands, the helper continues.
//!
//! When lines are lost, commands and replies can no longer be paired. Then no reply counts, until a
//! command arrives after the end of a reply.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::control::Segment;
use super::stream::{Limits, Line, Trouble};
use super::{Expectation, Helper, HelperEvent, HelperSink, Plain, SessionEnds};
use crate::flow::Direction;
use crate::packet::{PROTOCOL_TCP, SeqNum};

mod announce;
mod commands;
mod line;
mod pending;
mod progress;
mod records;
mod replies;
mod settings;

#[cfg(test)]
mod tests;

pub use progress::SavedControl;
pub use settings::{ActiveOpening, Rules, Settings};

use announce::{Flaw, ReplyAnnouncement};
use pending::Queue;
use records::Records;

/// The port of control sessions (RFC 959).
pub const CONTROL_PORT: u16 = 21;

/// Position of the server in its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replying {
    /// Between two replies; `settled` if the last one was final.
    Between { settled: bool },
    /// In a multi-line reply with this code; `bare_lf` if its first line has ended with a line feed
    /// alone.
    Within { code: u16, bare_lf: bool },
    /// Lines are lost, possibly in a multi-line reply.
    Unknown,
}

/// Whether the client has sent EPSV ALL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnlyExtended {
    No,
    Asked,
    Yes,
}

/// Whether the server has greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// Not yet: nothing opens.
    Awaited,
    /// The beginning is unknown: any reply counts as the greeting.
    Missed,
    /// The greeting was seen.
    Seen,
}

/// The helper of one FTP control session.
#[derive(Debug)]
pub struct Ftp {
    rules: Arc<Rules>,
    session: SessionEnds,
    pending: Queue,
    /// `pending` holds the commands that the server has yet to answer.
    paired: bool,
    replying: Replying,
    greeting: Greeting,
    only_extended: OnlyExtended,
    opaque: bool,
    /// The server has agreed that the session is encrypted.
    agreed: bool,
    /// Inspection has ended permanently.
    silenced: bool,
    /// AUTH was asked.
    asked: bool,
    /// See [`Ftp::set_guarded`].
    guarded: bool,
    /// The client may have sent a line feed alone, which the server may echo.
    echoes_lf: bool,
    /// The server ends its lines with a line feed alone.
    ends_lf: bool,
    /// The server's last line has ended with a line feed alone.
    after_lf: bool,
    /// Number of refused PORT and EPRT.
    refused: u16,
    /// Announcement of the reply that has not ended.
    told: ReplyAnnouncement,
    /// Ports that the expectations which may still be open have announced.
    active: Option<u16>,
    passive: Option<u16>,
    /// The listed address to which the client is also expected to connect.
    passive_address: Option<IpAddr>,
    client_records: Records,
    server_records: Records,
}

impl Ftp {
    /// Creates the helper of a session whose initiator is the client. A session that is adopted
    /// midstream begins in the same way, as its streams show.
    #[must_use]
    pub fn new(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            rules,
            session,
            pending: Queue::of_new_session(),
            paired: true,
            replying: Replying::Between { settled: false },
            greeting: Greeting::Awaited,
            only_extended: OnlyExtended::No,
            opaque: false,
            agreed: false,
            silenced: false,
            asked: false,
            guarded: false,
            echoes_lf: false,
            ends_lf: false,
            after_lf: false,
            refused: 0,
            told: ReplyAnnouncement::Nothing,
            active: None,
            passive: None,
            passive_address: None,
            client_records: Records::default(),
            server_records: Records::default(),
        }
    }

    /// Creates the helper of a session that continues with an unanswered command: no reply counts
    /// before both ends are synchronized again.
    #[must_use]
    pub fn unpaired(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            paired: false,
            replying: Replying::Unknown,
            greeting: Greeting::Missed,
            ..Self::at_rest(rules, session)
        }
    }

    /// Creates the helper of a continuing session whose ends have agreed to encrypt it. A later
    /// return to plain text is not detected.
    #[must_use]
    pub fn encrypted(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            opaque: true,
            agreed: true,
            ..Self::at_rest(rules, session)
        }
    }

    /// Returns whether all data of the session must be read.
    pub const fn set_guarded(&mut self, on: bool) {
        self.guarded = on;
    }

    /// Returns whether the server ends its lines with a line feed alone. The greeting shows it.
    #[must_use]
    pub const fn has_bare_lf(&self) -> bool {
        self.ends_lf
    }

    /// Sets whether the server ends its lines with a line feed alone.
    pub const fn set_bare_lf(&mut self, on: bool) {
        self.ends_lf = on;
    }

    /// Returns whether the session is encrypted and its server has agreed to that: 234 to AUTH.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.opaque && self.agreed
    }

    /// Returns whether inspection has ended permanently, because the session is not FTP or made too
    /// many refused announcements.
    #[must_use]
    pub const fn is_silenced(&self) -> bool {
        self.opaque && self.silenced
    }

    /// Returns whether an expectation was announced in this session and not withdrawn since by the
    /// session itself.
    #[must_use]
    pub fn still_announces(&self, expectation: &Expectation) -> bool {
        let own = self.called(expectation.direction);
        let called = expectation.destination;
        let (port, listed) = match expectation.direction {
            Direction::Original => (self.passive, self.passive_address),
            Direction::Reply => (self.active, None),
        };
        port == Some(called.port()) && (called.ip() == own || listed == Some(called.ip()))
    }

    /// Removes the announcements, whose expectations the caller has withdrawn.
    pub const fn forget_announced(&mut self) {
        self.active = None;
        self.passive = None;
    }

    /// Creates the helper of a session that continues without an unanswered command
    /// ([`Ftp::is_at_rest`]).
    #[must_use]
    pub fn at_rest(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            pending: Queue::default(),
            greeting: Greeting::Seen,
            echoes_lf: true,
            ..Self::new(rules, session)
        }
    }

    /// Returns whether the server has answered every command and the session is readable, so that a
    /// command comes next.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.paired
            && self.pending.is_at_rest()
            && !self.opaque
            && matches!(self.replying, Replying::Between { .. })
    }

    /// Returns the ends of the control session.
    #[must_use]
    pub const fn session(&self) -> &SessionEnds {
        &self.session
    }

    /// Continues with other rules.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    /// Returns an announced port that is not below the floor.
    fn above_floor(&self, port: u16) -> Result<u16, HelperEvent> {
        if port < self.rules.settings.port_floor {
            return Err(HelperEvent::PortBelowFloor);
        }
        Ok(port)
    }

    /// Returns the responder's own address.
    const fn called(&self, caller: Direction) -> IpAddr {
        self.session.sender(caller.opposite()).ip()
    }

    /// Returns the expectation of a data session that this end of the control session opens.
    fn expectation(&self, caller: Direction, destination: SocketAddr) -> Expectation {
        Expectation {
            parent: self.session,
            source: self.session.sender(caller).ip(),
            source_port: match caller {
                Direction::Original => None,
                Direction::Reply => self.rules.settings.active_source_port,
            },
            destination,
            protocol: PROTOCOL_TCP,
            direction: caller,
            lifetime: self.rules.settings.lifetime,
        }
    }

    /// Expects the server at the client's port.
    fn open_active(&mut self, port: u16, sink: &mut dyn HelperSink) {
        self.withdraw(Direction::Reply, Direction::Original, sink);
        if self.open(Direction::Reply, self.called(Direction::Reply), port, sink) {
            self.active = Some(port);
        }
    }

    /// Expects the client at the server's port. `address` is the address that the server has
    /// announced.
    fn open_passive(&mut self, port: u16, address: Option<IpAddr>, sink: &mut dyn HelperSink) {
        self.withdraw(Direction::Original, Direction::Reply, sink);
        let own = self.called(Direction::Original);
        let other = address
            .map(|address| address.to_canonical())
            .filter(|other| *other != own);
        if other.is_some() {
            sink.event(HelperEvent::ForeignAddressIgnored, Direction::Reply);
        }
        if !self.open(Direction::Original, own, port, sink) {
            return;
        }
        self.passive = Some(port);
        self.passive_address = other.filter(|other| {
            self.rules.allows_passive(*other) && self.open(Direction::Original, *other, port, sink)
        });
    }

    fn open(
        &self,
        caller: Direction,
        address: IpAddr,
        port: u16,
        sink: &mut dyn HelperSink,
    ) -> bool {
        let taken = sink.expect(&self.expectation(caller, SocketAddr::new(address, port)));
        let event = if taken {
            HelperEvent::ExpectationOpened
        } else {
            HelperEvent::ExpectationRefused
        };
        sink.event(event, caller.opposite());
        taken
    }

    fn withdraw(&mut self, caller: Direction, from: Direction, sink: &mut dyn HelperSink) {
        let (port, listed) = match caller {
            Direction::Original => (self.passive.take(), self.passive_address.take()),
            Direction::Reply => (self.active.take(), None),
        };
        let Some(port) = port else { return };
        for address in [Some(self.called(caller)), listed].into_iter().flatten() {
            if sink.withdraw(&self.expectation(caller, SocketAddr::new(address, port))) {
                sink.event(HelperEvent::ExpectationWithdrawn, from);
            }
        }
    }

    fn withdraw_all(&mut self, from: Direction, sink: &mut dyn HelperSink) {
        for caller in Direction::BOTH {
            self.withdraw(caller, from, sink);
        }
    }

    /// Marks the command that the next reply answers as unknown.
    fn unpair(&mut self) {
        self.pending = Queue::default();
        self.paired = false;
        if let Replying::Between { .. } = self.replying {
            self.replying = Replying::Between { settled: false };
        }
    }

    fn stop_reading(&mut self, from: Direction, agreed: bool, sink: &mut dyn HelperSink) {
        self.withdraw_all(from, sink);
        self.pending = Queue::default();
        self.opaque = true;
        self.agreed = agreed;
        sink.event(HelperEvent::Tls, from);
    }

    /// Stops reading permanently: the session is not FTP, or is an attack.
    fn end_inspection(&mut self, why: HelperEvent, sink: &mut dyn HelperSink) {
        self.withdraw_all(Direction::Original, sink);
        self.pending = Queue::default();
        self.opaque = true;
        self.agreed = false;
        self.silenced = true;
        sink.event(why, Direction::Original);
    }

    /// Tracks the records of TLS that the server sends from `next` on.
    fn follow_server(&mut self, next: SeqNum) {
        self.server_records = Records::from(Some(next));
    }

    /// Continues to read: the client has sent plain text, and so will the server.
    fn read_on(&mut self, sink: &mut dyn HelperSink) {
        self.opaque = false;
        self.asked = false;
        self.paired = true;
        self.replying = Replying::Between { settled: true };
        self.after_lf = false;
        sink.event(HelperEvent::PlainAgain, Direction::Original);
    }
}

/// Returns the event of a flaw.
const fn reason(flaw: Flaw, malformed: HelperEvent) -> HelperEvent {
    match flaw {
        Flaw::Absent | Flaw::Malformed => malformed,
        Flaw::OutOfRange => HelperEvent::NumberOutOfRange,
        Flaw::Family => HelperEvent::EprtUnsupportedFamily,
    }
}

impl Helper for Ftp {
    fn limits(&self, from: Direction) -> Limits {
        self.rules.limits(from)
    }

    fn line(&mut self, from: Direction, line: Line<'_>, sink: &mut dyn HelperSink) {
        if self.opaque {
            return;
        }
        if !line.whole {
            sink.event(HelperEvent::LineTooLong, from);
        }
        match from {
            Direction::Original => self.command(line, sink),
            Direction::Reply => self.reply_line(line, sink),
        }
    }

    fn rest(&mut self, from: Direction, line: Line<'_>, sink: &mut dyn HelperSink) {
        if let Some(flaw) = self.flaw_of_rest(from, line) {
            sink.event(flaw, from);
        }
    }

    fn trouble(&mut self, from: Direction, trouble: Trouble, sink: &mut dyn HelperSink) {
        if self.opaque {
            return;
        }
        let (event, lost) = match trouble {
            Trouble::Gap => (HelperEvent::Gap, true),
            Trouble::MidStream => (HelperEvent::MidStream, true),
            Trouble::Conflict => (HelperEvent::ConflictingRetransmission, false),
            Trouble::Overflow => (HelperEvent::ReorderOverflow, false),
        };
        sink.event(event, from);
        if !lost {
            return;
        }
        self.unpair();
        match from {
            Direction::Original => self.echoes_lf = true,
            Direction::Reply => {
                self.replying = Replying::Unknown;
                self.after_lf = false;
                if self.greeting == Greeting::Awaited {
                    self.greeting = Greeting::Missed;
                }
            }
        }
    }

    fn is_opaque(&self) -> bool {
        self.opaque
    }

    fn stopped_reading(&mut self, next: Option<SeqNum>) {
        if self.agreed {
            self.client_records = Records::from(next);
        }
    }

    fn is_encrypted_from(&self, from: Direction) -> bool {
        from == Direction::Reply && self.server_records.are_followed()
    }

    fn plain(
        &mut self,
        segment: &Segment<'_>,
        from: Direction,
        sink: &mut dyn HelperSink,
    ) -> Plain {
        let records = match from {
            Direction::Original => &mut self.client_records,
            Direction::Reply => &mut self.server_records,
        };
        if !records.are_followed() {
            return if self.opaque {
                Plain::Nothing
            } else {
                Plain::All
            };
        }
        let Some(first) = records.segment(segment.seq, segment.payload) else {
            return Plain::Nothing;
        };
        match from {
            Direction::Original if self.server_records.are_followed() => self.read_on(sink),
            // The server does not begin plain text: the client's was not detected.
            _ if self.opaque => {
                self.client_records = Records::default();
                return Plain::Nothing;
            }
            _ => {}
        }
        Plain::From(first)
    }

    fn heap_bytes(&self) -> usize {
        self.pending.heap_bytes()
    }
}
