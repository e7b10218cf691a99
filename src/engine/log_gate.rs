//! Gate that keeps new sessions out while their log cannot be written.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::policy::{CompiledPolicy, RuleId};

/// Fault of a session log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogFault {
    /// Records of sessions were lost, or would be if further sessions were admitted.
    QueueFull = 1,
    /// The writer of the log cannot write.
    WriterFails = 2,
    /// There is no writer of the log.
    NoWriter = 4,
}

/// Sessions that a closed [`LogGate`] keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum LogScope {
    /// All sessions.
    #[default]
    All,
    /// Sessions of rules that ask for a log ([`CompiledPolicy::logs`]).
    Marked,
    /// Sessions of rules that ask for a log, and those that only
    /// [`Action::Audit`](crate::policy::Action::Audit) admits.
    MarkedAndAudited,
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
    /// The [`LogScope`].
    scope: AtomicU8,
}

impl LogGate {
    /// Closes the gate until the fault is [cleared](Self::clear).
    pub fn report(&self, fault: LogFault) {
        // Read first: every record that is lost reports its loss.
        if !self.has(fault) {
            self.faults.fetch_or(fault as u8, Ordering::Relaxed);
        }
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

    /// Sets which sessions a closed gate keeps out; by default, all.
    pub fn set_scope(&self, scope: LogScope) {
        self.scope.store(scope as u8, Ordering::Relaxed);
    }

    /// Returns whether the gate keeps out a session that a rule admits; `audited` if only the
    /// action `audit` admits it.
    #[inline]
    pub(super) fn bars(&self, policy: &CompiledPolicy, rule: RuleId, audited: bool) -> bool {
        self.is_closed() && self.includes(policy, rule, audited)
    }

    #[cold]
    fn includes(&self, policy: &CompiledPolicy, rule: RuleId, audited: bool) -> bool {
        let scope = self.scope.load(Ordering::Relaxed);
        scope == LogScope::All as u8
            || policy.logs(rule)
            || (audited && scope == LogScope::MarkedAndAudited as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_closed_until_every_fault_is_cleared() {
        let gate = LogGate::default();
        assert!(!gate.is_closed());
        gate.report(LogFault::QueueFull);
        gate.report(LogFault::QueueFull);
        gate.report(LogFault::WriterFails);
        gate.clear(LogFault::QueueFull);
        assert!(gate.is_closed() && gate.has(LogFault::WriterFails));
        assert!(!gate.has(LogFault::QueueFull));
        gate.clear(LogFault::WriterFails);
        assert!(!gate.is_closed());
    }
}
