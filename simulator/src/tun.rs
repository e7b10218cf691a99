//! Pairs of TUN devices. Packets that enter one device leave through the other.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::flow::Side;
use super::sender::Sender;

/// Longest wait for a packet, in milliseconds, after which the end of the run is checked.
const PATIENCE: u16 = 20;
/// Maximum number of packets of one device before the other device is read.
const TURN: usize = 32;
/// The longest packet of a device.
const MAX_PACKET: usize = 65_535;

/// Pair of devices.
pub(super) struct TunPair {
    client: SyncDevice,
    server: SyncDevice,
}

impl TunPair {
    /// Attaches to the devices with these names, creates missing ones, and sets them up. Created
    /// devices are removed with the pair; they may be moved to other network namespaces meanwhile.
    ///
    /// # Errors
    /// Returns the system's error, with the name of the device; without `CAP_NET_ADMIN`, that the
    /// operation is not permitted.
    pub(super) fn open(client: &str, server: &str, mtu: u16) -> Result<Self, (String, io::Error)> {
        let open = |name: &str| {
            let device = DeviceBuilder::new().name(name).mtu(mtu).build_sync();
            device
                .and_then(|device| device.set_nonblocking(true).map(|()| device))
                .map_err(|error| (name.to_owned(), error))
        };
        Ok(Self {
            client: open(client)?,
            server: open(server)?,
        })
    }

    const fn device(&self, side: Side) -> &SyncDevice {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Passes a packet to the kernel at this side. Returns false if the kernel does not accept it,
    /// for example because the device is down.
    pub(super) fn write(&self, side: Side, packet: &[u8]) -> bool {
        self.device(side)
            .send(packet)
            .is_ok_and(|written| written == packet.len())
    }

    /// Sends the packets that enter both devices until the run is over.
    ///
    /// # Errors
    /// Returns the system's error.
    pub(super) fn run(&self, sender: &mut Sender<'_>, pair: usize) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        while !sender.is_over() {
            let mut ready = [
                PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.server.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::from(PATIENCE)) {
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            for side in [Side::Client, Side::Server] {
                for _ in 0..TURN {
                    match self.device(side).recv(&mut buffer) {
                        Ok(len) => {
                            let packet = buffer.get(..len).unwrap_or_default();
                            if !sender.send(pair, side, packet) {
                                return Ok(());
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // A device that is down, for example just after a move, has nothing to
                        // read.
                        Err(error)
                            if matches!(
                                error.raw_os_error(),
                                Some(nix::libc::EIO | nix::libc::EINTR)
                            ) =>
                        {
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}
