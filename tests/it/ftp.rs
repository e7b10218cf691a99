//! FTP through the whole engine: announced sessions are admitted, and no others.

use std::time::{Duration, Instant};

use crate::support::packets::{ACK, Ends, FIN, Head, RST, SYN, tcp};
use portcullis::event::{Expectation, HelperEvent};
use portcullis::{
    Class, Config, Direction, Discard, DropReason, Engine, LogFault, Packet, SessionRecord, Verdict,
};

const ONLY_21: &str = "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                       destination_ports = 21\n";

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 30_000,
    };
    tcp(ends, head, &[], payload)
}

/// A control connection from host 1 to host 2, port 21.
struct Control {
    engine: Engine,
    now: Instant,
    ends: Ends,
    /// Next sequence numbers of the client and the server.
    next: [u32; 2],
}

impl Control {
    fn new(toml: &str, v6: bool) -> Self {
        let config = Config::from_toml(toml, "test.toml").expect("a configuration");
        let ends = if v6 {
            Ends::v6(4000, 21)
        } else {
            Ends::v4(4000, 21)
        };
        let mut control = Self {
            engine: Engine::with_seed(&config, [1; 4]).expect("an engine"),
            now: Instant::now(),
            ends,
            next: [101, 501],
        };
        control.passes(&segment(ends, SYN, 100, 0, b""));
        control.passes(&segment(ends.back(), SYN | ACK, 500, 101, b""));
        control.passes(&segment(ends, ACK, 101, 501, b""));
        control.server("220 ready\r\n");
        control
    }

    fn decide(&self, bytes: &[u8]) -> Verdict {
        self.engine.verdict_only(Packet::new(bytes, self.now))
    }

