use serde_json::json;

use super::{
    fixture::{Documents, EXAMPLE},
    *,
};
use crate::{
    codes,
    plan::{InputPlan, WorkPlan},
};

fn alone(stage: &str) -> Asked {
    Asked {
        stage: Some(stage.to_owned()),
        ..Asked::default()
    }
}

fn within(start: &str, end: &str) -> Asked {
    let moment = |day: &str| format!("{day}T00:00:00Z").parse().expect("a moment");
    Asked {
        window: Some(Window {
            start: moment(start),
            end: moment(end),
        }),
        ..Asked::default()
    }
}

#[test]
fn a_plan_names_everything_by_what_it_is_pinned_to() -> Result<(), CompileError> {
    let documents = Documents::of(EXAMPLE);
    let plan = documents.plan(&Asked::default())?;
    assert_eq!(
        plan.version,
        version::of(&documents.loaded.manifest, &documents.lock).to_string()
    );
    for stage in &plan.stages {
        let artifact = stage.work.artifact();
        let pins = documents.lock.pins().iter();
        let of_stage = pins.filter(|pin| pin.stage.as_str() == stage.name);
        let mut digests = of_stage.map(|pin| pin.digest.to_string());
        assert!(digests.any(|digest| digest == artifact.digest), "{stage:?}");
        let files = stage.inputs.iter().filter_map(|input| match input {
            InputPlan::File { digest, bytes, .. } => Some((digest, *bytes)),
            InputPlan::Dataset { .. } => None,
        });
        assert!(
            files
                .clone()
                .all(|(digest, bytes)| digest.starts_with("sha256:") && bytes == 7)
        );
    }
    let arrived = plan.event.as_ref().map(|event| &event["name"]);
    assert_eq!(arrived, Some(&json!("eurofxref-hist.zip")));
    Ok(())
}

#[test]
fn the_same_values_mean_the_same_plan_and_the_same_work() -> Result<(), CompileError> {
    let (one, other) = (Documents::of(EXAMPLE), Documents::of(EXAMPLE));
    let asked = Asked::default();
    assert_eq!(one.plan(&asked)?, other.plan(&asked)?);
    assert_eq!(one.run(1, &asked)?, other.run(1, &asked)?);
    // Another run of the same work has tasks of its own.
    let (first, second) = (one.run(1, &asked)?, one.run(2, &asked)?);
    assert_eq!(first.token, second.token);
    assert_ne!(first.tasks[0].id, second.tasks[0].id);
    Ok(())
}

#[test]
fn each_partition_is_a_task_that_waits_for_every_task_of_the_stages_before()
-> Result<(), CompileError> {
    let run = Documents::of(EXAMPLE).run(1, &Asked::default())?;
    let of = |stage: &str| {
        let tasks = run.tasks.iter().enumerate();
        let indices = tasks.filter_map(|(index, task)| (task.stage == stage).then_some(index));
        indices.collect::<Vec<_>>()
    };
    let archive = of("archive");
    assert_eq!(archive.len(), 4);
    for index in &archive {
        assert_eq!(run.tasks[*index].needs, of("normalize"));
    }
    for (index, task) in run.tasks.iter().enumerate() {
        assert!(task.needs.iter().all(|need| *need < index), "{task:?}");
    }
    Ok(())
}

#[test]
fn a_stage_alone_names_what_is_its_own_and_waits_for_nobody() -> Result<(), CompileError> {
    let documents = Documents::of(EXAMPLE);
    let archive = alone("archive");
    let files: Vec<_> = named(documents.source(), &archive)?
        .files
        .into_iter()
        .map(|path| path.to_string())
        .collect();
    assert_eq!(files, ["data/invoices.sqlite"]);
    let plan = documents.plan(&archive)?;
    assert_eq!(plan.stages.len(), 1);
    assert_eq!(plan.stages[0].needs, Vec::<String>::new());
    assert_ne!(
        documents.run(1, &archive)?.token,
        documents.run(1, &Asked::default())?.token
    );
    Ok(())
}

