//! The two text formats of metrics: OpenMetrics 1.0 for clients that request it, and the older text
//! format of Prometheus for all others.

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Format {
    /// Returns the format that an `Accept` header prefers: OpenMetrics only if the header names it
    /// in a version that is written here, and no alternative that covers plain text has a higher
    /// quality (RFC 9110 12.5.1).
    pub(super) fn of(accept: &str) -> Self {
        let (mut open, mut plain) = (0, 0);
        for range in accept.split(',').map(MediaRange::read) {
            match range.kind.as_str() {
                "application/openmetrics-text"
                    if matches!(range.version, None | Some("0.0.1" | "1.0.0")) =>
                {
                    open = range.quality.max(open);
                }
                "text/plain" if matches!(range.version, None | Some("0.0.4")) => {
                    plain = range.quality.max(plain);
                }
                "text/*" | "*/*" => plain = range.quality.max(plain),
                _ => {}
            }
        }
        if open > 0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the content type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Alternative of an `Accept` header.
struct MediaRange<'a> {
    kind: String,
    version: Option<&'a str>,
    /// Quality in thousandths.
    quality: u32,
}

impl<'a> MediaRange<'a> {
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self {
            kind,
            version: None,
            quality: 1_000,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value),
                // An invalid quality counts as 0.
                "q" => {
                    range.quality =
                        (value.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0) * 1_000.0) as u32
                }
                _ => {}
            }
        }
        range
    }
}

/// Converts OpenMetrics text to Prometheus' text format: a family of counters has the name of its
/// series, an info is a gauge, and units and the end are omitted.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                plain.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            plain.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            plain.extend([line, "\n"]);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_clients_that_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, wanted) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            (
                "text/html,application/xhtml+xml,*/*;q=0.8",
                Format::Prometheus,
            ),
            ("text/plain;version=0.0.4", Format::Prometheus),
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\" ; Q=0.2",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text, text/plain",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.1,text/plain;q=0.9",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=much", Format::Prometheus),
            (
                "application/openmetrics-text;version=2.0.0",
                Format::Prometheus,
            ),
        ] {
            assert_eq!(Format::of(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn families_become_those_of_the_older_format() {
        let open = "# HELP a_bytes Some bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{x=\"# HELP \\\"\"} 3\n# HELP b Now\n# TYPE b gauge\nb 1.5\n\
                    # HELP c The version\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        let plain = "# HELP a_bytes_total Some bytes.\n# TYPE a_bytes_total counter\n\
                     a_bytes_total{x=\"# HELP \\\"\"} 3\n# HELP b Now\n# TYPE b gauge\nb 1.5\n\
                     # HELP c_info The version\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(to_prometheus(open), plain);
    }
}
