//! `[tcp]`: tracking of TCP, and handling of sessions whose beginning, half or end was not seen.
use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "toml")]
use super::declare::read::{Item, Kind, Problems, wrong_type};
use super::declare::{self, KeyReference, Scalar, SectionReference, Value, Wrong, quoted};
use super::replaced::LOOSE;
use crate::policy::handling::{Asymmetric, Handling, LatePacket, Midstream, TcpHandling, TcpMode};

crate::config_section! {
    /// `[tcp]`: how TCP is tracked. Settings that a rule or a zone can have too hold where neither
    /// of them has one.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TcpConfig = "tcp" {
        /// The strictness of tracking. `strict`: a connection begins with its SYN, and segments
        /// outside the window are dropped. `liberal`: such segments pass and are counted.
        mode: TcpMode {
            default: TcpMode::default(), "Linux with tcp_loose=0, tcp_be_liberal=0";
        }
        /// Whether a RST is sent to each end of an established session that ends by its lifetime.
        timeout_reset: bool {
            default: true, "both ends shall know";
        }
        /// Handling of a packet that comes after the end of its session: `reset` answers with a
        /// RST, `readmit` asks the policy again.
        late: LatePacket {
            default: LatePacket::default(), "the end shall know";
        }
        /// Handling of a packet of a connection whose beginning was not seen: `reject` answers with
        /// a RST, `adopt` begins a session if the policy admits it.
        midstream: Midstream {
            default: Midstream::default(), "a connection begins with its SYN";
        }
        /// Handling of a packet that is evidence of a path of which only half passes here: `report`
        /// forwards and counts it, `bypass` also keeps the session without window checks.
        asymmetric: Asymmetric {
            default: Asymmetric::default(), "half a conversation cannot be judged";
        }
        /// The time after the first packet for which connections are adopted in their middle
        /// whatever `midstream` is, where the policy admits them: a load balancer has just handed
        /// over live flows. See also [`Engine::adopt_for`](crate::Engine::adopt_for).
        failover: Duration {
            default: Duration::ZERO, "nothing is adopted unasked";
            bounds: Duration::ZERO..=Self::MAX_FAILOVER;
        }
        /// Settings of a zone, by its name: a mode alone, or a table.
        zones: BTreeMap<String, TcpHandling> {
            default: BTreeMap::new(), "the settings of `[tcp]`";
        }
    }
}

impl TcpConfig {
    /// The longest `failover`.
    pub const MAX_FAILOVER: Duration = Duration::from_secs(3_600);

    /// Returns the settings that apply if neither rule nor zone has one.
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

crate::config_keys! {
    /// Settings of `[tcp]` for a zone or a rule. The rule's setting counts before the zone's, the
    /// zone's before the global one.
    TcpHandling = "" {
        /// The strictness of tracking.
        mode: Option<TcpMode> { why: "`tcp.mode`"; }
        /// Whether a RST is sent to each end of an established session that ends by its lifetime.
        timeout_reset: Option<bool> { why: "`tcp.timeout_reset`"; }
        /// Handling of a packet that comes after the end of its session.
        late: Option<LatePacket> { why: "`tcp.late`"; }
        /// Handling of a packet of a connection whose beginning was not seen.
        midstream: Option<Midstream> { why: "`tcp.midstream`"; }
        /// Handling of a packet that is evidence of a path of which only half passes here.
        asymmetric: Option<Asymmetric> { why: "`tcp.asymmetric`"; }
    }
}

/// A mode alone, or a table.
impl Value for TcpHandling {
    type Bound = ();

    fn kind() -> String {
        "table, or a mode alone".to_owned()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        match item.kind() {
            Kind::Table(_) => declare::read::table(item, problems),
            Kind::Text(_) => TcpMode::read(item, problems).map(Self::from),
            _ => {
                let cause = wrong_type(item, "a mode such as \"liberal\", or a table");
                problems.push(item, cause);
                None
            }
        }
    }

    fn toml(&self) -> String {
        match self.mode {
            Some(mode) if *self == Self::from(mode) => mode.toml(),
            _ => declare::print::inline_table(self),
        }
    }

    fn describe(row: KeyReference, sections: &mut Vec<SectionReference>) {
        declare::reference::nested::<Self>(row, "", sections);
    }
}

/// A mode by its name.
impl Scalar for TcpMode {
    type Bound = ();

    const EXPECTED: &'static str = "a name in quotes";

    fn kind() -> String {
        declare::choices_text::<Self>()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        const NAMES: &[&str] = &[TcpMode::Strict.name(), TcpMode::Liberal.name()];
        match text {
            "loose" => Err(Wrong::Other(LOOSE.to_owned())),
            _ => declare::choice(text, &[Self::Strict, Self::Liberal], NAMES),
        }
    }

    fn written(&self) -> String {
        quoted(self.name())
    }
}

crate::config_table_values!(TcpConfig);
crate::config_choices! {
    LatePacket [Reset, Drop, Readmit],
    Midstream [Drop, Reject, Adopt],
    Asymmetric [Drop, Report, Bypass],
}
