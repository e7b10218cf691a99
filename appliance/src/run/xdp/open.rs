//! Choice of the interfaces, and the start of AF_XDP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc::ARPHRD_ETHER;
use nix::net::if_::InterfaceFlags;
use parking_lot::Mutex;
use portcullis::geneve::PORT;
use portcullis_xdp::{Attachment, Interface, Mode, Queue, Selection, XdpError};

use super::state::{Link, OpenQueue, Port, XdpState};
use crate::run::settings::{Io, RunSettings};

/// Reason why AF_XDP cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The system does not list the addresses.
    #[error("cannot list the addresses of network interfaces: {0}")]
    Addresses(nix::Error),
    /// No interface has an address at which the appliance listens.
    #[error(
        "no network interface that is up has an address of geneve.listen; run.interfaces names one \
         without"
    )]
    NoInterface,
    /// Several interfaces have an address of 0.0.0.0.
    #[error(
        "geneve.listen is 0.0.0.0, and several network interfaces have an address ({}); name those \
         of the load balancer in run.interfaces",
        .0.join(", ")
    )]
    Several(Vec<String>),
    /// The description of an interface in `/sys` has another Ethernet address.
    #[error("{0}: /sys/class/net describes an interface of another network namespace")]
    Elsewhere(String),
    /// An interface cannot be used.
    #[error("{name}: {source}")]
    Interface {
        /// Name of the interface.
        name: String,
        /// Step that failed.
        source: XdpError,
    },
}

impl OpenError {
    fn of(interface: &Interface, source: XdpError) -> Self {
        Self::Interface {
            name: interface.name.clone(),
            source,
        }
    }
}

/// Address of a network interface, as the system lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Ethernet address.
    Ethernet([u8; 6]),
    /// IPv4 address.
    Ip(Ipv4Addr),
}

/// Address of a network interface, with the interface's name and state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    name: String,
    is_up: bool,
    kind: Kind,
}

impl Listed {
    /// Returns the entry of a listed address; `None` for addresses of the loopback and of other
    /// kinds.
    fn of(entry: &InterfaceAddress) -> Option<Self> {
        let address = entry.address.as_ref()?;
        let kind = if let Some(ip) = address.as_sockaddr_in() {
            Kind::Ip(ip.ip())
        } else {
            let link = address.as_link_addr()?;
            (link.hatype() == ARPHRD_ETHER).then_some(())?;
            Kind::Ethernet(link.addr()?)
        };
        // A label of an address is that of its interface, a colon and more.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        (!entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)).then(|| Self {
            name: name.to_owned(),
            is_up: entry.flags.contains(InterfaceFlags::IFF_UP),
            kind,
        })
    }
}

/// Names of the interfaces to use, and the addresses that matter.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    names: BTreeSet<String>,
    /// Addresses whose packets are taken.
    addresses: BTreeSet<Ipv4Addr>,
    /// All local addresses.
    local: BTreeSet<Ipv4Addr>,
}

impl Names {
    /// Chooses the named interfaces, or those with a local address of `listen` if none is named.
    ///
    /// At 0.0.0.0 without names, only one interface can be meant: attaching to another, such as
    /// that of the management, would interrupt it for nothing.
    fn new(listed: &[Listed], listen: &[Ipv4Addr], names: &[String]) -> Result<Self, OpenError> {
        let is_wildcard = listen.iter().any(Ipv4Addr::is_unspecified);
        let is_usable = |name: &str| {
            let mut of_it = listed.iter().filter(|each| each.name == name && each.is_up);
            of_it.any(|each| matches!(each.kind, Kind::Ethernet(_)))
        };
        let [mut addresses, mut local] = [const { BTreeSet::new() }; 2];
        let mut holders = BTreeSet::new();
        for each in listed {
            let Kind::Ip(address) = each.kind else {
                continue;
            };
            local.insert(address);
            if is_wildcard || listen.contains(&address) {
                addresses.insert(address);
                if !is_wildcard || is_usable(&each.name) {
                    holders.insert(each.name.clone());
                }
            }
        }
        if !names.is_empty() {
            holders = names.iter().cloned().collect();
        } else if is_wildcard && holders.len() > 1 {
            return Err(OpenError::Several(holders.into_iter().collect()));
        }
        if holders.is_empty() {
            return Err(OpenError::NoInterface);
        }
        let further = listen.iter().filter(|each| !each.is_loopback());
        addresses.extend(further.filter(|each| !each.is_unspecified()));
        Ok(Self {
            names: holders,
            addresses,
            local,
        })
    }
}

