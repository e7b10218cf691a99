//! Results of a run, for users and programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::targets::TargetReport;

/// Number of failures that are described; further ones are only counted.
const DESCRIBED: usize = 5;

/// Kind of a wrong reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The GENEVE header or the UDP ports differ from those of the sent packet.
    WrongHeader,
    /// The header is correct, but the inner packet differs from the sent one.
    WrongBytes,
    /// The packet, or its flow, was sent to another target.
    WrongTarget,
    /// No unanswered packet matches the reply.
    Unexpected,
}

impl Failure {
    const fn name(self) -> &'static str {
        match self {
            Self::WrongHeader => "wrong header",
            Self::WrongBytes => "wrong bytes",
            Self::WrongTarget => "wrong target",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Reason for which a packet is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The packet has no complete IP header.
    NotIp,
    /// The packet does not fit into a datagram or the path's MTU.
    TooLong,
    /// All flows wait for replies, so there is no room for another.
    FlowTableFull,
    /// Too many packets of the flow, or in total, wait for replies.
    Backlog,
    /// The TCP flow timed out, and the packet is not a SYN.
    Idle,
    /// No target is registered.
    NoTarget,
    /// The system refused to send the packet.
    Refused,
}

/// Packets that were not sent, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct NotSent {
    not_ip: u64,
    pub(super) too_long: u64,
    flow_table_full: u64,
    backlog: u64,
    /// The TCP flow timed out, and the packet is not a SYN.
    idle: u64,
    no_target: u64,
    refused: u64,
}

impl NotSent {
    pub(super) const fn count(&mut self, reason: Unsent) {
        let counter = match reason {
            Unsent::NotIp => &mut self.not_ip,
            Unsent::TooLong => &mut self.too_long,
            Unsent::FlowTableFull => &mut self.flow_table_full,
            Unsent::Backlog => &mut self.backlog,
            Unsent::Idle => &mut self.idle,
            Unsent::NoTarget => &mut self.no_target,
            Unsent::Refused => &mut self.refused,
        };
        *counter += 1;
    }

    const fn total(self) -> u64 {
        self.not_ip
            + self.too_long
            + self.flow_table_full
            + self.backlog
            + self.idle
            + self.no_target
            + self.refused
    }

    const fn rows(self) -> [(u64, &'static str); 7] {
        [
            (self.not_ip, "not sent: no whole IP header"),
            (
                self.too_long,
                "not sent: too long for the path to the appliance",
            ),
            (self.flow_table_full, "not sent: the flow table is full"),
            (self.backlog, "not sent: too many packets are unanswered"),
            (
                self.idle,
                "not sent: the TCP flow had timed out, and only a SYN opens a new one",
            ),
            (self.no_target, "not sent: no target is registered"),
            (self.refused, "not sent: refused by the system"),
        ]
    }
}

/// Counters of a run.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) returned: u64,
    pub(super) late: u64,
    pub(super) made_rst: u64,
    pub(super) made_icmp: u64,
    pub(super) made_challenges: u64,
    /// Made packets with the header of the other direction, which is correct only if the appliance
    /// has lost the flow.
    pub(super) other_header: u64,
    pub(super) dropped: u64,
    pub(super) wrong_header: u64,
    pub(super) wrong_bytes: u64,
    pub(super) wrong_target: u64,
    pub(super) unexpected: u64,
    pub(super) not_sent: NotSent,
    /// Correct replies that the device at the other end did not accept.
    pub(super) not_delivered: u64,
    /// First error of the system about a packet that it did not send.
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
            wrong_target: 0,
            unexpected: 0,
            not_sent: NotSent::default(),
            not_delivered: 0,
            refusal: None,
            failures: Vec::new(),
            // 1 us to 100 s in about 3 decimal digits; other values count as the nearest bound.
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

    /// Counts a packet that came back unchanged after `latency`. A late one had been counted as
    /// dropped.
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
            Failure::WrongTarget => &mut self.wrong_target,
            Failure::Unexpected => &mut self.unexpected,
        };
        *counter += 1;
        if self.failures.len() < DESCRIBED {
            self.failures
                .push(format!("{}: {}", failure.name(), describe()));
        }
    }
}

/// Round-trip time in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Latency {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

