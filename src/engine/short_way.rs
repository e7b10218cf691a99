//! The short way: for usual packets of established sessions.
//!
//! **It takes** a TCP segment or UDP datagram in the usual form ([`Plain`]): no IP options, no
//! extension header, no fragment; for TCP an ACK without SYN, FIN, RST and URG, and no options but
//! timestamps. It has a time to live, and two different addresses in ranges without special ones.
//! Its session was in the slot that the index named first, has not expired, and stays in its state;
//! a TCP session is established, assured, tracked from its SYN and not a control session. The
//! segment lies within its window, has no repeated data and repeats no ACK
//! ([`Track::usual`](crate::track::tcp::Track)). The history of the session has the packet's letter
//! already. No reload is in progress in the shard, and the packet was read under the settings that
//! are in force there.
//!
//! **It leaves** every other packet to the full way, without a change of any state: all tests come
//! before the first write. `Track::usual` is the last test, and writes nothing if it fails.
//! A traced packet always takes the full way.
//!
//! **It has the effects** that the full way has on such a packet: the TCP state, the packets and
//! bytes of the session, the time of its last packet, the tunnel of its direction, a deadline that
//! is not earlier than before (so the wheel is not touched), and the counters of forwarded packets
//! and bytes. The full way has no effect after the lock for it: no event, no ended session, no
//! evidence about paths, no note of a failed handshake.
//!
//! **It is kept equal** by tests: `Track::usual` is compared with `Track::segment` field by field,
//! `Plain::read` with the full parser, and two engines, one of which never takes the short way,
//! decide the same packets and must agree in every slot, wheel and counter
//! (`tests/it/short_way.rs`, and the fuzz target `short_way`).
//!
//! A batch is read in stages, so that cache misses overlap. The first two stages take no lock: they
//! read the entries of the index, and for a datagram without a session the number of the next free
//! slot, as hints ([`Table::prefetch_session`](crate::session::Table)). The slot that they find is
//! tested under the lock.
//! Each packet takes its shard's lock once, in the order of the batch: with 64 shards a batch of 64
//! packets has 1.6 packets per shard, so taking the packets of a shard together would save less
//! than sorting them costs.

use std::time::Instant;

use super::screen::Screen;
use super::{Engine, Packet};
use crate::flow::{Direction, End, Flow, FlowKey, Zone};
use crate::packet::plain::{Plain, Usual};
use crate::session::history::Letter;
use crate::session::{Cold, Held, KeyPlace, Micros, ShardId, Slot, SlotId};
use crate::stats::Mine;
use crate::track::Lifetime;
use crate::track::datagram::{self, Family};
use crate::verdict::{Class, Tracked, Verdict};

/// A packet that may take the short way. Those of a batch are written and read in memory, so they
/// are small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Short {
    key: FlowKey,
    hash: u32,
    shard: u32,
    /// The slot that most likely holds the session: a guess that is tested under the lock.
    pub(super) candidate: u32,
    total_len: u32,
    /// The end that the packet came from.
    source: End,
    usual: Usual,
}

const _: () = assert!(size_of::<Option<Short>>() <= 80);

/// A packet that was parsed for the short way and takes the full way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fallback {
    pub(super) place: KeyPlace,
    /// The settings by which the checksums were verified.
    pub(super) screen: Screen,
}

impl Short {
    #[inline(always)]
    pub(super) const fn place(&self) -> KeyPlace {
        KeyPlace {
            shard: ShardId(self.shard as usize),
            hash: self.hash,
        }
    }

    /// Returns whether the packet is a datagram: it may open a session.
    #[inline(always)]
    pub(super) const fn is_datagram(&self) -> bool {
        matches!(self.usual, Usual::Udp)
    }

    /// Returns the parts of the packet that the full way needs; `screen` are the settings by which
    /// the packet was read.
    pub(super) const fn fallback(&self, screen: Screen) -> Fallback {
        Fallback {
            place: self.place(),
            screen,
        }
    }
}

