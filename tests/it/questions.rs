//! Packets of sessions that another engine had: held, asked for, and decided after the answer.

use std::time::SystemTime;

use crate::support::packets::{
    ACK, Ends, FIN, Head, RST, SYN, chunk, dccp, echo, icmp, init, other, sctp, tcp, udp,
    unreachable,
};
use crate::support::scene::segment;
use crate::support::site::{Site, Store};
use portcullis::continuity::Claim;
use portcullis::{Answer, Answered, HoldId, Packet, QuestionKind, Unasked, Verdict, Zone};

/// Host 1 may call host 2; nothing else is allowed.
const FROM_1: &str = "[[policy.rule]]\nname = \"from-1\"\naction = \"allow\"\n\
                      source = [\"10.0.0.1/32\", \"2001:db8::1/128\"]\n";
const ONLY_21: &str = "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                       destination_ports = 21\n";
const ENDS: Ends = Ends::v4(4000, 80);

/// Opens a TCP session. The next bytes are 101 from the initiator and 501 from the responder.
fn connect(site: &mut Site, ends: Ends) {
    assert_eq!(site.take(&segment(ends, SYN, 100, 0, b"")), ["forward"]);
    let answer = segment(ends.back(), SYN | ACK, 500, 101, b"");
    assert_eq!(site.take(&answer), ["forward"]);
    assert_eq!(site.take(&segment(ends, ACK, 101, 501, b"")), ["forward"]);
}

/// Returns a store with the sessions that one engine has.
fn stored(toml: &str, open: impl FnOnce(&mut Site)) -> Store {
    let (mut old, mut store) = (Site::new(toml), Store::default());
    open(&mut old);
    old.save(&mut store);
    store
}

#[test]
fn a_connection_goes_on_in_an_engine_that_has_never_seen_it() {
    for ends in [ENDS, Ends::v6(4000, 80)] {
        let store = stored(FROM_1, |old| connect(old, ends));
        for from_responder in [false, true] {
            let mut new = Site::new(FROM_1);
            let (first, second) = (
                segment(ends, ACK, 101, 501, b"request"),
                segment(ends.back(), ACK, 501, 101, b"answer"),
            );
            let first = if from_responder { &second } else { &first };
            assert_eq!(new.take(first), ["hold"]);
            assert_eq!(new.engine.sessions(), 0, "nothing is decided yet");
            assert_eq!(new.ask(&store), [Answered::Resumed]);
            assert_eq!(new.ready(), ["forward"]);
            let stats = new.stats();
            assert_eq!(stats.asked_for(QuestionKind::Session), 1);
            assert_eq!(stats.answered_by(Answered::Resumed), 1);
            assert_eq!((stats.packets_held, stats.held, stats.open), (1, 0, 0));
            assert_eq!(new.engine.stats().forwarded_total(), 1, "counted once");
            assert_eq!(new.engine.stats().fragments_held, 0);
        }
    }
}

#[test]
fn segments_of_both_directions_wait_for_one_answer_and_come_out_in_order() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    let mut new = Site::new(FROM_1);
    assert_eq!(new.take(&segment(ENDS, ACK, 101, 501, b"one")), ["hold"]);
    let back = segment(ENDS.back(), ACK, 501, 104, b"two");
    assert_eq!(new.take(&back), ["hold"]);
    assert_eq!(new.take(&segment(ENDS, ACK, 104, 504, b"three")), ["hold"]);
    let stats = new.stats();
    assert_eq!((stats.open, stats.held), (1, 3));
    assert_eq!(stats.held_bytes, 3 * 40 + 3 + 3 + 5);
    assert_eq!(new.ask(&store), [Answered::Resumed], "one question");
    assert_eq!(new.ready(), ["forward", "forward", "forward"]);
    assert_eq!(new.stats().held_bytes, 0);
}

