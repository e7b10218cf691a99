//! Sessions that go on in another engine: their records in a store, and when they are due.
//!
//! The library does no I/O. A caller sweeps the table ([`Engine::sweep`](crate::Engine::sweep)) and
//! writes each [`StoredSession`] under its [`FlowName`] to a store that other engines read. An
//! engine that gets a packet of a session that it does not have reads the record and resumes the
//! session ([`Engine::resume`](crate::Engine::resume)).
//!
//! ```
//! use std::collections::HashMap;
//! use std::time::{Duration, Instant, SystemTime};
//! use portcullis::continuity::{Resumed, StoreWhen, StoredSession, SweepCursor, SweepTime};
//! use portcullis::{Config, Engine, Packet};
//!
//! let mut config = Config::allow_all();
//! config.continuity.enabled = true;
//! # config.engine.checksums = portcullis::packet::Checksums::Trust;
//! let (old, new) = (Engine::new(&config)?, Engine::new(&config)?);
//! // A datagram and its answer: a session that is worth saving.
//! # let datagram = |hosts: [u8; 2], ports: [u8; 2]| {
//! #     let [from, to] = hosts;
//! #     let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
//! #     bytes.extend([10, 0, 0, from, 10, 0, 0, to, 1, ports[0], 1, ports[1], 0, 8, 0, 0]);
//! #     bytes
//! # };
//! let (now, at) = (Instant::now(), SystemTime::now());
//! old.verdict_only(Packet::new(&datagram([1, 2], [7, 9]), now));
//! old.verdict_only(Packet::new(&datagram([2, 1], [9, 7]), now));
//!
//! // One thread sweeps the table, and writes what is due to the store.
//! let mut store = HashMap::new();
//! let (mut cursor, time) = (SweepCursor::default(), SweepTime { now, at });
//! let when = StoreWhen { min_age: Duration::ZERO, ..StoreWhen::default() };
//! while !old.sweep(&mut cursor, time, &when, |flow, session| {
//!     let mut record = Vec::new();
//!     session.encode(&mut record);
//!     store.insert(flow.as_bytes().to_vec(), record);
//! }).round_ended {}
//!
//! // Another engine goes on with the session.
//! for record in store.values() {
//!     let session = StoredSession::decode(record)?;
//!     assert!(matches!(new.resume(&session, now, at)?, Resumed::Resumed(_)));
//! }
//! assert_eq!(new.sessions(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claim;
pub(crate) mod flow_name;
#[cfg(feature = "snapshot")]
mod session;
#[cfg(feature = "snapshot")]
mod sweep;

pub use claim::Claim;
pub use flow_name::FlowName;
#[cfg(feature = "snapshot")]
pub use session::{STORED_VERSION, StoredError, StoredSession};
#[cfg(feature = "snapshot")]
pub(crate) use sweep::Due;
#[cfg(feature = "snapshot")]
pub use sweep::{Resumed, StoreWhen, SweepCursor, SweepTime, Swept};
