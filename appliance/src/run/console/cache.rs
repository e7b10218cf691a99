//! Rendered pages, which all viewers share.
//!
//! A page is rendered when it is asked for and older than a second, so that many viewers cost no
//! more than one. After a page, no other one is rendered for as long as that took: the console
//! takes half of a processor at most, however many viewers it has.

use std::time::{Duration, Instant};

use hyper::body::Bytes;

use super::pages::{Content, frame};
use super::route::Route;

/// Least age from which a page is rendered again.
const FRESH: Duration = Duration::from_secs(1);
/// Least age, as a multiple of the time that the page took.
const FRESH_TIMES: u32 = 4;
/// Most pages that are kept.
const MAX_PAGES: usize = 32;

/// Rendered page.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Part that a refresh replaces.
    pub(super) part: Bytes,
    pub(super) whole: Bytes,
}

impl Shown {
    /// Renders a page from its content.
    pub(super) fn new(route: &Route, content: &Content) -> Self {
        Self {
            whole: frame(route, content).into_string().into(),
            part: content.part().into(),
        }
    }
}

#[derive(Debug)]
struct Kept {
    route: Route,
    shown: Shown,
    until: Instant,
}

/// State of a page in the cache.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The page is fresh.
    Fresh(Shown),
    /// Another page was just rendered: look again after this time.
    Wait(Duration),
    /// The page must be rendered.
    Render,
}

/// Pages of the last second or so.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Vec<Kept>,
    /// Time until which nothing is rendered.
    rest: Option<Instant>,
}

impl Cache {
    /// Looks for a page.
    pub(super) fn look(&self, route: &Route, now: Instant) -> Lookup {
        let kept = self.kept.iter().find(|kept| kept.route == *route);
        if let Some(kept) = kept.filter(|kept| kept.until > now) {
            return Lookup::Fresh(kept.shown.clone());
        }
        match self.rest.filter(|rest| *rest > now) {
            Some(rest) => Lookup::Wait(rest.saturating_duration_since(now)),
            None => Lookup::Render,
        }
    }

    /// Keeps a page that was rendered from `begin` to `end`.
    pub(super) fn keep(&mut self, route: Route, shown: Shown, begin: Instant, end: Instant) {
        let took = end.saturating_duration_since(begin);
        self.rest = Some(end + took);
        self.kept.retain(|kept| kept.route != route);
        if self.kept.len() >= MAX_PAGES {
            // The oldest is first.
            self.kept.remove(0);
        }
        self.kept.push(Kept {
            route,
            shown,
            until: end + FRESH.max(took.saturating_mul(FRESH_TIMES)),
        });
    }

    /// Forgets all pages.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Shown {
        Shown {
            part: Bytes::copy_from_slice(text.as_bytes()),
            whole: Bytes::new(),
        }
    }

    fn fresh(cache: &Cache, route: &Route, now: Instant) -> Option<Bytes> {
        match cache.look(route, now) {
            Lookup::Fresh(shown) => Some(shown.part),
            _ => None,
        }
    }

    #[test]
    fn a_page_is_rendered_once_a_second_and_others_wait_as_long_as_it_took() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut cache = Cache::default();
        assert!(matches!(cache.look(&Route::Rules, start), Lookup::Render));
        cache.keep(Route::Rules, shown("a"), start, start + millis(40));
        let after = |time| start + millis(time);
        assert_eq!(fresh(&cache, &Route::Rules, after(1_000)).unwrap(), "a");
        assert!(matches!(
            cache.look(&Route::Rules, after(1_040)),
            Lookup::Render
        ));
        assert!(matches!(
                cache.look(&Route::Health, after(50)),
                Lookup::Wait(time) if time == millis(30)));
        assert!(matches!(
            cache.look(&Route::Health, after(80)),
            Lookup::Render
        ));
        // A page that takes long is kept for longer.
        cache.keep(Route::Rules, shown("b"), after(2_000), after(3_000));
        assert_eq!(fresh(&cache, &Route::Rules, after(6_999)).unwrap(), "b");
        assert!(fresh(&cache, &Route::Rules, after(7_000)).is_none());
    }

    #[test]
    fn the_pages_are_bounded_and_the_oldest_makes_room() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for id in 0..100 {
            cache.keep(Route::Session(id), shown("x"), now, now);
            assert!(cache.kept.len() <= MAX_PAGES);
        }
        assert!(fresh(&cache, &Route::Session(99), now).is_some());
        assert!(fresh(&cache, &Route::Session(0), now).is_none());
        cache.clear();
        assert!(fresh(&cache, &Route::Session(99), now).is_none());
    }
}
