//! Filters of the stream, evaluated by the workers and again by each client's thread.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::event::HelperNote;
use portcullis::policy::{Action, PortRange, Protocol, RuleId};
use portcullis::{
    DropReason, LimitReached, Reset, SessionId, SessionRecord, SessionUid, Tracked, Zone,
};

use super::event::{Observed, PacketReason, SessionFacts};
use super::kind::{Kind, Kinds};
use super::packet::Flow;

/// Facts of an event that filters compare. `None` in a [`Fact`] means that the event has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    pub(crate) reason: Option<&'static str>,
    pub(crate) verdict: Option<&'static str>,
    pub(crate) zone: Option<Zone>,
    pub(crate) flow: Fact<Flow>,
    pub(crate) rule: Fact<RuleId>,
    pub(crate) session: Option<SessionId>,
    /// Identifier of the session in the log, if it is known.
    pub(crate) uid: Option<SessionUid>,
}

/// Fact that may have to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact<T> {
    /// The fact is known; `None` if the event has none.
    Known(Option<T>),
    /// The session of the event has the fact.
    OfSession,
}

impl Facts {
    /// Returns the facts of an event.
    pub(crate) fn of(event: &Observed) -> Self {
        match event {
            Observed::Opened(record) => Self::of_record(Kind::Opened, record, None),
            Observed::Ended(event) => {
                Self::of_record(Kind::Ended, &event.record, Some(event.reason.name()))
            }
            Observed::Packet(event) => Self {
                kind: event.kind,
                reason: event.reason.map(PacketReason::name),
                verdict: verdict_of(event.kind, event.reason),
                zone: event.zone,
                flow: Fact::Known(event.flow),
                rule: Self::rule_of(event.decided, event.tracked),
                session: event.tracked.and_then(|tracked| tracked.session),
                uid: None,
            }
            .with_session(event.session.as_ref()),
            Observed::Reset(event) => Self::of_reset(&event.reset),
            Observed::Limit(reached) => Self::of_limit(reached),
            Observed::Helper(event) => {
                Self::of_helper(&event.note).with_session(event.session.as_ref())
            }
            Observed::Asymmetry(event) => Self {
                kind: Kind::Asymmetry,
                reason: Some(event.line.evidence.name()),
                verdict: None,
                zone: Some(event.line.zone),
                flow: Fact::Known(None),
                rule: Fact::Known(None),
                session: None,
                uid: None,
            },
        }
    }

    pub(super) fn of_limit(reached: &LimitReached) -> Self {
        Self {
            kind: Kind::Limit,
            reason: Some(reached.exceeded.limit.name()),
            verdict: None,
            zone: Some(reached.zone),
            flow: Fact::Known(Some(Flow {
                protocol: None,
                src: reached.src,
                dst: reached.dst,
                ports: None,
                flags: None,
                icmp: None,
            })),
            rule: Fact::Known(Some(reached.rule)),
            session: None,
            uid: None,
        }
    }

    pub(super) fn of_helper(note: &HelperNote) -> Self {
        Self {
            kind: Kind::Helper,
            reason: Some(note.event.name()),
            verdict: None,
            zone: None,
            flow: Fact::OfSession,
            rule: Fact::OfSession,
            session: Some(note.session),
            uid: None,
        }
    }

    pub(super) fn of_record(
        kind: Kind,
        record: &SessionRecord,
        reason: Option<&'static str>,
    ) -> Self {
        Self {
            kind,
            reason,
            verdict: None,
            zone: Some(record.zone),
            flow: Fact::Known(Some(Flow::of_session(record))),
            rule: Fact::Known(Some(record.rule)),
            session: Some(record.id),
            uid: Some(record.uid),
        }
    }

    pub(super) fn of_reset(reset: &Reset) -> Self {
        Self {
            kind: Kind::Reset,
            reason: None,
            verdict: None,
            zone: Some(reset.zone),
            flow: Fact::Known(Flow::of(reset.bytes())),
            rule: Fact::Known(Some(reset.rule)),
            session: Some(reset.session),
            uid: Some(reset.uid),
        }
    }

    /// Returns the rule of a packet: the one that has decided it, or that of its session.
    pub(super) fn rule_of(
        decided: Option<(RuleId, Action)>,
        tracked: Option<Tracked>,
    ) -> Fact<RuleId> {
        let session = tracked.and_then(|tracked| tracked.session);
        match (decided, session) {
            (Some((rule, _)), _) => Fact::Known(Some(rule)),
            (None, Some(_)) => Fact::OfSession,
            (None, None) => Fact::Known(None),
        }
    }

