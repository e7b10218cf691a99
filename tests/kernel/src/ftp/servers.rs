//! The servers: vsftpd in three configurations, pyftpdlib, Pure-FTPd and ProFTPD, each with
//! addresses of its own and port 21.
//!
//! Debian allows only one of vsftpd, Pure-FTPd and ProFTPD to be installed at a time, so the latter
//! two run from a folder with their unpacked packages. pyftpdlib connects from any port, and in
//! active mode it does so before it answers PORT.

use std::fs;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::address;
use super::programs::Program;
use crate::namespace::{Interrupt, Namespace};

/// The address in the 227 of [`Server::VsftpdPublic`] (RFC 5737).
const PUBLIC: &str = "203.0.113.77";

/// A user name and its password.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// The user name.
    pub user: &'static str,
    /// The password.
    pub password: &'static str,
}

/// A server program in one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// vsftpd that connects from port 20 in active mode.
    VsftpdFrom20,
    /// vsftpd that connects from any port.
    VsftpdFromAny,
    /// vsftpd whose `pasv_address` is an unreachable public address, as with an elastic address.
    VsftpdPublic,
    /// pyftpdlib.
    Pyftpdlib,
    /// Pure-FTPd.
    PureFtpd,
    /// ProFTPD.
    Proftpd,
}

impl Server {
    /// All servers.
    pub const ALL: [Self; 6] = [
        Self::VsftpdFrom20,
        Self::VsftpdFromAny,
        Self::VsftpdPublic,
        Self::Pyftpdlib,
        Self::PureFtpd,
        Self::Proftpd,
    ];

