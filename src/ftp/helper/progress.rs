//! Position of a helper between commands and replies, from which another engine can continue.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[cfg(feature = "snapshot")]
use serde::{Deserialize, Serialize};

use super::announce::{self, ReplyAnnouncement};
use super::line::{Command, Reply};
use super::pending::{Form, Pending, Queue};
use super::{Ftp, Greeting, OnlyExtended, Replying, Rules, reason};
use crate::flow::Direction;
use crate::ftp::{HelperEvent, Line, SessionEnds};

/// Maximum number of saved commands without a reply: four bits each.
const MAX_PENDING: usize = 15;

/// Position of a control session between commands and replies, as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct Progress {
    /// Commands without a reply, four bits each, the oldest lowest; 0 after the last.
    pending: u64,
    /// The code of a multi-line reply that has begun, and whether its first line has ended with a
    /// line feed alone.
    within: Option<(u16, bool)>,
    /// The last reply was final.
    settled: bool,
    /// The server has greeted (2), or its greeting is unknown (1).
    greeting: u8,
    /// The client has sent EPSV ALL (1), and the server has agreed (2).
    only_extended: u8,
    /// The client has sent AUTH.
    asked: bool,
    /// The client may have sent a line feed alone.
    echoes_lf: bool,
    /// The server's last line has ended with a line feed alone.
    after_lf: bool,
    /// Number of refused PORT and EPRT.
    refused: u16,
    /// The announced port of a data session in active mode that may still open.
    active: Option<u16>,
    /// The port of PORT or EPRT that waits for its reply.
    waiting: Option<u16>,
    /// The announced port of a data session in passive mode that may still open.
    passive: Option<u16>,
    /// The listed address to which the client is also expected to connect.
    passive_address: Option<IpAddr>,
}

/// Position at which a control session continues. Directions are original first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "snapshot", derive(Serialize, Deserialize))]
pub struct SavedControl {
    /// The number of the next byte of each direction, if a line begins with both.
    pub lines: Option<[u32; 2]>,
    /// The server has answered every command.
    pub at_rest: bool,
    /// The ends have agreed on encryption, or inspection has ended permanently: no more data is
    /// read.
    pub encrypted: bool,
    /// Sequence number of each direction from which on no data passes, because an announcement was
    /// refused.
    pub stopped: [Option<u32>; 2],
    /// The responder ends lines with a line feed alone.
    pub bare_lf: bool,
    /// Commands without an answer, and announcements, if they are known.
    pub progress: Option<Progress>,
}

impl Pending {
    const fn code(self) -> u64 {
        match self {
            Self::Connection => 1,
            Self::Active(Some(_)) => 2,
            Self::Active(None) => 3,
            Self::Passive { form, allowed } => match (form, allowed) {
                (Form::Plain, true) => 4,
                (Form::Plain, false) => 5,
                (Form::Extended, true) => 6,
                (Form::Extended, false) => 7,
            },
            Self::ExtendedPassiveAll => 8,
            Self::Authentication => 9,
            Self::Transfer => 10,
            Self::Abort => 11,
            Self::Reinitialize => 12,
            Self::Empty => 13,
            Self::Other => 14,
        }
    }

    fn of_code(code: u64, active: Option<u16>) -> Option<Self> {
        let passive = |form, allowed| Self::Passive { form, allowed };
        Some(match code {
            1 => Self::Connection,
            2 => Self::Active(active),
            3 => Self::Active(None),
            4 => passive(Form::Plain, true),
            5 => passive(Form::Plain, false),
            6 => passive(Form::Extended, true),
            7 => passive(Form::Extended, false),
            8 => Self::ExtendedPassiveAll,
            9 => Self::Authentication,
            10 => Self::Transfer,
            11 => Self::Abort,
            12 => Self::Reinitialize,
            13 => Self::Empty,
            14 => Self::Other,
            _ => return None,
        })
    }
}

