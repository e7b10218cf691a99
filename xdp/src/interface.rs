//! Network interface: its queues, and the sockets of all of them with the program that feeds them.

use std::fs;
use std::io;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::bpf::{Attachment, SocketMap};
use crate::error::{Step, XdpError};
use crate::program::Selection;
use crate::queue::{Queue, SINGLE};

/// Largest number of queues of an interface that are used. Packets of others pass to the kernel.
pub const MAX_QUEUES: u32 = 64;

/// Type of Ethernet interfaces in `/sys/class/net` (`ARPHRD_ETHER`).
const ETHERNET: &str = "1";

/// Network interface of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Number of queues in use: those that both receive and send, at most [`MAX_QUEUES`].
    pub queues: u32,
    /// Number of receive queues. Packets of those that are not in use pass to the kernel.
    pub receive_queues: u32,
    /// Largest packet, without the Ethernet header.
    pub mtu: u32,
    /// Ethernet address.
    pub mac: [u8; 6],
}

impl Interface {
    /// Finds an interface.
    ///
    /// # Errors
    /// There is no such interface, it is not an Ethernet interface, or the system does not describe
    /// it in `/sys/class/net`.
    pub fn find(name: &str) -> Result<Self, XdpError> {
        let error = |error: io::Error| XdpError::new(Step::Interface, error);
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None);
        let index = any.and_then(|any| name_to_index(any, name));
        let index = index.map_err(|errno| error(errno.into()))?;
        let directory = format!("/sys/class/net/{name}");
        let read = |file: &str| fs::read_to_string(format!("{directory}/{file}")).map_err(error);
        let described = read("ifindex")?;
        if described.trim() != index.to_string() {
            let why = "/sys/class/net is of another network namespace";
            return Err(error(io::Error::other(why)));
        }
        if read("type")?.trim() != ETHERNET {
            return Err(error(io::Error::other("not an Ethernet interface")));
        }
        let queues = fs::read_dir(format!("{directory}/queues")).map_err(error)?;
        let (mut receive, mut send) = (0, 0);
        for entry in queues.filter_map(Result::ok) {
            let name = entry.file_name();
            receive += u32::from(name.as_encoded_bytes().starts_with(b"rx-"));
            send += u32::from(name.as_encoded_bytes().starts_with(b"tx-"));
        }
        let invalid = || error(io::ErrorKind::InvalidData.into());
        let mtu = read("mtu")?.trim().parse().map_err(|_| invalid())?;
        let mac = parse_mac(read("address")?.trim()).ok_or_else(invalid)?;
        Ok(Self {
            name: name.to_owned(),
            index,
            // A socket in copy mode sends through the queue of its number alone.
            queues: receive.min(send).clamp(1, MAX_QUEUES),
            receive_queues: receive.max(1),
            mtu,
            mac,
        })
    }

    /// Opens a socket for each queue. They receive nothing until the program is attached.
    ///
    /// # Errors
    /// Returns the step that failed; nothing stays open.
    pub fn open(&self) -> Result<Sockets, XdpError> {
        let map = SocketMap::new(self.queues)?;
        let queues = (0..self.queues)
            .map(|queue| {
                let socket = self.open_queue(queue)?;
                map.insert(queue, std::os::fd::AsFd::as_fd(&socket))?;
                Ok(socket)
            })
            .collect::<Result<Vec<_>, XdpError>>()?;
        Ok(Sockets {
            interface: self.index,
            map,
            queues,
        })
    }

    /// Opens a socket that receives packets of every size, or of the interface's MTU on a kernel
    /// without multi-buffer.
    fn open_queue(&self, queue: u32) -> Result<Queue, XdpError> {
        match Queue::open(self.index, queue, true) {
            Err(error)
                if error.step() == Step::Bind
                    && error.code() == Some(libc::EINVAL)
                    && self.mtu + 14 <= SINGLE =>
            {
                Queue::open(self.index, queue, false)
            }
            opened => opened,
        }
    }
}

/// Sockets of all queues of an interface, before the program.
#[derive(Debug)]
pub struct Sockets {
    interface: u32,
    map: SocketMap,
    queues: Vec<Queue>,
}

impl Sockets {
    /// Attaches the program for a selection. Until then, the kernel has every packet.
    ///
    /// # Errors
    /// Returns the step that failed; nothing stays open or attached.
    pub fn attach(self, selection: &Selection) -> Result<(Vec<Queue>, Attachment), XdpError> {
        let attachment = Attachment::new(self.interface, selection, &self.map)?;
        Ok((self.queues, attachment))
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_has_six_bytes() {
        assert_eq!(parse_mac("02:00:00:00:0a:ff"), Some([2, 0, 0, 0, 10, 255]));
        assert_eq!(parse_mac("02:00:00:00:0a"), None);
        assert_eq!(parse_mac("02:00:00:00:0a:ff:00"), None);
        assert_eq!(parse_mac(""), None);
    }

    #[test]
    fn an_unknown_interface_is_named_as_such() {
        let error = Interface::find("pc-none").unwrap_err();
        assert_eq!(error.step(), Step::Interface);
        assert!(error.to_string().contains("no such interface"), "{error}");
    }

    #[test]
    fn an_interface_without_ethernet_is_refused_with_the_reason() {
        let error = Interface::find("lo").unwrap_err();
        assert_eq!(error.step(), Step::Interface);
        assert!(
            error.to_string().contains("not an Ethernet interface"),
            "{error}"
        );
    }
}
