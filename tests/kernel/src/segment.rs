//! TCP segments as numbers, and as bytes on the wire.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow};
use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, ip_number};

/// No more data.
pub const FIN: u8 = 0x01;
/// Synchronize.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgment number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

/// Returns whether `a` comes before `b` on the circle of sequence numbers.
#[must_use]
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The options of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale as on the wire; above 14 is not allowed, but is sent.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamp value and echo.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks; as many as fit are sent.
    pub sack: Vec<(u32, u32)>,
    /// An unassigned option precedes all others.
    pub unknown: bool,
}

impl Options {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        if self.unknown {
            bytes.extend([254, 4, 0xab, 0xcd]);
        }
        if let Some(mss) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            bytes.extend([1, 1, 4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            bytes.extend([1, 1, 8, 10]);
            bytes.extend(value.to_be_bytes());
            bytes.extend(echo.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            bytes.extend([1, 3, 3, scale]);
        }
        let room = 40usize.saturating_sub(bytes.len() + 4) / 8;
        let blocks = self.sack.len().min(room);
        if blocks > 0 {
            bytes.extend([1, 1, 5, 2 + 8 * blocks as u8]);
            for (left, right) in self.sack.iter().take(blocks) {
                bytes.extend(left.to_be_bytes());
                bytes.extend(right.to_be_bytes());
            }
        }
        bytes
    }
}

/// A TCP segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, whether or not the flag is set.
    pub ack: u32,
    /// Flags, the low eight bits.
    pub flags: u8,
    /// Window as on the wire.
    pub window: u16,
    /// Bytes of payload.
    pub len: u16,
    /// Options.
    pub options: Options,
    /// A data offset other than the true one, in words.
    pub wrong_offset: Option<u8>,
}

impl Segment {
    /// Returns whether all these flags are set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns the length in sequence space: the payload, and one each for SYN and FIN.
    #[must_use]
    pub fn span(&self) -> u32 {
        u32::from(self.len) + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// Returns the sequence number after the segment.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.span())
    }

    /// Returns the kind of segment for a table of deviations: the flags as letters, and whether
    /// there is data.
    #[must_use]
    pub fn kind(&self) -> String {
        let mut kind = String::new();
        for (flag, letter) in [
            (FIN, 'F'),
            (SYN, 'S'),
            (RST, 'R'),
            (PSH, 'P'),
            (ACK, 'A'),
            (URG, 'U'),
        ] {
            if self.has(flag) {
                kind.push(letter);
            }
        }
        if kind.is_empty() {
            kind.push('-');
        }
        if self.wrong_offset.is_some() {
            kind.push_str(" bad offset");
        }
        kind
    }

    /// Returns the whole IP packet, checksums included.
    ///
    /// # Errors
    /// Returns an error if the two addresses are not of one family.
    pub fn packet(&self, from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
        let mut tcp = TcpHeader::new(from.port(), to.port(), self.seq, self.window);
        tcp.acknowledgment_number = self.ack;
        tcp.fin = self.has(FIN);
        tcp.syn = self.has(SYN);
        tcp.rst = self.has(RST);
        tcp.psh = self.has(PSH);
        tcp.ack = self.has(ACK);
        tcp.urg = self.has(URG);
        tcp.ece = self.has(0x40);
        tcp.cwr = self.has(0x80);
        tcp.set_options_raw(&self.options.bytes())
            .map_err(|error| anyhow!("options: {error}"))?;
        let (ip, offset_at) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = Ipv4Header {
                    time_to_live: 64,
                    protocol: ip_number::TCP,
                    dont_fragment: true,
                    ..Ipv4Header::default()
                };
                header.source = from.octets();
                header.destination = to.octets();
                (IpHeaders::Ipv4(header, Default::default()), 20 + 12)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    next_header: ip_number::TCP,
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                (IpHeaders::Ipv6(header, Default::default()), 40 + 12)
            }
            _ => return Err(anyhow!("{from} and {to}")),
        };
        let payload = vec![0x5a; usize::from(self.len)];
        let mut bytes = Vec::with_capacity(payload.len() + 100);
        PacketBuilder::ip(ip)
            .tcp_header(tcp)
            .write(&mut bytes, &payload)?;
        // Data offset and flags are one word of the checksum, which is two words later.
        if let (Some(offset), Some([word @ .., _, _, high, low])) =
            (self.wrong_offset, bytes.get_mut(offset_at..offset_at + 6))
            && let [byte, flags] = word
        {
            let before = u16::from_be_bytes([*byte, *flags]);
            *byte = *byte & 0x0f | offset << 4;
            let after = u16::from_be_bytes([*byte, *flags]);
            let checksum = u16::from_be_bytes([*high, *low]);
            [*high, *low] = updated(checksum, before, after).to_be_bytes();
        }
        Ok(bytes)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<4} seq {} ack {} win {} len {}",
            self.kind(),
            self.seq,
            self.ack,
            self.window,
            self.len
        )?;
        if let Some(scale) = self.options.window_scale {
            write!(f, " wscale {scale}")?;
        }
        if self.options.sack_permitted {
            f.write_str(" sackOK")?;
        }
        for (left, right) in &self.options.sack {
            write!(f, " sack {left}-{right}")?;
        }
        Ok(())
    }
}

/// Returns a checksum after one of the words that it covers has changed (RFC 1624, equation 3).
const fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = !checksum as u32 + !before as u32 + after as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_data_offset_has_a_right_checksum() {
        for offset in [5, 6, 7] {
            let segment = Segment {
                flags: ACK,
                len: 12,
                wrong_offset: Some(offset),
                ..Segment::default()
            };
            for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
                let bytes = segment
                    .packet(from.parse().unwrap(), to.parse().unwrap())
                    .unwrap();
                let parsed =
                    portcullis::packet::parse(&bytes, portcullis::packet::Checksums::Verify);
                assert!(parsed.is_ok(), "{offset} {from}: {parsed:?}");
            }
        }
    }

    #[test]
    fn every_option_fits_and_the_engine_reads_it_back() {
        let segment = Segment {
            seq: 7,
            flags: ACK,
            options: Options {
                timestamps: Some((1, 2)),
                sack: vec![(1, 2), (3, 4), (5, 6), (7, 8)],
                ..Options::default()
            },
            len: 3,
            ..Segment::default()
        };
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let bytes = segment
                .packet(from.parse().unwrap(), to.parse().unwrap())
                .unwrap();
            let parsed =
                portcullis::packet::parse(&bytes, portcullis::packet::Checksums::Verify).unwrap();
            let portcullis::packet::Transport::Tcp { segment: read, .. } = parsed.transport else {
                panic!("no TCP");
            };
            assert_eq!(read.payload_len, 3);
            assert_eq!(read.options.timestamps, Some((1, 2)));
            assert_eq!(
                read.options.sack.len(),
                3,
                "three blocks have room beside timestamps"
            );
        }
    }
}
