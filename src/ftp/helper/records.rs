//! End of the records of TLS, where plain text continues: after CCC (RFC 4217).
//!
//! CCC itself and its reply are encrypted. A record begins with its type (20 to 24), its version
//! and its length (RFC 8446, section 5.1), and no line of FTP begins with such a byte. A letter or
//! a digit in place of a record's type therefore begins the plain text.

use crate::packet::SeqNum;

/// The types of records, from change_cipher_spec to heartbeat.
const TYPES: core::ops::RangeInclusive<u8> = 20..=24;

/// The type of the records that begin a TLS session.
const HANDSHAKE: u8 = 22;

/// Maximum record length: 2^14 bytes, and the overhead of encryption (RFC 5246, section 6.2.3).
const LONGEST: u16 = (1 << 14) + 2048;

/// Bytes of a record's header.
const HEADER: u8 = 5;

/// The records of one direction of a session.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The next byte of a header; `None` if the records are not tracked.
    next: Option<SeqNum>,
    /// Number of bytes of that header that were read.
    read: u8,
    /// The type of the record, or 0.
    kind: u8,
    /// The part of the record's length that was read.
    length: u16,
    /// A handshake was seen.
    begun: bool,
}

impl Records {
    /// Returns the records that begin at `next`.
    pub(super) fn from(next: Option<SeqNum>) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// Returns whether records are tracked.
    pub(super) const fn are_followed(&self) -> bool {
        self.next.is_some()
    }

    /// Reads the headers in a segment. Returns the number of the first byte of plain text, once.
    ///
    /// A segment after the next header is skipped. If it held another header, plain text is no
    /// longer found.
    pub(super) fn segment(&mut self, seq: SeqNum, payload: &[u8]) -> Option<SeqNum> {
        loop {
            let at = self.next.filter(|at| !at.before(seq))?;
            let byte = *payload.get(at.distance_from(seq) as usize)?;
            match self.read {
                0 if !TYPES.contains(&byte) => {
                    self.next = None;
                    return (self.begun && byte.is_ascii_alphanumeric()).then_some(at);
                }
                0 => self.kind = byte,
                1 if byte != 3 => {
                    self.next = None;
                    return None;
                }
                3 => self.length = u16::from(byte) << 8,
                4 => self.length |= u16::from(byte),
                _ => {}
            }
            self.read += 1;
            self.next = Some(at.add(1));
            if self.read == HEADER {
                self.begun |= self.kind == HANDSHAKE;
                self.read = 0;
                let fits = self.length <= LONGEST;
                self.next = fits.then(|| at.add(1 + u32::from(self.length)));
            }
        }
    }
}
