//! Puts an amount into euro at the reference rate in force on the day of issue.
//!
//! The rate in force is the last one published on or before that day, if that was not more than
//! [`MAX_AGE`] days earlier. A rate is what one euro buys, so the amount is divided by it. The
//! quotient is rounded once, to cents, half to even.

use std::collections::HashMap;

use fx_contract::day::Day;
use rust_decimal::{Decimal, RoundingStrategy};

/// What an invoice must look like, as a text whose digest goes with each one that does not.
pub(crate) const SCHEMA: &str = "invoice_id: text; issued: YYYY-MM-DD; currency: three capital \
     letters; amount: at most 15 digits and 2 decimals";

/// How old a rate may be and still count as in force, in days. Easter and the turn of the year leave
/// four or five days without rates; a gap of more means that the currency is no longer published.
const MAX_AGE: i64 = 10;

/// Why an invoice cannot be put into euro.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvoiceError {
    #[error("the invoice has no number")]
    Number,
    #[error("`{0}` is not a date as in 2024-01-31")]
    Issued(String),
    #[error("`{0}` is not a currency code")]
    Currency(String),
    #[error("`{0}` is not an amount of at most 15 digits and 2 decimals")]
    Amount(String),
    #[error("no {currency} rate was published in the {MAX_AGE} days up to {issued}")]
    NoRate { currency: String, issued: String },
}

/// An invoice, as far as it is needed for its conversion.
#[derive(Debug)]
pub(crate) struct Invoice<'a> {
    issued: &'a str,
    day: Day,
    currency: &'a str,
    amount: Decimal,
}

impl<'a> Invoice<'a> {
    /// Parses number, day of issue, currency and amount.
    pub(crate) fn parse(
        [number, issued, currency, amount]: [&'a str; 4],
    ) -> Result<Self, InvoiceError> {
        if number.is_empty() {
            return Err(InvoiceError::Number);
        }
        let day = Day::parse(issued).ok_or_else(|| InvoiceError::Issued(issued.to_owned()))?;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(InvoiceError::Currency(currency.to_owned()));
        }
        let amount =
            decimal(amount, 15, 2).ok_or_else(|| InvoiceError::Amount(amount.to_owned()))?;
        Ok(Self {
            issued,
            day,
            currency,
            amount,
        })
    }
}

/// What an invoice is in euro, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Euro {
    rate_date: String,
    rate: Decimal,
    amount: Decimal,
    amount_eur: Decimal,
}

impl Euro {
    /// The fields of a row of `gdp.invoices_eur`.
    pub(crate) fn fields(&self, year: &str, row: [&str; 4]) -> [String; 8] {
        let [number, issued, currency, _] = row;
        [
            year.to_owned(),
            number.to_owned(),
            issued.to_owned(),
            currency.to_owned(),
            format!("{:.2}", self.amount),
            self.rate_date.clone(),
            format!("{:.6}", self.rate),
            format!("{:.2}", self.amount_eur),
        ]
    }
}

struct Published {
    day: Day,
    date: String,
    rate: Decimal,
}

/// Published rates by currency.
#[derive(Default)]
pub(crate) struct Rates(HashMap<String, Vec<Published>>);

impl Rates {
    /// Adds a rate; false if it is not a positive decimal number for a day.
    pub(crate) fn add(&mut self, date: &str, currency: &str, rate: &str) -> bool {
        let (Some(day), Some(rate)) = (Day::parse(date), decimal(rate, 12, 6)) else {
            return false;
        };
        let published = Published {
            day,
            date: date.to_owned(),
            rate,
        };
        self.0
            .entry(currency.to_owned())
            .or_default()
            .push(published);
        rate > Decimal::ZERO
    }

    /// Puts the rates of each currency in the order of their days; to be called after the last `add`.
    pub(crate) fn sort(&mut self) {
        self.0
            .values_mut()
            .for_each(|rates| rates.sort_by_key(|published| published.day));
    }

    /// Puts an invoice into euro; an invoice in euro keeps its amount, at a rate of one.
    pub(crate) fn convert(&self, invoice: &Invoice<'_>) -> Result<Euro, InvoiceError> {
        let (rate_date, rate) = if invoice.currency == "EUR" {
            (invoice.issued, Decimal::ONE)
        } else {
            self.in_force(invoice.currency, invoice.day)
                .ok_or_else(|| InvoiceError::NoRate {
                    currency: invoice.currency.to_owned(),
                    issued: invoice.issued.to_owned(),
                })?
        };
        // A quotient that is not a tie differs from one by at least 1 / (200 rate), many orders more
        // than the last of the 28 digits that the division keeps: rounding twice is rounding once.
        let amount_eur = (invoice.amount / rate)
            .round_dp_with_strategy(2, RoundingStrategy::MidpointNearestEven);
        Ok(Euro {
            rate_date: rate_date.to_owned(),
            rate,
            amount: invoice.amount,
            amount_eur,
        })
    }

