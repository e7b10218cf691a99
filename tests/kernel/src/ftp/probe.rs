//! Probes many ports concurrently with a SYN to each.
//!
//! The engine drops a SYN to a closed port silently. A RST means that the SYN passed: such a port
//! is not closed.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getpeername, socket_with,
    sockopt::socket_error,
};

/// Number of ports that are probed at the same time.
const AT_ONCE: usize = 200;

/// Maximum wait for an answer.
const PATIENCE: Duration = Duration::from_millis(120);

/// Answer of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// No answer.
    Silence,
    /// A SYN-ACK.
    Open,
    /// A RST, or any other error.
    Refused,
}

/// Tries to connect from an address of the calling thread's namespace.
///
/// # Errors
/// Returns an error if the address does not exist, or there are too many sockets.
pub fn probe(source: IpAddr, targets: &[SocketAddr]) -> Result<Vec<(SocketAddr, Answer)>> {
    let mut answers = Vec::with_capacity(targets.len());
    for some in targets.chunks(AT_ONCE) {
        let sockets = some
            .iter()
            .map(|target| begin(source, *target))
            .collect::<Result<Vec<_>>>()?;
        thread::sleep(PATIENCE);
        for (target, socket) in some.iter().zip(sockets) {
            answers.push((*target, answer(socket)?));
        }
    }
    Ok(answers)
}

/// Probes ports that should be open, repeatedly for up to 5 s, since a busy machine answers slowly.
///
/// # Errors
/// Returns an error if the address does not exist, or there are too many sockets.
pub fn probe_open(source: IpAddr, targets: &[SocketAddr]) -> Result<Vec<(SocketAddr, Answer)>> {
    let mut answers = probe(source, targets)?;
    for _ in 0..40 {
        if answers.iter().all(|(_, answer)| *answer == Answer::Open) {
            break;
        }
        answers = probe(source, targets)?;
    }
    Ok(answers)
}

fn begin(source: IpAddr, target: SocketAddr) -> Result<Result<OwnedFd, Errno>> {
    let family = if source.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddr::new(source, 0)).with_context(|| format!("bind to {source}"))?;
    Ok(match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    })
}

fn answer(socket: Result<OwnedFd, Errno>) -> Result<Answer> {
    let Ok(socket) = socket else {
        return Ok(Answer::Refused);
    };
    if socket_error(&socket)?.is_err() {
        return Ok(Answer::Refused);
    }
    Ok(match getpeername(&socket) {
        Ok(_) => Answer::Open,
        Err(_) => Answer::Silence,
    })
}
