//! Lines of each format, as they must stay.

use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use portcullis::event::Traffic;
use portcullis::geneve::front::Refusal;
use portcullis::packet::Malformed;
use portcullis::policy::Action;
use portcullis::{
    Class, Config, Direction, DropReason, EndReason, Engine, Packet, SessionId, SessionRecord,
    SessionUid, Tracked, TunnelRef,
};
use serde_json::{Value, json};

use super::facts::Outcome;
use super::intervals::{Intervals, Moment, Part};
use super::*;
use crate::five_tuple::FiveTuple;
use crate::run::observe::dropped::DroppedPacket;
use crate::run::observe::event::PacketReason;
use crate::run::observe::kind::Kind;

const START: Duration = Duration::from_micros(1_700_000_000_250_000);
const HOST: &str = "fw-1";

/// Returns the record of the session that packets have opened, with an identifier of its own.
fn session(packets: &[Vec<u8>]) -> SessionRecord {
    let engine = Engine::with_seed(&Config::allow_all(), [1, 2, 3, 4]).unwrap();
    let now = Instant::now();
    for packet in packets {
        assert!(engine.verdict_only(Packet::new(packet, now)).is_forward());
    }
    let mut records = Vec::new();
    engine.for_each_session(|session| records.push(*session));
    let [mut record] = records.try_into().unwrap();
    let id = SessionId::from_number(0x1_0000_002a).unwrap();
    record.uid = SessionUid::new(0x8c1f_03a2_b4d5_e6f7, id);
    record
}

/// Returns a connection that both ends have closed.
fn connection() -> SessionRecord {
    let (a, b) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    let packets: Vec<Vec<u8>> = [
        PacketBuilder::ipv4(a, b, 64)
            .tcp(1_000, 80, 100, 8_192)
            .syn(),
        PacketBuilder::ipv4(b, a, 64)
            .tcp(80, 1_000, 500, 8_192)
            .syn()
            .ack(101),
        PacketBuilder::ipv4(a, b, 64)
            .tcp(1_000, 80, 101, 8_192)
            .ack(501),
        PacketBuilder::ipv4(a, b, 64)
            .tcp(1_000, 80, 101, 8_192)
            .fin()
            .ack(501),
        PacketBuilder::ipv4(b, a, 64)
            .tcp(80, 1_000, 501, 8_192)
            .fin()
            .ack(102),
        PacketBuilder::ipv4(a, b, 64)
            .tcp(1_000, 80, 102, 8_192)
            .ack(502),
    ]
    .into_iter()
    .map(|builder| {
        let mut packet = Vec::new();
        builder.write(&mut packet, b"").unwrap();
        packet
    })
    .collect();
    session(&packets)
}

/// Returns an echo over IPv6 and its reply.
fn echo() -> SessionRecord {
    let (a, b) = (
        [0xfd; 16],
        [0xfe, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    );
    let b = [&[0x20, 0x01][..], &b[2..]].concat().try_into().unwrap();
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    PacketBuilder::ipv6(a, b, 64)
        .icmpv6_echo_request(7, 1)
        .write(&mut request, b"ping")
        .unwrap();
    PacketBuilder::ipv6(b, a, 64)
        .icmpv6_echo_reply(7, 1)
        .write(&mut reply, b"ping")
        .unwrap();
    session(&[request, reply])
}

fn ended(record: &SessionRecord, reason: EndReason) -> Facts<'_> {
    Facts {
        outcome: Outcome::Ended(reason),
        flow: FiveTuple::of_session(record, Some("blue".to_owned())),
        session: Some(record),
        uid: Some(record.uid),
        original: record.original,
        reply: record.reply,
        start: START,
        last: START + Duration::from_millis(1_500),
        rule: Some("web"),
    }
}

