//! The few commands of `bpf(2)` that are needed, and the attachment that they make.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Step, XdpError};
use crate::program::{Selection, assemble};

// Commands and constants of linux/bpf.h and linux/if_link.h.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// The program accepts packets in several pieces (`BPF_F_XDP_HAS_FRAGS`).
const HAS_FRAGS: u32 = 1 << 5;
/// The program runs after the driver (`XDP_FLAGS_SKB_MODE`).
const SKB_MODE: u32 = 1 << 1;
/// The program runs in the driver (`XDP_FLAGS_DRV_MODE`).
const DRV_MODE: u32 = 1 << 2;

/// Name of program and map, as `bpftool` shows it: at most 15 characters.
const NAME: [u32; 4] = [
    u32::from_ne_bytes(*b"port"),
    u32::from_ne_bytes(*b"cull"),
    u32::from_ne_bytes(*b"is\0\0"),
    0,
];
const LICENSE: &CStr = c"Dual MIT/GPL";

/// Attributes of a command (`union bpf_attr`), as 32-bit words. The rest is zero.
#[repr(C, align(8))]
struct Attributes([u32; 32]);

impl Attributes {
    fn new<const N: usize>(words: [u32; N]) -> Self {
        let mut all = [0; 32];
        for (to, word) in all.iter_mut().zip(words) {
            *to = word;
        }
        Self(all)
    }
}

/// Returns the two words of an address.
fn words<T>(address: *const T) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = (address as u64).to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}

fn word(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// Calls `bpf(2)`.
///
/// # Safety
/// Each address in the attributes must be that of memory which the command may access for as long
/// as it runs.
unsafe fn call(command: i32, mut attributes: Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    let address = std::ptr::from_mut(&mut attributes);
    // SAFETY: the attributes are `size` initialized bytes, aligned for 8 bytes, which the command
    // reads, and some commands write; the caller vouches for the addresses in them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, address, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// Takes ownership of the descriptor that a command has returned.
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for the caller, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Map from receive queues to sockets.
#[derive(Debug)]
pub(crate) struct SocketMap(OwnedFd);

impl SocketMap {
    pub(crate) fn new(queues: u32) -> Result<Self, XdpError> {
        // Type, sizes of key and value, entries, flags, inner map, node; then the name.
        let [a, b, c, d] = NAME;
        let attributes = Attributes::new([MAP_TYPE_XSKMAP, 4, 4, queues, 0, 0, 0, a, b, c, d]);
        // SAFETY: the attributes of this command have no addresses.
        let made = unsafe { call(MAP_CREATE, attributes) };
        made.map(|map| Self(own(map)))
            .map_err(|error| XdpError::new(Step::Map, error))
    }

    /// Makes a socket the one of a queue.
    pub(crate) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        let value = word(socket);
        let [key_low, key_high] = words(&queue);
        let [value_low, value_high] = words(&value);
        let attributes =
            Attributes::new([word(&self.0), 0, key_low, key_high, value_low, value_high]);
        // SAFETY: key and value are of 4 bytes, as the map was created, and outlive the call, which
        // only reads them.
        let done = unsafe { call(MAP_UPDATE_ELEM, attributes) };
        done.map(drop)
            .map_err(|error| XdpError::new(Step::Map, error))
    }
}

/// Loads the program for a selection.
fn load(selection: &Selection, map: &SocketMap, flags: u32) -> io::Result<OwnedFd> {
    let code = assemble(selection, map.0.as_fd().as_raw_fd());
    let [code_low, code_high] = words(code.as_ptr());
    let [license_low, license_high] = words(LICENSE.as_ptr());
    let [a, b, c, d] = NAME;
    let attributes = Attributes::new([
        PROG_TYPE_XDP,
        code.len() as u32,
        code_low,
        code_high,
        license_low,
        license_high,
        // Level, size and buffer of the log, and the version of the kernel: none.
        0,
        0,
        0,
        0,
        0,
        flags,
        a,
        b,
        c,
        d,
        // No device.
        0,
        ATTACH_XDP,
    ]);
    // SAFETY: the code is `code.len()` instructions of 8 bytes and the license a C string. Both
    // outlive the call, which only reads them.
    unsafe { call(PROG_LOAD, attributes) }.map(own)
}

/// Way in which a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// After the driver, for drivers without support.
    Generic,
}

impl Mode {
    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Attached program. It is detached when this value is dropped, or the process ends.
#[derive(Debug)]
pub struct Attachment {
    _link: OwnedFd,
    mode: Mode,
    refusal: Option<XdpError>,
    has_frags: bool,
}

impl Attachment {
    /// Loads the program and attaches it: native if the driver supports it, else generic.
    pub(crate) fn new(
        interface: u32,
        selection: &Selection,
        map: &SocketMap,
    ) -> Result<Self, XdpError> {
        let at_load = |error| XdpError::new(Step::Load, error);
        // Kernels before 5.18 do not know of frags.
        let (program, has_frags) = match load(selection, map, HAS_FRAGS) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (load(selection, map, 0).map_err(at_load)?, false)
            }
            loaded => (loaded.map_err(at_load)?, true),
        };
        let attach = |flags| {
            let attributes = Attributes::new([word(&program), interface, ATTACH_XDP, flags]);
            // SAFETY: the attributes of this command have no addresses.
            unsafe { call(LINK_CREATE, attributes) }
                .map(own)
                .map_err(|error| XdpError::new(Step::Attach, error))
        };
        let (link, mode, refusal) = match attach(DRV_MODE) {
            Ok(link) => (link, Mode::Native, None),
            // A program that is attached already, native or generic, excludes both modes.
            Err(error) if matches!(error.code(), Some(libc::EBUSY | libc::EEXIST)) => {
                return Err(error);
            }
            Err(native) => match attach(SKB_MODE) {
                Ok(link) => (link, Mode::Generic, Some(native)),
                // Without a native mode, the reason against the generic one is what can be mended.
                Err(generic) if native.code() == Some(libc::EOPNOTSUPP) => return Err(generic),
                Err(_) => return Err(native),
            },
        };
        Ok(Self {
            _link: link,
            mode,
            refusal,
            has_frags,
        })
    }

    /// Returns the way in which the program runs.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the reason why the mode is not native; `None` if it is.
    #[must_use]
    pub const fn refusal(&self) -> Option<&XdpError> {
        self.refusal.as_ref()
    }

    /// Returns whether packets in several pieces reach the program.
    #[must_use]
    pub const fn has_frags(&self) -> bool {
        self.has_frags
    }
}
