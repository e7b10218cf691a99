//! Fields of VPC flow log records, by the names of AWS.

/// Field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowField {
    Version,
    AccountId,
    InterfaceId,
    SrcAddr,
    DstAddr,
    SrcPort,
    DstPort,
    Protocol,
    Packets,
    Bytes,
    Start,
    End,
    Action,
    LogStatus,
    VpcId,
    SubnetId,
    InstanceId,
    TcpFlags,
    Type,
    PktSrcAddr,
    PktDstAddr,
    Region,
    AzId,
    SublocationType,
    SublocationId,
    PktSrcAwsService,
    PktDstAwsService,
    FlowDirection,
    TrafficPath,
}

impl FlowField {
    /// The fields of version 2, as AWS writes a custom format.
    pub(crate) const VERSION_2: &'static str = "${version} ${account-id} ${interface-id} \
        ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} \
        ${end} ${action} ${log-status}";

    /// All fields, with their names and the versions that have introduced them.
    const ALL: [(Self, &'static str, u8); 29] = [
        (Self::Version, "version", 2),
        (Self::AccountId, "account-id", 2),
        (Self::InterfaceId, "interface-id", 2),
        (Self::SrcAddr, "srcaddr", 2),
        (Self::DstAddr, "dstaddr", 2),
        (Self::SrcPort, "srcport", 2),
        (Self::DstPort, "dstport", 2),
        (Self::Protocol, "protocol", 2),
        (Self::Packets, "packets", 2),
        (Self::Bytes, "bytes", 2),
        (Self::Start, "start", 2),
        (Self::End, "end", 2),
        (Self::Action, "action", 2),
        (Self::LogStatus, "log-status", 2),
        (Self::VpcId, "vpc-id", 3),
        (Self::SubnetId, "subnet-id", 3),
        (Self::InstanceId, "instance-id", 3),
        (Self::TcpFlags, "tcp-flags", 3),
        (Self::Type, "type", 3),
        (Self::PktSrcAddr, "pkt-srcaddr", 3),
        (Self::PktDstAddr, "pkt-dstaddr", 3),
        (Self::Region, "region", 4),
        (Self::AzId, "az-id", 4),
        (Self::SublocationType, "sublocation-type", 4),
        (Self::SublocationId, "sublocation-id", 4),
        (Self::PktSrcAwsService, "pkt-src-aws-service", 5),
        (Self::PktDstAwsService, "pkt-dst-aws-service", 5),
        (Self::FlowDirection, "flow-direction", 5),
        (Self::TrafficPath, "traffic-path", 5),
    ];

    fn row(self) -> Option<&'static (Self, &'static str, u8)> {
        Self::ALL.iter().find(|(field, ..)| *field == self)
    }

    /// Returns the field's name.
    pub(crate) fn name(self) -> &'static str {
        self.row().map_or("", |(_, name, _)| name)
    }

    /// Returns the version of flow logs that has introduced the field.
    pub(crate) fn version(self) -> u8 {
        self.row().map_or(2, |(.., version)| *version)
    }

    /// Returns the fields of a custom format, such as `${srcaddr} ${bytes}`.
    ///
    /// # Errors
    /// Returns a word that is not a field, or an error if there are no fields or too many.
    pub(crate) fn list(text: &str) -> Result<Vec<Self>, String> {
        let field = |word: &str| {
            let name = word
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            let row = name.and_then(|name| Self::ALL.iter().find(|(_, known, _)| *known == name));
            row.map(|(field, ..)| *field).ok_or_else(|| {
                format!("`{word}` is not a field of versions 2 to 5, such as `${{srcaddr}}`")
            })
        };
        let fields: Vec<Self> = text
            .split_ascii_whitespace()
            .take(Self::ALL.len() + 1)
            .map(field)
            .collect::<Result<_, _>>()?;
        match fields.len() {
            0 => Err("there are no fields".to_owned()),
            count if count > Self::ALL.len() => Err("there are more fields than exist".to_owned()),
            _ => Ok(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        for (field, name, version) in FlowField::ALL {
            assert_eq!(FlowField::list(&format!("${{{name}}}")), Ok(vec![field]));
            assert_eq!((field.name(), field.version()), (name, version));
        }
        assert_eq!(FlowField::list(FlowField::VERSION_2).unwrap().len(), 14);
    }

    #[test]
    fn words_that_are_no_fields_are_errors() {
        for text in [
            "",
            "  ",
            "srcaddr",
            "${srcaddr",
            "${src}",
            "${srcaddr}${dstaddr}",
        ] {
            assert!(FlowField::list(text).is_err(), "{text}");
        }
        assert!(FlowField::list(&"${bytes} ".repeat(30)).is_err());
    }
}
