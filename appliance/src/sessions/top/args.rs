//! Arguments of `portcullis sessions top`.

use clap::Args;

use crate::run::filter_args::FilterArgs;
use crate::run::protocol::{FilterSpec, GroupKey, ListingRequest, SortKey};

/// Rows of a look that is no terminal's.
const ROWS: usize = 100;

/// The arguments of `portcullis sessions top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Seconds between two updates
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) interval: u64,
    /// End after this number of updates
    #[arg(long, value_name = "COUNT")]
    pub(super) count: Option<u64>,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t = SortKey::Rate)]
    pub(super) sort: SortKey,
    /// Show groups of sessions, by a common property
    #[arg(long, value_enum)]
    pub(super) group: Option<GroupKey>,
}

impl TopArgs {
    /// Returns the request of a look.
    pub(crate) fn request(&self) -> ListingRequest {
        ListingRequest {
            filter: FilterSpec::from(&self.filter),
            limit: Some(ROWS),
            sort: Some(self.sort),
            group: self.group,
        }
    }
}
