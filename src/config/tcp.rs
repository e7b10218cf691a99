//! `[tcp]`: how TCP is tracked, and what becomes of sessions whose beginning, half or end was not seen.
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::{Permission, values};

/// `[tcp]`: how TCP is tracked. The settings that a rule and a zone can have too hold where neither of them says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpConfig {
    /// How strictly.
    pub mode: TcpMode,
    /// Does the end of an established session by its lifetime send a RST to each end?
    pub timeout_reset: bool,
    /// What a packet gets that comes after its session's end.
    pub late: LatePacket,
    /// What a packet gets that belongs to the middle of a connection which was never seen.
    pub midstream: Midstream,
    /// What a packet gets that tells of a path whose other half does not pass here.
    pub asymmetric: Asymmetric,
    /// For how long after the first packet connections are adopted in their middle whatever `midstream` says, where
    /// the policy admits them: a load balancer has just handed over live flows. 0 s (the default) to 1 h; see also
    /// [`Engine::adopt_for`](crate::Engine::adopt_for).
    #[serde(deserialize_with = "values::scalar")]
    pub failover: Duration,
    /// The same settings for a zone, by its name: a mode alone, or a table.
    pub zones: BTreeMap<String, TcpHandling>,
    /// What becomes of a split handshake: the responder answers a SYN with a SYN, and never with a SYN-ACK.
    pub split_handshake: Permission,
}

impl TcpConfig {
    /// The longest `failover`.
    pub const MAX_FAILOVER: Duration = Duration::from_secs(3_600);

    /// What holds where neither rule nor zone says.
    pub(crate) const fn handling(&self) -> Handling {
        Handling {
            mode: self.mode,
            timeout_reset: self.timeout_reset,
            late: self.late,
            midstream: self.midstream,
            asymmetric: self.asymmetric,
        }
    }
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            mode: TcpMode::default(),
            timeout_reset: true,
            late: LatePacket::default(),
            midstream: Midstream::default(),
            asymmetric: Asymmetric::default(),
            failover: Duration::ZERO,
            zones: BTreeMap::new(),
            split_handshake: Permission::default(),
        }
    }
}

/// What a rule or a zone says of the TCP sessions in it. The rule's word counts before the zone's, the zone's before
/// the global one. In a file: a mode alone (`"liberal"`), or a table of these keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpHandling {
    /// See [`TcpConfig::mode`].
    pub mode: Option<TcpMode>,
    /// See [`TcpConfig::timeout_reset`].
    pub timeout_reset: Option<bool>,
    /// See [`TcpConfig::late`].
    pub late: Option<LatePacket>,
    /// See [`TcpConfig::midstream`].
    pub midstream: Option<Midstream>,
    /// See [`TcpConfig::asymmetric`].
    pub asymmetric: Option<Asymmetric>,
}

impl TcpHandling {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is said, as keys with their values.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, String)> {
        let text = |name: &'static str| format!("\"{name}\"");
        [
            ("mode", self.mode.map(|value| text(value.name()))),
            ("timeout_reset", self.timeout_reset.map(|value| value.to_string())),
            ("late", self.late.map(|value| text(value.name()))),
            ("midstream", self.midstream.map(|value| text(value.name()))),
            ("asymmetric", self.asymmetric.map(|value| text(value.name()))),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
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

/// The settings in force for a session, or for a packet without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handling {
    pub(crate) mode: TcpMode,
    pub(crate) timeout_reset: bool,
    pub(crate) late: LatePacket,
    pub(crate) midstream: Midstream,
    pub(crate) asymmetric: Asymmetric,
}

impl Handling {
    /// The same where `first` does not say otherwise.
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

impl<'de> Deserialize<'de> for TcpHandling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Table {
            mode: Option<TcpMode>,
            timeout_reset: Option<bool>,
            late: Option<LatePacket>,
            midstream: Option<Midstream>,
            asymmetric: Option<Asymmetric>,
        }

        struct ModeOrTable;

        impl<'de> Visitor<'de> for ModeOrTable {
            type Value = TcpHandling;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode such as \"liberal\", or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TcpHandling, E> {
                let names = TcpMode::ALL.map(TcpMode::name);
                TcpMode::ALL
                    .into_iter()
                    .find(|mode| mode.name() == text)
                    .map(TcpHandling::from)
                    .ok_or_else(|| E::custom(format!("`{text}` is no mode: {}", names.join(", "))))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TcpHandling, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(TcpHandling {
                    mode: table.mode,
                    timeout_reset: table.timeout_reset,
                    late: table.late,
                    midstream: table.midstream,
                    asymmetric: table.asymmetric,
                })
            }
        }

        deserializer.deserialize_any(ModeOrTable)
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All choices.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The name in the configuration file.
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
    /// How strictly TCP is tracked.
    TcpMode {
        /// The whole handshake; a connection begins with its SYN, and segments outside the window are invalid.
        #[default]
        Strict = "strict",
        /// A connection begins with its SYN, but segments outside the window pass, and are counted. RSTs are judged
        /// as strictly as ever.
        Liberal = "liberal",
        /// Liberal, and a connection may begin in its middle: with an ACK, if the policy admits it.
        Loose = "loose",
    }
}

choice! {
    /// What a packet gets that comes after the end of its session, while the session is remembered.
    LatePacket {
        /// The RST that its sender's stack accepts, as far as budgets go.
        #[default]
        Reset = "reset",
        /// Nothing. Only the challenge ACK that answers one of our RSTs gets one more.
        Drop = "drop",
        /// A new session, adopted in its middle and marked as resumed, if the policy admits it.
        Readmit = "readmit",
    }
}

choice! {
    /// What a packet gets that belongs to the middle of a connection which was never seen.
    Midstream {
        /// It is dropped.
        #[default]
        Drop = "drop",
        /// It is answered with a RST.
        Reject = "reject",
        /// It begins a session, if the policy admits it: liberal until both ends and their windows were seen, then
        /// strict.
        Adopt = "adopt",
    }
}

choice! {
    /// What a packet gets that tells of an asymmetric path.
    Asymmetric {
        /// It is dropped, with the evidence as its reason.
        #[default]
        Drop = "drop",
        /// It passes, changes nothing, and is counted.
        Report = "report",
        /// It passes and its session is kept, without window checks of the half that was not seen; if the policy
        /// admits it.
        Bypass = "bypass",
    }
}
