//! Replacement of announced addresses and ports, for appliances that translate addresses.

use core::fmt::Write as _;
use core::net::{IpAddr, SocketAddr};

use super::announce::{self, AnnouncedAddress};
use super::line::{Command, Reply};

/// A rewritten line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The line, its end as it was.
    pub line: Vec<u8>,
    /// Difference in length, in bytes: all later sequence numbers of this direction move by it.
    pub growth: isize,
}

/// Reason for which a line was not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The line is none of PORT, EPRT, 227 and 229, or its announcement cannot be read.
    #[error("the line announces no address and port")]
    NoAnnouncement,
    /// PORT and 227 have no place for an IPv6 address.
    #[error("the line has no place for an IPv6 address")]
    Family,
}

/// Replaces the address and port that a whole line announces with `to`: PORT and EPRT of a client,
/// 227 and 229 of a server. A 229 has no address; only its port changes. The function does not
/// judge whether the announcement is acceptable; the helper does. The line may have its end or not.
///
/// An appliance that translates addresses rewrites each announcement of a control session in this
/// way, and moves the sequence numbers of the lines after it:
///
/// ```
/// use portcullis::ftp::helper::rewrite;
///
/// // A client behind the translation announces its private address.
/// let line = b"PORT 10,0,0,9,19,136\r\n";
/// let public: std::net::SocketAddr = "198.51.100.7:40000".parse()?;
/// let rewritten = rewrite(line, public)?;
/// assert_eq!(rewritten.line, b"PORT 198,51,100,7,156,64\r\n");
///
/// // Later segments of the client, and acknowledgments to it, are shifted by the growth.
/// let (sequence, acknowledgment) = (1_000_022_u32, 1_000_026_u32);
/// let shift = rewritten.growth as u32;
/// assert_eq!(sequence.wrapping_add(shift), 1_000_026);
/// assert_eq!(acknowledgment.wrapping_sub(shift), 1_000_022);
///
/// // Any other line passes as it came.
/// assert!(rewrite(b"NOOP\r\n", public).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite(line: &[u8], to: SocketAddr) -> Result<Rewritten, RewriteError> {
    let bare = line.strip_suffix(b"\n").unwrap_or(line);
    let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
    let address = to.ip().to_canonical();
    let command = Command::of(bare);
    let (text, announced, replacement) = if command.is("PORT") {
        (
            command.argument,
            announce::port_argument(command.argument),
            tuple(address, to.port()),
        )
    } else if command.is("EPRT") {
        let announced = announce::eprt_argument(command.argument);
        (
            command.argument,
            announced,
            Ok(extended(command.argument, address, to.port())),
        )
    } else {
        match Reply::of(bare) {
            Some(reply) if reply.code == 227 => (
                reply.text,
                announce::pasv_reply(reply.text),
                tuple(address, to.port()),
            ),
            Some(reply) if reply.code == 229 => (
                reply.text,
                announce::epsv_reply(reply.text),
                Ok(to.port().to_string()),
            ),
            _ => return Err(RewriteError::NoAnnouncement),
        }
    };
    let AnnouncedAddress { span, .. } = announced.map_err(|_| RewriteError::NoAnnouncement)?;
    let replacement = replacement?;
    // The text is the bare line's tail.
    let start = bare.len() - text.len() + span.start;
    let (before, rest) = line
        .split_at_checked(start)
        .ok_or(RewriteError::NoAnnouncement)?;
    let (_, after) = rest
        .split_at_checked(span.len())
        .ok_or(RewriteError::NoAnnouncement)?;
    let growth = replacement.len().cast_signed() - span.len().cast_signed();
    Ok(Rewritten {
        line: [before, replacement.as_bytes(), after].concat(),
        growth,
    })
}

/// Writes `h1,h2,h3,h4,p1,p2`.
fn tuple(address: IpAddr, port: u16) -> Result<String, RewriteError> {
    let IpAddr::V4(address) = address else {
        return Err(RewriteError::Family);
    };
    let mut text = String::new();
    for octet in address.octets() {
        let _ = write!(text, "{octet},");
    }
    let [high, low] = port.to_be_bytes();
    let _ = write!(text, "{high},{low}");
    Ok(text)
}

/// Writes `|protocol|address|port|`, with the delimiter of the argument unless it could be part of
/// an address.
fn extended(argument: &[u8], address: IpAddr, port: u16) -> String {
    let delimiter = announce::trimmed(argument)
        .first()
        .filter(|byte| byte.is_ascii_punctuation() && !matches!(byte, b'.' | b':'))
        .map_or('|', |byte| char::from(*byte));
    let family = if address.is_ipv4() { 1 } else { 2 };
    format!("{delimiter}{family}{delimiter}{address}{delimiter}{port}{delimiter}")
}
