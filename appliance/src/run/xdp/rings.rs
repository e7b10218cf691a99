//! Rings of a worker: received frames, and the answers in their place.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portcullis::geneve::front::{Answer, Datagram, Queued, Tunnel, Waited};
use portcullis_xdp::{BATCH, Flushed, HEAD, Head, NotSent, Queue};

use super::state::{Link, OpenQueue};
use crate::output::notice;
use crate::run::inlet::QueueBounds;
use crate::run::outlet::Outlet;
use crate::run::socket::PATIENCE;
use crate::run::worker_stats::WorkerStats;

/// Share of a receive ring, in percent, from which its packets count as waiting for long.
const CROWDED: u32 = 50;
/// Turns with packets in the rings after which the sockets are read, too.
const SOCKETS_EVERY: u32 = 16;
/// Interval at which the kernel's counters are read.
const KERNEL_EVERY: Duration = Duration::from_secs(1);

/// Datagram in a received frame.
#[derive(Debug)]
struct Taken {
    /// Number of the packet in its batch.
    packet: usize,
    head: Head,
}

/// Answer to a datagram.
#[derive(Debug)]
enum Reply {
    /// The datagram goes back unchanged.
    Back,
    /// A payload of the appliance's own, at this offset.
    Made {
        start: usize,
        len: usize,
        tunnel: Tunnel,
    },
}

/// Answers to the datagrams of a batch.
#[derive(Debug, Default)]
pub(in crate::run) struct Replies {
    replies: Vec<(usize, Reply)>,
    made: Vec<u8>,
}

impl Replies {
    /// Keeps the answer to a datagram, by its number in the batch.
    #[inline]
    pub(in crate::run) fn put(&mut self, number: usize, answer: &Answer<'_>) {
        let reply = match answer {
            Answer::Return => Reply::Back,
            Answer::Send(outgoing) => {
                let start = self.made.len();
                self.made.extend_from_slice(outgoing.payload);
                Reply::Made {
                    start,
                    len: outgoing.payload.len(),
                    tunnel: outgoing.tunnel,
                }
            }
            Answer::Nothing(_) => return,
        };
        self.replies.push((number, reply));
    }
}

/// Answers in the send ring that are not counted yet.
#[derive(Debug, Default)]
struct Pending {
    returned: u64,
    made: u64,
    bytes: u64,
    /// Number of those that the interface dropped.
    dropped: u64,
}

impl Pending {
    /// Counts the answers as sent, but for those that the interface dropped. Which these are is not
    /// known: they count as returned ones, if there are enough, and as of the mean length.
    fn settle(&mut self, stats: &WorkerStats) {
        let Self {
            returned,
            made,
            bytes,
            dropped,
        } = std::mem::take(self);
        let all = returned + made;
        if all + dropped == 0 {
            return;
        }
        let lost = dropped.min(all);
        let lost_bytes = match all {
            0 => 0,
            _ => bytes / all * lost + bytes % all * lost / all,
        };
        stats.returned.add(returned.saturating_sub(lost));
        stats.made.add(made - lost.saturating_sub(returned));
        stats.sent_bytes.add(bytes - lost_bytes);
        if all > lost {
            stats.sends.succeeded_without_route();
        }
        for _ in 0..dropped {
            stats.answer_failed(&nix::Error::ENETDOWN.into());
        }
    }

    /// Counts all answers as not sent.
    fn lose(&mut self, stats: &WorkerStats) {
        self.dropped = self.dropped.max(self.returned + self.made);
        self.settle(stats);
    }
}

/// Rings of one receive queue.
pub(in crate::run) struct Ring {
    queue: Queue,
    link: Arc<Link>,
    taken: Vec<Taken>,
    replies: Replies,
    waited: Waited,
    /// Return of the first call that left the ring non-empty; `None` if the last one has emptied
    /// it.
    behind_since: Option<Instant>,
    /// Answers since the last flush that succeeded.
    pending: Pending,
    kernel_read: Instant,
}

impl Ring {
    fn new(OpenQueue { link, queue }: OpenQueue) -> Self {
        Self {
            queue,
            link,
            taken: Vec::with_capacity(BATCH),
            replies: Replies {
                replies: Vec::with_capacity(BATCH),
                made: Vec::new(),
            },
            waited: Waited::Briefly,
            behind_since: None,
            pending: Pending::default(),
            kernel_read: Instant::now(),
        }
    }

