//! The packet tracer: the steps that led to a decision.
//!
//! The packet path is generic over a `Trace`. With `()` tracing compiles to nothing; with a
//! `Vec<Step>` every bound, value and rule that was examined is recorded. Each [`Step`] prints as a
//! readable line.

use core::fmt;
use std::time::Duration;

use crate::event::HelperNote;
use crate::flow::{Direction, FlowKey};
pub use crate::fragment::DatagramKey;
use crate::limits::{Exceeded, Limit};
use crate::packet::{
    DccpPacket, GreKey, IpVersion, Malformed, PROTOCOL_GRE, Parsed, SctpPacket, Segment, Transport,
};
use crate::session::{EndReason, SessionId, SessionRecord};
use crate::track::LifetimeClass;
pub use crate::track::tcp::{Bound, BoundCheck, Cell, Side, Step as TcpStep};
use crate::verdict::Verdict;

/// Receives the steps of a decision.
pub(crate) trait Trace {
    /// Whether steps are recorded: with `false` they are not even created.
    const ON: bool;

    fn step(&mut self, step: impl FnOnce() -> Step);
}

impl Trace for () {
    const ON: bool = false;

    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}
}

impl Trace for Vec<Step> {
    const ON: bool = true;

    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.push(step());
    }
}

/// A step of a decision.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// The packet is well-formed, with these headers.
    Parsed(Box<Parsed>),
    /// The packet is malformed.
    Malformed(Malformed),
    /// The flow of the packet by its addresses, and the shard that would hold its session.
    Key(FlowKey, usize),
    /// The session was found.
    Found {
        /// The session before this packet.
        session: Box<SessionRecord>,
        /// The packet's direction in the session.
        direction: Direction,
        /// Time since the session's last packet.
        idle: Duration,
        /// Time until the session would end.
        left: Duration,
    },
    /// No session has this key.
    Miss,
    /// A session was found, but its lifetime had passed.
    Ended(Box<SessionRecord>, EndReason),
    /// The sequence numbers that a TCP end has sent and allowed.
    Side(&'static str, Direction, Side),
    /// A step of the TCP checks.
    Tcp(TcpStep),
    /// The state before and after.
    State(&'static str, &'static str),
    /// A rule was evaluated.
    Policy(String),
    /// The session would exceed a limit.
    Limit(Exceeded),
    /// A session was opened.
    Opened(Box<SessionRecord>),
    /// The lifetime from now on: its class, its cap and its length.
    Lifetime {
        /// The class of the session's state.
        class: LifetimeClass,
        /// The class that caps the lifetime.
        cap: Option<LifetimeClass>,
        /// Length of the lifetime.
        lifetime: Duration,
        /// Lifetime profile: 0 is the global one, n the n-th override.
        profile: u8,
    },
    /// The lifetime is shorter than that of its class, because the table is filling up.
    Shortened {
        /// Length of the lifetime.
        lifetime: Duration,
        /// Sessions in the table.
        sessions: usize,
    },
    /// The lifetime was not refreshed, with the reason.
    NotRefreshed(&'static str),
    /// The datagram of a fragment, and its effect on the fragment.
    Datagram(DatagramKey, &'static str),
    /// The session was found in another zone.
    Elsewhere(FlowKey),
    /// A session of this conversation has ended; the reason, and the time since then.
    Buried(SessionId, EndReason, Duration),
    /// A helper has found something in the packet's payload.
    Helper(Box<HelperNote>),
    /// A remark on the decision.
    Note(&'static str),
    /// The verdict.
    Verdict(Verdict),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parsed(parsed) => write_parsed(f, parsed),
            Self::Malformed(malformed) => {
                write!(
                    f,
                    "malformed: {}: {}",
                    malformed.name(),
                    malformed.describe()
                )
            }
            Self::Key(key, shard) => write!(f, "flow: {key}, shard {shard}"),
            Self::Found {
                session,
                direction,
                idle,
                left,
            } => write!(
                f,
                "session {} found, {direction} direction: {}; idle for {idle:?}, {left:?} left",
                session.id,
                Ends(session),
            ),
            Self::Miss => f.write_str("no session has this key"),
            Self::Ended(session, reason) => write!(
                f,
                "session {} has ended ({}): {}",
                session.id,
                reason.name(),
                Ends(session)
            ),
            Self::Side(when, direction, side) => {
                write!(f, "{when}: {direction} end: ")?;
                write_side(f, side)
            }
            Self::Tcp(step) => write_tcp_step(f, step),
            Self::Note(note) => f.write_str(note),
            Self::Elsewhere(key) => write!(f, "its session is in another zone: {key}"),
            Self::Buried(session, reason, ago) => write!(
                f,
                "session {session} has ended {ago:?} ago ({})",
                reason.name()
            ),
            Self::Helper(note) => {
                write!(f, "helper: {}, {} direction", note.event, note.from)?;
                match &note.expectation {
                    Some(expectation) => write!(f, ": {expectation}"),
                    None => Ok(()),
                }
            }
            Self::Datagram(key, what) => write!(f, "{key}: {what}"),
            Self::State(before, after) if before == after => write!(f, "state stays {after}"),
            Self::State(before, after) => write!(f, "state {before} -> {after}"),
            Self::Policy(text) => write!(f, "policy: {text}"),
            Self::Shortened { lifetime, sessions } => write!(
                f,
                "lifetime shortened to {lifetime:?}: the table has {sessions} sessions \
                 (table.adaptive_start)"
            ),
            Self::Limit(exceeded) => write_limit(f, exceeded),
            Self::Opened(session) => write!(f, "session {} opened: {}", session.id, Ends(session)),
            Self::Lifetime {
                class,
                cap,
                lifetime,
                profile,
            } => {
                write!(f, "lifetime {lifetime:?} ({}", class.name())?;
                if let Some(cap) = cap {
                    write!(f, ", at most {}", cap.name())?;
                }
                write_profile(f, *profile)
            }
            Self::NotRefreshed(why) => write!(f, "lifetime not refreshed: {why}"),
            Self::Verdict(verdict) => write_verdict(f, verdict),
        }
    }
}

/// Writes the end of a line about a lifetime: the part of the configuration that sets the lifetime.
fn write_profile(f: &mut fmt::Formatter<'_>, profile: u8) -> fmt::Result {
    match profile {
        0 => f.write_str(", global)"),
        n => write!(f, ", lifetimes.override[{}])", n - 1),
    }
}

fn write_side(f: &mut fmt::Formatter<'_>, side: &Side) -> fmt::Result {
    write!(
        f,
        "sent up to {}, may send up to {}, window {} (scale {}), expects {}",
        side.peer.end, side.peer.max_end, side.peer.max_window, side.scale, side.peer.max_ack
    )
}

fn write_tcp_step(f: &mut fmt::Formatter<'_>, step: &TcpStep) -> fmt::Result {
    match step {
        TcpStep::Transition {
            event,
            direction,
            state,
            cell,
        } => {
            write!(
                f,
                "transition: {} in {direction} direction in {}: ",
                event.name(),
                state.name()
            )?;
            match cell {
                Cell::To(next) => write!(f, "to {}", next.name()),
                Cell::Ignore => f.write_str("passed without belief"),
                Cell::Reopen => f.write_str("may open a new connection"),
                Cell::Invalid => f.write_str("invalid"),
            }
        }
        TcpStep::Rst { seq, expected } => {
            write!(
                f,
                "RST carries {seq}, its receiver expects exactly {expected}"
            )
        }
        TcpStep::Bound(check) => write!(
            f,
            "bound {}: value {}, limit {}: {}",
            check.bound.describe(),
            check.value,
            check.limit,
            if check.holds { "holds" } else { "BROKEN" }
        ),
        TcpStep::Note(note) => f.write_str(note),
    }
}

fn write_limit(f: &mut fmt::Formatter<'_>, exceeded: &Exceeded) -> fmt::Result {
    match exceeded {
        Exceeded {
            limit: Limit::SourceShare,
            value,
            count,
            ..
        } => write!(
            f,
            "limit source_share: the source has {count} sessions, and {value} slots are left for \
             others"
        ),
        Exceeded {
            limit: Limit::ZoneShare,
            value,
            count,
            ..
        } => write!(
            f,
            "limit zone_share: the zone has {count} sessions and is guaranteed {value}; the rest \
             is taken"
        ),
        exceeded => write!(
            f,
            "limit {} of {}: {}, and {} are counted",
            exceeded.limit.name(),
            exceeded.scope.describe(),
            exceeded.value,
            exceeded.count
        ),
    }
}

fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    write!(
        f,
        "verdict: {}, {}",
        verdict.name(),
        verdict.tracked().class.name()
    )?;
    if let Some(direction) = verdict.tracked().direction {
        write!(f, ", {direction}")?;
    }
    if let Some(tolerated) = verdict.tracked().tolerated {
        write!(f, ": tolerated {tolerated}: {}", tolerated.describe())?;
    }
    if let Some(reason) = verdict.reason() {
        write!(f, ": {reason}: {}", reason.describe())?;
    }
    match verdict.tracked().late {
        Some(late) => write!(
            f,
            " It ended {:?} ago ({}).",
            late.ago(),
            late.reason.name()
        ),
        None => Ok(()),
    }
}

