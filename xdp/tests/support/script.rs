//! Steps of a kernel, honest or not, and of this process, with checks after each.

use portcullis_xdp::{BATCH, Batch, Desc, Ledger, MAX_PIECES, Owner, Source};

/// Number of frames.
const FRAMES: u32 = 32;
/// Bits of the size of a frame.
const SHIFT: u32 = 12;

/// Step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, arbitrary::Arbitrary)]
pub(super) enum Step {
    /// The process lends frames to the kernel.
    Lend(u8),
    /// The kernel receives a piece into a frame that it was lent.
    Receive {
        /// Place of the frame among those that were lent.
        frame: u8,
        /// Offset in the frame.
        offset: u16,
        /// Number of bytes, at most to the end of the frame.
        len: u16,
        /// Whether another piece follows.
        continues: bool,
    },
    /// The kernel writes a descriptor of its choice.
    Forge {
        /// Offset of the first byte.
        addr: u64,
        /// Number of bytes.
        len: u32,
        /// Flags.
        options: u32,
    },
    /// The process takes a batch.
    Take {
        /// Room for packets in several pieces.
        room: u16,
    },
    /// The process sends a packet back.
    SendBack {
        /// Number of the packet.
        packet: u8,
        /// Number of bytes.
        len: u16,
    },
    /// The process sends other bytes in the first frame of a packet.
    SendInstead {
        /// Number of the packet.
        packet: u8,
        /// Number of bytes.
        len: u16,
    },
    /// The process releases the rest of the batch.
    Release,
    /// The kernel has sent from a frame.
    Complete {
        /// Place among the frames from which it sends.
        frame: u8,
    },
    /// The kernel says that it has sent from a frame of its choice.
    ForgeCompletion {
        /// Offset in the memory of frames.
        addr: u64,
    },
}

impl Step {
    /// Returns whether an honest kernel may take the step.
    fn is_honest(self) -> bool {
        !matches!(self, Self::Forge { .. } | Self::ForgeCompletion { .. })
    }
}

/// Ring of descriptors.
#[derive(Default)]
pub(super) struct Ring(pub(super) Vec<Desc>);

impl Source for Ring {
    fn ready(&self) -> u32 {
        self.0.len() as u32
    }

    fn peek(&self, place: u32) -> Option<Desc> {
        self.0.get(place as usize).copied()
    }

    fn take(&mut self, count: u32) {
        self.0.drain(..count as usize);
    }
}

/// Runs steps. Panics if a check fails.
pub(super) fn run(steps: &[Step]) {
    let mut ledger = Ledger::new(FRAMES, SHIFT);
    let (mut batch, mut ring) = (Batch::default(), Ring::default());
    let (mut lent, mut sending) = (Vec::new(), Vec::new());
    let is_honest = steps.iter().all(|step| step.is_honest());
    for step in steps {
        match *step {
            Step::Lend(count) => {
                let frames = std::iter::from_fn(|| ledger.lend()).take(usize::from(count));
                lent.extend(frames);
            }
            Step::Receive {
                frame,
                offset,
                len,
                continues,
            } => {
                if !lent.is_empty() {
                    let start = lent.remove(usize::from(frame) % lent.len());
                    let offset = u64::from(offset) % (1 << SHIFT);
                    let room = (1 << SHIFT) - offset;
                    ring.0.push(Desc {
                        addr: start + offset,
                        len: u32::from(len).min(room as u32),
                        options: u32::from(continues),
                    });
                }
            }
            Step::Forge { addr, len, options } => ring.0.push(Desc { addr, len, options }),
            Step::Take { room } => batch.receive(&mut ring, &mut ledger, usize::from(room)),
            Step::SendBack { packet, len } => {
                let send = |desc| sending.push(desc);
                batch.transmit(usize::from(packet), usize::from(len), &mut ledger, send);
            }
            Step::SendInstead { packet, len } => {
                let (packet, len) = (usize::from(packet), usize::from(len));
                sending.extend(batch.transmit_one(packet, len, &mut ledger));
            }
            Step::Release => batch.release_all(&mut ledger),
            Step::Complete { frame } => {
                if !sending.is_empty() {
                    let desc = sending.remove(usize::from(frame) % sending.len());
                    assert!(ledger.complete(desc.addr) || !is_honest);
                }
            }
            Step::ForgeCompletion { addr } => {
                ledger.complete(addr);
            }
        }
        check(&ledger, &batch);
        for desc in &sending {
            let (first, last) = (desc.addr, desc.addr + u64::from(desc.len.max(1)) - 1);
            assert_eq!(first >> SHIFT, last >> SHIFT, "{desc:?} is of one frame");
            assert!(first >> SHIFT < u64::from(FRAMES));
        }
        if is_honest {
            assert_eq!(ledger.foreign(), 0);
            assert_eq!(ledger.counts().transmit as usize, sending.len());
            assert_eq!(ledger.counts().fill as usize, lent.len() + ring.0.len());
        }
    }
}

/// Checks that each frame has one owner, and that the batch has no frame of the kernel.
fn check(ledger: &Ledger, batch: &Batch) {
    let counts = ledger.counts();
    assert_eq!(counts.total(), FRAMES);
    let owned = |owner| {
        let frames = (0..FRAMES).filter(|frame| ledger.owner(*frame) == Some(owner));
        frames.count() as u32
    };
    assert_eq!(owned(Owner::Free), counts.free);
    assert_eq!(owned(Owner::Fill), counts.fill);
    assert_eq!(owned(Owner::Received), counts.received);
    assert_eq!(owned(Owner::Transmit), counts.transmit);
    assert!(batch.packets().len() <= BATCH);
    let mut held = 0;
    for (number, packet) in batch.packets().iter().enumerate() {
        let pieces = batch.pieces(number);
        assert!(pieces.len() <= MAX_PIECES);
        for piece in pieces {
            held += 1;
            assert_eq!(ledger.owner(piece.frame()), Some(Owner::Received));
            let end = piece.addr() + piece.len() as u64;
            assert!(end <= u64::from(piece.frame() + 1) << SHIFT);
        }
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert!(pieces.is_empty() || len == packet.len());
    }
    assert_eq!(held, counts.received, "each received frame is of a packet");
}
