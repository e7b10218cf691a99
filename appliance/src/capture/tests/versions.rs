//! The versions of the pcap format.

use super::*;

/// A record with its two lengths in the given order.
fn record(order: Order, lengths: [u32; 2]) -> Vec<u8> {
    [order.u32s(&[1, 2, lengths[0], lengths[1]]), PACKET.to_vec()].concat()
}

#[test]
fn each_version_has_its_order_of_the_two_lengths() {
    let captured = PACKET.len() as u32;
    for order in ORDERS {
        for (minor, lengths) in [
            (0, [1500, captured]),
            (1, [1500, captured]),
            (2, [1500, captured]),
            (3, [1500, captured]),
            (3, [captured, 1500]),
            (4, [captured, 1500]),
        ] {
            let file = [
                order.pcap_of_version(0xa1b2_c3d4, 1, minor),
                record(order, lengths),
                record(order, lengths),
            ];
            let frames = read_whole(&file.concat());
            assert_eq!(frames.len(), 2, "2.{minor} {lengths:?}");
            assert_eq!(
                (&frames[1].bytes[..], frames[1].wire_len),
                (&PACKET[..], 1500),
                "2.{minor} {lengths:?}"
            );
        }
    }
}

#[test]
fn a_digital_unix_capture_is_one_of_an_old_version() {
    let mut header = Order::Little.pcap(0xa1b2_c3d4, 1);
    header[4..8].copy_from_slice(&[31, 2, 0, 0]); // 543.0
    let file = [header, record(Order::Little, [1500, 5])].concat();
    assert_eq!(read_whole(&file)[0].wire_len, 1500);
}
