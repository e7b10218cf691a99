//! The transfers, and the conditions that hold during them.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path as File, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::clients::{Client, Mode, Task, Way};
use super::path::{Opened, Path};
use super::probe::{Answer, probe, probe_open};
use super::servers::{Server, Site};
use super::{CLIENT, CLIENT_NEIGHBOR, SERVER_NEIGHBOR, address};
use crate::namespace::{Interrupt, Namespace};

/// Maximum run time of a program.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ports that nothing opens. Both ends listen on some of them; see [`listen`].
const SHUT: [u16; 8] = [20, 22, 80, 990, 2121, 5000, 8080, 20_000];

/// Ports of listeners that must not be reached.
const LISTENING: [u16; 3] = [22, 5000, 20_000];

/// Bytes of the large file.
const LARGE: usize = 100 << 20;

/// The name of each of the four components of a path, and of the folders in it.
const LONG_NAME: &str = "a-part-of-a-long-name-with-40-characters";

/// A folder whose path has 967 bytes.
fn long_folder() -> String {
    vec![LONG_NAME.repeat(4); 6].join("/")
}

/// Transfers succeeded, but the engine observed other sessions than the announced ones.
#[derive(Debug)]
struct NotAsAgreed(String);

impl std::fmt::Display for NotAsAgreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAsAgreed {}

/// Number of combinations that worked, and the names of those that also fail without the engine.
#[derive(Debug, Default)]
pub struct Ways {
    /// Number of combinations that worked.
    pub worked: usize,
    /// Combinations that also fail without the engine.
    pub impossible: Vec<String>,
}

/// The whole scene.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The engine.
    pub path: &'a Path,
    /// Namespace of the clients.
    pub clients: &'a Namespace,
    /// Namespace of the servers.
    pub servers: &'a Namespace,
    /// Files that the servers serve.
    pub site: &'a Site,
    /// The clients' own folder.
    pub folder: &'a File,
    /// Folder to which control conversations are written.
    pub record: Option<&'a File>,
    /// Signal that ends the run.
    pub interrupt: &'a Interrupt,
}

/// Listens at every address of a namespace on the ports of `LISTENING`.
///
/// # Errors
/// Returns an error if a port is taken.
pub fn listen(namespace: &Namespace) -> Result<Vec<TcpListener>> {
    namespace.inside(|| {
        let listen =
            |port| TcpListener::bind(("::", port)).with_context(|| format!("listen on {port}"));
        LISTENING.into_iter().map(listen).collect()
    })
}

fn random_file(file: &File, bytes: usize, seed: u64) -> Result<()> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut out = fs::File::create(file)?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        dice.fill_bytes(&mut buffer);
        let part = buffer.get(..left.min(buffer.len())).unwrap_or_default();
        out.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

fn same(one: &File, other: &File) -> Result<()> {
    let read = |file: &File| fs::read(file).with_context(|| file.display().to_string());
    let (first, second) = (read(one)?, read(other)?);
    ensure!(!first.is_empty(), "{} is empty", one.display());
    ensure!(
        first == second,
        "{} ({} bytes) and {} ({} bytes) differ",
        one.display(),
        first.len(),
        other.display(),
        second.len()
    );
    Ok(())
}

