//! The queue between the engine and its caller: packets to send, and events.

use std::ops::Range;

use crate::event::{DeniedSession, HelperNote, LimitReached, Sink};
use crate::flow::{Direction, Zone};
use crate::fragment::HoldId;
use crate::question::Question;
use crate::reset::{MAX_REPLY, MAX_RESET, Reset};
use crate::session::{EndReason, SessionId, SessionRecord, TunnelRef};

/// Bounded queue of the packets that the engine makes and of the events that it reports.
///
/// [`Engine::process`](crate::Engine::process) and [`Engine::expire`](crate::Engine::expire) fill
/// it; the caller drains it after each packet or batch. Replies to rejected packets and RSTs at the
/// end of sessions are within the budgets of `[resets]`: send all of them.
///
/// Memory is bounded. An outbox that is not drained keeps its oldest entries, discards the others,
/// and counts them ([`Outbox::lost`]). Five kinds of entries have bounds of their own, so that no
/// flood of one kind displaces another: replies to packets, RSTs at the end of sessions, events,
/// [`Event::Released`] and [`Event::Question`]. Of the events, [`Event::Denied`] and
/// [`Event::Audited`] take at most half, so that denied packets never displace the records of
/// sessions. Buffers are reused: once grown to its bounds, an outbox allocates nothing for packets.
///
/// A packet makes at most one reply, one [`Event::Released`] and one [`Event::Question`]: with the
/// default bounds, an outbox that is drained after each batch of at most 1024 packets keeps all of
/// them. A call of [`Engine::expire`](crate::Engine::expire) makes a few hundred RSTs at most.
///
/// [`Engine::end_sessions`](crate::Engine::end_sessions) and
/// [`Engine::reload`](crate::Engine::reload) may end every session in one call, without a
/// drain in between. An outbox has room for the records and RSTs of all these sessions, beyond its
/// bounds. Measured until the drain: 1,000 bytes a session at 1,000 sessions; at 100,000, 306 with
/// the default budget of RSTs and 1,279 if all are sent. At the peak, as buffers grow: 1,471, 453
/// and 1,866. The second drain frees what is beyond the bounds. Another [`Sink`] takes the records
/// and RSTs one by one.
///
/// Each thread has an outbox of its own.
///
/// ```
/// use std::time::Instant;
/// use portcullis::{Engine, Event, Outbox, Packet, Policy, Rule, Verdict};
///
/// let policy = Policy::deny_by_default().rule(Rule::reject("everything"));
/// let engine = Engine::builder().policy(policy).build()?;
/// let mut outbox = Outbox::new();
/// # let syn: [u8; 40] = [
/// #     0x45, 0x00, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x40, 0x06,
/// #     0x8e, 0x9a, 0xc0, 0x00, 0x02, 0x01, 0xc6, 0x33, 0x64, 0x01,
/// #     0x0f, 0xa0, 0x00, 0x50, 0x00, 0x00, 0x00, 0x64, 0x00, 0x00,
/// #     0x00, 0x00, 0x50, 0x02, 0xff, 0xff, 0xb3, 0x58, 0x00, 0x00,
/// # ];
/// let now = Instant::now();
/// let packet = Packet::new(&syn, now); // a TCP SYN from the wire
/// let verdict = engine.process(&packet, &mut outbox);
/// assert!(matches!(verdict, Verdict::Reject(..)));
/// engine.expire(now, &mut outbox);
///
/// let mut sent = 0;
/// for event in outbox.drain() {
///     match event {
///         Event::Transmit(packet) => sent += packet.bytes.len(),
///         Event::Denied(denied) => println!("{} was denied", denied.src),
///         _ => {}
///     }
/// }
/// assert_eq!(sent, 40, "a RST");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Outbox {
    entries: Vec<Entry>,
    /// Packets of the entries, one after the other. The vector shrinks only after a mass end, so
    /// that a reply that the budget refuses clears no memory.
    bytes: Vec<u8>,
    /// Length of the part of `bytes` that packets in the queue use.
    used: usize,
    kept: Kept,
    /// Whether the entries of the last drain had room beyond the bounds. The next drain returns
    /// the memory.
    expanded: bool,
    max_packets: usize,
    max_events: usize,
    lost: Lost,
}

/// Numbers of the entries in an [`Outbox`], by kind.
#[derive(Debug)]
struct Kept {
    replies: usize,
    resets: usize,
    /// Events other than [`Event::Released`] and [`Event::Question`], those of `decisions`
    /// included.
    events: usize,
    /// [`Event::Denied`] and [`Event::Audited`].
    decisions: usize,
    releases: usize,
    questions: usize,
    /// Sessions that the caller has ended itself since the last drain. Their records and RSTs have
    /// room beyond the bounds.
    ordered: usize,
}

