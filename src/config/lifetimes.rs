//! `[lifetimes]` and its overrides.
#[cfg(feature = "toml")]
use std::borrow::Cow;

use ipnet::IpNet;
#[cfg(feature = "toml")]
use toml::{Spanned, de::DeTable};

use super::declare::print::{inline, written_keys};
#[cfg(feature = "toml")]
use super::declare::read::{Entries, Kind, names, tables, unknown_key, update_keys, wrong_type};
use super::declare::reference::{nested, push_row};
use super::declare::{Checker, quoted};
#[cfg(feature = "toml")]
use super::declare::{Item, Problems};
use super::declare::{KeyReference, Printer, SectionReference, Value, duration};
use super::origin::Origin;
use crate::lifetime::{LifetimeClass, LifetimeSet, Lifetimes, MAX_LIFETIME, MIN_LIFETIME};
use crate::policy::{PortRange, Protocol};

/// `[lifetimes]`: lifetimes that replace the defaults of their classes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LifetimesConfig {
    /// The global lifetimes that were set, 1 ms to 30 days each.
    pub set: LifetimeSet,
    /// `[[lifetimes.override]]`: other lifetimes for some sessions, at most
    /// [`MAX_OVERRIDES`](crate::lifetime::MAX_OVERRIDES). Their order is irrelevant: the most
    /// specific one that matches applies, see [`LifetimeOverride`].
    pub overrides: Vec<LifetimeOverride>,
}

crate::config_section! {
    /// Lifetimes for the sessions that match; a key that is missing matches any. The most specific
    /// override applies: by address, then rule, ports, zone and protocol. It has the keys of
    /// `[lifetimes]` too.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct LifetimeOverride = "" {
        /// The IP protocol.
        protocol: Option<Protocol> { default: None, "all protocols"; }
        /// Ports of the responder. They need `protocol` to be TCP or UDP.
        ports: Vec<PortRange> {
            default: Vec::new(), "all ports";
            never_empty: true;
        }
        /// Prefixes of which one holds either end of the session.
        address: Vec<IpNet> {
            default: Vec::new(), "all addresses";
            never_empty: true;
        }
        /// The name of a zone.
        zone: Option<String> { default: None, "all zones"; }
        /// The name of the rule that has admitted the session.
        rule: Option<String> { default: None, "all rules"; }
    }
    also {
        /// The lifetimes; what is not set is the global lifetime.
        set: LifetimeSet = LifetimeSet::default();
    }
}

/// Returns the class of a path below `lifetimes`.
#[cfg(feature = "toml")]
fn class_of(path: &str) -> Option<LifetimeClass> {
    LifetimeClass::ALL
        .into_iter()
        .find(|class| class.name() == path)
}

/// Returns the names that follow a prefix of paths below `lifetimes`.
#[cfg(feature = "toml")]
fn names_below(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = LifetimeClass::ALL
        .into_iter()
        .filter_map(|class| class.name().strip_prefix(prefix))
        .filter_map(|rest| rest.split('.').next())
        .collect();
    names.dedup();
    names
}

/// Reads a lifetime, or a table of lifetimes; `others` are the other known keys of the table.
#[cfg(feature = "toml")]
fn read_lifetimes(
    set: &mut LifetimeSet,
    name: &Spanned<Cow<'_, str>>,
    item: &Item<'_, '_>,
    others: &[&str],
    problems: &mut Problems,
) {
    let protocol = name.get_ref().as_ref();
    let prefix = format!("{protocol}.");
    let is_table = !names_below(&prefix).is_empty();
    if let Some(class) = class_of(protocol) {
        problems.within_key(protocol, |problems| {
            read_lifetime(set, class, item, problems)
        });
    } else if let (true, Kind::Table(entries)) = (is_table, item.kind()) {
        problems.within_key(protocol, |problems| {
            for (state, item) in entries {
                match class_of(&format!("{prefix}{}", state.get_ref())) {
                    Some(class) => problems.within_key(state.get_ref(), |problems| {
                        read_lifetime(set, class, &Item(item), problems);
                    }),
                    None => unknown_key(state, &names_below(&prefix), problems),
                }
            }
        });
    } else if is_table {
        problems.within_key(protocol, |problems| {
            problems.push(item, wrong_type(item, "a table"))
        });
    } else {
        let known: Vec<&str> = others.iter().copied().chain(names_below("")).collect();
        unknown_key(name, &known, problems);
    }
}

#[cfg(feature = "toml")]
fn read_lifetime(
    set: &mut LifetimeSet,
    class: LifetimeClass,
    item: &Item<'_, '_>,
    problems: &mut Problems,
) {
    if let Some(lifetime) = Value::read(item, problems) {
        *set = (*set).with(class, lifetime);
    }
}

