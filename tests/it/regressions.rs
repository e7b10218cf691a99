//! Fixed bugs, each as the claim that it broke: announcements over reloads and restarts, tombstones
//! of reused ports, RSTs of partially known sessions, hostile records.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{ACK, Ends, FIN, RST, SYN, tcp_packet};
use crate::support::scene::{Received, Scene, config, segment};
use portcullis::event::{Expectation, SessionEnds};
use portcullis::snapshot::SavedState;
use portcullis::track::tcp::Track;
use portcullis::{
    Direction, Discard, DropReason, EndReason, Engine, Packet, RestoreOptions, Restored,
    SavedSession, SessionRecord, Sink, Unsent, Verdict, Zone,
};

/// Allows only FTP control connections.
const ONLY_21: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\n\
                       action = \"allow\"\nprotocol = \"tcp\"\ndestination_ports = 21\n";

/// Allows FTP control connections of a host that takes no part in any scene.
const NARROW: &str = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\n\
                      action = \"allow\"\nprotocol = \"tcp\"\nsource = \"10.0.0.77\"\n\
                      destination_ports = 21\n";

const CONTROL: Ends = Ends::v4(4000, 21);

/// A data connection from the client's port 41,000 to a port of the server.
fn data(port: u16) -> Ends {
    Ends {
        dst_port: port,
        src_port: 41_000,
        ..CONTROL
    }
}

/// A greeted control connection in a scene.
struct Ftp {
    scene: Scene,
    /// The next sequence numbers of client and server.
    next: [u32; 2],
}

impl Ftp {
    fn new(toml: &str) -> Self {
        let scene = Scene::new(toml);
        scene.handshake(CONTROL);
        let mut ftp = Self {
            scene,
            next: [101, 501],
        };
        ftp.server("220 ready\r\n");
        ftp
    }

    #[track_caller]
    fn client(&mut self, line: &str) {
        self.scene
            .pass(CONTROL, ACK, self.next[0], self.next[1], line.as_bytes());
        self.next[0] += line.len() as u32;
    }

    #[track_caller]
    fn server(&mut self, line: &str) {
        self.scene.pass(
            CONTROL.back(),
            ACK,
            self.next[1],
            self.next[0],
            line.as_bytes(),
        );
        self.next[1] += line.len() as u32;
    }

    /// Announces a port of the server with PASV and 227.
    fn announce(&mut self, port: u16) {
        let [high, low] = port.to_be_bytes();
        self.client("PASV\r\n");
        self.server(&format!("227 Entering (10,0,0,2,{high},{low})\r\n"));
    }

    fn open_data(&mut self, port: u16) {
        self.announce(port);
        self.scene.handshake(data(port));
    }
}

/// An announcement of another appliance.
fn imported(port: u16) -> Expectation {
    let mut ftp = Ftp::new(ONLY_21);
    ftp.announce(port);
    ftp.scene.engine.export_expectations(ftp.scene.now)[0]
}

/// Saves the sessions of a scene and restores them in a new one of the same time and zone.
fn restarted(scene: &Scene, toml: &str) -> (Scene, Restored) {
    let at = SystemTime::UNIX_EPOCH;
    let stream = scene.engine.save(scene.now, at);
    let new = Scene {
        now: scene.now,
        zone: scene.zone,
        ..Scene::new(toml)
    };
    let options = RestoreOptions::default();
    let done = new.engine.restore(&stream, new.now, at, options).unwrap();
    (new, done)
}

/// The only session of a scene, in the form of a save.
fn saved(scene: &Scene) -> SavedSession {
    let mut saved = None;
    scene
        .engine
        .for_each_saved(scene.now, |each| saved = Some(*each));
    saved.unwrap()
}

#[test]
fn a_data_session_announced_elsewhere_outlives_a_reload_of_the_same_configuration() {
    let scene = Scene::new(ONLY_21);
    let imports = [imported(50_000)];
    assert_eq!(scene.engine.import_expectations(&imports, scene.now), 1);
    scene.handshake(data(50_000));
    let (done, _) = scene.reload(ONLY_21);
    assert_eq!(done.revoked, 0, "{done:?}");
}

#[test]
fn a_data_session_announced_elsewhere_outlives_a_restart() {
    let scene = Scene::new(ONLY_21);
    scene
        .engine
        .import_expectations(&[imported(50_000)], scene.now);
    scene.handshake(data(50_000));
    let (_, done) = restarted(&scene, ONLY_21);
    assert_eq!(done.sessions, 1, "{done:?}");
}

