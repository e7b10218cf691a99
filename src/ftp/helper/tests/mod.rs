//! Conversations with a recording sink.

mod announcements;
mod attacks;
mod conversations;
mod deviations;
mod encrypted;
mod properties;
mod slipstream;

use core::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::flow::Zone;
use crate::ftp::{Control, Segment, first_byte};
use crate::packet::SeqNum;

/// Events and announcements of a helper.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) events: Vec<HelperEvent>,
    pub(super) open: Vec<Expectation>,
    /// All expectations that were ever opened.
    pub(super) opened: Vec<SocketAddr>,
}

impl HelperSink for Record {
    fn event(&mut self, event: HelperEvent, _: Direction) {
        self.events.push(event);
    }

    fn expect(&mut self, expectation: &Expectation) -> bool {
        self.open.push(*expectation);
        self.opened.push(expectation.destination);
        true
    }

    fn withdraw(&mut self, expectation: &Expectation) -> bool {
        let before = self.open.len();
        self.open.retain(|open| open != expectation);
        self.open.len() < before
    }
}

/// A control session between 10.0.0.9 and 192.0.2.1, or their IPv6 counterparts.
pub(super) struct Talk {
    pub(super) control: Control<Ftp>,
    pub(super) record: Record,
    pub(super) next: [SeqNum; 2],
}

pub(super) fn v4() -> SessionEnds {
    SessionEnds::new(
        Zone(0),
        SocketAddr::from(([10, 0, 0, 9], 40_000)),
        SocketAddr::from(([192, 0, 2, 1], 21)),
    )
}

pub(super) fn v6() -> SessionEnds {
    SessionEnds::new(
        Zone(0),
        "[2001:db8::9]:40000".parse().unwrap(),
        "[2001:db8::1]:21".parse().unwrap(),
    )
}

impl Talk {
    /// Begun, greeted, logged in.
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), v4())
    }

    pub(super) fn with(settings: Settings, ends: SessionEnds) -> Self {
        let mut talk = Self::unbegun(settings, ends);
        for (from, next) in Direction::BOTH.into_iter().zip(talk.next) {
            talk.control.begins(from, next);
        }
        talk.server("220 ready\r\n");
        talk.client("USER a\r\n").server("331 password\r\n");
        talk.client("PASS b\r\n").server("230 in\r\n");
        talk.record = Record::default();
        talk
    }

    pub(super) fn unbegun(settings: Settings, ends: SessionEnds) -> Self {
        Self {
            control: Control::new(Ftp::new(Arc::new(Rules::new(settings)), ends)),
            record: Record::default(),
            next: [first_byte(SeqNum(u32::MAX - 40)), first_byte(SeqNum(7))],
        }
    }

    pub(super) fn client(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.say(Direction::Original, text.as_ref())
    }

    pub(super) fn server(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.say(Direction::Reply, text.as_ref())
    }

    fn say(&mut self, from: Direction, payload: &[u8]) -> &mut Self {
        let [original, reply] = self.next;
        let (seq, ack) = match from {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        self.segment(from, seq, Some(ack), payload);
        self.lost(from, payload.len());
        self
    }

    pub(super) fn segment(
        &mut self,
        from: Direction,
        seq: SeqNum,
        ack: Option<SeqNum>,
        payload: &[u8],
    ) {
        let segment = Segment {
            seq,
            ack,
            payload,
            fin: false,
        };
        self.control.segment(from, &segment, &mut self.record);
    }

    /// Skips bytes that were sent on another path.
    pub(super) fn lost(&mut self, from: Direction, bytes: usize) -> &mut Self {
        let [original, reply] = &mut self.next;
        let next = match from {
            Direction::Original => original,
            Direction::Reply => reply,
        };
        *next = next.add(bytes as u32);
        self
    }

    /// The events since the last time, without those about expectations that open.
    pub(super) fn events(&mut self) -> Vec<&'static str> {
        core::mem::take(&mut self.record.events)
            .into_iter()
            .filter(|event| *event != HelperEvent::ExpectationOpened)
            .map(HelperEvent::name)
            .collect()
    }

    /// Returns the open expectations, as `source -> destination`.
    pub(super) fn open(&self) -> Vec<String> {
        let text = |open: &Expectation| format!("{} -> {}", open.source, open.destination);
        self.record.open.iter().map(text).collect()
    }

    #[track_caller]
    pub(super) fn refuses(&mut self, reasons: &[&str]) -> &mut Self {
        assert_eq!(self.events(), reasons);
        assert_eq!(self.record.opened, []);
        self
    }
}
