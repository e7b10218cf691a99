//! The record of an announced session in a store.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::flow::{Direction, Zone};
use crate::ftp::{Expectation, SessionEnds};
use crate::packet::PROTOCOL_TCP;

/// The version of records that [`StoredExpectation::encode`] writes.
pub const EXPECTATION_VERSION: u8 = 1;

/// The first byte of a record; another one than that of a session.
const MAGIC: u8 = 0xb6;
/// The longest name of a zone.
const MAX_ZONE_NAME: usize = 64;

/// The key of an announced session in a store: the same bytes in every engine.
///
/// The bytes contain the name of the zone, the protocol, both addresses and the destination port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExpectationName(Vec<u8>);

impl ExpectationName {
    /// Returns the name of the session from `source` to `destination`. At most 64 bytes of the
    /// zone's name count.
    #[must_use]
    pub fn new(zone: &str, protocol: u8, source: IpAddr, destination: SocketAddr) -> Self {
        let zone = zone.as_bytes();
        let zone = zone.get(..MAX_ZONE_NAME).unwrap_or(zone);
        let mut bytes = vec![MAGIC, zone.len() as u8];
        bytes.extend(zone);
        bytes.push(protocol);
        put_address(&mut bytes, source.to_canonical());
        put_address(&mut bytes, destination.ip().to_canonical());
        bytes.extend(destination.port().to_be_bytes());
        Self(bytes)
    }

    /// Returns the bytes, at most 103.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ExpectationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpectationName(")?;
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// An announced session as a store keeps it: it means the same in every engine.
///
/// The zone is named; the numbers of zones in [`Self::expectation`] have no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredExpectation {
    /// The name of the zone.
    pub zone: String,
    /// The wall-clock time of the record.
    pub saved_at: SystemTime,
    /// The announcement, with what was left of its lifetime at that time.
    pub expectation: Expectation,
}

/// Reason for which bytes are not the record of an announced session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpectationRecordError {
    /// The bytes do not begin like a record.
    #[error("this is no record of an announced session")]
    Foreign,
    /// An unknown version wrote the record.
    #[error("the record has version {found}; version {EXPECTATION_VERSION} can be read")]
    Version {
        /// The version of the record.
        found: u8,
    },
    /// The bytes cannot be parsed.
    #[error("the record cannot be read")]
    Unreadable,
}

impl StoredExpectation {
    /// Returns the record of an announcement.
    pub(crate) fn new(zone: &str, expectation: &Expectation, saved_at: SystemTime) -> Self {
        Self {
            zone: zone.to_owned(),
            saved_at,
            expectation: *expectation,
        }
    }

    /// Returns the key of the announced session.
    #[must_use]
    pub fn name(&self) -> ExpectationName {
        let Expectation {
            protocol,
            source,
            destination,
            ..
        } = self.expectation;
        ExpectationName::new(&self.zone, protocol, source, destination)
    }

    /// Returns the time that was left of the announcement's lifetime when the record was made.
    #[must_use]
    pub const fn time_left(&self) -> Duration {
        self.expectation.lifetime
    }

    /// Appends the bytes of the record, at most 200.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let expectation = &self.expectation;
        let zone = self.zone.as_bytes();
        let zone = zone.get(..MAX_ZONE_NAME).unwrap_or(zone);
        let saved_at = self.saved_at.duration_since(SystemTime::UNIX_EPOCH);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        out.extend([MAGIC, EXPECTATION_VERSION, zone.len() as u8]);
        out.extend(zone);
        out.extend(millis(saved_at.unwrap_or_default()).to_be_bytes());
        out.extend(millis(expectation.lifetime).to_be_bytes());
        let is_reply = expectation.direction == Direction::Reply;
        let has_port = expectation.source_port.is_some();
        out.extend([
            expectation.protocol,
            u8::from(is_reply) | u8::from(has_port) << 1,
        ]);
        out.extend(expectation.source_port.unwrap_or(0).to_be_bytes());
        put_address(out, expectation.source);
        put_end(out, expectation.destination);
        put_end(out, expectation.parent.initiator);
        put_end(out, expectation.parent.responder);
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Returns why the bytes are not a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, ExpectationRecordError> {
        let [MAGIC, version, rest @ ..] = bytes else {
            return Err(ExpectationRecordError::Foreign);
        };
        if *version != EXPECTATION_VERSION {
            return Err(ExpectationRecordError::Version { found: *version });
        }
        Self::read(rest).ok_or(ExpectationRecordError::Unreadable)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let [len] = input.array()?;
        let zone = input.take(usize::from(len))?;
        if !(1..=MAX_ZONE_NAME).contains(&zone.len()) {
            return None;
        }
        let zone = core::str::from_utf8(zone).ok()?.to_owned();
        let saved_at = Duration::from_millis(u64::from_be_bytes(input.array()?));
        let lifetime = Duration::from_millis(u64::from_be_bytes(input.array()?));
        let [protocol, bits] = input.array()?;
        let source_port = u16::from_be_bytes(input.array()?);
        let source = input.address()?;
        let destination = input.end()?;
        let parent = SessionEnds::new(Zone::DEFAULT, input.end()?, input.end()?);
        let is_sound = bits <= 3 && protocol == PROTOCOL_TCP && input.0.is_empty();
        is_sound.then_some(())?;
        Some(Self {
            zone,
            saved_at: SystemTime::UNIX_EPOCH.checked_add(saved_at)?,
            expectation: Expectation {
                parent,
                source,
                source_port: (bits & 2 != 0).then_some(source_port),
                destination,
                protocol,
                direction: match bits & 1 {
                    0 => Direction::Original,
                    _ => Direction::Reply,
                },
                lifetime,
            },
        })
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend(address.octets());
        }
    }
}

