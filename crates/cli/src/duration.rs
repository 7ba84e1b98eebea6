//! Durations as users write them: `500ms`, `5s`, `1.5m`, `2h`, `3d`.

use std::time::Duration;

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
/// The longest accepted duration; a longer one is taken for a typing mistake.
const SECONDS_MAX: f64 = 365.0 * 86_400.0;

/// The reason why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDuration {
    /// It is not a number and a unit.
    #[error("'{0}' is not a duration; write a number and ms, s, m, h or d, such as 500ms or 5s")]
    Format(String),
    /// It is too short or too long.
    #[error("'{0}' is outside 1ms to 365d")]
    Range(String),
}

/// Parses a duration from 1 ms to 365 days.
pub(crate) fn parse(text: &str) -> Result<Duration, BadDuration> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || BadDuration::Format(text.to_owned());
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let seconds = number * factor;
    if !(0.001..=SECONDS_MAX).contains(&seconds) {
        return Err(BadDuration::Range(text.to_owned()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration in its largest unit, for a status screen.
pub(crate) fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7_200)));
        for bad in ["", "5", "s", "5 s", "-1s", "0s", "5weeks", "1e9d", "nans", "infs"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rough_duration_has_one_unit() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (86_400 * 3, "3d")] {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }
}
