//! The servers: vsftpd in two configurations and pyftpdlib, each with addresses of its own and port 21 of them.
//!
//! vsftpd cannot be installed beside most other servers of Debian. pyftpdlib is a good second: it calls from any port,
//! and in active mode it does so before it answers PORT.

use std::fs;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::address;
use super::programs::Program;
use crate::namespace::{Interrupt, Namespace};

/// A server program in one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// vsftpd that calls from port 20 in active mode.
    VsftpdFrom20,
    /// vsftpd that calls from any port.
    VsftpdFromAny,
    /// pyftpdlib.
    Pyftpdlib,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::VsftpdFrom20, Self::VsftpdFromAny, Self::Pyftpdlib];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VsftpdFrom20 => "vsftpd-from-20",
            Self::VsftpdFromAny => "vsftpd-from-any",
            Self::Pyftpdlib => "pyftpdlib",
        }
    }

    /// Its host.
    #[must_use]
    pub const fn host(self) -> u8 {
        match self {
            Self::VsftpdFrom20 => 2,
            Self::VsftpdFromAny => 3,
            Self::Pyftpdlib => 4,
        }
    }

    /// The port that it must call from in active mode.
    #[must_use]
    pub const fn calls_from(self) -> Option<u16> {
        match self {
            Self::VsftpdFrom20 => Some(20),
            _ => None,
        }
    }

    /// The ports that it announces in passive mode.
    #[must_use]
    pub const fn passive_ports(self) -> RangeInclusive<u16> {
        match self {
            Self::VsftpdFrom20 => 42_000..=42_199,
            Self::VsftpdFromAny => 43_000..=43_199,
            Self::Pyftpdlib => 44_000..=44_199,
        }
    }

    fn start(self, namespace: &Namespace, v6: bool, site: &Site) -> Result<Program> {
        let address = address(self.host(), v6);
        let name = format!("{}-{}", self.name(), if v6 { "v6" } else { "v4" });
        let log = site.scratch.join(format!("{name}.log"));
        let ports = self.passive_ports();
        if self == Self::Pyftpdlib {
            let arguments = [
                "/usr/bin/python3",
                "-W",
                "ignore",
                "-m",
                "pyftpdlib",
                "-w",
                "-p",
                "21",
                "-i",
                &address.to_string(),
                "-r",
                &format!("{}-{}", ports.start(), ports.end()),
                "-d",
                &site.root.display().to_string(),
            ];
            return Program::start(namespace, log, &arguments, None);
        }
        let yes = |value| if value { "YES" } else { "NO" };
        let listens = if v6 { "listen_address6" } else { "listen_address" };
        let settings = [
            format!("listen={}", yes(!v6)),
            format!("listen_ipv6={}", yes(v6)),
            format!("{listens}={address}"),
            format!("connect_from_port_20={}", yes(self.calls_from().is_some())),
            format!("pasv_min_port={}", ports.start()),
            format!("pasv_max_port={}", ports.end()),
            format!("anon_root={}", site.root.display()),
            format!("secure_chroot_dir={}", site.scratch.join("empty").display()),
            "background=NO\nisolate=NO\nisolate_network=NO\nseccomp_sandbox=NO".to_owned(),
            "anonymous_enable=YES\nlocal_enable=NO\nwrite_enable=YES\nanon_upload_enable=YES".to_owned(),
            "anon_umask=022\nnopriv_user=nobody".to_owned(),
            "ftpd_banner=ready\nxferlog_enable=NO\n".to_owned(),
        ];
        let file = site.scratch.join(format!("{name}.conf"));
        fs::write(&file, settings.join("\n"))?;
        Program::start(namespace, log, &["vsftpd", &file.display().to_string()], None)
    }
}

/// What all servers serve: a folder with files, and a folder `up` that takes uploads.
#[derive(Debug)]
pub struct Site {
    scratch: PathBuf,
    root: PathBuf,
}

impl Site {
    /// Makes the folders in `scratch`.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn create(scratch: &Path) -> Result<Self> {
        let root = scratch.join("site");
        for folder in [&root, &root.join("up"), &scratch.join("empty")] {
            fs::create_dir(folder)?;
        }
        // Programs serve as different users.
        fs::set_permissions(root.join("up"), fs::Permissions::from_mode(0o777))?;
        Ok(Self {
            scratch: scratch.to_owned(),
            root,
        })
    }

    /// A file, by its name as clients say it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Starts all servers for both IP versions and waits until they answer inside of their namespace.
///
/// # Errors
/// A program is not there, or does not listen within 10 s.
pub fn start(namespace: &Namespace, site: &Site, interrupt: &Interrupt) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for server in Server::ALL {
        for v6 in [false, true] {
            programs.push(server.start(namespace, v6, site)?);
        }
    }
    let end = Instant::now() + Duration::from_secs(10);
    for server in Server::ALL {
        for v6 in [false, true] {
            let at = (address(server.host(), v6), 21);
            while namespace.inside(|| Ok(TcpStream::connect(at).is_err()))? {
                interrupt.check()?;
                if Instant::now() > end {
                    let said: Vec<_> = programs.iter().map(Program::said).collect();
                    bail!("{} does not listen: {}", server.name(), said.concat());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    programs.first().context("no servers")?;
    Ok(programs)
}
