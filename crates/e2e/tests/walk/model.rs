//! What stands, and what a run would do: the rule of `docs/identity-of-work.md` over names in place
//! of rows. Knows nothing of the platform.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::files::{Files, MONTHS, STAGES};
use barecount_e2e::Failure;

/// The stages that are no jobs.
const PROGRAMS: [&str; 2] = ["land", "clean"];

/// Rows that one task wrote into one dataset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Which commit: no two are the same.
    commit: usize,
    /// What its rows follow from.
    pub(crate) recipe: Value,
}

/// A version of a dataset: its parts by month (none where it has no months), and its columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Version {
    pub(crate) parts: BTreeMap<&'static str, Vec<Part>>,
    worst: bool,
    wide: bool,
    arrived: bool,
}

/// A dataset with all its versions; one that was dropped holds nothing.
#[derive(Debug, Default)]
struct Dataset {
    versions: Vec<Option<Version>>,
}

impl Dataset {
    fn now(&self) -> Option<&Version> {
        self.versions.last()?.as_ref()
    }
}

/// What somebody asks to be run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// The month that is its window.
    pub(crate) window: Option<&'static str>,
    /// The one stage that is run.
    pub(crate) only: Option<&'static str>,
    /// Stages that are done again; `all` for each.
    pub(crate) force: Option<&'static str>,
}

/// What becomes of a run.
#[derive(Debug, PartialEq)]
pub(crate) enum Expected {
    /// It is refused, for the airlines' columns do not fit.
    Refused,
    /// These tasks are done, by name; all others are unchanged.
    Does(BTreeSet<String>),
}

/// Tells content apart: rows that follow from two recipes may be the same.
pub(crate) type Content<'a> = dyn FnMut(&Value) -> Result<String, Failure> + 'a;

/// All datasets, and the work that was done.
#[derive(Debug, Default)]
pub(crate) struct Model {
    datasets: BTreeMap<&'static str, Dataset>,
    /// Who did a piece of work: the commits, where and whether they added to what was there.
    answers: BTreeMap<String, Vec<Done>>,
    commits: usize,
}

#[derive(Debug, Clone)]
struct Done {
    commit: usize,
    datasets: &'static [&'static str],
    month: Option<&'static str>,
    appends: bool,
}

/// What a stage reads and writes.
struct Stage {
    reads: &'static [&'static str],
    writes: &'static [&'static str],
    monthly: bool,
}

const RAW: &[&str] = &[
    "raw.flights",
    "raw.airlines",
    "raw.airports",
    "raw.planes",
    "raw.weather",
];
const GDP: &[&str] = &[
    "gdp.flights",
    "gdp.airlines",
    "gdp.airports",
    "gdp.planes",
    "gdp.weather",
];

fn stage(name: &str) -> Stage {
    let (reads, writes, monthly): (&[&str], &[&str], bool) = match name {
        "land" => (&[], RAW, false),
        "clean" => (RAW, GDP, false),
        "carriers" => (&["gdp.flights", "gdp.airlines"], &["kpi.carriers"], true),
        "days" => (&["gdp.flights"], &["kpi.days"], true),
        "routes" => (&["gdp.flights", "gdp.airports"], &["kpi.routes"], false),
        "weather" => (&["gdp.flights", "gdp.weather"], &["kpi.weather"], false),
        "fleet" => (&["gdp.flights", "gdp.planes"], &["kpi.fleet"], false),
        _ => (&["kpi.carriers"], &["kpi.log"], false),
    };
    Stage {
        reads,
        writes,
        monthly,
    }
}

