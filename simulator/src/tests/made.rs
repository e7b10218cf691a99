use super::super::inner::{Inner, Kind};
use super::*;

/// An ICMP error that a router would make about a packet.
fn unreachable(about: &[u8], to: [u8; 4]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([203, 0, 113, 1], to, 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FilterProhibited,
        ))
        .write(&mut packet, &about[..28])
        .unwrap();
    packet
}

#[test]
fn a_rst_travels_in_the_header_of_its_direction() {
    let mut lb = Rig::new(10, true);
    let there = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    let back = lb.pass(Side::Server, &tcp(Side::Server, "SA", 1));
    let to_client = lb
        .reply(&back.with_inner(&tcp(Side::Server, "R", 7)))
        .unwrap();
    assert_eq!(to_client.side, Side::Client);
    let to_server = lb
        .reply(&there.with_inner(&tcp(Side::Client, "R", 7)))
        .unwrap();
    assert_eq!(to_server.side, Side::Server);
    assert_eq!((lb.balancer.counters.made_rst, lb.wrong()), (2, [0; 3]));
    assert_eq!(
        lb.reply(&there.with_inner(&tcp(Side::Server, "R", 7))),
        None
    );
    assert_eq!(lb.wrong(), [1, 0, 0], "the other direction's header");
}

#[test]
fn a_rst_borrows_the_other_directions_header_while_its_own_was_not_seen() {
    let mut lb = Rig::new(10, true);
    let syn = lb.send(Side::Client, &tcp(Side::Client, "S", 1));
    let refusal = syn.with_inner(&tcp(Side::Server, "RA", 0));
    assert_eq!(lb.reply(&refusal).unwrap().side, Side::Client);
    let again = lb.send(Side::Client, &tcp(Side::Client, "S", 2));
    assert_ne!(again.cookie(), syn.cookie(), "the RST ended the flow");
    assert_eq!((lb.balancer.counters.made_rst, lb.wrong()), (1, [0; 3]));
}

#[test]
fn a_challenge_travels_in_the_header_of_its_syn() {
    let mut challenge = Vec::new();
    PacketBuilder::ipv4([203, 0, 113, 2], [203, 0, 113, 1], 64)
        .tcp(80, 4000, 0, 0)
        .syn()
        .ack(77)
        .write(&mut challenge, &[])
        .unwrap();
    for (place, reversed) in [(12..16, 16..20), (20..22, 22..24)] {
        let syn = tcp(Side::Client, "S", 1);
        challenge[place.clone()].copy_from_slice(&syn[reversed.clone()]);
        challenge[reversed].copy_from_slice(&syn[place]);
    }
    let mut lb = Rig::new(10, true);
    let syn = lb.send(Side::Client, &tcp(Side::Client, "S", 1));
    assert_eq!(
        lb.reply(&syn.with_inner(&challenge)).unwrap().side,
        Side::Client
    );
    let counters = &lb.balancer.counters;
    assert_eq!((counters.made_challenges, lb.wrong()), (1, [0; 3]));
    lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    let answer = lb.pass(Side::Server, &tcp(Side::Server, "SA", 1));
    assert_eq!(lb.reply(&answer.with_inner(&challenge)), None);
    assert_eq!(lb.wrong(), [1, 0, 0], "the other direction's header");
    // A SYN-ACK of a server has a window.
    challenge[34] = 1;
    assert_eq!(lb.reply(&syn.with_inner(&challenge)), None);
    assert_eq!(lb.balancer.counters.made_challenges, 1);
}

#[test]
fn a_rst_under_an_old_cookie_is_wrong_once_the_new_one_was_answered() {
    let mut lb = Rig::new(10, true);
    let old = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    lb.pass(Side::Client, &tcp(Side::Client, "R", 2));
    let new = lb.send(Side::Client, &tcp(Side::Client, "S", 9));
    let rst = tcp(Side::Client, "R", 77);
    assert!(
        lb.reply(&old.with_inner(&rst)).is_some(),
        "both are on the way"
    );
    assert!(lb.reply(&new).is_some());
    assert_eq!(lb.reply(&old.with_inner(&rst)), None);
    assert_eq!(lb.wrong(), [1, 0, 0]);
}

#[test]
fn after_a_refused_packet_the_other_directions_header_is_counted_apart() {
    let mut lb = Rig::new(10, true);
    let there = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    lb.pass(Side::Server, &tcp(Side::Server, "SA", 1));
    // The appliance has forgotten the flow, and treats this as a midstream packet.
    let refused = lb.send(Side::Client, &tcp(Side::Client, "A", 2));
    let rst = there.with_inner(&tcp(Side::Server, "R", 7));
    assert_eq!(lb.reply(&rst).unwrap().side, Side::Client);
    let counters = &lb.balancer.counters;
    assert_eq!((counters.made_rst, counters.other_header), (1, 1));
    assert_eq!(lb.wrong(), [0; 3]);
    // Packets that return in this direction show that its header is known.
    assert!(lb.reply(&refused).is_some());
    lb.pass(Side::Server, &tcp(Side::Server, "A", 3));
    assert_eq!(lb.reply(&rst), None);
    assert_eq!(
        (lb.balancer.counters.other_header, lb.wrong()),
        (1, [1, 0, 0])
    );
}

#[test]
fn a_packet_refused_before_the_direction_was_answered_excuses_no_other_header() {
    let mut lb = Rig::new(10, true);
    lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    let refused = lb.send(Side::Client, &tcp(Side::Client, "A", 2));
    lb.pass(Side::Server, &tcp(Side::Server, "SA", 1));
    let rst = refused.with_inner(&tcp(Side::Server, "R", 7));
    assert_eq!(lb.reply(&rst), None);
    assert_eq!(
        (lb.balancer.counters.other_header, lb.wrong()),
        (0, [1, 0, 0])
    );
}

#[test]
fn a_rst_of_an_endpoint_is_not_the_appliances() {
    let mut lb = Rig::new(10, false);
    lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    lb.pass(Side::Server, &tcp(Side::Server, "RA", 0));
    let counters = &lb.balancer.counters;
    assert_eq!((counters.returned, counters.made_rst), (2, 0));
}

#[test]
fn an_icmp_error_travels_back_in_the_flow_that_it_quotes() {
    let mut lb = Rig::new(10, true);
    let there = lb.send(Side::Client, &udp(Side::Client, b"question"));
    let error = unreachable(there.inner(), CLIENT.0);
    assert!(matches!(
        Inner::read(0, &error).unwrap().kind,
        Kind::IcmpError(Some(place)) if place.key.protocol == 17
    ));
    assert_eq!(
        lb.reply(&there.with_inner(&error)).unwrap().side,
        Side::Client
    );
    let back = lb.pass(Side::Server, &udp(Side::Server, b"answer"));
    assert_eq!(
        lb.reply(&back.with_inner(&error)).unwrap().side,
        Side::Client
    );
    assert_eq!((lb.balancer.counters.made_icmp, lb.wrong()), (2, [0; 3]));
    assert_eq!(lb.reply(&there.with_inner(&error)), None);
    assert_eq!(lb.wrong(), [1, 0, 0], "its own direction has a header now");
}

#[test]
fn an_error_about_no_flow_is_unexpected() {
    let mut lb = Rig::new(10, false);
    let there = lb.pass(Side::Client, &udp(Side::Client, b"question"));
    let stranger = tcp(Side::Client, "S", 1);
    assert_eq!(
        lb.reply(&there.with_inner(&unreachable(&stranger, CLIENT.0))),
        None
    );
    assert_eq!(lb.wrong(), [0, 0, 1]);
}
