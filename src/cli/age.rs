//! Ages as kubectl prints them: one unit.

use jiff::Timestamp;

/// `40s`, `3m`, `2h` or `5d` from `then` to `now`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    format_seconds(now.as_second().saturating_sub(then.as_second()).max(0))
}

pub(crate) fn format_seconds(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_one_unit() {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(at(1_000_000), at(1_000_000 + seconds)), text);
        }
    }
}