    /// Returns the server's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VsftpdFrom20 => "vsftpd-from-20",
            Self::VsftpdFromAny => "vsftpd-from-any",
            Self::VsftpdPublic => "vsftpd-public",
            Self::Pyftpdlib => "pyftpdlib",
            Self::PureFtpd => "pure-ftpd",
            Self::Proftpd => "proftpd",
        }
    }

    /// Returns the number of the server's host.
    #[must_use]
    pub const fn host(self) -> u8 {
        match self {
            Self::VsftpdFrom20 => 2,
            Self::VsftpdFromAny => 3,
            Self::Pyftpdlib => 4,
            Self::VsftpdPublic => 5,
            Self::PureFtpd => 6,
            Self::Proftpd => 7,
        }
    }

    /// Returns whether the package was unpacked into a folder instead of being installed.
    const fn is_unpacked(self) -> bool {
        matches!(self, Self::PureFtpd | Self::Proftpd)
    }

    /// Returns the user name and the password of the account.
    #[must_use]
    pub const fn account(self) -> Account {
        match self {
            Self::PureFtpd => Account {
                user: "tester",
                password: "secret",
            },
            _ => Account {
                user: "anonymous",
                password: "someone@example.org",
            },
        }
    }

    /// Returns whether explicit TLS is offered (RFC 4217).
    #[must_use]
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::VsftpdFromAny | Self::PureFtpd | Self::Proftpd)
    }

    /// Returns the port from which the server must connect in active mode.
    #[must_use]
    pub const fn calls_from(self) -> Option<u16> {
        match self {
            Self::VsftpdFrom20 => Some(20),
            _ => None,
        }
    }

    /// Returns the ports that the server announces in passive mode.
    #[must_use]
    pub const fn passive_ports(self) -> RangeInclusive<u16> {
        match self {
            Self::VsftpdFrom20 => 42_000..=42_199,
            Self::VsftpdFromAny => 43_000..=43_199,
            Self::Pyftpdlib => 44_000..=44_199,
            Self::VsftpdPublic => 45_000..=45_199,
            Self::PureFtpd => 46_000..=46_199,
            Self::Proftpd => 47_000..=47_199,
        }
    }

    fn start(self, namespace: &Namespace, v6: bool, site: &Site) -> Result<Program> {
        let name = format!("{}-{}", self.name(), if v6 { "v6" } else { "v4" });
        let log = site.scratch.join(format!("{name}.log"));
        let arguments = match self {
            Self::Pyftpdlib => self.pyftpdlib(v6, site),
            Self::PureFtpd => self.pure_ftpd(v6, site)?,
            Self::Proftpd => self.proftpd(v6, site, &name)?,
            Self::VsftpdFrom20 | Self::VsftpdFromAny | Self::VsftpdPublic => {
                self.vsftpd(v6, site, &name)?
            }
        };
        Program::start(namespace, log, &arguments, None)
    }

    fn pyftpdlib(self, v6: bool, site: &Site) -> Vec<String> {
        let ports = self.passive_ports();
        let (address, root) = (address(self.host(), v6), site.root.display());
        format!(
            "/usr/bin/python3 -W ignore -m pyftpdlib -w -p 21 -i {address} -r {}-{} -d {root}",
            ports.start(),
            ports.end(),
        )
        .split(' ')
        .map(str::to_owned)
        .collect()
    }

    fn pure_ftpd(self, v6: bool, site: &Site) -> Result<Vec<String>> {
        let unpacked = site.unpacked.as_ref().context("no folder with Pure-FTPd")?;
        let accounts = site.scratch.join("pure-ftpd.passwd");
        if !accounts.exists() {
            // The hash is of "secret". 65534 is the user `nobody`.
            let Account { user, .. } = self.account();
            let hash = "$6$portcullis$mO9ys7okpXYvIIaYj9pTZnY2AuNScmD/EDMofIng74lJkf7KOJBbjX2\
                        LmzubWVVnUokz0Me4vS.1E/BjmEg0X.";
            let root = site.root.display();
            fs::write(
                &accounts,
                format!("{user}:{hash}:65534:65534::{root}/./::::::::::::\n"),
            )?;
            let made = Command::new(unpacked.join("usr/bin/pure-pw"))
                .arg("mkdb")
                .arg(site.scratch.join("pure-ftpd.pdb"))
                .arg("-f")
                .arg(&accounts)
                .status()
                .context("pure-pw")?;
            ensure!(made.success(), "pure-pw: {made}");
        }
        let ports = self.passive_ports();
        let (address, scratch) = (address(self.host(), v6), site.scratch.display());
        Ok(format!(
            "{} -S {address},21 -p {}:{} -l puredb:{scratch}/pure-ftpd.pdb -E -H -u 1 -Y 1 -2 \
             {scratch}/server.pem -g {scratch}/pure-{v6}.pid -{}",
            unpacked.join("usr/sbin/pure-ftpd").display(),
            ports.start(),
            ports.end(),
            if v6 { "6" } else { "4" },
        )
        .split(' ')
        .map(str::to_owned)
        .collect())
    }

    fn proftpd(self, v6: bool, site: &Site, name: &str) -> Result<Vec<String>> {
        let unpacked = site.unpacked.as_ref().context("no folder with ProFTPD")?;
        let ports = self.passive_ports();
        let (address, root, scratch) = (
            address(self.host(), v6),
            site.root.display(),
            site.scratch.display(),
        );
        let settings = format!(
            "ModulePath {unpacked}/usr/lib/proftpd\nLoadModule mod_tls.c\n\
             ServerName test\nServerType standalone\nDefaultServer on\nSocketBindTight on\n\
             Port 21\nDefaultAddress {address}\n\
             UseIPv6 {on}\nUseReverseDNS off\nUser nobody\nGroup nogroup\n\
             ScoreboardFile {scratch}/{name}.scores\nPidFile {scratch}/{name}.pid\n\
             PassivePorts {first} {last}\nAllowStoreRestart on\nAllowRetrieveRestart on\n\
             TransferLog none\nWtmpLog off\nDelayEngine off\n\
             SystemLog {scratch}/{name}.system\nRequireValidShell off\nUseFtpUsers off\n\
             AuthOrder mod_auth_unix.c\nAllowForeignAddress off\n\
             TLSEngine on\nTLSRequired off\nTLSRSACertificateFile {scratch}/server.pem\n\
             TLSRSACertificateKeyFile {scratch}/server.pem\n\
             TLSOptions NoSessionReuseRequired\nTLSLog {scratch}/{name}.tls\n\
             <Anonymous {root}>\nUser nobody\nGroup nogroup\nUserAlias anonymous nobody\n\
             AllowOverwrite on\n\
             <Limit LOGIN>\nAllowAll\n</Limit>\n</Anonymous>\n",
            unpacked = unpacked.display(),
            on = if v6 { "on" } else { "off" },
            first = ports.start(),
            last = ports.end(),
        );
        let file = site.scratch.join(format!("{name}.conf"));
        fs::write(&file, settings)?;
        let program = unpacked.join("usr/sbin/proftpd").display().to_string();
        Ok([&program, "-n", "-q", "-c", &file.display().to_string()]
            .map(str::to_owned)
            .into())
    }

    fn vsftpd(self, v6: bool, site: &Site, name: &str) -> Result<Vec<String>> {
        let (address, ports) = (address(self.host(), v6), self.passive_ports());
        let yes = |value| if value { "YES" } else { "NO" };
        let listens = if v6 {
            "listen_address6"
        } else {
            "listen_address"
        };
        let mut settings = vec![
            format!("listen={}", yes(!v6)),
            format!("listen_ipv6={}", yes(v6)),
            format!("{listens}={address}"),
            format!("connect_from_port_20={}", yes(self.calls_from().is_some())),
            format!("pasv_min_port={}", ports.start()),
            format!("pasv_max_port={}", ports.end()),
            format!("anon_root={}", site.root.display()),
            format!("secure_chroot_dir={}", site.scratch.join("empty").display()),
            "background=NO\nisolate=NO\nisolate_network=NO\nseccomp_sandbox=NO".to_owned(),
            "anonymous_enable=YES\nlocal_enable=NO\nwrite_enable=YES\nanon_upload_enable=YES"
                .to_owned(),
            "anon_umask=022\nnopriv_user=nobody".to_owned(),
            "ftpd_banner=ready\nxferlog_enable=NO".to_owned(),
        ];
        if self == Self::VsftpdPublic && !v6 {
            settings.push(format!("pasv_address={PUBLIC}"));
        }
        if self.has_tls() {
            let certificate = site.scratch.join("server.pem");
            settings.push("ssl_enable=YES\nallow_anon_ssl=YES\nrequire_ssl_reuse=NO".to_owned());
            settings.push(
                "force_anon_data_ssl=NO\nforce_anon_logins_ssl=NO\nssl_ciphers=HIGH".to_owned(),
            );
            settings.push(format!("rsa_cert_file={}", certificate.display()));
        }
        settings.push(String::new());
        let file = site.scratch.join(format!("{name}.conf"));
        fs::write(&file, settings.join("\n"))?;
        Ok(vec!["vsftpd".to_owned(), file.display().to_string()])
    }
}

