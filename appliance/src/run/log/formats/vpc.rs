//! VPC flow log records, versions 2 to 5, with the fields of the settings.

use std::net::IpAddr;
use std::time::Duration;

use portcullis::Direction;
use portcullis::event::Traffic;
use portcullis::policy::{Action, Protocol};

use super::super::super::settings::{FlowField, LogSettings};
use super::facts::{Facts, Outcome};
use super::intervals::{Part, flags};
use crate::five_tuple::Endpoint;

/// Returns the first line of a file.
pub(super) fn header(fields: &[FlowField]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    names.join(" ")
}

/// VPC flow log record: traffic from one endpoint to the other.
#[derive(Debug)]
pub(super) struct FlowRecord {
    from: Endpoint,
    to: Endpoint,
    protocol: Protocol,
    traffic: Traffic,
    start: Duration,
    end: Duration,
    action: &'static str,
    /// TCP's flags in the traffic.
    flags: u8,
}

/// Returns the records of a part of a session, one for each direction that has sent anything in it;
/// of a packet that was not forwarded, one.
pub(super) fn records(facts: &Facts<'_>, part: Part) -> impl Iterator<Item = FlowRecord> {
    let action = match facts.outcome {
        Outcome::Ended(_) | Outcome::Updated => Some("ACCEPT"),
        // An audited session has passed, and gets its records as a session.
        Outcome::Opened | Outcome::Decided(Action::Audit) => None,
        Outcome::Decided(_) | Outcome::Dropped(_) => Some("REJECT"),
    };
    let (from, to) = (facts.flow.initiator(), facts.flow.responder());
    let record = |from, to, traffic, direction| FlowRecord {
        from,
        to,
        protocol: facts.flow.protocol,
        traffic,
        start: part.start,
        end: facts.last.max(part.start),
        action: action.unwrap_or_default(),
        flags: facts.session.map_or(0, |session| flags(session, direction)),
    };
    let mut records = [
        record(from, to, part.original, Direction::Original),
        record(to, from, part.reply, Direction::Reply),
    ];
    for (record, before) in records.iter_mut().zip(part.flags_before) {
        record.flags &= !before;
    }
    records
        .into_iter()
        .filter(move |record| action.is_some() && record.has_traffic())
}

impl FlowRecord {
    /// Returns whether the direction has sent anything. The packets of a session are counted up to
    /// 2^32 - 1; its bytes go on.
    const fn has_traffic(&self) -> bool {
        self.traffic.packets > 0 || self.traffic.bytes > 0
    }

    /// Returns the line of the record. Ports are 0 where the protocol has none, and for ICMP.
    pub(super) fn line(&self, fields: &[FlowField], settings: &LogSettings) -> String {
        let version = fields.iter().map(|field| field.version()).max();
        let values: Vec<String> = fields
            .iter()
            .map(|field| self.value(*field, version.unwrap_or(2), settings))
            .collect();
        values.join(" ")
    }

    fn value(&self, field: FlowField, version: u8, settings: &LogSettings) -> String {
        let has_ports = self.protocol.has_ports();
        let port = |end: Endpoint| end.port.filter(|_| has_ports).unwrap_or(0).to_string();
        match field {
            FlowField::Version => version.to_string(),
            FlowField::AccountId => settings.account_id.clone(),
            FlowField::InterfaceId => settings.interface_id.clone(),
            FlowField::SrcAddr | FlowField::PktSrcAddr => self.from.address.to_string(),
            FlowField::DstAddr | FlowField::PktDstAddr => self.to.address.to_string(),
            FlowField::SrcPort => port(self.from),
            FlowField::DstPort => port(self.to),
            FlowField::Protocol => self.protocol.0.to_string(),
            FlowField::Packets => self.traffic.packets.to_string(),
            FlowField::Bytes => self.traffic.bytes.to_string(),
            FlowField::Start => self.start.as_secs().to_string(),
            FlowField::End => self.end.as_secs().to_string(),
            FlowField::Action => self.action.to_owned(),
            FlowField::LogStatus => "OK".to_owned(),
            FlowField::TcpFlags => self.flags.to_string(),
            FlowField::Type => match self.from.address {
                IpAddr::V4(_) => "IPv4".to_owned(),
                IpAddr::V6(_) => "IPv6".to_owned(),
            },
            FlowField::VpcId
            | FlowField::SubnetId
            | FlowField::InstanceId
            | FlowField::Region
            | FlowField::AzId
            | FlowField::SublocationType
            | FlowField::SublocationId
            | FlowField::PktSrcAwsService
            | FlowField::PktDstAwsService
            | FlowField::FlowDirection
            | FlowField::TrafficPath => "-".to_owned(),
        }
    }
}
