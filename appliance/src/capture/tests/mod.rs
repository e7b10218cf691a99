//! Captures built byte by byte: the frames that are read, the errors and their offsets, and no
//! panics.

mod compression;
mod links;
mod offload;
mod properties;
mod pseudo_links;
mod reading;
mod versions;
mod writing;

use std::io::Cursor;

use super::*;

const PACKET: [u8; 5] = [0x45, 1, 2, 3, 4];

/// Appends fields in one byte order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Big,
    Little,
}

const ORDERS: [Order; 2] = [Order::Big, Order::Little];

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u32s(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }

    fn pcap(self, magic: u32, link: u32) -> Vec<u8> {
        self.pcap_of_version(magic, link, 4)
    }

    fn pcap_of_version(self, magic: u32, link: u32, minor: u16) -> Vec<u8> {
        let version = [self.u16(2), self.u16(minor)].concat();
        [
            self.u32(magic).to_vec(),
            version,
            self.u32s(&[0, 0, 65_535, link]),
        ]
        .concat()
    }

    fn record(self, seconds: u32, fraction: u32, wire_len: u32, data: &[u8]) -> Vec<u8> {
        [
            self.u32s(&[seconds, fraction, data.len() as u32, wire_len]),
            data.to_vec(),
        ]
        .concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let body = padded(body);
        let len = body.len() as u32 + 12;
        [self.u32s(&[kind, len]), body, self.u32(len).to_vec()].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        self.block(
            0x0a0d_0d0a,
            &[self.u32(0x1a2b_3c4d).to_vec(), version, vec![0xff; 8]].concat(),
        )
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        [
            self.u16(code).to_vec(),
            self.u16(value.len() as u16).to_vec(),
            padded(value),
        ]
        .concat()
    }

    fn interface(self, link: u16, snap_len: u32, options: &[u8]) -> Vec<u8> {
        let fixed = [self.u16(link), self.u16(0)].concat();
        self.block(
            1,
            &[fixed, self.u32(snap_len).to_vec(), options.to_vec()].concat(),
        )
    }

    fn enhanced(self, interface: u32, ticks: u64, wire_len: u32, data: &[u8]) -> Vec<u8> {
        let fixed = [
            interface,
            (ticks >> 32) as u32,
            ticks as u32,
            data.len() as u32,
            wire_len,
        ];
        self.block(6, &[self.u32s(&fixed), data.to_vec()].concat())
    }

    fn simple(self, wire_len: u32, data: &[u8]) -> Vec<u8> {
        self.block(3, &[self.u32(wire_len).to_vec(), data.to_vec()].concat())
    }

    fn obsolete(self, interface: u16, ticks: u64, wire_len: u32, data: &[u8]) -> Vec<u8> {
        let numbers = [self.u16(interface), self.u16(9)].concat();
        let fixed = self.u32s(&[
            (ticks >> 32) as u32,
            ticks as u32,
            data.len() as u32,
            wire_len,
        ]);
        self.block(2, &[numbers, fixed, data.to_vec()].concat())
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A frame that outlives the reader's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    number: u64,
    nanos: u128,
    link: LinkType,
    bytes: Vec<u8>,
    wire_len: u32,
    interface: u32,
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Self {
        Self {
            number: frame.number,
            nanos: frame.time.as_nanos(),
            link: frame.link,
            bytes: frame.bytes.to_vec(),
            wire_len: frame.wire_len,
            interface: frame.interface,
        }
    }
}

fn reader(bytes: &[u8]) -> Result<CaptureReader, CaptureError> {
    CaptureReader::new(
        "test".to_owned(),
        Box::new(Cursor::new(bytes.to_vec())),
        None,
    )
}

fn drain(mut reader: CaptureReader) -> (Vec<Owned>, Option<CaptureError>) {
    let mut frames = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(frame)) => frames.push(Owned::from(frame)),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert!(
                    matches!(reader.next(), Ok(None)),
                    "an error ends the capture"
                );
                return (frames, Some(error));
            }
        }
    }
}

/// All frames, and the error that ended the capture early.
fn read(bytes: &[u8]) -> (Vec<Owned>, Option<CaptureError>) {
    match reader(bytes) {
        Ok(reader) => drain(reader),
        Err(error) => (Vec::new(), Some(error)),
    }
}

fn read_whole(bytes: &[u8]) -> Vec<Owned> {
    let (frames, error) = read(bytes);
    assert!(error.is_none(), "{error:?}");
    frames
}

/// The frames before the error, and its message.
fn read_broken(bytes: &[u8]) -> (usize, String) {
    let (frames, error) = read(bytes);
    (frames.len(), error.expect("an error").to_string())
}

fn two_interfaces(order: Order) -> Vec<u8> {
    [
        order.section(),
        order.interface(1, 0, &[]),
        order.interface(101, 0, &order.option(9, &[9])),
        order.enhanced(1, 7_000_000_001, 5, &PACKET),
        order.enhanced(0, 3_000_002, 60, &PACKET),
    ]
    .concat()
}
