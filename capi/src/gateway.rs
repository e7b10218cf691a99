//! Gateways of C: an engine and the GENEVE front end as one, without I/O.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use portcullis::geneve::front::{Datagram, Outgoing, Queued, Waited};
use portcullis::{Gateway, GatewayWorker, Outbox};

use crate::config::{self, ConfigIn};
use crate::engine::EngineHandle;
use crate::event::{EventFn, pass_all};
use crate::filter::{self, FilterIn};
use crate::guard::guard;
use crate::manage::{ReloadOut, report};
use crate::names::one_of;
use crate::packet::MAX_BATCH;
use crate::raw::{self, Array, Sized32};
use crate::shared::{Kind, Shared};
use crate::status::{Outcome, Status};

/// The greatest number of bytes of a datagram's payload.
pub const MAX_DATAGRAM: usize = 65_535;

/// An engine behind a load balancer that uses GENEVE. Threads share it, each with a worker.
#[derive(Debug)]
pub struct GatewayHandle {
    engine: EngineHandle,
}

/// The state of one thread of a gateway. One thread at a time uses it.
#[derive(Debug)]
pub struct WorkerHandle {
    shared: Arc<Shared>,
    worker: Mutex<GatewayWorker>,
}

/// A UDP datagram to the GENEVE port, as received.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct DatagramIn {
    /// `sizeof(portcullis_datagram)`.
    pub size: u32,
    /// The waiting time before this call: 0 not long; 1 long, so that it may open no session; 2 too
    /// long, so that it is refused unread.
    pub waited: u32,
    /// The UDP payload: a GENEVE header and the inner packet.
    pub payload: *const u8,
    /// The number of bytes of the payload.
    pub length: usize,
    /// The outer source address, in the order of the network.
    pub source: [u8; 4],
    /// The outer destination address, in the order of the network.
    pub destination: [u8; 4],
    /// The UDP source port.
    pub source_port: u16,
    /// The UDP destination port.
    pub destination_port: u16,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, with `size` first; every field is a number or a pointer.
unsafe impl Sized32 for DatagramIn {
    const LEAST: usize = 24 + 2 * size_of::<usize>();
}
const _: () = assert!(size_of::<DatagramIn>() == DatagramIn::LEAST);
const _: () = assert!(size_of::<OutgoingOut>() == 16 + 2 * size_of::<usize>());

/// A UDP datagram to send.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct OutgoingOut {
    /// `sizeof(portcullis_outgoing)` of the library.
    pub size: u32,
    /// The UDP source port: that of the load balancer.
    pub source_port: u16,
    /// The UDP destination port.
    pub destination_port: u16,
    /// The UDP payload, valid during the callback. For a packet that is forwarded unchanged, these
    /// are the bytes of the received datagram.
    pub payload: *const u8,
    /// The number of bytes of the payload.
    pub length: usize,
    /// The source address, which is the local one, in the order of the network.
    pub source: [u8; 4],
    /// The destination address, which is the load balancer's, in the order of the network.
    pub destination: [u8; 4],
}

/// Receives a datagram to send. `context` is the caller's. The function returns normally: it
/// neither throws nor jumps.
pub type SendFn = Option<unsafe extern "C" fn(context: *mut c_void, datagram: *const OutgoingOut)>;

impl OutgoingOut {
    fn new(out: &Outgoing<'_>) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            source_port: out.tunnel.source_port,
            destination_port: out.tunnel.destination_port,
            payload: out.payload.as_ptr(),
            length: out.payload.len(),
            source: out.tunnel.source.octets(),
            destination: out.tunnel.destination.octets(),
        }
    }
}

impl DatagramIn {
    /// Returns the datagram for the gateway.
    ///
    /// # Safety
    /// The payload is readable, and nobody changes it during `'a`.
    unsafe fn queued<'a>(&self) -> Outcome<Queued<'a>> {
        if self.reserved != 0 {
            return Err(Status::Invalid);
        }
        let waits = [Waited::Briefly, Waited::Long, Waited::TooLong];
        // SAFETY: the promise of the caller.
        let payload = unsafe { raw::bytes(self.payload, self.length, MAX_DATAGRAM) }?;
        Ok(Queued {
            waited: one_of(&waits, self.waited)?,
            datagram: Datagram {
                source: self.source.into(),
                source_port: self.source_port,
                destination: self.destination.into(),
                destination_port: self.destination_port,
                payload,
            },
        })
    }
}

