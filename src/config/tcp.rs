//! `[tcp]`: how TCP is tracked, and what becomes of sessions whose beginning, half or end was not seen.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Permission, values};
use crate::policy::handling::{Asymmetric, Handling, LatePacket, Midstream, TcpHandling, TcpMode};

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
