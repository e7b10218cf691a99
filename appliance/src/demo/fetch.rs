//! Downloads by curl in the client's namespace.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::child::Child;
use super::content::{self, Received};
use super::error::{DemoError, system};
use super::launch;
use super::namespace::Namespace;
use super::stop::Stop;

/// Longest time for a connection to open, in seconds.
const CONNECT: &str = "2";
/// Longest time of a download.
const LIMIT: Duration = Duration::from_secs(60);
/// Status of curl when the time for a connection is over.
pub(crate) const TIMED_OUT: i32 = 28;

/// A download that goes on. It ends with the value.
#[derive(Debug)]
pub(crate) struct Fetch {
    curl: Child,
    reader: JoinHandle<io::Result<Received>>,
    begun: Instant,
}

/// Result of a download.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Exit status of curl; `None` if a signal has ended it.
    pub(crate) status: Option<i32>,
    /// The content.
    pub(crate) received: Received,
    /// The time from the start of curl to its end.
    pub(crate) time: Duration,
    /// The messages of curl, each after a line break.
    pub(crate) messages: String,
}

impl Fetched {
    /// Returns whether the download is complete and has the right bytes.
    pub(crate) fn is_whole(&self, bytes: usize) -> bool {
        self.status == Some(0) && self.received.bytes == bytes && self.received.wrong == 0
    }

    /// Returns the result in words.
    pub(crate) fn words(&self) -> String {
        let Received { bytes, wrong } = self.received;
        let megabytes = bytes as f64 / 1e6;
        let seconds = self.time.as_secs_f64();
        match (self.status, wrong) {
            (Some(0), 0) => format!("{megabytes:.1} MB in {seconds:.2} s, every byte as sent"),
            (Some(0), _) => format!("{megabytes:.1} MB with {wrong} wrong bytes"),
            _ => format!("curl has failed after {bytes} bytes:{}", self.messages),
        }
    }
}

impl Fetch {
    /// Starts a download. The calling thread must live until its end.
    ///
    /// # Errors
    /// Returns an error if curl, or the thread that reads its output, cannot start.
    pub(crate) fn start(
        name: &'static str,
        url: &str,
        client: &Namespace,
        folder: &Path,
    ) -> Result<Self, DemoError> {
        let mut command = launch::inside(client, "curl")?;
        command
            .args(["-q", "--silent", "--show-error", "--fail"])
            .args(["--connect-timeout", CONNECT, "--max-time"])
            .arg(LIMIT.as_secs().to_string())
            .arg(url)
            .stdout(Stdio::piped());
        let begun = Instant::now();
        let mut curl = Child::start(name, &mut command, folder)?;
        let mut output = curl.take_stdout();
        let read = move || match &mut output {
            Some(output) => content::read(output),
            None => Ok(Received::default()),
        };
        let reader = thread::Builder::new().spawn(read);
        let reader = reader.map_err(system("thread"))?;
        Ok(Self {
            curl,
            reader,
            begun,
        })
    }

    /// Returns whether the download goes on.
    ///
    /// # Errors
    /// Returns an error if the system does not know the process.
    pub(crate) fn is_running(&mut self) -> Result<bool, DemoError> {
        Ok(self.curl.ended()?.is_none())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Returns an error if the download does not end, and [`DemoError::Interrupted`] after a
    /// signal.
    pub(crate) fn finish(mut self, stop: &Stop) -> Result<Fetched, DemoError> {
        let limit = LIMIT + Duration::from_secs(5);
        let ended = stop.wait_for(limit, || self.curl.ended())?;
        let time = self.begun.elapsed();
        let Some(status) = ended else {
            return Err(DemoError::Late {
                what: "a download".to_owned(),
                seconds: limit.as_secs(),
                tail: self.curl.tail(),
            });
        };
        // The pipe has ended with curl.
        let panicked = |_| Err(io::Error::other("a thread has panicked"));
        let received = self.reader.join().unwrap_or_else(panicked);
        Ok(Fetched {
            status: status.code(),
            received: received.map_err(system("output of curl"))?,
            time,
            messages: self.curl.tail(),
        })
    }
}
