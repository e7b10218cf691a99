//! Filter of a client as it travels over the control socket.

use portcullis::geneve::front::Refusal;
use portcullis::policy::{CompiledPolicy, RuleId};
use portcullis::{DropReason, EndReason, SessionId, SessionUid};
use serde::{Deserialize, Serialize};

use super::super::view::ZoneNames;
use super::filter::{Condition, Filter, VERDICTS};
use super::kind::Kind;

/// Most conditions of a filter.
const MAX_CONDITIONS: usize = 64;

/// Field that a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    /// Address or prefix of either end.
    Address,
    /// Address or prefix of the source.
    Src,
    /// Address or prefix of the destination.
    Dst,
    /// Port or range of either end.
    Port,
    /// IP protocol, by name or number.
    Protocol,
    /// Zone, by name or number.
    Zone,
    /// Name of a rule.
    Rule,
    /// Name of a reason.
    Reason,
    /// Verdict.
    Verdict,
    /// Kind of event.
    Event,
    /// Number of a session, or its identifier in the log.
    Session,
}

/// Condition of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConditionSpec {
    pub(crate) field: Field,
    pub(crate) value: String,
    /// Whether events that meet the condition are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) not: bool,
}

/// Stream that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StreamSpec {
    pub(crate) filter: Vec<ConditionSpec>,
    /// Number of past events; `None` for none.
    pub(crate) last: Option<usize>,
    /// Whether events of the future follow.
    pub(crate) follow: bool,
    /// Most events in a second.
    pub(crate) rate: Option<u32>,
    /// Whether only packets come, with the steps of their decision.
    pub(crate) explain: bool,
    /// Bytes of each packet; `None` for none.
    pub(crate) snap: Option<usize>,
}

/// Names in force, which conditions refer to.
pub(crate) struct Names<'n> {
    pub(crate) zones: &'n ZoneNames,
    pub(crate) policy: &'n CompiledPolicy,
}

impl StreamSpec {
    /// Returns the filter.
    ///
    /// # Errors
    /// A value is invalid, or names something that does not exist.
    pub(crate) fn filter(&self, names: &Names<'_>) -> Result<Filter, String> {
        if self.filter.len() > MAX_CONDITIONS {
            return Err(format!("a filter has at most {MAX_CONDITIONS} conditions"));
        }
        let mut filter = Filter::everything();
        for spec in &self.filter {
            filter.add(spec.condition(names)?, spec.not);
        }
        filter.settle();
        if self.explain {
            filter.add_packets();
        }
        Ok(filter)
    }
}

impl ConditionSpec {
    fn condition(&self, names: &Names<'_>) -> Result<Condition, String> {
        let value = self.value.as_str();
        Ok(match self.field {
            Field::Address => Condition::Address(prefix(value)?),
            Field::Src => Condition::Source(prefix(value)?),
            Field::Dst => Condition::Destination(prefix(value)?),
            Field::Port => Condition::Port(value.parse()?),
            Field::Protocol => Condition::Protocol(value.parse()?),
            Field::Zone => match names.zones.zone(value) {
                Some(zone) => Condition::Zone(zone),
                None => return Err(format!("there is no zone `{value}`")),
            },
            Field::Rule => match names.policy.rule_named(value) {
                Some(rule) => Condition::Rule(rule),
                None if value == "default" => Condition::Rule(RuleId::DEFAULT),
                None => return Err(format!("there is no rule `{value}`")),
            },
            Field::Reason if is_reason(value) => Condition::Reason(value.to_owned()),
            Field::Reason => {
                return Err(format!("there is no reason `{value}`: see docs/REASONS.md"));
            }
            Field::Verdict => match VERDICTS.into_iter().find(|verdict| *verdict == value) {
                Some(verdict) => Condition::Verdict(verdict),
                None => return Err(one_of("verdict", value, &VERDICTS)),
            },
            Field::Event => match Kind::named(value) {
                Some(kind) => Condition::Event(kind),
                None => return Err(one_of("event", value, &Kind::ALL.map(Kind::name))),
            },
            Field::Session => session(value)?,
        })
    }
}

/// Returns the condition for a session's number, or its identifier.
fn session(value: &str) -> Result<Condition, String> {
    let condition = match value.split_once('-') {
        None => value
            .parse()
            .ok()
            .and_then(SessionId::from_number)
            .map(Condition::Session),
        Some((engine, session)) => {
            let number = |digits| u64::from_str_radix(digits, 16).ok();
            let id = number(session).and_then(SessionId::from_number);
            let uid = number(engine).zip(id);
            uid.map(|(engine, id)| Condition::Uid(SessionUid::new(engine, id)))
        }
    };
    condition.ok_or_else(|| format!("`{value}` is neither the number nor the uid of a session"))
}

fn one_of(what: &str, value: &str, names: &[&str]) -> String {
    let names = names.join(", ");
    format!("there is no {what} `{value}`: choose from {names}")
}

fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        .map_err(|_| format!("`{text}` is not an address or prefix"))
}

/// Returns whether events can have a reason of this name.
fn is_reason(name: &str) -> bool {
    use portcullis::Evidence;
    use portcullis::event::{HelperEvent, Limit};
    let drops = DropReason::all().map(DropReason::name);
    let refusals = Refusal::all().map(Refusal::name);
    let ends = EndReason::ALL.into_iter().map(EndReason::name);
    let helpers = HelperEvent::ALL.into_iter().map(HelperEvent::name);
    let evidence = Evidence::ALL.into_iter().map(Evidence::name);
    let limits = Limit::ALL.into_iter().map(Limit::name);
    let of_packets = drops.chain(refusals);
    let of_others = ends.chain(helpers).chain(evidence).chain(limits);
    of_packets.chain(of_others).any(|known| known == name)
}
