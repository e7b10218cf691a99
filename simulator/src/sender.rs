//! Senders: at a rate, or as fast as replies arrive.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::balancer::{Balancer, MAX_UNANSWERED, Offer};
use super::flow::Side;
use super::report::Unsent;
use super::socket::RawSender;
use super::turns::Turn;

/// Longest wait for replies before the end of the run is checked.
const PATIENCE: Duration = Duration::from_millis(10);

/// State that the threads share. Senders hold the lock for one packet, the receiver for one batch.
pub(super) struct Shared {
    /// The balancer.
    pub(super) balancer: Mutex<Balancer>,
    /// Notified when replies have arrived.
    pub(super) answered: Condvar,
    /// Whether to stop sending.
    pub(super) stop: std::sync::Arc<AtomicBool>,
    /// Time at which to stop sending.
    pub(super) deadline: Option<Instant>,
}

impl Shared {
    /// Returns whether sending is over because of a signal, an error or the deadline.
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits until at most this many packets are unanswered, or until `over`.
    pub(super) fn wait_below(&self, unanswered: usize, over: impl Fn() -> bool) {
        let mut balancer = self.balancer.lock();
        while balancer.unanswered() > unanswered && !over() {
            self.answered.wait_for(&mut balancer, PATIENCE);
            balancer.expire(Instant::now());
        }
    }

    /// Waits briefly for replies, and returns the time waited.
    fn wait_for_replies(&self, mut balancer: MutexGuard<'_, Balancer>) -> Duration {
        let begun = Instant::now();
        self.answered.wait_for(&mut balancer, PATIENCE);
        let now = Instant::now();
        balancer.expire(now);
        now.saturating_duration_since(begun)
    }
}

/// Pace of a source.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// At most this many packets are unanswered.
    Window(usize),
    /// Packets per second.
    Rate(f64),
    /// Packets are sent as they arrive.
    Live,
}

/// Sends the packets of one source.
pub(super) struct Sender<'s> {
    shared: &'s Shared,
    socket: RawSender,
    pace: Pace,
    start: Instant,
    count: u64,
    packet: Vec<u8>,
}

impl<'s> Sender<'s> {
    pub(super) fn new(shared: &'s Shared, socket: RawSender, pace: Pace) -> Self {
        Self {
            shared,
            socket,
            pace,
            start: Instant::now(),
            count: 0,
            packet: Vec::new(),
        }
    }

    /// Sends an inner packet that entered at this side, when its time has come. Returns false when
    /// sending is over.
    pub(super) fn send(&mut self, pair: usize, side: Side, inner: &[u8]) -> bool {
        self.wait();
        if self.shared.is_over() {
            return false;
        }
        self.put(pair, side, inner, None);
        true
    }

    /// Sends a packet that may have to wait for earlier ones; then a later call or
    /// [`Sender::send_kept`] sends it. Otherwise like [`Sender::send`].
    pub(super) fn send_in_turn(&mut self, pair: usize, side: Side, inner: &[u8]) -> bool {
        loop {
            self.wait();
            if self.shared.is_over() {
                return false;
            }
            let mut balancer = self.shared.balancer.lock();
            let now = Instant::now();
            if let Some((turn, kept)) = balancer.next_in_turn(now) {
                drop(balancer);
                self.put(pair, side, &kept, Some(turn));
                continue;
            }
            if balancer.kept().1 {
                self.start += self.shared.wait_for_replies(balancer);
                continue;
            }
            let offer = balancer.offer(now, pair, inner);
            drop(balancer);
            if let Offer::Now(turn) = offer {
                self.put(pair, side, inner, turn);
            }
            return true;
        }
    }

    /// Sends all packets that still wait for others. Returns false when sending is over.
    pub(super) fn send_kept(&mut self, pair: usize, side: Side) -> bool {
        loop {
            self.wait();
            if self.shared.is_over() {
                return false;
            }
            let mut balancer = self.shared.balancer.lock();
            if let Some((turn, kept)) = balancer.next_in_turn(Instant::now()) {
                drop(balancer);
                self.put(pair, side, &kept, Some(turn));
            } else if balancer.kept().0 == 0 {
                return true;
            } else {
                self.start += self.shared.wait_for_replies(balancer);
            }
        }
    }

    /// Sends an inner packet now.
    fn put(&mut self, pair: usize, side: Side, inner: &[u8], turn: Option<Turn>) {
        self.count += 1;
        let ticket = {
            let mut balancer = self.shared.balancer.lock();
            let now = Instant::now();
            balancer.send_in_turn(now, pair, side, inner, turn, &mut self.packet)
        };
        if let Ok(ticket) = ticket
            && let Err(error) = self.socket.send(&self.packet, ticket.destination)
        {
            let mut balancer = self.shared.balancer.lock();
            let reason = match error.raw_os_error() {
                Some(nix::libc::EMSGSIZE) => Unsent::TooLong,
                _ => Unsent::Refused,
            };
            balancer.unsend(ticket, inner.len(), reason);
            balancer
                .counters
                .refusal
                .get_or_insert_with(|| refusal(&error));
        }
    }

    fn wait(&self) {
        let over = || self.shared.is_over();
        match self.pace {
            Pace::Live => {}
            Pace::Window(window) => {
                let full = self.shared.balancer.lock().unanswered() >= window;
                if full {
                    self.shared.wait_below(window / 2, over);
                }
            }
            Pace::Rate(rate) => {
                let due = self.start + Duration::from_secs_f64(self.count as f64 / rate);
                while let Some(left) = due
                    .checked_duration_since(Instant::now())
                    .filter(|left| !left.is_zero())
                {
                    if over() {
                        return;
                    }
                    std::thread::sleep(left.min(PATIENCE));
                }
                self.shared.wait_below(MAX_UNANSWERED - 1, over);
            }
        }
    }

    /// Waits until every packet is answered or timed out.
    pub(super) fn settle(&self) {
        self.shared.wait_below(0, || self.shared.is_over());
    }

    /// Returns whether sending is over.
    pub(super) fn is_over(&self) -> bool {
        self.shared.is_over()
    }
}

fn refusal(error: &io::Error) -> String {
    format!("not sent: {error}")
}
