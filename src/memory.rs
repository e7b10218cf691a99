//! Memory that a configuration takes.
//!
//! All tables have a fixed size, which is reserved at start; the system provides the memory as they
//! fill. If a table cannot be reserved, the start fails with a [`ConfigError`]. Memory that grows
//! beside the tables is bounded by the configuration as well.

use crate::config::{Compiled, Config, ConfigError, ConfigErrorCause};
use crate::engine::{hint_bytes, known_source_bytes, question_bytes};
use crate::fragment::Datagrams;
use crate::limits::counts_bytes;
use crate::reserve::{NoMemory, Purpose};
use crate::session::{
    Graveyard, PathTable, session_bytes, stored_mark_bytes, tunnel_reference_bytes,
};

/// Maximum length of a held datagram, in bytes.
const MAX_DATAGRAM: u64 = 65_535;

/// Memory of one part of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPart {
    /// Purpose of the memory.
    pub name: &'static str,
    /// The configuration key that determines the size.
    pub key: &'static str,
    /// Bytes at the most.
    pub bytes: u64,
    /// Whether the memory is reserved at the start, rather than allocated as needed.
    pub reserved: bool,
}

/// Memory of an engine, by part. Memory that is not listed does not depend on the amount of
/// traffic, except for a report of asymmetric paths: counters and buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    parts: Vec<MemoryPart>,
}

impl Memory {
    /// Returns the parts.
    #[must_use]
    pub fn parts(&self) -> &[MemoryPart] {
        &self.parts
    }

    /// Bytes of all parts, if all are full.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Bytes that are reserved at the start.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        let reserved = self.parts.iter().filter(|part| part.reserved);
        reserved.map(|part| part.bytes).sum()
    }

    /// Returns the error for memory that the system did not provide.
    pub(crate) fn error(&self, config: &Config, lack: NoMemory) -> ConfigError {
        let part = self
            .parts
            .iter()
            .find(|part| part.name == lack.purpose.name());
        let cause = ConfigErrorCause::NoMemory {
            part: lack.purpose.name(),
            bytes: part.map_or(lack.bytes as u64, |part| part.bytes),
        };
        config.error(lack.purpose.key(), cause)
    }
}

impl Compiled {
    /// Returns the memory that an engine takes with this configuration.
    ///
    /// ```
    /// let memory = portcullis::Config::default().compile()?.memory();
    /// assert!(memory.total() >= memory.reserved());
    /// assert_eq!(memory.parts()[0].key, "table.max_sessions");
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    #[must_use]
    pub fn memory(&self) -> Memory {
        let fixed = &self.fixed;
        let (max, shards) = (fixed.max_sessions as usize, fixed.shards as usize);
        let references = if fixed.tunnel_references {
            tunnel_reference_bytes(max, shards)
        } else {
            0
        };
        let marks = if fixed.continuity {
            stored_mark_bytes(max, shards)
        } else {
            0
        };
        let questions = if fixed.continuity {
            question_bytes(&fixed.questions)
        } else {
            0
        };
        let zones = self.zones.distinct().count();
        let held = u64::from(fixed.questions.max_held_bytes) * u64::from(fixed.continuity);
        let reserved = |purpose: Purpose, bytes: usize| MemoryPart {
            name: purpose.name(),
            key: purpose.key(),
            bytes: bytes as u64,
            reserved: true,
        };
        // Each table has a line here, with a size computed by the module that creates it.
        let parts = vec![
            reserved(Purpose::Sessions, session_bytes(max, shards)),
            reserved(Purpose::TunnelReferences, references),
            reserved(Purpose::StoredMarks, marks),
            reserved(Purpose::Hints, hint_bytes(max, zones)),
            reserved(
                Purpose::Tombstones,
                Graveyard::bytes(fixed.tombstones.max as usize),
            ),
            reserved(Purpose::Questions, questions),
            reserved(Purpose::Fragments, Datagrams::bytes(&fixed.fragments)),
            reserved(Purpose::CountedPrefixes, counts_bytes(max)),
            reserved(
                Purpose::KnownSources,
                known_source_bytes(fixed.known_sources as usize),
            ),
            MemoryPart {
                name: "policy",
                key: "policy.rule",
                bytes: self.policy.bytes() as u64,
                reserved: true,
            },
            MemoryPart {
                name: "SCTP paths",
                key: "table.max_sessions",
                bytes: PathTable::bytes(max) as u64,
                reserved: false,
            },
            MemoryPart {
                name: "held fragments",
                key: "fragments.max_held",
                bytes: u64::from(fixed.fragments.max_held) * MAX_DATAGRAM,
                reserved: false,
            },
            MemoryPart {
                name: "packets held for questions",
                key: "continuity.max_held_bytes",
                bytes: held,
                reserved: false,
            },
            MemoryPart {
                name: "control sessions",
                key: "ftp.max_memory",
                bytes: u64::from(self.ftp.max_memory),
                reserved: false,
            },
        ];
        Memory { parts }
    }
}
