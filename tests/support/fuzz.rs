//! The bodies of the fuzz targets: each takes the fuzzer's bytes and panics if an invariant is
//! violated.
//!
//! The bodies depend only on the library and `arbitrary`. So `fuzz/` builds them too, and
//! `tests/it/fuzz_replay.rs` runs them on every stored input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use portcullis::config::{
    ChallengeMode, Checksums, Config, ConfigError, EngineConfig, IpConfig, OptionsMode, Permission,
    TableConfig,
};
use portcullis::continuity::StoredSession;
use portcullis::event::write_reply_unbudgeted;
use portcullis::ftp::expectations::{Call, ExpectationLimits, ExpectationTable};
use portcullis::ftp::helper::{ActiveOpening, Ftp, Rules, Settings};
use portcullis::ftp::{
    Control, Expectation, Helper, HelperEvent, HelperSink, Limits, Line, Plain, Segment,
    SessionEnds, Trouble,
};
use portcullis::packet::{SeqNum, parse};
use portcullis::{
    Class, Direction, Engine, Malformed, Packet, Reply, SessionRecord, Sink, Verdict, Zone,
};

/// Bytes before each packet of [`process`]: length (big-endian, 11 bits) under [`ZONE`] and
/// [`REPLY`], and the time since the previous packet, in units of 64 ms.
pub(crate) const PROCESS_HEADER: usize = 3;
/// In the first byte: the packet is in zone 1.
pub(crate) const ZONE: u8 = 0x08;
/// In the first byte: the packet is the previous one with its ends swapped, and the bytes patch it.
pub(crate) const REPLY: u8 = 0x80;

/// Counts opened and ended sessions, and stores nothing else.
#[derive(Debug, Default)]
struct Count {
    opened: u64,
    ended: u64,
}

impl Sink for Count {
    fn session_opened(&mut self, _: &SessionRecord) {
        self.opened += 1;
    }

    fn session_ended(&mut self, _: &SessionRecord, _: portcullis::EndReason) {
        self.ended += 1;
    }
}

fn engine(checksums: Checksums, max_sessions: u32, shards: u32) -> Engine {
    engine_with(checksums, IpConfig::default(), max_sessions, shards)
}

fn engine_with(checksums: Checksums, ip: IpConfig, max_sessions: u32, shards: u32) -> Engine {
    let config = Config {
        ip,
        engine: EngineConfig {
            checksums,
            ..EngineConfig::default()
        },
        table: TableConfig {
            max_sessions,
            shards: Some(shards),
            ..TableConfig::default()
        },
        ..Config::allow_all()
    };
    Engine::with_seed(&config, [1, 2, 3, 4]).expect("the configuration is right")
}

fn records(engine: &Engine) -> Vec<SessionRecord> {
    let mut records = Vec::new();
    engine.for_each_session(|record| records.push(*record));
    records
}

/// Number of packets after which a target compares all counters with the table, which takes longer
/// than a hundred packets. A target also compares them at the end of each input.
const CHECK_EACH: u32 = 16;

/// Checks the invariants that hold after every step.
fn check(engine: &Engine, count: &Count) {
    engine
        .check_invariants()
        .expect("the table tells one story");
    let records = records(engine);
    let stats = engine.stats();
    let ended: u64 = stats.sessions_ended.iter().map(|(_, count)| count).sum();
    assert_eq!((count.opened, count.ended), (stats.sessions_opened, ended));
    assert_eq!(engine.sessions(), records.len());
    assert_eq!(count.opened - count.ended, records.len() as u64);
    assert!(records.len() <= stats.max_sessions);
    if let Some(first) = records.iter().map(|record| record.expires).min() {
        assert!(engine.next_expiry().is_some_and(|next| next <= first));
    }
}

