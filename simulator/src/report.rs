//! What a run has seen, for people and for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::balancer::Unsent;

/// Failures that are described in words; the others are only counted.
const DESCRIBED: usize = 5;

/// What a reply can be that it must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The GENEVE header or the UDP ports are not those that were sent with the packet.
    WrongHeader,
    /// The header is right, the inner packet is not the one that was sent.
    WrongBytes,
    /// Nothing like it waits for a reply.
    Unexpected,
}

impl Failure {
    const fn name(self) -> &'static str {
        match self {
            Self::WrongHeader => "wrong header",
            Self::WrongBytes => "wrong bytes",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Packets that were not sent, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct NotSent {
    not_ip: u64,
    pub(super) too_long: u64,
    flow_table_full: u64,
    backlog: u64,
    refused: u64,
}

impl NotSent {
    pub(super) const fn count(&mut self, reason: Unsent) {
        let counter = match reason {
            Unsent::NotIp => &mut self.not_ip,
            Unsent::TooLong => &mut self.too_long,
            Unsent::FlowTableFull => &mut self.flow_table_full,
            Unsent::Backlog => &mut self.backlog,
            Unsent::Refused => &mut self.refused,
        };
        *counter += 1;
    }

    const fn total(self) -> u64 {
        self.not_ip + self.too_long + self.flow_table_full + self.backlog + self.refused
    }

    const fn rows(self) -> [(u64, &'static str); 5] {
        [
            (self.not_ip, "not sent: no whole IP header"),
            (self.too_long, "not sent: too long for the path to the appliance"),
            (self.flow_table_full, "not sent: the flow table is full"),
            (self.backlog, "not sent: too many packets are unanswered"),
            (self.refused, "not sent: refused by the system"),
        ]
    }
}

/// What is counted while packets go back and forth.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) returned: u64,
    pub(super) late: u64,
    pub(super) made_rst: u64,
    pub(super) made_icmp: u64,
    pub(super) made_challenges: u64,
    /// Of the made ones: under the other direction's header, right only if the appliance has forgotten their own.
    pub(super) other_header: u64,
    pub(super) dropped: u64,
    pub(super) wrong_header: u64,
    pub(super) wrong_bytes: u64,
    pub(super) unexpected: u64,
    pub(super) not_sent: NotSent,
    /// Good replies that the device at the other end did not take.
    pub(super) not_delivered: u64,
    /// The first words of the system on a packet that it did not send.
    pub(super) refusal: Option<String>,
    failures: Vec<String>,
    /// Nanoseconds.
    latency: Option<Histogram<u64>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            sent: 0,
            sent_bytes: 0,
            returned: 0,
            late: 0,
            made_rst: 0,
            made_icmp: 0,
            made_challenges: 0,
            other_header: 0,
            dropped: 0,
            wrong_header: 0,
            wrong_bytes: 0,
            unexpected: 0,
            not_sent: NotSent::default(),
            not_delivered: 0,
            refusal: None,
            failures: Vec::new(),
            // 1 us to 100 s in about 3 decimal digits; what is beyond counts as the nearest.
            latency: Histogram::new_with_bounds(1_000, 100_000_000_000, 3).ok(),
        }
    }
}

impl Counters {
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.sent += 1;
        self.sent_bytes += bytes as u64;
    }

    pub(super) const fn unsent(&mut self, bytes: usize) {
        self.sent -= 1;
        self.sent_bytes -= bytes as u64;
    }

    /// A packet came back as it was sent, after `latency`; late, if it had been counted as dropped.
    pub(super) fn returned(&mut self, latency: Duration, late: bool) {
        self.returned += 1;
        if late {
            self.late += 1;
            self.dropped -= 1;
        }
        if let Some(histogram) = &mut self.latency {
            histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn failed(&mut self, failure: Failure, describe: impl FnOnce() -> String) {
        let counter = match failure {
            Failure::WrongHeader => &mut self.wrong_header,
            Failure::WrongBytes => &mut self.wrong_bytes,
            Failure::Unexpected => &mut self.unexpected,
        };
        *counter += 1;
        if self.failures.len() < DESCRIBED {
            self.failures.push(format!("{}: {}", failure.name(), describe()));
        }
    }
}

/// The time from sending to return, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    sent: u64,
    sent_bytes: u64,
    /// Came back byte for byte, under the right header; the late ones included.
    returned: u64,
    /// Of the returned ones: after the time-out.
    late: u64,
    /// Of the returned ones: after others that should have waited for them had been sent.
    overtaken: u64,
    made_rst: u64,
    made_icmp: u64,
    /// SYN-ACKs of the appliance's own, which ask whether the source of a SYN is there.
    made_challenges: u64,
    /// Of the made ones: under the other direction's header, right only if the appliance has forgotten their own.
    other_header: u64,
    /// Never came back.
    dropped: u64,
    wrong_header: u64,
    wrong_bytes: u64,
    unexpected: u64,
    not_sent: NotSent,
    not_delivered: u64,
    /// Replies that our own kernel threw away because we were too slow; they are among the dropped.
    receive_overflow: u32,
    /// Dropped of sent, 0 to 1.
    loss: f64,
    flows: usize,
    /// Of both directions, where each has its own.
    cookies: u64,
    seconds: f64,
    sent_per_second: f64,
    returned_per_second: f64,
    latency_us: Option<Latency>,
    failures: Vec<String>,
}

