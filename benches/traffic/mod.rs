//! The packets of the benchmarks: any packet of any session, computed from its number.
//!
//! A measurement needs millions of sessions, packets in random order, and numbers that fit every
//! window. The generator's memory must not be in the caches that the benchmark measures. So nothing
//! is stored: addresses, ports and sequence numbers are functions of the session's number and of
//! the round. In each [round](Session::packet) every session sends one packet, the two ends in
//! turns; [`Order`] shuffles the sessions for each round. Frames are written into a small scratch
//! buffer outside the timed part.
//!
//! The packets are those of real connections: a handshake with MSS, window scale, SACK and
//! timestamps. Then follow segments of 14 bytes of payload or pure ACKs, with timestamps, that
//! acknowledge all earlier segments. All checksums are correct.

/// The most sessions that are possible: one client address of 10.0.0.0/8 each.
pub(crate) const MAX_SESSIONS: u32 = 1 << 24;

/// The longest frame, in bytes.
pub(crate) const FRAME_LEN: usize = 66;

/// Bytes of payload in a packet that has any.
const PAYLOAD_LEN: u8 = 14;

const IPV4_HEADER: u8 = 20;
const TCP_HEADER: u8 = 20;
const UDP_HEADER: u8 = 8;
const TIMESTAMPS: u8 = 12;
const SYN_OPTIONS: u8 = 20;

const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// The protocol of all sessions of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv4.
    Udp,
}

impl Protocol {
    /// Returns the number of packets of [`Session::handshake`]: with the last, the session is
    /// established.
    pub(crate) const fn handshake_len(self) -> u32 {
        match self {
            Self::Tcp => 3,
            Self::Udp => 2,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// An IPv4 packet of up to [`FRAME_LEN`] bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    bytes: [u8; FRAME_LEN],
    len: u8,
}

impl Frame {
    /// A frame without a packet.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; FRAME_LEN],
        len: 0,
    };

    /// Returns the packet.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// A permutation of `0..len` for each round, computed and not stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    len: u32,
    mask: u32,
}

impl Order {
    /// Returns the orders of `len` sessions.
    pub(crate) const fn new(len: u32) -> Self {
        Self {
            len,
            mask: match len.checked_next_power_of_two() {
                Some(power) => power - 1,
                None => u32::MAX,
            },
        }
    }

    /// Returns the element at `position`, below `len`, in a round.
    pub(crate) fn at(self, round: u32, position: u32) -> u32 {
        let key = mix(u64::from(round)) as u32;
        let half = (32 - self.mask.leading_zeros()).div_ceil(2).max(1);
        let mut at = position;
        loop {
            // Every step is reversible in as many bits as the mask has; a value outside the range
            // is permuted again.
            at = at.wrapping_mul(0x9e37_79b1).wrapping_add(key) & self.mask;
            at ^= at >> half;
            at = at.wrapping_mul(0x85eb_ca6b).wrapping_add(key >> 7) & self.mask;
            at ^= at >> half;
            if at < self.len {
                return at;
            }
        }
    }
}

/// A session by its number, below [`MAX_SESSIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(pub(crate) u32);

/// Sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

impl Session {
    /// Returns the packet that opens the session.
    pub(crate) fn opening(self, protocol: Protocol) -> Frame {
        self.handshake_packet(protocol, 0)
    }

    /// Returns the packets that establish the session.
    pub(crate) fn handshake(self, protocol: Protocol) -> impl Iterator<Item = Frame> {
        (0..protocol.handshake_len()).map(move |step| self.handshake_packet(protocol, step))
    }

    fn handshake_packet(self, protocol: Protocol, step: u32) -> Frame {
        let from = if step == 1 {
            From::Server
        } else {
            From::Client
        };
        match protocol {
            Protocol::Udp => self.datagram(from),
            Protocol::Tcp => {
                let (client, server) = self.initial();
                match step {
                    0 => self.segment(from, SYN, (client, 0), 0),
                    1 => self.segment(from, SYN | ACK, (server, client.wrapping_add(1)), 0),
                    _ => self.segment(
                        from,
                        ACK,
                        (client.wrapping_add(1), server.wrapping_add(1)),
                        0,
                    ),
                }
            }
        }
    }

    /// Returns the packet of an established session in a round; the rounds must be taken in order,
    /// from 0. In half the sessions the server sends data too, in the other half it only
    /// acknowledges.
    pub(crate) fn packet(self, protocol: Protocol, round: u32) -> Frame {
        let bits = mix(u64::from(self.0)) >> 62;
        let (server_begins, server_talks) = ((bits & 1) as u32, bits & 2 != 0);
        let turn = round.wrapping_add(server_begins);
        let from = if turn & 1 == 0 {
            From::Client
        } else {
            From::Server
        };
        if protocol == Protocol::Udp {
            return self.datagram(from);
        }
        // Number of packets that each end has sent since the handshake.
        let client_sent = turn.div_ceil(2).wrapping_sub(server_begins);
        let server_sent = turn / 2;
        let reply_len = if server_talks { PAYLOAD_LEN } else { 0 };
        let (client, server) = self.initial();
        let client = client
            .wrapping_add(1)
            .wrapping_add(client_sent.wrapping_mul(u32::from(PAYLOAD_LEN)));
        let server = server
            .wrapping_add(1)
            .wrapping_add(server_sent.wrapping_mul(u32::from(reply_len)));
        match from {
            From::Client => self.segment(from, PSH | ACK, (client, server), PAYLOAD_LEN),
            From::Server => self.segment(from, ACK, (server, client), reply_len),
        }
    }

