//! Values written as digits: base64, base32, and lists of numbers.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The digits of an encoding that depend on a value alone.
pub(super) struct Within {
    pub(super) digits: Vec<u8>,
    /// Whether the digit before shares bits with the value.
    pub(super) left: bool,
    /// Whether the digit behind shares bits with the value.
    pub(super) right: bool,
}

/// Encodes `value` behind `before` other bytes, where a digit has `bits` bits, and takes the digits
/// that depend on it alone.
fn within(
    value: &[u8],
    before: usize,
    bits: usize,
    encode: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Within {
    let padded = [&[0; 5][..before], value].concat();
    let text = encode(&padded);
    let (first, end) = ((before * 8).div_ceil(bits), padded.len() * 8 / bits);
    Within {
        digits: text[first..end].to_vec(),
        left: !(before * 8).is_multiple_of(bits),
        right: !(padded.len() * 8).is_multiple_of(bits),
    }
}

/// `value` in base64 (RFC 4648), whole: padded and not.
pub(super) fn base64(value: &[u8]) -> [Vec<u8>; 2] {
    [STANDARD, STANDARD_NO_PAD].map(|engine| engine.encode(value).into_bytes())
}

/// `value` in base64, wherever in something longer that was encoded with it.
pub(super) fn within_base64(value: &[u8]) -> impl Iterator<Item = Within> {
    let encode = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes).into_bytes();
    (0..3).map(move |before| within(value, before, 6, encode))
}

/// `value` in base64 (either alphabet) of base64, wherever in something longer. Of the inner digits
/// that share bits with neighbours nothing is known, so that up to four bits at either end stay.
pub(super) fn within_base64_twice(value: &[u8]) -> Vec<Within> {
    let mut inner: Vec<Vec<u8>> = within_base64(value).map(|inner| inner.digits).collect();
    inner.push(STANDARD_NO_PAD.encode(value).into_bytes());
    let url_safe = inner.iter().map(|digits| {
        let other = |digit: &u8| match digit {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        };
        digits.iter().map(other).collect()
    });
    let all: std::collections::BTreeSet<Vec<u8>> = url_safe.chain(inner.clone()).collect();
    let outer = all.iter().flat_map(|digits| within_base64(digits));
    outer.collect()
}

/// `value` in base32 (RFC 4648, section 6), wherever in something longer.
pub(super) fn within_base32(value: &[u8]) -> impl Iterator<Item = Within> {
    (0..5).map(move |before| within(value, before, 5, base32))
}

/// Base32 without padding, in small letters.
pub(super) fn base32(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut count) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(DIGITS[(held >> count & 31) as usize]);
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(DIGITS[(held << (5 - count) & 31) as usize]);
    }
    text
}

/// `value` as a list of numbers, each way once: hexadecimal, with `0x` before each, decimal, and decimal
/// with a sign. A blank stands for whatever separates them, a sign included.
pub(super) fn lists(value: &[u8]) -> Vec<Vec<u8>> {
    let list = |number: &dyn Fn(u8) -> String| {
        let all: Vec<String> = value.iter().map(|byte| number(*byte)).collect();
        all.join(" ").into_bytes()
    };
    let mut lists = vec![
        list(&|byte| format!("{byte:02x}")),
        list(&|byte| format!("0x{byte:02x}")),
        list(&|byte| byte.to_string()),
    ];
    if !value.is_ascii() {
        lists.push(list(&|byte| byte.cast_signed().unsigned_abs().to_string()));
    }
    lists
}