    #[track_caller]
    fn passes(&mut self, bytes: &[u8]) {
        let verdict = self.decide(bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
    }

    #[track_caller]
    fn client(&mut self, line: &str) {
        let bytes = segment(self.ends, ACK, self.next[0], self.next[1], line.as_bytes());
        self.next[0] += line.len() as u32;
        self.passes(&bytes);
    }

    #[track_caller]
    fn server(&mut self, line: &str) {
        let bytes = segment(
            self.ends.back(),
            ACK,
            self.next[1],
            self.next[0],
            line.as_bytes(),
        );
        self.next[1] += line.len() as u32;
        self.passes(&bytes);
    }

    fn syn(&self, src: u8, src_port: u16, dst: u8, dst_port: u16) -> Verdict {
        let ends = Ends {
            v6: self.ends.v6,
            src,
            src_port,
            dst,
            dst_port,
        };
        self.decide(&segment(ends, SYN, 9_000, 0, b""))
    }

    fn session(&self, port: u16) -> SessionRecord {
        let mut found = None;
        self.engine.for_each_session(|session| {
            if session.dst_port == port {
                found = Some(*session);
            }
        });
        found.expect("a session")
    }

    fn event(&self, event: HelperEvent) -> u64 {
        let stats = self.engine.stats();
        let found = stats.helper_events.iter().find(|(each, _)| *each == event);
        found.expect("every event is counted").1
    }
}

#[test]
fn passive_data_is_related_once_and_nothing_else_is_opened() {
    for v6 in [false, true] {
        let mut control = Control::new(ONLY_21, v6);
        if v6 {
            control.client("EPSV\r\n");
            control.server("229 Entering Extended Passive Mode (|||50000|)\r\n");
        } else {
            control.client("PASV\r\n");
            control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        }
        for (src, dst, port) in [(1, 2, 50_001), (3, 2, 50_000), (2, 1, 50_000)] {
            assert_eq!(
                control.syn(src, 40_000, dst, port).reason(),
                Some(DropReason::PolicyDeny),
                "{src} -> {dst}:{port}"
            );
        }
        let data = control.syn(1, 40_000, 2, 50_000);
        assert!(data.is_forward());
        let tracked = data.tracked();
        assert_eq!(
            (tracked.class, tracked.direction),
            (Class::Related, Some(Direction::Original))
        );
        let again = control.syn(1, 40_000, 2, 50_000);
        assert_eq!(
            again.tracked().class,
            Class::Related,
            "its own retransmission"
        );
        let session = control.session(50_000);
        assert_eq!(session.parent, Some(control.session(21).id));
        assert_eq!(session.parent_uid, Some(control.session(21).uid));
        assert_eq!(session.rule, control.session(21).rule);
        assert_eq!(
            control.syn(1, 40_001, 2, 50_000).reason(),
            Some(DropReason::PolicyDeny),
            "an announcement is for one session"
        );
        assert_eq!(control.engine.stats().expectations, 0);
    }
}

#[test]
fn active_data_comes_from_the_server() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    control.server("200 fine\r\n");
    assert_eq!(
        control.syn(3, 20, 1, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
    let data = control.syn(2, 20, 1, 50_000);
    assert_eq!(data.tracked().class, Class::Related);
    let session = control.session(50_000);
    assert_eq!(session.parent, Some(control.session(21).id));
}

#[test]
fn an_announcement_in_pieces_out_of_order_counts_like_a_whole_one() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    let (ends, [client, server]) = (control.ends.back(), control.next);
    let line = b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n";
    control.passes(&segment(ends, ACK, server + 20, client, &line[20..]));
    assert_eq!(control.engine.stats().expectations, 0);
    control.passes(&segment(ends, ACK, server, client, &line[..20]));
    assert_eq!(control.engine.stats().expectations, 1);
}

#[test]
fn forged_announcements_open_nothing_and_are_counted() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,9,195,80\r\n");
    control.client("PORT 10,0,0,1,0,22\r\n");
    control.client("PORT 10,0,0,1,195,300\r\n");
    control.client("227 Entering Passive Mode (10,0,0,1,195,80)\r\n");
    control.server("PORT 10,0,0,2,195,80\r\n");
    assert_eq!(control.engine.stats().expectations, 0);
    for event in [
        HelperEvent::BounceRefused,
        HelperEvent::PortBelowFloor,
        HelperEvent::NumberOutOfRange,
        HelperEvent::WrongDirection,
    ] {
        assert!(control.event(event) > 0, "{event}");
    }
}

#[test]
fn dropped_segments_announce_nothing() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    let far = segment(
        control.ends.back(),
        ACK,
        control.next[1].wrapping_add(1 << 30),
        control.next[0],
        b"227 Entering Passive Mode (10,0,0,2,195,80)\r\n",
    );
    assert!(!control.decide(&far).is_forward());
    assert_eq!(control.engine.stats().expectations, 0);
}

#[test]
fn an_announcement_ends_with_its_time_and_with_its_session() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    control.now += Duration::from_secs(299);
    assert!(
        control.syn(1, 39_999, 2, 50_000).is_forward(),
        "just in time"
    );
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    control.now += Duration::from_secs(301);
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
    let _ = control.engine.expire_with(control.now, 100, &mut Discard);
    assert_eq!(control.engine.stats().expectations, 0);

    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert_eq!(control.engine.stats().expectations, 1);
    let reset = segment(control.ends.back(), RST, control.next[1], 0, b"");
    control.passes(&reset);
    control.now += Duration::from_secs(20);
    while control
        .engine
        .expire_with(control.now, 100, &mut Discard)
        .more
    {}
    let stats = control.engine.stats();
    assert_eq!(
        (stats.sessions, stats.control_sessions, stats.expectations),
        (0, 0, 0)
    );
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
}

#[test]
fn without_a_port_no_session_is_inspected() {
    let mut control = Control::new(&format!("[ftp]\nports = []\n{ONLY_21}"), false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let stats = control.engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (0, 0));
    let fin = segment(
        control.ends,
        FIN | ACK,
        control.next[0],
        control.next[1],
        b"",
    );
    control.passes(&fin);
}

