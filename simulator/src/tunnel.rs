//! Outer headers of a packet: IPv4, UDP, and GENEVE with the load balancer's options.

use std::net::Ipv4Addr;

use etherparse::{IpNumber, Ipv4Header, UdpHeader};
use portcullis::geneve::{Header, InnerProtocol, PORT, TunnelOption, encode};

/// The option class of AWS.
const AWS: u16 = 0x0108;
/// The option types of a Gateway Load Balancer.
const ENDPOINT: u8 = 1;
const ATTACHMENT: u8 = 2;
const COOKIE: u8 = 3;

/// The length in bytes of the GENEVE header with the three options.
pub(super) const GENEVE_LEN: usize = 40;
/// Length of all outer headers: IPv4, UDP, GENEVE.
pub(super) const OVERHEAD: usize = Ipv4Header::MIN_LEN + UdpHeader::LEN + GENEVE_LEN;
/// Longest inner packet that fits into an IPv4 packet.
pub(super) const MAX_INNER: usize = u16::MAX as usize - OVERHEAD;

/// Distinguishes the packets of a flow and direction from all others in the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Label {
    /// The flow cookie.
    pub(super) cookie: u32,
    /// The outer UDP source port.
    pub(super) port: u16,
}

/// Endpoint: the contents of the options other than the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The endpoint id.
    pub(super) id: u64,
    /// The attachment id.
    pub(super) attachment: u64,
}

/// Returns the GENEVE header of a packet.
pub(super) fn geneve_header(
    endpoint: Endpoint,
    cookie: u32,
    protocol: InnerProtocol,
) -> [u8; GENEVE_LEN] {
    let (id, attachment) = (endpoint.id.to_be_bytes(), endpoint.attachment.to_be_bytes());
    let cookie = cookie.to_be_bytes();
    let option = |kind, data| TunnelOption {
        class: AWS,
        kind,
        data,
    };
    let options = [
        option(ENDPOINT, &id),
        option(ATTACHMENT, &attachment),
        option(COOKIE, &cookie),
    ];
    let mut header = [0; GENEVE_LEN];
    let written = encode(protocol, 0, &options, &mut header);
    debug_assert_eq!(written, Some(GENEVE_LEN));
    header
}

/// Returns the endpoint id and the cookie of a header, if they are present and have their length.
pub(super) fn metadata(header: &Header<'_>) -> (Option<u64>, Option<u32>) {
    let data = |kind| {
        header
            .options()
            .filter_map(Result::ok)
            .find(|option| (option.class, option.kind) == (AWS, kind))
            .map(|option| option.data)
    };
    (
        data(ENDPOINT)
            .and_then(|data| data.try_into().ok())
            .map(u64::from_be_bytes),
        data(COOKIE)
            .and_then(|data| data.try_into().ok())
            .map(u32::from_be_bytes),
    )
}

/// Outer addresses of datagrams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outer {
    /// Local address.
    pub(super) source: Ipv4Addr,
    /// Remote address.
    pub(super) destination: Ipv4Addr,
    /// Remote UDP port.
    pub(super) destination_port: u16,
    /// Whether the UDP checksum is filled in; 0 means that there is none.
    pub(super) udp_checksum: bool,
}

impl Outer {
    /// Returns a path to port 6081.
    pub(super) const fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            destination_port: PORT,
            udp_checksum: false,
        }
    }

    /// Writes a whole IPv4 packet to `out`, which is cleared first. The UDP payload is `geneve`
    /// followed by `inner`. The packet must not be fragmented; the kernel fills in the IP checksum.
    /// Returns false if the packet would be too long for IPv4.
    pub(super) fn write(&self, port: u16, geneve: &[u8], inner: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let udp_len = UdpHeader::LEN + geneve.len() + inner.len();
        let (Ok(udp_len), Ok(total_len)) = (
            u16::try_from(udp_len),
            u16::try_from(udp_len + Ipv4Header::MIN_LEN),
        ) else {
            return false;
        };
        let ip = Ipv4Header {
            total_len,
            time_to_live: 255,
            protocol: IpNumber::UDP,
            dont_fragment: true,
            source: self.source.octets(),
            destination: self.destination.octets(),
            ..Ipv4Header::default()
        };
        let mut udp = UdpHeader {
            source_port: port,
            destination_port: self.destination_port,
            length: udp_len,
            checksum: 0,
        };
        out.extend_from_slice(&ip.to_bytes());
        if self.udp_checksum {
            let payload = [geneve, inner].concat();
            udp.checksum = udp.calc_checksum_ipv4(&ip, &payload).unwrap_or_default();
        }
        out.extend_from_slice(&udp.to_bytes());
        out.extend_from_slice(geneve);
        out.extend_from_slice(inner);
        true
    }
}
