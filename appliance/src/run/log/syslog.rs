//! Syslog messages (RFC 5424) with a line of the log each, over UDP (RFC 5426), TCP with octet
//! counting (RFC 6587) or TLS (RFC 5425).

use std::io;
use std::time::SystemTime;

use super::super::settings::{LogSettings, SyslogTransport};
use super::batch::{Batch, Written};
use super::counters::LogCounters;
use super::datagrams::Datagrams;
use super::stream::Stream;

/// Priority of messages: facility local0, severity informational.
const PRIORITY: u8 = 16 * 8 + 6;

/// Sender of syslog messages.
pub(crate) struct Syslog {
    /// The part of a message from the host on, up to the line.
    head: String,
    carrier: Carrier,
    message: Vec<u8>,
}

enum Carrier {
    Datagrams(Datagrams),
    Stream(Stream),
}

impl Syslog {
    /// Returns a sender that connects when there is something to send.
    ///
    /// # Errors
    /// Returns an error if the certificates for TLS cannot be read.
    pub(super) fn new(
        transport: SyslogTransport,
        address: &str,
        settings: &LogSettings,
    ) -> io::Result<Self> {
        let stream = |stream: Stream| {
            Carrier::Stream(match settings.fail_closed {
                true => stream.that_closes_the_gate(),
                false => stream,
            })
        };
        let carrier = match transport {
            SyslogTransport::Udp => Carrier::Datagrams(Datagrams::new(address)),
            SyslogTransport::Tcp => stream(Stream::plain(address)),
            SyslogTransport::Tls => stream(Stream::with_tls(address, settings.ca.as_deref())?),
        };
        let process = std::process::id();
        Ok(Self {
            head: format!("{} portcullis {process} session - ", settings.host()),
            carrier,
            message: Vec::new(),
        })
    }

    /// Sends the lines of a batch. A datagram that the system refuses is counted as dropped.
    pub(super) fn write(&mut self, batch: &Batch, counters: &LogCounters) -> Written {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let head = format!("<{PRIORITY}>1 {time} {}", self.head);
        match &mut self.carrier {
            Carrier::Datagrams(datagrams) => {
                if let Err(error) = datagrams.prepare() {
                    return Written::nothing(error);
                }
                let mut result = Ok(());
                for line in batch.items() {
                    self.message.clear();
                    self.message.extend_from_slice(head.as_bytes());
                    self.message.extend_from_slice(line);
                    match datagrams.send(&self.message) {
                        Ok(()) => counters.add_written(1),
                        Err(error) => {
                            counters.add_dropped(1);
                            result = Err(error);
                        }
                    }
                }
                Written {
                    items: batch.len(),
                    result: result.and(datagrams.take_refusal()),
                }
            }
            Carrier::Stream(stream) => {
                let mut frames = Batch::default();
                for line in batch.items() {
                    self.message.clear();
                    let length = head.len() + line.len();
                    self.message
                        .extend_from_slice(format!("{length} ").as_bytes());
                    self.message.extend_from_slice(head.as_bytes());
                    frames.put(&self.message, line);
                }
                let written = stream.write(&frames);
                counters.add_written(written.items as u64);
                written
            }
        }
    }
}
