//! The C interface of portcullis: opaque handles, structs of plain values, and status numbers.
//!
//! The header `capi/include/portcullis.h` is generated from this crate and committed; a test
//! compares them. `docs/C.md` is the guide for C programmers. C programs need the shared or the
//! static library; Rust programs use the crate `portcullis`, not this one.
//!
//! **Unsafe code** is in two places. `raw` turns pointers into references, slices, texts and
//! values, after every check that is possible: NULL, alignment, lengths, sizes of structs. The
//! exported functions call it; their `Safety` sections name what only a caller can know: that
//! memory is readable or writable, and lives. Everything below is safe code.
//!
//! **Panics** end in [`Panic`](status::Status::Panic), and never reach C (`guard`). The handle then
//! refuses every later call but its release.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a test fails by panicking"
    )
)]

mod clock;
pub mod config;
pub mod counters;
pub mod decide;
pub mod engine;
pub mod event;
pub mod filter;
pub mod gateway;
mod guard;
pub mod manage;
pub mod names;
pub mod outbox;
pub mod packet;
mod raw;
pub mod saved;
pub mod session;
mod shared;
pub mod status;
pub mod streams;
#[cfg(test)]
mod tests;
