//! `portcullis observe` inside the appliance: a bounded stream of decisions and session events.
//!
//! Each worker has a [`tap`], which samples before anything is copied: a [share](shares) for each
//! reason, so that a flood of one does not hide others, and the [filters](filter) of the clients.
//! A bounded queue leads to one [thread](hub) that keeps the newest events in a [ring] and passes
//! them to the clients. Each client has a bounded queue, and its own thread renders the
//! [rows](row). All that is left out is counted, and reported to the client.

pub(super) mod asymmetry;
pub(super) mod dropped;
pub(super) mod event;
pub(super) mod filter;
pub(super) mod hub;
pub(super) mod kind;
pub(super) mod packet;
mod raw;
mod ring;
pub(crate) mod row;
pub(super) mod shares;
pub(crate) mod spec;
pub(super) mod stream;
mod switch;
pub(super) mod tap;
#[cfg(test)]
mod tests;

pub(super) use self::switch::{ObserveCounts, Observers};
