use super::super::inner::{Inner, Kind, Way};
use super::*;

#[test]
fn a_syn_after_the_end_gets_a_new_cookie_and_no_other_packet_does() {
    let endings: [&[(Side, &str)]; 3] = [
        &[
            (Side::Client, "FA"),
            (Side::Server, "FA"),
            (Side::Client, "A"),
        ],
        &[(Side::Client, "RA")],
        &[(Side::Server, "R")],
    ];
    for ending in endings {
        let mut lb = Rig::new(10, false);
        let first = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
        let again = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
        assert_eq!(again.payload, first.payload, "a SYN retransmission");
        let reply = lb.pass(Side::Server, &tcp(Side::Server, "SA", 1));
        assert_eq!(reply.cookie(), first.cookie());
        for (side, flags) in ending {
            assert_eq!(
                lb.pass(*side, &tcp(*side, flags, 2)).cookie(),
                first.cookie()
            );
        }
        let late = lb.pass(Side::Server, &tcp(Side::Server, "A", 3));
        assert_eq!((late.cookie(), late.port), (first.cookie(), reply.port));
        let new = lb.pass(Side::Client, &tcp(Side::Client, "S", 9));
        assert_ne!(new.cookie(), first.cookie());
        assert_ne!(
            lb.pass(Side::Server, &tcp(Side::Server, "SA", 9)).cookie(),
            first.cookie()
        );
        assert_eq!(lb.balancer.flows(), (1, 2));
        assert_eq!(lb.wrong(), [0; 3]);
    }
}

#[test]
fn a_half_closed_flow_keeps_its_cookie() {
    let mut lb = Rig::new(10, false);
    let first = lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    lb.pass(Side::Client, &tcp(Side::Client, "FA", 2));
    assert_eq!(
        lb.pass(Side::Client, &tcp(Side::Client, "S", 9)).cookie(),
        first.cookie()
    );
}

#[test]
fn an_old_packet_may_return_under_its_old_cookie() {
    let mut lb = Rig::new(10, false);
    lb.pass(Side::Client, &tcp(Side::Client, "S", 1));
    let old = lb.send(Side::Client, &tcp(Side::Client, "R", 2));
    let new = lb.send(Side::Client, &tcp(Side::Client, "S", 9));
    assert_ne!(old.cookie(), new.cookie());
    assert!(lb.reply(&new).is_some() && lb.reply(&old).is_some());
    assert_eq!(lb.wrong(), [0; 3]);
}

#[test]
fn a_silent_flow_is_a_new_one_after_the_load_balancers_idle_time() {
    for (packet, idle) in [
        (tcp(Side::Client, "S", 1), 350),
        (udp(Side::Client, b"question"), 120),
    ] {
        let mut lb = Rig::new(10, false);
        let first = lb.pass(Side::Client, &packet).cookie();
        lb.wait(Duration::from_secs(idle - 1));
        assert_eq!(lb.pass(Side::Client, &packet).cookie(), first);
        lb.wait(Duration::from_secs(idle));
        assert_ne!(lb.pass(Side::Client, &packet).cookie(), first);
    }
}

#[test]
fn only_a_syn_opens_a_tcp_flow_again_after_the_idle_time() {
    let mut lb = Rig::new(10, false);
    lb.pass(Side::Client, &tcp(Side::Client, "A", 1));
    lb.wait(TCP_IDLE);
    for _ in 0..2 {
        let refused = lb.try_send(0, Side::Client, &tcp(Side::Client, "A", 2));
        assert_eq!(refused.unwrap_err(), Unsent::Idle);
    }
    lb.pass(Side::Client, &tcp(Side::Client, "S", 9));
    lb.pass(Side::Client, &tcp(Side::Client, "A", 10));
}

#[test]
fn endpoints_with_the_same_addresses_have_flows_apart() {
    let mut lb = Rig::new(10, false);
    let packet = udp(Side::Client, b"question");
    let blue = lb.try_send(0, Side::Client, &packet).unwrap();
    let green = lb.try_send(1, Side::Client, &packet).unwrap();
    assert_ne!(blue.cookie(), green.cookie());
    assert_eq!(lb.reply(&green).unwrap().pair, 1);
    assert_eq!(lb.reply(&blue).unwrap().pair, 0);
}

#[test]
fn the_longest_unused_flow_gives_way_unless_it_waits() {
    let from = |last: u8| {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, last], SERVER.0, 64)
            .udp(1, 2)
            .write(&mut packet, &[])
            .unwrap();
        packet
    };
    let mut lb = Rig::new(2, false);
    let first = lb.pass(Side::Client, &from(1));
    let waiting = lb.send(Side::Client, &from(2));
    assert_eq!(
        lb.pass(Side::Client, &from(1)).payload,
        first.payload,
        "used again"
    );
    assert_eq!(
        lb.try_send(0, Side::Client, &from(3)).unwrap_err(),
        Unsent::FlowTableFull
    );
    assert!(lb.reply(&waiting).is_some());
    lb.pass(Side::Client, &from(3));
    assert_eq!(lb.balancer.flows(), (2, 3));
    assert_eq!(lb.reply(&waiting), None, "forgotten");
}

#[test]
fn unanswered_packets_are_bounded() {
    let mut lb = Rig::new(1, false);
    let refused = (0u32..100_000)
        .find_map(|number| {
            lb.try_send(0, Side::Client, &udp(Side::Client, &number.to_be_bytes()))
                .err()
        })
        .unwrap();
    assert_eq!(refused, Unsent::Backlog);
    let waiting = lb.balancer.unanswered() as u64;
    lb.wait(TIMEOUT);
    assert_eq!(lb.balancer.counters.dropped, waiting);
    lb.send(Side::Client, &udp(Side::Client, b"question"));
}

#[test]
fn fragments_and_icmp_have_no_ports() {
    let mut fragment = udp(Side::Client, b"question");
    fragment[6] = 0x20;
    let inner = Inner::read(0, &fragment).unwrap();
    assert_eq!((inner.place.key.low.1, inner.place.key.high.1), (0, 0));
    let mut echo = Vec::new();
    PacketBuilder::ipv4(CLIENT.0, SERVER.0, 64)
        .icmpv4_echo_request(7, 8)
        .write(&mut echo, &[])
        .unwrap();
    let inner = Inner::read(0, &echo).unwrap();
    assert_eq!((inner.place.key.protocol, inner.kind), (1, Kind::Other));
    assert_eq!((inner.place.key.low.1, inner.place.way), (0, Way::Up));
}
