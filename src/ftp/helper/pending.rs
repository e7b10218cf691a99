//! Commands that wait for their replies, and the pairing of replies and commands.
//!
//! Replies come in the order of their commands (RFC 959, section 5.4), but healthy sessions
//! deviate: an empty line is answered or not, ABOR has no reply, or one or two beside that of the
//! transfer, and late replies arrive while another command waits. A reply therefore belongs to the
//! first command that can have it, and a 227 or 229 to a passive command at any position. Commands
//! that wait before the answered one get no reply.

use std::collections::VecDeque;

/// The two forms of passive announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// PASV and 227.
    Plain,
    /// EPSV and 229.
    Extended,
}

impl Form {
    /// Returns the form of an announcing reply, or `None` for any other code.
    pub(super) const fn of(code: u16) -> Option<Self> {
        match code {
            227 => Some(Self::Plain),
            229 => Some(Self::Extended),
            _ => None,
        }
    }
}

/// Command that waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// The connection itself: 220.
    Connection,
    /// PORT or EPRT, with the announced port if the announcement is acceptable.
    Active(Option<u16>),
    /// PASV or EPSV.
    Passive {
        /// The requested form. Some servers answer in the other one.
        form: Form,
        /// Whether the reply may announce anything.
        allowed: bool,
    },
    /// EPSV ALL.
    ExtendedPassiveAll,
    /// AUTH or ADAT.
    Authentication,
    /// A command that opens a data connection, such as RETR and LIST.
    Transfer,
    /// ABOR.
    Abort,
    /// REIN.
    Reinitialize,
    /// A line without a command.
    Empty,
    /// Any other command.
    Other,
}

impl Pending {
    /// Returns whether the server may leave it unanswered.
    const fn is_optional(self) -> bool {
        matches!(self, Self::Abort | Self::Empty)
    }

    const fn is_passive(self) -> bool {
        matches!(self, Self::Passive { .. })
    }

    /// Returns whether a final reply that announces nothing is most likely an answer to it.
    const fn can_have(self, code: u16) -> bool {
        match self {
            Self::Empty => false,
            // 500 and similar codes are more likely an answer to a later command.
            Self::Abort => matches!(code, 225 | 226 | 425 | 426 | 451),
            // 426 belongs to an aborted transfer.
            Self::Passive { .. } => code != 426 && matches!(code, 400..=599),
            _ => true,
        }
    }

    /// Returns whether a final reply may be an answer to it if it fits no other command.
    const fn may_have(self, code: u16) -> bool {
        match self {
            Self::Empty => matches!(code, 500..=599),
            Self::Abort => matches!(code, 400..=599),
            _ => false,
        }
    }
}

/// The commands that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Pending>);

impl Queue {
    /// Returns the queue of a session whose server has yet to greet.
    pub(super) fn of_new_session() -> Self {
        Self(VecDeque::from([Pending::Connection]))
    }

    /// Adds a command; returns `false` if `most` commands wait already.
    pub(super) fn push(&mut self, command: Pending, most: usize) -> bool {
        if command.is_optional() && self.0.back() == Some(&command) {
            return true;
        }
        if self.0.len() >= most {
            self.0.retain(|waiting| !waiting.is_optional());
        }
        let has_room = self.0.len() < most;
        if has_room {
            self.0.push_back(command);
        }
        has_room
    }

    /// Takes the passive command that a 227 or 229 answers, with all commands that wait before it.
    /// Returns whether its reply may announce anything, or `None` if no passive command waits.
    pub(super) fn take_passive(&mut self, form: Form) -> Option<bool> {
        let asked_for =
            |waiting: &Pending| matches!(waiting, Pending::Passive { form: of, .. } if *of == form);
        let place = self.0.iter().position(asked_for);
        let place = place.or_else(|| self.0.iter().position(|waiting| waiting.is_passive()))?;
        match self.0.drain(..=place).next_back() {
            Some(Pending::Passive { allowed, .. }) => Some(allowed),
            _ => None,
        }
    }

    /// Takes the command that a final reply answers, with all commands that wait before it except
    /// passive ones, which a late reply to an earlier command does not answer. Returns `None` for a
    /// reply that no waiting command can have.
    pub(super) fn answer(&mut self, code: u16) -> Option<Pending> {
        let likely = self.0.iter().position(|waiting| waiting.can_have(code));
        let possible = self.0.iter().position(|waiting| waiting.may_have(code));
        let place = match (likely, possible) {
            (Some(likely), Some(possible)) if possible < likely && self.is_passive_at(likely) => {
                possible
            }
            (Some(place), _) | (None, Some(place)) => place,
            (None, None) => return None,
        };
        let answered = self.0.remove(place);
        for before in (0..place).rev() {
            if !self.is_passive_at(before) {
                self.0.remove(before);
            }
        }
        answered
    }

    fn is_passive_at(&self, place: usize) -> bool {
        self.0
            .get(place)
            .is_some_and(|waiting| waiting.is_passive())
    }

    /// Notes a 125 or 150: a transfer has begun, so commands before it no longer get a reply.
    pub(super) fn transfer_begins(&mut self) {
        let place = self.0.iter().position(|waiting| {
            !matches!(waiting, Pending::Other | Pending::Abort | Pending::Empty)
        });
        if let Some(place) = place
            && self.0.get(place) == Some(&Pending::Transfer)
        {
            self.0.drain(..place);
        }
    }

    /// Returns the number of waiting commands.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the commands that wait, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Pending> {
        self.0.iter()
    }

    /// Returns whether a command waits.
    pub(super) fn contains(&self, command: Pending) -> bool {
        self.0.contains(&command)
    }

    /// Returns the oldest command.
    pub(super) fn first(&self) -> Option<Pending> {
        self.0.front().copied()
    }

    /// Returns whether only the server's greeting is awaited.
    pub(super) fn is_new(&self) -> bool {
        self.0.len() == 1 && self.first() == Some(Pending::Connection)
    }

    /// Returns whether no command waits that must be answered.
    pub(super) fn is_at_rest(&self) -> bool {
        self.0.iter().all(|waiting| waiting.is_optional())
    }

    /// Removes all commands, and keeps the memory for others.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Pending>()
    }
}

impl FromIterator<Pending> for Queue {
    fn from_iter<I: IntoIterator<Item = Pending>>(commands: I) -> Self {
        Self(commands.into_iter().collect())
    }
}
