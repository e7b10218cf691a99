//! Web console: pages that show the appliance, and change nothing.
//!
//! One thread accepts connections, examines requests ([`gate`]) and renders pages ([`pages`]) from
//! the same answers that the control socket gives ([`facts`]). All viewers share the rendered pages
//! ([`cache`]), so that their number does not matter to the packet path: the session table is
//! walked as for a list of sessions. Another thread reads the counters every few seconds
//! ([`samples`]), for charts of the last minutes ([`chart`]).

mod cache;
mod chart;
mod counters;
mod facts;
mod gate;
mod pages;
mod route;
mod samples;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use self::cache::{Cache, Lookup, Shown};
pub(super) use self::counters::ConsoleCounters;
use self::counters::Outcome;
use self::facts::Facts;
use self::gate::{Gate, Token};
use self::route::{Asset, Route, Target};
use self::samples::{Sample, Samples};
use super::appliance::Appliance;
use super::http::{self, HttpListener};
use super::rates::RateMemory;
use super::settings::ConsoleSettings;
use super::supervise::supervise;
use crate::output::notice;

/// Maximum lifetime of a connection; a browser opens another one.
const LIFETIME: Duration = Duration::from_secs(60);
/// Maximum time for a handshake, and for a client to send the head of its next request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of the head of a request, in bytes; 8 KiB is the minimum of hyper.
const MAX_HEAD: usize = 8 << 10;
/// Longest wait for other pages.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Time after the last page from which nothing is held for viewers.
const IDLE: Duration = Duration::from_secs(60);
/// Interval at which the thread of the samples checks whether it must end.
const LOOK: Duration = Duration::from_millis(100);

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Reason for which the console cannot start.
#[derive(Debug)]
pub(super) struct StartFault {
    /// Configuration key.
    pub(super) key: &'static str,
    /// File or address.
    pub(super) what: String,
    pub(super) source: io::Error,
}

fn fault(key: &'static str, what: impl ToString) -> impl FnOnce(io::Error) -> StartFault {
    let what = what.to_string();
    move |source| StartFault { key, what, source }
}

/// Running console.
pub(super) struct Started {
    pub(super) address: SocketAddr,
    pub(super) threads: [JoinHandle<()>; 2],
}

/// Starts the console, whose threads end with `stop`.
///
/// # Errors
/// A file of the settings cannot be used, the address is not available, or the system refuses a
/// thread.
pub(super) fn start(
    appliance: &Arc<Appliance>,
    settings: &ConsoleSettings,
    listener: HttpListener,
    counters: Arc<ConsoleCounters>,
    stop: &Arc<AtomicBool>,
) -> Result<Started, StartFault> {
    let console = Arc::new(Console {
        appliance: Arc::clone(appliance),
        gate: Gate::new(token(settings)?),
        tls: acceptor(settings)?,
        samples: Samples::default(),
        shared: Mutex::default(),
        counters,
    });
    let address = listener.address;
    let connect = {
        let console = Arc::clone(&console);
        move |stream, from| connection(stream, from, Arc::clone(&console))
    };
    let (address, thread) = http::serve_connections("console", listener, connect, Arc::clone(stop))
        .map_err(fault("console.listen", address))?;
    let sampler = {
        let stop = Arc::clone(stop);
        move || supervise("console: samples", &stop, || {}, |_| console.sample(&stop))
    };
    let sampler = thread::Builder::new()
        .name("console-samples".to_owned())
        .spawn(sampler)
        .map_err(fault("console", "a thread"))?;
    Ok(Started {
        address,
        threads: [thread, sampler],
    })
}

fn token(settings: &ConsoleSettings) -> Result<Option<Token>, StartFault> {
    let read =
        |path: &PathBuf| Token::read(path).map_err(fault("console.token_file", path.display()));
    settings.token_file.as_ref().map(read).transpose()
}

fn acceptor(settings: &ConsoleSettings) -> Result<Option<TlsAcceptor>, StartFault> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
        return Ok(None);
    };
    let of_key = tls::private_key(key).map_err(fault("console.key", key.display()))?;
    let authorities =
        |path: &PathBuf| tls::authorities(path).map_err(fault("console.client_ca", path.display()));
    let clients = settings.client_ca.as_ref().map(authorities).transpose()?;
    let path: &Path = certificate;
    tls::acceptor(path, of_key, clients)
        .map(Some)
        .map_err(fault("console.certificate", path.display()))
}

/// State that all viewers share.
#[derive(Default)]
struct Viewers {
    cache: Cache,
    /// Memory of rates, while pages are read.
    rates: Option<Arc<RateMemory>>,
    /// Time of the last page.
    last: Option<Instant>,
}

struct Console {
    appliance: Arc<Appliance>,
    gate: Gate,
    tls: Option<TlsAcceptor>,
    samples: Samples,
    shared: Mutex<Viewers>,
    counters: Arc<ConsoleCounters>,
}

/// Answer to a request.
struct Answer {
    outcome: Outcome,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    fn text(outcome: Outcome, text: &'static str) -> Self {
        Self {
            outcome,
            content_type: "text/plain; charset=utf-8",
            body: Bytes::from_static(text.as_bytes()),
        }
    }

    fn refusal(outcome: Outcome) -> Self {
        let text = match outcome {
            Outcome::NoToken | Outcome::WrongToken => {
                "the token is needed, as the password of any user or as a bearer\n"
            }
            Outcome::Limited => "too many wrong tokens: wait for a minute\n",
            Outcome::Method => "GET or HEAD\n",
            Outcome::NotFound => "there is no such page\n",
            Outcome::Busy => "other pages take too long: try again\n",
            _ => "the page has failed\n",
        };
        Self::text(outcome, text)
    }

