//! The appliance as a process: failing starts, second starts, and ends that must occur.
//!
//! The tests need CAP_NET_RAW, and print a note without it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A directory with a configuration at an address of its own.
struct Place {
    directory: tempfile::TempDir,
    address: &'static str,
}

/// A started program.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new(address: &'static str) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            address,
        };
        place.write("sessions");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, sessions: &str, control: &str) -> String {
        let Self { address, .. } = self;
        format!(
            "[geneve]\nlisten = \"{address}\"\nsources = [\"127.0.0.0/8\"]\n\
             [run]\nworkers = 1\ndrain = \"0s\"\nsessions_file = {:?}\ncontrol = {:?}\n\
             [health]\nlisten = \"{address}:18080\"\nfailed_reload = \"unhealthy\"\n\
             [metrics]\nlisten = \"off\"\n",
            self.at(sessions),
            self.at(control)
        )
    }

    fn write(&self, sessions: &str) {
        fs::write(self.at("portcullis.toml"), self.text(sessions, "control")).unwrap();
    }

    fn start(&self) -> Run {
        run(&self.at("portcullis.toml"))
    }

    /// Starts the appliance as a service manager with a watchdog does.
    fn start_managed(&self) -> Run {
        let mut command = command(&self.at("portcullis.toml"));
        command
            .env("NOTIFY_SOCKET", self.at("notify"))
            .env("WATCHDOG_USEC", "400000");
        Run(command.spawn().unwrap())
    }

    /// Starts the appliance and waits until it serves; `None` without the capability.
    fn serving(&self) -> Option<Run> {
        let mut run = self.start();
        let until = Instant::now() + Duration::from_secs(20);
        // Health is 200 once the workers run.
        while !healthy(self.address) {
            if run.0.try_wait().unwrap().is_some() {
                let (_, said) = run.end();
                assert!(said.contains("CAP_NET_RAW"), "{said}");
                eprintln!("CAP_NET_RAW is missing: nothing was tried");
                return None;
            }
            assert!(Instant::now() < until, "the appliance does not serve");
            thread::sleep(Duration::from_millis(10));
        }
        Some(run)
    }
}

fn run(file: &Path) -> Run {
    Run(command(file).spawn().unwrap())
}

fn command(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .arg("run")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn healthy(address: &str) -> bool {
    use std::io::Write;
    let ask = || -> Option<bool> {
        let mut stream = std::net::TcpStream::connect((address, 18_080)).ok()?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200 "))
    };
    ask() == Some(true)
}

impl Run {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Waits for the end of the process, and returns its output.
    fn end(&mut self) -> (ExitStatus, String) {
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        (status, said)
    }

    fn terminate(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::SIGTERM);
        self.end()
    }
}

#[test]
fn a_start_that_fails_leaves_saved_sessions_and_no_socket() {
    let place = Place::new("127.97.0.1");
    let Some(mut run) = place.serving() else {
        return;
    };
    let (status, said) = run.terminate();
    assert!(
        status.success() && said.contains("0 sessions saved"),
        "{said}"
    );
    let saved = fs::read(place.at("sessions")).unwrap();

    let taken = TcpListener::bind(("127.97.0.1", 18_080)).unwrap();
    let (status, said) = place.start().end();
    assert!(
        !status.success() && said.contains("health.listen: 127.97.0.1:18080"),
        "{said}"
    );
    assert_eq!(fs::read(place.at("sessions")).unwrap(), saved);
    assert!(!place.at("control").exists(), "what was started has ended");
    drop(taken);

    let mut run = place.serving().unwrap();
    assert!(!place.at("sessions").exists());
    let (_, said) = run.terminate();
    assert!(said.contains("0 sessions restored, saved "), "{said}");
}

