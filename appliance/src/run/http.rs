//! A small HTTP/1.1 server for health and metrics: one thread of its own, one request a connection.
//!
//! Nobody can hold it up: a connection has [`LIFETIME`] for everything, and when there are [`MAX_CONNECTIONS`], a new one
//! takes the place of the oldest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{future, io};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{AbortHandle, LocalSet};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last, with its request and its answer.
const LIFETIME: Duration = Duration::from_secs(5);
/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(3);
/// The longest head of a request, in bytes; 8 KiB is the least that hyper knows.
const MAX_HEAD: usize = 8 << 10;
/// How often the server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// An answer.
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

/// Makes an answer of a path.
pub(crate) type Handler = Arc<dyn Fn(&str) -> Page + Send + Sync>;

/// Answers GET and HEAD at an address, on a thread of its own that ends with `stop`. Returns the address, whose port may have
/// been left open.
///
/// # Errors
/// The address cannot be listened at, or there can be no thread.
pub(crate) fn serve(
    name: &str,
    address: SocketAddr,
    handler: Handler,
    stop: Arc<AtomicBool>,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let run = move || {
        let tasks = LocalSet::new();
        // An error ends this listener; the load balancer finds the appliance unhealthy.
        let _ = tasks.block_on(&runtime, accept(listener, &handler, &stop));
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok((address, thread))
}

async fn accept(listener: TcpListener, handler: &Handler, stop: &AtomicBool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let stream = match tokio::time::timeout(LOOK, listener.accept()).await {
            Err(_) => continue,
            Ok(Ok((stream, _))) => stream,
            Ok(Err(_)) => {
                // No descriptor is left, or the client has gone: a moment later there may be one.
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let handler = Arc::clone(handler);
        let connection = async move {
            let answer = service_fn(move |request| future::ready(answer(&handler, &request)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // What goes wrong with a connection is its client's concern.
            let _ = tokio::time::timeout(LIFETIME, connection).await;
        };
        connections.push_back(tokio::task::spawn_local(connection).abort_handle());
    }
    Ok(())
}

fn answer(handler: &Handler, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = if matches!(*request.method(), Method::GET | Method::HEAD) {
        handler(request.uri().path())
    } else {
        Page::text(405, "GET or HEAD\n".to_owned())
    };
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    Ok(response)
}
