//! Plain scalars by the core schema of YAML 1.2 (section 10.3), as far as JSON has a value for it.

use serde_json::{Number, Value};

/// A plain scalar as a value.
///
/// # Errors
/// Why the number that it spells cannot be held.
pub(super) fn resolve(text: &str) -> Result<Value, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err("only finite numbers have a meaning here");
    }
    let too_large = "the number is too large to be held exactly";
    if let Some((digits, radix)) = prefixed(text) {
        return u64::from_str_radix(digits, radix)
            .map(Value::from)
            .map_err(|_| too_large);
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let number = text.strip_prefix('+').unwrap_or(text);
        let signed = number.parse::<i64>().map(Number::from);
        return signed
            .or_else(|_| number.parse::<u64>().map(Number::from))
            .map(Value::Number)
            .map_err(|_| too_large);
    }
    if is_float(unsigned) {
        let finite = text.parse::<f64>().ok().and_then(Number::from_f64);
        return finite.map(Value::Number).ok_or(too_large);
    }
    Ok(Value::String(text.to_owned()))
}

fn prefixed(text: &str) -> Option<(&str, u32)> {
    let (digits, radix) = match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
        (Some(digits), _) => (digits, 8),
        (_, Some(digits)) => (digits, 16),
        _ => return None,
    };
    let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    valid.then_some((digits, radix))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let mantissa_valid = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_valid = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_valid && exponent_valid
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("True", json!(true)),
            ("yes", json!("yes")),
            ("no", json!("no")),
            ("12", json!(12)),
            ("+12", json!(12)),
            ("-3", json!(-3)),
            ("18446744073709551615", json!(u64::MAX)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("2.", json!(2.0)),
            ("1e3", json!(1000.0)),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("-", json!("-")),
            ("500ms", json!("500ms")),
            ("2022-05", json!("2022-05")),
            ("1_000", json!("1_000")),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for text in [
            ".nan",
            "-.inf",
            "1e999",
            "18446744073709551616",
            "0xfffffffffffffffff",
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
