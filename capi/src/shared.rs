//! An engine or gateway, with everything that its handles share.

use std::sync::Arc;

use parking_lot::Mutex;
use portcullis::{Config, Engine, Gateway};

use crate::clock::Clock;
use crate::guard::{Health, guard_engine};
use crate::status::{Outcome, Status};

/// An engine of its own, or one in a gateway.
#[derive(Debug)]
pub(crate) enum Kind {
    /// An engine, and its configuration in force. A reload holds the lock, and may wait for a save:
    /// nothing but a reload takes it.
    Engine(Box<Engine>, Box<Mutex<Config>>),
    /// A gateway, which has its configuration.
    Gateway(Box<Gateway>),
}

/// State that a handle, its outboxes and its workers share. The last of them releases it.
#[derive(Debug)]
pub(crate) struct Shared {
    kind: Kind,
    pub(crate) clock: Clock,
    health: Health,
}

impl Shared {
    pub(crate) fn new(kind: Kind, now_ns: u64) -> Arc<Self> {
        Arc::new(Self {
            kind,
            clock: Clock::new(now_ns),
            health: Health::default(),
        })
    }

    /// Returns the engine, of its own or in a gateway.
    pub(crate) fn any_engine(&self) -> &Engine {
        match &self.kind {
            Kind::Engine(engine, _) => engine,
            Kind::Gateway(gateway) => gateway.engine(),
        }
    }

    /// Returns the engine, to change its sessions; an error for one in a gateway, which sends the
    /// packets that follow.
    pub(crate) fn engine(&self) -> Outcome<&Engine> {
        self.engine_and_config().map(|(engine, _)| engine)
    }

    /// Returns the engine and its configuration in force, to reload it.
    pub(crate) fn engine_and_config(&self) -> Outcome<(&Engine, &Mutex<Config>)> {
        match &self.kind {
            Kind::Engine(engine, config) => Ok((engine, config)),
            Kind::Gateway(_) => Err(Status::Invalid),
        }
    }

    /// Returns the gateway.
    pub(crate) fn gateway(&self) -> Outcome<&Gateway> {
        match &self.kind {
            Kind::Engine(..) => Err(Status::Invalid),
            Kind::Gateway(gateway) => Ok(gateway),
        }
    }

    /// Makes a call, unless an earlier one has met a defect.
    pub(crate) fn guard(&self, call: impl FnOnce() -> Outcome) -> Status {
        guard_engine(&self.health, call)
    }
}
