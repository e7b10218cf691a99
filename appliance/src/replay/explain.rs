//! Selection of the decision that a replay explains.

use std::str::FromStr;

use portcullis::{DropReason, Verdict};

/// The argument of `--explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExplainTarget {
    /// The decision on a frame, by its number.
    Frame(u64),
    /// The first packet that is not forwarded.
    FirstDrop,
    /// The first packet that is not forwarded for a given reason.
    Reason(DropReason),
}

impl ExplainTarget {
    /// Returns whether the argument may select the decision on a frame, before the decision is
    /// known.
    pub(super) fn may_be(self, frame: u64) -> bool {
        match self {
            Self::Frame(number) => number == frame,
            Self::FirstDrop | Self::Reason(_) => true,
        }
    }

    /// Returns whether the argument selects this decision, on a frame that [it may
    /// select](Self::may_be).
    pub(super) fn is(self, verdict: &Verdict) -> bool {
        let is_refused = matches!(verdict, Verdict::Drop(..) | Verdict::Reject(..));
        match self {
            Self::Frame(_) => true,
            Self::FirstDrop => is_refused,
            Self::Reason(reason) => is_refused && verdict.reason() == Some(reason),
        }
    }
}

impl FromStr for ExplainTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "first-drop" {
            return Ok(Self::FirstDrop);
        }
        match text.parse() {
            Ok(0) => return Err("frames are counted from 1".to_owned()),
            Ok(number) => return Ok(Self::Frame(number)),
            Err(_) => {}
        }
        DropReason::all()
            .find(|reason| reason.name() == text)
            .map(Self::Reason)
            .ok_or_else(|| {
                "not a frame's number, first-drop or the name of a drop reason (docs/REASONS.md)"
                    .to_owned()
            })
    }
}

impl std::fmt::Display for ExplainTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(number) => write!(f, "{number}"),
            Self::FirstDrop => f.write_str("first-drop"),
            Self::Reason(reason) => f.write_str(reason.name()),
        }
    }
}

/// Returns an explanation as lines of JSON, a line for each of its own.
pub(super) fn json(text: &str) -> String {
    let line = |line: &str| format!("{}\n", serde_json::json!({ "line": line }));
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_explanation_is_an_object() {
        let text = json("frame 1\n  \"x\"\n");
        assert_eq!(text, "{\"line\":\"frame 1\"}\n{\"line\":\"  \\\"x\\\"\"}\n");
    }

    #[test]
    fn each_name_is_read_as_it_is_written() {
        let reasons = DropReason::all().map(ExplainTarget::Reason);
        for target in reasons.chain([
            ExplainTarget::FirstDrop,
            ExplainTarget::Frame(1),
            ExplainTarget::Frame(u64::MAX),
        ]) {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        for wrong in [
            "0",
            "-1",
            "",
            "first_drop",
            "dropped",
            "18446744073709551616",
        ] {
            assert!(wrong.parse::<ExplainTarget>().is_err(), "{wrong}");
        }
    }
}
