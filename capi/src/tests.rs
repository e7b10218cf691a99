//! Tests of the interface as C sees it: the header, structs of other versions, and allocations.

use std::ffi::{CStr, c_void};
use std::path::Path;
use std::ptr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::ConfigIn;
use crate::decide::{portcullis_engine_process, portcullis_engine_process_batch};
use crate::engine::{EngineHandle, portcullis_engine_free, portcullis_engine_new};
use crate::event::EventOut;
use crate::manage::{ReloadOut, portcullis_engine_reload, portcullis_engine_zone};
use crate::names::{portcullis_reason_count, portcullis_reason_find, portcullis_reason_name};
use crate::outbox::{portcullis_outbox_drain, portcullis_outbox_free, portcullis_outbox_new};
use crate::packet::{PACKET_OFFLOADED, PacketIn, VerdictKind, VerdictOut};
use crate::raw::{self, Array, Sized32};
use crate::saved::portcullis_engine_save;
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

/// `Later` in the first version.
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

/// `Later` in a version that comes after it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Longer {
    size: u32,
    number: u32,
    added: u64,
    unknown: u64,
}

#[test]
fn a_longer_struct_is_read_if_what_is_unknown_is_zero() {
    let one = Longer {
        size: 24,
        number: 7,
        added: 5,
        unknown: 0,
    };
    let mut memory = [one; 3];
    memory[2].unknown = 1 << 63;
    let place = (&raw mut memory).cast::<Later>();
    // SAFETY: three structs of the size that they state, in writable memory.
    let array = unsafe { Array::new(place.cast_const(), 3, 3) }.unwrap();
    for number in 0..2 {
        let read = array.read(number).unwrap();
        assert_eq!((read.size, read.number, read.added), (24, 7, 5));
    }
    assert_eq!(array.read(2).err(), Some(Status::Invalid));
    let value = Later {
        size: 16,
        number: 9,
        added: 8,
    };
    // SAFETY: as above.
    assert_eq!(unsafe { array.write(2, &value) }, Ok(()));
    assert_eq!((memory[2].size, memory[2].number), (24, 9));
    assert_eq!((memory[2].added, memory[2].unknown), (8, 1 << 63));
    // No version has so long a struct: nothing of it is read.
    memory[0].size = 4104;
    let place = (&raw const memory).cast::<Later>();
    // SAFETY: the size is readable.
    assert!(unsafe { raw::read(place) }.is_err());
    let misaligned = place.cast::<u8>().wrapping_add(4).cast::<Later>();
    // SAFETY: a misaligned pointer is not followed.
    let read = unsafe { raw::read(misaligned) };
    assert_eq!(read.err(), Some(Status::Invalid));
}

fn config_of(text: &str) -> ConfigIn {
    ConfigIn {
        size: size_of::<ConfigIn>() as u32,
        reserved: 0,
        text: text.as_ptr().cast(),
        length: text.len(),
        name: ptr::null(),
        path: ptr::null(),
        wall_ns: 0,
    }
}

/// Returns an engine to be released.
fn engine_of(text: &str) -> *mut EngineHandle {
    let config = config_of(text);
    let mut engine = ptr::null_mut();
    let mut message = [0; 200];
    let to = message.as_mut_ptr();
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_engine_new(&raw const config, 0, &raw mut engine, to, 200) };
    // SAFETY: the library ends the message with a NUL.
    let said = unsafe { CStr::from_ptr(message.as_ptr()) };
    assert_eq!(status, Status::Ok, "{said:?}");
    engine
}

const ZONES: &str = "[zones]\nblue = 7\n";

/// A save during which another thread reloads.
struct Saving {
    engine: &'static EngineHandle,
    reload: Option<JoinHandle<Status>>,
    zone: u16,
}

