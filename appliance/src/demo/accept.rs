//! Connections of a listener, each on a thread of its own.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Largest number of connections of a listener; further ones are closed immediately.
const MAX_CONNECTIONS: usize = 64;
/// Pause after a connection that the system does not hand out.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves the connections of a listener until the process ends. The threads stay in the network
/// namespace of the calling one.
///
/// # Errors
/// Returns an error if the system refuses the thread that accepts.
pub(crate) fn serve(
    listener: TcpListener,
    session: impl Fn(&TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let connections = Arc::new(());
    let accept = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Without file descriptors, each attempt would fail at once.
                thread::sleep(PAUSE);
                continue;
            };
            // One of the references is this thread's own.
            if Arc::strong_count(&connections) > MAX_CONNECTIONS {
                continue;
            }
            let (session, connection) = (session.clone(), Arc::clone(&connections));
            let one = move || {
                // The ends of a connection that fails notice that themselves.
                let _ = session(&stream);
                drop(connection);
            };
            // A client whose thread is refused sees its connection close.
            let _ = thread::Builder::new().spawn(one);
        }
    };
    thread::Builder::new().spawn(accept).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn connections_above_the_bound_are_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        // Greets, and waits for the client's end.
        let greet = |mut stream: &TcpStream| {
            stream.write_all(b"!")?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        };
        serve(listener, greet).unwrap();
        let connect = || {
            let mut stream = TcpStream::connect(address).unwrap();
            let len = stream.read(&mut [0]).unwrap();
            (stream, len)
        };
        let live: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect()).collect();
        assert!(live.iter().all(|(_, len)| *len == 1));
        assert_eq!(connect().1, 0);
    }
}
