//! Source validation during a flood: a SYN of an unknown source is answered by a challenge, and the
//! source's own stack proves that the source is real.
//!
//! The challenge is a SYN-ACK that acknowledges a wrong number, the cookie. A host that has sent
//! the SYN answers with a RST that carries this number (RFC 9293 3.10.7.3). The host then
//! retransmits its SYN, which is forwarded unchanged. No state is kept for a source that has not
//! answered.

mod cookie;
mod siphash;
pub(super) mod sources;
pub(super) mod zones;

use self::cookie::Subject;
use self::siphash::Key;
use self::sources::{Source, Sources};
use super::Engine;
use super::answer::may_be_answered;
use super::candidate::Candidate;
use super::faults::invalid;
use super::settings::Settings;
use crate::explain::{Step, Trace};
use crate::flow::{Direction, Zone};
use crate::packet::{Segment, TcpFlags, Transport};
use crate::reserve::NoMemory;
use crate::session::{Micros, Slot};
use crate::stats::ChallengeEvent;
use crate::track::tcp::{Event, State};
use crate::verdict::{DropReason, Reply, Tracked, Verdict};

/// State of challenges that is kept across reloads.
#[derive(Debug)]
pub(super) struct Challenges {
    key: Key,
    sources: Sources,
}

impl Challenges {
    /// Returns the state for up to `sources` known sources.
    pub(super) fn new(
        sources: usize,
        hasher: ahash::RandomState,
        seed: [u64; 4],
    ) -> Result<Self, NoMemory> {
        Ok(Self {
            key: Key::derive(seed),
            sources: Sources::new(sources, hasher)?,
        })
    }
}

/// Returns the bytes of a table for `max` sources.
pub(super) fn known_source_bytes(max: usize) -> usize {
    Sources::bytes(max)
}

