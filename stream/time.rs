//! Valid times and cadences, as nanoseconds.

use serde::de::{Deserialize, Deserializer, Error as _};

use crate::{Error, Result};

/// A valid time: nanoseconds since 1970-01-01T00:00:00 UTC.
pub type Time = i64;

/// The regular step between the valid times of a sensor, in nanoseconds; never zero.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Cadence(i64);

impl Cadence {
    /// A cadence of `nanoseconds`.
    ///
    /// # Errors
    /// When `nanoseconds` is not positive.
    pub fn new(nanoseconds: i64) -> Result<Self> {
        if nanoseconds > 0 {
            Ok(Self(nanoseconds))
        } else {
            Err(Error::new("cadence", format!("{nanoseconds} ns is not a positive step")))
        }
    }

    /// Nanoseconds a step.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }

    /// How many steps lie between two valid times, to the nearest: real cadences jitter, and
    /// calendar months differ in length.
    pub fn steps(self, from: Time, to: Time) -> i64 {
        let (span, step) = (i128::from(to) - i128::from(from), i128::from(self.0));
        (2 * span + step).div_euclid(2 * step) as i64
    }

    /// The valid time `steps` steps after `time`, saturating at the ends of time.
    pub fn after(self, time: Time, steps: i64) -> Time {
        time.saturating_add(self.0.saturating_mul(steps))
    }
}

/// Reads `"300 s"`, `"5min"`, `"1h"`, `"2d"`, `"250ms"` as nanoseconds.
///
/// # Errors
/// When the text is not a positive number followed by one of `ns us ms s min h d`.
pub fn parse_duration(text: &str) -> Result<i64> {
    let bad = || {
        Error::new(
            format!("duration \"{text}\""),
            "write a positive number and a unit: 250ms, 300s, 5min, 1h, 2d",
        )
    };
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
    let number: f64 = text[..split].parse().map_err(|_| bad())?;
    let unit = match text[split..].trim() {
        "ns" => 1e0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "min" | "m" => 60e9,
        "h" => 3600e9,
        "d" => 86400e9,
        _ => return Err(bad()),
    };
    let nanoseconds = (number * unit).round();
    if nanoseconds >= 1.0 && nanoseconds < i64::MAX as f64 {
        Ok(nanoseconds as i64)
    } else {
        Err(bad())
    }
}

/// Takes a duration from a config as its text. A bare number is a text without its unit, and is
/// told so: "expected a string" would not say what to write.
///
/// # Errors
/// When there is a number.
pub fn with_unit<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + From<String>,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "a duration is a text such as 5min")]
    enum Said {
        Number(f64),
        Text(String),
    }
    match Option::deserialize(from)? {
        None => Ok(T::default()),
        Some(Said::Text(text)) => Ok(text.into()),
        Some(Said::Number(number)) => {
            let why = "has no unit; write e.g. 250ms, 300s, 5min, 1h, 2d";
            Err(D::Error::custom(Error::new(format!("duration {number}"), why)))
        }
    }
}

/// A valid time as `2010-08-26T07:35:00Z`, with a fraction only where there is one.
pub fn format_time(time: Time) -> String {
    let (seconds, nanos) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a civil date in the proleptic Gregorian calendar, by 400-year eras.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if nanos != 0 {
        text.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_round_to_the_nearest() {
        let cadence = Cadence::new(10).unwrap();
        let steps = [-16, -10, -4, 0, 4, 5, 14, 15, 25].map(|to| cadence.steps(0, to));
        assert_eq!(steps, [-2, -1, 0, 0, 0, 1, 1, 2, 3]);
        assert_eq!(cadence.after(i64::MAX, 1), i64::MAX);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("300 s").unwrap(), 300_000_000_000);
        assert_eq!(parse_duration("0.5h").unwrap(), 1_800_000_000_000);
        for bad in ["", "5", "s", "-1s", "5 parsecs", "0s", "1e9d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(1_282_806_000_000_000_000), "2010-08-26T07:00:00Z");
        assert_eq!(format_time(951_782_400_500_000_000), "2000-02-29T00:00:00.5Z");
        assert_eq!(format_time(-1_000_000_000), "1969-12-31T23:59:59Z");
    }
}