#[test]
fn a_syn_alone_is_not_listened_to_and_its_data_announce_nothing() {
    let config = Config::from_toml(ONLY_21, "test.toml").unwrap();
    let engine = Engine::with_seed(&config, [1; 4]).unwrap();
    let now = Instant::now();
    let syn = segment(Ends::v4(4000, 21), SYN, 100, 0, b"PORT 10,0,0,1,195,80\r\n");
    assert!(engine.verdict_only(Packet::new(&syn, now)).is_forward());
    assert_eq!(engine.stats().control_sessions, 0);
    let answer = segment(Ends::v4(4000, 21).back(), SYN | ACK, 500, 123, b"");
    assert!(engine.verdict_only(Packet::new(&answer, now)).is_forward());
    let stats = engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (1, 0));
}

#[test]
fn a_reset_withdraws_what_was_announced() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    assert_eq!(control.engine.stats().expectations, 1);
    let reset = segment(control.ends, RST, control.next[0], 0, b"");
    control.passes(&reset);
    assert_eq!(control.engine.stats().expectations, 0);
    assert_eq!(
        control.syn(2, 20, 1, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
}

#[test]
fn a_new_session_on_the_same_ports_inherits_no_announcement() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,1,195,80\r\n");
    let [client, server] = control.next;
    let ends = control.ends;
    control.passes(&segment(ends, FIN | ACK, client, server, b""));
    control.passes(&segment(ends.back(), FIN | ACK, server, client + 1, b""));
    control.passes(&segment(ends, ACK, client + 1, server + 1, b""));
    control.passes(&segment(ends, SYN, client + 100_000, 0, b""));
    control.passes(&segment(
        ends.back(),
        SYN | ACK,
        7_000,
        client + 100_001,
        b"",
    ));
    let stats = control.engine.stats();
    assert_eq!((stats.control_sessions, stats.expectations), (1, 0));
}

#[test]
fn an_announced_session_makes_no_announcements() {
    let rules = format!("[ftp]\nports = [21, 2121]\n{ONLY_21}");
    let mut control = Control::new(&rules, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,8,73)\r\n");
    let data = Ends::v4(40_000, 2_121);
    control.passes(&segment(data, SYN, 100, 0, b""));
    control.passes(&segment(data.back(), SYN | ACK, 500, 101, b""));
    assert_eq!(control.engine.stats().control_sessions, 1);
}

#[test]
fn a_refused_announcement_ends_its_session_if_the_rule_drops_it() {
    let stopping = format!("{ONLY_21}ftp = {{ refused = \"drop\" }}\n");
    let mut control = Control::new(&stopping, false);
    control.client("NOOP\r\n");
    control.server("200 ok\r\n");
    // A bounce, and a harmless command after it in the same segment.
    let bounce = b"PORT 10,0,0,9,195,80\r\nNOOP\r\n";
    let [client, server] = control.next;
    let bytes = segment(control.ends, ACK, client, server, bounce);
    for _ in 0..2 {
        let verdict = control.decide(&bytes);
        assert_eq!(
            verdict.reason(),
            Some(DropReason::FtpRefused),
            "sent again as well"
        );
        assert_eq!(verdict.tracked().class, Class::Invalid);
    }
    let behind = segment(
        control.ends,
        ACK,
        client + bounce.len() as u32,
        server,
        b"PASV\r\n",
    );
    assert_eq!(
        control.decide(&behind).reason(),
        Some(DropReason::FtpRefused)
    );
    assert_eq!(control.engine.sessions(), 0);
    assert_eq!(control.engine.export_expectations(control.now), []);
    assert_eq!(control.event(HelperEvent::BounceRefused), 1);
    // Without the rule's setting the text passes, and nothing is opened.
    let mut control = Control::new(ONLY_21, false);
    control.client("PORT 10,0,0,9,195,80\r\n");
    assert_eq!(control.engine.export_expectations(control.now), []);
}

