//! The body of the fuzz target `short_way`: two engines decide the same packets, one of them by the
//! full way only, and must agree in every verdict, counter, slot and wheel.
//!
//! The module depends only on the library and `arbitrary`, like `fuzz.rs`. `tests/it/short_way.rs`
//! runs it on random bytes.

use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use portcullis::config::LifetimeClass;
use portcullis::config::{Checksums, Config, EngineConfig, IpConfig, OptionsMode, TableConfig};
use portcullis::{Discard, Engine, Packet, TunnelRef, Verdict, Zone};

/// Conversations: the lower half are TCP, and connections are established when they begin.
const TALKS: usize = 8;
/// Packets of a batch.
const BATCH: usize = 5;
/// Number of packets after which everything is compared.
const COMPARE_EACH: u32 = 32;
/// Sessions that make a table large enough for batches to be read ahead.
const MANY: u16 = 256;

/// A sequence number: that of its direction, close to it, or arbitrary.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Next,
    Again,
    By(i8),
    Near(i16),
    Far(i16),
    Any(u32),
}

impl Number {
    fn from(self, next: u32) -> u32 {
        match self {
            Self::Next | Self::Again => next,
            Self::By(by) => next.wrapping_add_signed(i32::from(by)),
            Self::Near(by) => next.wrapping_add_signed(i32::from(by)),
            Self::Far(by) => next.wrapping_add_signed(i32::from(by) * 1_000),
            Self::Any(number) => number,
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    Data {
        talk: u8,
        payload: u8,
        timestamps: bool,
    },
    Segment {
        talk: u8,
        flags: u8,
        seq: Number,
        ack: Number,
        window: u16,
        payload: u8,
        options: u8,
    },
    Damaged {
        talk: u8,
        at: u8,
        value: u8,
    },
    Datagram {
        talk: u8,
        payload: u8,
    },
    Advance {
        millis: u16,
    },
    Backwards {
        millis: u8,
    },
    Reload {
        flags: u8,
    },
}

/// A conversation, and the next byte of each of its ends.
#[derive(Debug, Clone, Copy, Default)]
struct Talk {
    is_open: bool,
    next: [u32; 2],
    window: u16,
}

/// Sender and form of a packet, by the bits of `talk`: 0 to 2 are the conversation, 3 its
/// direction, 4 the version of IP.
#[derive(Debug, Clone, Copy)]
struct From {
    number: usize,
    reply: bool,
    v6: bool,
}

impl From {
    const fn of(talk: u8) -> Self {
        Self {
            number: talk as usize % TALKS,
            reply: talk & 8 != 0,
            v6: talk & 16 != 0,
        }
    }

    /// Returns the number of the conversation over this version of IP.
    const fn talk(self) -> usize {
        self.number + if self.v6 { TALKS } else { 0 }
    }

    const fn back(self) -> Self {
        Self {
            reply: !self.reply,
            ..self
        }
    }

    fn ends(self) -> [usize; 2] {
        if self.reply { [1, 0] } else { [0, 1] }
    }

    fn ports(self) -> [u8; 4] {
        let [a, b] = (4_000 + self.number as u16).to_be_bytes();
        // One conversation is a control connection of FTP, and one queries a DNS server.
        let port = match self.number {
            3 => 21,
            7 => 53,
            _ => 80,
        };
        if self.reply {
            [0, port, a, b]
        } else {
            [a, b, 0, port]
        }
    }

    /// Returns an IP packet with correct checksums.
    fn packet(self, protocol: u8, mut payload: Vec<u8>) -> Vec<u8> {
        let mut hosts = [10 + self.number as u8, 1];
        if self.number.is_multiple_of(3) {
            hosts.reverse();
        }
        if self.reply {
            hosts.reverse();
        }
        let address = |host| -> Vec<u8> {
            if self.v6 {
                [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[host]].concat()
            } else {
                vec![10, 0, 0, host]
            }
        };
        let addresses = hosts.map(address).concat();
        let len = payload.len() as u16;
        let pseudo = [&addresses[..], &[0, protocol], &len.to_be_bytes()].concat();
        let at = if protocol == 6 { 16 } else { 6 };
        let sum = checksum(&[&pseudo, &payload]);
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        if self.v6 {
            let fixed = [0x60, 0, 0, 0, (len >> 8) as u8, len as u8, protocol, 64];
            return [&fixed[..], &addresses, &payload].concat();
        }
        let total = 20 + len;
        let mut header = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0];
        header.extend([64, protocol, 0, 0]);
        header.extend(&addresses);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [header, payload].concat()
    }

    fn segment(self, flags: u8, [seq, ack]: [u32; 2], window: u16, rest: Rest<'_>) -> Vec<u8> {
        let mut segment = self.ports().to_vec();
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        let words = 5 + rest.options.len() as u8 / 4;
        segment.extend([words << 4, flags]);
        segment.extend(window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(rest.options);
        segment.extend(vec![0x20; usize::from(rest.payload)]);
        self.packet(6, segment)
    }

    fn datagram(self, payload: u8) -> Vec<u8> {
        let len = 8 + u16::from(payload);
        let mut datagram = self.ports().to_vec();
        datagram.extend(len.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(vec![7; usize::from(payload)]);
        self.packet(17, datagram)
    }
}

/// Options and payload of a segment.
#[derive(Debug, Clone, Copy)]
struct Rest<'a> {
    options: &'a [u8],
    payload: u8,
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const NO_OPTIONS: Rest<'_> = Rest {
    options: &[],
    payload: 0,
};

/// Returns options of one of a few layouts: only the first two are usual.
fn options(kind: u8) -> Vec<u8> {
    match kind % 8 {
        0..=2 => Vec::new(),
        3 | 4 => TIMESTAMPS.to_vec(),
        5 => [&[1, 1, 5, 10][..], &[0, 0, 0, kind], &[0, 0, 1, kind]].concat(),
        6 => vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1],
        _ => [&TIMESTAMPS[..], &[1, 1, 1, 0]].concat(),
    }
}

/// The two engines and the packets that wait for the end of a batch.
struct Pair {
    engines: [Engine; 2],
    now: Instant,
    waiting: Vec<Vec<u8>>,
    packets: u32,
}

fn config(flags: u8) -> Config {
    let has = |bit: u8| flags & bit != 0;
    let mut config = Config {
        engine: EngineConfig {
            checksums: if has(1) {
                Checksums::Verify
            } else {
                Checksums::Trust
            },
            tunnel_references: true,
            ..EngineConfig::default()
        },
        table: TableConfig {
            max_sessions: 512,
            shards: Some(2),
            ..TableConfig::default()
        },
        ip: IpConfig {
            options: if has(2) {
                OptionsMode::Strict
            } else {
                OptionsMode::Allow
            },
            ..IpConfig::default()
        },
        ..Config::allow_all()
    };
    let lifetime = |seconds| Duration::from_secs(if has(4) { seconds } else { 10 * seconds });
    config.lifetimes.set = config
        .lifetimes
        .set
        .with(LifetimeClass::TcpEstablished, lifetime(30))
        .with(LifetimeClass::TcpUnacknowledged, lifetime(10))
        .with(LifetimeClass::UdpStream, lifetime(20));
    config
}

impl Pair {
    fn new(flags: u8) -> Self {
        let engine = || Engine::with_seed(&config(flags), [1, 2, 3, 4]).expect("a right one");
        Self {
            engines: [engine(), engine().full_way_only()],
            now: Instant::now() + Duration::from_secs(60),
            waiting: Vec::new(),
            packets: 0,
        }
    }

