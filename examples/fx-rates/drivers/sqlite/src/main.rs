//! `sqlite-extract DATABASE SQL [PARAMETER…]`: runs one query on a SQLite database file and streams
//! its rows to standard output as CSV with a header.
//!
//! It is the entry point of the driver bundle `sqlite`, whose version is that of the SQLite library
//! linked in. Parameters are bound as text to `?1`, `?2` and so on. The file is opened read-only and
//! immutable: nothing is written beside it, no lock is taken, and a write-ahead log is not looked
//! for, which is what a dataset that is mounted read-only needs. Null becomes the empty field.
//!
//! Exit codes: 0 done, 64 wrong usage, 65 not a database or a query that it refuses, 66 no such
//! file, 74 the rows cannot be written.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, params_from_iter};

#[derive(Debug, thiserror::Error)]
enum ExtractError {
    #[error("usage: sqlite-extract DATABASE SQL [PARAMETER…]")]
    Usage,
    #[error("{path} is not a file")]
    NoFile { path: String },
    #[error("cannot open {path}")]
    Open {
        path: String,
        source: rusqlite::Error,
    },
    #[error("the query fails")]
    Query(#[from] rusqlite::Error),
    #[error("row {row}, column {column} is {what}, which has no CSV form")]
    Value {
        row: u64,
        column: String,
        what: &'static str,
    },
    #[error("cannot write the rows")]
    Write(#[from] csv::Error),
}

impl ExtractError {
    fn code(&self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Open { .. } | Self::Query(_) | Self::Value { .. } => 65,
            Self::NoFile { .. } => 66,
            Self::Write(_) => 74,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments, io::stdout().lock()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error
                .source()
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            // Where standard error is gone too, the exit code still tells.
            let _ = writeln!(io::stderr(), "sqlite-extract: {error}{cause}");
            ExitCode::from(error.code())
        }
    }
}

fn run(arguments: &[OsString], output: impl Write) -> Result<u64, ExtractError> {
    let [database, rest @ ..] = arguments else {
        return Err(ExtractError::Usage);
    };
    let rest: Option<Vec<&str>> = rest.iter().map(|argument| argument.to_str()).collect();
    let Some([sql, parameters @ ..]) = rest.as_deref() else {
        return Err(ExtractError::Usage);
    };
    let path = Path::new(database);
    if !path.is_file() {
        return Err(ExtractError::NoFile {
            path: path.display().to_string(),
        });
    }
    let connection = open(path).map_err(|source| ExtractError::Open {
        path: path.display().to_string(),
        source,
    })?;
    stream(&connection, sql, parameters, output)
}

/// Opens the file so that neither the query nor a crafted schema in it can do more than read it.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Sorting goes to memory, which the sandbox bounds: there may be no folder to write to.
    connection.execute_batch("PRAGMA temp_store = memory; PRAGMA cell_size_check = on;")?;
    Ok(connection)
}

/// Writes the header and every row, one at a time, and answers with the number of rows.
fn stream(
    connection: &Connection,
    sql: &str,
    parameters: &[&str],
    output: impl Write,
) -> Result<u64, ExtractError> {
    let mut statement = connection.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut writer = csv::Writer::from_writer(output);
    writer.write_record(&columns)?;
    let mut count = 0;
    let mut rows = statement.query(params_from_iter(parameters))?;
    while let Some(row) = rows.next()? {
        count += 1;
        for (position, column) in columns.iter().enumerate() {
            let refused = |what| ExtractError::Value {
                row: count,
                column: column.clone(),
                what,
            };
            match row.get_ref(position)? {
                ValueRef::Null => writer.write_field("")?,
                ValueRef::Integer(number) => writer.write_field(number.to_string())?,
                ValueRef::Real(number) => writer.write_field(number.to_string())?,
                ValueRef::Text(text) if std::str::from_utf8(text).is_ok() => {
                    writer.write_field(text)?;
                }
                ValueRef::Text(_) => return Err(refused("text that is not UTF-8")),
                ValueRef::Blob(_) => return Err(refused("binary data")),
            }
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush().map_err(csv::Error::from)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    fn arguments(path: &Path, rest: &[&str]) -> Vec<OsString> {
        std::iter::once(path.into())
            .chain(rest.iter().map(OsString::from))
            .collect()
    }

    fn extract(path: &Path, rest: &[&str]) -> Result<String, ExtractError> {
        let mut output = Vec::new();
        run(&arguments(path, rest), &mut output)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    #[test]
    fn rows_of_a_read_only_file_come_as_csv_with_parameters_bound_as_text() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("odd name%3f?.sqlite");
        Connection::open(&path)?.execute_batch(
            "CREATE TABLE t (a TEXT, b, c); INSERT INTO t VALUES ('x,\"y', 1, NULL), ('z', 1.5, 2);",
        )?;
        let mut permissions = fs::metadata(&path)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions)?;
        let sql = "SELECT a, b, c FROM t WHERE a <> ?1 ORDER BY a";
        assert_eq!(
            extract(&path, &[sql, "'; DROP TABLE t"])?,
            "a,b,c\n\"x,\"\"y\",1,\nz,1.5,2\n"
        );
        assert_eq!(extract(&path, &[sql, "z"])?, "a,b,c\n\"x,\"\"y\",1,\n");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn what_is_not_a_readable_database_or_query_is_bad_data() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("t.sqlite");
        Connection::open(&path)?
            .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (x'00');")?;
        let text = folder.path().join("text");
        fs::write(
            &text,
            "not a database, but long enough to be taken for one".repeat(20),
        )?;
        let refused: &[(&Path, &[&str], u8)] = &[
            (&path, &["SELECT a FROM t"], 65),
            (&path, &["SELECT a FROM u"], 65),
            (&path, &["DELETE FROM t"], 65),
            (&path, &["SELECT ?1"], 65),
            (&path, &["ATTACH '/tmp/x' AS x"], 65),
            (&text, &["SELECT 1 FROM t"], 65),
            (&path, &[], 64),
            (folder.path(), &["SELECT 1"], 66),
        ];
        for (path, rest, code) in refused {
            let found = extract(path, rest).map_err(|error| error.code());
            assert_eq!(found, Err(*code), "{} {rest:?}", path.display());
        }
        Ok(())
    }
}
