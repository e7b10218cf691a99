use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    line: 64,
    window: 256,
    ranges: 4,
    bare_lf: true,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Line(String),
    TooLong(String),
    Rest(String),
    Trouble(Trouble),
}

struct Reader {
    stream: Stream,
    limits: Limits,
    out: Vec<Out>,
    isn: SeqNum,
}

impl Reader {
    fn starting_at(isn: u32) -> Self {
        let mut reader = Self::mid_stream();
        reader.isn = SeqNum(isn);
        reader.stream.begins(SeqNum(isn));
        reader
    }

    fn mid_stream() -> Self {
        Self {
            stream: Stream::default(),
            limits: LIMITS,
            out: Vec::new(),
            isn: SeqNum(0),
        }
    }

    fn put(&mut self, at: u32, text: impl AsRef<[u8]>) -> &mut Self {
        let Self {
            stream,
            limits,
            out,
            ..
        } = self;
        stream.segment(self.isn.add(at), text.as_ref(), limits, &mut collect(out));
        self
    }

    fn ack(&mut self, at: u32) -> &mut Self {
        let Self {
            stream,
            limits,
            out,
            ..
        } = self;
        stream.acknowledged(self.isn.add(at), limits, &mut collect(out));
        self
    }

    fn taken(&mut self) -> Vec<Out> {
        core::mem::take(&mut self.out)
    }
}

fn collect(out: &mut Vec<Out>) -> impl FnMut(Piece<'_>) {
    |piece| {
        out.push(match piece {
            Piece::Line(line) => {
                let text = String::from_utf8_lossy(line.bytes).into_owned();
                if line.whole {
                    Out::Line(text)
                } else {
                    Out::TooLong(text)
                }
            }
            Piece::Rest(line) => Out::Rest(String::from_utf8_lossy(line.bytes).into_owned()),
            Piece::Trouble(trouble) => Out::Trouble(trouble),
        });
    }
}

fn line(text: &str) -> Out {
    Out::Line(text.to_owned())
}

#[test]
fn a_line_comes_whole_wherever_it_is_cut() {
    let text = b"USER a\r\nPASS b\r\n";
    for cut in 0..=text.len() {
        let mut reader = Reader::starting_at(u32::MAX - 5);
        reader.put(0, &text[..cut]).put(cut as u32, &text[cut..]);
        assert_eq!(reader.taken(), [line("USER a"), line("PASS b")], "{cut}");
        assert_eq!(reader.stream.heap_bytes(), 0);
    }
}

#[test]
fn bytes_out_of_order_wait_for_those_before_them() {
    let mut reader = Reader::starting_at(u32::MAX - 2);
    reader.put(8, "d\r\n").put(4, "a\r\nc").taken();
    assert_eq!(reader.taken(), []);
    reader.put(0, "PORT");
    assert_eq!(reader.taken(), [line("PORTa"), line("cd")]);
    assert_eq!(reader.stream.heap_bytes(), 0, "nothing waits any more");
}

#[test]
fn retransmissions_and_overlaps_deliver_each_byte_once() {
    let mut reader = Reader::starting_at(7);
    reader
        .put(0, "ab")
        .put(0, "ab")
        .put(1, "bc\r\nd")
        .put(0, "abc\r\nde\r\n")
        .put(0, "abc\r\n");
    assert_eq!(reader.taken(), [line("abc"), line("de")]);
}

#[test]
fn a_line_feed_ends_a_line_where_it_may_and_a_carriage_return_never_does() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "a\nb\rc\r\n\r").put(8, "\nd\n");
    assert_eq!(
        reader.taken(),
        [line("a"), line("b\rc"), line(""), line("d")]
    );
    let mut strict = Reader::starting_at(0);
    strict.limits.bare_lf = false;
    strict.put(0, "a\nb\r").put(4, "\nc\r").put(7, "x\n\r\n");
    assert_eq!(strict.taken(), [line("a\nb"), line("c\rx\n")]);
}

#[test]
fn a_long_line_is_cut_and_the_next_one_is_whole() {
    let mut reader = Reader::starting_at(0);
    let long = "x".repeat(100);
    reader.put(0, format!("{long}\r\nb\r\n"));
    let head = Out::TooLong("x".repeat(64));
    assert_eq!(reader.taken(), [head.clone(), line("b")]);
    let mut pieces = Reader::starting_at(0);
    for at in 0..1000 {
        pieces.put(at, "x");
        assert!(pieces.stream.heap_bytes() <= 128);
    }
    pieces.put(1000, "\r\nb\r\n");
    assert_eq!(pieces.taken(), [head, line("b")]);
    let mut exact = Reader::starting_at(0);
    exact.put(0, format!("{}\r\n", "y".repeat(62)));
    assert_eq!(exact.taken(), [line(&"y".repeat(62))]);
}

