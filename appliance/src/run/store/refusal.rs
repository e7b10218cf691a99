//! Commands that the store refuses while the connection itself is sound.

/// Kind of a refusal, by the error code of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The store has no memory left.
    Memory,
    /// The user of the store may not run the command.
    Permission,
    /// The store runs a long script, or has no server for the key at the moment.
    Busy,
    /// The store takes no writes, because it cannot save or replicate them.
    Write,
    /// Any other error.
    Other,
}

/// Refused command: the kind, and the text of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) kind: Refusal,
    pub(super) why: String,
}

impl Refusal {
    /// Returns the kind of an error. `None` if only another connection can help: the server is a
    /// replica or starts, or the password has changed.
    pub(super) fn of(code: &str, text: &str) -> Option<Self> {
        Some(match code {
            "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS" => return None,
            "OOM" => Self::Memory,
            "NOPERM" => Self::Permission,
            // Scripts report a command that their user may not run without a code of its own.
            "ERR" if text.contains("user executing the script") => Self::Permission,
            "BUSY" | "CLUSTERDOWN" | "TRYAGAIN" => Self::Busy,
            "MISCONF" | "NOREPLICAS" => Self::Write,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_needs_another_connection_and_a_missing_permission_does_not() {
        for code in ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS"] {
            assert_eq!(Refusal::of(code, ""), None, "{code}");
        }
        for (code, text, kind) in [
            ("OOM", "", Refusal::Memory),
            ("NOPERM", "", Refusal::Permission),
            (
                "ERR",
                "The user executing the script can't run this command",
                Refusal::Permission,
            ),
            ("ERR", "unknown command", Refusal::Other),
            ("CLUSTERDOWN", "", Refusal::Busy),
            ("MISCONF", "", Refusal::Write),
            ("MOVED", "", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(code, text), Some(kind), "{code}");
        }
    }
}
