//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks.

use std::ops::Range;
use std::time::Duration;

use pcap_parser::pcapng::{
    EPB_MAGIC, IDB_MAGIC, InterfaceDescriptionBlock, OptionCode, SHB_MAGIC, SPB_MAGIC,
    parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_sectionheaderblock, parse_simplepacketblock_be, parse_simplepacketblock_le,
};

use super::error::Fault;
use super::link::LinkType;
use super::located::Located;
use super::order::ByteOrder;
use super::window::{MAX_BLOCK, Window};

/// First bytes of every pcapng file: the type of a section header block, which is the same in both
/// byte orders.
pub(super) const SECTION_HEADER_BYTES: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The obsolete packet block (draft-ietf-opsawg-pcapng, appendix A).
const PACKET_BLOCK: u32 = 2;
/// The shortest block: type, length, length.
const SHORTEST_BLOCK: usize = 12;
/// Offset of the data in an enhanced packet block and in an obsolete packet block.
const PACKET_DATA: usize = 28;
/// Offset of the data in a simple packet block.
const SIMPLE_PACKET_DATA: usize = 12;
/// Maximum length of a section header or interface description: 1 MiB. Their options are collected
/// in memory.
const MAX_DESCRIPTION: usize = 1 << 20;
/// Maximum number of interfaces of a section.
const MAX_INTERFACES: usize = 1 << 16;

/// Unit of an interface's timestamps (draft-ietf-opsawg-pcapng, section 4.2).
#[derive(Clone, Copy)]
struct Clock {
    /// `if_tsresol`: ticks are 10^-n seconds, or with the highest bit set 2^-n seconds.
    resolution: u8,
    /// `if_tsoffset`: seconds to add.
    offset: i64,
}

impl Clock {
    /// Returns the time of a timestamp since the Unix epoch. A time before the epoch becomes the
    /// epoch, and a time that is too late becomes [`Duration::MAX`].
    fn time(self, ticks: u64) -> Duration {
        const NANOS: u128 = 1_000_000_000;
        let ticks = u128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        let nanos = if self.resolution & 0x80 != 0 {
            // 64 bits of ticks times 30 bits of nanoseconds fit.
            (ticks * NANOS) >> exponent
        } else if let Some(coarser) = 9_u32.checked_sub(exponent) {
            ticks.saturating_mul(10_u128.pow(coarser))
        } else {
            10_u128
                .checked_pow(exponent - 9)
                .map_or(0, |finer| ticks / finer)
        };
        let moved = u128::from(self.offset.unsigned_abs()) * NANOS;
        let nanos = if self.offset < 0 {
            nanos.saturating_sub(moved)
        } else {
            nanos.saturating_add(moved)
        };
        match u64::try_from(nanos / NANOS) {
            Ok(seconds) => Duration::new(seconds, (nanos % NANOS) as u32),
            Err(_) => Duration::MAX,
        }
    }
}

struct Interface {
    link: LinkType,
    /// 0: no limit.
    snap_len: u32,
    clock: Clock,
}

/// A pcapng whose first section header has been read, with the state of the current section.
pub(super) struct Pcapng {
    order: ByteOrder,
    interfaces: Vec<Interface>,
    /// The time of the last frame, for packets without their own.
    time: Duration,
}

/// A whole block at the window's beginning.
struct Block {
    offset: u64,
    kind: u32,
    len: usize,
}

/// A packet within a block.
struct Packet {
    interface: u32,
    /// `None` if the block has no time.
    ticks: Option<u64>,
    /// The captured bytes, counted from the block's beginning.
    data: Range<usize>,
    wire_len: u32,
}

impl Pcapng {
    /// Reads and consumes the first section header block, whose type is in the window.
    pub(super) fn open(window: &mut Window) -> Result<Self, Fault> {
        let mut section = Self {
            order: ByteOrder::Little,
            interfaces: Vec::new(),
            time: Duration::ZERO,
        };
        if let Some(block) = section.block(window)? {
            section.begin(&block, window.bytes())?;
            window.consume(block.len);
        }
        Ok(section)
    }

