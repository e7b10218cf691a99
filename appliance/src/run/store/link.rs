//! Connection to the store: one server or a cluster, with pipelines whose commands fail alone.

use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Cmd, Connection, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    ServerErrorKind, TlsCertificates, TlsMode, Value,
};

use super::address::{Access, Address};
use super::refusal::{Refusal, Refused};
use super::scripts::StoreScript;

/// Longest time to connect, the handshake of TLS and the password included.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest time for all answers to a pipeline.
const PIPELINE: Duration = Duration::from_secs(2);

/// Reason why a connection is no longer usable. Its text names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LinkError(String);

impl LinkError {
    /// Returns the reason why a connection is given up whose thread has failed.
    pub(super) fn of_failed_thread() -> Self {
        Self("the thread has failed".to_owned())
    }

    /// Returns the reason why a connection is given up on which the store takes no writes.
    pub(super) fn of_refused_writes(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self("no answer in time".to_owned());
        }
        // Texts of the store are not trusted: a line of the log holds no control characters.
        let text = error.to_string();
        let printable = text.chars().filter(|letter| !letter.is_control());
        Self(printable.take(200).collect())
    }
}

/// Answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A number.
    Number(i64),
    /// A value; empty if there is none.
    Bytes(Vec<u8>),
    /// Values of a list.
    Many(Vec<Vec<u8>>),
    /// The store has refused the command.
    Refused(Refused),
    /// The key holds something other than a value, or the answer is none that the command has.
    Foreign,
}

impl Reply {
    /// Returns the store's reason if it takes no writes at the moment.
    pub(super) fn refused_writes(&self) -> Option<&str> {
        match self {
            Self::Refused(refused) if refused.kind == Refusal::Write => Some(&refused.why),
            _ => None,
        }
    }
}

/// Client of the servers of a store.
pub(super) enum Servers {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl Servers {
    /// Prepares connections to an address.
    ///
    /// # Errors
    /// The address or the CA is invalid.
    pub(super) fn new(address: &Address, access: &Access) -> Result<Self, LinkError> {
        let certificates = || TlsCertificates {
            client_tls: None,
            root_cert: access.ca.clone(),
        };
        let infos = address
            .urls
            .iter()
            .map(|url| Ok(info(url.as_str().into_connection_info()?, access)))
            .collect::<Result<Vec<_>, RedisError>>()?;
        if address.is_cluster {
            let mut builder = ClusterClient::builder(infos)
                .connection_timeout(CONNECT)
                .response_timeout(CONNECT)
                .retries(1);
            if let Some(user) = &access.user {
                builder = builder.username(user);
            }
            if let Some(password) = &access.password {
                builder = builder.password(password);
            }
            if address.is_tls() {
                builder = builder.tls(TlsMode::Secure).certs(certificates());
            }
            return Ok(Self::Cluster(Box::new(builder.build()?)));
        }
        let Some(info) = infos.into_iter().next() else {
            return Err(LinkError("no URL".to_owned()));
        };
        let client = if address.is_tls() && access.ca.is_some() {
            Client::build_with_tls(info, certificates())?
        } else {
            Client::open(info)?
        };
        Ok(Self::One(Box::new(client)))
    }

    /// Returns whether the keys are spread over several primaries.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Connects. Each answer may take as long as `patience`.
    ///
    /// # Errors
    /// No server answers, or the store refuses the user.
    pub(super) fn connect(&self, patience: Duration) -> Result<Link, LinkError> {
        match self {
            Self::One(client) => {
                let mut connection = client.get_connection_with_timeout(CONNECT)?;
                connection.set_read_timeout(Some(patience))?;
                connection.set_write_timeout(Some(patience))?;
                // A frozen server accepts connections to its socket. One that cannot save refuses
                // this command as well as writes, but takes reads.
                answer(redis::cmd("PING").query(&mut connection))?;
                Ok(Link::One(Box::new(connection)))
            }
            Self::Cluster(client) => {
                let connection = client.get_connection()?;
                connection.set_read_timeout(Some(patience))?;
                connection.set_write_timeout(Some(patience))?;
                // A broken connection is replaced as a whole, after a pause.
                connection.set_auto_reconnect(false);
                Ok(Link::Cluster(Box::new(connection)))
            }
        }
    }
}

/// Puts user and password into what a URL says of a connection.
fn info(info: ConnectionInfo, access: &Access) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
    if let Some(user) = &access.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &access.password {
        settings = settings.set_password(password);
    }
    info.set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true))
}

/// Number of times that a command may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Once: it takes something away, and its answer is the only copy.
    Once,
    /// Twice does no harm.
    Twice,
}

/// Connection to the store.
pub(super) enum Link {
    One(Box<Connection>),
    Cluster(Box<ClusterConnection>),
}