/// Opens a session when the first one ends that is not a control session.
struct Intruder<'a> {
    engine: &'a Engine,
    now: Instant,
    syn: Option<Vec<u8>>,
    passed: bool,
}

impl Sink for Intruder<'_> {
    fn session_ended(&mut self, session: &SessionRecord, _: EndReason) {
        if session.dst_port != 21
            && let Some(syn) = self.syn.take()
        {
            self.passed = self
                .engine
                .verdict_only(Packet::new(&syn, self.now))
                .is_forward();
        }
    }
}

#[test]
fn no_child_of_a_revoked_control_session_opens_after_the_reload() {
    const BEFORE: &str = "[table]\nshards = 16\n[policy]\ndefault = \"deny\"\n[[policy.rule]]\n\
                          name = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                          destination_ports = [21, 80]\n";
    const AFTER: &str = "[table]\nshards = 16\n[policy]\ndefault = \"deny\"\n[[policy.rule]]\n\
                         name = \"other\"\naction = \"allow\"\nprotocol = \"udp\"\n";
    let mut survivors = 0;
    for port in 50_000..50_060 {
        let mut ftp = Ftp::new(BEFORE);
        // A session to port 80 ends first, regardless of the positions of the others. The sink then
        // acts as another thread.
        for n in 0..8 {
            ftp.scene.handshake(Ends::v4(6000 + n, 80));
        }
        ftp.announce(port);
        let mut sink = Intruder {
            engine: &ftp.scene.engine,
            now: ftp.scene.now,
            syn: Some(segment(data(port), SYN, 9, 0, b"")),
            passed: false,
        };
        let after = config(AFTER);
        ftp.scene
            .engine
            .reload(&after, ftp.scene.now, &mut sink)
            .unwrap();
        let left = ftp.scene.records();
        let is_left = |port| left.iter().any(|session| session.dst_port == port);
        survivors += usize::from(sink.passed && is_left(port) && !is_left(21));
    }
    assert_eq!(
        survivors, 0,
        "of 60 data sessions are admitted by a policy that is gone, and outlive the reload"
    );
}

#[test]
fn a_preview_names_exactly_the_sessions_that_a_reload_ends() {
    let toml = |s: u32| {
        format!("[table]\nshards = 16\n[lifetimes.tcp]\nestablished = \"{s}s\"\n{ONLY_21}")
    };
    for port in 50_000..50_040 {
        let mut ftp = Ftp::new(&toml(300));
        ftp.open_data(port);
        ftp.scene.wait(60);
        let preview = ftp.scene.engine.preview(&config(&toml(10)), ftp.scene.now);
        let (done, received) = ftp.scene.reload(&toml(10));
        let names = |each: &[(SessionRecord, EndReason)]| -> Vec<_> {
            let mut names: Vec<_> = each.iter().map(|(record, _)| record.dst_port).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            names(&preview.unwrap()),
            names(&received.ended),
            "port {port}: {done:?}"
        );
    }
}

#[test]
fn a_restore_refuses_the_child_of_a_control_session_that_it_refuses() {
    let mut ftp = Ftp::new(ONLY_21);
    ftp.open_data(50_000);
    let (_, restored) = restarted(&ftp.scene, NARROW);
    // A reload refuses both as well.
    let (reloaded, _) = ftp.scene.reload(NARROW);
    assert_eq!(reloaded.revoked, 2);
    assert_eq!(
        (restored.refused, restored.sessions),
        (2, 0),
        "{restored:?}"
    );
}

#[test]
fn a_child_whose_parent_has_ended_survives_a_restore() {
    let mut ftp = Ftp::new(ONLY_21);
    ftp.open_data(50_000);
    // The control connection is reset, busy data continue, and its ports are taken again.
    ftp.scene.pass(CONTROL, RST, ftp.next[0], 0, b"");
    ftp.scene.pass(CONTROL, SYN, 77_000, 0, b"");
    let (_, done) = restarted(&ftp.scene, ONLY_21);
    assert_eq!(done.refused, 0, "{done:?}");
}

