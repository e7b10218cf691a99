//! Resident memory of the process.

/// Returns the resident bytes of this process; `None` where the system does not report them (on all
/// systems but Linux).
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_resident() {
        let before = resident_bytes().unwrap();
        let memory = vec![1u8; 64 << 20];
        let after = resident_bytes().unwrap();
        assert!(after - before > 50 << 20, "{before} {after}");
        drop(memory);
    }
}
