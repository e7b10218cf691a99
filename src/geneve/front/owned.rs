//! Datagrams that outlive the buffer that received them.

use std::net::Ipv4Addr;

use super::Datagram;

/// An owned copy of a received datagram.
#[derive(Debug)]
pub(super) struct HeldDatagram {
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
    payload: Box<[u8]>,
}

impl HeldDatagram {
    pub(super) fn of(datagram: &Datagram<'_>) -> Self {
        Self {
            source: datagram.source,
            source_port: datagram.source_port,
            destination: datagram.destination,
            destination_port: datagram.destination_port,
            payload: datagram.payload.into(),
        }
    }

    pub(super) fn datagram(&self) -> Datagram<'_> {
        Datagram {
            source: self.source,
            source_port: self.source_port,
            destination: self.destination,
            destination_port: self.destination_port,
            payload: &self.payload,
        }
    }
}
