//! Location of the IP packet in a frame, and frames without one.

use super::*;

fn ethernet(types: &[u16], payload: &[u8]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|field| field.to_be_bytes()).collect();
    [vec![2; 12], types, payload.to_vec()].concat()
}

fn ip(bytes: &[u8], vlan: Option<u16>, version: Option<IpVersion>) -> Result<IpPayload<'_>, NotIp> {
    Ok(IpPayload {
        bytes,
        vlan,
        version,
    })
}

#[test]
fn the_ether_type_decides_and_not_the_version_nibble() {
    let (v4, v6) = (Some(IpVersion::V4), Some(IpVersion::V6));
    for (types, expected) in [
        (&[0x0800][..], ip(&PACKET, None, v4)),
        (&[0x86dd], ip(&PACKET, None, v6)),
        (&[0x8100, 0xe00a, 0x0800], ip(&PACKET, Some(10), v4)),
        (&[0x8100, 0xe000, 0x0800], ip(&PACKET, Some(0), v4)),
        (&[0x88a8, 7, 0x8100, 8, 0x86dd], ip(&PACKET, Some(7), v6)),
        (
            &[0x9100, 1, 0x9100, 2, 0x88a8, 3, 0x8100, 4, 0x0800],
            ip(&PACKET, Some(1), v4),
        ),
        (
            &[
                0x8100, 1, 0x8100, 2, 0x8100, 3, 0x8100, 4, 0x8100, 5, 0x0800,
            ],
            Err(NotIp::TooManyTags),
        ),
        (&[0x0806], Err(NotIp::Arp)),
        (&[0x8100, 1, 0x0806], Err(NotIp::Arp)),
        (&[0x8863], Err(NotIp::Pppoe)),
        (&[0x05ff], Err(NotIp::Llc)),
        (&[0], Err(NotIp::Llc)),
        (&[0x0600], Err(NotIp::OtherEtherType(0x0600))),
        (&[0x88cc], Err(NotIp::OtherEtherType(0x88cc))),
    ] {
        let frame = ethernet(types, &PACKET);
        assert_eq!(
            ip_packet(LinkType::Ethernet, &frame),
            expected,
            "{types:x?}"
        );
        let cooked = [&[0; 14], &frame[12..]].concat();
        assert_eq!(
            ip_packet(LinkType::LinuxSll, &cooked),
            expected,
            "{types:x?}"
        );
        let cooked = [&frame[12..14], &[0; 18], &frame[14..]].concat();
        assert_eq!(
            ip_packet(LinkType::LinuxSll2, &cooked),
            expected,
            "{types:x?}"
        );
    }
}

#[test]
fn a_link_header_that_is_cut_is_too_short_and_one_that_is_not_leaves_no_bytes() {
    let tagged = ethernet(&[0x8100, 5, 0x0800], &[]);
    let cooked = [&[0; 14][..], &[0x08, 0]].concat();
    let cooked_v2 = [&[0x08, 0][..], &[0; 18]].concat();
    for (link, header) in [
        (LinkType::Ethernet, &tagged[..]),
        (LinkType::LinuxSll, &cooked),
        (LinkType::LinuxSll2, &cooked_v2),
        (LinkType::Null, &[2, 0, 0, 0]),
        (LinkType::Loop, &[0, 0, 0, 2]),
    ] {
        for cut in 0..header.len() {
            assert_eq!(
                ip_packet(link, &header[..cut]),
                Err(NotIp::TooShort),
                "{link} {cut}"
            );
        }
        assert_eq!(ip_packet(link, header).unwrap().bytes, b"");
    }
}

#[test]
fn loopback_families_are_read_in_both_byte_orders() {
    for link in [LinkType::Null, LinkType::Loop] {
        for family in [2_u32, 10, 24, 28, 30] {
            let version = Some(if family == 2 {
                IpVersion::V4
            } else {
                IpVersion::V6
            });
            for field in [family.to_be_bytes(), family.to_le_bytes()] {
                let frame = [&field[..], &PACKET].concat();
                assert_eq!(ip_packet(link, &frame), ip(&PACKET, None, version));
            }
        }
        assert_eq!(
            ip_packet(link, &[0, 0, 0, 7, 1]),
            Err(NotIp::OtherFamily(7))
        );
    }
}

#[test]
fn raw_links_hand_out_whatever_they_carry() {
    for (number, version) in [
        (12, None),
        (14, None),
        (101, None),
        (228, Some(IpVersion::V4)),
        (229, Some(IpVersion::V6)),
    ] {
        for bytes in [&PACKET[..], &[0xff], &[]] {
            assert_eq!(
                ip_packet(LinkType::from(number), bytes),
                ip(bytes, None, version)
            );
        }
    }
    assert_eq!(
        ip_packet(LinkType::from(147), &PACKET),
        Err(NotIp::UnsupportedLink(147))
    );
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let reasons = [
        NotIp::Arp,
        NotIp::Mpls,
        NotIp::Pppoe,
        NotIp::Llc,
        NotIp::OtherEtherType(1),
        NotIp::OtherFamily(1),
        NotIp::TooManyTags,
        NotIp::TooShort,
        NotIp::UnsupportedLink(1),
        NotIp::OtherPpp(1),
        NotIp::NoData,
        NotIp::Encrypted,
        NotIp::Aggregate,
        NotIp::LinkFragment,
        NotIp::BadFrame,
        NotIp::TooManyLabels,
        NotIp::BadLinkHeader,
    ];
    let names: std::collections::BTreeSet<_> = reasons.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), reasons.len());
}

#[test]
fn a_cut_packet_gets_its_length_back_in_zeros() {
    let mut scratch = vec![9; 3];
    let whole = pad_cut(&PACKET, 0, &mut scratch);
    assert_eq!(
        whole,
        Padded {
            bytes: &PACKET,
            padded: 0
        }
    );
    let padded = pad_cut(&PACKET, 2, &mut scratch);
    assert_eq!(
        padded,
        Padded {
            bytes: &[0x45, 1, 2, 3, 4, 0, 0],
            padded: 2
        }
    );
    let most = pad_cut(&PACKET, usize::MAX, &mut scratch);
    assert_eq!(
        (most.bytes.len(), most.padded),
        (MAX_PADDED, MAX_PADDED - 5)
    );
    let long = vec![1; MAX_PADDED + 1];
    assert_eq!(
        pad_cut(&long, 7, &mut scratch),
        Padded {
            bytes: &long,
            padded: 0
        }
    );
}

#[test]
fn a_frame_says_how_much_of_it_was_cut() {
    let file = [
        Order::Big.pcap(0xa1b2_c3d4, 1),
        Order::Big.record(0, 0, 60, &PACKET),
    ]
    .concat();
    assert_eq!(reader(&file).unwrap().next().unwrap().unwrap().cut(), 55);
}