#[test]
fn a_record_that_is_its_own_parent_is_refused_or_expires() {
    let scene = Scene::new("");
    scene.handshake(Ends::v4(4000, 80));
    let mut saved = saved(&scene);
    saved.parent = Some(SessionEnds::new(
        Zone::DEFAULT,
        SocketAddr::new(saved.src, saved.src_port),
        SocketAddr::new(saved.dst, saved.dst_port),
    ));
    let mut other = Scene {
        now: scene.now,
        ..Scene::new("")
    };
    let options = RestoreOptions::default();
    let inserted = other
        .engine
        .insert_saved(&saved, scene.now, Duration::ZERO, options);
    if inserted.is_err() {
        return;
    }
    for _ in 0..200 {
        other.wait(10_000);
    }
    assert_eq!(other.engine.sessions(), 0, "it never expires");
}

#[test]
fn a_sink_may_call_the_engine() {
    struct Calls {
        engine: Arc<Engine>,
        now: Instant,
        toml: &'static str,
    }
    impl Sink for Calls {
        fn session_ended(&mut self, _: &SessionRecord, _: EndReason) {
            let _ = self.engine.preview(&config(self.toml), self.now);
        }
    }
    let scene = Scene::new(ONLY_21);
    scene.handshake(CONTROL);
    let (engine, now) = (Arc::new(scene.engine), scene.now);
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut sink = Calls {
            engine: Arc::clone(&engine),
            now,
            toml: NARROW,
        };
        engine.reload(&config(NARROW), now, &mut sink).unwrap();
        tx.send(()).unwrap();
    });
    assert!(
        rx.recv_timeout(Duration::from_secs(3)).is_ok(),
        "reload never returns"
    );
}

#[test]
fn a_tolerated_acknowledgment_is_the_number_of_the_rst() {
    let mut s = Scene::new("[tcp]\nmode = \"liberal\"\n");
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    // 5000 bytes of the responder took another path; the initiator acknowledges them.
    s.pass(ends, ACK, 101, 5501, b"");
    s.pass(ends, ACK, 101, 5501, b"hello");
    let received = s.wait(4000);
    let to_initiator: Vec<_> = received
        .resets
        .iter()
        .filter(|r| r.direction == Direction::Reply)
        .map(|r| tcp_packet(r.bytes()).seq)
        .collect();
    assert_eq!(to_initiator, [5501]);
}

#[test]
fn a_tombstone_does_not_answer_for_a_later_session_of_its_ports() {
    let mut s = Scene::new("");
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    s.wait(400);
    // The same ports again, closed in order.
    s.pass(ends, SYN, 900_000, 0, b"");
    s.pass(ends.back(), SYN | ACK, 800_000, 900_001, b"");
    s.pass(ends, ACK, 900_001, 800_001, b"");
    s.pass(ends, FIN | ACK, 900_001, 800_001, b"");
    s.pass(ends.back(), FIN | ACK, 800_001, 900_002, b"");
    s.pass(ends, ACK, 900_002, 800_002, b"");
    s.wait(150);
    assert_eq!(s.engine.sessions(), 0);
    let v = s.tcp(ends.back(), FIN | ACK, 800_001, 900_002, b"");
    assert_eq!(v.reason(), Some(DropReason::TcpNoSession), "{v:?}");
}

#[test]
fn a_blind_rst_does_not_end_an_adopted_session() {
    for toml in [
        "[tcp]\nmidstream = \"adopt\"\n",
        "[tcp]\nmode = \"liberal\"\nmidstream = \"adopt\"\n",
    ] {
        let s = Scene::new(toml);
        let ends = Ends::v4(4000, 80);
        s.pass(ends, ACK, 1_000_000, 5_000_000, b"");
        // Forged, from either end: half of all numbers are in its window.
        let v = s.tcp(ends, RST, 1_000_000u32.wrapping_sub(1 << 30), 0, b"");
        assert_eq!(s.engine.sessions(), 1, "{toml}: {v:?}");
    }
}

#[test]
fn a_blind_rst_does_not_end_a_session_whose_other_half_takes_another_path() {
    let s = Scene::new("[tcp]\nasymmetric = \"bypass\"\n");
    let ends = Ends::v4(4000, 80);
    s.pass(ends, SYN, 100, 0, b"");
    s.pass(ends, ACK, 101, 501, b"");
    s.pass(ends, ACK, 101, 501, b"data");
    assert_eq!(s.record().state, "ESTABLISHED");
    let v = s.tcp(ends.back(), RST, 501 + (1 << 30), 0, b"");
    assert_eq!(s.engine.sessions(), 1, "{v:?}");
}

