//! Transfers data between two real Linux TCP stacks through the portcullis engine, over a path that
//! loses, delays, reorders and duplicates packets. The engine must not drop any packet.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use portcullis_kernel_tests::bulk::relay::Relay;
use portcullis_kernel_tests::bulk::traffic::{Kind, Log, call, serve};
use portcullis_kernel_tests::namespace::{Interrupt, Namespace};

/// Number of concurrent clients for each IP version.
const CLIENTS: u64 = 5;

/// Maximum time for the last transfers after the last one has begun.
const GRACE: Duration = Duration::from_secs(25);

/// Real TCP connections through the engine over a lossy path. Fails on the first packet that the
/// engine drops.
#[derive(Debug, Parser)]
struct Arguments {
    /// Time in which new transfers begin, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of loss, delay and data; random unless given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Prefix of the names of the network namespaces; by default made from the process number.
    #[arg(long)]
    namespace: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::listen()?;
    let seed = arguments
        .seed
        .unwrap_or_else(|| u64::from(std::process::id()));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("Linux {}, seed {seed}", release.trim());
    let name = arguments
        .namespace
        .unwrap_or_else(|| format!("pc-kernel-{}", std::process::id()));
    let (client, client_device) = Namespace::with_path(&format!("{name}-a"), 1)?;
    let (server, server_device) = Namespace::with_path(&format!("{name}-b"), 2)?;
    let addresses = [
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2)),
    ];
    let mut relay = Relay::new([client_device, server_device], seed)?;
    let (stop, stop_serving) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let log = Arc::new(Log::default());
    server.inside(|| {
        addresses
            .into_iter()
            .map(|address| serve(address, Arc::clone(&stop_serving), Arc::clone(&log)))
            .collect::<Result<Vec<_>>>()
    })?;
    let clients: Vec<JoinHandle<()>> = client.inside(|| {
        let each = |number: u64| {
            let address = addresses.iter().cycle().nth(number as usize).copied();
            let address = address.context("no address")?;
            Ok(call(
                address,
                seed.wrapping_add(number),
                Arc::clone(&stop),
                Arc::clone(&log),
            ))
        };
        (0..2 * CLIENTS).map(each).collect()
    })?;

    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut linger = None;
    loop {
        interrupt.check()?;
        relay.step()?;
        let now = Instant::now();
        if now > end {
            stop.store(true, Ordering::Relaxed);
            ensure!(now < end + GRACE, "transfers are stuck");
        }
        if linger.is_none() && now > end && clients.iter().all(JoinHandle::is_finished) {
            // The last FINs and ACKs are still in flight.
            linger = Some(now + Duration::from_secs(1));
        }
        if linger.is_some_and(|until| now > until) {
            break;
        }
    }
    stop_serving.store(true, Ordering::Relaxed);
    println!("{:#?}", relay.counters);
    let failures = log.failures.lock().map_err(|_| anyhow!("log"))?;
    ensure!(failures.is_empty(), "transfers failed: {failures:#?}");
    let mut table: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (kind, v6) in log.done.lock().map_err(|_| anyhow!("log"))?.iter() {
        let [v4_count, v6_count] = table.entry(format!("{kind:?}")).or_default();
        *if *v6 { v6_count } else { v4_count } += 1;
    }
    println!("transfers [IPv4, IPv6]: {table:?}");
    ensure!(
        table.len() == Kind::ALL.len(),
        "a kind of transfer never came to its end"
    );
    relay.check_material()?;
    println!(
        "no packet of {} was dropped by the engine",
        relay.counters.forwarded
    );
    Ok(())
}
