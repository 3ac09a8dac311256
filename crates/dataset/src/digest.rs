//! The content digest: a name for a table's rows, whatever their order and layout.
//!
//! # Specification
//! A table's content is a schema and a *multiset* of rows. Its digest is computed in three steps.
//!
//! 1. **Row.** A row is encoded as the concatenation of its cells that are not null, in the byte
//!    order of their column names. A cell is `u32 name length | name | u8 type | u64 value length
//!    | value`, integers little-endian. Types and values: 1 string, its UTF-8 bytes; 2 int64,
//!    8 bytes; 3 float64, the 8 bytes of its IEEE 754 bits, with −0 as +0 and every NaN as
//!    `0x7ff8000000000000`; 4 decimal, 1 byte scale and 16 bytes unscaled value; 5 date, 4 bytes
//!    of days since 1970-01-01; 6 timestamp, 8 bytes of microseconds since 1970-01-01T00:00:00Z;
//!    7 bool, one byte 0 or 1; 8 binary, its bytes. The encoding is injective: lengths precede
//!    what varies. Nulls are left out, so that a table widened by a nullable column keeps the
//!    hashes of its rows.
//! 2. **Multiset.** Each encoded row is expanded to 4096 bytes by BLAKE3 in key derivation mode
//!    with the context [`ROW_CONTEXT`], read as 1024 lanes of 32 bits, little-endian, and added
//!    lane by lane modulo 2³². That is LtHash with n = 1024, d = 32 (Bellare and Micciancio,
//!    *A New Paradigm for Collision-Free Hashing*, 1997; Lewi, Kim, Maykov and Weis, *Securing
//!    Update Propagation with Homomorphic Hashing*, 2019). Sums of parts add up to the sum of
//!    the whole, and a part can be taken out again: so a table's digest follows from its files'.
//!    The common d = 16 is not enough here, since 2¹⁶ copies of one row would add up to nothing;
//!    with d = 32 that takes 2³² copies, and the row count below is part of the digest too.
//! 3. **Digest.** SHA-256 over [`DIGEST_CONTEXT`], `u32` column count, for each column in byte
//!    order of names `u32 length | name | u32 length | type as the manifest spells it | u8
//!    nullable`, then `u64` row count and the 4096 bytes of the sum. Printed `sha256:<hex>`.
//!    Patterns and partition columns are no part of content.

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, BooleanArray, RecordBatch, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::schema::{ColumnType, TableSchema};

/// The BLAKE3 context that separates row hashes from all other uses.
pub const ROW_CONTEXT: &str = "barecount.dev 2026-11-21 dataset row v1";
/// The first bytes of every content digest's preimage.
pub const DIGEST_CONTEXT: &[u8] = b"barecount.dev dataset content v1\0";

const LANES: usize = 1024;
const STATE_BYTES: usize = LANES * 4;
/// A value of more bytes is hashed where it lies.
const LONG_BYTES: usize = 4 << 10;

/// A text that is not a multiset hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a multiset hash is {STATE_BYTES} bytes in base64, this is {length} characters of text")]
pub struct InvalidRowsHash {
    length: usize,
}

/// The sum over a multiset of rows (step 2 of the specification), without their number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowsHash {
    lanes: Box<[u32; LANES]>,
}

impl std::fmt::Debug for RowsHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowsHash({:08x}{:08x}…)", self.lanes[0], self.lanes[1])
    }
}

impl Default for RowsHash {
    fn default() -> Self {
        Self {
            lanes: Box::new([0; LANES]),
        }
    }
}

impl RowsHash {
    /// Adds all rows of another multiset.
    pub fn add(&mut self, other: &Self) {
        for (lane, more) in self.lanes.iter_mut().zip(other.lanes.iter()) {
            *lane = lane.wrapping_add(*more);
        }
    }