#[test]
fn a_session_readmitted_in_a_liberal_zone_stays_liberal() {
    let mut s = Scene::new("[tcp]\nmode = \"liberal\"\nlate = \"readmit\"\n");
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    s.wait(400);
    s.pass(ends, ACK, 101, 501, b"");
    s.pass(ends.back(), ACK, 501, 101, b"");
    s.pass(ends, ACK, 101, 501, b"");
    // A segment far outside the window, which the liberal mode allows.
    s.pass(ends, ACK, 101 + 200_000_000, 501, b"x");
}

#[test]
fn a_reload_to_liberal_holds_for_a_session_that_was_adopted() {
    let s = Scene::new("[tcp]\nmidstream = \"adopt\"\n");
    let ends = Ends::v4(4000, 80);
    s.pass(ends, ACK, 101, 501, b"");
    s.reload("[tcp]\nmode = \"liberal\"\nmidstream = \"adopt\"\n");
    s.pass(ends.back(), ACK, 501, 101, b"");
    s.pass(ends, ACK, 101, 501, b"");
    s.pass(ends, ACK, 101 + 200_000_000, 501, b"x");
}

#[test]
fn a_reload_does_not_end_a_session_before_its_new_lifetime() {
    // Liberal and adopted, first seen from its responder.
    let toml = |s| {
        format!(
            "[lifetimes.tcp]\nestablished = \"{s}s\"\nunacknowledged = \"100s\"\n[tcp]\n\
             mode = \"liberal\"\nmidstream = \"adopt\"\n"
        )
    };
    let s = Scene::new(&toml(3000));
    s.pass(Ends::v4(4000, 80).back(), ACK, 501, 101, b"");
    let (done, received) = s.reload(&toml(1000));
    assert_eq!((done.expired, received.ended.len()), (0, 0), "{done:?}");
}

#[test]
fn invalid_fins_of_both_ends_bring_no_end_nearer() {
    let toml = |s| format!("[lifetimes.tcp]\nestablished = \"{s}s\"\nunacknowledged = \"100s\"\n");
    let s = Scene::new(&toml(3000));
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    let before = s.record();
    for (from, seq, ack) in [(ends, 101, 501), (ends.back(), 501, 101)] {
        let verdict = s.tcp(from, FIN | ACK, seq + 5_000_000, ack, b"");
        assert_eq!(verdict.reason(), Some(DropReason::TcpSeqAboveWindow));
    }
    assert_eq!(s.record(), before);
    let (done, _) = s.reload(&toml(1000));
    assert_eq!(done.expired, 0, "{done:?}");
}

#[test]
fn a_rejection_beyond_the_budget_is_counted() {
    let s = Scene::new("[tcp]\nmidstream = \"reject\"\n[resets]\nper_destination = 1\n");
    let ends = Ends::v4(4000, 80);
    assert!(matches!(s.tcp(ends, ACK, 1, 1, b""), Verdict::Reject(..)));
    assert!(matches!(s.tcp(ends, ACK, 1, 1, b""), Verdict::Drop(..)));
    assert_eq!(s.unsent(Unsent::DestinationBudget), 1);
}

#[test]
fn a_late_fin_passes_or_reports_the_end_of_its_session() {
    let mut s = Scene::new("[tcp]\nlate = \"readmit\"\n");
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    s.wait(400);
    let v = s.tcp(ends, FIN | ACK, 101, 501, b"");
    assert!(v.is_forward() || v.tracked().late.is_some(), "{v:?}");
}

#[test]
fn an_expired_session_found_by_a_packet_gets_one_rst_for_each_end() {
    let mut s = Scene::new("");
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    s.now += Duration::from_secs(400);
    let mut received = Received::default();
    let bytes = segment(ends, ACK, 101, 501, b"x");
    let v = s
        .engine
        .process_with(Packet::new(&bytes, s.now), &mut received);
    let to_client = received
        .resets
        .iter()
        .filter(|r| r.direction == Direction::Reply)
        .count()
        + usize::from(matches!(v, Verdict::Reject(..)));
    assert_eq!(to_client, 1);
}

#[test]
fn a_restored_session_of_a_zone_that_is_in_a_group_now_is_found() {
    let zones = "[zones]\na = 1\nb = 2\n";
    let s = Scene {
        zone: Zone(2),
        ..Scene::new(zones)
    };
    let ends = Ends::v4(4000, 80);
    s.handshake(ends);
    let groups = format!("{zones}[zone_groups]\nboth = [\"a\", \"b\"]\n");
    let (other, done) = restarted(&s, &groups);
    assert_eq!(done.sessions, 1);
    other.pass(ends, ACK, 101, 501, b"x");
}

