//! Content of the demo's downloads: bytes that depend on their position alone, so that a receiver
//! recognizes a lost, repeated or changed one.

use std::io::{self, Read, Write};

/// Length of the repeated piece: a prime, which no packet length divides.
const PERIOD: usize = 251;
/// Periods in a block.
const PERIODS: usize = 200;

/// Writes this many bytes.
///
/// # Errors
/// Returns the error of the writer.
pub(crate) fn write(to: &mut impl Write, bytes: usize, from: usize) -> io::Result<()> {
    let block = block();
    let mut at = from;
    let end = from + bytes;
    while at < end {
        let start = at % PERIOD;
        let len = (end - at).min(block.len() - start);
        to.write_all(block.get(start..start + len).unwrap_or_default())?;
        at += len;
    }
    Ok(())
}

/// Received content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Received {
    /// Number of bytes.
    pub(crate) bytes: usize,
    /// Number of those that differ from the sent ones.
    pub(crate) wrong: usize,
}

/// Reads everything and compares it with the bytes of [`write()`].
///
/// # Errors
/// Returns the error of the reader.
pub(crate) fn read(from: &mut impl Read) -> io::Result<Received> {
    let block = block();
    let mut buffer = vec![0; 64 << 10];
    let mut received = Received::default();
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(received),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let expected = block.iter().cycle().skip(received.bytes % PERIOD);
        let pairs = buffer.iter().take(len).zip(expected);
        received.wrong += pairs.filter(|(got, expected)| got != expected).count();
        received.bytes += len;
    }
}

/// Returns whole periods.
fn block() -> Vec<u8> {
    (0..PERIOD * PERIODS)
        .map(|at| (at % PERIOD) as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_in_pieces_is_recognized_and_a_changed_byte_too() {
        let mut bytes = Vec::new();
        write(&mut bytes, 70_000, 0).unwrap();
        write(&mut bytes, 1, 70_000).unwrap();
        write(&mut bytes, 129_999, 70_001).unwrap();
        let whole = Received {
            bytes: 200_000,
            wrong: 0,
        };
        assert_eq!(read(&mut bytes.as_slice()).unwrap(), whole);
        bytes[100_000] ^= 1;
        assert_eq!(read(&mut bytes.as_slice()).unwrap().wrong, 1);
        bytes.remove(0);
        assert!(read(&mut bytes.as_slice()).unwrap().wrong > 199_000);
    }
}
