//! What lies in the pipeline's folder, as edits have made it.

use std::collections::BTreeMap;

use barecount_e2e::{Failure, flights, place::Place};

/// Months that the walk looks at.
pub(crate) const MONTHS: [&str; 3] = ["2013-01", "2013-02", "2013-03"];

/// Stages, in order; `log` is added to those of the example.
pub(crate) const STAGES: [&str; 8] = [
    "land", "clean", "carriers", "days", "routes", "weather", "fleet", "log",
];

/// Appended to the example's manifest: how much there was each time that the airlines' figures
/// changed.
const LOG_STAGE: &str = "
    - name: log
      phase: kpi
      runner: { class: managed_etl, job: jobs/log.sql }
      inputs: [{ dataset: kpi.carriers }]
      outputs:
        - dataset: kpi.log
          format: parquet
          mode: append
          columns: [{ names: [flights, late], type: int64, nullable: false }]
";

const LOG_SQL: &str =
    "INSERT INTO kpi.log SELECT sum(flights) AS flights, sum(late) AS late FROM kpi.carriers;\n";

/// What the words of the pipeline are, and everything else that edits change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// Who owns it, by number.
    pub(crate) owner: u64,
    /// Which flights there are: see [`Files::flights`].
    pub(crate) flights: usize,
    /// Which names airlines have.
    pub(crate) airlines: usize,
    /// The number of the comment in each stage's code.
    pub(crate) comments: BTreeMap<&'static str, u64>,
    /// Of [`WORDS`], which of its values each has.
    pub(crate) words: BTreeMap<&'static str, usize>,
    /// Whether airlines have a column more, which may be null.
    pub(crate) worst: bool,
    /// Whether means of airlines have six digits behind the point, and not four.
    pub(crate) wide: bool,
    /// Whether routes have a column more.
    pub(crate) arrived: bool,
}

/// A word of the pipeline: the stage that says it, what stands before and after it, and its values,
/// the example's own first.
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) stage: &'static str,
    before: &'static str,
    after: &'static str,
    pub(crate) values: [&'static str; 3],
}

pub(crate) const WORDS: [Word; 6] = [
    word(
        "shortest",
        "clean",
        "SHORTEST = ",
        "\n",
        ["0", "300", "1200"],
    ),
    word("late", "carriers", "arr_delay > ", ")", ["15", "30", "60"]),
    // One less: those before the day itself.
    word("days", "days", "BETWEEN ", " PRECEDING", ["6", "2", "13"]),
    word(
        "least",
        "routes",
        "HAVING count(*) >= ",
        ";",
        ["1", "3", "10"],
    ),
    word(
        "high",
        "weather",
        "percentile_cont(0.",
        ") WITHIN GROUP (ORDER BY CAST(dep_delay AS DOUBLE)) AS p95",
        ["95", "9", "8"],
    ),
    word(
        "shown",
        "fleet",
        "sum(",
        " - planes.year",
        ["2013", "2014", "2020"],
    ),
];

