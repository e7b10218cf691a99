//! The control socket: a Unix socket that answers its owner and root, see [`super::protocol`].
//!
//! Each client has a thread, and at most [`MAX_CLIENTS`] have a place; a new one evicts a client
//! that is idle, see [`super::clients`]. One that does not read is left after [`PATIENCE`], and one
//! that asks nothing after [`FIRST`]. Nothing that
//! is asked holds more than one shard's lock, and that only for as long as copying its sessions takes.
//! What is ordered is logged with the peer's user, see [`super::audit`].

use std::collections::{BinaryHeap, HashMap};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use portcullis::policy::Action;
use portcullis::{Engine, SessionDetail, SessionId, SessionRecord, Stats};

use super::appliance::Appliance;
use super::audit::{self, Peer};
use super::clients::{Clients, Place};
use super::protocol::{AsymmetryView, FilterSpec, MAX_REQUEST, Reply, Request, RuleView, StatsView};
use super::reloads::ReloadState;
use super::view::WallClock;
use crate::output::notice;

/// Clients at once.
const MAX_CLIENTS: usize = 16;
/// How long a client may take to read a part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time from a connection to its first request.
const FIRST: Duration = Duration::from_secs(5);
/// Longest time from an answer to the next request.
const SILENCE: Duration = Duration::from_secs(300);
/// How often the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);
/// Sessions that a limited answer may ask for.
const MAX_LIMIT: usize = 10_000;

/// Listens at a path until `stop` is set; the socket is removed then.
///
/// # Errors
/// The socket cannot be made, or another appliance answers at it.
pub(crate) fn serve(
    path: &Path,
    appliance: Arc<Appliance>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let listener = listen(path)?;
    listener.set_nonblocking(true)?;
    let path = path.to_owned();
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || accept(&listener, path, &appliance, &stop))
}

/// Makes the directory of a socket if it is missing, for the owner alone: `/run` is empty after each boot. Those above it must be
/// there.
///
/// # Errors
/// It is missing and cannot be made.
pub(crate) fn make_directory(of: &Path) -> io::Result<()> {
    let Some(directory) = of.parent().filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .map_err(|error| {
            let what = format!("{} is missing and cannot be made: {error}", directory.display());
            io::Error::new(error.kind(), what)
        })
}

/// A socket that nobody but the owner can open, from its first moment on.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another appliance answers there",
        ));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o600))?;
    // In the place of what an appliance that has crashed has left.
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, path: PathBuf, appliance: &Arc<Appliance>, stop: &AtomicBool) {
    let clients = Arc::new(Clients::new(MAX_CLIENTS, PATIENCE));
    let owners = [0, nix::unistd::geteuid().as_raw()];
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        let peer = getsockopt(&stream, PeerCredentials).map(|peer| Peer {
            uid: peer.uid(),
            pid: peer.pid(),
        });
        let Some(peer) = peer.ok().filter(|peer| owners.contains(&peer.uid)) else {
            refuse(stream, "only its owner may ask");
            continue;
        };
        let Some(place) = admit(&clients, &stream) else {
            refuse(stream, "too many clients");
            continue;
        };
        let appliance = Arc::clone(appliance);
        // What goes wrong with a client is its own concern. Its place is free once the thread has
        // ended, or was not made.
        let client = move || converse(stream, peer, &appliance, &place);
        let _ = thread::Builder::new()
            .name("control-client".to_owned())
            .spawn(client);
    }
    let _ = std::fs::remove_file(path);
}

/// Gives a client a place, if need be after a moment: the thread of an evicted one takes a while to
/// end.
fn admit(clients: &Arc<Clients>, stream: &UnixStream) -> Option<Place> {
    let until = Instant::now() + LOOK;
    loop {
        match clients.admit(stream, Instant::now()) {
            Ok(None) if Instant::now() < until => thread::sleep(LOOK / 20),
            place => return place.ok().flatten(),
        }
    }
}