/// Decides one packet. It is forwarded, or dropped for a reason; an invalid packet leaves the
/// sessions unchanged, and a challenge stores nothing.
fn decide(engine: &Engine, packet: Packet<'_>, count: &mut Count) -> Verdict {
    let before = records(engine);
    let ended = count.ended;
    let verdict = engine.process_with(packet, count);
    assert_eq!(verdict.is_forward(), verdict.reason().is_none());
    if verdict.tracked().class == Class::Invalid && count.ended == ended {
        assert_eq!(records(engine), before, "an invalid packet changes nothing");
    }
    if let Some(id) = verdict.tracked().session {
        if verdict.tracked().late.is_some() {
            // The session is only remembered.
            return verdict;
        }
        let gone = count.ended > ended;
        assert!(gone || records(engine).iter().any(|record| record.id == id));
    }
    if let Verdict::Reject(_, reply @ Reply::Challenge(_), tracked) = verdict {
        assert_eq!(
            (tracked.session, records(engine)),
            (None, before),
            "nothing is kept"
        );
        let mut out = [0; 60];
        let answer =
            write_reply_unbudgeted(reply, packet.bytes(), &mut out).expect("a bare SYN-ACK");
        assert!(
            answer.len() <= packet.bytes().len(),
            "no larger than the SYN"
        );
    }
    verdict
}

/// Runs raw bytes as packets, with time, zone and direction: once with checksums trusted and once
/// verified, and with both settings of the switches for the IP header.
pub(crate) fn process(mut data: &[u8]) {
    let others = IpConfig {
        source_routes: Permission::Allow,
        martians: Permission::Allow,
        options: OptionsMode::Strict,
        ..IpConfig::default()
    };
    let engines = [
        engine_with(Checksums::Trust, others, 4, 2),
        engine(Checksums::Verify, 4, 2),
    ];
    let mut counts = [Count::default(), Count::default()];
    let mut now = Instant::now();
    let mut last: Vec<u8> = Vec::new();
    let mut packets = 0_u32;
    while let Some((&[first, second, wait], rest)) = data.split_first_chunk::<PROCESS_HEADER>() {
        let len = usize::from(u16::from_be_bytes([first & 0x07, second])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        data = rest;
        now += Duration::from_millis(64 * u64::from(wait));
        let zone = Zone(u16::from(first & ZONE != 0));
        last = if first & REPLY == 0 {
            bytes.to_vec()
        } else {
            patched(swapped(last), bytes)
        };
        for (engine, count) in engines.iter().zip(&mut counts) {
            let packet = Packet::new(&last, now).zone(zone).can_hold(wait & 1 != 0);
            let _ = decide(engine, packet, count);
            let (_, steps) = engine.explain(packet, count);
            assert!(!steps.is_empty());
            let _ = engine.expire_with(now, 2, count);
            if packets.is_multiple_of(CHECK_EACH) {
                check(engine, count);
            }
        }
        packets += 1;
        for kind in [Reply::TcpReset, Reply::Prohibited] {
            let mut reply = [0; 2048];
            if let Some(reply) = write_reply_unbudgeted(kind, &last, &mut reply) {
                let parsed = parse(reply, Checksums::Verify);
                // The engine sends no rejection for a packet to a group: the reply would have a
                // group as its source.
                let to_group = parsed == Err(Malformed::SourceAddressNotUnicast);
                assert!(to_group || parsed.is_ok(), "{kind:?}: {parsed:?}");
            }
        }
    }
    for (engine, count) in engines.iter().zip(&counts) {
        check(engine, count);
    }
}

/// Returns a packet with its two addresses swapped, and its two ports if the transport header
/// follows directly.
fn swapped(mut packet: Vec<u8>) -> Vec<u8> {
    let (addresses, len) = match packet.first().map(|first| first >> 4) {
        Some(4) => (12, 4),
        Some(6) => (8, 16),
        _ => return packet,
    };
    let ports = addresses + 2 * len;
    for (at, len) in [(addresses, len), (ports, 2)] {
        if let Some(both) = packet.get_mut(at..at + 2 * len) {
            let (one, other) = both.split_at_mut(len);
            one.swap_with_slice(other);
        }
    }
    packet
}

/// Returns a packet with bytes replaced: pairs of position and value.
fn patched(mut packet: Vec<u8>, patches: &[u8]) -> Vec<u8> {
    for patch in patches.chunks_exact(2) {
        if let Some(byte) = packet.get_mut(usize::from(patch[0])) {
            *byte = patch[1];
        }
    }
    packet
}

/// One step of [`sequence`].
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    Udp {
        talk: u8,
        payload: u8,
    },
    Echo {
        talk: u8,
        request: bool,
    },
    Other {
        talk: u8,
        protocol: u8,
    },
    Tcp {
        talk: u8,
        flags: u8,
        seq: Number,
        ack: Number,
        window: u16,
        payload: u8,
        options: [u8; 12],
    },
    IcmpError {
        talk: u8,
        protocol: u8,
    },
    Advance {
        millis: u16,
        hours: u8,
    },
    Backwards {
        millis: u8,
    },
    Expire {
        budget: u8,
    },
    Reload {
        flags: u8,
        seconds: u8,
    },
}

