//! Captures that are written and read again.

use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcap");
    let mut writer = CaptureWriter::create(&path).unwrap();
    writer
        .write(
            Duration::new(1_700_000_000, 123_456_789),
            &PACKET,
            PACKET.len(),
            "",
        )
        .unwrap();
    let too_long = writer
        .write(Duration::ZERO, &vec![0; MAX_PACKET + 1], 0, "")
        .unwrap_err();
    assert!(
        too_long
            .to_string()
            .ends_with("a packet of 262145 bytes; a capture takes 262144"),
        "{too_long}"
    );
    writer
        .write(Duration::MAX, &vec![9; MAX_PACKET], MAX_PACKET, "")
        .unwrap();
    writer.finish().unwrap();
    let (frames, error) = drain(CaptureReader::open(&path).unwrap());
    assert!(error.is_none());
    assert_eq!(frames.len(), 2);
    assert_eq!(
        (frames[0].nanos, frames[0].link),
        (1_700_000_000_123_456_789, LinkType::Raw)
    );
    assert_eq!((&frames[0].bytes[..], frames[0].wire_len), (&PACKET[..], 5));
    assert_eq!(
        (frames[1].nanos, frames[1].bytes.len()),
        (4_294_967_295_999_999_999, MAX_PACKET)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let mut writer = CaptureWriter::create(Path::new("/dev/full")).unwrap();
    writer
        .write(Duration::ZERO, &PACKET, PACKET.len(), "")
        .unwrap();
    let message = writer.finish().unwrap_err().to_string();
    assert!(message.starts_with("/dev/full: "), "{message}");
}

#[test]
fn a_pcapng_is_read_back_with_its_times_and_comments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.PCAPNG");
    let mut writer = CaptureWriter::create(&path).unwrap();
    assert!(writer.keeps_comments());
    let long = "x".repeat(70_000);
    let times = [Duration::new(1_700_000_000, 123_456_789), Duration::ZERO];
    for (time, comment) in times.iter().zip(["drop, tcp_no_session", long.as_str()]) {
        writer.write(*time, &PACKET, 60, comment).unwrap();
    }
    writer.write(Duration::MAX, &[], 0, "").unwrap();
    writer.finish().unwrap();
    let (frames, error) = drain(CaptureReader::open(&path).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), 3);
    for (frame, time) in frames.iter().zip(times) {
        assert_eq!(frame.nanos, time.as_nanos());
        assert_eq!((&frame.bytes[..], frame.wire_len), (&PACKET[..], 60));
        assert_eq!(frame.link, LinkType::Raw);
    }
    assert_eq!(frames[2].nanos, u128::from(u64::MAX));
    let bytes = std::fs::read(&path).unwrap();
    // The option: its code, its length, the text.
    let option = [&[1, 0, 20, 0][..], b"drop, tcp_no_session"].concat();
    let count = bytes
        .windows(option.len())
        .filter(|part| *part == option)
        .count();
    assert_eq!(count, 1);
}

#[test]
fn a_pcapng_cuts_a_packet_that_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng");
    let mut writer = CaptureWriter::create(&path).unwrap();
    let long = vec![9; MAX_PACKET + 5];
    writer
        .write(Duration::ZERO, &long, long.len(), "drop")
        .unwrap();
    writer.finish().unwrap();
    let (frames, error) = drain(CaptureReader::open(&path).unwrap());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames[0].bytes.len(), MAX_PACKET);
    assert_eq!(frames[0].wire_len as usize, MAX_PACKET + 5);
}
