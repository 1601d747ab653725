//! Clocks, and the times of a job as PCP writes them.

use serde_json::Value;

/// Milliseconds since boot. Never jumps, and goes on over the restart of this process.
pub fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000) + nanos / 1_000_000
}

/// Milliseconds since 1970 by the node's clock. For people only.
pub fn unix_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A time of the API (RFC 3339 in UTC) as seconds since 1970: whole ones as an integer, others as a
/// float, as they were submitted. `None` for what is no such time.
pub fn epoch_seconds(rfc3339: &str) -> Option<Value> {
    let micros = epoch_micros(rfc3339)?;
    if micros % 1_000_000 == 0 {
        return Some(Value::from(micros / 1_000_000));
    }
    // Exact: 2^53 µs reach beyond the year 2255.
    #[allow(clippy::cast_precision_loss)]
    let seconds = micros as f64 / 1e6;
    serde_json::Number::from_f64(seconds).map(Value::Number)
}

fn epoch_micros(text: &str) -> Option<i64> {
    let text = text
        .strip_suffix('Z')
        .or_else(|| text.strip_suffix("+00:00"))?;
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-');
    let (year, month, day) = (
        digits(date.next()?, 4)?,
        digits(date.next()?, 2)?,
        digits(date.next()?, 2)?,
    );
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':');
    let (hour, minute, second) = (
        digits(time.next()?, 2)?,
        digits(time.next()?, 2)?,
        digits(time.next()?, 2)?,
    );
    let valid = date.next().is_none()
        && time.next().is_none()
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !valid {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let whole = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap
/// day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn times_keep_their_kind() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", json!(0)),
            ("2026-11-22T17:07:09.000000Z", json!(1_795_367_229)),
            ("2026-11-22T17:07:09.5Z", json!(1_795_367_229.5)),
            ("2026-11-22T17:07:09.123456Z", json!(1_795_367_229.123456)),
            ("2000-02-29T23:59:59+00:00", json!(951_868_799)),
            ("2124-03-01T00:00:00.000001Z", json!(4_864_924_800.000001)),
            ("1969-12-31T23:59:59Z", json!(-1)),
        ] {
            assert_eq!(epoch_seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "Z",
            "2026-11-22",
            "2026-13-22T17:07:09Z",
            "2026-11-22T17:07:09",
            "2026-11-22T17:07:09+02:00",
            "2026-11-22T17:07:09.Z",
            "2026-11-22T17:07:9Z",
            "+026-11-22T17:07:09Z",
            "2026-11-22T17:07:09.12345é6Z",
        ] {
            assert_eq!(epoch_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn the_clock_since_boot_goes_on() {
        let before = since_boot();
        assert!(before > 0 && since_boot() >= before);
    }

    proptest! {
        #[test]
        fn any_text_is_escaped_without_a_panic(text in "[-0-9TZ:.+ é]{0,40}") {
            let _ = epoch_seconds(&text);
        }
    }
}