#[test]
fn without_a_record_a_packet_is_decided_as_if_there_were_no_store() {
    for answer in [Answer::Nothing, Answer::NoStore] {
        let mut new = Site::new(FROM_1);
        let stray = segment(ENDS, ACK, 101, 501, b"stray");
        assert_eq!(new.take(&stray), ["hold"]);
        let question = new.question();
        let effect = new.answer(question.id, &answer);
        assert_eq!(
            effect.name(),
            if answer == Answer::Nothing {
                "nothing"
            } else {
                "no_store"
            }
        );
        assert_eq!(new.ready(), ["tcp_no_session"]);
        // It is not asked about again for a second.
        assert_eq!(new.take(&stray), ["tcp_no_session"]);
        new.wait(999);
        assert_eq!(new.take(&stray), ["tcp_no_session"]);
        assert_eq!(new.stats().unasked_for(Unasked::Nothing), 2);
        new.wait(2);
        assert_eq!(new.take(&stray), ["hold"]);
    }
}

#[test]
fn a_question_without_an_answer_is_given_up_after_its_time() {
    let mut new = Site::new(FROM_1);
    let stray = segment(ENDS, ACK, 101, 501, b"stray");
    assert_eq!(new.take(&stray), ["hold"]);
    new.wait(9);
    assert_eq!(new.ready(), [""; 0]);
    assert_eq!(new.take(&stray), ["hold"]);
    new.wait(1);
    assert_eq!(new.ready(), ["tcp_no_session", "tcp_no_session"]);
    new.engine.expire_with(new.now, 100, &mut new.inbox);
    let stats = new.stats();
    assert_eq!((stats.timed_out, stats.open, stats.held), (1, 0, 0));
    assert_eq!(new.take(&stray), ["tcp_no_session"], "remembered");
}

#[test]
fn a_packet_after_the_time_gives_its_question_up() {
    let mut new = Site::new(FROM_1);
    let stray = segment(ENDS, ACK, 101, 501, b"stray");
    assert_eq!(new.take(&stray), ["hold"]);
    new.wait(10);
    // The earlier one comes out after it, as it was not asked for in between.
    assert_eq!(new.take(&stray), ["tcp_no_session", "tcp_no_session"]);
    assert_eq!((new.stats().timed_out, new.stats().held), (1, 0));
}

#[test]
fn a_late_answer_resumes_the_session() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    let mut new = Site::new(FROM_1);
    let segment = segment(ENDS, ACK, 101, 501, b"request");
    assert_eq!(new.take(&segment), ["hold"]);
    new.wait(50);
    new.engine.expire_with(new.now, 100, &mut new.inbox);
    assert_eq!(new.ready(), ["tcp_no_session"]);
    let question = new.question();
    let answer = store.ask(&new.engine, &question);
    assert_eq!(new.answer(question.id, &answer), Answered::Resumed);
    assert_eq!(new.answer(question.id, &answer), Answered::Unknown);
    assert_eq!(new.stats().late, 1);
    assert_eq!(new.take(&segment), ["forward"]);
}

#[test]
fn only_the_first_answer_to_a_question_counts() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    let mut new = Site::new(FROM_1);
    assert_eq!(
        new.take(&segment(ENDS, ACK, 101, 501, b"request")),
        ["hold"]
    );
    let question = new.question();
    let record = store.ask(&new.engine, &question);
    assert_eq!(new.answer(question.id, &Answer::Nothing), Answered::Nothing);
    assert_eq!(new.answer(question.id, &record), Answered::Unknown);
    assert_eq!(new.engine.sessions(), 0);
    assert_eq!(new.stats().answered_by(Answered::Unknown), 1);
}

