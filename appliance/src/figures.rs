//! Amounts and times in few letters.

/// Returns a time in few letters.
pub(crate) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 100.0 => format!("{s:.0}s"),
        s if s < 6_000.0 => format!("{:.0}m", s / 60.0),
        s if s < 360_000.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// Returns a number in few letters, by powers of 1,000.
pub(crate) fn amount(number: f64) -> String {
    let mut number = number;
    for unit in ["", "k", "M", "G", "T"] {
        if number < 999.5 {
            return if unit.is_empty() || number >= 99.95 {
                format!("{number:.0}{unit}")
            } else {
                format!("{number:.1}{unit}")
            };
        }
        number /= 1_000.0;
    }
    format!("{number:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_have_few_letters() {
        let rows = [
            (0.0, "0"),
            (999.0, "999"),
            (1_000.0, "1.0k"),
            (123_456.0, "123k"),
            (5e12, "5.0T"),
        ];
        for (number, text) in rows {
            assert_eq!(amount(number), text);
        }
        for (seconds, text) in [
            (-1.0, "0s"),
            (99.0, "99s"),
            (340.0, "6m"),
            (86_400.0, "24h"),
            (864_000.0, "10d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
