//! Metadata that a provider's load balancer writes into the options of the header.
//!
//! This is separate from the codec: a reader for each provider, and one result. Options are found
//! by class and type, in any order. Options of other classes are ignored.
//!
//! - [`Provider::Gwlb`], class 0x0108: type 1 is the endpoint id, 8 bytes; type 2 the attachment
//!   id, 8 bytes; type 3 the flow cookie, 4 bytes.
//! - [`Provider::Gcp`], class 0x0132: type 1 is the network id in the upper 28 bits of 4 bytes,
//!   with a direction bit in the lowest; type 2 the endpoint id; type 3 the profile id.
//! - [`Provider::Tencent`], class 0x0167: type 1 is the endpoint id, 8 bytes; type 2 the attachment
//!   id, 8 bytes; type 3 has 3 bits of direction and 29 of flow cookie.
//!
//! The lengths of GCP's options are those in Wireshark for types 1 and 3. No better source was
//! found, so other lengths are accepted too. Type 1 may have 8 bytes, which are the identifier
//! unchanged; types 2 and 3 may have any number.

use super::provider::{EndpointId, MetadataField, Provider};
use super::{FIXED, Header, OPTION_HEADER, TunnelOption};
use crate::reasons::reasons;

const ENDPOINT: u8 = 1;
const ATTACHMENT: u8 = 2;
const COOKIE: u8 = 3;

reasons! {
    /// The reason for which a header's metadata is refused.
    MetadataError {
        EndpointDuplicate, "metadata_endpoint_duplicate",
            "The header names its endpoint twice.";
        EndpointLength, "metadata_endpoint_length",
            "The option that names the endpoint has an invalid length.";
        EndpointMissing, "metadata_endpoint_missing",
            "The header does not name its endpoint, which is required.";
        AttachmentDuplicate, "metadata_attachment_duplicate",
            "The header names its attachment twice.";
        AttachmentLength, "metadata_attachment_length",
            "The option that names the attachment has an invalid length.";
        AttachmentMissing, "metadata_attachment_missing",
            "The header does not name its attachment, which is required.";
        CookieDuplicate, "metadata_cookie_duplicate",
            "The header has two flow cookies.";
        CookieLength, "metadata_cookie_length",
            "The flow cookie option has an invalid length.";
        CookieMissing, "metadata_cookie_missing",
            "The header has no flow cookie, which is required.";
    }
}

impl MetadataField {
    const fn missing(self) -> MetadataError {
        match self {
            Self::Endpoint => MetadataError::EndpointMissing,
            Self::Attachment => MetadataError::AttachmentMissing,
            Self::Cookie => MetadataError::CookieMissing,
        }
    }
}

/// A flow cookie, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie {
    /// The four bytes of the cookie, including bits that do not identify the flow.
    pub value: u32,
    /// The offset of the first byte in the header.
    pub offset: usize,
}

/// The metadata of a packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Option type 1: the endpoint through which the packet entered.
    pub endpoint: Option<EndpointId>,
    /// Option type 2: the attachment; 0 means none. For longer identifiers, the last 8 bytes.
    pub attachment: Option<u64>,
    /// Option type 3, for providers with a flow cookie there.
    pub cookie: Option<Cookie>,
}

