//! Errors and warnings of a configuration, and their locations.
use std::fmt;

use super::text::{OneLine, shown, similar};
use crate::lifetime::MAX_OVERRIDES;
use crate::policy::MAX_RULES;

/// The largest number of errors that are kept.
pub(in crate::config) const MAX_PROBLEMS: usize = 100;

/// A location in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Location {
    /// The name of the file as passed to [`Config::from_toml`](super::Config::from_toml); `None`
    /// for a configuration that was built in code.
    pub file: Option<Box<str>>,
    /// The line, counted from 1, if it is known.
    pub line: Option<usize>,
    /// The place in the line, if it is known.
    pub text: Option<Box<TextPlace>>,
    /// The path of the key, such as `policy.rule[2].action`, with indices counted from 0; empty for
    /// the whole file.
    pub key: String,
}

/// A place in the text of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPlace {
    /// The column, counted from 1 in characters.
    pub column: usize,
    /// The bytes of the text.
    pub bytes: std::ops::Range<usize>,
}

/// A name that is not one of a few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// The name: at most 100 characters of it, without control characters.
    pub name: String,
    /// The known names.
    pub known: Vec<String>,
    /// The known name that is most similar, if one is; or the path of the only key that has the
    /// name in another section.
    pub similar: Option<String>,
}

impl UnknownName {
    /// Returns a name, with the known one that is most similar.
    pub(super) fn new<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Box<Self> {
        let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        Box::new(Self {
            name: shown(name).into_owned(),
            similar: similar(name, known.iter().map(String::as_str)),
            known,
        })
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
        let known = known.join(", ");
        write!(f, "`{}`", self.name)?;
        match &self.similar {
            Some(similar) => write!(f, ": did you mean `{similar}`? Known: {known}"),
            None if known.is_empty() => Ok(()),
            None => write!(f, ": expected one of {known}"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(file) = &self.file {
            f.write_str(file)?;
            separator = ": ";
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
        }
        if !self.key.is_empty() {
            write!(f, "{separator}{}", self.key)?;
        }
        Ok(())
    }
}

/// An error of a configuration, with its location. It is displayed on one line of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The location of the error.
    pub location: Location,
    /// The cause of the error.
    pub cause: ConfigErrorCause,
}

impl ConfigError {
    /// Returns the cause without the location, on one line of bounded length.
    #[must_use]
    pub fn message(&self) -> String {
        OneLine(&self.cause).to_string()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(format_args!("{}: {}", self.location, self.cause)).fmt(f)
    }
}

impl std::error::Error for ConfigError {}

/// All errors that were found in a configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    list: Vec<ConfigError>,
    may_have_more: bool,
}

impl ConfigErrors {
    /// Returns errors in the order of their places in the file; `None` if there are none.
    /// `may_have_more` states whether others may have been left out.
    pub(super) fn new(mut errors: Vec<ConfigError>, may_have_more: bool) -> Option<Self> {
        let place = |error: &ConfigError| {
            let location = &error.location;
            (
                location.line,
                location.text.as_ref().map(|text| text.bytes.start),
            )
        };
        errors.sort_by_key(place);
        errors.dedup();
        (!errors.is_empty()).then_some(Self {
            list: errors,
            may_have_more,
        })
    }

    /// Returns the errors.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.list.iter()
    }

    /// Returns whether the configuration may have further errors: at most 100 errors of each kind
    /// are kept.
    #[must_use]
    pub fn may_have_more(&self) -> bool {
        self.may_have_more
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    /// Writes a line for each error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self {
            list: vec![error],
            may_have_more: false,
        }
    }
}

impl From<ConfigErrors> for ConfigError {
    /// Returns the first of the errors.
    fn from(errors: ConfigErrors) -> Self {
        let first = errors.list.into_iter().next();
        first.unwrap_or_else(|| Self {
            location: Location::default(),
            cause: ConfigErrorCause::Syntax(String::new()),
        })
    }
}

