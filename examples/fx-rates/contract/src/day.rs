//! Days of the Gregorian calendar, written as ISO 8601 does: four digits, two and two.

/// A day, as the number of days since 1 March of the year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day that a text such as `2024-02-29` names; `None` for any other form, and for days that
    /// the calendar does not have.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let shape = bytes.len() == 10
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !shape {
            return None;
        }
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap_or(0);
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        if year == 0 || !(1..=length).contains(&day) {
            return None;
        }
        // A year that begins in March ends with its leap day, so that months have fixed offsets.
        let (year, month) = if month < 3 {
            (year - 1, month + 9)
        } else {
            (year, month - 3)
        };
        let leap_days = year / 4 - year / 100 + year / 400;
        Some(Self(
            365 * year + leap_days + (153 * month + 2) / 5 + day - 1,
        ))
    }

    /// How many days this day is after `other`; negative if it is before.
    #[must_use]
    pub fn days_after(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_the_calendar_does_not_have_are_refused() {
        for text in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-04-31",
            "0000-01-01",
            "2024-1-1",
            "01.02.2024",
            "2024-01-0x",
            "2024-01-011",
            "",
            "２024-01-1",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn days_are_counted_through_leap_years_and_centuries() {
        for (from, to, days) in [
            ("2024-02-28", "2024-03-01", 2),
            ("2023-02-28", "2023-03-01", 1),
            ("1900-02-28", "1900-03-01", 1),
            ("1999-12-31", "2000-01-01", 1),
            ("1999-01-04", "2026-10-30", 10_161),
            ("2024-03-01", "2024-01-01", -60),
        ] {
            let counted = Day::parse(from)
                .zip(Day::parse(to))
                .map(|(a, b)| b.days_after(a));
            assert_eq!(counted, Some(days), "{from} to {to}");
        }
    }
}