impl Metadata {
    /// Reads the metadata that a provider has written into a header.
    ///
    /// # Errors
    /// Returns the first option of this provider that is duplicated or has a wrong length, else the
    /// first of `required` that is missing.
    pub fn read(
        provider: Provider,
        header: &Header<'_>,
        required: &[MetadataField],
    ) -> Result<Self, MetadataError> {
        let mut metadata = Self::default();
        let mut profile = false;
        let mut offset = FIXED;
        // A parsed header has no invalid options.
        for option in header.options().map_while(Result::ok) {
            let data_offset = offset + OPTION_HEADER;
            offset = data_offset + option.data.len();
            if option.class != provider.class() {
                continue;
            }
            match option.kind {
                ENDPOINT if metadata.endpoint.is_some() => {
                    return Err(MetadataError::EndpointDuplicate);
                }
                ENDPOINT => metadata.endpoint = Some(endpoint(provider, &option)?),
                ATTACHMENT if metadata.attachment.is_some() => {
                    return Err(MetadataError::AttachmentDuplicate);
                }
                ATTACHMENT => metadata.attachment = Some(attachment(provider, &option)?),
                COOKIE if metadata.cookie.is_some() || profile => {
                    return Err(MetadataError::CookieDuplicate);
                }
                COOKIE if matches!(provider, Provider::Gcp) => profile = true,
                COOKIE => {
                    let value = option
                        .data
                        .try_into()
                        .map_err(|_| MetadataError::CookieLength)?;
                    metadata.cookie = Some(Cookie {
                        value: u32::from_be_bytes(value),
                        offset: data_offset,
                    });
                }
                _ => {}
            }
        }
        let there = |field: &MetadataField| match field {
            MetadataField::Endpoint => metadata.endpoint.is_some(),
            MetadataField::Attachment => metadata.attachment.is_some(),
            MetadataField::Cookie => metadata.cookie.is_some(),
        };
        match required.iter().find(|field| !there(field)) {
            Some(field) => Err(field.missing()),
            None => Ok(metadata),
        }
    }
}

fn endpoint(provider: Provider, option: &TunnelOption<'_>) -> Result<EndpointId, MetadataError> {
    if let Ok(id) = option.data.try_into() {
        return Ok(EndpointId(u64::from_be_bytes(id)));
    }
    match (provider, option.data.try_into()) {
        // The lower four bits are reserved bits and the direction.
        (Provider::Gcp, Ok(id)) => Ok(EndpointId(u64::from(u32::from_be_bytes(id) >> 4))),
        _ => Err(MetadataError::EndpointLength),
    }
}

