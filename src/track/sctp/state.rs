//! The SCTP transition table: state x kind of chunk x direction.

use crate::flow::Direction;
use crate::track::{EvictionClass, LifetimeClass};

/// State of an association as seen from the middle. The names are those of Linux, except that an
/// association whose INIT is unanswered is distinguished from one that is over: Linux calls both
/// CLOSED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// An INIT has passed. Either: an INIT ACK leads to [`State::CookieWait`]. Reply: an ABORT ends
    /// the session.
    InitSent = 0,
    /// The INIT ACK has passed. Either: a COOKIE ECHO leads to [`State::CookieEchoed`].
    CookieWait = 1,
    /// The COOKIE ECHO has passed. The other direction: a COOKIE ACK leads to
    /// [`State::Established`].
    CookieEchoed = 2,
    /// The association is up. Original: a SHUTDOWN leads to [`State::ShutdownSent`]; reply: to
    /// [`State::ShutdownRecd`].
    Established = 3,
    /// The initiator has sent SHUTDOWN. Either: a SHUTDOWN ACK leads to [`State::ShutdownAckSent`].
    ShutdownSent = 4,
    /// The responder has sent SHUTDOWN. Either: a SHUTDOWN ACK leads to [`State::ShutdownAckSent`].
    ShutdownRecd = 5,
    /// The SHUTDOWN ACK has passed. Either: a SHUTDOWN COMPLETE leads to [`State::Closed`].
    ShutdownAckSent = 6,
    /// A SHUTDOWN COMPLETE or an ABORT has passed. Either: an INIT opens a new session.
    Closed = 7,
}

impl State {
    /// All states, in the order of the table's columns.
    pub const ALL: [Self; 8] = [
        Self::InitSent,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownRecd,
        Self::ShutdownAckSent,
        Self::Closed,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitSent => "INIT_SENT",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::Closed => "CLOSED",
        }
    }

    /// Returns the lifetime of a session in this state.
    #[must_use]
    pub const fn lifetime(self) -> LifetimeClass {
        match self {
            Self::InitSent => LifetimeClass::SctpInitSent,
            Self::CookieWait => LifetimeClass::SctpCookieWait,
            Self::CookieEchoed => LifetimeClass::SctpCookieEchoed,
            Self::Established => LifetimeClass::SctpEstablished,
            Self::ShutdownSent => LifetimeClass::SctpShutdownSent,
            Self::ShutdownRecd => LifetimeClass::SctpShutdownRecd,
            Self::ShutdownAckSent => LifetimeClass::SctpShutdownAckSent,
            Self::Closed => LifetimeClass::SctpClosed,
        }
    }

    /// Returns the eviction class of a session in this state.
    #[must_use]
    pub const fn eviction_class(self) -> EvictionClass {
        match self {
            Self::InitSent | Self::CookieWait | Self::CookieEchoed => EvictionClass::Embryonic,
            Self::Established => EvictionClass::Assured,
            _ => EvictionClass::Closing,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::InitSent,
            1 => Self::CookieWait,
            2 => Self::CookieEchoed,
            3 => Self::Established,
            4 => Self::ShutdownSent,
            5 => Self::ShutdownRecd,
            6 => Self::ShutdownAckSent,
            _ => Self::Closed,
        }
    }
}

/// Kinds of chunks that the table distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// INIT.
    Init = 0,
    /// INIT ACK.
    InitAck = 1,
    /// COOKIE ECHO.
    CookieEcho = 2,
    /// COOKIE ACK.
    CookieAck = 3,
    /// DATA, SACK, HEARTBEAT, ERROR and all chunks that change no state.
    Other = 4,
    /// SHUTDOWN.
    Shutdown = 5,
    /// SHUTDOWN ACK.
    ShutdownAck = 6,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete = 7,
    /// ABORT.
    Abort = 8,
}

