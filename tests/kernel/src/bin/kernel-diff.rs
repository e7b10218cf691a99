//! Passes random TCP conversations, and attacks on them, to the connection tracking of the running
//! Linux kernel and to the portcullis engine, and compares their verdicts and states.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use portcullis_kernel_tests::kernel::Kernel;
use portcullis_kernel_tests::namespace::Interrupt;
use portcullis_kernel_tests::run::{Settings, run};

/// Compare the engine with Linux conntrack, packet by packet. The exit code is 1 if a deviation is
/// not listed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Packets to compare.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Seed of the packets; random unless given, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Also print listed kinds of deviations, with their stories.
    #[arg(long)]
    stories: bool,
    /// Name of the network namespace; by default made from the process number.
    #[arg(long)]
    namespace: Option<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::listen()?;
    let seed = arguments.seed.unwrap_or_else(rand_seed);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("Linux {}, seed {seed}", release.trim());
    let name = arguments
        .namespace
        .unwrap_or_else(|| format!("pc-kernel-{}", std::process::id()));
    let kernel = Kernel::start(&name)?;
    let settings = Settings {
        packets: arguments.packets,
        seed,
    };
    let start = Instant::now();
    let outcome = run(kernel, &settings, &interrupt)?;
    let mut classes: Vec<_> = outcome.classes.iter().collect();
    classes.sort();
    for (class, count) in classes {
        println!("{count:>7}  Linux {class}");
    }
    let well = outcome
        .deviations
        .report(outcome.packets, arguments.stories)?;
    let agreed = outcome.packets.saturating_sub(outcome.deviations.count());
    println!(
        "{:.3} % of {} packets in {} conversations agree; {:.1} s; seed {seed}",
        agreed as f64 * 100.0 / outcome.packets as f64,
        outcome.packets,
        outcome.conversations,
        Duration::as_secs_f64(&start.elapsed()),
    );
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns a seed from the standard library's own randomness.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}
