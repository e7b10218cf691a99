//! Writing the pcapng format (draft-ietf-opsawg-pcapng): one little-endian section, one interface.

use std::io::{self, Write};
use std::time::Duration;

use super::limits::{LINKTYPE_RAW, MAX_PACKET};

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Indicates the byte order of a section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Options: a comment, the program that wrote the section, the resolution of an interface's times.
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const RESOLUTION: u16 = 9;
/// Times count 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Writes the section header and the description of the one interface.
pub(super) fn header(out: &mut impl Write) -> io::Result<()> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER_MAGIC.to_le_bytes());
    section.extend([1, 0, 0, 0]); // version 1.0
    section.extend([0xff; 8]); // the section's length is not known
    option(
        &mut section,
        APPLICATION,
        concat!("portcullis ", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    end_of_options(&mut section);
    block(out, SECTION_HEADER, &section)?;
    let mut interface = Vec::new();
    interface.extend((LINKTYPE_RAW as u16).to_le_bytes());
    interface.extend([0; 2]);
    interface.extend((MAX_PACKET as u32).to_le_bytes());
    option(&mut interface, RESOLUTION, &[NANOSECONDS]);
    end_of_options(&mut interface);
    block(out, INTERFACE, &interface)
}

/// Writes a packet with a comment, unless the comment is empty. Times after the year 2554 are
/// written as the last time that fits.
pub(super) fn packet(
    out: &mut impl Write,
    time: Duration,
    bytes: &[u8],
    wire_len: u32,
    comment: &str,
) -> io::Result<()> {
    let ticks = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let mut body = Vec::with_capacity(bytes.len() + comment.len() + 40);
    for field in [
        0,
        (ticks >> 32) as u32,
        ticks as u32,
        bytes.len() as u32,
        wire_len,
    ] {
        body.extend(field.to_le_bytes());
    }
    body.extend(bytes);
    pad(&mut body);
    if !comment.is_empty() {
        option(&mut body, COMMENT, comment.as_bytes());
        end_of_options(&mut body);
    }
    block(out, ENHANCED_PACKET, &body)
}

/// Writes a block, whose body is already padded.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

/// Appends an option; a value above 64 KiB is truncated.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
