//! Traffic that the policy allows, and a port that it denies.

use std::net::UdpSocket;
use std::time::Duration;

use super::error::{DemoError, system};
use super::fetch::{Fetch, Fetched, TIMED_OUT};
use super::packets;
use super::services::{HIDDEN, LARGE, NAME, dns_address, dns_question};
use super::stop::Stop;
use super::story::{Count, Step, Story};
use super::topology::{CLIENT, SERVER, Topology};
use super::{ftp, services};
use crate::run::protocol::FilterSpec;

/// Number of echo requests.
const PINGS: u16 = 10;
/// Longest wait for an answer by DNS.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends the traffic, and records a step for each kind.
///
/// # Errors
/// Returns an error if a program or a socket cannot be used, and [`DemoError::Interrupted`] after a
/// signal.
pub(crate) fn run(
    topology: &mut Topology,
    stop: &Stop,
    story: &mut Story,
) -> Result<(), DemoError> {
    services::start(&topology.server)?;
    let answered = packets::ping(&topology.client, PINGS, stop)?;
    let text = format!("{answered} of {PINGS} echo requests are answered");
    let counts = [Count("answered", answered.into())];
    story.record(Step::new("ping", answered == PINGS, text, counts))?;
    let address = ask_dns(topology)?;
    let name = NAME.join(".");
    let text = match address {
        Some([a, b, c, d]) => format!("{name} is {a}.{b}.{c}.{d}"),
        None => format!("no answer about {name}"),
    };
    let ok = address == Some(SERVER.octets());
    story.record(Step::new("DNS", ok, text, []))?;
    let web = fetch("web", &format!("http://{SERVER}/large"), topology, stop)?;
    let (ok, text) = (web.is_whole(LARGE), web.words());
    let counts = [Count("bytes", web.received.bytes as u64)];
    story.record(Step::new("web", ok, text, counts))?;
    story.record(ftp(topology, stop)?)?;
    story.record(hidden(topology, stop)?)?;
    topology.check()
}

fn fetch(
    name: &'static str,
    url: &str,
    topology: &Topology,
    stop: &Stop,
) -> Result<Fetched, DemoError> {
    Fetch::start(name, url, &topology.client, topology.workspace.folder())?.finish(stop)
}

/// Asks the server by DNS, and returns the address that it answers with.
fn ask_dns(topology: &Topology) -> Result<Option<[u8; 4]>, DemoError> {
    const ID: u16 = 0x6d65;
    let socket = topology.client.inside("DNS", || {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((SERVER, 53))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })?;
    let sent = socket.send(&dns_question(ID));
    sent.map_err(system("a question by DNS"))?;
    let mut answer = [0; 512];
    // A question without an answer is a result.
    let len = socket.recv(&mut answer).unwrap_or_default();
    Ok(dns_address(ID, answer.get(..len).unwrap_or_default()))
}

/// Downloads a file by FTP and looks for the session of its data connection.
fn ftp(topology: &Topology, stop: &Stop) -> Result<Step, DemoError> {
    let fetched = fetch("ftp", &format!("ftp://{SERVER}/file"), topology, stop)?;
    let sessions = topology.readings.sessions(FilterSpec {
        src: vec![CLIENT.to_string()],
        ..FilterSpec::default()
    })?;
    let control = sessions.iter().find(|session| {
        session.session.rule == "ftp" && session.session.flow.responder().port == Some(ftp::PORT)
    });
    let child = control.and_then(|control| {
        let mut sessions = sessions.iter();
        sessions.find(|session| session.session.parent == Some(control.id))
    });
    let port = child.and_then(|child| child.session.flow.responder().port);
    let text = match port {
        Some(port) => format!(
            "{}. Rule `ftp` allows port 21 alone; the data connection to port {port} passes \
             because the server has announced it",
            fetched.words()
        ),
        None => format!("{}. No session was announced", fetched.words()),
    };
    let counts = [
        Count("bytes", fetched.received.bytes as u64),
        Count("children", child.iter().count() as u64),
    ];
    let ok = fetched.is_whole(ftp::FILE) && child.is_some();
    Ok(Step::new("FTP", ok, text, counts))
}

/// Tries a port that is open at the server, and that no rule allows.
fn hidden(topology: &Topology, stop: &Stop) -> Result<Step, DemoError> {
    let before = topology.readings.stats()?;
    let url = format!("http://{SERVER}:{HIDDEN}/");
    let fetched = fetch("hidden", &url, topology, stop)?;
    let denied = topology
        .readings
        .dropped_since(&before, &["policy_deny"], 1, stop)?;
    let ok = fetched.status == Some(TIMED_OUT) && fetched.received.bytes == 0 && denied > 0;
    let text = if ok {
        format!(
            "port {HIDDEN} is open at the server, and no rule names it: {denied} SYNs denied, no \
             answer"
        )
    } else {
        format!("port {HIDDEN} is not closed: {}", fetched.words())
    };
    Ok(Step::new(
        "hidden port",
        ok,
        text,
        [Count("denied", denied)],
    ))
}
