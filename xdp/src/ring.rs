//! Rings that the kernel and this process share: one side produces entries, the other consumes.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::xdp::XdpRingOffset;

use crate::area::Mapping;
use crate::batch::Source;
use crate::ledger::Desc;

/// Flag of a ring whose consumer must be woken (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

mod sealed {
    /// Entries of rings: plain data of which every bit pattern is valid.
    pub(crate) trait Entry: Copy + Send {}
    impl Entry for u64 {}
    impl Entry for crate::ledger::Desc {}
}
use self::sealed::Entry;

/// Ring with its two counters. They run freely and wrap at 2^32.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    size: u32,
    /// The counter of this process's side.
    own: u32,
    /// The other side's counter, as it was read last.
    other: Cell<u32>,
    of: PhantomData<T>,
}

// SAFETY: the pointers lead into the mapping, which the ring owns and which may move to another
// thread, as may the entries.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps a ring of a socket. `size` is a power of two.
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> rustix::io::Result<Self> {
        let len = usize::try_from(offsets.desc).unwrap_or(usize::MAX);
        let len = len.saturating_add(size as usize * size_of::<T>());
        let (protection, flags) = (
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::POPULATE,
        );
        // SAFETY: a null hint lets the kernel choose unused addresses.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, socket, page) }?;
        // SAFETY: the call has mapped `len` bytes at `start`, and nothing else knows of them.
        let mapping = unsafe { Mapping::own(start, len) };
        mapping
            .and_then(|mapping| Self::within(mapping, offsets, size))
            .ok_or(rustix::io::Errno::INVAL)
    }

    /// Finds the parts of a ring in its memory; `None` if they are not within it.
    fn within(mapping: Mapping, offsets: &XdpRingOffset, size: u32) -> Option<Self> {
        let counter = |offset| Some(mapping.at(offset, 4, align_of::<AtomicU32>())?.cast());
        let bytes = size as usize * size_of::<T>();
        Some(Self {
            producer: counter(offsets.producer)?,
            consumer: counter(offsets.consumer)?,
            flags: match offsets.flags {
                Some(offset) => Some(counter(offset)?),
                None => None,
            },
            entries: mapping.at(offsets.desc, bytes, align_of::<T>())?.cast(),
            _mapping: mapping,
            size,
            own: 0,
            other: Cell::new(0),
            of: PhantomData,
        })
    }

    fn counter(&self, which: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: the counter is 4 aligned bytes of the mapping, which lives as long as `self`.
        // Both sides access it atomically.
        unsafe { which.as_ref() }
    }

    /// Returns the number of entries between the counters; at most all entries, whatever the other
    /// side writes.
    fn distance(&self, from: u32, to: u32) -> u32 {
        to.wrapping_sub(from).min(self.size)
    }

    /// Returns the entry of a counter's value.
    fn entry(&self, at: u32) -> NonNull<T> {
        let place = (at & (self.size - 1)) as usize;
        // SAFETY: the place is below `size`, and `size` entries are mapped.
        unsafe { self.entries.add(place) }
    }

    fn wants_wakeup(&self) -> bool {
        self.flags
            .is_none_or(|flags| self.counter(flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0)
    }
}

/// Ring whose entries this process consumes.
#[derive(Debug)]
pub(crate) struct Consumer<T>(pub(crate) Ring<T>);

impl<T: Entry> Consumer<T> {
    /// Returns the number of entries that are ready.
    pub(crate) fn len(&self) -> u32 {
        let ring = &self.0;
        let produced = ring.counter(ring.producer).load(Ordering::Acquire);
        ring.other.set(produced);
        self.known()
    }

    /// Returns the number of entries that were ready when `len` was called last.
    fn known(&self) -> u32 {
        self.0.distance(self.0.own, self.0.other.get())
    }