impl Model {
    /// What a run of these files does. What it does is done when this returns.
    pub(crate) fn run(
        &mut self,
        files: &Files,
        ask: &Ask,
        content: &mut Content<'_>,
    ) -> Result<Expected, Failure> {
        let chosen = |name: &str| ask.only.is_none_or(|only| only == name);
        if chosen("carriers") && !self.fits(files) {
            return Ok(Expected::Refused);
        }
        let mut does = BTreeSet::new();
        for name in STAGES.into_iter().filter(|name| chosen(name)) {
            let months: Vec<Option<&'static str>> = match stage(name).monthly {
                false => vec![None],
                true => MONTHS
                    .into_iter()
                    .filter(|month| ask.window.is_none_or(|window| window == *month))
                    .map(Some)
                    .collect(),
            };
            for month in months {
                let key = self.key(name, month, files, ask, content)?;
                let forced = ask
                    .force
                    .is_some_and(|force| force == "all" || force == name);
                let mut answers = self.answers.get(&key).into_iter().flatten();
                if !forced && answers.any(|done| self.stands(done)) {
                    continue;
                }
                does.insert(match month {
                    Some(month) => format!("{name}/{month}"),
                    None => name.to_owned(),
                });
                self.work(name, month, files, key);
            }
        }
        Ok(Expected::Does(does))
    }

    /// Whether the airlines' columns are those of the dataset, or more.
    pub(crate) fn fits(&self, files: &Files) -> bool {
        self.now("kpi.carriers")
            .is_none_or(|now| (files.worst || !now.worst) && (files.wide || !now.wide))
    }

    /// Gives the files the airlines' columns that the dataset has.
    pub(crate) fn fit(&self, files: &mut Files) {
        if let Some(now) = self.now("kpi.carriers") {
            (files.worst, files.wide) = (now.worst, now.wide);
        }
    }

    /// Everything that can change what a task comes to, in words.
    fn key(
        &self,
        name: &'static str,
        month: Option<&'static str>,
        files: &Files,
        ask: &Ask,
        content: &mut Content<'_>,
    ) -> Result<String, Failure> {
        // The jobs name no window; programs are told it.
        let window = ask.window.filter(|_| PROGRAMS.contains(&name));
        let mut key = vec![name.to_owned(), format!("{month:?} {window:?}")];
        key.push(files.code(name)?);
        key.push(files.columns(name));
        if name == "land" {
            key.push(format!("{} {}", files.flights, files.airlines));
        }
        if name == "log" {
            // What a stage reads is declared by the one that writes it.
            key.push(files.columns("carriers"));
        }
        for dataset in stage(name).reads {
            let Some(now) = self.now(dataset) else {
                key.push("none".to_owned());
                continue;
            };
            key.push(format!("{} {} {}", now.worst, now.wide, now.arrived));
            for part in now.parts.values().flatten() {
                let mut recipe = part.recipe.clone();
                if *dataset == "gdp.flights" && month.is_some() {
                    recipe["month"] = json!(month);
                }
                key.push(content(&recipe)?);
            }
        }
        Ok(key.join("\n"))
    }

    fn stands(&self, done: &Done) -> bool {
        done.datasets.iter().all(|dataset| {
            let Some(now) = self.now(dataset) else {
                return false;
            };
            let of_month = |month: &&str| done.month.is_none_or(|own| own == *month);
            let parts = now.parts.iter().filter(|(month, _)| of_month(month));
            let mut commits = parts.flat_map(|(_, parts)| parts).map(|part| part.commit);
            match done.appends {
                true => commits.any(|commit| commit == done.commit),
                false => commits.eq([done.commit]),
            }
        })
    }

    fn work(
        &mut self,
        name: &'static str,
        month: Option<&'static str>,
        files: &Files,
        key: String,
    ) {
        let stage = stage(name);
        self.commits += 1;
        let commit = self.commits;
        for dataset in stage.writes {
            let recipe = self.recipe(dataset, month, files);
            let part = Part { commit, recipe };
            let before = self.now(dataset);
            let mut next = Version {
                worst: name == "carriers" && files.worst,
                wide: name == "carriers" && files.wide,
                arrived: name == "routes" && files.arrived,
                parts: BTreeMap::new(),
            };
            let stays = stage.monthly || name == "log";
            if let (true, Some(before)) = (stays, before) {
                next.parts = before.parts.clone();
            }
            let parts = next.parts.entry(month.unwrap_or_default()).or_default();
            if name != "log" {
                parts.clear();
            }
            parts.push(part);
            self.datasets
                .entry(dataset)
                .or_default()
                .versions
                .push(Some(next));
        }
        let done = Done {
            commit,
            datasets: stage.writes,
            month,
            appends: name == "log",
        };
        self.answers.entry(key).or_default().push(done);
    }

    /// What the rows follow from that a stage writes into a dataset.
    fn recipe(&self, dataset: &str, month: Option<&str>, files: &Files) -> Value {
        // Of the airlines' names, only some datasets know.
        let source = |dataset: &str| {
            let now = self.now(dataset);
            let part = now.and_then(|now| now.parts.values().flatten().next());
            part.map(|part| part.recipe.clone()).unwrap_or_default()
        };
        let flights = match dataset {
            "raw.flights" => json!(files.flights),
            "gdp.flights" => source("raw.flights")["flights"].clone(),
            _ => source("gdp.flights")["flights"].clone(),
        };
        let airlines = match dataset {
            "raw.airlines" => json!(files.airlines),
            "gdp.airlines" => source("raw.airlines")["airlines"].clone(),
            _ => source("gdp.airlines")["airlines"].clone(),
        };
        let mut recipe = json!({ "dataset": dataset });
        match dataset {
            "raw.flights" => recipe["flights"] = flights,
            "raw.airlines" | "gdp.airlines" => recipe["airlines"] = airlines,
            "gdp.flights" => {
                recipe["flights"] = flights;
                recipe["airlines"] = json!(0);
                recipe["words"] = json!({ "shortest": files.word("shortest") });
            }
            "kpi.log" => {
                let now = self.now("kpi.carriers");
                let parts = now.into_iter().flat_map(|now| now.parts.values().flatten());
                let of: Vec<&Value> = parts.map(|part| &part.recipe).collect();
                recipe["of"] = json!(of);
            }
            "kpi.carriers" | "kpi.days" | "kpi.routes" | "kpi.weather" | "kpi.fleet" => {
                recipe["flights"] = flights;
                recipe["airlines"] = match dataset {
                    "kpi.carriers" => airlines,
                    _ => json!(0),
                };
                recipe["month"] = json!(month);
                recipe["words"] = words(dataset, files);
                recipe["words"]["shortest"] = source("gdp.flights")["words"]["shortest"].clone();
                recipe["columns"] = json!(columns(dataset, files.worst, files.arrived));
            }
            _ => {}
        }
        recipe
    }

    /// A dataset as it is now, if there is any.
    pub(crate) fn now(&self, dataset: &str) -> Option<&Version> {
        self.datasets.get(dataset)?.now()
    }

    /// Every dataset that there is: its version's number, its columns and the recipes of its parts.
    pub(crate) fn tables(
        &self,
    ) -> impl Iterator<Item = (&'static str, usize, Vec<&'static str>, Vec<Value>)> {
        self.datasets.iter().filter_map(|(name, dataset)| {
            let now = dataset.now()?;
            let recipes = now.parts.values().flatten().map(|part| part.recipe.clone());
            let columns = columns(name, now.worst, now.arrived);
            Some((
                *name,
                dataset.versions.len() - 1,
                columns,
                recipes.collect(),
            ))
        })
    }

    /// Versions of a dataset that hold something, by number.
    pub(crate) fn versions(&self, dataset: &str) -> Vec<usize> {
        let versions = self
            .datasets
            .get(dataset)
            .map(|dataset| dataset.versions.iter().enumerate());
        let there = versions
            .into_iter()
            .flatten()
            .filter(|(_, version)| version.is_some());
        there.map(|(number, _)| number).collect()
    }

    /// An earlier version is the current one again.
    pub(crate) fn restore(&mut self, dataset: &'static str, version: usize) {
        let dataset = self.datasets.entry(dataset).or_default();
        let earlier = dataset.versions[version].clone();
        // What is that already is left alone.
        if dataset.now() != earlier.as_ref() {
            dataset.versions.push(earlier);
        }
    }

    /// A dataset is gone.
    pub(crate) fn discard(&mut self, dataset: &'static str) {
        self.datasets
            .entry(dataset)
            .or_default()
            .versions
            .push(None);
    }
}

