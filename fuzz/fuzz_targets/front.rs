//! See `tests/support/front.rs`, which `tests/it/fuzz_replay.rs` runs on stable.
#![no_main]

#[path = "../../tests/support/front.rs"]
#[allow(dead_code)]
mod front;

libfuzzer_sys::fuzz_target!(|data: &[u8]| front::front(data));