    fn send(&mut self, packet: Vec<u8>) {
        self.waiting.push(packet);
        if self.waiting.len() == BATCH {
            self.flush();
        }
    }

    /// Decides the waiting packets: in a batch by the first engine, one by one by the other.
    fn flush(&mut self) {
        let (now, first) = (self.now, self.packets);
        let packets = (first..).zip(&self.waiting).map(|(number, bytes)| {
            // Threads may pass slightly different clocks.
            let now = now - Duration::from_millis(u64::from(number % 3));
            let packet = Packet::new(bytes, now).zone(Zone::DEFAULT);
            packet.tunnel(TunnelRef(u64::from(number % 7)))
        });
        let packets: Vec<_> = packets.collect();
        let [short, full] = &self.engines;
        let mut verdicts: Vec<Verdict> = Vec::new();
        if first.is_multiple_of(2) {
            short.verdicts_only(&packets, &mut verdicts);
        } else {
            verdicts.extend(packets.iter().map(|packet| short.verdict_only(*packet)));
        }
        for (packet, verdict) in packets.iter().zip(&verdicts) {
            assert_eq!(
                full.verdict_only(*packet),
                *verdict,
                "{:x?}",
                packet.bytes()
            );
        }
        assert_eq!(packets.len(), verdicts.len());
        self.packets += packets.len() as u32;
        self.waiting.clear();
        if self.packets / COMPARE_EACH != first / COMPARE_EACH {
            self.compare();
        }
    }

    fn compare(&self) {
        let [short, full] = &self.engines;
        assert_eq!(short.stats(), full.stats());
        assert_eq!(short.next_expiry(), full.next_expiry());
        assert!(short.table_state() == full.table_state(), "a slot differs");
        short.check_invariants().expect("the table is sound");
    }