#[test]
fn a_rule_has_control_ports_of_its_own() {
    let both = "[[policy.rule]]\nname = \"odd\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                destination_ports = 2121\n\
                ftp = { ports = [2121] }\n[[policy.rule]]\nname = \"web\"\naction = \"allow\"\n\
                protocol = \"tcp\"\n\
                destination_ports = [21, 2122]\nftp = { ports = [] }\n";
    for (port, listens) in [(2121, true), (21, false), (2122, false)] {
        let config = Config::from_toml(both, "test.toml").unwrap();
        let engine = Engine::with_seed(&config, [1; 4]).unwrap();
        let ends = Ends::v4(4000, port);
        let now = Instant::now();
        for packet in [
            segment(ends, SYN, 100, 0, b""),
            segment(ends.back(), SYN | ACK, 500, 101, b""),
            segment(ends, ACK, 101, 501, b""),
            segment(ends.back(), ACK, 501, 101, b"220 hello\r\n"),
            segment(ends, ACK, 101, 512, b"EPSV\r\n"),
            segment(ends.back(), ACK, 512, 107, b"229 Entering (|||50000|)\r\n"),
        ] {
            assert!(engine.verdict_only(Packet::new(&packet, now)).is_forward());
        }
        assert_eq!(
            engine.export_expectations(now).len(),
            usize::from(listens),
            "{port}"
        );
    }
}

#[test]
fn another_appliance_takes_over_what_was_announced() {
    let mut control = Control::new(ONLY_21, false);
    control.client("EPSV\r\n");
    control.server("229 Entering (|||50000|)\r\n");
    let announced = control.engine.export_expectations(control.now);
    assert_eq!(announced.len(), 1);
    let other = |toml: &str| {
        Engine::with_seed(&Config::from_toml(toml, "test.toml").unwrap(), [2; 4]).unwrap()
    };
    let data = segment(Ends::v4(40_000, 50_000), SYN, 9, 0, b"");
    let engine = other(ONLY_21);
    assert_eq!(engine.import_expectations(&announced, control.now), 1);
    let verdict = engine.verdict_only(Packet::new(&data, control.now));
    assert!(verdict.is_forward());
    assert_eq!(verdict.tracked().class, Class::Related);
    let mut rules = Vec::new();
    engine.for_each_session(|session| {
        rules.push((
            engine.policy().rule_name(session.rule).to_owned(),
            session.parent,
        ))
    });
    assert_eq!(rules, [("ftp".to_owned(), None)]);
    // The announcement is used up; and if the control session would not be admitted, neither are
    // its data.
    let another = segment(Ends::v4(40_001, 50_000), SYN, 9, 0, b"");
    assert!(
        !engine
            .verdict_only(Packet::new(&another, control.now))
            .is_forward()
    );
    let strict = other("[policy]\ndefault = \"deny\"\n");
    assert_eq!(strict.import_expectations(&announced, control.now), 1);
    let refused = strict.verdict_only(Packet::new(&data, control.now));
    assert_eq!(refused.reason(), Some(DropReason::PolicyDeny));
}

#[test]
fn an_announcement_whose_session_finds_no_room_may_come_again() {
    let toml = format!("[table]\nmax_sessions = 2\n{ONLY_21}");
    let mut control = Control::new(&toml, false);
    control.client("EPSV\r\n");
    control.server("229 Entering (|||50000|)\r\n");
    let other = Ends {
        src: 7,
        ..Ends::v4(4001, 21)
    };
    for packet in [
        segment(other, SYN, 100, 0, b""),
        segment(other.back(), SYN | ACK, 500, 101, b""),
        segment(other, ACK, 101, 501, b""),
    ] {
        control.passes(&packet);
    }
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::TableFull)
    );
    control.passes(&segment(other, RST, 101, 501, b""));
    control.now += Duration::from_secs(11);
    assert!(control.syn(1, 40_000, 2, 50_000).is_forward());
}

