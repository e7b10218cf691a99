//! The rules turned round: for each field, which rules match a value.
//!
//! A look-up finds one set of rules for each field, and the first rule in all of them is the answer. The sets
//! are bit vectors, joined 64 rules at a time, so the cost grows with a 64th of the number of rules and not
//! with what the rules say. A set is the rules that leave the field open, shared by all values, and a sparse
//! row of those that name the value.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::NewSession;
use super::address::AddressMap;
use super::rows::{Cursor, RowBuilder, RowId, Rows, RuleSet};
use super::rule::{PortRange, Protocol, Rule, RuleDirection, merged};
use crate::flow::Zone;

/// Bit vector of the rules that leave a field open, 64 a word.
type Open = Box<[u64]>;

/// Rules by port: the row of a port is that of the last start at or below it.
#[derive(Debug)]
struct PortTable {
    starts: Vec<(u16, RowId)>,
    open: Open,
}

#[derive(Debug)]
struct AddressTable {
    rows: AddressMap<RowId>,
    open: Open,
}

/// A table by a small number: the row is at that place.
#[derive(Debug)]
struct DirectTable {
    rows: Vec<RowId>,
    open: Open,
}

/// All fields' tables.
#[derive(Debug)]
pub(super) struct Tables {
    rows: Rows,
    /// 64-rule words in a set.
    words: u16,
    zones: Vec<(Zone, RowId)>,
    zones_open: Open,
    source: AddressTable,
    destination: AddressTable,
    protocol: DirectTable,
    source_ports: PortTable,
    destination_ports: PortTable,
    /// ICMP types at 0 to 255, ICMPv6 types at 256 to 511.
    icmp: DirectTable,
    /// Inbound at 0, outbound at 1.
    direction: DirectTable,
    /// No rule names a direction: it need not be found out.
    directionless: bool,
}

impl Tables {
    /// `None` if the tables would take more than the bound of `RowBuilder`. Rules beyond `u16` are left out.
    pub(super) fn new(rules: &[Rule]) -> Option<Self> {
        let mut rows = RowBuilder::default();
        let words = rules.len().div_ceil(64);
        let numbered = || (0..u16::MAX).zip(rules);
        let open = |is_open: &dyn Fn(&Rule) -> bool| -> Open {
            rules
                .chunks(64)
                .map(|chunk| {
                    chunk
                        .iter()
                        .rev()
                        .fold(0_u64, |word, rule| (word << 1) | u64::from(is_open(rule)))
                })
                .collect()
        };

        let mut zones: BTreeMap<Zone, RuleSet> = BTreeMap::new();
        let mut protocol = vec![RuleSet::default(); 256];
        let mut icmp = vec![RuleSet::default(); 512];
        let (mut inbound, mut outbound) = (RuleSet::default(), RuleSet::default());
        let mut directionless = true;
        for (number, rule) in numbered() {
            for zone in &rule.zones {
                zones.entry(*zone).or_default().insert(number);
            }
            for value in &rule.protocol {
                if let Some(set) = protocol.get_mut(usize::from(value.0)) {
                    set.insert(number);
                }
            }
            for (value, kind) in rule.icmp_pairs() {
                if let Some(set) = icmp.get_mut(icmp_place(value, kind)) {
                    set.insert(number);
                }
            }
            directionless &= rule.direction == RuleDirection::Any;
            match rule.direction {
                RuleDirection::Inbound => inbound.insert(number),
                RuleDirection::Outbound => outbound.insert(number),
                RuleDirection::Any => {}
            }
        }
        let mut direct =
            |sets: Vec<RuleSet>| -> Vec<RowId> { sets.iter().map(|set| rows.row(set)).collect() };
        let protocol = DirectTable {
            rows: direct(protocol),
            open: open(&|rule| rule.protocol.is_empty()),
        };
        let icmp = DirectTable {
            rows: direct(icmp),
            open: open(&|rule| rule.icmp_types.is_empty()),
        };
        let direction = DirectTable {
            rows: direct(vec![inbound, outbound]),
            open: open(&|rule| rule.direction == RuleDirection::Any),
        };
        let zones = zones
            .into_iter()
            .map(|(zone, set)| (zone, rows.row(&set)))
            .collect();
        let mut addresses = |nets: &dyn Fn(&Rule) -> &[IpNet]| AddressTable {
            rows: address_rows(numbered().map(|(number, rule)| (number, nets(rule))), &mut rows),
            open: open(&|rule| nets(rule).is_empty()),
        };
        let source = addresses(&|rule| &rule.source);
        let destination = addresses(&|rule| &rule.destination);
        let mut ports = |ranges: &dyn Fn(&Rule) -> &[PortRange]| PortTable {
            starts: port_rows(numbered().map(|(number, rule)| (number, ranges(rule))), &mut rows),
            open: open(&|rule| ranges(rule).is_empty()),
        };
        let source_ports = ports(&|rule| &rule.source_ports);
        let destination_ports = ports(&|rule| &rule.destination_ports);
        Some(Self {
            words: u16::try_from(words).unwrap_or(u16::MAX),
            zones,
            zones_open: open(&|rule| rule.zones.is_empty()),
            source,
            destination,
            protocol,
            source_ports,
            destination_ports,
            icmp,
            direction,
            directionless,
            rows: rows.finish()?,
        })
    }

