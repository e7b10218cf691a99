//! Values of the store: a record with its owner, epoch and MAC, and the names of their keys.
//!
//! A value is `"PC"`, a version (1 byte), a kind (1 byte), the owner (16 bytes), the epoch (8
//! bytes, big-endian), the time at which the session began (microseconds since the Unix epoch, 8
//! bytes), whether it was adopted midstream (1 byte), the record, and a MAC (16 bytes). The MAC is
//! an HMAC-SHA-256, truncated, over the name of the key, which holds the group, and everything
//! before the MAC. So a writer without the group's key can neither invent a session nor move a
//! record to another flow.

use std::fmt;
use std::time::{Duration, SystemTime};

use portcullis::continuity::Claim;
use ring::{digest, hmac};

/// The beginning of each value: a magic number and the version.
const MAGIC: [u8; 3] = *b"PC\x02";
/// Length of the fields before the record.
pub(super) const HEAD: usize = 37;
/// Length of the MAC.
const MAC: usize = 16;
/// The longest value: longer ones are foreign. The longest record of a session has some 1,500
/// bytes.
pub(super) const MAX_VALUE: usize = 16 << 10;
/// The largest epoch and time: scripts of the store compute with doubles.
pub(super) const MAX_NUMBER: u64 = 1 << 53;

/// Appliance that has written a record: random bytes of its start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(pub(super) [u8; 16]);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A session.
    Session = b's',
    /// An announced data session.
    Expectation = b'x',
    /// A session that another appliance has taken over, in the list of its former owner.
    Moved = b'm',
    /// A mark of an appliance; as long as it is there, the store has not been emptied.
    Mark = b'k',
}

/// Reason why a value of the store is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The value is not one of this program, or too long.
    Foreign,
    /// The value is one of another version, whose MAC cannot be checked.
    Version,
    /// The MAC is not that of the group's key.
    Mac,
}

/// Opened value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened<'v> {
    pub(crate) owner: Owner,
    pub(crate) epoch: u64,
    /// For a session: which connection it is. Other values name none.
    pub(crate) claim: Claim,
    pub(crate) record: &'v [u8],
}

/// Seals and opens values, and names their keys.
pub(crate) struct Envelope {
    prefix: String,
    key: hmac::Key,
    owner: Owner,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("prefix", &self.prefix)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// Returns an envelope for the records of a group that `owner` writes.
    pub(super) fn new(group: &str, secret: &[u8], owner: Owner) -> Self {
        Self {
            prefix: format!("portcullis:{group}:"),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            owner,
        }
    }

    /// Returns the owner of the values that this envelope seals.
    pub(crate) const fn owner(&self) -> Owner {
        self.owner
    }