fn decided(record: &SessionRecord, action: Action) -> Facts<'_> {
    Facts {
        outcome: Outcome::Decided(action),
        session: None,
        uid: None,
        original: Traffic {
            packets: 1,
            bytes: 40,
        },
        reply: Traffic::default(),
        last: START,
        rule: Some("no \\ web"),
        ..ended(record, EndReason::Closed)
    }
}

/// Returns the columns of a row by their names.
fn columns(line: &str) -> Vec<(String, String)> {
    let header = String::from_utf8(Header::Zeek.bytes()).unwrap();
    let fields = header.lines().find(|line| line.starts_with("#fields\t"));
    let names = fields.unwrap().split('\t').skip(1);
    let types = header.lines().find(|line| line.starts_with("#types\t"));
    assert_eq!(
        types.unwrap().split('\t').count(),
        names.clone().count() + 1
    );
    assert_eq!(line.split('\t').count(), names.clone().count());
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    names.zip(line.split('\t')).map(pair).collect()
}

#[test]
fn a_row_of_zeek_has_the_names_types_and_order_of_its_conn_log() {
    let header = String::from_utf8(Header::Zeek.bytes()).unwrap();
    let lines: Vec<&str> = header.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "#separator \\x09",
            "#set_separator\t,",
            "#empty_field\t(empty)",
            "#unset_field\t-",
            "#path\tconn"
        ]
    );
    assert_eq!(lines[5].len(), "#open\t2023-11-14-22-13-20".len());
    assert_eq!(
        lines[6],
        "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\t\
         orig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\t\
         orig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents\tip_proto\t\
         community_id\taction\trule\tzone\treason\tparent_uid"
    );
    assert_eq!(
        lines[7],
        "#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\t\
         string\tbool\tbool\tcount\tstring\tcount\tcount\tcount\tcount\tset[string]\tcount\t\
         string\tstring\tstring\tstring\tstring\tstring"
    );
    let record = connection();
    assert_eq!(
        zeek::line(&ended(&record, EndReason::Closed)),
        "1700000000.250000\t8c1f03a2b4d5e6f7-10000002a\t10.0.0.1\t1000\t192.0.2.1\t80\ttcp\t-\t\
         1.500000\t-\t-\tSF\t-\t-\t0\tShAFf\t4\t160\t2\t80\t-\t6\t\
         1:4gNjMmZA3i1VP1t+Ad6ENSQ2W30=\tallow\tweb\tblue\t-\t-"
    );
}

#[test]
fn a_denied_packet_in_zeek_has_no_state_and_its_texts_are_escaped() {
    let record = connection();
    let columns = columns(&zeek::line(&decided(&record, Action::Deny)));
    let of = |wanted: &str| {
        let found = columns.iter().find(|(name, _)| name == wanted);
        found.unwrap().1.as_str()
    };
    for (name, value) in [
        ("uid", "-"),
        ("duration", "-"),
        ("conn_state", "-"),
        ("history", "-"),
        ("orig_pkts", "1"),
        ("orig_ip_bytes", "40"),
        ("resp_pkts", "0"),
        ("action", "deny"),
        ("rule", "no \\\\ web"),
        ("reason", "policy_deny"),
    ] {
        assert_eq!(of(name), value, "{name}");
    }
    for (text, escaped) in [
        ("-", "\\x2d"),
        ("(empty)", "\\x28empty)"),
        ("a\tb\n", "a\\x09b\\x0a"),
    ] {
        let facts = Facts {
            rule: Some(text),
            ..decided(&record, Action::Deny)
        };
        let line = zeek::line(&facts);
        assert!(line.contains(&format!("\tdeny\t{escaped}\tblue")), "{line}");
    }
}

#[test]
fn rows_of_zeek_as_json_leave_out_what_is_not_set() {
    let record = connection();
    let text = zeek::json(&ended(&record, EndReason::Closed)).unwrap();
    assert!(text.starts_with("{\"ts\":1700000000.25,\"uid\":\"8c1f03a2b4d5e6f7-10000002a\","));
    let row: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(row["id.orig_p"], 1_000);
    assert_eq!(row["duration"], 1.5);
    assert_eq!(row["resp_ip_bytes"], 80);
    for unset in ["service", "orig_bytes", "local_orig", "tunnel_parents"] {
        assert!(row.get(unset).is_none(), "{unset}");
    }
}