/// A caller's function that sends datagrams.
struct Sender {
    send: unsafe extern "C" fn(*mut c_void, *const OutgoingOut),
    context: *mut c_void,
}

impl Sender {
    fn send(&self, out: &Outgoing<'_>) {
        let out = OutgoingOut::new(out);
        // SAFETY: `with_worker` was promised a function for this context; the datagram lives during
        // the call.
        unsafe { (self.send)(self.context, &raw const out) };
    }
}

/// State that a call with a worker uses.
struct Work<'a> {
    gateway: &'a Gateway,
    worker: &'a mut GatewayWorker,
    shared: &'a Shared,
}

impl Work<'_> {
    fn instant(&self, now_ns: u64) -> Instant {
        self.shared.clock.instant(now_ns)
    }
}

/// Makes a call with a worker.
///
/// # Safety
/// A pointer that is not NULL is a worker that is not released during the call.
unsafe fn with_worker(
    worker: *const WorkerHandle,
    call: impl FnOnce(Work<'_>) -> Outcome,
) -> Status {
    // SAFETY: the promise of the caller.
    let handle = match unsafe { raw::object(worker) } {
        Ok(handle) => handle,
        Err(status) => return status,
    };
    handle.shared.guard(|| {
        call(Work {
            gateway: handle.shared.gateway()?,
            worker: &mut *handle.worker.try_lock().ok_or(Status::Busy)?,
            shared: &handle.shared,
        })
    })
}

/// Makes a call with a worker and a function that sends.
///
/// # Safety
/// As for [`with_worker`]; `send` is NULL or may be called with `context` and returns normally.
unsafe fn with_sender(
    worker: *const WorkerHandle,
    send: SendFn,
    context: *mut c_void,
    call: impl FnOnce(Work<'_>, &Sender) -> Outcome,
) -> Status {
    let call = |work: Work<'_>| {
        let send = send.ok_or(Status::Null)?;
        call(work, &Sender { send, context })
    };
    // SAFETY: the promise of the caller.
    unsafe { with_worker(worker, call) }
}

/// Creates a gateway. Parameters and result are as for `portcullis_engine_new`. The gateway keeps
/// references to tunnels, as if `engine.tunnel_references` were set.
///
/// Any thread may call this at any time.
///
/// # Safety
/// Pointers are NULL or valid; `config` is as its fields say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_gateway_new(
    config: *const ConfigIn,
    now_ns: u64,
    gateway: *mut *mut GatewayHandle,
    message: *mut c_char,
    message_size: usize,
) -> Status {
    let build = |config| {
        let kind = Kind::Gateway(Box::new(Gateway::new(&config)?));
        let shared = Shared::new(kind, now_ns);
        Ok(GatewayHandle {
            engine: EngineHandle { shared },
        })
    };
    // SAFETY: the promise of the caller.
    guard(|| unsafe { config::create(config, gateway, message, message_size, build) })
}

/// Returns the engine of a gateway, for its sessions and counters, to save and to restore; NULL for
/// NULL. The engine is a part of the gateway: it is not released.
///
/// Calls that would decide packets, end sessions or reload return `PORTCULLIS_STATUS_INVALID`: the
/// workers do that, since they send what follows. Any threads may call this at once.
///
/// # Safety
/// `gateway` is NULL or a gateway that was not released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_gateway_engine(
    gateway: *const GatewayHandle,
) -> *const EngineHandle {
    // SAFETY: the promise of the caller.
    match unsafe { raw::object(gateway) } {
        Ok(gateway) => &raw const gateway.engine,
        Err(_) => std::ptr::null(),
    }
}

/// Releases a gateway. NULL is ignored.
///
/// Its workers stay valid and are released on their own, before or after; its engine does not. No
/// other thread may be in a call with `gateway` or its engine, and no callback of such a call may
/// release it.
///
/// # Safety
/// `gateway` is NULL or a gateway of `portcullis_gateway_new` that was not released before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_gateway_free(gateway: *mut GatewayHandle) {
    guard(|| {
        // SAFETY: the promise of the caller.
        unsafe { raw::release(gateway) };
        Ok(())
    });
}

