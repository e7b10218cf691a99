//! Tables and sentences that fit the width of the output.
//!
//! A cell is never wrapped. A table that is too wide is written without its least important
//! columns; if it still does not fit, the cells of its first column are shortened in their middle.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table, TableComponent};

/// Fewest characters to which a cell is shortened.
const MIN_CELL: usize = 16;
/// Indent of the second and later lines of a sentence.
const INDENT: &str = "  ";

/// A table.
pub(super) struct Columns<const N: usize> {
    head: [&'static str; N],
    numbers: &'static [usize],
    optional: &'static [usize],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    /// Begins a table. The columns in `numbers` are aligned to the right.
    pub(super) const fn new(head: [&'static str; N], numbers: &'static [usize]) -> Self {
        Self {
            head,
            numbers,
            optional: &[],
            rows: Vec::new(),
        }
    }

    /// Names the columns that a narrow output does not show, the least important one first. Without
    /// any text, they are not shown at all.
    pub(super) const fn optional(mut self, columns: &'static [usize]) -> Self {
        self.optional = columns;
        self
    }

    pub(super) fn add(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Writes the table in `width` columns, if it can be that narrow. Returns the heads of the
    /// columns that are left out.
    pub(super) fn write(
        mut self,
        f: &mut fmt::Formatter<'_>,
        width: usize,
    ) -> Result<Vec<&'static str>, fmt::Error> {
        let is_empty = |column: &usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(*column));
            self.optional.contains(column) && cells.all(String::is_empty)
        };
        let mut shown: Vec<usize> = (0..N).filter(|column| !is_empty(column)).collect();
        let mut left_out = Vec::new();
        for column in self.optional {
            if self.width_of(&shown) <= width {
                break;
            }
            if shown.contains(column) {
                shown.retain(|each| each != column);
                left_out.extend(self.head.get(*column));
            }
        }
        let excess = self.width_of(&shown).saturating_sub(width);
        if excess > 0 {
            let first = || self.rows.iter().filter_map(|row| row.first());
            let longest = first().map(|cell| length(cell)).max().unwrap_or(0);
            let most = longest.saturating_sub(excess).max(MIN_CELL);
            for cell in self.rows.iter_mut().filter_map(|row| row.first_mut()) {
                *cell = shortened(cell, most);
            }
        }
        writeln!(f, "{}", self.table(&shown))?;
        Ok(left_out)
    }

    /// Writes the table, and a line about the columns that are left out.
    pub(super) fn write_noted(self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let left_out = self.write(f, width)?;
        if left_out.is_empty() {
            return Ok(());
        }
        let names = left_out.join(", ");
        write_sentence(
            f,
            &format!("  not shown in {width} columns: {names}"),
            width,
        )
    }

    fn width_of(&self, shown: &[usize]) -> usize {
        let table = self.table(shown);
        table.lines().map(|line| length(&line)).max().unwrap_or(0)
    }

