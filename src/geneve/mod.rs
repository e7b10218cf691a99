//! GENEVE (RFC 8926): the tunnel in which load balancers hand packets to an appliance.
//!
//! [`Header::parse`] reads the header of a datagram to UDP port [`PORT`] and gives the packet inside. It is strict and
//! bounded: what a tunnel end may not ignore is an error with a name. Unknown options are left as they are, since a
//! reply carries the header back byte for byte. [`encode`] writes a header.

mod encode;
mod error;
mod header;

#[cfg(test)]
mod tests;

pub use encode::encode;
pub use error::GeneveError;
pub use header::{Header, Inner, InnerProtocol, TunnelOption, TunnelOptions};

/// The UDP port of GENEVE (RFC 8926 section 3.3).
pub const PORT: u16 = 6081;
