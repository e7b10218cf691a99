//! The claim that a record makes to a flow.

use std::time::{Duration, SystemTime};

/// Claim of a record to a flow: the connection that the record describes, and the number of times
/// that the connection has moved.
///
/// A flow can have a record of an earlier connection: its owner died, or its deletion was lost.
/// Epochs count the moves of one connection, so they say nothing about two of them. The times at
/// which the connections began do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The number of times that the session was taken over by another engine.
    pub epoch: u64,
    /// The wall-clock time of the session's first packet.
    pub began: SystemTime,
    /// Whether the session was adopted midstream, so that its connection may be older than
    /// [`Self::began`].
    pub adopted: bool,
}

impl Claim {
    /// The most time by which two claims to one connection differ in [`Self::began`], since the
    /// clocks of their hosts do.
    pub const SLACK: Duration = Duration::from_secs(5);

    /// Returns whether this is a claim to a connection that began after that of the other claim.
    #[must_use]
    pub fn is_of_later_connection(&self, other: &Self) -> bool {
        let later_by = self.began.duration_since(other.began);
        !self.adopted && later_by.is_ok_and(|by| by > Self::SLACK)
    }

    /// Returns whether a session with the other claim gives way: this is a claim to a later
    /// connection, or to the same one with a higher epoch.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        self.is_of_later_connection(other)
            || !other.is_of_later_connection(self) && self.epoch > other.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(began: u64, epoch: u64) -> Claim {
        Claim {
            epoch,
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(began),
            adopted: false,
        }
    }

    #[test]
    fn a_later_connection_beats_any_epoch_and_the_epoch_decides_about_one_connection() {
        let (early, late) = (claim(100, 9), claim(106, 0));
        assert!(late.beats(&early) && !early.beats(&late));
        let (one, moved) = (claim(105, 0), claim(100, 1));
        assert!(moved.beats(&one) && !one.beats(&moved));
        assert!(!one.beats(&one), "equal claims");
    }

    #[test]
    fn the_beginning_of_an_adopted_session_is_no_beginning_of_its_connection() {
        let adopted = Claim {
            adopted: true,
            ..claim(200, 0)
        };
        let moved = claim(100, 1);
        assert!(moved.beats(&adopted) && !adopted.beats(&moved));
        let later = claim(300, 0);
        let adopted = Claim {
            epoch: 9,
            ..adopted
        };
        assert!(later.beats(&adopted), "it was adopted before that");
    }
}
