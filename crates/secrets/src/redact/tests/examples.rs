//! What people and libraries do with secrets.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::super::RedactorError;
use super::{Redactor, in_parts, redactor, text};
use crate::secret::Secret;

const TOKEN: &[u8] = b"s3cr3t/+\"token\\";

fn all(redactor: &Redactor, line: &str) -> String {
    redactor.redact_str(line).into_owned()
}

#[test]
fn text_without_a_secret_is_not_even_copied() {
    let redactor = redactor(&[("a", TOKEN)]);
    let line = "nothing to see here: 100% of s3cr3t\\n %20 \\u0041\n";
    assert!(matches!(redactor.redact_str(line), Cow::Borrowed(same) if same == line));
    let mut stream = redactor.stream();
    // No digit at its end, with which one of the encodings could begin.
    let given = stream.push(b"a line of a log.\n");
    assert!(matches!(given, Cow::Borrowed(b"a line of a log.\n")));
}

#[test]
fn what_is_left_of_a_secret_in_an_excerpt_is_redacted_too() {
    let redactor = redactor(&[("erp/token", b"s3cr3t-token-of-some-length")]);
    let excerpt =
        "expected a number, found `s3cr3t-token-o…` in s3cr3t-token-of-some-length, s3cr…";
    assert_eq!(
        redactor.redact_excerpt(excerpt),
        "expected a number, found `[redacted]…` in [redacted:erp/token], [redacted]…"
    );
    assert_eq!(redactor.redact_excerpt("s3cr3t-token…"), "[redacted]…");
    assert_eq!(
        redactor.redact_beginning("ends with s3cr3t-to"),
        "ends with [redacted]"
    );
    for ordinary in [
        "",
        "…",
        "plain text… with an s…",
        "s3cr3t-token without a cut",
    ] {
        assert_eq!(redactor.redact_excerpt(ordinary), ordinary);
    }
}

#[test]
fn texts_of_a_document_are_redacted_wherever_they_are() {
    let redactor = redactor(&[("a", b"hunter22"), ("b", b"1234")]);
    let mut value = serde_json::json!({"hunter22": ["x hunter22", 1234, null], "n": "hunter2…"});
    redactor.redact_json(&mut value);
    let expected = serde_json::json!({
        "[redacted:a]": ["x [redacted:a]", 1234, null], "n": "[redacted]…",
    });
    assert_eq!(value, expected);
}

#[test]
fn a_secret_is_replaced_by_its_name() {
    let redactor = redactor(&[("erp/token", TOKEN), ("db", b"hunter22")]);
    let line = r#"login with s3cr3t/+"token\ and hunter22."#;
    assert_eq!(
        all(&redactor, line),
        "login with [redacted:erp/token] and [redacted:db]."
    );
}

#[test]
fn encoded_secrets_are_found() {
    let redactor = redactor(&[("a", TOKEN)]);
    let digits: String = TOKEN.iter().map(|byte| format!("{byte:02x}")).collect();
    for encoded in [
        STANDARD.encode(TOKEN),
        URL_SAFE_NO_PAD.encode(TOKEN),
        digits.to_uppercase(),
        digits,
        "s3cr3t%2F%2B%22token%5C".to_owned(),
        "s3cr3t%2f%2b%22token%5c".to_owned(),
        r#"s3cr3t\/+\"token\\"#.to_owned(),
        r"s3cr3t\u002f\u002B\u0022token\u005c".to_owned(),
        r#"s3cr3t\\\/+\\\"token\\\\"#.to_owned(),
        "%73%33%63%72%33%74%2F%2B%22%74%6F%6B%65%6E%5C".to_owned(),
        "s3cr3t%252F%252B%2522token%255C".to_owned(),
    ] {
        assert_eq!(
            all(&redactor, &format!("<{encoded}>")),
            "<[redacted:a]>",
            "{encoded}"
        );
    }
}

#[test]
fn a_basic_authorization_header_is_found_at_every_alignment() {
    let redactor = redactor(&[("a", b"hunter22")]);
    for user in ["u", "us", "use", "user"] {
        for behind in ["", "!", "!!"] {
            let encoded = STANDARD.encode(format!("{user}:hunter22{behind}"));
            let redacted = all(&redactor, &format!("Authorization: Basic {encoded}\r\n"));
            assert!(redacted.contains("[redacted:a]"), "{encoded}: {redacted}");
            let left: usize = redacted.len() - "Authorization: Basic [redacted:a]\r\n".len();
            // Whole digits of the user name and of what is behind, and padding.
            assert!(
                left <= (user.len() + 1) * 8 / 6 + (behind.len() * 8).div_ceil(6) + 2,
                "{redacted}"
            );
        }
    }
}

#[test]
fn a_key_file_is_found_as_a_whole_and_line_by_line() {
    let body = [
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
        "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
        "MzEfYyjiWA4R4/M2==",
    ];
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        body.join("\n")
    );
    let redactor = redactor(&[("key", pem.as_bytes())]);
    assert_eq!(
        all(&redactor, &format!("loaded {pem}done\n")),
        "loaded [redacted:key]done\n"
    );
    for line in body {
        assert_eq!(
            all(&redactor, &format!("bad line: {line}\n")),
            "bad line: [redacted:key]\n"
        );
    }
    let escaped = serde_json::to_string(&pem).expect("it is text");
    assert_eq!(all(&redactor, &escaped), "\"[redacted:key]\"");
    let crlf = pem.replace('\n', "\r\n");
    let redacted = all(&redactor, &crlf);
    assert!(
        body.iter().all(|line| !redacted.contains(line)),
        "{redacted}"
    );
    let frame = "-----BEGIN PRIVATE KEY-----";
    assert_eq!(all(&redactor, frame), frame, "the frame is no secret");
}

