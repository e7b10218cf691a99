//! The addresses and ports in PORT, EPRT, 227 and 229, and where in the text they stand.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

/// What a command or reply announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The address; `None` in a 229, which has none.
    pub(super) address: Option<IpAddr>,
    /// The port, which may be 0.
    pub(super) port: u16,
    /// Where in the text it stands: `h1,h2,h3,h4,p1,p2`; of EPRT all of `|1|address|port|`; of 229 the digits of the
    /// port.
    pub(super) span: Range<usize>,
}

/// What is wrong with an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It cannot be read.
    Malformed,
    /// A number is too large.
    OutOfRange,
    /// Another network protocol than IPv4 and IPv6.
    Family,
}

/// A decimal number of some digits.
fn number(digits: &[u8], largest: u32) -> Result<u32, Flaw> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Flaw::Malformed);
    }
    digits
        .iter()
        .try_fold(0_u32, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
        })
        .filter(|number| *number <= largest)
        .ok_or(Flaw::OutOfRange)
}

fn port_number(digits: &[u8]) -> Result<u16, Flaw> {
    u16::try_from(number(digits, u32::from(u16::MAX))?).map_err(|_| Flaw::OutOfRange)
}

/// `h1,h2,h3,h4,p1,p2` and nothing else; at most three digits each.
fn tuple(text: &[u8]) -> Result<(Ipv4Addr, u16), Flaw> {
    let mut numbers = [0_u8; 6];
    let mut fields = text.split(|byte| *byte == b',');
    for place in &mut numbers {
        let digits = fields.next().ok_or(Flaw::Malformed)?;
        let value = number(digits, 255)?;
        if digits.len() > 3 {
            return Err(Flaw::Malformed);
        }
        *place = value as u8;
    }
    if fields.next().is_some() {
        return Err(Flaw::Malformed);
    }
    let [a, b, c, d, high, low] = numbers;
    Ok((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}

/// The text without the blanks around it.
pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    let (mut text, mut rest) = (text, text);
    while let Some((b' ', inner)) = rest.split_first() {
        (text, rest) = (inner, inner);
    }
    while let Some((b' ', inner)) = rest.split_last() {
        (text, rest) = (inner, inner);
    }
    text
}

/// Where the text without the blanks around it stands.
fn span(text: &[u8]) -> Range<usize> {
    let start = text.iter().take_while(|byte| **byte == b' ').count();
    start..start + trimmed(text).len()
}

/// What follows `PORT`.
pub(super) fn port_argument(text: &[u8]) -> Result<Announced, Flaw> {
    let span = span(text);
    let (address, port) = tuple(trimmed(text))?;
    Ok(Announced {
        address: Some(IpAddr::V4(address)),
        port,
        span,
    })
}

/// What follows `EPRT` (RFC 2428, section 2): `|protocol|address|port|` with any visible character for `|`.
pub(super) fn eprt_argument(text: &[u8]) -> Result<Announced, Flaw> {
    let span = span(text);
    let text = trimmed(text);
    let delimiter = *text.first().ok_or(Flaw::Malformed)?;
    if !delimiter.is_ascii_graphic() {
        return Err(Flaw::Malformed);
    }
    let mut fields = text.split(|byte| *byte == delimiter);
    let mut field = || fields.next().ok_or(Flaw::Malformed);
    let (before, family, address, port, after) = (field()?, field()?, field()?, field()?, field()?);
    if fields.next().is_some() || !before.is_empty() || !after.is_empty() {
        return Err(Flaw::Malformed);
    }
    let family = number(family, u32::MAX)?;
    let text = core::str::from_utf8(address).map_err(|_| Flaw::Malformed)?;
    let address = match family {
        1 => IpAddr::V4(text.parse::<Ipv4Addr>().map_err(|_| ipv4_flaw(address))?),
        2 => IpAddr::V6(text.parse::<Ipv6Addr>().map_err(|_| Flaw::Malformed)?),
        _ => return Err(Flaw::Family),
    };
    Ok(Announced {
        address: Some(address),
        port: port_number(port)?,
        span,
    })
}

/// Why an IPv4 address cannot be read.
fn ipv4_flaw(address: &[u8]) -> Flaw {
    let mut octets = address
        .split(|byte| *byte == b'.')
        .map(|octet| number(octet, 255));
    match octets.find_map(Result::err) {
        Some(Flaw::OutOfRange) => Flaw::OutOfRange,
        _ => Flaw::Malformed,
    }
}

/// The text of a 227: exactly one `h1,h2,h3,h4,p1,p2`, with or without parentheses, anywhere in it (RFC 1123, section
/// 4.1.2.6).
pub(super) fn pasv_reply(text: &[u8]) -> Result<Announced, Flaw> {
    let mut found = None;
    let mut start = None;
    let mut previous = b' ';
    for (place, byte) in text.iter().copied().chain([b' ']).enumerate() {
        let belongs = byte.is_ascii_digit() || byte == b',';
        match start {
            None if belongs => start = Some((place, previous)),
            Some((first, before)) if !belongs => {
                start = None;
                let run = text.get(first..place).unwrap_or_default();
                let commas = run.iter().filter(|byte| **byte == b',').count();
                if commas >= 5 {
                    let glued = before.is_ascii_alphanumeric() || byte.is_ascii_alphanumeric();
                    if glued || found.is_some() {
                        return Err(Flaw::Malformed);
                    }
                    found = Some((first..place, tuple(run)?));
                }
            }
            _ => {}
        }
        previous = byte;
    }
    let (span, (address, port)) = found.ok_or(Flaw::Malformed)?;
    Ok(Announced {
        address: Some(IpAddr::V4(address)),
        port,
        span,
    })
}

/// The text of a 229 (RFC 2428, section 3): exactly one `(|||port|)` with any visible character for `|` but a digit.
pub(super) fn epsv_reply(text: &[u8]) -> Result<Announced, Flaw> {
    let mut found = None;
    for (place, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'(') {
        let rest = text.get(place + 1..).unwrap_or_default();
        let Some((&[d, second, third], rest)) = rest.split_first_chunk::<3>() else {
            continue;
        };
        if !d.is_ascii_graphic() || d.is_ascii_digit() || [second, third] != [d; 2] {
            continue;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some((digits, behind)) = rest.split_at_checked(digits) else {
            continue;
        };
        if digits.is_empty() || !behind.starts_with(&[d, b')']) {
            continue;
        }
        if found.is_some() {
            return Err(Flaw::Malformed);
        }
        let first = place + 4;
        found = Some((first..first + digits.len(), port_number(digits)?));
    }
    let (span, port) = found.ok_or(Flaw::Malformed)?;
    Ok(Announced {
        address: None,
        port,
        span,
    })
}
