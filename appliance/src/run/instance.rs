//! Exclusive claim of an appliance on the tunnel port of an address.
//!
//! Workers share that port (`SO_REUSEPORT`), so the system would also share it with the workers of
//! a second appliance of the same user, which would then get a part of the first one's flows.
//! Before any port is bound, each address is therefore claimed by an abstract Unix socket of its
//! name: exclusive within the network namespace, without a file, and released with the process. A
//! program that uses the port without a claim, or uses it for all addresses, is found by briefly
//! binding the port exclusively.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use portcullis::geneve::PORT;

/// Error of an address that is taken.
#[derive(Debug, thiserror::Error)]
#[error("{address}:{PORT} is taken: another appliance runs there, or another program: {source}")]
pub(crate) struct Taken {
    /// Address of the port.
    address: Ipv4Addr,
    /// Error of the system.
    source: io::Error,
}

/// The claims of a running appliance.
#[derive(Debug)]
pub(crate) struct Instance {
    _claims: Vec<UnixListener>,
}

impl Instance {
    /// Claims addresses for as long as the value lives.
    ///
    /// # Errors
    /// An address is taken.
    pub(crate) fn claim(addresses: &[Ipv4Addr]) -> Result<Self, Taken> {
        let claims = addresses
            .iter()
            .map(|address| {
                claim(*address).map_err(|source| Taken {
                    address: *address,
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { _claims: claims })
    }
}

fn claim(address: Ipv4Addr) -> io::Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("portcullis/{address}:{PORT}"))?;
    let claim = UnixListener::bind_addr(&name)?;
    match UdpSocket::bind((address, PORT)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // Other errors of the address are reported by the workers when they bind it.
        _ => Ok(claim),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    #[test]
    fn an_address_has_one_appliance_until_it_ends() {
        let addresses = [Ipv4Addr::new(127, 98, 0, 1), Ipv4Addr::new(127, 98, 0, 2)];
        let first = Instance::claim(&addresses).unwrap();
        let error = Instance::claim(&addresses[1..]).unwrap_err().to_string();
        assert!(error.starts_with("127.98.0.2:6081 is taken: "), "{error}");
        drop(first);
        assert!(Instance::claim(&addresses).is_ok());
    }

    #[test]
    fn a_shared_port_without_a_claim_is_noticed() {
        let address = Ipv4Addr::new(127, 98, 0, 3);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
            .bind(&SockAddr::from(std::net::SocketAddrV4::new(address, PORT)))
            .unwrap();
        assert!(Instance::claim(&[address]).is_err());
        drop(socket);
        assert!(Instance::claim(&[address]).is_ok());
    }
}