    /// Adds a row that was put into a hasher encoded; `expanded` is where it is expanded to.
    fn add_row(&mut self, row: &blake3::Hasher, expanded: &mut [u8; STATE_BYTES]) {
        row.finalize_xof().fill(expanded);
        let (words, _) = expanded.as_chunks::<4>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = lane.wrapping_add(u32::from_le_bytes(*word));
        }
    }

    /// The 4096 bytes of the sum.
    fn to_bytes(&self) -> Vec<u8> {
        self.lanes
            .iter()
            .flat_map(|lane| lane.to_le_bytes())
            .collect()
    }

    /// The content digest (step 3): of this multiset of `rows` rows, under `schema`.
    pub fn digest(&self, schema: &TableSchema, rows: u64) -> String {
        let mut columns: Vec<_> = schema.columns().iter().collect();
        columns.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        let mut hasher = Sha256::new();
        hasher.update(DIGEST_CONTEXT);
        hasher.update(length(columns.len()));
        for column in columns {
            let spelling = column.column_type.to_string();
            for text in [column.name.as_str(), &spelling] {
                hasher.update(length(text.len()));
                hasher.update(text);
            }
            hasher.update([u8::from(column.nullable)]);
        }
        hasher.update(rows.to_le_bytes());
        hasher.update(self.to_bytes());
        format!("sha256:{:x}", hasher.finalize())
    }
}

impl TryFrom<String> for RowsHash {
    type Error = InvalidRowsHash;

    fn try_from(text: String) -> Result<Self, InvalidRowsHash> {
        let bytes = STANDARD.decode(&text).unwrap_or_default();
        let (words, rest) = bytes.as_chunks::<4>();
        if words.len() != LANES || !rest.is_empty() {
            return Err(InvalidRowsHash { length: text.len() });
        }
        let mut lanes = Box::new([0; LANES]);
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = u32::from_le_bytes(*word);
        }
        Ok(Self { lanes })
    }
}

impl From<RowsHash> for String {
    fn from(hash: RowsHash) -> Self {
        STANDARD.encode(hash.to_bytes())
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Hashes rows of one schema, batch by batch.
pub struct RowHasher {
    /// The columns by name, each with its place in the batches and what comes before its values: up
    /// to the length, where that is the same for all of them.
    columns: Vec<(usize, Vec<u8>, ColumnType)>,
    hasher: blake3::Hasher,
    encoded: Vec<u8>,
    expanded: Box<[u8; STATE_BYTES]>,
}

impl RowHasher {
    /// A hasher for batches of `schema.to_arrow()`.
    pub fn new(schema: &TableSchema) -> Self {
        let mut columns: Vec<_> = schema
            .columns()
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let mut prefix = length(column.name.len()).to_vec();
                prefix.extend_from_slice(column.name.as_bytes());
                prefix.push(type_tag(column.column_type));
                if let Some(bytes) = fixed_length(column.column_type) {
                    prefix.extend_from_slice(&bytes.to_le_bytes());
                }
                (&column.name, place, prefix, column.column_type)
            })
            .collect();
        columns.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        let columns = columns.into_iter();
        Self {
            columns: columns
                .map(|(_, place, prefix, column_type)| (place, prefix, column_type))
                .collect(),
            hasher: blake3::Hasher::new_derive_key(ROW_CONTEXT),
            encoded: Vec::new(),
            expanded: Box::new([0; STATE_BYTES]),
        }
    }

    /// Adds the given rows of a batch to a sum.
    pub fn add_rows(
        &mut self,
        sum: &mut RowsHash,
        batch: &RecordBatch,
        rows: impl IntoIterator<Item = usize>,
    ) {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|(place, prefix, column_type)| {
                let array = batch.column(*place);
                let cells = Cells::of(array, *column_type);
                (prefix.as_slice(), array.nulls(), cells)
            })
            .collect();
        for row in rows {
            self.hasher.reset();
            self.encoded.clear();
            for (prefix, nulls, cells) in &columns {
                if nulls.is_none_or(|nulls: &NullBuffer| nulls.is_valid(row)) {
                    self.encoded.extend_from_slice(prefix);
                    if let Some(long) = cells.encode(row, &mut self.encoded) {
                        self.hasher.update(&self.encoded).update(long);
                        self.encoded.clear();
                    }
                }
            }
            self.hasher.update(&self.encoded);
            sum.add_row(&self.hasher, &mut self.expanded);
        }
    }
}

