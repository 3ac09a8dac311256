//! Manifests and environment files that are wrong: each problem with its code and its place.

use barecount_e2e::place::Place;
use serde_json::Value;

use crate::pipelines;

/// The manifest of a stage that is right, to be spoilt.
fn sound() -> String {
    let place = pipelines::container("");
    fs_err::read_to_string(place.join("pipeline.yaml")).expect("it was written")
}

/// Asserts that `validate` finds a problem there, and that `run` ends with exit status 2 over it,
/// before it makes anything.
#[track_caller]
fn is_refused(manifest: impl AsRef<[u8]>, code: &str, line: u64, column: u64) {
    let place = Place::new();
    place.write("pipeline.yaml", manifest);
    let found = place
        .barecount(["validate", "pipeline.yaml", "-o", "json"])
        .finish()
        .exits_with(2)
        .json("diagnostics");
    let items = found["items"].as_array().cloned().unwrap_or_default();
    let expected =
        |item: &&Value| item["code"] == code && item["line"] == line && item["column"] == column;
    let place_of = format!("pipeline.yaml:{line}:{column}");
    assert!(
        items.iter().any(|item| expected(&item)),
        "{code} at {place_of}: {found:#}"
    );
    let place_and_code =
        |finished: barecount_e2e::process::Finished| finished.fails_with(2, code).tells(&place_of);
    place_and_code(place.barecount(["validate", "pipeline.yaml"]).finish());
    place_and_code(place.barecount(["run", "pipeline.yaml"]).finish());
    assert!(!place.state().exists(), "nothing was made");
}

#[test]
fn what_is_no_document_is_refused() {
    is_refused("apiVersion: [", "BC0101", 1, 14);
    is_refused("", "BC0110", 1, 1);
    is_refused(b"apiVersion: \xff\xfe".as_slice(), "BC0102", 1, 13);
    is_refused("a: &x 1\nb: *x\n", "BC0107", 1, 4);
    is_refused("a: 1\na: 2\n", "BC0106", 2, 1);
    is_refused("---\na: 1\n---\nb: 2\n", "BC0109", 3, 1);
}

#[test]
fn a_misspelt_key_or_value_is_refused_with_what_was_probably_meant() {
    let sound = sound();
    is_refused(
        sound.replace("  classification", "  clasification"),
        "BC0201",
        5,
        3,
    );
    is_refused(
        sound.replace("class: container", "class: contaner"),
        "BC0204",
        11,
        24,
    );
    let place = Place::new();
    place.write(
        "pipeline.yaml",
        sound.replace("class: container", "class: contaner"),
    );
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(2)
        .tells("contaner")
        .tells("container");
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    let sound = sound();
    is_refused(sound.replace("tenant: demo, ", ""), "BC0202", 3, 1);
    is_refused(
        sound.replace("application: 0", "application: some"),
        "BC0203",
        7,
        29,
    );
    is_refused(
        sound.replace("application: 0", "application: -1"),
        "BC0206",
        7,
        29,
    );
    is_refused(
        sound.replace("images/worker", "../worker"),
        "BC0208",
        11,
        85,
    );
    is_refused(
        sound.replace("name: worker", "name: \"Wor ker\""),
        "BC0207",
        3,
        19,
    );
}

#[test]
fn contradictions_are_refused() {
    let sound = sound();
    is_refused(
        sound.replace("unique: [id]", "unique: [no]"),
        "BC0217",
        21,
        26,
    );
    let twice = "      egress:\n        - { host: a.example, port: 443, protocol: tls }\n        \
                 - { host: a.example, port: 443, protocol: tcp }\n      outputs:";
    is_refused(sound.replace("      outputs:", twice), "BC0220", 15, 11);
}

/// A pipeline of SQL whose datasets have names that no column could have.
fn unusual_names() -> Place {
    let place = Place::new();
    place.write(
        "pipeline.yaml",
        "apiVersion: barecount.dev/v1
kind: Pipeline
metadata: { name: unusual, tenant: demo, owner: you@example.com }
spec:
  classification: public
  defaults:
    runner: { class: managed_etl, size: small, network_profile: private_vpc }
  stages:
    - name: first
      phase: kpi
      runner: { job: first.sql }
      outputs:
        - dataset: raw.my-orders
          format: parquet
          partition_by: [day]
          columns: [{ name: id, type: int64 }, { name: day, type: date }]
          tests: [{ unique: [id] }]
    - name: second
      phase: kpi
      runner: { job: second.sql }
      inputs:
        - { dataset: raw.my-orders, format: csv }
      outputs:
        - dataset: 2nd.2024_orders
          format: parquet
          columns: [{ name: id, type: int64 }]
",
    );
    place.write(
        "first.sql",
        "INSERT INTO raw.\"my-orders\" SELECT * FROM \
         (VALUES (1, DATE '2026-01-02'), (2, DATE '2026-01-03')) AS days (id, day)",
    );
    place.write(
        "second.sql",
        "INSERT INTO \"2nd\".\"2024_orders\" SELECT id + 10 AS id FROM raw.\"my-orders\"",
    );
    place
}

