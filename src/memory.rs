//! Memory that a configuration takes.
//!
//! All tables have a fixed size, which a start reserves at once; the system hands out the memory as
//! they fill. What grows beside them is bounded by the configuration as well.

use crate::config::{Compiled, Config, ConfigError, ConfigErrorCause};
use crate::engine::{hint_bytes, known_source_bytes};
use crate::fragment::Datagrams;
use crate::limits::counts_bytes;
use crate::session::{Graveyard, session_bytes, tunnel_reference_bytes};

/// The longest datagram that is held, in bytes.
const MAX_DATAGRAM: u64 = 65_535;

/// Memory of one part of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPart {
    /// Purpose of the memory.
    pub name: &'static str,
    /// The configuration key that its size follows from.
    pub key: &'static str,
    /// Bytes at the most.
    pub bytes: u64,
    /// Whether the memory is reserved at the start, and not allocated as it is needed.
    pub reserved: bool,
}

/// The memory of an engine, part by part. What is not listed does not depend on how much traffic
/// there is, but for a report of asymmetric paths: policy, counters and buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    parts: Vec<MemoryPart>,
}

impl Memory {
    /// The parts.
    #[must_use]
    pub fn parts(&self) -> &[MemoryPart] {
        &self.parts
    }

    /// Bytes of all parts, when everything is full.
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

    /// Reserves all parts at once, and releases them. A part that a start could not reserve is an
    /// error here, where an allocation in the middle of the start would end the process.
    pub(crate) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let mut reserved: Vec<Vec<u8>> = Vec::new();
        for part in self.parts.iter().filter(|part| part.reserved) {
            let mut memory = Vec::new();
            let bytes = usize::try_from(part.bytes).unwrap_or(usize::MAX);
            if memory.try_reserve_exact(bytes).is_err() {
                let cause = ConfigErrorCause::NoMemory {
                    part: part.name,
                    bytes: part.bytes,
                };
                return Err(config.error(part.key, cause));
            }
            reserved.push(memory);
        }
        Ok(())
    }
}

impl Compiled {
    /// Returns how much memory an engine takes with this configuration.
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
        let zones = self.zones.distinct().count();
        let reserved = |name, key, bytes: usize| MemoryPart {
            name,
            key,
            bytes: bytes as u64,
            reserved: true,
        };
        // A table more is a line more here, with its size from where it is made.
        let parts = vec![
            reserved("sessions", "table.max_sessions", session_bytes(max, shards)),
            reserved("tunnel references", "engine.tunnel_references", references),
            reserved("hints", "table.max_sessions", hint_bytes(max, zones)),
            reserved(
                "tombstones",
                "tombstones.max",
                Graveyard::bytes(fixed.tombstones.max as usize),
            ),
            reserved(
                "fragments",
                "fragments.max_datagrams",
                Datagrams::bytes(&fixed.fragments),
            ),
            reserved("counted prefixes", "table.max_sessions", counts_bytes(max)),
            reserved(
                "known sources",
                "syn_challenge.max_sources",
                known_source_bytes(fixed.known_sources as usize),
            ),
            MemoryPart {
                name: "held fragments",
                key: "fragments.max_held",
                bytes: u64::from(fixed.fragments.max_held) * MAX_DATAGRAM,
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
