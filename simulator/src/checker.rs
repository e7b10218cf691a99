//! Health checks by TCP and HTTP.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::health::{CheckFailure, CheckResult, HealthCheck, HttpProbe};
use super::sender::Shared;

/// Interval at which due checks are started.
const TICK: Duration = Duration::from_millis(20);
/// Maximum length of a status line.
const MAX_STATUS_LINE: usize = 1024;

/// Checks targets, ends drainings and writes changes to standard error, until `finished`.
///
/// Each check has a thread of its own, which ends at the check's time-out. As that is not longer
/// than the interval, a registered target has one check at a time.
pub(super) fn watch(shared: &Shared, check: Option<&HealthCheck>, finished: &AtomicBool) {
    let (report, reports) = mpsc::channel();
    while !finished.load(Ordering::Relaxed) {
        let (due, changes) = {
            let mut balancer = shared.balancer.lock();
            let now = Instant::now();
            balancer.targets.advance(now);
            for (due, result) in reports.try_iter() {
                balancer.targets.checked(due, result);
            }
            (
                balancer.targets.due_checks(now),
                balancer.targets.take_changes(),
            )
        };
        for change in changes {
            let _ = writeln!(io::stderr(), "portcullis simulate: {change}");
        }
        for due in due {
            let Some(check) = check.cloned() else {
                continue;
            };
            let report = report.clone();
            // Not joined: a run does not wait for checks whose results it no longer needs. Without
            // a thread, the check is omitted.
            let _ =
                thread::Builder::new().spawn(move || report.send((due, run(&check, due.address))));
        }
        thread::sleep(TICK);
    }
}

/// Checks a target.
fn run(check: &HealthCheck, address: Ipv4Addr) -> CheckResult {
    let deadline = Instant::now() + check.timeout;
    let to = SocketAddrV4::new(address, check.probe.port);
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(to), check.timeout).map_err(failure)?;
    match &check.probe.http {
        None => Ok(()),
        Some(http) => request(stream, http, to, deadline),
    }
}

/// Sends a request and evaluates the status code.
fn request(
    mut stream: TcpStream,
    http: &HttpProbe,
    to: SocketAddrV4,
    deadline: Instant,
) -> CheckResult {
    let path = &http.path;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: portcullis-simulator\r\n\
         Connection: close\r\n\r\n"
    );
    stream
        .set_write_timeout(Some(left(deadline)?))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .map_err(failure)?;
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    loop {
        stream
            .set_read_timeout(Some(left(deadline)?))
            .map_err(failure)?;
        let len = match stream.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failure(error)),
        };
        line.extend_from_slice(buffer.get(..len).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            break;
        }
        if len == 0 || line.len() > MAX_STATUS_LINE {
            return Err(CheckFailure::Malformed);
        }
    }
    match status_code(&line) {
        Some(code) if http.accepts(code) => Ok(()),
        Some(code) => Err(CheckFailure::Code(code)),
        None => Err(CheckFailure::Malformed),
    }
}

/// Returns the code in a status line (RFC 9112 section 4).
pub(super) fn status_code(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (_version, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let code = rest.split(' ').next()?;
    (code.len() == 3).then(|| code.parse().ok()).flatten()
}

/// Returns the time until the deadline.
fn left(deadline: Instant) -> Result<Duration, CheckFailure> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(CheckFailure::Timeout)
    } else {
        Ok(left)
    }
}

/// Returns the failure of a check whose connection failed.
fn failure(error: io::Error) -> CheckFailure {
    match error.kind() {
        // A time-out of a socket is reported as EAGAIN (socket(7)).
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => CheckFailure::Timeout,
        _ => CheckFailure::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::health::Probe;
    use super::*;

    const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn check(port: u16, http: bool, timeout: Duration) -> HealthCheck {
        let http = http.then(|| HttpProbe {
            path: "/health".to_owned(),
            codes: vec![200..=299],
        });
        HealthCheck {
            probe: Probe { port, http },
            interval: timeout,
            timeout,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        }
    }

    /// Checks a server that answers one request with `answer`; returns also the request.
    fn answered(answer: &'static [u8]) -> (CheckResult, String) {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1024];
            let len = stream.read(&mut request).unwrap();
            for piece in answer.chunks(7) {
                stream.write_all(piece).unwrap();
            }
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        let result = run(&check(port, true, Duration::from_secs(60)), LOCALHOST);
        (result, server.join().unwrap())
    }

    #[test]
    fn a_check_by_http_is_judged_by_its_status_code() {
        let (result, request) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(result, Ok(()));
        assert!(
            request.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"),
            "{request}"
        );
        let (result, _) = answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(result, Err(CheckFailure::Code(503)));
        for wrong in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/1.1 20",
            b"HTTP/1.1 2000 OK\r\n",
            b"",
        ] {
            assert_eq!(answered(wrong).0, Err(CheckFailure::Malformed));
        }
    }

    #[test]
    fn a_check_by_tcp_needs_a_listener_and_one_by_http_an_answer() {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let short = Duration::from_millis(100);
        assert_eq!(
            run(&check(port, false, Duration::from_secs(60)), LOCALHOST),
            Ok(())
        );
        assert_eq!(
            run(&check(port, true, short), LOCALHOST),
            Err(CheckFailure::Timeout)
        );
        drop(listener);
        let refused = run(&check(port, false, Duration::from_secs(60)), LOCALHOST);
        assert_eq!(refused, Err(CheckFailure::Unreachable));
    }
}
