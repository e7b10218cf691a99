//! Segments of control sessions: what helpers read, and what passes.
//!
//! Where a refused announcement stops its session (`ftp.refused = "drop"`), nothing passes that is
//! not read whole and in its place:
//!
//! - A segment ahead of a hole passes, but only if it is kept: once the hole is filled, it is read
//!   as
//!   well, and if there is anything to refuse in it, what would have filled the hole is dropped, so
//!   that the refused line is never whole at its receiver.
//! - What was read and is not acknowledged is kept too: the receiver may not have got it (too short
//!   a
//!   time to live, an old timestamp), and must not get anything else instead.
//! - A segment that cannot be read now is dropped as if it had not come; its sender sends it again.
//!   One that never will be readable [ends](Ruling::Stops) the session, so that neither end waits
//!   for
//!   the other.

use std::sync::Arc;
use std::time::Instant;

use super::Engine;
use super::candidate::Candidate;
use super::ftp_settings::{FtpSettings, Parent};
use super::helpers::{Helpers, Listening, ends_of};
use super::settings::Settings;
use crate::alg::expectations::TableSink;
use crate::alg::ftp::Ftp;
use crate::alg::urgent::Urgent;
use crate::alg::{
    Control, Expectation, Fit, Helper, HelperEvent, HelperSink, Segment as Payload, first_byte,
};
use crate::event::HelperNote;
use crate::explain::{Step, Trace};
use crate::flow::Direction;
use crate::packet::{Segment, SeqNum, TcpFlags, Transport};
use crate::policy::RuleId;
use crate::session::{SessionId, Shard, Slot};
use crate::track::tcp::State;
use crate::verdict::Tracked;

/// Notes of one packet; more are only counted.
const MAX_NOTES: usize = 32;

/// A sender that sends so many segments in a row that cannot be read will not send others.
const MAX_UNREAD: u8 = 16;

/// A segment of a control session as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) direction: Direction,
    pub(super) segment: &'a Segment,
    /// `None` if not all of it is here: the payload of a fragment.
    pub(super) payload: Option<&'a [u8]>,
    pub(super) now: Instant,
}

/// Ruling on a segment of a control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    Passes,
    /// It is dropped as if it had not come.
    Drops,
    /// It is dropped, and the session ends.
    Stops,
}

/// Keeps expectations and counts, and notes what was found and what stops whom.
struct Attentive<'a> {
    table: TableSink<'a>,
    session: SessionId,
    notes: &'a mut Vec<HelperNote>,
    /// The expectation that the next event is about.
    about: Option<Expectation>,
    /// Refused and unread data stop their sender.
    stops: bool,
    /// Directions that are stopped, original first.
    refused: [bool; 2],
}

impl HelperSink for Attentive<'_> {
    fn event(&mut self, event: HelperEvent, from: Direction) {
        // One that is taken up in its middle is read from there on.
        let is_unread = event.is_unread() && event != HelperEvent::MidStream;
        let refuses = self.stops && (event.is_refusal() || is_unread);
        let [original, reply] = &mut self.refused;
        match from {
            Direction::Original => *original |= refuses,
            Direction::Reply => *reply |= refuses,
        }
        if self.notes.len() < MAX_NOTES {
            self.notes.push(HelperNote {
                session: self.session,
                event,
                from,
                expectation: self.about.take(),
                at: self.table.now,
            });
        }
        self.table.event(event, from);
    }

    fn expect(&mut self, expectation: &Expectation) -> bool {
        self.about = Some(*expectation);
        self.table.expect(expectation)
    }

    fn withdraw(&mut self, expectation: &Expectation) -> bool {
        let is_there = self.table.withdraw(expectation);
        self.about = is_there.then_some(*expectation);
        is_there
    }
}

/// Returns whether a segment brings data to its receiver, or something that changes what it reads.
fn carries(segment: &Segment, payload: Option<&[u8]>) -> bool {
    let is_reset = segment.flags.contains(TcpFlags::RST);
    !is_reset && (payload.is_none() || segment.payload_len > 0 || segment.flags.contains(TcpFlags::URG))
}

