//! **portcullis**: a stateful session firewall engine. A packet goes in, a [`Verdict`] comes out.
//!
//! The library does no I/O and reads no clock: the caller receives packets, passes them with the
//! current time, and sends the forwarded ones. Behind a load balancer that uses GENEVE, start at
//! [`Gateway`]; anywhere else, at [`Engine`].
//!
//! ```
//! use std::time::Instant;
//! use portcullis::policy::Protocol;
//! use portcullis::{Engine, Event, Outbox, Packet, Policy, Rule, Verdict};
//!
//! let policy = Policy::deny_by_default()
//!     .rule(Rule::allow("web").protocol(Protocol::TCP).ports([80..=80, 443..=443]));
//! let engine = Engine::builder().policy(policy).build()?;
//! let mut outbox = Outbox::new();
//!
//! // For each packet that an interface receives:
//! let (bytes, now) = ([0u8; 20], Instant::now());
//! match engine.process(&Packet::new(&bytes, now), &mut outbox) {
//!     Verdict::Forward(_) => { /* send it on, byte for byte */ }
//!     Verdict::Drop(reason, _) => println!("{reason}: {}", reason.describe()),
//!     Verdict::Reject(..) => { /* the reply waits in the outbox, within its budget */ }
//!     Verdict::Hold(..) => { /* never: only packets with `can_hold` get it */ }
//! }
//! // After each packet or batch, and at `Engine::next_expiry`:
//! engine.expire(now, &mut outbox);
//! for event in outbox.drain() {
//!     match event {
//!         Event::Transmit(packet) => println!("send {} bytes", packet.bytes.len()),
//!         Event::Ended(session, reason) => println!("{}: {}", session.src, reason.name()),
//!         _ => {}
//!     }
//! }
//! # assert_eq!(engine.stats().dropped_total(), 1);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! The folder `examples` contains complete programs: `bump_in_the_wire` (two TUN devices),
//! `nfqueue`, `af_packet`, `read_capture`, `continuity` (a session that moves to another engine)
//! and `minimal_appliance` (GENEVE).
//!
//! # Features
//!
//! All features are on by default, and each only adds items:
//!
//! - `toml` reads configuration files: [`Config::from_toml`]. A [`Config`] can be built in code
//!   without it.
//! - `snapshot` saves and restores sessions: [`Engine::save_to`].
//! - `geneve` adds the [`Gateway`] and the [codec of its tunnel](geneve).
//!
//! # The path of a packet
//!
//! ```text
//!  bytes ──> packet ──> fragment ──> flow ──> session ──hit──> track ──────────> Verdict
//!            parse      datagram     key      lookup           state machine     Forward
//!            once       of it        + zone   (one lock)         ^               Drop
//!                                                │               │               Reject
//!                                                miss            │
//!                                                └──> policy ──> limits            │
//!                                                     first      quotas            v
//!                                                     match                      Outbox
//!  time ───────────────────────> Engine::expire ───────────────────────────────> Transmit,
//!                                                                                Opened, Ended ...
//! ```
//!
//! [`Engine::process`] documents the steps and their locks.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`continuity`] | sessions that go on in another engine: their records in a store |
//! | [`config`] | the configuration, read from TOML or built in code; lifetimes |
//! | [`policy`] | rules, limits, and decisions on new sessions |
//! | [`packet`] | parsing of bytes to headers; all kinds of malformed packets |
//! | [`session`] | records, identifiers, histories, states and five-tuples of sessions |
//! | [`event`] | what the engine reports, and [`Sink`], the lower interface below the [`Outbox`] |
//! | [`explain`] | the steps of a decision |
//! | [`snapshot`] | saving and restoring sessions |
//! | [`geneve`] | the tunnel of the load balancers, and the front end below the [`Gateway`] |
//!
//! The items that every program needs are at the root: the [`Engine`], its [`Packet`]s, the
//! [`Verdict`], the [`Outbox`], the [`Policy`] and the [`Gateway`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(all(feature = "geneve", feature = "snapshot", feature = "toml")),
    allow(
        dead_code,
        rustdoc::broken_intra_doc_links,
        rustdoc::private_intra_doc_links,
        reason = "one feature alone uses some private functions, and pages link to items of all \
                  features; the default set is checked"
    )
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod asymmetry;
mod atomic;
mod builder;
pub mod config;
pub mod continuity;
mod engine;
pub mod event;
pub mod explain;
mod flow;
mod fragment;
#[cfg(not(feature = "__internals"))]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "tests use more of it, with `__internals`"
)]
mod ftp;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod ftp;
#[cfg(feature = "geneve")]
mod gateway;
#[cfg(feature = "geneve")]
pub mod geneve;
#[cfg(not(feature = "geneve"))]
mod geneve;
mod lifetime;
mod limits;
mod memory;
mod outbox;
pub mod packet;
pub mod policy;
mod question;
mod reasons;
mod reserve;
mod reset;
pub mod session;
#[cfg(feature = "snapshot")]
pub mod snapshot;
mod stats;
mod stripe;
#[cfg(not(feature = "__internals"))]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "tests use more of it, with `__internals`"
)]
mod track;
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod track;
mod verdict;

pub use asymmetry::{AsymmetryLine, AsymmetryReport, Cause as AsymmetryCause, Evidence};
pub use builder::{EngineBuilder, Policy, Rule};
pub use config::{Config, ConfigError};
pub use engine::{
    Answer, Engine, Expiry, HeldPackets, LogFault, LogGate, LogScope, Packet, Reload, RuleTraffic,
    RuleUse, SessionDetail, SessionFilter,
};
pub use event::{DeniedSession, Discard, LimitReached, Sink};
pub use flow::{Direction, Zone};
pub use fragment::HoldId;
#[cfg(feature = "geneve")]
pub use gateway::{Gateway, GatewayReload, GatewayWorker};
pub use memory::{Memory, MemoryPart};
pub use outbox::{Egress, Event, Lost, Outbox, Transmit};
pub use packet::Malformed;
pub use question::{
    Answered, EXPECTATION_VERSION, ExpectationName, ExpectationRecordError, Question, QuestionKind,
    QuestionStats, StoredExpectation, Unasked,
};
pub use reset::{Reset, Unsent};
pub use session::{EndReason, SessionId, SessionRecord, SessionUid, TunnelRef};
#[cfg(feature = "snapshot")]
pub use snapshot::{RestoreError, RestoreOptions, Restored, Saved, SavedSession};
pub use stats::{ChallengeEvent, Openings, SessionCount, Stats};
pub use verdict::{Class, DropReason, Late, Reply, Tracked, Verdict};

/// Compiles and runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles and runs the examples of the library guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/LIBRARY.md")]
struct LibraryGuide;
