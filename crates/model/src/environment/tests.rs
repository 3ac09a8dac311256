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
            minimal(
                "staging",
                "  catalog: { container: { small: { disk: 15MiB } } }\n",
            ),
            vec!["BC0305"],
        ),
        (
            minimal("staging", "  catalog: { lambda: {} }\n"),
            vec!["BC0201"],
        ),
        (minimal("staging", APPROVED), vec!["BC0312"]),
        (
            minimal("staging", "  governance: { approvals: [] }\n"),
            vec!["BC0312"],
        ),
        (minimal("test", ""), vec!["BC0204"]),
        (minimal("staging", "  backends2: {}\n"), vec!["BC0201"]),
    ];
    for (text, codes) in cases {
        assert_eq!(load(&text).err(), Some(codes), "{text}");
    }
}

const APPROVED: &str = "  governance:\n    approvals:\n      - { scope: matrix, tenant: demo, pipeline: p, requester: a, \
     approver: b, justification: c, expires_at: \"2030-01-01T00:00:00Z\" }\n";

#[test]
fn an_older_environment_that_a_state_keeps_is_read_without_its_approvals() {
    let text = minimal("staging", APPROVED);
    let kept = Environment::load_kept("e.yaml", text.as_bytes());
    let kept = kept.unwrap_or_else(|d| panic!("{}", diagnostic::render(&d, &text)));
    assert_eq!(kept.approvers("demo"), BTreeSet::new());
}

#[test]
fn approvers_are_those_of_the_tenant_and_of_all_and_compare_as_accounts_do() {
    let text = minimal(
        "staging",
        "  governance:\n    approvers:\n      - { tenant: \"*\", accounts: [Olga] }\n      \
         - { tenant: demo, accounts: [otto] }\n      - { tenant: other, accounts: [oleg] }\n",
    );
    let found = load(&text).expect("valid");
    assert_eq!(
        found.approvers("demo"),
        BTreeSet::from(["olga".to_owned(), "otto".to_owned()])
    );
    assert_eq!(found.approvers("a"), BTreeSet::from(["olga".to_owned()]));
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

/// A tunnel with one peer, in which `from` is written as `to`.
fn tunnel(from: &str, to: &str) -> Result<Environment, Vec<Diagnostic>> {
    let networks = "  networks:
    vpn:
      resolver: 10.88.0.53:53
      tunnel:
        private_key: network/vpn.private-key
        address: [10.77.0.2/32, 'fd77::2/128']
        peers:
          - public_key: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
            preshared_key: network/vpn.shared-key
            endpoint: vpn.example.com:51820
            allowed_ips: [10.88.0.0/16, 'fd88::/64']
            keepalive: 25
";
    assert!(networks.contains(from), "{from}");
    let text = minimal("production", &networks.replacen(from, to, 1));
    Environment::load("e.yaml", text.as_bytes())
}

#[test]
fn a_tunnel_leads_to_what_lies_behind_its_peers() {
    let environment = tunnel("", "").unwrap_or_else(|d| panic!("{}", diagnostic::render(&d, "")));
    let vpn = environment.networks.vpn.expect("there is one");
    let reachable: Vec<String> = vpn.reachable().iter().map(ToString::to_string).collect();
    assert_eq!(reachable, ["10.88.0.0/16", "fd88::/64"]);
    let narrowed = tunnel("resolver:", "ranges: [10.88.1.0/24]\n      resolver:");
    let vpn = narrowed.expect("valid").networks.vpn.expect("there is one");
    assert_eq!(vpn.reachable(), vpn.ranges);
}

#[test]
fn a_tunnel_that_cannot_be_is_refused() {
    for (from, to, says) in [
        ("10.88.0.53:53", "10.99.0.53:53", "not behind the tunnel"),
        (
            "resolver:",
            "ranges: [10.0.0.0/8]\n      resolver:",
            "no peer's",
        ),
        (
            "resolver:",
            "interface: wg0\n      resolver:",
            "exclude each other",
        ),
        (", 'fd77::2/128'", "", "nothing can be sent to fd88::/64"),
        (
            "10.88.0.0/16,",
            "10.88.0.0/16, 10.88.0.0/16,",
            "allowed twice",
        ),
        ("'fd77::2/128'", "10.77.0.2", "is there twice"),
        (
            "private_key: network/vpn.private-key",
            "mtu: 1420",
            "private_key",
        ),
        (
            "vpn.example.com:51820",
            "vpn.example.com",
            "is not a host with a port",
        ),
    ] {
        let found = tunnel(from, to).expect_err(to);
        assert!(
            found.iter().any(|d| d.message.raw().contains(says)),
            "{to}: {found:?}"
        );
    }
    let neither = minimal(
        "production",
        "  networks: { vpn: { ranges: [10.0.0.0/8] } }\n",
    );
    assert_eq!(load(&neither), Err(vec!["BC0301"]));
}

#[test]
fn a_key_where_its_path_belongs_is_refused_and_not_repeated() {
    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    for path in ["network/vpn.private-key", "network/vpn.shared-key"] {
        let found = tunnel(path, key).expect_err("it is a key");
        assert_eq!(found.len(), 1, "{found:?}");
        let told = format!("{} {:?}", found[0].message, found[0].help);
        assert!(told.contains("key itself"), "{told}");
        assert!(!told.contains(&key[..12]), "{told}");
    }
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
