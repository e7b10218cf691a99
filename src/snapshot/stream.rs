//! The bytes of a stream of saved sessions, written and read piece by piece.
//!
//! A stream is a head and then chunks. The head has the magic, the version (32 bits) and the
//! wall-clock time of the save in microseconds (64 bits). A chunk has the length of its contents
//! (32 bits), the contents, and the CRC-64 of everything from the first byte of the stream to the
//! end of the contents. Numbers are little-endian. The contents are one byte for the kind of
//! record, and records of that kind, one after the other. Kinds come in the order of their numbers;
//! the last chunk has the number of records of each other kind. A changed, missing, repeated or
//! misplaced chunk is therefore detected, and so is a missing end.
//!
//! Neither side ever has more than one chunk in memory.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crc::{Digest, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::first::FirstVersion;
use super::record::{CHECKSUM, Counts, Kind, NamedSession, Record, count};
use super::second::{self, SecondSession};
use super::{RestoreError, RestoreOptions, SavedSession};

/// The first bytes of a stream.
const MAGIC: [u8; 8] = *b"PCULLIS\n";

/// The version that is written. Versions 1 to 3 can be read as well.
pub const VERSION: u32 = 4;

/// The version whose sessions have no identifiers.
const THIRD: u32 = 3;

/// Contents of at least this many bytes make a chunk.
const CHUNK: usize = 32 << 10;
/// Maximum size of the contents of a chunk, in bytes. No record is longer than 1 KiB.
const MAX_CHUNK: usize = CHUNK + (1 << 10);

