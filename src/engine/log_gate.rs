//! Gate that keeps new sessions out while their log cannot be written.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::policy::{CompiledPolicy, RuleId};

/// Fault of a session log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogFault {
    /// A record of a session was lost.
    RecordLost = 1,
    /// The writer of the log cannot write.
    WriterFails = 2,
}

/// Gate that keeps new sessions out while the log of the engine's user cannot be written.
///
/// The engine writes no log. Its user reports faults here: the gate is closed while there is at
/// least one, and open at first. While it is closed, a packet that would open a session is dropped
/// ([`DropReason::LogUnavailable`](crate::DropReason::LogUnavailable)). Sessions that exist go on,
/// and so do restored ones. A packet of a session does not read the gate; the first packet of a
/// new one reads an atomic integer.
#[derive(Debug, Default)]
pub struct LogGate {
    /// A bit for each fault.
    faults: AtomicU8,
    /// Only sessions of rules that ask for a log are kept out.
    marked_only: AtomicBool,
}

impl LogGate {
    /// Closes the gate until the fault is [cleared](Self::clear).
    pub fn report(&self, fault: LogFault) {
        self.faults.fetch_or(fault as u8, Ordering::Relaxed);
    }

    /// Clears a fault. The gate opens if there is no other.
    pub fn clear(&self, fault: LogFault) {
        self.faults.fetch_and(!(fault as u8), Ordering::Relaxed);
    }

    /// Returns whether a fault was reported and not cleared since.
    #[must_use]
    pub fn has(&self, fault: LogFault) -> bool {
        self.faults.load(Ordering::Relaxed) & fault as u8 != 0
    }

    /// Returns whether there is any fault.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.faults.load(Ordering::Relaxed) != 0
    }

    /// Sets whether a closed gate keeps out only the sessions of rules that ask for a log
    /// ([`CompiledPolicy::logs`]); by default, it keeps out all.
    pub fn set_marked_only(&self, marked_only: bool) {
        self.marked_only.store(marked_only, Ordering::Relaxed);
    }

    /// Returns whether the gate keeps out a session that a rule admits.
    #[inline]
    pub(super) fn bars(&self, policy: &CompiledPolicy, rule: RuleId) -> bool {
        self.is_closed() && (!self.marked_only.load(Ordering::Relaxed) || policy.logs(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_closed_until_every_fault_is_cleared() {
        let gate = LogGate::default();
        assert!(!gate.is_closed());
        gate.report(LogFault::RecordLost);
        gate.report(LogFault::RecordLost);
        gate.report(LogFault::WriterFails);
        gate.clear(LogFault::RecordLost);
        assert!(gate.is_closed() && gate.has(LogFault::WriterFails));
        assert!(!gate.has(LogFault::RecordLost));
        gate.clear(LogFault::WriterFails);
        assert!(!gate.is_closed());
    }
}
