//! Queues over memory of this process: a thread acts as the kernel. Under Miri, an access to a
//! frame or an entry that races with one of the other side is an error.

use std::ptr::NonNull;

use rustix::io::Errno;

use super::*;

/// Number of frames, and of entries of each ring.
const FRAMES: u32 = 16;
/// Bytes in front of a packet, as the kernel leaves them.
const OFFSET: u64 = 256;
/// Start of every counter: all of them wrap.
const START: u32 = u32::MAX - 20;

#[test]
fn a_success_that_takes_nothing_is_a_failure() {
    assert_eq!(outcome(Ok(()), 32, 32), Err(Errno::NETDOWN));
    assert_eq!(outcome(Ok(()), 32, 31), Ok(()));
    assert_eq!(outcome(Ok(()), 32, 0), Ok(()));
    // A call that the kernel cuts short may show its progress only later.
    for error in [Errno::AGAIN, Errno::INTR, Errno::BUSY, Errno::NOBUFS] {
        assert_eq!(outcome(Err(error), 32, 32), Err(error));
    }
}

/// The kernel's side of a queue, whose memory must outlive it. Nothing here panics: the queue's
/// thread would wait for ever.
struct Kernel {
    memory: NonNull<u8>,
    rx: Producer<Desc>,
    tx: Consumer<Desc>,
    fill: Consumer<u64>,
    completion: Producer<u64>,
}

// SAFETY: the memory is accessed only in frames that entries of the rings give to the kernel.
unsafe impl Send for Kernel {}

impl Kernel {
    /// Receives a packet in pieces of these lengths, each of whose bytes has the same value.
    /// Returns whether there were frames and entries.
    fn receive(&mut self, value: u8, lens: &[usize]) -> bool {
        let room = self.fill.len().min(self.rx.room());
        if (room as usize) < lens.len() {
            return false;
        }
        for (number, len) in lens.iter().enumerate() {
            let Some(frame) = self.fill.get(0) else {
                return false;
            };
            self.fill.consume(1);
            let addr = frame + OFFSET;
            // SAFETY: the frame is mapped, and the fill ring has given it to the kernel.
            let start = unsafe { self.memory.add(addr as usize) };
            // SAFETY: the bytes are within that frame, which the queue does not touch.
            unsafe { start.write_bytes(value, *len) };
            self.rx.push(Desc {
                addr,
                len: *len as u32,
                options: u32::from(number + 1 < lens.len()),
            });
        }
        self.rx.publish();
        true
    }

    /// Sends a packet, and returns its bytes; none if no packet waits.
    fn send(&mut self) -> Vec<u8> {
        let mut packet = Vec::new();
        while self.tx.len() > 0
            && let Some(desc) = self.tx.get(0)
        {
            self.tx.consume(1);
            // SAFETY: the frame is mapped, and the send ring has given it to the kernel.
            let start = unsafe { self.memory.add(desc.addr as usize) };
            // SAFETY: the bytes are within that frame, which the queue does not touch.
            let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), desc.len as usize) };
            packet.extend_from_slice(bytes);
            self.completion.push(desc.addr);
            if !desc.continues() {
                break;
            }
        }
        self.completion.publish();
        packet
    }
}

/// Returns a queue without a socket, and its kernel, which asks for no wakeup.
fn queue() -> (Queue, Kernel) {
    let frames = Frames::new(FRAMES, SHIFT).unwrap();
    let memory = frames.memory().at(0, frames.memory().len(), 1).unwrap();
    let packets = || Ring::in_memory(START, FRAMES);
    let (rx, tx) = (packets(), packets());
    let addresses = || Ring::in_memory(START, FRAMES);
    let (fill, completion) = (addresses(), addresses());
    let kernel = Kernel {
        memory,
        rx: Producer(rx.other_side()),
        tx: Consumer(tx.other_side()),
        fill: Consumer(fill.other_side()),
        completion: Producer(completion.other_side()),
    };
    let rings = Rings {
        rx: Consumer(rx),
        tx: Producer(tx),
        fill: Producer(fill),
        completion: Consumer(completion),
    };
    let (no_socket, _) = std::io::pipe().unwrap();
    (Queue::over(no_socket.into(), frames, rings), kernel)
}

/// Returns the lengths of the pieces of a packet.
fn lens(number: u32) -> Vec<usize> {
    let number = number as usize;
    [50 + number % 50, 60, 70]
        .into_iter()
        .take(1 + number % 3)
        .collect()
}

