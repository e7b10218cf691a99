//! List of sessions, and of groups of sessions, as replies of the control socket.

use std::io;
use std::time::Instant;

use portcullis::{SessionFilter, SessionRecord};

use super::exchange::{Answer, Exchange};
use super::groups::{Group, Groups, micros};
use super::ranking::{First, Rank};
use crate::run::protocol::{GroupKey, ListingRequest, Reply, SortKey};
use crate::run::rates::{Look, Moved};
use crate::run::view::Viewer;

/// Maximum number of rows of a limited answer.
const MAX_LIMIT: usize = 10_000;
/// Number of rows of a sorted answer without a limit.
const DEFAULT_LIMIT: usize = 100;

/// Writes the sessions that a filter selects, or groups of them. Rows are in an order if there is a
/// limit, an order or a grouping: without an order, those with the most bytes come first.
///
/// # Errors
/// Returns an error if the client does not read.
pub(super) fn sessions(request: &ListingRequest, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
    let (appliance, now) = (exchange.appliance, exchange.now);
    let policy = appliance.data_path.shared.engine.policy();
    let filter = match request.filter.read(&appliance.zones, &policy) {
        Ok(filter) => filter,
        Err(error) => return Ok(Reply::Error(error)),
    };
    let viewer = appliance.viewer(&policy, now);
    let limit = request.limit.map(|limit| limit.min(MAX_LIMIT));
    let selected = Selected {
        filter,
        viewer,
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    };
    match (request.group, request.sort) {
        (None, Some(SortKey::Sessions)) => Ok(Reply::Error(
            "`sessions` is an order of groups: sessions have none".to_owned(),
        )),
        (Some(group), sort) => {
            let sort = sort.unwrap_or(SortKey::Rate);
            let [grouping] = selected.group([group], sort, exchange);
            selected.put(grouping, &mut |reply| exchange.put(reply))
        }
        (None, Some(sort)) => selected.busiest(sort, exchange),
        (None, None) if limit.is_some() => selected.largest(exchange),
        (None, None) => selected.all(exchange),
    }
}

/// Returns the first `limit` groups of all sessions by each key, after one walk of the table.
pub(super) fn groupings<const N: usize>(
    keys: [GroupKey; N],
    sort: SortKey,
    limit: usize,
    exchange: &mut Exchange<'_>,
) -> [Answer; N] {
    let (appliance, now) = (exchange.appliance, exchange.now);
    let policy = appliance.data_path.shared.engine.policy();
    let selected = Selected {
        filter: SessionFilter::default(),
        viewer: appliance.viewer(&policy, now),
        limit: limit.min(MAX_LIMIT),
    };
    let groupings = selected.group(keys, sort, exchange);
    groupings.map(|grouping| Answer::of(|writer| selected.put(grouping, writer)))
}

/// Groups of the sessions of a walk.
struct Grouping {
    groups: Groups,
    sort: SortKey,
    look: Look,
    /// Number of sessions without a rate.
    unknown: u64,
}

/// Sessions that a request selects.
struct Selected<'a> {
    filter: SessionFilter,
    viewer: Viewer<'a>,
    limit: usize,
}