/// A sequence number: close to that of its direction, or arbitrary.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Next(i8),
    Near(i16),
    Any(u32),
}

impl Number {
    fn from(&self, next: u32) -> u32 {
        match *self {
            Self::Next(by) => next.wrapping_add_signed(i32::from(by / 64)),
            Self::Near(by) => next.wrapping_add_signed(i32::from(by)),
            Self::Any(number) => number,
        }
    }
}

/// The bits of `talk`: 0 to 2 are the conversation, 3 its direction, 4 its IP version, 5 its zone.
struct Talk {
    number: usize,
    reply: bool,
    v6: bool,
    zone: Zone,
}

impl Talk {
    fn of(talk: u8) -> Self {
        Self {
            number: usize::from(talk & 7),
            reply: talk & 8 != 0,
            v6: talk & 16 != 0,
            zone: Zone(u16::from(talk >> 5 & 1)),
        }
    }

    /// Returns an IP packet of the conversation.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut ends = [10 + self.number as u8 / 2, 1];
        if self.reply {
            ends.reverse();
        }
        let [src, dst] = ends;
        let len = payload.len() as u16;
        let mut packet = Vec::new();
        if self.v6 {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([protocol, 64]);
            for host in [src, dst] {
                packet.extend([
                    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host,
                ]);
            }
        } else {
            packet.extend([0x45, 0]);
            packet.extend((20 + len).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
        }
        packet.extend(payload);
        packet
    }

    fn ports(&self) -> [u8; 4] {
        let [a, b] = (4000 + self.number as u16 % 2).to_be_bytes();
        if self.reply {
            [0, 80, a, b]
        } else {
            [a, b, 0, 80]
        }
    }
}

/// The settings that a reload changes: bits of the policy, and lifetimes.
#[derive(Debug, Clone, Copy)]
struct Reload {
    flags: u8,
    seconds: u8,
}

