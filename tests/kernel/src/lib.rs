//! Runs the portcullis engine beside a real Linux kernel. Needs root, `/dev/net/tun`, `ip` and
//! `nft`.
//!
//! - `kernel-diff` generates TCP conversations and attacks on them, and passes each packet both to
//!   the connection tracking of the running kernel and to the engine. Class, direction, and the
//!   state of the connection after the packet must agree, except for the entries of
//!   `deviations.toml`.
//! - `kernel-bulk` transfers data between two real TCP stacks through the engine over a lossy path.
//!   The engine must not drop any packet.
//! - `kernel-ftp` connects real FTP servers and clients through the engine, whose policy allows
//!   port 21 and nothing else. Every transfer must work, and every other port must stay closed.
//! - `kernel-endings` ends connections between two real TCP stacks like the engine: by timeout,
//!   reload or late answer. It also passes single directions and later parts of connections through
//!   the engine. Both stacks must accept every RST.
//!
//! Everything happens in network namespaces that are created for the run and removed after it.
#![forbid(unsafe_code)]

pub mod attack;
pub mod bulk;
pub mod conntrack;
pub mod conversation;
pub mod deviations;
pub mod endings;
pub mod endpoint;
pub mod ftp;
pub mod kernel;
pub mod namespace;
pub mod run;
pub mod segment;
pub mod wake;
