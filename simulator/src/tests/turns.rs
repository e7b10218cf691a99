use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

impl Rig {
    /// Offers a packet of the capture, and sends it in its turn.
    fn offer(&mut self, inner: &[u8]) -> Option<Datagram> {
        match self.balancer.offer(self.now, 0, inner) {
            Offer::Now(turn) => Some(self.put(inner, turn)),
            Offer::Kept => None,
        }
    }

    /// Sends a kept packet whose turn has come, if there is one.
    fn kept(&mut self) -> Option<Datagram> {
        let (turn, inner) = self.balancer.next_in_turn(self.now)?;
        Some(self.put(&inner, Some(turn)))
    }

    fn put(&mut self, inner: &[u8], turn: Option<super::super::turns::Turn>) -> Datagram {
        let mut packet = Vec::new();
        let ticket = self
            .balancer
            .send_in_turn(self.now, 0, Side::Client, inner, turn, &mut packet)
            .unwrap();
        Datagram {
            port: u16::from_be_bytes([packet[20], packet[21]]),
            payload: packet[28..].to_vec(),
            ticket,
        }
    }
}

/// A segment between the two ends at another port of the server.
fn other_flow(side: Side, flags: &str, number: u32) -> Vec<u8> {
    let mut packet = tcp(side, flags, number);
    let at = if side == Side::Client { 22 } else { 20 };
    packet[at..at + 2].copy_from_slice(&8080u16.to_be_bytes());
    packet
}

#[test]
fn an_answer_waits_until_its_question_has_come_back() {
    let mut lb = Rig::new(10, false);
    let syn = lb.offer(&tcp(Side::Client, "S", 1)).unwrap();
    assert_eq!(lb.offer(&tcp(Side::Server, "SA", 1)), None);
    assert_eq!(
        lb.offer(&tcp(Side::Client, "A", 2)),
        None,
        "behind what waits"
    );
    assert_eq!(lb.kept(), None);
    assert!(lb.reply(&syn).is_some());
    let answer = lb.kept().unwrap();
    assert_eq!(answer.inner(), tcp(Side::Server, "SA", 1));
    assert_eq!((lb.kept(), lb.balancer.kept()), (None, (1, false)));
    assert!(lb.reply(&answer).is_some());
    assert_eq!(lb.kept().unwrap().inner(), tcp(Side::Client, "A", 2));
    assert_eq!(
        (lb.balancer.kept(), lb.balancer.overtaken()),
        ((0, false), 0)
    );
}

#[test]
fn packets_of_one_direction_do_not_wait_for_each_other_but_a_syn_does() {
    let mut lb = Rig::new(10, false);
    let first = lb.offer(&tcp(Side::Client, "A", 1)).unwrap();
    assert_eq!(
        lb.offer(&tcp(Side::Client, "A", 2)),
        None,
        "the first one begins something"
    );
    assert!(lb.reply(&first).is_some());
    lb.kept().unwrap();
    lb.offer(&tcp(Side::Client, "A", 3)).unwrap();
    let last = lb.offer(&tcp(Side::Client, "RA", 4)).unwrap();
    assert_eq!(
        lb.offer(&tcp(Side::Client, "S", 9)),
        None,
        "its port may be another"
    );
    assert!(lb.reply(&last).is_some());
    assert!(lb.kept().is_some(), "those before it are decided, too");
}

#[test]
fn a_lost_packet_holds_its_flow_up_for_the_time_out_and_the_next_for_half_of_it() {
    let mut lb = Rig::new(10, false);
    lb.offer(&tcp(Side::Client, "A", 1)).unwrap();
    for (side, number) in [(Side::Server, 1), (Side::Client, 2), (Side::Server, 2)] {
        assert_eq!(lb.offer(&tcp(side, "A", number)), None);
    }
    for wait in [TIMEOUT, TIMEOUT / 2, TIMEOUT / 4] {
        lb.wait(wait - Duration::from_millis(1));
        assert_eq!(lb.kept(), None, "{wait:?}");
        lb.wait(Duration::from_millis(1));
        assert!(lb.kept().is_some(), "{wait:?}");
    }
}

