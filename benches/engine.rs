//! The cost of the engine, measured with Criterion.
//!
//! Packets are built in slices of [`SLICE`] outside the timed part ([`traffic`]). The timed part is
//! the loop over a slice, in which all packets have one `now`. Tables are filled when the first
//! benchmark that is not filtered out needs them. `cargo bench --bench engine -- --test` runs
//! everything once.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that stops at the first surprise"
)]

mod traffic;

use std::cell::{LazyCell, RefCell};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use portcullis::config::{AddressTerm, ChallengeMode, RuleConfig};
use portcullis::packet::{self, Checksums};
use portcullis::policy::{self, Action, CompiledPolicy, NewSession, PortRange};
use portcullis::{Config, Discard, Engine, Outbox, Packet, Verdict};

use traffic::{Frame, MAX_SESSIONS, Order, Protocol, Session};

/// Number of packets that are built together: they fit in the second-level cache.
const SLICE: usize = 1024;

/// Number of packets of one call: the number that an appliance's worker receives together under
/// load.
const BATCH: usize = 64;

/// A fixed hash seed, so that two runs fill the same shards.
const SEED: [u64; 4] = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];

/// Rounds before the first measured one: after them no packet is the first of its kind in a
/// session.
const WARM_UP: u32 = 4;

/// A duration longer than the lifetime of any session of these benchmarks.
const LATER: Duration = Duration::from_secs(400);

/// An engine, its sessions, and the progress of their conversations.
struct Table {
    engine: Engine,
    protocol: Protocol,
    sessions: u32,
    order: Order,
    round: u32,
    position: u32,
    now: Instant,
    frames: Vec<Frame>,
}

impl Table {
    fn new(sessions: u32, protocol: Protocol) -> Self {
        let mut config = Config::allow_all();
        config.table.max_sessions = sessions;
        // The load opens sessions as fast as possible, which the engine treats as a flood.
        config.syn_challenge.mode = ChallengeMode::Off;
        Self {
            engine: Engine::with_seed(&config, SEED).unwrap(),
            protocol,
            sessions,
            order: Order::new(sessions),
            round: 0,
            position: 0,
            now: Instant::now(),
            frames: Vec::with_capacity(SLICE),
        }
    }

    /// Returns a table full of established sessions.
    fn established(sessions: u32) -> Self {
        let mut table = Self::new(sessions, Protocol::Tcp);
        table.fill();
        for _ in 0..(u64::from(sessions) * u64::from(WARM_UP)).div_ceil(SLICE as u64) {
            table.time_packets(SLICE);
        }
        table
    }

    fn fill(&self) {
        for position in 0..self.sessions {
            let session = Session(self.order.at(u32::MAX, position));
            for step in 0..self.protocol.handshake_len() {
                let frame = session.handshake_packet(self.protocol, step);
                let verdict = self
                    .engine
                    .verdict_only(Packet::new(frame.bytes(), self.now));
                assert!(verdict.is_forward(), "{verdict:?}");
            }
        }
        assert_eq!(self.engine.sessions(), self.sessions as usize);
    }

    /// Advances time until no session is left.
    fn drain(&mut self) {
        self.now += LATER;
        while self.engine.expire_with(self.now, SLICE, &mut Discard).more {}
        assert_eq!(self.engine.sessions(), 0);
    }

    fn next(&mut self) -> (u32, Session) {
        let next = (
            self.round,
            Session(self.order.at(self.round, self.position)),
        );
        self.position += 1;
        if self.position == self.sessions {
            self.position = 0;
            self.round += 1;
        }
        next
    }

    /// Builds up to a slice of packets of established sessions, and times them.
    fn time_packets(&mut self, count: usize) -> Duration {
        self.make(count);
        self.time_frames(Verdict::is_forward)
    }

    fn make(&mut self, count: usize) {
        self.frames.clear();
        for _ in 0..count {
            let (round, session) = self.next();
            self.frames.push(session.packet(self.protocol, round));
        }
    }

    /// Times up to a slice of packets as an application decides them: into an outbox that is
    /// drained after each batch.
    fn time_outbox(&mut self, count: usize) -> Duration {
        self.make(count);
        let (mut outbox, mut right, mut entries) = (Outbox::new(), 0, 0);
        let start = Instant::now();
        for frames in self.frames.chunks(BATCH) {
            for frame in frames {
                let packet = Packet::new(frame.bytes(), self.now);
                right += usize::from(self.engine.process(&packet, &mut outbox).is_forward());
            }
            entries += outbox.drain().count();
        }
        let took = start.elapsed();
        assert_eq!((right, entries), (self.frames.len(), 0));
        took
    }

