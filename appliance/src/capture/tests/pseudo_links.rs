//! The IP packet after the headers of PPP, PPPoE, MPLS, Cisco HDLC, IEEE 802.11, switch tags and
//! host headers.

use super::super::order::ByteOrder;
use super::*;

const V4: Option<IpVersion> = Some(IpVersion::V4);
const V6: Option<IpVersion> = Some(IpVersion::V6);
/// A packet of IPv6.
const PACKET_6: [u8; 5] = [0x65, 1, 2, 3, 4];

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn attribute(order: Order, kind: u16, value: &[u8]) -> Vec<u8> {
    let len = value.len() as u16 + 4;
    join(&[&order.u16(len), &order.u16(kind), &padded(value)])
}

fn nflog(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    join(&[&[family, 0, 0, 5], &attributes.concat()])
}

/// An 802.11 data frame of a station, with the bytes after its header.
fn wireless(control: [u8; 2], more: &[u8], rest: &[u8]) -> Vec<u8> {
    join(&[&control, &[0; 22], more, rest])
}

const SNAP: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// A radiotap header with the first words of flags and the fields after them.
fn radiotap(present: &[u32], fields: &[u8], frame: &[u8]) -> Vec<u8> {
    let words: Vec<u8> = present.iter().flat_map(|word| word.to_le_bytes()).collect();
    let len = (4 + words.len() + fields.len()) as u16;
    join(&[&[0, 0], &len.to_le_bytes(), &words, fields, frame])
}

/// Frames of every link with a header of its own, each of which holds [`PACKET`].
pub(super) fn frames() -> Vec<(LinkType, Vec<u8>)> {
    let ethernet = |types: &[u8], behind: &[u8]| join(&[&[2; 12], types, behind]);
    let session: &[u8] = &[0x11, 0, 0, 7, 0, 7, 0, 0x21];
    let label: &[u8] = &[0, 1, 0x01, 64];
    let labels: &[u8] = &[0, 1, 0x00, 64, 0, 2, 0x01, 64];
    let data = join(&[&SNAP, &[0x08, 0], &PACKET]);
    let (big, little) = (
        LinkType::Nflog(ByteOrder::Big),
        LinkType::Nflog(ByteOrder::Little),
    );
    let payload = |order| attribute(order, 9, &PACKET);
    let mark = |order| attribute(order, 10, b"a prefix\0");
    let hook = |order| attribute(order, 1, &[0x08, 0, 1, 0]);
    let raw = |number| LinkType::from(number);
    vec![
        (raw(9), join(&[&[0, 0x21], &PACKET])),
        (raw(9), join(&[&[0x21], &PACKET])),
        (raw(9), join(&[&[0xff, 3, 0, 0x21], &PACKET])),
        (raw(9), join(&[&[0xff, 3, 2, 0x81], labels, &PACKET])),
        (raw(50), join(&[&[0xff, 3, 0x21], &PACKET])),
        (raw(50), join(&[&[0x0f, 0, 8, 0], &PACKET])),
        (raw(51), join(&[session, &PACKET])),
        (raw(51), join(&[session, &PACKET, &[0; 9]])),
        (raw(104), join(&[&[0x0f, 0, 8, 0], &PACKET])),
        (raw(104), join(&[&[0x8f, 0, 0x88, 0x47], label, &PACKET])),
        (raw(112), join(&[&[0x0f, 0, 8, 0], &PACKET])),
        (raw(166), join(&[&[1, 3, 0, 0x21], &PACKET])),
        (raw(204), join(&[&[0, 0xff, 3, 0, 0x21], &PACKET])),
        (raw(219), join(&[labels, &PACKET])),
        (raw(226), join(&[&[2, 2], &[0; 22], &PACKET])),
        (raw(1), ethernet(&[0x88, 0x64], &join(&[session, &PACKET]))),
        (
            raw(1),
            ethernet(
                &[0x81, 0, 0, 9, 0x88, 0x64],
                &join(&[session, &PACKET, &[0; 30]]),
            ),
        ),
        (raw(1), ethernet(&[0x88, 0x47], &join(&[labels, &PACKET]))),
        (
            raw(1),
            ethernet(&[0x81, 0, 0, 9, 0x88, 0x48], &join(&[label, &PACKET])),
        ),
        (raw(113), join(&[&[0; 14], &[0x88, 0x64], session, &PACKET])),
        (raw(281), ethernet(&[1, 2, 3, 4, 8, 0], &PACKET)),
        (
            raw(282),
            join(&[&[1, 2, 3, 4], &ethernet(&[8, 0], &PACKET)]),
        ),
        (raw(284), ethernet(&[0x40, 0, 0, 9, 8, 0], &PACKET)),
        (raw(284), ethernet(&[0x60, 0, 0, 9, 8, 0], &PACKET)),
        (
            raw(285),
            ethernet(&[0xda, 0xda, 0, 0, 0xe0, 0, 0, 9, 8, 0], &PACKET),
        ),
        (big, nflog(2, &[mark(Order::Big), payload(Order::Big)])),
        (
            little,
            nflog(2, &[payload(Order::Little), mark(Order::Little)]),
        ),
        (
            little,
            nflog(7, &[hook(Order::Little), payload(Order::Little)]),
        ),
        (raw(105), wireless([0x08, 1], &[], &data)),
        (raw(105), wireless([0x08, 3], &[5; 6], &data)),
        (raw(105), wireless([0x88, 2], &[0, 0], &data)),
        (raw(105), wireless([0x88, 0x82], &[0, 0, 1, 2, 3, 4], &data)),
        (
            raw(127),
            radiotap(&[0], &[], &wireless([0x08, 1], &[], &data)),
        ),
        (
            raw(127),
            radiotap(&[2], &[0x20], &wireless([0x88, 1], &[0, 0, 9, 9], &data)),
        ),
        (
            raw(127),
            radiotap(
                &[1 << 31 | 3, 1 << 31, 0],
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
                &wireless([0x08, 1], &[], &data),
            ),
        ),
    ]
}

