use super::*;
use serde_json::json;

fn codes_of(text: &str) -> Vec<&'static str> {
    match Document::parse("t.yaml", text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.iter().map(|d| d.code).collect(),
    }
}

#[test]
fn yaml_and_json_spell_the_same_document() {
    let yaml = Document::parse("a", b"a: [1, x]\nb:\n  c: true\n").expect("valid YAML");
    let json = Document::parse("b", br#"{"a": [1, "x"], "b": {"c": true}}"#).expect("valid JSON");
    assert_eq!(yaml.value(), json.value());
    assert_eq!(yaml.value(), &json!({"a": [1, "x"], "b": {"c": true}}));
}

#[test]
fn every_key_and_value_knows_its_place() {
    let text = "# comment\na:\n  - x: 1\n    y/z: \"två\"\n  - { q: 22 }\n";
    let document = Document::parse("t", text.as_bytes()).expect("valid YAML");
    let span = |line, column, length| Span {
        line,
        column,
        length,
    };
    assert_eq!(document.key_span("/a"), span(2, 1, 1));
    assert_eq!(document.key_span("/a/0/x"), span(3, 5, 1));
    assert_eq!(document.value_span("/a/0/x"), span(3, 8, 1));
    assert_eq!(document.key_span("/a/0/y~1z"), span(4, 5, 3));
    assert_eq!(document.value_span("/a/0/y~1z"), span(4, 10, 5));
    assert_eq!(document.value_span("/a/1/q"), span(5, 10, 2));
    assert_eq!(document.key_span("/a/1"), span(5, 5, 1));
    assert_eq!(document.value_span("/a/0/x/nothing/below"), span(3, 8, 1));
}

#[test]
fn a_byte_order_mark_at_the_start_is_read_over() {
    let document = Document::parse("t", b"\xef\xbb\xbfa: 1\n").expect("valid YAML");
    assert_eq!(document.key_span("/a").column, 1);
}

#[test]
fn what_a_document_has_no_use_for_is_refused_under_its_code() {
    let deep = "[".repeat(MAX_DEPTH + 1);
    let block = "- ".repeat(MAX_DEPTH + 1);
    let many = format!("[{}]", "1,".repeat(MAX_NODES + 1));
    let cases: &[(&str, &[&str])] = &[
        ("", &["BC0110"]),
        ("# only a comment\n", &["BC0110"]),
        ("a: 1\na: 2\nb: 1\nb: 2\n", &["BC0106", "BC0106"]),
        ("a: &x [1]\nb: *x\n", &["BC0107", "BC0107"]),
        ("a: !!str 1\nb: !run x\n", &["BC0108", "BC0108"]),
        ("a: 1\n---\nb: 2\n", &["BC0109"]),
        ("? [a]\n: 1\n", &["BC0111"]),
        (": 1\n", &["BC0111"]),
        ("a: .nan\nb: -.inf\n", &["BC0112", "BC0112"]),
        ("a: \u{202e}x\n", &["BC0113"]),
        ("a: \u{0}\n", &["BC0113"]),
        ("a:\n\tb: 1\n", &["BC0101"]),
        ("a: [1, 2\n", &["BC0101"]),
        ("a: *nowhere\n", &["BC0101"]),
        (&deep, &["BC0104"]),
        (&block, &["BC0104"]),
        (&many, &["BC0105"]),
    ];
    for (text, expected) in cases {
        let shown: String = text.chars().take(40).collect();
        assert_eq!(codes_of(text), *expected, "{shown:?}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_named_with_their_place() {
    let error = Document::parse("t", b"a: 1\nb: \xff\n").expect_err("not UTF-8");
    assert_eq!(
        (error[0].code, error[0].line, error[0].column),
        ("BC0102", 2, 4)
    );
    let large = vec![b'#'; MAX_BYTES + 1];
    assert_eq!(
        Document::parse("t", &large).expect_err("too large")[0].code,
        "BC0103"
    );
}

#[test]
fn exponential_expansion_by_aliases_is_refused_at_the_first_alias() {
    let bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n";
    assert_eq!(codes_of(bomb), ["BC0107", "BC0107", "BC0107"]);
}