#[test]
fn an_announcement_whose_session_no_log_would_have_may_come_again() {
    let mut control = Control::new(ONLY_21, false);
    control.client("EPSV\r\n");
    control.server("229 Entering (|||50000|)\r\n");
    control.engine.log_gate().report(LogFault::WriterFails);
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).reason(),
        Some(DropReason::LogUnavailable)
    );
    control.engine.log_gate().clear(LogFault::WriterFails);
    assert!(control.syn(1, 40_000, 2, 50_000).is_forward());
}

#[test]
fn a_busy_data_session_keeps_its_idle_control_session_alive() {
    let mut control = Control::new(ONLY_21, false);
    control.client("EPSV\r\n");
    control.server("229 Entering (|||50000|)\r\n");
    let data = Ends::v4(40_000, 50_000);
    control.passes(&segment(data, SYN, 100, 0, b""));
    control.passes(&segment(data.back(), SYN | ACK, 500, 101, b""));
    let mut sent = 501;
    for _ in 0..20 {
        control.passes(&segment(data, ACK, 101, sent, b""));
        control.now += Duration::from_secs(100);
        control.passes(&segment(data.back(), ACK, sent, 101, b"data"));
        sent += 4;
        control.passes(&segment(data, ACK, 101, sent, b""));
        control
            .engine
            .expire_with(control.now, usize::MAX, &mut Discard);
    }
    assert_eq!(
        control.engine.sessions(),
        2,
        "2000 s of data, and the control session is there"
    );
    control.server("226 done\r\n");
    // Once the data session has ended, nothing keeps it but its own packets.
    control.passes(&segment(data, RST, 101, sent, b""));
    control.now += Duration::from_secs(11);
    control
        .engine
        .expire_with(control.now, usize::MAX, &mut Discard);
    assert_eq!(control.engine.sessions(), 1);
    control.now += Duration::from_secs(341);
    control
        .engine
        .expire_with(control.now, usize::MAX, &mut Discard);
    assert_eq!(control.engine.sessions(), 0);
}

#[test]
fn a_reload_revokes_a_control_session_that_only_its_data_keep_alive() {
    let mut control = Control::new(ONLY_21, false);
    control.client("EPSV\r\n");
    control.server("229 Entering (|||50000|)\r\n");
    let data = Ends::v4(40_000, 50_000);
    control.passes(&segment(data, SYN, 100, 0, b""));
    control.passes(&segment(data.back(), SYN | ACK, 500, 101, b""));
    control.passes(&segment(data, ACK, 101, 501, b""));
    control.now += Duration::from_secs(300);
    control.passes(&segment(data.back(), ACK, 501, 101, b"data"));
    control.passes(&segment(data, ACK, 101, 505, b""));
    // The session has expired, and no packet or expiry has visited it since.
    control.now += Duration::from_secs(100);
    let nothing = Config::from_toml("[policy]\ndefault = \"deny\"\n", "test.toml").unwrap();
    assert_eq!(
        control.engine.preview(&nothing, control.now).unwrap().len(),
        2
    );
    let done = control
        .engine
        .reload(&nothing, control.now, &mut Discard)
        .unwrap();
    assert_eq!((done.judged, done.revoked), (2, 2));
    assert_eq!(control.engine.sessions(), 0);
}