    /// Returns an entry by its place after those that were consumed; `None` if it was not ready
    /// when `len` was called last.
    pub(crate) fn get(&self, place: u32) -> Option<T> {
        if place >= self.known() {
            return None;
        }
        let entry = self.0.entry(self.0.own.wrapping_add(place));
        // SAFETY: the entry is mapped and aligned, and every bit pattern is a valid `T`. It is
        // between the counters, where the kernel does not write: `len` has acquired the producer's
        // counter.
        Some(unsafe { entry.read() })
    }

    /// Returns entries to the producer; at most those that were ready when `len` was called last.
    pub(crate) fn consume(&mut self, count: u32) {
        let count = count.min(self.known());
        let ring = &mut self.0;
        ring.own = ring.own.wrapping_add(count);
        ring.counter(ring.consumer)
            .store(ring.own, Ordering::Release);
    }
}

impl Source for Consumer<Desc> {
    fn ready(&self) -> u32 {
        self.len()
    }

    fn peek(&self, place: u32) -> Option<Desc> {
        self.get(place)
    }

    fn take(&mut self, count: u32) {
        self.consume(count);
    }
}

/// Ring whose entries this process produces.
#[derive(Debug)]
pub(crate) struct Producer<T>(pub(crate) Ring<T>);

impl<T: Entry> Producer<T> {
    /// Returns the number of entries that the consumer has not taken, published or not.
    pub(crate) fn len(&self) -> u32 {
        let ring = &self.0;
        let consumed = ring.counter(ring.consumer).load(Ordering::Acquire);
        ring.other.set(consumed);
        ring.distance(consumed, ring.own)
    }

    /// Returns the number of entries for which there is room.
    pub(crate) fn room(&self) -> u32 {
        self.0.size - self.len()
    }

    /// Adds an entry, which the consumer sees after `publish`. Returns whether there was room.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        let ring = &self.0;
        let has_room = ring.distance(ring.other.get(), ring.own) < ring.size;
        if !has_room && self.room() == 0 {
            return false;
        }
        let ring = &mut self.0;
        let place = ring.entry(ring.own);
        // SAFETY: the entry is mapped and aligned. The consumer does not read it before the counter
        // is published, nor has it still to read it: there was room by a counter of the consumer
        // that was acquired.
        unsafe { place.write(entry) };
        ring.own = ring.own.wrapping_add(1);
        true
    }

    /// Shows all added entries to the consumer.
    pub(crate) fn publish(&self) {
        let ring = &self.0;
        ring.counter(ring.producer)
            .store(ring.own, Ordering::Release);
    }

    /// Returns whether the consumer must be woken.
    pub(crate) fn wants_wakeup(&self) -> bool {
        self.0.wants_wakeup()
    }
}

#[cfg(test)]
impl<T: Entry> Ring<T> {
    /// Parts of a ring in memory of its own, with room for 64 entries of 16 bytes.
    fn offsets(desc: u64) -> XdpRingOffset {
        XdpRingOffset {
            producer: 0,
            consumer: 64,
            desc,
            flags: Some(128),
        }
    }

    /// Returns a ring in memory of its own, whose counters both begin at `start`.
    pub(crate) fn in_memory(start: u32, size: u32) -> Self {
        let mapping = Mapping::zeroed(4_096).unwrap();
        let mut ring = Self::within(mapping, &Self::offsets(192), size).unwrap();
        ring.own = start;
        ring.other.set(start);
        for counter in [ring.producer, ring.consumer] {
            ring.counter(counter).store(start, Ordering::Relaxed);
        }
        ring
    }

