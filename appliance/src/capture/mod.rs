//! Captures: reading packets from a file, and writing packets to a file.
//!
//! - [`CaptureReader`] returns the frames of a pcap or pcapng capture one after the other. The
//!   reader streams: its buffer grows to the largest frame and at most to `MAX_BLOCK`, regardless
//!   of the lengths that a file declares. Captures compressed with gzip or Zstandard are
//!   decompressed as they are read.
//! - [`ip_packet`] finds the IP packet in a frame, or names the kind of a frame without one
//!   (`NotIp`).
//! - [`decapsulate`] extracts a packet from its GENEVE tunnel.
//! - [`pad_cut`] restores the length of a packet that the capture's snap length truncated.
//! - [`with_length`] makes complete packets from one that the sender's interface has not segmented
//!   yet.
//! - [`CaptureWriter`] writes IP packets as a pcap or pcapng with nanoseconds.
//!
//! A capture is untrusted input: no byte sequence causes a panic, and an unreadable part is a
//! [`CaptureError`] that names the byte offset. All frames before that offset have been returned.

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
