//! Sessions in versions 1 and 2 of the stream, which are read but no longer written.

use core::net::IpAddr;

use serde::Deserialize;

use super::{SavedControl, SavedSession, SavedState};
use crate::flow::Variant;
use crate::ftp::SessionEnds;

/// The version of the stream whose chunks have these sessions.
pub(super) const NUMBER: u32 = 2;

/// A session. The fields are those of [`SavedSession`], in the order of that version.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct SecondSession {
    zone: u16,
    protocol: u8,
    src: IpAddr,
    src_port: u16,
    dst: IpAddr,
    dst_port: u16,
    variant: Variant,
    age_us: u64,
    idle_us: u64,
    left_us: u64,
    state: SavedState,
    flags: u8,
    history: u64,
    marks: u8,
    packets: [u32; 2],
    bytes: [u64; 2],
    rule: u16,
    parent: Option<SessionEnds>,
    control: Option<SecondControl>,
    tunnels: [u64; 2],
}

/// Saved position at which a control session continues.
#[derive(Debug, Clone, Copy, Deserialize)]
struct SecondControl {
    lines: Option<[u32; 2]>,
    at_rest: bool,
    encrypted: bool,
    stopped: [Option<u32>; 2],
}

impl From<SecondControl> for SavedControl {
    fn from(control: SecondControl) -> Self {
        Self {
            lines: control.lines,
            at_rest: control.at_rest,
            encrypted: control.encrypted,
            stopped: control.stopped,
            bare_lf: false,
            progress: None,
        }
    }
}

impl From<SecondSession> for SavedSession {
    fn from(session: SecondSession) -> Self {
        Self {
            zone: session.zone,
            protocol: session.protocol,
            src: session.src,
            src_port: session.src_port,
            dst: session.dst,
            dst_port: session.dst_port,
            variant: session.variant,
            age_us: session.age_us,
            idle_us: session.idle_us,
            left_us: session.left_us,
            state: session.state,
            flags: session.flags,
            history: session.history,
            marks: session.marks,
            packets: session.packets,
            bytes: session.bytes,
            rule: session.rule,
            parent: session.parent,
            control: session.control.map(SavedControl::from),
            tunnels: session.tunnels,
            uid: None,
        }
    }
}
