//! Segments of control sessions: the data that helpers read, and the segments that are forwarded.
//!
//! If a refused announcement stops its session (`ftp.refused = "drop"`), only segments that are
//! read completely and in order are forwarded:
//!
//! - A segment after a hole is forwarded only if it is stored, so that it is read once the hole is
//!   filled. If it contains anything to refuse, the segment that would fill the hole is dropped.
//!   The refused line is then never complete at its receiver.
//! - Data that were read but not acknowledged are stored too. The receiver may have missed them
//!   (too short a time to live, an old timestamp), and must not get different data instead.
//! - A segment that cannot be read now is dropped as if it had not arrived; its sender retransmits
//!   it. A segment that will never be readable [ends](Ruling::Stops) the session, so that neither
//!   end waits for the other.

use std::sync::Arc;
use std::time::Instant;

use super::ftp_settings::{FtpSettings, Parent};
use super::helpers::{ControlSession, Helpers, ends_of};
use crate::event::HelperNote;
use crate::flow::Direction;
use crate::ftp::expectations::TableSink;
use crate::ftp::helper::Ftp;
use crate::ftp::urgent::Urgent;
use crate::ftp::{
    Control, Expectation, Fit, Helper, HelperEvent, HelperSink, Segment as Payload, first_byte,
};
use crate::packet::{Segment, SeqNum, TcpFlags};
use crate::session::{SessionId, Slot};
use crate::track::tcp::State;

/// Maximum number of notes of one packet; further ones are only counted.
const MAX_NOTES: usize = 32;

/// A sender that sends this many unreadable segments in a row will not send readable ones.
const MAX_UNREAD: u8 = 16;

/// A segment of a control session as received.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlSegment<'a> {
    pub(super) direction: Direction,
    pub(super) segment: &'a Segment,
    /// The payload; `None` if parts of it are missing, as in a fragment.
    pub(super) payload: Option<&'a [u8]>,
    pub(super) now: Instant,
}

/// Ruling on a segment of a control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    Passes,
    /// The segment is dropped as if it had not arrived.
    Drops,
    /// The segment is dropped, and the session ends.
    Stops,
}

/// Keeps expectations and counts, and records findings and the directions that they stop.
struct RefusalSink<'a> {
    table: TableSink<'a>,
    session: SessionId,
    notes: &'a mut Vec<HelperNote>,
    /// The expectation that the next event refers to.
    about: Option<Expectation>,
    /// Refused and unread data stop their sender.
    stops: bool,
    /// Directions that are stopped, original first.
    refused: [bool; 2],
}

