//! What holds for every secret, every encoding and every cut.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::encodings::{Choices, in_lines, json, percent};
use super::{in_parts, redactor, text};

pub(super) fn value() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 4..150);
    let ascii = "[ -~]{4,40}".prop_map(String::into_bytes);
    let unicode = "\\PC{4,40}".prop_map(String::into_bytes);
    prop_oneof![
        bytes,
        ascii,
        unicode,
        "[a-z%+/\\\\\"\n]{4,20}".prop_map(String::into_bytes)
    ]
    .prop_filter("long enough to be redacted", |value| {
        value.trim_ascii().len() >= 4
    })
}

/// One of the ways in which a value may turn up.
fn encoded(value: &[u8], way: u8, choices: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(choices);
    let utf8 = String::from_utf8(value.to_vec());
    // Bytes that are no text are written in JSON as if they were Latin-1.
    let as_text = utf8.unwrap_or_else(|_| value.iter().map(|b| char::from(*b)).collect());
    match way {
        0 => value.to_vec(),
        1 => hex::encode(value).into_bytes(),
        2 => hex::encode_upper(value).into_bytes(),
        3 => STANDARD.encode(value).into_bytes(),
        4 => STANDARD_NO_PAD.encode(value).into_bytes(),
        5 => URL_SAFE.encode(value).into_bytes(),
        6 => URL_SAFE_NO_PAD.encode(value).into_bytes(),
        7 => percent(value, &mut choices),
        8 => json(&as_text, &mut choices),
        9 => percent(STANDARD.encode(value).as_bytes(), &mut choices),
        10 => json(&STANDARD.encode(value), &mut choices),
        11 => {
            let inner = percent(value, &mut choices);
            percent(&inner, &mut choices)
        }
        12 => {
            let inner = json(&as_text, &mut choices);
            json(&String::from_utf8_lossy(&inner), &mut choices)
        }
        13 => {
            let inner = json(&as_text, &mut choices);
            percent(&inner, &mut choices)
        }
        14 => in_lines(STANDARD.encode(value).as_bytes(), 7, b"\r\n"),
        _ => in_lines(STANDARD.encode(value).as_bytes(), 20, b"\\n"),
    }
}

const WAYS: u8 = 16;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_secret_is_redacted_in_any_encoding_and_any_cut(
        value in value(),
        way in 0..WAYS,
        choices in prop::collection::vec(any::<u8>(), 1..40),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let redactor = redactor(&[("a", &value)]);
        let line = [b"(;", &encoded(&value, way, &choices)[..], b";)"].concat();
        prop_assert_eq!(text(in_parts(&redactor, &line, &cuts)), "(;[redacted:a];)");
        let each: Vec<usize> = (0..line.len()).collect();
        prop_assert_eq!(text(in_parts(&redactor, &line, &each)), "(;[redacted:a];)");
    }

    #[test]
    fn base64_of_something_with_a_secret_in_it_tells_nothing_of_the_secret(
        value in value(),
        before in prop::collection::vec(any::<u8>(), 0..8),
        behind in prop::collection::vec(any::<u8>(), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let redactor = redactor(&[("a", &value)]);
        let digits = STANDARD.encode([&before[..], &value, &behind].concat());
        let redacted = text(in_parts(&redactor, format!("({digits})").as_bytes(), &cuts));
        // Whole digits of the neighbours stay; those that share bits with the value do not.
        let head = &digits[..before.len() * 8 / 6];
        let tail = ((before.len() + value.len()) * 8).div_ceil(6);
        let tail = if behind.is_empty() { "" } else { &digits[tail..] };
        let padding = digits.trim_start_matches(|c| c != '=');
        let expected = [
            format!("({head}[redacted:a]{tail})"),
            format!("({head}[redacted:a]{padding})"),
        ];
        prop_assert!(
            expected.contains(&redacted) || !telling(&redacted, &digits, head, tail),
            "{} is {:?}", digits, redacted
        );
    }

    #[test]
    fn a_stream_is_redacted_as_its_whole(
        value in "[ab\\\\%2]{4,7}",
        other in "[ab]{4,6}",
        stream in "[ab\\\\%2]{0,60}",
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let redactor = redactor(&[("v", value.as_bytes()), ("o", other.as_bytes())]);
        let whole = redactor.redact(stream.as_bytes()).into_owned();
        prop_assert_eq!(text(in_parts(&redactor, stream.as_bytes(), &cuts)), text(whole.clone()));
        let whole = text(whole).replace("[redacted:v]", "-").replace("[redacted:o]", "-");
        prop_assert!(!whole.contains(&value) && !whole.contains(&other), "{}", whole);
    }

    #[test]
    fn text_without_the_secret_is_unchanged(
        value in "[A-Z0-9]{12,40}",
        stream in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "([a-z ]|%[0-9a-f]{2}|\\\\[nu\"]|\\\\u[0-9a-f]{4}|\n){0,80}".prop_map(String::into_bytes),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let redactor = redactor(&[("a", value.as_bytes())]);
        prop_assert_eq!(in_parts(&redactor, &stream, &cuts), stream);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn what_is_held_back_is_bounded(
        value in value(),
        stream in prop::collection::vec(
            prop::sample::select(vec![
                "%5", "\\u00", "5c", "a", "\n", "\n  ", "\0", "&#x26;", "&", "#0000", "\\U000000", "''",
            ]),
            0..2000,
        ),
    ) {
        let redactor = redactor(&[("a", &value)]);
        let mut open = redactor.stream();
        for part in stream {
            open.push(part.as_bytes());
            // Symbols, the longest escape of escapes, and line feeds with their indentation.
            prop_assert!(open.held_back() <= 64 * (12 * 12 + 64), "{}", open.held_back());
        }
    }
}

/// One who prints nothing but what stands for nothing is not held in memory.
#[test]
fn an_endless_run_of_line_feeds_or_zeros_is_given() {
    for filler in ["\n", "\0", "\\n", "\n ", "\r\n"] {
        let redactor = redactor(&[("a", b"hunter22")]);
        let mut open = redactor.stream();
        open.push(b"hunt");
        let block = filler.repeat(1000);
        for _ in 0..100 {
            open.push(block.as_bytes());
            assert!(open.held_back() <= 2000, "{filler:?}: {}", open.held_back());
        }
    }
}

/// Whether more than the neighbours' digits is left of `digits`.
fn telling(redacted: &str, digits: &str, head: &str, tail: &str) -> bool {
    let left = redacted.replace("[redacted:a]", "");
    left.len() > head.len() + tail.len() + 4 || redacted.contains(digits)
}