/// A time, as the caller passed it and as the table counts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    instant: Instant,
    micros: Micros,
    tick: u32,
}

impl Moment {
    #[inline(always)]
    pub(super) fn is_of(&self, instant: Instant) -> bool {
        self.instant == instant
    }

    pub(super) const fn micros(self) -> Micros {
        self.micros
    }
}

/// Values that successive packets share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    /// The settings by which the packets were read.
    pub(super) screen: Screen,
    /// The time of the last packet.
    pub(super) now: Moment,
    /// Stripe of the counters that the thread writes.
    pub(super) mine: Option<Mine<'a>>,
}

impl Engine {
    /// Returns the engine with the short way of usual packets turned off: for tests that compare it
    /// with the full way, and for measurements.
    #[doc(hidden)]
    #[must_use]
    pub fn full_way_only(self) -> Self {
        Self {
            full_way_only: true,
            ..self
        }
    }

    /// Returns the time of a packet.
    #[inline(never)]
    pub(super) fn moment(&self, instant: Instant) -> Moment {
        let micros = self.origin.micros(instant);
        Moment {
            instant,
            micros,
            tick: micros.tick(),
        }
    }

    /// Reads a packet into `place` if it may take the short way, and returns whether it may. In
    /// place: a packet that was returned would be copied.
    #[inline(always)]
    pub(super) fn read_short(
        &self,
        packet: &Packet<'_>,
        screen: Screen,
        place: &mut Option<Short>,
    ) -> bool {
        if self.full_way_only {
            return false;
        }
        if !Plain::is_tcp_ipv4(packet.bytes) {
            return self.read_other(packet, screen, place);
        }
        let checksums = screen.checksums_of(packet.offloaded);
        let Some(plain) = Plain::read_tcp_ipv4(packet.bytes, checksums) else {
            return false;
        };
        self.put_short(packet.zone, &plain, place);
        true
    }

    /// Reads a packet other than TCP in IPv4. Apart, so that most packets are read by code in which
    /// protocol and version are constants.
    #[inline(never)]
    fn read_other(&self, packet: &Packet<'_>, screen: Screen, place: &mut Option<Short>) -> bool {
        let checksums = screen.checksums_of(packet.offloaded);
        let Some(plain) = Plain::read(packet.bytes, checksums) else {
            return false;
        };
        self.put_short(packet.zone, &plain, place);
        true
    }

    #[inline(always)]
    fn put_short(&self, zone: Zone, plain: &Plain, place: &mut Option<Short>) {
        let flow = Flow::of_plain(self.fixed.zones.group_of(zone), plain);
        let KeyPlace { shard, hash } = self.table.place(&flow.key);
        *place = Some(Short {
            key: flow.key,
            hash,
            shard: shard.0 as u32,
            candidate: u32::MAX,
            total_len: plain.total_len,
            source: flow.source,
            usual: plain.usual,
        });
    }

    /// Decides a single packet by the short way.
    ///
    /// # Errors
    /// Returns the parsed parts of a packet that must take the full way, if any.
    #[inline(always)]
    pub(super) fn decide_single(&self, packet: &Packet<'_>) -> Result<Verdict, Option<Fallback>> {
        let screen = self.screen.get();
        let mut place = None;
        self.read_short(packet, screen, &mut place);
        let short = place.as_mut().ok_or(None)?;
        short.candidate = self.table.prefetch_slot(short.place());
        let run = Run {
            screen,
            now: self.moment(packet.now),
            mine: self.counters.mine(),
        };
        let verdict = self.decide_here(packet, short, &run);
        verdict.ok_or(Some(short.fallback(screen)))
    }

