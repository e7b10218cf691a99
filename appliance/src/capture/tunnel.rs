//! Packets inside GENEVE.

use portcullis::geneve::{GeneveError, Header, InnerProtocol, PORT};
use portcullis::packet::{Checksums, Transport, parse};

use super::link::{LinkType, NotIp, ip_packet};

/// Reason for which the packet of a tunnel cannot be extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotInside {
    /// The GENEVE header is wrong.
    #[error(transparent)]
    Geneve(#[from] GeneveError),
    /// The Ethernet frame in the tunnel carries a protocol other than IP.
    #[error("in GENEVE: {0}")]
    Ethernet(NotIp),
}

impl NotInside {
    /// Returns a name for counters and records, stable across versions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Geneve(error) => error.name(),
            Self::Ethernet(not_ip) => not_ip.name(),
        }
    }
}

/// A packet that was taken out of its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inside<'a> {
    /// The IP packet.
    pub(crate) bytes: &'a [u8],
    /// Whether the tunnel carries IP packets, and not the frames of a link.
    pub(crate) is_layer_3: bool,
}

/// Returns the IP packet that `packet` carries in GENEVE; `None` if it is not GENEVE. Fragments are
/// not examined. Unknown critical options are accepted, since a capture is only read, not
/// forwarded.
///
/// # Errors
/// See [`NotInside`].
pub(crate) fn decapsulate(packet: &[u8]) -> Result<Option<Inside<'_>>, NotInside> {
    let Ok(outer) = parse(packet, Checksums::Trust) else {
        return Ok(None);
    };
    if !matches!(outer.transport, Transport::Udp { dst_port: PORT, .. }) {
        return Ok(None);
    }
    let (_, inner) = Header::parse(outer.payload(packet), |_, _| true)?;
    match inner.protocol {
        InnerProtocol::Ipv4 | InnerProtocol::Ipv6 => Ok(Some(Inside {
            bytes: inner.bytes,
            is_layer_3: true,
        })),
        InnerProtocol::Ethernet => match ip_packet(LinkType::Ethernet, inner.bytes) {
            Ok(ip) => Ok(Some(Inside {
                bytes: ip.bytes,
                is_layer_3: false,
            })),
            Err(not_ip) => Err(NotInside::Ethernet(not_ip)),
        },
    }
}
