//! Traffic of a measurement: sessions of one protocol, or a mix of kinds of packets.
//!
//! A mix is computed from the numbers of session and round, like [`super::traffic`], and stores
//! nothing. A session's number determines its role: a long TCP connection, a UDP session, or a
//! series of short TCP connections on one pair of ports. Connections of a series end with FINs of
//! both ends, and the next one takes over the session in TIME_WAIT, so the number of sessions stays
//! constant. Every [`ERROR_EVERY`]th packet of a session is an ICMP error that quotes the packet
//! before.

use serde::Serialize;

use super::args::{BenchArgs, Family, MixArg, ProtocolArg};
use super::traffic::{ACK, Frame, From, Numbers, Protocol, REST_LEN, Rest, Segment, Session, mix};

/// TCP flag FIN.
const FIN: u8 = 0x01;
/// IP protocol number of ICMP.
const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
const ICMPV6: u8 = 58;

/// Number of packets of a session for each ICMP error.
const ERROR_EVERY: u32 = 64;

/// Packets of a handshake, and of the end of a connection.
const HANDSHAKE: u32 = 3;
const CLOSE: u32 = 3;

/// Distance between the initial numbers of successive connections of a series: the higher number
/// makes a SYN acceptable in TIME_WAIT (RFC 9293 3.6.1).
const NEXT_CONNECTION: u32 = 1 << 20;

/// Kind of a packet of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP segment with payload.
    Data,
    /// TCP segment without payload, in an established connection.
    Ack,
    /// UDP datagram.
    Udp,
    /// SYN, SYN-ACK, or the ACK that completes a handshake.
    Handshake,
    /// FIN of either end, or the ACK of the last one.
    Close,
    /// ICMP error.
    IcmpError,
}

/// Share of each kind in the packets of a mix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Shares {
    pub(super) data: f64,
    pub(super) ack: f64,
    pub(super) udp: f64,
    pub(super) handshake: f64,
    pub(super) close: f64,
    pub(super) icmp_error: f64,
}

impl Shares {
    /// Returns the shares with the names of the kinds.
    pub(super) const fn named(&self) -> [(f64, &'static str); 6] {
        [
            (self.data, "TCP segments with data"),
            (self.ack, "TCP segments without data"),
            (self.udp, "UDP datagrams"),
            (self.handshake, "packets of TCP handshakes"),
            (self.close, "packets of the ends of TCP connections"),
            (self.icmp_error, "ICMP errors"),
        ]
    }

    /// Returns the share of a kind.
    const fn of(&mut self, kind: Kind) -> &mut f64 {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Ack => &mut self.ack,
            Kind::Udp => &mut self.udp,
            Kind::Handshake => &mut self.handshake,
            Kind::Close => &mut self.close,
            Kind::IcmpError => &mut self.icmp_error,
        }
    }
}

/// Shape of a mix.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Sessions of 100 that are long TCP connections.
    long: u64,
    /// Sessions of 100 that are UDP; the remaining ones are series of short connections.
    udp: u64,
    /// Packets of a short connection between handshake and end.
    turns: u32,
}

impl MixArg {
    const fn shape(self) -> Shape {
        match self {
            Self::Internet => Shape {
                long: 60,
                udp: 20,
                turns: 10,
            },
            Self::Short => Shape {
                long: 0,
                udp: 10,
                turns: 6,
            },
        }
    }
}

/// Role of a session in a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Long,
    Udp,
    /// Additional packets of the first connection, so that sessions are out of step.
    Short {
        extra: u32,
    },
}

/// Packet of a session in a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) frame: Frame,
    pub(super) kind: Kind,
    from: From,
}

/// Traffic of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    tcp: Protocol,
    udp: Protocol,
    /// Protocol of all sessions without a mix.
    protocol: Protocol,
    mix: Option<Shape>,
}

impl Traffic {
    pub(super) fn new(args: &BenchArgs) -> Self {
        let (tcp, udp) = match args.family {
            Family::V4 => (Protocol::Tcp, Protocol::Udp),
            Family::V6 => (Protocol::Tcp6, Protocol::Udp6),
        };
        Self {
            tcp,
            udp,
            protocol: match args.protocol {
                ProtocolArg::Tcp => tcp,
                ProtocolArg::Udp => udp,
            },
            mix: args.mix.map(MixArg::shape),
        }
    }

    /// Returns the protocol of a session.
    pub(super) fn protocol(&self, session: Session) -> Protocol {
        match self.mix {
            None => self.protocol,
            Some(shape) if role(shape, session) == Role::Udp => self.udp,
            Some(_) => self.tcp,
        }
    }

    /// Returns the protocol of UDP sessions.
    pub(super) const fn udp(&self) -> Protocol {
        self.udp
    }

    /// Returns the packet of an established session in a round. The rounds must be taken in order,
    /// from 0.
    pub(super) fn packet(&self, session: Session, round: u32) -> Frame {
        match self.mix {
            None => session.packet(self.protocol, round),
            Some(shape) => self.mixed(shape, session, round).frame,
        }
    }

