//! Step 5 of the packet path, where sessions move between engines: a packet without a session here
//! may belong to one that another engine had.
//!
//! Such a packet is held, and the store is asked, if the policy could admit its conversation:
//!
//! | packet | asked about | if the policy admits |
//! |---|---|---|
//! | TCP segment without SYN or RST | session | a direction, or a control session |
//! | SCTP or DCCP packet that opens nothing | session | a direction |
//! | ICMP reply | session | the query |
//! | UDP, tunnel or other datagram that is denied | session | the opposite direction |
//! | TCP SYN that is denied | announcement | a control session |
//!
//! A control session is one of FTP between both hosts, in either direction, which could announce
//! the session of the packet.
//!
//! An invalid TCP segment of a stored session that has been idle for a second is held as well: the
//! session may have gone on in another engine meanwhile, and have come back.
//!
//! An ICMP error without a session here is held as well: the session of the packet that it quotes
//! is asked about, if the policy admits a direction of that session.
//!
//! Nothing is asked about a flow whose end is remembered here, unless it ended by its lifetime or
//! was evicted: another engine may have had it then.

use std::time::Duration;

use super::Engine;
use super::candidate::Candidate;
use super::effects::{Effects, OpenQuestion};
use super::faults::invalid;
use super::live::Live;
use super::query::{new_session, query_between};
use super::question_ring::Asking;
use super::settings::Settings;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, End, Flow, FlowKey};
use crate::fragment::id::HoldCause;
use crate::packet::{IcmpQuery, Ip, IpVersion, PROTOCOL_TCP, Segment, Transport};
use crate::policy::NewSession;
use crate::question::QuestionKind;
use crate::session::{EndReason, Micros};
use crate::track::tcp::Event;
use crate::track::{dccp, sctp};
use crate::verdict::{Class, DropReason, Tracked, Verdict};

/// The port of the initiator of a control session, as far as rules ask for it: the first one that
/// hosts choose from (RFC 6335 6).
const ANY_PORT: u16 = 49_152;

/// The time without a valid packet after which a session may have gone on in another engine.
const IDLE: Duration = Duration::from_secs(1);

/// A question that a packet could cause.
struct Case {
    kind: QuestionKind,
    cause: HoldCause,
    /// Whether other zones of this engine are searched before.
    searches_first: bool,
}

impl Case {
    /// Returns the question that a packet could cause by its kind alone.
    fn of(transport: &Transport) -> Option<Self> {
        let about_session = |cause| {
            Some(Self {
                kind: QuestionKind::Session,
                cause,
                searches_first: cause != HoldCause::Denied,
            })
        };
        match transport {
            Transport::Tcp { segment, .. } => match Event::of(segment.flags) {
                Event::Ack | Event::Fin => about_session(HoldCause::Tcp),
                Event::Syn => Some(Self {
                    kind: QuestionKind::Expectation,
                    cause: HoldCause::Denied,
                    searches_first: false,
                }),
                _ => None,
            },
            Transport::Sctp { packet, .. } => match sctp::Track::open(packet) {
                None => about_session(HoldCause::Sctp),
                Some(_) => None,
            },
            Transport::Dccp { packet, .. } => match dccp::Track::open(packet) {
                None => about_session(HoldCause::Dccp),
                Some(_) => None,
            },
            Transport::IcmpQuery(IcmpQuery { request: false, .. }) => {
                about_session(HoldCause::IcmpReply)
            }
            // An ICMP message of the opposite direction is another conversation.
            Transport::IcmpQuery(_) | Transport::IcmpOther { .. } => None,
            _ => about_session(HoldCause::Denied),
        }
    }
}

