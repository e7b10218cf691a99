//! Records of sessions in a store (Valkey or Redis) that appliances of a group share, so that
//! another appliance goes on with them.
//!
//! Packets are decided locally. A thread sweeps the session table and hands records of sessions to
//! a bounded queue, from which another one writes them ([`writer`]). A packet that fits no session
//! is held while a third thread asks the store ([`asker`]). Values are sealed ([`envelope`]), and
//! scripts of the store keep the newer of two records ([`scripts`]).

mod address;
mod answers;
mod asker;
mod backoff;
mod change;
mod connecting;
mod envelope;
mod hand_over;
mod handle;
mod kept;
mod link;
mod marks;
mod refusal;
mod retry;
mod scripts;
mod state;
mod supervisor;
mod sweeper;
#[cfg(test)]
mod tests;
mod threads;
mod troubles;
mod url;
mod view;
mod writer;

pub(crate) use self::hand_over::HandOver;
pub(crate) use self::handle::{StoreError, StoreHandle, StoreThreads};
pub(crate) use self::state::{Counted, LinkName, LinkState};

pub(crate) use self::url::url_error;
pub(crate) use self::view::StoreView;
