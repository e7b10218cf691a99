//! Many threads on a few flows during concurrent operations of every kind: nothing blocks, and
//! every opened session is live or was reported as ended, once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, tcp, udp};
use crate::support::scene::config;
use portcullis::{
    Config, Discard, EndReason, Engine, Packet, RestoreOptions, SessionFilter, SessionId,
    SessionRecord, Sink, Zone,
};

/// Time for which all threads run.
const BUSY: Duration = Duration::from_secs(3);
/// A thread that does not complete a step in this time is considered blocked.
const STUCK: Duration = Duration::from_secs(120);

/// A table that is always full, even after sessions have ended.
const TABLE: &str = "[table]\nmax_sessions = 48\nshards = 2\n[tombstones]\nmax = 16\n\
                     [tcp]\nmode = \"liberal\"\n[lifetimes]\nudp.unreplied = \"2s\"\n\
                     udp.replied = \"3s\"\n";

/// Configurations of successive reloads, which differ in zones, limits, lifetimes and policy.
fn configs() -> Vec<Config> {
    let open = format!("{TABLE}[policy]\ndefault = \"allow\"\n");
    let zones = format!("{open}[limits]\nmax_per_source = 20\n[zones]\nblue = 1\ngreen = 2\n");
    let shut = format!(
        "{TABLE}tcp.established = \"4s\"\n[policy]\ndefault = \"allow\"\non_reload = \"end\"\n\
         [[policy.rule]]\nname = \"shut\"\naction = \"deny\"\nprotocol = \"udp\"\n\
         destination_ports = [\"1000-1015\"]\n"
    );
    let keep = shut
        .replace("\"end\"", "\"keep\"")
        .replace("1000-1015", "1010-1030");
    [open, zones, shut, keep].map(|toml| config(&toml)).into()
}

/// Events that one thread received.
#[derive(Default)]
struct Told {
    opened: Vec<SessionId>,
    ended: Vec<SessionId>,
    restored: usize,
}

impl Sink for Told {
    fn session_opened(&mut self, session: &SessionRecord) {
        self.opened.push(session.id);
    }

    fn session_ended(&mut self, session: &SessionRecord, _: EndReason) {
        self.ended.push(session.id);
    }
}

/// State shared by all threads.
struct Scene {
    engine: Engine,
    start: Instant,
    /// Milliseconds since the start by the clock of the expiring thread, which is much faster than
    /// real.
    clock: AtomicU64,
    over: AtomicBool,
}

impl Scene {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.clock.load(Ordering::Relaxed))
    }
}

/// One of 120 packets of 40 flows in two zones, in either direction.
fn packet(step: u32) -> (Vec<u8>, Zone) {
    let port = 1_000 + (step >> 8) as u16 % 20;
    let ends = Ends::v4(4_000, port);
    let ends = if step & 1 == 0 { ends } else { ends.back() };
    let flags = [SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST];
    let bytes = match step >> 2 & 7 {
        at @ 0..6 => {
            let flags = flags.get(at as usize).copied().unwrap_or(ACK);
            let flags = if step & 1 == 1 && flags == SYN {
                SYN | ACK
            } else {
                flags
            };
            tcp(
                ends,
                Head {
                    flags,
                    seq: 100,
                    ack: 100,
                    window: 60_000,
                },
                &[],
                b"",
            )
        }
        _ => udp(ends, b"?"),
    };
    (bytes, Zone(1 + (step >> 5) as u16 % 2))
}

/// A thread that performs steps until the end, and their number.
struct Worker {
    name: &'static str,
    steps: Arc<AtomicU64>,
    thread: JoinHandle<Told>,
}

impl Worker {
    fn new(
        name: &'static str,
        scene: &Arc<Scene>,
        step: impl Fn(&Scene, u32, &mut Told) + Send + 'static,
    ) -> Self {
        let (scene, steps) = (Arc::clone(scene), Arc::new(AtomicU64::new(0)));
        let done = Arc::clone(&steps);
        let thread = std::thread::spawn(move || {
            let (mut told, mut random) = (Told::default(), name.len() as u32);
            while !scene.over.load(Ordering::Relaxed) {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                step(&scene, random >> 8, &mut told);
                done.fetch_add(1, Ordering::Relaxed);
            }
            told
        });
        Self {
            name,
            steps,
            thread,
        }
    }
}

fn forward(scene: &Scene, random: u32, told: &mut Told) {
    let (bytes, zone) = packet(random);
    let _ = scene
        .engine
        .process_with(Packet::new(&bytes, scene.now()).zone(zone), told);
}

fn delete(scene: &Scene, random: u32, told: &mut Told) {
    let port = 1_000 + random as u16 % 20;
    let ports = vec![portcullis::policy::PortRange {
        first: port,
        last: port,
    }];
    let filter = SessionFilter {
        ports,
        ..SessionFilter::default()
    };
    scene.engine.end_sessions(&filter, scene.now(), told);
}

fn look(scene: &Scene, configs: &[Config]) {
    let engine = &scene.engine;
    let mut ids = HashSet::new();
    engine.for_each_session(|session| assert!(ids.insert(session.id), "seen twice"));
    for id in ids {
        let found = engine.inspect(id, scene.now());
        assert!(found.is_none_or(|found| found.record.id == id));
    }
    for config in configs {
        let _ = engine.preview(config, scene.now()).unwrap();
    }
    let stats = engine.stats();
    assert!(stats.sessions <= stats.max_sessions, "{stats:?}");
}

