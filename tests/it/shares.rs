//! Bounded resources are shared by zone and by source: zone green attacks, and zone blue works.

use std::time::Duration;

use crate::support::packets::{ACK, SYN};
use crate::support::scene::{Scene, dropped_for};
use etherparse::PacketBuilder;
use portcullis::event::HelperEvent;
use portcullis::{DropReason, Verdict, Zone};

const GREEN: Zone = Zone(1);
const BLUE: Zone = Zone(2);
const ZONES: &str = "[zones]\ndefault=0\ngreen = 1\nblue = 2\n";
const ONLY_FTP: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\n\
                        action = \"allow\"\n\
                        protocol = \"tcp\"\ndestination_ports = [21]\n";

/// A connection of a client to a server.
#[derive(Debug, Clone, Copy)]
struct Connection {
    zone: Zone,
    client: [u8; 4],
    server: [u8; 4],
    ports: [u16; 2],
}

impl Connection {
    const fn new(zone: Zone, client: [u8; 4], port: u16) -> Self {
        Self {
            zone,
            client,
            server: [192, 0, 2, 1],
            ports: [port, 21],
        }
    }

    fn bytes(&self, from_client: bool, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Vec<u8> {
        let [client, server] = self.ports;
        let (source, destination, ports) = if from_client {
            (self.client, self.server, [client, server])
        } else {
            (self.server, self.client, [server, client])
        };
        let [seq, ack] = numbers;
        let mut packet =
            PacketBuilder::ipv4(source, destination, 64).tcp(ports[0], ports[1], seq, 60_000);
        if flags & SYN != 0 {
            packet = packet.syn();
        }
        if flags & ACK != 0 {
            packet = packet.ack(ack);
        }
        let mut bytes = Vec::new();
        packet.write(&mut bytes, payload).unwrap();
        bytes
    }

    fn client(&self, scene: &mut Scene, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Verdict {
        scene.zone = self.zone;
        scene.decide(&self.bytes(true, flags, numbers, payload))
    }

    fn server(&self, scene: &mut Scene, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Verdict {
        scene.zone = self.zone;
        scene.decide(&self.bytes(false, flags, numbers, payload))
    }

    /// The next bytes are 101 from the client and 501 from the server.
    fn open(&self, scene: &mut Scene) -> bool {
        self.client(scene, SYN, [100, 0], b"").is_forward()
            && self.server(scene, SYN | ACK, [500, 101], b"").is_forward()
            && self.client(scene, ACK, [101, 501], b"").is_forward()
    }

    fn greeted(&self, scene: &mut Scene) -> bool {
        self.open(scene)
            && self
                .server(scene, ACK, [501, 101], b"220 x\r\n")
                .is_forward()
    }

    /// Announces a port of the client, and returns whether the line passed.
    fn announces(&self, scene: &mut Scene) -> bool {
        let [a, b, c, d] = self.client;
        let [high, low] = self.ports[0].to_be_bytes();
        let line = format!("PORT {a},{b},{c},{d},{high},{low}\r\n");
        self.client(scene, ACK, [101, 508], line.as_bytes())
            .is_forward()
    }

    /// Requests a passive port and tries it.
    fn passive_transfer(&self, scene: &mut Scene) -> Verdict {
        assert!(
            self.client(scene, ACK, [101, 508], b"PASV\r\n")
                .is_forward()
        );
        let reply = b"227 Entering (192,0,2,1,200,1)\r\n";
        assert!(self.server(scene, ACK, [508, 107], reply).is_forward());
        let data = Self {
            ports: [6000, 51_201],
            ..*self
        };
        data.client(scene, SYN, [1, 0], b"")
    }
}

#[track_caller]
fn ftp_works(scene: &mut Scene, zone: Zone, client: [u8; 4]) {
    let control = Connection::new(zone, client, 5000);
    assert!(control.greeted(scene));
    let verdict = control.passive_transfer(scene);
    assert!(verdict.is_forward(), "{verdict:?}");
}

fn count(scene: &Scene, event: HelperEvent) -> u64 {
    let stats = scene.engine.stats();
    let found = stats.helper_events.iter().find(|(each, _)| *each == event);
    found.unwrap().1
}

#[test]
fn expectations_of_a_zone_leave_those_of_another_and_of_its_other_sources() {
    let mut scene = Scene::new(&format!("{ZONES}{ONLY_FTP}"));
    for port in 1024..1024 + 16_400 {
        let control = Connection::new(GREEN, [10, 1, 1, 1], port);
        assert!(control.greeted(&mut scene) && control.announces(&mut scene));
    }
    // Half of the guarantee of 16,384 / 6, and half of the 8,194 that are common.
    assert_eq!(scene.engine.stats().expectations, 1_365 + 4_097);
    assert!(count(&scene, HelperEvent::ExpectationRefused) > 10_000);
    ftp_works(&mut scene, GREEN, [10, 1, 1, 2]);
    ftp_works(&mut scene, BLUE, [10, 2, 2, 2]);
    // Even many sources together leave the guarantee of the other zone intact.
    for host in 0..200_u8 {
        for port in 1024..1084 {
            let control = Connection::new(GREEN, [10, 1, 2, host], port);
            assert!(control.greeted(&mut scene) && control.announces(&mut scene));
        }
    }
    assert_eq!(scene.engine.stats().expectations, 16_384 - 2 * 2_730);
    ftp_works(&mut scene, BLUE, [10, 2, 2, 3]);
}

#[test]
fn control_sessions_of_a_zone_leave_those_of_another_and_of_its_other_sources() {
    for refused in ["pass", "drop"] {
        let toml =
            format!("{ZONES}[ftp]\nrefused = \"{refused}\"\nmax_memory = 1048576\n{ONLY_FTP}");
        let mut scene = Scene::new(&toml);
        for port in 1024..4096 {
            assert!(Connection::new(GREEN, [10, 1, 1, 1], port).open(&mut scene));
        }
        assert!(count(&scene, HelperEvent::NotInspected) > 0, "{refused}");
        ftp_works(&mut scene, GREEN, [10, 1, 1, 2]);
        ftp_works(&mut scene, BLUE, [10, 2, 2, 2]);
    }
}

#[test]
fn the_number_of_control_sessions_is_shared_as_well() {
    // More memory than all control sessions take, so that only their number counts.
    let mut scene = Scene::new(&format!(
        "{ZONES}[ftp]\nmax_memory = 1073741824\n{ONLY_FTP}"
    ));
    for port in 1024..1024 + 24_000 {
        assert!(Connection::new(GREEN, [10, 1, 1, 1], port).open(&mut scene));
    }
    // Half of the guarantee of 65,536 / 6, and half of the 32,770 that are common.
    assert_eq!(scene.engine.stats().control_sessions, 5_461 + 16_385);
    ftp_works(&mut scene, GREEN, [10, 1, 1, 2]);
    ftp_works(&mut scene, BLUE, [10, 2, 2, 2]);
}

#[test]
fn memory_for_what_waits_in_a_zone_leaves_that_of_another_and_of_its_other_sources() {
    let max = 2 << 20;
    let mut scene = Scene::new(&format!("{ZONES}[ftp]\nmax_memory = {max}\n{ONLY_FTP}"));
    let junk = [b'x'; 1000];
    for host in 1..=4 {
        for port in 1024..1424 {
            let control = Connection::new(GREEN, [10, 1, 1, host], port);
            assert!(control.greeted(&mut scene));
            // Holes in both directions.
            for k in 0..4 {
                let _ = control.client(&mut scene, ACK, [102 + 1000 * k, 508], &junk);
                let _ = control.server(&mut scene, ACK, [509 + 1000 * k, 101], &junk);
                assert!(scene.engine.stats().control_memory <= max);
            }
        }
    }
    ftp_works(&mut scene, GREEN, [10, 1, 1, 9]);
    ftp_works(&mut scene, BLUE, [10, 2, 2, 2]);
}

#[test]
fn a_reload_divides_anew_and_everything_comes_back_at_the_end() {
    let toml = format!("{ZONES}[ftp]\nmax_memory = 1048576\n{ONLY_FTP}");
    let mut scene = Scene::new(&format!("[ftp]\nmax_memory = 1048576\n{ONLY_FTP}"));
    for port in 1024..4096 {
        let control = Connection::new(GREEN, [10, 1, 1, 1], port);
        let _ = control.greeted(&mut scene) && control.announces(&mut scene);
    }
    scene.reload(&toml);
    ftp_works(&mut scene, BLUE, [10, 2, 2, 2]);
    // A control session with a child continues until the child has ended.
    for _ in 0..3 {
        let _ = scene.wait(1_000_000);
    }
    let stats = scene.engine.stats();
    assert_eq!(
        [
            stats.sessions,
            stats.control_sessions,
            stats.control_memory,
            stats.expectations
        ],
        [0; 4]
    );
}

/// Sessions of green have ended, and those of blue end half a second later than now.
fn before_the_end(toml: &str) -> Scene {
    let mut scene = Scene::new(&format!(
        "{ZONES}[lifetimes]\ntcp.established = \"10s\"\n{toml}"
    ));
    let web = |zone, client| Connection {
        ports: [4000, 80],
        ..Connection::new(zone, client, 0)
    };
    let exchange = |scene: &mut Scene, each: Connection| {
        assert!(each.open(scene));
        assert!(each.client(scene, ACK, [101, 501], b"hi").is_forward());
        assert!(each.server(scene, ACK, [501, 103], b"yo").is_forward());
        assert!(each.client(scene, ACK, [103, 503], b"").is_forward());
    };
    for host in 0..25 {
        exchange(&mut scene, web(GREEN, [10, 1, 0, host]));
    }
    let _ = scene.wait(5);
    for host in 0..50 {
        exchange(&mut scene, web(BLUE, [10, 2, 0, host]));
    }
    let _ = scene.wait(6);
    scene.now += Duration::from_millis(4_500);
    scene
}

/// Sends late packets of green's clients, and returns the number of answers.
fn late_packets(scene: &mut Scene, each: u32) -> usize {
    let mut answered = 0;
    for _ in 0..each {
        for host in 0..25 {
            let late = Connection {
                ports: [4000, 80],
                ..Connection::new(GREEN, [10, 1, 0, host], 0)
            };
            let verdict = late.client(scene, ACK, [103, 503], b"x");
            answered += usize::from(matches!(verdict, Verdict::Reject(..)));
        }
    }
    answered
}

#[test]
fn late_packets_take_no_reset_from_a_session_that_ends() {
    let mut scene = before_the_end("[resets]\nper_destination = 100\noverall = 200\n");
    // Green's part of 33, and all 101 that are common.
    assert_eq!(late_packets(&mut scene, 100), 134);
    let received = scene.wait(1);
    assert_eq!((received.ended.len(), received.resets.len()), (50, 100));
}

#[test]
fn late_packets_of_one_zone_leave_answers_to_another() {
    let mut scene = before_the_end("[resets]\nper_destination = 100\noverall = 60\n");
    assert!(late_packets(&mut scene, 100) > 0);
    let late = Connection {
        ports: [4000, 80],
        ..Connection::new(BLUE, [10, 2, 0, 1], 0)
    };
    scene.now += Duration::from_millis(1_000);
    let _ = scene.wait(0);
    let _ = late_packets(&mut scene, 100);
    let verdict = late.client(&mut scene, ACK, [103, 503], b"x");
    assert!(
        matches!(verdict, Verdict::Reject(DropReason::TcpAfterTimeout, ..)),
        "{verdict:?}"
    );
}

#[test]
fn sessions_that_end_in_one_zone_leave_resets_to_another() {
    let mut scene = before_the_end("[resets]\nper_destination = 1000\noverall = 60\n");
    // Many more sessions of green end at the same time as those of blue.
    let received = scene.wait(1);
    let blue = received.resets.len();
    assert_eq!(blue, 40, "its part of 10, and the 30 that are common");
}

#[test]
fn a_zone_that_ends_many_sessions_leaves_what_is_remembered_of_another() {
    let toml = format!(
        "{ZONES}[tombstones]\nmax = 240\n[lifetimes]\ntcp.established = \"10s\"\n[tcp]\n\
         timeout_reset = false\n"
    );
    let mut scene = Scene::new(&toml);
    let blue = Connection {
        ports: [4000, 80],
        ..Connection::new(BLUE, [10, 2, 0, 1], 0)
    };
    assert!(blue.open(&mut scene));
    let _ = scene.wait(11);
    for port in 1..=2_000 {
        let green = Connection {
            ports: [port, 80],
            ..Connection::new(GREEN, [10, 1, 0, 1], 0)
        };
        assert!(green.open(&mut scene));
    }
    let _ = scene.wait(11);
    assert_eq!(scene.engine.stats().tombstones, 240);
    let verdict = blue.client(&mut scene, ACK, [101, 501], b"late");
    assert!(
        matches!(verdict, Verdict::Reject(DropReason::TcpAfterTimeout, ..)),
        "{verdict:?}"
    );
    // The oldest of green made room.
    let oldest = Connection {
        ports: [1, 80],
        ..Connection::new(GREEN, [10, 1, 0, 1], 0)
    };
    let verdict = oldest.client(&mut scene, ACK, [101, 501], b"late");
    dropped_for(&verdict, DropReason::TcpNoSession);
}
