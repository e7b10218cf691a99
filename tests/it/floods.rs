//! Floods in engine time: 165,000 hostile packets per second against a table of 65,536 sessions.
//!
//! Each test runs one attack for four seconds beside 1,000 established connections with light
//! traffic and 300 new connections to servers that answer after 20, 100 and 300 ms. All established
//! connections survive, at least 99 % of their packets pass, and at least 99 % of the new
//! connections open with at most one retransmitted SYN. The clock is the engine's, so the machine's
//! speed does not matter. `.ci/floods` does the same to a running appliance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::support::packets::{ACK, RST, SYN};
use crate::support::scene::config;
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::{Discard, Engine, Packet, Verdict};

/// Hostile packets a second.
const RATE: u64 = 165_000;
/// The attack begins after the connections that are established by then.
const BEGIN: u64 = 1_000_000;
/// The end of the attack and of the test, in microseconds.
const END: u64 = 5_000_000;
const ESTABLISHED: usize = 1_000;
const CLIENTS: usize = 300;
/// The first retransmission of a SYN (RFC 6298 2.1).
const SYN_TIMEOUT: u64 = 1_000_000;
const SERVER: u32 = 0xc000_020a;
const DELAYS: [u64; 3] = [20_000, 100_000, 300_000];

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy)]
struct Path {
    source: u32,
    source_port: u16,
    destination: u32,
    destination_port: u16,
}

impl Path {
    const fn to_server(source: u32, source_port: u16) -> Self {
        Self {
            source,
            source_port,
            destination: SERVER,
            destination_port: 443,
        }
    }

    const fn back(self) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }

    fn ip(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len()) as u16;
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet.extend(self.source.to_be_bytes());
        packet.extend(self.destination.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn ports(self) -> Vec<u8> {
        [
            self.source_port.to_be_bytes(),
            self.destination_port.to_be_bytes(),
        ]
        .concat()
    }

    fn tcp(self, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        self.ip(6, &segment)
    }

    fn udp(self) -> Vec<u8> {
        let mut datagram = self.ports();
        datagram.extend([0, 16, 0, 0]);
        datagram.extend([0x5a; 8]);
        self.ip(17, &datagram)
    }
}

/// A generator of numbers, equal in each run (xorshift64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Event of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client sends its SYN for the n-th time.
    Syn { client: usize, attempt: u32 },
    /// The server answers.
    SynAck { client: usize },
    /// The client completes the handshake, with its ACK for the n-th time.
    Ack { client: usize, attempt: u32 },
    /// An established connection sends data, and its receiver acknowledges it.
    Data { connection: usize },
}

/// A connection that opens during the attack.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    answered: bool,
    open: bool,
    retransmitted: u32,
    challenged: u32,
}

struct Arena {
    engine: Engine,
    start: Instant,
    micros: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    clients: Vec<Client>,
    /// Bytes that each established connection has sent.
    sent: Vec<u32>,
    packets: u64,
    lost: u64,
}

impl Arena {
    fn new(toml: &str) -> Self {
        let toml = format!("[table]\nmax_sessions = 65536\n{toml}");
        let mut arena = Self {
            engine: Engine::with_seed(&config(&toml), [1, 2, 3, 4]).unwrap(),
            start: Instant::now(),
            micros: 0,
            events: BinaryHeap::new(),
            clients: vec![Client::default(); CLIENTS],
            sent: vec![0; ESTABLISHED],
            packets: 0,
            lost: 0,
        };
        for connection in 0..ESTABLISHED {
            arena.micros = connection as u64 * 100;
            let path = Self::established(connection);
            for packet in [
                path.tcp(SYN, 100, 0),
                path.back().tcp(SYN | ACK, 500, 101),
                path.tcp(ACK, 101, 501),
            ] {
                assert!(arena.decide(&packet).is_forward());
            }
            let first = BEGIN - 100_000 + connection as u64 * 977;
            arena
                .events
                .push(Reverse((first, Event::Data { connection })));
        }
        for client in 0..CLIENTS {
            // From 0.2 s after the start on: time for the last one to send its SYN twice.
            let at = BEGIN + 200_000 + client as u64 * (2_000_000 / CLIENTS as u64);
            arena
                .events
                .push(Reverse((at, Event::Syn { client, attempt: 0 })));
        }
        arena
    }

    const fn established(connection: usize) -> Path {
        Path::to_server(0x0a00_0000 + connection as u32, 40_000)
    }