impl Helpers {
    /// Reads a segment of a control session that was found right. Listening begins with the
    /// SYN-ACK, so that nobody but a server that answers takes a place. What was announced does not
    /// announce anything itself.
    #[cold]
    #[inline(never)]
    pub(super) fn control(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        heard: &Heard<'_>,
        notes: &mut Vec<HelperNote>,
    ) -> Ruling {
        let Some(part) = self.part(own.session) else {
            return Ruling::Passes;
        };
        let (segment, direction) = (heard.segment, heard.direction);
        let stops = settings.stops(own.rule);
        let mut part = part.lock();
        let has = |flag| segment.flags.contains(flag);
        if has(TcpFlags::SYN) && has(TcpFlags::ACK) && direction == Direction::Reply {
            let known = part.contains_key(&own.session);
            if !known && !self.is_child(own.session) && settings.is_control(slot, own.rule) {
                let mut control = Control::new(Ftp::new(Arc::clone(&settings.rules), ends_of(slot)));
                control.begins(Direction::Original, segment.ack);
                self.listen(&mut part, slot, own, control);
            }
        }
        let Some(listening) = part.get_mut(&own.session) else {
            let passes = !stops || !carries(segment, heard.payload) || !self.is_watched(settings, slot, own);
            return match passes {
                true => Ruling::Passes,
                false if has(TcpFlags::SYN) => Ruling::Drops,
                // Nobody will ever read it.
                false => Ruling::Stops,
            };
        };
        if has(TcpFlags::RST) {
            if slot.track.state() == State::Close {
                // One that its receiver will challenge has closed nothing.
                self.withdraw_all(listening);
            }
            return Ruling::Passes;
        }
        let ruling = if stops {
            self.read_guarded(listening, own.session, heard, notes)
        } else {
            let mut sink = self.sink(own.session, heard.now, false, notes);
            listening.control.helper_mut().set_guarded(false);
            let payload = payload_of(heard);
            if has(TcpFlags::SYN) {
                listening.control.begins(direction, payload.seq);
            }
            listening.control.segment(direction, &payload, &mut sink);
            Ruling::Passes
        };
        let is_open = matches!(
            slot.track.state(),
            State::SynSent | State::SynSent2 | State::SynRecv | State::Established
        );
        if ruling == Ruling::Stops || !is_open {
            // An end has said its last word: no data will follow.
            self.withdraw_all(listening);
        }
        if !self.account(listening, stops)
            && let Some(listening) = part.remove(&own.session)
        {
            self.counts.count(HelperEvent::NotHeard);
            self.dismiss(listening, own.session, slot);
        }
        ruling
    }

