//! Ownership of frames. Pure code: descriptors go in, and no byte of a frame is touched.

/// Descriptor of a piece of a packet, as the rings of packets hold it (`struct xdp_desc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Desc {
    /// Offset of the first byte in the memory of frames.
    pub addr: u64,
    /// Number of bytes.
    pub len: u32,
    /// Flags: [`Desc::CONTINUES`].
    pub options: u32,
}

// The layout of the kernel. Without padding, every bit pattern that the kernel writes is a value.
const _: () = assert!(size_of::<Desc>() == 16 && align_of::<Desc>() == 8);

impl Desc {
    /// Flag of a piece that another piece of the same packet follows (`XDP_PKT_CONTD`).
    pub const CONTINUES: u32 = 1;

    /// Returns whether another piece of the same packet follows.
    #[must_use]
    pub const fn continues(&self) -> bool {
        self.options & Self::CONTINUES != 0
    }
}

/// Owner of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The process; the frame holds no packet.
    Free,
    /// The kernel, which will receive into the frame.
    Fill,
    /// The process; the frame holds a piece of a received packet.
    Received,
    /// The kernel, which sends from the frame.
    Transmit,
}

/// Number of frames of each owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// See [`Owner::Free`].
    pub free: u32,
    /// See [`Owner::Fill`].
    pub fill: u32,
    /// See [`Owner::Received`].
    pub received: u32,
    /// See [`Owner::Transmit`].
    pub transmit: u32,
}

impl Counts {
    /// Returns the number of all frames.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.free + self.fill + self.received + self.transmit
    }

    fn of(&mut self, owner: Owner) -> &mut u32 {
        match owner {
            Owner::Free => &mut self.free,
            Owner::Fill => &mut self.fill,
            Owner::Received => &mut self.received,
            Owner::Transmit => &mut self.transmit,
        }
    }
}

/// Piece of a received packet: bytes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    frame: u32,
    /// Offset of the first byte in the memory of frames.
    addr: u64,
    len: u32,
}

impl Piece {
    /// Returns the number of the frame.
    #[must_use]
    pub const fn frame(&self) -> u32 {
        self.frame
    }

    /// Returns the offset of the first byte in the memory of frames.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether the piece has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Owner of each frame of a memory.
///
/// A frame moves from free to fill to received, and from there to transmit or back to free; from
/// transmit it returns to free. Each other move is refused and counted as foreign: a descriptor
/// that names a frame of another owner changes nothing.
#[derive(Debug)]
pub struct Ledger {
    owners: Box<[Owner]>,
    free: Vec<u32>,
    counts: Counts,
    shift: u32,
    foreign: u64,
}

impl Ledger {
    /// Returns a ledger of free frames of `1 << shift` bytes each.
    #[must_use]
    pub fn new(frames: u32, shift: u32) -> Self {
        Self {
            owners: vec![Owner::Free; frames as usize].into(),
            free: (0..frames).rev().collect(),
            counts: Counts {
                free: frames,
                ..Counts::default()
            },
            shift,
            foreign: 0,
        }
    }

    /// Returns the number of frames of each owner.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of descriptors that were refused.
    #[must_use]
    pub const fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Returns the owner of a frame; `None` if there is no such frame.
    #[must_use]
    pub fn owner(&self, frame: u32) -> Option<Owner> {
        self.owners.get(frame as usize).copied()
    }

    /// Returns the size of a frame in bytes.
    #[must_use]
    pub const fn frame_size(&self) -> u64 {
        1 << self.shift
    }

    fn frame_of(&self, addr: u64) -> Option<u32> {
        let frame = u32::try_from(addr >> self.shift).ok()?;
        ((frame as usize) < self.owners.len()).then_some(frame)
    }

    fn pass(&mut self, frame: u32, from: Owner, to: Owner) -> bool {
        let Some(owner) = self.owners.get_mut(frame as usize) else {
            self.foreign += 1;
            return false;
        };
        if *owner != from {
            self.foreign += 1;
            return false;
        }
        *owner = to;
        *self.counts.of(from) -= 1;
        *self.counts.of(to) += 1;
        if to == Owner::Free {
            // The capacity is the number of frames: this never allocates.
            self.free.push(frame);
        }
        true
    }

    /// Takes a free frame for the kernel to receive into, and returns its offset.
    pub fn lend(&mut self) -> Option<u64> {
        let frame = self.free.pop()?;
        self.pass(frame, Owner::Free, Owner::Fill)
            .then_some(u64::from(frame) << self.shift)
    }

    /// Takes back a frame with a received piece. Returns `None` if the bytes are not within one
    /// frame that the kernel was lent.
    pub fn receive(&mut self, desc: &Desc) -> Option<Piece> {
        let within = desc.addr & (self.frame_size() - 1);
        let fits = within + u64::from(desc.len) <= self.frame_size();
        let Some(frame) = self.frame_of(desc.addr).filter(|_| fits) else {
            self.foreign += 1;
            return None;
        };
        self.pass(frame, Owner::Fill, Owner::Received)
            .then_some(Piece {
                frame,
                addr: desc.addr,
                len: desc.len,
            })
    }

    /// Gives a received piece to the kernel to send. Returns whether it was received and not given
    /// away since.
    pub fn transmit(&mut self, piece: &Piece) -> bool {
        self.pass(piece.frame, Owner::Received, Owner::Transmit)
    }

    /// Frees the frame of a received piece.
    pub fn release(&mut self, piece: &Piece) -> bool {
        self.pass(piece.frame, Owner::Received, Owner::Free)
    }

    /// Takes back a frame from which the kernel has sent.
    pub fn complete(&mut self, addr: u64) -> bool {
        match self.frame_of(addr) {
            Some(frame) => self.pass(frame, Owner::Transmit, Owner::Free),
            None => {
                self.foreign += 1;
                false
            }
        }
    }
}