fn attachment(provider: Provider, option: &TunnelOption<'_>) -> Result<u64, MetadataError> {
    match (provider, option.data.try_into()) {
        (_, Ok(id)) => Ok(u64::from_be_bytes(id)),
        (Provider::Gcp, Err(_)) => Ok(option
            .data
            .iter()
            .fold(0, |id: u64, byte| id << 8 | u64::from(*byte))),
        _ => Err(MetadataError::AttachmentLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geneve::{InnerProtocol, encode};

    /// Class, type and data of an option.
    type Parts<'a> = (u16, u8, &'a [u8]);

    fn header(options: &[Parts<'_>]) -> Vec<u8> {
        let options: Vec<_> = options
            .iter()
            .map(|(class, kind, data)| TunnelOption {
                class: *class,
                kind: *kind,
                data,
            })
            .collect();
        let mut out = vec![0; 261];
        let len = encode(InnerProtocol::Ipv4, 0, &options, &mut out).unwrap();
        out[len] = 0x45;
        out.truncate(len + 1);
        out
    }

    fn read(
        provider: Provider,
        options: &[Parts<'_>],
        required: &[MetadataField],
    ) -> Result<Metadata, MetadataError> {
        let bytes = header(options);
        let (header, _) = Header::parse(&bytes, |_, _| false).unwrap();
        Metadata::read(provider, &header, required)
    }

    const ID: &[u8] = &[0x74, 0xa1, 0x1a, 0xd9, 0x6e, 0xc4, 0x98, 0x86];

    #[test]
    fn options_are_found_by_type_in_any_order_among_others() {
        let parts: [Parts<'_>; 4] = [
            (0x0108, 1, ID),
            (0x0108, 2, &[0, 0, 0, 0, 0, 0, 0, 9]),
            (0x0108, 3, &[0x39, 0xf7, 0xf1, 0xa7]),
            (0x0167, 1, &[1, 2, 3, 4]),
        ];
        for rotation in 0..4 {
            for swapped in [false, true] {
                let mut options = parts;
                options.rotate_left(rotation);
                if swapped {
                    options.swap(0, 2);
                }
                let metadata = read(Provider::Gwlb, &options, Provider::Gwlb.required()).unwrap();
                assert_eq!(metadata.endpoint, Some(EndpointId(0x74a1_1ad9_6ec4_9886)));
                assert_eq!(metadata.attachment, Some(9));
                let cookie = metadata.cookie.unwrap();
                assert_eq!(cookie.value, 0x39f7_f1a7);
                let bytes = header(&options);
                assert_eq!(bytes[cookie.offset..][..4], [0x39, 0xf7, 0xf1, 0xa7]);
            }
        }
    }

    #[test]
    fn every_refusal_has_a_header_that_shows_it() {
        use MetadataField::{Attachment, Cookie, Endpoint};
        let aws = |kind, data| (0x0108u16, kind, data);
        let (all, none): (&[_], &[_]) = (&[Endpoint, Attachment, Cookie], &[]);
        let (endpoint, attachment, cookie) = (aws(1, ID), aws(2, ID), aws(3, &ID[..4]));
        let rows: [(&[Parts<'_>], _, _); 9] = [
            (
                &[endpoint, endpoint],
                none,
                MetadataError::EndpointDuplicate,
            ),
            (&[aws(1, &ID[..4])], none, MetadataError::EndpointLength),
            (&[attachment, cookie], all, MetadataError::EndpointMissing),
            (
                &[attachment, attachment],
                none,
                MetadataError::AttachmentDuplicate,
            ),
            (&[aws(2, &[])], none, MetadataError::AttachmentLength),
            (&[endpoint, cookie], all, MetadataError::AttachmentMissing),
            (
                &[cookie, endpoint, cookie],
                none,
                MetadataError::CookieDuplicate,
            ),
            (&[aws(3, ID)], none, MetadataError::CookieLength),
            (&[endpoint, attachment], all, MetadataError::CookieMissing),
        ];
        for (options, required, error) in &rows {
            assert_eq!(
                read(Provider::Gwlb, options, required),
                Err(*error),
                "{error:?}"
            );
        }
        for error in MetadataError::ALL {
            assert!(rows.iter().any(|(_, _, each)| each == error), "{error:?}");
        }
        assert_eq!(read(Provider::Gwlb, &[], none), Ok(Metadata::default()));
    }

    #[test]
    fn the_direction_in_a_word_of_tencent_does_not_name_the_flow() {
        let cookie = |first: u8| {
            let options: [Parts<'_>; 2] = [(0x0167, 1, ID), (0x0167, 3, &[first, 1, 2, 3])];
            let metadata = read(Provider::Tencent, &options, Provider::Tencent.required()).unwrap();
            metadata.cookie.unwrap().value
        };
        assert_ne!(cookie(0x3f), cookie(0x5f));
        let mask = Provider::Tencent.cookie_mask();
        assert_eq!(cookie(0x3f) & mask, cookie(0x5f) & mask);
        assert_ne!(cookie(0x3f) & mask, cookie(0x3e) & mask);
    }

    #[test]
    fn both_directions_of_a_network_of_gcp_are_one_endpoint() {
        let network = |last: u8| {
            let options: [Parts<'_>; 3] = [
                (0x0132, 1, &[0, 0, 0x12, last]),
                (0x0132, 2, &[9; 12]),
                (0x0132, 3, ID),
            ];
            read(Provider::Gcp, &options, Provider::Gcp.required()).unwrap()
        };
        assert_eq!(network(0x30).endpoint, Some(EndpointId(0x123)));
        assert_eq!(network(0x30).endpoint, network(0x31).endpoint);
        assert_eq!(network(0x30).cookie, None);
        assert_eq!(network(0x30).attachment, Some(0x0909_0909_0909_0909));
        let twice: [Parts<'_>; 2] = [(0x0132, 3, ID), (0x0132, 3, ID)];
        assert_eq!(
            read(Provider::Gcp, &twice, &[]),
            Err(MetadataError::CookieDuplicate)
        );
    }
}
