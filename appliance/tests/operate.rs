//! The whole appliance on the loopback device, while it reloads, ends and starts again.
//!
//! The test needs CAP_NET_RAW, and prints a note without it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portcullis::geneve::{InnerProtocol, TunnelOption, encode};

const APPLIANCE: &str = "127.99.0.1:6081";
const BALANCER: &str = "127.99.0.2";
const HEALTH: &str = "127.99.0.1:18080";

fn portcullis() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
}

struct Appliance(Child);

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Appliance {
    /// Starts the appliance and waits for its health; `None` without the capability.
    fn start(file: &Path) -> Option<Self> {
        let mut child = portcullis()
            .arg("run")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while health().0 != 200 {
            if child.try_wait().unwrap().is_some() {
                let mut said = String::new();
                child
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut said)
                    .unwrap();
                assert!(said.contains("CAP_NET_RAW"), "{said}");
                return None;
            }
            assert!(Instant::now() < until, "the appliance is not healthy");
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self(child))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

/// Status and body; the status is 0 without an answer.
fn health() -> (u16, String) {
    let ask = || -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(HEALTH).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    ask().unwrap_or_default()
}

/// The load balancer: the port of its flow, and the port that receives replies.
struct Balancer {
    flow: UdpSocket,
    replies: UdpSocket,
}

impl Balancer {
    fn new() -> Self {
        let replies = UdpSocket::bind((BALANCER, 6081)).unwrap();
        replies
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        Self {
            flow: UdpSocket::bind((BALANCER, 50_001)).unwrap(),
            replies,
        }
    }

    /// Returns whether a packet is returned, byte for byte.
    fn returns(&self, inner: &[u8]) -> bool {
        let option = |kind, data| TunnelOption {
            class: 0x0108,
            kind,
            data,
        };
        let options = [
            option(1, &[0, 0, 0, 0, 0, 0, 0, 0xb1][..]),
            option(2, &[0; 8][..]),
            option(3, &[1, 2, 3, 4][..]),
        ];
        let mut header = [0; 256];
        let len = encode(InnerProtocol::Ipv4, 0, &options, &mut header).unwrap();
        let sent = [&header[..len], inner].concat();
        self.flow.send_to(&sent, APPLIANCE).unwrap();
        let mut room = [0; 2048];
        match self.replies.recv_from(&mut room) {
            Ok((len, from)) => {
                assert_eq!(
                    from.to_string(),
                    "127.99.0.1:50001",
                    "both ports as they came"
                );
                room[..len] == sent
            }
            Err(_) => false,
        }
    }
}

fn segment(out: bool, flags: &str, seq: u32, ack: u32) -> Vec<u8> {
    let (from, to, ports) = if out {
        ([10, 0, 0, 1], [198, 51, 100, 1], (40_000, 80))
    } else {
        ([198, 51, 100, 1], [10, 0, 0, 1], (80, 40_000))
    };
    let mut step = PacketBuilder::ipv4(from, to, 64).tcp(ports.0, ports.1, seq, 8_192);
    if flags.contains('S') {
        step = step.syn();
    }
    if flags.contains('A') {
        step = step.ack(ack);
    }
    let mut packet = Vec::new();
    step.write(&mut packet, b"").unwrap();
    packet
}

fn query(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 2], [198, 51, 100, 1], 64)
        .udp(port, 53)
        .write(&mut packet, b"?")
        .unwrap();
    packet
}