    /// Returns the initial sequence numbers of client and server.
    fn initial(self) -> (u32, u32) {
        let mixed = mix(u64::from(self.0) ^ 0x5555_0000_0000);
        (mixed as u32, (mixed >> 32) as u32)
    }

    /// Returns the source and destination addresses and the source and destination ports.
    fn ends(self, from: From) -> (u32, u32, u16, u16) {
        let mixed = mix(u64::from(self.0));
        let client = 0x0a00_0000 | (self.0 % MAX_SESSIONS);
        // 198.18.0.0/15 is for benchmarks (RFC 2544).
        let server = 0xc612_0000 | (mixed as u32 & 0x1_ffff);
        let port = 0x8000 | (mixed >> 32) as u16;
        match from {
            From::Client => (client, server, port, 443),
            From::Server => (server, client, 443, port),
        }
    }

    fn segment(self, from: From, flags: u8, (seq, ack): (u32, u32), payload_len: u8) -> Frame {
        let (_, _, src_port, dst_port) = self.ends(from);
        let syn = flags & SYN != 0;
        let options_len = if syn { SYN_OPTIONS } else { TIMESTAMPS };
        let ([a, b], [c, d]) = (src_port.to_be_bytes(), dst_port.to_be_bytes());
        let ([e, f, g, h], [i, j, k, l]) = (seq.to_be_bytes(), ack.to_be_bytes());
        let offset = ((TCP_HEADER + options_len) / 4) << 4;
        let header = [
            a, b, c, d, e, f, g, h, i, j, k, l, offset, flags, 0xff, 0xff, 0, 0, 0, 0,
        ];
        let [m, n, o, p] = seq.wrapping_mul(3).to_be_bytes();
        let [q, r, s, t] = ack.wrapping_mul(3).to_be_bytes();
        #[rustfmt::skip]
        let options = if syn {
            // MSS 1460, SACK permitted, timestamps, window scale 7.
            [2, 4, 5, 180, 4, 2, 8, 10, m, n, o, p, q, r, s, t, 1, 3, 3, 7, 0, 0, 0, 0, 0, 0]
        } else {
            [1, 1, 8, 10, m, n, o, p, q, r, s, t, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        let mut rest = [0; FRAME_LEN - IPV4_HEADER as usize];
        let (front, back) = rest.split_at_mut(header.len());
        front.copy_from_slice(&header);
        back.copy_from_slice(&options);
        self.packet_of(
            from,
            Protocol::Tcp,
            rest,
            TCP_HEADER + options_len + payload_len,
            16,
        )
    }

    fn datagram(self, from: From) -> Frame {
        let (_, _, src_port, dst_port) = self.ends(from);
        let ([a, b], [c, d]) = (src_port.to_be_bytes(), dst_port.to_be_bytes());
        let len = UDP_HEADER + PAYLOAD_LEN;
        let mut rest = [0; FRAME_LEN - IPV4_HEADER as usize];
        if let Some(header) = rest.first_chunk_mut() {
            *header = [a, b, c, d, 0, len, 0, 0];
        }
        self.packet_of(from, Protocol::Udp, rest, len, 6)
    }

    /// Prepends the IP header to a transport header and its payload, `len` bytes in all, and fills
    /// in the checksums. The checksum of the transport is at `checksum_at`.
    fn packet_of(
        self,
        from: From,
        protocol: Protocol,
        mut rest: [u8; FRAME_LEN - IPV4_HEADER as usize],
        len: u8,
        checksum_at: usize,
    ) -> Frame {
        let (src, dst, ..) = self.ends(from);
        let ([a, b, c, d], [e, f, g, h]) = (src.to_be_bytes(), dst.to_be_bytes());
        let mut header: [u8; IPV4_HEADER as usize] = [
            0x45,
            0,
            0,
            IPV4_HEADER + len,
            0,
            0,
            0x40,
            0,
            64,
            protocol.number(),
            0,
            0,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ];
        let pseudo = sum(&[a, b, c, d, e, f, g, h, 0, protocol.number(), 0, len]);
        let transport = fold(pseudo + sum(&rest));
        put(&mut rest, checksum_at, transport);
        let ip = fold(sum(&header));
        put(&mut header, 10, ip);
        let mut frame = Frame {
            len: IPV4_HEADER + len,
            ..Frame::EMPTY
        };
        let (front, back) = frame.bytes.split_at_mut(header.len());
        front.copy_from_slice(&header);
        back.copy_from_slice(&rest);
        frame
    }
}

fn put(bytes: &mut [u8], at: usize, number: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|tail| tail.first_chunk_mut()) {
        *place = number.to_be_bytes();
    }
}

/// Returns the sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum()
}

const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The finalizer of SplitMix64: a bijection that diffuses every bit.
const fn mix(number: u64) -> u64 {
    let a = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}
