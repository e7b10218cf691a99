//! Families of AF_XDP: the rings of each receive queue.

use portcullis_xdp::QueueStats;

use super::families::{Families, Family, Written};
use super::readings::Readings;
use crate::run::xdp::state::Port;

/// Receive queue with its label values.
struct Row<'a> {
    interface: &'a str,
    queue: String,
    stats: &'a QueueStats,
}

impl<'a> Row<'a> {
    fn of(port: &'a Port) -> impl Iterator<Item = Self> {
        port.queues.iter().enumerate().map(|(number, stats)| Self {
            interface: &port.link.name,
            queue: number.to_string(),
            stats,
        })
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("interface", self.interface), ("queue", &self.queue)]
    }

    fn with(&self, name: &'static str, value: &'static str) -> [(&'static str, &str); 3] {
        let [interface, queue] = self.labels();
        [interface, queue, (name, value)]
    }
}

impl Readings {
    pub(super) fn xdp(&self, to: &mut Families<'_, '_>) -> Written {
        let Some(state) = self.data_path.shared.xdp.get() else {
            return Ok(());
        };
        let is_attached = state.is_attached();
        to.gauges(
            Family::new(
                "portcullis_xdp_attached",
                "Whether the program is attached to the interface; it is not while the appliance \
                 ends, and after the interface was removed",
            ),
            state.ports.iter().map(|port| {
                let labels = [("interface", &*port.link.name), ("mode", port.mode.name())];
                (labels, u64::from(is_attached && !port.link.is_gone()))
            }),
        )?;
        let rows: Vec<_> = state.ports.iter().flat_map(Row::of).collect();
        let mut counters = |name, help, value: fn(&QueueStats) -> u64| {
            let series = rows.iter().map(|row| (row.labels(), value(row.stats)));
            to.counters(Family::new(name, help), series)
        };
        counters(
            "portcullis_xdp_received_frames",
            "Frames taken from the receive ring",
            |stats| stats.received.value(),
        )?;
        counters(
            "portcullis_xdp_sent_frames",
            "Frames put into the send ring",
            |stats| stats.sent.value(),
        )?;
        counters(
            "portcullis_xdp_wakeups",
            "Calls that wake the kernel to send",
            |stats| stats.wakeups.value(),
        )?;
        counters(
            "portcullis_xdp_wakeup_failures",
            "Calls that the kernel refused, for example because the interface is down; the frames \
             stay in the send ring",
            |stats| stats.wakeup_failures.value(),
        )?;
        losses(&rows, to)?;
        let frames = rows.iter().flat_map(|row| {
            let frames = row.stats.frames();
            [
                ("free", frames.free),
                ("fill", frames.fill),
                ("receive", frames.received),
                ("send", frames.transmit),
            ]
            .map(|(owner, count)| (row.with("owner", owner), u64::from(count)))
        });
        to.gauges(
            Family::new(
                "portcullis_xdp_frames",
                "Frames of the memory of a queue, by the ring that has them: the sum is constant",
            ),
            frames,
        )
    }
}

/// Writes the families of lost frames and wrong descriptors.
fn losses(rows: &[Row<'_>], to: &mut Families<'_, '_>) -> Written {
    let dropped = rows.iter().flat_map(|row| {
        let stats = row.stats;
        [
            ("kernel", &stats.dropped),
            ("receive_ring_full", &stats.rx_full),
            ("fill_ring_empty", &stats.fill_empty),
            ("malformed", &stats.malformed),
        ]
        .map(|(reason, count)| (row.with("reason", reason), count.value()))
    });
    to.counters(
        Family::new(
            "portcullis_xdp_dropped_frames",
            "Frames that were lost before the engine: by the kernel, for example for their \
                 size; because the worker is too slow (receive_ring_full, fill_ring_empty); or \
                 with more pieces than any frame has. The kernel's counts are read every second",
        ),
        dropped,
    )?;
    let refused = rows.iter().flat_map(|row| {
        let stats = row.stats;
        [("kernel", &stats.invalid), ("appliance", &stats.foreign)]
            .map(|(by, count)| (row.with("by", by), count.value()))
    });
    to.counters(
        Family::new(
            "portcullis_xdp_refused_descriptors",
            "Descriptors in a ring that name no frame of its side. No sender can cause them",
        ),
        refused,
    )
}
