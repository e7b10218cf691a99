//! Reasons for the end of a session.

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Its lifetime passed without a packet.
    Timeout,
    /// Both ends closed it with a FIN, and its TIME_WAIT passed.
    Closed,
    /// A RST closed it.
    Reset,
    /// A RST was the only answer to its first packet.
    Refused,
    /// A new connection took its ports.
    Reused,
    /// The table was full, and it was worth less than a new session.
    Evicted,
    /// A reload brought a policy that does not admit it.
    Revoked,
    /// An operator ended it.
    Deleted,
    /// A control session announced what is refused, or said what cannot be read, and its rule lets
    /// no such session go on (`ftp.refused = "drop"`).
    FtpRefused,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Refused,
        Self::Reused,
        Self::Evicted,
        Self::Revoked,
        Self::Deleted,
        Self::FtpRefused,
    ];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Reused => "reused",
            Self::Evicted => "evicted",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::FtpRefused => "ftp_refused",
        }
    }

    /// Whether both ends of an established TCP session are told with a RST: they cannot know of its end.
    pub(crate) const fn is_told(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Revoked | Self::Deleted | Self::FtpRefused
        )
    }
}