#[test]
fn an_answer_to_another_question_changes_nothing() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    // The identifier of held fragments, and that of a question of another engine.
    let mut holder = Site::new("[policy]\ndefault = \"allow\"");
    let mut fragment = udp(ENDS, &[7; 16]);
    fragment[6..8].copy_from_slice(&1u16.to_be_bytes());
    let fragment = crate::support::seal::sealed(fragment);
    let packet = Packet::new(&fragment, holder.now).can_hold(true);
    let Verdict::Hold(of_fragments, _) = holder.engine.process_with(packet, &mut holder.inbox)
    else {
        panic!("a later fragment is held")
    };
    assert!(!of_fragments.is_question());
    let mut elsewhere = Site::new(FROM_1);
    for port in 1..=3 {
        elsewhere.take(&segment(Ends::v4(port, 80), ACK, 1, 1, b""));
    }
    let foreign = elsewhere.inbox.questions.pop_back().unwrap().id;

    let mut new = Site::new(FROM_1);
    assert_eq!(
        new.take(&segment(ENDS, ACK, 101, 501, b"request")),
        ["hold"]
    );
    let question = new.question();
    let record = store.ask(&new.engine, &question);
    for id in [of_fragments, foreign] {
        assert_eq!(new.answer(id, &record), Answered::Unknown);
    }
    assert_eq!((new.ready(), new.engine.sessions()), (vec![], 0));
    // An engine without a store has no questions.
    let mut without = Site::of(FROM_1);
    assert_eq!(without.answer(question.id, &record), Answered::Unknown);
}

#[test]
fn a_record_of_another_flow_or_kind_is_refused() {
    let other = Ends::v4(4001, 80);
    let store = stored(FROM_1, |old| connect(old, other));
    let mut asker = Site::new(FROM_1);
    assert_eq!(asker.take(&segment(other, ACK, 101, 501, b"x")), ["hold"]);
    let question = asker.question();
    let of_other = store.ask(&asker.engine, &question);
    let mut ftp = Site::new(ONLY_21);
    let announced = announce(&mut ftp);
    for answer in [
        of_other,
        announced,
        Answer::Owned,
        Answer::Unreadable,
        Answer::Moved(Claim {
            epoch: 7,
            began: SystemTime::UNIX_EPOCH,
            adopted: false,
        }),
    ] {
        let mut new = Site::new(FROM_1);
        assert_eq!(new.take(&segment(ENDS, ACK, 101, 501, b"x")), ["hold"]);
        let question = new.question();
        assert_eq!(new.answer(question.id, &answer), Answered::Foreign);
        assert_eq!(new.ready(), ["tcp_no_session"]);
        assert_eq!(new.engine.sessions(), 0);
    }
}

#[test]
fn a_record_that_cannot_be_a_session_here_is_refused() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    let segment = segment(ENDS, ACK, 101, 501, b"x");
    // The policy of the new engine lets host 2 call and not host 1.
    let to_1 = "[[policy.rule]]\nname = \"from-2\"\naction = \"allow\"\nsource = \"10.0.0.2/32\"\n";
    let mut new = Site::new(to_1);
    assert_eq!(new.take_with(&store, &segment), ["hold", "tcp_no_session"]);
    assert_eq!(new.stats().answered_by(Answered::Refused), 1);
    assert_eq!(
        new.take(&segment),
        ["tcp_no_session"],
        "and is not asked about again"
    );
    // The session was over long ago.
    let mut new = Site::new(FROM_1);
    new.wait(1_000_000_000);
    assert_eq!(new.take_with(&store, &segment), ["hold", "tcp_no_session"]);
    assert_eq!(new.stats().answered_by(Answered::Expired), 1);
    // There is no room.
    let small = format!("{FROM_1}\n[table]\nmax_sessions = 1\n");
    let mut new = Site::new(&small);
    connect(&mut new, Ends::v4(9, 80));
    assert_eq!(new.take_with(&store, &segment), ["hold", "tcp_no_session"]);
    assert_eq!(new.stats().answered_by(Answered::NoRoom), 1);
    // The session is there by now.
    let mut new = Site::new(FROM_1);
    assert_eq!(new.take(&segment), ["hold"]);
    let mut held = Site::new(FROM_1);
    connect(&mut held, ENDS);
    let question = new.question();
    let answer = store.ask(&new.engine, &question);
    connect(&mut new, ENDS);
    let effect = new.answer(question.id, &answer);
    assert!(
        matches!(effect, Answered::Present | Answered::Upgraded),
        "{effect:?}"
    );
    assert_eq!(new.engine.sessions(), 1);
}

