//! The balancer against an appliance that is a function of the test.

mod arguments;
mod flows;
mod load;
mod made;
mod page;
mod replies;
mod targets;
mod turns;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use ahash::RandomState;
use etherparse::{Ipv4HeaderSlice, PacketBuilder, UdpHeaderSlice};

use super::balancer::{Balancer, Delivery, Offer, Setup, Ticket};
use super::flow::{FlowSettings, Side, TCP_IDLE};
use super::report::Unsent;
use super::sticky::Stickiness;
use super::targets::{Failover, GroupSettings};
use super::tunnel::{Endpoint, GENEVE_LEN, OVERHEAD};

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const APPLIANCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const TIMEOUT: Duration = Duration::from_secs(1);
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([198, 51, 100, 7], 80);
const BLUE: Endpoint = Endpoint {
    id: 0xb1,
    attachment: 5,
};
const GREEN: Endpoint = Endpoint {
    id: 0xc2,
    attachment: 6,
};

/// A datagram as the appliance receives it, and as it returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Datagram {
    port: u16,
    payload: Vec<u8>,
    ticket: Ticket,
}

impl Datagram {
    fn cookie(&self) -> [u8; 4] {
        *self.payload[..GENEVE_LEN].last_chunk().unwrap()
    }

    fn inner(&self) -> &[u8] {
        &self.payload[GENEVE_LEN..]
    }

    /// Another packet under this header.
    fn with_inner(&self, inner: &[u8]) -> Self {
        let payload = [&self.payload[..GENEVE_LEN], inner].concat();
        Self {
            payload,
            ..self.clone()
        }
    }
}

/// Default settings of targets.
fn group() -> GroupSettings {
    GroupSettings {
        stickiness: Stickiness::FiveTuple,
        on_unhealthy: Failover::NoRebalance,
        on_deregistration: Failover::NoRebalance,
        deregistration_delay: Duration::from_secs(300),
        health: None,
        sticky_idle: TCP_IDLE,
        max_sticky: 1000.try_into().unwrap(),
    }
}

struct Rig {
    balancer: Balancer,
    now: Instant,
}

impl Rig {
    fn new(max_flows: usize, cookie_per_direction: bool) -> Self {
        let flows = FlowSettings {
            max_flows: max_flows.try_into().unwrap(),
            cookie_per_direction,
            tcp_idle: TCP_IDLE,
        };
        let mut rig = Self::with_group(flows, group());
        let target = SocketAddrV4::new(APPLIANCE, 6081);
        rig.balancer.targets.register(rig.now, target).unwrap();
        rig
    }

    /// A balancer without targets.
    fn with_group(flows: FlowSettings, group: GroupSettings) -> Self {
        let setup = Setup {
            local: LOCAL,
            udp_checksum: false,
            endpoints: vec![BLUE, GREEN],
            timeout: TIMEOUT,
            flows,
            group,
        };
        Self {
            balancer: Balancer::new(setup, RandomState::with_seeds(1, 2, 3, 4)),
            now: Instant::now(),
        }
    }

    fn try_send(&mut self, pair: usize, side: Side, inner: &[u8]) -> Result<Datagram, Unsent> {
        let mut packet = Vec::new();
        let ticket = self
            .balancer
            .send(self.now, pair, side, inner, &mut packet)?;
        assert_eq!(packet.len(), OVERHEAD + inner.len());
        let ip = Ipv4HeaderSlice::from_slice(&packet).unwrap();
        assert_eq!(
            (ip.source_addr(), ip.destination_addr()),
            (LOCAL, ticket.destination)
        );
        assert_eq!(usize::from(ip.total_len()), packet.len());
        let udp = UdpHeaderSlice::from_slice(&packet[20..]).unwrap();
        assert_eq!(
            (udp.destination_port(), usize::from(udp.length())),
            (6081, packet.len() - 20)
        );
        assert_eq!(&packet[OVERHEAD..], inner);
        Ok(Datagram {
            port: udp.source_port(),
            payload: packet[28..].to_vec(),
            ticket,
        })
    }

    fn send(&mut self, side: Side, inner: &[u8]) -> Datagram {
        self.try_send(0, side, inner).unwrap()
    }

    fn reply(&mut self, datagram: &Datagram) -> Option<Delivery> {
        let source = SocketAddrV4::new(datagram.ticket.destination, datagram.port);
        self.balancer.receive(self.now, source, &datagram.payload)
    }

    /// Sends a packet and returns it.
    fn pass(&mut self, side: Side, inner: &[u8]) -> Datagram {
        let datagram = self.send(side, inner);
        assert!(self.reply(&datagram).is_some());
        datagram
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.balancer.expire(self.now);
    }

    /// Wrong headers, wrong bytes, unexpected replies.
    fn wrong(&self) -> [u64; 3] {
        let counters = &self.balancer.counters;
        [
            counters.wrong_header,
            counters.wrong_bytes,
            counters.unexpected,
        ]
    }
}

fn ends(side: Side) -> (([u8; 4], u16), ([u8; 4], u16)) {
    match side {
        Side::Client => (CLIENT, SERVER),
        Side::Server => (SERVER, CLIENT),
    }
}

fn udp(side: Side, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(side);
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.0, to.0, 64)
        .udp(from.1, to.1)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// A segment with these flags, as letters, and this number.
fn tcp(side: Side, flags: &str, number: u32) -> Vec<u8> {
    let (from, to) = ends(side);
    let mut step = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, number, 1000);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'F' => step.fin(),
            'R' => step.rst(),
            'A' => step.ack(1),
            _ => panic!("{flag}"),
        };
    }
    let mut packet = Vec::new();
    step.write(&mut packet, &[]).unwrap();
    packet
}
