//! Pages of the console.
//!
//! All texts are escaped by the templates: names of zones and rules, addresses and errors are never
//! markup. Charts alone are inserted as they are, and have no texts from outside.

mod asymmetry;
mod groups;
mod health;
mod overview;
mod parts;
mod rules;
mod sessions;

pub(super) use self::parts::{Content, frame};
use super::facts::Facts;
use super::route::Route;

/// Returns the content of a page.
pub(super) fn content(route: &Route, facts: &mut Facts<'_>) -> Content {
    match route {
        Route::Overview => overview::page(facts),
        Route::Talkers(sort) => groups::talkers(facts, *sort),
        Route::Zones(sort) => groups::zones(facts, *sort),
        Route::Rules => rules::page(facts),
        Route::Sessions { filter, sort } => sessions::page(facts, filter, *sort),
        Route::Session(id) => sessions::explained(facts, *id),
        Route::Asymmetry => asymmetry::page(facts),
        Route::Health => health::page(facts),
    }
}