#[test]
fn datagrams_that_answer_a_moved_session_pass_and_others_do_not() {
    let asked = Ends::v4(4000, 53);
    let (query, reply) = (udp(asked, b"query"), udp(asked.back(), b"reply"));
    let ping = Ends::v4(7, 7);
    let (request, pong) = (echo(ping, true), echo(ping.back(), false));
    let tunnel = Ends::v4(0, 0);
    let (out, back) = (
        other(tunnel, 97, b"etherip"),
        other(tunnel.back(), 97, b"etherip"),
    );
    let store = stored(FROM_1, |old| {
        for packet in [&query, &reply, &request, &pong, &out, &back] {
            assert_eq!(old.take(packet), ["forward"]);
        }
    });
    for packet in [&reply, &pong, &back] {
        let mut new = Site::new(FROM_1);
        assert_eq!(new.take_with(&store, packet), ["hold", "forward"]);
        let mut new = Site::new(FROM_1);
        let decided = new.take_with(&Store::default(), packet);
        let reason = if packet == &pong {
            "icmp_reply_no_session"
        } else {
            "policy_deny"
        };
        assert_eq!(decided, ["hold", reason]);
        // What the policy admits opens a session, and nobody is asked.
        assert_eq!(Site::new(FROM_1).take(&query), ["forward"]);
    }
}

#[test]
fn an_icmp_error_finds_the_session_that_has_moved() {
    for (ends, v6) in [(ENDS, false), (Ends::v6(4000, 80), true)] {
        let datagram = udp(ends, b"too long");
        let store = stored(FROM_1, |old| {
            connect(old, ends);
            assert_eq!(old.take(&datagram), ["forward"]);
            assert_eq!(old.take(&udp(ends.back(), b"reply")), ["forward"]);
        });
        let sent = segment(ends, ACK, 101, 501, b"too long");
        let answered = segment(ends.back(), ACK, 501, 101, b"too long");
        for quoted in [&sent, &answered, &datagram] {
            let to = if quoted == &answered { 2 } else { 1 };
            let error = unreachable(v6, to, quoted);
            let mut new = Site::new(FROM_1);
            assert_eq!(new.take_with(&store, &error), ["hold", "forward"]);
            assert_eq!(new.stats().answered_by(Answered::Resumed), 1);
            let mut new = Site::new(FROM_1);
            let nothing = new.take_with(&Store::default(), &error);
            assert_eq!(nothing, ["hold", "icmp_error_no_session"]);
            assert_eq!(new.take(&error), ["icmp_error_no_session"], "not again");
        }
        // The error is checked against the session that the record brings.
        let forged = unreachable(v6, 1, &segment(ends, ACK, 900_000_000, 501, b"guess"));
        let mut new = Site::new(FROM_1);
        let decided = new.take_with(&store, &forged);
        assert_eq!(decided.first(), Some(&"hold"));
        // To another host than the sender of the quoted packet, and about what nobody may send.
        let elsewhere = unreachable(v6, 3, &sent);
        assert_eq!(
            Site::new(FROM_1).take(&elsewhere),
            ["icmp_error_no_session"]
        );
        let denied = unreachable(v6, 3, &udp(between_others(ends), b"denied"));
        assert_eq!(Site::new(FROM_1).take(&denied), ["icmp_error_no_session"]);
    }
}

