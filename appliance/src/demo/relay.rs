//! Relay between a port of the host's loopback address and one of the appliance's namespace.
//!
//! The appliance has a network of its own, and a browser on the host still reaches its pages:
//! the metrics, and whatever else listens at the loopback address of the namespace.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use super::accept::serve;
use super::error::DemoError;
use super::namespace::Namespace;

/// Relays the connections of a listener of the host to a port in the namespace, until the process
/// ends.
///
/// # Errors
/// Returns an error if the system refuses a thread.
pub(crate) fn start(
    listener: TcpListener,
    namespace: &Namespace,
    port: u16,
) -> Result<(), DemoError> {
    // The sockets to the port belong to the namespace; the listener stays where it was created.
    namespace.inside("relay", move || {
        serve(listener, move |outer| connect(outer, port))
    })
}

/// Copies the bytes of both directions until both have ended.
fn connect(outer: &TcpStream, port: u16) -> io::Result<()> {
    let inner = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    thread::scope(|scope| {
        scope.spawn(|| copy(outer, &inner));
        copy(&inner, outer);
    });
    Ok(())
}

/// Copies the bytes of one direction and passes on its end.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    let how = if copied.is_ok() {
        Shutdown::Write
    } else {
        Shutdown::Both
    };
    let _ = to.shutdown(how);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn bytes_pass_in_both_directions_with_their_end() {
        let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let outer = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = inner.local_addr().unwrap().port();
        let address = outer.local_addr().unwrap();
        serve(outer, move |stream| connect(stream, port)).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = inner.accept().unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            stream.write_all(b"answer").unwrap();
            asked
        });
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(server.join().unwrap(), "question");
    }
}
