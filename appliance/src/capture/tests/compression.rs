//! Captures that are compressed.

use std::io::Write;

use flate2::write::GzEncoder;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

fn capture(frames: u32) -> Vec<u8> {
    let order = Order::Little;
    let mut file = order.pcap(0xa1b2_c3d4, 1);
    for number in 0..frames {
        file.extend(order.record(number, 0, 5, &PACKET));
    }
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A frame that decompressors skip.
fn skippable(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    [&[0x53, 0x2a, 0x4d, 0x18], &len.to_le_bytes()[..], bytes].concat()
}

#[test]
fn a_compressed_capture_is_read_as_the_plain_one() {
    let plain = capture(20_000);
    let expected = read_whole(&plain);
    let (first, second) = plain.split_at(100_001);
    for compressed in [
        gzip(&plain),
        [gzip(first), gzip(second)].concat(),
        zstandard(&plain),
        [zstandard(first), skippable(&[7; 3000]), zstandard(second)].concat(),
        [skippable(&[]), zstandard(&plain), skippable(&[1])].concat(),
    ] {
        assert!(compressed.len() < plain.len());
        assert_eq!(read_whole(&compressed), expected);
    }
    let pcapng = two_interfaces(Order::Big);
    assert_eq!(read_whole(&gzip(&pcapng)), read_whole(&pcapng));
    assert_eq!(read_whole(&zstandard(&pcapng)), read_whole(&pcapng));
}

#[test]
fn a_cut_stream_is_truncated_after_its_whole_frames() {
    let plain = capture(20_000);
    // A decoder of Zstandard withholds its window: a truncated frame may yield nothing.
    let (first, second) = plain.split_at(200_001);
    let frames_of_zstandard = [zstandard(first), zstandard(second)].concat();
    for (compressed, kept) in [(gzip(&plain), 1), (frames_of_zstandard, 9_000)] {
        let cut = &compressed[..compressed.len() - compressed.len() / 4];
        let (frames, error) = read(cut);
        let error = error.unwrap();
        assert!(matches!(error, CaptureError::Truncated { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with("test, decompressed: truncated at byte "),
            "{message}"
        );
        assert!(
            message.ends_with("the compressed stream ends early"),
            "{message}"
        );
        assert!((kept..20_000).contains(&frames.len()), "{}", frames.len());
    }
}

#[test]
fn a_changed_stream_is_broken() {
    let plain = capture(100);
    let mut changed = gzip(&plain);
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    // One raw block with a checksum (RFC 8878, section 3.1.1) that is wrong.
    let block = ((7_u32 << 3) | 1).to_le_bytes();
    let wrong = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0x24, 7][..],
        &block[..3],
        b"capture",
        &[0; 4],
    ];
    let behind = [gzip(&plain), b"not gzip, but something else".to_vec()].concat();
    for stream in [
        changed,
        [zstandard(&plain), wrong.concat()].concat(),
        behind,
    ] {
        let (frames, error) = read(&stream);
        let error = error.expect("an error");
        assert!(matches!(error, CaptureError::Broken { .. }), "{error}");
        assert!(frames.len() <= 100);
    }
}

#[test]
fn a_stream_of_zeros_takes_no_memory() {
    // A record that declares 15 MiB in a stream of 64 MiB.
    let order = Order::Little;
    let head = [
        order.pcap(0xa1b2_c3d4, 1),
        order.u32s(&[0, 0, 40_000, 40_000]),
    ]
    .concat();
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&head).unwrap();
    for _ in 0..64 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let mut reader = reader(&encoder.finish().unwrap()).unwrap();
    let mut frames = 0;
    while let Some(frame) = reader.next().unwrap() {
        frames += 1;
        // The second record is all zeros: no bytes, and so are all after it.
        assert!(frame.bytes.len() <= 40_000);
        if frames == 10_000 {
            break;
        }
    }
    assert_eq!(frames, 10_000);
    assert_eq!(reader.buffer_size(), 256 << 10);
}

#[test]
fn a_compressed_stream_inside_another_is_no_capture() {
    let message = read_broken(&gzip(&gzip(&capture(1)))).1;
    assert!(
        message.ends_with("(gzip inside a compressed file)"),
        "{message}"
    );
    let message = read_broken(&zstandard(&zstandard(&capture(1)))).1;
    assert!(
        message.ends_with("(Zstandard inside a compressed file)"),
        "{message}"
    );
}

#[test]
fn a_window_above_the_limit_is_refused() {
    // A frame header with a window of 2 GiB (RFC 8878, section 3.1.1.1.2), then an empty last
    // block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
    let message = read_broken(&frame).1;
    assert!(
        message.starts_with("test, decompressed: broken at byte 0: "),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_compressed_bytes_panic(
        is_gzip in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let plain = capture(200);
        let mut bytes = if is_gzip { gzip(&plain) } else { zstandard(&plain) };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(reader) = reader(&bytes) {
            let (frames, _) = drain(reader);
            prop_assert!(frames.len() < 1 << 20);
        }
    }
}
