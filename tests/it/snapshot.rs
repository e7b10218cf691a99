//! Saving and restoring sessions: sessions that continue, sessions that do not, and streams that
//! are refused.

use std::time::{Duration, Instant, SystemTime};

use crate::support::packets::{
    ACK, Ends, FIN, Head, SYN, chunk, dccp, echo, init, other, sctp, tcp, udp,
};
use portcullis::snapshot::VERSION;
use portcullis::{
    Config, Discard, DropReason, EndReason, Engine, Packet, RestoreError, RestoreOptions,
    SavedSession, SessionFilter, SessionRecord, SessionUid, Sink, TunnelRef, Verdict,
};

const ENDS: Ends = Ends::v4(40_000, 80);
const SAVED_AT: SystemTime = SystemTime::UNIX_EPOCH;

fn config(rest: &str) -> Config {
    Config::from_toml(
        &format!("[policy]\ndefault = \"allow\"\n{rest}"),
        "test.toml",
    )
    .expect("a configuration")
}

fn engine(rest: &str) -> Engine {
    Engine::with_seed(&config(rest), [1, 2, 3, 4]).expect("an engine")
}

fn segment(ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flags,
        seq,
        ack,
        window: 1_000,
    };
    tcp(ends, head, &[], payload)
}

fn pass(engine: &Engine, now: Instant, packets: &[Vec<u8>]) {
    for packet in packets {
        let verdict = engine.verdict_only(Packet::new(packet, now));
        assert!(verdict.is_forward(), "{verdict:?}");
    }
}

fn handshake(ends: Ends) -> [Vec<u8>; 3] {
    [
        segment(ends, SYN, 100, 0, b""),
        segment(ends.back(), SYN | ACK, 500, 101, b""),
        segment(ends, ACK, 101, 501, b""),
    ]
}

/// A session of each kind.
fn of_each_kind() -> Vec<Vec<u8>> {
    let gre = |key: u32| {
        let mut payload = vec![0x20, 0, 8, 0];
        payload.extend(key.to_be_bytes());
        payload
    };
    let mut packets = handshake(ENDS).to_vec();
    packets.extend(handshake(Ends::v6(40_001, 443)));
    packets.push(segment(Ends::v4(40_002, 80), SYN, 9, 0, b""));
    packets.extend([
        udp(Ends::v4(5_000, 53), b"?"),
        udp(Ends::v4(5_000, 53).back(), b"!"),
        udp(Ends::v6(53, 5_000), b"?"),
        echo(Ends::v4(7, 7), true),
        echo(Ends::v4(7, 7).back(), true),
        echo(Ends::v6(8, 8), true),
        other(Ends::v4(0, 0), 47, &gre(0x0001_ffff)),
        other(Ends::v4(0, 0), 47, &gre(7)),
        other(Ends::v4(0, 0), 50, &[0, 0, 1, 0, 0, 0, 0, 1]),
        other(Ends::v6(0, 0), 89, b"hello"),
        sctp(Ends::v4(6_000, 6_001), 0, &init(1, 77)),
        sctp(Ends::v4(6_000, 6_001).back(), 77, &init(2, 78)),
        sctp(Ends::v4(6_000, 6_001), 78, &chunk(10, 0, b"cook")),
        dccp(Ends::v4(6_100, 6_101), 0, 5, 0),
        dccp(Ends::v4(6_100, 6_101).back(), 1, 9, 5),
    ]);
    packets
}

fn sessions(engine: &Engine) -> Vec<SessionRecord> {
    let mut all = Vec::new();
    engine.for_each_session(|session| all.push(*session));
    all.sort_by_key(|session| {
        (
            session.protocol,
            session.src,
            session.src_port,
            session.dst,
            session.tunnel,
        )
    });
    all
}

/// Returns all fields of a session except its identifier and its times.
fn told(session: &SessionRecord) -> String {
    let s = session;
    format!(
        "{:?}",
        (
            (s.zone, s.protocol, s.src, s.src_port, s.dst, s.dst_port),
            (s.state, s.assured, s.history, s.original, s.reply, s.tunnel),
            (s.adopted, s.resumed, s.bypassed, s.tunnels)
        )
    )
}

