//! Packets that wait for the first fragment of their datagram, or for the answer to a question.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Engine;
use crate::config::{Config, ContinuityConfig, FragmentsConfig};
use crate::fragment::HoldId;

#[derive(Debug)]
struct HeldGroup<P> {
    packets: Vec<P>,
    until: Instant,
}

#[derive(Debug)]
struct Shelf<P> {
    held: HashMap<HoldId, HeldGroup<P>>,
    /// Identifiers of fragments, and of questions, in the order of their expiry. Released ones are
    /// skipped.
    orders: [VecDeque<(HoldId, Instant)>; 2],
    ready: VecDeque<P>,
}

/// Keeps packets whose verdict was [`Verdict::Hold`](crate::Verdict::Hold) until they are to be
/// submitted to the engine again. Threads that share an engine share one of these.
///
/// `P` is the data that the caller needs to decide and send the packet later: its bytes and its
/// destination. Every packet that was put in comes out once.
///
/// ```
/// use std::time::Instant;
/// use portcullis::HoldId;
/// use portcullis::{Config, Engine, HeldPackets, Packet, Sink, Verdict};
///
/// struct Released(Vec<HoldId>);
/// impl Sink for Released {
///     fn released(&mut self, id: HoldId) {
///         self.0.push(id);
///     }
/// }
///
/// let config = Config::default();
/// let engine = Engine::new(&config)?;
/// let held = HeldPackets::<Vec<u8>>::new(&config.fragments);
/// let mut released = Released(Vec::new());
///
/// // For each packet that comes:
/// let (bytes, now) = ([0u8; 20], Instant::now());
/// let packet = Packet::new(&bytes, now).can_hold(true);
/// match engine.process_with(packet, &mut released) {
///     Verdict::Hold(id, _) => {
///         let refused = held.put(&engine, id, bytes.to_vec(), now);
///         assert!(refused.is_none());
///     }
///     verdict => println!("{}", verdict.name()),
/// }
/// // After each packet, and every few milliseconds without one:
/// let mut ready: Vec<_> = released.0.drain(..).flat_map(|id| held.take(id)).collect();
/// ready.extend(std::iter::from_fn(|| held.next(now)));
/// for bytes in ready {
///     let verdict = engine.process_with(Packet::new(&bytes, now), &mut released);
///     println!("{}", verdict.name());
/// }
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct HeldPackets<P> {
    shelf: Mutex<Shelf<P>>,
    /// Number of packets that are held or ready; changed only under the lock.
    count: AtomicUsize,
    hold: Duration,
    /// Longest time for packets that wait for an answer.
    hold_for_answer: Duration,
    max: usize,
}

impl<P> HeldPackets<P> {
    /// Returns an empty store with the bounds of a configuration, which must be the engine's: for
    /// fragments, and for packets that wait for an answer.
    #[must_use]
    pub fn with_config(config: &Config) -> Self {
        let continuity = &config.continuity;
        let questions = match continuity.enabled {
            true => continuity.max_held as usize,
            false => 0,
        };
        let fragments = Self::new(&config.fragments);
        Self {
            hold_for_answer: continuity.hold,
            max: fragments.max + 2 * questions,
            ..fragments
        }
    }

    /// Returns an empty store with the bounds of a configuration, which must be the engine's: for
    /// fragments alone.
    #[must_use]
    pub fn new(config: &FragmentsConfig) -> Self {
        Self {
            shelf: Mutex::new(Shelf {
                held: HashMap::new(),
                orders: [VecDeque::new(), VecDeque::new()],
                ready: VecDeque::new(),
            }),
            count: AtomicUsize::new(0),
            hold: config.hold,
            hold_for_answer: ContinuityConfig::DEFAULT_HOLD,
            // Packets that were released but not yet taken count too.
            max: 2 * config.max_held as usize,
        }
    }

