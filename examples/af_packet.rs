//! Watches the IPv4 packets that this host receives, on all interfaces, and prints those that the
//! firewall would drop. The packets themselves are not affected.
//!
//! `af_packet [portcullis.toml]`, with CAP_NET_RAW. A router receives both directions of forwarded
//! traffic. A host does not receive its own packets, so connections that it opens appear one-way.
//! Without a file every session is allowed, and only invalid packets are printed.
#![allow(clippy::indexing_slicing, reason = "an example is short")]

use std::io::Read;
use std::time::{Duration, Instant};

use portcullis::{Config, Engine, Outbox, Packet, Verdict};
use socket2::{Domain, Protocol, Socket, Type};

/// The EtherType of IPv4.
const IPV4: u16 = 0x0800;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_toml(&std::fs::read_to_string(&path)?, &path)?,
        None => Config::allow_all(),
    };
    let engine = Engine::builder_from(config).build()?;
    // A packet socket of type DGRAM removes the header of the link.
    let protocol = Protocol::from(i32::from(IPV4.to_be()));
    let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut buffer, mut outbox) = (vec![0; 65_535], Outbox::new());
    loop {
        let received = socket.read(&mut buffer);
        let now = Instant::now();
        if let Ok(len) = received {
            // Segments of this host have no checksums yet when they arrive via the loopback device.
            let packet = Packet::new(&buffer[..len], now).offloaded(true);
            match engine.process(&packet, &mut outbox) {
                Verdict::Forward(_) => {}
                verdict => println!("{}: {:?}", verdict.name(), verdict.reason()),
            }
        }
        engine.expire(now, &mut outbox);
        // Replies and RSTs are not sent: nothing was dropped.
        outbox.drain().for_each(drop);
    }
}
