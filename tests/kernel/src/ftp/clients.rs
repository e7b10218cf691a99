//! The clients, and what they can be made to say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::address;
use super::programs::Program;
use super::servers::Server;
use crate::namespace::Namespace;

/// How a data connection is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// EPSV: the client calls.
    Epsv,
    /// PASV: the client calls; IPv4 only.
    Pasv,
    /// EPRT: the server calls.
    Eprt,
    /// PORT: the server calls; IPv4 only.
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

    /// Does the client call?
    #[must_use]
    pub const fn is_passive(self) -> bool {
        matches!(self, Self::Epsv | Self::Pasv)
    }

    /// Is it one for IPv6, too?
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
}

/// A way to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Who asks.
    pub client: Client,
    /// Who is asked.
    pub server: Server,
    /// Over IPv6?
    pub v6: bool,
    /// How.
    pub mode: Mode,
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

/// One thing that is asked for. Names on the server are those below its root.
#[derive(Debug, Clone)]
pub enum Task {
    /// A listing of the root, to a file.
    List(PathBuf),
    /// A file of the server's to a file here.
    Download(String, PathBuf),
    /// A file here to a file of the server's.
    Upload(PathBuf, String),
}

impl Client {
    /// All clients.
    pub const ALL: [Self; 3] = [Self::Curl, Self::Lftp, Self::Tnftp];

    /// The program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Lftp => "lftp",
            Self::Tnftp => "tnftp",
        }
    }

    /// Does it know how? lftp uses EPRT for IPv6 only.
    #[must_use]
    pub const fn can(self, mode: Mode, v6: bool) -> bool {
        match (self, mode) {
            (Self::Lftp, Mode::Eprt) => v6,
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
            if let Some(limit) = limit {
                arguments.extend(["--limit-rate".to_owned(), limit.to_owned()]);
            }
            arguments.extend(match task {
                Task::List(to) => ["-o".to_owned(), local(to), self.url("")],
                Task::Download(name, to) => ["-o".to_owned(), local(to), self.url(name)],
                Task::Upload(from, name) => ["-T".to_owned(), local(from), self.url(name)],
            });
        }
        arguments
    }

    /// What lftp is told.
    fn lftp(&self, tasks: &[Task]) -> String {
        let yes = |value| if value { "yes" } else { "no" };
        let mut script = vec![
            "set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 8; set xfer:clobber yes"
                .to_owned(),
            "set ftp:ssl-allow no; set ftp:auto-passive-mode no; set ftp:use-ip-tos no".to_owned(),
            format!("set ftp:passive-mode {}", yes(self.mode.is_passive())),
            format!("set ftp:prefer-epsv {}", yes(self.mode == Mode::Epsv)),
            format!("open {}", self.url("")),
        ];
        script.extend(tasks.iter().map(|task| match task {
            Task::List(to) => format!("ls > {}", to.display()),
            Task::Download(name, to) => format!("get {name} -o {}", to.display()),
            Task::Upload(from, name) => format!("put {} -o {name}", from.display()),
        }));
        script.push("bye".to_owned());
        script.join("; ")
    }

    /// What tnftp is told.
    fn tnftp(&self, tasks: &[Task]) -> String {
        let mut script = vec![
            format!("open {} 21", self.host()),
            "user anonymous someone@example.org".to_owned(),
            format!("epsv4 {}", if self.mode.is_extended() { "on" } else { "off" }),
            "binary".to_owned(),
        ];
        script.extend(tasks.iter().map(|task| match task {
            Task::List(to) => format!("ls . {}", to.display()),
            Task::Download(name, to) => format!("get {name} {}", to.display()),
            Task::Upload(from, name) => format!("put {} {name}", from.display()),
        }));
        script.push("bye\n".to_owned());
        script.join("\n")
    }

    /// Starts a program that does these tasks in one control session. `folder` is for logs and scripts, whose names begin
    /// with `label`.
    ///
    /// # Errors
    /// The program is not there.
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
            Client::Lftp => Program::start(namespace, log, &["lftp", "-c", &self.lftp(tasks)], None),
            Client::Tnftp => {
                let script = folder.join(format!("{label}.txt"));
                fs::write(&script, self.tnftp(tasks))?;
                let active = if self.mode.is_passive() { "-p" } else { "-A" };
                let arguments = ["tnftp", "-n", "-i", "-v", active];
                Program::start(namespace, log, &arguments, Some(&script))
            }
        }
    }

    /// Starts a download with curl that takes `limit` bytes a second at most.
    ///
    /// # Errors
    /// curl is not there.
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

    /// Starts lftp with a script of its own, after the settings and the login.
    ///
    /// # Errors
    /// lftp is not there.
    pub fn start_script(&self, script: &str, namespace: &Namespace, log: PathBuf) -> Result<Program> {
        if self.client != Client::Lftp {
            bail!("only lftp has scripts");
        }
        let login = self.lftp(&[]);
        let login = login.strip_suffix("bye").unwrap_or(&login);
        Program::start(namespace, log, &["lftp", "-c", &format!("{login}{script}")], None)
    }
}