/// Files of all servers: a folder with files, and a folder `up` for uploads.
#[derive(Debug)]
pub struct Site {
    scratch: PathBuf,
    root: PathBuf,
    unpacked: Option<PathBuf>,
}

impl Site {
    /// Creates the folders, and a certificate, in `scratch`. `unpacked` is the folder with
    /// Pure-FTPd and ProFTPD, which are omitted without it.
    ///
    /// # Errors
    /// Returns an error if they cannot be created.
    pub fn create(scratch: &Path, unpacked: Option<PathBuf>) -> Result<Self> {
        let root = scratch.join("site");
        for folder in [&root, &root.join("up"), &scratch.join("empty")] {
            fs::create_dir(folder)?;
        }
        // Programs serve as different users.
        fs::set_permissions(root.join("up"), fs::Permissions::from_mode(0o777))?;
        let (key, certificate) = (scratch.join("key.pem"), scratch.join("certificate.pem"));
        let made = Command::new("openssl")
            .args(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ftp.example -keyout"
                    .split(' '),
            )
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .context("openssl")?;
        ensure!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let both = [fs::read(&key)?, fs::read(&certificate)?].concat();
        fs::write(scratch.join("server.pem"), both)?;
        fs::set_permissions(
            scratch.join("server.pem"),
            fs::Permissions::from_mode(0o600),
        )?;
        Ok(Self {
            scratch: scratch.to_owned(),
            root,
            unpacked,
        })
    }

    /// Returns the servers that are installed or unpacked.
    pub fn servers(&self) -> impl Iterator<Item = Server> {
        let unpacked = self.unpacked.is_some();
        Server::ALL
            .into_iter()
            .filter(move |server| unpacked || !server.is_unpacked())
    }

    /// Returns the path of a file by the name that clients use.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Starts all servers for both IP versions and waits until they answer inside their namespace.
///
/// # Errors
/// Returns an error if a program is missing, or does not listen within 10 s.
pub fn start(namespace: &Namespace, site: &Site, interrupt: &Interrupt) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for server in site.servers() {
        for v6 in [false, true] {
            programs.push(server.start(namespace, v6, site)?);
        }
    }
    let end = Instant::now() + Duration::from_secs(10);
    for server in site.servers() {
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
