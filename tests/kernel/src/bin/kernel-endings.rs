//! Ends connections between two real Linux TCP stacks like the portcullis engine: by timeout, by
//! reload, or by a late answer. Both stacks must accept the end. Also passes single directions and
//! later parts of connections through the engine.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use portcullis_kernel_tests::endings::SCENES;
use portcullis_kernel_tests::endings::lab::Lab;
use portcullis_kernel_tests::endings::stacks::Family;
use portcullis_kernel_tests::namespace::Interrupt;

/// Maximum time for all scenes. Each waits a few seconds at most for the events that it checks.
const BOUND: Duration = Duration::from_secs(50);

/// Real TCP connections that the engine ends, adopts, or tracks in one direction. Stops at the
/// first scene that fails.
#[derive(Debug, Parser)]
struct Arguments {
    /// Prefix of the names of the network namespaces; by default made from the process number.
    #[arg(long)]
    namespace: Option<String>,
    /// Run only scenes whose claim contains this text.
    #[arg(long)]
    only: Option<String>,
    /// Continue after a scene that fails.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::listen()?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("Linux {}", release.trim());
    let name = arguments
        .namespace
        .unwrap_or_else(|| format!("pc-endings-{}", std::process::id()));
    let begun = Instant::now();
    let mut lab = Lab::new(&name, interrupt.clone())?;
    let (mut seen, mut wrong) = (0, 0);
    let wanted = |claim: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|part| claim.contains(part))
    };
    for (claim, scene) in SCENES
        .iter()
        .copied()
        .flatten()
        .filter(|(claim, _)| wanted(claim))
    {
        for family in Family::BOTH {
            interrupt.check()?;
            ensure!(begun.elapsed() < BOUND, "the scenes take too long");
            let at = Instant::now();
            let result = scene(&mut lab, family).with_context(|| format!("{claim}, IP{family:?}"));
            match result {
                Ok(numbers) => {
                    seen += 1;
                    let time = at.elapsed().as_secs_f32();
                    println!(
                        "IP{} {claim}: {numbers} ({time:.2} s)",
                        format!("{family:?}").to_lowercase()
                    );
                }
                Err(error) if arguments.keep_going => {
                    wrong += 1;
                    println!("WRONG: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} scenes went wrong");
    }
    println!("{seen} scenes in {:.1} s", begun.elapsed().as_secs_f32());
    Ok(())
}