impl Selected<'_> {
    fn has(&self, session: &SessionRecord) -> bool {
        let now = self.viewer.now;
        session.expires > now && self.filter.matches(session, now)
    }

    /// Writes all sessions as the table holds them.
    fn all(&self, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
        let mut count = 0;
        let mut failed = None;
        let engine = &exchange.appliance.data_path.shared.engine;
        engine.for_each_session(|session| {
            if failed.is_some() || !self.has(session) {
                return;
            }
            count += 1;
            let reply = Reply::Session(Box::new(self.viewer.view(session)));
            failed = exchange.put(&reply).err();
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Reply::Done { count, text: None }),
        }
    }

    /// Writes the sessions with the most bytes.
    fn largest(&self, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
        let mut count = 0;
        let mut first = First::new(self.limit);
        let engine = &exchange.appliance.data_path.shared.engine;
        engine.for_each_session(|session| {
            if self.has(session) {
                count += 1;
                first.push(
                    rank(session, None, SortKey::Bytes, self.viewer.now),
                    *session,
                );
            }
        });
        for session in first.into_order() {
            exchange.put(&Reply::Session(Box::new(self.viewer.view(&session))))?;
        }
        Ok(Reply::Done { count, text: None })
    }

    /// Writes the first sessions of an order, with their rates.
    fn busiest(&self, sort: SortKey, exchange: &mut Exchange<'_>) -> io::Result<Reply> {
        let now = self.viewer.now;
        let (mut count, mut unknown) = (0, 0);
        let mut first = First::new(self.limit);
        let look = exchange.measure(|session, moved| {
            if self.has(session) {
                count += 1;
                unknown += u64::from(moved.is_none());
                let rank = rank(session, moved, sort, now);
                first.push(rank, (*session, moved));
            }
        });
        for (session, moved) in first.into_order() {
            let mut view = self.viewer.view(&session);
            let moved = look.over.zip(moved);
            view.rate = moved.map(|(over, moved)| moved.rate(over));
            exchange.put(&Reply::Session(Box::new(view)))?;
        }
        Ok(Reply::Done {
            count,
            text: unmeasured(look, unknown),
        })
    }

    /// Groups the sessions by each key, in one walk of the table.
    fn group<const N: usize>(
        &self,
        keys: [GroupKey; N],
        sort: SortKey,
        exchange: &mut Exchange<'_>,
    ) -> [Grouping; N] {
        let mut unknown = 0;
        let mut groups = keys.map(|key| Groups::new(key, sort, self.viewer.now));
        let look = exchange.measure(|session, moved| {
            if self.has(session) {
                unknown += u64::from(moved.is_none());
                for each in &mut groups {
                    each.add(session, moved);
                }
            }
        });
        groups.map(|groups| Grouping {
            groups,
            sort,
            look,
            unknown,
        })
    }

    /// Writes the first groups of an order, with their rates.
    fn put(
        &self,
        grouping: Grouping,
        put: &mut dyn FnMut(&Reply) -> io::Result<()>,
    ) -> io::Result<Reply> {
        let Grouping {
            groups,
            sort,
            look,
            unknown,
        } = grouping;
        let (count, joined) = groups.counts();
        let mut first = First::new(self.limit);
        for group in groups.into_groups(&self.viewer) {
            first.push(group.total.rank(sort, self.viewer.now), group);
        }
        let start = |moment: Instant| self.viewer.clock.seconds(moment);
        let mut partial = 0;
        for group in first.into_order() {
            let view = Group::view(group, look.over, start);
            partial += u64::from(view.partial);
            put(&Reply::Group(Box::new(view)))?;
        }
        let other = (joined > 0).then(|| format!("`other` stands for {joined} small groups"));
        let lacking =
            (partial > 0).then(|| format!("it may have sessions of {partial} groups of this list"));
        let notes = other.into_iter().chain(lacking);
        let notes: Vec<_> = notes.chain(unmeasured(look, unknown)).collect();
        Ok(Reply::Done {
            count: count as u64,
            text: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }
}

/// Returns a note on sessions without a rate in a look that has rates.
fn unmeasured(look: Look, count: u64) -> Option<String> {
    (look.over.is_some() && count > 0)
        .then(|| format!("the rates of {count} sessions are not known"))
}

/// Returns the position of a session in an order.
fn rank(session: &SessionRecord, moved: Option<Moved>, sort: SortKey, now: Instant) -> Rank {
    let bytes = session.original.bytes.saturating_add(session.reply.bytes);
    let moved = moved.unwrap_or_default();
    let value = match sort {
        SortKey::Rate => moved.bytes,
        SortKey::PacketRate => moved.packets,
        SortKey::Bytes => bytes,
        SortKey::Packets => u64::from(session.original.packets) + u64::from(session.reply.packets),
        SortKey::Age => micros(now.saturating_duration_since(session.start)),
        SortKey::Sessions => 1,
    };
    Rank { value, bytes }
}
