//! Durations and times on the command line.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Reads `500ms`, `10s`, `2m`, `1h` or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a whole number with a unit, such as 500ms, 10s or 2m".to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => return Err(format!("unit {other:?} is not one of ms, s, m, h")),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| "that is longer than can be counted".to_owned())
}

/// Reads `2026-01-31T12:00:00Z`, or `+90s`, `+10m`, `+2h`, `+1d` from `now` on.
pub(crate) fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let Some(later) = text.strip_prefix('+') else {
        return text.parse().map_err(|error| {
            format!(
                "{text:?} is no time ({error}); expected RFC 3339 such as 2026-01-31T12:00:00Z, or a distance such as +90s, +10m, +2h, +1d"
            )
        });
    };
    let digits = later
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(later.len());
    let (number, unit) = later.split_at(digits);
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => {
            return Err(format!(
                "{text:?} has the unit {unit:?}; expected s, m, h or d"
            ));
        }
    };
    number
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok())
        .ok_or_else(|| format!("{text:?} is no distance in time; expected one such as +90s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_absolute_or_counted_from_now() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        let later = |text| time(text, now).map(|t| t.as_second() - now.as_second());
        assert_eq!(later("+90s"), Ok(90));
        assert_eq!(later("+2h"), Ok(7_200));
        assert_eq!(later("2026-01-01T00:01:00.5Z"), Ok(60));
        for bad in ["tomorrow", "+", "+5y", "+99999999999999999d", "12:00"] {
            let error = time(bad, now).map(|_| ()).map_err(|e| e.contains(bad));
            assert_eq!(error, Err(true), "{bad}");
        }
    }

    #[test]
    fn duration_is_read_with_its_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("7", 7_000),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "1.5s",
            "-1s",
            "3 days",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
