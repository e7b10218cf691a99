//! Choice of the interfaces, and the start of AF_XDP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use parking_lot::Mutex;
use portcullis::geneve::PORT;
use portcullis_xdp::{Interface, Queue, Selection, XdpError};

use super::state::{OpenQueue, Port, XdpState};
use crate::run::settings::{Io, RunSettings};

/// Reason why AF_XDP cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The system does not list the addresses.
    #[error("cannot list the addresses of network interfaces: {0}")]
    Addresses(nix::Error),
    /// No interface has an address at which the appliance listens.
    #[error(
        "no network interface has an address of geneve.listen; run.interfaces names one without"
    )]
    NoInterface,
    /// An interface cannot be used.
    #[error("{name}: {source}")]
    Interface {
        /// Name of the interface.
        name: String,
        /// Step that failed.
        source: XdpError,
    },
}

/// Interfaces to use, and the local addresses whose packets they take.
pub(crate) struct Choice {
    /// Interfaces.
    pub(crate) interfaces: Vec<Interface>,
    addresses: Vec<Ipv4Addr>,
}

impl Choice {
    /// Finds the named interfaces, or those with a local address of `listen` if none is named.
    ///
    /// # Errors
    /// An interface does not exist, or none has such an address.
    pub(crate) fn new(listen: &[Ipv4Addr], names: &[String]) -> Result<Self, OpenError> {
        let is_wildcard = listen.iter().any(Ipv4Addr::is_unspecified);
        let (mut holders, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for each in getifaddrs().map_err(OpenError::Addresses)? {
            let address = each
                .address
                .and_then(|address| Some(address.as_sockaddr_in()?.ip()));
            let is_loopback = each.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            if let Some(address) = address
                && !is_loopback
                && (is_wildcard || listen.contains(&address))
            {
                holders.insert(each.interface_name);
                addresses.insert(address);
            }
        }
        if !is_wildcard {
            addresses.extend(listen);
        }
        if !names.is_empty() {
            holders = names.iter().cloned().collect();
        }
        let find = |name: String| match Interface::find(&name) {
            Ok(interface) => Ok(interface),
            Err(source) => Err(OpenError::Interface { name, source }),
        };
        let interfaces = holders
            .into_iter()
            .map(find)
            .collect::<Result<Vec<_>, _>>()?;
        if interfaces.is_empty() {
            return Err(OpenError::NoInterface);
        }
        Ok(Self {
            interfaces,
            addresses: addresses.into_iter().collect(),
        })
    }

    /// Opens the rings of all queues, and attaches the programs.
    ///
    /// # Errors
    /// An interface cannot be used; then none is.
    pub(crate) fn open(self) -> Result<Opened, OpenError> {
        let mut opened = Opened::default();
        let mut attachments = Vec::new();
        for interface in self.interfaces {
            let selection = Selection {
                mac: interface.mac,
                addresses: self.addresses.clone(),
                port: PORT,
            };
            let name: Arc<str> = interface.name.as_str().into();
            let (queues, attachment) =
                interface
                    .open(&selection)
                    .map_err(|source| OpenError::Interface {
                        name: interface.name,
                        source,
                    })?;
            opened.state.ports.push(Port {
                name: Arc::clone(&name),
                mode: attachment.mode(),
                queues: queues.iter().map(Queue::stats).collect(),
            });
            attachments.push(attachment);
            opened
                .queues
                .extend(queues.into_iter().map(|queue| OpenQueue {
                    interface: Arc::clone(&name),
                    queue,
                }));
        }
        opened.state.attachments = Mutex::new(attachments);
        Ok(opened)
    }
}

/// Returns a line about the use of AF_XDP on this machine, without starting it; `None` if `run.io`
/// does not ask for it.
///
/// # Errors
/// An interface cannot be used.
pub(crate) fn preview(listen: &[Ipv4Addr], run: &RunSettings) -> Option<Result<String, OpenError>> {
    let describe = |choice: Choice| {
        let each = choice.interfaces.iter().map(|interface| {
            let Interface {
                name, queues, mtu, ..
            } = interface;
            format!("{name} (receive queues: {queues}, MTU: {mtu})")
        });
        format!("AF_XDP at {}", each.collect::<Vec<_>>().join(", "))
    };
    (run.io != Io::Socket).then(|| Choice::new(listen, &run.interfaces).map(describe))
}

/// Opened rings of all interfaces.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// State for the rest of the appliance.
    pub(crate) state: XdpState,
    /// Rings of all queues.
    pub(crate) queues: Vec<OpenQueue>,
}

impl Opened {
    /// Returns a line about each interface.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |port: &Port| {
            format!(
                "AF_XDP at {}: receive queues: {}, mode: {}",
                port.name,
                port.queues.len(),
                port.mode.name()
            )
        };
        self.state.ports.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(listen: [u8; 4], names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let choice = Choice::new(&[listen.into()], &names);
        choice.err().unwrap().to_string()
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let refusal = refusal([192, 0, 2, 1], &["pc-none"]);
        assert!(refusal.starts_with("pc-none: "), "{refusal}");
        assert!(refusal.contains("there is no such interface"), "{refusal}");
    }

    #[test]
    fn an_address_of_no_interface_or_of_the_loopback_chooses_none() {
        for listen in [[192, 0, 2, 1], [127, 0, 0, 1]] {
            let refusal = refusal(listen, &[]);
            assert!(refusal.contains("no network interface has"), "{refusal}");
        }
    }

    #[test]
    fn sockets_are_not_announced() {
        let run = RunSettings::default();
        assert!(preview(&[[127, 0, 0, 1].into()], &run).is_none());
    }
}
