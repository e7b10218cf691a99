//! The sockets of a worker after their receive queue was full.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use portcullis::geneve::front::{Queued, Waited};
use socket2::{Domain, SockAddr, Socket, Type};

use super::super::inlet::{Inlet, Port, QueueBounds, Received, listen};
use super::super::overflow::{KernelDrops, QueueDrops};
use super::super::socket::BATCH;
use super::wait_for;

/// The least that `run.receive_queue` allows, and no datagram waits for too long.
const BOUNDS: QueueBounds = QueueBounds {
    bytes: 64 << 10,
    delay: Duration::from_secs(3600),
};
/// Datagrams of a flood: more than the queue holds of either size.
const FLOOD: usize = 2_000;

/// Socket of a worker at a free port, and a sender.
struct Pair {
    inlet: Inlet,
    drops: QueueDrops,
    sender: UdpSocket,
    to: SocketAddr,
}

impl Pair {
    /// The socket listens at `address`; the datagrams are sent to `ours`.
    fn new(address: Ipv4Addr, ours: Ipv4Addr, bounds: QueueBounds) -> Self {
        let socket = listen(address, 0, bounds).unwrap();
        let port = socket.local_addr().unwrap().port();
        let drops = QueueDrops::default();
        drops.watch(&socket).unwrap();
        Self {
            inlet: Inlet::new(vec![Port { socket, address }], bounds),
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

    /// Takes all waiting datagrams, and returns the destination and the waiting time of each.
    fn take(&mut self) -> Vec<(Ipv4Addr, Waited)> {
        let mut taken = Vec::new();
        while self.inlet.receive(false).unwrap().count > 0 {
            let datagrams = self.inlet.datagrams();
            taken.extend(datagrams.map(|queued| (queued.datagram.destination, queued.waited)));
        }
        taken
    }

    fn dropped(&self) -> usize {
        self.drops.update(&KernelDrops::read().unwrap());
        usize::try_from(self.drops.value()).unwrap()
    }
}

/// A socket that receives at every address.
fn unspecified(socket: UdpSocket) -> Port {
    Port {
        socket,
        address: Ipv4Addr::UNSPECIFIED,
    }
}

#[test]
fn every_datagram_after_an_overflow_names_its_destination_and_all_that_were_lost_are_counted() {
    let ours = Ipv4Addr::new(127, 97, 2, 1);
    for address in [Ipv4Addr::UNSPECIFIED, ours] {
        for size in [100, 8_500] {
            let case = format!("{address}, {size} bytes");
            let mut pair = Pair::new(address, ours, BOUNDS);
            pair.send(FLOOD, size);
            let taken = pair.take();
            assert!(!taken.is_empty() && taken.len() < FLOOD, "{case}");
            // No datagram has arrived since.
            assert_eq!(pair.dropped(), FLOOD - taken.len(), "{case}");
            assert!(taken.iter().all(|(to, _)| *to == ours), "{case}: {taken:?}");
            assert!(taken.iter().all(|(_, waited)| *waited == Waited::Briefly));
            for count in [1, 2, 7] {
                for _ in 0..10 {
                    pair.send(count, size);
                    assert_eq!(pair.take(), vec![(ours, Waited::Briefly); count], "{case}");
                }
            }
            assert_eq!(pair.dropped(), FLOOD - taken.len(), "{case}");
        }
    }
}

#[test]
fn a_datagram_of_a_wildcard_socket_without_its_address_has_none() {
    // A socket that does not request the address.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let to = SocketAddr::from(([127, 97, 2, 2], socket.local_addr().unwrap().port()));
    let mut inlet = Inlet::new(vec![unspecified(socket)], BOUNDS);
    let sender = UdpSocket::bind("127.97.2.9:0").unwrap();
    sender.send_to(b"nowhere", to).unwrap();
    let mut received = Received::default();
    wait_for("the datagram", || {
        received = inlet.receive(false).unwrap();
        received.count == 1
    });
    assert_eq!(received.unaddressed, 1);
    let destinations: Vec<_> = inlet
        .datagrams()
        .map(|queued| queued.datagram.destination)
        .collect();
    assert_eq!(destinations, [Ipv4Addr::UNSPECIFIED]);
}

#[test]
fn a_datagram_to_a_group_has_no_destination_and_says_nothing_of_the_system() {
    let group = Ipv4Addr::new(239, 97, 2, 1);
    let socket = listen(Ipv4Addr::UNSPECIFIED, 0, BOUNDS).unwrap();
    socket
        .join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)
        .unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut inlet = Inlet::new(vec![unspecified(socket)], BOUNDS);
    let sender = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    sender.set_broadcast(true).unwrap();
    let ours = Ipv4Addr::new(127, 97, 2, 5);
    for (to, destination) in [
        (group, Ipv4Addr::UNSPECIFIED),
        (Ipv4Addr::new(127, 255, 255, 255), Ipv4Addr::UNSPECIFIED),
        (ours, ours),
    ] {
        let address = SockAddr::from(SocketAddrV4::new(to, port));
        sender.send_to(b"anybody", &address).unwrap();
        let mut received = Received::default();
        wait_for("the datagram", || {
            received = inlet.receive(false).unwrap();
            received.count == 1
        });
        assert_eq!(received.unaddressed, 0, "{to}");
        let of = |queued: Queued<'_>| queued.datagram.destination;
        assert_eq!(inlet.datagrams().map(of).next(), Some(destination), "{to}");
    }
}

#[test]
fn a_socket_that_was_emptied_is_not_behind_while_others_are_read() {
    let ours = Ipv4Addr::new(127, 97, 2, 6);
    let bounds = QueueBounds {
        bytes: 8 << 20,
        delay: Duration::from_millis(20),
    };
    let [one, other] = [ours, Ipv4Addr::new(127, 97, 2, 7)].map(|address| {
        let socket = listen(address, 0, bounds).unwrap();
        let to = socket.local_addr().unwrap();
        (Port { socket, address }, to)
    });
    let mut inlet = Inlet::new(vec![one.0, other.0], bounds);
    let sender = UdpSocket::bind("127.97.2.9:0").unwrap();
    let mut take = || {
        let count = inlet.receive(false).unwrap().count;
        let waited: Vec<_> = inlet.datagrams().map(|queued| queued.waited).collect();
        assert_eq!(waited, vec![Waited::Briefly; count]);
        count
    };
    // As many as the first call has room for, so only the next call finds the queue empty.
    for _ in 0..BATCH {
        sender.send_to(b"full", one.1).unwrap();
    }
    assert_eq!(take(), BATCH);
    sender.send_to(b"other", other.1).unwrap();
    assert_eq!(take(), 1);
    sleep(Duration::from_millis(30));
    // The worker is stopped, and catches up.
    sender.send_to(b"late", one.1).unwrap();
    sleep(Duration::from_millis(30));
    assert_eq!(take(), 1);
}

#[test]
fn what_waits_for_too_long_while_the_worker_does_not_catch_up_is_marked() {
    let ours = Ipv4Addr::new(127, 97, 2, 3);
    for address in [Ipv4Addr::UNSPECIFIED, ours] {
        let bounds = QueueBounds {
            bytes: 8 << 20,
            delay: Duration::from_millis(20),
        };
        let mut pair = Pair::new(address, ours, bounds);
        let waited = |pair: &Pair, inlet: &mut Inlet| {
            assert!(inlet.receive(false).unwrap().count > 0);
            assert_eq!(pair.dropped(), 0);
            inlet
                .datagrams()
                .map(|queued| queued.waited)
                .collect::<Vec<_>>()
        };
        let mut inlet = std::mem::replace(&mut pair.inlet, Inlet::without_sockets());
        // Waiting times do not count for a worker that was stopped, if it then empties its queue.
        pair.send(3, 100);
        sleep(Duration::from_millis(30));
        assert_eq!(waited(&pair, &mut inlet), [Waited::Briefly; 3], "{address}");
        pair.send(200, 100);
        sleep(Duration::from_millis(30));
        let first = waited(&pair, &mut inlet);
        assert!(
            first.iter().all(|waited| *waited == Waited::Briefly),
            "{address}"
        );
        // The worker has taken some, and others wait too long.
        sleep(Duration::from_millis(30));
        let mut count = first.len();
        while count < 200 {
            let next = waited(&pair, &mut inlet);
            assert!(
                next.iter().all(|waited| *waited == Waited::TooLong),
                "{address}: {next:?}"
            );
            count += next.len();
        }
        pair.send(3, 100);
        assert_eq!(waited(&pair, &mut inlet), [Waited::Briefly; 3], "{address}");
    }
}

#[test]
fn without_a_bound_nothing_waits_for_too_long() {
    let ours = Ipv4Addr::new(127, 97, 2, 4);
    let bounds = QueueBounds {
        delay: Duration::ZERO,
        ..BOUNDS
    };
    let mut pair = Pair::new(Ipv4Addr::UNSPECIFIED, ours, bounds);
    pair.send(1, 100);
    sleep(Duration::from_millis(50));
    assert_eq!(pair.inlet.receive(false).unwrap().count, 1);
    assert!(
        pair.inlet
            .datagrams()
            .all(|queued| queued.waited == Waited::Briefly)
    );
}