impl Value for LifetimesConfig {
    type Bound = ();

    fn kind() -> String {
        "table".to_owned()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let Kind::Table(entries) = item.kind() else {
            problems.push(item, wrong_type(item, "a table"));
            return None;
        };
        let mut config = Self::default();
        for (name, item) in entries {
            let item = Item(item);
            if name.get_ref() == "override" {
                config.overrides =
                    problems.within_key("override", |problems| tables(&item, problems));
            } else {
                read_lifetimes(&mut config.set, name, &item, &["override"], problems);
            }
        }
        Some(config)
    }

    fn toml(&self) -> String {
        inline(&lifetime_keys(&self.set))
    }

    fn print(&self, _: &Self, _: &'static str, printer: &mut Printer<'_>) {
        let lifetimes = Lifetimes::default().with(&self.set);
        for class in LifetimeClass::ALL {
            let value = quoted(duration(lifetimes.of(class)));
            printer.within_path(class.name(), |printer| match lifetimes.leader(class) {
                Some(leader) => printer.push(value, false, Origin::Follows { key: leader.name() }),
                None => {
                    // A lifetime that is set is not a default, whatever its value: others follow
                    // it.
                    let is_default = self.set.of(class).is_none();
                    printer.setting(value, is_default, class.default_source());
                }
            });
        }
        for (place, each) in self.overrides.iter().enumerate() {
            printer.within_path("override", |printer| {
                printer.within_item(place, |printer| printer.entry(each.toml()));
            });
        }
    }

    fn check(&self, checker: &mut Checker<'_>) {
        for (class, lifetime) in self.set.iter() {
            checker.within_path(class.name(), |checker| {
                checker.range(lifetime, MIN_LIFETIME..=MAX_LIFETIME);
            });
        }
        for (place, each) in self.overrides.iter().enumerate() {
            for (class, lifetime) in each.set.iter() {
                checker.within_path(&format!("override[{place}].{}", class.name()), |checker| {
                    checker.range(lifetime, MIN_LIFETIME..=MAX_LIFETIME);
                });
            }
        }
    }

    fn describe(row: KeyReference, sections: &mut Vec<SectionReference>) {
        sections.push(SectionReference {
            path: row.name.clone(),
            about: row.doc.clone(),
            keys: Vec::new(),
        });
        for class in LifetimeClass::ALL {
            let key = KeyReference {
                name: class.name().to_owned(),
                section: row.name.clone(),
                kind: "duration".to_owned(),
                default: quoted(duration(class.default_lifetime())),
                why: class.default_source().to_owned(),
                bounds: format!("{} to {}", duration(MIN_LIFETIME), duration(MAX_LIFETIME)),
                doc: match class.follows() {
                    Some(leader) => format!("As `{}` if only that is set.", leader.name()),
                    None => String::new(),
                },
                ..KeyReference::default()
            };
            push_row(key, sections);
        }
        let mut overrides = row.clone();
        overrides.section.clone_from(&row.name);
        overrides.name = "override".to_owned();
        nested::<LifetimeOverride>(overrides, "[]", sections);
    }
}

fn lifetime_keys(set: &LifetimeSet) -> Vec<String> {
    let keys = set.iter();
    keys.map(|(class, lifetime)| format!("{} = {}", class.name(), quoted(duration(lifetime))))
        .collect()
}

impl Value for LifetimeOverride {
    type Bound = ();

    fn kind() -> String {
        "table".to_owned()
    }

    #[cfg(feature = "toml")]
    fn read(item: &Item<'_, '_>, problems: &mut Problems) -> Option<Self> {
        let Kind::Table(entries) = item.kind() else {
            problems.push(item, wrong_type(item, "a table"));
            return None;
        };
        let mut each = Self::default();
        let own = names(&each);
        let is_own = |name: &str| own.contains(&name);
        let mut set = LifetimeSet::default();
        for (name, item) in entries {
            if !is_own(name.get_ref()) {
                read_lifetimes(&mut set, name, &Item(item), &own, problems);
            }
        }
        let conditions = entries.iter().filter(|(name, _)| is_own(name.get_ref()));
        let conditions: DeTable<'_> = conditions
            .map(|(name, item)| (name.clone(), item.clone()))
            .collect();
        let conditions = Entries {
            table: &conditions,
            span: item.0.span(),
            others: &[],
        };
        update_keys(&mut each, &conditions, problems);
        each.set = set;
        Some(each)
    }

    fn toml(&self) -> String {
        let mut keys = written_keys(self);
        keys.extend(lifetime_keys(&self.set));
        inline(&keys)
    }
}
