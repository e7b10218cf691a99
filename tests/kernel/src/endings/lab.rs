//! The path between the two stacks: the engine or a bypass, its clock, and a record of its actions.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portcullis::event::{MAX_REPLY, write_reply_unbudgeted};
use portcullis::{
    Config, DropReason, EndReason, Engine, Packet, Reset, SessionRecord, Sink, Tracked, Verdict,
    Zone,
};

use super::stacks::{self, Family, PATIENCE, PORT, Stacks, Transfer, Watch};
use super::wire::{End, View, shift};
use crate::namespace::{Interrupt, Tun, wait};
use crate::segment::{ACK, RST, SYN, Segment};

/// Time without packets after which the stacks are regarded as idle.
const QUIET: Duration = Duration::from_millis(20);

/// Bytes in each direction of a transfer that must succeed.
pub const MEGABYTE: usize = 1 << 20;

/// The route of one end's packets to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the engine, in a zone.
    Through(Zone),
    /// Around the engine.
    Around,
}

/// Through the engine's default zone.
pub const THROUGH: Way = Way::Through(Zone::DEFAULT);

/// Fate of a RST of the engine on the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The RST arrives.
    Arrives,
    /// The RST is lost.
    Lost,
    /// The RST arrives with its sequence number raised by this number.
    Raised(u32),
}

/// A RST that the engine created.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Receiver of the RST.
    pub to: End,
    /// Time of the RST by the real clock.
    pub at: Instant,
    /// Fields of the RST, in the engine's numbers.
    pub view: View,
}

/// A packet that the engine did not forward.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Sender of the packet.
    pub from: End,
    /// Reason for the drop.
    pub reason: DropReason,
    /// Classification of the packet by the engine.
    pub tracked: Tracked,
    /// Whether the packet was answered.
    pub answered: bool,
}

/// Events since the scene began.
#[derive(Debug, Default)]
pub struct Diary {
    /// RSTs at the end of sessions.
    pub resets: Vec<Sent>,
    /// RSTs that answer a packet.
    pub answers: Vec<Sent>,
    /// Packets that were not forwarded.
    pub refused: Vec<Refused>,
    /// Number of forwarded packets.
    pub forwarded: usize,
    /// Sessions that began.
    pub opened: Vec<SessionRecord>,
    /// Sessions that ended, and the reasons.
    pub ended: Vec<(SessionRecord, EndReason)>,
    /// The largest window that each end has offered, in bytes.
    pub windows: [u32; 2],
    /// Whether the sequence numbers of each end have wrapped in the engine's view.
    pub wrapped: [bool; 2],
    last_windows: [u16; 2],
    scales: [Option<u8>; 2],
    sent: [Option<u32>; 2],
    acknowledged: [Option<u32>; 2],
}

impl Diary {
    /// Packets that were not forwarded for a reason.
    #[must_use]
    pub fn refused_for(&self, reason: DropReason) -> usize {
        self.refused
            .iter()
            .filter(|each| each.reason == reason)
            .count()
    }

    /// The window that an end has offered last, as on the wire.
    #[must_use]
    pub const fn last_window(&self, end: End) -> u16 {
        *end.of(&self.last_windows)
    }

    /// The sequence number that an end sends next, and the one that it expects, in the engine's
    /// view.
    #[must_use]
    pub const fn next_numbers(&self, end: End) -> Option<(u32, u32)> {
        match (*end.of(&self.sent), *end.other().of(&self.acknowledged)) {
            (Some(sent), Some(expected)) => Some((sent, expected)),
            _ => None,
        }
    }

