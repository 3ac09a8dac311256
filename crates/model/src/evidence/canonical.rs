//! JSON with object keys sorted by code point and no white space, written once, straight to bytes.
//!
//! Members are written in the order in which they come, and put in order where an object ends, so
//! that whatever can be written as JSON has one canonical form, however its type lists its fields.
//! Numbers and text are as `serde_json` writes them.

use std::{borrow::Cow, ops::Range};

use serde::{Serialize, Serializer, ser};
use serde_json::{Error, Value};

/// What most statements need no more than.
const USUAL_BYTES: usize = 2048;

/// The canonical JSON of something whose type has text for keys, and writes itself without fail:
/// values, and plain data.
///
/// # Panics
/// Where it is something else, as the macro `json!` does.
pub(super) fn text(value: &impl Serialize) -> String {
    let mut writer = Writer {
        text: Vec::with_capacity(USUAL_BYTES),
        ..Writer::default()
    };
    let written = value.serialize(&mut writer);
    written
        .and_then(|()| String::from_utf8(writer.text).map_err(ser::Error::custom))
        .expect("plain data is JSON")
}

/// The same as a value.
///
/// # Panics
/// As [`text`] does.
pub(super) fn value(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data is JSON")
}

/// Names the newtype whose text is written as it is.
const WRITTEN: &str = "$canonical::Written";

/// Canonical JSON that was written before: within other canonical JSON alone.
#[derive(Debug)]
pub(super) struct Written(String);

impl Written {
    pub(super) fn of(value: &impl Serialize) -> Self {
        Self(text(value))
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(WRITTEN, &self.0)
    }
}

#[derive(Default)]
struct Writer {
    text: Vec<u8>,
    /// Members of the objects that have not ended; those of the innermost come last.
    members: Vec<Member>,
    /// Where an object's members are put in order.
    sorted: Vec<u8>,
    /// Whether the text that comes is canonical JSON already.
    as_it_is: bool,
}

/// A member of an object, by where it is in the text.
struct Member {
    /// Its key, in quotation marks.
    key: Range<usize>,
    /// Where its value ends.
    end: usize,
}

impl Member {
    /// The key as it was before it was written.
    fn key<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let written = &text[self.key.clone()];
        if !written.contains(&b'\\') {
            return Cow::Borrowed(&written[1..written.len() - 1]);
        }
        match serde_json::from_slice::<String>(written) {
            Ok(key) => Cow::Owned(key.into_bytes()),
            // What was written a moment ago is read.
            Err(_) => Cow::Borrowed(written),
        }
    }
}

impl Writer {
    fn leaf(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        serde_json::to_writer(&mut self.text, value)
    }

    fn begin(&mut self, opens: &str, closes: &'static str) -> Open<'_> {
        self.text.extend_from_slice(opens.as_bytes());
        Open {
            start: self.text.len(),
            members: self.members.len(),
            writer: self,
            closes,
        }
    }

    /// Begins what stands in an object of its own under the name of its variant.
    fn begin_variant(
        &mut self,
        name: &str,
        opens: &str,
        closes: &'static str,
    ) -> Result<Open<'_>, Error> {
        self.text.push(b'{');
        self.leaf(name)?;
        self.text.push(b':');
        Ok(self.begin(opens, closes))
    }

    /// Puts the innermost object's members in order, whose text begins at `start`.
    fn sort(&mut self, start: usize, members: usize) {
        let Self {
            text,
            members: all,
            sorted,
            as_it_is: _,
        } = self;
        let own = &mut all[members..];
        let in_order = |a: &Member, b: &Member| a.key(text) <= b.key(text);
        if !own.is_sorted_by(in_order) {
            own.sort_by(|a, b| a.key(text).cmp(&b.key(text)));
            sorted.clear();
            for member in own.iter() {
                if !sorted.is_empty() {
                    sorted.push(b',');
                }
                sorted.extend_from_slice(&text[member.key.start..member.end]);
            }
            text[start..].copy_from_slice(sorted);
        }
        all.truncate(members);
    }
}

/// An array or object that has not ended.
struct Open<'w> {
    writer: &'w mut Writer,
    /// Where its text begins.
    start: usize,
    /// Where its members begin.
    members: usize,
    closes: &'static str,
}

impl Open<'_> {
    fn separate(&mut self) {
        if self.writer.text.len() > self.start {
            self.writer.text.push(b',');
        }
    }

    fn item(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.separate();
        value.serialize(&mut *self.writer)
    }

    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.separate();
        let start = self.writer.text.len();
        self.writer.leaf(key)?;
        let key = start..self.writer.text.len();
        if self.writer.text[start] != b'"' {
            return Err(ser::Error::custom("the key of an object is text"));
        }
        self.writer.text.push(b':');
        self.writer.members.push(Member { end: key.end, key });
        Ok(())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let member = self.writer.members.len() - 1;
        value.serialize(&mut *self.writer)?;
        self.writer.members[member].end = self.writer.text.len();
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        self.writer.sort(self.start, self.members);
        self.writer.text.extend_from_slice(self.closes.as_bytes());
        Ok(())
    }
}

/// Leaves are written by `serde_json` itself.
macro_rules! leaves {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.leaf(&value)
        })*
    };
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'w>;
    type SerializeTuple = Open<'w>;
    type SerializeTupleStruct = Open<'w>;
    type SerializeTupleVariant = Open<'w>;
    type SerializeMap = Open<'w>;
    type SerializeStruct = Open<'w>;
    type SerializeStructVariant = Open<'w>;

    leaves! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if std::mem::take(&mut self.as_it_is) {
            self.text.extend_from_slice(value.as_bytes());
            return Ok(());
        }
        self.leaf(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.leaf(&())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.leaf(&())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.leaf(&())
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.leaf(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.as_it_is = name == WRITTEN;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let mut open = self.begin_variant(variant, "", "}")?;
        open.item(value)?;
        open.end()
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Open<'w>, Error> {
        Ok(self.begin("[", "]"))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Open<'w>, Error> {
        Ok(self.begin("[", "]"))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Open<'w>, Error> {
        Ok(self.begin("[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Open<'w>, Error> {
        self.begin_variant(variant, "[", "]}")
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Open<'w>, Error> {
        Ok(self.begin("{", "}"))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Open<'w>, Error> {
        Ok(self.begin("{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Open<'w>, Error> {
        self.begin_variant(variant, "{", "}}")
    }
}

/// Arrays, of whatever kind.
macro_rules! arrays {
    ($($kind:ident::$method:ident),* $(,)?) => {
        $(impl ser::$kind for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                Open::end(self)
            }
        })*
    };
}

arrays! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

/// Objects with names of fields for keys.
macro_rules! objects {
    ($($kind:ident),* $(,)?) => {
        $(impl ser::$kind for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.key(key)?;
                self.value(value)
            }

            fn end(self) -> Result<(), Error> {
                Open::end(self)
            }
        })*
    };
}

objects! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        Open::end(self)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_key_that_is_no_text_is_an_error() {
        let mut writer = Writer::default();
        assert!(BTreeMap::from([((), 1)]).serialize(&mut writer).is_err());
    }
}
