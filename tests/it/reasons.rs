//! Every drop reason has a packet that is dropped for that reason alone and moves only its counter.

use std::time::{Duration, Instant};

use crate::support::packets::{
    ACK, Ends, FIN, Head, RST, SYN, chunk, dccp, discovery, echo, icmp, init, other, sctp, tcp,
    udp, unreachable,
};
use crate::support::seal::sealed;
use etherparse::TcpOptionElement;
use portcullis::config::{
    Attachment, ChallengeMode, Checksums, Config, FragmentsConfig, LatePacket, LimitSet,
    OptionsMode, PolicyConfig, RefusedAnnouncement, TableConfig,
};
use portcullis::policy::Action;
use portcullis::{
    ChallengeEvent, Class, Discard, DropReason, Engine, LogFault, Malformed, Packet, Reply,
    SessionFilter, Stats, Verdict, Zone,
};

/// Scenario in which one reason occurs.
struct Scenario {
    config: Config,
    /// Packets that must pass.
    before: Vec<Vec<u8>>,
    /// Step before the packet. Returns the time at which the packet arrives.
    then: fn(&Engine, Instant) -> Instant,
    /// The packet that is dropped.
    packet: Vec<u8>,
    /// Zone of the packet.
    zone: Zone,
    /// Whether the packet arrives while the caller is overloaded.
    sheddable: bool,
}

const V4: Ends = Ends::v4(4000, 80);
const V6: Ends = Ends::v6(4000, 80);
const SEED: [u64; 4] = [1, 2, 3, 4];

fn alone(packet: Vec<u8>) -> Scenario {
    after(Vec::new(), packet)
}

fn after(before: Vec<Vec<u8>>, packet: Vec<u8>) -> Scenario {
    Scenario {
        config: Config::allow_all(),
        before,
        then: |_, now| now,
        packet,
        zone: Zone::DEFAULT,
        sheddable: false,
    }
}

/// Returns a scenario in which checksums are handled according to `checksums`.
fn with_checksums(checksums: Checksums, packet: Vec<u8>) -> Scenario {
    let mut scenario = alone(packet);
    scenario.config.engine.checksums = checksums;
    scenario
}

/// A packet in which only the default verification of checksums finds a fault.
fn verified(packet: Vec<u8>) -> Scenario {
    alone(packet)
}

fn with_policy(default: Action, packet: Vec<u8>) -> Scenario {
    Scenario {
        config: Config {
            policy: PolicyConfig {
                default,
                ..PolicyConfig::default()
            },
            ..Config::allow_all()
        },
        ..alone(packet)
    }
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    tcp(ends, head, &[], payload)
}

/// A handshake: the next bytes are 101 from the initiator and 501 from the responder; each may send
/// 1000.
fn handshake() -> Vec<Vec<u8>> {
    vec![
        segment(V4, SYN, 100, 0, &[]),
        segment(V4.back(), SYN | ACK, 500, 101, &[]),
        segment(V4, ACK, 101, 501, &[]),
    ]
}

fn handshake_of(ends: Ends) -> Vec<Vec<u8>> {
    vec![
        segment(ends, SYN, 100, 0, &[]),
        segment(ends.back(), SYN | ACK, 500, 101, &[]),
        segment(ends, ACK, 101, 501, &[]),
    ]
}

fn with_places(max_sessions: u32) -> Config {
    Config {
        table: TableConfig {
            max_sessions,
            shards: Some(1),
            ..TableConfig::default()
        },
        ..Config::allow_all()
    }
}

/// Two SYNs from one source to one destination, and limits of the zone that allow one.
fn limited(limit: fn(&mut LimitSet)) -> Scenario {
    let mut limits = LimitSet::default();
    limit(&mut limits);
    let mut scenario = after(
        vec![segment(V4, SYN, 100, 0, &[])],
        segment(Ends::v4(4001, 80), SYN, 100, 0, &[]),
    );
    scenario.config.limits.zones = [("default".to_owned(), limits)].into();
    scenario
}

/// An SCTP association: the initiator must carry the tag 2, the responder the tag 1.
fn association() -> Vec<Vec<u8>> {
    vec![
        sctp(V4, 0, &init(1, 1)),
        sctp(V4.back(), 1, &init(2, 2)),
        sctp(V4, 2, &chunk(10, 0, &[7; 8])),
        sctp(V4.back(), 1, &chunk(11, 0, &[])),
    ]
}

/// An edited packet with correct checksums.
fn edited(packet: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    sealed(damaged(packet, edit))
}

/// An edited packet, with the checksums of the original one.
fn damaged(mut packet: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut packet);
    packet
}

