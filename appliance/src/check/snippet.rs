//! An error with the lines of the file that it is about.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use portcullis::ConfigError;

/// The largest number of lines of a snippet.
const MAX_LINES: usize = 8;
/// The largest number of bytes of the lines of a snippet.
const MAX_BYTES: usize = 64 << 10;

/// The mark with which some editors begin a file, which is not part of the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns an error with its file, line and column, and the lines around with carets below the
/// value. `is_colored` adds colors. An error about very long lines has no snippet.
pub(super) fn render(error: &ConfigError, text: &str, is_colored: bool) -> String {
    let location = &error.location;
    let (Some(file), Some(line), Some(place)) = (&location.file, location.line, &location.text)
    else {
        return format!("error: {error}");
    };
    let lines = lines_around(text, &place.bytes);
    let span = place.bytes.start.max(lines.start)..place.bytes.end;
    let Some(shown) = text
        .get(lines.clone())
        .filter(|shown| shown.len() <= MAX_BYTES)
    else {
        return format!("error: {error}");
    };
    let end = span.end.clamp(span.start, lines.end);
    let within = span.start - lines.start..end - lines.start;
    let title = match location.key.is_empty() {
        true => error.message(),
        false => format!("{}: {}", location.key, error.message()),
    };
    let snippet = Snippet::source(shown)
        .path(file.as_ref())
        .line_start(line)
        .annotation(AnnotationKind::Primary.span(within));
    let report = [Level::ERROR.primary_title(title).element(snippet)];
    let renderer = match is_colored {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    renderer.render(&report)
}

/// Returns the bytes of the lines that a span is on, at most [`MAX_LINES`].
fn lines_around(text: &str, span: &Range<usize>) -> Range<usize> {
    let before = text.get(..span.start).unwrap_or_default();
    let is_marked = text.starts_with(BYTE_ORDER_MARK);
    let first = if is_marked {
        BYTE_ORDER_MARK.len_utf8()
    } else {
        0
    };
    let start = before.rfind('\n').map_or(first, |end| end + 1);
    let rest = text.get(start..).unwrap_or_default();
    let mut end = start;
    for line in rest.split_inclusive('\n').take(MAX_LINES) {
        end += line.len();
        if end >= span.end {
            break;
        }
    }
    start..end
}