#[test]
fn every_kind_of_session_goes_on_where_it_was() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &of_each_kind());
    let later = now + Duration::from_secs(2);
    let stream = old.save(later, SAVED_AT);
    let new = engine("");
    let done = new
        .restore(&stream, later, SAVED_AT, RestoreOptions::default())
        .unwrap();
    let (before, after) = (sessions(&old), sessions(&new));
    assert_eq!(done.sessions, before.len());
    assert_eq!(before.len(), 14);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(told(before), told(after));
        assert_eq!((before.start, before.last), (after.start, after.last));
        let tick = portcullis::session::TICK;
        assert!(
            after.expires >= before.expires && after.expires <= before.expires + tick,
            "{before:?} {after:?}"
        );
    }
    new.check_invariants().unwrap();
    // The next packet of the connection is valid; one far outside its window is not.
    let right = segment(ENDS, ACK, 101, 501, b"data");
    let far = segment(ENDS, ACK, 200_000, 501, b"data");
    assert!(new.verdict_only(Packet::new(&right, later)).is_forward());
    let verdict = new.verdict_only(Packet::new(&far, later));
    assert_eq!(verdict.reason(), Some(DropReason::TcpSeqAboveWindow));
}

#[test]
fn the_time_between_is_taken_off_each_lifetime() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &of_each_kind());
    let stream = old.save(now, SAVED_AT);
    let gone = Duration::from_secs(100);
    let new = engine("");
    let done = new
        .restore(&stream, now, SAVED_AT + gone, RestoreOptions::default())
        .unwrap();
    // The two established connections, and SCTP's and the others' lifetimes of more than 100 s.
    assert!(done.expired > 0 && done.sessions >= 2, "{done:?}");
    let connection = sessions(&new)
        .into_iter()
        .find(|session| session.protocol == 6)
        .unwrap();
    let left = connection.expires.duration_since(now);
    assert!(
        left > Duration::from_millis(239_900) && left <= Duration::from_millis(240_100),
        "{left:?}"
    );
    assert_eq!(now.duration_since(connection.last), gone);
    // A clock that was set back subtracts nothing.
    let new = engine("");
    let earlier = SAVED_AT + Duration::from_secs(500);
    let stream = old.save(now, earlier);
    assert_eq!(
        new.restore(&stream, now, SAVED_AT, RestoreOptions::default())
            .unwrap()
            .expired,
        0
    );
}

#[test]
fn a_stream_that_is_torn_foreign_or_changed_is_refused_whole() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &of_each_kind());
    let stream = old.save(now, SAVED_AT);
    let new = engine("");
    let refused = |bytes: &[u8]| {
        let error = new
            .restore(bytes, now, SAVED_AT, RestoreOptions::default())
            .unwrap_err();
        assert_eq!(new.sessions(), 0);
        error
    };
    for cut in 0..stream.len() {
        let error = refused(&stream[..cut]);
        assert!(
            matches!(error, RestoreError::Foreign | RestoreError::Torn),
            "{cut}: {error}"
        );
    }
    for place in (0..stream.len()).step_by(7) {
        let mut changed = stream.clone();
        changed[place] ^= 0x10;
        refused(&changed);
    }
    let mut longer = stream.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), RestoreError::Unreadable(_)));
    assert_eq!(refused(b"#!/bin/sh\n"), RestoreError::Foreign);
    let mut next = stream.clone();
    next[8] += 1;
    assert_eq!(refused(&next), RestoreError::Version { found: VERSION + 1 });
    assert_eq!(
        refused(&next).to_string(),
        "the stream has version 5; versions 1 to 4 can be read"
    );
}

/// Returns the ends of the head and of each chunk after it.
fn chunk_ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = vec![20];
    while let Some(length) = stream[ends[ends.len() - 1]..].first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        ends.push(ends[ends.len() - 1] + 4 + length + 8);
    }
    assert_eq!(ends.last(), Some(&stream.len()));
    ends
}

/// Gives every chunk the checksum of a stream that was written like that.
fn sealed(stream: &[u8]) -> Vec<u8> {
    let mut sealed = stream.to_vec();
    for end in chunk_ends(stream).into_iter().skip(1) {
        let mut digest = CRC.digest();
        let mut at = 20;
        digest.update(&sealed[..20]);
        for each in chunk_ends(&sealed)
            .into_iter()
            .skip(1)
            .take_while(|each| *each <= end)
        {
            digest.update(&sealed[at..each - 8]);
            at = each;
        }
        sealed[end - 8..end].copy_from_slice(&digest.finalize().to_le_bytes());
    }
    sealed
}

