//! The helper of FTP (RFC 959, RFC 1123, RFC 2428).
//!
//! A client announces with PORT and EPRT where the server shall call it; a server announces in its 227 and 229, the
//! replies to PASV and EPSV, where the client shall call. What is announced becomes an [`Expectation`] if
//!
//! 1. it stands in a whole line at its place in the stream, and comes from the end that may say it;
//! 2. a reply answers the command that it belongs to: commands wait for their replies in order, a 227 answers nothing
//!    but PASV, a 229 nothing but EPSV, a preliminary reply nothing, and lines within a multi-line reply are no replies,
//!    padded or not (CERT VU#288905);
//! 3. the address is the announcing end's own (RFC 2577: bounce), or one that the [`Settings`] allow a server;
//! 4. no octet exceeds 255 and no port 65535, and the port is not below the floor.
//!
//! One expectation for each of the two modes may wait at a time; the next announcement replaces it. ABOR, REIN, QUIT
//! and USER withdraw them. EPSV ALL bars PORT, EPRT and PASV. With AUTH answered by 234, with ADAT answered by 235 or
//! with a TLS record in place of a command the helper steps aside.
//!
//! A session may be [guarded](Ftp::set_guarded), because nothing of it may pass unread: then the helper steps aside only for a
//! 234 that answers AUTH. A TLS record that nobody has agreed on is a refused line, and after ADAT, which does not end
//! plain commands, the helper goes on.
//!
//! When lines are lost or a reply comes that its command cannot have, commands and replies can no longer be paired.
//! Then no reply counts, until a command comes while the last line of the server was the end of a reply.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::sync::Arc;

use super::stream::{Limits, Line, Trouble};
use super::{Expectation, Helper, HelperEvent, HelperSink, SessionEnds};
use crate::flow::Direction;
use crate::packet::PROTOCOL_TCP;

mod announce;
mod line;
mod rewrite;
mod settings;

#[cfg(test)]
mod tests;

pub use rewrite::{RewriteError, Rewritten, rewrite};
pub use settings::{ActiveOpening, Rules, Settings};

use announce::{Announced, Flaw};
use line::{Command, Reply};

/// The port of control sessions (RFC 959).
pub const CONTROL_PORT: u16 = 21;

/// What waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// The client has connected: 220.
    Connection,
    /// PORT or EPRT; where the server shall call, if that is acceptable.
    Active(Option<SocketAddr>),
    /// PASV; whether its reply may announce anything.
    Passive(bool),
    /// EPSV; likewise.
    ExtendedPassive(bool),
    /// EPSV ALL.
    ExtendedPassiveAll,
    /// AUTH or ADAT.
    Authentication,
    /// ABOR, which some servers answer with the reply to the transfer alone.
    Abort,
    /// Anything else.
    Other,
}

/// Where the server is in its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replying {
    /// Between two; whether the last one was final.
    Between { settled: bool },
    /// In a multi-line reply with this code.
    Within(u16),
    /// Lines are lost: perhaps in a multi-line reply.
    Unknown,
}

/// Has the client sent EPSV ALL?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnlyExtended {
    No,
    Asked,
    Yes,
}

/// The helper of one FTP control session.
#[derive(Debug)]
pub struct Ftp {
    rules: Arc<Rules>,
    session: SessionEnds,
    pending: VecDeque<Pending>,
    /// `pending` is what the server has yet to answer.
    paired: bool,
    replying: Replying,
    only_extended: OnlyExtended,
    opaque: bool,
    /// The server has agreed that the session is encrypted.
    agreed: bool,
    /// AUTH was asked.
    asked: bool,
    /// See [`Ftp::set_guarded`].
    guarded: bool,
    /// Destinations of expectations that may still be open.
    active: Option<SocketAddr>,
    passive: Option<SocketAddr>,
}

