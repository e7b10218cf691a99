//! A stateful session firewall engine.
#![forbid(unsafe_code)]

pub mod packet;