#[test]
fn icmp_has_its_type_where_the_format_says_so_and_no_ports() {
    let record = echo();
    let facts = ended(&record, EndReason::Timeout);
    let line = zeek::line(&facts);
    let columns = columns(&line);
    assert_eq!((columns[3].1.as_str(), columns[5].1.as_str()), ("128", "0"));
    assert_eq!(columns[6].1, "icmp");
    let eve = eve::record(&facts, HOST);
    assert_eq!(
        (&eve["icmp_type"], &eve["proto"]),
        (&json!(128), &json!("IPv6-ICMP"))
    );
    assert!(eve.get("src_port").is_none());
    assert_eq!(eve["flow"]["state"], "established");
    let ecs = ecs::event(&facts, HOST);
    assert_eq!(ecs["network"]["transport"], "ipv6-icmp");
    assert_eq!(
        (
            &ecs["portcullis"]["icmp_type"],
            &ecs["portcullis"]["icmp_id"]
        ),
        (&json!(128), &json!(7))
    );
    assert!(ecs["source"].get("port").is_none());
    let settings = LogSettings::default();
    let fields = FlowField::list("${srcport} ${dstport} ${protocol} ${type}").unwrap();
    let lines: Vec<_> = vpc::records(&facts, Part::whole(&facts))
        .map(|record| record.line(&fields, &settings))
        .collect();
    assert_eq!(lines, ["0 0 58 IPv6", "0 0 58 IPv6"]);
}

#[test]
fn a_flow_of_eve_has_the_names_of_suricata() {
    let record = connection();
    let uid = record.uid;
    let flow = eve::record(&ended(&record, EndReason::Closed), HOST);
    assert_eq!(
        flow,
        json!({
            "timestamp": "2023-11-14T22:13:21.750000+0000",
            "flow_id": eve::flow_id(uid),
            "event_type": "flow",
            "host": "fw-1",
            "src_ip": "10.0.0.1",
            "src_port": 1000,
            "dest_ip": "192.0.2.1",
            "dest_port": 80,
            "proto": "TCP",
            "community_id": "1:4gNjMmZA3i1VP1t+Ad6ENSQ2W30=",
            "flow": {
                "pkts_toserver": 4,
                "pkts_toclient": 2,
                "bytes_toserver": 160,
                "bytes_toclient": 80,
                "start": "2023-11-14T22:13:20.250000+0000",
                "end": "2023-11-14T22:13:21.750000+0000",
                "age": 1,
                "state": "closed",
                "reason": "timeout",
                "alerted": false,
            },
            "tcp": {"syn": true, "ack": true, "fin": true, "rst": false},
            "portcullis": {
                "uid": "8c1f03a2b4d5e6f7-10000002a",
                "zone": "blue",
                "rule": "web",
                "action": "allow",
                "end_reason": "closed",
                "reason": null,
                "history": "ShAFf",
                "conn_state": "SF",
            },
        })
    );
    assert!(eve::flow_id(uid) < 1 << 53);
    for (reason, wanted) in [
        (EndReason::Deleted, "forced"),
        (EndReason::Reused, "tcp_reuse"),
    ] {
        let flow = eve::record(&ended(&record, reason), HOST);
        assert_eq!(flow["flow"]["reason"], wanted);
        assert_eq!(flow["flow"]["state"], "established");
    }
}

