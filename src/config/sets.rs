//! Named sets of addresses and services, and the values of rule lists.
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use super::Config;
#[cfg(feature = "toml")]
use super::declare::read::{Item, Kind, Problems, wrong_type};
use super::declare::{self, Scalar, Value, Wrong, quoted};
use super::error::{ConfigError, ConfigErrorCause, Location};
use super::path::key_segment;
use super::text::{listed, shown};
use super::validate::{Checked, Errors};
use crate::policy::{IcmpType, PortRange, Protocol};
use ipnet::IpNet;

/// The largest number of prefixes of a named set, including those of nested sets.
pub const MAX_SET_PREFIXES: usize = 1 << 18;

/// The prefix that marks the name of a set among other values.
const SET: char = '@';

/// A value of an address list: a prefix, or the name of a set, which is written `@name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AddressTerm {
    /// A prefix.
    Prefix(IpNet),
    /// The name of a set of `[address_sets]`.
    Set(String),
}

impl From<IpNet> for AddressTerm {
    fn from(prefix: IpNet) -> Self {
        Self::Prefix(prefix)
    }
}

impl fmt::Display for AddressTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Set(name) => write!(f, "{SET}{name}"),
        }
    }
}

impl Scalar for AddressTerm {
    type Bound = ();

    const EXPECTED: &'static str =
        "an address, a prefix such as \"10.0.0.0/8\", or a set such as \"@office\"";

    fn kind() -> String {
        "prefix or `@name`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix(SET) {
            Some(name) => Ok(Self::Set(name.to_owned())),
            None => IpNet::from_text(text).map(Self::Prefix),
        }
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        IpNet::from_integer(number).map(Self::Prefix)
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

/// A service: a protocol alone, with ports of the responder, or with an ICMP type and code.
///
/// Examples are `gre`, `tcp/443`, `udp/5000-5100`, `icmp/echo-request` and `icmp/3/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Service {
    /// The IP protocol.
    pub protocol: Protocol,
    /// Ports of the responder; only for protocols with ports.
    pub ports: Option<PortRange>,
    /// The type of the ICMP message; only for ICMP and ICMPv6.
    pub icmp: Option<IcmpType>,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((protocol, rest)) = text.split_once('/') else {
            return Ok(Self {
                protocol: text.parse()?,
                ports: None,
                icmp: None,
            });
        };
        let protocol: Protocol = protocol.parse()?;
        let (mut ports, mut icmp) = (None, None);
        if matches!(protocol, Protocol::ICMP | Protocol::ICMPV6) {
            let kind: IcmpType = rest.parse()?;
            if kind.of(protocol).is_none() {
                return Err(format!("`{text}`: {kind} is no type of {protocol}"));
            }
            icmp = Some(kind);
        } else if protocol.has_ports() {
            let range: PortRange = rest.parse()?;
            if range.first > range.last {
                return Err(format!(
                    "`{text}` is reversed: write {protocol}/{}-{}",
                    range.last, range.first
                ));
            }
            ports = Some(range);
        } else {
            return Err(format!("`{text}`: {protocol} has no ports"));
        }
        Ok(Self {
            protocol,
            ports,
            icmp,
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.protocol.fmt(f)?;
        if let Some(ports) = self.ports {
            write!(f, "/{ports}")?;
        }
        if let Some(icmp) = self.icmp {
            write!(f, "/{icmp}")?;
        }
        Ok(())
    }
}

/// A value of a service list: a service, or the name of a set, which is written `@name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceTerm {
    /// A service.
    Service(Service),
    /// The name of a set of `[service_sets]`.
    Set(String),
}

impl fmt::Display for ServiceTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Set(name) => write!(f, "{SET}{name}"),
        }
    }
}

impl Scalar for ServiceTerm {
    type Bound = ();

    const EXPECTED: &'static str = "a service such as \"tcp/443\", or a set such as \"@web\"";