/// Interfaces to use, and the local addresses whose packets they take.
pub(crate) struct Choice {
    /// Interfaces.
    pub(crate) interfaces: Vec<Interface>,
    addresses: Vec<Ipv4Addr>,
    local: Arc<[Ipv4Addr]>,
}

impl Choice {
    /// Finds the named interfaces, or those with a local address of `listen` if none is named.
    ///
    /// # Errors
    /// An interface does not exist, none has such an address, or several have one of 0.0.0.0.
    pub(crate) fn new(listen: &[Ipv4Addr], names: &[String]) -> Result<Self, OpenError> {
        let listed = getifaddrs().map_err(OpenError::Addresses)?;
        let listed: Vec<_> = listed.filter_map(|each| Listed::of(&each)).collect();
        let chosen = Names::new(&listed, listen, names)?;
        let interfaces = chosen
            .names
            .into_iter()
            .map(|name| find(name, &listed))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            interfaces,
            addresses: chosen.addresses.into_iter().collect(),
            local: chosen.local.into_iter().collect(),
        })
    }

    /// Opens the rings of all queues, and attaches the programs.
    ///
    /// # Errors
    /// An interface cannot be used; then none is.
    pub(crate) fn open(self) -> Result<Opened, OpenError> {
        let mut sockets = Vec::with_capacity(self.interfaces.len());
        for interface in &self.interfaces {
            let opened = interface.open();
            sockets.push(opened.map_err(|source| OpenError::of(interface, source))?);
        }
        // Attaching may interrupt an interface, and comes after all that is likely to fail.
        let (mut opened, mut attachments) = (Opened::default(), Vec::new());
        for (interface, sockets) in self.interfaces.iter().zip(sockets) {
            let selection = Selection {
                mac: interface.mac,
                addresses: self.addresses.clone(),
                port: PORT,
            };
            let attached = sockets.attach(&selection);
            let (queues, attachment) =
                attached.map_err(|source| OpenError::of(interface, source))?;
            let link = Arc::new(Link::new(&interface.name, Arc::clone(&self.local)));
            opened.lines.push(line(interface, &attachment));
            opened.add(&link, queues, attachment.mode());
            attachments.push(attachment);
        }
        opened.state.attachments = Mutex::new(attachments);
        Ok(opened)
    }
}

/// Finds an interface, and checks its description in `/sys` against the listed addresses.
fn find(name: String, listed: &[Listed]) -> Result<Interface, OpenError> {
    let interface = match Interface::find(&name) {
        Ok(interface) => interface,
        Err(source) => return Err(OpenError::Interface { name, source }),
    };
    let mut of_it = listed.iter().filter(|each| each.name == name);
    if of_it.any(|each| each.kind == Kind::Ethernet(interface.mac)) {
        Ok(interface)
    } else {
        Err(OpenError::Elsewhere(name))
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
            let (name, mtu) = (&interface.name, interface.mtu);
            format!("{name} ({}, MTU: {mtu})", queues_text(interface))
        });
        format!("AF_XDP at {}", each.collect::<Vec<_>>().join(", "))
    };
    (run.io != Io::Socket).then(|| Choice::new(listen, &run.interfaces).map(describe))
}

/// Returns a text about the queues in use.
fn queues_text(interface: &Interface) -> String {
    let Interface {
        queues,
        receive_queues,
        ..
    } = interface;
    if queues == receive_queues {
        format!("receive queues: {queues}")
    } else {
        format!("receive queues: {queues} of {receive_queues}")
    }
}

