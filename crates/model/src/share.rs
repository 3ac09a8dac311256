//! Shares of a whole, and limits on how many rows may not fit.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::manifest::DeadLetterLimits;

/// A share of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

// It is never NaN.
impl Eq for Share {}

/// A number that is no share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a share is a number from 0 to 1")]
pub struct InvalidShare;

impl Share {
    /// Whether `part` is more than this share of `whole`. By division, which gives 29 of 100 the
    /// same number as `0.29` is read as; a product would not.
    pub fn is_exceeded(self, part: u64, whole: u64) -> bool {
        part as f64 / whole as f64 > self.0
    }
}

impl TryFrom<f64> for Share {
    type Error = InvalidShare;

    fn try_from(number: f64) -> Result<Self, InvalidShare> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidShare)
        }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "A share of a whole, from 0 to 1.",
        })
    }
}

/// Too many rows of an output did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyLetters {
    /// None did, and nobody said that this is all right.
    #[error(
        "none of its {rows} rows fits; where that is all right, set `dead_letters: {{ max_share: 1 }}`"
    )]
    All {
        /// How many rows there were.
        rows: u64,
    },
    /// More than were allowed.
    #[error("{letters} of its {rows} rows do not fit, and `max_count` allows {allowed}")]
    Count {
        /// How many did not fit.
        letters: u64,
        /// How many rows there were.
        rows: u64,
        /// How many were allowed.
        allowed: u64,
    },
    /// A larger share than was allowed.
    #[error("{letters} of its {rows} rows do not fit, and `max_share` allows {allowed} of them")]
    Share {
        /// How many did not fit.
        letters: u64,
        /// How many rows there were.
        rows: u64,
        /// The share that was allowed.
        allowed: Share,
    },
}

impl DeadLetterLimits {
    /// Holds the dead letters of an output, beside `good` rows that fit, against the limits.
    ///
    /// # Errors
    /// If there are too many.
    pub fn hold(&self, letters: u64, good: u64) -> Result<(), TooManyLetters> {
        let rows = letters.saturating_add(good);
        if letters == 0 {
            return Ok(());
        }
        if let Some(allowed) = self.max_count.filter(|allowed| letters > *allowed) {
            return Err(TooManyLetters::Count {
                letters,
                rows,
                allowed,
            });
        }
        match self.max_share {
            None if good == 0 => Err(TooManyLetters::All { rows }),
            Some(allowed) if allowed.is_exceeded(letters, rows) => Err(TooManyLetters::Share {
                letters,
                rows,
                allowed,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_share: Option<f64>, max_count: Option<u64>) -> DeadLetterLimits {
        let share = |number| Share::try_from(number).expect("it is a share");
        DeadLetterLimits {
            max_share: max_share.map(share),
            max_count,
        }
    }

    #[test]
    fn rows_of_which_none_fits_are_too_many_unless_the_share_says_otherwise() {
        let all = Err(TooManyLetters::All { rows: 3 });
        assert_eq!(limits(None, None).hold(3, 0), all);
        assert_eq!(limits(None, Some(5)).hold(3, 0), all);
        assert_eq!(limits(Some(1.0), None).hold(3, 0), Ok(()));
        assert_eq!(limits(None, None).hold(300_000, 1), Ok(()));
        assert_eq!(limits(None, None).hold(0, 0), Ok(()));
    }

    #[test]
    fn a_share_is_exceeded_by_one_row_more_than_it_allows() {
        let tenth = limits(Some(0.1), None);
        assert_eq!(tenth.hold(10, 90), Ok(()));
        assert!(tenth.hold(11, 90).is_err());
        let hundredths = limits(Some(0.29), None);
        assert_eq!(hundredths.hold(29, 71), Ok(()));
        assert!(hundredths.hold(30, 71).is_err());
        assert!(limits(Some(0.0), None).hold(1, 1 << 40).is_err());
        assert_eq!(limits(None, Some(2)).hold(2, 1), Ok(()));
        assert!(limits(None, Some(2)).hold(3, 1_000).is_err());
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for number in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::try_from(number), Err(InvalidShare), "{number}");
        }
        for number in [0.0, 0.05, 0.1, 0.333_333, 1.0] {
            assert_eq!(Share::try_from(number).map(f64::from), Ok(number));
        }
    }
}
