//! **portcullis**: a stateful session firewall engine. A packet goes in, a [`Verdict`] comes out.
//!
//! The library does no I/O and reads no clock; what feeds it (a GENEVE front end, a capture, a TUN device) is
//! the caller's. Start at [`Engine`]: [`Engine::process`] decides a packet, [`Engine::expire`] lets time pass,
//! [`Config`] says what is allowed and how long sessions live.
//!
//! | module | what it is for |
//! |---|---|
//! | [`alg`] | helpers for protocols that announce other sessions, and what they announce |
//! | [`packet`] | bytes to parsed headers, once; every way to be malformed |
//! | [`flow`] | the canonical key of a conversation, its directions, its zone |
//! | [`fragment`] | which datagram a fragment belongs to, what was decided of it, and packets that wait for that |
//! | [`geneve`] | the tunnel header of the load balancers |
//! | [`track`] | the state machines of TCP, UDP, ICMP queries and all else |
//! | [`session`] | the table: shards, slots, timing wheel, eviction |
//! | [`policy`] | which new sessions are allowed |
//! | [`limits`] | what a zone, a rule or a source may hold |
//! | [`lifetime`] | how long sessions live |
//! | [`config`] | one TOML file for all of it |
//! | [`reset`] | the RST and ICMP packets that the engine itself makes |
//! | [`explain`] | how a decision came about |
//! | [`memory`] | how much memory a configuration takes |
#![forbid(unsafe_code)]

pub mod alg;
pub mod asymmetry;
mod atomic;
mod builder;
pub mod config;
mod engine;
pub mod event;
pub mod explain;
pub mod flow;
pub mod fragment;
mod gateway;
pub mod geneve;
pub mod lifetime;
pub mod limits;
pub mod memory;
mod outbox;
pub mod packet;
pub mod policy;
mod reasons;
mod reserve;
pub mod reset;
pub mod session;
pub mod snapshot;
mod stats;
pub mod track;
mod verdict;

pub use builder::{EngineBuilder, Policy, Rule};
pub use config::{Config, ConfigError};
pub use engine::{
    Engine, Expiry, HeldPackets, Packet, Reload, RuleTraffic, RuleUse, SessionDetail, SessionFilter,
};
pub use event::{DeniedSession, Discard, LimitReached, Sink};
pub use flow::{Direction, Zone};
pub use gateway::{Gateway, GatewayReload, GatewayWorker};
pub use outbox::{Egress, Event, Lost, Outbox, Transmit};
pub use packet::Malformed;
pub use reset::{Reset, Unsent};
pub use session::{EndReason, SessionId, SessionRecord, TunnelRef};
pub use snapshot::{RestoreError, RestoreOptions, Restored, Saved, SavedSession};
pub use stats::{ChallengeEvent, Openings, SessionCount, Stats};
pub use verdict::{Class, DropReason, Late, Reply, Tracked, Verdict};