#[test]
fn a_second_appliance_does_not_start_and_the_first_goes_on() {
    let place = Place::new("127.97.0.2");
    let Some(mut first) = place.serving() else {
        return;
    };
    let (status, said) = place.start().end();
    assert!(
        !status.success() && said.contains("127.97.0.2:6081 is taken: "),
        "{said}"
    );
    // Neither does one with only the port of tunnels in common.
    let text = place.text("other", "other-control");
    fs::write(place.at("other.toml"), text.replace(":18080", ":18081")).unwrap();
    let (status, said) = run(&place.at("other.toml")).end();
    assert!(
        !status.success() && said.contains("127.97.0.2:6081 is taken: "),
        "{said}"
    );
    assert!(healthy("127.97.0.2"));
    assert!(UnixStream::connect(place.at("control")).is_ok());
    assert!(first.terminate().0.success());
}

#[test]
fn sessions_that_cannot_be_saved_are_no_success() {
    let place = Place::new("127.97.0.3");
    place.write("missing/sessions");
    let (status, said) = place.start().end();
    if said.contains("CAP_NET_RAW") {
        return;
    }
    assert!(
        !status.success()
            && said.contains("run.sessions_file: ")
            && said.contains("missing/sessions: "),
        "{said}"
    );
    fs::create_dir(place.at("missing")).unwrap();
    let mut run = place.serving().unwrap();
    fs::remove_dir(place.at("missing")).unwrap();
    let (status, said) = run.terminate();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("the sessions are not saved: "), "{said}");
    assert!(
        said.contains("\"sessions_opened\""),
        "what was counted is said nevertheless: {said}"
    );
}

#[test]
fn a_file_that_hangs_or_has_no_end_keeps_nobody_from_the_end() {
    let place = Place::new("127.97.0.4");
    let Some(mut run) = place.serving() else {
        return;
    };
    let file = place.at("portcullis.toml");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run.signal(Signal::SIGHUP);
    let until = Instant::now() + Duration::from_secs(5);
    while healthy("127.97.0.4") {
        assert!(Instant::now() < until, "the reload is not refused");
        thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, vec![b'#'; 129 << 20]).unwrap();
    run.signal(Signal::SIGHUP);
    thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    let (status, said) = run.terminate();
    assert!(status.success(), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(4));
    assert!(said.contains("this is not a regular file"), "{said}");
    assert!(said.contains("this is longer than 128 MiB"), "{said}");
}

#[test]
fn a_service_manager_learns_of_the_start_a_reload_and_the_end() {
    let place = Place::new("127.97.0.5");
    let manager = UnixDatagram::bind(place.at("notify")).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut run = place.start_managed();
    // The first message of several with this beginning; `None` if the appliance ends.
    let message = |run: &mut Run, begin: &str| {
        let until = Instant::now() + Duration::from_secs(20);
        let mut bytes = [0; 4096];
        loop {
            let text = manager.recv(&mut bytes).map(|length| &bytes[..length]);
            match text.map(String::from_utf8_lossy) {
                Ok(text) if text.starts_with(begin) => return Some(text.into_owned()),
                Ok(_) => {}
                Err(_) if run.0.try_wait().unwrap().is_some() => return None,
                Err(_) => {}
            }
            assert!(Instant::now() < until, "no {begin}");
        }
    };
    let Some(ready) = message(&mut run, "READY=1") else {
        let (_, said) = run.end();
        assert!(said.contains("CAP_NET_RAW"), "{said}");
        return;
    };
    assert!(healthy("127.97.0.5"), "what is ready serves");
    assert!(ready.contains("\nSTATUS=healthy"), "{ready}");
    for _ in 0..3 {
        assert_eq!(message(&mut run, "WATCHDOG=1").unwrap(), "WATCHDOG=1");
    }
    run.signal(Signal::SIGHUP);
    let reloading = message(&mut run, "RELOADING=1").unwrap();
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let ready = message(&mut run, "READY=1").unwrap();
    assert!(ready.contains("STATUS=reload: 0 sessions"), "{ready}");
    fs::write(place.at("portcullis.toml"), "nonsense = 1").unwrap();
    run.signal(Signal::SIGHUP);
    let ready = message(&mut run, "READY=1").unwrap();
    assert!(ready.contains("STATUS=reload: refused: "), "{ready}");
    run.signal(Signal::SIGTERM);
    let stopping = message(&mut run, "STOPPING=1").unwrap();
    assert!(stopping.contains("\nSTATUS=ending: "), "{stopping}");
    assert!(run.end().0.success());
}
