//! Values that are cut, and values that are documents.

use serde_json::json;

use super::{in_parts, redactor, text};

fn finished(value: &[u8], stream: &str) -> String {
    let mut open = redactor(&[("a", value)]).stream();
    let mut given = open.push(stream.as_bytes()).into_owned();
    given.extend_from_slice(&open.finish());
    text(given)
}

#[test]
fn a_value_that_is_cut_at_the_end_of_a_log_is_redacted() {
    let value = b"s3cr3t-token-of-some-length";
    for (stream, told) in [
        ("killed at s3cr", "killed at [redacted]"),
        (
            "killed at s3cr3t-token-of-some-lengt",
            "killed at [redacted]",
        ),
        ("as czNjcjN0LXRva2", "as [redacted]"),
        ("as 73336372", "as [redacted]"),
        ("as 73:33:63:72", "as [redacted]"),
        ("as s3cr\\u0033", "as [redacted]"),
        ("as s3cr%3", "as [redacted]"),
        ("as s3cr3t-to&#107", "as [redacted]"),
        ("as s3cr3t-token-\n", "as [redacted]"),
        ("whole s3cr3t-token-of-some-length", "whole [redacted:a]"),
        (
            "twice s3cr3t-token-of-some-lengths3cr3t",
            "twice [redacted:a][redacted]",
        ),
        // Nobody's word is taken for a secret.
        ("ends with an s3c", "ends with an s3c"),
        ("ends with s3cr.", "ends with s3cr."),
        ("ends with s3cr3t\n", "ends with s3cr3t\n"),
    ] {
        assert_eq!(finished(value, stream), told, "{stream}");
    }
}

#[test]
fn what_is_cut_anywhere_tells_less_than_four_bytes() {
    let value = b"s3cr3t-token-of-some-length";
    for end in 0..=value.len() {
        let cut = text(value[..end].to_vec());
        let told = finished(value, &format!("x {cut}"));
        let left = told.strip_prefix("x ").expect("it is not touched");
        assert!(left.len() < 4 || left.starts_with("[redacted"), "{told}");
    }
}

#[test]
fn a_document_is_known_by_its_members_and_in_compact_form() {
    let document = json!({
        "type": "service_account", "host": "db.example", "token_uri": "https://auth.example/token",
        "password": "corr\"ect-horse", "nested": [{"api_key": "k-0123456789"}], "short": "abc",
        "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END",
        "dsn": "postgres://etl:canary@db.example/x", "webhook_uri": "https://hooks.example/T0/canary",
    });
    let value = serde_json::to_string_pretty(&document).expect("it is JSON");
    let redactor = redactor(&[("a", value.as_bytes())]);
    let spaced = r#"{"user": "etl-job-7", "password": "corr"}"#;
    let python = super::redactor(&[("a", br#"{"user":"etl-job-7","password":"corr"}"#)]);
    assert_eq!(python.redact_str(spaced), "[redacted:a]");
    for told in [
        document.to_string(),
        value.clone(),
        "corr\"ect-horse".to_owned(),
        "corr\\\"ect-horse".to_owned(),
        "k-0123456789".to_owned(),
        "MIIEvQIBADANBgkqhkiG9w0B".to_owned(),
        "postgres://etl:canary@db.example/x".to_owned(),
        "https://hooks.example/T0/canary".to_owned(),
    ] {
        let redacted = text(in_parts(&redactor, format!("({told})").as_bytes(), &[]));
        assert_eq!(redacted, "([redacted:a])", "{told}");
    }
    // Where a service is stands in every flow record.
    for public in [
        "service_account at db.example",
        "https://auth.example/token",
        "abc",
    ] {
        assert_eq!(redactor.redact_str(public), public);
    }
}

/// What ordinary programs log, with the secrets that ordinary people have.
#[test]
fn ordinary_logs_stay_as_they_are() {
    let secrets: [(&str, &[u8]); 5] = [
        ("password", b"hunter22"),
        ("token", b"ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("pin", b"471147114711"),
        ("hex", b"9f86d081884c7d659a2feaa0c55ad015"),
        (
            "json",
            br#"{"user": "etl-job-7", "password": "correct-horse", "port": 5432}"#,
        ),
    ];
    let redactor = redactor(&secrets);
    let mut log = include_str!("ordinary.log").to_owned();
    // Numbers, times, addresses and digests of every kind.
    let mut state = 7_u64;
    for line in 0..5_000_u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = (state >> 40, (state >> 20) & 0xffff);
        log.push_str(&format!(
            "2026-11-21T19:{:02}:{:02}.{:03}Z INFO [{a}, {b}, {line}] {state:016x} 10.{}.{}.{}:{b} \
             {{\"id\":{a},\"q\":\"x=%{:02X}&y='{b}'\"}} {:02x}:{:02x}:{:02x}:{:02x}\n",
            line % 60,
            a % 60,
            b % 1000,
            a % 256,
            b % 256,
            line % 256,
            a % 256,
            a % 251,
            b % 241,
            line % 239,
            state % 233,
        ));
    }
    assert_eq!(
        text(in_parts(&redactor, log.as_bytes(), &[1000, 77_777])),
        log
    );
    let mut open = redactor.stream();
    let mut given = open.push(log.as_bytes()).into_owned();
    given.extend_from_slice(&open.finish());
    assert_eq!(text(given), log);
}
