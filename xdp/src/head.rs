//! Outer headers of a frame: Ethernet, IPv4 and UDP. Pure code.

use std::net::Ipv4Addr;
use std::ops::Range;

/// Length of the three headers.
pub const HEAD: usize = 14 + 20 + 8;

/// Reason why a frame is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A header is invalid, or says more bytes than there are.
    Malformed,
    /// The checksum of the IPv4 header is wrong.
    Checksum,
    /// No answer can go to the source: its address is unspecified, loopback, multicast, reserved,
    /// or local, or its Ethernet address is of a group.
    Martian,
}

impl Refused {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Malformed, Self::Checksum, Self::Martian];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::Martian => "martian",
        }
    }
}

/// Outer headers of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Ethernet source address.
    pub source_mac: [u8; 6],
    /// Ethernet destination address.
    pub destination_mac: [u8; 6],
    /// IPv4 source address.
    pub source: Ipv4Addr,
    /// IPv4 destination address.
    pub destination: Ipv4Addr,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// Place of the UDP payload in the frame.
    pub payload: Range<usize>,
}

impl Head {
    /// Reads the headers of a frame that the program has chosen.
    ///
    /// The UDP checksum is not verified: a frame that comes from this machine may have one that is
    /// yet to be completed.
    ///
    /// # Errors
    /// The frame is not one that the kernel would give to a UDP socket.
    pub fn parse(frame: &[u8]) -> Result<Self, Refused> {
        let (ethernet, rest) = frame.split_first_chunk::<14>().ok_or(Refused::Malformed)?;
        let (ip, rest) = rest.split_first_chunk::<20>().ok_or(Refused::Malformed)?;
        let (udp, rest) = rest.split_first_chunk::<8>().ok_or(Refused::Malformed)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, 0x08, 0x00] = *ethernet else {
            return Err(Refused::Malformed);
        };
        let [
            0x45,
            _,
            len_high,
            len_low,
            _,
            _,
            flags,
            offset,
            _,
            17,
            _,
            _,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ] = *ip
        else {
            return Err(Refused::Malformed);
        };
        let [
            sport_high,
            sport_low,
            dport_high,
            dport_low,
            udp_high,
            udp_low,
            _,
            _,
        ] = *udp;
        let ip_len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let udp_len = usize::from(u16::from_be_bytes([udp_high, udp_low]));
        let is_whole = flags & 0x3f == 0 && offset == 0;
        let payload = udp_len.checked_sub(8).ok_or(Refused::Malformed)?;
        if !is_whole || ip_len < 20 + udp_len || rest.len() < ip_len.saturating_sub(28) {
            return Err(Refused::Malformed);
        }
        if sum(ip) != 0xffff {
            return Err(Refused::Checksum);
        }
        let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
        if matches!(a, 0 | 127 | 224..) || source == destination || s0 & 1 != 0 {
            return Err(Refused::Martian);
        }
        Ok(Self {
            source_mac: [s0, s1, s2, s3, s4, s5],
            destination_mac: [d0, d1, d2, d3, d4, d5],
            source,
            destination,
            source_port: u16::from_be_bytes([sport_high, sport_low]),
            destination_port: u16::from_be_bytes([dport_high, dport_low]),
            payload: HEAD..HEAD + payload,
        })
    }

    /// Returns the headers unless the source is a local address, as `is_local` says: the kernel
    /// gives no socket such a packet from outside.
    ///
    /// # Errors
    /// The source is a local address.
    pub fn from_elsewhere(self, is_local: impl Fn(&Ipv4Addr) -> bool) -> Result<Self, Refused> {
        if is_local(&self.source) {
            return Err(Refused::Martian);
        }
        Ok(self)
    }

    /// Returns the headers of a datagram back to the sender, with `payload` bytes: Ethernet and IP
    /// addresses are swapped, UDP ports are not.
    ///
    /// Returns `None` if the payload is too long for a datagram.
    #[must_use]
    pub fn back(&self, payload: usize) -> Option<[u8; HEAD]> {
        self.answer(self.source_port, self.destination_port, payload)
    }

    /// Returns the headers of a datagram back to the sender between other ports. They are those of
    /// a raw socket of Linux that prohibits fragments: without a UDP checksum, and with a lifetime
    /// of 64 hops.
    ///
    /// Returns `None` if the payload is too long for a datagram.
    #[must_use]
    pub fn answer(
        &self,
        source_port: u16,
        destination_port: u16,
        payload: usize,
    ) -> Option<[u8; HEAD]> {
        let [ip_high, ip_low] = u16::try_from(payload + 28).ok()?.to_be_bytes();
        let [udp_high, udp_low] = u16::try_from(payload + 8).ok()?.to_be_bytes();
        let [e, f, g, h] = self.source.octets();
        let [a, b, c, d] = self.destination.octets();
        let mut ip = [
            0x45, 0, ip_high, ip_low, 0, 0, 0x40, 0, 64, 17, 0, 0, a, b, c, d, e, f, g, h,
        ];
        let [high, low] = (!sum(&ip)).to_be_bytes();
        ip[10] = high;
        ip[11] = low;
        let [sport_high, sport_low] = source_port.to_be_bytes();
        let [dport_high, dport_low] = destination_port.to_be_bytes();
        let udp = [
            sport_high, sport_low, dport_high, dport_low, udp_high, udp_low, 0, 0,
        ];
        let mut head = [0; HEAD];
        let bytes = self.source_mac.into_iter().chain(self.destination_mac);
        let bytes = bytes.chain([0x08, 0x00]).chain(ip).chain(udp);
        for (to, byte) in head.iter_mut().zip(bytes) {
            *to = byte;
        }
        Some(head)
    }
}

