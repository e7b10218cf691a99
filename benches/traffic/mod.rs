//! Packets of the benchmarks: any packet of any session, computed from its number.
//!
//! A measurement needs millions of sessions, packets in random order, and numbers that fit every
//! window. The generator's memory must not be in the caches that the benchmark measures. Nothing is
//! therefore stored: addresses, ports and sequence numbers are functions of the session's number
//! and of the round. In each [round](Session::packet) every session sends one packet, and the two
//! ends take turns; [`Order`] shuffles the sessions for each round. Frames are written into a small
//! scratch buffer outside the timed part.
//!
//! The packets are those of real connections: a handshake with MSS, window scale, SACK and
//! timestamps. Then follow segments of 14 bytes of payload or pure ACKs, with timestamps, that
//! acknowledge all earlier segments. All checksums are correct.

/// Maximum number of sessions. A client address of 10.0.0.0/8 has up to eight, each to another port
/// of the server.
pub(crate) const MAX_SESSIONS: u32 = 1 << 27;

/// Length of the longest frame, in bytes: an ICMPv6 error that quotes 8 bytes of a transport
/// header.
pub(crate) const FRAME_LEN: usize = 96;

/// Length of the longest part after the IP header, in bytes.
pub(crate) const REST_LEN: usize = FRAME_LEN - IPV6_HEADER;

/// Bytes of payload in a packet that has any.
const PAYLOAD_LEN: u8 = 14;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: u8 = 20;
const UDP_HEADER: u8 = 8;
const TIMESTAMPS: u8 = 12;
const SYN_OPTIONS: u8 = 20;

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// IP protocol number of UDP.
const UDP: u8 = 17;

const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
/// TCP flag ACK.
pub(crate) const ACK: u8 = 0x10;

/// The protocol of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TCP over IPv4.
    Tcp,
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl Protocol {
    /// Returns the number of packets of the handshake: with the last, the session is established.
    pub(crate) const fn handshake_len(self) -> u32 {
        if self.is_tcp() { 3 } else { 2 }
    }

    const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Tcp6)
    }

    const fn is_ipv6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6)
    }
}

/// A packet of up to [`FRAME_LEN`] bytes.
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

/// A session by its number, below [`MAX_SESSIONS`]; a number denotes a different session in each
/// protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(pub(crate) u32);

/// Sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The end that opens the session.
    Client,
    /// The end that answers.
    Server,
}

/// Next sequence numbers of both ends of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// Number of the client.
    pub(crate) client: u32,
    /// Number of the server.
    pub(crate) server: u32,
}

impl Numbers {
    /// Returns the numbers advanced by the bytes, or SYN and FIN flags, of each end.
    pub(crate) const fn after(self, client: u32, server: u32) -> Self {
        Self {
            client: self.client.wrapping_add(client),
            server: self.server.wrapping_add(server),
        }
    }
}

/// Fields of a TCP segment, without its ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// TCP flags.
    pub(crate) flags: u8,
    /// Sequence numbers of the sender, and of the receiver for the acknowledgment.
    pub(crate) numbers: Numbers,
    /// Bytes of payload, at most 14.
    pub(crate) payload_len: u8,
}

/// The part of a packet after its IP header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Transport header and payload, followed by zeros.
    pub(crate) bytes: [u8; REST_LEN],
    /// Bytes of transport header and payload.
    pub(crate) len: u8,
    /// Offset of the checksum.
    pub(crate) checksum_at: usize,
}

impl Session {
    /// Returns the packet that opens the session.
    pub(crate) fn opening(self, protocol: Protocol) -> Frame {
        self.handshake_packet(protocol, 0)
    }

    /// Returns a packet of the handshake, counted from 0.
    pub(crate) fn handshake_packet(self, protocol: Protocol, step: u32) -> Frame {
        if protocol.is_tcp() {
            self.syn_packet(protocol, step, self.initial())
        } else {
            let from = if step == 1 {
                From::Server
            } else {
                From::Client
            };
            self.datagram(protocol, from)
        }
    }

    /// Returns a packet of the handshake of a TCP connection with these initial numbers.
    pub(crate) fn syn_packet(self, protocol: Protocol, step: u32, initial: Numbers) -> Frame {
        let (from, flags, numbers) = match step {
            0 => (
                From::Client,
                SYN,
                Numbers {
                    server: 0,
                    ..initial
                },
            ),
            1 => (From::Server, SYN | ACK, initial.after(1, 0)),
            _ => (From::Client, ACK, initial.after(1, 1)),
        };
        let segment = Segment {
            flags,
            numbers,
            payload_len: 0,
        };
        self.segment(protocol, from, segment)
    }

