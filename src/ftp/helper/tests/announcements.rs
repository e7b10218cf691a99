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