#[test]
fn datasets_of_every_name_that_a_manifest_takes_are_written_and_read() {
    let place = unusual_names();
    place
        .barecount(["validate", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    let exported = place
        .barecount(["outputs", "export", "2nd.2024_orders"])
        .finish()
        .exits_with(0);
    assert_eq!(exported.stdout, "id\n11\n12\n", "{exported}");
    place.nothing_is_left();
}

const REACHES_OUT: &str = "apiVersion: barecount.dev/v1
kind: Environment
metadata: { name: local }
spec:
  kind: development
  backends: { container: local }
  governance:
    matrix:
      - tenant: '*'
        allow:
          - { classes: [container], sizes: [small], network_profiles: [public_vpc_egress] }
  networks:
    public_vpc_egress: { allow: [my_account.db.example] }
";

#[test]
fn a_host_of_every_name_that_a_manifest_takes_can_be_declared() {
    let egress =
        "      egress:\n        - { host: my_account.db.example, port: 443, protocol: tls }\n";
    let place = pipelines::container_with("", egress);
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml")).expect("it was written");
    place.write(
        "pipeline.yaml",
        manifest.replace("private_vpc", "public_vpc_egress"),
    );
    place.write("environments/local.yaml", REACHES_OUT);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place.nothing_is_left();
}

#[test]
fn columns_that_no_table_could_have_are_refused_with_their_place() {
    let sound = sound();
    let split = |by: &str| {
        let declared = format!("mode: overwrite\n          partition_by: [{by}]");
        sound.replace("mode: overwrite", &declared)
    };
    is_refused(split("amount"), "BC0223", 17, 26);
    let caseless = sound.replace("name: amount", "name: ID");
    is_refused(caseless, "BC0218", 19, 23);
    let pattern = sound.replace(
        "type: \"decimal(10,2)\"",
        "type: string, pattern: \"a)|(b\"",
    );
    is_refused(pattern, "BC0224", 19, 54);
}

#[test]
fn all_problems_are_told_and_not_the_first_alone() {
    let place = Place::new();
    let manifest = sound()
        .replace("class: container", "class: contaner")
        .replace("application: 0", "application: some");
    place.write("pipeline.yaml", manifest);
    let run = place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .exits_with(2);
    run.tells("[BC0203]")
        .tells("[BC0204]")
        .tells("has 2 problems");
}

#[test]
fn a_manifest_that_is_not_there_or_no_file_is_refused() {
    let place = Place::new();
    place
        .barecount(["run", "none.yaml"])
        .finish()
        .exits_with(4)
        .tells("none.yaml");
    fs_err::create_dir(place.join("folder.yaml")).expect("a folder");
    place
        .barecount(["run", "folder.yaml"])
        .finish()
        .exits_with(2)
        .tells("regular file");
    place.write("large.yaml", vec![b'#'; 2 << 20]);
    place
        .barecount(["run", "large.yaml"])
        .finish()
        .fails_with(2, "BC0103");
    assert!(!place.state().exists(), "nothing was made");
}

#[test]
fn an_environment_that_does_not_exist_is_named_with_where_it_would_be() {
    let place = pipelines::container("");
    for verb in ["run", "build"] {
        place
            .barecount([verb, "pipeline.yaml", "--env", "moon"])
            .finish()
            .exits_with(4)
            .tells("`moon`")
            .tells("environments/moon.yaml");
    }
    assert!(!place.state().exists(), "nothing was made");
}

#[test]
fn an_environment_file_that_is_wrong_is_refused_with_the_place() {
    let place = pipelines::container("");
    place.write(
        "environments/odd.yaml",
        "apiVersion: barecount.dev/v1\nkind: Environment\nmetadata: { name: odd }\nspec:\n  \
         kind: development\n  bakends: { container: local }\n",
    );
    place
        .barecount(["run", "pipeline.yaml", "--env", "odd"])
        .finish()
        .fails_with(2, "BC0201")
        .tells("odd.yaml:6:3")
        .tells("backends");
}

#[test]
fn a_truncated_manifest_is_valid_or_refused_and_never_a_crash() {
    let sound = sound();
    let place = Place::new();
    for length in (0..sound.len()).step_by(37) {
        place.write("pipeline.yaml", &sound.as_bytes()[..length]);
        let status = place
            .barecount(["validate", "pipeline.yaml"])
            .finish()
            .status
            .code();
        assert!(matches!(status, Some(0 | 2)), "{status:?} at {length}");
    }
}

#[test]
fn a_package_that_is_no_zip_or_has_no_program_is_refused() {
    let place = pipelines::function("");
    place.write("worker.zip", "not a zip");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0503")
        .tells("worker.zip");
    barecount_e2e::programs::package(&place, "worker.zip", "other", &[]);
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0503")
        .tells("bootstrap");
    fs_err::remove_file(place.join("worker.zip")).expect("it was written");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(2, "BC0503")
        .tells("zip file");
    place.nothing_is_left();
}

#[test]
fn an_image_that_does_not_exist_or_has_a_broken_recipe_is_refused() {
    let place = pipelines::container("");
    place.write(
        "images/worker/build.yaml",
        "kind: image\nfiles: [{ from: none, to: /app/none }]\n",
    );
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0503")
        .tells("none");
    place.write("images/worker/build.yaml", "kind: imag\n");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(1, "BC0503")
        .tells("build.yaml");
    fs_err::remove_file(place.join("images/worker/build.yaml")).expect("it was written");
    place
        .barecount(["run", "pipeline.yaml"])
        .finish()
        .fails_with(2, "BC0503")
        .tells("build.yaml");
    place.nothing_is_left();
}
