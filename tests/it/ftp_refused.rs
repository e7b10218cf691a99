//! `ftp.refused = "drop"`: only data of a control session that were read completely and in order
//! pass, and data of healthy programs pass.

use std::time::SystemTime;

use crate::support::packets::{ACK, Ends, Head, SYN, tcp};
use crate::support::scene::{Received, Scene};
use etherparse::TcpOptionElement;
use portcullis::event::HelperEvent;
use portcullis::{DropReason, EndReason, Packet, RestoreOptions, Verdict};

const URG: u8 = 0x20;

const RULE: &str = "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                    destination_ports = 21\n";

/// An announcement of a third host.
const BOUNCE: &str = "PORT 10,0,0,9,0,22\r\n";

fn stopping(more: &str) -> String {
    format!("{more}\n[ftp]\nrefused = \"drop\"\n[policy]\ndefault = \"deny\"\n{RULE}")
}

fn passing(more: &str) -> String {
    format!("{more}\n[policy]\ndefault = \"deny\"\n{RULE}")
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 60_000,
    };
    tcp(ends, head, &[], payload)
}

/// A control connection from host 1 to host 2.
struct Talk {
    scene: Scene,
    ends: Ends,
    /// Next sequence numbers of the client and the server.
    next: [u32; 2],
}

impl Talk {
    fn new(toml: &str) -> Self {
        Self::on(Scene::new(toml), Ends::v4(4000, 21))
    }

    fn on(scene: Scene, ends: Ends) -> Self {
        let mut talk = Self::silent(scene, ends);
        talk.server("220 ready\r\n");
        talk
    }

    /// Returns a session whose server has not sent a line yet.
    fn silent(scene: Scene, ends: Ends) -> Self {
        let talk = Self {
            scene,
            ends,
            next: [101, 501],
        };
        for (ends, flags, seq, ack) in [
            (ends, SYN, 100, 0),
            (ends.back(), SYN | ACK, 500, 101),
            (ends, ACK, 101, 501),
        ] {
            talk.passes(&segment(ends, flags, seq, ack, b""));
        }
        talk
    }

    #[track_caller]
    fn passes(&self, bytes: &[u8]) {
        let verdict = self.scene.decide(bytes);
        assert!(verdict.is_forward(), "{verdict:?}");
    }

    #[track_caller]
    fn refused(&self, bytes: &[u8]) {
        let verdict = self.scene.decide(bytes);
        assert_eq!(
            verdict.reason(),
            Some(DropReason::FtpRefused),
            "{verdict:?}"
        );
    }

    /// Returns the client's next segment.
    fn by_client(&self, line: &[u8]) -> Vec<u8> {
        self.ahead(0, line)
    }

    /// Returns the client's segment that is ahead by a number of bytes.
    fn ahead(&self, by: u32, line: &[u8]) -> Vec<u8> {
        segment(self.ends, ACK, self.next[0] + by, self.next[1], line)
    }

    fn by_server(&self, line: &[u8]) -> Vec<u8> {
        segment(self.ends.back(), ACK, self.next[1], self.next[0], line)
    }

    #[track_caller]
    fn client(&mut self, line: &str) {
        self.passes(&self.by_client(line.as_bytes()));
        self.next[0] += line.len() as u32;
    }

    #[track_caller]
    fn server(&mut self, line: &str) {
        self.passes(&self.by_server(line.as_bytes()));
        self.next[1] += line.len() as u32;
    }

    /// A packet that ends the session, with a RST to both ends at the numbers that they expect.
    #[track_caller]
    fn ends(&self, bytes: &[u8]) {
        let [client, server] = self.next;
        self.ends_at(bytes, [client, server]);
    }