#[test]
fn denied_packets_are_drops_of_eve_and_audited_ones_alerts() {
    let record = connection();
    let drop = eve::record(&decided(&record, Action::Deny), HOST);
    assert_eq!(drop["event_type"], "drop");
    assert_eq!(drop["drop"], json!({"len": 40, "reason": "rules"}));
    assert_eq!(drop["alert"]["action"], "blocked");
    assert_eq!(drop["alert"]["signature"], "portcullis deny no \\ web");
    assert!(drop.get("flow").is_none());
    let alert = eve::record(&decided(&record, Action::Audit), HOST);
    assert_eq!(
        (&alert["event_type"], &alert["alert"]["action"]),
        (&json!("alert"), &json!("allowed"))
    );
    assert!(alert.get("drop").is_none());
}

#[test]
fn a_document_of_ecs_has_the_fields_of_the_schema() {
    let record = connection();
    let document = ecs::event(&ended(&record, EndReason::Closed), HOST);
    assert_eq!(
        document,
        json!({
            "@timestamp": "2023-11-14T22:13:21.750000Z",
            "ecs": {"version": "8.11.0"},
            "event": {
                "kind": "event",
                "category": ["network"],
                "type": ["connection", "end", "allowed"],
                "action": "ended",
                "module": "portcullis",
                "dataset": "portcullis.log",
                "id": "8c1f03a2b4d5e6f7-10000002a",
                "start": "2023-11-14T22:13:20.250000Z",
                "end": "2023-11-14T22:13:21.750000Z",
                "duration": 1_500_000_000_u64,
                "reason": "closed",
            },
            "source": {
                "ip": "10.0.0.1",
                "address": "10.0.0.1",
                "port": 1000,
                "packets": 4,
                "bytes": 160,
            },
            "destination": {
                "ip": "192.0.2.1",
                "address": "192.0.2.1",
                "port": 80,
                "packets": 2,
                "bytes": 80,
            },
            "network": {
                "type": "ipv4",
                "transport": "tcp",
                "iana_number": "6",
                "packets": 6,
                "bytes": 240,
                "community_id": "1:4gNjMmZA3i1VP1t+Ad6ENSQ2W30=",
            },
            "observer": {
                "hostname": "fw-1",
                "vendor": "portcullis",
                "product": "portcullis",
                "type": "firewall",
            },
            "rule": {"name": "web"},
            "portcullis": {
                "zone": "blue",
                "action": "allow",
                "state": "TIME_WAIT",
                "history": "ShAFf",
                "conn_state": "SF",
            },
        })
    );
    let denied = ecs::event(&decided(&record, Action::Reject), HOST);
    assert_eq!(
        denied["event"]["type"],
        json!(["connection", "info", "denied"])
    );
    assert_eq!(denied["portcullis"]["action"], "reject");
}

#[test]
fn flow_log_records_have_the_fields_of_the_settings() {
    let record = connection();
    let settings = LogSettings {
        account_id: "123456789012".to_owned(),
        interface_id: "eni-0a".to_owned(),
        ..LogSettings::default()
    };
    let lines = |facts: &Facts<'_>, fields: &str| -> Vec<String> {
        let fields = FlowField::list(fields).unwrap();
        let records = vpc::records(facts, Part::whole(facts));
        records
            .map(|record| record.line(&fields, &settings))
            .collect()
    };
    let closed = ended(&record, EndReason::Closed);
    assert_eq!(
        lines(&closed, FlowField::VERSION_2),
        [
            "2 123456789012 eni-0a 10.0.0.1 192.0.2.1 1000 80 6 4 160 1700000000 1700000001 \
             ACCEPT OK",
            "2 123456789012 eni-0a 192.0.2.1 10.0.0.1 80 1000 6 2 80 1700000000 1700000001 \
             ACCEPT OK",
        ]
    );
    let all = "${version} ${pkt-srcaddr} ${pkt-dstaddr} ${tcp-flags} ${type} ${vpc-id} ${region} \
               ${flow-direction} ${action}";
    assert_eq!(
        lines(&closed, all),
        [
            "5 10.0.0.1 192.0.2.1 3 IPv4 - - - ACCEPT",
            "5 192.0.2.1 10.0.0.1 19 IPv4 - - - ACCEPT"
        ]
    );
    let short = "${srcaddr} ${tcp-flags} ${version} ${action} ${start} ${end}";
    assert_eq!(
        lines(&decided(&record, Action::Deny), short),
        ["10.0.0.1 0 3 REJECT 1700000000 1700000000"]
    );
    assert_eq!(lines(&decided(&record, Action::Audit), short), [""; 0]);
    let fields = FlowField::list(short).unwrap();
    assert_eq!(
        vpc::header(&fields),
        "srcaddr tcp-flags version action start end"
    );
}