/// Half of the rate is for the ends of sessions that have moved, and not for whoever reports an
/// error to one of them.
#[test]
fn the_sender_of_an_icmp_error_is_not_an_end_of_its_session() {
    let store = stored(FROM_1, |old| connect(old, ENDS));
    let error = unreachable(false, 1, &segment(ENDS, ACK, 101, 501, b"too long"));
    let mut new = Site::of(&format!(
        "{FROM_1}[continuity]\nenabled = true\nquestions = 2\n"
    ));
    assert_eq!(new.take_with(&store, &error), ["hold", "forward"]);
    let stray = |src: u8, port| {
        let ends = Ends {
            src,
            dst: 1,
            ..Ends::v4(port, 9)
        };
        segment(ends, ACK, 101, 501, b"stray")
    };
    // Of the half for all, three quarters are left.
    assert_eq!(new.take_with(&store, &stray(200, 7)), ["tcp_no_session"]);
    assert_eq!(new.stats().unasked_for(Unasked::OverallBudget), 1);
    let of_server = new.take_with(&store, &stray(2, 7));
    assert_eq!(of_server, ["hold", "tcp_no_session"]);
}

/// Returns ends that no rule names.
const fn between_others(ends: Ends) -> Ends {
    Ends {
        src: 3,
        dst: 4,
        ..ends
    }
}

#[test]
fn associations_of_sctp_and_dccp_go_on() {
    let ends = Ends::v4(4000, 2905);
    let store = stored(FROM_1, |old| {
        let init_ack = sctp(ends.back(), 0xa, &init(2, 0xb));
        let echo = sctp(ends, 0xb, &chunk(10, 0, b"cookies!"));
        let ack = sctp(ends.back(), 0xa, &chunk(11, 0, b""));
        for packet in [sctp(ends, 0, &init(1, 0xa)), init_ack, echo, ack] {
            assert_eq!(old.take(&packet), ["forward"]);
        }
        for packet in [
            dccp(ends, 0, 1, 0),
            dccp(ends.back(), 1, 1, 1),
            dccp(ends, 3, 2, 1),
        ] {
            assert_eq!(old.take(&packet), ["forward"]);
        }
    });
    let heartbeat = sctp(ends.back(), 0xa, &chunk(4, 0, &[0, 1, 0, 4]));
    let mut new = Site::new(FROM_1);
    assert_eq!(new.take_with(&store, &heartbeat), ["hold", "forward"]);
    let data = dccp(ends.back(), 4, 2, 2);
    assert_eq!(new.take_with(&store, &data), ["hold", "forward"]);
    let mut new = Site::new(FROM_1);
    let nothing = Store::default();
    assert_eq!(
        new.take_with(&nothing, &heartbeat),
        ["hold", "sctp_no_session"]
    );
    assert_eq!(new.take_with(&nothing, &data), ["hold", "dccp_no_session"]);
}

#[test]
fn packets_that_no_session_elsewhere_could_explain_ask_nothing() {
    let cases = [
        ("a RST", segment(ENDS, RST, 101, 0, b""), "tcp_no_session"),
        (
            "a SYN-ACK",
            segment(ENDS.back(), SYN | ACK, 5, 6, b""),
            "tcp_syn_ack_without_syn",
        ),
        ("an INIT", sctp(ENDS.back(), 0, &init(1, 7)), "policy_deny"),
        ("a request", dccp(ENDS.back(), 0, 1, 0), "policy_deny"),
        ("a ping", echo(ENDS.back(), true), "policy_deny"),
        (
            "a message",
            icmp(ENDS.back(), 200, [0; 4], b""),
            "policy_deny",
        ),
        ("hosts 3 and 4", between(3, 4, ACK), "tcp_no_session"),
    ];
    for (what, packet, reason) in cases {
        let mut new = Site::new(FROM_1);
        assert_eq!(new.take(&packet), [reason], "{what}");
        assert_eq!(new.inbox.questions.len(), 0, "{what}");
    }
    // A caller that cannot hold, or has no sink, gets no question.
    let mut new = Site::new(FROM_1);
    let ack = segment(ENDS, ACK, 101, 501, b"");
    let packet = Packet::new(&ack, new.now);
    let verdict = new.engine.process_with(packet, &mut new.inbox);
    assert_eq!(verdict.name(), "drop");
    let verdict = new.engine.verdict_only(packet.can_hold(true));
    assert_eq!(verdict.name(), "drop");
    assert_eq!(new.stats().asked_for(QuestionKind::Session), 0);
    // Without the setting nothing is asked.
    let mut without = Site::of(FROM_1);
    assert_eq!(without.take(&ack), ["tcp_no_session"]);
    assert_eq!(without.stats(), Site::of("").stats());
}