#[test]
fn base64_broken_into_lines_is_found() {
    let value: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(151)).collect();
    let redactor = redactor(&[("a", &value)]);
    let digits = STANDARD.encode(&value);
    for (width, end) in [(76, "\n"), (60, "\r\n"), (10, "\n"), (76, "\\n")] {
        let wrapped = super::encodings::in_lines(digits.as_bytes(), width, end.as_bytes());
        assert_eq!(
            text(in_parts(
                &redactor,
                &[b"<", &wrapped[..], b">"].concat(),
                &[]
            )),
            "<[redacted:a]>"
        );
    }
}

#[test]
fn a_value_set_with_a_line_feed_is_found_without_it() {
    let redactor = redactor(&[("a", b"hunter22\n")]);
    assert_eq!(all(&redactor, "as hunter22."), "as [redacted:a].");
    assert_eq!(all(&redactor, "as hunter22\nnext"), "as [redacted:a]next");
}

#[test]
fn secrets_within_and_across_each_other_are_both_covered() {
    let redactor = redactor(&[
        ("long", b"abcdefgh"),
        ("short", b"cdef"),
        ("across", b"ghijkl"),
    ]);
    assert_eq!(all(&redactor, "<abcdefgh>"), "<[redacted:long]>");
    assert_eq!(all(&redactor, "<abcdefghijkl>"), "<[redacted:long]>");
    assert_eq!(all(&redactor, "<abcdefgx>"), "<ab[redacted:short]gx>");
    assert_eq!(
        all(&redactor, "<cdefghijkl>"),
        "<[redacted:short][redacted:across]>"
    );
}

#[test]
fn a_name_that_tells_a_value_is_not_written() {
    let redactor = redactor(&[("prod-password", b"password"), ("b", b"redacted")]);
    assert_eq!(all(&redactor, "<password><redacted>"), "<***><***>");
}

#[test]
fn a_line_is_given_as_soon_as_it_ends_unless_a_broken_value_may_go_on() {
    let redactor = redactor(&[("a", TOKEN)]);
    let mut stream = redactor.stream();
    let mut given = |part: &'static [u8]| text(stream.push(part).into_owned());
    assert_eq!(given(b"first s3cr3t;\n"), "first s3cr3t;\n");
    assert_eq!(given(b"second s3cr"), "second ");
    assert_eq!(given(b"eam.\n"), "s3cream.\n");
    assert_eq!(given(b"C:\\dir\\\n"), "C:\\dir\\\n");
    assert_eq!(given(b"third s3cr\n"), "third ");
    assert_eq!(given(b"3t/+\"token\\."), "[redacted:a].");
}

#[test]
fn a_line_after_which_nothing_comes_for_a_while_is_settled() {
    let redactor = redactor(&[("a", TOKEN)]);
    let mut stream = redactor.stream();
    assert_eq!(
        text(stream.push(b"connecting to s3cr\n").into_owned()),
        "connecting to "
    );
    assert_eq!(text(stream.settle()), "s3cr\n");
    assert_eq!(text(stream.push(b"login s3cr").into_owned()), "login ");
    assert_eq!(text(stream.settle()), "", "the line is not complete");
    let rest = b"3t/+\"token\\\n";
    assert_eq!(
        text(stream.push(rest).into_owned()),
        "",
        "it could be part of a longer one"
    );
    assert_eq!(text(stream.settle()), "[redacted:a]\n");
}

#[test]
fn an_endless_secret_is_not_held_in_memory() {
    let redactor = redactor(&[("a", b"aaaa")]);
    let mut stream = redactor.stream();
    let mut given = Vec::new();
    for _ in 0..1000 {
        given.extend_from_slice(&stream.push(&[b'a'; 1000]));
        assert!(stream.held_back() <= 2000, "{}", stream.held_back());
    }
    given.extend_from_slice(&stream.finish());
    assert_eq!(text(given), "[redacted:a]");
}

#[test]
fn short_values_are_refused() {
    for value in [&b""[..], b"abc", b"abc\n"] {
        let secret = Secret::new(value);
        let refused = Redactor::new([("a", &secret)]);
        assert!(matches!(refused, Err(RedactorError::TooShort { name }) if name == "a"));
    }
    assert!(Redactor::new([]).is_ok(), "no secrets are redacted easily");
}

#[test]
fn the_largest_secrets_are_found() {
    let value: Vec<u8> = (0..crate::MAX_VALUE_BYTES)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
        .collect();
    let redactor = redactor(&[("big", &value)]);
    let line = [
        b"<",
        &value[..],
        b"><",
        STANDARD.encode(&value).as_bytes(),
        b">",
    ]
    .concat();
    assert_eq!(
        text(in_parts(&redactor, &line, &[70_001])),
        "<[redacted:big]><[redacted:big]>"
    );
}

#[test]
fn debug_output_shows_names_only() {
    let redactor = redactor(&[("erp/token", TOKEN)]);
    assert_eq!(format!("{redactor:?}"), r#"Redactor(["erp/token"])"#);
    let mut stream = redactor.stream();
    stream.push(b"x s3cr3t");
    let shown = format!("{stream:?}");
    assert!(
        !shown.contains("s3cr3t") && !shown.contains("115, 51"),
        "{shown}"
    );
}
