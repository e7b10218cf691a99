//! Captures: packets from a file in, packets to a file out.
//!
//! - [`CaptureReader`] hands out the frames of a pcap or pcapng capture one after the other. It streams: its
//!   buffer grows to the largest frame and no further than `MAX_BLOCK`, whatever lengths a file declares.
//!   Captures compressed with gzip or Zstandard are decompressed as they are read.
//! - [`ip_packet`] finds the IP packet in a frame, or says by name why there is none (`NotIp`).
//! - [`decapsulate`] takes a packet out of its GENEVE tunnel.
//! - [`pad_cut`] restores the length of a packet that the capture's snap length cut.
//! - [`with_length`] makes whole packets of one that the sender's interface has yet to segment.
//! - [`CaptureWriter`] writes IP packets as a pcap or pcapng with nanoseconds.
//!
//! A capture is untrusted input: no byte sequence panics, and what cannot be read is a [`CaptureError`] that names
//! the byte offset. Everything before that offset has been handed out.

mod compressed;
mod error;
mod limits;
mod link;
mod located;
mod offload;
mod order;
mod pad;
mod pcap;
mod pcapng;
mod pcapng_writer;
mod reader;
mod tunnel;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use error::CaptureError;
#[cfg(test)]
pub(crate) use limits::MAX_PACKET;
pub(crate) use link::ip_packet;
#[cfg(test)]
pub(crate) use link::{IpPayload, IpVersion, LinkType, NotIp};
pub(crate) use offload::{has_no_length, stated_len, with_length};
#[cfg(test)]
pub(crate) use pad::MAX_PADDED;
pub(crate) use pad::{Padded, pad_cut};
pub(crate) use reader::{CaptureReader, Frame};
pub(crate) use tunnel::{NotInside, decapsulate};
#[cfg(test)]
pub(crate) use window::MAX_BLOCK;
pub(crate) use writer::CaptureWriter;
