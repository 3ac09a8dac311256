//! What a job of the engine hands back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

use super::*;

/// Rows of the output's columns; a currency that is no three capitals breaks its pattern.
fn rows(days: Vec<Option<i32>>, currencies: Vec<&str>) -> TestResult<RecordBatch> {
    let rates = Decimal128Array::from(vec![Some(1_500_000); days.len()]);
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("date", Arc::new(Date32Array::from(days)), true),
        ("currency", Arc::new(StringArray::from(currencies)), true),
        (
            "rate",
            Arc::new(rates.with_precision_and_scale(18, 6)?),
            true,
        ),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn stream(batches: &[RecordBatch], options: IpcWriteOptions) -> TestResult<Vec<u8>> {
    let schema = batches.first().ok_or("there are rows")?.schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

fn plain(batches: &[RecordBatch]) -> TestResult<Vec<u8>> {
    stream(batches, IpcWriteOptions::default())
}

fn good() -> TestResult<Vec<u8>> {
    plain(&[
        rows(vec![Some(19_723), Some(19_724)], vec!["USD", "EUR"])?,
        rows(vec![Some(19_725)], vec!["CHF"])?,
    ])
}

#[test]
fn streams_are_the_same_rows_as_text_and_go_through_the_same_checks() -> TestResult {
    let csv = Output::new(OutputFormat::Csv)?;
    csv.write(
        "a.csv",
        "date,currency,rate\n2024-01-01,USD,1.5\n2024-01-02,EUR,1.5\n2024-01-03,CHF,1.5\n",
    )?;
    let (csv, arrow) = (csv.stage()?, Output::new(OutputFormat::Arrow)?);
    let staged = arrow.write("a.arrows", good()?)?.stage()?;
    assert_eq!(staged.content_digest, csv.content_digest);
    assert_eq!(staged.files[0].sha256, csv.files[0].sha256);

    let bad = plain(&[rows(
        vec![Some(1), None, Some(2)],
        vec!["usd", "EUR", "EUR"],
    )?])?;
    let staged = arrow.write("a.arrows", bad)?.stage()?;
    assert_eq!((staged.rows, staged.dead_letters), (1, 2));
    assert_eq!(
        letters(&staged),
        [
            (
                1,
                "column `currency`: does not match `[A-Z]{3}`, found `usd`"
            ),
            (2, "column `date`: a value is required, found none"),
        ]
    );
    Ok(())
}

#[test]
fn other_columns_are_refused() -> TestResult {
    let output = Output::new(OutputFormat::Arrow)?;
    let all = rows(vec![Some(1)], vec!["USD"])?;
    for places in [&[0, 1][..], &[1, 0, 2], &[0, 1, 2, 2]] {
        let staged = output
            .write("a.arrows", plain(&[all.project(places)?])?)?
            .stage();
        assert!(
            matches!(staged, Err(StageError::Columns { .. })),
            "{staged:?}"
        );
    }
    Ok(())
}

#[test]
fn what_is_compressed_or_claims_too_much_is_refused_before_it_takes_memory() -> TestResult {
    let mut output = Output::new(OutputFormat::Arrow)?;
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let bytes = stream(&[rows(vec![Some(1); 500], vec!["USD"; 500])?], options)?;
    let staged = output.write("a.arrows", bytes)?.stage();
    let message = staged.map_err(|error| error.to_string());
    assert!(
        matches!(&message, Err(m) if m.contains("it is compressed")),
        "{message:?}"
    );
    // A length of more than is there, and one of more than any memory.
    let good = good()?;
    for claim in [i64::from(i32::MAX), 1 << 60, -1] {
        let at = length_of_rows(&good)?;
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
        let error = output
            .write("a.arrows", bytes)?
            .stage()
            .err()
            .ok_or("it is refused")?;
        assert!(error.is_data_fault(), "{error:?}");
        assert!(
            matches!(
                error,
                StageError::Limit { .. } | StageError::Malformed { .. }
            ),
            "{error:?}"
        );
    }
    output.spec.limits.max_unpacked_bytes = 100;
    let staged = output.write("a.arrows", good)?.stage();
    assert!(matches!(
        staged,
        Err(StageError::Limit {
            what: "bytes when unpacked",
            ..
        })
    ));
    Ok(())
}

/// Where the first rows' length stands: it is found by what it is.
fn length_of_rows(stream: &[u8]) -> TestResult<usize> {
    let head = |at: usize| -> TestResult<usize> {
        let length = stream[at + 4..at + 8].try_into()?;
        Ok(u32::from_le_bytes(length) as usize)
    };
    let second = 8 + head(0)?;
    let description = &stream[second + 8..second + 8 + head(second)?];
    let message = arrow_ipc::root_as_message(description).map_err(|e| e.to_string())?;
    let length = message.bodyLength().to_le_bytes();
    let at = description.windows(8).position(|bytes| bytes == length);
    Ok(second + 8 + at.ok_or("the length is in the description")?)
}

#[test]
fn what_is_no_stream_is_malformed_and_never_a_panic() -> TestResult {
    let output = Output::new(OutputFormat::Arrow)?;
    let good = good()?;
    for bytes in [
        &b""[..],
        b"ARROW1",
        &[0; 64],
        &[0xff; 64],
        &good[..good.len() - 3],
    ] {
        let staged = output.write("a.arrows", bytes)?.stage();
        assert!(
            matches!(
                staged,
                Err(StageError::Malformed { .. } | StageError::Limit { .. })
            ),
            "{staged:?}"
        );
    }
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x55;
        match output.write("a.arrows", damaged)?.stage() {
            Ok(_) => {}
            Err(error) => assert!(error.is_data_fault(), "byte {at}: {error:?}"),
        }
    }
    Ok(())
}
