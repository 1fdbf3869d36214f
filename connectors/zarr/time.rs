//! CF time coordinates ("hours since 2000-01-01 12:00") as nanoseconds since 1970, UTC.

use physicnet_stream::{Error, Result, Time};

const DAY: i128 = 86_400_000_000_000;
/// 1582-10-15, the first day of the Gregorian calendar, in days since 1970-01-01.
const GREGORIAN: i64 = -141_427;

/// How the numbers of a time coordinate are to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Encoding {
    /// Nanoseconds in a unit.
    unit: i64,
    /// Nanoseconds from 1970-01-01 to the reference date, which may lie before an i64 of them.
    since: i128,
}

impl Encoding {
    /// Reads CF `units` and `calendar` (absent: `standard`).
    ///
    /// # Errors
    /// When the units are not a fixed span since a date, or the calendar is not the civil one.
    pub(super) fn parse(units: &str, calendar: Option<&str>) -> Result<Self> {
        let what = || format!("time units \"{units}\"");
        let mixed = match calendar.unwrap_or("standard").to_ascii_lowercase().as_str() {
            "standard" | "gregorian" => true,
            "proleptic_gregorian" => false,
            other => {
                return Err(Error::new(
                    format!("calendar \"{other}\""),
                    "its days are not civil days; convert the store to standard or \
                     proleptic_gregorian, e.g. with xarray's Dataset.convert_calendar",
                ));
            }
        };
        let (unit, since) = units
            .split_once(" since ")
            .ok_or_else(|| Error::new(what(), "write them as CF does: seconds since 1970-01-01"))?;
        let unit = unit_nanoseconds(unit.trim()).ok_or_else(|| {
            let why = "is not a fixed span; use days, hours, minutes, seconds, milliseconds, \
                       microseconds or nanoseconds";
            Error::new(what(), format!("\"{unit}\" {why}"))
        })?;
        Ok(Self { unit, since: date(since, mixed).map_err(|e| Error::new(what(), e))? })
    }

    /// Plain nanoseconds, or another unit of numpy's datetime64, since 1970.
    pub(super) fn since_1970(unit: &str, scale: i64) -> Option<Self> {
        Some(Self { unit: unit_nanoseconds(unit)?.checked_mul(scale)?, since: 0 })
    }

    /// An integer time; `None` where it does not fit.
    pub(super) fn decode(self, value: i64) -> Option<Time> {
        Time::try_from(self.since + i128::from(value) * i128::from(self.unit)).ok()
    }

    /// A float time. Days as f64 resolve a quarter of a microsecond, so a time that is whole
    /// seconds (or milli-, or microseconds) within its own rounding is exactly that.
    pub(super) fn decode_float(self, value: f64) -> Option<Time> {
        if !value.is_finite() || value.abs() * self.unit as f64 > 1e27 {
            return None;
        }
        // Whole and rest apart, so that the multiplication adds no error of its own.
        let rest = (value.fract() * self.unit as f64).round() as i128;
        let exact = value.trunc() as i128 * i128::from(self.unit) + rest;
        let rounding = (2.0 * value.abs() * f64::EPSILON * self.unit as f64).ceil() as i128;
        let snapped = [1_000_000_000, 1_000_000, 1_000].into_iter().find_map(|step: i128| {
            let near = (exact + step / 2).div_euclid(step) * step;
            ((near - exact).abs() <= rounding).then_some(near)
        });
        Time::try_from(self.since + snapped.unwrap_or(exact)).ok()
    }
}

/// How many nanoseconds a unit of time has; `None` for what is not a fixed span.
pub(super) fn unit_nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "days" | "day" | "d" => 86_400_000_000_000,
        "hours" | "hour" | "hrs" | "hr" | "h" => 3_600_000_000_000,
        "minutes" | "minute" | "mins" | "min" | "m" => 60_000_000_000,
        "seconds" | "second" | "secs" | "sec" | "s" => 1_000_000_000,
        "milliseconds" | "millisecond" | "millisecs" | "millisec" | "msec" | "ms" => 1_000_000,
        "microseconds" | "microsecond" | "microsecs" | "microsec" | "us" => 1_000,
        "nanoseconds" | "nanosecond" | "nsec" | "ns" => 1,
        _ => return None,
    })
}

/// Reads `2010-08-26`, `2010-08-26 05:00`, `2010-08-26T05:00:30.5Z`, `... +02:00` as a valid
/// time; UTC unless it says otherwise.
///
/// # Errors
/// When the text is not such a date, or lies outside the years 1678 to 2262.
pub fn parse_time(text: &str) -> Result<Time> {
    let why = "lies outside the years 1678 to 2262, which nanoseconds can tell";
    date(text, false)?.try_into().map_err(|_| Error::new(format!("time \"{text}\""), why))
}

/// Nanoseconds from 1970-01-01 to a date; `mixed`: Julian before 1582-10-15.
fn date(text: &str, mixed: bool) -> Result<i128> {
    parts(text.trim(), mixed).ok_or_else(|| {
        Error::new(
            format!("time \"{text}\""),
            "is not a date; write 2010-08-26, 2010-08-26T05:00 or 2010-08-26T05:00:30Z",
        )
    })
}