impl Event {
    /// All events, in the order of the table's rows.
    pub const ALL: [Self; 9] = [
        Self::Init,
        Self::InitAck,
        Self::CookieEcho,
        Self::CookieAck,
        Self::Other,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::ShutdownComplete,
        Self::Abort,
    ];

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::InitAck => "INIT ACK",
            Self::CookieEcho => "COOKIE ECHO",
            Self::CookieAck => "COOKIE ACK",
            Self::Other => "other",
            Self::Shutdown => "SHUTDOWN",
            Self::ShutdownAck => "SHUTDOWN ACK",
            Self::ShutdownComplete => "SHUTDOWN COMPLETE",
            Self::Abort => "ABORT",
        }
    }
}

/// Entry of the table for a chunk that carries the association's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// The chunk is accepted, and the lifetime refreshed.
    To(State),
    /// The chunk passes; state and lifetime do not change.
    Ignore,
    /// The chunk passes, and ends the session.
    End,
    /// The chunk opens a new session in place of this one.
    Reopen,
    /// The chunk is invalid.
    Invalid,
}

/// Returns the table.
#[must_use]
pub const fn transition(direction: Direction, event: Event, state: State) -> Cell {
    use Cell::{End, Ignore, Invalid, Reopen};
    const CW: Cell = Cell::To(State::CookieWait);
    const CE: Cell = Cell::To(State::CookieEchoed);
    const ES: Cell = Cell::To(State::Established);
    const SS: Cell = Cell::To(State::ShutdownSent);
    const SR: Cell = Cell::To(State::ShutdownRecd);
    const SA: Cell = Cell::To(State::ShutdownAckSent);
    const CL: Cell = Cell::To(State::Closed);
    const IG: Cell = Ignore;
    const IV: Cell = Invalid;
    const RO: Cell = Reopen;
    const EN: Cell = End;
    let original = matches!(direction, Direction::Original);
    //  InitSent, CookieWait, CookieEchoed, Established, ShutdownSent, ShutdownRecd,
    //  ShutdownAckSent, Closed
    let row: [Cell; 8] = match event {
        // Restart or collision: the endpoints decide, and the new handshake is tracked beside the
        // state.
        Event::Init => [IG, IG, IG, IG, IG, IG, IG, RO],
        // A repeated INIT ACK is discarded by its receiver (RFC 9260 5.2.3), and is invalid once
        // the association is up. One of another handshake does not reach the table.
        Event::InitAck => [CW, IG, IG, IV, IV, IV, IV, IV],
        // In the reply direction: a collision, where the responder has begun a handshake, too.
        Event::CookieEcho => [IV, CE, CE, IG, IG, IG, IG, IV],
        Event::CookieAck => [IV, IV, ES, ES, IG, IG, IG, IV],
        // There is no association before the COOKIE ECHO. Packets after the end are answered by an
        // ABORT.
        Event::Other => [IV, IV, CE, ES, SS, SR, SA, IG],
        // A SHUTDOWN of both ends at the same time changes nothing: both continue with SHUTDOWN ACK
        // (RFC 9260 9.2).
        Event::Shutdown if original => [IV, IV, IG, SS, SS, SR, SA, IG],
        Event::Shutdown => [IV, IV, IG, SR, SS, SR, SA, IG],
        Event::ShutdownAck => [IV, IV, IG, IV, SA, SA, SA, IG],
        Event::ShutdownComplete => [IV, IV, IV, IV, IV, IV, CL, IG],
        // The initiator gives up, or is refused: neither end has an association.
        Event::Abort if original => [CL, CL, CL, CL, CL, CL, CL, IG],
        Event::Abort => [EN, CL, CL, CL, CL, CL, CL, IG],
    };
    let [
        init_sent,
        cookie_wait,
        cookie_echoed,
        established,
        shutdown_sent,
        shutdown_recd,
        shutdown_ack_sent,
        closed,
    ] = row;
    match state {
        State::InitSent => init_sent,
        State::CookieWait => cookie_wait,
        State::CookieEchoed => cookie_echoed,
        State::Established => established,
        State::ShutdownSent => shutdown_sent,
        State::ShutdownRecd => shutdown_recd,
        State::ShutdownAckSent => shutdown_ack_sent,
        State::Closed => closed,
    }
}
