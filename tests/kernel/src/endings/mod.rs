//! Ends of connections between two real TCP stacks, and new beginnings, with the engine involved.
//!
//! [`lab::Lab`] is the path: the engine with a clock of its own, or a bypass for either direction.
//! Each scene is a function of the path and an IP version; an error names the missing event.

pub mod expiry;
pub mod forged;
pub mod halves;
pub mod lab;
pub mod late;
pub mod middle;
pub mod stacks;
pub mod wire;

use anyhow::Result;

use self::lab::Lab;
use self::stacks::Family;

/// A scene, and its results in numbers.
pub type Scene = fn(&mut Lab, Family) -> Result<String>;

/// The configuration of an ordinary scene: everything is allowed.
pub const ALLOW: &str = "policy.default = \"allow\"\n";

/// All scenes with their claims.
pub const SCENES: &[&[(&str, Scene)]] = &[
    expiry::SCENES,
    late::SCENES,
    halves::SCENES,
    middle::SCENES,
    forged::SCENES,
];
