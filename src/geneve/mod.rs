//! GENEVE (RFC 8926): the tunnel between load balancers and an appliance.
//!
//! [`Header::parse`] reads the header of a datagram to UDP port [`PORT`] and returns the inner
//! packet. It is strict and bounded: anything that a tunnel endpoint must not ignore is an error
//! with a name. Unknown options are left unchanged, since a reply carries the header back byte for
//! byte. [`encode`] writes a header. [`metadata`] reads the load balancers' options.
//!
//! [`Gateway`](crate::Gateway) is an appliance without sockets; [`front`] is its front end, for
//! callers with an engine of their own.

mod encode;
mod error;
pub mod front;
mod header;
pub mod metadata;

#[cfg(test)]
mod tests;

pub use encode::encode;
pub use error::GeneveError;
use header::{FIXED, OPTION_HEADER};
pub use header::{Header, Inner, InnerProtocol, TunnelOption, TunnelOptions};
pub use metadata::{EndpointId, Metadata, MetadataError, MetadataField, Provider};

/// The UDP port of GENEVE (RFC 8926 section 3.3).
pub const PORT: u16 = 6081;
