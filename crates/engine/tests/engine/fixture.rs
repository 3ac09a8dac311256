//! Folders of Parquet files, and jobs over them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_ipc::reader::StreamReader;
use barecount_dataset::decision::StagedFile;
use barecount_dataset::schema::{Column, TableSchema};
use barecount_dataset::stage::{Limits, OutputFormat, OutputSpec, Staged, stage_output};
use barecount_engine::job::{DeclaredTable, JobSpec};
use barecount_engine::process::{Request, Response, engine_main};
use barecount_engine::session::{InputTable, Resources};
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::parquet::arrow::ArrowWriter;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A job's folders, gone when it is dropped.
pub(crate) struct Place {
    root: tempfile::TempDir,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) spill_limit_bytes: u64,
    pub(crate) partitions: usize,
    pub(crate) timeout_ms: u64,
    inputs: Vec<InputTable>,
    outputs: Vec<DeclaredTable>,
}

/// A schema of columns spelt `name type` or `name type!`, the latter without nulls.
pub(crate) fn schema(columns: &[&str], partition_by: &[&str]) -> Outcome<TableSchema> {
    let column = |text: &&str| -> Outcome<Column> {
        let (name, spelling) = text.split_once(' ').ok_or("a column needs a type")?;
        Ok(match spelling.strip_suffix('!') {
            Some(spelling) => Column::required(name, spelling.parse()?),
            None => Column::nullable(name, spelling.parse()?),
        })
    };
    let columns = columns.iter().map(column).collect::<Outcome<Vec<_>>>()?;
    let partition_by = partition_by.iter().map(|name| (*name).to_owned()).collect();
    Ok(TableSchema::new(columns, partition_by)?)
}

impl Place {
    pub(crate) fn new() -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        for folder in ["in", "out", "spill"] {
            fs::create_dir(root.path().join(folder))?;
        }
        Ok(Self {
            root,
            memory_limit_bytes: 256 << 20,
            spill_limit_bytes: 1 << 30,
            partitions: 2,
            timeout_ms: 900_000,
            inputs: Vec::new(),
            outputs: Vec::new(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Declares an input and gives its folder, which is empty.
    pub(crate) fn input(&mut self, table: &str, schema: &TableSchema) -> Outcome<PathBuf> {
        let path = self.root.path().join("in").join(table);
        fs::create_dir(&path)?;
        self.inputs.push(InputTable {
            table: table.parse()?,
            path: path.clone(),
            schema: schema.clone(),
        });
        Ok(path)
    }

    pub(crate) fn output(&mut self, table: &str, schema: &TableSchema) -> Outcome {
        self.outputs.push(DeclaredTable {
            table: table.parse()?,
            schema: schema.clone(),
        });
        Ok(())
    }

    pub(crate) fn resources(&self) -> Resources {
        Resources {
            memory_limit_bytes: self.memory_limit_bytes,
            target_partitions: self.partitions,
            spill_dir: self.root.path().join("spill"),
            spill_limit_bytes: self.spill_limit_bytes,
        }
    }

    pub(crate) fn job(&self, sql: &str) -> JobSpec {
        JobSpec {
            sql: sql.to_owned(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            output_dir: self.root.path().join("out"),
            resources: self.resources(),
            parameters: Default::default(),
            timeout_ms: Some(self.timeout_ms),
        }
    }

    /// Runs a job as a child process would, from an empty output folder.
    pub(crate) fn run(&self, sql: &str) -> Outcome<(u8, Response)> {
        let out = self.root.path().join("out");
        fs::remove_dir_all(&out)?;
        fs::create_dir(&out)?;
        self.ask(&Request::Job(self.job(sql)))
    }

    pub(crate) fn ask(&self, request: &Request) -> Outcome<(u8, Response)> {
        let result = self.root.path().join("result.json");
        let request = serde_json::to_vec(request)?;
        let status = engine_main(&request[..], &result);
        Ok((status, serde_json::from_slice(&fs::read(result)?)?))
    }

    /// Runs a job that must succeed.
    pub(crate) fn succeed(&self, sql: &str) -> Outcome<barecount_engine::job::JobReport> {
        match self.run(sql)? {
            (0, Response::Job(report)) => Ok(report),
            (status, other) => Err(format!("exit status {status}: {other:?}").into()),
        }
    }

    /// Runs a job that must fail; gives its exit status and message.
    pub(crate) fn fail(&self, sql: &str) -> Outcome<(u8, String)> {
        match self.run(sql)? {
            (status, Response::Failed { message, .. }) => Ok((status, message)),
            (status, other) => Err(format!("exit status {status}: {other:?}").into()),
        }
    }

    /// Every file of an output, by its path.
    pub(crate) fn files(&self, table: &str) -> Outcome<BTreeMap<PathBuf, Vec<u8>>> {
        let folder = self.root.path().join("out").join(table);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            files.insert(path.strip_prefix(&folder)?.to_owned(), fs::read(path)?);
        }
        Ok(files)
    }

    /// All rows of an output, as CSV without a header.
    pub(crate) fn rows(&self, table: &str) -> Outcome<Vec<String>> {
        let folder = self.root.path().join("out").join(table);
        let mut rows = Vec::new();
        for path in self.files(table)?.keys() {
            let file = fs::File::open(folder.join(path))?;
            for batch in StreamReader::try_new_buffered(file, None)? {
                rows.extend(texts(&batch?)?);
            }
        }
        Ok(rows)
    }

    /// Stages an output as the platform does afterwards.
    pub(crate) fn stage(&self, table: &str, schema: &TableSchema) -> Outcome<Staged> {
        let spec = OutputSpec {
            format: OutputFormat::Arrow,
            schema: schema.clone(),
            only_partition: BTreeMap::new(),
            limits: Limits::default(),
        };
        let written = self.root.path().join("out").join(table);
        Ok(stage_output(&written, &self.staging(table), &spec, &())?)
    }

    /// The files that an output was staged as, by their paths.
    pub(crate) fn staged_files(
        &self,
        table: &str,
        staged: &Staged,
    ) -> Outcome<BTreeMap<String, Vec<u8>>> {
        let read = |file: &StagedFile| -> Outcome<_> {
            let bytes = fs::read(self.staging(table).join(&file.path))?;
            Ok((file.path.clone(), bytes))
        };
        staged.files.iter().map(read).collect()
    }

    /// Where an output is staged.
    pub(crate) fn staging(&self, table: &str) -> PathBuf {
        self.root.path().join("staging").join(table)
    }
}

fn texts(batch: &RecordBatch) -> Outcome<Vec<String>> {
    let text = |row: usize| -> Outcome<String> {
        let cells = batch.columns().iter();
        let cells = cells.map(|column| {
            Ok(datafusion::arrow::util::display::array_value_to_string(
                column, row,
            )?)
        });
        Ok(cells.collect::<Outcome<Vec<_>>>()?.join(","))
    };
    (0..batch.num_rows()).map(text).collect()
}

/// Writes columns to a Parquet file.
pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Outcome {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )?;
    let mut writer = ArrowWriter::try_new(fs::File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

/// An array, shared.
pub(crate) fn array(array: impl datafusion::arrow::array::Array + 'static) -> ArrayRef {
    Arc::new(array)
}
