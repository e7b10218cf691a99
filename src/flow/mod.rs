//! What identifies a session.
pub mod zone;
pub use zone::Zone;