    /// Decides a packet of a batch as [`Engine::decide_here`] does.
    ///
    /// Not inlined: the registers of a function suffice for this part, but not for all of the short
    /// way.
    #[inline(never)]
    pub(super) fn decide_short(
        &self,
        packet: &Packet<'_>,
        short: &Short,
        run: &Run<'_>,
    ) -> Option<Verdict> {
        self.decide_here(packet, short, run)
    }

    /// Decides a packet by the short way; `None` if the packet must take the full way. Nothing was
    /// changed in that case.
    #[inline(always)]
    fn decide_here(&self, packet: &Packet<'_>, short: &Short, run: &Run<'_>) -> Option<Verdict> {
        let Moment {
            micros: now, tick, ..
        } = run.now;
        let shard_id = short.place().shard;
        let mut held = self.table.lock(shard_id);
        let Held {
            shard,
            settings,
            judging,
        } = &mut *held;
        if judging.is_some() || settings.screen != run.screen {
            return None;
        }
        let slot = SlotId(short.candidate);
        let hot = shard.slab.holder_mut(slot, &short.key)?;
        if hot.deadline <= tick {
            return None;
        }
        let direction = hot.direction_of(short.source);
        let session = self.table.id(shard_id, slot, hot.generation);
        let class = match &short.usual {
            Usual::Tcp(segment) => {
                // The key, and so the protocol, is the packet's.
                if !hot.may_continue(segment.payload_len > 0, direction)
                    || settings.ftp.may_be_control(hot)
                {
                    return None;
                }
                // The last test, and the first write.
                let waits = hot.track.usual(direction, segment)?;
                let deadline = settings.established_deadline(hot, waits, now);
                hot.note_packet(direction, short.total_len, now, deadline);
                Class::Established
            }
            Usual::Udp => {
                let class = self.class_of(hot, session, direction);
                let (hot, cold) = shard.slab.both_mut(slot);
                let lifetime = stays(hot, cold, direction, now)?;
                let deadline = settings.deadline(hot, lifetime, now, &mut ());
                if deadline < hot.deadline {
                    // The session ends earlier than before, so the wheel must be updated.
                    return None;
                }
                hot.note_packet(direction, short.total_len, now, deadline);
                class
            }
        };
        shard.slab.note_tunnel(slot, direction, packet.tunnel);
        drop(held);
        if let Some(mine) = run.mine {
            mine.forwarded(class, short.total_len);
        }
        Some(Verdict::Forward(Tracked {
            class,
            direction: Some(direction),
            session: Some(session),
            tolerated: None,
            late: None,
        }))
    }
}

