//! A redis-server of a test's own, at a Unix socket in a temporary directory.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A running server; it ends when this is dropped.
pub(super) struct Server {
    directory: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts a server; `None`, with a message, if the system has none.
    pub(super) fn start(options: &[&str]) -> Option<Self> {
        let is_there = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if is_there.is_err() {
            eprintln!("ignored: there is no redis-server");
            return None;
        }
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            options: options.iter().map(ToString::to_string).collect(),
            child: None,
        };
        server.run();
        Some(server)
    }

    /// Starts the program, empty.
    pub(super) fn run(&mut self) {
        let socket = self.socket();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--unixsocket", &socket])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < until, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn socket(&self) -> String {
        let path = self.directory.path().join("socket");
        path.to_str().unwrap().to_owned()
    }

    /// Returns the URL of the server.
    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    /// Kills the server, as a crash does.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to the server.
    pub(super) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// Runs a command of the server.
    pub(super) fn command(&self, command: &redis::Cmd) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        command
            .query(&mut client.get_connection().unwrap())
            .unwrap()
    }
}
