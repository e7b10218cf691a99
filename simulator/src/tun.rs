//! Pairs of TUN devices, between which the box is transparent.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::flow::Side;
use super::sender::Sender;

/// How long to wait for a packet before looking whether the run is over, in milliseconds.
const PATIENCE: u16 = 20;
/// Packets of one device before it is the other's turn.
const TURN: usize = 32;
/// The longest packet of a device.
const MAX_PACKET: usize = 65_535;

/// Two devices.
pub(super) struct TunPair {
    client: SyncDevice,
    server: SyncDevice,
}

impl TunPair {
    /// Attaches to the devices of these names, makes those that do not exist, and sets them up. The devices that were
    /// made go when the pair does; one may be moved to another network namespace meanwhile.
    ///
    /// # Errors
    /// What the system says and of which device; without the capability `CAP_NET_ADMIN` that it is not permitted.
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

    /// Hands a packet to the kernel at this side. False if it does not take it; a device that is down does not.
    pub(super) fn write(&self, side: Side, packet: &[u8]) -> bool {
        self.device(side)
            .send(packet)
            .is_ok_and(|written| written == packet.len())
    }

    /// Sends what comes in at both devices until the run is over.
    ///
    /// # Errors
    /// What the system says.
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
                        // A device that is down, as in the moment after it was moved, has nothing to read.
                        Err(error)
                            if matches!(error.raw_os_error(), Some(nix::libc::EIO | nix::libc::EINTR)) =>
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
