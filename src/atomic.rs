//! Atomic integers of the lock-free modules; `tests/loom` builds them with those of a model
//! checker.

pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
