//! The portcullis firewall appliance.

#[allow(
    dead_code,
    unused_imports,
    reason = "the replay command is what reads and writes captures"
)]
mod capture;

fn main() {}
