//! The columns of TPC-H's `lineitem` that Q1 and Q6 read, and no others.
//!
//! Not the benchmark's own generator: rows are drawn independently from the ranges that its
//! specification gives, by a fixed sequence. Counts, ranges and selectivities are close to the
//! real ones; results are not those of the specification.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use barecount_dataset::schema::{Column, ColumnType, TableSchema};
use datafusion::arrow::array::{ArrayRef, Date32Array, Decimal128Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;

/// Rows at scale factor 1.
const ROWS: f64 = 6_001_215.0;
const BATCH_ROWS: u64 = 65_536;
/// 1992-01-02 and 1998-12-01, in days since 1970: the first and the last day of shipping.
const FIRST_DAY: i32 = 8_036;
const LAST_DAY: i32 = 10_561;
/// 1995-06-17: what was shipped later is still open.
const CURRENT_DAY: i32 = 9_298;

const MONEY: ColumnType = ColumnType::Decimal {
    precision: 15,
    scale: 2,
};

/// The table's columns.
pub(crate) fn schema() -> Result<TableSchema, Box<dyn Error>> {
    let columns = vec![
        Column::required("l_quantity", MONEY),
        Column::required("l_extendedprice", MONEY),
        Column::required("l_discount", MONEY),
        Column::required("l_tax", MONEY),
        Column::required("l_returnflag", ColumnType::String),
        Column::required("l_linestatus", ColumnType::String),
        Column::required("l_shipdate", ColumnType::Date),
    ];
    Ok(TableSchema::new(columns, vec![])?)
}

/// Writes the table at a scale factor; gives the number of rows.
pub(crate) fn write(path: &Path, scale: f64) -> Result<u64, Box<dyn Error>> {
    let rows = (ROWS * scale) as u64;
    let mut writer = None;
    for start in (0..rows).step_by(BATCH_ROWS as usize) {
        let batch = batch(start..rows.min(start + BATCH_ROWS))?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(ArrowWriter::try_new(
                File::create(path)?,
                batch.schema(),
                None,
            )?),
        };
        writer.write(&batch)?;
    }
    writer
        .ok_or("the scale is too small for a single row")?
        .close()?;
    Ok(rows)
}

fn batch(rows: std::ops::Range<u64>) -> Result<RecordBatch, Box<dyn Error>> {
    let drawn: Vec<Row> = rows.map(Row::draw).collect();
    let money = |value: fn(&Row) -> i128| -> Result<ArrayRef, Box<dyn Error>> {
        let values = Decimal128Array::from_iter_values(drawn.iter().map(value));
        Ok(Arc::new(values.with_precision_and_scale(15, 2)?))
    };
    let text = |value: fn(&Row) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(drawn.iter().map(value)))
    };
    let days = Date32Array::from_iter_values(drawn.iter().map(|row| row.ship_day));
    Ok(RecordBatch::try_from_iter([
        ("l_quantity", money(|row| row.quantity * 100)?),
        (
            "l_extendedprice",
            money(|row| row.quantity * row.unit_price)?,
        ),
        ("l_discount", money(|row| row.discount)?),
        ("l_tax", money(|row| row.tax)?),
        ("l_returnflag", text(|row| row.return_flag)),
        ("l_linestatus", text(|row| row.line_status)),
        ("l_shipdate", Arc::new(days) as ArrayRef),
    ])?)
}

/// A row, money in cents.
struct Row {
    quantity: i128,
    unit_price: i128,
    discount: i128,
    tax: i128,
    ship_day: i32,
    return_flag: &'static str,
    line_status: &'static str,
}

impl Row {
    fn draw(number: u64) -> Self {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut state = number.wrapping_mul(0xd134_2543_de82_ef95);
        let mut below = |limit: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % limit
        };
        let ship_day = FIRST_DAY + below((LAST_DAY - FIRST_DAY + 1) as u64) as i32;
        let received = ship_day + 1 + below(30) as i32;
        Self {
            quantity: 1 + i128::from(below(50)),
            unit_price: 90_000 + i128::from(below(120_000)),
            discount: i128::from(below(11)),
            tax: i128::from(below(9)),
            ship_day,
            return_flag: match received {
                day if day > CURRENT_DAY => "N",
                _ if below(2) == 0 => "R",
                _ => "A",
            },
            line_status: if ship_day > CURRENT_DAY { "O" } else { "F" },
        }
    }
}
