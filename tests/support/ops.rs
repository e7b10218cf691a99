//! Random traffic: the operations on an engine that proptest draws, and the ends that produce them.

use std::time::Duration;

use etherparse::TcpOptionElement;
use portcullis::config::{LatePacket, Midstream, OnReload, Permission, TcpHandling};
use portcullis::config::{LifetimeClass, LifetimeSet};
use proptest::prelude::*;

use super::model::{Handling, Limits, POLICIES, Settings};
use super::packets::{
    ACK, Ends, FIN, Head, RST, SYN, discovery, echo, icmp, other, tcp, udp, unreachable,
};
use super::seal::sealed;

/// Maximum number of conversations of each protocol.
pub(crate) const CONVERSATIONS: u8 = 12;

/// Segments that an end of a TCP connection sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tcp {
    /// A SYN with a new initial sequence number.
    Syn,
    /// The SYN, sent again.
    SynAgain,
    SynAck,
    Ack,
    Data(u8),
    Fin,
    /// The RST that the other end expects.
    Rst,
    /// A RST whose number is off by this much.
    RstOff(i32),
    /// Data whose sequence and acknowledgment numbers are off by this much.
    Off(i32, i32),
    /// A SYN-ACK for the last SYN, with a SACK block that cannot be valid.
    SynAckWithSack,
    /// A segment with arbitrary flags.
    Flags(u8),
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Udp {
        talk: u8,
        reply: bool,
    },
    Echo {
        talk: u8,
        reply: bool,
        request: bool,
    },
    Other {
        talk: u8,
        reply: bool,
    },
    Tcp {
        talk: u8,
        reply: bool,
        what: Tcp,
    },
    /// SYN, SYN-ACK, ACK.
    Handshake {
        talk: u8,
    },
    /// FIN, ACK and FIN, ACK.
    Close {
        talk: u8,
        reply: bool,
    },
    /// An ICMP error about the latest packet of a conversation, to its sender or to another host.
    Unreachable {
        talk: u8,
        to_sender: bool,
    },
    /// Bytes that are not a packet, a packet that is never tracked, or an ICMP message without an
    /// answer.
    Stray {
        kind: u8,
        bytes: Vec<u8>,
    },
    /// The latest packet of a conversation is repeated in the other zone.
    OtherZone {
        talk: u8,
    },
    Advance(Duration),
    Expire {
        budget: usize,
    },
    /// New settings.
    Reload(Box<Settings>),
    /// The engine is saved, and another one is restored from that a while later.
    Restart {
        down: Duration,
    },
}

fn tcp_op() -> impl Strategy<Value = Tcp> {
    prop_oneof![
        3 => Just(Tcp::Syn),
        2 => Just(Tcp::SynAgain),
        3 => Just(Tcp::SynAck),
        4 => Just(Tcp::Ack),
        4 => (1u8..=200).prop_map(Tcp::Data),
        3 => Just(Tcp::Fin),
        4 => Just(Tcp::Rst),
        1 => (-3i32..2_000).prop_map(Tcp::RstOff),
        2 => (-2_000i32..100_000, -70_000i32..2_000).prop_map(|(seq, ack)| Tcp::Off(seq, ack)),
        1 => Just(Tcp::SynAckWithSack),
        1 => any::<u8>().prop_map(Tcp::Flags),
    ]
}

/// Returns a step of time, from a millisecond to hours.
pub(crate) fn step() -> impl Strategy<Value = Duration> {
    prop_oneof![
        2 => 1u64..200,
        3 => 200u64..15_000,
        3 => 15_000u64..130_000,
        1 => 130_000u64..400_000,
        1 => 3_600_000u64..20_000_000,
    ]
    .prop_map(Duration::from_millis)
}

/// Returns up to four lifetimes, from a millisecond to hours.
pub(crate) fn lifetime_set() -> impl Strategy<Value = LifetimeSet> {
    let lifetime = prop_oneof![1u64..300, 300u64..40_000, 40_000u64..10_000_000];
    prop::collection::vec((0..LifetimeClass::COUNT, lifetime), 0..5).prop_map(|set| {
        set.into_iter()
            .fold(LifetimeSet::default(), |set, (class, millis)| {
                set.with(LifetimeClass::ALL[class], Duration::from_millis(millis))
            })
    })
}