    fn sink<'a>(
        &'a self,
        session: SessionId,
        now: Instant,
        stops: bool,
        notes: &'a mut Vec<HelperNote>,
    ) -> Attentive<'a> {
        Attentive {
            table: TableSink {
                table: &self.expectations,
                counts: &self.counts,
                now,
            },
            session,
            notes,
            about: None,
            stops,
            refused: [false; 2],
        }
    }

    /// Reads a segment of a session in which nothing may pass unread.
    fn read_guarded(
        &self,
        listening: &mut Listening,
        session: SessionId,
        heard: &Heard<'_>,
        notes: &mut Vec<HelperNote>,
    ) -> Ruling {
        let (segment, direction) = (heard.segment, heard.direction);
        let payload = payload_of(heard);
        let [original, reply] = listening.stopped;
        let stopped = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        let end = payload.seq.add(segment.payload_len);
        if stopped.is_some_and(|from| heard.payload.is_none() || end.after(from)) {
            return Ruling::Stops;
        }
        let urgent = match self.can_be_read(listening, heard, &payload) {
            Ok(urgent) => urgent,
            Err(ruling) => return ruling,
        };
        let control = &mut listening.control;
        control.helper_mut().set_guarded(true);
        if segment.flags.contains(TcpFlags::SYN) {
            control.begins(direction, payload.seq);
        }
        let mut sink = self.sink(session, heard.now, true, notes);
        let opposite = control.stream(direction.opposite()).next();
        match control.guarded_segment(direction, &payload, &mut sink) {
            Fit::Fits => {}
            Fit::NoRoom => return Ruling::Drops,
            Fit::Differs => return unread(listening),
            Fit::BeforeStart => {
                // It was lost before the session was taken up, if it comes again and again: its
                // sender waits twice as long each time.
                listening.unread = listening.unread.saturating_add(MAX_UNREAD / 4 - 1);
                return unread(listening);
            }
        }
        if !payload.payload.is_empty() {
            listening.unread = 0;
        }
        // Only now: a segment that is dropped tells its receiver of no urgent byte.
        let [original, reply] = &mut listening.urgent;
        match direction {
            Direction::Original => *original = urgent,
            Direction::Reply => *reply = urgent,
        }
        let [original, reply] = sink.refused;
        let (own, peer) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        let control = &listening.control;
        let stops = own || control.stream(direction).is_too_long();
        let from_own = stops.then_some(payload.seq);
        // Found by what this segment acknowledges: the other end has said it, from where it was not
        // read.
        let from_peer = opposite.filter(|_| peer);
        let (from_original, from_reply) = match direction {
            Direction::Original => (from_own, from_peer),
            Direction::Reply => (from_peer, from_own),
        };
        let [original, reply] = &mut listening.stopped;
        *original = original.or(from_original);
        *reply = reply.or(from_reply);
        if peer {
            self.withdraw_all(listening);
        }
        if stops { Ruling::Stops } else { Ruling::Passes }
    }

    /// Returns whether a segment may pass of which nobody reads the data: its numbers are wrong and
    /// it is let pass nevertheless.
    #[cold]
    #[inline(never)]
    pub(super) fn may_pass_unread(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        heard: &Heard<'_>,
    ) -> bool {
        if !settings.stops(own.rule) || !carries(heard.segment, heard.payload) {
            return true;
        }
        let Some(part) = self.part(own.session) else {
            return true;
        };
        match part.lock().get(&own.session) {
            Some(listening) => listening.control.helper().is_encrypted(),
            None => !self.is_watched(settings, slot, own),
        }
    }

    /// Checks that the data of a segment are at hand and in the stream, and that there is memory
    /// for them. Returns the urgent byte that is to come after the segment.
    ///
    /// # Errors
    /// Rules on a segment that cannot be read.
    fn can_be_read(
        &self,
        listening: &mut Listening,
        heard: &Heard<'_>,
        payload: &Payload<'_>,
    ) -> Result<Urgent, Ruling> {
        let segment = heard.segment;
        let [original, reply] = listening.urgent;
        let mut urgent = match heard.direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        let helper = listening.control.helper();
        if helper.is_opaque() {
            let passes = helper.is_encrypted() || !carries(segment, heard.payload);
            return if passes {
                Ok(urgent)
            } else {
                Err(unread(listening))
            };
        }
        let is_whole = |bytes: &&[u8]| bytes.len() as u64 == u64::from(segment.payload_len);
        let Some(bytes) = heard.payload.filter(is_whole) else {
            return Err(unread(listening));
        };
        if segment.flags.contains(TcpFlags::SYN) {
            // Its sender sends the data again without the SYN.
            return if bytes.is_empty() {
                Ok(urgent)
            } else {
                Err(Ruling::Drops)
            };
        }
        let has_pointer = segment.flags.contains(TcpFlags::URG);
        let stream = listening.control.stream(heard.direction);
        if !urgent.allows(payload.seq, bytes, has_pointer.then_some(segment.urgent), stream) {
            return Err(unread(listening));
        }
        if bytes.is_empty() {
            return Ok(urgent);
        }
        let limits = listening.control.limits(heard.direction);
        let growth = stream.growth(payload.seq, bytes.len(), &limits);
        let memory = listening.control.memory() + growth;
        match self.shares.fit(&mut listening.holding, memory) {
            true => Ok(urgent),
            false => Err(unread(listening)),
        }
    }

    /// Whether a session is one that should be listened to.
    fn is_watched(&self, settings: &FtpSettings, slot: &Slot, own: Parent) -> bool {
        settings.is_control(slot, own.rule) && !self.is_child(own.session)
    }

    /// Nothing that a control session has announced comes any more.
    fn withdraw_all(&self, listening: &mut Listening) {
        let helper = listening.control.helper_mut();
        helper.forget_announced();
        self.expectations.withdraw(helper.session());
    }

    /// Brings the memory that a control session takes up to date. One that takes more than its
    /// share sheds what waits for missing segments; `false` if that is not enough. One that nothing
    /// may pass unread sheds nothing: what waits there has passed.
    fn account(&self, listening: &mut Listening, stops: bool) -> bool {
        let Listening { control, holding, .. } = listening;
        if self.shares.fit(holding, control.memory()) || stops {
            return true;
        }
        control.shed();
        self.shares.fit(holding, control.memory())
    }
}