    /// The client has received data up to the second number, and the server up to the first.
    #[track_caller]
    fn ends_at(&self, bytes: &[u8], [client, server]: [u32; 2]) {
        let mut received = Received::default();
        let packet = Packet::new(bytes, self.scene.now).zone(self.scene.zone);
        let verdict = self.scene.engine.process_with(packet, &mut received);
        assert_eq!(
            verdict.reason(),
            Some(DropReason::FtpRefused),
            "{verdict:?}"
        );
        let reasons: Vec<_> = received.ended.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [EndReason::FtpRefused]);
        let numbers: Vec<_> = received
            .resets
            .iter()
            .map(|reset| seq_of(reset.bytes()))
            .collect();
        assert_eq!(numbers, [client, server], "the first goes to the server");
        self.scene.engine.check_invariants().unwrap();
    }

    #[track_caller]
    fn lives(&self) {
        assert_eq!(self.scene.record().state, "ESTABLISHED");
    }

    fn event(&self, event: HelperEvent) -> u64 {
        let stats = self.scene.engine.stats();
        let found = stats.helper_events.iter().find(|(each, _)| *each == event);
        found.expect("every event is counted").1
    }

    fn syn(&self, port: u16) -> Verdict {
        let ends = Ends {
            dst_port: port,
            src_port: 41_000,
            ..self.ends
        };
        self.scene.decide(&segment(ends, SYN, 9_000, 0, b""))
    }

    /// Continues the session in another engine.
    fn restart(&mut self, toml: &str) {
        let at = SystemTime::UNIX_EPOCH;
        let stream = self.scene.engine.save(self.scene.now, at);
        let other = Scene::new(toml);
        let options = RestoreOptions::default();
        other
            .engine
            .restore(&stream, self.scene.now, at, options)
            .unwrap();
        self.scene.engine = other.engine;
    }
}

/// The sequence number of an IPv4 packet without options.
fn seq_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[24..28].try_into().unwrap())
}

