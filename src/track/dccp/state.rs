//! The DCCP transition table: state x type of packet x direction.

use crate::flow::Direction;
use crate::packet::DccpType;
use crate::track::{EvictionClass, LifetimeClass};

/// State of a connection as seen from the middle; the client is the initiator. The names are those
/// of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The client's Request has passed. Reply: a Response leads to [`State::Respond`], a Reset ends
    /// the session.
    Request = 0,
    /// The Response has passed. Original: an Ack or DataAck leads to [`State::PartOpen`].
    Respond = 1,
    /// The client has acknowledged the Response. Reply: anything but a Response leads to
    /// [`State::Open`].
    PartOpen = 2,
    /// The connection is open. Reply: a CloseReq leads to [`State::CloseReq`]. Either: a Close
    /// leads to [`State::Closing`].
    Open = 3,
    /// The server has requested the client to close. Original: a Close leads to [`State::Closing`].
    CloseReq = 4,
    /// A Close has passed. Either: a Reset leads to [`State::TimeWait`].
    Closing = 5,
    /// A Reset has passed. Either: a Request opens a new session.
    TimeWait = 6,
}

impl State {
    /// All states, in the order of the table's columns.
    pub const ALL: [Self; 7] = [
        Self::Request,
        Self::Respond,
        Self::PartOpen,
        Self::Open,
        Self::CloseReq,
        Self::Closing,
        Self::TimeWait,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "REQUEST",
            Self::Respond => "RESPOND",
            Self::PartOpen => "PARTOPEN",
            Self::Open => "OPEN",
            Self::CloseReq => "CLOSEREQ",
            Self::Closing => "CLOSING",
            Self::TimeWait => "TIMEWAIT",
        }
    }

    /// Returns the lifetime of a session in this state.
    #[must_use]
    pub const fn lifetime(self) -> LifetimeClass {
        match self {
            Self::Request => LifetimeClass::DccpRequest,
            Self::Respond => LifetimeClass::DccpRespond,
            Self::PartOpen => LifetimeClass::DccpPartOpen,
            Self::Open => LifetimeClass::DccpOpen,
            Self::CloseReq => LifetimeClass::DccpCloseReq,
            Self::Closing => LifetimeClass::DccpClosing,
            Self::TimeWait => LifetimeClass::DccpTimeWait,
        }
    }

    /// Returns the eviction class of a session in this state.
    #[must_use]
    pub const fn eviction_class(self) -> EvictionClass {
        match self {
            Self::Request | Self::Respond => EvictionClass::Embryonic,
            Self::PartOpen | Self::Open => EvictionClass::Assured,
            Self::CloseReq | Self::Closing | Self::TimeWait => EvictionClass::Closing,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Request,
            1 => Self::Respond,
            2 => Self::PartOpen,
            3 => Self::Open,
            4 => Self::CloseReq,
            5 => Self::Closing,
            _ => Self::TimeWait,
        }
    }
}

/// Entry of the table for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// The packet is accepted, and the lifetime refreshed.
    To(State),
    /// The packet passes; state and lifetime do not change.
    Ignore,
    /// The packet passes, and ends the session.
    End,
    /// The packet opens a new session in place of this one.
    Reopen,
    /// The packet is invalid.
    Invalid,
}

/// Returns the table (RFC 4340, section 8).
#[must_use]
pub const fn transition(direction: Direction, kind: DccpType, state: State) -> Cell {
    use Direction::{Original, Reply};
    const RS: Cell = Cell::To(State::Respond);
    const PO: Cell = Cell::To(State::PartOpen);
    const OP: Cell = Cell::To(State::Open);
    const CR: Cell = Cell::To(State::CloseReq);
    const CG: Cell = Cell::To(State::Closing);
    const TW: Cell = Cell::To(State::TimeWait);
    const IG: Cell = Cell::Ignore;
    const IV: Cell = Cell::Invalid;
    const RO: Cell = Cell::Reopen;
    const EN: Cell = Cell::End;
    //  Request, Respond, PartOpen, Open, CloseReq, Closing, TimeWait
    let [
        request,
        respond,
        part_open,
        open,
        close_req,
        closing,
        time_wait,
    ] = match (kind, direction) {
        // A Request is repeated until it is answered, which refreshes nothing. On a live connection
        // it is answered by a Sync.
        (DccpType::Request, Original) => [IG, IG, IG, IG, IG, IG, RO],
        // Roles are fixed (8.1) until the connection has ended.
        (DccpType::Request, Reply) => [IV, IV, IG, IG, IG, IG, RO],
        (DccpType::Response, Original) => [IV, IV, IV, IV, IV, IV, IV],
        // Late or repeated once the client has continued.
        (DccpType::Response, Reply) => [RS, RS, IG, IG, IG, IG, IV],
        // A client in PARTOPEN sends no bare Data (8.1.5).
        (DccpType::Data, Original) => [IV, IV, IV, OP, CR, CG, IV],
        (DccpType::Ack | DccpType::DataAck, Original) => [IV, PO, PO, OP, CR, CG, IV],
        // The first packet of the server after the Response ends PARTOPEN.
        (DccpType::Data | DccpType::Ack | DccpType::DataAck, Reply) => [IV, IV, OP, OP, CR, CG, IV],
        // Only a server sends a CloseReq (8.3).
        (DccpType::CloseReq, Original) => [IV, IV, IV, IV, IV, IV, IV],
        (DccpType::CloseReq, Reply) => [IV, IV, CR, CR, CR, IG, IV],
        (DccpType::Close, Original) => [IV, CG, CG, CG, CG, CG, IV],
        (DccpType::Close, Reply) => [IV, IV, CG, CG, CG, CG, IV],
        // In REQUEST the client has nothing to acknowledge, so its Reset proves nothing.
        (DccpType::Reset, Original) => [IG, TW, TW, TW, TW, TW, IG],
        (DccpType::Reset, Reply) => [EN, TW, TW, TW, TW, TW, IG],
        (DccpType::Sync | DccpType::SyncAck, Original) => [IV, IG, PO, OP, CR, CG, IG],
        (DccpType::Sync | DccpType::SyncAck, Reply) => [IV, IG, OP, OP, CR, CG, IG],
    };
    match state {
        State::Request => request,
        State::Respond => respond,
        State::PartOpen => part_open,
        State::Open => open,
        State::CloseReq => close_req,
        State::Closing => closing,
        State::TimeWait => time_wait,
    }
}
