use super::*;
use crate::class::NetworkProfile;
use crate::manifest::Classification;
use crate::text::ColumnType;

fn manifest(input: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1\nkind: Pipeline\n\
         metadata: {{ name: report, tenant: demo, owner: data@example.com }}\n\
         spec:\n  classification: internal\n  stages:\n    - name: read\n      phase: utility\n      \
         runner: {{ class: container, size: small, network_profile: private_vpc, image: i }}\n      \
         timeout: 2m\n      inputs:\n        - {input}\n"
    )
}

fn loaded(input: &str) -> Loaded {
    let text = manifest(input);
    crate::pipeline::load("p.yaml", text.as_bytes())
        .unwrap_or_else(|d| panic!("{}", crate::diagnostic::render(&d, &text)))
}

fn codes_of(input: &str) -> Vec<&'static str> {
    let found = crate::pipeline::load("p.yaml", manifest(input).as_bytes());
    let found = found.err().unwrap_or_default();
    found.iter().map(|diagnostic| diagnostic.code).collect()
}

fn orders(owner: &str, written_within: Boundary) -> BTreeMap<DatasetName, Published> {
    let name = |name: &str| name.parse().expect("a column's name");
    let column = |of: &str| Column {
        name: name(of),
        column_type: ColumnType::String,
        nullable: true,
        pattern: None,
        description: None,
        sensitive: false,
        tolerance: None,
    };
    let published = Published {
        owner: Some(owner.to_owned()),
        version: 7,
        columns: vec![column("id"), column("region")],
        partition_by: vec![name("region")],
        written_within: vec![written_within],
    };
    [("raw.orders".parse().expect("a dataset's name"), published)].into()
}

fn internal(network_profile: NetworkProfile) -> Boundary {
    Boundary {
        network_profile,
        residency: None,
        classification: Classification::Internal,
    }
}

fn misfits(input: &str, published: &BTreeMap<DatasetName, Published>) -> Vec<&'static str> {
    let mut loaded = loaded(input);
    let found = loaded.import(published);
    found.iter().map(|misfit| misfit.code.id).collect()
}

const ORDERS: &str = "{ dataset: raw.orders, from: shop }";

#[test]
fn a_dataset_of_another_pipeline_is_known_once_it_was_looked_at() {
    let published = orders("shop", internal(NetworkProfile::PrivateVpc));
    let mut loaded = loaded(ORDERS);
    let dataset = "raw.orders".parse().expect("a dataset's name");
    assert_eq!(loaded.pipeline.columns_of(&dataset), None);
    assert_eq!(loaded.import(&published), []);
    let (columns, partition_by) = loaded.pipeline.columns_of(&dataset).expect("it is known");
    assert_eq!(loaded.pipeline.imports[&dataset].version, 7);
    assert_eq!((columns.len(), partition_by.len()), (2, 1));
    assert!(loaded.pipeline.stages[0].depends_on.is_empty());
}

#[test]
fn what_is_not_there_or_a_third_pipelines_is_refused() {
    let of_shop = orders("shop", internal(NetworkProfile::PrivateVpc));
    assert_eq!(misfits(ORDERS, &BTreeMap::new()), ["BC0733"]);
    assert_eq!(
        misfits("{ dataset: raw.orders, from: till }", &of_shop),
        ["BC0734"]
    );
}

#[test]
fn what_is_said_of_it_has_to_fit_it() {
    let published = orders("shop", internal(NetworkProfile::PrivateVpc));
    let with = |more: &str| format!("{{ dataset: raw.orders, from: shop, {more} }}");
    for (more, expected) in [
        ("format: files", "BC0226"),
        ("partitions: [\"year=2024\"]", "BC0223"),
        ("partitions: [\"region=north\", \"amount=1\"]", "BC0223"),
    ] {
        assert_eq!(misfits(&with(more), &published), [expected], "{more}");
    }
    assert!(misfits(&with("partitions: [\"region=north\"]"), &published).is_empty());
}

#[test]
fn data_that_was_written_within_a_stricter_boundary_crosses_only_if_that_is_declared() {
    let strict = Boundary {
        classification: Classification::Restricted,
        ..internal(NetworkProfile::PrivateVpc)
    };
    let published = orders("shop", strict.clone());
    assert_eq!(misfits(ORDERS, &published), ["BC0232"]);
    let mut loaded =
        loaded("{ dataset: raw.orders, from: shop, crossing: { reason: counts are public } }");
    assert_eq!(loaded.import(&published), []);
    let crossings = &loaded.pipeline.stages[0].crossings;
    assert_eq!((crossings.len(), &crossings[0].from), (1, &strict));
}

#[test]
fn a_pipeline_reads_its_own_datasets_and_files_without_from() {
    assert_eq!(
        codes_of("{ dataset: raw.orders, from: report }"),
        ["BC0226"]
    );
    assert_eq!(codes_of("{ file: a.csv, name: a, from: shop }"), ["BC0226"]);
    assert_eq!(codes_of("{ dataset: raw.orders }"), ["BC0212"]);
}