    /// Returns the facts with those of the event's session, if it was found.
    fn with_session(mut self, session: Option<&SessionFacts>) -> Self {
        let Some(session) = session else {
            return self;
        };
        if self.rule == Fact::OfSession {
            self.rule = Fact::Known(Some(session.rule));
        }
        if self.flow == Fact::OfSession {
            self.flow = Fact::Known(Some(session.flow));
        }
        self.zone = self.zone.or(Some(session.zone));
        self.uid = Some(session.uid);
        self
    }

    /// Returns the flow, if it is known.
    pub(crate) const fn known_flow(&self) -> Option<Flow> {
        match self.flow {
            Fact::Known(flow) => flow,
            Fact::OfSession => None,
        }
    }

    /// Returns the rule, if it is known.
    pub(crate) const fn known_rule(&self) -> Option<RuleId> {
        match self.rule {
            Fact::Known(rule) => rule,
            Fact::OfSession => None,
        }
    }
}

impl Flow {
    fn touches(&self, prefix: &IpNet) -> bool {
        prefix.contains(&self.src) || prefix.contains(&self.dst)
    }
}

/// Returns the verdict of an event; `None` if no packet was decided.
pub(crate) const fn verdict_of(kind: Kind, reason: Option<PacketReason>) -> Option<&'static str> {
    Some(match kind {
        Kind::Audited | Kind::Tolerated | Kind::Forwarded => "forward",
        Kind::Denied => match reason {
            Some(PacketReason::Engine(DropReason::PolicyReject)) => "reject",
            _ => "drop",
        },
        Kind::Dropped => "drop",
        Kind::Rejected => "reject",
        Kind::Refused => "refuse",
        Kind::Held => "hold",
        _ => return None,
    })
}

/// Verdicts that a filter can name.
pub(crate) const VERDICTS: [&str; 5] = ["forward", "drop", "reject", "refuse", "hold"];

/// One condition of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Address of either end.
    Address(IpNet),
    /// Source of the packet, or initiator of the session.
    Source(IpNet),
    /// Destination of the packet, or responder of the session.
    Destination(IpNet),
    /// Port of either end.
    Port(PortRange),
    /// IP protocol.
    Protocol(Protocol),
    /// Zone.
    Zone(Zone),
    /// Rule.
    Rule(RuleId),
    /// Name of a reason.
    Reason(String),
    /// Name of a verdict.
    Verdict(&'static str),
    /// Kind of event.
    Event(Kind),
    /// Session, by its number.
    Session(SessionId),
    /// Session, by its identifier in the log.
    Uid(SessionUid),
}

impl Condition {
    /// Returns whether an event meets the condition; `None` if its session must be looked up.
    fn meets(&self, facts: &Facts) -> Option<bool> {
        let flow = |test: &dyn Fn(&Flow) -> bool| match &facts.flow {
            Fact::Known(flow) => Some(flow.as_ref().is_some_and(test)),
            Fact::OfSession => None,
        };
        match self {
            Self::Address(prefix) => flow(&|flow| flow.touches(prefix)),
            Self::Source(prefix) => flow(&|flow| prefix.contains::<&IpAddr>(&flow.src)),
            Self::Destination(prefix) => flow(&|flow| prefix.contains::<&IpAddr>(&flow.dst)),
            Self::Port(range) => flow(&|flow| {
                let has_ports = flow.protocol.is_some_and(Protocol::has_ports);
                let ports = flow.ports.filter(|_| has_ports);
                ports.is_some_and(|ports| ports.iter().any(|port| range.contains(*port)))
            }),
            Self::Protocol(protocol) => flow(&|flow| flow.protocol == Some(*protocol)),
            Self::Zone(zone) => match facts.zone {
                None if facts.flow == Fact::OfSession => None,
                known => Some(known == Some(*zone)),
            },
            Self::Rule(rule) => match facts.rule {
                Fact::Known(known) => Some(known == Some(*rule)),
                Fact::OfSession => None,
            },
            Self::Reason(name) => Some(facts.reason == Some(name.as_str())),
            Self::Verdict(name) => Some(facts.verdict == Some(*name)),
            Self::Event(kind) => Some(facts.kind == *kind),
            Self::Session(id) => Some(facts.session == Some(*id)),
            Self::Uid(uid) => match (facts.uid, facts.session) {
                (None, Some(_)) => None,
                (known, _) => Some(known == Some(*uid)),
            },
        }
    }

