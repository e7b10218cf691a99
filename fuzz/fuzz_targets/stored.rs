//! See `stored` in `tests/support/fuzz.rs`, which `tests/it/fuzz_replay.rs` runs on stable.
#![no_main]

#[path = "../../tests/support/fuzz.rs"]
#[allow(dead_code)]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stored(data));
