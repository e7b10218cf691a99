//! Packets in batches: the memory that they need is prefetched.

use super::candidate::Located;
use super::screen::Screen;
use super::short_way::{Run, Short};
use super::{Engine, Packet};
use crate::event::{Discard, Sink};
use crate::outbox::Outbox;
use crate::packet::{self, Malformed, Parsed};
use crate::verdict::Verdict;

/// Number of packets whose cache misses overlap.
const OVERLAP: usize = 32;
/// Number of sessions below which prefetching costs more than the cache misses.
///
/// The threshold is low: the work of the system between two batches leaves little in the
/// processor's caches.
const FEW_SESSIONS: usize = 256;
/// Number of packets below which prefetching does not pay; see [`FEW_SESSIONS`].
const FEW_PACKETS: usize = 4;

impl Engine {
    /// Decides packets in order, with the verdicts and outbox entries of [`Engine::process`], and
    /// replaces the contents of `verdicts` with their verdicts.
    ///
    /// Faster than single calls for large tables: the memory that a batch needs is fetched while
    /// its first packets are decided. Allocates nothing if `verdicts` has capacity for all packets.
    /// Batches stay below the outbox's bounds, since it is drained between batches.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use portcullis::{Config, Engine, Outbox, Packet};
    /// # let engine = Engine::new(&Config::default())?;
    /// let now = Instant::now();
    /// let packets = [Packet::new(b"one", now), Packet::new(b"two", now)];
    /// let (mut outbox, mut verdicts) = (Outbox::new(), Vec::with_capacity(64));
    /// engine.process_batch(&packets, &mut outbox, &mut verdicts);
    /// assert_eq!(verdicts.len(), packets.len());
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn process_batch(
        &self,
        packets: &[Packet<'_>],
        outbox: &mut Outbox,
        verdicts: &mut Vec<Verdict>,
    ) {
        verdicts.clear();
        verdicts.reserve(packets.len());
        self.process_batch_with(packets, outbox, |number, verdict, outbox| {
            if let (Verdict::Reject(..), Some(packet)) = (&verdict, packets.get(number)) {
                self.reply_into(outbox, packet, &verdict);
            }
            verdicts.push(verdict);
        });
    }

    /// Decides packets like [`Engine::process_batch`] and discards replies, events and RSTs: for
    /// measurements and tests.
    pub fn verdicts_only(&self, packets: &[Packet<'_>], verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.reserve(packets.len());
        self.process_batch_with(packets, &mut Discard, |_, verdict, _| {
            verdicts.push(verdict)
        });
    }

    /// Decides packets like [`Engine::process_batch`], for callers that need no queue.
    ///
    /// `each` is called with the number of each packet in the batch and its verdict, before the
    /// next packet is decided. `sink` receives the events and RSTs of a packet just before that
    /// call, as in [`Engine::process_with`].
    ///
    /// Up to 32 packets are parsed before the first of them is decided. The settings of that moment
    /// judge the checksums and IP headers of all of them. If a reload exchanges the settings in the
    /// meantime, the newer settings judge them as well.
    pub fn process_batch_with<S: Sink>(
        &self,
        packets: &[Packet<'_>],
        sink: &mut S,
        mut each: impl FnMut(usize, Verdict, &mut S),
    ) {
        if self.table.len() < FEW_SESSIONS || packets.len() < FEW_PACKETS {
            for (number, packet) in packets.iter().enumerate() {
                let verdict = self.decide(*packet, sink, &mut ());
                each(number, verdict, sink);
            }
            return;
        }
        for (turn, some) in packets.chunks(OVERLAP).enumerate() {
            self.overlapped(some, sink, |number, verdict, sink| {
                each(turn * OVERLAP + number, verdict, sink);
            });
        }
    }

    /// Decides up to [`OVERLAP`] packets.
    fn overlapped<S: Sink>(
        &self,
        packets: &[Packet<'_>],
        sink: &mut S,
        mut each: impl FnMut(usize, Verdict, &mut S),
    ) {
        let screen = self.screen.get();
        let mut shorts: Shorts = [None; OVERLAP];
        if !self.read_shorts(packets, screen, &mut shorts) {
            return self.overlapped_in_full(packets, screen, &mut shorts, sink, each);
        }
        self.prefetch_for(&mut shorts);
        let Some(mut run) = self.run(packets, screen) else {
            return;
        };
        for (number, (packet, short)) in packets.iter().zip(&shorts).enumerate() {
            let verdict = match short {
                Some(short) => self.decide_read(packet, short, &mut run, sink),
                None => self.decide_in_full(*packet, None, sink, &mut ()),
            };
            each(number, verdict, sink);
        }
    }

    /// Reads packets that may take the short way, and prefetches their entries of the index.
    /// Returns whether all may take it.
    #[inline(never)]
    fn read_shorts(&self, packets: &[Packet<'_>], screen: Screen, shorts: &mut Shorts) -> bool {
        let mut are_all_short = true;
        for (packet, place) in packets.iter().zip(shorts) {
            let is_short = self.read_short(packet, screen, place);
            match place {
                Some(short) if is_short => self.table.prefetch_index(short.place()),
                _ => are_all_short = false,
            }
        }
        are_all_short
    }

    /// Prefetches the sessions of packets, or the slots of the sessions that they may open.
    #[inline(never)]
    fn prefetch_for(&self, shorts: &mut Shorts) {
        for short in shorts.iter_mut().flatten() {
            short.candidate = if short.is_datagram() {
                self.table.prefetch_session(short.place())
            } else {
                self.table.prefetch_slot(short.place())
            };
        }
    }

    /// Returns what the packets of a call share; `None` for no packets.
    #[inline(always)]
    fn run(&self, packets: &[Packet<'_>], screen: Screen) -> Option<Run<'_>> {
        Some(Run {
            screen,
            now: self.moment(packets.first()?.now),
            mine: self.counters.mine(),
        })
    }

    /// Sets the time of a run to that of a packet.
    #[inline(always)]
    fn set_now(&self, run: &mut Run<'_>, packet: &Packet<'_>) {
        if !run.now.is_of(packet.now) {
            run.now = self.moment(packet.now);
        }
    }

    /// Decides a packet that may take the short way.
    #[inline(always)]
    fn decide_read<S: Sink>(
        &self,
        packet: &Packet<'_>,
        short: &Short,
        run: &mut Run<'_>,
        sink: &mut S,
    ) -> Verdict {
        self.set_now(run, packet);
        match self.decide_short(packet, short, run) {
            Some(verdict) => verdict,
            None => {
                let known = short.fallback(run.screen);
                self.decide_in_full(*packet, Some(known), sink, &mut ())
            }
        }
    }

    /// Decides up to [`OVERLAP`] packets, some of which must take the full way: these are parsed
    /// ahead as well.
    #[inline(never)]
    fn overlapped_in_full<S: Sink>(
        &self,
        packets: &[Packet<'_>],
        screen: Screen,
        shorts: &mut Shorts,
        sink: &mut S,
        mut each: impl FnMut(usize, Verdict, &mut S),
    ) {
        let mut parsed: [Result<Parsed, Malformed>; OVERLAP] = [Err(Malformed::Empty); OVERLAP];
        let mut located = [None; OVERLAP];
        let results = parsed.iter_mut().zip(&mut located);
        let Some(mut run) = self.run(packets, screen) else {
            return;
        };
        for ((packet, short), (parsed, located)) in packets.iter().zip(&*shorts).zip(results) {
            if short.is_some() {
                continue;
            }
            let (packet, checksums) = self.prepare(*packet, screen);
            *parsed = packet::parse(packet.bytes, checksums);
            let Ok(parsed) = parsed else { continue };
            self.set_now(&mut run, &packet);
            *located = self.locate(packet.zone, parsed, None, run.now.micros());
            if let Some(Located { place, .. }) = located {
                self.table.prefetch_index(*place);
            }
        }
        self.prefetch_for(shorts);
        self.prefetch_sessions(&mut located);
        let known = shorts.iter().zip(&parsed).zip(&located);
        for (number, (packet, ((short, parsed), located))) in packets.iter().zip(known).enumerate()
        {
            let verdict = if let Some(short) = short {
                self.decide_read(packet, short, &mut run, sink)
            } else {
                let (packet, _) = self.prepare(*packet, screen);
                self.finish(&packet, parsed, located.as_ref(), sink, &mut ())
            };
            each(number, verdict, sink);
        }
    }
}

/// Packets that may take the short way; `None` for a packet that must take the full way.
type Shorts = [Option<Short>; OVERLAP];
