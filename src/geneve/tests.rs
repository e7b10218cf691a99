use proptest::prelude::*;

use super::*;

/// A header of AWS: class 0x0108, endpoint and attachment of 8 bytes, cookie of 4.
const GWLB: [u8; 40] = [
    0x08, 0x00, 0x08, 0x00, 0, 0, 0, 0, // no flags, IPv4, VNI 0
    0x01, 0x08, 0x01, 0x02, 0x74, 0xa1, 0x1a, 0xd9, 0x6e, 0xc4, 0x98, 0x86, //
    0x01, 0x08, 0x02, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, //
    0x01, 0x08, 0x03, 0x01, 0x39, 0xf7, 0xf1, 0xa7,
];

fn none(_class: u16, _kind: u8) -> bool {
    false
}

fn with_inner(header: &[u8], inner: &[u8]) -> Vec<u8> {
    [header, inner].concat()
}

#[test]
fn options_come_in_their_order_and_the_rest_is_the_packet() {
    let datagram = with_inner(&GWLB, &[0x45, 1, 2]);
    let (header, inner) = Header::parse(&datagram, none).unwrap();
    assert_eq!((header.vni, header.bytes()), (0, &GWLB[..]));
    assert_eq!(
        (inner.protocol, inner.bytes),
        (InnerProtocol::Ipv4, &[0x45, 1, 2][..])
    );
    let options: Vec<_> = header.options().map(Result::unwrap).collect();
    assert_eq!(options.len(), 3);
    assert!(
        options
            .iter()
            .all(|option| option.class == 0x0108 && !option.is_critical())
    );
    assert_eq!(
        options[0].data,
        [0x74, 0xa1, 0x1a, 0xd9, 0x6e, 0xc4, 0x98, 0x86]
    );
    assert_eq!(
        (options[2].kind, options[2].data),
        (3, &[0x39, 0xf7, 0xf1, 0xa7][..])
    );
}

#[test]
fn every_error_has_a_datagram_that_shows_it() {
    let changed = |at: usize, value: u8| {
        let mut datagram = with_inner(&GWLB, &[0x45]);
        datagram[at] = value;
        datagram
    };
    let shown = [
        (vec![0; 7], GeneveError::HeaderTruncated),
        (changed(0, 0x48), GeneveError::Version),
        (changed(0, 0x3f), GeneveError::OptionsTruncated),
        (changed(11, 0x1f), GeneveError::OptionLength),
        (
            with_inner(&[1, 0, 8, 0, 0, 0, 0, 0], &[1, 8, 1, 1, 0x45]),
            GeneveError::OptionLength,
        ),
        (changed(1, 0x80), GeneveError::Control),
        (changed(10, 0x81), GeneveError::CriticalOption),
        (changed(1, 0x40), GeneveError::CriticalBit),
        (changed(3, 0x06), GeneveError::ProtocolUnknown),
        (GWLB.to_vec(), GeneveError::InnerEmpty),
        (changed(40, 0x60), GeneveError::InnerVersion),
    ];
    for (datagram, error) in &shown {
        assert_eq!(Header::parse(datagram, none), Err(*error), "{error:?}");
    }
    for error in GeneveError::ALL {
        assert!(shown.iter().any(|(_, each)| each == error), "{error:?}");
    }
}

#[test]
fn a_critical_option_that_is_known_passes_with_the_bit_and_only_with_it() {
    let known = |class, kind| (class, kind) == (0x0108, 0x81);
    let mut datagram = with_inner(&GWLB, &[0x45]);
    datagram[10] = 0x81;
    assert_eq!(
        Header::parse(&datagram, known),
        Err(GeneveError::CriticalBit)
    );
    datagram[1] = 0x40;
    assert!(Header::parse(&datagram, known).is_ok());
}

#[test]
fn reserved_bits_are_ignored() {
    let mut datagram = with_inner(&GWLB, &[0x45]);
    datagram[1] = 0x3f;
    datagram[7] = 0xff;
    datagram[11] |= 0xe0;
    let (header, _) = Header::parse(&datagram, none).unwrap();
    assert_eq!(header.vni, 0);
    assert_eq!(header.options().count(), 3);
}

#[test]
fn what_aws_sends_is_written_byte_for_byte() {
    let option = |kind, data| TunnelOption {
        class: 0x0108,
        kind,
        data,
    };
    let options = [
        option(1, &GWLB[12..20]),
        option(2, &[0; 8]),
        option(3, &GWLB[36..40]),
    ];
    let mut out = [0xff; 40];
    assert_eq!(encode(InnerProtocol::Ipv4, 0, &options, &mut out), Some(40));
    assert_eq!(out, GWLB);
    assert_eq!(
        encode(InnerProtocol::Ipv4, 0, &options, &mut out[..39]),
        None,
        "no room"
    );
}

#[test]
fn a_header_that_cannot_be_is_not_written() {
    let option = |len| TunnelOption {
        class: 1,
        kind: 0x80,
        data: &[0; 256][..len],
    };
    let mut out = [0; 1024];
    let mut written =
        |vni, options: &[TunnelOption<'_>]| encode(InnerProtocol::Ipv6, vni, options, &mut out);
    assert_eq!(written(1 << 24, &[]), None);
    assert_eq!(written(0, &[option(3)]), None);
    assert_eq!(written(0, &[option(128)]), None);
    assert_eq!(written(0, &[option(124), option(120)]), Some(8 + 252));
    assert_eq!(written(0, &[option(124), option(124)]), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        vni in 0u32..1 << 24,
        options in prop::collection::vec((any::<u16>(), any::<u8>(), 0usize..32), 0..8),
    ) {
        let options: Vec<_> = options
            .iter()
            .map(|(class, kind, words)| TunnelOption {
                class: *class,
                kind: *kind,
                data: &[7; 124][..words * 4],
            })
            .collect();
        let mut out = [0; 261];
        let sum: usize = options.iter().map(|option| 4 + option.data.len()).sum();
        match encode(InnerProtocol::Ipv6, vni, &options, &mut out) {
            Some(len) => {
                prop_assert_eq!(len, 8 + sum);
                out[len] = 0x60;
                let (header, inner) = Header::parse(&out[..=len], |_, _| true).unwrap();
                let read: Vec<_> = header.options().map(Result::unwrap).collect();
                let found = (header.vni, inner.protocol, read);
                prop_assert_eq!(found, (vni, InnerProtocol::Ipv6, options));
            }
            None => prop_assert!(sum > 252),
        }
    }

    #[test]
    fn any_bytes_are_split_into_header_and_inner_or_refused(
        datagram in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok((header, inner)) = Header::parse(&datagram, |_, _| true) {
            prop_assert_eq!(header.bytes().len() + inner.bytes.len(), datagram.len());
            let lengths = header.options().map(|option| option.unwrap().data.len() + 4);
            let options: usize = lengths.sum();
            prop_assert_eq!(8 + options, header.bytes().len());
        }
    }
}
