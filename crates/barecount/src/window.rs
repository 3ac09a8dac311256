//! Windows of logical time on the command line.

use barecount_model::run::Window;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

/// Parses `2024`, `2024-05`, `2024-05-17` (all in UTC) or `START/END`, each a day or an instant with
/// its offset (RFC 3339).
pub(crate) fn parse(text: &str) -> Result<Window, String> {
    let window = match text.split_once('/') {
        Some((start, end)) => Some((instant(start), instant(end))).and_then(|(start, end)| {
            Some(Window {
                start: start?,
                end: end?,
            })
        }),
        None => calendar(text),
    };
    let window = window.ok_or_else(|| {
        "a window is `2024`, `2024-05`, `2024-05-17`, or `START/END`, each a day or an instant with \
         its offset as in `2024-05-17T15:00:00Z`"
            .to_owned()
    })?;
    if window.start >= window.end {
        return Err("a window ends after it starts".to_owned());
    }
    Ok(window)
}

fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| midnight(day(text)?))
}

/// A day that is nothing but a day: a time beside it would be dropped.
fn day(text: &str) -> Option<Date> {
    let date: Date = text.parse().ok()?;
    (date.to_string() == text).then_some(date)
}

fn calendar(text: &str) -> Option<Window> {
    let digits = |part: &str, count: usize| {
        (part.len() == count && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<i16>().ok())
            .flatten()
    };
    let parts: Vec<&str> = text.split('-').collect();
    let (start, end) = match parts.as_slice() {
        [year] => {
            let start = Date::new(digits(year, 4)?, 1, 1).ok()?;
            (start, start.checked_add(1.year()).ok()?)
        }
        [year, month] => {
            let month = i8::try_from(digits(month, 2)?).ok()?;
            let start = Date::new(digits(year, 4)?, month, 1).ok()?;
            (start, start.checked_add(1.month()).ok()?)
        }
        _ => {
            let start = day(text)?;
            (start, start.tomorrow().ok()?)
        }
    };
    Some(Window {
        start: midnight(start)?,
        end: midnight(end)?,
    })
}

fn midnight(date: Date) -> Option<Timestamp> {
    date.to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(window) => format!("{} {}", window.start, window.end),
            Err(reason) => reason,
        }
    }

    #[test]
    fn a_window_is_a_year_a_month_a_day_or_two_instants() {
        assert_eq!(shown("2024"), "2024-01-01T00:00:00Z 2025-01-01T00:00:00Z");
        assert_eq!(
            shown("2024-12"),
            "2024-12-01T00:00:00Z 2025-01-01T00:00:00Z"
        );
        assert_eq!(
            shown("2024-02-29"),
            "2024-02-29T00:00:00Z 2024-03-01T00:00:00Z"
        );
        assert_eq!(
            shown("2024-05-01T10:00:00+02:00/2024-05-02"),
            "2024-05-01T08:00:00Z 2024-05-02T00:00:00Z"
        );
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_forms_that_are() {
        for text in [
            "",
            "24",
            "2024-13",
            "2024-02-30",
            "2024-5",
            "now",
            "2024/",
            "-2024",
            "2024-05-17T15:00:00",
            "2024-05-17 15:00",
            "2024-05-17T15:00:00Z",
            "2024-05-17T00:00[Europe/Berlin]",
            "20240517",
            "2024-01-01T10:00/2024-01-02T18:00",
            "2024-01-01/2024-01-02T18:00:00",
            "2024-01-01T10:00:00Z/2024-01-02T18:00:00",
        ] {
            assert!(
                shown(text).starts_with("a window is"),
                "{text}: {}",
                shown(text)
            );
        }
        assert_eq!(
            shown("2025-01-01/2024-01-01"),
            "a window ends after it starts"
        );
    }
}
