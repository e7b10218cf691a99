//! Control socket: a Unix socket that answers its owner and root, see [`super::protocol`].
//!
//! Each client has a thread, and at most [`MAX_CLIENTS`] have a slot; a new one evicts an idle
//! client, see [`super::clients`]. A client that does not read is dropped after [`PATIENCE`], and
//! one that sends no request after [`FIRST`]. No request holds more than one shard's lock, and only
//! for as long as copying its sessions takes. Orders are logged with the peer's user, see
//! [`super::audit`].

mod answer;
mod exchange;
mod explain;
mod groups;
mod listing;
mod ranking;
mod readings;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use self::answer::answer;
pub(super) use self::exchange::Answer;
use self::exchange::Exchange;
#[cfg(test)]
pub(in crate::run) use self::readings::notes;
use super::appliance::Appliance;
use super::audit::{self, Peer};
use super::clients::{ClientPlace, Clients};
use super::protocol::{GroupKey, MAX_REQUEST, Reply, Request, SortKey};
use super::rates::RateMemory;
use crate::output::notice;

/// Clients at once.
const MAX_CLIENTS: usize = 16;
/// Maximum time for a client to read a part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum time from a connection to its first request.
const FIRST: Duration = Duration::from_secs(5);
/// Maximum time from an answer to the next request.
const SILENCE: Duration = Duration::from_secs(300);
/// Interval at which the thread checks whether it must end.
const LOOK: Duration = Duration::from_millis(100);

/// Answers a request of another part of the appliance, as a client of the socket is answered.
/// `rates` is the memory of rates, which the asker holds from its first request for rates on.
pub(super) fn ask(
    request: Request,
    appliance: &Appliance,
    rates: &mut Option<Arc<RateMemory>>,
) -> Answer {
    Answer::of(|writer| answer(request, &mut Exchange::new(appliance, rates, writer)))
}

/// Answers as [`ask`] does, with the first `limit` groups of all sessions by each of the keys, from
/// one walk of the table.
pub(super) fn ask_for_groups<const N: usize>(
    keys: [GroupKey; N],
    sort: SortKey,
    limit: usize,
    appliance: &Appliance,
    rates: &mut Option<Arc<RateMemory>>,
) -> [Answer; N] {
    // The rows are in the answers.
    let mut writer = |_: &Reply| Ok(());
    let mut exchange = Exchange::new(appliance, rates, &mut writer);
    listing::groupings(keys, sort, limit, &mut exchange)
}

/// Listens at a path until `stop` is set; the socket is removed then.
///
/// # Errors
/// Returns an error if the socket cannot be created, or another appliance answers at it.
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

/// Creates the directory of a socket if it is missing, for the owner alone: `/run` is empty after
/// each boot. Its parent must exist.
///
/// # Errors
/// Returns an error if the directory is missing and cannot be created.
pub(crate) fn make_directory(of: &Path) -> io::Result<()> {
    let Some(directory) = of.parent().filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .map_err(|error| {
            let what = format!(
                "{} is missing and cannot be made: {error}",
                directory.display()
            );
            io::Error::new(error.kind(), what)
        })
}

/// Opens a socket that only its owner can connect to, from its first moment on.
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
    // Replaces the socket that a crashed appliance left.
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
            refuse(stream, "only its owner may connect");
            continue;
        };
        let Some(place) = admit(&clients, &stream) else {
            refuse(stream, "too many clients");
            continue;
        };
        let appliance = Arc::clone(appliance);
        // Errors of a client end its connection alone. Its slot is free once the thread has ended,
        // or could not be started.
        let client = move || converse(stream, peer, &appliance, &place);
        let _ = thread::Builder::new()
            .name("control-client".to_owned())
            .spawn(client);
    }
    let _ = std::fs::remove_file(path);
}

/// Gives a client a slot, after a short wait if necessary: the thread of an evicted client takes a
/// while to end.
fn admit(clients: &Arc<Clients>, stream: &UnixStream) -> Option<ClientPlace> {
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

fn converse(
    stream: UnixStream,
    peer: Peer,
    appliance: &Appliance,
    place: &ClientPlace,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(FIRST))?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut replies = BufWriter::with_capacity(64 << 10, stream);
    let mut rates = None;
    loop {
        let mut line = Vec::new();
        if (&mut requests)
            .take(MAX_REQUEST)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            put(
                &mut replies,
                &Reply::Error("the request is too long or incomplete".to_owned()),
            )?;
            return replies.flush();
        }
        place.note_request();
        let last = match serde_json::from_slice(&line) {
            Ok(request) => {
                let order = audit::order(&request);
                let mut writer = |reply: &Reply| {
                    put(&mut replies, reply)?;
                    // A stream does not wait until a buffer is full.
                    match reply {
                        Reply::Event(_) | Reply::Pulse => replies.flush(),
                        _ => Ok(()),
                    }
                };
                let last = answer(
                    request,
                    &mut Exchange::new(appliance, &mut rates, &mut writer),
                );
                if let Some(order) = order {
                    notice(&audit::line(peer, &order, last.as_ref().ok()));
                }
                last?
            }
            Err(error) => Reply::Error(format!("invalid request: {error}")),
        };
        put(&mut replies, &last)?;
        replies.flush()?;
        place.note_answer();
        requests.get_ref().set_read_timeout(Some(SILENCE))?;
    }
}

fn put(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}
