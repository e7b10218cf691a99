//! A stateful session firewall engine.
#![forbid(unsafe_code)]

pub mod config;
pub mod flow;
pub mod lifetime;
pub mod policy;