const fn word(
    name: &'static str,
    stage: &'static str,
    before: &'static str,
    after: &'static str,
    values: [&'static str; 3],
) -> Word {
    Word {
        name,
        stage,
        before,
        after,
        values,
    }
}

impl Files {
    /// The example's own.
    pub(crate) fn new() -> Self {
        Self {
            owner: 0,
            flights: 0,
            airlines: 0,
            comments: STAGES.into_iter().map(|stage| (stage, 0)).collect(),
            words: WORDS.iter().map(|word| (word.name, 0)).collect(),
            worst: false,
            wide: false,
            arrived: false,
        }
    }

    /// What a word is now.
    pub(crate) fn word(&self, name: &str) -> &'static str {
        let word = WORDS.iter().find(|word| word.name == name);
        word.expect("a word of the pipeline").values[self.words[name]]
    }

    /// The program or query of a stage; of `land`, which nobody edits, its name.
    pub(crate) fn code(&self, stage: &'static str) -> Result<String, Failure> {
        let mut code = match stage {
            "land" => return Ok(stage.to_owned()),
            "log" => LOG_SQL.to_owned(),
            _ => fs_err::read_to_string(flights::source().join(path(stage)))?,
        };
        for word in WORDS.iter().filter(|word| word.stage == stage) {
            let with = |value: &str| format!("{}{value}{}", word.before, word.after);
            code = replaced(&code, &with(word.values[0]), &with(self.word(word.name)));
        }
        if stage == "carriers" && self.wide {
            code = replaced(&code, "DECIMAL(12, 4)", "DECIMAL(14, 6)");
        }
        if stage == "carriers" && self.worst {
            let last = "AS p90_arr_delay\n";
            code = replaced(
                &code,
                last,
                "AS p90_arr_delay,\n    max(arr_delay) AS worst\n",
            );
        }
        if stage == "routes" && self.arrived {
            let first = "    airports.name AS airport,\n";
            let more = format!("{first}    CAST(arrived AS BIGINT) AS arrived,\n");
            code = replaced(&code, first, &more);
        }
        let mark = if stage == "clean" { "#" } else { "--" };
        Ok(format!("{code}{mark} {}\n", self.comments[stage]))
    }

    /// What a stage declares of its outputs, as far as edits change that.
    pub(crate) fn columns(&self, stage: &str) -> String {
        match stage {
            "carriers" => format!("{} {}", self.worst, self.wide),
            "routes" => self.arrived.to_string(),
            _ => String::new(),
        }
    }

    fn manifest(&self) -> Result<String, Failure> {
        let mut text = fs_err::read_to_string(flights::source().join("pipeline.yaml"))?;
        text = replaced(&text, "to: \"2013-12\"", "to: \"2013-03\"");
        let owner = format!("owner: owner-{}@example.com", self.owner);
        text = replaced(&text, "owner: data-platform@example.com", &owner);
        if self.wide {
            let means = "{ names: [mean_dep_delay, mean_arr_delay], type: ";
            let narrow = format!("{means}\"decimal(12,4)\"");
            text = replaced(&text, &narrow, &format!("{means}\"decimal(14,6)\""));
        }
        if self.worst {
            let last = "            - { name: p90_arr_delay, type: float64 }\n";
            let more = format!("{last}            - {{ name: worst, type: int64 }}\n");
            text = replaced(&text, last, &more);
        }
        if self.arrived {
            let names = "[flights, carriers, distance, place]";
            text = replaced(
                &text,
                names,
                "[flights, carriers, distance, place, arrived]",
            );
        }
        Ok(text + LOG_STAGE)
    }

    /// Writes all of it into a place. `base` are the flights of the example that are looked at.
    pub(crate) fn write(&self, place: &Place, base: &Base) -> Result<(), Failure> {
        let write = |name: &str, text: String| place.write(format!("flights/{name}"), text);
        write("pipeline.yaml", self.manifest()?);
        for stage in &STAGES[1..] {
            write(&path(stage), self.code(stage)?);
        }
        write("data/flights.csv", base.flights(self.flights));
        write("data/airlines.csv", base.airlines(self.airlines));
        Ok(())
    }
}

/// Where the code of a stage is.
fn path(stage: &str) -> String {
    match stage {
        "clean" => "images/clean/clean.py".to_owned(),
        _ => format!("jobs/{stage}.sql"),
    }
}

/// # Panics
/// If there is nothing to replace: then the example has changed, and this file must, too.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "`{old}` is in:\n{text}");
    text.replace(old, new)
}

/// The files that others come of.
pub(crate) struct Base {
    flights: String,
    airlines: String,
}

impl Base {
    /// How many variants there are of each.
    pub(crate) const FLIGHTS: usize = 3;
    pub(crate) const AIRLINES: usize = 2;

    /// Those of a place that nobody has changed.
    pub(crate) fn of(place: &Place) -> Result<Self, Failure> {
        let read = |name: &str| fs_err::read_to_string(place.join("flights/data").join(name));
        Ok(Self {
            flights: read("flights.csv")?,
            airlines: read("airlines.csv")?,
        })
    }

    /// The flights: as they are; without each fifth; and those of February arriving half an hour
    /// later.
    pub(crate) fn flights(&self, variant: usize) -> String {
        let lines = self.flights.split_inclusive('\n');
        match variant {
            0 => self.flights.clone(),
            1 => lines
                .enumerate()
                .filter(|(line, _)| *line == 0 || line % 5 != 0)
                .map(|(_, line)| line)
                .collect(),
            _ => lines.map(later).collect(),
        }
    }

    /// The airlines: as they are, and with one that has another name.
    pub(crate) fn airlines(&self, variant: usize) -> String {
        match variant {
            0 => self.airlines.clone(),
            _ => replaced(&self.airlines, "United Air Lines Inc.", "United Airlines"),
        }
    }
}

/// A flight of February, half an hour later; any other as it is.
fn later(line: &str) -> String {
    let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
    if let ("2", Ok(delay)) = (fields[1].as_str(), fields[8].parse::<i64>()) {
        fields[8] = (delay + 30).to_string();
    }
    fields.join(",")
}
