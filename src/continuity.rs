//! Sessions that go on in another engine: their records in a store, and when they are due.
//!
//! The library does no I/O. A caller sweeps the table ([`Engine::sweep`](crate::Engine::sweep)) and
//! writes each [`StoredSession`] under its [`FlowName`] to a store that other engines read. An
//! engine that gets a packet of a session that it does not have reads the record and resumes the
//! session ([`Engine::resume`](crate::Engine::resume)).

mod flow_name;
mod session;
mod sweep;

pub use flow_name::FlowName;
pub use session::{STORED_VERSION, StoredError, StoredSession};
pub(crate) use sweep::Due;
pub use sweep::{Resumed, StoreWhen, SweepCursor, SweepTime, Swept};
