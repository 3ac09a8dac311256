//! Two tenants never meet: in one state folder, with pipelines, stages and datasets of equal names,
//! each has its own tables, checkpoints, dead letters and runs.

use barecount_e2e::{Outcome, place::Place, process::Finished, programs};
use serde_json::{Value, json};

/// A pipeline of a tenant, whose one stage counts on from its checkpoint and hands these rows over.
fn pipeline(place: &Place, tenant: &str, rows: &str) {
    let worker = fs_err::read(programs::worker()).expect("the worker was built");
    let image = format!("{tenant}/images/worker");
    place.write(format!("{image}/worker"), worker);
    place.write(format!("{image}/rows/kpi.salary/part.csv"), rows);
    place.write(
        format!("{image}/build.yaml"),
        "kind: image\nfiles:\n  - { from: worker, to: /app/worker, executable: true }\n  \
         - { from: rows, to: /app/rows }\nentrypoint: [/app/worker]\nuser: \"1000:1000\"\n",
    );
    let manifest = format!(
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: {{ name: salaries, tenant: {tenant}, owner: you@example.com }}
spec:
  defaults:
    runner: {{ class: container, size: small, network_profile: private_vpc, image: images/worker }}
    retries: {{ application: 3, infrastructure: 0, initial_backoff: 1ms, max_backoff: 1ms }}
  stages:
    - name: work
      phase: ingestion
      env: {{ BEHAVIOUR: count }}
      outputs:
        - dataset: kpi.salary
          format: csv
          mode: overwrite
          columns: [{{ name: amount, type: int64, nullable: false }}]
"
    );
    place.write(format!("{tenant}/pipeline.yaml"), manifest);
}

fn run(place: &Place, tenant: &str) -> Value {
    let manifest = format!("{tenant}/pipeline.yaml");
    place
        .barecount(["run", &manifest, "-o", "json"])
        .finish()
        .exits_with(0)
        .json("run")
}

fn salary(place: &Place, verb: &str, of: &[&str]) -> Finished {
    place
        .barecount(["outputs", verb, "kpi.salary"])
        .arguments(of)
        .finish()
}

