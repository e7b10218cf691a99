//! Segments of an attacker that guesses or knows sequence numbers, or replays earlier segments.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::endpoint::End;
use crate::segment::{ACK, FIN, Options, PSH, RST, SYN, Segment, URG};

/// Returns a forged segment in the name of `sender`. `passed` are segments that have passed in the
/// same direction.
pub fn forge(sender: &End, receiver: &End, passed: &[Segment], dice: &mut ChaCha8Rng) -> Segment {
    if dice.random_bool(0.2)
        && let Some(old) = passed.choose(dice)
    {
        return old.clone();
    }
    let seqs = [
        sender.una,
        sender.nxt,
        receiver.rcv_nxt,
        receiver.rcv_nxt,
        receiver.promised,
    ];
    let acks = [receiver.una, receiver.nxt, receiver.nxt, sender.rcv_nxt];
    let flags = match dice.random_range(0..100) {
        0..22 => ACK,
        22..37 => RST,
        37..52 => RST | ACK,
        52..67 => SYN,
        67..77 => SYN | ACK,
        77..85 => FIN | ACK,
        85..88 => PSH | ACK,
        88..90 => ACK | URG,
        _ => dice.random(),
    };
    let window_span = receiver.promised.wrapping_sub(receiver.rcv_nxt);
    let seq = near(&seqs, window_span, dice);
    let ack = if flags & ACK != 0 || dice.random_bool(0.2) {
        near(&acks, receiver.peer_window, dice)
    } else {
        0
    };
    let len = if flags & (SYN | RST) == 0 && dice.random_bool(0.5) {
        dice.random_range(1..1460)
    } else {
        0
    };
    Segment {
        seq,
        ack,
        flags,
        window: match dice.random_range(0..4) {
            0 => 0,
            1 => u16::MAX,
            _ => dice.random(),
        },
        len,
        options: Options {
            window_scale: (flags & SYN != 0 && dice.random_bool(0.5))
                .then(|| dice.random_range(0..=15)),
            sack_permitted: flags & SYN != 0 && dice.random_bool(0.5),
            sack: if dice.random_bool(0.1) {
                let right = near(&acks, receiver.peer_window, dice);
                vec![(right.wrapping_sub(dice.random_range(1..3000)), right)]
            } else {
                Vec::new()
            },
            ..Options::default()
        },
        wrong_offset: dice.random_bool(0.01).then(|| dice.random_range(0..16)),
    }
}

/// Returns a number at, or at an interesting distance from, one of the bases.
fn near(bases: &[u32], window: u32, dice: &mut ChaCha8Rng) -> u32 {
    let base = bases.choose(dice).copied().unwrap_or(0);
    let distance = match dice.random_range(0..16) {
        0..5 => 0,
        5 | 6 => 1,
        7 => 2,
        8 => dice.random_range(0..3000),
        9 => window,
        10 => window.wrapping_add(1),
        11 => window / 2,
        12 => 66_000 + dice.random_range(0..3),
        13 => (1 << 31) - dice.random_range(0..3),
        14 => return 0,
        _ => return dice.random(),
    };
    if dice.random_bool(0.5) {
        base.wrapping_add(distance)
    } else {
        base.wrapping_sub(distance)
    }
}