impl Ftp {
    /// The helper of a session whose initiator is the client. A session that is taken up in its middle begins the same
    /// way: its streams tell.
    #[must_use]
    pub fn new(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            rules,
            session,
            pending: VecDeque::from([Pending::Connection]),
            paired: true,
            replying: Replying::Between { settled: false },
            only_extended: OnlyExtended::No,
            opaque: false,
            agreed: false,
            asked: false,
            guarded: false,
            active: None,
            passive: None,
        }
    }

    /// The helper of a session that goes on with something unanswered: no reply counts before both ends are in step again.
    #[must_use]
    pub fn unpaired(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            pending: VecDeque::new(),
            paired: false,
            replying: Replying::Unknown,
            ..Self::new(rules, session)
        }
    }

    /// The helper of a session that goes on, and whose ends have agreed to encrypt it.
    #[must_use]
    pub fn encrypted(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            pending: VecDeque::new(),
            opaque: true,
            agreed: true,
            ..Self::new(rules, session)
        }
    }

    /// Whether nothing of the session may pass unread.
    pub const fn set_guarded(&mut self, on: bool) {
        self.guarded = on;
    }

    /// Whether the session is encrypted and its server has agreed to that: 234 to AUTH.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.opaque && self.agreed
    }

    /// Whether an expectation was announced here and not withdrawn since, as far as the session itself says.
    #[must_use]
    pub fn stands_by(&self, expectation: &Expectation) -> bool {
        let waiting = match expectation.direction {
            Direction::Original => self.passive,
            Direction::Reply => self.active,
        };
        waiting == Some(expectation.destination)
    }

    /// All that was announced was withdrawn by others.
    pub const fn forget_announced(&mut self) {
        self.active = None;
        self.passive = None;
    }

    /// The helper of a session that goes on, with nothing unanswered ([`Ftp::is_at_rest`]).
    #[must_use]
    pub fn at_rest(rules: Arc<Rules>, session: SessionEnds) -> Self {
        Self {
            pending: VecDeque::new(),
            ..Self::new(rules, session)
        }
    }

    /// Whether the server has answered every command, and the session is readable: what comes next is a command.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.paired
            && self.pending.is_empty()
            && !self.opaque
            && matches!(self.replying, Replying::Between { .. })
    }

    /// The ends of the control session.
    #[must_use]
    pub const fn session(&self) -> &SessionEnds {
        &self.session
    }

    /// Goes on with other rules.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    fn command(&mut self, line: Line<'_>, sink: &mut dyn HelperSink) {
        if line.bytes.starts_with(&[0x16, 0x03]) {
            // A TLS handshake record (RFC 8446, section 5.1).
            if self.guarded {
                sink.event(HelperEvent::UnreadableCommand, Direction::Original);
            } else {
                self.step_aside(Direction::Original, false, sink);
            }
            return;
        }
        let event = |sink: &mut dyn HelperSink, event| sink.event(event, Direction::Original);
        if line::is_ambiguous(line.bytes) {
            event(sink, HelperEvent::UnreadableCommand);
        }
        if !self.paired && self.replying == (Replying::Between { settled: true }) {
            self.pending.clear();
            self.paired = true;
        }
        let command = Command::of(line.bytes);
        let pending = if command.is("PORT") || command.is("EPRT") {
            // A line that is too long was counted.
            match line.whole.then(|| self.active_target(&command)) {
                Some(Ok(target)) => {
                    if self.rules.settings.active_opening == ActiveOpening::Command {
                        self.open(Direction::Reply, target, sink);
                    }
                    Pending::Active(Some(target))
                }
                Some(Err(reason)) => {
                    event(sink, reason);
                    Pending::Active(None)
                }
                None => Pending::Active(None),
            }
        } else if command.is("PASV") {
            let allowed = self.only_extended == OnlyExtended::No;
            if !allowed {
                event(sink, HelperEvent::EpsvAllViolation);
            }
            Pending::Passive(allowed)
        } else if command.is("EPSV") {
            self.extended_passive(&command, sink)
        } else if command.is("LPRT") || command.is("LPSV") {
            event(sink, HelperEvent::LprtRefused);
            Pending::Other
        } else if command.is("AUTH") || command.is("ADAT") {
            self.asked |= command.is("AUTH");
            Pending::Authentication
        } else if command.is("ABOR") {
            self.withdraw_all(Direction::Original, sink);
            Pending::Abort
        } else if command.is("REIN") || command.is("QUIT") || command.is("USER") {
            self.withdraw_all(Direction::Original, sink);
            Pending::Other
        } else {
            if Reply::of(line.bytes).is_some_and(|reply| matches!(reply.code, 227..=229)) {
                event(sink, HelperEvent::WrongDirection);
            }
            Pending::Other
        };
        if !self.paired {
            return;
        }
        if self.pending.len() >= self.rules.settings.max_pipelined {
            event(sink, HelperEvent::PipelineFull);
            self.unpair();
        } else {
            self.pending.push_back(pending);
        }
    }

    fn extended_passive(&mut self, command: &Command<'_>, sink: &mut dyn HelperSink) -> Pending {
        let argument = announce::trimmed(command.argument);
        let v4 = self.session.responder.is_ipv4();
        let flaw = match argument {
            _ if argument.eq_ignore_ascii_case(b"ALL") => {
                if self.only_extended == OnlyExtended::No {
                    self.only_extended = OnlyExtended::Asked;
                }
                return Pending::ExtendedPassiveAll;
            }
            [] => return Pending::ExtendedPassive(true),
            b"1" if v4 => return Pending::ExtendedPassive(true),
            b"2" if !v4 => return Pending::ExtendedPassive(true),
            _ if argument.iter().all(u8::is_ascii_digit) => HelperEvent::EprtUnsupportedFamily,
            _ => HelperEvent::MalformedCommand,
        };
        sink.event(flaw, Direction::Original);
        Pending::ExtendedPassive(false)
    }

    /// Where PORT and EPRT say that the server shall call.
    fn active_target(&self, command: &Command<'_>) -> Result<SocketAddr, HelperEvent> {
        if self.only_extended != OnlyExtended::No {
            return Err(HelperEvent::EpsvAllViolation);
        }
        let announced = if command.is("PORT") {
            announce::port_argument(command.argument)
        } else {
            announce::eprt_argument(command.argument)
        };
        let announced = announced.map_err(|flaw| reason(flaw, HelperEvent::MalformedCommand))?;
        self.target(&announced, self.session.initiator.ip(), false)
    }

    /// The announced address and port if they are acceptable.
    fn target(&self, announced: &Announced, own: IpAddr, listed: bool) -> Result<SocketAddr, HelperEvent> {
        let address = announced.address.map_or(own, |address| address.to_canonical());
        if announced.port == 0 {
            return Err(HelperEvent::NumberOutOfRange);
        }
        if address != own && !(listed && self.rules.allows_passive(address)) {
            return Err(HelperEvent::BounceRefused);
        }
        if announced.port < self.rules.settings.port_floor {
            return Err(HelperEvent::PortBelowFloor);
        }
        Ok(SocketAddr::new(address, announced.port))
    }

    fn reply_line(&mut self, line: Line<'_>, sink: &mut dyn HelperSink) {
        let reply = Reply::of(line.bytes);
        match (self.replying, reply) {
            (Replying::Within(code), Some(reply)) if reply.code == code && !reply.more => {
                self.replying = Replying::Between { settled: false };
                self.reply(&reply, line.whole, sink);
            }
            (Replying::Within(_), _) | (Replying::Unknown, None) => {}
            (Replying::Between { .. } | Replying::Unknown, Some(reply)) if reply.more => {
                self.replying = Replying::Within(reply.code);
            }
            (Replying::Between { .. } | Replying::Unknown, Some(reply)) => {
                self.reply(&reply, line.whole, sink);
            }
            (Replying::Between { .. }, None) => {
                self.replying = Replying::Between { settled: false };
                let command = Command::of(line.bytes);
                if ["PORT", "EPRT", "LPRT"].iter().any(|verb| command.is(verb)) {
                    sink.event(HelperEvent::WrongDirection, Direction::Reply);
                }
            }
        }
    }

    /// A reply has ended.
    fn reply(&mut self, reply: &Reply<'_>, whole: bool, sink: &mut dyn HelperSink) {
        self.replying = Replying::Between {
            settled: !reply.is_preliminary(),
        };
        if reply.is_preliminary() {
            return;
        }
        let agreed = self.asked && reply.code == 234;
        let secured = match reply.code {
            234 => !self.paired || self.pending.contains(&Pending::Authentication),
            235 => !self.paired || self.pending.front() == Some(&Pending::Authentication),
            _ => false,
        };
        if secured && (agreed || !self.guarded) {
            self.step_aside(Direction::Reply, agreed, sink);
            return;
        }
        if reply.code == 421 {
            // The server closes the session, whatever the client has asked (RFC 959, section 5.4).
            self.withdraw_all(Direction::Reply, sink);
        }
        let unsolicited = |sink: &mut dyn HelperSink| {
            sink.event(HelperEvent::UnsolicitedReply, Direction::Reply);
        };
        let announces = matches!(reply.code, 227 | 229);
        if !self.paired {
            if announces {
                unsolicited(sink);
            }
            return;
        }
        if announces {
            while self.pending.front() == Some(&Pending::Abort) {
                self.pending.pop_front();
            }
        }
        match (self.pending.front().copied(), reply.code) {
            (Some(Pending::Passive(allowed)), 227) => {
                self.pending.pop_front();
                let announced = announce::pasv_reply(reply.text);
                self.passive_reply(allowed, whole, announced, sink);
            }
            (Some(Pending::ExtendedPassive(allowed)), 229) => {
                self.pending.pop_front();
                let announced = announce::epsv_reply(reply.text);
                self.passive_reply(allowed, whole, announced, sink);
            }
            (Some(head), code)
                if announces
                    || code < 400 && matches!(head, Pending::Passive(_) | Pending::ExtendedPassive(_)) =>
            {
                unsolicited(sink);
                self.unpair();
                self.replying = Replying::Between { settled: true };
            }
            (Some(head), _) => {
                self.pending.pop_front();
                self.answered(head, reply, sink);
            }
            (None, 421) => {}
            (None, _) => unsolicited(sink),
        }
    }

    /// A command has its reply, and it announces nothing.
    fn answered(&mut self, command: Pending, reply: &Reply<'_>, sink: &mut dyn HelperSink) {
        match command {
            Pending::Active(Some(target)) => match self.rules.settings.active_opening {
                ActiveOpening::Reply if reply.is_completion() => {
                    self.open(Direction::Reply, target, sink);
                }
                ActiveOpening::Command if reply.is_refusal() && self.active == Some(target) => {
                    self.withdraw(Direction::Reply, Direction::Reply, sink);
                }
                _ => {}
            },
            Pending::ExtendedPassiveAll if reply.is_completion() => self.only_extended = OnlyExtended::Yes,
            Pending::ExtendedPassiveAll if self.only_extended == OnlyExtended::Asked => {
                self.only_extended = OnlyExtended::No;
            }
            _ => {}
        }
    }

    fn passive_reply(
        &mut self,
        allowed: bool,
        whole: bool,
        announced: Result<Announced, Flaw>,
        sink: &mut dyn HelperSink,
    ) {
        if !allowed || !whole {
            // The command or the line was counted.
            return;
        }
        let target = announced
            .map_err(|flaw| reason(flaw, HelperEvent::MalformedReply))
            .and_then(|announced| self.target(&announced, self.session.responder.ip(), true));
        match target {
            Ok(target) => self.open(Direction::Original, target, sink),
            Err(reason) => sink.event(reason, Direction::Reply),
        }
    }

    /// The expectation of a data session that this end of the control session opens.
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

    const fn waiting(&mut self, caller: Direction) -> &mut Option<SocketAddr> {
        match caller {
            Direction::Original => &mut self.passive,
            Direction::Reply => &mut self.active,
        }
    }

    fn open(&mut self, caller: Direction, destination: SocketAddr, sink: &mut dyn HelperSink) {
        let from = caller.opposite();
        self.withdraw(caller, from, sink);
        let event = if sink.expect(&self.expectation(caller, destination)) {
            *self.waiting(caller) = Some(destination);
            HelperEvent::ExpectationOpened
        } else {
            HelperEvent::ExpectationRefused
        };
        sink.event(event, from);
    }

    fn withdraw(&mut self, caller: Direction, from: Direction, sink: &mut dyn HelperSink) {
        if let Some(destination) = self.waiting(caller).take()
            && sink.withdraw(&self.expectation(caller, destination))
        {
            sink.event(HelperEvent::ExpectationWithdrawn, from);
        }
    }

    fn withdraw_all(&mut self, from: Direction, sink: &mut dyn HelperSink) {
        for caller in Direction::BOTH {
            self.withdraw(caller, from, sink);
        }
    }

    /// What the next reply answers is not known any more.
    fn unpair(&mut self) {
        self.pending = VecDeque::new();
        self.paired = false;
        if let Replying::Between { .. } = self.replying {
            self.replying = Replying::Between { settled: false };
        }
    }

    fn step_aside(&mut self, from: Direction, agreed: bool, sink: &mut dyn HelperSink) {
        self.withdraw_all(from, sink);
        self.pending = VecDeque::new();
        self.opaque = true;
        self.agreed = agreed;
        sink.event(HelperEvent::Tls, from);
    }
}

/// The event of a flaw.
const fn reason(flaw: Flaw, malformed: HelperEvent) -> HelperEvent {
    match flaw {
        Flaw::Malformed => malformed,
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
        if lost {
            self.unpair();
            if from == Direction::Reply {
                self.replying = Replying::Unknown;
            }
        }
    }

    fn is_opaque(&self) -> bool {
        self.opaque
    }

    fn heap_bytes(&self) -> usize {
        self.pending.capacity() * size_of::<Pending>()
    }
}
