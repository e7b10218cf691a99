//! Memory of frames, which the kernel and this process share.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::batch::{Batch, Source};
use crate::ledger::{Desc, Ledger, Owner, Piece};

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this value is its only owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Takes ownership of mapped memory.
    ///
    /// # Safety
    /// `start` must be the start of `len` mapped bytes that nothing else unmaps. A mapping begins
    /// at a page, so an aligned offset is an aligned address ([`Mapping::at`]).
    pub(crate) unsafe fn own(start: *mut c_void, len: usize) -> Option<Self> {
        NonNull::new(start.cast()).map(|start| Self { start, len })
    }

    /// Maps zeroed memory.
    pub(crate) fn zeroed(len: usize) -> rustix::io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose unused addresses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        // SAFETY: the call has mapped `len` bytes at `start`, and nothing else knows of them.
        unsafe { Self::own(start, len) }.ok_or(rustix::io::Errno::NOMEM)
    }

    /// Returns a pointer to `size` bytes at an offset that is aligned for `align`; `None` if they
    /// are not within the mapping.
    pub(crate) fn at(&self, offset: u64, size: usize, align: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(size)?;
        if end > self.len || offset % align != 0 {
            return None;
        }
        // SAFETY: the offset is within the mapping, as checked above.
        Some(unsafe { self.start.add(offset) })
    }

    /// Returns the address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Returns the number of bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length, and no reference to it outlives the
        // mapping: every reference borrows from an owner of this value.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Frames with their owners. Only bytes of frames that hold received packets can be reached, and
/// the kernel does not touch these.
#[derive(Debug)]
pub(crate) struct Frames {
    memory: Mapping,
    /// No other module may replace it or give a frame away: bytes are borrowed from `self`.
    ledger: Ledger,
}

impl Frames {
    /// Maps `count` frames of `1 << shift` bytes.
    pub(crate) fn new(count: u32, shift: u32) -> rustix::io::Result<Self> {
        Ok(Self {
            memory: Mapping::zeroed((count as usize) << shift)?,
            ledger: Ledger::new(count, shift),
        })
    }

    /// Returns the memory, to register it.
    pub(crate) const fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Returns the owners.
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Calls [`Ledger::lend`].
    pub(crate) fn lend(&mut self) -> Option<u64> {
        self.ledger.lend()
    }

    /// Calls [`Ledger::complete`].
    pub(crate) fn complete(&mut self, addr: u64) -> bool {
        self.ledger.complete(addr)
    }

    /// Calls [`Batch::receive`].
    pub(crate) fn receive(&mut self, batch: &mut Batch, source: &mut impl Source, room: usize) {
        batch.receive(source, &mut self.ledger, room);
    }

    /// Calls [`Batch::transmit`].
    pub(crate) fn transmit(
        &mut self,
        batch: &mut Batch,
        number: usize,
        len: usize,
        send: impl FnMut(Desc),
    ) -> bool {
        batch.transmit(number, len, &mut self.ledger, send)
    }

    /// Calls [`Batch::transmit_one`].
    pub(crate) fn transmit_one(
        &mut self,
        batch: &mut Batch,
        number: usize,
        len: usize,
    ) -> Option<Desc> {
        batch.transmit_one(number, len, &mut self.ledger)
    }

    /// Calls [`Batch::release_all`].
    pub(crate) fn release_all(&mut self, batch: &mut Batch) {
        batch.release_all(&mut self.ledger);
    }

    /// Returns the memory from the first byte of a piece on, if the frame is this process's and
    /// holds `len` bytes from there.
    fn start(&self, piece: &Piece, len: usize) -> Option<NonNull<u8>> {
        let within = piece.addr() & (self.ledger.frame_size() - 1);
        let fits = within + len as u64 <= self.ledger.frame_size();
        let is_ours = self.ledger.owner(piece.frame()) == Some(Owner::Received);
        if fits && is_ours {
            self.memory.at(piece.addr(), len, 1)
        } else {
            None
        }
    }

    /// Returns the bytes of a piece; none if it was given away.
    pub(crate) fn bytes(&self, piece: &Piece) -> &[u8] {
        match self.start(piece, piece.len()) {
            // SAFETY: the bytes are mapped and initialized (zeroed at first). They belong to a
            // frame that the kernel has returned and not been given again: giving it away needs
            // `&mut self`, which the returned borrow excludes.
            Some(start) => unsafe { std::slice::from_raw_parts(start.as_ptr(), piece.len()) },
            None => &[],
        }
    }

    /// Writes bytes over the start of a piece, and over the rest of its frame if they are longer.
    /// Returns whether they fit.
    pub(crate) fn write(&mut self, piece: &Piece, offset: usize, bytes: &[u8]) -> bool {
        let Some(end) = offset.checked_add(bytes.len()) else {
            return false;
        };
        let Some(start) = self.start(piece, end) else {
            return false;
        };
        // SAFETY: the offset is at most `end`, and `end` bytes from `start` on are mapped.
        let to = unsafe { start.add(offset) };
        // SAFETY: `to` starts `bytes.len()` mapped bytes of a frame that the kernel does not touch.
        // `&mut self` excludes other borrows of them, so that `bytes` cannot overlap.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }
}
