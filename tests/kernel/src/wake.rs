//! Earlier segments of a connection after which Linux may store other numbers than the engine,
//! although both gave the same verdict.

use std::fmt;

use portcullis::explain::Step;
use portcullis::explain::{Bound, TcpStep};
use portcullis::{Class, DropReason, Verdict};

use crate::segment::{ACK, FIN, Options, RST, SYN, Segment};

/// Kinds of earlier segments, in the order of their first appearance. `deviations.toml` has the
/// reasons.
#[derive(Debug, Default)]
pub struct Wake {
    seen: Vec<&'static str>,
    simultaneous: bool,
}

impl fmt::Display for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seen.is_empty() {
            return f.write_str("-");
        }
        f.write_str(&self.seen.join(", "))
    }
}

impl Wake {
    /// Records a segment on which both agreed. `before` is the session's state before the segment.
    pub fn note(&mut self, verdict: &Verdict, segment: &Segment, steps: &[Step], before: &str) {
        if verdict.tracked().class == Class::New && before != "SYN_SENT" {
            // A new connection on the same ports.
            *self = Self::default();
            return;
        }
        let opening = matches!(before, "SYN_SENT" | "SYN_SENT2" | "SYN_RECV");
        self.simultaneous |= before == "SYN_SENT2";
        let broken = |bound: Option<Bound>| {
            steps.iter().any(|step| match step {
                Step::Tcp(TcpStep::Bound(check)) => {
                    !check.holds && bound.is_none_or(|one| one == check.bound)
                }
                _ => false,
            })
        };
        let invalid = matches!(
            verdict.reason(),
            Some(
                DropReason::TcpSeqAboveWindow
                    | DropReason::TcpAckOfUnseen
                    | DropReason::TcpRstBelowWindow
            )
        );
        let bad = invalid || broken(None);
        if segment.has(RST) && opening {
            self.add("RST in handshake");
        } else if segment.has(RST)
            && !invalid
            && !matches!(before, "-" | "LAST_ACK" | "TIME_WAIT" | "CLOSE")
        {
            self.add("RST passed");
        } else if bad && opening {
            self.add("bad in handshake");
        } else if bad && before == "CLOSE" {
            self.add("bad after CLOSE");
        } else if bad && segment.flags & (SYN | FIN | RST) != 0 {
            self.add("bad SYN, FIN or RST");
        }
        if segment.has(SYN) && opening && segment.options == Options::default() {
            self.add("SYN without options");
        }
        if segment.has(SYN) && self.simultaneous && before == "SYN_RECV" {
            self.add("SYN in simultaneous open");
        }
        let resynchronizes = |step: &Step| match step {
            Step::Tcp(TcpStep::Note(note)) => note.starts_with("answers the SYN"),
            _ => false,
        };
        if steps.iter().any(resynchronizes) {
            self.add("SYN answered");
        }
        let syn_alone = segment.flags & (SYN | ACK) == SYN;
        if syn_alone && !invalid && !matches!(before, "-" | "SYN_SENT" | "SYN_SENT2") {
            self.add("SYN passed");
        }
        if !invalid && broken(Some(Bound::AckLower)) {
            self.add("old ACK");
        }
    }

    fn add(&mut self, what: &'static str) {
        if !self.seen.contains(&what) {
            self.seen.push(what);
        }
    }
}