    fn note(&mut self, from: End, view: &View) {
        *from.of_mut(&mut self.last_windows) = view.window;
        if view.has(SYN) {
            *from.of_mut(&mut self.scales) = view.scale;
        } else {
            let scaled = self.scales.iter().all(Option::is_some);
            let scale = from.of(&self.scales).filter(|_| scaled).unwrap_or(0);
            let largest = from.of_mut(&mut self.windows);
            *largest = (*largest).max(u32::from(view.window) << scale);
        }
        let sent = from.of_mut(&mut self.sent);
        let newer = sent.is_none_or(|sent| crate::segment::before(sent, view.end()));
        if newer {
            if sent.is_some_and(|sent| sent > view.end()) {
                *from.of_mut(&mut self.wrapped) = true;
            }
            *from.of_mut(&mut self.sent) = Some(view.end());
        }
        if view.has(ACK) {
            *from.other().of_mut(&mut self.acknowledged) = Some(view.ack);
        }
    }
}

#[derive(Default)]
struct Events {
    resets: Vec<Reset>,
    opened: Vec<SessionRecord>,
    ended: Vec<(SessionRecord, EndReason)>,
}

impl Sink for Events {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.opened.push(*session);
    }

    fn session_ended(&mut self, session: &SessionRecord, reason: EndReason) {
        self.ended.push((*session, reason));
    }

    fn reset(&mut self, reset: &Reset) {
        self.resets.push(*reset);
    }
}

/// A connection between the two stacks.
pub struct Connection {
    /// The client's socket.
    pub client: TcpStream,
    /// The server's socket.
    pub server: TcpStream,
    /// The client's port.
    pub port: u16,
}

impl Connection {
    /// The socket of an end.
    #[must_use]
    pub const fn socket(&self, end: End) -> &TcpStream {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }
}

/// Two stacks with the engine between them. One connection at a time passes the engine; remaining
/// packets of earlier ones bypass it.
pub struct Lab {
    /// The stacks.
    pub stacks: Stacks,
    devices: [Tun; 2],
    interrupt: Interrupt,
    /// The engine.
    pub engine: Engine,
    /// Time by which the engine's clock is ahead of the real one.
    ahead: Duration,
    /// The routes of the client's and the server's packets.
    pub ways: [Way; 2],
    /// Fate of the RSTs at the end of sessions.
    pub resets: Fate,
    /// Fate of the RSTs that answer a packet.
    pub answers: Fate,
    /// Whether an end's packets are lost before the engine.
    pub lost_before: [bool; 2],
    /// Whether packets that the engine forwards to an end are lost after it.
    pub lost_behind: [bool; 2],
    /// The sequence numbers of the two ends' SYNs in the engine's view; `None` for those of the
    /// stacks.
    pub first_numbers: Option<[u32; 2]>,
    offsets: [u32; 2],
    port: u16,
    last_packet: Instant,
    buffer: Vec<u8>,
    /// Events since the scene began.
    pub diary: Diary,
}

impl Lab {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// Returns an error without root or TUN, or if the names are taken.
    pub fn new(name: &str, interrupt: Interrupt) -> Result<Self> {
        let (stacks, devices) = Stacks::start(name)?;
        Ok(Self {
            stacks,
            devices,
            interrupt,
            engine: Engine::new(&Config::allow_all())?,
            ahead: Duration::ZERO,
            ways: [THROUGH; 2],
            resets: Fate::Arrives,
            answers: Fate::Arrives,
            lost_before: [false; 2],
            lost_behind: [false; 2],
            first_numbers: None,
            offsets: [0; 2],
            port: 0,
            last_packet: Instant::now(),
            buffer: vec![0; 70_000],
            diary: Diary::default(),
        })
    }

    /// Begins a scene: a new engine with a configuration, and everything else as at the start.
    ///
    /// # Errors
    /// Returns an error if the engine rejects its configuration.
    pub fn begin(&mut self, config: &str) -> Result<()> {
        self.engine = Engine::new(&settings(config)?)?;
        self.ahead = Duration::ZERO;
        self.ways = [THROUGH; 2];
        (self.resets, self.answers) = (Fate::Arrives, Fate::Arrives);
        (self.lost_before, self.lost_behind) = ([false; 2], [false; 2]);
        self.first_numbers = None;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.port = 0;
        self.offsets = [0; 2];
        self.diary = Diary::default();
    }

