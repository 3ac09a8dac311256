//! The table of `docs/secrets.md`: every encoding that is said to be found is found, whatever the
//! value and however the stream is cut.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::super::digits;
use super::encodings::in_lines;
use super::{in_parts, redactor, text};

/// What is written for a value; `None` where the encoding has nothing to say of it.
type Encode = fn(&[u8]) -> Option<Vec<u8>>;

fn utf8(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn each(value: &[u8], between: &str, write: impl Fn(u8) -> String) -> Option<Vec<u8>> {
    let all: Vec<String> = value.iter().map(|byte| write(*byte)).collect();
    Some(all.join(between).into_bytes())
}

fn characters(value: &[u8], write: impl Fn(char) -> String) -> Option<Vec<u8>> {
    Some(
        utf8(value)?
            .chars()
            .map(write)
            .collect::<String>()
            .into_bytes(),
    )
}

fn html(named: bool) -> impl Fn(char) -> String {
    move |character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' if named => "&quot;".to_owned(),
        '\'' if named => "&apos;".to_owned(),
        '"' => "&#34;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    }
}

fn wide(value: &[u8], unit: impl Fn(u16) -> Vec<u8>) -> Option<Vec<u8>> {
    Some(utf8(value)?.encode_utf16().flat_map(unit).collect())
}

/// Of characters that are one unit of UTF-16.
fn wide32(value: &[u8], unit: fn(u32) -> [u8; 4]) -> Option<Vec<u8>> {
    let codes = || utf8(value).map(|text| text.chars().map(u32::from));
    let narrow = codes()?.all(|code| code <= 0xffff);
    narrow.then(|| codes().into_iter().flatten().flat_map(unit).collect())
}

fn upper(digits: Vec<u8>) -> Vec<u8> {
    digits.to_ascii_uppercase()
}

fn base32_padded(value: &[u8]) -> Option<Vec<u8>> {
    let mut digits = upper(digits::base32(value));
    digits.resize(digits.len().next_multiple_of(8), b'=');
    Some(digits)
}

fn xml_text(value: &[u8]) -> Option<Vec<u8>> {
    characters(value, |c| format!("&#{};", u32::from(c)))
}

/// Numbers in columns, so many a line.
fn columns(value: &[u8], count: usize, between: &str, lines: &str) -> Option<Vec<u8>> {
    let line = |part: &[u8]| {
        let numbers: Vec<String> = part.iter().map(|byte| format!("{byte:3}")).collect();
        numbers.join(between)
    };
    let all: Vec<String> = value.chunks(count).map(line).collect();
    Some(all.join(lines).into_bytes())
}

/// Named as in the page.
const TABLE: [(&str, Encode); 80] = [
    ("as it is", |v| Some(v.to_vec())),
    ("in small letters", |v| {
        (v.len() >= 12).then(|| v.to_ascii_lowercase())
    }),
    ("in capital letters", |v| {
        (v.len() >= 12).then(|| v.to_ascii_uppercase())
    }),
    ("hexadecimal", |v| Some(hex::encode(v).into_bytes())),
    ("hexadecimal, capital", |v| {
        Some(hex::encode_upper(v).into_bytes())
    }),
    ("hexadecimal with colons", |v| {
        each(v, ":", |b| format!("{b:02x}"))
    }),
    ("hexadecimal with blanks", |v| {
        each(v, " ", |b| format!("{b:02X}"))
    }),
    ("hexadecimal with hyphens", |v| {
        each(v, "-", |b| format!("{b:02X}"))
    }),
    ("hexadecimal with commas", |v| {
        each(v, ", ", |b| format!("{b:02x}"))
    }),
    ("hexadecimal with 0x", |v| {
        each(v, ", ", |b| format!("0x{b:02x}"))
    }),
    ("hexadecimal with 0x, close", |v| {
        each(v, ",", |b| format!("0x{b:02X}"))
    }),
    ("hexadecimal with 0x and blanks", |v| {
        each(v, " ", |b| format!("0x{b:02x}"))
    }),
    ("hexadecimal with \\x", |v| {
        each(v, "", |b| format!("\\x{b:02x}"))
    }),
    ("hexadecimal with \\x, capital", |v| {
        each(v, "", |b| format!("\\x{b:02X}"))
    }),
    ("JSON array of bytes", |v| each(v, ",", |b| b.to_string())),
    ("JSON array of bytes with blanks", |v| {
        each(v, ", ", |b| b.to_string())
    }),
    ("JSON array of bytes in lines", |v| {
        each(v, ",\n    ", |b| b.to_string())
    }),
    ("array of signed bytes", |v| {
        each(v, ", ", |b| b.cast_signed().to_string())
    }),
    ("array of bytes with blanks alone", |v| {
        each(v, " ", |b| b.to_string())
    }),
    ("array of bytes as Node shows it", |v| {
        columns(v, 12, ", ", ",\n  ")
    }),
    ("array of bytes as NumPy shows it", |v| {
        columns(v, 18, " ", "\n ")
    }),
    ("array of bytes as Python's pprint shows it", |v| {
        let numbers: Vec<String> = v.iter().map(u8::to_string).collect();
        let lines: Vec<String> = numbers.chunks(14).map(|line| line.join(", ")).collect();
        Some(lines.join(",\n ").into_bytes())
    }),
    ("array of signed bytes in lines", |v| {
        let numbers: Vec<String> = v.iter().map(|b| b.cast_signed().to_string()).collect();
        let lines: Vec<String> = numbers.chunks(9).map(|line| line.join(", ")).collect();
        Some(lines.join(",\r\n\t").into_bytes())
    }),
    ("array of bytes as xxd writes it for C", |v| {
        let numbers: Vec<String> = v.iter().map(|byte| format!("0x{byte:02x}")).collect();
        let lines: Vec<String> = numbers.chunks(12).map(|line| line.join(", ")).collect();
        Some(lines.join(",\n  ").into_bytes())
    }),
    ("numbers in lines of their own", |v| {
        each(v, "\n", |b| b.to_string())
    }),
    ("base64", |v| Some(STANDARD.encode(v).into_bytes())),
    ("base64 without padding", |v| {
        Some(STANDARD_NO_PAD.encode(v).into_bytes())
    }),
    ("base64 for URLs", |v| Some(URL_SAFE.encode(v).into_bytes())),
    ("base64 for URLs without padding", |v| {
        Some(URL_SAFE_NO_PAD.encode(v).into_bytes())
    }),
    ("base64 in lines", |v| {
        Some(in_lines(STANDARD.encode(v).as_bytes(), 76, b"\n"))
    }),
    ("base64 in lines of MIME", |v| {
        Some(in_lines(STANDARD.encode(v).as_bytes(), 76, b"\r\n"))
    }),
    ("base64 in an indented block", |v| {
        Some(in_lines(STANDARD.encode(v).as_bytes(), 64, b"\n      "))
    }),
    ("base64 in JSON", |v| {
        Some(STANDARD.encode(v).replace('/', "\\/").into_bytes())
    }),
    ("base64 in a URL", |v| {
        let digits = STANDARD.encode(v).replace('+', "%2b").replace('/', "%2f");
        Some(digits.replace('=', "%3d").into_bytes())
    }),
    ("base64 of base64", |v| {
        Some(STANDARD.encode(STANDARD.encode(v)).into_bytes())
    }),
    ("base64 of base64 of a line", |v| {
        Some(
            STANDARD
                .encode(STANDARD.encode([v, b"\n"].concat()))
                .into_bytes(),
        )
    }),
    ("base64 of base64 for URLs", |v| {
        Some(
            URL_SAFE_NO_PAD
                .encode(URL_SAFE_NO_PAD.encode(v))
                .into_bytes(),
        )
    }),
    ("base64 of UTF-16", |v| {
        Some(
            STANDARD
                .encode(wide(v, |unit| unit.to_le_bytes().to_vec())?)
                .into_bytes(),
        )
    }),
    ("base64 of UTF-16, its high bytes first", |v| {
        let wide = wide(v, |unit| unit.to_be_bytes().to_vec())?;
        Some(STANDARD.encode(wide).into_bytes())
    }),
    ("base64 of JSON", |v| {
        Some(
            STANDARD
                .encode(serde_json::to_string(utf8(v)?).ok()?)
                .into_bytes(),
        )
    }),
    ("hexadecimal of UTF-16", |v| {
        let wide = wide(v, |unit| unit.to_le_bytes().to_vec())?;
        Some(hex::encode(wide).into_bytes())
    }),
    ("hexadecimal of UTF-16, its high bytes first", |v| {
        let wide = wide(v, |unit| unit.to_be_bytes().to_vec())?;
        Some(hex::encode_upper(wide).into_bytes())
    }),
    ("base32", base32_padded),
    ("base32, small", |v| Some(digits::base32(v))),
    ("base32 within something longer", |v| {
        Some(upper(digits::base32(&[b"user:", v, b"@"].concat())))
    }),
    ("percent", |v| each(v, "", |b| format!("%{b:02X}"))),
    ("percent, small", |v| each(v, "", |b| format!("%{b:02x}"))),
    ("percent twice", |v| each(v, "", |b| format!("%25{b:02X}"))),
    ("percent with u", |v| {
        let units = utf8(v)?.encode_utf16();
        Some(
            units
                .map(|unit| format!("%u{unit:04X}"))
                .collect::<String>()
                .into_bytes(),
        )
    }),
    ("JSON", |v| {
        let quoted = serde_json::to_string(utf8(v)?).ok()?;
        Some(quoted.as_bytes()[1..quoted.len() - 1].to_vec())
    }),
    ("JSON in JSON", |v| {
        let quoted = serde_json::to_string(&serde_json::to_string(utf8(v)?).ok()?).ok()?;
        Some(quoted.as_bytes()[3..quoted.len() - 3].to_vec())
    }),
    ("\\u of everything", |v| {
        let units = utf8(v)?.encode_utf16();
        Some(
            units
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>()
                .into_bytes(),
        )
    }),
    ("\\u{}", |v| {
        characters(v, |c| format!("\\u{{{:x}}}", u32::from(c)))
    }),
    ("\\U", |v| {
        characters(v, |c| format!("\\U{:08x}", u32::from(c)))
    }),
    ("octal", |v| each(v, "", |b| format!("\\{b:03o}"))),
    ("backslashes of a shell", |v| {
        characters(v, |c| match c {
            c if c.is_ascii_punctuation() || c == ' ' => format!("\\{c}"),
            c => c.to_string(),
        })
    }),
    ("HTML, named", |v| characters(v, html(true))),
    ("HTML, decimal", xml_text),
    ("HTML, hexadecimal", |v| {
        characters(v, |c| format!("&#x{:X};", u32::from(c)))
    }),
    ("HTML, padded", |v| {
        characters(v, |c| format!("&#{:07};", u32::from(c)))
    }),
    ("HTML twice", |v| {
        characters(v, |c| html(false)(c).replace('&', "&amp;"))
    }),
    ("HTML in JSON", |v| {
        let written = serde_json::to_string(&text(characters(v, html(true))?)).ok()?;
        let written = written[1..written.len() - 1].replace('&', "\\u0026");
        Some(written.into_bytes())
    }),
    ("JSON in HTML", |v| {
        let quoted = serde_json::to_string(utf8(v)?).ok()?;
        characters(&quoted.as_bytes()[1..quoted.len() - 1], html(true))
    }),
    ("HTML in a URL", |v| {
        each(&characters(v, html(true))?, "", |b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
    }),
    ("ASCII as Python escapes to it", |v| {
        characters(v, |c| match u32::from(c) {
            code @ 0x80..=0xff => format!("\\x{code:02x}"),
            code @ 0x100..=0xffff => format!("\\u{code:04x}"),
            code @ 0x10000.. => format!("\\U{code:08x}"),
            0x5c => "\\\\".to_owned(),
            _ => c.to_string(),
        })
    }),
    ("escape of JavaScript", |v| {
        let units = utf8(v)?.encode_utf16();
        let written = units.map(|unit| match unit {
            0x30..=0x39 | 0x41..=0x5a | 0x61..=0x7a => char::from(unit as u8).to_string(),
            0x100.. => format!("%u{unit:04X}"),
            _ => format!("%{unit:02X}"),
        });
        Some(written.collect::<String>().into_bytes())
    }),
    ("quotes of SQL", |v| {
        Some(utf8(v)?.replace('\'', "''").into_bytes())
    }),
    ("quotes of CSV", |v| {
        Some(utf8(v)?.replace('"', "\"\"").into_bytes())
    }),
    ("quotes of a shell", |v| {
        Some(utf8(v)?.replace('\'', r"'\''").into_bytes())
    }),
    ("quotes of Python's shlex", |v| {
        Some(utf8(v)?.replace('\'', "'\"'\"'").into_bytes())
    }),
    ("SQL in JSON", |v| {
        let quoted = serde_json::to_string(&utf8(v)?.replace('\'', "''")).ok()?;
        Some(quoted.as_bytes()[1..quoted.len() - 1].to_vec())
    }),
    ("CSV in JSON", |v| {
        let quoted = serde_json::to_string(&utf8(v)?.replace('"', "\"\"")).ok()?;
        Some(quoted.as_bytes()[1..quoted.len() - 1].to_vec())
    }),
    ("JSON in a URL", |v| {
        let quoted = serde_json::to_string(utf8(v)?).ok()?;
        each(&quoted.as_bytes()[1..quoted.len() - 1], "", |b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
    }),
    ("lines in JSON", |v| {
        Some(in_lines(STANDARD.encode(v).as_bytes(), 60, b"\\n"))
    }),
    ("UTF-32 LE", |v| wide32(v, u32::to_le_bytes)),
    ("UTF-32 BE", |v| wide32(v, u32::to_be_bytes)),
    ("UTF-16 LE", |v| wide(v, |unit| unit.to_le_bytes().to_vec())),
    ("UTF-16 BE", |v| wide(v, |unit| unit.to_be_bytes().to_vec())),
    ("UTF-16 as Python shows it", |v| {
        let bytes = wide(v, |unit| unit.to_le_bytes().to_vec())?;
        each(&bytes, "", |b| format!("\\x{b:02x}"))
    }),
    ("hexadecimal in UTF-16", |v| {
        wide(hex::encode(v).as_bytes(), |unit| {
            unit.to_le_bytes().to_vec()
        })
    }),
];

/// Every kind of secret that people have.
fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let pem: String = (0..5).fold(
        "-----BEGIN PRIVATE KEY-----\n".to_owned(),
        |mut pem, line| {
            let bytes: Vec<u8> = (0..48_u8)
                .map(|at| at.wrapping_mul(91) ^ (line * 37))
                .collect();
            writeln!(pem, "{}", STANDARD.encode(bytes)).expect("a text grows");
            pem
        },
    ) + "-----END PRIVATE KEY-----";
    vec![
        ("password", b"hunter22".to_vec()),
        ("password with signs", br#"p&s's"w<o>r%d\/+ 1"#.to_vec()),
        (
            "password beyond ASCII",
            "Grüße-aus-Köln-€5-😀".as_bytes().to_vec(),
        ),
        ("beyond Latin-1", "Пароль-секрет".as_bytes().to_vec()),
        (
            "token",
            b"ghp_16C7e42F292c6912E7710c838347Ae178B4a".to_vec(),
        ),
        (
            "long token",
            STANDARD.encode([7_u8, 91, 200, 33].repeat(60)).into_bytes(),
        ),
        ("number", b"4711471147114711".to_vec()),
        (
            "hexadecimal key",
            b"6368616e676520746869732070617373".to_vec(),
        ),
        (
            "bytes",
            (0..32_u8)
                .map(|at| at.wrapping_mul(151).wrapping_add(77))
                .collect(),
        ),
        ("key file", pem.into_bytes()),
        (
            "JSON",
            br#"{"user": "etl-job", "password": "corr\"ect-horse"}"#.to_vec(),
        ),
    ]
}

/// What is left of a text once markers and what frames it are taken out.
fn left(redacted: &str) -> String {
    redacted
        .replace("[redacted:a]", "")
        .replace("(;", "")
        .replace(";)", "")
}

#[test]
fn every_encoding_of_the_table_is_found_for_every_kind_of_secret() {
    let mut missed = Vec::new();
    for (kind, value) in kinds() {
        let redactor = redactor(&[("a", &value)]);
        for (encoding, encode) in TABLE {
            let Some(written) = encode(&value) else {
                continue;
            };
            let line = [b"(;", &written[..], b";)"].concat();
            let whole = text(in_parts(&redactor, &line, &[]));
            let each: Vec<usize> = (0..line.len()).collect();
            assert_eq!(
                text(in_parts(&redactor, &line, &each)),
                whole,
                "{encoding} of {kind}"
            );
            // Padding, a zero of UTF-16, a neighbour's digit: no byte of the value.
            let rest = left(&whole);
            if !whole.contains("[redacted:a]") || rest.trim_matches(['=', '\0']).len() > 11 {
                missed.push(format!("{encoding} of {kind}: {whole}"));
            }
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn a_sign_before_an_encoded_value_that_looks_like_an_escape_with_it_hides_nothing() {
    const BEFORE: [&str; 8] = ["", "%", "%u00", "\\", "\\\\", "\\u00", "\\U000000", "&"];
    let mut missed = Vec::new();
    for value in [
        &b"ab\"c/12&34+de fg\\x"[..],
        b"12\"34/56&78+90",
        b"u00e9\"c/12&34+de",
        b"n\"b/r&t+ab12 cd",
    ] {
        let redactor = redactor(&[("a", value)]);
        for (encoding, encode) in TABLE {
            let Some(written) = encode(value) else {
                continue;
            };
            for before in BEFORE {
                let line = [before.as_bytes(), &written, b";)"].concat();
                let redacted = text(in_parts(&redactor, &line, &[]));
                let rest = redacted.replacen(before, "", 1);
                // An escaped backslash and a text, as whoever reads it would have it.
                if before == "\\" && written.starts_with(b"\\x") {
                    continue;
                }
                if left(&rest).trim_matches(['=', '\0']).len() > 11 {
                    missed.push(format!("{encoding} behind {before}: {redacted}"));
                }
            }
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_value_is_told_by_any_encoding_of_the_table_in_any_cut(
        value in super::properties::value(),
        number in 0..TABLE.len(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let (encoding, encode) = TABLE[number];
        let redactor = redactor(&[("a", &value)]);
        if let Some(written) = encode(&value) {
            let line = [b"(;", &written[..], b";)"].concat();
            let redacted = text(in_parts(&redactor, &line, &cuts));
            prop_assert!(redacted.contains("[redacted:a]"), "{}: {}", encoding, redacted);
            let rest = left(&redacted);
            prop_assert!(rest.trim_matches(['=', '\0']).len() <= 11, "{}: {}", encoding, redacted);
        }
    }
}