impl Report {
    /// `flows` are those known at the end and the cookies they have had, `overtaken` packets that came back after others
    /// which should have waited for them had been sent; `time` is from the first packet to the last
    /// reply.
    pub(super) fn new(
        counters: &Counters,
        flows: (usize, u64),
        overtaken: u64,
        time: Duration,
        receive_overflow: u32,
    ) -> Self {
        let seconds = time.as_secs_f64();
        let rate = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let us = |nanos: u64| nanos as f64 / 1_000.0;
        let latency_us = counters
            .latency
            .as_ref()
            .filter(|histogram| !histogram.is_empty())
            .map(|histogram| Latency {
                min: us(histogram.min()),
                median: us(histogram.value_at_quantile(0.5)),
                p99: us(histogram.value_at_quantile(0.99)),
                max: us(histogram.max()),
            });
        Self {
            sent: counters.sent,
            sent_bytes: counters.sent_bytes,
            returned: counters.returned,
            late: counters.late,
            overtaken,
            made_rst: counters.made_rst,
            made_icmp: counters.made_icmp,
            made_challenges: counters.made_challenges,
            other_header: counters.other_header,
            dropped: counters.dropped,
            wrong_header: counters.wrong_header,
            wrong_bytes: counters.wrong_bytes,
            unexpected: counters.unexpected,
            not_sent: counters.not_sent,
            not_delivered: counters.not_delivered,
            receive_overflow,
            loss: if counters.sent == 0 {
                0.0
            } else {
                counters.dropped as f64 / counters.sent as f64
            },
            flows: flows.0,
            cookies: flows.1,
            seconds,
            sent_per_second: rate(counters.sent),
            returned_per_second: rate(counters.returned),
            latency_us,
            failures: counters
                .failures
                .iter()
                .chain(&counters.refusal)
                .cloned()
                .collect(),
        }
    }
}

impl Report {
    /// Returns the number of replies that must not be.
    pub(super) const fn failures(&self) -> u64 {
        self.wrong_header + self.wrong_bytes + self.unexpected
    }

    /// Returns the packets that never came back, of those that were sent: 0 to 1.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// Whether there was something to send, and nothing of any kind came back.
    pub(super) const fn is_in_vain(&self) -> bool {
        let back = self.returned + self.made_rst + self.made_icmp + self.made_challenges + self.failures();
        back == 0 && self.sent + self.not_sent.total() > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let always = [
            (self.sent, "sent"),
            (self.returned, "returned unchanged"),
            (self.made_rst, "RSTs made by the appliance"),
            (self.made_icmp, "ICMP errors made by the appliance"),
            (self.dropped, "dropped: did not return in time"),
            (self.wrong_header, "wrong header"),
            (self.wrong_bytes, "wrong bytes"),
            (self.unexpected, "unexpected"),
        ];
        for (count, name) in always {
            writeln!(f, "{count:>14} {name}")?;
        }
        let sometimes = [
            (self.made_challenges, "challenges made by the appliance"),
            (
                self.other_header,
                "of those made came under the other direction's header: right after a restart, wrong otherwise",
            ),
            (self.late, "returned late, after the time-out"),
            (
                self.overtaken,
                "returned after packets that should have waited for them were sent; a longer --timeout may help",
            ),
            (self.not_delivered, "returned, but not taken by the device"),
            (
                u64::from(self.receive_overflow),
                "lost here, not by the appliance: the receive queue was full",
            ),
        ];
        for (count, name) in self.not_sent.rows().into_iter().chain(sometimes) {
            if count > 0 {
                writeln!(f, "{count:>14} {name}")?;
            }
        }
        writeln!(f, "{:>14} flows, {} cookies", self.flows, self.cookies)?;
        writeln!(f, "{:>13.4}% loss", self.loss * 100.0)?;
        writeln!(
            f,
            "{:>14.0} packets per second sent, {:.0} returned, in {:.3} s",
            self.sent_per_second, self.returned_per_second, self.seconds
        )?;
        if let Some(Latency {
            min,
            median,
            p99,
            max,
        }) = self.latency_us
        {
            writeln!(
                f,
                "{median:>14.1} us there and back, median ({min:.1} at best, 99 % below {p99:.1}, {max:.1} at worst)"
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        if self.sent > 0 && self.is_in_vain() {
            writeln!(
                f,
                "Nothing came back. An appliance swaps the outer addresses and keeps both UDP ports: are they swapped?"
            )?;
        }
        Ok(())
    }
}
