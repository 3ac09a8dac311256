use super::*;
use crate::run::Window;

mod days;

fn plan() -> Plan {
    let text = include_str!("tests/plan.json");
    serde_json::from_str(text).expect("a plan")
}

fn read(content: &str) -> Read {
    Read {
        dataset: "raw.days".to_owned(),
        version: Some(3),
        content: content.to_owned(),
    }
}

fn work(plan: &Plan) -> Work {
    Work::of(plan, &plan.stages[0], None, None, &[read("a")])
}

/// A change of the plan, or of its stage.
type Change = fn(&mut Plan);

#[test]
fn what_changes_no_result_changes_no_key() {
    let changes: [(&str, Change); 10] = [
        ("owner", |plan| plan.owner = "another".to_owned()),
        ("version", |plan| plan.version = "sha256:1".to_owned()),
        ("manifest", |plan| plan.manifest_digest = "1".to_owned()),
        ("requester", |plan| plan.requester = "1".to_owned()),
        ("timeout", |plan| plan.stages[0].timeout_ms += 1),
        ("retries", |plan| plan.stages[0].application_retries += 1),
        ("concurrency", |plan| plan.stages[0].concurrency_limit += 1),
        ("memory", |plan| plan.stages[0].resources.memory_bytes += 1),
        ("needs", |plan| plan.stages[0].needs.clear()),
        ("description", |plan| {
            let column = &mut plan.stages[0].outputs[0].columns[0];
            column.description = Some("what it means".to_owned());
        }),
    ];
    let before = plan();
    for (name, change) in changes {
        let mut after = plan();
        change(&mut after);
        assert_ne!(before, after, "{name}");
        assert_eq!(work(&before).key, work(&after).key, "{name}");
    }
}

#[test]
fn whatever_can_change_a_result_changes_the_key_and_is_named() {
    let changes: [(&str, Change); 8] = [
        ("tenant", |plan| plan.tenant = "another".to_owned()),
        ("environment", |plan| plan.environment = "b".to_owned()),
        ("token", |plan| plan.named = Some("again".to_owned())),
        ("env", |plan| {
            let env = &mut plan.stages[0].env;
            env.insert("A".to_owned(), "1".to_owned());
        }),
        ("outputs", |plan| {
            plan.stages[0].outputs[0].columns[0].nullable ^= true;
        }),
        ("boundary", |plan| plan.stages[0].boundary = None),
        ("work", |plan| {
            if let crate::plan::WorkPlan::Job { job, .. } = &mut plan.stages[0].work {
                job.digest.push('0');
            }
        }),
        ("file rates", |plan| {
            plan.stages[0].inputs.push(InputPlan::File {
                name: "rates".to_owned(),
                path: "/here/rates.csv".to_owned(),
                digest: "sha256:2".to_owned(),
                bytes: 1,
            });
        }),
    ];
    let before = plan();
    for (name, change) in changes {
        let mut after = plan();
        change(&mut after);
        assert_eq!(work(&after).differences(&work(&before)), [name]);
        assert_ne!(work(&before).key, work(&after).key, "{name}");
    }
    let stage = &before.stages[0];
    let other = Work::of(&before, stage, None, None, &[read("b")]);
    assert_eq!(other.differences(&work(&before)), ["data of raw.days"]);
    let window = Window {
        start: jiff::Timestamp::UNIX_EPOCH,
        end: jiff::Timestamp::MAX,
    };
    let other = Work::of(&before, stage, Some("2024"), Some(&window), &[read("a")]);
    assert_eq!(other.differences(&work(&before)), ["partition", "window"]);
}

#[test]
fn a_window_is_part_of_the_key_only_where_the_work_can_see_it() {
    let window = Window {
        start: jiff::Timestamp::UNIX_EPOCH,
        end: jiff::Timestamp::MAX,
    };
    let of = |plan: &Plan, window| Work::of(plan, &plan.stages[0], None, window, &[read("a")]);
    let (named, mut unnamed, mut program) = (plan(), plan(), plan());
    if let crate::plan::WorkPlan::Job { names_window, .. } = &mut unnamed.stages[0].work {
        *names_window = false;
    }
    program.stages[0].work = crate::plan::WorkPlan::Handler {
        package: crate::plan::Pin {
            name: "functions/count".to_owned(),
            digest: "sha256:1".to_owned(),
        },
        event: Value::Null,
    };
    assert_ne!(of(&named, Some(&window)).key, of(&named, None).key);
    assert_ne!(of(&program, Some(&window)).key, of(&program, None).key);
    assert_eq!(of(&unnamed, Some(&window)).key, of(&unnamed, None).key);
    // What says so is no part of it: it follows from the text.
    assert_eq!(of(&unnamed, None).key, of(&named, None).key);
}