fn put_end(out: &mut Vec<u8>, end: SocketAddr) {
    put_address(out, end.ip());
    out.extend(end.port().to_be_bytes());
}

/// Bytes that are not read yet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn address(&mut self) -> Option<IpAddr> {
        let [version] = self.array()?;
        match version {
            4 => Some(IpAddr::from(self.array::<4>()?)),
            6 => Some(IpAddr::from(self.array::<16>()?)),
            _ => None,
        }
    }

    fn end(&mut self) -> Option<SocketAddr> {
        let address = self.address()?;
        Some(SocketAddr::new(address, u16::from_be_bytes(self.array()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> StoredExpectation {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        StoredExpectation {
            zone: "production".to_owned(),
            saved_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            expectation: Expectation {
                parent: SessionEnds::new(Zone::DEFAULT, end("10.0.0.1:40000"), end("192.0.2.1:21")),
                source: end("10.0.0.1:0").ip(),
                source_port: None,
                destination: end("192.0.2.1:50000"),
                protocol: PROTOCOL_TCP,
                direction: Direction::Original,
                lifetime: Duration::from_secs(30),
            },
        }
    }

    fn encoded(stored: &StoredExpectation) -> Vec<u8> {
        let mut bytes = Vec::new();
        stored.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let passive = stored();
        let mut active = stored();
        active.expectation.direction = Direction::Reply;
        active.expectation.source_port = Some(20);
        let mut v6 = stored();
        v6.zone = "z".repeat(64);
        v6.expectation.source = "2001:db8::1".parse().unwrap();
        v6.expectation.destination = "[2001:db8::2]:50000".parse().unwrap();
        v6.expectation.parent.initiator = "[2001:db8::1]:40000".parse().unwrap();
        v6.expectation.parent.responder = "[2001:db8::2]:21".parse().unwrap();
        for each in [passive, active, v6] {
            let bytes = encoded(&each);
            assert!(bytes.len() <= 200, "{}", bytes.len());
            assert_eq!(StoredExpectation::decode(&bytes), Ok(each));
        }
    }

    #[test]
    fn bytes_that_are_not_a_record_are_refused() {
        let bytes = encoded(&stored());
        for len in 2..bytes.len() {
            let torn = StoredExpectation::decode(&bytes[..len]);
            assert_eq!(torn, Err(ExpectationRecordError::Unreadable), "{len} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        let longer = StoredExpectation::decode(&longer);
        assert_eq!(longer, Err(ExpectationRecordError::Unreadable));
        for foreign in [&[][..], &[0xb5, 1, 0], &[MAGIC]] {
            let refused = StoredExpectation::decode(foreign);
            assert_eq!(refused, Err(ExpectationRecordError::Foreign));
        }
        let mut future = bytes;
        future[1] = 2;
        let future = StoredExpectation::decode(&future);
        assert_eq!(future, Err(ExpectationRecordError::Version { found: 2 }));
    }

    #[test]
    fn a_name_tells_zones_and_ports_apart_and_not_the_port_of_the_caller() {
        let name = stored().name();
        let mut other = stored();
        other.expectation.source_port = Some(7);
        other.expectation.lifetime = Duration::ZERO;
        assert_eq!(other.name(), name);
        other.expectation.destination.set_port(50_001);
        assert_ne!(other.name(), name);
        let mut other = stored();
        other.zone = "staging".to_owned();
        assert_ne!(other.name(), name);
        assert!(name.as_bytes().len() <= 103);
    }
}
