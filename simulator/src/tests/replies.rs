use proptest::prelude::*;

use super::*;

#[test]
fn the_tunnel_header_is_that_of_a_gateway_load_balancer() {
    let mut lb = Rig::new(10, false);
    let datagram = lb.send(Side::Client, &udp(Side::Client, b"question"));
    let cookie = datagram.cookie();
    let expected = [
        &[0x08, 0, 0x08, 0x00, 0, 0, 0, 0][..],
        &[0x01, 0x08, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0xb1],
        &[0x01, 0x08, 2, 2, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0x01, 0x08, 3, 1],
        &cookie,
    ];
    assert_eq!(datagram.payload[..GENEVE_LEN], expected.concat());
}

#[test]
fn what_comes_back_unchanged_leaves_by_the_other_side() {
    for (side, other) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let mut lb = Rig::new(10, false);
        let sent = lb.try_send(1, side, &udp(side, b"question")).unwrap();
        let delivery = lb.reply(&sent).unwrap();
        assert_eq!(
            delivery,
            Delivery {
                pair: 1,
                side: other,
                inner_at: GENEVE_LEN
            }
        );
        assert_eq!(
            (lb.balancer.counters.returned, lb.balancer.unanswered()),
            (1, 0)
        );
        assert_eq!(lb.wrong(), [0; 3]);
    }
}

#[test]
fn equal_packets_are_answered_once_each() {
    let mut lb = Rig::new(10, false);
    let first = lb.send(Side::Client, &udp(Side::Client, b"same"));
    let second = lb.send(Side::Client, &udp(Side::Client, b"same"));
    assert_eq!(first.payload, second.payload);
    assert!(lb.reply(&first).is_some() && lb.reply(&second).is_some());
    assert_eq!(lb.reply(&first), None);
    assert_eq!(lb.wrong(), [0, 0, 1]);
}

#[test]
fn the_header_of_the_other_direction_is_wrong() {
    for per_direction in [false, true] {
        let mut lb = Rig::new(10, per_direction);
        let there = lb.send(Side::Client, &udp(Side::Client, b"question"));
        let back = lb.send(Side::Server, &udp(Side::Server, b"answer"));
        assert_ne!(there.port, back.port);
        assert_eq!(there.cookie() != back.cookie(), per_direction);
        assert_eq!(lb.reply(&there.with_inner(back.inner())), None);
        assert_eq!(lb.wrong(), [1, 0, 0]);
        assert_eq!(lb.balancer.unanswered(), 1, "the other packet still waits");
    }
}

#[test]
fn the_header_of_the_other_endpoint_is_wrong() {
    let mut lb = Rig::new(10, false);
    let packet = udp(Side::Client, b"question");
    let blue = lb.send(Side::Client, &packet);
    let green = lb
        .try_send(1, Side::Client, &udp(Side::Client, b"other"))
        .unwrap();
    assert_eq!(lb.reply(&green.with_inner(&packet)), None);
    assert_eq!(lb.wrong(), [1, 0, 0]);
    assert!(lb.reply(&green).is_some());
    assert_ne!(blue.cookie(), green.cookie());
}

#[test]
fn altered_bytes_under_a_right_header_are_wrong_bytes() {
    let mut lb = Rig::new(10, false);
    let sent = lb.send(Side::Client, &udp(Side::Client, b"question"));
    // Also if the packet appears to be of another flow, is truncated, or is not a packet.
    for altered in [
        udp(Side::Client, b"Question"),
        udp(Side::Server, b"question"),
        sent.inner()[..25].to_vec(),
        vec![0x45],
    ] {
        let mut lb = Rig::new(10, false);
        let sent = lb.send(Side::Client, &udp(Side::Client, b"question"));
        assert_eq!(lb.reply(&sent.with_inner(&altered)), None);
        assert_eq!((lb.wrong(), lb.balancer.unanswered()), ([0, 1, 0], 0));
    }
}