    /// Receives a batch, and returns the number of its datagrams.
    fn receive(&mut self, bounds: QueueBounds, stats: &WorkerStats) -> usize {
        let is_crowded = self.queue.load() >= CROWDED;
        self.taken.clear();
        for packet in 0..self.queue.receive() {
            let local = &self.link.local;
            let head = Head::parse(self.queue.packet(packet));
            match head.and_then(|head| {
                head.from_elsewhere(|address| local.binary_search(address).is_ok())
            }) {
                Ok(head) => self.taken.push(Taken { packet, head }),
                Err(refused) => {
                    if let Some(count) = stats.refused_frames.get(refused as usize) {
                        count.add(1);
                    }
                }
            }
        }
        self.waited = Waited::Briefly;
        if self.queue.is_ready() {
            let now = Instant::now();
            let since = *self.behind_since.get_or_insert(now);
            if is_crowded && bounds.is_long(now.saturating_duration_since(since)) {
                self.waited = Waited::Long;
            }
        } else {
            self.behind_since = None;
        }
        self.taken.len()
    }

    /// Returns the datagrams of the last batch, and the place of their answers.
    pub(in crate::run) fn batch(&mut self) -> (impl Iterator<Item = Queued<'_>>, &mut Replies) {
        let Self {
            queue,
            taken,
            replies,
            waited,
            ..
        } = self;
        let (queue, waited) = (&*queue, *waited);
        let datagrams = taken.iter().map(move |Taken { packet, head }| {
            let frame = queue.packet(*packet);
            Queued {
                datagram: Datagram {
                    source: head.source,
                    source_port: head.source_port,
                    destination: head.destination,
                    destination_port: head.destination_port,
                    payload: frame.get(head.payload.clone()).unwrap_or_default(),
                },
                waited,
            }
        });
        (datagrams, replies)
    }

    /// Writes the answers into the frames of their datagrams. An answer that goes to another
    /// address, or is longer than a frame, goes to the outlet.
    pub(in crate::run) fn answer(&mut self, outlet: &mut Outlet, stats: &WorkerStats) {
        let Self {
            queue,
            taken,
            replies,
            pending,
            ..
        } = self;
        let Replies { replies, made } = replies;
        for (number, reply) in replies.drain(..) {
            let Some(Taken { packet, head }) = taken.get(number) else {
                continue;
            };
            let (len, count) = match reply {
                Reply::Back => (head.payload.len(), &mut pending.returned),
                Reply::Made { len, .. } => (len, &mut pending.made),
            };
            let sent = match reply {
                Reply::Back => head.back(len).map_or(Err(NotSent::Unfit), |to| {
                    queue.send_back(*packet, &to, HEAD + len)
                }),
                Reply::Made { start, tunnel, .. } => {
                    let payload = made.get(start..start + len).unwrap_or_default();
                    let ports = (tunnel.source_port, tunnel.destination_port);
                    let goes_back =
                        tunnel.source == head.destination && tunnel.destination == head.source;
                    let to = head.answer(ports.0, ports.1, len).filter(|_| goes_back);
                    let sent = to.map_or(Err(NotSent::Unfit), |to| {
                        queue.send_instead(*packet, &to, payload)
                    });
                    if sent == Err(NotSent::Unfit) {
                        outlet.put_made(&tunnel, payload);
                        continue;
                    }
                    sent
                }
            };
            match sent {
                Ok(()) => {
                    *count += 1;
                    pending.bytes += len as u64;
                }
                Err(NotSent::Full) => stats.answer_failed(&nix::Error::ENOBUFS.into()),
                Err(NotSent::Unfit) => stats.answer_failed(&nix::Error::EMSGSIZE.into()),
                Err(NotSent::Failed(error)) => stats.answer_failed(&error.into()),
            }
        }
        made.clear();
    }

    /// Hands the answers to the kernel and the other frames back to it. Returns whether the
    /// interface still exists, as of the last second.
    fn flush(&mut self, now: Instant, stats: &WorkerStats) -> bool {
        // After an error, the answers stay in the ring, and those that follow are refused.
        let Flushed { dropped, error } = self.queue.flush();
        self.pending.dropped += u64::from(dropped);
        if error.is_none() {
            self.pending.settle(stats);
        }
        if now.saturating_duration_since(self.kernel_read) < KERNEL_EVERY {
            return true;
        }
        self.kernel_read = now;
        self.queue.read_kernel();
        let is_gone = self.queue.is_gone();
        if is_gone {
            self.pending.lose(stats);
        }
        !is_gone
    }
}

/// Rings of a worker.
pub(in crate::run) struct Rings {
    rings: Vec<Ring>,
    bounds: QueueBounds,
    /// Turns since the sockets were read.
    turns: u32,
}

