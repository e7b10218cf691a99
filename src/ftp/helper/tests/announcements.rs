use super::super::announce::*;
use super::*;

fn at(announced: Result<AnnouncedAddress, Flaw>) -> Result<String, Flaw> {
    announced.map(|found| match found.address {
        Some(address) => SocketAddr::new(address, found.port).to_string(),
        None => found.port.to_string(),
    })
}

#[test]
fn port_is_six_numbers_and_nothing_else() {
    let read = |text: &str| at(port_argument(text.as_bytes()));
    assert_eq!(read("10,0,0,9,19,136"), Ok("10.0.0.9:5000".to_owned()));
    assert_eq!(read(" 10,0,0,9,255,255 "), Ok("10.0.0.9:65535".to_owned()));
    for text in [
        "256,0,0,9,1,1",
        "10,0,0,9,256,0",
        "10,0,0,9,1,999",
        "10,0,0,99999999999,1,1",
    ] {
        assert_eq!(read(text), Err(Flaw::OutOfRange), "{text}");
    }
    for text in [
        "",
        "10,0,0,9,19",
        "10,0,0,9,19,136,1",
        "10,0,0,9,19,136,",
        "10,,0,9,19,136",
        "10,0,0,9,19,+36",
        "10,0,0,9,19,0x1",
        "10,0,0,9,19,136 x",
        "10,0,0,9,19,136\r",
        "10, 0,0,9,19,136",
        "0010,0,0,9,19,136",
    ] {
        assert_eq!(read(text), Err(Flaw::Malformed), "{text}");
    }
}

#[test]
fn eprt_takes_any_delimiter_and_both_families() {
    let read = |text: &str| at(eprt_argument(text.as_bytes()));
    assert_eq!(read("|1|10.0.0.9|5000|"), Ok("10.0.0.9:5000".to_owned()));
    assert_eq!(read("!1!10.0.0.9!5000!"), Ok("10.0.0.9:5000".to_owned()));
    assert_eq!(
        read("z2z2001:db8::9z65535z"),
        Ok("[2001:db8::9]:65535".to_owned())
    );
    assert_eq!(read("|3|10.0.0.9|5000|"), Err(Flaw::Family));
    assert_eq!(read("|1|10.0.0.9|65536|"), Err(Flaw::OutOfRange));
    assert_eq!(read("|1|10.0.0.256|5000|"), Err(Flaw::OutOfRange));
    for text in [
        "",
        "|",
        "|1|10.0.0.9|5000",
        "|1|10.0.0.9|5000|x",
        "|1|10.0.0.9|5000||",
        "|1|2001:db8::9|5000|",
        "|2|10.0.0.9|5000|",
        "|1|10.0.0|5000|",
        "|1||5000|",
        "|1|10.0.0.9||",
        "||10.0.0.9|5000|",
        "\x01\x31\x01\x31",
    ] {
        assert_eq!(read(text), Err(Flaw::Malformed), "{text}");
    }
}

#[test]
fn a_227_has_one_address_in_any_text() {
    let read = |text: &str| at(pasv_reply(text.as_bytes()));
    for text in [
        "Entering Passive Mode (192,0,2,1,19,136).",
        "Entering Passive Mode (192,0,2,1,19,136)",
        "Entering Passive Mode (192,0,2,1,19,136",
        "Entering Passive Mode 192,0,2,1,19,136",
        "Entering Passive Mode. 192,0,2,1,19,136.",
        "=192,0,2,1,19,136",
        "192,0,2,1,19,136",
        "Mode, I say, number 2: [192,0,2,1,19,136] (1,2)",
        "Entering Passive Mode( 192, 0, 2, 1, 19,136).",
        "Entering Passive Mode (192,0,2,1,19, 136 )",
        "Entering Passive Mode (192 , 0 ,2, 1,19,136)",
    ] {
        assert_eq!(read(text), Ok("192.0.2.1:5000".to_owned()), "{text}");
    }
    for text in [
        "Entering Passive Mode",
        "Logout.",
        "(192,0,2,1,19)",
        "(192, 0, 2, 1, 19)",
        "(192 0 2 1 19 136)",
        "(|||5000|)",
    ] {
        assert_eq!(read(text), Err(Flaw::Absent), "{text}");
    }
    for text in [
        "(192,0,2,1,19,136) (192,0,2,1,19,137)",
        "(192,0,2,1,19,136,1)",
        "(192,0,2,1,19,136,)",
        "(192, 0, 2, 1, 19, 136, 1)",
        "x192,0,2,1,19,136",
        "192,0,2,1,19,136y",
    ] {
        assert_eq!(read(text), Err(Flaw::Malformed), "{text}");
    }
    assert_eq!(read("(192,0,2,300,19,136)"), Err(Flaw::OutOfRange));
}

