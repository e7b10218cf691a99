//! Kinds of events, and the classes that have a share each.

use portcullis::DropReason;
use portcullis::geneve::front::Refusal;

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A session was opened.
    Opened,
    /// A session has ended.
    Ended,
    /// The policy has denied or rejected a packet.
    Denied,
    /// The policy has admitted a session for audit.
    Audited,
    /// The engine has dropped a packet for another reason than the policy.
    Dropped,
    /// The engine has rejected a packet for another reason than the policy.
    Rejected,
    /// The front end has refused a datagram.
    Refused,
    /// A check that only counts has failed, and the packet was forwarded.
    Tolerated,
    /// A RST was made for one end of a session that has ended.
    Reset,
    /// A new session would have exceeded a limit.
    Limit,
    /// A helper has found something in a control session.
    Helper,
    /// Packets of a path of which only one direction passes here.
    Asymmetry,
    /// A packet is held until its fragments, or an answer of the store, have come.
    Held,
    /// A packet was forwarded.
    Forwarded,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 14] = [
        Self::Opened,
        Self::Ended,
        Self::Denied,
        Self::Audited,
        Self::Dropped,
        Self::Rejected,
        Self::Refused,
        Self::Tolerated,
        Self::Reset,
        Self::Limit,
        Self::Helper,
        Self::Asymmetry,
        Self::Held,
        Self::Forwarded,
    ];

    /// Returns the stable name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Ended => "ended",
            Self::Denied => "denied",
            Self::Audited => "audited",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Tolerated => "tolerated",
            Self::Reset => "reset",
            Self::Limit => "limit",
            Self::Helper => "helper",
            Self::Asymmetry => "asymmetry",
            Self::Held => "held",
            Self::Forwarded => "forwarded",
        }
    }

    /// Returns the kind with a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u16);

impl Kinds {
    /// Returns no kinds.
    pub(crate) const NONE: Self = Self(0);
    /// Kinds that a client receives without asking for them: all but those of ordinary packets.
    pub(crate) const USUAL: Self = Self(
        ((1 << Kind::ALL.len()) - 1) & !(1 << Kind::Held as u16) & !(1 << Kind::Forwarded as u16),
    );

    /// Returns whether a kind is in the set.
    #[inline]
    pub(crate) const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Returns the set with one kind more.
    pub(crate) const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// Returns the kinds of either set.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Class of events, which has a share of its own: a drop reason, a refusal, or a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class(u16);

impl Class {
    /// Number of classes.
    pub(crate) const COUNT: usize = DropReason::COUNT + Refusal::COUNT + Kind::ALL.len();

    /// Returns the class of a drop reason.
    #[inline]
    pub(crate) fn of_reason(reason: DropReason) -> Self {
        Self(reason.index() as u16)
    }

    /// Returns the class of a refusal.
    #[inline]
    pub(crate) const fn of_refusal(refusal: Refusal) -> Self {
        Self((DropReason::COUNT + refusal.index()) as u16)
    }

    /// Returns the class of events without a reason.
    #[inline]
    pub(crate) const fn of_kind(kind: Kind) -> Self {
        Self((DropReason::COUNT + Refusal::COUNT) as u16 + kind as u16)
    }

    /// Returns a number below [`Class::COUNT`].
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_and_class_has_its_own_name_and_number() {
        let names: HashSet<_> = Kind::ALL.map(Kind::name).into_iter().collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
            assert_eq!(
                Kinds::USUAL.has(kind),
                !matches!(kind, Kind::Held | Kind::Forwarded)
            );
        }
        let classes = DropReason::all().map(Class::of_reason);
        let classes = classes.chain(Refusal::all().map(Class::of_refusal));
        let classes = classes.chain(Kind::ALL.map(Class::of_kind));
        let numbers: Vec<_> = classes.map(Class::index).collect();
        assert_eq!(numbers, (0..Class::COUNT).collect::<Vec<_>>());
    }
}