/// The cause of an error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrorCause {
    /// Text that is not TOML, or a value that cannot be read; the message names the reason.
    #[error("{0}")]
    Syntax(String),
    /// A key that the table does not have.
    #[error("unknown key {0}")]
    UnknownKey(Box<UnknownName>),
    /// A key that another one has replaced; the message names the new one.
    #[error("{0}")]
    ReplacedKey(&'static str),
    /// A table without a required key.
    #[error("missing key `{0}`")]
    MissingKey(&'static str),
    /// A name that is not one of the known ones.
    #[error("unknown value {0}")]
    UnknownChoice(Box<UnknownName>),
    /// A value of another type.
    #[error("{found} is of the wrong type: expected {expected}")]
    WrongType {
        /// The value.
        found: String,
        /// The type that is expected.
        expected: String,
    },
    /// An empty list, where a missing one matches anything.
    #[error("an empty list matches nothing: leave the key out to match anything")]
    EmptyList,
    /// Memory that could not be allocated.
    #[error("the system cannot allocate {bytes} bytes for {part}")]
    NoMemory {
        /// Purpose of the table.
        part: &'static str,
        /// Bytes that the table needs.
        bytes: u64,
    },
    /// A value outside its bounds.
    #[error("{value} is out of bounds: {bounds}")]
    OutOfBounds {
        /// The value as it would be written.
        value: String,
        /// The bounds.
        bounds: String,
    },
    /// A name of a rule or zone that is too long or has characters that are not allowed.
    #[error("`{0}` is not a name: 1 to 64 characters of A-Z, a-z, 0-9, `_`, `.` and `-`")]
    BadName(String),
    /// A rule with the name of the default action.
    #[error("`default` is the name of the default action: give the rule another name")]
    ReservedName,
    /// Two rules of the same name.
    #[error("the name `{name}` is taken by {first}")]
    DuplicateName {
        /// The name.
        name: String,
        /// The rule that has the name, with its line.
        first: String,
    },
    /// Two zones with the same number.
    #[error("zone number {id} is taken by `{first}`")]
    DuplicateZone {
        /// The number.
        id: u16,
        /// The zone that has the number.
        first: String,
    },
    /// The zone `default` with a number other than 0.
    #[error("the zone `default` is always 0, not {0}")]
    DefaultZone(u16),
    /// A zone that is not in `[zones]`.
    #[error("there is no zone `{zone}`: the zones are {known}")]
    UnknownZone {
        /// The name.
        zone: String,
        /// The names that there are, at most 20 of them.
        known: String,
    },
    /// A group of zones with the name of a zone.
    #[error("`{0}` is the name of a zone: give the group another name")]
    GroupIsZone(String),
    /// A group without zones.
    #[error("a group needs the names of its zones")]
    EmptyGroup,
    /// A zone in two groups.
    #[error("the zone `{zone}` is in the group `{first}` already")]
    ZoneInTwoGroups {
        /// The zone.
        zone: String,
        /// The other group of the zone.
        first: String,
    },
    /// A set that does not exist.
    #[error("there is no set `@{set}`: {known}")]
    UnknownSet {
        /// The name.
        set: String,
        /// The section, and at most 20 of the names that it has.
        known: String,
    },
    /// Sets that contain themselves, directly or via others.
    #[error("the set contains itself: {0}")]
    SetCircle(String),
    /// A value that occurs twice in a set.
    #[error("`{value}` is in the set already, at place {first}")]
    DuplicateMember {
        /// The value.
        value: String,
        /// The place of the first one, counted from 0.
        first: usize,
    },
    /// A set's file that cannot be read.
    #[error("{file}: {reason}")]
    SetFile {
        /// The path as it is written.
        file: String,
        /// The reason for which the file cannot be read.
        reason: String,
    },
    /// A set whose file was not read before the configuration was compiled.
    #[error("the file of the set `@{0}` was not read (`Config::load_sets`)")]
    SetNotRead(String),
    /// A set with too many prefixes.
    #[error("a set has at most {0} prefixes")]
    SetTooLarge(usize),
    /// Rules with too many prefixes.
    #[error(
        "the rules have more than {0} prefixes, those of a set counted for each rule that names \
         it: \
         join rules that name the same sets, or exclude less by `not`"
    )]
    TooManyPrefixes(usize),
    /// More parts of rules than can be compiled.
    #[error(
        "{0} parts of rules are too many: at most {MAX_RULES}; a list of services is a part for \
         each list of ports"
    )]
    TooManyParts(usize),
    /// An empty set after `not`.
    #[error("the set `@{0}` is empty: `not` would exclude nothing")]
    EmptyNegation(String),
    /// Lists of a rule that exclude each other.
    #[error(
        "the rule can match nothing: `not` or `destination_zones` excludes everything that is \
         listed"
    )]
    MatchesNothing,
    /// A zone in `destination_zones` without prefixes.
    #[error(
        "the zone `{0}` has no prefixes in [ip.inside], by which a destination's zone is known"
    )]
    NoZonePrefixes(String),
    /// Services together with the keys that they replace.
    #[error("`services` replaces `{0}`: write only one of them")]
    ServicesAndMore(&'static str),
    /// A comment that is too long or has control characters.
    #[error("a comment has at most {0} bytes and no control characters")]
    BadComment(usize),
    /// A rule that does not exist.
    #[error("there is no rule `{0}`")]
    UnknownRule(String),
    /// A check that does not exist, or that cannot be set to count only.
    #[error("unknown check {0}")]
    UnknownCheck(Box<UnknownName>),
    /// A listening address that is given twice, or together with all addresses.
    #[error("{0} is listed already, or covered by 0.0.0.0")]
    ListensAlready(std::net::Ipv4Addr),
    /// An IPv6 prefix among the outer sources.
    #[error("{0} is not an IPv4 prefix, and tunnels are IPv4")]
    OuterIpv6(ipnet::IpNet),
    /// An invalid endpoint id.
    #[error("`{0}` is not an endpoint id: 1 to 16 hexadecimal digits after `0x`")]
    BadEndpoint(String),
    /// An endpoint that is named twice, in two notations.
    #[error("the endpoint is named already, as `{0}`")]
    DuplicateEndpoint(String),
    /// A required flow cookie, with a provider that has none.
    #[error("`cookie` cannot be required: packets of `{0}` have none")]
    NoCookie(&'static str),
    /// A prefix with bits beyond its length.
    #[error("{prefix} has host bits set: the network is {network}")]
    HostBits {
        /// The prefix as written.
        prefix: String,
        /// The network that holds the address.
        network: String,
    },
    /// A range whose first port is above its last.
    #[error("{first}-{last} is reversed: write {last}-{first}")]
    ReversedRange {
        /// The first port as written.
        first: u16,
        /// The last port as written.
        last: u16,
    },
    /// Ports in a rule or override without a protocol.
    #[error("ports need `protocol` to be {0}")]
    PortsNeedProtocol(&'static str),
    /// Ports in a rule or override for a protocol without ports.
    #[error("ports need `protocol` to be {allowed}, not {protocol}")]
    NoPorts {
        /// The protocol.
        protocol: String,
        /// The protocols with ports.
        allowed: &'static str,
    },
    /// ICMP types in a rule that is not limited to ICMP and ICMPv6.
    #[error("ICMP types need `protocol` to be icmp, icmpv6 or both")]
    IcmpTypesNeedIcmp,
    /// An ICMP type that none of the rule's protocols has.
    #[error("{kind} is not a type of {protocol}")]
    NoSuchIcmpType {
        /// The type.
        kind: String,
        /// The protocol.
        protocol: String,
    },
    /// More rules than there are rule numbers.
    #[error("{0} rules are too many: at most {MAX_RULES}")]
    TooManyRules(usize),
    /// More overrides than there are profile numbers.
    #[error("{0} overrides are too many: at most {MAX_OVERRIDES}")]
    TooManyOverrides(usize),
    /// Two overrides that are equally specific for a session that matches both.
    #[error("equally specific as {first} for {shared}: make one of them more specific")]
    AmbiguousOverrides {
        /// The earlier override, with its line.
        first: String,
        /// The sessions that match both.
        shared: String,
    },
    /// More rule names than rule numbers, over all reloads.
    #[error(
        "the rules have had more than {MAX_RULES} names since the start: keep their names, or \
         restart"
    )]
    TooManyNames,
    /// A setting that only a start can change.
    #[error("only a start can change this")]
    NotReloadable,
    /// Rules that list too many values. A range of ports counts as up to 30.
    #[error("the rules list more than {0} prefixes, ports and other values")]
    PolicyTooLarge(usize),
}