/// Reloads another policy and other lifetimes; a preview predicts the number of sessions that end.
fn reload(
    engine: &Engine,
    table: TableConfig,
    Reload { flags, seconds }: Reload,
    now: Instant,
    count: &mut Count,
) {
    use portcullis::config::LifetimeClass;
    use portcullis::config::{LatePacket, Midstream, OnReload, RuleConfig};
    use portcullis::policy::{Action, Protocol};
    let has = |bit: u8| flags & bit != 0;
    let mut config = Config {
        table,
        ..Config::allow_all()
    };
    config.engine.checksums = Checksums::Trust;
    config.policy.on_reload = if has(1) {
        OnReload::Keep
    } else {
        OnReload::End
    };
    if has(2) {
        config.policy.rules.push(RuleConfig {
            protocol: vec![if has(4) { Protocol::TCP } else { Protocol::UDP }],
            ..RuleConfig::new("no", Action::Deny)
        });
    }
    config.tcp.late = LatePacket::ALL[usize::from(flags >> 3 & 3) % LatePacket::ALL.len()];
    config.tcp.midstream = Midstream::ALL[usize::from(flags >> 5 & 3) % Midstream::ALL.len()];
    if has(0x80) {
        config.syn_challenge.mode = ChallengeMode::Always;
    }
    let lifetime = Duration::from_secs(1 + u64::from(seconds));
    config.lifetimes.set = config
        .lifetimes
        .set
        .with(LifetimeClass::TcpEstablished, lifetime);
    config.lifetimes.set = config
        .lifetimes
        .set
        .with(LifetimeClass::UdpReplied, lifetime);
    let preview = engine.preview(&config, now).expect("a right configuration");
    let before = count.ended;
    let done = engine
        .reload(&config, now, count)
        .expect("a right configuration");
    assert_eq!(preview.len() as u64, count.ended - before);
    assert_eq!(preview.len(), done.revoked + done.expired);
}

/// Runs packets of a few conversations, time and expiry, in a table that overflows.
pub(crate) fn sequence(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let size = input.arbitrary::<u8>().unwrap_or(0);
    let (max_sessions, shards) = (2 + u32::from(size & 3), 1 << (size >> 2 & 1));
    let engine = engine(Checksums::Trust, max_sessions, shards);
    let table = TableConfig {
        max_sessions,
        shards: Some(shards),
        ..TableConfig::default()
    };
    let mut count = Count::default();
    let mut now = Instant::now() + Duration::from_secs(60);
    // The next byte of each end of each conversation, according to its segments.
    let mut next = [[0u32; 2]; 8];
    // Cookie with which the last SYN of each conversation was challenged.
    let mut cookies = [None; 8];
    let mut packets = 0_u32;
    while !input.is_empty() {
        let Ok(step) = input.arbitrary::<Step>() else {
            break;
        };
        let (zone, packet) = match step {
            Step::Udp { talk, payload } => {
                let talk = Talk::of(talk);
                let len = (8 + u16::from(payload)).to_be_bytes();
                let datagram = [
                    &talk.ports()[..],
                    &len,
                    &[0, 0],
                    &vec![0; usize::from(payload)],
                ]
                .concat();
                (talk.zone, talk.packet(17, &datagram))
            }
            Step::Echo { talk, request } => {
                let talk = Talk::of(talk);
                let (protocol, kind) = match (talk.v6, request) {
                    (false, true) => (1, 8),
                    (false, false) => (1, 0),
                    (true, true) => (58, 128),
                    (true, false) => (58, 129),
                };
                (
                    talk.zone,
                    talk.packet(protocol, &[kind, 0, 0, 0, 0, talk.number as u8, 0, 1]),
                )
            }
            Step::Other { talk, protocol } => {
                let talk = Talk::of(talk);
                (talk.zone, talk.packet(protocol, &[0; 8]))
            }
            Step::Tcp {
                talk,
                flags,
                seq,
                ack,
                window,
                payload,
                options,
            } => {
                let talk = Talk::of(talk);
                let [own, peer] = if talk.reply { [1, 0] } else { [0, 1] };
                let numbers = &mut next[talk.number];
                let (seq, ack) = (seq.from(numbers[own]), ack.from(numbers[peer]));
                let flags =
                    [0x02, 0x12, 0x10, 0x11, 0x04, 0x14, 0x10, flags][usize::from(flags & 7)];
                // The RST of a real stack.
                let answer = cookies[talk.number].filter(|_| flags == 0x04);
                let sent = answer.map_or(seq, |SeqNum(cookie)| cookie);
                let has_options = options[0] & 1 != 0;
                let mut segment = talk.ports().to_vec();
                segment.extend(sent.to_be_bytes());
                segment.extend(ack.to_be_bytes());
                segment.extend([if has_options { 0x80 } else { 0x50 }, flags]);
                segment.extend(window.to_be_bytes());
                segment.extend([0; 4]);
                if has_options {
                    segment.extend([3, 3]);
                    segment.extend(&options[1..11]);
                }
                segment.extend(vec![0; usize::from(payload & 0x3f)]);
                let taken =
                    u32::from(payload & 0x3f) + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
                numbers[own] = seq.wrapping_add(taken);
                (talk.zone, talk.packet(6, &segment))
            }
            Step::IcmpError { talk, protocol } => {
                let talk = Talk::of(talk);
                let quoted = talk.packet(protocol, &[&talk.ports()[..], &[0; 4]].concat());
                let back = Talk {
                    reply: !talk.reply,
                    ..talk
                };
                let (protocol, kind) = if back.v6 { (58, 1) } else { (1, 3) };
                let error = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
                (back.zone, back.packet(protocol, &error))
            }
            Step::Advance { millis, hours } => {
                now += Duration::from_millis(u64::from(millis))
                    + Duration::from_secs(3600 * u64::from(hours >> 5));
                continue;
            }
            Step::Backwards { millis } => {
                // Another thread, with an older clock, at one moment without a packet.
                let then = now.checked_sub(Duration::from_millis(u64::from(millis)));
                engine.expire_with(then.unwrap_or(now), 1, &mut count);
                check(&engine, &count);
                continue;
            }
            Step::Reload { flags, seconds } => {
                reload(
                    &engine,
                    table.clone(),
                    Reload { flags, seconds },
                    now,
                    &mut count,
                );
                check(&engine, &count);
                continue;
            }
            Step::Expire { budget } => {
                let done = engine.expire_with(now, usize::from(budget), &mut count);
                assert!(done.ended + done.moved <= usize::from(budget));
                if !done.more {
                    let due = |record: &SessionRecord| record.expires <= now;
                    assert!(!records(&engine).iter().any(due), "nothing more was due");
                }
                check(&engine, &count);
                continue;
            }
        };
        let verdict = decide(&engine, Packet::new(&packet, now).zone(zone), &mut count);
        if let (Verdict::Reject(_, Reply::Challenge(cookie), _), Step::Tcp { talk, .. }) =
            (verdict, step)
        {
            cookies[Talk::of(talk).number] = Some(cookie);
        }
        packets += 1;
        if packets.is_multiple_of(CHECK_EACH) {
            check(&engine, &count);
        }
    }
    check(&engine, &count);
    now += Duration::from_secs(100_000);
    while engine.expire_with(now, 3, &mut count).more {}
    check(&engine, &count);
    assert_eq!(engine.sessions(), 0, "time ends every session");
}

