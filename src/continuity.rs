//! Sessions that go on in another engine: their records in a store, and when they are due.
//!
//! The library does no I/O. A caller sweeps the table ([`Engine::sweep`](crate::Engine::sweep)) and
//! writes each [`StoredSession`] under its [`FlowName`] to a store that other engines read. An
//! engine that gets a packet of a session that it does not have reads the record and resumes the
//! session ([`Engine::resume`](crate::Engine::resume)).

pub(crate) mod flow_name;
#[cfg(feature = "snapshot")]
mod session;
#[cfg(feature = "snapshot")]
mod sweep;

pub use flow_name::FlowName;
#[cfg(feature = "snapshot")]
pub use session::{STORED_VERSION, StoredError, StoredSession};
#[cfg(feature = "snapshot")]
pub(crate) use sweep::Due;
#[cfg(feature = "snapshot")]
pub use sweep::{Resumed, StoreWhen, SweepCursor, SweepTime, Swept};