#[test]
fn a_hole_that_was_acknowledged_is_a_gap_up_to_the_next_line() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "USER").put(9, "oot\r\nPASS x\r\n");
    assert_eq!(reader.taken(), []);
    reader.ack(4);
    assert_eq!(
        reader.taken(),
        [],
        "nothing behind the hole is acknowledged"
    );
    reader.ack(9);
    assert_eq!(reader.taken(), [Out::Trouble(Trouble::Gap), line("PASS x")]);
}

#[test]
fn a_gap_at_a_lines_end_takes_the_next_line_with_it() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "a\r").put(3, "227 b\r\nc\r\n").ack(12);
    assert_eq!(
        reader.taken(),
        [Out::Trouble(Trouble::Gap), line("c")],
        "the missing byte may have been a line feed or not"
    );
}

#[test]
fn an_acknowledgment_beyond_all_that_was_seen_loses_it() {
    let mut reader = Reader::starting_at(0);
    reader
        .put(0, "ab")
        .ack(50)
        .put(2, "old")
        .put(50, "x\r\ny\r\n");
    assert_eq!(reader.taken(), [Out::Trouble(Trouble::Gap), line("y")]);
}

#[test]
fn the_acknowledgment_of_a_fin_is_no_gap() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "QUIT\r\n");
    reader.stream.ends(SeqNum(6));
    reader.ack(7);
    assert_eq!(reader.taken(), [line("QUIT")]);
}

#[test]
fn a_stream_taken_up_in_the_middle_counts_from_its_next_line_on() {
    let mut reader = Reader::mid_stream();
    reader.put(77, "227 (x)\r\n200 y\r\n");
    assert_eq!(
        reader.taken(),
        [Out::Trouble(Trouble::MidStream), line("200 y")]
    );
}

#[test]
fn a_segments_beginning_is_no_lines_beginning() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "500 '").put(5, "227 x").put(10, "'\r\n");
    assert_eq!(reader.taken(), [line("500 '227 x'")]);
}

#[test]
fn a_line_sent_again_with_other_bytes_does_not_count() {
    let mut reader = Reader::starting_at(0);
    reader
        .put(0, "PORT 1")
        .put(0, "PORT 2")
        .put(6, ",3\r\nNOOP\r\n");
    let troubles = [Trouble::Conflict, Trouble::Gap].map(Out::Trouble);
    assert_eq!(
        reader.taken(),
        [troubles[0].clone(), troubles[1].clone(), line("NOOP")]
    );
}

#[test]
fn bytes_that_wait_and_come_again_as_others_spoil_their_line_alone() {
    let mut reader = Reader::starting_at(0);
    reader.put(3, "a\r\nPORT 1\r\nc\r\n").put(6, "PORT 2\r\n");
    assert_eq!(reader.taken(), [Out::Trouble(Trouble::Conflict)]);
    reader.put(0, "xyz");
    assert_eq!(
        reader.taken(),
        [line("xyza"), Out::Trouble(Trouble::Gap), line("c")]
    );
}

#[test]
fn a_line_end_that_came_as_two_different_bytes_is_none() {
    let mut reader = Reader::starting_at(0);
    reader.put(1, "b\r\n227 c\r\nd\r\n").put(3, "x");
    reader.put(0, "a");
    assert_eq!(
        reader.taken(),
        [
            Out::Trouble(Trouble::Conflict),
            Out::Trouble(Trouble::Gap),
            line("d")
        ]
    );
}

#[test]
fn what_waits_is_bounded_in_bytes_and_ranges() {
    let mut reader = Reader::starting_at(0);
    reader.put(300, "x");
    assert_eq!(reader.taken(), [Out::Trouble(Trouble::Overflow)]);
    for at in [10, 20, 30, 40] {
        reader.put(at, "x");
    }
    assert_eq!(reader.taken(), []);
    reader.put(50, "x");
    assert_eq!(reader.taken(), [Out::Trouble(Trouble::Overflow)]);
    for at in 0..5000_u32 {
        reader.put(at.wrapping_mul(7919) % 4000 + 1, [b'x'; 40]);
        assert!(reader.stream.heap_bytes() <= 256 + 64 + 8 * 16);
    }
    reader.stream.shed();
    assert!(reader.stream.heap_bytes() <= 128);
}