impl Link {
    /// Sends commands, and returns the answer to each. A script that the store does not know is
    /// loaded, and its commands are sent again.
    ///
    /// # Errors
    /// The connection is broken, or only another one can help. Commands may have been carried out.
    pub(super) fn send(
        &mut self,
        commands: &[Cmd],
        scripts: &[StoreScript],
        times: Times,
    ) -> Result<Vec<Reply>, LinkError> {
        let mut answers = self.pipeline(commands, times)?;
        let unknown: Vec<usize> = (0..answers.len())
            .filter(|place| matches!(answers.get(*place), Some(Answer::NoScript)))
            .collect();
        if !unknown.is_empty() {
            self.load(scripts)?;
            let again: Vec<Cmd> = unknown
                .iter()
                .filter_map(|place| commands.get(*place).cloned())
                .collect();
            for (place, answer) in unknown.into_iter().zip(self.pipeline(&again, times)?) {
                if let Some(old) = answers.get_mut(place) {
                    *old = answer;
                }
            }
        }
        let reply = |answer| match answer {
            Answer::Reply(reply) => Ok(reply),
            Answer::NoScript => Err(LinkError("the store forgets scripts".to_owned())),
        };
        answers.into_iter().map(reply).collect()
    }

    /// Loads scripts. In a cluster, every primary gets them.
    ///
    /// # Errors
    /// The connection is broken, or the store refuses scripts.
    pub(super) fn load(&mut self, scripts: &[StoreScript]) -> Result<(), LinkError> {
        for script in scripts {
            let load = script.load();
            let hash: String = match self {
                Self::One(connection) => load.query(connection.as_mut())?,
                Self::Cluster(connection) => load.query(connection.as_mut())?,
            };
            if hash != script.hash {
                return Err(LinkError("the store does not take scripts".to_owned()));
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, commands: &[Cmd], times: Times) -> Result<Vec<Answer>, LinkError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<Result<Value, RedisError>> = match self {
            Self::One(connection) => together(connection, commands)?,
            Self::Cluster(connection) if times == Times::Once => one_by_one(connection, commands)?,
            Self::Cluster(connection) => {
                let mut pipe = cluster_pipe();
                for command in commands {
                    pipe.add_command(command.clone());
                }
                match pipe.query::<Vec<Value>>(connection) {
                    Ok(values) => values.into_iter().map(Ok).collect(),
                    Err(error) if error.is_io_error() => return Err(error.into()),
                    // The pipeline of a cluster fails as a whole; alone, each command has its own
                    // answer. Those before the failure are carried out twice.
                    Err(_) => one_by_one(connection, commands)?,
                }
            }
        };
        if values.len() != commands.len() {
            return Err(LinkError(
                "the store does not answer each command".to_owned(),
            ));
        }
        values.into_iter().map(answer).collect()
    }
}

/// Sends commands at once, and receives the answers until one of them fails to come. (The query of
/// a pipeline goes on after that, and waits for each of the others as long.)
fn together(
    connection: &mut Connection,
    commands: &[Cmd],
) -> Result<Vec<Result<Value, RedisError>>, LinkError> {
    let mut pipe = redis::Pipeline::with_capacity(commands.len());
    for command in commands {
        pipe.add_command(command.clone());
    }
    connection.send_packed_command(&pipe.get_packed_pipeline())?;
    let begun = Instant::now();
    let mut answers = Vec::with_capacity(commands.len());
    while answers.len() < commands.len() {
        if begun.elapsed() > PIPELINE {
            return Err(LinkError("answers come too slowly".to_owned()));
        }
        match connection.recv_response() {
            Ok(Value::Push { .. }) => {}
            Ok(value) => answers.push(value.extract_error()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answers)
}

/// Sends commands to a cluster one after the other, until the connection breaks.
fn one_by_one(
    connection: &mut ClusterConnection,
    commands: &[Cmd],
) -> Result<Vec<Result<Value, RedisError>>, LinkError> {
    let mut answers = Vec::with_capacity(commands.len());
    for command in commands {
        match command.query::<Value>(connection) {
            Err(error) if error.is_io_error() => return Err(error.into()),
            answer => answers.push(answer),
        }
    }
    Ok(answers)
}

/// Answer to a command, before scripts are loaded.
enum Answer {
    Reply(Reply),
    NoScript,
}

fn answer(value: Result<Value, RedisError>) -> Result<Answer, LinkError> {
    let error = match value {
        Ok(Value::Int(number)) => return Ok(Answer::Reply(Reply::Number(number))),
        Ok(Value::BulkString(bytes)) => return Ok(Answer::Reply(Reply::Bytes(bytes))),
        Ok(Value::Okay) => return Ok(Answer::Reply(Reply::Number(1))),
        Ok(Value::Nil) => return Ok(Answer::Reply(Reply::Bytes(Vec::new()))),
        Ok(Value::Array(values)) => {
            let bytes = values.into_iter().filter_map(|value| match value {
                Value::BulkString(bytes) => Some(bytes),
                _ => None,
            });
            return Ok(Answer::Reply(Reply::Many(bytes.collect())));
        }
        Ok(_) => return Ok(Answer::Reply(Reply::Foreign)),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
        return Ok(Answer::NoScript);
    }
    let kind = match error.code() {
        Some("WRONGTYPE") => return Ok(Answer::Reply(Reply::Foreign)),
        Some(code) => Refusal::of(code, error.detail().unwrap_or_default()),
        // The connection is broken, or the answer is none.
        None => None,
    };
    let why = LinkError::from(error);
    match kind {
        Some(kind) => {
            let why = why.to_string();
            Ok(Answer::Reply(Reply::Refused(Refused { kind, why })))
        }
        None => Err(why),
    }
}