const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);

/// An engine whose stream has several chunks of sessions.
fn many(now: Instant) -> (Engine, Vec<u8>) {
    let old = engine("");
    for port in 0..2_000 {
        pass(&old, now, &[udp(Ends::v4(10_000 + port, 53), b"?")]);
    }
    let stream = old.save(now, SAVED_AT);
    assert!(chunk_ends(&stream).len() > 4, "{:?}", chunk_ends(&stream));
    assert_eq!(
        sealed(&stream),
        stream,
        "the checksums are those of the format"
    );
    (old, stream)
}

#[test]
fn a_chunk_that_is_missing_repeated_or_in_another_place_is_found() {
    let now = Instant::now();
    let (_, stream) = many(now);
    let ends = chunk_ends(&stream);
    let chunk = |place: usize| &stream[ends[place]..ends[place + 1]];
    let chunks = ends.len() - 1;
    let joined = |places: &[usize]| {
        let mut joined = stream[..20].to_vec();
        for place in places {
            joined.extend(chunk(*place));
        }
        joined
    };
    let whole: Vec<usize> = (0..chunks).collect();
    assert_eq!(joined(&whole), stream);
    let (first, second, last) = (chunks - 3, chunks - 2, chunks - 1);
    let mut missing = whole.clone();
    missing.remove(second);
    let mut repeated = whole.clone();
    repeated.insert(second, second);
    let mut swapped = whole.clone();
    swapped.swap(first, second);
    let mut early = whole.clone();
    early.swap(second, last);
    for places in [missing, repeated, swapped, early] {
        let new = engine("");
        let wrong = joined(&places);
        let refused = |bytes: &[u8]| new.restore(bytes, now, SAVED_AT, RestoreOptions::default());
        assert_eq!(refused(&wrong), Err(RestoreError::Checksum), "{places:?}");
        // With correct checksums, the counts of the last chunk, or the order of the kinds, still
        // reveal the fault.
        let same_set = places.len() == chunks && places != whole && places[last] == last;
        if !same_set {
            assert!(matches!(
                refused(&sealed(&wrong)),
                Err(RestoreError::Unreadable(_))
            ));
        }
        assert_eq!(new.sessions(), 0);
    }
}

#[test]
fn an_unsound_record_at_the_end_changes_nothing() {
    let now = Instant::now();
    let (_, mut stream) = many(now);
    // The protocol of the last session, after its zone: the kind of its addresses must follow it.
    let ends = chunk_ends(&stream);
    let last_chunk = ends[ends.len() - 3]..ends[ends.len() - 2];
    let mut unsound = 0;
    for place in last_chunk.start + 5..last_chunk.end - 8 {
        let before = stream[place];
        stream[place] = if before == 17 { 6 } else { before };
        if before == 17 {
            let new = engine("");
            let refused = new.restore(&sealed(&stream), now, SAVED_AT, RestoreOptions::default());
            unsound += u32::from(
                matches!(refused, Err(RestoreError::Unsound { record, .. }) if record > 1_000),
            );
            assert!(refused.is_ok() || new.sessions() == 0, "{refused:?}");
        }
        stream[place] = before;
    }
    assert!(unsound > 100, "{unsound}");
}