    /// Reads and consumes blocks up to and including the next packet; `None` at the end of the
    /// file.
    pub(super) fn next(&mut self, window: &mut Window) -> Result<Option<Located>, Fault> {
        while let Some(block) = self.block(window)? {
            let bytes = window.bytes().get(..block.len).unwrap_or_default();
            let packet = match block.kind {
                SHB_MAGIC => {
                    self.begin(&block, bytes)?;
                    None
                }
                IDB_MAGIC => {
                    self.describe(&block, bytes)?;
                    None
                }
                EPB_MAGIC | PACKET_BLOCK => Some(self.packet(&block, bytes)?),
                SPB_MAGIC => Some(self.simple_packet(&block, bytes)?),
                _ => None,
            };
            let Some(packet) = packet else {
                window.consume(block.len);
                continue;
            };
            let interface = self.interface(&block, packet.interface)?;
            let link = interface.link;
            self.time = packet
                .ticks
                .map_or(self.time, |ticks| interface.clock.time(ticks));
            let begin = window.consume(block.len).start;
            return Ok(Some(Located {
                time: self.time,
                link,
                data: begin + packet.data.start..begin + packet.data.end,
                wire_len: packet.wire_len,
                interface: packet.interface,
            }));
        }
        Ok(None)
    }

    /// Reads the whole next block into the window and checks its frame; `None` at the end of the
    /// file.
    fn block(&self, window: &mut Window) -> Result<Option<Block>, Fault> {
        let offset = window.offset();
        if !window.fill(SHORTEST_BLOCK)? {
            let left = window.bytes().len();
            if left == 0 {
                return Ok(None);
            }
            let what = format!("a block is at least {SHORTEST_BLOCK} bytes, {left} are left");
            return Err(Fault::truncated(offset, what));
        }
        let order = if window.bytes().starts_with(&SECTION_HEADER_BYTES) {
            section_order(offset, window.bytes())?
        } else {
            self.order
        };
        let fields = order
            .u32_at(window.bytes(), 0)
            .zip(order.u32_at(window.bytes(), 4));
        let (kind, len) = fields.ok_or_else(|| Fault::broken(offset, "no block header"))?;
        let declared = len;
        let len = len as usize;
        if len < SHORTEST_BLOCK || !len.is_multiple_of(4) {
            let what = format!(
                "a block of {len} bytes (type {kind:#x}), which is not a valid block length"
            );
            return Err(Fault::broken(offset, what));
        }
        let limit = if matches!(kind, SHB_MAGIC | IDB_MAGIC) {
            MAX_DESCRIPTION
        } else {
            MAX_BLOCK
        };
        if len > limit {
            let what = format!(
                "a block of {len} bytes (type {kind:#x}), more than the {limit} that are read"
            );
            return Err(Fault::broken(offset, what));
        }
        if !window.fill(len)? {
            let what = format!(
                "a block of {len} bytes (type {kind:#x}), {} are left",
                window.bytes().len()
            );
            return Err(Fault::truncated(offset, what));
        }
        if order.u32_at(window.bytes(), len - 4) != Some(declared) {
            let what = format!(
                "a block of {len} bytes (type {kind:#x}) that does not end with its length"
            );
            return Err(Fault::broken(offset, what));
        }
        Ok(Some(Block { offset, kind, len }))
    }