fn refuse(stream: UnixStream, why: &str) {
    let _ = stream.set_nonblocking(true);
    let _ = put(&mut &stream, &Reply::Error(why.to_owned()));
}

fn converse(stream: UnixStream, peer: Peer, appliance: &Appliance, place: &Place) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(FIRST))?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut replies = BufWriter::with_capacity(64 << 10, stream);
    loop {
        let mut line = Vec::new();
        if (&mut requests).take(MAX_REQUEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            put(
                &mut replies,
                &Reply::Error("the request is too long or torn".to_owned()),
            )?;
            return replies.flush();
        }
        place.asks();
        let last = match serde_json::from_slice(&line) {
            Ok(request) => {
                let order = audit::order(&request);
                let last = answer(request, appliance, &mut |reply| put(&mut replies, reply));
                if let Some(order) = order {
                    notice(&audit::line(peer, &order, last.as_ref().ok()));
                }
                last?
            }
            Err(error) => Reply::Error(format!("no request: {error}")),
        };
        put(&mut replies, &last)?;
        replies.flush()?;
        place.is_answered();
        requests.get_ref().set_read_timeout(Some(SILENCE))?;
    }
}

fn put(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Puts the lines of an answer but the last, which it returns.
///
/// # Errors
/// The client does not read.
fn answer(
    request: Request,
    appliance: &Appliance,
    put: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> io::Result<Reply> {
    let now = Instant::now();
    let engine = &appliance.data_path.shared.engine;
    let done = |count: usize, text: Option<String>| Reply::Done {
        count: count as u64,
        text,
    };
    Ok(match request {
        Request::Sessions { filter, limit } => return sessions(&filter, limit, appliance, now, put),
        Request::Delete { filter, all } => match filter.read(&appliance.zones, &engine.policy()) {
            Err(error) => Reply::Error(error),
            Ok(filter) if filter.is_everything() && !all => {
                Reply::Error("this would end every session: say `all` if that is meant".to_owned())
            }
            Ok(filter) => {
                let count = appliance.data_path.end_sessions(&filter, now);
                done(count, Some(format!("{count} sessions ended")))
            }
        },
        Request::Explain { id } => match SessionId::from_number(id).and_then(|id| engine.inspect(id, now)) {
            Some(detail) => {
                let lines = explain(&detail, appliance, now);
                for line in &lines {
                    put(&Reply::Line(line.clone()))?;
                }
                done(lines.len(), None)
            }
            None => Reply::Error(format!("there is no session {id}")),
        },
        Request::Expectations => {
            let expectations = engine.export_expectations(now);
            for expectation in &expectations {
                put(&Reply::Expectation(*expectation))?;
            }
            done(expectations.len(), None)
        }
        Request::Import { expectations } => {
            let taken = engine.import_expectations(&expectations, now);
            let text = format!("{taken} of {} expectations taken over", expectations.len());
            done(taken, Some(text))
        }
        Request::Asymmetry { clear } => {
            let report = engine.asymmetry();
            for line in &report.lines {
                put(&Reply::Asymmetry(asymmetry(line, appliance, now)))?;
            }
            if clear {
                engine.clear_asymmetry();
            }
            let lost = report.unlisted + report.unnoticed;
            let lost = (lost != 0).then(|| format!("{lost} packets found no place in the report"));
            done(report.lines.len(), lost)
        }
        Request::Stats => {
            put(&Reply::Stats(Box::new(stats(appliance, now))))?;
            done(1, None)
        }
        Request::Rules => {
            let rules = rules(appliance);
            let count = rules.len();
            for rule in rules {
                put(&Reply::Rule(Box::new(rule)))?;
            }
            done(count, None)
        }
        Request::Preview { name, text } => match appliance.preview(&name, &text, now) {
            Err(error) => Reply::Error(error),
            Ok(preview) => {
                let policy = engine.policy();
                let viewer = appliance.viewer(&policy, now);
                for (session, reason) in &preview.would_end {
                    put(&Reply::WouldEnd {
                        reason: reason.name().to_owned(),
                        session: Box::new(viewer.view(session)),
                    })?;
                }
                let text = preview.text(engine.sessions());
                done(preview.would_end.len(), Some(text))
            }
        },
        Request::Adopt { seconds } => {
            engine.adopt_for(Duration::from_secs(seconds), now);
            let text = format!("connections are adopted in their middle for {seconds} s");
            done(1, Some(text))
        }
        Request::Reload => match appliance.reload() {
            Ok(text) => done(1, Some(text)),
            Err(error) => Reply::Error(error),
        },
        Request::Health => {
            let reasons = appliance.health.verdict(now);
            for reason in &reasons {
                put(&Reply::Line(reason.to_string()))?;
            }
            for line in notes(&appliance.reloads.state()) {
                put(&Reply::Line(line))?;
            }
            let text = if reasons.is_empty() {
                "healthy"
            } else {
                "unhealthy"
            };
            done(reasons.len(), Some(text.to_owned()))
        }
    })
}

/// A session, ordered by its bytes, fewest first to go.
struct ByBytes(SessionRecord);

impl ByBytes {
    const fn bytes(&self) -> u64 {
        self.0.original.bytes.saturating_add(self.0.reply.bytes)
    }
}

impl PartialEq for ByBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for ByBytes {}

impl PartialOrd for ByBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.bytes().cmp(&self.bytes())
    }
}