    /// The engine's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Moves packets until a condition holds.
    ///
    /// # Errors
    /// Returns an error if the condition does not hold in time, the engine forwards a packet that
    /// it should drop, or a device fails.
    pub fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.interrupt.check()?;
            let moved = self.step()?;
            if holds(self)? {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE + Duration::from_secs(1),
                "waited in vain for {what}; {}",
                self.summary()
            );
            if !moved {
                let [left, right] = &self.devices;
                wait([left, right], 1000)?;
            }
        }
    }

    /// Moves packets for a while.
    ///
    /// # Errors
    /// Returns the errors of [`Lab::until`].
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.until("time", |_| Ok(Instant::now() >= end))
    }

    /// Moves packets until each end has acknowledged all data of the other, and no more packets
    /// arrive.
    ///
    /// # Errors
    /// Returns the errors of [`Lab::until`].
    pub fn settle(&mut self) -> Result<()> {
        self.until("silence", |lab| {
            let diary = &lab.diary;
            Ok(lab.last_packet.elapsed() > QUIET && diary.sent == diary.acknowledged)
        })
    }

    fn summary(&self) -> String {
        let mut reasons: Vec<_> = self
            .diary
            .refused
            .iter()
            .map(|each| each.reason.name())
            .collect();
        reasons.dedup();
        format!(
            "{} packets forwarded, {} not ({reasons:?}), {} RSTs at the end, {} answers",
            self.diary.forwarded,
            self.diary.refused.len(),
            self.diary.resets.len(),
            self.diary.answers.len()
        )
    }

    fn step(&mut self) -> Result<bool> {
        let mut moved = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        for from in End::BOTH {
            for _ in 0..64 {
                let Some(packet) = from.of(&self.devices).receive(&mut buffer)? else {
                    break;
                };
                let packet = packet.to_vec();
                self.relay(from, packet)?;
                moved = true;
            }
        }
        self.buffer = buffer;
        Ok(moved)
    }

    /// A packet of one of the stacks.
    fn relay(&mut self, from: End, packet: Vec<u8>) -> Result<()> {
        let Some(view) = View::of(&packet) else {
            // Multicast listener discovery.
            return Ok(());
        };
        let port = match from {
            End::Client => view.from,
            End::Server => view.to,
        };
        if port != self.port {
            return self.deliver(from.other(), &packet);
        }
        self.last_packet = Instant::now();
        if *from.of(&self.lost_before) {
            return Ok(());
        }
        if view.has(SYN)
            && let Some(first) = &self.first_numbers
        {
            *from.of_mut(&mut self.offsets) = from.of(first).wrapping_sub(view.seq);
        }
        let mut seen = packet.clone();
        shift(
            &mut seen,
            *from.of(&self.offsets),
            *from.other().of(&self.offsets),
        )?;
        if let Some(view) = View::of(&seen) {
            self.diary.note(from, &view);
        }
        match *from.of(&self.ways) {
            Way::Around => self.deliver(from.other(), &packet),
            Way::Through(zone) => {
                if self.decide(from, zone, &seen)?.is_forward()
                    && !*from.other().of(&self.lost_behind)
                {
                    self.deliver(from.other(), &packet)?;
                }
                Ok(())
            }
        }
    }

    /// Passes a packet to the engine, in the engine's numbers, and sends the answers back.
    fn decide(&mut self, from: End, zone: Zone, packet: &[u8]) -> Result<Verdict> {
        let mut events = Events::default();
        let input = Packet::new(packet, self.now()).zone(zone);
        let verdict = self.engine.process_with(input, &mut events);
        self.take(events)?;
        let refused = |reason, tracked, answered| Refused {
            from,
            reason,
            tracked,
            answered,
        };
        match verdict {
            Verdict::Forward(_) => self.diary.forwarded += 1,
            Verdict::Drop(reason, tracked) => {
                self.diary.refused.push(refused(reason, tracked, false))
            }
            Verdict::Reject(reason, reply, tracked) => {
                self.diary.refused.push(refused(reason, tracked, true));
                let mut out = [0; MAX_REPLY];
                let answer = write_reply_unbudgeted(reply, packet, &mut out)
                    .context("a reply that cannot be made")?;
                let sent = self.send_own(from, answer, self.answers)?;
                self.diary.answers.push(sent);
            }
            _ => {}
        }
        Ok(verdict)
    }

    /// Passes the engine a packet that no stack has sent, in the engine's own numbers. The packet
    /// is not delivered.
    ///
    /// # Errors
    /// Returns an error if the engine's answer cannot be delivered.
    pub fn forge(&mut self, from: End, packet: &[u8]) -> Result<Verdict> {
        match *from.of(&self.ways) {
            Way::Through(zone) => self.decide(from, zone, packet),
            Way::Around => anyhow::bail!("a forged packet must pass the engine"),
        }
    }

    /// Passes the engine a packet that no stack has sent, in the stacks' numbers, and delivers it
    /// if it is forwarded.
    ///
    /// # Errors
    /// Returns an error if the packet or the engine's answer cannot be delivered.
    pub fn forge_and_deliver(&mut self, from: End, packet: &[u8]) -> Result<()> {
        ensure!(
            self.offsets == [0; 2],
            "the engine sees other numbers than the stacks"
        );
        if self.forge(from, packet)?.is_forward() {
            self.deliver(from.other(), packet)?;
        }
        Ok(())
    }

    fn take(&mut self, events: Events) -> Result<()> {
        self.diary.opened.extend(events.opened);
        self.diary.ended.extend(events.ended);
        for reset in &events.resets {
            let view = View::of(reset.bytes()).context("a RST that is no TCP")?;
            let to = if view.from == PORT {
                End::Client
            } else {
                End::Server
            };
            let sent = self.send_own(to, reset.bytes(), self.resets)?;
            self.diary.resets.push(sent);
        }
        Ok(())
    }

    /// Sends an end a RST of the engine's.
    fn send_own(&mut self, to: End, packet: &[u8], fate: Fate) -> Result<Sent> {
        let view = View::of(packet).context("no TCP")?;
        ensure!(view.has(RST), "an answer that is no RST: {view:?}");
        let by = match fate {
            Fate::Raised(by) => by,
            _ => 0,
        };
        if fate != Fate::Lost {
            let (from, own) = (to.other().of(&self.offsets), to.of(&self.offsets));
            let mut packet = packet.to_vec();
            shift(&mut packet, by.wrapping_sub(*from), 0u32.wrapping_sub(*own))?;
            self.deliver(to, &packet)?;
        }
        Ok(Sent {
            to,
            at: Instant::now(),
            view,
        })
    }

    fn deliver(&self, to: End, packet: &[u8]) -> Result<()> {
        to.of(&self.devices).send(packet)
    }

    /// Advances the engine's time in one step, and ends the sessions that expire.
    ///
    /// # Errors
    /// Returns an error if the engine's RSTs cannot be delivered.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        self.ahead += time;
        let mut events = Events::default();
        let _ = self.engine.expire_with(self.now(), 1000, &mut events);
        self.take(events)
    }

    /// Advances the engine's time without a call that would end sessions.
    pub fn skip(&mut self, time: Duration) {
        self.ahead += time;
    }

    /// Reloads the engine's configuration.
    ///
    /// # Errors
    /// Returns an error if the engine rejects the configuration.
    pub fn reload(&mut self, config: &str) -> Result<portcullis::Reload> {
        let mut events = Events::default();
        let done = self
            .engine
            .reload(&settings(config)?, self.now(), &mut events)?;
        self.take(events)?;
        Ok(done)
    }

    /// Returns a client that connects to the server.
    ///
    /// # Errors
    /// Returns an error if no socket can be created.
    pub fn call(&mut self, family: Family) -> Result<TcpStream> {
        self.forget();
        self.port = self.stacks.new_port();
        self.stacks.call(family, self.port)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Returns an error if the connection is not established.
    pub fn connect(&mut self, family: Family) -> Result<Connection> {
        let client = self.call(family)?;
        let (mut server, port) = (None, self.port);
        self.until("a connection", |lab| {
            let accepted = lab.stacks.accept(family)?;
            if accepted
                .as_ref()
                .and_then(|stream| stream.peer_addr().ok())
                .is_some_and(|peer| peer.port() == port)
            {
                server = accepted;
            }
            Ok(server.is_some() && stacks::is_connected(&client)?)
        })?;
        let server = server.context("no connection")?;
        stacks::prepare(&client)?;
        stacks::prepare(&server)?;
        Ok(Connection {
            client,
            server,
            port,
        })
    }

    /// Sends data from one end to the other, which reads them.
    ///
    /// # Errors
    /// Returns an error if not all data arrive.
    pub fn transfer(&mut self, connection: &Connection, from: End, bytes: usize) -> Result<()> {
        let (source, sink) = (connection.socket(from), connection.socket(from.other()));
        let transfer = Transfer::start(source, sink, bytes, u64::from(connection.port))?;
        self.until("a transfer", |_| Ok(transfer.is_over()))?;
        transfer
            .join()
            .with_context(|| format!("{bytes} bytes from the {from:?}; {}", self.summary()))
    }

    /// Both ends send and read, one after the other.
    ///
    /// # Errors
    /// Returns an error if not all data arrive.
    pub fn exchange(&mut self, connection: &Connection, bytes: usize) -> Result<()> {
        for from in End::BOTH {
            self.transfer(connection, from, bytes)?;
        }
        Ok(())
    }

    /// Waits for the end of a connection at one end.
    ///
    /// # Errors
    /// Returns an error if the end does not occur.
    pub fn see_end(&mut self, watch: Watch) -> Result<stacks::Ended> {
        self.until("the end of a connection", |_| Ok(watch.is_over()))?;
        watch
            .join()
            .with_context(|| format!("no end of the connection; {}", self.summary()))
    }

    /// Closes the rest of a connection around the engine.
    ///
    /// # Errors
    /// Returns an error if a device fails.
    pub fn close(&mut self, connection: Connection) -> Result<()> {
        let Connection { client, server, .. } = connection;
        self.port = 0;
        stacks::abort(client);
        self.run_for(Duration::from_millis(2))?;
        stacks::abort(server);
        self.run_for(Duration::from_millis(2))
    }

    /// Closes a client's socket that the server has not accepted, around the engine. A server that
    /// waits for the end of the handshake receives a RST, so that its SYN-ACKs do not reach a later
    /// scene.
    ///
    /// # Errors
    /// Returns an error if a device fails.
    pub fn hang_up(&mut self, family: Family, client: TcpStream) -> Result<()> {
        let (port, next) = (self.port, self.diary.sent);
        self.port = 0;
        stacks::abort(client);
        self.run_for(Duration::from_millis(2))?;
        if let [Some(seq), _] = next {
            let reset = Segment {
                seq: seq.wrapping_sub(*End::Client.of(&self.offsets)),
                flags: RST,
                ..Segment::default()
            };
            let address = |end, port| SocketAddr::new(family.address(end), port);
            let packet = reset.packet(address(End::Client, port), address(End::Server, PORT))?;
            self.deliver(End::Server, &packet)?;
        }
        let gone = |lab: &mut Self| Ok(!lab.stacks.has_socket(End::Server, port)?);
        self.until("the server to hang up", gone)
    }
}

/// Returns a configuration for hosts that differ in their last bits.
///
/// # Errors
/// Returns a description of the fault.
pub fn settings(text: &str) -> Result<Config> {
    let mut config = Config::from_toml(text, "scene")?;
    config.engine.checksums = portcullis::packet::Checksums::Verify;
    config.table.max_sessions = 1 << 10;
    config.tombstones.max = 1 << 10;
    (config.asymmetry.prefix_v4, config.asymmetry.prefix_v6) = (32, 128);
    Ok(config)
}
