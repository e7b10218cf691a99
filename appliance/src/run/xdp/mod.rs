//! AF_XDP as the path of packets (`run.io`), beside the sockets.
//!
//! The sockets stay open and are read, too: the program leaves fragments and all packets of queues
//! without a ring to them, and they serve alone after the program is detached. Answers without a
//! received frame, such as RSTs after a timeout, leave through the outlet.

pub(crate) mod open;
pub(super) mod rings;
pub(super) mod start;
pub(super) mod state;