impl Kept {
    const NONE: Self = Self {
        replies: 0,
        resets: 0,
        events: 0,
        decisions: 0,
        releases: 0,
        questions: 0,
        ordered: 0,
    };
}

/// Entry of an [`Outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A packet of the engine's own to send.
    Transmit(Transmit<'a>),
    /// A session was opened.
    Opened(SessionRecord),
    /// A session has ended.
    Ended(SessionRecord, EndReason),
    /// The policy has denied or rejected a session ([`Sink::session_denied`]).
    Denied(DeniedSession),
    /// The policy has admitted a session for audit ([`Sink::session_audited`]).
    Audited(DeniedSession),
    /// A new session would have exceeded a limit.
    LimitReached(LimitReached),
    /// A finding of a helper in a control session.
    Helper(HelperNote),
    /// Identifier of held packets to process again ([`Sink::released`]).
    Released(HoldId),
    /// A question to the store that engines share ([`Sink::question`]).
    Question(Question),
}

/// Packet that the engine has made: a RST, an SCTP ABORT, an ICMP error, or a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit<'a> {
    /// The IP packet, complete with checksums.
    pub bytes: &'a [u8],
    /// The zone of the packet.
    pub zone: Zone,
    /// The path on which the packet leaves.
    pub egress: Egress,
    /// The session that has ended, and the direction in which the packet travels: original means
    /// to the responder. `None` for the reply to a rejected packet.
    pub session: Option<(SessionId, Direction)>,
}

/// Path on which a packet of the engine's own leaves, in terms of the
/// [`TunnelRef`]s of received packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Back on the path of the packet of this reference, which traveled in the opposite
    /// direction: the packet that is answered, or, for a RST at the end of a session, the newest
    /// one of the opposite direction if none of its own is known.
    Back(TunnelRef),
    /// Onward, on the path of the packet of this reference, which traveled in the same direction.
    /// [`TunnelRef::NONE`] if no such packet is known, or if
    /// [`EngineConfig::tunnel_references`](crate::config::EngineConfig::tunnel_references) is off.
    Onward(TunnelRef),
}

/// Counts of entries that an [`Outbox`] did not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lost {
    /// Packets for which there was no room.
    pub packets: u64,
    /// Events for which there was no room.
    pub events: u64,
    /// Replies that were not made because the budget of `[resets]` allowed none.
    pub over_budget: u64,
}

/// Attempt to make a packet for an [`Outbox`].
pub(crate) enum Made {
    /// The packet was written.
    Packet {
        /// The length of the packet.
        len: usize,
        /// The zone of the packet.
        zone: Zone,
        /// The path of the packet.
        egress: Egress,
    },
    /// The budget allows none.
    OverBudget,
    /// The packet cannot be written.
    Nothing,
}

#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "entries stay in a vector that is reused; a box would be allocated for each event"
)]
enum Entry {
    Transmit {
        bytes: Range<usize>,
        zone: Zone,
        egress: Egress,
        session: Option<(SessionId, Direction)>,
    },
    Event(Event<'static>),
}

impl Outbox {
    /// Default bound on replies, on RSTs, on events, and on releases.
    pub const DEFAULT_LIMIT: usize = 1024;

    /// Returns an empty outbox with the default bounds. It allocates nothing until its first entry.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limits(Self::DEFAULT_LIMIT, Self::DEFAULT_LIMIT)
    }

