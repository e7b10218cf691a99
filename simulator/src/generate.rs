//! Load generator: many flows of one kind, in both directions, in rounds.
//!
//! Every flow sends one packet per round. UDP: all clients send in the first round; then half of
//! the flows send from either end, alternately. TCP: a handshake, then data alternately, each
//! segment acknowledging all but the peer's newest one. After the configured number of data
//! packets, FINs and a new connection with the same ports follow. Rounds that open or close wait
//! until the previous round is answered, as endpoints would.

use etherparse::PacketBuilder;

use super::flow::Side;
use super::sender::Sender;

/// The client's port.
const CLIENT_PORT: u16 = 40_000;
/// The server's address. Both ends are in the network for measurements (RFC 2544, RFC 6890).
const SERVER: [u8; 4] = [198, 19, 0, 1];
/// Distance between the initial sequence numbers of a client's consecutive connections.
const NEXT_CONNECTION: u32 = 100_000;
const TTL: u8 = 64;
const WINDOW: u16 = 65_535;
const IP_TCP: usize = 40;
const IP_UDP: usize = 28;
/// Length of the packet's number, which makes every packet unique.
const NUMBER: usize = 8;
/// The smallest packet of both protocols, in bytes.
pub(super) const MIN_SIZE: usize = IP_TCP + NUMBER;

/// Settings of a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// TCP or UDP.
    pub(super) tcp: bool,
    /// Number of flows, 1 to 65536.
    pub(super) flows: u32,
    /// Length in bytes of an inner packet with data.
    pub(super) size: usize,
    /// The server's port.
    pub(super) port: u16,
    /// Data packets of a TCP connection before it is closed and opened again; 0 for no end.
    pub(super) connection: u64,
    /// Total number of packets; `None` for no end.
    pub(super) packets: Option<u64>,
}

/// Purpose of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Syn,
    SynAck,
    Ack,
    Data,
    ClientFin,
    ServerFin,
    LastAck,
}

/// Sequence numbers of a TCP connection's end.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    next: u32,
    /// Value of `next` before the newest packet.
    before: u32,
}

impl Numbers {
    const fn send(&mut self, len: u32) -> u32 {
        self.before = self.next;
        self.next = self.next.wrapping_add(len);
        self.before
    }
}

/// Generator of packets.
pub(super) struct Generator {
    load: Load,
    /// For TCP, the sequence numbers of the client and the server of each flow.
    ends: Vec<(Numbers, Numbers)>,
    number: u64,
    payload: Vec<u8>,
}

impl Generator {
    pub(super) fn new(load: Load) -> Self {
        let header = if load.tcp { IP_TCP } else { IP_UDP };
        let start = |next| Numbers { next, before: next };
        let flows = if load.tcp { load.flows } else { 0 };
        Self {
            load,
            ends: (0..flows)
                .map(|flow| {
                    (
                        start(flow.wrapping_mul(7919)),
                        start(flow.wrapping_mul(104_729)),
                    )
                })
                .collect(),
            number: 0,
            payload: vec![0x5a; load.size.saturating_sub(header).max(NUMBER)],
        }
    }

    const fn step(&self, round: u64) -> Step {
        if !self.load.tcp {
            return Step::Data;
        }
        let data = self.load.connection;
        let round = if data == 0 { round } else { round % (data + 6) };
        match round {
            0 => Step::Syn,
            1 => Step::SynAck,
            2 => Step::Ack,
            _ if data == 0 || round < data + 3 => Step::Data,
            _ if round == data + 3 => Step::ClientFin,
            _ if round == data + 4 => Step::ServerFin,
            _ => Step::LastAck,
        }
    }

    /// Returns whether this round waits for the replies of the previous one.
    pub(super) fn waits(&self, round: u64) -> bool {
        round > 0
            && (self.step(round) != Step::Data || self.step(round - 1) != Step::Data || round == 1)
    }

    /// Writes the packet of a flow in a round to `out`, and returns the sending side.
    pub(super) fn packet(&mut self, flow: u32, round: u64, out: &mut Vec<u8>) -> Side {
        let step = self.step(round);
        let from_client = match step {
            Step::Syn | Step::Ack | Step::ClientFin | Step::LastAck => true,
            Step::SynAck | Step::ServerFin => false,
            Step::Data => {
                (round == 0 && !self.load.tcp) || (round + u64::from(flow)).is_multiple_of(2)
            }
        };
        self.number += 1;
        if let Some(place) = self.payload.first_chunk_mut() {
            *place = self.number.to_be_bytes();
        }
        let [.., high, low] = flow.to_be_bytes();
        let client = [198, 18, high, low];
        let (source, destination) = if from_client {
            (client, SERVER)
        } else {
            (SERVER, client)
        };
        let ip = PacketBuilder::ipv4(source, destination, TTL);
        out.clear();
        if self.load.tcp {
            self.segment(ip, step, flow, from_client, out);
        } else {
            let (source, destination) = self.ports(from_client);
            // Writing to a Vec cannot fail, and the length is below 64 KiB.
            let _ = ip.udp(source, destination).write(out, &self.payload);
        }
        if from_client {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// Returns source and destination port of a side's packets.
    const fn ports(&self, from_client: bool) -> (u16, u16) {
        if from_client {
            (CLIENT_PORT, self.load.port)
        } else {
            (self.load.port, CLIENT_PORT)
        }
    }

    fn segment(
        &mut self,
        ip: etherparse::PacketBuilderStep<etherparse::IpHeaders>,
        step: Step,
        flow: u32,
        from_client: bool,
        out: &mut Vec<u8>,
    ) {
        let (source, destination) = self.ports(from_client);
        let Some((client, server)) = self.ends.get_mut(flow as usize) else {
            return;
        };
        let (own, other) = if from_client {
            (client, server)
        } else {
            (server, client)
        };
        let mut payload: &[u8] = &[];
        let len = match step {
            Step::Syn | Step::SynAck | Step::ClientFin | Step::ServerFin => 1,
            Step::Ack | Step::LastAck => 0,
            Step::Data => {
                payload = &self.payload;
                payload.len() as u32
            }
        };
        if step == Step::Syn {
            own.next = own.next.wrapping_add(NEXT_CONNECTION);
        }
        let sequence = own.send(len);
        let acknowledged = match step {
            Step::Data => other.before,
            _ => {
                other.before = other.next;
                other.next
            }
        };
        let segment = ip.tcp(source, destination, sequence, WINDOW);
        let segment = match step {
            Step::Syn => segment.syn(),
            Step::SynAck => segment.syn().ack(acknowledged),
            Step::ClientFin | Step::ServerFin => segment.fin().ack(acknowledged),
            Step::Ack | Step::LastAck | Step::Data => segment.ack(acknowledged),
        };
        let _ = segment.write(out, payload);
    }
}

/// Sends until all packets are sent or the run is over.
pub(super) fn run(sender: &mut Sender<'_>, load: Load) {
    let mut generator = Generator::new(load);
    let mut packet = Vec::new();
    let mut left = load.packets;
    for round in 0.. {
        if generator.waits(round) {
            sender.settle();
        }
        for flow in 0..load.flows {
            if left == Some(0) || sender.is_over() {
                return;
            }
            left = left.map(|left| left - 1);
            let side = generator.packet(flow, round, &mut packet);
            if !sender.send(0, side, &packet) {
                return;
            }
        }
    }
}
