//! Frames that the reader returns, and its errors for broken captures.

use std::io::{self, Cursor, Read};
use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for order in ORDERS {
        for (magic, nanos) in [(0xa1b2_c3d4, 1_000_007_000), (0xa1b2_3c4d, 1_000_000_007)] {
            let file = [
                order.pcap(magic, 101),
                order.record(1, 7, 1500, &PACKET),
                order.record(2, 0, 0, &[]),
            ];
            let frames = read_whole(&file.concat());
            assert_eq!(
                frames[0],
                Owned {
                    number: 1,
                    nanos,
                    link: LinkType::Raw,
                    bytes: PACKET.to_vec(),
                    wire_len: 1500,
                    interface: 0
                }
            );
            assert_eq!(
                (frames[1].number, frames[1].bytes.len(), frames.len()),
                (2, 0, 2)
            );
        }
    }
}

#[test]
fn a_record_of_the_modified_pcap_has_eight_bytes_more() {
    let record = [Order::Little.u32s(&[1, 2, 5, 5, 0, 0]), PACKET.to_vec()].concat();
    let frames = read_whole(&[Order::Little.pcap(0xa1b2_cd34, 1), record.clone(), record].concat());
    assert_eq!(
        (frames.len(), &frames[1].bytes[..], frames[1].nanos),
        (2, &PACKET[..], 1_000_002_000)
    );
}

#[test]
fn a_wire_length_below_the_captured_one_is_raised() {
    let order = Order::Little;
    let pcap = [order.pcap(0xa1b2_c3d4, 1), order.record(0, 0, 2, &PACKET)].concat();
    let pcapng = [
        order.section(),
        order.interface(1, 0, &[]),
        order.enhanced(0, 0, 2, &PACKET),
    ]
    .concat();
    for file in [pcap, pcapng] {
        assert_eq!(read_whole(&file)[0].wire_len, 5);
    }
}

#[test]
fn a_fraction_above_a_second_carries_over() {
    let order = Order::Big;
    let fraction = u128::from(u32::MAX);
    for (magic, nanos) in [(0xa1b2_c3d4, fraction * 1_000), (0xa1b2_3c4d, fraction)] {
        let file = [
            order.pcap(magic, 1),
            order.record(u32::MAX, u32::MAX, 0, &[]),
        ]
        .concat();
        assert_eq!(read_whole(&file)[0].nanos, fraction * 1_000_000_000 + nanos);
    }
}

#[test]
fn the_bits_above_a_pcap_link_type_do_not_change_it() {
    let file = [
        Order::Little.pcap(0xa1b2_c3d4, 0x4400_0001),
        Order::Little.record(0, 0, 0, &[]),
    ]
    .concat();
    assert_eq!(read_whole(&file)[0].link, LinkType::Ethernet);
}

#[test]
fn pcapng_interfaces_have_their_own_link_type_and_clock() {
    for order in ORDERS {
        let frames = read_whole(&two_interfaces(order));
        assert_eq!(
            (frames[0].interface, frames[0].link, frames[0].nanos),
            (1, LinkType::Raw, 7_000_000_001)
        );
        assert_eq!(
            (frames[1].interface, frames[1].link, frames[1].nanos),
            (0, LinkType::Ethernet, 3_000_002_000)
        );
        assert_eq!(
            (&frames[1].bytes[..], frames[1].wire_len),
            (&PACKET[..], 60)
        );
    }
}

#[test]
fn a_section_forgets_the_interfaces_and_byte_order_before_it() {
    let mut file = two_interfaces(Order::Big);
    let little = Order::Little;
    file.extend(
        [
            little.section(),
            little.interface(228, 0, &[]),
            little.enhanced(0, 1, 5, &PACKET),
        ]
        .concat(),
    );
    let frames = read_whole(&file);
    assert_eq!(
        (frames[2].number, frames[2].link, frames[2].nanos),
        (3, LinkType::Ipv4, 1000)
    );
    let offset = file.len();
    file.extend(little.enhanced(1, 1, 5, &PACKET));
    let (before, message) = read_broken(&file);
    assert_eq!(before, 3);
    assert_eq!(
        message,
        format!("test: broken at byte {offset}: a packet of interface 1, but 1 are described")
    );
}

