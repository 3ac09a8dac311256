//! A pipeline as people work on it from day to day: edits and reverts, files that change and go back,
//! backfills, changed schemas, versions restored, runs cancelled and killed. After each step what was
//! done is what the rule says, and every figure is what DuckDB makes of the files that it follows from.
//!
//! `BARECOUNT_SEED` says which steps, `BARECOUNT_WALK_STEPS` how many, and `BARECOUNT_WALK_ONLY` of
//! those some by number, with commas between them, to find out which of them a failure takes.

mod files;
mod model;
mod oracle;
mod steps;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use barecount_e2e::{
    Failure, Outcome, flights,
    place::Place,
    process::{Finished, Invocation, Running},
};
use files::{Base, Files, STAGES};
use model::{Ask, Expected, Model};
use oracle::Oracle;
use rustix::process::Signal;
use serde_json::Value;
use steps::{Step, pick};

/// Of the flights of the first months, one of so many is looked at.
const ONE_OF: usize = 40;

#[test]
#[expect(
    clippy::print_stdout,
    reason = "a seed is of use only where it is shown"
)]
fn figures_stay_true_whatever_is_done_to_a_pipeline() -> Outcome {
    let seed = number("BARECOUNT_SEED")?.unwrap_or(1);
    let count = number("BARECOUNT_WALK_STEPS")?.unwrap_or(14);
    let only = only()?;
    println!("BARECOUNT_SEED={seed} BARECOUNT_WALK_STEPS={count}");
    let mut walk = Walk::new()?;
    walk.runs("the first run", &Ask::default())?;
    let steps = Step::of(seed, usize::try_from(count)?).into_iter();
    for (number, step) in (1..).zip(steps) {
        if only.as_ref().is_some_and(|only| !only.contains(&number)) {
            continue;
        }
        let began = Instant::now();
        let did = walk.step(&format!("step {number}, {step:?}"), step)?;
        println!(
            "{number:>4} {:>6.1} s  {step:?}: {did}",
            began.elapsed().as_secs_f64()
        );
    }
    walk.place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(0);
    walk.place.nothing_is_left();
    Ok(())
}

/// A place, what the model has of it, and what lay in it at each step.
struct Walk {
    place: Place,
    base: Base,
    oracle: Oracle,
    model: Model,
    files: Files,
    before: Vec<Files>,
    /// Runs that have come to their end.
    ended: BTreeSet<String>,
    /// How long the last run took that nothing disturbed.
    took: Duration,
}

impl Walk {
    fn new() -> Result<Self, Failure> {
        let place = flights::place(|line, row| {
            let month = row.split(',').nth(1).unwrap_or_default();
            line % ONE_OF == 0 && ["1", "2", "3"].contains(&month)
        });
        let weather = place.join("flights/data/weather.csv");
        let hours = fs_err::read_to_string(&weather)?;
        let seen = |row: &&str| {
            row.contains(",2013,1,") || row.contains(",2013,2,") || !row.contains(",2013,")
        };
        let some: Vec<&str> = hours.lines().filter(seen).collect();
        fs_err::write(weather, some.join("\n") + "\n")?;
        let base = Base::of(&place)?;
        Ok(Self {
            oracle: Oracle::start(&place, &base)?,
            model: Model::default(),
            files: Files::new(),
            before: vec![Files::new()],
            ended: BTreeSet::new(),
            took: Duration::from_secs(1),
            place,
            base,
        })
    }

    /// Does a step, and holds that what stands then is true. Tells what was done.
    fn step(&mut self, name: &str, step: Step) -> Result<String, Failure> {
        let mut ask = Ask::default();
        match step {
            Step::Edit(choice) => steps::edit(&mut self.files, choice),
            Step::Revert(choice) => {
                self.files = self.before[pick(choice, self.before.len())].clone();
            }
            Step::Comment(choice) => steps::comment(&mut self.files, choice),
            Step::Owner => self.files.owner += 1,
            Step::Flights(choice) => steps::input(&mut self.files, true, choice),
            Step::Airlines(choice) => steps::input(&mut self.files, false, choice),
            Step::Backfill(choice) => {
                ask.window = Some(steps::month(choice));
                ask.only = [None, Some("carriers"), Some("days")][pick(choice / 8, 3)];
            }
            Step::Alone(choice) => {
                steps::edit(&mut self.files, choice / 64);
                ask.only = Some(STAGES[pick(choice, STAGES.len())]);
            }
            Step::Force(choice) => {
                ask.force = Some([&STAGES[..], &["all"]].concat()[pick(choice, STAGES.len() + 1)]);
            }
            Step::Widen(choice) => {
                self.files.worst |= choice % 3 != 0;
                self.files.wide |= choice % 3 != 1;
            }
            Step::Narrow(choice) => {
                self.files.worst &= choice % 3 == 0;
                self.files.wide &= choice % 3 == 1;
            }
            Step::Replace => self.files.arrived ^= true,
            Step::Restore(choice) => self.restore(choice)?,
            Step::Discard(choice) => self.discard(choice)?,
            Step::Cancel(choice) | Step::Kill(choice) => {
                steps::edit(&mut self.files, choice / 4);
                let signal = if matches!(step, Step::Kill(_)) {
                    Signal::KILL
                } else {
                    Signal::INT
                };
                self.disturb(choice, signal)?;
            }
        }
        let did = self.runs(name, &ask)?;
        self.before.push(self.files.clone());
        Ok(did)
    }