impl Ftp {
    /// Returns the position of the session; `None` if it cannot be saved: commands and replies are
    /// not paired, too many commands wait, or a reply that has not ended announces something.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        if !self.paired || self.opaque || self.pending.len() > MAX_PENDING {
            return None;
        }
        let (within, settled) = match self.replying {
            Replying::Between { settled } => (None, settled),
            Replying::Within { .. } if self.told != ReplyAnnouncement::Nothing => return None,
            Replying::Within { code, bare_lf } => (Some((code, bare_lf)), false),
            Replying::Unknown => return None,
        };
        let port = |pending: &Pending| match pending {
            Pending::Active(port) => *port,
            _ => None,
        };
        Some(Progress {
            pending: self
                .pending
                .iter()
                .rev()
                .fold(0, |codes, pending| codes << 4 | pending.code()),
            within,
            settled,
            greeting: match self.greeting {
                Greeting::Awaited => 0,
                Greeting::Missed => 1,
                Greeting::Seen => 2,
            },
            only_extended: match self.only_extended {
                OnlyExtended::No => 0,
                OnlyExtended::Asked => 1,
                OnlyExtended::Yes => 2,
            },
            asked: self.asked,
            echoes_lf: self.echoes_lf,
            after_lf: self.after_lf,
            refused: self.refused,
            active: self.active,
            waiting: self.pending.iter().rev().find_map(port),
            passive: self.passive,
            passive_address: self.passive_address,
        })
    }

    /// Creates the helper of a session that continues from a saved position. State that cannot be
    /// saved is omitted: no reply then counts before both ends are synchronized again.
    #[must_use]
    pub fn resumed(rules: Arc<Rules>, session: SessionEnds, progress: &Progress) -> Self {
        let mut helper = Self::at_rest(rules, session);
        let could = |caller, address, port: Option<u16>| {
            let end = SocketAddr::new(address, port?);
            let expectation = helper.expectation(caller, end);
            helper.rules.could_announce(&expectation).then_some(end)
        };
        let port = |caller, port| could(caller, helper.called(caller), port).map(|end| end.port());
        let active = port(Direction::Reply, progress.active);
        let waiting = port(Direction::Reply, progress.waiting);
        let passive = port(Direction::Original, progress.passive);
        let passive_address = progress
            .passive_address
            .and_then(|address| could(Direction::Original, address, passive))
            .map(|end| end.ip());
        let codes = (0..MAX_PENDING).map(|place| progress.pending >> (4 * place) & 0xf);
        let codes = codes.take_while(|code| *code != 0);
        let pending: Option<Queue> = codes.map(|code| Pending::of_code(code, waiting)).collect();
        let Some(pending) = pending else {
            return Self::unpaired(helper.rules, session);
        };
        helper.pending = pending;
        helper.replying = match progress.within {
            Some((code, bare_lf)) => Replying::Within { code, bare_lf },
            None => Replying::Between {
                settled: progress.settled,
            },
        };
        helper.greeting = match progress.greeting {
            0 => Greeting::Awaited,
            1 => Greeting::Missed,
            _ => Greeting::Seen,
        };
        helper.only_extended = match progress.only_extended {
            0 => OnlyExtended::No,
            1 => OnlyExtended::Asked,
            _ => OnlyExtended::Yes,
        };
        helper.asked = progress.asked;
        helper.echoes_lf = progress.echoes_lf;
        helper.after_lf = progress.after_lf;
        helper.refused = progress.refused;
        helper.active = active;
        helper.passive = passive;
        helper.passive_address = passive_address;
        helper
    }

    /// Returns the fault of the rest of a line whose beginning passed before the session was read.
    /// Such a line opens nothing, but if it is complete by itself, it must not contain a refused
    /// announcement. The greeting does not matter, since it passed unread too.
    pub(super) fn flaw_of_rest(&self, from: Direction, line: Line<'_>) -> Option<HelperEvent> {
        match from {
            Direction::Original => {
                let command = Command::of(line.bytes);
                if command.is("LPRT") {
                    return Some(HelperEvent::LprtRefused);
                }
                if !command.is("PORT") && !command.is("EPRT") {
                    return None;
                }
                if !line.whole {
                    return Some(HelperEvent::LineTooLong);
                }
                self.client_port(&command).err()
            }
            Direction::Reply => {
                let reply = Reply::of(line.bytes)?;
                let mut told = ReplyAnnouncement::Nothing;
                told.add(announce::of_reply(Form::of(reply.code)?, reply.text));
                match told {
                    ReplyAnnouncement::Nothing => None,
                    ReplyAnnouncement::One { address, port } => {
                        self.passive_port(address, port).err()
                    }
                    ReplyAnnouncement::Flawed(flaw) => {
                        Some(reason(flaw, HelperEvent::MalformedReply))
                    }
                }
            }
        }
    }
}
