//! Urgent data in a stream that is read completely.
//!
//! A receiver may remove the urgent byte from the stream, so that its reader gets a different line
//! from the one that was read here. Clients send urgent data before ABOR, as TELNET's signal to
//! read the stream (RFC 959, section 4.1.3): IAC IP IAC DM. The urgent byte must therefore be one
//! of TELNET's commands, which change no FTP command. Python's ftplib sends all of ABOR as urgent
//! data, so the line feed of a segment that contains only ABOR may be urgent, too: without it the
//! server reads ABOR and the next line as one, which announces nothing that was not read here. The
//! byte is the one before the position in the urgent pointer, as in all systems in use (RFC 6093,
//! section 3.1). The byte may arrive before, in, or after the segment that announces it.

use crate::packet::SeqNum;

use super::stream::Stream;

/// The first number of TELNET's commands; 255 begins them (RFC 854).
const TELNET_COMMANDS: u8 = 240;

/// The urgent byte of a direction that has not arrived yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Urgent(Option<SeqNum>);

impl Urgent {
    /// Returns whether a segment may pass; `pointer` is its urgent pointer, if it has URG. Records
    /// the position of a byte that has not arrived.
    pub fn allows(
        &mut self,
        seq: SeqNum,
        payload: &[u8],
        pointer: Option<u16>,
        stream: &Stream,
    ) -> bool {
        let own = |place: SeqNum| {
            let at = (!place.before(seq)).then(|| place.distance_from(seq) as usize);
            at.and_then(|at| payload.get(at)).copied()
        };
        if let Some(place) = self.0 {
            match own(place) {
                Some(byte) if byte < TELNET_COMMANDS => return false,
                Some(_) => self.0 = None,
                // The acknowledged data arrived without a notice of an urgent byte to its reader.
                None if stream.next().is_some_and(|next| place.before(next)) => self.0 = None,
                None => {}
            }
        }
        let Some(pointer) = pointer else {
            return true;
        };
        if payload.eq_ignore_ascii_case(b"ABOR\r\n") && usize::from(pointer) == payload.len() {
            return true;
        }
        let place = seq.add(u32::from(pointer.max(1)) - 1);
        if let Some(byte) = own(place).or_else(|| stream.byte(place)) {
            return byte >= TELNET_COMMANDS;
        }
        if stream.next().is_some_and(|next| place.before(next)) {
            return true;
        }
        if self.0.is_some_and(|other| other != place) {
            return false;
        }
        self.0 = Some(place);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::Limits;
    use super::*;

    const LIMITS: Limits = Limits {
        line: 64,
        window: 256,
        ranges: 4,
        bare_lf: true,
    };

    const SYNCH: &[u8] = b"\xff\xf4\xff\xf2";

    fn stream() -> Stream {
        let mut stream = Stream::default();
        stream.begins(SeqNum(10));
        stream.guard(true);
        stream
    }

    #[test]
    fn the_urgent_byte_is_a_command_of_telnet_wherever_it_stands() {
        let whole = [b"STOR x\r\n", SYNCH, b"ABOR\r\n"].concat();
        for (pointer, passes) in [(8, false), (9, true), (11, true), (12, true), (13, false)] {
            let mut urgent = Urgent::default();
            assert_eq!(
                urgent.allows(SeqNum(10), &whole, Some(pointer), &stream()),
                passes,
                "{pointer}"
            );
        }
        let mut urgent = Urgent::default();
        assert!(!urgent.allows(SeqNum(10), b"XPORT", Some(0), &stream()));
        assert!(urgent.allows(SeqNum(10), b"XPORT", None, &stream()));
    }

    #[test]
    fn the_line_feed_of_abor_may_be_urgent() {
        let allows = |payload: &[u8], pointer| {
            Urgent::default().allows(SeqNum(10), payload, Some(pointer), &stream())
        };
        assert!(allows(b"ABOR\r\n", 6));
        assert!(allows(b"abor\r\n", 6));
        assert!(!allows(b"ABOR\r\n", 5));
        assert!(!allows(b"ABOR\r\nX", 6));
        assert!(!allows(b"NOOP\r\n", 6));
    }

    #[test]
    fn an_urgent_byte_that_comes_later_is_looked_at_then() {
        for (later, passes) in [(SYNCH, true), (&b"XPORT"[..], false)] {
            let mut urgent = Urgent::default();
            let mut stream = stream();
            assert!(urgent.allows(SeqNum(10), b"NOOP\r\n", Some(7), &stream));
            stream.segment(SeqNum(10), b"NOOP\r\n", &LIMITS, &mut |_| {});
            assert!(
                urgent.allows(SeqNum(16), b"", Some(1), &stream),
                "the same place"
            );
            assert!(
                !urgent.allows(SeqNum(16), b"", Some(2), &stream),
                "one at a time"
            );
            assert_eq!(urgent.allows(SeqNum(16), later, None, &stream), passes);
        }
    }

    #[test]
    fn a_byte_that_has_passed_counts_until_it_is_acknowledged() {
        let mut urgent = Urgent::default();
        let mut stream = stream();
        stream.segment(SeqNum(10), b"NOOP\r\n", &LIMITS, &mut |_| {});
        stream.segment(SeqNum(20), b"X", &LIMITS, &mut |_| {});
        assert!(!urgent.allows(SeqNum(9), b"", Some(2), &stream));
        assert!(
            !urgent.allows(SeqNum(16), b"", Some(5), &stream),
            "ahead of a hole"
        );
        stream.acknowledged(SeqNum(16), &LIMITS, &mut |_| {});
        assert!(urgent.allows(SeqNum(9), b"", Some(2), &stream));
    }
}
