//! IPFIX records (RFC 7011, RFC 7012) of a session, one for each direction that has sent, and of a
//! packet that was not forwarded.

use std::net::IpAddr;
use std::time::Duration;

use portcullis::event::Traffic;
use portcullis::policy::{Action, Protocol};
use portcullis::session::history::Letter;
use portcullis::{Direction, EndReason, SessionRecord};

use super::dropped::forwarding_status;
use super::eve::flow_id;
use super::facts::{Facts, Outcome};
use crate::five_tuple::Endpoint;

/// Bytes before each record: the number of its template.
pub(in super::super) const RECORD_TEMPLATE_LEN: usize = 2;

/// Template of records with IPv4 addresses.
const TEMPLATE_V4: u16 = 256;
/// Template of records with IPv6 addresses.
const TEMPLATE_V6: u16 = 257;
/// Set of templates.
const TEMPLATE_SET: u16 = 2;

/// Information element of IANA's registry.
#[derive(Debug, Clone, Copy)]
struct Element {
    id: u16,
    bytes: u16,
}

const fn element(id: u16, bytes: u16) -> Element {
    Element { id, bytes }
}

/// Elements after the addresses, in the order of [`Record::write`].
const COMMON: [Element; 15] = [
    // flowStartMilliseconds, flowEndMilliseconds
    element(152, 8),
    element(153, 8),
    // sourceTransportPort, destinationTransportPort, protocolIdentifier
    element(7, 2),
    element(11, 2),
    element(4, 1),
    // octetDeltaCount, packetDeltaCount
    element(1, 8),
    element(2, 8),
    // tcpControlBits
    element(6, 2),
    // flowEndReason, firewallEvent, forwardingStatus, biflowDirection
    element(136, 1),
    element(233, 1),
    element(89, 1),
    element(239, 1),
    // flowId
    element(148, 8),
    // icmpTypeCodeIPv4, icmpTypeCodeIPv6
    element(32, 2),
    element(139, 2),
];
/// sourceIPv4Address, destinationIPv4Address
const V4: [Element; 2] = [element(8, 4), element(12, 4)];
/// sourceIPv6Address, destinationIPv6Address
const V6: [Element; 2] = [element(27, 16), element(28, 16)];

/// Returns the set of both templates, with its header.
pub(in super::super) fn template_set() -> Vec<u8> {
    let mut templates = Vec::new();
    for (number, addresses) in [(TEMPLATE_V4, V4), (TEMPLATE_V6, V6)] {
        let elements = addresses.iter().chain(&COMMON);
        templates.extend(number.to_be_bytes());
        templates.extend((elements.clone().count() as u16).to_be_bytes());
        for element in elements {
            templates.extend(element.id.to_be_bytes());
            templates.extend(element.bytes.to_be_bytes());
        }
    }
    let mut set = Vec::from(TEMPLATE_SET.to_be_bytes());
    set.extend((templates.len() as u16 + 4).to_be_bytes());
    set.extend(templates);
    set
}

/// Traffic of one direction.
struct Record<'f> {
    facts: &'f Facts<'f>,
    from: Endpoint,
    to: Endpoint,
    traffic: Traffic,
    direction: Direction,
}

/// Returns the records of an event, each after the number of its template.
pub(super) fn records(facts: &Facts<'_>) -> impl Iterator<Item = Vec<u8>> {
    let (from, to) = (facts.flow.initiator(), facts.flow.responder());
    let is_recorded = match facts.outcome {
        Outcome::Ended(_) => true,
        // An audited session has passed, and gets its records at its end.
        Outcome::Opened | Outcome::Updated | Outcome::Decided(Action::Audit) => false,
        Outcome::Decided(_) | Outcome::Dropped(_) => true,
    };
    let record = |from, to, traffic, direction| Record {
        facts,
        from,
        to,
        traffic,
        direction,
    };
    [
        record(from, to, facts.original, Direction::Original),
        record(to, from, facts.reply, Direction::Reply),
    ]
    .into_iter()
    .filter(move |record| is_recorded && record.traffic.packets > 0)
    .map(|record| record.write())
}

fn milliseconds(time: Duration) -> [u8; 8] {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .to_be_bytes()
}

/// Returns the flags of the TCP header that a direction has sent, as far as the history shows them.
fn control_bits(session: &SessionRecord, direction: Direction) -> u16 {
    let letters = session.history.letters();
    letters
        .filter(|(_, from)| *from == direction)
        .fold(0, |bits, (letter, _)| {
            bits | match letter {
                Letter::Syn => 0x02,
                Letter::Handshake => 0x12,
                Letter::Fin => 0x11,
                Letter::Reset => 0x04,
                Letter::Ack | Letter::Data => 0x10,
                // A SYN without ACK may have these too; other segments also have a letter above.
                Letter::Retransmission | Letter::ZeroWindow => 0,
            }
        })
}

impl Record<'_> {
    fn write(&self) -> Vec<u8> {
        let facts = self.facts;
        let mut record = Vec::with_capacity(96);
        match (self.from.address, self.to.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                record.extend(TEMPLATE_V4.to_be_bytes());
                record.extend(from.octets());
                record.extend(to.octets());
            }
            (from, to) => {
                let octets = |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                record.extend(TEMPLATE_V6.to_be_bytes());
                record.extend(octets(from));
                record.extend(octets(to));
            }
        }
        let has_ports = facts.flow.protocol.has_ports();
        let port = |end: Endpoint| end.port.filter(|_| has_ports).unwrap_or(0).to_be_bytes();
        record.extend(milliseconds(facts.start));
        record.extend(milliseconds(facts.last));
        record.extend(port(self.from));
        record.extend(port(self.to));
        record.push(facts.flow.protocol.0);
        record.extend(self.traffic.bytes.to_be_bytes());
        record.extend(u64::from(self.traffic.packets).to_be_bytes());
        let bits = facts
            .session
            .filter(|_| facts.flow.protocol == Protocol::TCP)
            .map_or(0, |session| control_bits(session, self.direction));
        record.extend(bits.to_be_bytes());
        record.push(self.end_reason());
        record.extend(match facts.session {
            // The flow was deleted; it was forwarded.
            Some(_) => [2, 64],
            // The flow was denied; the packet was dropped by a rule, or for another reason.
            None => [3, facts.dropped_for().map_or(129, forwarding_status)],
        });
        record.push(match facts.direction(self.direction) {
            Some(Direction::Original) => 1,
            Some(Direction::Reply) => 2,
            None => 0,
        });
        let id = facts.uid.map_or(0, flow_id);
        record.extend(id.to_be_bytes());
        let is_v4 = self.from.address.is_ipv4();
        let (kind, code) = (
            facts.flow.icmp_type.unwrap_or(0),
            facts.flow.icmp_code.unwrap_or(0),
        );
        for is_version in [is_v4, !is_v4] {
            record.extend(if is_version { [kind, code] } else { [0, 0] });
        }
        record
    }

    /// Returns the reason of the flow's end: 1 for a timeout, 3 for an end that was seen, 4 for one
    /// that was forced.
    const fn end_reason(&self) -> u8 {
        match self.facts.outcome {
            Outcome::Ended(EndReason::Timeout) => 1,
            Outcome::Ended(
                EndReason::Closed | EndReason::Reset | EndReason::Refused | EndReason::Reused,
            ) => 3,
            _ => 4,
        }
    }
}
