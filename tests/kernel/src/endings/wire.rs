//! TCP segments on the wire, and the same segments with other sequence numbers.

use anyhow::{Context, Result};

use crate::segment::{ACK, FIN, SYN};

/// One of the two stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end that has opened the connection.
    Client,
    /// The end that has accepted the connection.
    Server,
}

impl End {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// Returns the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Returns the end's value of a pair, client first.
    pub const fn of<T>(self, pair: &[T; 2]) -> &T {
        let [client, server] = pair;
        match self {
            Self::Client => client,
            Self::Server => server,
        }
    }

    /// Returns the end's value of a pair, for changes.
    pub const fn of_mut<T>(self, pair: &mut [T; 2]) -> &mut T {
        let [client, server] = pair;
        match self {
            Self::Client => client,
            Self::Server => server,
        }
    }
}

/// Fields of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Source port.
    pub from: u16,
    /// Destination port.
    pub to: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, whether or not the flag is set.
    pub ack: u32,
    /// Flags, the low eight bits.
    pub flags: u8,
    /// Window as on the wire.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
    /// Window scale.
    pub scale: Option<u8>,
}

/// Returns the offsets of the TCP header and of its payload.
fn layout(packet: &[u8]) -> Option<(usize, usize)> {
    let at = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&6) => usize::from(packet.first()? & 0x0f) * 4,
        6 if packet.get(6) == Some(&6) => 40,
        _ => return None,
    };
    let data = at + usize::from(packet.get(at + 12)? >> 4) * 4;
    packet.get(..data).map(|_| (at, data))
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

fn half(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

impl View {
    /// Reads a packet. Returns `None` if it is not TCP.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        let (at, data) = layout(packet)?;
        let scale = options(packet, at, data)
            .find(|(kind, ..)| *kind == 3)
            .and_then(|(_, place, _)| packet.get(place).copied());
        Some(Self {
            from: half(packet, at)?,
            to: half(packet, at + 2)?,
            seq: word(packet, at + 4)?,
            ack: word(packet, at + 8)?,
            flags: *packet.get(at + 13)?,
            window: half(packet, at + 14)?,
            len: (packet.len() - data) as u32,
            scale,
        })
    }

    /// Returns whether all these flags are set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns the sequence number after the segment.
    #[must_use]
    pub fn end(&self) -> u32 {
        let span = self.len + u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(span)
    }
}

/// Returns kind, position and length of each option's value.
fn options(
    packet: &[u8],
    tcp: usize,
    data: usize,
) -> impl Iterator<Item = (u8, usize, usize)> + '_ {
    let mut at = tcp + 20;
    std::iter::from_fn(move || {
        loop {
            let kind = *packet.get(at).filter(|_| at < data)?;
            match kind {
                0 => return None,
                1 => at += 1,
                _ => {
                    let len = usize::from(*packet.get(at + 1)?);
                    let found = (kind, at + 2, len.checked_sub(2)?);
                    at += len;
                    return Some(found);
                }
            }
        }
    })
}

/// Adds to the sequence number, and to the acknowledgment number and the SACK blocks, and updates
/// the checksum.
///
/// # Errors
/// Returns an error if the packet is not TCP.
pub fn shift(packet: &mut [u8], seq: u32, ack: u32) -> Result<()> {
    let (at, data) = layout(packet).context("no TCP")?;
    let mut places = vec![(at + 4, seq)];
    if packet.get(at + 13).is_some_and(|flags| flags & ACK != 0) {
        places.push((at + 8, ack));
    }
    for (kind, place, len) in options(packet, at, data) {
        if kind == 5 {
            places.extend((place..place + len).step_by(4).map(|edge| (edge, ack)));
        }
    }
    for (place, by) in places {
        let bytes = packet
            .get_mut(place..)
            .and_then(<[u8]>::first_chunk_mut)
            .context("cut")?;
        *bytes = u32::from_be_bytes(*bytes).wrapping_add(by).to_be_bytes();
    }
    let field = packet.get_mut(at + 16..at + 18).context("cut")?;
    field.copy_from_slice(&[0, 0]);
    let sum = checksum(packet, at).context("cut")?;
    let field = packet.get_mut(at + 16..at + 18).context("cut")?;
    field.copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Returns the Internet checksum of a TCP segment and its pseudo-header.
fn checksum(packet: &[u8], tcp: usize) -> Option<u16> {
    let addresses = if tcp == 40 && packet.first()? >> 4 == 6 {
        packet.get(8..40)?
    } else {
        packet.get(12..20)?
    };
    let segment = packet.get(tcp..)?;
    let words = |bytes: &[u8]| -> u64 {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let whole: u64 = pairs
            .iter()
            .map(|pair| u64::from(u16::from_be_bytes(*pair)))
            .sum();
        whole + rest.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>()
    };
    let mut sum = words(addresses) + words(segment) + 6 + segment.len() as u64;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    Some(!(sum as u16))
}

#[cfg(test)]
mod tests {
    use portcullis::packet::{Checksums, Transport, parse};

    use super::*;
    use crate::segment::{Options, Segment};

    #[test]
    fn a_shifted_segment_is_the_same_with_other_numbers() {
        let segment = Segment {
            seq: 7,
            ack: 20,
            flags: ACK,
            options: Options {
                timestamps: Some((1, 2)),
                sack: vec![(30, 40)],
                ..Options::default()
            },
            len: 3,
            ..Segment::default()
        };
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let mut bytes = segment
                .packet(from.parse().unwrap(), to.parse().unwrap())
                .unwrap();
            shift(&mut bytes, 0u32.wrapping_sub(8), 100).unwrap();
            let view = View::of(&bytes).unwrap();
            assert_eq!((view.seq, view.end(), view.ack), (u32::MAX, 2, 120));
            let parsed = parse(&bytes, Checksums::Verify).expect("the checksum is right");
            let Transport::Tcp { segment, .. } = parsed.transport else {
                panic!("no TCP");
            };
            let sack = segment.options.sack.iter().next().unwrap();
            assert_eq!(format!("{sack:?}").matches("130").count(), 1, "{sack:?}");
        }
    }
}
