use super::*;

const EXAMPLE: &[u8] = include_bytes!("../../../../examples/fx-rates/environments/local.yaml");

fn load(text: &str) -> Result<Environment, Vec<&'static str>> {
    Environment::load("e.yaml", text.as_bytes()).map_err(|diagnostics| {
        diagnostics
            .iter()
            .map(|diagnostic| diagnostic.code)
            .collect()
    })
}

fn minimal(kind: &str, rest: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1\nkind: Environment\nmetadata: {{ name: e }}\nspec:\n  kind: {kind}\n  backends: {{ container: local }}\n{rest}"
    )
}

#[test]
fn the_example_says_in_full_what_holds_without_a_file() {
    let example = Environment::load("local.yaml", EXAMPLE)
        .unwrap_or_else(|d| panic!("{}", diagnostic::render(&d, "")));
    assert_eq!(example.matrix("demo"), Environment::local().matrix("demo"));
    assert_eq!(
        Environment {
            grants: Vec::new(),
            ..example
        },
        Environment {
            grants: Vec::new(),
            ..Environment::local()
        }
    );
}

#[test]
fn a_tenant_is_granted_its_own_row_and_that_of_all_tenants() {
    let environment = load(&minimal(
        "staging",
        "  governance:\n    matrix:\n\
         \x20     - { tenant: '*', allow: [{ classes: [container], sizes: [small], network_profiles: [vpn] }] }\n\
         \x20     - { tenant: acme, allow: [{ classes: [container], sizes: [large], network_profiles: [vpn] }] }\n",
    ))
    .expect("valid");
    assert_eq!(environment.matrix("acme").len(), 2);
    assert_eq!(environment.matrix("other").len(), 1);
    assert!(!environment.refresh_lock && !environment.process_isolation);
}

#[test]
fn without_a_matrix_nothing_is_granted() {
    assert!(
        load(&minimal("development", ""))
            .expect("valid")
            .matrix("demo")
            .is_empty()
    );
}

#[test]
fn an_override_changes_one_profile_and_leaves_the_rest() {
    let environment = load(&minimal(
        "development",
        "  catalog: { container: { small: { memory: 256MiB } } }\n",
    ))
    .expect("valid");
    let changed = environment
        .catalog
        .profile(RunnerClass::Container, Size::Small);
    let builtin = Catalog::builtin();
    let before = builtin
        .profile(RunnerClass::Container, Size::Small)
        .expect("a tier");
    let memory = crate::text::ByteSize::from_mib(256);
    assert_eq!(changed, Some(&Profile { memory, ..*before }));
}

#[test]
fn what_an_environment_cannot_promise_is_refused_under_its_code() {
    let cases = [
        (
            minimal("production", "  lock: { refresh_on_run: true }\n"),
            vec!["BC0302"],
        ),
        (
            minimal("production", "  isolation: { process: true }\n"),
            vec!["BC0303"],
        ),
        (
            minimal("staging", "  catalog: { container: { custom: {} } }\n"),
            vec!["BC0305"],
        ),
        (
            minimal(
                "staging",
                "  catalog: { container: { small: { memory: 1MiB } } }\n",
            ),
            vec!["BC0305"],
        ),
        (
            minimal("staging", "  catalog: { lambda: {} }\n"),
            vec!["BC0201"],
        ),
        (
            minimal("staging", &approved("crossing", "")),
            vec!["BC0301"],
        ),
        (
            minimal("staging", &approved("matrix", "datasets: [raw.a], ")),
            vec!["BC0301"],
        ),
        (minimal("test", ""), vec!["BC0204"]),
        (minimal("staging", "  backends2: {}\n"), vec!["BC0201"]),
    ];
    for (text, codes) in cases {
        assert_eq!(load(&text).err(), Some(codes), "{text}");
    }
}

fn approved(scope: &str, more: &str) -> String {
    format!(
        "  governance:\n    approvals:\n      - {{ scope: {scope}, {more}tenant: demo, pipeline: p, \
         requester: a, approver: b, justification: c, expires_at: \"2030-01-01T00:00:00Z\" }}\n"
    )
}

#[test]
fn an_approval_of_a_crossing_names_what_crosses() {
    let text = minimal("staging", &approved("crossing", "datasets: [raw.a], "));
    assert_eq!(load(&text).map(|found| found.approvals.len()), Ok(1));
}

fn residing(profile: &str) -> Pipeline {
    let text = format!(
        "apiVersion: barecount.dev/v1\nkind: Pipeline\n\
         metadata: {{ name: p, tenant: demo, owner: data@example.com }}\n\
         spec:\n  residency: plant-7\n  stages:\n    - name: a\n      phase: utility\n      \
         runner: {{ class: container, size: small, network_profile: {profile}, image: i }}\n      \
         timeout: 2m\n"
    );
    crate::pipeline::load("p.yaml", text.as_bytes())
        .unwrap_or_else(|d| panic!("{}", diagnostic::render(&d, &text)))
        .pipeline
}

#[test]
fn data_that_must_stay_in_a_place_is_worked_on_only_where_that_place_is() {
    let unmet = |rest: &str, profile: &str| {
        let environment = load(&minimal("staging", rest)).expect("valid");
        let obstacles = environment.obstacles(&residing(profile));
        obstacles.iter().any(|o| o.code == "BC0311")
    };
    assert!(unmet("", "vpn"));
    assert!(unmet("  residency: [plant-9]\n", "vpn"));
    assert!(!unmet("  residency: [plant-9, plant-7]\n", "vpn"));
    let facility = "  networks: { on_prem_agent: { facility: plant-7, ranges: [10.0.0.0/8] } }\n";
    assert!(!unmet(facility, "on_prem_agent"));
    assert!(unmet(facility, "vpn"), "a vpn stage is not at the facility");
}

#[test]
fn production_lets_nothing_through_that_was_not_declared() {
    let audited = "  networks: { audit: true }\n";
    let refused = Environment::load("e.yaml", minimal("production", audited).as_bytes());
    let codes: Vec<_> = refused
        .expect_err("production is not audited")
        .iter()
        .map(|found| found.code)
        .collect();
    assert_eq!(codes, [codes::INVALID_ENVIRONMENT.id]);
    assert!(Environment::load("e.yaml", minimal("staging", audited).as_bytes()).is_ok());
}
