//! The FTP clients and their modes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::address;
use super::programs::Program;
use super::servers::Server;
use crate::namespace::Namespace;

/// Command that opens a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// EPSV: the client calls.
    Epsv,
    /// PASV: the client connects; IPv4 only.
    Pasv,
    /// EPRT: the server calls.
    Eprt,
    /// PORT: the server connects; IPv4 only.
    Port,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Epsv, Self::Pasv, Self::Eprt, Self::Port];

    /// The command.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Epsv => "EPSV",
            Self::Pasv => "PASV",
            Self::Eprt => "EPRT",
            Self::Port => "PORT",
        }
    }

    /// Returns whether the client connects.
    #[must_use]
    pub const fn is_passive(self) -> bool {
        matches!(self, Self::Epsv | Self::Pasv)
    }

    /// Returns whether the mode also supports IPv6.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        matches!(self, Self::Epsv | Self::Eprt)
    }
}

/// A client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// curl.
    Curl,
    /// lftp.
    Lftp,
    /// tnftp, which Debian also calls `ftp`.
    Tnftp,
    /// wget, which only downloads.
    Wget,
    /// ncftpget, ncftpput and ncftpls, which support only IPv4.
    Ncftp,
    /// Python's ftplib.
    Ftplib,
}

/// Script for Python: `ftp.py SCHEME HOST USER PASSWORD MODE TASK...`, with a word and two names
/// for each task.
const FTPLIB: &str = r#"
import ftplib, sys
scheme, host, user, password, mode, *tasks = sys.argv[1:]
ftp = (ftplib.FTP_TLS if scheme == "tls" else ftplib.FTP)(timeout=8)
ftp.connect(host, 21)
ftp.login(user, password)
if scheme == "tls":
    ftp.prot_p()
ftp.set_pasv(mode == "passive")
while tasks:
    word, here, there, *tasks = tasks
    if word == "upload":
        ftp.storbinary("STOR " + there, open(here, "rb"))
    elif word == "download":
        ftp.retrbinary("RETR " + there, open(here, "wb").write)
    elif word == "resume":
        with open(here, "ab") as file:
            ftp.retrbinary("RETR " + there, file.write, rest=file.tell())
    elif word == "abort":
        data = ftp.transfercmd("RETR " + there)
        data.recv(1000)
        data.close()
        try:
            ftp.abort()
        except ftplib.Error:
            pass  # a reply to RETR that comes before that to ABOR
        try:
            while True:
                ftp.sock.settimeout(0.5)
                ftp.getmultiline()
        except TimeoutError:
            ftp.sock.settimeout(8)
            ftp.close()
            sys.exit(0)
    else:
        file = open(here, "a")
        ftp.retrlines("LIST " + there, lambda line: print(line, file=file, flush=True))
ftp.quit()
"#;

/// A combination of server, mode and TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Client program.
    pub client: Client,
    /// Server program.
    pub server: Server,
    /// Whether IPv6 is used.
    pub v6: bool,
    /// Mode of the data connections.
    pub mode: Mode,
    /// Whether explicit TLS is used (RFC 4217).
    pub tls: bool,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.v6 { "v6" } else { "v4" };
        let (client, server) = (self.client.name(), self.server.name());
        write!(
            f,
            "{client}-{server}-{version}-{}",
            self.mode.word().to_lowercase()
        )
    }
}

/// A task. Names on the server are relative to its root.
#[derive(Debug, Clone)]
pub enum Task {
    /// A listing of the root, to a file.
    List(PathBuf),
    /// Downloads a file of the server to a local file.
    Download(String, PathBuf),
    /// Uploads a local file to a file of the server.
    Upload(PathBuf, String),
    /// Resumes a partial local file from a file of the server.
    Resume(String, PathBuf),
}

impl Client {
    /// All clients.
    pub const ALL: [Self; 6] = [
        Self::Curl,
        Self::Lftp,
        Self::Tnftp,
        Self::Wget,
        Self::Ncftp,
        Self::Ftplib,
    ];

    /// The program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Lftp => "lftp",
            Self::Tnftp => "tnftp",
            Self::Wget => "wget",
            Self::Ncftp => "ncftp",
            Self::Ftplib => "ftplib",
        }
    }

    /// Returns whether the client can upload.
    #[must_use]
    pub const fn uploads(self) -> bool {
        !matches!(self, Self::Wget)
    }

    /// Returns whether the client accepts names of more than 512 bytes.
    #[must_use]
    pub const fn takes_long_paths(self) -> bool {
        !matches!(self, Self::Tnftp | Self::Ncftp)
    }

    /// Returns whether the client supports explicit TLS (RFC 4217).
    #[must_use]
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Curl | Self::Lftp | Self::Ftplib)
    }

    /// Returns whether the client supports the combination. lftp uses EPRT for IPv6 only.
    #[must_use]
    pub const fn can(self, mode: Mode, v6: bool) -> bool {
        match (self, mode) {
            (Self::Lftp, Mode::Eprt) => v6,
            (Self::Ncftp, _) => !v6 && !mode.is_extended(),
            (Self::Wget | Self::Ftplib, _) => mode.is_extended() == v6,
            _ => mode.is_extended() || !v6,
        }
    }
}

