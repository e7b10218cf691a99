//! Events that a packet adds to its session's history ([`crate::session::history`]).

use crate::flow::Direction;
use crate::packet::{SctpChunks, Segment, Transport};
use crate::session::history::Letter;
use crate::session::{Shard, Slot, SlotId};
use crate::track::tcp::Event;
use crate::track::tcp::window::sequence_len;

/// The letters that a packet may add to the history, in the order in which they are added.
pub(super) type HistoryEvents = [Option<Letter>; 3];

pub(super) fn first_tcp_events(segment: &Segment) -> HistoryEvents {
    [
        Some(Letter::Syn),
        (segment.window == 0).then_some(Letter::ZeroWindow),
        None,
    ]
}

pub(super) fn adopted_tcp_events(segment: &Segment) -> HistoryEvents {
    let letter = if segment.payload_len > 0 {
        Letter::Data
    } else {
        Letter::Ack
    };
    [Some(letter), None, None]
}

/// Returns one letter for the kind of segment, then letters for its numbers relative to the
/// sender's earlier ones.
pub(super) fn tcp_events(segment: &Segment, slot: &Slot, direction: Direction) -> HistoryEvents {
    let kind = match Event::of(segment.flags) {
        // Neither the window nor the payload of a RST counts.
        Event::Rst => return [Some(Letter::Reset), None, None],
        Event::Syn => Some(Letter::Syn),
        Event::SynAck => Some(Letter::Handshake),
        Event::Fin => Some(Letter::Fin),
        Event::Ack if segment.payload_len > 0 => Some(Letter::Data),
        Event::Ack => Some(Letter::Ack),
        Event::None => None,
    };
    let sent = slot.track.side(direction).peer;
    let repeated = segment.payload_len > 0
        && sent.max_window != 0
        && !segment.seq.add(sequence_len(segment)).after(sent.end);
    [
        kind,
        (segment.window == 0).then_some(Letter::ZeroWindow),
        repeated.then_some(Letter::Retransmission),
    ]
}

pub(super) fn plain_events(transport: &Transport) -> HistoryEvents {
    match transport {
        // An empty datagram counts too: it shows that its sender is active.
        Transport::Udp { .. } => [Some(Letter::Data), None, None],
        Transport::Sctp { packet, .. } if packet.chunks.any(SctpChunks::DATA) => {
            [Some(Letter::Data), None, None]
        }
        Transport::Dccp { packet, .. } if packet.payload_len > 0 => {
            [Some(Letter::Data), None, None]
        }
        _ => [None; 3],
    }
}

/// Adds letters to a session's history; the cold part is read only for a letter that may be new.
pub(super) fn note_events(
    shard: &mut Shard,
    number: SlotId,
    direction: Direction,
    letters: HistoryEvents,
) {
    for letter in letters.iter().flatten().copied() {
        if !shard.slab.hot(number).letter_noted(letter, direction) {
            let cold = shard.slab.cold_mut(number);
            let mut history = cold.history();
            history.add(letter, direction);
            cold.set_history(history);
            shard.slab.hot_mut(number).note_letter(letter, direction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::End;
    use crate::packet::{IcmpKind, IcmpQuery, SeqNum, TcpFlags, TcpOptions};
    use crate::session::Micros;
    use crate::track::tcp::Track;

    /// Returns a segment of the initiator, whose SYN has sequence number 1000.
    fn segment(flags: TcpFlags, seq: u32, payload_len: u32, window: u16) -> Segment {
        Segment {
            seq: SeqNum(seq),
            ack: SeqNum(0),
            flags,
            window,
            payload_len,
            urgent: 0,
            options: TcpOptions::default(),
        }
    }

    fn letters(direction: Direction, segment: &Segment) -> String {
        let mut slot = Slot::new(crate::session::testing::key(1));
        slot.occupy(slot.key, End::Low, Micros(0), 0);
        slot.track = Track::open(&self::segment(TcpFlags::SYN, 1_000, 0, 500)).expect("a SYN");
        let letters = tcp_events(segment, &slot, direction).into_iter().flatten();
        letters.map(|letter| letter.letter(direction)).collect()
    }

    #[test]
    fn a_segment_has_one_letter_for_its_kind() {
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        let rows = [
            (syn, 0, "S"),
            (syn | ack, 0, "H"),
            (ack, 0, "A"),
            (ack, 10, "D"),
            (fin | ack, 0, "F"),
            (fin | ack, 10, "F"),
            (rst, 0, "R"),
            (rst | ack, 10, "R"),
        ];
        for (flags, payload_len, expected) in rows {
            let segment = segment(flags, 1_001, payload_len, 500);
            assert_eq!(letters(Direction::Original, &segment), expected, "{flags}");
        }
    }

    #[test]
    fn any_segment_but_a_reset_can_close_the_window() {
        for (flags, expected) in [
            (TcpFlags::SYN, "SW"),
            (TcpFlags::ACK, "AW"),
            (TcpFlags::FIN | TcpFlags::ACK, "FW"),
            (TcpFlags::RST, "R"),
        ] {
            assert_eq!(
                letters(Direction::Original, &segment(flags, 1_001, 0, 0)),
                expected
            );
        }
        let syn = segment(TcpFlags::SYN, 1_000, 5, 0);
        assert_eq!(
            first_tcp_events(&syn),
            [Some(Letter::Syn), Some(Letter::ZeroWindow), None]
        );
    }

    #[test]
    fn payload_that_ends_where_the_sender_has_been_is_a_retransmission() {
        let (ack, fin) = (TcpFlags::ACK, TcpFlags::FIN | TcpFlags::ACK);
        let old = |flags, seq| letters(Direction::Original, &segment(flags, seq, 1, 500));
        assert_eq!(old(ack, 1_000), "DT");
        assert_eq!(old(ack, 1_001), "D");
        assert_eq!(old(fin, 999), "FT");
        assert_eq!(old(fin, 1_000), "F");
    }

    #[test]
    fn an_end_of_which_nothing_was_seen_repeats_nothing() {
        let first = segment(TcpFlags::ACK, u32::MAX - 5, 1, 500);
        assert_eq!(letters(Direction::Reply, &first), "d");
    }

    #[test]
    fn an_empty_datagram_is_noted_and_an_icmp_query_is_not() {
        let udp = Transport::Udp {
            src_port: 1,
            dst_port: 2,
            payload_len: 0,
        };
        assert_eq!(plain_events(&udp), [Some(Letter::Data), None, None]);
        let echo = Transport::IcmpQuery(IcmpQuery {
            kind: IcmpKind::Echo,
            id: 1,
            request: true,
            icmp_type: 8,
            code: 0,
        });
        assert_eq!(plain_events(&echo), [None; 3]);
    }
}