    fn html(body: Bytes) -> Self {
        Self {
            outcome: Outcome::Answered,
            content_type: "text/html; charset=utf-8",
            body,
        }
    }

    fn asset(asset: Asset) -> Self {
        let (content_type, text) = match asset {
            Asset::Style => (
                "text/css; charset=utf-8",
                include_str!("assets/console.css"),
            ),
            Asset::Script => (
                "text/javascript; charset=utf-8",
                include_str!("assets/console.js"),
            ),
            Asset::Icon => ("image/svg+xml", include_str!("assets/icon.svg")),
        };
        Self {
            content_type,
            ..Self::text(Outcome::Answered, text)
        }
    }

    const fn status(outcome: Outcome) -> StatusCode {
        match outcome {
            Outcome::Answered => StatusCode::OK,
            Outcome::NoToken | Outcome::WrongToken | Outcome::Handshake => StatusCode::UNAUTHORIZED,
            Outcome::Limited => StatusCode::TOO_MANY_REQUESTS,
            Outcome::Method => StatusCode::METHOD_NOT_ALLOWED,
            Outcome::NotFound => StatusCode::NOT_FOUND,
            Outcome::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = Self::status(self.outcome);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let more = match self.outcome {
            Outcome::NoToken | Outcome::WrongToken => Some((
                WWW_AUTHENTICATE,
                "Basic realm=\"portcullis\", charset=\"UTF-8\"",
            )),
            Outcome::Limited => Some((RETRY_AFTER, "60")),
            Outcome::Busy => Some((RETRY_AFTER, "3")),
            Outcome::Method => Some((ALLOW, "GET, HEAD")),
            _ => None,
        };
        if let Some((name, value)) = more {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Console {
    /// Answers a request. Nothing about pages is revealed without the token.
    async fn answer(&self, request: &Request<Incoming>, from: IpAddr) -> Answer {
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.map(HeaderValue::as_bytes);
        if let Err(refusal) = self.gate.admit(from, authorization, Instant::now()) {
            return Answer::refusal(refusal);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Answer::refusal(Outcome::Method);
        }
        let uri = request.uri();
        match Target::of(uri.path(), uri.query().unwrap_or_default()) {
            None => Answer::refusal(Outcome::NotFound),
            Some(Target::Asset(asset)) => Answer::asset(asset),
            Some(Target::Page { route, is_part }) => match self.page(&route).await {
                Ok(shown) if is_part => Answer::html(shown.part),
                Ok(shown) => Answer::html(shown.whole),
                Err(outcome) => Answer::refusal(outcome),
            },
        }
    }

    /// Returns a page, after a wait for others.
    async fn page(&self, route: &Route) -> Result<Shown, Outcome> {
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            let now = Instant::now();
            let look = self.shared.lock().cache.look(route, now);
            match look {
                Lookup::Fresh(shown) => return Ok(shown),
                Lookup::Render => return self.render(route),
                Lookup::Wait(time) if now + time > until => return Err(Outcome::Busy),
                Lookup::Wait(time) => tokio::time::sleep(time).await,
            }
        }
    }

    /// Renders a page. A failure ends the request alone.
    fn render(&self, route: &Route) -> Result<Shown, Outcome> {
        let begin = Instant::now();
        let mut shared = self.shared.lock();
        let Viewers { cache, rates, last } = &mut *shared;
        *last = Some(begin);
        let mut facts = Facts {
            appliance: &self.appliance,
            samples: &self.samples,
            rates,
            now: begin,
        };
        // The facts are read again by the next page.
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            Shown::new(route, &pages::content(route, &mut facts))
        }));
        match rendered {
            Ok(shown) => {
                cache.keep(route.clone(), shown.clone(), begin, Instant::now());
                Ok(shown)
            }
            Err(_) => {
                notice(&format!("error: console: {} has failed", route.path()));
                Err(Outcome::Failed)
            }
        }
    }

    /// Reads the counters until `stop` is set, and frees the memory of viewers who are gone.
    fn sample(&self, stop: &AtomicBool) {
        let shared = &self.appliance.data_path.shared;
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now < next {
                thread::sleep(LOOK);
                continue;
            }
            next = now + samples::INTERVAL;
            let workers = shared.workers.iter();
            let received = workers.map(|worker| worker.received.value()).collect();
            let sample = Sample::new(now, &shared.engine.stats(), received);
            self.samples.note(sample);
            let mut viewers = self.shared.lock();
            let is_idle = |last| now.saturating_duration_since(last) > IDLE;
            if viewers.last.is_some_and(is_idle) {
                viewers.last = None;
                viewers.rates = None;
                viewers.cache.clear();
            }
        }
    }
}

/// Serves a connection, with TLS if the settings have it.
async fn connection(stream: TcpStream, from: SocketAddr, console: Arc<Console>) {
    let Some(tls) = console.tls.clone() else {
        return converse(stream, from, console).await;
    };
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, from, console).await,
        _ => console.counters.count(Outcome::Handshake),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    console: Arc<Console>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let console = Arc::clone(&console);
        async move {
            let answer = console.answer(&request, from.ip()).await;
            console.counters.count(answer.outcome);
            Ok::<_, Infallible>(answer.into_response())
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Errors of a connection concern its client alone.
    if timeout(LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(PATIENCE, connection).await;
    }
}