impl Way {
    fn host(&self) -> String {
        address(self.server.host(), self.v6).to_string()
    }

    fn url(&self, file: &str) -> String {
        let host = self.host();
        if self.v6 {
            format!("ftp://[{host}]/{file}")
        } else {
            format!("ftp://{host}/{file}")
        }
    }

    /// curl with its arguments.
    fn curl(&self, tasks: &[Task], limit: Option<&str>) -> Vec<String> {
        let mode: &[&str] = match self.mode {
            Mode::Epsv => &[],
            Mode::Pasv => &["--disable-epsv"],
            Mode::Eprt => &["-P", "-"],
            Mode::Port => &["-P", "-", "--disable-eprt"],
        };
        let local = |path: &Path| path.display().to_string();
        let mut arguments = vec!["curl".to_owned()];
        for (number, task) in tasks.iter().enumerate() {
            if number > 0 {
                arguments.push("--next".to_owned());
            }
            let options = ["-sS", "-g", "--noproxy", "*", "--connect-timeout", "8"];
            arguments.extend(options.iter().chain(mode).map(|each| (*each).to_owned()));
            let account = self.server.account();
            arguments.extend([
                "-u".to_owned(),
                format!("{}:{}", account.user, account.password),
            ]);
            if self.tls {
                arguments.extend(["--ssl-reqd", "-k"].map(str::to_owned));
            }
            if let Some(limit) = limit {
                arguments.extend(["--limit-rate".to_owned(), limit.to_owned()]);
            }
            if matches!(task, Task::Resume(..)) {
                arguments.extend(["-C", "-"].map(str::to_owned));
            }
            arguments.extend(match task {
                Task::List(to) => ["-o".to_owned(), local(to), self.url("")],
                Task::Download(name, to) | Task::Resume(name, to) => {
                    ["-o".to_owned(), local(to), self.url(name)]
                }
                Task::Upload(from, name) => ["-T".to_owned(), local(from), self.url(name)],
            });
        }
        arguments
    }

    /// Returns the script for lftp.
    fn lftp(&self, tasks: &[Task]) -> String {
        let yes = |value| if value { "yes" } else { "no" };
        let mut script = vec![
            "set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 8; set xfer:clobber yes"
                .to_owned(),
            "set ftp:auto-passive-mode no; set ftp:use-ip-tos no; set ssl:verify-certificate no"
                .to_owned(),
            format!(
                "set ftp:ssl-allow {0}; set ftp:ssl-force {0}; set ftp:ssl-protect-data {0}",
                yes(self.tls)
            ),
            format!("set ftp:passive-mode {}", yes(self.mode.is_passive())),
            format!("set ftp:prefer-epsv {}", yes(self.mode == Mode::Epsv)),
            format!(
                "open -u {},{} {}",
                self.server.account().user,
                self.server.account().password,
                self.url("")
            ),
        ];
        script.extend(tasks.iter().map(|task| match task {
            Task::List(to) => format!("ls > {}", to.display()),
            Task::Download(name, to) => format!("get {name} -o {}", to.display()),
            Task::Upload(from, name) => format!("put {} -o {name}", from.display()),
            Task::Resume(name, to) => format!("get -c {name} -o {}", to.display()),
        }));
        script.push("bye".to_owned());
        script.join("; ")
    }

    /// Returns the script for tnftp.
    fn tnftp(&self, tasks: &[Task]) -> String {
        let mut script = vec![
            format!("open {} 21", self.host()),
            format!(
                "user {} {}",
                self.server.account().user,
                self.server.account().password
            ),
            format!(
                "epsv4 {}",
                if self.mode.is_extended() { "on" } else { "off" }
            ),
            "binary".to_owned(),
        ];
        script.extend(tasks.iter().map(|task| match task {
            Task::List(to) => format!("ls . {}", to.display()),
            Task::Download(name, to) => format!("get {name} {}", to.display()),
            Task::Upload(from, name) => format!("put {} {name}", from.display()),
            Task::Resume(name, to) => {
                let have = fs::metadata(to).map_or(0, |file| file.len());
                format!("restart {have}\nget {name} {}", to.display())
            }
        }));
        script.push("bye\n".to_owned());
        script.join("\n")
    }

    /// Returns the shell commands for wget.
    fn wget(&self, tasks: &[Task]) -> String {
        let active = if self.mode.is_passive() {
            ""
        } else {
            "--no-passive-ftp"
        };
        let account = self.server.account();
        let wget = format!(
            "wget -nv --no-proxy --tries 1 --timeout 8 --user {} --password {} {active}",
            account.user, account.password
        );
        let each = tasks.iter().filter_map(|task| match task {
            Task::List(to) => Some(format!("{wget} -O {} '{}'", to.display(), self.url(""))),
            Task::Download(name, to) => {
                Some(format!("{wget} -O {} '{}'", to.display(), self.url(name)))
            }
            // wget resumes a file with the server's name, which needs a folder of its own.
            Task::Resume(name, to) => Some(format!(
                "mkdir {to}.d && mv {to} {to}.d/{name} && {wget} -c -P {to}.d '{url}' && mv \
                 {to}.d/{name} {to}",
                to = to.display(),
                url = self.url(name)
            )),
            Task::Upload(..) => None,
        });
        each.collect::<Vec<_>>().join(" && ")
    }

