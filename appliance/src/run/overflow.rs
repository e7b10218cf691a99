//! The kernel's counts of the datagrams that found a socket's receive queue full. Its count
//! includes datagrams whose UDP checksum is wrong, which it finds when they are received.
//!
//! The kernel also sends its count with the next datagram that it queues (`SO_RXQ_OVFL`), but no
//! datagram may follow a flood, and the count would take control space from the datagram's
//! addresses. `/proc/self/net/udp` has it at any time.

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;

use nix::sys::stat::fstat;
use parking_lot::Mutex;

/// The UDP sockets of this network namespace.
const TABLE: &str = "/proc/self/net/udp";
/// The column with the socket's inode number.
const INODE: usize = 9;
/// The column with its count of dropped datagrams.
const DROPS: usize = 12;

/// The kernel's counts at one time, by the socket's inode number.
#[derive(Debug, Default)]
pub(crate) struct KernelDrops(HashMap<u64, u32>);

impl KernelDrops {
    /// Reads the counts of all UDP sockets over IPv4.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub(crate) fn read() -> io::Result<Self> {
        std::fs::read_to_string(TABLE).map(|table| Self::parse(&table))
    }

    fn parse(table: &str) -> Self {
        let row = |line: &str| {
            let mut columns = line.split_ascii_whitespace();
            let inode = columns.nth(INODE)?.parse().ok()?;
            let drops = columns.nth(DROPS - INODE - 1)?.parse().ok()?;
            Some((inode, drops))
        };
        Self(table.lines().filter_map(row).collect())
    }
}

/// Receive queue of a socket.
#[derive(Debug)]
struct Queue {
    inode: u64,
    /// The kernel's count at the last reading. It wraps at 2^32.
    read: u32,
    dropped: u64,
}

/// The count of datagrams that found the receive queues of one worker full.
#[derive(Debug, Default)]
pub(crate) struct QueueDrops(Mutex<Vec<Queue>>);

impl QueueDrops {
    /// Adds the queue of a new socket.
    ///
    /// # Errors
    /// Returns an error if the system does not identify the socket.
    pub(crate) fn watch(&self, socket: &UdpSocket) -> io::Result<()> {
        self.0.lock().push(Queue {
            inode: fstat(socket)?.st_ino,
            read: 0,
            dropped: 0,
        });
        Ok(())
    }

    /// Adds the kernel's counts since the last call. Sockets that are closed keep their last count.
    pub(crate) fn update(&self, kernel: &KernelDrops) {
        for queue in self.0.lock().iter_mut() {
            if let Some(now) = kernel.0.get(&queue.inode) {
                queue.dropped += u64::from(now.wrapping_sub(queue.read));
                queue.read = *now;
            }
        }
    }

    /// Returns the count as of the last update.
    pub(crate) fn value(&self) -> u64 {
        self.0.lock().iter().map(|queue| queue.dropped).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a table in the form of Linux 6, with one socket that has dropped `drops` datagrams.
    fn table(drops: u32) -> KernelDrops {
        KernelDrops::parse(&format!(
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
             timeout inode ref \
             pointer drops             \n\
             \x20 101: 00000000:17C1 00000000:0000 07 00000000:00033E80 00:00000000 00000000     \
             0        0 4711 2 \
             0000000000000000 {drops}    \n\
             \x20 102: 0100007F:17C1 00000000:0000 07 00000000:00000000 00:00000000 00000000     \
             0        0 4712 2 \
             0000000000000000 99         \n"
        ))
    }

    #[test]
    fn the_count_goes_on_where_the_kernels_wraps_and_stays_when_the_socket_is_closed() {
        let drops = QueueDrops(Mutex::new(vec![Queue {
            inode: 4711,
            read: 0,
            dropped: 0,
        }]));
        for (kernel, wanted) in [
            (5, 5),
            (5, 5),
            (u32::MAX, u64::from(u32::MAX)),
            (4, u64::from(u32::MAX) + 5),
        ] {
            drops.update(&table(kernel));
            assert_eq!(drops.value(), wanted);
        }
        drops.update(&KernelDrops::default());
        assert_eq!(drops.value(), u64::from(u32::MAX) + 5);
    }

    #[test]
    fn a_sockets_own_row_is_found() {
        let socket = UdpSocket::bind("127.97.1.1:0").unwrap();
        let inode = fstat(&socket).unwrap().st_ino;
        assert_eq!(KernelDrops::read().unwrap().0.get(&inode), Some(&0));
    }
}