fn between(src: u8, dst: u8, flags: u8) -> Vec<u8> {
    let ends = Ends {
        v6: false,
        src,
        src_port: 4000,
        dst,
        dst_port: 80,
    };
    segment(ends, flags, 101, 501, b"x")
}

#[test]
fn nothing_is_asked_about_a_flow_whose_end_is_remembered() {
    let toml = format!("{FROM_1}\n[tcp]\nlate = \"drop\"\n");
    let late = segment(ENDS, ACK, 101, 501, b"late");
    let run_out = |site: &mut Site| {
        site.wait(100_000_000);
        while site.engine.expire_with(site.now, 100, &mut site.inbox).more {}
        site.inbox.questions.clear();
        site.wait(1);
    };
    let mut site = Site::new(&toml);
    connect(&mut site, ENDS);
    assert_eq!(site.take(&segment(ENDS, RST, 101, 0, b"")), ["forward"]);
    run_out(&mut site);
    assert_eq!(site.take(&late), ["tcp_after_reset"]);
    // Unless it ended by its lifetime: another engine may have had the session then.
    let mut site = Site::new(&toml);
    connect(&mut site, ENDS);
    run_out(&mut site);
    assert_eq!(site.take(&late), ["hold"]);
    // Nor with the packet that finds the end of its session.
    let mut site = Site::new(&toml);
    let asked = Ends::v4(4000, 53);
    site.take(&udp(asked, b"query"));
    site.wait(10_000_000);
    assert_eq!(site.take(&udp(asked.back(), b"reply")), ["policy_deny"]);
    assert_eq!(site.inbox.questions.len(), 0);
}

#[test]
fn a_retransmitted_fin_of_a_half_closed_session_is_asked_for() {
    let store = stored(FROM_1, |old| {
        connect(old, ENDS);
        assert_eq!(
            old.take(&segment(ENDS, FIN | ACK, 101, 501, b"")),
            ["forward"]
        );
    });
    let mut new = Site::new(FROM_1);
    let fin = segment(ENDS, FIN | ACK, 101, 501, b"");
    assert_eq!(new.take_with(&store, &fin), ["hold", "forward"]);
}

/// Announces a passive data session from host 1 to port 50000 of host 2, and returns its record.
fn announce(site: &mut Site) -> Answer {
    let control = Ends::v4(4000, 21);
    connect(site, control);
    let mut numbers = [101, 501];
    let lines = [
        "220 ready\r\n",
        "PASV\r\n",
        "227 Entering Passive Mode (10,0,0,2,195,80)\r\n",
    ];
    for line in lines {
        let from_client = line == "PASV\r\n";
        let ends = if from_client { control } else { control.back() };
        let (own, other) = (usize::from(!from_client), usize::from(from_client));
        let head = Head {
            flags: ACK,
            seq: numbers[own],
            ack: numbers[other],
            window: 30_000,
        };
        assert_eq!(
            site.take(&tcp(ends, head, &[], line.as_bytes())),
            ["forward"]
        );
        numbers[own] += line.len() as u32;
    }
    let note = site.inbox.notes.iter().find_map(|note| note.expectation);
    let expectation = note.expect("an announcement");
    Answer::Expectation(Box::new(
        site.engine.stored_expectation(&expectation, site.at()),
    ))
}

fn data_syn() -> Vec<u8> {
    segment(Ends::v4(40_000, 50_000), SYN, 9_000, 0, b"")
}

