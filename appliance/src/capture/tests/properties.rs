//! Properties that hold for any bytes.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Reads everything and parses every frame.
fn exercise(bytes: &[u8]) {
    let Ok(mut reader) = reader(bytes) else {
        return;
    };
    let mut scratch = Vec::new();
    while let Ok(Some(frame)) = reader.next() {
        assert!(frame.bytes.len() <= bytes.len() && frame.wire_len as usize >= frame.bytes.len());
        if let Ok(found) = ip_packet(frame.link, frame.bytes) {
            let padded = pad_cut(found.bytes, frame.cut(), &mut scratch);
            assert_eq!(padded.bytes.len(), found.bytes.len() + padded.padded);
        }
    }
    assert!(reader.offset() <= bytes.len() as u64);
    assert_eq!(reader.buffer_size(), 256 << 10);
}

/// Returns whether a packet ends with its frame, or the link states its end: PPPoE and NFLOG.
fn holds(link: LinkType, frame: &[u8], packet: &[u8]) -> bool {
    let has_length = matches!(link, LinkType::Nflog(_) | LinkType::Pppoe)
        || frame
            .windows(2)
            .any(|ether_type| ether_type == [0x88, 0x64]);
    frame.ends_with(packet)
        || has_length
            && frame
                .windows(packet.len().max(1))
                .any(|part| part == packet)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(
        order in prop::sample::select(&ORDERS[..]),
        start in 0..5_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let head = match start {
            0 => Vec::new(),
            1 => order.pcap(0xa1b2_3c4d, 1),
            2 => order.section(),
            3 => [order.section(), order.interface(113, 0, &[])].concat(),
            _ => order.u32(0xa1b2_cd34).to_vec(),
        };
        exercise(&[head, bytes].concat());
    }

    #[test]
    fn no_block_body_panics(
        order in prop::sample::select(&ORDERS[..]),
        blocks in prop::collection::vec(
            (0..7_u32, prop::collection::vec(any::<u8>(), 0..64)),
            0..8,
        ),
    ) {
        let mut file = two_interfaces(order);
        for (kind, body) in &blocks {
            file.extend(order.block(*kind, body));
        }
        exercise(&file);
    }

    #[test]
    fn no_flipped_bytes_panic(
        order in prop::sample::select(&ORDERS[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = two_interfaces(order);
        file.extend(order.simple(5, &PACKET));
        file.extend(order.obsolete(0, 5, 5, &PACKET));
        for (at, value) in flips {
            let at = at.index(file.len());
            file[at] ^= value;
        }
        exercise(&file);
    }

    #[test]
    fn an_ip_packet_is_a_part_of_its_frame(
        link in 0..300_u32,
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let link = LinkType::from(link);
        if let Ok(found) = ip_packet(link, &bytes) {
            prop_assert!(holds(link, &bytes, found.bytes));
        }
    }

    /// Headers that are nearly valid: one or two fields differ from a valid header.
    #[test]
    fn no_link_header_leads_outside_its_frame(
        frame in prop::sample::select(super::pseudo_links::frames()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (link, mut bytes) = frame;
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(found) = ip_packet(link, &bytes) {
            prop_assert!(holds(link, &bytes, found.bytes));
        }
    }

    #[test]
    fn any_packets_survive_writing_and_reading(
        packets in prop::collection::vec(
            (any::<u32>(), 0..1_000_000_000_u32, prop::collection::vec(any::<u8>(), 0..2000)),
            0..8,
        ),
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = CaptureWriter::create(file.path()).unwrap();
        for (seconds, nanos, bytes) in &packets {
            let at = Duration::new(u64::from(*seconds), *nanos);
            writer.write(at, bytes, bytes.len(), "").unwrap();
        }
        writer.finish().unwrap();
        let (frames, error) = drain(CaptureReader::open(file.path()).unwrap());
        prop_assert!(error.is_none());
        prop_assert_eq!(frames.len(), packets.len());
        for (frame, (seconds, nanos, bytes)) in frames.iter().zip(&packets) {
            prop_assert_eq!(frame.nanos, Duration::new(u64::from(*seconds), *nanos).as_nanos());
            prop_assert_eq!(&frame.bytes, bytes);
        }
    }
}