    const fn client(client: usize) -> Path {
        Path::to_server(0x0a40_0000 + client as u32, 50_000)
    }

    fn decide(&self, bytes: &[u8]) -> Verdict {
        let now = self.start + Duration::from_micros(self.micros);
        self.engine
            .verdict_only(Packet::new(bytes, now).offloaded(true))
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.events.push(Reverse((self.micros + micros, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { client, attempt } => self.syn(client, attempt),
            Event::SynAck { client } => {
                let packet = Self::client(client).back().tcp(SYN | ACK, 9_000, 7_001);
                if self.decide(&packet).is_forward() && !self.clients[client].answered {
                    self.clients[client].answered = true;
                    self.happen(Event::Ack { client, attempt: 0 });
                }
            }
            Event::Ack { client, attempt } => {
                let packet = Self::client(client).tcp(ACK, 7_001, 9_001);
                if self.decide(&packet).is_forward() {
                    self.clients[client].open = true;
                } else if attempt < 2 {
                    let attempt = attempt + 1;
                    self.after(200_000, Event::Ack { client, attempt });
                }
            }
            Event::Data { connection } => {
                let path = Self::established(connection);
                let seq = 101 + self.sent[connection];
                let mut data = path.tcp(ACK, seq, 501);
                data.extend([b'x'; 10]);
                data[3] += 10;
                self.sent[connection] += 10;
                for packet in [data, path.back().tcp(ACK, 501, seq + 10)] {
                    self.packets += 1;
                    self.lost += u64::from(!self.decide(&packet).is_forward());
                }
                self.after(1_000_000, Event::Data { connection });
            }
        }
    }

    fn syn(&mut self, client: usize, attempt: u32) {
        if self.clients[client].answered {
            return;
        }
        self.clients[client].retransmitted = attempt;
        let path = Self::client(client);
        let syn = path.tcp(SYN, 7_000, 0);
        match self.decide(&syn) {
            Verdict::Forward(_) => self.after(DELAYS[client % 3], Event::SynAck { client }),
            Verdict::Reject(_, reply, _) => {
                let mut out = [0; MAX_REPLY];
                let answer =
                    write_reply_unbudgeted(reply, &syn, &mut out).expect("an answer to a SYN");
                // A SYN-ACK that acknowledges something else is answered by a RST with that
                // number, and the connection continues (RFC 9293 3.10.7.3).
                let flags = answer[33];
                let ack = u32::from_be_bytes(answer[28..32].try_into().unwrap());
                assert_eq!(flags, SYN | ACK, "no refusal");
                assert_ne!(ack, 7_001, "its client would accept it");
                self.clients[client].challenged += 1;
                assert!(!self.decide(&path.tcp(RST, ack, 0)).is_forward());
            }
            _ => {}
        }
        if attempt == 0 {
            self.after(SYN_TIMEOUT, Event::Syn { client, attempt: 1 });
        }
    }

    /// Runs until the end, with a hostile packet at its time among all others.
    fn run(&mut self, attack: impl FnMut(&Self, u64)) {
        self.run_at(RATE, attack);
    }

    /// Runs until the end with a number of hostile packets per second.
    fn run_at(&mut self, rate: u64, mut attack: impl FnMut(&Self, u64)) {
        let mut hostile = 0;
        let mut expired = 0;
        loop {
            let due = BEGIN + hostile * 1_000_000 / rate;
            let next = self.events.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            if due.min(next) >= END {
                break;
            }
            self.micros = due.min(next);
            if self.micros >= expired + 1_000 {
                expired = self.micros;
                let now = self.start + Duration::from_micros(self.micros);
                self.engine.expire_with(now, 1_000, &mut Discard);
            }
            if due <= next {
                attack(self, hostile);
                hostile += 1;
            } else if let Some(Reverse((_, event))) = self.events.pop() {
                self.happen(event);
            }
        }
    }

    #[track_caller]
    fn stands(&self, name: &str) {
        let alive = (0..ESTABLISHED).filter(|connection| {
            let path = Self::established(*connection);
            let seq = 101 + self.sent[*connection];
            self.decide(&path.tcp(ACK, seq, 501)).is_forward()
        });
        let alive = alive.count();
        let passed = self.packets - self.lost;
        let open = self.clients.iter().filter(|client| client.open).count();
        let of_delay = |place: usize| {
            let of_it = self.clients.iter().skip(place).step_by(3);
            of_it.filter(|client| client.open).count()
        };
        let challenged = self
            .clients
            .iter()
            .filter(|client| client.challenged > 0)
            .count();
        let late = self
            .clients
            .iter()
            .filter(|client| client.retransmitted > 0)
            .count();
        println!(
            "{name}: {alive} of {ESTABLISHED} established connections live, {passed} of {} of \
             their \
             packets passed; {open} of {CLIENTS} new connections opened ({} at 20 ms, {} at 100, \
             {} \
             at 300), {late} after a retransmission, {challenged} after a challenge; {} sessions",
            self.packets,
            of_delay(0),
            of_delay(1),
            of_delay(2),
            self.engine.sessions(),
        );
        assert!(
            self.packets > 2 * ESTABLISHED as u64,
            "there was light traffic"
        );
        assert_eq!(alive, ESTABLISHED);
        assert!(passed * 100 >= self.packets * 99);
        for (place, delay) in DELAYS.iter().enumerate() {
            assert!(of_delay(place) * 100 >= CLIENTS / 3 * 99, "delay {delay}");
        }
        self.engine.check_invariants().unwrap();
    }
}

/// A random source other than any client or server.
fn forged(random: &mut Random) -> Path {
    let number = random.next();
    Path::to_server(
        0x6400_0000 | (number as u32 & 0x00ff_ffff),
        (number >> 32) as u16 | 1_024,
    )
}

#[test]
fn a_flood_of_syns_disturbs_no_connection() {
    let mut arena = Arena::new("");
    let mut random = Random(1);
    arena.run(|arena, _| {
        let seq = random.next() as u32;
        let _ = arena.decide(&forged(&mut random).tcp(SYN, seq, 0));
    });
    arena.stands("SYN flood");
}

#[test]
fn a_flood_of_datagrams_disturbs_no_connection() {
    let mut arena = Arena::new("");
    let mut random = Random(2);
    arena.run(|arena, _| {
        let _ = arena.decide(&forged(&mut random).udp());
    });
    arena.stands("UDP flood");
}

/// The table turns over in a tenth of a second, and servers answer after up to three.
#[test]
fn a_flood_at_four_times_the_rate_disturbs_no_connection() {
    let mut arena = Arena::new("");
    let mut random = Random(5);
    arena.run_at(4 * RATE, |arena, _| {
        let _ = arena.decide(&forged(&mut random).udp());
    });
    arena.stands("UDP flood at 660,000 a second");
}

#[test]
fn a_flood_of_fragments_disturbs_no_connection() {
    let mut arena = Arena::new("");
    let mut random = Random(3);
    arena.run(|arena, number| {
        let mut packet = forged(&mut random).udp();
        packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
        // First fragments, and later ones of datagrams that have none.
        packet[6] = 0x20;
        packet[7] = if number % 2 == 0 { 0 } else { 9 };
        let _ = arena.decide(&packet);
    });
    arena.stands("fragment flood");
}

#[test]
fn one_source_does_not_fill_the_table() {
    let mut arena = Arena::new("");
    arena.run(|arena, number| {
        let connection = (number / 3) as u32;
        let path = Path {
            source: 0x6500_0001,
            source_port: connection as u16 | 1_024,
            destination: SERVER + (connection >> 12),
            destination_port: 80 + (connection & 0x3ff) as u16,
        };
        let _ = arena.decide(&match number % 3 {
            0 => path.tcp(SYN, 1, 0),
            1 => path.back().tcp(SYN | ACK, 2, 2),
            _ => path.tcp(ACK, 2, 3),
        });
    });
    arena.stands("one source");
    assert!(
        arena.engine.sessions() < 65_536 * 3 / 4,
        "it owns the table: {} sessions",
        arena.engine.sessions()
    );
}

#[test]
fn storms_of_resets_and_acknowledgments_disturb_no_connection() {
    let mut arena = Arena::new("");
    let mut random = Random(4);
    arena.run(|arena, number| {
        let guess = random.next();
        // Half of them hit an established connection with random numbers.
        let path = match number % 2 {
            0 => forged(&mut random),
            _ => Arena::established(guess as usize % ESTABLISHED),
        };
        let path = if number % 8 < 4 { path } else { path.back() };
        let flags = if number % 4 < 2 { RST } else { ACK };
        let _ = arena.decide(&path.tcp(flags, (guess >> 16) as u32, (guess >> 32) as u32));
    });
    arena.stands("RST and ACK storm");
}
