//! Durations, sizes in bytes and decimal numbers.

use super::{InvalidText, text_value};

/// A span of time in whole milliseconds, written with one unit: `500ms`, `30s`, `15m`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

impl Duration {
    const UNITS: [(&'static str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    const MAX: u64 = 366 * 86_400_000;

    /// A duration of that many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// A duration of that many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self {
            millis: seconds * 1_000,
        }
    }

    /// The duration in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.millis
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        Self::from_millis(duration.millis)
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |(_, worth): &&(&str, u64)| self.millis.is_multiple_of(*worth);
        match Self::UNITS.iter().find(whole) {
            Some((unit, worth)) if self.millis > 0 => write!(f, "{}{unit}", self.millis / worth),
            _ => f.write_str("0s"),
        }
    }
}

impl std::str::FromStr for Duration {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let (number, unit) = number_and_unit(text);
        let worth = Self::UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, worth)| worth);
        match (
            number.parse::<u64>().ok().filter(|_| number.len() <= 9),
            worth,
        ) {
            (Some(number), Some(worth)) if number * worth <= Self::MAX => Ok(Self {
                millis: number * worth,
            }),
            (Some(_), Some(_)) => Err(InvalidText::new("a duration is at most 366 days")),
            _ => Err(InvalidText::new(
                "a duration is a whole number and one of `ms`, `s`, `m`, `h`, `d`, as in `90s`",
            )),
        }
    }
}

text_value!(
    Duration,
    "barecount-duration",
    "a duration",
    "^[0-9]{1,9}(ms|s|m|h|d)$",
    "A whole number and a unit: `500ms`, `30s`, `15m`, `2h`, `1d`; at most 366 days."
);

/// A size in bytes, written with a binary unit: `256MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize {
    bytes: u64,
}

impl ByteSize {
    const UNITS: [(&'static str, u64); 5] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("B", 1),
    ];

    /// That many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// That many mebibytes.
    pub const fn from_mib(mebibytes: u64) -> Self {
        Self {
            bytes: mebibytes << 20,
        }
    }

    /// The size in bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |(_, worth): &&(&str, u64)| self.bytes.is_multiple_of(*worth);
        match Self::UNITS.iter().find(whole) {
            Some((unit, worth)) if self.bytes > 0 => write!(f, "{}{unit}", self.bytes / worth),
            _ => f.write_str("0B"),
        }
    }
}

impl std::str::FromStr for ByteSize {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let (number, unit) = number_and_unit(text);
        let worth = Self::UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, worth)| worth);
        match (
            number.parse::<u64>().ok().filter(|_| number.len() <= 9),
            worth,
        ) {
            (Some(number), Some(worth)) => number
                .checked_mul(*worth)
                .map(|bytes| Self { bytes })
                .ok_or_else(|| InvalidText::new("a size is below 16 EiB")),
            _ => Err(InvalidText::new(
                "a size is a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, as in `256MiB`",
            )),
        }
    }
}

text_value!(
    ByteSize,
    "barecount-bytes",
    "a size",
    "^[0-9]{1,9}(B|KiB|MiB|GiB|TiB)$",
    "A whole number and a unit: `512KiB`, `256MiB`, `2GiB`."
);

/// A decimal number as text, so that no digit is lost: `0.000001`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DecimalText(String);

impl DecimalText {
    /// The number as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DecimalText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for DecimalText {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        if digits(whole, 38) && digits(fraction, 38) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidText::new(
                "a decimal number is written like `12`, `-1` or `0.000001`",
            ))
        }
    }
}

text_value!(
    DecimalText,
    "barecount-decimal",
    "a decimal number",
    "^-?[0-9]{1,38}(\\.[0-9]{1,38})?$",
    "A decimal number in quotes, so that no digit is lost: \"0.000001\"."
);

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_print_in_their_largest_whole_unit() {
        let duration = |text: &str| text.parse::<Duration>().map(|value| value.to_string());
        assert_eq!(duration("90s"), Ok("90s".to_owned()));
        assert_eq!(duration("24h"), Ok("1d".to_owned()));
        assert_eq!(duration("0ms"), Ok("0s".to_owned()));
        assert!(duration("1h30m").is_err() && duration("15").is_err() && duration("367d").is_err());
        let size = |text: &str| text.parse::<ByteSize>().map(|value| value.to_string());
        assert_eq!(size("1024MiB"), Ok("1GiB".to_owned()));
        assert!(size("256MB").is_err() && size("999999999TiB").is_err());
    }
}