impl Rings {
    /// Returns the rings of queues.
    pub(in crate::run) fn new(queues: Vec<OpenQueue>, bounds: QueueBounds) -> Self {
        Self {
            rings: queues.into_iter().map(Ring::new).collect(),
            bounds,
            turns: 0,
        }
    }

    /// Returns whether the worker has no rings.
    pub(in crate::run) const fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Returns the rings.
    pub(in crate::run) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Ring> {
        self.rings.iter_mut()
    }

    /// Waits for a packet in the rings or at the sockets if requested and none is in the rings.
    /// Returns whether the sockets are to be read.
    ///
    /// # Errors
    /// Returns the error of the system.
    pub(in crate::run) fn wait<'f>(
        &mut self,
        wait: bool,
        sockets: impl Iterator<Item = BorrowedFd<'f>>,
    ) -> io::Result<bool> {
        self.turns += 1;
        if self.rings.iter().any(|ring| ring.queue.is_ready()) {
            let are_due = self.turns >= SOCKETS_EVERY;
            self.turns = if are_due { 0 } else { self.turns };
            return Ok(are_due);
        }
        self.turns = 0;
        if !wait {
            return Ok(true);
        }
        let mut polled = Vec::with_capacity(self.rings.len() + 1);
        polled.extend(
            self.rings
                .iter()
                .map(|ring| PollFd::new(ring.queue.as_fd(), PollFlags::POLLIN)),
        );
        polled.extend(sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, patience) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut of_sockets = polled.iter().skip(self.rings.len());
        Ok(of_sockets.any(|socket| socket.any() == Some(true)))
    }

    /// Receives a batch from each ring. Returns the number of datagrams.
    pub(in crate::run) fn receive(&mut self, stats: &WorkerStats) -> usize {
        let bounds = self.bounds;
        let each = self.rings.iter_mut();
        each.map(|ring| ring.receive(bounds, stats)).sum()
    }

    /// Hands all answers to the kernel. Closes the rings of an interface that was removed.
    pub(in crate::run) fn flush(&mut self, now: Instant, stats: &WorkerStats) {
        self.rings.retain_mut(|ring| {
            let exists = ring.flush(now, stats);
            if !exists && ring.link.lose() {
                notice(&format!(
                    "warning: the interface {} is gone: AF_XDP serves it no more until a restart",
                    ring.link.name
                ));
            }
            exists
        });
    }

    /// Reads the kernel's counters for the last time.
    pub(in crate::run) fn read_kernel(&self) {
        for ring in &self.rings {
            ring.queue.read_kernel();
        }
    }

    /// Forgets the datagrams of the last batch.
    pub(in crate::run) fn clear(&mut self) {
        for ring in &mut self.rings {
            ring.taken.clear();
        }
    }

    /// Returns whether a packet waits to be received.
    pub(in crate::run) fn are_ready(&self) -> bool {
        self.rings.iter().any(|ring| ring.queue.is_ready())
    }

    /// Returns whether nothing is left to receive or to send.
    pub(in crate::run) fn are_idle(&self) -> bool {
        let mut queues = self.rings.iter().map(|ring| &ring.queue);
        queues.all(|queue| !queue.is_ready() && queue.unsent() == 0)
    }

    /// Counts the answers that the system does not take any more.
    pub(in crate::run) fn abandon(&mut self, stats: &WorkerStats) {
        for ring in &mut self.rings {
            ring.pending.lose(stats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(dropped: u64) -> Pending {
        Pending {
            returned: 3,
            made: 2,
            bytes: 1_001,
            dropped,
        }
    }

    /// Returns the numbers of returned and made datagrams, of bytes, and of failures.
    fn counts(stats: &WorkerStats) -> [u64; 4] {
        let counts = [&stats.returned, &stats.made, &stats.sent_bytes];
        let [returned, made, bytes] = counts.map(crate::run::counters::Count::value);
        [returned, made, bytes, stats.sends.failures()]
    }

    #[test]
    fn answers_count_once_and_those_that_the_interface_dropped_as_failures() {
        for (dropped, expected) in [
            (0, [3, 2, 1_001, 0]),
            (1, [2, 2, 801, 1]),
            (4, [0, 1, 201, 4]),
            (5, [0, 0, 0, 5]),
            (7, [0, 0, 0, 7]),
        ] {
            let (stats, mut pending) = (WorkerStats::default(), pending(dropped));
            for _ in 0..2 {
                pending.settle(&stats);
                assert_eq!(counts(&stats), expected);
            }
        }
    }

    #[test]
    fn answers_that_the_system_never_took_are_failures() {
        let (stats, mut pending) = (WorkerStats::default(), pending(1));
        pending.lose(&stats);
        assert_eq!(counts(&stats), [0, 0, 0, 5]);
    }
}
