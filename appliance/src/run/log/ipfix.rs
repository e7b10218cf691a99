//! Exporter of IPFIX messages (RFC 7011) over UDP.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::batch::{Batch, Written};
use super::counters::LogCounters;
use super::datagrams::{Datagrams, Transport};
use super::formats::ipfix::{self, RECORD_TEMPLATE_LEN};

/// Longest message in bytes: it fits the MTU of Ethernet with IPv6.
const MAX_MESSAGE: usize = 1_400;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// Bytes of a set's header.
const SET_HEADER: usize = 4;
/// Time after which the templates are sent again: a collector may have started since.
const TEMPLATES: Duration = Duration::from_secs(60);
/// Observation domain: the appliance has one.
const DOMAIN: u32 = 1;
/// Version of the protocol.
const VERSION: u16 = 10;

/// Sender of records to a collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    datagrams: Datagrams,
    /// Number of data records that the socket was to send, modulo 2^32.
    sequence: u32,
    /// Time at which the templates are due.
    templates: Option<Instant>,
    message: Message,
}

/// Message that is being filled.
#[derive(Debug, Default)]
struct Message {
    bytes: Vec<u8>,
    /// Position and template of the open set.
    set: Option<(usize, u16)>,
    records: u32,
}

impl Message {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.set = None;
        self.records = 0;
    }

    /// Adds a record to the set of its template. Returns `false` if there is no room.
    fn put(&mut self, template: u16, record: &[u8]) -> bool {
        if self.bytes.len() + SET_HEADER + record.len() > MAX_MESSAGE {
            return false;
        }
        if self.set.is_none_or(|(_, open)| open != template) {
            self.end_set();
            self.set = Some((self.bytes.len(), template));
            self.bytes.extend(template.to_be_bytes());
            self.bytes.extend([0, 0]);
        }
        self.bytes.extend_from_slice(record);
        self.records += 1;
        true
    }

    /// Writes the length of the open set.
    fn end_set(&mut self) {
        if let Some((start, _)) = self.set.take() {
            let length = (self.bytes.len() - start) as u16;
            if let Some(place) = self.bytes.get_mut(start + 2..start + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    /// Completes the message.
    fn finish(&mut self, sequence: u32) {
        self.end_set();
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = time.unwrap_or_default().as_secs() as u32;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(VERSION.to_be_bytes());
        header.extend((self.bytes.len() as u16).to_be_bytes());
        header.extend(seconds.to_be_bytes());
        header.extend(sequence.to_be_bytes());
        header.extend(DOMAIN.to_be_bytes());
        if let Some(place) = self.bytes.get_mut(..HEADER) {
            place.copy_from_slice(&header);
        }
    }
}

impl Exporter {
    /// Returns an exporter to a collector at a host and port.
    pub(super) fn new(address: &str) -> Self {
        Self {
            datagrams: Datagrams::new(address),
            sequence: 0,
            templates: None,
            message: Message::default(),
        }
    }

    /// Sends the records of a batch. Those of a message that the system refuses are counted as
    /// dropped.
    pub(super) fn write(&mut self, batch: &Batch, counters: &LogCounters) -> Written {
        let mut result = Ok(());
        match self.datagrams.prepare() {
            Ok(Transport::Kept) => {}
            // Templates and sequence belong to a transport session (RFC 7011, sections 3.1 and 8).
            Ok(Transport::Opened) => {
                self.sequence = 0;
                self.templates = None;
            }
            Err(error) => return Written::nothing(error),
        }
        let now = Instant::now();
        self.message.clear();
        if batch.len() > 0 && self.templates.is_none_or(|due| due <= now) {
            self.message.bytes.extend(ipfix::template_set());
            self.templates = Some(now + TEMPLATES);
        }
        for item in batch.items() {
            let Some((template, record)) = item.split_first_chunk::<RECORD_TEMPLATE_LEN>() else {
                continue;
            };
            let template = u16::from_be_bytes(*template);
            if !self.message.put(template, record) {
                result = result.and(self.send(counters));
                self.message.clear();
                self.message.put(template, record);
            }
        }
        if self.message.records > 0 {
            result = result.and(self.send(counters));
        }
        let refusal = self.datagrams.take_refusal();
        if refusal.is_err() {
            // The refused message may have had the templates.
            self.templates = None;
        }
        Written {
            items: batch.len(),
            result: result.and(refusal),
        }
    }

    fn send(&mut self, counters: &LogCounters) -> io::Result<()> {
        self.message.finish(self.sequence);
        let records = self.message.records;
        // The collector sees by the sequence how many records it lacks.
        self.sequence = self.sequence.wrapping_add(records);
        let result = self.datagrams.send(&self.message.bytes);
        match &result {
            Ok(()) => counters.add_written(records.into()),
            Err(_) => {
                counters.add_dropped(records.into());
                // The message may have had the templates.
                self.templates = None;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Receives a message, and returns its sequence and whether it has templates.
    fn receive(collector: &UdpSocket) -> (u32, bool) {
        let mut message = [0; 2_048];
        collector.recv(&mut message).unwrap();
        let sequence = u32::from_be_bytes(message[8..12].try_into().unwrap());
        (sequence, message[16..18] == [0, 2])
    }

    #[test]
    fn templates_and_sequence_begin_anew_with_another_socket() {
        let counters = LogCounters::default();
        let collectors = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [first, second] = collectors
            .each_ref()
            .map(|collector| collector.local_addr().unwrap().to_string());
        let mut exporter = Exporter::new(&first);
        let mut batch = Batch::default();
        batch.put(&[1, 0, 7], b"");
        for address in [&first, &first, &second] {
            exporter.datagrams.redirect(address);
            exporter.write(&batch, &counters).result.unwrap();
        }
        assert_eq!(receive(&collectors[0]), (0, true));
        assert_eq!(receive(&collectors[0]), (1, false));
        assert_eq!(receive(&collectors[1]), (0, true));
        assert_eq!(counters.values().written, 3);
    }

    #[test]
    fn records_without_a_socket_are_counted_as_dropped() {
        let counters = LogCounters::default();
        let mut exporter = Exporter::new("nowhere");
        let mut batch = Batch::default();
        batch.put(&[1, 0, 7], b"");
        for _ in 0..2 {
            let written = exporter.write(&batch, &counters);
            written.drop_rest(batch.len(), &counters).unwrap_err();
        }
        assert_eq!(counters.values().dropped, 2);
    }
}
