//! A ring of open questions, in the order in which they were asked.
//!
//! That is the order of their deadlines. A question leaves the ring when a newer one needs its
//! place. Until then a late answer finds it. All memory is allocated at the start.

use std::collections::HashMap;

use super::question_budget::QuestionPaid;
use super::question_shares::{Load, Payer, QuestionShares};
use crate::flow::{End, FlowKey};
use crate::fragment::HoldId;
use crate::fragment::id::HoldCause;
use crate::question::{QuestionKind, Unasked};
use crate::reserve::{NoMemory, Purpose};
use crate::session::Micros;

/// The time past its deadline after which a question that is being answered is given up: the thread
/// that had its answer has failed.
pub(super) const ANSWER_MICROS: u64 = 1_000_000;

/// The bit of a question's number that says that it is in the ring of owners.
const OWNERS: u32 = 1 << 15;

/// A question that is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) kind: QuestionKind,
    pub(super) flow: FlowKey,
    /// The end that has sent the packet.
    pub(super) sender: End,
    /// The reason why the packet would be dropped otherwise.
    pub(super) cause: HoldCause,
    /// IP bytes of the packet; 0 for a question that holds none.
    pub(super) bytes: u32,
    /// The counted prefix of the packet's source.
    pub(super) source: u128,
    pub(super) now: Micros,
}

/// A question that is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: HoldId,
    /// Whether no packet of the flow had asked before.
    pub(super) is_new: bool,
}

/// State of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No answer has come.
    Open,
    /// A thread has the answer.
    Answering,
    /// The question was given up. A late answer still counts.
    GivenUp,
    Answered,
}

impl State {
    /// Returns whether packets wait for the answer.
    pub(super) const fn holds(self) -> bool {
        matches!(self, Self::Open | Self::Answering)
    }
}

/// A question in the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) flow: FlowKey,
    id: HoldId,
    pub(super) kind: QuestionKind,
    pub(super) sender: End,
    pub(super) state: State,
    deadline: Micros,
    packets: u32,
    bytes: u64,
    pub(super) payment: Payment,
}

/// Source that a question counts for, and how it was paid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payment {
    pub(super) payer: Payer,
    /// The part of the budget; `None` for a question that needs no budget, or whose answer has
    /// begun.
    pub(super) paid: Option<QuestionPaid>,
}

impl Entry {
    /// Returns what the question holds.
    fn load(&self) -> Load {
        Load::new(1, self.packets.into(), self.bytes)
    }

    /// Returns whether a question that holds packets is to be given up.
    pub(super) fn is_over(&self, now: Micros) -> bool {
        let more = u64::from(self.state == State::Answering) * ANSWER_MICROS;
        self.deadline.0.saturating_add(more) <= now.0
    }
}

/// Returns whether a question is one about an owner, by its name.
pub(super) const fn is_about_owner(id: HoldId) -> bool {
    id.number() & OWNERS != 0
}

/// Returns the place of a question in its ring, by its name.
const fn place_of(id: HoldId) -> usize {
    (id.number() & !OWNERS) as usize
}

/// Bounds on the packets of one flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) packets_per_flow: u32,
    pub(super) bytes_per_flow: u64,
}

/// Questions in the order in which they were asked.
#[derive(Debug)]
pub(super) struct Ring {
    entries: Box<[Option<Entry>]>,
    /// Places of the questions that packets wait for.
    pub(super) by_flow: HashMap<FlowKey, usize, ahash::RandomState>,
    /// Serial number of the next question; its place is the remainder.
    next: u64,
    /// Serial number of the oldest question that may be open.
    oldest: u64,
    pub(super) shares: QuestionShares,
}

impl Ring {
    pub(super) fn new(most: Load, hasher: &ahash::RandomState) -> Result<Self, NoMemory> {
        let [questions, ..] = most.0;
        let questions = questions as usize;
        Ok(Self {
            entries: Purpose::Questions.items(questions, || None)?,
            // Room for twice as many: a map that is at most half full never grows.
            by_flow: Purpose::Questions.map(2 * questions, hasher)?,
            next: 0,
            oldest: 0,
            shares: QuestionShares::new(most, hasher)?,
        })
    }

    pub(super) const fn bytes(max: u32) -> usize {
        let map = 4 * (size_of::<(FlowKey, usize)>() + 1);
        max as usize * (size_of::<Option<Entry>>() + map) + QuestionShares::bytes(max)
    }