impl HelperSink for RefusalSink<'_> {
    fn event(&mut self, event: HelperEvent, from: Direction) {
        // A session that is adopted midstream is read from there on.
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

/// Returns whether a segment carries data to its receiver, or changes which data the receiver
/// reads.
fn carries(segment: &Segment, payload: Option<&[u8]>) -> bool {
    let is_reset = segment.flags.contains(TcpFlags::RST);
    !is_reset
        && (payload.is_none() || segment.payload_len > 0 || segment.flags.contains(TcpFlags::URG))
}

impl Helpers {
    /// Reads a valid segment of a control session.
    ///
    /// Inspection begins with the SYN-ACK, so that only a server that answers takes a slot. An
    /// announced session does not announce sessions itself.
    #[cold]
    #[inline(never)]
    pub(super) fn control(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        received: &ControlSegment<'_>,
        notes: &mut Vec<HelperNote>,
    ) -> Ruling {
        let Some(bucket) = self.bucket(own.session) else {
            return Ruling::Passes;
        };
        let (segment, direction) = (received.segment, received.direction);
        let stops = settings.stops(own.rule);
        let mut bucket = bucket.lock();
        let has = |flag| segment.flags.contains(flag);
        if has(TcpFlags::SYN) && has(TcpFlags::ACK) && direction == Direction::Reply {
            let known = bucket.contains_key(&own.session);
            if !known && !self.is_child(own.session) && settings.is_control(slot, own.rule) {
                let mut control =
                    Control::new(Ftp::new(Arc::clone(&settings.rules), ends_of(slot)));
                control.begins(Direction::Original, segment.ack);
                self.begin_inspection(&mut bucket, slot, own, control);
            }
        }
        let Some(inspected) = bucket.get_mut(&own.session) else {
            let passes = !stops
                || !carries(segment, received.payload)
                || !self.is_watched(settings, slot, own);
            return match passes {
                true => Ruling::Passes,
                false if has(TcpFlags::SYN) => Ruling::Drops,
                // The segment will never be read.
                false => Ruling::Stops,
            };
        };
        if has(TcpFlags::RST) {
            if slot.track.state() == State::Close {
                // A RST that its receiver will challenge has closed nothing.
                self.withdraw_all(inspected);
            }
            return Ruling::Passes;
        }
        let ruling = if stops {
            self.read_guarded(inspected, own.session, received, notes)
        } else {
            let mut sink = self.sink(own.session, received.now, false, notes);
            inspected.control.helper_mut().set_guarded(false);
            let payload = payload_of(received);
            if has(TcpFlags::SYN) {
                inspected.control.begins(direction, payload.seq);
            }
            inspected.control.segment(direction, &payload, &mut sink);
            Ruling::Passes
        };
        let is_open = matches!(
            slot.track.state(),
            State::SynSent | State::SynSent2 | State::SynRecv | State::Established
        );
        if ruling == Ruling::Stops || !is_open {
            // An end has finished sending: no data will follow.
            self.withdraw_all(inspected);
        }
        if !self.account(inspected, stops)
            && let Some(inspected) = bucket.remove(&own.session)
        {
            self.counts.count(HelperEvent::NotInspected);
            self.dismiss(inspected, own.session, slot);
        }
        ruling
    }

    fn sink<'a>(
        &'a self,
        session: SessionId,
        now: Instant,
        stops: bool,
        notes: &'a mut Vec<HelperNote>,
    ) -> RefusalSink<'a> {
        RefusalSink {
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

    /// Reads a segment of a session in which no segment is forwarded unread.
    fn read_guarded(
        &self,
        inspected: &mut ControlSession,
        session: SessionId,
        received: &ControlSegment<'_>,
        notes: &mut Vec<HelperNote>,
    ) -> Ruling {
        let (segment, direction) = (received.segment, received.direction);
        let payload = payload_of(received);
        let [original, reply] = inspected.stopped;
        let stopped = match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        let end = payload.seq.add(segment.payload_len);
        if stopped.is_some_and(|from| received.payload.is_none() || end.after(from)) {
            return Ruling::Stops;
        }
        let urgent = match self.can_be_read(inspected, received, &payload) {
            Ok(urgent) => urgent,
            Err(ruling) => return ruling,
        };
        let control = &mut inspected.control;
        control.helper_mut().set_guarded(true);
        if segment.flags.contains(TcpFlags::SYN) {
            control.begins(direction, payload.seq);
        }
        let mut sink = self.sink(session, received.now, true, notes);
        let opposite = control.stream(direction.opposite()).next();
        match control.guarded_segment(direction, &payload, &mut sink) {
            Fit::Fits => {}
            Fit::NoRoom => return Ruling::Drops,
            Fit::Differs => return unread(inspected),
            Fit::BeforeStart => {
                // If the segment is retransmitted repeatedly, the missing one was lost before the
                // session was adopted: its sender doubles the interval each time.
                inspected.unread = inspected.unread.saturating_add(MAX_UNREAD / 4 - 1);
                return unread(inspected);
            }
        }
        if !payload.payload.is_empty() {
            inspected.unread = 0;
        }
        // This is done only now: a dropped segment does not announce an urgent byte to its
        // receiver.
        let [original, reply] = &mut inspected.urgent;
        match direction {
            Direction::Original => *original = urgent,
            Direction::Reply => *reply = urgent,
        }
        let [original, reply] = sink.refused;
        let (own, peer) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        let control = &inspected.control;
        let stops = own || control.stream(direction).is_too_long();
        let from_own = stops.then_some(payload.seq);
        // The finding follows from what this segment acknowledges: the other end sent the data
        // unread.
        let from_peer = opposite.filter(|_| peer);
        let (from_original, from_reply) = match direction {
            Direction::Original => (from_own, from_peer),
            Direction::Reply => (from_peer, from_own),
        };
        let [original, reply] = &mut inspected.stopped;
        *original = original.or(from_original);
        *reply = reply.or(from_reply);
        if peer {
            self.withdraw_all(inspected);
        }
        if stops { Ruling::Stops } else { Ruling::Passes }
    }

    /// Returns whether a segment may be forwarded unread: its numbers are invalid and it is allowed
    /// nevertheless.
    #[cold]
    #[inline(never)]
    pub(super) fn may_pass_unread(
        &self,
        settings: &FtpSettings,
        slot: &Slot,
        own: Parent,
        received: &ControlSegment<'_>,
    ) -> bool {
        if !settings.stops(own.rule) || !carries(received.segment, received.payload) {
            return true;
        }
        let Some(bucket) = self.bucket(own.session) else {
            return true;
        };
        match bucket.lock().get(&own.session) {
            Some(inspected) => inspected.control.helper().is_encrypted(),
            None => !self.is_watched(settings, slot, own),
        }
    }

    /// Checks that the data of a segment are available and in the stream, and that there is memory
    /// for them. Returns the urgent byte that is expected after the segment.
    ///
    /// # Errors
    /// Returns the ruling on a segment that cannot be read.
    fn can_be_read(
        &self,
        inspected: &mut ControlSession,
        received: &ControlSegment<'_>,
        payload: &Payload<'_>,
    ) -> Result<Urgent, Ruling> {
        let segment = received.segment;
        let [original, reply] = inspected.urgent;
        let mut urgent = match received.direction {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        let helper = inspected.control.helper();
        if helper.is_opaque() {
            let passes = helper.is_encrypted() || !carries(segment, received.payload);
            return if passes {
                Ok(urgent)
            } else {
                Err(unread(inspected))
            };
        }
        let is_whole = |bytes: &&[u8]| bytes.len() as u64 == u64::from(segment.payload_len);
        let Some(bytes) = received.payload.filter(is_whole) else {
            return Err(unread(inspected));
        };
        if segment.flags.contains(TcpFlags::SYN) {
            // The sender retransmits the data without the SYN.
            return if bytes.is_empty() {
                Ok(urgent)
            } else {
                Err(Ruling::Drops)
            };
        }
        let has_pointer = segment.flags.contains(TcpFlags::URG);
        let stream = inspected.control.stream(received.direction);
        if !urgent.allows(
            payload.seq,
            bytes,
            has_pointer.then_some(segment.urgent),
            stream,
        ) {
            return Err(unread(inspected));
        }
        if bytes.is_empty() {
            return Ok(urgent);
        }
        let limits = inspected.control.limits(received.direction);
        let growth = stream.growth(payload.seq, bytes.len(), &limits);
        let memory = inspected.control.memory() + growth;
        match self.shares.fit(&mut inspected.holding, memory) {
            true => Ok(urgent),
            false => Err(unread(inspected)),
        }
    }

    /// Returns whether a session should be inspected.
    fn is_watched(&self, settings: &FtpSettings, slot: &Slot, own: Parent) -> bool {
        settings.is_control(slot, own.rule) && !self.is_child(own.session)
    }

    /// Withdraws all announcements of a control session.
    fn withdraw_all(&self, inspected: &mut ControlSession) {
        let helper = inspected.control.helper_mut();
        helper.forget_announced();
        self.expectations.withdraw(helper.session());
    }

    /// Updates the memory that a control session takes. A session that exceeds its share discards
    /// data that wait for missing segments; returns `false` if that is not enough. A session in
    /// which nothing may be forwarded unread discards nothing: its waiting data were forwarded.
    fn account(&self, inspected: &mut ControlSession, stops: bool) -> bool {
        let ControlSession {
            control, holding, ..
        } = inspected;
        if self.shares.fit(holding, control.memory()) || stops {
            return true;
        }
        control.shed();
        self.shares.fit(holding, control.memory())
    }
}

/// Counts a segment that cannot be read.
const fn unread(inspected: &mut ControlSession) -> Ruling {
    inspected.unread = inspected.unread.saturating_add(1);
    if inspected.unread < MAX_UNREAD {
        Ruling::Drops
    } else {
        Ruling::Stops
    }
}

/// Returns the part of a segment that a helper reads. The receiver may discard the data of a SYN
/// and get them again, so they are not read.
fn payload_of<'a>(received: &ControlSegment<'a>) -> Payload<'a> {
    let segment = received.segment;
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
        payload: received.payload.filter(|_| !is_syn).unwrap_or_default(),
        fin: segment.flags.contains(TcpFlags::FIN) && received.payload.is_some(),
    }
}
