//! A connection goes on in another engine: `cargo run --example continuity`
//!
//! Two engines share a store, here a map. The first one opens a connection and writes its record.
//! Then the load balancer sends a segment of the connection to the second engine, which holds the
//! segment, asks the store, and resumes the session.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use portcullis::continuity::{StoreWhen, StoredSession, SweepCursor, SweepTime};
use portcullis::{Answer, Config, Engine, Event, HeldPackets, Outbox, Packet, Verdict};

/// Records of sessions, by the bytes of their names.
type Store = HashMap<Vec<u8>, Vec<u8>>;

type Error = Box<dyn std::error::Error>;

/// Writes the records of all sessions that are due. An appliance does this in a thread of its own,
/// slice by slice.
fn write(engine: &Engine, time: SweepTime, store: &mut Store) {
    let when = StoreWhen {
        min_age: Duration::ZERO,
        ..StoreWhen::default()
    };
    let mut cursor = SweepCursor::default();
    loop {
        let swept = engine.sweep(&mut cursor, time, &when, |name, session| {
            let mut bytes = Vec::new();
            session.encode(&mut bytes);
            store.insert(name.as_bytes().to_vec(), bytes);
        });
        if swept.round_ended {
            break;
        }
    }
}

/// Answers the questions in an outbox, and returns the identifiers of released packets.
fn answer(
    engine: &Engine,
    outbox: &mut Outbox,
    time: SweepTime,
    store: &Store,
) -> Result<Vec<portcullis::HoldId>, Error> {
    let mut questions = Vec::new();
    for event in outbox.drain() {
        if let Event::Question(question) = event {
            questions.push(question);
        }
    }
    let mut released = Vec::new();
    for question in questions {
        let answer = match store.get(question.flow.as_bytes()) {
            Some(bytes) => Answer::Session(Box::new(StoredSession::decode(bytes)?)),
            None => Answer::Nothing,
        };
        let effect = engine.answer(question.id, &answer, time.now, time.at, outbox);
        println!("{:?}: {}", question.flow, effect.name());
        for event in outbox.drain() {
            if let Event::Released(id) = event {
                released.push(id);
            }
        }
    }
    Ok(released)
}

fn main() -> Result<(), Error> {
    let mut config = Config::allow_all();
    config.table.max_sessions = 1_000;
    config.continuity.enabled = true;
    let (first, second) = (Engine::new(&config)?, Engine::new(&config)?);
    let held = HeldPackets::<Vec<u8>>::with_config(&config);
    let time = SweepTime {
        now: Instant::now(),
        at: SystemTime::now(),
    };
    let (mut outbox, mut store) = (Outbox::new(), Store::new());

    for (from_client, flags, seq, ack) in [
        (true, SYN, 100, 0),
        (false, SYN | ACK, 500, 101),
        (true, ACK, 101, 501),
    ] {
        let bytes = segment(from_client, flags, seq, ack);
        let verdict = first.process(&Packet::new(&bytes, time.now), &mut outbox);
        println!("the first engine: {}", verdict.name());
    }
    write(&first, time, &mut store);
    println!("{} record in the store", store.len());

    // The first engine is gone.
    outbox = Outbox::new();
    let bytes = segment(false, ACK, 501, 101);
    let packet = Packet::new(&bytes, time.now).can_hold(true);
    let verdict = second.process(&packet, &mut outbox);
    println!("the second engine: {}", verdict.name());
    if let Verdict::Hold(id, _) = verdict
        && held.put(&second, id, bytes, time.now).is_some()
    {
        return Err("there is no room for the packet".into());
    }
    for id in answer(&second, &mut outbox, time, &store)? {
        for bytes in held.take(id) {
            let verdict = second.process(&Packet::new(&bytes, time.now), &mut outbox);
            println!("the second engine: {}", verdict.name());
            assert!(verdict.is_forward(), "the connection goes on");
        }
    }
    assert_eq!(second.sessions(), 1);
    Ok(())
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Returns a TCP segment between 192.0.2.1:4000, the client, and 198.51.100.1:80.
fn segment(from_client: bool, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let (client, server) = ([192, 0, 2, 1], [198, 51, 100, 1]);
    let ends = match from_client {
        true => [(client, 4000_u16), (server, 80)],
        false => [(server, 80), (client, 4000)],
    };
    let [(source, source_port), (destination, destination_port)] = ends;
    let mut tcp = Vec::new();
    tcp.extend(source_port.to_be_bytes());
    tcp.extend(destination_port.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = [source, destination].concat();
    pseudo.extend([0, 6, 0, 20]);
    let sum = checksum([pseudo, tcp.clone()].concat());
    tcp.splice(16..18, sum);
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    ip.extend(source);
    ip.extend(destination);
    let sum = checksum(ip.clone());
    ip.splice(10..12, sum);
    [ip, tcp].concat()
}

/// Returns the Internet checksum (RFC 1071).
fn checksum(bytes: Vec<u8>) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| match pair {
        [upper, lower] => u32::from(u16::from_be_bytes([*upper, *lower])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
