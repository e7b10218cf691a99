//! The group of targets: registration, health, and the target of each flow. No clock and no I/O.
//!
//! The behavior is that of AWS Gateway Load Balancer. A new flow goes to a healthy registered
//! target. An existing flow stays with its target, also if that one is unhealthy, draining or
//! deregistered, unless rebalancing is on: then it moves with its next packet. If no registered
//! target is healthy, all of them receive new flows (fail-open).
//!
//! A target is chosen by rendezvous hashing over the addresses and, by the stickiness, ports and
//! protocol of the flow. Only the new flows of a failed target therefore go to another one, and
//! they return when it recovers.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ahash::RandomState;
use clap::ValueEnum;
use lru::LruCache;
use serde::Serialize;

use super::health::{CheckResult, Health, HealthCheck, HealthState};
use super::inner::FlowKey;
use super::sticky::{Stickiness, StickyKey};

/// Maximum number of targets registered in the life of a group; one that is registered again counts
/// once.
pub(super) const MAX_TARGETS: usize = 64;
/// Changes that are kept for [`TargetGroup::take_changes`].
const MAX_CHANGES: usize = 1024;

/// Treatment of existing flows when their target fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Failover {
    /// Flows stay with the target until they time out
    NoRebalance,
    /// Flows move to a healthy target
    Rebalance,
}

/// Settings of a group.
#[derive(Debug, Clone)]
pub(super) struct GroupSettings {
    /// Fields by which flows share a target.
    pub(super) stickiness: Stickiness,
    /// Treatment of flows whose target is unhealthy.
    pub(super) on_unhealthy: Failover,
    /// Treatment of flows whose target is deregistered, after the delay.
    pub(super) on_deregistration: Failover,
    /// Time for which a deregistered target is draining.
    pub(super) deregistration_delay: Duration,
    /// Checks of the targets; `None` if all count as healthy.
    pub(super) health: Option<HealthCheck>,
    /// Idle time after which a sticky assignment is forgotten.
    pub(super) sticky_idle: Duration,
    /// Maximum number of remembered sticky assignments.
    pub(super) max_sticky: NonZeroUsize,
}

/// Index of a target in its group, valid for the life of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TargetId(u16);

/// Registration of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    Registered,
    /// Deregistered at a time in the future.
    Draining(Instant),
    Deregistered,
}

/// State of a target, under AWS' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum TargetState {
    /// Registered, and too few checks have ended.
    Initial,
    /// Registered and healthy.
    Healthy,
    /// Registered and unhealthy.
    Unhealthy,
    /// Deregistered, and the delay has not passed.
    Draining,
    /// Deregistered.
    Unused,
}

impl TargetState {
    const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Unused => "unused",
        }
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Change of a target's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Address of the target.
    pub(super) target: Ipv4Addr,
    /// New state.
    pub(super) state: TargetState,
    /// Last failure, if a check caused the change.
    pub(super) failure: Option<super::health::CheckFailure>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target {} is {}", self.target, self.state)?;
        match self.failure {
            Some(failure) => write!(f, ": {failure}"),
            None => Ok(()),
        }
    }
}

/// Reason for which a target cannot be registered or deregistered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    /// Replies carry no port, so the address names a target.
    #[error("{0} is already registered with another port")]
    OtherPort(Ipv4Addr),
    /// The target is registered.
    #[error("{0} is already registered")]
    Registered(Ipv4Addr),
    /// The target is not registered.
    #[error("{0} is not registered")]
    NotRegistered(Ipv4Addr),
    /// The group is full.
    #[error("more than {MAX_TARGETS} targets")]
    Full,
}

/// Counts of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TargetCounters {
    /// New flows.
    pub(super) new_flows: u64,
    /// Flows that moved here from another target.
    pub(super) moved_in: u64,
    /// Flows that moved to another target.
    pub(super) moved_out: u64,
    /// Packets that were sent.
    pub(super) sent: u64,
    /// Bytes of their inner packets.
    pub(super) sent_bytes: u64,
    /// Packets that returned unchanged.
    pub(super) returned: u64,
    /// Packets that did not return in time.
    pub(super) dropped: u64,
    /// RSTs, ICMP errors and challenges that the target created.
    pub(super) made: u64,
    /// Wrong replies from this target.
    pub(super) wrong: u64,
}

