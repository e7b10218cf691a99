//! The addresses and ports in PORT, EPRT, 227 and 229.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::pending::Form;

/// Address and port that a command or reply announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnnouncedAddress {
    /// The address; `None` in a 229, which has none.
    pub(super) address: Option<IpAddr>,
    /// The port, which may be 0.
    pub(super) port: u16,
}

/// Fault of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The line has no announcement.
    Absent,
    /// The announcement cannot be parsed.
    Malformed,
    /// A number is too large.
    OutOfRange,
    /// Another network protocol than IPv4 and IPv6.
    Family,
}

/// Parses a decimal number of some digits.
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

/// Parses `h1,h2,h3,h4,p1,p2` without anything but blanks around the numbers; at most three digits
/// each.
fn tuple(text: &[u8]) -> Result<(Ipv4Addr, u16), Flaw> {
    let mut numbers = [0_u8; 6];
    let mut fields = text.split(|byte| *byte == b',');
    for place in &mut numbers {
        let digits = trimmed(fields.next().ok_or(Flaw::Malformed)?);
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

/// Returns the text without the surrounding blanks.
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

/// Parses the argument of `PORT`.
pub(super) fn port_argument(text: &[u8]) -> Result<AnnouncedAddress, Flaw> {
    let text = trimmed(text);
    if text.contains(&b' ') {
        return Err(Flaw::Malformed);
    }
    let (address, port) = tuple(text)?;
    Ok(AnnouncedAddress {
        address: Some(IpAddr::V4(address)),
        port,
    })
}

/// Parses the argument of `EPRT` (RFC 2428, section 2): `|protocol|address|port|` with any visible
/// character for `|`.
pub(super) fn eprt_argument(text: &[u8]) -> Result<AnnouncedAddress, Flaw> {
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
    Ok(AnnouncedAddress {
        address: Some(address),
        port: port_number(port)?,
    })
}

/// Returns the fault of an IPv4 address that cannot be parsed.
fn ipv4_flaw(address: &[u8]) -> Flaw {
    let mut octets = address
        .split(|byte| *byte == b'.')
        .map(|octet| number(octet, 255));
    match octets.find_map(Result::err) {
        Some(Flaw::OutOfRange) => Flaw::OutOfRange,
        _ => Flaw::Malformed,
    }
}

/// Reads the text of a 227 or 229.
pub(super) fn of_reply(form: Form, text: &[u8]) -> Result<AnnouncedAddress, Flaw> {
    match form {
        Form::Plain => pasv_reply(text),
        Form::Extended => epsv_reply(text),
    }
}

/// Returns whether an address can be a host's public address, or means any address (0.0.0.0).
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            address.is_unspecified() || (1..224).contains(&first)
        }
        IpAddr::V6(address) => !address.is_multicast(),
    }
}

/// Announcement in all lines of one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ReplyAnnouncement {
    /// No data so far.
    #[default]
    Nothing,
    /// One address, unless it is a 229, and port.
    One { address: Option<IpAddr>, port: u16 },
    /// Unreadable text, or several addresses or ports.
    Flawed(Flaw),
}

impl ReplyAnnouncement {
    /// Adds the announcement of another line.
    pub(super) fn add(&mut self, line: Result<AnnouncedAddress, Flaw>) {
        let line = match line {
            Ok(AnnouncedAddress { address, port }) => Self::One { address, port },
            Err(Flaw::Absent) => return,
            Err(flaw) => Self::Flawed(flaw),
        };
        *self = match *self {
            Self::Nothing => line,
            Self::One { .. } if *self != line => Self::Flawed(Flaw::Malformed),
            told => told,
        };
    }
}

/// Reads the text of a 227: exactly one `h1,h2,h3,h4,p1,p2`, with or without parentheses, anywhere
/// in it (RFC 1123, section 4.1.2.6). There may be blanks around the commas.
pub(super) fn pasv_reply(text: &[u8]) -> Result<AnnouncedAddress, Flaw> {
    match numbers(text, false) {
        Err(Flaw::Absent) => numbers(text, true),
        Err(flaw) => numbers(text, true).map_err(|_| flaw),
        found => found,
    }
}