fn type_tag(column_type: ColumnType) -> u8 {
    match column_type {
        ColumnType::String => 1,
        ColumnType::Int64 => 2,
        ColumnType::Float64 => 3,
        ColumnType::Decimal { .. } => 4,
        ColumnType::Date => 5,
        ColumnType::Timestamp => 6,
        ColumnType::Bool => 7,
        ColumnType::Binary => 8,
    }
}

/// The length of the values of a type, where all have the same.
fn fixed_length(column_type: ColumnType) -> Option<u64> {
    match column_type {
        ColumnType::String | ColumnType::Binary => None,
        ColumnType::Int64 | ColumnType::Float64 | ColumnType::Timestamp => Some(8),
        ColumnType::Decimal { .. } => Some(17),
        ColumnType::Date => Some(4),
        ColumnType::Bool => Some(1),
    }
}

/// A column's cells by their type, found once for a batch.
enum Cells<'b> {
    String(&'b StringArray),
    /// Whole numbers and instants.
    Int64(&'b [i64]),
    Float64(&'b [f64]),
    /// With their scale.
    Decimal(u8, &'b [i128]),
    Date(&'b [i32]),
    Bool(&'b BooleanArray),
    Binary(&'b BinaryArray),
}

impl<'b> Cells<'b> {
    /// The cells of a column of a batch, which is of the type's Arrow type.
    fn of(array: &'b ArrayRef, column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::String => Self::String(array.as_string()),
            ColumnType::Int64 => Self::Int64(array.as_primitive::<Int64Type>().values()),
            ColumnType::Timestamp => {
                Self::Int64(array.as_primitive::<TimestampMicrosecondType>().values())
            }
            ColumnType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().values()),
            ColumnType::Decimal { scale, .. } => {
                Self::Decimal(scale, array.as_primitive::<Decimal128Type>().values())
            }
            ColumnType::Date => Self::Date(array.as_primitive::<Date32Type>().values()),
            ColumnType::Bool => Self::Bool(array.as_boolean()),
            ColumnType::Binary => Self::Binary(array.as_binary()),
        }
    }

    /// Appends a cell that is not null, with its length where that is not in the prefix. Of a long one
    /// only the length: its bytes are returned, and not copied.
    fn encode(&self, row: usize, out: &mut Vec<u8>) -> Option<&'b [u8]> {
        let put = |out: &mut Vec<u8>, bytes: &'b [u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            if bytes.len() > LONG_BYTES {
                return Some(bytes);
            }
            out.extend_from_slice(bytes);
            None
        };
        match self {
            Self::String(array) => return put(out, array.value(row).as_bytes()),
            Self::Binary(array) => return put(out, array.value(row)),
            Self::Int64(values) => out.extend_from_slice(&values[row].to_le_bytes()),
            Self::Float64(values) => {
                out.extend_from_slice(&canonical_bits(values[row]).to_le_bytes());
            }
            Self::Decimal(scale, values) => {
                out.push(*scale);
                out.extend_from_slice(&values[row].to_le_bytes());
            }
            Self::Date(values) => out.extend_from_slice(&values[row].to_le_bytes()),
            Self::Bool(array) => out.push(u8::from(array.value(row))),
        }
        None
    }
}

fn canonical_bits(number: f64) -> u64 {
    if number.is_nan() {
        0x7ff8_0000_0000_0000
    } else if number == 0.0 {
        0
    } else {
        number.to_bits()
    }
}

#[cfg(test)]
mod tests;
