//! A stateful session firewall engine.
#![forbid(unsafe_code)]
