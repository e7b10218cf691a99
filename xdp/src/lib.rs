//! AF_XDP for portcullis: datagrams to one UDP port leave and enter the kernel next to the driver.
//!
//! [`Interface::open`] opens a [`Queue`] for each receive queue, and [`Sockets::attach`] attaches a
//! program that takes the datagrams of a [`Selection`] from the kernel. All other packets stay with
//! the kernel: fragments, other ports and protocols, and packets of a queue without a socket. The
//! program is detached when the [`Attachment`] is dropped or the process ends, in whatever way.
//!
//! Sockets are in copy mode alone: zero-copy has no multi-buffer, which packets above some 3,800
//! bytes need.
//!
//! **Unsafe code** is in three modules: `area` (memory of frames), `ring` (counters and entries
//! that the kernel shares) and `bpf` (one system call). The rest is safe. The ownership of frames
//! ([`Ledger`]) and the reading of descriptors ([`Batch`]) are pure code, so that tests and a fuzz
//! target drive them with any descriptors. Rings and whole queues run over memory of the process in
//! tests, where a thread acts as the kernel; `.ci/xdp-miri` runs these under Miri.
//!
//! **Why not a crate**: `xdpilone` 1.3 is licensed under the EUPL-1.2, which the project does not
//! use, and leaves the memory and the ownership of frames to unsafe code of its caller. `xsk-rs`
//! needs libxdp and clang. Socket options and mappings come from `rustix`; what remains is small.
#![cfg(target_os = "linux")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )
)]

mod area;
mod batch;
mod bpf;
mod error;
mod head;
mod interface;
mod ledger;
mod program;
mod queue;
mod ring;
mod stats;

pub use self::batch::{BATCH, Batch, MAX_PIECES, Packet, Source};
pub use self::bpf::{Attachment, Mode};
pub use self::error::{Step, XdpError};
pub use self::head::{HEAD, Head, Refused};
pub use self::interface::{Interface, MAX_QUEUES, Sockets};
pub use self::ledger::{Counts, Desc, Ledger, Owner, Piece};
pub use self::program::{MAX_ADDRESSES, Selection};
pub use self::queue::{Flushed, NotSent, Queue, SINGLE};
pub use self::stats::{Count, QueueStats};