/// Returns the sum of a header's 16-bit words in ones' complement (RFC 1071).
fn sum(header: &[u8; 20]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let head = Head {
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: [2, 0, 0, 0, 0, 1],
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 1].into(),
            source_port: 60_001,
            destination_port: 6081,
            payload: 0..0,
        };
        let mut frame = head.back(4).unwrap().to_vec();
        frame.extend(b"abcd");
        frame
    }

    #[test]
    fn a_datagram_goes_back_with_swapped_addresses_and_the_same_ports() {
        let head = Head::parse(&request()).unwrap();
        assert_eq!(head.source, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!((head.source_port, head.destination_port), (60_001, 6081));
        assert_eq!(head.payload, HEAD..HEAD + 4);
        let mut back = head.back(4).unwrap().to_vec();
        back.extend(b"abcd");
        let back = Head::parse(&back).unwrap();
        assert_eq!(back.source_mac, head.destination_mac);
        assert_eq!(back.destination_mac, head.source_mac);
        assert_eq!(
            (back.source, back.destination),
            (head.destination, head.source)
        );
        assert_eq!((back.source_port, back.destination_port), (60_001, 6081));
    }

    #[test]
    fn bytes_after_the_datagram_are_not_of_its_payload() {
        let mut frame = request();
        frame.resize(60, 0);
        assert_eq!(Head::parse(&frame).unwrap().payload, HEAD..HEAD + 4);
    }

    #[test]
    fn every_other_value_of_a_header_byte_is_refused_or_keeps_the_payload_within_the_frame() {
        let frame = request();
        for place in 0..HEAD {
            for value in 0..=u8::MAX {
                let mut frame = frame.clone();
                frame[place] = value;
                if let Ok(head) = Head::parse(&frame) {
                    assert!(frame.get(head.payload).is_some());
                }
            }
        }
        for len in 0..frame.len() {
            assert_eq!(Head::parse(&frame[..len]), Err(Refused::Malformed));
        }
    }

    #[test]
    fn sources_to_which_nothing_can_be_sent_are_martians() {
        for source in [
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.1",
        ] {
            let mut head = Head::parse(&request()).unwrap();
            // `back` swaps: the destination becomes the source.
            (head.source, head.destination) = ([10, 0, 0, 1].into(), source.parse().unwrap());
            let mut frame = head.back(4).unwrap().to_vec();
            frame.extend(b"abcd");
            assert_eq!(Head::parse(&frame), Err(Refused::Martian), "{source}");
        }
    }

    #[test]
    fn a_source_that_is_a_local_address_is_a_martian() {
        let head = Head::parse(&request()).unwrap();
        let is_source = |address: &Ipv4Addr| *address == head.source;
        let refused = head.clone().from_elsewhere(is_source);
        assert_eq!(refused, Err(Refused::Martian));
        let is_destination = |address: &Ipv4Addr| *address == head.destination;
        assert_eq!(head.clone().from_elsewhere(is_destination), Ok(head));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut frame = request();
        frame[14 + 8] ^= 1;
        assert_eq!(Head::parse(&frame), Err(Refused::Checksum));
    }

    #[test]
    fn a_payload_that_is_too_long_has_no_header() {
        let head = Head::parse(&request()).unwrap();
        assert!(head.back(65_535 - 28).is_some());
        assert!(head.back(65_535 - 27).is_none());
        assert!(head.back(usize::MAX - 100).is_none());
    }
}
