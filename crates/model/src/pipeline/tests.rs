use super::*;
use crate::catalog::Catalog;
use crate::lock::{self, ArtifactKind, Lock, Pin};
use crate::{cost, version};

const EXAMPLE: &[u8] = include_bytes!("../../../../examples/fx-rates/pipeline.yaml");

fn example() -> Loaded {
    load("pipeline.yaml", EXAMPLE).unwrap_or_else(|diagnostics| {
        panic!(
            "{}",
            diagnostic::render(&diagnostics, &String::from_utf8_lossy(EXAMPLE))
        )
    })
}

fn pinned(pipeline: &Pipeline) -> Lock {
    let pins = lock::required(pipeline).into_iter().map(|artifact| Pin {
        digest: crate::digest::Digest::of(artifact.name.as_bytes()),
        stage: artifact.stage,
        kind: artifact.kind,
        name: artifact.name,
        size: 1,
        source: None,
        builder: None,
    });
    Lock::new(pipeline.name.clone(), pins)
}

#[test]
fn the_example_resolves_without_a_warning_into_stages_of_all_classes_in_order() {
    let loaded = example();
    assert_eq!(loaded.warnings, Vec::new());
    let pipeline = loaded.pipeline;
    for (index, stage) in pipeline.stages.iter().enumerate() {
        for name in &stage.depends_on {
            let before = pipeline.stages[..index]
                .iter()
                .any(|other| other.name == *name);
            assert!(before, "{} comes before {}", name, stage.name);
        }
    }
    let classes: std::collections::BTreeSet<_> =
        pipeline.stages.iter().map(|stage| stage.class).collect();
    assert_eq!(classes.len(), RunnerClass::ALL.len());
}

#[test]
fn a_stage_takes_from_the_defaults_what_it_does_not_say() {
    let pipeline = example().pipeline;
    let consolidate = pipeline
        .stage("consolidate")
        .expect("a stage of the example");
    assert_eq!(consolidate.size, Size::Medium);
    assert_eq!(consolidate.network_profile, NetworkProfile::PrivateVpc);
    assert_eq!(consolidate.timeout, Duration::from_secs(300));
    assert_eq!(
        consolidate.retries.initial_backoff,
        Duration::from_millis(500)
    );
    assert_eq!(consolidate.isolation, Isolation::Sandbox);
    let archive = pipeline.stage("archive").expect("a stage of the example");
    let keys: Vec<_> = archive.partition_keys().into_iter().flatten().collect();
    assert_eq!(keys, ["2022", "2023", "2024", "2025"]);
    assert_eq!(archive.depends_on.len(), 1);
}

#[test]
fn months_are_counted_over_the_end_of_the_year() {
    let partitions = Partitions {
        by: PartitionUnit::Month,
        range: Some((2023 * 12 + 10, 2024 * 12 + 1)),
    };
    assert_eq!(
        partitions.keys(),
        ["2023-11", "2023-12", "2024-01", "2024-02"]
    );
}

#[test]
fn one_item_declares_many_columns_that_differ_in_nothing_but_their_names() {
    let text = String::from_utf8_lossy(EXAMPLE);
    let pipeline = load("p.yaml", text.as_bytes()).expect("valid").pipeline;
    let text = "apiVersion: barecount.dev/v1\nkind: Pipeline\n\
        metadata: { name: p, tenant: t, owner: o }\nspec:\n  stages:\n    - name: a\n      \
        phase: ingestion\n      runner: { class: serverless, size: small, network_profile: vpn, package: f }\n      \
        outputs:\n        - dataset: raw.a\n          format: csv\n          columns:\n            \
        - { name: day, type: date, nullable: false }\n            \
        - { names: [USD, JPY, CHF], type: string, pattern: \"[0-9.]+\", sensitive: true }\n";
    let wide = load("p.yaml", text.as_bytes()).expect("valid").pipeline;
    let columns = &wide.stages[0].outputs[0].columns;
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["day", "USD", "JPY", "CHF"]);
    assert!(columns[3].sensitive && columns[3].nullable && columns[3].pattern.is_some());
    assert!(!columns[0].nullable && columns[0].pattern.is_none());
    assert!(pipeline.stages.len() > 1);
}