/// A generator of hostile numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Overwrites everything in a record except its ends.
    fn record(&mut self, mut record: SavedSession) -> SavedSession {
        record.flags = self.next() as u8;
        record.marks = self.next() as u8;
        record.history = self.next();
        record.age_us = self.next();
        record.idle_us = self.next();
        record.left_us = match self.next() % 2 {
            0 => self.next(),
            _ => self.next() % 400_000_000,
        };
        record.rule = self.next() as u16;
        record.packets = [self.next() as u32; 2];
        record.bytes = [self.next(); 2];
        if let (SavedState::Tcp(_), Some(track)) = (&record.state, self.track()) {
            record.state = SavedState::Tcp(track);
        }
        record
    }

    /// A track, through its serialized form.
    fn track(&mut self) -> Option<Track> {
        let mut bytes = Vec::new();
        for mask in [[0xffff_ffff; 9].as_slice(), &[0xffff; 2]].concat() {
            let mut value = self.next() & mask;
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        }
        bytes.extend([self.next(), self.next(), self.next()].map(|each| each as u8));
        let [state, last, marks] =
            [self.next() % 9, self.next() % 6, self.next()].map(|each| each as u8);
        bytes.push(state | last << 4 | (marks & 0x80));
        postcard::from_bytes(&bytes).ok()
    }
}

#[test]
fn hostile_records_do_not_panic() {
    const SMALL: &str = "[table]\nmax_sessions = 1024\nshards = 1\n";
    const LENIENT: &str = "[tcp]\nmidstream = \"adopt\"\nasymmetric = \"bypass\"\n";
    const FLAGS: [u8; 6] = [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK];
    let scene = Scene::new(LENIENT);
    let ends = Ends::v4(4000, 80);
    scene.handshake(ends);
    let base = saved(&scene);
    let mut random = Random(0x1234_5678_9abc_def0);
    let mut inserted = 0;
    for _ in 0..4_000 {
        let record = random.record(base);
        let mut other = Scene {
            now: scene.now,
            ..Scene::new(&format!("{LENIENT}{SMALL}"))
        };
        let options = RestoreOptions::default();
        let done = other
            .engine
            .insert_saved(&record, scene.now, Duration::ZERO, options);
        if done.is_err() {
            continue;
        }
        inserted += 1;
        for _ in 0..6 {
            let from = if random.next().is_multiple_of(2) {
                ends
            } else {
                ends.back()
            };
            let flags = FLAGS[(random.next() % 6) as usize];
            let _ = other.tcp(
                from,
                flags,
                random.next() as u32,
                random.next() as u32,
                b"xx",
            );
        }
        other.records();
        other.reload(SMALL);
        let _ = other.engine.save(other.now, SystemTime::UNIX_EPOCH);
        other.wait(500);
        other.engine.check_invariants().unwrap();
    }
    assert!(inserted > 400, "{inserted}");
}

#[test]
fn no_session_of_an_old_policy_survives_a_reload_while_packets_come() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let allow = config("[policy]\ndefault = \"allow\"\n");
    let deny = config("[policy]\ndefault = \"deny\"\n");
    let engine = Engine::with_seed(&allow, [1; 4]).unwrap();
    let (now, over) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|threads| {
        for host in [3, 4] {
            let (engine, over) = (&engine, &over);
            threads.spawn(move || {
                let mut port = 1_024u16;
                while !over.load(Ordering::Relaxed) {
                    port = port.wrapping_add(1).max(1_024);
                    let ends = Ends {
                        src: host,
                        ..Ends::v4(port, 53)
                    };
                    let packet = crate::support::packets::udp(ends, b"?");
                    let _ = engine.verdict_only(Packet::new(&packet, now));
                }
            });
        }
        let mut revoked = 0;
        for round in 0..100_000 {
            if round >= 200 && revoked > 0 {
                break;
            }
            revoked += engine.reload(&deny, now, &mut Discard).unwrap().revoked;
            assert_eq!(engine.sessions(), 0, "nothing is admitted any more");
            engine.reload(&allow, now, &mut Discard).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        assert!(revoked > 0);
    });
    engine.check_invariants().unwrap();
    let hits: u64 = engine.policy().hits().map(|(_, hits)| hits).sum();
    let stats = engine.stats();
    let asked = stats.sessions_opened
        + stats.dropped_by(DropReason::PolicyDeny)
        + stats.dropped_by(DropReason::TableFull);
    assert_eq!(
        hits, asked,
        "each decision is counted once, whichever policy made it"
    );
}