    /// Begins the section of a section header block.
    fn begin(&mut self, block: &Block, bytes: &[u8]) -> Result<(), Fault> {
        let Ok((_, header)) = parse_sectionheaderblock(bytes) else {
            return Err(Fault::broken(
                block.offset,
                "a section header block that does not hold its fields",
            ));
        };
        if header.major_version != 1 {
            let what = format!(
                "pcapng version {}.{}, only 1 is read",
                header.major_version, header.minor_version
            );
            return Err(Fault::broken(block.offset, what));
        }
        self.order = if header.big_endian() {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        self.interfaces.clear();
        Ok(())
    }

    /// Records an interface description block.
    fn describe(&mut self, block: &Block, bytes: &[u8]) -> Result<(), Fault> {
        let parsed = match self.order {
            ByteOrder::Big => parse_interfacedescriptionblock_be(bytes),
            ByteOrder::Little => parse_interfacedescriptionblock_le(bytes),
        };
        let Ok((_, described)) = parsed else {
            return Err(Fault::broken(
                block.offset,
                "an interface description block that does not hold its fields",
            ));
        };
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Fault::broken(
                block.offset,
                format!("more than {MAX_INTERFACES} interfaces"),
            ));
        }
        self.interfaces.push(Interface {
            link: LinkType::from(described.linktype.0.cast_unsigned()).in_order(self.order),
            snap_len: described.snaplen,
            clock: Clock {
                resolution: described.if_tsresol,
                offset: self.time_offset(&described),
            },
        });
        Ok(())
    }

    /// `if_tsoffset` in the section's byte order; `pcap_parser` always reads it as little endian.
    fn time_offset(&self, described: &InterfaceDescriptionBlock<'_>) -> i64 {
        let option = described
            .options
            .iter()
            .find(|option| option.code == OptionCode::IfTsoffset);
        option
            .filter(|option| option.len == 8)
            .and_then(|option| self.order.i64_at(option.value(), 0))
            .unwrap_or(0)
    }

    /// Locates the packet in an enhanced or an obsolete packet block. The two differ in the width
    /// of the interface number. This code does not use `pcap_parser`, which collects every packet's
    /// options.
    fn packet(&self, block: &Block, bytes: &[u8]) -> Result<Packet, Fault> {
        let fields = || {
            let interface = if block.kind == PACKET_BLOCK {
                self.order.u16_at(bytes, 8)?.into()
            } else {
                self.order.u32_at(bytes, 8)?
            };
            let high = self.order.u32_at(bytes, 12)?;
            let low = self.order.u32_at(bytes, 16)?;
            let captured = self.order.u32_at(bytes, 20)?;
            let wire_len = self.order.u32_at(bytes, 24)?;
            Some((
                interface,
                u64::from(high) << 32 | u64::from(low),
                captured,
                wire_len,
            ))
        };
        // The four bytes that end the block are its length, not a field.
        let room = block.len.checked_sub(PACKET_DATA + 4);
        let Some(((interface, ticks, captured, wire_len), room)) = fields().zip(room) else {
            let what = format!(
                "a packet block of {} bytes, which does not hold its fields",
                block.len
            );
            return Err(Fault::broken(block.offset, what));
        };
        let captured = captured as usize;
        if captured > room {
            let what =
                format!("{captured} bytes captured in a packet block that has room for {room}");
            return Err(Fault::broken(block.offset, what));
        }
        Ok(Packet {
            interface,
            ticks: Some(ticks),
            data: PACKET_DATA..PACKET_DATA + captured,
            wire_len,
        })
    }

    /// Locates the packet in a simple packet block: of interface 0, with as many bytes as its snap
    /// length and the block allow.
    fn simple_packet(&self, block: &Block, bytes: &[u8]) -> Result<Packet, Fault> {
        let parsed = match self.order {
            ByteOrder::Big => parse_simplepacketblock_be(bytes),
            ByteOrder::Little => parse_simplepacketblock_le(bytes),
        };
        let Ok((_, packet)) = parsed else {
            return Err(Fault::broken(
                block.offset,
                "a simple packet block that does not hold its fields",
            ));
        };
        let snap_len = match self.interface(block, 0)?.snap_len {
            0 => u32::MAX,
            limit => limit,
        };
        let captured = packet.data.len().min(packet.origlen.min(snap_len) as usize);
        Ok(Packet {
            interface: 0,
            ticks: None,
            data: SIMPLE_PACKET_DATA..SIMPLE_PACKET_DATA + captured,
            wire_len: packet.origlen,
        })
    }

    fn interface(&self, block: &Block, number: u32) -> Result<&Interface, Fault> {
        self.interfaces.get(number as usize).ok_or_else(|| {
            let what = format!(
                "a packet of interface {number}, but {} are described",
                self.interfaces.len()
            );
            Fault::broken(block.offset, what)
        })
    }
}

/// Returns the byte order of the section header block at the start of `bytes`.
fn section_order(offset: u64, bytes: &[u8]) -> Result<ByteOrder, Fault> {
    match bytes.get(8..12) {
        Some([0x1a, 0x2b, 0x3c, 0x4d]) => Ok(ByteOrder::Big),
        Some([0x4d, 0x3c, 0x2b, 0x1a]) => Ok(ByteOrder::Little),
        _ => Err(Fault::broken(
            offset,
            "a section header block without the byte-order magic",
        )),
    }
}
