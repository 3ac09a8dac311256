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
        (minimal("test", ""), vec!["BC0204"]),
        (minimal("staging", "  backends2: {}\n"), vec!["BC0201"]),
    ];
    for (text, codes) in cases {
        assert_eq!(load(&text).err(), Some(codes), "{text}");
    }
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

#[test]
fn outside_of_development_secrets_are_there_only_if_the_file_says_so() {
    let secrets = |kind, rest| load(&minimal(kind, rest)).map(|found| found.secrets);
    assert_eq!(secrets("development", ""), Ok(Some(SecretsSpec::default())));
    for kind in ["staging", "production"] {
        assert_eq!(secrets(kind, ""), Ok(None));
        let rest = "  secrets: { key_file: /keys/secrets }\n";
        let found = secrets(kind, rest).expect("valid").expect("it is there");
        assert_eq!(found.key_file.as_deref(), Some("/keys/secrets"));
    }
}

#[test]
fn a_store_is_encrypted_under_a_key_or_a_passphrase_and_not_both() {
    let both = "  secrets: { key_file: a, passphrase_file: b }\n";
    assert_eq!(load(&minimal("development", both)), Err(vec!["BC0301"]));
    let nul = "  secrets: { memory: \"a\\0\" }\n";
    assert!(load(&minimal("development", nul)).is_err());
}
