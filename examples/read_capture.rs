//! Decides the packets of a capture in its own time, and counts the verdicts.
//!
//! `read_capture FILE.pcap [portcullis.toml]`: a pcap file of Ethernet or raw IP. Without a
//! configuration every session is allowed, so that only invalid packets are dropped. The command
//! `portcullis replay` reads more formats.
#![allow(clippy::indexing_slicing, reason = "an example is short")]

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, Linktype, PcapBlockOwned, PcapError};
use portcullis::{Config, Engine, Event, Outbox, Packet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let capture = args
        .next()
        .ok_or("usage: read_capture FILE.pcap [portcullis.toml]")?;
    let config = match args.next() {
        Some(path) => Config::from_toml(&std::fs::read_to_string(&path)?, &path)?,
        None => Config::allow_all(),
    };
    let engine = Engine::builder_from(config).build()?;
    let mut outbox = Outbox::new();
    let mut reader =
        LegacyPcapReader::new(1 << 20, File::open(capture)?).map_err(|error| error.to_string())?;
    let (mut verdicts, mut sessions) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    // The engine has no clock: the first packet gets an instant, and later ones follow at the
    // capture's intervals.
    let (start, mut first, mut header_len) = (Instant::now(), None, 0);
    loop {
        let (offset, block) = match reader.next() {
            Ok(next) => next,
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| error.to_string())?;
                continue;
            }
            Err(error) => return Err(error.to_string().into()),
        };
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                header_len = match header.network {
                    Linktype::ETHERNET => 14,
                    Linktype::RAW => 0,
                    other => return Err(format!("{other} is not supported").into()),
                }
            }
            PcapBlockOwned::Legacy(frame) => {
                let at = Duration::from_secs(frame.ts_sec.into())
                    + Duration::from_micros(frame.ts_usec.into());
                let now = start + at.saturating_sub(*first.get_or_insert(at));
                let bytes = frame.data.get(header_len..).unwrap_or_default();
                let verdict = engine.process(&Packet::new(bytes, now), &mut outbox);
                let name = verdict.reason().map_or("forward", |reason| reason.name());
                *verdicts.entry(name).or_default() += 1;
                engine.expire(now, &mut outbox);
                for event in outbox.drain() {
                    if let Event::Ended(session, reason) = event {
                        *sessions
                            .entry((session.conn_state(), reason.name()))
                            .or_default() += 1;
                    }
                }
            }
            PcapBlockOwned::NG(_) => return Err("pcapng is not supported".into()),
        }
        reader.consume(offset);
    }
    println!("packets: {verdicts:?}");
    println!(
        "sessions that ended: {sessions:?}; {} live on",
        engine.sessions()
    );
    Ok(())
}
