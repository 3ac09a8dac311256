//! Days and instants as text.

use std::ops::RangeInclusive;

use super::quoted;
use crate::dead_letter::Refusal;

/// The day that dates are counted from.
const EPOCH: jiff::civil::Date = jiff::civil::date(1970, 1, 1);
const DAY_SECONDS: i64 = 86_400;
const DAY_MICROS: i64 = DAY_SECONDS * 1_000_000;

/// The days that a date may be: those of the years that four digits tell, 0000 to 9999.
pub(crate) const DAYS: RangeInclusive<i32> = -719_528..=2_932_896;
/// The instants that a timestamp may be: those of the same years in UTC.
pub(crate) const MICROS: RangeInclusive<i64> = -719_528 * DAY_MICROS..=2_932_897 * DAY_MICROS - 1;

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    days_of(
        number(&bytes[..4])?,
        number(&bytes[5..7])?,
        number(&bytes[8..])?,
    )
}

/// Microseconds since 1970-01-01T00:00:00Z of a text of RFC 3339. What a microsecond cannot hold
/// is refused, and so is a 61st second.
pub(super) fn parse_timestamp(text: &str) -> Result<i64, Refusal> {
    let plain = plain_timestamp(text.as_bytes());
    if let Some(micros) = plain.filter(|micros| MICROS.contains(micros)) {
        return Ok(micros);
    }
    let refusal = |reason: &str| Refusal::new(reason.to_owned()).found(quoted(text));
    let wrong = || refusal("timestamp (RFC 3339, with an offset) expected");
    let is_leap = text.get(16..19) == Some(":60");
    if is_leap || text.contains('[') {
        return Err(wrong());
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    if timestamp.as_nanosecond() % 1000 != 0 {
        return Err(refusal("more than 6 digits after the second"));
    }
    let micros = timestamp.as_microsecond();
    MICROS.contains(&micros).then_some(micros).ok_or_else(wrong)
}

/// `YYYY-MM-DDTHH:MM:SS`, digits after a point, and `Z` or an offset of hours and
/// minutes.
fn plain_timestamp(text: &[u8]) -> Option<i64> {
    let (start, rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| start[*at] != *byte) {
        return None;
    }
    let part = |from: usize, to: usize| number(&start[from..to]);
    let days = days_of(part(0, 4)?, part(5, 7)?, part(8, 10)?)?;
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = match rest.split_first()? {
        (b'.', after) => {
            let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return None;
            }
            let scale = 10_i64.pow(9 - u32::try_from(digits).ok()?);
            let nanos = i64::from(number(&after[..digits])?) * scale;
            if nanos % 1000 != 0 {
                return None;
            }
            (nanos / 1000, &after[digits..])
        }
        _ => (0, rest),
    };
    let offset = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours * 60 + minutes) * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    Some((i64::from(days) * DAY_SECONDS + seconds - offset) * 1_000_000 + micros)
}

/// A number of digits alone.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// Days since 1970-01-01 of a day of the Gregorian calendar (Hinnant, *chrono-Compatible
/// Low-Level Date Algorithms*, `days_from_civil`).
fn days_of(year: u32, month: u32, day: u32) -> Option<i32> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let year = i32::try_from(year).ok()? - i32::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = i32::try_from((month + 9) % 12).ok()?;
    let day_of_year = (153 * shifted + 2) / 5 + i32::try_from(day).ok()? - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// A day as `YYYY-MM-DD`; a day that no calendar reaches as its number.
pub(crate) fn date_text(days: i32) -> String {
    date_of(days).map_or_else(|| days.to_string(), |date| date.to_string())
}

fn date_of(days: i32) -> Option<jiff::civil::Date> {
    let span = jiff::Span::new().try_days(days).ok()?;
    EPOCH.checked_add(span).ok()
}

/// An instant as RFC 3339, digits of a second as many as it has; one that no calendar reaches as
/// its number.
pub(super) fn timestamp_text(micros: i64) -> String {
    let (seconds, micros_of) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (
        seconds.div_euclid(DAY_SECONDS),
        seconds.rem_euclid(DAY_SECONDS),
    );
    let date = i32::try_from(days).ok().and_then(date_of);
    let Some(date) = date else {
        return micros.to_string();
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if micros_of == 0 {
        String::new()
    } else {
        let digits = format!("{micros_of:06}");
        format!(".{}", digits.trim_end_matches('0'))
    };
    format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_instants_are_those_of_the_calendar() {
        for days in (-719_162..2_932_896).step_by(13) {
            let text = date_text(days);
            assert_eq!(parse_date(&text), Some(days), "{text}");
            let micros = i64::from(days) * DAY_MICROS + i64::from(days.unsigned_abs());
            let text = timestamp_text(micros);
            let read = plain_timestamp(text.as_bytes());
            assert_eq!(read, Some(micros), "{text}");
        }
        let offset = plain_timestamp(b"2024-03-01T00:30:00.5+01:00");
        assert_eq!(timestamp_text(-1), "1969-12-31T23:59:59.999999Z");
        let parsed = "2024-02-29T23:30:00.500Z".parse::<jiff::Timestamp>();
        assert_eq!(offset, parsed.ok().map(jiff::Timestamp::as_microsecond));
    }
}
