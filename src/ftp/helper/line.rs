//! The parts of lines of both directions that the helper needs.

/// TELNET's "interpret as command" (RFC 854).
const IAC: u8 = 0xff;

/// A client's line in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command<'a> {
    /// The letters before the first blank; in any case.
    pub(super) verb: &'a [u8],
    /// Text after the blank.
    pub(super) argument: &'a [u8],
}

impl<'a> Command<'a> {
    /// Parses a client's line. TELNET commands before the verb are skipped: clients send IAC IP IAC
    /// DM before ABOR (RFC 959, section 4.1.3).
    pub(super) fn of(line: &'a [u8]) -> Self {
        let line = without_telnet(line);
        let blank = line
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(line.len());
        let (verb, argument) = line.split_at_checked(blank).unwrap_or((line, &[]));
        Self {
            verb,
            argument: argument.strip_prefix(b" ").unwrap_or(argument),
        }
    }

    pub(super) fn is(&self, verb: &str) -> bool {
        self.verb.eq_ignore_ascii_case(verb.as_bytes())
    }
}

/// Returns whether a server may read a command differently from [`Command::of`]: some servers skip
/// blanks before the verb, take any white space after it, remove TELNET commands from its middle,
/// or end a line at a carriage return.
pub(super) fn is_ambiguous(line: &[u8]) -> bool {
    let verb = Command::of(line).verb;
    let returns = line.iter().rev().skip_while(|byte| **byte == b'\r');
    !verb.iter().all(|byte| byte.is_ascii_graphic())
        || verb.is_empty() && !without_telnet(line).is_empty()
        || returns.into_iter().any(|byte| *byte == b'\r')
}

/// Methods of HTTP (RFC 9110, RFC 5789, RFC 4918); none is a command of FTP.
const METHODS: [&str; 15] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "PRI",
];

/// Returns whether a client's line belongs to HTTP: a request line, whose method a page may choose
/// freely, or the header that each request of a browser has. The end of the line need not be known.
/// The HOST of FTP (RFC 7151) has no colon.
pub(super) fn is_http(line: &[u8]) -> bool {
    let command = Command::of(line);
    let start = line.len().saturating_sub(9);
    let versioned = line
        .get(start..)
        .is_some_and(|end| end.starts_with(b" HTTP/"));
    let names_host = line
        .get(..5)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"HOST:"));
    let targets = command.verb.len() > 4 || command.argument.starts_with(b"/");
    METHODS.iter().any(|method| command.is(method)) || versioned && targets || names_host
}

/// Returns whether a client's line belongs to a binary protocol, such as STUN (RFC 8489), whose
/// messages begin with two zero bits. A line of FTP begins with a letter, a blank or a TELNET
/// command, and NUL occurs only after a carriage return (RFC 854).
pub(super) fn is_binary(line: &[u8]) -> bool {
    let begins = line
        .first()
        .is_some_and(|byte| matches!(byte, 0..=8 | 11 | 12 | 14..=31));
    let has_nul = line
        .windows(2)
        .any(|pair| matches!(pair, [before, 0] if *before != b'\r'));
    begins || has_nul
}

/// Returns whether a client's line has no command: it is empty except for blanks and TELNET
/// commands.
pub(super) fn is_blank(line: &[u8]) -> bool {
    without_telnet(line).iter().all(|byte| *byte == b' ')
}

/// Returns the line after its leading TELNET commands.
///
/// The urgent byte of a TELNET signal may be removed from the stream before others read it, so
/// parts of a signal are skipped as well: no command and no reply begins with such a byte.
fn without_telnet(mut line: &[u8]) -> &[u8] {
    loop {
        line = match line {
            // WILL, WONT, DO and DONT are followed by an option; 250 begins a subnegotiation, which
            // is not expected here.
            [IAC, 251..=254, _, rest @ ..] | [240..=249 | IAC, rest @ ..] => rest,
            _ => return line,
        };
    }
}

/// A server's line that begins with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// 100 to 699.
    pub(super) code: u16,
    /// More lines follow: there is a hyphen after the code.
    pub(super) more: bool,
    /// Text after the code and the character that follows it.
    pub(super) text: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Parses a reply line; `None` if the line does not begin with a code (RFC 959, section 4.2).
    /// TELNET commands before it are skipped.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let line = without_telnet(line);
        let (&[hundreds @ b'1'..=b'6', tens, ones], rest) = line.split_first_chunk::<3>()? else {
            return None;
        };
        if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
            return None;
        }
        let (more, text) = match rest {
            [] => (false, rest),
            [b' ', text @ ..] => (false, text),
            [b'-', text @ ..] => (true, text),
            _ => return None,
        };
        let digit = |digit: u8| u16::from(digit - b'0');
        Some(Self {
            code: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
            more,
            text,
        })
    }

    /// Returns whether the code is 1yz: another reply will follow.
    pub(super) const fn is_preliminary(&self) -> bool {
        self.code < 200
    }

    /// Returns whether the code is 2yz.
    pub(super) const fn is_completion(&self) -> bool {
        self.code / 100 == 2
    }

    /// Returns whether the code is 4yz or 5yz.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }
}