/// A setting of a configuration that is allowed but probably unintended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The location of the setting.
    pub location: Location,
    /// The kind of the warning.
    pub kind: WarningKind,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.kind)
    }
}

/// The kind of a probable mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningKind {
    /// A lifetime with which a session would outlive the load balancer's flow.
    NotBelowGwlb {
        /// The lifetime.
        lifetime: String,
        /// The key of the timer that the lifetime is not below.
        timer: &'static str,
        /// The value of the timer.
        idle: String,
    },
    /// A rule that never matches, since an earlier one covers it.
    Shadowed {
        /// The rule's name.
        rule: String,
        /// The earlier rule's name.
        by: String,
    },
    /// Rules that were not compared with earlier ones, since too many of them overlap.
    ShadowsUnknown {
        /// The name of the first of the rules.
        from: String,
    },
    /// ICMP types in a rule that no new session can have.
    IcmpTypesNeverAsk {
        /// The types.
        types: String,
    },
    /// ICMP redirects that are set to count although all packets come from a tunnel.
    RedirectsInTunnel,
    /// A named set without any address.
    EmptySet {
        /// The name.
        set: String,
    },
    /// A rule whose sets leave nothing to match.
    NeverMatches {
        /// The rule's name.
        rule: String,
    },
    /// A rule that has expired.
    Expired {
        /// The rule's name.
        rule: String,
        /// The moment of expiry.
        since: String,
    },
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBelowGwlb {
                lifetime,
                timer,
                idle,
            } => write!(
                f,
                "{lifetime} is not below {timer} ({idle}): the load balancer forgets the flow \
                 before the session ends"
            ),
            Self::Shadowed { rule, by } => {
                write!(f, "rule `{rule}` never matches: `{by}` covers it")
            }
            Self::ShadowsUnknown { from } => write!(
                f,
                "whether earlier rules cover `{from}` and those after it is not known: too many \
                 rules overlap"
            ),
            Self::IcmpTypesNeverAsk { types } => write!(
                f,
                "{types} can never match: replies and errors pass with the session that they \
                 answer or quote, and discovery asks no rule"
            ),
            Self::EmptySet { set } => write!(
                f,
                "the set `@{set}` is empty: rules that name it alone match nothing"
            ),
            Self::NeverMatches { rule } => {
                write!(
                    f,
                    "rule `{rule}` never matches: its sets are empty, or exclude each other"
                )
            }
            Self::Expired { rule, since } => {
                write!(
                    f,
                    "rule `{rule}` has expired at {since}: it is no longer compared"
                )
            }
            Self::RedirectsInTunnel => f.write_str(
                "redirects are dropped nevertheless: engine.attachment states that all packets \
                 come from a tunnel",
            ),
        }
    }
}
