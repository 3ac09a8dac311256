//! Another engine, asked what rows follow from what, and what tables hold.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use barecount_e2e::{Failure, flights, place::Place, python};
use serde_json::{Value, json};

use crate::{files::Base, model::Model};

/// DuckDB, in a process that answers line by line.
pub(crate) struct Oracle {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What was answered before.
    contents: HashMap<String, String>,
    tables: PathBuf,
    /// Its own files: nothing of it is in the place that it is asked about.
    _place: Place,
}

impl Oracle {
    /// One that knows the files which come of `base`, and the tables of a place.
    pub(crate) fn start(asked: &Place, base: &Base) -> Result<Self, Failure> {
        let place = Place::new();
        for name in ["airports", "planes", "weather"] {
            let name = format!("data/{name}.csv");
            let content = fs_err::read(asked.join("flights").join(&name))?;
            place.write(name, content);
        }
        for variant in 0..Base::FLIGHTS {
            place.write(
                format!("variants/flights-{variant}.csv"),
                base.flights(variant),
            );
        }
        for variant in 0..Base::AIRLINES {
            place.write(
                format!("variants/airlines-{variant}.csv"),
                base.airlines(variant),
            );
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/walk.py");
        let mut process = Command::new(python::interpreter())
            .arg(script)
            .arg(flights::source().join("tests/independent"))
            .arg(place.join("data"))
            .arg(place.join("variants"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            questions: process.stdin.take().ok_or("it can be asked")?,
            answers: BufReader::new(process.stdout.take().ok_or("it can answer")?),
            process,
            contents: HashMap::new(),
            tables: asked.state().join("datasets/demo"),
            _place: place,
        })
    }

    /// What tells the rows of a recipe from others.
    pub(crate) fn content(&mut self, recipe: &Value) -> Result<String, Failure> {
        let asked = recipe.to_string();
        if let Some(known) = self.contents.get(&asked) {
            return Ok(known.clone());
        }
        let answer = self.ask(&json!({ "content": recipe }))?;
        let content = answer["content"].as_str().ok_or("content is a text")?;
        self.contents.insert(asked, content.to_owned());
        Ok(content.to_owned())
    }

    /// How what the tables hold differs from what the model has.
    pub(crate) fn differences(&mut self, model: &Model) -> Result<Vec<String>, Failure> {
        let figures = model.tables().filter(|(name, ..)| name.starts_with("kpi."));
        let tables = figures.map(|(name, version, columns, parts)| {
            let folder = self.tables.join(name.replace('.', "/"));
            json!({
                "dataset": name, "folder": folder, "version": version, "columns": columns,
                "parts": parts,
            })
        });
        let asked = json!({ "tables": tables.collect::<Vec<_>>() });
        let answer = self.ask(&asked)?;
        let told = answer["differences"]
            .as_array()
            .ok_or("differences are a list")?;
        Ok(told
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    fn ask(&mut self, question: &Value) -> Result<Value, Failure> {
        writeln!(self.questions, "{question}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err("the other engine has ended; it told why".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