#[test]
fn every_artifact_of_the_example_is_asked_for_and_a_lock_without_one_says_so() {
    let pipeline = example().pipeline;
    let required = lock::required(&pipeline);
    let kinds: std::collections::BTreeSet<_> = required.iter().map(|r| r.kind).collect();
    assert_eq!(kinds.len(), 4, "{required:?}");
    let lock = pinned(&pipeline);
    assert_eq!(lock.missing(&pipeline), Vec::new());
    let others = lock
        .pins()
        .iter()
        .filter(|pin| pin.kind != ArtifactKind::Driver)
        .cloned();
    let without = Lock::new(pipeline.name.clone(), others);
    let missing = without.missing(&pipeline);
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (missing[0].kind, missing[0].name.as_str()),
        (ArtifactKind::Driver, "sqlite")
    );
    assert_ne!(
        lock.stage_digest("archive"),
        without.stage_digest("archive")
    );
    assert_eq!(lock.stage_digest("ingest"), without.stage_digest("ingest"));
}

#[test]
fn a_version_changes_with_the_meaning_and_not_with_the_spelling() -> Result<(), serde_json::Error> {
    let loaded = example();
    let lock = pinned(&loaded.pipeline);
    let version = version::of(&loaded.manifest, &lock);
    let json = serde_json::to_string(&loaded.manifest)?;
    let as_json = load("pipeline.json", json.as_bytes()).expect("the same manifest as JSON");
    assert_eq!(as_json.pipeline, loaded.pipeline);
    assert_eq!(version::of(&as_json.manifest, &lock), version);
    let text = String::from_utf8_lossy(EXAMPLE);
    let spelt = format!("# another comment\n{}", text.replace("15m", "900s"));
    let spelt = load("p.yaml", spelt.as_bytes()).expect("the same in other words");
    assert_eq!(version::of(&spelt.manifest, &lock), version);
    let longer = load("p.yaml", text.replace("15m", "16m").as_bytes()).expect("valid");
    assert_ne!(version::of(&longer.manifest, &lock), version);
    let unpinned = Lock::new(loaded.pipeline.name.clone(), []);
    assert_ne!(version::of(&loaded.manifest, &unpinned), version);
    Ok(())
}

// R-B3
#[test]
fn an_estimate_covers_every_task_from_the_billed_minimum_to_the_timeout() {
    let pipeline = example().pipeline;
    let estimate = cost::estimate(&Catalog::builtin(), &pipeline);
    let of = |name: &str| {
        let found = estimate
            .stages
            .iter()
            .find(|stage| stage.stage.as_str() == name);
        found.map(|stage| {
            (
                stage.tasks,
                stage.at_least.to_string(),
                stage.at_most.to_string(),
            )
        })
    };
    // four hosts at 0.096 an hour, a minute and five minutes each
    assert_eq!(
        of("archive"),
        Some((4, "0.0064".to_owned(), "0.032".to_owned()))
    );
    // five workers at 0.44 an hour
    assert_eq!(
        of("consolidate").map(|stage| stage.2),
        Some("0.183333333333".to_owned())
    );
    let least = estimate
        .stages
        .iter()
        .map(|stage| stage.at_least)
        .sum::<cost::Money>();
    assert_eq!(estimate.at_least, least);
    assert!(estimate.at_least < estimate.at_most);
}

#[test]
fn a_container_is_a_command_unless_it_is_said_to_be_a_handler() {
    let resolved = |contract: &str| {
        let text = format!(
            "apiVersion: barecount.dev/v1\nkind: Pipeline\n\
             metadata: {{ name: p, tenant: demo, owner: data@example.com }}\n\
             spec:\n  stages:\n    - name: a\n      phase: ingestion\n      runner: {{ class: \
             container, size: small, network_profile: private_vpc, image: images/a }}\n      \
             command: [/app/a]\n      args: [now]\n{contract}"
        );
        load("pipeline.yaml", text.as_bytes())
            .unwrap_or_else(|diagnostics| panic!("{}", diagnostic::render(&diagnostics, &text)))
            .pipeline
    };
    for contract in ["", "      contract: command\n"] {
        let work = &resolved(contract).stages[0].work;
        assert!(matches!(work, Work::Command { .. }), "{work:?}");
    }
    let event = "      contract: handler\n      event: { type: timer, every: 1h }\n";
    let pipeline = resolved(event);
    let work = &pipeline.stages[0].work;
    let Work::Handler { program, event } = work else {
        panic!("it is a handler: {work:?}");
    };
    assert!(matches!(program, HandlerProgram::Image { .. }));
    assert!(matches!(event, Some(Event::Timer { .. })));
    assert_eq!(work.argv(), ["/app/a", "now"]);
    let required = lock::required(&pipeline);
    assert_eq!(required.len(), 1);
    assert_eq!(required[0].kind, ArtifactKind::Image);
}
