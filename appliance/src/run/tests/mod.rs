//! The parts around the packet path, started together on ports of their own and driven from
//! outside. No packet needs port 6081: the engine is fed directly.

mod asked;
mod checkpointed;
mod consoled;
mod fit;
mod logged;
mod observed;
mod received;
mod reloaded;
mod served;
mod shared_out;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use portcullis::{Packet, TunnelRef, Verdict, Zone};

use super::data_path::DataPath;
use super::event_queue::EventQueue;
use super::event_sink::EventSink;
use super::operations::{Operations, Start};
use super::overrides::Overrides;
use super::shared::Shared;
use super::store::StoreHandle;
use crate::config_file;

/// A running appliance without sockets at port 6081.
struct TestAppliance {
    shared: Arc<Shared>,
    operations: Option<Operations>,
    /// The workers turn while this is set.
    turning: Arc<AtomicBool>,
    turner: Option<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

const POLICY: &str = r#"
[zones]
blue = 1

[[policy.rule]]
name = "web"
action = "allow"
protocol = "tcp"
destination_ports = [80]
log = true

[[policy.rule]]
name = "dns"
action = "allow"
protocol = "udp"
destination_ports = [53]
"#;

impl TestAppliance {
    /// Starts with more lines of configuration, in which `DIR` stands for a directory of its own.
    fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    /// The configuration file.
    fn file(&self) -> PathBuf {
        self.directory.path().join("portcullis.toml")
    }

    fn start_in(directory: tempfile::TempDir, more: &str) -> Self {
        let file = directory.path().join("portcullis.toml");
        let text = Self::text(&directory, more);
        std::fs::write(&file, &text).unwrap();
        let (config, settings) = config_file::load_all(&file).unwrap();
        let (sender, events) = sync_channel(settings.log.queue);
        let log = settings
            .log
            .is_on()
            .then(|| EventQueue::new(sender, &settings.log));
        let shared = Shared::new(config.clone(), settings.run.clone(), log).unwrap();
        // The threads of the store are not started: nothing is written, and no question answered.
        let store = settings
            .store
            .is_on()
            .then(|| StoreHandle::new(&settings.store).unwrap().0);
        let shared = Arc::new(shared.with_store(store));
        let data_path = Arc::new(DataPath::silent(Arc::clone(&shared), Overrides::default()));
        let turning = Arc::new(AtomicBool::new(true));
        let turner = {
            let (shared, turning) = (Arc::clone(&shared), Arc::clone(&turning));
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    if turning.load(Ordering::Relaxed) {
                        for worker in &shared.workers {
                            worker.turn(shared.started.elapsed());
                        }
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            })
        };
        wait_for("a turn", || shared.has_begun());
        let operations = Operations::start(Start {
            data_path,
            config,
            settings,
            file: Some(file),
            events,
            store: None,
        })
        .unwrap();
        operations.restore().unwrap();
        Self {
            shared,
            operations: Some(operations),
            turning,
            turner: Some(turner),
            directory,
        }
    }

    fn text(directory: &tempfile::TempDir, more: &str) -> String {
        let mut ports =
            "health.listen = \"127.0.0.1:0\"\nrun.control = \"DIR/control\"\n".to_owned();
        if !more.contains("metrics.listen") {
            ports.push_str("metrics.listen = \"127.0.0.2:0\"\n");
        }
        let more = format!("{ports}{more}{POLICY}");
        more.replace("DIR", &directory.path().display().to_string())
    }

    fn rewrite(&self, more: &str) {
        let text = Self::text(&self.directory, more);
        std::fs::write(self.directory.path().join("portcullis.toml"), text).unwrap();
    }

    fn operations(&self) -> &Operations {
        self.operations.as_ref().unwrap()
    }

    fn health(&self) -> SocketAddr {
        self.operations().addresses.health.unwrap()
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn packet(&self, bytes: &[u8], zone: u16) -> Verdict {
        let packet = Packet::new(bytes, Instant::now())
            .zone(Zone(zone))
            .tunnel(TunnelRef(7));
        self.shared
            .engine
            .process_with(packet, &mut EventSink::new(&self.shared))
    }

    /// An established connection to port 80.
    fn connection(&self, host: u8, port: u16) {
        for segment in handshake(host, port) {
            assert!(self.packet(&segment, 0).is_forward());
        }
    }

    fn query(&self, host: u8, zone: u16) {
        assert!(self.packet(&udp(host, 4_000, 53), zone).is_forward());
    }

    /// The value of a series of `/metrics`.
    fn metric(&self, series: &str) -> f64 {
        let (_, text) = get(self.operations().addresses.metrics.unwrap(), "/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}"))
            .parse()
            .unwrap()
    }

    /// Ends everything but the directory.
    fn finish(mut self) -> tempfile::TempDir {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.turner.take().unwrap().join().unwrap();
        self.operations.take().unwrap().finish(false).unwrap();
        self.directory
    }
}

fn udp(host: u8, from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, host], [192, 0, 2, 1], 64)
        .udp(from, to)
        .write(&mut packet, b"payload")
        .unwrap();
    packet
}

fn syn(host: u8, from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, host], [192, 0, 2, 1], 64)
        .tcp(from, to, 1_000, 8_192)
        .syn()
        .write(&mut packet, b"")
        .unwrap();
    packet
}

fn handshake(host: u8, from: u16) -> [Vec<u8>; 3] {
    let (mut answer, mut ack) = (Vec::new(), Vec::new());
    PacketBuilder::ipv4([192, 0, 2, 1], [10, 0, 0, host], 64)
        .tcp(80, from, 5_000, 8_192)
        .syn()
        .ack(1_001)
        .write(&mut answer, b"")
        .unwrap();
    PacketBuilder::ipv4([10, 0, 0, host], [192, 0, 2, 1], 64)
        .tcp(from, 80, 1_001, 8_192)
        .ack(5_001)
        .write(&mut ack, b"")
        .unwrap();
    [syn(host, from, 80), answer, ack]
}

/// Status and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = get_with(address, path, "");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// Returns the head and the body of an answer; `headers` are lines of the request.
fn get_with(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Returns `/metrics` in the OpenMetrics format.
fn open_metrics(address: SocketAddr) -> String {
    let (head, body) = get_with(
        address,
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
    );
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    body
}

/// Address of the health checks by HTTP.
fn wait_for_health(appliance: &TestAppliance, status: u16) -> String {
    let mut body = String::new();
    wait_for(&format!("health {status}"), || {
        let answer = get(appliance.health(), "/");
        body = answer.1;
        answer.0 == status
    });
    body
}

/// Waits until something holds.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}