/// Creates a worker, which keeps up to `event_limit` events until they are read; 0 is 1024.
///
/// On success, `*worker` is the worker, which `portcullis_worker_free` releases; otherwise it is
/// NULL. Any threads may call this at once.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_new(
    gateway: *const GatewayHandle,
    event_limit: usize,
    worker: *mut *mut WorkerHandle,
) -> Status {
    // Before anything else, so that the worker is NULL whatever fails.
    // SAFETY: the promise of the caller.
    if let Err(status) = unsafe { raw::put(worker, std::ptr::null_mut()) } {
        return status;
    }
    // SAFETY: the promise of the caller.
    let shared = match unsafe { raw::object(gateway) } {
        Ok(gateway) => &gateway.engine.shared,
        Err(status) => return status,
    };
    shared.guard(|| {
        let limit = match event_limit {
            0 => Outbox::DEFAULT_LIMIT,
            limit => limit,
        };
        let created = WorkerHandle {
            worker: Mutex::new(shared.gateway()?.worker_with_event_limit(limit)),
            shared: Arc::clone(shared),
        };
        // SAFETY: the promise of the caller.
        unsafe { raw::put(worker, raw::hand_out(created)) }
    })
}

/// Decides up to `PORTCULLIS_MAX_BATCH` datagrams that came at `now_ns`, in order, and passes
/// everything that is to be sent to `send`: forwarded datagrams, replies, RSTs, and fragments that
/// were held.
///
/// All datagrams are checked first: if one of them is invalid, nothing is decided. No lock of the
/// engine is held during `send`, in which a call with this worker returns
/// `PORTCULLIS_STATUS_BUSY`. One thread at a time uses a worker.
///
/// # Safety
/// Pointers are NULL or valid; `datagrams` has `count` structs, the payload of each is readable,
/// and `send` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_handle(
    worker: *const WorkerHandle,
    datagrams: *const DatagramIn,
    count: usize,
    now_ns: u64,
    send: SendFn,
    context: *mut c_void,
) -> Status {
    let handle = |work: Work<'_>, sender: &Sender| {
        // SAFETY: the promise of the caller.
        let datagrams = unsafe { Array::new(datagrams, count, MAX_BATCH) }?;
        // SAFETY: the promise of the caller.
        let queued = |number| unsafe { datagrams.read(number)?.queued() };
        for number in 0..count {
            queued(number)?;
        }
        let now = work.instant(now_ns);
        let all = (0..count).filter_map(|number| queued(number).ok());
        work.gateway
            .handle_batch(work.worker, all, now, |out| sender.send(&out));
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_sender(worker, send, context, handle) }
}

/// Lets time pass: ends sessions whose lifetime is over, a few hundred at a time, and decides
/// fragments that were held for long enough. Everything to send is passed to `send`.
///
/// `*next_ns` is the time of the next call, if no datagram comes before: `now_ns` if there is more
/// to do, and `UINT64_MAX` if there is nothing to wait for. It may be NULL. Call this after each
/// batch as well. One thread at a time uses a worker.
///
/// # Safety
/// Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_poll(
    worker: *const WorkerHandle,
    now_ns: u64,
    send: SendFn,
    context: *mut c_void,
    next_ns: *mut u64,
) -> Status {
    let poll = |work: Work<'_>, sender: &Sender| {
        raw::check_if_asked(next_ns)?;
        let now = work.instant(now_ns);
        let next = work.gateway.poll(work.worker, now, |out| sender.send(&out));
        let next = next.map_or(u64::MAX, |next| work.shared.clock.nanos(next));
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(next_ns, next) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_sender(worker, send, context, poll) }
}

/// Decides everything that is held at once, before a thread ends.
///
/// One thread at a time uses a worker.
///
/// # Safety
/// Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_release_held(
    worker: *const WorkerHandle,
    now_ns: u64,
    send: SendFn,
    context: *mut c_void,
) -> Status {
    let release = |work: Work<'_>, sender: &Sender| {
        let now = work.instant(now_ns);
        work.gateway
            .release_held(work.worker, now, |out| sender.send(&out));
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_sender(worker, send, context, release) }
}