/// Runs bytes as a configuration file: an error names its place and cause; a file that loads also
/// compiles, or is rejected with a reason.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let named = |error: ConfigError| {
        assert_eq!(error.location.file.as_deref(), Some("fuzz.toml"));
        assert!(error.to_string().len() > "fuzz.toml: ".len());
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        assert!(
            error
                .location
                .line
                .is_none_or(|line| (1..=lines).contains(&line)),
            "{error}"
        );
    };
    match Config::from_toml(text, "fuzz.toml") {
        Err(error) => named(error),
        Ok(config) => {
            for warning in config.warnings() {
                assert!(!warning.to_string().is_empty());
            }
            for value in config.effective() {
                let _ = format!("{value:?}");
            }
            config.validate().expect("what loads is valid");
            if let Err(error) = config.compile() {
                named(error);
            }
        }
    }
}

/// In the first byte of [`ftp`]: the conversation is over IPv6.
pub(crate) const FTP_V6: u8 = 0x01;
/// In the first byte of a segment of [`ftp`]: the server has sent it.
pub(crate) const FTP_SERVER: u8 = 0x01;
/// In the first byte of a segment of [`ftp`]: it has a FIN.
const FTP_FIN: u8 = 0x02;
/// In the first byte of a segment of [`ftp`]: it acknowledges nothing; otherwise, all data that the
/// other end has sent.
const FTP_NO_ACK: u8 = 0x04;
/// In the first byte of a segment of [`ftp`]: it was sent but lost.
const FTP_LOST: u8 = 0x08;