/// The report of a run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report {
    sent: u64,
    sent_bytes: u64,
    /// Packets that came back byte for byte with the correct header, including late ones.
    returned: u64,
    /// Packets that returned after the time-out.
    late: u64,
    /// Packets that returned after later packets had been sent out of turn.
    overtaken: u64,
    made_rst: u64,
    made_icmp: u64,
    /// SYN-ACKs that the appliance created to validate the source of a SYN.
    made_challenges: u64,
    /// Made packets with the header of the other direction, which is correct only if the appliance
    /// has lost the flow.
    other_header: u64,
    /// Packets that never came back.
    dropped: u64,
    wrong_header: u64,
    wrong_bytes: u64,
    /// Replies from a target other than the one that received the packet or its flow.
    wrong_target: u64,
    unexpected: u64,
    not_sent: NotSent,
    not_delivered: u64,
    /// Replies that the simulator's kernel discarded because the simulator was too slow; they are
    /// among the dropped packets.
    receive_overflow: u32,
    /// Dropped packets as a fraction of sent ones, 0 to 1.
    loss: f64,
    flows: usize,
    /// Number of cookies, of both directions if each has its own.
    cookies: u64,
    seconds: f64,
    sent_per_second: f64,
    returned_per_second: f64,
    latency_us: Option<Latency>,
    targets: Vec<TargetReport>,
    failures: Vec<String>,
}

/// Part of a report that is not in [`Counters`].
#[derive(Debug, Clone)]
pub(super) struct Observed {
    /// Flows in the table at the end.
    pub(super) flows: usize,
    /// Number of cookies of all flows.
    pub(super) cookies: u64,
    /// Packets that came back after later packets had been sent out of turn.
    pub(super) overtaken: u64,
    /// Figures of the targets.
    pub(super) targets: Vec<TargetReport>,
}

impl Report {
    /// Returns the report of a run. `time` is from the first packet to the last reply.
    pub(super) fn new(
        counters: &Counters,
        observed: Observed,
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
            overtaken: observed.overtaken,
            made_rst: counters.made_rst,
            made_icmp: counters.made_icmp,
            made_challenges: counters.made_challenges,
            other_header: counters.other_header,
            dropped: counters.dropped,
            wrong_header: counters.wrong_header,
            wrong_bytes: counters.wrong_bytes,
            wrong_target: counters.wrong_target,
            unexpected: counters.unexpected,
            not_sent: counters.not_sent,
            not_delivered: counters.not_delivered,
            receive_overflow,
            loss: if counters.sent == 0 {
                0.0
            } else {
                counters.dropped as f64 / counters.sent as f64
            },
            flows: observed.flows,
            cookies: observed.cookies,
            seconds,
            sent_per_second: rate(counters.sent),
            returned_per_second: rate(counters.returned),
            latency_us,
            targets: observed.targets,
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
    /// Returns the number of wrong replies.
    pub(super) const fn failures(&self) -> u64 {
        self.wrong_header + self.wrong_bytes + self.wrong_target + self.unexpected
    }

    /// Returns the fraction of sent packets that never came back, 0 to 1.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// Returns whether packets were to be sent and no reply of any kind came back.
    pub(super) const fn is_in_vain(&self) -> bool {
        let back =
            self.returned + self.made_rst + self.made_icmp + self.made_challenges + self.failures();
        back == 0 && self.sent + self.not_sent.total() > 0
    }

    /// Returns the counts that are shown only if they are not 0.
    fn exceptions(&self) -> [(u64, &'static str); 7] {
        [
            (
                self.wrong_target,
                "wrong target: the packet was sent to another one",
            ),
            (self.made_challenges, "challenges made by the appliance"),
            (
                self.other_header,
                "of the made ones have the other direction's header, which is right only after a \
                 restart",
            ),
            (self.late, "returned late, after the time-out"),
            (
                self.overtaken,
                "returned after later packets were sent out of turn; a longer --timeout may help",
            ),
            (
                self.not_delivered,
                "returned, but not accepted by the device",
            ),
            (
                u64::from(self.receive_overflow),
                "lost in the simulator: the receive queue was full",
            ),
        ]
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
        for (count, name) in self.not_sent.rows().into_iter().chain(self.exceptions()) {
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
                "{median:>14.1} us round trip, median (minimum {min:.1}, 99 % below {p99:.1}, \
                 maximum {max:.1})"
            )?;
        }
        // With a single target, its figures are the totals above.
        if self.targets.len() > 1 {
            for target in &self.targets {
                write!(f, "{target}")?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        if self.sent > 0 && self.is_in_vain() {
            writeln!(
                f,
                "Nothing came back. An appliance must swap the outer addresses and keep both UDP \
                 ports."
            )?;
        }
        Ok(())
    }
}
