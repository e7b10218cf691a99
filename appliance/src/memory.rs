//! Comparison of the memory that a configuration takes with that of the system.

use std::fs;
use std::path::Path;

use portcullis::Memory;

/// Returns the memory that this process can still allocate, in bytes: the smaller of the kernel's
/// `MemAvailable` and the rest of the limit of a control group. Returns `None` if neither is known.
pub(crate) fn available() -> Option<u64> {
    let of_host = fs::read_to_string("/proc/meminfo")
        .ok()
        .as_deref()
        .and_then(mem_available);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = left_in_groups(Path::new("/sys/fs/cgroup"), &groups);
    of_host.into_iter().chain(of_groups).min()
}

/// Returns `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Returns the rest of the limits of a process's control group and its ancestors (cgroup v2).
/// `groups` is the text of its `/proc/self/cgroup`.
fn left_in_groups(root: &Path, groups: &str) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |directory: &Path, file: &str| {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        // A group without a limit has `max`.
        text.trim().parse::<u64>().ok()
    };
    let left = |directory: &Path| {
        let limit = number(directory, "memory.max")?;
        Some(limit.saturating_sub(number(directory, "memory.current")?))
    };
    let directory = root.join(own);
    let above = directory
        .ancestors()
        .take_while(|each| each.starts_with(root));
    above.filter_map(left).min()
}

/// Returns a line for each part of the memory that a configuration takes, and one for the sum.
pub(crate) fn lines(memory: &Memory) -> Vec<String> {
    let mut lines: Vec<String> = memory
        .parts()
        .iter()
        .map(|part| {
            let when = if part.reserved { "reserved" } else { "at most" };
            format!(
                "# memory: {} {when} for {} ({})",
                size(part.bytes),
                part.name,
                part.key
            )
        })
        .collect();
    lines.push(format!("# memory: {} in all", size(memory.total())));
    lines
}

/// Returns a warning if a configuration takes more memory than is available.
pub(crate) fn warning(memory: &Memory) -> Option<String> {
    available().and_then(|available| too_much(memory.total(), available))
}

fn too_much(needed: u64, available: u64) -> Option<String> {
    (needed > available).then(|| {
        format!(
            "the tables take {} when they are full, and {} are available: the system may end this \
             process as they fill; see `table.max_sessions`",
            size(needed),
            size(available)
        )
    })
}

/// A size for people.
fn size(bytes: u64) -> String {
    const MIB: f64 = (1 << 20) as f64;
    format!("{:.1} MiB", bytes as f64 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       16316412 kB\nMemFree:  1 kB\nMemAvailable:    8123456 kB\n";
        assert_eq!(mem_available(text), Some(8_123_456 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
        assert!(available().is_some());
    }

    #[test]
    fn the_tightest_group_above_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let set = |directory: &Path, max: &str, current: &str| {
            fs::write(directory.join("memory.max"), max).unwrap();
            fs::write(directory.join("memory.current"), current).unwrap();
        };
        set(&inner, "max\n", "10\n");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), None);
        set(&root.path().join("a"), "1000\n", "300\n");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), Some(700));
        set(&inner, "500\n", "450\n");
        assert_eq!(
            left_in_groups(root.path(), "1:name=x:/\n0::/a/b\n"),
            Some(50)
        );
        assert_eq!(left_in_groups(root.path(), ""), None);
    }

    #[test]
    fn more_than_there_is_gets_a_warning_with_both_sizes() {
        assert_eq!(too_much(1 << 30, 1 << 30), None);
        let warning = too_much(3 << 30, 1 << 30).unwrap();
        assert!(
            warning.contains("3072.0 MiB") && warning.contains("1024.0 MiB"),
            "{warning}"
        );
    }

    #[test]
    fn every_part_has_a_line() {
        let memory = portcullis::Config::default().compile().unwrap().memory();
        let lines = lines(&memory);
        assert!(
            lines
                .iter()
                .any(|line| line.ends_with("for sessions (table.max_sessions)"))
        );
        assert!(lines.last().unwrap().ends_with("in all"));
    }
}
