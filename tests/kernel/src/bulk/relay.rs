//! The path between the two stacks: the engine, with loss, delay, reordering and duplicates on
//! either side.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use portcullis::config::ChallengeMode;
use portcullis::packet::{Checksums, TcpFlags, Transport, parse};
use portcullis::{Config, Discard, Engine, Packet};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::namespace::{Tun, wait};

/// Bytes per second that the path carries in each direction; faster traffic waits.
const RATE: f64 = 12_500_000.0;

/// Size of a burst in bytes.
const BURST: f64 = 64_000.0;

/// Length of the queue of each direction; further packets are lost, as in any router.
const QUEUE: usize = 500;

/// Packet in flight: its time of arrival, a serial number that orders equal times, its next station
/// and its bytes.
type Flying = Reverse<(Instant, u64, Hop, Vec<u8>)>;

/// The next station of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hop {
    /// The engine, and then the device of this number.
    Engine(usize),
    /// The device of this number.
    Device(usize),
}

/// Counts of the packets and segments on the path.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets from the stacks.
    pub received: u64,
    /// Packets that the engine has forwarded.
    pub forwarded: u64,
    /// Packets that the path lost on purpose, before and after the engine.
    pub lost: u64,
    /// Packets that were sent twice.
    pub duplicated: u64,
    /// Packets that were delayed until later ones overtook them.
    pub reordered: u64,
    /// Packets lost because the queue was full.
    pub overflowed: u64,
    /// Segments with a closed window.
    pub zero_windows: u64,
    /// Segments with SACK blocks.
    pub sacks: u64,
    /// SYNs with a window scale.
    pub scaled: u64,
    /// FINs.
    pub fins: u64,
    /// Segments over IPv6.
    pub v6: u64,
}

/// A token bucket of bytes, filled at [`RATE`].
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Takes the tokens of a number of bytes, and returns the delay until these may be sent.
    fn admit(&mut self, now: Instant, bytes: usize) -> Duration {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * RATE).min(BURST) - bytes as f64;
        self.filled = now;
        Duration::from_secs_f64((-self.tokens / RATE).max(0.0))
    }
}

/// The relay between two devices.
pub struct Relay {
    devices: [Tun; 2],
    buckets: [Bucket; 2],
    waiting: [usize; 2],
    engine: Engine,
    flying: BinaryHeap<Flying>,
    dice: ChaCha8Rng,
    serial: u64,
    buffer: Vec<u8>,
    /// Counts of the packets and segments on the path.
    pub counters: Counters,
}

impl Relay {
    /// Returns a relay with an engine of the default configuration that verifies checksums.
    ///
    /// # Errors
    /// Returns an error if the engine rejects its configuration.
    pub fn new(devices: [Tun; 2], seed: u64) -> Result<Self> {
        let mut config = Config::allow_all();
        config.engine.checksums = Checksums::Verify;
        config.table.max_sessions = 1 << 14;
        // The relay sends no packets of its own.
        config.syn_challenge.mode = ChallengeMode::Off;
        let bucket = || Bucket {
            tokens: BURST,
            filled: Instant::now(),
        };
        Ok(Self {
            devices,
            buckets: [bucket(), bucket()],
            waiting: [0, 0],
            engine: Engine::new(&config)?,
            flying: BinaryHeap::new(),
            dice: ChaCha8Rng::seed_from_u64(seed),
            serial: 0,
            buffer: vec![0; 70_000],
            counters: Counters::default(),
        })
    }