/// Counts a segment that cannot be read.
const fn unread(listening: &mut Listening) -> Ruling {
    listening.unread = listening.unread.saturating_add(1);
    if listening.unread < MAX_UNREAD {
        Ruling::Drops
    } else {
        Ruling::Stops
    }
}

/// Part of a segment that a helper reads. The data of a SYN may be discarded by its receiver, and
/// then come again: they are not read.
fn payload_of<'a>(heard: &Heard<'a>) -> Payload<'a> {
    let segment = heard.segment;
    let is_syn = segment.flags.contains(TcpFlags::SYN);
    let seq = if is_syn {
        first_byte(segment.seq)
    } else {
        segment.seq
    };
    Payload {
        seq,
        ack: segment
            .flags
            .contains(TcpFlags::ACK)
            .then_some(SeqNum(segment.ack.0)),
        payload: heard.payload.filter(|_| !is_syn).unwrap_or_default(),
        fin: segment.flags.contains(TcpFlags::FIN) && heard.payload.is_some(),
    }
}

impl Engine {
    /// Hands a segment of a control session to its helper, if it is right. Returns what becomes of
    /// it.
    #[cold]
    #[inline(never)]
    pub(super) fn hear<T: Trace>(
        &self,
        held: (&Shard, &Settings),
        session: (u32, Tracked),
        candidate: &Candidate<'_>,
        is_right: bool,
        notes: &mut Vec<HelperNote>,
        trace: &mut T,
    ) -> Ruling {
        if !is_right {
            return match self.may_pass_unread(held, session, candidate) {
                true => Ruling::Passes,
                false => Ruling::Drops,
            };
        }
        let Some((slot, own, heard)) = said((held.0, session), candidate) else {
            return Ruling::Passes;
        };
        let ruling = self.helpers.control(&held.1.ftp, slot, own, &heard, notes);
        for note in notes.iter() {
            trace.step(|| Step::Helper(Box::new(*note)));
        }
        ruling
    }

    /// Returns whether a segment of a control session may pass unread.
    pub(super) fn may_pass_unread(
        &self,
        held: (&Shard, &Settings),
        session: (u32, Tracked),
        candidate: &Candidate<'_>,
    ) -> bool {
        let Some((slot, own, heard)) = said((held.0, session), candidate) else {
            return true;
        };
        self.helpers.may_pass_unread(&held.1.ftp, slot, own, &heard)
    }
}

/// A segment, as a helper wants it, with the session that it belongs to.
fn said<'a>(
    (shard, (number, tracked)): (&'a Shard, (u32, Tracked)),
    candidate: &Candidate<'a>,
) -> Option<(&'a Slot, Parent, Heard<'a>)> {
    let (session, direction) = (tracked.session?, tracked.direction?);
    let Transport::Tcp { segment, .. } = &candidate.parsed.transport else {
        return None;
    };
    let rule = RuleId(shard.slab.cold(number).rule);
    let heard = Heard {
        direction,
        segment,
        payload: candidate.payload(),
        now: candidate.instant,
    };
    Some((shard.slab.hot(number), Parent { session, rule }, heard))
}
