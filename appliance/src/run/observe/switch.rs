//! State that the taps of the workers, the hub and the clients share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::{Mutex, RwLock};

use super::event::Observed;
use super::filter::Filter;
use super::ring::{Past, Ring};

/// Clients at once.
pub(crate) const MAX_OBSERVERS: usize = 8;
/// Events that wait for the hub.
const QUEUE: usize = 1024;
/// Events that wait for one client.
const CLIENT_QUEUE: usize = 2048;
/// Bit of the ring in [`Receivers`].
const RING: u16 = 1 << 15;

/// Receivers of an event: clients by their slots, and the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Receivers(u16);

impl Receivers {
    /// Adds the ring.
    pub(crate) const fn add_ring(&mut self) {
        self.0 |= RING;
    }

    /// Adds the client in a slot.
    pub(crate) const fn add(&mut self, slot: usize) {
        self.0 |= 1 << slot;
    }

    /// Adds the ring and all clients.
    pub(crate) const fn add_all(&mut self) {
        self.0 = u16::MAX;
    }

    /// Returns whether there are none.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the ring is one of them.
    pub(crate) const fn has_ring(self) -> bool {
        self.0 & RING != 0
    }

    /// Returns whether the client in a slot is one of them.
    pub(crate) const fn has(self, slot: usize) -> bool {
        self.0 & (1 << slot) != 0
    }
}

/// Event on its way to the hub.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) to: Receivers,
    pub(crate) event: Observed,
}

/// Wishes of a client, as the workers read them.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) slot: usize,
    pub(crate) filter: Arc<Filter>,
    /// Most events in a second.
    pub(crate) rate: u32,
    /// Whether the client wants only packets whose decision was traced.
    pub(crate) explain: bool,
    pub(crate) left_out: Arc<LeftOut>,
}

/// Counts of events that match a client's filter, or may match it, and do not reach it.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// Events beyond the rate or a reason's share.
    pub(crate) rate: AtomicU64,
    /// Events that found a queue full.
    pub(crate) queue: AtomicU64,
    /// Forwarded packets that were not compared with the filter of a client of traces.
    pub(crate) unexamined: AtomicU64,
}

/// Counters of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ObserveCounts {
    /// Clients that are connected.
    pub(crate) clients: usize,
    /// Events that the ring has received.
    pub(crate) kept: u64,
    /// Events that clients have received.
    pub(crate) delivered: u64,
    /// Events beyond the share of their reason in the ring.
    pub(crate) ring_share: u64,
    /// Events beyond the rate of a client, or the share of their reason in it.
    pub(crate) client_rate: u64,
    /// Events that found the queue of the hub full.
    pub(crate) hub_queue: u64,
    /// Events that found the queue of a client full.
    pub(crate) client_queue: u64,
    /// Events whose session had gone before a filter that depends on it was evaluated.
    pub(crate) session_gone: u64,
    /// Forwarded packets that were not compared with the filters of clients of traces.
    pub(crate) unexamined: u64,
    /// Failures of the thread that distributes events; it began again after each.
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) delivered: AtomicU64,
    ring_share: AtomicU64,
    pub(super) client_rate: AtomicU64,
    hub_queue: AtomicU64,
    /// Events for the ring that it has not received: beyond a share, or of a full queue.
    missed_by_ring: AtomicU64,
    client_queue: AtomicU64,
    pub(super) session_gone: AtomicU64,
    pub(super) unexamined: AtomicU64,
    failures: AtomicU64,
}

/// Client as the hub knows it.
struct Listener {
    slot: usize,
    refilter: Refilter,
    sender: SyncSender<Arc<Observed>>,
    left_out: Arc<LeftOut>,
}

/// Ring and clients. One lock covers both, so that a client receives each event once: from the ring
/// or from its queue.
#[derive(Debug)]
struct Hub {
    ring: Ring,
    listeners: Vec<Listener>,
}

/// Shared state of the stream.
#[derive(Debug)]
pub(crate) struct Observers {
    sender: SyncSender<Sent>,
    receiver: Mutex<Option<Receiver<Sent>>>,
    /// Number of changes of the wishes. A tap with another number takes the wishes over.
    epoch: AtomicU64,
    wishes: RwLock<Arc<Vec<Wish>>>,
    hub: Mutex<Hub>,
    /// Held while filters search names, so that the newest names are taken over last.
    refiltering: Mutex<()>,
    pub(super) counters: Counters,
}

impl Default for Observers {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            epoch: AtomicU64::new(0),
            wishes: RwLock::default(),
            hub: Mutex::new(Hub {
                ring: Ring::default(),
                listeners: Vec::new(),
            }),
            refiltering: Mutex::default(),
            counters: Counters::default(),
        }
    }
}

/// Source of a client's filter with the names of now; `None` if one of them is gone.
pub(crate) type Refilter = Arc<dyn Fn() -> Option<Filter> + Send + Sync>;

/// Stream that a client asks for.
pub(crate) struct Subscription {
    pub(crate) filter: Filter,
    /// Called after a reload: names of rules and zones may have new numbers.
    pub(crate) refilter: Refilter,
    pub(crate) rate: u32,
    pub(crate) explain: bool,
    /// Whether the client receives events after those of the ring.
    pub(crate) follow: bool,
}

/// A client's place in the stream, which ends when dropped.
#[derive(Debug)]
pub(crate) struct Subscribed<'o> {
    observers: &'o Observers,
    slot: usize,
    pub(crate) events: Receiver<Arc<Observed>>,
    /// Events of the ring, the oldest first.
    pub(crate) past: Vec<Past>,
    pub(crate) left_out: Arc<LeftOut>,
}

