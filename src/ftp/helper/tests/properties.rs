use proptest::prelude::*;

use super::*;

/// Commands and the server's replies, none longer than the window.
const EXCHANGES: [(&str, &str); 14] = [
    (
        "PORT 10,0,0,9,19,136\r\n",
        "200 PORT command successful.\r\n",
    ),
    (
        "PORT 10,0,0,9,19,137\r\nRETR x\r\n",
        "200 ok\r\n150 here\r\n226 done\r\n",
    ),
    ("PORT 10,0,0,66,19,136\r\n", "500 Illegal PORT command.\r\n"),
    ("EPRT |1|10.0.0.9|5002|\r\n", "501 no\r\n"),
    (
        "PASV\r\n",
        "227 Entering Passive Mode (192,0,2,1,19,138).\r\n",
    ),
    ("PASV\r\n", "425 no\r\n"),
    ("EPSV\r\nNOOP\r\n", "229 Extended (|||5003|)\r\n200 ok\r\n"),
    (
        "STAT\r\nPASV\r\n",
        "211-x\r\n227 (192,0,2,1,9,9)\r\n211 y\r\n227 (192,0,2,1,19,140)\r\n",
    ),
    (
        "XX 227 (192,0,2,1,1,1)\r\n",
        "500 XX 227 (192,0,2,1,1,1)\r\n",
    ),
    ("NOOP\n", "200 ok\r\n"),
    ("QUIT\r\n", "221 bye\r\n"),
    ("EPSV ALL\r\n", "200 ok\r\n"),
    ("227 (192,0,2,1,19,136)\r\n", "500 ?\r\n"),
    ("PWD\r\n", "257 \"/\"\r\n227 (192,0,2,1,19,141)\r\n"),
];

/// Hosts that are announced: the client, the server, a listed one, and others.
const HOSTS: [&str; 7] = [
    "10,0,0,9",
    "192,0,2,1",
    "192,168,1,5",
    "203,0,113,7",
    "0,0,0,0",
    "127,0,0,1",
    "224,0,0,1",
];

/// Lines of both ends, sent by either.
const LINES: [&str; 24] = [
    "PORT {h},19,{p}\r\n",
    "PORT {h},0,{p}\r\n",
    "EPRT |1|{d}|5{p}|\r\n",
    "EPRT |2|2001:db8::9|5{p}|\r\n",
    "PASV\r\n",
    "EPSV\r\n",
    "EPSV ALL\r\n",
    "227 ({h},19,{p})\r\n",
    "227 ( {h},0, {p})\r\n",
    "227-{h},20,{p}\r\n",
    "227 End\r\n",
    "229 (|||5{p}|)\r\n",
    "229 (|1|{d}|5{p}|)\r\n",
    "200 ok\r\n",
    "500 no\n",
    "150 go\r\n",
    "226 done\r\n",
    "ABOR\r\n",
    "REIN\r\n",
    "\r\n",
    "RETR x\r\n",
    "213-x\n",
    "AUTH TLS\r\n",
    "421 bye\r\n",
];

/// The segments of a text: complete, split, some repeated and overlapping, in an order determined
/// by the seed.
fn segments(text: &[u8], mut seed: u64) -> Vec<(usize, usize)> {
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) as usize) % below.max(1)
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = (start + 1 + random(12)).min(text.len());
        pieces.push((start.saturating_sub(random(6)), end));
        if random(3) == 0 {
            let from = random(end);
            pieces.push((from, (from + random(20)).min(text.len())));
        }
        start = end;
    }
    for last in (1..pieces.len()).rev() {
        pieces.swap(last, random(last + 1));
    }
    pieces
}

proptest! {
    #[test]
    fn a_conversation_however_transported_says_the_same(
        exchanges in prop::collection::vec((0..EXCHANGES.len(), any::<u64>()), 1..12),
        acknowledge: bool,
    ) {
        let settings = Settings { reorder_ranges: 64, ..Settings::default() };
        let mut whole = Talk::with(settings.clone(), v4());
        let mut pieces = Talk::with(settings, v4());
        for (number, seed) in exchanges {
            let (command, reply) = EXCHANGES[number];
            whole.client(command).server(reply);
            for (from, text) in Direction::BOTH.into_iter().zip([command, reply]) {
                let base = pieces.next[from as usize];
                let other = acknowledge.then_some(pieces.next[from.opposite() as usize]);
                for (start, end) in segments(text.as_bytes(), seed) {
                    let payload = &text.as_bytes()[start..end];
                    pieces.segment(from, base.add(start as u32), other, payload);
                }
                pieces.lost(from, text.len());
            }
            prop_assert_eq!(&whole.record, &pieces.record);
        }
        prop_assert!(pieces.control.memory() < 2048);
    }

    #[test]
    fn nothing_but_an_own_or_a_listed_address_opens(
        lines in prop::collection::vec(
            (any::<bool>(), 0..LINES.len(), 0_u8..12, any::<u8>()),
            0..40,
        ),
        listed: bool,
        v6: bool,
    ) {
        let network = || if listed { vec!["192.168.0.0/16".parse().unwrap()] } else { Vec::new() };
        let settings = Settings {
            passive_addresses: network(),
            active_addresses: network(),
            max_refused: 0,
            ..Settings::default()
        };
        let ends = if v6 { self::v6() } else { v4() };
        let mut talk = Talk::with(settings, ends);
        for (client, line, host, port) in lines {
            let host = HOSTS[usize::from(host) % HOSTS.len()];
            let line = LINES[line].replace("{h}", host).replace("{p}", &port.to_string());
            let line = line.replace("{d}", &host.replace(',', "."));
            if client {
                talk.client(line);
            } else {
                talk.server(line);
            }
            let open = &talk.record.open;
            prop_assert!(open.len() <= 3);
            for expectation in open {
                let called = expectation.destination.ip();
                let own = ends.sender(expectation.direction.opposite()).ip();
                let is_listed = listed
                    && expectation.direction == Direction::Original
                    && called.to_string().starts_with("192.168.");
                prop_assert!(called == own || is_listed, "{expectation}");
                prop_assert_eq!(expectation.source, ends.sender(expectation.direction).ip());
                prop_assert!(expectation.destination.port() >= 1024);
            }
        }
    }

    #[test]
    fn a_line_of_any_bytes_is_survived(
        lines in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)),
            0..20,
        ),
        verb in 0_usize..8,
    ) {
        let verbs = ["PORT ", "EPRT |", "227 (", "229 (||", "EPSV ", "\u{ff}", "211-", ""];
        let mut talk = Talk::new();
        for (client, bytes) in lines {
            let text = [verbs[verb].as_bytes(), &bytes, b"\r\n"].concat();
            if client {
                talk.client(&text);
            } else {
                talk.server(&text);
            }
        }
        prop_assert!(talk.control.memory() < 4096);
        prop_assert!(talk.record.open.len() <= 2);
    }
}