    /// Times up to a slice of packets in batches of a receive call.
    fn time_batches(&mut self, count: usize) -> Duration {
        self.make(count);
        let mut verdicts = Vec::with_capacity(BATCH);
        let mut packets = Vec::with_capacity(BATCH);
        let mut right = 0;
        let start = Instant::now();
        for frames in self.frames.chunks(BATCH) {
            packets.clear();
            packets.extend(
                frames
                    .iter()
                    .map(|frame| Packet::new(frame.bytes(), self.now)),
            );
            self.engine.verdicts_only(&packets, &mut verdicts);
            right += verdicts
                .iter()
                .filter(|verdict| verdict.is_forward())
                .count();
        }
        let took = start.elapsed();
        assert_eq!(right, self.frames.len());
        took
    }

    /// Times the frames in the scratch buffer. Each verdict must be as expected.
    fn time_frames(&self, expected: impl Fn(&Verdict) -> bool) -> Duration {
        let mut right = 0;
        let start = Instant::now();
        for frame in &self.frames {
            let verdict = self
                .engine
                .verdict_only(Packet::new(frame.bytes(), self.now));
            right += usize::from(expected(&verdict));
        }
        let took = start.elapsed();
        assert_eq!(right, self.frames.len());
        took
    }
}

/// Times `count` items, a slice at a time.
fn slices(count: u64, mut slice: impl FnMut(usize) -> Duration) -> Duration {
    let mut left = count;
    let mut took = Duration::ZERO;
    while left > 0 {
        let now = left.min(SLICE as u64);
        took += slice(now as usize);
        left -= now;
    }
    took
}

/// Returns an accessor of a table that is built on first use.
fn lazily(
    make: impl Fn() -> Table,
) -> impl FnMut(&mut dyn FnMut(&mut Table) -> Duration) -> Duration {
    let table: RefCell<Option<Table>> = RefCell::new(None);
    move |then| then(table.borrow_mut().get_or_insert_with(&make))
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    let tcp4 = Session(7).packet(Protocol::Tcp, 2);
    let udp4 = Session(7).packet(Protocol::Udp, 2);
    let tcp6 = Session(7).packet(Protocol::Tcp6, 2);
    let udp6 = Session(7).packet(Protocol::Udp6, 2);
    let full = |len: usize| {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(443, 40_000, 1_000, 65_535)
            .ack(2_000)
            .write(&mut packet, &vec![0x5a; len - 40])
            .unwrap();
        packet
    };
    let (tcp4_1500, tcp4_8500) = (full(1_500), full(8_500));
    let packets = [
        ("tcp_ipv4_timestamps", tcp4.bytes()),
        ("tcp_ipv4_1500", &tcp4_1500),
        ("tcp_ipv4_8500", &tcp4_8500),
        ("tcp_ipv6_timestamps", tcp6.bytes()),
        ("udp_ipv4", udp4.bytes()),
        ("udp_ipv6", udp6.bytes()),
    ];
    for checksums in [Checksums::Trust, Checksums::Verify] {
        for (name, bytes) in packets {
            group.bench_with_input(
                BenchmarkId::new(name, checksums.name()),
                bytes,
                |b, bytes| {
                    b.iter(|| packet::parse(black_box(bytes), checksums).unwrap());
                },
            );
        }
    }
    group.finish();
}

/// Packets of established TCP connections in random order, one by one and in batches.
fn established(c: &mut Criterion) {
    for (name, sessions) in [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000)] {
        let mut with_table = lazily(|| Table::established(sessions));
        let mut group = c.benchmark_group(format!("established_tcp/{name}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("process", |b| {
            b.iter_custom(|count| {
                with_table(&mut |table| slices(count, |slice| table.time_packets(slice)))
            });
        });
        group.bench_function("process_outbox", |b| {
            b.iter_custom(|count| {
                with_table(&mut |table| slices(count, |slice| table.time_outbox(slice)))
            });
        });
        group.bench_function("process_batch", |b| {
            b.iter_custom(|count| {
                with_table(&mut |table| slices(count, |slice| table.time_batches(slice)))
            });
        });
        group.finish();
    }
}

/// Packets that have no session and open none.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    let mut with_table = lazily(|| Table::established(100_000));
    group.bench_function("miss/tcp_ack_100k", |b| {
        b.iter_custom(|count| {
            with_table(&mut |table| {
                slices(count, |slice| {
                    table.frames.clear();
                    for _ in 0..slice {
                        let (round, Session(number)) = table.next();
                        let stranger = Session(MAX_SESSIONS / 2 + number);
                        table.frames.push(stranger.packet(Protocol::Tcp, round));
                    }
                    table.time_frames(|verdict| {
                        verdict.reason() == Some(portcullis::DropReason::TcpNoSession)
                    })
                })
            })
        });
    });
    let engine = Engine::with_seed(&Config::allow_all(), SEED).unwrap();
    let now = Instant::now();
    let whole = Session(7).packet(Protocol::Udp, 0);
    let mut fragment = whole.bytes().to_vec();
    // Flags and offset of the IPv4 header: the last fragment, at byte 8.
    for (byte, value) in fragment.iter_mut().skip(6).zip([0, 1]) {
        *byte = value;
    }
    group.bench_function("untracked/fragment", |b| {
        b.iter(|| engine.verdict_only(Packet::new(black_box(&fragment), now)));
    });
    group.finish();
}

