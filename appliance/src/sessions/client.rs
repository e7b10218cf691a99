//! Client of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::error::SessionsError;
use crate::run::protocol::{Reply, Request};

/// Maximum time for the appliance to send the next line of its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a running appliance.
pub(crate) struct Client {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// Returns an error if no appliance answers, or the user may not connect.
    pub(crate) fn connect(path: &Path) -> Result<Self, SessionsError> {
        let connect = || -> io::Result<Self> {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Self {
                replies: BufReader::new(stream.try_clone()?),
                stream,
            })
        };
        connect().map_err(|source| SessionsError::Connect {
            path: path.display().to_string(),
            source,
        })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(), SessionsError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| SessionsError::Answer(error.to_string()))?;
        line.push(b'\n');
        self.stream.write_all(&line).map_err(SessionsError::Broken)
    }

    /// Returns the next line of the answer.
    ///
    /// # Errors
    /// Returns an error if the connection is broken, or the line cannot be read.
    pub(crate) fn receive(&mut self) -> Result<Reply, SessionsError> {
        let mut line = String::new();
        if self
            .replies
            .read_line(&mut line)
            .map_err(SessionsError::Broken)?
            == 0
        {
            return Err(SessionsError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|error| SessionsError::Answer(error.to_string()))
    }

    /// Sends a request, and collects the whole answer.
    ///
    /// # Errors
    /// Returns an error if the connection is broken, a line cannot be read, or the appliance
    /// refuses.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Vec<Reply>, SessionsError> {
        self.send(request)?;
        let mut replies = Vec::new();
        loop {
            match self.receive()? {
                Reply::Error(error) => return Err(SessionsError::Refused(error)),
                reply => {
                    let is_last = matches!(reply, Reply::Done { .. });
                    replies.push(reply);
                    if is_last {
                        return Ok(replies);
                    }
                }
            }
        }
    }
}
