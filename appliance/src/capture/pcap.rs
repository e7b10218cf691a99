//! The pcap format (draft-ietf-opsawg-pcap): a file header, then records.

use std::time::Duration;

use pcap_parser::nom::{Err as ParseFailure, IResult, Needed};
use pcap_parser::{LegacyPcapBlock, PcapError, PcapHeader};
use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header};

use super::error::Fault;
use super::link::LinkType;
use super::reader::Located;
use super::window::{MAX_BLOCK, Window};

/// The file header's length.
const FILE_HEADER: usize = 24;
/// The bits of the header's last field that are the link type; those above tell of the frame check sequence.
const LINK_TYPE_BITS: u32 = 0x03ff_ffff;

type ParseRecord = for<'a> fn(&'a [u8]) -> IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// A pcap whose file header has been read.
pub(super) struct Pcap {
    link: LinkType,
    nanoseconds: bool,
    /// The record header's length: 16, or 24 in the format that Kuznetsov's patched libpcap wrote.
    record_header: usize,
    parse: ParseRecord,
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
        // Before 2.3 the two lengths of a record stood the other way round.
        if header.version_major != 2 || header.version_minor < 3 {
            let what = format!(
                "pcap version {}.{}, only 2.3 and 2.4 are read",
                header.version_major, header.version_minor
            );
            return Err(Fault::broken(0, what));
        }
        let (record_header, parse): (usize, ParseRecord) = if header.is_modified_format() {
            (24, parse_pcap_frame_modified)
        } else if header.is_bigendian() {
            (16, parse_pcap_frame_be)
        } else {
            (16, parse_pcap_frame)
        };
        Ok(Self {
            link: LinkType::from(header.network.0.cast_unsigned() & LINK_TYPE_BITS),
            nanoseconds: header.is_nanosecond_precision(),
            record_header,
            parse,
        })
    }

    /// Reads and consumes the next record; `None` at the end of the file.
    pub(super) fn next(&mut self, window: &mut Window) -> Result<Option<Located>, Fault> {
        let offset = window.offset();
        let mut need = self.record_header;
        loop {
            if !window.fill(need)? {
                return match window.bytes().len() {
                    0 => Ok(None),
                    left => Err(Fault::truncated(
                        offset,
                        format!("a record of {need} bytes or more, {left} are left"),
                    )),
                };
            }
            match (self.parse)(window.bytes()) {
                Ok((_, record)) => {
                    let (time, wire_len, captured) = (self.time(&record), record.origlen, record.data.len());
                    window.consume(self.record_header);
                    let data = window.consume(captured);
                    return Ok(Some(Located {
                        time,
                        link: self.link,
                        data,
                        wire_len,
                        interface: 0,
                    }));
                }
                Err(ParseFailure::Incomplete(Needed::Size(missing))) => {
                    need = window.bytes().len().saturating_add(missing.get());
                }
                Err(_) => return Err(Fault::broken(offset, "no record header")),
            }
            if need > MAX_BLOCK {
                let what = format!("a record of {need} bytes, more than the {MAX_BLOCK} that are read");
                return Err(Fault::broken(offset, what));
            }
        }
    }

    fn time(&self, record: &LegacyPcapBlock<'_>) -> Duration {
        let fraction = if self.nanoseconds {
            Duration::from_nanos(record.ts_usec.into())
        } else {
            Duration::from_micros(record.ts_usec.into())
        };
        Duration::from_secs(record.ts_sec.into()).saturating_add(fraction)
    }
}

/// The first bytes of a file that is no capture, and what they are where that helps.
fn describe(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kind = match bytes {
        [0x1f, 0x8b, ..] => " (gzip: decompress it first)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => " (Zstandard: decompress it first)",
        [0xfd, b'7', b'z', b'X', ..] => " (xz: decompress it first)",
        [0x04, 0x22, 0x4d, 0x18, ..] => " (LZ4: decompress it first)",
        [b'B', b'Z', b'h', ..] => " (bzip2: decompress it first)",
        [b's', b'n', b'o', b'o', ..] => " (snoop: convert it to pcap first)",
        _ => "",
    };
    format!("{}{kind}", hex.join(" "))
}
