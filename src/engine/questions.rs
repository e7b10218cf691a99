//! Open questions to the store that engines share, and their bounds.
//!
//! All memory is allocated at the start. Questions are kept in a [`Ring`] for those that packets
//! wait for, and one for those about owners. The packets themselves are with the caller
//! ([`HeldPackets`](super::HeldPackets)); they are counted here.
//!
//! A sender that provokes questions is bounded by the budget of its source, and all sources of a
//! zone leave the guarantees of other zones ([`QuestionBudget`]). Open questions and held packets
//! have shares as well ([`QuestionShares`](super::question_shares)). A flow of which the store has
//! nothing is remembered by a keyed hash, and is not asked about again for some time.
//!
//! Locks: the ring has one mutex, a leaf lock under a shard's lock, held for a few instructions.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::budget::Destination;
use super::nothing::NothingMemory;
use super::question_budget::QuestionBudget;
use super::question_ring::{Asked, Asking, Bounds, Entry, Payment, Ring, State, is_about_owner};
use super::question_shares::{Load, Payer};
use crate::config::ContinuityConfig;
use crate::flow::{End, FlowKey, Zone};
use crate::fragment::HoldId;
use crate::fragment::id::HoldCause;
use crate::question::{Answered, QuestionKind, QuestionStats, Unasked};
use crate::reserve::NoMemory;
use crate::session::Micros;

/// Number of questions that a new one gives up, if their time is over.
const GIVEN_UP: usize = 16;

/// The most questions of owners that are open at once.
const MAX_OWNERS: u32 = 4_096;

/// The time for which the end of a session waits for the answer to a question of its owner.
pub(super) const OWNER_MICROS: u64 = 1_000_000;

/// A question that is being answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) kind: QuestionKind,
    pub(super) flow: FlowKey,
    pub(super) sender: End,
    payment: Payment,
}

/// Returns the name of a source in the budget.
const fn account_of(payer: &Payer) -> Destination {
    Destination {
        zone: payer.zone,
        address: payer.source,
    }
}

/// All questions of an engine.
#[derive(Debug)]
pub(super) struct Questions {
    bounds: Bounds,
    hold_micros: u64,
    ring: Mutex<Ring>,
    /// Questions about sessions that are about to end; no packets wait for them.
    owners: Mutex<Ring>,
    /// Number of open questions that packets wait for. While it is 0, the lock need not be taken.
    open: AtomicUsize,
    budget: QuestionBudget,
    nothing: NothingMemory,
    asked: [AtomicU64; QuestionKind::ALL.len()],
    answered: [AtomicU64; Answered::ALL.len()],
    unasked: [AtomicU64; Unasked::ALL.len()],
    late: AtomicU64,
    timed_out: AtomicU64,
    packets_held: AtomicU64,
}