/// An IPv4 packet as a fragment: `field` is the flags and the offset in units of 8 bytes.
fn fragment(payload: &[u8], field: u16) -> Vec<u8> {
    edited(other(V4, 17, payload), |p| {
        p[6..8].copy_from_slice(&field.to_be_bytes());
    })
}

const MORE_FRAGMENTS: u16 = 0x2000;

/// A first fragment of 16 bytes of a UDP datagram.
fn first_fragment(id: u8) -> Vec<u8> {
    let mut payload = [0; 16];
    payload[..6].copy_from_slice(&[0x0f, 0xa0, 0, 53, 1, 0]);
    edited(fragment(&payload, MORE_FRAGMENTS), |p| {
        p[4..6].copy_from_slice(&[0, id])
    })
}

/// A later fragment of 8 bytes of datagram 1 at `units` of 8 bytes, with more to follow.
fn later_fragment(units: u16) -> Vec<u8> {
    edited(fragment(&[0; 8], MORE_FRAGMENTS | units), |p| {
        p[4..6].copy_from_slice(&[0, 1])
    })
}

/// The last fragment of datagram 1, which ends at byte 40.
fn last_fragment() -> Vec<u8> {
    edited(later_fragment(4), |p| p[6] = 0)
}

fn with_fragments(fragments: FragmentsConfig, before: Vec<Vec<u8>>, packet: Vec<u8>) -> Scenario {
    Scenario {
        config: Config {
            fragments,
            ..Config::allow_all()
        },
        ..after(before, packet)
    }
}

/// A UDP datagram over IPv4 with options: whole words.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut packet = udp(V4, b"payload");
    packet.splice(20..20, options.iter().copied());
    let len = packet.len() as u8;
    edited(packet, |p| {
        p[0] += options.len() as u8 / 4;
        p[2..4].copy_from_slice(&[0, len]);
    })
}

/// A packet between two addresses.
fn between<const N: usize>(packet: Vec<u8>, src: [u8; N], dst: [u8; N]) -> Vec<u8> {
    let start = if N == 4 { 12 } else { 8 };
    edited(packet, |p| {
        p[start..start + N].copy_from_slice(&src);
        p[start + N..start + 2 * N].copy_from_slice(&dst);
    })
}

/// An IPv6 packet whose next header is `first`.
fn chain(first: u8, payload: &[u8]) -> Vec<u8> {
    // The builder does not write such chains, so it writes another protocol, whose number is then
    // replaced.
    edited(other(V6, 253, payload), |p| p[6] = first)
}

