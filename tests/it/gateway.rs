//! A gateway: engine and front end as one, with all packets to send in one outbox.

use std::time::{Duration, Instant, SystemTime};

use portcullis::GatewayWorker;
use portcullis::geneve::front::Outgoing;
use portcullis::{Answered, Config, EndReason, Event, Gateway, Lost, SessionFilter};

use crate::support::packets::{ACK, Ends, RST, SYN, udp};
use crate::support::site::{EPOCH, Inbox, Site, Store};
use crate::support::tunnel::{Kept, Label, datagram, flags, segment, sent};

const WEB: Ends = Ends::v4(4_000, 80);
const THERE: Label = Label::blue(1, 60_001);
const BACK: Label = Label::blue(2, 60_002);

/// A gateway, one worker, and all sent packets.
struct Bench {
    gateway: Gateway,
    worker: GatewayWorker,
    now: Instant,
    sent: Vec<Kept>,
}

impl Bench {
    fn new(text: &str) -> Self {
        let config = Config::from_toml(text, "t.toml").unwrap();
        assert!(!config.engine.tunnel_references, "the gateway sets them");
        let gateway = Gateway::new(&config).unwrap();
        Self {
            worker: gateway.worker(),
            gateway,
            now: Instant::now(),
            sent: Vec::new(),
        }
    }

    /// Decides a packet in a tunnel, and returns the sent packets.
    fn take(&mut self, label: Label, inner: &[u8]) -> Vec<Kept> {
        let payload = label.around(inner);
        let datagrams = [datagram(label.port, &payload)];
        let sent = &mut self.sent;
        self.gateway
            .handle_batch(&mut self.worker, datagrams, self.now, |out| {
                sent.push(kept(&out))
            });
        std::mem::take(sent)
    }

    fn poll(&mut self) -> (Option<Instant>, Vec<Kept>) {
        let sent = &mut self.sent;
        let next = self
            .gateway
            .poll(&mut self.worker, self.now, |out| sent.push(kept(&out)));
        (next, std::mem::take(sent))
    }

    fn establish(&mut self) {
        for (ends, label, flags, seq, ack) in [
            (WEB, THERE, SYN, 100, 0),
            (WEB.back(), BACK, SYN | ACK, 500, 101),
            (WEB, THERE, ACK, 101, 501),
        ] {
            let inner = segment(ends, flags, seq, ack, b"");
            let answers = self.take(label, &inner);
            assert_eq!(answers.len(), 1);
            assert_eq!(sent(&answers[0], label), inner, "it goes back as it came");
        }
    }

    /// The RSTs to both ends, each in the tunnel of its direction.
    #[track_caller]
    fn assert_both_ends_are_reset(&self, answers: &[Kept]) {
        assert_eq!(answers.len(), 2);
        assert_eq!(flags(&sent(&answers[0], THERE)) & RST, RST);
        assert_eq!(flags(&sent(&answers[1], BACK)) & RST, RST);
    }
}

fn kept(out: &Outgoing<'_>) -> Kept {
    Kept::Send(out.tunnel, out.payload.to_vec())
}

#[test]
fn a_session_that_times_out_is_reset_in_its_tunnels_without_further_settings() {
    let mut bench = Bench::new("[policy]\ndefault = \"allow\"");
    assert_eq!(bench.poll(), (None, vec![]), "there is nothing to wait for");
    bench.establish();
    let (next, answers) = bench.poll();
    assert!(next.is_some_and(|next| next > bench.now) && answers.is_empty());
    bench.now += Duration::from_secs(4_000);
    let (next, answers) = bench.poll();
    assert_eq!(next, None);
    bench.assert_both_ends_are_reset(&answers);
    let events: Vec<_> = bench.worker.events().collect();
    assert!(
        matches!(
            events.as_slice(),
            [Event::Opened(_), Event::Ended(_, EndReason::Timeout)]
        ),
        "{events:?}"
    );
}