/// Returns a packet in two IPv4 fragments, split after a number of bytes of TCP.
fn fragments(packet: &[u8], at: usize) -> [Vec<u8>; 2] {
    let make = |from: usize, to: usize, more: u16| {
        let mut bytes = packet[..20].to_vec();
        bytes[2..4].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
        bytes[4..6].copy_from_slice(&77_u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&((from / 8) as u16 | more).to_be_bytes());
        bytes[10..12].fill(0);
        let words = bytes
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        bytes[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
        bytes.extend(&packet[20 + from..20 + to]);
        bytes
    };
    [make(0, at, 0x2000), make(at, packet.len() - 20, 0)]
}

#[test]
fn a_fragmented_segment_passes_only_where_nothing_stops() {
    // With a part of the payload in the first fragment, and with none.
    let options = [TcpOptionElement::Timestamp(1, 1)];
    for (options, at) in [(&options[..0], 24), (&options[..], 32)] {
        let head = |talk: &Talk| Head {
            flags: ACK,
            seq: talk.next[0],
            ack: talk.next[1],
            window: 60_000,
        };
        for before in [false, true] {
            let talk = Talk::new(&stopping(""));
            if before {
                talk.refused(&talk.by_client(BOUNCE.as_bytes()));
            }
            for fragment in fragments(&tcp(talk.ends, head(&talk), options, BOUNCE.as_bytes()), at)
            {
                assert!(!talk.scene.decide(&fragment).is_forward());
            }
        }
        let talk = Talk::new(&passing(""));
        for fragment in fragments(&tcp(talk.ends, head(&talk), options, BOUNCE.as_bytes()), at) {
            talk.passes(&fragment);
        }
    }
}

#[test]
fn a_record_of_tls_that_nobody_has_agreed_on_ends_no_watch() {
    let talk = Talk::new(&stopping(""));
    talk.ends(&talk.by_client(b"\x16\x03\r\n"));
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    // ADAT does not end plain commands.
    let mut talk = Talk::new(&stopping(""));
    talk.client("AUTH GSSAPI\r\n");
    talk.server("334 go on\r\n");
    talk.client("ADAT abcd\r\n");
    talk.server("235 fine\r\n");
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
}

#[test]
fn encryption_that_the_server_has_agreed_to_passes() {
    let mut talk = Talk::new(&stopping(""));
    talk.client("AUTH TLS\r\n");
    talk.server("234 go on\r\n");
    let record = [0x16, 0x03, 0x01, 0x00, 0x02, b'\n', 0xff];
    let bytes = talk.by_client(&record.repeat(200));
    talk.passes(&bytes);
    talk.next[0] += 1400;
    for fragment in fragments(&talk.by_client(&[0x17; 64]), 24) {
        talk.passes(&fragment);
    }
    talk.next[0] += 64;
    talk.restart(&stopping(""));
    talk.passes(&talk.by_client(&record.repeat(200)));
}

#[test]
fn other_bytes_in_the_place_of_those_that_have_passed_do_not_pass() {
    let talk = Talk::new(&stopping(""));
    talk.passes(&talk.by_client(b"PORT 10,0,0,9,0,2"));
    talk.refused(&talk.by_client(b"PORT 10,0,0,9,0,3"));
    talk.passes(&talk.by_client(b"PORT 10,0,0,9,0,2"));
    talk.refused(&talk.ahead(17, b"2\r\n"));
    // A whole line as well, as long as the server has not acknowledged it: the server may not have
    // received it.
    let mut talk = Talk::new(&stopping(""));
    let harmless = b"NOOP 10,0,0,9,0,22\r\n";
    talk.passes(&talk.by_client(harmless));
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    talk.passes(&talk.by_client(harmless));
    // After a hole as well.
    talk.next[0] += 20;
    talk.passes(&talk.ahead(6, harmless));
    talk.refused(&talk.ahead(6, BOUNCE.as_bytes()));
    talk.client("NOOP\r\n");
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    talk.next[0] += 20;
    talk.server("200 fine\r\n");
    talk.client("NOOP\r\n");
}

#[test]
fn a_line_that_is_too_long_does_not_pass() {
    let toml = stopping("").replace("[ftp]", "[ftp]\nmax_line = 512");
    let spaces = " ".repeat(600);
    let talk = Talk::new(&toml);
    talk.ends(&talk.by_client(format!("PORT 10,0,0,9,0,22{spaces}\r\n").as_bytes()));
    // Neither does a part of the line that is too long, nor its end.
    let mut talk = Talk::new(&toml);
    talk.client("PORT 10,0,0,9,0,22");
    talk.passes(&talk.by_server(b""));
    talk.ends(&talk.by_client(spaces.as_bytes()));
    talk.refused(&talk.by_client(b"\r\n"));
    assert_eq!(talk.event(HelperEvent::ExpectationOpened), 0);
}

#[test]
fn lines_with_long_paths_pass() {
    let path = "d".repeat(4_096);
    let mut talk = Talk::new(&stopping(""));
    talk.client("PWD\r\n");
    talk.server(&format!("257 \"/{path}\" is the current directory\r\n"));
    // In pieces as well.
    talk.client("RETR ");
    for part in path.as_bytes().chunks(1_400) {
        talk.client(core::str::from_utf8(part).unwrap());
    }
    talk.client("\r\n");
    talk.server("550 no such file\r\n");
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
}

#[test]
fn a_long_answer_passes_with_more_in_flight_than_a_line_has() {
    let mut talk = Talk::new(&stopping(""));
    talk.client("STAT /pub\r\n");
    talk.server("213-status\r\n");
    let text = " -rw-r--r-- 1 0 0 1234 Jan 01 00:00 file-with-a-name.bin\r\n".repeat(24);
    // 38 kB without an acknowledgment. The first copy of one segment is late, and another one is
    // lost after the firewall.
    let first = talk.next[1];
    for segment in 0..28 {
        if segment == 7 {
            talk.next[1] += text.len() as u32;
            talk.server(&text);
            talk.next[1] -= 2 * text.len() as u32;
        }
        talk.server(&text);
        if segment == 7 {
            talk.next[1] += text.len() as u32;
        }
    }
    let after = talk.next[1];
    talk.next[1] = first + 3 * text.len() as u32;
    talk.server(&text);
    talk.refused(&talk.by_server(&text.replace("file", "FILE").into_bytes()));
    talk.next[1] = after;
    talk.server("213 end\r\n");
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
}

#[test]
fn data_without_room_pass_once_there_is_room() {
    let toml = stopping("").replace("[ftp]", "[ftp]\nreorder_bytes = 4096");
    let mut talk = Talk::new(&toml);
    talk.client("STAT /pub\r\n");
    talk.server("213-status\r\n");
    let text = " a line of a listing\r\n".repeat(60);
    for _ in 0..3 {
        talk.server(&text);
    }
    let more = talk.by_server(text.as_bytes());
    for _ in 0..40 {
        talk.refused(&more);
    }
    talk.lives();
    talk.passes(&talk.by_client(b""));
    talk.server(&text);
    talk.server("213 end\r\n");
}

#[test]
fn data_too_far_ahead_to_be_kept_do_not_pass() {
    let small = |toml: String| toml.replace("[ftp]", "[ftp]\nreorder_bytes = 4096");
    let mut talk = Talk::new(&small(stopping("")));
    talk.refused(&talk.ahead(5_000, BOUNCE.as_bytes()));
    // Many short holes: the last one exceeds the limit.
    for hole in 1..=16 {
        talk.passes(&talk.ahead(hole * 10, b"x"));
    }
    talk.refused(&talk.ahead(170, b"x"));
    // Without loss any number of bytes passes, and a segment of any size.
    let mut far = Talk::new(&stopping(""));
    far.passes(&far.by_client(b"NOOP\r\n".repeat(1_500).as_slice()));
    far.next[0] += 9_000;
    far.server("200 fine\r\n");
    far.client("PASV\r\n");
    far.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(far.syn(50_000).is_forward());
    talk = Talk::new(&passing("[ftp]\nreorder_bytes = 4096"));
    talk.passes(&talk.ahead(5_000, BOUNCE.as_bytes()));
}

#[test]
fn lines_cut_and_out_of_order_are_read_and_open() {
    let mut talk = Talk::new(&stopping(""));
    let line = b"NOOP\r\nPASV\r\n";
    for part in [6..8, 2..5, 8..12, 0..3, 3..7, 0..12] {
        talk.passes(&talk.ahead(part.start as u32, &line[part]));
    }
    talk.next[0] += 12;
    talk.server("200 fine\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
}

#[test]
fn the_filling_of_a_hole_before_a_refused_line_does_not_pass() {
    let talk = Talk::new(&stopping(""));
    talk.passes(&talk.ahead(6, BOUNCE.as_bytes()));
    assert_eq!(talk.event(HelperEvent::BounceRefused), 0, "not whole yet");
    let filling = talk.by_client(b"NOOP\r\n");
    talk.ends(&filling);
    talk.refused(&filling);
    talk.refused(&talk.by_client(b"N"));
    assert_eq!(talk.event(HelperEvent::BounceRefused), 1);
}

#[test]
fn an_acknowledgment_that_shows_a_gap_stops_the_other_direction() {
    let mut talk = Talk::new(&stopping(""));
    talk.passes(&talk.ahead(6, BOUNCE.as_bytes()));
    let [client, server] = talk.next;
    let line = b"200 fine\r\n";
    talk.passes(&segment(talk.ends.back(), ACK, server, client + 26, line));
    talk.next = [client + 26, server + 10];
    talk.ends(&talk.by_client(b"NOOP\r\n"));
}

#[test]
fn a_stop_outlives_a_restart() {
    let mut talk = Talk::new(&stopping(""));
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    talk.restart(&stopping(""));
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    talk.refused(&talk.by_client(b"NOOP\r\n"));
    talk.refused(&talk.by_server(b"421 timeout\r\n"));
}

#[test]
fn a_late_packet_of_a_session_that_was_stopped_gets_a_reset() {
    let talk = Talk::new(&stopping(""));
    talk.ends(&talk.by_client(BOUNCE.as_bytes()));
    let verdict = talk.scene.decide(&talk.by_client(BOUNCE.as_bytes()));
    assert!(
        matches!(verdict, Verdict::Reject(DropReason::FtpRefused, ..)),
        "{verdict:?}"
    );
    assert_eq!(
        verdict.tracked().late.unwrap().reason,
        EndReason::FtpRefused
    );
}

#[test]
fn a_sender_whose_segments_can_never_be_read_is_told_so() {
    let mut talk = Talk::new(&stopping(""));
    let other = talk.by_client(b"NOOP 1\r\n");
    talk.client("NOOP 2\r\n");
    for _ in 1..16 {
        talk.refused(&other);
    }
    talk.lives();
    // A readable segment resets the count.
    talk.client("NOOP 3\r\n");
    for _ in 1..16 {
        talk.refused(&other);
    }
    talk.lives();
    let [client, server] = talk.next;
    talk.ends_at(&other, [client - 16, server]);
}

#[test]
fn a_session_goes_on_after_a_restart_though_its_server_has_yet_to_answer() {
    let mut talk = Talk::new(&stopping(""));
    talk.client("RETR file\r\n");
    talk.server("150 here it comes\r\n");
    talk.restart(&stopping(""));
    talk.server("226 done\r\n");
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
}

/// A control session that is adopted midstream.
fn adopted() -> Talk {
    Talk {
        scene: Scene::new(&(stopping("") + "tcp = { midstream = \"adopt\" }\n")),
        ends: Ends::v4(4000, 21),
        next: [1_001, 2_001],
    }
}

#[test]
fn a_session_taken_up_in_its_middle_goes_on() {
    let mut talk = adopted();
    for _ in 0..3 {
        talk.client("NOOP\r\n");
        talk.server("200 fine\r\n");
    }
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
    // In the middle of a line, and in the middle of a reply that announces the server itself.
    let mut talk = adopted();
    talk.client("two words.txt\r\nNOOP\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(
        !talk.syn(50_000).is_forward(),
        "nobody has seen the command"
    );
    talk.server("200 fine\r\n");
}

#[test]
fn of_a_session_taken_up_in_its_middle_nothing_passes_that_is_refused() {
    for first in [BOUNCE, "NOOP\r\nPORT 10,0,0,9,0,22\r\n", "LPRT 6,16\r\n"] {
        let talk = adopted();
        talk.refused(&talk.by_client(first.as_bytes()));
        talk.refused(&talk.by_client(first.as_bytes()));
        assert_eq!(talk.scene.engine.sessions(), 0, "the second one ends it");
    }
    let mut talk = adopted();
    talk.client("PASV\r\n");
    talk.ends(&talk.by_server(b"227 Entering Passive Mode (10,0,0,2,0,80)\r\n"));
    // Bytes before the first known byte, which may not have arrived.
    let mut talk = adopted();
    talk.client("NOOP\r\n");
    let early = segment(talk.ends, ACK, 1_001 - 20, 2_001, BOUNCE.as_bytes());
    talk.refused(&early);
    talk.lives();
    talk.server("200 fine\r\n");
    talk.passes(&early);
    // Data that were lost before are never acknowledged, and their sender is not left waiting.
    let talk = adopted();
    talk.passes(&segment(talk.ends, ACK, 1_001, 2_001, b"PWD\r\n"));
    let lost = segment(talk.ends, ACK, 1_001 - 6, 2_001, b"NOOP\r\n");
    for _ in 0..3 {
        talk.refused(&lost);
        talk.lives();
    }
    talk.refused(&lost);
    assert_eq!(talk.scene.engine.sessions(), 0);
}

#[test]
fn a_session_that_a_reload_puts_under_the_rule_goes_on() {
    // The unfinished line, one that is too long, or one after a gap.
    for before in ["CWD /a", &"x".repeat(9_000)] {
        let mut talk = Talk::new(&passing(""));
        talk.client(before);
        talk.scene.reload(&stopping(""));
        talk.client("/b\r\n");
        talk.server("250 fine\r\n");
        talk.client("PASV\r\n");
        talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        talk.lives();
        talk.ends(&talk.by_client(BOUNCE.as_bytes()));
    }
    let mut talk = Talk::new(&passing(""));
    talk.passes(&talk.ahead(4, b"b"));
    talk.next[0] += 5;
    talk.passes(&talk.by_server(b""));
    talk.scene.reload(&stopping(""));
    talk.client("a.txt\r\nNOOP\r\n");
    talk.passes(&talk.by_server(b""));
    talk.ends(&talk.by_client(BOUNCE.as_bytes()));
}

#[test]
fn lines_of_a_greeting_end_with_a_line_feed_alone() {
    let mut talk = Talk::silent(Scene::new(&stopping("")), Ends::v4(4000, 21));
    // More than the maximum length of a line.
    for _ in 0..200 {
        talk.server("220-a banner line that ends with a line feed and nothing else\n");
    }
    talk.server("220 ready\n");
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\n");
    assert!(talk.syn(50_000).is_forward());
    talk.restart(&stopping(""));
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,81)\n");
    assert!(talk.syn(50_001).is_forward());
    // Another server has a line feed in a text, as an echo perhaps. Clients may read the text after
    // it as a reply, so it must not announce anything.
    let mut talk = Talk::new(&stopping(""));
    talk.client("PASV\r\n");
    talk.ends(&talk.by_server(b"500 x\n227 Entering Passive Mode (10,0,0,2,195,80)\r\n"));
    assert!(!talk.syn(50_000).is_forward());
}

#[test]
fn data_that_the_tracker_does_not_believe_do_not_pass() {
    for (mode, passes) in [("strict", false), ("liberal", false), ("strict", true)] {
        let mode = format!("[tcp]\nmode = \"{mode}\"\n");
        let toml = if passes {
            passing(&mode)
        } else {
            stopping(&mode)
        };
        let talk = Talk::new(&toml);
        let [client, server] = talk.next;
        let old = segment(
            talk.ends,
            ACK,
            client,
            server.wrapping_sub(70_000),
            BOUNCE.as_bytes(),
        );
        assert_eq!(talk.scene.decide(&old).is_forward(), passes);
        // The segment without data carries nothing to read.
        let talk = Talk::new(&toml);
        let empty = segment(talk.ends, ACK, client, server.wrapping_sub(70_000), b"");
        talk.passes(&empty);
    }
    // A segment far outside the window, which is tolerated.
    let far = |toml: &str| {
        let talk = Talk::new(toml);
        talk.scene
            .decide(&talk.ahead(1 << 20, BOUNCE.as_bytes()))
            .is_forward()
    };
    let liberal = "[tcp]\nmode = \"liberal\"\n";
    assert!(far(&passing(liberal)));
    assert!(!far(&stopping(liberal)));
    let reports = "[checks]\ntcp_seq_above_window = \"count\"\n";
    assert!(far(&passing(reports)));
    assert!(!far(&stopping(reports)));
}

/// Next segment of the client, with URG.
fn urgent(talk: &Talk, pointer: u16, payload: &[u8]) -> Vec<u8> {
    let [seq, ack] = talk.next;
    let mut bytes = segment(talk.ends, ACK | URG, seq, ack, payload);
    bytes[38..40].copy_from_slice(&pointer.to_be_bytes());
    // The checksum with one more word.
    let sum = u32::from(!u16::from_be_bytes([bytes[36], bytes[37]])) + u32::from(pointer);
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[36..38].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}

#[test]
fn urgent_data_pass_only_as_the_signal_before_abor() {
    let talk = Talk::new(&stopping(""));
    talk.refused(&urgent(&talk, 3, b"POXRT 10,0,0,9,0,22\r\n"));
    talk.lives();
    // The urgent byte is in the next segment, and does not belong to TELNET.
    talk.passes(&urgent(&talk, 3, b""));
    talk.refused(&talk.by_client(b"POXRT 10,0,0,9,0,22\r\n"));
    talk.passes(&talk.by_client(b"\xff\xf4\xff\xf2ABOR\r\n"));
    let talk = Talk::new(&passing(""));
    talk.passes(&urgent(&talk, 3, b"POXRT 10,0,0,9,0,22\r\n"));
}

#[test]
fn a_segment_that_is_dropped_does_not_stand_for_an_urgent_byte() {
    let talk = Talk::new(&stopping("").replace("[ftp]", "[ftp]\nreorder_bytes = 4096"));
    let far = 4_090;
    talk.passes(&urgent(&talk, far + 10, b""));
    // The byte is present, but there is no room for the segment.
    talk.refused(&talk.ahead(u32::from(far), &[0xff; 20]));
    talk.refused(&talk.ahead(u32::from(far) + 9, b"X"));
    talk.lives();
    let text = b"NOOP\r\n".repeat(500);
    talk.passes(&talk.by_client(&text));
    let acknowledges = segment(
        talk.ends.back(),
        ACK,
        talk.next[1],
        talk.next[0] + 3_000,
        b"",
    );
    talk.passes(&acknowledges);
    talk.refused(&talk.ahead(u32::from(far) + 9, b"XPORT 10,0,0,9,0,22"));
    talk.passes(&talk.ahead(u32::from(far) + 9, b"\xf2"));
}

#[test]
fn an_urgent_abort_passes_however_it_is_cut() {
    let signal = b"\xff\xf4\xff\xf2ABOR\r\n";
    for pointer in [3, 4] {
        for at in 0..signal.len() {
            let mut talk = Talk::new(&stopping(""));
            talk.client("RETR a\r\n");
            talk.server("150 here it comes\r\n");
            let (first, rest) = signal.split_at(at);
            talk.passes(&urgent(&talk, pointer, first));
            talk.next[0] += at as u32;
            // Urgent until the byte has been sent.
            let left = pointer.saturating_sub(at as u16);
            let rest = match left {
                0 => talk.by_client(rest),
                left => urgent(&talk, left, rest),
            };
            talk.passes(&rest);
            talk.next[0] += (signal.len() - at) as u32;
            talk.server("426 aborted\r\n226 fine\r\n");
            // Both are retransmitted in one segment, since the acknowledgment was lost.
            talk.next[0] -= signal.len() as u32;
            talk.passes(&urgent(&talk, pointer, signal));
        }
    }
}

#[test]
fn a_line_that_servers_read_in_different_ways_does_not_pass() {
    for line in [
        &b" PORT 10,0,0,9,0,22\r\n"[..],
        b"PORT\t10,0,0,9,0,22\r\n",
        b"PO\xff\xf1RT 10,0,0,9,0,22\r\n",
        b"NOOP x\rPORT 10,0,0,9,0,22\r\n",
    ] {
        let talk = Talk::new(&stopping(""));
        talk.refused(&talk.by_client(line));
        assert_eq!(talk.event(HelperEvent::UnreadableCommand), 1);
        let talk = Talk::new(&passing(""));
        talk.passes(&talk.by_client(line));
    }
    let mut talk = Talk::new(&stopping(""));
    for line in ["\r\n", "noop\n", "STOR two words\r\n", "CWD \u{fc}\r\n"] {
        talk.client(line);
    }
}

#[test]
fn the_data_of_a_syn_do_not_pass() {
    let scene = Scene::new(&stopping(""));
    let ends = Ends::v4(4000, 21);
    let syn = segment(ends, SYN, 100, 0, BOUNCE.as_bytes());
    assert_eq!(scene.decide(&syn).reason(), Some(DropReason::FtpRefused));
    assert_eq!(scene.engine.sessions(), 0);
    for fragment in fragments(&syn, 24) {
        assert!(!scene.decide(&fragment).is_forward());
    }
    assert!(scene.decide(&segment(ends, SYN, 100, 0, b"")).is_forward());
    assert!(!scene.decide(&syn).is_forward(), "nor sent again with data");
    let other = Scene::new(&passing(""));
    assert!(other.decide(&syn).is_forward());
}

#[test]
fn of_a_session_that_there_is_no_memory_for_nothing_passes() {
    let toml = stopping("").replace("[ftp]", "[ftp]\nmax_memory = 65536");
    let mut talk = Talk::new(&toml);
    let mut port = 5000;
    while talk.event(HelperEvent::NotInspected) == 0 {
        port += 1;
        let ends = Ends::v4(port, 21);
        talk.passes(&segment(ends, SYN, 100, 0, b""));
        talk.passes(&segment(ends.back(), SYN | ACK, 500, 101, b""));
        talk.passes(&segment(ends, ACK, 101, 501, b""));
        assert!(port < 6000);
    }
    talk.ends = Ends::v4(port, 21);
    talk.next = [101, 501];
    talk.passes(&talk.by_client(b""));
    talk.ends(&talk.by_server(b"220 ready\r\n"));
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
}

#[test]
fn a_reload_that_adds_a_port_inspects_live_sessions_there() {
    let rule = "[policy]\ndefault = \"deny\"\n".to_owned() + RULE;
    let open = rule.replace("= 21", "= [21, 2121]");
    for refused in ["pass", "drop"] {
        let with = format!("[ftp]\nports = [21, 2121]\nrefused = \"{refused}\"\n{open}");
        let without = format!("[ftp]\nports = [21]\n{open}");
        let mut talk = Talk::on(Scene::new(&without), Ends::v4(4000, 2121));
        talk.client("USER a\r\n");
        talk.server("230 welcome\r\n");
        talk.scene.reload(&with);
        // The first line of each end may have begun before; the second one continues no reply.
        for _ in 0..2 {
            talk.client("TYPE I\r\n");
            talk.server("200 fine\r\n");
        }
        talk.client("PASV\r\n");
        talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        let data = talk.syn(50_000);
        assert!(data.is_forward(), "{refused}: {data:?}");
        talk.client("PASV\r\n");
        talk.server("227 Entering Passive Mode (10,0,0,2,195,81)\r\n");
        talk.scene.reload(&without);
        assert!(!talk.syn(50_001).is_forward());
        assert_eq!(talk.scene.engine.stats().control_sessions, 0);
        talk.client("PASV\r\n");
        talk.server("227 Entering Passive Mode (10,0,0,2,195,82)\r\n");
        assert!(!talk.syn(50_002).is_forward());
    }
}

#[test]
fn a_reload_that_adds_a_port_does_not_listen_to_what_was_announced() {
    let without = "[policy]\ndefault = \"deny\"\n".to_owned() + RULE;
    let with = format!("[ftp]\nports = [21, 50000]\n{without}");
    let mut talk = Talk::new(&without);
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
    talk.scene.reload(&with);
    assert_eq!(talk.scene.engine.sessions(), 2);
    assert_eq!(talk.scene.engine.stats().control_sessions, 1);
}

#[test]
fn a_restart_keeps_the_command_that_waits_for_its_reply() {
    for toml in [passing(""), stopping("")] {
        let mut talk = Talk::new(&toml);
        talk.client("PASV\r\n");
        talk.restart(&toml);
        talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
        assert!(talk.syn(50_000).is_forward(), "{toml}");
        // In the middle of a reply, after other commands.
        talk.client("NOOP\r\nSTAT\r\nEPSV\r\n");
        talk.server("200 fine\r\n211-status\r\n");
        talk.restart(&toml);
        talk.server(
            "229 no reply\r\n211 end\r\n229 Entering Extended Passive Mode (|||50001|)\r\n",
        );
        assert!(talk.syn(50_001).is_forward(), "{toml}");
        // Announced sessions can be withdrawn.
        talk.client("PASV\r\n");
        talk.server("227 Entering Passive Mode (10,0,0,2,195,82)\r\n");
        talk.restart(&toml);
        talk.client("ABOR\r\n");
        assert!(!talk.syn(50_002).is_forward(), "{toml}");
    }
}

#[test]
fn a_restart_keeps_an_announcement_that_opens_with_its_reply() {
    let toml = passing("[ftp]\nactive_opening = \"reply\"\n");
    for (reply, opens) in [("200 fine\r\n", true), ("500 no\r\n", false)] {
        let mut talk = Talk::new(&toml);
        talk.client("PORT 10,0,0,1,195,80\r\n");
        talk.restart(&toml);
        talk.server(reply);
        let data = Ends {
            src_port: 20,
            dst_port: 50_000,
            ..talk.ends.back()
        };
        let verdict = talk.scene.decide(&segment(data, SYN, 9_000, 0, b""));
        assert_eq!(verdict.is_forward(), opens);
    }
}

#[test]
fn healthy_deviations_stop_nothing() {
    const PASSIVE: &str = "227 Entering Passive Mode (203,0,113,7,195,80)\r\n";
    let mut talk = Talk::new(&stopping(""));
    talk.client("\r\n");
    talk.client("PASV\r\n");
    talk.server(PASSIVE);
    assert!(talk.syn(50_000).is_forward());
    talk.client("RETR x\r\n");
    talk.server("150 \r\n");
    talk.client("ABOR\r\n");
    talk.server("426 \r\n226 \r\n225 \r\n");
    talk.client("EPSV\r\n");
    talk.server("200 stray\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,81)\n");
    assert!(talk.syn(50_001).is_forward());
    talk.client("QUIT\r\n");
    talk.server("227 Logout.\r\n");
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
}

#[test]
fn a_request_of_http_stops_both_directions() {
    let talk = Talk::new(&stopping(""));
    talk.refused(&talk.by_client(b"POST / HTTP/1.1\r\n"));
    assert_eq!(talk.event(HelperEvent::NotFtp), 1);
    talk.refused(&talk.by_client(b"PORT 10,0,0,1,195,80\r\n"));
    talk.refused(&talk.by_server(b"200 ok\r\n"));
}

#[test]
fn after_ccc_nothing_passes_unread_again() {
    let record = |kind: u8| [&[kind, 3, 3, 0, 26][..], &[b'\n'; 26]].concat();
    let mut talk = Talk::new(&stopping(""));
    talk.client("AUTH TLS\r\n");
    talk.server("234 go\r\n");
    for kind in [22, 23, 21] {
        for from in [0, 1] {
            let bytes = if from == 0 {
                talk.by_client(&record(kind))
            } else {
                talk.by_server(&record(kind))
            };
            talk.passes(&bytes);
            talk.next[from] += 31;
        }
    }
    talk.client("PASV\r\n");
    talk.server("227 Entering Passive Mode (10,0,0,2,195,80)\r\n");
    assert!(talk.syn(50_000).is_forward());
    talk.refused(&talk.by_client(BOUNCE.as_bytes()));
}
