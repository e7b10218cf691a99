//! The number that a challenge carries and that only its receiver can return.
//!
//! A cookie is a keyed hash of the SYN's zone, addresses and ports, and of a time slot. It must not
//! depend on the SYN's sequence number: the RST that returns the cookie does not carry that number,
//! and no state is kept in the meantime.

use super::siphash::Key;
use crate::flow::Zone;
use crate::packet::{Ip, IpVersion, SeqNum};
use crate::session::Micros;

/// The length of a time slot, in microseconds.
const SLOT: u64 = 64_000_000;

/// Time for which the cookie of the previous slot is accepted, in microseconds. A RST returns
/// within a round trip.
const GRACE: u64 = 8_000_000;

/// The bit in which the two cookies of a slot differ.
const HALF: u32 = 1 << 31;

/// Conversation from which a cookie is computed, with the initiator as the sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) zone: Zone,
    pub(super) version: IpVersion,
    pub(super) src: u128,
    pub(super) dst: u128,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
}

impl Subject {
    pub(super) const fn new(zone: Zone, ip: &Ip, src_port: u16, dst_port: u16) -> Self {
        Self {
            zone,
            version: ip.version,
            src: ip.src,
            dst: ip.dst,
            src_port,
            dst_port,
        }
    }

    fn hash(&self, key: Key, slot: u64) -> u32 {
        let version = match self.version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        };
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        let words = [
            version << 48 | u64::from(self.zone.0) << 32 | ports,
            (self.src >> 64) as u64,
            self.src as u64,
            (self.dst >> 64) as u64,
            self.dst as u64,
            slot,
        ];
        key.hash(&words) as u32
    }
}

/// Returns the acknowledgment number of the challenge of a SYN.
///
/// Of the slot's two numbers, this is the one in the half of the sequence space before the SYN's
/// own number `syn`. A stack in SYN-SENT must answer it with a RST (RFC 9293 3.10.7.3: "SEG.ACK =<
/// ISS"), however much data this SYN or an earlier one carries. A connection tracker in front of
/// that stack treats the number as an old acknowledgment. A number in the other half would
/// acknowledge data that was never sent.
pub(super) fn cookie(key: Key, subject: &Subject, syn: SeqNum, now: Micros) -> SeqNum {
    let number = subject.hash(key, now.0 / SLOT);
    if syn.0.wrapping_sub(number) < HALF {
        SeqNum(number)
    } else {
        SeqNum(number ^ HALF)
    }
}

/// Returns whether a number is the cookie of a recent challenge of this conversation.
pub(super) fn is_cookie(key: Key, subject: &Subject, number: SeqNum, now: Micros) -> bool {
    let slot = now.0 / SLOT;
    let of = |slot| (subject.hash(key, slot) ^ number.0) & !HALF == 0;
    of(slot) || now.0 % SLOT < GRACE && slot.checked_sub(1).is_some_and(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::new(1, 2);

    const fn subject(number: u32) -> Subject {
        Subject {
            zone: Zone((number % 3) as u16),
            version: if number.is_multiple_of(2) {
                IpVersion::V4
            } else {
                IpVersion::V6
            },
            src: number as u128 * 7,
            dst: 9,
            src_port: number as u16,
            dst_port: 80,
        }
    }

    const fn at(seconds: u64) -> Micros {
        Micros(3_600 * 1_000_000 / 64 * 64 + seconds * 1_000_000)
    }

    #[test]
    fn no_stack_that_has_sent_the_syn_accepts_its_cookie() {
        for number in 0..100_000_u32 {
            let syn = SeqNum(number.wrapping_mul(0x9e37_79b9));
            let cookie = cookie(KEY, &subject(number), syn, at(u64::from(number)));
            // RFC 9293 3.10.7.3: SEG.ACK =< ISS is rejected, and no number after SND.NXT is close.
            assert!(!cookie.after(syn), "{number}");
            assert!(is_cookie(
                KEY,
                &subject(number),
                cookie,
                at(u64::from(number))
            ));
        }
    }

    #[test]
    fn a_cookie_is_accepted_for_eight_to_seventy_two_seconds() {
        // A slot begins at a multiple of 64 s.
        let start = 3_600 / 64 * 64;
        let at = |seconds: u64| Micros((start + seconds) * 1_000_000);
        for (made, last) in [(0, 71), (63, 71)] {
            let cookie = cookie(KEY, &subject(1), SeqNum(5), at(made));
            let lives = |seconds| is_cookie(KEY, &subject(1), cookie, at(seconds));
            assert!(lives(made) && lives(last), "{made}");
            assert!(!lives(last + 1), "{made}");
        }
    }

    #[test]
    fn a_cookie_is_that_of_one_conversation_and_one_key() {
        let one = subject(6);
        let number = cookie(KEY, &one, SeqNum(5), at(0));
        for other in [
            Subject {
                zone: Zone(9),
                ..one
            },
            Subject {
                version: IpVersion::V6,
                ..one
            },
            Subject { src: 1, ..one },
            Subject { dst: 1, ..one },
            Subject { src_port: 1, ..one },
            Subject { dst_port: 1, ..one },
        ] {
            assert!(!is_cookie(KEY, &other, number, at(0)), "{other:?}");
        }
        assert!(!is_cookie(Key::new(1, 3), &one, number, at(0)));
    }
}
