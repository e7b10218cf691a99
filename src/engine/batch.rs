//! Packets in batches: the memory that they need is prefetched.

use super::screen::Screen;
use super::short_way::{Ahead, Short};
use super::{Engine, Packet};
use crate::event::{Discard, Sink};
use crate::outbox::Outbox;
use crate::packet;
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
    /// Up to 32 packets are read before the first of them is decided. A packet that was read under
    /// settings that a reload exchanges in the meantime is read again under the newer ones.
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
        let mut all: [Ahead; OVERLAP] = std::array::from_fn(|number| {
            let packet = packets.get(number);
            packet.map_or(Ahead::Nothing, |packet| self.look_ahead(packet, screen))
        });
        for ahead in all.iter_mut().take(packets.len()) {
            match ahead {
                Ahead::Short(short) => short.candidate = self.table.prefetch_slot(short.place),
                Ahead::KeyPlace(place) => {
                    self.table.prefetch_slot(*place);
                }
                Ahead::Nothing => {}
            }
        }
        let mut last = None;
        for (number, (packet, ahead)) in packets.iter().zip(&all).enumerate() {
            let decided = match ahead {
                Ahead::Short(short) => {
                    let moment = self.moment(packet.now, last);
                    last = Some(moment);
                    let verdict = self.decide_short(packet, short, moment.micros);
                    verdict.ok_or(Some(short.place))
                }
                Ahead::KeyPlace(place) => Err(Some(*place)),
                Ahead::Nothing => Err(None),
            };
            let verdict = match decided {
                Ok(verdict) => verdict,
                Err(known) => self.decide_in_full(*packet, known, sink, &mut ()),
            };
            each(number, verdict, sink);
        }
    }

    /// Reads a packet, and prefetches the index entries of its key.
    #[inline(always)]
    fn look_ahead(&self, packet: &Packet<'_>, screen: Screen) -> Ahead {
        let ahead = match self.read_plain(packet, screen) {
            Some(plain) => self.ahead(packet, &plain, screen),
            None => self.look_ahead_in_full(packet, screen),
        };
        if let Ahead::Short(Short { place, .. }) | Ahead::KeyPlace(place) = ahead {
            self.table.prefetch_index(place);
        }
        ahead
    }

    /// Returns the place of a packet that is not in the usual form. The packet is parsed again when
    /// it is decided: that costs less than a cache miss, and less than to keep all that was read.
    #[inline(never)]
    fn look_ahead_in_full(&self, packet: &Packet<'_>, screen: Screen) -> Ahead {
        let (packet, checksums) = self.prepare(*packet, screen);
        let located = match &packet::parse(packet.bytes, checksums) {
            Ok(parsed) => self.locate(packet.zone, parsed, None),
            Err(_) => None,
        };
        located.map_or(Ahead::Nothing, |located| Ahead::KeyPlace(located.place))
    }
}