/// Packets that open sessions. The table starts empty, and is emptied outside the timed part when
/// it is full.
fn new_session(c: &mut Criterion) {
    const SESSIONS: u32 = 100_000;
    let mut group = c.benchmark_group("new_session/100k");
    group.throughput(Throughput::Elements(1));
    for (name, protocol) in [("tcp_syn", Protocol::Tcp), ("udp", Protocol::Udp)] {
        // The table is filled once: slots that were never used cause page faults, which are a cost
        // of the system.
        let mut with_table = lazily(|| {
            let mut table = Table::new(SESSIONS, protocol);
            table.fill();
            table.drain();
            table
        });
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                with_table(&mut |table| {
                    slices(count, |slice| {
                        if table.engine.sessions() + slice > SESSIONS as usize {
                            table.drain();
                            (table.position, table.round) = (0, table.round + 1);
                        }
                        table.frames.clear();
                        for _ in 0..slice {
                            let (_, session) = table.next();
                            table.frames.push(session.opening(protocol));
                        }
                        table.time_frames(Verdict::is_forward)
                    })
                })
            });
        });
    }
    group.finish();
}

/// The end of expired sessions. The table is full at first, and refilled when it is empty.
fn expire(c: &mut Criterion) {
    let mut group = c.benchmark_group("expire");
    group.throughput(Throughput::Elements(1));
    let mut with_table = lazily(|| Table::new(100_000, Protocol::Tcp));
    group.bench_function("tcp_100k", |b| {
        b.iter_custom(|count| {
            with_table(&mut |table| {
                let mut left = count;
                let mut took = Duration::ZERO;
                while left > 0 {
                    if table.engine.sessions() == 0 {
                        table.fill();
                        table.now += LATER;
                    }
                    let budget = left.min(SLICE as u64) as usize;
                    let start = Instant::now();
                    let done = table.engine.expire_with(table.now, budget, &mut Discard);
                    took += start.elapsed();
                    left -= done.ended as u64;
                }
                took
            })
        });
    });
    group.finish();
}

/// Returns a policy of one shape, and sessions of which it allows three quarters.
fn large_policy(shape: &str, rules: u32) -> (Config, Vec<NewSession>) {
    let host = |number: u32| IpAddr::from((10 << 24 | number).to_be_bytes());
    let net = |number: u32, length: u8| {
        AddressTerm::Prefix(format!("{}/{length}", host(number)).parse().unwrap())
    };
    let mut config = Config::allow_all();
    config.policy.default = Action::Deny;
    config.policy.rules = (0..rules)
        .map(|number| {
            let mut rule = RuleConfig::new(format!("r{number}"), Action::Allow);
            rule.protocol = vec![policy::Protocol::TCP];
            rule.destination_ports = vec![PortRange::single(443)];
            match shape {
                "distinct" => rule.destination = vec![net(number << 8, 24)],
                "alternating" => {
                    rule.source = vec![net(0, 8)];
                    rule.destination = vec![net(number, 32)];
                    if number % 2 == 1 {
                        std::mem::swap(&mut rule.source, &mut rule.destination);
                    }
                }
                _ => {
                    let sources = (0..100).map(|place| net((number * 100 + place) * 2, 32));
                    rule.source = sources.collect();
                }
            }
            rule
        })
        .collect();
    let other = host(0x00ff_ffff);
    let sessions = (0..4_096_u32).map(|session| {
        let number = session.wrapping_mul(2_654_435_761) % rules;
        let (src, dst) = match shape {
            "distinct" => (other, host(number << 8 | 7)),
            "alternating" if number.is_multiple_of(2) => (other, host(number)),
            "alternating" => (host(number), other),
            _ => (host((number * 100 + session % 100) * 2), other),
        };
        NewSession {
            zone: portcullis::Zone::DEFAULT,
            src,
            dst,
            protocol: 6,
            src_port: Some(40_000),
            dst_port: Some(if session % 4 == 0 { 80 } else { 443 }),
            icmp: None,
        }
    });
    (config, sessions.collect())
}

/// Policy lookup of a new session, by the policy's shape and size: those of `.ci/policies`.
fn policies(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    group.throughput(Throughput::Elements(1));
    for shape in ["distinct", "alternating", "hundred"] {
        for rules in [10, 10_000, 65_000] {
            let made: LazyCell<(CompiledPolicy, Vec<NewSession>), _> = LazyCell::new(|| {
                let (config, sessions) = large_policy(shape, rules);
                (config.compile().unwrap().policy, sessions)
            });
            group.bench_function(BenchmarkId::new(shape, rules), |b| {
                let (policy, sessions) = &*made;
                let mut sessions = sessions.iter().cycle();
                b.iter(|| policy.look_up(black_box(sessions.next().unwrap())));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    targets = parse, established, lookup, new_session, policies, expire
}
criterion_main!(benches);
