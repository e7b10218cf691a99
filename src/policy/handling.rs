//! Handling of TCP and of IP options that a rule or a zone can choose.

/// Settings of a rule or a zone for its TCP sessions. A rule's settings take precedence over its
/// zone's, and a zone's over the global ones. In a file: a mode alone (`"liberal"`), or a table of
/// these keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpHandling {
    /// See [`TcpConfig::mode`](crate::config::TcpConfig::mode).
    pub mode: Option<TcpMode>,
    /// See [`TcpConfig::timeout_reset`](crate::config::TcpConfig::timeout_reset).
    pub timeout_reset: Option<bool>,
    /// See [`TcpConfig::late`](crate::config::TcpConfig::late).
    pub late: Option<LatePacket>,
    /// See [`TcpConfig::midstream`](crate::config::TcpConfig::midstream).
    pub midstream: Option<Midstream>,
    /// See [`TcpConfig::asymmetric`](crate::config::TcpConfig::asymmetric).
    pub asymmetric: Option<Asymmetric>,
}

impl TcpHandling {
    /// Returns whether no setting is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<TcpMode> for TcpHandling {
    fn from(mode: TcpMode) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }
}

/// The settings in force for a session, or for a packet without a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handling {
    pub(crate) mode: TcpMode,
    pub(crate) timeout_reset: bool,
    pub(crate) late: LatePacket,
    pub(crate) midstream: Midstream,
    pub(crate) asymmetric: Asymmetric,
}

impl Handling {
    /// Returns these settings where `first` has none.
    pub(crate) fn under(self, first: TcpHandling) -> Self {
        Self {
            mode: first.mode.unwrap_or(self.mode),
            timeout_reset: first.timeout_reset.unwrap_or(self.timeout_reset),
            late: first.late.unwrap_or(self.late),
            midstream: first.midstream.unwrap_or(self.midstream),
            asymmetric: first.asymmetric.unwrap_or(self.asymmetric),
        }
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All choices.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Returns the name in the configuration file.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

choice! {
    /// Strictness of TCP tracking.
    TcpMode {
        /// A connection begins with its SYN and a whole handshake, and segments outside the window
        /// are invalid.
        #[default]
        Strict = "strict",
        /// A connection begins with its SYN, but segments outside the window pass, and are counted.
        /// RSTs are checked as strictly as in strict mode.
        Liberal = "liberal",
    }
}

choice! {
    /// Treatment of a packet after the end of its session, while the session is remembered.
    LatePacket {
        /// The packet is answered with a RST that its sender's stack accepts, within the budgets.
        #[default]
        Reset = "reset",
        /// The packet gets no answer, except that a challenge ACK to one of the engine's RSTs gets
        /// one more RST.
        Drop = "drop",
        /// The packet opens a new session, adopted mid-stream and marked as resumed, if the policy
        /// admits it.
        Readmit = "readmit",
    }
}

choice! {
    /// Treatment of a packet from the middle of an unknown connection.
    Midstream {
        /// The packet is dropped.
        #[default]
        Drop = "drop",
        /// The packet is answered with a RST.
        Reject = "reject",
        /// The packet opens a session, if the policy admits it: liberal until both ends and their
        /// windows are known, then strict.
        Adopt = "adopt",
    }
}

choice! {
    /// Treatment of a packet that shows an asymmetric path.
    Asymmetric {
        /// The packet is dropped, with the evidence as its reason.
        #[default]
        Drop = "drop",
        /// The packet passes, changes no state, and is counted.
        Report = "report",
        /// The packet passes and its session is kept, without window checks of the unseen
        /// direction, if the policy admits it.
        Bypass = "bypass",
    }
}

/// Treatment of packets with IP options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OptionsMode {
    /// Well-formed options pass.
    #[default]
    Allow,
    /// A packet with any option is dropped.
    Strict,
}

impl OptionsMode {
    /// Returns the name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Strict => "strict",
        }
    }
}
