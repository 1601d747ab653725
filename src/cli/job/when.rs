//! Times on the command line. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Reads `2026-01-31T12:00:00Z`, or `+90s`, `+10m`, `+2h`, `+1d` from `now` on.
pub(super) fn when(text: &str, now: Timestamp) -> Result<Timestamp, String> {
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
    fn distances_and_times_are_read_and_nonsense_is_named() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        let later = |text| when(text, now).map(|t| t.as_second() - now.as_second());
        assert_eq!(later("+90s"), Ok(90));
        assert_eq!(later("+2h"), Ok(7_200));
        assert_eq!(later("2026-01-01T00:01:00.5Z"), Ok(60));
        for bad in ["tomorrow", "+", "+5y", "+99999999999999999d", "12:00"] {
            let error = when(bad, now).map(|_| ()).map_err(|e| e.contains(bad));
            assert_eq!(error, Err(true), "{bad}");
        }
    }
}
