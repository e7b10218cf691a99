//! GENEVE (RFC 8926): the tunnel between load balancers and an appliance.
//!
//! [`Header::parse`] reads the header of a datagram to UDP port [`PORT`] and returns the inner
//! packet. The parser is strict and bounded: anything that a tunnel endpoint must not ignore is an
//! error with a name. Unknown options are left unchanged, since a reply carries the header back
//! byte for byte. [`encode`] writes a header. [`metadata`] reads the load balancers' options.
//!
//! [`Gateway`](crate::Gateway) is an appliance without sockets; [`front`] is its front end, for
//! callers with their own engine.

#[cfg(feature = "geneve")]
mod encode;
#[cfg(feature = "geneve")]
mod error;
#[cfg(feature = "geneve")]
pub mod front;
#[cfg(feature = "geneve")]
mod header;
#[cfg(feature = "geneve")]
pub mod metadata;
mod provider;
#[cfg(test)]
#[cfg(feature = "geneve")]
mod tests;

pub use provider::{EndpointId, MetadataField, Provider};

#[cfg(feature = "geneve")]
pub use self::{
    encode::encode,
    error::GeneveError,
    header::{Header, Inner, InnerProtocol, TunnelOption, TunnelOptions},
    metadata::{Metadata, MetadataError},
};
#[cfg(feature = "geneve")]
use header::{FIXED, OPTION_HEADER};

/// The UDP port of GENEVE (RFC 8926 section 3.3).
#[cfg(feature = "geneve")]
pub const PORT: u16 = 6081;
