//! Families of the store that appliances of a group share, and of the engine's questions.

use prometheus_client::registry::Unit;

use super::families::{Families, Family, Written};
use super::readings::Readings;
use crate::run::store::{Counted, LinkName};

impl Readings {
    pub(super) fn store(&self, to: &mut Families<'_, '_>) -> Written {
        let Some(store) = &self.data_path.shared.store else {
            return Ok(());
        };
        let state = &store.state;
        to.counters(
            Family::new(
                "portcullis_store_events",
                "Records, questions and connections of the store (`[store]`), by what became of \
                 them",
            ),
            Counted::ALL.map(|what| ([("event", what.name())], state.counters.of(what))),
        )?;
        to.gauges(
            Family::new(
                "portcullis_store_connected",
                "Whether a connection to the store is up",
            ),
            LinkName::ALL.map(|name| {
                let is_up = state.state(name).is_up();
                ([("connection", name.name())], u64::from(is_up))
            }),
        )?;
        to.gauge(
            Family::new(
                "portcullis_store_queue_records",
                "Records that wait to be written",
            ),
            state.waiting() as u64,
        )?;
        to.bytes(
            "portcullis_store_written",
            "Values of sessions that the store has taken",
            state.written_bytes(),
        )?;
        let [last, longest] = state.answer_times();
        to.gauge(
            Family::new(
                "portcullis_store_answer",
                "Time from the last packet that the store was asked about to the answer, late \
                 answers included; a packet is held for `continuity.hold` at most",
            )
            .in_unit(&Unit::Seconds),
            last.as_secs_f64(),
        )?;
        to.gauge(
            Family::new(
                "portcullis_store_longest_answer",
                "Longest time from a packet that the store was asked about to the answer",
            )
            .in_unit(&Unit::Seconds),
            longest.as_secs_f64(),
        )?;
        self.questions(to)
    }

    fn questions(&self, to: &mut Families<'_, '_>) -> Written {
        let questions = &self.stats.questions;
        to.counters(
            Family::new("portcullis_questions", "Questions to the store, by kind"),
            questions
                .asked
                .iter()
                .map(|(kind, count)| ([("kind", kind.name())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_questions_answered",
                "Answers of the store, by their effect",
            ),
            questions
                .answered
                .iter()
                .map(|(answered, count)| ([("effect", answered.name())], *count)),
        )?;
        to.counters(
            Family::new(
                "portcullis_questions_unasked",
                "Packets that were decided without a question, by reason",
            ),
            questions
                .unasked
                .iter()
                .map(|(reason, count)| ([("reason", reason.name())], *count)),
        )?;
        to.counter(
            "portcullis_questions_late",
            "Answers that came after the packets were released",
            questions.late,
        )?;
        to.counter(
            "portcullis_questions_timed_out",
            "Questions without an answer in time",
            questions.timed_out,
        )?;
        to.counter(
            "portcullis_questions_held_packets",
            "Packets that were held for a question",
            questions.packets_held,
        )?;
        to.gauge(
            Family::new("portcullis_questions_open", "Questions that are open"),
            questions.open as u64,
        )?;
        to.gauge(
            Family::new(
                "portcullis_questions_holding_packets",
                "Packets that are held for a question now",
            ),
            questions.held as u64,
        )
    }
}
