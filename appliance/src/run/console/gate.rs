//! Admission of requests by a token.
//!
//! A token is never compared by its bytes: tags of it and of a request's token are compared in
//! constant time. A source with many wrong tokens waits, except that the right token is always
//! admitted from the loopback address, which all users of a host share.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;

use super::counters::Outcome;
use crate::config_file::regular;
use crate::run::sharing::source;

/// The shortest token, in bytes.
const MIN_TOKEN: usize = 16;
/// Bytes that are read of a file of a secret or of certificates.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Time in which a source regains one attempt.
const REGAIN: Duration = Duration::from_secs(6);
/// Wrong tokens of a source in a row before further ones are refused as too many.
const ATTEMPTS: u32 = 10;
/// Most sources whose wrong tokens are remembered.
const MAX_SOURCES: usize = 1_024;

/// Reads a regular file of a secret. Other users must not be able to read it.
///
/// # Errors
/// Returns an error if the file cannot be read, is no regular file, or other users can read it.
pub(super) fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let file = regular(path, "this is not a regular file")?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(io::Error::other(format!(
            "other users can use it (mode {:04o}): 0600 is the right mode",
            mode & 0o7777
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Token that admits requests.
pub(super) struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// Reads the token in the first line of a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, other users can read it, or the token is too
    /// short.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let bytes = read_secret(path)?;
        let line = bytes.split(|byte| *byte == b'\n').next();
        let token = line.unwrap_or_default().trim_ascii();
        if token.len() < MIN_TOKEN {
            return Err(io::Error::other(format!(
                "the token in its first line has {} characters: {MIN_TOKEN} or more are needed",
                token.len()
            )));
        }
        Self::new(token)
    }

    /// Returns a token.
    ///
    /// # Errors
    /// Returns an error if the system has no random numbers.
    pub(super) fn new(token: &[u8]) -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| io::Error::other("the system has no random numbers"))?;
        let tag = hmac::sign(&key, token);
        Ok(Self { key, tag })
    }

    /// Returns whether a text is the token, after a time that does not depend on it.
    fn is(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.tag.as_ref()).is_ok()
    }
}

/// Returns the token of an `Authorization` header: that of `Bearer`, or the password of `Basic`.
fn given(authorization: &[u8]) -> Option<Vec<u8>> {
    let text = authorization.trim_ascii();
    let end = text.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = text.split_at_checked(end)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Wrong tokens by source: the time until which each source regains all of its attempts.
#[derive(Debug, Default)]
struct Failures(HashMap<IpAddr, Instant>);

impl Failures {
    fn is_limited(&self, from: IpAddr, now: Instant) -> bool {
        let until = self.0.get(&from);
        until.is_some_and(|until| *until > now + REGAIN * (ATTEMPTS - 1))
    }

    fn note(&mut self, from: IpAddr, now: Instant) {
        if self.0.len() >= MAX_SOURCES && !self.0.contains_key(&from) {
            self.0.retain(|_, until| *until > now);
            // The source with the fewest wrong tokens makes room.
            let first = self.0.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(from, _)| *from)
                && self.0.len() >= MAX_SOURCES
            {
                self.0.remove(&first);
            }
        }
        let until = self.0.entry(from).or_insert(now);
        *until = (*until).max(now) + REGAIN;
    }
}

/// Gate before all pages.
pub(super) struct Gate {
    /// `None` if certificates of clients are enough.
    token: Option<Token>,
    failures: Mutex<Failures>,
}

