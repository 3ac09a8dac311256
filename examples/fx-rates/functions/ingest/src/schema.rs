//! What a row of the published file must look like.

use fx_contract::day::Day;

/// The currencies of the published file, in its order.
pub(crate) const CURRENCIES: [&str; 41] = [
    "USD", "JPY", "BGN", "CYP", "CZK", "DKK", "EEK", "GBP", "HUF", "LTL", "LVL", "MTL", "PLN",
    "ROL", "RON", "SEK", "SIT", "SKK", "CHF", "ISK", "NOK", "HRK", "RUB", "TRL", "TRY", "AUD",
    "BRL", "CAD", "CNY", "HKD", "IDR", "ILS", "INR", "KRW", "MXN", "MYR", "NZD", "PHP", "SGD",
    "THB", "ZAR",
];

/// The date, every currency, and the empty field that ends each line of the published file.
pub(crate) const WIDTH: usize = CURRENCIES.len() + 2;

/// What the published file has where no rate was published.
const UNPUBLISHED: &str = "N/A";

/// Digits before and after the point that a rate may have: those of `decimal(18,6)`.
const MAX_DIGITS: (usize, usize) = (12, 6);

/// The schema as a text, whose digest goes with each record that did not meet it.
pub(crate) fn description() -> String {
    format!(
        "Date: YYYY-MM-DD; {}: {UNPUBLISHED} or a positive number of at most {} and {} digits",
        CURRENCIES.join(", "),
        MAX_DIGITS.0,
        MAX_DIGITS.1,
    )
}

/// Why a row is not landed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    #[error("the row has {found} fields where {WIDTH} are expected")]
    Width { found: usize },
    #[error("the row is not UTF-8")]
    Encoding,
    #[error("`{text}` is not a date as in 1999-01-04")]
    Date { text: String },
    #[error("the date {text} was in the file before")]
    Repeated { text: String },
    #[error("{currency} is `{text}`, which is neither {UNPUBLISHED} nor a positive decimal number")]
    Rate {
        currency: &'static str,
        text: String,
    },
    #[error("`{text}` stands after the last currency, where nothing is expected")]
    Trailing { text: String },
}

/// Whether `header` is the published file's: its names, and nothing after the last comma.
pub(crate) fn is_header(header: &csv::ByteRecord) -> bool {
    let expected = std::iter::once("Date").chain(CURRENCIES).chain([""]);
    header.iter().eq(expected.map(str::as_bytes))
}

/// Holds a row against the schema, and answers with its fields less the empty last one.
pub(crate) fn check(row: &csv::ByteRecord) -> Result<Vec<&str>, RowError> {
    if row.len() != WIDTH {
        return Err(RowError::Width { found: row.len() });
    }
    let mut fields = Vec::with_capacity(WIDTH);
    for field in row {
        fields.push(std::str::from_utf8(field).map_err(|_| RowError::Encoding)?);
    }
    if let Some(text) = fields.pop().filter(|text| !text.is_empty()) {
        return Err(RowError::Trailing {
            text: text.to_owned(),
        });
    }
    if Day::parse(fields[0]).is_none() {
        return Err(RowError::Date {
            text: fields[0].to_owned(),
        });
    }
    for (currency, text) in CURRENCIES.into_iter().zip(&fields[1..]) {
        if *text != UNPUBLISHED && !is_rate(text) {
            return Err(RowError::Rate {
                currency,
                text: (*text).to_owned(),
            });
        }
    }
    Ok(fields)
}

fn is_rate(text: &str) -> bool {
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text, None), |(a, b)| (a, Some(b)));
    let digits = |part: &str, most| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    digits(whole, MAX_DIGITS.0)
        && fraction.is_none_or(|part| digits(part, MAX_DIGITS.1))
        && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(date: &str, dollar: &str, last: &str) -> csv::ByteRecord {
        let mut fields = vec![UNPUBLISHED; WIDTH];
        (fields[0], fields[1], fields[WIDTH - 1]) = (date, dollar, last);
        csv::ByteRecord::from(fields)
    }

    #[test]
    fn a_published_row_loses_its_empty_last_field_and_nothing_else() {
        let row = row("2024-02-29", "1.0813", "");
        let fields = check(&row).expect("the row is good");
        assert_eq!(
            (fields.len(), fields[0], fields[1]),
            (42, "2024-02-29", "1.0813")
        );
    }

    #[test]
    fn a_row_without_a_day_of_the_calendar_is_refused() {
        for date in ["2023-02-29", "", "N/A"] {
            let text = date.to_owned();
            assert_eq!(check(&row(date, "1", "")), Err(RowError::Date { text }));
        }
    }

    #[test]
    fn a_rate_is_a_positive_decimal_that_fits_the_column() {
        for rate in [
            "",
            "-1",
            "+1",
            "1e3",
            ".5",
            "5.",
            "0",
            "0.000",
            "NaN",
            "1,5",
            "N/a",
            " 1",
            "1.1234567",
            "1234567890123",
        ] {
            let expected = RowError::Rate {
                currency: "USD",
                text: rate.to_owned(),
            };
            assert_eq!(check(&row("2024-01-02", rate, "")), Err(expected));
        }
        for rate in ["N/A", "1", "0.000001", "123456789012.123456"] {
            assert!(check(&row("2024-01-02", rate, "")).is_ok(), "{rate}");
        }
    }

    #[test]
    fn a_row_of_another_width_or_encoding_is_refused() {
        let narrow = csv::ByteRecord::from(vec!["2024-01-02", "1"]);
        assert_eq!(check(&narrow), Err(RowError::Width { found: 2 }));
        let text = "7".to_owned();
        assert_eq!(
            check(&row("2024-01-02", "1", "7")),
            Err(RowError::Trailing { text })
        );
        let mut latin = row("2024-01-02", "1", "")
            .iter()
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>();
        latin[1] = vec![0xe9];
        assert_eq!(
            check(&csv::ByteRecord::from(latin)),
            Err(RowError::Encoding)
        );
    }
}