    /// Moves all due packets, and waits briefly for more.
    ///
    /// # Errors
    /// Returns an error if the engine drops a packet, with the explanation, or if a device fails.
    pub fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        for from in 0..2 {
            for _ in 0..64 {
                if !self.take(from, now)? {
                    break;
                }
            }
        }
        while let Some(Reverse((at, ..))) = self.flying.peek()
            && *at <= Instant::now()
        {
            if let Some(Reverse((_, _, hop, packet))) = self.flying.pop() {
                self.arrive(hop, packet)?;
            }
        }
        let _ = self.engine.expire_with(Instant::now(), 64, &mut Discard);
        let next = self.flying.peek().map_or(5000, |Reverse((at, ..))| {
            at.saturating_duration_since(Instant::now()).as_micros() as u64
        });
        let [left, right] = &self.devices;
        wait([left, right], next.min(5000))
    }

    /// Reads one packet from a device; returns `false` if there is none.
    fn take(&mut self, from: usize, now: Instant) -> Result<bool> {
        let Some(device) = self.devices.get(from) else {
            return Ok(false);
        };
        let Some(packet) = device.receive(&mut self.buffer)? else {
            return Ok(false);
        };
        let packet = packet.to_vec();
        self.counters.received += 1;
        let to = 1 - from;
        let full = self.waiting.get(to).is_none_or(|waiting| *waiting >= QUEUE);
        if full {
            self.counters.overflowed += 1;
            return Ok(true);
        }
        let paced = self
            .buckets
            .get_mut(to)
            .map_or(Duration::ZERO, |bucket| bucket.admit(now, packet.len()));
        self.fly(now + paced, Hop::Engine(to), packet);
        Ok(true)
    }

    /// Sends a packet over one half of the path, which may lose, delay or duplicate the packet.
    fn fly(&mut self, now: Instant, hop: Hop, packet: Vec<u8>) {
        // The loss varies from 0 to 2 % over both halves.
        let loss = f64::from((self.serial / 4000 % 5) as u32) * 0.0025;
        if self.dice.random_bool(loss) {
            self.counters.lost += 1;
            return;
        }
        let mut delay = Duration::from_micros(self.dice.random_range(500..700));
        if self.dice.random_bool(0.01) {
            self.counters.reordered += 1;
            delay += Duration::from_micros(self.dice.random_range(500..8000));
        }
        if self.dice.random_bool(0.005) {
            self.counters.duplicated += 1;
            let later = delay + Duration::from_micros(self.dice.random_range(0..6000));
            self.push(now + later, hop, packet.clone());
        }
        self.push(now + delay, hop, packet);
    }

    fn push(&mut self, at: Instant, hop: Hop, packet: Vec<u8>) {
        self.serial += 1;
        if let Hop::Engine(to) = hop
            && let Some(waiting) = self.waiting.get_mut(to)
        {
            *waiting += 1;
        }
        self.flying.push(Reverse((at, self.serial, hop, packet)));
    }

    fn arrive(&mut self, hop: Hop, packet: Vec<u8>) -> Result<()> {
        let now = Instant::now();
        match hop {
            Hop::Engine(to) => {
                if let Some(waiting) = self.waiting.get_mut(to) {
                    *waiting = waiting.saturating_sub(1);
                }
                self.decide(&packet, now)?;
                self.fly(now, Hop::Device(to), packet);
            }
            Hop::Device(to) => {
                if let Some(device) = self.devices.get(to) {
                    device.send(&packet)?;
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, packet: &[u8], now: Instant) -> Result<()> {
        if self
            .engine
            .verdict_only(Packet::new(packet, now))
            .is_forward()
        {
            self.counters.forwarded += 1;
            self.count(packet);
            return Ok(());
        }
        // An invalid packet has changed nothing, so it is decided the same way again.
        let (verdict, steps) = self.engine.explain(Packet::new(packet, now), &mut Discard);
        let steps: Vec<_> = steps.iter().map(|step| format!("  {step}\n")).collect();
        bail!(
            "a packet of a healthy connection was dropped: {verdict:?}\n{}{packet:02x?}",
            steps.concat()
        );
    }

    fn count(&mut self, packet: &[u8]) {
        let Ok(parsed) = parse(packet, Checksums::Trust) else {
            return;
        };
        let Transport::Tcp { segment, .. } = parsed.transport else {
            return;
        };
        let has = |flag| segment.flags.contains(flag);
        let counters = &mut self.counters;
        counters.v6 += u64::from(parsed.ip.source().is_ipv6());
        counters.zero_windows += u64::from(segment.window == 0 && !has(TcpFlags::RST));
        counters.sacks += u64::from(!segment.options.sack.is_empty());
        counters.scaled += u64::from(has(TcpFlags::SYN) && segment.options.window_scale.is_some());
        counters.fins += u64::from(has(TcpFlags::FIN));
    }

    /// Checks that all kinds of segments and faults have occurred, since a run without them proves
    /// little.
    ///
    /// # Errors
    /// Returns the first kind that has not occurred.
    pub fn check_material(&self) -> Result<()> {
        let c = &self.counters;
        for (what, count) in [
            ("zero windows", c.zero_windows),
            ("SACK blocks", c.sacks),
            ("window scales", c.scaled),
            ("FINs", c.fins),
            ("IPv6 segments", c.v6),
            ("lost packets", c.lost),
            ("duplicates", c.duplicated),
            ("reordered packets", c.reordered),
        ] {
            ensure!(count > 0, "no {what} in the whole run");
        }
        Ok(())
    }
}