#[test]
fn timestamps_count_in_the_interface_resolution() {
    let ticks = 5_000_000_000_000_000_123_u64;
    for (resolution, nanos) in [
        (0, 5_000_000_000_000_000_123_000_000_000_u128),
        (3, 5_000_000_000_000_000_123_000_000),
        (6, 5_000_000_000_000_000_123_000),
        (9, 5_000_000_000_000_000_123),
        (12, 5_000_000_000_000_000),
        (127, 0),
        (0x80, 5_000_000_000_000_000_123_000_000_000),
        (0x80 | 10, 4_882_812_500_000_000_120_117_187),
        (0x80 | 63, 542_101_086),
        (0xff, 0),
    ] {
        for order in ORDERS {
            let interface = order.interface(1, 0, &order.option(9, &[resolution]));
            let file = [order.section(), interface, order.enhanced(0, ticks, 0, &[])].concat();
            assert_eq!(
                read_whole(&file)[0].nanos,
                nanos,
                "{order:?} {resolution:#x}"
            );
        }
    }
}

#[test]
fn the_time_offset_is_read_in_the_section_byte_order_and_saturates() {
    for order in ORDERS {
        for (offset, resolution, ticks, time) in [
            (10_i64, 6, 1_500_000, Duration::from_millis(11_500)),
            (-1, 6, 1_500_000, Duration::from_millis(500)),
            (-2, 6, 1_500_000, Duration::ZERO),
            (i64::MIN, 6, 0, Duration::ZERO),
            (i64::MAX, 6, 0, Duration::from_secs(i64::MAX as u64)),
            (i64::MAX, 0, u64::MAX, Duration::MAX),
        ] {
            let value = if order == Order::Big {
                offset.to_be_bytes()
            } else {
                offset.to_le_bytes()
            };
            let options = [order.option(14, &value), order.option(9, &[resolution])].concat();
            let interface = order.interface(1, 0, &options);
            let file = [order.section(), interface, order.enhanced(0, ticks, 0, &[])].concat();
            assert_eq!(
                read_whole(&file)[0].nanos,
                time.as_nanos(),
                "{order:?} {offset}"
            );
        }
    }
}

#[test]
fn a_simple_packet_has_the_time_before_it_and_the_snap_length_of_interface_0() {
    for order in ORDERS {
        let file = [
            order.section(),
            order.interface(101, 4, &[]),
            order.simple(5, &PACKET[..4]),
            order.enhanced(0, 8, 4, &PACKET[..4]),
            order.simple(3, &PACKET[..3]),
        ];
        let frames = read_whole(&file.concat());
        assert_eq!(
            (frames[0].nanos, &frames[0].bytes[..], frames[0].wire_len),
            (0, &PACKET[..4], 5)
        );
        assert_eq!(
            (frames[2].nanos, &frames[2].bytes[..], frames[2].wire_len),
            (8000, &PACKET[..3], 3)
        );
    }
}

#[test]
fn the_obsolete_packet_block_is_read() {
    for order in ORDERS {
        let file = [
            order.section(),
            order.interface(1, 0, &[]),
            order.obsolete(0, 1 << 33, 9, &PACKET),
        ]
        .concat();
        let frames = read_whole(&file);
        assert_eq!(
            (frames[0].nanos, &frames[0].bytes[..]),
            ((1 << 33) * 1000, &PACKET[..])
        );
        assert_eq!((frames[0].wire_len, frames[0].interface), (9, 0));
    }
}

#[test]
fn packet_options_and_blocks_of_other_types_are_skipped() {
    let order = Order::Big;
    let mut body = order.u32s(&[0, 0, 1, 5, 5]);
    body.extend(padded(&PACKET));
    body.extend(order.option(1, b"a comment"));
    let file = [
        order.section(),
        order.block(0x0bad, &[1; 40]),
        order.interface(1, 0, &order.option(2, b"eth0")),
        order.block(0x7777_7777, &[]),
        order.block(6, &body),
        order.block(5, &[2; 7]),
    ];
    let frames = read_whole(&file.concat());
    assert_eq!((frames.len(), &frames[0].bytes[..]), (1, &PACKET[..]));
}

#[test]
fn a_packet_without_an_interface_is_broken() {
    for packet in [
        Order::Little.enhanced(0, 0, 5, &PACKET),
        Order::Little.simple(5, &PACKET),
    ] {
        let (frames, message) = read_broken(&[Order::Little.section(), packet].concat());
        assert_eq!(
            (frames, &message[..]),
            (
                0,
                "test: broken at byte 28: a packet of interface 0, but 0 are described"
            )
        );
    }
}

#[test]
fn a_block_whose_length_is_none_is_broken() {
    for order in ORDERS {
        for len in [0, 4, 8, 11, 13, 31] {
            let mut file = [order.section(), order.u32s(&[6, len]), vec![0; 64]].concat();
            let (_, message) = read_broken(&file);
            assert!(
                message.starts_with(&format!("test: broken at byte 28: a block of {len} bytes")),
                "{message}"
            );
            file[4..8].copy_from_slice(&order.u32(len));
            let (_, message) = read_broken(&file);
            assert!(
                message.starts_with(&format!("test: broken at byte 0: a block of {len} bytes")),
                "{message}"
            );
        }
    }
}