#[test]
fn every_link_leads_to_its_packet() {
    for (link, frame) in frames() {
        let found = ip_packet(link, &frame);
        let found = found.unwrap_or_else(|not_ip| panic!("{link} {frame:02x?}: {not_ip}"));
        assert_eq!(found.bytes, PACKET, "{link} {frame:02x?}");
        assert_eq!(found.version, V4, "{link} {frame:02x?}");
    }
}

#[test]
fn a_header_that_is_cut_leads_to_no_packet_of_the_header() {
    for (link, frame) in frames() {
        let begin = frame.windows(5).position(|part| part == PACKET).unwrap();
        for cut in 0..begin {
            match ip_packet(link, &frame[..cut]) {
                Ok(found) => panic!("{link} cut at {cut}: {found:?}"),
                Err(not_ip) => {
                    let is_cut = matches!(not_ip, NotIp::TooShort | NotIp::NoData)
                        || matches!(not_ip, NotIp::OtherPpp(_));
                    assert!(is_cut, "{link} cut at {cut}: {not_ip}");
                }
            }
        }
    }
}

#[test]
fn the_version_is_the_one_that_the_link_names() {
    for (link, frame) in [
        (9, join(&[&[0x00, 0x57], &PACKET_6])),
        (51, join(&[&[0x11, 0, 0, 7, 0, 7, 0, 0x57], &PACKET_6])),
        (104, join(&[&[0x0f, 0, 0x86, 0xdd], &PACKET_6])),
        (219, join(&[&[0, 1, 0x01, 64], &PACKET_6])),
        (226, join(&[&[2, 26], &[0; 22], &PACKET_6])),
        (239, nflog(10, &[attribute(Order::Little, 9, &PACKET_6)])),
        (
            105,
            wireless([0x08, 1], &[], &join(&[&SNAP, &[0x86, 0xdd], &PACKET_6])),
        ),
    ] {
        let found = ip_packet(LinkType::from(link), &frame).unwrap();
        assert_eq!((found.bytes, found.version), (&PACKET_6[..], V6), "{link}");
    }
}

#[test]
fn a_tag_or_the_switch_names_the_vlan() {
    let session: &[u8] = &[0x11, 0, 0, 7, 0, 7, 0, 0x21];
    let tagged = join(&[&[2; 12], &[0x81, 0, 0, 9, 0x88, 0x64], session, &PACKET]);
    assert_eq!(
        ip_packet(LinkType::Ethernet, &tagged).unwrap().vlan,
        Some(9)
    );
    for (mode, vlan) in [(0x20, Some(0x123)), (0xe0, Some(0x123)), (0x40, None)] {
        let frame = join(&[&[2; 12], &[mode, 0, 0xf1, 0x23, 8, 0], &PACKET]);
        assert_eq!(ip_packet(LinkType::MarvellTag, &frame).unwrap().vlan, vlan);
    }
}

