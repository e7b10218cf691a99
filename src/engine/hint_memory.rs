//! Memory of the tables that hold hints about flows and sources.

use super::challenge;
use super::ended::EndedSessions;
use super::one_way::CutHandshakes;
use super::zone_hints::ZoneHints;

/// Returns the maximum size of all hints in bytes: hints about sessions of other zones, cut
/// handshakes, ended sessions and further paths of SCTP associations.
pub(crate) fn hint_bytes(max_sessions: usize, zones: usize) -> usize {
    ZoneHints::bytes(max_sessions, zones)
        + CutHandshakes::bytes(max_sessions)
        + EndedSessions::bytes(max_sessions)
}

/// Returns the bytes of the table of validated sources.
pub(crate) fn known_source_bytes(max: usize) -> usize {
    challenge::known_source_bytes(max)
}
