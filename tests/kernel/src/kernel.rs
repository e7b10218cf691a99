//! A Linux kernel as an oracle: the conntrack state of each packet that it forwards.

use std::fmt;
use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Result;

use crate::conntrack::{Table, Tracked};
use crate::conversation::Side;
use crate::namespace::{Namespace, Tun, sysctl, wait};

/// Class of a packet in conntrack: state and direction, in the terms of `conntrack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// INVALID: the packet fits no connection.
    Invalid,
    /// NEW, always original.
    New,
    /// ESTABLISHED, original direction.
    EstablishedOriginal,
    /// ESTABLISHED, reply direction.
    EstablishedReply,
    /// RELATED, either direction.
    Related,
    /// Not tracked.
    Untracked,
    /// The kernel did not forward the packet.
    Lost,
}

/// DSCP of each class, and the nftables expression that selects the class.
const MARKS: [(u8, Class, &str); 6] = [
    (1, Class::Invalid, "ct state invalid"),
    (2, Class::New, "ct state new ct direction original"),
    (
        3,
        Class::EstablishedOriginal,
        "ct state established ct direction original",
    ),
    (
        4,
        Class::EstablishedReply,
        "ct state established ct direction reply",
    ),
    (5, Class::Related, "ct state related"),
    (6, Class::Untracked, "ct state untracked"),
];

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "INVALID",
            Self::New => "NEW",
            Self::EstablishedOriginal => "EST>",
            Self::EstablishedReply => "EST<",
            Self::Related => "RELATED",
            Self::Untracked => "UNTRACKED",
            Self::Lost => "lost",
        })
    }
}

/// A namespace that forwards between two TUN devices and marks each packet with conntrack's class.
/// It is the calling thread's namespace from [`Kernel::start`] on, and drops no packets.
pub struct Kernel {
    left: Tun,
    right: Tun,
    buffer: Vec<u8>,
    table: Table,
    // Last, so that the devices are closed before the namespace goes.
    _namespace: Namespace,
}

impl Kernel {
    /// Creates the namespace and moves the calling thread into it.
    ///
    /// # Errors
    /// Returns an error without root, TUN, nftables or netlink for conntrack.
    pub fn start(name: &str) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        namespace.enter()?;
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/forwarding", "1"),
        ] {
            sysctl(key, value)?;
        }
        let left = Tun::create(&namespace, "left", 65_535)?;
        let right = Tun::create(&namespace, "right", 65_535)?;
        for (net, device) in [(1, "left"), (2, "right")] {
            namespace.ip(&format!("route add 10.{net}.0.0/16 dev {device}"))?;
            namespace.ip(&format!("-6 route add fd00:{net}::/32 dev {device}"))?;
        }
        let mut rules = String::new();
        for (mark, _, expression) in MARKS {
            for family in ["ip", "ip6"] {
                writeln!(rules, "{expression} {family} dscp set {mark} accept")?;
            }
        }
        namespace.nft(&format!(
            "table inet portcullis \
             {{\nchain forward {{\n\
             type filter hook forward priority filter; policy accept;\n{rules}}}\n}}\n"
        ))?;
        // The strictest settings of Linux, and no lifetime that could expire during the run.
        let mut settings = vec![
            ("tcp_loose".to_owned(), "0"),
            ("tcp_be_liberal".to_owned(), "0"),
            ("tcp_ignore_invalid_rst".to_owned(), "0"),
            ("checksum".to_owned(), "0"),
        ];
        for state in [
            "syn_sent",
            "syn_recv",
            "established",
            "fin_wait",
            "close_wait",
            "last_ack",
            "time_wait",
            "close",
            "max_retrans",
            "unacknowledged",
        ] {
            settings.push((format!("tcp_timeout_{state}"), "86400"));
        }
        for (key, value) in settings {
            sysctl(&format!("netfilter/nf_conntrack_{key}"), value)?;
        }
        Ok(Self {
            left,
            right,
            buffer: vec![0; 70_000],
            table: Table::open()?,
            _namespace: namespace,
        })
    }

    /// Sends a packet through the kernel and returns its class.
    ///
    /// # Errors
    /// Returns an error if the devices fail, or the packet that comes out differs from the one sent
    /// in.
    pub fn classify(&mut self, sender: Side, packet: &[u8]) -> Result<Class> {
        let (from, to) = match sender {
            Side::Left => (&self.left, &self.right),
            Side::Right => (&self.right, &self.left),
        };
        from.send(packet)?;
        for attempt in 0..40 {
            let Some(out) = to.receive(&mut self.buffer)? else {
                if attempt > 20 {
                    break;
                }
                wait([to, to], 20_000)?;
                continue;
            };
            if let Some((class, payload)) = unmark(out) {
                let sent = unmark(packet).map(|(_, payload)| payload);
                // The kernel itself reports the groups that it joins as a router: not TCP.
                if sent == Some(payload) {
                    return Ok(class);
                }
            }
        }
        Ok(Class::Lost)
    }

    /// Returns the TCP connection that the kernel tracks between two ends.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    pub fn connection(&mut self, left: SocketAddr, right: SocketAddr) -> Result<Option<Tracked>> {
        self.table.find(left, right)
    }
}

/// The class with which a forwarded packet was marked, and its bytes after the IP header. No packet
/// carries a mark when it is sent.
fn unmark(packet: &[u8]) -> Option<(Class, &[u8])> {
    let (first, second) = (*packet.first()?, *packet.get(1)?);
    let (dscp, header) = match first >> 4 {
        4 => (second >> 2, usize::from(first & 0x0f) * 4),
        6 => ((first & 0x0f) << 2 | second >> 6, 40),
        _ => return None,
    };
    let class = MARKS
        .into_iter()
        .find(|(mark, ..)| *mark == dscp)
        .map_or(Class::Lost, |(_, class, _)| class);
    Some((class, packet.get(header..)?))
}