fn bump(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Questions {
    /// Returns the bytes that the questions of a configuration take.
    pub(super) const fn bytes(config: &ContinuityConfig) -> usize {
        Ring::bytes(config.max_questions)
            + Ring::bytes(MAX_OWNERS)
            + NothingMemory::bytes(config)
            + QuestionBudget::bytes()
    }

    pub(super) fn new(
        config: &ContinuityConfig,
        hasher: &ahash::RandomState,
    ) -> Result<Self, NoMemory> {
        let hold = config.hold.as_micros();
        Ok(Self {
            bounds: Bounds {
                packets_per_flow: config.max_held_per_flow,
                bytes_per_flow: u64::from(config.max_held_bytes_per_flow),
            },
            hold_micros: u64::try_from(hold).unwrap_or(u64::MAX),
            ring: Mutex::new(Ring::new(Load::most(config), hasher)?),
            owners: Mutex::new(Ring::new(Load::new(MAX_OWNERS.into(), 0, 0), hasher)?),
            open: AtomicUsize::new(0),
            budget: QuestionBudget::new(config, hasher)?,
            nothing: NothingMemory::new(config, hasher.clone())?,
            asked: Default::default(),
            answered: Default::default(),
            unasked: Default::default(),
            late: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            packets_held: AtomicU64::new(0),
        })
    }

    /// Runs a function under the lock, and records the number of open questions that it leaves.
    fn with<R>(&self, run: impl FnOnce(&mut Ring) -> R) -> R {
        let mut ring = self.ring.lock();
        let result = run(&mut ring);
        self.open.store(ring.open(), Ordering::Relaxed);
        result
    }

    /// Returns whether a flow was asked about not long ago, in vain. The packet is counted as
    /// decided without a question then.
    pub(super) fn is_in_vain(&self, flow: &FlowKey, kind: QuestionKind, now: Micros) -> bool {
        let found = self.nothing.contains(flow, kind, now);
        if found {
            bump(self.unasked.get(Unasked::Nothing as usize));
        }
        found
    }

    /// Returns whether no question may be asked about a packet of a source at this moment, and its
    /// flow has no open question either. The packet is counted as decided without a question then.
    pub(super) fn is_refused(
        &self,
        flow: &FlowKey,
        source: u128,
        now: Micros,
        zones: &[Zone],
    ) -> bool {
        let account = Destination {
            zone: flow.zone(),
            address: source,
        };
        let refusal = self.budget.refusal(account, now, zones);
        let refused =
            refusal.filter(|_| self.open() == 0 || !self.ring.lock().by_flow.contains_key(flow));
        if let Some(reason) = refused {
            bump(self.unasked.get(reason as usize));
        }
        refused.is_some()
    }

    /// Asks a question, or joins a packet to the open question of its flow.
    ///
    /// # Errors
    /// Returns the bound that is reached, which is counted.
    pub(super) fn ask(&self, asking: &Asking, zones: &[Zone]) -> Result<Asked, Unasked> {
        let asked = self.with(|ring| {
            if let Some(place) = ring.by_flow.get(&asking.flow).copied() {
                return self.join(ring, place, asking, zones.len());
            }
            ring.expire(asking.now, GIVEN_UP, |entry| {
                self.give_up(entry, asking.now)
            });
            self.begin(ring, asking, zones)
        });
        match &asked {
            Ok(asked) => {
                bump(Some(&self.packets_held));
                if asked.is_new {
                    bump(self.asked.get(asking.kind as usize));
                }
            }
            Err(reason) => bump(self.unasked.get(*reason as usize)),
        }
        asked
    }

    fn join(
        &self,
        ring: &mut Ring,
        place: usize,
        asking: &Asking,
        zones: usize,
    ) -> Result<Asked, Unasked> {
        let entry = ring.at(place).copied();
        if let Some(entry) = entry.filter(|entry| entry.is_over(asking.now)) {
            self.give_up(&entry, asking.now);
            ring.close(place, State::GivenUp);
            return Err(Unasked::Nothing);
        }
        ring.join(place, asking, self.bounds, zones)
    }

    fn begin(&self, ring: &mut Ring, asking: &Asking, zones: &[Zone]) -> Result<Asked, Unasked> {
        if u64::from(asking.bytes) > self.bounds.bytes_per_flow {
            return Err(Unasked::HeldPerFlow);
        }
        let place = ring.free_place().ok_or(Unasked::Questions)?;
        let zone = asking.flow.zone();
        let payer = Payer::new(zone, asking.source, zones);
        let load = Load::new(1, 1, asking.bytes.into());
        ring.shares.claim(&payer, zones.len(), load)?;
        let paid = match self.budget.take(account_of(&payer), asking.now, zones) {
            Ok(paid) => Some(paid),
            Err(reason) => {
                ring.shares.release(&payer, load);
                return Err(reason);
            }
        };
        let payment = Payment { payer, paid };
        let deadline = Micros(asking.now.0.saturating_add(self.hold_micros));
        let id = ring.insert(place, asking, deadline, payment);
        Ok(Asked { id, is_new: true })
    }

    /// Notes that a question has no answer in time.
    fn give_up(&self, entry: &Entry, now: Micros) {
        bump(Some(&self.timed_out));
        self.nothing.remember(&entry.flow, entry.kind, now);
    }

    /// Asks whether this engine still owns a session that is about to end. `None` if as many such
    /// questions are open as may be, or one about this session: the session ends without it.
    pub(super) fn ask_owner(&self, flow: &FlowKey, now: Micros) -> Option<HoldId> {
        let asking = Asking {
            kind: QuestionKind::Owner,
            flow: *flow,
            sender: End::Low,
            cause: HoldCause::Tcp,
            bytes: 0,
            source: 0,
            now,
        };
        let mut owners = self.owners.lock();
        owners.expire(now, GIVEN_UP, |_| bump(Some(&self.timed_out)));
        if owners.by_flow.contains_key(flow) {
            return None;
        }
        let place = owners.free_place()?;
        // No sender causes these, so each counts for itself.
        let payer = Payer::new(flow.zone(), place as u128, &[]);
        owners.shares.claim(&payer, 0, Load::new(1, 0, 0)).ok()?;
        let deadline = Micros(now.0.saturating_add(OWNER_MICROS));
        let payment = Payment { payer, paid: None };
        let id = owners.insert(place, &asking, deadline, payment);
        bump(self.asked.get(QuestionKind::Owner as usize));
        Some(id)
    }

    /// Begins the answer to a question, which no other answer can begin then;
    /// [`Questions::end_answer`] must follow. `None` if there is no such question.
    pub(super) fn begin_answer(&self, id: HoldId, now: Micros) -> Option<Pending> {
        let begin = |ring: &mut Ring| {
            let entry = ring.named(id)?;
            if entry.state == State::Open && entry.is_over(now) {
                // No newer question has given this one up. New packets wait for it no longer.
                bump(Some(&self.timed_out));
                ring.close_named(id, State::GivenUp);
            }
            let entry = ring.named(id)?;
            let is_late = entry.state == State::GivenUp;
            entry.state = match entry.state {
                State::Open => State::Answering,
                State::GivenUp => State::Answered,
                State::Answering | State::Answered => return None,
            };
            let pending = Pending {
                kind: entry.kind,
                flow: entry.flow,
                sender: entry.sender,
                // No second answer gives it back.
                payment: Payment {
                    paid: entry.payment.paid.take(),
                    ..entry.payment
                },
            };
            Some((pending, is_late))
        };
        let (pending, is_late) = if is_about_owner(id) {
            begin(&mut self.owners.lock())
        } else {
            self.with(begin)
        }?;
        if is_late {
            bump(Some(&self.late));
        }
        Some(pending)
    }

    /// Gives most of a question that has found something back to its budget. `ends` are the counted
    /// prefixes of the ends of its flow, which are remembered: packets of others, such as ICMP
    /// errors, may cause a question as well.
    pub(super) fn put_back(&self, pending: &Pending, ends: [u128; 2], now: Micros, zones: &[Zone]) {
        let Payment { payer, paid } = pending.payment;
        let Some(paid) = paid else { return };
        self.budget.put_back(account_of(&payer), paid, zones);
        for address in ends {
            let zone = payer.zone;
            self.budget.prove(Destination { zone, address }, now);
        }
    }

    /// Ends the wait for an answer: packets that are put aside from now on are ready at once.
    pub(super) fn end_answer(&self, id: HoldId, pending: &Pending, effect: Answered, now: Micros) {
        if effect.is_in_vain() && pending.kind != QuestionKind::Owner {
            self.nothing.remember(&pending.flow, pending.kind, now);
        }
        let end = |ring: &mut Ring| ring.close_named(id, State::Answered);
        if is_about_owner(id) {
            end(&mut self.owners.lock());
        } else {
            self.with(end);
        }
    }

    /// Counts an answer.
    pub(super) fn count(&self, effect: Answered) {
        bump(self.answered.get(effect as usize));
    }

    /// Returns whether packets wait for an answer.
    pub(super) fn holds(&self, id: HoldId) -> bool {
        let mut ring = self.ring.lock();
        ring.named(id).is_some_and(|entry| entry.state.holds())
    }

    /// Returns the number of questions that packets wait for.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Gives up questions whose time is over, at most `budget` of each kind.
    pub(super) fn expire(&self, now: Micros, budget: usize) {
        if self.open() > 0 {
            self.with(|ring| ring.expire(now, budget, |entry| self.give_up(entry, now)));
        }
        let mut owners = self.owners.lock();
        owners.expire(now, budget, |_| bump(Some(&self.timed_out)));
    }

    pub(super) fn stats(&self) -> QuestionStats {
        let read = |counter: Option<&AtomicU64>| {
            counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
        };
        let owners = self.owners.lock().open();
        let ring = self.ring.lock();
        let mut stats = QuestionStats::none();
        for (kind, count) in &mut stats.asked {
            *count = read(self.asked.get(*kind as usize));
        }
        for (effect, count) in &mut stats.answered {
            *count = read(self.answered.get(*effect as usize));
        }
        for (reason, count) in &mut stats.unasked {
            *count = read(self.unasked.get(*reason as usize));
        }
        stats.late = read(Some(&self.late));
        stats.timed_out = read(Some(&self.timed_out));
        stats.packets_held = read(Some(&self.packets_held));
        stats.open = ring.open() + owners;
        let held = ring.shares.used();
        stats.held = held.packets() as usize;
        stats.held_bytes = held.bytes();
        stats
    }

    /// Checks that maps and counts agree; no packet may pass meanwhile.
    ///
    /// # Errors
    /// Returns a description of the first inconsistency.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        let open = {
            let ring = self.ring.lock();
            ring.check_invariants()
                .map_err(|what| format!("questions: {what}"))?;
            ring.open()
        };
        if self.open() != open {
            return Err(format!("{open} questions, counted {}", self.open()));
        }
        let owners = self.owners.lock();
        owners
            .check_invariants()
            .map_err(|what| format!("questions of owners: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::question_ring::ANSWER_MICROS;
    use super::*;
    use crate::flow::Variant;

    const HOLD: u64 = 50_000;

    fn questions() -> Questions {
        let config = ContinuityConfig {
            max_questions: 2,
            hold: std::time::Duration::from_micros(HOLD),
            ..ContinuityConfig::default()
        };
        Questions::new(&config, &ahash::RandomState::with_seeds(1, 2, 3, 4)).unwrap()
    }

    /// Returns a question about the flow of a port; each has a source of its own.
    fn asking(port: u16, now: u64) -> Asking {
        let end = |host| std::net::SocketAddr::from(([10, 0, 0, host], port));
        let flow = FlowKey::between(Zone::DEFAULT, 6, end(1), end(2), Variant::Plain);
        let (flow, sender) = flow.unwrap();
        Asking {
            kind: QuestionKind::Session,
            flow,
            sender,
            cause: HoldCause::Tcp,
            bytes: 100,
            source: port.into(),
            now: Micros(now),
        }
    }

    #[test]
    fn an_answer_whose_thread_has_failed_stops_no_questions() {
        let questions = questions();
        let first = questions.ask(&asking(1, 0), &[]).unwrap();
        let failed = questions.begin_answer(first.id, Micros(1)).unwrap();
        let second = questions.ask(&asking(2, 1), &[]).unwrap();
        let pending = questions.begin_answer(second.id, Micros(2)).unwrap();
        questions.end_answer(second.id, &pending, Answered::Nothing, Micros(2));
        // The next place is that of the first question.
        let last = HOLD + ANSWER_MICROS - 1;
        questions.expire(Micros(last), GIVEN_UP);
        let third = questions.ask(&asking(3, last), &[]);
        assert_eq!(third.unwrap_err(), Unasked::Questions);
        assert_eq!(questions.open(), 1);
        questions.expire(Micros(last + 1), GIVEN_UP);
        assert_eq!((questions.open(), questions.stats().timed_out), (0, 1));
        let third = questions.ask(&asking(3, last + 1), &[]).unwrap();
        // The thread was slow and has not failed.
        questions.end_answer(first.id, &failed, Answered::Resumed, Micros(last + 2));
        assert!(questions.holds(third.id));
        questions.check_invariants().unwrap();
    }

    #[test]
    fn an_answer_after_the_deadline_is_late_also_if_no_question_came_between() {
        let questions = questions();
        let answer = |port, at: u64| {
            let id = questions.ask(&asking(port, 0), &[]).unwrap().id;
            let pending = questions.begin_answer(id, Micros(at)).unwrap();
            questions.end_answer(id, &pending, Answered::Resumed, Micros(at));
            let stats = questions.stats();
            (stats.timed_out, stats.late)
        };
        assert_eq!(answer(1, HOLD - 1), (0, 0));
        assert_eq!(answer(2, HOLD), (1, 1));
        // The thread of this answer fails.
        let id = questions.ask(&asking(3, 0), &[]).unwrap().id;
        questions.begin_answer(id, Micros(HOLD)).unwrap();
        assert_eq!(questions.open(), 0);
        questions.expire(Micros(2 * HOLD + ANSWER_MICROS), GIVEN_UP);
        let stats = questions.stats();
        assert_eq!((stats.timed_out, stats.late), (2, 2));
        questions.check_invariants().unwrap();
    }

    #[test]
    fn the_owner_of_a_session_is_asked_for_again_after_a_failed_answer() {
        let questions = questions();
        let flow = asking(1, 0).flow;
        let id = questions.ask_owner(&flow, Micros(0)).unwrap();
        questions.begin_answer(id, Micros(1)).unwrap();
        let over = OWNER_MICROS + ANSWER_MICROS;
        assert!(questions.ask_owner(&flow, Micros(over - 1)).is_none());
        assert!(questions.ask_owner(&flow, Micros(over)).is_some());
        questions.check_invariants().unwrap();
    }
}
