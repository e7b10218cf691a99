//! Tests of the interface as C sees it: the header, structs of other versions, and allocations.

use std::ffi::{CStr, c_void};
use std::path::Path;
use std::ptr;

use crate::config::ConfigIn;
use crate::decide::{portcullis_engine_process, portcullis_engine_process_batch};
use crate::engine::{portcullis_engine_free, portcullis_engine_new};
use crate::event::EventOut;
use crate::names::{portcullis_reason_count, portcullis_reason_find, portcullis_reason_name};
use crate::outbox::{portcullis_outbox_drain, portcullis_outbox_free, portcullis_outbox_new};
use crate::packet::{PACKET_OFFLOADED, PacketIn, VerdictKind, VerdictOut};
use crate::raw::{self, Sized32};
use crate::status::Status;

/// The modules with exported items, in the order of the header.
const MODULES: [&str; 13] = [
    "status", "names", "config", "session", "packet", "filter", "event", "streams", "engine",
    "outbox", "decide", "manage", "counters",
];
/// The modules after these.
const LAST: [&str; 2] = ["saved", "gateway"];

fn header() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let builder = MODULES.iter().chain(&LAST).fold(
        cbindgen::Builder::new().with_config(config),
        |builder, module| builder.with_src(folder.join(format!("src/{module}.rs"))),
    );
    let mut written = Vec::new();
    builder.generate().unwrap().write(&mut written);
    String::from_utf8(written).unwrap()
}

#[test]
fn the_header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/portcullis.h");
    let header = header();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &header).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == header,
        "UPDATE=1 cargo test -p portcullis-capi header"
    );
    let exported = header.matches("portcullis_engine_process_batch(").count();
    assert_eq!(
        exported, 1,
        "a pattern that no longer matches exports nothing"
    );
    for line in header.lines() {
        assert!(line.len() <= 110, "{line}");
    }
}

#[test]
fn every_reason_has_a_name_that_finds_it() {
    for reason in 1..=portcullis_reason_count() {
        let name = portcullis_reason_name(reason);
        assert!(!name.is_null());
        // SAFETY: a name of the library ends with a NUL.
        assert_eq!(unsafe { portcullis_reason_find(name) }, reason);
    }
    assert!(portcullis_reason_name(0).is_null());
    assert!(portcullis_reason_name(portcullis_reason_count() + 1).is_null());
    // SAFETY: a text with a NUL at its end.
    assert_eq!(unsafe { portcullis_reason_find(c"none".as_ptr()) }, 0);
    // SAFETY: NULL is allowed.
    assert_eq!(unsafe { portcullis_reason_find(ptr::null()) }, 0);
}

/// A struct as a later version of the interface may have it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Later {
    size: u32,
    number: u32,
    added: u64,
}

/// That struct in the first version.
#[repr(C, align(8))]
struct First {
    size: u32,
    number: u32,
}

// SAFETY: `repr(C)`, with `size` first; every field is a number.
unsafe impl Sized32 for Later {
    const LEAST: usize = 8;
}

#[test]
fn a_shorter_struct_is_read_with_zeros_and_written_within_its_size() {
    let mut memory = [First { size: 8, number: 7 }, First { size: 1, number: 2 }];
    let place = (&raw mut memory).cast::<Later>();
    // SAFETY: the first struct has the size that it states.
    let read = unsafe { raw::read(place.cast_const()) }.unwrap();
    assert_eq!((read.size, read.number, read.added), (8, 7, 0));
    let value = Later {
        size: 16,
        number: 9,
        added: u64::MAX,
    };
    // SAFETY: as above.
    assert_eq!(unsafe { raw::write(place, &value) }, Ok(()));
    assert_eq!((memory[0].size, memory[0].number), (8, 9));
    assert_eq!((memory[1].size, memory[1].number), (1, 2));
    for size in [0, 4, 7, 12] {
        memory[0].size = size;
        let place = (&raw const memory).cast::<Later>();
        // SAFETY: the struct has at least 16 bytes.
        assert!(unsafe { raw::read(place) }.is_err(), "{size}");
    }
}

