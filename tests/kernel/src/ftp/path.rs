//! The engine between the two devices: its decisions, and a record for the checks afterward.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use portcullis::config::RefusedAnnouncement;
use portcullis::packet::{Checksums, Parsed, TcpFlags, Transport, parse};
use portcullis::{Class, Config, EndReason, Engine, Packet, SessionId, SessionRecord, Sink};

use super::CLIENT;
use crate::namespace::{Interrupt, Tun, wait};

/// The only rule, before and after the part with TLS.
const POLICY: &str = "[policy]\ndefault = \"deny\"\n\n[[policy.rule]]\nname = \"ftp\"\n\
                      action = \"allow\"\n\
                      protocol = \"tcp\"\ndestination_ports = 21\n";

/// Additional rule for TLS, whose control sessions no helper can read: the servers' passive ports.
const PASSIVE: &str = "\n[[policy.rule]]\nname = \"passive\"\naction = \"allow\"\n\
                       protocol = \"tcp\"\ndestination_ports = \"42000-47199\"\n";

/// Maximum length of a recorded conversation, in bytes.
const RECORDED: usize = 4096;

/// The relevant facts of an opened session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The initiator.
    pub src: SocketAddr,
    /// The responder.
    pub dst: SocketAddr,
    /// Identifier of the session.
    pub id: SessionId,
    /// The session that announced this one.
    pub parent: Option<SessionId>,
}

/// A packet that was not forwarded: the reason, its ends and its TCP flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The name of the reason.
    pub reason: &'static str,
    /// Sender of the packet.
    pub src: SocketAddr,
    /// Receiver of the packet.
    pub dst: SocketAddr,
    /// TCP flags; empty for other protocols.
    pub flags: String,
}

/// Packets, sessions and events so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Packets that passed.
    pub forwarded: u64,
    /// Sessions in the order in which they were opened.
    pub opened: Vec<Opened>,
    /// Sessions that have ended.
    pub ended: u64,
    /// Packets that were not forwarded.
    pub dropped: Vec<Dropped>,
    /// Sessions without a permission.
    pub wrong: Vec<String>,
    /// The first words of commands that clients sent, by IP version (`true` for 6).
    pub words: BTreeMap<(String, bool), u64>,
    /// Control conversations: see [`Seen::record`].
    recorded: HashMap<(SocketAddr, SocketAddr), Conversation>,
    recording: bool,
    /// Whether the passive ports are allowed.
    passive_allowed: bool,
    /// Both ends of connections that bypassed the engine.
    bypassed: HashSet<(SocketAddr, SocketAddr)>,
}

/// A control conversation in the format of the fuzz target `ftp`.
#[derive(Debug, Default)]
struct Conversation {
    order: usize,
    input: Vec<u8>,
}

impl Seen {
    /// Begins to record the control conversations, until [`Seen::recorded`] takes them.
    pub fn record(&mut self) {
        self.recording = true;
        self.recorded.clear();
    }

    /// Returns the clients' control conversations since [`Seen::record`], as inputs of the fuzz
    /// target `ftp`: a byte of settings (0, or 1 for IPv6), the last byte of the server's address,
    /// and for each segment a byte (1 if the server sent it, 2 if it has a FIN), a byte 0, the
    /// payload's length and the payload.
    pub fn recorded(&mut self) -> Vec<Vec<u8>> {
        self.recording = false;
        let mut all: Vec<_> = self.recorded.drain().map(|(_, each)| each).collect();
        all.sort_by_key(|each| each.order);
        all.into_iter().map(|each| each.input).collect()
    }

    /// Returns the number of dropped packets, by reason and TCP flags.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<(&str, &str), u64> {
        let mut drops = BTreeMap::new();
        for drop in &self.dropped {
            *drops.entry((drop.reason, drop.flags.as_str())).or_default() += 1;
        }
        drops
    }

    /// Returns the number of announced sessions that have been opened.
    #[must_use]
    pub fn children(&self) -> usize {
        self.opened
            .iter()
            .filter(|each| each.parent.is_some())
            .count()
    }

    fn note_control(&mut self, src: SocketAddr, dst: SocketAddr, flags: TcpFlags, payload: &[u8]) {
        let from_server = src.port() == 21;
        if !from_server && dst.port() != 21 {
            return;
        }
        if !from_server {
            // Clients send TELNET commands before ABOR.
            let text = payload.iter().skip_while(|byte| **byte >= 0xf0);
            let word: Vec<u8> = text.copied().take_while(u8::is_ascii_alphabetic).collect();
            if !word.is_empty() {
                let word = String::from_utf8_lossy(&word).into_owned();
                *self.words.entry((word, src.is_ipv6())).or_default() += 1;
            }
        }
        let fin = flags.contains(TcpFlags::FIN);
        if !self.recording || payload.is_empty() && !fin {
            return;
        }
        let order = self.recorded.len();
        let (client, server) = if from_server { (dst, src) } else { (src, dst) };
        if host_of(client) != CLIENT {
            return;
        }
        let conversation = self
            .recorded
            .entry((client, server))
            .or_insert_with(|| Conversation {
                order,
                input: vec![u8::from(server.is_ipv6()), host_of(server)],
            });
        let head = u8::from(from_server);
        let mut parts = payload.chunks(255).peekable();
        if parts.peek().is_none() {
            conversation.input.extend([head | 2, 0, 0]);
        }
        while let Some(part) = parts.next() {
            let fin = if fin && parts.peek().is_none() { 2 } else { 0 };
            if conversation.input.len() + 3 + part.len() > RECORDED {
                return;
            }
            conversation.input.extend([head | fin, 0, part.len() as u8]);
            conversation.input.extend(part);
        }
    }
}

