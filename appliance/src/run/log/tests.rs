//! The output, and its counters.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use portcullis::config::declare::Scalar;

use super::formats::Header;
use super::output::{self, Output};
use super::*;
use crate::run::settings::{LogFormat, LogOutput};

/// A log file in a directory of its own.
struct LogDirectory {
    directory: tempfile::TempDir,
    settings: LogSettings,
    counters: LogCounters,
}

impl LogDirectory {
    fn new(rotate_bytes: u64, keep: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            output: LogOutput::File(directory.path().join("log")),
            rotate_bytes,
            keep,
            ..LogSettings::default()
        };
        Self {
            directory,
            settings,
            counters: LogCounters::default(),
        }
    }

    fn open(&self) -> Output {
        let header = Formatter::new(&self.settings).header();
        output::open(&self.at("log"), &self.settings, header).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        names(self.directory.path())
    }
}

/// Writes as a log without a gate does: what cannot be written is lost.
trait WriteOrDrop<I: ?Sized> {
    fn write_or_drop(&mut self, items: &I, counters: &LogCounters) -> io::Result<()>;
}

impl WriteOrDrop<[u8]> for Output {
    fn write_or_drop(&mut self, lines: &[u8], counters: &LogCounters) -> io::Result<()> {
        let len = lines.iter().filter(|byte| **byte == b'\n').count();
        self.write(lines, counters).drop_rest(len, counters)
    }
}

impl WriteOrDrop<Batch> for Destination {
    fn write_or_drop(&mut self, batch: &Batch, counters: &LogCounters) -> io::Result<()> {
        self.write(batch, counters).drop_rest(batch.len(), counters)
    }
}