#[test]
fn work_that_is_asked_for_again_by_force_is_work_of_another_name() -> Result<(), CompileError> {
    let documents = Documents::of(EXAMPLE);
    let again = |names: &[&str]| Asked {
        force: names.iter().map(ToString::to_string).collect(),
        ..Asked::default()
    };
    let all = documents.plan(&again(&[EVERY_STAGE]))?;
    assert_eq!(all.forced.len(), all.stages.len());
    assert_eq!(
        documents.plan(&again(&["publish"]))?.forced,
        ["publish".to_owned()]
    );
    assert_ne!(
        documents.run(1, &again(&["publish"]))?.token,
        documents.run(1, &Asked::default())?.token
    );
    let unknown = documents.plan(&again(&["publihs"])).expect_err("a slip");
    assert!(
        unknown
            .remedy()
            .is_some_and(|remedy| remedy.contains("publish"))
    );
    Ok(())
}

#[test]
fn an_images_own_program_runs_where_the_manifest_names_none() -> Result<(), CompileError> {
    let program = |rest: &str| {
        let plan = Documents::of_stage("class: container, image: images/a", rest);
        let plan = plan.plan(&Asked::default())?;
        match &plan.stages[0].work {
            WorkPlan::Image {
                command,
                env,
                working_dir,
                ..
            } => Ok((command.clone(), env.clone(), working_dir.clone())),
            other => panic!("it is a program of an image: {other:?}"),
        }
    };
    let (command, env, working_dir) = program("")?;
    assert_eq!(command, ["/entry", "usual"]);
    assert_eq!(env.into_iter().collect::<Vec<_>>(), [pair("MODE", "quiet")]);
    assert_eq!(working_dir, "/");
    assert_eq!(program("      args: [now]\n")?.0, ["/entry", "now"]);
    let named = program("      command: [/app/a]\n      args: [now]\n")?;
    assert_eq!(named.0, ["/app/a", "now"]);
    Ok(())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_stage_has_the_partitions_that_the_window_overlaps_or_says_what_to_do() {
    let rest = "      command: [/app/a]\n      partitions: { by: month }\n";
    let monthly = Documents::of_stage("class: container, image: images/a", rest);
    let plan = monthly.plan(&within("2024-11-30", "2025-01-02"));
    let partitions = plan.map(|plan| plan.stages[0].partitions.clone());
    assert_eq!(
        partitions,
        Ok(["2024-11", "2024-12", "2025-01"]
            .map(str::to_owned)
            .to_vec())
    );
    let refused = |documents: &Documents, asked: &Asked| {
        let error = documents.plan(asked).expect_err("no such plan");
        assert_eq!(error.code(), Some(codes::INVALID_PARTITIONS.id));
        assert!(error.remedy().is_some());
        error
    };
    let none = refused(&monthly, &Asked::default());
    assert!(matches!(none, CompileError::NoWindow { .. }));
    let long = refused(&monthly, &within("1900-01-01", "2024-01-01"));
    assert!(matches!(long, CompileError::WindowTooLong));
    let before = refused(&Documents::of(EXAMPLE), &within("1990-01-01", "1991-01-01"));
    assert!(matches!(before, CompileError::OutsideWindow { .. }));
}

#[test]
fn what_nobody_looked_at_is_missed_by_name_and_never_made_up() {
    let documents = Documents::of(EXAMPLE);
    let asked = Asked::default();
    let without = |leave_out: fn(&mut Facts)| {
        let mut facts = documents.facts(&asked);
        leave_out(&mut facts);
        compile(documents.source(), &asked, &facts, Value::Null).expect_err("something is missed")
    };
    let no_file = without(|facts| facts.files.clear());
    assert!(matches!(no_file, CompileError::UnknownFile { .. }));
    let no_image = without(|facts| facts.images.clear());
    assert!(matches!(no_image, CompileError::UnknownImage { .. }));
    for error in [no_file, no_image] {
        assert!(error.code().is_some_and(|code| codes::find(code).is_some()));
    }
}

#[test]
fn what_the_environment_or_the_lock_lacks_is_told_with_its_code() {
    let mut documents = Documents::of(EXAMPLE);
    let asked = Asked::default();
    documents.environment.backends.clear();
    let error = documents.plan(&asked).expect_err("nothing serves it");
    assert_eq!(error.code(), Some(codes::BACKEND_MISSING.id));
    let mut documents = Documents::of(EXAMPLE);
    documents.lock = Lock::new(documents.loaded.pipeline.name.clone(), []);
    let error = named(documents.source(), &asked).expect_err("nothing is pinned");
    assert_eq!(error.code(), Some(codes::LOCK_INCOMPLETE.id));
}
