//! Real FTP servers and clients on either side of the engine, whose policy allows port 21 and
//! nothing else.
//!
//! | part | what it is for |
//! |---|---|
//! | [`path`] | the engine between the two devices, and what it saw |
//! | [`programs`] | starting programs in a namespace and ending them |
//! | [`servers`] | vsftpd and pyftpdlib |
//! | [`clients`] | curl, lftp and tnftp, in every mode they have |
//! | [`probe`] | which ports answer |
//! | [`check`] | the transfers, and what must hold of them |

pub mod check;
pub mod clients;
pub mod path;
pub mod probe;
pub mod programs;
pub mod servers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a host of the path: 10.9.0.`host` or fd09::`host`.
#[must_use]
pub const fn address(host: u8, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, host as u16))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, host))
    }
}

/// The host of the clients.
pub const CLIENT: u8 = 1;

/// A host beside the clients that takes no part in any transfer.
pub const CLIENT_NEIGHBOR: u8 = 9;

/// A host beside the servers that takes no part in any transfer.
pub const SERVER_NEIGHBOR: u8 = 8;