    /// Returns the other side of a ring, which must outlive it.
    pub(crate) fn other_side(&self) -> Self {
        Self {
            _mapping: Mapping::zeroed(1).unwrap(),
            producer: self.producer,
            consumer: self.consumer,
            flags: self.flags,
            entries: self.entries,
            size: self.size,
            own: self.own,
            other: Cell::new(self.own),
            of: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = 8;

    fn ring(start: u32) -> Ring<u64> {
        Ring::in_memory(start, SIZE)
    }

    #[test]
    fn a_ring_outside_of_its_memory_is_refused() {
        for (desc, size) in [(4_096 - 63, SIZE), (4_096, SIZE), (u64::MAX, 1), (193, 1)] {
            let mapping = Mapping::zeroed(4_096).unwrap();
            assert!(Ring::<u64>::within(mapping, &Ring::<u64>::offsets(desc), size).is_none());
        }
    }

    #[test]
    fn a_producer_fills_the_ring_once_and_goes_on_after_the_consumer_across_the_wrap() {
        let mut producer = Producer(ring(u32::MAX - 2));
        for value in 0..u64::from(SIZE) {
            assert!(producer.push(value));
        }
        assert!(!producer.push(99), "the ring is full");
        assert_eq!((producer.room(), producer.len()), (0, SIZE));
        let ring = &producer.0;
        let published = ring.counter(ring.producer);
        assert_eq!(published.load(Ordering::Relaxed), u32::MAX - 2);
        producer.publish();
        let ring = &producer.0;
        let (published, consumed) = (ring.counter(ring.producer), ring.counter(ring.consumer));
        assert_eq!(published.load(Ordering::Relaxed), 5);
        consumed.store(1, Ordering::Relaxed);
        assert_eq!(producer.room(), 4);
    }

    #[test]
    fn a_consumer_reads_entries_in_order_across_the_wrap() {
        let mut producer = Producer(ring(u32::MAX - 2));
        for value in 0..6 {
            assert!(producer.push(value));
        }
        producer.publish();
        let Producer(mut ring) = producer;
        ring.own = u32::MAX - 2;
        let mut consumer = Consumer(ring);
        assert_eq!(consumer.len(), 6);
        assert_eq!((0..6).filter_map(|at| consumer.get(at)).sum::<u64>(), 15);
        assert_eq!(consumer.get(6), None);
        consumer.consume(5);
        assert_eq!((consumer.len(), consumer.get(0)), (1, Some(5)));
        consumer.consume(2);
        assert_eq!((consumer.len(), consumer.get(0)), (0, None));
    }

    #[test]
    fn two_threads_pass_every_entry_in_order() {
        // Miri runs some thousand times as slow. Both counts reach across the wrap.
        const COUNT: u64 = if cfg!(miri) { 300 } else { 20_000 };
        // A side that makes no progress for so many turns has lost an entry.
        const IDLE: u32 = if cfg!(miri) { 10_000 } else { 10_000_000 };
        let near = ring(u32::MAX - 100);
        let mut producer = Producer(near.other_side());
        // The memory outlives the other thread.
        let mut consumer = Consumer(near);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for value in 0..COUNT {
                    let mut idle = 0;
                    while !producer.push(value) && idle < IDLE {
                        idle += 1;
                        std::thread::yield_now();
                    }
                    producer.publish();
                    if idle == IDLE {
                        return;
                    }
                }
            });
            let (mut expected, mut wrong, mut idle) = (0, 0, 0);
            while expected < COUNT && idle < IDLE {
                let ready = consumer.len();
                idle = if ready == 0 { idle + 1 } else { 0 };
                for place in 0..ready {
                    wrong += u64::from(consumer.get(place) != Some(expected));
                    expected += 1;
                }
                consumer.consume(ready);
                std::thread::yield_now();
            }
            assert_eq!((expected, wrong), (COUNT, 0));
        });
    }

    #[test]
    fn a_counter_that_lies_never_leads_outside() {
        let consumer = Consumer(ring(7));
        let ring = &consumer.0;
        ring.counter(ring.producer).store(6, Ordering::Relaxed);
        assert_eq!(consumer.len(), SIZE);
        for (place, entry) in [(0, Some(0)), (SIZE, None), (u32::MAX, None)] {
            assert_eq!(consumer.get(place), entry);
        }
    }

    #[test]
    fn the_flag_of_the_kernel_says_whether_it_must_be_woken() {
        let producer = Producer(ring(0));
        assert!(!producer.wants_wakeup());
        let flags = producer.0.flags.unwrap();
        producer.0.counter(flags).store(1, Ordering::Relaxed);
        assert!(producer.wants_wakeup());
    }
}