    /// Returns an empty outbox that holds at most `packets` replies, of up to [`MAX_REPLY`] bytes
    /// each, and as many RSTs, of up to 60 bytes; and at most `events` events, and as many
    /// [`Event::Released`] and [`Event::Question`]. At most half of the events are
    /// [`Event::Denied`] or [`Event::Audited`].
    #[must_use]
    pub const fn with_limits(packets: usize, events: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: Vec::new(),
            used: 0,
            kept: Kept::NONE,
            expanded: false,
            max_packets: packets,
            max_events: events,
            lost: Lost {
                packets: 0,
                events: 0,
                over_budget: 0,
            },
        }
    }

    /// Removes all entries and returns them, oldest first. Entries that the iterator has not
    /// returned when it is dropped are lost.
    ///
    /// The returned packets borrow the memory of the outbox. What a mass end took beyond the
    /// bounds is therefore freed by the next call.
    pub fn drain(&mut self) -> impl Iterator<Item = Event<'_>> {
        let expands = self.kept.ordered > 0;
        if self.expanded && !expands {
            self.shrink();
        }
        self.expanded = expands;
        self.kept = Kept::NONE;
        let bytes: &[u8] = &self.bytes;
        self.entries.drain(..).map(move |entry| match entry {
            Entry::Event(event) => event,
            Entry::Transmit {
                bytes: range,
                zone,
                egress,
                session,
            } => Event::Transmit(Transmit {
                bytes: bytes.get(range).unwrap_or_default(),
                zone,
                egress,
                session,
            }),
        })
    }

    /// Returns the number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the outbox is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the counts of entries that were not kept since the outbox was created.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// Adds the packet that `write` makes, if there is room. Without room, `write` is not called,
    /// so that no budget is charged for a packet that is not sent.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut [u8]) -> Made) {
        if self.kept.replies >= self.max_packets {
            self.lost.packets += 1;
            return;
        }
        let start = self.next_packet();
        if self.bytes.len() < start + MAX_REPLY {
            self.bytes.resize(start + MAX_REPLY, 0);
        }
        let made = write(self.bytes.get_mut(start..).unwrap_or_default());
        let len = match made {
            Made::Packet { len, .. } => len,
            Made::OverBudget | Made::Nothing => 0,
        };
        match made {
            Made::Packet { zone, egress, .. } => {
                self.used = start + len;
                self.kept.replies += 1;
                self.entries.push(Entry::Transmit {
                    bytes: start..start + len,
                    zone,
                    egress,
                    session: None,
                });
            }
            Made::OverBudget => self.lost.over_budget += 1,
            Made::Nothing => {}
        }
    }

    /// Returns the offset of the next packet.
    const fn next_packet(&mut self) -> usize {
        if self.kept.replies == 0 && self.kept.resets == 0 {
            // All earlier packets were drained.
            self.used = 0;
        }
        self.used
    }

    /// Frees the memory beyond the bounds. Everything that the bounds admit still fits without an
    /// allocation.
    #[cold]
    fn shrink(&mut self) {
        let entries = self.max_packets.saturating_add(self.max_events);
        self.entries.shrink_to(entries.saturating_mul(2));
        let bytes = self.max_packets.saturating_mul(MAX_REPLY + MAX_RESET);
        // Packets that are in the queue stay, whatever the bounds are.
        let bytes = bytes.max(self.next_packet());
        self.bytes.truncate(bytes);
        self.bytes.shrink_to(bytes);
    }

    fn push(&mut self, event: Event<'static>) {
        if self.kept.events < self.max_events.saturating_add(self.kept.ordered) {
            self.kept.events += 1;
            self.entries.push(Entry::Event(event));
        } else {
            self.lost.events += 1;
        }
    }

    /// Adds an event that a denied or audited packet causes, as long as half of the bound is left.
    fn push_decision(&mut self, event: Event<'static>) {
        if self.kept.decisions < self.max_events / 2 {
            self.kept.decisions += 1;
            self.push(event);
        } else {
            self.lost.events += 1;
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Sink for Outbox {
    const LISTENS: bool = true;

    fn session_opened(&mut self, session: &SessionRecord) {
        self.push(Event::Opened(*session));
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.push(Event::Ended(*session, reason));
    }

    fn session_denied(&mut self, denied: &DeniedSession) {
        self.push_decision(Event::Denied(*denied));
    }

    fn session_audited(&mut self, audited: &DeniedSession) {
        self.push_decision(Event::Audited(*audited));
    }

    fn limit_reached(&mut self, reached: &LimitReached) {
        self.push(Event::LimitReached(*reached));
    }

    fn helper_event(&mut self, note: &HelperNote) {
        self.push(Event::Helper(*note));
    }

    fn ends_follow(&mut self, sessions: usize) {
        self.kept.ordered = self.kept.ordered.saturating_add(sessions);
    }

    fn reset(&mut self, reset: &Reset) {
        if self.kept.resets >= self.max_packets.saturating_add(2 * self.kept.ordered) {
            self.lost.packets += 1;
            return;
        }
        let start = self.next_packet();
        self.used = start + reset.bytes().len();
        if self.bytes.len() < self.used {
            self.bytes.resize(self.used, 0);
        }
        if let Some(out) = self.bytes.get_mut(start..self.used) {
            out.copy_from_slice(reset.bytes());
        }
        self.kept.resets += 1;
        self.entries.push(Entry::Transmit {
            bytes: start..self.used,
            zone: reset.zone,
            egress: if reset.own_direction {
                Egress::Onward(reset.tunnel)
            } else {
                Egress::Back(reset.tunnel)
            },
            session: Some((reset.session, reset.direction)),
        });
    }

    fn released(&mut self, id: HoldId) {
        if self.kept.releases < self.max_events {
            self.kept.releases += 1;
            self.entries.push(Entry::Event(Event::Released(id)));
        } else {
            self.lost.events += 1;
        }
    }

    fn question(&mut self, question: &Question) {
        if self.kept.questions < self.max_events {
            self.kept.questions += 1;
            self.entries.push(Entry::Event(Event::Question(*question)));
        } else {
            self.lost.events += 1;
        }
    }
}
