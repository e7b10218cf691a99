//! Events of an engine for C: packets to send, and what happened to sessions.

use std::ffi::{CString, c_char, c_void};
use std::sync::LazyLock;

use portcullis::event::{HelperEvent, HelperNote, Limit};
use portcullis::policy::Action;
use portcullis::{DeniedSession, Egress, Event, LimitReached, Transmit};

use crate::clock::Clock;
use crate::names::end_number;
use crate::packet::DirectionOut;
use crate::session::{Address, SessionOut};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// Send the packet in `bytes`: a reply, or a RST at the end of a session.
    Transmit = 1,
    /// A session was opened.
    Opened = 2,
    /// A session has ended.
    Ended = 3,
    /// The policy has denied or rejected a session.
    Denied = 4,
    /// The policy has admitted a session that `audit` reports.
    Audited = 5,
    /// A new session would have exceeded the limit that `name` states.
    Limit = 6,
    /// A helper has found something in a control session; `name` states it.
    Helper = 7,
}

/// The path on which a packet of the engine leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EgressKind {
    /// Back on the path of a packet with this `tunnel`.
    Back = 0,
    /// Onward on the path of a packet with this `tunnel`; 0 is an unknown path.
    Onward = 1,
}

/// A session that was not opened, or only for audit.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AttemptOut {
    /// `sizeof(portcullis_attempt)` of the library.
    pub size: u32,
    /// The zone.
    pub zone: u16,
    /// The number of the rule that decided, or that would have admitted the session.
    pub rule: u16,
    /// The time of the packet.
    pub now_ns: u64,
    /// The caller's reference to the path of the packet.
    pub tunnel: u64,
    /// For a limit, its value; otherwise 0.
    pub limit: u32,
    /// For a limit, the count that would exceed it; otherwise 0.
    pub count: u32,
    /// The initiator's port, or the identifier of an ICMP query.
    pub source_port: u16,
    /// The responder's port, or the identifier of an ICMP query.
    pub destination_port: u16,
    /// The IP protocol number; 0 for a limit.
    pub protocol: u8,
    /// 1 if the decision is to be logged.
    pub log: u8,
    /// 1 if the packet is rejected rather than dropped.
    pub rejected: u8,
    /// The initiator's address.
    pub source: Address,
    /// The responder's address.
    pub destination: Address,
    /// 0.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<AttemptOut>() == 80);

/// An event. Pointers are valid during the callback.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct EventOut {
    /// `sizeof(portcullis_event)` of the library.
    pub size: u32,
    /// The zone; 0 for a helper.
    pub zone: u16,
    /// The kind: it states which of the fields have values. Others are 0 or NULL. Ignore kinds that
    /// the program does not know.
    pub kind: EventKind,
    /// The path of a packet to send.
    pub egress: EgressKind,
    /// The bytes of a packet to send, from the IP header on, complete with checksums.
    pub bytes: *const u8,
    /// The number of these bytes.
    pub length: usize,
    /// The caller's reference to the path of a packet to send.
    pub tunnel: u64,
    /// The identifier of the session: of a RST at its end, or of a control session.
    pub session_id: u64,
    /// The record of the session that was opened or has ended.
    pub session: *const SessionOut,
    /// The session that was not opened, or only for audit.
    pub attempt: *const AttemptOut,
    /// The stable name of a limit, or of a helper's finding. The text is never released.
    pub name: *const c_char,
    /// The time of a helper's finding.
    pub now_ns: u64,
    /// The number of the reason for which the session has ended.
    pub end_reason: u8,
    /// The direction of a RST, or of a helper's finding.
    pub direction: DirectionOut,
    /// 0.
    pub reserved: [u8; 6],
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<EventOut>() == 80);

/// Receives an event. `context` is the caller's. The function returns normally: it neither throws
/// nor jumps.
pub type EventFn = Option<unsafe extern "C" fn(context: *mut c_void, event: *const EventOut)>;

/// Names for C, in the order of the values.
fn names(names: impl Iterator<Item = &'static str>) -> Vec<CString> {
    names
        .map(|name| CString::new(name).unwrap_or_default())
        .collect()
}

static LIMITS: LazyLock<Vec<CString>> =
    LazyLock::new(|| names(Limit::ALL.into_iter().map(Limit::name)));
static HELPERS: LazyLock<Vec<CString>> =
    LazyLock::new(|| names(HelperEvent::ALL.into_iter().map(HelperEvent::name)));

fn name_of<T: PartialEq>(names: &'static [CString], all: &[T], value: &T) -> *const c_char {
    let place = all.iter().position(|each| each == value);
    place
        .and_then(|place| names.get(place))
        .map_or(std::ptr::null(), |name| name.as_ptr())
}

