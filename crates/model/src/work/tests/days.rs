//! Days of work on a pipeline, decided by this module, and beside it by the rule of
//! `docs/identity-of-work.md` over values: no digests of plans, no names of files.
//!
//! `land` makes two months of a file, `month` works on each by itself, `log` adds to what it has
//! whenever a month comes to something else.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const STAGES: [&str; 3] = ["land", "month", "log"];
/// The stage whose code does not name the window.
const BLIND: &str = "month";
const MONTHS: [&str; 2] = ["2024-01", "2024-02"];

/// What somebody does.
#[derive(Debug, Clone)]
enum Step {
    /// A stage has this code.
    Code(usize, u8),
    /// The file holds this.
    File(u8),
    /// Something that changes no result.
    Words(u8),
    /// A run of a month or of both, of a stage or of all, a stage being done whatever was before.
    Run(Option<usize>, Option<usize>, Option<usize>),
    /// What a stage writes is as it was at some version.
    Restore(usize, Index),
    /// What a stage writes is gone.
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let maybe = |count: usize| prop_oneof![3 => Just(None), 1 => (0..count).prop_map(Some)];
    prop_oneof![
        3 => (0..STAGES.len(), 0..3_u8).prop_map(|(stage, code)| Step::Code(stage, code)),
        2 => (0..4_u8).prop_map(Step::File),
        1 => any::<u8>().prop_map(Step::Words),
        6 => (maybe(MONTHS.len()), maybe(STAGES.len()), maybe(STAGES.len()))
            .prop_map(|(month, only, force)| Step::Run(month, only, force)),
        1 => (0..STAGES.len(), any::<Index>()).prop_map(|(stage, version)| Step::Restore(stage, version)),
        1 => (0..STAGES.len()).prop_map(Step::Drop),
    ]
}

/// What a commit put into a part of a dataset.
#[derive(Debug, Clone, PartialEq)]
struct Rows {
    commit: usize,
    value: String,
}

/// A dataset's rows by month; those of `log` are of none.
type Held = BTreeMap<&'static str, Vec<Rows>>;

#[derive(Default)]
struct World {
    plan: Option<Plan>,
    codes: [u8; 3],
    file: u8,
    versions: [Vec<Option<Held>>; 3],
    commits: usize,
    /// By key, as the module makes it: what was written, each time.
    answers: HashMap<Digest, Vec<Wrote>>,
    /// By everything that can change a result, in words: the commits.
    done: HashMap<String, Vec<usize>>,
}

/// The stages as a plan has them.
fn pipeline() -> Plan {
    let mut plan = plan();
    let stage = plan.stages.remove(0);
    for name in STAGES {
        let mut stage = stage.clone();
        name.clone_into(&mut stage.name);
        stage.inputs.clear();
        if let crate::plan::WorkPlan::Job { names_window, .. } = &mut stage.work {
            *names_window = name != BLIND;
        }
        plan.stages.push(stage);
    }
    plan
}

impl World {
    fn now(&self, stage: usize) -> Option<&Held> {
        self.versions[stage].last()?.as_ref()
    }

    /// What a task comes to, by what is there.
    fn value(&self, stage: usize, month: Option<&str>) -> String {
        let code = self.codes[stage];
        match (stage, month) {
            // Each month sees another half of the file.
            (0, Some(month)) => format!(
                "{code}.{}",
                self.file >> usize::from(month == MONTHS[1]) & 1
            ),
            (1, Some(month)) => format!("{code}({})", self.read(0, Some(month))),
            _ => format!("{code}({})", self.read(1, None)),
        }
    }

    /// What a dataset holds, in words.
    fn read(&self, stage: usize, month: Option<&str>) -> String {
        let Some(held) = self.now(stage) else {
            return "none".to_owned();
        };
        let parts = held
            .iter()
            .filter(|(own, _)| month.is_none_or(|month| month == **own));
        let rows =
            parts.flat_map(|(month, rows)| rows.iter().map(move |rows| (month, &rows.value)));
        format!("{:?}", rows.collect::<Vec<_>>())
    }

