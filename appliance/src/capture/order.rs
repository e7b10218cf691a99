//! The byte order of a file or section.

/// The order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ByteOrder {
    /// The most significant byte comes first.
    Big,
    /// The least significant byte comes first.
    Little,
}

impl ByteOrder {
    /// Reads two bytes at an offset. Returns `None` past the end.
    pub(super) fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Big => u16::from_be_bytes(field),
            Self::Little => u16::from_le_bytes(field),
        })
    }

    /// Reads four bytes at an offset. Returns `None` past the end.
    pub(super) fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Big => u32::from_be_bytes(field),
            Self::Little => u32::from_le_bytes(field),
        })
    }

    /// Reads eight bytes, signed, at an offset. Returns `None` past the end.
    pub(super) fn i64_at(self, bytes: &[u8], at: usize) -> Option<i64> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Big => i64::from_be_bytes(field),
            Self::Little => i64::from_le_bytes(field),
        })
    }
}
