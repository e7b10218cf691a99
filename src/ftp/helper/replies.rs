//! Effects of the server's lines.

use core::net::IpAddr;

use super::announce::{self, ReplyAnnouncement};
use super::line::{Command, Reply};
use super::pending::{Form, Pending};
use super::{ActiveOpening, Ftp, Greeting, OnlyExtended, Replying, reason};
use crate::flow::Direction;
use crate::ftp::stream::Line;
use crate::ftp::{HelperEvent, HelperSink};

/// The end of a reply.
struct Ended<'a> {
    reply: Reply<'a>,
    /// Whether its last line is not longer than lines may be.
    whole: bool,
    /// See [`Ftp::is_doubtful`].
    doubtful: bool,
    /// The number of the byte after it.
    next: crate::packet::SeqNum,
}

impl Ftp {
    /// Reads a line of the server.
    pub(super) fn reply_line(&mut self, line: Line<'_>, sink: &mut dyn HelperSink) {
        let doubtful = self.is_doubtful();
        self.after_lf = line.bare_lf;
        if doubtful && self.echoes_lf {
            // The rest of a line that echoes the client's input.
            return;
        }
        let reply = Reply::of(line.bytes);
        match (self.replying, reply) {
            (Replying::Within { code, bare_lf }, Some(reply))
                if reply.code == code && !reply.more && (bare_lf || !doubtful) =>
            {
                self.replying = Replying::Between { settled: false };
                self.ended(&line, reply, doubtful, sink);
            }
            (Replying::Within { code, .. }, _) => {
                if !doubtful {
                    let text = reply.filter(|reply| reply.code == code);
                    self.tell(
                        code,
                        text.map_or(line.bytes, |reply| reply.text),
                        line.whole,
                    );
                }
            }
            (Replying::Unknown, None) => {}
            (Replying::Between { .. } | Replying::Unknown, Some(reply)) if reply.more => {
                self.told = ReplyAnnouncement::Nothing;
                self.replying = Replying::Within {
                    code: reply.code,
                    bare_lf: line.bare_lf,
                };
                self.tell(reply.code, reply.text, line.whole && !doubtful);
            }
            (Replying::Between { .. } | Replying::Unknown, Some(reply)) => {
                self.told = ReplyAnnouncement::Nothing;
                self.ended(&line, reply, doubtful, sink);
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

    /// Returns whether the next line of the server follows a line feed alone, which may be part of
    /// a text. Such a line announces nothing: servers that treat a line feed as text echo it, and
    /// so let their client write lines (CERT VU#328867).
    fn is_doubtful(&self) -> bool {
        self.after_lf && !self.ends_lf && !self.rules.settings.server_bare_lf && !self.greets()
    }

    /// Returns whether the server is greeting and the client has sent nothing yet.
    fn greets(&self) -> bool {
        self.greeting != Greeting::Seen && self.paired && self.pending.is_new() && !self.echoes_lf
    }

    /// Records the announcement of a reply line.
    fn tell(&mut self, code: u16, text: &[u8], whole: bool) {
        match Form::of(code) {
            Some(form) if whole => self.told.add(announce::of_reply(form, text)),
            Some(_) => self.told = ReplyAnnouncement::Flawed(announce::Flaw::Malformed),
            None => {}
        }
    }

    fn ended(
        &mut self,
        line: &Line<'_>,
        reply: Reply<'_>,
        doubtful: bool,
        sink: &mut dyn HelperSink,
    ) {
        if line.whole {
            self.tell(reply.code, reply.text, true);
        }
        let ended = Ended {
            reply,
            whole: line.whole,
            doubtful,
            next: line.next,
        };
        self.reply(&ended, line.bare_lf, sink);
    }

    /// Acts on a reply that has ended.
    fn reply(&mut self, ended: &Ended<'_>, bare_lf: bool, sink: &mut dyn HelperSink) {
        let reply = &ended.reply;
        self.replying = Replying::Between {
            settled: !reply.is_preliminary(),
        };
        if reply.is_preliminary() {
            if self.paired && matches!(reply.code, 125 | 150) {
                self.pending.transfer_begins();
            }
            return;
        }
        self.greeted(reply.code, bare_lf);
        let agreed = self.asked && reply.code == 234;
        let secured = match reply.code {
            234 => !self.paired || self.pending.contains(Pending::Authentication),
            235 => !self.paired || self.pending.first() == Some(Pending::Authentication),
            _ => false,
        };
        if secured && (agreed || !self.guarded) {
            self.stop_reading(Direction::Reply, agreed, sink);
            if agreed {
                self.follow_server(ended.next);
            }
            return;
        }
        if reply.code == 421 {
            // The server closes the session, regardless of the client's command (RFC 959, section
            // 5.4).
            self.withdraw_all(Direction::Reply, sink);
            self.pending.clear();
            return;
        }
        let form = Form::of(reply.code);
        if !self.paired {
            if form.is_some() && self.told != ReplyAnnouncement::Nothing {
                sink.event(HelperEvent::UnsolicitedReply, Direction::Reply);
            }
            return;
        }
        if let Some(form) = form
            && self.announcement(form, ended, sink)
        {
            return;
        }
        match self.pending.answer(reply.code) {
            Some(command) => self.answered(command, reply, sink),
            None => sink.event(HelperEvent::StrayReply, Direction::Reply),
        }
    }

    /// Notes the server's greeting: a 220, or any reply if the greeting is unknown.
    fn greeted(&mut self, code: u16, bare_lf: bool) {
        if self.greeting == Greeting::Seen || code != 220 && self.greeting == Greeting::Awaited {
            return;
        }
        // The greeting shows how the server ends its lines.
        self.ends_lf = bare_lf && self.greets();
        self.greeting = Greeting::Seen;
    }

    /// Acts on a 227 or 229; returns `false` for one that announces nothing and that no passive
    /// command waits for, such as `227 Logout`.
    fn announcement(&mut self, form: Form, ended: &Ended<'_>, sink: &mut dyn HelperSink) -> bool {
        let Some(allowed) = self.pending.take_passive(form) else {
            let is_other = self.told == ReplyAnnouncement::Nothing
                || self.pending.first() == Some(Pending::ExtendedPassiveAll);
            if !is_other {
                sink.event(HelperEvent::UnsolicitedReply, Direction::Reply);
            }
            return !is_other;
        };
        if !allowed || !ended.whole {
            // The command or the line was counted.
            return true;
        }
        let announced = match self.told {
            _ if ended.doubtful => Err(HelperEvent::MalformedReply),
            _ if self.greeting != Greeting::Seen => Err(HelperEvent::NotGreeted),
            ReplyAnnouncement::One { address, port } => self.passive_port(address, port),
            ReplyAnnouncement::Flawed(flaw) => Err(reason(flaw, HelperEvent::MalformedReply)),
            ReplyAnnouncement::Nothing => Err(HelperEvent::MalformedReply),
        };
        match (announced, self.told) {
            (Ok(port), ReplyAnnouncement::One { address, .. }) => {
                self.open_passive(port, address, sink)
            }
            (Ok(port), _) => self.open_passive(port, None, sink),
            (Err(reason), _) => sink.event(reason, Direction::Reply),
        }
        true
    }

    /// Returns the server's port for the client's connection. The connection is expected at the
    /// server's address here, not at the announced one: servers behind NAT announce their public
    /// address, and clients ignore it.
    pub(super) fn passive_port(
        &self,
        address: Option<IpAddr>,
        port: u16,
    ) -> Result<u16, HelperEvent> {
        let own = self.session.responder.ip();
        let is_meant = |address: IpAddr| {
            address == own || self.rules.allows_passive(address) || announce::is_host(address)
        };
        if port == 0 {
            return Err(HelperEvent::NumberOutOfRange);
        }
        if !address.is_none_or(|address| is_meant(address.to_canonical())) {
            return Err(HelperEvent::BounceRefused);
        }
        self.above_floor(port)
    }

    /// Acts on the reply to a command; the reply announces nothing.
    fn answered(&mut self, command: Pending, reply: &Reply<'_>, sink: &mut dyn HelperSink) {
        match command {
            Pending::Active(Some(port)) => match self.rules.settings.active_opening {
                ActiveOpening::Reply if reply.is_completion() => self.open_active(port, sink),
                ActiveOpening::Command if reply.is_refusal() && self.active == Some(port) => {
                    self.withdraw(Direction::Reply, Direction::Reply, sink);
                }
                _ => {}
            },
            Pending::ExtendedPassiveAll if reply.is_completion() => {
                self.only_extended = OnlyExtended::Yes
            }
            Pending::ExtendedPassiveAll if self.only_extended == OnlyExtended::Asked => {
                self.only_extended = OnlyExtended::No;
            }
            Pending::Reinitialize if reply.is_completion() => self.only_extended = OnlyExtended::No,
            _ => {}
        }
    }
}
