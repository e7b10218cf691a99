//! Protocol of the control socket. A request is a line of JSON; its answer is any number of lines,
//! of which the last is `done` or `error`. A connection may send several requests.

#[cfg(test)]
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use portcullis::policy::{PortRange, Protocol};
use portcullis::session::{DatagramState, DccpState, SctpState, TcpState};
use portcullis::{SessionFilter, SessionId};
use serde::{Deserialize, Serialize};

use super::observe::row::EventRow;
use super::observe::spec::StreamSpec;
use super::rates::TrafficRate;
use super::store::StoreView;
use super::view::{ListedSession, ZoneNames};
use crate::counts;

/// The longest request, in bytes: a configuration file fits.
pub(crate) const MAX_REQUEST: u64 = 16 << 20;

/// Request of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Sessions that a filter selects, or groups of them.
    Sessions(ListingRequest),
    /// Ends the sessions that the filter selects. A filter that selects every session needs `all`.
    Delete {
        #[serde(default)]
        filter: FilterSpec,
        #[serde(default)]
        all: bool,
    },
    /// All details of one session.
    Explain { id: u64 },
    /// Announced sessions that have not come yet.
    Expectations,
    /// Takes over announced sessions, as another appliance has listed them.
    Import {
        expectations: Vec<portcullis::event::Expectation>,
    },
    /// The report of asymmetric paths; `clear` discards it afterwards.
    Asymmetry {
        #[serde(default)]
        clear: bool,
    },
    /// Counters and gauges.
    Stats,
    /// Decisions and traffic of each rule.
    Rules,
    /// Sessions that a reload of this file would end; `name` is for messages.
    Preview { name: String, text: String },
    /// Adopts connections in their middle for some seconds, where the policy admits them; 0 ends
    /// it.
    Adopt { seconds: u64 },
    /// Reads the configuration file again, as SIGHUP does.
    Reload,
    /// The verdict of the health checks.
    Health,
    /// The state of the store that appliances share.
    Store,
    /// Events of the past and of the future, until the client goes.
    Observe(StreamSpec),
}

/// Sessions that the filter selects; with a limit, those with the most bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListingRequest {
    pub(crate) filter: FilterSpec,
    pub(crate) limit: Option<usize>,
    /// Order of the rows, which have rates then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sort: Option<SortKey>,
    /// Common property of the sessions of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<GroupKey>,
}

/// Order of sessions or groups; those with the greatest value come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SortKey {
    /// Bytes per second
    Rate,
    /// Packets per second
    PacketRate,
    /// Bytes in all
    Bytes,
    /// Packets in all
    Packets,
    /// The oldest first
    Age,
    /// Number of sessions, of groups alone
    Sessions,
}

impl SortKey {
    /// Returns the name of the value.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "bytes/s",
            Self::PacketRate => "packets/s",
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Age => "age",
            Self::Sessions => "sessions",
        }
    }
}

/// Property by which sessions are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupKey {
    /// Address of the initiator
    #[value(alias = "src")]
    Source,
    /// Address of the responder
    #[value(alias = "dst")]
    Destination,
    /// Protocol, with the responder's port
    Port,
    /// Rule that has admitted the session
    Rule,
    /// Zone
    Zone,
}

impl GroupKey {
    /// Returns the name of the property.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Port => "port",
            Self::Rule => "rule",
            Self::Zone => "zone",
        }
    }
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// A session.
    Session(Box<ListedSession>),
    /// Sessions with a common property.
    Group(Box<GroupView>),
    /// A session that would end, and why.
    WouldEnd {
        reason: String,
        session: Box<ListedSession>,
    },
    /// A line for people.
    Line(String),
    /// An announced session that has not come yet.
    Expectation(portcullis::event::Expectation),
    /// A line of the report of asymmetric paths.
    Asymmetry(AsymmetryView),
    /// Counters and gauges.
    Stats(Box<StatsView>),
    /// A rule, and what it has done.
    Rule(Box<RuleView>),
    /// The state of the store.
    Store(Box<StoreView>),
    /// An event of the stream.
    Event(Box<EventRow>),
    /// The stream has nothing to report.
    Pulse,
    /// The answer is complete: how many things were found or done, and what was done, in words.
    Done {
        count: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// The request was refused.
    Error(String),
}

/// Sessions with a common property.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GroupView {
    /// The property; `other` for the sum of small groups that found no room.
    pub(crate) name: String,
    /// Whether the group is that sum: a zone or a rule may have the name `other` too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) joined: bool,
    pub(crate) sessions: u64,
    /// Packets of both directions.
    pub(crate) packets: u64,
    /// IP bytes of both directions.
    pub(crate) bytes: u64,
    /// Start of the oldest session, in seconds since the Unix epoch.
    pub(crate) start: f64,
    /// Whether `other` may have sessions of the group, so that its sums are too small.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) partial: bool,
    /// Traffic per second; `None` in a first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<TrafficRate>,
}

/// A line of the report of asymmetric paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AsymmetryView {
    pub(crate) zone: String,
    pub(crate) other_zone: Option<String>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) evidence: String,
    pub(crate) cause: String,
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    /// Seconds ago.
    pub(crate) first: f64,
    /// Seconds ago.
    pub(crate) last: f64,
    /// The line as a sentence.
    pub(crate) text: String,
}