impl Scene<'_> {
    /// Creates the files that are transferred.
    ///
    /// # Errors
    /// Returns an error if the files cannot be written.
    pub fn prepare(&self, seed: u64) -> Result<()> {
        random_file(&self.site.file("small.bin"), 777_777, seed)?;
        random_file(&self.site.file("large.bin"), LARGE, seed + 1)?;
        random_file(&self.site.file("medium.bin"), 12_000_000, seed + 3)?;
        let deep = self.site.file(&long_folder());
        fs::create_dir_all(&deep)?;
        random_file(&deep.join("deep.bin"), 4444, seed + 4)?;
        random_file(&self.local("mine.bin"), 555_555, seed + 2)
    }

    fn local(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn children(&self) -> usize {
        self.path.seen.lock().children()
    }

    /// Returns the announced sessions that were opened after the first `before` ones.
    fn new_children(&self, before: usize) -> Vec<Opened> {
        let seen = self.path.seen.lock();
        let children = seen.opened.iter().filter(|each| each.parent.is_some());
        children.skip(before).copied().collect()
    }

    /// Uploads, downloads and lists over every combination, and returns their number.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn every_way(&self) -> Result<Ways> {
        let mut ways = Ways::default();
        for way in self.ways() {
            self.through_or_nowhere(&mut ways, way, |label| self.way(way, label))?;
        }
        Ok(ways)
    }

    /// Runs every client with every server in every mode that both support.
    fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for client in Client::ALL {
            for server in self.site.servers() {
                for mode in Mode::ALL {
                    for v6 in [false, true] {
                        if client.can(mode, v6) {
                            ways.push(Way {
                                client,
                                server,
                                v6,
                                mode,
                                tls: false,
                            });
                        }
                    }
                }
            }
        }
        ways
    }

    /// Runs a scene. If the scene fails, the programs must also fail without the engine.
    ///
    /// # Errors
    /// Returns an error if the scene fails only with the engine.
    fn through_or_nowhere(
        &self,
        ways: &mut Ways,
        way: Way,
        scene: impl Fn(&str) -> Result<()>,
    ) -> Result<()> {
        let Err(error) = scene(&way.to_string()) else {
            ways.worked += 1;
            return Ok(());
        };
        self.interrupt.check()?;
        self.path.bypass(true);
        let without = scene(&format!("{way}-direct"));
        self.path.bypass(false);
        // Checks of the engine's sessions fail without the engine; the programs' own results need
        // not.
        if without.is_ok() || without.is_err_and(|error| error.is::<NotAsAgreed>()) {
            return Err(error.context(format!(
                "{way} works without the engine, but not through it"
            )));
        }
        // A misconfigured server must not count as one that lacks a feature.
        ensure!(
            way.server == Server::VsftpdPublic,
            "{way} works neither through the engine nor without it: {error:#}"
        );
        ways.impossible.push(way.to_string());
        Ok(())
    }

    /// Resumes an interrupted download, once for each client, server and IP version.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn resumed(&self) -> Result<Ways> {
        let mut ways = Ways::default();
        for way in self.ways() {
            let passive = if way.v6 { Mode::Epsv } else { Mode::Pasv };
            if way.mode == passive {
                self.through_or_nowhere(&mut ways, way, |label| self.resume(way, label))?;
            }
        }
        Ok(ways)
    }

    fn resume(&self, way: Way, label: &str) -> Result<()> {
        let got = self.local(&format!("{label}-resumed.bin"));
        let whole = fs::read(self.site.file("small.bin"))?;
        fs::write(&got, whole.get(..333_333).context("a part")?)?;
        let task = Task::Resume("small.bin".to_owned(), got.clone());
        let program = way.start(
            &[task],
            self.clients,
            self.folder,
            &format!("{label}-resumed"),
        )?;
        program.finish(PATIENCE, self.interrupt)?;
        same(&self.site.file("small.bin"), &got)
    }

    /// Transfers files in folders whose path is longer than 512 bytes.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn long_paths(&self) -> Result<Ways> {
        let mut ways = Ways::default();
        for way in self.ways() {
            let passive = if way.v6 { Mode::Epsv } else { Mode::Pasv };
            if way.mode == passive && way.client.takes_long_paths() {
                self.through_or_nowhere(&mut ways, way, |label| self.long_path(way, label))?;
            }
        }
        Ok(ways)
    }

    fn long_path(&self, way: Way, label: &str) -> Result<()> {
        let label = format!("{label}-long");
        let file = format!("{}/deep.bin", long_folder());
        let got = self.local(&format!("{label}.bin"));
        let task = Task::Download(file.clone(), got.clone());
        let program = way.start(&[task], self.clients, self.folder, &label)?;
        program.finish(PATIENCE, self.interrupt)?;
        same(&self.site.file(&file), &got)?;
        if way.client == Client::Lftp {
            let tree = self.local(&format!("{label}-tree"));
            let top = LONG_NAME.repeat(4);
            let script = format!("mirror {top} {}; bye", tree.display());
            let log = self.local(&format!("{label}-tree.log"));
            let program = way.start_script(&script, self.clients, log)?;
            program.finish(PATIENCE, self.interrupt)?;
            let below = file
                .strip_prefix(&top)
                .context("a folder")?
                .trim_start_matches('/');
            same(&self.site.file(&file), &tree.join(below))?;
        }
        Ok(())
    }

    /// Uploads, downloads and lists over explicit TLS, with the servers' passive ports allowed.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn over_tls(&self) -> Result<Ways> {
        let mut ways = Ways::default();
        self.path.allow_passive(true)?;
        for way in self.ways() {
            let passive = if way.v6 { Mode::Epsv } else { Mode::Pasv };
            if way.mode == passive && way.client.has_tls() && way.server.has_tls() {
                let way = Way { tls: true, ..way };
                self.through_or_nowhere(&mut ways, way, |label| {
                    self.transfers(way, &format!("{label}-tls"))
                })?;
            }
        }
        self.path.allow_passive(false)?;
        Ok(ways)
    }

    /// Uploads, downloads and lists over one combination. `label` is the prefix of the names of new
    /// files.
    fn transfers(&self, way: Way, label: &str) -> Result<()> {
        let (got, listed) = (
            self.local(&format!("{label}.bin")),
            self.local(&format!("{label}.list")),
        );
        let uploaded = format!("up/{label}.bin");
        let tasks = [
            Task::Upload(self.local("mine.bin"), uploaded.clone()),
            Task::Download("small.bin".to_owned(), got.clone()),
            Task::List(listed.clone()),
        ];
        let program = way.start(&tasks, self.clients, self.folder, label)?;
        program.finish(PATIENCE, self.interrupt)?;
        if way.client.uploads() {
            same(&self.local("mine.bin"), &self.site.file(&uploaded)).context("upload")?;
        }
        same(&self.site.file("small.bin"), &got).context("download")?;
        let listing = fs::read_to_string(&listed).context("listing")?;
        ensure!(listing.contains("small.bin"), "listing: {listing}");
        Ok(())
    }

    /// Transfers over one combination, and checks the engine's sessions.
    fn way(&self, way: Way, label: &str) -> Result<()> {
        let before = self.children();
        self.path.seen.lock().record();
        let transferred = self.transfers(way, label);
        // The conversations with the three vsftpd servers differ only in the ports.
        if !matches!(way.server, Server::VsftpdFromAny) {
            self.keep(label)?;
        }
        transferred?;
        let children = self.new_children(before);
        let tasks = if way.client.uploads() { 3 } else { 2 };
        let waiting = self.path.engine.stats().expectations;
        let seen = if children.len() < tasks {
            Err(format!("{} data sessions", children.len()))
        } else if waiting != 0 {
            Err(format!("{waiting} announcements are left"))
        } else {
            self.as_agreed(way, &children)
        };
        seen.map_err(|fault| NotAsAgreed(fault).into())
    }

    /// The correct end opened the connection, from the correct port, to a port that may be
    /// announced.
    fn as_agreed(&self, way: Way, children: &[Opened]) -> Result<(), String> {
        let (client, server) = (address(CLIENT, way.v6), address(way.server.host(), way.v6));
        for child in children {
            let fits = if way.mode.is_passive() {
                (child.src.ip(), child.dst.ip()) == (client, server)
                    && way.server.passive_ports().contains(&child.dst.port())
            } else {
                (child.src.ip(), child.dst.ip()) == (server, client)
                    && way
                        .server
                        .calls_from()
                        .is_none_or(|port| port == child.src.port())
            };
            if !fits {
                return Err(format!("not as agreed: {child:?}"));
            }
        }
        Ok(())
    }

    /// Writes the recorded control conversations, if requested.
    fn keep(&self, label: &str) -> Result<()> {
        let recorded = self.path.seen.lock().recorded();
        let Some(folder) = self.record else {
            return Ok(());
        };
        for (number, input) in (1..).zip(recorded) {
            fs::write(folder.join(format!("{label}-{number}")), input)?;
        }
        Ok(())
    }

    /// Transfers a large file in each direction, one in passive and one in active mode, and returns
    /// the time of both.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn large(&self) -> Result<Duration> {
        let start = Instant::now();
        let name = "large.bin";
        let got = self.local(name);
        let down = Way {
            client: Client::Curl,
            server: Server::VsftpdFromAny,
            v6: false,
            mode: Mode::Pasv,
            tls: false,
        };
        let up = Way {
            client: Client::Lftp,
            server: Server::VsftpdFrom20,
            v6: true,
            mode: Mode::Eprt,
            tls: false,
        };
        for (way, task) in [
            (down, Task::Download(name.to_owned(), got.clone())),
            (up, Task::Upload(got.clone(), format!("up/{name}"))),
        ] {
            let before = self.children();
            let program = way.start(&[task], self.clients, self.folder, name)?;
            program.finish(PATIENCE, self.interrupt)?;
            let children = self.new_children(before);
            ensure!(!children.is_empty(), "{way}: no data session");
            self.as_agreed(way, &children).map_err(NotAsAgreed)?;
        }
        same(&self.site.file(name), &got)?;
        same(&got, &self.site.file(&format!("up/{name}")))?;
        fs::remove_file(got)?;
        Ok(start.elapsed())
    }

    /// Ten transfers at the same time.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn at_once(&self) -> Result<()> {
        let before = self.children();
        let mut running = Vec::new();
        for number in 0..10_usize {
            let v6 = number % 2 == 1;
            let modes = if v6 {
                [Mode::Epsv, Mode::Eprt, Mode::Epsv, Mode::Eprt]
            } else {
                Mode::ALL
            };
            let mode = *modes.get(number / 2 % 4).context("a mode")?;
            let server = match number {
                // See `servers`.
                8 | 9 if mode.is_passive() => Server::Pyftpdlib,
                _ if number < 5 => Server::VsftpdFrom20,
                _ => Server::VsftpdFromAny,
            };
            let way = Way {
                client: Client::Curl,
                server,
                v6,
                mode,
                tls: false,
            };
            let label = format!("parallel-{number}");
            let got = self.local(&format!("{label}.bin"));
            let task = Task::Download("medium.bin".to_owned(), got.clone());
            let program = way.start_slowly(
                task,
                "3M",
                self.clients,
                self.local(&format!("{label}.log")),
            )?;
            running.push((program, got));
        }
        // More data than the sockets hold, so that all ten data sessions are open at the same time.
        let (mut most, end) = (0, Instant::now() + PATIENCE);
        while most < 10 {
            self.interrupt.check()?;
            most = most.max(self.data_sessions());
            ensure!(Instant::now() < end, "never more than {most} data sessions");
            thread::sleep(Duration::from_millis(2));
        }
        for (program, got) in running {
            program.finish(PATIENCE, self.interrupt)?;
            same(&self.site.file("medium.bin"), &got)?;
        }
        ensure!(
            self.children() == before + 10,
            "more than ten data sessions"
        );
        Ok(())
    }

    /// Announced sessions that are open now.
    fn data_sessions(&self) -> usize {
        let mut count = 0;
        self.path.engine.for_each_session(|session| {
            count += usize::from(session.parent.is_some() && session.state == "ESTABLISHED");
        });
        count
    }

    /// Interrupts transfers: clients that are killed, and one that sends ABOR and continues.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn aborted(&self) -> Result<()> {
        for (mode, v6) in [(Mode::Pasv, false), (Mode::Eprt, true), (Mode::Port, false)] {
            let way = Way {
                client: Client::Curl,
                server: Server::VsftpdFromAny,
                v6,
                mode,
                tls: false,
            };
            let before = self.children();
            let task = Task::Download("large.bin".to_owned(), self.local("cut.bin"));
            let mut program = way.start_slowly(
                task,
                "500k",
                self.clients,
                self.local(&format!("{way}-cut.log")),
            )?;
            let child = self.next_child(before)?;
            thread::sleep(Duration::from_millis(200));
            // The announcement is used up: a second connection from the same end to the same port
            // fails.
            let caller = if mode.is_passive() {
                self.clients
            } else {
                self.servers
            };
            let answers = caller.inside(|| probe(child.src.ip(), &[child.dst]))?;
            ensure!(
                answers == [(child.dst, Answer::Silence)],
                "a second data connection: {answers:?}"
            );
            program.signal(Signal::KILL)?;
            program.wait(PATIENCE, self.interrupt)?;
            let next = Way {
                client: Client::Lftp,
                mode: Mode::Epsv,
                ..way
            };
            self.way(next, &format!("{way}-next"))
                .context("after an aborted transfer")?;
        }
        self.abor()
    }

    /// Aborts a download with ftplib on each server, and reads the one or two replies to ABOR.
    ///
    /// # Errors
    /// Returns a description of the failure.
    pub fn abor_everywhere(&self) -> Result<usize> {
        let mut aborted = 0;
        for server in self.site.servers() {
            let way = Way {
                client: Client::Ftplib,
                server,
                v6: false,
                mode: Mode::Pasv,
                tls: false,
            };
            let log = self.local(&format!("{way}-abort.log"));
            let program = way.start_abort("large.bin", self.clients, log)?;
            program
                .finish(PATIENCE, self.interrupt)
                .with_context(|| format!("abort: {way}"))?;
            self.way(way, &format!("{way}-after-abort"))
                .context("after an aborted transfer")?;
            aborted += 1;
        }
        Ok(aborted)
    }

    /// Aborts a download with lftp, and does another one in the same control session.
    fn abor(&self) -> Result<()> {
        let way = Way {
            client: Client::Lftp,
            server: Server::VsftpdFrom20,
            v6: false,
            mode: Mode::Pasv,
            tls: false,
        };
        let (cut, got) = (self.local("abor.bin"), self.local("after-abor.bin"));
        let script = format!(
            "set net:limit-rate 1M; set cmd:fail-exit no; get large.bin -o {} & sleep 1; kill all; \
             wait all; \
             set net:limit-rate 0; get small.bin -o {}; bye",
            cut.display(),
            got.display()
        );
        let said = || {
            let seen = self.path.seen.lock();
            seen.words
                .get(&("ABOR".to_owned(), false))
                .copied()
                .unwrap_or(0)
        };
        let before = said();
        self.path.seen.lock().record();
        let program = way.start_script(&script, self.clients, self.local("abor.log"))?;
        let written = program.finish(PATIENCE, self.interrupt);
        self.keep("lftp-abor")?;
        written?;
        ensure!(said() > before, "lftp did not say ABOR");
        same(&self.site.file("small.bin"), &got)
    }

    fn next_child(&self, before: usize) -> Result<Opened> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(child) = self.new_children(before).first() {
                return Ok(*child);
            }
            self.interrupt.check()?;
            ensure!(Instant::now() < end, "no data session");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Probes ports that must be closed, repeatedly until `stop`: from hosts that announce nothing
    /// to ports that might be announced, and from participating hosts to other ports. Adds the
    /// number of probes to `tries`.
    ///
    /// # Errors
    /// Returns an error if a port is not closed, or if port 21 is closed, which makes the other
    /// results meaningless.
    pub fn watch(&self, stop: &AtomicBool, tries: &AtomicU64) -> Result<()> {
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            for v6 in [false, true] {
                self.watch_round(round, v6, tries)?;
            }
            round += 1;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn watch_round(&self, round: u16, v6: bool, tries: &AtomicU64) -> Result<()> {
        let at = |host: u8, port: u16| SocketAddr::new(address(host, v6), port);
        let mut announced = Vec::new();
        let mut control = Vec::new();
        let mut others = Vec::new();
        for server in self.site.servers() {
            if server != Server::Pyftpdlib {
                control.push(at(server.host(), 21));
            }
            others.extend(SHUT.map(|port| at(server.host(), port)));
            let first = *server.passive_ports().start();
            announced.extend((0..40).map(|n| at(server.host(), first + (round * 40 + n) % 200)));
        }
        let neighbor = address(CLIENT_NEIGHBOR, v6);
        let exceptions = self.path.exceptions();
        let (from_clients, from_neighbor, open) = self.clients.inside(|| {
            Ok((
                probe(address(CLIENT, v6), &others)?,
                probe(neighbor, &[&announced[..], &others].concat())?,
                probe_open(neighbor, &control)?,
            ))
        })?;
        ensure!(
            open.iter().all(|(_, answer)| *answer == Answer::Open),
            "port 21 does not answer: {open:?}"
        );
        let back = SHUT.map(|port| at(CLIENT, port));
        let dynamic = (0..100).map(|n| at(CLIENT, 32_768 + (round % 250) * 100 + n));
        let from_servers = self.servers.inside(|| {
            let own = self
                .site
                .servers()
                .map(|server| probe(address(server.host(), v6), &back));
            let mut all = own.collect::<Result<Vec<_>>>()?;
            let targets: Vec<_> = back.into_iter().chain(dynamic).collect();
            all.push(probe(address(SERVER_NEIGHBOR, v6), &targets)?);
            Ok(all.concat())
        })?;
        if !self.path.only_port_21_since(exceptions) {
            return Ok(());
        }
        for (target, answer) in [from_clients, from_neighbor, from_servers].concat() {
            tries.fetch_add(1, Ordering::Relaxed);
            ensure!(
                answer == Answer::Silence,
                "{target} is not shut: {answer:?}"
            );
        }
        Ok(())
    }

    /// Repeats every data connection from the end that opened it, and returns their number.
    ///
    /// # Errors
    /// Returns an error if a port is not closed.
    pub fn shut_again(&self) -> Result<usize> {
        let children = self.new_children(0);
        let mut tried = 0;
        let mut sources: Vec<IpAddr> = children.iter().map(|child| child.src.ip()).collect();
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            let of_source = children.iter().filter(|child| child.src.ip() == source);
            let targets: Vec<_> = of_source.map(|child| child.dst).collect();
            let is_client = source == address(CLIENT, source.is_ipv6());
            let namespace = if is_client {
                self.clients
            } else {
                self.servers
            };
            let answers = namespace.inside(|| probe(source, &targets))?;
            tried += answers.len();
            for (target, answer) in answers {
                ensure!(
                    answer == Answer::Silence,
                    "{source} to {target} afterwards: {answer:?}"
                );
            }
        }
        Ok(tried)
    }

    /// Checks the counters of the engine at the end of the run.
    ///
    /// # Errors
    /// Returns the event that is missing or unexpected.
    pub fn seen(&self) -> Result<()> {
        let seen = self.path.seen.lock();
        ensure!(
            seen.wrong.is_empty(),
            "sessions that should not be: {:#?}",
            seen.wrong
        );
        for mode in Mode::ALL {
            for v6 in [false, true] {
                if v6 && !mode.is_extended() {
                    continue;
                }
                let key = (mode.word().to_owned(), v6);
                ensure!(
                    seen.words.contains_key(&key),
                    "nobody said {} over IPv{}",
                    mode.word(),
                    if v6 { 6 } else { 4 }
                );
            }
        }
        // The helpers have found no faults: the programs behave as expected.
        let usual = |event| {
            use portcullis::event::HelperEvent;
            matches!(
                event,
                HelperEvent::ExpectationOpened
                    | HelperEvent::ExpectationWithdrawn
                    | HelperEvent::Tls
                    | HelperEvent::StrayReply
                    | HelperEvent::ForeignAddressIgnored
            )
        };
        let events = self.path.engine.stats().helper_events;
        let unusual: Vec<_> = events
            .iter()
            .filter(|(event, count)| *count > 0 && !usual(*event))
            .collect();
        ensure!(
            unusual.is_empty(),
            "unusual in control sessions: {unusual:?}"
        );
        // All other dropped packets belonged to connections that work.
        let others: Vec<_> = seen
            .dropped
            .iter()
            .filter(|drop| (drop.reason, drop.flags.as_str()) != ("policy_deny", "S"))
            .collect();
        ensure!(others.is_empty(), "packets dropped: {others:#?}");
        Ok(())
    }
}