    fn expire(&mut self, budget: usize) {
        self.flush();
        let [short, full] = &self.engines;
        let done = short.expire_with(self.now, budget, &mut Discard);
        assert_eq!(done, full.expire_with(self.now, budget, &mut Discard));
    }
}

/// Runs conversations through both engines.
pub(crate) fn short_way(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let flags = input.arbitrary::<u8>().unwrap_or(0);
    let mut pair = Pair::new(flags);
    if flags & 0x80 != 0 {
        for number in 0..MANY {
            let from = From {
                number: 5,
                reply: false,
                v6: false,
            };
            let mut datagram = from.datagram(0);
            datagram[20..22].copy_from_slice(&(10_000 + number).to_be_bytes());
            // No checksum.
            datagram[26..28].copy_from_slice(&[0, 0]);
            pair.send(datagram);
        }
    }
    let mut talks = [Talk::default(); 2 * TALKS];
    while !input.is_empty() {
        let Ok(step) = input.arbitrary::<Step>() else {
            break;
        };
        run(step, &mut pair, &mut talks);
    }
    pair.expire(1);
    pair.compare();
    pair.now += Duration::from_secs(100_000);
    pair.expire(10_000);
    pair.compare();
    assert_eq!(pair.engines[0].sessions(), 0, "time ends every session");
}

fn run(step: Step, pair: &mut Pair, talks: &mut [Talk; 2 * TALKS]) {
    match step {
        Step::Data {
            talk,
            payload,
            timestamps,
        } => {
            let from = From::of(talk);
            let talk = &mut talks[from.talk()];
            open(from, talk, pair);
            let [own, other] = from.ends();
            let options: &[u8] = if timestamps { &TIMESTAMPS } else { &[] };
            let numbers = [talk.next[own], talk.next[other]];
            pair.send(from.segment(0x18, numbers, talk.window, Rest { options, payload }));
            talk.next[own] = talk.next[own].wrapping_add(u32::from(payload));
            // More data and ACKs, in alternating directions.
            for number in 0..payload % 8 {
                let from = if number % 2 == 0 { from.back() } else { from };
                let [own, other] = from.ends();
                let numbers = [talk.next[own], talk.next[other]];
                let payload = if number % 4 == 3 { 0 } else { 1 + payload / 2 };
                pair.send(from.segment(0x10, numbers, talk.window, Rest { options, payload }));
                talk.next[own] = talk.next[own].wrapping_add(u32::from(payload));
            }
        }
        Step::Segment {
            talk,
            flags,
            seq,
            ack,
            window,
            payload,
            options: kind,
        } => {
            let from = From::of(talk);
            let talk = &mut talks[from.talk()];
            open(from, talk, pair);
            let [own, other] = from.ends();
            let flags = match flags % 16 {
                0 => 0x11,
                1 => 0x14,
                2 => 0x02,
                3 => 0x12,
                4 => 0x30,
                5 => flags,
                _ => 0x10 | flags & 0xc8,
            };
            let numbers = [seq.from(talk.next[own]), ack.from(talk.next[other])];
            let window = if window.is_multiple_of(4) {
                window
            } else {
                talk.window
            };
            let options = options(kind);
            let rest = Rest {
                options: &options,
                payload,
            };
            pair.send(from.segment(flags, numbers, window, rest));
            if matches!(seq, Number::Next) {
                talk.next[own] = talk.next[own].wrapping_add(u32::from(payload));
            }
            // A SYN, FIN or RST may have ended the connection: the next step opens another one.
            if flags & 0x07 != 0 {
                talk.is_open = false;
            }
        }
        Step::Damaged { talk, at, value } => {
            let from = From::of(talk);
            let [own, other] = from.ends();
            let talk = &mut talks[from.talk()];
            let numbers = [talk.next[own], talk.next[other]];
            let mut packet = from.segment(0x10, numbers, 1_000, NO_OPTIONS);
            let at = usize::from(at) % packet.len();
            packet[at] = value;
            pair.send(packet);
        }
        Step::Datagram { talk, payload } => pair.send(From::of(talk).datagram(payload)),
        Step::Advance { millis } => {
            pair.flush();
            // Rarely long enough for sessions to expire.
            let millis = if millis % 16 == 0 {
                millis
            } else {
                millis % 2_000
            };
            pair.now += Duration::from_millis(u64::from(millis));
            pair.expire(usize::from(millis % 8));
        }
        Step::Backwards { millis } => {
            pair.flush();
            let before = Duration::from_millis(u64::from(millis));
            pair.now = pair.now.checked_sub(before).unwrap_or(pair.now);
        }
        Step::Reload { flags } => {
            pair.flush();
            let now = pair.now;
            for engine in &pair.engines {
                let done = engine.reload(&config(flags), now, &mut Discard);
                done.expect("a right configuration");
            }
            pair.compare();
        }
    }
}

/// Sends the handshake of a connection that has not begun.
fn open(from: From, talk: &mut Talk, pair: &mut Pair) {
    if talk.is_open {
        return;
    }
    let number = from.number as u32;
    let initial = [number.wrapping_mul(0x2fff_ffff), 0xffff_ff00 + number];
    let [seq, ack] = initial;
    let client = From {
        reply: false,
        ..from
    };
    let scale = [3, 3, 5, 1];
    let rest = Rest {
        options: if number.is_multiple_of(2) {
            &scale
        } else {
            &[]
        },
        payload: 0,
    };
    *talk = Talk {
        is_open: true,
        next: initial.map(|number| number.wrapping_add(1)),
        window: 500 + 3_000 * from.number as u16,
    };
    let next = talk.next;
    pair.send(client.segment(0x02, [seq, 0], talk.window, rest));
    pair.send(
        client
            .back()
            .segment(0x12, [ack, next[0]], talk.window, rest),
    );
    pair.send(client.segment(0x10, next, talk.window, NO_OPTIONS));
}
