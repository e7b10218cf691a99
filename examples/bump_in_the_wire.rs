//! A firewall between two TUN devices: clients on the left, servers on the right.
//!
//! `bump_in_the_wire LEFT RIGHT [portcullis.toml]`, with CAP_NET_ADMIN. The program creates the
//! devices; move each to a network namespace of its own, and give it an address there. Without a
//! file it allows ping, and HTTP to all destinations.
#![allow(clippy::indexing_slicing, reason = "an example is short")]

use std::time::{Duration, Instant};

use portcullis::policy::Protocol;
use portcullis::{Config, Egress, Engine, Event, Outbox, Packet, Policy, Rule, TunnelRef, Verdict};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Decides the packets of one side. The number of the side is the path of its packets.
fn pump(engine: &Engine, sides: &[SyncDevice; 2], from: usize) -> std::io::Result<()> {
    let (mut buffer, mut outbox) = (vec![0; 65_535], Outbox::new());
    loop {
        let len = sides[from].recv(&mut buffer)?;
        let packet = Packet::new(&buffer[..len], Instant::now()).tunnel(TunnelRef(from as u64 + 1));
        match engine.process(&packet, &mut outbox) {
            Verdict::Forward(_) => send(&sides[1 - from], &buffer[..len]),
            Verdict::Drop(reason, _) => println!("dropped: {reason}"),
            Verdict::Reject(..) => {} // The reply, within its budget, waits in the outbox.
            Verdict::Hold(..) => {}   // Never: only packets with `can_hold` get it.
        }
        deliver(sides, &mut outbox);
    }
}

/// Sends the packets of an outbox, and prints its events.
fn deliver(sides: &[SyncDevice; 2], outbox: &mut Outbox) {
    for event in outbox.drain() {
        match event {
            Event::Transmit(packet) => match packet.egress {
                Egress::Back(TunnelRef(from @ 1..=2)) => {
                    send(&sides[from as usize - 1], packet.bytes)
                }
                Egress::Onward(TunnelRef(from @ 1..=2)) => {
                    send(&sides[2 - from as usize], packet.bytes)
                }
                _ => {} // No packet has traveled in this direction.
            },
            Event::Ended(session, reason) => println!("ended: {} {}", session.state, reason.name()),
            _ => {}
        }
    }
}

/// Hands a packet to the kernel. A device that is down loses the packet, like any wire.
fn send(device: &SyncDevice, packet: &[u8]) {
    let _ = device.send(packet);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [left, right, file @ ..] = args.as_slice() else {
        return Err("usage: bump_in_the_wire LEFT RIGHT [portcullis.toml]".into());
    };
    let open = |name: &String| DeviceBuilder::new().name(name).build_sync();
    let sides = [open(left)?, open(right)?];
    let engine = match file.first() {
        Some(path) => {
            Engine::builder_from(Config::from_toml(&std::fs::read_to_string(path)?, path)?)
        }
        None => Engine::builder().policy(
            Policy::deny_by_default()
                .rule(Rule::allow("web").protocol(Protocol::TCP).ports([80..=80]))
                .rule(
                    Rule::allow("ping")
                        .protocol(Protocol::ICMP)
                        .protocol(Protocol::ICMPV6),
                ),
        ),
    };
    let engine = engine.tunnel_references().build()?;
    std::thread::scope(|scope| {
        let (engine, sides) = (&engine, &sides);
        let pumps = [0, 1].map(|from| {
            scope.spawn(move || {
                if let Err(error) = pump(engine, sides, from) {
                    eprintln!("{}: {error}", ["left", "right"][from]);
                }
            })
        });
        let mut outbox = Outbox::new();
        while !pumps.iter().any(|pump| pump.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            engine.expire(Instant::now(), &mut outbox);
            deliver(sides, &mut outbox);
        }
        // One device is gone; the thread of the other one may wait for a packet forever.
        std::process::exit(1)
    })
}
