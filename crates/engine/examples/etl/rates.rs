//! The reference rates of the pipeline example, in the long format that its SQL job reads.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barecount_dataset::schema::{Column, ColumnType, TableSchema};
use barecount_engine::job::DeclaredTable;
use datafusion::arrow::array::{
    ArrayRef, Date32Builder, Decimal128Builder, RecordBatch, StringBuilder,
};
use datafusion::arrow::compute::kernels::cast_utils::Parser as _;
use datafusion::arrow::datatypes::Date32Type;
use datafusion::parquet::arrow::ArrowWriter;

const RATE: ColumnType = ColumnType::Decimal {
    precision: 18,
    scale: 6,
};

/// The pipeline example's folder.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fx-rates")
}

/// The example's SQL job.
pub(crate) fn script() -> Result<String, Box<dyn Error>> {
    Ok(std::fs::read_to_string(
        folder().join("jobs/consolidate.sql"),
    )?)
}

/// What the job reads: `gdp.fx_rates`.
pub(crate) fn input_schema() -> Result<TableSchema, Box<dyn Error>> {
    let columns = vec![
        Column::required("date", ColumnType::Date),
        Column::required("currency", ColumnType::String),
        Column::required("rate", RATE),
    ];
    Ok(TableSchema::new(columns, vec![])?)
}

/// What the job writes: `kpi.fx_monthly` and `kpi.fx_drawdown`.
pub(crate) fn outputs() -> Result<Vec<DeclaredTable>, Box<dyn Error>> {
    let monthly = vec![
        Column::required("year", ColumnType::Int64),
        Column::required("month", ColumnType::Date),
        Column::required("currency", ColumnType::String),
        Column::required("month_end_rate", RATE),
        Column::required("mean_rate", RATE),
        Column::nullable("volatility_30d", RATE),
        Column::nullable("change_on_year", RATE),
    ];
    let drawdown = vec![
        Column::required("currency", ColumnType::String),
        Column::required("worst_drawdown", RATE),
        Column::required("peak_date", ColumnType::Date),
        Column::required("trough_date", ColumnType::Date),
    ];
    Ok(vec![
        DeclaredTable {
            table: "kpi.fx_monthly".parse()?,
            schema: TableSchema::new(monthly, vec!["year".to_owned()])?,
        },
        DeclaredTable {
            table: "kpi.fx_drawdown".parse()?,
            schema: TableSchema::new(drawdown, vec![])?,
        },
    ])
}

/// Writes every published rate to a Parquet file; gives their number.
pub(crate) fn write(path: &Path) -> Result<usize, Box<dyn Error>> {
    let archive = File::open(folder().join("data/eurofxref-hist.zip"))?;
    let mut text = String::new();
    zip::ZipArchive::new(archive)?
        .by_name("eurofxref-hist.csv")?
        .read_to_string(&mut text)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .ok_or("the file is empty")?
        .split(',')
        .collect();
    let (mut dates, mut currencies) = (Date32Builder::new(), StringBuilder::new());
    let mut rates = Decimal128Builder::new().with_precision_and_scale(18, 6)?;
    for line in lines {
        let mut cells = line.split(',');
        let date = cells
            .next()
            .and_then(Date32Type::parse)
            .ok_or("a line has no date")?;
        for (currency, rate) in header[1..].iter().zip(cells) {
            if !currency.is_empty() && !rate.is_empty() && rate != "N/A" {
                dates.append_value(date);
                currencies.append_value(currency);
                rates.append_value(millionths(rate)?);
            }
        }
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("date", Arc::new(dates.finish())),
        ("currency", Arc::new(currencies.finish())),
        ("rate", Arc::new(rates.finish())),
    ];
    let rows = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), None)?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(rows.num_rows())
}

/// A decimal as a whole number of millionths.
fn millionths(text: &str) -> Result<i128, Box<dyn Error>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 6 {
        return Err(format!("{text} has more than six decimals").into());
    }
    Ok(format!("{whole}{fraction:0<6}").parse()?)
}
