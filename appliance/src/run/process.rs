//! Readings of the system about this process, under the names of Prometheus' client libraries.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use prometheus_client::registry::Unit;

use super::metrics::families::{Families, Family};

/// Readings of the system about this process; `None` for those that it lacks.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ProcessReading {
    /// Processor time, of user and system.
    cpu: Option<Duration>,
    /// Bytes.
    resident: Option<u64>,
    /// Bytes.
    virtual_memory: Option<u64>,
    threads: Option<u64>,
    open_files: Option<u64>,
    max_files: Option<u64>,
    /// Start of the process, since the Unix epoch.
    started: Duration,
}

impl ProcessReading {
    /// Takes the readings; `started` is the wall-clock time of the start.
    pub(super) fn take(started: SystemTime) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key: &str| field(&status, key)?.checked_mul(1024);
        let cpu = getrusage(UsageWho::RUSAGE_SELF)
            .ok()
            .and_then(|usage| Some(duration(usage.user_time())? + duration(usage.system_time())?));
        Self {
            cpu,
            resident: kibibytes("VmRSS"),
            virtual_memory: kibibytes("VmSize"),
            threads: field(&status, "Threads"),
            // One of the descriptors is the directory that is being read.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| (files.count() as u64).saturating_sub(1)),
            max_files: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
            started: started
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Writes the families of the known readings.
    pub(super) fn encode(&self, to: &mut Families<'_, '_>) -> Result<(), fmt::Error> {
        if let Some(cpu) = self.cpu {
            let family = Family::new("process_cpu", "Processor time, of user and system")
                .in_unit(&Unit::Seconds);
            to.number(family, cpu.as_secs_f64())?;
        }
        let gauges = [
            (
                Family::new("process_resident_memory", "Resident memory").in_unit(&Unit::Bytes),
                self.resident,
            ),
            (
                Family::new("process_virtual_memory", "Virtual memory").in_unit(&Unit::Bytes),
                self.virtual_memory,
            ),
            (Family::new("process_threads", "Threads"), self.threads),
            (
                Family::new("process_open_fds", "Open file descriptors"),
                self.open_files,
            ),
            (
                Family::new(
                    "process_max_fds",
                    "The most file descriptors that may be open",
                ),
                self.max_files,
            ),
        ];
        for (family, value) in gauges {
            if let Some(value) = value {
                to.gauge(family, value)?;
            }
        }
        let family = Family::new(
            "process_start_time",
            "Start time of the process, since the Unix epoch",
        );
        to.gauge(family.in_unit(&Unit::Seconds), self.started.as_secs_f64())
    }
}

/// Returns the number after a key of `/proc/self/status`.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn duration(time: TimeVal) -> Option<Duration> {
    let micros = u64::try_from(time.tv_usec()).ok()?;
    Some(Duration::from_secs(u64::try_from(time.tv_sec()).ok()?) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_known_of_a_process_on_linux() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let reading = ProcessReading::take(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        let known = [
            reading.resident,
            reading.threads,
            reading.open_files,
            reading.max_files,
        ];
        assert!(
            known
                .iter()
                .all(|value| value.is_some_and(|value| value > 0)),
            "{reading:?}"
        );
        assert!(reading.virtual_memory >= reading.resident, "{reading:?}");
        assert!(
            reading.cpu.is_some_and(|time| time > Duration::ZERO),
            "{reading:?}"
        );
        assert_eq!(reading.started, Duration::from_secs(7));
        drop(file);
    }

    #[test]
    fn a_key_is_found_by_its_whole_name() {
        let status = "Name:\tVmRSS: 9\nVmRSSX:\t1 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(field(status, "VmRSS"), Some(12));
        assert_eq!(field(status, "Vm"), None);
        assert_eq!(field(status, "Name"), None);
    }
}
