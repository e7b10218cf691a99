//! Sources that may connect to the listeners, and the sharing of their slots.

use std::net::{IpAddr, Ipv4Addr};

use socket2::{Domain, SockAddr, Socket, Type};

use super::*;

/// A connection from an address of the loopback interface.
fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::from(from), 0))))?;
    socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(5))?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// Answer to a prober at an address; `None` if there is none.
fn probe(from: [u8; 4], to: SocketAddr) -> Option<String> {
    ask(connect(from, to).ok()?)
}

/// The status of the answer to a connection.
fn ask(mut stream: TcpStream) -> Option<String> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.get(9..12).map(ToOwned::to_owned)
}

/// Four threads of 127.0.0.3 that connect and hold their connections until the flag is set.
fn hold_connections(to: SocketAddr, goes_on: &Arc<AtomicBool>) -> Vec<JoinHandle<usize>> {
    let hold = move |goes_on: Arc<AtomicBool>| {
        let (mut held, mut made) = (std::collections::VecDeque::new(), 0);
        while goes_on.load(Ordering::Relaxed) {
            match connect([127, 0, 0, 3], to) {
                Ok(connection) => {
                    held.push_back(connection);
                    made += 1;
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
            if held.len() > 60 {
                held.pop_front();
            }
        }
        made
    };
    let start = |_| {
        let goes_on = Arc::clone(goes_on);
        thread::spawn(move || hold(goes_on))
    };
    (0..4).map(start).collect()
}

#[test]
fn one_source_that_holds_connections_keeps_no_prober_out() {
    let appliance = TestAppliance::start("");
    for to in [
        appliance.health(),
        appliance.operations().addresses.metrics.unwrap(),
    ] {
        let goes_on = Arc::new(AtomicBool::new(true));
        let holders = hold_connections(to, &goes_on);
        thread::sleep(Duration::from_millis(300));
        let answers: Vec<_> = (0..100).map(|_| probe([127, 0, 0, 2], to)).collect();
        goes_on.store(false, Ordering::Relaxed);
        let made: usize = holders.into_iter().map(|each| each.join().unwrap()).sum();
        assert!(made > 200, "{made} connections were held");
        let missed = answers.iter().filter(|answer| answer.is_none()).count();
        assert_eq!(
            missed, 0,
            "of 100 probes, while {made} connections were made"
        );
    }
    for listener in ["health", "metrics"] {
        let series =
            format!("portcullis_listener_evicted_connections_total{{listener=\"{listener}\"}}");
        assert!(appliance.metric(&series) > 0.5, "{series}");
    }
    appliance.finish();
}

#[test]
fn a_prober_that_is_slow_to_ask_keeps_its_place_while_others_come() {
    let appliance = TestAppliance::start("");
    let to = appliance.health();
    let some = |count: usize| -> Vec<TcpStream> {
        let connections = (0..count).map(|_| connect([127, 0, 0, 3], to).unwrap());
        connections.collect()
    };
    let evicted =
        || appliance.metric("portcullis_listener_evicted_connections_total{listener=\"health\"}");
    let before = some(64);
    let prober = connect([127, 0, 0, 2], to).unwrap();
    let after = some(200);
    wait_for("the evictions", || evicted() > 200.5);
    assert_eq!(ask(prober).as_deref(), Some("200"));
    let last = after.last().unwrap().try_clone().unwrap();
    assert_eq!(
        ask(last).as_deref(),
        Some("200"),
        "the newest have a place as well"
    );
    for first in before {
        assert_eq!(ask(first), None);
    }
    appliance.finish();
}

#[test]
fn sources_that_are_not_allowed_are_cut_off_and_counted_and_a_reload_changes_them() {
    let more = "health.tcp_listen = \"127.0.0.1:0\"\n";
    let appliance = TestAppliance::start(&format!("{more}health.sources = [\"127.0.0.2\"]\n"));
    let tcp = appliance.operations().addresses.health_tcp.unwrap();
    let refused = |listener: &str| {
        appliance.metric(&format!(
            "portcullis_listener_refused_connections_total{{listener=\"{listener}\"}}"
        ))
    };
    assert_eq!(
        probe([127, 0, 0, 2], appliance.health()).as_deref(),
        Some("200")
    );
    for _ in 0..3 {
        assert_eq!(probe([127, 0, 0, 3], appliance.health()), None);
    }
    assert!((refused("health") - 3.0).abs() < 0.5);
    // With TCP, an allowed source gets an orderly end, and another one a RST.
    let end = |from| connect(from, tcp).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(end([127, 0, 0, 2]).unwrap(), 0);
    assert!(end([127, 0, 0, 3]).is_err());
    assert!((refused("health_tcp") - 1.0).abs() < 0.5);
    appliance.rewrite(&format!("{more}health.sources = \"127.0.0.0/8\"\n"));
    appliance.operations().appliance().reload().unwrap();
    assert_eq!(
        probe([127, 0, 0, 3], appliance.health()).as_deref(),
        Some("200")
    );
    assert_eq!(end([127, 0, 0, 3]).unwrap(), 0);
    appliance.finish();
}

#[test]
fn a_flood_of_checks_by_tcp_does_not_keep_the_port_open() {
    let appliance = TestAppliance::start("health.tcp_listen = \"127.0.0.1:0\"\n");
    let tcp = appliance.operations().addresses.health_tcp.unwrap();
    let goes_on = Arc::new(AtomicBool::new(true));
    let holders = hold_connections(tcp, &goes_on);
    wait_for("a check", || connect([127, 0, 0, 2], tcp).is_ok());
    appliance.operations().end();
    wait_for("the port's end", || connect([127, 0, 0, 2], tcp).is_err());
    goes_on.store(false, Ordering::Relaxed);
    for holder in holders {
        holder.join().unwrap();
    }
    appliance.finish();
}

#[test]
fn every_address_may_ask_by_default() {
    let settings = crate::run::settings::HealthSettings::default();
    assert!(settings.allows(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1))));
}