    fn in_force(&self, currency: &str, day: Day) -> Option<(&str, Decimal)> {
        let rates = self.0.get(currency)?;
        let until = rates.partition_point(|published| published.day <= day);
        let last = rates[..until].last()?;
        (day.days_after(last.day) <= MAX_AGE).then_some((last.date.as_str(), last.rate))
    }
}

/// A plain decimal number within the digits given; no exponent, no sign but a leading minus.
fn decimal(text: &str, most_digits: usize, most_decimals: usize) -> Option<Decimal> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str, most| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    (digits(whole, most_digits) && digits(fraction, most_decimals))
        .then(|| Decimal::from_str_exact(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn euro(row: [&str; 4]) -> Result<Vec<String>, InvoiceError> {
        let mut rates = Rates::default();
        for (date, currency, rate) in [
            ("2024-04-02", "USD", "1.0749"),
            ("2024-03-28", "USD", "1.0811"),
            ("2024-03-28", "XTS", "8"),
            ("2024-03-28", "JPY", "163.45"),
        ] {
            assert!(rates.add(date, currency, rate));
        }
        rates.sort();
        let euro = Invoice::parse(row).and_then(|invoice| rates.convert(&invoice))?;
        Ok(euro.fields("2024", row)[4..].to_vec())
    }

    #[test]
    fn the_rate_in_force_is_the_last_one_on_or_before_the_day_of_issue() {
        for (issued, rate_date, rate, amount) in [
            ("2024-03-28", "2024-03-28", "1.081100", "92.50"),
            ("2024-04-01", "2024-03-28", "1.081100", "92.50"),
            ("2024-04-02", "2024-04-02", "1.074900", "93.03"),
            ("2024-04-12", "2024-04-02", "1.074900", "93.03"),
        ] {
            let expected = ["100.00", rate_date, rate, amount]
                .map(str::to_owned)
                .to_vec();
            assert_eq!(euro(["1", issued, "USD", "100"]), Ok(expected));
        }
        for (issued, currency) in [
            ("2024-03-27", "USD"),
            ("2024-04-13", "USD"),
            ("2024-03-28", "RUB"),
        ] {
            let expected = InvoiceError::NoRate {
                currency: currency.to_owned(),
                issued: issued.to_owned(),
            };
            assert_eq!(euro(["1", issued, currency, "100"]), Err(expected));
        }
    }

    #[test]
    fn a_tie_is_rounded_to_the_even_cent_on_both_sides_of_zero() {
        // An eighth of these is 0.005, 0.015 and 0.025, exactly.
        for (amount, cents) in [
            ("0.04", "0.00"),
            ("0.12", "0.02"),
            ("0.20", "0.02"),
            ("-0.12", "-0.02"),
        ] {
            let fields = euro(["1", "2024-03-28", "XTS", amount]).expect("the invoice is good");
            assert_eq!(fields[3], cents, "{amount}");
        }
    }

    #[test]
    fn an_amount_in_euro_is_kept() {
        let expected = ["7.30", "2019-01-01", "1.000000", "7.30"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(euro(["1", "2019-01-01", "EUR", "7.3"]), Ok(expected));
    }

    #[test]
    fn what_is_not_an_invoice_says_which_field_is_wrong() {
        let good = ["1", "2024-03-28", "USD", "1"];
        let wrong = |position: usize, text: &'static str| {
            let mut row = good;
            row[position] = text;
            euro(row)
        };
        assert_eq!(wrong(0, ""), Err(InvoiceError::Number));
        assert_eq!(
            wrong(1, "28.03.2024"),
            Err(InvoiceError::Issued("28.03.2024".into()))
        );
        assert_eq!(wrong(2, "usd"), Err(InvoiceError::Currency("usd".into())));
        for amount in [
            "",
            "-",
            "1e3",
            "1_0",
            "1.005",
            "+1",
            "1.",
            "1234567890123456",
            "NaN",
        ] {
            assert_eq!(wrong(3, amount), Err(InvoiceError::Amount(amount.into())));
        }
    }
}