fn sessions(control: &Path, arguments: &[&str]) -> String {
    let output = portcullis()
        .args(["sessions", "--control"])
        .arg(control)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_packet_is_lost_by_a_reload_or_before_the_end_and_connections_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let text = format!(
        "[geneve]\nlisten = \"127.99.0.1\"\nsources = [\"127.0.0.0/8\"]\n\
         [run]\nworkers = 1\ndrain = \"2s\"\nsessions_file = {:?}\ncontrol = {:?}\n\
         [health]\nlisten = \"{HEALTH}\"\n[metrics]\nlisten = \"off\"\n[log]\noutput = {:?}\n\
         [policy]\ndefault = \"allow\"\n",
        at("sessions"),
        at("control"),
        at("log")
    );
    let file = at("portcullis.toml");
    std::fs::write(&file, &text).unwrap();
    let Some(mut appliance) = Appliance::start(&file) else {
        eprintln!("CAP_NET_RAW is missing: nothing was tried");
        return;
    };
    let balancer = Balancer::new();
    assert!(balancer.returns(&segment(true, "S", 100, 0)));
    assert!(balancer.returns(&segment(false, "SA", 900, 101)));
    assert!(balancer.returns(&segment(true, "A", 101, 901)));
    let listed = sessions(&at("control"), &["--state", "ESTABLISHED"]);
    assert!(
        listed.contains("10.0.0.1#40000") && listed.ends_with("1 sessions\n"),
        "{listed}"
    );
    let stats = sessions(&at("control"), &["stats"]);
    assert!(stats.contains("datagrams received    3"), "{stats}");

    // Packets flow all the time, while a valid, an invalid, and again a valid file is loaded.
    let mut count = 0u16;
    let mut serve = |time: u64| {
        let until = Instant::now() + Duration::from_millis(time);
        while Instant::now() < until {
            count = (count + 1) % 1_000;
            assert!(
                balancer.returns(&query(10_000 + count)),
                "lost at query {count}"
            );
        }
    };
    let strict = text.replace("[metrics]", "failed_reload = \"unhealthy\"\n[metrics]");
    for (reload, status, reason) in [
        (text.replace("2s", "3s"), 200, "healthy"),
        (text.replace("allow", "alow"), 200, "healthy"),
        (strict.clone(), 200, "healthy"),
        (
            strict.replace("allow", "alow"),
            503,
            "failed_reload: the configuration file was refused\n",
        ),
        (text.clone(), 200, "healthy"),
        (
            format!("{text}[table]\nmax_sessions = 77\n"),
            200,
            "healthy",
        ),
    ] {
        std::fs::write(&file, reload).unwrap();
        appliance.signal(Signal::SIGHUP);
        serve(400);
        let (found, body) = health();
        assert!(
            found == status && body.starts_with(reason),
            "{found} {body}"
        );
    }
    let stats = sessions(&at("control"), &["stats"]);
    for line in [
        "reloads               4 applied, 2 refused",
        "wait for a restart    table.max_sessions",
    ] {
        assert!(stats.contains(line), "no `{line}` in {stats}");
    }
    std::fs::write(&file, &text).unwrap();

    appliance.signal(Signal::SIGTERM);
    let asked = Instant::now();
    serve(300);
    assert_eq!(health().0, 503);
    serve(1_400);
    assert!(
        appliance.0.try_wait().unwrap().is_none(),
        "it serves until the drain time is over"
    );
    let status = appliance.0.wait().unwrap();
    assert!(
        status.success() && asked.elapsed() >= Duration::from_secs(2),
        "{status}"
    );
    assert!(!at("control").exists());

    let mut appliance = Appliance::start(&file).unwrap();
    assert!(
        balancer.returns(&segment(false, "A", 901, 101)),
        "the connection goes on"
    );
    let listed = sessions(&at("control"), &["--state", "ESTABLISHED"]);
    assert!(listed.ends_with("1 sessions\n"), "{listed}");
    sessions(&at("control"), &["delete", "--all"]);
    // A second request to end does not wait.
    appliance.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    appliance.signal(Signal::SIGTERM);
    let asked = Instant::now();
    assert!(appliance.0.wait().unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(1));
    let log = std::fs::read_to_string(at("log")).unwrap();
    assert!(
        log.contains("\"end_reason\":\"deleted\"") && log.contains("\"cookie\":\"0x01020304\""),
        "no row as wanted"
    );
}