    /// Returns the name of the key of a record. `name` names the conversation and its zone.
    ///
    /// The name is hashed: it holds addresses, which belong neither into the store's log nor into
    /// its monitor, and has any length.
    pub(crate) fn key(&self, kind: Kind, name: &[u8]) -> Vec<u8> {
        let digest = digest::digest(&digest::SHA256, name);
        let mut key = Vec::with_capacity(self.prefix.len() + 34);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(&[kind as u8, b':']);
        for byte in digest.as_ref().iter().take(16) {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0') as u8;
            key.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        key
    }

    /// Returns the name of the list of sessions that have moved away from an owner.
    pub(super) fn moved_key(&self, owner: Owner) -> Vec<u8> {
        self.key(Kind::Moved, &owner.0)
    }

    /// Returns a record as a value of the store.
    pub(crate) fn seal(&self, kind: Kind, key: &[u8], epoch: u64, record: &[u8]) -> Vec<u8> {
        let claim = Claim {
            epoch,
            began: SystemTime::UNIX_EPOCH,
            adopted: false,
        };
        self.seal_claim(kind, key, &claim, record)
    }

    /// Returns the record of a session with its claim as a value of the store.
    pub(crate) fn seal_claim(
        &self,
        kind: Kind,
        key: &[u8],
        claim: &Claim,
        record: &[u8],
    ) -> Vec<u8> {
        let began = claim.began.duration_since(SystemTime::UNIX_EPOCH);
        let began_us = u64::try_from(began.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let mut value = Vec::with_capacity(HEAD + record.len() + MAC);
        value.extend_from_slice(&MAGIC);
        value.push(kind as u8);
        value.extend_from_slice(&self.owner.0);
        value.extend_from_slice(&claim.epoch.min(MAX_NUMBER).to_be_bytes());
        value.extend_from_slice(&began_us.min(MAX_NUMBER).to_be_bytes());
        value.push(u8::from(claim.adopted));
        value.extend_from_slice(record);
        let mac = self.mac(key, &value);
        value.extend_from_slice(mac.as_ref().get(..MAC).unwrap_or_default());
        value
    }

    /// Checks a value of the store, and returns its contents.
    ///
    /// # Errors
    /// The value is foreign or of another version, or its MAC is wrong.
    pub(crate) fn open<'v>(
        &self,
        kind: Kind,
        key: &[u8],
        value: &'v [u8],
    ) -> Result<Opened<'v>, Unusable> {
        let [magic @ .., version] = MAGIC;
        if let Some([found, ..]) = value.strip_prefix(&magic)
            && *found != version
        {
            return Err(Unusable::Version);
        }
        if value.len() > MAX_VALUE {
            return Err(Unusable::Foreign);
        }
        let (sealed, mac) = value.split_last_chunk::<MAC>().ok_or(Unusable::Foreign)?;
        let rest = sealed.strip_prefix(&MAGIC).ok_or(Unusable::Foreign)?;
        let (of_kind, rest) = rest.split_first().ok_or(Unusable::Foreign)?;
        let (owner, rest) = rest.split_first_chunk().ok_or(Unusable::Foreign)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(Unusable::Foreign)?;
        let (began_us, rest) = rest.split_first_chunk().ok_or(Unusable::Foreign)?;
        let (adopted, record) = rest.split_first().ok_or(Unusable::Foreign)?;
        if *of_kind != kind as u8 {
            return Err(Unusable::Foreign);
        }
        // The comparison takes the same time for any difference.
        let right = self.mac(key, sealed);
        let difference = right.as_ref().iter().zip(mac);
        if difference.fold(0, |all, (one, other)| all | (one ^ other)) != 0 {
            return Err(Unusable::Mac);
        }
        let (epoch, began_us) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(*began_us));
        let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(began_us));
        Ok(Opened {
            owner: Owner(*owner),
            epoch,
            claim: Claim {
                epoch,
                began: began.ok_or(Unusable::Foreign)?,
                adopted: *adopted != 0,
            },
            record,
        })
    }

    fn mac(&self, key: &[u8], sealed: &[u8]) -> hmac::Tag {
        // The prefix of the key holds the group, and no key of a group is the beginning of another
        // one: all end with as many digits.
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(key.len() as u64).to_be_bytes());
        context.update(key);
        context.update(sealed);
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner([7; 16]);

    fn envelope(group: &str, secret: &str) -> Envelope {
        Envelope::new(group, secret.as_bytes(), OWNER)
    }

    #[test]
    fn a_sealed_record_opens_under_its_key_alone() {
        let envelope = envelope("g", "secret");
        let key = envelope.key(Kind::Session, b"flow");
        let value = envelope.seal(Kind::Session, &key, 3, b"record");
        assert_eq!(value.len(), HEAD + 6 + MAC);
        let claim = Claim {
            epoch: 7,
            began: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            adopted: true,
        };
        let claimed = envelope.seal_claim(Kind::Session, &key, &claim, b"record");
        let opened = envelope.open(Kind::Session, &key, &claimed).unwrap();
        assert_eq!((opened.claim, opened.epoch), (claim, 7));
        let opened = envelope.open(Kind::Session, &key, &value).unwrap();
        assert_eq!(
            (opened.owner, opened.epoch, opened.record),
            (OWNER, 3, b"record".as_slice())
        );
        let other = envelope.key(Kind::Session, b"other flow");
        assert_eq!(
            envelope.open(Kind::Session, &other, &value),
            Err(Unusable::Mac)
        );
        assert_eq!(
            envelope.open(Kind::Expectation, &key, &value),
            Err(Unusable::Foreign)
        );
    }

    #[test]
    fn another_group_or_secret_opens_nothing() {
        let (one, group, secret) = (
            envelope("g", "secret"),
            envelope("h", "secret"),
            envelope("g", "secrets"),
        );
        let key = one.key(Kind::Session, b"flow");
        let value = one.seal(Kind::Session, &key, 1, b"record");
        assert_ne!(group.key(Kind::Session, b"flow"), key);
        assert_eq!(secret.key(Kind::Session, b"flow"), key);
        let foreign = group.open(Kind::Session, &group.key(Kind::Session, b"flow"), &value);
        assert_eq!(foreign, Err(Unusable::Mac));
        assert_eq!(secret.open(Kind::Session, &key, &value), Err(Unusable::Mac));
    }

    #[test]
    fn each_changed_bit_and_each_cut_is_noticed() {
        let envelope = envelope("g", "secret");
        let key = envelope.key(Kind::Session, b"flow");
        let value = envelope.seal(Kind::Session, &key, 1, b"record");
        for place in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[place / 8] ^= 1 << (place % 8);
            assert!(envelope.open(Kind::Session, &key, &changed).is_err());
        }
        for len in 0..value.len() {
            assert!(envelope.open(Kind::Session, &key, &value[..len]).is_err());
        }
        let long = vec![b'x'; MAX_VALUE + 1];
        assert_eq!(
            envelope.open(Kind::Session, &key, &long),
            Err(Unusable::Foreign)
        );
    }

    #[test]
    fn a_value_of_another_version_is_known_whatever_follows() {
        let envelope = envelope("g", "secret");
        let key = envelope.key(Kind::Session, b"flow");
        let value = envelope.seal(Kind::Session, &key, 1, b"record");
        for version in [0, 1, 3, 255] {
            for len in [3, 20, value.len(), MAX_VALUE + 1] {
                let mut other = value.clone();
                other.resize(len, 0);
                other[2] = version;
                let opened = envelope.open(Kind::Session, &key, &other);
                assert_eq!(opened, Err(Unusable::Version), "{version} {len}");
            }
        }
        assert_eq!(
            envelope.open(Kind::Session, &key, b"PC"),
            Err(Unusable::Foreign)
        );
    }

    #[test]
    fn keys_hold_group_and_kind_and_no_address() {
        let key = envelope("blue", "s").key(Kind::Expectation, b"10.0.0.1");
        let text = String::from_utf8(key).unwrap();
        let digits = text.strip_prefix("portcullis:blue:x:").unwrap();
        assert_eq!(digits.len(), 32);
        assert!(digits.chars().all(|digit| digit.is_ascii_hexdigit()));
    }
}
