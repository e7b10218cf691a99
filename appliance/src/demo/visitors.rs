//! Traffic of a kept demo: a download that begins again at its end, and a page every second.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::error::DemoError;
use super::namespace::Namespace;
use super::services::WEB;
use super::topology::SERVER;

/// Pause between two visits.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a connection, and without progress of a reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the visits. They end with the process.
///
/// # Errors
/// Returns an error if the system refuses a thread.
pub(crate) fn start(client: &Namespace) -> Result<(), DemoError> {
    client.inside("visitors", || {
        for path in ["/steady", "/"] {
            thread::Builder::new().spawn(move || {
                loop {
                    // A visit that fails is visible in the appliance.
                    let _ = visit(path);
                    thread::sleep(PAUSE);
                }
            })?;
        }
        Ok(())
    })
}

fn visit(path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&(SERVER, WEB).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n").as_bytes())?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