/// Replaces the configuration of a gateway, or changes nothing, as `portcullis_engine_reload` does.
/// RSTs of sessions that end are passed to `send`, and their records are events of the worker, as
/// far as its limit goes.
///
/// One thread at a time uses a worker; others may decide datagrams meanwhile.
///
/// # Safety
/// Pointers are NULL or valid; `config` is as its fields say, and `send` is NULL or a function that
/// returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_reload(
    worker: *const WorkerHandle,
    config: *const ConfigIn,
    now_ns: u64,
    send: SendFn,
    context: *mut c_void,
    reload: *mut ReloadOut,
) -> Status {
    let change = |work: Work<'_>, sender: &Sender| {
        // Before the change: a struct that is too short gets no result.
        // SAFETY: the promise of the caller.
        unsafe { report(Ok(ReloadOut::new("")), reload) }?;
        let now = work.instant(now_ns);
        // SAFETY: the promise of the caller.
        let result = unsafe { config::load(config) }.and_then(|config| {
            let send = |out: Outgoing<'_>| sender.send(&out);
            let done = work.gateway.reload(work.worker, &config, now, send)?;
            Ok(ReloadOut::done(&done.sessions, &done.needs_restart))
        });
        // SAFETY: the promise of the caller.
        unsafe { report(result, reload) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_sender(worker, send, context, change) }
}

/// Ends the sessions of a gateway that match `filter`. RSTs are passed to `send`, and the records
/// are events of the worker, as far as its limit goes. `*ended` is the number of sessions; it may
/// be NULL.
///
/// One thread at a time uses a worker; others may decide datagrams meanwhile.
///
/// # Safety
/// Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_end_sessions(
    worker: *const WorkerHandle,
    filter: *const FilterIn,
    now_ns: u64,
    send: SendFn,
    context: *mut c_void,
    ended: *mut u64,
) -> Status {
    let end = |work: Work<'_>, sender: &Sender| {
        // SAFETY: the promise of the caller.
        let filter = unsafe { filter::read(filter) }?;
        raw::check_if_asked(ended)?;
        let (now, send) = (work.instant(now_ns), |out: Outgoing<'_>| sender.send(&out));
        let count = work.gateway.end_sessions(work.worker, &filter, now, send);
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(ended, count as u64) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_sender(worker, send, context, end) }
}

/// Removes all events of a worker and passes them to `each`, oldest first. None of them is a packet
/// to send.
///
/// No lock of the engine is held during `each`, in which a call with this worker returns
/// `PORTCULLIS_STATUS_BUSY`. One thread at a time uses a worker.
///
/// # Safety
/// Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_events(
    worker: *const WorkerHandle,
    each: EventFn,
    context: *mut c_void,
) -> Status {
    let read = |work: Work<'_>| {
        // Before the drain, which discards what it does not pass.
        let each = each.ok_or(Status::Null)?;
        let clock = &work.shared.clock;
        // SAFETY: the promise of the caller.
        unsafe { pass_all(work.worker.events(), clock, each, context) };
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_worker(worker, read) }
}

/// Reads the number of events that a worker did not keep since it was created.
///
/// One thread at a time uses a worker.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_lost(
    worker: *const WorkerHandle,
    events: *mut u64,
) -> Status {
    // SAFETY: the promise of the caller.
    let read = |work: Work<'_>| unsafe { raw::put(events, work.worker.lost().events) };
    // SAFETY: the promise of the caller.
    unsafe { with_worker(worker, read) }
}

/// Releases a worker with all its events. NULL is ignored.
///
/// Returns `PORTCULLIS_STATUS_BUSY`, and releases nothing, in a callback of this worker.
///
/// # Safety
/// `worker` is NULL or a worker that was not released before, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_worker_free(worker: *mut WorkerHandle) -> Status {
    // SAFETY: the promise of the caller.
    guard(|| unsafe { raw::release_unless(worker, |each| each.worker.is_locked()) })
}
