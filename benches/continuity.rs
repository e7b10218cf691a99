//! The cost of continuity in the engine, without a store and without a kernel.
//!
//! `cargo bench --bench continuity` measures everything in about two minutes; names of parts after
//! `--` measure those alone. `cargo test --bench continuity` runs everything once, with few
//! sessions, and checks what the measured engines answer.
//!
//! | part | question |
//! |---|---|
//! | hooks | what does a packet cost more with `continuity.enabled`, while nobody sweeps or asks? |
//! | flood | what do established sessions pay while 200,000 stray ACKs a second ask the store? |
//! | records | what do a sweep, a record and its way back cost for each session? |
//!
//! Engines that are compared take turns, each of them first in every other one, so that other load
//! on the machine affects both. Printed are medians over the turns.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that stops at the first surprise"
)]

#[expect(dead_code, reason = "other benchmarks need more protocols")]
mod traffic;

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use portcullis::config::ChallengeMode;
use portcullis::continuity::{Resumed, StoreWhen, StoredSession, SweepCursor, SweepTime};
use portcullis::{
    Answer, Config, Engine, Event, HeldPackets, HoldId, Outbox, Packet, Question, QuestionKind,
    Verdict,
};

use traffic::{Frame, MAX_SESSIONS, Order, Protocol, Session};

/// Number of packets of one call.
const BATCH: usize = 64;

/// A fixed hash seed, so that compared engines fill the same shards.
const SEED: [u64; 4] = [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210];

/// Rate of the flood, and of the packets of established sessions beside it, a second.
const RATE: u32 = 200_000;

/// Extent of a run.
#[derive(Debug, Clone, Copy)]
struct Extent {
    turns: usize,
    /// Turns without a flood, of so many packets: short ones, most of which nothing interrupts.
    short_turns: usize,
    packets: usize,
    /// Simulated seconds of a turn of the flood.
    flood_seconds: f64,
    small: u32,
    large: u32,
    largest: u32,
}

impl Extent {
    const FULL: Self = Self {
        turns: 20,
        short_turns: 600,
        packets: 19_200,
        flood_seconds: 2.0,
        small: 1_000,
        large: 100_000,
        largest: 1_000_000,
    };
    const TEST: Self = Self {
        turns: 2,
        short_turns: 2,
        packets: 6_400,
        flood_seconds: 0.2,
        small: 100,
        large: 1_000,
        largest: 2_000,
    };
}

/// An engine with established sessions, and the progress of their conversations.
struct Table {
    engine: Engine,
    held: HeldPackets<Frame>,
    config: Config,
    sessions: u32,
    order: Order,
    round: u32,
    position: u32,
    strays: u32,
    now: Instant,
    at: SystemTime,
}

impl Table {
    fn new(sessions: u32, continuity: bool) -> Self {
        let mut config = Config::allow_all();
        config.table.max_sessions = sessions;
        config.continuity.enabled = continuity;
        // The load opens sessions as fast as possible, which the engine treats as a flood.
        config.syn_challenge.mode = ChallengeMode::Off;
        Self {
            engine: Engine::with_seed(&config, SEED).unwrap(),
            held: HeldPackets::with_config(&config),
            config,
            sessions,
            order: Order::new(sessions),
            round: 0,
            position: 0,
            strays: 0,
            now: Instant::now(),
            at: SystemTime::now(),
        }
    }

    /// Returns a table full of established sessions, whose packets are no longer the first of their
    /// kind.
    fn established(sessions: u32, continuity: bool) -> Self {
        const WARM_UP: usize = 4;
        let mut table = Self::new(sessions, continuity);
        for number in 0..sessions {
            for step in 0..Protocol::Tcp.handshake_len() {
                let frame = Session(number).handshake_packet(Protocol::Tcp, step);
                let packet = Packet::new(frame.bytes(), table.now);
                assert!(table.engine.verdict_only(packet).is_forward());
            }
        }
        assert_eq!(table.engine.sessions(), sessions as usize);
        table.time_packets(WARM_UP * sessions as usize);
        table
    }

