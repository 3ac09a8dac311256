//! Digests, counts and sizes as people are told them.

use barecount_dataset::versions::Amount;

/// A digest, short enough for a table.
pub fn short(digest: &str) -> String {
    let cut = |hex: &str| hex.chars().take(12).collect::<String>();
    match digest.split_once(':') {
        Some((algorithm, hex)) => format!("{algorithm}:{}", cut(hex)),
        None => cut(digest),
    }
}

/// So many of something: `1 row`, `2 rows`; `? rows` where nobody knows.
pub fn counted(count: Option<u64>, what: &str) -> String {
    match count {
        Some(1) => format!("1 {what}"),
        Some(count) => format!("{count} {what}s"),
        None => format!("? {what}s"),
    }
}

/// A count for a person, as far as it is known.
pub fn number(count: Option<u64>) -> String {
    count.map_or("?".to_owned(), |count| count.to_string())
}

/// What came or went, for a person.
pub fn amount(amount: &Amount) -> String {
    let (rows, files) = (
        counted(amount.rows, "row"),
        counted(Some(amount.files), "file"),
    );
    format!("{rows} in {files}")
}

/// A size for a person.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    // Only a figure for people: what the conversion loses is below what is shown.
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