/// The helper of FTP, with a check of the lines that it receives.
#[derive(Debug)]
struct Bounded(Ftp);

impl Helper for Bounded {
    fn limits(&self, from: Direction) -> Limits {
        self.0.limits(from)
    }

    fn line(&mut self, from: Direction, line: Line<'_>, sink: &mut dyn HelperSink) {
        assert!(
            line.bytes.len() <= self.0.limits(from).line,
            "a line beyond its bound"
        );
        assert!(!line.bytes.contains(&b'\n') || !self.0.limits(from).bare_lf);
        self.0.line(from, line, sink);
    }

    fn trouble(&mut self, from: Direction, trouble: Trouble, sink: &mut dyn HelperSink) {
        self.0.trouble(from, trouble, sink);
    }

    fn is_opaque(&self) -> bool {
        self.0.is_opaque()
    }

    fn stopped_reading(&mut self, next: Option<SeqNum>) {
        self.0.stopped_reading(next);
    }

    fn is_encrypted_from(&self, from: Direction) -> bool {
        self.0.is_encrypted_from(from)
    }

    fn plain(
        &mut self,
        segment: &Segment<'_>,
        from: Direction,
        sink: &mut dyn HelperSink,
    ) -> Plain {
        self.0.plain(segment, from, sink)
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Announcements and withdrawals of a control conversation.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Opened(Expectation, bool),
    Withdrawn(Expectation, bool),
}

/// Checks every expectation before it enters the table.
struct Watch<'a> {
    table: &'a ExpectationTable,
    settings: &'a Settings,
    ends: SessionEnds,
    now: Instant,
    said: Vec<Said>,
}

impl Watch<'_> {
    fn check(&self, expectation: &Expectation) {
        let caller = expectation.direction;
        let called = self.ends.sender(caller.opposite()).ip();
        let to = expectation.destination;
        assert_eq!((expectation.parent, expectation.protocol), (self.ends, 6));
        assert_eq!(
            expectation.source,
            self.ends.sender(caller).ip(),
            "a foreign caller"
        );
        let listed = caller == Direction::Original
            && self
                .settings
                .passive_addresses
                .iter()
                .any(|net| net.contains(&to.ip()));
        assert!(to.ip() == called || listed, "a foreign address: {to}");
        assert!(
            to.port() != 0 && to.port() >= self.settings.port_floor,
            "a low port: {to}"
        );
        let port = match caller {
            Direction::Original => None,
            Direction::Reply => self.settings.active_source_port,
        };
        assert_eq!(
            (expectation.source_port, expectation.lifetime),
            (port, self.settings.lifetime)
        );
    }
}

impl HelperSink for Watch<'_> {
    fn event(&mut self, event: HelperEvent, _: Direction) {
        assert!(!event.name().is_empty());
    }

    fn expect(&mut self, expectation: &Expectation) -> bool {
        self.check(expectation);
        let taken = self.table.insert(expectation, self.now).is_ok();
        self.said.push(Said::Opened(*expectation, taken));
        taken
    }

    fn withdraw(&mut self, expectation: &Expectation) -> bool {
        self.check(expectation);
        let was = self.table.withdraw_one(expectation);
        self.said.push(Said::Withdrawn(*expectation, was));
        was
    }
}

/// Runs a control conversation of FTP: a byte of settings, the last byte of the server's address,
/// and segments. Each segment has a byte of flags, the distance of its number from the next one
/// (signed), its payload's length, and the payload. The high bits of the flags are the seconds
/// since the previous segment, by threes.
///
/// If nothing was lost or out of order, splitting the conversation into single bytes must change
/// nothing.
pub(crate) fn ftp(data: &[u8]) {
    let Some((&[settings, host], segments)) = data.split_first_chunk::<2>() else {
        return;
    };
    let (said, in_order) = converse(settings, host, segments, usize::MAX);
    if in_order {
        for piece in [1, 3] {
            let (again, _) = converse(settings, host, segments, piece);
            assert_eq!(again, said, "segments of {piece} bytes say something else");
        }
    }
}

