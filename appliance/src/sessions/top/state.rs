//! State of the terminal view.

use std::collections::VecDeque;
use std::time::Duration;

use super::input::Editor;
use super::look::{Look, Rows, Totals};
use crate::run::filter_args::FilterArgs;
use crate::run::protocol::{FilterSpec, GroupKey, ListingRequest, SortKey};

/// Samples of a sparkline: more than the widest terminal shows.
const MAX_SAMPLES: usize = 512;
/// Rows that are asked for: more than the tallest terminal shows.
const MAX_ROWS: usize = 200;
/// Time after which a look without rates is followed by another one. The appliance measures over
/// half a second at least.
const SOON: Duration = Duration::from_millis(600);

/// Dialog on top of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    List,
    Help,
    /// The line of the filter is being edited.
    Filter(Editor),
    Detail(Detail),
    /// The end of a session waits for a confirmation.
    Confirm(Target),
}

/// Session in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) target: Target,
    /// Lines of the explanation; `None` until they come.
    pub(super) lines: Option<Vec<String>>,
    /// First line that is shown.
    pub(super) scroll: u16,
}

/// Session that a dialog is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: u64,
    /// The session's five-tuple.
    pub(super) flow: String,
}

/// Identity of a row, which keeps the cursor when the order changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RowKey {
    Session(u64),
    Group(String),
}

/// Line at the bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// State of the terminal view.
#[derive(Debug)]
pub(super) struct App {
    pub(super) sort: SortKey,
    pub(super) group: Option<GroupKey>,
    /// The filter in words.
    pub(super) filter_line: String,
    filter: FilterSpec,
    pub(super) look: Option<Look>,
    pub(super) totals: Option<Totals>,
    /// Rates of the last looks, the oldest first.
    pub(super) samples: VecDeque<Totals>,
    pub(super) mode: Mode,
    pub(super) message: Option<Message>,
    pub(super) is_paused: bool,
    /// A look is wanted at once.
    pub(super) is_due: bool,
    /// Number of looks that have come.
    pub(super) looks: u64,
    cursor: usize,
    /// The row that the cursor follows; `None` while it stays on the first line.
    follows: Option<RowKey>,
}

impl App {
    /// Begins without a look. `filter` is written as `filter_line`.
    pub(super) fn new(request: &ListingRequest, filter_line: String) -> Self {
        Self {
            sort: request.sort.unwrap_or(SortKey::Rate),
            group: request.group,
            filter_line,
            filter: request.filter.clone(),
            look: None,
            totals: None,
            samples: VecDeque::new(),
            mode: Mode::List,
            message: None,
            is_paused: false,
            is_due: true,
            looks: 0,
            cursor: 0,
            follows: None,
        }
    }

    /// Returns the request of the next look.
    pub(super) fn request(&self) -> ListingRequest {
        ListingRequest {
            filter: self.filter.clone(),
            limit: Some(MAX_ROWS),
            sort: Some(self.sort),
            group: self.group,
        }
    }

    /// Returns the time from a look to the next one; `None` while there is to be none.
    pub(super) fn pause(&self, interval: Duration) -> Option<Duration> {
        if self.is_due {
            return Some(Duration::ZERO);
        }
        let is_first = self.looks <= 1 && self.look.as_ref().is_some_and(|look| !look.has_rates());
        let pause = if is_first {
            interval.min(SOON)
        } else {
            interval
        };
        (!self.is_paused).then_some(pause)
    }

    /// Replaces the filter by that of a line.
    ///
    /// # Errors
    /// Returns a sentence about a name or value that is invalid.
    pub(super) fn set_filter(&mut self, line: &str) -> Result<(), String> {
        let filter = FilterArgs::from_line(line)?;
        self.filter = FilterSpec::from(&filter);
        line.trim().clone_into(&mut self.filter_line);
        self.restart();
        Ok(())
    }

    /// Changes the order.
    pub(super) fn set_sort(&mut self, sort: SortKey) {
        self.sort = sort;
        self.restart();
    }

    /// Changes the grouping. Sessions cannot be ordered by their number.
    pub(super) fn set_group(&mut self, group: Option<GroupKey>) {
        self.group = group;
        if group.is_none() && self.sort == SortKey::Sessions {
            self.sort = SortKey::Rate;
        }
        self.restart();
    }

    /// Asks for a look with other rows.
    fn restart(&mut self) {
        self.is_due = true;
        self.cursor = 0;
        self.follows = None;
    }

    /// Accepts a look, unless other rows are wanted meanwhile.
    pub(super) fn accept(&mut self, look: Look) {
        if look.request != self.request() {
            self.is_due = true;
            return;
        }
        self.looks += 1;
        let is_later = |before: &&Look| before.stats.uptime <= look.stats.uptime;
        let before = self.look.as_ref().filter(is_later);
        self.totals = before.map(|before| Totals::between(before, &look));
        if let Some(totals) = self.totals {
            self.samples.push_back(totals);
            if self.samples.len() > MAX_SAMPLES {
                self.samples.pop_front();
            }
        }
        self.look = Some(look);
        let found = self.follows.as_ref().and_then(|key| self.position(key));
        self.cursor = found
            .unwrap_or(self.cursor)
            .min(self.rows().saturating_sub(1));
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> usize {
        self.look.as_ref().map_or(0, |look| look.rows.len())
    }

    /// Returns the row of the cursor.
    pub(super) const fn cursor(&self) -> usize {
        self.cursor
    }

    /// Moves the cursor to a row; from then on it follows that row's session or group. The first
    /// row is not followed.
    pub(super) fn move_to(&mut self, row: usize) {
        self.cursor = row.min(self.rows().saturating_sub(1));
        self.follows = (self.cursor > 0).then(|| self.key(self.cursor)).flatten();
    }

    fn key(&self, row: usize) -> Option<RowKey> {
        match &self.look.as_ref()?.rows {
            Rows::Sessions(rows) => rows.get(row).map(|row| RowKey::Session(row.id)),
            Rows::Groups(rows) => rows.get(row).map(|row| RowKey::Group(row.name.clone())),
        }
    }

    fn position(&self, key: &RowKey) -> Option<usize> {
        match (&self.look.as_ref()?.rows, key) {
            (Rows::Sessions(rows), RowKey::Session(id)) => {
                rows.iter().position(|row| row.id == *id)
            }
            (Rows::Groups(rows), RowKey::Group(name)) => {
                rows.iter().position(|row| row.name == *name)
            }
            _ => None,
        }
    }

    /// Returns the session at the cursor.
    pub(super) fn target(&self) -> Option<Target> {
        match &self.look.as_ref()?.rows {
            Rows::Sessions(rows) => rows.get(self.cursor).map(|row| {
                let flow = &row.session.flow;
                Target {
                    id: row.id,
                    flow: format!(
                        "{} {} -> {}",
                        flow.protocol,
                        flow.initiator().in_list(),
                        flow.responder().in_list()
                    ),
                }
            }),
            Rows::Groups(_) => None,
        }
    }

    /// Returns the name of the group at the cursor; `None` for that of all other ones.
    pub(super) fn group_name(&self) -> Option<&str> {
        match &self.look.as_ref()?.rows {
            Rows::Groups(rows) => {
                let row = rows.get(self.cursor).filter(|row| !row.joined);
                row.map(|row| row.name.as_str())
            }
            Rows::Sessions(_) => None,
        }
    }

    /// Shows a line at the bottom until the next key.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            is_error: false,
        });
    }

    /// Shows an error at the bottom until the next key.
    pub(super) fn fail(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            is_error: true,
        });
    }
}
