//! See `tests/support/short_way.rs`, which `tests/it/short_way.rs` runs on stable.
#![no_main]

#[path = "../../tests/support/short_way.rs"]
#[allow(dead_code)]
mod short_way;

libfuzzer_sys::fuzz_target!(|data: &[u8]| short_way::short_way(data));
