//! The header and its options.

use super::GeneveError;

/// The size of the fixed part: version, option length, flags, protocol type, VNI.
pub(super) const FIXED: usize = 8;
/// The size of an option without its data: class, type and length.
pub(super) const OPTION_HEADER: usize = 4;
/// The bit of an option's type that makes it critical (RFC 8926 section 3.5.1).
const CRITICAL: u8 = 0x80;

/// The protocol of the inner packet, from the EtherType in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InnerProtocol {
    /// 0x0800.
    Ipv4,
    /// 0x86DD.
    Ipv6,
    /// 0x6558, an Ethernet frame.
    Ethernet,
}

impl InnerProtocol {
    /// Returns the EtherType of the protocol.
    #[must_use]
    pub const fn ether_type(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Ipv6 => 0x86dd,
            Self::Ethernet => 0x6558,
        }
    }
}

/// The inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner<'a> {
    /// The protocol of `bytes`. IP versions were checked against the packet's first nibble.
    pub protocol: InnerProtocol,
    /// The bytes up to the end of the datagram; not empty.
    pub bytes: &'a [u8],
}

/// A validated GENEVE header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The virtual network identifier, 24 bits.
    pub vni: u32,
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// Parses a UDP payload. `known` returns whether the caller supports a critical option of a
    /// class and type.
    ///
    /// # Errors
    /// Returns the first error, from the front.
    pub fn parse(
        datagram: &'a [u8],
        known: impl Fn(u16, u8) -> bool,
    ) -> Result<(Self, Inner<'a>), GeneveError> {
        let fixed: &[u8; FIXED] = datagram.first_chunk().ok_or(GeneveError::HeaderTruncated)?;
        let [first, flags, class_high, class_low, vni @ .., _reserved] = *fixed;
        if first >> 6 != 0 {
            return Err(GeneveError::Version);
        }
        let header_len = FIXED + usize::from(first & 0x3f) * 4;
        let (bytes, inner) = datagram
            .split_at_checked(header_len)
            .ok_or(GeneveError::OptionsTruncated)?;
        let [high, middle, low] = vni;
        let header = Self {
            vni: u32::from_be_bytes([0, high, middle, low]),
            bytes,
        };
        let mut critical = false;
        for option in header.options() {
            let option = option?;
            critical |= option.is_critical();
            if option.is_critical() && !known(option.class, option.kind) {
                return Err(GeneveError::CriticalOption);
            }
        }
        if critical != (flags & 0x40 != 0) {
            return Err(GeneveError::CriticalBit);
        }
        if flags & 0x80 != 0 {
            return Err(GeneveError::Control);
        }
        let version = inner.first().map(|byte| byte >> 4);
        let protocol = match (u16::from_be_bytes([class_high, class_low]), version) {
            (0x0800 | 0x86dd | 0x6558, None) => return Err(GeneveError::InnerEmpty),
            (0x0800, Some(4)) => InnerProtocol::Ipv4,
            (0x86dd, Some(6)) => InnerProtocol::Ipv6,
            (0x0800 | 0x86dd, Some(_)) => return Err(GeneveError::InnerVersion),
            (0x6558, Some(_)) => InnerProtocol::Ethernet,
            _ => return Err(GeneveError::ProtocolUnknown),
        };
        Ok((
            header,
            Inner {
                protocol,
                bytes: inner,
            },
        ))
    }

    /// Returns the bytes of the header, options included: the beginning of a reply.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the options, in order.
    #[must_use]
    pub fn options(&self) -> TunnelOptions<'a> {
        TunnelOptions {
            rest: self.bytes.get(FIXED..).unwrap_or_default(),
        }
    }
}

/// An option of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelOption<'a> {
    /// The namespace of the type: 0x0108 is AWS.
    pub class: u16,
    /// The type, its critical bit included.
    pub kind: u8,
    /// The data: 0 to 124 bytes, a multiple of 4.
    pub data: &'a [u8],
}

impl TunnelOption<'_> {
    /// Returns whether a receiver that does not support the option must drop the packet.
    #[must_use]
    pub const fn is_critical(&self) -> bool {
        self.kind & CRITICAL != 0
    }
}

/// The options of a header; the iterator ends after the first error.
#[derive(Debug, Clone)]
pub struct TunnelOptions<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for TunnelOptions<'a> {
    type Item = Result<TunnelOption<'a>, GeneveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let option = self
            .rest
            .split_first_chunk::<OPTION_HEADER>()
            .and_then(|(head, behind)| {
                let [class_high, class_low, kind, words] = *head;
                let (data, rest) = behind.split_at_checked(usize::from(words & 0x1f) * 4)?;
                let class = u16::from_be_bytes([class_high, class_low]);
                Some((TunnelOption { class, kind, data }, rest))
            });
        let Some((option, rest)) = option else {
            self.rest = &[];
            return Some(Err(GeneveError::OptionLength));
        };
        self.rest = rest;
        Some(Ok(option))
    }
}
