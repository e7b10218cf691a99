//! Thread that asks the appliance, so that keys are read meanwhile.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::{io, thread};

use super::super::client::Client;
use super::super::error::SessionsError;
use super::look::Look;
use crate::run::protocol::{FilterSpec, ListingRequest, Reply, Request};

/// Question for the appliance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Question {
    Look(Box<ListingRequest>),
    Explain(u64),
    End(u64),
}

/// Answer of the appliance.
#[derive(Debug)]
pub(super) enum Answer {
    Look(Box<Look>),
    Explained { id: u64, lines: Vec<String> },
    Ended { id: u64, count: u64 },
    Failed(SessionsError),
}

/// Thread that asks, one question at a time.
pub(super) struct Asker {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
    is_busy: bool,
}

impl Asker {
    /// Starts the thread. It connects to `path` again when the connection breaks.
    ///
    /// # Errors
    /// Returns an error if there is no thread.
    pub(super) fn start(client: Client, path: PathBuf) -> io::Result<Self> {
        let (questions, asked) = sync_channel(1);
        let (answered, answers) = sync_channel(1);
        let mut connection = Connection {
            client: Some(client),
            path,
        };
        thread::Builder::new()
            .name("asker".to_owned())
            .spawn(move || {
                for question in asked {
                    let answer = connection.ask(&question).unwrap_or_else(Answer::Failed);
                    if answered.send(answer).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            questions,
            answers,
            is_busy: false,
        })
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Asks a question, unless another one waits for its answer.
    pub(super) fn ask(&mut self, question: Question) {
        if !self.is_busy {
            self.is_busy = self.questions.try_send(question).is_ok();
        }
    }

    /// Returns the answer to the last question, once it has come.
    ///
    /// # Errors
    /// Returns an error if the thread has ended.
    pub(super) fn answer(&mut self) -> io::Result<Option<Answer>> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.is_busy = false;
                Ok(Some(answer))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("a thread has ended")),
        }
    }
}

/// Connection that is made again when it is broken.
struct Connection {
    client: Option<Client>,
    path: PathBuf,
}

impl Connection {
    fn ask(&mut self, question: &Question) -> Result<Answer, SessionsError> {
        // An order is never repeated: its first answer may be lost, and the second one would say
        // that there was nothing to end. A new connection is not one that has broken meanwhile.
        if matches!(question, Question::End(_)) {
            self.client = None;
        }
        let was_connected = self.client.is_some();
        match self.ask_once(question) {
            // The appliance closes connections that are silent for minutes.
            Err(SessionsError::Broken(_)) if was_connected => self.ask_once(question),
            answer => answer,
        }
    }

    fn ask_once(&mut self, question: &Question) -> Result<Answer, SessionsError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path)?,
        };
        let answer = put(&mut client, question);
        if matches!(answer, Ok(_) | Err(SessionsError::Refused(_))) {
            self.client = Some(client);
        }
        answer
    }
}

fn put(client: &mut Client, question: &Question) -> Result<Answer, SessionsError> {
    match question {
        Question::Look(request) => {
            let look = Look::ask(client, (**request).clone())?;
            Ok(Answer::Look(Box::new(look)))
        }
        Question::Explain(id) => {
            let replies = client.ask(&Request::Explain { id: *id })?;
            let lines = replies.into_iter().filter_map(|reply| match reply {
                Reply::Line(line) => Some(line),
                _ => None,
            });
            Ok(Answer::Explained {
                id: *id,
                lines: lines.collect(),
            })
        }
        Question::End(id) => {
            let filter = FilterSpec {
                id: vec![*id],
                ..FilterSpec::default()
            };
            let replies = client.ask(&Request::Delete { filter, all: false })?;
            let count = replies.into_iter().find_map(|reply| match reply {
                Reply::Done { count, .. } => Some(count),
                _ => None,
            });
            Ok(Answer::Ended {
                id: *id,
                count: count.unwrap_or(0),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_order_whose_connection_breaks_is_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        // An appliance that reads one line of each connection, and closes it without an answer.
        let appliance = thread::spawn(move || {
            let mut orders = Vec::new();
            for stream in listener.incoming() {
                let mut line = String::new();
                BufReader::new(stream.unwrap())
                    .read_line(&mut line)
                    .unwrap();
                if line.is_empty() {
                    return orders;
                }
                orders.push(line);
            }
            orders
        });
        let mut connection = Connection {
            client: None,
            path: path.clone(),
        };
        let answer = connection.ask(&Question::End(7));
        assert!(
            matches!(answer, Err(SessionsError::Broken(_))),
            "{answer:?}"
        );
        drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
        assert_eq!(appliance.join().unwrap().len(), 1);
    }
}