    /// Runs what lies there now, and compares with the model.
    fn runs(&mut self, name: &str, ask: &Ask) -> Result<String, Failure> {
        self.files.write(&self.place, &self.base)?;
        let (model, oracle) = (&mut self.model, &mut self.oracle);
        let expected = model.run(&self.files, ask, &mut |recipe| oracle.content(recipe))?;
        let began = Instant::now();
        let finished = self.asked(ask).finish();
        let did = match &expected {
            Expected::Refused => {
                finished
                    .fails_with(2, "BC0720")
                    .tells("schema_evolution: replace");
                // Which is one way out; the columns that there were are another.
                self.model.fit(&mut self.files);
                "refused".to_owned()
            }
            Expected::Does(tasks) => {
                let finished = finished.exits_with(0);
                assert_eq!(
                    self.worked(&finished),
                    *tasks,
                    "what {name} does: {finished}"
                );
                self.took = began.elapsed();
                let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
                tasks.join(" ")
            }
        };
        let differences = self.oracle.differences(&self.model)?;
        assert!(
            differences.is_empty(),
            "after {name}:\n{}",
            differences.join("\n")
        );
        Ok(did)
    }

    fn asked(&self, ask: &Ask) -> Invocation {
        let mut run = self
            .place
            .barecount(["run", "flights/pipeline.yaml", "-o", "json"]);
        for (flag, value) in [
            ("--window", ask.window),
            ("--stage", ask.only),
            ("--force", ask.force),
        ] {
            if let Some(value) = value {
                run = run.arguments([flag, value]);
            }
        }
        run
    }

    /// The tasks that were done, and not answered by earlier ones.
    fn worked(&mut self, finished: &Finished) -> BTreeSet<String> {
        let run = finished.json("run");
        let id = run["id"].as_str().unwrap_or_default().to_owned();
        if !self.ended.insert(id) {
            return BTreeSet::new();
        }
        let tasks = run["tasks"].as_array().into_iter().flatten();
        let done = tasks.filter(|task| task["answered_by"] == Value::Null);
        done.filter_map(|task| {
            let stage = task["stage"].as_str()?;
            Some(match task["partition"].as_str() {
                Some(month) => format!("{stage}/{month}"),
                None => stage.to_owned(),
            })
        })
        .collect()
    }

    /// Starts a run, and ends it in the middle, or lets it end if it is faster.
    fn disturb(&mut self, choice: u64, signal: Signal) -> Outcome {
        self.files.write(&self.place, &self.base)?;
        let run = self.asked(&Ask::default()).start();
        let share = (choice % 997) as f64 / 997.0;
        let ended = run.ends_before(Instant::now() + self.took.mul_f64(share));
        if !ended {
            run.signal(signal);
        }
        self.came_to_an_end(run, signal);
        Ok(())
    }

    fn came_to_an_end(&mut self, run: Running, signal: Signal) {
        let finished = run.finish();
        self.place.nothing_runs();
        match finished.status.code() {
            // The model has not heard of it yet: what it did is what the next run would have done.
            Some(0) => {}
            Some(1) if signal == Signal::INT => {
                finished.tells("was cancelled");
            }
            // Before there was anything to stop.
            Some(130) if signal == Signal::INT => {}
            None => {}
            Some(_) => panic!("it ends by its end, or by being ended: {finished}"),
        }
    }

    fn restore(&mut self, choice: u64) -> Outcome {
        const DATASETS: [&str; 8] = [
            "gdp.flights",
            "raw.flights",
            "kpi.carriers",
            "kpi.days",
            "kpi.routes",
            "kpi.weather",
            "kpi.fleet",
            "kpi.log",
        ];
        let dataset = DATASETS[pick(choice, DATASETS.len())];
        let versions = self.model.versions(dataset);
        let version = versions[pick(choice / 8, versions.len())];
        let text = version.to_string();
        let asked = ["datasets", "restore", dataset, "--version", &text, "--yes"];
        self.place.barecount(asked).finish().exits_with(0);
        self.model.restore(dataset, version);
        Ok(())
    }

    fn discard(&mut self, choice: u64) -> Outcome {
        const DATASETS: [&str; 5] = [
            "kpi.days",
            "kpi.routes",
            "kpi.weather",
            "kpi.fleet",
            "kpi.log",
        ];
        let dataset = DATASETS[pick(choice, DATASETS.len())];
        if self.model.now(dataset).is_some() {
            let asked = ["datasets", "drop", dataset, "--yes"];
            self.place.barecount(asked).finish().exits_with(0);
            self.model.discard(dataset);
        }
        Ok(())
    }
}

fn number(name: &str) -> Result<Option<u64>, Failure> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} is a number, not `{text}`").into()),
        },
        Err(_) => Ok(None),
    }
}

fn only() -> Result<Option<BTreeSet<u64>>, Failure> {
    let Ok(text) = std::env::var("BARECOUNT_WALK_ONLY") else {
        return Ok(None);
    };
    let numbers: Result<BTreeSet<u64>, _> = text.split(',').map(str::parse).collect();
    Ok(Some(numbers?))
}
