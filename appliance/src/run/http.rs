//! A small HTTP/1.1 server for health and metrics: one thread of its own, and one request per
//! connection. The console has its own connections on such a thread.
//!
//! No client can block it: a connection has [`LIFETIME`] for everything, and at
//! [`MAX_CONNECTIONS`], a new one evicts the oldest of the source address with the most.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{future, io};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, LocalSet};

use super::sharing::Sharing;
use super::supervise::supervise;

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Maximum lifetime of a connection, with its request and its answer.
const LIFETIME: Duration = Duration::from_secs(5);
/// Maximum time for a client to send the head of its request.
const HEAD: Duration = Duration::from_secs(3);
/// Maximum length of the head of a request, in bytes; 8 KiB is the minimum of hyper.
const MAX_HEAD: usize = 8 << 10;
/// Number of connections that may wait to be accepted, if the system grants it.
const BACKLOG: i32 = 4_096;
/// Interval at which the server checks whether it must end.
const LOOK: Duration = Duration::from_millis(100);

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    /// Plain text.
    pub(crate) fn text(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }
}

/// Request of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpRequest<'r> {
    pub(crate) path: &'r str,
    /// The `Accept` headers, joined by commas.
    pub(crate) accept: &'r str,
}

/// Function that answers requests.
pub(crate) type Handler = Arc<dyn Fn(HttpRequest<'_>) -> Page + Send + Sync>;

/// Predicate of source addresses that may connect.
pub(crate) type SourceFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Counters of a listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounters {
    /// Connections from disallowed sources.
    refused: AtomicU64,
    /// Connections that made room for others.
    evicted: AtomicU64,
}

impl ListenerCounters {
    /// Counts a connection from a disallowed source.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections from disallowed sources.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that made room for others.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// Listener: its address, the sources that may connect, and its counters.
#[derive(Clone)]
pub(crate) struct HttpListener {
    pub(crate) address: SocketAddr,
    pub(crate) is_allowed: SourceFilter,
    pub(crate) counters: Arc<ListenerCounters>,
}

impl HttpListener {
    /// Returns a listener that shares its filter and its counters.
    pub(crate) fn new(
        address: SocketAddr,
        is_allowed: &SourceFilter,
        counters: &Arc<ListenerCounters>,
    ) -> Self {
        Self {
            address,
            is_allowed: Arc::clone(is_allowed),
            counters: Arc::clone(counters),
        }
    }
}

/// Listens for connections, without blocking.
///
/// # Errors
/// The address is not available.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Closes a connection with a RST, so that no state of it remains in the system.
pub(crate) fn refuse(connection: SockRef<'_>) {
    // If this fails, the connection ends with a FIN.
    let _ = connection.set_linger(Some(Duration::ZERO));
}

/// Answers GET and HEAD at an address, on a thread of its own that ends with `stop`. Returns the
/// address, whose port may have been left open.
///
/// # Errors
/// Returns an error if the address is not available, or the system refuses a thread.
pub(crate) fn serve(
    name: &'static str,
    listener: HttpListener,
    handler: Handler,
    stop: Arc<AtomicBool>,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let connect = move |stream, _| connection(stream, Arc::clone(&handler));
    serve_connections(name, listener, connect, stop)
}

/// Serves each connection at an address by the task that `connect` returns, on a thread of its own
/// that ends with `stop`. A task that fails ends its connection alone. Returns the address, whose
/// port may have been left open.
///
/// # Errors
/// Returns an error if the address is not available, or the system refuses a thread.
pub(super) fn serve_connections<F>(
    name: &'static str,
    listener: HttpListener,
    connect: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    stop: Arc<AtomicBool>,
) -> io::Result<(SocketAddr, JoinHandle<()>)>
where
    F: Future<Output = ()> + 'static,
{
    let socket = listen(listener.address)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let body = move || {
        let accepting = || {
            let tasks = LocalSet::new();
            // An error ends this listener; the load balancer finds the appliance unhealthy.
            let accepted = socket
                .try_clone()
                .map(|socket| tasks.block_on(&runtime, accept(socket, &listener, &connect, &stop)));
            let _ = accepted;
        };
        supervise(name, &stop, || {}, |_| accepting());
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
    Ok((address, thread))
}

/// A connection that is served.
struct Served {
    task: AbortHandle,
    /// A second handle to its socket; `None` if no descriptor was left.
    socket: Option<Socket>,
}

impl Served {
    fn evict(self) {
        if let Some(socket) = &self.socket {
            refuse(SockRef::from(socket));
        }
        self.task.abort();
    }
}

async fn accept<F: Future<Output = ()> + 'static>(
    socket: TcpListener,
    listener: &HttpListener,
    connect: &impl Fn(TcpStream, SocketAddr) -> F,
    stop: &AtomicBool,
) -> io::Result<()> {
    let accepting = tokio::net::TcpListener::from_std(socket)?;
    let mut served = Sharing::new(MAX_CONNECTIONS);
    while !stop.load(Ordering::Relaxed) {
        let accepted = tokio::time::timeout(LOOK, accepting.accept()).await;
        served.retain(|connection: &Served| !connection.task.is_finished());
        let (stream, from) = match accepted {
            Err(_) => continue,
            Ok(Ok(accepted)) => accepted,
            Ok(Err(_)) => {
                // No descriptor is left, or the client is gone: one may be available later.
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        if !(listener.is_allowed)(from.ip()) {
            listener.counters.refuse();
            refuse(SockRef::from(&stream));
            continue;
        }
        let socket = SockRef::from(&stream).try_clone().ok();
        let task = tokio::task::spawn_local(connect(stream, from)).abort_handle();
        if let Some(evicted) = served.admit(from.ip(), Served { task, socket }) {
            listener.counters.evicted.fetch_add(1, Ordering::Relaxed);
            evicted.evict();
        }
        // The tasks, including aborted ones, run before the next connection.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, handler: Handler) {
    let answer = service_fn(move |request| future::ready(answer(&handler, &request)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // Errors of a connection concern its client alone.
    let _ = tokio::time::timeout(LIFETIME, connection).await;
}

fn answer(
    handler: &Handler,
    request: &Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = if matches!(*request.method(), Method::GET | Method::HEAD) {
        let accept = request.headers().get_all(ACCEPT).iter();
        // A header that is not text requests nothing.
        let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
        handler(HttpRequest {
            path: request.uri().path(),
            accept: &accept.join(","),
        })
    } else {
        Page::text(405, "GET or HEAD\n".to_owned())
    };
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    Ok(response)
}