#[test]
fn all_control_sessions_together_have_a_bound_of_memory() {
    let toml = format!("[ftp]\nmax_memory = 65536\n{ONLY_21}");
    let config = Config::from_toml(&toml, "test.toml").unwrap();
    let engine = Engine::with_seed(&config, [1; 4]).unwrap();
    let now = Instant::now();
    for port in 0..2_000 {
        let ends = Ends::v4(10_000 + port, 21);
        for packet in [
            segment(ends, SYN, 100, 0, b""),
            segment(ends.back(), SYN | ACK, 500, 101, b""),
            segment(ends, ACK, 101, 501, b""),
            // After a hole: the segment waits for the missing one.
            segment(ends, ACK, 3_000, 501, &[b'x'; 1_000]),
        ] {
            assert!(engine.verdict_only(Packet::new(&packet, now)).is_forward());
        }
    }
    let stats = engine.stats();
    assert!(stats.control_sessions < 400, "{}", stats.control_sessions);
    assert!(stats.control_memory <= 65_536, "{}", stats.control_memory);
    let not_heard = stats
        .helper_events
        .iter()
        .find(|(event, _)| *event == HelperEvent::NotInspected);
    assert!(not_heard.unwrap().1 > 1_600);
    engine.expire_with(now + Duration::from_secs(400), usize::MAX, &mut Discard);
    assert_eq!(
        (
            engine.stats().control_sessions,
            engine.stats().control_memory
        ),
        (0, 0)
    );
}

#[test]
fn an_imported_announcement_is_one_that_a_helper_could_have_made() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let sound = control.engine.export_expectations(control.now)[0];
    let listing =
        format!("[ftp]\npassive_addresses = \"10.0.0.9\"\nactive_source_port = 20\n{ONLY_21}");
    let engine = |toml: &str| {
        Engine::with_seed(&Config::from_toml(toml, "test.toml").unwrap(), [2; 4]).unwrap()
    };
    let takes = |toml: &str, expectation| {
        engine(toml).import_expectations(&[expectation], control.now) == 1
    };
    assert!(takes(ONLY_21, sound));
    let change = |with: &dyn Fn(&mut Expectation)| {
        let mut changed = sound;
        with(&mut changed);
        changed
    };
    let foreign = change(&|it| it.destination.set_ip("10.0.0.9".parse().unwrap()));
    assert!(!takes(ONLY_21, foreign));
    assert!(
        takes(&listing, foreign),
        "an address that servers may announce"
    );
    for unsound in [
        change(&|it| it.destination.set_port(22)),
        change(&|it| it.source = "10.0.0.7".parse().unwrap()),
        change(&|it| it.protocol = 17),
        change(&|it| it.direction = Direction::Reply),
        change(&|it| it.parent.responder.set_port(80)),
    ] {
        let engine = engine(ONLY_21);
        assert_eq!(
            engine.import_expectations(&[unsound, sound], control.now),
            1,
            "{unsound}"
        );
        let events = engine.stats().helper_events;
        assert!(events.contains(&(HelperEvent::ImportRefused, 1)));
    }
    let active = change(&|it| {
        it.direction = Direction::Reply;
        (it.source, it.source_port) = (it.parent.responder.ip(), Some(4_000));
        it.destination.set_ip(it.parent.initiator.ip());
    });
    assert!(takes(ONLY_21, active));
    assert!(!takes(&listing, active), "not from port 20");
    // The wait ends here.
    let year = change(&|it| it.lifetime = Duration::from_secs(365 * 86_400));
    let engine = engine(ONLY_21);
    engine.import_expectations(&[year], control.now);
    assert_eq!(
        engine.export_expectations(control.now)[0].lifetime,
        Duration::from_secs(300)
    );
}

#[test]
fn the_rule_of_a_control_session_elsewhere_says_whether_it_is_one() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let announced = control.engine.export_expectations(control.now);
    let off = format!("{ONLY_21}ftp = {{ ports = [] }}\n");
    for (toml, related) in [(ONLY_21, true), (off.as_str(), false)] {
        let engine =
            Engine::with_seed(&Config::from_toml(toml, "test.toml").unwrap(), [2; 4]).unwrap();
        engine.import_expectations(&announced, control.now);
        let syn = segment(Ends::v4(40_000, 50_000), SYN, 9, 0, b"");
        let verdict = engine.verdict_only(Packet::new(&syn, control.now));
        assert_eq!(verdict.is_forward(), related);
    }
}

