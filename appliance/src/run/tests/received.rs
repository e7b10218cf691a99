//! The sockets of a worker after their receive queue was full.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use super::super::overflow::{KernelDrops, QueueDrops};
use super::super::socket::{Inlet, listen};
use super::wait_for;

/// What the queues are asked to hold, in bytes: the least that `run.receive_queue` allows.
const QUEUE: usize = 64 << 10;
/// Datagrams of a flood: more than the queue holds of either size.
const FLOOD: usize = 2_000;

/// A worker's socket at a free port, and somebody who sends to it.
struct Pair {
    inlet: Inlet,
    drops: QueueDrops,
    sender: UdpSocket,
    to: SocketAddr,
}

impl Pair {
    /// The socket listens at `address`; the datagrams are sent to `ours`.
    fn new(address: Ipv4Addr, ours: Ipv4Addr) -> Self {
        let socket = listen(address, 0, QUEUE).unwrap();
        let port = socket.local_addr().unwrap().port();
        let drops = QueueDrops::default();
        drops.watch(&socket).unwrap();
        Self {
            inlet: Inlet::new(vec![(socket, address)]),
            drops,
            sender: UdpSocket::bind("127.97.2.9:0").unwrap(),
            to: SocketAddr::from((ours, port)),
        }
    }

    fn send(&self, count: usize, size: usize) {
        let payload = vec![0x5a; size];
        for _ in 0..count {
            self.sender.send_to(&payload, self.to).unwrap();
        }
    }

    /// Takes all that is there, and returns to which address each was sent.
    fn take(&mut self) -> Vec<Ipv4Addr> {
        let mut taken = Vec::new();
        while self.inlet.receive(false).unwrap().count > 0 {
            taken.extend(self.inlet.datagrams().map(|datagram| datagram.destination));
        }
        taken
    }

    fn dropped(&self) -> usize {
        self.drops.update(&KernelDrops::read().unwrap());
        usize::try_from(self.drops.value()).unwrap()
    }
}

#[test]
fn every_datagram_after_an_overflow_names_its_destination_and_all_that_were_lost_are_counted() {
    let ours = Ipv4Addr::new(127, 97, 2, 1);
    for address in [Ipv4Addr::UNSPECIFIED, ours] {
        for size in [100, 8_500] {
            let case = format!("{address}, {size} bytes");
            let mut pair = Pair::new(address, ours);
            pair.send(FLOOD, size);
            let taken = pair.take();
            assert!(!taken.is_empty() && taken.len() < FLOOD, "{case}");
            // No datagram has come since.
            assert_eq!(pair.dropped(), FLOOD - taken.len(), "{case}");
            assert!(taken.iter().all(|to| *to == ours), "{case}: {taken:?}");
            for count in [1, 2, 7] {
                for _ in 0..10 {
                    pair.send(count, size);
                    assert_eq!(pair.take(), vec![ours; count], "{case}");
                }
            }
            assert_eq!(pair.dropped(), FLOOD - taken.len(), "{case}");
        }
    }
}

#[test]
fn a_datagram_of_a_wildcard_socket_without_its_address_has_none() {
    // A socket that does not ask for the address.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let to = SocketAddr::from(([127, 97, 2, 2], socket.local_addr().unwrap().port()));
    let mut inlet = Inlet::new(vec![(socket, Ipv4Addr::UNSPECIFIED)]);
    let sender = UdpSocket::bind("127.97.2.9:0").unwrap();
    sender.send_to(b"nowhere", to).unwrap();
    wait_for("the datagram", || inlet.receive(false).unwrap().count == 1);
    let destinations: Vec<_> = inlet.datagrams().map(|datagram| datagram.destination).collect();
    assert_eq!(destinations, [Ipv4Addr::UNSPECIFIED]);
}
