//! Rings that the kernel and this process share: one side produces entries, the other consumes.

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
    pub(crate) trait Entry: Copy {}
    impl Entry for u64 {}
    impl Entry for crate::ledger::Desc {}
}
use self::sealed::Entry;

/// Ring with its two counters. They run freely and wrap at 2^32.
#[derive(Debug)]
struct Ring<T> {
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    size: u32,
    /// The counter of this process's side.
    own: u32,
    of: PhantomData<T>,
}

// SAFETY: the pointers lead into the mapping, which the ring owns and which may move to another
// thread.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps a ring of a socket. `size` is a power of two.
    fn map(
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
pub(crate) struct Consumer<T>(Ring<T>);

impl<T: Entry> Consumer<T> {
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> rustix::io::Result<Self> {
        Ring::map(socket, page, offsets, size).map(Self)
    }

    /// Returns the number of entries that are ready.
    pub(crate) fn len(&self) -> u32 {
        let ring = &self.0;
        let produced = ring.counter(ring.producer).load(Ordering::Acquire);
        ring.distance(ring.own, produced)
    }

    /// Returns an entry by its place after those that were consumed.
    pub(crate) fn get(&self, place: u32) -> T {
        let entry = self.0.entry(self.0.own.wrapping_add(place));
        // SAFETY: the entry is mapped and aligned, and every bit pattern is a valid `T`. The
        // kernel does not write entries between the counters, which callers read (`len` has
        // acquired the producer's counter).
        unsafe { entry.read() }
    }

    /// Returns entries to the producer.
    pub(crate) fn consume(&mut self, count: u32) {
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

    fn peek(&self, place: u32) -> Desc {
        self.get(place)
    }

    fn take(&mut self, count: u32) {
        self.consume(count);
    }
}

/// Ring whose entries this process produces.
#[derive(Debug)]
pub(crate) struct Producer<T>(Ring<T>);

impl<T: Entry> Producer<T> {
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        page: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> rustix::io::Result<Self> {
        Ring::map(socket, page, offsets, size).map(Self)
    }

    /// Returns the number of entries that the consumer has not taken, published or not.
    pub(crate) fn len(&self) -> u32 {
        let ring = &self.0;
        let consumed = ring.counter(ring.consumer).load(Ordering::Acquire);
        ring.distance(consumed, ring.own)
    }

    /// Returns the number of entries for which there is room.
    pub(crate) fn room(&self) -> u32 {
        self.0.size - self.len()
    }

    /// Adds an entry, which the consumer sees after `publish`. The caller has checked the room.
    pub(crate) fn push(&mut self, entry: T) {
        let ring = &mut self.0;
        let place = ring.entry(ring.own);
        // SAFETY: the entry is mapped and aligned. The consumer does not read it before the counter
        // is published, nor has it still to read it: there was room.
        unsafe { place.write(entry) };
        ring.own = ring.own.wrapping_add(1);
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
