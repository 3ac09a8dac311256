use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The form as it is defined: keys in the order of their code points, the rest as it comes.
fn defined(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(",");
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            let members = sorted.into_iter();
            let member = |(key, value)| format!("{}:{}", json!(key), defined(value));
            format!("{{{}}}", joined(members.map(member).collect()))
        }
        Value::Array(items) => format!("[{}]", joined(items.iter().map(defined).collect())),
        leaf => leaf.to_string(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            // Short keys of few characters meet in their beginnings.
            prop::collection::vec(("[a\"\\\\\u{1}\u{ff}\u{10ffff}]{0,3}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_json_is_written_in_the_form_that_is_defined(value in any_json()) {
        prop_assert_eq!(text(&value), defined(&value));
        let mut as_it_comes = b"before".to_vec();
        prop_assert!(append(&mut as_it_comes, &value).is_ok());
        prop_assert_eq!(as_it_comes, format!("before{value}").into_bytes());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Unit,
    One(u8),
    Two(u8, Option<char>),
    Named { z: f32, a: () },
}

#[derive(Serialize)]
struct Fields {
    zebra: Vec<Kind>,
    apple: BTreeMap<String, (i8, &'static str)>,
    #[serde(flatten)]
    rest: BTreeMap<&'static str, bool>,
}

/// As `serde_json` has it, but for the order.
#[test]
fn every_kind_of_type_is_written_as_its_value_is() {
    let kinds = || {
        vec![
            Kind::Unit,
            Kind::One(1),
            Kind::Two(2, Some('"')),
            Kind::Two(3, None),
            Kind::Named { z: 0.5, a: () },
        ]
    };
    let fields = Fields {
        zebra: kinds(),
        apple: BTreeMap::from([("é\n".to_owned(), (-1, "x")), (String::new(), (2, ""))]),
        rest: BTreeMap::from([("mango", true), ("Mango", false)]),
    };
    assert_eq!(text(&fields), defined(&value(&fields)));
    let mut as_they_come = Vec::new();
    assert!(append(&mut as_they_come, &fields).is_ok());
    assert_eq!(
        as_they_come,
        serde_json::to_vec(&fields).unwrap_or_default()
    );
    assert_eq!(
        text(&kinds()),
        r#"["unit",{"one":1},{"two":[2,"\""]},{"two":[3,null]},{"named":{"a":null,"z":0.5}}]"#
    );
}

#[test]
fn what_was_written_before_is_written_as_it_is() {
    let kinds = vec![Kind::Two(2, Some('"')), Kind::Unit];
    let written = BTreeMap::from([("b", Written::of(&kinds)), ("a", Written::of(&"x\n"))]);
    let plain = json!({ "a": "x\n", "b": value(&kinds) });
    assert_eq!(text(&written), text(&plain));
    assert_eq!(text(&(Written::of(&1), "1")), "[1,\"1\"]");
}

/// What is displayed is text like any other, whether it needs escapes or not.
#[test]
fn what_is_displayed_is_written_as_its_text_is() {
    struct Shown(&'static str);
    impl Serialize for Shown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self.0)
        }
    }
    for shown in ["", "plain", "a \"b\"", "\\", "\u{1f}", "\u{7f}é"] {
        assert_eq!(
            text(&[Shown(shown), Shown("x")]),
            json!([shown, "x"]).to_string()
        );
    }
}

#[test]
fn a_key_that_is_no_text_is_an_error() {
    let mut writer = Writer::default();
    assert!(BTreeMap::from([((), 1)]).serialize(&mut writer).is_err());
}