    /// Keeps a packet that arrived at `now` and must be held. If another thread has decided the
    /// first fragment since the verdict, or the answer has come, the packet is ready immediately.
    ///
    /// Returns the packet if there is no room because [`HeldPackets::next`] was not called for a
    /// long time. Submit it to the engine again immediately, without `can_hold`.
    #[must_use]
    pub fn put(&self, engine: &Engine, id: HoldId, packet: P, now: Instant) -> Option<P> {
        let mut shelf = self.shelf.lock();
        if self.count.load(Ordering::Relaxed) >= self.max {
            return Some(packet);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let (which, hold) = match id.is_question() {
            false => (0, self.hold),
            true => (1, self.hold_for_answer),
        };
        if shelf.orders.iter().any(|order| order.len() >= 2 * self.max) {
            shelf.forget_released();
        }
        let Shelf { held, orders, .. } = &mut *shelf;
        let place = held.entry(id).or_insert_with(|| {
            let until = now.checked_add(hold).unwrap_or(now);
            if let Some(order) = orders.get_mut(which) {
                order.push_back((id, until));
            }
            HeldGroup {
                packets: Vec::new(),
                until,
            }
        });
        place.packets.push(packet);
        // The release may have happened before the packet was put here. The check under this lock
        // does not miss it.
        if !engine.holds(id) {
            shelf.release(id);
        }
        None
    }

    /// Takes the packets of an identifier that [`Sink::released`](crate::Sink::released) has
    /// reported, in the order of their arrival.
    ///
    /// The thread that received the report takes them, so that it can send them after the first
    /// fragment. A thread that receives answers and no packets calls [`HeldPackets::release`]
    /// instead.
    #[must_use]
    pub fn take(&self, id: HoldId) -> Vec<P> {
        let held = self.shelf.lock().held.remove(&id);
        let packets = held.map(|held| held.packets).unwrap_or_default();
        self.count.fetch_sub(packets.len(), Ordering::Relaxed);
        packets
    }

    /// Takes a packet whose hold time is over, or that [`HeldPackets::release`] or another thread
    /// has made ready.
    ///
    /// Call this method until it returns `None`. It takes no lock while no packet is held.
    pub fn next(&self, now: Instant) -> Option<P> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut shelf = self.shelf.lock();
        shelf.expire(now);
        let packet = shelf.ready.pop_front()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(packet)
    }

    /// Makes the packets of an identifier ready for the next call to [`HeldPackets::next`], in the
    /// order of their arrival.
    pub fn release(&self, id: HoldId) {
        self.shelf.lock().release(id);
    }

    /// Returns the maximum number of packets, held or ready.
    pub(crate) const fn max(&self) -> usize {
        self.max
    }

    /// Makes all packets ready; call this when no more packets will arrive.
    pub fn release_all(&self) {
        let mut shelf = self.shelf.lock();
        for which in 0..shelf.orders.len() {
            while let Some((id, _)) = shelf.orders.get_mut(which).and_then(VecDeque::pop_front) {
                shelf.release(id);
            }
        }
    }

    /// Returns the number of packets, held or ready.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns whether there are no packets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<P> Shelf<P> {
    fn release(&mut self, id: HoldId) {
        if let Some(held) = self.held.remove(&id) {
            self.ready.extend(held.packets);
        }
    }

    /// Removes the order entries of packets that were released.
    fn forget_released(&mut self) {
        let held = &self.held;
        for order in &mut self.orders {
            order.retain(|(id, until)| held.get(id).is_some_and(|held| held.until == *until));
        }
    }

    /// Makes the packets ready whose time is over, and removes the order entries of released
    /// packets.
    fn expire(&mut self, now: Instant) {
        for which in 0..self.orders.len() {
            while let Some((id, until)) = self.first(which) {
                // An identifier that was released and put again has a later end.
                let held = self.held.get(&id).is_some_and(|held| held.until == until);
                if held && until > now {
                    break;
                }
                if let Some(order) = self.orders.get_mut(which) {
                    order.pop_front();
                }
                if held {
                    self.release(id);
                }
            }
        }
    }

    /// Returns the identifier that expires first of one kind.
    fn first(&self, which: usize) -> Option<(HoldId, Instant)> {
        self.orders.get(which)?.front().copied()
    }
}