#[test]
fn a_session_has_an_ipfix_record_for_each_direction_of_its_templates_length() {
    let set = ipfix::template_set();
    assert_eq!(set[..4], [0, 2, (set.len() >> 8) as u8, set.len() as u8]);
    let template_len = |at: usize| -> usize {
        let count = usize::from(u16::from_be_bytes([set[at + 2], set[at + 3]]));
        let elements = set[at + 4..].chunks_exact(4).take(count);
        elements
            .map(|each| usize::from(u16::from_be_bytes([each[2], each[3]])))
            .sum()
    };
    let v4 = template_len(4);
    let v6 = template_len(4 + 4 + 17 * 4);
    assert_eq!(v6, v4 + 24);
    let (tcp, icmp) = (connection(), echo());
    for (facts, template, len, count) in [
        (ended(&tcp, EndReason::Closed), 256, v4, 2),
        (ended(&icmp, EndReason::Timeout), 257, v6, 2),
        (decided(&tcp, Action::Deny), 256, v4, 1),
        (decided(&tcp, Action::Audit), 256, v4, 0),
    ] {
        let records: Vec<_> = ipfix::records(&facts).collect();
        assert_eq!(records.len(), count);
        for record in records {
            assert_eq!(u16::from_be_bytes([record[0], record[1]]), template);
            assert_eq!(record.len(), 2 + len);
        }
    }
}

#[test]
fn control_bits_of_ipfix_have_a_plain_ack_and_only_of_tcp() {
    let (a, b) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    let (mut syn, mut answer, mut ack, mut datagram) = (vec![], vec![], vec![], vec![]);
    let from_a = |seq, window| PacketBuilder::ipv4(a, b, 64).tcp(1_000, 80, seq, window);
    from_a(100, 0).syn().write(&mut syn, b"").unwrap();
    PacketBuilder::ipv4(b, a, 64)
        .tcp(80, 1_000, 500, 8_192)
        .syn()
        .ack(101)
        .write(&mut answer, b"")
        .unwrap();
    from_a(101, 8_192).ack(501).write(&mut ack, b"").unwrap();
    PacketBuilder::ipv4(a, b, 64)
        .udp(1_000, 53)
        .write(&mut datagram, b"query")
        .unwrap();
    for (packets, wanted) in [
        (vec![syn.clone()], vec![0x02]),
        (vec![syn, answer, ack], vec![0x12, 0x12]),
        (vec![datagram], vec![0]),
    ] {
        let record = session(&packets);
        let facts = ended(&record, EndReason::Timeout);
        // Template, addresses, times, ports, protocol, bytes and packets come first.
        let place = 2 + 8 + 16 + 5 + 16;
        let bits: Vec<u16> = ipfix::records(&facts)
            .map(|record| u16::from_be_bytes([record[place], record[place + 1]]))
            .collect();
        assert_eq!(bits, wanted);
    }
}

/// The schema of the log's lines: `UPDATE=1` writes it.
#[test]
fn the_schema_is_up_to_date_with_the_lines_like_every_page() {
    crate::schema::check::<json::AnyLine<'_>>("log");
}

