//! Bounded queue of session events from the workers to the thread of the session log. An event that
//! finds the queue full is counted and lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use portcullis::{DeniedSession, EndReason, LimitReached, SessionRecord};

use super::observe::dropped::DroppedPacket;
use super::settings::{LogSettings, Logged, LoggedDenied};

/// Event that the session log records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionEvent {
    /// An admitted packet has opened a session.
    Opened(SessionRecord),
    /// A session was live at this time, for longer than the interval of interim lines.
    Updated(SessionRecord, Instant),
    /// A session has ended.
    Ended(SessionRecord, EndReason),
    /// The policy has denied or rejected a session, or admitted it for audit.
    Denied(DeniedSession),
    /// A new session would have exceeded a limit.
    Limited(LimitReached),
    /// A packet was not forwarded, for another reason than the policy.
    Dropped(DroppedPacket),
}

/// Part of the queue that events of a kind may fill.
#[derive(Debug)]
struct Share {
    waiting: AtomicUsize,
    max: usize,
}

impl Share {
    fn new(max: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            max: max.max(1),
        }
    }

    /// Takes a slot; returns `false` if all are taken.
    fn take(&self) -> bool {
        // Read first: a flood that finds the share full writes nothing that other workers read.
        if self.waiting.load(Ordering::Relaxed) >= self.max {
            return false;
        }
        let is_taken = self.waiting.fetch_add(1, Ordering::Relaxed) < self.max;
        if !is_taken {
            self.release();
        }
        is_taken
    }

    fn release(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sessions that opened or ended and wait in the queue, where new sessions are kept out before
/// their records are lost.
#[derive(Debug)]
struct Backlog {
    waiting: AtomicUsize,
    /// New sessions are kept out from this number on: what is left of the half that other events
    /// cannot take is for the ends of sessions that exist.
    high: usize,
    /// New sessions are admitted again from this number down.
    low: usize,
}

/// Sending end of the queue, with the kinds of events that the log records.
///
/// Denied sessions take at most a quarter of the slots, interim lines and dropped packets an eighth
/// each: half of the queue is for sessions that open or end.
#[derive(Debug)]
pub(crate) struct EventQueue {
    sender: SyncSender<SessionEvent>,
    opened: bool,
    sessions: Logged,
    denied: LoggedDenied,
    /// Records of sessions that wait, if the log fails closed.
    backlog: Option<Backlog>,
    denied_share: Share,
    updates_share: Share,
    drops_share: Share,
    /// Dropped packets that all workers may put into the queue in a second.
    drops_per_second: u32,
    lost: AtomicU64,
    lost_denied: AtomicU64,
    lost_drops: AtomicU64,
    drops_left_out: AtomicU64,
    /// Whether the log has lines of dropped packets whose addresses cannot be read.
    records_unreadable: bool,
}

/// Counts of events that found the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LostEvents {
    /// Sessions that opened or ended, and limits that were reached.
    pub(crate) sessions: u64,
    /// Sessions that were denied.
    pub(crate) denied: u64,
    /// Packets that were not forwarded.
    pub(crate) drops: u64,
    /// Packets that were not forwarded, beyond the share of their reason in `log.drops`.
    pub(crate) drops_left_out: u64,
}

impl EventQueue {
    /// Wraps the sending end of a channel of `settings.queue` slots.
    pub(crate) fn new(sender: SyncSender<SessionEvent>, settings: &LogSettings) -> Self {
        Self {
            sender,
            // Records of flows count the packets of a session, which are known at its end.
            opened: settings.opened && settings.format.has_opened(),
            sessions: settings.sessions,
            denied: settings.denied,
            backlog: settings.fail_closed.then(|| Backlog {
                waiting: AtomicUsize::new(0),
                high: settings.queue / 8 * 3,
                low: settings.queue / 8,
            }),
            denied_share: Share::new(settings.queue / 4),
            updates_share: Share::new(settings.queue / 8),
            drops_share: Share::new(settings.queue / 8),
            drops_per_second: settings.drops,
            lost: AtomicU64::new(0),
            lost_denied: AtomicU64::new(0),
            lost_drops: AtomicU64::new(0),
            drops_left_out: AtomicU64::new(0),
            records_unreadable: settings.records_unreadable(),
        }
    }