#[test]
fn a_data_session_is_admitted_by_a_control_session_elsewhere() {
    let (mut old, mut store) = (Site::new(ONLY_21), Store::default());
    announce(&mut old);
    old.save(&mut store);
    let mut new = Site::new(ONLY_21);
    assert_eq!(new.take_with(&store, &data_syn()), ["hold", "forward"]);
    let stats = new.stats();
    assert_eq!(stats.asked_for(QuestionKind::Expectation), 1);
    assert_eq!(stats.answered_by(Answered::Announced), 1);
    let mut rules = Vec::new();
    let policy = new.engine.policy();
    new.engine
        .for_each_session(|session| rules.push(policy.rule_name(session.rule).to_owned()));
    assert_eq!(rules, ["ftp"], "under the rule of its control session");
    // The announcement is used up.
    let again = segment(Ends::v4(40_001, 50_000), SYN, 9_000, 0, b"");
    assert_eq!(
        new.take_with(&Store::default(), &again),
        ["hold", "policy_deny"]
    );
}

#[test]
fn a_data_session_that_has_begun_moves_as_well() {
    let (mut old, mut store) = (Site::new(ONLY_21), Store::default());
    announce(&mut old);
    let data = Ends::v4(40_000, 50_000);
    connect(&mut old, data);
    old.save(&mut store);
    let mut new = Site::new(ONLY_21);
    let bytes = segment(data.back(), ACK, 501, 101, b"content");
    assert_eq!(new.take_with(&store, &bytes), ["hold", "forward"]);
}

#[test]
fn a_syn_asks_only_where_a_control_session_could_have_announced_it() {
    // No rule admits a control session between these hosts.
    let mut new = Site::new(&FROM_1.replace(
        "source =",
        "protocol = \"tcp\"\ndestination_ports = 80\nsource =",
    ));
    let back = segment(Ends::v4(40_000, 50_000).back(), SYN, 9_000, 0, b"");
    assert_eq!(
        new.take(&back),
        ["policy_deny"],
        "host 1 may call port 80 alone"
    );
    let of_others = "[[policy.rule]]\nname = \"ftp\"\naction = \"allow\"\nprotocol = \"tcp\"\n\
                     destination_ports = 21\nsource = \"10.0.0.9/32\"\n";
    assert_eq!(Site::new(of_others).take(&data_syn()), ["policy_deny"]);
    // An announcement of this engine needs no question.
    let mut own = Site::new(ONLY_21);
    announce(&mut own);
    assert_eq!(own.take(&data_syn()), ["forward"]);
    // A data session of an active client comes from the server.
    let mut new = Site::new(ONLY_21);
    let active = segment(Ends::v4(20, 50_000).back(), SYN, 9_000, 0, b"");
    assert_eq!(new.take(&active), ["hold"]);
}

#[test]
fn an_announcement_that_was_not_asked_for_or_cannot_be_made_here_is_refused() {
    let announced = announce(&mut Site::new(ONLY_21));
    let Answer::Expectation(stored) = announced else {
        panic!("an announcement")
    };
    let other_port = segment(Ends::v4(40_000, 50_001), SYN, 9_000, 0, b"");
    let mut new = Site::new(ONLY_21);
    assert_eq!(new.take(&other_port), ["hold"]);
    let id = new.question().id;
    let answer = Answer::Expectation(stored.clone());
    assert_eq!(new.answer(id, &answer), Answered::Foreign);
    assert_eq!(new.ready(), ["policy_deny"]);

    let effect = |stored: &portcullis::StoredExpectation, millis: u64| {
        let mut new = Site::new(ONLY_21);
        new.wait(millis);
        assert_eq!(new.take(&data_syn()), ["hold"]);
        let id = new.question().id;
        let effect = new.answer(id, &Answer::Expectation(Box::new(stored.clone())));
        (effect, new.ready())
    };
    assert_eq!(effect(&stored, 0), (Answered::Announced, vec!["forward"]));
    assert_eq!(
        effect(&stored, 3_600_000),
        (Answered::Expired, vec!["policy_deny"])
    );
    let mut bounce = (*stored).clone();
    bounce.expectation.parent.responder = "10.0.0.9:21".parse().unwrap();
    assert_eq!(effect(&bounce, 0), (Answered::Refused, vec!["policy_deny"]));
    let mut elsewhere = (*stored).clone();
    elsewhere.zone = "nowhere".to_owned();
    assert_eq!(
        effect(&elsewhere, 0),
        (Answered::Unsound, vec!["policy_deny"])
    );
}