/// Returns no limits half of the time; else limits that sessions reach.
fn limits() -> impl Strategy<Value = Limits> {
    let most = |most: u32| prop::option::weighted(0.4, 1..most);
    let some = (most(5), most(7), most(3), most(4)).prop_map(
        |(per_source, per_destination, half_open, rate)| Limits {
            per_source,
            per_destination,
            half_open,
            rate,
        },
    );
    prop_oneof![Just(Limits::default()), some]
}

/// Returns the settings of a reload.
pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let late = || {
        prop_oneof![
            3 => Just(LatePacket::Reset),
            1 => Just(LatePacket::Drop),
            1 => Just(LatePacket::Readmit),
        ]
    };
    let midstream = prop_oneof![
        3 => Just(Midstream::Drop),
        1 => Just(Midstream::Reject),
        1 => Just(Midstream::Adopt),
    ];
    let tcp = (prop::bool::weighted(0.8), late(), midstream).prop_map(
        |(timeout_reset, late, midstream)| Handling {
            timeout_reset,
            late,
            midstream,
        },
    );
    let tenant = (prop::option::of(any::<bool>()), prop::option::of(late())).prop_map(
        |(timeout_reset, late)| TcpHandling {
            timeout_reset,
            late,
            ..TcpHandling::default()
        },
    );
    let on_reload = prop_oneof![2 => Just(OnReload::End), 1 => Just(OnReload::Keep)];
    (
        lifetime_set(),
        [lifetime_set(), lifetime_set(), lifetime_set()],
        0..POLICIES.len(),
        on_reload,
        tcp,
        tenant,
        prop_oneof![3 => Just(Permission::Allow), 1 => Just(Permission::Drop)],
        prop::bool::weighted(0.3),
        limits(),
    )
        .prop_map(
            |(global, overrides, policy, on_reload, tcp, tenant, martians, challenged, limits)| {
                Settings {
                    global,
                    overrides,
                    policy,
                    on_reload,
                    tcp,
                    martians,
                    tenant,
                    challenged,
                    limits,
                }
            },
        )
}

/// Returns one operation, including reloads and restarts.
pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => op(),
        1 => settings().prop_map(|settings| Op::Reload(Box::new(settings))),
        1 => (0u64..60_000).prop_map(|millis| Op::Restart { down: Duration::from_millis(millis) }),
    ]
}

/// Returns sequences of operations with reloads and restarts.
pub(crate) fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(any_op(), 1..150)
}

/// Returns one operation, without reloads and restarts.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    let talk = || 0..CONVERSATIONS;
    prop_oneof![
        6 => (talk(), any::<bool>()).prop_map(|(talk, reply)| Op::Udp { talk, reply }),
        3 => (talk(), any::<bool>(), any::<bool>())
            .prop_map(|(talk, reply, request)| Op::Echo { talk, reply, request }),
        2 => (talk(), any::<bool>()).prop_map(|(talk, reply)| Op::Other { talk, reply }),
        10 => (talk(), any::<bool>(), tcp_op())
            .prop_map(|(talk, reply, what)| Op::Tcp { talk, reply, what }),
        5 => talk().prop_map(|talk| Op::Handshake { talk }),
        2 => (talk(), any::<bool>()).prop_map(|(talk, reply)| Op::Close { talk, reply }),
        1 => (0..CONVERSATIONS * 4, any::<bool>())
            .prop_map(|(talk, to_sender)| Op::Unreachable { talk, to_sender }),
        1 => (0u8..4, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, bytes)| Op::Stray { kind, bytes }),
        2 => (0..CONVERSATIONS * 4).prop_map(|talk| Op::OtherZone { talk }),
        8 => step().prop_map(Op::Advance),
        3 => prop_oneof![0usize..4, Just(1000)].prop_map(|budget| Op::Expire { budget }),
    ]
}

/// Returns sequences of operations.
pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..120)
}

