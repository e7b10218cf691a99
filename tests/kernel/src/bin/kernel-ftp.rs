//! Connects real FTP servers and clients through the portcullis engine, whose policy allows TCP
//! port 21 and nothing else. Every transfer must work, and every other port must stay closed
//! before, during and after it.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use portcullis::config::RefusedAnnouncement;
use portcullis_kernel_tests::ftp::check::{Scene, Ways, listen};
use portcullis_kernel_tests::ftp::path::Path;
use portcullis_kernel_tests::ftp::programs::Scratch;
use portcullis_kernel_tests::ftp::servers::{self, Server, Site};
use portcullis_kernel_tests::ftp::{CLIENT, CLIENT_NEIGHBOR, SERVER_NEIGHBOR};
use portcullis_kernel_tests::namespace::{Interrupt, Namespace};

/// Real FTP programs through an engine that allows port 21 and nothing else. Needs vsftpd,
/// pyftpdlib, curl, lftp, tnftp.
#[derive(Debug, Parser)]
struct Arguments {
    /// Prefix of the names of the network namespaces and of a folder for files; by default made
    /// from the process number.
    #[arg(long)]
    namespace: Option<String>,
    /// Fate of refused announcements: `pass` or `drop`.
    #[arg(long, default_value = "pass", value_parser = ["pass", "drop"])]
    refused: String,
    /// The folder into which the packages of Pure-FTPd and ProFTPD were unpacked; without it they
    /// are ignored.
    #[arg(long, value_name = "FOLDER")]
    unpacked: Option<PathBuf>,
    /// Write the control conversations into this folder, as inputs of the fuzz target `ftp`.
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::listen()?;
    let name = arguments
        .namespace
        .unwrap_or_else(|| format!("pc-kernel-{}", std::process::id()));
    let (clients, client_device) = Namespace::with_path(&format!("{name}-a"), CLIENT)?;
    let (servers, server_device) =
        Namespace::with_path(&format!("{name}-b"), Server::VsftpdFrom20.host())?;
    clients.add_host(CLIENT_NEIGHBOR)?;
    for server in Server::ALL {
        if server != Server::VsftpdFrom20 {
            servers.add_host(server.host())?;
        }
    }
    servers.add_host(SERVER_NEIGHBOR)?;
    let scratch = Scratch::create(&name)?;
    if arguments.unpacked.is_none() {
        println!("Pure-FTPd and ProFTPD: ignored");
    }
    let site = Site::create(scratch.path(), arguments.unpacked)?;
    let path = Path::new(match arguments.refused.as_str() {
        "drop" => RefusedAnnouncement::Drop,
        _ => RefusedAnnouncement::Pass,
    })?;
    let scene = Scene {
        path: &path,
        clients: &clients,
        servers: &servers,
        site: &site,
        folder: scratch.path(),
        record: arguments.record.as_deref(),
        interrupt: &interrupt,
    };
    scene.prepare(u64::from(std::process::id()))?;
    let _listening = [listen(&clients)?, listen(&servers)?];
    let _running = servers::start(&servers, &site, &interrupt)?;

    let devices = [client_device, server_device];
    thread::scope(|scope| {
        let carrying = scope.spawn(|| path.run(&devices, &interrupt));
        let result = all(&scene);
        if result.is_err() {
            println!("dropped: {:?}", path.seen.lock().drops());
        }
        path.stop();
        let carried = carrying
            .join()
            .map_err(|_| anyhow!("the thread of the engine died"))?;
        carried.and(result)
    })
}

/// Prints the transfers that worked, and those that fail even without the engine.
fn report(what: &str, ways: &Ways, seconds: f64) {
    println!("{} {what}: {seconds:.1} s", ways.worked);
    if !ways.impossible.is_empty() {
        println!(
            "  do not work without the engine either: {}",
            ways.impossible.join(", ")
        );
    }
}

/// Runs all transfers while other threads probe ports continuously.
fn all(scene: &Scene<'_>) -> Result<()> {
    let (stop, tries) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    let seconds = || start.elapsed().as_secs_f64();
    thread::scope(|scope| -> Result<()> {
        let watching = scope.spawn(|| scene.watch(&stop, &tries));
        let result = (|| {
            // Waits for a round of probes before the first announcement.
            while tries.load(Ordering::Relaxed) == 0 && !watching.is_finished() {
                scene.interrupt.check()?;
                thread::yield_now();
            }
            let ways = scene.every_way()?;
            report(
                "ways of client, server, mode and IP version: upload, download, listing",
                &ways,
                seconds(),
            );
            let resumed = scene.resumed().context("resumed downloads")?;
            report("resumed downloads", &resumed, seconds());
            let long = scene.long_paths().context("long paths")?;
            report(
                "downloads from a folder whose path has 967 bytes",
                &long,
                seconds(),
            );
            let tls = scene.over_tls().context("TLS")?;
            report(
                "ways over explicit TLS with allowed passive ports",
                &tls,
                seconds(),
            );
            let aborted = scene.abor_everywhere().context("ABOR")?;
            println!(
                "{aborted} servers with ABOR and transfers after it: {:.1} s",
                seconds()
            );
            let took = scene.large().context("large files")?;
            println!(
                "100 MiB down in passive and up in active mode: {:.1} s",
                took.as_secs_f64()
            );
            scene.at_once().context("ten at once")?;
            println!("ten transfers at once: {:.1} s", seconds());
            scene.aborted().context("aborted transfers")?;
            println!(
                "aborted transfers, with whole ones after them: {:.1} s",
                seconds()
            );
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let watched = watching
            .join()
            .map_err(|_| anyhow!("the thread of the tries died"))?;
        watched.and(result)
    })?;
    let again = scene.shut_again()?;
    scene.path.outlive()?;
    let seen = scene.path.seen.lock();
    let drops = seen.drops();
    println!(
        "{} packets passed, {} sessions were opened, {} of them announced; dropped: {drops:?}",
        seen.forwarded,
        seen.opened.len(),
        seen.children()
    );
    let words: Vec<_> = seen
        .words
        .iter()
        .map(|((word, v6), count)| format!("{word}{} {count}", if *v6 { "/6" } else { "" }))
        .collect();
    println!("commands: {}", words.join(", "));
    let events = scene.path.engine.stats().helper_events;
    let events: Vec<_> = events
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(event, count)| format!("{event} {count}"))
        .collect();
    println!("events: {}", events.join(", "));
    drop(seen);
    scene.seen()?;
    println!(
        "{} tries at shut ports beside the transfers and {again} at used ones after them got no \
         answer: {:.1} s",
        tries.load(Ordering::Relaxed),
        seconds()
    );
    Ok(())
}
