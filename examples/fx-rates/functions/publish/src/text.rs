//! Numbers, days and months as people read them, and text that is safe inside a page.

use std::fmt::{self, Display, Write};

use rust_decimal::Decimal;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Text for a page, between tags or in a quoted attribute.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A rate with about five significant digits, thousands apart.
pub(crate) fn rate(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 2,
        size if size >= 10.0 => 3,
        _ => 4,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// A fraction in percent with a sign; the sign carries the meaning, not a colour.
pub(crate) fn signed_percent(fraction: f64) -> String {
    let percent = format!("{:.1}", fraction.abs() * 100.0);
    let sign = match percent.as_str() {
        "0.0" => "±",
        _ if fraction < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{}\u{a0}%", grouped(&percent))
}

/// A fraction in percent without a sign.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1}\u{a0}%", fraction * 100.0)
}

/// An amount in euro and cents, thousands apart.
pub(crate) fn money(amount: Decimal) -> String {
    format!("€\u{a0}{}", grouped(&format!("{amount:.2}")))
}

/// `Oct 2026`, of months since the year 0.
pub(crate) fn month(index: i32) -> String {
    let name = usize::try_from(index.rem_euclid(12)).map_or("", |at| MONTHS[at]);
    format!("{name}\u{a0}{}", index.div_euclid(12))
}

/// `15 Jul 2008`, of `2008-07-15`.
pub(crate) fn day(iso: &str) -> String {
    let parts = (iso.get(..4), iso.get(5..7), iso.get(8..10));
    let (Some(year), Some(month), Some(day)) = parts else {
        return iso.to_owned();
    };
    let name = month
        .parse::<usize>()
        .ok()
        .and_then(|at| MONTHS.get(at.wrapping_sub(1)));
    format!(
        "{}\u{a0}{}\u{a0}{year}",
        day.trim_start_matches('0'),
        name.unwrap_or(&month)
    )
}

/// Puts a narrow space between groups of three digits before the point.
pub(crate) fn grouped(number: &str) -> String {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(rest) => ("−", rest),
        None => ("", number),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut text = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_days_read_as_people_write_them() {
        assert_eq!(rate(1.1172), "1.1172");
        assert_eq!(rate(372_274.0), "372\u{202f}274");
        assert_eq!(rate(175.68), "175.68");
        assert_eq!(signed_percent(-0.0349), "−3.5\u{a0}%");
        assert_eq!(signed_percent(0.0349), "+3.5\u{a0}%");
        assert_eq!(signed_percent(-0.0001), "±0.0\u{a0}%");
        assert_eq!(
            money(Decimal::new(-123_456_789, 2)),
            "€\u{a0}−1\u{202f}234\u{202f}567.89"
        );
        assert_eq!(month(2026 * 12 + 9), "Oct\u{a0}2026");
        assert_eq!(day("2008-07-05"), "5\u{a0}Jul\u{a0}2008");
    }

    #[test]
    fn nothing_in_a_text_can_open_a_tag_or_close_an_attribute() {
        assert_eq!(Escaped("<a b='\"&").to_string(), "&lt;a b=&#39;&quot;&amp;");
    }
}