fn items(place: &Place, arguments: &[&str], kind: &str) -> Vec<Value> {
    let listed = place
        .barecount(arguments)
        .argument("-o")
        .argument("json")
        .finish()
        .exits_with(0);
    listed.json(kind)["items"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn of_each(items: &[Value], key: &str) -> Vec<Value> {
    items.iter().map(|item| item[key].clone()).collect()
}

/// A state folder in which both have run, `acme` first.
fn both() -> (Place, Value) {
    let place = Place::new();
    pipeline(&place, "acme", "amount\n111\nmuch\n");
    pipeline(&place, "globex", "amount\n222\nlittle\n");
    run(&place, "acme");
    let second = run(&place, "globex");
    (place, second)
}

#[test]
fn equal_names_of_two_tenants_are_two_datasets_two_checkpoints_and_two_queues_of_dead_letters()
-> Outcome {
    let (place, second) = both();
    let exported = |of: &[&str]| salary(&place, "export", of).exits_with(0).stdout;
    assert_eq!(exported(&["--tenant", "acme"]), "amount\n111\n");
    assert_eq!(exported(&["--tenant", "globex"]), "amount\n222\n");

    let log = place
        .barecount(["runs", "logs", second["id"].as_str().ok_or("an id")?])
        .finish()
        .exits_with(0);
    assert!(log.stdout.contains("found 0"), "{}", log.stdout);

    let outputs = items(&place, &["outputs", "ls"], "outputs");
    assert_eq!(of_each(&outputs, "tenant"), ["acme", "globex"]);
    assert_eq!(of_each(&outputs, "version"), [json!(0), json!(0)]);
    for tenant in ["acme", "globex"] {
        let of = ["--tenant", tenant];
        let letters = items(&place, &[&["dlq", "ls"], &of[..]].concat(), "dead_letters");
        assert_eq!(of_each(&letters, "tenant"), [tenant]);
        let runs = items(&place, &[&["runs", "ls"], &of[..]].concat(), "runs");
        assert_eq!(of_each(&runs, "tenant"), [tenant]);
    }
    Ok(())
}

#[test]
fn a_name_that_two_tenants_have_is_asked_about_and_the_tenant_is_listed() {
    let (place, _) = both();
    for verb in ["show", "export"] {
        salary(&place, verb, &[])
            .fails_with(2, "BC0821")
            .tells("acme, globex")
            .tells("--tenant acme");
    }
    let by_variable = place
        .barecount(["outputs", "export", "kpi.salary"])
        .env("BARECOUNT_TENANT", "globex")
        .finish()
        .exits_with(0);
    assert_eq!(by_variable.stdout, "amount\n222\n");
    salary(&place, "show", &["--tenant", "initech"]).fails_with(4, "BC0701");
    for verb in ["outputs", "dlq", "runs"] {
        let listed = place.barecount([verb, "ls"]).finish().exits_with(0);
        assert!(listed.stdout.contains("TENANT"), "{}", listed.stdout);
        let one = place
            .barecount([verb, "ls", "--tenant", "acme"])
            .finish()
            .exits_with(0);
        assert!(!one.stdout.contains("TENANT"), "{}", one.stdout);
    }
}

#[test]
fn what_one_tenant_alone_has_needs_no_tenant() {
    let place = Place::new();
    pipeline(&place, "acme", "amount\n111\n");
    run(&place, "acme");
    let exported = salary(&place, "export", &[]).exits_with(0).stdout;
    assert_eq!(exported, "amount\n111\n");
}

/// Puts a table where it was before tenants had folders of their own.
fn make_older(place: &Place, tenant: &str) -> Outcome {
    let state = place.state();
    fs_err::create_dir_all(state.join("datasets/kpi"))?;
    fs_err::rename(
        state.join(format!("datasets/{tenant}/kpi/salary")),
        state.join("datasets/kpi/salary"),
    )?;
    fs_err::rename(
        state.join(format!("boundaries/{tenant}/kpi.salary.json")),
        state.join("boundaries/kpi.salary.json"),
    )?;
    fs_err::remove_dir_all(state.join(format!("datasets/{tenant}")))?;
    fs_err::remove_file(state.join("layout"))?;
    Ok(())
}

#[test]
fn a_state_folder_from_before_tenants_had_folders_opens_with_everything_in_it() -> Outcome {
    let place = Place::new();
    pipeline(&place, "acme", "amount\n111\n");
    run(&place, "acme");
    make_older(&place, "acme")?;
    let exported = salary(&place, "export", &[]).exits_with(0).stdout;
    assert_eq!(exported, "amount\n111\n");
    let boundary = place.state().join("boundaries/acme/kpi.salary.json");
    assert!(boundary.exists(), "it is still known where it was written");
    assert!(!place.state().join("datasets.shared").exists());
    Ok(())
}

#[test]
fn an_older_dataset_of_two_tenants_is_given_by_name_and_moved_for_nobody_before() -> Outcome {
    let (place, _) = both();
    fs_err::remove_dir_all(place.state().join("datasets/acme"))?;
    make_older(&place, "globex")?;
    let place = &place;
    for verb in [&["outputs", "ls"][..], &["run", "acme/pipeline.yaml"]] {
        place
            .barecount(verb)
            .finish()
            .fails_with(5, "BC0820")
            .tells("kpi.salary (written by acme and globex)")
            .tells("barecount state give kpi.salary --tenant acme");
    }
    assert!(place.state().join("datasets/kpi/salary").is_dir());
    place
        .barecount(["state", "give", "kpi.salary", "--tenant", "globex"])
        .finish()
        .exits_with(0);
    let exported = salary(place, "export", &[]).exits_with(0).stdout;
    assert_eq!(exported, "amount\n222\n");
    place
        .barecount(["state", "give", "kpi.salary", "--tenant", "acme"])
        .finish()
        .exits_with(4);
    place.barecount(["outputs", "ls"]).finish().exits_with(0);
    Ok(())
}
