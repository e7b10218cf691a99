//! Records of sessions for C.

use std::ffi::c_char;
use std::net::IpAddr;

use portcullis::SessionRecord;

use crate::clock::Clock;
use crate::names::copy_text;
use crate::raw::Sized32;
use crate::status::{Outcome, Status};

/// Mark of a session: the handshake was completed, or both ends have sent packets.
pub const SESSION_ASSURED: u32 = 1;

/// Mark of a session: the session was adopted midstream.
pub const SESSION_ADOPTED: u32 = 2;

/// Mark of a session: the session continues one that had ended.
pub const SESSION_RESUMED: u32 = 4;

/// Mark of a session: half of the session is missing, and its packets are allowed nevertheless.
pub const SESSION_BYPASSED: u32 = 8;

/// Mark of a session: the policy of a reload would not admit the session, which is kept.
pub const SESSION_NO_LONGER_ADMITTED: u32 = 16;

/// An IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Address {
    /// 4 or 6; 0 for no address.
    pub family: u8,
    /// The address in the order of the network, in the first 4 bytes or in all 16.
    pub bytes: [u8; 16],
}

const _: () = assert!(size_of::<Address>() == 17 && align_of::<Address>() == 1);

impl Address {
    /// Returns the address; an error for a family that is neither 4 nor 6.
    pub(crate) fn ip(&self) -> Outcome<IpAddr> {
        let [a, b, c, d, ..] = self.bytes;
        match self.family {
            4 => Ok([a, b, c, d].into()),
            6 => Ok(self.bytes.into()),
            _ => Err(Status::Invalid),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self {
                    family: 4,
                    bytes: [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                }
            }
            IpAddr::V6(address) => Self {
                family: 6,
                bytes: address.octets(),
            },
        }
    }
}

/// The state of a session at one moment.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SessionOut {
    /// `sizeof(portcullis_session)`, set by the caller of `portcullis_engine_session`.
    pub size: u32,
    /// `PORTCULLIS_SESSION_` marks.
    pub marks: u32,
    /// The identifier while the session lives.
    pub id: u64,
    /// The identifier in logs: the number of the engine that opened the session, and the
    /// identifier there.
    pub uid: [u64; 2],
    /// The identifier of the session that announced this one; 0 for none.
    pub parent: u64,
    /// Packets from the initiator, and from the responder.
    pub packets: [u64; 2],
    /// IP bytes from the initiator, and from the responder.
    pub bytes: [u64; 2],
    /// The time of the first packet.
    pub start_ns: u64,
    /// The time of the last packet that counted.
    pub last_ns: u64,
    /// The time at which the session ends if no further packet arrives.
    pub expires_ns: u64,
    /// The caller's references to the path of the newest packet of each direction, if the engine
    /// keeps them (`engine.tunnel_references`).
    pub tunnels: [u64; 2],
    /// The zone.
    pub zone: u16,
    /// The number of the rule that admitted the session (`portcullis_engine_rule_name`).
    pub rule: u16,
    /// The initiator's port, or the identifier of an ICMP query.
    pub source_port: u16,
    /// The responder's port, or the identifier of an ICMP query.
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's address.
    pub source: Address,
    /// The responder's address.
    pub destination: Address,
    /// The name of the state, as in `conntrack -L`.
    pub state: [c_char; 32],
    /// The letters of the session's history, as in Zeek's `conn.log`.
    pub history: [c_char; 32],
    /// 0.
    pub reserved: [u8; 5],
}

// SAFETY: `repr(C)`, with `size` first; every field is a number.
unsafe impl Sized32 for SessionOut {
    const LEAST: usize = 224;
}
const _: () = assert!(size_of::<SessionOut>() == SessionOut::LEAST);

impl SessionOut {
    pub(crate) fn new(session: &SessionRecord, clock: &Clock) -> Self {
        let marks = [
            (session.assured, SESSION_ASSURED),
            (session.adopted, SESSION_ADOPTED),
            (session.resumed, SESSION_RESUMED),
            (session.bypassed, SESSION_BYPASSED),
            (session.no_longer_admitted, SESSION_NO_LONGER_ADMITTED),
        ];
        let both = [session.original, session.reply];
        Self {
            size: size_of::<Self>() as u32,
            marks: marks
                .iter()
                .filter(|(is_set, _)| *is_set)
                .fold(0, |marks, (_, mark)| marks | mark),
            id: session.id.number(),
            uid: [session.uid.engine(), session.uid.session().number()],
            parent: session.parent.map_or(0, |id| id.number()),
            packets: both.map(|traffic| u64::from(traffic.packets)),
            bytes: both.map(|traffic| traffic.bytes),
            start_ns: clock.nanos(session.start),
            last_ns: clock.nanos(session.last),
            expires_ns: clock.nanos(session.expires),
            tunnels: session.tunnels.map(|tunnel| tunnel.0),
            zone: session.zone.0,
            rule: session.rule.0,
            source_port: session.src_port,
            destination_port: session.dst_port,
            protocol: session.protocol,
            source: session.src.into(),
            destination: session.dst.into(),
            state: copy_text(session.state),
            history: history(session),
            reserved: [0; 5],
        }
    }
}

/// Returns the letters of a session without an allocation.
fn history(session: &SessionRecord) -> [c_char; 32] {
    let mut field = [0; 32];
    let letters = session.history.letters();
    for (to, (letter, direction)) in field.iter_mut().take(31).zip(letters) {
        *to = letter.letter(direction) as c_char;
    }
    field
}