    /// Returns the packet of a session of a mix in a round.
    fn mixed(&self, shape: Shape, session: Session, round: u32) -> Made {
        // Errors of different sessions are in different rounds, and none is in the first rounds.
        let offset = (mix(u64::from(session.0) ^ 0x3333) as u32) % (ERROR_EVERY - 4);
        let step = round.wrapping_add(offset);
        let turn = round.wrapping_sub(step / ERROR_EVERY);
        let role = role(shape, session);
        if step % ERROR_EVERY == ERROR_EVERY - 1 {
            let last = self.regular(shape, role, session, turn.wrapping_sub(1));
            self.error_about(session, &last)
        } else {
            self.regular(shape, role, session, turn)
        }
    }

    /// Returns the packet of a session in a turn, which is a round without errors.
    fn regular(&self, shape: Shape, role: Role, session: Session, turn: u32) -> Made {
        match role {
            Role::Udp => Made {
                frame: session.packet(self.udp, turn),
                kind: Kind::Udp,
                from: session.sender(turn),
            },
            Role::Long => self.data(session, turn, session.initial()),
            Role::Short { extra } => self.short(shape, extra, session, turn),
        }
    }

    /// Returns the packet of an established connection in a turn.
    fn data(&self, session: Session, turn: u32, initial: Numbers) -> Made {
        let from = session.sender(turn);
        let has_payload = from == From::Client || session.reply_len() > 0;
        Made {
            frame: session.turn(self.tcp, turn, initial),
            kind: if has_payload { Kind::Data } else { Kind::Ack },
            from,
        }
    }

    /// Returns the packet of a series of short connections in a turn. The first connection is
    /// established in turn 0.
    fn short(&self, shape: Shape, extra: u32, session: Session, turn: u32) -> Made {
        let first = shape.turns + extra;
        let Some(later) = turn.checked_sub(first) else {
            return self.data(session, turn, session.initial());
        };
        // A cycle: the end of a connection, the handshake of the next one, and its data.
        let cycle = CLOSE + HANDSHAKE + shape.turns;
        let (number, place) = (later / cycle, later % cycle);
        let initial = |number: u32| {
            let distance = number.wrapping_mul(NEXT_CONNECTION);
            session.initial().after(distance, distance)
        };
        let next = initial(number.wrapping_add(1));
        match place.checked_sub(CLOSE) {
            None => {
                let turns = if number == 0 { first } else { shape.turns };
                self.close(session, place, session.numbers(turns, initial(number)))
            }
            Some(step) if step < HANDSHAKE => Made {
                frame: session.syn_packet(self.tcp, step, next),
                kind: Kind::Handshake,
                from: if step == 1 {
                    From::Server
                } else {
                    From::Client
                },
            },
            Some(step) => self.data(session, step - HANDSHAKE, next),
        }
    }

    /// Returns a packet of the end of a connection: the client's FIN, the server's, or the last
    /// ACK.
    fn close(&self, session: Session, place: u32, numbers: Numbers) -> Made {
        let (from, flags, numbers) = match place {
            0 => (From::Client, FIN | ACK, numbers),
            1 => (From::Server, FIN | ACK, numbers.after(1, 0)),
            _ => (From::Client, ACK, numbers.after(1, 1)),
        };
        let segment = Segment {
            flags,
            numbers,
            payload_len: 0,
        };
        Made {
            frame: session.segment(self.tcp, from, segment),
            kind: Kind::Close,
            from,
        }
    }

    /// Returns an ICMP error of the receiver of a packet: its time was exceeded (RFC 792,
    /// RFC 4443 3.3).
    fn error_about(&self, session: Session, quoted: &Made) -> Made {
        let (protocol, kind, header) = match self.tcp {
            Protocol::Tcp6 | Protocol::Udp6 => (ICMPV6, 3, 40),
            Protocol::Tcp | Protocol::Udp => (ICMP, 11, 20),
        };
        // An IP header and 8 bytes, which hold ports and the sequence number.
        let quote = quoted.frame.bytes().iter().take(header + 8);
        let mut bytes = [0; REST_LEN];
        let mut len = 0;
        let head = [kind, 0, 0, 0, 0, 0, 0, 0];
        for (place, byte) in bytes.iter_mut().zip(head.iter().chain(quote)) {
            *place = *byte;
            len += 1;
        }
        let rest = Rest {
            protocol,
            bytes,
            len,
            checksum_at: 2,
        };
        let from = match quoted.from {
            From::Client => From::Server,
            From::Server => From::Client,
        };
        Made {
            frame: session.frame(self.tcp, from, rest),
            kind: Kind::IcmpError,
            from,
        }
    }

    /// Returns the share of each kind; `None` without a mix. The shares are counted in the packets
    /// of the first sessions, in the rounds of a whole number of cycles.
    pub(super) fn shares(&self) -> Option<Shares> {
        const SESSIONS: u32 = 1_000;
        const ROUNDS: u32 = 960;
        let shape = self.mix?;
        let mut shares = Shares::default();
        for session in (0..SESSIONS).map(Session) {
            for round in 0..ROUNDS {
                let made = self.mixed(shape, session, round);
                *shares.of(made.kind) += 1.0 / f64::from(SESSIONS * ROUNDS);
            }
        }
        Some(shares)
    }
}

/// Returns the role of a session in a mix.
fn role(shape: Shape, session: Session) -> Role {
    let mixed = mix(u64::from(session.0) ^ 0xaaaa_0000);
    match mixed % 100 {
        part if part < shape.long => Role::Long,
        part if part < shape.long + shape.udp => Role::Udp,
        _ => Role::Short {
            extra: (mixed >> 32) as u32 % (CLOSE + HANDSHAKE + shape.turns),
        },
    }
}
