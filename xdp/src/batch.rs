//! Packets of a batch, put together from descriptors. Pure code, as the ledger.

use std::ops::Range;

use crate::ledger::{Desc, Ledger, Piece};

/// Largest number of packets of a batch.
pub const BATCH: usize = 64;
/// Largest number of pieces of a packet: the linear part of a buffer of the kernel, and 17 pages.
pub const MAX_PIECES: usize = 18;

/// Ring of descriptors that the kernel has produced.
pub trait Source {
    /// Returns the number of descriptors that are ready.
    fn ready(&self) -> u32;
    /// Returns a descriptor by its place after those that were taken; `None` if it is not ready.
    fn peek(&self, place: u32) -> Option<Desc>;
    /// Takes descriptors, in order.
    fn take(&mut self, count: u32);
}

/// Received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pieces: Range<usize>,
    len: usize,
    settled: bool,
}

impl Packet {
    /// Returns the number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the packet has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Packets that were received together. Each is sent or released before the next batch.
#[derive(Debug)]
pub struct Batch {
    packets: Vec<Packet>,
    pieces: Vec<Piece>,
    /// Packets with a piece that the ledger refused, or with too many pieces.
    malformed: u64,
    /// The next piece is of a packet with too many.
    skips: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            packets: Vec::with_capacity(BATCH),
            pieces: Vec::with_capacity(BATCH * MAX_PIECES),
            malformed: 0,
            skips: false,
        }
    }
}

impl Batch {
    /// Takes the packets that are ready, at most [`BATCH`] and `room` bytes of those with several
    /// pieces. A packet whose last piece is not ready stays in the ring. Packets of the last batch
    /// that are not settled are released.
    pub fn receive(&mut self, source: &mut impl Source, ledger: &mut Ledger, room: usize) {
        self.release_all(ledger);
        self.packets.clear();
        self.pieces.clear();
        let (ready, mut done, mut room) = (source.ready(), 0, room);
        while self.packets.len() < BATCH && done < ready {
            if self.skips {
                let Some(desc) = source.peek(done) else {
                    break;
                };
                self.skip(&desc, ledger);
                done += 1;
                continue;
            }
            let Some(pieces) = whole(source, done, ready) else {
                break;
            };
            let descs = (done..done + pieces).filter_map(|place| source.peek(place));
            let len: usize = descs.map(|desc| desc.len as usize).sum();
            if pieces > 1 {
                // Only a packet of more than 64 KiB fits into no empty room: it is malformed.
                if len > room && self.packets.iter().any(|packet| packet.pieces.len() > 1) {
                    break;
                }
                self.put(source, ledger, done..done + pieces, len <= room);
                room = room.saturating_sub(len);
            } else {
                self.put(source, ledger, done..done + 1, true);
            }
            done += pieces;
        }
        source.take(done);
    }

    /// Releases the frame of a piece of a packet with too many pieces.
    fn skip(&mut self, desc: &Desc, ledger: &mut Ledger) {
        if let Some(piece) = ledger.receive(desc) {
            ledger.release(&piece);
        }
        self.skips = desc.continues();
    }

    /// Adds the packet of some descriptors, or releases all its frames.
    fn put(
        &mut self,
        source: &impl Source,
        ledger: &mut Ledger,
        places: Range<u32>,
        acceptable: bool,
    ) {
        let start = self.pieces.len();
        let count = places.len();
        let mut continues = false;
        for desc in places.filter_map(|place| source.peek(place)) {
            continues = desc.continues();
            self.pieces.extend(ledger.receive(&desc));
        }
        let pieces = start..self.pieces.len();
        if acceptable && pieces.len() == count && !continues {
            let len = self.pieces.iter().skip(start).map(Piece::len).sum();
            self.packets.push(Packet {
                pieces,
                len,
                settled: false,
            });
            return;
        }
        self.malformed += 1;
        self.skips = continues;
        for piece in self.pieces.drain(start..) {
            ledger.release(&piece);
        }
    }

    /// Returns the packets.
    #[must_use]
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// Returns the pieces of a packet; none if there is no such packet or it is settled.
    #[must_use]
    pub fn pieces(&self, number: usize) -> &[Piece] {
        self.packets
            .get(number)
            .filter(|packet| !packet.settled)
            .and_then(|packet| self.pieces.get(packet.pieces.clone()))
            .unwrap_or_default()
    }

    /// Returns the number of packets that were malformed.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Gives the first `len` bytes of a packet to the kernel to send, and releases the frames of
    /// the others. `send` receives the descriptors. Returns whether anything was sent.
    pub fn transmit(
        &mut self,
        number: usize,
        len: usize,
        ledger: &mut Ledger,
        mut send: impl FnMut(Desc),
    ) -> bool {
        let mut left = len;
        let mut sent = false;
        for piece in self.pieces(number) {
            let bytes = left.min(piece.len());
            if bytes == 0 {
                ledger.release(piece);
                continue;
            }
            left -= bytes;
            if ledger.transmit(piece) {
                sent = true;
                send(Desc {
                    addr: piece.addr(),
                    len: bytes as u32,
                    options: if left > 0 { Desc::CONTINUES } else { 0 },
                });
            }
        }
        self.settle(number);
        sent
    }

    /// Gives the first frame of a packet to the kernel to send, with `len` bytes from the start of
    /// the packet on, and releases the others. `len` may exceed that of the packet, but not the end
    /// of the frame.
    pub fn transmit_one(&mut self, number: usize, len: usize, ledger: &mut Ledger) -> Option<Desc> {
        let (first, others) = self.pieces(number).split_first()?;
        let within = first.addr() & (ledger.frame_size() - 1);
        if within + len as u64 > ledger.frame_size() || !ledger.transmit(first) {
            return None;
        }
        let desc = Desc {
            addr: first.addr(),
            len: len as u32,
            options: 0,
        };
        for piece in others {
            ledger.release(piece);
        }
        self.settle(number);
        Some(desc)
    }

    /// Releases the packets that are not settled.
    pub fn release_all(&mut self, ledger: &mut Ledger) {
        for number in 0..self.packets.len() {
            for piece in self.pieces(number) {
                ledger.release(piece);
            }
            self.settle(number);
        }
    }

    fn settle(&mut self, number: usize) {
        if let Some(packet) = self.packets.get_mut(number) {
            packet.settled = true;
        }
    }
}

/// Returns the number of descriptors of the packet that begins at `place`; `None` if its last piece
/// is not ready. A packet of too many pieces ends after [`MAX_PIECES`].
fn whole(source: &impl Source, place: u32, ready: u32) -> Option<u32> {
    let mut pieces = 1;
    while source.peek(place + pieces - 1)?.continues() && (pieces as usize) < MAX_PIECES {
        pieces += 1;
        if place + pieces > ready {
            return None;
        }
    }
    Some(pieces)
}