#[test]
fn a_segment_larger_than_the_window_fills_a_hole() {
    let mut reader = Reader::starting_at(0);
    reader.put(400, "").put(200, "zz");
    let text = "line of text\r\n".repeat(40);
    reader.put(0, &text);
    let lines = reader.taken();
    assert_eq!(lines[0], Out::Trouble(Trouble::Conflict));
    assert!(
        lines
            .iter()
            .filter(|out| **out == line("line of text"))
            .count()
            >= 37
    );
}

proptest! {
    #[test]
    fn any_transport_of_the_same_bytes_makes_the_same_lines(
        isn: u32,
        lines in prop::collection::vec("[a-z ]{0,20}", 1..8),
        cuts in prop::collection::vec((0_usize..200, 1_usize..60), 0..60),
        acknowledge: bool,
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut reader = Reader::starting_at(isn);
        reader.limits.ranges = 256;
        // Any part of the text, any number of times, in any order; then all missing parts.
        for (start, len) in cuts {
            let start = start.min(text.len());
            let end = (start + len).min(text.len());
            reader.put(start as u32, &text[start..end]);
            if acknowledge {
                let known = reader.stream.next.unwrap().distance_from(reader.isn);
                reader.ack(known);
            }
        }
        reader.put(0, &text);
        let expected: Vec<Out> = lines.iter().map(|text| line(text)).collect();
        prop_assert_eq!(reader.taken(), expected);
        prop_assert_eq!(reader.stream.heap_bytes(), 0);
    }

    #[test]
    fn nothing_a_peer_sends_breaks_the_bounds(
        segments in prop::collection::vec((0_u32..600, prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()],
            0..300,
        ), any::<bool>()), 0..60),
    ) {
        let mut reader = Reader::starting_at(u32::MAX - 100);
        for (at, bytes, ack) in segments {
            if ack {
                reader.ack(at);
            }
            reader.put(at, &bytes);
            prop_assert!(reader.stream.heap_bytes() <= 256 + 128 + 16 * 16);
            let ranges = &reader.stream.ranges;
            prop_assert!(ranges.len() <= 5);
            prop_assert!(ranges.iter().all(|range| 0 < range.start && range.start < range.end));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}

#[test]
fn a_guarded_stream_takes_nothing_that_it_cannot_read() {
    let fit = |reader: &Reader, at: u32, text: &str| {
        let seq = reader.isn.add(at);
        reader.stream.fit(seq, text.as_bytes(), &LIMITS)
    };
    let mut reader = Reader::starting_at(u32::MAX - 3);
    reader.stream.guard(true);
    let any_size = "x".repeat(1_000);
    assert_eq!(
        fit(&reader, 0, &any_size),
        Fit::Fits,
        "one segment of any size"
    );
    assert_eq!(
        fit(&reader, 200, &any_size[..57]),
        Fit::NoRoom,
        "beyond the window"
    );
    reader.put(0, "NOOP\r\nUS").put(12, "later");
    assert_eq!(fit(&reader, 0, "NOOP\r\nUS"), Fit::Fits);
    assert_eq!(
        fit(&reader, 0, "QUIT\r\nUS"),
        Fit::Differs,
        "it may not have come"
    );
    assert_eq!(fit(&reader, 10, "xxlater"), Fit::Fits);
    assert_eq!(fit(&reader, 10, "xxlaser"), Fit::Differs);
    reader.ack(7);
    assert_eq!(fit(&reader, 0, "QUIT\r\nUS"), Fit::Fits, "it has come");
    assert_eq!(fit(&reader, 0, "QUIT\r\nUX"), Fit::Differs);
    assert_eq!(reader.taken(), [Out::Line("NOOP".into())]);
}

#[test]
fn a_guarded_stream_that_is_taken_up_in_its_middle_shows_the_rest_of_a_line() {
    let fit = |reader: &Reader, at: u32, text: &str| {
        let seq = reader.isn.add(at);
        reader.stream.fit(seq, text.as_bytes(), &LIMITS)
    };
    let mut reader = Reader::mid_stream();
    reader.stream.guard(true);
    assert_eq!(fit(&reader, 100, "OP\r\nQU"), Fit::Fits);
    reader.put(100, "OP\r\nQU");
    assert_eq!(
        fit(&reader, 90, "PORT 1,2,3"),
        Fit::BeforeStart,
        "not seen, and not acknowledged"
    );
    reader.put(106, "IT\r\n");
    let begins = Out::Trouble(Trouble::MidStream);
    assert_eq!(
        reader.taken(),
        [begins, Out::Rest("OP".into()), line("QUIT")]
    );
    reader.ack(110);
    assert_eq!(fit(&reader, 90, "PORT 1,2,3"), Fit::Fits, "it has come");
    // A rest of any length passes.
    let mut long = Reader::mid_stream();
    long.stream.guard(true);
    for at in 0..10 {
        let text = "y".repeat(20);
        assert_eq!(fit(&long, at * 20, &text), Fit::Fits);
        long.put(at * 20, &text).ack(at * 20 + 20);
    }
    long.put(200, "\r\nNOOP\r\n");
    assert_eq!(long.taken()[1..], [Out::Rest("y".repeat(64)), line("NOOP")]);
}

#[test]
fn a_line_that_was_too_long_before_the_guard_does_not_block_the_stream() {
    let mut reader = Reader::starting_at(0);
    reader.put(0, "x".repeat(100));
    assert!(reader.stream.is_too_long());
    assert!(reader.stream.guard(true));
    assert_eq!(
        reader.stream.fit(SeqNum(100), b"y\r\nNOOP\r\n", &LIMITS),
        Fit::Fits
    );
    reader.put(100, "y\r\nNOOP\r\n");
    assert_eq!(reader.taken(), [Out::Rest("y".into()), line("NOOP")]);
}

#[test]
fn kept_bytes_are_found_by_their_number_until_they_are_acknowledged() {
    let mut reader = Reader::starting_at(u32::MAX - 1);
    reader.stream.guard(true);
    reader.put(0, "abc").put(5, "f");
    let byte = |reader: &Reader, at| reader.stream.byte(reader.isn.add(at));
    let found = [0, 2, 3, 5, 6].map(|at| byte(&reader, at));
    assert_eq!(found, [Some(b'a'), Some(b'c'), None, Some(b'f'), None]);
    reader.ack(1);
    assert_eq!([byte(&reader, 0), byte(&reader, 1)], [None, Some(b'b')]);
    reader.ack(2);
    assert_eq!([byte(&reader, 1), byte(&reader, 2)], [None, Some(b'c')]);
}

proptest! {
    #[test]
    fn a_stream_grows_by_no_more_than_it_says(
        segments in prop::collection::vec((0_u32..400, 1_usize..120, any::<bool>()), 1..60),
    ) {
        let mut reader = Reader::starting_at(u32::MAX - 100);
        reader.stream.guard(true);
        for (at, len, ack) in segments {
            let text = vec![b'a'; len];
            let seq = reader.isn.add(at);
            if reader.stream.fit(seq, &text, &LIMITS) == Fit::Fits {
                let most = reader.stream.heap_bytes() + reader.stream.growth(seq, len, &LIMITS);
                reader.put(at, &text);
                prop_assert!(reader.stream.heap_bytes() <= most);
            }
            if ack {
                let next = reader.stream.next().unwrap().distance_from(reader.isn);
                reader.ack(next);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_copy_of_a_guarded_stream_arrives_is_the_one_that_was_read(
        segments in prop::collection::vec((
            0_u32..60,
            prop::collection::vec(prop::sample::select(&b"ab\n"[..]), 1..12),
            any::<bool>(),
        ), 1..80),
    ) {
        let mut reader = Reader::starting_at(u32::MAX - 20);
        reader.stream.guard(true);
        // The bytes that have passed at each position, and the receiver's position.
        let mut passed = [None; 80];
        let mut acknowledged = 0;
        for (at, bytes, acknowledges) in segments {
            if reader.stream.fit(reader.isn.add(at), &bytes, &LIMITS) == Fit::Fits {
                for (place, byte) in (at as usize..).zip(&bytes) {
                    if place >= acknowledged {
                        prop_assert_eq!(*passed[place].get_or_insert(*byte), *byte);
                    }
                }
                reader.put(at, &bytes);
            }
            if acknowledges {
                acknowledged = passed.iter().position(Option::is_none).unwrap();
                reader.ack(acknowledged as u32);
            }
        }
        let whole: Vec<u8> = passed.iter().map_while(|byte| *byte).collect();
        let lines = whole.split(|byte| *byte == b'\n');
        let mut lines: Vec<_> =
            lines.map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
        lines.pop();
        let read: Vec<_> = reader.taken().into_iter().map(|out| match out {
            Out::Line(line) => line,
            other => format!("{other:?}"),
        }).collect();
        prop_assert_eq!(read, lines);
    }
}
