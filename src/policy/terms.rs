//! Contents of the rules, field by field: which blocks of values each one names.
use super::NewSession;
use super::blocks::{Block, FieldValue, Value, blocks_of, keep_outermost, outermost};
use super::field::{PortRange, Protocol, merged};
use super::rule::{Rule, RuleDirection};

/// The largest number of terms of a policy: a block of values in a rule is a term.
pub(super) const MAX_TERMS: usize = 16 << 20;

/// A field of a rule, as the tables store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Destination,
    Source,
    DestinationPort,
    SourcePort,
    Zone,
    Icmp,
    Protocol,
    Direction,
}

impl Field {
    /// All fields, in the order of comparison: fields that separate rules best come first.
    pub(super) const ALL: [Self; 8] = [
        Self::Destination,
        Self::Source,
        Self::DestinationPort,
        Self::SourcePort,
        Self::Zone,
        Self::Icmp,
        Self::Protocol,
        Self::Direction,
    ];
}

/// A value for each field.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerField<T>(pub(super) [T; Field::ALL.len()]);

impl<T> PerField<T> {
    pub(super) fn get(&self, field: Field) -> Option<&T> {
        self.0.get(field as usize)
    }
}

impl Field {
    /// Returns the value of a session's first packet.
    #[inline]
    pub(super) fn value(self, q: &NewSession, inside: bool) -> FieldValue {
        match self {
            Self::Destination => q.dst.into(),
            Self::Source => q.src.into(),
            Self::DestinationPort => q.dst_port.into(),
            Self::SourcePort => q.src_port.into(),
            Self::Zone => FieldValue::Narrow(q.zone.0),
            Self::Icmp => icmp_value(q).unwrap_or(FieldValue::None),
            Self::Protocol => FieldValue::Narrow(q.protocol.into()),
            Self::Direction => FieldValue::Narrow(inside.into()),
        }
    }
}

/// Returns the number of the type and code of a session's ICMP message; `None` for another
/// protocol.
fn icmp_value(q: &NewSession) -> Option<FieldValue> {
    let (kind, code) = q.icmp?;
    let kind = icmp_block(Protocol(q.protocol), kind)?;
    Some(FieldValue::Wide(kind.first + u32::from(code)))
}

/// Returns the types of ICMP and ICMPv6, each a block of its 256 codes; `None` for another
/// protocol.
fn icmp_block(protocol: Protocol, kind: u8) -> Option<Block<u32>> {
    let version = match protocol {
        Protocol::ICMP => 0,
        Protocol::ICMPV6 => 1,
        _ => return None,
    };
    let first = version << 16 | u32::from(kind) << 8;
    Some(Block {
        first,
        last: first + 255,
    })
}

/// The blocks that one rule names in a field, distinct and ordered; none holds another.
#[derive(Debug, Default)]
pub(super) struct RuleTerms {
    pub(super) narrow: Vec<Block<u16>>,
    pub(super) wide: Vec<Block<u32>>,
    pub(super) widest: Vec<Block<u128>>,
}