#[test]
fn a_reload_that_takes_a_rules_control_ports_away_closes_what_was_announced() {
    for off in [
        format!("{ONLY_21}ftp = {{ ports = [] }}\n"),
        format!("[ftp]\nports = []\n{ONLY_21}"),
    ] {
        for announced_before in [true, false] {
            let mut control = Control::new(ONLY_21, false);
            let config = Config::from_toml(&off, "test.toml").unwrap();
            for reload in [!announced_before, announced_before] {
                if reload {
                    control
                        .engine
                        .reload(&config, control.now, &mut Discard)
                        .unwrap();
                } else {
                    control.client("PASV\r\n");
                    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
                }
            }
            assert!(!control.syn(1, 40_000, 2, 50_000).is_forward());
            let stats = control.engine.stats();
            assert_eq!((stats.control_sessions, stats.control_memory), (0, 0));
        }
    }
}

#[test]
fn a_closed_control_session_is_not_kept_by_its_data() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let data = Ends::v4(40_000, 50_000);
    control.passes(&segment(data, SYN, 100, 0, b""));
    control.passes(&segment(data.back(), SYN | ACK, 500, 101, b""));
    control.passes(&segment(data, ACK, 101, 501, b""));
    control.passes(&segment(control.ends, RST, control.next[0], 0, b""));
    for seq in 501..601 {
        control.now += Duration::from_secs(10);
        control
            .engine
            .expire_with(control.now, usize::MAX, &mut Discard);
        control.passes(&segment(data.back(), ACK, seq, 101, b"x"));
        control.passes(&segment(data, ACK, 101, seq + 1, b""));
    }
    let mut left = Vec::new();
    control
        .engine
        .for_each_session(|session| left.push(session.dst_port));
    assert_eq!(left, [50_000]);
}

#[test]
fn a_fin_of_either_end_withdraws_what_was_announced() {
    for by_server in [false, true] {
        let mut control = Control::new(ONLY_21, false);
        control.client("PASV\r\n");
        control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        let [client, server] = control.next;
        let fin = if by_server {
            segment(control.ends.back(), FIN | ACK, server, client, b"")
        } else {
            segment(control.ends, FIN | ACK, client, server, b"")
        };
        control.passes(&fin);
        assert_eq!(control.engine.export_expectations(control.now), []);
    }
}

