//! The pcap format (draft-ietf-opsawg-pcap): a file header, then records.

use std::time::Duration;

use pcap_parser::nom::Err as ParseFailure;
use pcap_parser::{PcapHeader, parse_pcap_header};

use super::error::Fault;
use super::link::LinkType;
use super::located::Located;
use super::order::ByteOrder;
use super::window::{MAX_BLOCK, Window};

/// The file header's length.
const FILE_HEADER: usize = 24;
/// Bits of the header's last field that hold the link type; the higher bits describe the frame
/// check sequence.
const LINK_TYPE_BITS: u32 = 0x03ff_ffff;

/// The version in captures of OSF/1 and Digital UNIX, whose records are those of 2.2.
const DIGITAL_UNIX: (u16, u16) = (543, 0);

/// Order of the two lengths in a record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// The captured length comes first: since version 2.4.
    CapturedFirst,
    /// The length on the wire comes first: before version 2.3.
    WireFirst,
    /// Either may come first, and the captured length is never greater: version 2.3.
    Either,
}

/// A pcap whose file header has been read.
pub(super) struct Pcap {
    order: ByteOrder,
    link: LinkType,
    nanoseconds: bool,
    /// The record header's length: 16, or 24 in the format of Kuznetsov's patched libpcap.
    record_header: usize,
    lengths: Lengths,
}

impl Pcap {
    /// Reads and consumes the file header, of which four bytes are in the window.
    pub(super) fn open(window: &mut Window) -> Result<Self, Fault> {
        let whole = window.fill(FILE_HEADER)?;
        let header = match parse_pcap_header(window.bytes()) {
            Ok((_, header)) => header,
            Err(ParseFailure::Incomplete(_)) if !whole => {
                let what = format!(
                    "a pcap file header is {FILE_HEADER} bytes, {} are there",
                    window.bytes().len()
                );
                return Err(Fault::truncated(0, what));
            }
            Err(_) => {
                return Err(Fault::NotACapture {
                    found: describe(window.bytes()),
                });
            }
        };
        window.consume(FILE_HEADER);
        Self::new(&header)
    }

    fn new(header: &PcapHeader) -> Result<Self, Fault> {
        let version = (header.version_major, header.version_minor);
        let lengths = match version {
            (2, 0..=2) | DIGITAL_UNIX => Lengths::WireFirst,
            (2, 3) => Lengths::Either,
            (2, 4) => Lengths::CapturedFirst,
            (major, minor) => {
                let what = format!("pcap version {major}.{minor}, only 2.0 to 2.4 are read");
                return Err(Fault::broken(0, what));
            }
        };
        let order = if header.is_bigendian() {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        };
        Ok(Self {
            order,
            link: LinkType::from(header.network.0.cast_unsigned() & LINK_TYPE_BITS).in_order(order),
            nanoseconds: header.is_nanosecond_precision(),
            record_header: if header.is_modified_format() { 24 } else { 16 },
            lengths,
        })
    }

    /// Reads and consumes the next record; `None` at the end of the file.
    pub(super) fn next(&mut self, window: &mut Window) -> Result<Option<Located>, Fault> {
        let offset = window.offset();
        let header_is_there = window.fill(self.record_header)?;
        let truncated = |need: usize, left: usize| {
            Fault::truncated(
                offset,
                format!("a record of {need} bytes or more, {left} are left"),
            )
        };
        let fields = self.fields(window.bytes()).filter(|_| header_is_there);
        let Some([seconds, fraction, first, second]) = fields else {
            return match window.bytes().len() {
                0 => Ok(None),
                left => Err(truncated(self.record_header, left)),
            };
        };
        let (captured, wire_len) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::WireFirst => (second, first),
            Lengths::Either => (first.min(second), first.max(second)),
        };
        let need = self.record_header.saturating_add(captured as usize);
        if need > MAX_BLOCK {
            let what = format!("a record of {need} bytes, more than the {MAX_BLOCK} that are read");
            return Err(Fault::broken(offset, what));
        }
        if !window.fill(need)? {
            return Err(truncated(need, window.bytes().len()));
        }
        window.consume(self.record_header);
        let data = window.consume(captured as usize);
        Ok(Some(Located {
            time: self.time(seconds, fraction),
            link: self.link,
            data,
            wire_len,
            interface: 0,
        }))
    }

    /// Returns the four fields at the start of every record header.
    fn fields(&self, bytes: &[u8]) -> Option<[u32; 4]> {
        let field = |at| self.order.u32_at(bytes, at);
        Some([field(0)?, field(4)?, field(8)?, field(12)?])
    }

    fn time(&self, seconds: u32, fraction: u32) -> Duration {
        let fraction = if self.nanoseconds {
            Duration::from_nanos(fraction.into())
        } else {
            Duration::from_micros(fraction.into())
        };
        Duration::from_secs(seconds.into()).saturating_add(fraction)
    }
}

/// Returns the first bytes of a file that is not a capture, and its kind if that helps.
fn describe(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let kind = match bytes {
        [0x1f, 0x8b, ..] => " (gzip inside a compressed file)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => " (Zstandard inside a compressed file)",
        [0xfd, b'7', b'z', b'X', ..] => " (xz: decompress it first)",
        [0x04, 0x22, 0x4d, 0x18, ..] => " (LZ4: decompress it first)",
        [b'B', b'Z', b'h', ..] => " (bzip2: decompress it first)",
        [b's', b'n', b'o', b'o', ..] => " (snoop: convert it to pcap first)",
        _ => "",
    };
    format!("{}{kind}", hex.join(" "))
}
