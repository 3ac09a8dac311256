//! The *archive* command: one year of invoices, extracted in bulk from the ledger database through
//! the pinned driver bundle, and put into euro at the reference rate in force on the day of issue.
//!
//! It keeps no checkpoint and lets `SIGTERM` end it at once: a year takes a fraction of a second,
//! and what an attempt wrote before it ended is never committed.

mod conversion;
mod driver;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use fx_contract::dead_letters::{DeadLetterError, DeadLetters};
use fx_contract::invocation::{MissingVariable, Places, variable};
use fx_contract::status::{self, Failure, Status};
use fx_contract::table::{self, TableError};

use crate::conversion::{Invoice, Rates};
use crate::driver::DriverError;

const DATASET: &str = "gdp.invoices_eur";

const SQL: &str = "SELECT invoice_id, issued, currency, amount FROM invoices \
                   WHERE issued >= ?1 AND issued < ?2 ORDER BY invoice_id";

#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error(transparent)]
    Environment(#[from] MissingVariable),
    #[error("the partition `{0}` is not a year such as 2022")]
    Partition(String),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("gdp.fx_rates has the rate `{rate}` for {currency} on `{date}`")]
    Rate {
        date: String,
        currency: String,
        rate: String,
    },
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
}

impl Failure for ArchiveError {
    fn status(&self) -> Status {
        match self {
            Self::Environment(error) => error.status(),
            Self::Partition(_) => Status::Config,
            Self::Driver(error) => error.status(),
            Self::Table(error) => error.status(),
            Self::Rate { .. } => Status::DataErr,
            Self::DeadLetter(error) => error.status(),
        }
    }
}

/// What one run of the command works on.
struct Work {
    places: Places,
    drivers_dir: PathBuf,
    year: u16,
}

fn main() -> ExitCode {
    // A log line that cannot be written changes nothing about the outcome.
    match from_environment().and_then(|work| archive(&work)) {
        Ok((rows, dead)) => {
            let line = serde_json::json!({
                "message": "archived a year of invoices", "rows": rows, "dead_letters": dead,
            });
            let _ = writeln!(io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "archive: {}", status::chain(&error));
            ExitCode::from(error.status().code())
        }
    }
}

fn from_environment() -> Result<Work, ArchiveError> {
    let partition = variable("BARECOUNT_PARTITION")?;
    let year = partition
        .parse()
        .ok()
        .filter(|year| (1999..=9998).contains(year));
    Ok(Work {
        places: Places::from_environment()?,
        drivers_dir: variable("BARECOUNT_DRIVERS_DIR")?.into(),
        year: year.ok_or(ArchiveError::Partition(partition))?,
    })
}

/// Writes the year's partition of `gdp.invoices_eur`, ordered by invoice, and answers with the
/// number of rows and of dead letters.
fn archive(work: &Work) -> Result<(u64, u64), ArchiveError> {
    let Work {
        places,
        drivers_dir,
        year,
    } = work;
    let rates = rates(&places.input_dir.join("gdp.fx_rates"), *year)?;
    let header = [
        "year",
        "invoice_id",
        "issued",
        "currency",
        "amount",
        "rate_date",
        "rate",
        "amount_eur",
    ];
    let mut converted = table::create(&places.output_dir, DATASET, &header)?;
    let mut dead = DeadLetters::new(&places.output_dir, DATASET, conversion::SCHEMA);
    let program = drivers_dir.join("sqlite/bin/sqlite-extract");
    let database = places.input_dir.join("invoices/invoices.sqlite");
    let bounds = [format!("{year}-01-01"), format!("{}-01-01", year + 1)];
    driver::extract(&program, &database, SQL, &bounds, |row: [&str; 4]| {
        let euro = Invoice::parse(row).and_then(|invoice| rates.convert(&invoice));
        match euro {
            Ok(euro) => converted.write(euro.fields(&year.to_string(), row))?,
            Err(reason) => dead.put(&row.join(","), &reason.to_string())?,
        }
        Ok::<_, ArchiveError>(())
    })?;
    Ok((converted.finish()?, dead.finish()?))
}

/// The rates that can be in force in a year: its own and those of the year before.
fn rates(folder: &std::path::Path, year: u16) -> Result<Rates, ArchiveError> {
    let years = [(year - 1).to_string(), year.to_string()];
    let mut rates = Rates::default();
    table::each_row(
        folder,
        ["date", "currency", "rate"],
        |[date, currency, rate]| {
            if years.iter().any(|year| date.starts_with(year)) && !rates.add(date, currency, rate) {
                return Err(ArchiveError::Rate {
                    date: date.to_owned(),
                    currency: currency.to_owned(),
                    rate: rate.to_owned(),
                });
            }
            Ok(())
        },
    )?;
    rates.sort();
    Ok(rates)
}

#[cfg(test)]
mod tests;