#[test]
fn a_frame_without_a_packet_says_why() {
    let data = join(&[&SNAP, &[0x08, 0], &PACKET]);
    let mut fragment = wireless([0x08, 1], &[], &data);
    fragment[22] = 1;
    let labels = [[0, 1, 0, 64]; 17].concat();
    for (link, frame, expected) in [
        (9, vec![0xc0, 0x21, 1, 2], NotIp::OtherPpp(0xc021)),
        (9, vec![0xff, 3, 0x00, 0x2d, 1], NotIp::OtherPpp(0x2d)),
        (51, vec![0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0], NotIp::Pppoe),
        (51, vec![0x21, 0, 0, 0, 0, 4, 0, 0x21], NotIp::BadLinkHeader),
        (
            51,
            vec![0x11, 0, 0, 0, 0, 0, 0, 0x21, 0x45],
            NotIp::TooShort,
        ),
        (104, vec![0x0f, 0, 0x80, 0x35, 0, 0], NotIp::Arp),
        (
            104,
            vec![0x0f, 0, 0x20, 0x00, 0, 0],
            NotIp::OtherEtherType(0x2000),
        ),
        (219, vec![0, 1, 1, 64, 0, 0, 0, 0, 2, 2, 2], NotIp::Mpls),
        (219, labels, NotIp::TooManyLabels),
        (226, vec![2; 23], NotIp::TooShort),
        (226, vec![3; 24], NotIp::OtherFamily(3)),
        (239, nflog(2, &[]), NotIp::NoData),
        (239, vec![2, 0, 0, 0, 3, 0, 9, 0], NotIp::BadLinkHeader),
        (239, vec![2, 1, 0, 0], NotIp::BadLinkHeader),
        (
            239,
            nflog(7, &[attribute(Order::Little, 9, &PACKET)]),
            NotIp::OtherFamily(7),
        ),
        (105, wireless([0x80, 0], &[], &data), NotIp::NoData),
        (105, wireless([0x48, 0], &[], &data), NotIp::NoData),
        (105, wireless([0x08, 0x41], &[], &data), NotIp::Encrypted),
        (105, wireless([0x08, 0x05], &[], &data), NotIp::LinkFragment),
        (105, fragment, NotIp::LinkFragment),
        (
            105,
            wireless([0x88, 1], &[0x80, 0], &data),
            NotIp::Aggregate,
        ),
        (
            105,
            wireless([0x08, 1], &[], &[0x42, 0x42, 3, 0, 0, 0, 0, 0]),
            NotIp::Llc,
        ),
        (
            127,
            radiotap(&[2], &[0x40], &wireless([0x08, 1], &[], &data)),
            NotIp::BadFrame,
        ),
        (127, vec![1, 0, 8, 0, 0, 0, 0, 0], NotIp::BadLinkHeader),
        (127, vec![0, 0, 7, 0, 0, 0, 0, 0], NotIp::BadLinkHeader),
        (127, vec![0, 0, 9, 0, 0, 0, 0, 0], NotIp::TooShort),
        (127, vec![0, 0, 8, 0, 0, 0, 0, 0x80], NotIp::BadLinkHeader),
    ] {
        assert_eq!(
            ip_packet(LinkType::from(link), &frame),
            Err(expected),
            "{link} {frame:02x?}"
        );
    }
}

#[test]
fn numbers_of_nflog_are_in_the_order_of_the_file() {
    for order in ORDERS {
        let frame = nflog(2, &[attribute(order, 9, &PACKET)]);
        let pcap = [
            order.pcap(0xa1b2_c3d4, 239),
            order.record(0, 0, frame.len() as u32, &frame),
        ];
        let pcapng = [
            order.section(),
            order.interface(239, 0, &[]),
            order.enhanced(0, 0, frame.len() as u32, &frame),
        ];
        for file in [pcap.concat(), pcapng.concat()] {
            let frame = &read_whole(&file)[0];
            assert_eq!(ip_packet(frame.link, &frame.bytes).unwrap().bytes, PACKET);
        }
    }
}

#[test]
fn a_cut_log_message_hands_out_what_is_there_of_the_packet() {
    let frame = nflog(
        2,
        &[attribute(Order::Little, 9, &[PACKET, PACKET].concat())],
    );
    let cut = &frame[..frame.len() - 5];
    let found = ip_packet(LinkType::from(239), cut).unwrap();
    assert_eq!(found.bytes, &frame[8..frame.len() - 5]);
}