fn save_and_restore(scene: &Scene, told: &mut Told) {
    let stream = scene.engine.save(scene.now(), SystemTime::UNIX_EPOCH);
    let (at, options) = (SystemTime::UNIX_EPOCH, RestoreOptions::default());
    let restored = scene.engine.restore(&stream, scene.now(), at, options);
    told.restored += restored.unwrap().sessions;
    let other = Engine::with_seed(&configs().remove(0), [5; 4]).unwrap();
    other.restore(&stream, scene.now(), at, options).unwrap();
    other.check_invariants().unwrap();
}

fn workers(scene: &Arc<Scene>) -> Vec<Worker> {
    let mut workers: Vec<Worker> = ["one", "second", "the third"]
        .map(|name| Worker::new(name, scene, forward))
        .into();
    workers.push(Worker::new("expire", scene, |scene, _, told| {
        scene.clock.fetch_add(5, Ordering::Relaxed);
        scene.engine.expire_with(scene.now(), 16, told);
    }));
    let all = configs();
    workers.push(Worker::new("reload", scene, move |scene, random, told| {
        let new = all.get(random as usize % all.len()).unwrap();
        scene.engine.reload(new, scene.now(), told).unwrap();
    }));
    workers.push(Worker::new("delete", scene, delete));
    let all = configs();
    workers.push(Worker::new("look", scene, move |scene, _, _| {
        look(scene, &all)
    }));
    workers.push(Worker::new("save and restore", scene, |scene, _, told| {
        save_and_restore(scene, told);
    }));
    workers
}

/// Runs all threads for a while. Fails if one of them makes no progress.
fn watch(workers: &[Worker], scene: &Scene) {
    let start = Instant::now();
    let mut last: Vec<(u64, Instant)> = workers.iter().map(|_| (0, start)).collect();
    // All threads have started, even on a busy machine.
    let all_move = |last: &[(u64, Instant)]| last.iter().all(|(steps, _)| *steps > 10);
    while start.elapsed() < BUSY || !all_move(&last) {
        std::thread::sleep(Duration::from_millis(20));
        for (worker, (steps, since)) in workers.iter().zip(&mut last) {
            let now = worker.steps.load(Ordering::Relaxed);
            if now != *steps {
                (*steps, *since) = (now, Instant::now());
            }
            assert!(!worker.thread.is_finished(), "{} has failed", worker.name);
            assert!(
                since.elapsed() < STUCK,
                "{} is stuck after {now} steps",
                worker.name
            );
        }
    }
    scene.over.store(true, Ordering::Relaxed);
    let end = Instant::now();
    for worker in workers {
        while !worker.thread.is_finished() {
            assert!(end.elapsed() < STUCK, "{} does not end", worker.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn all_at_once_on_the_same_flows_stops_nothing_and_loses_nobody() {
    let first = configs().remove(0);
    let scene = Arc::new(Scene {
        engine: Engine::with_seed(&first, [1, 2, 3, 4]).unwrap(),
        start: Instant::now(),
        clock: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let workers = workers(&scene);
    watch(&workers, &scene);
    let (mut opened, mut ended, mut restored) = (HashSet::new(), HashSet::new(), 0);
    for worker in workers {
        let told = worker.thread.join().unwrap();
        restored += told.restored as u64;
        for id in told.opened {
            assert!(opened.insert(id), "{id:?} is opened twice");
        }
        for id in told.ended {
            assert!(ended.insert(id), "{id:?} ends twice");
        }
    }
    let engine = &scene.engine;
    engine.check_invariants().unwrap();
    let stats = engine.stats();
    let mut live = HashSet::new();
    engine.for_each_session(|session| assert!(live.insert(session.id)));
    assert!(live.is_disjoint(&ended), "one that has ended is live");
    let counted: u64 = stats.sessions_ended.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, ended.len() as u64, "ended, and told");
    assert_eq!(
        stats.sessions_opened,
        opened.len() as u64 + restored,
        "opened, and told"
    );
    assert_eq!(stats.sessions_opened, counted + live.len() as u64);
    assert_eq!(live.len(), stats.sessions);
    // Sessions that ended without having been reported as opened were restored.
    let untold = live.union(&ended).filter(|id| !opened.contains(id)).count();
    assert_eq!(untold as u64, restored);
    for reason in [
        EndReason::Revoked,
        EndReason::Deleted,
        EndReason::Timeout,
        EndReason::Evicted,
    ] {
        assert!(
            stats
                .sessions_ended
                .iter()
                .any(|(each, count)| *each == reason && *count > 0),
            "{stats:?}"
        );
    }
    assert!(restored > 0);
    // No trace of a reload is left, and no slot is lost.
    engine.reload(&first, scene.now(), &mut Discard).unwrap();
    engine.end_sessions(&SessionFilter::default(), scene.now(), &mut Discard);
    while engine
        .expire_with(
            scene.now() + Duration::from_secs(1_000_000),
            1_000,
            &mut Discard,
        )
        .more
    {}
    assert_eq!(engine.sessions(), 0);
    engine.check_invariants().unwrap();
}