/// A target.
#[derive(Debug)]
struct Target {
    address: SocketAddrV4,
    registration: Registration,
    health: Health,
    /// Number of registrations. A check that began before the last one does not count.
    registrations: u32,
    next_check: Instant,
    counters: TargetCounters,
}

/// Check of a target that is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct DueCheck {
    pub(super) target: TargetId,
    /// Number of the target's registration at the time of the check.
    registration: u32,
    pub(super) address: Ipv4Addr,
}

impl Target {
    fn state(&self) -> TargetState {
        match (self.registration, self.health.state()) {
            (Registration::Draining(_), _) => TargetState::Draining,
            (Registration::Deregistered, _) => TargetState::Unused,
            (Registration::Registered, HealthState::Initial) => TargetState::Initial,
            (Registration::Registered, HealthState::Healthy) => TargetState::Healthy,
            (Registration::Registered, HealthState::Unhealthy) => TargetState::Unhealthy,
        }
    }
}

/// A target's figures, for users and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TargetReport {
    /// Address and port.
    pub(super) target: SocketAddrV4,
    /// State of registration and health.
    pub(super) state: TargetState,
    /// Live flows.
    pub(super) flows: u64,
    /// Checks that succeeded.
    pub(super) checks_passed: u64,
    /// Checks that failed.
    pub(super) checks_failed: u64,
    /// Counts.
    #[serde(flatten)]
    pub(super) counters: TargetCounters,
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = &self.counters;
        writeln!(f, "target {}, {}", self.target, self.state)?;
        writeln!(
            f,
            "{:>14} sent, {} returned, {} dropped, {} made, {} wrong",
            counters.sent, counters.returned, counters.dropped, counters.made, counters.wrong
        )?;
        writeln!(
            f,
            "{:>14} live flows, {} new, {} moved in, {} moved out",
            self.flows, counters.new_flows, counters.moved_in, counters.moved_out
        )?;
        writeln!(
            f,
            "{:>14} health checks passed, {} failed",
            self.checks_passed, self.checks_failed
        )
    }
}

/// Target of the flows that share a [`StickyKey`].
#[derive(Debug, Clone, Copy)]
struct Assignment {
    target: TargetId,
    last: Instant,
}

/// All targets.
pub(super) struct TargetGroup {
    settings: GroupSettings,
    targets: Vec<Target>,
    /// Targets of sticky keys; unused with five-tuples, whose flows keep their own.
    sticky: LruCache<StickyKey, Assignment, RandomState>,
    hasher: RandomState,
    /// The earliest end of a draining.
    drained: Option<Instant>,
    changes: VecDeque<Change>,
}

impl TargetGroup {
    /// Returns a group without targets. `hasher` distributes flows.
    pub(super) fn new(settings: GroupSettings, hasher: RandomState) -> Self {
        Self {
            targets: Vec::new(),
            sticky: LruCache::with_hasher(settings.max_sticky, hasher.clone()),
            hasher,
            drained: None,
            changes: VecDeque::new(),
            settings,
        }
    }

    /// Registers a target. Its first check is due immediately.
    ///
    /// # Errors
    /// Returns an error if the target is registered, with this or another port, or the group is
    /// full.
    pub(super) fn register(
        &mut self,
        now: Instant,
        address: SocketAddrV4,
    ) -> Result<(), TargetError> {
        self.advance(now);
        let checked = self.settings.health.is_some();
        let position = self.position(*address.ip());
        let known = position.and_then(|at| self.targets.get_mut(at));
        let state = if let Some(target) = known {
            if target.registration == Registration::Registered {
                return Err(if target.address == address {
                    TargetError::Registered(*address.ip())
                } else {
                    TargetError::OtherPort(*address.ip())
                });
            }
            target.registration = Registration::Registered;
            target.address = address;
            target.health.restart(checked);
            target.registrations += 1;
            target.next_check = now;
            target.state()
        } else {
            if self.targets.len() >= MAX_TARGETS {
                return Err(TargetError::Full);
            }
            let target = Target {
                address,
                registration: Registration::Registered,
                health: Health::new(checked),
                registrations: 1,
                next_check: now,
                counters: TargetCounters::default(),
            };
            let state = target.state();
            self.targets.push(target);
            state
        };
        self.find_drained();
        self.note(*address.ip(), state, None);
        Ok(())
    }