impl Observers {
    /// Takes the receiving end of the queue, which the hub needs; `None` the second time.
    pub(super) fn take_receiver(&self) -> Option<Receiver<Sent>> {
        self.receiver.lock().take()
    }

    /// Returns the number of changes of the wishes.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Returns the wishes of all clients.
    pub(super) fn wishes(&self) -> Arc<Vec<Wish>> {
        Arc::clone(&self.wishes.read())
    }

    fn change_wishes(&self, change: impl FnOnce(&mut Vec<Wish>)) {
        let mut wishes = self.wishes.write();
        let mut changed = (**wishes).clone();
        change(&mut changed);
        *wishes = Arc::new(changed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts an event into the queue of the hub. Returns whether it found room.
    pub(super) fn send(&self, sent: Sent) -> bool {
        self.sender.try_send(sent).is_ok()
    }

    /// Takes over the rules and zones of a reload into the filters of all clients. A filter that
    /// names one that is gone stays as it was. No other lock is held while filters search names.
    pub(crate) fn follow_reload(&self) {
        let _refiltering = self.refiltering.lock();
        let of_client = |each: &Listener| (Arc::clone(&each.left_out), Arc::clone(&each.refilter));
        let clients: Vec<_> = self.hub.lock().listeners.iter().map(of_client).collect();
        let filters: Vec<_> = clients
            .into_iter()
            .filter_map(|(client, refilter)| Some((client, Arc::new(refilter()?))))
            .collect();
        self.change_wishes(|wishes| {
            for wish in wishes {
                // A slot may have another client by now.
                let mut filters = filters.iter();
                let own = filters.find(|(client, _)| Arc::ptr_eq(client, &wish.left_out));
                if let Some((_, filter)) = own {
                    wish.filter = Arc::clone(filter);
                }
            }
        });
    }

    /// Counts a failure of the thread that distributes events.
    pub(super) fn count_failure(&self) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that a tap has left out.
    pub(super) fn count_left_out(&self, ring_share: u64, hub_queue: u64) {
        let add = |counter: &AtomicU64, count| {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        add(&self.counters.ring_share, ring_share);
        add(&self.counters.hub_queue, hub_queue);
    }

    /// Adds a client, and returns its place; `None` if there are [`MAX_OBSERVERS`].
    pub(crate) fn subscribe(&self, subscription: Subscription) -> Option<Subscribed<'_>> {
        let (sender, events) = sync_channel(CLIENT_QUEUE);
        let left_out = Arc::<LeftOut>::default();
        let mut hub = self.hub.lock();
        let is_free = |slot: &usize| hub.listeners.iter().all(|each| each.slot != *slot);
        let slot = (0..MAX_OBSERVERS).find(is_free)?;
        hub.listeners.push(Listener {
            slot,
            refilter: subscription.refilter,
            sender,
            left_out: Arc::clone(&left_out),
        });
        let past = hub.ring.events(self.missed_by_ring());
        drop(hub);
        if subscription.follow {
            let wish = Wish {
                slot,
                filter: Arc::new(subscription.filter),
                rate: subscription.rate,
                explain: subscription.explain,
                left_out: Arc::clone(&left_out),
            };
            self.change_wishes(|wishes| wishes.push(wish));
        }
        Some(Subscribed {
            observers: self,
            slot,
            events,
            past,
            left_out,
        })
    }

    /// Keeps an event, and passes it to its clients.
    pub(super) fn pass_on(&self, sent: Sent) {
        let Sent { to, event } = sent;
        let event = Arc::new(event);
        let mut hub = self.hub.lock();
        if to.has_ring() {
            hub.ring.push(Arc::clone(&event), self.missed_by_ring());
        }
        let receivers = hub.listeners.iter().filter(|each| to.has(each.slot));
        for listener in receivers {
            if let Err(TrySendError::Full(_)) = listener.sender.try_send(Arc::clone(&event)) {
                listener.left_out.queue.fetch_add(1, Ordering::Relaxed);
                self.counters.client_queue.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts events for the ring that a tap has not sent there.
    pub(super) fn count_missed_by_ring(&self, events: u64) {
        if events > 0 {
            let counter = &self.counters.missed_by_ring;
            counter.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Returns the number of events for the ring that it has not received since the start.
    fn missed_by_ring(&self) -> u64 {
        self.counters.missed_by_ring.load(Ordering::Relaxed)
    }

    /// Returns the counters.
    pub(crate) fn counts(&self) -> ObserveCounts {
        let (clients, kept) = {
            let hub = self.hub.lock();
            (hub.listeners.len(), hub.ring.received())
        };
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ObserveCounts {
            clients,
            kept,
            delivered: value(&self.counters.delivered),
            ring_share: value(&self.counters.ring_share),
            client_rate: value(&self.counters.client_rate),
            hub_queue: value(&self.counters.hub_queue),
            client_queue: value(&self.counters.client_queue),
            session_gone: value(&self.counters.session_gone),
            unexamined: value(&self.counters.unexamined),
            failures: value(&self.counters.failures),
        }
    }
}

impl Subscribed<'_> {
    /// Returns the number of changes of the wishes: the filter may be another one after a change.
    pub(super) fn epoch(&self) -> u64 {
        self.observers.epoch()
    }

    /// Returns the filter in force; `None` for a client that does not follow.
    pub(super) fn filter(&self) -> Option<Arc<Filter>> {
        let wishes = self.observers.wishes();
        let own = wishes.iter().find(|wish| wish.slot == self.slot);
        own.map(|wish| Arc::clone(&wish.filter))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        let slot = self.slot;
        self.observers
            .change_wishes(|wishes| wishes.retain(|wish| wish.slot != slot));
        let mut hub = self.observers.hub.lock();
        hub.listeners.retain(|each| each.slot != slot);
    }
}
