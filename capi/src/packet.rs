//! Packets that a caller passes, and the verdicts on them.

use portcullis::{Class, Direction, Packet, TunnelRef, Verdict, Zone};

use crate::clock::Clock;
use crate::names::{end_number, reason_number};
use crate::raw::{self, Sized32};
use crate::status::{Outcome, Status};

/// The greatest number of bytes of a packet.
pub const MAX_PACKET: usize = 1_048_576;

/// The greatest number of packets in a batch. With this bound an outbox that is drained after each
/// batch keeps every reply.
pub const MAX_BATCH: usize = 1024;

/// Flag of a packet: the packet's checksums are not verified, since an interface has not computed
/// them yet.
pub const PACKET_OFFLOADED: u32 = 1;

/// Flag of a packet: the packet comes from a layer-3 tunnel, where link-local traffic is not valid.
pub const PACKET_TUNNELED: u32 = 2;

/// Flag of a packet: the caller is overloaded, so the packet is dropped if it would open a session.
pub const PACKET_SHEDDABLE: u32 = 4;

/// An IP packet as received.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PacketIn {
    /// `sizeof(portcullis_packet)`.
    pub size: u32,
    /// `PORTCULLIS_PACKET_` flags; 0 for none.
    pub flags: u32,
    /// The bytes, from the IP header on. Bytes after the IP length are padding.
    pub bytes: *const u8,
    /// The number of bytes.
    pub length: usize,
    /// The time of arrival, in monotonic nanoseconds of the caller.
    pub now_ns: u64,
    /// The caller's reference to the path of the packet: an interface, a tunnel; 0 for none.
    pub tunnel: u64,
    /// Bits of `tunnel` that identify the sender's flow; 0 for none.
    pub flow_bits: u64,
    /// The number of the packet's zone.
    pub zone: u16,
    /// 0.
    pub reserved: [u16; 3],
}

// SAFETY: `repr(C)`, with `size` first; every field is a number or a pointer.
unsafe impl Sized32 for PacketIn {
    const LEAST: usize = 40 + 2 * size_of::<usize>();
}
const _: () = assert!(size_of::<PacketIn>() == PacketIn::LEAST);

/// A verdict: the first question of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum VerdictKind {
    /// Send the packet on, byte for byte.
    Forward = 0,
    /// Discard the packet.
    Drop = 1,
    /// Discard the packet. The reply, within its budget, is in the outbox.
    Reject = 2,
    /// Not returned by this version, which holds no packets of an engine.
    Hold = 3,
}

/// The relation of a packet to the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClassOut {
    /// The packet opens a session, or belongs to one that has not been answered yet.
    New = 0,
    /// The packet belongs to a session with traffic in both directions, or is the first answer.
    Established = 1,
    /// The packet is an ICMP error about a session, or belongs to the child of one.
    Related = 2,
    /// The packet fits no session in its current state, and cannot open one.
    Invalid = 3,
    /// The packet is never tracked.
    Untracked = 4,
}

/// A direction in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DirectionOut {
    /// No direction: the packet belongs to no session.
    None = 0,
    /// From the initiator to the responder.
    Original = 1,
    /// From the responder to the initiator.
    Reply = 2,
}

impl From<Option<Direction>> for DirectionOut {
    fn from(direction: Option<Direction>) -> Self {
        match direction {
            None => Self::None,
            Some(Direction::Original) => Self::Original,
            Some(Direction::Reply) => Self::Reply,
        }
    }
}

/// The verdict on a packet.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct VerdictOut {
    /// `sizeof(portcullis_verdict)`, set by the caller.
    pub size: u32,
    /// The verdict.
    pub kind: VerdictKind,
    /// The relation of the packet to the sessions.
    pub class_of: ClassOut,
    /// The packet's direction in its session.
    pub direction: DirectionOut,
    /// For a late packet, the number of the reason for which its session ended; 0 for none.
    pub late: u8,
    /// The number of the reason why the packet is not forwarded; 0 if it is.
    pub reason: u16,
    /// The number of the reason for which the packet would have been dropped, if it was tolerated;
    /// 0 for none.
    pub tolerated: u16,
    /// 0.
    pub reserved: u32,
    /// The identifier of the packet's session; 0 for none.
    pub session: u64,
    /// For a late packet, the nanoseconds since the end of its session.
    pub late_ns: u64,
}

// SAFETY: `repr(C)`, with `size` first, and zeros are a value. It is never read from a caller.
unsafe impl Sized32 for VerdictOut {
    const LEAST: usize = 32;
}
const _: () = assert!(size_of::<VerdictOut>() == VerdictOut::LEAST);

impl PacketIn {
    const FLAGS: u32 = PACKET_OFFLOADED | PACKET_TUNNELED | PACKET_SHEDDABLE;

    /// Returns the packet for the engine.
    ///
    /// # Safety
    /// The bytes are readable, and nobody changes them during `'a`.
    pub(crate) unsafe fn packet<'a>(&self, clock: &Clock) -> Outcome<Packet<'a>> {
        if self.flags & !Self::FLAGS != 0 || self.reserved != [0; 3] {
            return Err(Status::Invalid);
        }
        // SAFETY: the promise of the caller.
        let bytes = unsafe { raw::bytes(self.bytes, self.length, MAX_PACKET) }?;
        let has = |flag| self.flags & flag != 0;
        Ok(Packet::new(bytes, clock.instant(self.now_ns))
            .zone(Zone(self.zone))
            .offloaded(has(PACKET_OFFLOADED))
            .tunneled(has(PACKET_TUNNELED))
            .sheddable(has(PACKET_SHEDDABLE))
            .tunnel(TunnelRef(self.tunnel))
            .flow_bits(self.flow_bits))
    }
}

impl VerdictOut {
    pub(crate) fn new(verdict: &Verdict) -> Self {
        let tracked = verdict.tracked();
        Self {
            size: size_of::<Self>() as u32,
            kind: match verdict {
                Verdict::Forward(_) => VerdictKind::Forward,
                Verdict::Drop(..) => VerdictKind::Drop,
                Verdict::Reject(..) => VerdictKind::Reject,
                Verdict::Hold(..) => VerdictKind::Hold,
            },
            class_of: match tracked.class {
                Class::New => ClassOut::New,
                Class::Established => ClassOut::Established,
                Class::Related => ClassOut::Related,
                Class::Invalid => ClassOut::Invalid,
                Class::Untracked => ClassOut::Untracked,
            },
            direction: tracked.direction.into(),
            late: end_number(tracked.late.map(|late| late.reason)),
            reason: reason_number(verdict.reason()),
            tolerated: reason_number(tracked.tolerated),
            reserved: 0,
            session: tracked.session.map_or(0, |id| id.number()),
            late_ns: tracked.late.map_or(0, |late| {
                u64::try_from(late.ago().as_nanos()).unwrap_or(u64::MAX)
            }),
        }
    }
}