#[test]
fn a_reload_is_one_call_that_resets_what_it_revokes_and_names_what_waits() {
    let mut bench = Bench::new("[policy]\ndefault = \"allow\"");
    bench.establish();
    let text = "[table]\nmax_sessions = 77\n[geneve]\nlisten = \"10.0.0.1\"";
    let config = Config::from_toml(text, "t.toml").unwrap();
    let Bench {
        gateway,
        worker,
        now,
        sent,
    } = &mut bench;
    let done = gateway
        .reload(worker, &config, *now, |out| sent.push(kept(&out)))
        .unwrap();
    assert_eq!((done.sessions.judged, done.sessions.revoked), (1, 1));
    assert_eq!(done.needs_restart, ["table.max_sessions", "geneve.listen"]);
    let answers = std::mem::take(&mut bench.sent);
    bench.assert_both_ends_are_reset(&answers);
    assert!(
        bench.take(THERE, &udp(Ends::v4(1, 53), b"")).is_empty(),
        "denied now"
    );
    assert!(bench.gateway.config().engine.tunnel_references);
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let mut bench = Bench::new("[policy]\ndefault = \"allow\"");
    let mut config = Config::default();
    config.geneve.unknown_endpoints = Some("nowhere".to_owned());
    let before = bench.gateway.config();
    let Bench {
        gateway,
        worker,
        now,
        ..
    } = &mut bench;
    let error = gateway.reload(worker, &config, *now, |_| panic!("nothing is sent"));
    assert!(error.is_err());
    assert_eq!(bench.gateway.config(), before);
    assert_eq!(bench.take(THERE, &udp(Ends::v4(1, 53), b"")).len(), 1);
}

#[test]
fn sessions_that_an_operator_ends_are_reset() {
    let mut bench = Bench::new("[policy]\ndefault = \"allow\"");
    bench.establish();
    let Bench {
        gateway,
        worker,
        now,
        sent,
    } = &mut bench;
    let ended = gateway.end_sessions(worker, &SessionFilter::default(), *now, |out| {
        sent.push(kept(&out))
    });
    assert_eq!(ended, 1);
    let answers = std::mem::take(&mut bench.sent);
    bench.assert_both_ends_are_reset(&answers);
}

#[test]
fn rejects_are_answered_within_the_budget() {
    let mut bench = Bench::new("[policy]\ndefault = \"reject\"\n[resets]\nper_destination = 5");
    let replies: usize = (0..100)
        .map(|n| {
            bench
                .take(THERE, &segment(Ends::v4(2_000 + n, 80), SYN, 1, 0, b""))
                .len()
        })
        .sum();
    assert_eq!(replies, 5);
    assert_eq!(bench.gateway.stats().unanswered, 95);
    assert_eq!(bench.worker.lost(), Lost::default());
}

#[test]
fn denied_packets_take_at_most_half_of_the_events_that_a_worker_keeps() {
    let text =
        "[policy]\n[[policy.rule]]\nname = \"names\"\naction = \"allow\"\nprotocol = \"udp\"";
    let mut bench = Bench::new(text);
    bench.worker = bench.gateway.worker_with_event_limit(4);
    for n in 0..10 {
        let syn = segment(Ends::v4(2_000 + n, 80), SYN, 1, 0, b"");
        assert!(bench.take(THERE, &syn).is_empty());
    }
    assert_eq!(bench.worker.lost().events, 8);
    for n in 0..3 {
        assert_eq!(
            bench.take(THERE, &udp(Ends::v4(2_000 + n, 53), b"")).len(),
            1
        );
    }
    assert_eq!(bench.worker.lost().events, 9);
    let opened = |event: &Event<'_>| matches!(event, Event::Opened(_));
    assert_eq!(bench.worker.events().filter(opened).count(), 2);
}

/// Opens a number of established sessions, and reads their events.
fn establish_many(bench: &mut Bench, sessions: u16) {
    for n in 0..sessions {
        let ends = Ends::v4(4_000 + n, 80);
        for (ends, label, flags, seq, ack) in [
            (ends, THERE, SYN, 100, 0),
            (ends.back(), BACK, SYN | ACK, 500, 101),
            (ends, THERE, ACK, 101, 501),
        ] {
            let inner = segment(ends, flags, seq, ack, b"");
            assert_eq!(bench.take(label, &inner).len(), 1);
        }
        assert_eq!(bench.worker.events().count(), 1);
    }
    assert_eq!(bench.worker.lost(), Lost::default());
}

const ROOM_FOR_RSTS: &str =
    "[resets]\nper_destination = 10000\n[syn_challenge]\nmode = \"off\"\n[policy]\ndefault = ";