/// Returns the lifetime of a UDP session that a datagram leaves in its state; `None` if the
/// datagram changes more than the time of the session's last packet.
#[inline(always)]
fn stays(hot: &Slot, cold: &Cold, direction: Direction, now: Micros) -> Option<Lifetime> {
    let state = datagram::State::from_bits(hot.plain_state());
    // The start is on another cache line: see `judge_datagram`.
    let age_ms = match state {
        datagram::State::Replied | datagram::State::Exchange => {
            now.since(cold.start()).as_millis() as u64
        }
        datagram::State::Unreplied | datagram::State::Stream => 0,
    };
    let known = datagram::Known {
        family: Family::Udp,
        responder_port: hot.key.port(hot.initiator().opposite()),
        // Read only for an answer to a session without one, which changes the state.
        asked: 0,
        age_ms,
    };
    let is_usual = datagram::next(known, state, direction) == state
        && (state == datagram::State::Unreplied || hot.assured())
        && (direction == Direction::Original || hot.seen_reply())
        && hot.letter_noted(Letter::Data, direction);
    is_usual.then(|| datagram::lifetime(Family::Udp, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Checksums, Config};

    const ACK: u8 = 0x10;

    fn engine() -> Engine {
        engine_with(None)
    }

    fn engine_with(shards: Option<u32>) -> Engine {
        let mut config = Config::allow_all();
        config.engine.checksums = Checksums::Trust;
        config.table.shards = shards;
        Engine::with_seed(&config, [1, 2, 3, 4]).expect("a right configuration")
    }

    fn addressed(v6: bool, reply: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut hosts = [1, 2];
        if reply {
            hosts.reverse();
        }
        let len = payload.len() as u8;
        let mut packet = if v6 {
            vec![0x60, 0, 0, 0, 0, len, protocol, 64]
        } else {
            vec![0x45, 0, 0, 20 + len, 0, 0, 0, 0, 64, protocol, 0, 0]
        };
        for host in hosts {
            if v6 {
                packet.extend([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            } else {
                packet.extend([10, 0, 0, host]);
            }
        }
        packet.extend(payload);
        packet
    }

    fn ports(reply: bool, port: u8) -> [u8; 4] {
        if reply {
            [0, port, 0x20, 0]
        } else {
            [0x20, 0, 0, port]
        }
    }

    /// Ends of a segment, and the form of its packet.
    #[derive(Clone, Copy)]
    struct From {
        v6: bool,
        reply: bool,
        port: u8,
    }

    fn tcp(from: From, flags: u8, numbers: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let [seq, ack] = numbers;
        let words = if rest.first() == Some(&1) { 0x80 } else { 0x50 };
        let mut segment = ports(from.reply, from.port).to_vec();
        segment.extend([
            0, 0, 0, seq, 0, 0, 0, ack, words, flags, 0x20, 0, 0, 0, 0, 0,
        ]);
        segment.extend(rest);
        addressed(from.v6, from.reply, 6, &segment)
    }

    fn udp(from: From, payload: &[u8]) -> Vec<u8> {
        let mut datagram = ports(from.reply, from.port).to_vec();
        datagram.extend([0, 8 + payload.len() as u8, 0, 0]);
        datagram.extend(payload);
        addressed(from.v6, from.reply, 17, &datagram)
    }

    /// Decides a packet, and returns whether it took the short way.
    fn is_short(engine: &Engine, bytes: &[u8], now: Instant) -> bool {
        let packet = Packet::new(bytes, now);
        let short = engine.decide_single(&packet);
        let verdict = short.unwrap_or_else(|_| engine.verdict_only(packet));
        assert!(verdict.is_forward(), "{verdict:?}");
        short.is_ok()
    }

    /// Opens a connection, and sends one byte and an ACK in each direction: the full way records
    /// their letters.
    fn connect(engine: &Engine, from: From, now: Instant) {
        let back = From {
            reply: true,
            ..from
        };
        for segment in [
            tcp(from, 0x02, [0, 0], &[]),
            tcp(back, 0x12, [0, 1], &[]),
            tcp(from, ACK, [1, 1], &[]),
            tcp(from, ACK, [1, 1], b"a"),
            tcp(back, ACK, [1, 2], b"b"),
            tcp(from, ACK, [2, 2], &[]),
            tcp(back, ACK, [2, 2], &[]),
        ] {
            is_short(engine, &segment, now);
        }
    }

    /// A guess that is wrong, as after a session has ended or moved, leaves everything as it is.
    #[test]
    fn a_packet_whose_candidate_is_not_its_session_does_not_take_it() {
        let (engine, now) = (engine_with(Some(1)), Instant::now());
        let of_port = |port| From {
            v6: false,
            reply: false,
            port,
        };
        for port in [80, 81] {
            connect(&engine, of_port(port), now);
        }
        let bytes = tcp(of_port(80), ACK, [2, 2], b"abc");
        let packet = Packet::new(&bytes, now);
        let screen = engine.screen.get();
        let mut place = None;
        assert!(engine.read_short(&packet, screen, &mut place));
        let mut short = place.unwrap();
        let run = |screen| Run {
            screen,
            now: engine.moment(now),
            mine: engine.counters.mine(),
        };
        let right = engine.table.prefetch_slot(short.place());
        let in_use = |slot| {
            let held = engine.table.lock(short.place().shard);
            held.shard.slab.hot(SlotId(slot)).in_use()
        };
        assert!(
            in_use(0) && in_use(1) && right < 2,
            "two sessions in one shard"
        );
        let before = engine.stats().forwarded_total();
        for wrong in (0..64).filter(|slot| *slot != right).chain([u32::MAX]) {
            short.candidate = wrong;
            let verdict = engine.decide_short(&packet, &short, &run(screen));
            assert!(verdict.is_none(), "slot {wrong}");
        }
        assert_eq!(engine.stats().forwarded_total(), before);
        short.candidate = right;
        let verdict = engine.decide_short(&packet, &short, &run(screen));
        assert!(verdict.is_some_and(|verdict| verdict.is_forward()));
        assert_eq!(engine.stats().forwarded_total(), before + 1);
    }

    #[test]
    fn data_and_acks_of_an_established_connection_take_it() {
        const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, b'x'];
        let (engine, now) = (engine(), Instant::now());
        for v6 in [false, true] {
            let from = From {
                v6,
                reply: false,
                port: 80,
            };
            let back = From {
                reply: true,
                ..from
            };
            connect(&engine, from, now);
            assert!(is_short(&engine, &tcp(from, ACK, [2, 2], b"abc"), now));
            assert!(is_short(&engine, &tcp(back, ACK, [2, 5], &[]), now));
            assert!(is_short(&engine, &tcp(back, 0x18, [2, 5], TIMESTAMPS), now));
        }
    }

    #[test]
    fn anything_else_does_not() {
        let (engine, now) = (engine(), Instant::now());
        let from = From {
            v6: false,
            reply: false,
            port: 80,
        };
        connect(&engine, from, now);
        let sack = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let options = [&sack[..], b"x"].concat();
        assert!(!is_short(&engine, &tcp(from, ACK, [2, 2], &options), now));
        let again = tcp(from, ACK, [2, 2], b"x");
        assert!(!is_short(&engine, &again, now), "repeated data");
        let urgent = tcp(from, ACK | 0x20, [3, 2], b"y");
        assert!(!is_short(&engine, &urgent, now));
        let fin = tcp(from, ACK | 0x01, [4, 2], &[]);
        assert!(!is_short(&engine, &fin, now));
        let next = tcp(from, ACK, [5, 2], &[]);
        assert!(!is_short(&engine, &next, now), "half closed");
        let control = From { port: 21, ..from };
        connect(&engine, control, now);
        let line = tcp(control, ACK, [2, 2], b"NOOP\r\n");
        assert!(!is_short(&engine, &line, now), "a control session");
        let late = tcp(From { port: 81, ..from }, 0x02, [0, 0], &[]);
        assert!(!is_short(&engine, &late, now), "a new session");
    }

    #[test]
    fn datagrams_take_it_while_they_leave_the_state_of_their_session() {
        let (engine, now) = (engine(), Instant::now());
        for v6 in [false, true] {
            let from = From {
                v6,
                reply: false,
                port: 9,
            };
            let back = From {
                reply: true,
                ..from
            };
            let later = now + std::time::Duration::from_secs(3);
            let (ask, answer) = (udp(from, b"?"), udp(back, b"!"));
            assert!(!is_short(&engine, &ask, now), "a new session");
            assert!(is_short(&engine, &ask, now));
            assert!(!is_short(&engine, &answer, now), "the first answer");
            assert!(is_short(&engine, &answer, now));
            assert!(!is_short(&engine, &ask, later), "a stream from now on");
            assert!(is_short(&engine, &answer, later));
        }
    }

    #[test]
    fn an_engine_can_be_kept_from_it() {
        let (engine, now) = (engine().full_way_only(), Instant::now());
        let from = From {
            v6: false,
            reply: false,
            port: 80,
        };
        connect(&engine, from, now);
        assert!(!is_short(&engine, &tcp(from, ACK, [2, 2], b"abc"), now));
    }
}
