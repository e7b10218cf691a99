//! Reasons for the end of a session.

/// Reason for the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The session's lifetime passed without a packet.
    Timeout,
    /// Both ends closed the connection with a FIN, and its TIME_WAIT passed.
    Closed,
    /// A RST closed the connection.
    Reset,
    /// A RST was the only answer to the session's first packet.
    Refused,
    /// A new connection took the session's ports.
    Reused,
    /// The table was full, and the session was worth less than a new one.
    Evicted,
    /// A reload brought a policy that does not admit the session.
    Revoked,
    /// An operator ended the session.
    Deleted,
    /// A control session announced a refused session, or sent data that cannot be read, and its
    /// rule lets no such session continue (`ftp.refused = "drop"`).
    FtpRefused,
    /// Another appliance has taken the session over, so it ends here silently: neither end gets a
    /// RST, and a later packet is not answered as one of an ended session.
    Moved,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Refused,
        Self::Reused,
        Self::Evicted,
        Self::Revoked,
        Self::Deleted,
        Self::FtpRefused,
        Self::Moved,
    ];

    /// Returns the stable name.
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
            Self::Moved => "moved",
        }
    }

    /// Returns whether both ends of an established TCP session get a RST: they have no other sign
    /// of its end.
    pub(crate) const fn is_told(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Revoked | Self::Deleted | Self::FtpRefused
        )
    }
}
