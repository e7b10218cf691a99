//! Any descriptors of a kernel, in any order with the steps of a queue: each frame keeps one owner.
#![no_main]

#[path = "../../xdp/tests/support/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|steps: Vec<script::Step>| script::run(&steps));