    /// Deregisters a target, which is draining for the delay.
    ///
    /// # Errors
    /// The target is not registered.
    pub(super) fn deregister(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
    ) -> Result<(), TargetError> {
        self.advance(now);
        let registered = self
            .targets
            .iter_mut()
            .find(|target| *target.address.ip() == address)
            .filter(|target| target.registration == Registration::Registered);
        let Some(target) = registered else {
            return Err(TargetError::NotRegistered(address));
        };
        target.registration = Registration::Draining(now + self.settings.deregistration_delay);
        self.note(address, TargetState::Draining, None);
        self.find_drained();
        self.advance(now);
        Ok(())
    }

    /// Ends the draining of targets whose delay has passed.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.drained.is_none_or(|drained| drained > now) {
            return;
        }
        let mut drained = Vec::new();
        for target in &mut self.targets {
            if matches!(target.registration, Registration::Draining(end) if end <= now) {
                target.registration = Registration::Deregistered;
                drained.push(*target.address.ip());
            }
        }
        for address in drained {
            self.note(address, TargetState::Unused, None);
        }
        self.find_drained();
    }

    fn find_drained(&mut self) {
        let ends = self
            .targets
            .iter()
            .filter_map(|target| match target.registration {
                Registration::Draining(end) => Some(end),
                Registration::Registered | Registration::Deregistered => None,
            });
        self.drained = ends.min();
    }

    fn note(
        &mut self,
        target: Ipv4Addr,
        state: TargetState,
        failure: Option<super::health::CheckFailure>,
    ) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push_back(Change {
                target,
                state,
                failure,
            });
        }
    }

    /// Takes the changes since the last call, oldest first.
    pub(super) fn take_changes(&mut self) -> VecDeque<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Returns the checks that are due, and schedules the next ones. Deregistered targets have
    /// none.
    pub(super) fn due_checks(&mut self, now: Instant) -> Vec<DueCheck> {
        let Some(check) = &self.settings.health else {
            return Vec::new();
        };
        let mut due = Vec::new();
        for (target, number) in self.targets.iter_mut().zip(0..) {
            if target.registration != Registration::Deregistered && target.next_check <= now {
                target.next_check = now + check.interval;
                due.push(DueCheck {
                    target: TargetId(number),
                    registration: target.registrations,
                    address: *target.address.ip(),
                });
            }
        }
        due
    }

    /// Records the result of a check, unless the target was registered again since it began.
    pub(super) fn checked(&mut self, due: DueCheck, result: CheckResult) {
        let Some(check) = &self.settings.health else {
            return;
        };
        let Some(target) = self.targets.get_mut(usize::from(due.target.0)) else {
            return;
        };
        if target.registrations != due.registration {
            return;
        }
        let changed = target.health.record(result.is_ok(), check);
        if changed.is_some() && target.registration == Registration::Registered {
            let (address, state) = (*target.address.ip(), target.state());
            self.note(address, state, result.err());
        }
    }

    /// Returns the target of a flow's packet: `current`, or another one if the flow is new or has
    /// to move. `None` if no target is registered.
    pub(super) fn route(
        &mut self,
        now: Instant,
        key: &FlowKey,
        current: Option<TargetId>,
    ) -> Option<TargetId> {
        self.advance(now);
        if let Some(current) = current
            && self.keeps_flows(current)
        {
            self.touch(now, key, current);
            return Some(current);
        }
        let chosen = self.choose(now, key, current).or(current)?;
        match current {
            None => self.count(chosen, |counters| counters.new_flows += 1),
            Some(current) if current != chosen => {
                self.count(chosen, |counters| counters.moved_in += 1);
                self.count(current, |counters| counters.moved_out += 1);
            }
            Some(_) => {}
        }
        Some(chosen)
    }

    /// Returns whether existing flows stay with a target.
    fn keeps_flows(&self, id: TargetId) -> bool {
        let Some(target) = self.targets.get(usize::from(id.0)) else {
            return false;
        };
        match target.registration {
            Registration::Deregistered => self.settings.on_deregistration == Failover::NoRebalance,
            Registration::Registered | Registration::Draining(_) => {
                target.health.state() != HealthState::Unhealthy
                    || self.settings.on_unhealthy == Failover::NoRebalance
            }
        }
    }

    /// Chooses a target for a new flow, or for one that leaves `from`.
    fn choose(&mut self, now: Instant, key: &FlowKey, from: Option<TargetId>) -> Option<TargetId> {
        let healthy = |target: &Target| target.state() == TargetState::Healthy;
        let registered = |target: &Target| target.registration == Registration::Registered;
        let any_healthy = self.targets.iter().any(healthy);
        let eligible = |target: &Target| {
            if any_healthy {
                healthy(target)
            } else {
                registered(target)
            }
        };
        // Without a healthy target, a move from one that still receives packets has no benefit.
        let stays = from.and_then(|from| self.targets.get(usize::from(from.0)));
        if !any_healthy
            && stays.is_some_and(|target| target.registration != Registration::Deregistered)
        {
            return from;
        }
        let sticky = StickyKey::new(key, self.settings.stickiness);
        let five_tuple = self.settings.stickiness == Stickiness::FiveTuple;
        if !five_tuple
            && let Some(assignment) = self.sticky.get_mut(&sticky)
            && now.saturating_duration_since(assignment.last) < self.settings.sticky_idle
            && self
                .targets
                .get(usize::from(assignment.target.0))
                .is_some_and(eligible)
        {
            assignment.last = now;
            return Some(assignment.target);
        }
        let (_, number) = self
            .targets
            .iter()
            .zip(0..)
            .filter(|(target, _)| eligible(target))
            .max_by_key(|(target, _)| self.hasher.hash_one((sticky, target.address.ip())))?;
        let target = TargetId(number);
        if !five_tuple {
            self.sticky.push(sticky, Assignment { target, last: now });
        }
        Some(target)
    }

    /// Keeps the sticky assignment of a live flow.
    fn touch(&mut self, now: Instant, key: &FlowKey, target: TargetId) {
        if self.settings.stickiness == Stickiness::FiveTuple {
            return;
        }
        let sticky = StickyKey::new(key, self.settings.stickiness);
        if let Some(assignment) = self.sticky.get_mut(&sticky)
            && assignment.target == target
        {
            assignment.last = now;
        }
    }

    /// Changes the counts of a target.
    pub(super) fn count(&mut self, id: TargetId, change: impl FnOnce(&mut TargetCounters)) {
        if let Some(target) = self.targets.get_mut(usize::from(id.0)) {
            change(&mut target.counters);
        }
    }

    fn position(&self, address: Ipv4Addr) -> Option<usize> {
        self.targets
            .iter()
            .position(|target| *target.address.ip() == address)
    }

    /// Returns the target with this address, registered or not.
    pub(super) fn find(&self, address: Ipv4Addr) -> Option<TargetId> {
        self.position(address).map(|at| TargetId(at as u16))
    }

    /// Returns a target's address and port.
    pub(super) fn address(&self, id: TargetId) -> Option<SocketAddrV4> {
        self.targets
            .get(usize::from(id.0))
            .map(|target| target.address)
    }

    /// Returns all targets' figures; `live` are the targets of live flows.
    pub(super) fn report(&self, live: impl Iterator<Item = TargetId>) -> Vec<TargetReport> {
        let mut reports: Vec<TargetReport> = self
            .targets
            .iter()
            .map(|target| TargetReport {
                target: target.address,
                state: target.state(),
                flows: 0,
                checks_passed: target.health.passed,
                checks_failed: target.health.failed,
                counters: target.counters,
            })
            .collect();
        for id in live {
            if let Some(report) = reports.get_mut(usize::from(id.0)) {
                report.flows += 1;
            }
        }
        reports
    }
}