#[test]
fn whose_a_dataset_is_and_which_version_is_pinned_changes_no_key() {
    let mut pinned = plan();
    if let InputPlan::Dataset { from, .. } = &mut pinned.stages[0].inputs[0] {
        *from = Some(crate::plan::Pinned {
            pipeline: "shop".parse().expect("a name"),
            version: 4,
        });
    }
    assert_eq!(pinned.pinned().count(), 1);
    assert_eq!(work(&pinned).key, work(&plan()).key);
}

#[test]
fn another_version_with_the_same_in_it_is_the_same_work() {
    let plan = plan();
    let later = Read {
        version: Some(9),
        ..read("a")
    };
    let later = Work::of(&plan, &plan.stages[0], None, None, &[later]);
    assert_eq!(later.key, work(&plan).key);
    assert_eq!(later.reads["raw.days"], 9);
}

#[test]
fn a_renamed_artifact_is_the_same_artifact() {
    let mut renamed = plan();
    if let crate::plan::WorkPlan::Job { job, .. } = &mut renamed.stages[0].work {
        job.name = "jobs/other.sql".to_owned();
    }
    assert_eq!(work(&renamed).key, work(&plan()).key);
}

fn files(names: &[&str]) -> std::collections::BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn live(files: &[(&str, &str)]) -> Vec<LiveFile> {
    let file = |(name, year): &(&str, &str)| LiveFile {
        name: (*name).to_owned(),
        partition: Partition::from([("year".to_owned(), Some((*year).to_owned()))]),
    };
    files.iter().map(file).collect()
}

#[test]
fn an_overwritten_part_stands_while_it_holds_these_files_and_no_others() {
    let part = |year: &str| Partition::from([("year".to_owned(), Some(year.to_owned()))]);
    let wrote = |replaced: Partition, names: &[&str]| Wrote {
        dataset: "kpi.days".to_owned(),
        replaced: Some(replaced),
        files: files(names),
    };
    let now = live(&[("a", "2023"), ("b", "2024"), ("c", "2024")]);
    let now = Some(now.as_slice());
    assert_eq!(stands(&wrote(part("2024"), &["b", "c"]), now), Ok(()));
    assert_eq!(stands(&wrote(part("2023"), &["a"]), now), Ok(()));
    assert_eq!(stands(&wrote(part("2025"), &[]), now), Ok(()));
    let fallen = Err(Fallen::Superseded);
    assert_eq!(stands(&wrote(part("2024"), &["b"]), now), fallen);
    assert_eq!(stands(&wrote(part("2024"), &["b", "c", "d"]), now), fallen);
    assert_eq!(stands(&wrote(Partition::new(), &["a", "b"]), now), fallen);
    assert_eq!(stands(&wrote(part("2025"), &[]), None), Err(Fallen::Gone));
}

#[test]
fn what_was_appended_stands_while_it_is_in_there() {
    let wrote = |names: &[&str]| Wrote {
        dataset: "raw.days".to_owned(),
        replaced: None,
        files: files(names),
    };
    let now = live(&[("a", "2023"), ("b", "2024")]);
    assert_eq!(stands(&wrote(&["a"]), Some(&now)), Ok(()));
    let fallen = Err(Fallen::Removed);
    assert_eq!(stands(&wrote(&["a", "c"]), Some(&now)), fallen);
    assert_eq!(stands(&wrote(&["a"]), None), Err(Fallen::Gone));
}

#[test]
fn a_reason_is_told_in_words() {
    let plan = plan();
    let now = work(&plan);
    let run = |forced, before, last| match decide(&now, forced, before, last) {
        Decision::Run(why) => why.to_string(),
        Decision::Unchanged => "unchanged".to_owned(),
    };
    assert_eq!(run(true, Before::Stands, None), "forced");
    assert_eq!(run(false, Before::Stands, None), "unchanged");
    let fallen = Before::Fallen {
        dataset: "kpi.days",
        fallen: Fallen::Superseded,
    };
    assert_eq!(
        run(false, fallen, Some(&now)),
        "what it wrote in kpi.days is no longer what stands there"
    );
    let other = Work::of(&plan, &plan.stages[0], None, None, &[read("b")]);
    assert_eq!(
        run(false, Before::Never, Some(&other)),
        "differs from the last time in data of raw.days"
    );
    let first = run(false, Before::Never, None);
    assert_eq!(first, "nothing like it was done before");
}