#[test]
fn what_nobody_sent_is_unexpected() {
    let mut lb = Rig::new(10, false);
    let sent = lb.pass(Side::Client, &udp(Side::Client, b"question"));
    assert_eq!(
        lb.reply(&sent.with_inner(&udp(Side::Client, b"more"))),
        None
    );
    let stranger = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), sent.port);
    let again = lb.send(Side::Client, &udp(Side::Client, b"question"));
    assert_eq!(lb.balancer.receive(lb.now, stranger, &again.payload), None);
    assert_eq!(lb.wrong(), [0, 0, 2]);
}

#[test]
fn a_packet_that_does_not_return_in_time_is_dropped_and_may_still_come_late() {
    let mut lb = Rig::new(10, false);
    let sent = lb.send(Side::Client, &udp(Side::Client, b"question"));
    lb.wait(TIMEOUT - Duration::from_millis(1));
    assert_eq!(lb.balancer.counters.dropped, 0);
    lb.wait(Duration::from_millis(1));
    assert_eq!(
        (lb.balancer.counters.dropped, lb.balancer.unanswered()),
        (1, 0)
    );
    lb.wait(Duration::from_secs(5));
    assert!(lb.reply(&sent).is_some());
    let counters = &lb.balancer.counters;
    assert_eq!(
        (counters.dropped, counters.late, counters.returned),
        (0, 1, 1)
    );
    assert_eq!(lb.wrong(), [0; 3]);
}

#[test]
fn what_could_not_be_sent_does_not_wait() {
    let mut lb = Rig::new(10, false);
    let packet = udp(Side::Client, b"question");
    let sent = lb.send(Side::Client, &packet);
    lb.balancer
        .unsend(sent.ticket, packet.len(), Unsent::TooLong);
    assert_eq!(
        (lb.balancer.counters.sent, lb.balancer.unanswered()),
        (0, 0)
    );
    lb.wait(TIMEOUT * 2);
    assert_eq!(lb.balancer.counters.dropped, 0);
    assert_eq!(
        lb.try_send(0, Side::Client, b"").unwrap_err(),
        Unsent::NotIp
    );
}

proptest! {
    #[test]
    fn any_changed_bit_is_found(at in 0usize..GENEVE_LEN + 36, bit in 0u8..8) {
        let mut lb = Rig::new(10, false);
        let mut datagram = lb.send(Side::Client, &udp(Side::Client, b"question"));
        datagram.payload[at] ^= 1 << bit;
        prop_assert_eq!(lb.reply(&datagram), None);
        prop_assert_eq!(lb.wrong().iter().sum::<u64>(), 1);
    }

    #[test]
    fn any_order_of_honest_replies_is_right(
        sides in prop::collection::vec(any::<bool>(), 1..100),
        order in prop::collection::vec(any::<prop::sample::Index>(), 100),
        per_direction in any::<bool>(),
    ) {
        let mut lb = Rig::new(10, per_direction);
        let mut waiting: Vec<Datagram> = sides
            .iter()
            .zip(0u8..)
            .map(|(client, number)| {
                let side = if *client { Side::Client } else { Side::Server };
                lb.send(side, &udp(side, &[number]))
            })
            .collect();
        for index in order.iter().take(sides.len()) {
            let datagram = waiting.swap_remove(index.index(waiting.len()));
            prop_assert!(lb.reply(&datagram).is_some());
        }
        prop_assert_eq!((lb.wrong(), lb.balancer.unanswered()), ([0; 3], 0));
    }

    #[test]
    fn no_datagram_panics(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        port in any::<u16>(),
    ) {
        let mut lb = Rig::new(10, false);
        let sent = lb.send(Side::Client, &udp(Side::Client, b"question"));
        for payload in [payload.clone(), [&sent.payload[..GENEVE_LEN], &payload].concat()] {
            let source = SocketAddrV4::new(APPLIANCE, port);
            prop_assert_eq!(lb.balancer.receive(lb.now, source, &payload), None);
        }
        prop_assert_eq!(lb.wrong().iter().sum::<u64>(), 2);
    }
}