/// An extension header of 8 bytes: the next header, then seven bytes.
fn extension(next: u8, rest: [u8; 7]) -> Vec<u8> {
    [&[next][..], &rest].concat()
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;

fn malformed(reason: Malformed) -> Option<Scenario> {
    let datagram = || udp(V4, b"payload");
    let datagram6 = || udp(V6, b"payload");
    let syn = || segment(V4, SYN, 100, 0, &[]);
    Some(match reason {
        Malformed::Empty => alone(Vec::new()),
        Malformed::IpVersionUnknown => alone(edited(datagram(), |p| p[0] = 0x55)),
        Malformed::Ipv4HeaderTruncated => alone(datagram()[..19].to_vec()),
        Malformed::Ipv4HeaderLength => alone(edited(datagram(), |p| p[0] = 0x44)),
        Malformed::Ipv4TotalLengthBelowHeader => {
            alone(edited(datagram(), |p| p[2..4].copy_from_slice(&[0, 19])))
        }
        Malformed::Ipv4TotalLengthBeyondPacket => {
            let packet = datagram();
            alone(packet[..packet.len() - 1].to_vec())
        }
        Malformed::Ipv4HeaderChecksum => verified(damaged(datagram(), |p| p[10] ^= 0xff)),
        Malformed::Ipv4Option => alone(with_options(&[130, 1, 0, 0])),
        Malformed::Ipv6HeaderTruncated => alone(datagram6()[..39].to_vec()),
        Malformed::Ipv6PayloadLengthZero => alone(edited(datagram6(), |p| p[4..6].fill(0))),
        Malformed::Ipv6PayloadLengthBeyondPacket => {
            let packet = datagram6();
            alone(packet[..packet.len() - 1].to_vec())
        }
        Malformed::Ipv6ExtensionTruncated => alone(chain(
            DESTINATION,
            &extension(NO_NEXT_HEADER, [1, 0, 0, 0, 0, 0, 0]),
        )),
        Malformed::Ipv6ExtensionChainTooLong => alone(chain(
            DESTINATION,
            &extension(DESTINATION, [0; 7]).repeat(9),
        )),
        Malformed::Ipv6HopByHopNotFirst => {
            let payload = [
                extension(HOP_BY_HOP, [0; 7]),
                extension(NO_NEXT_HEADER, [0; 7]),
            ]
            .concat();
            alone(chain(DESTINATION, &payload))
        }
        Malformed::Ipv6RoutingHeaderType0 => alone(chain(
            ROUTING,
            &extension(NO_NEXT_HEADER, [0, 0, 1, 0, 0, 0, 0]),
        )),
        Malformed::Ipv6FragmentHeaderRepeated => {
            alone(chain(FRAGMENT, &extension(FRAGMENT, [0; 7]).repeat(2)))
        }
        Malformed::SourceAddressNotUnicast => alone(edited(datagram(), |p| p[12] = 224)),
        Malformed::FragmentEmpty => alone(fragment(&[], MORE_FRAGMENTS)),
        Malformed::FragmentLengthNotMultipleOf8 => alone(fragment(&[0; 9], MORE_FRAGMENTS)),
        Malformed::FragmentBeyond65535 => alone(fragment(&[0; 8], 0x1fff)),
        Malformed::FragmentTiny => alone(edited(first_fragment(1), |p| p[9] = 6)),
        Malformed::FragmentInsideTcpHeader => alone(edited(later_fragment(1), |p| p[9] = 6)),
        Malformed::TcpHeaderTruncated => alone(other(V4, 6, &[0; 19])),
        Malformed::TcpHeaderLength => alone(edited(syn(), |p| p[32] = 0x40)),
        Malformed::TcpFlags => alone(segment(V4, SYN | FIN, 100, 0, &[])),
        Malformed::TcpChecksum => verified(damaged(syn(), |p| p[36] ^= 0xff)),
        Malformed::UdpHeaderTruncated => alone(other(V4, 17, &[0; 7])),
        Malformed::UdpLength => alone(edited(datagram(), |p| p[24..26].copy_from_slice(&[0, 7]))),
        Malformed::UdpChecksum => verified(damaged(datagram(), |p| p[26] ^= 0xff)),
        Malformed::UdpChecksumMissingIpv6 => with_checksums(
            Checksums::Require,
            damaged(datagram6(), |p| p[46..48].fill(0)),
        ),
        Malformed::IcmpHeaderTruncated => alone(other(V4, 1, &[8, 0, 0, 0, 0, 0, 0])),
        Malformed::IcmpChecksum => verified(damaged(echo(V4, true), |p| p[22] ^= 0xff)),
        Malformed::IcmpVersionMismatch => alone(other(V4, 58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        Malformed::IcmpErrorQuoteTruncated => alone(unreachable(false, 1, &datagram()[..27])),
        Malformed::IcmpErrorQuoteMalformed => alone(unreachable(false, 1, &datagram6())),
        Malformed::DiscoverySource => alone(discovery("2001:db8::1", "ff02::1", 134, &[0; 12])),
        Malformed::DiscoveryHeaders => alone(edited(
            discovery("fe80::1", "ff02::16", 143, &[0; 4]),
            |p| p[42] = 0xc2,
        )),
        Malformed::DiscoveryLength => alone(discovery("fe80::1", "ff02::1", 134, &[0; 8])),
        Malformed::DiscoveryFields => alone(discovery("fe80::1", "fe80::2", 135, &[0; 20])),
        Malformed::DiscoveryOptions => alone(discovery("fe80::1", "fe80::2", 133, &[0; 12])),
        other => return malformed_transport(other),
    })
}

fn malformed_transport(reason: Malformed) -> Option<Scenario> {
    let data = chunk(0, 3, &[0; 16]);
    let request = || dccp(V4, 0, 1, 0);
    let lite = |coverage: u8, sum: u8| other(V4, 136, &[1, 2, 3, 4, 0, coverage, sum, 0, 9]);
    let gre = |payload: &[u8]| other(V4, 47, payload);
    Some(match reason {
        Malformed::SctpHeaderTruncated => alone(other(V4, 132, &[1; 11])),
        Malformed::SctpNoChunk => alone(sctp(V4, 1, &[])),
        Malformed::SctpChunkLength => alone(sctp(V4, 1, &data[..16])),
        Malformed::SctpTooManyChunks => alone(sctp(V4, 1, &chunk(3, 0, &[]).repeat(1025))),
        Malformed::SctpBundling => alone(sctp(V4, 0, &[init(1, 1), data].concat())),
        Malformed::SctpInit => alone(sctp(V4, 0, &init(1, 0))),
        Malformed::SctpTagOfInit => alone(sctp(V4, 9, &init(1, 1))),
        Malformed::SctpChecksum => verified(damaged(sctp(V4, 0, &init(1, 1)), |p| p[28] ^= 1)),
        Malformed::DccpHeaderTruncated => alone(other(V4, 33, &[0; 11])),
        Malformed::DccpType => alone(edited(request(), |p| p[28] = 10 << 1 | 1)),
        Malformed::DccpShortSequence => alone(edited(request(), |p| p[28] &= !1)),
        Malformed::DccpDataOffset => alone(edited(request(), |p| p[24] = 4)),
        Malformed::DccpChecksumCoverage => alone(edited(request(), |p| p[25] = 2)),
        Malformed::DccpChecksum => verified(damaged(request(), |p| p[26] ^= 1)),
        Malformed::UdpLiteHeaderTruncated => alone(other(V4, 136, &[0; 7])),
        Malformed::UdpLiteChecksumCoverage => alone(lite(7, 1)),
        Malformed::UdpLiteChecksumMissing => verified(lite(0, 0)),
        Malformed::UdpLiteChecksum => verified(lite(0, 1)),
        Malformed::GreHeaderTruncated => alone(gre(&[0x20, 0, 8, 0])),
        Malformed::GreVersion => alone(gre(&[0, 2, 8, 0])),
        Malformed::GreFlags => alone(gre(&[0x40, 0, 8, 0, 0, 0, 0, 0])),
        Malformed::GrePayloadLength => alone(gre(&[0x20, 1, 0x88, 0x0b, 0, 1, 0, 9])),
        Malformed::GreChecksum => verified(gre(&[0x80, 0, 8, 0, 1, 2, 0, 0])),
        Malformed::EspHeaderTruncated => alone(other(V4, 50, &[1; 7])),
        Malformed::EspSpiZero => alone(other(V4, 50, &[0; 8])),
        Malformed::AhHeaderTruncated => alone(other(V4, 51, &[1; 11])),
        Malformed::AhLength => alone(other(V4, 51, &[6, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
        Malformed::AhSpiZero => alone(other(V4, 51, &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
        _ => return None,
    })
}

/// Data of a session that has ended, with late packets dropped silently.
fn late(end: Vec<Vec<u8>>, then: fn(&Engine, Instant) -> Instant) -> Scenario {
    let before = handshake().into_iter().chain(end).collect();
    let mut scenario = Scenario {
        then,
        ..after(before, segment(V4, ACK, 101, 501, b"late"))
    };
    scenario.config.tcp.late = LatePacket::Drop;
    scenario
}

/// All lifetimes pass.
fn expired(engine: &Engine, now: Instant) -> Instant {
    let now = now + Duration::from_secs(400);
    while engine.expire_with(now, 100, &mut Discard).more {}
    now
}

/// Returns packets that are dropped for their IP headers.
fn ip_header(reason: DropReason) -> Option<Scenario> {
    const HOST: [u8; 4] = [10, 0, 0, 1];
    let datagram = |src: [u8; 4], dst: [u8; 4]| alone(between(udp(V4, b"payload"), src, dst));
    let syn = segment(V4, SYN, 100, 0, &[]);
    Some(match reason {
        DropReason::SourceRoute => alone(with_options(&[131, 7, 4, 10, 0, 0, 9, 0])),
        DropReason::IpOptions => {
            let mut scenario = alone(with_options(&[148, 4, 0, 0]));
            scenario.config.ip.options = OptionsMode::Strict;
            scenario
        }
        DropReason::TtlZero => alone(edited(udp(V4, b"payload"), |p| p[8] = 0)),
        DropReason::AddressLand => datagram(HOST, HOST),
        DropReason::AddressLoopback => datagram([127, 0, 0, 1], HOST),
        DropReason::AddressUnspecified => datagram([0; 4], HOST),
        DropReason::AddressReserved => datagram([240, 0, 0, 1], HOST),
        DropReason::AddressMapped => {
            let mut mapped = [0; 16];
            mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
            let mut host = [0; 16];
            host[..2].copy_from_slice(&[0x20, 1]);
            alone(between(udp(V6, b"payload"), mapped, host))
        }
        DropReason::AddressLinkLocal => {
            let mut scenario = alone(edited(udp(V6, b"payload"), |p| {
                p[8..10].copy_from_slice(&[0xfe, 0x80]);
            }));
            scenario.config.engine.attachment = Attachment::Tunnel;
            scenario
        }
        DropReason::ConnectionToMulticast => alone(between(syn, HOST, [224, 0, 1, 1])),
        DropReason::AddressOutside => {
            let mut scenario = datagram([198, 51, 100, 1], [203, 0, 113, 1]);
            let inside = vec!["10.0.0.0/8".parse().unwrap()];
            scenario
                .config
                .ip
                .inside
                .insert("default".to_owned(), inside);
            scenario
        }
        _ => return None,
    })
}

fn scenario(reason: DropReason) -> Option<Scenario> {
    let of_ip_header = ip_header(reason);
    if of_ip_header.is_some() {
        return of_ip_header;
    }
    Some(match reason {
        DropReason::Malformed(reason) => return malformed(reason),
        DropReason::FragmentBeforeFirst => alone(later_fragment(2)),
        DropReason::FragmentOfDropped => {
            // A UDP length of 0.
            let bad = edited(first_fragment(1), |p| p[24..26].fill(0));
            after(vec![bad], later_fragment(2))
        }
        DropReason::FragmentDuplicate => after(vec![first_fragment(1)], first_fragment(1)),
        DropReason::FragmentOverlap => {
            let across = edited(first_fragment(1), |p| p[7] = 1);
            after(vec![first_fragment(1)], across)
        }
        DropReason::FragmentBeyondEnd => {
            after(vec![first_fragment(1), last_fragment()], later_fragment(5))
        }
        DropReason::FragmentTooMany => {
            let gaps = (1..16).map(|n| later_fragment(2 * n + 1));
            after(
                [first_fragment(1)].into_iter().chain(gaps).collect(),
                later_fragment(99),
            )
        }
        DropReason::FragmentExpired => {
            let fragments = FragmentsConfig {
                lifetime: Duration::from_secs(1),
                ..FragmentsConfig::default()
            };
            // A packet every 10 ms.
            let meanwhile = (0..100).map(|_| udp(V4, b"meanwhile"));
            let before = [first_fragment(1)].into_iter().chain(meanwhile).collect();
            with_fragments(fragments, before, later_fragment(2))
        }
        DropReason::FragmentSourceLimit => {
            let fragments = FragmentsConfig {
                max_per_source: 1,
                ..FragmentsConfig::default()
            };
            let before = vec![first_fragment(1), first_fragment(2)];
            with_fragments(fragments, before, later_fragment(2))
        }
        DropReason::FragmentTableFull => {
            let fragments = FragmentsConfig {
                max_datagrams: 1,
                ..FragmentsConfig::default()
            };
            let before = vec![first_fragment(1), first_fragment(2)];
            with_fragments(fragments, before, later_fragment(2))
        }
        DropReason::DiscoveryFragmented => {
            let more = extension(58, [0, 0, 1, 0, 0, 0, 1]);
            alone(chain(
                FRAGMENT,
                &[&more[..], &[135, 0, 0, 0], &[0; 20]].concat(),
            ))
        }
        DropReason::TcpNoSession => alone(segment(V4, ACK, 101, 501, b"data")),
        DropReason::TcpState => after(
            vec![segment(V4, SYN, 100, 0, &[])],
            segment(V4, FIN | ACK, 101, 501, &[]),
        ),
        DropReason::TcpSeqAboveWindow => {
            after(handshake(), segment(V4, ACK, 101 + 100_000, 501, b"data"))
        }
        DropReason::TcpAckOfUnseen => after(handshake(), segment(V4, ACK, 101, 502, b"data")),
        DropReason::TcpRstBelowWindow => after(handshake(), segment(V4.back(), RST, 500, 0, &[])),
        DropReason::SctpNoSession => alone(sctp(V4, 2, &chunk(0, 3, &[0; 16]))),
        DropReason::SctpState => after(association(), sctp(V4, 2, &chunk(8, 0, &[]))),
        DropReason::SctpTag => after(association(), sctp(V4, 3, &chunk(6, 0, &[]))),
        DropReason::DccpNoSession => alone(dccp(V4, 3, 1, 1)),
        DropReason::DccpState => after(vec![dccp(V4, 0, 1, 0)], dccp(V4, 3, 2, 1)),
        DropReason::DccpAckOfUnseen => after(vec![dccp(V4, 0, 1, 0)], dccp(V4.back(), 7, 0, 2)),
        DropReason::IcmpReplyNoSession => alone(echo(V4, false)),
        DropReason::IcmpTypeUnsupported => alone(icmp(V6, 5, [0; 4], &udp(V6, b"payload"))),
        DropReason::IcmpErrorAfterEnd => Scenario {
            then: |engine, now| {
                let now = now + Duration::from_secs(60);
                assert_eq!(engine.expire_with(now, 10, &mut Discard).ended, 1);
                now
            },
            ..after(
                vec![udp(V4, b"payload")],
                unreachable(false, 1, &udp(V4, b"payload")),
            )
        },
        DropReason::IcmpErrorNoSession => alone(unreachable(false, 1, &udp(V4, b"payload"))),
        DropReason::IcmpErrorNotToSender => after(
            vec![udp(V4, b"payload")],
            unreachable(false, 3, &udp(V4, b"payload")),
        ),
        DropReason::TcpSplitHandshake => after(
            vec![
                segment(V4, SYN, 100, 0, &[]),
                segment(V4.back(), SYN, 500, 0, &[]),
                segment(V4, SYN | ACK, 100, 501, &[]),
            ],
            segment(V4.back(), ACK, 501, 101, &[]),
        ),
        DropReason::IcmpErrorSequence => after(
            handshake(),
            unreachable(
                false,
                1,
                &segment(V4, ACK, 101 + 1_000_000, 501, b"never sent"),
            ),
        ),
        DropReason::DiscoveryInTunnel => {
            let mut scenario = alone(discovery("fe80::1", "fe80::2", 133, &[0; 4]));
            scenario.config.engine.attachment = Attachment::Tunnel;
            scenario
        }
        DropReason::DiscoveryOffLink => {
            alone(edited(discovery("fe80::1", "fe80::2", 133, &[0; 4]), |p| {
                p[7] = 1
            }))
        }
        DropReason::IcmpSourceQuench => after(
            vec![udp(V4, b"payload")],
            icmp(V4.back(), 4, [0; 4], &udp(V4, b"payload")),
        ),
        DropReason::IcmpErrorMtuTooSmall => after(
            vec![udp(V6, b"payload")],
            icmp(V6.back(), 2, [0, 0, 4, 0xff], &udp(V6, &[0; 1300])),
        ),
        DropReason::IcmpErrorMtuFits => after(
            vec![udp(V6, b"payload")],
            icmp(V6.back(), 2, [0, 0, 5, 0], &udp(V6, b"payload")),
        ),
        DropReason::IcmpRedirect => after(
            vec![udp(V4, b"payload")],
            icmp(V4, 5, [0; 4], &udp(V4, b"payload")),
        ),
        DropReason::IcmpErrorAboutError => {
            let about = unreachable(false, 2, &udp(V4, b"payload"));
            // From a router other than the sender of the quoted packet.
            let error = edited(unreachable(false, 200, &about), |p| p[15] = 201);
            after(vec![udp(V4, b"payload")], error)
        }
        DropReason::PolicyDeny => with_policy(Action::Deny, udp(V4, b"payload")),
        DropReason::PolicyReject => with_policy(Action::Reject, segment(V4, SYN, 100, 0, &[])),
        DropReason::SynChallenged => always_challenged(segment(V4, SYN, 100, 0, &[])),
        DropReason::SynChallengeBudget => {
            let mut scenario = always_challenged(segment(V4, SYN, 100, 0, &[]));
            scenario.config.syn_challenge.per_second = 1;
            scenario.then = |engine, now| {
                challenged(engine, now);
                now
            };
            scenario
        }
        DropReason::SynValidated => {
            let scenario = always_challenged(Vec::new());
            let twin = Engine::with_seed(&scenario.config, SEED).unwrap();
            let cookie = challenged(&twin, Instant::now());
            Scenario {
                packet: segment(V4, RST, cookie, 0, &[]),
                then: |engine, now| {
                    challenged(engine, now);
                    now
                },
                ..scenario
            }
        }
        DropReason::TableFull => Scenario {
            config: Config {
                table: TableConfig {
                    max_sessions: 1,
                    shards: Some(1),
                    ..TableConfig::default()
                },
                ..Config::allow_all()
            },
            ..after(handshake(), udp(Ends::v4(4001, 80), b"question"))
        },
        DropReason::LimitSessions => limited(|limits| limits.max_sessions = Some(1)),
        DropReason::LimitSource => limited(|limits| limits.max_per_source = Some(1)),
        DropReason::LimitDestination => limited(|limits| limits.max_per_destination = Some(1)),
        DropReason::LimitHalfOpen => limited(|limits| limits.max_half_open_per_source = Some(1)),
        DropReason::LimitRate => limited(|limits| limits.new_per_second_per_source = Some(1)),
        DropReason::LimitSourceShare => Scenario {
            config: with_places(128),
            ..after(
                (0..64)
                    .flat_map(|port| handshake_of(Ends::v4(port + 1, 80)))
                    .collect(),
                udp(Ends::v4(4001, 80), b"question"),
            )
        },
        DropReason::LimitZoneShare => {
            let mut config = with_places(4);
            config.zones = [("default".to_owned(), 0), ("other".to_owned(), 1)].into();
            let before = (0..3).flat_map(|port| handshake_of(Ends::v4(port + 1, 80)));
            Scenario {
                config,
                ..after(before.collect(), udp(Ends::v4(4001, 80), b"question"))
            }
        }
        DropReason::Overload => Scenario {
            sheddable: true,
            ..after(
                vec![udp(V4, b"question")],
                udp(Ends::v4(4001, 80), b"question"),
            )
        },
        DropReason::LogUnavailable => Scenario {
            then: |engine, now| {
                engine.log_gate().report(LogFault::QueueFull);
                now
            },
            ..alone(udp(V4, b"question"))
        },
        DropReason::TcpSynAckWithoutSyn => alone(segment(V4, SYN | ACK, 100, 501, &[])),
        DropReason::TcpAckWithoutSynAck => after(
            vec![segment(V4, SYN, 100, 0, &[])],
            segment(V4, ACK, 101, 501, &[]),
        ),
        DropReason::OtherZone => {
            let mut scenario = after(handshake(), segment(V4.back(), ACK, 501, 101, b"data"));
            scenario.config.zones = [("other".to_owned(), 1)].into();
            scenario.zone = Zone(1);
            scenario
        }
        DropReason::FtpRefused => {
            const CONTROL: Ends = Ends::v4(4000, 21);
            let mut scenario = after(
                vec![
                    segment(CONTROL, SYN, 100, 0, &[]),
                    segment(CONTROL.back(), SYN | ACK, 500, 101, &[]),
                    segment(CONTROL, ACK, 101, 501, &[]),
                    segment(CONTROL, ACK, 101, 501, b"NOOP 1\r\n"),
                ],
                // Other bytes in the same place.
                segment(CONTROL, ACK, 101, 501, b"PORT 1\r\n"),
            );
            scenario.config.ftp.refused = RefusedAnnouncement::Drop;
            scenario
        }
        DropReason::TcpAfterTimeout => late(Vec::new(), expired),
        DropReason::TcpAfterReset => late(vec![segment(V4.back(), RST, 501, 0, &[])], expired),
        DropReason::TcpAfterEviction => {
            let mut scenario = late(
                vec![
                    segment(V4, FIN | ACK, 101, 501, &[]),
                    segment(V4.back(), FIN | ACK, 501, 102, &[]),
                    udp(Ends::v4(4001, 53), b"question"),
                ],
                |_, now| now,
            );
            scenario.config.table = TableConfig {
                max_sessions: 1,
                shards: Some(1),
                ..TableConfig::default()
            };
            scenario
        }
        DropReason::TcpAfterRevocation => late(Vec::new(), |engine, now| {
            let mut config = Config::allow_all();
            config.policy.default = Action::Deny;
            config.tcp.late = LatePacket::Drop;
            let done = engine.reload(&config, now, &mut Discard).unwrap();
            assert_eq!(done.revoked, 1);
            now
        }),
        DropReason::TcpAfterDeletion => late(Vec::new(), |engine, now| {
            let ended = engine.end_sessions(&SessionFilter::default(), now, &mut Discard);
            assert_eq!(ended, 1);
            now
        }),
        _ => return None,
    })
}

/// A packet in a zone where every unknown source is challenged.
fn always_challenged(packet: Vec<u8>) -> Scenario {
    let mut scenario = alone(packet);
    scenario.config.syn_challenge.mode = ChallengeMode::Always;
    scenario
}

/// Challenges a SYN, and returns the cookie.
fn challenged(engine: &Engine, now: Instant) -> u32 {
    let verdict = engine.verdict_only(Packet::new(&segment(V4, SYN, 100, 0, &[]), now));
    let Verdict::Reject(DropReason::SynChallenged, Reply::Challenge(cookie), _) = verdict else {
        panic!("{verdict:?}");
    };
    cookie.0
}

fn records(engine: &Engine) -> Vec<portcullis::SessionRecord> {
    let mut records = Vec::new();
    engine.for_each_session(|record| records.push(*record));
    records
}

/// Returns the counters after one packet was dropped for `reason`.
fn counted(mut stats: Stats, reason: DropReason, verdict: &Verdict) -> Stats {
    for (each, count) in &mut stats.dropped {
        *count += u64::from(*each == reason);
    }
    stats.rejected += u64::from(matches!(verdict, Verdict::Reject(..)));
    let event = match reason {
        DropReason::SynChallenged => Some(ChallengeEvent::Challenged),
        DropReason::SynChallengeBudget => Some(ChallengeEvent::Unsent),
        DropReason::SynValidated => Some(ChallengeEvent::Validated),
        _ => None,
    };
    for (each, count) in &mut stats.challenge_events {
        *count += u64::from(Some(*each) == event);
    }
    stats.known_sources += usize::from(reason == DropReason::SynValidated);
    stats
}

#[test]
fn every_reason_has_a_packet_and_moves_its_own_counter_alone() {
    for reason in DropReason::all() {
        let Some(scenario) = scenario(reason) else {
            panic!("no scenario for {reason}");
        };
        let engine = Engine::with_seed(&scenario.config, SEED).unwrap();
        let base = Instant::now();
        let mut now = base;
        for (number, bytes) in scenario.before.iter().enumerate() {
            let verdict = engine.verdict_only(Packet::new(bytes, now));
            let meant = verdict.is_forward() || reason == DropReason::FragmentOfDropped;
            assert!(meant, "{reason}, packet {number}: {verdict:?}");
            now += Duration::from_millis(10);
        }
        now = (scenario.then)(&engine, now);
        let (stats, sessions) = (engine.stats(), records(&engine));
        let verdict = engine.verdict_only(
            Packet::new(&scenario.packet, now)
                .zone(scenario.zone)
                .sheddable(scenario.sheddable),
        );
        assert_eq!(verdict.reason(), Some(reason), "{verdict:?}");
        assert_eq!(
            matches!(verdict, Verdict::Reject(..)),
            matches!(reason, DropReason::PolicyReject | DropReason::SynChallenged)
        );
        let about_new = matches!(
            reason,
            DropReason::PolicyDeny
                | DropReason::PolicyReject
                | DropReason::TableFull
                | DropReason::LimitSessions
                | DropReason::LimitSource
                | DropReason::LimitDestination
                | DropReason::LimitHalfOpen
                | DropReason::LimitRate
                | DropReason::LimitSourceShare
                | DropReason::LimitZoneShare
                | DropReason::Overload
                | DropReason::LogUnavailable
                | DropReason::SynChallenged
                | DropReason::SynChallengeBudget
                | DropReason::FragmentDuplicate
                | DropReason::FragmentSourceLimit
                | DropReason::FragmentTableFull
        );
        let class = if about_new {
            Class::New
        } else {
            Class::Invalid
        };
        assert_eq!(verdict.tracked().class, class, "{reason}");
        assert_eq!(engine.stats(), counted(stats, reason, &verdict), "{reason}");
        assert_eq!(records(&engine), sessions, "{reason} changes no session");
        engine.check_invariants().unwrap();
    }
}

#[test]
fn wrong_checksums_pass_where_checksums_are_trusted() {
    for reason in [
        Malformed::Ipv4HeaderChecksum,
        Malformed::TcpChecksum,
        Malformed::UdpChecksum,
        Malformed::UdpChecksumMissingIpv6,
        Malformed::IcmpChecksum,
        Malformed::SctpChecksum,
        Malformed::DccpChecksum,
        Malformed::UdpLiteChecksum,
        Malformed::UdpLiteChecksumMissing,
        Malformed::GreChecksum,
    ] {
        let scenario = malformed(reason).unwrap();
        let now = Instant::now();
        let mut trust = Config::allow_all();
        trust.engine.checksums = Checksums::Trust;
        let trusting = Engine::with_seed(&trust, [1, 2, 3, 4]).unwrap();
        let verdict = trusting.verdict_only(Packet::new(&scenario.packet, now));
        assert!(verdict.is_forward(), "{reason}: {verdict:?}");
        let verifying = Engine::with_seed(&scenario.config, [1, 2, 3, 4]).unwrap();
        let verdict = verifying.verdict_only(Packet::new(&scenario.packet, now).offloaded(true));
        assert!(verdict.is_forward(), "{reason}, offloaded: {verdict:?}");
    }
}

/// A SYN-ACK that answers a remembered SYN and violates the window must not have synchronized the
/// tracker.
#[test]
fn an_invalid_answer_to_a_repeated_syn_does_not_touch_the_connection() {
    let engine = Engine::with_seed(&Config::allow_all(), [1, 2, 3, 4]).unwrap();
    let now = Instant::now();
    let options = [TcpOptionElement::SelectiveAcknowledgementPermitted];
    let head = |flags, seq, ack| Head {
        flags,
        seq,
        ack,
        window: 1000,
    };
    let stale_syn = tcp(V4, head(SYN, 900_000, 0), &options, &[]);
    for bytes in handshake().iter().chain([&stale_syn]) {
        let verdict = engine.verdict_only(Packet::new(bytes, now));
        assert!(verdict.is_forward(), "{verdict:?}");
    }
    let blocks = TcpOptionElement::SelectiveAcknowledgement((900_100, 900_200), [None; 3]);
    let bad = tcp(V4.back(), head(SYN | ACK, 7_000, 900_001), &[blocks], &[]);
    let verdict = engine.verdict_only(Packet::new(&bad, now));
    assert_eq!(verdict.reason(), Some(DropReason::TcpAckOfUnseen));
    let verdict = engine.verdict_only(Packet::new(&segment(V4, ACK, 101, 501, b"data"), now));
    assert!(verdict.is_forward(), "the connection goes on: {verdict:?}");
}
