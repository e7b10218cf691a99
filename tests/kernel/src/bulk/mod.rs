//! Two real TCP stacks on either side of the engine.

pub mod relay;
pub mod traffic;
