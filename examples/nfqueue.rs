//! A firewall for the packets that nftables hands to a queue.
//!
//! `nfqueue NUMBER [portcullis.toml]`, with CAP_NET_ADMIN and CAP_NET_RAW, and a rule such as `nft
//! add rule inet filter forward queue num 0`. Without a file the program allows HTTP and HTTPS.
#![allow(clippy::indexing_slicing, reason = "an example is short")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfq::Queue;
use portcullis::policy::Protocol;
use portcullis::{Config, Engine, Event, Outbox, Packet, Policy, Rule, Verdict};
use socket2::{Domain, Socket, Type};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let number = args
        .next()
        .ok_or("usage: nfqueue NUMBER [portcullis.toml]")?
        .parse()?;
    let engine = match args.next() {
        Some(path) => {
            Engine::builder_from(Config::from_toml(&std::fs::read_to_string(&path)?, &path)?)
        }
        None => Engine::builder().policy(
            Policy::deny_by_default()
                .rule(Rule::allow("web").protocol(Protocol::TCP).ports([80, 443])),
        ),
    };
    let engine = Arc::new(engine.build()?);
    let mut queue = Queue::open()?;
    queue.bind(number)?;
    // The engine's own packets are complete: with this protocol the kernel adds no header.
    let raw = Arc::new(Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(socket2::Protocol::from(255)),
    )?);
    {
        // `Queue::recv` blocks, and sessions end on an idle link as well.
        let (engine, raw) = (Arc::clone(&engine), Arc::clone(&raw));
        std::thread::spawn(move || end_sessions(&engine, &raw));
    }
    let mut outbox = Outbox::new();
    loop {
        let mut message = queue.recv()?;
        let now = Instant::now();
        // The kernel may not have computed the checksums of this host's own packets.
        let packet = Packet::new(message.get_payload(), now).offloaded(true);
        let verdict = match engine.process(&packet, &mut outbox) {
            Verdict::Forward(_) => nfq::Verdict::Accept,
            Verdict::Drop(..) | Verdict::Reject(..) | Verdict::Hold(..) => nfq::Verdict::Drop,
        };
        message.set_verdict(verdict);
        queue.verdict(message)?;
        deliver(&raw, &mut outbox);
    }
}

/// Ends expired sessions, until the program ends.
fn end_sessions(engine: &Engine, raw: &Socket) {
    let mut outbox = Outbox::new();
    loop {
        let more = engine.expire(Instant::now(), &mut outbox).more;
        deliver(raw, &mut outbox);
        if !more {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Sends the packets of an outbox.
fn deliver(raw: &Socket, outbox: &mut Outbox) {
    for event in outbox.drain() {
        let Event::Transmit(packet) = event else {
            continue;
        };
        // The kernel routes the packet by the destination in its header. IPv6 needs a socket of its
        // own.
        if let Some(&[a, b, c, d]) = packet.bytes.get(16..20)
            && packet.bytes[0] >> 4 == 4
        {
            let to = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), 0);
            let _ = raw.send_to(packet.bytes, &to.into());
        }
    }
}
