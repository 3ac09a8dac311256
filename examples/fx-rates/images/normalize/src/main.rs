//! The *normalize* command: one row per date and currency; rates that were not published left out.
//!
//! It keeps no checkpoint and lets `SIGTERM` end it at once: it runs for a fraction of a second, and
//! what an attempt wrote before it ended is never committed, so there is nothing partial to save.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fx_contract::invocation::{MissingVariable, Places};
use fx_contract::status::{self, Failure, Status};
use fx_contract::table::{self, TableError};

const UNPUBLISHED: &str = "N/A";

#[derive(Debug, thiserror::Error)]
enum NormalizeError {
    #[error(transparent)]
    Environment(#[from] MissingVariable),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the first column of {} is `{found}`, not `date`", path.display())]
    Header { path: PathBuf, found: String },
    #[error("{} has the rate `{text}` for {currency} on {date}", path.display())]
    Rate {
        path: PathBuf,
        date: String,
        currency: String,
        text: String,
    },
}

impl Failure for NormalizeError {
    fn status(&self) -> Status {
        match self {
            Self::Environment(error) => error.status(),
            Self::Table(error) => error.status(),
            Self::Header { .. } | Self::Rate { .. } => Status::DataErr,
        }
    }
}

fn main() -> ExitCode {
    // A log line that cannot be written changes nothing about the outcome.
    match Places::from_environment()
        .map_err(NormalizeError::from)
        .and_then(|places| normalize(&places.input_dir, &places.output_dir))
    {
        Ok(rows) => {
            let _ = writeln!(io::stdout(), r#"{{"message":"normalized","rows":{rows}}}"#);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "normalize: {}", status::chain(&error));
            ExitCode::from(error.status().code())
        }
    }
}

/// Writes `gdp.fx_rates` from `raw.fx_rates`, in its order, and answers with the number of rows.
fn normalize(input_dir: &Path, output_dir: &Path) -> Result<u64, NormalizeError> {
    let mut rates = table::create(output_dir, "gdp.fx_rates", &["date", "currency", "rate"])?;
    for path in table::files(&input_dir.join("raw.fx_rates"))? {
        let failed = |source| TableError::Rows {
            path: path.clone(),
            source,
        };
        let mut reader = table::open(&path)?;
        let header = reader.headers().map_err(failed)?.clone();
        let first = header.get(0).unwrap_or_default();
        if first != "date" {
            return Err(NormalizeError::Header {
                path,
                found: first.to_owned(),
            });
        }
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).map_err(failed)? {
            let date = row.get(0).unwrap_or_default();
            let published = header
                .iter()
                .zip(&row)
                .skip(1)
                .filter(|(_, text)| *text != UNPUBLISHED);
            for (currency, text) in published {
                if !is_positive_decimal(text) {
                    return Err(NormalizeError::Rate {
                        path,
                        date: date.to_owned(),
                        currency: currency.to_owned(),
                        text: text.to_owned(),
                    });
                }
                rates.write([date, currency, text])?;
            }
        }
    }
    Ok(rates.finish()?)
}

fn is_positive_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction) && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    fn run(text: &str) -> Result<(Result<u64, NormalizeError>, String), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let input = folder.path().join("raw.fx_rates");
        fs::create_dir(&input)?;
        fs::write(input.join("part-0.csv"), text)?;
        let outcome = normalize(folder.path(), folder.path());
        Ok((
            outcome,
            fs::read_to_string(folder.path().join("gdp.fx_rates/part-0.csv"))?,
        ))
    }

    #[test]
    fn each_published_rate_becomes_a_row_as_it_was_written() -> Outcome {
        let (rows, text) = run("date,USD,JPY\n2024-01-03,1.0919,N/A\n2024-01-02,1.0956,155.80\n")?;
        assert_eq!(rows?, 3);
        let expected = "date,currency,rate\n2024-01-03,USD,1.0919\n2024-01-02,USD,1.0956\n\
                        2024-01-02,JPY,155.80\n";
        assert_eq!(text, expected);
        Ok(())
    }

    #[test]
    fn what_the_schema_of_the_raw_table_forbids_ends_with_the_code_of_bad_data() -> Outcome {
        for text in [
            "date,USD\n2024-01-02,x\n",
            "date,USD\n2024-01-02,-1\n",
            "date,USD\n2024-01-02,\n",
            "date,USD\n2024-01-02,0.0\n",
            "date,USD\n2024-01-02,1,2\n",
            "day,USD\n2024-01-02,1\n",
        ] {
            let error = run(text)?.0.expect_err("the input is bad");
            assert_eq!(error.status().code(), 65, "{text:?}");
        }
        Ok(())
    }
}