    fn kind() -> String {
        "service such as `tcp/443`, or `@name`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        match text.strip_prefix(SET) {
            Some(name) => Ok(Self::Set(name.to_owned())),
            None => text.parse().map(Self::Service).map_err(Wrong::Other),
        }
    }

    fn from_integer(number: i64) -> Result<Self, Wrong> {
        u8::try_from(number)
            .map(|number| {
                Self::Service(Service {
                    protocol: Protocol(number),
                    ports: None,
                    icmp: None,
                })
            })
            .map_err(|_| format!("{number} is not a service such as \"tcp/443\"").into())
    }

    fn written(&self) -> String {
        quoted(self)
    }
}

/// `[address_sets]`: a set of addresses, written as a list, or as a table with the keys
/// `addresses`, `file` or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    /// Prefixes and other sets.
    pub addresses: Vec<AddressTerm>,
    /// The path of a file with one prefix per line. [`Config::load_sets`] reads the file.
    pub file: Option<String>,
    /// The prefixes of the file; `None` if the file has not been read.
    loaded: Option<Vec<IpNet>>,
}

impl AddressSet {
    /// Returns the prefixes that were read from the file; `None` if the file has not been read.
    #[must_use]
    pub fn loaded(&self) -> Option<&[IpNet]> {
        self.loaded.as_deref()
    }
}

crate::config_keys! {
    AddressSet = "" {
        /// Prefixes and other sets.
        addresses: Vec<AddressTerm> { never_empty: true; }
        /// The path of a file with a prefix a line.
        file: Option<String> {}
    }
}

/// A list of addresses, or a table.
impl Value for AddressSet {
    type Bound = ();

    fn kind() -> String {
        "list of prefixes and sets (`@name`), or table with `addresses`, `file` (the path of a \
         file \
         with a prefix a line) or both"
            .to_owned()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let set: Self = match item.kind() {
            Kind::Table(_) => declare::read::table(item, problems)?,
            Kind::List(_) => Self {
                addresses: Value::read(item, problems)?,
                ..Self::default()
            },
            _ => {
                let expected =
                    "a list of addresses and sets, or a table with `addresses` or `file`";
                problems.push(item, wrong_type(item, expected));
                return None;
            }
        };
        if !set.addresses.is_empty() || set.file.is_some() {
            return Some(set);
        }
        problems.push(
            item,
            match item.kind() {
                Kind::List(_) => ConfigErrorCause::EmptyList,
                _ => ConfigErrorCause::Syntax("a set needs `addresses`, `file` or both".to_owned()),
            },
        );
        None
    }

    fn toml(&self) -> String {
        match self.file {
            Some(_) => declare::print::inline_table(self),
            None => self.addresses.toml(),
        }
    }
}

/// Parses a file of prefixes: one per line, with comments that begin with `#` or `;`. Repeated
/// prefixes are skipped.
///
/// # Errors
/// Returns the line, counted from 1, and its error.
fn prefixes_of(text: &str) -> Result<Vec<IpNet>, (usize, ConfigErrorCause)> {
    let mut prefixes = Vec::new();
    let mut seen = HashSet::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let value = line.split(['#', ';']).next().unwrap_or_default().trim();
        if value.is_empty() {
            continue;
        }
        let shown: String = value.chars().take(64).collect();
        let prefix = IpNet::from_text(&shown).map_err(|wrong| match wrong {
            Wrong::Other(reason) => (
                number,
                ConfigErrorCause::Syntax(reason.escape_debug().to_string()),
            ),
            _ => (number, ConfigErrorCause::Syntax(IpNet::EXPECTED.to_owned())),
        })?;
        let network = prefix.trunc();
        if prefix != network {
            let (prefix, network) = (prefix.to_string(), network.to_string());
            return Err((number, ConfigErrorCause::HostBits { prefix, network }));
        }
        if seen.insert(prefix) {
            prefixes.push(prefix);
        }
        if prefixes.len() > MAX_SET_PREFIXES {
            return Err((number, ConfigErrorCause::SetTooLarge(MAX_SET_PREFIXES)));
        }
    }
    Ok(prefixes)
}

