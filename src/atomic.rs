//! Atomic integers of what is lock-free by itself; `tests/loom` builds it with those of a model
//! checker.

pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
