//! The figures that are published, read from the tables of the stages before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fx_contract::day::Day;
use fx_contract::status::{Failure, Status};
use fx_contract::table::{self, TableError};
use rust_decimal::Decimal;

const MONTHLY: [&str; 6] = [
    "month",
    "currency",
    "month_end_rate",
    "mean_rate",
    "volatility_30d",
    "change_on_year",
];

/// The tables could not be read, or do not hold what they should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FiguresError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{table} has `{text}` where {expected} is expected")]
    Value {
        table: &'static str,
        text: String,
        expected: &'static str,
    },
    #[error("kpi.fx_monthly has no rows")]
    Empty,
}

impl Failure for FiguresError {
    fn status(&self) -> Status {
        match self {
            Self::Table(error) => error.status(),
            Self::Value { .. } | Self::Empty => Status::DataErr,
        }
    }
}

/// One month of one currency, with its fields as they were read for the CSV file.
#[derive(Debug)]
pub(crate) struct Month {
    /// Months since the year 0, for the axis of time.
    pub(crate) index: i32,
    pub(crate) rate: f64,
    pub(crate) volatility: Option<f64>,
    pub(crate) change_on_year: Option<f64>,
    fields: [String; 6],
}

/// The deepest fall of the euro against a currency.
#[derive(Debug)]
pub(crate) struct Drawdown {
    pub(crate) depth: f64,
    pub(crate) peak: String,
    pub(crate) trough: String,
}

/// What is known of one currency.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// By month.
    pub(crate) months: Vec<Month>,
    pub(crate) drawdown: Option<Drawdown>,
}

/// The invoices of one year, in euro.
#[derive(Debug, Default)]
pub(crate) struct InvoiceYear {
    pub(crate) count: u64,
    pub(crate) total: Decimal,
    /// The part that was not issued in euro.
    pub(crate) foreign: Decimal,
}

/// Everything that the report tells.
#[derive(Debug)]
pub(crate) struct Figures {
    /// By code.
    pub(crate) currencies: BTreeMap<String, Series>,
    /// By year.
    pub(crate) invoices: BTreeMap<String, InvoiceYear>,
    /// The first and the last month of any currency, in months since the year 0.
    pub(crate) span: (i32, i32),
}

impl Figures {
    /// Reads the three tables from the folders below `input_dir`.
    pub(crate) fn read(input_dir: &Path) -> Result<Self, FiguresError> {
        let mut currencies = read_months(&input_dir.join("kpi.fx_monthly"))?;
        read_drawdowns(&input_dir.join("kpi.fx_drawdown"), &mut currencies)?;
        let invoices = read_invoices(&input_dir.join("gdp.invoices_eur"))?;
        let months = || currencies.values().flat_map(|series| &series.months);
        let first = months()
            .map(|month| month.index)
            .min()
            .ok_or(FiguresError::Empty)?;
        let last = months()
            .map(|month| month.index)
            .max()
            .ok_or(FiguresError::Empty)?;
        Ok(Self {
            currencies,
            invoices,
            span: (first, last),
        })
    }

    /// Writes every month of every currency as it was read, and answers with the number of rows.
    pub(crate) fn write_monthly(&self, path: PathBuf) -> Result<u64, TableError> {
        let mut sink = table::create_file(path, &MONTHLY)?;
        for month in self.currencies.values().flat_map(|series| &series.months) {
            sink.write(&month.fields)?;
        }
        sink.finish()
    }
}

fn read_months(folder: &Path) -> Result<BTreeMap<String, Series>, FiguresError> {
    const TABLE: &str = "kpi.fx_monthly";
    let mut currencies = BTreeMap::<String, Series>::new();
    table::each_row(folder, MONTHLY, |row| {
        let [first_day, currency, rate, mean, volatility, change] = row;
        number(TABLE, mean)?;
        let month = Month {
            index: month_index(TABLE, first_day)?,
            rate: number(TABLE, rate)?,
            volatility: optional(TABLE, volatility)?,
            change_on_year: optional(TABLE, change)?,
            fields: row.map(str::to_owned),
        };
        currencies
            .entry(currency.to_owned())
            .or_default()
            .months
            .push(month);
        Ok::<_, FiguresError>(())
    })?;
    for series in currencies.values_mut() {
        series.months.sort_by_key(|month| month.index);
    }
    Ok(currencies)
}

fn read_drawdowns(
    folder: &Path,
    currencies: &mut BTreeMap<String, Series>,
) -> Result<(), FiguresError> {
    const TABLE: &str = "kpi.fx_drawdown";
    let columns = ["currency", "worst_drawdown", "peak_date", "trough_date"];
    table::each_row(folder, columns, |[currency, depth, peak, trough]| {
        let drawdown = Drawdown {
            depth: number(TABLE, depth)?,
            peak: day(TABLE, peak)?.to_owned(),
            trough: day(TABLE, trough)?.to_owned(),
        };
        if let Some(series) = currencies.get_mut(currency) {
            series.drawdown = Some(drawdown);
        }
        Ok(())
    })
}

fn read_invoices(folder: &Path) -> Result<BTreeMap<String, InvoiceYear>, FiguresError> {
    const TABLE: &str = "gdp.invoices_eur";
    let mut years = BTreeMap::<String, InvoiceYear>::new();
    table::each_row(
        folder,
        ["issued", "currency", "amount_eur"],
        |[issued, currency, amount]| {
            let amount = Decimal::from_str_exact(amount)
                .map_err(|_| wrong(TABLE, amount, "an amount of money"))?;
            let year = years
                .entry(day(TABLE, issued)?[..4].to_owned())
                .or_default();
            year.count += 1;
            year.total += amount;
            if currency != "EUR" {
                year.foreign += amount;
            }
            Ok::<_, FiguresError>(())
        },
    )?;
    Ok(years)
}

fn wrong(table: &'static str, text: &str, expected: &'static str) -> FiguresError {
    FiguresError::Value {
        table,
        text: text.to_owned(),
        expected,
    }
}

fn number(table: &'static str, text: &str) -> Result<f64, FiguresError> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| wrong(table, text, "a number"))
}

fn optional(table: &'static str, text: &str) -> Result<Option<f64>, FiguresError> {
    (!text.is_empty()).then(|| number(table, text)).transpose()
}

fn day<'a>(table: &'static str, text: &'a str) -> Result<&'a str, FiguresError> {
    Day::parse(text)
        .map(|_| text)
        .ok_or_else(|| wrong(table, text, "a date"))
}

/// The month of a day such as `2024-05-31`, in months since the year 0.
fn month_index(table: &'static str, text: &str) -> Result<i32, FiguresError> {
    let text = day(table, text)?;
    let part = |range: std::ops::Range<usize>| text[range].parse::<i32>().unwrap_or(0);
    Ok(part(0..4) * 12 + part(5..7) - 1)
}

impl Drawdown {
    /// The months of peak and trough, in months since the year 0.
    pub(crate) fn span(&self) -> Option<(i32, i32)> {
        let index = |text| month_index("kpi.fx_drawdown", text).ok();
        index(&self.peak).zip(index(&self.trough))
    }
}