impl Config {
    /// Returns the names of sets that have a file, and the paths as written.
    pub fn set_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let sets = self.address_sets.iter();
        sets.filter_map(|(name, set)| Some((name.as_str(), set.file.as_deref()?)))
    }

    /// Reads the files of all sets. The library opens no file: `read` receives a path as written
    /// and returns the text of the file, or the reason for which there is none. A configuration
    /// with such sets compiles only after this call.
    ///
    /// A file has one prefix or address per line. A comment begins with `#` or `;`; empty lines and
    /// repeated prefixes are skipped. A file without any prefix is an empty set, which matches
    /// nothing.
    ///
    /// ```
    /// use portcullis::config::Config;
    ///
    /// let text = "[address_sets]\nfeed = { file = \"feed.txt\" }";
    /// let mut config = Config::from_toml(text, "portcullis.toml")?;
    /// assert!(config.compile().is_err(), "the file was not read");
    /// config.load_sets(|path| {
    ///     assert_eq!(path, "feed.txt");
    ///     Ok("192.0.2.0/24 # documentation\n2001:db8::/32\n".to_owned())
    /// })?;
    /// assert!(config.compile().is_ok());
    ///
    /// let error = config.load_sets(|_| Ok("192.0.2.0/24\n10.1.2.3/8\n".to_owned())).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "feed.txt:2: address_sets.feed: 10.1.2.3/8 has host bits set: the network is 10.0.0.0/8"
    /// );
    /// # Ok::<(), portcullis::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error for a file that cannot be read, a line that is not a prefix, or more than
    /// [`MAX_SET_PREFIXES`] prefixes. No set is changed in that case.
    pub fn load_sets(
        &mut self,
        mut read: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<(), ConfigError> {
        let mut loaded = BTreeMap::new();
        for (name, path) in self.set_files() {
            let key = set_key("address_sets", name);
            let text = read(path).map_err(|reason| {
                let file = path.to_owned();
                self.error(
                    &format!("{key}.file"),
                    ConfigErrorCause::SetFile { file, reason },
                )
            })?;
            let prefixes = prefixes_of(&text).map_err(|(line, cause)| ConfigError {
                location: Location {
                    file: Some(path.into()),
                    line: Some(line),
                    key,
                    ..Location::default()
                },
                cause,
            })?;
            loaded.insert(name.to_owned(), prefixes);
        }
        for (name, prefixes) in loaded {
            if let Some(set) = self.address_sets.get_mut(&name) {
                set.loaded = Some(prefixes);
            }
        }
        Ok(())
    }

    /// Checks names, members and references of all sets.
    pub(super) fn check_sets(&self, errors: &mut Errors) {
        let addresses = self.address_sets.iter().map(|(name, set)| {
            let members = set.addresses.iter().map(|term| match term {
                AddressTerm::Set(set) => (term.to_string(), Some(set.as_str())),
                AddressTerm::Prefix(_) => (term.to_string(), None),
            });
            (name.as_str(), members.collect())
        });
        let addresses = References {
            section: "address_sets",
            members: addresses.collect(),
        };
        let services = self.service_sets.iter().map(|(name, list)| {
            let members = list.iter().map(|term| match term {
                ServiceTerm::Set(set) => (term.to_string(), Some(set.as_str())),
                ServiceTerm::Service(_) => (term.to_string(), None),
            });
            (name.as_str(), members.collect())
        });
        let services = References {
            section: "service_sets",
            members: services.collect(),
        };
        errors.check(addresses.check(self));
        errors.check(services.check(self));
        for (name, list) in &self.service_sets {
            if list.is_empty() {
                errors.add(self.error(&set_key("service_sets", name), ConfigErrorCause::EmptyList));
            }
        }
        for (name, set) in &self.address_sets {
            let key = set_key("address_sets", name);
            let list = format!("{key}.addresses");
            let list = if self.provenance.line(&list).is_some() {
                list
            } else {
                key
            };
            errors.check(self.check_address_terms(&list, &set.addresses));
        }
    }

    /// Checks the prefixes and set names of a list.
    pub(super) fn check_address_terms(&self, key: &str, terms: &[AddressTerm]) -> Checked {
        for (place, term) in terms.iter().enumerate() {
            let key = format!("{key}[{place}]");
            match term {
                AddressTerm::Prefix(prefix) if *prefix != prefix.trunc() => {
                    let (prefix, network) = (prefix.to_string(), prefix.trunc().to_string());
                    return Err(self.error(&key, ConfigErrorCause::HostBits { prefix, network }));
                }
                AddressTerm::Prefix(_) => {}
                AddressTerm::Set(name) => self.check_set_name(&key, name, "address_sets")?,
            }
        }
        Ok(())
    }

    /// Checks the name of a set of a section.
    pub(super) fn check_set_name(
        &self,
        key: &str,
        name: &str,
        section: &'static str,
    ) -> Result<(), ConfigError> {
        let is_addresses = section == "address_sets";
        let is_known = match is_addresses {
            true => self.address_sets.contains_key(name),
            false => self.service_sets.contains_key(name),
        };
        if is_known {
            return Ok(());
        }
        let names = match is_addresses {
            true => listed_keys(&self.address_sets),
            false => listed_keys(&self.service_sets),
        };
        let known = match names.is_empty() {
            true => format!("[{section}] has none"),
            false => format!("[{section}] has {names}"),
        };
        let set = shown(name).into_owned();
        Err(self.error(key, ConfigErrorCause::UnknownSet { set, known }))
    }
}