/// Returns the number of expectations that an input of [`ftp`] opens.
pub(crate) fn ftp_opened(data: &[u8]) -> usize {
    let Some((&[settings, host], segments)) = data.split_first_chunk::<2>() else {
        return 0;
    };
    let (said, _) = converse(settings, host, segments, usize::MAX);
    said.iter()
        .filter(|each| matches!(each, Said::Opened(_, true)))
        .count()
}

/// Returns the settings for the bits of a byte.
fn ftp_settings(bits: u8) -> Settings {
    let default = Settings::default();
    let bit = |number: u8| bits >> number & 1 != 0;
    let small = bit(4);
    let choose = |default, limit| if small { limit } else { default };
    let listed: Vec<_> = bit(5)
        .then(|| "10.9.0.128/25".parse().expect("a network"))
        .into_iter()
        .collect();
    Settings {
        active_source_port: bit(1).then_some(20),
        active_opening: if bit(2) {
            ActiveOpening::Reply
        } else {
            ActiveOpening::Command
        },
        port_floor: if bit(3) { 40_000 } else { default.port_floor },
        max_line: choose(default.max_line, 40),
        reorder_bytes: choose(default.reorder_bytes, 100),
        reorder_ranges: choose(default.reorder_ranges, 2),
        max_pipelined: choose(default.max_pipelined, 3),
        passive_addresses: listed.clone(),
        active_addresses: listed,
        client_bare_lf: !bit(7),
        server_bare_lf: bit(7),
        ..default
    }
}