    fn time(&self) -> SweepTime {
        SweepTime {
            now: self.now,
            at: self.at,
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.at += time;
    }

    fn next_frame(&mut self) -> Frame {
        let session = Session(self.order.at(self.round, self.position));
        let frame = session.packet(Protocol::Tcp, self.round);
        self.position += 1;
        if self.position == self.sessions {
            self.position = 0;
            self.round += 1;
        }
        frame
    }

    /// Times packets of established sessions in batches, of which frames are made before.
    fn time_packets(&mut self, count: usize) -> Duration {
        const SLICE: usize = 1024;
        let (mut took, mut left) = (Duration::ZERO, count);
        while left > 0 {
            let frames: Vec<Frame> = (0..left.min(SLICE)).map(|_| self.next_frame()).collect();
            took += frames
                .chunks(BATCH)
                .map(|some| self.decide(some))
                .sum::<Duration>();
            left -= frames.len();
        }
        took
    }

    /// Times one batch of packets, all of which pass.
    fn decide(&self, frames: &[Frame]) -> Duration {
        let mut packets = Vec::with_capacity(BATCH);
        let mut verdicts = Vec::with_capacity(BATCH);
        let start = Instant::now();
        packets.extend(
            frames
                .iter()
                .map(|frame| Packet::new(frame.bytes(), self.now).can_hold(true)),
        );
        self.engine.verdicts_only(&packets, &mut verdicts);
        let took = start.elapsed();
        assert!(verdicts.iter().all(Verdict::is_forward));
        took
    }

    /// Times one batch of stray ACKs: of flows that nobody has, each of another source. Returns the
    /// questions that they asked.
    fn stray(&mut self, outbox: &mut Outbox) -> (Duration, Vec<Question>) {
        let frames: Vec<Frame> = (0..BATCH)
            .map(|_| {
                self.strays = (self.strays + 1) % (MAX_SESSIONS / 2);
                Session(MAX_SESSIONS / 2 + self.strays).packet(Protocol::Tcp, 2)
            })
            .collect();
        let mut questions = Vec::with_capacity(BATCH);
        let start = Instant::now();
        for frame in &frames {
            let packet = Packet::new(frame.bytes(), self.now).can_hold(true);
            match self.engine.process(&packet, outbox) {
                Verdict::Hold(id, _) => {
                    assert!(self.held.put(&self.engine, id, *frame, self.now).is_none());
                }
                verdict => assert!(!verdict.is_forward(), "{verdict:?}"),
            }
            questions.extend(outbox.drain().filter_map(|event| match event {
                Event::Question(question) => Some(question),
                _ => None,
            }));
        }
        (start.elapsed(), questions)
    }

    /// Times the answers to questions, that the store has nothing, and the packets that waited.
    fn answer(&self, questions: &[Question], outbox: &mut Outbox) -> Duration {
        let start = Instant::now();
        for question in questions {
            self.engine
                .answer(question.id, &Answer::Nothing, self.now, self.at, outbox);
            let released: Vec<HoldId> = outbox
                .drain()
                .filter_map(|event| match event {
                    Event::Released(id) => Some(id),
                    _ => None,
                })
                .collect();
            for frame in released.into_iter().flat_map(|id| self.held.take(id)) {
                let verdict = self
                    .engine
                    .process(&Packet::new(frame.bytes(), self.now), outbox);
                assert!(!verdict.is_forward(), "{verdict:?}");
            }
        }
        start.elapsed()
    }

    fn asked(&self) -> u64 {
        self.engine
            .stats()
            .questions
            .asked_for(QuestionKind::Session)
    }

    /// Times a round of the sweep. Records are encoded into `out` if there is one. Returns the time
    /// and the sessions that were due.
    fn sweep(&self, when: &StoreWhen, mut out: Option<&mut Vec<Vec<u8>>>) -> (Duration, usize) {
        let (mut cursor, mut due) = (SweepCursor::default(), 0);
        let mut bytes = Vec::with_capacity(512);
        let start = Instant::now();
        loop {
            let swept = self
                .engine
                .sweep(&mut cursor, self.time(), when, |_, session| {
                    bytes.clear();
                    if let Some(out) = &mut out {
                        session.encode(&mut bytes);
                        out.push(bytes.clone());
                    }
                });
            due += swept.due;
            if swept.round_ended {
                return (start.elapsed(), due);
            }
        }
    }
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

/// Returns the value below which this part of the values is.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (part * values.len() as f64) as usize;
    *values.get(place).or(values.last()).unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// Runs `one` and `other` in turn, each first in every other turn.
fn turns(count: usize, mut one: impl FnMut(), mut other: impl FnMut()) {
    for turn in 0..count {
        if turn % 2 == 0 {
            one();
            other();
        } else {
            other();
            one();
        }
    }
}

/// Measures packets of established sessions with continuity and without, while nobody sweeps.
fn hooks(extent: Extent) {
    for sessions in [extent.small, extent.large] {
        let mut off = Table::established(sessions, false);
        let mut on = Table::established(sessions, true);
        // Each session of the second one has a record.
        let when = StoreWhen {
            min_age: Duration::ZERO,
            ..StoreWhen::default()
        };
        assert_eq!(on.sweep(&when, None).1, sessions as usize);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        turns(
            extent.short_turns,
            || {
                without.push(nanoseconds(
                    off.time_packets(extent.packets),
                    extent.packets,
                ))
            },
            || with.push(nanoseconds(on.time_packets(extent.packets), extent.packets)),
        );
        let mut more: Vec<f64> = with
            .iter()
            .zip(&without)
            .map(|(on, off)| on - off)
            .collect();
        println!(
            "hooks: {sessions} established sessions, batches of {BATCH}: {:.1} ns a packet without \
             continuity, {:.1} ns with; difference of a turn: median {:+.2} ns, quartiles {:+.2} \
             and {:+.2} ns",
            median(&mut without),
            median(&mut with),
            median(&mut more),
            quantile(&mut more, 0.25),
            quantile(&mut more, 0.75),
        );
    }
}

/// Times of one case of the flood, each for a packet of a batch.
#[derive(Debug, Default)]
struct FloodTimes {
    established: Vec<f64>,
    strays: Vec<f64>,
    answers: Duration,
    medians: Vec<f64>,
    p99s: Vec<f64>,
}

impl FloodTimes {
    fn end_turn(&mut self) {
        let mut of_turn = std::mem::take(&mut self.established);
        self.medians.push(median(&mut of_turn));
        self.p99s.push(quantile(&mut of_turn, 0.99));
    }
}

/// Simulates seconds in which batches of established sessions and of strays arrive in turn. A
/// question is answered one batch later, after 320 us.
fn flood_turn(table: &mut Table, seconds: f64, strays: bool, times: &mut FloodTimes) {
    let batches = (seconds * f64::from(RATE)) as usize / BATCH;
    let step = Duration::from_secs_f64(BATCH as f64 / f64::from(RATE));
    let (mut outbox, mut open) = (Outbox::new(), Vec::new());
    for _ in 0..batches {
        let frames: Vec<Frame> = (0..BATCH).map(|_| table.next_frame()).collect();
        times
            .established
            .push(nanoseconds(table.decide(&frames), BATCH));
        times.answers += table.answer(&open, &mut outbox);
        open.clear();
        if strays {
            let (took, questions) = table.stray(&mut outbox);
            times.strays.push(nanoseconds(took, BATCH));
            open = questions;
        }
        table.advance(step);
    }
    table.answer(&open, &mut outbox);
    times.end_turn();
}

/// Measures established sessions beside a flood of stray ACKs, with continuity and without.
fn flood(extent: Extent) {
    let mut off = Table::established(extent.large, false);
    let mut on = Table::established(extent.large, true);
    let (mut alone, mut without, mut with) = <(FloodTimes, FloodTimes, FloodTimes)>::default();
    let begin = on.now;
    for turn in 0..extent.turns {
        let mut off_turn = |off: &mut Table| {
            flood_turn(off, extent.flood_seconds, true, &mut without);
            flood_turn(off, extent.flood_seconds, false, &mut alone);
        };
        if turn % 2 == 0 {
            off_turn(&mut off);
        }
        flood_turn(&mut on, extent.flood_seconds, true, &mut with);
        if turn % 2 == 1 {
            off_turn(&mut off);
        }
    }
    let seconds = on.now.duration_since(begin).as_secs_f64();
    let asked = on.asked();
    let budget = f64::from(on.config.continuity.questions);
    println!(
        "flood: {} established sessions, {RATE} packets a second of theirs and {RATE} stray ACKs a \
         second, {seconds:.1} simulated seconds",
        extent.large
    );
    for (name, mut times) in [
        ("no flood, no continuity", alone),
        ("flood, no continuity", without),
        ("flood, continuity", with),
    ] {
        let mut line = format!(
            "flood: {name}: {:.1} ns a packet of an established session, p99 of batches {:.1} ns",
            median(&mut times.medians),
            median(&mut times.p99s),
        );
        if !times.strays.is_empty() {
            let _ = write!(line, "; {:.1} ns a stray ACK", median(&mut times.strays));
        }
        println!("{line}");
        if times.answers > Duration::ZERO && name == "flood, continuity" {
            let each = nanoseconds(times.answers, asked as usize);
            println!("flood: {each:.0} ns an answer, with the decision on the held packet");
        }
    }
    let most = budget * (seconds + 1.0);
    println!("flood: {asked} questions in {seconds:.1} s, of {most:.0} that the budget allows");
    // As many at once, before.
    assert!(asked > 0 && asked as f64 <= most, "{asked} questions");
    let stats = on.engine.stats().questions;
    assert_eq!((stats.open, stats.held, stats.timed_out), (0, 0, 0));
    assert_eq!(on.engine.sessions(), extent.large as usize);
}

/// Measures rounds of the sweep, records, and their way back into an engine.
fn records(extent: Extent) {
    for sessions in [extent.large, extent.largest] {
        let mut table = Table::established(sessions, true);
        let count = sessions as usize;
        let sweeps = |table: &Table, when: &StoreWhen, expected: usize| {
            let mut rounds: Vec<f64> = (0..5)
                .map(|_| {
                    let (took, due) = table.sweep(when, None);
                    assert_eq!(due, expected);
                    nanoseconds(took, count)
                })
                .collect();
            median(&mut rounds)
        };
        let too_young = StoreWhen {
            min_age: Duration::from_secs(3_600),
            ..StoreWhen::default()
        };
        let young = sweeps(&table, &too_young, 0);
        table.advance(Duration::from_secs(5));
        let mut values = Vec::with_capacity(count);
        let (first, due) = table.sweep(&StoreWhen::default(), Some(&mut values));
        assert_eq!((due, values.len()), (count, count));
        let idle = sweeps(&table, &StoreWhen::default(), 0);
        let everything = StoreWhen {
            everything: true,
            ..StoreWhen::default()
        };
        let all = sweeps(&table, &everything, count);
        let bytes: usize = values.iter().map(Vec::len).sum();
        println!(
            "records: {sessions} sessions: a sweep takes {young:.1} ns a session that is too \
             young, {idle:.1} ns one whose record is new enough, {all:.1} ns one that is due, \
             {:.1} ns one that is due with its record of {:.0} bytes",
            nanoseconds(first, count),
            bytes as f64 / count as f64,
        );
        if sessions == extent.large {
            resume(&table, &values);
        }
    }
}

/// Measures the way of records into an engine that has no session.
fn resume(table: &Table, values: &[Vec<u8>]) {
    let start = Instant::now();
    let stored: Vec<StoredSession> = values
        .iter()
        .map(|bytes| StoredSession::decode(bytes).unwrap())
        .collect();
    let decoding = start.elapsed();
    let other = Engine::with_seed(&table.config, SEED).unwrap();
    let start = Instant::now();
    for session in &stored {
        let resumed = other.resume(session, table.now, table.at).unwrap();
        assert!(matches!(resumed, Resumed::Resumed(_)), "{resumed:?}");
    }
    println!(
        "records: {} sessions: decoding takes {:.0} ns a record, resuming {:.0} ns",
        values.len(),
        nanoseconds(decoding, values.len()),
        nanoseconds(start.elapsed(), values.len()),
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, names): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|each| each.starts_with('-'));
    // Cargo names its own purpose: `--bench`, or nothing for a test.
    let extent = match options.iter().any(|option| *option == "--bench") {
        true => Extent::FULL,
        false => Extent::TEST,
    };
    let wants = |name| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    if wants("hooks") {
        hooks(extent);
    }
    if wants("flood") {
        flood(extent);
    }
    if wants("records") {
        records(extent);
    }
}