#[test]
fn the_event_limit_of_a_worker_holds_after_a_reload_and_every_rst_is_sent() {
    let mut bench = Bench::new(&format!("{ROOM_FOR_RSTS}\"allow\""));
    bench.worker = bench.gateway.worker_with_event_limit(10);
    establish_many(&mut bench, 600);
    let config = Config::from_toml(&format!("{ROOM_FOR_RSTS}\"deny\""), "t.toml").unwrap();
    let Bench {
        gateway,
        worker,
        now,
        sent,
    } = &mut bench;
    let done = gateway
        .reload(worker, &config, *now, |out| sent.push(kept(&out)))
        .unwrap();
    assert_eq!((done.sessions.revoked, sent.len()), (600, 1_200));
    let ended = |event: &Event<'_>| matches!(event, Event::Ended(..));
    assert!(bench.worker.events().all(|event| ended(&event)));
    assert_eq!(bench.worker.lost().events, 590);
    assert_eq!(bench.worker.lost().packets, 0);
}

#[test]
fn a_worker_keeps_no_memory_of_the_sessions_that_an_operator_ends() {
    let mut bench = Bench::new(&format!("{ROOM_FOR_RSTS}\"allow\""));
    bench.worker = bench.gateway.worker_with_event_limit(10);
    establish_many(&mut bench, 4_000);
    let Bench {
        gateway,
        worker,
        now,
        ..
    } = &mut bench;
    let mut resets = 0;
    let info = allocation_counter::measure(|| {
        gateway.end_sessions(worker, &SessionFilter::default(), *now, |_| resets += 1);
    });
    assert_eq!(resets, 8_000);
    assert!(info.bytes_max > 8_000 * 60, "{info:?}");
    // Room for 1024 RSTs, and for 10 records.
    assert!(info.bytes_current < 200_000, "{info:?}");
    assert_eq!(bench.worker.events().count(), 10);
    assert_eq!(bench.worker.lost().events, 3_990);
}

#[test]
fn packets_that_wait_for_an_answer_come_out_of_a_poll() {
    let text = "[policy]\ndefault = \"allow\"\n[continuity]\nenabled = true";
    let mut bench = Bench::new(text);
    let (first, second) = (
        segment(WEB, ACK, 101, 501, b"one"),
        segment(WEB, ACK, 104, 501, b"two"),
    );
    let mut store = Store::default();
    let mut old = Site::new("[policy]\ndefault = \"allow\"");
    for (ends, flags, seq, ack) in [
        (WEB, SYN, 100, 0),
        (WEB.back(), SYN | ACK, 500, 101),
        (WEB, ACK, 101, 501),
    ] {
        old.take(&segment(ends, flags, seq, ack, b""));
    }
    old.save(&mut store);
    for inner in [&first, &second] {
        assert_eq!(bench.take(THERE, inner), []);
    }
    let wait = Duration::from_millis(1);
    assert_eq!(bench.poll(), (Some(bench.now + wait), vec![]));
    let events: Vec<_> = bench.worker.events().collect();
    let [Event::Question(question)] = events.as_slice() else {
        panic!("{events:?}")
    };
    // Another thread has the answer.
    let answer = store.ask(bench.gateway.engine(), question);
    let at = SystemTime::UNIX_EPOCH + EPOCH;
    let mut inbox = Inbox::default();
    let effect = bench
        .gateway
        .answer(question.id, &answer, bench.now, at, &mut inbox);
    assert_eq!(effect, Answered::Resumed);
    assert_eq!(inbox.released, [question.id]);
    let (_, answers) = bench.poll();
    let inner: Vec<_> = answers.iter().map(|answer| sent(answer, THERE)).collect();
    assert_eq!(inner, [first, second], "in order");
    assert_eq!(bench.gateway.stats().held, 2);

    // Without an answer they come out when their time is over.
    let stray = segment(Ends::v4(4_001, 80), ACK, 101, 501, b"");
    assert_eq!(bench.take(THERE, &stray), []);
    bench.now += Duration::from_millis(10);
    let (_, answers) = bench.poll();
    assert_eq!(answers, []);
    assert_eq!(bench.gateway.engine().stats().dropped_total(), 1);
    assert_eq!(bench.gateway.engine().stats().questions.timed_out, 1);
}
