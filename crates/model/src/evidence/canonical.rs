//! JSON with object keys sorted by code point and no white space, written once, straight to bytes.
//!
//! Members are written in the order in which they come, and put in order where an object ends, so
//! that whatever can be written as JSON has one canonical form, however its type lists its fields.
//! Numbers and text are as `serde_json` writes them.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    ops::Range,
};

use serde::{Serialize, Serializer, ser};
use serde_json::{Error, Value};

/// What most statements need no more than.
const USUAL_BYTES: usize = 2048;
/// The members that objects within each other have at a time, mostly.
const USUAL_MEMBERS: usize = 32;

/// The canonical JSON of something whose type has text for keys, and writes itself without fail:
/// values, and plain data.
///
/// # Panics
/// Where it is something else, as the macro `json!` does.
pub(super) fn text(value: &impl Serialize) -> String {
    let mut writer = Writer {
        text: Vec::with_capacity(USUAL_BYTES),
        members: Vec::with_capacity(USUAL_MEMBERS),
        ..Writer::default()
    };
    let written = value.serialize(&mut writer);
    written
        .and_then(|()| String::from_utf8(writer.text).map_err(ser::Error::custom))
        .expect("plain data is JSON")
}

/// Writes JSON at the end of `into`, its members as they come.
pub(super) fn append(into: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    let mut writer = Writer {
        text: std::mem::take(into),
        as_they_come: true,
        ..Writer::default()
    };
    let written = value.serialize(&mut writer);
    *into = writer.text;
    written
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
    /// Whether members are left in the order in which they come.
    as_they_come: bool,
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

    /// Text in quotation marks. Most of what statements hold needs no escapes, and is copied.
    fn quoted(&mut self, text: &str) -> Result<(), Error> {
        if !is_plain(text.as_bytes()) {
            return self.leaf(text);
        }
        self.text.reserve(text.len() + 3);
        self.text.push(b'"');
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(b'"');
        Ok(())
    }

    fn begin(&mut self, opens: &str, closes: &'static str) -> Open<'_> {
        self.text.extend_from_slice(opens.as_bytes());
        Open {
            start: self.text.len(),
            members: self.members.len(),
            writer: self,
            closes,
            order: Order::default(),
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
            ..
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
    }
}

/// Whether text stands in quotation marks as it is.
fn is_plain(text: &[u8]) -> bool {
    let escaped = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    // Without a way out of the middle, many bytes are looked at together.
    !text.iter().fold(false, |any, byte| any | escaped(byte))
}

/// Puts what is displayed at the end of bytes.
struct Displayed<'t>(&'t mut Vec<u8>);

impl std::fmt::Write for Displayed<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The order of an object's members that are fields of a type.
#[derive(Default)]
struct Order {
    last: &'static str,
    /// Whether one came after another that it goes before.
    is_mixed: bool,
}

/// An array or object that has not ended.
struct Open<'w> {
    writer: &'w mut Writer,
    /// Where its text begins.
    start: usize,
    /// Where its members begin.
    members: usize,
    closes: &'static str,
    order: Order,
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
        self.keyed(key);
        Ok(())
    }

    /// The key of a field.
    fn field(&mut self, key: &'static str) -> Result<(), Error> {
        self.separate();
        let start = self.writer.text.len();
        self.writer.quoted(key)?;
        self.keyed(start..self.writer.text.len());
        self.order.is_mixed |= key < self.order.last;
        self.order.last = key;
        Ok(())
    }

    /// Notes a key that was written.
    fn keyed(&mut self, key: Range<usize>) {
        self.writer.text.push(b':');
        if !self.writer.as_they_come {
            self.writer.members.push(Member { end: key.end, key });
        }
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let members = self.writer.members.len();
        value.serialize(&mut *self.writer)?;
        let end = self.writer.text.len();
        // Those of the value itself are gone again.
        if let Some(member) = self.writer.members[..members].last_mut() {
            member.end = end;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        self.close(true)
    }

    /// Ends an object of fields, which mostly came in their order.
    fn end_fields(self) -> Result<(), Error> {
        let is_mixed = self.order.is_mixed;
        self.close(is_mixed)
    }

    fn close(self, is_mixed: bool) -> Result<(), Error> {
        if is_mixed && !self.writer.as_they_come {
            self.writer.sort(self.start, self.members);
        }
        self.writer.members.truncate(self.members);
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
        self.quoted(value)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        let start = self.text.len();
        self.text.push(b'"');
        write!(Displayed(&mut self.text), "{value}").map_err(ser::Error::custom)?;
        if is_plain(&self.text[start + 1..]) {
            self.text.push(b'"');
            return Ok(());
        }
        self.text.truncate(start);
        self.leaf(&value.to_string())
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
        self.quoted(variant)
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
                self.field(key)?;
                self.value(value)
            }

            fn end(self) -> Result<(), Error> {
                self.end_fields()
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
mod tests;