fn parts(text: &str, mixed: bool) -> Option<i128> {
    let (date, clock) = match text.find(['T', ' ']) {
        Some(at) => (&text[..at], text[at + 1..].trim()),
        None => (text, ""),
    };
    let mut fields = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let day = fields.next()?.ok()?;
    if !((1..=12).contains(&month) && (1..=31).contains(&day) && (0..=9999).contains(&year)) {
        return None;
    }
    let civil = days(year, month, day, false);
    let days = if mixed && civil < GREGORIAN { days(year, month, day, true) } else { civil };
    let (clock, zone) = zone(clock)?;
    let mut nanoseconds = 0_f64;
    for (field, unit) in clock.split(':').filter(|f| !f.is_empty()).zip([3600e9, 60e9, 1e9]) {
        let value: f64 = field.trim().parse().ok().filter(|v| (0.0..=60.0).contains(v))?;
        nanoseconds += value * unit;
    }
    Some(i128::from(days) * DAY + nanoseconds.round() as i128 - zone)
}

/// Splits `05:00+02:00` into the clock and the nanoseconds that its zone is ahead of UTC.
fn zone(clock: &str) -> Option<(&str, i128)> {
    for utc in ["Z", "UTC", "GMT"] {
        if let Some(clock) = clock.strip_suffix(utc) {
            return Some((clock.trim(), 0));
        }
    }
    let Some(at) = clock.rfind(['+', '-']) else { return Some((clock, 0)) };
    let digits: String = clock[at + 1..].chars().filter(|c| *c != ':').collect();
    // At most four: the text may come from anyone, and more would overflow.
    let number: i128 = digits.parse().ok().filter(|_| digits.len() <= 4)?;
    let minutes = if digits.len() <= 2 { number * 60 } else { number / 100 * 60 + number % 100 };
    let sign = if clock[at..].starts_with('-') { -1 } else { 1 };
    Some((clock[..at].trim(), sign * minutes * 60_000_000_000))
}

/// Days from 1970-01-01 to a civil date, Gregorian or Julian, by years that begin in March.
fn days(year: i64, month: i64, day: i64, julian: bool) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = if julian {
        // The two calendars agree on 0000-03-01 but for these two days.
        year.div_euclid(4) - 2
    } else {
        year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400)
    };
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_unit_and_reference_date() {
        let decode = |units, value| Encoding::parse(units, None).unwrap().decode(value).unwrap();
        let noon = 946_728_000_000_000_000;
        assert_eq!(decode("days since 2000-01-01 12:00", 0), noon);
        assert_eq!(decode("hours since 2000-01-01T00:00:00Z", 12), noon);
        assert_eq!(decode("minutes since 2000-1-1 14:00 +02:00", 0), noon);
        assert_eq!(decode("seconds since 1970-01-01 00:00:00.0", 946_728_000), noon);
        assert_eq!(decode("milliseconds since 2000-01-01 12:00", 3), noon + 3_000_000);
        assert_eq!(decode("microseconds since 2000-01-01T12:00:00Z", -4), noon - 4_000);
        assert_eq!(decode("nanoseconds since 2000-01-01 12:00:00.5", 7), noon + 500_000_007);
    }

    #[test]
    fn the_standard_calendar_is_julian_before_1582() {
        // cftime: date2num(2000-01-01, "days since 0001-01-01", c) = 730121 (standard), 730119.
        let decode = |calendar, value| {
            Encoding::parse("days since 0001-01-01", Some(calendar)).unwrap().decode(value)
        };
        assert_eq!(decode("standard", 730_121), Some(946_684_800_000_000_000));
        assert_eq!(decode("proleptic_gregorian", 730_119), Some(946_684_800_000_000_000));
    }

    #[test]
    fn float_times_are_whole_seconds_where_they_can_be() {
        let days = Encoding::parse("days since 1970-01-01", None).unwrap();
        for step in 0..2_000 {
            let seconds = 1_282_780_800 + 300 * step;
            let decoded = days.decode_float(seconds as f64 / 86_400.0);
            assert_eq!(decoded, Some(seconds * 1_000_000_000));
        }
        assert_eq!(days.decode_float(f64::NAN), None);
        assert_eq!(days.decode_float(1e300), None);
    }

    #[test]
    fn refuses_what_it_cannot_tell() {
        for (units, calendar) in [
            ("months since 2000-01-01", None),
            ("seconds", None),
            ("days since yesterday", None),
            ("days since 2000-01-01", Some("noleap")),
            ("days since 2000-01-01", Some("360_day")),
        ] {
            assert!(Encoding::parse(units, calendar).is_err(), "{units} {calendar:?}");
        }
        assert!(parse_time("2500-01-01").is_err());
        assert_eq!(parse_time("2010-08-26T07:00").unwrap(), 1_282_806_000_000_000_000);
    }
}
