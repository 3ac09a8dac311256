//! The rows that are measured with.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
};

use barecount_dataset::schema::{Column, ColumnType, TableSchema};

use crate::{Failure, place};

/// Ten columns of every kind, two of which may be null, divided by those named.
pub(crate) fn schema(partition_by: &[&str]) -> Result<TableSchema, Failure> {
    let money = ColumnType::Decimal {
        precision: 18,
        scale: 2,
    };
    let mut country = Column::required("country", ColumnType::String);
    country.pattern = Some("[A-Z]{2}".to_owned());
    let columns = vec![
        Column::required("id", ColumnType::Int64),
        Column::required("account", ColumnType::Int64),
        country,
        Column::required("name", ColumnType::String),
        Column::required("amount", money),
        Column::nullable("rate", ColumnType::Float64),
        Column::required("day", ColumnType::Date),
        Column::required("at", ColumnType::Timestamp),
        Column::required("paid", ColumnType::Bool),
        Column::nullable("note", ColumnType::String),
    ];
    let partition_by = partition_by.iter().map(|name| (*name).to_owned());
    Ok(TableSchema::new(columns, partition_by.collect())?)
}

/// The same rows as CSV and as NDJSON, from numbers that look random and are not.
pub(crate) fn make_text(folder: &Path, rows: u64) -> Result<(), Failure> {
    let open = |format| -> Result<BufWriter<fs::File>, Failure> {
        fs::create_dir_all(folder.join(format))?;
        Ok(BufWriter::with_capacity(
            1 << 20,
            fs::File::create(place(folder, format))?,
        ))
    };
    let (mut csv, mut ndjson) = (open("csv")?, open("ndjson")?);
    writeln!(csv, "id,account,country,name,amount,rate,day,at,paid,note")?;
    let mut state = 7_u64;
    for id in 0..rows {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let row = Row::new(id, state >> 20);
        row.write_csv(&mut csv)?;
        row.write_json(&mut ndjson)?;
    }
    csv.flush()?;
    ndjson.flush()?;
    Ok(())
}

/// One row, each value as text.
struct Row {
    id: u64,
    account: u64,
    country: &'static str,
    name: String,
    amount: String,
    rate: Option<String>,
    day: String,
    at: String,
    paid: bool,
    note: Option<String>,
}

impl Row {
    fn new(id: u64, random: u64) -> Self {
        let countries = ["DE", "FR", "IT", "ES", "PL", "NL", "SE"];
        let sign = if random.is_multiple_of(5) { "-" } else { "" };
        let day = format!(
            "20{:02}-{:02}-{:02}",
            random % 27,
            random % 12 + 1,
            random % 28 + 1
        );
        let rated = !random.is_multiple_of(10);
        let noted = random.is_multiple_of(4);
        Self {
            id,
            account: random % 1_000_003,
            country: countries[(random % 7) as usize],
            name: format!("Customer {} of {}", random % 90_001, random % 97),
            amount: format!("{sign}{}.{:02}", random % 1_000_000, random % 100),
            rate: rated.then(|| format!("{}.{}", random % 10, random % 1_000_000 + 1)),
            at: format!(
                "{day}T{:02}:{:02}:{:02}.{:03}Z",
                random % 24,
                random % 60,
                random % 59,
                random % 1000
            ),
            day,
            paid: random.is_multiple_of(3),
            note: noted.then(|| format!("paid late, by {} days", random % 30)),
        }
    }

    fn write_csv(&self, to: &mut impl Write) -> Result<(), Failure> {
        let Self {
            id,
            account,
            country,
            name,
            amount,
            day,
            at,
            paid,
            ..
        } = self;
        let rate = self.rate.as_deref().unwrap_or_default();
        let note = self.note.as_ref().map(|note| format!("\"{note}\""));
        let note = note.unwrap_or_default();
        writeln!(
            to,
            "{id},{account},{country},{name},{amount},{rate},{day},{at},{paid},{note}"
        )?;
        Ok(())
    }

    fn write_json(&self, to: &mut impl Write) -> Result<(), Failure> {
        let Self {
            id,
            account,
            country,
            name,
            amount,
            day,
            at,
            paid,
            ..
        } = self;
        let rate = self.rate.as_deref().unwrap_or("null");
        let note = self.note.as_ref().map(|note| format!("\"{note}\""));
        let note = note.unwrap_or_else(|| "null".to_owned());
        writeln!(
            to,
            "{{\"id\":{id},\"account\":{account},\"country\":\"{country}\",\"name\":\"{name}\",\"amount\":{amount},\"rate\":{rate},\"day\":\"{day}\",\"at\":\"{at}\",\"paid\":{paid},\"note\":{note}}}"
        )?;
        Ok(())
    }
}
