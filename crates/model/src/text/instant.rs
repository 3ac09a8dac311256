//! Moments, as people write them.

use super::{InvalidText, text_value};

/// A moment with its offset from UTC (RFC 3339): `2026-12-31T18:00:00+01:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(jiff::Timestamp);

impl Instant {
    /// The moment.
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Instant {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        // The parser takes more than the standard does.
        let shape = text.len() <= 35 && text.get(10..11) == Some("T");
        match text.parse() {
            Ok(timestamp) if shape => Ok(Self(timestamp)),
            _ => Err(InvalidText::new(
                "write date, `T`, time and offset, as in 2026-12-31T18:00:00Z",
            )),
        }
    }
}

text_value!(
    Instant,
    "barecount-instant",
    "a moment",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$",
    "A moment with its offset from UTC, as in 2026-12-31T18:00:00Z (RFC 3339)."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_date_a_time_and_an_offset() -> Result<(), InvalidText> {
        let berlin: Instant = "2026-12-31T18:00:00+01:00".parse()?;
        let utc: Instant = "2026-12-31T17:00:00Z".parse()?;
        assert_eq!(berlin, utc);
        assert_eq!(berlin.to_string(), "2026-12-31T17:00:00Z");
        for wrong in [
            "",
            "2026-12-31",
            "2026-12-31T18:00:00",
            "2026-12-31 18:00:00Z",
            "2026-02-30T18:00:00Z",
            "tomorrow",
        ] {
            assert!(wrong.parse::<Instant>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