impl Engine {
    /// Returns the verdict on a packet that fits no session here, if it is to be held until the
    /// store has answered. The shard's lock is held.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_elsewhere<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let questions = self.questions.as_ref()?;
        let case = Case::of(&candidate.parsed.transport)?;
        let (flow, now) = (&candidate.flow, candidate.now);
        let on_paths = case.cause == HoldCause::Sctp && self.paths.len() != 0;
        let searches = case.searches_first
            && !candidate.searched
            && (settings.zone_hints.has_others() || on_paths);
        if questions.is_in_vain(&flow.key, case.kind, now) {
            return None;
        }
        // In a flood of stray segments most end here, before the policy is looked up for them.
        // Other packets may need no question: only the policy tells.
        if case.cause == HoldCause::Tcp && !searches {
            let source = self.source_of(&candidate.parsed.ip);
            if questions.is_refused(&flow.key, source, now, &settings.zones) {
                return None;
            }
        }
        if effects.has_ended() || !self.could_admit(settings, candidate, &case) {
            return None;
        }
        let is_tcp = flow.key.protocol() == PROTOCOL_TCP;
        let tombstone = is_tcp
            .then(|| self.graveyard.find(&flow.key, now))
            .flatten();
        // The ends of the connection do not know of these.
        let is_unknown = |reason| matches!(reason, EndReason::Timeout | EndReason::Evicted);
        if tombstone.is_some_and(|tombstone| !is_unknown(tombstone.reason)) {
            return None;
        }
        let is_reported = settings.any_asymmetric
            && case.kind == QuestionKind::Session
            && self
                .asymmetry
                .suspected(&flow.key, flow.source, candidate.instant)
                .is_some();
        if is_reported {
            return None;
        }
        if searches {
            trace.step(|| Step::Note("first its session is looked for in this engine"));
            effects.is_elsewhere = true;
            effects.then_own_zone = true;
            return Some(invalid(DropReason::OtherZone));
        }
        self.hold_for(&case, settings, candidate, effects, trace)
    }

    /// Returns the verdict on an invalid segment of a session that has been idle, if the segment is
    /// to be held until the store has answered: another engine may have had the session meanwhile.
    /// The shard's lock is held.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_who_has_moved_on<T: Trace>(
        &self,
        live: &Live<'_>,
        candidate: &Candidate<'_>,
        segment: &Segment,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let questions = self.questions.as_ref()?;
        let is_asked_about = matches!(Event::of(segment.flags), Event::Ack | Event::Fin);
        let is_idle = candidate.now.since(live.hot().last()) >= IDLE;
        if !is_asked_about || !is_idle || live.shard.slab.stored(live.slot).epoch().is_none() {
            return None;
        }
        let kind = QuestionKind::Session;
        if questions.is_in_vain(&candidate.flow.key, kind, candidate.now) {
            return None;
        }
        let case = Case {
            kind,
            cause: HoldCause::Tcp,
            searches_first: false,
        };
        self.hold_for(&case, live.settings, candidate, effects, trace)
    }

    /// Asks a question about a packet, or joins the packet to the open question of its flow.
    /// Returns the verdict if the packet is held.
    fn hold_for<T: Trace>(
        &self,
        case: &Case,
        settings: &Settings,
        candidate: &Candidate<'_>,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let flow = &candidate.flow;
        let asking = Asking {
            kind: case.kind,
            flow: flow.key,
            sender: flow.source,
            cause: case.cause,
            ..self.asking(&candidate.parsed.ip, &flow.key, candidate.now)
        };
        self.hold(asking, settings, effects, trace)
    }

    /// Returns the question about the session of a flow that a packet causes.
    fn asking(&self, ip: &Ip, flow: &FlowKey, now: Micros) -> Asking {
        Asking {
            kind: QuestionKind::Session,
            flow: *flow,
            sender: End::Low,
            cause: HoldCause::IcmpError,
            bytes: ip.total_len,
            source: self.source_of(ip),
            now,
        }
    }

    /// Returns the counted prefix of a packet's source.
    fn source_of(&self, ip: &Ip) -> u128 {
        let is_v6 = matches!(ip.version, IpVersion::V6);
        self.fixed.prefixes.counted(ip.src, is_v6)
    }

    /// Returns the verdict on an ICMP error, if it is to be held until the store has answered:
    /// another engine may have had the session of the packet that the error quotes. No lock is
    /// held.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_for_quoted<T: Trace>(
        &self,
        ip: &Ip,
        quoted: &Flow,
        now: Micros,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let questions = self.questions.as_ref()?;
        let asking = self.asking(ip, &quoted.key, now);
        if questions.is_in_vain(&quoted.key, asking.kind, now) {
            return None;
        }
        let settings = self.settings();
        let admits = |initiator| {
            let query = query_between(&quoted.key, initiator);
            settings.policy.look_up(&query).action.admits()
        };
        // Its receiver has sent the quoted packet.
        if settings.is_outside(quoted.key.zone(), ip)
            || ![quoted.source, quoted.source.opposite()]
                .into_iter()
                .any(admits)
        {
            return None;
        }
        self.hold(asking, &settings, effects, trace)
    }

    /// Asks a question about a packet, or joins the packet to the open question of its flow.
    fn hold<T: Trace>(
        &self,
        asking: Asking,
        settings: &Settings,
        effects: &mut Effects,
        trace: &mut T,
    ) -> Option<Verdict> {
        let questions = self.questions.as_ref()?;
        let asked = questions.ask(&asking, &settings.zones).ok()?;
        trace.step(|| Step::Note("held: another engine may have had its session"));
        effects.question = asked.is_new.then_some(OpenQuestion {
            id: asked.id,
            asking,
        });
        Some(Verdict::Hold(asked.id, Tracked::class(Class::Invalid)))
    }

    /// Returns whether the policy could admit the conversation of a packet in a way that the packet
    /// does not show.
    fn could_admit(&self, settings: &Settings, candidate: &Candidate<'_>, case: &Case) -> bool {
        let (zone, parsed) = (candidate.flow.key.zone(), candidate.parsed);
        if settings.is_outside(zone, &parsed.ip) {
            return false;
        }
        let admits = |query: &NewSession| settings.policy.look_up(query).action.admits();
        let own = new_session(zone, parsed, Direction::Original);
        let mut opposite = new_session(zone, parsed, Direction::Reply);
        match case.cause {
            HoldCause::Sctp | HoldCause::Dccp => admits(&own) || admits(&opposite),
            HoldCause::Tcp => {
                admits(&own) || admits(&opposite) || could_be_announced(settings, &own)
            }
            HoldCause::IcmpReply => {
                if let Transport::IcmpQuery(query) = &parsed.transport {
                    opposite.icmp = Some((query.kind.request_type(parsed.ip.version), 0));
                }
                admits(&opposite)
            }
            HoldCause::Denied if case.kind == QuestionKind::Expectation => {
                !admits(&own)
                    && could_be_announced(settings, &own)
                    && !self.helpers.is_announced(&own, candidate.instant)
            }
            HoldCause::IcmpError => false,
            HoldCause::Denied => !admits(&own) && admits(&opposite),
        }
    }
}

/// Returns whether a control session between the ends of a TCP session, which may announce that
/// session, could be admitted.
fn could_be_announced(settings: &Settings, session: &NewSession) -> bool {
    let from_source = (session.src, session.dst);
    let from_destination = (session.dst, session.src);
    settings.ftp.candidates.iter().any(|port| {
        [from_source, from_destination]
            .into_iter()
            .any(|(src, dst)| {
                let control = NewSession {
                    src,
                    dst,
                    src_port: Some(ANY_PORT),
                    dst_port: Some(*port),
                    ..*session
                };
                let decision = settings.policy.look_up(&control);
                decision.action.admits() && settings.ftp.is_port(Some(*port), decision.rule)
            })
    })
}