impl Engine {
    /// Decides whether the source of an allowed SYN must be validated first; returns the verdict if
    /// so. No session and no other state is created for the SYN.
    pub(super) fn challenge<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        tracked: Tracked,
        trace: &mut T,
    ) -> Option<Verdict> {
        let zone = candidate.flow.key.zone();
        let ip = &candidate.parsed.ip;
        let Transport::Tcp {
            src_port,
            dst_port,
            segment,
        } = &candidate.parsed.transport
        else {
            return None;
        };
        // A packet that cannot be answered, such as one of a loopback interface, proves nothing.
        if !self.is_challenging(settings, zone) || !may_be_answered(ip) {
            return None;
        }
        if self.is_known(settings, candidate) {
            self.counters.challenge(ChallengeEvent::Passed);
            trace.step(|| Step::Note("the source was validated recently: it is not challenged"));
            return None;
        }
        if !settings.challenge.take(zone, candidate.now) {
            trace.step(|| {
                Step::Note("the source is unknown, and the budget of challenges is used up")
            });
            return Some(Verdict::Drop(DropReason::SynChallengeBudget, tracked));
        }
        trace.step(|| {
            Step::Note(
                "the source is unknown: a SYN-ACK that acknowledges a cookie checks whether it \
                 exists",
            )
        });
        let subject = Subject::new(zone, ip, *src_port, *dst_port);
        let cookie = cookie::cookie(self.challenges.key, &subject, segment.seq, candidate.now);
        let reply = Reply::Challenge(cookie);
        Some(Verdict::Reject(DropReason::SynChallenged, reply, tracked))
    }

    /// Decides whether a segment without a session is the RST that answers a challenge; if so,
    /// returns the verdict and records its source as known.
    ///
    /// The RST may have an ACK flag: RFC 9293 sends none, lwIP does, and the number is proof in
    /// both cases.
    pub(super) fn answers_challenge<T: Trace>(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
        segment: &Segment,
        trace: &mut T,
    ) -> Option<Verdict> {
        let (zone, now) = (candidate.flow.key.zone(), candidate.now);
        let is_answer = Event::of(segment.flags) == Event::Rst
            && settings.challenge.may_be_answered(zone, now)
            && settings.challenge.is_on(zone);
        let Transport::Tcp {
            src_port, dst_port, ..
        } = candidate.parsed.transport
        else {
            return None;
        };
        if !is_answer {
            return None;
        }
        let subject = Subject::new(zone, &candidate.parsed.ip, src_port, dst_port);
        if !cookie::is_cookie(self.challenges.key, &subject, segment.seq, now) {
            self.counters.challenge(ChallengeEvent::Ignored);
            trace.step(|| Step::Note("the number is not the cookie of a challenge, or is too old"));
            return None;
        }
        trace
            .step(|| Step::Note("the packet returns the cookie of a challenge: its source exists"));
        let source = source_of(
            settings,
            zone,
            candidate.parsed.ip.src,
            candidate.flow.key.is_ipv6(),
        );
        self.note_source(settings, &source, now);
        Some(invalid(DropReason::SynValidated))
    }

    /// Records the initiator of a TCP session as known if this segment has completed its handshake.
    ///
    /// The acknowledgment must be exact: the window check alone allows for some 2^16 numbers, which
    /// a blind sender could guess.
    pub(super) fn note_handshake(
        &self,
        settings: &Settings,
        slot: &Slot,
        direction: Direction,
        segment: &Segment,
        now: Micros,
    ) {
        let zone = slot.key.zone();
        let is_exact = direction == Direction::Original
            && slot.track.state() == State::Established
            && segment.ack == slot.track.side(Direction::Reply).peer.end;
        if !is_exact || !settings.challenge.is_on(zone) {
            return;
        }
        let address = slot.key.address_number(slot.initiator());
        let source = source_of(settings, zone, address, slot.key.is_ipv6());
        self.note_source(settings, &source, now);
    }

    /// Returns whether a packet may open a session although the caller is overloaded: a SYN may,
    /// unless SYNs flood its zone and its source is unknown.
    ///
    /// If sources are never challenged, a flood of SYNs cannot be distinguished from other SYNs,
    /// and no packet may open a session.
    pub(super) fn passes_under_overload(
        &self,
        settings: &Settings,
        candidate: &Candidate<'_>,
    ) -> bool {
        let zone = candidate.flow.key.zone();
        let is_syn = matches!(&candidate.parsed.transport, Transport::Tcp { segment, .. }
            if segment.flags.contains(TcpFlags::SYN));
        is_syn
            && settings.challenge.is_on(zone)
            && (!self.is_challenging(settings, zone) || self.is_known(settings, candidate))
    }

    /// Returns the zones of the configuration whose unknown sources are challenged now.
    pub(super) fn challenging_zones(&self, settings: &Settings) -> Vec<Zone> {
        let zones = settings.challenge.zones();
        zones
            .filter(|zone| self.is_challenging(settings, *zone))
            .collect()
    }

    /// Returns the number of sources that were known when the most recent one was validated.
    pub(super) fn known_sources(&self, settings: &Settings) -> usize {
        self.challenges.sources.len(settings.challenge.lifetime)
    }

    fn is_challenging(&self, settings: &Settings, zone: Zone) -> bool {
        let half_open = || self.accounts.zone(zone).half_open();
        settings.challenge.is_challenging(zone, half_open)
    }

    fn is_known(&self, settings: &Settings, candidate: &Candidate<'_>) -> bool {
        let key = &candidate.flow.key;
        let source = source_of(settings, key.zone(), candidate.parsed.ip.src, key.is_ipv6());
        let (place, lifetime) = (
            settings.challenge.place(key.zone()),
            settings.challenge.lifetime,
        );
        self.challenges
            .sources
            .is_known(&source, place, lifetime, candidate.now)
    }

    fn note_source(&self, settings: &Settings, source: &Source, now: Micros) {
        let place = settings.challenge.place(source.zone);
        let lifetime = settings.challenge.lifetime;
        self.challenges.sources.note(source, place, lifetime, now);
    }
}

/// Returns the source as it is counted.
fn source_of(settings: &Settings, zone: Zone, address: u128, is_ipv6: bool) -> Source {
    Source {
        zone,
        is_ipv6,
        prefix: settings.limits.prefixes.counted(address, is_ipv6),
    }
}