#[test]
fn a_stream_of_the_first_version_is_read() {
    let now = Instant::now();
    let stream = include_bytes!("../support/sessions_v1.bin");
    let new = engine(
        "[[policy.rule]]\nname = \"other\"\naction = \"allow\"\nprotocol = \"udp\"\n\
         [[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         destination_ports = [80]\n",
    );
    let done = new
        .restore(stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!(
        (done.sessions, done.tombstones, done.expectations),
        (15, 1, 1)
    );
    assert_eq!(
        (done.expired, done.refused, done.present, done.no_room),
        (0, 0, 0, 0)
    );
    let web = |session: &&SessionRecord| session.protocol == 6 && session.dst_port == 80;
    let sessions = sessions(&new);
    let of_web: Vec<_> = sessions.iter().filter(web).collect();
    assert_eq!(of_web.len(), 2);
    for session in of_web {
        assert_eq!(new.policy().rule_name(session.rule), "web");
    }
    new.check_invariants().unwrap();
    for cut in 0..stream.len() {
        let new = engine("");
        let error = new.restore(&stream[..cut], now, SAVED_AT, RestoreOptions::default());
        assert!(
            matches!(error, Err(RestoreError::Foreign | RestoreError::Torn)),
            "{cut}"
        );
        assert_eq!(new.sessions(), 0);
    }
    let mut changed = stream.to_vec();
    changed[500] ^= 1;
    let error = new.restore(&changed, now, SAVED_AT, RestoreOptions::default());
    assert_eq!(error, Err(RestoreError::Checksum));
}

/// Three sessions of the second version: a control session that has announced port 50000 of its
/// server, one that was stopped at the client's next byte, and one of HTTP.
#[test]
fn a_stream_of_the_second_version_is_read() {
    let now = Instant::now();
    let stream = include_bytes!("../support/sessions_v2.bin");
    let new = Engine::with_seed(
        &Config::from_toml(
            "[ftp]\nrefused = \"drop\"\n[policy]\ndefault = \"deny\"\n\
             [[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             destination_ports = [80]\n\
             [[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
             destination_ports = [21]\n",
            "test.toml",
        )
        .unwrap(),
        [1, 2, 3, 4],
    )
    .unwrap();
    let done = new
        .restore(stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!(
        (done.sessions, done.tombstones, done.expectations),
        (3, 0, 1)
    );
    new.check_invariants().unwrap();
    let decide = |ends, flags, seq, ack, text: &[u8]| {
        let packet = segment(ends, flags, seq, ack, text);
        new.verdict_only(Packet::new(&packet, now)).reason()
    };
    let control = Ends::v4(4000, 21);
    let data = Ends {
        src_port: 41_000,
        dst_port: 50_000,
        ..control
    };
    assert_eq!(decide(data, SYN, 9_000, 0, b""), None);
    // The control session continues after 107 bytes of the client and the server's replies.
    let server = 512 + "227 Entering Passive Mode (10,0,0,2,195,80)\r\n".len() as u32;
    assert_eq!(decide(control, ACK, 107, server, b"NOOP\r\n"), None);
    assert_eq!(
        decide(control.back(), ACK, server, 113, b"200 fine\r\n"),
        None
    );
    let stopped = Ends::v4(4001, 21);
    assert_eq!(
        decide(stopped, ACK, 101, 512, b"NOOP\r\n"),
        Some(DropReason::FtpRefused)
    );
    assert_eq!(
        new.sessions(),
        3,
        "the stopped one has ended, and the data session came"
    );
}

#[test]
fn a_stream_of_the_third_version_is_read_and_its_sessions_get_identifiers() {
    let now = Instant::now();
    let stream = include_bytes!("../support/sessions_v3.bin");
    let new = engine("");
    let done = new
        .restore(stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!((done.sessions, done.tombstones), (2, 0));
    new.check_invariants().unwrap();
    for session in sessions(&new) {
        assert_eq!(session.uid.session(), session.id);
    }
    let more = segment(Ends::v4(40_000, 80), ACK, 101, 501, b"data");
    assert!(new.verdict_only(Packet::new(&more, now)).is_forward());
}

/// Collects the identifiers of sessions that end.
#[derive(Default)]
struct EndedUids(Vec<SessionUid>);

impl Sink for EndedUids {
    fn session_ended(&mut self, session: &SessionRecord, _: EndReason) {
        self.0.push(session.uid);
    }
}

#[test]
fn an_identifier_stays_over_two_restarts_and_ends_with_its_session() {
    let now = Instant::now();
    let uids = |engine: &Engine| -> Vec<_> {
        let all = sessions(engine);
        all.iter().map(|session| session.uid).collect()
    };
    let restarted = |old: &Engine| {
        let new = Engine::new(&config("")).unwrap();
        let stream = old.save(now, SAVED_AT);
        new.restore(&stream, now, SAVED_AT, RestoreOptions::default())
            .unwrap();
        new
    };
    let first = Engine::new(&config("")).unwrap();
    pass(&first, now, &of_each_kind());
    let opened = uids(&first);
    assert!(opened.iter().all(|uid| uid.engine() == opened[0].engine()));
    let second = restarted(&first);
    pass(&second, now, &handshake(Ends::v4(41_000, 80)));
    let third = restarted(&second);
    let (before, after) = (uids(&second), uids(&third));
    assert_eq!(before, after);
    assert!(opened.iter().all(|uid| after.contains(uid)));
    let own = |uid: &&SessionUid| uid.engine() != opened[0].engine();
    assert_eq!(
        after.iter().filter(own).count(),
        1,
        "the session of the second engine"
    );
    third.check_invariants().unwrap();
    let mut ended = EndedUids::default();
    third.end_sessions(&SessionFilter::default(), now, &mut ended);
    let mut ended = ended.0;
    let mut after = after;
    ended.sort();
    after.sort();
    assert_eq!(ended, after);
    third.check_invariants().unwrap();
    // The slots serve new sessions, which are the third engine's own.
    pass(&third, now, &of_each_kind());
    for session in sessions(&third) {
        assert_eq!(session.uid.session(), session.id);
        assert!(!before.contains(&session.uid));
    }
}

/// Fails after some bytes.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_place_that_is_full_is_an_error_and_what_is_written_is_counted() {
    let now = Instant::now();
    let (old, stream) = many(now);
    let saved = old.save_to(now, SAVED_AT, &mut Full(stream.len())).unwrap();
    assert_eq!((saved.sessions, saved.bytes), (2_000, stream.len() as u64));
    for room in [0, 20, 40_000, stream.len() - 1] {
        let error = old.save_to(now, SAVED_AT, &mut Full(room)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{room}");
    }
}

#[test]
fn the_memory_of_a_save_does_not_grow_with_the_sessions_and_that_of_a_restore_by_identifiers() {
    use allocation_counter::measure;
    let now = Instant::now();
    let peaks = [500, 5_000].map(|sessions| {
        // One source has at most half of the table.
        let rest = "[table]\nmax_sessions = 16384\n";
        let old = engine(rest);
        for n in 0..sessions {
            pass(&old, now, &handshake(Ends::v4(10_000 + n, 80)));
        }
        let stream = old.save(now, SAVED_AT);
        let saved = measure(|| {
            old.save_to(now, SAVED_AT, &mut std::io::sink()).unwrap();
        });
        let new = engine(rest);
        let mut input = std::io::Cursor::new(&stream);
        let restored = measure(|| {
            let options = RestoreOptions::default();
            let done = new
                .restore_from(&mut input, now, SAVED_AT, options)
                .unwrap();
            assert_eq!(done.sessions, usize::from(sessions));
        });
        (stream.len() as u64, saved.bytes_max, restored.bytes_max)
    });
    let [
        (few, save_few, restore_few),
        (many, save_many, restore_many),
    ] = peaks;
    assert!(many > 9 * few);
    assert!(save_few.max(save_many) < 256 << 10, "{peaks:?}");
    assert!(save_many < save_few + (64 << 10), "{peaks:?}");
    let identifiers = 4_500 * 48;
    assert!(restore_few < 256 << 10, "{peaks:?}");
    assert!(restore_many < restore_few + identifiers, "{peaks:?}");
}

#[test]
fn a_stream_with_any_change_is_refused_or_sound_and_takes_no_more_memory() {
    use allocation_counter::measure;
    let now = Instant::now();
    let small = "[table]\nmax_sessions = 512\nshards = 4\n[tombstones]\nmax = 256\n";
    let old = engine(small);
    pass(&old, now, &of_each_kind());
    let stream = old.save(now, SAVED_AT);
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let (mut restored, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let mut changed = stream.clone();
        let ends = chunk_ends(&stream);
        for _ in 0..1 + next() % 3 {
            // Within the records of some chunk, so that the checksums can be made right.
            let chunk = next() % (ends.len() - 1);
            let records = ends[chunk] + 5..ends[chunk + 1] - 8;
            let at = records.start + next() % records.len();
            changed[at] = match next() % 4 {
                0 => changed[at] ^ 1 << (next() % 8),
                1 => next() as u8,
                2 => 0xff,
                _ => 0,
            };
        }
        let changed = sealed(&changed);
        let new = engine(small);
        let mut outcome = None;
        let used = measure(|| {
            outcome = Some(new.restore(&changed, now, SAVED_AT, RestoreOptions::default()));
        });
        assert!(used.bytes_max < 1 << 20, "{} bytes", used.bytes_max);
        new.check_invariants().unwrap();
        match outcome.unwrap() {
            Err(_) => {
                assert_eq!(new.sessions(), 0);
                refused += 1;
            }
            Ok(_) => {
                let again = new.save(now, SAVED_AT);
                let third = engine(small);
                third
                    .restore(&again, now, SAVED_AT, RestoreOptions::default())
                    .expect("what was restored is saved so that it can be restored");
                restored += 1;
            }
        }
    }
    assert!(restored > 500 && refused > 500, "{restored} {refused}");
}

#[test]
fn a_stream_may_stand_behind_something_else() {
    let now = Instant::now();
    let (_, stream) = many(now);
    let mut file = std::io::Cursor::new([b"head".as_slice(), &stream].concat());
    file.set_position(4);
    let new = engine("");
    let done = new.restore_from(&mut file, now, SAVED_AT, RestoreOptions::default());
    assert_eq!(done.unwrap().sessions, 2_000);
}

#[test]
fn a_record_that_no_session_can_be_is_refused() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &handshake(ENDS));
    let mut sound = None;
    old.for_each_saved(now, |session| sound = Some(*session));
    let sound = sound.unwrap();
    let mut mixed = sound;
    mixed.dst = "2001:db8::1".parse().unwrap();
    let mut other_protocol = sound;
    other_protocol.protocol = 17;
    let mut kind = sound;
    kind.variant = portcullis::session::Variant::IcmpQuery(1);
    for wrong in [mixed, other_protocol, kind] {
        let new = engine("");
        let inserted = new.insert_saved(&wrong, now, Duration::ZERO, RestoreOptions::default());
        assert!(
            matches!(inserted, Err(RestoreError::Unsound { record: 0, .. })),
            "{inserted:?}"
        );
        assert_eq!(new.sessions(), 0);
    }
    let new = engine("");
    let inserted = new.insert_saved(&sound, now, Duration::ZERO, RestoreOptions::default());
    assert!(matches!(inserted, Ok(Some(_))));
    let again = new.insert_saved(&sound, now, Duration::ZERO, RestoreOptions::default());
    assert_eq!(again, Ok(None), "it is there already");
}

#[test]
fn the_policy_of_the_new_engine_decides() {
    let now = Instant::now();
    let old = engine(
        "[[policy.rule]]\nname = \"web\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
         destination_ports = 80",
    );
    pass(&old, now, &of_each_kind());
    let stream = old.save(now, SAVED_AT);
    let only_web = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"other\"\n\
                    action = \"deny\"\n\
                    protocol = \"udp\"\n[[policy.rule]]\nname = \"web\"\naction = \"allow\"\n\
                    protocol = \"tcp\"\n\
                    destination_ports = 80";
    let strict = Config::from_toml(only_web, "test.toml").unwrap();
    let new = Engine::with_seed(&strict, [1; 4]).unwrap();
    let done = new
        .restore(&stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!((done.sessions, done.refused), (2, 12));
    for session in sessions(&new) {
        assert_eq!(new.policy().rule_name(session.rule), "web");
    }
    let keeping = only_web.replace("[policy]\n", "[policy]\non_reload = \"keep\"\n");
    let new =
        Engine::with_seed(&Config::from_toml(&keeping, "test.toml").unwrap(), [1; 4]).unwrap();
    let done = new
        .restore(&stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!((done.sessions, done.refused), (14, 0));
}

#[test]
fn tombstones_are_restored() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &handshake(ENDS));
    let ended = now + Duration::from_secs(341);
    assert_eq!(old.expire_with(ended, usize::MAX, &mut Discard).ended, 1);
    let stream = old.save(ended, SAVED_AT);
    let new = engine("");
    let done = new
        .restore(&stream, ended, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!(done.tombstones, 1);
    let late = segment(ENDS, ACK, 101, 501, b"still there?");
    let (was, is) = (
        old.verdict_only(Packet::new(&late, ended)),
        new.verdict_only(Packet::new(&late, ended)),
    );
    assert!(
        matches!(is, Verdict::Reject(DropReason::TcpAfterTimeout, ..)),
        "{is:?}"
    );
    assert_eq!(was.reason(), is.reason());
    // Its lifetime continues, too.
    let much_later = SAVED_AT + Duration::from_secs(600);
    let done = engine("")
        .restore(&stream, ended, much_later, RestoreOptions::default())
        .unwrap();
    assert_eq!((done.sessions, done.tombstones), (0, 0), "{done:?}");
}

#[test]
fn tunnel_references_are_restored_only_where_they_mean_the_same() {
    let now = Instant::now();
    let tunnels = "[engine]\ntunnel_references = true";
    let old = engine(tunnels);
    let syn = segment(ENDS, SYN, 1, 0, b"");
    let answer = segment(ENDS.back(), SYN | ACK, 9, 2, b"");
    for (packet, tunnel) in [(&syn, 5), (&answer, 6)] {
        assert!(
            old.verdict_only(Packet::new(packet, now).tunnel(TunnelRef(tunnel)))
                .is_forward()
        );
    }
    let stream = old.save(now, SAVED_AT);
    for (taken, expected) in [
        (true, [TunnelRef(5), TunnelRef(6)]),
        (false, [TunnelRef::NONE; 2]),
    ] {
        let new = engine(tunnels);
        let options = RestoreOptions {
            tunnels: taken,
            ..RestoreOptions::default()
        };
        assert_eq!(
            new.restore(&stream, now, SAVED_AT, options)
                .unwrap()
                .sessions,
            1
        );
        assert_eq!(sessions(&new)[0].tunnels, expected);
    }
}

#[test]
fn a_full_table_takes_what_it_has_room_for() {
    let now = Instant::now();
    let old = engine("");
    for port in 0..100 {
        pass(&old, now, &handshake(Ends::v4(10_000 + port, 80)));
    }
    let stream = old.save(now, SAVED_AT);
    let new = engine("[table]\nmax_sessions = 32");
    let done = new
        .restore(&stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!((done.sessions, done.no_room), (32, 68));
    new.check_invariants().unwrap();
}

#[test]
fn a_control_session_is_listened_to_and_its_child_stays_its_child() {
    let now = Instant::now();
    let control = Ends::v4(40_100, 21);
    let only_ftp = "[policy]\ndefault = \"deny\"\n[[policy.rule]]\nname = \"ftp\"\n\
                    action = \"allow\"\n\
                    protocol = \"tcp\"\ndestination_ports = 21";
    let only_ftp = Config::from_toml(only_ftp, "test.toml").unwrap();
    let old = Engine::with_seed(&only_ftp, [1; 4]).unwrap();
    pass(&old, now, &handshake(control));
    let welcome = b"220 ready\r\n";
    let epsv = b"EPSV\r\n";
    let entering = b"229 Entering Extended Passive Mode (|||50000|)\r\n";
    let (mut seq, mut ack) = (101, 501);
    let mut talk = |engine: &Engine, from_client: bool, text: &[u8]| {
        let packet = if from_client {
            segment(control, ACK, seq, ack, text)
        } else {
            segment(control.back(), ACK, ack, seq, text)
        };
        pass(engine, now, &[packet]);
        *(if from_client { &mut seq } else { &mut ack }) += text.len() as u32;
    };
    talk(&old, false, welcome);
    talk(&old, true, epsv);
    talk(&old, false, entering);
    pass(&old, now, &handshake(Ends::v4(50_100, 50_000)));
    let stream = old.save(now, SAVED_AT);
    let new = Engine::with_seed(&only_ftp, [2; 4]).unwrap();
    let done = new
        .restore(&stream, now, SAVED_AT, RestoreOptions::default())
        .unwrap();
    assert_eq!(done.sessions, 2);
    let all = sessions(&new);
    let parent = all.iter().find(|session| session.dst_port == 21).unwrap();
    let child = all
        .iter()
        .find(|session| session.dst_port == 50_000)
        .unwrap();
    assert_eq!(child.parent, Some(parent.id));
    assert_eq!(child.parent_uid, Some(parent.uid));
    // The next transfer is announced to the new engine.
    talk(&new, true, epsv);
    talk(
        &new,
        false,
        b"229 Entering Extended Passive Mode (|||50001|)\r\n",
    );
    pass(&new, now, &handshake(Ends::v4(50_101, 50_001)));
}

#[test]
fn a_closing_connection_goes_on_closing() {
    let now = Instant::now();
    let old = engine("");
    pass(&old, now, &handshake(ENDS));
    pass(&old, now, &[segment(ENDS, FIN | ACK, 101, 501, b"")]);
    let mut saved: Vec<SavedSession> = Vec::new();
    old.for_each_saved(now, |session| saved.push(*session));
    let new = engine("");
    new.insert_saved(&saved[0], now, Duration::ZERO, RestoreOptions::default())
        .unwrap();
    pass(
        &new,
        now,
        &[
            segment(ENDS.back(), FIN | ACK, 501, 102, b""),
            segment(ENDS, ACK, 102, 502, b""),
        ],
    );
    assert_eq!(sessions(&new)[0].state, "TIME_WAIT");
}