#[test]
fn a_229_has_a_port_alone() {
    let read = |text: &str| at(epsv_reply(text.as_bytes()));
    assert_eq!(
        read("Entering Extended Passive Mode (|||5000|)"),
        Ok("5000".to_owned())
    );
    assert_eq!(read("ok (extended) (!!!65535!)."), Ok("65535".to_owned()));
    assert_eq!(read("( |||5000| )"), Ok("5000".to_owned()));
    assert_eq!(read("(|1|198.51.100.7|5000|)"), Ok("5000".to_owned()));
    assert_eq!(read("(|2|2001:db8::1|5000|)"), Ok("5000".to_owned()));
    assert_eq!(read("(|||65536|)"), Err(Flaw::OutOfRange));
    for text in ["|||5000|", "(no port", "Entering"] {
        let flaw = read(text).unwrap_err();
        assert!(matches!(flaw, Flaw::Absent | Flaw::Malformed), "{text}");
    }
    for text in [
        "(||5000|)",
        "(|||5000)",
        "(|!|5000|)",
        "(||||)",
        "(1115000 1)",
        "(11150001)",
        "(|1||5000|)",
        "(||192.0.2.1|5000|)",
        "(|3|192.0.2.1|5000|)",
        "(|||5000|x)",
        "(|||50 00|)",
        "(|||5000|) (|||5001|)",
    ] {
        assert_eq!(read(text), Err(Flaw::Malformed), "{text}");
    }
}

#[test]
fn a_rewritten_line_has_the_new_address_and_all_else() {
    let to: SocketAddr = "203.0.113.77:1025".parse().unwrap();
    let new = |line: &str| {
        rewrite(line.as_bytes(), to).map(|new| {
            assert_eq!(new.growth, new.line.len() as isize - line.len() as isize);
            String::from_utf8(new.line).unwrap()
        })
    };
    assert_eq!(
        new("port  10,0,0,9,19,136 \r\n").unwrap(),
        "port  203,0,113,77,4,1 \r\n"
    );
    assert_eq!(
        new("EPRT !1!10.0.0.9!5000!\n").unwrap(),
        "EPRT !1!203.0.113.77!1025!\n"
    );
    assert_eq!(
        new("EPRT :2:1:5:").unwrap_err(),
        RewriteError::NoAnnouncement
    );
    assert_eq!(
        new("227 Entering (192,0,2,1,19,136).\r\n").unwrap(),
        "227 Entering (203,0,113,77,4,1).\r\n"
    );
    assert_eq!(
        new("229 ok (|||60000|)\r\n").unwrap(),
        "229 ok (|||1025|)\r\n"
    );
    for line in [
        "NOOP\r\n",
        "227 none\r\n",
        "200 (192,0,2,1,19,136)\r\n",
        "",
        "PORT\r\n",
    ] {
        assert_eq!(new(line), Err(RewriteError::NoAnnouncement), "{line}");
    }
    let v6: SocketAddr = "[2001:db8::5]:99".parse().unwrap();
    assert_eq!(
        rewrite(b"PORT 10,0,0,9,19,136", v6),
        Err(RewriteError::Family)
    );
    assert_eq!(
        rewrite(b"EPRT |1|10.0.0.9|5000|\r\n", v6).unwrap().line,
        b"EPRT |2|2001:db8::5|99|\r\n"
    );
    assert_eq!(rewrite(b"229 (|||5|)", v6).unwrap().line, b"229 (|||99|)");
}