    fn place(&self, serial: u64) -> usize {
        (serial % self.entries.len().max(1) as u64) as usize
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Entry> {
        self.entries.get_mut(place)?.as_mut()
    }

    /// Returns a question by its name.
    pub(super) fn named(&mut self, id: HoldId) -> Option<&mut Entry> {
        self.at(place_of(id)).filter(|entry| entry.id == id)
    }

    /// Ends the wait of the packets of a question, by its name.
    pub(super) fn close_named(&mut self, id: HoldId, state: State) {
        if self.named(id).is_some() {
            self.close(place_of(id), state);
        }
    }

    /// Ends the wait of a question's packets.
    pub(super) fn close(&mut self, place: usize, state: State) {
        let Some(entry) = self.at(place) else { return };
        if !entry.state.holds() {
            return;
        }
        entry.state = state;
        let Entry { flow, payment, .. } = *entry;
        let load = entry.load();
        self.shares.release(&payment.payer, load);
        self.by_flow.remove(&flow);
    }

    /// Gives up questions whose time is over, at most `budget`.
    pub(super) fn expire(&mut self, now: Micros, budget: usize, mut each: impl FnMut(&Entry)) {
        for _ in 0..budget {
            if self.oldest == self.next {
                return;
            }
            let place = self.place(self.oldest);
            if let Some(entry) = self.at(place).filter(|entry| entry.state.holds()) {
                if !entry.is_over(now) {
                    return;
                }
                each(entry);
                self.close(place, State::GivenUp);
            }
            self.oldest += 1;
        }
    }

    /// Adds a packet to an open question.
    pub(super) fn join(
        &mut self,
        place: usize,
        asking: &Asking,
        bounds: Bounds,
        zones: usize,
    ) -> Result<Asked, Unasked> {
        let entry = self.entries.get_mut(place).and_then(Option::as_mut);
        let Some(entry) = entry else {
            return Err(Unasked::Nothing);
        };
        let bytes = entry.bytes + u64::from(asking.bytes);
        if entry.packets >= bounds.packets_per_flow || bytes > bounds.bytes_per_flow {
            return Err(Unasked::HeldPerFlow);
        }
        let more = Load::new(0, 1, asking.bytes.into());
        self.shares.claim(&entry.payment.payer, zones, more)?;
        entry.packets += 1;
        entry.bytes = bytes;
        Ok(Asked {
            id: entry.id,
            is_new: false,
        })
    }

    /// Returns the place of the next question, if it is free.
    pub(super) fn free_place(&mut self) -> Option<usize> {
        let place = self.place(self.next);
        let is_in_use = self.at(place).is_some_and(|entry| entry.state.holds());
        (!is_in_use).then_some(place)
    }

    /// Begins a question whose places are claimed.
    pub(super) fn insert(
        &mut self,
        place: usize,
        asking: &Asking,
        deadline: Micros,
        payment: Payment,
    ) -> HoldId {
        let ring = match asking.kind {
            QuestionKind::Owner => OWNERS,
            _ => 0,
        };
        let number = place as u32 | ring;
        let id = HoldId::of_question(number, asking.cause, self.next);
        let packets = u32::from(asking.bytes > 0);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Some(Entry {
                flow: asking.flow,
                id,
                kind: asking.kind,
                sender: asking.sender,
                state: State::Open,
                deadline,
                packets,
                bytes: u64::from(asking.bytes),
                payment,
            });
        }
        self.by_flow.insert(asking.flow, place);
        self.next += 1;
        id
    }

    /// Returns the number of open questions.
    pub(super) fn open(&self) -> usize {
        self.by_flow.len()
    }

    /// Checks that counts and map agree with the entries.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        let open = || {
            let entries = self.entries.iter().enumerate();
            entries.filter_map(|(place, entry)| Some((place, entry.filter(|e| e.state.holds())?)))
        };
        let held = open().map(|(_, entry)| entry.load());
        let held = held.fold(Load::default(), Load::plus);
        if held != self.shares.used() {
            return Err(format!(
                "{held:?} is held, counted {:?}",
                self.shares.used()
            ));
        }
        self.shares.check_invariants()?;
        if open().count() != self.open() {
            return Err(format!("{} flows have questions", self.open()));
        }
        match open().find(|(place, entry)| self.by_flow.get(&entry.flow) != Some(place)) {
            Some((place, _)) => Err(format!("question {place} is not found by its flow")),
            None => Ok(()),
        }
    }
}