    /// The files of a dataset: each commit's rows of a month are one.
    fn live(&self, stage: usize) -> Option<Vec<LiveFile>> {
        let held = self.now(stage)?;
        let files = held.iter().flat_map(|(month, rows)| {
            rows.iter().map(|rows| LiveFile {
                name: file(rows.commit, month),
                partition: partition(month),
            })
        });
        Some(files.collect())
    }

    /// What a run does, as the module decides; each decision has to be the rule's.
    fn run(
        &mut self,
        window: Option<usize>,
        only: Option<usize>,
        force: Option<usize>,
    ) -> Result<usize, TestCaseError> {
        let mut does = 0;
        let window = window.map(|month| MONTHS[month]);
        for stage in (0..STAGES.len()).filter(|stage| only.is_none_or(|only| only == *stage)) {
            let months: Vec<Option<&'static str>> = match stage {
                1 => MONTHS
                    .into_iter()
                    .filter(|month| window.is_none_or(|window| window == *month))
                    .map(Some)
                    .collect(),
                _ => vec![None],
            };
            for month in months {
                let (work, rule) = self.identities(stage, month, window);
                let forced = force == Some(stage);
                let decision = self.decided(stage, &work, forced);
                let stood = self.done.get(&rule).is_some_and(|commits| {
                    let mut commits = commits.iter();
                    commits.any(|commit| self.stands(stage, month, *commit))
                });
                let unchanged = stood && !forced;
                prop_assert_eq!(
                    decision == Decision::Unchanged,
                    unchanged,
                    "{}: {:?}",
                    rule,
                    decision
                );
                if !unchanged {
                    self.work(stage, month, work.key, rule);
                    does += 1;
                }
            }
        }
        Ok(does)
    }

    /// The work as the module knows it, and everything that can change its result in words.
    fn identities(
        &self,
        stage: usize,
        month: Option<&str>,
        window: Option<&str>,
    ) -> (Work, String) {
        let reads = stage.checked_sub(1).map(|from| Read {
            dataset: STAGES[from].to_owned(),
            version: self.versions[from]
                .len()
                .checked_sub(1)
                .map(|version| version as u64),
            content: self.read(from, month),
        });
        let reads: Vec<Read> = reads.into_iter().collect();
        let content = reads.first().map(|read| read.content.clone());
        let start = |window: &str| {
            format!("{window}-01T00:00:00Z")
                .parse()
                .expect("an instant")
        };
        let of_month = window.map(|window| Window {
            start: start(window),
            end: jiff::Timestamp::MAX,
        });
        let plan = self.plan.as_ref().expect("there is a plan");
        let work = Work::of(plan, &plan.stages[stage], month, of_month.as_ref(), &reads);
        let file = (stage == 0).then_some(self.file);
        let code = self.codes[stage];
        let window = window.filter(|_| STAGES[stage] != BLIND);
        let rule = format!("{stage} {month:?} {window:?} {code} {file:?} {content:?}");
        (work, rule)
    }

    fn decided(&self, stage: usize, work: &Work, forced: bool) -> Decision {
        let live = self.live(stage);
        let done = self.answers.get(&work.key).into_iter().flatten().rev();
        let stood: Vec<_> = done.map(|wrote| stands(wrote, live.as_deref())).collect();
        let before = match stood.first() {
            None => Before::Never,
            Some(_) if stood.contains(&Ok(())) => Before::Stands,
            Some(Ok(())) => Before::Stands,
            Some(Err(fallen)) => Before::Fallen {
                dataset: STAGES[stage],
                fallen: *fallen,
            },
        };
        decide(work, forced, before, None)
    }

    /// Whether a commit is what a part of the dataset holds, or is in there.
    fn stands(&self, stage: usize, month: Option<&str>, commit: usize) -> bool {
        let Some(held) = self.now(stage) else {
            return false;
        };
        let parts = held
            .iter()
            .filter(|(own, _)| month.is_none_or(|month| month == **own));
        let mut commits = parts.flat_map(|(_, rows)| rows).map(|rows| rows.commit);
        match stage {
            2 => commits.any(|found| found == commit),
            // Both months, where it writes both.
            _ => commits.eq(vec![commit; if stage == 0 { MONTHS.len() } else { 1 }]),
        }
    }

    fn work(&mut self, stage: usize, month: Option<&'static str>, key: Digest, rule: String) {
        self.commits += 1;
        let commit = self.commits;
        let mut held = match stage {
            0 => Held::new(),
            _ => self.now(stage).cloned().unwrap_or_default(),
        };
        let parts: Vec<&'static str> = match (stage, month) {
            (0, _) => MONTHS.to_vec(),
            (_, Some(month)) => vec![month],
            (_, None) => vec![""],
        };
        for part in &parts {
            let value = self.value(stage, Some(part).filter(|part| !part.is_empty()).copied());
            let rows = held.entry(part).or_default();
            if stage != 2 {
                rows.clear();
            }
            rows.push(Rows { commit, value });
        }
        let wrote = Wrote {
            dataset: STAGES[stage].to_owned(),
            replaced: match stage {
                0 => Some(Partition::new()),
                1 => Some(partition(month.unwrap_or_default())),
                _ => None,
            },
            files: parts.iter().map(|part| file(commit, part)).collect(),
        };
        self.versions[stage].push(Some(held));
        self.answers.entry(key).or_default().push(wrote);
        self.done.entry(rule).or_default().push(commit);
    }

    /// Whether everything is what the code makes of the file.
    fn is_true(&self) -> bool {
        let rows = |stage: usize, month: &str| self.now(stage).and_then(|held| held.get(month));
        let of_month = |month: &&str| {
            let values = [0, 1].map(|stage| rows(stage, month).map(|rows| rows[0].value.clone()));
            values == [0, 1].map(|stage| Some(self.value(stage, Some(month))))
        };
        let last = self.value(2, None);
        MONTHS.iter().all(of_month)
            && rows(2, "").is_some_and(|rows| rows.iter().any(|rows| rows.value == last))
    }

    fn edit(&mut self, step: &Step) {
        let plan = self.plan.get_or_insert_with(pipeline);
        match *step {
            Step::Code(stage, code) => {
                self.codes[stage] = code;
                if let crate::plan::WorkPlan::Job { job, .. } = &mut plan.stages[stage].work {
                    job.digest = format!("sha256:{code}");
                }
            }
            Step::File(content) => {
                self.file = content;
                plan.stages[0].inputs = vec![InputPlan::File {
                    name: "days".to_owned(),
                    path: "/here/days.csv".to_owned(),
                    digest: format!("sha256:{content}"),
                    bytes: 1,
                }];
            }
            Step::Words(number) => {
                plan.owner = number.to_string();
                plan.version = format!("sha256:{number}");
                plan.requester = format!("person {number}");
                for stage in &mut plan.stages {
                    stage.timeout_ms = 1 + u64::from(number);
                    stage.application_retries = u32::from(number);
                    stage.outputs[0].columns[0].description = Some(number.to_string());
                }
            }
            Step::Restore(stage, version) => {
                let versions = &mut self.versions[stage];
                if !versions.is_empty() {
                    let earlier = versions[version.index(versions.len())].clone();
                    versions.push(earlier);
                }
            }
            Step::Drop(stage) => self.versions[stage].push(None),
            Step::Run(..) => {}
        }
    }
}

fn file(commit: usize, month: &str) -> String {
    format!("{commit}-{month}")
}

fn partition(month: &str) -> Partition {
    match month {
        "" => Partition::new(),
        _ => Partition::from([("month".to_owned(), Some(month.to_owned()))]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_a_pipeline_what_is_skipped_is_what_stands(
        steps in vec(step(), 1..60),
    ) {
        let mut world = World::default();
        world.edit(&Step::Code(0, 0));
        world.edit(&Step::Code(1, 0));
        world.edit(&Step::Code(2, 0));
        world.edit(&Step::File(0));
        for step in &steps {
            world.edit(step);
            if let Step::Run(window, only, force) = *step {
                world.run(window, only, force)?;
                if window.is_none() && only.is_none() {
                    prop_assert!(world.is_true(), "what stands follows from what there is");
                    prop_assert_eq!(world.run(None, None, None)?, 0, "nothing is left to do");
                }
            }
        }
    }
}