/// The ends of a session and the traffic between them.
struct Ends<'a>(&'a SessionRecord);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        write!(
            f,
            "zone {} protocol {} {}#{} -> {}#{} {} [{}], {} packets {} bytes there, {} packets {} \
             bytes back",
            s.zone,
            s.protocol,
            s.src,
            s.src_port,
            s.dst,
            s.dst_port,
            s.state,
            s.history,
            s.original.packets,
            s.original.bytes,
            s.reply.packets,
            s.reply.bytes
        )?;
        match s.tunnel {
            [None, None] => Ok(()),
            [there, back] => {
                let name = if s.protocol == PROTOCOL_GRE {
                    "key"
                } else {
                    "SPI"
                };
                write!(
                    f,
                    ", {name} {} there, {} back",
                    TunnelId(there),
                    TunnelId(back)
                )
            }
        }
    }
}

/// Tunnel identifier of a direction of a session.
struct TunnelId(Option<u32>);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{id:#x}"),
            None => f.write_str("none"),
        }
    }
}

fn write_segment(
    f: &mut fmt::Formatter<'_>,
    src_port: u16,
    dst_port: u16,
    segment: &Segment,
) -> fmt::Result {
    write!(
        f,
        "TCP {src_port} -> {dst_port} [{}] seq {} ack {} window {} payload {}",
        segment.flags, segment.seq, segment.ack, segment.window, segment.payload_len
    )?;
    if let Some(scale) = segment.options.window_scale {
        write!(f, " wscale {scale}")?;
    }
    for (left, right) in segment.options.sack.iter() {
        write!(f, " sack {left}-{right}")?;
    }
    Ok(())
}