#[test]
fn records_of_intervals_add_up_to_the_session_and_end_with_it() {
    let record = connection();
    let mut intervals = Intervals::default();
    let live = |_| true;
    let moment = |seconds| Moment {
        at: START + Duration::from_secs(seconds),
        max_sessions: 1,
        is_live: &live,
    };
    let update = |packets, bytes| Facts {
        outcome: Outcome::Updated,
        original: Traffic { packets, bytes },
        reply: Traffic::default(),
        ..ended(&record, EndReason::Closed)
    };
    let part = intervals.take(&update(1, 40), &moment(60)).unwrap();
    assert_eq!((part.original.packets, part.start), (1, START));
    let part = intervals.take(&update(3, 120), &moment(120)).unwrap();
    assert_eq!((part.original.packets, part.original.bytes), (2, 80));
    assert_eq!(part.start, START + Duration::from_secs(60));
    assert_ne!(part.flags_before, [0; 2]);
    let part = intervals.take(&update(3, 120), &moment(180)).unwrap();
    assert_eq!(vpc::records(&update(3, 120), part).count(), 0);
    // The number of packets is at its largest, and the bytes go on.
    let (packets, bytes) = (0, 1_500);
    let part = Part {
        reply: Traffic { packets, bytes },
        ..part
    };
    assert_eq!(vpc::records(&update(3, 120), part).count(), 1);
    let last = ended(&record, EndReason::Closed);
    let part = intervals.take(&last, &moment(200)).unwrap();
    assert_eq!((part.original.packets, part.original.bytes), (1, 40));
    assert_eq!(part.reply, record.reply);
    let lines: Vec<_> = vpc::records(&last, part)
        .map(|record| {
            record.line(
                &FlowField::list("${packets} ${start} ${end} ${action} ${tcp-flags}").unwrap(),
                &LogSettings::default(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1 1700000180 1700000180 ACCEPT 0",
            "2 1700000180 1700000180 ACCEPT 0"
        ]
    );
    // A session that had no record in between has one of all its traffic.
    let part = intervals.take(&last, &moment(200)).unwrap();
    assert_eq!(part, Part::whole(&last));
}

#[test]
fn a_session_that_has_ended_has_no_record_of_an_interval() {
    let record = connection();
    let update = Facts {
        outcome: Outcome::Updated,
        ..ended(&record, EndReason::Closed)
    };
    let mut intervals = Intervals::default();
    let moment = |max_sessions, is_live| Moment {
        at: START,
        max_sessions,
        is_live,
    };
    assert_eq!(intervals.take(&update, &moment(1, &|_| false)), None);
    assert_eq!(intervals.take(&update, &moment(0, &|_| true)), None);
    assert!(intervals.take(&update, &moment(1, &|_| true)).is_some());
    // The end of another session was lost: its place is free.
    let mut other = record;
    other.id = SessionId::from_number(99).unwrap();
    let update = Facts {
        session: Some(&other),
        ..update
    };
    let lives = |id| id == other.id;
    assert!(intervals.take(&update, &moment(1, &lives)).is_some());
}

/// Returns a dropped packet of a session.
fn dropped(record: &SessionRecord, reason: PacketReason, kind: Kind) -> Facts<'_> {
    let packet = DroppedPacket {
        kind,
        reason,
        at: Instant::now(),
        zone: None,
        tunnel: TunnelRef::NONE,
        flow: None,
        bytes: 1_500,
        tracked: None,
        rule: None,
    };
    Facts {
        outcome: Outcome::Dropped(packet),
        uid: Some(record.uid),
        original: Traffic {
            packets: 1,
            bytes: 1_500,
        },
        rule: None,
        flow: FiveTuple::of_session(record, None),
        ..decided(record, Action::Deny)
    }
}

#[test]
fn a_dropped_packet_has_its_reason_and_the_identifier_of_its_session_in_each_format() {
    let record = connection();
    let reason = PacketReason::Engine(DropReason::TcpSeqAboveWindow);
    let facts = dropped(&record, reason, Kind::Dropped);
    let columns = columns(&zeek::line(&facts));
    for (name, value) in [
        ("uid", "8c1f03a2b4d5e6f7-10000002a"),
        ("conn_state", "-"),
        ("orig_ip_bytes", "1500"),
        ("action", "drop"),
        ("rule", "-"),
        ("zone", "-"),
        ("reason", "tcp_seq_above_window"),
    ] {
        let found = columns.iter().find(|(column, _)| column == name).unwrap();
        assert_eq!(found.1, value, "{name}");
    }
    let eve = eve::record(&facts, HOST);
    assert_eq!(eve["event_type"], "drop");
    assert_eq!(
        eve["drop"],
        json!({"len": 1_500, "reason": "tcp_seq_above_window"})
    );
    assert_eq!(eve["flow_id"], eve::flow_id(record.uid));
    assert!(eve.get("alert").is_none(), "no rule has decided");
    let ecs = ecs::event(&facts, HOST);
    assert_eq!(ecs["event"]["action"], "dropped");
    assert_eq!(ecs["event"]["reason"], "tcp_seq_above_window");
    assert_eq!(ecs["event"]["id"], "8c1f03a2b4d5e6f7-10000002a");
    assert_eq!(
        ecs["event"]["type"],
        json!(["connection", "info", "denied"])
    );
    assert!(ecs.get("rule").is_none());
    assert_eq!(vpc::records(&facts, Part::whole(&facts)).count(), 1);
}

#[test]
fn a_dropped_reply_has_its_direction_where_the_format_has_one() {
    let record = connection();
    let reason = PacketReason::Engine(DropReason::TcpSeqAboveWindow);
    // Before biflowDirection: as before forwardingStatus, and that.
    let place = 2 + 8 + 16 + 5 + 16 + 2 + 2 + 1;
    for (direction, name, number) in [
        (Some(Direction::Original), json!("original"), 1),
        (Some(Direction::Reply), json!("reply"), 2),
        (None, json!(null), 0),
    ] {
        let mut facts = dropped(&record, reason, Kind::Dropped);
        if let Outcome::Dropped(packet) = &mut facts.outcome {
            packet.tracked = Some(Tracked {
                class: Class::Invalid,
                direction,
                session: Some(record.id),
                tolerated: None,
                late: None,
            });
        }
        assert_eq!(eve::record(&facts, HOST)["portcullis"]["direction"], name);
        assert_eq!(ecs::event(&facts, HOST)["portcullis"]["direction"], name);
        let records: Vec<_> = ipfix::records(&facts).collect();
        let [only] = records.try_into().unwrap();
        assert_eq!(only[place], number, "{name}");
    }
}

#[test]
fn the_forwarding_status_of_ipfix_is_the_registered_one_of_the_reason() {
    let record = connection();
    let engine = PacketReason::Engine;
    for (reason, kind, status) in [
        (engine(DropReason::TcpNoSession), Kind::Rejected, 128),
        (PacketReason::Front(Refusal::TooLarge), Kind::Refused, 133),
        (
            engine(DropReason::Malformed(Malformed::Ipv4HeaderChecksum)),
            Kind::Dropped,
            134,
        ),
        (engine(DropReason::TtlZero), Kind::Dropped, 137),
        (engine(DropReason::LimitRate), Kind::Dropped, 138),
    ] {
        let facts = dropped(&record, reason, kind);
        let records: Vec<_> = ipfix::records(&facts).collect();
        let [only] = records.try_into().unwrap();
        // Before it: template, addresses, times, ports, protocol, counts, bits, and two reasons.
        let place = 2 + 8 + 16 + 5 + 16 + 2 + 2;
        assert_eq!(only[place - 1..=place], [3, status], "{}", reason.name());
        let id = u64::from_be_bytes(only[place + 2..place + 10].try_into().unwrap());
        assert_eq!(id, eve::flow_id(record.uid));
    }
}