#[test]
fn a_block_that_does_not_hold_its_fields_is_broken() {
    let order = Order::Little;
    let described = [order.section(), order.interface(1, 0, &[])].concat();
    let too_much = [order.u32s(&[0, 0, 0, 9, 9]), vec![0; 8]].concat();
    let most = order.u32s(&[0, 0, 0, u32::MAX, 9]);
    for (kind, body) in [
        (6, &[0; 16][..]),
        (2, &[0; 16]),
        (3, &[]),
        (1, &[0; 4]),
        (6, &too_much),
        (6, &most),
    ] {
        let (frames, message) = read_broken(&[described.clone(), order.block(kind, body)].concat());
        assert!(
            frames == 0 && message.starts_with("test: broken at byte 48: "),
            "{kind} {message}"
        );
    }
}

#[test]
fn a_block_that_does_not_end_with_its_length_is_broken() {
    let mut file = two_interfaces(Order::Little);
    *file.last_mut().unwrap() ^= 1;
    let (frames, message) = read_broken(&file);
    assert_eq!(frames, 1);
    assert!(
        message.ends_with("a block of 40 bytes (type 0x6) that does not end with its length"),
        "{message}"
    );
}

#[test]
fn versions_that_lay_out_records_otherwise_are_refused() {
    let mut old = Order::Big.pcap(0xa1b2_c3d4, 1);
    old[7] = 5;
    assert_eq!(
        read_broken(&old).1,
        "test: broken at byte 0: pcap version 2.5, only 2.0 to 2.4 are read"
    );
    let mut new = Order::Big.section();
    new[13] = 2;
    assert_eq!(
        read_broken(&new).1,
        "test: broken at byte 0: pcapng version 2.0, only 1 is read"
    );
}

#[test]
fn a_huge_length_is_an_error_and_no_allocation() {
    let order = Order::Little;
    let huge = 0xffff_fff0_u32;
    let pcap = |len| {
        [
            order.pcap(0xa1b2_c3d4, 1),
            order.u32s(&[0, 0, len, len]),
            vec![0; 99],
        ]
        .concat()
    };
    let pcapng = |len| [order.section(), order.u32s(&[6, len]), vec![0; 99]].concat();
    for (file, expected) in [
        (
            pcap(huge),
            "test: broken at byte 24: a record of 4294967296 bytes, more than the 16777216",
        ),
        (
            pcap(MAX_BLOCK as u32 - 15),
            "test: broken at byte 24: a record of 16777217 bytes",
        ),
        (
            pcap(MAX_BLOCK as u32 - 16),
            "test: truncated at byte 24: a record of 16777216 bytes or more, 115 are left",
        ),
        (
            pcapng(huge),
            "test: broken at byte 28: a block of 4294967280 bytes (type 0x6), more than the \
             16777216",
        ),
        (
            pcapng(MAX_BLOCK as u32 + 4),
            "test: broken at byte 28: a block of 16777220 bytes",
        ),
        (
            pcapng(MAX_BLOCK as u32),
            "test: truncated at byte 28: a block of 16777216 bytes (type 0x6), 107 are left",
        ),
    ] {
        let mut reader = reader(&file).unwrap();
        let message = reader.next().unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(reader.buffer_size(), 256 << 10);
    }
}

#[test]
fn the_largest_record_that_is_read_is_read() {
    let order = Order::Little;
    let data = vec![7; MAX_BLOCK - 16];
    let record = order.record(0, 0, 1, &data);
    let file = [
        order.pcap(0xa1b2_c3d4, 1),
        order.record(0, 0, 5, &PACKET),
        record,
        order.record(1, 0, 5, &PACKET),
    ];
    let mut reader = reader(&file.concat()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().bytes, PACKET);
    assert_eq!(reader.next().unwrap().unwrap().bytes, data);
    assert_eq!(reader.next().unwrap().unwrap().bytes, PACKET);
    assert_eq!(reader.buffer_size(), MAX_BLOCK);
}