#[test]
fn zones_are_compared_by_name() {
    let zones = |blue: u16| format!("{FROM_1}\n[zones]\nblue = {blue}\n");
    let mut store = Store::default();
    let mut old = Site::new(&zones(3));
    old.zone = Zone(3);
    connect(&mut old, ENDS);
    old.save(&mut store);
    let segment = segment(ENDS, ACK, 101, 501, b"request");
    let mut new = Site::new(&zones(8));
    new.zone = Zone(8);
    assert_eq!(new.take_with(&store, &segment), ["hold", "forward"]);
    let mut new = Site::new(&zones(8));
    assert_eq!(new.take_with(&store, &segment), ["hold", "tcp_no_session"]);
}

#[test]
fn a_held_packet_names_the_reason_that_it_would_be_dropped_for() {
    let cases = [
        (segment(ENDS, ACK, 1, 1, b""), "tcp_no_session"),
        (udp(ENDS.back(), b""), "policy_deny"),
        (echo(ENDS.back(), false), "icmp_reply_no_session"),
        (
            sctp(ENDS, 1, &chunk(4, 0, &[0, 1, 0, 4])),
            "sctp_no_session",
        ),
        (dccp(ENDS, 3, 2, 1), "dccp_no_session"),
    ];
    for (bytes, reason) in cases {
        let mut site = Site::new(FROM_1);
        let packet = Packet::new(&bytes, site.now).can_hold(true);
        let verdict = site.engine.process_with(packet, &mut site.inbox);
        let Verdict::Hold(id, _) = verdict else {
            panic!("{reason}: {verdict:?}")
        };
        assert!(HoldId::is_question(id));
        assert_eq!(verdict.reason().map(|reason| reason.name()), Some(reason));
        assert!(site.engine.holds(id));
        site.answer(id, &Answer::Nothing);
        assert!(!site.engine.holds(id));
    }
}

#[test]
fn a_connection_that_comes_back_goes_on_where_the_other_engine_has_left_it() {
    let (mut here, mut store) = (Site::new(FROM_1), Store::default());
    connect(&mut here, ENDS);
    here.save(&mut store);
    let mut there = Site::new(FROM_1);
    let mut client = 101;
    for n in 0..100 {
        let data = segment(ENDS, ACK, client, 501, &[7; 900]);
        let expected: &[&str] = if n == 0 {
            &["hold", "forward"]
        } else {
            &["forward"]
        };
        assert_eq!(there.take_with(&store, &data), expected);
        client += 900;
        let ack = segment(ENDS.back(), ACK, 501, client, b"");
        assert_eq!(there.take(&ack), ["forward"]);
    }
    there.save(&mut store);
    let next = segment(ENDS, ACK, client, 501, b"back again");
    // A session in use is not asked about: the segment is invalid, whoever has sent it.
    assert_eq!(here.take(&next), ["tcp_seq_above_window"]);
    here.wait(1_100);
    assert_eq!(here.take_with(&store, &next), ["hold", "forward"]);
    assert_eq!(here.stats().answered_by(Answered::Upgraded), 1);
    assert_eq!(here.engine.sessions(), 1);
    // Without a newer record it is dropped as before, and not asked about again at once.
    let mut alone = Site::new(FROM_1);
    connect(&mut alone, ENDS);
    let mut own = Store::default();
    alone.save(&mut own);
    alone.wait(1_100);
    assert_eq!(
        alone.take_with(&own, &next),
        ["hold", "tcp_seq_above_window"]
    );
    assert_eq!(alone.take(&next), ["tcp_seq_above_window"]);
    // A RST asks nothing.
    alone.wait(2_000);
    let names = alone.take(&segment(ENDS, RST, client, 0, b""));
    assert_ne!(names, ["hold"]);
}
