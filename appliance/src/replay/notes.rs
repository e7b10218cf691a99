//! Anomalies of a capture: time that runs backward, and answers before their questions.
//!
//! Both occur in captures that are merged, or taken at several queues or interfaces. The engine
//! processes the packets in the order of the file, and so drops packets that were healthy on the
//! wire.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use portcullis::packet::{Checksums, TcpFlags, Transport, parse};
use portcullis::{Class, Verdict};
use serde::Serialize;

/// Maximum number of answers that are remembered while their questions may follow.
const MAX_ANSWERS: usize = 4_096;
/// A question belongs to an answer that was captured within this time before or after it.
const NEAR: Duration = Duration::from_secs(1);
/// The ports of DNS (RFC 1035) and NTP (RFC 5905).
const DNS: u16 = 53;
const NTP: u16 = 123;

/// Frames whose time is before that of the frame before them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Backwards {
    pub(crate) frames: u64,
    pub(crate) first_frame: u64,
    /// The largest step, in seconds.
    pub(crate) seconds: f64,
}

/// Answers that are stored before their questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct AnswersFirst {
    pub(crate) answers: u64,
    /// Frame of the first answer.
    pub(crate) answer_frame: u64,
    /// Frame of the question of the first answer.
    pub(crate) question_frame: u64,
}

/// An exchange of two packets, identified by the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Exchange {
    protocol: u8,
    asker: u128,
    asked: u128,
    ports: [u16; 2],
    /// A number that both packets have, such as the SYN's sequence number.
    number: u32,
}

/// Role of a packet in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Question(Exchange),
    Answer(Exchange),
}

/// Notes on the order of a capture.
#[derive(Debug, Default)]
pub(super) struct Notes {
    before: Option<Duration>,
    largest_step: Duration,
    pub(super) backwards: Option<Backwards>,
    /// Answers without a session: the frame and its time.
    answers: HashMap<Exchange, (u64, Duration)>,
    /// Questions that were not forwarded: their answers have no session either.
    denied: HashSet<Exchange>,
    pub(super) answers_first: Option<AnswersFirst>,
}

impl Notes {
    /// Records a frame's time.
    pub(super) fn frame(&mut self, number: u64, time: Duration) {
        if let Some(before) = self.before.replace(time)
            && time < before
        {
            self.largest_step = self.largest_step.max(before - time);
            let note = self.backwards.get_or_insert(Backwards {
                frames: 0,
                first_frame: number,
                seconds: 0.0,
            });
            note.frames += 1;
            note.seconds = self.largest_step.as_secs_f64();
        }
    }

    /// Records a packet and its verdict.
    pub(super) fn packet(&mut self, number: u64, time: Duration, bytes: &[u8], verdict: &Verdict) {
        match role(bytes) {
            Some(Role::Answer(exchange)) => {
                let has_session =
                    matches!(verdict.tracked().class, Class::Established | Class::Related);
                let is_odd = !has_session && !self.denied.contains(&exchange);
                // If not all denied questions are known, an answer may belong to any of them.
                if is_odd && self.answers.len() < MAX_ANSWERS && self.denied.len() < MAX_ANSWERS {
                    self.answers.entry(exchange).or_insert((number, time));
                }
            }
            Some(Role::Question(exchange)) => {
                if !verdict.is_forward() && self.denied.len() < MAX_ANSWERS {
                    self.denied.insert(exchange);
                }
                if let Some((answer, when)) = self.answers.remove(&exchange)
                    && when.abs_diff(time) <= NEAR
                {
                    let note = self.answers_first.get_or_insert(AnswersFirst {
                        answers: 0,
                        answer_frame: answer,
                        question_frame: number,
                    });
                    note.answers += 1;
                }
            }
            None => {}
        }
    }
}

/// Returns the role of a packet: SYN or SYN-ACK, ICMP request or reply, query or response of DNS or
/// NTP. `None` for all others.
fn role(bytes: &[u8]) -> Option<Role> {
    let parsed = parse(bytes, Checksums::Trust).ok()?;
    let ip = parsed.ip;
    let exchange = |is_question: bool, [src_port, dst_port]: [u16; 2], number: u32| {
        let exchange = Exchange {
            protocol: ip.protocol,
            asker: if is_question { ip.src } else { ip.dst },
            asked: if is_question { ip.dst } else { ip.src },
            ports: if is_question {
                [src_port, dst_port]
            } else {
                [dst_port, src_port]
            },
            number,
        };
        if is_question {
            Role::Question(exchange)
        } else {
            Role::Answer(exchange)
        }
    };
    match parsed.transport {
        Transport::Tcp {
            src_port,
            dst_port,
            segment,
        } if segment.flags.contains(TcpFlags::SYN) => {
            let ports = [src_port, dst_port];
            Some(if segment.flags.contains(TcpFlags::ACK) {
                exchange(false, ports, segment.ack.0.wrapping_sub(1))
            } else {
                exchange(true, ports, segment.seq.0)
            })
        }
        Transport::Udp {
            src_port, dst_port, ..
        } => {
            let (is_query, number) = query(parsed.payload(bytes), src_port, dst_port)?;
            Some(exchange(is_query, [src_port, dst_port], number))
        }
        // Both ICMP packets carry the identifier, followed by the sequence number.
        Transport::IcmpQuery(query) => {
            let header = bytes.get(usize::from(ip.header_len)..)?;
            let sequence = u16::from_be_bytes(*header.get(6..)?.first_chunk()?);
            Some(exchange(
                query.request,
                [query.id, query.id],
                sequence.into(),
            ))
        }
        _ => None,
    }
}

/// Returns whether a datagram is a query, and the number that it shares with its response.
fn query(bytes: &[u8], src_port: u16, dst_port: u16) -> Option<(bool, u32)> {
    let number_at = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    if src_port == DNS || dst_port == DNS {
        // The identifier, then the flag that makes a message a response.
        let head = number_at(0)?;
        return Some((head & 0x8000 == 0, head >> 16));
    }
    if src_port == NTP || dst_port == NTP {
        // A server returns the client's transmit timestamp as the origin timestamp: its fraction.
        return match bytes.first()? & 7 {
            3 => Some((true, number_at(44)?)),
            4 => Some((false, number_at(28)?)),
            _ => None,
        };
    }
    None
}