impl Gate {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self {
            token,
            failures: Mutex::default(),
        }
    }

    /// Examines the `Authorization` header of a request from a source.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub(super) fn admit(
        &self,
        from: IpAddr,
        authorization: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), Outcome> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let Some(authorization) = authorization else {
            return Err(Outcome::NoToken);
        };
        let is_right = given(authorization).is_some_and(|given| token.is(&given));
        let is_shared = from.to_canonical().is_loopback();
        let from = source(from);
        let mut failures = self.failures.lock();
        let is_limited = failures.is_limited(from, now);
        if is_right && (is_shared || !is_limited) {
            return Ok(());
        }
        if is_limited {
            return Err(Outcome::Limited);
        }
        failures.note(from, now);
        Err(Outcome::WrongToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef";

    fn gate() -> Gate {
        Gate::new(Some(Token::new(TOKEN).unwrap()))
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    #[test]
    fn a_token_is_a_bearer_or_the_password_of_any_user() {
        let from = IpAddr::from([127, 0, 0, 1]);
        let now = Instant::now();
        let gate = gate();
        for header in [
            "Bearer 0123456789abcdef".to_owned(),
            "bearer  0123456789abcdef ".to_owned(),
            basic("operator:0123456789abcdef"),
            basic(":0123456789abcdef"),
        ] {
            let admitted = gate.admit(from, Some(header.as_bytes()), now);
            assert_eq!(admitted, Ok(()), "{header}");
        }
        assert_eq!(gate.admit(from, None, now), Err(Outcome::NoToken));
        for header in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer 0123456789abcde".to_owned(),
            "Bearer 0123456789abcdef0".to_owned(),
            "Digest 0123456789abcdef".to_owned(),
            "0123456789abcdef".to_owned(),
            "Basic ???".to_owned(),
            basic("0123456789abcdef"),
            basic("0123456789abcdef:"),
        ] {
            let gate = Gate::new(Some(Token::new(TOKEN).unwrap()));
            let refused = gate.admit(from, Some(header.as_bytes()), now);
            assert_eq!(refused, Err(Outcome::WrongToken), "{header:?}");
        }
    }

    #[test]
    fn a_source_with_wrong_tokens_waits_and_others_do_not() {
        let now = Instant::now();
        let gate = gate();
        let (bad, good) = (
            Some(&b"Bearer wrong"[..]),
            Some(&b"Bearer 0123456789abcdef"[..]),
        );
        let guesser = "2001:db8::1".parse().unwrap();
        let neighbor = "2001:db8::ffff".parse().unwrap();
        let other = "2001:db8:0:1::1".parse().unwrap();
        for _ in 0..ATTEMPTS {
            assert_eq!(gate.admit(guesser, bad, now), Err(Outcome::WrongToken));
        }
        for from in [guesser, neighbor] {
            assert_eq!(gate.admit(from, bad, now), Err(Outcome::Limited));
            assert_eq!(gate.admit(from, good, now), Err(Outcome::Limited));
        }
        assert_eq!(gate.admit(other, good, now), Ok(()));
        assert_eq!(gate.admit(other, bad, now), Err(Outcome::WrongToken));
        let later = now + REGAIN;
        assert_eq!(gate.admit(guesser, bad, later), Err(Outcome::WrongToken));
        assert_eq!(gate.admit(guesser, bad, later), Err(Outcome::Limited));
        assert_eq!(gate.admit(guesser, good, later + REGAIN), Ok(()));
    }

    #[test]
    fn a_user_of_the_host_does_not_keep_the_others_out() {
        let now = Instant::now();
        for from in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let (gate, from) = (gate(), from.parse().unwrap());
            for _ in 0..ATTEMPTS {
                let refused = gate.admit(from, Some(b"Bearer wrong"), now);
                assert_eq!(refused, Err(Outcome::WrongToken));
            }
            let refused = gate.admit(from, Some(b"Bearer wrong"), now);
            assert_eq!(refused, Err(Outcome::Limited));
            let admitted = gate.admit(from, Some(b"Bearer 0123456789abcdef"), now);
            assert_eq!(admitted, Ok(()));
        }
    }

    #[test]
    fn the_memory_of_sources_is_bounded_and_keeps_the_worst() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let worst = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..=ATTEMPTS {
            failures.note(worst, now);
        }
        for n in 0..3_000_u32 {
            failures.note(IpAddr::from(n.to_be_bytes()), now);
            assert!(failures.0.len() <= MAX_SOURCES);
        }
        assert!(failures.is_limited(worst, now));
    }

    #[test]
    fn a_file_of_a_token_is_private_and_long_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Token::read(&path).map_err(|error| error.to_string())
        };
        let token = read("0123456789abcdef\r\nanother line\n", 0o600);
        assert!(token.is_ok_and(|token| token.is(TOKEN)));
        assert!(read("0123456789abcdef", 0o640).is_ok());
        for mode in [0o644, 0o602, 0o777] {
            let error = read("0123456789abcdef\n", mode).err().unwrap();
            assert!(error.contains("other users can use it"), "{error}");
        }
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for other in [&fifo, directory.path()] {
            let error = Token::read(other).err().unwrap().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        for text in [
            "",
            "\n0123456789abcdef",
            "0123456789abcde\n",
            "  0123456789abcde  \n",
        ] {
            let error = read(text, 0o600).err().unwrap();
            assert!(error.contains("16 or more are needed"), "{text:?}: {error}");
        }
    }
}