/// Receives a batch and answers it: packets with an even value go back, and the others are
/// replaced. Returns the number of packets.
fn turn(queue: &mut Queue) -> usize {
    let count = queue.receive();
    for number in 0..count {
        let packet = queue.packet(number);
        let (value, len) = (packet[0], packet.len());
        assert!(packet.iter().all(|byte| *byte == value), "a packet is torn");
        let head = [value; HEAD];
        let sent = match value % 2 {
            0 => queue.send_back(number, &head, len),
            _ => queue.send_instead(number, &head, &[value; 30]),
        };
        assert_eq!(sent, Ok(()));
        assert!(queue.packet(number).is_empty(), "the kernel has the frame");
    }
    assert_eq!(queue.flush(), Flushed::default());
    count
}

#[test]
fn every_packet_is_answered_once_and_no_frame_is_lost() {
    const COUNT: u32 = if cfg!(miri) { 60 } else { 20_000 };
    // A side that makes no progress for so many turns has lost a frame.
    const IDLE: u32 = if cfg!(miri) { 10_000 } else { 10_000_000 };
    let (mut queue, mut kernel) = queue();
    let lent = &mut queue;
    std::thread::scope(|scope| {
        let process = scope.spawn(move || {
            let (mut done, mut idle) = (0, 0);
            while done < COUNT as usize && idle < IDLE {
                let count = turn(lent);
                done += count;
                idle = if count == 0 { idle + 1 } else { 0 };
                std::thread::yield_now();
            }
            lent
        });
        let (mut received, mut sent, mut wrong) = (0, 0, Vec::new());
        let is_over = || {
            let is_finished = process.is_finished();
            // That shows the end of the thread, and not yet the entries that it has published.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            is_finished
        };
        while sent < COUNT && !(is_over() && kernel.tx.len() == 0) {
            if received < COUNT && kernel.receive(received as u8, &lens(received)) {
                received += 1;
            }
            let packet = kernel.send();
            if !packet.is_empty() {
                let (value, len) = (sent as u8, lens(sent).iter().sum());
                let expected = vec![value; if value % 2 == 0 { len } else { HEAD + 30 }];
                wrong.extend((packet != expected).then_some(sent));
                sent += 1;
            }
            std::thread::yield_now();
        }
        let queue = process.join().unwrap();
        assert_eq!((sent, wrong), (COUNT, Vec::new()));
        assert_eq!(turn(queue), 0);
        let all_lent = Counts {
            fill: FRAMES,
            ..Counts::default()
        };
        assert_eq!(queue.counts(), all_lent);
        let stats = queue.stats();
        let counts = [
            &stats.received,
            &stats.sent,
            &stats.foreign,
            &stats.malformed,
        ];
        let expected = [u64::from(COUNT), u64::from(COUNT), 0, 0];
        assert_eq!(counts.map(crate::stats::Count::value), expected);
    });
}

#[test]
fn no_byte_outside_of_a_received_frame_can_be_reached() {
    let (mut queue, mut kernel) = queue();
    assert!(kernel.receive(7, &[100]));
    // A frame that the kernel does not own, one outside of the memory, and one too long.
    for (addr, len) in [
        (0, 10),
        (u64::from(FRAMES) << SHIFT, 10),
        (u64::MAX - 3, 10),
    ] {
        kernel.rx.push(Desc {
            addr,
            len,
            options: 0,
        });
    }
    let last = kernel.fill.get(0).unwrap();
    kernel.rx.push(Desc {
        addr: last + OFFSET,
        len: 1 << SHIFT,
        options: 0,
    });
    kernel.completion.push(last);
    kernel.rx.publish();
    kernel.completion.publish();
    assert_eq!(queue.receive(), 1);
    assert_eq!(queue.packet(0), [7; 100]);
    assert!(queue.packet(1).is_empty());
    // Longer than the rest of the frame behind the place of the packet.
    let too_long = vec![9; (1 << SHIFT) - OFFSET as usize - HEAD + 1];
    let unfit = Err(NotSent::Unfit);
    assert_eq!(queue.send_instead(0, &[9; HEAD], &too_long), unfit);
    assert_eq!(queue.send_instead(1, &[9; HEAD], &[]), unfit);
    let fitting = &too_long[1..];
    assert_eq!(queue.send_instead(0, &[9; HEAD], fitting), Ok(()));
    assert_eq!(queue.send_back(0, &[9; HEAD], 100), unfit);
    assert_eq!(queue.flush(), Flushed::default());
    assert_eq!(kernel.send(), vec![9; (1 << SHIFT) - OFFSET as usize]);
}
