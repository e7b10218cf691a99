//! Trouble that the connections to the store survive: refused commands, and failed threads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time for which trouble is shown after it last occurred.
const SHOWN: Duration = Duration::from_secs(10);
/// Time without trouble after which the next one is news.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Trouble {
    last: Instant,
    text: String,
}

/// The last trouble of each connection and thread, by name.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<&'static str, Trouble>>);

impl Troubles {
    /// Notes trouble. Returns whether it is news, which is logged.
    pub(super) fn note(&self, name: &'static str, text: &str, now: Instant) -> bool {
        let text = text.to_owned();
        let mut troubles = self.0.lock();
        let before = troubles.insert(name, Trouble { last: now, text });
        before.is_none_or(|before| now.saturating_duration_since(before.last) >= QUIET)
    }

    /// Returns a line for each connection and thread that had trouble not long ago.
    pub(crate) fn current(&self, now: Instant) -> Vec<String> {
        let troubles = self.0.lock();
        let current = troubles
            .iter()
            .filter(|(_, trouble)| now.saturating_duration_since(trouble.last) < SHOWN);
        current
            .map(|(name, trouble)| format!("{name}: {}", trouble.text))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_news_once_and_is_shown_for_a_while() {
        let troubles = Troubles::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(troubles.note("writes", "refused", after(0)));
        assert!(!troubles.note("writes", "refused again", after(59)));
        assert!(troubles.note("questions", "refused", after(59)));
        let shown = troubles.current(after(68));
        assert_eq!(shown, ["questions: refused", "writes: refused again"]);
        assert!(troubles.current(after(69)).is_empty());
        assert!(troubles.note("writes", "refused", after(200)));
    }
}