    fn table(&self, shown: &[usize]) -> Table {
        let cells = |row: &[String; N]| -> Vec<String> {
            let cells = shown.iter().filter_map(|column| row.get(*column));
            cells.cloned().collect()
        };
        let mut table = Table::new();
        let head: Vec<_> = shown.iter().filter_map(|n| self.head.get(*n)).collect();
        table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(head);
        for line in [
            TableComponent::HorizontalLines,
            TableComponent::MiddleIntersections,
            TableComponent::TopBorder,
            TableComponent::TopBorderIntersections,
            TableComponent::TopLeftCorner,
            TableComponent::TopRightCorner,
        ] {
            table.remove_style(line);
        }
        for row in &self.rows {
            table.add_row(cells(row));
        }
        for (place, column) in shown.iter().enumerate() {
            if self.numbers.contains(column)
                && let Some(column) = table.column_mut(place)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Returns the number of characters.
fn length(text: &str) -> usize {
    text.chars().count()
}

/// Returns a text of at most `most` characters: its beginning and its end.
fn shortened(text: &str, most: usize) -> String {
    let length = length(text);
    if length <= most {
        return text.to_owned();
    }
    let tail = most / 3;
    let head = most.saturating_sub(tail + 1);
    let begin = text.chars().take(head);
    let end = text.chars().skip(length - tail);
    begin.chain(['…']).chain(end).collect()
}

/// Writes a sentence in lines of at most `width` columns, broken between words.
pub(super) fn write_sentence(f: &mut fmt::Formatter<'_>, text: &str, width: usize) -> fmt::Result {
    let indent = text.len() - text.trim_start_matches(' ').len();
    let (begin, words) = text.split_at(indent);
    f.write_str(begin)?;
    let mut column = indent;
    for (number, word) in words.split(' ').enumerate() {
        let end = column + usize::from(number > 0) + length(word);
        if number == 0 {
            column = end;
        } else if end <= width {
            f.write_str(" ")?;
            column = end;
        } else {
            write!(f, "\n{begin}{INDENT}")?;
            column = indent + INDENT.len() + length(word);
        }
        f.write_str(word)?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with a function as its text.
    struct Shown<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    fn table(path: &str, width: usize) -> Vec<String> {
        let write = |f: &mut fmt::Formatter<'_>| {
            let mut columns = Columns::new(["path", "packets", "evidence", "missing"], &[1]);
            columns = columns.optional(&[3, 2]);
            let cells = [path, "1234", "syn_ack_without_syn", "a -> b"];
            columns.add(cells.map(str::to_owned));
            columns.write_noted(f, width)
        };
        let text = Shown(write).to_string();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_table_that_fits_is_complete() {
        let wide = table("10.0.0.1 -> 10.0.0.2", 80);
        assert_eq!(
            wide,
            [
                " path                   packets   evidence              missing",
                "════════════════════════════════════════════════════════════════",
                " 10.0.0.1 -> 10.0.0.2      1234   syn_ack_without_syn   a -> b",
                "────────────────────────────────────────────────────────────────",
            ]
        );
    }

    #[test]
    fn a_narrow_output_leaves_columns_out_and_says_so() {
        let narrow = table("10.0.0.1 -> 10.0.0.2", 60);
        assert_eq!(
            narrow[2],
            " 10.0.0.1 -> 10.0.0.2      1234   syn_ack_without_syn"
        );
        assert_eq!(narrow[4], "  not shown in 60 columns: missing");
        let narrower = table("10.0.0.1 -> 10.0.0.2", 40);
        assert_eq!(narrower[2], " 10.0.0.1 -> 10.0.0.2      1234");
        let note = ["  not shown in 40 columns: missing,", "    evidence"];
        assert_eq!(narrower[4..], note);
    }

    #[test]
    fn a_first_cell_that_is_too_long_keeps_its_beginning_and_its_end() {
        let path = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1#443 -> 2001:db8:1:2:3:4:5:6#50000";
        let lines = table(path, 60);
        assert!(lines.iter().all(|line| length(line) <= 60), "{lines:#?}");
        assert!(lines[2].starts_with(" 2001:db8:aaaa:"), "{}", lines[2]);
        assert!(
            lines[2].contains("…") && lines[2].contains("#50000"),
            "{}",
            lines[2]
        );
        assert!(lines[2].ends_with("1234"), "numbers are never shortened");
    }

    #[test]
    fn a_sentence_is_broken_between_words() {
        let text = |text: &'static str, width| {
            Shown(move |f: &mut fmt::Formatter<'_>| write_sentence(f, text, width)).to_string()
        };
        assert_eq!(text("one two three", 80), "one two three\n");
        assert_eq!(text("one two three", 8), "one two\n  three\n");
        assert_eq!(text("  one two three", 9), "  one two\n    three\n");
        assert_eq!(text("incomprehensible", 8), "incomprehensible\n");
    }
}
