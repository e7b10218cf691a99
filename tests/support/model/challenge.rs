//! Sources that must be validated before their SYN is forwarded, and validated sources.

use std::time::Duration;

use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::packet::{Segment, SeqNum};
use portcullis::track::tcp::{State as TcpState, Track};
use portcullis::{Direction, DropReason, Reply, Tracked, Verdict};

use super::Run;
use super::session::Tuple;

/// The default of `syn_challenge.lifetime`, in seconds.
const LIFETIME: u64 = 600;

/// A source as it is counted: an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    zone: u16,
    v6: bool,
    prefix: u128,
}

impl Source {
    pub(super) const fn of(tuple: &Tuple) -> Self {
        let (address, _) = tuple.src;
        Self {
            zone: tuple.zone,
            v6: tuple.v6,
            prefix: if tuple.v6 { address >> 64 } else { address },
        }
    }
}

/// State of sources in the model.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Known sources, with the moment of the last proof.
    known: Vec<(Source, Duration)>,
    /// Sources with the moment at which the next new session is on time, in nanoseconds.
    pub(super) paces: Vec<(Source, u64)>,
    /// The answer to a challenge, while it is in transit.
    answer: Option<Vec<u8>>,
}

impl Run {
    /// Returns the whole seconds since the engine's first moment.
    fn second(&self, at: Duration) -> u64 {
        (at - self.shown).as_secs()
    }

    fn note_source(&mut self, source: Source) {
        self.sources.known.retain(|(known, _)| *known != source);
        self.sources.known.push((source, self.now));
    }

    /// Returns the verdict on a SYN that is allowed, if its source must prove that it is real.
    pub(super) fn challenged(
        &self,
        tuple: &Tuple,
        new: Tracked,
        verdict: Verdict,
    ) -> Option<Verdict> {
        let source = Source::of(tuple);
        let is_known = self.sources.known.iter().any(|(known, at)| {
            *known == source && self.second(self.now) - self.second(*at) <= LIFETIME
        });
        if is_known || tuple.zone != 1 || !self.setup.settings.challenged {
            return None;
        }
        // Any cookie is valid if its source returns it.
        let Verdict::Reject(_, reply @ Reply::Challenge(_), _) = verdict else {
            panic!("{tuple:?} is not challenged: {verdict:?}");
        };
        Some(Verdict::Reject(DropReason::SynChallenged, reply, new))
    }

    /// Sends the answers of a real stack to a challenge: the RST that returns the cookie, and the
    /// SYN again.
    pub(super) fn answers(&mut self, zone: u16, syn: &[u8], cookie: SeqNum) -> Verdict {
        self.tally.challenged += 1;
        let (mut challenge, mut rst) = ([0; MAX_REPLY], [0; MAX_REPLY]);
        let challenge =
            write_reply_unbudgeted(Reply::Challenge(cookie), syn, &mut challenge).unwrap();
        assert!(challenge.len() <= syn.len());
        let rst = write_reply_unbudgeted(Reply::TcpResetAt(cookie), challenge, &mut rst).unwrap();
        self.sources.answer = Some(rst.to_vec());
        let answered = self.packet(zone, rst);
        assert_eq!(answered.reason(), Some(DropReason::SynValidated));
        self.compare();
        self.packet(zone, syn)
    }

    /// Returns whether a packet without a session is the answer to a challenge.
    pub(super) fn is_answer(&mut self, tuple: &Tuple, bytes: &[u8]) -> bool {
        let is_answer = self
            .sources
            .answer
            .take_if(|answer| answer == bytes)
            .is_some();
        if is_answer {
            self.note_source(Source::of(tuple));
        }
        is_answer
    }

    /// Records that the initiator of a session has completed its handshake.
    pub(super) fn has_proven(&mut self, initiator: &Tuple) {
        self.note_source(Source::of(initiator));
    }

    /// Clears all sources, as in a new engine.
    pub(super) fn forgets_sources(&mut self) {
        self.sources = Sources::default();
    }
}

/// Returns whether a segment that changed a session's state proves that its sender receives the
/// responder's packets.
pub(super) fn is_proof(
    before: &Track,
    after: &Track,
    direction: Direction,
    segment: &Segment,
) -> bool {
    direction == Direction::Original
        && (before.state(), after.state()) == (TcpState::SynRecv, TcpState::Established)
        && segment.ack == after.side(Direction::Reply).peer.end
}