/// Finds the one run of six numbers or more.
fn numbers(text: &[u8], blanks: bool) -> Result<AnnouncedAddress, Flaw> {
    let mut found = None;
    let mut place = 0;
    while let Some(byte) = text.get(place) {
        if !byte.is_ascii_digit() && *byte != b',' {
            place += 1;
            continue;
        }
        let run = place..run_end(text, place, blanks);
        let before = place.checked_sub(1).and_then(|before| text.get(before));
        let after = text.get(run.end);
        place = run.end;
        let part = text.get(run).unwrap_or_default();
        if part.iter().filter(|byte| **byte == b',').count() < 5 {
            continue;
        }
        let glued = [before, after]
            .into_iter()
            .flatten()
            .any(u8::is_ascii_alphanumeric);
        if glued || found.is_some() {
            return Err(Flaw::Malformed);
        }
        let (address, port) = tuple(part)?;
        found = Some(AnnouncedAddress {
            address: Some(IpAddr::V4(address)),
            port,
        });
    }
    found.ok_or(Flaw::Absent)
}

/// Returns the end of a run of digits and commas, and of blanks between a comma and a number.
fn run_end(text: &[u8], start: usize, blanks: bool) -> usize {
    let mut end = start;
    while let Some(byte) = text.get(end) {
        if byte.is_ascii_digit() || *byte == b',' {
            end += 1;
            continue;
        }
        let skipped = text
            .iter()
            .skip(end)
            .take_while(|byte| **byte == b' ')
            .count();
        let after = text.get(end + skipped);
        let before = end.checked_sub(1).and_then(|before| text.get(before));
        let joins = match (before, after) {
            (Some(b','), Some(next)) => next.is_ascii_digit(),
            (Some(last), Some(b',')) => last.is_ascii_digit(),
            _ => false,
        };
        if !blanks || skipped == 0 || !joins {
            break;
        }
        end += skipped;
    }
    end
}

/// Reads the text of a 229 (RFC 2428, section 3): exactly one `(|||port|)` with any visible
/// character for `|` but a digit. There may be blanks at the parentheses. Some servers fill in the
/// protocol and the address; clients ignore both.
pub(super) fn epsv_reply(text: &[u8]) -> Result<AnnouncedAddress, Flaw> {
    let mut found = None;
    for (place, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'(') {
        let Some(digits) = text.get(place + 1..).and_then(port_within) else {
            continue;
        };
        if found.is_some() {
            return Err(Flaw::Malformed);
        }
        found = Some(AnnouncedAddress {
            address: None,
            port: port_number(digits)?,
        });
    }
    if found.is_none() && text.contains(&b'(') {
        return Err(Flaw::Malformed);
    }
    found.ok_or(Flaw::Absent)
}

/// Returns the digits of the port in `|||port|)` or `|protocol|address|port|)`.
fn port_within(text: &[u8]) -> Option<&[u8]> {
    let blanks = text.iter().take_while(|byte| **byte == b' ').count();
    let rest = text.get(blanks..)?;
    let delimiter = *rest.first()?;
    let closes = rest.iter().position(|byte| *byte == b')')?;
    if !delimiter.is_ascii_graphic() || delimiter.is_ascii_digit() || delimiter == b')' {
        return None;
    }
    let inner = trimmed(rest.get(..closes)?);
    let mut fields = inner.split(|byte| *byte == delimiter);
    let (before, family, address, port) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let ends = fields.next().is_some_and(<[u8]>::is_empty) && fields.next().is_none();
    let is_family = matches!(family, [] | b"1" | b"2");
    let is_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    if !before.is_empty()
        || !ends
        || !is_family
        || family.is_empty() != address.is_empty()
        || !is_port
    {
        return None;
    }
    Some(port)
}
