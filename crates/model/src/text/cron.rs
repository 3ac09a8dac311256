//! Schedules: cron expressions of five fields, and time zones by their IANA names.

use super::{InvalidText, text_value};

/// A cron expression: minute, hour, day of month, month, day of week, as crontab(5) of Vixie cron
/// reads them. Where both days are restricted, either one suffices, as there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

impl Cron {
    /// Whether the schedule fires in the minute that starts at this local time.
    pub fn fires_at(&self, local: jiff::civil::DateTime) -> bool {
        let has = |set: u64, number: i8| set >> number & 1 == 1;
        let day = has(self.days, local.day());
        let weekday = has(self.weekdays, local.weekday().to_sunday_zero_offset());
        let date = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        has(self.minutes, local.minute())
            && has(self.hours, local.hour())
            && has(self.months, local.month())
            && date
    }
}

impl std::fmt::Display for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

impl std::str::FromStr for Cron {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        // Spaces stand between fields only; other white space is part of one, which refuses it.
        let fields: Vec<&str> = match text.starts_with(' ') || text.ends_with(' ') {
            true => Vec::new(),
            false => text.split(' ').filter(|field| !field.is_empty()).collect(),
        };
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(InvalidText::new(
                "a cron expression has five fields with spaces between them: minute, hour, day of month, month, day of week",
            ));
        };
        let weekdays = Field::WEEKDAY.parse(weekday)?;
        let days = Field::DAY.parse(day)?;
        let months = Field::MONTH.parse(month)?;
        let longest = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let possible = (1..=12).any(|month: u32| {
            months >> month & 1 == 1 && days & ((2 << longest[month as usize - 1]) - 2) != 0
        });
        if !possible && !either_day {
            return Err(InvalidText::new(
                "none of its months has such a day, so it never fires",
            ));
        }
        Ok(Self {
            text: fields.join(" "),
            minutes: Field::MINUTE.parse(minute)?,
            hours: Field::HOUR.parse(hour)?,
            days,
            months,
            // 7 is Sunday too
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day,
        })
    }
}

text_value!(
    Cron,
    "barecount-cron",
    "a cron expression",
    "^\\S+( +\\S+){4}$",
    "Five fields: minute, hour, day of month, month, day of week, as in `30 16 * * MON-FRI`."
);

struct Field {
    what: &'static str,
    least: u64,
    most: u64,
    names: &'static [&'static str],
}

impl Field {
    const MINUTE: Self = Self {
        what: "minute",
        least: 0,
        most: 59,
        names: &[],
    };
    const HOUR: Self = Self {
        what: "hour",
        least: 0,
        most: 23,
        names: &[],
    };
    const DAY: Self = Self {
        what: "day of month",
        least: 1,
        most: 31,
        names: &[],
    };
    const MONTH: Self = Self {
        what: "month",
        least: 1,
        most: 12,
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
    };
    const WEEKDAY: Self = Self {
        what: "day of week",
        least: 0,
        most: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    };

    /// The set of numbers that a field allows, a bit each.
    fn parse(&self, text: &str) -> Result<u64, InvalidText> {
        let mut set = 0;
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (item, None),
            };
            let step_by = match step.map(str::parse::<usize>) {
                None => 1,
                Some(Ok(step @ 1..=59)) => step,
                Some(_) => return Err(self.invalid(item)),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((first, last)) => (self.number(first, item)?, self.number(last, item)?),
                None if step.is_some() => (self.number(range, item)?, self.most),
                None => (self.number(range, item)?, self.number(range, item)?),
            };
            if first > last {
                return Err(self.invalid(item));
            }
            for number in (first..=last).step_by(step_by) {
                set |= 1 << number;
            }
        }
        Ok(set)
    }

    fn number(&self, text: &str, item: &str) -> Result<u64, InvalidText> {
        if let Some(index) = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text))
        {
            return Ok(self.least + index as u64);
        }
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number
            .filter(|n| (self.least..=self.most).contains(n))
            .ok_or_else(|| self.invalid(item))
    }

    fn invalid(&self, item: &str) -> InvalidText {
        let item: String = item.chars().take(20).collect();
        InvalidText::new(format!(
            "`{}` is not a {} ({} to {})",
            item.escape_debug(),
            self.what,
            self.least,
            self.most
        ))
    }
}

/// The IANA name of a time zone, as in `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TimeZoneName(String);

impl TimeZoneName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for TimeZoneName {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        // the database inside the binary: what a name means does not depend on the host
        let database = jiff::tz::TimeZoneDatabase::bundled();
        if database.get(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
        let hint = crate::diagnostic::suggestion(text, names.iter().map(String::as_str))
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        Err(InvalidText::new(format!(
            "the IANA database has no such time zone{hint}"
        )))
    }
}

text_value!(
    TimeZoneName,
    "barecount-time-zone",
    "a time zone",
    "^[A-Za-z][A-Za-z0-9_+/-]{0,63}$",
    "The IANA name of a time zone, as in `Europe/Berlin`, or `UTC`."
);

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_schedule_fires_in_the_minutes_that_it_names() -> Result<(), InvalidText> {
        let workdays: Cron = "30 16 * * MON-FRI".parse()?;
        assert!(workdays.fires_at(date(2026, 11, 20).at(16, 30, 0, 0)));
        assert!(
            !workdays.fires_at(date(2026, 11, 21).at(16, 30, 0, 0)),
            "a Saturday"
        );
        assert!(!workdays.fires_at(date(2026, 11, 20).at(16, 31, 0, 0)));
        let sundays: Cron = "*/20 0-6/2 * * 7".parse()?;
        assert!(sundays.fires_at(date(2026, 11, 22).at(4, 40, 0, 0)));
        assert!(!sundays.fires_at(date(2026, 11, 22).at(5, 40, 0, 0)));
        let either: Cron = "0 0 13 * FRI".parse()?;
        assert!(
            either.fires_at(date(2026, 11, 20).at(0, 0, 0, 0)),
            "a Friday"
        );
        assert!(
            either.fires_at(date(2026, 12, 13).at(0, 0, 0, 0)),
            "a thirteenth"
        );
        Ok(())
    }

    #[test]
    fn impossible_schedules_and_zones_are_refused_with_their_reason() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * * 13 *",
            "5-1 * * * *",
            "*/0 * * * *",
            "0 0 31 2,4 *",
        ] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
        let error = "Europe/Berlln"
            .parse::<TimeZoneName>()
            .map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err(
                "the IANA database has no such time zone; did you mean `Europe/Berlin`?".to_owned()
            )
        );
    }
}
