//! TLS on the control session, and its end (CCC, RFC 4217).

use super::*;

/// A record of TLS.
fn record(kind: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut record = vec![kind, 3, 3, high, low];
    // Every byte, so commands' letters and line ends as well.
    record.extend((0..length).map(|byte| byte as u8));
    record
}

/// After AUTH, the handshake and a command.
fn encrypted() -> Talk {
    let mut talk = Talk::new();
    talk.client("AUTH TLS\r\n").server("234 go\r\n");
    talk.client(record(22, 180)).server(record(22, 1200));
    talk.client([record(20, 1), record(22, 40)].concat());
    talk.server([record(20, 1), record(22, 40)].concat());
    talk.client(record(23, 30)).server(record(23, 40));
    assert!(talk.control.helper().is_encrypted());
    talk.events();
    talk
}

const PASSIVE: &str = "227 (192,0,2,1,156,66)\r\n";

#[test]
fn after_ccc_the_helper_reads_on() {
    // TLS 1.2 ends with alerts; those of TLS 1.3 look like data.
    for kind in [21, 23] {
        let mut talk = encrypted();
        talk.client(record(kind, 26)).server(record(kind, 26));
        talk.client("PASV\r\n");
        assert!(!talk.control.helper().is_opaque());
        talk.server(PASSIVE);
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"]);
        assert_eq!(talk.events(), ["plain_again"]);
        talk.client("RETR x\r\n").server("150 \r\n226 \r\n");
        talk.client("PORT 10,0,0,9,19,136\r\n");
        assert_eq!(talk.open().len(), 2);
        // And TLS again.
        talk.client("AUTH TLS\r\n").server("234 go\r\n");
        assert!(talk.control.helper().is_encrypted());
        assert_eq!(talk.open(), [""; 0]);
    }
}

#[test]
fn the_servers_last_record_may_follow_the_first_plain_command() {
    let mut talk = encrypted();
    talk.client([record(21, 26), b"PASV\r\n".to_vec()].concat());
    talk.server([record(21, 26), PASSIVE.as_bytes().to_vec()].concat());
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"]);
}

#[test]
fn records_cut_anywhere_hide_no_plain_text() {
    let mut talk = encrypted();
    for byte in record(21, 26) {
        talk.client([byte]).server([byte]);
    }
    talk.client("PA")
        .client("SV\r\n")
        .server("22")
        .server(&PASSIVE[2..]);
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"]);
}

#[test]
fn what_looks_like_a_command_within_a_record_is_none() {
    let mut talk = encrypted();
    let mut hiding = record(23, 30)[..5].to_vec();
    hiding.extend(b"PORT 10,0,0,9,19,136\r\nPORT 1\r\n");
    let (head, text) = hiding.split_at(5);
    talk.client(head).client(text);
    talk.refuses(&[]);
    assert!(talk.control.helper().is_encrypted());
}

#[test]
fn without_a_handshake_nothing_is_read() {
    let mut talk = Talk::new();
    talk.client("AUTH TLS\r\n").server("234 go\r\n");
    talk.events();
    talk.client("PASV\r\n").server(PASSIVE);
    talk.client("PORT 10,0,0,9,19,136\r\n");
    talk.refuses(&[]);
    // The same holds after an unknown record.
    let mut talk = encrypted();
    talk.lost(Direction::Original, 31)
        .client("PASV\r\n")
        .server(PASSIVE);
    talk.refuses(&[]);
}

#[test]
fn records_sent_again_and_out_of_order_within_one_change_nothing() {
    let mut talk = encrypted();
    let [client, server] = talk.next;
    let long = record(23, 300);
    for part in [0..100, 0..305, 200..305, 100..200] {
        let seq = client.add(part.start as u32);
        talk.segment(Direction::Original, seq, Some(server), &long[part]);
    }
    talk.lost(Direction::Original, 305);
    talk.client("PASV\r\n").server(PASSIVE);
    assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"]);
}

#[test]
fn a_guarded_session_is_guarded_again_after_ccc() {
    let mut talk = encrypted();
    talk.control.helper_mut().set_guarded(true);
    talk.client(record(21, 26)).server(record(21, 26));
    talk.client("PORT 10,0,0,7,19,136\r\n");
    talk.refuses(&["plain_again", "bounce_refused"]);
}

#[test]
fn a_record_right_after_the_234_is_followed() {
    for together in [true, false] {
        let mut talk = Talk::new();
        talk.client("AUTH TLS\r\n");
        let [reply, handshake] = [b"234 go\r\n".to_vec(), record(22, 90)];
        if together {
            talk.server([reply, handshake].concat());
        } else {
            talk.server(reply).server(handshake);
        }
        talk.client(record(22, 40))
            .client("PASV\r\n")
            .server(PASSIVE);
        assert_eq!(talk.open(), ["10.0.0.9 -> 192.0.2.1:40002"], "{together}");
    }
}