/// The two ends of a TCP connection in their own view: the next byte of each. Neither window is
/// full.
#[derive(Debug, Clone, Copy, Default)]
struct Talkers {
    incarnation: u32,
    first: [u32; 2],
    next: [u32; 2],
}

/// Builds the packets of operations.
#[derive(Debug)]
pub(crate) struct Traffic {
    tcp: [Talkers; CONVERSATIONS as usize],
    /// The latest packet of each conversation: UDP, echo, other, TCP.
    latest: Vec<(Ends, Vec<u8>)>,
}

/// A packet and the number of its zone.
pub(crate) type Zoned = (u16, Vec<u8>);

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            tcp: [Talkers::default(); CONVERSATIONS as usize],
            latest: vec![(Ends::v4(0, 0), Vec::new()); usize::from(CONVERSATIONS) * 4],
        }
    }

    /// Returns the ends of a conversation: few hosts and ports, both IP versions. A third shares
    /// its addresses with another zone's, and one host sends to itself, which is allowed or not by
    /// the settings.
    fn ends(talk: u8, reply: bool) -> Ends {
        let ends = Ends {
            v6: talk % 4 == 1,
            src: 1 + talk % 3,
            src_port: 4000 + u16::from(talk / 6),
            dst: 3,
            dst_port: [53, 80, 443][usize::from(talk % 3)],
        };
        if reply { ends.back() } else { ends }
    }

    fn zone(talk: u8) -> u16 {
        u16::from(talk % 5 == 4)
    }

    fn note(&mut self, protocol: u8, talk: u8, ends: Ends, bytes: Vec<u8>) -> Vec<Zoned> {
        let place = usize::from(protocol * CONVERSATIONS + talk);
        self.latest[place] = (ends, bytes.clone());
        vec![(Self::zone(talk), bytes)]
    }

    /// Returns the packets of an operation; none for time and expiry.
    pub(crate) fn packets(&mut self, op: &Op) -> Vec<Zoned> {
        match *op {
            Op::Udp { talk, reply } => {
                let ends = Self::ends(talk, reply);
                self.note(0, talk, ends, udp(ends, b"data"))
            }
            Op::Echo {
                talk,
                reply,
                request,
            } => {
                // Both ends use one identifier, which is the source port of either.
                let ends = Ends {
                    src_port: 7,
                    ..Self::ends(talk, reply)
                };
                self.note(1, talk, ends, echo(ends, request))
            }
            Op::Other { talk, reply } if talk % 3 == 0 => {
                // Some tunnels have no key, others one for each direction. A reply follows its
                // request.
                let gre = |reply| {
                    let ends = Self::ends(talk, reply);
                    let payload = match talk / 3 % 4 * if reply { 2 } else { 1 } {
                        0 => vec![0, 0, 8, 0, 1, 2, 3, 4],
                        key => vec![0x20, 0, 8, 0, 0, 0, 0, key],
                    };
                    (ends, other(ends, 47, &payload))
                };
                let directions: &[bool] = if reply { &[false, true] } else { &[false] };
                let packets = directions.iter().flat_map(|reply| {
                    let (ends, bytes) = gre(*reply);
                    self.note(2, talk, ends, bytes)
                });
                packets.collect()
            }
            Op::Other { talk, reply } => {
                let ends = Self::ends(talk, reply);
                let (protocol, payload) = [(50, [0, 0, 0, 1, 0, 0, 0, 9]), (253, *b"somedata")]
                    [usize::from(talk % 3 - 1)];
                self.note(2, talk, ends, other(ends, protocol, &payload))
            }
            Op::Tcp { talk, reply, what } => self.segment(talk, reply, what),
            Op::Handshake { talk } => [(false, Tcp::Syn), (true, Tcp::SynAck), (false, Tcp::Ack)]
                .into_iter()
                .flat_map(|(reply, what)| self.segment(talk, reply, what))
                .collect(),
            Op::Close { talk, reply } => [
                (reply, Tcp::Fin),
                (!reply, Tcp::Ack),
                (!reply, Tcp::Fin),
                (reply, Tcp::Ack),
            ]
            .into_iter()
            .flat_map(|(reply, what)| self.segment(talk, reply, what))
            .collect(),
            Op::Unreachable { talk, to_sender } => {
                let (ends, bytes) = &self.latest[usize::from(talk)];
                if bytes.is_empty() {
                    return Vec::new();
                }
                let to = if to_sender { ends.src } else { 99 };
                vec![(
                    Self::zone(talk % CONVERSATIONS),
                    unreachable(ends.v6, to, bytes),
                )]
            }
            Op::Stray { kind, ref bytes } => vec![(
                0,
                match kind {
                    0 => bytes.clone(),
                    1 => discovery("fe80::1", "ff02::2", 133, &[&[0; 4], &bytes[..]].concat()),
                    2 => icmp(Ends::v4(0, 0), 9, [0; 4], bytes),
                    _ => {
                        let mut fragment = other(Ends::v4(0, 0), 17, &[0; 16]);
                        // The last fragment, at byte 8.
                        fragment[7] = 1;
                        sealed(fragment)
                    }
                },
            )],
            Op::OtherZone { talk } => {
                let (_, bytes) = &self.latest[usize::from(talk)];
                vec![(1 - Self::zone(talk % CONVERSATIONS), bytes.clone())]
            }
            Op::Advance(_) | Op::Expire { .. } | Op::Reload(_) | Op::Restart { .. } => Vec::new(),
        }
    }

    fn segment(&mut self, talk: u8, reply: bool, what: Tcp) -> Vec<Zoned> {
        let talkers = &mut self.tcp[usize::from(talk)];
        let (own, peer) = (usize::from(reply), usize::from(!reply));
        if let Tcp::Syn = what {
            talkers.incarnation += 1;
            // Numbers grow, as those of real hosts do, and wrap eventually.
            talkers.first[own] = talkers
                .incarnation
                .wrapping_mul(0x1234_5677)
                .wrapping_add(u32::from(talk));
            talkers.next[own] = talkers.first[own];
        }
        let (next, ack) = (talkers.next[own], talkers.next[peer]);
        let shifted = |number: u32, by: i32| number.wrapping_add_signed(by);
        let mut options = Vec::new();
        let mut payload: &[u8] = &[];
        let bytes = [0x55; 200];
        let (flags, seq, ack, len) = match what {
            Tcp::Syn | Tcp::SynAgain => {
                options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
                options.push(TcpOptionElement::WindowScale(2));
                (SYN, talkers.first[own], 0, 1)
            }
            Tcp::SynAck => {
                options.push(TcpOptionElement::WindowScale(3));
                (SYN | ACK, talkers.first[own], ack, 1)
            }
            Tcp::SynAckWithSack => {
                let block = (ack.wrapping_add(5_000), ack.wrapping_add(6_000));
                options.push(TcpOptionElement::SelectiveAcknowledgement(block, [None; 3]));
                (SYN | ACK, talkers.first[own], ack, 1)
            }
            Tcp::Ack => (ACK, next, ack, 0),
            Tcp::Data(len) => {
                payload = &bytes[..usize::from(len)];
                (ACK, next, ack, u32::from(len))
            }
            Tcp::Fin => (FIN | ACK, next, ack, 1),
            Tcp::Rst => (RST | ACK, next, ack, 0),
            Tcp::RstOff(by) => (RST, shifted(next, by), 0, 0),
            Tcp::Off(seq, other) => {
                payload = b"stray";
                (ACK, shifted(next, seq), shifted(ack, other), 0)
            }
            Tcp::Flags(flags) => (flags, next, ack, 0),
        };
        let end = seq.wrapping_add(len);
        if len > 0 && end.wrapping_sub(talkers.next[own]) < 1 << 31 {
            talkers.next[own] = end;
        }
        let head = Head {
            flags,
            seq,
            ack,
            window: if let Tcp::Data(9) = what { 0 } else { 2_000 },
        };
        let ends = Self::ends(talk, reply);
        let packet = tcp(ends, head, &options, payload);
        self.note(3, talk, ends, packet)
    }
}