/// Runs one conversation, its payloads split into pieces; returns its announcements, and whether
/// all of it arrived in order.
fn converse(bits: u8, host: u8, mut data: &[u8], piece: usize) -> (Vec<Said>, bool) {
    let end = |host: u8, port| {
        let address = if bits & FTP_V6 != 0 {
            IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, host.into()))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, 9, 0, host))
        };
        SocketAddr::new(address, port)
    };
    let ends = SessionEnds::new(Zone(0), end(1, 40_000), end(host, 21));
    let settings = ftp_settings(bits);
    let most = if bits & 0x10 != 0 { 1 } else { 3 };
    let table = ExpectationTable::new(
        ExpectationLimits {
            total: most,
            per_parent: most,
        },
        [1, 2, 3, 4],
    );
    let ftp = Ftp::new(Arc::new(Rules::new(settings.clone())), ends);
    let mut control = Control::new(Bounded(ftp));
    let mut next = [u32::MAX - 20, 7];
    // A conversation that is adopted midstream begins at any point.
    let begun = bits & 0x40 == 0;
    if begun {
        for direction in Direction::BOTH {
            control.begins(direction, SeqNum(next[direction as usize]));
        }
    }
    let bound = size_of_val(&control)
        + 2 * 2 * (settings.max_line + settings.reorder_bytes + 16 * (settings.reorder_ranges + 2))
        + 2 * 48 * (settings.max_pipelined + 1)
        + 256;
    let mut watch = Watch {
        table: &table,
        settings: &settings,
        ends,
        now: Instant::now(),
        said: Vec::new(),
    };
    let mut in_order = true;
    while let Some((&[flags, distance, len], rest)) = data.split_first_chunk::<3>() {
        let (payload, rest) = rest.split_at(usize::from(len).min(rest.len()));
        data = rest;
        watch.now += Duration::from_secs(u64::from(flags >> 4) * 3);
        let from = if flags & FTP_SERVER != 0 {
            Direction::Reply
        } else {
            Direction::Original
        };
        let [own, peer] = [from as usize, from.opposite() as usize];
        let start = next[own].wrapping_add_signed(i32::from(distance.cast_signed()));
        let behind = start.wrapping_add(payload.len() as u32);
        if SeqNum(behind).after(SeqNum(next[own])) {
            next[own] = behind;
        }
        in_order &= distance == 0 && flags & (FTP_LOST | FTP_FIN) == 0;
        if flags & FTP_LOST != 0 {
            continue;
        }
        let was_opaque = control.helper().is_opaque();
        let before = watch.said.len();
        let mut pieces = payload.chunks(piece).peekable();
        let mut at = start;
        loop {
            let part = pieces.next().unwrap_or_default();
            control.segment(
                from,
                &Segment {
                    seq: SeqNum(at),
                    ack: (flags & FTP_NO_ACK == 0).then_some(SeqNum(next[peer])),
                    payload: part,
                    fin: flags & FTP_FIN != 0 && pieces.peek().is_none(),
                },
                &mut watch,
            );
            at = at.wrapping_add(part.len() as u32);
            assert!(
                control.memory() <= bound,
                "{} of {bound} bytes",
                control.memory()
            );
            if pieces.peek().is_none() {
                break;
            }
        }
        assert!(
            !was_opaque || watch.said.len() == before || !control.helper().is_opaque(),
            "it said it had stepped aside"
        );
        assert!(table.len() <= most, "{} expectations", table.len());
        table.expire(watch.now, 10);
        let left = table.export(watch.now);
        assert_eq!(left.len(), table.len());
        for caller in Direction::BOTH {
            let of_mode = left.iter().filter(|each| each.direction == caller);
            // The server's own address, and a listed one.
            let most = if caller == Direction::Original { 2 } else { 1 };
            assert!(of_mode.count() <= most, "too many expectations of one mode");
        }
    }
    // Time may have passed since the last segment that arrived.
    table.expire(watch.now, 10);
    // Of an own address and a listed one, the first that is used withdraws the other.
    while let Some(expectation) = table.export(watch.now).pop() {
        let call = Call {
            zone: Zone(0),
            protocol: 6,
            source: SocketAddr::new(
                expectation.source,
                expectation.source_port.unwrap_or(50_000),
            ),
            destination: expectation.destination,
        };
        assert_eq!(
            table.take(&call, watch.now).map(|each| each.parent),
            Some(ends),
            "it can be used"
        );
        assert_eq!(table.take(&call, watch.now), None, "and once only");
    }
    assert_eq!((table.len(), table.withdraw(&ends)), (0, 0));
    control.shed();
    (watch.said, in_order && begun)
}

/// Reads the record of a session as a store returns it. What reads is written again alike; an
/// engine resumes it or not, and judges segments of the session.
pub(crate) fn stored(data: &[u8]) {
    let Ok(stored) = StoredSession::decode(data) else {
        return;
    };
    let mut bytes = Vec::new();
    stored.encode(&mut bytes);
    assert_eq!(StoredSession::decode(&bytes).as_ref(), Ok(&stored));
    let mut config = Config::allow_all();
    config.engine.checksums = Checksums::Trust;
    config.table.max_sessions = 16;
    config.table.shards = Some(1);
    config.continuity.enabled = true;
    let engine = Engine::with_seed(&config, [1, 2, 3, 4]).expect("a valid configuration");
    let now = Instant::now();
    let at = stored.saved_at;
    for _ in 0..2 {
        let _ = engine.resume(&stored, now, at);
    }
    engine.check_invariants().expect("the table is in order");
    engine.for_each_session(|session| {
        let flow = session.flow().expect("a record names its flow");
        let flow = engine.flow_name(&flow);
        assert!(session.stored.is_some());
        let again = engine.find_stored(&flow, now, at).expect("it is stored");
        assert!(again.is_of(&flow));
    });
    engine.expire_with(
        now + Duration::from_secs(1 << 30),
        100,
        &mut Count::default(),
    );
    engine.check_invariants().expect("the table is in order");
}