    /// Returns whether two conditions are of one field, so that either suffices.
    fn is_alternative(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Returns whether the condition is decided by the packet alone, before its verdict.
    const fn is_of_packet(&self) -> bool {
        matches!(
            self,
            Self::Address(_)
                | Self::Source(_)
                | Self::Destination(_)
                | Self::Port(_)
                | Self::Protocol(_)
        )
    }
}

/// Filter of the stream. Conditions of one field are alternatives, and all fields must match; no
/// excluded condition may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Conditions of one field each, of which one must match.
    required: Vec<Vec<Condition>>,
    /// Conditions of which none may match.
    excluded: Vec<Condition>,
    /// Kinds that may match.
    pub(crate) kinds: Kinds,
}

impl Filter {
    /// Returns a filter without conditions.
    pub(crate) const fn everything() -> Self {
        Self {
            required: Vec::new(),
            excluded: Vec::new(),
            kinds: Kinds::USUAL,
        }
    }

    /// Adds a condition, or the exclusion of what meets it.
    pub(crate) fn add(&mut self, condition: Condition, is_negated: bool) {
        if is_negated {
            self.excluded.push(condition);
            return;
        }
        let alternatives = self.required.iter_mut().find(|conditions| {
            let first = conditions.first();
            first.is_some_and(|first| first.is_alternative(&condition))
        });
        match alternatives {
            Some(conditions) => conditions.push(condition),
            None => self.required.push(vec![condition]),
        }
    }

    /// Adds the packets that a client of traces receives: those of every verdict.
    pub(crate) fn add_packets(&mut self) {
        self.kinds = self.kinds.with(Kind::Held).with(Kind::Forwarded);
    }

    /// Limits the kinds to those that the conditions allow, after the last one was added. Packets
    /// that were held or forwarded must be asked for, by their event or their verdict.
    pub(crate) fn settle(&mut self) {
        let mut asked = Kinds::NONE;
        for condition in self.required.iter().flatten() {
            asked = match condition {
                Condition::Event(kind) => asked.with(*kind),
                Condition::Verdict("forward") => asked.with(Kind::Forwarded),
                Condition::Verdict("hold") => asked.with(Kind::Held),
                _ => asked,
            };
        }
        self.kinds = Kinds::USUAL.or(asked);
    }

    /// Returns whether the filter has no conditions.
    #[inline]
    pub(crate) fn is_everything(&self) -> bool {
        self.required.is_empty() && self.excluded.is_empty()
    }

    /// Returns whether an event matches. While facts of its session are unknown, it may.
    pub(crate) fn matches(&self, facts: &Facts) -> bool {
        self.kinds.has(facts.kind) && self.holds(facts, |_| true)
    }

    /// Returns whether a condition depends on a fact of the event's session that is unknown.
    pub(crate) fn needs_session(&self, facts: &Facts) -> bool {
        let mut conditions = self.required.iter().flatten().chain(&self.excluded);
        conditions.any(|condition| condition.meets(facts).is_none())
    }

    /// Returns whether a packet may match, before its verdict is known.
    pub(crate) fn may_match(&self, flow: Option<Flow>) -> bool {
        let facts = Facts {
            kind: Kind::Forwarded,
            reason: None,
            verdict: None,
            zone: None,
            flow: Fact::Known(flow),
            rule: Fact::OfSession,
            session: None,
            uid: None,
        };
        self.holds(&facts, Condition::is_of_packet)
    }

    /// Evaluates the conditions that `counts` selects.
    fn holds(&self, facts: &Facts, counts: impl Fn(&Condition) -> bool) -> bool {
        let meets = |condition: &Condition| condition.meets(facts);
        let required = self.required.iter().all(|conditions| {
            let mut conditions = conditions.iter();
            conditions.any(|condition| !counts(condition) || meets(condition).unwrap_or(true))
        });
        let mut excluded = self.excluded.iter().filter(|condition| counts(condition));
        required && !excluded.any(|condition| meets(condition).unwrap_or(false))
    }
}
