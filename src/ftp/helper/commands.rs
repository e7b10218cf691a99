//! Effects of the client's lines.

use core::net::IpAddr;

use super::announce;
use super::line::{self, Command, Reply};
use super::pending::{Form, Pending};
use super::{ActiveOpening, Ftp, Greeting, OnlyExtended, Replying, reason};
use crate::flow::Direction;
use crate::ftp::stream::Line;
use crate::ftp::{HelperEvent, HelperSink};

/// Commands that use a data connection (RFC 959, section 4.1.3; RFC 3659).
const TRANSFERS: [&str; 7] = ["RETR", "STOR", "LIST", "NLST", "MLSD", "APPE", "STOU"];

impl Ftp {
    /// Reads a line of the client.
    pub(super) fn command(&mut self, line: Line<'_>, sink: &mut dyn HelperSink) {
        self.echoes_lf |= line.bare_lf || !line.whole || line.bytes.contains(&b'\n');
        if line.bytes.starts_with(&[0x16, 0x03]) {
            // A TLS handshake record (RFC 8446, section 5.1).
            if self.guarded {
                sink.event(HelperEvent::UnreadableCommand, Direction::Original);
            } else {
                self.stop_reading(Direction::Original, false, sink);
            }
            return;
        }
        if line::is_http(line.bytes) || line::is_binary(line.bytes) {
            self.end_inspection(HelperEvent::NotFtp, sink);
            return;
        }
        let pending = if line::is_blank(line.bytes) {
            Pending::Empty
        } else {
            if line::is_ambiguous(line.bytes) {
                sink.event(HelperEvent::UnreadableCommand, Direction::Original);
            }
            if !self.paired && self.replying == (Replying::Between { settled: true }) {
                self.pending.clear();
                self.paired = true;
            }
            self.asked_by(line, sink)
        };
        if !self.paired || self.opaque {
            return;
        }
        if !self
            .pending
            .push(pending, self.rules.settings.max_pipelined)
        {
            sink.event(HelperEvent::PipelineFull, Direction::Original);
            self.unpair();
        }
    }

    /// Executes a command and returns the entry that its reply has to answer.
    fn asked_by(&mut self, line: Line<'_>, sink: &mut dyn HelperSink) -> Pending {
        let event = |sink: &mut dyn HelperSink, event| sink.event(event, Direction::Original);
        let command = Command::of(line.bytes);
        if command.is("PORT") || command.is("EPRT") {
            // A line that is too long was counted.
            let port = if line.whole {
                self.announced_by(&command, sink)
            } else {
                None
            };
            Pending::Active(port)
        } else if command.is("PASV") {
            let allowed = self.only_extended == OnlyExtended::No;
            if !allowed {
                event(sink, HelperEvent::EpsvAllViolation);
            }
            Pending::Passive {
                form: Form::Plain,
                allowed,
            }
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
        } else if command.is("REIN") {
            self.withdraw_all(Direction::Original, sink);
            Pending::Reinitialize
        } else if command.is("QUIT") || command.is("USER") {
            self.withdraw_all(Direction::Original, sink);
            Pending::Other
        } else if TRANSFERS.iter().any(|verb| command.is(verb)) {
            Pending::Transfer
        } else {
            if Reply::of(line.bytes).is_some_and(|reply| matches!(reply.code, 227..=229)) {
                event(sink, HelperEvent::WrongDirection);
            }
            Pending::Other
        }
    }

    /// Returns the port that PORT or EPRT announces, and opens it if it opens now. `None` if it is
    /// refused.
    fn announced_by(&mut self, command: &Command<'_>, sink: &mut dyn HelperSink) -> Option<u16> {
        match self.active_port(command) {
            Ok(port) => {
                if self.rules.settings.active_opening == ActiveOpening::Command {
                    self.open_active(port, sink);
                }
                Some(port)
            }
            Err(reason) => {
                sink.event(reason, Direction::Original);
                self.refused = self.refused.saturating_add(1);
                let most = self.rules.settings.max_refused;
                if most != 0 && self.refused >= most {
                    self.end_inspection(HelperEvent::TooManyRefused, sink);
                }
                None
            }
        }
    }

    fn extended_passive(&mut self, command: &Command<'_>, sink: &mut dyn HelperSink) -> Pending {
        let argument = announce::trimmed(command.argument);
        let v4 = self.session.responder.is_ipv4();
        let asked = |allowed| Pending::Passive {
            form: Form::Extended,
            allowed,
        };
        let flaw = match argument {
            _ if argument.eq_ignore_ascii_case(b"ALL") => {
                if self.only_extended == OnlyExtended::No {
                    self.only_extended = OnlyExtended::Asked;
                }
                return Pending::ExtendedPassiveAll;
            }
            [] => return asked(true),
            b"1" if v4 => return asked(true),
            b"2" if !v4 => return asked(true),
            _ if argument.iter().all(u8::is_ascii_digit) => HelperEvent::EprtUnsupportedFamily,
            _ => HelperEvent::MalformedCommand,
        };
        sink.event(flaw, Direction::Original);
        asked(false)
    }

    /// Returns the client's port for the server's connection, from PORT or EPRT.
    fn active_port(&self, command: &Command<'_>) -> Result<u16, HelperEvent> {
        if self.greeting != Greeting::Seen {
            return Err(HelperEvent::NotGreeted);
        }
        self.client_port(command)
    }

    /// Returns the client's port for the server's connection, whether or not the server has
    /// greeted.
    pub(super) fn client_port(&self, command: &Command<'_>) -> Result<u16, HelperEvent> {
        if self.only_extended != OnlyExtended::No {
            return Err(HelperEvent::EpsvAllViolation);
        }
        let announced = if command.is("PORT") {
            announce::port_argument(command.argument)
        } else {
            announce::eprt_argument(command.argument)
        };
        let announced = announced.map_err(|flaw| reason(flaw, HelperEvent::MalformedCommand))?;
        let own = self.session.initiator.ip();
        let is_meant = |address: IpAddr| address == own || self.rules.allows_active(address);
        if announced.port == 0 {
            return Err(HelperEvent::NumberOutOfRange);
        }
        if !announced
            .address
            .is_none_or(|address| is_meant(address.to_canonical()))
        {
            return Err(HelperEvent::BounceRefused);
        }
        self.above_floor(announced.port)
    }
}