impl RuleTerms {
    /// Returns the terms of a rule; `None` if the rule leaves the field open.
    pub(super) fn new(rule: &Rule, field: Field) -> Option<Self> {
        let single = |value: u16| Block::single(value);
        let mut terms = Self::default();
        let is_open = match field {
            Field::Destination | Field::Source => {
                let nets = match field {
                    Field::Destination => &rule.destination,
                    _ => &rule.source,
                };
                (terms.wide, terms.widest) = outermost(nets);
                nets.is_empty()
            }
            Field::DestinationPort | Field::SourcePort => {
                let ranges: &[PortRange] = match field {
                    Field::DestinationPort => &rule.destination_ports,
                    _ => &rule.source_ports,
                };
                terms.narrow = merged(ranges).into_iter().flat_map(blocks_of).collect();
                ranges.is_empty()
            }
            Field::Zone => {
                terms.narrow = rule.zones.iter().map(|zone| single(zone.0)).collect();
                rule.zones.is_empty()
            }
            Field::Icmp => {
                let messages = rule.icmp_messages();
                let blocks = messages.filter_map(|(protocol, kind, code)| {
                    let block = icmp_block(protocol, kind)?;
                    Some(code.map_or(block, |code| Block::single(block.first + u32::from(code))))
                });
                terms.wide = blocks.collect();
                // A type without a code holds each of its codes.
                keep_outermost(&mut terms.wide);
                rule.icmp_types.is_empty()
            }
            Field::Protocol => {
                let numbers = rule.protocol.iter();
                terms.narrow = numbers.map(|protocol| single(protocol.0.into())).collect();
                rule.protocol.is_empty()
            }
            Field::Direction => {
                match rule.direction {
                    RuleDirection::Any => {}
                    RuleDirection::Inbound => terms.narrow.push(single(0)),
                    RuleDirection::Outbound => terms.narrow.push(single(1)),
                }
                rule.direction == RuleDirection::Any
            }
        };
        terms.narrow.sort_unstable();
        terms.narrow.dedup();
        terms.wide.sort_unstable();
        terms.wide.dedup();
        (!is_open).then_some(terms)
    }

    fn len(&self) -> usize {
        self.narrow.len() + self.wide.len() + self.widest.len()
    }
}

/// Blocks and the rules that name them.
#[derive(Debug)]
pub(super) struct Terms<T>(Vec<(Block<T>, u16)>);

impl<T: Value> Default for Terms<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Value> Terms<T> {
    fn push(&mut self, rule: u16, blocks: &[Block<T>]) {
        self.0.extend(blocks.iter().map(|block| (*block, rule)));
    }

    /// Returns each block with the rules that name it, in the order of blocks.
    pub(super) fn by_block(
        &self,
    ) -> impl Iterator<Item = (Block<T>, impl ExactSizeIterator<Item = u16>)> {
        let blocks = self.0.chunk_by(|(one, _), (other, _)| one == other);
        blocks.filter_map(|terms| {
            let (block, _) = terms.first()?;
            Some((*block, terms.iter().map(|(_, rule)| *rule)))
        })
    }
}

/// The terms of all rules in one field.
#[derive(Debug, Default)]
pub(super) struct FieldTerms {
    pub(super) narrow: Terms<u16>,
    pub(super) wide: Terms<u32>,
    pub(super) widest: Terms<u128>,
    /// The rules that leave the field open.
    pub(super) open: Vec<u16>,
}

impl FieldTerms {
    /// Collects a field's terms. Subtracts them from `room`; `None` if there is not enough.
    pub(super) fn new(rules: &[Rule], field: Field, room: &mut usize) -> Option<Self> {
        let mut all = Self::default();
        for (number, rule) in (0..u16::MAX).zip(rules) {
            let Some(terms) = RuleTerms::new(rule, field) else {
                all.open.push(number);
                continue;
            };
            *room = room.checked_sub(terms.len())?;
            all.narrow.push(number, &terms.narrow);
            all.wide.push(number, &terms.wide);
            all.widest.push(number, &terms.widest);
        }
        all.narrow.0.sort_unstable();
        all.wide.0.sort_unstable();
        all.widest.0.sort_unstable();
        Some(all)
    }

    /// Calls `visit` with the rules of each block, then with those that leave the field open.
    pub(super) fn each_group(&self, mut visit: impl FnMut(&mut dyn ExactSizeIterator<Item = u16>)) {
        self.narrow
            .by_block()
            .for_each(|(_, mut rules)| visit(&mut rules));
        self.wide
            .by_block()
            .for_each(|(_, mut rules)| visit(&mut rules));
        self.widest
            .by_block()
            .for_each(|(_, mut rules)| visit(&mut rules));
        visit(&mut self.open.iter().copied());
    }

    /// Returns whether any rule names a value of this field.
    pub(super) fn is_named(&self, rules: usize) -> bool {
        self.open.len() < rules
    }
}