/// Writes a stream.
pub(crate) struct Writer<W> {
    out: W,
    digest: Digest<'static, u64, Table<16>>,
    kind: Kind,
    /// The chunk that is not written yet: four bytes for the length, the kind, and records.
    chunk: Vec<u8>,
    counts: Counts,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a stream that is saved at a wall-clock time.
    pub(crate) fn new(out: W, at: SystemTime) -> io::Result<Self> {
        let since_epoch = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let mut head = Vec::from(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend(micros.to_le_bytes());
        let mut writer = Self {
            out,
            digest: CHECKSUM.digest(),
            kind: Kind::Rule,
            chunk: Vec::with_capacity(MAX_CHUNK + 16),
            counts: Counts::default(),
            bytes: head.len() as u64,
        };
        writer.digest.update(&head);
        writer.out.write_all(&head)?;
        Ok(writer)
    }

    /// Adds a record. Kinds must come in their order.
    pub(crate) fn put(&mut self, kind: Kind, record: &impl Serialize) -> io::Result<()> {
        debug_assert!(kind >= self.kind, "kinds come in their order");
        if kind != self.kind {
            self.flush()?;
        }
        if self.chunk.is_empty() {
            self.kind = kind;
            self.chunk.extend([0, 0, 0, 0, kind as u8]);
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk = postcard::to_extend(record, chunk)
            .map_err(|error| io::Error::other(error.to_string()))?;
        count(&mut self.counts, kind);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the current chunk.
    fn flush(&mut self) -> io::Result<()> {
        let Some((length, contents)) = self.chunk.split_first_chunk_mut::<4>() else {
            return Ok(());
        };
        *length = (contents.len() as u32).to_le_bytes();
        self.digest.update(&self.chunk);
        let checksum = self.digest.clone().finalize();
        self.chunk.extend(checksum.to_le_bytes());
        self.out.write_all(&self.chunk)?;
        self.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    /// Ends the stream. Returns the number of records of each kind and of bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Counts, u64)> {
        let counts = self.counts;
        self.put(Kind::End, &counts)?;
        self.flush()?;
        self.out.flush()?;
        Ok((counts, self.bytes))
    }
}

/// A stream that can be read several times.
pub(crate) enum Source<'r, R> {
    /// A stream of chunks, and the position of its first chunk.
    Chunks {
        input: &'r mut R,
        start: u64,
        written: SystemTime,
    },
    /// A stream of the first version, read whole.
    First {
        records: FirstVersion,
        written: SystemTime,
    },
}

impl<'r, R: Read + Seek> Source<'r, R> {
    /// Reads the head of a stream that begins at the position of the input.
    pub(crate) fn open(input: &'r mut R) -> Result<Self, RestoreError> {
        let start = input.stream_position()?;
        let mut magic = [0; 8];
        if !fill(input, &mut magic)? || magic != MAGIC {
            return Err(RestoreError::Foreign);
        }
        let mut version = [0; 4];
        if !fill(input, &mut version)? {
            return Err(RestoreError::Torn);
        }
        match u32::from_le_bytes(version) {
            VERSION | THIRD | second::NUMBER => {
                let mut micros = [0; 8];
                if !fill(input, &mut micros)? {
                    return Err(RestoreError::Torn);
                }
                Ok(Self::Chunks {
                    input,
                    start,
                    written: time(micros),
                })
            }
            FirstVersion::NUMBER => {
                let mut rest = Vec::new();
                input.read_to_end(&mut rest)?;
                let (records, micros) = FirstVersion::from_rest(&rest)?;
                Ok(Self::First {
                    records,
                    written: time(micros),
                })
            }
            found => Err(RestoreError::Version { found }),
        }
    }

    /// Returns the time since the stream was written; zero if the clock was set back.
    fn elapsed(&self, now: SystemTime) -> Duration {
        let (Self::Chunks { written, .. } | Self::First { written, .. }) = self;
        now.duration_since(*written).unwrap_or_default()
    }

    /// Returns the time by which the clock was set back since the stream was written.
    fn ahead(&self, now: SystemTime) -> Duration {
        let (Self::Chunks { written, .. } | Self::First { written, .. }) = self;
        written.duration_since(now).unwrap_or_default()
    }

    /// Returns the time since the stream was written, if it may be restored now.
    ///
    /// # Errors
    /// Returns an error if the stream is too old, or the clock was set back, as defined by
    /// `max_age`.
    pub(crate) fn age(
        &self,
        now: SystemTime,
        max_age: Option<Duration>,
    ) -> Result<Duration, RestoreError> {
        let (age, ahead) = (self.elapsed(now), self.ahead(now));
        match max_age {
            Some(max) if age > max => Err(RestoreError::TooOld { age, max }),
            Some(_) if ahead > RestoreOptions::CLOCK_SLACK => {
                Err(RestoreError::ClockWentBack { ahead })
            }
            _ => Ok(age),
        }
    }

    /// Calls `each` with every record. Checks the whole stream, but records before an error have
    /// been handed out by then.
    pub(crate) fn read(
        &mut self,
        mut each: impl FnMut(Record) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        match self {
            Self::Chunks { input, start, .. } => {
                input.seek(SeekFrom::Start(*start))?;
                read_chunks(&mut **input, &mut each)
            }
            Self::First { records, .. } => records.read(each),
        }
    }
}

fn time(micros: [u8; 8]) -> SystemTime {
    let since_epoch = Duration::from_micros(u64::from_le_bytes(micros));
    // A time that the system cannot represent counts as none.
    let time = SystemTime::UNIX_EPOCH.checked_add(since_epoch);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Fills a buffer. Returns `false` if the input ends first.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<bool, RestoreError> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Checks and hands out all chunks of a stream, from its first byte on.
fn read_chunks<R: Read>(
    input: &mut R,
    each: &mut impl FnMut(Record) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let mut digest = CHECKSUM.digest();
    let mut head = [0; 8 + 4 + 8];
    if !fill(input, &mut head)? {
        return Err(RestoreError::Torn);
    }
    digest.update(&head);
    let version = head.get(MAGIC.len()..).and_then(|rest| rest.first_chunk());
    let version = version.map_or(VERSION, |version| u32::from_le_bytes(*version));
    let mut chunk = Vec::with_capacity(MAX_CHUNK);
    let mut last = Kind::Rule;
    let mut counts = Counts::default();
    while last != Kind::End {
        read_chunk(input, &mut chunk, &mut digest)?;
        let unknown = || RestoreError::Unreadable("a chunk of an unknown kind".to_owned());
        let (kind, records) = chunk.split_first().ok_or_else(unknown)?;
        let kind = *Kind::ALL.get(usize::from(*kind)).ok_or_else(unknown)?;
        if kind < last {
            return Err(RestoreError::Unreadable("chunks out of order".to_owned()));
        }
        last = kind;
        let mut hand_out = |record| {
            count(&mut counts, kind);
            each(record)
        };
        match kind {
            Kind::Rule => decode(records, |rule| hand_out(Record::Rule(rule)))?,
            Kind::Session => {
                let each = |session| hand_out(Record::Session(session));
                decode_sessions(version, records, each)?;
            }
            Kind::Tombstone => decode(records, |tombstone| hand_out(Record::Tombstone(tombstone)))?,
            Kind::Expectation => decode(records, |each| hand_out(Record::Expectation(each)))?,
            Kind::End => decode(records, |announced: Counts| {
                if announced == counts {
                    return Ok(());
                }
                Err(RestoreError::Unreadable(format!(
                    "{counts:?} records, {announced:?} announced"
                )))
            })?,
        }
    }
    if fill(input, &mut [0])? {
        return Err(RestoreError::Unreadable(
            "bytes after the last chunk".to_owned(),
        ));
    }
    Ok(())
}

/// Reads the contents of the next chunk, and checks them.
fn read_chunk<R: Read>(
    input: &mut R,
    chunk: &mut Vec<u8>,
    digest: &mut Digest<'static, u64, Table<16>>,
) -> Result<(), RestoreError> {
    let mut length = [0; 4];
    if !fill(input, &mut length)? {
        return Err(RestoreError::Torn);
    }
    digest.update(&length);
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_CHUNK {
        // Such a length was never written. The checksum would reveal it, but lies that far away.
        return Err(RestoreError::Checksum);
    }
    chunk.clear();
    input.take(length as u64).read_to_end(chunk)?;
    let mut checksum = [0; 8];
    if chunk.len() < length || !fill(input, &mut checksum)? {
        return Err(RestoreError::Torn);
    }
    digest.update(chunk);
    if digest.clone().finalize() != u64::from_le_bytes(checksum) {
        return Err(RestoreError::Checksum);
    }
    Ok(())
}

/// Decodes all sessions of a chunk of a stream of a version.
fn decode_sessions(
    version: u32,
    records: &[u8],
    mut each: impl FnMut(SavedSession) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    match version {
        second::NUMBER => decode(records, |session: SecondSession| each(session.into())),
        THIRD => decode(records, each),
        _ => decode(records, |session: NamedSession| each(session.into())),
    }
}

/// Decodes all records of a chunk.
fn decode<T: DeserializeOwned>(
    mut records: &[u8],
    mut each: impl FnMut(T) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    while !records.is_empty() {
        let (record, rest) = postcard::take_from_bytes(records)
            .map_err(|error| RestoreError::Unreadable(error.to_string()))?;
        records = rest;
        each(record)?;
    }
    Ok(())
}