#[test]
fn a_cut_file_hands_out_its_whole_records_and_names_the_cut_one() {
    for order in ORDERS {
        let record = order.record(1, 0, 5, &PACKET);
        let pcap: [Vec<u8>; 3] = [order.pcap(0xa1b2_c3d4, 1), record.clone(), record];
        let section = order.section();
        let interface = order.interface(1, 0, &[]);
        let packet = order.enhanced(0, 0, 5, &PACKET);
        for (parts, first_frame) in [
            (pcap.to_vec(), 1),
            (vec![section, interface, packet.clone(), packet], 2),
        ] {
            let mut ends = vec![0];
            for part in &parts {
                ends.push(ends.last().unwrap() + part.len());
            }
            let file = parts.concat();
            for cut in 0..=file.len() {
                let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
                let (frames, error) = read(&file[..cut]);
                assert_eq!(frames.len(), whole.saturating_sub(first_frame), "{cut}");
                if cut > 0 && ends[whole] == cut {
                    assert!(error.is_none(), "{cut}: {error:?}");
                } else {
                    let message = error.expect("a cut").to_string();
                    assert!(
                        message.starts_with(&format!("test: truncated at byte {}: ", ends[whole])),
                        "{message}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_no_capture_is_said_to_be_none() {
    for (bytes, message) in [
        (
            &[0xfd, b'7', b'z', b'X', b'Z', 0][..],
            "not a pcap or pcapng capture: byte 0 begins fd 37 7a 58 (xz: decompress it first)",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n and more",
            "not a pcap or pcapng capture: byte 0 begins 47 45 54 20",
        ),
        (b"", "truncated at byte 0: the file is empty"),
        (
            &SECTION_TYPE,
            "truncated at byte 0: a block is at least 12 bytes, 4 are left",
        ),
        (
            &[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 1, 2, 3, 4],
            "broken at byte 0: a section header block without the byte-order magic",
        ),
    ] {
        assert_eq!(read_broken(bytes), (0, format!("test: {message}")));
    }
}

const SECTION_TYPE: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Source that returns one byte at a time, interrupts every second call, and fails at its end.
struct Trickle {
    bytes: Cursor<Vec<u8>>,
    interrupted: bool,
    end: Option<io::ErrorKind>,
}

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.bytes.read(&mut into[..1])? {
            0 => self.end.map_or(Ok(0), |kind| Err(kind.into())),
            count => Ok(count),
        }
    }
}

#[test]
fn a_pipe_that_trickles_is_read_like_a_file() {
    for file in [
        two_interfaces(Order::Big),
        [
            Order::Big.pcap(0xa1b2_c3d4, 1),
            Order::Big.record(1, 2, 5, &PACKET),
        ]
        .concat(),
    ] {
        let trickle = Trickle {
            bytes: Cursor::new(file.clone()),
            interrupted: false,
            end: None,
        };
        let trickled =
            drain(CaptureReader::new("pipe".to_owned(), Box::new(trickle), None).unwrap());
        assert_eq!(trickled.0, read_whole(&file));
        assert!(trickled.1.is_none());
    }
}

#[test]
fn an_input_error_names_the_record_it_hit() {
    let mut bytes = [
        Order::Big.pcap(0xa1b2_c3d4, 1),
        Order::Big.record(1, 2, 5, &PACKET),
    ]
    .concat();
    bytes.extend([0; 9]);
    let end = Some(io::ErrorKind::ConnectionReset);
    let trickle = Trickle {
        bytes: Cursor::new(bytes),
        interrupted: false,
        end,
    };
    let (frames, error) =
        drain(CaptureReader::new("pipe".to_owned(), Box::new(trickle), None).unwrap());
    assert_eq!(frames.len(), 1);
    let message = error.unwrap().to_string();
    assert!(
        message.starts_with("pipe: cannot read the capture at byte 45: "),
        "{message}"
    );
}

#[test]
fn the_offset_ends_at_the_length_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.pcapng");
    let bytes = two_interfaces(Order::Little);
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    assert_eq!(reader.total_len(), Some(bytes.len() as u64));
    assert_eq!(reader.offset(), 28);
    reader.next().unwrap().unwrap();
    assert_eq!(reader.offset(), bytes.len() as u64 - 40);
    reader.next().unwrap().unwrap();
    assert_eq!(reader.offset(), bytes.len() as u64);
    assert_eq!(reader.next().unwrap(), None);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = CaptureReader::open(Path::new("no/such.pcap"))
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("no/such.pcap: "), "{error}");
    let dir = tempfile::tempdir().unwrap();
    assert!(
        CaptureReader::open(dir.path()).is_err(),
        "a directory is no capture"
    );
    assert!(CaptureWriter::create(&dir.path().join("no/such.pcap")).is_err());
}

#[test]
fn records_across_the_end_of_the_buffer_are_whole() {
    let order = Order::Little;
    let mut file = order.pcap(0xa1b2_c3d4, 1);
    for number in 0..3000_u32 {
        file.extend(order.record(number, 0, 1500, &vec![number as u8; number as usize % 700]));
    }
    let mut reader = reader(&file).unwrap();
    for number in 0..3000_u32 {
        let frame = reader.next().unwrap().unwrap();
        assert_eq!(frame.time, Duration::from_secs(number.into()));
        assert_eq!(frame.bytes, vec![number as u8; number as usize % 700]);
    }
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.buffer_size(), 256 << 10);
}
