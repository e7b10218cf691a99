//! The integration tests of the library, in one binary with a module per subject.
//!
//! `no_memory` is a binary of its own, because it limits the memory of its whole process.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

// The house itself.
/// Floors of the library: which modules may name which.
mod house;

// Sessions: how they open, what the table holds, how they end.
/// Records of sessions for a store, their sweep, epochs and owners.
mod continuity;
/// Sessions that an operator lists, previews and ends.
mod deletion;
/// Sessions that the policy denies, as a sink receives them.
mod denied;
/// RSTs at a timeout, packets after the end, sessions that a reload ends.
mod endings;
/// Lifetimes, against a model with exact deadlines.
mod expiry;
/// Sessions that continued after they were saved, as after a crash.
mod moved_on;
/// Replies, RSTs and events in an outbox; policies that are built in code.
mod outbox;
/// Bounds on questions to a store, and on packets that wait for answers.
mod question_bounds;
/// Packets of sessions that another engine had, which ask a store.
mod questions;
/// Reloads, listings and saves that walk the table in slices, with packets in between.
mod slices;
/// Saving and restoring sessions, and streams that are refused.
mod snapshot;
/// The full table, against the reference model.
mod table;
/// Many threads on shared flows, with concurrent operations of every kind.
mod together;

// Protocols.
/// Neighbor discovery and other traffic of a link, which needs no session.
mod discovery;
/// ICMP queries and errors.
mod icmp_rules;
/// Allowed contents of IP headers.
mod ip_header;
/// SCTP associations with several addresses.
mod sctp_paths;
/// SCTP, DCCP, UDP-Lite, GRE, ESP and AH.
mod transports;

// TCP.
/// Healthy paths, which the report of asymmetry must not accuse.
mod accused;
/// Segments that neither end sent.
mod forged;
/// Partially known connections.
mod halves;
/// TCP modes by rule and zone, and checks that only count.
mod modes;
/// Side effects that `tcp.asymmetric = "report"` and `tcp.midstream = "reject"` must not have.
mod reported;
/// The two directions of a connection in two zones.
mod zones;

// FTP.
/// Control sessions, announcements and data connections.
mod ftp;
/// `ftp.refused = "drop"`.
mod ftp_refused;
/// Random conversations, against a reference model.
mod model_ftp;

// Fragments.
/// A first fragment and its later ones.
mod fragments;
/// Fragments that arrive before their first.
mod held_fragments;
/// Random fragments, against a reference model.
mod model_fragments;

// Policy and limits.
/// Source validation under flood.
mod challenge;
/// Floods in engine time.
mod floods;
/// Policies of the largest size.
mod large_policies;
/// Limits, shares of the table, eviction and adaptive lifetimes.
mod limits;
/// New sessions while no log can be written.
mod log_gate;
/// Packets that waited too long.
mod overload;
/// The policy language.
mod policy;
/// Shares of bounded resources by zone and by source.
mod shares;

// The front end.
/// Packets that are decided in batches.
mod batch;
/// Datagrams through front end and engine.
mod front;
/// Endpoints and tunnel endpoints.
mod front_ends;
/// Hostile datagrams, and requests for their retransmission.
mod front_hostile;
/// Clamping of the MSS.
mod front_mss;
/// Engine and front end as one.
mod gateway;

// The whole engine.
/// The packet path allocates nothing.
mod allocations;
/// The stored inputs of the fuzz targets.
mod fuzz_replay;
/// The memory that an engine takes.
mod memory;
/// A packet for each drop reason.
mod reasons;
/// docs/REASONS.md.
mod reference;
/// Fixed bugs, each as the claim that it broke.
mod regressions;
/// Packets of established sessions, by the short way and by the full one.
mod short_way;
