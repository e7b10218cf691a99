//! Services of the demo's server: web, DNS, and a web page at a port that the policy denies. FTP is
//! in [`ftp`].
//!
//! Each service has a thread that accepts and one for each connection. All end with the process.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::accept::serve;
use super::content;
use super::error::DemoError;
use super::ftp;
use super::namespace::Namespace;
use super::topology::SERVER;

/// Port of the web server.
pub(crate) const WEB: u16 = 80;
/// Port of a web server that no rule allows.
pub(crate) const HIDDEN: u16 = 8080;
/// Length of `/large`, in bytes.
pub(crate) const LARGE: usize = 20_000_000;
/// Length of `/steady`, in bytes.
pub(crate) const STEADY: usize = 8_000_000;
/// Name that the DNS server knows.
pub(crate) const NAME: [&str; 2] = ["demo", "test"];
/// Bytes of `/steady` that are sent at once, and the pause after them: 1 MB/s.
const PIECE: usize = 50_000;
const PAUSE: Duration = Duration::from_millis(50);
/// Longest time for a request, and without progress of a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request.
const MAX_REQUEST: u64 = 8 << 10;
/// Length of a DNS header (RFC 1035 4.1.1).
const DNS_HEADER: usize = 12;

/// Starts all services.
///
/// # Errors
/// Returns an error if the system refuses a socket or a thread.
pub(crate) fn start(server: &Namespace) -> Result<(), DemoError> {
    server.inside("services", || {
        for port in [WEB, HIDDEN] {
            serve(TcpListener::bind((SERVER, port))?, web)?;
        }
        let ftp = |stream: &TcpStream| bound(stream).and_then(|()| ftp::session(stream));
        serve(TcpListener::bind((SERVER, ftp::PORT))?, ftp)?;
        let dns = UdpSocket::bind((SERVER, 53))?;
        thread::Builder::new().spawn(move || answer(&dns)).map(drop)
    })
}

/// Bounds the waits for a client.
fn bound(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Answers one request by HTTP.
fn web(stream: &TcpStream) -> io::Result<()> {
    bound(stream)?;
    let mut request = String::new();
    for line in BufReader::new(stream.take(MAX_REQUEST)).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if request.is_empty() {
            request = line;
        }
    }
    let mut to = stream;
    let mut head = |len: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
        to.write_all(head.as_bytes())
    };
    match request.split(' ').nth(1) {
        Some("/large") => {
            head(LARGE)?;
            content::write(&mut to, LARGE, 0)
        }
        Some("/steady") => {
            head(STEADY)?;
            for from in (0..STEADY).step_by(PIECE) {
                content::write(&mut to, PIECE.min(STEADY - from), from)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        }
        _ => {
            let page = "It works.\n";
            head(page.len())?;
            to.write_all(page.as_bytes())
        }
    }
}

/// Answers questions by DNS.
fn answer(socket: &UdpSocket) {
    let mut question = [0; 512];
    loop {
        // A socket reports ICMP errors about earlier answers, too.
        let Ok((len, from)) = socket.recv_from(&mut question) else {
            continue;
        };
        if let Some(answer) = dns_answer(question.get(..len).unwrap_or_default()) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Returns a question for the address of [`NAME`] (RFC 1035 4.1).
pub(crate) fn dns_question(id: u16) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    // Recursion is desired; one question.
    let mut question = vec![a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(dns_name());
    question
}

/// Returns the name, the type A and the class IN of a question.
fn dns_name() -> Vec<u8> {
    let labels = NAME.iter();
    let mut name: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    name.extend([0, 0, 1, 0, 1]);
    name
}

/// Returns the answer to a question of [`dns_question`]; `None` to any other.
fn dns_answer(question: &[u8]) -> Option<Vec<u8>> {
    let (header, name) = question.split_at_checked(DNS_HEADER)?;
    if name != dns_name() {
        return None;
    }
    let id = header.get(..2)?;
    // A response with recursion available; one question, one answer.
    let flags = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    // The name of the question, type A, class IN, 60 s, four bytes.
    let record = [0xc0, DNS_HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
    Some([id, &flags, name, &record, &SERVER.octets()].concat())
}

/// Returns the address in an answer by DNS with this number; `None` in any other datagram.
pub(crate) fn dns_address(id: u16, answer: &[u8]) -> Option<[u8; 4]> {
    (answer.get(..2)? == id.to_be_bytes()).then_some(())?;
    answer.last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_question_is_answered_with_the_servers_address() {
        let answer = dns_answer(&dns_question(0x1234)).unwrap();
        assert_eq!(dns_address(0x1234, &answer), Some(SERVER.octets()));
        assert_eq!(dns_address(0x1235, &answer), None);
        assert_eq!(dns_answer(b""), None);
        assert_eq!(dns_answer(&dns_question(1)[..20]), None);
    }

    #[test]
    fn a_web_page_is_served_and_a_client_without_a_request_too() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, web).unwrap();
        for request in ["GET / HTTP/1.1\r\nHost: demo\r\n\r\n", "\r\n"] {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let mut page = String::new();
            client.read_to_string(&mut page).unwrap();
            assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
            assert!(page.ends_with("\r\n\r\nIt works.\n"), "{page}");
        }
    }
}
