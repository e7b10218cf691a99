//! FTP server of the demo: anonymous, passive mode, one file (RFC 959, RFC 2428).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::content;

/// Port of the commands.
pub(crate) const PORT: u16 = 21;
/// Length of the file, in bytes.
pub(crate) const FILE: usize = 1_000_000;
/// Longest wait for a data connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of commands in a session.
const MAX_COMMANDS: u64 = 16 << 10;

/// Serves one control connection.
///
/// # Errors
/// Returns the error of a connection.
pub(crate) fn session(control: &TcpStream) -> io::Result<()> {
    let address = control.local_addr()?.ip();
    let mut passive = None;
    say(control, "220 portcullis demo")?;
    for line in BufReader::new(control.take(MAX_COMMANDS)).lines() {
        let line = line?;
        let command = line.split(' ').next().unwrap_or_default();
        match command.to_ascii_uppercase().as_str() {
            "USER" => say(control, "331 any password")?,
            "PASS" => say(control, "230 logged in")?,
            "PWD" => say(control, "257 \"/\"")?,
            "TYPE" | "CWD" => say(control, "200 done")?,
            "SIZE" => say(control, &format!("213 {FILE}"))?,
            "EPSV" | "PASV" => {
                let listener = TcpListener::bind((address, 0))?;
                let place = listener.local_addr()?;
                passive = Some(listener);
                say(control, &announcement(command, place))?;
            }
            "RETR" => match passive.take() {
                Some(listener) => {
                    say(control, "150 here it comes")?;
                    let mut data = accept(&listener)?;
                    content::write(&mut data, FILE, 0)?;
                    drop(data);
                    say(control, "226 that was all")?;
                }
                None => say(control, "425 use EPSV first")?,
            },
            "QUIT" => return say(control, "221 goodbye"),
            _ => say(control, "502 not implemented")?,
        }
    }
    Ok(())
}

/// Returns the reply that announces the place of the data connection.
fn announcement(command: &str, place: SocketAddr) -> String {
    let port = place.port();
    match place.ip() {
        IpAddr::V4(address) if command.eq_ignore_ascii_case("PASV") => {
            let [a, b, c, d] = address.octets();
            let [high, low] = port.to_be_bytes();
            format!("227 passive ({a},{b},{c},{d},{high},{low})")
        }
        _ => format!("229 extended passive (|||{port}|)"),
    }
}

/// Accepts the data connection.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut ready, patience)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => listener.accept().map(|(stream, _)| stream),
    }
}

fn say(mut control: &TcpStream, line: &str) -> io::Result<()> {
    control.write_all(format!("{line}\r\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::thread;

    use super::*;
    use crate::demo::content::Received;

    #[test]
    fn a_file_comes_over_a_connection_that_the_server_announces() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || session(&listener.accept().unwrap().0));
        let control = TcpStream::connect(address).unwrap();
        let mut replies = BufReader::new(&control).lines();
        let mut reply = |command: &str| {
            if !command.is_empty() {
                say(&control, command).unwrap();
            }
            replies.next().unwrap().unwrap()
        };
        assert!(reply("").starts_with("220 "));
        assert!(reply("RETR file").starts_with("425 "));
        assert!(reply("PASV").starts_with("227 passive (127,0,0,1,"));
        let announced = reply("EPSV");
        let port = announced.trim_start_matches("229 extended passive (|||");
        let port: u16 = port.trim_end_matches("|)").parse().unwrap();
        say(&control, "RETR file").unwrap();
        let mut data = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let whole = Received {
            bytes: FILE,
            wrong: 0,
        };
        assert_eq!(content::read(&mut data).unwrap(), whole);
        assert!(reply("").starts_with("150 "));
        assert!(reply("").starts_with("226 "));
        assert!(reply("STOR file").starts_with("502 "));
        assert!(reply("QUIT").starts_with("221 "));
        server.join().unwrap().unwrap();
    }
}