impl EventOut {
    const fn of(kind: EventKind, zone: u16) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            zone,
            kind,
            egress: EgressKind::Back,
            bytes: std::ptr::null(),
            length: 0,
            tunnel: 0,
            session_id: 0,
            session: std::ptr::null(),
            attempt: std::ptr::null(),
            name: std::ptr::null(),
            now_ns: 0,
            end_reason: 0,
            direction: DirectionOut::None,
            reserved: [0; 6],
        }
    }

    fn transmit(packet: &Transmit<'_>) -> Self {
        let (egress, tunnel) = match packet.egress {
            Egress::Back(tunnel) => (EgressKind::Back, tunnel),
            Egress::Onward(tunnel) => (EgressKind::Onward, tunnel),
        };
        Self {
            egress,
            bytes: packet.bytes.as_ptr(),
            length: packet.bytes.len(),
            tunnel: tunnel.0,
            session_id: packet.session.map_or(0, |(id, _)| id.number()),
            direction: packet.session.map(|(_, direction)| direction).into(),
            ..Self::of(EventKind::Transmit, packet.zone.0)
        }
    }

    fn of_session(kind: EventKind, session: &SessionOut) -> Self {
        Self {
            session_id: session.id,
            session,
            ..Self::of(kind, session.zone)
        }
    }

    fn of_attempt(kind: EventKind, attempt: &AttemptOut) -> Self {
        Self {
            attempt,
            ..Self::of(kind, attempt.zone)
        }
    }

    fn helper(note: &HelperNote, clock: &Clock) -> Self {
        Self {
            session_id: note.session.number(),
            direction: Some(note.from).into(),
            now_ns: clock.nanos(note.at),
            name: name_of(&HELPERS, &HelperEvent::ALL, &note.event),
            ..Self::of(EventKind::Helper, 0)
        }
    }
}

impl AttemptOut {
    fn denied(denied: &DeniedSession, clock: &Clock) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            zone: denied.zone.0,
            rule: denied.rule.0,
            now_ns: clock.nanos(denied.at),
            tunnel: denied.tunnel.0,
            limit: 0,
            count: 0,
            source_port: denied.src_port,
            destination_port: denied.dst_port,
            protocol: denied.protocol,
            log: denied.log.into(),
            rejected: (denied.action == Action::Reject).into(),
            source: denied.src.into(),
            destination: denied.dst.into(),
            reserved: [0; 7],
        }
    }

    fn limit(reached: &LimitReached, clock: &Clock) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            zone: reached.zone.0,
            rule: reached.rule.0,
            now_ns: clock.nanos(reached.at),
            tunnel: 0,
            limit: reached.exceeded.value,
            count: reached.exceeded.count,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            log: 0,
            rejected: 0,
            source: reached.src.into(),
            destination: reached.dst.into(),
            reserved: [0; 7],
        }
    }
}

/// Passes events to a caller's function.
///
/// # Safety
/// `each` may be called with `context` and returns normally.
pub(crate) unsafe fn pass_all<'e>(
    events: impl Iterator<Item = Event<'e>>,
    clock: &Clock,
    each: unsafe extern "C" fn(*mut c_void, *const EventOut),
    context: *mut c_void,
) {
    for event in events {
        with_event(&event, clock, |event| {
            // SAFETY: the promise of the caller; the event lives during the call.
            unsafe { each(context, event) };
        });
    }
}

/// Passes an event to `each` in its form for C. Kinds that concern packets held by a caller, or a
/// store, have no form: this interface offers neither.
fn with_event(event: &Event<'_>, clock: &Clock, each: impl FnOnce(&EventOut)) {
    match event {
        Event::Transmit(packet) => each(&EventOut::transmit(packet)),
        Event::Opened(session) => {
            let session = SessionOut::new(session, clock);
            each(&EventOut::of_session(EventKind::Opened, &session));
        }
        Event::Ended(session, reason) => {
            let session = SessionOut::new(session, clock);
            each(&EventOut {
                end_reason: end_number(Some(*reason)),
                ..EventOut::of_session(EventKind::Ended, &session)
            });
        }
        Event::Denied(denied) => {
            let attempt = AttemptOut::denied(denied, clock);
            each(&EventOut::of_attempt(EventKind::Denied, &attempt));
        }
        Event::Audited(audited) => {
            let attempt = AttemptOut::denied(audited, clock);
            each(&EventOut::of_attempt(EventKind::Audited, &attempt));
        }
        Event::LimitReached(reached) => {
            let attempt = AttemptOut::limit(reached, clock);
            each(&EventOut {
                name: name_of(&LIMITS, &Limit::ALL, &reached.exceeded.limit),
                ..EventOut::of_attempt(EventKind::Limit, &attempt)
            });
        }
        Event::Helper(note) => each(&EventOut::helper(note, clock)),
        _ => {}
    }
}