    /// Returns the packet of an established session in a round; the rounds must be taken in order,
    /// from 0. In half the sessions the server sends data too; in the other half it only
    /// acknowledges.
    pub(crate) fn packet(self, protocol: Protocol, round: u32) -> Frame {
        if protocol.is_tcp() {
            self.turn(protocol, round, self.initial())
        } else {
            self.datagram(protocol, self.sender(round))
        }
    }

    /// Returns the sender of the packet of a round.
    pub(crate) fn sender(self, round: u32) -> From {
        if round.wrapping_add(self.server_begins()) & 1 == 0 {
            From::Client
        } else {
            From::Server
        }
    }

    /// Returns the packet of a round of a TCP connection with these initial numbers.
    pub(crate) fn turn(self, protocol: Protocol, round: u32, initial: Numbers) -> Frame {
        let from = self.sender(round);
        let (flags, payload_len) = match from {
            From::Client => (PSH | ACK, PAYLOAD_LEN),
            From::Server => (ACK, self.reply_len()),
        };
        let segment = Segment {
            flags,
            numbers: self.numbers(round, initial),
            payload_len,
        };
        self.segment(protocol, from, segment)
    }

    /// Returns the sequence numbers of a TCP connection after a number of rounds, from its initial
    /// numbers.
    pub(crate) fn numbers(self, rounds: u32, initial: Numbers) -> Numbers {
        let turn = rounds.wrapping_add(self.server_begins());
        // Number of packets that each end has sent since the handshake.
        let client_sent = turn.div_ceil(2).wrapping_sub(self.server_begins());
        let server_sent = turn / 2;
        initial.after(
            1_u32.wrapping_add(client_sent.wrapping_mul(u32::from(PAYLOAD_LEN))),
            1_u32.wrapping_add(server_sent.wrapping_mul(u32::from(self.reply_len()))),
        )
    }

    /// Returns 1 if the server sends the packet of round 0.
    fn server_begins(self) -> u32 {
        (mix(u64::from(self.0)) >> 62) as u32 & 1
    }

    /// Returns the bytes of payload in the server's segments.
    pub(crate) fn reply_len(self) -> u8 {
        if mix(u64::from(self.0)) >> 63 == 1 {
            PAYLOAD_LEN
        } else {
            0
        }
    }

    /// Returns the initial sequence numbers.
    pub(crate) fn initial(self) -> Numbers {
        let mixed = mix(u64::from(self.0) ^ 0x5555_0000_0000);
        Numbers {
            client: mixed as u32,
            server: (mixed >> 32) as u32,
        }
    }

    /// Returns the ports of the client and of the server.
    fn ports(self) -> (u16, u16) {
        let client = 0x8000 | (mix(u64::from(self.0)) >> 32) as u16;
        // 443 to 450, so that sessions of one client differ.
        (client, 443 + (self.0 >> 24) as u16)
    }

    /// Returns the IPv4 addresses of the client and of the server.
    fn ipv4(self) -> ([u8; 4], [u8; 4]) {
        let client = 0x0a00_0000 | (self.0 & 0x00ff_ffff);
        // 198.18.0.0/15 is for benchmarks (RFC 2544).
        let server = 0xc612_0000 | self.server();
        (client.to_be_bytes(), server.to_be_bytes())
    }