/// The words that a dataset's own query says.
fn words(dataset: &str, files: &Files) -> Value {
    match dataset {
        "kpi.carriers" => json!({
            "late": files.word("late"), "digits": if files.wide { 6 } else { 4 },
        }),
        "kpi.days" => {
            let before: u64 = files.word("days").parse().unwrap_or_default();
            json!({ "days": before + 1 })
        }
        "kpi.routes" => json!({ "least": files.word("least") }),
        "kpi.weather" => json!({ "high": format!("0.{}", files.word("high")) }),
        _ => json!({ "shown": files.word("shown") }),
    }
}

fn columns(dataset: &str, worst: bool, arrived: bool) -> Vec<&'static str> {
    let mut columns: Vec<&str> = match dataset {
        "kpi.carriers" => vec![
            "month",
            "carrier",
            "name",
            "flights",
            "cancelled",
            "late",
            "cancelled_share",
            "mean_dep_delay",
            "mean_arr_delay",
            "p90_arr_delay",
        ],
        "kpi.days" => vec![
            "month",
            "day",
            "flights",
            "cancelled",
            "flights_so_far",
            "change",
            "mean_delay_of_days",
            "place",
        ],
        "kpi.routes" => vec![
            "origin",
            "dest",
            "airport",
            "flights",
            "carriers",
            "distance",
            "place",
            "share",
            "mean_air_time",
            "miles_an_hour",
        ],
        "kpi.weather" => vec![
            "origin",
            "weather",
            "flights",
            "cancelled",
            "cancelled_share",
            "mean_dep_delay",
            "median_dep_delay",
            "p95_dep_delay",
            "coldest",
        ],
        "kpi.fleet" => vec!["manufacturer", "planes", "flights", "seats", "mean_age"],
        _ => vec!["flights", "late"],
    };
    if worst && dataset == "kpi.carriers" {
        columns.push("worst");
    }
    if arrived && dataset == "kpi.routes" {
        columns.push("arrived");
    }
    columns
}
