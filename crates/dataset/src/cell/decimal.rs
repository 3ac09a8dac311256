//! Decimals as text, exactly: digits that the scale cannot hold are refused.

use super::quoted;
use crate::dead_letter::Refusal;

/// Reads a decimal, exponent allowed, as its unscaled value.
pub(super) fn parse(text: &str, precision: u8, scale: u8) -> Result<i128, Refusal> {
    if let Some(unscaled) = plain(text, precision, scale) {
        return Ok(unscaled);
    }
    let refusal = |reason: String| Refusal::new(reason).found(quoted(text));
    let wrong = || refusal(format!("decimal({precision},{scale}) expected"));
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (
            &text[..at],
            text[at + 1..].parse::<i32>().map_err(|_| wrong())?,
        ),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || !all_digits(whole)
        || !all_digits(fraction)
        || (fraction.is_empty() && digits.contains('.'))
        || exponent.unsigned_abs() > 100
    {
        return Err(wrong());
    }
    let mut unscaled: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        unscaled = unscaled
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or_else(wrong)?;
    }
    let shift = i64::from(scale) + i64::from(exponent) - fraction.len() as i64;
    for _ in 0..shift.unsigned_abs() {
        unscaled = if shift > 0 {
            unscaled.checked_mul(10).ok_or_else(wrong)?
        } else if unscaled % 10 == 0 {
            unscaled / 10
        } else {
            return Err(refusal(format!("more than {scale} digits after the point")));
        };
    }
    if unscaled >= 10_i128.pow(u32::from(precision)) {
        return Err(refusal(format!("more than {precision} digits")));
    }
    Ok(if negative { -unscaled } else { unscaled })
}

/// Decimals of at most 18 digits without an exponent, which nearly all are.
fn plain(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, bytes),
    };
    if digits.len() > 19 {
        return None;
    }
    let (mut unscaled, mut point) = (0_u64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => unscaled = unscaled * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && at > 0 => point = Some(at),
            _ => return None,
        }
    }
    let after = match point {
        Some(at) => digits.len() - at - 1,
        None => 0,
    };
    if digits.is_empty() || (point.is_some() && after == 0) {
        return None;
    }
    let missing = usize::from(scale).checked_sub(after)?;
    let unscaled = i128::from(unscaled).checked_mul(10_i128.pow(u32::try_from(missing).ok()?))?;
    if unscaled >= 10_i128.pow(u32::from(precision)) {
        return None;
    }
    Some(if negative { -unscaled } else { unscaled })
}

/// The text of an unscaled value.
pub(super) fn text(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}