/// A rule of the configuration, or the default action, and what it has done since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RuleView {
    pub(crate) name: String,
    pub(crate) action: String,
    /// `active`, `disabled`, `expired`, or `empty` where its sets hold nothing.
    pub(crate) state: String,
    /// Expiry of the rule, in RFC 3339.
    pub(crate) expires: Option<String>,
    pub(crate) comment: String,
    /// New sessions that the rule has decided.
    pub(crate) hits: u64,
    /// Seconds since the Unix epoch.
    pub(crate) last_match: Option<f64>,
    pub(crate) sessions: u64,
    /// Packets of live and of ended sessions.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Counters and gauges. Reasons that never occurred are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct StatsView {
    pub(crate) uptime: f64,
    pub(crate) sessions: u64,
    pub(crate) max_sessions: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) sessions_by_worth: Vec<(String, u64)>,
    pub(crate) sessions_opened: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) sessions_ended: Vec<(String, u64)>,
    pub(crate) sessions_adopted: u64,
    pub(crate) sessions_resumed: u64,
    pub(crate) sessions_bypassed: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) forwarded: Vec<(String, u64)>,
    pub(crate) forwarded_bytes: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) dropped: Vec<(String, u64)>,
    pub(crate) rejected: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) tolerated: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) rules: Vec<(String, u64)>,
    pub(crate) resets_sent: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) resets_unsent: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) helper_events: Vec<(String, u64)>,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) challenge_events: Vec<(String, u64)>,
    /// Names of zones whose unknown sources are challenged now.
    #[serde(default)]
    pub(crate) challenging_zones: Vec<String>,
    #[serde(default)]
    pub(crate) known_sources: u64,
    pub(crate) tombstones: u64,
    pub(crate) control_sessions: u64,
    pub(crate) expectations: u64,
    #[serde(with = "counts")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, u64>"))]
    pub(crate) refused: Vec<(String, u64)>,
    pub(crate) received_datagrams: u64,
    pub(crate) sent_datagrams: u64,
    pub(crate) workers: u64,
    pub(crate) unhealthy: Vec<String>,
    #[serde(default)]
    pub(crate) reloads_applied: u64,
    #[serde(default)]
    pub(crate) reloads_refused: u64,
    /// Reason of the refusal of the last reload, with the file and the line; `None` if it was
    /// applied.
    #[serde(default)]
    pub(crate) failed_reload: Option<String>,
    /// Keys of the configuration file that wait for a restart.
    #[serde(default)]
    pub(crate) waiting_for_restart: Vec<String>,
}

/// Filter of sessions in words; see [`SessionFilter`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FilterSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) id: Vec<u64>,
    /// Addresses or prefixes of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) address: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) src: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) dst: Vec<String>,
    /// Ports or ranges of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) port: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// A name, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_age_ms: Option<u64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_idle_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_bytes: Option<u64>,
}

/// Returns the names of all states of sessions, in alphabetical order.
fn states() -> Vec<&'static str> {
    let tcp = TcpState::ALL.map(TcpState::name);
    let sctp = SctpState::ALL.map(SctpState::name);
    let dccp = DccpState::ALL.map(DccpState::name);
    let others = DatagramState::ALL.map(DatagramState::name);
    let all = tcp.into_iter().chain(sctp).chain(dccp).chain(others);
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

impl FilterSpec {
    /// Returns the filter.
    ///
    /// # Errors
    /// A value is invalid, or names a zone, rule or state that does not exist.
    pub(crate) fn read(
        &self,
        zones: &ZoneNames,
        policy: &portcullis::policy::CompiledPolicy,
    ) -> Result<SessionFilter, String> {
        let prefix = |text: &String| {
            text.parse()
                .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
                .map_err(|_| format!("`{text}` is not an address or prefix"))
        };
        let prefixes = |texts: &[String]| {
            texts
                .iter()
                .map(prefix)
                .collect::<Result<Vec<ipnet::IpNet>, String>>()
        };
        let zone = |name: &String| {
            zones
                .zone(name)
                .ok_or_else(|| format!("there is no zone `{name}`"))
        };
        let rule = |name: &String| match policy.rule_named(name) {
            Some(rule) => Ok(rule),
            None if name == "default" => Ok(portcullis::policy::RuleId::DEFAULT),
            None => Err(format!("there is no rule `{name}`")),
        };
        let state = |name: &String| {
            let known = states();
            if known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Ok(name.clone());
            }
            Err(format!(
                "there is no state `{name}`: the states are {}",
                known.join(", ")
            ))
        };
        let millis = |millis: Option<u64>| Duration::from_millis(millis.unwrap_or(0));
        let id = |id: &u64| {
            SessionId::from_number(*id).ok_or_else(|| "no session is called 0".to_owned())
        };
        Ok(SessionFilter {
            ids: self.id.iter().map(id).collect::<Result<_, _>>()?,
            address: prefixes(&self.address)?,
            source: prefixes(&self.src)?,
            destination: prefixes(&self.dst)?,
            ports: self
                .port
                .iter()
                .map(|text| text.parse::<PortRange>())
                .collect::<Result<_, _>>()?,
            protocol: self
                .protocol
                .as_ref()
                .map(|text| text.parse::<Protocol>())
                .transpose()?,
            state: self.state.as_ref().map(state).transpose()?,
            zone: self.zone.as_ref().map(zone).transpose()?,
            rule: self.rule.as_ref().map(rule).transpose()?,
            min_age: millis(self.min_age_ms),
            min_idle: millis(self.min_idle_ms),
            min_bytes: self.min_bytes.unwrap_or(0),
        })
    }
}