    /// Returns the counts of events that found the queue full.
    pub(crate) fn lost(&self) -> LostEvents {
        LostEvents {
            sessions: self.lost.load(Ordering::Relaxed),
            denied: self.lost_denied.load(Ordering::Relaxed),
            drops: self.lost_drops.load(Ordering::Relaxed),
            drops_left_out: self.drops_left_out.load(Ordering::Relaxed),
        }
    }

    /// Releases the slot of an event that has left the queue.
    pub(crate) fn took(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Denied(_) => self.denied_share.release(),
            SessionEvent::Updated(..) => self.updates_share.release(),
            SessionEvent::Dropped(_) => self.drops_share.release(),
            SessionEvent::Opened(_) | SessionEvent::Ended(..) | SessionEvent::Limited(_) => {
                if let Some(backlog) = &self.backlog {
                    backlog.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Returns whether so few records of sessions wait that new sessions may be admitted again.
    pub(crate) fn is_relieved(&self) -> bool {
        let backlog = self.backlog.as_ref();
        backlog.is_none_or(|backlog| backlog.waiting.load(Ordering::Relaxed) <= backlog.low)
    }

    /// Puts an event into the queue, if its share has room.
    fn send_within(&self, share: &Share, event: SessionEvent) -> bool {
        if !share.take() {
            return false;
        }
        let sent = self.sender.try_send(event).is_ok();
        if !sent {
            share.release();
        }
        sent
    }

    /// Puts a live session into the queue, if the share of such sessions has room. One thread alone
    /// calls this, and waits if it returns `false`.
    pub(super) fn send_update(&self, session: &SessionRecord, at: Instant) -> bool {
        self.send_within(&self.updates_share, SessionEvent::Updated(*session, at))
    }

    /// Returns whether the log records only the sessions of marked rules.
    #[inline]
    pub(super) fn records_marked_sessions(&self) -> bool {
        self.sessions == Logged::Marked
    }

    /// Returns whether the log records the opening of sessions.
    #[inline]
    pub(super) const fn records_opened(&self) -> bool {
        self.opened
    }

    /// Returns whether the log records a denied session.
    #[inline]
    pub(super) const fn records_denied(&self, denied: &DeniedSession) -> bool {
        match self.denied {
            LoggedDenied::None => false,
            LoggedDenied::Marked => denied.log,
            LoggedDenied::All => true,
        }
    }

    /// Puts a session that opened or ended, or a limit that was reached, into the queue, or counts
    /// it as lost if the queue is full. Returns whether new sessions may be admitted after it.
    #[must_use]
    pub(super) fn send(&self, event: SessionEvent) -> bool {
        let waiting = self.backlog.as_ref().map(|backlog| &backlog.waiting);
        // Counted first: the writer may take the event immediately.
        let before = waiting.map_or(0, |waiting| waiting.fetch_add(1, Ordering::Relaxed));
        let sent = self.sender.try_send(event).is_ok();
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if let Some(waiting) = waiting {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let backlog = self.backlog.as_ref();
        backlog.is_none_or(|backlog| sent && before + 1 < backlog.high)
    }

    /// Puts a denied session into the queue, or counts it as lost if the share of such sessions is
    /// full.
    pub(super) fn send_denied(&self, denied: &DeniedSession) {
        if !self.send_within(&self.denied_share, SessionEvent::Denied(*denied)) {
            self.lost_denied.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of dropped packets that the workers may put into the queue in a second; 0
    /// if the log records none.
    pub(super) const fn drops_per_second(&self) -> u32 {
        self.drops_per_second
    }

    /// Returns whether the log has lines of dropped packets whose addresses cannot be read.
    pub(super) const fn records_unreadable(&self) -> bool {
        self.records_unreadable
    }

    /// Counts dropped packets that were beyond the share of their reason.
    pub(super) fn count_drops_left_out(&self, count: u64) {
        self.drops_left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Puts a dropped packet into the queue, or counts it as lost if the share of such packets is
    /// full.
    pub(super) fn send_drop(&self, packet: &DroppedPacket) {
        if !self.send_within(&self.drops_share, SessionEvent::Dropped(*packet)) {
            self.lost_drops.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use etherparse::PacketBuilder;
    use portcullis::{Config, DropReason, Engine, Event, Outbox, Packet, TunnelRef};

    use super::super::observe::event::PacketReason;
    use super::super::observe::kind::Kind;
    use super::*;

    const SLOTS: usize = 64;

    /// Returns a queue of [`SLOTS`] that nobody reads, and its other end.
    fn queue(fail_closed: bool) -> (EventQueue, Receiver<SessionEvent>) {
        let settings = LogSettings {
            queue: SLOTS,
            fail_closed,
            ..LogSettings::default()
        };
        let (sender, events) = sync_channel(SLOTS);
        (EventQueue::new(sender, &settings), events)
    }

    /// Returns the first event that a packet makes under a policy.
    fn first_event<T>(policy: &str, find: impl Fn(Event<'_>) -> Option<T>) -> T {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 1], 64)
            .udp(1_000, 53)
            .write(&mut packet, b"")
            .unwrap();
        let config = Config::from_toml(policy, "test.toml").unwrap();
        let engine = Engine::with_seed(&config, [1, 2, 3, 4]).unwrap();
        let mut outbox = Outbox::default();
        let _ = engine.process(&Packet::new(&packet, Instant::now()), &mut outbox);
        outbox.drain().find_map(find).unwrap()
    }

    fn session() -> SessionRecord {
        first_event("policy.default = \"allow\"", |event| match event {
            Event::Opened(session) => Some(session),
            _ => None,
        })
    }

    fn denied() -> DeniedSession {
        first_event("policy.default = \"deny\"", |event| match event {
            Event::Denied(denied) => Some(denied),
            _ => None,
        })
    }

    fn dropped() -> DroppedPacket {
        DroppedPacket {
            kind: Kind::Dropped,
            reason: PacketReason::Engine(DropReason::TcpNoSession),
            at: Instant::now(),
            zone: None,
            tunnel: TunnelRef::NONE,
            flow: None,
            bytes: 40,
            tracked: None,
            rule: None,
        }
    }

    /// Fills the shares of denied sessions, interim lines and dropped packets.
    fn fill_shares(queue: &EventQueue, session: &SessionRecord) {
        let denied = denied();
        for _ in 0..SLOTS {
            queue.send_denied(&denied);
            queue.send_drop(&dropped());
            queue.send_update(session, Instant::now());
        }
    }

    #[test]
    fn half_of_the_queue_is_for_sessions_whatever_else_floods_it() {
        let (queue, events) = queue(false);
        let session = session();
        fill_shares(&queue, &session);
        for number in 0..SLOTS / 2 {
            let ended = SessionEvent::Ended(session, EndReason::Timeout);
            assert!(queue.send(ended));
            assert_eq!(queue.lost().sessions, 0, "{number}");
        }
        let slots = SLOTS as u64;
        let mut lost = LostEvents {
            denied: slots - slots / 4,
            drops: slots - slots / 8,
            ..LostEvents::default()
        };
        assert_eq!(queue.lost(), lost);
        assert!(queue.send(SessionEvent::Opened(session)), "nothing closes");
        lost.sessions = 1;
        assert_eq!(queue.lost(), lost);
        for event in events.try_iter() {
            queue.took(&event);
        }
        fill_shares(&queue, &session);
        assert_eq!(events.try_iter().count(), SLOTS / 2, "every share is free");
    }

    #[test]
    fn new_sessions_are_kept_out_before_a_record_is_lost_and_return_while_denied_ones_wait() {
        let (queue, events) = queue(true);
        let session = session();
        let opened = SessionEvent::Opened(session);
        let mut admitted = 0;
        while queue.send(opened) {
            admitted += 1;
        }
        assert_eq!(admitted + 1, SLOTS / 8 * 3);
        fill_shares(&queue, &session);
        // Sessions that exist end meanwhile.
        for _ in 0..SLOTS / 8 {
            let _ = queue.send(SessionEvent::Ended(session, EndReason::Timeout));
        }
        assert_eq!(queue.lost().sessions, 0);
        assert!(!queue.send(opened), "the queue is full");
        assert_eq!(queue.lost().sessions, 1);
        let denied = denied();
        let mut taken = 0;
        while !queue.is_relieved() {
            queue.took(&events.try_recv().unwrap());
            queue.send_denied(&denied);
            taken += 1;
        }
        assert!(taken < SLOTS, "the queue was never empty");
        assert!(queue.send(opened));
    }
}