    /// Returns the shell commands for the programs of ncftp.
    fn ncftp(&self, tasks: &[Task]) -> String {
        let mode = if self.mode.is_passive() { "-F" } else { "-E" };
        let account = self.server.account();
        let options = format!(
            "-u {} -p {} {mode} -t 8 -r 0",
            account.user, account.password
        );
        let host = self.host();
        let each = tasks.iter().map(|task| match task {
            Task::List(to) => format!("ncftpls {options} -l {} > {}", self.url(""), to.display()),
            Task::Download(name, to) => {
                format!("ncftpget {options} -V -C {host} {name} {}", to.display())
            }
            Task::Upload(from, name) => {
                format!("ncftpput {options} -V -C {host} {} {name}", from.display())
            }
            Task::Resume(name, to) => {
                format!("ncftpget {options} -V -z -C {host} {name} {}", to.display())
            }
        });
        each.collect::<Vec<_>>().join(" && ")
    }

    /// The arguments of the script `FTPLIB`.
    fn ftplib(&self, tasks: &[Task]) -> Vec<String> {
        let account = self.server.account();
        let mode = if self.mode.is_passive() {
            "passive"
        } else {
            "active"
        };
        let scheme = if self.tls { "tls" } else { "plain" };
        let host = self.host();
        let fixed = [
            "/usr/bin/python3",
            "-c",
            FTPLIB,
            scheme,
            &host,
            account.user,
            account.password,
            mode,
        ];
        let mut arguments: Vec<_> = fixed.map(str::to_owned).into();
        for task in tasks {
            let (word, here, there) = match task {
                Task::List(to) => ("list", to, ""),
                Task::Download(name, to) => ("download", to, name.as_str()),
                Task::Resume(name, to) => ("resume", to, name.as_str()),
                Task::Upload(from, name) => ("upload", from, name.as_str()),
            };
            arguments.extend([
                word.to_owned(),
                here.display().to_string(),
                there.to_owned(),
            ]);
        }
        arguments
    }

    /// Starts a program that performs the tasks in one control session. `folder` is for logs and
    /// scripts, whose names begin with `label`.
    ///
    /// # Errors
    /// Returns an error if the program is missing.
    pub fn start(
        &self,
        tasks: &[Task],
        namespace: &Namespace,
        folder: &Path,
        label: &str,
    ) -> Result<Program> {
        let log = folder.join(format!("{label}.log"));
        match self.client {
            Client::Curl => Program::start(namespace, log, &self.curl(tasks, None), None),
            Client::Lftp => {
                Program::start(namespace, log, &["lftp", "-c", &self.lftp(tasks)], None)
            }
            Client::Tnftp => {
                let script = folder.join(format!("{label}.txt"));
                fs::write(&script, self.tnftp(tasks))?;
                let active = if self.mode.is_passive() { "-p" } else { "-A" };
                let arguments = ["tnftp", "-n", "-i", "-v", active];
                Program::start(namespace, log, &arguments, Some(&script))
            }
            Client::Wget => Program::start(namespace, log, &["sh", "-ec", &self.wget(tasks)], None),
            Client::Ncftp => {
                Program::start(namespace, log, &["sh", "-ec", &self.ncftp(tasks)], None)
            }
            Client::Ftplib => Program::start(namespace, log, &self.ftplib(tasks), None),
        }
    }

    /// Starts a download with curl of at most `limit` bytes per second.
    ///
    /// # Errors
    /// Returns an error if curl is missing.
    pub fn start_slowly(
        &self,
        task: Task,
        limit: &str,
        namespace: &Namespace,
        log: PathBuf,
    ) -> Result<Program> {
        if self.client != Client::Curl {
            bail!("only curl is made slow");
        }
        Program::start(namespace, log, &self.curl(&[task], Some(limit)), None)
    }

    /// Starts Python's ftplib, which aborts a download and reads the server's replies.
    ///
    /// # Errors
    /// Returns an error if Python is missing.
    pub fn start_abort(&self, name: &str, namespace: &Namespace, log: PathBuf) -> Result<Program> {
        let mut arguments = self.ftplib(&[]);
        arguments.extend(["abort", "", name].map(str::to_owned));
        Program::start(namespace, log, &arguments, None)
    }

    /// Starts lftp with a script of its own, after the settings and the login.
    ///
    /// # Errors
    /// Returns an error if lftp is missing.
    pub fn start_script(
        &self,
        script: &str,
        namespace: &Namespace,
        log: PathBuf,
    ) -> Result<Program> {
        if self.client != Client::Lftp {
            bail!("only lftp has scripts");
        }
        let login = self.lftp(&[]);
        let login = login.strip_suffix("bye").unwrap_or(&login);
        Program::start(
            namespace,
            log,
            &["lftp", "-c", &format!("{login}{script}")],
            None,
        )
    }
}
