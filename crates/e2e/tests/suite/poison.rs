//! Files that unpack to much more than they are: what work wrote is decoded in a sandbox with the
//! memory of its stage, and takes neither the platform nor a neighbour with it.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray},
    datatypes::Int32Type,
};
use barecount_e2e::{Outcome, place::Place, programs};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::ordinary::Home;

/// A Parquet file of one text, which so many rows have.
pub(crate) fn repeated(text: &str, rows: usize) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let keys = Int32Array::from(vec![0; rows]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?);
    let batch = RecordBatch::try_from_iter([("text", column)])?;
    let properties = WriterProperties::builder()
        .set_dictionary_page_size_limit(64 << 20)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut file, batch.schema(), options)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(file)
}

/// A pipeline of a stage that writes this file, and one beside it that writes rows.
fn place(poison: &[u8]) -> Place {
    let place = Place::new();
    let wrote: &[(&str, &[u8])] = &[("rows/raw.texts/part.parquet", poison)];
    programs::package(&place, "poison.zip", "bootstrap", wrote);
    let good: &[(&str, &[u8])] = &[("rows/raw.rows/part.csv", b"id\n1\n2\n")];
    programs::package(&place, "good.zip", "bootstrap", good);
    let stage = |name: &str, dataset: &str, format: &str, column: &str| {
        format!(
            "    - name: {name}
      phase: ingestion
      runner: {{ class: serverless, size: small, network_profile: private_vpc, package: {name}.zip }}
      outputs:
        - dataset: raw.{dataset}
          format: {format}
          mode: overwrite
          columns: [{column}]
"
        )
    };
    let stages = [
        stage("poison", "texts", "parquet", "{ name: text, type: string }"),
        stage("good", "rows", "csv", "{ name: id, type: int64 }"),
    ];
    place.write(
        "pipeline.yaml",
        format!(
            "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: poison, tenant: demo, owner: you@example.com }}
spec:
  classification: public
  stages:
{}",
            stages.concat()
        ),
    );
    place
}

#[test]
fn a_file_that_unpacks_to_more_than_its_stage_may_use_fails_that_stage_alone() -> Outcome {
    let poison = repeated(&"x".repeat(700 << 10), 2048)?;
    assert!(poison.len() < 2048, "{} bytes", poison.len());
    let place = place(&poison);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0703")
        .tells("take more memory to decode than the");
    place.nothing_is_left();
    let shown = place.barecount(["outputs", "show", "raw.rows"]).finish();
    shown.exits_with(0);
    Ok(())
}

#[test]
fn where_there_are_no_control_groups_it_fails_that_stage_as_well() -> Outcome {
    let home = Home::of(place(&repeated(&"x".repeat(700 << 10), 2048)?));
    home.barecount(&["run", "pipeline.yaml"])
        .fails_with(1, "BC0703")
        .tells("take more memory to decode than the");
    home.place.nothing_is_left();
    Ok(())
}

#[test]
fn what_repeats_much_and_fits_is_staged_to_its_last_row() -> Outcome {
    let place = place(&repeated("what every row has", 200_000)?);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0)
        .tells("200000");
    place.nothing_is_left();
    Ok(())
}

#[test]
fn what_is_no_parquet_is_told_as_such() -> Outcome {
    let place = place(b"PAR1 and nothing more");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0703")
        .tells("`part.parquet` is not valid Parquet");
    place.nothing_is_left();
    Ok(())
}
