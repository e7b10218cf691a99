//! The system's limit of open files: each worker has several sockets, and each client has one.

use std::net::Ipv4Addr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are not the workers': two to a connection of health, metrics and control, and
/// files.
const AROUND: u64 = 320;
/// Assumed number of addresses from which a worker that listens at all addresses sends.
const UNSPECIFIED: u64 = 16;

/// Raises the soft limit of open files to the hard one. Returns a warning if it may not suffice for
/// `workers` that listen at all of these addresses.
pub(crate) fn raise_open_files(workers: usize, addresses: &[Ipv4Addr]) -> Option<String> {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return Some(format!("the limit of open files cannot be read: {error}")),
    };
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    few_files(
        if raised { hard.max(soft) } else { soft },
        workers as u64,
        addresses.len() as u64,
        addresses.iter().any(Ipv4Addr::is_unspecified),
    )
}

fn few_files(limit: u64, workers: u64, addresses: u64, is_unspecified: bool) -> Option<String> {
    let exits = if is_unspecified {
        UNSPECIFIED
    } else {
        addresses
    };
    let needed = AROUND.saturating_add(workers.saturating_mul(addresses.saturating_add(exits)));
    (limit < needed).then(|| {
        format!(
            "{limit} files may be open, and {workers} workers need up to {needed}: raise \
             RLIMIT_NOFILE \
             (LimitNOFILE= of a systemd unit)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_said_and_many_are_not() {
        assert_eq!(few_files(1_024, 8, 1, false), None);
        let said = few_files(1_024, 128, 4, false).unwrap();
        assert!(
            said.starts_with("1024 files may be open, and 128 workers need up to 1344: "),
            "{said}"
        );
        assert!(few_files(1_024, 64, 1, true).is_some());
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_open_files(1, &[Ipv4Addr::LOCALHOST]);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