/// Returns the names of a section as messages list them.
fn listed_keys<V>(sets: &BTreeMap<String, V>) -> String {
    listed(sets.keys().map(String::as_str), sets.len())
}

/// The key of a set.
pub(super) fn set_key(section: &str, name: &str) -> String {
    format!("{section}.{}", key_segment(name))
}

/// Members of the sets of a section: the values as written, and the names of nested sets.
struct References<'a> {
    section: &'static str,
    members: BTreeMap<&'a str, Vec<(String, Option<&'a str>)>>,
}

impl<'a> References<'a> {
    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        for (name, members) in &self.members {
            let key = set_key(self.section, name);
            config.check_name(&key, name)?;
            let mut places = BTreeMap::new();
            for (place, (value, set)) in members.iter().enumerate() {
                let key = format!("{key}[{place}]");
                if let Some(first) = places.insert(value.as_str(), place) {
                    let value = shown(value).into_owned();
                    return Err(
                        config.error(&key, ConfigErrorCause::DuplicateMember { value, first })
                    );
                }
                if let Some(set) = set {
                    config.check_set_name(&key, set, self.section)?;
                }
            }
        }
        // Sets that are known not to lead to themselves.
        let mut done = HashSet::new();
        for name in self.members.keys() {
            self.check_circle(config, name, &mut done)?;
        }
        Ok(())
    }

    /// Follows the sets that a set names, without recursion, since their depth is not bounded.
    fn check_circle(
        &self,
        config: &Config,
        start: &'a str,
        done: &mut HashSet<&'a str>,
    ) -> Result<(), ConfigError> {
        let named = |name: &str| -> Vec<&'a str> {
            let members = self.members.get(name).into_iter().flatten();
            members.filter_map(|(_, set)| *set).collect()
        };
        let mut path = vec![(start, named(start))];
        let mut on_path = HashSet::from([start]);
        while let Some((name, left)) = path.last_mut() {
            let Some(next) = left.pop() else {
                done.insert(*name);
                on_path.remove(*name);
                path.pop();
                continue;
            };
            if on_path.contains(next) {
                let names = path
                    .iter()
                    .map(|(name, _)| *name)
                    .skip_while(|name| *name != next);
                let circle: Vec<_> = names
                    .chain([next])
                    .map(|name| format!("{SET}{name}"))
                    .collect();
                let cause = ConfigErrorCause::SetCircle(circle.join(" names "));
                return Err(config.error(&set_key(self.section, next), cause));
            }
            if !done.contains(next) {
                on_path.insert(next);
                path.push((next, named(next)));
            }
        }
        Ok(())
    }
}