/// An IPv4 UDP packet between two hosts; its checksums are not set.
fn datagram(source_port: u16) -> [u8; 32] {
    let mut packet = [0; 32];
    packet[..20].copy_from_slice(&[
        0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1,
    ]);
    packet[20..22].copy_from_slice(&source_port.to_be_bytes());
    packet[22..28].copy_from_slice(&[0, 53, 0, 12, 0, 0]);
    packet
}

fn packet_in(bytes: &[u8], now_ns: u64) -> PacketIn {
    PacketIn {
        size: size_of::<PacketIn>() as u32,
        flags: PACKET_OFFLOADED,
        bytes: bytes.as_ptr(),
        length: bytes.len(),
        now_ns,
        tunnel: 0,
        flow_bits: 0,
        zone: 0,
        reserved: [0; 3],
    }
}

unsafe extern "C" fn count(context: *mut c_void, _: *const EventOut) {
    // SAFETY: the tests below pass a pointer to a number.
    unsafe { *context.cast::<u64>() += 1 };
}

/// Returns a verdict to be overwritten.
fn blank() -> VerdictOut {
    let engine = portcullis::Engine::new(&portcullis::Config::default()).unwrap();
    let nothing = portcullis::Packet::new(&[], std::time::Instant::now());
    VerdictOut::new(&engine.verdict_only(nothing))
}

#[test]
fn packets_and_batches_allocate_nothing() {
    let text = "table.max_sessions = 4096\n[policy]\ndefault = \"allow\"\n";
    let config = ConfigIn {
        size: size_of::<ConfigIn>() as u32,
        reserved: 0,
        text: text.as_ptr().cast(),
        length: text.len(),
        name: ptr::null(),
        path: ptr::null(),
        wall_ns: 0,
    };
    let (mut engine, mut outbox) = (ptr::null_mut(), ptr::null_mut());
    let mut message = [0; 200];
    let to = message.as_mut_ptr();
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_engine_new(&raw const config, 0, &raw mut engine, to, 200) };
    // SAFETY: the library ends the message with a NUL.
    let said = unsafe { CStr::from_ptr(message.as_ptr()) };
    assert_eq!(status, Status::Ok, "{said:?}");
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_outbox_new(engine, &raw mut outbox) };
    assert_eq!(status, Status::Ok);

    let bytes: Vec<_> = (1..=1000).map(datagram).collect();
    let packets: Vec<_> = bytes.iter().map(|bytes| packet_in(bytes, 1)).collect();
    let mut verdicts = vec![blank(); packets.len()];
    let mut events = 0_u64;
    let mut round = |single: bool| {
        let (from, to) = (packets.as_ptr(), verdicts.as_mut_ptr());
        let status = match single {
            // SAFETY: valid pointers.
            true => unsafe { portcullis_engine_process(engine, outbox, from, to) },
            // SAFETY: valid pointers, and as many packets as verdicts.
            false => unsafe {
                portcullis_engine_process_batch(engine, outbox, from, to, packets.len())
            },
        };
        let context = (&raw mut events).cast();
        // SAFETY: a function and its context.
        let drained = unsafe { portcullis_outbox_drain(outbox, Some(count), context) };
        assert_eq!((status, drained), (Status::Ok, Status::Ok));
        assert!(
            verdicts
                .iter()
                .all(|each| each.kind == VerdictKind::Forward)
        );
    };
    round(false);
    for single in [true, false] {
        let used = allocation_counter::measure(|| round(single));
        assert_eq!(used.count_total, 0, "single: {single}");
    }
    assert_eq!(events, 1000, "each session is reported once");
    // SAFETY: it was not released.
    unsafe { portcullis_engine_free(engine) };
    // SAFETY: it was not released.
    let freed = unsafe { portcullis_outbox_free(outbox) };
    assert_eq!(freed, Status::Ok);
}
