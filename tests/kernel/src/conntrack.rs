//! Queries the running kernel for one tracked connection, over netlink
//! (`linux/netfilter/nfnetlink_conntrack.h`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Names of `enum tcp_conntrack`, in its order.
const STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

/// Length of `nlmsghdr` and of the `nfgenmsg` after it, in bytes.
const HEADERS: usize = 16 + 4;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET: u16 = 1 << 8 | 1;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLA_F_NESTED`, which the kernel requires in requests; the flag is not part of the type.
const NESTED: u16 = 0x8000;
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;
const ENOENT: i32 = 2;

/// Properties of a tracked connection that are compared beside the verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Name of the TCP state.
    pub state: String,
    /// A packet of the responder has passed.
    pub replied: bool,
    /// The handshake was completed.
    pub assured: bool,
    /// The initiator is the second end of the query.
    pub turned: bool,
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        if self.assured {
            f.write_str("+assured")?;
        }
        if !self.replied {
            f.write_str("+unreplied")?;
        }
        if self.turned {
            f.write_str(", from the right")?;
        }
        Ok(())
    }
}

/// The kernel's connection table in the network namespace of the thread that opened this value.
#[derive(Debug)]
pub struct Table {
    socket: OwnedFd,
    buffer: Vec<u8>,
    asked: u32,
}

impl Table {
    /// Opens the table of the calling thread's namespace.
    ///
    /// # Errors
    /// Returns an error without root, or if the kernel lacks `NF_CT_NETLINK`.
    pub fn open() -> Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )
        .context("netlink socket for conntrack")?;
        Ok(Self {
            socket,
            buffer: vec![0; 8192],
            asked: 0,
        })
    }

    /// Returns the TCP connection between two ends, regardless of which end opened it.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer, or answers something else.
    pub fn find(&mut self, left: SocketAddr, right: SocketAddr) -> Result<Option<Tracked>> {
        self.asked = self.asked.wrapping_add(1);
        let request = request(left, right, self.asked);
        send(&self.socket, &request, SendFlags::empty()).context("ask conntrack")?;
        let (len, _) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())
            .context("conntrack's answer")?;
        let answer = self.buffer.get(..len).unwrap_or_default();
        let head = number(answer, 4).zip(number(answer, 8));
        let Some((kind_and_flags, sequence)) = head else {
            bail!("{len} bytes of an answer of conntrack");
        };
        if sequence != self.asked {
            bail!("answer {sequence} of conntrack to question {}", self.asked);
        }
        if kind_and_flags as u16 == ERROR {
            let error = number(answer, 16).map_or(0, |code| (code as i32).wrapping_neg());
            return match error {
                ENOENT => Ok(None),
                code => bail!("conntrack: {}", std::io::Error::from_raw_os_error(code)),
            };
        }
        let body = answer.get(HEADERS..).unwrap_or_default();
        tracked(body, left)
            .map(Some)
            .context("an answer of conntrack without a state")
    }
}

/// Returns the four bytes at an offset, in the byte order of the host.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn request(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    // CTA_IP_V4_SRC 1, CTA_IP_V4_DST 2, CTA_IP_V6_SRC 3, CTA_IP_V6_DST 4
    let (family, first) = if from.is_ipv4() { (2, 1) } else { (10, 3) };
    let mut addresses = Vec::new();
    for (kind, end) in [(first, from), (first + 1, to)] {
        match end.ip() {
            IpAddr::V4(ip) => attribute(&mut addresses, kind, &ip.octets()),
            IpAddr::V6(ip) => attribute(&mut addresses, kind, &ip.octets()),
        }
    }
    let mut ports = Vec::new();
    // CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
    attribute(&mut ports, 1, &[6]);
    attribute(&mut ports, 2, &from.port().to_be_bytes());
    attribute(&mut ports, 3, &to.port().to_be_bytes());
    let mut tuple = Vec::new();
    // CTA_TUPLE_IP, CTA_TUPLE_PROTO
    attribute(&mut tuple, NESTED | 1, &addresses);
    attribute(&mut tuple, NESTED | 2, &ports);
    let mut body = Vec::new();
    // CTA_TUPLE_ORIG
    attribute(&mut body, NESTED | 1, &tuple);
    let mut message = Vec::with_capacity(HEADERS + body.len());
    message.extend(((HEADERS + body.len()) as u32).to_ne_bytes());
    message.extend(GET.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family, 0, 0, 0]);
    message.extend(body);
    message
}

/// Appends an attribute: length, type, value, and nothing to the next multiple of four.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(((value.len() + 4) as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Returns the value of the attribute of a kind.
fn value(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let head = number(attributes, 0)?.to_ne_bytes();
        let [a, b, c, d] = head;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) & !NESTED == kind {
            return attributes.get(4..len);
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn tracked(attributes: &[u8], left: SocketAddr) -> Option<Tracked> {
    // CTA_TUPLE_ORIG, CTA_TUPLE_IP, source; CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT
    let tuple = value(attributes, 1)?;
    let addresses = value(tuple, 1)?;
    let source = match left.ip() {
        IpAddr::V4(ip) => value(addresses, 1)? == ip.octets(),
        IpAddr::V6(ip) => value(addresses, 3)? == ip.octets(),
    };
    let port = value(value(tuple, 2)?, 2)? == left.port().to_be_bytes();
    // CTA_STATUS
    let status = u32::from_be_bytes(*value(attributes, 3)?.first_chunk()?);
    // CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE
    let tcp = value(value(attributes, 4)?, 1)?;
    let state = usize::from(*value(tcp, 1)?.first()?);
    Some(Tracked {
        state: (*STATES.get(state)?).to_owned(),
        replied: status & IPS_SEEN_REPLY != 0,
        assured: status & IPS_ASSURED != 0,
        turned: !(source && port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whichever_end_began() {
        let (left, right) = ("10.1.0.5:10001", "10.2.0.5:1024");
        let (left, right) = (left.parse().unwrap(), right.parse().unwrap());
        // An answer begins with the same tuple as a question.
        let mut body = request(left, right, 1).split_off(HEADERS);
        attribute(&mut body, 3, &(IPS_SEEN_REPLY | IPS_ASSURED).to_be_bytes());
        let (mut state, mut tcp) = (Vec::new(), Vec::new());
        attribute(&mut state, 1, &[3]);
        attribute(&mut tcp, NESTED | 1, &state);
        attribute(&mut body, NESTED | 4, &tcp);
        let read = |from| tracked(&body, from).unwrap().to_string();
        assert_eq!(read(left), "ESTABLISHED+assured");
        assert_eq!(read(right), "ESTABLISHED+assured, from the right");
    }
}