#[test]
fn a_packet_that_comes_back_after_it_was_taken_for_lost_was_overtaken() {
    let mut lb = Rig::new(10, false);
    lb.offer(&tcp(Side::Client, "A", 1)).unwrap();
    lb.offer(&tcp(Side::Server, "A", 1));
    lb.offer(&tcp(Side::Client, "A", 2));
    lb.wait(TIMEOUT);
    let second = lb.kept().unwrap();
    lb.wait(TIMEOUT / 2);
    assert!(lb.kept().is_some());
    assert!(lb.reply(&second).is_some());
    assert_eq!((lb.balancer.overtaken(), lb.wrong()), (1, [0; 3]));
}

#[test]
fn a_beginning_waits_a_little_for_other_flows_of_its_addresses_and_they_for_it() {
    let mut lb = Rig::new(10, false);
    let announcement = lb.offer(&tcp(Side::Server, "A", 1)).unwrap();
    assert_eq!(lb.offer(&other_flow(Side::Client, "S", 1)), None);
    assert!(lb.reply(&announcement).is_some());
    let syn = lb.kept().unwrap();
    assert_eq!(
        lb.offer(&tcp(Side::Server, "A", 2)),
        None,
        "the next announcement"
    );
    assert!(lb.reply(&syn).is_some());
    assert!(lb.kept().is_some());
    assert_eq!(lb.offer(&other_flow(Side::Client, "S", 2)), None);
    assert_eq!(lb.kept(), None);
    lb.wait(Duration::from_millis(50));
    assert!(lb.kept().is_some(), "the announcement's flow is stuck");
}

#[test]
fn a_beginning_waits_for_what_is_kept_before_it_in_another_flow() {
    let mut lb = Rig::new(10, false);
    let command = lb.offer(&tcp(Side::Client, "A", 1)).unwrap();
    assert_eq!(lb.offer(&tcp(Side::Server, "A", 1)), None);
    assert_eq!(lb.offer(&other_flow(Side::Client, "S", 1)), None);
    assert!(lb.reply(&command).is_some());
    let announcement = lb.kept().unwrap();
    assert_eq!(lb.kept(), None);
    assert!(lb.reply(&announcement).is_some());
    assert_eq!(lb.kept().unwrap().inner(), other_flow(Side::Client, "S", 1));
}

proptest! {
    /// With any losses, all packets are sent, each flow in order, and no state is left.
    #[test]
    fn every_packet_has_its_turn(
        packets in prop::collection::vec((any::<bool>(), any::<bool>(), 0u8..8), 1..60),
        lost in prop::collection::vec(prop::bool::weighted(0.2), 60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut lb = Rig::new(10, true);
        let numbered = packets.iter().zip(0u32..);
        let mut capture: VecDeque<Vec<u8>> = numbered.map(|((client, other, kind), number)| {
            let side = if *client { Side::Client } else { Side::Server };
            let flags = match kind { 0 => "S", 1 => "FA", 2 => "R", _ => "A" };
            if *other { other_flow(side, flags, number) } else { tcp(side, flags, number) }
        }).collect();
        let (mut waiting, mut sent) = (Vec::new(), Vec::new());
        for turn in 0..10_000 {
            let datagram = match lb.kept() {
                None => capture.pop_front().and_then(|packet| lb.offer(&packet)),
                kept => kept,
            };
            if let Some(datagram) = datagram {
                let number = u32::from_be_bytes(*datagram.inner()[24..].first_chunk().unwrap());
                if !lost[sent.len()] {
                    waiting.push(datagram);
                }
                sent.push(number);
            } else if capture.is_empty() {
                if waiting.is_empty() && lb.balancer.kept().0 == 0 {
                    break;
                }
                if waiting.is_empty() {
                    lb.wait(Duration::from_millis(10));
                } else {
                    let at = order[turn % order.len()].index(waiting.len());
                    let reply = waiting.swap_remove(at);
                    prop_assert!(lb.reply(&reply).is_some());
                }
            }
        }
        prop_assert_eq!(sent.len(), packets.len());
        for flow in [false, true] {
            let of_flow = sent.iter().filter(|number| packets[**number as usize].1 == flow);
            prop_assert!(of_flow.is_sorted());
        }
        prop_assert_eq!((lb.balancer.overtaken(), lb.wrong()), (0, [0; 3]));
        lb.wait(TIMEOUT);
        prop_assert_eq!(lb.balancer.unanswered(), 0);
        prop_assert!(lb.balancer.nothing_waits());
    }
}
