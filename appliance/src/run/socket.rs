//! Sizes and errors that the sockets of a worker share.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use portcullis::geneve::PORT;

/// Maximum number of datagrams of one call.
pub(super) const BATCH: usize = 64;
/// Number of datagrams for which a call prepares while few arrive.
pub(super) const FEW: usize = 8;
/// Maximum time that a worker waits for a datagram before its next turn.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);

/// Reason for which a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The socket at port 6081 cannot be opened.
    #[error("cannot receive at {address}:{PORT}: {source}")]
    Receive {
        /// Address of the port.
        address: Ipv4Addr,
        /// Error of the system.
        source: io::Error,
    },
    /// The system does not permit a raw socket for sending.
    #[error(
        "the capability CAP_NET_RAW is missing: replies leave from the UDP source port with which \
         the load balancer has sent, \
         and only a raw socket can do that. Give it with `setcap cap_net_raw+ep` on the program, \
         with \
         AmbientCapabilities=CAP_NET_RAW in a systemd unit, or start as root"
    )]
    NotPermitted,
    /// The sending socket cannot be opened for another reason.
    #[error("cannot send: {0}")]
    Send(io::Error),
}