fn host_of(end: SocketAddr) -> u8 {
    match end.ip() {
        IpAddr::V4(address) => address.to_bits() as u8,
        IpAddr::V6(address) => address.to_bits() as u8,
    }
}

impl Sink for Seen {
    fn session_opened(&mut self, session: &SessionRecord) {
        let opened = Opened {
            src: SocketAddr::new(session.src, session.src_port),
            dst: SocketAddr::new(session.dst, session.dst_port),
            id: session.id,
            parent: session.parent,
        };
        let fault = match opened.parent {
            None if session.protocol == 6 && self.passive_allowed && session.dst_port >= 42_000 => {
                None
            }
            None if session.protocol != 6 || session.dst_port != 21 => Some("nothing allows it"),
            None => None,
            Some(parent) => match self.opened.iter().rev().find(|each| each.id == parent) {
                None => Some("its parent was never opened"),
                Some(parent) if parent.parent.is_some() => Some("its parent is no control session"),
                Some(parent) => {
                    let same =
                        (parent.src.ip(), parent.dst.ip()) == (opened.src.ip(), opened.dst.ip());
                    let turned =
                        (parent.dst.ip(), parent.src.ip()) == (opened.src.ip(), opened.dst.ip());
                    (!same && !turned).then_some("its parent is of other hosts")
                }
            },
        };
        let fault = fault.or((session.protocol == 6
            && session.dst_port < 1024
            && session.dst_port != 21)
            .then_some("a low port"));
        if let Some(fault) = fault {
            self.wrong.push(format!("{opened:?}: {fault}"));
        }
        self.opened.push(opened);
    }

    fn session_ended(&mut self, _: &SessionRecord, _: EndReason) {
        self.ended += 1;
    }
}

/// The engine and a record of its events.
#[derive(Debug)]
pub struct Path {
    /// The engine.
    pub engine: Engine,
    /// Record of the path.
    pub seen: Mutex<Seen>,
    refused: RefusedAnnouncement,
    bypass: AtomicBool,
    exceptions: AtomicU64,
    stop: AtomicBool,
}

impl Path {
    /// Creates an engine that allows only port 21.
    ///
    /// # Errors
    /// Returns an error if the engine rejects its configuration.
    pub fn new(refused: RefusedAnnouncement) -> Result<Self> {
        Ok(Self {
            engine: Engine::new(&config(refused, false)?)?,
            seen: Mutex::default(),
            refused,
            bypass: AtomicBool::new(false),
            exceptions: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        })
    }

    /// Allows the servers' passive ports, or stops doing so.
    ///
    /// # Errors
    /// Returns an error if the engine rejects its configuration.
    pub fn allow_passive(&self, allow: bool) -> Result<()> {
        let config = config(self.refused, allow)?;
        self.exceptions.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.seen.lock();
        seen.passive_allowed = allow;
        self.engine.reload(&config, Instant::now(), &mut *seen)?;
        Ok(())
    }

    /// Switches between carrying packets around and through the engine.
    pub fn bypass(&self, bypass: bool) {
        self.exceptions.fetch_add(1, Ordering::SeqCst);
        self.bypass.store(bypass, Ordering::SeqCst);
    }

    /// Returns the number of policy exceptions that began and ended, for
    /// [`Path::only_port_21_since`].
    #[must_use]
    pub fn exceptions(&self) -> u64 {
        self.exceptions.load(Ordering::SeqCst)
    }

    /// Returns whether only port 21 was open since `exceptions` were counted.
    #[must_use]
    pub fn only_port_21_since(&self, exceptions: u64) -> bool {
        let excepted = self.bypass.load(Ordering::SeqCst) || self.seen.lock().passive_allowed;
        !excepted && exceptions == self.exceptions()
    }