fn write_sctp(
    f: &mut fmt::Formatter<'_>,
    src_port: u16,
    dst_port: u16,
    packet: &SctpPacket,
) -> fmt::Result {
    write!(
        f,
        "SCTP {src_port} -> {dst_port} tag {:#010x} [{}]",
        packet.tag, packet.chunks
    )?;
    if packet.initiate_tag != 0 {
        write!(f, " initiate tag {:#010x}", packet.initiate_tag)?;
    }
    f.write_str(if packet.reflected { " T" } else { "" })
}

fn write_dccp(
    f: &mut fmt::Formatter<'_>,
    src_port: u16,
    dst_port: u16,
    packet: &DccpPacket,
) -> fmt::Result {
    write!(f, "DCCP {src_port} -> {dst_port} {}", packet.kind.name())?;
    if let Some(seq) = packet.seq {
        write!(f, " seq {seq}")?;
    }
    if let Some(ack) = packet.ack {
        write!(f, " ack {ack}")?;
    }
    write!(f, " payload {}", packet.payload_len)
}

fn write_gre(f: &mut fmt::Formatter<'_>, key: GreKey, protocol: u16) -> fmt::Result {
    match key {
        GreKey::None => f.write_str("GRE without a key")?,
        GreKey::Key(key) => write!(f, "GRE key {key:#x}")?,
        GreKey::CallId(id) => write!(f, "GRE call {id:#x}")?,
    }
    write!(f, " protocol type {protocol:#06x}")
}

fn write_parsed(f: &mut fmt::Formatter<'_>, parsed: &Parsed) -> fmt::Result {
    let ip = &parsed.ip;
    let version = match ip.version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    };
    write!(
        f,
        "packet: {version} {} -> {} protocol {} length {} ttl {}: ",
        ip.source(),
        ip.destination(),
        ip.protocol,
        ip.total_len,
        ip.ttl
    )?;
    match &parsed.transport {
        Transport::Tcp {
            src_port,
            dst_port,
            segment,
        } => write_segment(f, *src_port, *dst_port, segment),
        Transport::Udp {
            src_port,
            dst_port,
            payload_len,
        } => {
            write!(f, "UDP {src_port} -> {dst_port} payload {payload_len}")
        }
        Transport::Sctp {
            src_port,
            dst_port,
            packet,
        } => write_sctp(f, *src_port, *dst_port, packet),
        Transport::Dccp {
            src_port,
            dst_port,
            packet,
        } => write_dccp(f, *src_port, *dst_port, packet),
        Transport::Gre { key, protocol } => write_gre(f, *key, *protocol),
        Transport::Esp { spi } => write!(f, "ESP SPI {spi:#010x}"),
        Transport::Ah { spi } => write!(f, "AH SPI {spi:#010x}"),
        Transport::IcmpQuery(query) => write!(
            f,
            "ICMP {:?} {} id {}",
            query.kind,
            if query.request { "request" } else { "reply" },
            query.id
        ),
        Transport::IcmpError(error) => write!(
            f,
            "ICMP error type {} code {} about {} -> {} protocol {} {:?}",
            error.icmp_type,
            error.code,
            error.quoted.version.address(error.quoted.src),
            error.quoted.version.address(error.quoted.dst),
            error.quoted.protocol,
            error.quoted.transport
        ),
        Transport::Discovery { kind } => write!(f, "ICMPv6 discovery type {kind}"),
        Transport::IcmpOther { kind, code } => write!(f, "ICMP type {kind} code {code}"),
        Transport::Fragment(fragment) => write!(
            f,
            "fragment of {:#x}: {} bytes at {}{}",
            fragment.id,
            fragment.payload_len,
            fragment.offset,
            if fragment.more {
                ", more to come"
            } else {
                ", the last"
            }
        ),
        Transport::Other => f.write_str("no ports"),
    }
}
