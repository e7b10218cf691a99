//! Network namespaces and TUN devices that exist as long as their values.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Flag that is set once the process is requested to end (SIGINT, SIGTERM).
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Installs the signal handlers, so that namespaces are removed at the end.
    ///
    /// # Errors
    /// Returns an error if the handlers cannot be installed.
    pub fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// # Errors
    /// Returns an error if the process was requested to end.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// A named network namespace. Dropping the value removes the name, and the kernel removes the rest.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace. The name must not be in use.
    ///
    /// # Errors
    /// Returns an error if `ip netns add` fails: without root, or if the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        command("ip", &["netns", "add", name])?;
        let namespace = Self {
            name: name.to_owned(),
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Moves the calling thread, and threads that it will start, into the namespace.
    ///
    /// # Errors
    /// Returns an error without root, or if the namespace is gone.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")
    }

    /// Runs a function inside the namespace: its threads and programs stay there, and the calling
    /// thread stays where it is.
    ///
    /// # Errors
    /// Returns an error if the namespace is gone, or the function fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                work()
            });
            thread
                .join()
                .map_err(|_| anyhow!("the thread in {} died", self.name))?
        })
    }

    /// Creates a namespace with a TUN device that has both addresses of host `host`, in 10.9.0.0/24
    /// and fd09::/64.
    ///
    /// # Errors
    /// Returns an error without root or `/dev/net/tun`, or if the name is taken.
    pub fn with_path(name: &str, host: u8) -> Result<(Self, Tun)> {
        let namespace = Self::create(name)?;
        let device = namespace.inside(|| Tun::create(&namespace, "path", 1500))?;
        namespace.ip(&format!("addr add 10.9.0.{host}/24 dev path"))?;
        namespace.ip(&format!("addr add fd09::{host}/64 dev path nodad"))?;
        Ok((namespace, device))
    }

    /// Gives the device of [`Namespace::with_path`] both addresses of one more host. Connections
    /// come from the first host unless a program binds to another one.
    ///
    /// # Errors
    /// Returns the error message of `ip`.
    pub fn add_host(&self, host: u8) -> Result<()> {
        self.ip(&format!("addr add 10.9.0.{host}/24 dev path"))?;
        self.ip(&format!(
            "addr add fd09::{host}/64 dev path nodad preferred_lft 0"
        ))
    }

    /// Runs `ip` inside, with arguments that are separated by spaces.
    ///
    /// # Errors
    /// Returns the error message of `ip`.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let all: Vec<_> = ["-n", &self.name]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        command("ip", &all)
    }

    /// Loads an nftables ruleset.
    ///
    /// # Errors
    /// Returns the error message of `nft`.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        use std::io::Write;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(ruleset.as_bytes())?;
        }
        ensure!(child.wait()?.success(), "nft does not take the ruleset");
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = command("ip", &["netns", "del", &self.name]) {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Sets a value under `/proc/sys/net` in the calling thread's namespace.
///
/// # Errors
/// Returns an error if there is no such setting, or it rejects the value.
pub fn sysctl(key: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("net/{key} = {value}"))
}

/// A TUN device of the calling thread's namespace: raw IP packets, one at a time, never blocking.
pub struct Tun(SyncDevice);

impl Tun {
    /// Creates a device with an MTU in bytes. No address is set, and the kernel sends nothing
    /// unprompted.
    ///
    /// # Errors
    /// Returns an error without root or `/dev/net/tun`.
    pub fn create(namespace: &Namespace, name: &str, mtu: u16) -> Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .enable(false)
            .build_sync()
            .with_context(|| format!("TUN device {name}"))?;
        device.set_nonblocking(true)?;
        // No link-local address: no discovery of neighbors, routers or groups.
        namespace.ip(&format!(
            "link set {name} mtu {mtu} txqueuelen 2000 addrgenmode none"
        ))?;
        namespace.ip(&format!("link set {name} up"))?;
        Ok(Self(device))
    }

    /// Hands the kernel a packet that has arrived on the device.
    ///
    /// # Errors
    /// Returns an error if the device is down, or the bytes are not an IP packet.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let sent = self.0.send(packet).context("write to TUN")?;
        ensure!(
            sent == packet.len(),
            "{sent} of {} bytes written",
            packet.len()
        );
        Ok(())
    }

    /// Takes the next packet that the kernel sends through the device, if there is one now.
    ///
    /// # Errors
    /// Returns an error if the device is down.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        match self.0.recv(buffer) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("read from TUN"),
        }
    }
}

/// Waits until one of the devices has a packet, at most for a number of microseconds.
///
/// # Errors
/// Returns an error if polling the devices fails.
pub fn wait(devices: [&Tun; 2], micros: u64) -> Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(micros % 1_000_000 * 1000).unwrap_or(0),
    };
    let mut each = devices.map(|device| PollFd::new(&device.0, PollFlags::IN));
    match rustix::event::poll(&mut each, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}