    /// Returns the IPv6 addresses of the client and of the server.
    fn ipv6(self) -> ([u8; 16], [u8; 16]) {
        let [a, b, c, d] = self.0.to_be_bytes();
        // Each client has a /64 of its own in 2001:db8::/32 (RFC 3849).
        let client = [0x20, 1, 0xd, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 1];
        let [_, f, g, h] = self.server().to_be_bytes();
        // 2001:2::/48 is for benchmarks (RFC 5180).
        let server = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, f, g, h];
        (client, server)
    }

    /// Returns the number of the server, below 2^17.
    fn server(self) -> u32 {
        mix(u64::from(self.0)) as u32 & 0x1_ffff
    }

    /// Returns a TCP segment; a SYN has no payload.
    pub(crate) fn segment(self, protocol: Protocol, from: From, segment: Segment) -> Frame {
        let Segment {
            flags,
            numbers,
            payload_len,
        } = segment;
        let (client, server) = self.ports();
        let (src_port, dst_port, seq, ack) = match from {
            From::Client => (client, server, numbers.client, numbers.server),
            From::Server => (server, client, numbers.server, numbers.client),
        };
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
            [2, 4, 5, 180, 4, 2, 8, 10, m, n, o, p, q, r, s, t, 1, 3, 3, 7]
        } else {
            [1, 1, 8, 10, m, n, o, p, q, r, s, t, 0, 0, 0, 0, 0, 0, 0, 0]
        };
        let mut bytes = [0; REST_LEN];
        let (front, back) = bytes.split_at_mut(header.len());
        front.copy_from_slice(&header);
        if let Some(place) = back.first_chunk_mut() {
            *place = options;
        }
        let rest = Rest {
            protocol: TCP,
            bytes,
            len: TCP_HEADER + options_len + payload_len,
            checksum_at: 16,
        };
        self.frame(protocol, from, rest)
    }

    /// Returns a datagram.
    pub(crate) fn datagram(self, protocol: Protocol, from: From) -> Frame {
        let (client, server) = self.ports();
        let (src_port, dst_port) = match from {
            From::Client => (client, server),
            From::Server => (server, client),
        };
        let ([a, b], [c, d]) = (src_port.to_be_bytes(), dst_port.to_be_bytes());
        let len = UDP_HEADER + PAYLOAD_LEN;
        let mut bytes = [0; REST_LEN];
        if let Some(header) = bytes.first_chunk_mut() {
            *header = [a, b, c, d, 0, len, 0, 0];
        }
        let rest = Rest {
            protocol: UDP,
            bytes,
            len,
            checksum_at: 6,
        };
        self.frame(protocol, from, rest)
    }

    /// Prepends the IP header of the protocol's version, and fills in the checksums.
    pub(crate) fn frame(self, protocol: Protocol, from: From, rest: Rest) -> Frame {
        let next = rest.protocol;
        let mut frame = Frame::EMPTY;
        if protocol.is_ipv6() {
            let (client, server) = self.ipv6();
            let (src, dst) = ordered(from, client, server);
            let pseudo = sum(&src) + sum(&dst) + sum(&[0, next, 0, rest.len]);
            let front = [0x60, 0, 0, 0, 0, rest.len, next, 64];
            for (place, byte) in frame
                .bytes
                .iter_mut()
                .zip(front.into_iter().chain(src).chain(dst))
            {
                *place = byte;
            }
            frame.append(IPV6_HEADER, rest, pseudo);
        } else {
            let (client, server) = self.ipv4();
            let (src, dst) = ordered(from, client, server);
            let pseudo = sum(&src) + sum(&dst) + sum(&[0, next, 0, rest.len]);
            let ([a, b, c, d], [e, f, g, h]) = (src, dst);
            let len = IPV4_HEADER as u8 + rest.len;
            #[rustfmt::skip]
            let mut header = [
                0x45, 0, 0, len, 0, 0, 0x40, 0, 64, next, 0, 0, a, b, c, d, e, f, g, h,
            ];
            let checksum = fold(sum(&header));
            put(&mut header, 10, checksum);
            if let Some(place) = frame.bytes.first_chunk_mut() {
                *place = header;
            }
            // An ICMP checksum covers no addresses (RFC 792).
            let pseudo = if next == TCP || next == UDP {
                pseudo
            } else {
                0
            };
            frame.append(IPV4_HEADER, rest, pseudo);
        }
        frame
    }
}

impl Frame {
    /// Appends the part after an IP header, with the checksum over it and the pseudo header's sum.
    fn append(&mut self, header: usize, mut rest: Rest, pseudo: u32) {
        let checksum = match fold(pseudo + sum(&rest.bytes)) {
            // Zero means that there is no checksum (RFC 768).
            0 if rest.protocol == UDP => 0xffff,
            checksum => checksum,
        };
        put(&mut rest.bytes, rest.checksum_at, checksum);
        for (place, byte) in self.bytes.iter_mut().skip(header).zip(rest.bytes) {
            *place = byte;
        }
        self.len = header as u8 + rest.len;
    }
}

/// Returns the sender's and the receiver's value.
fn ordered<T>(from: From, client: T, server: T) -> (T, T) {
    match from {
        From::Client => (client, server),
        From::Server => (server, client),
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
pub(crate) const fn mix(number: u64) -> u64 {
    let a = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}
