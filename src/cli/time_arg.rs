//! Durations and times on the command line. One grammar for all flags: jiff's friendly spans.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Reads `90s`, `5m`, `1h30m`; a day has 24 hours. Also a plain `0`, as kubectl does.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(Duration::try_from)
        .map_err(|_| format!("{text:?} is not a duration: use for example 90s, 5m or 1h30m"))
}

/// Reads an RFC 3339 time, or a duration (with or without `+`) from `now` on.
pub(crate) fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let unknown = || {
        format!(
            "{text:?} is neither a time nor a duration: use for example 2026-01-31T12:00:00Z or +1h30m"
        )
    };
    let later = duration(text.strip_prefix('+').unwrap_or(text)).map_err(|_| unknown())?;
    let later = SignedDuration::try_from(later).map_err(|_| unknown())?;
    now.checked_add(later).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_reads_one_grammar() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn duration_is_refused_with_examples_when_it_is_not_one() {
        for text in ["", "s", "7", "-1s", "5y", "1mo", "99999999999999999999s"] {
            let error = duration(text).err().unwrap_or_default();
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
            assert!(error.contains("90s, 5m or 1h30m"), "{error}");
        }
    }

    #[test]
    fn time_is_absolute_or_counted_from_now() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        let later = |text| time(text, now).map(|t| t.as_second() - now.as_second());
        assert_eq!(later("+90s"), Ok(90));
        assert_eq!(later("2h"), Ok(7_200));
        assert_eq!(later("+1h30m"), Ok(5_400));
        assert_eq!(later("+1d"), Ok(86_400));
        assert_eq!(later("2026-01-01T00:01:00.5Z"), Ok(60));
        for bad in [
            "tomorrow",
            "+",
            "+5y",
            "+99999999999999999d",
            "12:00",
            "-1h",
        ] {
            let error = later(bad).err().unwrap_or_default();
            assert!(error.contains(&format!("{bad:?}")), "{bad}: {error}");
        }
    }
}