    /// Lets [`Path::run`] return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Carries packets between the devices until it is stopped.
    ///
    /// # Errors
    /// Returns an error if a device fails, or the process was requested to end.
    pub fn run(&self, devices: &[Tun; 2], interrupt: &Interrupt) -> Result<()> {
        let [left, right] = devices;
        let mut buffer = vec![0; 70_000];
        let mut expired = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            interrupt.check()?;
            wait([left, right], 5000)?;
            for (from, to) in [(left, right), (right, left)] {
                for _ in 0..64 {
                    let Some(packet) = from.receive(&mut buffer)? else {
                        break;
                    };
                    if self.decide(packet) {
                        to.send(packet)?;
                    }
                }
            }
            if expired.elapsed() > Duration::from_millis(50) {
                expired = Instant::now();
                let _ = self
                    .engine
                    .expire_with(expired, 1000, &mut *self.seen.lock());
            }
        }
        Ok(())
    }

    fn decide(&self, bytes: &[u8]) -> bool {
        let mut seen = self.seen.lock();
        if self.bypass.load(Ordering::SeqCst) {
            if let Ok(parsed) = parse(bytes, Checksums::Trust)
                && let Some((src, dst, ..)) = described(&parsed, bytes)
            {
                seen.bypassed.insert((src, dst));
            }
            return true;
        }
        let opened = seen.opened.len();
        let verdict = self
            .engine
            .process_with(Packet::new(bytes, Instant::now()), &mut *seen);
        let tracked = verdict.tracked();
        let is_child = seen.opened.get(opened).map(|each| each.parent.is_some());
        if is_child.is_some_and(|child| child != (tracked.class == Class::Related)) {
            let fault = format!("{:?}: class {}", seen.opened.last(), tracked.class.name());
            seen.wrong.push(fault);
        }
        let parsed = parse(bytes, Checksums::Trust).ok();
        let described = parsed.as_ref().and_then(|parsed| described(parsed, bytes));
        if verdict.is_forward() {
            seen.forwarded += 1;
            if let Some((src, dst, flags, payload)) = described {
                seen.note_control(src, dst, flags, payload);
            }
            return true;
        }
        let zero = SocketAddr::from(([0, 0, 0, 0], 0));
        let (src, dst, flags, _) = described.unwrap_or((zero, zero, TcpFlags::default(), &[]));
        if seen.bypassed.contains(&(src, dst)) || seen.bypassed.contains(&(dst, src)) {
            // The rest of a connection that bypassed the engine.
            return false;
        }
        seen.dropped.push(Dropped {
            reason: verdict.reason().map_or("?", portcullis::DropReason::name),
            src,
            dst,
            flags: flags.to_string(),
        });
        false
    }

    /// Advances the time until every lifetime has expired.
    ///
    /// # Errors
    /// Returns an error if anything is left, or a count is wrong.
    pub fn outlive(&self) -> Result<()> {
        let now = Instant::now();
        let mut seen = self.seen.lock();
        let announced = now + Duration::from_secs(301);
        while self.engine.expire_with(announced, 1000, &mut *seen).more {}
        let stats = self.engine.stats();
        ensure!(
            stats.expectations == 0,
            "announcements outlive their lifetime"
        );
        let late = now + Duration::from_secs(30 * 86_400);
        while self.engine.expire_with(late, 1000, &mut *seen).more {}
        let stats = self.engine.stats();
        ensure!(
            (stats.sessions, stats.control_sessions, stats.expectations) == (0, 0, 0),
            "sessions, control sessions and announcements left: {}, {}, {}",
            stats.sessions,
            stats.control_sessions,
            stats.expectations
        );
        ensure!(
            seen.ended == seen.opened.len() as u64,
            "sessions ended unsaid"
        );
        self.engine
            .check_invariants()
            .map_err(anyhow::Error::msg)
            .context("the table's invariants")
    }
}

fn config(refused: RefusedAnnouncement, passive: bool) -> Result<Config> {
    let policy = if passive {
        [POLICY, PASSIVE].concat()
    } else {
        POLICY.to_owned()
    };
    let mut config = Config::from_toml(&policy, "kernel-ftp.toml")?;
    config.engine.checksums = Checksums::Verify;
    config.ftp.refused = refused;
    Ok(config)
}

/// Ends, flags and payload of a TCP segment.
fn described<'p>(
    parsed: &Parsed,
    bytes: &'p [u8],
) -> Option<(SocketAddr, SocketAddr, TcpFlags, &'p [u8])> {
    let Transport::Tcp {
        src_port,
        dst_port,
        segment,
        ..
    } = &parsed.transport
    else {
        return None;
    };
    let end = parsed.ip.total_len as usize;
    Some((
        SocketAddr::new(parsed.ip.source(), *src_port),
        SocketAddr::new(parsed.ip.destination(), *dst_port),
        segment.flags,
        bytes.get(end.checked_sub(segment.payload_len as usize)?..end)?,
    ))
}
