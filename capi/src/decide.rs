//! Decisions on packets, and the passage of time.

use std::ffi::c_void;
use std::io::Write;

use portcullis::Packet;

use crate::engine::EngineHandle;
use crate::outbox::{CHUNK, OutboxHandle, OutboxState, with_outbox};
use crate::packet::{MAX_BATCH, PacketIn, VerdictOut};
use crate::raw::{self, Array};
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use crate::streams::{Output, WriteFn};

/// Decides a packet.
///
/// Packets that the engine makes, and events, are in `outbox` afterwards: drain it after each
/// packet or batch. The call allocates nothing once the outbox has grown, except for control
/// sessions of FTP, for addresses of SCTP associations, and for new lines of the report of
/// asymmetric paths.
///
/// Any threads may call this at once, each with an outbox of its own.
///
/// # Safety
/// Pointers are NULL or valid; `packet->bytes` has `packet->length` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_process(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    packet: *const PacketIn,
    verdict: *mut VerdictOut,
) -> Status {
    let decide = |shared: &Shared, state: &mut OutboxState| {
        // Before the decision: a struct that is too short gets no verdict.
        // SAFETY: the promise of the caller.
        unsafe { raw::size_of_struct(verdict.cast_const()) }?;
        // SAFETY: the promise of the caller.
        let packet = unsafe { raw::read(packet) }?;
        // SAFETY: the promise of the caller.
        let packet = unsafe { packet.packet(&shared.clock) }?;
        let decided = shared.engine()?.process(&packet, &mut state.outbox);
        // SAFETY: the promise of the caller.
        unsafe { raw::write(verdict, &VerdictOut::new(&decided)) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, decide) }
}

/// Decides up to `PORTCULLIS_MAX_BATCH` packets, in order, with the verdicts of
/// `portcullis_engine_process`. This takes about half the time if there are many sessions.
///
/// All packets and verdicts are checked first: if one of them is invalid, nothing is decided. The
/// structs of an array have the `size` of its first one.
///
/// Any threads may call this at once, each with an outbox of its own.
///
/// # Safety
/// Pointers are NULL or valid; `packets` and `verdicts` have `count` structs each, and the bytes of
/// each packet are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_process_batch(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    packets: *const PacketIn,
    verdicts: *mut VerdictOut,
    count: usize,
) -> Status {
    let decide = |shared: &Shared, state: &mut OutboxState| {
        // SAFETY: the promise of the caller.
        let packets = unsafe { Array::new(packets, count, MAX_BATCH) }?;
        // SAFETY: the promise of the caller.
        let verdicts = unsafe { Array::new(verdicts.cast_const(), count, MAX_BATCH) }?;
        for number in 0..count {
            let packet = packets.read(number)?;
            // SAFETY: the promise of the caller.
            unsafe { packet.packet(&shared.clock) }?;
            verdicts.check(number)?;
        }
        let mut first = 0;
        while first < count {
            // SAFETY: the promise of the caller.
            first += unsafe { decide_some(shared, state, &packets, &verdicts, first) }?;
        }
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, decide) }
}

/// Decides packets of a batch from `first` on, and returns their number.
///
/// # Safety
/// The bytes of the packets are readable, and the verdicts writable.
unsafe fn decide_some(
    shared: &Shared,
    state: &mut OutboxState,
    packets: &Array<PacketIn>,
    verdicts: &Array<VerdictOut>,
    first: usize,
) -> Outcome<usize> {
    let mut some = [Packet::new(&[], shared.clock.instant(0)); CHUNK];
    let count = (packets.len() - first).min(CHUNK);
    for (place, packet) in some.iter_mut().enumerate().take(count) {
        let given = packets.read(first + place)?;
        // SAFETY: the promise of the caller.
        *packet = unsafe { given.packet(&shared.clock) }?;
    }
    let some = some.get(..count).unwrap_or_default();
    let OutboxState {
        outbox,
        verdicts: decided,
    } = state;
    shared.engine()?.process_batch(some, outbox, decided);
    for (place, verdict) in decided.iter().enumerate() {
        // SAFETY: the promise of the caller.
        unsafe { verdicts.write(first + place, &VerdictOut::new(verdict)) }?;
    }
    Ok(count)
}

/// Decides a packet as `portcullis_engine_process` does, with all effects, and passes the steps of
/// the decision to `write`, a line each. The reply to a rejected packet is not made.
///
/// `verdict` may be NULL. If `write` fails, the packet is decided nevertheless. The call
/// allocates; it is meant for single packets. No lock is held during `write`. Any threads may
/// call this at once, each with an outbox of its own.
///
/// # Safety
/// Pointers are NULL or valid; `packet->bytes` has `packet->length` readable bytes, and `write` is
/// NULL or a function that returns normally.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_explain(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    packet: *const PacketIn,
    write: WriteFn,
    context: *mut c_void,
    verdict: *mut VerdictOut,
) -> Status {
    let explain = |shared: &Shared, state: &mut OutboxState| {
        // SAFETY: the promise of the caller.
        let mut lines = unsafe { Output::new(write, context) }?;
        // SAFETY: the promise of the caller.
        let packet = unsafe { raw::read(packet) }?;
        // SAFETY: the promise of the caller.
        let packet = unsafe { packet.packet(&shared.clock) }?;
        if !verdict.is_null() {
            // SAFETY: not NULL; the rest is the promise of the caller.
            unsafe { raw::size_of_struct(verdict.cast_const()) }?;
        }
        let (decided, steps) = shared.engine()?.explain(packet, &mut state.outbox);
        if !verdict.is_null() {
            // SAFETY: not NULL; the rest is the promise of the caller.
            unsafe { raw::write(verdict, &VerdictOut::new(&decided)) }?;
        }
        for step in steps {
            let line = format!("{step}\n");
            lines.write_all(line.as_bytes()).map_err(|_| Status::Io)?;
        }
        Ok(())
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, explain) }
}

/// Ends sessions whose lifetime has passed by `now_ns`, a few hundred at a time. Their records and
/// RSTs are in `outbox` afterwards.
///
/// `*next_ns` is the time of the next call: `now_ns` if there is more to do, and `UINT64_MAX` if
/// there are no sessions. It may be NULL. Call this after each packet or batch as well; a call with
/// nothing to do costs little. Other threads may open sessions that end earlier, so sleep for 100
/// ms at most.
///
/// Any threads may call this at once, each with an outbox of its own; one is enough.
///
/// # Safety
/// Pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portcullis_engine_expire(
    engine: *const EngineHandle,
    outbox: *const OutboxHandle,
    now_ns: u64,
    next_ns: *mut u64,
) -> Status {
    let expire = |shared: &Shared, state: &mut OutboxState| {
        raw::check_if_asked(next_ns)?;
        let (engine, clock) = (shared.engine()?, &shared.clock);
        let done = engine.expire(clock.instant(now_ns), &mut state.outbox);
        let next = match done.more {
            true => now_ns,
            false => engine
                .next_expiry()
                .map_or(u64::MAX, |next| clock.nanos(next)),
        };
        // SAFETY: the promise of the caller.
        unsafe { raw::put_if_asked(next_ns, next) }
    };
    // SAFETY: the promise of the caller.
    unsafe { with_outbox(engine, outbox, expire) }
}
