//! Errors.

use std::io;

/// Step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Finding the interface.
    Interface,
    /// Opening the AF_XDP socket.
    Socket,
    /// Registering the memory of frames.
    Memory,
    /// Creating and mapping the rings.
    Rings,
    /// Binding the socket to a queue of the interface.
    Bind,
    /// Creating the map of sockets.
    Map,
    /// Loading the program.
    Load,
    /// Attaching the program to the interface.
    Attach,
}

impl Step {
    const fn text(self) -> &'static str {
        match self {
            Self::Interface => "find the interface",
            Self::Socket => "open an AF_XDP socket",
            Self::Memory => "register memory of frames",
            Self::Rings => "create the rings",
            Self::Bind => "bind to a queue of the interface",
            Self::Map => "create the map of sockets",
            Self::Load => "load the program",
            Self::Attach => "attach the program to the interface",
        }
    }

    /// Returns the most probable reason for an error of the system.
    fn hint(self, error: i32) -> Option<&'static str> {
        Some(match (self, error) {
            (Self::Interface, libc::ENODEV) => "there is no such interface",
            (Self::Socket, libc::EPERM) => "the capability CAP_NET_RAW is missing",
            (Self::Socket, libc::EAFNOSUPPORT) => {
                "the kernel has no AF_XDP, or a filter forbids it"
            }
            (Self::Memory, libc::ENOBUFS) => {
                "the limit of locked memory is too low: raise it (LimitMEMLOCK=infinity), or grant \
                 CAP_IPC_LOCK"
            }
            (Self::Bind, libc::EBUSY) => "another socket is bound to the queue",
            (Self::Bind, libc::EINVAL) => {
                "the kernel is older than 6.6, and frames of this MTU need it, or the queue \
                 does not exist"
            }
            (Self::Bind, libc::ENETDOWN) => "the interface is down",
            (Self::Map | Self::Load | Self::Attach, libc::EPERM) => {
                "the capabilities CAP_BPF and CAP_NET_ADMIN are missing, or the kernel is locked \
                 down"
            }
            (Self::Load, libc::EINVAL) => "the kernel is too old",
            (Self::Attach, libc::EBUSY | libc::EEXIST) => {
                "another program is attached; `bpftool net` and `ip link` show it"
            }
            (Self::Attach, libc::ERANGE) => "the MTU is too large for the driver",
            (Self::Attach, libc::EOPNOTSUPP) => "the driver does not support programs",
            _ => return None,
        })
    }
}

/// Reason why AF_XDP cannot be used.
#[derive(Debug)]
pub struct XdpError {
    step: Step,
    source: io::Error,
}

impl XdpError {
    /// Returns the error of a step.
    #[must_use]
    pub fn new(step: Step, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self { step, source }
    }

    /// Returns the step that failed.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Returns the code of the system's error, if it has one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl std::fmt::Display for XdpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: ", self.step.text())?;
        match self.code().and_then(|code| self.step.hint(code)) {
            Some(hint) => write!(f, "{hint} ({})", self.source),
            None => self.source.fmt(f),
        }
    }
}

impl std::error::Error for XdpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