#[test]
fn a_reset_that_its_receiver_challenges_withdraws_nothing() {
    let mut control = Control::new(ONLY_21, false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    let forged = segment(control.ends, RST, control.next[0] + 1_000, 0, b"");
    control.passes(&forged);
    assert_eq!(control.engine.export_expectations(control.now).len(), 1);
    assert!(control.syn(1, 40_000, 2, 50_000).is_forward());
}

#[test]
fn a_child_counts_for_its_source_and_no_rate_holds_for_it() {
    let pasv = "227 Entering Passive Mode (10,0,0,2,195,80)\r\n";
    let announced = |limits: &str| {
        let mut control = Control::new(&format!("{limits}{ONLY_21}"), false);
        control.client("PASV\r\n");
        control.server(pasv);
        control
    };
    let control = announced("[limits]\nnew_per_second_per_source = 1\n");
    // The control session uses the second slot: the child passes, another session does not.
    assert_eq!(
        control.syn(1, 40_000, 2, 21).reason(),
        Some(DropReason::LimitRate)
    );
    assert_eq!(
        control.syn(1, 40_000, 2, 50_000).tracked().class,
        Class::Related
    );
    control.engine.check_invariants().unwrap();

    for limits in [
        "[limits]\nmax_per_source = 1\n",
        "[limits]\nmax_per_destination = 1\n",
        "[limits.zones.default]\nmax_sessions = 1\n",
    ] {
        let control = announced(limits);
        let child = control.syn(1, 40_000, 2, 50_000);
        assert_eq!(child.tracked().class, Class::Related, "{limits}");
        assert!(
            child
                .reason()
                .is_some_and(|reason| reason != DropReason::PolicyDeny)
        );
        // Its announcement is kept for the repeated SYN.
        assert_eq!(control.engine.stats().expectations, 1, "{limits}");
        control.engine.check_invariants().unwrap();
    }
    let limits = "limits = { max_sessions = 2 }\n";
    let config = format!("{ONLY_21}{limits}");
    let mut control = Control::new(&config, false);
    control.client("PASV\r\n");
    control.server(pasv);
    assert!(control.syn(1, 40_000, 2, 50_000).is_forward());
    // The rule of the control session has admitted the child as well.
    assert_eq!(
        control.syn(3, 40_000, 2, 21).reason(),
        Some(DropReason::LimitSessions)
    );
}

#[test]
fn a_server_that_announces_its_public_address_is_expected_at_its_own() {
    let listed = format!("[ftp]\npassive_addresses = [\"203.0.113.0/24\"]\n{ONLY_21}");
    for toml in [ONLY_21, listed.as_str()] {
        let mut control = Control::new(toml, false);
        control.client("PASV\r\n");
        control.server("227 Entering Passive Mode (203,0,113,7,195,80)\r\n");
        let data = control.syn(1, 40_000, 2, 50_000);
        assert_eq!(data.tracked().class, Class::Related);
        assert_eq!(control.engine.stats().expectations, 0, "one session");
        assert_eq!(control.event(HelperEvent::ForeignAddressIgnored), 1);
    }
    // If the address is listed, the data may go there instead.
    let mut control = Control::new(&listed.replace("203.0.113.0/24", "10.0.0.3/32"), false);
    control.client("PASV\r\n");
    control.server("227 Entering Passive Mode (10,0,0,3,195,80)\r\n");
    assert_eq!(
        control.syn(1, 40_000, 3, 50_000).tracked().class,
        Class::Related
    );
    assert_eq!(
        control.syn(1, 40_001, 2, 50_000).reason(),
        Some(DropReason::PolicyDeny)
    );
}

#[test]
fn a_listed_address_of_a_client_behind_nat_stands_for_its_own() {
    let listed = format!("[ftp]\nactive_addresses = [\"203.0.113.7/32\"]\n{ONLY_21}");
    for (toml, is_related) in [(listed.as_str(), true), (ONLY_21, false)] {
        let mut control = Control::new(toml, false);
        control.client("PORT 203,0,113,7,195,80\r\n");
        control.server("200 fine\r\n");
        assert_eq!(control.syn(2, 20, 1, 50_000).is_forward(), is_related);
    }
}

#[test]
fn a_page_in_a_browser_opens_no_port_of_its_host() {
    let body: String = (0..400)
        .rev()
        .map(|guess| format!("PORT 10,{},0,1,12,234\r\n", guess % 250))
        .collect();
    let post = format!("POST / HTTP/1.1\r\nHost: evil.example:2121\r\n\r\nx\r\n{body}");
    for (text, event) in [
        (post, HelperEvent::NotFtp),
        (body, HelperEvent::TooManyRefused),
    ] {
        let mut control = Control::new(ONLY_21, false);
        for part in text.as_bytes().chunks(1400) {
            control.client(core::str::from_utf8(part).unwrap());
        }
        assert_eq!(control.event(event), 1);
        assert_eq!(
            control.syn(2, 40_000, 1, 3_306).reason(),
            Some(DropReason::PolicyDeny)
        );
    }
    // As often as the setting allows.
    let mut control = Control::new(&format!("[ftp]\nmax_refused = 0\n{ONLY_21}"), false);
    for _ in 0..9 {
        control.client("PORT 10,9,9,9,12,234\r\n");
    }
    control.client("PORT 10,0,0,1,12,234\r\n");
    assert!(control.syn(2, 40_000, 1, 3_306).is_forward());
}