/// Opened rings of all interfaces.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// State for the rest of the appliance.
    pub(crate) state: XdpState,
    /// Rings of all queues.
    pub(crate) queues: Vec<OpenQueue>,
    /// Line about each interface.
    pub(crate) lines: Vec<String>,
}

impl Opened {
    fn add(&mut self, link: &Arc<Link>, queues: Vec<Queue>, mode: Mode) {
        self.state.ports.push(Port {
            link: Arc::clone(link),
            mode,
            queues: queues.iter().map(Queue::stats).collect(),
        });
        let queues = queues.into_iter().map(|queue| OpenQueue {
            link: Arc::clone(link),
            queue,
        });
        self.queues.extend(queues);
    }
}

/// Returns a line about an interface in use.
fn line(interface: &Interface, attachment: &Attachment) -> String {
    let why = attachment
        .refusal()
        .map_or_else(String::new, |why| format!(" (not native: {why})"));
    format!(
        "AF_XDP at {}: {}, mode: {}{why}",
        interface.name,
        queues_text(interface),
        attachment.mode().name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, kind: Kind) -> Listed {
        Listed {
            name: name.to_owned(),
            is_up: true,
            kind,
        }
    }

    fn ethernet(name: &str) -> Listed {
        listed(name, Kind::Ethernet([2, 0, 0, 0, 0, 1]))
    }

    fn ip(name: &str, host: u8) -> Listed {
        listed(name, Kind::Ip([10, 0, 0, host].into()))
    }

    fn choose(listed: &[Listed], listen: &[[u8; 4]]) -> Result<Names, OpenError> {
        let listen: Vec<_> = listen.iter().map(|each| Ipv4Addr::from(*each)).collect();
        Names::new(listed, &listen, &[])
    }

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
    fn every_address_is_of_its_interface_and_the_loopback_has_none() {
        let listed = [ethernet("a"), ip("a", 1), ip("a", 2)];
        let chosen = choose(&listed, &[[127, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 9]]).unwrap();
        assert_eq!(chosen.names, BTreeSet::from(["a".to_owned()]));
        let addresses = [[10, 0, 0, 2], [10, 0, 0, 9]].map(Ipv4Addr::from);
        assert_eq!(chosen.addresses, BTreeSet::from(addresses));
    }

    #[test]
    fn of_0_0_0_0_the_only_ethernet_interface_that_is_up_is_chosen() {
        let mut down = ethernet("down");
        down.is_up = false;
        let listed = [
            ethernet("a"),
            ip("a", 1),
            ip("tun", 2),
            down,
            ip("down", 3),
            ethernet("bare"),
        ];
        let chosen = choose(&listed, &[[0; 4]]).unwrap();
        assert_eq!(chosen.names, BTreeSet::from(["a".to_owned()]));
        assert_eq!(chosen.addresses.len(), 3);
    }

    #[test]
    fn of_0_0_0_0_several_interfaces_must_be_named() {
        let listed = [ethernet("a"), ip("a", 1), ethernet("b"), ip("b", 2)];
        let refusal = choose(&listed, &[[0; 4]]).unwrap_err().to_string();
        assert!(refusal.contains("(a, b)"), "{refusal}");
        let chosen = Names::new(&listed, &[[0; 4].into()], &["b".to_owned()]).unwrap();
        assert_eq!(chosen.names, BTreeSet::from(["b".to_owned()]));
        assert_eq!(chosen.addresses.len(), 2);
    }

    #[test]
    fn an_address_of_no_interface_or_of_the_loopback_chooses_none() {
        for listen in [[192, 0, 2, 1], [127, 0, 0, 1]] {
            let refusal = refusal(listen, &[]);
            assert!(
                refusal.contains("no network interface that is up has"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn sockets_are_not_announced() {
        let run = RunSettings::default();
        assert!(preview(&[[127, 0, 0, 1].into()], &run).is_none());
    }
}