fn reload(engine: &EngineHandle) -> Status {
    let (config, mut result) = (config_of(ZONES), ReloadOut::new(""));
    let mut outbox = ptr::null_mut();
    // SAFETY: valid pointers.
    let created = unsafe { portcullis_outbox_new(engine, &raw mut outbox) };
    assert_eq!(created, Status::Ok);
    let (from, to) = (&raw const config, &raw mut result);
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_engine_reload(engine, outbox, from, 1, to) };
    // SAFETY: it was not released.
    let freed = unsafe { portcullis_outbox_free(outbox) };
    assert_eq!(freed, Status::Ok);
    status
}

/// Looks a zone up while a reload waits until this save ends.
unsafe extern "C" fn look_up(context: *mut c_void, _: *const u8, _: usize) -> i32 {
    // SAFETY: the test below passes a pointer to this struct.
    let saving = unsafe { &mut *context.cast::<Saving>() };
    let engine = saving.engine;
    if saving.reload.is_none() {
        saving.reload = Some(thread::spawn(move || reload(engine)));
        let (_, in_force) = engine.shared.engine_and_config().unwrap();
        while !in_force.is_locked() {
            thread::yield_now();
        }
    }
    let zone = &raw mut saving.zone;
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_engine_zone(engine, c"blue".as_ptr(), zone) };
    (status != Status::Ok).into()
}

#[test]
fn a_zone_is_found_during_a_save_that_a_reload_waits_for() {
    let created = engine_of(ZONES);
    // SAFETY: it is released at the end of the test.
    let engine: &'static EngineHandle = unsafe { &*created };
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut saving = Saving {
            engine,
            reload: None,
            zone: 0,
        };
        let context = (&raw mut saving).cast();
        let count = ptr::null_mut();
        // SAFETY: a function and its context.
        let saved = unsafe { portcullis_engine_save(engine, 1, 1, Some(look_up), context, count) };
        let reloaded = saving.reload.map(|thread| thread.join().unwrap());
        send.send((saved, reloaded, saving.zone)).unwrap();
    });
    // The bound only ends a test that would wait forever.
    let done = receive.recv_timeout(Duration::from_secs(120));
    assert_eq!(done, Ok((Status::Ok, Some(Status::Ok), 7)));
    // SAFETY: no call uses it any more.
    unsafe { portcullis_engine_free(created) };
}

#[test]
fn after_a_panic_every_call_fails_but_the_release() {
    let engine = engine_of(ZONES);
    let mut outbox = ptr::null_mut();
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_outbox_new(engine, &raw mut outbox) };
    assert_eq!(status, Status::Ok);
    // SAFETY: it is released at the end of the test.
    let shared = unsafe { &(*engine).shared };
    let broken = shared.guard(|| panic!("a test panics on purpose"));
    assert_eq!(broken, Status::Panic);
    let mut another = ptr::NonNull::dangling().as_ptr();
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_outbox_new(engine, &raw mut another) };
    assert_eq!((status, another), (Status::Panic, ptr::null_mut()));
    let (bytes, mut verdict) = (datagram(1), blank());
    let (packet, to) = (packet_in(&bytes, 1), &raw mut verdict);
    // SAFETY: valid pointers.
    let status = unsafe { portcullis_engine_process(engine, outbox, &raw const packet, to) };
    assert_eq!(status, Status::Panic);
    let mut events = 0_u64;
    let context = (&raw mut events).cast();
    // SAFETY: a function and its context.
    let status = unsafe { portcullis_outbox_drain(outbox, Some(count), context) };
    assert_eq!((status, events), (Status::Panic, 0));
    let mut sessions = 7;
    let to = &raw mut sessions;
    // SAFETY: valid pointers, or NULL.
    let status = unsafe { portcullis_engine_save(engine, 1, 1, None, ptr::null_mut(), to) };
    assert_eq!((status, sessions), (Status::Panic, 0));
    // SAFETY: it was not released.
    unsafe { portcullis_engine_free(engine) };
    // SAFETY: it was not released.
    let freed = unsafe { portcullis_outbox_free(outbox) };
    assert_eq!(freed, Status::Ok);
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
    let engine = engine_of("table.max_sessions = 4096\n[policy]\ndefault = \"allow\"\n");
    let mut outbox = ptr::null_mut();
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
