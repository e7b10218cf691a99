//! Network namespaces without names.
//!
//! An open file of the demo holds each namespace, so the namespaces end with the process, whatever
//! ends it. Threads and programs enter a namespace by that file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::error::{DemoError, system};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: &'static str,
    file: File,
}

impl Namespace {
    /// Creates a namespace. The name is for messages.
    ///
    /// # Errors
    /// Returns an error if the system refuses the namespace.
    pub(crate) fn new(name: &'static str) -> Result<Self, DemoError> {
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        // A namespace belongs to a thread: this one ends, and the file remains.
        let file = on_thread(create).map_err(system(format!("network namespace {name}")))?;
        Ok(Self { name, file })
    }

    /// Returns the path by which other processes of root enter the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()).into()
    }

    /// Runs a job on a thread in the namespace and waits for it. Sockets and threads that it
    /// creates stay in the namespace.
    ///
    /// # Errors
    /// Returns the error of the job, with its name, or the system's.
    pub(crate) fn inside<T: Send>(
        &self,
        what: &str,
        job: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, DemoError> {
        let enter = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            job()
        };
        on_thread(enter).map_err(system(format!("{what} in the namespace {}", self.name)))
    }
}

/// Runs a job on a thread of its own and waits for it.
fn on_thread<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, job)?;
        let panicked = |_| Err(io::Error::other("a thread has panicked"));
        thread.join().unwrap_or_else(panicked)
    })
}