fn sessions(
    filter: &FilterSpec,
    limit: Option<usize>,
    appliance: &Appliance,
    now: Instant,
    put: &mut dyn FnMut(&Reply) -> io::Result<()>,
) -> io::Result<Reply> {
    let engine = &appliance.data_path.shared.engine;
    let policy = engine.policy();
    let filter = match filter.read(&appliance.zones, &policy) {
        Ok(filter) => filter,
        Err(error) => return Ok(Reply::Error(error)),
    };
    let viewer = appliance.viewer(&policy, now);
    let mut count = 0;
    let mut largest = BinaryHeap::new();
    let mut failed = None;
    engine.for_each_session(|session| {
        if failed.is_some() || session.expires <= now || !filter.matches(session, now) {
            return;
        }
        count += 1;
        match limit {
            None => failed = put(&Reply::Session(Box::new(viewer.view(session)))).err(),
            Some(limit) => {
                largest.push(ByBytes(*session));
                if largest.len() > limit.min(MAX_LIMIT) {
                    largest.pop();
                }
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    for ByBytes(session) in largest.into_sorted_vec() {
        put(&Reply::Session(Box::new(viewer.view(&session))))?;
    }
    Ok(Reply::Done { count, text: None })
}

fn explain(detail: &SessionDetail, appliance: &Appliance, now: Instant) -> Vec<String> {
    let policy = appliance.data_path.shared.engine.policy();
    let viewer = appliance.viewer(&policy, now);
    let view = viewer.view(&detail.record);
    let port = |port: Option<u16>| port.map_or(String::new(), |port| format!("#{port}"));
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
    let mut lines = vec![
        format!(
            "session {}: zone {}, {} {}{} -> {}{}",
            view.id,
            view.zone,
            view.proto,
            view.src,
            port(view.sport),
            view.dst,
            port(view.dport)
        ),
        format!(
            "state {}{}; history {}, conn_state {}",
            view.state,
            if view.assured { ", assured" } else { "" },
            view.history,
            view.conn_state
        ),
        format!(
            "original: {} packets, {} bytes; reply: {} packets, {} bytes",
            view.orig_pkts, view.orig_bytes, view.reply_pkts, view.reply_bytes
        ),
        format!(
            "opened {} ago, last packet {} ago",
            seconds(now.saturating_duration_since(detail.record.start)),
            seconds(now.saturating_duration_since(detail.record.last))
        ),
    ];
    let cap = detail
        .lifetime
        .cap
        .map_or(String::new(), |cap| format!(", at most {}", cap.name()));
    let profile = match detail.profile {
        0 => "global".to_owned(),
        n => format!("lifetimes.override[{}]", n - 1),
    };
    lines.push(format!(
        "lifetime {} ({}{cap}, {profile}); {} left",
        seconds(detail.lifetime_length),
        detail.lifetime.class.name(),
        seconds(detail.left)
    ));
    lines.push(format!(
        "admitted by {}{}",
        if view.rule == "default" {
            "default".to_owned()
        } else {
            format!("rule `{}`", view.rule)
        },
        if detail.evictable {
            "; a full table may end it"
        } else {
            ""
        }
    ));
    for (name, side) in ["original", "reply"].iter().zip(detail.sides.iter().flatten()) {
        lines.push(format!(
            "{name} end: sent up to {}, may send up to {}, largest window {} (scale {}), expects {}",
            side.peer.end, side.peer.max_end, side.peer.max_window, side.scale, side.peer.max_ack
        ));
    }
    let marks = [
        (
            detail.liberal,
            "tracked liberally: what does not fit the window passes",
        ),
        (view.adopted, "picked up in the middle of its connection"),
        (view.resumed, "goes on with a session that had ended"),
        (view.bypassed, "half of it is missing, and it passes nevertheless"),
        (
            detail.has_children,
            "has announced sessions that live, and lives as long as they do",
        ),
    ];
    lines.extend(
        marks
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, text)| (*text).to_owned()),
    );
    match (&detail.parent, view.parent) {
        (Some(parent), _) => {
            let parent = viewer.view(parent);
            lines.push(format!(
                "announced by session {}: {}{} -> {}{}",
                parent.id,
                parent.src,
                port(parent.sport),
                parent.dst,
                port(parent.dport)
            ));
        }
        (None, Some(parent)) => lines.push(format!("announced by session {parent}, which has ended")),
        (None, None) => {}
    }
    let unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    for (name, tunnel) in ["original", "reply"].iter().zip(&view.tunnels) {
        lines.push(match tunnel {
            Some(tunnel) => format!(
                "{name} direction: endpoint {}, attachment {}, cookie {}, from {} port {}",
                unknown(&tunnel.endpoint),
                unknown(&tunnel.attachment),
                unknown(&tunnel.cookie),
                tunnel.peer,
                tunnel.port
            ),
            None => format!("{name} direction: no tunnel is known"),
        });
    }
    lines
}

fn asymmetry(
    line: &portcullis::asymmetry::AsymmetryLine,
    appliance: &Appliance,
    now: Instant,
) -> AsymmetryView {
    let ago = |moment| now.saturating_duration_since(moment).as_secs_f64();
    AsymmetryView {
        zone: appliance.zones.name(line.zone),
        other_zone: line.other_zone.map(|zone| appliance.zones.name(zone)),
        from: line.from.to_string(),
        to: line.to.to_string(),
        evidence: line.evidence.name().to_owned(),
        cause: line.cause().name().to_owned(),
        flows: line.flows,
        packets: line.packets,
        first: ago(line.first),
        last: ago(line.last),
        text: line.to_string(),
    }
}

/// What an operator has to know of the last reload.
pub(super) fn notes(state: &ReloadState) -> Vec<String> {
    let failed = state
        .failed
        .iter()
        .map(|error| format!("the last reload was refused: {error}"));
    let waiting = state
        .waiting
        .iter()
        .map(|key| format!("{key} waits for a restart"));
    failed.chain(waiting).collect()
}

fn named<N: AsRef<str>>(counts: impl IntoIterator<Item = (N, u64)>) -> Vec<(String, u64)> {
    counts
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| (name.as_ref().to_owned(), count))
        .collect()
}

fn stats(appliance: &Appliance, now: Instant) -> StatsView {
    let engine: &Engine = &appliance.data_path.shared.engine;
    let of: Stats = engine.stats();
    let front = appliance.data_path.shared.front.stats();
    let reloads = appliance.reloads.state();
    let tolerated = engine.tolerated();
    let tolerated = tolerated
        .iter()
        .map(|(reason, rule, count)| (format!("{reason} by {rule}"), *count));
    StatsView {
        uptime: now.saturating_duration_since(appliance.started).as_secs_f64(),
        sessions: of.sessions as u64,
        max_sessions: of.max_sessions as u64,
        sessions_by_worth: named(
            of.sessions_by_worth
                .iter()
                .map(|(worth, n)| (worth.name(), *n as u64)),
        ),
        sessions_opened: of.sessions_opened,
        sessions_ended: named(of.sessions_ended.iter().map(|(reason, n)| (reason.name(), *n))),
        sessions_adopted: of.sessions_adopted,
        sessions_resumed: of.sessions_resumed,
        sessions_bypassed: of.sessions_bypassed,
        forwarded: named(of.forwarded.iter().map(|(class, n)| (class.name(), *n))),
        forwarded_bytes: of.forwarded_bytes,
        dropped: named(of.dropped.iter().map(|(reason, n)| (reason.name(), *n))),
        rejected: of.rejected,
        tolerated: named(tolerated),
        rules: named(engine.policy().hits()),
        resets_sent: of.resets_sent,
        resets_unsent: named(of.resets_unsent.iter().map(|(reason, n)| (reason.name(), *n))),
        helper_events: named(of.helper_events.iter().map(|(event, n)| (event.name(), *n))),
        challenge_events: named(of.challenge_events.iter().map(|(event, n)| (event.name(), *n))),
        challenging_zones: of
            .challenging_zones
            .iter()
            .map(|zone| appliance.zones.name(*zone))
            .collect(),
        known_sources: of.known_sources as u64,
        tombstones: of.tombstones as u64,
        control_sessions: of.control_sessions as u64,
        expectations: of.expectations as u64,
        refused: named(front.refused.iter().map(|(refusal, n)| (refusal.name(), *n))),
        received_datagrams: front.received,
        sent_datagrams: front.returned + front.rewritten + front.replied + front.told_too_big + front.resets,
        workers: appliance.data_path.shared.workers.len() as u64,
        unhealthy: appliance
            .health
            .verdict(now)
            .iter()
            .map(ToString::to_string)
            .collect(),
        reloads_applied: appliance.reloads.applied(),
        reloads_refused: appliance.reloads.refused(),
        failed_reload: reloads.failed,
        waiting_for_restart: reloads.waiting.into_iter().map(ToOwned::to_owned).collect(),
    }
}

/// The rules of the running configuration, in order, and the default action.
fn rules(appliance: &Appliance) -> Vec<RuleView> {
    let uses = appliance.data_path.shared.engine.rules_with_live();
    let uses: HashMap<_, _> = uses.iter().map(|rule| (rule.name.as_str(), rule)).collect();
    let clock = WallClock::now();
    let view = |name: &str, action: Action| {
        let of = uses.get(name);
        let traffic = of.map(|of| (of.live.sessions, of.live, of.ended));
        let (sessions, live, ended) = traffic.unwrap_or_default();
        RuleView {
            name: name.to_owned(),
            action: action.name().to_owned(),
            state: if of.is_some() { "active" } else { "empty" }.to_owned(),
            expires: None,
            comment: String::new(),
            hits: of.map_or(0, |of| of.hits),
            last_match: of.and_then(|of| of.last_match).map(|last| clock.seconds(last)),
            sessions,
            packets: live.packets + ended.packets,
            bytes: live.bytes + ended.bytes,
        }
    };
    let config = appliance.data_path.shared.config.read();
    let policy = &config.policy;
    let mut views: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| {
            let mut view = view(&rule.name, rule.action);
            if !policy.is_in_force(rule) {
                let state = if rule.enabled { "expired" } else { "disabled" };
                state.clone_into(&mut view.state);
            }
            view.expires = rule
                .expires
                .map(|at| humantime::format_rfc3339_seconds(at).to_string());
            view.comment.clone_from(&rule.comment);
            view
        })
        .collect();
    views.push(view("default", policy.default));
    views
}