    /// Must the caller find out whether the initiator is inside?
    pub(super) fn directional(&self) -> bool {
        !self.directionless
    }

    /// The words of the set of rules that match, by ascending number. `inside` is `None` to leave the
    /// direction out.
    pub(super) fn matches(&self, q: &NewSession, inside: Option<bool>) -> Matches<'_> {
        let zone = self
            .zones
            .binary_search_by_key(&q.zone, |(zone, _)| *zone)
            .ok()
            .and_then(|place| self.zones.get(place))
            .map(|(_, row)| *row);
        let icmp = q.icmp.map(|(kind, _)| icmp_place(Protocol(q.protocol), kind));
        let cursors = [
            self.cursor(
                &self.protocol.open,
                self.protocol.row(Some(usize::from(q.protocol))),
            ),
            self.cursor(
                &self.destination_ports.open,
                self.destination_ports.row(q.dst_port),
            ),
            self.cursor(&self.destination.open, self.destination.row(q.dst)),
            self.cursor(&self.source.open, self.source.row(q.src)),
            self.cursor(&self.zones_open, zone),
            self.cursor(&self.source_ports.open, self.source_ports.row(q.src_port)),
            self.cursor(&self.icmp.open, self.icmp.row(icmp)),
        ];
        let direction = if self.directionless { None } else { inside };
        let direction = direction.map(|inside| {
            self.cursor(
                &self.direction.open,
                self.direction.row(Some(usize::from(inside))),
            )
        });
        Matches {
            cursors,
            direction,
            word: 0,
            words: self.words,
        }
    }

    fn cursor<'a>(&'a self, open: &'a Open, row: Option<RowId>) -> Cursor<'a> {
        Cursor::new(open, self.rows.row(row.unwrap_or_default()))
    }
}

impl AddressTable {
    fn row(&self, address: IpAddr) -> Option<RowId> {
        self.rows.longest_match(address).copied()
    }
}

impl PortTable {
    fn row(&self, port: Option<u16>) -> Option<RowId> {
        let port = port?;
        let after = self.starts.partition_point(|(start, _)| *start <= port);
        self.starts.get(after.checked_sub(1)?).map(|(_, row)| *row)
    }
}

impl DirectTable {
    fn row(&self, place: Option<usize>) -> Option<RowId> {
        self.rows.get(place?).copied()
    }
}

/// The place of an ICMP type in its table; past its end for a protocol that is not ICMP.
fn icmp_place(protocol: Protocol, kind: u8) -> usize {
    match protocol {
        Protocol::ICMP => usize::from(kind),
        Protocol::ICMPV6 => 256 + usize::from(kind),
        _ => usize::MAX,
    }
}

fn address_rows<'a>(
    rules: impl Iterator<Item = (u16, &'a [IpNet])>,
    rows: &mut RowBuilder,
) -> AddressMap<RowId> {
    let mut own: AddressMap<RuleSet> = AddressMap::new();
    for (number, nets) in rules {
        for net in nets {
            own.at(*net).insert(number);
        }
    }
    own.inherit(|sets| {
        let mut all = RuleSet::default();
        for set in sets {
            all.merge(set);
        }
        rows.row(&all)
    })
}

fn port_rows<'a>(
    rules: impl Iterator<Item = (u16, &'a [PortRange])>,
    rows: &mut RowBuilder,
) -> Vec<(u16, RowId)> {
    // At each port where the set changes: the rules that begin to match there and those that cease to.
    let mut changes: BTreeMap<u16, (Vec<u16>, Vec<u16>)> = BTreeMap::new();
    for (number, ranges) in rules {
        for range in merged(ranges) {
            changes.entry(range.first).or_default().0.push(number);
            if let Some(past) = range.last.checked_add(1) {
                changes.entry(past).or_default().1.push(number);
            }
        }
    }
    let mut active = RuleSet::default();
    changes
        .into_iter()
        .map(|(port, (begins, ceases))| {
            for number in ceases {
                active.remove(number);
            }
            for number in begins {
                active.insert(number);
            }
            (port, rows.row(&active))
        })
        .collect()
}

/// The rules that match a session, word by word.
#[derive(Debug)]
pub(super) struct Matches<'a> {
    cursors: [Cursor<'a>; 7],
    direction: Option<Cursor<'a>>,
    word: u16,
    words: u16,
}

impl Matches<'_> {
    /// The number of the first rule that matches.
    pub(super) fn first_rule(self) -> Option<u16> {
        for (word, bits) in self {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as u16);
            }
        }
        None
    }

    /// The numbers of all rules that match, ascending.
    pub(super) fn rules(self) -> impl Iterator<Item = u16> {
        self.flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| word * 64 + bit)
        })
    }
}

impl Iterator for Matches<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<(u16, u64)> {
        let word = self.word;
        if word >= self.words {
            return None;
        }
        self.word += 1;
        let mut bits = u64::MAX;
        for cursor in self.cursors.iter_mut().chain(&mut self.direction) {
            bits &= cursor.word(word);
            if bits == 0 {
                break;
            }
        }
        Some((word, bits))
    }
}
