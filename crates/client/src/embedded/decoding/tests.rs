use std::io::Write as _;

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn read(mut rows: Rows) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut read = Vec::new();
        rows.read_to_end(&mut read).map(|_| read)
    })
}

#[test]
fn rows_end_where_nobody_ever_writes_any() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (rows, alive) = Rows::begin(folder.path())?;
    let reading = read(rows);
    drop(alive);
    assert_eq!(reading.join().map_err(|_| "it panicked")??, b"");
    Ok(())
}

#[test]
fn rows_are_read_to_the_last_one_of_a_writer_that_is_gone() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (rows, alive) = Rows::begin(folder.path())?;
    let path = folder.path().join(PIPE);
    let reading = read(rows);
    let mut writer = std::fs::OpenOptions::new().write(true).open(path)?;
    // More than a pipe holds.
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    writer.write_all(&bytes)?;
    drop(writer);
    drop(alive);
    assert_eq!(reading.join().map_err(|_| "it panicked")??, bytes);
    Ok(())
}