/// Lines written and lines lost.
fn counts(counters: &LogCounters) -> (u64, u64) {
    let lines = counters.values();
    (lines.written, lines.dropped)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn no_file_is_longer_than_its_limit_and_no_line_is_torn() {
    let directory = LogDirectory::new(30, 3);
    let mut output = directory.open();
    let lines: String = (10..30).map(|number| format!("line {number}\n")).collect();
    output
        .write_or_drop(lines.as_bytes(), &directory.counters)
        .unwrap();
    assert_eq!(directory.names(), ["log", "log.1", "log.2", "log.3"]);
    assert_eq!(directory.text("log"), "line 28\nline 29\n");
    assert_eq!(directory.text("log.1"), "line 25\nline 26\nline 27\n");
    assert_eq!(directory.text("log.3"), "line 19\nline 20\nline 21\n");
    assert_eq!(counts(&directory.counters), (20, 0));
    let long = format!("{}\n", "x".repeat(100));
    output
        .write_or_drop(format!("{long}{long}end\n").as_bytes(), &directory.counters)
        .unwrap();
    assert_eq!(directory.text("log"), "end\n");
    assert_eq!(
        (directory.text("log.1"), directory.text("log.2")),
        (long.clone(), long)
    );
}

#[test]
fn without_old_files_the_only_one_begins_anew() {
    let directory = LogDirectory::new(10, 0);
    directory
        .open()
        .write_or_drop(b"line 1\nline 2\nline 3\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.names(), ["log"]);
    assert_eq!(directory.text("log"), "line 3\n");
}

#[test]
fn what_lies_in_the_way_of_the_rotation_costs_counted_lines_until_it_is_gone() {
    let directory = LogDirectory::new(10, 1);
    let mut output = directory.open();
    output
        .write_or_drop(b"line 1\n", &directory.counters)
        .unwrap();
    fs::create_dir_all(directory.at("log.1/full")).unwrap();
    for _ in 0..3 {
        output
            .write_or_drop(b"line 2\nline 3\n", &directory.counters)
            .unwrap_err();
    }
    assert_eq!(counts(&directory.counters), (1, 6));
    fs::remove_dir_all(directory.at("log.1")).unwrap();
    output
        .write_or_drop(b"line 4\n", &directory.counters)
        .unwrap();
    assert_eq!(counts(&directory.counters), (2, 6));
    assert_eq!(
        (directory.text("log"), directory.text("log.1")),
        ("line 4\n".into(), "line 1\n".into())
    );
}

#[test]
fn a_file_that_cannot_be_opened_costs_counted_lines_until_it_can() {
    let directory = LogDirectory::new(1_000, 1);
    let mut output = directory.open();
    output
        .write_or_drop(b"line 1\n", &directory.counters)
        .unwrap();
    fs::remove_file(directory.at("log")).unwrap();
    fs::create_dir(directory.at("log")).unwrap();
    output
        .write_or_drop(b"line 2\n", &directory.counters)
        .unwrap_err();
    output
        .write_or_drop(b"line 3\n", &directory.counters)
        .unwrap_err();
    fs::remove_dir(directory.at("log")).unwrap();
    output
        .write_or_drop(b"line 4\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.text("log"), "line 4\n");
    assert_eq!(counts(&directory.counters), (2, 2));
    // A pipe in its place that has no reader does not block it either.
    fs::remove_file(directory.at("log")).unwrap();
    nix::unistd::mkfifo(&directory.at("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    output
        .write_or_drop(b"line 5\n", &directory.counters)
        .unwrap_err();
    assert_eq!(counts(&directory.counters), (2, 3));
}

#[test]
fn a_file_that_others_move_or_empty_is_written_where_it_should_be() {
    let mut directory = LogDirectory::new(1_000, 1);
    directory.settings.format = LogFormat::AwsVpcFlow;
    let mut output = directory.open();
    let header = Formatter::new(&directory.settings).header().bytes();
    let header = String::from_utf8(header).unwrap();
    assert!(header.starts_with("version account-id interface-id srcaddr "));
    output
        .write_or_drop(b"line 1\n", &directory.counters)
        .unwrap();
    fs::rename(directory.at("log"), directory.at("moved")).unwrap();
    output
        .write_or_drop(b"line 2\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.text("moved"), format!("{header}line 1\n"));
    assert_eq!(directory.text("log"), format!("{header}line 2\n"));
    File::create(directory.at("log")).unwrap();
    output
        .write_or_drop(b"line 3\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.text("log"), format!("{header}line 3\n"));
    assert_eq!(counts(&directory.counters), (3, 0));
}

#[test]
fn fewer_old_files_than_before_are_kept_if_the_setting_says_so() {
    let directory = LogDirectory::new(10, 2);
    for number in 1..=4 {
        fs::write(directory.at(&format!("log.{number}")), "old\n").unwrap();
    }
    let mut output = directory.open();
    output
        .write_or_drop(b"line 1\nline 2\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.names(), ["log", "log.1", "log.2"]);
}

#[test]
fn a_line_that_an_earlier_run_has_left_torn_ends_before_the_next() {
    let directory = LogDirectory::new(1_000, 2);
    fs::write(directory.at("log"), "{whole}\n{to").unwrap();
    directory
        .open()
        .write_or_drop(b"line\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.text("log"), "{whole}\n{to\nline\n");
}

#[test]
fn a_file_of_another_format_or_of_other_fields_is_rotated_at_the_start() {
    let mut directory = LogDirectory::new(10_000, 9);
    let version = LogSettings::default().fields;
    let other = "${srcaddr} ${dstaddr}".to_owned();
    let mut begun = Vec::new();
    for (format, fields) in [
        (LogFormat::Json, &version),
        (LogFormat::AwsVpcFlow, &version),
        (LogFormat::AwsVpcFlow, &other),
        (LogFormat::Zeek, &version),
        (LogFormat::Eve, &version),
    ] {
        directory.settings.format = format;
        directory.settings.fields.clone_from(fields);
        // The second opening goes on with the file of the first.
        for line in ["{1}\n", "{2}\n"] {
            let mut output = directory.open();
            output
                .write_or_drop(line.as_bytes(), &directory.counters)
                .unwrap();
        }
        let text = directory.text("log");
        assert!(text.ends_with("{1}\n{2}\n"), "{text}");
        begun.push(text);
        assert_eq!(directory.names().len(), begun.len());
    }
    for (number, text) in (1..).zip(begun.iter().rev().skip(1)) {
        assert_eq!(&directory.text(&format!("log.{number}")), text);
    }
}

#[test]
fn a_header_of_zeek_of_another_time_is_one_of_the_format() {
    let ours = String::from_utf8(Header::Zeek.bytes()).unwrap();
    let opened = ours.lines().find(|line| line.starts_with("#open")).unwrap();
    let earlier = ours.replace(opened, "#open\t2001-01-01-00-00-00");
    assert!(Header::Zeek.begins(earlier.as_bytes()));
    let other = ours.replace("#path\tconn", "#path\tdnsx");
    assert!(!Header::Zeek.begins(other.as_bytes()));
    let (torn, _) = ours.split_at(ours.len() - 1);
    assert!(!Header::Zeek.begins(torn.as_bytes()));
}

/// A pipe that does not wait, and holds one page.
fn pipe() -> (File, File) {
    let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_NONBLOCK).unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4_096)).unwrap();
    (File::from(reader), File::from(writer))
}

fn drain(reader: &mut File) -> String {
    let mut text = Vec::new();
    match reader.read_to_end(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        result => drop(result.unwrap()),
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn of_a_write_that_fails_halfway_only_what_is_not_whole_is_lost() {
    let counters = LogCounters::default();
    let (mut reader, writer) = pipe();
    let mut output = Output::straight(writer, Header::Nothing).unwrap();
    // 1,000 bytes a line: four are whole, and 96 bytes of the fifth fit.
    let line = format!("{}\n", "x".repeat(999));
    output
        .write_or_drop(line.repeat(8).as_bytes(), &counters)
        .unwrap_err();
    assert_eq!(counts(&counters), (4, 3), "the fifth is begun");
    assert_eq!(drain(&mut reader).len(), 4_096);
    output.write_or_drop(b"next\n", &counters).unwrap();
    assert_eq!(counts(&counters), (6, 3));
    assert_eq!(drain(&mut reader), format!("{}next\n", &line[96..]));
    output
        .write_or_drop(line.repeat(5).as_bytes(), &counters)
        .unwrap_err();
    assert_eq!(counts(&counters), (10, 3));
    output.give_up(&counters);
    assert_eq!(counts(&counters), (10, 4), "every line is one or the other");
}

#[test]
fn a_link_is_written_to_and_not_rotated() {
    let directory = LogDirectory::new(10, 2);
    fs::write(directory.at("there"), "").unwrap();
    std::os::unix::fs::symlink(directory.at("there"), directory.at("log")).unwrap();
    directory
        .open()
        .write_or_drop(b"line 1\nline 2\nline 3\n", &directory.counters)
        .unwrap();
    assert_eq!(directory.names(), ["log", "there"]);
    assert_eq!(directory.text("there"), "line 1\nline 2\nline 3\n");
}

#[test]
fn a_pipe_is_written_to_and_not_rotated_and_its_reader_may_come_later() {
    let directory = LogDirectory::new(10, 2);
    nix::unistd::mkfifo(&directory.at("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut output = directory.open();
    let reading = {
        let path = directory.at("log");
        thread::spawn(move || {
            let mut bytes = [0; 21];
            File::open(path)
                .unwrap()
                .read_exact(&mut bytes)
                .map(|()| bytes)
        })
    };
    output
        .write_or_drop(b"line 1\nline 2\nline 3\n", &directory.counters)
        .unwrap();
    assert_eq!(
        &reading.join().unwrap().unwrap(),
        b"line 1\nline 2\nline 3\n"
    );
    assert_eq!(directory.names(), ["log"]);
}

fn batch(items: &[&[u8]]) -> Batch {
    let mut batch = Batch::default();
    for item in items {
        batch.put(item, b"");
    }
    batch
}

/// Opens an output at an address of this host.
fn open_at(scheme: &str, address: std::net::SocketAddr) -> Destination {
    let output = format!("{scheme}://{address}");
    let settings = LogSettings {
        output: LogOutput::from_text(&output).unwrap(),
        host: Some("fw-1".to_owned()),
        ..LogSettings::default()
    };
    super::open(&settings).unwrap()
}

#[test]
fn lines_for_a_receiver_that_is_not_there_are_lost_and_counted_until_it_comes() {
    let counters = LogCounters::default();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut output = open_at("syslog+tcp", address);
    output.write_or_drop(&Batch::default(), &counters).unwrap();
    output.probe(&counters).unwrap_err();
    output
        .write_or_drop(&batch(&[b"one", b"two"]), &counters)
        .unwrap_err();
    assert_eq!(counts(&counters), (0, 2));
    let listener = TcpListener::bind(address).unwrap();
    let mut lost = 2;
    while output.write_or_drop(&batch(&[b"{}"]), &counters).is_err() {
        lost += 1;
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(counts(&counters), (1, lost));
    let (mut connection, _) = listener.accept().unwrap();
    drop(output);
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let (length, message) = text.split_once(' ').unwrap();
    assert_eq!(length.parse(), Ok(message.len()));
    assert!(message.starts_with("<134>1 ") && message.contains("Z fw-1 portcullis "));
    assert!(message.ends_with(" session - {}"), "{message}");
}

#[test]
fn messages_of_ipfix_are_bounded_and_number_their_records() {
    let counters = LogCounters::default();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut output = open_at("ipfix", receiver.local_addr().unwrap());
    let records: Vec<Vec<u8>> = (0..100_u8)
        .map(|number| [&[1, number / 50][..], &[number; 63]].concat())
        .collect();
    let items: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    output.write_or_drop(&batch(&items), &counters).unwrap();
    output.write_or_drop(&batch(&items), &counters).unwrap();
    assert_eq!(counts(&counters), (200, 0));
    let mut numbers = Vec::new();
    let mut templates = 0;
    while numbers.len() < 200 {
        let mut message = [0; 2_048];
        let length = receiver.recv(&mut message).unwrap();
        let message = &message[..length];
        assert!(length <= 1_400);
        assert_eq!(message[..4], [0, 10, (length >> 8) as u8, length as u8]);
        let sequence = u32::from_be_bytes(message[8..12].try_into().unwrap());
        assert_eq!(sequence as usize, numbers.len());
        let mut sets = &message[16..];
        while let [kind, template, high, low, ..] = *sets {
            let (set, rest) = sets.split_at(usize::from(u16::from_be_bytes([high, low])));
            match (kind, template) {
                (0, 2) => templates += 1,
                _ => numbers.extend(set[4..].chunks_exact(63).map(|record| record[0])),
            }
            sets = rest;
        }
    }
    assert_eq!(templates, 1, "once in a minute");
    let wanted: Vec<u8> = (0..100).chain(0..100).collect();
    assert_eq!(numbers, wanted);
}

#[test]
fn with_a_gate_lines_that_cannot_be_written_are_kept_and_close_it() {
    let counters = LogCounters::default();
    let (gate, stop) = (LogGate::default(), AtomicBool::new(true));
    let (mut reader, writer) = pipe();
    let output = Output::straight(writer, Header::Nothing).unwrap();
    let mut lines = Lines::new(Destination::File(output), &counters, &stop);
    lines.gate = Some(&gate);
    let line = "x".repeat(999);
    for _ in 0..8 {
        lines.put(line.as_bytes());
    }
    lines.flush();
    assert!(gate.has(LogFault::WriterFails) && lines.are_stuck());
    assert_eq!(counts(&counters), (4, 0));
    assert_eq!(lines.batch.len(), 3, "one is begun");
    lines.flush();
    assert_eq!(drain(&mut reader).len(), 4_096);
    lines.flush();
    assert!(!gate.is_closed() && !lines.are_stuck());
    assert_eq!(counts(&counters), (8, 0));
    assert_eq!(drain(&mut reader).len(), 8_000 - 4_096);
    // What is left at the end is counted as lost.
    for _ in 0..8 {
        lines.put(line.as_bytes());
    }
    lines.finish();
    assert_eq!(counts(&counters), (12, 4));
}
